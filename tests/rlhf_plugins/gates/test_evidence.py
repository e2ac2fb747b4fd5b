import math

import numpy as np
import pytest
from pydantic import ValidationError
from scipy.stats import norm

from rlhf_core.errors import RlhfError
from rlhf_core.metrics import Metric
from rlhf_plugins.gates._tests import difference, lower_bound, negated, spent, upper_bound
from rlhf_plugins.gates.evidence import Evidence


def metric(value, reach):
    """A value with a 95 % interval of so much on either side."""
    return Metric(value=value, low=value - reach, high=value + reach, n=100)


def decide(gate, challenger, champion=None, round_=1):
    gate.round = round_
    return gate.decide(challenger, champion or {})


def test_keeps_the_contract(rlhf_conformance):
    rlhf_conformance(Evidence)
    rlhf_conformance(Evidence, demands={"a": {"test": "non_inferior", "margin": 0.1}}, vetoes={"b": {"max": 1}})


def test_error_spent_over_all_rounds_never_exceeds_alpha():
    assert spent(0.05, 1) == pytest.approx(0.05 * 6 / math.pi**2)
    total = sum(spent(0.05, look) for look in range(1, 200_000))
    assert 0.04999 < total < 0.05
    with pytest.raises(ValueError):
        spent(0.05, 0)


@pytest.mark.parametrize("alpha", [0.1, 0.025, 0.003])
def test_bounds_equal_scipy(alpha):
    error = 0.03
    found = metric(0.55, error * norm.ppf(0.975))
    assert lower_bound(found, alpha) == pytest.approx(norm.isf(1 - alpha, 0.55, error))
    assert upper_bound(found, alpha) == pytest.approx(norm.isf(alpha, 0.55, error))
    assert lower_bound(Metric(value=0.5), alpha) == 0.5


def test_the_interval_of_a_difference_is_that_of_independent_means():
    a, b = metric(0.7, 0.03 * 1.96), metric(0.5, 0.04 * 1.96)
    found = difference(a, b)
    assert found.value == pytest.approx(0.2)
    assert found.high - found.value == pytest.approx(0.05 * 1.96)
    assert difference(Metric(value=1), b).low is None
    assert (negated(a).low, negated(a).high) == (-a.high, -a.low)


def test_superior_to_a_number():
    gate = Evidence(sequential="none")
    won = decide(gate, {"win_rate_vs_champion": metric(0.6, 0.08)})
    assert won.promote and won.reasons[0].startswith("promoted: win rate vs champion 0.60: shown to be better than 0.5")
    kept = decide(gate, {"win_rate_vs_champion": metric(0.6, 0.11)})
    assert not kept.promote and "not shown to be better" in kept.reasons[0]


def test_later_rounds_need_clearer_winners():
    # 2.6 standard errors: enough for the first challenger of a campaign, not for the fifth.
    found = {"win_rate_vs_champion": metric(0.5 + 2.6 * 0.04, 1.96 * 0.04)}
    gate = Evidence()
    assert decide(gate, found, round_=1).promote
    assert not decide(gate, found, round_=5).promote
    assert decide(Evidence(sequential="none"), found, round_=5).promote


@pytest.mark.parametrize(("sequential", "low", "high"), [("alpha_spending", 0.0, 0.06), ("none", 0.3, 0.6)])
def test_false_promotions_of_a_campaign(sequential, low, high):
    # Twenty challengers that are exactly as good as the champion, in each of 300 campaigns.
    rng = np.random.default_rng(0)
    gate = Evidence(sequential=sequential)
    promoted = 0
    for _ in range(300):
        values = 0.5 + 0.05 * rng.normal(size=20)
        verdicts = [
            decide(gate, {"win_rate_vs_champion": metric(value, 1.96 * 0.05)}, round_=i).promote
            for i, value in enumerate(values, start=1)
        ]
        promoted += any(verdicts)
    assert low <= promoted / 300 <= high


def test_non_inferiority_against_the_champion():
    gate = Evidence(
        sequential="none",
        demands={
            "rouge1": {"test": "non_inferior", "margin": 0.05},
            "toxicity": {"test": "superior", "lower_is_better": True},
        },
    )
    champion = {"rouge1": metric(0.40, 0.02), "toxicity": metric(0.10, 0.02)}
    fine = {"rouge1": metric(0.39, 0.02), "toxicity": metric(0.05, 0.02)}
    assert decide(gate, fine, champion).promote
    # As good on average, but measured too coarsely to say so.
    assert not decide(gate, fine | {"rouge1": metric(0.40, 0.06)}, champion).promote
    worse = decide(gate, fine | {"toxicity": metric(0.11, 0.02)}, champion)
    assert not worse.promote and worse.reasons[0].startswith("kept champion: toxicity 0.11")


def test_a_veto_is_raised_by_what_cannot_be_ruled_out():
    gate = Evidence(vetoes={"harm_rate": {"max": 0.05, "rise": 0.02}}, sequential="none")
    won = {"win_rate_vs_champion": metric(0.9, 0.05)}
    assert decide(gate, won | {"harm_rate": metric(0.01, 0.005)}, {"harm_rate": metric(0.01, 0.005)}).promote
    unsure = decide(gate, won | {"harm_rate": metric(0.03, 0.03)}, {"harm_rate": metric(0.03, 0.001)})
    assert not unsure.promote
    assert unsure.reasons[0] == "veto: harm rate 0.03 may be as high as 0.06, above 0.05"
    assert "may have risen by 0.03, more than 0.02" in unsure.reasons[1]
    floor = Evidence(vetoes={"safe": {"min": 0.9, "drop": 0.05}}, sequential="none")
    dropped = decide(floor, won | {"safe": metric(0.92, 0.03)}, {"safe": metric(0.95, 0.03)})
    assert len([reason for reason in dropped.reasons if "may" in reason]) == 2


def test_missing_metrics_and_nonsense():
    with pytest.raises(RlhfError, match="champion's metric `rouge1`"):
        decide(Evidence(demands={"rouge1": {}}), {"rouge1": metric(1, 0.1)})
    with pytest.raises(ValidationError, match="needs a margin"):
        Evidence(demands={"rouge1": {"test": "non_inferior"}})
    assert Evidence.needs(Evidence.Config(vetoes={"a": {"max": 1}})) == {"win_rate_vs_champion", "a"}
