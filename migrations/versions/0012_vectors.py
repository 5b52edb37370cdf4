"""Indexes of vectors, in generations, and what was tried for them.

Revision: 0012
"""

from __future__ import annotations

import re

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("CREATE EXTENSION IF NOT EXISTS vector")
    op.create_table(
        "vector_generation",
        sa.Column("id", sa.Integer(), sa.Identity(always=False), nullable=False),
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("environment", sa.Text(), nullable=False),
        sa.Column("asset", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("dimensions", sa.Integer(), nullable=False),
        sa.Column("created", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column(
            "completed",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="when it first held all documents, and began to answer",
        ),
        sa.Column("active", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column(
            "synced",
            sa.BigInteger(),
            server_default="0",
            nullable=False,
            comment="the asset's commit that it was brought up to",
        ),
        sa.Column("indexed", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("parameters", postgresql.JSONB(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_vector_generation")),
        comment="derived: an index of an asset's vectors, by one model; its rows are in a table of its own",
    )
    op.create_index(
        "ix_vector_generation_active",
        "vector_generation",
        ["project", "environment", "asset"],
        unique=True,
        postgresql_where=sa.text("active"),
    )
    op.create_table(
        "vector_trial",
        sa.Column("id", sa.Integer(), sa.Identity(always=False), nullable=False),
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("environment", sa.Text(), nullable=False),
        sa.Column("asset", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("rows", sa.Integer(), nullable=False),
        sa.Column("questions", sa.Integer(), nullable=False),
        sa.Column("m", sa.Integer(), nullable=False),
        sa.Column("ef_construction", sa.Integer(), nullable=False),
        sa.Column("ef_search", sa.Integer(), nullable=False),
        sa.Column("recall", sa.Double(), nullable=False, comment="of the ten nearest, the share that was found"),
        sa.Column("p50_ms", sa.Double(), nullable=False),
        sa.Column("p95_ms", sa.Double(), nullable=False),
        sa.Column("build_seconds", sa.Double(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_vector_trial")),
        comment="what parameters of an index were tried, and how they did beside an exact search",
    )


def downgrade() -> None:
    for name in sa.inspect(op.get_bind()).get_table_names():
        if re.fullmatch(r"vector_\d+", name):  # the rows of a generation
            op.drop_table(name)
    op.drop_table("vector_trial")
    op.drop_table("vector_generation")
