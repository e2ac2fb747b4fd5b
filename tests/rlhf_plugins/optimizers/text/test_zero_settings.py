"""What is said to DeepSpeed, and what is refused before it is asked."""

import pytest
import torch
from spread_kit import SETTINGS, asked

from rlhf_core.errors import TrainingError
from rlhf_plugins.optimizers.ppo import Ppo
from rlhf_plugins.optimizers.text import launch
from rlhf_plugins.zero import settings


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
