"""People who answer in another program: what is shown there, and what its answers mean.

Every program gets the same fields, under the same names, and the samples under the letters A, B, C, … in an order that
is as good as random, so that neither the place nor the letter tells which policy answered.
"""

from __future__ import annotations

import random
import re
import string
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, ClassVar, NamedTuple

from rlhf_core import TEXT, Comparison, Demonstration, Feedback, Question, Ranking, Rating, Sample
from rlhf_core.errors import DataError
from rlhf_core.feedback.forms import Form, View
from rlhf_core.plugins import DeferredAnnotator
from rlhf_core.records import Modality
from rlhf_plugins.annotators._asking import form_of

BETTER, RANKING, ANSWER, EDITED, COMMENT = "better", "ranking", "answer", "edited", "comment"
"""Names of the fields; a rating's is `rating_field`."""
CHOICES: dict[str, tuple[str, float, bool]] = {
    "A is better": ("first", 1.0, False),
    "A is slightly better": ("first", 0.5, False),
    "both are equally good": ("tie", 1.0, False),
    "both are bad": ("tie", 1.0, True),
    "B is slightly better": ("second", 0.5, False),
    "B is better": ("second", 1.0, False),
}
"""What can be said about a pair -> choice, strength, whether both are bad."""
_CONTROL = re.compile("[\0-\x08\x0b-\x1f\x7f\ud800-\udfff]")


class Unreadable(ValueError):
    """An answer that does not answer what was asked."""


class Said(NamedTuple):
    """What one annotator said to one question, in the program's words."""

    question_id: str
    who: str
    fields: Mapping[str, Any]
    """Field -> value."""
    skipped: bool = False
    at: datetime | None = None
    seconds: float | None = None


class ExternalAnnotator(DeferredAnnotator):
    """Base of annotators that ask in another program. Its `Config` is an `AskingConfig`."""

    modality: ClassVar[frozenset[Modality]] = TEXT
    yields = frozenset({Comparison, Ranking, Rating, Demonstration})

    @property
    def form(self) -> Form:
        """What the annotators are asked."""
        return form_of(self.config)

    def said(self, questions: Mapping[str, Question]) -> Iterator[Said]:
        """Everything that was answered so far; answers to other questions may be among them."""
        raise NotImplementedError

    def collect(self, questions: Sequence[Question]) -> Iterator[Feedback]:
        """The newest answer of each annotator to each question; unreadable ones are left out, with a note."""
        by_id = {question.id: question for question in questions}
        newest: dict[tuple[str, str], Said] = {}
        for said in self.said(by_id):
            key = (said.question_id, said.who)
            if said.question_id in by_id and (key not in newest or _when(said) >= _when(newest[key])):
                newest[key] = said
        unreadable: list[str] = []
        for said in newest.values():
            try:
                yield from feedback_of(self.form, by_id[said.question_id], said)
            except Unreadable as error:
                unreadable.append(f"{said.who} on {said.question_id}: {error}")
        if unreadable:
            self.run.note(f"{len(unreadable)} answers cannot be read (the first is {unreadable[0]})")


def by_letter(question: Question) -> dict[str, Sample]:
    """The samples by the letter they are shown with; the same letters every time."""
    if len(question.samples) > len(string.ascii_uppercase):
        raise DataError(f"a question of {len(question.samples)} samples is too long to be shown with letters")
    samples = list(question.samples)
    random.Random(question.id).shuffle(samples)
    return dict(zip(string.ascii_uppercase, samples, strict=False))


def shown_text(text: str | None) -> str:
    """A model's text without the characters that databases and XML refuse; it is still to be shown as text."""
    return _CONTROL.sub("\ufffd", text or "")


def shown_prompt(question: Question) -> str:
    """The prompt as one text."""
    return shown_text(question.prompt.content)


def rating_field(letter: str, criterion: int) -> str:
    """Name of the field that rates a sample by the criterion with this number."""
    return f"rating_{letter}_{criterion}"


def feedback_of(form: Form, question: Question, said: Said) -> list[Feedback]:
    """What was said, as feedback. Raises Unreadable."""
    common: dict[str, Any] = {"annotator": said.who, "created_at": said.at, "seconds": said.seconds}
    if said.skipped:
        return [question.skip(**common)]
    view, letters = form.view(question), by_letter(question)
    try:
        found = _READERS[view](form, question, letters, said.fields, {**common, "comment": _text(said, COMMENT)})
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Unreadable(f"this is no answer to a {view}: {error}") from error
    edited = _text(said, EDITED)
    if view != "writing" and edited and edited not in [sample.text for sample in question.samples]:
        found.append(question.demonstrate(edited, **common))
    return found


def _pair(
    form: Form, question: Question, letters: Mapping[str, Sample], fields: Mapping[str, Any], common: dict[str, Any]
) -> list[Feedback]:
    choice, strength, both_bad = CHOICES[fields[BETTER]]
    said = {"choice": choice, "strength": strength, "both_bad": both_bad}
    return [Comparison(question_id=question.id, first=letters["A"].id, second=letters["B"].id, **said, **common)]


def _ranking(
    form: Form, question: Question, letters: Mapping[str, Sample], fields: Mapping[str, Any], common: dict[str, Any]
) -> list[Feedback]:
    said = fields[RANKING]  # letters in order, best first, or letter -> rank, where equal ranks are ties
    pairs = list(said.items() if isinstance(said, Mapping) else zip(said, range(1, len(said) + 1), strict=True))
    if sorted(str(letter) for letter, _ in pairs) != sorted(letters):
        raise ValueError(f"it ranks {', '.join(str(letter) for letter, _ in pairs)}, not {', '.join(letters)}")
    ids = tuple(letters[letter].id for letter, _ in pairs)
    return [Ranking(question_id=question.id, samples=ids, ranks=tuple(rank for _, rank in pairs), **common)]


def _rating(
    form: Form, question: Question, letters: Mapping[str, Sample], fields: Mapping[str, Any], common: dict[str, Any]
) -> list[Feedback]:
    places = {sample.id: place for place, sample in enumerate(question.samples)}
    return [
        question.rate(
            places[sample.id], float(fields[rating_field(letter, number)]), low=form.low, high=form.high,
            criterion=criterion.name, **common,
        )
        for letter, sample in letters.items()
        for number, criterion in enumerate(form.criteria)
    ]  # fmt: skip


def _writing(
    form: Form, question: Question, letters: Mapping[str, Sample], fields: Mapping[str, Any], common: dict[str, Any]
) -> list[Feedback]:
    return [question.demonstrate(str(fields[ANSWER]), **common)]


_READERS: dict[View, Callable[..., list[Feedback]]] = {
    "pair": _pair, "ranking": _ranking, "rating": _rating, "writing": _writing,
}  # fmt: skip


def _text(said: Said, name: str) -> str:
    value = said.fields.get(name)
    return value.strip() if isinstance(value, str) else ""


def _when(said: Said) -> datetime:
    return said.at or datetime.min.replace(tzinfo=UTC)
