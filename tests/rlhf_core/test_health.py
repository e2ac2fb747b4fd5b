import numpy as np
import pytest
from scipy.stats import bootstrap as scipy_bootstrap
from sklearn import metrics as sk
from sklearn.calibration import calibration_curve

from rlhf_core import health
from rlhf_core.health import Predictions, preference_health


def random_pairs(n=400, seed=0, prompts=None):
    rng = np.random.default_rng(seed)
    predicted = rng.uniform(0.01, 0.99, n).round(3)
    stated = rng.choice([0.0, 0.2, 0.5, 0.8, 1.0], n)
    longer = rng.integers(-5, 6, n).astype(float)
    ids = [f"p{i}" for i in (rng.integers(0, prompts, n) if prompts else range(n))]
    return Predictions(predicted, stated, rng.integers(1, 6, n).astype(float), longer, ids)


def array(*values):
    return np.array(values, dtype=float)


def test_accuracy_by_hand():
    # right, wrong, undecided (half), tie (doesn't count): (2 * 1 + 1 * 0 + 4 * 0.5) / 7
    p, y, w = array(0.9, 0.6, 0.5, 0.9), array(1, 0.3, 0, 0.5), array(2, 1, 4, 8)
    assert health.accuracy(p, y, w) == pytest.approx(4 / 7)
    assert np.isnan(health.accuracy(array(0.3), array(0.5), array(1)))


@pytest.mark.parametrize("seed", range(5))
def test_equals_scikit_learn(seed):
    pairs = random_pairs(seed=seed)
    p, y, w = pairs.predicted, pairs.stated, pairs.weight
    decided = (y != 0.5) & (p != 0.5)
    labels, said, weight = y[decided] > 0.5, p[decided] > 0.5, w[decided]
    hits, false, missed = health.confusion(p[decided], y[decided], weight)
    assert health.accuracy(p[decided], y[decided], weight) == pytest.approx(
        sk.accuracy_score(labels, said, sample_weight=weight)
    )
    assert hits / (hits + false) == pytest.approx(sk.precision_score(labels, said, sample_weight=weight))
    assert hits / (hits + missed) == pytest.approx(sk.recall_score(labels, said, sample_weight=weight))
    untied = y != 0.5
    assert health.auc(p, y, w) == pytest.approx(sk.roc_auc_score(y[untied] > 0.5, p[untied], sample_weight=w[untied]))
    # scikit-learn takes hard labels: a soft label is that many positives and that many negatives.
    both, halves = np.concatenate([p, p]), np.concatenate([w * y, w * (1 - y)])
    hard = np.repeat([1, 0], len(p))
    assert health.log_loss(p, y, w) == pytest.approx(sk.log_loss(hard, both, sample_weight=halves))
    noise = np.average(y * (1 - y), weights=w)
    assert health.brier(p, y, w) + noise == pytest.approx(sk.brier_score_loss(hard, both, sample_weight=halves))


def test_calibration_equals_scikit_learn():
    rng = np.random.default_rng(3)
    p, y = rng.random(500), rng.integers(0, 2, 500).astype(float)
    stated, predicted = calibration_curve(y, p, n_bins=10)
    rows = health.calibration_table(p, y, np.ones(500))
    assert [row["stated"] for row in rows] == pytest.approx(stated.tolist())
    assert [row["predicted"] for row in rows] == pytest.approx(predicted.tolist())
    assert sum(row["pairs"] for row in rows) == 500


def test_ece_by_hand():
    # Bin 0.9-1: prediction 0.95 against 0.5, weight 2; bin 0.2-0.3: 0.2 against 0, weight 2.
    p, y, w = array(0.9, 1.0, 0.2), array(1, 0, 0), array(1, 1, 2)
    assert health.ece(p, y, w) == pytest.approx(0.5 * 0.45 + 0.5 * 0.2)
    assert health.ece(array(0.7, 0.3), array(0.7, 0.3), array(1, 1)) == pytest.approx(0)


