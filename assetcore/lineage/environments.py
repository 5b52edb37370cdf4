"""Environments: which are there, and from which point of another does each start?

An environment that is created from another gets a row for each asset: the watermark of the other, and the loan of its heads. No
unit is copied. Its base remembers what each asset of the other then was: whether that has moved on since is one comparison an asset.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

import polars as pl
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from assetcore.errors import NothingSelectedError, UsageError
from assetcore.lineage import tables as t
from assetcore.lineage.asking import among, columns, one_of
from assetcore.lineage.commit import allocate
from assetcore.lineage.heads import Loan, as_of, heads_of, loans
from assetcore.lineage.read import watermarks
from assetcore.refs import suggestion

__all__ = [
    "Base", "Environment", "Pin", "apart", "borrow", "close", "compared", "create", "drop", "every", "find", "hold", "keep_base",
    "last_runs", "made_with", "pins", "refuse_unknown", "registered", "stated", "take_standing", "units_at",
]  # fmt: skip

DERIVED = (t.watermark, t.failure, t.check_standing)
"""What is known of an asset in an environment without reading its units."""


class Pin(NamedTuple):
    """What an asset of an environment is at one moment: the commit that changed it last, and whose heads tell it, as of which commit."""

    changed: int
    lender: int
    at: int


_UNITS = {"asset": pl.Int64, "unit": pl.Binary, "materialization": pl.Int64}


@dataclass(frozen=True, slots=True)
class Base:
    """What an environment was created from: another, as its assets were then."""

    environment: int
    assets: Mapping[int, Pin] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {
            "environment": self.environment,
            "assets": {str(asset): list(pin) for asset, pin in self.assets.items()},
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Base:
        return cls(value["environment"], {int(asset): Pin(*pin) for asset, pin in value["assets"].items()})


@dataclass(frozen=True, slots=True)
class Environment:
    """A named view of what every asset currently is; `own` counts the assets of which it has heads of its own."""

    id: int
    name: str
    base: Base | None
    created_at: datetime | None
    assets: int = 0
    own: int = 0
    units: int = 0
    documents: int = 0
    made_at: datetime | None = None


async def every(connection: AsyncConnection, project: int) -> list[Environment]:
    """The environments of a project in which there is anything, by name."""
    e, w, b = t.environment.c, t.watermark.c, t.borrowed.c
    lent = sa.and_(b.environment_id == w.environment_id, b.asset_id == w.asset_id, b.until_commit.is_(None))
    rows = await connection.execute(
        sa.select(
            e.id, e.name, e.base, e.created_at, sa.func.count(w.asset_id), sa.func.count(w.asset_id) - sa.func.count(b.asset_id),
            sa.func.coalesce(sa.func.sum(w.units), 0), sa.func.coalesce(sa.func.sum(w.documents), 0), sa.func.max(w.made_at),
        )
        .select_from(t.environment.outerjoin(t.watermark, w.environment_id == e.id).outerjoin(t.borrowed, lent))
        .where(e.project_id == project)
        .group_by(e.id)
        .having(sa.or_(sa.func.count(w.asset_id) > 0, e.created_at.is_not(None)))
        .order_by(e.name)
    )  # fmt: skip
    return [
        Environment(
            i, name, base and Base.from_json(base), created_at, assets, own, int(units), int(documents), made_at
        )
        for i, name, base, created_at, assets, own, units, documents, made_at in rows
    ]


async def find(connection: AsyncConnection, project: int, name: str) -> Environment:
    """The environment of this name. Raises NothingSelectedError."""
    known = await every(connection, project)
    for one in known:
        if one.name == name:
            return one
    raise _unknown(name, known)


async def refuse_unknown(connection: AsyncConnection, project: int, name: str) -> None:
    """Raise NothingSelectedError where a project has environments, and none of this name."""
    known = await every(connection, project)
    if known and all(one.name != name for one in known):
        raise _unknown(name, known)


def _unknown(name: str, known: Sequence[Environment]) -> NothingSelectedError:
    names = [one.name for one in known]
    return NothingSelectedError(
        f"There is no environment {name!r}; there are: {', '.join(names) or 'none yet'}.",
        hint=suggestion(name, names) or "See: aipctl env ls",
    )


async def hold(connection: AsyncConnection, project: int) -> None:
    """For the rest of the transaction no commit comes between."""
    await connection.execute(sa.select(t.project.c.id).where(t.project.c.id == project).with_for_update(key_share=True))


async def pins(connection: AsyncConnection, environment: int) -> dict[int, Pin]:
    """What every asset of an environment now is."""
    marks = await watermarks(connection, environment)
    lent = await loans(connection, environment)
    return {a: Pin(m.changed, *lent.get(a, Loan(environment, m.last))[:2]) for a, m in marks.items()}


async def create(connection: AsyncConnection, project: int, name: str, source: Environment) -> tuple[Environment, int]:
    """A new environment in which everything is as it is in another, and the commit since which. Raises UsageError where there is one."""
    await hold(connection, project)
    e = t.environment
    if any(one.name == name for one in await every(connection, project)):
        raise UsageError(
            f"There is an environment {name!r} already.", hint=f"See: aipctl env ls, or: aipctl env drop {name}"
        )
    base = Base(source.id, await pins(connection, source.id))
    values = {"base": base.to_json(), "created_at": sa.func.now()}
    row = await connection.execute(
        insert(e).values(project_id=project, name=name, **values)
        .on_conflict_do_update(index_elements=["project_id", "name"], set_=values)
        .returning(e.c.id, e.c.created_at)
    )  # fmt: skip
    identifier, created_at = row.one()
    number = await borrow(connection, identifier, source.id, base.assets)
    return Environment(identifier, name, base, created_at), number


async def borrow(connection: AsyncConnection, environment: int, source: int, assets: Mapping[int, Pin]) -> int:
    """These assets are from now on what they are in another environment; returns the commit since which."""
    number = await allocate(connection) >> 20
    b = t.borrowed
    if not assets:
        return number
    mine = sa.and_(b.c.environment_id == environment, b.c.asset_id.in_(list(assets)))
    await connection.execute(sa.update(b).where(mine, b.c.until_commit.is_(None)).values(until_commit=number))
    rows = [
        {
            "environment_id": environment,
            "asset_id": asset,
            "lender_id": pin.lender,
            "at_commit": pin.at,
            "since_commit": number,
        }
        for asset, pin in assets.items()
    ]
    await connection.execute(sa.insert(b), rows)
    for table in DERIVED:
        await _forget(connection, table, environment, assets)
        columns = [c for c in table.c if c.name != "environment_id"]
        await connection.execute(
            sa.insert(table).from_select(
                ["environment_id", *(c.name for c in columns)],
                sa.select(sa.literal(environment, sa.Integer), *columns).where(
                    table.c.environment_id == source, _of_assets(table, assets)
                ),
            )
        )
    return number


async def drop(connection: AsyncConnection, project: int, environment: Environment) -> int:
    """Nothing is current in an environment any more; what it was stays known, and its bytes stay. Returns the commit since which."""
    await hold(connection, project)
    number = await allocate(connection) >> 20
    for table in (t.head, t.borrowed):
        await connection.execute(
            sa.update(table)
            .where(table.c.environment_id == environment.id, table.c.until_commit.is_(None))
            .values(until_commit=number)
        )
    for table in DERIVED:
        await connection.execute(sa.delete(table).where(table.c.environment_id == environment.id))
    await connection.execute(
        sa.update(t.environment)
        .where(t.environment.c.id == environment.id)
        .values(base=sa.null(), created_at=None, drops=sa.func.array_append(t.environment.c.drops, number))
    )
    return number


async def keep_base(connection: AsyncConnection, environment: int, base: Base) -> None:
    """An environment starts from this point of another from now on."""
    await connection.execute(
        sa.update(t.environment).where(t.environment.c.id == environment).values(base=base.to_json())
    )


async def take_standing(connection: AsyncConnection, environment: int, source: int, asset: int, last: int) -> None:
    """What checks say of an asset in one environment, they say of it in another that is the same, as of its last commit."""
    s = t.check_standing
    await _forget(connection, s, environment, [asset])
    kept = [c for c in s.c if c.name not in ("environment_id", "last_commit")]
    await connection.execute(
        sa.insert(s).from_select(
            ["environment_id", "last_commit", *(c.name for c in kept)],
            sa.select(sa.literal(environment, sa.Integer), sa.literal(last, sa.BigInteger), *kept).where(
                s.c.environment_id == source, _of_assets(s, [asset])
            ),
        )
    )


async def stated(connection: AsyncConnection, base: Base) -> dict[str, Any]:
    """What an environment was created from, by names: so the journal keeps it, from which the database can be made again."""
    e = t.environment.c
    wanted = {base.environment, *(pin.lender for pin in base.assets.values())}
    names = dict((await connection.execute(sa.select(e.id, e.name).where(e.id.in_(list(wanted))))).all())
    pins = {str(asset): [pin.changed, names[pin.lender], pin.at] for asset, pin in base.assets.items()}
    return {"from": names[base.environment], "pins": pins}


async def registered(connection: AsyncConnection, project: int) -> dict[int, tuple[str, str]]:
    """The name and the group of every asset that a project has or had."""
    a = t.asset.c
    rows = await connection.execute(sa.select(a.id, a.name, a.flow).where(a.project_id == project))
    return {identifier: (name, flow) for identifier, name, flow in rows}


async def last_runs(
    connection: AsyncConnection, environment: int, assets: Collection[int]
) -> dict[int, tuple[str, datetime]]:
    """Which run committed last to each of these assets, and when."""
    c = t.commit.c
    last = (
        sa.select(sa.func.max(c.id))
        .where(c.environment_id == environment, c.asset_id.in_(list(assets)))
        .group_by(c.asset_id)
    )
    rows = await connection.execute(sa.select(c.asset_id, c.run_id, c.at).where(c.id.in_(last)))
    return {asset: (run, at) for asset, run, at in rows}


async def apart(connection: AsyncConnection, one: int, other: int, assets: Collection[int]) -> pl.DataFrame:
    """The units of these assets that are not the same in two environments: what they are in the one, and `was`, in the other.

    Of an asset that the one took over as the other still has it, only what the one did since then is looked at: of a million units in a
    large table, to look at all takes seconds.
    """
    taken = await close(connection, one, other, assets)
    differing = pl.concat(
        [await compared(connection, one, other, set(assets) - taken.keys()), await _done_since(connection, one, taken)]
    )
    m, wanted = t.materialization.c, differing["materialization"].drop_nulls().to_list()
    labelled = sa.select(m.id, m.label).where(among(m.id, wanted, sa.BigInteger))
    labels = await columns(connection, labelled, {"materialization": pl.Int64, "label": pl.String})
    return differing.join(labels, on="materialization", how="left")


async def compared(connection: AsyncConnection, one: int, other: int, assets: Collection[int]) -> pl.DataFrame:
    """As `apart`, without labels, of all units: Postgres compares them, so that only those that differ are handed over."""
    if not assets:
        return pl.DataFrame(schema=_UNITS | {"was": pl.Int64})
    sides: list[sa.Select[*tuple[Any, ...]]] = []
    for environment in (one, other):
        h = (await heads_of(connection, environment)).c
        current = sa.and_(h.environment_id == environment, one_of(h.asset_id, assets), h.until_commit.is_(None))
        sides.append(sa.select(h.asset_id, h.unit, h.materialization_id).where(current))
    return await _difference(connection, *sides)


async def _difference(
    connection: AsyncConnection, now: sa.Select[*tuple[Any, ...]], was: sa.Select[*tuple[Any, ...]]
) -> pl.DataFrame:
    """The units that are not the same in two sets of heads."""
    sides = now.subquery(), was.subquery()
    a, b = (side.c for side in sides)
    pairs = sides[0].join(sides[1], sa.and_(a.asset_id == b.asset_id, a.unit == b.unit), full=True)
    differing = sa.select(
        sa.func.coalesce(a.asset_id, b.asset_id).label("asset"), sa.func.coalesce(a.unit, b.unit).label("unit"),
        a.materialization_id.label("materialization"), b.materialization_id.label("was"),
    ).select_from(pairs).where(a.materialization_id.is_distinct_from(b.materialization_id))  # fmt: skip
    return await columns(connection, differing, _UNITS | {"was": pl.Int64})


async def close(connection: AsyncConnection, one: int, other: int, assets: Collection[int]) -> dict[int, int]:
    """The assets that one environment borrowed last, and with which commit it took them over, where the other still has just that."""
    if not assets:
        return {}
    b = t.borrowed.c
    rows = await connection.execute(
        sa.select(b.asset_id, b.lender_id, b.at_commit, b.until_commit)
        .where(b.environment_id == one, one_of(b.asset_id, assets))
        .order_by(b.since_commit)
    )
    last = {asset: (Loan(lender, at), until) for asset, lender, at, until in rows}
    theirs = {asset: Loan(pin.lender, pin.at) for asset, pin in (await pins(connection, other)).items()}
    return {asset: until for asset, (loan, until) in last.items() if until is not None and theirs.get(asset) == loan}


async def _done_since(connection: AsyncConnection, environment: int, taken: Mapping[int, int]) -> pl.DataFrame:
    """As `compared`, of assets that an environment took over with these commits: its own heads say what it has done to which units."""
    if not taken:
        return pl.DataFrame(schema=_UNITS | {"was": pl.Int64})
    h = t.head.c
    heads, then = sa.select(h.asset_id, h.unit, h.materialization_id), sa.case(dict(taken), value=h.asset_id)
    heads = heads.where(h.environment_id == environment, one_of(h.asset_id, taken))
    new = heads.where(h.until_commit.is_(None), h.since_commit >= then)
    old = heads.where(h.since_commit < then, h.until_commit >= min(taken.values()), h.until_commit >= then)
    return await _difference(connection, new, old)


async def units_at(connection: AsyncConnection, pin: Pin | None, asset: int) -> pl.DataFrame:
    """What the units of an asset were where a pin points to: unit and materialization."""
    schema = {"unit": pl.Binary, "materialization": pl.Int64}
    if pin is None:
        return pl.DataFrame(schema=schema)
    h = (await heads_of(connection, pin.lender, pin.at)).c
    return await columns(
        connection,
        sa.select(h.unit, h.materialization_id).where(
            h.environment_id == pin.lender, h.asset_id == asset, as_of(h, pin.at)
        ),
        schema,
    )


async def made_with(connection: AsyncConnection, environment: int) -> dict[int, set[bytes]]:
    """The digests of the definitions that the units of each asset were made with.

    Of an asset whose units were all found fresh, that is the one it was settled with: only the others are looked at.
    """
    marks = await watermarks(connection, environment)
    found = {
        a: {bytes.fromhex(m.settled["definition"])} for a, m in marks.items() if m.settled and "definition" in m.settled
    }
    head = await heads_of(connection, environment)
    h, m, d = head.c, t.materialization.c, t.definition.c
    rows = await connection.execute(
        sa.select(h.asset_id, d.digest)
        .select_from(
            head.join(t.materialization, m.id == h.materialization_id).join(t.definition, d.id == m.definition_id)
        )
        .where(h.environment_id == environment, h.until_commit.is_(None), h.asset_id.in_(marks.keys() - found.keys()))
        .distinct()
    )
    for asset, digest in rows:
        found.setdefault(asset, set()).add(digest)
    return found


async def _forget(connection: AsyncConnection, table: sa.Table, environment: int, assets: Collection[int]) -> None:
    await connection.execute(sa.delete(table).where(table.c.environment_id == environment, _of_assets(table, assets)))


def _of_assets(table: sa.Table, assets: Collection[int]) -> sa.ColumnElement[bool]:
    if "asset_id" in table.c:
        return table.c.asset_id.in_(list(assets))
    v = t.check_version.c
    return table.c.check_id.in_(sa.select(v.id).where(v.asset_id.in_(list(assets))))
