import shutil
from datetime import UTC, datetime

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from made_answers import made

from rlhf_core.feedback import changes
from rlhf_core.feedback.changes import Position
from rlhf_core.feedback.store import FeedbackStore
from rlhf_core.records import Answer, Prompt, Question, Sample


def test_new_answers_change_nothing(store):
    answers = made(3)
    assert store.position() == Position(0, 0)
    store.add(answers)
    store.withdraw(annotator="bob")
    position = store.position()
    assert position == (store.watermark(), 1)
    assert not store.changed_since(position)
    store.add(made(2, start=10))  # by the annotator whose answers were withdrawn, too
    store.add(made(3, annotators=("new",)))
    store.add(answers)  # word by word the same
    store.withdraw(annotator="new")
    assert not store.changed_since(position)


@pytest.mark.parametrize(
    "change",
    [
        lambda store, answer: store.revise(answer.feedback.id, choice="tie"),
        lambda store, answer: store.withdraw(annotator="ann"),
        lambda store, answer: store.withdraw(annotator="ann", question_id=answer.question.id),
        lambda store, answer: store.withdraw(feedback_id=answer.feedback.id),
        lambda store, answer: store.add(
            [Answer(question=answer.question, feedback=answer.question.skip(annotator="ann", revision=1))]
        ),
    ],
    ids=["revised", "annotator withdrawn", "question withdrawn", "answer withdrawn", "taken back by a skip"],
)
def test_a_change_of_what_was_there_is_one(either_url, change):
    with FeedbackStore(either_url) as store:
        answer = made(1)[0]
        store.add([answer])
        before = store.position()
        change(store, answer)
        assert store.changed_since(before)
        assert not store.changed_since(store.position())


def test_a_withdrawal_that_is_undone_is_a_change(store):
    answer = made(1)[0]
    store.add([answer])
    store.withdraw(feedback_id=answer.feedback.id)
    before = store.position()
    store.revise(answer.feedback.id, comment="I meant it")
    assert store.changed_since(before)


def test_a_late_arrival_of_an_older_revision_changes_nothing(store):
    answer = made(1)[0]
    newer = answer.feedback.model_copy(update={"revision": 2})
    store.add([Answer(question=answer.question, feedback=newer)])
    before = store.position()
    assert store.add([answer]).inserted == 1
    assert not store.changed_since(before)


def test_a_store_from_before_is_brought_up_to_date(url):
    with FeedbackStore(url) as store:
        store.add(made(2))
        store.withdraw(annotator="bob")
        with store.database.write() as connection:
            connection.exec_driver_sql("ALTER TABLE withdrawals DROP COLUMN first")
            connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0003'")
    with FeedbackStore(url) as store:
        before = store.position()
        assert store.counts().annotators == {"ann": 2} and not store.changed_since(before)
        store.withdraw(annotator="ann")
        assert store.changed_since(before)


def test_snapshots_taken_after_the_position_are_asked_about_by_their_mark(store):
    store.add(made(1))
    before = store.position()
    late = made(1, start=5)[0]
    store.add([late])
    mark = store.mark("round 1")
    assert not store.changed_since(before, upto=mark)
    store.revise(late.feedback.id, choice="tie")
    assert store.changed_since(before, upto=mark) and not store.changed_since(before)
    middle = store.position()
    store.withdraw(feedback_id=late.feedback.id)
    assert store.changed_since(middle, upto=mark)


def test_only_the_sets_that_are_asked_about(either_url):
    with FeedbackStore(either_url) as store:
        ours, theirs = made(2, annotators=("ann",))
        store.add([ours, theirs])
        store.register_questions("ours", [ours.question.id])

        def changed(since, *sets):
            return store.changed_since(since, question_sets=sets)

        before = store.position()
        store.revise(theirs.feedback.id, choice="tie")
        store.withdraw(annotator="ann", question_id=theirs.question.id)
        assert store.changed_since(before) and not changed(before, "ours")
        middle = store.position()
        store.revise(ours.feedback.id, choice="tie")
        assert changed(middle, "ours") and store.changed_since(before, question_sets=["none", "ours"])
        assert not changed(middle) and not store.changed_since(middle, question_sets=["none"])
        middle = store.position()
        store.withdraw(annotator="ann", question_id=ours.question.id)
        assert changed(middle, "ours") and not store.changed_since(middle, question_sets=["none"])


def test_the_question_costs_what_was_added_since(store, monkeypatch):
    """Of every table only what an index leads to is read."""
    store.add(made(20))
    store.withdraw(annotator="ann")
    statements = []
    with store.database.read() as connection:
        execute = connection.execute
        monkeypatch.setattr(
            type(connection), "execute", lambda self, statement: statements.append(statement) or execute(statement)
        )
        changes.changed_since(connection, Position(10, 0), 15, ["a", "b"])
        (statement,) = statements
        text = str(statement.compile(connection, compile_kwargs={"literal_binds": True}))
        plan = [row[3] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}")]
    reads = [line for line in plan if line.startswith(("SCAN", "SEARCH")) and "CONSTANT ROW" not in line]
    assert len(reads) == 5
    assert all(line.startswith("SEARCH") for line in reads), plan


