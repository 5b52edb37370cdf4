"""Tables: what does Postgres hold of assets, documents and runs?

    project --< environment --< head >-- materialization --< given >-- document >-- object
           \\--< asset --< definition           \\--< collected (a whole asset, as of a commit)

Facts (`materialization`, `document`, `edge`, `excerpt`, `definition`, `object`) are written once. What an asset currently *is* in an
environment is the set of its heads whose `until_commit` is null; a head is superseded, never updated, so the asset as of any
commit can be read. An environment that was created from another has no heads of an asset before its first commit to it: it has
`borrowed` those of the other, so what is current is read through `heads.heads_of`. `watermark` is derived: it says at which commit an
asset last changed and whether it was found settled, so that a plan in which nothing changed reads a row an asset instead of a row a
unit. `failure`, `observation` and `look` are the last attempt and the last look at the outer world; they can be lost without losing a
fact.
So can what checks said: `check_result` of each thing that was looked at, `check_standing` (derived) of an asset as it is. What looking
at the bytes told is `damage`, `verified` (how far that is) and `repeat`; all three can be found again.
`journal` says what was done, and by whom.

Identifiers of facts are given by the writer in blocks, so that the manifest in the bucket can name them before Postgres is told.
What follows from a row is not told by another: of a materialization its commit has run and time, and the one document that it was given,
or made, needs no row and no list. It is read through `given` and `documents_of`.
The large tables carry no foreign keys: rows arrive by COPY within one transaction, and nothing deletes what they point to.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, BYTEA, JSONB, array

__all__ = [
    "LARGEST", "LEADING_INPUTS", "LEADING_SHA256", "Address", "acceptance", "answer", "asset", "block", "borrowed", "check_result",
    "check_standing", "check_version", "collected", "commit", "commit_of", "damage", "definition", "document", "document_type",
    "documents_of", "edge", "environment", "excerpt", "failure", "given", "head", "journal", "journal_batch", "leading", "look",
    "materialization", "metadata", "object_", "observation", "part", "project", "repeat", "run", "run_asset", "small", "span",
    "spent", "subject_key", "typed", "undeclared_input", "unshown", "vector_generation", "vector_trial", "verified", "watermark",
]  # fmt: skip

metadata = sa.MetaData(
    naming_convention={"ix": "ix_%(table_name)s_%(column_0_N_name)s", "uq": "uq_%(table_name)s_%(column_0_N_name)s",
                       "fk": "fk_%(table_name)s_%(column_0_N_name)s", "pk": "pk_%(table_name)s",
                       "ck": "ck_%(table_name)s_%(constraint_name)s"}
)  # fmt: skip

block = sa.Sequence("block", metadata=metadata, data_type=sa.BigInteger)
"""Identifiers come in blocks of 2**20: one value of the sequence for each commit, whatever the number of rows."""


LARGEST = 16 << 20
"""Bytes of a value that comes of documents, errors or code. Bytes belong into the store: nothing that is metadata is as large."""


def small(*names: str) -> list[sa.CheckConstraint]:
    """Postgres refuses what is larger in these columns. As it is given: what is stored compressed may have been larger."""
    return [sa.CheckConstraint(sa.func.pg_column_size(sa.column(n)) <= LARGEST, name=f"{n}_size") for n in names]


ASCENDING = {"fillfactor": 100}
"""Of an index whose entries come in order: no room is left in its pages. Also of the large tables' keys, where the migration says so."""
LEADING_SHA256, LEADING_INPUTS = 7, 3
"""Bytes by which hashes are found: as many as fit into the smallest entry of an index, alone and beside an asset's number."""


def leading(hashed: sa.ColumnElement[bytes], size: int) -> sa.ColumnElement[bytes]:
    """The first bytes of a hash, which are indexed instead of all of it: what they find is compared as a whole.

    Their number stands in the statement itself, because Postgres knows the index by it.
    """
    return sa.func.substr(hashed, *(sa.literal(n, sa.Integer, literal_execute=True) for n in (1, size)), type_=BYTEA)


class Address(sa.TypeDecorator[bytes]):
    """Sixteen bytes, which Postgres keeps without their length as a uuid; a connection takes and gives bytes (`schema.connect`)."""

    impl = sa.Uuid
    cache_ok = True


def commit_of(identifier: sa.ColumnElement[int]) -> sa.ColumnElement[int]:
    """The number of the commit that a fact came about with: its identifier is of the commit's block."""
    return identifier.bitwise_rshift(sa.literal(20, sa.Integer))


