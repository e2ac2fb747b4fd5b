"""The queue of questions that people are asked: leased one by one, answered once by each annotator, open to several
servers at once."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, NamedTuple

from sqlalchemy import Connection, Row, and_, exists, func, select

from rlhf_core.errors import StoreError
from rlhf_core.feedback import query
from rlhf_core.feedback import queue_query as which
from rlhf_core.feedback.forms import Form
from rlhf_core.feedback.group_commit import GroupCommit
from rlhf_core.feedback.inserts import insert_new, insert_questions
from rlhf_core.feedback.intake import intake, question_rows, sortable
from rlhf_core.feedback.progress import Progress, Standing
from rlhf_core.feedback.schema import assignments, feedback, forms, people, posted
from rlhf_core.feedback.store import FeedbackStore
from rlhf_core.feedback.withdrawing import withdraw
from rlhf_core.records import Answer, AnyFeedback, Feedback, Question, feedback_from

Role = Literal["asked", "gold", "repeat"]
EVERYBODY = 1_000_000
"""How many answers a gold question wants: one by every annotator."""
REMEMBERED = 2000
"""Questions kept in memory, for the several times that each is handed out and answered."""
UNDO_WITHIN = timedelta(hours=1)
"""For how long an annotator can take an answer back."""


class Assigned(NamedTuple):
    """A question in an annotator's hands."""

    form: Form
    question: Question
    draft: Any
    """What the annotator has begun to answer before, as it was saved; None where nothing."""
    leased_at: datetime
    """Since when."""
    role: Role


class Refused(StoreError):
    """The annotator may not answer: paused, or the question was never asked."""


