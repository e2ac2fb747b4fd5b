"""What a policy is asked, and what it answers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, Literal, Self

from pydantic import JsonValue, model_validator

from rlhf_core.records.record import Record

Modality = Literal["text", "control"]
Split = Literal["train", "validation", "test"]


class Message(Record):
    """One turn of a chat."""

    role: Literal["system", "user", "assistant"]
    content: str


class Episode(Record):
    """The start of an episode in an environment."""

    environment: str
    """The environment's registered id."""
    seed: int
    options: dict[str, JsonValue] = {}


class Prompt(Record):
    """What the policy is asked: exactly one of a text, chat messages, or the start of an episode."""

    beside_identity = frozenset({"references", "split", "facts"})

    text: str | None = None
    messages: tuple[Message, ...] = ()
    episode: Episode | None = None
    group: str = ""
    """Prompts of one group (an A/B test, an article, an author) never end up on two sides of a train/test split."""
    references: tuple[str, ...] = ()
    """Known good answers, for evaluators such as ROUGE."""
    split: Split | None = None
    """Set by data that comes with its own split; otherwise decided by `rlhf_core.splits`."""
    facts: dict[str, JsonValue] = {}
    """What judges may know about the prompt and the policy does not see."""

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        given = (self.text is not None) + bool(self.messages) + (self.episode is not None)
        if given != 1:
            raise ValueError("a prompt is exactly one of text, messages and episode")
        if self.text is not None and not self.text.strip():
            raise ValueError("empty prompt")
        return self

    @property
    def modality(self) -> Modality:
        """Which of the two worlds the prompt belongs to."""
        return "control" if self.episode is not None else "text"

    @cached_property
    def content(self) -> str:
        """The prompt as one string, for display and for telling equal questions apart from equal groups."""
        if self.text is not None:
            return self.text
        if self.episode is not None:
            return f"{self.episode.environment} (seed {self.episode.seed})"
        return "\n".join(f"{message.role}: {message.content}" for message in self.messages)


class Trajectory(Record):
    """A segment of an episode: T steps."""

    beside_identity = frozenset({"frames"})

    observations: tuple[tuple[float, ...], ...]
    """T rows, the flattened observation before each action."""
    actions: tuple[tuple[float, ...], ...]
    """T rows, the flattened action; a discrete action is one number."""
    environment_rewards: tuple[float, ...] = ()
    """The environment's own reward of each step. Only simulated raters and evaluators may look: see `Sample.blind`."""
    frames: tuple[str, ...] = ()
    """Addresses of rendered frames in order (`data:` addresses hold the picture itself), for showing the segment."""

    @model_validator(mode="after")
    def _same_length(self) -> Self:
        steps = len(self.observations)
        if len(self.actions) != steps or len(self.environment_rewards) not in (0, steps):
            raise ValueError("observations, actions and environment_rewards must have one row a step")
        return self

    def cut(self, start: int, stop: int) -> Trajectory:
        """The segment of steps `start` to `stop` (exclusive, 0 <= start < stop), without frames."""
        if not 0 <= start < stop:
            raise ValueError(f"a segment has steps: from {start} to {stop} there is none")
        return Trajectory(
            observations=self.observations[start:stop],
            actions=self.actions[start:stop],
            environment_rewards=self.environment_rewards[start:stop],
        )


class Sample(Record):
    """What a policy answered to a prompt: a text or a trajectory."""

    beside_identity = frozenset({"tokens", "logprobs", "finished"})

    prompt_id: str
    text: str | None = None
    trajectory: Trajectory | None = None
    policy: str = "data"
    """Identity of the policy that answered; `data` where the sample was found, not generated."""
    round: int = 0
    tokens: tuple[int, ...] = ()
    """Token ids of the answer, where the policy has tokens."""
    logprobs: tuple[float, ...] = ()
    """Log-probability of each token under the sampling distribution, in nats."""
    finished: bool = True
    """False where the answer was cut at the length limit, or a trajectory ends before its episode does."""

    @model_validator(mode="after")
    def _one_content(self) -> Self:
        if (self.text is None) == (self.trajectory is None):
            raise ValueError("a sample is either a text or a trajectory")
        return self

    def identity(self) -> Any:
        """The environment's own rewards and the pictures do not count: shown blind, a sample is the same one."""
        exclude: dict[str, Any] = dict.fromkeys(self.beside_identity, True)
        return self.model_dump(mode="json", exclude={**exclude, "trajectory": {"environment_rewards", "frames"}})

    def blind(self) -> Sample:
        """The sample without the environment's own rewards: what reward models and people may see."""
        if self.trajectory is None or not self.trajectory.environment_rewards:
            return self
        return self.model_copy(update={"trajectory": self.trajectory.model_copy(update={"environment_rewards": ()})})


def distinct(samples: Sequence[Sample]) -> list[Sample]:
    """The samples without those that say the same as an earlier one, whatever policy said it."""
    seen: dict[str, Sample] = {}
    for sample in samples:
        seen.setdefault(sample.trajectory.id if sample.trajectory is not None else str(sample.text), sample)
    return list(seen.values())
