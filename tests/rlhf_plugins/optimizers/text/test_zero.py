"""Processes in the hands of DeepSpeed train like one that holds all weights."""

import importlib.util
import json
import shutil
import sys

import pytest
import torch
import yaml
from optimizer_kit import Recorder
from spread_kit import SETTINGS, adapted, assert_alike_in_bfloat16, assert_same, in_bfloat16, trained, weights

from rlhf_core.errors import TrainingError
from rlhf_core.lm.model import weights_digest
from rlhf_plugins.optimizers.best_of_n import BestOfN
from rlhf_plugins.optimizers.grpo import Grpo
from rlhf_plugins.optimizers.online_dpo import OnlineDpo
from rlhf_plugins.optimizers.ppo import Ppo
from rlhf_plugins.optimizers.text import launch
from rlhf_plugins.zero import settings

installed = pytest.mark.skipif(
    importlib.util.find_spec("deepspeed") is None or shutil.which("c++") is None or sys.platform == "win32",
    reason="needs DeepSpeed (`make test-deepspeed`), and on a CPU a C++ compiler for an operation that it builds",
)

VALUES = {"value_model": "network", "value_lr": 1e-3, "minibatches": 2, "value_epochs": 2}
KINDS = {
    "ppo, weights": (3, Ppo, VALUES),
    "ppo, gradients": (2, Ppo, VALUES),
    "ppo, moments, stopped early": (1, Ppo, {"minibatches": 2, "epochs": 3, "early_stop_kl": 1e-4}),
    "ppo, activations computed again": (3, Ppo, {"gradient_checkpointing": True}),
    "grpo, a reference that moves": (2, Grpo, {
        "correction": 2.0, "kl": {"sync": {"alpha": 0.3}}, "watch": {"by": {"use": "principles"}, "answers": 5},
    }),
    "online dpo, one pair at a time": (3, OnlineDpo, {"minibatches": 4, "micro_batch": 2}),
    "best of n, fewer rows than processes": (2, BestOfN, {"minibatches": 4, "micro_batch": 1}),
}  # fmt: skip


def asked(folder, stage, **more):
    """What `accelerate config` writes."""
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


@installed
@pytest.mark.parametrize(
    "kind", [next(iter(KINDS)), *(pytest.param(k, marks=pytest.mark.slow) for k in list(KINDS)[1:])]
)
def test_two_processes_learn_what_one_learns(job, kind, tmp_path):
    stage, optimizer, options = KINDS[kind]
    alone = trained(optimizer, job(), **options)
    assert_same(alone, trained(optimizer, job(), accelerate=asked(tmp_path, stage), **options))
    if "stopped" in kind:
        assert any(row["early_stop"] for row in alone[1]), "some step must drop gradients"


@installed
@pytest.mark.parametrize("stage", [2, 3])
def test_killed_and_resumed_it_is_as_if_nothing_happened(job, tmp_path, stage):
    options = {**SETTINGS, **VALUES, "steps": 3, "accelerate": asked(tmp_path, stage), "lr": 3e-3}
    options |= {"watch": {"by": {"use": "principles"}, "every": 1, "answers": 4, "patience": 5}}
    whole = job(keep=tmp_path)
    metrics = Ppo(run=Recorder(), **options).optimize(whole)
    assert (tmp_path / "value_model.safetensors").is_file(), "the value model stays for the next round, whole"
    with pytest.raises(KeyboardInterrupt):
        Ppo(run=Recorder(folder=tmp_path / "checkpoints", stop_at=3), **options).optimize(job())
    run, made = Recorder(folder=tmp_path / "checkpoints"), job()
    assert Ppo(run=run, **options).optimize(made) == metrics
    assert run.rows[0]["step"] == 2
    assert weights_digest(made.policy.lm) == weights_digest(whole.policy.lm)


@installed
@pytest.mark.parametrize("stage", [2, 3])
def test_policy_and_reference_on_one_spread_base(job, starter, tmp_path, stage):
    found = [
        trained(Ppo, job(policy=adapted(starter), reference=adapted(starter)), **options)
        for options in ({}, {"accelerate": asked(tmp_path, stage)})
    ]
    assert_same(*found)


@installed
@pytest.mark.parametrize("stage", [2, 3])
def test_weights_compute_in_bfloat16_while_they_are_kept_in_float32(job, policy, tmp_path, stage):
    options = ({}, {"accelerate": asked(tmp_path, stage)})
    found = [
        trained(Ppo, job(policy=in_bfloat16(policy()), reference=in_bfloat16(policy())), **each) for each in options
    ]
    assert_alike_in_bfloat16(weights(policy()), *found)


