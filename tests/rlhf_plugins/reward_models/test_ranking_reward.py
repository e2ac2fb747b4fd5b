import itertools
import math

import numpy as np
import pytest
import torch
from texts_kit import QUICK, comparisons, job, questions, scores

from rlhf_core.errors import TrainingError
from rlhf_core.feedback.dataset import FeedbackSet
from rlhf_core.records import Answer
from rlhf_plugins.reward_models._objectives import Rankings
from rlhf_plugins.reward_models._plackett_luce import Stages, stage_log_probability
from rlhf_plugins.reward_models._scoring import Row
from rlhf_plugins.reward_models.ranking import RankingReward, ranked_samples


def rankings(n, seed, goods=(0, 1, 1, 2), ties=True):
    for question, counts in questions(n, seed, goods):
        jitter = [0 if ties else 1e-3 * i for i in range(len(counts))]
        given = question.rank([a + b for a, b in zip(counts, jitter, strict=True)], annotator="a")
        yield Answer(question=question, feedback=given)


def log_probability(values, ranks, log_tie):
    stages = Stages.of([[(ranks, 1.0)]])
    if not len(stages.row):
        return 0.0
    left, chosen = torch.from_numpy(stages.left), torch.from_numpy(stages.chosen)
    rows = torch.tensor([values] * len(stages.row), dtype=torch.float64)
    return float(stage_log_probability(rows, left, chosen, torch.tensor(log_tie, dtype=torch.float64)).sum())


def weak_orders(k):
    """All rankings of k items with ties, as dense ranks."""
    for ranks in itertools.product(range(1, k + 1), repeat=k):
        if set(ranks) == set(range(1, max(ranks) + 1)):
            yield ranks


def test_keeps_the_contract(policy, rlhf_conformance):
    rlhf_conformance(RankingReward, policy=lambda: policy, epochs=1)


def test_without_ties_it_is_plackett_luce():
    # The softmax of what is left, choice after choice.
    values = [0.3, -1.0, 2.0, 0.5]
    expected, left = 0.0, [2, 0, 3, 1]
    while left:
        expected += values[left[0]] - math.log(sum(math.exp(values[i]) for i in left))
        left = left[1:]
    assert log_probability(values, (2, 4, 1, 3), [0.0]) == pytest.approx(expected)


def test_of_two_it_is_davidson():
    a, b, delta = math.exp(0.7), math.exp(-0.4), 1.3
    whole = a + b + delta * math.sqrt(a * b)
    assert log_probability([0.7, -0.4], (1, 1), [0.0, math.log(delta)]) == pytest.approx(
        math.log(delta * math.sqrt(a * b) / whole)
    )
    assert log_probability([0.7, -0.4], (1, 2), [0.0, math.log(delta)]) == pytest.approx(math.log(a / whole))


@pytest.mark.parametrize("k", [2, 3, 4])
def test_all_weak_orders_add_up_to_one(k):
    rng = np.random.default_rng(k)
    values, log_tie = list(rng.normal(size=k)), [0.0, *rng.normal(size=k - 1)]
    total = sum(math.exp(log_probability(values, ranks, log_tie)) for ranks in weak_orders(k))
    assert total == pytest.approx(1)


def test_a_larger_tie_than_there_is_a_parameter_for():
    with pytest.raises(ValueError, match="at most 1"):
        log_probability([0.0, 0.0], (1, 1), [0.0])


def test_the_loss_is_the_mean_over_orders_and_has_gradients():
    orders = [(((1, 2, 2), 2.0), ((3, 1, 2), 1.0)), (((1, 2), 1.0),)]
    rows = [Row([1], [[2], [3], [4]]), Row([1], [[2], [3]])]
    tie = torch.nn.Parameter(torch.tensor([-0.5]))
    objective = Rankings(rows, np.array([3, 2]), Stages.of(orders), tie)
    values = torch.tensor([0.5, -0.2, 0.1, 1.0, 0.3], requires_grad=True)
    log_tie = [0.0, -0.5]
    expected = (
        2 * log_probability([0.5, -0.2, 0.1], (1, 2, 2), log_tie)
        + log_probability([0.5, -0.2, 0.1], (3, 1, 2), log_tie)
        + log_probability([1.0, 0.3], (1, 2), log_tie)
    ) / 4
    loss = objective.loss(values, np.array([0, 1]))
    assert loss.item() == pytest.approx(-expected, rel=1e-5)
    loss.backward()
    assert torch.isfinite(values.grad).all() and torch.isfinite(tie.grad).all() and tie.grad.abs().sum() > 0
    # The order of a batch is free.
    swapped = objective.loss(torch.tensor([1.0, 0.3, 0.5, -0.2, 0.1]), np.array([1, 0]))
    assert swapped.item() == pytest.approx(loss.item())


def test_learns_from_rankings_with_ties(policy, tmp_path):
    model = RankingReward(**QUICK)
    metrics = model.fit(job(policy, rankings, train=60))
    assert metrics["reward_accuracy"].value > 0.9
    found = scores(model, "plan for river", "good plan for river", "good plan good river").mean
    assert found == sorted(found)
    # A third of the pairs with one `good` each tie, and all that tie do so.
    assert len(model.log_tie) == 1
    model.save(tmp_path)
    again = RankingReward(**QUICK)
    again.load(tmp_path)
    assert scores(again, "good plan").mean == scores(model, "good plan").mean


def test_comparisons_are_rankings_of_two(policy):
    items = ranked_samples(FeedbackSet.of(comparisons(9, 1)), 0.0)
    assert len(items) == 9
    assert {order for item in items for order in item.orders} <= {((1, 2), 1.0), ((2, 1), 1.0)}
    unsure = [
        Answer(question=a.question, feedback=a.feedback.model_copy(update={"strength": 0.5})) for a in comparisons(1, 1)
    ]
    ((one,),) = (ranked_samples(FeedbackSet.of(unsure), 0.0),)
    assert sorted(weight for _, weight in one.orders) == [0.25, 0.75]


def test_all_tied_is_nothing(policy):
    with pytest.raises(TrainingError, match="nothing to learn from"):
        RankingReward().fit(job(policy, lambda n, seed: rankings(n, seed, goods=(1, 1)), train=9))
