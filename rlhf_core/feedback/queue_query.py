"""What of the queue is whose, as conditions of its queries."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Row, and_, exists, func, or_, select

from rlhf_core.feedback.schema import assignments, posted


def answered() -> ColumnElement[bool]:
    """Whether an assignment is done."""
    return assignments.c.answered_at.is_not(None)


def same_question() -> ColumnElement[bool]:
    """An assignment is of the posted question."""
    return and_(assignments.c.form_id == posted.c.form_id, assignments.c.question_id == posted.c.question_id)


def mine(form_id: str, question_id: str, annotator: str) -> ColumnElement[bool]:
    """The assignment of one annotator."""
    return and_(
        assignments.c.form_id == form_id,
        assignments.c.question_id == question_id,
        assignments.c.annotator == annotator,
    )


def about(asked: Row[Any]) -> ColumnElement[bool]:
    """Assignments of one posted question."""
    return and_(assignments.c.form_id == asked.form_id, assignments.c.question_id == asked.question_id)


def for_me(annotator: str) -> ColumnElement[bool]:
    """Whether a posted question is meant for the annotator."""
    return or_(posted.c.audience.is_(None), posted.c.audience == annotator)


def taken(annotator: str) -> ColumnElement[bool]:
    """Whether the annotator holds the posted question, or has answered it."""
    return exists().where(same_question(), assignments.c.annotator == annotator)


def free(annotator: str, now: str) -> ColumnElement[bool]:
    """Posted questions with a free place for an annotator who does not hold them and has not answered them."""
    busy = (
        select(func.count())
        .select_from(assignments)
        .where(same_question(), or_(answered(), assignments.c.expires_at > now))
        .scalar_subquery()
    )
    return and_(posted.c.open == 1, for_me(annotator), ~taken(annotator), busy < posted.c.wanted)
