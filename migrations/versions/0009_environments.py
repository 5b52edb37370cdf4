"""Environments that are created from others, and what they borrow of them.

Revision: 0009
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "environment",
        sa.Column(
            "base",
            postgresql.JSONB(none_as_null=True),
            comment="what it was created from: an environment, and what each asset then was there",
        ),
    )
    op.add_column("environment", sa.Column("created_at", sa.DateTime(timezone=True)))
    op.create_table(
        "borrowed",
        sa.Column("environment_id", sa.Integer(), nullable=False),
        sa.Column("asset_id", sa.Integer(), nullable=False),
        sa.Column("lender_id", sa.Integer(), nullable=False, comment="the environment whose heads stand for the asset"),
        sa.Column("at_commit", sa.BigInteger(), nullable=False, comment="as of this commit of the lender"),
        sa.Column("since_commit", sa.BigInteger(), nullable=False),
        sa.Column("until_commit", sa.BigInteger()),
        comment="an asset of which an environment has no heads of its own, from one commit until another",
    )
    op.create_index(
        "uq_borrowed_current",
        "borrowed",
        ["environment_id", "asset_id"],
        unique=True,
        postgresql_where=sa.text("until_commit IS NULL"),
    )


def downgrade() -> None:
    op.drop_table("borrowed")
    op.drop_column("environment", "created_at")
    op.drop_column("environment", "base")
