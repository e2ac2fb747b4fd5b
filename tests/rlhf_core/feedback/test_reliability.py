"""Dawid-Skene, against the published figures, a plain reimplementation, and majority vote."""

import random
from collections import Counter, defaultdict
from math import prod

import pytest

from rlhf_core.feedback.reliability import Label, dawid_skene

# Dawid & Skene (1979), table 1: what five anaesthetists said about 45 patients. The first saw each one three times.
FIRST = (
    "111 333 112 222 222 222 122 333 222 232 444 222 111 222 121 111 111 111 222 222 222 222 222 221 111 "
    "111 232 111 111 112 111 333 111 222 222 433 221 232 333 111 111 121 232 121 222"
)
OTHERS = (
    "1111 4334 2122 3121 3222 3322 2111 3433 2223 2223 4444 3343 1111 3212 1111 2111 1111 1111 2221 1322 "
    "2222 2221 3222 2222 1111 1111 2222 1111 1111 1121 1111 3233 1111 2222 3232 4343 2232 3233 3432 1111 "
    "1111 2111 2222 1111 2222"
)


def anaesthetists():
    """Repeated answers of the first one are answers."""
    for patient, (first, others) in enumerate(zip(FIRST.split(), OTHERS.split(), strict=True)):
        yield from (Label(patient, "1", value) for value in first)
        yield from (Label(patient, str(number), value) for number, value in enumerate(others, start=2))


def plain_em(labels, steps, smoothing):
    """The equations, one sum at a time."""
    labels = list(labels)
    values = sorted({label.value for label in labels})
    by_item, by_annotator = defaultdict(list), defaultdict(list)
    for label in labels:
        by_item[label.item].append(label)
        by_annotator[label.annotator].append(label)
    truth = {
        item: {k: sum(label.value == k for label in said) / len(said) for k in values} for item, said in by_item.items()
    }
    for _ in range(steps):
        prior = {k: sum(each[k] for each in truth.values()) / len(truth) for k in values}
        confusion = {}
        for annotator, said in by_annotator.items():
            for k in values:
                counts = {c: smoothing + sum(truth[s.item][k] for s in said if s.value == c) for c in values}
                confusion.update({(annotator, k, c): counts[c] / sum(counts.values()) for c in values})
        for item, said in by_item.items():
            weights = {k: prior[k] * prod(confusion[s.annotator, k, s.value] for s in said) for k in values}
            truth[item] = {k: weight / sum(weights.values()) for k, weight in weights.items()}
    return prior, confusion, truth


def test_the_published_figures():
    found = dawid_skene(anaesthetists(), smoothing=1e-9)
    assert found.values == ("1", "2", "3", "4")
    assert [round(share, 2) for share in found.prior] == [0.40, 0.42, 0.11, 0.07]
    assert found.truth[0][0] == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(("steps", "smoothing"), [(1, 0.5), (3, 0.5), (25, 0.01)])
def test_every_step_is_that_of_the_equations(steps, smoothing):
    labels = list(anaesthetists())
    prior, confusion, truth = plain_em(labels, steps, smoothing)
    random.Random(1).shuffle(labels)
    found = dawid_skene(labels, steps=steps, smoothing=smoothing, tolerance=0)
    assert found.prior == pytest.approx([prior[k] for k in found.values], abs=1e-12)
    for item, expected in truth.items():
        assert found.truth[item] == pytest.approx([expected[k] for k in found.values], abs=1e-9)
    for annotator, rows in found.confusion.items():
        for k, row in zip(found.values, rows, strict=True):
            assert row == pytest.approx([confusion[annotator, k, c] for c in found.values], abs=1e-12)


def test_one_step_by_hand():
    # Items x (said y, y) and z (said y by a, n by b); no smoothing. Start: x = (1, 0), z = (1/2, 1/2) over (y, n).
    labels = [Label("x", "a", "y"), Label("x", "b", "y"), Label("z", "a", "y"), Label("z", "b", "n")]
    found = dawid_skene(labels, values=("y", "n"), smoothing=0, steps=1)
    assert found.prior == (0.75, 0.25)
    assert found.confusion["a"] == ((1.0, 0.0), (1.0, 0.0))
    assert found.confusion["b"][0] == pytest.approx((2 / 3, 1 / 3))
    assert found.confusion["b"][1] == (0.0, 1.0)
    # z: y has 3/4 * 1 * 1/3 = 1/4, n has 1/4 * 1 * 1 = 1/4.
    assert found.truth["z"] == pytest.approx((0.5, 0.5))
    assert found.accuracy("b") == pytest.approx(0.75 * 2 / 3 + 0.25)


def test_gold_items_keep_their_value_and_teach_the_others():
    labels = [Label(i, who, value) for i in range(20) for who, value in (("good", "y"), ("bad", "n"))]
    labels += [Label("new", "good", "n"), Label("new", "bad", "y")]
    known = dict.fromkeys(range(10), "y") | {"unseen": "n"}
    found = dawid_skene(labels, known=known)
    assert found.truth[0] == (0.0, 1.0)
    assert found.accuracy("good") > 0.9
    assert found.accuracy("bad") < 0.2
    assert found.truth["new"][0] > 0.5


def test_what_cannot_be_estimated():
    with pytest.raises(ValueError, match="no labels"):
        dawid_skene([])
    with pytest.raises(ValueError, match="not among the values"):
        dawid_skene([Label(1, "a", "maybe")], values=("y", "n"))


@pytest.mark.parametrize("seed", range(5))
def test_better_than_majority_vote_on_a_simulated_panel_of_mixed_quality(seed):
    rng = random.Random(seed)
    skill = {"careful": 0.95, "good": 0.9, "fair": 0.7, "guessing 1": 0.5, "guessing 2": 0.5, "contrary": 0.2}
    truth = {item: rng.choice("yn") for item in range(400)}
    labels = []
    for item, right in truth.items():
        for who in rng.sample(sorted(skill), 4):
            wrong = "n" if right == "y" else "y"
            labels.append(Label(item, who, right if rng.random() < skill[who] else wrong))
    votes = defaultdict(Counter)
    for label in labels:
        votes[label.item][label.value] += 1
    majority = sum(
        1.0 if count[right] > 2 else 0.5 if count[right] == 2 else 0.0
        for right, count in ((truth[item], votes[item]) for item in truth)
    )
    found = dawid_skene(labels)
    weighed = sum(found.truth[item][found.values.index(right)] > 0.5 for item, right in truth.items())
    assert weighed > majority + 0.1 * len(truth)
    for who, share in skill.items():
        assert found.accuracy(who) == pytest.approx(share, abs=0.1)
