"""Questions as other programs show them, with the samples under letters, and what answers there mean.

Every program gets the same fields, under the same names, and the samples under the letters A, B, C, … in an order that
is as good as random, so that neither the place nor the letter tells which policy answered.
"""

from __future__ import annotations

import random
import re
import string
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from rlhf_core.errors import DataError
from rlhf_core.feedback.forms import Form, View
from rlhf_core.records import Comparison, Demonstration, Feedback, Question, Ranking, Rating, Sample

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
Letters = Mapping[str, Sample]
"""Letter -> the sample that is shown with it."""
_CONTROL = re.compile("[\0-\x08\x0b-\x1f\x7f\ud800-\udfff]")


class Unreadable(ValueError):
    """An answer that does not answer what was asked."""


class Said(NamedTuple):
    """What one annotator said to one question, in another program's words."""

    question_id: str
    who: str
    fields: Mapping[str, Any]
    """Field -> value."""
    skipped: bool = False
    at: datetime | None = None
    seconds: float | None = None


def by_letter(question: Question) -> dict[str, Sample]:
    """The samples by the letter they are shown with; the same letters every time."""
    samples = list(question.samples)
    random.Random(question.id).shuffle(samples)
    return lettered(samples)


def lettered(samples: Iterable[Sample]) -> dict[str, Sample]:
    """The samples by letter, in their order. Raises DataError where they are too many."""
    listed = list(samples)
    if len(listed) > len(string.ascii_uppercase):
        raise DataError(f"a question of {len(listed)} samples is too long to be shown with letters")
    return dict(zip(string.ascii_uppercase, listed, strict=False))


def shown_text(text: str | None) -> str:
    """A model's text without the characters that databases and XML refuse; it is still to be shown as text."""
    return _CONTROL.sub("\ufffd", text or "")


def shown_prompt(question: Question) -> str:
    """The prompt as one text."""
    return shown_text(question.prompt.content)


def rating_field(letter: str, criterion: int) -> str:
    """Name of the field that rates a sample by the criterion with this number."""
    return f"rating_{letter}_{criterion}"


def feedback_of(form: Form, question: Question, letters: Letters, said: Said) -> list[Feedback]:
    """What was said, as feedback. Raises Unreadable."""
    common: dict[str, Any] = {"annotator": said.who, "created_at": said.at, "seconds": said.seconds}
    if said.skipped:
        return [question.skip(**common)]
    view = form.view(question)
    try:
        found = _READERS[view](form, question, letters, said.fields, {**common, "comment": _text(said, COMMENT)})
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Unreadable(f"this is no answer to a {view}: {error}") from error
    edited = _text(said, EDITED)
    if view != "writing" and edited and edited not in [sample.text for sample in question.samples]:
        found.append(question.demonstrate(edited, **common))
    return found


def fields_of(feedback: Iterable[Feedback], letters: Letters, criteria: list[str]) -> dict[str, Any]:
    """One annotator's feedback on one question as fields: what `feedback_of` reads. Empty for a skip.

    Strengths become the nearest word; ratings on criteria that `criteria` does not list are left out.
    """
    letter_of = {sample.id: letter for letter, sample in letters.items()}
    fields: dict[str, Any] = {}
    for each in feedback:
        if each.comment:
            fields[COMMENT] = each.comment
        if isinstance(each, Comparison) and len(letters) == 2:
            fields[BETTER] = _choice(each, first_is_a=letter_of[each.first] == "A")
        elif isinstance(each, Ranking):
            ranks = zip(each.samples, each.ranks, strict=True)
            fields[RANKING] = {letter_of[sample_id]: rank for sample_id, rank in ranks}
        elif isinstance(each, Rating) and each.criterion in criteria:
            fields[rating_field(letter_of[each.sample], criteria.index(each.criterion))] = each.score
        elif isinstance(each, Demonstration) and each.text:
            fields[EDITED if letters else ANSWER] = each.text
    return fields


def _choice(said: Comparison, *, first_is_a: bool) -> str:
    wanted = said.choice if first_is_a or said.choice == "tie" else {"first": "second", "second": "first"}[said.choice]
    tied = said.choice == "tie"
    meaning = (wanted, 1.0 if tied or said.strength > 0.75 else 0.5, said.both_bad and tied)
    return next(words for words, known in CHOICES.items() if known == meaning)


def _pair(
    form: Form, question: Question, letters: Letters, fields: Mapping[str, Any], common: dict[str, Any]
) -> list[Feedback]:
    choice, strength, both_bad = CHOICES[fields[BETTER]]
    said: dict[str, Any] = {"choice": choice, "strength": strength, "both_bad": both_bad}
    return [Comparison(question_id=question.id, first=letters["A"].id, second=letters["B"].id, **said, **common)]


def _ranking(
    form: Form, question: Question, letters: Letters, fields: Mapping[str, Any], common: dict[str, Any]
) -> list[Feedback]:
    said = fields[RANKING]  # letters in order, best first, or letter -> rank, where equal ranks are ties
    pairs = list(said.items() if isinstance(said, Mapping) else zip(said, range(1, len(said) + 1), strict=True))
    if sorted(str(letter) for letter, _ in pairs) != sorted(letters):
        raise ValueError(f"it ranks {', '.join(str(letter) for letter, _ in pairs)}, not {', '.join(letters)}")
    ids = tuple(letters[letter].id for letter, _ in pairs)
    return [Ranking(question_id=question.id, samples=ids, ranks=tuple(rank for _, rank in pairs), **common)]


def _rating(
    form: Form, question: Question, letters: Letters, fields: Mapping[str, Any], common: dict[str, Any]
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
    form: Form, question: Question, letters: Letters, fields: Mapping[str, Any], common: dict[str, Any]
) -> list[Feedback]:
    return [question.demonstrate(str(fields[ANSWER]), **common)]


_READERS: dict[View, Callable[..., list[Feedback]]] = {
    "pair": _pair, "ranking": _ranking, "rating": _rating, "writing": _writing,
}  # fmt: skip


def _text(said: Said, name: str) -> str:
    value = said.fields.get(name)
    return value.strip() if isinstance(value, str) else ""
