"""Causes: what is at the root of a unit's being stale, or of all that a plan would make?

Down to the root means: the document with its two versions and their difference, the value in the config, the alias, the package, the
lines of code; through assets that wait for others (`roots`), and through what those above became in earlier runs, by comparing what
they were made with then and now. Each root is told once, with one way to it and how many units it concerns.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, TypedDict

import polars as pl

from assetcore import sources
from assetcore.assets import Dependency, Source
from assetcore.documents import Document, document_id
from assetcore.errors import AssetcoreError, NothingSelectedError, SelectionError, UsageError
from assetcore.explain import check_forgotten, check_one, find, no_unit, units_labelled
from assetcore.frames import among, joined, rows_where
from assetcore.lineage import damage, named, read, recipes, trace
from assetcore.lineage.failures import last_failure
from assetcore.lineage.schema import Connection
from assetcore.partitions import shown_duration
from assetcore.plan import Plan, Snapshot
from assetcore.project import Project
from assetcore.reasons import (
    SHOWN,
    CauseFound,
    CauseGroup,
    Why,
    component_differences,
    diff_of,
    few,
    fields_differing,
    merged,
)
from assetcore.refs import format_ref, parse_ref, suggestion
from assetcore.roots import GIVEN_TO, above, differences, lost_partition, waiting
from assetcore.slices import Slicing, descent
from assetcore.staleness import CAUSES, COMPONENTS, LOST, Component, Definition

__all__ = ["Descendant", "Subject", "deciding", "is_beside", "roots_of", "subject", "why"]

SHOWN_DIFFS = 5
NAMED = 3
"""So many units that were never made, or failed, are told one by one."""
STEPS_BACK = 20
DIFF_BYTES = 200_000


@dataclass(frozen=True, slots=True)
class Subject:
    """What is asked about: a unit of an asset, by its label; without one, the only unit that there is."""

    asset: str
    label: str | None


@dataclass(frozen=True, slots=True)
class Descendant:
    """A unit of which one document of a source alone decides whether it is fresh, and what else descends from that document."""

    unit: bytes
    label: str
    parent: str | None
    made_at: datetime
    document: str
    how: Slicing


async def subject(project: Project, text: str) -> Subject:
    """What a REF asks about. Raises SelectionError, UsageError."""
    ref = parse_ref(text)
    if ref.time is not None:
        raise UsageError(
            "why is about what is stale now.", hint=f"What it was, and why it changed: aipctl history '{ref}'"
        )
    if ref.asset is not None and ref.asset in project.graph.assets:
        return Subject(ref.asset, ref.unit)
    async with project.engine.connect() as connection:
        document = (await find(project, connection, text))[0]
    return Subject({i: n for n, i in project.asset_ids.items()}[document.asset], document.unit)


async def deciding(project: Project, connection: Connection, about: Subject) -> Descendant | None:
    """The unit that is asked about, where one document of a source alone decides whether it is fresh; None where more decides.

    More does of an aggregate, and of what is made of one. A unit that was never made is not known to descend from anything.
    """
    graph, name, label = project.graph, about.asset, about.label
    how = descent(graph, name)
    if how is None or label is None:
        return None
    drivers = [(one, graph.driver(one)) for one in graph.chain(name)[:-1]]
    parameters = [graph.assets[one].dependencies.index(driver) for one, driver in drivers if driver is not None]
    units = await named.rooted(connection, project.environment_id, project.asset_ids[name], label, parameters)
    if not units:
        return None
    check_one(name, label, [found[:3] for found in units])
    unit, own, parent, made_at, document = units[0]
    return None if document is None else Descendant(unit, own, parent, made_at, document, how)


async def why(
    project: Project, connection: Connection, about: Subject, plan: Plan, snapshot: Snapshot, *,
    beside: bool = False, known: Descendant | None = None,
) -> Why:  # fmt: skip
    """Why a unit is stale, given a plan of its asset in which nothing was left out that it is made of, or that it `is_beside`.

    What is `known` of a unit that one document decides is not asked again.
    """
    name, label = about.asset, about.label
    if isinstance(project.graph.assets[name], Source):
        return await _why_source(project, connection, name, label, snapshot)
    judgement = plan.judgements.get(name)
    if judgement is not None and not beside:
        partitioned = project.graph.assets[name].partitions is not None
        row = _row(judgement.judged, name, label, partitioned=partitioned)
        if row is None:
            raise await no_unit(project, connection, name, label or name, near=judgement.judged["label"])
        unit, is_fresh = row["unit"], row["status"] == "fresh"
        repeated = await _repeated(
            project, connection, _unsure(plan, snapshot, about, [name] if is_fresh else plan.judgements)
        )
        asking = _Asking(project, connection, plan, snapshot, repeated)
        causes = [] if is_fresh else [cause async for cause in asking.of_unit(name, row)]
        found = Why(asking.named(name, row["label"], row["parent"]), row["status"], few(causes))
    elif known is not None:
        repeated = await _repeated(project, connection, {(name, known.label)} - {(name, label)})
        unit, found = known.unit, Why(_named(name, known.label, known.parent, twice=bool(repeated)), "fresh", ())
    else:
        found = Why(format_ref(name, label), "fresh", ())
        if label is None and not project.graph.is_whole(name):
            return found
        (unit, _, _), *_ = await units_labelled(project, connection, name, label or name)
    made_at = known.made_at if known else await _made_at(project, connection, name, unit)
    freshness = project.graph.assets[name].options.freshness
    return replace(found, made_at=made_at, fresh_until=made_at + freshness if made_at and freshness else None)


async def _made_at(project: Project, connection: Connection, name: str, unit: bytes) -> datetime | None:
    """When what the unit is was made."""
    return await read.made_at(connection, project.environment_id, project.asset_ids[name], unit)


async def is_beside(project: Project, about: Subject, snapshot: Snapshot) -> bool:
    """Whether a snapshot alone tells that a unit is fresh: nothing above its asset changed, or it is not in its slice."""
    name, part = about.asset, snapshot.slices.get(about.asset)
    if name not in snapshot.states:
        return True
    if (
        part is None
        or about.label is None
        or isinstance(project.graph.assets[name], Source)
        or not snapshot.how.partial(name)
    ):
        return False
    async with project.engine.connect() as connection:
        units = await named.by_unit(connection, project.environment_id, project.asset_ids[name], about.label)
    check_one(name, about.label, units)
    return bool(units) and units[0][0] not in part.units.to_list()


async def roots_of(project: Project, plan: Plan, snapshot: Snapshot) -> tuple[CauseGroup, ...]:
    """The roots of a whole plan, grouped by cause, those that concern most units first."""
    stale: Counter[str] = Counter()
    found: dict[str, list[CauseFound]] = {}
    async with project.engine.connect() as connection:
        asking = _Asking(project, connection, plan, snapshot)
        gone = list(asking.gone())
        for asset in plan.assets:
            stale.update(asset.causes)
            if asset.removed and not gone:
                says = f"what {asset.removed:,} units of {asset.asset} were made for is gone"
                found.setdefault("input-removed", []).append(CauseFound("input-removed", says, subject=asset.asset))
            if asset.stale:
                judged = plan.choice.narrow(project.graph.assets[asset.asset], plan.judgements[asset.asset].judged)
                async for cause in asking.of_units(asset.asset, judged.filter(pl.col("status") == "stale")):
                    found.setdefault(cause.code, []).append(cause)
    found.setdefault("input-removed", []).extend(gone)
    pending = waiting(plan, project.graph)
    removed = {"input-removed": sum(asset.removed for asset in plan.assets)}
    groups = [
        CauseGroup(code, stale[code], pending.get(code, 0), removed.get(code, 0), few(merged(found[code])))
        for code in CAUSES
        if found.get(code)
    ]
    return tuple(sorted(groups, key=lambda group: -group.units))


def _unsure(plan: Plan, snapshot: Snapshot, about: Subject, names: Iterable[str]) -> set[tuple[str, str]]:
    """The labels by which these assets may have several units: where only slices were read, but not the one that named a unit."""
    sliced = {name: plan.judgements[name].judged for name in names if snapshot.how.partial(name)}
    told = {
        (name, label)
        for name, judged in sliced.items()
        for label, parent in zip(judged["label"], judged["parent"], strict=True)
        if parent is not None
    }
    return told - {(about.asset, about.label)}


async def _repeated(
    project: Project, connection: Connection, labels: Collection[tuple[str, str]]
) -> frozenset[tuple[str, str]]:
    """Of these assets and labels, those by which an asset has several units."""
    names = {project.asset_ids[name]: name for name, _ in labels}
    units = {(project.asset_ids[name], label) for name, label in labels}
    twice = await named.repeated(connection, project.environment_id, units)
    return frozenset((names[number], label) for number, label in twice)


def _named(name: str, label: str, parent: str | None, *, twice: bool) -> str:
    """The shortest REF of a unit: with its parent where its label repeats."""
    return format_ref(name, f"{parent}/{label}" if twice and parent is not None else label)


def _row(judged: pl.DataFrame, name: str, label: str | None, *, partitioned: bool) -> dict[str, Any] | None:
    """The unit that goes by this label, or is alone in this partition; None where there is none."""
    rows = judged
    if label is not None:
        is_called = judged["label"] == label
        if judged["parent"].null_count() < judged.height:
            is_called |= judged["parent"] + "/" + judged["label"] == label
        rows = rows_where(judged, is_called)
        if partitioned and not rows.height:
            rows = judged.filter((pl.col("parent") == label) | pl.col("parent").str.starts_with(f"{label}/"))
    if rows.height == 1:
        return rows.row(0, named=True)
    if rows.height == 0:
        return None
    if label is None:
        stale = rows.filter(pl.col("status") != "fresh")
        own, parent = (stale if stale.height else rows).select("label", "parent").row(0)
        example = _named(name, own, parent, twice=(rows["label"] == own).sum() > 1)
        raise SelectionError(f"{name} has {rows.height} units.", hint=f"Ask for one: aipctl why '{example}'")
    check_one(name, label, rows.select("unit", "label", "parent").rows())
    return None


class _Concerns(TypedDict):
    """How many units a cause concerns, and one of them."""

    units: int
    unit: bytes | None


@dataclass(frozen=True, slots=True)
class _Asking:
    """One question: what it is asked of."""

    project: Project
    connection: Connection
    plan: Plan
    snapshot: Snapshot
    repeated: frozenset[tuple[str, str]] = frozenset()

    async def of_unit(self, name: str, row: Mapping[str, Any]) -> AsyncIterator[CauseFound]:
        """The roots of one unit: its own, or those of what it waits for."""
        found = above(self.plan, self.project.graph, self.snapshot, name, row["unit"])
        for asset, rows in found.stale():
            async for cause in self.of_units(asset, rows):
                unit = rows["unit"][0] if cause.unit is None else cause.unit
                yield replace(cause, path=(*self._path(found.way(asset, unit)), *cause.path))
        for asset, rows in found.gone():
            for cause in (*self._lost_partitions(asset, rows), *self._went(asset, rows)):
                assert cause.unit is not None
                way = self._path(found.way(asset, cause.unit))
                yield replace(cause, path=way[:-1] if way[-1:] == (cause.subject,) else way)

    def gone(self) -> Iterator[CauseFound]:
        """The partitions, and the documents of sources, that are there no more."""
        for asset in self.plan.assets:
            if asset.removed:
                judged = self.plan.judgements[asset.asset].judged
                yield from self._lost_partitions(asset.asset, judged.filter(pl.col("status") == "removed"))
        for source in self.plan.sources:
            if source.removed:
                known = self.snapshot.states[source.source].documents
                now = self.plan.views[source.source].documents
                went = joined(known, now, "address", "anti")
                yield from self._went(source.source, went.with_columns(pl.lit(None, pl.String).alias("parent")))

    def _lost_partitions(self, name: str, rows: pl.DataFrame) -> Iterator[CauseFound]:
        """The partitions that went with these units of theirs."""
        found = pl.DataFrame([self._lost(name, rows), rows["unit"]]).drop_nulls("lost")
        each = found.group_by("lost", maintain_order=True).agg(pl.len(), pl.col("unit").first())
        for key, count, unit in each.head(SHOWN + 1).iter_rows():
            ref = format_ref(name, key)
            yield CauseFound("input-removed", f"the partition {ref} is gone", subject=ref, units=count, unit=unit)

    def _went(self, name: str, rows: pl.DataFrame) -> Iterator[CauseFound]:
        """The documents of a source, or the units of no lost partition, that went by themselves."""
        says = "{} is gone" if isinstance(self.project.graph.assets[name], Source) else "what {} was made for is gone"
        by_themselves = rows_where(rows, self._lost(name, rows).is_null())
        for unit, label, parent in by_themselves["unit", "label", "parent"].head(SHOWN + 1).iter_rows():
            ref = self.named(name, label, parent)
            yield CauseFound("input-removed", says.format(ref), subject=ref, unit=unit)

    def _lost(self, name: str, rows: pl.DataFrame) -> pl.Series:
        return lost_partition(self.project.graph.assets[name], rows, self.snapshot.states[name].there)

    def _path(self, way: Sequence[tuple[str, str | None, str]]) -> tuple[str, ...]:
        return tuple(self.named(name, label, parent) for name, parent, label in way)

    def named(self, name: str, label: str, parent: str | None) -> str:
        judgement = self.plan.judgements.get(name)
        if judgement is None or parent is None:
            return format_ref(name, label)
        twice = (name, label) in self.repeated or (judgement.judged["label"] == label).sum() > 1
        return _named(name, label, parent, twice=bool(twice))

    async def of_units(self, name: str, rows: pl.DataFrame) -> AsyncIterator[CauseFound]:
        """The causes of stale units of one asset, each once."""
        present = set(rows["causes"].explode().to_list())
        for code in CAUSES:
            if code not in present or code in ("input-changed", "input-removed"):
                continue
            some = rows.filter(pl.col("causes").list.contains(code))
            component = next((c for c, cause in COMPONENTS.items() if cause == code), None)
            if component is not None:
                async for cause in self._component_changed(name, component, some):
                    yield cause
            elif code == "missing":
                async for cause in self._never_current(name, some):
                    yield cause
            else:
                async for cause in self._without_inputs(name, code, some):
                    yield cause
        if present & {"input-changed", "input-removed"}:
            of_inputs = pl.col("causes").list.set_intersection(["input-changed", "input-removed"]).list.len() > 0
            inputs = rows if rows.height == 1 else rows.filter(of_inputs)
            async for cause in self._inputs_changed(name, inputs):
                yield cause

    async def _never_current(self, name: str, rows: pl.DataFrame) -> AsyncIterator[CauseFound]:
        """Units that were never made, or that were, and what a blocking check over the whole asset then refused."""
        guards = [c.name for c in self.project.graph.checks.get(name, ()) if c.blocking and c.scope == "asset"]
        definition = self.snapshot.states[name].definition
        if guards and definition is not None:
            wanted = joined(self.plan.judgements[name].wanted.units, rows, "unit", "semi")
            inputs = dict(wanted.select("unit", "inputs").iter_rows())
            made = await recipes.put_aside(self.connection, self.project.asset_ids[name], definition, inputs)
            aside = among(rows["unit"], pl.Series("unit", list(made), pl.Binary))
            says = f"made, and put aside by the check {' or '.join(guards)}"
            async for cause in self._without_inputs(name, "missing", rows_where(rows, aside), says):
                yield cause
            rows = rows_where(rows, ~aside)
        async for cause in self._without_inputs(name, "missing", rows):
            yield cause

    async def _without_inputs(
        self, name: str, code: str, rows: pl.DataFrame, what: str = "never made"
    ) -> AsyncIterator[CauseFound]:
        freshness = shown_duration(self.project.graph.assets[name].options.freshness or timedelta())
        says = {
            "missing": what, "forced": "to be made whether stale or not", "failed": "tried, and failed",
            "object-missing": "made, but the object is gone", "corrupt": "made, but the bytes are not what they were",
            "expired": f"made longer ago than {freshness}, for which they stay fresh",
        }[code]  # fmt: skip
        if rows.height > NAMED and code != "failed":
            yield CauseFound(code, f"{rows.height:,} units of {name} were {says}", subject=name, units=rows.height)
            return
        for row in rows.head(SHOWN).iter_rows(named=True):
            ref = self.named(name, row["label"], row["parent"])
            detail = f"{ref} is {says}" if code == "forced" else f"{ref} was {says}"
            if code == "failed":
                failure = await last_failure(
                    self.connection, self.project.environment_id, self.project.asset_ids[name], row["unit"]
                )
                error, traceback = failure or (detail, "")
                detail = "\n".join(filter(None, (error, traceback.rstrip())))
            if code in LOST:
                details = await damage.details(self.connection, row["materialization"], code)
                detail = f"{detail}: {'; '.join(details[:NAMED])}"
            if (
                code == "expired"
                and (made_at := await _made_at(self.project, self.connection, name, row["unit"]))
                and self.snapshot.moment
            ):
                age = shown_duration(self.snapshot.moment.now - made_at, units=2)
                detail = f"{ref} was made {age} ago, and stays fresh for {freshness}"
            yield CauseFound(code, detail, subject=ref, unit=row["unit"])
        if rows.height > SHOWN:
            yield CauseFound(
                code, f"and {rows.height - SHOWN:,} more units of {name}", subject=name, units=rows.height - SHOWN
            )

    async def _component_changed(self, name: str, component: str, rows: pl.DataFrame) -> AsyncIterator[CauseFound]:
        """Once for each definition that some of the units were made with."""
        state = self.snapshot.states[name]
        made_with = (
            joined(state.made, rows, "unit", "semi").group_by("definition").agg(pl.len(), pl.col("unit").first())
        )
        now = self.snapshot.definitions[name]
        for number, count, unit in made_with.sort("len", "definition", descending=[True, False]).iter_rows():
            for cause in await self._definitions_differ(name, component, state.definitions[number], now):
                yield replace(cause, units=count, unit=unit)

    async def _definitions_differ(
        self, name: str, component: str, was: Definition, now: Definition
    ) -> list[CauseFound]:
        before = was.components.get(component, Component(b""))
        after = now.components.get(component, Component(b""))
        if component != "code":
            counted = {p: policy for p, policy in self.project.settings.packages.items() if policy == "stale"}
            return component_differences(name, component, before, after, counted)
        old, new = before.detail or {}, after.detail or {}
        changed = sorted(n for n in {**old, **new} if old.get(n) != new.get(n))
        parts = {p.digest.hex(): p.source for p in self.project.fingerprint(name).parts}
        unknown = {d[n] for n in changed for d in (old, new) if n in d} - set(parts)
        kept = await read.sources_of_parts(self.connection, [bytes.fromhex(digest) for digest in unknown])
        parts |= {digest.hex(): source for digest, source in kept.items()}
        found: list[CauseFound] = []
        for part in changed:
            shown = f"the function of {name}" if part == "<asset>" else part
            says = "was changed" if part in old and part in new else "is new" if part in new else "is gone"
            diff = diff_of(parts.get(old.get(part, ""), ""), parts.get(new.get(part, ""), ""), shown)
            found.append(CauseFound("code-changed", f"{shown} {says}", old.get(part), new.get(part), diff, shown))
        return found or [CauseFound("code-changed", f"the code of {name} was changed", subject=name)]

    async def _inputs_changed(self, name: str, rows: pl.DataFrame) -> AsyncIterator[CauseFound]:
        """Which of the documents that these units are given are new, changed or gone since they were made."""
        materializations = rows["materialization"].drop_nulls()
        units = dict(rows.select("materialization", "unit").iter_rows())
        was = await trace.given_to(self.connection, materializations.to_list())
        wholes = await self._wholes(name, materializations.to_list())
        given = joined(self.plan.judgements[name].wanted.given, rows["unit", "materialization"], "unit")
        told = False
        for index, dependency in enumerate(self.project.graph.assets[name].dependencies):
            view = self.plan.views[dependency.upstream.name].documents
            if dependency.is_whole:
                before, after = await self._whole(index, wholes, view)
            else:
                before = rows_where(was, was["parameter"] == index)
                mine = rows_where(given, given["parameter"] == index)["materialization", "parameter", "address"]
                after = joined(mine, view, "address")[list(GIVEN_TO)]
            changed = differences(before, after, dependency)
            if dependency.is_whole:
                changed = changed.with_columns(pl.lit(rows.height, pl.Int64).alias("units"))
            async for cause in self._differ(dependency, changed, STEPS_BACK, units):
                told = True
                yield cause
        if not told:
            yield CauseFound("input-changed", f"what {name} is given has changed", subject=name, units=rows.height)

    async def _wholes(self, name: str, materializations: Sequence[int]) -> list[tuple[int, int, int, int, int]]:
        if not any(dependency.is_whole for dependency in self.project.graph.assets[name].dependencies):
            return []
        return await trace.wholes_of(self.connection, materializations)

    async def _whole(
        self, parameter: int, wholes: Sequence[tuple[int, int, int, int, int]], view: pl.DataFrame | None
    ) -> tuple[pl.DataFrame, pl.DataFrame]:
        """A whole asset as it was given, and as it is: for one of the units that were given it as of the same commit."""
        commits = {(asset, environment, commit): m for m, p, asset, environment, commit in wholes if p == parameter}
        before, after = [pl.DataFrame(schema=GIVEN_TO)], [pl.DataFrame(schema=GIVEN_TO)]
        for (asset, environment, commit), materialization in list(commits.items())[:NAMED]:
            mark = (
                pl.lit(materialization, pl.Int64).alias("materialization"),
                pl.lit(parameter, pl.Int64).alias("parameter"),
            )
            then = await read.current_documents(self.connection, environment, [asset], commit)
            before.append(then[asset].with_columns(*mark).select(list(GIVEN_TO)))
            if view is not None:
                after.append(view.with_columns(*mark).select(list(GIVEN_TO)))
        return pl.concat(before), pl.concat(after)

    async def _differ(
        self,
        dependency: Dependency,
        changed: pl.DataFrame,
        steps: int,
        units: Mapping[int | None, bytes] | None = None,
    ) -> AsyncIterator[CauseFound]:
        """Documents that differ: told as they are where they are of a source, and by why they came out differently elsewhere.

        `units` are those that are given them, by materialization. Of what the dependency does not hand over (`fields=`) nothing is told.
        """
        upstream, chosen = dependency.upstream.name, dependency.fields
        for place, row in enumerate(changed.head(SHOWN).iter_rows(named=True)):
            concerns: _Concerns = {"units": row["units"], "unit": (units or {}).get(row["materialization"])}
            now = "_now" if row["identity_now"] is not None else ""
            ref = format_ref(upstream, row["label" + now], row["name" + now])
            before, after = (None if row[s] is None else document_id(row[s]) for s in ("sha256", "sha256_now"))
            if row["identity_now"] is None:
                yield CauseFound("input-removed", f"{ref} is gone", before, None, None, ref, **concerns)
                continue
            if row["identity"] is None:
                yield CauseFound("input-changed", f"{ref} is new", None, after, None, ref, **concerns)
                continue
            deeper = False
            if steps and not isinstance(self.project.graph.assets[upstream], Source):
                async for cause in self._made_differently(upstream, row, steps - 1):
                    deeper = True
                    yield replace(cause, path=(format_ref(upstream, row["label" + now]), *cause.path), **concerns)
            if not deeper:
                versions = await self._versions(upstream, row) if place < SHOWN_DIFFS else None
                diff = _text_diff(*versions) if versions and (chosen is None or "content" in chosen) else None
                differing = fields_differing(*versions) if versions else None
                fields = differing and {n: v for n, v in differing.items() if chosen is None or n in chosen}
                yield CauseFound(
                    "input-changed", f"{ref} was changed", before, after, diff, ref, fields=fields, **concerns
                )
        if changed.height > SHOWN:
            rest = changed.height - SHOWN
            detail = f"and {rest:,} more documents of {upstream}"
            yield CauseFound("input-changed", detail, subject=upstream, units=int(changed["units"].slice(SHOWN).sum()))

    async def _made_differently(self, name: str, row: Mapping[str, Any], steps: int) -> AsyncIterator[CauseFound]:
        """Why a document of an asset came out differently: what its unit was made with then, against what it was made with last."""
        state = self.snapshot.states.get(name)
        if name not in self.project.graph.assets or state is None or row["document"] is None:
            return
        made = state.made.filter(pl.col("unit") == row["unit_now"])
        first = (await trace.first_makers(self.connection, [row["document"]])).get(row["document"])
        if made.height != 1 or made["materialization"][0] is None or first is None:
            return
        number, definition = made.select("materialization", "definition").row(0)
        was, now = state.definitions.get(first[1]), state.definitions.get(definition)
        if was is not None and now is not None:
            for component in COMPONENTS:
                before, after = was.components.get(component), now.components.get(component)
                if (before and before.digest) != (after and after.digest):
                    for cause in await self._definitions_differ(name, component, was, now):
                        yield cause
        given = await trace.given_to(self.connection, [first[0], number])
        wholes = await self._wholes(name, [first[0], number])
        for index, dependency in enumerate(self.project.graph.assets[name].dependencies):
            if dependency.is_whole:
                then, _ = await self._whole(index, [w for w in wholes if w[0] == first[0]], None)
                last, _ = await self._whole(index, [w for w in wholes if w[0] == number], None)
            else:
                mine = given.filter(pl.col("parameter") == index)
                then, last = (mine.filter(pl.col("materialization") == m) for m in (first[0], number))
            same = pl.lit(number, pl.Int64).alias("materialization")
            changed = differences(then.with_columns(same), last.with_columns(same), dependency)
            async for cause in self._differ(dependency, changed, steps):
                yield cause

    async def _versions(self, upstream: str, row: Mapping[str, Any]) -> tuple[Document, Document] | None:
        """A document as it was given and as it would be; None where one of them cannot be read, or they are large."""
        asset = self.project.graph.assets[upstream]
        numbers = [n for n in (row["document"], row["document_now"]) if n is not None]
        with suppress(AssetcoreError):
            stored = await read.stored(self.connection, numbers)
            if sum(s.size for s in stored.values()) > DIFF_BYTES:
                return None
            found = await self.project.reader.documents([stored[n] for n in numbers], asset.output.document_type)
            if row["document_now"] is None and isinstance(asset, Source):
                looked = sources.documents(asset, self.project.root, [row["name_now"]])
                found += [document async for document in looked]
            return (found[0], found[1]) if len(found) == 2 else None
        return None


def _text_diff(before: Document, after: Document) -> str | None:
    """The difference of two versions of a document where both are text."""
    with suppress(UnicodeDecodeError):
        return diff_of(before.content.decode(), after.content.decode(), after.name)
    return None


async def _why_source(
    project: Project, connection: Connection, name: str, label: str | None, snapshot: Snapshot
) -> Why:
    """A source's document differs from what was taken in, or it does not."""
    state = snapshot.states.get(name)
    unit = format_ref(name, label)
    if state is None:
        if label is not None:
            await units_labelled(project, connection, name, label)  # it says so where there is none
        return Why(unit, "fresh", ())
    observed = dict(snapshot.observed[name].select("name", "identity").iter_rows())
    known = dict(state.documents.select("name", "identity").iter_rows())
    if label is not None and label not in observed and label not in known:
        await check_forgotten(project, connection, name, label)
        raise NothingSelectedError(f"{name} has no document {label!r}.", hint=suggestion(label, {*observed, *known}))
    names = sorted({*observed, *known}) if label is None else [label]
    changed = [n for n in names if observed.get(n) != known.get(n)]
    causes: list[CauseFound] = []
    for one in changed:
        ref = format_ref(name, one, one)
        says = "is new" if one not in known else "was changed" if one in observed else "is gone"
        code = "missing" if one not in known else "input-changed" if one in observed else "input-removed"
        causes.append(CauseFound(code, f"{ref} {says}", subject=ref))
    return Why(unit, "stale" if causes else "fresh", few(causes))
