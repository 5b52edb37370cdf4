"""Trace: which documents does a REF name, and which documents are they made of, and made into?

Every step up or down is a fixed number of statements over all documents of that step. A document that was made again with the same
content is the same row, so its trace goes on through what its unit currently is.
"""

from __future__ import annotations

import base64
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cache, lru_cache
from typing import Any

import polars as pl
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from assetcore.documents import document_id
from assetcore.lineage import tables as t
from assetcore.lineage.asking import Statement, among, array_of, columns
from assetcore.lineage.heads import as_of, at_one_moment, heads_of, undropped_since
from assetcore.lineage.read import current, dated, position, with_documents, with_types
from assetcore.roots import GIVEN_TO

__all__ = [
    "Found", "Step", "about_few", "by_index", "by_unit", "descending", "documents", "down", "ends_of", "excerpts", "excerpts_of",
    "first_makers",
    "formerly", "given_to", "in_partition", "labelled", "look_up", "makers", "of_asset", "of_run", "qualified", "repeated", "rooted",
    "spellings", "up", "when_made", "wholes_of", "with_prefix",
]  # fmt: skip


BY_INDEX = {
    "join_collapse_limit": "1",
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "jit": "off",
}


@dataclass(frozen=True, slots=True)
class Found:
    """A document, and where it stands."""

    id: int
    asset: int
    unit: str
    parent: str | None
    name: str
    media_type: str
    size: int
    sha256: bytes
    identity: bytes
    address: bytes

    @property
    def label(self) -> str:
        """The document's id for people."""
        return document_id(self.sha256)


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a trace: pairs (from, to) of documents, and (asset, environment, commit, document, since) where a whole asset was given.

    A whole asset was given as of a commit; since the commit `since` the document's unit is what was made of it.
    """

    edges: frozenset[tuple[int, int]]
    wholes: frozenset[tuple[int, int, int, int, int]]


_BASE32, _HEXADECIMAL = frozenset("abcdefghijklmnopqrstuvwxyz234567"), frozenset("0123456789abcdef")
_d, _m = t.document.c, t.materialization.c
# Names for a table are made once: they take as long as a statement.
_first, _now, _given = (t.materialization.alias(name) for name in ("first", "now", "given"))
_other, _then = t.document.alias("other"), t.head.alias("then")
_path = sa.collate(sa.func.translate(sa.func.coalesce(_m.parent + "/" + _m.label, _m.label), "/", "\x01"), "C")
"""The order of units in which `units.sort_documents` hands them over."""
_columns = (
    _d.id,
    _d.asset_id,
    _m.label,
    _m.parent,
    _d.name,
    t.document_type.c.media_type,
    _d.size,
    _d.sha256,
    _d.identity,
    _d.address,
)


async def about_few(connection: AsyncConnection) -> None:
    """What is read over this connection is as of one moment, and about few units that are named: rows, not columns, planned once."""
    await at_one_moment(connection, few=True)
    await by_index(connection, named=True)


async def by_index(connection: AsyncConnection, *, named: bool = False) -> None:
    """For the rest of a transaction that asks about few documents: join in the order as written, by indexes.

    Before Postgres has looked at what a large run wrote, it would begin at the wrong end, or read whole tables. Where all that is asked
    about is `named` (identifiers, units, labels), a statement is planned once, not for each of its values; how much of a table is in a
    range, such as the documents whose hash begins with something, only the values tell.
    """
    await connection.execute(_by_index(named=named))


@cache
def _by_index(*, named: bool) -> sa.Select[*tuple[Any, ...]]:
    settings = BY_INDEX | ({"plan_cache_mode": "force_generic_plan"} if named else {})
    return sa.select(*(sa.func.set_config(name, value, True) for name, value in settings.items()))


async def of_asset(
    connection: AsyncConnection, environment: int, asset: int, *, commit: int | None = None, limit: int | None = None
) -> list[Found]:
    """The documents of an asset, now or as of a commit, in order."""
    head = await heads_of(connection, environment, commit)
    h = head.c
    rows = await connection.execute(
        sa.select(*_columns)
        .select_from(with_types(current(head)))
        .where(h.environment_id == environment, h.asset_id == asset, as_of(h, commit))
        .order_by(_path, position)
        .limit(limit)
    )
    return [Found(*row) for row in rows]


async def by_unit(
    connection: AsyncConnection, environment: int, asset: int, label: str, commit: int | None = None
) -> list[tuple[bytes, str, str | None]]:
    """The units of an asset with this label, alone or below their parent, now or as of a commit: unit, label, parent."""
    head = await heads_of(connection, environment, commit)
    h = head.c
    names, matches = spellings(label)
    rows = await connection.execute(
        sa.select(h.unit, _m.label, _m.parent)
        .select_from(labelled(head, names))
        .where(matches, h.environment_id == environment, h.asset_id == asset, as_of(h, commit))
    )
    return [(unit, name, above) for unit, name, above in rows]


async def in_partition(
    connection: AsyncConnection, environment: int, asset: int, key: str, commit: int | None = None
) -> list[tuple[bytes, str, str | None]]:
    """The units of an asset that are in a partition, now or as of a commit: unit, label, parent."""
    head = await heads_of(connection, environment, commit)
    h = head.c
    below = sa.or_(_m.parent == key, _m.parent.startswith(f"{key}/", autoescape=True))
    rows = await connection.execute(
        sa.select(h.unit, _m.label, _m.parent)
        .select_from(head.join(t.materialization, h.materialization_id == _m.id))
        .where(below, h.environment_id == environment, h.asset_id == asset, as_of(h, commit))
    )
    return [(unit, name, above) for unit, name, above in rows]


def spellings(label: str) -> tuple[list[str], sa.ColumnElement[bool]]:
    """What `parent/label` can mean: the labels that a unit can have, and which of them with which parent."""
    return ends_of(label), _goes_by(label)


def ends_of(label: str) -> list[str]:
    """The labels that a unit can have that goes by this: all of it, and what follows each of its slashes."""
    return [label, *(label[place + 1 :] for place, character in enumerate(label) if character == "/")]


def _goes_by(label: str | sa.BindParameter[str]) -> sa.ColumnElement[bool]:
    return sa.or_(_m.label == label, _m.parent + "/" + _m.label == label)


def labelled(head: sa.FromClause, labels: Iterable[str] | str) -> sa.FromClause:
    """The heads of units with one of these labels (`array_of`), first found by the index of their hashes."""
    each = sa.func.unnest(array_of(labels if isinstance(labels, str) else dict.fromkeys(labels), sa.Text))
    wanted = each.table_valued("label", name="wanted").render_derived()
    same = sa.and_(sa.func.hashtext(_m.label) == sa.func.hashtext(wanted.c.label), _m.label == wanted.c.label)
    return wanted.join(t.materialization, same).join(head, head.c.materialization_id == _m.id)


async def documents(
    connection: AsyncConnection,
    environment: int,
    asset: int,
    units: Collection[tuple[bytes, str]],
    commit: int | None = None,
) -> list[Found]:
    """The documents of these units (unit, label) of an asset, now or as of a commit."""
    head = await heads_of(connection, environment, commit)
    h = head.c
    # Of what was, units have no index, but their labels do.
    heads = current(head) if commit is None else with_documents(labelled(head, (label for _, label in units)))
    rows = await connection.execute(
        sa.select(*_columns)
        .select_from(with_types(heads))
        .where(
            h.environment_id == environment,
            h.asset_id == asset,
            as_of(h, commit),
            among(h.unit, (unit for unit, _ in units), t.Address),
        )
        .order_by(_path, position)
    )
    return [Found(*row) for row in rows]


async def with_prefix(
    connection: AsyncConnection, environment: int, prefix: str, commit: int | None = None
) -> list[Found]:
    """The documents whose id, or hash in hexadecimal, begins with this, among those that are or were there."""
    head = await heads_of(connection, environment, commit)
    h = head.c
    between = sa.or_(*(_between(low, high) for low, high in _ranges(prefix)))
    first = _first
    # By the unit that made it first: from a document there is no way to the materializations that hold it.
    made = t.document.join(first, first.c.id == _d.materialization_id)
    held = _d.id == sa.any_(t.documents_of(_m))
    if commit is None:
        heads = made.join(head, sa.and_(h.asset_id == first.c.asset_id, h.unit == first.c.unit)).join(
            t.materialization, sa.and_(_m.id == h.materialization_id, held)
        )
    else:
        heads = made.join(t.materialization, sa.and_(_of_same_unit(_m, first.c), held)).join(
            head, h.materialization_id == _m.id
        )
    rows = await connection.execute(
        sa.select(*_columns)
        .select_from(with_types(heads))
        .where(h.environment_id == environment, as_of(h, commit), between)
        .order_by(_d.asset_id, _path)
        .limit(50)
    )
    found = (Found(*row) for row in rows)
    return [f for f in found if document_id(f.sha256, len(prefix)) == prefix or f.sha256.hex().startswith(prefix)]


async def of_run(connection: AsyncConnection, project: int, run: str, limit: int) -> list[Found]:
    """The documents that a run made, those that came out as they were included; what a source took in among them."""
    c = t.commit.c
    of_commit = _m.id.between(c.id * (1 << 20), (c.id + 1) * (1 << 20) - 1)
    made = t.commit.join(t.materialization, of_commit).join(t.document, _d.id == sa.any_(t.documents_of(_m)))
    rows = await connection.execute(
        sa.select(*_columns)
        .select_from(with_types(made))
        .where(c.project_id == project, c.run_id == run)
        .order_by(_d.asset_id, _path, _d.id)
        .limit(limit)
    )
    return [Found(*row) for row in rows]


def _of_same_unit(one: Any, other: Any) -> sa.ColumnElement[bool]:
    """Materializations of one unit, by the index of labels."""
    return sa.and_(
        sa.func.hashtext(one.label) == sa.func.hashtext(other.label),
        one.asset_id == other.asset_id,
        one.unit == other.unit,
    )


async def qualified(
    connection: AsyncConnection, environment: int, found: Sequence[Found], commit: int | None = None
) -> list[Found]:
    """The same documents; where an asset has several units of one label, units are named `parent/label`."""
    twice = await repeated(connection, environment, {(f.asset, f.unit) for f in found if f.parent is not None}, commit)
    return [replace(f, unit=f"{f.parent}/{f.unit}") if f.parent and (f.asset, f.unit) in twice else f for f in found]


async def repeated(
    connection: AsyncConnection, environment: int, units: Collection[tuple[int, str]], commit: int | None = None
) -> set[tuple[int, str]]:
    """Of these assets and labels, those by which an asset has several units."""
    if not units:
        return set()
    assets, labels = ({*some} for some in zip(*units, strict=True))
    values = {"environment": environment, "assets": [*assets], "labels": [*labels]}
    statement = _repeated(await heads_of(connection, environment, commit), commit)
    return {(asset, label) for asset, label in await connection.execute(statement, values)}


@lru_cache
def _repeated(head: sa.FromClause, commit: int | None) -> sa.Select[Any, Any]:
    h = head.c
    return (
        sa.select(h.asset_id, _m.label)
        .select_from(labelled(head, "labels"))
        .where(
            h.environment_id == sa.bindparam("environment"), as_of(h, commit), among(h.asset_id, "assets", sa.Integer)
        )
        .group_by(h.asset_id, _m.label)
        .having(sa.func.count() > 1)
    )


async def rooted(
    connection: AsyncConnection, environment: int, asset: int, label: str, parameters: Sequence[int]
) -> list[tuple[bytes, str, str | None, datetime, str | None]]:
    """The units `by_unit` finds, each with when it was made and the name of the document at the top from which it descends.

    That is up through one of these parameters after the other; None where what the unit was given is not known any more.
    """
    statement = _rooted(await heads_of(connection, environment), tuple(parameters))
    values = {"environment": environment, "asset": asset, "label": label, "labels": ends_of(label)}
    rows = await connection.execute(statement, values)
    return [(unit, own, above, made_at, root) for unit, own, above, made_at, root in rows]


@lru_cache
def _rooted(head: sa.FromClause, parameters: Sequence[int]) -> sa.Select[Any, Any, Any, Any, Any]:
    h = head.c
    ways, maker, name = labelled(head, "labels"), h.materialization_id, _m.label
    for step, parameter in enumerate(parameters):
        given, above = t.given.alias(f"given{step}"), t.document.alias(f"above{step}")
        led = sa.and_(
            given.c.materialization_id == maker, given.c.parameter == parameter, given.c.document_id.is_not(None)
        )
        ways = ways.outerjoin(given, led).outerjoin(above, above.c.id == given.c.document_id)
        # Whichever materialization made the document first, it is one of the same unit.
        maker, name = above.c.materialization_id, above.c.name
    asked = (
        h.environment_id == sa.bindparam("environment"),
        h.asset_id == sa.bindparam("asset"),
        h.until_commit.is_(None),
    )
    return (
        sa.select(h.unit, _m.label, _m.parent, t.commit.c.at, name.label("root"))
        .select_from(dated(ways, _m.id))
        .where(_goes_by(sa.bindparam("label")), *asked)
    )


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
        heads = units.join(t.materialization, _of_same_unit(_m, units.c)).join(head, h.materialization_id == _m.id)
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


async def look_up(connection: AsyncConnection, ids: Iterable[int]) -> dict[int, Found]:
    """These documents, by identifier."""
    rows: Sequence[Any] = (
        await connection.execute(
            sa.select(*_columns)
            .select_from(with_types(t.document.join(t.materialization, _m.id == _d.materialization_id)))
            .where(among(_d.id, ids, sa.BigInteger))
        )
    ).all()
    return {row[0]: Found(*row) for row in rows}


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
        candidates = made.outerjoin(now, sa.and_(_of_same_unit(now.c, first.c), held))
        heads = candidates.outerjoin(head, sa.and_(then, h.materialization_id == now.c.id))
        found, since = sa.func.max(h.materialization_id), sa.func.max(h.since_commit)
    statement = (
        sa.select(_d.id, first.c.id, found.label("found"), since.label("since"))
        .select_from(heads)
        .where(among(_d.id, ids, sa.BigInteger))
    )
    return statement if commit is None else statement.group_by(_d.id, first.c.id)


def _between(low: bytes, high: bytes) -> sa.ColumnElement[bool]:
    """The documents with a hash from one to another."""
    size = t.LEADING_SHA256
    return sa.and_(t.leading(_d.sha256, size).between(low[:size], high[:size]), _d.sha256.between(low, high))


def _ranges(prefix: str) -> Iterator[tuple[bytes, bytes]]:
    """The hashes that begin with this, as intervals that an index can answer; those of base32 are a little wide."""
    if _BASE32.issuperset(prefix):
        length = -(-len(prefix) // 8) * 8
        low = base64.b32decode(prefix.upper() + "A" * (length - len(prefix)))
        high = base64.b32decode(prefix.upper() + "7" * (length - len(prefix)))
        yield low[:32].ljust(32, b"\x00"), high[:32].ljust(32, b"\xff")
    if _HEXADECIMAL.issuperset(prefix):
        yield bytes.fromhex(prefix.ljust(64, "0")), bytes.fromhex(prefix.ljust(64, "f"))