def test_calibration_by_confidence_has_the_same_error():
    pairs = random_pairs()
    p, y, w = pairs.predicted, pairs.stated, pairs.weight
    sure = health.surer_first(p, y, w)
    assert (sure[0] >= 0.5).all()
    assert health.brier(*sure) == pytest.approx(health.brier(p, y, w))
    assert health.ece(*sure) == pytest.approx(health.ece(*health.both_orders(p, y, w)), abs=0.01)


def test_precision_and_recall_are_about_the_longer_sample():
    # The longer one is: first (wins), second (wins), first (loses), none (left out).
    pairs = Predictions(array(0.9, 0.6, 0.8, 0.9), array(1, 0, 0, 1), np.ones(4), array(3, -2, 1, 0), list("abcd"))
    found = preference_health(pairs)
    # The model says "longer" for pairs 1 and 3, right once; the longer one wins pairs 1 and 2, found once.
    assert found["reward_precision"].value == 0.5
    assert found["reward_recall"].value == 0.5
    assert found["reward_f1"].value == 0.5
    assert found["reward_accuracy"].value == 0.5


def test_length_alone():
    pairs = Predictions(np.full(3, 0.9), array(1, 0, 1), np.ones(3), array(5, -5, -1), list("abc"))
    assert health.longer_wins(pairs)
    assert preference_health(pairs, longer_is_better=True)["reward_length_accuracy"].value == pytest.approx(2 / 3)
    assert preference_health(pairs, longer_is_better=False)["reward_length_accuracy"].value == pytest.approx(1 / 3)
    shorter = Predictions(np.full(2, 0.5), array(0, 1), np.ones(2), array(5, -5), list("ab"))
    assert not health.longer_wins(shorter)


def test_swapping_samples_changes_nothing():
    pairs = random_pairs(prompts=60)
    flip = np.random.default_rng(1).random(len(pairs.predicted)) < 0.5
    swapped = Predictions(
        np.where(flip, 1 - pairs.predicted, pairs.predicted),
        np.where(flip, 1 - pairs.stated, pairs.stated),
        pairs.weight,
        np.where(flip, -pairs.longer, pairs.longer),
        pairs.prompts,
    )
    once, again = preference_health(pairs), preference_health(swapped)
    assert set(once) == {
        f"reward_{name}"
        for name in "accuracy precision recall f1 auc ece brier log_loss length_accuracy".split()  # noqa: SIM905
    }
    for name, metric in once.items():
        # A prediction on the edge of a bin may change its bin by rounding, which moves the ECE.
        assert again[name].value == pytest.approx(metric.value, abs=0.01 if name == "reward_ece" else 1e-12)


def test_perfect_predictions():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 50).astype(float)
    found = preference_health(Predictions(y, y, np.ones(50), rng.normal(size=50), [str(i) for i in range(50)]))
    for name in ("accuracy", "precision", "recall", "f1", "auc"):
        assert found[f"reward_{name}"].value == 1
    for name in ("ece", "brier", "log_loss"):
        assert found[f"reward_{name}"].value == pytest.approx(0, abs=1e-9)


def test_nothing_but_ties_has_no_accuracy():
    found = preference_health(Predictions(array(0.5, 0.7), array(0.5, 0.5), array(1, 1), array(1, 2), ["a", "b"]))
    assert set(found) == {"reward_ece", "reward_brier", "reward_log_loss"}
    assert preference_health(Predictions(array(), array(), array(), array(), [])) == {}


def test_interval_is_over_prompts():
    values, weight = np.random.default_rng(0).random(300), np.ones(300)
    alone = health.weighted_mean(values, weight, [str(i) for i in range(300)])
    reference = scipy_bootstrap((values,), np.mean, method="percentile", n_resamples=5000, rng=1).confidence_interval
    assert (alone.low, alone.high) == pytest.approx((reference.low, reference.high), abs=0.006)
    # The same 300 values as 30 prompts of ten equal pairs: the interval is wider by about sqrt(10).
    grouped = health.weighted_mean(np.repeat(values[:30], 10), weight, [str(i // 10) for i in range(300)])
    assert grouped.n == 30
    assert 2 < (grouped.high - grouped.low) / (alone.high - alone.low) < 5
