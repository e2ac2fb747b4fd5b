from dataclasses import replace

import pytest
import torch
from ppo_kit import PROMPTS

from rlhf_core.lm.logprobs import sequence_logprobs
from rlhf_plugins.optimizers._experience import Shown, answers, opinion
from rlhf_plugins.optimizers._trainee import NotFiniteError, Trainee, trainable
from rlhf_plugins.optimizers._updates import Lesson, fit_values, imitation_gradient, improve_policy
from rlhf_plugins.optimizers._values import HeadOnReference, Network, all_values
from rlhf_plugins.optimizers.ppo import Ppo


def lesson_of(lm, seed=0):
    """A batch with random advantages and with returns that the prompt's length decides."""
    batch = answers(lm, PROMPTS, seeds=range(len(PROMPTS)), temperature=1.0)
    _, hidden = opinion(lm, batch, temperature=1.0, size=None, hidden=True)
    advantages = torch.randn(batch.mask.shape, generator=torch.Generator().manual_seed(seed)) * batch.mask
    lengths = batch.attention[:, : batch.start].sum(dim=1, keepdim=True).float()
    returns = ((lengths - lengths.mean()) / 3).expand(batch.mask.shape) * batch.mask
    return Lesson(batch, advantages, torch.zeros_like(returns), returns, hidden)


def improve(lm, lesson, **config):
    trainee = Trainee(lm.model, lr=1e-3, max_grad_norm=1e9)
    return improve_policy(lm, trainee, lesson, Ppo.Config(**config), seed=0, step=0, temperature=1.0, imitate=None)


@pytest.mark.parametrize("kind", ["head", "network"])
def test_values_learn_the_returns(policy, kind):
    lm = policy().lm
    lesson = lesson_of(lm)
    model = HeadOnReference(lm, 0) if kind == "head" else Network(lm)
    before = all_values(model, lesson.experience, lesson.hidden, None)
    assert before.abs().max() == 0
    trainee = Trainee(model, lr=1e-2, max_grad_norm=1.0)
    config = Ppo.Config(value_epochs=20, minibatches=2, value_clip=None)
    fit_values(model, trainee, lesson, config, seed=0, step=0)
    after = all_values(model, lesson.experience, lesson.hidden, 5)
    mask = lesson.experience.mask
    assert ((after - lesson.returns) ** 2)[mask].mean() < 0.3 * (lesson.returns**2)[mask].mean()
    assert after[~mask].abs().max() == 0


@pytest.mark.parametrize("kind", ["head", "network"])
def test_a_value_knows_the_tokens_before_it_and_no_other(policy, kind):
    lm = policy().lm
    batch = lesson_of(lm).experience
    model = HeadOnReference(lm, 0) if kind == "head" else Network(lm)
    torch.nn.init.ones_(model.layers[-1].weight if kind == "head" else model.scalar.head.weight)

    def values(experience):
        _, hidden = opinion(lm, experience, temperature=1.0, size=None, hidden=True)
        return all_values(model, experience, hidden, None)

    place = 3
    ids = batch.ids.clone()
    ids[:, batch.start + place] = (ids[:, batch.start + place] + 1) % 256
    before, after = values(batch), values(replace(batch, ids=ids))
    rows = batch.mask[:, place + 1]
    assert rows.any()
    assert torch.equal(before[rows, : place + 1], after[rows, : place + 1])
    assert (before[rows, place + 1] != after[rows, place + 1]).all()


def test_the_policy_moves_with_the_advantages(policy):
    lm = policy().lm
    lesson = lesson_of(lm)
    batch = lesson.experience
    logged = improve(lm, lesson, epochs=3, minibatches=2, early_stop_kl=None)
    with torch.no_grad():
        logprobs, _ = sequence_logprobs(lm.model, batch.ids, batch.attention, batch.start)
    moved = ((logprobs - batch.logprobs) * lesson.advantages)[batch.mask].mean()
    assert moved > 0.01
    assert logged["updates"] == 6
    assert logged["logprob_mismatch"] < 1e-5
    assert logged["ratio_max"] > 1


