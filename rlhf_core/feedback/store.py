"""The feedback store: every answer anybody ever gave, in SQLite or PostgreSQL."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from pydantic import ValidationError
from sqlalchemy import Connection, func, select

from rlhf_core.errors import StoreError
from rlhf_core.feedback import changes, query
from rlhf_core.feedback.changes import Position
from rlhf_core.feedback.database import Database
from rlhf_core.feedback.inserts import insert_intake, insert_new
from rlhf_core.feedback.intake import intake, subject
from rlhf_core.feedback.rows import known_answer, known_question
from rlhf_core.feedback.schema import feedback, marks, question_sets
from rlhf_core.feedback.snapshot import Snapshot, write_snapshot
from rlhf_core.feedback.withdrawing import withdraw
from rlhf_core.records import Answer, feedback_from

BATCH = 10_000
"""Answers a transaction: either all of them are accepted or none. Many, because ids are digests: every transaction
writes pages all over the indexes, and half as many transactions write little more than half as much."""


class Added(NamedTuple):
    """What became of answers handed to the store."""

    inserted: int
    """New ones."""
    repeated: int
    """Ones that the store had already, word by word; nothing changed."""


class Stored(NamedTuple):
    """An answer with what the store knows about it."""

    answer: Answer
    campaign: str
    round: int
    accepted: int
    """Its place in the order of acceptance."""
    current: bool
    """False where it was withdrawn, or replaced by a later revision."""


@dataclass(frozen=True)
class Counts:
    """How many answers count now."""

    kinds: Counter[str]
    annotators: Counter[str]
    sources: Counter[str]
    rounds: Counter[int]

    @property
    def total(self) -> int:
        """All of them."""
        return self.kinds.total()


class FeedbackStore:
    """Answers by content: append-only, the same answer twice is one answer, open to several processes at once.

    `url` is `sqlite:///FILE` or `postgresql://USER:PASSWORD@HOST/DATABASE`; a fresh database gets its tables. Once
    `add` returns (for long inputs: once it asks for the answer after a batch of `BATCH`), the answers are on the disk
    and survive a kill as well as a loss of power. All methods raise StoreError, in plain words, where the database is
    out of reach, full, damaged or of a newer version.
    """

    def __init__(self, url: str) -> None:
        self._database = Database(url)

    @property
    def database(self) -> Database:
        """The database below, for the queue of people's questions, which shares it."""
        return self._database

    @classmethod
    def open(cls, url: str) -> Self:
        """The store at `url`."""
        return cls(url)

    def close(self) -> None:
        """Give back all connections."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def add(self, answers: Iterable[Answer], *, campaign: str = "", round: int = 0) -> Added:
        """Accept `answers`, which may be any number, in batches.

        What does not count for a record's identity (token ids, references, when it was given) stays as it first came.
        """
        inserted = total = 0
        remaining = iter(answers)
        while batch := list(islice(remaining, BATCH)):
            rows = intake(batch, campaign, round)
            with self._database.write() as connection:
                inserted += insert_intake(connection, rows)
            total += len(batch)
        return Added(inserted, total - inserted)

    def revise(self, feedback_id: str, **changes: Any) -> str:
        """Append a revision of an answer with `changes` to its fields (`choice="second"`) and return its id.

        It counts instead of the annotator's earlier answer; both stay stored.
        """
        with self._database.write() as connection:
            stored = self._stored(connection, feedback_id)
            old = stored.answer.feedback
            last = connection.execute(
                select(func.max(feedback.c.revision)).where(
                    feedback.c.question_id == old.question_id, feedback.c.annotator == old.annotator
                )
            ).scalar_one()
            fields = old.model_dump() | {"created_at": datetime.now(UTC)} | changes | {"revision": last + 1}
            try:
                new = feedback_from.validate_python(fields)
                answer = Answer(question=stored.answer.question, feedback=new)
            except ValidationError as error:
                raise StoreError(f"the answer cannot be revised like this: {error}", where=feedback_id) from error
            insert_intake(connection, intake([answer], stored.campaign, stored.round))
        return new.id

    def withdraw(
        self,
        *,
        annotator: str | None = None,
        question_id: str | None = None,
        feedback_id: str | None = None,
        reason: str = "",
    ) -> int:
        """Let all answers of an annotator (to one question), or one answer with its revisions, count no longer.

        Returns how many counted. They stay stored. The same answers arriving again stay withdrawn; what is answered or
        revised later counts. Where people were asked, the questions are open to be answered again.
        """
        if (annotator is None) == (feedback_id is None) or (question_id is not None and annotator is None):
            raise ValueError("withdraw() takes either an annotator (and a question_id) or a feedback_id")
        with self._database.write() as connection:
            if feedback_id is None:
                return withdraw(connection, reason, annotator=annotator, question_id=question_id)
            old = self._stored(connection, feedback_id).answer.feedback
            about = {"annotator": old.annotator, "question_id": old.question_id, "subject": subject(old)}
            return withdraw(connection, reason, **about)

    def watermark(self) -> int:
        """The highest place in the order of acceptance so far; 0 in an empty store."""
        with self._database.read() as connection:
            return query.watermark(connection)

    def position(self) -> Position:
        """How far the history of answers and withdrawals goes, for `changed_since`."""
        with self._database.read() as connection:
            return changes.position(connection)

    def changed_since(self, position: Position, *, upto: int = 0, question_sets: Collection[str] | None = None) -> bool:
        """Whether snapshots up to marks that were made by `position` may hold something else now than they did then.

        True where since then an answer of before was revised, withdrawn, or given again after it was withdrawn. New
        answers, whoever gave them and to whatever question, are none of these. With `upto`, the last mark of
        snapshots that were taken after `position`, those are asked about, too: what was changed between `position` and
        a snapshot counts as well, so that the answer is never no where it should be yes. `question_sets` (see
        `register_questions`) restricts it to revisions and withdrawals of answers to their questions; that everything
        an annotator said was withdrawn counts in any case. The cost is that of what was added since, not of the store.
        """
        with self._database.read() as connection:
            return changes.changed_since(connection, position, upto, question_sets)

    def mark(self, key: str) -> int:
        """The watermark recorded under `key`; the first call records the current one, all later calls return it."""
        with self._database.write() as connection:
            row = {"key": key, "watermark": query.watermark(connection)}
            insert_new(connection, marks, [row])
            return int(connection.execute(select(marks.c.watermark).where(marks.c.key == key)).scalar_one())

    def register_questions(self, set_id: str, question_ids: Iterable[str]) -> None:
        """Remember which questions belong to `set_id`, for `snapshot`; more can join later."""
        remaining = iter(question_ids)
        while batch := list(islice(remaining, BATCH)):
            rows = [{"set_id": set_id, "question_id": question_id} for question_id in batch]
            with self._database.write() as connection:
                insert_new(connection, question_sets, rows)

    def snapshot(
        self,
        folder: Path,
        *,
        questions: Collection[str] | None = None,
        question_sets: Collection[str] | None = None,
        upto: int | None = None,
    ) -> Snapshot:
        """Write what counts now to `folder`, as Arrow that `FeedbackSet.open` reads; memory stays flat.

        `questions` (ids) and `question_sets` (see `register_questions`) restrict it to the questions in either. With
        `upto`, a watermark, only answers whose first version was accepted by then are in it, as they stand now: a late
        answer waits for the next snapshot, while a change of mind or a withdrawal is seen at once.
        """
        with self._database.read() as connection:
            conditions = [query.current(upto)]
            if questions is not None or question_sets is not None:
                conditions.append(query.among(connection, questions, question_sets))
            limit = query.watermark(connection) if upto is None else upto
            return write_snapshot(Path(folder), query.stream(connection, *conditions), limit)

    def answers(self, question_ids: Collection[str] | None = None) -> Iterator[Answer]:
        """The answers that count now (to these questions), in the order of question, annotator, revision."""
        with self._database.read() as connection:
            conditions = [query.current()]
            if question_ids is not None:
                conditions.append(query.among(connection, question_ids))
            for rows in query.stream(connection, *conditions):
                yield from map(_answer, rows)

    def feedback(self, feedback_id: str) -> Stored:
        """One answer, whether it counts or not. Raises StoreError where there is none with this id."""
        with self._database.read() as connection:
            return self._stored(connection, feedback_id)

    def answered(self, question_ids: Collection[str]) -> dict[str, int]:
        """How many annotators have answered each question so far (a skip is an answer); 0 where nobody has."""
        with self._database.read() as connection:
            counted = connection.execute(
                select(feedback.c.question_id, func.count(feedback.c.annotator.distinct()).label("annotators"))
                .where(query.current(), query.among(connection, question_ids))
                .group_by(feedback.c.question_id)
            )
            found = {row.question_id: row.annotators for row in counted}
        return {question_id: found.get(question_id, 0) for question_id in question_ids}

    def counts(self) -> Counts:
        """How many answers count now, by kind, annotator, source and round."""
        by = (feedback.c.kind, feedback.c.annotator, feedback.c.source, feedback.c.round)
        counts = Counts(Counter(), Counter(), Counter(), Counter())
        with self._database.read() as connection:
            counted = connection.execute(select(*by, func.count()).where(query.current()).group_by(*by))
            for kind, annotator, source, round_number, number in counted:
                counts.kinds[kind] += number
                counts.annotators[annotator] += number
                counts.sources[source] += number
                counts.rounds[round_number] += number
        return counts

    def _stored(self, connection: Connection, feedback_id: str) -> Stored:
        row = connection.execute(
            select(feedback.c.campaign, feedback.c.round, feedback.c.seq, query.current().label("current")).where(
                feedback.c.id == feedback_id
            )
        ).first()
        if row is None:
            raise StoreError(f"there is no answer with the id {feedback_id!r}", where=self._database.where)
        (rows,) = query.stream(connection, feedback.c.id == feedback_id)
        return Stored(_answer(rows[0]), row.campaign, row.round, row.seq, bool(row.current))


def _answer(row: dict[str, Any]) -> Answer:
    question = known_question(row["question"], row["question_id"], row["sample_ids"])
    return known_answer(question, row["feedback"], row["feedback_id"])
