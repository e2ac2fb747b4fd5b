"""Letting answers count no longer, by a tombstone; nothing is deleted."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import Connection, func, select

from rlhf_core.feedback import query
from rlhf_core.feedback.intake import sortable
from rlhf_core.feedback.schema import assignments, feedback, posted, withdrawals


def withdraw(
    connection: Connection, reason: str, *, annotator: str | None, question_id: str | None = None,
    subject: str | None = None,
) -> int:  # fmt: skip
    """Withdraw what `annotator` said (to one question, on one subject), as accepted so far; how many answers counted.

    Where people were asked these questions, they are open again.
    """
    wanted = {"annotator": annotator, "question_id": question_id, "subject": subject}
    tombstone = {name: value for name, value in wanted.items() if value is not None}
    conditions = [query.current(), *(feedback.c[name] == value for name, value in tombstone.items())]
    affected, first = connection.execute(select(func.count(), func.min(feedback.c.seq)).where(*conditions)).one()
    if not affected:
        return 0
    now = sortable(datetime.now(UTC))
    upto = query.watermark(connection)
    row = {**wanted, "upto": upto, "reason": reason, "created_at": now, "first": first}
    connection.execute(withdrawals.insert().values(row))
    theirs = assignments.c.annotator == annotator
    if question_id is not None:
        theirs &= assignments.c.question_id == question_id
    reopened = select(assignments.c.question_id).where(theirs, assignments.c.answered_at.is_not(None))
    connection.execute(posted.update().where(posted.c.question_id.in_(reopened)).values(open=1))
    connection.execute(assignments.delete().where(theirs, assignments.c.answered_at.is_not(None)))
    return int(affected)
