"""The optimizers for control: they follow the learnt reward and nothing else, and resume to the bit."""

import random
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from control_kit import CARTPOLE, MOUNTAIN, PENDULUM, policy, same, starts, weights
from rlhf_core import RewardModel, Run, Scores
from rlhf_core.errors import DataError, TrainingError
from rlhf_core.plugins import OptimizeJob
from rlhf_core.run import Checkpoints
from rlhf_plugins.optimizers.control.double_dqn import LabelledReplay, double_target
from rlhf_plugins.optimizers.control.learned_reward import StepReward, training_environment
from rlhf_plugins.optimizers.control.rewarded_rollouts import RewardedRollouts
from rlhf_plugins.optimizers.control_dqn import ControlDqn, epsilon_at, whole
from rlhf_plugins.optimizers.control_ppo import ControlPpo

PPO = {"steps": 12_000, "rollout": 64, "lr": 3e-3}
DQN = {"steps": 6_000, "gamma": 0.95, "learning_starts": 500}
BOTH = pytest.mark.parametrize(("optimizer", "options"), [(ControlPpo, PPO), (ControlDqn, DQN)], ids=["ppo", "dqn"])
TINY = pytest.mark.parametrize(
    ("optimizer", "options"),
    [
        (ControlPpo, {"steps": 768, "environments": 2, "rollout": 64, "batch": 64, "checkpoint_every": 256}),
        (ControlDqn, {"steps": 768, "train_every": 64, "updates": 8, "target_every": 64, "learning_starts": 100,
                      "checkpoint_every": 256}),
    ],
    ids=["ppo", "dqn"],
)  # fmt: skip


class PerStep(RewardModel):
    """So much a step."""

    def __init__(self, each=1.0):
        super().__init__()
        self.each, self.seen = each, []

    def score(self, prompts, samples):
        self.seen += samples
        return Scores([self.each * len(sample.trajectory.actions) for sample in samples])


class Upright(RewardModel):
    """Minus the first number of the action, squared."""

    def score(self, prompts, samples):
        return Scores([-sum((row[0] - 1.0) ** 2 for row in sample.trajectory.actions) for sample in samples])


def job(environment=CARTPOLE, reward=None, previous=None, keep=None, **config):
    made = policy(environment, **{"hidden": (32,), **config})
    return OptimizeJob(made, policy(environment), reward or PerStep(), starts(environment, 40), (), previous, keep)


def steps(made, environment=CARTPOLE):
    return np.mean([len(s[0].trajectory.actions) for s in made.sample(starts(environment, 20, 500), 1, seed=0)])


@pytest.mark.parametrize("optimizer", [ControlPpo, ControlDqn])
def test_keeps_the_contract(rlhf_conformance, optimizer):
    few = {"steps": 128} | ({"environments": 2, "rollout": 32} if optimizer is ControlPpo else {"learning_starts": 16})
    rlhf_conformance(optimizer, policy=lambda: policy(MOUNTAIN, max_steps=20), **few)


@BOTH
def test_what_the_reward_model_likes_is_done(optimizer, options):
    longer, shorter = job(reward=PerStep(0.3)), job(reward=PerStep(-0.3))
    before = steps(longer.policy)
    found = optimizer(**options).optimize(longer)
    optimizer(**{**options, "steps": 4000}).optimize(shorter)
    assert steps(longer.policy) > 2 * before
    # The environment would reward every step; the reward model says that they cost.
    assert steps(shorter.policy) < 12 < before
    assert found["learned_return"].value > 2 * found["learned_return_before"].value


def test_vectors_are_learnt_too():
    work = job(PENDULUM, Upright(), max_steps=30, initial_std=0.5)
    found = ControlPpo(steps=8000, rollout=64, batch=256, lr=3e-3, gamma=0.99, lam=0.95).optimize(work)
    actions = [row[0] for s in work.policy.sample(starts(PENDULUM, 4), 1, 0) for row in s[0].trajectory.actions]
    assert np.mean(actions) == pytest.approx(1.0, abs=0.25)
    assert found["learned_return"].value > found["learned_return_before"].value / 2
    assert work.policy.log_std.item() < np.log(0.5)
    with pytest.raises(DataError, match="those of Pendulum-v1 are vectors"):
        ControlDqn().optimize(job(PENDULUM))


@TINY
def test_killed_and_resumed_it_ends_in_the_same_weights(optimizer, options, tmp_path):
    class Killed(Run):
        def progress(self, done, total, note=""):
            if done > 600:
                raise KeyboardInterrupt

    (tmp_path / "kept").mkdir()
    (tmp_path / "again").mkdir()
    whole_one, killed, resumed = job(keep=tmp_path / "kept"), job(), job(keep=tmp_path / "again")
    found = optimizer(**options).optimize(whole_one)
    folder = tmp_path / "checkpoints"
    with pytest.raises(KeyboardInterrupt):
        optimizer(**options, run=Killed(0, Checkpoints(folder))).optimize(killed)
    assert Checkpoints(folder).latest()[0] == 512
    random.random(), np.random.rand(), torch.rand(1)  # the process's own generators play no part
    assert optimizer(**options, run=Run(0, Checkpoints(folder))).optimize(resumed) == found
    assert same(weights(whole_one.policy), weights(resumed.policy))
    [kept] = (tmp_path / "kept").iterdir()
    assert kept.read_bytes() == (tmp_path / "again" / kept.name).read_bytes()


