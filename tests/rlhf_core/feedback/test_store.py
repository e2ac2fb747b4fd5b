import random
import signal
import sqlite3
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from made_answers import made, one_of_each_kind

from databases import fresh_database
from rlhf_core.errors import StoreError
from rlhf_core.feedback.dataset import FeedbackSet
from rlhf_core.feedback.snapshot import Snapshot
from rlhf_core.feedback.store import FeedbackStore
from rlhf_core.records import Answer, Comparison, Rating


def texts(store):
    return sorted(answer.model_dump_json() for answer in store.answers())


def test_every_kind_comes_back_word_by_word(store, tmp_path):
    answers = one_of_each_kind()
    store.add(answers, campaign="c", round=3)
    assert texts(store) == sorted(answer.model_dump_json() for answer in answers)
    opened = FeedbackSet.open(store.snapshot(tmp_path / "s").folder)
    assert sorted(answer.model_dump_json() for answer in opened.answers()) == texts(store)
    for answer in answers:
        found = store.feedback(answer.feedback.id)
        assert (found.answer, found.campaign, found.round, found.current) == (answer, "c", 3, True)
        assert (found.answer.id, found.answer.question.id) == (answer.id, answer.question.id)


def test_ids_from_the_store_are_those_of_the_content(store):
    store.add(one_of_each_kind())
    for answer in store.answers():
        fresh = Answer.model_validate_json(answer.model_dump_json())
        assert (fresh.id, fresh.question.id) == (answer.id, answer.question.id)
        assert [s.id for s in fresh.question.samples] == [s.id for s in answer.question.samples]


def test_the_same_answer_twice_is_one_answer(store):
    answers = made(4)
    assert store.add(answers + answers[:3]) == (8, 3)
    later = [
        answer.model_copy(update={"feedback": answer.feedback.model_copy(update={"created_at": datetime.now(UTC)})})
        for answer in answers
    ]
    assert store.add(later, round=7) == (0, 8)
    assert store.counts().rounds == {0: 8}


def test_counts_and_answered(store):
    answers = made(3, annotators=("x", "y"))
    store.add(answers[:5], round=1)
    counts = store.counts()
    assert (counts.total, counts.kinds, counts.annotators) == (5, {"comparison": 5}, {"x": 3, "y": 2})
    assert (counts.sources, counts.rounds) == ({"program": 5}, {1: 5})
    ids = [answers[0].question.id, answers[4].question.id, "unknown"]
    assert store.answered(ids) == dict(zip(ids, [2, 1, 0], strict=True))
    assert {a.question.id for a in store.answers(ids)} == set(ids[:2])
    assert list(store.answers([])) == []


def test_a_revision_replaces_and_both_stay(store):
    (first, other) = made(1)
    store.add([first, other])
    flipped = "second" if first.feedback.choice == "first" else "first"
    new = store.revise(first.feedback.id, choice=flipped)
    newer = store.revise(new, comment="sure")
    found = store.feedback(newer)
    assert (found.answer.feedback.choice, found.answer.feedback.revision, found.current) == (flipped, 2, True)
    assert not store.feedback(first.feedback.id).current
    assert not store.feedback(new).current
    assert store.counts().annotators == {"ann": 1, "bob": 1}


def test_answers_on_different_subjects_stand_side_by_side(store):
    question = made(1)[0].question
    ratings = [question.rate(place, score, annotator="x") for place, score in enumerate((5, 1))]
    store.add([Answer(question=question, feedback=rating) for rating in ratings])
    store.revise(ratings[0].id, score=4)
    assert sorted(answer.feedback.score for answer in store.answers()) == [1, 4]


def test_a_skip_takes_back_an_answer_and_an_answer_a_skip(store):
    answer = made(1)[0]
    skip = answer.question.skip("changed my mind", annotator="ann", revision=1)
    store.add([Answer(question=answer.question, feedback=skip), answer])
    assert store.counts().kinds == {"skip": 1}
    store.revise(answer.feedback.id, choice="tie")
    assert [a.feedback.choice for a in store.answers()] == ["tie"]


