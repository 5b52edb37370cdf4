"""Execution: how does a plan become documents?

A `Run` takes in what changed in the sources and makes assets, one step each. The walk of one asset: read what it is made of,
judge its units again (an upstream may have been made again with the same result), take back what an earlier recipe made, leave
out what is gone, and make the rest in batches. Nothing here knows of Prefect: `flow` calls `Run.perform` inside its tasks.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, NamedTuple, TypeVar

import polars as pl

from assetcore import sources
from assetcore.assets import Asset, Source
from assetcore.batches import LARGEST_BATCH, TRACED_KEYS, Work
from assetcore.budget import Budget
from assetcore.collectors import collector_for
from assetcore.documents import Document
from assetcore.errors import AssetcoreError, SourceError, StorageError
from assetcore.ferry import Ferry
from assetcore.guard import Guard
from assetcore.judgement import AssetState, Choice, judge_chosen
from assetcore.keep import Defined, Draft, Earlier, Keeper, facts_of
from assetcore.lineage import commit as lineage
from assetcore.lineage import damage, read, spans, undeclared
from assetcore.lineage.commit import Committed, Overtaken, Reused, Settled
from assetcore.lineage.heads import at_one_moment
from assetcore.lineage.schema import Connection
from assetcore.partitions import Moment
from assetcore.plan import source_changes, without_lost
from assetcore.pools import Pools
from assetcore.project import Project
from assetcore.results import AssetResult, Event, Failure, Say
from assetcore.runners import Runner, runner_for
from assetcore.slices import Slice
from assetcore.snapshot import Read, asset_states, is_settled, observed_digest, settled_with, source_unit
from assetcore.staleness import Definition, rows_where
from assetcore.storage import DamagedObjectError, run_timestamp
from assetcore.telemetry import Recorder, Span
from assetcore.units import View, open_partitions
from assetcore.verify import note_damage

__all__ = ["Run", "walk"]

BATCH_BYTES = 16 << 20
"""Bytes of a source that are taken in by one commit."""
ATTEMPTS = 5
NEVER = read.Watermark(settled={})
"""Of an asset that nothing was ever committed to."""
SMALL = 1024
"""Assets of so many documents are read together with others: neither is any statement long, nor memory."""
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


class Arrived(NamedTuple):
    """What lineage knows of a source when a run comes to it: its last commit, its documents (those that are lost as such), its units."""

    last: int
    documents: pl.DataFrame
    units: pl.DataFrame


class Ended(NamedTuple):
    """An asset of which everything was made that there was to make."""

    asset: Asset[..., Any]
    definition: Definition
    work: Work


@dataclass(slots=True)
class Run:
    """One execution of a plan.

    `slices` are the plan's, widened as documents appear; `_changed` says at which commit each asset last changed as far as this run knows.
    An asset of which another run has changed something meanwhile has no slice any more, and what is below it is looked at as a whole.
    """

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
    slices: dict[str, Slice] = field(init=False)
    _changed: dict[int, int] = field(init=False)
    keeper: Keeper = field(init=False)
    runner: Runner = field(init=False)
    pools: Pools = field(init=False)
    recorder: Recorder = field(init=False)
    _sizes: dict[str, int] = field(init=False)
    _sights: Ferry[str, Seen] = field(init=False)
    _marks: Ferry[Collection[int], Mapping[int, read.Watermark]] = field(init=False)
    _settling: Ferry[Ended, None] = field(init=False)
    _arrivals: Ferry[str, Arrived] = field(init=False)
    _settling_sources: Ferry[tuple[Source, int], None] = field(init=False)

    def __post_init__(self) -> None:
        identifiers, marks = self.project.asset_ids, self.found.marks
        self._sizes = {n: m.documents for n, i in identifiers.items() if (m := marks.get(i, NEVER)).settled is not None}
        self._sights = Ferry(self._see)
        self._marks = Ferry(self._read_marks)
        self._settling = Ferry(self._settle)
        self._arrivals = Ferry(self._see_sources)
        self._settling_sources = Ferry(self._settle_sources)
        self.keeper = Keeper(self.project, self.id, run_timestamp(self.started))
        self.slices = dict(self.found.snapshot.slices)
        self._changed = {identifier: mark.changed for identifier, mark in self.found.marks.items()}
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
                await (self._take_in(asset, result) if isinstance(asset, Source) else self._make(asset, result))
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
        ferries = (self._sights, self._marks, self._settling, self._arrivals, self._settling_sources)
        for ferry in (*ferries, self.keeper):
            await ferry.close()
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

    # -- sources ---------------------------------------------------------------------------------------------------------------

    async def _take_in(self, source: Source, result: AssetResult) -> None:
        """Keep the bytes of what is new or changed, and note what is gone."""
        project, name = self.project, source.name
        alone = [] if self._is_small(name) else await self._see_sources([name])
        last, known, heads = alone[0] if alone else await self._arrivals.ask(name)
        observed = self._observed(name)
        _, fresh, gone = source_changes(name, observed, known)
        sound = fresh
        if self.choice.force and name in self.choice.assets:
            async with project.engine.connect() as connection:
                stored = await read.stored(connection, known["document"].to_list())
            broken = known.filter(pl.col("document").is_in(list(await self.keeper.broken(stored))))
            lost = observed.join(broken.select("name"), on="name", how="semi")
            sound = fresh.join(lost, on="name", how="anti")
            fresh = pl.concat([sound, lost.select(fresh.columns)])
        earlier = await self.keeper.reusable(source, 0, sound["identity"].to_list(), None)
        was = dict(heads.select("unit", "materialization").iter_rows())
        total = fresh.height + gone.height
        reused: list[Reused] = []
        wanted: dict[str, bytes] = {}
        for document, key in fresh.select("name", "identity").iter_rows():
            unit = source_unit(document)
            same = next((m for u, m in earlier.get(key, []) if u == unit), None)
            if same is not None:
                reused.append(Reused(unit, document, same, was.get(unit)))
            else:
                wanted[document] = key
        removed = [(unit, was[unit]) for unit in gone["unit"]]
        if reused or removed:
            last = self._next(source, last, await self.keeper.commit(source, None, 0, reused=reused, removed=removed))
        result.reused, result.removed = len(reused), len(removed)
        done = len(reused) + len(removed)
        pending: list[Document] = []
        size = 0
        try:
            async for document in self._read_now(source, tuple(wanted)):
                pending.append(document)
                size += len(document.content)
                if len(pending) >= LARGEST_BATCH or size > BATCH_BYTES:
                    last = self._next(source, last, await self._commit_documents(source, pending, was))
                    for one in pending:
                        del wanted[one.name]
                    result.taken_in += len(pending)
                    done += len(pending)
                    self.tell(Event("progress", name, done, total))
                    pending, size = [], 0
            if pending:
                last = self._next(source, last, await self._commit_documents(source, pending, was))
                result.taken_in += len(pending)
                for one in pending:
                    del wanted[one.name]
        except StorageError as error:
            self._fail(name, error)
        if wanted:  # what could not be taken in is unfinished: what is made of it, and of all documents, waits
            self.unfinished[name] = pl.Series("unit", [source_unit(n) for n in wanted], pl.Binary)
        await self._settle_source(source, last)

    async def _read_now(self, source: Source, names: Collection[str]) -> AsyncIterator[Document]:
        """The documents of these names that can be read; the others are told as a failure."""
        try:
            async for document in sources.documents(source, self.project.root, names, settings=self.project.settings):
                yield document
        except SourceError as error:
            self._fail(source.name, error)

    def _fail(self, name: str, error: AssetcoreError) -> None:
        """Note what kept a step from being finished, apart from units that fail for themselves; other steps go on."""
        self.results[name].failed += 1
        self.failures.append(Failure(name, name, str(error), ""))
        self.tell(Event("unit-failed", name, text=f"{name}: {error}"))

    async def _commit_documents(
        self, source: Source, documents: Sequence[Document], was: Mapping[bytes, int | None]
    ) -> Committed:
        base = await self.keeper.allocate()
        drafts = [
            Draft(source_unit(d.name), d.name, None, key, [d], (), (), 0.0, was.get(source_unit(d.name)), (), seen=seen)
            for d, key, seen in self._as_seen(source, documents)
        ]
        made, objects = await self.keeper.store(source, base, drafts)
        return await self.keeper.commit(source, None, 0, base=base, made=made, objects=objects)

    def _as_seen(
        self, source: Source, documents: Sequence[Document]
    ) -> Iterator[tuple[Document, bytes, lineage.Seen | None]]:
        """Documents with their identities, and how they were seen where that is what was read."""
        type_name = source.output.type_name
        found = self.found.observed[source.name].filter(pl.col("name").is_in([d.name for d in documents]))
        shown = {row[0]: row for row in found.select("name", "identity", *lineage.Seen._fields).iter_rows()}
        for document in documents:
            key = facts_of(document, type_name)[-1]
            _, seen_key, *seen = shown.get(document.name, (None, None))
            yield document, key, lineage.Seen(*seen) if seen_key == key else None

    def _observed(self, name: str) -> pl.DataFrame:
        """What was observed of a source, as far as it needs a look."""
        observed = self.found.observed[name]
        return self.slices[name].seen(observed) if name in self.slices else observed

    def _next(self, source: Source, last: int, committed: Committed) -> int:
        """The number of a commit to a source; where it does not follow the last one, another run was there."""
        if committed.after != last:
            self.slices.pop(source.name, None)
        return committed.number

    async def _see_sources(self, names: Sequence[str]) -> list[Arrived]:
        """Sources as lineage knows them. One of which only a slice needs a look comes alone."""
        project, environment = self.project, self.project.environment_id
        identifiers = [project.asset_ids[name] for name in names]
        async with project.engine.connect() as connection:
            marks = await read.watermarks(connection, environment, identifiers)
            last = {i: marks.get(i, read.Watermark()).last for i in identifiers}
            for name, identifier in zip(names, identifiers, strict=True):
                if last[identifier] != self.found.marks.get(identifier, read.Watermark()).last:
                    self.slices.pop(name, None)
            part = self.slices.get(names[0])
            units = part.units if part is not None else None
            documents = await read.current_documents(connection, environment, identifiers, units=units, in_parts=())
            lost = await damage.current_damage(connection, environment, identifiers)
            heads = await read.made_units(connection, environment, identifiers, units=units)
        return [Arrived(last[i], without_lost(documents[i], lost), heads[i]) for i in identifiers]

    def _is_small(self, name: str) -> bool:
        """Whether a source is known to be small, and is looked at as a whole: then it is looked at together with others."""
        size = self._sizes.get(name)
        return name not in self.slices and size is not None and size <= SMALL

    async def _settle_source(self, source: Source, last: int) -> None:
        """A source is settled when lineage holds exactly what was observed."""
        small = self._is_small(source.name) and self.found.observed[source.name].height <= SMALL
        self._sizes.pop(source.name, None)
        await (self._settling_sources.ask((source, last)) if small else self._settle_sources([(source, last)]))

    async def _settle_sources(self, ended: Sequence[tuple[Source, int]]) -> list[None]:
        """As `_settle_source`. One of which only a slice needs a look comes alone."""
        project, environment = self.project, self.project.environment_id
        identifiers = {source.name: project.asset_ids[source.name] for source, _ in ended}
        part = self.slices.get(ended[0][0].name)
        found: list[Settled] = []
        async with project.engine.begin() as connection:
            marks = await read.watermarks(connection, environment, identifiers.values())
            for source, last in ended:
                self._note(source.name, last, marks)
            units = part.units if part is not None else None
            known = await read.current_identities(connection, environment, identifiers.values(), units=units)
            for source, last in ended:
                name, identifier = source.name, identifiers[source.name]
                if not known[identifier]["identity"].sort().equals(self._observed(name)["identity"].sort()):
                    continue  # something changed while it was read; the next plan sees it
                observed = self.found.observed[name]
                count = self._sizes[name] = observed.height
                found.append(Settled(identifier, {"observed": observed_digest(observed)}, count, count, last))
            if found:
                await lineage.settle_all(connection, environment, found)
        return [None] * len(ended)

    async def _know(self, connection: Connection, name: str, last: int) -> None:
        """Remember at which commit a step's asset changed last, if the last one is the step's own; otherwise its slice is void."""
        identifier = self.project.asset_ids[name]
        self._note(name, last, await read.watermarks(connection, self.project.environment_id, [identifier]))

    def _note(self, name: str, last: int, marks: Mapping[int, read.Watermark]) -> None:
        identifier = self.project.asset_ids[name]
        mark = marks.get(identifier, read.Watermark())
        if mark.last == last:
            self._changed[identifier] = mark.changed
        else:
            self.slices.pop(name, None)

    # -- assets ----------------------------------------------------------------------------------------------------------------

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
        part = self.slices.get(name)
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
        sizes = [self._sizes.get(n) for n in (name, *self._needed(name))]
        if name not in self.slices and all(size is not None and size <= SMALL for size in sizes):
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
            self.slices.pop(name, None)
            states = await asset_states(
                project, connection, {*needed, name}, {name: definition}, self.moment, judged={name}, named=named
            )
            return marks, states[name], {n: self._view(n, states[n].documents) for n in needed}
        within = [n for n in needed if n in self.slices]
        units = pl.concat([self.slices[n].units for n in within]).unique()
        states = await asset_states(project, connection, within, {}, self.moment, units=units, judged=(), named=named)
        states = {n: replace(found, documents=self.slices[n].of(found.documents)) for n, found in states.items()}
        part = self.slices[name] = self.slices[name].widened(states[graph.chain(name)[1]].documents["address"])
        states |= await asset_states(
            project, connection, [n for n in needed if n not in self.slices], {}, self.moment, judged=(), named=named
        )
        states |= await asset_states(
            project, connection, [name], {name: definition}, self.moment, units=part.units, judged={name}, named=()
        )
        return marks, states[name], {n: self._view(n, states[n].documents) for n in needed}

    def _has_slice(self, name: str, needed: Collection[str], marks: Mapping[int, read.Watermark]) -> bool:
        """Whether only the slice of an asset needs a look: nobody but this run has changed it, or what it is made of, since the plan."""
        if name not in self.slices:
            return False
        project, roots, empty = self.project, self.found.snapshot.how.roots, read.Watermark()
        own = project.asset_ids[name]
        if marks.get(own, empty).last != self.found.marks.get(own, empty).last:
            return False
        if any(n in roots and n not in self.slices for n in needed):
            return False
        identifiers = [project.asset_ids[n] for n in needed]
        return all(marks.get(i, empty).changed == self._changed.get(i, 0) for i in identifiers)

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
                await self._know(connection, asset.name, work.last)
        else:
            self.slices.pop(asset.name, None)
        self._sizes.pop(asset.name, None)
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
                self._note(one.asset.name, one.work.last, marks)
            parts = {one.asset.name: self.slices.get(one.asset.name) for one in ended}
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
                self._sizes[name] = documents
                settled = settled_with(project, name, definition, work.marks, self.moment, oldest.get(identifier))
                found.append(Settled(identifier, settled, units, documents, work.last))
            await lineage.settle_all(connection, project.environment_id, found)
        return [None] * len(ended)
