import torch

from rlhf_core.rl.rewards import penalise_unfinished, standardise, token_rewards

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
