"""Vectors: which generation of an index answers, and which of its rows are nearest?

    vector_generation   model, dimensions and parameters of each index there is, of an asset in an environment; one is active
    vector_{id}         its rows: a table of its own, so that one is built, dropped and exchanged beside another
    vector_trial        what parameters were tried, and how they did

All of it is derived: the embedding documents are in the store, and names stand for project, environment and asset, so that nothing here
depends on the numbers of other tables.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from pgvector.sqlalchemy import HALFVEC
from sqlalchemy.dialects.postgresql import ARRAY, BYTEA, JSONB, REAL, REGCLASS, insert
from sqlalchemy.exc import ProgrammingError

from assetcore.lineage.asking import among
from assetcore.lineage.commit import copy
from assetcore.lineage.schema import Connection, to_json
from assetcore.lineage.tables import metadata, small, watermark
from assetcore.lineage.tables import vector_generation as g
from assetcore.lineage.tables import vector_trial as x

w = watermark.c

__all__ = [
    "CANDIDATES", "EXACT", "WIDEST", "Found", "Generation", "Row", "activate", "alone", "answering", "apart", "build_index", "count",
    "create", "documents", "drop", "drop_all", "forget", "forget_index", "generations", "is_gone", "journal", "known", "nearest", "note",
    "remove", "sample", "size", "trials", "unneeded", "upsert",
]  # fmt: skip

EXACT = 5_000
"""So many rows are looked at one by one: that takes milliseconds, and misses none."""
WIDEST = 4_000
"""So many numbers a vector may have for pgvector to build HNSW over them; of wider ones each row is looked at, however many there are."""
CANDIDATES = 1_000
"""So many candidates pgvector looks at, at most (`hnsw.ef_search`)."""
DISTANCE = "halfvec_cosine_ops"
NAMED = "vector_"
"""How the table of a generation is called, before its number."""


@dataclass(frozen=True, slots=True)
class Generation:
    """One index of an asset: what is in it was embedded by `model`. `synced` is the asset's commit that it was brought up to."""

    id: int
    asset: str
    model: str
    dimensions: int
    created: datetime
    completed: datetime | None
    active: bool
    synced: int
    indexed: bool
    parameters: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Row:
    """One vector, at its document's address; `document` is the version, `fields` as `filters.indexed` writes them."""

    address: bytes
    document: int
    name: str
    fields: Mapping[str, Any]
    vector: Sequence[float]


@dataclass(frozen=True, slots=True)
class Found:
    """A row that is near: the nearer, the higher the score (cosine, at most 1; 0 of a vector of zeros). `fields` are as JSON has them."""

    name: str
    fields: Mapping[str, Any]
    score: float


