"""What units were seen to read that nothing declares.

Revision: 0014
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "undeclared_input",
        sa.Column("asset_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("definition_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("code", sa.Text(), nullable=False),
        sa.Column("what", sa.Text(), nullable=False),
        sa.Column("place", sa.Text(), nullable=False, comment="where in the user's code it is read"),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("asset_id", "definition_id", "code", "what", name=op.f("pk_undeclared_input")),
        comment="what units were seen to read that is in no input, config or fingerprint",
    )


def downgrade() -> None:
    op.drop_table("undeclared_input")
