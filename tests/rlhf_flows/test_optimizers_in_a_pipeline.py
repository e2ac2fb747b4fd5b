"""One word of the pipeline file changed: every optimizer takes the place of ppo in a whole round."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

RLHF = str(Path(sys.executable).with_name("rlhf"))
SMALL = Path(__file__).with_name("small.yaml")
slow = pytest.mark.slow


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """Shared: everything before the optimizer is computed once and cached."""
    return tmp_path_factory.mktemp("optimizers")


@pytest.mark.parametrize(
    "name", ["rloo", *(pytest.param(name, marks=slow) for name in ("reinforce", "grpo", "online_dpo", "best_of_n"))]
)
def test_a_round_with_it(workspace, name):
    command = [RLHF, "run", str(SMALL), "--json", "--workspace", str(workspace), "--set", "rounds=1"]
    command += ["--set", f"optimize.use={name}", "--set", "optimize.answers=2", "--set", "optimize.steps=2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=280)
    assert done.returncode == 0, done.stderr[-2000:]
    summary = json.loads(done.stdout.strip().splitlines()[-1])
    before, after = summary["rounds"]
    assert after["policy"] != before["policy"]
    assert {"kl", "gold_score", "win_rate_vs_warm_start"} <= set(after["metrics"])
