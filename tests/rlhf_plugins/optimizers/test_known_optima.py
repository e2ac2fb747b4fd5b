"""Learning curves that end where they must: tasks whose optimum is known exactly."""

import pytest
import torch
from enumerable import PROMPT, ByText, distribution, expected, make_policy

from rlhf_core.plugins import OptimizeJob
from rlhf_core.run import Run
from rlhf_plugins.optimizers.best_of_n import BestOfN
from rlhf_plugins.optimizers.grpo import Grpo
from rlhf_plugins.optimizers.online_dpo import OnlineDpo
from rlhf_plugins.optimizers.ppo import Ppo
from rlhf_plugins.optimizers.reinforce import Reinforce
from rlhf_plugins.optimizers.rloo import Rloo

PLAIN = {"normalise_reward": False, "reward_clip": None, "missing_eos_penalty": 0.0}
FREE = {**PLAIN, "kl": {"coefficient": 0.0}}
OPTIMIZERS = {
    "ppo": (Ppo, {**FREE, "batch": 64, "minibatches": 2}),
    "reinforce": (Reinforce, {**FREE, "batch": 64}),
    "reinforce with a critic": (Reinforce, {**FREE, "batch": 64, "baseline": "value", "whiten": True}),
    "rloo": (Rloo, {**FREE, "batch": 16}),
    "grpo": (Grpo, {**FREE, "batch": 16, "steps": 200}),
    "dr_grpo": (Grpo, {**FREE, "batch": 16, "scale": "none", "normalise": "limit"}),
    "online_dpo": (OnlineDpo, {**PLAIN, "batch": 32, "kl": {"coefficient": 0.1}}),
    "best_of_n": (BestOfN, {**FREE, "batch": 8, "answers": 8, "steps": 150}),
}
ARMS = {"a": 0.2, "b": 1.0, "c": 0.7, "d": 0.9, "": 0.0}
WANTED = "cab"


def bandit(text):
    return ARMS[text]


def spelling(text):
    """A point for each letter in its place, if everything before it is right."""
    return float(next((i for i, (a, b) in enumerate(zip(text, WANTED, strict=False)) if a != b), min(len(text), 3)))


def optimised(optimizer, table, *, length, peaked=0.1, **options):
    policy, reference = (make_policy(length, peaked=peaked) for _ in range(2))
    job = OptimizeJob(policy=policy, reference=reference, reward=ByText(table), prompts=[PROMPT])
    optimizer(run=Run(0), **options).optimize(job)
    return reference.lm, policy.lm


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_bandit_is_solved(name):
    optimizer, options = OPTIMIZERS[name]
    before, after = optimised(optimizer, bandit, length=1, **{**options, "steps": 40, "lr": 3e-2})
    assert expected(before, bandit) < 0.8
    assert expected(after, bandit) > 0.98


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_word_is_spelt(name):
    """Three tokens, of which the second says nothing before the first is right."""
    optimizer, options = OPTIMIZERS[name]
    before, after = optimised(optimizer, spelling, length=3, **{"steps": 100, **options, "lr": 1e-2})
    assert expected(before, spelling) < 0.8
    assert expected(after, spelling) > 0.98 * len(WANTED)


BETA = 0.7
HELD = {**PLAIN, "kl": {"coefficient": BETA}, "minibatches": 4}
REGULARISED = {
    "ppo": (Ppo, {**HELD, "batch": 256, "lam": 1.0, "epochs": 1}),
    "rloo": (Rloo, {**HELD, "batch": 64}),
    "reinforce": (Reinforce, {**HELD, "batch": 256}),
    "online_dpo": (OnlineDpo, {**HELD, "batch": 128, "labels": "soft"}),
}


def optimum_of(reference, texts, rewards, beta):
    """pi*(y) ~ pi_ref(y) exp(r(y) / beta)."""
    weights = reference * torch.tensor([rewards[text] / beta for text in texts], dtype=torch.float64).exp()
    return weights / weights.sum()


def task(length, scale=1.0):
    """A random reward for each text, with all answers and their probabilities before training."""
    texts, reference = distribution(make_policy(length, peaked=0.3).lm)
    random = torch.Generator().manual_seed(1)
    rewards = {text: scale * float(torch.randn((), generator=random)) for text in dict.fromkeys(texts)}
    return texts, reference, rewards


slow = pytest.mark.slow


@pytest.mark.parametrize(
    "name", ["ppo", "rloo", pytest.param("reinforce", marks=slow), pytest.param("online_dpo", marks=slow)]
)
def test_the_kl_regularised_optimum_is_reached(name):
    """Over all 43 answers of at most two tokens."""
    optimizer, options = REGULARISED[name]
    texts, reference, rewards = task(length=2)
    optimum = optimum_of(reference, texts, rewards, BETA)
    options = {**options, "steps": 150, "lr": 1e-2}
    _, after = optimised(optimizer, rewards.__getitem__, length=2, peaked=0.3, **options)
    assert total_variation(reference, optimum) > 0.3, "the task must ask for something"
    assert total_variation(distribution(after)[1], optimum) < 0.02


@slow
def test_what_grpo_converges_to():
    """Its baseline holds the answer's own share, so that of k answers rewards count (k - 1) / k: the optimum of answers
    of one token is pi_ref exp(r (k - 1) / (k beta)), and not the one that the other optimizers have.
    """
    texts, reference, rewards = task(length=1, scale=2.0)
    options = {"batch": 64, "answers": 4, "scale": "none", "normalise": "limit", "divergence": "k2"}
    options |= {**HELD, "steps": 100, "lr": 1e-2}
    _, after = optimised(Grpo, rewards.__getitem__, length=1, peaked=0.3, **options)
    reached = distribution(after)[1]
    assert total_variation(reached, optimum_of(reference, texts, rewards, BETA * 4 / 3)) < 0.02
    assert total_variation(reached, optimum_of(reference, texts, rewards, BETA)) > 0.05


def total_variation(p, q):
    return 0.5 * float((p - q).abs().sum())
