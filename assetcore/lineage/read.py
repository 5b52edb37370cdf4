"""Reading: what is every asset now, and what was it?

Each function is a fixed number of statements, whatever the number of units: frames for those who decide (`units`, `staleness`),
rows for those who fetch bytes. A current document is one that the current head of its unit points to.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache, lru_cache
from typing import Any

import polars as pl
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import BYTEA
from sqlalchemy.ext.asyncio import AsyncConnection

from assetcore.errors import StorageError
from assetcore.frames import joined, parted, put, without
from assetcore.lineage import tables as t
from assetcore.lineage.asking import ONE, Statement, among, asked, columns, frame, gathered, one_of
from assetcore.lineage.heads import as_of, heads_of, undropped_since
from assetcore.staleness import MADE, Component, Definition
from assetcore.storage import Key, Location, Stored
from assetcore.units import DOCUMENTS, PLACED, sort_documents

__all__ = [
    "Watermark", "asset_counts", "counts", "current", "current_documents", "current_identities", "dated",
    "definitions", "documents_of", "expired", "former_members", "intact", "is_empty", "keys", "known_keys",
    "labels", "made_at", "made_units", "oldest", "orphans", "seconds_per_unit",
    "sources_of_parts", "stored", "undeclared", "units", "watermark", "watermarks", "with_documents", "with_types",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Watermark:
    """What is known of an asset without reading its units; of one that was never made, nothing."""

    changed: int = 0
    last: int = 0
    settled: Mapping[str, Any] | None = None
    units: int = 0
    documents: int = 0
    made_at: datetime | None = None


_listed = (
    sa.func.unnest(t.documents_of(t.materialization.c))
    .table_valued("id", with_ordinality="position", name="listed")
    .render_derived()
)
position = _listed.c.position
"""Where a document stands among those that its unit made; beside `current`."""


def current(head: sa.FromClause) -> sa.FromClause:
    """Heads with their materializations and documents."""
    return with_documents(head.join(t.materialization, t.materialization.c.id == head.c.materialization_id))


def with_documents(materializations: sa.FromClause) -> sa.FromClause:
    """These materializations with the documents that they hold, each at its `position`."""
    return materializations.join(_listed, sa.true()).join(t.document, t.document.c.id == _listed.c.id)


def with_types(documents: sa.FromClause) -> sa.FromClause:
    """These documents with what they are: class and media type."""
    return documents.join(t.document_type, t.document_type.c.id == t.document.c.type_id)


def dated(facts: sa.FromClause, materialization: sa.ColumnElement[int]) -> sa.FromClause:
    """These with the commit by which a materialization came about: at that time it was made."""
    return facts.join(t.commit, t.commit.c.id == t.commit_of(materialization))


def intact(assets: Collection[int]) -> sa.ColumnElement[bool]:
    """Of a materialization of these assets: none of its documents is damaged. Nothing is looked up where none of the assets' is."""
    x = t.damage.c
    kept = sa.func.unnest(t.documents_of(t.materialization.c)).table_valued("id", name="kept").render_derived()
    lost = sa.select(kept.c.id).join(t.damage, x.document_id == kept.c.id).correlate(t.materialization).exists()
    return sa.or_(~sa.exists().where(one_of(x.asset_id, assets)), ~lost)


async def is_empty(connection: AsyncConnection) -> bool:
    """Whether nothing was ever committed to this database."""
    return (await connection.execute(sa.select(t.commit.c.id).limit(1))).first() is None


async def watermarks(
    connection: AsyncConnection, environment: int, assets: Collection[int] | None = None
) -> dict[int, Watermark]:
    """The watermarks of these assets, or of every asset of an environment, by the asset's identifier; none for what was never made."""
    w = t.watermark.c
    wanted = [w.environment_id == environment]
    if assets is not None:
        wanted.append(one_of(w.asset_id, assets))
    rows = await connection.execute(
        sa.select(w.asset_id, w.changed_commit, w.last_commit, w.settled, w.units, w.documents, w.made_at).where(
            *wanted
        )
    )
    return {row[0]: Watermark(*row[1:]) for row in rows}


