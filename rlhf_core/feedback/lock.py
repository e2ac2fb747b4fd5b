"""The lock that keeps two runs apart, on whatever machines they are: it lives in the PostgreSQL server that they share.

It is an advisory lock of a session: the server frees it the moment the holder's connection ends, however that ends.
Who holds it stands as a comment in the holder's statements, where `pg_stat_activity` shows it, so that nothing has to
be cleaned up after a kill.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from sqlalchemy import URL, Connection, create_engine
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from rlhf_core.errors import Busy, StoreError
from rlhf_core.feedback.database import parsed

PATIENCE = 2.0
"""Seconds to wait for a lock that is held: its holder may have been killed this moment."""
BEAT = 3.0
"""Seconds from one look whether the connection still stands to the next."""
GRACE = 30.0
"""Seconds to get a lost lock back: with those that it takes to notice the loss less than `SILENCE`, so that nobody else
can have it before, where the network is what failed."""
SILENCE = (
    "set_config('tcp_keepalives_idle', '20', false), set_config('tcp_keepalives_interval', '10', false), "
    "set_config('tcp_keepalives_count', '3', false)"
)
"""After 50 seconds without a sign of the holder's machine, the server ends the connection and frees the lock."""
CONNECTION = {"connect_timeout": 5, "tcp_user_timeout": 6000}
"""What was sent and not received for six seconds (here in milliseconds) ends the connection on the holder's side."""
COMMAND_LENGTH = 120
"""PostgreSQL shows the first 1024 bytes of a statement, and a character may take six in JSON."""
REMEDY = "Wait for it, or stop it with Ctrl-C where it runs; then run the same command again."


class Hold:
    """A lock that is held, unless it was `lost`."""

    def __init__(self, name: str, where: str) -> None:
        self.name = name
        self.where = where
        self._lost = ""

    @property
    def lost(self) -> bool:
        """Whether it is held no longer, because the connection broke and the lock could not be had again."""
        return bool(self._lost)

    def expect(self) -> None:
        """Raise Busy, saying why, where the lock was lost: another run may be at work on the same."""
        if self._lost:
            raise Busy(f"the lock on `{self.name}` was lost: {self._lost}.", where=self.where, remedy=REMEDY)

    def give_up(self, why: str) -> None:
        """Let it be lost."""
        self._lost = why


@contextmanager
def held(store_url: str, name: str, about: Mapping[str, str]) -> Iterator[Hold]:
    """Hold the lock `name` of the PostgreSQL database `store_url`, as long as the body runs.

    `about` says who holds it (`host`, `pid`, `command`, `since`), for the error of whoever comes second. Raises Busy,
    naming the holder, where another process has it. A connection that breaks is noticed within ten seconds and made
    again with the lock; where that does not succeed, the yielded `Hold` says that it was `lost`. An SQLite file has no
    such lock: a file beside it does that, and the body runs at once.
    """
    url = parsed(store_url)
    hold = Hold(name, url.render_as_string(hide_password=True))
    if url.get_backend_name() == "sqlite":
        yield hold
        return
    keeper = _Keeper(url, hold, about)
    try:
        keeper.start()
        yield hold
    finally:
        keeper.stop()


