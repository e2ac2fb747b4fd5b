"""Putting rows into the store's tables, each once."""

from __future__ import annotations

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
    insert = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
    statement = insert(table).on_conflict_do_nothing().compile(dialect=connection.dialect, column_keys=list(rows[0]))
    parameters: Any = rows
    if statement.positiontup is not None:
        parameters = list(map(itemgetter(*statement.positiontup), rows))
    # Straight to the driver: SQLAlchemy's own handling of the parameters costs more than SQLite's insert.
    result = connection.exec_driver_sql(str(statement), parameters, execution_options={"preserve_rowcount": True})
    return result.rowcount