async def watermark(connection: AsyncConnection, environment: int, asset: int) -> Watermark:
    """The watermark of one asset."""
    return (await watermarks(connection, environment, [asset])).get(asset, Watermark())


async def current_documents(
    connection: AsyncConnection,
    environment: int,
    assets: Collection[int],
    commit: int | None = None,
    units: pl.Series | None = None,
    in_parts: Collection[int] | None = None,
    named: Collection[int] | None = None,
    placed: Collection[int] = (),
) -> dict[int, pl.DataFrame]:
    """The documents of these assets (`units.DOCUMENTS`), now or as of a commit, each in the order of handing over.

    With `units`, only those of these units. With `in_parts`, what a document consists of (media type, digests) is told of these
    assets alone, and with `named`, how it and its unit are called: few are asked for it, and it is most of what there is to read.
    Of those that are `placed` it is told where the bytes lie, too (`units.PLACED`).
    """
    head = await heads_of(connection, environment, commit)
    which, told_of = asked(assets), [None if told is None else tuple(told) for told in (in_parts, named)]
    statement, names = _current_documents(head, *which, commit, units is not None, *told_of, tuple(placed))
    schema = {"asset": pl.Int64} | DOCUMENTS | PLACED
    found: dict[int, list[pl.DataFrame]] = {asset: [] for asset in assets}
    values = _values(environment, which, units)
    for part in await gathered(connection, statement, {name: schema[name] for name in names}, values):
        told = put(part, pl.Series("pending", [False] * part.height, pl.Boolean))
        for asset, rows in parted(told, "asset").items():
            untold = [column for column in _untold(asset, in_parts, named, placed) if column in names]
            found[asset].append(without(rows, *untold) if untold else rows)
    return {
        asset: _documents(found.pop(asset), named=named is None or asset in named, placed=asset in placed)
        for asset in assets
    }


@lru_cache
def _current_documents(
    head: sa.FromClause, which: str, commit: int | None, of_units: bool, in_parts: Sequence[int] | None, named: Sequence[int] | None,
    placed: Sequence[int],
) -> tuple[Statement, list[str]]:  # fmt: skip
    """The statement, and the names of its columns."""
    d, h, m = t.document.c, head.c, t.materialization.c
    read = None if in_parts is None else (*in_parts, *placed)
    path = sa.func.coalesce(m.parent + "/" + m.label, m.label).label("path")
    shown = [
        h.asset_id.label("asset"), d.id.label("document"), d.address, h.unit, position, d.identity, path,
        *_told_of(h, read, t.document_type.c.media_type, d.sha256), *_told_of(h, in_parts, d.field_digests),
        *_told_of(h, named, m.label, d.name), *_told_of(h, placed, d.object_id.label("object"), d.row, d.size),
    ]  # fmt: skip
    held = current(head) if read is not None and not read else with_types(current(head))
    statement = sa.select(*shown).select_from(held).where(*_wanted(h, which, of_units=of_units), as_of(h, commit))
    return statement, [column.name for column in shown]


def _told_of(h: Any, assets: Collection[int] | None, *columns: sa.ColumnElement[Any]) -> list[sa.ColumnElement[Any]]:
    """Columns that are read of these assets alone; of all, where none are named."""
    if assets is None:
        return list(columns)
    told = one_of(h.asset_id, assets)
    return [sa.case((told, column), else_=None).label(column.key) for column in columns] if assets else []


def _untold(
    asset: int, in_parts: Collection[int] | None, named: Collection[int] | None, placed: Collection[int]
) -> list[str]:
    """The columns in which there is nothing for an asset."""
    in_part = in_parts is None or asset in in_parts
    return [
        *([] if in_part else ["field_digests"]),
        *([] if in_part or asset in placed else ["media_type", "sha256"]),
        *([] if named is None or asset in named else ["label", "name"]),
        *([] if asset in placed else PLACED),
    ]


def _documents(found: Sequence[pl.DataFrame], *, named: bool, placed: bool) -> pl.DataFrame:
    """Rows as `units.DOCUMENTS`, and `units.PLACED` where they are, in order; what was not read is null."""
    schema = DOCUMENTS | PLACED if placed else DOCUMENTS
    if not found:
        return pl.DataFrame(schema=schema)
    rows = found[0] if len(found) == 1 else pl.concat(found)
    if unread := [pl.lit(None, kind).alias(name) for name, kind in schema.items() if name not in rows.columns]:
        rows = rows.with_columns_seq(*unread)
    rows = sort_documents(rows)
    return (rows if named else rows.with_columns(pl.lit(None, pl.String).alias("path")))[list(schema)]