def test_of_two_answers_with_one_revision_the_later_one_counts_in_any_order(tmp_path):
    answer = made(1)[0]
    times = [datetime(2026, 1, day, tzinfo=UTC) for day in (1, 2)]
    versions = [
        Answer(
            question=answer.question,
            feedback=answer.feedback.model_copy(update={"choice": choice, "created_at": time}),
        )
        for choice, time in zip(("first", "second"), times, strict=True)
    ]
    for number, order in enumerate((versions, versions[::-1])):
        with FeedbackStore(f"sqlite:///{tmp_path}/{number}.db") as store:
            store.add(order)
            assert [a.feedback.choice for a in store.answers()] == ["second"]


def test_what_is_withdrawn_counts_no_longer(store):
    answers = made(3)
    store.add(answers)
    assert store.withdraw(annotator="ann", reason="careless") == 3
    assert store.withdraw(annotator="ann") == 0
    assert store.counts().annotators == {"bob": 3}
    assert store.add(answers) == (0, 6)
    assert store.counts().total == 3
    store.add(made(1, annotators=("ann",), start=10))
    assert store.counts().annotators == {"ann": 1, "bob": 3}


def test_withdrawing_one_answer_does_not_bring_back_its_earlier_version(store):
    answers = made(2)
    store.add(answers)
    revised = store.revise(answers[0].feedback.id, choice="tie")
    assert store.withdraw(feedback_id=revised) == 1
    assert store.counts().annotators == {"ann": 1, "bob": 2}
    store.revise(revised, choice="first")
    assert store.counts().annotators == {"ann": 2, "bob": 2}


def test_the_digest_knows_content_only(tmp_path):
    answers = one_of_each_kind() + made(50)
    digests = set()
    for number in range(3):
        random.Random(number).shuffle(answers)
        with FeedbackStore(f"sqlite:///{tmp_path}/{number}.db") as store:
            for start in range(0, len(answers), 7 + number):
                store.add(answers[start : start + 7 + number], campaign=str(number))
            snapshot = store.snapshot(tmp_path / str(number))
            assert Snapshot.read(tmp_path / str(number)) == snapshot
            assert snapshot.rows == len(answers) == sum(snapshot.kinds.values()) == sum(snapshot.splits.values())
            digests.add(snapshot.digest)
    assert len(digests) == 1
    with FeedbackStore(f"sqlite:///{tmp_path}/0.db") as store:
        store.revise(answers[0].feedback.id, comment="one word more")
        assert store.snapshot(tmp_path / "changed").digest not in digests


def test_a_snapshot_of_some_questions(store, tmp_path):
    answers = made(3000, annotators=("x",))
    store.add(answers)
    ids = sorted({answer.question.id for answer in answers})
    store.register_questions("odd", ids[1::2])
    store.register_questions("odd", ids[1:2])
    odd = store.snapshot(tmp_path / "a", questions=ids[1::2])
    assert odd.rows == 1500
    assert store.snapshot(tmp_path / "b", question_sets=["odd"]).digest == odd.digest
    assert store.snapshot(tmp_path / "c", questions=ids[:3], question_sets=["odd", "none"]).rows == 1502
    assert store.snapshot(tmp_path / "d", questions=[]).rows == 0
    assert store.snapshot(tmp_path / "e").rows == 3000
    # Larger than a batch, so the order holds across batches.
    assert [answer.question.id for answer in FeedbackSet.open(tmp_path / "e").answers()] == ids


def test_a_late_answer_waits_while_a_change_of_mind_is_seen(store, tmp_path):
    early, late = made(3), made(3, start=100)
    assert store.watermark() == 0
    store.add(early)
    mark = store.mark("campaign 1, round 1")
    store.add(late)
    assert store.mark("campaign 1, round 1") == mark < store.mark("campaign 1, round 2") == store.watermark()
    before = store.snapshot(tmp_path / "s", upto=mark)
    assert (before.rows, before.watermark) == (6, mark)
    store.revise(early[0].feedback.id, choice="tie")
    store.revise(late[0].feedback.id, choice="tie")
    flipped = store.snapshot(tmp_path / "s", upto=mark)
    assert flipped.rows == 6
    assert flipped.digest != before.digest
    assert sum(a.feedback.choice == "tie" for a in FeedbackSet.open(tmp_path / "s").answers()) == 1
    store.withdraw(annotator="bob")
    assert store.snapshot(tmp_path / "s", upto=mark).annotators == {"ann": 3}


