"""Environments: how is one made from another, compared with it, and put in its place?

To promote an environment moves pointers: what its units are, the units of the other become, in one transaction, after the blocking
checks, and only while the other is what it was when the environment was created. Where it has moved on, rebasing takes over what
it has become, except for the units that this environment itself has changed. Nothing is made and no bytes are written but manifests.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import polars as pl

from assetcore.errors import PromotionError, ServiceError, StorageError, UsageError
from assetcore.keep import record_run
from assetcore.lineage import acceptances, damage, environments, journal, read, runs
from assetcore.lineage import checks as checked
from assetcore.lineage import commit as lineage
from assetcore.lineage.acceptances import with_accepted
from assetcore.lineage.commit import Batch, Overtaken, Reused
from assetcore.lineage.environments import Base, Environment, Pin
from assetcore.lineage.journal import Entry, committed
from assetcore.lineage.manifest import NAME as MANIFEST
from assetcore.lineage.manifest import encode_manifest
from assetcore.project import Project
from assetcore.refs import format_ref
from assetcore.results import AssetResult
from assetcore.settings import check_environment
from assetcore.storage import object_key, run_timestamp
from assetcore.telemetry import get_pipeline_logger
from assetcore.units import shown_unit

__all__ = [
    "AssetDiff",
    "EnvironmentDiff",
    "Promoted",
    "compare",
    "create",
    "drop",
    "list_all",
    "promote",
    "rebase",
    "refuse_unknown",
    "within",
]

logger = get_pipeline_logger(__name__)

UNITS = {"unit": pl.Binary, "label": pl.String, "materialization": pl.Int64}
KINDS = ("added", "changed", "removed")


@dataclass(frozen=True, slots=True)
class AssetDiff:
    """The documents in which an asset differs between two environments: unit, document, and `added`, `changed` or `removed`.

    `remade` counts the units that were made again with the same result.
    """

    asset: str
    documents: tuple[tuple[str, str, str], ...]
    remade: int = 0

    def count(self, kind: str) -> int:
        return sum(1 for *_, found in self.documents if found == kind)

    def to_json(self) -> dict[str, Any]:
        documents = [{"unit": unit, "document": name, "change": kind} for unit, name, kind in self.documents]
        return {
            "asset": self.asset, **{kind: self.count(kind) for kind in KINDS}, "remade": self.remade, "documents": documents,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class EnvironmentDiff:
    """What one environment has that another has not, by asset and document."""

    environment: str
    other: str
    assets: tuple[AssetDiff, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "environment": self.environment, "other": self.other, "same": not any(a.documents for a in self.assets),
            "assets": [a.to_json() for a in self.assets],
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Promoted:
    """What became current in another environment, in units; `run` names the commit of all of it, None where nothing had to move."""

    environment: str
    to: str
    run: str | None
    assets: tuple[tuple[str, int, int], ...]

    def to_json(self) -> dict[str, Any]:
        assets = [{"asset": name, "units": units, "removed": removed} for name, units, removed in self.assets]
        return {"environment": self.environment, "to": self.to, "run": self.run, "assets": assets}


@dataclass(frozen=True, slots=True)
class _Move:
    """What the units of one asset of an environment are to become."""

    asset: int
    name: str
    group: str
    reused: tuple[Reused, ...]
    removed: tuple[tuple[bytes, int | None], ...]


async def list_all(project: Project) -> list[dict[str, Any]]:
    """The environments of a project: what each was created from, how many assets it has, and of how many its own version."""
    async with project.engine.connect() as connection:
        found = await environments.every(connection, project.id)
    names = {one.id: one.name for one in found}
    return [
        {
            "environment": one.name, "from": names.get(one.base.environment) if one.base else None,
            "created_at": one.created_at.isoformat() if one.created_at else None, "assets": one.assets, "own": one.own,
            "units": one.units, "documents": one.documents, "made_at": one.made_at.isoformat() if one.made_at else None,
        }
        for one in found
    ]  # fmt: skip


async def within(project: Project, name: str) -> Project:
    """The same project, seen from another of its environments. Raises NothingSelectedError."""
    async with project.engine.connect() as connection:
        found = await environments.find(connection, project.id, name)
    return replace(project, environment=found.name, environment_id=found.id)


async def refuse_unknown(project: Project) -> None:
    """Raise NothingSelectedError where the project has environments, and the one that it is seen from is none of them."""
    async with project.engine.connect() as connection:
        await environments.refuse_unknown(connection, project.id, project.environment)


async def changed_since(project: Project, name: str) -> frozenset[str] | None:
    """The assets whose code, config or models are not those that an environment's documents were made with, and those made of them.

    Code that was accepted as the same is the same. None where there is no environment of this name.
    """
    graph = project.graph
    async with project.engine.connect() as connection:
        found = {one.name: one for one in await environments.every(connection, project.id)}.get(name)
        if found is None:
            return None
        with_what = await environments.made_with(connection, found.id)
        accepted = await acceptances.of_assets(connection, project.asset_ids.values())
        known = await read.definitions(connection, accepted.keys()) if accepted else {}
    changed: set[str] = set()
    for name, now in project.definitions(tuple(graph.assets)).items():
        identifier = project.asset_ids[name]
        before = known.get(identifier, {})
        counts = with_accepted(before, now, accepted.get(identifier, ()))
        as_now = {before[i].digest: counts[i].digest for i in before}
        if {as_now.get(digest, digest) for digest in with_what.get(identifier, set())} != {now.digest}:
            changed.add(name)
    return frozenset(changed | graph.descendants(changed))


async def create(project: Project, name: str, source: str) -> dict[str, Any]:
    """A new environment in which everything is as in another; copies nothing, whatever the number of units."""
    check_environment(name)
    async with project.engine.begin() as connection:
        found = await environments.find(connection, project.id, source)
        made, number = await environments.create(connection, project.id, name, found)
        base = made.base or Base(found.id)
        facts = {**await environments.stated(connection, base), "number": number}
        await journal.append(connection, project.id, Entry("env create", made.name, why=f"from {source}", facts=facts))
    return {"environment": made.name, "from": source, "assets": len(base.assets)}


async def drop(project: Project, name: str) -> dict[str, Any]:
    """Forget what is current in an environment; what was made in it stays, and is reused where it is wanted again. Its indexes of vectors,
    which can be made again of that, go."""
    if name == project.settings.environment:
        raise UsageError(
            f"{name} is the environment of this installation and cannot be dropped.",
            hint="It is the setting `environment`; drop those that were created from it.",
        )
    from assetcore.lineage import vectors  # numpy behind it takes 0.1 s: only for those who drop

    async with project.engine.begin() as connection:
        found = await environments.find(connection, project.id, name)
        number = await environments.drop(connection, project.id, found)
        await vectors.drop_all(connection, project.name, name)
        await journal.append(connection, project.id, Entry("env drop", name, facts={"number": number}))
    return {"environment": name}


async def compare(project: Project, name: str, other: str) -> EnvironmentDiff:
    """What an environment has that another has not, by asset and document. Reads only the assets that can differ."""
    async with project.engine.connect() as connection:
        await connection.execution_options(isolation_level="REPEATABLE READ")
        one, two = await _both(connection, project, name, other)
        mine, theirs = await environments.pins(connection, one.id), await environments.pins(connection, two.id)
        differ = [
            a for a in mine.keys() | theirs.keys() if mine.get(a, Pin(0, 0, 0))[1:] != theirs.get(a, Pin(0, 0, 0))[1:]
        ]
        known = await environments.registered(connection, project.id)
        found = await _differences(connection, one.id, two.id, differ)
    order = {n: i for i, n in enumerate(project.graph.assets)}
    diffs = [
        AssetDiff(known[a][0], documents, remade) for a, (documents, remade) in found.items() if documents or remade
    ]
    return EnvironmentDiff(name, other, tuple(sorted(diffs, key=lambda d: (order.get(d.asset, len(order)), d.asset))))


async def promote(project: Project, name: str, to: str) -> Promoted:
    """Make another environment what this one is: all of its assets, or nothing. No run is at work in either of them meanwhile.

    Raises PromotionError where the other has moved on, or a blocking check has not passed.
    """
    async with project.engine.connect() as connection:
        await connection.execution_options(isolation_level="REPEATABLE READ")
        one, two = await _both(connection, project, name, to)
        known = await environments.registered(connection, project.id)
        mine, theirs = await environments.pins(connection, one.id), await environments.pins(connection, two.id)
        base = _base(one, two)
        await _refuse_moved(connection, one, two, base, theirs, known)
        own = [a for a, pin in mine.items() if a not in base.assets or pin[1:] != base.assets[a][1:]]
        await _refuse_unchecked(connection, project, one, {known[a][0] for a in own})
        apart = await environments.apart(connection, one.id, two.id, own)
        marks = await read.watermarks(connection, one.id)
        moves: list[_Move] = []
        for asset in own:
            content = asset not in base.assets or mine[asset].changed != base.assets[asset].changed
            moves.append(_move(asset, *known[asset], apart.filter(pl.col("asset") == asset), changed=content))
        moves = [m for m in moves if m.reused or m.removed]
        await _refuse_damaged(connection, one, moves)
    run = runs.new_run_id()
    async with _listed(project, two, run, f"promote {name}", moves):
        batches = await _batches(project, two, run, moves)
        async with project.engine.begin() as connection:
            await _commit(connection, project, two, run, batches)
            now = await environments.pins(connection, two.id)
            for asset in own:
                await environments.take_standing(connection, two.id, one.id, asset, _last(now, asset))
            for asset, mark in marks.items():
                if asset in now and (settled := _settled(mark, marks, now)) is not None:
                    counts = {"units": mark.units, "documents": mark.documents}
                    await lineage.settle(connection, two.id, asset, settled, **counts, last=_last(now, asset))
            if batches or Base(two.id, now) != one.base:
                what = Entry("env promote", name, run=run if batches else None, why=f"to {to}")
                await _keep_base(connection, project, one, Base(two.id, now), what)
    if batches:
        await record_run(project, two.name, run, run_timestamp(datetime.now(UTC)))
    done = tuple((m.name, len(m.reused), len(m.removed)) for m in moves)
    return Promoted(name, to, run if batches else None, done)


async def rebase(project: Project, name: str, onto: str) -> tuple[str, ...]:
    """Take over what another environment has become since this one was created from it; returns the assets that moved.

    Assets that this environment has not changed are borrowed anew. In the others each unit that only the other has changed becomes
    what it is there; a unit that both have changed stays as it is here.
    """
    async with project.engine.connect() as connection:
        await connection.execution_options(isolation_level="REPEATABLE READ")
        one, two = await _both(connection, project, name, onto)
        base = _base(one, two)
        known = await environments.registered(connection, project.id)
        mine, theirs = await environments.pins(connection, one.id), await environments.pins(connection, two.id)
        moved = [a for a, pin in theirs.items() if a not in base.assets or pin.changed != base.assets[a].changed]
        own = {a for a, pin in mine.items() if pin.lender == one.id}
        both = [a for a in moved if a in own]
        ours = await read.made_units(connection, one.id, both)
        others = await read.made_units(connection, two.id, both)
        then = {a: await environments.units_at(connection, base.assets.get(a), a) for a in both}
        moves = [_move(a, *known[a], _apart(*_three_ways(ours[a], others[a], then[a])), changed=True) for a in both]
        moves = [m for m in moves if m.reused or m.removed]
        await _refuse_damaged(connection, two, moves)
    run = runs.new_run_id()
    async with _listed(project, one, run, f"rebase onto {onto}", moves):
        batches = await _batches(project, one, run, moves)
        async with project.engine.begin() as connection:
            await _commit(connection, project, one, run, batches)
            borrowed = {a: pin for a, pin in theirs.items() if a not in own}
            number = await environments.borrow(connection, one.id, two.id, borrowed)
            facts = {"number": number, "own": sorted(own)}
            what = Entry("env rebase", name, run=run if batches else None, why=f"onto {onto}", facts=facts)
            await _keep_base(connection, project, one, Base(two.id, theirs), what)
    if batches:
        await record_run(project, one.name, run, run_timestamp(datetime.now(UTC)))
    return tuple(known[a][0] for a in moved)


async def _both(connection: Any, project: Project, name: str, other: str) -> tuple[Environment, Environment]:
    one = await environments.find(connection, project.id, name)
    two = await environments.find(connection, project.id, other)
    if one.id == two.id:
        raise UsageError(f"{name} is compared with itself.", hint="Name two environments: aipctl env diff pr-17 prod")
    return one, two


def _base(one: Environment, two: Environment) -> Base:
    """What an environment knows of the one that it was created from. Raises UsageError where that was another."""
    if one.base is None or one.base.environment != two.id:
        raise UsageError(
            f"{one.name} was not created from {two.name}, so what of it {two.name} should become cannot be told.",
            hint=f"Make one that was: aipctl env create NAME --from {two.name}; what {one.name} has made is reused in it.",
        )
    return one.base


async def _refuse_moved(
    connection: Any,
    one: Environment,
    two: Environment,
    base: Base,
    now: Mapping[int, Pin],
    known: Mapping[int, tuple[str, str]],
) -> None:
    """Raise PromotionError where the documents of the other have changed since the environment was created from it."""
    moved = [a for a in now if a not in base.assets or now[a].changed != base.assets[a].changed]
    if not moved:
        return
    by = await environments.last_runs(connection, two.id, moved)
    told = [
        f"{known[a][0]} (run {by[a][0]} of {by[a][1].astimezone():%Y-%m-%d %H:%M})" if a in by else known[a][0]
        for a in moved
    ]
    more = f" and {len(told) - 5} more" if len(told) > 5 else ""
    raise PromotionError(
        f"{two.name} has moved on since {one.name} was created from it: {', '.join(told[:5])}{more}.",
        hint=f"Take over what it has become: aipctl env promote {one.name} --to {two.name} --rebase",
    )


async def _refuse_unchecked(connection: Any, project: Project, one: Environment, names: Collection[str]) -> None:
    """Raise PromotionError unless every blocking check of these assets has passed in the environment as it is."""
    versions = project.checks(n for n in project.graph.assets if n in names)
    reports = [r for r in await checked.standing(connection, one.id, versions) if r.blocking]
    bad = [f"{r.asset}.{r.check} ({r.status})" for r in reports if r.failed or r.errors]
    if bad:
        raise PromotionError(
            f"Blocking checks have not passed in {one.name}: {', '.join(bad)}.",
            hint=f"See: aipctl plan --env {one.name}",
        )
    unasked = [f"{r.asset}.{r.check}" for r in reports if r.due]
    if unasked:
        raise PromotionError(
            f"Blocking checks have not been asked of {one.name} as it is: {', '.join(unasked)}.",
            hint=f"Ask them: aipctl materialize --env {one.name}",
        )


async def _refuse_damaged(connection: Any, source: Environment, moves: Sequence[_Move]) -> None:
    """Raise PromotionError where the bytes of what is to become current elsewhere are known to be lost or damaged."""
    taken = [one.materialization for move in moves for one in move.reused]
    harmed = await damage.harmed(connection, [move.asset for move in moves], taken)
    bad = [format_ref(m.name, one.label) for m in moves for one in m.reused if one.materialization in harmed]
    if bad:
        more = f" and {len(bad) - 5} more" if len(bad) > 5 else ""
        raise PromotionError(
            f"Documents of {source.name} are lost or damaged: {', '.join(bad[:5])}{more}; nothing was moved.",
            hint=f"Make them again: aipctl materialize --env {source.name}",
        )


def _move(asset: int, name: str, group: str, apart: pl.DataFrame, *, changed: bool) -> _Move:
    """What turns the units of an asset as they `was` into those that are wanted, where the two differ."""
    wanted, gone = (
        apart.filter(found) for found in (pl.col("materialization").is_not_null(), pl.col("materialization").is_null())
    )
    return _Move(
        asset, name, group,
        tuple(Reused(*row, changed=changed) for row in wanted.select("unit", "label", "materialization", "was").iter_rows()),
        tuple(gone.select("unit", "was").iter_rows()),
    )  # fmt: skip


def _apart(wanted: pl.DataFrame, now: pl.DataFrame) -> pl.DataFrame:
    """As `lineage.environments.apart` finds it, of units as they are wanted and as they are now."""
    wanted, now = (f.filter(pl.col("materialization").is_not_null()) for f in (wanted, now))
    both = wanted.join(now.select("unit", pl.col("materialization").alias("was")), on="unit", how="full", coalesce=True)
    return both.filter(pl.col("materialization").ne_missing(pl.col("was")))


def _three_ways(ours: pl.DataFrame, theirs: pl.DataFrame, then: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """What the units should be and what they are: where only the others have changed a unit since `then`, theirs."""
    ours, theirs = (f.filter(pl.col("materialization").is_not_null()).select(list(UNITS)) for f in (ours, theirs))
    same = ours.select("unit", "materialization").join(then, on=["unit", "materialization"], how="semi")["unit"]
    untouched = pl.concat([same, theirs.join(ours, on="unit", how="anti").join(then, on="unit", how="anti")["unit"]])
    mine = ours.join(untouched.to_frame(), on="unit", how="anti")
    return pl.concat([mine, theirs.join(untouched.to_frame(), on="unit", how="semi")]), ours


@asynccontextmanager
async def _listed(
    project: Project, target: Environment, run: str, what: str, moves: Sequence[_Move]
) -> AsyncIterator[None]:
    """What moves is listed as a run before anything is written: where it does not come about, everybody knows what was written for it."""
    if not moves:
        yield
        return
    started = datetime.now(UTC)
    async with project.engine.begin() as connection:
        await runs.close_abandoned(connection, project.id, target.id)
        await runs.begin(connection, run, project.id, target.id, what, {}, started)
    try:
        yield
    except BaseException as error:
        status = "cancelled" if isinstance(error, asyncio.CancelledError | KeyboardInterrupt) else "failed"
        await asyncio.shield(_give_up(project, target, run, status, started))
        raise


async def _give_up(project: Project, target: Environment, run: str, status: str, started: datetime) -> None:
    """Say how it ended. Where that cannot be written either, whoever is the next at work there notes that it died."""
    try:
        async with project.engine.begin() as connection:
            ended = await runs.give_up(connection, run, status)
        if ended:
            await record_run(project, target.name, run, run_timestamp(started))
    except (ServiceError, StorageError) as error:
        logger.warning("how run %s ended cannot be written down: %s", run, error)


async def _batches(
    project: Project, target: Environment, run: str, moves: Sequence[_Move]
) -> list[tuple[Batch, Entry]]:
    """A commit for each asset, with its manifest written: before Postgres is told, as in every commit; and what the journal says of it."""
    batches: list[tuple[Batch, Entry]] = []
    stamp = run_timestamp(datetime.now(UTC))
    for move in moves:
        async with project.engine.connect() as connection:
            base = await lineage.allocate(connection)
        key = object_key(project.name, move.group, stamp, move.name, f"{MANIFEST}-{base >> 20:08d}.parquet")
        batch = Batch(
            base >> 20, project.id, target.id, move.asset, 0, run, key, reused=move.reused, removed=move.removed
        )
        data = await asyncio.to_thread(
            encode_manifest,
            batch,
            project=project.name,
            environment=target.name,
            asset=move.name,
            assets={},
            definition=None,
        )
        await project.bucket.write_own(key, data)
        batches.append((batch, committed(batch, target.name, move.name, data)))
    return batches


async def _commit(
    connection: Any, project: Project, target: Environment, run: str, batches: Sequence[tuple[Batch, Entry]]
) -> None:
    """All of it, in the caller's transaction."""
    if not batches:
        return
    await environments.hold(connection, project.id)
    try:
        for batch, _ in batches:
            await lineage.commit(connection, batch)
    except Overtaken:
        raise PromotionError(
            f"{target.name} is being changed by somebody else at this moment; nothing was moved.", hint="Try again."
        ) from None
    names = {identifier: name for name, identifier in project.asset_ids.items()}
    done = [
        AssetResult(names.get(b.asset, str(b.asset)), reused=len(b.reused), removed=len(b.removed)) for b, _ in batches
    ]
    counts = [(one.asset, one.to_json(), one.seconds) for one in done]
    await runs.finish(connection, run, "done", counts)
    await journal.append(connection, project.id, *(entry for _, entry in batches))


