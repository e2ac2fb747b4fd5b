from dataclasses import replace

import pytest
import torch
from optimizer_kit import PROMPTS

from rlhf_core.lm.logprobs import sequence_logprobs
from rlhf_plugins.optimizers.ppo import Ppo
from rlhf_plugins.optimizers.text.experience import answers
from rlhf_plugins.optimizers.text.gradient import Lesson, improve_policy
from rlhf_plugins.optimizers.text.imitation import Shown, imitation_gradient
from rlhf_plugins.trainee import Trainee, trainable


def lesson_of(lm, seed=0):
    """A batch with random advantages."""
    batch = answers(lm, PROMPTS, seeds=range(len(PROMPTS)), temperature=1.0)
    advantages = torch.randn(batch.mask.shape, generator=torch.Generator().manual_seed(seed)) * batch.mask
    return Lesson(batch, advantages)


def improve(lm, lesson, **config):
    trainee = Trainee(lm.model, lr=1e-3, max_grad_norm=1e9)
    return improve_policy(lm, trainee, lesson, Ppo.Config(**config), seed=0, step=0, temperature=1.0, imitate=None)


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
        trainee = Trainee(lm.model, lr=1e-3, max_grad_norm=1.0)
        loss = imitation_gradient(lm, trainee, each, Ppo.Config(ptx=0.5, micro_batch=2))
        gradients.append((loss, {name: weight.grad for name, weight in trainable(lm.model).items()}))
    assert gradients[0][0] == pytest.approx(gradients[1][0], rel=1e-5)
    for name, gradient in gradients[0][1].items():
        torch.testing.assert_close(gradients[1][1][name], gradient, rtol=1e-3, atol=1e-6, msg=name)
