import pytest
import torch
from optimizer_kit import LENGTH, Recorder
from spread_kit import adapted

from rlhf_core.errors import TrainingError
from rlhf_core.lm.model import weights_digest
from rlhf_core.lm.starter import Starter, make_starter
from rlhf_plugins.optimizers.ppo import Ppo
from rlhf_plugins.optimizers.rloo import Rloo

QUICK = {"steps": 3, "batch": 6, "answers": 2, "lr": 1e-2, "checkpoint_every": 1}


def weights(policy):
    return torch.cat([weight.detach().flatten() for weight in policy.lm.model.parameters()])


class Witness(Recorder):
    """Sees the policy after each step's update, before the reference moves."""

    def __init__(self, policy, **options):
        super().__init__(**options)
        self.policy, self.seen = policy, []

    def log(self, metrics, step):
        self.seen.append(weights(self.policy))
        super().log(metrics, step)


def test_it_is_the_moving_average_of_the_policy(job):
    made = job()
    run, expected = Witness(made.policy), weights(made.reference)
    Rloo(run=run, kl={"sync": {"every": 2, "alpha": 0.25}}, **{**QUICK, "steps": 5}).optimize(made)
    for number, policy in enumerate(run.seen, start=1):
        if number % 2 == 0:
            expected = 0.75 * expected + 0.25 * policy
    torch.testing.assert_close(weights(made.reference), expected)
    assert (run.seen[-1] - expected).abs().max() > 1e-3


def test_all_of_the_way_is_a_reset(job):
    made, fixed = job(), job()
    run, other = Recorder(), Recorder()
    Rloo(run=run, kl={"sync": {"alpha": 1.0}}, **QUICK).optimize(made)
    Rloo(run=other, **QUICK).optimize(fixed)
    assert weights_digest(made.reference.lm) == weights_digest(made.policy.lm)
    assert [row["kl"] for row in run.rows] == pytest.approx([0, 0, 0], abs=1e-4)
    assert other.rows[-1]["kl"] > 0.01
    assert weights_digest(fixed.reference.lm) == weights_digest(job().reference.lm), "without sync it stays"


def test_killed_and_resumed_the_reference_is_where_it_was(job, tmp_path):
    options = {**QUICK, "kl": {"coefficient": 0.2, "sync": {"alpha": 0.3}}}
    whole, made = job(), job()
    Ppo(run=Recorder(), **options).optimize(whole)
    with pytest.raises(KeyboardInterrupt):
        Ppo(run=Recorder(folder=tmp_path, stop_at=3), **options).optimize(job())
    Ppo(run=Recorder(folder=tmp_path), **options).optimize(made)
    assert weights_digest(made.policy.lm) == weights_digest(whole.policy.lm)
    assert weights_digest(made.reference.lm) == weights_digest(whole.reference.lm)


def test_adapters_follow_adapters_on_one_base(job, starter):
    run = Recorder()
    made = job(policy=adapted(starter), reference=adapted(starter))
    Rloo(run=run, kl={"sync": {"alpha": 1.0}}, **QUICK).optimize(made)
    named = dict(made.policy.lm.model.named_parameters())
    pairs = [
        (weight, named[name.replace(".default.", ".reference.")])
        for name, weight in named.items()
        if ".default." in name
    ]
    assert pairs
    assert all(torch.equal(own, reference) for own, reference in pairs)
    assert any(own.abs().max() > 1e-3 for own, _ in pairs)
    assert [row["kl"] for row in run.rows] == pytest.approx([0, 0, 0], abs=1e-4)


def test_another_model_cannot_follow(job, policy, tmp_path):
    shape = Starter(vocab_size=300, layers=1, width=48, heads=2)
    make_starter(["rain and sun"], shape=shape, max_prompt_tokens=24, max_new_tokens=LENGTH, seed=1).save(tmp_path)
    with pytest.raises(TrainingError, match="another model than the policy"):
        Rloo(kl={"sync": {}}, **QUICK).optimize(job(reference=policy(tmp_path)))