def test_a_full_disk_loses_nothing_accepted(store, tmp_path):
    store.add(made(100))
    with store._database.write() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages + 10}")
    with pytest.raises(StoreError, match=r"disk is full.*everything accepted before is safe"):
        store.add(made(1000, start=1000))
    assert store.counts().total == 200
    with store._database.write() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count = 1000000")
    assert store.add(made(1000, start=1000)).inserted == 2000
    assert store.counts().total == 2200


def test_a_snapshot_that_cannot_be_written_is_a_clear_error(store, tmp_path):
    store.add(made(1))
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(StoreError, match="snapshot cannot be written"):
        store.snapshot(tmp_path / "taken")


def test_a_file_that_is_no_store(tmp_path):
    (tmp_path / "notes.txt").write_text("dear diary, " * 1000)
    with pytest.raises(StoreError, match="not a usable feedback store"):
        FeedbackStore(f"sqlite:///{tmp_path}/notes.txt")
    with sqlite3.connect(tmp_path / "other.db") as other:
        other.execute("CREATE TABLE customers (name)")
    with pytest.raises(StoreError, match="belongs to something else"):
        FeedbackStore(f"sqlite:///{tmp_path}/other.db")
    with pytest.raises(StoreError, match="cannot be opened"):
        FeedbackStore(f"sqlite:///{tmp_path}")
    with pytest.raises(StoreError, match="cannot be opened"):
        FeedbackStore(f"sqlite:///{tmp_path}/notes.txt/feedback.db")


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "mysql://u:secret@h/d", "nonsense", "oracle+x://h"])
def test_an_address_that_is_none(url):
    with pytest.raises(StoreError) as caught:
        FeedbackStore(url)
    assert "sqlite:///FILE" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_store_of_a_newer_version(url):
    with FeedbackStore(url) as store, store._database.write() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0999'")
    with pytest.raises(StoreError, match="0999, which is newer"):
        FeedbackStore(url)


def test_answers_about_foreign_samples_and_unknown_ids_are_refused(store):
    one, other = made(2, annotators=("x",))
    stranger = Rating(question_id=one.question.id, sample=other.question.samples[0].id, score=3)
    with pytest.raises(ValueError, match="not among the 2 samples"):
        store.add([one, Answer(question=one.question, feedback=stranger)])
    assert store.counts().total == 0
    with pytest.raises(StoreError, match="no answer with the id"):
        store.feedback("0" * 32)
    store.add([one])
    with pytest.raises(StoreError, match="cannot be revised"):
        store.revise(one.feedback.id, choice="neither")


WRITER = """
import sys
sys.path.insert(0, sys.argv[1])
from made_answers import made
from rlhf_core.feedback.store import FeedbackStore
store = FeedbackStore(sys.argv[2])
inserted = 0
for start in range(int(sys.argv[3]), int(sys.argv[4]), 20):
    inserted += store.add(made(20, start=start)).inserted
    print(inserted, flush=True)
"""