async def current_identities(
    connection: AsyncConnection, environment: int, assets: Collection[int], units: pl.Series | None = None
) -> dict[int, pl.DataFrame]:
    """The current documents of these sources by name: unit and identity. With `units`, of these."""
    head = await heads_of(connection, environment)
    schema = {"name": pl.String, "unit": pl.Binary, "identity": pl.Binary}
    which = asked(assets)
    statement, values = _current_identities(head, *which, units is not None), _values(environment, which, units)
    if len(assets) == 1:  # a column less of what may be large
        return dict.fromkeys(assets, await columns(connection, statement, schema, values))
    by_asset = parted(await columns(connection, statement, {"asset": pl.Int64} | schema, values), "asset")
    empty = pl.DataFrame(schema=schema)
    return {a: by_asset.get(a, empty) for a in assets}


@lru_cache
def _current_identities(head: sa.FromClause, which: str, of_units: bool) -> Statement:
    d, h = t.document.c, head.c
    of_asset = [] if which == ONE else [h.asset_id]
    return (
        sa.select(*of_asset, d.name, h.unit, d.identity)
        .select_from(current(head))
        .where(*_wanted(h, which, of_units=of_units), as_of(h, None))
    )


def _wanted(columns: Any, which: str, *, of_units: bool) -> list[sa.ColumnElement[bool]]:
    """Rows of an environment, of these assets, and of some units: of the `_values` that are given when a statement is executed."""
    of = [columns.environment_id == sa.bindparam("environment"), one_of(columns.asset_id, which)]
    return [*of, among(columns.unit, "units", t.Address)] if of_units else of


def _values(environment: int, which: Mapping[str, Any], units: pl.Series | None) -> dict[str, Any]:
    return {"environment": environment, **which, **({} if units is None else {"units": units.to_list()})}


def _of_units(h: Any, units: pl.Series | None) -> list[sa.ColumnElement[bool]]:
    return [] if units is None else [among(h.unit, units.to_list(), t.Address)]


async def made_units(
    connection: AsyncConnection, environment: int, assets: Collection[int], units: pl.Series | None = None
) -> dict[int, pl.DataFrame]:
    """The units of these assets (`staleness.MADE`): what each currently is, and the recipe of its last attempt if it failed.

    With `units`, only these.
    """
    head = await heads_of(connection, environment)
    schema = {"asset": pl.Int64} | {
        name: MADE[name] for name in ("unit", "label", "parent", "definition", "inputs", "materialization")
    }
    which, of_units = asked(assets), units is not None
    values = _values(environment, which, units)
    heads = await columns(connection, _made_units(head, *which, of_units), schema, values)
    failed = (await connection.execute(_failed_units(*which, of_units), values)).all()
    if failed:
        failures = frame(
            failed,
            {
                "asset": pl.Int64,
                "unit": pl.Binary,
                "label": pl.String,
                "failed_definition": pl.Int64,
                "failed_inputs": pl.Binary,
            },
        )
        merged = joined(heads, failures, ["asset", "unit"], "full", "_failed")
        label = pl.coalesce("label", "label_failed").alias("label")
        merged = merged.select("asset", *(label if name == "label" else name for name in MADE))
    else:
        none = (pl.lit(None, MADE[name]).alias(name) for name in ("failed_definition", "failed_inputs"))
        merged = heads.with_columns_seq(*none)
    by_asset = parted(merged, "asset")
    empty = pl.DataFrame(schema=MADE)
    return {a: by_asset.get(a, empty) for a in assets}


@lru_cache
def _made_units(head: sa.FromClause, which: str, of_units: bool) -> Statement:
    h, m = head.c, t.materialization.c
    return (
        sa.select(h.asset_id, h.unit, m.label, m.parent, m.definition_id, m.inputs, m.id)
        .select_from(head.join(t.materialization, m.id == h.materialization_id))
        .where(*_wanted(h, which, of_units=of_units), h.until_commit.is_(None))
    )


