"""What changes how feedback is learnt from: smoothing, margin, balance, paraphrases, unequal annotators."""

import math

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_sample_weight
from texts_kit import QUICK, comparisons, job, questions, scores

from rlhf_core.feedback.dataset import FeedbackSet, Pair
from rlhf_core.records import Answer, Message, Prompt, Sample
from rlhf_plugins.reward_models._objectives import Costs, Pairs, class_balance
from rlhf_plugins.reward_models._preferences import for_training, leads, length_balance, smoothed
from rlhf_plugins.reward_models._scoring import Row
from rlhf_plugins.reward_models.cost import Cost
from rlhf_plugins.reward_models.feed_forward import FeedForward
from rlhf_plugins.reward_models.pairwise import Pairwise, paraphrased
from rlhf_plugins.reward_models.ranking import RankingReward, ranked_samples
from rlhf_plugins.reward_models.regression import Regression


def pair(first, second, probability, weight=1.0):
    prompt = Prompt(text="Say something.")
    one, other = (Sample(prompt_id=prompt.id, text=text) for text in (first, second))
    return Pair(prompt, one, other, probability, weight, ("a",))


def test_smoothing_by_hand():
    assert smoothed(np.array([1.0, 0.0, 0.5, 0.75]), 0.1).tolist() == pytest.approx([0.95, 0.05, 0.5, 0.725])
    assert smoothed(np.array([1.0]), 0.0).tolist() == [1.0]


def test_the_margin_by_hand():
    assert leads(np.array([1.0, 0.0, 0.5, 0.75]), 2.0).tolist() == [2.0, -2.0, 0.0, 1.0]
    objective = Pairs([None], np.array([1.0]), np.array([1.0]))
    config = Pairwise.Config(margin=2.0)
    led = for_training(objective, [pair("a", "b", 1.0)], config)
    # -log sigma(3 - 2), as Llama 2 writes it; without a margin -log sigma(3).
    values, batch = torch.tensor([3.0, 0.0]), np.array([0])
    assert led.loss(values, batch).item() == pytest.approx(math.log(1 + math.exp(-1)))
    assert objective.loss(values, batch).item() == pytest.approx(math.log(1 + math.exp(-3)))
    # Swapping the sides changes nothing.
    swapped = for_training(Pairs([None], np.array([0.0]), np.array([1.0])), [pair("b", "a", 0.0)], config)
    assert swapped.loss(-values, batch).item() == pytest.approx(led.loss(values, batch).item())


def test_length_is_balanced_by_hand():
    # Longer wins with weight 3 + 0.75, shorter with 1 + 0.25; a pair of equal length keeps its weight.
    stated = np.array([1.0, 0.0, 0.25, 1.0])
    longer, weight = np.array([5.0, 9.0, -2.0, 0.0]), np.array([3.0, 1.0, 1.0, 7.0])
    factors = length_balance(stated, longer, weight)
    assert factors.tolist() == pytest.approx([2.5 / 3.75, 2.5 / 1.25, 0.75 * 2.5 / 3.75 + 0.25 * 2.5 / 1.25, 1.0])
    heavy = weight * factors
    assert heavy.sum() == pytest.approx(weight.sum())
    assert length_balance(1 - stated, -longer, weight).tolist() == pytest.approx(factors.tolist())
    assert length_balance(np.ones(2), np.ones(2), np.ones(2)).tolist() == [1.0, 1.0], "one class alone stays as it is"


def test_classes_are_balanced_as_in_scikit_learn():
    labels = np.random.default_rng(0).integers(0, 4, 200) ** 2
    assert class_balance(labels, np.ones(200)) == pytest.approx(compute_sample_weight("balanced", labels))
    # Weights count as so many items.
    assert class_balance(np.array([0, 1, 1]), np.array([2.0, 1.0, 1.0])).tolist() == [1.0, 1.0, 1.0]


def test_rare_unsafe_answers_weigh_as_much_as_the_safe_ones():
    rows = [Row([1], [[2]])] * 4
    safe = np.array([[1.0, np.nan]] * 3 + [[0.0, np.nan]])
    costs = Costs(rows, np.full(4, np.nan), safe, np.ones(4))
    values, batch = torch.zeros(4, requires_grad=True), np.arange(4)
    costs.loss(values, batch).backward()
    assert values.grad.sum().item() < 0, "all are pushed towards safe"
    model = Cost(balance=True)
    model._objective = lambda items: costs
    balanced = model._training([None] * 4)
    values = torch.zeros(4, requires_grad=True)
    balanced.loss(values, batch).backward()
    assert values.grad.tolist() == pytest.approx([-1 / 12] * 3 + [1 / 4])
    assert model._objective([]).balance is None, "what is held out stays as it is"


