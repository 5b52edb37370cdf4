"""Units are found by their labels, through an index of hashes: as many bytes whatever a label's length.

Revision: 0005
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_materialization_label", "materialization", [sa.text("hashtext(label)")])


def downgrade() -> None:
    op.drop_index("ix_materialization_label", table_name="materialization")