class _Keeper:
    """Gets the lock and watches over the connection that it lives in."""

    def __init__(self, url: URL, hold: Hold, about: Mapping[str, str]) -> None:
        try:
            # A connection that is closed is closed: a pool would keep it, and with it the lock.
            self._engine = create_engine(
                url, poolclass=NullPool, isolation_level="AUTOCOMMIT", connect_args=dict(CONNECTION)
            )
        except ImportError as error:
            raise StoreError(
                "PostgreSQL is reached through psycopg, which is not installed.",
                where=hold.where,
                remedy='Run `pip install "rlhf-pipeline[postgresql]"`.',
            ) from error
        self._hold = hold
        self._number = int.from_bytes(hashlib.sha256(hold.name.encode()).digest()[:8], signed=True)
        self._comment = _comment(about)
        self._connection: Connection | None = None
        self._session = 0
        """PostgreSQL's number for the connection."""
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="rlhf-lock", daemon=True)

    def start(self) -> None:
        """Get the lock. Raises Busy where somebody has it, and StoreError where the server cannot be asked."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                holder = self._take()
            except SQLAlchemyError as error:
                raise StoreError(
                    f"the lock that keeps two runs apart cannot be asked for: {_words(error)}",
                    where=self._hold.where,
                    remedy="Check that the PostgreSQL server runs and lets you in.",
                ) from error
            if holder is None:
                break
            if time.monotonic() > deadline:
                raise Busy(f"another run holds `{self._hold.name}`: {holder}.", where=self._hold.where, remedy=REMEDY)
            time.sleep(0.1)
        self._thread.start()

    def stop(self) -> None:
        """Give the lock back, if it was got."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()
        with suppress(SQLAlchemyError):
            if self._connection is not None:
                self._ask(f"SELECT pg_advisory_unlock({self._number})")
        self._close()

    def _watch(self) -> None:
        while not self._stopped.wait(BEAT) and not self._hold.lost:
            try:
                self._ask("SELECT 1")
            except SQLAlchemyError as error:
                self._get_back(error)

    def _get_back(self, error: SQLAlchemyError) -> None:
        """Connect and lock anew, or let the lock be lost."""
        why = _words(error)
        deadline = time.monotonic() + GRACE
        before = self._session
        self._close()
        while not self._stopped.wait(0.2):
            try:
                holder = self._take()
                if holder is None:
                    return
                if self._holding_session() not in (None, before):
                    self._hold.give_up(f"the connection to the server broke, and now it is held by {holder}")
                    return
            except SQLAlchemyError as failed:
                why = _words(failed)
                self._close()
            if time.monotonic() > deadline:
                self._hold.give_up(f"the connection to the server broke and does not come back ({why})")
                return

    def _take(self) -> str | None:
        """None with the lock in hand; otherwise who has it."""
        if self._connection is None:
            self._connection = self._engine.connect()
            self._session = int(self._ask(f"SELECT pg_backend_pid(), {SILENCE}")[0])
        if self._ask(f"SELECT pg_try_advisory_lock({self._number})")[0]:
            return None
        found = self._ask(f"SELECT query FROM pg_stat_activity WHERE pid = ({self._whose()})")
        return _described(found[0] if found else None)

    def _holding_session(self) -> int | None:
        found = self._ask(self._whose())
        return int(found[0]) if found else None

    def _whose(self) -> str:
        """The statement that finds the session with the lock."""
        # A lock's number stands in two halves: https://www.postgresql.org/docs/current/view-pg-locks.html
        high, low = divmod(self._number % 2**64, 2**32)
        return (
            f"SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND classid = {high} AND objid = {low} "
            "AND objsubid = 1 AND granted "
            "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        )

    def _ask(self, statement: str) -> Any:
        assert self._connection is not None
        return self._connection.exec_driver_sql(f"{self._comment} {statement}").first()

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(SQLAlchemyError):
                connection.invalidate()
            connection.close()


def _comment(about: Mapping[str, str]) -> str:
    """`about` as an SQL comment."""
    short = {name: value[:COMMAND_LENGTH] if name == "command" else value[:60] for name, value in about.items()}
    # Without an asterisk no text can end the comment or begin another; without a percent sign none is a parameter.
    text = json.dumps(short).replace("*", "\\u002a").replace("%", "\\u0025")
    return f"/* {text} */"


def _described(statement: str | None) -> str:
    """Who the session is that runs `statement`."""
    try:
        said = json.loads((statement or "").removeprefix("/* ").partition(" */")[0])
        return f"`{said['command']}` (process {said['pid']} on {said['host']}, since {said['since']})"
    except (ValueError, KeyError, TypeError):
        return "a process that has not said who it is"


def _words(error: SQLAlchemyError) -> str:
    """The server's own words, in one line."""
    return " ".join(str(getattr(error, "orig", None) or error).split())
