import pytest
import torch

from rlhf_plugins.optimizers.rloo import Rloo
from rlhf_plugins.optimizers.text.experience import Experience
from rlhf_plugins.optimizers.text.grading import Graded, RewardScale, shaped

LENGTHS = torch.tensor([2, 5, 6, 8, 8])
MASK = torch.arange(8) < LENGTHS[:, None]
BATCH = Experience(
    ids=torch.zeros(5, 9).long(),
    attention=torch.cat([torch.ones(5, 1), MASK], dim=1).long(),
    start=1,
    mask=MASK,
    logprobs=torch.zeros(5, 8),
    finished=torch.tensor([True, True, True, True, False]),
)
REWARDS = [1.0, 3.0, 1.0, 1.0, 100.0]


@pytest.mark.parametrize(("options", "expected"), [
    ({"missing_eos_penalty": 0.5}, [0.0, 1.0, 0.0, 0.0, 9.5]),
    ({"missing_eos_penalty": 0.5, "reward_clip": None}, [0.0, 1.0, 0.0, 0.0, 49.0]),
    # The last four tokens cost an eighth each; a finished answer as long as the limit pays like a cut one.
    ({"missing_eos_penalty": 0.5, "overlong_margin": 4}, [0.0, 0.875, -0.25, -0.5, 9.5]),
    ({"missing_eos_penalty": 0.0, "length_penalty": 0.25}, [-0.5, -0.25, -1.5, -2.0, 8.0]),
])  # fmt: skip
def test_rewards_as_they_count(options, expected):
    scores = shaped(REWARDS, RewardScale(mean=1.0, std=2.0), BATCH, 8, Rloo.Config(**options))
    assert scores.tolist() == pytest.approx(expected)


def test_the_divergence_costs_its_coefficient():
    log_ratio = torch.where(MASK, 0.5, float("nan"))
    scores = torch.zeros(5)
    graded = Graded(BATCH, scores, torch.zeros(5, 8), log_ratio, None, coefficient=0.2, group=5)
    assert graded.penalised.tolist() == pytest.approx((-0.1 * LENGTHS).tolist())


def test_a_scale_that_follows():
    scale = RewardScale()
    for batch in ([1.0, 3.0], [5.0, 7.0, 9.0]):
        scale.follow(torch.tensor(batch))
    assert scale.mean == pytest.approx(5.0)
    assert scale.std == pytest.approx(8**0.5)
    flat = RewardScale()
    flat.follow(torch.tensor([2.0, 2.0]))
    assert (flat.mean, flat.std) == (2.0, 1.0), "equal rewards are shifted, not blown up"
