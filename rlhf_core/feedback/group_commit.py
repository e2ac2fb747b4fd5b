"""Many small writes in one transaction: the disk is waited for once, not once each."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

from sqlalchemy import Connection

from rlhf_core.feedback.database import Database

T = TypeVar("T")


class _Work:
    """One caller's writes, and what became of them."""

    def __init__(self, work: Callable[[Connection], Any]) -> None:
        self.work = work
        self.result: Any = None
        self.error: BaseException | None = None
        self.done = False


class GroupCommit:
    """Runs what several threads want to write one after the other, and commits it together.

    Whoever gets the turn works off everything that waits by then; the others find their work done and on the disk.
    Each piece of work has its own savepoint: one that fails takes none of the others along.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._turn = threading.Lock()
        self._waiting: list[_Work] = []

    def run(self, work: Callable[[Connection], T]) -> T:
        """The result of `work`, once it is committed. Raises what it raised, or why nothing could be committed."""
        mine = _Work(work)
        self._waiting.append(mine)
        with self._turn:
            if not mine.done:
                batch, self._waiting = self._waiting, []
                self._commit(batch)
        if mine.error is not None:
            raise mine.error
        result: T = mine.result
        return result

    def _commit(self, batch: list[_Work]) -> None:
        try:
            with self._database.write() as connection:
                for each in batch:
                    try:
                        with connection.begin_nested():
                            each.result = each.work(connection)
                    except Exception as error:
                        each.error = error
        except BaseException as error:
            for each in batch:
                each.error = error
        for each in batch:
            each.done = True
