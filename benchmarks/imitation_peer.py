"""Preference comparisons of the package `imitation`, for `control.py` to compare with.

    python benchmarks/imitation_peer.py --seed 0 --comparisons 660 --flip 0.1 --steps 360000 --episodes 100

Run it with the Python of an environment of its own: the package needs an older Gymnasium than the rest (imitation 1.0.1
works with gymnasium 0.29, stable-baselines3 2.2 and numpy 1.26). The settings are those that the package publishes for
CartPole-v1 (named configuration `cartpole` of `train_preference_comparisons`: fragments of 100 steps, 5 iterations, a
tenth of the comparisons at the beginning, 3 epochs, PPO of Stable-Baselines3 with batches of 2048 steps, episodes of
variable length) with the number of comparisons, of steps and of wrong answers given. Its rater compares true returns
without noise, but for the wrong answers. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np
import stable_baselines3 as sb3
from imitation.algorithms import preference_comparisons as pc
from imitation.rewards import reward_nets
from imitation.util import networks
from imitation.util.util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy

ENVIRONMENTS, BATCH = 8, 2048


class Flipping(pc.SyntheticGatherer):
    """Answers by the true return, and turns a share of the answers round."""

    def __init__(self, flip: float, rng: np.random.Generator) -> None:
        super().__init__(temperature=0, rng=rng)
        self.flip = flip

    def __call__(self, fragment_pairs: list) -> np.ndarray:
        """1 where the first is better, 0.5 for a tie."""
        answers = super().__call__(fragment_pairs).astype(np.float32)
        return np.where(self.rng.random(len(answers)) < self.flip, 1 - answers, answers)


def main() -> None:
    """One run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--environment", default="CartPole-v1")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--comparisons", type=int, default=660)
    parser.add_argument("--flip", type=float, default=0.1)
    parser.add_argument("--steps", type=int, default=360_000)
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--fragment", type=int, default=100, help="steps of a fragment; published: 100")
    options = parser.parse_args()
    began, rng = time.perf_counter(), np.random.default_rng(options.seed)
    venv = make_vec_env(options.environment, rng=rng, n_envs=ENVIRONMENTS, parallel=False)
    reward = reward_nets.NormalizedRewardNet(
        reward_nets.BasicRewardNet(
            venv.observation_space, venv.action_space, normalize_input_layer=networks.RunningNorm
        ),
        networks.RunningNorm,
    )
    agent = sb3.PPO(
        "MlpPolicy", venv, n_steps=BATCH // ENVIRONMENTS, learning_rate=3e-4, batch_size=64, n_epochs=10,
        ent_coef=0.0, seed=options.seed, device="cpu",
    )  # fmt: skip
    trainer = pc.PreferenceComparisons(
        pc.AgentTrainer(agent, reward, venv, rng=rng, exploration_frac=0.0),
        reward,
        num_iterations=5,
        fragmenter=pc.RandomFragmenter(rng=rng, warning_threshold=0),
        preference_gatherer=Flipping(options.flip, rng),
        reward_trainer=pc.BasicRewardTrainer(
            pc.PreferenceModel(reward), loss=pc.CrossEntropyRewardLoss(), rng=rng, epochs=3
        ),
        fragment_length=options.fragment,
        transition_oversampling=1,
        initial_comparison_frac=0.1,
        allow_variable_horizon=True,
        query_schedule="hyperbolic",
    )
    trainer.train(total_timesteps=options.steps, total_comparisons=options.comparisons)
    seconds, cpu = time.perf_counter() - began, time.process_time()
    held_out = make_vec_env(
        options.environment, rng=np.random.default_rng(options.seed + 10**6), n_envs=1, parallel=False
    )
    mean, std = evaluate_policy(agent, held_out, n_eval_episodes=options.episodes, deterministic=False)
    found = {"true_return": float(mean), "std": float(std), "comparisons": options.comparisons}
    print(json.dumps({**found, "seconds": seconds, "cpu_seconds": cpu}))


if __name__ == "__main__":
    main()
