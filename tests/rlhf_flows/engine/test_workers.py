"""Stages in processes beside the run that fail, are killed, or are interrupted."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from played_stages import graph, node
from rlhf_core.errors import DataError

TWO = {"workers": 2}
pytestmark = pytest.mark.slow  # opening a pool takes ten seconds and more


def test_a_failure_keeps_what_ran_beside_it_and_starts_nothing_more(engine):
    stages = graph(node("bad", mistake="7 is no label."), node("slow", sleep=2), node("later", after=["slow"]))
    with pytest.raises(DataError) as caught:
        engine.run(stages, run_on=TWO)
    assert str(caught.value) == "rows.csv:7  7 is no label.\nCorrect the row."
    assert set(engine.finished) == {"1/slow"}


def test_a_dead_worker_is_replaced_and_the_stage_goes_on_beside_the_others(engine, tmp_path):
    stages = graph(
        node("a", dies=1, sleep=0.5, tally=str(tmp_path / "a")), node("b", sleep=1), node("c", after=["a", "b"])
    )
    engine.run(stages, run_on=TWO)
    assert engine.text("c") == "c(a(), b())"
    assert (tmp_path / "a").read_text() == "11"
    assert any(note.startswith("the worker of a is gone") for note in engine.said.notes)


def test_a_stage_that_kills_its_workers_ends_the_run_in_one_paragraph(engine, tmp_path):
    from rlhf_flows.engine.walk import LostWorker

    with pytest.raises(LostWorker, match="the worker of `a` was lost 3 times") as caught:
        engine.run(graph(node("a", dies=9, tally=str(tmp_path / "a"))), run_on=TWO)
    assert "memory" in caught.value.remedy
    assert (tmp_path / "a").read_text() == "111"
    assert engine.task_runs()["a"].state_name == "Crashed"


@pytest.mark.parametrize("run_on", [TWO, {"default": {"dask": {"workers": 1}}}], ids=["processes", "dask"])
def test_an_interrupted_run_ends_within_seconds_and_leaves_nobody_at_work(engine, tmp_path, run_on):
    if run_on != TWO:
        pytest.importorskip("prefect_dask", reason="the extra `dask` is not installed")

    def interrupt():
        deadline = time.monotonic() + 60
        while not list((tmp_path / "meeting").glob("*-*")):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        began.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    began = []
    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        engine.run(graph(node("a", meet=str(tmp_path / "meeting"), parties=1, sleep=600)), run_on=run_on)
    assert time.monotonic() - began[0] < 20
    (arrived,) = (tmp_path / "meeting").iterdir()
    assert not _lives(int(arrived.name.partition("-")[0]))
    assert engine.state_in_mlflow("a") == "KILLED"


def _lives(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False
