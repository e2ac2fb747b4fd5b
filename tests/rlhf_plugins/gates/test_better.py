import pytest
from pydantic import ValidationError

from rlhf_core.errors import RlhfError
from rlhf_core.metrics import Metric
from rlhf_plugins.gates.better import Better


def measured(low=0.73, value=0.78, high=0.83, **others):
    rate = Metric(value=value, low=low, high=high, n=100)
    return {"win_rate_vs_champion": rate} | {name: Metric(value=number) for name, number in others.items()}


def test_keeps_the_contract(rlhf_conformance):
    rlhf_conformance(Better)


def test_promotes_what_is_proven_better():
    decision = Better().decide(measured(), {})
    assert decision.promote
    assert decision.reasons == ("promoted: win rate vs champion 0.78, 95 % interval [0.73, 0.83], above 0.5",)


@pytest.mark.parametrize("low", [0.46, 0.5])
def test_the_lower_bound_must_be_above(low):
    decision = Better().decide(measured(low, 0.55, 0.6), {})
    assert not decision.promote
    assert decision.reasons[0].startswith("kept champion: not proven better: win rate vs champion 0.55")
    assert "lower bound not above 0.5" in decision.reasons[0]


def test_the_bar_and_the_metric_are_options():
    assert not Better(win_rate=0.75).decide(measured(), {}).promote
    assert Better(metric="gold_score", win_rate=1.0).decide({"gold_score": Metric(value=1.5)}, {}).promote
    decision = Better(metric="gold_score", win_rate=2).decide({"gold_score": Metric(value=1.5)}, {})
    assert decision.reasons == ("kept champion: gold score 1.50 (no interval known), not above 2",)


@pytest.mark.parametrize(
    ("guard", "value", "holds"),
    [
        ({"max": 12}, 12.0, True),
        ({"max": 12}, 12.1, False),
        ({"min": 0.9}, 0.9, True),
        ({"min": 0.9}, 0.89, False),
        ({"drop": 0.2}, 0.55, True),
        ({"drop": 0.2}, 0.45, False),
        ({"rise": 0.1}, 0.75, True),
        ({"rise": 0.1}, 0.85, False),
        ({"min": 0.1, "rise": 0.1}, 0.05, False),
    ],
)
def test_guards(guard, value, holds):
    gate = Better(Better.Config.model_validate({"guards": {"kl": guard}}))
    decision = gate.decide(measured(kl=value), measured(kl=0.7))
    assert decision.promote is holds
    if not holds:
        assert decision.reasons[0].startswith("kept champion: kl ")
        assert any("win rate" in reason for reason in decision.reasons)
    else:
        assert decision.reasons[0].startswith("promoted: ")
        assert decision.reasons[1].startswith("kl ")


def test_words_of_a_broken_guard():
    gate = Better(guards={"kl": {"max": 12}, "distinct_2": {"drop": 0.2}})
    decision = gate.decide(measured(kl=13.14, distinct_2=0.4), measured(distinct_2=0.8))
    assert decision.reasons[:2] == (
        "kept champion: kl 13.14, above 12.00",
        "distinct 2 0.40, below 0.60 (champion 0.80, drop of 0.2 allowed)",
    )


def test_a_guard_cannot_make_up_for_no_gain():
    assert not Better(guards={"kl": {"max": 12}}).decide(measured(0.4, 0.5, 0.6, kl=1), {}).promote


def test_missing_metrics_are_named():
    gate = Better(guards={"kl": {"max": 12}, "eos_rate": {"drop": 0.1}})
    assert gate.needs(gate.config) == {"win_rate_vs_champion", "kl", "eos_rate"}
    with pytest.raises(RlhfError, match="challenger's metric `kl`"):
        gate.decide(measured(), {})
    with pytest.raises(RlhfError, match="champion's metric `eos_rate`"):
        gate.decide(measured(kl=1, eos_rate=1), measured())


@pytest.mark.parametrize("guard", [{}, {"drop": -1}, {"min": 2, "max": 1}, {"maximum": 1}])
def test_nonsense_guards_are_refused(guard):
    with pytest.raises(ValidationError):
        Better(guards={"kl": guard})
