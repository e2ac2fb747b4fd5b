"""What annotators see, and their feedback together with it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Self

from pydantic import Field, model_validator

from rlhf_core.records.feedback import AnyFeedback, Comparison, Demonstration, Ranking, Rating, Skip
from rlhf_core.records.record import Record
from rlhf_core.records.samples import Prompt, Sample


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
