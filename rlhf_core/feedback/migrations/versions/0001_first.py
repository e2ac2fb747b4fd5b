"""The first tables. Written out, not taken from `schema`, which goes on changing while this must not."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_text = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
_sequence = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "prompts",
        sa.Column("id", _text, primary_key=True),
        sa.Column("split", _text, nullable=False),
        sa.Column("content", _text, nullable=False),
    )
    op.create_table(
        "samples",
        sa.Column("id", _text, primary_key=True),
        sa.Column("prompt_id", _text, nullable=False),
        sa.Column("policy", _text, nullable=False),
        sa.Column("round", sa.Integer, nullable=False),
        sa.Column("content", _text, nullable=False),
    )
    op.create_table(
        "questions",
        sa.Column("id", _text, primary_key=True),
        sa.Column("prompt_id", _text, nullable=False),
        sa.Column("sample_ids", _text, nullable=False),
        sa.Column("reason", _text, nullable=False),
        sa.Column("wanted", sa.Integer, nullable=False),
    )
    op.create_table(
        "feedback",
        sa.Column("seq", _sequence, primary_key=True, autoincrement=True),
        sa.Column("id", _text, nullable=False, unique=True),
        sa.Column("question_id", _text, nullable=False),
        sa.Column("annotator", _text, nullable=False),
        sa.Column("subject", _text, nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("kind", _text, nullable=False),
        sa.Column("source", _text, nullable=False),
        sa.Column("campaign", _text, nullable=False),
        sa.Column("round", sa.Integer, nullable=False),
        sa.Column("created_at", _text, nullable=False),
        sa.Column("content", _text, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("feedback_by_question", "feedback", ["question_id", "annotator", "revision"])
    op.create_table(
        "withdrawals",
        sa.Column("seq", _sequence, primary_key=True, autoincrement=True),
        sa.Column("annotator", _text, nullable=False),
        sa.Column("question_id", _text),
        sa.Column("subject", _text),
        sa.Column("upto", sa.BigInteger, nullable=False),
        sa.Column("reason", _text, nullable=False),
        sa.Column("created_at", _text, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("withdrawals_by_annotator", "withdrawals", ["annotator", "question_id"])
    op.create_table(
        "marks",
        sa.Column("key", _text, primary_key=True),
        sa.Column("watermark", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "question_sets",
        sa.Column("set_id", _text, primary_key=True),
        sa.Column("question_id", _text, primary_key=True),
    )