@lru_cache(maxsize=256)
def _rows(number: int, dimensions: int) -> sa.Table:
    return sa.Table(
        f"{NAMED}{number}", sa.MetaData(naming_convention=metadata.naming_convention),
        sa.Column("address", BYTEA, primary_key=True),
        sa.Column("document", sa.BigInteger, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("fields", JSONB, nullable=False),
        sa.Column("vector", HALFVEC(dimensions), nullable=False),
        *small("name", "fields"),
        sa.Index(f"ix_vector_{number}_fields", "fields", postgresql_using="gin", postgresql_ops={"fields": "jsonb_path_ops"}),
    )  # fmt: skip


def _table(one: Generation) -> sa.Table:
    return _rows(one.id, one.dimensions)


def _index(one: Generation, m: int, ef_construction: int) -> sa.Index:
    table = _rows.__wrapped__(one.id, one.dimensions)  # of its own: an index joins the table that it is declared on
    options = {"m": m, "ef_construction": ef_construction}
    return sa.Index(
        _index_name(one),
        table.c.vector,
        postgresql_using="hnsw",
        postgresql_with=options,
        postgresql_ops={"vector": DISTANCE},
    )


def _index_name(one: Generation) -> str:
    return f"ix_vector_{one.id}_hnsw"


async def alone(connection: Connection, project: str, environment: str, asset: str, *, wait: bool = True) -> bool:
    """One at a time brings an index up to date, until the end of the transaction; False where another does, unless it is to `wait`."""
    key = sa.func.hashtextextended(f"vectors/{project}/{environment}/{asset}", 0)
    if not wait:
        return bool((await connection.execute(sa.select(sa.func.pg_try_advisory_xact_lock(key)))).scalar_one())
    await connection.execute(sa.select(sa.func.pg_advisory_xact_lock(key)))
    return True


async def generations(
    connection: Connection, project: str, environment: str, asset: str | None = None
) -> list[Generation]:
    """The generations there are, the newest first."""
    shown = [g.c[name] for name in Generation.__slots__]
    query = sa.select(*shown).where(g.c.project == project, g.c.environment == environment).order_by(g.c.id.desc())
    rows = await connection.execute(query if asset is None else query.where(g.c.asset == asset))
    return [Generation(*row) for row in rows]


async def answering(
    connection: Connection, project: str, environment: str, asset: str, environment_id: int, asset_id: int, *, behind: bool = False
) -> Generation | None:  # fmt: skip
    """The generation that answers, if it has its table and is what the asset now is, or may be `behind`; in one statement, because every
    search begins so."""
    shown = [g.c[name] for name in Generation.__slots__]
    changed = sa.select(w.changed_commit).where(w.environment_id == environment_id, w.asset_id == asset_id)
    table = sa.func.to_regclass(sa.func.concat(sa.literal(NAMED, sa.Text), g.c.id))
    query = sa.select(*shown).where(
        g.c.project == project, g.c.environment == environment, g.c.asset == asset, g.c.active,
        sa.or_(sa.literal(behind), g.c.synced == sa.func.coalesce(changed.scalar_subquery(), 0)), table.is_not(None),
    )  # fmt: skip
    row = (await connection.execute(query)).one_or_none()
    return None if row is None else Generation(*row)


async def create(
    connection: Connection, project: str, environment: str, asset: str, model: str, dimensions: int, parameters: Mapping[str, int]
) -> Generation:  # fmt: skip
    """A new generation, empty and not active, with a table of its own."""
    values = {
        "project": project, "environment": environment, "asset": asset, "model": model, "dimensions": dimensions,
        "parameters": dict(parameters),
    }  # fmt: skip
    shown = [g.c[name] for name in Generation.__slots__]
    one = Generation(*(await connection.execute(sa.insert(g).values(values).returning(*shown))).one())
    await connection.run_sync(_table(one).create)
    return one


async def drop(connection: Connection, one: Generation) -> None:
    """Remove a generation with its rows."""
    await connection.run_sync(lambda sync: _table(one).drop(sync, checkfirst=True))
    await connection.execute(sa.delete(g).where(g.c.id == one.id))


async def drop_all(connection: Connection, project: str, environment: str) -> None:
    """Remove all generations of an environment."""
    for one in await generations(connection, project, environment):
        await drop(connection, one)


async def unneeded(
    connection: Connection, project: str, environments: Collection[str], environment: str, assets: Collection[str]
) -> list[tuple[str, Generation]]:
    """The generations, with their environments, of other environments than these, and in one of them of other assets than these."""
    shown = [g.c[name] for name in Generation.__slots__]
    gone = g.c.environment.not_in(environments) | ((g.c.environment == environment) & g.c.asset.not_in(assets))
    rows = await connection.execute(
        sa.select(g.c.environment, *shown).where(g.c.project == project, gone).order_by(g.c.id)
    )
    return [(where, Generation(*row)) for where, *row in rows]


async def known(connection: Connection, one: Generation) -> dict[bytes, int] | None:
    """The version of the document at each address; None where the table is gone."""
    c = _table(one).c
    there = await connection.run_sync(lambda sync: sa.inspect(sync).has_table(_table(one).name))
    if not there:
        return None
    rows = await connection.execute(sa.select(c.address, c.document))
    return {row.address: row.document for row in rows}


async def upsert(connection: Connection, one: Generation, rows: Sequence[Row]) -> None:
    """Write rows; one that is there is replaced. By COPY into a table of the transaction's own: drivers know no halfvec."""
    if not rows:
        return
    table = _table(one)
    staged = sa.Table(
        f"staged_{one.id}", sa.MetaData(),
        *(sa.Column(name, table.c[name].type) for name in ("address", "document", "name")),
        sa.Column("fields", JSONB), sa.Column("vector", ARRAY(REAL)), prefixes=["TEMPORARY"],
    )  # fmt: skip
    await connection.run_sync(staged.create)
    await copy(
        connection, staged, [(r.address, r.document, r.name, to_json(dict(r.fields)), list(r.vector)) for r in rows]
    )
    names = [column.name for column in table.columns]
    source = sa.select(*(sa.cast(staged.c[n], table.c[n].type) if n == "vector" else staged.c[n] for n in names))
    statement = insert(table).from_select(names, source)
    replaced = {n: statement.excluded[n] for n in names if n != "address"}
    await connection.execute(statement.on_conflict_do_update(index_elements=["address"], set_=replaced))
    await connection.run_sync(staged.drop)


async def remove(connection: Connection, one: Generation, addresses: Sequence[bytes]) -> None:
    """Remove the rows at these addresses."""
    if addresses:
        await connection.execute(sa.delete(_table(one)).where(among(_table(one).c.address, addresses, BYTEA)))


async def build_index(connection: Connection, one: Generation, m: int, ef_construction: int) -> None:
    """Build the HNSW index, which takes a while."""
    memory = sa.func.set_config("maintenance_work_mem", "256MB", True)
    await connection.execute(sa.select(memory, sa.func.set_config("max_parallel_maintenance_workers", "2", True)))
    await connection.run_sync(_index(one, m, ef_construction).create)
    await connection.execute(sa.update(g).where(g.c.id == one.id).values(indexed=True))


async def forget_index(connection: Connection, one: Generation) -> None:
    """Remove the HNSW index."""
    await connection.run_sync(lambda sync: _index(one, 16, 64).drop(sync, checkfirst=True))
    await connection.execute(sa.update(g).where(g.c.id == one.id).values(indexed=False))


async def note(connection: Connection, one: Generation, **values: Any) -> None:
    """Write down something of a generation."""
    await connection.execute(sa.update(g).where(g.c.id == one.id).values(values))


async def activate(connection: Connection, project: str, environment: str, one: Generation) -> None:
    """From the end of the transaction on, this generation answers."""
    mine = (g.c.project == project, g.c.environment == environment, g.c.asset == one.asset)
    await connection.execute(sa.update(g).where(*mine, g.c.active).values(active=False))
    await connection.execute(sa.update(g).where(g.c.id == one.id).values(active=True))


async def count(connection: Connection, one: Generation, limit: int | None = None, **filters: Any) -> int:
    """How many rows match; not more than `limit` are counted."""
    matching = sa.select(sa.literal(1)).select_from(_table(one)).where(*_where(one, filters)).limit(limit).subquery()
    return int((await connection.execute(sa.select(sa.func.count()).select_from(matching))).scalar_one())


async def nearest(
    connection: Connection, one: Generation, vector: Sequence[float], k: int, filters: Mapping[str, Any], *, exact: bool | None = None,
    ef_search: int | None = None,
) -> list[Found]:  # fmt: skip
    """The `k` rows that are nearest among those that match, or all of them where they are fewer.

    HNSW looks at neighbours and then at the filter. It therefore goes on looking until there are enough; where few rows match, or it
    still gave too few, all of them are looked at.
    """
    table = _table(one)
    # As a subquery it is read once; where a prepared statement has a plan for all values it would be read for each row.
    given = sa.select(sa.cast(sa.cast(sa.literal(_text(vector)), sa.Text), HALFVEC(one.dimensions))).scalar_subquery()
    distance = table.c.vector.cosine_distance(given).label("distance")
    query = sa.select(table.c.name, table.c.fields, distance).where(*_where(one, filters))
    if exact is None and one.indexed and filters:
        few = query.limit(EXACT + 1).cte("few").prefix_with("MATERIALIZED", dialect="postgresql")
        matching = sa.select(sa.func.count()).select_from(few).scalar_subquery()
        found = (await connection.execute(sa.select(few, matching).order_by(few.c.distance, few.c.name).limit(k))).all()
        if not found or found[0][3] <= EXACT:
            return [_found(*row[:3]) for row in found]
    query = query.limit(sa.literal(k, literal_execute=True))  # told, or the planner takes it for many
    if exact if exact is not None else not one.indexed:
        rows = (
            await connection.execute(query.order_by(distance + 0, table.c.name))
        ).all()  # what is added keeps the index out
    else:
        if exact is False:  # whatever the planner thinks: until the end of the transaction
            await connection.execute(sa.select(sa.func.set_config("enable_seqscan", "off", True)))
        wanted = max(one.parameters.get("ef_search", 100) if ef_search is None else ef_search, k)
        settings = {
            "hnsw.ef_search": min(wanted, CANDIDATES),
            "hnsw.iterative_scan": "strict_order",
            "hnsw.max_scan_tuples": 2**31 - 1,
        }
        # A condition that no row has a part in is settled before the first one is looked for: a statement less.
        chosen = sa.select(sa.func.concat(*(sa.func.set_config(n, str(v), True) for n, v in settings.items())))
        rows = (await connection.execute(query.where(chosen.scalar_subquery() != "").order_by(distance))).all()
        if len(rows) < k:
            return await nearest(connection, one, vector, k, filters, exact=True)
    return [_found(*row) for row in rows]


def _found(name: str, fields: Mapping[str, Any], distance: float | None) -> Found:
    near = 1 - (distance or 0.0)
    return Found(name, fields, round(near, 6) if math.isfinite(near) else 0.0)


def is_gone(error: Exception) -> bool:
    """Whether the table of a generation was dropped since somebody learned of it: another answers by now."""
    return isinstance(error, ProgrammingError) and getattr(error.orig, "sqlstate", None) == "42P01"


async def documents(connection: Connection, one: Generation, filters: Mapping[str, Any]) -> set[tuple[str, str]]:
    """What the rows that match stand for: asset and document."""
    fields = _table(one).c.fields
    query = sa.select(fields["asset"].astext, fields["document"].astext).where(*_where(one, filters)).distinct()
    return {(asset, document) for asset, document in await connection.execute(query)}


async def apart(connection: Connection, one: Generation, other: Generation, limit: int = 0) -> tuple[int, list[str]]:
    """Of how many documents one generation has a version and another has none; and the names of some."""
    mine, theirs = _table(one), _table(other)
    alone = sa.select(mine.c.name).where(~sa.exists().where(theirs.c.address == mine.c.address))
    count = (await connection.execute(sa.select(sa.func.count()).select_from(alone.subquery()))).scalar_one()
    names = (await connection.execute(alone.order_by(mine.c.name).limit(limit))).scalars().all() if limit else []
    return int(count), list(names)


async def sample(connection: Connection, one: Generation, rows: int) -> list[list[float]]:
    """The vectors of some rows, always the same while the rows are."""
    table = _table(one)
    query = sa.select(sa.cast(table.c.vector, sa.Text)).order_by(sa.func.md5(table.c.name)).limit(rows)
    return [
        [float(number) for number in text.strip("[]").split(",")]
        for text in (await connection.execute(query)).scalars()
    ]


async def size(connection: Connection, one: Generation) -> int:
    """Bytes of the HNSW index."""
    found = await connection.execute(sa.select(sa.func.pg_relation_size(sa.cast(_index_name(one), REGCLASS))))
    return int(found.scalar_one())


async def journal(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Keep what trials measured."""
    await connection.execute(sa.insert(x), [dict(row) for row in rows])


async def trials(
    connection: Connection, project: str, environment: str, asset: str, limit: int | None = None
) -> list[dict[str, Any]]:
    """What was tried, the latest first."""
    mine = (x.c.project == project, x.c.environment == environment, x.c.asset == asset)
    rows = await connection.execute(sa.select(x).where(*mine).order_by(x.c.id.desc()).limit(limit))
    return [dict(row._mapping) for row in rows]


def _where(one: Generation, filters: Mapping[str, Any]) -> list[sa.ColumnElement[bool]]:
    """Each field has one of the values that are given for it, as `filters.asked` writes them."""
    fields = _table(one).c.fields
    found = []
    for name, value in filters.items():
        values = value if isinstance(value, list | tuple | set | frozenset) else [value]
        found.append(sa.or_(sa.false(), *(fields.contains({name: v}) for v in values)))
    return found


def _text(vector: Sequence[float]) -> str:
    return "[" + ",".join(map(repr, map(float, vector))) + "]"


async def forget(connection: Connection, project: str, documents: Collection[int]) -> None:
    """Take these documents out of every generation of a project's indexes that has its table."""
    shown = [g.c[name] for name in Generation.__slots__]
    there = sa.func.to_regclass(sa.func.concat(sa.literal(NAMED, sa.Text), g.c.id)).is_not(None)
    for row in await connection.execute(sa.select(*shown).where(g.c.project == project, there)):
        table = _table(Generation(*row))
        await connection.execute(sa.delete(table).where(among(table.c.document, documents, sa.BigInteger)))
