"""What is news to a pipeline, whoever stored it."""

import pytest
from made_answers import made

from rlhf_core.feedback.forms import Form
from rlhf_core.feedback.news import new_answers, who_answered
from rlhf_core.feedback.queue import QuestionQueue
from rlhf_core.feedback.store import FeedbackStore
from rlhf_core.records import Answer


@pytest.fixture
def store(either_url):
    with FeedbackStore(either_url) as opened:
        yield opened


def by(source, answers):
    stamped = [each.feedback.model_copy(update={"source": source}) for each in answers]
    return [Answer(question=each.question, feedback=said) for each, said in zip(answers, stamped, strict=True)]


def news(store, since=0, pipeline="mine"):
    return new_answers(store, pipeline, since)


def test_answers_to_its_questions_are_news_whoever_stored_them(store):
    asked = made(4, annotators=("ann",))
    store.register_questions("mine", [each.question.id for each in asked])
    store.add(by("person", asked[:2]), campaign="an importer")
    store.add(by("data", asked[2:3]))
    assert (news(store), news(store, pipeline="other")) == (3, 0)
    mark = store.watermark()
    assert news(store, mark) == 0
    # The same answers again are not news; those that the pipeline asks simulated raters and models for never are.
    store.add(by("person", asked[:2]))
    for number, source in enumerate(("simulated", "model", "program")):
        store.add(by(source, made(4, annotators=(f"own {number}",))), campaign="mine")
    assert news(store, mark) == 0
    # Nor are answers from which it will not learn.
    store.add(by("person", made(2, start=50)), campaign="mine")
    assert news(store, mark) == 0
    store.add(by("person", asked[3:]), campaign="another pipeline")
    assert news(store, mark) == 1


def test_answers_to_what_its_data_held_are_news(store):
    brought = made(3, annotators=("old",))
    store.add(by("data", brought), campaign="mine")
    mark = store.watermark()
    store.add(by("person", made(3, annotators=("new",))))
    assert (news(store, mark), news(store, mark, "other")) == (3, 0)


def test_one_annotator_on_one_question_is_one_answer(store):
    (one,) = made(1, annotators=("ann",))
    question = one.question
    store.register_questions("mine", [question.id])
    rated = [question.rate(place, 3, annotator="rater", source="person") for place in (0, 1)]
    said = [*rated, question.skip(annotator="shy", source="person")]
    store.add([one.model_copy(update={"feedback": each}) for each in said])
    assert news(store) == 2
    assert who_answered(store, [question.id]) == {(question.id, "rater"), (question.id, "shy")}
    mark = store.watermark()
    store.revise(rated[0].id, score=5.0)
    assert news(store, mark) == 1
    store.withdraw(annotator="rater")
    assert news(store, mark) == 0 and news(store) == 1


def test_answers_through_the_queue_are_news_and_undone_ones_are_not(store):
    queue = QuestionQueue(store)
    questions = [each.question for each in made(2, annotators=("nobody",))]
    store.register_questions("mine", [question.id for question in questions])
    queue.post(Form(), questions, campaign="mine")
    for _ in questions:
        held = queue.next("ann")
        queue.answer("ann", held.form.id, held.question.id, [held.question.compare((1, 0))])
    assert news(store) == 2
    queue.undo("ann")
    assert news(store) == 1
