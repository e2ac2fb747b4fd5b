"""Small parts for tests of control."""

from rlhf_core import Episode, Prompt, Run, Sample
from rlhf_plugins.policies.gym_policy import GymPolicy

CARTPOLE, PENDULUM, MOUNTAIN = "CartPole-v1", "Pendulum-v1", "MountainCar-v0"


def starts(environment=CARTPOLE, count=8, first=0):
    return [Prompt(episode=Episode(environment=environment, seed=seed)) for seed in range(first, first + count)]


def policy(environment=CARTPOLE, seed=3, **config):
    made = GymPolicy(**{"hidden": (16,), **config}, run=Run(seed))
    made.prepare(starts(environment, 1), [])
    made.version = "p"
    return made


def weights(of):
    state = {name: value.clone() for name, value in of.network.state_dict().items()}
    return state if of.log_std is None else {**state, "log_std": of.log_std.clone()}


def same(one, other):
    return one.keys() == other.keys() and all((one[name] == other[name]).all() for name in one)


def sample_of(prompt, trajectory, **fields):
    return Sample(prompt_id=prompt.id, trajectory=trajectory, **fields)
