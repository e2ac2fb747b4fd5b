"""What users of a product do with the samples that it shows them: impressions, and reactions to them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from sqlalchemy import Connection, and_, func, select

from rlhf_core.errors import DataError
from rlhf_core.feedback import query
from rlhf_core.feedback.group_commit import GroupCommit
from rlhf_core.feedback.inserts import insert_new, insert_questions
from rlhf_core.feedback.intake import question_rows, sortable
from rlhf_core.feedback.schema import events, offers
from rlhf_core.feedback.store import FeedbackStore
from rlhf_core.records import Question

TEXT_LIMIT = 50_000
"""Characters of an edited text."""
Name = Annotated[str, Field(max_length=200)]


class Event(BaseModel):
    """One thing that happened to one shown sample, as the channel that showed it reports it."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    id: Name = Field(min_length=1)
    """Of the channel's own making. An id that was reported before changes nothing: events can be sent again."""
    action: Literal["impression", "click", "like", "dislike", "share", "edit"]
    impression: Name = ""
    """Of reactions: the id of the impression that they react to. It may arrive later than they do."""
    question: Name = ""
    """Of impressions: the question whose sample was shown."""
    sample: Name = ""
    """Of impressions: the sample that was shown."""
    position: int = Field(0, ge=0, le=10_000)
    """Of impressions: where in a list it was shown; 0 where there was no list."""
    text: str = Field("", max_length=TEXT_LIMIT)
    """Of edits: what the user made of the sample."""
    at: datetime | None = None
    """When, in UTC where no zone is named; the time of its arrival where the channel does not say."""

    @field_validator("id", "impression", "text")
    @classmethod
    def _storable(cls, text: str) -> str:
        if "\0" in text:
            raise ValueError("no database keeps a null character")
        return text

    @field_validator("at")
    @classmethod
    def _in_utc(cls, at: datetime | None) -> datetime | None:
        try:
            return at if at is None else (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(UTC)
        except OverflowError as error:
            raise ValueError("no such time in UTC") from error

    @model_validator(mode="after")
    def _complete(self) -> Self:
        is_impression = self.action == "impression"
        if is_impression != bool(self.question and self.sample) or is_impression == bool(self.impression):
            raise ValueError(
                "an impression names its `question` and `sample`, a reaction the `impression` that it is about"
            )
        if (self.action == "edit") != bool(self.text.strip()):
            raise ValueError("an edit, and nothing else, has a `text`")
        return self


class Appended(NamedTuple):
    """What became of the events of one request."""

    accepted: int
    repeated: int
    """Ones whose id was known; nothing changed."""


class EventCount(NamedTuple):
    """How many events of one sort a channel has reported on a sample."""

    channel: str
    question_id: str
    sample_id: str
    position: int
    action: str
    number: int
    """Of impressions: those; of reactions: the impressions with at least one."""
    last: datetime


class Edit(NamedTuple):
    """A sample that somebody rewrote."""

    channel: str
    question_id: str
    sample_id: str
    event_id: str
    text: str
    at: datetime


class EventLog:
    """Events in the database of `store`, and the questions whose samples channels are asked to show."""

    def __init__(self, store: FeedbackStore) -> None:
        self._database = store.database
        self._commit = GroupCommit(store.database)

    def offer(self, questions: Iterable[Question]) -> None:
        """Let channels show the samples of these questions; offering what was offered before changes nothing."""

        def work(connection: Connection) -> None:
            rows = question_rows(questions)
            insert_questions(connection, rows)
            insert_new(connection, offers, [{"question_id": question_id, "open": 1} for question_id in rows.questions])

        self._commit.run(work)

    def close(self, question_ids: Collection[str]) -> None:
        """Their samples need not be shown any more; what channels still report on them is kept."""

        def work(connection: Connection) -> None:
            for part in _parts(question_ids):
                connection.execute(offers.update().where(offers.c.question_id.in_(part)).values(open=0))

        self._commit.run(work)

    def offered(self, after: int = 0, limit: int = 100) -> list[tuple[int, Question]]:
        """Questions whose samples are to be shown, with their place in the order of offering, from behind `after`."""
        with self._database.read() as connection:
            rows = connection.execute(
                select(offers.c.seq, offers.c.question_id)
                .where(offers.c.open == 1, offers.c.seq > after)
                .order_by(offers.c.seq)
                .limit(limit)
            ).all()
            found = query.questions_by_id(connection, [row.question_id for row in rows])
        return [(row.seq, found[row.question_id]) for row in rows]

    def append(self, channel: str, reported: Sequence[Event]) -> Appended:
        """Keep the events, all of them or, where one is unusable, none; once this returns they are on the disk.

        Raises DataError where an impression is of a question that was never offered, or of a sample of another one.
        """
        now = datetime.now(UTC)
        rows = list({event.id: _row(channel, event, now) for event in reversed(reported)}.values())[::-1]

        def work(connection: Connection) -> int:
            self._check(connection, reported)
            return insert_new(connection, events, rows)

        accepted = self._commit.run(work)
        return Appended(accepted, len(reported) - accepted)

    def counts(self) -> list[EventCount]:
        """All events but edits, counted; reactions whose impression has not arrived are not among them."""
        place = (events.c.channel, events.c.question_id, events.c.sample_id, events.c.position)
        shown = select(*place, events.c.action, func.count().label("n"), func.max(events.c.at).label("last"))
        shown = shown.where(events.c.action == "impression").group_by(*place, events.c.action)
        impression, reaction = events.alias("impression"), events.alias("reaction")
        where = tuple(impression.c[column.name] for column in place)
        reacted = (
            select(
                *where, reaction.c.action, func.count(impression.c.id.distinct()).label("n"),
                func.max(reaction.c.at).label("last"),
            )
            .join_from(reaction, impression, _about(reaction, impression))
            .where(reaction.c.action.not_in(("impression", "edit")))
            .group_by(*where, reaction.c.action)
        )  # fmt: skip
        with self._database.read() as connection:
            rows = [*connection.execute(shown), *connection.execute(reacted)]
        return sorted(
            EventCount(
                row.channel, row.question_id, row.sample_id, row.position, row.action, row.n,
                datetime.fromisoformat(row.last),
            )
            for row in rows
        )  # fmt: skip

    def edits(self) -> list[Edit]:
        """Every edit of a shown sample, in a fixed order."""
        impression, edit = events.alias("impression"), events.alias("edit")
        found = (
            select(
                edit.c.channel, impression.c.question_id, impression.c.sample_id, edit.c.id, edit.c.text, edit.c.at
            )
            .join_from(edit, impression, _about(edit, impression))
            .where(edit.c.action == "edit")
            .order_by(edit.c.channel, edit.c.id)
        )  # fmt: skip
        with self._database.read() as connection:
            rows = connection.execute(found).all()
        return [
            Edit(row.channel, row.question_id, row.sample_id, row.id, row.text, datetime.fromisoformat(row.at))
            for row in rows
        ]

    def _check(self, connection: Connection, reported: Sequence[Event]) -> None:
        asked = {event.question for event in reported if event.question}
        samples: dict[str, set[str]] = {}
        for part in _parts(asked):
            offered = select(offers.c.question_id).where(offers.c.question_id.in_(part))
            ids = list(connection.execute(offered).scalars())
            for question_id, question in query.questions_by_id(connection, ids).items():
                samples[question_id] = {sample.id for sample in question.samples}
        for event in reported:
            if event.question and event.sample not in samples.get(event.question, ()):
                what = "has no such sample" if event.question in samples else "was never offered"
                raise DataError(f"event {event.id!r}: its question {what}; none of these events was accepted")


def _about(reaction: Any, impression: Any) -> Any:
    return and_(
        reaction.c.channel == impression.c.channel,
        reaction.c.impression == impression.c.id,
        impression.c.action == "impression",
    )


def _row(channel: str, event: Event, now: datetime) -> dict[str, Any]:
    return {
        "channel": channel,
        "id": event.id,
        "action": event.action,
        "impression": event.impression or event.id,
        "question_id": event.question or None,
        "sample_id": event.sample or None,
        "position": event.position if event.question else None,
        "text": event.text or None,
        "at": sortable(now if event.at is None else event.at),
    }


def _parts(ids: Collection[str], size: int = 500) -> Iterable[list[str]]:
    """A statement can name only so many values."""
    listed = sorted(ids)
    return (listed[start : start + size] for start in range(0, len(listed), size))
