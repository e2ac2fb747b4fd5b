"""Fitting the panel: known parameters come back within their intervals, and real crowds are reproduced.

Those with known parameters come from the formula here, not from the annotator plugin, whose own test is beside it.
"""

import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.special import expit
from scipy.stats import norm

from rlhf_core.errors import DataError
from rlhf_core.feedback.agreement import krippendorff_alpha, pairwise_agreement
from rlhf_core.feedback.panel_fit import Comparisons, _nodes, comparisons, fit_panel, hat_weights, outcomes, spread_of
from rlhf_core.records import Answer, Prompt, Question, Sample

TRUE = {
    "temperature": 0.5, "position_bias": 0.15, "length_bias": 0.004, "tie_below": 0.2, "flip": 0.08, "taste": 0.4,
    "temperature_spread": 0.4, "tie_spread": 0.3, "alike": 0.1,
}  # fmt: skip


def simulated(seed, questions=1200, raters=12, overlap=4, criteria=("all",), factors=(1.0,), **changed):
    """Comparisons by the formula in the module's docstring."""
    rng = np.random.default_rng(seed)
    true = TRUE | changed
    judged = rng.normal(size=(questions, len(criteria)))
    longer = np.round(rng.normal(0, 40, questions))
    common = rng.normal(size=questions) * true["taste"] * 2**0.5
    noise = true["temperature"] * np.exp(true["temperature_spread"] * rng.normal(size=raters))
    question = np.repeat(np.arange(questions), overlap)
    rater = np.concatenate([rng.choice(raters, overlap, replace=False) for _ in range(questions)])
    sign = rng.choice([-1.0, 1.0], len(question))
    worth = judged @ np.array(factors) + common + true["length_bias"] * longer
    worth = np.where(rng.random(questions) < true["alike"], 0.0, worth)
    ties = true["tie_below"] * np.exp(true["tie_spread"] * rng.normal(size=raters))
    seen = sign * worth[question] + true["position_bias"] + noise[rater] * rng.logistic(size=len(question))
    seen = np.where(rng.random(len(question)) < true["flip"], -seen, seen)
    outcome = np.where(np.abs(seen) <= ties[rater], 0, np.sign(seen)).astype(int)
    return Comparisons(question, rater, sign, outcome, judged, longer, tuple(criteria), tuple(map(str, range(raters))))


def test_known_parameters_come_back_within_their_intervals():
    hits, tried = 0, 0
    for seed in range(2):
        found = fit_panel(simulated(seed)).options
        for name, value in TRUE.items():
            metric = found[name]
            tried += 1
            hits += metric.low <= value <= metric.high
            assert metric.high - metric.low < {"length_bias": 0.004}.get(name, 0.8), (name, metric)
        assert found["temperature"].value == pytest.approx(0.5, abs=0.17)
        assert found["taste"].value == pytest.approx(0.4, abs=0.12)
    # 95 % each: 18 intervals of which three may miss is the 99 % point of the binomial distribution.
    assert hits >= tried - 3, f"{hits} of {tried}"


def test_values_come_back():
    same = {"temperature_spread": 0.0, "tie_spread": 0.0, "alike": 0.0}
    names, factors = ("clear", "calm", "short"), (1.6, 1.2, 0.2)
    found = [fit_panel(simulated(seed, questions=500, criteria=names, factors=factors, **same)) for seed in (7, 8, 9)]
    for name, value in zip(names, factors, strict=True):
        metrics = [each.values[name] for each in found]
        assert np.mean([metric.value for metric in metrics]) == pytest.approx(value, abs=0.1)
        assert sum(metric.low <= value <= metric.high for metric in metrics) >= 2
        assert all(metric.high - metric.low < 0.35 for metric in metrics)
    assert np.mean([metric.value for metric in found[0].values.values()]) == pytest.approx(1, abs=0.05)
    assert set(found[0].config(seed=1)) >= {"use", "raters", "temperature", "values", "values_spread", "seed"}


def test_careful_people_without_faults_are_found_to_have_none():
    data = simulated(3, **dict.fromkeys(set(TRUE) - {"temperature"}, 0.0))
    found = fit_panel(data).options
    assert found["tie_below"].value == 0
    for name in ("flip", "taste", "temperature_spread"):
        assert found[name].value < 0.12, (name, found[name])
    for name in ("position_bias", "length_bias"):
        assert found[name].low <= 0 <= found[name].high


def test_a_judge_that_nobody_follows_has_no_units():
    data = simulated(5, questions=200, factors=(0.0,))
    with pytest.raises(DataError, match="do not follow the judge"):
        fit_panel(data)


def test_the_spread_of_estimates_by_hand():
    # Without sampling error the estimate is the standard deviation of the estimates themselves.
    x = np.array([-0.5, -0.1, 0.0, 0.2, 0.4])
    assert spread_of(x, np.full(5, 1e-9)).value == pytest.approx(x.std(), abs=0.005)
    # And where the error explains all of it, there is none left.
    assert spread_of(x, np.full(5, 1.0)).value == 0


@pytest.mark.parametrize(("mean", "deviation"), [(0.0, 1e-3), (1.3, 0.2), (-2.0, 3.0), (0.5, 80.0)])
def test_an_expectation_over_the_nodes_is_that_of_the_normal_distribution(mean, deviation):
    nodes = torch.tensor(_nodes())
    (weights,) = hat_weights(nodes, torch.tensor([mean], dtype=nodes.dtype), torch.tensor(deviation, dtype=nodes.dtype))
    expected, _ = quad(
        lambda x: expit(x) ** 2 * norm.pdf(x, mean, deviation), mean - 9 * deviation, mean + 9 * deviation,
        points=[mean, 0.0] if abs(mean) < 9 * deviation else None, limit=500,
    )  # fmt: skip
    assert float((weights * torch.sigmoid(nodes) ** 2).sum()) == pytest.approx(expected, abs=2e-3)
    assert float(weights.sum()) == pytest.approx(1)
    assert float(weights.min()) > -1e-9


