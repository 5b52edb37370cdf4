"""What a source asks with whether a document has changed: an ETag, a row's version.

Revision: 0002
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "observation",
        sa.Column("validator", sa.Text(), comment="what the source asks with whether it changed: an ETag, a version"),
    )


def downgrade() -> None:
    op.drop_column("observation", "validator")
