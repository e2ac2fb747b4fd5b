"""Where stages run: this process, processes beside it, Dask or Ray; opened when the first stage needs it."""

from __future__ import annotations

import os
from contextlib import ExitStack, nullcontext
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from rlhf_core.errors import RlhfError
from rlhf_core.pipeline.placement import Dask, OnThisMachine, Placement, Ray, place_of, workers_of

if TYPE_CHECKING:
    from rlhf_flows.graph import Node

Where = OnThisMachine | Ray | Dask


class Runners:
    """Prefect's task runners, by place. A context: those that were opened are closed at its end."""

    def __init__(self, placement: Placement) -> None:
        self.placement = placement
        self._open: dict[str, Any] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
        self._open.clear()

    def place(self, node: Node) -> Where:
        """Where a node's stage runs."""
        return place_of(self.placement, node.stage)  # type: ignore[arg-type]

    def submit(self, node: Node, task: Any, parameters: dict[str, Any], dependencies: dict[str, Any]) -> Any:
        """Hand a task to the runner of the node's place; its future."""
        place = self.place(node)
        runner = self._runner(place)
        with _reserving(place):
            return runner.submit(task, parameters=parameters, wait_for=None, dependencies=dependencies)

    def replace(self, node: Node) -> None:
        """Open the runner of the node's place anew, after a worker's death broke it."""
        self._open.pop(_name(self.place(node)), None)

    def _runner(self, place: Where) -> Any:
        name = _name(place)
        if name not in self._open:
            self._open[name] = self._stack.enter_context(_task_runner(place, workers_of(self.placement)))
        return self._open[name]


def words(place: Where) -> str:
    """A place in a word or two, for the display; empty for the process of the run."""
    if isinstance(place, Ray):
        return f"ray gpu:{place.num_gpus:g}" if place.num_gpus else "ray"
    return "dask" if isinstance(place, Dask) else {"here": "", "workers": "worker"}[place]


def _name(place: Where) -> str:
    if isinstance(place, Ray):
        return f"ray {place.cluster()}"
    return f"dask {place.cluster()} {place.workers}" if isinstance(place, Dask) else place


def _task_runner(place: Where, workers: int) -> Any:
    if isinstance(place, Ray):
        return _ray(place)
    if isinstance(place, Dask):
        return _dask(place)
    from prefect.task_runners import ProcessPoolTaskRunner

    threads = int(os.environ.get("OMP_NUM_THREADS") or max(1, (os.cpu_count() or 1) // workers))
    return ProcessPoolTaskRunner(max_workers=workers, initializer=begin_worker, initargs=(threads,))


def begin_worker(threads: int) -> None:
    """Called once in each process beside the run: share the cores instead of fighting for them."""
    os.environ["OMP_NUM_THREADS"] = str(threads)


def _ray(place: Ray) -> Any:
    try:
        from prefect_ray import RayTaskRunner
    except ImportError as error:
        raise _missing("ray") from error
    return RayTaskRunner(init_kwargs={"address": place.cluster(), "log_to_driver": False, "configure_logging": False})


def _dask(place: Dask) -> Any:
    try:
        from prefect_dask import DaskTaskRunner
    except ImportError as error:
        raise _missing("dask") from error
    address = place.cluster()
    if address is not None:
        return DaskTaskRunner(address=address)
    cluster = {"n_workers": place.workers or 1, "threads_per_worker": 1, "dashboard_address": None}
    if place.resources:
        cluster["resources"] = place.resources
    return DaskTaskRunner(cluster_kwargs=cluster)


def _missing(extra: str) -> RlhfError:
    return RlhfError(
        f"`run_on` names {extra}, and the packages for it are not installed.",
        remedy=f'Install them: pip install "rlhf-pipeline[{extra}]", on every machine of the cluster.',
    )


def _reserving(place: Where) -> Any:
    """Within, what is submitted reserves the place's resources."""
    if isinstance(place, Ray):
        from prefect_ray.context import remote_options

        wanted = place.model_dump(exclude={"address"}, exclude_none=True, exclude_defaults=True)
        return remote_options(**wanted) if wanted else nullcontext()
    if isinstance(place, Dask) and place.resources:
        import dask

        return dask.annotate(resources=place.resources)
    return nullcontext()
