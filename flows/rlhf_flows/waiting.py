"""Waiting for people in Prefect's words: a run that ended in a state called Waiting, not a failure with a traceback.

Why an ended run, and not one that Prefect suspends: Prefect suspends only runs of a deployment and no subflows, so that
`rlhf run` and the two halves of a round could not wait; a suspended run needs a time after which it fails, while people
take the time they take; and resuming starts a process that begins the flow anew, which is what starting a new run is.
What was done lies in the stages' cache either way, the run that goes on begins where the ended one stopped, and the
store alone says when (`trigger.Trigger`), with a server of Prefect's or without.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rlhf_core.errors import Waiting


def as_waiting_state(waiting: list[Waiting]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorator for a task's or flow's function: one that has to wait ends in a state that says so.

    What it waits for is left in `waiting`, since Prefect hands on states and not exceptions.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapped(*arguments: Any, **named: Any) -> Any:
            try:
                return function(*arguments, **named)
            except Waiting as error:
                from prefect.states import Cancelled

                waiting.append(error)
                return Cancelled(name="Waiting", message=str(error))

        return wrapped

    return decorate


@contextmanager
def waits_as_state(waiting: list[Waiting]) -> Iterator[None]:
    """Around the call of such a task or flow: raises the Waiting that it ended with."""
    from prefect.exceptions import CancelledRun

    logger = logging.getLogger("prefect.task_runs")
    logger.addFilter(_is_no_waiting)
    waiting.clear()
    try:
        yield
    except CancelledRun:
        if not waiting:
            raise
    finally:
        logger.removeFilter(_is_no_waiting)
    if waiting:
        raise waiting[0]


def _is_no_waiting(record: logging.LogRecord) -> bool:
    """Prefect calls every end but success an error."""
    return "Finished in state Waiting" not in record.getMessage()
