"""The words of the loop as data: prompts, samples, questions and the kinds of feedback.

Every record is immutable, reads and writes JSON, and is identified by its content: two records that say the same thing
have the same `id` in every process and on every machine. Fields that describe a record without being part of what it
says (token ids, timestamps) are left out of its identity.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cached_property
from itertools import pairwise
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, TypeAdapter, field_validator, model_validator

Modality = Literal["text", "control"]
Split = Literal["train", "validation", "test"]
Source = Literal["person", "simulated", "model", "program", "data"]


def content_id(content: Any) -> str:
    """The first 128 bits of the SHA-256 of `content` as canonical JSON, in hexadecimal."""
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:32]


class Record(BaseModel):
    """An immutable value with an identity made of its content."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)
    beside_identity: ClassVar[frozenset[str]] = frozenset()
    """Names of the fields that do not count for `id`."""

    def identity(self) -> Any:
        """What `id` is the digest of."""
        return self.model_dump(mode="json", exclude=set(self.beside_identity))

    @cached_property
    def id(self) -> str:
        """Content id: equal content, equal id, in any process."""
        return content_id([type(self).__name__, self.identity()])

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy with some fields changed, unchecked; its identity is its own."""
        copy = super().model_copy(update=update, deep=deep)
        copy.__dict__.pop("id", None)
        return copy


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


class Feedback(Record):
    """One answer of one annotator to one question."""

    beside_identity = frozenset({"created_at", "seconds", "source"})

    question_id: str
    annotator: str = ""
    """Who answered; the collecting flow fills in the plugin's name where a plugin leaves it empty."""
    source: Source = "program"
    """Whether a person, a simulated rater, a model, a program or existing data answered: never mixed silently."""
    revision: int = Field(0, ge=0)
    """A later revision by the same annotator to the same question replaces the earlier one; both stay stored."""
    comment: str = ""
    reasons: dict[str, float] = {}
    """Named principles or criteria behind the answer, each with its score."""
    created_at: datetime | None = Field(default_factory=lambda: datetime.now(UTC))
    """When it was given; None where data does not say."""
    seconds: float | None = Field(None, ge=0)
    """How long the annotator took."""

    @property
    def given_at(self) -> str:
        """When, as ISO 8601 in UTC with microseconds, which sorts; naive times are UTC. Empty where unknown."""
        if self.created_at is None:
            return ""
        naive = self.created_at.tzinfo is None
        moment = self.created_at.replace(tzinfo=UTC) if naive else self.created_at.astimezone(UTC)
        return moment.isoformat(timespec="microseconds")

    @property
    def named(self) -> tuple[str, ...]:
        """Ids of the samples that it is about."""
        return ()


class Comparison(Feedback):
    """Which of two samples is better."""

    kind: Literal["comparison"] = "comparison"
    first: str
    """Id of the sample shown first."""
    second: str
    """Id of the sample shown second."""
    choice: Literal["first", "second", "tie"]
    strength: float = Field(1.0, gt=0, le=1)
    """How sure: 1 means certainly, 0.5 half way to a tie."""
    both_bad: bool = False

    @property
    def named(self) -> tuple[str, ...]:
        """Both."""
        return self.first, self.second

    @property
    def probability(self) -> float:
        """P(first is better) that this answer states, in [0, 1]."""
        if self.choice == "tie":
            return 0.5
        return 0.5 + (self.strength if self.choice == "first" else -self.strength) / 2


class Ranking(Feedback):
    """An order of k samples; equal ranks are ties."""

    kind: Literal["ranking"] = "ranking"
    samples: tuple[str, ...] = Field(min_length=2)
    ranks: tuple[int, ...]
    """Rank of each sample, 1 is best."""

    @property
    def named(self) -> tuple[str, ...]:
        """All of them."""
        return self.samples

    @model_validator(mode="after")
    def _one_rank_each(self) -> Self:
        if len(self.ranks) != len(self.samples) or any(rank < 1 for rank in self.ranks):
            raise ValueError("a ranking gives every sample one rank, and ranks start at 1")
        return self


class Rating(Feedback):
    """A score of one sample on a scale."""

    kind: Literal["rating"] = "rating"
    sample: str
    score: float
    low: float = 1.0
    high: float = 5.0
    criterion: str = "overall"

    @property
    def named(self) -> tuple[str, ...]:
        """The one."""
        return (self.sample,)

    @model_validator(mode="after")
    def _on_the_scale(self) -> Self:
        if not self.low < self.high:
            raise ValueError(f"a scale's low end is below its high end, unlike {self.low:g} and {self.high:g}")
        if not self.low <= self.score <= self.high:
            raise ValueError(f"score {self.score:g} is outside its scale {self.low:g} to {self.high:g}")
        return self


class Demonstration(Feedback):
    """An expert's own answer to the prompt."""

    kind: Literal["demonstration"] = "demonstration"
    text: str | None = None
    trajectory: Trajectory | None = None
    weight: float = Field(1.0, gt=0)
    """How much it counts in imitation; expert answers may weigh more."""
    edited: str = ""
    """Id of the sample that it is an edited version of; empty where it was written from nothing, or nobody knows."""

    def identity(self) -> Any:
        """Without `edited` where that is empty, as it was before there were edits."""
        return self.model_dump(mode="json", exclude={*self.beside_identity, *(() if self.edited else ("edited",))})

    @property
    def named(self) -> tuple[str, ...]:
        """The sample that was edited, if it is known."""
        return (self.edited,) if self.edited else ()

    @field_validator("text")
    @classmethod
    def _not_blank(cls, text: str | None) -> str | None:
        if text is not None and not text.strip():
            raise ValueError("empty demonstration")
        return text


