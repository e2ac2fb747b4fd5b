import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf_core.rl.rewards import Moments, length_excess, penalise_unfinished, standardise, token_rewards

NAN = float("nan")


def test_the_score_lands_on_the_true_last_token():
    kl = torch.tensor([[1.0, 2.0, NAN, NAN], [1.0, 1.0, 1.0, 1.0], [3.0, NAN, NAN, NAN]])
    mask = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1], [1, 0, 0, 0]]).bool()
    rewards = token_rewards(torch.tensor([10.0, 20.0, 30.0]), kl, mask, coefficient=0.5)
    expected = [[-0.5, 9.0, 0.0, 0.0], [-0.5, -0.5, -0.5, 19.5], [28.5, 0.0, 0.0, 0.0]]
    assert rewards.tolist() == expected


def test_unfinished_answers_pay():
    finished = torch.tensor([True, False])
    assert penalise_unfinished(torch.tensor([1.0, -2.0]), finished, 1.5).tolist() == [1.0, -3.5]


def test_standardised_scores():
    scores = torch.tensor([1.0, 2.0, 3.0, 10.0])
    mean, std = float(scores.mean()), float(scores.std(correction=0))
    scaled = standardise(scores, mean, std)
    assert abs(float(scaled.mean())) < 1e-6
    assert abs(float(scaled.std(correction=0)) - 1) < 1e-6
    assert standardise(scores, 0.0, 1.0, clip=2.5).tolist() == [1.0, 2.0, 2.5, 2.5]


def test_overlong_answers_by_hand():
    lengths = torch.tensor([1, 6, 8, 10, 12])
    assert length_excess(lengths, limit=10, margin=4).tolist() == [0.0, 0.0, 0.5, 1.0, 1.0]
    assert length_excess(lengths, limit=10, margin=0).tolist() == [0.0] * 5


@settings(max_examples=60, deadline=None)
@given(
    batches=st.lists(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=5), min_size=1, max_size=6),
    shift=st.sampled_from([0.0, 1e6]),
)
def test_running_moments_are_those_of_everything_seen(batches, shift):
    moments = Moments()
    for batch in batches:
        moments = moments.after(torch.tensor(batch, dtype=torch.float64) + shift)
    seen = np.concatenate([np.array(batch) for batch in batches]) + shift
    assert moments.count == len(seen)
    assert moments.mean == pytest.approx(seen.mean(), rel=1e-9, abs=1e-7)
    assert moments.std == pytest.approx(seen.std(), rel=1e-4, abs=1e-3)
