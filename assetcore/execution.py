"""Execution: how does a plan become documents?

A `Run` has what changed in the sources taken in (`intake`) and makes assets, one step each. The walk of one asset: read what it is made of,
judge its units again (an upstream may have been made again with the same result), take back what an earlier recipe made, leave
out what is gone, and make the rest in batches. Nothing here knows of Prefect: `flow` calls `Run.perform` inside its tasks.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple, TypeVar

import polars as pl

from assetcore.assets import Asset, Source
from assetcore.batches import TRACED_KEYS, Work
from assetcore.budget import Budget
from assetcore.collectors import collector_for
from assetcore.errors import AssetcoreError, StorageError
from assetcore.ferry import Ferry
from assetcore.frames import rows_where
from assetcore.guard import Guard
from assetcore.intake import SMALL, Intake, Standing
from assetcore.judgement import Choice, Part, judge_chosen
from assetcore.keep import Keeper
from assetcore.lineage import commit as lineage
from assetcore.lineage import read, spans, undeclared
from assetcore.lineage.commit import Overtaken, Settled
from assetcore.partitions import Moment
from assetcore.pools import Pools
from assetcore.project import Project
from assetcore.results import AssetResult, Event, Failure, Say
from assetcore.runners import Runner, runner_for
from assetcore.sight import Seen, Sight
from assetcore.snapshot import Read, is_settled, settled_with
from assetcore.staleness import Definition
from assetcore.storage import DamagedObjectError, run_timestamp
from assetcore.telemetry import Recorder, Span
from assetcore.units import open_partitions
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


@dataclass(slots=True)
class _Judged:
    """What is seen of an asset, judged part by part. Who is interrupted may go on: no part is left out."""

    seen: AsyncIterator[Seen]
    judge: Callable[[Seen], Part]

    def __aiter__(self) -> _Judged:
        return self

    async def __anext__(self) -> Part:
        return self.judge(await anext(self.seen))


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
    sight: Sight = field(init=False)
    _marks: Ferry[Collection[int], Mapping[int, read.Watermark]] = field(init=False)
    _settling: Ferry[Ended, None] = field(init=False)

    def __post_init__(self) -> None:
        self._marks = Ferry(self._read_marks)
        self._settling = Ferry(self._settle)
        self.keeper = Keeper(self.project, self.id, run_timestamp(self.started))
        self.standing = Standing(self.project, self.found)
        self.intake = Intake(
            self.project, self.found, self.choice, self.keeper, self.standing, self.unfinished, self.tell, self._fail
        )
        self.sight = Sight(
            self.project,
            self.found,
            self.keeper,
            self.standing,
            self.moment,
            self.unfinished,
            self.unfinished_partitions,
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
        for one in (self.sight, self._marks, self._settling, self.intake, self.keeper):
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
        guard = Guard(
            project, self.keeper, self.runner, self.tell, asset, definition, result, self.failures, self.budget
        )
        if (untouched := await self._untouched(asset, definition)) is not None:
            result.fresh = untouched
            await guard.finish()
            return
        (definition_id, new), marks, seen = await self.sight.look(asset, definition)
        force = self.choice.force and name in self.choice.assets
        freshness = asset.options.freshness
        since = self.moment.now - freshness if freshness is not None else None  # older ones would have expired
        last = marks[project.asset_ids[name]].last if project.asset_ids[name] in marks else 0
        await guard.prepare(definition_id)
        work = Work(
            project, self.keeper, guard, self.runner, self.tell, asset, definition, definition_id, marks, result, last,
            force, None if asset.options.pool is None else self.pools[asset.options.pool], self.budget, new, since,
        )  # fmt: skip
        result.fresh = result.skipped = result.removed = 0
        parts = _Judged(seen, lambda one: self._judge(asset, definition, work, one))
        try:
            await work.make(parts)
            await work.publish()
        except StorageError as error:
            if isinstance(error, DamagedObjectError):  # the next run makes it again
                await note_damage(project, [error.key])
            self._fail(name, error)
            async for _ in parts:  # what was not come to is unfinished, too
                pass
        if work.undeclared:
            async with project.engine.begin() as connection:
                await undeclared.keep(connection, project.asset_ids[name], definition_id, work.undeclared)
        await self._finish(asset, definition, work)
        await guard.finish()

    def _judge(self, asset: Asset[..., Any], definition: Definition, work: Work, seen: Seen) -> Part:
        """Judge what is seen of an asset: what there is to make and what is gone, as far as it was selected."""
        (state, views, share), result = seen, work.result
        judgement = judge_chosen(asset, self.project.graph, views, definition, state, self.choice)
        chosen = self.choice.narrow(asset, judgement.judged)
        status, blocked = chosen["status"], chosen["blocked"]
        to_make = rows_where(chosen, (status == "stale") & ~blocked)
        removed = rows_where(chosen, status == "removed")
        part = self.standing.slices.get(asset.name)
        result.fresh += int((status == "fresh").sum()) + (part.beside(state.made) if part is not None else 0)
        result.skipped += int((blocked & (status != "removed")).sum())
        result.removed += removed.height
        gone = [(unit, was) for unit, was in removed[["unit", "materialization"]].iter_rows() if was is not None]
        to_make = judgement.called(to_make)[["unit", "label", "parent", "inputs", "materialization", "called"]]
        # From here on only keys are held of what there is in all; documents come and go by the batch.
        judgement = judgement.lean(to_make)
        work.judged += judgement.judged.height
        work.unfinished.update(judgement.judged["unit"])
        wholes = {d.upstream.name for d in asset.dependencies if d.is_whole}
        lean = {n: view.lean(whole=n in wholes) for n, view in views.items()}
        return Part(to_make, judgement, state.lean(), lean, gone, share)

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

    async def _finish(self, asset: Asset[..., Any], definition: Definition, work: Work) -> None:
        """Hand down what is unfinished; note the asset as settled when nothing is."""
        project = self.project
        unfinished = work.unfinished | work.guard.withheld
        work.result.partitions = work.partitions(unfinished)
        above = any(up in self.unfinished for up in project.graph.upstream(asset.name))
        if work.alone and not (unfinished or work.result.failed or above):
            one = Ended(asset, definition, work)
            await (self._settling.ask(one) if work.judged <= SMALL else self._settle([one]))
            return
        if work.alone:
            async with project.engine.connect() as connection:
                await self.standing.know(connection, asset.name, work.last)
        else:
            self.standing.slices.pop(asset.name, None)
        self.standing.sizes.pop(asset.name, None)
        units = self.unfinished[asset.name] = pl.Series("unit", list(unfinished), pl.Binary)
        part = work.part  # of an asset in partitions there is one
        again = part.judgement.judged.filter(pl.col("unit").is_in(units.implode()))
        found = open_partitions(asset, again, part.views, part.state.there) if work.alone else None
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
                    units += part.beside(work.part.state.made)
                    documents += work.marks[identifier].documents - work.part.state.documents.height
                self.standing.sizes[name] = documents
                settled = settled_with(project, name, definition, work.marks, self.moment, oldest.get(identifier))
                found.append(Settled(identifier, settled, units, documents, work.last))
            await lineage.settle_all(connection, project.environment_id, found)
        return [None] * len(ended)