@TINY
def test_the_processs_random_numbers_stay_as_they_were(optimizer, options):
    work = job()
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    optimizer(**options).optimize(work)
    assert (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == before


class Bribing(gymnasium.Wrapper):
    """Rewards what it should not, and says so."""

    def step(self, action):
        observation, _, terminated, truncated, _ = self.env.step(action)
        reward = 100.0 if action == 0 else -100.0
        return observation, reward, terminated, truncated, {"reward": reward}


@TINY
def test_the_environments_own_reward_never_reaches_training(optimizer, options):
    honest = gymnasium.spec(CARTPOLE)
    plain = job()
    optimizer(**options).optimize(plain)
    try:
        gymnasium.register(CARTPOLE, entry_point=lambda **o: Bribing(honest.make().unwrapped), max_episode_steps=500)
        bribed = job()
        assert {abs(r) for s in bribed.policy.sample(starts(count=1), 1, 0) for r in
                s[0].trajectory.environment_rewards} == {100.0}  # fmt: skip
        optimizer(**options).optimize(bribed)
    finally:
        gymnasium.registry[CARTPOLE] = honest
    assert same(weights(plain.policy), weights(bribed.policy))
    assert not any(sample.trajectory.environment_rewards for sample in bribed.reward.seen)


def test_training_begins_at_training_prompts_and_hides_rewards():
    seen = set()

    class Noting(gymnasium.Wrapper):
        def reset(self, *, seed=None, options=None):
            seen.add(seed)
            return self.env.reset(seed=seed, options=options)

    env = training_environment(CARTPOLE, starts(count=5, first=70), 30)()
    env.env = Noting(env.env)
    env.reset(seed=1)
    for _ in range(400):
        _, reward, terminated, truncated, info = env.step(0)
        assert reward == 0.0 and info == {}
        if terminated or truncated:
            env.reset()
    assert seen == set(range(70, 75))


def test_double_target_by_hand():
    rewards, dones = torch.tensor([[1.0], [2.0]]), torch.tensor([[0.0], [1.0]])
    online, target = torch.tensor([[3.0, 5.0], [1.0, 0.0]]), torch.tensor([[10.0, 7.0], [4.0, 4.0]])
    # The online network prefers action 1, which the target network values at 7 (its own maximum is 10).
    discounts = torch.tensor([[0.5], [0.5]])
    assert double_target(rewards, dones, online, target, discounts).tolist() == [[1 + 0.5 * 7], [2.0]]


def test_no_return_runs_on_into_the_next_chunk():
    memory = replay(First(), size=10, n_steps=3, gamma=0.5)
    fill(memory, [1, 2])
    memory.settle()
    fill(memory, [4, 8])
    memory.label()
    found = memory._get_samples(np.arange(4))
    assert found.rewards[:, 0].tolist() == [1 + 0.5 * 2, 2, 4 + 0.5 * 8, 8]
    assert found.dones[:, 0].tolist() == [0, 0, 0, 0]
    assert found.discounts[:, 0].tolist() == [0.25, 0.5, 0.25, 0.5]
    assert found.next_observations[:, 0].tolist() == [3, 3, 9, 9]


def test_epsilon_and_chunks():
    assert [epsilon_at(step, 1.0, 0.1, 100) for step in (0, 50, 100, 500)] == pytest.approx([1.0, 0.55, 0.1, 0.1])
    assert (whole(1000, 256, 128), whole(512, 256), whole(7, 4, 6)) == (1024, 512, 12)


def replay(reward, size=6, **options):
    env = gymnasium.make(CARTPOLE)
    labels = StepReward(reward, starts()[0])
    return LabelledReplay(size, env.observation_space, env.action_space, "cpu", 1, reward=labels, **options)


def fill(memory, numbers):
    for number in numbers:
        row = np.full((1, 4), float(number), dtype=np.float32)
        memory.add(row, row + 1, np.array([number % 2]), np.zeros(1), np.array([False]), [{}])


class First(RewardModel):
    """The first number seen, times a factor."""

    factor = 1.0

    def score(self, prompts, samples):
        return Scores([self.factor * sample.trajectory.observations[0][0] for sample in samples])


def test_a_new_reward_model_labels_the_old_steps_anew(tmp_path):
    memory = replay(First())
    fill(memory, range(8))  # the ring holds 2 ... 7
    memory.sample(1)
    assert sorted(memory.rewards[:, 0]) == [2, 3, 4, 5, 6, 7]
    memory.keep(tmp_path)
    assert load_file(tmp_path / "replay.safetensors")["rewards"][:, 0].tolist() == [2, 3, 4, 5, 6, 7]
    changed = First()
    changed.factor = -10.0
    later = replay(changed, size=4)
    assert later.take_over(tmp_path, labels=False)
    later.sample(1)
    assert later.rewards[:, 0].tolist() == [-40, -50, -60, -70]
    assert later.actions[:, 0, 0].tolist() == [0, 1, 0, 1]
    kept = replay(changed, size=20)
    kept.take_over(tmp_path, labels=True)
    assert kept.rewards[: kept.size(), 0].tolist() == [2, 3, 4, 5, 6, 7]
    fill(kept, [9])
    kept.sample(1)
    assert kept.rewards[: kept.size(), 0].tolist() == [2, 3, 4, 5, 6, 7, -90]
    assert not replay(First()).take_over(tmp_path / "nothing", labels=False)


def test_rounds_hand_on_what_they_kept(tmp_path):
    kept = [tmp_path / name for name in ("dqn", "ppo")]
    for folder in kept:
        folder.mkdir()
    tiny = {"steps": 300, "train_every": 64, "updates": 4, "learning_starts": 100}
    ControlDqn(**tiny).optimize(job(keep=kept[0]))
    assert len(load_file(kept[0] / "replay.safetensors")["rewards"]) >= 300
    again = job(reward=PerStep(-2.0), previous=kept[0], keep=tmp_path)
    ControlDqn(**tiny).optimize(again)
    rewards = load_file(tmp_path / "replay.safetensors")["rewards"]
    assert len(rewards) >= 600 and np.allclose(rewards, rewards[0]) and rewards[0] < 0
    ControlPpo(steps=256, environments=2, rollout=32).optimize(job(keep=kept[1]))
    values = load_file(kept[1] / "values.safetensors")
    assert {name.split(".")[0] for name in values} == {"mlp_extractor", "value_net"}
    notes = []
    run = Run()
    run.note = notes.append
    ControlPpo(steps=64, environments=2, rollout=32, run=run).optimize(job(previous=kept[1]))
    assert notes == []
    ControlPpo(steps=64, environments=2, rollout=32, run=run).optimize(job(previous=kept[0]))
    assert len(notes) == 1


def test_a_rollout_is_scored_before_its_advantages(monkeypatch):
    env = gymnasium.make(PENDULUM)
    reward = StepReward(Upright(), starts(PENDULUM)[0])
    rollout = RewardedRollouts(
        2, env.observation_space, env.action_space, "cpu", gae_lambda=1.0, gamma=0.5, n_envs=1, reward=reward
    )
    rollout.reset()
    for action, bootstrapped in ((9.0, 0.0), (0.0, 4.0)):
        rollout.add(
            np.zeros((1, 3)), np.array([[action]]), np.array([bootstrapped]), np.array([False]),
            torch.tensor([0.0]), torch.tensor([0.0]),
        )  # fmt: skip
    rollout.compute_returns_and_advantage(torch.tensor([8.0]), np.array([False]))
    # The action 9 was cut to 2: its reward is -(2 - 1)^2. The library's 4 for a cut episode stays.
    assert rollout.rewards[:, 0].tolist() == [-1.0, -1.0 + 4.0]
    assert rollout.returns[:, 0].tolist() == [-1.0 + 0.5 * (3.0 + 0.5 * 8.0), 3.0 + 0.5 * 8.0]


def test_the_scale_is_the_root_mean_square():
    reward = StepReward(PerStep(-4.0), starts()[0])
    reward.measure(policy(), starts(), 0)
    assert reward.scale == 4.0
    assert reward(np.zeros((2, 4), dtype=np.float32), np.zeros((2, 1), dtype=np.float32)).tolist() == [-1.0, -1.0]
    nothing = StepReward(PerStep(0.0), starts()[0])
    nothing.measure(policy(), starts(), 0)
    assert nothing.scale == 1.0


@TINY
def test_a_failure_leaves_the_policy_as_it_was(optimizer, options):
    class Breaks(PerStep):
        def score(self, prompts, samples):
            scores = super().score(prompts, samples)
            return Scores([float("inf")] * len(samples)) if len(self.seen) > 700 else scores

    work = job(reward=Breaks())
    before = weights(work.policy)
    with pytest.raises(TrainingError, match="not finite"):
        optimizer(**options).optimize(work)
    assert same(before, weights(work.policy))
    with pytest.raises(TrainingError, match="no training prompts"):
        optimizer(**options).optimize(OptimizeJob(policy(), policy(), PerStep(), []))


def test_curves_are_logged(tmp_path: Path):
    points = []
    run = Run()
    run.log = lambda metrics, step: points.append((step, metrics))
    ControlPpo(steps=512, environments=2, rollout=64, batch=64, run=run).optimize(job())
    assert [step for step, _ in points] == [128, 256, 384, 512]
    assert {"episode_steps", "loss", "approx_kl", "explained_variance"} <= set(points[-1][1])