def writer(url, start, stop):
    command = [sys.executable, "-c", WRITER, str(Path(__file__).parent), url, str(start), str(stop)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def write_at_once(url):
    """Four processes write 200 questions each, most of which another process writes, too."""
    processes = [writer(url, start, start + 200) for start in (0, 100, 200, 0)]
    outputs = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, outputs
    inserted = sum(int(out.splitlines()[-1]) for out, _ in outputs)
    with FeedbackStore(url) as store:
        assert inserted == store.counts().total == 800


def test_several_processes_write_to_a_fresh_database_at_once(url):
    write_at_once(url)


def test_a_killed_writer_loses_nothing_it_was_told_is_accepted(url):
    process = writer(url, 0, 100_000)
    for _ in range(10):
        accepted = process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    rest, _ = process.communicate(timeout=60)
    accepted = int((rest.splitlines() or [accepted])[-1])
    with FeedbackStore(url) as store:
        total = store.counts().total
        # What was accepted but not yet reported may be there, too; always as whole batches.
        assert accepted <= total <= accepted + 40
        assert total % 40 == 0
        assert store.add(made(20)).inserted == 0


def test_postgresql_is_the_same_store(postgres, url, tmp_path):
    same, many = (fresh_database(postgres, name) for name in ("rlhf_same", "rlhf_many"))
    answers = one_of_each_kind() + made(1500, annotators=("ann", "Bob", "é"))
    late = made(3, start=9000)
    found = []
    for address in (url, same):
        with FeedbackStore(address) as store:
            assert store.add(answers) == (len(answers), 0)
            assert store.add(answers[:50]) == (0, 50)
            mark = store.mark("m")
            store.add(late)
            store.revise(answers[-1].feedback.id, choice="tie", created_at=datetime(2026, 1, 1, tzinfo=UTC))
            store.withdraw(annotator="ann")
            store.register_questions("half", [answer.question.id for answer in answers[::2]])
            snapshots = [
                store.snapshot(tmp_path / "s", upto=mark),
                store.snapshot(tmp_path / "s", question_sets=["half"]),
                store.snapshot(tmp_path / "s", questions=[answers[0].question.id]),
                store.snapshot(tmp_path / "s"),
            ]
            answered = store.answered([answer.question.id for answer in answers])
            found.append(([(s.digest, s.rows, s.kinds, s.annotators) for s in snapshots], texts(store), answered))
    assert found[0] == found[1]
    write_at_once(many)
    with FeedbackStore(many) as store, store._database.write() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0999'")
    with pytest.raises(StoreError, match="0999, which is newer"):
        FeedbackStore(many)


def test_the_tables_are_what_the_migrations_make(url):
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext
    from alembic.script import ScriptDirectory

    from rlhf_core.feedback import schema

    script = ScriptDirectory(str(Path(schema.__file__).parent / "migrations"))
    assert script.get_heads() == [schema.VERSION]
    with FeedbackStore(url) as store, store._database.read() as connection:
        assert compare_metadata(MigrationContext.configure(connection), schema.metadata) == []


def test_a_store_that_is_up_to_date_opens_without_alembic(url):
    FeedbackStore(url).close()
    program = (
        "import sys; from rlhf_core.feedback.store import FeedbackStore; FeedbackStore(sys.argv[1]).counts()\n"
        "assert not {'alembic', 'pyarrow', 'datasets', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program, url], check=True)


def test_a_comparison_may_name_its_samples_in_either_order(store):
    question = made(1)[0].question
    first, second = (sample.id for sample in question.samples)
    ids = [(first, second), (second, first)]
    feedback = [
        Comparison(question_id=question.id, first=a, second=b, choice="first", annotator="x", revision=revision)
        for revision, (a, b) in enumerate(ids)
    ]
    store.add(Answer(question=question, feedback=each) for each in feedback)
    assert [answer.feedback.id for answer in store.answers()] == [feedback[1].id]


def test_undated_answers_stay_undated_and_give_way_to_dated_ones(store, tmp_path):
    answer = made(1)[0]
    undated, dated = (
        Answer(
            question=answer.question,
            feedback=answer.feedback.model_copy(update={"created_at": when, "choice": choice}),
        )
        for when, choice in ((None, "first"), (datetime(2001, 1, 1), "second"))
    )
    store.add([dated, undated])
    assert [found.feedback.choice for found in store.answers()] == ["second"]
    assert store.feedback(undated.feedback.id).answer.feedback.created_at is None
    (row,) = FeedbackSet.open(store.snapshot(tmp_path / "s").folder).answers()
    assert row.feedback.given_at == "2001-01-01T00:00:00.000000+00:00"