@lru_cache
def _failed_units(which: str, of_units: bool) -> Statement:
    f = t.failure.c
    failed = sa.select(f.asset_id, f.unit, f.label, f.definition_id, f.inputs)
    return failed.where(*_wanted(f, which, of_units=of_units))


async def units(connection: AsyncConnection, environment: int, asset: int) -> pl.Series:
    """The units that an asset has, in the order of their labels."""
    head = await heads_of(connection, environment)
    h, m = head.c, t.materialization.c
    found = await columns(
        connection,
        sa.select(h.unit, m.label)
        .select_from(head.join(t.materialization, m.id == h.materialization_id))
        .where(h.environment_id == environment, h.asset_id == asset, h.until_commit.is_(None)),
        {"unit": pl.Binary, "label": pl.String},
    )
    return found.sort("label", "unit")["unit"]


async def labels(connection: AsyncConnection, environment: int, asset: int) -> pl.DataFrame:
    """How the units of an asset are called: label, parent."""
    head = await heads_of(connection, environment)
    h, m = head.c, t.materialization.c
    return await columns(
        connection,
        sa.select(m.label, m.parent)
        .select_from(head.join(t.materialization, m.id == h.materialization_id))
        .where(h.environment_id == environment, h.asset_id == asset, h.until_commit.is_(None)),
        {"label": pl.String, "parent": pl.String},
    )


async def expired(
    connection: AsyncConnection, environment: int, before: Mapping[int, datetime], units: pl.Series | None = None
) -> dict[int, pl.Series]:
    """Of each asset the units that were made at this time or before. With `units`, of these."""
    head = await heads_of(connection, environment)
    h = head.c
    late = sa.or_(*(sa.and_(h.asset_id == asset, t.commit.c.at <= when) for asset, when in before.items()))
    found = await columns(
        connection,
        sa.select(h.asset_id, h.unit)
        .select_from(dated(head, h.materialization_id))
        .where(h.environment_id == environment, h.until_commit.is_(None), late, *_of_units(h, units)),
        {"asset": pl.Int64, "unit": pl.Binary},
    )
    return {asset: found.filter(pl.col("asset") == asset)["unit"] for asset in before}


async def oldest(connection: AsyncConnection, environment: int, assets: Collection[int]) -> dict[int, datetime]:
    """When the unit of each asset that was made first of all was made."""
    head = await heads_of(connection, environment)
    h = head.c
    rows = await connection.execute(
        sa.select(h.asset_id, sa.func.min(t.commit.c.at))
        .select_from(dated(head, h.materialization_id))
        .where(h.environment_id == environment, one_of(h.asset_id, assets), h.until_commit.is_(None))
        .group_by(h.asset_id)
    )
    return dict(rows.all())


async def made_at(connection: AsyncConnection, environment: int, asset: int, unit: bytes) -> datetime | None:
    """When what a unit currently is was made."""
    head = await heads_of(connection, environment)
    h = head.c
    return (
        await connection.execute(
            sa.select(t.commit.c.at)
            .select_from(dated(head, h.materialization_id))
            .where(h.environment_id == environment, h.asset_id == asset, h.unit == unit, h.until_commit.is_(None))
        )
    ).scalar_one_or_none()


async def definitions(connection: AsyncConnection, assets: Collection[int]) -> dict[int, dict[int, Definition]]:
    """Every definition that these assets were ever made with, by asset and identifier."""
    which = asked(assets)
    rows = await connection.execute(_definitions(*which), which)
    found: dict[int, dict[int, Definition]] = {a: {} for a in assets}
    for asset, identifier, facts in rows:
        components = {n: Component(bytes.fromhex(f["digest"]), f.get("detail")) for n, f in facts.items()}
        found[asset][identifier] = Definition(components)
    return found


@lru_cache
def _definitions(which: str) -> Statement:
    c = t.definition.c
    return sa.select(c.asset_id, c.id, c.facts).where(one_of(c.asset_id, which))


