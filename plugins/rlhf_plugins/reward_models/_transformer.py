"""Reward models on a transformer with a head, started from the policy, a causal language model, or an encoder."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pydantic import Field, model_validator

from rlhf_core.errors import TrainingError
from rlhf_core.plugins import FitJob, LanguageModelPolicy, Policy
from rlhf_core.records import Prompt
from rlhf_plugins.reward_models._learning import Asked, LearningConfig, LearntReward

if TYPE_CHECKING:
    import torch

    from rlhf_core.lm.heads import ScalarHead
    from rlhf_core.lm.model import LanguageModel
    from rlhf_core.lm.text import PromptFormat
    from rlhf_plugins.reward_models._scoring import Row


class TransformerConfig(LearningConfig):
    """What it starts from and how it is trained."""

    model: str = "policy"
    """`policy`: starts from the warm-started policy's weights, which already read this kind of text. Otherwise a
    causal language model, or an encoder such as BERT, by its name on the hub or its folder."""
    adapters: bool = False
    """Train adapters and a head on the policy's own frozen base instead of a whole network; they begin as the policy's.
    Needs a policy with `lora`. While the policy is optimised, both are one base in memory."""
    max_prompt_tokens: int | None = Field(None, ge=1)
    """Longer prompts lose their beginning. Left out: as the policy's."""
    max_answer_tokens: int | None = Field(None, ge=2)
    """Longer answers lose their end. Left out: as the policy's."""

    @model_validator(mode="after")
    def _adapters_sit_on_the_policy(self) -> Self:
        if self.adapters and self.model != "policy":
            raise ValueError("adapters sit on the policy's own base: leave `model` out")
        return self


