"""A question as the page shows it, and what the annotator does there as feedback.

The page knows places (shown first, shown second), never policies or ids of samples: who answered what is put together
here, from the order that this annotator was shown.
"""

from __future__ import annotations

import random
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from rlhf_core.errors import DataError
from rlhf_core.feedback.queue import Assigned
from rlhf_core.records import Comparison, Feedback, Prompt, Question, Ranking, Sample

TEXT_LIMIT = 50_000
"""Characters of a text that an annotator may write."""
STRENGTHS = {"slightly": 0.5, "clearly": 1.0}
Text = Annotated[str, Field(max_length=TEXT_LIMIT)]


class Given(BaseModel):
    """What every answer of the page may hold."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    comment: Text = ""
    edited: Text = ""
    """A better answer, written by the annotator: a demonstration."""
    seconds: float = Field(0, ge=0, le=86_400, allow_inf_nan=False)
    """How long the page was in front of the annotator."""


class PairGiven(Given):
    """A choice between two."""

    view: Literal["pair"] = "pair"
    choice: Literal["first", "second", "tie"]
    strength: Literal["slightly", "clearly"] = "clearly"
    both_bad: bool = False


class RankingGiven(Given):
    """A rank for each sample in the order shown."""

    view: Literal["ranking"] = "ranking"
    ranks: tuple[int, ...] = Field(max_length=50)


class RatingGiven(Given):
    """A score on each criterion for each sample in the order shown."""

    view: Literal["rating"] = "rating"
    scores: tuple[dict[str, int], ...] = Field(max_length=50)


class WritingGiven(Given):
    """The annotator's own answer."""

    view: Literal["writing"] = "writing"
    text: str = Field(min_length=1, max_length=TEXT_LIMIT)


class SkipGiven(Given):
    """No answer."""

    view: Literal["skip"] = "skip"
    reason: Literal["unclear", "cannot_judge", "harmful", "broken", "other"]


AnyGiven = Annotated[PairGiven | RankingGiven | RatingGiven | WritingGiven | SkipGiven, Field(discriminator="view")]


def shown_order(question: Question, annotator: str) -> list[Sample]:
    """The samples in the order that `annotator` sees them: as good as random, and always the same for both."""
    samples = list(question.samples)
    random.Random(f"{annotator}\x1f{question.id}").shuffle(samples)
    return samples


def page_of(held: Assigned, annotator: str) -> dict[str, Any]:
    """What the page is told: nothing of the policy, of the reason for asking, or of what judges know."""
    question, form = held.question, held.form
    return {
        "form": form.id,
        "question": question.id,
        "view": form.view(question),
        "title": form.title,
        "guidelines": form.guidelines,
        "prompt": prompt_page(question.prompt),
        "samples": [_sample_page(sample) for sample in shown_order(question, annotator)],
        "criteria": [{"name": each.name, "description": each.description} for each in form.criteria],
        "low": form.low,
        "high": form.high,
        "draft": held.draft,
    }


def prompt_page(prompt: Prompt) -> list[dict[str, str]]:
    """The turns of a prompt; one without a role where it is no chat."""
    turns = [{"role": message.role, "text": message.content} for message in prompt.messages]
    return turns or [{"role": "", "text": prompt.content}]


def _sample_page(sample: Sample) -> dict[str, Any]:
    if sample.trajectory is None:
        return {"text": sample.text}
    # Pictures come as data or not at all: the page fetches nothing from an address that a sample names.
    frames = [frame for frame in sample.trajectory.frames if frame.startswith("data:image/")]
    return {"observations": sample.trajectory.observations, "actions": sample.trajectory.actions, "frames": frames}


def feedback_of(held: Assigned, annotator: str, given: AnyGiven) -> list[Feedback]:
    """What the annotator said, as feedback. Raises DataError where it does not answer what was asked."""
    question, form = held.question, held.form
    view = form.view(question)
    if given.view not in (view, "skip"):
        raise DataError(f"a {view} was asked for, not a {given.view}")
    common = {"comment": given.comment.strip(), "seconds": given.seconds}
    found: list[Feedback] = []
    if given.edited.strip() and given.edited not in [sample.text for sample in question.samples]:
        found.append(question.demonstrate(given.edited, seconds=given.seconds))
    shown = shown_order(question, annotator)
    match given:
        case SkipGiven():
            return [question.skip(given.reason, **common)]
        case WritingGiven():
            if not given.text.strip():
                raise DataError("the answer is empty")
            return [question.demonstrate(given.text, **common)]
        case PairGiven():
            strength = STRENGTHS[given.strength] if given.choice != "tie" else 1.0
            first, second = (sample.id for sample in shown)
            pair = {"question_id": question.id, "first": first, "second": second, "strength": strength}
            return [Comparison(**pair, choice=given.choice, both_bad=given.both_bad, **common), *found]
        case RankingGiven():
            if len(given.ranks) != len(shown) or min(given.ranks, default=1) != 1:
                raise DataError(f"a rank for each of the {len(shown)} answers is needed, and 1 is the best")
            ids = tuple(sample.id for sample in shown)
            return [Ranking(question_id=question.id, samples=ids, ranks=given.ranks, **common), *found]
        case RatingGiven():
            names = {criterion.name for criterion in form.criteria}
            if len(given.scores) != len(shown) or any(set(scores) != names for scores in given.scores):
                raise DataError("each answer needs a score on every criterion")
            if any(not form.low <= score <= form.high for scores in given.scores for score in scores.values()):
                raise DataError(f"scores go from {form.low} to {form.high}")
            places = {sample.id: place for place, sample in enumerate(question.samples)}
            scale = {"low": form.low, "high": form.high, **common}
            ratings = [
                question.rate(places[sample.id], score, criterion=name, **scale)
                for sample, scores in zip(shown, given.scores, strict=True)
                for name, score in scores.items()
            ]
            return [*ratings, *found]
