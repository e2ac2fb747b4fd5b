"""The best of several answers, chosen where the policy answers instead of learnt."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from rlhf_core.errors import RlhfError
from rlhf_core.plugins import LanguageModelPolicy, PluginConfig, RewardModel, Use
from rlhf_core.records import Answer, Prompt, Sample

if TYPE_CHECKING:
    from rlhf_core.lm.model import LanguageModel


class BestOfNPolicy(LanguageModelPolicy):
    """Draws `n` answers from another policy for each that is asked for, and gives the one that a reward likes best.

    At most log n - (n - 1) / n nats from the other policy (Beirami et al. 2024), without any training, at n times the
    price of an answer. Optimizers, warm starts and `save` reach the policy below: what is trained are its single
    answers. Samples carry the log-probabilities of the policy below, not those of having been chosen.
    """

    class Config(PluginConfig):
        """What is drawn from, and who chooses."""

        of: Annotated[Use, Use.of("policies")]
        """The policy below."""
        reward: Annotated[Use, Use.of("reward_models")]
        """Who chooses. One that learns from feedback must have been fitted, see `fitted`."""
        fitted: Path | None = None
        """Folder that a fitted reward model was saved to."""
        n: int = Field(4, ge=1)
        """Answers to choose from."""

    @classmethod
    def reads(cls, config: Any) -> tuple[Path, ...]:
        """The fitted reward model."""
        return (config.fitted,) if config.fitted is not None else ()

    def set_up(self) -> None:
        """Raises RlhfError where the policy below is no language model, or the reward has learnt nothing."""
        from rlhf_core.plugins.registry import Registry

        registry = Registry()
        self.below: LanguageModelPolicy = registry.create("policies", self.config.of, self.run)
        self.reward: RewardModel = registry.create("reward_models", self.config.reward, self.run)
        if not isinstance(self.below, LanguageModelPolicy):
            raise RlhfError(f"best_of_n chooses among texts, and `{self.config.of.use}` gives none", where="policy.of")
        if self.config.fitted is not None:
            self.reward.load(self.config.fitted)
        elif self.reward.learns_from:
            raise RlhfError(
                f"`{self.config.reward.use}` learns from feedback, and nobody has fitted it",
                where="policy.reward",
                remedy="Name the folder of a fitted one in `policy.fitted` (artifacts hold them in `reward`), or a "
                "reward that needs no feedback.",
            )
        self.temperature, self.stop = self.below.temperature, self.below.stop

    @property
    def lm(self) -> LanguageModel:  # type: ignore[override]
        """Of the policy below."""
        return self.below.lm

    def prepare(self, prompts: Iterable[Prompt], demonstrations: Iterable[Answer]) -> None:
        """Prepare the policy below."""
        self.below.prepare(prompts, demonstrations)

    def sample(self, prompts: Sequence[Prompt], n: int, seed: int) -> list[list[Sample]]:
        """The best of each `config.n` answers; of equally good ones the first."""
        self.below.version, self.below.round = self.version, self.round
        width = self.config.n
        drawn = self.below.sample(prompts, n * width, seed)
        flat = [sample for group in drawn for sample in group]
        asked = [prompt for prompt, group in zip(prompts, drawn, strict=True) for _ in group]
        scores = self.reward.score(asked, flat).mean
        best = [max(range(i, i + width), key=scores.__getitem__) for i in range(0, len(flat), width)]
        chosen = [flat[i] for i in best]
        return [chosen[i : i + n] for i in range(0, len(chosen), n)]

    def save(self, folder: Path) -> None:
        """Write the policy below."""
        self.below.save(folder)

    def load(self, folder: Path) -> None:
        """Take over the policy below."""
        self.below.load(folder)
