"""Trace: which documents are documents made of, and made into?

Every step up or down is a fixed number of statements over all documents of that step. A document that was made again with the same
content is the same row, so its trace goes on through what its unit currently is.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import polars as pl
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from assetcore.lineage import tables as t
from assetcore.lineage.asking import Statement, among, array_of, columns
from assetcore.lineage.heads import as_of, heads_of, undropped_since
from assetcore.lineage.named import of_same_unit
from assetcore.lineage.read import with_documents, with_types
from assetcore.roots import GIVEN_TO

__all__ = [
    "Step", "descending", "down", "excerpts", "excerpts_of", "first_makers", "formerly", "given_to", "makers", "up", "when_made",
    "wholes_of",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a trace: pairs (from, to) of documents, and (asset, environment, commit, document, since) where a whole asset was given.

    A whole asset was given as of a commit; since the commit `since` the document's unit is what was made of it.
    """

    edges: frozenset[tuple[int, int]]
    wholes: frozenset[tuple[int, int, int, int, int]]


_d, _m = t.document.c, t.materialization.c
# Names for a table are made once: they take as long as a statement.
_first, _now, _given = (t.materialization.alias(name) for name in ("first", "now", "given"))
_other, _then = t.document.alias("other"), t.head.alias("then")


async def up(connection: AsyncConnection, environment: int, ids: Collection[int], commit: int | None = None) -> Step:
    """What these documents were made of: by what their unit is, or was as of a commit, or else by what made them first.

    A document that was made again, with another result in between, its unit holds under a later identifier.
    """
    head = await heads_of(connection, environment, commit)
    step, left = await _above(connection, makers(head, environment, ids, commit))
    later = await _held_as(connection, head, environment, left, commit)
    if not later:
        return step
    again, _ = await _above(connection, makers(head, environment, [held for held, _ in later.values()], commit))
    asked: dict[int, list[int]] = {}
    for document, (held, _) in later.items():
        asked.setdefault(held, []).append(document)
    return Step(
        frozenset(edge for edge in step.edges if edge[0] not in later)
        | {(document, above) for held, above in again.edges for document in asked[held]},
        frozenset(whole for whole in step.wholes if whole[3] not in later)
        | {(asset, of, given, document, at) for asset, of, given, held, at in again.wholes for document in asked[held]},
    )


async def when_made(
    connection: AsyncConnection,
    environment: int,
    wholes: Collection[tuple[int, int, int, int, int]],
    commit: int | None,
) -> tuple[int, int]:
    """Above whole assets all is followed as it was when what is made of them was made: in which environment, and as of which commit.

    What an environment has of another since before that lent it was made there: it was nothing itself then.
    """
    document, since = max((whole[3:] for whole in wholes), key=lambda one: one[1])
    asset = sa.select(_d.asset_id).where(_d.id == document).scalar_subquery()
    b, upper = t.borrowed.c, commit
    while True:
        loan = sa.select(b.lender_id, b.at_commit).where(
            b.environment_id == environment, b.asset_id == asset, b.at_commit >= since, b.since_commit > since,
            sa.true() if upper is None else b.since_commit <= upper,
        )  # fmt: skip
        found = (await connection.execute(loan.order_by(b.since_commit.desc()).limit(1))).one_or_none()
        if found is None:
            return environment, since
        environment, upper = found


async def _above(connection: AsyncConnection, made: sa.Select[Any, Any, Any, Any]) -> tuple[Step, set[int]]:
    """What documents were made of, given their `makers`, and which of them their unit does not hold."""
    found = made.cte("maker")
    document, first, now, since = found.c
    e, c = t.given.c, t.collected.c
    maker, number = sa.func.coalesce(now, first), sa.cast(sa.null(), sa.BigInteger)
    given = sa.select(document, e.document_id, number, number, number, number).join_from(
        found, t.given, sa.and_(e.materialization_id == maker, e.document_id.is_not(None))
    )
    wholes = sa.select(
        document, number, c.asset_id, c.environment_id, c.commit_id, sa.func.coalesce(since, c.commit_id)
    ).join_from(found, t.collected, c.materialization_id == maker)
    left = sa.select(document, number, number, number, number, number).where(now.is_(None))
    rows = (await connection.execute(sa.union_all(given, wholes, left))).all()
    step = Step(
        frozenset((document, above) for document, above, *_ in rows if above is not None),
        frozenset(
            (asset, of, given, document, since) for document, _, asset, of, given, since in rows if asset is not None
        ),
    )
    return step, {document for document, above, asset, *_ in rows if above is None and asset is None}