class TransformerReward(LearntReward):
    """Values at the end of each answer; answers to one prompt share its computation."""

    Config = TransformerConfig

    def set_up(self) -> None:
        """No model before `fit` or `load`."""
        super().set_up()
        self.scalar: ScalarHead | None = None
        """The transformer with its head; raw values, neither centred nor calibrated."""
        self.format: PromptFormat
        self.max_answer_tokens = 0
        self.compute: torch.dtype

    def _outputs(self, items: Sequence[Any]) -> int:
        """Numbers that the head gives for each answer."""
        return 1

    def save(self, folder: Path) -> None:
        """Weights as safetensors, the tokenizer, the rest as JSON; needs neither the policy nor the hub to load."""
        self._learnt("Fit it before saving it.")
        assert self.scalar is not None
        self.scalar.save(folder)
        self.format.tokenizer.save_pretrained(folder)
        description = {
            "max_prompt_tokens": self.format.max_prompt_tokens,
            "max_answer_tokens": self.max_answer_tokens,
            "compute_dtype": str(self.compute).removeprefix("torch."),
            "packs": self._valuer.packs,
        }
        self._write(folder, description | self._more())

    def load(self, folder: Path) -> None:
        """Ready to score, and to be continued from."""
        import torch
        from transformers import AutoTokenizer

        from rlhf_core.lm.adapted_head import AdaptedHead
        from rlhf_core.lm.heads import ScalarHead
        from rlhf_core.lm.loading import best_device
        from rlhf_core.lm.text import PromptFormat

        description = self._read(folder)
        scalar = (AdaptedHead if self.config.adapters else ScalarHead).load(folder, device=best_device())
        text_format = PromptFormat(AutoTokenizer.from_pretrained(folder), description["max_prompt_tokens"])
        self._take(scalar, text_format, description["max_answer_tokens"], getattr(torch, description["compute_dtype"]))
        self._valuer.packs = description["packs"]
        self._take_more(description)

    def share_base(self, policy: Policy) -> None:
        """Where this is adapters: on the policy's base from now on."""
        from rlhf_core.lm.adapted_head import AdaptedHead

        if isinstance(self.scalar, AdaptedHead) and isinstance(policy, LanguageModelPolicy):
            self.scalar.share_base(policy.lm)

    def value_start(self, policy: Policy) -> ScalarHead | None:
        """A copy, where it gives one number and reads the policy's tokens from left to right."""
        from rlhf_core.lm.forward import is_encoder

        if self.scalar is None or self.scalar.head.out_features > 1 or not isinstance(policy, LanguageModelPolicy):
            return None
        if is_encoder(self.scalar.backbone.config):
            return None  # it would see the tokens to come
        if self.format.tokenizer.get_vocab() != policy.lm.tokenizer.get_vocab():
            return None
        start = copy.deepcopy(self.scalar)
        start.rescale(self.offset, self.temperature)
        return start

    def _more(self) -> dict[str, Any]:
        """What this kind keeps beside the weights, as JSON."""
        return {}

    def _take_more(self, description: dict[str, Any]) -> None:
        """What `_more` kept."""

    def _start(self, job: FitJob, items: Sequence[Any] = ()) -> None:
        """The untrained model: the last round's, the policy's weights, or a model by name."""
        from rlhf_core.lm.text import PromptFormat
        from rlhf_plugins.reward_models._bradley_terry import set_dropout

        previous, outputs = job.previous, self._outputs(items)
        if isinstance(previous, TransformerReward) and self._continues(previous):
            assert previous.scalar is not None
            if previous.scalar.head.out_features == outputs:
                scalar = copy.deepcopy(previous.scalar)
                self._take(scalar, previous.format, previous.max_answer_tokens, previous.compute)
                set_dropout(scalar, self.config.dropout)
                return
            self.run.note("the last round's reward model has other criteria: learnt anew")
        base = job.base.lm if isinstance(job.base, LanguageModelPolicy) else None
        most_prompt = self.config.max_prompt_tokens or (base.max_prompt_tokens if base else None)
        most_answer = self.config.max_answer_tokens or (base.max_new_tokens if base else None)
        if most_prompt is None or most_answer is None or (base is None and self.config.model == "policy"):
            raise TrainingError(
                "there is no language-model policy that the reward model could start from",
                remedy="Set `reward.model` to a model's name or folder, with `max_prompt_tokens` and "
                "`max_answer_tokens`.",
            )
        scalar, tokenizer, compute = self._untrained(base, most_prompt, most_answer, outputs)
        # Kept in float32, because lower precision swallows small updates; `compute` is what it is computed in.
        self._take(scalar.float(), PromptFormat(tokenizer, most_prompt), most_answer, compute)
        set_dropout(scalar, self.config.dropout)

    def _untrained(
        self, base: LanguageModel | None, most_prompt: int, most_answer: int, outputs: int
    ) -> tuple[ScalarHead, Any, torch.dtype]:
        """What `model` names with a head on it, its tokenizer, and what to compute in."""
        from rlhf_core.lm.adapted_head import AdaptedHead
        from rlhf_core.lm.dtypes import compute_dtype
        from rlhf_core.lm.forward import is_encoder
        from rlhf_core.lm.heads import ScalarHead
        from rlhf_core.lm.loading import load_config, load_encoder
        from rlhf_core.lm.model import LanguageModel

        if self.config.model == "policy":
            assert base is not None
            context = getattr(base.model.config.get_text_config(), "max_position_embeddings", None)
            _check_context(context, most_prompt, most_answer)
            if self.config.adapters:
                return AdaptedHead.on(base, outputs=outputs), base.tokenizer, base.compute_dtype
            return ScalarHead.from_language_model(base, outputs=outputs), base.tokenizer, base.compute_dtype
        config = load_config(self.config.model)
        if is_encoder(config):
            backbone, tokenizer = load_encoder(self.config.model)
            # Of some architectures a few positions are for padding; then the tokenizer says how many are left.
            context = getattr(config, "max_position_embeddings", None) or tokenizer.model_max_length
            _check_context(min(context, tokenizer.model_max_length), most_prompt, most_answer)
            return ScalarHead(backbone, outputs=outputs), tokenizer, compute_dtype("auto", config.hidden_size)
        lm = LanguageModel.from_pretrained(self.config.model, max_prompt_tokens=most_prompt, max_new_tokens=most_answer)
        return ScalarHead(lm.model.get_decoder(), outputs=outputs), lm.tokenizer, lm.compute_dtype

    def _take(self, scalar: ScalarHead, text_format: PromptFormat, answer_tokens: int, compute: torch.dtype) -> None:
        from rlhf_plugins.reward_models._scoring import Valuer

        self.scalar, self.format, self.max_answer_tokens, self.compute = scalar, text_format, answer_tokens, compute
        self._valuer = Valuer(scalar, text_format.pad_id, compute)

    def _tokens(self, prompts: Sequence[Prompt], texts: Sequence[str]) -> tuple[list[list[int]], list[list[int]]]:
        """Tokens of prompts and of answers; every answer ends with EOS, where its value is read, even a cut one."""
        most, end = self.max_answer_tokens, self.format.eos_id
        answers = [
            tokens if len(tokens) <= most else [*tokens[: most - 1], end]
            for tokens in self.format.answer_tokens(texts, prompts)
        ]
        return self.format.prompt_tokens(prompts), answers

    def _rows(self, asked: Sequence[Asked]) -> list[Row]:
        from rlhf_plugins.reward_models._scoring import Row

        texts = [text for one in asked for text in one.answers]
        prompts, answers = self._tokens([one.prompt for one in asked for _ in one.answers], texts)
        rows, start = [], 0
        for one in asked:
            end = start + len(one.answers)
            rows.append(Row(prompts[start], answers[start:end]))
            start = end
        return rows

    def _check(self, rows: Sequence[Row]) -> None:
        # Of several answers to a row, because what is trained on rows of one is scored on rows of many.
        packed = [row._replace(answers=[answer for other in rows[:3] for answer in other.answers]) for row in rows[:2]]
        if not self._valuer.check(packed):
            self.run.note("this architecture cannot share a prompt between answers: each is computed on its own")


def _check_context(context: int | None, prompt: int, answer: int) -> None:
    """Raise TrainingError where prompt and answer are together more than the model can see."""
    if context is not None and prompt + answer > context:
        raise TrainingError(
            f"max_prompt_tokens {prompt} and max_answer_tokens {answer} are together more than the {context} tokens "
            "the model can see",
            remedy=f"Make their sum at most {context}.",
        )
