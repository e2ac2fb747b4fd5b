"""A causal language model as the policy: one from the hub, from a folder, or a small one made on the spot."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import Field, model_validator

from rlhf_core.errors import TrainingError
from rlhf_core.lm.dtypes import Dtype
from rlhf_core.lm.loading import Quantised
from rlhf_core.lm.lora import Lora
from rlhf_core.lm.starter import Starter
from rlhf_core.lm.vllm_server import Vllm, VllmServer
from rlhf_core.plugins import LanguageModelPolicy, PluginConfig
from rlhf_core.records import Answer, Demonstration, Prompt, Sample
from rlhf_plugins.policies._streams import row_seed

if TYPE_CHECKING:
    from rlhf_core.lm.rollout import Rollouts

STARTER = "starter"


class CausalLm(LanguageModelPolicy):
    """Any Hugging Face causal language model; `starter` makes a small one from the pipeline's own texts."""

    class Config(PluginConfig):
        """Which model, how it answers, and what of it is trained."""

        model: str = STARTER
        """A name on the Hugging Face hub, a folder, or `starter`: a small Llama, its tokenizer learnt from the data."""
        max_prompt_tokens: int = Field(128, ge=1)
        """Longer prompts lose their beginning."""
        max_new_tokens: int = Field(64, ge=1)
        """Answers are cut there if they did not end by themselves."""
        temperature: float = Field(1.0, gt=0)
        """Logits are divided by it, in sampling and in every log-probability afterwards."""
        top_p: float = Field(1.0, gt=0, le=1)
        """Sample from the fewest tokens that hold this much probability together. This and the next two hold where
        answers are asked for, not where an optimizer trains: it must learn from what the whole distribution says."""
        top_k: int = Field(0, ge=0)
        """Sample from this many most likely tokens; 0 is all, 1 is greedy."""
        min_new_tokens: int = Field(0, ge=0)
        """Tokens before an answer may end."""
        stop: tuple[Annotated[str, Field(min_length=1)], ...] = ()
        """Strings that end an answer besides the model's own end token, in training too; e.g. "\\n" for one line."""
        batch_size: int = Field(256, ge=1)
        """Answers sampled side by side; the memory limit, not a matter of quality."""
        dtype: Dtype = "auto"
        """Number format to compute in; `auto` picks what this machine is fast in (`rlhf doctor` says which and why)."""
        lora: Lora | None = None
        """Train low-rank adapters instead of all weights."""
        quantise: Quantised | None = None
        """`4bit` keeps the frozen base in NF4 (QLoRA; Dettmers et al. 2023): a third of bf16's memory, a little less
        exact and slower. Only with `lora`; takes the extra `quantised` (bitsandbytes)."""
        vllm: Vllm | None = None
        """A vLLM server that samples the answers, in training too, instead of this process. Only with `lora`."""
        starter: Starter = Starter()
        """Size of the model that `starter` makes."""
        trust_remote_code: bool = False
        """Run the Python code that some models bring along. Only for code you have read."""

        @model_validator(mode="after")
        def _adapters_need_a_base(self) -> Self:
            if self.lora and self.model == STARTER:
                raise ValueError("lora adapts a trained model, and a starter begins untrained: drop one of the two")
            if self.vllm and not self.lora:
                raise ValueError("the server is sent adapters, not whole models: add lora, or drop vllm")
            if self.quantise and not self.lora:
                raise ValueError("a quantised model cannot be trained itself: add lora, or drop quantise")
            return self

    @classmethod
    def reads(cls, config: Any) -> tuple[Path, ...]:
        """The model's folder, where it is one."""
        return () if config.model == STARTER else (Path(config.model),)

    def set_up(self) -> None:
        """Answers as the config says."""
        self.temperature, self.stop = self.config.temperature, self.config.stop

    def prepare(self, prompts: Iterable[Prompt], demonstrations: Iterable[Answer]) -> None:
        """Load the model of the config, or make a starter from these texts with the run's seed."""
        from rlhf_core.lm.model import LanguageModel
        from rlhf_core.lm.starter import make_starter

        config = self.config
        limits = {"max_prompt_tokens": config.max_prompt_tokens, "max_new_tokens": config.max_new_tokens}
        if config.model == STARTER:
            texts = _texts(prompts, demonstrations)
            self.lm = make_starter(texts, shape=config.starter, seed=self.run.seed, dtype=config.dtype, **limits)
        else:
            self.lm = LanguageModel.from_pretrained(
                config.model,
                dtype=config.dtype,
                lora=config.lora,
                quantise=config.quantise,
                trust_remote_code=config.trust_remote_code,
                **limits,
            )
        self._engage()

    def sample(self, prompts: Sequence[Prompt], n: int, seed: int) -> list[list[Sample]]:
        """`n` answers to each prompt, each from its own random stream, named by `seed`, the prompt and a number.

        Prompts of similar length share a batch, so that little is computed on padding. Raises TrainingError where
        the model's probabilities are not finite.
        """
        lm = self.lm
        already_cut = len(lm.format.cut)
        lengths = [len(tokens) for tokens in lm.format.prompt_tokens(prompts)]
        if len(lm.format.cut) > already_cut:
            self.run.note(
                f"prompts that are longer than max_prompt_tokens ({lm.max_prompt_tokens}) and lost their beginning: "
                f"{len(lm.format.cut)}"
            )
        order = sorted(range(len(prompts)), key=lambda i: lengths[i])
        answers: list[list[Sample]] = [[] for _ in prompts]
        width = max(1, self.config.batch_size // n)
        for start in range(0, len(order), width):
            places = [i for i in order[start : start + width] for _ in range(n)]
            seeds = [row_seed(seed, prompts[i], k) for i in order[start : start + width] for k in range(n)]
            rollouts = lm.rollout(
                [prompts[i] for i in places],
                seeds=seeds,
                stop=self.stop,
                temperature=self.temperature,
                top_k=self.config.top_k,
                top_p=self.config.top_p,
                min_new_tokens=self.config.min_new_tokens,
            )
            for i, sample in zip(places, self._records([prompts[i] for i in places], rollouts), strict=True):
                answers[i].append(sample)
            self.run.progress(min(start + width, len(order)), len(order), "prompts answered")
        return answers

    def save(self, folder: Path) -> None:
        """A Hugging Face folder; with adapters, these and the name of the model below."""
        self.lm.save(folder)

    def load(self, folder: Path) -> None:
        """What `save` wrote."""
        from rlhf_core.lm.model import LanguageModel

        self.lm = LanguageModel.load(folder, trust_remote_code=self.config.trust_remote_code)
        self._engage()

    def _engage(self) -> None:
        """Have a server sample, where the config names one."""
        self.lm.engine = VllmServer(self.config.vllm) if self.config.vllm is not None else None

    def _records(self, prompts: Sequence[Prompt], rollouts: Rollouts) -> Iterator[Sample]:
        if not rollouts.logprobs.isfinite().all():
            raise TrainingError(
                "the model's probabilities are not finite", remedy="Its weights are damaged: go back to an earlier one."
            )
        texts = self.lm.decode(rollouts.tokens, stop=self.stop)
        lengths = rollouts.mask.sum(1).tolist()
        rows = zip(rollouts.tokens.tolist(), rollouts.logprobs.tolist(), rollouts.finished.tolist(), strict=True)
        for prompt, text, length, (tokens, logprobs, finished) in zip(prompts, texts, lengths, rows, strict=True):
            yield Sample(
                prompt_id=prompt.id,
                text=text,
                policy=self.version or "data",
                round=self.round,
                tokens=tuple(tokens[:length]),
                logprobs=tuple(logprobs[:length]),
                finished=finished,
            )


def _texts(prompts: Iterable[Prompt], demonstrations: Iterable[Answer]) -> Iterator[str]:
    """Everything the starter will have to read or write; answers as they follow their prompts, behind a space."""
    for prompt in prompts:
        yield prompt.content
    for answer in demonstrations:
        yield answer.question.prompt.content
        if isinstance(answer.feedback, Demonstration) and answer.feedback.text is not None:
            yield f" {answer.feedback.text}"