async def _held_as(
    connection: AsyncConnection, head: sa.FromClause, environment: int, ids: Collection[int], commit: int | None
) -> dict[int, tuple[int, int]]:
    """Of these documents those that their unit now holds, or held as of a commit: under which identifier, and its materialization."""
    if not ids:
        return {}
    h, first, asked = head.c, _first, _other
    chosen = asked.join(first, first.c.id == asked.c.materialization_id)
    these = among(asked.c.id, ids, sa.BigInteger)
    units = sa.select(first.c.asset_id, first.c.unit, first.c.label).select_from(chosen).where(these).distinct().cte()
    if commit is None:
        of_unit = sa.and_(h.asset_id == units.c.asset_id, h.unit == units.c.unit)
        heads = units.join(head, of_unit).join(t.materialization, _m.id == h.materialization_id)
    else:
        heads = units.join(t.materialization, of_same_unit(_m, units.c)).join(head, h.materialization_id == _m.id)
    no = sa.cast(sa.null(), sa.BigInteger)
    rows = await connection.execute(
        sa.union_all(
            sa.select(_d.asset_id, _d.address, _d.identity, _d.id, _m.id)
            .select_from(with_documents(heads))
            .where(h.environment_id == environment, as_of(h, commit)),
            sa.select(asked.c.asset_id, asked.c.address, asked.c.identity, asked.c.id, no).where(these),
        )
    )
    held, wanted = dict[tuple[Any, ...], tuple[int, int]](), dict[int, tuple[Any, ...]]()
    for *same, document, maker in rows:
        if maker is None:
            wanted[document] = (*same,)
        else:
            held[*same] = document, maker
    return {document: held[same] for document, same in wanted.items() if same in held}


async def down(connection: AsyncConnection, environment: int, ids: Collection[int], commit: int | None = None) -> Step:
    """What was made of these documents and is, or was as of a commit, current: edges from each, also through whole assets.

    What was made of the same document under an earlier identifier (it was made again, with another result in between) counts.
    """
    twins = await _twins(connection, ids)
    asked, ids = {**{i: i for i in ids}, **twins}, [*ids, *twins]
    head = await heads_of(connection, environment, commit)
    h = head.c
    e, c = t.given.c, t.collected.c
    made = sa.func.unnest(t.documents_of(_m)).table_valued("id", name="made").render_derived()
    now = sa.and_(h.materialization_id == _m.id, h.environment_id == environment, as_of(h, commit))
    direct = (
        sa.select(e.document_id, made.c.id)
        .select_from(
            t.given.join(t.materialization, _m.id == e.materialization_id).join(head, now).join(made, sa.true())
        )
        .where(among(e.document_id, ids, sa.BigInteger))
    )
    # A whole asset was given as of a commit: the documents that some unit of it then was.
    m2, h2, first = _given, _then, _first
    given = sa.func.unnest(t.documents_of(m2.c)).table_valued("id", name="listed_given").render_derived()
    held = sa.and_(
        h2.c.asset_id == c.asset_id, h2.c.environment_id == c.environment_id, h2.c.since_commit <= c.commit_id,
        undropped_since(h2.c, c.commit_id),
    )  # fmt: skip
    chosen = sa.select(_d.asset_id, _d.materialization_id).where(among(_d.id, ids, sa.BigInteger)).subquery()
    units = (
        sa.select(first.c.asset_id, first.c.unit)
        .join(chosen, chosen.c.materialization_id == first.c.id)
        .distinct()
        .subquery()
    )

    def through(still: sa.ColumnElement[bool]) -> sa.Select[Any, Any]:
        return (
            sa.select(given.c.id, made.c.id)
            .select_from(
                units.join(t.collected, c.asset_id == units.c.asset_id)
                .join(h2, sa.and_(h2.c.unit == units.c.unit, held, still))
                .join(m2, m2.c.id == h2.c.materialization_id)
                .join(given, sa.true())
                .join(t.materialization, _m.id == c.materialization_id)
                .join(head, now)
                .join(made, sa.true())
            )
            .where(among(given.c.id, ids, sa.BigInteger))
        )

    # One for what still is and one for what was: each has its own index.
    ways = sa.union_all(direct, through(h2.c.until_commit.is_(None)), through(h2.c.until_commit > c.commit_id))
    return Step(frozenset((asked[a], b) for a, b in await connection.execute(ways)), frozenset())


