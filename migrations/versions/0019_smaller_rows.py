"""Rows of lineage are a fifth smaller: what follows from another row is not kept beside it, and no bytes are lost between columns.

A materialization has the run and the time of its commit. The one document that most units are given, and the one that most make, stand
in the row itself. Columns of a fixed size come first, and addresses have one.

Revision: 0019
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY, BYTEA, JSONB, array

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

BYTES = 16 << 20
BLOCK = 20
"""Bits of an identifier that count within the block of a commit."""


def upgrade() -> None:
    m = _columns("materialization", "id asset_id definition_id seconds unit label parent inputs documents")
    e = _columns("edge", "materialization_id document_id parameter")
    of_document = "id materialization_id object_id size asset_id row address name type media_type sha256 field_digests identity fields"
    d = _columns("document", of_document)
    h = _columns("head", "materialization_id since_commit until_commit environment_id asset_id unit")
    y = _columns("document_type", "id type media_type")
    first = (
        sa.select(e.materialization_id, sa.func.min(e.document_id).label("given"))
        .where(e.parameter == 0)
        .group_by(e.materialization_id)
        .having(sa.func.count() == 1)
        .subquery()
    )
    _rewrite(
        "materialization",
        [
            sa.Column("id", sa.BigInteger, nullable=False),
            sa.Column("given", sa.BigInteger,
                      comment="the document that it was given for its first parameter, where that was one: no edge"),
            sa.Column("asset_id", sa.Integer, nullable=False),
            sa.Column("definition_id", sa.Integer, nullable=False, comment="0 for sources"),
            sa.Column("seconds", sa.REAL, nullable=False),
            sa.Column("unit", sa.Uuid, nullable=False, comment="the address of the input document, or the group"),
            sa.Column("label", sa.Text, nullable=False, comment="the unit for people: the input document's name"),
            sa.Column("parent", sa.Text, comment="the input document's unit, where names repeat"),
            sa.Column("inputs", BYTEA, nullable=False, comment="32 bytes over the identities of the inputs in order"),
            sa.Column("documents", ARRAY(sa.BigInteger),
                      comment="what was made, in order; null where that is the one of the number before its own"),
        ],
        sa.select(
            m.id, first.c.given, m.asset_id, m.definition_id, m.seconds, _as_uuid(m.unit), m.label, m.parent, m.inputs,
            sa.case((m.documents != array([m.id - 1]), m.documents)),
        ).select_from(m.id.table.outerjoin(first, first.c.materialization_id == m.id)),
        "the fact that a unit, with a recipe (definition and inputs), produced these documents; run and time are its commit's",
    )  # fmt: skip
    op.create_index(
        "ix_materialization_given", "materialization", [sa.text("given NULLS FIRST")], postgresql_with=ASCENDING
    )
    _index_materializations()
    now = _columns("materialization", "id given")
    inside = sa.exists().where(now.id == e.materialization_id, now.given == e.document_id, e.parameter == 0)
    _rewrite(
        "edge",
        [
            sa.Column("materialization_id", sa.BigInteger, nullable=False),
            sa.Column("document_id", sa.BigInteger, nullable=False),
            sa.Column("parameter", sa.SmallInteger, nullable=False),
        ],
        sa.select(e.materialization_id, e.document_id, e.parameter).where(~inside),
        "a document that a unit was given, besides `materialization.given`: to be read through `given`",
    )
    _index_edges()
    op.create_table(
        "document_type",
        sa.Column("id", sa.Integer, sa.Identity()),
        sa.Column("type", sa.Text, nullable=False, comment="the name of the class"),
        sa.Column("media_type", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_document_type"),
        sa.UniqueConstraint("type", "media_type", name="uq_document_type_type_media_type"),
        comment="what documents are; never removed, because connections remember it",
    )
    _insert("document_type", ["type", "media_type"], sa.select(d.type, d.media_type).distinct())
    op.create_table(
        "typed",
        sa.Column("document_id", sa.BigInteger, autoincrement=False),
        sa.Column("fields", JSONB, nullable=False),
        sa.PrimaryKeyConstraint("document_id", name="pk_typed"),
        sa.CheckConstraint(sa.func.pg_column_size(sa.column("fields")) <= BYTES, name=op.f("ck_typed_fields_size")),
        comment="typed fields of a document, where no pack holds them",
    )
    _insert("typed", ["document_id", "fields"], sa.select(d.id, d.fields).where(d.fields.is_not(None)))
    _rewrite(
        "document",
        [
            sa.Column("id", sa.BigInteger, nullable=False),
            sa.Column("materialization_id", sa.BigInteger, nullable=False, comment="the one that made it first"),
            sa.Column("object_id", sa.BigInteger, nullable=False),
            sa.Column("size", sa.BigInteger, nullable=False),
            sa.Column("asset_id", sa.Integer, nullable=False),
            sa.Column("type_id", sa.Integer, nullable=False),
            sa.Column("row", sa.Integer, comment="row of the pack; null where the object is the document"),
            sa.Column("address", sa.Uuid, nullable=False, comment="unit and name; equal for all versions of a document"),
            sa.Column("name", sa.Text, nullable=False),
            sa.Column("sha256", BYTEA, nullable=False),
            sa.Column("field_digests", BYTEA, nullable=False, comment="16 bytes for each typed field"),
            sa.Column("identity", BYTEA, nullable=False),
        ],
        sa.select(
            d.id, d.materialization_id, d.object_id, d.size, d.asset_id, y.id, d.row, _as_uuid(d.address), d.name, d.sha256,
            d.field_digests, d.identity,
        ).join_from(d.id.table, y.id.table, sa.and_(y.type == d.type, y.media_type == d.media_type)),
        "one version of a document",
    )  # fmt: skip
    op.create_index("ix_document_sha256", "document", [sa.text("substr(sha256, 1, 7)")])
    _rewrite(
        "head",
        [
            sa.Column("materialization_id", sa.BigInteger, nullable=False),
            sa.Column("since_commit", sa.BigInteger, nullable=False),
            sa.Column("until_commit", sa.BigInteger),
            sa.Column("environment_id", sa.Integer, nullable=False),
            sa.Column("asset_id", sa.Integer, nullable=False),
            sa.Column("unit", sa.Uuid, nullable=False),
        ],
        sa.select(h.materialization_id, h.since_commit, h.until_commit, h.environment_id, h.asset_id, _as_uuid(h.unit)),
        HEADS,
    )
    _index_heads()
    op.alter_column("failure", "unit", type_=sa.Uuid, postgresql_using="encode(unit, 'hex')::uuid")


def downgrade() -> None:
    m = _columns("materialization", "id given asset_id definition_id seconds unit label parent inputs documents")
    d = _columns(
        "document",
        "id materialization_id object_id size asset_id type_id row address name sha256 field_digests identity",
    )
    f = _columns("typed", "document_id fields")
    y = _columns("document_type", "id type media_type")
    e = _columns("edge", "materialization_id document_id parameter")
    h = _columns("head", "materialization_id since_commit until_commit environment_id asset_id unit")
    c = _columns("commit", "id run_id at")
    op.alter_column("failure", "unit", type_=BYTEA, postgresql_using="uuid_send(unit)")
    _rewrite(
        "head",
        [
            sa.Column("environment_id", sa.Integer, nullable=False),
            sa.Column("asset_id", sa.Integer, nullable=False),
            sa.Column("unit", BYTEA, nullable=False),
            sa.Column("materialization_id", sa.BigInteger, nullable=False),
            sa.Column("since_commit", sa.BigInteger, nullable=False),
            sa.Column("until_commit", sa.BigInteger),
        ],
        sa.select(
            h.environment_id, h.asset_id, _as_bytes(h.unit), h.materialization_id, h.since_commit, h.until_commit
        ),
        HEADS,
    )
    _index_heads()
    _rewrite(
        "document",
        [
            sa.Column("id", sa.BigInteger, nullable=False),
            sa.Column("asset_id", sa.Integer, nullable=False),
            sa.Column("materialization_id", sa.BigInteger, nullable=False, comment="the one that made it first"),
            sa.Column("address", BYTEA, nullable=False, comment="16 bytes: unit and name; equal for all versions of a document"),
            sa.Column("name", sa.Text, nullable=False),
            sa.Column("type", sa.Text, nullable=False),
            sa.Column("media_type", sa.Text, nullable=False),
            sa.Column("size", sa.BigInteger, nullable=False),
            sa.Column("sha256", BYTEA, nullable=False),
            sa.Column("field_digests", BYTEA, nullable=False, comment="16 bytes for each typed field"),
            sa.Column("identity", BYTEA, nullable=False),
            sa.Column("object_id", sa.BigInteger, nullable=False),
            sa.Column("row", sa.Integer, comment="row of the pack; null where the object is the document"),
            sa.Column("fields", JSONB(none_as_null=True), comment="typed fields, where no pack holds them"),
            sa.CheckConstraint(sa.func.pg_column_size(sa.column("fields")) <= BYTES, name=op.f("ck_document_fields_size")),
        ],
        sa.select(
            d.id, d.asset_id, d.materialization_id, _as_bytes(d.address), d.name, y.type, y.media_type, d.size, d.sha256,
            d.field_digests, d.identity, d.object_id, d.row, f.fields,
        ).select_from(d.id.table.join(y.id.table, y.id == d.type_id).outerjoin(f.fields.table, f.document_id == d.id)),
        "one version of a document",
    )  # fmt: skip
    op.create_index("ix_document_sha256", "document", [sa.text("substr(sha256, 1, 7)")])
    op.drop_table("typed")
    op.drop_table("document_type")
    _rewrite(
        "edge",
        [
            sa.Column("materialization_id", sa.BigInteger, nullable=False),
            sa.Column("parameter", sa.SmallInteger, nullable=False),
            sa.Column("document_id", sa.BigInteger, nullable=False),
        ],
        sa.union_all(
            sa.select(e.materialization_id, e.parameter, e.document_id),
            sa.select(m.id, sa.literal(0, sa.Integer), m.given).where(m.given.is_not(None)),
        ),
        "a document that a unit was given",
    )
    _index_edges()
    _rewrite(
        "materialization",
        [
            sa.Column("id", sa.BigInteger, nullable=False),
            sa.Column("asset_id", sa.Integer, nullable=False),
            sa.Column("definition_id", sa.Integer, nullable=False, comment="0 for sources"),
            sa.Column("unit", BYTEA, nullable=False, comment="16 bytes: the address of the input document, or the group"),
            sa.Column("label", sa.Text, nullable=False, comment="the unit for people: the input document's name"),
            sa.Column("parent", sa.Text, comment="the input document's unit, where names repeat"),
            sa.Column("inputs", BYTEA, nullable=False, comment="32 bytes over the identities of the inputs in order"),
            sa.Column("documents", ARRAY(sa.BigInteger), nullable=False, comment="what was made, in order"),
            sa.Column("run_id", sa.Text, nullable=False),
            sa.Column("seconds", sa.REAL, nullable=False),
            sa.Column("made_at", sa.DateTime(timezone=True), nullable=False),
        ],
        sa.select(
            m.id, m.asset_id, m.definition_id, _as_bytes(m.unit), m.label, m.parent, m.inputs,
            sa.func.coalesce(m.documents, array([m.id - 1])), c.run_id, m.seconds, c.at,
        ).select_from(m.id.table.join(c.id.table, c.id == m.id.bitwise_rshift(sa.literal(BLOCK, sa.Integer)))),
        "the fact that a unit, with a recipe (definition and inputs), produced these documents",
    )  # fmt: skip
    _index_materializations()


ASCENDING = {"fillfactor": 100}
HEADS = "which materialization a unit is, in an environment, from one commit until another"
_TYPES: dict[str, Any] = {
    "id": sa.BigInteger, "given": sa.BigInteger, "documents": ARRAY(sa.BigInteger), "parameter": sa.SmallInteger, "fields": JSONB,
}  # fmt: skip


def _columns(table: str, names: str) -> Any:
    return sa.table(table, *(sa.column(name, _TYPES.get(name)) for name in names.split())).c


def _as_uuid(column: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    return sa.cast(sa.func.encode(column, "hex"), sa.Uuid)


def _as_bytes(column: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    return sa.func.uuid_send(column, type_=BYTEA)


def _insert(table: str, names: Sequence[str], rows: sa.SelectBase) -> None:
    op.execute(sa.insert(sa.table(table, *map(sa.column, names))).from_select(names, rows))


def _rewrite(table: str, parts: Sequence[Any], rows: sa.SelectBase, comment: str) -> None:
    """The rows of a table in other columns; indexes are made when all of it is there."""
    columns = [part.name for part in parts if isinstance(part, sa.Column)]
    op.create_table(f"{table}_now", *parts, comment=comment)
    _insert(f"{table}_now", columns, rows)
    op.drop_table(table)
    op.rename_table(f"{table}_now", table)
    if columns[0] == "id":
        op.create_primary_key(f"pk_{table}", table, ["id"])
        op.execute(f"ALTER INDEX pk_{table} SET (fillfactor = {ASCENDING['fillfactor']})")


def _index_materializations() -> None:
    op.create_index("ix_materialization_recipe", "materialization", ["asset_id", sa.text("substr(inputs, 1, 3)")])
    op.create_index("ix_materialization_label", "materialization", [sa.text("hashtext(label)")])


def _index_edges() -> None:
    for column in ("materialization_id", "document_id"):
        op.create_index(f"ix_edge_{column}", "edge", [column], postgresql_with=ASCENDING)


def _index_heads() -> None:
    current = ["environment_id", "asset_id", "unit"]
    op.create_index("uq_head_current", "head", current, unique=True, postgresql_where=sa.text("until_commit IS NULL"))
    past = ["environment_id", "asset_id", "until_commit"]
    op.create_index("ix_head_past", "head", past, postgresql_where=sa.text("until_commit IS NOT NULL"))
    op.create_index("ix_head_materialization_id", "head", ["materialization_id"], postgresql_with=ASCENDING)
