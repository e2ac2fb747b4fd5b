"""What the people who are shown samples do with them, and which samples are to be shown."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_text = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
_sequence = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "events",
        sa.Column("channel", _text, primary_key=True),
        sa.Column("id", _text, primary_key=True),
        sa.Column("action", _text, nullable=False),
        sa.Column("impression", _text, nullable=False),
        sa.Column("question_id", _text),
        sa.Column("sample_id", _text),
        sa.Column("position", sa.Integer),
        sa.Column("text", _text),
        sa.Column("at", _text, nullable=False),
    )
    op.create_index("events_by_impression", "events", ["channel", "impression"])
    op.create_index("events_by_question", "events", ["question_id"])
    op.create_table(
        "offers",
        sa.Column("seq", _sequence, primary_key=True, autoincrement=True),
        sa.Column("question_id", _text, nullable=False, unique=True),
        sa.Column("open", sa.Integer, nullable=False),
        sqlite_autoincrement=True,
    )
