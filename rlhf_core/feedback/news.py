"""What of the feedback store is news to a pipeline, whatever program put it there."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import exists, func, or_, select

from rlhf_core.feedback import query
from rlhf_core.feedback.schema import feedback, question_sets
from rlhf_core.feedback.store import FeedbackStore

OF_PEOPLE = ("person", "data")
"""The sources that are news. What simulated raters and models answer, the pipeline itself has asked them for."""


def new_answers(store: FeedbackStore, pipeline: str, since: int) -> int:
    """How many answers by people count now that were accepted after the place `since` in the order of acceptance.

    Only answers to questions of `pipeline`, since it learns from no others: those it asks (registered under its name),
    and those of which it had an answer before. All that an annotator says about a question is one answer, a skip is
    one, and so is a change of mind.
    """
    earlier = feedback.alias("earlier")
    asked = exists().where(question_sets.c.set_id == pipeline, question_sets.c.question_id == feedback.c.question_id)
    known = exists().where(
        earlier.c.question_id == feedback.c.question_id, earlier.c.campaign == pipeline, earlier.c.seq <= since
    )
    pairs = (
        select(feedback.c.question_id, feedback.c.annotator)
        .where(feedback.c.seq > since, feedback.c.source.in_(OF_PEOPLE), or_(asked, known), query.current())
        .distinct()
    )
    with store.database.read() as connection:
        return connection.execute(select(func.count()).select_from(pairs.subquery())).scalar_one()


def who_answered(store: FeedbackStore, question_ids: Collection[str]) -> set[tuple[str, str]]:
    """Every (question, annotator) that the store has an answer of, whether it counts or not."""
    with store.database.read() as connection:
        pairs = select(feedback.c.question_id, feedback.c.annotator).where(query.among(connection, question_ids))
        return {(row.question_id, row.annotator) for row in connection.execute(pairs.distinct())}
