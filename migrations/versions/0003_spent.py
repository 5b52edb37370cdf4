"""What a materialization said that it cost, in tokens and US dollars.

Revision: 0003
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "spent",
        sa.Column("materialization_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("tokens", sa.BigInteger(), nullable=False),
        sa.Column("usd", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("materialization_id", name=op.f("pk_spent")),
        comment="what a materialization said that it cost; no row where it said nothing",
    )


def downgrade() -> None:
    op.drop_table("spent")
