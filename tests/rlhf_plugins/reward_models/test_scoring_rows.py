"""Answers to one prompt as one row: what is joined, and that nothing else changes."""

import pytest
import torch

from rlhf_core.feedback.dataset import FeedbackSet
from rlhf_core.plugins import FitJob
from rlhf_plugins.reward_models._bradley_terry import preference_loss
from rlhf_plugins.reward_models._scoring import Row, Valuer, joined
from rlhf_plugins.reward_models.pairwise import Pairwise


def test_shared_prompts_change_nothing(policy):
    model = Pairwise()
    model._start(FitJob(FeedbackSet(), FeedbackSet(), base=policy))
    torch.nn.init.normal_(model.scalar.head.weight, generator=torch.Generator().manual_seed(0))
    rows = [Row([5, 6, 7, 8], [[9, 10], [11, 12, 13, 14, 15], [9, 10]]), Row([5, 30], [[16]])]
    valuer = Valuer(model.scalar, 0, torch.float32)
    assert valuer.check(rows)
    packed = valuer.score(rows)
    valuer.packs = False
    assert packed == pytest.approx(valuer.score(rows), abs=1e-5)
    assert packed[0] == pytest.approx(packed[2], abs=1e-5)
    assert valuer.trims
    # One whose last MLP mixes positions is found out.
    mlp = model.scalar.backbone.layers[-1].mlp
    alone = mlp.forward
    mlp.forward = lambda x: alone(x) + x.mean(dim=1, keepdim=True)
    valuer.check(rows)
    assert not valuer.trims
    mlp.forward = alone
    # One that ignores the mask is found out.
    valuer.packs = True
    honest = model.scalar.backbone.forward
    model.scalar.backbone.forward = lambda attention_mask, **options: honest(**options)
    assert not valuer.check(rows)


def test_rows_of_one_prompt_are_joined():
    rows = [Row([1, 2], [[5], [6]]), Row([1, 2, 3], [[5]]), Row([1, 2], [[6], [7, 8]]), Row([1, 2], [[5], [7, 8]])]
    found, places = joined(rows, width=100)
    assert found == [Row([1, 2], [[5], [6], [7, 8]]), Row([1, 2, 3], [[5]])]
    assert places.tolist() == [0, 1, 3, 1, 2, 0, 2]
    many, where = joined([Row([1] * 9, [[i]]) for i in range(20)], width=100)
    assert [len(row.answers) for row in many] == [8, 8, 4]
    assert where.tolist() == list(range(20))
    assert joined([], width=100)[0] == []


def test_long_answers_to_a_short_prompt_are_not_joined():
    # Joined: 21 (24 + 21) = 945 instead of 11 (24 + 11) = 385, which is 560 more; alone: 385 more.
    rows = [Row([1], [[2] * 10, [3] * 10])]
    assert joined(rows, width=4)[0] == [Row([1], [[2] * 10]), Row([1], [[3] * 10])]
    # 21 (60 + 21) - 11 (60 + 11) = 920 against 781; with a prompt of 5 tokens 25 (60 + 25) - 15 (60 + 15) = 1000
    # against 1125.
    assert len(joined(rows, width=10)[0]) == 2
    assert len(joined([Row([1] * 5, rows[0].answers)], width=10)[0]) == 1


def test_joined_rows_teach_the_same(policy):
    """Values and gradients of all pairs of four answers, against a plain forward pass of every answer alone."""
    model = Pairwise()
    model._start(FitJob(FeedbackSet(), FeedbackSet(), base=policy))
    scalar = model.scalar.eval()
    torch.nn.init.normal_(scalar.head.weight, generator=torch.Generator().manual_seed(0))
    answers = [[9, 10, 2], [11, 12, 13, 14, 2], [30, 2], [31, 32, 33, 2]]
    rows = [Row([5, 6, 7, 8], [answers[i], answers[j]]) for i in range(4) for j in range(i)]

    def gradients(values):
        scalar.zero_grad()
        preference_loss(values[0::2] - values[1::2], torch.full((6,), 0.9), torch.ones(6)).backward()
        return torch.cat([p.grad.flatten() for p in scalar.parameters() if p.grad is not None])

    values = Valuer(scalar, 0, torch.float32).values(rows)
    plain = torch.cat(
        [
            scalar.last_token_values(torch.tensor([row.prompt + answer]), torch.ones(1, 4 + len(answer)).long())
            for row in rows
            for answer in row.answers
        ]
    )
    assert values.tolist() == pytest.approx(plain.tolist(), abs=1e-5)
    assert torch.allclose(gradients(values), gradients(plain), atol=1e-5)
