"""Execution: how does a plan become documents?

A `Run` takes in what changed in the sources and makes assets, one step each. The walk of one asset: read what it is made of,
judge its units again (an upstream may have been made again with the same result), take back what an earlier recipe made, leave
out what is gone, and make the rest in batches: call, store bytes, store the manifest, commit. A batch is the unit of memory, of a
transaction, and of what a crash can lose. Nothing here knows of Prefect: `flow` calls `Run.perform` inside its tasks.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Literal, TypeVar

import polars as pl
from sqlalchemy.ext.asyncio import AsyncConnection

from assetcore import sources
from assetcore.assets import Asset, Dependency, Source
from assetcore.calls import Call, Outcome, Processes, call_async, call_sync
from assetcore.digest import sequence_digest, short_digest
from assetcore.documents import Document, field_digests, identity
from assetcore.errors import AssetcoreError, SourceError
from assetcore.lineage import commit as lineage
from assetcore.lineage import read
from assetcore.lineage.commit import Batch, Failed, Made, NewDocument, NewObject, Overtaken, Reused
from assetcore.lineage.manifest import NAME as MANIFEST
from assetcore.lineage.manifest import encode_manifest
from assetcore.plan import AssetState, Choice, Judgement, judge_asset, source_changes
from assetcore.project import Project
from assetcore.staleness import Definition
from assetcore.storage import Stored, encode_pack, object_key, run_timestamp
from assetcore.storage.formats import jsonable_fields
from assetcore.units import View, document_address
from assetcore.values import decode, decode_many

__all__ = ["AssetResult", "Event", "Failure", "Run", "Say", "asset_states", "observe", "walk"]

FIRST_BATCH = 64
LARGEST_BATCH = 8192
BATCH_BYTES = 48 << 20
OWN_OBJECT_BYTES = 4 << 20
PROCESS_PAYS_SECONDS = 2.0
"""Work left in a sync asset above which processes are worth their start."""
ATTEMPTS = 5

Kind = Literal["observed", "planned", "asset-started", "progress", "asset-finished", "unit-failed", "waiting", "message"]


@dataclass(frozen=True, slots=True)
class Event:
    """Something to show while a run goes on."""

    kind: Kind
    asset: str = ""
    done: int = 0
    total: int = 0
    text: str = ""


Say = Callable[[Event], None]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Failure:
    """A unit that failed."""

    asset: str
    unit: str
    error: str
    traceback: str

    def to_json(self) -> dict[str, Any]:
        return {"asset": self.asset, "unit": self.unit, "error": self.error, "traceback": self.traceback}


@dataclass(slots=True)
class AssetResult:
    """What a run did to one asset, in units."""

    asset: str
    made: int = 0
    unchanged: int = 0
    reused: int = 0
    fresh: int = 0
    removed: int = 0
    failed: int = 0
    skipped: int = 0
    seconds: float = 0.0
    keys: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return {
            "asset": self.asset, "made": self.made, "unchanged": self.unchanged, "reused": self.reused, "fresh": self.fresh,
            "removed": self.removed, "failed": self.failed, "skipped": self.skipped,
        }  # fmt: skip


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


async def observe(project: Project, name: str, *, rehash: bool = False) -> pl.DataFrame:
    """Look at a source: a row a document. What was found is remembered, so that only what differs is read next time."""
    source = project.graph.assets[name]
    if not isinstance(source, Source):
        raise AssetcoreError(f"{name} is not a source.")
    identifier = project.asset_ids[name]
    async with project.engine.connect() as connection:
        known = await read.observations(connection, identifier)
    observed = await sources.observe(source, project.root, known.rename({"field_digests": "fields"}), rehash=rehash)
    observed = observed.rename({"fields": "field_digests"}).select(known.columns)
    if not observed.equals(known):
        async with project.engine.begin() as connection:
            await lineage.keep_observation(connection, identifier, known, observed)
    return observed


def changed_commits(project: Project, name: str, marks: Mapping[int, read.Watermark]) -> dict[str, int]:
    """At which commit each asset that `name` is made of last changed; by identifier, which a renamed asset keeps."""
    identifiers = [project.asset_ids[up] for up in project.graph.upstream(name)]
    return {str(i): marks[i].changed if i in marks else 0 for i in identifiers}


def observed_digest(observed: pl.DataFrame) -> str:
    """One value for all that was observed of a source."""
    return sequence_digest("observed", observed["identity"]).hex()


def as_documents(observed: pl.DataFrame, known: pl.DataFrame) -> pl.DataFrame:
    """What was observed, as documents (`units.DOCUMENTS`): those that lineage knows keep their identifiers."""
    facts = known.select("name", "document", "address", "unit", "position", pl.col("identity").alias("was"))
    joined = observed.join(facts, on="name", how="left", maintain_order="left")
    units = [u or source_unit(n) for u, n in joined.select("unit", "name").iter_rows()]
    addresses = [a or document_address(u, n) for a, u, n in zip(joined["address"], units, joined["name"], strict=True)]
    return joined.select(
        pl.when(pl.col("identity") == pl.col("was")).then("document").otherwise(None).alias("document"),
        pl.Series("address", addresses, pl.Binary), pl.Series("unit", units, pl.Binary), pl.col("name").alias("label"), "name",
        pl.lit(1, pl.Int64).alias("position"), "identity", pl.lit(value=False).alias("pending"), "media_type", "sha256", "field_digests",
    ).sort("label", "position", "name", "address")  # fmt: skip


def source_unit(name: str) -> bytes:
    """The unit of one observed document."""
    return short_digest("source", name)


async def asset_states(
    project: Project, connection: AsyncConnection, names: Iterable[str], definitions: Mapping[str, Definition]
) -> dict[str, AssetState]:
    """The state of these assets, in a number of statements that does not depend on the number of units."""
    identifiers = {n: project.asset_ids[n] for n in names}
    assets = list(identifiers.values())
    documents = await read.current_documents(connection, project.environment_id, assets)
    made = await read.made_units(connection, project.environment_id, assets)
    known = await read.definitions(connection, assets)
    states: dict[str, AssetState] = {}
    for name, identifier in identifiers.items():
        frame = await _with_values(project, connection, name, documents[identifier])
        current = next(
            (i for i, d in known[identifier].items() if name in definitions and d.digest == definitions[name].digest), None
        )
        states[name] = AssetState(made[identifier], frame, current, known[identifier])
    return states


async def _with_values(project: Project, connection: AsyncConnection, name: str, documents: pl.DataFrame) -> pl.DataFrame:
    """The documents with the values of the fields by which some asset groups them: they are in the packs, not in Postgres."""
    fields = project.graph.consumers_of_fields(name)
    if not fields:
        return documents
    stored = await read.stored(connection, documents["document"].to_list())
    wanted = [stored[d] for d in documents["document"]]
    for one in sorted(fields):
        values = await project.reader.column(wanted, one)
        documents = documents.with_columns(pl.Series(f"value:{one}", values, strict=False))
    return documents


@dataclass(slots=True)
class Run:
    """One execution of a plan."""

    project: Project
    id: str
    started: datetime
    choice: Choice
    observed: Mapping[str, pl.DataFrame]
    say: Say
    results: dict[str, AssetResult] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    unfinished: dict[str, pl.Series] = field(default_factory=dict)
    progress: dict[str, float] = field(default_factory=dict)
    _processes: Processes | None = None

    @property
    def stamp(self) -> str:
        return run_timestamp(self.started)

    async def perform(self, name: str) -> AssetResult:
        """Take in a source, or make an asset; judged again when another run was faster."""
        self.say(Event("asset-started", name))
        started = time.perf_counter()
        asset = self.project.graph.assets[name]
        result = self.results[name] = AssetResult(name)
        for attempt in range(ATTEMPTS):
            try:
                await (self._take_in(asset) if isinstance(asset, Source) else self._make(asset, result))
                break
            except Overtaken:
                if attempt == ATTEMPTS - 1:
                    raise AssetcoreError(f"{name}: other runs keep making the same units.", hint="Run again when they have ended.") from None
        result.seconds = time.perf_counter() - started
        self.say(Event("asset-finished", name, result.made + result.unchanged, text=_summary(result)))
        return result

    def close(self) -> None:
        if self._processes is not None:
            self._processes.close()
            self._processes = None

    # -- sources ---------------------------------------------------------------------------------------------------------------

    async def _take_in(self, source: Source) -> None:
        """Keep the bytes of what is new or changed, and note what is gone."""
        project, name = self.project, source.name
        identifier = project.asset_ids[name]
        async with project.engine.connect() as connection:
            marks = await read.watermarks(connection, project.environment_id)
            known = (await read.current_documents(connection, project.environment_id, [identifier]))[identifier]
            heads = (await read.made_units(connection, project.environment_id, [identifier]))[identifier]
            _, fresh, gone = source_changes(name, self.observed[name], known)
            earlier = await read.reusable(connection, identifier, 0, fresh["identity"].to_list())
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
        last = marks[identifier].last if identifier in marks else 0
        if reused or removed:
            last = await self._commit(source, None, 0, reused=reused, removed=removed)
        done = len(reused) + len(removed)
        pending: list[Document] = []
        size = 0
        try:
            async for document in sources.documents(source, project.root, wanted):
                pending.append(document)
                size += len(document.content)
                if len(pending) >= LARGEST_BATCH or size > BATCH_BYTES:
                    last = await self._commit_documents(source, pending, was)
                    done += len(pending)
                    self.say(Event("progress", name, done, total))
                    pending, size = [], 0
        except SourceError as error:  # what could be read is kept, and what depends on it is made
            self.failures.append(Failure(name, name, str(error), ""))
            self.results[name].failed += 1
            self.say(Event("unit-failed", name, text=str(error)))
        if pending:
            last = await self._commit_documents(source, pending, was)
        await self._settle_source(source, last)

    async def _commit_documents(self, source: Source, documents: Sequence[Document], was: Mapping[bytes, int | None]) -> int:
        async with self.project.engine.connect() as connection:
            base = await lineage.allocate(connection)
        drafts = [
            _Draft(source_unit(d.name), d.name, None, _facts(d, source.output.type_name)[-1], [d], (), (), 0.0, was.get(source_unit(d.name)), ())
            for d in documents
        ]
        made, objects = await self._store(source, base, drafts)
        return await self._commit(source, None, 0, base=base, made=made, objects=objects)

    async def _settle_source(self, source: Source, last: int) -> None:
        """A source is settled when lineage holds exactly what was observed."""
        project, identifier = self.project, self.project.asset_ids[source.name]
        async with project.engine.begin() as connection:
            documents = (await read.current_documents(connection, project.environment_id, [identifier]))[identifier]
            observed = self.observed[source.name]
            if sorted(documents["identity"].to_list()) != sorted(observed["identity"].to_list()):
                return  # something changed while it was read; the next plan sees it
            settled = {"observed": observed_digest(observed)}
            count = documents.height
            await lineage.settle(connection, project.environment_id, identifier, settled, units=count, documents=count, last=last)

    # -- assets ----------------------------------------------------------------------------------------------------------------

    async def _make(self, asset: Asset[..., Any], result: AssetResult) -> None:
        project, name = self.project, asset.name
        definition = project.definition(name)
        async with project.engine.begin() as connection:
            definition_id = await lineage.keep_definition(
                connection, project.asset_ids[name], definition, project.fingerprint(name).parts
            )
        async with project.engine.connect() as connection:
            marks, state, views = await self._read(connection, asset, definition)
            force = self.choice.force and name in self.choice.assets
            judgement = judge_asset(asset, project.graph, views, definition, state, force=force)
            chosen = self.choice.narrow(name, judgement.judged)
            to_make = chosen.filter((pl.col("status") == "stale") & ~pl.col("blocked"))
            skipped = chosen.filter(pl.col("blocked") & (pl.col("status") != "removed"))
            removed = chosen.filter(pl.col("status") == "removed")
            reuse = {} if force else await read.reusable(
                connection, project.asset_ids[name], definition_id, to_make["inputs"].to_list()
            )  # fmt: skip
        result.fresh = chosen.filter(pl.col("status") == "fresh").height
        result.skipped, result.removed = skipped.height, removed.height
        last = marks[project.asset_ids[name]].last if project.asset_ids[name] in marks else 0
        work = _Work(self, asset, definition, definition_id, judgement, state, marks, views, result, last)
        gone = [(unit, was) for unit, was in removed.select("unit", "materialization").iter_rows() if was is not None]
        to_make = await work.take_back(to_make, reuse, gone)
        firsts = to_make if force else to_make.unique("inputs", keep="first", maintain_order=True)
        await work.make(firsts)
        if firsts.height < to_make.height:  # units of one recipe are executed once
            again = to_make.join(firsts.select("unit"), on="unit", how="anti", maintain_order="left")
            async with project.engine.connect() as connection:
                reuse = await read.reusable(connection, project.asset_ids[name], definition_id, again["inputs"].to_list())
            await work.make(await work.take_back(again, reuse, []))
        await self._finish(asset, definition, work)

    async def _read(
        self, connection: AsyncConnection, asset: Asset[..., Any], definition: Definition
    ) -> tuple[dict[int, read.Watermark], AssetState, dict[str, View]]:
        """Watermarks, the asset's own state, and the views of what it is made of, as of one moment."""
        project, graph = self.project, self.project.graph
        await connection.execution_options(isolation_level="REPEATABLE READ")
        marks = await read.watermarks(connection, project.environment_id)
        needed = {n for up in graph.upstream(asset.name) for n in graph.chain(up)}
        states = await asset_states(project, connection, {*needed, asset.name}, {asset.name: definition})
        views = {n: self._view(n, states[n].documents) for n in needed}
        return marks, states[asset.name], views

    def _view(self, name: str, documents: pl.DataFrame) -> View:
        """The documents of an asset; those of units that this run could not finish are pending."""
        unfinished = self.unfinished.get(name)
        if unfinished is None:
            return View(documents)
        return View(documents.with_columns(pl.col("unit").is_in(unfinished.implode()).alias("pending")), open=True)

    async def _finish(self, asset: Asset[..., Any], definition: Definition, work: _Work) -> None:
        """Hand down what is unfinished; note the asset as settled when nothing is."""
        project, identifier = self.project, self.project.asset_ids[asset.name]
        stale = work.judgement.judged.filter(pl.col("status").is_in(["stale", "pending"]))["unit"]
        done = set(work.finished)
        unfinished = [u for u in stale if u not in done]
        above = any(up in self.unfinished for up in project.graph.upstream(asset.name))
        if unfinished or work.result.failed or above:
            self.unfinished[asset.name] = pl.Series("unit", unfinished, pl.Binary)
            return
        settled = {
            "definition": definition.digest.hex(),
            "upstream": changed_commits(project, asset.name, work.marks),
        }
        async with project.engine.begin() as connection:
            units, documents = await read.counts(connection, project.environment_id, identifier)
            await lineage.settle(
                connection, project.environment_id, identifier, settled, units=units, documents=documents, last=work.last
            )

    # -- storing ---------------------------------------------------------------------------------------------------------------

    async def _store(self, asset: Asset[..., Any], base: int, drafts: Sequence[_Draft]) -> tuple[list[Made], list[NewObject]]:
        """Write the bytes of new documents: small ones as one pack, those of their own as objects; returns what to commit."""
        output = asset.output
        whole = self.project.graph.driver(asset.name) is None and not isinstance(asset, Source) and not output.many
        packed: list[tuple[_Draft, Document, bytes]] = []
        own: list[tuple[_Draft, Document, bytes]] = []
        for draft in drafts:
            for document in draft.documents:
                facts = _facts(document, output.type_name)
                if facts[-1] in {known for _, known in draft.before}:
                    continue
                apart = whole or asset.options.layout == "files" or len(document.content) > OWN_OBJECT_BYTES
                (own if apart else packed).append((draft, document, facts[-1]))
        objects: list[NewObject] = []
        places: dict[tuple[bytes, str], tuple[int, int | None, Mapping[str, Any] | None]] = {}
        counter = iter(range(base, base + (1 << 20)))
        if packed:
            data = await asyncio.to_thread(encode_pack, [document for _, document, _ in packed])
            found = NewObject(next(counter), self._key(asset, f"pack-{base >> 20:08d}.parquet"), len(data), len(packed))
            await self.project.bucket.write(found.key, data)
            objects.append(found)
            places.update({(d.unit, doc.name): (found.id, row, None) for row, (d, doc, _) in enumerate(packed)})
        for draft, document, _ in own:
            key = self._key(asset, _artifact_name(document, None if whole else document_address(draft.unit, document.name)))
            found = NewObject(next(counter), key, len(document.content), None)
            await self.project.bucket.write(found.key, document.content)
            objects.append(found)
            places[draft.unit, document.name] = (found.id, None, jsonable_fields(document) if document.field_names() else None)
        made = [_made(draft, output.type_name, places, counter) for draft in drafts]
        self.results.setdefault(asset.name, AssetResult(asset.name)).keys.extend(o.key for o in objects)
        return made, objects

    async def _commit(
        self, asset: Asset[..., Any], definition: Definition | None, definition_id: int, *, base: int | None = None,
        made: Sequence[Made] = (), reused: Sequence[Reused] = (), removed: Sequence[tuple[bytes, int | None]] = (),
        failed: Sequence[Failed] = (), objects: Sequence[NewObject] = (),
    ) -> int:  # fmt: skip
        """Manifest, then one transaction. The bytes are stored before: a crash leaves bytes that nobody knows, never the reverse."""
        project = self.project
        if base is None:
            async with project.engine.connect() as connection:
                base = await lineage.allocate(connection)
        batch = Batch(
            project.id, project.environment_id, project.asset_ids[asset.name], definition_id, self.id,
            self._key(asset, f"{MANIFEST}-{base >> 20:08d}.parquet"), tuple(made), tuple(reused), tuple(removed), tuple(failed),
            tuple(objects),
        )  # fmt: skip
        if made or reused or removed:
            assets = {project.asset_ids[n]: n for n in project.graph.upstream(asset.name)}
            data = await asyncio.to_thread(
                encode_manifest, batch, project=project.name, environment=project.environment, asset=asset.name, assets=assets,
                definition=definition,
            )  # fmt: skip
            await project.bucket.write(batch.manifest, data)
        async with project.engine.begin() as connection:
            return await lineage.commit(connection, batch)

    def _key(self, asset: Asset[..., Any], artifact: str) -> Any:
        return object_key(self.project.name, asset.group, self.stamp, asset.name, artifact)

    def processes(self) -> Processes:
        if self._processes is None:
            self._processes = Processes(self.project.root, self.project.name, self.project.settings.processes)
        return self._processes