class Reaction(Feedback):
    """Implicit feedback: how often people who were shown the sample did something."""

    kind: Literal["reaction"] = "reaction"
    sample: str
    action: Literal["click", "like", "dislike", "share", "edit"] = "click"
    count: int = Field(ge=0)
    exposures: int = Field(ge=1)

    @property
    def named(self) -> tuple[str, ...]:
        """The one."""
        return (self.sample,)

    @model_validator(mode="after")
    def _no_more_than_shown(self) -> Self:
        if self.count > self.exposures:
            raise ValueError(f"{self.count} {self.action}s out of only {self.exposures} exposures")
        return self


class Skip(Feedback):
    """The annotator looked and declined to answer; counted, never learnt from."""

    kind: Literal["skip"] = "skip"
    reason: str = ""


AnyFeedback = Annotated[
    Comparison | Ranking | Rating | Demonstration | Reaction | Skip,
    Field(discriminator="kind"),
]
FEEDBACK_KINDS: dict[str, type[Feedback]] = {
    "comparison": Comparison,
    "ranking": Ranking,
    "rating": Rating,
    "demonstration": Demonstration,
    "reaction": Reaction,
    "skip": Skip,
}
feedback_from: TypeAdapter[AnyFeedback] = TypeAdapter(AnyFeedback)
"""Validates any kind of feedback from Python objects or JSON."""


class Question(Record):
    """What an annotator sees: a prompt and k samples (none where a demonstration is asked for)."""

    prompt: Prompt
    samples: tuple[Sample, ...] = ()
    reason: str = ""
    """Why it was selected, in words for the annotator's lead."""
    wanted: int = Field(1, ge=1)
    """How many answers, by different annotators, are wanted."""

    @model_validator(mode="after")
    def _of_one_prompt(self) -> Self:
        if any(sample.prompt_id != self.prompt.id for sample in self.samples):
            raise ValueError("all samples of a question answer its prompt")
        return self

    def identity(self) -> Any:
        """A question is its prompt and its samples in the order shown."""
        return [self.prompt.id, *(sample.id for sample in self.samples)]

    def blind(self) -> Question:
        """The question without anything that only evaluators may know."""
        return self.model_copy(update={"samples": tuple(sample.blind() for sample in self.samples)})

    def compare(self, scores: Sequence[float], *, tie_below: float = 0.0, **fields: Any) -> Comparison:
        """The comparison of this question's two samples that follows from their `scores` (higher is better).

        A difference of at most `tie_below` is a tie. `fields` go to the `Comparison` (annotator, reasons, ...).
        """
        if len(self.samples) != 2 or len(scores) != 2:
            raise ValueError(f"compare() needs two samples and two scores, not {len(self.samples)} and {len(scores)}")
        difference = scores[0] - scores[1]
        choice = "tie" if abs(difference) <= tie_below else "first" if difference > 0 else "second"
        first, second = (sample.id for sample in self.samples)
        return Comparison(question_id=self.id, first=first, second=second, choice=choice, **fields)

    def rank(self, scores: Sequence[float], *, tie_below: float = 0.0, **fields: Any) -> Ranking:
        """The ranking of this question's samples by `scores`; neighbours at most `tie_below` apart share a rank."""
        if len(scores) != len(self.samples):
            raise ValueError(f"rank() needs a score for each of the {len(self.samples)} samples, not {len(scores)}")
        order = sorted(range(len(scores)), key=lambda i: -scores[i])
        ranks = [1] * len(scores)
        for place, (better, worse) in enumerate(pairwise(order), start=2):
            ranks[worse] = ranks[better] if scores[better] - scores[worse] <= tie_below else place
        ids = tuple(sample.id for sample in self.samples)
        return Ranking(question_id=self.id, samples=ids, ranks=tuple(ranks), **fields)

    def rate(self, sample: int, score: float, **fields: Any) -> Rating:
        """A rating of this question's sample number `sample`."""
        return Rating(question_id=self.id, sample=self.samples[sample].id, score=score, **fields)

    def demonstrate(self, text: str, **fields: Any) -> Demonstration:
        """An expert's own answer to this question's prompt."""
        return Demonstration(question_id=self.id, text=text, **fields)

    def skip(self, reason: str = "", **fields: Any) -> Skip:
        """No answer, with the reason."""
        return Skip(question_id=self.id, reason=reason, **fields)


class Answer(Record):
    """A question together with one annotator's feedback on it: the unit that is stored and learnt from."""

    question: Question
    feedback: AnyFeedback

    @model_validator(mode="after")
    def _to_this_question(self) -> Self:
        if self.feedback.question_id != self.question.id:
            raise ValueError("the feedback answers another question")
        strangers = set(self.feedback.named).difference(sample.id for sample in self.question.samples)
        if strangers:
            raise ValueError(
                f"a {self.feedback.kind} by {self.feedback.annotator!r} names sample {min(strangers)}, "
                f"which is not among the {len(self.question.samples)} samples of its question {self.question.id}"
            )
        return self

    def identity(self) -> Any:
        """An answer is its feedback, which names its question."""
        return self.feedback.id
