"""Hashes are found by their first bytes, and edges by the materialization alone: indexes of a third of the size.

Revision: 0018
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_index("ix_document_sha256", table_name="document")
    op.create_index("ix_document_sha256", "document", [sa.text("substr(sha256, 1, 7)")])
    op.drop_index("ix_materialization_recipe", table_name="materialization")
    op.create_index("ix_materialization_recipe", "materialization", ["asset_id", sa.text("substr(inputs, 1, 3)")])
    op.drop_constraint("pk_edge", "edge", type_="primary")
    op.create_index("ix_edge_materialization_id", "edge", ["materialization_id"])


def downgrade() -> None:
    op.drop_index("ix_edge_materialization_id", table_name="edge")
    op.create_primary_key("pk_edge", "edge", ["materialization_id", "parameter", "document_id"])
    op.drop_index("ix_materialization_recipe", table_name="materialization")
    op.create_index("ix_materialization_recipe", "materialization", ["asset_id", "inputs"])
    op.drop_index("ix_document_sha256", table_name="document")
    op.create_index("ix_document_sha256", "document", ["sha256"])
