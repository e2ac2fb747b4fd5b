"""The tables of the feedback store. Rows are only ever added; nothing is updated or deleted."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Integer, MetaData, Table, Text

VERSION = "0001"
"""The newest migration in `migrations/versions`; a store of this version is opened without looking at them."""

# Bytewise order, as in SQLite and in Python: a snapshot's digest depends on it.
_text = Text().with_variant(Text(collation="C"), "postgresql")
_sequence = BigInteger().with_variant(Integer, "sqlite")

metadata = MetaData()

prompts = Table(
    "prompts",
    metadata,
    Column("id", _text, primary_key=True),
    Column("split", _text, nullable=False),
    Column("content", _text, nullable=False),
)

samples = Table(
    "samples",
    metadata,
    Column("id", _text, primary_key=True),
    Column("prompt_id", _text, nullable=False),
    Column("policy", _text, nullable=False),
    Column("round", Integer, nullable=False),
    Column("content", _text, nullable=False),
)

questions = Table(
    "questions",
    metadata,
    Column("id", _text, primary_key=True),
    Column("prompt_id", _text, nullable=False),
    Column("sample_ids", _text, nullable=False),  # JSON list, in the order shown
    Column("reason", _text, nullable=False),
    Column("wanted", Integer, nullable=False),
)

feedback = Table(
    "feedback",
    metadata,
    Column("seq", _sequence, primary_key=True, autoincrement=True),  # the order of acceptance
    Column("id", _text, nullable=False, unique=True),
    Column("question_id", _text, nullable=False),
    Column("annotator", _text, nullable=False),
    Column("subject", _text, nullable=False),  # what it says something about: see `intake.subject`
    Column("revision", Integer, nullable=False),
    Column("kind", _text, nullable=False),
    Column("source", _text, nullable=False),
    Column("campaign", _text, nullable=False),
    Column("round", Integer, nullable=False),
    Column("created_at", _text, nullable=False),  # ISO 8601 in UTC with microseconds, so that it sorts
    Column("content", _text, nullable=False),
    Index("feedback_by_question", "question_id", "annotator", "revision"),
    sqlite_autoincrement=True,
)

withdrawals = Table(
    "withdrawals",
    metadata,
    Column("seq", _sequence, primary_key=True, autoincrement=True),
    Column("annotator", _text, nullable=False),
    Column("question_id", _text),  # null: all of the annotator's answers
    Column("subject", _text),
    Column("upto", BigInteger, nullable=False),  # answers accepted later are not withdrawn
    Column("reason", _text, nullable=False),
    Column("created_at", _text, nullable=False),
    Index("withdrawals_by_annotator", "annotator", "question_id"),
    sqlite_autoincrement=True,
)

marks = Table(
    "marks",
    metadata,
    Column("key", _text, primary_key=True),
    Column("watermark", BigInteger, nullable=False),
)

question_sets = Table(
    "question_sets",
    metadata,
    Column("set_id", _text, primary_key=True),
    Column("question_id", _text, primary_key=True),
)