class QuestionQueue:
    """Questions that wait for people, in the database of `store`.

    A question is leased to as many annotators at once as answers are wanted. A lease that expires frees the place for
    somebody else; the annotator who held it can still answer, and an honest answer is never turned away because it is
    late. `now` is the clock, for tests.
    """

    def __init__(self, store: FeedbackStore, *, lease: timedelta = timedelta(minutes=20), now: Any = None) -> None:
        self._database = store.database
        self._lease = lease
        self._now = now or (lambda: datetime.now(UTC))
        self._commit = GroupCommit(store.database)
        self._questions: dict[str, Question] = {}

    def post(
        self,
        form: Form,
        questions: Iterable[Question],
        *,
        campaign: str = "",
        round: int = 0,
        gold: Iterable[Answer] = (),
    ) -> None:
        """Ask `questions` with `form`, and mix in `gold`: questions whose right answer is known.

        Asking what was asked already changes nothing but the words beside it (title, guidelines).
        """
        known = list(gold)

        def work(connection: Connection) -> None:
            content = form.model_dump_json()
            if not insert_new(connection, forms, [{"id": form.id, "content": content}]):
                connection.execute(forms.update().where(forms.c.id == form.id).values(content=content))
            asked = ((question, "", question.wanted) for question in questions)
            answers = ((each.question, each.feedback.model_dump_json(), EVERYBODY) for each in known)
            self._post(connection, asked, role="asked", form=form, campaign=campaign, round=round)
            self._post(connection, answers, role="gold", form=form, campaign=campaign, round=round)

        self._commit.run(work)

    def next(self, annotator: str) -> Assigned | None:
        """The question that `annotator` holds, or else a new one; None where there is nothing to answer for now."""
        return self._commit.run(lambda connection: self._next(connection, annotator))

    def asked(self, form_id: str, question_id: str) -> Assigned:
        """A question that was posted, in nobody's hands. Raises Refused where it was not."""
        with self._database.read() as connection:
            row = self._asked(connection, form_id, question_id)
            question = self._question(connection, question_id)
            return Assigned(self._form(connection, form_id), question, None, self._now(), row.role)

    def answer(
        self, annotator: str, form_id: str, question_id: str, given: Sequence[Feedback], draft: Any = None
    ) -> bool:
        """Accept what `annotator` says about a question; it is on the disk when this returns.

        `draft` is what the page shows again where the answer is taken back.

        False where the annotator had answered it already, and nothing changed: a request that is sent again after its
        reply was lost. Raises Refused where the annotator is paused or nobody asked that question.
        """
        place = (annotator, form_id, question_id)
        return self._commit.run(lambda connection: self._accept(connection, *place, given, draft))

    def answer_and_next(
        self, annotator: str, form_id: str, question_id: str, given: Sequence[Feedback], draft: Any = None
    ) -> tuple[bool, Assigned | None, Standing]:
        """`answer`, `next` and `standing` in one transaction, which costs a third of three."""

        def work(connection: Connection) -> tuple[bool, Assigned | None, Standing]:
            accepted = self._accept(connection, annotator, form_id, question_id, given, draft)
            return accepted, self._next(connection, annotator), self._standing(connection, annotator)

        return self._commit.run(work)

    def undo(self, annotator: str) -> Assigned | None:
        """Take the annotator's last answer back and hand the question out again; None where there is none to undo."""

        def work(connection: Connection) -> Assigned | None:
            if self._paused(connection, annotator):
                return None
            since = sortable(self._now() - UNDO_WITHIN)
            last = connection.execute(
                select(assignments)
                .where(assignments.c.annotator == annotator, assignments.c.answered_at > since)
                .order_by(assignments.c.answered_at.desc())
                .limit(1)
            ).first()
            if last is None:
                return None
            withdraw(connection, "taken back by the annotator", annotator=annotator, question_id=last.question_id)
            again = self._asked(connection, last.form_id, last.question_id)
            return self._hand_out(connection, again, annotator, draft=last.draft)

        return self._commit.run(work)

    def save_draft(self, annotator: str, form_id: str, question_id: str, draft: Any) -> None:
        """Keep what the annotator has begun to answer, and the lease with it. After the answer it changes nothing."""

        def work(connection: Connection) -> None:
            self._asked(connection, form_id, question_id)
            connection.execute(
                assignments.update()
                .where(which.mine(form_id, question_id, annotator), assignments.c.answered_at.is_(None))
                .values(draft=json.dumps(draft), expires_at=sortable(self._now() + self._lease))
            )

        self._commit.run(work)

    def standing(self, annotator: str) -> Standing:
        """How far `annotator` is."""
        with self._database.read() as connection:
            return self._standing(connection, annotator)

    def _standing(self, connection: Connection, annotator: str) -> Standing:
        mine = and_(assignments.c.annotator == annotator, which.answered())
        day = sortable(self._now() - timedelta(days=1))
        done = select(func.count()).select_from(assignments).where(mine)
        open_to_me = and_(posted.c.open == 1, which.for_me(annotator), posted.c.role != "gold")
        # Two counts that use the indexes, instead of a look at every open question.
        still = select(func.count()).select_from(posted).where(open_to_me)
        own = select(func.count()).select_from(assignments).join(posted, which.same_question()).where(mine, open_to_me)
        answered, today, left, done_of_them = (
            connection.execute(count).scalar_one()
            for count in (done, done.where(assignments.c.answered_at > day), still, own)
        )
        return Standing(answered, today, left - done_of_them)

    def progress(self) -> Progress:
        """How far everybody together is."""
        here = (
            select(func.count())
            .select_from(assignments)
            .where(which.same_question(), which.answered())
            .scalar_subquery()
        )
        asked = select(posted.c.wanted, here.label("answered")).where(posted.c.role == "asked")
        now = self._now()
        with self._database.read() as connection:
            rows = connection.execute(asked).all()
            since = [
                connection.execute(
                    select(func.count())
                    .select_from(assignments)
                    .where(assignments.c.answered_at > sortable(now - span))
                ).scalar_one()
                for span in (timedelta(hours=1), timedelta(days=1))
            ]
        given = sum(min(row.answered, row.wanted) for row in rows)
        unfinished = sum(row.answered < row.wanted for row in rows)
        return Progress(sum(row.wanted for row in rows), given, unfinished, *since)

    def mixed_in(self) -> tuple[dict[str, AnyFeedback], dict[str, str]]:
        """The known answers of the gold questions, and of the repeats the original question; by question id."""
        with self._database.read() as connection:
            rows = connection.execute(
                select(posted.c.question_id, posted.c.role, posted.c.about).where(posted.c.role != "asked")
            ).all()
        gold = {row.question_id: feedback_from.validate_json(row.about) for row in rows if row.role == "gold"}
        return gold, {row.question_id: row.about for row in rows if row.role == "repeat"}

    def question_ids(self) -> list[str]:
        """Every question ever posted."""
        with self._database.read() as connection:
            return list(connection.execute(select(posted.c.question_id).distinct()).scalars())

    def missing(self, form: Form, questions: Sequence[Question]) -> dict[str, int]:
        """How many annotators each of `questions` still waits for, by id."""
        wanted = {question.id: question.wanted for question in questions}
        with self._database.read() as connection:
            answered = connection.execute(
                select(assignments.c.question_id, func.count())
                .where(assignments.c.form_id == form.id, which.answered())
                .group_by(assignments.c.question_id)
            )
            found = {question_id: count for question_id, count in answered if question_id in wanted}
        return {question_id: max(0, count - found.get(question_id, 0)) for question_id, count in wanted.items()}

    def posted_at(self, form: Form, questions: Sequence[Question]) -> datetime | None:
        """When the first of `questions` was posted."""
        wanted = {question.id for question in questions}
        with self._database.read() as connection:
            rows = connection.execute(
                select(posted.c.question_id, posted.c.posted_at).where(posted.c.form_id == form.id)
            )
            times = [time for question_id, time in rows if question_id in wanted]
        return datetime.fromisoformat(min(times)) if times else None

    def _accept(
        self, connection: Connection, annotator: str, form_id: str, question_id: str, given: Sequence[Feedback],
        draft: Any,
    ) -> bool:  # fmt: skip
        if self._paused(connection, annotator):
            raise Refused("you are paused; the lead can say why")
        asked = self._asked(connection, form_id, question_id)
        mine = which.mine(form_id, question_id, annotator)
        if connection.execute(
            select(assignments.c.annotator).where(mine, assignments.c.answered_at.is_not(None))
        ).first():
            return False
        question = self._question(connection, question_id)
        last = connection.execute(
            select(func.max(feedback.c.revision)).where(
                feedback.c.question_id == question_id, feedback.c.annotator == annotator
            )
        ).scalar_one()
        # A number of its own, so that an answer given again after it was taken back is a new one.
        revision = {"revision": 0 if last is None else last + 1, "annotator": annotator, "source": "person"}
        answers = [Answer(question=question, feedback=each.model_copy(update=revision)) for each in given]
        insert_new(connection, feedback, list(intake(answers, asked.campaign, asked.round).feedback.values()))
        now = self._now()
        row = {"form_id": form_id, "question_id": question_id, "annotator": annotator}
        insert_new(connection, assignments, [{**row, "leased_at": sortable(now), "expires_at": sortable(now)}])
        done = {"answered_at": sortable(now), "draft": json.dumps(draft)}
        connection.execute(assignments.update().where(mine).values(**done))
        given_by = select(func.count()).select_from(assignments).where(which.about(asked), which.answered())
        if connection.execute(given_by).scalar_one() >= asked.wanted:
            connection.execute(posted.update().where(posted.c.seq == asked.seq).values(open=0))
        return True

    def _post(
        self, connection: Connection, questions: Iterable[tuple[Question, str, int]], *, role: Role, form: Form,
        campaign: str, round: int, audience: str | None = None,
    ) -> None:  # fmt: skip
        rows = []
        for question, about, wanted in questions:
            insert_questions(connection, question_rows([question]))
            rows.append(
                {
                    "form_id": form.id, "question_id": question.id, "campaign": campaign, "round": round, "role": role,
                    "about": about, "audience": audience, "wanted": wanted, "open": 1,
                    "posted_at": sortable(self._now()),
                }
            )  # fmt: skip
        insert_new(connection, posted, rows)

    def _next(self, connection: Connection, annotator: str) -> Assigned | None:
        if self._paused(connection, annotator):
            return None
        held = connection.execute(
            select(posted)
            .join(assignments, which.same_question())
            .where(assignments.c.annotator == annotator, ~which.answered(), posted.c.open == 1)
            .order_by(assignments.c.leased_at.desc())
            .limit(1)
        ).first()
        if held is not None:
            return self._hand_out(connection, held, annotator)
        free = which.free(annotator, sortable(self._now()))
        first = connection.execute(
            select(posted).where(free, posted.c.role == "asked").order_by(posted.c.seq).limit(1)
        ).first()
        if first is None:
            return None
        form = self._form(connection, first.form_id)
        count = self._count(connection, annotator, form)
        for role, every in (("gold", form.gold_every), ("repeat", form.repeat_every)):
            if every and count % every == every - 1:
                if role == "repeat":
                    self._repeat(connection, annotator, form, first)
                mixed = select(posted).where(free, posted.c.role == role, posted.c.form_id == form.id)
                chosen = connection.execute(mixed.order_by(posted.c.seq).limit(1)).first()
                if chosen is not None:
                    return self._hand_out(connection, chosen, annotator)
        return self._hand_out(connection, first, annotator)

    def _repeat(self, connection: Connection, annotator: str, form: Form, like: Row[Any]) -> None:
        """Post the oldest pair that `annotator` answered and was not asked again, the other way round."""
        repeated = posted.alias("repeated")
        oldest = connection.execute(
            select(posted.c.question_id)
            .join(assignments, which.same_question())
            .where(
                assignments.c.annotator == annotator, which.answered(), posted.c.form_id == form.id,
                posted.c.role == "asked",
                ~exists().where(repeated.c.about == posted.c.question_id, repeated.c.audience == annotator),
            )
            .order_by(assignments.c.answered_at)
            .limit(1)
        ).first()  # fmt: skip
        if oldest is None:
            return
        question = self._question(connection, oldest.question_id)
        if form.view(question) == "pair":
            again = question.model_copy(update={"samples": question.samples[::-1]})
            self._post(
                connection, [(again, question.id, 1)], role="repeat", form=form, campaign=like.campaign,
                round=like.round, audience=annotator,
            )  # fmt: skip

    def _hand_out(self, connection: Connection, row: Row[Any], annotator: str, draft: str | None = None) -> Assigned:
        now = self._now()
        key = {"form_id": row.form_id, "question_id": row.question_id, "annotator": annotator}
        lease = {"leased_at": sortable(now), "expires_at": sortable(now + self._lease)}
        new = insert_new(connection, assignments, [{**key, **lease, "draft": draft}])
        mine = which.mine(row.form_id, row.question_id, annotator)
        if not new:
            connection.execute(assignments.update().where(mine).values(expires_at=lease["expires_at"]))
        found = connection.execute(select(assignments.c.draft, assignments.c.leased_at).where(mine)).one()
        question = self._question(connection, row.question_id)
        kept = None if found.draft is None else json.loads(found.draft)
        form = self._form(connection, row.form_id)
        return Assigned(form, question, kept, datetime.fromisoformat(found.leased_at), row.role)

    def _asked(self, connection: Connection, form_id: str, question_id: str) -> Row[Any]:
        asked = select(posted).where(posted.c.form_id == form_id, posted.c.question_id == question_id)
        row = connection.execute(asked).first()
        if row is None:
            raise Refused("nobody asked that question", where=question_id)
        return row

    def _question(self, connection: Connection, question_id: str) -> Question:
        """The question; those seen last are remembered, since a question never changes."""
        known = self._questions.get(question_id)
        if known is None:
            known = query.questions_by_id(connection, [question_id])[question_id]
            while len(self._questions) >= REMEMBERED:
                self._questions.pop(next(iter(self._questions)), None)
            self._questions[question_id] = known
        return known

    def _form(self, connection: Connection, form_id: str) -> Form:
        content = connection.execute(select(forms.c.content).where(forms.c.id == form_id)).scalar_one()
        return Form.model_validate_json(content)

    def _count(self, connection: Connection, annotator: str, form: Form) -> int:
        mine = and_(assignments.c.annotator == annotator, assignments.c.form_id == form.id, which.answered())
        return connection.execute(select(func.count()).select_from(assignments).where(mine)).scalar_one()

    def _paused(self, connection: Connection, annotator: str) -> bool:
        found = connection.execute(select(people.c.paused).where(people.c.name == annotator)).scalar()
        return bool(found)
