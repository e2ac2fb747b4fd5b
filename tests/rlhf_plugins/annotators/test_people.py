"""The annotator `people` without a browser: it posts, waits, and takes what was answered."""

import pytest

from rlhf_core import Prompt, Question, Run, Sample
from rlhf_core.errors import DataError
from rlhf_core.feedback.queue import QuestionQueue
from rlhf_core.feedback.store import FeedbackStore
from rlhf_core.records import Answer
from rlhf_plugins.annotators.people import People


def questions(n, wanted=1):
    prompts = [Prompt(text=f"p{number}") for number in range(n)]
    return [
        Question(prompt=p, samples=tuple(Sample(prompt_id=p.id, text=text) for text in "ab"), wanted=wanted)
        for p in prompts
    ]


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path}/feedback.db"


def people(url, **options):
    run = Run(0)
    run.store_url, run.pipeline, run.round = url, "c", 3
    return People(People.Config(**options), run=run)


def answer(url, who, n, choose=(1, 0)):
    with FeedbackStore.open(url) as store:
        queue = QuestionQueue(store)
        for _ in range(n):
            held = queue.next(who)
            queue.answer(who, held.form.id, held.question.id, [held.question.compare(choose)])


def test_it_keeps_the_contract(rlhf_conformance):
    rlhf_conformance(People)


def test_asking_again_takes_what_was_answered(url):
    asked = questions(3, wanted=2)
    annotator = people(url)
    assert list(annotator.annotate(asked)) == []
    assert annotator.missing(asked, []) == 6
    answer(url, "ann", 3)
    answer(url, "ben", 1)
    given = list(annotator.annotate(asked))
    assert sorted(each.annotator for each in given) == ["ann", "ann", "ann", "ben"]
    assert annotator.missing(asked, given) == 2
    with FeedbackStore.open(url) as store:
        stored = store.feedback(given[0].id)
    assert (stored.campaign, stored.round) == ("c", 3)


def test_a_skip_and_several_pieces_of_feedback_are_one_answer(url):
    asked = questions(2, wanted=1)
    annotator = people(url)
    skip = asked[0].skip("unclear", annotator="ann")
    both = [asked[1].compare((1, 0), annotator="ann"), asked[1].demonstrate("better", annotator="ann")]
    assert annotator.missing(asked, [skip]) == 1
    assert annotator.missing(asked, [skip, *both]) == 0
    # Three answers to one question do not make up for another one.
    many = [asked[0].compare((1, 0), annotator=who) for who in "abc"]
    assert annotator.missing(asked, many) == 1


def test_enough_and_the_deadline_end_the_waiting(url):
    asked = questions(10)
    list(people(url).annotate(asked))
    answer(url, "ann", 8)
    given = list(people(url).annotate(asked))
    assert people(url).missing(asked, given) == 2
    assert people(url, enough=0.8).missing(asked, given) == 0
    assert people(url, enough=0.9).missing(asked, given) == 1
    assert people(url, deadline_hours=1).missing(asked, given) == 2
    assert people(url, deadline_hours=1e-9).missing(asked, given) == 0
    assert people(url, deadline_hours=1e-9).missing(asked, []) == 10


def test_new_guidelines_ask_nobody_again(url):
    asked = questions(2)
    list(people(url, guidelines="old").annotate(asked))
    answer(url, "ann", 2)
    list(people(url, guidelines="new").annotate(asked))
    with FeedbackStore.open(url) as store:
        assert QuestionQueue(store).next("ann") is None
    more = questions(3)
    list(people(url, guidelines="newer").annotate(more))
    with FeedbackStore.open(url) as store:
        assert QuestionQueue(store).next("ann").form.guidelines == "newer"


def test_gold_questions_come_from_a_file(url, tmp_path):
    gold = [Answer(question=q, feedback=q.compare((1, 0))) for q in questions(20)[15:]]
    path = tmp_path / "gold.jsonl"
    path.write_text("".join(each.model_dump_json() + "\n" for each in gold))
    annotator = people(url, gold=path, gold_every=3)
    asked = questions(6)
    list(annotator.annotate(asked))
    answer(url, "ann", 8)
    with FeedbackStore.open(url) as store:
        found = {each.question.id for each in store.answers()}
        assert len(found & {each.question.id for each in gold}) == 2
    assert len(list(annotator.annotate(asked))) == 6  # what is learnt from holds no gold
    path.write_text(path.read_text() + "{}\n")
    with pytest.raises(DataError, match="this is no answer") as error:
        list(annotator.annotate(asked))
    assert error.value.where.endswith("gold.jsonl:6")


def test_without_a_store_it_says_so():
    with pytest.raises(DataError, match="has none"):
        list(People().annotate(questions(1)))
