import math
from itertools import product

import numpy as np
import pytest

from rlhf_core.feedback.aggregate import (
    agreement,
    annotator_weights,
    preference_labels,
    soft_label,
    vote_weight,
    weighed_labels,
)
from rlhf_core.feedback.dataset import FeedbackSet
from rlhf_core.records import Answer, Comparison, Prompt, Question, Sample


def test_soft_label_does_not_depend_on_the_order():
    values = [0.1] * 10 + [0.7, 1.0, 1e-17]
    assert soft_label(values) == soft_label(values[::-1])
    assert soft_label([1.0, 0.0, 0.5, 1.0]) == (0.625, 4.0)


def test_labels_mean_the_same_whatever_order_the_samples_were_shown_in():
    prompt = Prompt(text="p")
    a, b = (Sample(prompt_id=prompt.id, text=text) for text in "ab")
    answers = []
    for number, (first, second) in enumerate([(a, b), (b, a)]):
        question = Question(prompt=prompt, samples=(first, second))
        choice = "first" if first is a else "second"
        fields = {"question_id": question.id, "first": first.id, "second": second.id, "choice": choice}
        answers.append(Answer(question=question, feedback=Comparison(annotator=f"r{number}", **fields)))
    (labels,) = preference_labels(answers).values()
    assert labels == dict.fromkeys(("r0", "r1"), "lower" if a.id < b.id else "higher")


def test_agreement_of_a_panel():
    answers = []
    for number, (one, two) in enumerate(product(["first", "second"], repeat=2)):
        prompt = Prompt(text=f"p{number}")
        samples = tuple(sorted((Sample(prompt_id=prompt.id, text=t) for t in "ab"), key=lambda sample: sample.id))
        question = Question(prompt=prompt, samples=samples)
        for annotator, choice in (("x", one), ("y", two)):
            fields = {"question_id": question.id, "first": samples[0].id, "second": samples[1].id, "choice": choice}
            answers.append(Answer(question=question, feedback=Comparison(annotator=annotator, **fields)))
    found = agreement(answers)
    assert (found["annotator_agreement"].value, found["annotator_agreement"].n) == (0.5, 4)
    # Half of the pairs agree, as by chance; alpha's small-sample correction adds a little: 1 - 7 * 4 / (2 * 4 * 4).
    assert found["krippendorff_alpha"].value == pytest.approx(1 - 7 * 4 / 32)
    assert agreement(answers[:1]) == {}


def test_whoever_always_contradicts_the_others_counts_against_what_they_say():
    # Two who agree with each other and one who says the contrary of them, everywhere; then one pair with two voices.
    votes = {}
    for number in range(40):
        right = float(number % 2)
        votes[f"{number:02}", "x"] = [("ann", right), ("ben", right), ("con", 1 - right)]
    votes["last", "x"] = [("ann", 1.0), ("con", 0.0)]
    found = weighed_labels(votes)
    assert found["last", "x"] > 0.99
    assert found["00", "x"] < 0.01
    assert weighed_labels({}) == {}


def test_a_set_of_feedback_can_be_weighed():
    answers = []
    for number in range(40):
        prompt = Prompt(text=f"p{number}")
        samples = tuple(sorted((Sample(prompt_id=prompt.id, text=t) for t in "ab"), key=lambda sample: sample.id))
        question = Question(prompt=prompt, samples=samples)
        for annotator, right in (("ann", True), ("ben", True), ("con", number % 3 == 0)):
            scores = (1, 0) if right == bool(number % 2) else (0, 1)
            answers.append(Answer(question=question, feedback=question.compare(scores, annotator=annotator)))
    plain, weighed = (FeedbackSet.of(answers).pairs(weigh=weigh) for weigh in (False, True))
    assert [pair[:3] + pair[4:] for pair in plain] == [pair[:3] + pair[4:] for pair in weighed]
    assert {round(pair.probability, 2) for pair in plain} == {0.0, 0.33, 0.67, 1.0}
    assert all(min(pair.probability, 1 - pair.probability) < 0.05 for pair in weighed)


def test_votes_by_reliability():
    # SAMME: a vote of accuracy 0.75 among three is worth log 3 + log 2, one at chance nothing.
    assert vote_weight(0.75, 3) == pytest.approx(math.log(6))
    assert vote_weight(1 / 3, 3) == pytest.approx(0, abs=1e-12)
    assert vote_weight(0.1, 3) == 0
    answers = []
    for number in range(60):
        prompt = Prompt(text=f"p{number}")
        samples = tuple(sorted((Sample(prompt_id=prompt.id, text=t) for t in "ab"), key=lambda sample: sample.id))
        question = Question(prompt=prompt, samples=samples)
        for annotator, wrong in (("ann", number % 20 == 0), ("ben", False), ("con", number % 3 == 0)):
            scores = (1, 0) if bool(number % 2) != wrong else (0, 1)
            answers.append(Answer(question=question, feedback=question.compare(scores, annotator=annotator)))
    found = annotator_weights(answers)
    assert found["ben"] > found["ann"] > found["con"] > 0
    assert sum(found.values()) == pytest.approx(3)
    assert annotator_weights([]) == {}


@pytest.mark.parametrize("overlap", [1, 2])
def test_weighing_never_turns_labels_that_nothing_contradicts(overlap):
    """Where annotators hardly meet, their reliabilities are unknown, and what they say stands."""
    rng = np.random.default_rng(0)
    votes = {}
    for number in range(300):
        lower_is_better = bool(rng.random() < 0.5)
        votes[f"{number:03}a", f"{number:03}b"] = [
            (f"r{rater}", float(lower_is_better)) for rater in rng.choice(12, overlap, replace=False)
        ]
    found = weighed_labels(votes)
    assert all((label > 0.8) == (votes[pair][0][1] == 1) for pair, label in found.items())
    assert all((label < 0.2) == (votes[pair][0][1] == 0) for pair, label in found.items())


def test_turning_pairs_round_turns_their_weighed_labels_round():
    rng = np.random.default_rng(1)
    votes = {
        (f"{n:02}a", f"{n:02}b"): [(f"r{r}", float(rng.choice([0, 0.5, 1], p=[0.2, 0.2, 0.6]))) for r in range(3)]
        for n in range(40)
    }
    turned = weighed_labels({pair: [(who, 1 - p) for who, p in said] for pair, said in votes.items()})
    assert {pair: pytest.approx(1 - label) for pair, label in turned.items()} == weighed_labels(votes)
