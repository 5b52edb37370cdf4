"""A source whose files are what they were is told by one row, instead of by a row a file.

Revision: 0020
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import BYTEA

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "look",
        sa.Column("asset_id", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("looks", sa.Integer, nullable=False, comment="grows with each look that was kept"),
        sa.Column("documents", sa.Integer, nullable=False),
        sa.Column("glance", BYTEA, comment="the digest of what was there, unread; null where that tells nothing"),
        sa.Column("observed", BYTEA, nullable=False, comment="the digest of the identities of the documents"),
        sa.PrimaryKeyConstraint("asset_id", name="pk_look"),
        comment="the last look at a source as a whole: while a glance finds the same, `observation` need not be read",
    )


def downgrade() -> None:
    op.drop_table("look")
