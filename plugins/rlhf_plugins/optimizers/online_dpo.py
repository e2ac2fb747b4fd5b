"""Direct preference optimisation on the policy's own answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, model_validator

from rlhf_core.plugins import Use
from rlhf_plugins.optimizers.text.optimizer import TextOptimizer
from rlhf_plugins.optimizers.text.settings import Kl, Settings

if TYPE_CHECKING:
    from rlhf_plugins.optimizers.text.learner import Learner
    from rlhf_plugins.optimizers.text.task import Task


class OnlineDpo(TextOptimizer):
    """Online direct preference optimisation (Guo et al. 2024): the reward model says which of two answers is better.

    Of several answers to a prompt, the best and the worst make the pair. With an `annotator` it says so instead: a
    model that judges, a panel, principles, asked about every batch; the reward is then only watched.
    """

    class Config(Settings):
        """How long, how fast, how far from the reference."""

        batch: int = Field(32, ge=1)
        """Prompts a step; each makes a pair."""
        answers: int = Field(2, ge=2)
        """Answers to each prompt of a step."""
        kl: Kl = Kl(coefficient=0.1)
        """The divergence from the reference; its coefficient is the loss's beta."""
        loss: Literal["dpo", "ipo"] = "dpo"
        """`dpo` (Rafailov et al. 2023), or `ipo` (Azar et al. 2023), which does not run away from sure labels."""
        labels: Literal["hard", "soft"] = "hard"
        """`hard`: the higher score wins for certain. `soft`: with the probability that the (normalised) scores mean as
        log-odds; then dpo has the optimum that ppo and rloo have. Of an annotator's answers: their share."""
        annotator: Annotated[Use | None, Use.of("annotators")] = None
        """Who says which answer is better, at once: e.g. `{use: simulated_panel}`. None: the reward."""
        overlap: int = Field(1, ge=1)
        """Answers wanted to each question, where the annotator is several raters."""

        @property
        def examples(self) -> int:
            """What a batch is cut into minibatches of: its pairs."""
            return self.batch

        @model_validator(mode="after")
        def _a_beta(self) -> Self:
            if self.kl.coefficient == 0:
                raise ValueError("kl.coefficient is the loss's beta here and must be above 0")
            return self

    def learner(self, task: Task) -> Learner:
        """Pairs of answers."""
        from rlhf_plugins.optimizers.text.pairs import PairLearner

        return PairLearner(task)
