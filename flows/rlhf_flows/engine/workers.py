"""Processes beside the run, each of which does one stage at a time."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from typing import Any

from rlhf_flows.engine.process import begin_worker

PATIENCE = 3.0
"""Seconds that a stage which is told to stop has to write down that it was, before its process is killed."""


class Workers:
    """Prefect's process pool, opened, for several flow runs after each other; it can be stopped at once."""

    def __init__(self, workers: int) -> None:
        from prefect.task_runners import ProcessPoolTaskRunner

        threads = int(os.environ.get("OMP_NUM_THREADS") or max(1, (os.cpu_count() or 1) // workers))
        self._pool = ProcessPoolTaskRunner(max_workers=workers, initializer=begin_worker, initargs=(threads,))
        self._pool.__enter__()
        self._under_way: list[Any] = []
        for _ in range(workers):
            self._pool._executor.submit(int)  # type: ignore[union-attr]  # all of them start now, and import

    def submit(self, place: object, task: Any, **handed: Any) -> Any:
        """Hand over a task; its future."""
        # Prefect keeps the flow run that the first task belongs to for all later ones; a campaign has several.
        self._pool._cached_context = self._pool._cached_env = None
        future: Any = self._pool.submit(task, **handed)
        self._under_way = [*(each for each in self._under_way if not each.done()), future.wrapped_future]
        return future

    def broken(self) -> bool:
        """Whether a process died: with it the pool takes no more."""
        return bool(getattr(self._pool._executor, "_broken", False))

    def stop(self) -> None:
        """End now: what is under way is interrupted, so that MLflow hears of it, and killed where it does not end."""
        processes = [each.pid for each in (getattr(self._pool._executor, "_processes", None) or {}).values()]
        for pid in processes:
            _send(pid, signal.SIGINT)
        deadline = time.monotonic() + PATIENCE
        while not all(future.done() for future in self._under_way) and time.monotonic() < deadline:
            time.sleep(0.05)
        for pid in processes:
            _send(pid, signal.SIGKILL)
        self.close()

    def close(self) -> None:
        """End, once what is under way has ended."""
        self._pool.__exit__(None, None, None)


def _send(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)