def test_rare_ratings_weigh_as_much_as_frequent_ones():
    class Rated:
        def __init__(self, score):
            self.score, self.n, self.prompt = score, 1, Prompt(text="x")
            self.sample = Sample(prompt_id=self.prompt.id, text="y")

    for loss in ("squared", "ordinal"):
        model = Regression(balance=True, loss=loss)
        model._rows = lambda asked: [Row([1], [[2]]) for _ in asked]
        found = model._training([Rated(score) for score in (0.0, 0.05, 0.1, 1.0)])
        assert found.weight.reshape(-1).tolist() == pytest.approx([4 / 6] * 3 + [2.0])
        assert set(model._objective([Rated(0.0), Rated(1.0)]).weight.reshape(-1)) == {1.0}


def test_paraphrases_share_the_weight():
    one = pair("a", "b", 1.0, weight=3.0)
    chat = one._replace(prompt=Prompt(messages=(Message(role="user", content="hi"),)))
    found = paraphrased([one, chat], ["Please: {prompt}", "{prompt} {prompt} {x}"])
    assert [each.prompt.text for each in found] == [
        "Say something.", "Please: Say something.", "Say something. Say something. {x}", None,
    ]  # fmt: skip
    assert [each.weight for each in found] == [1.0, 1.0, 1.0, 3.0]
    assert len({each.prompt.group or each.prompt.id for each in found[:3]}) == 1
    assert paraphrased([one], ()) == [one]


def test_options_are_for_training_alone(policy):
    options = {"label_smoothing": 0.2, "margin": 1.0, "balance_length": True, "paraphrases": ["So: {prompt}"]}
    model = Pairwise(epochs=1, **options)
    work = job(policy, comparisons, train=30, validation=25)
    model.fit(work)
    pairs = work.train.pairs()
    lessons = model._lessons(work.train)
    assert len(lessons) == 2 * len(pairs)
    trained = model._training(lessons)
    assert set(trained.stated) == {0.1, 0.9}
    assert set(trained.lead) == {-1.0, 1.0}
    plain = model._objective(model._items(work.validation))
    assert set(plain.stated) == {0.0, 1.0} and plain.lead is None and set(plain.weight) == {1.0}


def mixed(n, seed):
    """Two who are right, and one who is always wrong about who is better."""
    for question, counts in questions(n, seed):
        for who in ("ann", "ben", "con"):
            given = [-count for count in counts] if who == "con" else counts
            yield Answer(question=question, feedback=question.compare(given, annotator=who))


@pytest.mark.parametrize("kind", [FeedForward, Pairwise])
def test_unreliable_annotators_count_less_in_training_only(policy, kind):
    model, train = kind(weigh_annotators=True), FeedbackSet.of(mixed(30, 1))
    assert {round(each.probability, 2) for each in model._items(train)} == {0.33, 0.67}
    assert all(min(each.probability, 1 - each.probability) < 0.05 for each in model._lessons(train))
    assert kind()._lessons(train) == model._items(train)


def test_rankings_of_unreliable_annotators_count_less(policy):
    train = FeedbackSet.of(mixed(30, 1))
    plain, weighed = (ranked_samples(train, 0.0, weigh=weigh) for weigh in (False, True))
    assert {tuple(sorted(weight for _, weight in item.orders)) for item in plain} == {(1.0, 2.0)}
    assert {len(item.orders) for item in weighed} == {1}, "who is always wrong is not heard"
    model = RankingReward(weigh_annotators=True, **QUICK)
    model.fit(job(policy, mixed, train=40, validation=20))
    with_word, without = scores(model, "good plan", "plan").mean
    assert with_word > without


def test_a_network_learns_with_all_options(policy):
    model = FeedForward(label_smoothing=0.1, margin=0.5, balance_length=True, weigh_annotators=True, rarest=1)
    found = model.fit(job(policy, comparisons, train=150, validation=50))
    assert found["reward_accuracy"].value > 0.9