def test_every_token_of_a_batch_weighs_the_same(policy):
    """Whatever the minibatches: the gradients of all of them add up to the gradient of the whole."""
    gradients = []
    for minibatches in (1, 4):
        lm = policy().lm
        taken = []
        trainee = Trainee(lm.model, lr=1e-3, max_grad_norm=1e9)

        def collect(loss, trainee=trainee, taken=taken):
            taken.append({name: weight.grad.clone() for name, weight in trainee.weights.items()})
            trainee.optimizer.zero_grad()
            return 0.0

        trainee.step = collect
        config = Ppo.Config(epochs=1, minibatches=minibatches)
        improve_policy(lm, trainee, lesson_of(lm), config, seed=0, step=0, temperature=1.0, imitate=None)
        assert len(taken) == minibatches
        gradients.append({name: sum(grads[name] for grads in taken) / minibatches for name in taken[0]})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-3, atol=1e-6, msg=name)


def test_padding_reaches_no_gradient(policy):
    digests = []
    for garbage in (None, 1e6):
        lm = policy().lm
        lesson = lesson_of(lm)
        if garbage is not None:
            batch = lesson.experience
            dirty = replace(
                batch,
                ids=torch.where(batch.attention.bool(), batch.ids, 9),
                logprobs=torch.where(batch.mask, batch.logprobs, garbage),
            )
            advantages = torch.where(batch.mask, lesson.advantages, garbage)
            lesson = replace(lesson, experience=dirty, advantages=advantages)
        improve(lm, lesson, minibatches=2)
        digests.append(torch.cat([weight.flatten() for weight in trainable(lm.model).values()]))
    assert torch.equal(*digests)


def test_expert_answers_count_more(policy):
    """A demonstration of weight 3 has the gradient of three equal ones of weight 1."""
    gradients = []
    shown = [Shown(PROMPTS[0], "oia", 3.0), Shown(PROMPTS[1], "tst", 1.0)]
    for each in (shown, [Shown(PROMPTS[0], "oia", 1.0)] * 3 + shown[1:]):
        lm = policy().lm
        loss = imitation_gradient(lm, each, Ppo.Config(ptx=0.5, micro_batch=2))
        gradients.append((loss, {name: weight.grad for name, weight in trainable(lm.model).items()}))
    assert gradients[0][0] == pytest.approx(gradients[1][0], rel=1e-5)
    for name, gradient in gradients[0][1].items():
        torch.testing.assert_close(gradients[1][1][name], gradient, rtol=1e-3, atol=1e-6, msg=name)


@pytest.mark.parametrize(("loss", "gradient"), [(float("nan"), 1.0), (1.0, float("inf"))])
def test_an_update_that_is_not_finite_is_refused(loss, gradient):
    layer = torch.nn.Linear(1, 1, bias=False)
    before = layer.weight.item()
    trainee = Trainee(layer, lr=0.1, max_grad_norm=1.0)
    layer.weight.grad = torch.full((1, 1), gradient)
    with pytest.raises(NotFiniteError):
        trainee.step(loss)
    assert layer.weight.item() == before
    assert layer.weight.grad is None
    layer.weight.grad = torch.full((1, 1), 8.0)
    assert trainee.step(1.0) == 8.0, "the norm before clipping"
    assert layer.weight.item() == pytest.approx(before - 0.1, abs=1e-5)


def test_a_trainee_is_the_same_after_a_trip_to_the_disk(tmp_path):
    def fresh():
        torch.manual_seed(0)
        layer = torch.nn.Linear(3, 2)
        return layer, Trainee(layer, lr=0.1, max_grad_norm=1.0)

    def step(layer, trainee):
        layer(torch.ones(1, 3)).pow(2).sum().backward()
        trainee.step(1.0)

    layer, trainee = fresh()
    step(layer, trainee)
    trainee.save(tmp_path, "it")
    step(layer, trainee)
    other, again = fresh()
    again.load(tmp_path, "it")
    step(other, again)
    assert torch.equal(other.weight, layer.weight)
    with pytest.raises(ValueError, match="other weights"):
        Trainee(torch.nn.Linear(4, 2), lr=0.1, max_grad_norm=1.0).load(tmp_path, "it")
