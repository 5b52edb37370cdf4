"""Intake: how is what changed in a source taken in?

What is new or differs is read and kept, batch by batch, what is gone is noted, and a source that lineage holds exactly as it was observed
is settled. Small sources whose turn comes at the same moment are read and settled together.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import polars as pl

from assetcore import sources
from assetcore.assets import Source
from assetcore.batches import LARGEST_BATCH
from assetcore.documents import Document
from assetcore.errors import AssetcoreError, SourceError, StorageError
from assetcore.ferry import Ferry
from assetcore.frames import among, rows_where
from assetcore.judgement import Choice
from assetcore.keep import Draft, Facts, Keeper, facts_of
from assetcore.lineage import commit as lineage
from assetcore.lineage import damage, read
from assetcore.lineage.commit import Committed, Reused, Settled
from assetcore.lineage.schema import Connection
from assetcore.observation import observed_digest, source_unit
from assetcore.plan import source_changes, without_lost
from assetcore.project import Project
from assetcore.results import AssetResult, Event, Say
from assetcore.slices import Slice
from assetcore.snapshot import Read
from assetcore.storage import check_fields

__all__ = ["SMALL", "Intake", "Standing"]

BATCH_BYTES = 16 << 20
"""Bytes of a source that are taken in by one commit."""
NEVER = read.Watermark(settled={})
"""Of an asset that nothing was ever committed to."""
SMALL = 1024
"""Assets of so many documents are read together with others: neither is any statement long, nor memory."""


@dataclass(slots=True)
class Standing:
    """What a run knows of assets beside its plan: which slice needs a look, when each changed last, how large it is.

    Slices are the plan's, widened as documents appear. An asset of which another run has changed something meanwhile has no slice any
    more, and what is below it is looked at as a whole.
    """

    project: Project
    found: Read
    slices: dict[str, Slice] = field(init=False)
    changed: dict[int, int] = field(init=False)
    sizes: dict[str, int] = field(init=False)

    def __post_init__(self) -> None:
        identifiers, marks = self.project.asset_ids, self.found.marks
        self.slices = dict(self.found.snapshot.slices)
        self.changed = {identifier: mark.changed for identifier, mark in marks.items()}
        self.sizes = {n: m.documents for n, i in identifiers.items() if (m := marks.get(i, NEVER)).settled is not None}

    async def know(self, connection: Connection, name: str, last: int) -> None:
        """Remember at which commit a step's asset changed last, if the last one is the step's own; otherwise its slice is void."""
        identifier = self.project.asset_ids[name]
        self.note(name, last, await read.watermarks(connection, self.project.environment_id, [identifier]))

    def note(self, name: str, last: int, marks: Mapping[int, read.Watermark]) -> None:
        """As `know`, of watermarks that were read."""
        identifier = self.project.asset_ids[name]
        mark = marks.get(identifier, read.Watermark())
        if mark.last == last:
            self.changed[identifier] = mark.changed
        else:
            self.slices.pop(name, None)

    def is_small(self, name: str) -> bool:
        """Whether an asset is known to be small, and is looked at as a whole: then it is looked at together with others."""
        size = self.sizes.get(name)
        return name not in self.slices and size is not None and size <= SMALL


class Arrived(NamedTuple):
    """What lineage knows of a source when a run comes to it: its last commit, its documents (those that are lost as such), its units."""

    last: int
    documents: pl.DataFrame
    units: pl.DataFrame


@dataclass(slots=True)
class Intake:
    """The taking in of a run's sources. What could not be taken in is told by `fail`, and is `unfinished`."""

    project: Project
    found: Read
    choice: Choice
    keeper: Keeper
    standing: Standing
    unfinished: dict[str, pl.Series]
    tell: Say
    fail: Callable[[str, AssetcoreError], None]
    _arrivals: Ferry[str, Arrived] = field(init=False)
    _settling: Ferry[tuple[Source, int], None] = field(init=False)

    def __post_init__(self) -> None:
        self._arrivals = Ferry(self._see)
        self._settling = Ferry(self._settle_together)

    async def close(self) -> None:
        """End what was begun for those who have gone."""
        for ferry in (self._arrivals, self._settling):
            await ferry.close()

    async def take_in(self, source: Source, result: AssetResult) -> None:
        """Keep the bytes of what is new or changed, and note what is gone. Raises Overtaken."""
        project, name = self.project, source.name
        alone = [] if self.standing.is_small(name) else await self._see([name])
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
        was = dict(heads["unit", "materialization"].iter_rows())
        total = fresh.height + gone.height
        reused: list[Reused] = []
        wanted: set[str] = set()
        for document, key in fresh["name", "identity"].iter_rows():
            unit = source_unit(document)
            same = next((m for u, m in earlier.get(key, []) if u == unit), None)
            if same is not None:
                reused.append(Reused(unit, document, same, was.get(unit)))
            else:
                wanted.add(document)
        removed = [(unit, was[unit]) for unit in gone["unit"]]
        if reused or removed:
            last = self._next(source, last, await self.keeper.commit(source, None, 0, reused=reused, removed=removed))
        result.reused, result.removed = len(reused), len(removed)
        done = len(reused) + len(removed)
        pending: list[Document] = []
        unread = {document for document, _ in self.found.unread.get(name, ())}  # of another class now, and told already
        size = 0
        try:
            async for document in self._read_now(source, sorted(wanted - unread)):
                try:
                    check_fields([document])
                except StorageError as error:
                    self.fail(name, error)
                    continue
                pending.append(document)
                size += len(document.content)
                if len(pending) >= LARGEST_BATCH or size > BATCH_BYTES:
                    last = self._next(source, last, await self._commit_documents(source, pending, was))
                    wanted.difference_update(one.name for one in pending)
                    result.taken_in += len(pending)
                    done += len(pending)
                    self.tell(Event("progress", name, done, total))
                    pending, size = [], 0
            if pending:
                last = self._next(source, last, await self._commit_documents(source, pending, was))
                result.taken_in += len(pending)
                wanted.difference_update(one.name for one in pending)
        except StorageError as error:
            self.fail(name, error)
        if wanted:  # what could not be taken in is unfinished: what is made of it, and of all documents, waits
            self.unfinished[name] = pl.Series("unit", [source_unit(n) for n in sorted(wanted)], pl.Binary)
        await self._settle_source(source, last)

    async def _read_now(self, source: Source, names: Collection[str]) -> AsyncIterator[Document]:
        """The documents of these names that can be read; the others are told as a failure."""
        try:
            async for document in sources.documents(source, self.project.root, names, settings=self.project.settings):
                yield document
        except SourceError as error:
            self.fail(source.name, error)

    async def _commit_documents(
        self, source: Source, documents: Sequence[Document], was: Mapping[bytes, int | None]
    ) -> Committed:
        base = await self.keeper.allocate()
        drafts = [
            Draft(unit, d.name, None, facts[-1], [d], (), (), 0.0, was.get(unit), (), seen=seen, facts=[facts])
            for d, facts, seen in self._as_seen(source, documents)
            for unit in [source_unit(d.name)]
        ]
        made, objects = await self.keeper.store(source, base, drafts)
        return await self.keeper.commit(source, None, 0, base=base, made=made, objects=objects)

    def _as_seen(
        self, source: Source, documents: Sequence[Document]
    ) -> Iterator[tuple[Document, Facts, lineage.Seen | None]]:
        """Documents with their facts, and how they were seen where that is what was read."""
        type_name = source.output.type_name
        observed = self.found.observed[source.name]
        found = rows_where(observed, among(observed["name"], pl.Series([d.name for d in documents], dtype=pl.String)))
        shown = {row[0]: row for row in found[["name", "identity", *lineage.Seen._fields]].iter_rows()}
        for document in documents:
            facts = facts_of(document, type_name)
            _, seen_key, *seen = shown.get(document.name, (None, None))
            yield document, facts, lineage.Seen(*seen) if seen_key == facts[-1] else None

    def _observed(self, name: str) -> pl.DataFrame:
        """What was observed of a source, as far as it needs a look."""
        observed = self.found.observed[name]
        return self.standing.slices[name].seen(observed) if name in self.standing.slices else observed

    def _next(self, source: Source, last: int, committed: Committed) -> int:
        """The number of a commit to a source; where it does not follow the last one, another run was there."""
        if committed.after != last:
            self.standing.slices.pop(source.name, None)
        return committed.number

    async def _see(self, names: Sequence[str]) -> list[Arrived]:
        """Sources as lineage knows them. One of which only a slice needs a look comes alone."""
        project, environment = self.project, self.project.environment_id
        identifiers = [project.asset_ids[name] for name in names]
        async with project.engine.connect() as connection:
            marks = await read.watermarks(connection, environment, identifiers)
            last = {i: marks.get(i, read.Watermark()).last for i in identifiers}
            for name, identifier in zip(names, identifiers, strict=True):
                if last[identifier] != self.found.marks.get(identifier, read.Watermark()).last:
                    self.standing.slices.pop(name, None)
            part = self.standing.slices.get(names[0])
            units = part.units if part is not None else None
            documents = await read.current_documents(connection, environment, identifiers, units=units, in_parts=())
            lost = await damage.current_damage(connection, environment, identifiers)
            heads = await read.made_units(connection, environment, identifiers, units=units)
        return [Arrived(last[i], without_lost(documents[i], lost), heads[i]) for i in identifiers]

    async def _settle_source(self, source: Source, last: int) -> None:
        """A source is settled when lineage holds exactly what was observed."""
        small = self.standing.is_small(source.name) and self.found.observed[source.name].height <= SMALL
        self.standing.sizes.pop(source.name, None)
        await (self._settling.ask((source, last)) if small else self._settle_together([(source, last)]))

    async def _settle_together(self, ended: Sequence[tuple[Source, int]]) -> list[None]:
        """As `_settle_source`. One of which only a slice needs a look comes alone."""
        project, environment = self.project, self.project.environment_id
        identifiers = {source.name: project.asset_ids[source.name] for source, _ in ended}
        part = self.standing.slices.get(ended[0][0].name)
        found: list[Settled] = []
        async with project.engine.begin() as connection:
            marks = await read.watermarks(connection, environment, identifiers.values())
            for source, last in ended:
                self.standing.note(source.name, last, marks)
            units = part.units if part is not None else None
            known = await read.current_identities(connection, environment, identifiers.values(), units=units)
            for source, last in ended:
                name, identifier = source.name, identifiers[source.name]
                if not known[identifier]["identity"].sort().equals(self._observed(name)["identity"].sort()):
                    continue  # something changed while it was read; the next plan sees it
                observed = self.found.observed[name]
                count = self.standing.sizes[name] = observed.height
                found.append(Settled(identifier, {"observed": observed_digest(observed)}, count, count, last))
            if found:
                await lineage.settle_all(connection, environment, found)
        return [None] * len(ended)