@dataclass(frozen=True, slots=True)
class _Draft:
    """A unit that was executed, before its documents are stored. `before` are its current documents: identifier, identity."""

    unit: bytes
    label: str
    parent: str | None
    inputs: bytes
    documents: Sequence[Document]
    edges: tuple[tuple[int, int], ...]
    collected: tuple[tuple[int, int, int], ...]
    seconds: float
    was: int | None
    before: tuple[tuple[int, bytes], ...]


@dataclass(slots=True)
class _Work:
    """The making of one asset's stale units, batch by batch."""

    run: Run
    asset: Asset[..., Any]
    definition: Definition
    definition_id: int
    judgement: Judgement
    state: AssetState
    marks: Mapping[int, read.Watermark]
    views: Mapping[str, View]
    result: AssetResult
    last: int
    finished: list[bytes] = field(default_factory=list)
    _shared: dict[str, Any] = field(default_factory=dict)

    async def take_back(
        self, units: pl.DataFrame, earlier: Mapping[bytes, Sequence[tuple[bytes, int]]], gone: Sequence[tuple[bytes, int | None]]
    ) -> pl.DataFrame:
        """Commit what an earlier materialization with the same recipe made, and what is no longer wanted; returns what is left.

        A recipe that another unit had (a renamed document whose name the function does not see) gives the same documents at
        this unit's address: nothing is executed and no byte is written.
        """
        reused: list[Reused] = []
        copied: dict[bytes, int] = {}
        for unit, label, inputs, was in units.select("unit", "label", "inputs", "materialization").iter_rows():
            same = [m for u, m in earlier.get(inputs, ()) if u == unit]
            if same:
                reused.append(Reused(unit, label, same[0], was))
            elif inputs in earlier:
                copied[unit] = earlier[inputs][0][1]
        base, made = await self._copies(units, copied) if copied else (None, [])
        if reused or made or gone:
            self.last = await self.run._commit(
                self.asset, self.definition, self.definition_id, base=base, made=made, reused=reused, removed=gone
            )
        taken = [*(r.unit for r in reused), *copied]
        self.finished.extend(taken)
        self.result.reused += len(taken)
        return units.filter(~pl.col("unit").is_in(pl.Series("unit", taken, pl.Binary).implode()))

    async def _copies(self, units: pl.DataFrame, copied: Mapping[bytes, int]) -> tuple[int, list[Made]]:
        given: dict[bytes, list[tuple[int, int]]] = {}
        for unit, parameter, document in self.judgement.wanted.given.select("unit", "parameter", "document").iter_rows():
            if unit in copied:
                given.setdefault(unit, []).append((parameter, document))
        async with self.run.project.engine.connect() as connection:
            base = await lineage.allocate(connection)
            documents = await read.documents_of(connection, copied.values())
        numbers = iter(range(base, base + (1 << 20)))
        made: list[Made] = []
        for unit, label, parent, inputs, was in units.select("unit", "label", "parent", "inputs", "materialization").iter_rows():
            if unit not in copied:
                continue
            new = tuple(
                NewDocument(
                    next(numbers), document_address(unit, d.name), d.name, d.type, d.media_type, d.size, d.sha256, d.field_digests,
                    d.identity, d.object_id, d.row, d.fields,
                )
                for d in documents[copied[unit]]
            )  # fmt: skip
            edges = tuple(given.get(unit, ()))
            ids = tuple(d.id for d in new)
            made.append(Made(next(numbers), unit, label, parent, inputs, ids, new, edges, self._collected(), 0.0, was, changed=True))
        return base, made

    async def make(self, units: pl.DataFrame) -> None:
        """Make these units; one commit is under way while the next batch is called."""
        total, done, size = units.height, 0, FIRST_BATCH
        commit: asyncio.Task[None] | None = None
        try:
            while done < total:
                batch = units.slice(done, size)
                started = time.perf_counter()
                drafts, failed = await self._call(batch, left=total - done)
                took = time.perf_counter() - started
                if commit is not None:
                    await commit
                commit = asyncio.create_task(self._keep(drafts, failed))
                done += batch.height
                self.run.progress[self.asset.name] = 100 * done / total
                self.run.say(Event("progress", self.asset.name, done, total))
                size = self._next_size(batch.height, took)
        finally:
            if commit is not None:
                await asyncio.shield(commit)  # what is made is kept, even when the run is being cancelled

    def _next_size(self, size: int, seconds: float) -> int:
        """Batches hold `batch_seconds` of work; sizes grow at most eightfold, so that one odd batch decides little."""
        wanted = size * self.run.project.settings.batch_seconds / max(seconds, 1e-6)
        floor = self.asset.options.concurrency or self.run.project.settings.concurrency
        return int(min(max(wanted, floor), size * 8, LARGEST_BATCH))

    async def _call(self, units: pl.DataFrame, left: int) -> tuple[list[_Draft], list[Failed]]:
        given = self.judgement.wanted.given.join(units.select("unit"), on="unit", how="semi", maintain_order="left")
        by_unit: dict[bytes, dict[int, list[int]]] = {unit: {} for unit in units["unit"]}
        for unit, parameter, document in given.select("unit", "parameter", "document").iter_rows():
            by_unit[unit].setdefault(parameter, []).append(document)
        async with self.run.project.engine.connect() as connection:
            stored = await read.stored(connection, given["document"].unique().to_list())
        calls = await self._calls(units, by_unit, stored)
        outcomes = await self._outcomes(calls, left)
        before = self._before(units)
        collected = self._collected()
        drafts: list[_Draft] = []
        failed: list[Failed] = []
        rows = units.select("unit", "label", "parent", "inputs", "materialization").iter_rows()
        for (unit, label, parent, inputs, was), outcome in zip(rows, outcomes, strict=True):
            if outcome.error is not None:
                failed.append(Failed(unit, label, inputs, outcome.error, outcome.traceback))
                continue
            edges = tuple((p, d) for p, documents in sorted(by_unit[unit].items()) for d in documents)
            drafts.append(
                _Draft(unit, label, parent, inputs, outcome.documents, edges, collected, outcome.seconds, was, before.get(unit, ()))
            )
        return drafts, failed

    async def _keep(self, drafts: Sequence[_Draft], failed: Sequence[Failed]) -> None:
        run = self.run
        async with run.project.engine.connect() as connection:
            base = await lineage.allocate(connection)
        made, objects = await run._store(self.asset, base, drafts)
        self.last = await run._commit(
            self.asset, self.definition, self.definition_id, base=base, made=made, objects=objects, failed=failed
        )
        changed = Counter(m.changed or m.was is None for m in made)
        self.result.made += changed[True]
        self.result.unchanged += changed[False]
        self.result.failed += len(failed)
        self.finished.extend(m.unit for m in made)
        for one in failed:
            failure = Failure(self.asset.name, one.label, one.error, one.traceback)
            run.failures.append(failure)
            run.say(Event("unit-failed", self.asset.name, text=f"{self.asset.name}[{one.label}]: {one.error}"))

    async def _calls(
        self, units: pl.DataFrame, by_unit: Mapping[bytes, Mapping[int, Sequence[int]]], stored: Mapping[int, Stored]
    ) -> list[Call]:
        project, asset = self.run.project, self.asset
        columns: list[tuple[str, list[Any]]] = []
        restricted: dict[str, frozenset[str]] = {}
        for index, dependency in enumerate(asset.dependencies):
            wanted = [[stored[d] for d in by_unit[u].get(index, ())] for u in units["unit"]]
            columns.append((dependency.parameter, await self._values(dependency, wanted)))
            if dependency.fields is not None:
                restricted[dependency.parameter] = dependency.fields
        config = dict(project.config.get(asset.name, {}))
        driver = project.graph.driver(asset.name)
        named = driver is not None and (driver.fields is None or "name" in driver.fields)
        return [
            Call(
                {**{parameter: values[i] for parameter, values in columns}, **config}, label if named else asset.name,
                f"{asset.name}[{label}]", restricted,
            )
            for i, label in enumerate(units["label"])
        ]  # fmt: skip

    async def _values(self, dependency: Dependency, wanted: Sequence[Sequence[Stored]]) -> list[Any]:
        """A parameter's value for each unit of a batch."""
        reader = self.run.project.reader
        if dependency.kind == "each" or dependency.per is not None or dependency.by is not None:
            return await decode_many(replace(dependency, fields=None), reader, wanted)  # restricted where it is called
        if dependency.form == "iterator":
            everything = await self._everything(dependency)
            return [await decode(dependency, reader, everything) for _ in wanted]
        if dependency.parameter not in self._shared:
            self._shared[dependency.parameter] = await decode(dependency, reader, await self._everything(dependency))
        return [self._shared[dependency.parameter]] * len(wanted)

    async def _everything(self, dependency: Dependency) -> list[Stored]:
        documents = self.views[dependency.upstream.name].documents["document"].to_list()
        async with self.run.project.engine.connect() as connection:
            stored = await read.stored(connection, documents)
        return [stored[d] for d in documents]

    async def _outcomes(self, calls: Sequence[Call], left: int) -> list[Outcome]:
        run, asset = self.run, self.asset
        if asset.asynchronous:
            gate = asyncio.Semaphore(asset.options.concurrency or run.project.settings.concurrency)

            async def one(call: Call) -> Outcome:
                async with gate:
                    return await call_async(asset, call, run.project.root)

            return list(await asyncio.gather(*map(one, calls)))
        outcomes: list[Outcome] = []
        spent = 0.0
        for i, call in enumerate(calls):
            if spent / max(i, 1) * (left - i) > PROCESS_PAYS_SECONDS and i > 0 and run.project.settings.processes > 1:
                return outcomes + await self._in_processes(calls[i:])
            outcome = await asyncio.to_thread(call_sync, asset, call, run.project.root)
            spent += outcome.seconds
            outcomes.append(outcome)
        return outcomes

    async def _in_processes(self, calls: Sequence[Call]) -> list[Outcome]:
        processes = self.run.processes()
        share = max(1, -(-len(calls) // (processes.count * 4)))
        parts = [calls[i : i + share] for i in range(0, len(calls), share)]
        return [o for part in await asyncio.gather(*(processes.call(self.asset.name, part) for part in parts)) for o in part]

    def _before(self, units: pl.DataFrame) -> dict[bytes, tuple[tuple[int, bytes], ...]]:
        """What these units currently are: the identifiers and identities of their documents in order."""
        own = self.state.documents.join(units.select("unit"), on="unit", how="semi").sort("unit", "position")
        grouped = own.group_by("unit", maintain_order=True).agg("document", "identity")
        return {unit: tuple(zip(documents, identities, strict=True)) for unit, documents, identities in grouped.iter_rows()}

    def _collected(self) -> tuple[tuple[int, int, int], ...]:
        """The whole assets that every unit is given, each as of its last change."""
        ids = self.run.project.asset_ids
        return tuple(
            (index, ids[d.upstream.name], self.marks[ids[d.upstream.name]].changed if ids[d.upstream.name] in self.marks else 0)
            for index, d in enumerate(self.asset.dependencies)
            if d.kind == "collect" and d.per is None and d.by is None
        )


def _facts(document: Document, type_name: str) -> tuple[str, str, bytes, bytes, bytes]:
    """Name, media type, content hash, digests of the fields, identity."""
    fields = field_digests(document.field_values())
    return (
        document.name, document.media_type, document.sha256, fields,
        identity(type_name, document.name, document.media_type, document.sha256, fields),
    )  # fmt: skip


def _made(
    draft: _Draft, type_name: str, places: Mapping[tuple[bytes, str], tuple[int, int | None, Mapping[str, Any] | None]],
    counter: Iterable[int],
) -> Made:  # fmt: skip
    """What to commit of a unit: documents that are as they were keep their identifiers."""
    numbers = iter(counter)
    known = {identity_: number for number, identity_ in draft.before}
    documents: list[int] = []
    new: list[NewDocument] = []
    for document in draft.documents:
        name, media_type, sha256, fields, key = _facts(document, type_name)
        if key in known:
            documents.append(known[key])
            continue
        object_id, row, values = places[draft.unit, name]
        address = document_address(draft.unit, name)
        new.append(
            NewDocument(
                next(numbers), address, name, type_name, media_type, len(document.content), sha256, fields, key, object_id, row, values
            )
        )
        documents.append(new[-1].id)
    before = [number for number, _ in draft.before]
    return Made(
        next(numbers), draft.unit, draft.label, draft.parent, draft.inputs, tuple(documents), tuple(new), draft.edges, draft.collected,
        draft.seconds, draft.was, documents != before,
    )  # fmt: skip


SUFFIXES = {"application/vnd.apache.parquet": ".parquet", "application/json": ".json"}


def _artifact_name(document: Document, address: bytes | None) -> str:
    """The last part of the key: the document's name, with a suffix where it has none; unique by its address where names repeat."""
    suffix = SUFFIXES.get(document.media_type, "") if not document.suffix else document.suffix
    stem = document.name.removesuffix(suffix) if suffix else document.name
    return f"{stem}{suffix}" if address is None else f"{stem}-{address.hex()[:12]}{suffix}"


def _summary(result: AssetResult) -> str:
    shown = ("made", "unchanged", "reused", "removed", "failed", "skipped")
    return ", ".join(f"{getattr(result, n)} {n}" for n in shown if getattr(result, n)) or "nothing to do"
