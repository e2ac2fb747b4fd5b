"""Putting rows into the store's tables, each once."""

from __future__ import annotations

from functools import cache
from operator import itemgetter
from typing import Any

from sqlalchemy import Connection, Table
from sqlalchemy.dialects import postgresql, sqlite

from rlhf_core.feedback.intake import Intake, Rows
from rlhf_core.feedback.schema import feedback, prompts, questions, samples


def insert_intake(connection: Connection, rows: Intake) -> int:
    """Insert answers with their prompts, samples and questions; the number of new answers."""
    insert_questions(connection, rows)
    return insert_new(connection, feedback, list(rows.feedback.values()))


def insert_questions(connection: Connection, rows: Intake) -> None:
    """Insert questions with their prompts and samples."""
    by_table: tuple[tuple[Table, Rows], ...] = (
        (prompts, rows.prompts), (samples, rows.samples), (questions, rows.questions),
    )  # fmt: skip
    for table, found in by_table:
        insert_new(connection, table, list(found.values()))


def insert_new(connection: Connection, table: Table, rows: list[dict[str, Any]]) -> int:
    """Insert the rows whose key is not there yet; their number."""
    if not rows:
        return 0
    statement, order = _statement(table, connection.dialect.name, tuple(rows[0]))
    parameters: Any = rows if order is None else list(map(itemgetter(*order), rows))
    # Straight to the driver: SQLAlchemy's own handling of the parameters costs more than SQLite's insert.
    result = connection.exec_driver_sql(statement, parameters, execution_options={"preserve_rowcount": True})
    return result.rowcount


@cache
def _statement(table: Table, dialect: str, columns: tuple[str, ...]) -> tuple[str, tuple[str, ...] | None]:
    """The insert in the driver's words, and the order of its parameters where they go by position."""
    module = sqlite if dialect == "sqlite" else postgresql
    insert = module.insert(table).on_conflict_do_nothing()
    compiled = insert.compile(dialect=_dialect(dialect), column_keys=list(columns))
    return str(compiled), None if compiled.positiontup is None else tuple(compiled.positiontup)


def _dialect(name: str) -> Any:
    from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg

    return sqlite.dialect() if name == "sqlite" else PGDialect_psycopg()  # type: ignore[no-untyped-call]
