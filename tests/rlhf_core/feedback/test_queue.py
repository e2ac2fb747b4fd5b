import subprocess
import sys
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
from made_answers import made

from rlhf_core.errors import StoreError
from rlhf_core.feedback.forms import Form
from rlhf_core.feedback.people import People
from rlhf_core.feedback.queue import QuestionQueue, Refused
from rlhf_core.feedback.store import FeedbackStore
from rlhf_core.records import Answer, Prompt, Question, Sample

FORM = Form(title="headlines")


class Clock:
    def __init__(self):
        self.time = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self):
        self.time += timedelta(seconds=1)
        return self.time


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def queue(store, clock):
    return QuestionQueue(store, now=clock)


def questions(n, wanted=1, k=2):
    found = []
    for number in range(n):
        prompt = Prompt(text=f"prompt {number}")
        samples = tuple(Sample(prompt_id=prompt.id, text=f"{letter} of {number}") for letter in "abcdef"[:k])
        found.append(Question(prompt=prompt, samples=samples, wanted=wanted))
    return found


def prefer_first(queue, annotator):
    held = queue.next(annotator)
    assert queue.answer(annotator, held.form.id, held.question.id, [held.question.compare([1, 0])])
    return held.question


def test_questions_come_in_order_and_each_goes_to_as_many_annotators_as_wanted(queue, store):
    asked = questions(3, wanted=2)
    queue.post(FORM, asked, campaign="c", round=2)
    queue.post(FORM, asked)
    assert [queue.next(name).question.id for name in ("ann", "bob", "cat", "dan")] == [
        asked[0].id, asked[0].id, asked[1].id, asked[1].id,
    ]  # fmt: skip
    assert queue.next("ann").question == asked[0]
    # The second question is in two other hands, so ann goes on with the third.
    assert [prefer_first(queue, "ann") for _ in range(2)] == [asked[0], asked[2]]
    assert queue.next("ann") is None


def test_answers_are_in_the_store_with_campaign_and_round(queue, store):
    asked = questions(2)
    queue.post(FORM, asked, campaign="c", round=2)
    prefer_first(queue, "ann")
    (answer,) = store.answers()
    stored = store.feedback(answer.feedback.id)
    assert (stored.campaign, stored.round) == ("c", 2)
    assert (answer.feedback.annotator, answer.feedback.source) == ("ann", "person")
    assert answer.question == asked[0]
    assert queue.missing(FORM, asked) == {asked[0].id: 0, asked[1].id: 1}
    assert queue.standing("ann") == (1, 1, 1)
    prefer_first(queue, "bob")
    assert queue.next("ann") is None
    assert queue.standing("ann") == (1, 1, 0)


def test_a_lease_that_expires_blocks_nobody_and_loses_nothing(queue, clock):
    asked = questions(1)
    queue.post(FORM, asked)
    queue.next("ann")
    queue.save_draft("ann", FORM.id, asked[0].id, {"comment": "half a thought"})
    assert queue.next("bob") is None
    clock.time += timedelta(minutes=21)
    assert queue.next("bob").draft is None
    assert queue.next("ann").draft == {"comment": "half a thought"}
    prefer_first(queue, "bob")
    assert queue.next("ann") is None
    assert queue.answer("ann", FORM.id, asked[0].id, [asked[0].compare([0, 1])])


def test_a_request_sent_again_is_one_answer(queue, store):
    asked = questions(1, wanted=2)
    queue.post(FORM, asked)
    held = queue.next("ann")
    given = [held.question.compare([1, 0])]
    assert queue.answer("ann", FORM.id, held.question.id, given)
    assert not queue.answer("ann", FORM.id, held.question.id, given)
    assert store.counts().total == 1


def test_undo_takes_back_one_after_the_other_and_the_same_answer_can_be_given_again(queue, store):
    asked = questions(3)
    queue.post(FORM, asked)
    first, second = prefer_first(queue, "ann"), prefer_first(queue, "ann")
    assert queue.next("ann").question == asked[2]
    assert queue.undo("ann").question == second
    assert queue.undo("ann").question == first
    assert queue.undo("ann") is None
    assert store.counts().total == 0
    assert queue.missing(FORM, asked) == {question.id: 1 for question in asked}
    assert [prefer_first(queue, "ann") for _ in range(3)] == [first, second, asked[2]]
    assert store.counts().total == 3
    assert {answer.feedback.revision for answer in store.answers()} == {0, 1}


def test_undo_brings_back_what_was_written_and_has_an_end(queue, clock):
    form = Form(kind="writing")
    asked = questions(1)
    queue.post(form, asked)
    queue.next("ann")
    queue.answer("ann", form.id, asked[0].id, [asked[0].demonstrate("well")], {"text": "well"})
    assert queue.undo("ann").draft == {"text": "well"}
    queue.answer("ann", form.id, asked[0].id, [asked[0].demonstrate("well")], {"text": "well"})
    clock.time += timedelta(hours=2)
    assert queue.undo("ann") is None


def test_withdrawing_somebody_opens_the_questions_again(queue, store):
    asked = questions(2)
    queue.post(FORM, asked)
    prefer_first(queue, "ann"), prefer_first(queue, "ann")
    assert queue.next("bob") is None
    assert store.withdraw(annotator="ann", reason="careless") == 2
    assert queue.next("bob").question == asked[0]
    assert queue.missing(FORM, asked) == {question.id: 1 for question in asked}


