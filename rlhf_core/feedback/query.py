"""What of the store counts now, and how it is read in a stream."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from typing import Any

from sqlalchemy import Column, ColumnElement, Connection, MetaData, Table, Text, and_, exists, func, or_, select, tuple_

from rlhf_core.feedback.rows import known_question
from rlhf_core.feedback.schema import feedback, prompts, question_sets, questions, samples, withdrawals
from rlhf_core.records import Question

ROWS_AT_A_TIME = 2000
"""How many answers are in memory at once."""

_wanted = Table("rlhf_wanted", MetaData(), Column("id", Text, primary_key=True), prefixes=["TEMPORARY"])


def current(upto: int | None = None) -> ColumnElement[bool]:
    """The rows of `feedback` that count: not replaced by a later answer, and not withdrawn.

    An answer replaces the earlier ones by the same annotator to the same question on the same subject; a skip replaces
    answers on any subject, and is replaced by any. "Later" is the higher revision; of two with the same revision it is
    the one given later (then the greater id), whatever order they arrived in.

    With `upto`, only those answers count whose first version was accepted by then; they count as they are now.
    """
    other = feedback.alias("other")
    same_answer = and_(
        other.c.question_id == feedback.c.question_id,
        other.c.annotator == feedback.c.annotator,
        or_(other.c.subject == feedback.c.subject, other.c.kind == "skip", feedback.c.kind == "skip"),
    )
    later = tuple_(other.c.revision, other.c.created_at, other.c.id) > tuple_(
        feedback.c.revision, feedback.c.created_at, feedback.c.id
    )
    withdrawn = exists().where(
        withdrawals.c.annotator == feedback.c.annotator,
        or_(withdrawals.c.question_id.is_(None), withdrawals.c.question_id == feedback.c.question_id),
        or_(withdrawals.c.subject.is_(None), withdrawals.c.subject == feedback.c.subject),
        withdrawals.c.upto >= feedback.c.seq,
    )
    counts = and_(~exists().where(same_answer, later), ~withdrawn)
    if upto is None:
        return counts
    return and_(counts, or_(feedback.c.seq <= upto, exists().where(same_answer, other.c.seq <= upto)))


def watermark(connection: Connection) -> int:
    """The highest sequence number so far; 0 in an empty store."""
    return connection.execute(select(func.max(feedback.c.seq))).scalar() or 0


def among(
    connection: Connection, ids: Collection[str] | None = None, sets: Collection[str] | None = None
) -> ColumnElement[bool]:
    """The answers to the questions with these ids and in these registered sets; once in a transaction.

    They go into a temporary table, since a statement can hold only some thousands of ids.
    """
    _wanted.create(connection)
    if ids:
        connection.execute(_wanted.insert(), [{"id": question_id} for question_id in dict.fromkeys(ids)])
    if sets:
        missing = select(question_sets.c.question_id).where(
            question_sets.c.set_id.in_(sets), question_sets.c.question_id.not_in(select(_wanted.c.id))
        )
        connection.execute(_wanted.insert().from_select(["id"], missing.distinct()))
    return feedback.c.question_id.in_(select(_wanted.c.id))


def stream(connection: Connection, *where: ColumnElement[bool]) -> Iterator[list[dict[str, Any]]]:
    """Rows of a snapshot (see `rows.arrow_schema`) for the answers that meet all of `where`, some thousand at a time.

    In the order of question, annotator, revision and id, which is the same on every database.
    """
    columns = [
        feedback.c.id.label("feedback_id"),
        feedback.c.question_id,
        questions.c.prompt_id,
        questions.c.sample_ids,
        feedback.c.annotator,
        feedback.c.source,
        feedback.c.kind,
        feedback.c.round,
        prompts.c.split,
        feedback.c.created_at,
        feedback.c.content,
        prompts.c.content.label("prompt"),
        questions.c.reason,
        questions.c.wanted,
    ]
    ordered = (
        select(*columns)
        .join_from(feedback, questions, questions.c.id == feedback.c.question_id)
        .join(prompts, prompts.c.id == questions.c.prompt_id)
        .where(*where)
        .order_by(feedback.c.question_id, feedback.c.annotator, feedback.c.revision, feedback.c.id)
        .execution_options(yield_per=ROWS_AT_A_TIME)
    )
    for part in connection.execute(ordered).mappings().partitions():
        rows = [dict(row) for row in part]
        for row in rows:
            row["sample_ids"] = json.loads(row["sample_ids"])
        _add_question_json(connection, rows)
        for row in rows:
            row["feedback"] = row.pop("content")
        yield rows


def questions_by_id(connection: Connection, ids: Collection[str]) -> dict[str, Question]:
    """The questions with these ids, some hundred at most; those the store does not know are left out."""
    found = connection.execute(
        select(
            questions.c.id, questions.c.sample_ids, questions.c.reason, questions.c.wanted,
            prompts.c.content.label("prompt"),
        )
        .join(prompts, prompts.c.id == questions.c.prompt_id)
        .where(questions.c.id.in_(ids))
    )  # fmt: skip
    rows = [{**row, "sample_ids": json.loads(row["sample_ids"])} for row in found.mappings()]
    _add_question_json(connection, rows)
    return {row["id"]: known_question(row["question"], row["id"], row["sample_ids"]) for row in rows}


def _add_question_json(connection: Connection, rows: list[dict[str, Any]]) -> None:
    """Replace prompt, reason and wanted of each row by `question`, the whole of it as JSON."""
    texts = _sample_texts(connection, {sample_id for row in rows for sample_id in row["sample_ids"]})
    for row in rows:
        # Put together from stored JSON, because parsing and printing it again would take ten times as long.
        shown = ",".join(texts[sample_id] for sample_id in row["sample_ids"])
        row["question"] = (
            f'{{"prompt":{row.pop("prompt")},"samples":[{shown}],'
            f'"reason":{json.dumps(row.pop("reason"), ensure_ascii=False)},"wanted":{row.pop("wanted")}}}'
        )


def _sample_texts(connection: Connection, ids: set[str]) -> dict[str, str]:
    texts: dict[str, str] = {}
    listed = sorted(ids)
    for start in range(0, len(listed), ROWS_AT_A_TIME):
        chunk = listed[start : start + ROWS_AT_A_TIME]
        found = connection.execute(select(samples.c.id, samples.c.content).where(samples.c.id.in_(chunk)))
        texts.update((row.id, row.content) for row in found)
    return texts
