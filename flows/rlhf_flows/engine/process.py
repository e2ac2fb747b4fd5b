"""What every process that does stages needs: quiet libraries, an end with its run, one clean interruption."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from multiprocessing.util import Finalize
from typing import Any

from rlhf_core.errors import RlhfError


@lru_cache(maxsize=1)
def import_the_heavy() -> None:
    """Import what every stage needs, and keep its progress bars off the terminal: the display has its own."""
    import datasets
    import torch  # noqa: F401
    import transformers

    datasets.disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()


def begin_worker(threads: int) -> None:
    """Called once in each process beside the run: share the cores instead of fighting for them, end with the run, and
    import while the first stages are at work elsewhere.
    """
    os.environ["OMP_NUM_THREADS"] = str(threads)
    # Ctrl-C on the terminal reaches every process. It is for the stage, where there is one: see `interruptible`.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_the_run, name="end with the run", daemon=True).start()
    # After the queues to the run are empty, which is at -5, nothing is left to do; taking the interpreter down with all
    # that was imported would make the run wait for seconds.
    Finalize(None, os._exit, args=(0,), exitpriority=-100)
    import_the_heavy()


class Interrupted(RlhfError):
    """A stage in a process beside the run was told to stop."""


def dask_setup(_worker: object) -> None:
    """Called in each worker of a Dask cluster that is the run's own: Ctrl-C is for the run, which ends the cluster."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def report_to(api: str) -> None:
    """Send what Prefect hears of task runs to the server of the run that this process works for now: a worker that
    serves several runs would go on sending it to that of the first.
    """
    from prefect.events.clients import PrefectEventsClient
    from prefect.events.worker import EventsWorker

    EventsWorker.set_client_override(PrefectEventsClient, api_url=api)


@contextmanager
def interruptible() -> Iterator[None]:
    """Within, the first interruption of a process beside the run raises KeyboardInterrupt, and later ones do not
    disturb what is written down then; it arrives at the run as `Interrupted`, because the pool of processes forgets a
    stage that ends with anything but an Exception. Processes that look after interruptions themselves keep their way.
    """
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
        yield
        return
    signal.signal(signal.SIGINT, _interrupt_once)
    try:
        yield
    except KeyboardInterrupt as error:
        raise Interrupted("the stage was interrupted.") from error
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _interrupt_once(*_: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise KeyboardInterrupt


def _end_with_the_run() -> None:
    """A run that is killed leaves nobody at work on its stages: the same command starts them anew."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
