"""Several processes train like one."""

import math
import sys

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
from rlhf_plugins.policies.causal_lm import CausalLm

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="gloo and Unix sockets")

SETTINGS = {"steps": 2, "batch": 5, "answers": 3, "lr": 1e-3, "checkpoint_every": 1, "micro_batch": 4}
VOWELS = {"use": "rule", "rules": [{"name": "vowels", "pattern": "[aeiou]", "count": True}]}
"""What the reward likes, so that the best look is not the one before the first step."""
KINDS = {
    "ppo": (Ppo, {"minibatches": 2, "epochs": 2, "value_epochs": 2}),
    "grpo": (Grpo, {"correction": 2.0, "kl": {"sync": {"alpha": 0.3}}}),
    "online dpo": (OnlineDpo, {"minibatches": 2, "watch": {"by": VOWELS, "answers": 32, "every": 1}}),
    "best of n": (BestOfN, {}),
}


def weights(policy):
    return torch.cat([weight.detach().flatten() for weight in policy.lm.model.state_dict().values()])


def accelerate_file(folder):
    """What `accelerate config` writes for two GPUs; where there are none, the processes meet over gloo."""
    file = folder / "accelerate.yaml"
    file.write_text(
        "compute_environment: LOCAL_MACHINE\ndistributed_type: MULTI_GPU\nmixed_precision: 'no'\nnum_machines: 1\n"
        "num_processes: 2\nmachine_rank: 0\nmain_training_function: main\nuse_cpu: false\n"
    )
    return file


@pytest.mark.parametrize("kind", ["ppo", *(pytest.param(name, marks=pytest.mark.slow) for name in list(KINDS)[1:])])
def test_two_processes_do_what_one_does(job, kind, tmp_path):
    optimizer, more = KINDS[kind]
    found = []
    for processes in (1, 2):
        made, run = job(), Recorder(seed=3, folder=tmp_path / str(processes))
        start = weights(made.policy)
        metrics = optimizer(run=run, processes=processes, **SETTINGS, **more).optimize(made)
        found.append((weights(made.policy), run.rows, metrics))
        assert (found[-1][0] - start).abs().max() > 1e-4
    (one, rows, metrics), (two, other_rows, other_metrics) = found
    torch.testing.assert_close(two, one, rtol=0, atol=2e-5)
    assert metrics.keys() == other_metrics.keys()
    assert other_metrics["reward"].value == pytest.approx(metrics["reward"].value)
    for row, other in zip(rows, other_rows, strict=True):
        assert row.keys() == other.keys()
        # Before the first update all margins are 0, and which of them rounding makes positive is chance.
        for name in row.keys() - {"seconds", "tokens_per_second", "logprob_mismatch", "pair_accuracy"}:
            assert other[name] == pytest.approx(row[name], rel=1e-3, abs=1e-4), name


def test_a_worker_s_error_arrives_and_nothing_changes(job, tmp_path):
    class Breaks(ShareOfVowels):
        def score(self, prompts, samples):
            return Scores(mean=[math.nan] * len(samples))

    broken = job(reward=Breaks())
    before = weights_digest(broken.policy.lm)
    optimizer = Ppo(run=Recorder(), accelerate=accelerate_file(tmp_path), **SETTINGS)
    with pytest.raises(TrainingError, match="before the first step: 12 of 12 rewards are not finite"):
        optimizer.optimize(broken)
    assert weights_digest(broken.policy.lm) == before


@pytest.mark.slow
def test_killed_and_resumed_it_is_as_if_nothing_happened(job, tmp_path):
    options = {**SETTINGS, "steps": 3, "processes": 2}
    whole, whole_run = job(keep=tmp_path), Recorder()
    metrics = Ppo(run=whole_run, **options).optimize(whole)
    assert (tmp_path / "value_model.safetensors").is_file(), "the value model stays for the next round"
    killed = Recorder(folder=tmp_path / "checkpoints", stop_at=3)
    with pytest.raises(KeyboardInterrupt):
        Ppo(run=killed, **options).optimize(job())
    run, made = Recorder(folder=tmp_path / "checkpoints"), job()
    assert Ppo(run=run, **options).optimize(made) == metrics
    assert [row["step"] for row in run.rows] == [2]
    assert weights_digest(made.policy.lm) == weights_digest(whole.policy.lm)


def test_a_policy_that_no_other_process_could_import(job, policy):
    class Local(CausalLm):
        pass

    made = Local(max_prompt_tokens=24, max_new_tokens=8)
    made.lm = policy().lm
    with pytest.raises(TrainingError, match=r"cannot import .*Local"):
        Ppo(processes=2, **SETTINGS).optimize(job(policy=made))


def test_a_prompt_for_each_process():
    with pytest.raises(ValueError, match="8 processes and 4 prompts at a time"):
        Ppo(batch=4, processes=8)
    with pytest.raises(ValueError, match="4 processes and 2 prompts at a time"):
        Ppo(batch=4, processes=4, watch={"answers": 2})


def test_a_changed_configuration_of_accelerate_is_a_new_result(tmp_path):
    file = accelerate_file(tmp_path)
    assert Ppo.reads(Ppo.Config(accelerate=file)) == (file,)
    assert Ppo.reads(Ppo.Config()) == ()
