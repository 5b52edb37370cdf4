"""The first schema: declarations, facts, heads, runs.

Revision: 0001
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(sa.schema.CreateSequence(sa.Sequence("block", data_type=sa.BigInteger)))
    op.create_table(
        "collected",
        sa.Column("materialization_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("parameter", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("asset_id", sa.Integer(), nullable=False),
        sa.Column("environment_id", sa.Integer(), nullable=False),
        sa.Column("commit_id", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("materialization_id", "parameter", name=op.f("pk_collected")),
        comment="a whole asset that a unit was given, as it was at a commit: one row instead of one for each document",
    )
    op.create_index(op.f("ix_collected_asset_id"), "collected", ["asset_id"], unique=False)
    op.create_table(
        "commit",
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("environment_id", sa.Integer(), nullable=False),
        sa.Column("asset_id", sa.Integer(), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("manifest", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_commit")),
        comment="one transaction that changed what an asset is; its id names its manifest, and grows with each commit of an asset",
    )
    op.create_index(op.f("ix_commit_environment_id_at"), "commit", ["environment_id", "at"], unique=False)
    op.create_table(
        "document",
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("asset_id", sa.Integer(), nullable=False),
        sa.Column("materialization_id", sa.BigInteger(), nullable=False, comment="the one that made it first"),
        sa.Column(
            "address",
            postgresql.BYTEA(),
            nullable=False,
            comment="16 bytes: unit and name; equal for all versions of a document",
        ),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("media_type", sa.Text(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("sha256", postgresql.BYTEA(), nullable=False),
        sa.Column("field_digests", postgresql.BYTEA(), nullable=False, comment="16 bytes for each typed field"),
        sa.Column("identity", postgresql.BYTEA(), nullable=False),
        sa.Column("object_id", sa.BigInteger(), nullable=False),
        sa.Column("row", sa.Integer(), nullable=True, comment="row of the pack; null where the object is the document"),
        sa.Column("fields", postgresql.JSONB(), nullable=True, comment="typed fields, where no pack holds them"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_document")),
        comment="one version of a document",
    )
    op.create_index(op.f("ix_document_sha256"), "document", ["sha256"], unique=False)
    op.create_table(
        "edge",
        sa.Column("materialization_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("parameter", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("document_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint("materialization_id", "parameter", "document_id", name=op.f("pk_edge")),
        comment="a document that a unit was given",
    )
    op.create_index(op.f("ix_edge_document_id"), "edge", ["document_id"], unique=False)
    op.create_table(
        "failure",
        sa.Column("environment_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("asset_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("unit", postgresql.BYTEA(), nullable=False),
        sa.Column("label", sa.Text(), nullable=False),
        sa.Column("definition_id", sa.Integer(), nullable=False),
        sa.Column("inputs", postgresql.BYTEA(), nullable=False),
        sa.Column("error", sa.Text(), nullable=False),
        sa.Column("traceback", sa.Text(), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("environment_id", "asset_id", "unit", name=op.f("pk_failure")),
        comment="units whose last attempt failed, with the recipe that failed",
    )
    op.create_table(
        "head",
        sa.Column("environment_id", sa.Integer(), nullable=False),
        sa.Column("asset_id", sa.Integer(), nullable=False),
        sa.Column("unit", postgresql.BYTEA(), nullable=False),
        sa.Column("materialization_id", sa.BigInteger(), nullable=False),
        sa.Column("since_commit", sa.BigInteger(), nullable=False),
        sa.Column("until_commit", sa.BigInteger(), nullable=True),
        comment="which materialization a unit is, in an environment, from one commit until another",
    )
    op.create_index(op.f("ix_head_materialization_id"), "head", ["materialization_id"], unique=False)
    op.create_index(
        "ix_head_past",
        "head",
        ["environment_id", "asset_id", "until_commit"],
        unique=False,
        postgresql_where=sa.text("until_commit IS NOT NULL"),
    )
    op.create_index(
        "uq_head_current",
        "head",
        ["environment_id", "asset_id", "unit"],
        unique=True,
        postgresql_where=sa.text("until_commit IS NULL"),
    )
    op.create_table(
        "materialization",
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("asset_id", sa.Integer(), nullable=False),
        sa.Column("definition_id", sa.Integer(), nullable=False, comment="0 for sources"),
        sa.Column(
            "unit",
            postgresql.BYTEA(),
            nullable=False,
            comment="16 bytes: the address of the input document, or the group",
        ),
        sa.Column("label", sa.Text(), nullable=False, comment="the unit for people: the input document's name"),
        sa.Column("parent", sa.Text(), nullable=True, comment="the input document's unit, where names repeat"),
        sa.Column(
            "inputs", postgresql.BYTEA(), nullable=False, comment="32 bytes over the identities of the inputs in order"
        ),
        sa.Column("documents", postgresql.ARRAY(sa.BigInteger()), nullable=False, comment="what was made, in order"),
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("seconds", sa.REAL(), nullable=False),
        sa.Column("made_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_materialization")),
        comment="the fact that a unit, with a recipe (definition and inputs), produced these documents",
    )
    op.create_index("ix_materialization_recipe", "materialization", ["asset_id", "inputs"], unique=False)
    op.create_table(
        "object",
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("asset_id", sa.Integer(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column(
            "rows", sa.Integer(), nullable=True, comment="documents of a pack; null where the object is the document"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_object")),
        sa.UniqueConstraint("key", name=op.f("uq_object_key")),
    )
    op.create_table(
        "observation",
        sa.Column("asset_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("mtime_ns", sa.BigInteger(), nullable=False),
        sa.Column("inode", sa.BigInteger(), nullable=False),
        sa.Column("media_type", sa.Text(), nullable=False),
        sa.Column("sha256", postgresql.BYTEA(), nullable=False),
        sa.Column("field_digests", postgresql.BYTEA(), nullable=False),
        sa.Column("identity", postgresql.BYTEA(), nullable=False),
        sa.PrimaryKeyConstraint("asset_id", "name", name=op.f("pk_observation")),
        comment="the last look at a source: what need not be hashed again",
    )
    op.create_table(
        "part",
        sa.Column("digest", postgresql.BYTEA(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_part")),
        comment="the normalised source of each part of a fingerprint, once for each digest",
    )
    op.create_table(
        "project",
        sa.Column("id", sa.Integer(), sa.Identity(always=False), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_project")),
        sa.UniqueConstraint("name", name=op.f("uq_project_name")),
    )
    op.create_table(
        "watermark",
        sa.Column("environment_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("asset_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column(
            "changed_commit", sa.BigInteger(), nullable=False, comment="the last commit that changed its documents"
        ),
        sa.Column(
            "last_commit",
            sa.BigInteger(),
            nullable=False,
            comment="the last commit, whether it changed documents or not",
        ),
        sa.Column(
            "settled",
            postgresql.JSONB(),
            nullable=True,
            comment="definition and upstream commits with which every unit was found fresh",
        ),
        sa.Column("units", sa.Integer(), nullable=False),
        sa.Column("documents", sa.Integer(), nullable=False),
        sa.Column("made_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("environment_id", "asset_id", name=op.f("pk_watermark")),
        comment="derived: what is known of an asset without reading its units",
    )
    op.create_table(
        "asset",
        sa.Column("id", sa.Integer(), sa.Identity(always=False), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column(
            "name", sa.Text(), nullable=False, comment="its name now; earlier ones are in the journal of commits"
        ),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("flow", sa.Text(), nullable=False, comment="the asset's group: second part of its keys"),
        sa.ForeignKeyConstraint(["project_id"], ["project.id"], name=op.f("fk_asset_project_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_asset")),
        sa.UniqueConstraint("project_id", "name", name=op.f("uq_asset_project_id_name")),
    )
    op.create_table(
        "environment",
        sa.Column("id", sa.Integer(), sa.Identity(always=False), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["project.id"], name=op.f("fk_environment_project_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_environment")),
        sa.UniqueConstraint("project_id", "name", name=op.f("uq_environment_project_id_name")),
    )
    op.create_table(
        "definition",
        sa.Column("id", sa.Integer(), sa.Identity(always=False), nullable=False),
        sa.Column("asset_id", sa.Integer(), nullable=False),
        sa.Column("digest", postgresql.BYTEA(), nullable=False),
        sa.Column(
            "facts",
            postgresql.JSONB(),
            nullable=False,
            comment="each component with its digest and what it was made of",
        ),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["asset_id"], ["asset.id"], name=op.f("fk_definition_asset_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_definition")),
        sa.UniqueConstraint("asset_id", "digest", name=op.f("uq_definition_asset_id_digest")),
        comment="the part of a recipe that all units of an asset share",
    )
    op.create_table(
        "run",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("environment_id", sa.Integer(), nullable=False),
        sa.Column("selection", sa.Text(), nullable=False),
        sa.Column("plan", postgresql.JSONB(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("flow_run", sa.Text(), nullable=True),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["environment_id"], ["environment.id"], name=op.f("fk_run_environment_id")),
        sa.ForeignKeyConstraint(["project_id"], ["project.id"], name=op.f("fk_run_project_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_run")),
    )
    op.create_index(op.f("ix_run_project_id_started_at"), "run", ["project_id", "started_at"], unique=False)
    op.create_table(
        "run_asset",
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("asset", sa.Text(), nullable=False),
        sa.Column("counts", postgresql.JSONB(), nullable=False),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["run.id"], name=op.f("fk_run_asset_run_id")),
        sa.PrimaryKeyConstraint("run_id", "asset", name=op.f("pk_run_asset")),
    )
    # ### end Alembic commands ###


def downgrade() -> None:
    op.drop_table("run_asset")
    op.drop_index(op.f("ix_run_project_id_started_at"), table_name="run")
    op.drop_table("run")
    op.drop_table("definition")
    op.drop_table("environment")
    op.drop_table("asset")
    op.drop_table("watermark")
    op.drop_table("project")
    op.drop_table("part")
    op.drop_table("observation")
    op.drop_table("object")
    op.drop_index("ix_materialization_recipe", table_name="materialization")
    op.drop_table("materialization")
    op.drop_index("uq_head_current", table_name="head", postgresql_where=sa.text("until_commit IS NULL"))
    op.drop_index("ix_head_past", table_name="head", postgresql_where=sa.text("until_commit IS NOT NULL"))
    op.drop_index(op.f("ix_head_materialization_id"), table_name="head")
    op.drop_table("head")
    op.drop_table("failure")
    op.drop_index(op.f("ix_edge_document_id"), table_name="edge")
    op.drop_table("edge")
    op.drop_index(op.f("ix_document_sha256"), table_name="document")
    op.drop_table("document")
    op.drop_index(op.f("ix_commit_environment_id_at"), table_name="commit")
    op.drop_table("commit")
    op.drop_index(op.f("ix_collected_asset_id"), table_name="collected")
    op.drop_table("collected")
    # ### end Alembic commands ###
    op.execute(sa.schema.DropSequence(sa.Sequence("block")))