def test_answers_become_numbers():
    prompt = Prompt(text="p")
    samples = sorted((Sample(prompt_id=prompt.id, text=t) for t in ("long one", "short")), key=lambda s: s.id)
    there, back = Question(prompt=prompt, samples=samples), Question(prompt=prompt, samples=samples[::-1])
    answers = [
        Answer(question=there, feedback=there.compare([1, 0], annotator="a")),
        Answer(question=back, feedback=back.compare([1, 0], annotator="b")),
        Answer(question=back, feedback=back.compare([0, 0], annotator="a")),
        Answer(question=back, feedback=back.skip(annotator="c")),
    ]
    scores = {samples[0].id: {"calm": 2.0}, samples[1].id: {"calm": 0.5}}
    data = comparisons(answers, scores, ["calm"])
    assert data.question.tolist() == [0, 0, 0] and data.raters == ("a", "b") and data.skips == 1
    assert data.rater.tolist() == [0, 1, 0]
    assert data.sign.tolist() == [1, -1, -1]
    assert data.outcome.tolist() == [1, 1, 0]
    assert data.judged.tolist() == [[1.5]]
    assert data.longer.tolist() == [len(samples[0].text) - len(samples[1].text)]
    with pytest.raises(DataError, match=r"50 comparisons .* there are 3"):
        fit_panel(data)


def real(name):
    path = Path(os.environ.get("RLHF_TEST_DATA", "../shared/data")) / name
    if not path.exists():
        pytest.skip(f"{path} is not there: set RLHF_TEST_DATA to the folder with the public data sets")
    return path


def pandalm():
    rows = json.loads(real("pandalm/testset-v1.json").read_text())
    longer = np.array([len(str(row["response1"])) - len(str(row["response2"])) for row in rows], dtype=float)
    said = [row[f"annotator{number}"] for row in rows for number in (1, 2, 3)]
    question, rater = np.repeat(np.arange(len(rows)), 3), np.tile(np.arange(3), len(rows))
    outcome = np.array([{0: 0, 1: 1, 2: -1}[int(each)] for each in said])
    return Comparisons(question, rater, np.ones(len(said)), outcome, np.empty((len(rows), 0)), longer, (), tuple("123"))


def llmfao():
    with real("llmfao/crowd-comparisons.csv").open() as file:
        rows = list(csv.DictReader(file))
    pairs: dict = {}
    workers: dict = {}
    question, rater, sign, outcome = [], [], [], []
    for row in rows:
        lower, higher = sorted((row["model_x"], row["model_y"]))
        question.append(pairs.setdefault((row["prompt"], lower, higher), len(pairs)))
        rater.append(workers.setdefault(row["worker"], len(workers)))
        sign.append(1.0 if row["model_x"] == lower else -1.0)
        outcome.append({"left": 1, "right": -1, "tie": 0}[row["winner"]])
    return Comparisons(
        np.array(question), np.array(rater), np.array(sign), np.array(outcome), np.empty((len(pairs), 0)),
        np.zeros(len(pairs)), (), tuple(workers),
    )  # fmt: skip


def statistics(data):
    units = [[] for _ in range(len(data.longer))]
    for question, label in zip(data.question, data.outcome * data.sign, strict=True):
        units[question].append(label)
    several = [unit for unit in units if len(unit) > 1]
    return {
        **outcomes(data), "agreement": pairwise_agreement(several),
        "alpha": krippendorff_alpha(several), "ordinal": krippendorff_alpha(several, "ordinal"),
    }  # fmt: skip


@pytest.mark.real_data
@pytest.mark.parametrize("crowd", [pandalm, pytest.param(llmfao, marks=pytest.mark.slow)])
def test_a_fitted_panel_agrees_as_the_real_crowd_does(crowd):
    """The same questions and raters, answered anew by the fitted panel."""
    data = crowd()
    panel = fit_panel(data)
    fitted = {name: metric.value for name, metric in panel.options.items()}
    rng = np.random.default_rng(0)
    answered = []
    for _ in range(5):
        noise = np.exp(fitted["temperature_spread"] * rng.normal(size=len(data.raters)))
        worth = rng.normal(size=len(data.longer)) * fitted["taste"] * 2**0.5 + fitted["length_bias"] * data.longer
        worth = np.where(rng.random(len(worth)) < fitted["alike"], 0.0, worth)
        ties = fitted["tie_below"] * np.exp(fitted["tie_spread"] * rng.normal(size=len(data.raters)))
        seen = data.sign * worth[data.question] + fitted["position_bias"]
        seen = seen + noise[data.rater] * rng.logistic(size=len(seen))
        seen = np.where(rng.random(len(seen)) < fitted["flip"], -seen, seen)
        outcome = np.where(np.abs(seen) <= ties[data.rater], 0, np.sign(seen)).astype(int)
        answered.append(statistics(Comparisons(**{**vars(data), "outcome": outcome})))
    people = statistics(data)
    for name, share in people.items():
        simulated_share = np.mean([each[name] for each in answered])
        print(f"{crowd.__name__} {name}: people {share:.3f}, panel {simulated_share:.3f}")
        assert simulated_share == pytest.approx(share, abs=0.06), name
