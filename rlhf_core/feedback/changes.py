"""Whether what was learnt from has changed since, without reading it again."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from sqlalchemy import Connection, and_, exists, func, or_, select, tuple_

from rlhf_core.feedback import query
from rlhf_core.feedback.schema import feedback, question_sets, withdrawals


class Position(NamedTuple):
    """How far the store's history goes: plain numbers, to be kept beside what was learnt by then."""

    answers: int
    """The watermark: the place of the last answer in the order of acceptance."""
    withdrawals: int
    """The place of the last withdrawal."""


def position(connection: Connection) -> Position:
    """Where the history ends now."""
    last = connection.execute(select(func.max(withdrawals.c.seq))).scalar() or 0
    return Position(query.watermark(connection), last)


def changed_since(connection: Connection, since: Position, upto: int = 0, sets: Collection[str] | None = None) -> bool:
    """See `FeedbackStore.changed_since`. One query, which looks at what was added since and at the answers of the same
    annotators to the same questions.
    """
    reach = max(upto, since.answers)
    earlier = feedback.alias("earlier")
    # An answer that comes later in the order of revisions (see `query.current`) than one within reach takes its place
    # in every snapshot that held it, and stands in for it where it was withdrawn. Any other waits for the next mark.
    replaces = exists().where(
        earlier.c.question_id == feedback.c.question_id,
        earlier.c.annotator == feedback.c.annotator,
        or_(earlier.c.subject == feedback.c.subject, earlier.c.kind == "skip", feedback.c.kind == "skip"),
        earlier.c.seq <= reach,
        tuple_(earlier.c.revision, earlier.c.created_at, earlier.c.id)
        < tuple_(feedback.c.revision, feedback.c.created_at, feedback.c.id),
    )
    revised = and_(feedback.c.seq > since.answers, replaces)
    withdrawn = and_(withdrawals.c.seq > since.withdrawals, withdrawals.c.first <= reach)
    if sets is not None:
        ours = question_sets.c.set_id.in_(sets)
        revised &= exists().where(ours, question_sets.c.question_id == feedback.c.question_id)
        # Whether all that an annotator said touches one of the sets would have to be read up in it.
        withdrawn &= or_(
            withdrawals.c.question_id.is_(None),
            exists().where(ours, question_sets.c.question_id == withdrawals.c.question_id),
        )
    return bool(connection.execute(select(or_(exists().where(revised), exists().where(withdrawn)))).scalar_one())
