"""The path of real pretrained models: a Hugging Face folder is loaded, sampled, aligned, and loads again afterwards."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from stories260k import convert

DATA = Path(os.environ.get("RLHF_TEST_DATA", Path(__file__).parents[2].parent / "shared" / "data"))
STARTS = [
    f"{time} there was a {size} {who} who {did}"
    for time in ("Once upon a time", "One day", "Long ago")
    for size in ("little", "big", "small", "young")
    for who in ("girl", "boy", "dog", "cat", "bird", "bear")
    for did in ("liked", "had", "wanted", "saw")
]
CHEERFUL = {
    "name": "cheerful",
    "version": "1",
    "principles": [
        {
            "name": "cheerful",
            "text": {"en": "The story is a happy one."},
            "weight": 4.0,
            "checks": [{"check": "regex", "pattern": r"(?i)happy|play|fun|love|smile|friend"}],
        }
    ],
}
PIPELINE = {
    "pipeline": "stories",
    "seed": 5,
    "rounds": 1,
    "data": [{"use": "table", "path": "starts.jsonl", "columns": {"prompt": "start"}}],
    "policy": {"use": "causal_lm", "model": "stories260K", "max_prompt_tokens": 48, "max_new_tokens": 32},
    "ask": {
        "questions": 200,
        "samples": 2,
        "annotators": [{"use": "simulated_panel", "judge": {"use": "principles", "list": CHEERFUL}}],
    },
    "reward": {"use": "pairwise", "epochs": 3, "lr": 1e-3},
    "gold": {"use": "principles", "list": CHEERFUL},
    "optimize": {"use": "ppo", "steps": 20, "lr": 1e-3},
    "test": {"prompts": 30, "samples": 4},
    "evaluate": [{"use": "win_rate", "judge": "gold"}, {"use": "generation"}],
    "gate": {"use": "better", "guards": {"kl": {"max": 30}}},
}


@pytest.mark.real_data
@pytest.mark.skipif(not (DATA / "weights/stories260K").is_dir(), reason=f"no pretrained weights in {DATA}")
def test_a_pretrained_model_is_aligned(tmp_path):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    convert(DATA / "weights/stories260K", tmp_path / "stories260K")
    (tmp_path / "starts.jsonl").write_text("".join(json.dumps({"start": start}) + "\n" for start in STARTS))
    (tmp_path / "stories.yaml").write_text(json.dumps(PIPELINE))  # JSON is YAML
    done = subprocess.run(
        [Path(sys.executable).with_name("rlhf"), "run", "stories.yaml", "--json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    before, after = json.loads(done.stdout.splitlines()[-1])["rounds"]
    gain = after["metrics"]["gold_score"]
    assert gain["low"] > before["metrics"]["gold_score"]["high"], "happier beyond chance, by the rule nobody trained on"
    assert 0 < after["metrics"]["kl"]["value"] < 30
    assert after["promoted"]

    folder = tmp_path / ".rlhf/artifacts/policy" / after["policy"] / "policy"
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    prompt = tokenizer("Once upon a time", return_tensors="pt")
    with torch.no_grad():
        story = tokenizer.decode(model.generate(**prompt, max_new_tokens=24, do_sample=False)[0])
    assert "Once upon a time" in story
    assert len(story) > len("Once upon a time") + 20
