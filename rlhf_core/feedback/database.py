"""The database under the feedback store: connections, transactions, migrations, and errors in plain words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from filelock import FileLock
from sqlalchemy import Connection, create_engine, event, inspect, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, SQLAlchemyError

from rlhf_core.errors import StoreError
from rlhf_core.feedback.schema import VERSION

BUSY_SECONDS = 120
"""How long a writer waits for other writers before it gives up."""
_WRITE_LOCK = 0x726C6866  # "rlhf": the key of the advisory lock on PostgreSQL
_POSTGRESQL = "postgresql+psycopg"


class Database:
    """A database of the current version, created or migrated where needed.

    Several processes may open a fresh one at once. Raises StoreError where it cannot be reached, belongs to something
    else, or was written by a newer version of this software.
    """

    def __init__(self, url: str) -> None:
        self.url = parsed(url)
        self.where = self.url.render_as_string(hide_password=True)
        self.sqlite = self.url.get_backend_name() == "sqlite"
        if self.sqlite:
            self.where = str(self.url.database)
        self._engine = create_engine(
            self.url, connect_args={"timeout": BUSY_SECONDS} if self.sqlite else {}, pool_pre_ping=not self.sqlite
        )
        if self.sqlite:
            event.listen(self._engine, "connect", _set_up_sqlite)
            event.listen(self._engine, "begin", _begin_sqlite)
        try:
            self._bring_up_to_date()
        except OSError as error:
            self.close()
            raise StoreError(
                f"the feedback store cannot be opened: {error.strerror or error}",
                where=self.where,
                remedy="Check the path and its permissions.",
            ) from error
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Give back all connections."""
        self._engine.dispose()

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that sees one state of the store throughout, whatever is added meanwhile; rolled back."""
        isolation = {} if self.sqlite else {"isolation_level": "REPEATABLE READ"}
        with self._plain_errors(), self._engine.connect().execution_options(**isolation) as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that adds; one at a time, so that the order of acceptance is the order of commits."""
        engine = self._engine.execution_options(rlhf_write=True)
        with self._plain_errors(), engine.begin() as connection:
            if not self.sqlite:
                connection.execute(text(f"SELECT pg_advisory_xact_lock({_WRITE_LOCK})"))
            yield connection

    def _bring_up_to_date(self) -> None:
        if self.sqlite:
            Path(self.where).parent.mkdir(parents=True, exist_ok=True)
        with self.read() as connection:
            if _version(connection) == VERSION:
                return
        # On PostgreSQL the write transaction itself holds the lock.
        lock: AbstractContextManager[Any] = FileLock(f"{self.where}.lock") if self.sqlite else nullcontext()
        with lock:
            if self.sqlite:
                with self._plain_errors(), self._engine.connect() as connection:
                    driver = connection.connection.driver_connection
                    assert driver is not None
                    driver.execute("PRAGMA journal_mode = WAL")  # stays with the file; impossible in a transaction
            with self.write() as connection:
                self._migrate(connection)

    def _migrate(self, connection: Connection) -> None:
        # Imported here: a store that is up to date, which is nearly always the case, opens without it.
        from alembic import command
        from alembic.config import Config
        from alembic.script import ScriptDirectory
        from alembic.util import CommandError

        found = _version(connection)
        if found is None and inspect(connection).get_table_names():
            raise StoreError(
                "the database belongs to something else: it has tables, but not those of a feedback store",
                where=self.where,
                remedy="Name another file or database.",
            )
        config = Config()
        config.set_main_option("script_location", "rlhf_core.feedback:migrations")
        config.attributes["connection"] = connection
        if found is not None:
            try:
                ScriptDirectory.from_config(config).get_revision(found)
            except CommandError:
                raise StoreError(
                    f"the feedback store is of version {found}, which is newer than this software ({VERSION})",
                    where=self.where,
                    remedy="Update the software, or name another store.",
                ) from None
        command.upgrade(config, "head")

    @contextmanager
    def _plain_errors(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            what, remedy = _explained(str(error.orig))
            raise StoreError(what, where=self.where, remedy=remedy) from error
        except SQLAlchemyError as error:
            raise StoreError(f"the feedback store cannot be used: {error}", where=self.where) from error


def parsed(url: str) -> URL:
    """The address of a store, with the driver that is used. Raises StoreError where it is none."""
    remedy = "Use sqlite:///FILE, or postgresql://USER:PASSWORD@HOST/DATABASE."
    try:
        found = make_url(url)
        if found.drivername in ("postgresql", "postgres"):
            found = found.set(drivername=_POSTGRESQL)
        found.get_dialect()
    except (ArgumentError, NoSuchModuleError):
        # The address may hold a password, so the message does not repeat it.
        raise StoreError("the address of the feedback store is no database URL", remedy=remedy) from None
    if found.get_backend_name() not in ("sqlite", "postgresql") or (
        found.get_backend_name() == "sqlite" and found.database in (None, "", ":memory:")
    ):
        raise StoreError("the feedback store lives in an SQLite file or in PostgreSQL", remedy=remedy)
    return found


def _set_up_sqlite(connection: Any, record: Any) -> None:
    connection.isolation_level = None  # transactions begin where we say, not where the driver guesses
    connection.execute("PRAGMA synchronous = FULL")  # a committed batch survives a loss of power, too
    connection.execute("PRAGMA cache_size = -65536")  # 64 MiB: ids are digests, so inserts land all over the index
    connection.execute("PRAGMA wal_autocheckpoint = 8000")  # 32 MiB, so that a page is not copied for every batch


def _begin_sqlite(connection: Connection) -> None:
    # A writer that began as a reader could not wait for other writers: SQLite would refuse it at once.
    writes = connection.get_execution_options().get("rlhf_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _version(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def _explained(message: str) -> tuple[str, str]:
    """What went wrong and what to do about it, from the driver's own words."""
    if "disk is full" in message or "No space left" in message:
        return (
            "the disk is full; the answers being added were not accepted, everything accepted before is safe",
            "Free some space and run the same command again: what is already stored is not stored twice.",
        )
    if "not a database" in message or "malformed" in message:
        return (
            f"the file is not a usable feedback store ({message})",
            "Name another file, or put back a copy of this one.",
        )
    if "locked" in message:
        return (
            f"another process has kept the feedback store busy for {BUSY_SECONDS} s",
            "Run the same command again when it is done; nothing accepted is lost.",
        )
    if "unable to open" in message or "readonly" in message or "read-only" in message:
        return f"the feedback store cannot be opened for writing ({message})", "Check the path and its permissions."
    return f"the database refuses: {message.strip()}", "Everything accepted before is safe."
