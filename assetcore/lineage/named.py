"""Named: which documents and units does a name mean, now or as of a commit?

By asset, unit, partition, run, or the beginning of a hash; each is a fixed number of statements, whatever the number of documents.
"""

from __future__ import annotations

import base64
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from assetcore.documents import document_id
from assetcore.lineage import tables as t
from assetcore.lineage.asking import among, array_of
from assetcore.lineage.heads import as_of, heads_of
from assetcore.lineage.read import current, dated, position, with_documents, with_types

__all__ = [
    "Found", "by_unit", "called", "documents", "ends_of", "in_partition", "labelled", "look_up", "of_asset", "of_run", "of_same_unit",
    "qualified", "repeated", "rooted", "spellings", "with_prefix",
]  # fmt: skip


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


_BASE32, _HEXADECIMAL = frozenset("abcdefghijklmnopqrstuvwxyz234567"), frozenset("0123456789abcdef")
_d, _m = t.document.c, t.materialization.c
# A name for a table is made once: it takes as long as a statement.
_first = t.materialization.alias("first")
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
        heads = made.join(t.materialization, sa.and_(of_same_unit(_m, first.c), held)).join(
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


def of_same_unit(one: Any, other: Any) -> sa.ColumnElement[bool]:
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
    return {unit for unit, count in (await _counted(connection, environment, units, commit)).items() if count > 1}


async def called(
    connection: AsyncConnection, environment: int, asset: int, units: Iterable[tuple[str, str | None, bool]]
) -> list[str]:
    """How units (label, parent, whether it is one of those that there are) are called where they are told: with their parent where
    another unit of the asset has the label.
    """
    units = list(units)
    labels = {(asset, label) for label, parent, _ in units if parent is not None}
    there = await _counted(connection, environment, labels)
    return [
        f"{parent}/{label}" if parent is not None and there.get((asset, label), 0) > is_there else label
        for label, parent, is_there in units
    ]


async def _counted(
    connection: AsyncConnection, environment: int, units: Collection[tuple[int, str]], commit: int | None = None
) -> dict[tuple[int, str], int]:
    """Of these assets and labels, how many units of the asset have the label."""
    if not units:
        return {}
    assets, labels = ({*some} for some in zip(*units, strict=True))
    values = {"environment": environment, "assets": [*assets], "labels": [*labels]}
    statement = _counts(await heads_of(connection, environment, commit), commit)
    return {(asset, label): count for asset, label, count in await connection.execute(statement, values)}


@lru_cache
def _counts(head: sa.FromClause, commit: int | None) -> sa.Select[Any, Any, int]:
    h = head.c
    return (
        sa.select(h.asset_id, _m.label, sa.func.count())
        .select_from(labelled(head, "labels"))
        .where(
            h.environment_id == sa.bindparam("environment"), as_of(h, commit), among(h.asset_id, "assets", sa.Integer)
        )
        .group_by(h.asset_id, _m.label)
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
