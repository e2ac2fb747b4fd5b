from dataclasses import replace

import pytest
import torch
from optimizer_kit import PROMPTS

from rlhf_plugins.optimizers.ppo import Ppo
from rlhf_plugins.optimizers.text.critic import ValueLesson, fit_values
from rlhf_plugins.optimizers.text.experience import answers
from rlhf_plugins.optimizers.text.grading import opinion
from rlhf_plugins.optimizers.text.values import HeadOnReference, Network, all_values
from rlhf_plugins.trainee import Trainee


def values_of(lm):
    """A batch with returns that the prompt's length decides."""
    batch = answers(lm, PROMPTS, seeds=range(len(PROMPTS)), temperature=1.0)
    _, hidden = opinion(lm, batch, temperature=1.0, size=None, hidden=True)
    lengths = batch.attention[:, : batch.start].sum(dim=1, keepdim=True).float()
    returns = ((lengths - lengths.mean()) / 3).expand(batch.mask.shape) * batch.mask
    return ValueLesson(batch, torch.zeros_like(returns), returns, hidden)


@pytest.mark.parametrize("kind", ["head", "network"])
def test_values_learn_the_returns(policy, kind):
    lm = policy().lm
    lesson = values_of(lm)
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
    batch = values_of(lm).experience
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