async def _keep_base(connection: Any, project: Project, one: Environment, base: Base, entry: Entry) -> None:
    """An environment starts from this point of another from now on; the journal says so, and from what it says it can be made again."""
    await environments.keep_base(connection, one.id, base)
    stated = await environments.stated(connection, base)
    await journal.append(connection, project.id, replace(entry, facts={**stated, **entry.facts}))


def _settled(
    mark: read.Watermark, marks: Mapping[int, read.Watermark], now: Mapping[int, Pin]
) -> dict[str, Any] | None:
    """That all units of an asset were found fresh holds in another environment that is the same: told in its own commits."""
    if mark.settled is None:
        return None
    above = mark.settled.get("upstream")
    if above is None:
        return dict(mark.settled)
    if any(number != (marks[int(a)].changed if int(a) in marks else 0) for a, number in above.items()):
        return None
    return {**mark.settled, "upstream": {a: now[int(a)].changed if int(a) in now else 0 for a in above}}


def _last(pins: Mapping[int, Pin], asset: int) -> int:
    return pins[asset].at if asset in pins else 0


async def _differences(
    connection: Any, one: int, two: int, assets: Sequence[int]
) -> dict[int, tuple[tuple[tuple[str, str, str], ...], int]]:
    """The documents that differ between two environments, by asset, and how many units were made again with the same result."""
    mine, theirs = await read.made_units(connection, one, assets), await read.made_units(connection, two, assets)
    differing: dict[int, pl.Series] = {}
    for asset in assets:
        both = mine[asset].join(theirs[asset], on="unit", how="full", coalesce=True, suffix="_other")
        other = both.filter(pl.col("materialization").ne_missing(pl.col("materialization_other")))
        if other.height:
            differing[asset] = other["unit"]
    if not differing:
        return {}
    units = pl.concat(list(differing.values())).unique()
    ours = await read.current_documents(connection, one, list(differing), units=units)
    others = await read.current_documents(connection, two, list(differing), units=units)
    found: dict[int, tuple[tuple[tuple[str, str, str], ...], int]] = {}
    for asset, members in differing.items():
        called = shown_unit(pl.concat([units.select("unit", "label") for units in (mine[asset], theirs[asset])]))
        a, b = (
            frame.filter(pl.col("unit").is_in(members.implode())).select(
                "address", "identity", "unit", called.alias("path"), "name"
            )
            for frame in (ours[asset], others[asset])
        )
        both = a.join(b, on="address", how="full", coalesce=True, suffix="_other")
        both = both.filter(pl.col("identity").ne_missing(pl.col("identity_other"))).select(
            pl.coalesce("unit", "unit_other").alias("unit"), pl.coalesce("path", "path_other").alias("path"),
            pl.coalesce("name", "name_other").alias("name"),
            pl.when(pl.col("identity_other").is_null()).then(pl.lit("added"))
            .when(pl.col("identity").is_null()).then(pl.lit("removed")).otherwise(pl.lit("changed")).alias("kind"),
        ).sort("path", "name")  # fmt: skip
        rows = tuple(both.select("path", "name", "kind").iter_rows())
        found[asset] = (rows, len(members) - both["unit"].n_unique())
    return found
