"""Artifacts that are damaged between two commands: found when they are used, named, made again, and nothing else."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

RLHF = str(Path(sys.executable).with_name("rlhf"))
SMALL = Path(__file__).with_name("small.yaml")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
FEWER = ("--set", "data.0.demonstrations=300")


def rlhf(command, workspace, *arguments):
    done = subprocess.run(
        [RLHF, command, str(SMALL), *FEWER, *arguments, "--workspace", str(workspace)],
        capture_output=True, text=True, env=ENVIRONMENT, check=False, timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done


def policies(workspace):
    command = [RLHF, "compare", "--json", "--workspace", str(workspace)]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, check=True, timeout=100)
    return [one["policy"] for one in json.loads(done.stdout.splitlines()[-1])["rounds"]]


def artifact(workspace, node):
    """The folder of what a node of a finished round gave."""
    (document,) = (workspace / "artifacts" / "rounds").glob(f"*-{int(node[0]):04}.json")
    return workspace / "artifacts" / json.loads(document.read_text())["stages"][node]["result"]["ref"]["uri"]


def flip(path):
    """Change one bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def named(done):
    """The kinds of the damaged artifacts that were named, each in a line of its own; no traceback with them."""
    assert "Traceback" not in done.stdout + done.stderr
    lines = [line for line in done.stdout.splitlines() if "is damaged" in line]
    assert all("The stage that made it is computed again." in line for line in lines)
    return sorted(line.partition("the artifact ")[2].partition("/")[0] for line in lines)


def made_again(done):
    return {line.split()[1] for line in done.stdout.splitlines() if "is computed again: its result is gone" in line}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The workspace of a campaign of one round, and of the same after a second one."""
    one = tmp_path_factory.mktemp("one") / "workspace"
    rlhf("run", one, "--rounds", "1")
    two = tmp_path_factory.mktemp("two") / "workspace"
    shutil.copytree(one, two)
    rlhf("run", two, "--rounds", "2")
    return one, two


@pytest.mark.timeout(600)
def test_a_round_behind_damaged_ones_ends_as_if_nothing_had_happened(finished, tmp_path):
    one, two = finished
    workspace = tmp_path / "workspace"
    shutil.copytree(one, workspace)
    flip(artifact(workspace, "1/reward") / "reward" / "model.safetensors")
    flip(artifact(workspace, "0/data") / "prompts.jsonl")
    flip(artifact(workspace, "0/warm_start") / "policy" / "model.safetensors")
    shutil.rmtree(artifact(workspace, "0/samples"))
    done = rlhf("run", workspace, "--rounds", "2")
    assert named(done) == ["data", "policy", "reward", "samples"]
    assert made_again(done) == {"data", "warm_start", "reward", "samples"}
    assert policies(workspace) == policies(two)


def test_a_report_that_meets_the_damage(finished, tmp_path):
    two = finished[1]
    workspace = tmp_path / "workspace"
    shutil.copytree(two, workspace)
    flip(artifact(workspace, "2/evaluate_win_rate") / "tables.json")
    done = rlhf("run", workspace, "--rounds", "2")
    assert named(done) == ["evaluation"] and made_again(done) == {"evaluate_win_rate"}
    assert policies(workspace) == policies(two)
    assert (artifact(workspace, "2/evaluate_win_rate") / "tables.json").exists()


@pytest.mark.slow
def test_half_a_record_of_a_result_is_none(finished, tmp_path):
    two = finished[1]
    workspace = tmp_path / "workspace"
    shutil.copytree(two, workspace)
    (document,) = (workspace / "artifacts" / "rounds").glob("*-0002.json")
    key = json.loads(document.read_text())["stages"]["2/reward"]["key"]
    record = workspace / "artifacts" / "results" / key
    record.write_bytes(record.read_bytes()[:-20])
    document.unlink()
    done = rlhf("run", workspace, "--rounds", "2")
    assert made_again(done) == {"reward"} and named(done) == []
    assert policies(workspace) == policies(two)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_halves_of_rounds_repair_for_themselves(finished, tmp_path):
    one, two = finished
    workspace = tmp_path / "workspace"
    shutil.copytree(one, workspace)
    flip(artifact(workspace, "0/data") / "prompts.jsonl")
    assert named(rlhf("collect", workspace)) == ["data"]
    first = artifact(workspace, "1/questions")
    (questions,) = (folder for folder in (workspace / "artifacts" / "questions").iterdir()
                    if folder.is_dir() and folder != first)  # fmt: skip
    flip(questions / "questions.jsonl")
    done = rlhf("retrain", workspace)
    assert named(done) == ["questions"] and made_again(done) == {"questions"}
    assert policies(workspace) == policies(two)
