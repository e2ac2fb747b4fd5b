import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from made_answers import made, one_of_each_kind

from rlhf_core.feedback.dataset import FeedbackSet
from rlhf_core.records import Answer, Comparison, Episode, Prompt, Question, Sample, Trajectory
from rlhf_core.splits import split_of


def question(text="p", answers="ab", group=""):
    prompt = Prompt(text=text, group=group)
    return Question(prompt=prompt, samples=tuple(Sample(prompt_id=prompt.id, text=answer) for answer in answers))


def answer(asked, feedback):
    return Answer(question=asked, feedback=feedback)


def told(pairs):
    """Pairs as {(better-known text, other text): (probability, weight)}, in alphabetical order."""
    found = {}
    for pair in pairs:
        a, b, p = pair.first.text, pair.second.text, pair.probability
        found[min(a, b), max(a, b)] = (p if a < b else 1 - p, pair.weight)
    return found


@pytest.fixture(params=["memory", "disk"])
def as_set(request, store, tmp_path):
    """Makes a FeedbackSet of answers, held in memory or opened from a snapshot."""

    def make(answers):
        if request.param == "memory":
            return FeedbackSet.of(answers)
        store.add(answers)
        return FeedbackSet.open(store.snapshot(tmp_path / "snapshot").folder)

    return make


def test_answers_come_back_whole_and_in_order(as_set):
    answers = one_of_each_kind() + made(3)
    found = as_set(answers)
    assert len(found) == len(answers)
    assert list(found.answers()) == list(FeedbackSet.of(reversed(answers)).answers())
    assert {answer.id for answer in found.answers()} == {answer.id for answer in answers}
    assert found.questions == 7
    assert found.kinds()["comparison"] == 8
    assert found.annotators()["ann"] == 3
    assert [a.feedback.annotator for a in found.demonstrations()] == ["expert", "expert"]


def test_splits_are_a_partition_by_prompt(as_set):
    answers = made(60)
    found = as_set(answers)
    parts = {name: found.split(name) for name in ("train", "validation", "test")}
    assert sum(len(part) for part in parts.values()) == len(answers)
    for name, part in parts.items():
        assert len(part) > 0
        assert {split_of(a.question.prompt) for a in part.answers()} == {name}
        assert part.only("comparison").kinds() == part.kinds()
        assert {pair.prompt.id for pair in part.pairs()} == {a.question.prompt.id for a in part.answers()}


def test_no_answers(as_set):
    empty = as_set([])
    assert (len(empty), empty.questions, empty.pairs(), empty.ratings(), empty.demonstrations()) == (0, 0, [], [], [])
    assert len(empty.split("test").only("rating")) == 0


def test_several_answers_are_one_soft_label(as_set):
    ab, ba = question(answers="ab"), question(answers="ba")
    answers = [
        answer(ab, ab.compare([1, 0], annotator="x")),
        answer(ab, ab.compare([0, 0], annotator="y")),
        answer(ba, ba.compare([1, 0], annotator="x", strength=0.5)),
        answer(ba, ba.skip(annotator="z")),
    ]
    (pair,) = as_set(answers).pairs()
    # P(a better): 1 by x, 0.5 by y, and 0.25 by x, who half prefers b when it stands first.
    assert told([pair]) == {("a", "b"): (pytest.approx(1.75 / 3), 3.0)}
    assert pair.annotators == ("x", "y")
    assert pair.first.id < pair.second.id


def test_a_ranking_and_a_comparison_meet(as_set):
    three, two = question(answers="abc"), question(answers="ca")
    answers = [
        answer(three, three.rank([3, 2, 2], annotator="x")),
        answer(two, two.compare([1, 0], annotator="y")),
    ]
    assert told(as_set(answers).pairs()) == {("a", "b"): (1.0, 1.0), ("a", "c"): (0.5, 2.0), ("b", "c"): (0.5, 1.0)}