def test_who_is_paused_gets_and_gives_nothing(queue, store):
    asked = questions(1)
    queue.post(FORM, asked)
    People(store).pause("ann")
    assert queue.next("ann") is None
    with pytest.raises(Refused, match="paused"):
        queue.answer("ann", FORM.id, asked[0].id, [asked[0].compare([1, 0])])
    People(store).pause("ann", False)
    assert queue.next("ann").question == asked[0]


def test_only_what_was_asked_is_answered(queue):
    asked = questions(2)
    queue.post(FORM, asked[:1])
    with pytest.raises(Refused, match="nobody asked"):
        queue.answer("ann", FORM.id, asked[1].id, [asked[1].compare([1, 0])])


def test_two_forms_ask_about_one_question_independently(queue, store):
    asked, rating = questions(1), Form(kind="rating")
    queue.post(FORM, asked)
    queue.post(rating, asked)
    prefer_first(queue, "ann")
    held = queue.next("ann")
    assert held.form == rating
    queue.answer("ann", rating.id, asked[0].id, [asked[0].rate(place, 3) for place in (0, 1)])
    assert queue.next("ann") is None
    assert store.counts().kinds == {"comparison": 1, "rating": 2}


def test_gold_and_repeats_are_mixed_in(queue, store):
    form = Form(gold_every=3, repeat_every=5)
    gold = made(2, start=100)[::2]
    queue.post(form, questions(12), gold=gold)
    roles, seen = [], []
    while held := queue.next("ann"):
        roles.append(held.role)
        seen.append(held.question)
        queue.answer("ann", form.id, held.question.id, [held.question.compare([1, 0])])
    assert [place for place, role in enumerate(roles, start=1) if role == "gold"] == [3, 6]
    repeats = [place for place, role in enumerate(roles, start=1) if role == "repeat"]
    assert repeats == [5, 10, 15]
    again = seen[4]
    assert again.samples == seen[0].samples[::-1]
    assert roles.count("asked") == 12
    # Everybody meets the gold questions; the repeats are the annotator's own.
    assert queue.next("bob") is None


def test_gold_reaches_everybody(queue):
    form = Form(gold_every=2)
    queue.post(form, questions(3, wanted=2), gold=made(1, start=100)[:1])
    for annotator in ("ann", "bob"):
        roles = []
        while held := queue.next(annotator):
            roles.append(held.role)
            queue.answer(annotator, form.id, held.question.id, [held.question.compare([1, 0])])
        assert roles == ["asked", "gold", "asked", "asked"]


WORKER = """
import sys
from rlhf_core.feedback.queue import QuestionQueue
from rlhf_core.feedback.store import FeedbackStore
queue, name = QuestionQueue(FeedbackStore(sys.argv[1])), sys.argv[2]
while held := queue.next(name):
    queue.answer(name, held.form.id, held.question.id, [held.question.compare([1, 0])])
"""


def share(url):
    """Four servers' worth of annotators answer 60 questions, two answers each."""
    with FeedbackStore(url) as store:
        asked = questions(60, wanted=2)
        QuestionQueue(store).post(FORM, asked)
        workers = [subprocess.Popen([sys.executable, "-c", WORKER, url, name]) for name in ("a", "b", "c", "d")]
        assert [worker.wait(120) for worker in workers] == [0] * 4
        answers = list(store.answers())
        assert Counter(answer.question.id for answer in answers) == {question.id: 2 for question in asked}
        assert len({(answer.question.id, answer.feedback.annotator) for answer in answers}) == 120
        assert sum(QuestionQueue(store).missing(FORM, asked).values()) == 0


def test_several_processes_share_the_queue(either_url):
    share(either_url)


def test_tokens_name_people_and_are_stored_nowhere(store, tmp_path):
    people = People(store)
    token = people.invite("Ann Müller")
    assert people.holder(token) == ("Ann Müller", "annotator", False)
    assert people.holder("guess") is None
    newer = people.invite("Ann Müller", "lead")
    assert people.holder(token) is None
    assert people.holder(newer).role == "lead"
    assert [person.name for person in people.all()] == ["Ann Müller"]
    store.close()
    stored = b"".join(path.read_bytes() for path in (tmp_path / "store").iterdir())
    assert newer.encode() not in stored


@pytest.mark.parametrize("name", ["", "../x", "<b>", "a" * 61, "a\nb", " a"])
def test_names_that_cannot_be_one(store, name):
    with pytest.raises(StoreError, match="cannot be the name"):
        People(store).invite(name)


def test_forms_know_their_views():
    (pair,), (three,), (none,) = questions(1), questions(1, k=3), questions(1, k=0)
    assert [FORM.view(question) for question in (pair, three, none)] == ["pair", "ranking", "writing"]
    assert [Form(kind="rating").view(question) for question in (pair, three, none)] == ["rating", "rating", "writing"]
    assert Form(kind="writing").view(pair) == "writing"
    with pytest.raises(ValueError, match="scale"):
        Form(low=3, high=3)
    assert isinstance(Answer(question=pair, feedback=pair.compare([1, 0])).feedback, FORM.yields)