def documents_of(m: Any) -> sa.ColumnElement[Any]:
    """The documents that a materialization (columns) made, in order."""
    return sa.func.coalesce(m.documents, array([m.id - 1]), type_=ARRAY(sa.BigInteger))


def _now() -> sa.Column[object]:
    return sa.Column("at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now())


project = sa.Table(
    "project", metadata,
    sa.Column("id", sa.Integer, sa.Identity(), primary_key=True),
    sa.Column("name", sa.Text, nullable=False, unique=True),
)  # fmt: skip

environment = sa.Table(
    "environment", metadata,
    sa.Column("id", sa.Integer, sa.Identity(), primary_key=True),
    sa.Column("project_id", sa.ForeignKey("project.id"), nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("base", JSONB(none_as_null=True), comment="what it was created from: an environment, and what each asset then was there"),
    sa.Column("created_at", sa.DateTime(timezone=True)),
    sa.Column("drops", ARRAY(sa.BigInteger), nullable=False, server_default="{}",
              comment="the commits since which nothing was current in it, until it was created again"),
    sa.UniqueConstraint("project_id", "name"),
)  # fmt: skip

asset = sa.Table(
    "asset", metadata,
    sa.Column("id", sa.Integer, sa.Identity(), primary_key=True),
    sa.Column("project_id", sa.ForeignKey("project.id"), nullable=False),
    sa.Column("name", sa.Text, nullable=False, comment="its name now; earlier ones are in the journal of commits"),
    sa.Column("former", ARRAY(sa.Text), nullable=False, server_default="{}",
              comment="its earlier names: code that still uses one of them means this asset"),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("flow", sa.Text, nullable=False, comment="the asset's group: second part of its keys"),
    sa.UniqueConstraint("project_id", "name"),
)  # fmt: skip

definition = sa.Table(
    "definition", metadata,
    sa.Column("id", sa.Integer, sa.Identity(), primary_key=True),
    sa.Column("asset_id", sa.ForeignKey("asset.id"), nullable=False),
    sa.Column("digest", BYTEA, nullable=False),
    sa.Column("facts", JSONB, nullable=False, comment="each component with its digest and what it was made of"),
    _now(),
    sa.UniqueConstraint("asset_id", "digest"),
    *small("facts"),
    comment="the part of a recipe that all units of an asset share",
)  # fmt: skip

part = sa.Table(
    "part", metadata,
    sa.Column("digest", BYTEA, primary_key=True),
    sa.Column("source", sa.Text, nullable=False),
    *small("source"),
    comment="the normalised source of each part of a fingerprint, once for each digest",
)  # fmt: skip

run = sa.Table(
    "run", metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("project_id", sa.ForeignKey("project.id"), nullable=False),
    sa.Column("environment_id", sa.ForeignKey("environment.id"), nullable=False),
    sa.Column("selection", sa.Text, nullable=False),
    sa.Column("plan", JSONB, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("flow_run", sa.Text),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("finished_at", sa.DateTime(timezone=True)),
    sa.Index(None, "project_id", "started_at"),
)  # fmt: skip

run_asset = sa.Table(
    "run_asset", metadata,
    sa.Column("run_id", sa.ForeignKey("run.id"), primary_key=True),
    sa.Column("asset", sa.Text, primary_key=True),
    sa.Column("counts", JSONB, nullable=False),
    sa.Column("seconds", sa.Double, nullable=False),
)  # fmt: skip

unshown = sa.Table(
    "unshown", metadata,
    sa.Column("flow_run", sa.Text, primary_key=True),
    sa.Column("project_id", sa.ForeignKey("project.id"), nullable=False),
    sa.Column("status", sa.Text, nullable=False, comment="how it ended"),
    _now(),
    comment="flow runs that have ended, and of which Prefect was not told: its API did not answer, or their process died",
)  # fmt: skip

span = sa.Table(
    "span", metadata,
    sa.Column("run_id", sa.Text, primary_key=True),
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("parent", sa.Integer),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("seconds", sa.Double, nullable=False),
    sa.Column("attributes", JSONB, nullable=False),
    sa.Column("error", sa.Text),
    *small("attributes", "error"),
    comment="what took time in a run; removed with the days, may be lost",
)  # fmt: skip

commit = sa.Table(
    "commit", metadata,
    sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("project_id", sa.Integer, nullable=False),
    sa.Column("environment_id", sa.Integer, nullable=False),
    sa.Column("asset_id", sa.Integer, nullable=False),
    sa.Column("run_id", sa.Text, nullable=False),
    sa.Column("manifest", sa.Text, nullable=False),
    _now(),
    sa.Index(None, "environment_id", "at"),
    comment="one transaction that changed what an asset is; its id names its manifest, and grows with each commit of an asset",
)  # fmt: skip

object_ = sa.Table(
    "object", metadata,
    sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("asset_id", sa.Integer, nullable=False),
    sa.Column("key", sa.Text, nullable=False, unique=True),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("rows", sa.Integer, comment="documents of a pack; null where the object is the document"),
    sa.Column("sha256", BYTEA, comment="of the object's bytes; null where it was written before this was kept"),
    sa.Column("retired_at", sa.DateTime(timezone=True), comment="when its last document was moved to another pack, or let go"),
)  # fmt: skip

materialization = sa.Table(
    "materialization", metadata,
    sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("given", sa.BigInteger, comment="the document that it was given for its first parameter, where that was one: no edge"),
    sa.Column("asset_id", sa.Integer, nullable=False),
    sa.Column("definition_id", sa.Integer, nullable=False, comment="0 for sources"),
    sa.Column("seconds", sa.REAL, nullable=False),
    sa.Column("unit", Address, nullable=False, comment="the address of the input document, or the group"),
    sa.Column("label", sa.Text, nullable=False, comment="the unit for people: the input document's name"),
    sa.Column("parent", sa.Text, comment="the input document's unit, where names repeat"),
    sa.Column("inputs", BYTEA, nullable=False, comment="32 bytes over the identities of the inputs in order"),
    sa.Column("documents", ARRAY(sa.BigInteger),
              comment="what was made, in order; null where that is the one of the number before its own"),
    comment="the fact that a unit, with a recipe (definition and inputs), produced these documents; run and time are its commit's",
)  # fmt: skip

sa.Index("ix_materialization_recipe", materialization.c.asset_id, leading(materialization.c.inputs, LEADING_INPUTS))
sa.Index("ix_materialization_given", materialization.c.given.nulls_first(), postgresql_with=ASCENDING)
sa.Index("ix_materialization_label", sa.func.hashtext(materialization.c.label))

spent = sa.Table(
    "spent", metadata,
    sa.Column("materialization_id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("tokens", sa.BigInteger, nullable=False),
    sa.Column("usd", sa.Double, nullable=False),
    sa.Column("cached_tokens", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("models", sa.Text, nullable=False, server_default="", comment="the models that were asked, with commas between"),
    comment="what a materialization said that it cost; no row where it said nothing",
)  # fmt: skip

undeclared_input = sa.Table(
    "undeclared_input", metadata,
    sa.Column("asset_id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("definition_id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("code", sa.Text, primary_key=True),
    sa.Column("what", sa.Text, primary_key=True),
    sa.Column("place", sa.Text, nullable=False, comment="where in the user's code it is read"),
    _now(),
    comment="what units were seen to read that is in no input, config or fingerprint",
)  # fmt: skip

answer = sa.Table(
    "answer", metadata,
    sa.Column("project", sa.Text, primary_key=True, comment="its name, as in the key"),
    sa.Column("digest", BYTEA, primary_key=True, comment="of the question: the model behind the alias, the messages, the parameters"),
    sa.Column("at", sa.DateTime(timezone=True), primary_key=True),
    sa.Column("key", sa.Text, nullable=False, comment="the object with question and answer"),
    comment="what models were asked and answered",
)  # fmt: skip

excerpt = sa.Table(
    "excerpt", metadata,
    sa.Column("materialization_id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("document_id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("whole_id", sa.BigInteger, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("start", sa.BigInteger),
    sa.Column("end", sa.BigInteger),
    sa.Column("pointer", sa.Text),
    comment="which part of a document that a unit was given a document that it made is; no row where it said nothing",
)  # fmt: skip

document_type = sa.Table(
    "document_type", metadata,
    sa.Column("id", sa.Integer, sa.Identity(), primary_key=True),
    sa.Column("type", sa.Text, nullable=False, comment="the name of the class"),
    sa.Column("media_type", sa.Text, nullable=False),
    sa.UniqueConstraint("type", "media_type"),
    comment="what documents are; never removed, because connections remember it",
)  # fmt: skip

document = sa.Table(
    "document", metadata,
    sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("materialization_id", sa.BigInteger, nullable=False, comment="the one that made it first"),
    sa.Column("object_id", sa.BigInteger, nullable=False),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("asset_id", sa.Integer, nullable=False),
    sa.Column("type_id", sa.Integer, nullable=False),
    sa.Column("row", sa.Integer, comment="row of the pack; null where the object is the document"),
    sa.Column("address", Address, nullable=False, comment="unit and name; equal for all versions of a document"),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("sha256", BYTEA, nullable=False),
    sa.Column("field_digests", BYTEA, nullable=False, comment="16 bytes for each typed field"),
    sa.Column("identity", BYTEA, nullable=False),
    comment="one version of a document",
)  # fmt: skip
sa.Index("ix_document_sha256", leading(document.c.sha256, LEADING_SHA256))

typed = sa.Table(
    "typed", metadata,
    sa.Column("document_id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("fields", JSONB, nullable=False),
    *small("fields"),
    comment="typed fields of a document, where no pack holds them",
)  # fmt: skip

edge = sa.Table(
    "edge", metadata,
    sa.Column("materialization_id", sa.BigInteger, nullable=False),
    sa.Column("document_id", sa.BigInteger, nullable=False),
    sa.Column("parameter", sa.SmallInteger, nullable=False),
    sa.Index(None, "materialization_id", postgresql_with=ASCENDING),
    sa.Index(None, "document_id", postgresql_with=ASCENDING),
    comment="a document that a unit was given, besides `materialization.given`: to be read through `given`",
)  # fmt: skip

given = sa.union_all(
    sa.select(
        materialization.c.id.label("materialization_id"), materialization.c.given.label("document_id"),
        sa.literal(0, sa.SmallInteger).label("parameter"),
    ),
    sa.select(edge),
).subquery("given")  # fmt: skip
"""All documents that units were given; null where a unit was given none for its first parameter, or several."""

collected = sa.Table(
    "collected", metadata,
    sa.Column("materialization_id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("parameter", sa.SmallInteger, primary_key=True, autoincrement=False),
    sa.Column("asset_id", sa.Integer, nullable=False),
    sa.Column("environment_id", sa.Integer, nullable=False),
    sa.Column("commit_id", sa.BigInteger, nullable=False),
    sa.Index(None, "asset_id"),
    comment="a whole asset that a unit was given, as it was at a commit: one row instead of one for each document",
)  # fmt: skip

head = sa.Table(
    "head", metadata,
    sa.Column("materialization_id", sa.BigInteger, nullable=False),
    sa.Column("since_commit", sa.BigInteger, nullable=False),
    sa.Column("until_commit", sa.BigInteger),
    sa.Column("environment_id", sa.Integer, nullable=False),
    sa.Column("asset_id", sa.Integer, nullable=False),
    sa.Column("unit", Address, nullable=False),
    sa.Index(None, "materialization_id", postgresql_with=ASCENDING),
    comment="which materialization a unit is, in an environment, from one commit until another",
)  # fmt: skip
sa.Index("uq_head_current", head.c.environment_id, head.c.asset_id, head.c.unit, unique=True,
         postgresql_where=head.c.until_commit.is_(None))  # fmt: skip
sa.Index("ix_head_past", head.c.environment_id, head.c.asset_id, head.c.until_commit,
         postgresql_where=head.c.until_commit.is_not(None))  # fmt: skip

borrowed = sa.Table(
    "borrowed", metadata,
    sa.Column("environment_id", sa.Integer, nullable=False),
    sa.Column("asset_id", sa.Integer, nullable=False),
    sa.Column("lender_id", sa.Integer, nullable=False, comment="the environment whose heads stand for the asset"),
    sa.Column("at_commit", sa.BigInteger, nullable=False, comment="as of this commit of the lender"),
    sa.Column("since_commit", sa.BigInteger, nullable=False),
    sa.Column("until_commit", sa.BigInteger),
    comment="an asset of which an environment has no heads of its own, from one commit until another",
)  # fmt: skip
sa.Index("uq_borrowed_current", borrowed.c.environment_id, borrowed.c.asset_id, unique=True,
         postgresql_where=borrowed.c.until_commit.is_(None))  # fmt: skip

acceptance = sa.Table(
    "acceptance", metadata,
    sa.Column("asset_id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("old_code", BYTEA, primary_key=True),
    sa.Column("new_code", BYTEA, primary_key=True),
    sa.Column("units", JSONB, nullable=False, comment="those that were tried, all with the same result"),
    sa.Column("why", sa.Text, comment="where it was said without trying"),
    sa.Column("actor", sa.Text, nullable=False),
    _now(),
    comment="that what old code of an asset made counts as made by new code",
)  # fmt: skip

failure = sa.Table(
    "failure", metadata,
    sa.Column("environment_id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("asset_id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("unit", Address, primary_key=True),
    sa.Column("label", sa.Text, nullable=False),
    sa.Column("definition_id", sa.Integer, nullable=False),
    sa.Column("inputs", BYTEA, nullable=False),
    sa.Column("error", sa.Text, nullable=False),
    sa.Column("traceback", sa.Text, nullable=False),
    sa.Column("run_id", sa.Text, nullable=False),
    _now(),
    *small("error", "traceback"),
    comment="units whose last attempt failed, with the recipe that failed",
)  # fmt: skip

watermark = sa.Table(
    "watermark", metadata,
    sa.Column("environment_id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("asset_id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("changed_commit", sa.BigInteger, nullable=False, comment="the last commit that changed its documents"),
    sa.Column("last_commit", sa.BigInteger, nullable=False, comment="the last commit, whether it changed documents or not"),
    sa.Column("settled", JSONB(none_as_null=True), comment="definition and upstream commits with which every unit was found fresh"),
    sa.Column("units", sa.Integer, nullable=False),
    sa.Column("documents", sa.Integer, nullable=False),
    sa.Column("made_at", sa.DateTime(timezone=True)),
    comment="derived: what is known of an asset without reading its units",
)  # fmt: skip

observation = sa.Table(
    "observation", metadata,
    sa.Column("asset_id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("mtime_ns", sa.BigInteger, nullable=False),
    sa.Column("inode", sa.BigInteger, nullable=False),
    sa.Column("media_type", sa.Text, nullable=False),
    sa.Column("sha256", BYTEA, nullable=False),
    sa.Column("field_digests", BYTEA, nullable=False),
    sa.Column("identity", BYTEA, nullable=False),
    sa.Column("validator", sa.Text, comment="what the source asks with whether it changed: an ETag, a version"),
    comment="the last look at a source: what need not be hashed again",
)  # fmt: skip

look = sa.Table(
    "look", metadata,
    sa.Column("asset_id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("looks", sa.Integer, nullable=False, comment="grows with each look that was kept"),
    sa.Column("documents", sa.Integer, nullable=False),
    sa.Column("glance", BYTEA, comment="the digest of what was there, unread; null where that tells nothing"),
    sa.Column("observed", BYTEA, nullable=False, comment="the digest of the identities of the documents"),
    comment="the last look at a source as a whole: while a glance finds the same, `observation` need not be read",
)  # fmt: skip

check_version = sa.Table(
    "check_version", metadata,
    sa.Column("id", sa.Integer, sa.Identity(), primary_key=True),
    sa.Column("asset_id", sa.ForeignKey("asset.id"), nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("scope", sa.Text, nullable=False, comment="unit or asset"),
    sa.Column("digest", BYTEA, nullable=False),
    _now(),
    sa.UniqueConstraint("asset_id", "name", "digest"),
    comment="a check, with one version of its code",
)  # fmt: skip

check_result = sa.Table(
    "check_result", metadata,
    sa.Column("subject", sa.BigInteger, primary_key=True, autoincrement=False,
              comment="the materialization that was looked at; where the check is about the whole asset, the commit that made it so"),
    sa.Column("check_id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("blocking", sa.Boolean, nullable=False),
    sa.Column("message", sa.Text),
    sa.Column("traceback", sa.Text),
    sa.Column("run_id", sa.Text, nullable=False),
    _now(),
    *small("message", "traceback"),
    comment="what a check said of a unit's materialization, or of an asset as of a commit",
)  # fmt: skip

check_standing = sa.Table(
    "check_standing", metadata,
    sa.Column("environment_id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("check_id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("last_commit", sa.BigInteger, nullable=False, comment="the asset's last commit when all of it had been looked at"),
    sa.Column("passed", sa.Integer, nullable=False),
    sa.Column("failed", sa.Integer, nullable=False),
    sa.Column("errors", sa.Integer, nullable=False),
    sa.Column("findings", JSONB, nullable=False, comment="the first that did not pass: unit, status, message"),
    _now(),
    *small("findings"),
    comment="derived: what a check says of an asset as it is, without reading its units",
)  # fmt: skip

damage = sa.Table(
    "damage", metadata,
    sa.Column("document_id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("asset_id", sa.Integer, nullable=False),
    sa.Column("cause", sa.Text, nullable=False, comment="object-missing, corrupt; let-go where history beyond its retention was given up"),
    sa.Column("detail", sa.Text, nullable=False),
    _now(),
    comment="documents whose bytes are not there any more, or are not what they were",
)  # fmt: skip

verified = sa.Table(
    "verified", metadata,
    sa.Column("object_id", sa.BigInteger, primary_key=True, autoincrement=False),
    _now(),
    comment="objects that were read and found right by a verification that has not ended yet",
)  # fmt: skip

repeat = sa.Table(
    "repeat", metadata,
    sa.Column("asset_id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("definition_id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("units", sa.BigInteger, nullable=False),
    sa.Column("different", sa.BigInteger, nullable=False),
    comment="how many units were made again with the same recipe, and how many of them came out different",
)  # fmt: skip

journal = sa.Table(
    "journal", metadata,
    sa.Column("project_id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("what", sa.Text, nullable=False),
    sa.Column("environment", sa.Text),
    sa.Column("asset", sa.Text),
    sa.Column("run", sa.Text),
    sa.Column("commit_id", sa.BigInteger),
    sa.Column("why", sa.Text),
    sa.Column("facts", JSONB, nullable=False),
    sa.Column("boxes", JSONB, nullable=False, comment="subject and what only its key opens"),
    sa.Column("hash", BYTEA, nullable=False, comment="of the row, and of the hash of the one before"),
    sa.Index(None, "commit_id"),
    comment="what was done: appended in the transaction of what it tells, numbered without gaps",
)  # fmt: skip

journal_batch = sa.Table(
    "journal_batch", metadata,
    sa.Column("project_id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("first", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("last", sa.BigInteger, nullable=False),
    sa.Column("key", sa.Text, nullable=False),
    sa.Column("digest", BYTEA, nullable=False),
    comment="rows of the journal that lie in the bucket, as an object that is written once",
)  # fmt: skip

subject_key = sa.Table(
    "subject_key", metadata,
    sa.Column("project_id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("subject", BYTEA, primary_key=True, comment="the address of a source's unit"),
    sa.Column("key", BYTEA, nullable=False),
    comment="opens what the journal holds of a subject; destroyed when it is forgotten",
)  # fmt: skip

vector_generation = sa.Table(
    "vector_generation", metadata,
    sa.Column("id", sa.Integer, sa.Identity(), primary_key=True),
    sa.Column("project", sa.Text, nullable=False),
    sa.Column("environment", sa.Text, nullable=False),
    sa.Column("asset", sa.Text, nullable=False),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("dimensions", sa.Integer, nullable=False),
    sa.Column("created", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
    sa.Column("completed", sa.DateTime(timezone=True), comment="when it first held all documents, and began to answer"),
    sa.Column("active", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("synced", sa.BigInteger, nullable=False, server_default="0", comment="the asset's commit that it was brought up to"),
    sa.Column("indexed", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("parameters", JSONB, nullable=False),
    sa.Index("ix_vector_generation_active", "project", "environment", "asset", unique=True, postgresql_where=sa.column("active")),
    comment="derived: an index of an asset's vectors, by one model; its rows are in a table of its own",
)  # fmt: skip

vector_trial = sa.Table(
    "vector_trial", metadata,
    sa.Column("id", sa.Integer, sa.Identity(), primary_key=True),
    sa.Column("project", sa.Text, nullable=False),
    sa.Column("environment", sa.Text, nullable=False),
    sa.Column("asset", sa.Text, nullable=False),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
    sa.Column("rows", sa.Integer, nullable=False),
    sa.Column("questions", sa.Integer, nullable=False),
    sa.Column("m", sa.Integer, nullable=False),
    sa.Column("ef_construction", sa.Integer, nullable=False),
    sa.Column("ef_search", sa.Integer, nullable=False),
    sa.Column("recall", sa.Double, nullable=False, comment="of the ten nearest, the share that was found"),
    sa.Column("p50_ms", sa.Double, nullable=False),
    sa.Column("p95_ms", sa.Double, nullable=False),
    sa.Column("build_seconds", sa.Double, nullable=False),
    sa.Column("bytes", sa.BigInteger, nullable=False),
    comment="what parameters of an index were tried, and how they did beside an exact search",
)  # fmt: skip
