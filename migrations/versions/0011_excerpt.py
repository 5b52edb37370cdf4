"""Which part of which document another one is.

Revision: 0011
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "excerpt",
        sa.Column("materialization_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("document_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("whole_id", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("start", sa.BigInteger()),
        sa.Column("end", sa.BigInteger()),
        sa.Column("pointer", sa.Text()),
        sa.PrimaryKeyConstraint("materialization_id", "document_id", name=op.f("pk_excerpt")),
        comment="which part of a document that a unit was given a document that it made is; no row where it said nothing",
    )


def downgrade() -> None:
    op.drop_table("excerpt")
