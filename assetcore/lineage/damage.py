"""Damage: of which documents are the bytes lost, and which units does that concern?

What is noted here is noted of documents, whichever environment they are current in. A unit is damaged while what it currently is
includes such a document; made again it has another one, and what was noted stays true of the old one, which is never taken again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple

import polars as pl
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from assetcore.lineage import tables as t
from assetcore.lineage.asking import among, columns
from assetcore.lineage.heads import heads_of
from assetcore.lineage.read import current, intact

__all__ = [
    "DAMAGED", "EXPECTED", "LET_GO", "OBJECTS", "Damaged", "among_keys", "clear", "current_damage", "damaged_assets", "details", "expected",
    "finished", "harmed", "in_objects", "losses", "note", "note_repeats", "note_verified", "noted", "objects", "of_documents", "repeats",
    "verified",
]  # fmt: skip

LET_GO = "let-go"
"""What stands for a cause where history was given up: no unit is made again for that."""
EXPECTED = {
    "object": pl.Int64, "document": pl.Int64, "row": pl.Int64, "sha256": pl.Binary, "unit": pl.Binary, "label": pl.String,
    "parent": pl.String, "name": pl.String,
}  # fmt: skip
OBJECTS = {"object": pl.Int64, "key": pl.String, "size": pl.Int64, "sha256": pl.Binary}
DAMAGED = {"asset": pl.Int64, "unit": pl.Binary, "document": pl.Int64, "cause": pl.String}
_first, _now = t.materialization.alias("first"), t.materialization.alias("now")


class Losses(NamedTuple):
    """Of documents the cause that is noted, and when. `since`: when the first loss of their asset that is still known was noted."""

    noted: Mapping[int, tuple[str, datetime]]
    since: datetime | None


class Damaged(NamedTuple):
    """A document whose bytes are lost, and a few words about how."""

    document: int
    asset: int
    cause: str
    detail: str


async def note(connection: AsyncConnection, found: Iterable[Damaged]) -> None:
    """Remember these; what was noted of the same document before gives way, unless it was let go: it stays so."""
    rows = [{"document_id": d.document, "asset_id": d.asset, "cause": d.cause, "detail": d.detail} for d in found]
    for start in range(0, len(rows), 5000):
        statement = insert(t.damage).values(rows[start : start + 5000])
        again = {"cause": statement.excluded.cause, "detail": statement.excluded.detail, "at": sa.func.now()}
        await connection.execute(
            statement.on_conflict_do_update(
                index_elements=["document_id"], set_=again, where=t.damage.c.cause != LET_GO
            )
        )


async def clear(connection: AsyncConnection, documents: Collection[int]) -> None:
    """Forget what was noted of these: their bytes were read, and are right."""
    x = t.damage.c
    await connection.execute(
        sa.delete(t.damage).where(among(x.document_id, documents, sa.BigInteger), x.cause != LET_GO)
    )


async def damaged_assets(connection: AsyncConnection, environment: int) -> set[int]:
    """The assets that are damaged as they currently are. Next to nothing where nothing ever was."""
    statement = _damaged_assets(await heads_of(connection, environment))
    return set((await connection.execute(statement, {"environment": environment})).scalars())


async def current_damage(connection: AsyncConnection, environment: int, assets: Collection[int]) -> pl.DataFrame:
    """The damaged documents that these assets currently have (`DAMAGED`)."""
    statement = _current_damage(await heads_of(connection, environment))
    rows = (await connection.execute(statement, {"environment": environment, "assets": list(assets)})).all()
    return pl.DataFrame([tuple(row) for row in rows], schema=DAMAGED, orient="row")


async def details(connection: AsyncConnection, materialization: int, cause: str) -> list[str]:
    """What was noted of the documents of a materialization, each with its name and key."""
    x, d, o = t.damage.c, t.document.c, t.object_.c
    listed = sa.select(sa.func.unnest(t.documents_of(t.materialization.c))).where(
        t.materialization.c.id == materialization
    )
    rows = await connection.execute(
        sa.select(d.name, o.key, x.detail)
        .select_from(t.damage.join(t.document, d.id == x.document_id).join(t.object_, o.id == d.object_id))
        .where(x.document_id.in_(listed), x.cause == cause)
        .order_by(d.id)
    )
    return [f"{name} in {key}: {detail}" for name, key, detail in rows]


async def harmed(connection: AsyncConnection, assets: Collection[int], materializations: Collection[int]) -> set[int]:
    """Those of these materializations, of these assets, of whose documents something is noted: no commit takes them."""
    m = t.materialization.c
    rows = await connection.execute(
        sa.select(m.id).where(among(m.id, materializations, sa.BigInteger), sa.not_(intact(assets)))
    )
    return set(rows.scalars())


async def losses(connection: AsyncConnection, asset: int, documents: Collection[int]) -> Losses:
    """What is noted of these documents of an asset. What was, before Postgres was made again of the bucket, nobody knows any more."""
    x = t.damage.c
    first = sa.select(sa.func.min(x.at).label("at")).where(x.asset_id == asset, x.cause != LET_GO).subquery()
    ours = first.outerjoin(t.damage, among(x.document_id, documents, sa.BigInteger))
    rows = (await connection.execute(sa.select(first.c.at, x.document_id, x.cause, x.at).select_from(ours))).all()
    return Losses({document: (cause, at) for _, document, cause, at in rows if document is not None}, rows[0][0])


async def noted(connection: AsyncConnection, environment: int) -> set[int]:
    """The current documents that something is noted of."""
    head = await heads_of(connection, environment)
    statement = _current(head, [t.damage.c.document_id])
    return set((await connection.execute(statement, {"environment": environment})).scalars())


async def in_objects(connection: AsyncConnection, identifiers: Collection[int]) -> pl.DataFrame:
    """The documents, current or not, whose bytes lie in these objects (`EXPECTED` without units)."""
    return await _stored(connection, among(t.document.c.object_id, identifiers, sa.BigInteger))


async def of_documents(connection: AsyncConnection, documents: Collection[int]) -> pl.DataFrame:
    """These documents (`EXPECTED` without units)."""
    return await _stored(connection, among(t.document.c.id, documents, sa.BigInteger))


async def _stored(connection: AsyncConnection, which: sa.ColumnElement[bool]) -> pl.DataFrame:
    d = t.document.c
    schema = {name: EXPECTED[name] for name in ("object", "document", "row", "sha256")}
    found = await columns(connection, sa.select(d.object_id, d.id, d.row, d.sha256).where(which), schema)
    return found.sort("object", "row", "document")


# Every plan and question asks these: each statement is put together once.
@lru_cache
def _damaged_assets(head: sa.FromClause) -> sa.Select[Any]:
    return _current(head, [head.c.asset_id]).distinct()


@lru_cache
def _current_damage(head: sa.FromClause) -> sa.Select[Any]:
    h, x = head.c, t.damage.c
    return _current(head, [h.asset_id, h.unit, x.document_id, x.cause]).where(among(h.asset_id, "assets", sa.Integer))


def _current(head: sa.FromClause, shown: Sequence[sa.ColumnElement[Any]]) -> sa.Select[Any]:
    """From the damaged documents, which are few, to the units that currently have them: a document only ever is of one unit.

    In the `environment` that is given when it is asked.
    """
    x, d, h = t.damage.c, t.document.c, head.c
    first, now = _first, _now
    joined = (
        t.damage.join(t.document, d.id == x.document_id)
        .join(first, first.c.id == d.materialization_id)
        .join(
            head,
            sa.and_(
                h.environment_id == sa.bindparam("environment"),
                h.asset_id == first.c.asset_id,
                h.unit == first.c.unit,
                h.until_commit.is_(None),
            ),
        )
        .join(now, now.c.id == h.materialization_id)
    )  # fmt: skip
    return (
        sa.select(*shown).select_from(joined).where(x.cause != LET_GO, x.document_id == sa.any_(t.documents_of(now.c)))
    )


# --- what to verify ----------------------------------------------------------------------------------------------------------


async def expected(connection: AsyncConnection, environment: int, asset: int) -> pl.DataFrame:
    """The current documents of an asset, with where their bytes lie and what these hash to (`EXPECTED`)."""
    head = await heads_of(connection, environment)
    d, h, m = t.document.c, head.c, t.materialization.c
    found = await columns(
        connection,
        sa.select(d.object_id, d.id, d.row, d.sha256, h.unit, m.label, m.parent, d.name)
        .select_from(current(head))
        .where(h.environment_id == environment, h.asset_id == asset, h.until_commit.is_(None)),
        EXPECTED,
    )
    return found.sort("object", "row", "document")


async def objects(connection: AsyncConnection, identifiers: Collection[int]) -> pl.DataFrame:
    """These objects (`OBJECTS`), in the order in which they were written."""
    o = t.object_.c
    statement = sa.select(o.id, o.key, o.size, o.sha256).where(among(o.id, identifiers, sa.BigInteger))
    return (await columns(connection, statement, OBJECTS)).sort("object")


async def among_keys(connection: AsyncConnection, keys: Collection[str]) -> dict[str, tuple[int, int]]:
    """The objects under these keys: identifier, and the asset that they are of."""
    o = t.object_.c
    rows = await connection.execute(sa.select(o.key, o.id, o.asset_id).where(among(o.key, keys, sa.Text)))
    return {key: (identifier, asset) for key, identifier, asset in rows}


async def verified(connection: AsyncConnection, since: datetime) -> set[int]:
    """The objects that a verification which did not come to its end has found right since then."""
    return set((await connection.execute(sa.select(t.verified.c.object_id).where(t.verified.c.at > since))).scalars())


async def note_verified(connection: AsyncConnection, identifiers: Collection[int]) -> None:
    """Remember that these objects are right, in case the verification does not come to its end."""
    if identifiers:
        rows = [{"object_id": identifier} for identifier in identifiers]
        statement = insert(t.verified).values(rows)
        await connection.execute(
            statement.on_conflict_do_update(index_elements=["object_id"], set_={"at": sa.func.now()})
        )


async def finished(connection: AsyncConnection, identifiers: Collection[int]) -> None:
    """The verification of these objects has come to its end: the next one reads them again."""
    await connection.execute(sa.delete(t.verified).where(among(t.verified.c.object_id, identifiers, sa.BigInteger)))


# --- what does not always come out the same ----------------------------------------------------------------------------------


async def note_repeats(connection: AsyncConnection, asset: int, definition: int, units: int, different: int) -> None:
    """Add units that were made again with the same recipe, and how many of them came out different."""
    r = t.repeat
    statement = insert(r).values(asset_id=asset, definition_id=definition, units=units, different=different)
    added = {"units": r.c.units + statement.excluded.units, "different": r.c.different + statement.excluded.different}
    await connection.execute(statement.on_conflict_do_update(index_elements=["asset_id", "definition_id"], set_=added))


async def repeats(connection: AsyncConnection, assets: Collection[int]) -> Mapping[int, tuple[int, int]]:
    """Of these assets how many units were made again with the same recipe, and how many came out different."""
    r = t.repeat.c
    rows = await connection.execute(
        sa.select(r.asset_id, sa.func.sum(r.units), sa.func.sum(r.different))
        .where(r.asset_id.in_(list(assets)))
        .group_by(r.asset_id)
    )
    return {asset: (int(units), int(different)) for asset, units, different in rows}
