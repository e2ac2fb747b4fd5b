"""The policy for control: one that acts as its network says, from exact starts, whatever else is asked."""

import gymnasium
import numpy as np
import pytest
import torch

from control_kit import CARTPOLE, MOUNTAIN, PENDULUM, policy, same, starts, weights
from rlhf_core import Prompt
from rlhf_core.errors import DataError, RlhfError, TrainingError
from rlhf_plugins.control.environments import Spaces, make, of_extra
from rlhf_plugins.control.network import Forward, perceptron
from rlhf_plugins.policies.gym_policy import GymPolicy


def test_keeps_the_contract(rlhf_conformance):
    rlhf_conformance(GymPolicy)


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_numpy_says_what_torch_says(activation):
    network = perceptron([5, 16, 8, 3], activation)
    rows = torch.randn(20, 5)
    ours = np.stack([Forward(network)(row) for row in rows.numpy()])
    np.testing.assert_allclose(ours, network(rows).detach().numpy(), atol=1e-6)


@pytest.mark.parametrize(("environment", "width"), [(CARTPOLE, 1), (PENDULUM, 1)])
def test_an_episode_happens_again_in_the_bare_environment(environment, width):
    prompt = starts(environment, 1)[0]
    [[sample]] = policy(environment).sample([prompt], 1, seed=5)
    env = gymnasium.make(environment)
    observation, _ = env.reset(seed=prompt.episode.seed)
    for row, action, reward in zip(
        sample.trajectory.observations,
        sample.trajectory.actions,
        sample.trajectory.environment_rewards,
        strict=True,
    ):
        assert tuple(observation.tolist()) == row and len(action) == width
        discrete = env.action_space.shape == ()
        observation, given, terminated, truncated, _ = env.step(
            int(action[0]) if discrete else np.array(action, dtype=np.float32)
        )
        assert given == reward
    assert terminated or truncated
    assert sample.finished == terminated


def test_actions_follow_the_softmax_of_the_logits():
    made = policy(MOUNTAIN, max_steps=1)
    with torch.no_grad():
        made.network[-1].weight.zero_()
        made.network[-1].bias.copy_(torch.tensor([0.0, 1.0, 2.0]))
    samples = made.sample(starts(MOUNTAIN, 1), 3000, seed=1)[0]
    found = np.bincount([int(s.trajectory.actions[0][0]) for s in samples]) / len(samples)
    np.testing.assert_allclose(found, torch.tensor([0.0, 1.0, 2.0]).softmax(0), atol=0.03)


def test_values_are_followed_but_for_epsilon():
    made = policy(MOUNTAIN, max_steps=1)
    made.epsilon = 0.3
    with torch.no_grad():
        made.network[-1].weight.zero_()
        made.network[-1].bias.copy_(torch.tensor([0.0, 5.0, 4.9]))
    samples = made.sample(starts(MOUNTAIN, 1), 3000, seed=1)[0]
    found = np.bincount([int(s.trajectory.actions[0][0]) for s in samples]) / len(samples)
    np.testing.assert_allclose(found, [0.1, 0.8, 0.1], atol=0.03)


def test_vectors_are_normal_and_stay_within_bounds():
    made = policy(PENDULUM, max_steps=1, initial_std=0.5)
    samples = made.sample(starts(PENDULUM, 1), 3000, seed=1)[0]
    actions = np.array([s.trajectory.actions[0][0] for s in samples])
    assert abs(actions.mean()) < 0.05 and abs(actions.std() - 0.5) < 0.03
    wide = policy(PENDULUM, max_steps=1, initial_std=50.0)
    actions = np.array([s[0].trajectory.actions[0][0] for s in wide.sample(starts(PENDULUM, 30), 1, seed=1)])
    assert np.abs(actions).max() == 2.0 and (np.abs(actions) == 2.0).mean() > 0.8


def test_the_time_limit_and_the_environment_end_episodes_differently():
    short = policy(max_steps=3).sample(starts(count=1), 1, seed=0)[0][0]
    assert len(short.trajectory.actions) == 3 and not short.finished
    assert all(s.finished for s in policy().sample(starts(count=1), 4, seed=0)[0])


@pytest.mark.parametrize("environment", [CARTPOLE, PENDULUM])
def test_saving_keeps_everything(environment, tmp_path):
    made = policy(environment)
    made.epsilon = 0.25
    made.save(tmp_path)
    loaded = GymPolicy(hidden=(16,))
    loaded.load(tmp_path)
    assert same(weights(made), weights(loaded)) and loaded.epsilon == 0.25 and loaded.spaces == made.spaces


def test_damaged_weights_are_noticed():
    made = policy()
    with torch.no_grad():
        made.network[0].weight.fill_(float("nan"))
    with pytest.raises(TrainingError, match="not finite"):
        made.sample(starts(), 1, 0)


def test_what_it_cannot_act_in_is_said():
    with pytest.raises(DataError, match=r"one environment, and the prompts name CartPole-v1, Pendulum-v1"):
        GymPolicy().prepare([*starts(), *starts(PENDULUM)], [])
    with pytest.raises(DataError, match="cannot act in Pendulum-v1"):
        policy().sample(starts(PENDULUM), 1, 0)
    with pytest.raises(DataError, match="not the start of an episode"):
        GymPolicy().prepare([Prompt(text="Write.")], [])
    with pytest.raises(DataError, match="NoSuchThing-v0"):
        GymPolicy().prepare(starts("NoSuchThing-v0"), [])
    with pytest.raises(DataError, match="no_such_package"):
        GymPolicy().prepare(starts("no_such_package:Thing-v0"), [])


def test_a_missing_extra_is_named():
    with pytest.raises(RlhfError, match="needs the package no_such_package") as error:
        of_extra("no_such_package")
    assert "rlhf-pipeline[control]" in error.value.remedy


def test_spaces():
    assert Spaces.of(CARTPOLE).model_dump(exclude={"low", "high", "environment"}) == {
        "observation": 4, "kind": "discrete", "actions": 2,
    }  # fmt: skip
    pendulum = Spaces.of(PENDULUM)
    assert (pendulum.kind, pendulum.observation, pendulum.actions, pendulum.high) == ("box", 3, 1, (2.0,))
    np.testing.assert_array_equal(
        Spaces.of(MOUNTAIN).encode(np.array([[2.0], [0.0]], dtype=np.float32)), [[0, 0, 1], [1, 0, 0]]
    )
    np.testing.assert_array_equal(pendulum.encode(np.array([[2.0], [-1.0]], dtype=np.float32)), [[1], [-0.5]])


def test_observations_that_are_no_vectors_are_flattened():
    gymnasium.register("Grid-v0", entry_point=Grid)
    try:
        assert make("Grid-v0").reset(seed=0)[0].tolist() == [0.0, 0.0, 1.0, 0.0]
        with pytest.raises(DataError, match="MultiBinary"):
            Spaces.of("Grid-v0")
    finally:
        del gymnasium.registry["Grid-v0"]


class Grid(gymnasium.Env):
    observation_space = gymnasium.spaces.Discrete(4)
    action_space = gymnasium.spaces.MultiBinary(2)

    def reset(self, *, seed=None, options=None):
        return 2, {}
