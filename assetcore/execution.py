"""Execution: how does a plan become documents?

A `Run` has what changed in the sources taken in (`intake`) and makes assets, one step each. The walk of one asset: read what it is made of,
judge its units again (an upstream may have been made again with the same result), take back what an earlier recipe made, leave
out what is gone, and make the rest in batches. Nothing here knows of Prefect: `flow` calls `Run.perform` inside its tasks.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, NamedTuple, TypeVar

import polars as pl

from assetcore.assets import Asset, Source
from assetcore.batches import TRACED_KEYS, Work
from assetcore.budget import Budget
from assetcore.collectors import collector_for
from assetcore.errors import AssetcoreError, StorageError
from assetcore.ferry import Ferry
from assetcore.guard import Guard
from assetcore.intake import SMALL, Intake, Standing
from assetcore.judgement import AssetState, Choice, judge_chosen
from assetcore.keep import Defined, Earlier, Keeper
from assetcore.lineage import commit as lineage
from assetcore.lineage import read, spans, undeclared
from assetcore.lineage.commit import Overtaken, Settled
from assetcore.lineage.heads import at_one_moment
from assetcore.lineage.schema import Connection
from assetcore.partitions import Moment
from assetcore.pools import Pools
from assetcore.project import Project
from assetcore.results import AssetResult, Event, Failure, Say
from assetcore.runners import Runner, runner_for
from assetcore.snapshot import Read, asset_states, is_settled, settled_with
from assetcore.staleness import Definition, rows_where
from assetcore.storage import DamagedObjectError, run_timestamp
from assetcore.telemetry import Recorder, Span
from assetcore.units import View, open_partitions
from assetcore.verify import note_damage

__all__ = ["Run", "walk"]

ATTEMPTS = 5
T = TypeVar("T")


async def walk(waits: Mapping[str, Sequence[str]], step: Callable[[str, list[T]], Awaitable[T]]) -> dict[str, T]:
    """Take every step as soon as those that it waits for have been taken; `step` is handed what they gave.

    `waits` names the steps in an order in which each comes after those it waits for. An error stops all.
    """
    tasks: dict[str, asyncio.Task[T]] = {}

    async def taken(name: str, before: Sequence[asyncio.Task[T]]) -> T:
        return await step(name, [await one for one in before])

    try:
        async with asyncio.TaskGroup() as group:
            for name, names in waits.items():
                tasks[name] = group.create_task(taken(name, [tasks[n] for n in names]))
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return {name: one.result() for name, one in tasks.items()}


def _traced(result: AssetResult) -> dict[str, Any]:
    """What a trace says of a step: what is not zero, and where the first objects lie."""
    counts = {key: value for key, value in result.to_json().items() if key != "asset" and value}
    return {**counts, "taken_in": result.taken_in or None, "keys": result.keys[:TRACED_KEYS] or None}


class Seen(NamedTuple):
    """What is known of an asset when a run comes to it: its definition, watermarks, its own state, what it is made of."""

    defined: Defined
    marks: dict[int, read.Watermark]
    state: AssetState
    views: dict[str, View]


class Ended(NamedTuple):
    """An asset of which everything was made that there was to make."""

    asset: Asset[..., Any]
    definition: Definition
    work: Work


@dataclass(slots=True)
class Run:
    """One execution of a plan."""

    project: Project
    id: str
    started: datetime
    choice: Choice
    found: Read
    say: Say
    results: dict[str, AssetResult] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    unfinished: dict[str, pl.Series] = field(default_factory=dict)
    unfinished_partitions: dict[str, pl.Series | None] = field(default_factory=dict)
    progress: dict[str, float] = field(default_factory=dict)
    budget: Budget | None = None
    flow_run: str | None = None
    standing: Standing = field(init=False)
    keeper: Keeper = field(init=False)
    intake: Intake = field(init=False)
    runner: Runner = field(init=False)
    pools: Pools = field(init=False)
    recorder: Recorder = field(init=False)
    _sights: Ferry[str, Seen] = field(init=False)
    _marks: Ferry[Collection[int], Mapping[int, read.Watermark]] = field(init=False)
    _settling: Ferry[Ended, None] = field(init=False)

    def __post_init__(self) -> None:
        self._sights = Ferry(self._see)
        self._marks = Ferry(self._read_marks)
        self._settling = Ferry(self._settle)
        self.keeper = Keeper(self.project, self.id, run_timestamp(self.started))
        self.standing = Standing(self.project, self.found)
        self.intake = Intake(
            self.project, self.found, self.choice, self.keeper, self.standing, self.unfinished, self.tell, self._fail
        )
        self.pools = Pools(self.project.settings.redis_url, self.project.settings.pools)
        self.runner = runner_for(self.project.settings, self.project.graph, self.project.name)
        self.recorder = Recorder(self.project.name, self.id, [self._keep_spans])
        if (collector := collector_for(self.project.settings, self.project.name, self.id)) is not None:
            self.recorder.sinks.append(collector)

    @property
    def moment(self) -> Moment:
        """When the plan was made: for all its steps the same days are over."""
        assert self.found.snapshot.moment is not None
        return self.found.snapshot.moment

    async def perform(self, name: str) -> AssetResult:
        """Take in a source, or make an asset; judged again when another run was faster."""
        asset = self.project.graph.assets[name]
        with self.recorder.span("source" if isinstance(asset, Source) else "asset", name) as traced:
            result = await self._perform(name, asset)
            traced.set(**_traced(result))
        await self.recorder.flush()
        return result

    async def _perform(self, name: str, asset: Asset[..., Any]) -> AssetResult:
        self.tell(Event("asset-started", name))
        started = time.perf_counter()
        result = self.results[name] = AssetResult(name)
        for _, error in self.found.unread.get(name, ()):
            self._fail(name, error)
        for attempt in range(ATTEMPTS):
            try:
                await (self.intake.take_in(asset, result) if isinstance(asset, Source) else self._make(asset, result))
                break
            except Overtaken:
                if attempt == ATTEMPTS - 1:
                    raise AssetcoreError(
                        f"{name}: other runs keep making the same units.", hint="Run again when they have ended."
                    ) from None
        result.seconds = time.perf_counter() - started
        self.tell(Event("asset-finished", name, result.made + result.unchanged, text=result.summary))
        return result

    @property
    def status(self) -> str:
        """How a run ended whose steps have all been taken: `stopped` where its budget had no room for what is left."""
        if self.failures:
            return "failed"
        return "stopped" if any(result.left for result in self.results.values()) else "done"

    def prepare(self, steps: Collection[str]) -> None:
        """Start what the steps will need, while the first of them are taken."""
        graph = self.project.graph
        called = [c for name in steps for c in (graph.assets[name], *graph.checks.get(name, ()))]
        if not all(c.asynchronous for c in called):
            self.runner.prepare()

    async def close(self) -> None:
        """End what was started."""
        for one in (self._sights, self._marks, self._settling, self.intake, self.keeper):
            await one.close()
        await self.runner.close()
        await self.pools.close()

    async def end(self, status: str) -> None:
        """Record how it ended, and hand over what is not yet."""
        costs = {
            "tokens": sum(r.tokens for r in self.results.values()),
            "usd": sum(r.usd for r in self.results.values()),
        }
        units = sum(r.made + r.unchanged + r.failed for r in self.results.values())
        await self.recorder.close(status, units=units, **{key: value for key, value in costs.items() if value})

    async def _keep_spans(self, ended: Sequence[Span]) -> None:
        async with self.project.engine.begin() as connection:
            await spans.keep(connection, self.id, ended)

    def tell(self, event: Event) -> None:
        """Say what happens, and remember how far each step is."""
        if event.kind == "progress" and event.total:
            self.progress[event.asset] = 100 * event.done / event.total
        self.say(event)

    def _fail(self, name: str, error: AssetcoreError) -> None:
        """Note what kept a step from being finished, apart from units that fail for themselves; other steps go on."""
        self.results[name].failed += 1
        self.failures.append(Failure(name, name, str(error), ""))
        self.tell(Event("unit-failed", name, text=f"{name}: {error}"))

    async def _make(self, asset: Asset[..., Any], result: AssetResult) -> None:
        project, name = self.project, asset.name
        definition = project.definition(name)
        guard = Guard(project, self.keeper, self.runner, self.tell, asset, definition, result, self.failures)
        if (untouched := await self._untouched(asset, definition)) is not None:
            result.fresh = untouched
            await guard.finish()
            return
        (definition_id, new), marks, state, views = await self._seen(asset, definition)
        force = self.choice.force and name in self.choice.assets
        part = self.standing.slices.get(name)
        judgement = judge_chosen(asset, project.graph, views, definition, state, self.choice)
        chosen = self.choice.narrow(asset, judgement.judged)
        status, blocked = chosen["status"], chosen["blocked"]
        to_make = rows_where(chosen, (status == "stale") & ~blocked)
        removed = rows_where(chosen, status == "removed")
        freshness = asset.options.freshness
        since = self.moment.now - freshness if freshness is not None else None  # older ones would have expired
        reuse: Earlier = {}
        if not (force or new):
            reuse = await self.keeper.reusable(asset, definition_id, to_make["inputs"].to_list(), since)
        result.fresh = int((status == "fresh").sum()) + (part.beside(state.made) if part is not None else 0)
        result.skipped, result.removed = int((blocked & (status != "removed")).sum()), removed.height
        gone = [(unit, was) for unit, was in removed[["unit", "materialization"]].iter_rows() if was is not None]
        last = marks[project.asset_ids[name]].last if project.asset_ids[name] in marks else 0
        # From here on only keys are held of what there is in all; documents come and go by the batch.
        wholes = {d.upstream.name for d in asset.dependencies if d.is_whole}
        judgement, state = judgement.lean(to_make), state.lean()
        views = {n: view.lean(whole=n in wholes) for n, view in views.items()}
        to_make = to_make[["unit", "label", "parent", "inputs", "materialization"]]
        del chosen, removed, status, blocked
        await guard.prepare(definition_id)
        work = Work(
            project, self.keeper, guard, self.runner, self.tell, asset, definition, definition_id, judgement, state, marks, views,
            result, self.failures, last, force, None if asset.options.pool is None else self.pools[asset.options.pool],
            budget=self.budget,
        )  # fmt: skip
        try:
            to_make = await work.take_back(to_make, await guard.fit(reuse), gone)
            single = force or to_make.height < 2
            firsts = to_make if single else to_make.unique("inputs", keep="first", maintain_order=True)
            await work.make(firsts)
            if firsts.height < to_make.height:  # units of one recipe are executed once
                again = to_make.join(firsts.select("unit"), on="unit", how="anti", maintain_order="left")
                reuse = await self.keeper.reusable(asset, definition_id, again["inputs"].to_list(), since)
                await work.make(await work.take_back(again, await guard.fit(reuse), []))
            await work.publish()
        except StorageError as error:
            if isinstance(error, DamagedObjectError):  # the next run makes it again
                await note_damage(project, [error.key])
            self._fail(name, error)
        if work.undeclared:
            async with project.engine.begin() as connection:
                await undeclared.keep(connection, project.asset_ids[name], definition_id, work.undeclared)
        await self._finish(asset, definition, work)
        await guard.finish()

    async def _seen(self, asset: Asset[..., Any], definition: Definition) -> Seen:
        """An asset as it is before it is judged; of small ones, those that ask at the same moment are read together."""
        name = asset.name
        sizes = [self.standing.sizes.get(n) for n in (name, *self._needed(name))]
        if name not in self.standing.slices and all(size is not None and size <= SMALL for size in sizes):
            return await self._sights.ask(name)
        defined = (await self.keeper.define([asset]))[name]
        async with self.project.engine.connect() as connection:
            await at_one_moment(connection)
            return Seen(defined, *(await self._read(connection, asset, definition)))

    async def _see(self, names: Sequence[str]) -> list[Seen]:
        """Small assets as they are, as of one moment, in as many statements as for one."""
        project, graph = self.project, self.project.graph
        needed = {name: self._needed(name) for name in names}
        definitions = {name: project.definition(name) for name in names}
        named = {d.upstream.name for name in names for d in graph.assets[name].dependencies if d.is_named}
        defined = await self.keeper.define([graph.assets[name] for name in names])
        every = set(names).union(*needed.values())
        async with project.engine.connect() as connection:
            await at_one_moment(connection)
            marks = await read.watermarks(connection, project.environment_id, [project.asset_ids[n] for n in every])
            states = await asset_states(
                project, connection, every, definitions, self.moment, judged=set(names), named=named
            )
        views = {n: self._view(n, states[n].documents) for n in set().union(*needed.values())}
        return [Seen(defined[name], marks, states[name], {n: views[n] for n in needed[name]}) for name in names]

    def _needed(self, name: str) -> set[str]:
        """The assets whose documents say which units an asset has, and what each is given."""
        graph = self.project.graph
        return {n for up in graph.upstream(name) for n in graph.chain(up)}

    async def _read(
        self, connection: Connection, asset: Asset[..., Any], definition: Definition
    ) -> tuple[dict[int, read.Watermark], AssetState, dict[str, View]]:
        """Watermarks, the asset's own state, and the views of what it is made of, as of one moment."""
        project, graph, name = self.project, self.project.graph, asset.name
        needed = self._needed(name)
        named = {d.upstream.name for d in asset.dependencies if d.is_named}
        marks = await read.watermarks(
            connection, project.environment_id, [project.asset_ids[n] for n in {*needed, name}]
        )
        if not self._has_slice(name, needed, marks):
            self.standing.slices.pop(name, None)
            states = await asset_states(
                project, connection, {*needed, name}, {name: definition}, self.moment, judged={name}, named=named
            )
            return marks, states[name], {n: self._view(n, states[n].documents) for n in needed}
        within = [n for n in needed if n in self.standing.slices]
        units = pl.concat([self.standing.slices[n].units for n in within]).unique()
        states = await asset_states(project, connection, within, {}, self.moment, units=units, judged=(), named=named)
        states = {
            n: replace(found, documents=self.standing.slices[n].of(found.documents)) for n, found in states.items()
        }
        part = self.standing.slices[name] = self.standing.slices[name].widened(
            states[graph.chain(name)[1]].documents["address"]
        )
        states |= await asset_states(
            project,
            connection,
            [n for n in needed if n not in self.standing.slices],
            {},
            self.moment,
            judged=(),
            named=named,
        )
        states |= await asset_states(
            project, connection, [name], {name: definition}, self.moment, units=part.units, judged={name}, named=()
        )
        return marks, states[name], {n: self._view(n, states[n].documents) for n in needed}

    def _has_slice(self, name: str, needed: Collection[str], marks: Mapping[int, read.Watermark]) -> bool:
        """Whether only the slice of an asset needs a look: nobody but this run has changed it, or what it is made of, since the plan."""
        if name not in self.standing.slices:
            return False
        project, roots, empty = self.project, self.found.snapshot.how.roots, read.Watermark()
        own = project.asset_ids[name]
        if marks.get(own, empty).last != self.found.marks.get(own, empty).last:
            return False
        if any(n in roots and n not in self.standing.slices for n in needed):
            return False
        identifiers = [project.asset_ids[n] for n in needed]
        return all(marks.get(i, empty).changed == self.standing.changed.get(i, 0) for i in identifiers)

    async def _untouched(self, asset: Asset[..., Any], definition: Definition) -> int | None:
        """How many units an asset has of which every one is known to be fresh, because nothing above came out changed; or None."""
        project, name = self.project, asset.name
        if name not in self.found.snapshot.before or (self.choice.force and name in self.choice.assets):
            return None
        if name in self.choice.units:
            return None
        if any(up in self.unfinished for up in project.graph.upstream(name)):
            return None
        marks = await self._marks.ask([project.asset_ids[n] for n in (name, *project.graph.upstream(name))])
        if not is_settled(project, name, definition.digest, marks, self.moment):
            return None
        return marks[project.asset_ids[name]].units

    async def _read_marks(self, asked: Sequence[Collection[int]]) -> list[Mapping[int, read.Watermark]]:
        async with self.project.engine.connect() as connection:
            assets = set().union(*asked)
            return [await read.watermarks(connection, self.project.environment_id, assets)] * len(asked)

    def _view(self, name: str, documents: pl.DataFrame) -> View:
        """The documents of an asset; those of units that this run could not finish are pending."""
        unfinished = self.unfinished.get(name)
        if unfinished is None:
            return View(documents)
        pending = pl.col("unit").is_in(unfinished.implode()).alias("pending")
        return View(
            documents.with_columns(pending),
            open=True,
            open_units=unfinished,
            open_partitions=self.unfinished_partitions.get(name),
        )

    async def _finish(self, asset: Asset[..., Any], definition: Definition, work: Work) -> None:
        """Hand down what is unfinished; note the asset as settled when nothing is."""
        project = self.project
        judged = work.judgement.judged
        stale = judged["unit"].filter(judged["status"] != "fresh")
        done = set() if work.guard.withholds else set(work.finished)
        unfinished = [u for u in stale if u not in done]
        above = any(up in self.unfinished for up in project.graph.upstream(asset.name))
        if work.alone and not (unfinished or work.result.failed or above):
            one = Ended(asset, definition, work)
            await (self._settle([one]) if judged.height > SMALL else self._settling.ask(one))
            return
        if work.alone:
            async with project.engine.connect() as connection:
                await self.standing.know(connection, asset.name, work.last)
        else:
            self.standing.slices.pop(asset.name, None)
        self.standing.sizes.pop(asset.name, None)
        units = self.unfinished[asset.name] = pl.Series("unit", unfinished, pl.Binary)
        again = judged.filter(pl.col("unit").is_in(units.implode()))
        found = open_partitions(asset, again, work.views, work.state.there) if work.alone else None
        self.unfinished_partitions[asset.name] = found

    async def _settle(self, ended: Sequence[Ended]) -> list[None]:
        """Note that every unit of these assets is fresh, and how many there are."""
        project = self.project
        found: list[Settled] = []
        identifiers = {one.asset.name: project.asset_ids[one.asset.name] for one in ended}
        async with project.engine.begin() as connection:
            marks = await read.watermarks(connection, project.environment_id, identifiers.values())
            for one in ended:
                self.standing.note(one.asset.name, one.work.last, marks)
            parts = {one.asset.name: self.standing.slices.get(one.asset.name) for one in ended}
            whole = [identifiers[name] for name, part in parts.items() if part is None]
            counts = await read.counts(connection, project.environment_id, whole)
            timed = [identifiers[one.asset.name] for one in ended if one.asset.options.freshness is not None]
            oldest = await read.oldest(connection, project.environment_id, timed) if timed else {}
            for asset, definition, work in ended:
                name, identifier = asset.name, identifiers[asset.name]
                part = parts[name]
                if part is None:
                    units, documents = counts[identifier]
                else:
                    own = await read.counts(connection, project.environment_id, [identifier], part.units)
                    units, documents = own[identifier]
                    units += part.beside(work.state.made)
                    documents += work.marks[identifier].documents - work.state.documents.height
                self.standing.sizes[name] = documents
                settled = settled_with(project, name, definition, work.marks, self.moment, oldest.get(identifier))
                found.append(Settled(identifier, settled, units, documents, work.last))
            await lineage.settle_all(connection, project.environment_id, found)
        return [None] * len(ended)
