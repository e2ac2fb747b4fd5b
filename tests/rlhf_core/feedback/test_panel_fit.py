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
from rlhf_core.feedback.panel_fit import comparisons, fit_panel, outcomes, spread_of
from rlhf_core.feedback.panel_likelihood import Comparisons, _nodes, hat_weights
from rlhf_core.records import Answer, Prompt, Question, Sample

TRUE = {
    "temperature": 0.5, "position_bias": 0.15, "length_bias": 0.004, "tie_below": 0.2, "flip": 0.08, "taste": 0.4,
    "temperature_spread": 0.4, "tie_spread": 0.3, "position_spread": 0.15, "alike": 0.2, "alike_noise": 0.5,
}  # fmt: skip


def simulated(seed, questions=1200, raters=12, overlap=4, criteria=("all",), factors=(1.0,), **changed):
    """Comparisons by the formula in the module's docstring."""
    rng = np.random.default_rng(seed)
    true = TRUE | changed
    judged = rng.normal(size=(questions, len(criteria)))
    longer = np.round(rng.normal(0, 40, questions))
    question = np.repeat(np.arange(questions), overlap)
    rater = np.concatenate([rng.choice(raters, overlap, replace=False) for _ in range(questions)])
    sign = rng.choice([-1.0, 1.0], len(question))
    asked = Comparisons(
        question, rater, sign, 0 * question, judged, longer, tuple(criteria), tuple(map(str, range(raters)))
    )
    return answered(asked, true, rng, judged @ np.array(factors))


def answered(data, true, rng, worth=0.0, team=None):
    """The same questions, answered by a fresh panel with the options `true`, or by `team`, a row each a rater."""
    raters, questions = len(data.raters), len(data.longer)
    if team is None:
        spreads = np.array([[true["temperature_spread"]], [true["tie_spread"]], [true["position_spread"]]])
        team = (spreads * rng.normal(size=(3, raters))).T
        team[:, :2] = np.exp(team[:, :2])
    noise, ties = true["temperature"] * team[:, 0], true["tie_below"] * team[:, 1]
    lean = true["position_bias"] + team[:, 2]
    worth = worth + rng.normal(size=questions) * true["taste"] * 2**0.5 + true["length_bias"] * data.longer
    alike = rng.random(questions) < true["alike"]
    worth, clear = np.where(alike, 0.0, worth), np.where(alike, true["alike_noise"], 1.0)
    seen = data.sign * worth[data.question] + lean[data.rater]
    seen = seen + noise[data.rater] * clear[data.question] * rng.logistic(size=len(seen))
    seen = np.where(rng.random(len(seen)) < true["flip"], -seen, seen)
    outcome = np.where(np.abs(seen) <= ties[data.rater], 0, np.sign(seen)).astype(int)
    return Comparisons(**{**vars(data), "outcome": outcome})


def test_known_parameters_come_back_within_their_intervals():
    hits, tried = 0, 0
    for seed in range(2):
        found = fit_panel(simulated(seed)).options
        for name, value in TRUE.items():
            metric = found[name]
            tried += 1
            hits += metric.low <= value <= metric.high
            assert metric.high - metric.low < {"length_bias": 0.004, "alike_noise": 1.5}.get(name, 0.8), (name, metric)
        assert found["temperature"].value == pytest.approx(0.5, abs=0.17)
        assert found["taste"].value == pytest.approx(0.4, abs=0.12)
    # 95 % each: 22 intervals of which three may miss is the 97 % point of the binomial distribution.
    assert hits >= tried - 3, f"{hits} of {tried}"


@pytest.mark.slow
def test_values_come_back():
    same = {"temperature_spread": 0.0, "tie_spread": 0.0, "position_spread": 0.0, "alike": 0.0}
    names, factors = ("clear", "calm", "short"), (1.6, 1.2, 0.2)
    found = [fit_panel(simulated(seed, questions=500, criteria=names, factors=factors, **same)) for seed in (7, 8, 9)]
    for name, value in zip(names, factors, strict=True):
        metrics = [each.values[name] for each in found]
        assert np.mean([metric.value for metric in metrics]) == pytest.approx(value, abs=0.1)
        assert sum(metric.low <= value <= metric.high for metric in metrics) >= 2
        assert all(metric.high - metric.low < 0.35 for metric in metrics)
    assert np.mean([metric.value for metric in found[0].values.values()]) == pytest.approx(1, abs=0.05)
    assert set(found[0].config(seed=1)) >= {"use", "raters", "temperature", "values", "values_spread", "seed"}


@pytest.mark.slow
def test_careful_people_without_faults_are_found_to_have_none():
    data = simulated(3, **dict.fromkeys(set(TRUE) - {"temperature", "alike_noise"}, 0.0))
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
    each = np.full(5, 30)
    assert spread_of(x, np.full(5, 1e-9), each).value == pytest.approx(x.std(), abs=0.005)
    # Where the error explains all of it, there is none left.
    assert spread_of(x, np.full(5, 1.0), each).value == 0
    # Who answers more counts more: as that many raters who answer alike.
    often = np.array([20, 20, 20, 20, 100])
    spread = spread_of(x, np.full(5, 1e-9), often)
    assert spread.value == pytest.approx(np.std([*x[:4], *[0.4] * 5]), abs=0.005)


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


def some_questions(data, chosen):
    """Only the questions with these numbers."""
    kept = np.isin(data.question, chosen)
    place = np.full(len(data.longer), -1)
    place[chosen] = np.arange(len(chosen))
    return Comparisons(
        place[data.question[kept]], data.rater[kept], data.sign[kept], data.outcome[kept], data.judged[chosen],
        data.longer[chosen], data.criteria, data.raters,
    )  # fmt: skip


@pytest.mark.real_data
@pytest.mark.slow
@pytest.mark.parametrize("crowd", [pandalm, llmfao])
def test_a_fitted_panel_agrees_as_the_real_crowd_does_on_held_out_questions(crowd):
    """Fitted to half of the questions; the same number of raters answer the other half."""
    data = crowd()
    shuffled = np.random.default_rng(1).permutation(len(data.longer))
    half = len(shuffled) // 2
    known = some_questions(data, shuffled[:half])
    panel = fit_panel(known)
    fitted = {name: metric.value for name, metric in panel.options.items()}
    often = np.argsort(-np.bincount(known.rater, minlength=len(data.raters)), kind="stable")
    team = np.empty((len(often), 3))
    team[often] = [[person[name] for name in ("noise", "ties", "lean")] for person in panel.team]
    held_out = some_questions(data, shuffled[half:])
    people, rng = statistics(held_out), np.random.default_rng(0)
    themselves = [statistics(answered(held_out, fitted, rng, team=team)) for _ in range(20)]
    others = [statistics(answered(held_out, fitted, rng)) for _ in range(20)]
    print(crowd.__name__, {name: round(value, 3) for name, value in fitted.items()})
    for name, share in people.items():
        same, drawn = ([each[name] for each in panels] for panels in (themselves, others))
        print(
            f"{crowd.__name__} {name}: people {share:.3f}, the same raters {np.mean(same):.3f} ± {np.std(same):.3f}, "
            f"others like them {np.mean(drawn):.3f} ± {np.std(drawn):.3f}"
        )
        assert np.mean(same) == pytest.approx(share, abs=0.05), name
        assert np.mean(drawn) == pytest.approx(share, abs=0.08), name