async def former_members(connection: AsyncConnection, materializations: Collection[int]) -> pl.DataFrame:
    """Documents that these materializations were given and that may be gone: materialization, parameter, address. Two statements.

    Of what was given one by one, all; of whole assets, those whose unit is no longer what it was.
    """
    schema = {"materialization": pl.Int64, "parameter": pl.Int64, "address": pl.Binary}
    e, d, c, h = t.given.c, t.document.c, t.collected.c, t.head.c
    given = await connection.execute(
        sa.select(e.materialization_id, e.parameter, d.address)
        .join_from(t.given, t.document, d.id == e.document_id)
        .where(among(e.materialization_id, materializations, sa.BigInteger))
    )
    then = sa.and_(
        h.asset_id == c.asset_id,
        h.environment_id == c.environment_id,
        h.since_commit <= c.commit_id,
        h.until_commit > c.commit_id,
        undropped_since(h, c.commit_id),
    )
    past = await connection.execute(
        sa.select(c.materialization_id, c.parameter, d.address)
        .select_from(t.collected.join(current(t.head), then))
        .where(among(c.materialization_id, materializations, sa.BigInteger))
    )
    return frame([*given.all(), *past.all()], schema)


async def counts(
    connection: AsyncConnection, environment: int, assets: Collection[int], units: pl.Series | None = None
) -> dict[int, tuple[int, int]]:
    """How many units and documents each of these assets has; with `units`, how many of these there are, and their documents."""
    if not assets:
        return {}
    head = await heads_of(connection, environment)
    h, m = head.c, t.materialization.c
    rows = await connection.execute(
        sa.select(h.asset_id, sa.func.count(), sa.func.sum(sa.func.cardinality(t.documents_of(m))))
        .select_from(head.join(t.materialization, m.id == h.materialization_id))
        .where(
            h.environment_id == environment, one_of(h.asset_id, assets), h.until_commit.is_(None), *_of_units(h, units)
        )
        .group_by(h.asset_id)
    )
    return dict.fromkeys(assets, (0, 0)) | {asset: (int(found), int(documents)) for asset, found, documents in rows}


async def documents_of(connection: AsyncConnection, materializations: Collection[int]) -> dict[int, list[Any]]:
    """The document rows of these materializations, in order."""
    m = t.materialization.c
    rows = await connection.execute(
        sa.select(m.id, t.document, t.document_type.c.type, t.document_type.c.media_type, t.typed.c.fields)
        .select_from(
            with_types(with_documents(t.materialization)).outerjoin(t.typed, t.typed.c.document_id == t.document.c.id)
        )
        .where(among(m.id, materializations, sa.BigInteger))
        .order_by(m.id, position)
    )
    found: dict[int, list[Any]] = {i: [] for i in materializations}
    for row in rows:
        found[row[0]].append(row)
    return found


async def stored(connection: AsyncConnection, documents: Iterable[int], *, kept: bool = True) -> dict[int, Stored]:
    """Where the bytes of these documents are. Raises StorageError where history was given up, unless not all need be `kept`."""
    d, x = t.document.c, t.damage.c
    wanted = list(documents)
    rows = (await connection.execute(_stored(), {"documents": wanted})).all()
    if kept and len(rows) < len(set(wanted)):
        gone = sa.select(d.name, x.detail).join_from(t.document, t.damage, x.document_id == d.id)
        lost = (
            await connection.execute(gone.where(among(d.id, wanted, sa.BigInteger), x.cause == "let-go").limit(1))
        ).first()
        if lost is not None:
            raise StorageError(f"The bytes of this earlier version of {lost[0]!r} are not kept any more: {lost[1]}.")
    return {row[0]: Stored(Location(Key(row[1]), row[2]), row[3], row[4], row[5], row[6], row[7]) for row in rows}


@cache
def _stored() -> Statement:
    d, o = t.document.c, t.object_.c
    return (
        sa.select(d.id, o.key, d.row, d.name, t.document_type.c.media_type, d.sha256, d.size, t.typed.c.fields)
        .select_from(with_types(t.document).join(t.object_, o.id == d.object_id))
        .outerjoin(t.typed, t.typed.c.document_id == d.id)
        .where(among(d.id, "documents", sa.BigInteger))
    )


