"""Which samples to ask people about, and why."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, NamedTuple

from rlhf_core.plugins.base import Plugin
from rlhf_core.plugins.reward_model import RewardModel
from rlhf_core.records import Prompt, Question, Sample

CONTROL_ARM = "control: random"
"""`Question.reason` of what an active selector draws by lot, to be compared with what it chooses."""


class Candidate(NamedTuple):
    """A prompt with all its samples, none of which two are equal."""

    prompt: Prompt
    samples: Sequence[Sample]


class Selector(Plugin):
    """Turns candidates into at most `budget` questions."""

    kind: ClassVar[str] = "selectors"
    uses_reward: ClassVar[bool] = False
    """Whether it looks at the reward model. One that does not is given None, and its questions outlive a new model."""

    def select(self, candidates: Sequence[Candidate], budget: int, reward: RewardModel | None) -> list[Question]:
        """The questions to ask; each says in `reason` why. `reward` is the last round's model, if there is one."""
        raise NotImplementedError
