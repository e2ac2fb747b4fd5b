import numpy as np
import pytest
from texts_kit import QUICK, comparisons, job, questions, scores

from rlhf_core.errors import TrainingError
from rlhf_core.feedback.dataset import FeedbackSet
from rlhf_core.records import Answer
from rlhf_plugins.reward_models._objectives import two_hot
from rlhf_plugins.reward_models.regression import Regression, rated_samples


def ratings(n, seed, criterion="overall"):
    """1 + 2 stars for each `good`, of a scale of 1 to 5; a second rater is half a star milder."""
    for question, counts in questions(n, seed, goods=(0, 1, 2)):
        for place, count in enumerate(counts):
            for who, more in (("a", 0.0), ("b", 0.5)):
                score = min(1 + 2 * count + more, 5)
                rating = question.rate(place, score, annotator=who, criterion=criterion)
                yield Answer(question=question, feedback=rating)


@pytest.mark.parametrize("loss", ["squared", "ordinal"])
def test_keeps_the_contract(policy, rlhf_conformance, loss):
    rlhf_conformance(Regression, policy=lambda: policy, epochs=1, loss=loss)


@pytest.mark.parametrize("loss", ["squared", "ordinal"])
def test_learns_ratings(policy, loss, tmp_path):
    model = Regression(loss=loss, **QUICK)
    metrics = model.fit(job(policy, ratings))
    assert metrics["reward_spearman"].value > 0.85
    assert metrics["reward_pearson"].value > 0.85
    assert metrics["reward_threshold_accuracy"].value > 0.85
    assert metrics["reward_accuracy"].value > 0.9
    assert metrics["reward_ece"].value < 0.15
    found = scores(model, "plan for river", "good plan for river", "good plan for good river")
    assert found.mean == sorted(found.mean)
    assert found.criteria["rating"] == pytest.approx([0.06, 0.56, 1.0], abs=0.3)
    model.save(tmp_path)
    again = Regression(loss=loss, **QUICK)
    again.load(tmp_path)
    assert scores(again, "good plan", "storm") == scores(model, "good plan", "storm")


def test_without_pairs_scores_have_the_unit_of_the_training_samples(policy):
    model = Regression(epochs=1)
    work = job(policy, ratings, train=20, validation=0)
    model.fit(work)
    rated = rated_samples(work.train, None)
    found = model.score([one.prompt for one in rated], [one.sample for one in rated]).mean
    assert (np.mean(found), np.std(found)) == pytest.approx((0, 1), abs=0.1)


def test_only_the_wanted_criterion(policy):
    both = [*ratings(9, 1, "style"), *ratings(9, 1, "facts")]
    assert len(rated_samples(FeedbackSet.of(both), None)) == len(rated_samples(FeedbackSet.of(both), "style")) == 27
    assert rated_samples(FeedbackSet.of(both), "style")[0].n == 2
    with pytest.raises(TrainingError, match="nothing to learn from"):
        Regression(criterion="beauty").fit(job(policy, ratings, train=9))


def test_comparisons_hold_no_rating(policy):
    with pytest.raises(TrainingError, match="hold 0 ratings"):
        Regression().fit(job(policy, comparisons, train=9))


def test_two_hot_keeps_the_mean():
    scores_ = np.array([0.0, 0.1, 0.25, 0.9, 1.0])
    found = two_hot(scores_, 5)
    assert found.sum(1) == pytest.approx(1)
    assert found @ np.linspace(0, 1, 5) == pytest.approx(scores_)
    assert found[1] == pytest.approx([0.6, 0.4, 0, 0, 0])
    assert ((found > 0).sum(1) <= 2).all()
