"""Answers as rows of the store's tables."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, NamedTuple

from rlhf_core.records import Answer, Comparison, Feedback, Question, Rating, Reaction
from rlhf_core.splits import split_of

Rows = dict[str, dict[str, Any]]
"""Id -> row."""


class Intake(NamedTuple):
    """Rows to insert; what several answers share stands in it once."""

    prompts: Rows
    samples: Rows
    questions: Rows
    feedback: Rows


def question_rows(questions: Iterable[Question]) -> Intake:
    """The rows of `questions` that nobody has answered yet."""
    rows = Intake({}, {}, {}, {})
    for question in questions:
        _add_question(rows, question)
    return rows


def intake(answers: Iterable[Answer], campaign: str, round_number: int) -> Intake:
    """The rows of `answers`."""
    rows = Intake({}, {}, {}, {})
    for answer in answers:
        question, feedback = answer.question, answer.feedback
        if question.id not in rows.questions:
            _add_question(rows, question)
        rows.feedback[feedback.id] = {
            "id": feedback.id,
            "question_id": feedback.question_id,
            "annotator": feedback.annotator,
            "subject": subject(feedback),
            "revision": feedback.revision,
            "kind": feedback.kind,
            "source": feedback.source,
            "campaign": campaign,
            "round": round_number,
            "created_at": feedback.given_at,
            "content": feedback.model_dump_json(),
        }
    return rows


def _add_question(rows: Intake, question: Question) -> None:
    prompt = question.prompt
    if prompt.id not in rows.prompts:
        rows.prompts[prompt.id] = {"id": prompt.id, "split": split_of(prompt), "content": prompt.model_dump_json()}
    for sample in question.samples:
        if sample.id not in rows.samples:
            rows.samples[sample.id] = {
                "id": sample.id,
                "prompt_id": prompt.id,
                "policy": sample.policy,
                "round": sample.round,
                "content": sample.model_dump_json(),
            }
    rows.questions[question.id] = {
        "id": question.id,
        "prompt_id": prompt.id,
        "sample_ids": json.dumps([sample.id for sample in question.samples]),
        "reason": question.reason,
        "wanted": question.wanted,
    }


def subject(feedback: Feedback) -> str:
    """What the feedback says something about, within its question.

    A revision replaces the same annotator's earlier answer on the same subject: somebody who rates two samples of a
    question, or one sample on two criteria, gives two answers that stand side by side.
    """
    match feedback:
        case Comparison():
            return " ".join(["comparison", *sorted((feedback.first, feedback.second))])
        case Rating():
            return f"rating {feedback.sample} {feedback.criterion}"
        case Reaction():
            return f"reaction {feedback.sample} {feedback.action}"
        case _:
            return str(getattr(feedback, "kind"))  # noqa: B009


def sortable(moment: datetime) -> str:
    """ISO 8601 in UTC with microseconds: the order of the strings is the order in time."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds")
