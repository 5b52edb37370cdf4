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
        "glance",
        sa.Column("asset_id", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("documents", sa.Integer, nullable=False),
        sa.Column(
            "digest", BYTEA, nullable=False, comment="of what can be told of all files of a source without reading them"
        ),
        sa.Column("observed", BYTEA, nullable=False, comment="of the identities of the documents that these files are"),
        sa.PrimaryKeyConstraint("asset_id", name="pk_glance"),
        comment="the last look at a source as a whole: while the digest is the same, `observation` need not be read",
    )


def downgrade() -> None:
    op.drop_table("glance")
