"""Processes in the hands of DeepSpeed train like one that holds all weights."""

import importlib.util
import json
import shutil
import sys

import pytest
import yaml
from optimizer_kit import Recorder
from spread_kit import (
    SETTINGS,
    adapted,
    asked,
    assert_alike_in_bfloat16,
    assert_goes_on_to_the_bit,
    assert_same,
    in_bfloat16,
    trained,
    weights,
)

from rlhf_core.errors import TrainingError
from rlhf_plugins.optimizers.best_of_n import BestOfN
from rlhf_plugins.optimizers.grpo import Grpo
from rlhf_plugins.optimizers.online_dpo import OnlineDpo
from rlhf_plugins.optimizers.ppo import Ppo

if importlib.util.find_spec("deepspeed") is None or shutil.which("c++") is None or sys.platform == "win32":
    pytest.skip(
        "needs DeepSpeed (`make test-deepspeed`), and on a CPU a C++ compiler for an operation that it builds",
        allow_module_level=True,
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


@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_learn_what_one_learns(job, kind, tmp_path):
    stage, optimizer, options = KINDS[kind]
    alone = trained(optimizer, job(), **options)
    assert_same(alone, trained(optimizer, job(), accelerate=asked(tmp_path, stage), **options))
    if "stopped" in kind:
        assert any(row["early_stop"] for row in alone[1]), "some step must drop gradients"


@pytest.mark.parametrize("stage", [2, 3])
def test_killed_and_resumed_it_is_as_if_nothing_happened(job, tmp_path, stage):
    assert_goes_on_to_the_bit(job, tmp_path, accelerate=asked(tmp_path, stage), **VALUES)


@pytest.mark.parametrize("stage", [2, 3])
def test_policy_and_reference_on_one_spread_base(job, starter, tmp_path, stage):
    found = [
        trained(Ppo, job(policy=adapted(starter), reference=adapted(starter)), **options)
        for options in ({}, {"accelerate": asked(tmp_path, stage)})
    ]
    assert_same(*found)


@pytest.mark.parametrize("stage", [2, 3])
def test_weights_compute_in_bfloat16_while_they_are_kept_in_float32(job, policy, tmp_path, stage):
    options = ({}, {"accelerate": asked(tmp_path, stage)})
    found = [
        trained(Ppo, job(policy=in_bfloat16(policy()), reference=in_bfloat16(policy())), **each) for each in options
    ]
    assert_alike_in_bfloat16(weights(policy()), *found)


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


def test_moments_and_weights_in_the_processor_s_memory(job, tmp_path):
    file = asked(tmp_path, 3, offload_optimizer_device="cpu", offload_param_device="cpu")
    assert_same(trained(Ppo, job()), trained(Ppo, job(), accelerate=file))


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
