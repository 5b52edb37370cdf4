"""Flow runs that have ended, and of which Prefect was not told.

Revision: 0016
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "unshown",
        sa.Column("flow_run", sa.Text(), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False, comment="how it ended"),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["project.id"], name=op.f("fk_unshown_project_id")),
        sa.PrimaryKeyConstraint("flow_run", name=op.f("pk_unshown")),
        comment="flow runs that have ended, and of which Prefect was not told: its API did not answer, or their process died",
    )


def downgrade() -> None:
    op.drop_table("unshown")