@installed
def test_a_file_of_deepspeed_s_own(job, tmp_path):
    own = tmp_path / "zero.json"
    automatic = dict.fromkeys(("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_clipping"), "auto")
    own.write_text(json.dumps({"zero_optimization": {"stage": 2, "reduce_bucket_size": "auto"}, **automatic}))
    file = asked(tmp_path, 2)
    settings = yaml.safe_load(file.read_text())
    settings["deepspeed_config"] = {"deepspeed_config_file": str(own), "zero3_init_flag": False}
    file.write_text(yaml.safe_dump(settings))
    with pytest.raises(TrainingError, match=r"config variables will be ignored: .*mixed_precision"):
        Ppo(run=Recorder(), accelerate=file, **SETTINGS).optimize(job())
    del settings["mixed_precision"]
    file.write_text(yaml.safe_dump(settings))
    assert_same(trained(Ppo, job()), trained(Ppo, job(), accelerate=file))


@installed
def test_moments_and_weights_in_the_processor_s_memory(job, tmp_path):
    file = asked(tmp_path, 3, offload_optimizer_device="cpu", offload_param_device="cpu")
    assert_same(trained(Ppo, job()), trained(Ppo, job(), accelerate=file))


@installed
@pytest.mark.parametrize(
    ("options", "more", "said"),
    [
        ({}, {"zero_stage": 0}, "stage 0 spreads nothing"),
        ({"value_model": "adapters"}, {}, "cannot be spread by itself"),
        ({"kl": {"sync": {"alpha": 0.3}}}, {"zero_stage": 3}, "small moves would be lost"),
    ],
)
def test_what_is_not_done_here_is_refused(job, policy, tmp_path, options, more, said):
    optimizer = Ppo(run=Recorder(), accelerate=asked(tmp_path, 2, **more), **SETTINGS, **options)
    with pytest.raises(TrainingError, match=said):
        optimizer.optimize(job(policy=in_bfloat16(policy()), reference=in_bfloat16(policy())))


def test_the_pipeline_s_words_go_before_deepspeed_s():
    asked = {
        "train_batch_size": "auto",
        "gradient_clipping": 7.0,
        "fp16": {"enabled": "auto"},
        "zero_optimization": {"stage": 2, "reduce_bucket_size": "auto", "overlap_comm": True},
        "wall_clock_breakdown": True,
    }
    found = settings(asked, torch.bfloat16, 0.5)
    assert found["zero_optimization"] == {"stage": 2, "overlap_comm": True}
    assert found["gradient_clipping"] == 0.5
    assert found["bf16"] == {"enabled": True}
    assert found["wall_clock_breakdown"] is True
    assert not {"train_batch_size", "fp16"} & found.keys()
    assert "bf16" not in settings({**asked, "bf16": {"enabled": True}}, torch.float32)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({}, "stage 0"),
        ({"zero_optimization": {"stage": 0}}, "stage 0"),
        ({"zero_optimization": {"stage": 2}, "optimizer": {"type": "Lamb"}, "scheduler": {}}, "an optimizer and a sch"),
        ({"zero_optimization": {"stage": 2}, "fp16": {"enabled": True}}, "float16"),
    ],
)
def test_settings_that_are_refused(asked, said):
    with pytest.raises(TrainingError, match=said):
        settings(asked, torch.float32)


def test_one_way_to_spread_weights(job, tmp_path):
    with pytest.raises(TrainingError, match="Drop one of the two"):
        Ppo(accelerate=asked(tmp_path, 2), fsdp={}, **SETTINGS).optimize(job())


def test_without_deepspeed_the_error_says_what_to_do(job, tmp_path, monkeypatch):
    monkeypatch.setattr(launch.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(TrainingError, match=r"rlhf-pipeline\[deepspeed\]"):
        Ppo(accelerate=asked(tmp_path, 2), **SETTINGS).optimize(job())


def test_changed_settings_of_deepspeed_are_a_new_result(tmp_path):
    own = tmp_path / "zero.json"
    file = asked(tmp_path, 2, deepspeed_config_file=str(own))
    assert Ppo.reads(Ppo.Config(accelerate=file)) == (file,)
    own.write_text('{"zero_optimization": {"stage": 2}}')
    assert Ppo.reads(Ppo.Config(accelerate=file)) == (file, own)
