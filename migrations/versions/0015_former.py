"""The names that an asset had before it was renamed: code that still uses one means the same asset.

Revision: 0015
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "asset",
        sa.Column(
            "former", postgresql.ARRAY(sa.Text()), nullable=False, server_default="{}",
            comment="its earlier names: code that still uses one of them means this asset",
        ),
    )  # fmt: skip


def downgrade() -> None:
    op.drop_column("asset", "former")
