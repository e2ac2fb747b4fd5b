from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from rlhf_core.run import Checkpoints, Run


def writer(text):
    return lambda folder: (folder / "state.txt").write_text(text) and None


def read(checkpoints):
    step, folder = checkpoints.latest()
    return step, (folder / "state.txt").read_text()


def test_without_a_folder_nothing_is_kept():
    checkpoints = Checkpoints()
    checkpoints.save(1, lambda folder: pytest.fail("must not write"))
    assert checkpoints.latest() is None
    checkpoints.clear()


def test_the_newest_is_kept_and_the_older_dropped(tmp_path):
    checkpoints = Checkpoints(tmp_path / "c")
    assert checkpoints.latest() is None
    for step in (9, 10):  # as text, 10 would come before 9
        checkpoints.save(step, writer(f"step {step}"))
    assert read(checkpoints) == (10, "step 10")
    assert [path.name for path in (tmp_path / "c").iterdir()] == ["10"]


def test_a_step_may_be_saved_again(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, writer("old"))
    checkpoints.save(1, writer("new"))
    assert read(checkpoints) == (1, "new")


def test_a_failed_write_leaves_the_last_good_one(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, writer("good"))

    def fails(folder):
        (folder / "state.txt").write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        checkpoints.save(2, fails)
    assert read(checkpoints) == (1, "good")
    assert [path.name for path in tmp_path.iterdir()] == ["1"]


def test_a_kill_while_writing_leaves_the_last_good_one(tmp_path):
    code = f"""
import os, signal, pathlib
from rlhf_core.run import Checkpoints
checkpoints = Checkpoints(pathlib.Path({str(tmp_path)!r}))
checkpoints.save(1, lambda folder: (folder / "state.txt").write_text("good") and None)
def killed(folder):
    (folder / "state.txt").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
checkpoints.save(2, killed)
"""
    done = subprocess.run([sys.executable, "-c", code], check=False)
    assert done.returncode == -signal.SIGKILL
    checkpoints = Checkpoints(tmp_path)
    assert read(checkpoints) == (1, "good")
    checkpoints.save(2, writer("after"))  # the half-written draft is in nobody's way
    assert read(checkpoints) == (2, "after")
    assert [path.name for path in tmp_path.iterdir()] == ["2"]


def test_clear(tmp_path):
    checkpoints = Checkpoints(tmp_path / "c")
    checkpoints.save(1, writer("x"))
    checkpoints.clear()
    assert checkpoints.latest() is None
    checkpoints.clear()


def test_a_bare_run_says_nothing(capsys):
    run = Run(seed=3)
    run.log({"loss": 1.0}, step=1)
    run.progress(1, 2, "half")
    run.note("odd")
    run.checkpoints.save(1, lambda folder: pytest.fail("must not write"))
    assert run.seed == 3
    assert capsys.readouterr() == ("", "")
