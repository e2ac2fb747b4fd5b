"""The pipeline for a 7B model, with every line of it as shipped but the models: tiny random Llamas saved here."""

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rlhf_core.lm.lora import ADAPTERS
from rlhf_core.lm.starter import Starter, make_starter

RLHF = str(Path(sys.executable).with_name("rlhf"))
PIPELINE = Path(__file__).parents[2] / "deployments" / "pipelines" / "llama2-7b.yaml"
TOPICS = ("soup", "trams", "chess", "rain", "bread", "tubas", "mills", "owls", "maps", "ink")


@pytest.fixture
def dialogues(tmp_path):
    """A folder with comparisons in the form of Anthropic HH, in the place where the pipeline looks for them."""
    rows = []
    for i in range(160):
        asked = f"\n\nHuman: Tell me about {TOPICS[i % 10]} number {i}.\n\nAssistant:"
        rows.append({"chosen": f"{asked} They are fine.", "rejected": f"{asked} NO! " + "Never. " * (i % 3 + 1)})
    file = tmp_path / "hh-rlhf" / "helpful-base.test.jsonl.gz"
    file.parent.mkdir()
    with gzip.open(file, "wt", encoding="utf-8") as out:
        out.writelines(json.dumps(row) + "\n" for row in rows)
    return tmp_path


@pytest.fixture
def tiny(tmp_path):
    folder = tmp_path / "tiny"
    shape = Starter(vocab_size=300, layers=1, width=192, heads=2)
    make_starter(
        ["Human: soup? Assistant: fine."], shape=shape, max_prompt_tokens=512, max_new_tokens=128, seed=0
    ).save(folder)
    return folder


ON_24_GB = {
    "policy.quantise": "4bit", "policy.batch_size": 32, "warm_start.micro_batch_size": 1, "optimize.micro_batch": 2,
    "optimize.gradient_checkpointing": "true", "reward.model": "policy", "reward.adapters": "true",
    "optimize.value_model": "adapters", "optimize.value_lr": 1e-5,
}  # fmt: skip


def test_the_header_says_what_is_tried_here():
    header = PIPELINE.read_text(encoding="utf-8").partition("pipeline:")[0]
    said = dict(part.split("=") for part in header.split() if "=" in part and "schema" not in part)
    del said["optimize.processes"], said["optimize.fsdp"]
    assert {name: str(value) for name, value in ON_24_GB.items()} == said | {"optimize.value_lr": "1e-05"}


@pytest.mark.slow
@pytest.mark.timeout(1000)  # a whole campaign by the command, on machines with other things to do
@pytest.mark.parametrize("memory", [80, 24])
def test_it_runs_on_tiny_models(dialogues, tiny, tmp_path, memory):
    if memory == 24:
        pytest.importorskip("bitsandbytes", reason="the extra `quantised` is not installed")
    sets = {
        "policy.model": tiny, "reward.model": tiny, "gold.model": tiny, "policy.max_new_tokens": 16,
        "optimize.steps": 2, "optimize.batch": 8, "optimize.micro_batch": 4, "test.prompts": 8,
    }  # fmt: skip
    if memory == 24:
        sets |= ON_24_GB
    command = [RLHF, "run", str(PIPELINE), "--json", "--workspace", str(tmp_path / "work")]
    command += [part for name, value in sets.items() for part in ("--set", f"{name}={value}")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "RLHF_TEST_DATA": str(dialogues)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=900)
    assert done.returncode == 0, done.stderr[-2000:]
    before, after = json.loads(done.stdout.strip().splitlines()[-1])["rounds"]
    assert after["policy"] != before["policy"]
    saved = list((tmp_path / "work" / "artifacts").rglob(f"policy/{ADAPTERS}/adapter_model.safetensors"))
    assert saved, "adapters alone are saved"
    assert not list((tmp_path / "work" / "artifacts").rglob("policy/model.safetensors"))
    assert not list((tmp_path / "work" / "artifacts").rglob(f"policy/{ADAPTERS}/reference"))
