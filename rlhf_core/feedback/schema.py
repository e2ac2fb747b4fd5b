"""The tables of the feedback store.

Of what people said and did (`feedback`, `events`), rows are only ever added; nothing is updated or deleted. The tables
of the queue (`posted`, `assignments`, `people`, `offers`) say how the asking stands, and change.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Integer, MetaData, Table, Text, UniqueConstraint

VERSION = "0004"
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
    Column("first", BigInteger),  # the earliest answer that counted until then; null: made before this was kept
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

forms = Table(
    "forms",
    metadata,
    Column("id", _text, primary_key=True),
    Column("content", _text, nullable=False),
)

posted = Table(
    "posted",
    metadata,
    Column("seq", _sequence, primary_key=True, autoincrement=True),  # the order in which questions are asked
    Column("form_id", _text, nullable=False),
    Column("question_id", _text, nullable=False),
    Column("campaign", _text, nullable=False),
    Column("round", Integer, nullable=False),
    Column("role", _text, nullable=False),  # asked, gold or repeat
    Column("about", _text, nullable=False),  # gold: the known answer as JSON; repeat: the question repeated
    Column("audience", _text),  # null: anybody
    Column("wanted", Integer, nullable=False),
    Column("open", Integer, nullable=False),  # 1 until enough annotators have answered
    Column("posted_at", _text, nullable=False),
    UniqueConstraint("form_id", "question_id", name="posted_once"),
    Index("posted_open", "open", "role", "seq"),
    Index("posted_by_question", "question_id"),
    sqlite_autoincrement=True,
)

assignments = Table(
    "assignments",
    metadata,
    Column("form_id", _text, primary_key=True),
    Column("question_id", _text, primary_key=True),
    Column("annotator", _text, primary_key=True),
    Column("leased_at", _text, nullable=False),
    Column("expires_at", _text, nullable=False),
    Column("draft", _text),  # JSON: what the annotator has begun to write
    Column("answered_at", _text),  # null: not yet
    Index("assignments_by_annotator", "annotator", "answered_at"),
)

people = Table(
    "people",
    metadata,
    Column("name", _text, primary_key=True),
    Column("role", _text, nullable=False),  # annotator, lead or app
    Column("token_digest", _text, nullable=False, unique=True),  # SHA-256; the token itself is stored nowhere
    Column("paused", Integer, nullable=False),
    Column("created_at", _text, nullable=False),
)

events = Table(
    "events",
    metadata,
    Column("channel", _text, primary_key=True),  # who reported it
    Column("id", _text, primary_key=True),  # given by the channel, so that sending it again changes nothing
    Column("action", _text, nullable=False),
    Column("impression", _text, nullable=False),  # the id of the impression that it is, or is a reaction to
    Column("question_id", _text),  # of impressions
    Column("sample_id", _text),
    Column("position", Integer),
    Column("text", _text),  # of edits
    Column("at", _text, nullable=False),
    Index("events_by_impression", "channel", "impression"),
    Index("events_by_question", "question_id"),
)

offers = Table(
    "offers",
    metadata,
    Column("seq", _sequence, primary_key=True, autoincrement=True),
    Column("question_id", _text, nullable=False, unique=True),
    Column("open", Integer, nullable=False),  # 1 as long as its samples are to be shown
    sqlite_autoincrement=True,
)
