"""Code of an asset that counts as other code of it, and who said so.

Revision: 0013
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "acceptance",
        sa.Column("asset_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("old_code", postgresql.BYTEA(), nullable=False),
        sa.Column("new_code", postgresql.BYTEA(), nullable=False),
        sa.Column(
            "units", postgresql.JSONB(), nullable=False, comment="those that were tried, all with the same result"
        ),
        sa.Column("why", sa.Text(), comment="where it was said without trying"),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("asset_id", "old_code", "new_code", name=op.f("pk_acceptance")),
        comment="that what old code of an asset made counts as made by new code",
    )


def downgrade() -> None:
    op.drop_table("acceptance")
