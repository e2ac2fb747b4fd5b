"""The queue of questions that people are asked, and who they are."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_text = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
_sequence = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "forms",
        sa.Column("id", _text, primary_key=True),
        sa.Column("content", _text, nullable=False),
    )
    op.create_table(
        "posted",
        sa.Column("seq", _sequence, primary_key=True, autoincrement=True),
        sa.Column("form_id", _text, nullable=False),
        sa.Column("question_id", _text, nullable=False),
        sa.Column("campaign", _text, nullable=False),
        sa.Column("round", sa.Integer, nullable=False),
        sa.Column("role", _text, nullable=False),
        sa.Column("about", _text, nullable=False),
        sa.Column("audience", _text),
        sa.Column("wanted", sa.Integer, nullable=False),
        sa.Column("open", sa.Integer, nullable=False),
        sa.Column("posted_at", _text, nullable=False),
        sa.UniqueConstraint("form_id", "question_id", name="posted_once"),
        sqlite_autoincrement=True,
    )
    op.create_index("posted_open", "posted", ["open", "role", "seq"])
    op.create_index("posted_by_question", "posted", ["question_id"])
    op.create_table(
        "assignments",
        sa.Column("form_id", _text, primary_key=True),
        sa.Column("question_id", _text, primary_key=True),
        sa.Column("annotator", _text, primary_key=True),
        sa.Column("leased_at", _text, nullable=False),
        sa.Column("expires_at", _text, nullable=False),
        sa.Column("draft", _text),
        sa.Column("answered_at", _text),
    )
    op.create_index("assignments_by_annotator", "assignments", ["annotator", "answered_at"])
    op.create_table(
        "people",
        sa.Column("name", _text, primary_key=True),
        sa.Column("role", _text, nullable=False),
        sa.Column("token_digest", _text, nullable=False, unique=True),
        sa.Column("paused", sa.Integer, nullable=False),
        sa.Column("created_at", _text, nullable=False),
    )