def test_ratings_are_compared_by_annotator_criterion_and_content(as_set):
    one, other = question("p", "ab", group="g1"), question("p", "c", group="g2")
    assert split_of(one.prompt) == split_of(other.prompt)
    answers = [
        answer(one, one.rate(0, 5, annotator="x")),
        answer(one, one.rate(1, 2, annotator="x")),
        answer(other, other.rate(0, 3, annotator="x")),
        answer(other, other.rate(0, 1, annotator="y")),
        answer(one, one.rate(1, 5, annotator="x", criterion="humour")),
    ]
    found = as_set(answers)
    assert told(found.pairs()) == {("a", "b"): (1.0, 1.0), ("a", "c"): (1.0, 1.0), ("b", "c"): (0.0, 1.0)}
    assert told(found.pairs(tie_below=0.25))["b", "c"] == (0.5, 1.0)
    rated = {(r.sample.text, r.criterion): (r.score, r.n) for r in found.ratings()}
    assert rated == {
        ("a", "overall"): (1.0, 1),
        ("b", "overall"): (0.25, 1),
        ("b", "humour"): (1.0, 1),
        ("c", "overall"): (0.25, 2),
    }


def test_ratings_on_two_sides_of_a_split_are_never_compared():
    groups = {}
    for number in range(100):
        asked = question("p", "z", group=f"g{number}")
        groups.setdefault(split_of(asked.prompt), []).append(asked)
    one, other = groups["train"][0], groups["test"][0]
    answers = [answer(asked, asked.rate(0, score, annotator="x")) for asked, score in ((one, 1), (other, 5))]
    assert FeedbackSet.of(answers).pairs() == []


def test_many_ratings_of_one_prompt_do_not_explode():
    asked = []
    prompt = Prompt(text="write")
    for number in range(200):
        asked.append(Question(prompt=prompt, samples=(Sample(prompt_id=prompt.id, text=f"text {number}"),)))
    answers = [answer(q, q.rate(0, 1 + number % 5, annotator="x")) for number, q in enumerate(asked)]
    pairs = FeedbackSet.of(answers).pairs(partners=3)
    assert len(pairs) == 600
    assert pairs == FeedbackSet.of(random.Random(1).sample(answers, len(answers))).pairs(partners=3)


def test_equal_samples_say_nothing(as_set):
    prompt = Prompt(text="p")
    twins = tuple(Sample(prompt_id=prompt.id, text="same", policy=policy) for policy in "xy")
    asked = Question(prompt=prompt, samples=twins)
    assert as_set([answer(asked, asked.compare([1, 0], annotator="a"))]).pairs() == []


def test_trajectories_are_compared_as_texts_are(as_set):
    prompt = Prompt(episode=Episode(environment="CartPole-v1", seed=0))
    samples = tuple(
        Sample(prompt_id=prompt.id, trajectory=Trajectory(observations=((0.0,),), actions=((action,),)))
        for action in (0.0, 1.0)
    )
    asked = Question(prompt=prompt, samples=samples)
    (pair,) = as_set([answer(asked, asked.compare([0, 1], annotator="a"))]).pairs()
    better = pair.first if pair.probability == 1.0 else pair.second
    assert better == samples[1]


def test_pairs_are_the_same_in_every_process():
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); from made_answers import made\n"
        "from rlhf_core.feedback.dataset import FeedbackSet\n"
        "print([(p.first.id, p.probability) for p in FeedbackSet.of(made(20)).pairs()])"
    )
    here = str(Path(__file__).parent)
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program, here],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1
    assert outputs != {b"[]\n"}


def test_a_comparison_counts_its_strength():
    asked = question()
    fields = {"question_id": asked.id, "first": asked.samples[0].id, "second": asked.samples[1].id}
    comparison = Comparison(choice="first", strength=0.5, **fields)
    assert told(FeedbackSet.of([answer(asked, comparison)]).pairs()) == {("a", "b"): (0.75, 1.0)}
