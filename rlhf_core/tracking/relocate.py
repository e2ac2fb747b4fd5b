"""A workspace that was moved or copied: MLflow's database is told where its artifacts lie now.

MLflow keeps whole addresses in its tables, and would go on reading and writing where they were made.
"""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, unquote

from rlhf_core.tracking.errors import TrackingError

PATIENCE = 5.0
"""Seconds to wait for another program to let go of the database."""


class _Column(NamedTuple):
    """Where addresses stand."""

    table: str
    name: str
    keys: tuple[str, ...] = ()
    """Of a table of keys and values: the keys whose values are addresses."""
    key: str = "key"


COLUMNS = (
    _Column("experiments", "artifact_location"),
    _Column("runs", "artifact_uri"),
    _Column("logged_models", "artifact_location"),
    _Column("model_versions", "source"),
    _Column("model_versions", "storage_location"),
    _Column("datasets", "dataset_source"),
    _Column("trace_tags", "value", ("mlflow.artifactLocation",)),
    # Our own.
    _Column("tags", "value", ("rlhf.artifact",)),
    _Column("model_version_tags", "value", ("rlhf.snapshot_uri",)),
    _Column("logged_model_tags", "tag_value", ("rlhf.snapshot_uri",), "tag_key"),
)
"""Every place of MLflow's tables that holds an address of the workspace. Settings, as users wrote them, are none."""


def relocate(database: Path, old: Path, new: Path) -> int:
    """Let every address below the folder `old` in the SQLite file `database` be the same one below `new`.

    Paths and `file:` addresses, whole or within JSON, in one transaction; returns how many were changed. What lies
    elsewhere stays, and so does everything when it is called again. No database is none to change. Raises
    TrackingError where another program has the database open, and where it is no database.
    """
    if not database.exists():
        return 0
    move = _Move(old.absolute(), new.absolute())
    try:
        with closing(sqlite3.connect(database, timeout=PATIENCE, isolation_level=None)) as connection:
            # Taken with the first access, and refused while anybody else has the database open, be it to read.
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            connection.execute("BEGIN EXCLUSIVE")
            connection.create_function("relocated", 1, move.text, deterministic=True)
            changed = sum(_rewrite(connection, column) for column in COLUMNS)
            connection.execute("COMMIT")
            return changed
    except sqlite3.OperationalError as error:
        if "locked" not in str(error):
            raise _unusable(database, error) from error
        raise TrackingError(
            f"the workspace was moved here from {old}, and MLflow's database must be told, but another program has it "
            "open.",
            where=str(database),
            remedy="Stop what uses the workspace (`rlhf ui`, `mlflow server`, a run); then the same command goes on.",
        ) from error
    except sqlite3.DatabaseError as error:
        raise _unusable(database, error) from error


def _unusable(database: Path, error: sqlite3.Error) -> TrackingError:
    return TrackingError(
        f"the addresses in the MLflow database cannot be brought up to date: {error}.",
        where=str(database),
        remedy="Check its permissions and the disk; or move it away (a new one is created), or bring a backup back.",
    )


def _rewrite(connection: sqlite3.Connection, column: _Column) -> int:
    """The number of addresses changed in one column; 0 where this version of MLflow has no such column."""
    known = {row[1] for row in connection.execute(f"PRAGMA table_info({column.table})")}
    if column.name not in known:
        return 0
    statement = f"UPDATE {column.table} SET {column.name} = relocated({column.name}) "
    condition = f"WHERE relocated({column.name}) IS NOT {column.name}"
    if column.keys:
        condition += f" AND {column.key} IN ({', '.join('?' * len(column.keys))})"
    return connection.execute(statement + condition, column.keys).rowcount


class _Move:
    """Addresses below one folder become addresses below another."""

    def __init__(self, old: Path, new: Path) -> None:
        self._old = old
        self._new = new

    def text(self, value: Any) -> Any:
        """The content of a cell: an address, or JSON with addresses in it."""
        if not isinstance(value, str):
            return value
        if value.startswith(("{", "[")):
            try:
                stored = json.loads(value)
            except ValueError:
                return value
            moved = self._json(stored)
            return value if moved == stored else json.dumps(moved)
        return self._address(value)

    def _json(self, value: Any) -> Any:
        if isinstance(value, str):
            return self._address(value)
        if isinstance(value, list):
            return [self._json(item) for item in value]
        if isinstance(value, dict):
            return {name: self._json(item) for name, item in value.items()}
        return value

    def _address(self, value: str) -> str:
        scheme, path = "", value
        if value.startswith("file:"):
            # `file:///place` and `file:/place`, in which a space is `%20`.
            slashes = "//" if value.startswith("file:///") else ""
            scheme, path = f"file:{slashes}", value[len("file:") + len(slashes) :]
        elif not value.startswith("/"):
            return value
        parts = path.split("/")
        plain = [unquote(part) for part in parts] if scheme else parts
        depth = len(self._old.parts)
        if not _below(plain, self._old) or (self._new.is_relative_to(self._old) and _below(plain, self._new)):
            return value
        place = self._new.as_posix().rstrip("/")
        # What follows the folder stays as it is spelled.
        return "/".join([scheme + (quote(place) if scheme else place), *parts[depth:]])


def _below(parts: list[str], folder: Path) -> bool:
    """Whether the path with these parts, the first of them empty, is `folder` or lies below it."""
    return parts[1 : len(folder.parts)] == list(folder.parts[1:])
