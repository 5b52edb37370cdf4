"""What looking at the bytes told: damaged documents, how far a verification is, units that came out different.

Revision: 0006
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "object",
        sa.Column(
            "sha256",
            postgresql.BYTEA(),
            nullable=True,
            comment="of the object's bytes; null where it was written before this was kept",
        ),
    )
    op.add_column(
        "object",
        sa.Column(
            "retired_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="when its last document was moved to another pack, or let go",
        ),
    )
    op.create_table(
        "damage",
        sa.Column("document_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("asset_id", sa.Integer(), nullable=False),
        sa.Column(
            "cause",
            sa.Text(),
            nullable=False,
            comment="object-missing, corrupt; let-go where history beyond its retention was given up",
        ),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("document_id", name=op.f("pk_damage")),
        comment="documents whose bytes are not there any more, or are not what they were",
    )
    op.create_table(
        "verified",
        sa.Column("object_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("object_id", name=op.f("pk_verified")),
        comment="objects that were read and found right by a verification that has not ended yet",
    )
    op.create_table(
        "repeat",
        sa.Column("asset_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("definition_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("units", sa.BigInteger(), nullable=False),
        sa.Column("different", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("asset_id", "definition_id", name=op.f("pk_repeat")),
        comment="how many units were made again with the same recipe, and how many of them came out different",
    )


def downgrade() -> None:
    op.drop_table("repeat")
    op.drop_table("verified")
    op.drop_table("damage")
    op.drop_column("object", "retired_at")
    op.drop_column("object", "sha256")
