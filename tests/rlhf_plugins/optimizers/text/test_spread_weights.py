"""Processes that each hold a part of the weights train like one that holds them all."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest
from optimizer_kit import Recorder
from spread_kit import (
    SETTINGS,
    adapted,
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
from rlhf_plugins.optimizers.text.launch import command
from rlhf_plugins.optimizers.text.settings import Fsdp

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="gloo and Unix sockets")

CHECKS = Path(__file__).parents[3] / "support" / "spread_weights.py"
KINDS = {
    "ppo": (Ppo, {"value_model": "network", "value_lr": 1e-3, "minibatches": 2, "value_epochs": 2}),
    "ppo, activations computed again": (Ppo, {"gradient_checkpointing": True}),
    "grpo, weights kept between passes": (Grpo, {
        "correction": 2.0, "kl": {"sync": {"alpha": 0.3}}, "watch": {"by": {"use": "principles"}, "answers": 5},
        "fsdp": {"reshard_after_forward": False},
    }),
    "online dpo, one pair at a time": (OnlineDpo, {"minibatches": 4, "micro_batch": 2}),
    "best of n, fewer rows than processes": (BestOfN, {"minibatches": 4, "micro_batch": 1}),
}  # fmt: skip


@pytest.mark.parametrize("kind", ["ppo", *(pytest.param(name, marks=pytest.mark.slow) for name in list(KINDS)[1:])])
def test_two_parts_learn_what_the_whole_learns(job, kind):
    optimizer, options = KINDS[kind]
    alone = trained(optimizer, job(), **{**options, "fsdp": None})
    assert_same(alone, trained(optimizer, job(), processes=2, **{"fsdp": {}, **options}))


@pytest.mark.slow
def test_policy_and_reference_on_one_spread_base(job, starter):
    found = [
        trained(Ppo, job(policy=adapted(starter), reference=adapted(starter)), **options)
        for options in ({}, {"processes": 2, "fsdp": {}})
    ]
    assert_same(*found)


@pytest.mark.slow
def test_spread_weights_compute_in_bfloat16_while_they_are_kept_in_float32(job, policy):
    options = ({}, {"processes": 2, "fsdp": {}})
    found = [
        trained(Ppo, job(policy=in_bfloat16(policy()), reference=in_bfloat16(policy())), **each) for each in options
    ]
    assert_alike_in_bfloat16(weights(policy()), *found)


@pytest.mark.slow
def test_killed_and_resumed_it_is_as_if_nothing_happened(job, tmp_path):
    assert_goes_on_to_the_bit(job, tmp_path, processes=2, fsdp={}, kl={"sync": {"alpha": 0.3}})


def launched(folder, *options):
    """What the checks of a spread model print, one process a line."""
    many = ["--num_processes", "2", "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    launcher = [sys.executable, "-m", "accelerate.commands.launch", *options, *many, "--main_process_port", "0"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*launcher, str(CHECKS), str(folder)], capture_output=True, text=True, env=environment, check=False
    )


def test_what_spread_weights_are(policy, tmp_path):
    """Parts, sums of gradients, clipping, sampling alone, saving and resuming; asserted inside the processes."""
    policy().lm.save(tmp_path)
    asked = command(Ppo.Config(processes=2, fsdp={}), tmp_path)
    options = asked[asked.index("--use_fsdp") : asked.index("--num_processes")]
    done = launched(tmp_path, *options)
    assert sorted(done.stdout.split("\n")) == ["", "process 0 agrees", "process 1 agrees"], done.stderr[-3000:]


def fsdp_file(folder, version, more=""):
    """What `accelerate config` writes."""
    file = folder / "accelerate.yaml"
    file.write_text(
        "compute_environment: LOCAL_MACHINE\ndistributed_type: FSDP\nmixed_precision: 'no'\nnum_machines: 1\n"
        "num_processes: 2\nmachine_rank: 0\nmain_training_function: main\nuse_cpu: false\n"
        f"fsdp_config:\n  fsdp_version: {version}\n  fsdp_auto_wrap_policy: TRANSFORMER_BASED_WRAP\n"
        f"  fsdp_transformer_layer_cls_to_wrap: Nonsense\n  fsdp_cpu_ram_efficient_loading: true\n{more}"
    )
    return file


def test_the_settings_of_accelerate_s_own_file_arrive(job, tmp_path):
    optimizer = Ppo(run=Recorder(), accelerate=fsdp_file(tmp_path, version=2), **SETTINGS)
    with pytest.raises(TrainingError, match="Could not find the transformer layer class Nonsense"):
        optimizer.optimize(job())


def test_a_file_that_is_none_of_accelerate_s(job, tmp_path):
    file = tmp_path / "accelerate.yaml"
    for text in ("a: [", "- one"):
        file.write_text(text)
        with pytest.raises(TrainingError, match="no configuration of accelerate"):
            Ppo(accelerate=file, **SETTINGS).optimize(job())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("version", "more", "said"),
    [(1, "", "version 1 of FSDP"), (2, "  fsdp_offload_params: true\n", "or to offload weights")],
)
def test_what_is_not_done_here_is_refused(job, tmp_path, version, more, said):
    optimizer = Ppo(run=Recorder(), accelerate=fsdp_file(tmp_path, version, more), **SETTINGS)
    with pytest.raises(TrainingError, match=said):
        optimizer.optimize(job())


@pytest.mark.slow
def test_adapters_of_a_value_model_are_refused(job):
    optimizer = Ppo(run=Recorder(), value_model="adapters", processes=2, fsdp={}, **SETTINGS)
    with pytest.raises(TrainingError, match="cannot be spread by itself"):
        optimizer.optimize(job())


def test_our_words_are_accelerate_s():
    from accelerate.utils import FullyShardedDataParallelPlugin

    known = {field.name for field in dataclasses.fields(FullyShardedDataParallelPlugin)}
    assert Fsdp.model_fields.keys() <= known
    with pytest.raises(ValueError, match="reshard_after_foward"):
        Ppo(processes=2, fsdp={"reshard_after_foward": False})


def test_one_process_has_nobody_to_share_with():
    with pytest.raises(ValueError, match="set processes, too"):
        Ppo(fsdp={})