PROMPTS = [Prompt(text=f"prompt {number}") for number in range(3)]
QUESTIONS = [
    Question(prompt=each, samples=tuple(Sample(prompt_id=each.id, text=f"{letter} {each.text}") for letter in "ab"))
    for each in PROMPTS
]
who, which = st.sampled_from("xy"), st.sampled_from(QUESTIONS)


@st.composite
def said(draw):
    """An answer of any revision and date, so that older ones arrive after newer ones."""
    question, annotator = draw(which), draw(who)
    kind = draw(st.sampled_from(["compare", "rate", "skip"]))
    if kind == "compare":
        feedback = question.compare([draw(st.integers(0, 1)), 0.5], annotator=annotator)
    elif kind == "rate":
        feedback = question.rate(draw(st.integers(0, 1)), draw(st.integers(1, 2)), annotator=annotator)
    else:
        feedback = question.skip(annotator=annotator)
    when = {"revision": draw(st.integers(0, 1)), "created_at": datetime(2030, 1, draw(st.integers(1, 2)), tzinfo=UTC)}
    return "add", Answer(question=question, feedback=feedback.model_copy(update=when))


operations = st.one_of(
    said(),
    said(),
    st.tuples(st.just("revise"), st.integers(0, 99)),
    st.tuples(st.just("withdraw one"), st.integers(0, 99)),
    st.tuples(st.just("withdraw"), who, st.none() | which),
)


def carry_out(store, ids, operation):
    match operation:
        case "add", answer:
            store.add([answer])
            ids.append(answer.feedback.id)
        case "revise", number if ids:
            ids.append(store.revise(ids[number % len(ids)], comment=f"revision {len(ids)}"))
        case "withdraw one", number if ids:
            store.withdraw(feedback_id=ids[number % len(ids)])
        case "withdraw", annotator, question:
            store.withdraw(annotator=annotator, question_id=question and question.id)


@pytest.fixture(scope="module")
def empty(tmp_path_factory):
    path = tmp_path_factory.mktemp("empty") / "feedback.db"
    FeedbackStore(f"sqlite:///{path}").close()
    return path


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(before=st.lists(operations, min_size=1, max_size=8), after=st.lists(operations, min_size=1, max_size=3))
def test_where_it_says_no_every_earlier_snapshot_is_the_same(empty, tmp_path, before, after):
    path = tmp_path / "feedback.db"
    for old in tmp_path.glob("feedback.db*"):
        old.unlink()
    shutil.copy(empty, path)
    with FeedbackStore(f"sqlite:///{path}") as store:
        ids, marks = [], set()

        def digests(sets=None):
            return [store.snapshot(tmp_path / "s", upto=mark, question_sets=sets).digest for mark in sorted(marks)]

        store.register_questions("one", [QUESTIONS[0].id])
        for number, operation in enumerate(before):
            carry_out(store, ids, operation)
            if (len(before) - 1 - number) % 3 == 0:
                marks.add(store.watermark())
        position, then, then_of_one = store.position(), digests(), digests(["one"])
        for operation in after:
            carry_out(store, ids, operation)
        changed, changed_of_one = store.changed_since(position), store.changed_since(position, question_sets=["one"])
        now, now_of_one = digests(), digests(["one"])
        event(f"says {changed}, differs {now != then}")
        assert changed or now == then
        assert changed_of_one or now_of_one == then_of_one
        assert changed or not changed_of_one


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(before=st.lists(operations, max_size=4), rounds=st.lists(operations, min_size=1, max_size=4), last=operations)
def test_snapshots_between_the_position_and_the_last_mark(empty, tmp_path, before, rounds, last):
    """A command notes the position when it begins, and takes a snapshot in each of its rounds."""
    path = tmp_path / "feedback.db"
    for old in tmp_path.glob("feedback.db*"):
        old.unlink()
    shutil.copy(empty, path)
    with FeedbackStore(f"sqlite:///{path}") as store:
        ids = []
        for operation in before:
            carry_out(store, ids, operation)
        position, taken = store.position(), []

        def digest(mark):
            return store.snapshot(tmp_path / "s", upto=mark).digest

        for operation in rounds:
            mark = store.watermark()
            taken.append((mark, digest(mark)))
            carry_out(store, ids, operation)
        mark = store.watermark()
        taken.append((mark, digest(mark)))
        carry_out(store, ids, last)
        changed = store.changed_since(position, upto=mark)
        same = all(digest(mark) == then for mark, then in taken)
        event(f"says {changed}, same {same}")
        assert changed or same