async def _twins(connection: AsyncConnection, ids: Collection[int]) -> dict[int, int]:
    """Other rows of the same documents (asset, address and identity), each with the one that was asked for."""
    other = _other
    same = sa.and_(
        t.leading(other.c.sha256, t.LEADING_SHA256) == t.leading(_d.sha256, t.LEADING_SHA256),
        other.c.sha256 == _d.sha256,
        other.c.asset_id == _d.asset_id,
        other.c.address == _d.address,
        other.c.identity == _d.identity,
        other.c.id != _d.id,
    )
    rows = await connection.execute(
        sa.select(other.c.id, _d.id).join_from(t.document, other, same).where(among(_d.id, ids, sa.BigInteger))
    )
    return dict(rows.all())


async def formerly(
    connection: AsyncConnection, project: int, ids: Collection[int], declared: Collection[int]
) -> dict[int, int]:
    """The same documents (name and content) in assets that are not declared any more, each with the one that was asked for."""
    other, a = _other, t.asset.c
    gone = sa.select(a.id).where(a.project_id == project, a.id.not_in(list(declared)))
    same = sa.and_(
        t.leading(other.c.sha256, t.LEADING_SHA256) == t.leading(_d.sha256, t.LEADING_SHA256),
        other.c.sha256 == _d.sha256,
        other.c.address == _d.address,
        other.c.identity == _d.identity,
        other.c.asset_id.in_(gone),
    )
    rows = await connection.execute(
        sa.select(other.c.id, _d.id).join_from(t.document, other, same).where(among(_d.id, ids, sa.BigInteger))
    )
    return dict(rows.all())


async def descending(
    connection: AsyncConnection, environment: int, assets: Collection[int], units: pl.Series
) -> pl.Series:
    """These units, and all that these assets now have for documents of them: the unit of a document has its address."""
    statement = _descending(await heads_of(connection, environment))
    values = {"environment": environment, "assets": list(assets), "units": units.to_list()}
    return pl.Series("unit", (await connection.execute(statement, values)).scalars().all(), pl.Binary)


@lru_cache
def _descending(head: sa.FromClause) -> sa.Select[Any]:
    h = head.c
    below = sa.select(sa.func.unnest(array_of("units", t.Address)).label("unit")).cte("below", recursive=True)
    here = sa.and_(
        h.environment_id == sa.bindparam("environment"),
        among(h.asset_id, "assets", sa.Integer),
        h.unit == below.c.unit,
        h.until_commit.is_(None),
    )
    further = sa.select(_d.address).select_from(
        with_documents(below.join(head, here).join(t.materialization, _m.id == h.materialization_id))
    )
    return sa.select(below.union(further).c.unit)


async def excerpts(
    connection: AsyncConnection, environment: int, ids: Collection[int], commit: int | None = None
) -> dict[int, tuple[int, str, int | None, int | None, str | None]]:
    """Of which others these documents are part, where that is known: whole, kind, start, end, pointer."""
    head = await heads_of(connection, environment, commit)
    made = (await connection.execute(makers(head, environment, ids, commit))).all()
    by = {document: (document, now or first) for document, first, now, _ in made}
    left = [document for document, _, now, _ in made if now is None]
    by |= await _held_as(connection, head, environment, left, commit)
    noted = await excerpts_of(connection, {maker for _, maker in by.values()})
    parts = {(part[0], maker): part[1:] for maker, some in noted.items() for part in some}
    return {document: parts[held] for document, held in by.items() if held in parts}


