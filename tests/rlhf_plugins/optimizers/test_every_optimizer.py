"""What every optimizer of language models must do, whatever it learns by."""

import math

import pytest
import torch
from optimizer_kit import Recorder, ShareOfVowels

from rlhf_core.errors import TrainingError
from rlhf_core.lm.model import weights_digest
from rlhf_core.plugins import Scores
from rlhf_plugins.optimizers.best_of_n import BestOfN
from rlhf_plugins.optimizers.grpo import Grpo
from rlhf_plugins.optimizers.online_dpo import OnlineDpo
from rlhf_plugins.optimizers.ppo import Ppo
from rlhf_plugins.optimizers.reinforce import Reinforce
from rlhf_plugins.optimizers.rloo import Rloo

QUICK = {"steps": 4, "batch": 6, "answers": 3, "lr": 3e-3, "checkpoint_every": 2}
KINDS = {
    "ppo": (Ppo, {"minibatches": 2}),
    "reinforce": (Reinforce, {}),
    "reinforce with a critic": (Reinforce, {"baseline": "value", "whiten": True}),
    "rloo": (Rloo, {"normalise_reward": "running", "epochs": 2}),
    "grpo": (Grpo, {"kl": {"coefficient": 0.1, "target": 0.5}, "correction": 2.0}),
    "dapo": (Grpo, {"normalise": "token", "clip_high": 0.28, "overlong_margin": 3, "kl": {"coefficient": 0.0}}),
    "online dpo": (OnlineDpo, {"epochs": 2, "minibatches": 2, "micro_batch": 4}),
    "online ipo": (OnlineDpo, {"loss": "ipo", "labels": "soft", "length_penalty": 0.01}),
    "moving reference": (Reinforce, {"kl": {"coefficient": 0.1, "sync": {"every": 1, "alpha": 0.3}}}),
    "best of n": (BestOfN, {"epochs": 2, "micro_batch": 4}),
}
each_kind = pytest.mark.parametrize("kind", KINDS)


def train(kind, job, run=None, **options):
    optimizer, settings = KINDS[kind]
    run = run or Recorder()
    metrics = optimizer(run=run, **{**QUICK, **settings, **options}).optimize(job)
    return weights_digest(job.policy.lm), run.rows, metrics


@pytest.mark.parametrize("optimizer", [Ppo, Reinforce, Rloo, Grpo, OnlineDpo, BestOfN])
def test_keeps_the_contract(optimizer, policy, rlhf_conformance):
    rlhf_conformance(optimizer, policy=policy, steps=2, batch=4, answers=2, minibatches=1)


@each_kind
def test_the_reward_rises(job, kind):
    options = {"steps": 16, "batch": 12, "answers": 4, "lr": 1e-2, "kl": {"coefficient": 0.05}, "length_penalty": 0.0}
    _, rows, metrics = train(kind, job(), **options)
    late = sum(row["reward"] for row in rows[-3:]) / 3
    assert late > rows[0]["reward"] + 0.1
    assert rows[0]["kl"] == pytest.approx(0, abs=1e-4)
    assert rows[-1]["kl"] > 0.1
    assert metrics["reward"].value == pytest.approx(rows[-1]["reward"])
    assert all(math.isfinite(value) for row in rows for value in row.values())
    assert max(row["logprob_mismatch"] for row in rows) < 1e-5


@each_kind
def test_killed_and_resumed_it_is_as_if_nothing_happened(job, tmp_path, kind):
    whole, rows, metrics = train(kind, job())
    with pytest.raises(KeyboardInterrupt):
        train(kind, job(), Recorder(folder=tmp_path, stop_at=4))
    run = Recorder(folder=tmp_path)
    resumed, _, resumed_metrics = train(kind, job(), run)
    assert [row["step"] for row in run.rows] == [2, 3]
    assert resumed == whole
    assert resumed_metrics == metrics
    timeless = {"seconds", "tokens_per_second"}
    assert [{k: v for k, v in row.items() if k not in timeless} for row in run.rows] == [
        {k: v for k, v in row.items() if k not in timeless} for row in rows[2:]
    ]