async def keys(connection: AsyncConnection, objects: Iterable[int]) -> dict[int, Key]:
    """The keys of these objects."""
    o = t.object_.c
    rows = await connection.execute(sa.select(o.id, o.key).where(among(o.id, objects, sa.BigInteger)))
    return {row[0]: Key(row[1]) for row in rows}


async def seconds_per_unit(connection: AsyncConnection, project: int) -> dict[str, float]:
    """The mean time that a unit has taken in the runs there were, by the asset's name."""
    r = t.run_asset.c
    executed = r.counts["made"].as_integer() + r.counts["unchanged"].as_integer()
    rows = await connection.execute(
        sa.select(r.asset, sa.func.sum(r.seconds) / sa.func.sum(executed))
        .join_from(t.run_asset, t.run, t.run.c.id == r.run_id)
        .where(t.run.c.project_id == project, executed > 0)
        .group_by(r.asset)
    )
    return {asset: float(seconds) for asset, seconds in rows}


async def sources_of_parts(connection: AsyncConnection, digests: Collection[bytes]) -> dict[bytes, str]:
    """The normalised source of these parts of fingerprints."""
    rows = await connection.execute(
        sa.select(t.part.c.digest, t.part.c.source).where(among(t.part.c.digest, digests, BYTEA))
    )
    return dict(rows.all())


async def asset_counts(
    connection: AsyncConnection, environment: int, commit: int | None = None
) -> dict[int, tuple[int, int, datetime]]:
    """Units, documents and the time of the last materialization of every asset that has or, as of a commit, had any."""
    head = await heads_of(connection, environment, commit)
    h, m = head.c, t.materialization.c
    rows = await connection.execute(
        sa.select(
            h.asset_id, sa.func.count(), sa.func.sum(sa.func.cardinality(t.documents_of(m))), sa.func.max(t.commit.c.at)
        )
        .select_from(dated(head.join(t.materialization, m.id == h.materialization_id), m.id))
        .where(h.environment_id == environment, as_of(h, commit))
        .group_by(h.asset_id)
    )
    return {asset: (units, int(documents or 0), made_at) for asset, units, documents, made_at in rows}


async def known_keys(connection: AsyncConnection, project: int) -> set[str]:
    """The keys of all objects, manifests and recorded answers that the lineage of a project points to."""
    objects = await connection.execute(
        sa.select(t.object_.c.key)
        .join(t.asset, t.asset.c.id == t.object_.c.asset_id)
        .where(t.asset.c.project_id == project)
    )
    manifests = await connection.execute(sa.select(t.commit.c.manifest).where(t.commit.c.project_id == project))
    named = sa.select(t.project.c.name).where(t.project.c.id == project).scalar_subquery()
    answers = await connection.execute(sa.select(t.answer.c.key).where(t.answer.c.project == named))
    return {*objects.scalars(), *manifests.scalars(), *answers.scalars()}


async def orphans(connection: AsyncConnection, environment: int, assets: Collection[int]) -> dict[str, int]:
    """Of these assets, which are not declared any more, those that still have units: how many, by name."""
    head = await heads_of(connection, environment)
    h, a = head.c, t.asset.c
    rows = await connection.execute(
        sa.select(a.name, sa.func.count())
        .select_from(head.join(t.asset, a.id == h.asset_id))
        .where(h.environment_id == environment, h.until_commit.is_(None), one_of(h.asset_id, assets))
        .group_by(a.name)
        .order_by(a.name)
    )
    return dict(rows.all())


async def undeclared(
    connection: AsyncConnection, environment: int, declared: Collection[int]
) -> dict[int, tuple[str, list[tuple[bytes, int]]]]:
    """Assets that have units but are not declared any more: name, units with their materializations."""
    head = await heads_of(connection, environment)
    h, a = head.c, t.asset.c
    rows = await connection.execute(
        sa.select(a.id, a.name, h.unit, h.materialization_id)
        .select_from(head.join(t.asset, a.id == h.asset_id))
        .where(h.environment_id == environment, h.until_commit.is_(None), a.id.not_in(list(declared)))
    )
    found: dict[int, tuple[str, list[tuple[bytes, int]]]] = {}
    for identifier, name, unit, materialization in rows:
        found.setdefault(identifier, (name, []))[1].append((unit, materialization))
    return found
