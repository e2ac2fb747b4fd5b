"""What the tests of processes that spread weights compare."""

import pytest
import torch
import yaml
from optimizer_kit import LENGTH, Recorder

from rlhf_core.lm.model import weights_digest
from rlhf_plugins.optimizers.ppo import Ppo
from rlhf_plugins.policies.causal_lm import CausalLm
from rlhf_plugins.trainee import trainable

SETTINGS = {"steps": 2, "batch": 5, "answers": 3, "lr": 1e-3, "checkpoint_every": 1, "micro_batch": 4}


def weights(policy):
    return torch.cat([weight.detach().flatten() for weight in trainable(policy.lm.model).values()])


def trained(optimizer, job, **options):
    """Weights, what was logged, and metrics."""
    run = Recorder(seed=3)
    start = weights(job.policy)
    metrics = optimizer(run=run, **{**SETTINGS, **options}).optimize(job)
    after = weights(job.policy)
    assert "watch" in options or (after - start).abs().max() > 1e-4
    return after, run.rows, metrics


def assert_same(one, two):
    torch.testing.assert_close(two[0], one[0], rtol=0, atol=2e-5)
    assert two[2]["reward"].value == pytest.approx(one[2]["reward"].value)
    for row, other in zip(one[1], two[1], strict=True):
        assert row.keys() == other.keys()
        # Before the first update all margins of pairs are 0, and rounding says which are above.
        for name in row.keys() - {"seconds", "tokens_per_second", "logprob_mismatch", "pair_accuracy"}:
            assert other[name] == pytest.approx(row[name], rel=1e-3, abs=1e-4), name
        assert other.get("logprob_mismatch", 0.0) < 1e-5


def assert_goes_on_to_the_bit(job, folder, **options):
    """PPO with a value network and a watch, killed before its third step and resumed, ends as if nothing happened."""
    options = {**SETTINGS, "steps": 3, "value_model": "network", "lr": 3e-3, **options}
    options |= {"watch": {"by": {"use": "principles"}, "every": 1, "answers": 4, "patience": 5}}
    whole = job(keep=folder)
    metrics = Ppo(run=Recorder(), **options).optimize(whole)
    assert (folder / "value_model.safetensors").is_file(), "the value model stays for the next round, whole"
    with pytest.raises(KeyboardInterrupt):
        Ppo(run=Recorder(folder=folder / "checkpoints", stop_at=3), **options).optimize(job())
    run, made = Recorder(folder=folder / "checkpoints"), job()
    assert Ppo(run=run, **options).optimize(made) == metrics
    assert run.rows[0]["step"] == 2
    assert weights_digest(made.policy.lm) == weights_digest(whole.policy.lm)


def assert_alike_in_bfloat16(start, one, two):
    """Sampling and training speak of one distribution, and the policy goes where one process would take it."""
    for row, other in zip(one[1], two[1], strict=True):
        # As far apart as the two kinds of products in bfloat16 are in one process.
        assert other["logprob_mismatch"] < max(2 * row["logprob_mismatch"], 0.01)
        assert other["kl"] == pytest.approx(row["kl"], abs=0.05)
        assert other["reward"] == pytest.approx(row["reward"], abs=0.1)
    assert torch.nn.functional.cosine_similarity(one[0] - start, two[0] - start, dim=0) > 0.9


def adapted(starter):
    """A policy with adapters on a base that others may share."""
    policy = CausalLm(model=str(starter), max_prompt_tokens=24, max_new_tokens=LENGTH, dtype="float32", lora={"r": 2})
    policy.prepare([], [])
    return policy


def in_bfloat16(policy):
    """It, with its weights as they are."""
    policy.lm.compute_dtype = torch.bfloat16
    return policy


def asked(folder, stage, **more):
    """The file that `accelerate config` writes for two processes of DeepSpeed."""
    file = folder / "accelerate.yaml"
    file.write_text(
        yaml.safe_dump(
            {
                "compute_environment": "LOCAL_MACHINE",
                "distributed_type": "DEEPSPEED",
                "mixed_precision": "no",
                "num_machines": 1,
                "num_processes": 2,
                "machine_rank": 0,
                "main_process_port": 0,
                "main_training_function": "main",
                "use_cpu": False,
                "deepspeed_config": {
                    "gradient_accumulation_steps": 1,
                    "gradient_clipping": 1.0,
                    "offload_optimizer_device": "none",
                    "offload_param_device": "none",
                    "zero3_init_flag": stage == 3,
                    "zero_stage": stage,
                    **more,
                },
            }
        )
    )
    return file