async def excerpts_of(
    connection: AsyncConnection, materializations: Collection[int]
) -> dict[int, list[tuple[int, int, str, int | None, int | None, str | None]]]:
    """What these materializations noted of the documents that they made: document, whole, kind, start, end, pointer."""
    x = t.excerpt.c
    rows = await connection.execute(
        sa.select(x.materialization_id, x.document_id, x.whole_id, x.kind, x.start, x.end, x.pointer).where(
            among(x.materialization_id, materializations, sa.BigInteger)
        )
    )
    found: dict[int, list[tuple[int, int, str, int | None, int | None, str | None]]] = {}
    for maker, *part in rows:
        found.setdefault(maker, []).append((*part,))
    return found


async def given_to(connection: AsyncConnection, materializations: Collection[int]) -> pl.DataFrame:
    """The documents that these materializations were given one by one (`roots.GIVEN_TO`)."""
    return await columns(connection, _given_to(), GIVEN_TO, {"materializations": list(materializations)})


@cache
def _given_to() -> Statement:
    e = t.given.c
    return sa.select(
        e.materialization_id, e.parameter, _d.id, _d.address, _m.unit, _m.label, _d.name, _d.identity, t.document_type.c.media_type,
        _d.sha256, _d.field_digests,
    ).select_from(
        with_types(t.given.join(t.document, _d.id == e.document_id).join(t.materialization, _m.id == _d.materialization_id))
    ).where(among(e.materialization_id, "materializations", sa.BigInteger))  # fmt: skip


async def wholes_of(
    connection: AsyncConnection, materializations: Collection[int]
) -> list[tuple[int, int, int, int, int]]:
    """The whole assets that these materializations were given: materialization, parameter, asset, environment, commit."""
    c = t.collected.c
    rows = await connection.execute(
        sa.select(c.materialization_id, c.parameter, c.asset_id, c.environment_id, c.commit_id)
        .where(among(c.materialization_id, materializations, sa.BigInteger))
        .order_by(c.materialization_id, c.parameter)
    )
    return [(m, p, a, e, k) for m, p, a, e, k in rows]


async def first_makers(connection: AsyncConnection, documents: Collection[int]) -> dict[int, tuple[int, int]]:
    """The materialization that made each of these documents first, with its definition."""
    rows = await connection.execute(
        sa.select(_d.id, _m.id, _m.definition_id)
        .join_from(t.document, t.materialization, _m.id == _d.materialization_id)
        .where(among(_d.id, documents, sa.BigInteger))
    )
    return {document: (materialization, definition) for document, materialization, definition in rows}


def makers(
    head: sa.FromClause, environment: int, ids: Collection[int], commit: int | None
) -> sa.Select[Any, Any, Any, Any]:
    """For each document: the materialization that made it first, and the one that its unit is, or was, if that holds it, and since when."""
    h, first, now = head.c, _first, _now
    made = t.document.join(first, first.c.id == _d.materialization_id)
    then = sa.and_(h.environment_id == environment, h.asset_id == first.c.asset_id, as_of(h, commit))
    held = _d.id == sa.any_(t.documents_of(now.c))
    if commit is None:
        heads = made.outerjoin(head, sa.and_(then, h.unit == first.c.unit)).outerjoin(
            now, sa.and_(now.c.id == h.materialization_id, held)
        )
        found, since = now.c.id, sa.case((now.c.id.is_not(None), h.since_commit))
    else:
        candidates = made.outerjoin(now, sa.and_(of_same_unit(now.c, first.c), held))
        heads = candidates.outerjoin(head, sa.and_(then, h.materialization_id == now.c.id))
        found, since = sa.func.max(h.materialization_id), sa.func.max(h.since_commit)
    statement = (
        sa.select(_d.id, first.c.id, found.label("found"), since.label("since"))
        .select_from(heads)
        .where(among(_d.id, ids, sa.BigInteger))
    )
    return statement if commit is None else statement.group_by(_d.id, first.c.id)
