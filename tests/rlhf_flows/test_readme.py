"""What the README tells people to type is true."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from transformers import AutoModelForCausalLM

from rlhf_core.lm.starter import Starter, make_starter
from rlhf_flows.cli import cli

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}
SMALL = [
    "rounds=1", "data.0.prompts=160", "data.0.demonstrations=160", "warm_start.epochs=1", "policy.max_new_tokens=16",
    "policy.starter.layers=1", "policy.starter.width=32", "policy.starter.heads=2", "ask.questions=40",
    "reward.epochs=1", "optimize.steps=2", "optimize.batch=16", "test.prompts=12",
]  # fmt: skip
"""The demo's pipeline in half a minute."""


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def commands(program: str) -> list[list[str]]:
    """The arguments of every line that calls `program`, comments left out."""
    lines = [shlex.split(line, comments=True) for block in blocks("sh") for line in block.splitlines()]
    return [words[1:] for words in lines if words and words[0] == program]


def test_every_make_target_exists() -> None:
    targets = {words[0] for words in commands("make")} | set(re.findall(r"`make ([\w-]+)`", README))
    assert targets >= {"demo", "test", "check"}
    for target in targets:
        done = subprocess.run(["make", "--dry-run", target], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_the_commands_work_in_their_order(tmp_path: Path) -> None:
    """Those of "Your own data" first, with everything small, then those that look at a finished run."""
    typed = commands(".venv/bin/rlhf")
    start = typed.index(["init", "mine"])
    making = typed[start : start + 4]
    looking = [words for words in typed if words[0] in ("compare", "lineage")]
    assert [words[0] for words in making] == ["init", "check", "run", "run"]
    assert [words[0] for words in looking] == ["compare", "lineage"]
    for words in making + looking:
        arguments = ["mine" if word == "newsroom" else word for word in words]
        if words[0] == "run":
            arguments += [part for setting in SMALL for part in ("--set", setting)]
        done = subprocess.run(
            [Path(sys.executable).with_name("rlhf"), *arguments],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            env=ONE_THREAD,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip()


def test_every_command_and_option_exists() -> None:
    """Also of those that wait for people, serve, or need a finished campaign."""
    for words in commands(".venv/bin/rlhf"):
        depth = next((i for i in (2, 1) if CliRunner().invoke(cli, [*words[:i], "--help"]).exit_code == 0), 0)
        assert depth, words
        described = CliRunner().invoke(cli, [*words[:depth], "--help"]).output
        for word in words[depth:]:
            if word.startswith("--"):
                assert word in described, words


@pytest.mark.parametrize("block", blocks("yaml"))
def test_its_pipeline_parts_fit(block: str, tmp_path: Path) -> None:
    """Each in the place of the demo's own."""
    pipeline = yaml.safe_load((ROOT / "deployments/pipelines/newsroom.yaml").read_text())
    for key, value in yaml.safe_load(block).items():
        pipeline[key] = {**pipeline[key], **value} if key == "ask" else value
    (tmp_path / "readme.yaml").write_text(yaml.safe_dump(pipeline))
    checked = CliRunner().invoke(cli, ["check", str(tmp_path / "readme.yaml")])
    assert checked.exit_code == 0, checked.stderr


def test_its_optimizer_works_without_the_loop(tmp_path: Path) -> None:
    """On a model that is no larger than it must be, in a process of its own."""
    script, _ = blocks("python")
    made = Starter(vocab_size=300, layers=1, width=32, heads=2)
    lm = make_starter(["rain and sun"] * 9, shape=made, max_prompt_tokens=128, max_new_tokens=48, seed=1)
    lm.save(tmp_path / "gpt2")
    (tmp_path / "prompts.txt").write_text("rain:\nsnow:\n")
    assert "steps=100" in script
    (tmp_path / "script.py").write_text(script.replace("steps=100", "steps=2, batch=4"))
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, check=False, env=ONE_THREAD
    )
    assert done.returncode == 0, done.stderr
    assert "'reward': Metric(value=-" in done.stdout
    saved = AutoModelForCausalLM.from_pretrained(tmp_path / "shorter")
    before = AutoModelForCausalLM.from_pretrained(tmp_path / "gpt2")
    assert any(not one.equal(two) for one, two in zip(saved.parameters(), before.parameters(), strict=True))


def test_its_plugin_keeps_the_contract(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rlhf_conformance) -> None:
    _, block = blocks("python")
    (tmp_path / "from_the_readme.py").write_text(block)
    monkeypatch.syspath_prepend(tmp_path)
    import from_the_readme

    rlhf_conformance(from_the_readme.Shouting)
