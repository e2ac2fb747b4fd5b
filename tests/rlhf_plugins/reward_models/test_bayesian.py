import json

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from texts_kit import comparisons, job, scores

from rlhf_core.errors import RlhfError, TrainingError
from rlhf_core.feedback.dataset import FeedbackSet
from rlhf_core.plugins import FitJob
from rlhf_core.records import Prompt
from rlhf_plugins.reward_models._laplace import laplace
from rlhf_plugins.reward_models.bayesian import Bayesian, marked


def problem(n=60, d=4):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, d))
    return x, (rng.random(n) < expit(x @ np.arange(d))).astype(float)


def test_keeps_the_contract(rlhf_conformance):
    rlhf_conformance(Bayesian)


def test_the_mode_is_that_of_logistic_regression():
    x, y = problem()
    weight = np.random.default_rng(1).integers(1, 4, len(y)).astype(float)
    theirs = LogisticRegression(C=0.7, fit_intercept=False, tol=1e-10).fit(x, y, sample_weight=weight)
    assert laplace(x, y, weight, 0.7).mode == pytest.approx(theirs.coef_[0], abs=1e-5)


def test_soft_labels_are_answers_of_both_kinds():
    x, _ = problem(8)
    soft = laplace(x, np.full(8, 0.25), np.full(8, 4.0), 1.0)
    hard = laplace(np.repeat(x, 4, axis=0), np.tile([1.0, 0, 0, 0], 8), np.ones(32), 1.0)
    assert soft.mode == pytest.approx(hard.mode, abs=1e-6)
    assert soft.evidence == pytest.approx(hard.evidence)


def test_the_posterior_is_near_the_true_one():
    """One weight, many answers: evidence and spread against numerical integration."""
    x, y = problem(200, 1)
    found = laplace(x, y, np.ones(200), 2.0)

    def density(w, power=0):
        f = x[:, 0] * w
        log = y @ f - np.logaddexp(0, f).sum() - w * w / 4 - 0.5 * np.log(4 * np.pi)
        return w**power * np.exp(log - found.evidence)

    mass, first, second = (quad(density, -4, 4, args=(power,), limit=200)[0] for power in range(3))
    assert np.log(mass) == pytest.approx(0, abs=0.02)
    deviation = (second / mass - (first / mass) ** 2) ** 0.5
    draws = found.draws(np.random.default_rng(2).standard_normal((1, 20_000)))
    assert draws.std() == pytest.approx(deviation, rel=0.05)


def test_draws_have_the_posteriors_covariance():
    x, y = problem()
    found = laplace(x, y, np.ones(len(y)), 1.0)
    p = expit(x @ found.mode)
    expected = np.linalg.inv((x.T * (p * (1 - p))) @ x + np.eye(4))
    draws = found.draws(np.random.default_rng(0).standard_normal((4, 100_000)))
    assert np.cov(draws) == pytest.approx(expected, abs=0.02)


def test_learns_what_is_preferred_and_is_saved(tmp_path):
    model = Bayesian()
    metrics = model.fit(job(None, comparisons, train=60))
    assert metrics["reward_accuracy"].value > 0.9
    found = scores(model, "good plan", "storm")
    assert found.mean[0] > found.mean[1]
    assert found.spread == pytest.approx(np.std(found.members, axis=0))
    assert np.mean(found.members, axis=0) == pytest.approx(found.mean)
    model.save(tmp_path)
    again = Bayesian()
    again.load(tmp_path)
    assert scores(again, "good plan", "storm").mean == pytest.approx(found.mean)
    assert np.array(scores(again, "good plan").members) == pytest.approx(np.array(found.members)[:, :1])
    with pytest.raises(RlhfError, match="8192 features, the pipeline's has 64"):
        Bayesian(features=64).load(tmp_path)
    assert json.loads((tmp_path / "bayesian.json").read_text()) == {"features": 8192, "draws": 128}


def test_is_unsure_of_words_that_nobody_was_asked_about():
    model = Bayesian()
    model.fit(job(None, comparisons, train=200))
    known, unknown = (np.ptp(scores(model, "plan park", text).members, axis=1).std() for text in ("plan", "plan zebra"))
    assert unknown > 1.5 * known


def test_more_answers_make_surer():
    few, many = Bayesian(variances=[0.3]), Bayesian(variances=[0.3])
    few.fit(job(None, comparisons, train=30))
    many.fit(job(None, comparisons, train=300))
    assert scores(many, "good plan").spread[0] < 0.7 * scores(few, "good plan").spread[0]


def test_words_of_the_prompt_are_one():
    prompt = Prompt(text="The Alton zoo delays the bag tax.")
    assert marked(prompt, "Alton zoo: CRAZY tax") == ["<given>", "<given>", ":", "<new>", "crazy", "<new>", "<given>"]


def test_nothing_to_learn_from():
    with pytest.raises(TrainingError, match="no preference to learn from"):
        Bayesian().fit(FitJob(FeedbackSet(), FeedbackSet()))
    with pytest.raises(RlhfError, match="learnt nothing yet"):
        scores(Bayesian(), "plan")
