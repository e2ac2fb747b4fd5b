"""Reward model `sequence_classifier`: a finished reward model or classifier of the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from rlhf_core.errors import DataError
from rlhf_core.plugins import TEXT, PluginConfig, RewardModel, Scores
from rlhf_core.records import Prompt, Sample
from rlhf_plugins.reward_models._learning import text_of


class SequenceClassifier(RewardModel):
    """Any `AutoModelForSequenceClassification`: reward models with one output, classifiers with several labels.

    Learns nothing. One output is the score; of several labels the wanted one's log-odds. `criteria` holds each label's
    probability, so that a toxicity classifier also serves as a scorer.
    """

    modality = TEXT

    class Config(PluginConfig):
        """Which model, and what it reads."""

        model: str
        """Hub name or folder."""
        revision: str | None = None
        """Commit, tag or branch on the hub; name a commit to get the same model for ever."""
        trust_remote_code: bool = False
        """Run Python code that the model brings. Read it first."""
        reads_as: Literal["auto", "chat", "pair", "answer"] = "auto"
        """How prompt and answer become one text. `chat`: through the tokenizer's chat template. `pair`: as two
        segments. `answer`: the answer alone. `auto`: `chat` where there is a template, else `pair`."""
        label: str | None = None
        """Of several labels, the wanted one, by name. Unneeded for models with one output."""
        unwanted: bool = False
        """The label (or the one output) is what the policy should avoid: scores change their sign."""
        max_tokens: int = Field(512, ge=1)
        """Longer texts lose their beginning (`chat`), their answer's end otherwise."""
        offset: float = 0.0
        """Subtracted from every score."""
        scale: float = Field(1.0, gt=0)
        """What every score is divided by."""

    @classmethod
    def reads(cls, config: Any) -> tuple[Path, ...]:
        """The model's folder, where it is one."""
        return (Path(config.model),) if Path(config.model).is_dir() else ()

    def set_up(self) -> None:
        """Nothing is loaded before it is used."""
        self._loaded: tuple[Any, Any] | None = None

    def score(self, prompts: Sequence[Prompt], samples: Sequence[Sample]) -> Scores:
        """Raises DataError where the model cannot be loaded or has no such label."""
        if not samples:
            return Scores([])
        import numpy as np

        from rlhf_plugins.reward_models._classifier import load_classifier, logits

        config = self.config
        if self._loaded is None:
            self._loaded = load_classifier(config.model, config.revision, config.trust_remote_code)
        model, tokenizer = self._loaded
        rows, more = self._encode(tokenizer, prompts, [text_of(sample, self) for sample in samples])
        found = logits(model, model.config.pad_token_id, rows, **more)
        sign = -1.0 if config.unwanted else 1.0
        if found.shape[1] == 1:
            return Scores(((sign * found[:, 0] - config.offset) / config.scale).tolist())
        names = [str(model.config.id2label[i]) for i in range(found.shape[1])]
        if config.label not in names:
            what = "no `label` is named" if config.label is None else f"it has no label `{config.label}`"
            raise DataError(
                f"the classifier tells {len(names)} labels apart, and {what}",
                where=config.model,
                remedy=f"Set `label` to one of {', '.join(names)}.",
            )
        wanted = names.index(config.label)
        shares = np.exp(found - found.max(axis=1, keepdims=True))
        shares /= shares.sum(axis=1, keepdims=True)
        others = np.delete(found, wanted, axis=1)
        top = others.max(axis=1)
        odds = found[:, wanted] - (top + np.log(np.exp(others - top[:, None]).sum(axis=1)))
        criteria = {name: shares[:, i].tolist() for i, name in enumerate(names)}
        return Scores(((sign * odds - config.offset) / config.scale).tolist(), criteria=criteria)

    def _encode(
        self, tokenizer: Any, prompts: Sequence[Prompt], texts: Sequence[str]
    ) -> tuple[list[list[int]], dict[str, list[list[int]]]]:
        """Token rows, and the token types where the model knows segments."""
        config = self.config
        how = config.reads_as
        if how == "auto":
            how = "chat" if tokenizer.chat_template is not None else "pair"
        if how == "chat":
            if tokenizer.chat_template is None:
                raise DataError("the tokenizer has no chat template", where=config.model, remedy="Set reads_as: pair.")
            rendered = [
                tokenizer.apply_chat_template(_turns(prompt, text), tokenize=False)
                for prompt, text in zip(prompts, texts, strict=True)
            ]
            encoded = tokenizer(rendered, add_special_tokens=False)
            return [row[-config.max_tokens :] for row in encoded["input_ids"]], {}
        options = {"truncation": True, "max_length": config.max_tokens}
        if how == "pair":
            # Of both segments the longer one is cut, so that a long prompt never crowds out the answer.
            encoded = tokenizer([prompt.content for prompt in prompts], list(texts), **options)
        else:
            encoded = tokenizer(list(texts), **options)
        more = {name: encoded[name] for name in ("token_type_ids",) if name in encoded}
        # An empty text may encode to nothing at all, which no model can read.
        return [row or [tokenizer.pad_token_id] for row in encoded["input_ids"]], more


def _turns(prompt: Prompt, answer: str) -> list[dict[str, str]]:
    asked = [message.model_dump() for message in prompt.messages] or [{"role": "user", "content": prompt.content}]
    return [*asked, {"role": "assistant", "content": answer}]
