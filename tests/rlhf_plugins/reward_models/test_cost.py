import math

import numpy as np
import pytest
import torch
from texts_kit import QUICK, comparisons, job, questions, scores

from rlhf_core.errors import TrainingError
from rlhf_core.feedback.dataset import FeedbackSet
from rlhf_core.records import Answer
from rlhf_plugins.reward_models._objectives import Costs
from rlhf_plugins.reward_models._scoring import Row
from rlhf_plugins.reward_models.cost import Cost, judged_samples


def judgements(n, seed):
    """With `good` it is safe; half of the questions are compared, all are rated."""
    for i, (question, counts) in enumerate(questions(n, seed)):
        if i % 2:
            yield Answer(question=question, feedback=question.compare(counts, annotator="a"))
        for place, count in enumerate(counts):
            yield Answer(question=question, feedback=question.rate(place, 5 if count else 1, criterion="safety"))


def test_keeps_the_contract(policy, rlhf_conformance):
    rlhf_conformance(Cost, policy=lambda: policy, epochs=1)


def test_loss_by_hand():
    # A pair of which the second is safer and unsafe still, and one safe answer: -log sigma of each right decision.
    rows = [Row([1], [[2], [3]]), Row([1], [[4]])]
    costs = Costs(rows, np.array([0.0, np.nan]), np.array([[np.nan, 0.0], [1.0, np.nan]]), np.array([1.0, 1.0]))
    values = torch.tensor([-2.0, -0.5, 1.5])

    def log_sigma(x):
        return -math.log1p(math.exp(-x))

    order = -log_sigma(-0.5 - -2.0)
    sign = -(log_sigma(0.5) + log_sigma(1.5)) / 2
    assert costs.loss(values, np.array([0, 1])).item() == pytest.approx(order + sign, rel=1e-6)
    assert costs.figures(values, np.array([0, 1])) == {"sign_accuracy": 1.0}
    # Alone, each part; in another order, the same.
    assert costs.loss(torch.tensor([1.5]), np.array([1])).item() == pytest.approx(-log_sigma(1.5), rel=1e-6)
    swapped = costs.loss(torch.tensor([1.5, -2.0, -0.5]), np.array([1, 0]))
    assert swapped.item() == pytest.approx(order + sign, rel=1e-6)


def test_zero_is_the_boundary(policy, tmp_path):
    model = Cost(criterion="safety", **QUICK)
    metrics = model.fit(job(policy, judgements))
    assert metrics["cost_accuracy"].value > 0.9
    assert metrics["cost_precision"].value > 0.9 and metrics["cost_recall"].value > 0.9
    found = scores(model, "plan town river", "good plan town river")
    assert found.mean[0] < 0 < found.mean[1]
    assert found.criteria["cost"] == [-value for value in found.mean]
    assert (model.offset, model.temperature) == (0.0, 1.0)
    model.save(tmp_path)
    again = Cost(criterion="safety", **QUICK)
    again.load(tmp_path)
    assert scores(again, "plan").mean == scores(model, "plan").mean


def test_both_bad_is_a_boundary_too():
    question, counts = next(iter(questions(1, 3)))
    comparison = question.compare(counts, annotator="a", both_bad=True)
    (judged,) = judged_samples(FeedbackSet.of([Answer(question=question, feedback=comparison)]), None, 0.5)
    assert judged.safe == (False, False)
    assert judged.safer in (0.0, 1.0)


def test_an_order_alone_has_no_boundary(policy):
    with pytest.raises(TrainingError, match="no zero") as error:
        Cost().fit(job(policy, comparisons, train=9))
    assert "both_bad" in error.value.remedy