@each_kind
def test_a_reward_that_is_not_finite_changes_nothing(job, kind):
    class Breaks(ShareOfVowels):
        calls = 0

        def score(self, prompts, samples):
            self.calls += 1
            mean = super().score(prompts, samples).mean
            return Scores(mean=[*mean[:-1], math.nan] if self.calls == 2 else mean)

    broken = job(reward=Breaks())
    before = weights_digest(broken.policy.lm)
    with pytest.raises(TrainingError, match="step 1 of 4: 1 of 18 rewards are not finite"):
        train(kind, broken)
    assert weights_digest(broken.policy.lm) == before


@each_kind
def test_training_ends_where_the_divergence_is_used_up(job, kind):
    run = Recorder()
    made = job()
    options = {"steps": 30, "lr": 1e-2, "kl": {"coefficient": 0.05, "budget": 0.3}}
    _, rows, metrics = train(kind, made, run, **options)
    assert len(rows) < 30
    assert metrics["kl"].value > 0.3
    assert all(row["kl"] <= 0.3 for row in rows[:-1])
    assert "updates" not in rows[-1], "nothing is learnt from the batch that showed it"
    assert "more than kl.budget 0.3" in run.notes[-1]


@each_kind
def test_equal_rewards_teach_nothing_that_hurts(job, kind):
    """All answers equally good: weights stay finite, and groups have nothing to say."""

    class Same(ShareOfVowels):
        def score(self, prompts, samples):
            return Scores(mean=[0.5] * len(samples))

    run = Recorder()
    made = job(reward=Same())
    train(kind, made, run, missing_eos_penalty=0.0, kl={"coefficient": 0.05}, length_penalty=0.0)
    assert all(weight.isfinite().all() for weight in made.policy.lm.model.state_dict().values())
    assert any("equal" in note for note in run.notes)
    if kind == "grpo":
        assert all(row["silent_groups"] == 1.0 for row in run.rows)
    if kind == "online dpo":
        assert all(row["pairs"] == row["updates"] == 0.0 for row in run.rows)


def test_answers_to_one_prompt_stand_together(job):
    seen = []

    class Watches(ShareOfVowels):
        def score(self, prompts, samples):
            seen.append([prompt.id for prompt in prompts])
            assert all(sample.prompt_id == prompt.id for prompt, sample in zip(prompts, samples, strict=True))
            return super().score(prompts, samples)

    train("rloo", job(reward=Watches()), steps=1)
    groups = [seen[1][i : i + 3] for i in range(0, 18, 3)]
    assert len(seen[1]) == 18
    assert all(len(set(group)) == 1 for group in groups)
    assert len({group[0] for group in groups}) == 6


def test_micro_batches_change_only_rounding(job):
    for kind in ("grpo", "online dpo", "best of n"):
        weights = []
        for size in (None, 4):
            made = job()
            train(kind, made, steps=1, micro_batch=size, lr=1e-4, minibatches=1, epochs=1)
            weights.append(torch.cat([weight.flatten() for weight in made.policy.lm.model.state_dict().values()]))
        torch.testing.assert_close(*weights, rtol=0, atol=2e-5)


def test_a_group_has_at_least_two(job):
    for optimizer in (Rloo, Grpo, OnlineDpo, BestOfN):
        with pytest.raises(ValueError, match="greater than or equal to 2"):
            optimizer(answers=1)


def test_minibatches_of_what_is_learnt_from(job):
    with pytest.raises(ValueError, match="some would be empty"):
        OnlineDpo(batch=4, answers=4, minibatches=8)
    Rloo(batch=4, answers=4, minibatches=8)


def test_online_dpo_needs_a_beta():
    with pytest.raises(ValueError, match="must be above 0"):
        OnlineDpo(kl={"coefficient": 0.0})


def test_an_optimizer_sees_answers_that_end_at_a_stop_string(job, policy):
    seen = []

    class Watches(ShareOfVowels):
        def score(self, prompts, samples):
            seen.extend(samples)
            return super().score(prompts, samples)

    stop = tuple("aeiou ")
    _, rows, _ = train("rloo", job(policy=policy(stop=stop), reference=policy(stop=stop), reward=Watches()), steps=1)
    assert not any(set(sample.text) & set(stop) for sample in seen)
    _, free, _ = train("rloo", job(), steps=1)
    assert rows[0]["answer_tokens"] < free[0]["answer_tokens"]
    assert rows[0]["eos_rate"] > free[0]["eos_rate"]
