"""Reward model `trl_reward`: TRL's RewardTrainer behind the loop's contract."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from rlhf_core.errors import RlhfError, TrainingError
from rlhf_core.metrics import Metric
from rlhf_core.plugins import TEXT, FitJob, LanguageModelPolicy, PluginConfig, RewardModel, Scores
from rlhf_core.records import Comparison, Prompt, Ranking, Rating, Sample
from rlhf_plugins.reward_models._learning import text_of

if TYPE_CHECKING:
    from rlhf_core.feedback.dataset import Pair
    from rlhf_core.lm.text import PromptFormat

DESCRIPTION = "trl_reward.json"


class TrlReward(RewardModel):
    """A sequence classifier with one output, trained by TRL's RewardTrainer on chosen and rejected answers.

    What TRL learns from has no ties and no doubt: a tied pair is left out, an unsure one counts as sure. `pairwise`
    learns from both, calibrates its scores and goes on after a kill; this one is for comparing with TRL, and for those
    who trust it more. A killed fit starts anew.
    """

    modality = TEXT
    learns_from = frozenset({Comparison, Ranking, Rating})

    class Config(PluginConfig):
        """What it starts from, and TRL's settings."""

        model: str = "policy"
        """`policy`: starts from the warm-started policy's weights. Otherwise a model by hub name or folder."""
        epochs: int = Field(1, ge=1)
        """Passes over the training pairs."""
        batch: int = Field(32, ge=1)
        """Pairs in one step."""
        lr: float = Field(3e-4, gt=0)
        """Learning rate at its height; it falls to 0."""
        weight_decay: float = Field(0.05, ge=0)
        """Of AdamW."""
        centre: float | None = Field(None, ge=0)
        """TRL's `center_rewards_coefficient`: pulls the mean reward of a pair to 0."""
        max_prompt_tokens: int | None = Field(None, ge=1)
        """Longer prompts lose their beginning. Left out: as the policy's."""
        max_answer_tokens: int | None = Field(None, ge=2)
        """Longer answers lose their end. Left out: as the policy's."""

    def set_up(self) -> None:
        """No model before `fit` or `load`."""
        self.model: Any = None
        self.format: PromptFormat
        self.max_answer_tokens = 0

    def fit(self, job: FitJob) -> dict[str, Metric]:
        """Train on `job.train`. Metrics are those of `rlhf_core.health` on `job.validation`, which trained nothing."""
        from rlhf_core import health
        from rlhf_plugins.reward_models._trl import train

        pairs = job.train.pairs()
        decided = [pair for pair in pairs if pair.probability != 0.5]
        if not decided:
            raise TrainingError(
                f"no preference to learn from: {len(job.train)} answers on training prompts hold {len(pairs)} pairs, "
                "none of them decided",
                remedy="Ask more questions (`ask.questions`), or annotators who compare.",
            )
        if len(decided) < len(pairs):
            self.run.note(f"{len(pairs) - len(decided)} tied pairs left out: TRL's trainer learns from winners alone")
        self._start(job)
        chosen, rejected = self._rows(decided)
        train(self.model, self.format.tokenizer, chosen, rejected, self.config, self.run)
        held_out = job.validation.pairs()
        found = {
            "reward_train_pairs": Metric(value=len(decided)),
            "reward_validation_pairs": Metric(value=len(held_out)),
        }
        if held_out:
            longer = health.longer_wins(health.predictions(pairs, [pair.probability for pair in pairs]))
            seen = health.predict(self, held_out)
            found |= health.preference_health(seen, longer_is_better=longer, seed=self.run.seed)
        return found

    def score(self, prompts: Sequence[Prompt], samples: Sequence[Sample]) -> Scores:
        """The classifier's output."""
        if self.model is None:
            raise RlhfError(
                "the reward model `trl_reward` has learnt nothing yet", remedy="Fit it, or load a saved one."
            )
        from rlhf_plugins.reward_models._classifier import logits

        rows = self._tokens(prompts, [text_of(sample, self) for sample in samples])
        return Scores(logits(self.model, self.model.config.pad_token_id, rows)[:, 0].tolist())

    def save(self, folder: Path) -> None:
        """A Hugging Face folder, safetensors, which `sequence_classifier` can read too."""
        if self.model is None:
            raise RlhfError("the reward model `trl_reward` has learnt nothing yet", remedy="Fit it before saving it.")
        self.model.save_pretrained(folder)
        self.format.tokenizer.save_pretrained(folder)
        limits = {"max_prompt_tokens": self.format.max_prompt_tokens, "max_answer_tokens": self.max_answer_tokens}
        (folder / DESCRIPTION).write_text(json.dumps(limits, indent=2) + "\n", encoding="utf-8")

    def load(self, folder: Path) -> None:
        """Ready to score."""
        from rlhf_core.lm.text import PromptFormat
        from rlhf_plugins.reward_models._classifier import load_classifier

        limits = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
        self.model, tokenizer = load_classifier(str(folder), None, trust_remote_code=False)
        self.format = PromptFormat(tokenizer, limits["max_prompt_tokens"])
        self.max_answer_tokens = limits["max_answer_tokens"]

    def _start(self, job: FitJob) -> None:
        from rlhf_core.lm.model import LanguageModel
        from rlhf_core.lm.text import PromptFormat
        from rlhf_plugins.reward_models._trl import classifier_of

        base = job.base.lm if isinstance(job.base, LanguageModelPolicy) else None
        most_prompt = self.config.max_prompt_tokens or (base.max_prompt_tokens if base else None)
        most_answer = self.config.max_answer_tokens or (base.max_new_tokens if base else None)
        if self.config.model != "policy" and most_prompt and most_answer:
            base = LanguageModel.from_pretrained(
                self.config.model, max_prompt_tokens=most_prompt, max_new_tokens=most_answer
            )
        if base is None or most_prompt is None or most_answer is None:
            raise TrainingError(
                "there is no language-model policy that the reward model could start from",
                remedy="Set `reward.model` to a model's name or folder, with `max_prompt_tokens` and "
                "`max_answer_tokens`.",
            )
        self.model = classifier_of(base, self.run.seed)
        self.format, self.max_answer_tokens = PromptFormat(base.tokenizer, most_prompt), most_answer

    def _tokens(self, prompts: Sequence[Prompt], texts: Sequence[str]) -> list[list[int]]:
        answers = [tokens[: self.max_answer_tokens] for tokens in self.format.answer_tokens(texts, prompts)]
        return [[*a, *b] for a, b in zip(self.format.prompt_tokens(prompts), answers, strict=True)]

    def _rows(self, pairs: Sequence[Pair]) -> tuple[list[list[int]], list[list[int]]]:
        """Tokens of the chosen and of the rejected answers, each behind its prompt."""
        sides = [(p.first, p.second) if p.probability > 0.5 else (p.second, p.first) for p in pairs]
        prompts = [pair.prompt for pair in pairs]
        chosen, rejected = (self._tokens(prompts, [text_of(side[i], self) for side in sides]) for i in (0, 1))
        return chosen, rejected
