"""Which runner takes a stage, when it is opened and closed, and what a lost worker is."""

import asyncio
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from types import SimpleNamespace

import pytest

from played_stages import node
from rlhf_core.pipeline.placement import Dask, Placement, Ray
from rlhf_flows.engine import runners as subject
from rlhf_flows.engine.runners import Runners, is_death, words

PLACED = {
    "run_on": {
        "workers": 2,
        "optimize": {"ray": {"address": "ray://head:10001", "num_gpus": 4}},
        "reward": {"ray": {"address": "ray://head:10001"}},
        "gate": "here",
    }
}


class Runner:
    """Takes everything, finishes what it is told to."""

    def __init__(self, place):
        self.place, self.broke, self.calls = place, False, []

    def submit(self, place, task, **handed):
        self.calls.append((place, task, handed))
        return SimpleNamespace(wrapped_future=Future())

    def broken(self):
        return self.broke

    def stop(self):
        self.calls.append("stop")

    def close(self):
        self.calls.append("close")


@pytest.fixture
def opened(monkeypatch):
    """The runners that are opened, in order."""
    found = []

    def open_one(place, workers):
        found.append(Runner(place))
        return found[-1]

    monkeypatch.setattr(subject, "_runner", open_one)
    return found


def test_a_runner_is_opened_once_for_each_cluster_and_handed_each_stages_place(opened):
    with Runners(Placement.model_validate(PLACED)) as runners:
        runners.submit(node("o", stage="optimize"), "task", {"job": "{}"}, {})
        runners.submit(node("r", stage="reward"), "task", {}, {})
        runners.submit(node("e"), "task", {}, {})
        assert [runner.place for runner in opened] == [Ray(address="ray://head:10001", num_gpus=4), "workers"]
        assert [place for place, _, _ in opened[0].calls] == [
            Ray(address="ray://head:10001", num_gpus=4),
            Ray(address="ray://head:10001"),
        ]
        assert opened[0].calls[0][2] == {"parameters": {"job": "{}"}, "wait_for": None, "dependencies": {}}
    assert runners.place(node("g", stage="gate")) == "here"


def test_at_the_end_what_is_idle_is_closed_and_what_is_at_work_is_stopped(opened):
    with Runners(Placement.model_validate(PLACED)) as runners:
        runners.submit(node("o", stage="optimize"), "task", {}, {})
        runners.submit(node("e"), "task", {}, {}).future.wrapped_future.set_result("done")
    assert opened[0].calls[-1] == "stop"
    assert opened[1].calls[-1] == "close"


def test_what_a_dead_worker_broke_is_opened_anew_once(opened):
    with Runners(Placement.model_validate(PLACED)) as runners:
        first, second = (runners.submit(node(name), "task", {}, {}) for name in "ab")
        runners.lost(first)
        assert "stop" not in opened[0].calls  # it was not broken: the cluster replaced the worker by itself
        opened[0].broke = True
        runners.lost(first)
        runners.submit(node("a"), "task", {}, {})
        runners.lost(second)  # the pool that broke under it is gone already, and the new one stays
        assert len(opened) == 2
        assert opened[0].calls[-1] == "stop"
        assert "stop" not in opened[1].calls


def test_the_words_for_places():
    assert [words(place) for place in ("here", "workers", Ray(), Ray(num_gpus=0.5), Dask())] == [
        "", "worker", "ray", "ray gpu:0.5", "dask",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("error", "dead"),
    [
        (BrokenProcessPool("gone"), True),
        (asyncio.CancelledError(), True),
        (ConnectionResetError(), True),
        (type("KilledWorker", (Exception,), {})(), True),
        (ModuleNotFoundError("No module named 'rlhf_flows'"), False),
        (TypeError("cannot pickle"), False),
    ],
)
def test_what_counts_as_a_death(error, dead):
    assert is_death(error) is dead
