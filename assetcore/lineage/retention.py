"""Retention: which history is given up, and where does what is left of it lie?

History is given up by document: a version that was in use in no environment within the time that is kept, and that nothing which was is
made of, however far up. Its row in lineage stays, and says so; its bytes go with the next compaction. Rows of packs are moved by
pointers: readers that looked before find the old object, which stays for a while, those that look after find the new one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

import polars as pl
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection

from assetcore.lineage import tables as t
from assetcore.lineage.asking import among, columns
from assetcore.lineage.commit import NewObject
from assetcore.lineage.commit import copy as copy_rows
from assetcore.lineage.damage import LET_GO, Damaged, note
from assetcore.lineage.read import dated
from assetcore.storage import Key

__all__ = [
    "Member",
    "Used",
    "compact",
    "forget_objects",
    "give_up",
    "let_go_of",
    "lock",
    "members",
    "note_compaction",
    "past_retention",
    "retired",
    "used",
]


class Used(NamedTuple):
    """A pack or an object of its own, of whose documents some were let go: bytes of content in all, and of those still needed."""

    id: int
    asset: int
    key: Key
    size: int
    rows: int | None
    content: int
    needed: int


class Member(NamedTuple):
    """A row of a pack that is still needed, and the documents that lie there: copies of one share it."""

    row: int
    sha256: bytes
    documents: tuple[int, ...]


async def lock(connection: AsyncConnection, project: int) -> None:
    """Until the end of the transaction nothing of the project is committed elsewhere."""
    await connection.execute(sa.select(t.project.c.id).where(t.project.c.id == project).with_for_update(key_share=True))


async def past_retention(connection: AsyncConnection, project: int, before: datetime) -> pl.DataFrame:
    """The documents (asset, document) that were not in use since then, and that nothing which was is made of.

    A fixed number of statements, and a few more for each step that lineage goes up among what is not in use.
    """
    a, m, h, k, d, x = (x.c for x in (t.asset, t.materialization, t.head, t.commit, t.document, t.damage))
    own = sa.select(a.id).where(a.project_id == project)
    ended = await _last_before(connection, project, before)
    young = sa.select(m.id).select_from(dated(t.materialization, m.id)).where(m.asset_id.in_(own), k.at >= before)
    used = (
        sa.select(h.materialization_id)
        .where(h.asset_id.in_(own), sa.or_(h.until_commit.is_(None), h.until_commit > ended))
        .union(_borrowed(own, ended), young)
    )
    kept = (await columns(connection, sa.select(used.subquery()), {"materialization": pl.Int64}))["materialization"]
    listed = sa.select(sa.func.unnest(t.documents_of(m)).label("id")).where(m.id.in_(used)).subquery()
    old = await columns(
        connection,
        sa.select(d.asset_id, d.id, d.materialization_id).where(
            d.asset_id.in_(own),
            ~sa.exists().where(listed.c.id == d.id),
            ~sa.exists().where(x.document_id == d.id, x.cause == LET_GO),
        ),
        {"asset": pl.Int64, "document": pl.Int64, "maker": pl.Int64},
    )
    makers = kept
    while old.height and len(makers):
        needed = await _given(connection, makers)
        makers = old.filter(pl.col("document").is_in(needed.implode()))["maker"].unique()
        old = old.filter(~pl.col("document").is_in(needed.implode()))
    return old.select("asset", "document")


async def _last_before(connection: AsyncConnection, project: int, before: datetime) -> int:
    """The last number that was taken before a time: what ended with a later one was in use since then.

    Numbers grow with the time. Those of environments that were created, rebased or dropped are in the journal.
    """
    k, j = t.commit.c, t.journal.c
    commits = sa.select(k.id).where(k.project_id == project, k.at < before)
    taken = sa.cast(j.facts["number"].astext, sa.BigInteger)
    turns = sa.select(taken).where(j.project_id == project, j.what.startswith("env "), j.at < before)
    numbers = commits.union_all(turns).subquery()
    return (await connection.execute(sa.select(sa.func.max(numbers.c.id)))).scalar_one() or 0


def _borrowed(own: sa.Select[int], ended: int) -> sa.Select[int]:
    """What environments borrow from others as these were at a commit, or did after the commit `ended`."""
    b, h = t.borrowed.c, t.head.c
    then = sa.and_(
        h.environment_id == b.lender_id, h.asset_id == b.asset_id, h.since_commit <= b.at_commit,
        sa.or_(h.until_commit.is_(None), h.until_commit > b.at_commit),
    )  # fmt: skip
    return (
        sa.select(h.materialization_id)
        .select_from(t.borrowed.join(t.head, then))
        .where(b.asset_id.in_(own), sa.or_(b.until_commit.is_(None), b.until_commit > ended))
    )


async def _given(connection: AsyncConnection, materializations: pl.Series) -> pl.Series:
    """The documents that these were given and that may not be in use any more: one by one, and of whole assets as they were then."""
    e, c, h, m = t.given.c, t.collected.c, t.head.c, t.materialization.c
    some = materializations.to_list()
    schema = {"document": pl.Int64}
    edges = sa.select(e.document_id).distinct()
    edges = edges.where(among(e.materialization_id, some, sa.BigInteger), e.document_id.is_not(None))
    # In whichever environment: an environment may have borrowed what it gave.
    then = sa.and_(h.asset_id == c.asset_id, h.since_commit <= c.commit_id, h.until_commit > c.commit_id)
    wholes = (
        sa.select(sa.func.unnest(t.documents_of(m)))
        .select_from(t.collected.join(t.head, then).join(t.materialization, m.id == h.materialization_id))
        .where(among(c.materialization_id, some, sa.BigInteger))
        .distinct()
    )
    found = [await columns(connection, statement, schema) for statement in (edges, wholes)]
    return pl.concat(found)["document"].unique()


async def give_up(connection: AsyncConnection, old: pl.DataFrame, why: str) -> None:
    """Let these documents go: what is made later takes none of them."""
    await note(connection, (Damaged(document, asset, LET_GO, why) for asset, document in old.iter_rows()))


async def used(connection: AsyncConnection, project: int) -> list[Used]:
    """The objects in which documents lie that were let go; nothing is read of the others."""
    a, o, d, x = t.asset.c, t.object_.c, t.document.c, t.damage.c
    gone = sa.select(d.object_id).join_from(t.damage, t.document, d.id == x.document_id).where(x.cause == LET_GO)
    rows = (
        sa.select(
            d.object_id,
            d.row,
            sa.func.max(d.size).label("size"),
            sa.func.bool_or(sa.func.coalesce(x.cause, "") != LET_GO).label("needed"),
        )
        .select_from(t.document.outerjoin(t.damage, x.document_id == d.id))
        .where(d.object_id.in_(gone))
        .group_by(d.object_id, d.row)
        .subquery()
    )
    weight = rows.c.size + 1  # an empty document is a row, too
    found = await connection.execute(
        sa.select(
            o.id, o.asset_id, o.key, o.size, o.rows, sa.func.sum(weight),
            sa.func.coalesce(sa.func.sum(weight).filter(rows.c.needed), 0),
        )
        .join_from(t.object_, rows, rows.c.object_id == o.id)
        .join(t.asset, a.id == o.asset_id)
        .where(a.project_id == project, o.retired_at.is_(None))
        .group_by(o.id)
        .order_by(o.asset_id, o.id)
    )  # fmt: skip
    return [Used(i, asset, Key(key), size, rows_, int(c), int(n)) for i, asset, key, size, rows_, c, n in found]


async def members(connection: AsyncConnection, objects: Collection[int]) -> dict[int, list[Member]]:
    """Of each of these packs the rows that are still needed, in order."""
    d, x = t.document.c, t.damage.c
    rows = await connection.execute(
        sa.select(d.object_id, d.row, sa.func.min(d.sha256), sa.func.array_agg(d.id))
        .select_from(t.document.outerjoin(t.damage, sa.and_(x.document_id == d.id, x.cause == LET_GO)))
        .where(among(d.object_id, objects, sa.BigInteger), x.document_id.is_(None))
        .group_by(d.object_id, d.row)
        .order_by(d.object_id, d.row)
    )
    found: dict[int, list[Member]] = {number: [] for number in objects}
    for number, row, sha256, documents in rows:
        found[number].append(Member(row, sha256, tuple(documents)))
    return found


async def compact(
    connection: AsyncConnection,
    asset: int,
    new: NewObject | None,
    moves: Sequence[tuple[int, int]],
    old: Sequence[int],
) -> bool:
    """Point documents (document, row) at the new pack, and retire the old objects; False where something came between: then undo it.

    In the transaction nothing else of the project is committed (`lock`).
    """
    d, o = t.document, t.object_
    if new is not None:
        await copy_rows(connection, o, [(new.id, asset, new.key, new.size, new.rows, new.sha256, None)])
        documents, rows = [document for document, _ in moves], [row for _, row in moves]
        place = sa.select(
            sa.func.unnest(sa.cast(documents, ARRAY(sa.BigInteger))).label("document"),
            sa.func.unnest(sa.cast(rows, ARRAY(sa.Integer))).label("row"),
        ).subquery()
        moved = await connection.execute(
            sa.update(d)
            .where(d.c.id == place.c.document, among(d.c.object_id, old, sa.BigInteger))
            .values(object_id=new.id, row=place.c.row)
        )
        if moved.rowcount != len(moves):
            return False
    x = t.damage.c
    gone = sa.exists().where(x.document_id == d.c.id, x.cause == LET_GO)
    left = sa.select(d.c.id).where(among(d.c.object_id, old, sa.BigInteger), ~gone).limit(1)
    if (await connection.execute(left)).first() is not None:
        return False
    retire = sa.update(o).where(among(o.c.id, old, sa.BigInteger), o.c.retired_at.is_(None))
    done = await connection.execute(retire.values(retired_at=sa.func.clock_timestamp()))
    return done.rowcount == len(old)


async def let_go_of(connection: AsyncConnection, objects: Collection[int]) -> list[tuple[int, str]]:
    """The documents in these objects that were let go, and what was said of it."""
    d, x = t.document.c, t.damage.c
    rows = await connection.execute(
        sa.select(d.id, x.detail)
        .join_from(t.damage, t.document, d.id == x.document_id)
        .where(among(d.object_id, objects, sa.BigInteger), x.cause == LET_GO)
    )
    return [(document, detail) for document, detail in rows]


async def note_compaction(
    connection: AsyncConnection, number: int, project: int, environment: int, asset: int, run: str, record: Key, at: datetime
) -> None:  # fmt: skip
    """A compaction is a commit that changes nothing of what an asset is; its record in the bucket stands for a manifest."""
    await connection.execute(
        sa.insert(t.commit).values(
            id=number,
            project_id=project,
            environment_id=environment,
            asset_id=asset,
            run_id=run,
            manifest=record,
            at=at,
        )
    )


async def retired(connection: AsyncConnection, project: int, grace: timedelta) -> Mapping[int, tuple[Key, int]]:
    """The objects that nothing has pointed to for so long, by the clock of Postgres, which said when that began: key and size."""
    o, a = t.object_.c, t.asset.c
    rows = await connection.execute(
        sa.select(o.id, o.key, o.size)
        .join_from(t.object_, t.asset, a.id == o.asset_id)
        .where(a.project_id == project, o.retired_at <= sa.func.clock_timestamp() - grace)
    )
    return {number: (Key(key), size) for number, key, size in rows}


async def forget_objects(connection: AsyncConnection, objects: Collection[int]) -> None:
    """These objects, whose bytes are gone, are not known any more."""
    await connection.execute(sa.delete(t.object_).where(among(t.object_.c.id, objects, sa.BigInteger)))
