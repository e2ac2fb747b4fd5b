"""Where stages run: this process, processes beside it, Dask or Ray; opened when the first stage needs it."""

from __future__ import annotations

import asyncio
from concurrent.futures import BrokenExecutor, CancelledError
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

from rlhf_core.pipeline.placement import Dask, OnThisMachine, Placement, Ray, place_of, workers_of
from rlhf_flows.engine.clusters import DaskCluster, RayCluster

if TYPE_CHECKING:
    from rlhf_flows.graph import Node

Where = OnThisMachine | Ray | Dask


class Runner(Protocol):
    """One of Prefect's task runners, opened."""

    def submit(self, place: Any, task: Any, **handed: Any) -> Any:
        """Hand over a task with what its place reserves; its future."""

    def broken(self) -> bool:
        """Whether it takes no more."""

    def stop(self) -> None:
        """End now, whatever is under way."""

    def close(self) -> None:
        """End, once what is under way has ended."""


@dataclass
class Handed:
    """A stage that a runner took."""

    future: Any
    """Prefect's."""
    place: str
    """Name of the runner's place."""
    runner: Runner

    def state(self) -> Any:
        """The final state of its task run, once there is one. Raises where the worker was lost."""
        wrapped = self.future.wrapped_future
        if hasattr(wrapped, "result"):
            return wrapped.result()
        self.future.wait()  # Ray's references say no more than that
        return self.future.state

    def done(self) -> bool:
        """Whether there is nothing left to wait for."""
        wrapped = self.future.wrapped_future
        return bool(wrapped.done()) if hasattr(wrapped, "done") else bool(wrapped.future().done())


class Runners:
    """Prefect's task runners, by place. A context: those that were opened are closed at its end, at once where stages
    are still under way, because then the run was stopped.
    """

    def __init__(self, placement: Placement) -> None:
        self.placement = placement
        self._open: dict[str, Runner] = {}
        self._handed: list[Handed] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        under_way = {id(handed.runner) for handed in self._handed if not handed.done()}
        for runner in self._open.values():
            if id(runner) in under_way:
                runner.stop()
            else:
                runner.close()
        self._open.clear()
        self._handed.clear()

    def place(self, node: Node) -> Where:
        """Where a node's stage runs."""
        return place_of(self.placement, node.stage)  # type: ignore[arg-type]

    def submit(self, node: Node, task: Any, parameters: dict[str, Any], dependencies: dict[str, Any]) -> Handed:
        """Hand a task to the runner of the node's place. Raises RlhfError where that cannot be reached."""
        place = self.place(node)
        name = _name(place)
        if name not in self._open:
            self._open[name] = _runner(place, workers_of(self.placement))
        runner = self._open[name]
        future = runner.submit(place, task, parameters=parameters, wait_for=None, dependencies=dependencies)
        handed = Handed(future, name, runner)
        self._handed = [*(each for each in self._handed if not each.done()), handed]
        return handed

    def lost(self, handed: Handed) -> None:
        """A worker died under this stage. What it broke is opened anew for the next one."""
        runner = handed.runner
        if self._open.get(handed.place) is runner and runner.broken():
            del self._open[handed.place]
            runner.stop()


def is_death(error: BaseException) -> bool:
    """Whether what a runner raised instead of a state means that a worker is gone, or the way to it."""
    if isinstance(error, BrokenExecutor | CancelledError | asyncio.CancelledError | OSError):
        return True
    return not isinstance(error, Exception) or type(error).__name__ == "KilledWorker"  # Dask's


def words(place: Where) -> str:
    """A place in a word or two, for the display; empty for the process of the run."""
    if isinstance(place, Ray):
        return f"ray gpu:{place.num_gpus:g}" if place.num_gpus else "ray"
    return "dask" if isinstance(place, Dask) else {"here": "", "workers": "worker"}[place]


def _name(place: Where) -> str:
    if isinstance(place, Ray):
        return f"ray {place.cluster()}"
    return f"dask {place.cluster()} {place.workers}" if isinstance(place, Dask) else place


def _runner(place: Where, workers: int) -> Runner:
    if isinstance(place, Ray):
        return RayCluster(place)
    if isinstance(place, Dask):
        return DaskCluster(place)
    from rlhf_flows.engine.workers import Workers

    return Workers(workers)
