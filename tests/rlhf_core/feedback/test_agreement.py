"""Agreement, against hand-computed cases and independent implementations."""

import csv
import json
import os
import random
from collections import defaultdict
from itertools import combinations
from pathlib import Path

import pytest

from rlhf_core.feedback.agreement import cohen_kappa, krippendorff_alpha, pairwise_agreement, pairwise_kappas

DATA = Path(os.environ.get("RLHF_TEST_DATA", "../shared/data"))
LEVELS = ("nominal", "ordinal", "interval")


def krippendorffs_units():
    """The example of "Computing Krippendorff's Alpha-Reliability" (2011), section C: 4 observers, 12 units, gaps."""
    observers = ["123321412...", "1233224125.3", ".3332342251.", "12332441251."]
    return [[row[unit] for row in observers if row[unit] != "."] for unit in range(12)]


def test_alpha_of_krippendorffs_example():
    assert krippendorff_alpha(krippendorffs_units()) == pytest.approx(0.743, abs=5e-4)


def test_alpha_of_krippendorffs_binary_example():
    # Section A: two observers, ten units; o_01 = 4, n_0 = 14, n_1 = 6: alpha = 1 - 19 * 4 / (14 * 6) = 0.095.
    a, b = "0100000000", "1110010100"
    assert krippendorff_alpha(list(zip(a, b, strict=True))) == pytest.approx(1 - 19 * 4 / (14 * 6))


def test_alpha_where_it_says_nothing():
    assert krippendorff_alpha([["a"], ["b"]]) is None
    assert krippendorff_alpha([["a", "a"], ["a", "a"]]) is None
    assert krippendorff_alpha([["a", "a"], ["b", "b"]]) == 1.0


def test_pairwise_agreement():
    # aab: 1 of 3 pairs agree; bb: 1 of 1; a single label has no pair.
    assert pairwise_agreement(["aab", "bb", "c"]) == pytest.approx(2 / 4)
    assert pairwise_agreement(["a"]) is None


def test_ordinal_and_interval_alpha_by_hand():
    # Units 11, 12, 33: n_1 = 3, n_2 = 1, n_3 = 2, n = 6; o_12 = 1.
    units = [[1, 1], [1, 2], [3, 3]]
    # Interval: 5 * o_12 * 1 of n_1 n_2 * 1 + n_1 n_3 * 4 + n_2 n_3 * 1, which is 5 of 29.
    assert krippendorff_alpha(units, "interval") == pytest.approx(1 - 5 / 29)
    # Ordinal: d_12 = (4 - 2)^2 = 4, d_13 = (6 - 2.5)^2 = 12.25, d_23 = (3 - 1.5)^2 = 2.25.
    assert krippendorff_alpha(units, "ordinal") == pytest.approx(1 - 5 * 4 / (3 * 4 + 6 * 12.25 + 2 * 2.25))


def test_kappa_by_hand():
    # Cohen's table with p_o = 0.7 and p_e = 0.5 * 0.6 + 0.5 * 0.4 = 0.5.
    pairs = [("y", "y")] * 20 + [("y", "n")] * 5 + [("n", "y")] * 10 + [("n", "n")] * 15
    assert cohen_kappa(pairs) == pytest.approx((0.7 - 0.5) / 0.5)
    assert cohen_kappa([]) is None
    assert cohen_kappa([("y", "y")] * 3) is None


def test_kappas_of_those_who_met_often_enough():
    units = [{"a": n % 2, "b": n % 2, "c": 0} for n in range(9)] + [{"a": 1, "b": 0}]
    found = pairwise_kappas(units)
    assert set(found) == {("a", "b")}
    assert found["a", "b"][1] == 10
    assert found["a", "b"][0] == pytest.approx(cohen_kappa([(u["a"], u["b"]) for u in units]))


def reference_alpha(table, level):
    """PyPI krippendorff on unit -> annotator -> number."""
    krippendorff = pytest.importorskip("krippendorff")
    import numpy as np

    annotators = sorted({annotator for labels in table for annotator in labels})
    matrix = [[labels.get(annotator, np.nan) for labels in table] for annotator in annotators]
    return krippendorff.alpha(np.array(matrix, dtype=float), level_of_measurement=level)


def check(table, levels=LEVELS):
    """Every level of alpha, and every kappa, as others compute them."""
    from sklearn.metrics import cohen_kappa_score

    units = [list(labels.values()) for labels in table]
    for level in levels:
        assert krippendorff_alpha(units, level) == pytest.approx(reference_alpha(table, level), abs=1e-10)
    for (a, b), (kappa, n) in pairwise_kappas(table).items():
        both = [labels for labels in table if a in labels and b in labels]
        assert len(both) == n
        expected = cohen_kappa_score([labels[a] for labels in both], [labels[b] for labels in both])
        assert kappa == pytest.approx(expected, abs=1e-12)
    return units


@pytest.mark.parametrize("seed", range(8))
def test_random_labels_with_gaps(seed):
    rng = random.Random(seed)
    values = rng.sample(range(-3, 9), rng.randint(2, 6))
    names = "abcdef"[: rng.randint(2, 6)]
    table = [{name: rng.choice(values) for name in names if rng.random() < 0.6} for _ in range(60)]
    check([labels for labels in table if labels])


def real(name):
    path = DATA / name
    if not path.exists():
        pytest.skip(f"{path} is not there (RLHF_TEST_DATA names the folder of data sets)")
    return path


@pytest.mark.real_data
def test_pandalm():
    rows = json.loads(real("pandalm/testset-v1.json").read_text())
    table = [{f"{who}": int(row[f"annotator{who}"]) for who in (1, 2, 3)} for row in rows]
    units = check(table)
    assert len(units) == 999
    assert 0.6 < krippendorff_alpha(units) < 0.9
    assert len(pairwise_kappas(table)) == 3
    equal = sum(labels[a] == labels[b] for labels in units for a, b in combinations(range(3), 2))
    assert pairwise_agreement(units) == equal / (3 * 999)


@pytest.mark.real_data
def test_llmfao():
    votes = defaultdict(dict)
    with real("llmfao/crowd-comparisons.csv").open() as file:
        for row in csv.DictReader(file):
            votes[row["id"]][row["worker"]] = {"left": 0, "tie": 1, "right": 2}[row["winner"]]
    units = check(list(votes.values()))
    assert len(units) == 2139
    assert 0 < krippendorff_alpha(units) < 0.5


@pytest.mark.real_data
@pytest.mark.parametrize("criterion", ["coherence", "consistency", "fluency", "relevance"])
def test_summeval(criterion):
    real("summeval")
    table = []
    for path in sorted((DATA / "summeval").glob("*.jsonl")):
        for line in path.read_text().splitlines():
            experts = json.loads(line)["expert_annotations"]
            table.append({str(number): said[criterion] for number, said in enumerate(experts)})
    assert len(table) == 1200
    check(table)


@pytest.mark.real_data
def test_humicroedit():
    with real("humicroedit/task1_train.csv").open() as file:
        # Grades come sorted, not by annotator: the k-th grade stands for the k-th column.
        table = [{str(k): int(grade) for k, grade in enumerate(row["grades"].strip())} for row in csv.DictReader(file)]
    assert len(table) == 9652
    check(table)
