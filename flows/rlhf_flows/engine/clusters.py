"""Dask and Ray: connecting to a cluster, reserving what a stage needs there, and leaving it at once."""

from __future__ import annotations

import logging
import os
import socket
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from rlhf_core.errors import RlhfError, ServerError
from rlhf_core.pipeline.placement import Dask, Ray
from rlhf_flows.engine.process import report_to

CONNECTING = 20.0
"""Seconds that a Ray cluster has to answer."""


class RayCluster:
    """Ray's task runner, connected. A lost worker is the scheduler's business: Ray itself tries nothing again."""

    def __init__(self, place: Ray) -> None:
        try:
            from prefect_ray import RayTaskRunner
        except ImportError as error:
            raise _missing("ray") from error
        self.address = place.cluster()
        quiet = {"log_to_driver": False, "configure_logging": False}
        self._runner = RayTaskRunner(init_kwargs={"address": self.address, **quiet})
        self._under_way: list[Any] = []
        try:
            _expect_listening(self.address)
            self._runner.__enter__()
        except (OSError, RuntimeError, ValueError) as error:
            raise _unreachable("Ray cluster", self.address, "RAY_ADDRESS", error) from error

    def submit(self, place: Ray, task: Any, **handed: Any) -> Any:
        """Hand over a task with what its place reserves; its future."""
        from prefect_ray.context import remote_options

        wanted = place.model_dump(exclude={"address"}, exclude_none=True, exclude_defaults=True)
        with remote_options(**wanted, max_retries=0):
            future = self._runner.submit(task, **handed)
        self._under_way.append(future.wrapped_future)
        return future

    def broken(self) -> bool:
        """Whether the connection is lost."""
        import ray

        return not ray.is_initialized()

    def stop(self) -> None:
        """Kill what is under way, and leave."""
        import ray

        for reference in self._under_way:
            ray.cancel(reference, force=True)
        self.close()

    def close(self) -> None:
        """Leave the cluster."""
        self._runner.__exit__(None, None, None)


class DaskCluster:
    """Dask's task runner, connected to a scheduler or to a cluster of its own on this machine."""

    def __init__(self, place: Dask) -> None:
        try:
            from prefect_dask.task_runners import DaskTaskRunner
        except ImportError as error:
            raise _missing("dask") from error
        self.address = place.cluster()
        if self.address is not None:
            where: dict[str, Any] = {"address": self.address}
        else:
            cluster: dict[str, Any] = {"n_workers": place.workers or 1, "threads_per_worker": 1}
            cluster |= {"dashboard_address": None, "silence_logs": logging.ERROR}
            cluster["preload"] = report_to.__module__  # for its `dask_setup`
            where = {"cluster_kwargs": cluster | ({"resources": place.resources} if place.resources else {})}
        self._runner: Any = DaskTaskRunner(**where)
        self._under_way: list[Any] = []
        self._runner.__enter__()
        try:
            self._runner.client  # noqa: B018  # connects
        except (OSError, ValueError) as error:
            raise _unreachable("Dask scheduler", str(self.address), "DASK_SCHEDULER_ADDRESS", error) from error
        if self.address is not None and (api := os.environ.get("PREFECT_API_URL")):
            try:
                self._runner.client.run(report_to, api)
            except ImportError as error:
                raise RlhfError(
                    f"a worker of the Dask cluster lacks packages: {error}.",
                    where=self.address,
                    remedy="Install on every machine what the run has, in the same versions.",
                ) from error

    def submit(self, place: Dask, task: Any, **handed: Any) -> Any:
        """Hand over a task with what its place reserves; its future."""
        with _annotated(place):
            future = self._runner.submit(task, **handed)
        self._under_way.append(future.wrapped_future)
        return future

    def broken(self) -> bool:
        """Whether the connection is lost; a dead worker is replaced by the cluster."""
        return bool(self._runner.client.status != "running")

    def stop(self) -> None:
        """Take back what has not begun, and leave; what a worker of somebody else's cluster has begun it ends."""
        if not self.broken():
            self._runner.client.cancel([future for future in self._under_way if not future.done()], force=True)
        self.close()

    def close(self) -> None:
        """Leave the cluster; one of the run's own ends."""
        self._runner.__exit__(None, None, None)


def _annotated(place: Dask) -> AbstractContextManager[Any]:
    if not place.resources:
        return nullcontext()
    from dask.base import annotate

    annotated: AbstractContextManager[Any] = annotate(resources=place.resources)
    return annotated


def _expect_listening(address: str) -> None:
    """Raise OSError where nobody listens at `[ray://]HOST:PORT`: Ray itself would try for minutes."""
    host, separator, port = address.removeprefix("ray://").rpartition(":")
    if separator and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), CONNECTING).close()


def _missing(extra: str) -> RlhfError:
    return RlhfError(
        f"`run_on` names {extra}, and the packages for it are not installed.",
        remedy=f'Install them: pip install "rlhf-pipeline[{extra}]", on every machine of the cluster.',
    )


def _unreachable(what: str, address: str, variable: str, error: BaseException) -> ServerError:
    said = str(error).strip().splitlines()
    return ServerError(
        f"the {what} cannot be reached: {said[0] if said else type(error).__name__}.",
        where=address,
        remedy=f"Start it, or correct `run_on` or {variable}.",
    )
