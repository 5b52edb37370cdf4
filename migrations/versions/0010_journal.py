"""The journal: what was done, by whom, each row sealed by the one before; and the keys of those whom it names.

Revision: 0010
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "journal",
        sa.Column("project_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("what", sa.Text(), nullable=False),
        sa.Column("environment", sa.Text()),
        sa.Column("asset", sa.Text()),
        sa.Column("run", sa.Text()),
        sa.Column("commit_id", sa.BigInteger()),
        sa.Column("why", sa.Text()),
        sa.Column("facts", postgresql.JSONB(), nullable=False),
        sa.Column("boxes", postgresql.JSONB(), nullable=False, comment="subject and what only its key opens"),
        sa.Column("hash", postgresql.BYTEA(), nullable=False, comment="of the row, and of the hash of the one before"),
        sa.PrimaryKeyConstraint("project_id", "number", name=op.f("pk_journal")),
        comment="what was done: appended in the transaction of what it tells, numbered without gaps",
    )
    op.create_index(op.f("ix_journal_commit_id"), "journal", ["commit_id"])
    op.create_table(
        "journal_batch",
        sa.Column("project_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("first", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("last", sa.BigInteger(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("digest", postgresql.BYTEA(), nullable=False),
        sa.PrimaryKeyConstraint("project_id", "first", name=op.f("pk_journal_batch")),
        comment="rows of the journal that lie in the bucket, as an object that is written once",
    )
    op.create_table(
        "subject_key",
        sa.Column("project_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("subject", postgresql.BYTEA(), nullable=False, comment="the address of a source's unit"),
        sa.Column("key", postgresql.BYTEA(), nullable=False),
        sa.PrimaryKeyConstraint("project_id", "subject", name=op.f("pk_subject_key")),
        comment="opens what the journal holds of a subject; destroyed when it is forgotten",
    )


def downgrade() -> None:
    op.drop_table("subject_key")
    op.drop_table("journal_batch")
    op.drop_table("journal")
