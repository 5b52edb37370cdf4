"""What checks said of what was made.

Revision: 0004
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "check_version",
        sa.Column("id", sa.Integer(), sa.Identity(always=False), nullable=False),
        sa.Column("asset_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("scope", sa.Text(), nullable=False, comment="unit or asset"),
        sa.Column("digest", postgresql.BYTEA(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["asset_id"], ["asset.id"], name=op.f("fk_check_version_asset_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_check_version")),
        sa.UniqueConstraint("asset_id", "name", "digest", name=op.f("uq_check_version_asset_id_name_digest")),
        comment="a check, with one version of its code",
    )
    op.create_table(
        "check_result",
        sa.Column(
            "subject",
            sa.BigInteger(),
            autoincrement=False,
            nullable=False,
            comment="the materialization that was looked at; where the check is about the whole asset, the commit that made it so",
        ),
        sa.Column("check_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("blocking", sa.Boolean(), nullable=False),
        sa.Column("message", sa.Text(), nullable=True),
        sa.Column("traceback", sa.Text(), nullable=True),
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("subject", "check_id", name=op.f("pk_check_result")),
        comment="what a check said of a unit's materialization, or of an asset as of a commit",
    )
    op.create_table(
        "check_standing",
        sa.Column("environment_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("check_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column(
            "last_commit",
            sa.BigInteger(),
            nullable=False,
            comment="the asset's last commit when all of it had been looked at",
        ),
        sa.Column("passed", sa.Integer(), nullable=False),
        sa.Column("failed", sa.Integer(), nullable=False),
        sa.Column("errors", sa.Integer(), nullable=False),
        sa.Column(
            "findings",
            postgresql.JSONB(),
            nullable=False,
            comment="the first that did not pass: unit, status, message",
        ),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("environment_id", "check_id", name=op.f("pk_check_standing")),
        comment="derived: what a check says of an asset as it is, without reading its units",
    )


def downgrade() -> None:
    op.drop_table("check_standing")
    op.drop_table("check_result")
    op.drop_table("check_version")
