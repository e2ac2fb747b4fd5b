"""How far back a withdrawal reaches, so that one can see at once which snapshots it changes."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add the column; nobody asks about withdrawals that were there before."""
    op.add_column("withdrawals", sa.Column("first", sa.BigInteger))
