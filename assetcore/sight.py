"""Sight: what does a run see of an asset when it comes to it?

Its definition, watermarks, its own state and the documents of what it is made of, as of one moment. Small assets that are come to at the
same moment are read together. A large one whose units are each made of what descends from one document of a source is seen part by part,
so many of these documents at a time: what is held does not grow with what there is.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import polars as pl

from assetcore.assets import Asset
from assetcore.ferry import Ferry
from assetcore.intake import SMALL, Standing
from assetcore.judgement import AssetState
from assetcore.keep import Defined, Keeper
from assetcore.lineage import read
from assetcore.lineage.asking import by_index
from assetcore.lineage.heads import at_one_moment
from assetcore.lineage.schema import Connection
from assetcore.partitions import Moment
from assetcore.project import Project
from assetcore.slices import root_of
from assetcore.snapshot import Read, asset_states
from assetcore.staleness import Definition
from assetcore.units import DOCUMENTS, View

__all__ = ["Seen", "Sight", "Sighted"]

_NOTHING = pl.DataFrame(schema=DOCUMENTS)
PART = 8192
"""So many documents of a source are looked at together, with what descends from them."""


class Seen(NamedTuple):
    """What is seen at a time: the asset's own state, the documents of what it is made of; which share of all was seen with this."""

    state: AssetState
    views: dict[str, View]
    share: float = 1.0


class Sighted(NamedTuple):
    """An asset as a run comes to it: its definition, watermarks, and the rest of what is known of it, part by part."""

    defined: Defined
    marks: Mapping[int, read.Watermark]
    parts: AsyncIterator[Seen]


class _Together(NamedTuple):
    """A small asset, seen with others."""

    defined: Defined
    marks: Mapping[int, read.Watermark]
    seen: Seen


@dataclass(slots=True)
class Sight:
    """What a run sees. Documents of units that it could not finish (`unfinished`) are pending."""

    project: Project
    found: Read
    keeper: Keeper
    standing: Standing
    moment: Moment
    unfinished: Mapping[str, pl.Series]
    unfinished_partitions: Mapping[str, pl.Series | None]
    _small: Ferry[str, _Together] = field(init=False)

    def __post_init__(self) -> None:
        self._small = Ferry(self._see)

    async def close(self) -> None:
        """End what was begun for those who have gone."""
        await self._small.close()

    async def look(self, asset: Asset[..., Any], definition: Definition) -> Sighted:
        """An asset as it is before it is judged."""
        project, name, needed = self.project, asset.name, self._needed(asset.name)
        sizes = [self.standing.sizes.get(n) for n in (name, *needed)]
        if name not in self.standing.slices and all(size is not None and size <= SMALL for size in sizes):
            defined, marks, seen = await self._small.ask(name)
            return Sighted(defined, marks, _only(seen))
        defined = (await self.keeper.define([asset]))[name]
        async with project.engine.connect() as connection:
            await at_one_moment(connection)
            identifiers = [project.asset_ids[n] for n in {*needed, name}]
            marks = await read.watermarks(connection, project.environment_id, identifiers)
            if self._has_slice(name, needed, marks):
                return Sighted(defined, marks, _only(await self._slice(connection, asset, definition)))
            self.standing.slices.pop(name, None)
            root = root_of(project.graph, name)
            if root is not None and self.found.snapshot.documents[root] > PART:
                tops = await read.units(connection, project.environment_id, project.asset_ids[root])
                known = await read.units(connection, project.environment_id, project.asset_ids[name])
                return Sighted(defined, marks, _Parts(self, asset, definition, root, tops, known))
            states = await asset_states(
                project,
                connection,
                {*needed, name},
                {name: definition},
                self.moment,
                judged={name},
                named=_named(asset),
                placed={d.upstream.name for d in asset.dependencies if d.is_whole},
            )
            return Sighted(defined, marks, _only(self.seen(name, states)))

    async def _see(self, names: Sequence[str]) -> list[_Together]:
        """Small assets as they are, as of one moment, in as many statements as for one."""
        project, graph = self.project, self.project.graph
        needed = {name: self._needed(name) for name in names}
        definitions = {name: project.definition(name) for name in names}
        named = set().union(*(_named(graph.assets[name]) for name in names))
        defined = await self.keeper.define([graph.assets[name] for name in names])
        every = set(names).union(*needed.values())
        async with project.engine.connect() as connection:
            await at_one_moment(connection)
            marks = await read.watermarks(connection, project.environment_id, [project.asset_ids[n] for n in every])
            states = await asset_states(
                project, connection, every, definitions, self.moment, judged=set(names), named=named
            )
        views = {n: self._view(n, states[n].documents) for n in set().union(*needed.values())}
        return [
            _Together(defined[name], marks, Seen(states[name], {n: views[n] for n in needed[name]})) for name in names
        ]

    async def _slice(self, connection: Connection, asset: Asset[..., Any], definition: Definition) -> Seen:
        """The slice of an asset that needs a look; it is widened by the documents that have appeared."""
        project, graph, name = self.project, self.project.graph, asset.name
        slices, needed, named = self.standing.slices, self._needed(name), _named(asset)
        within = [n for n in needed if n in slices]
        units = pl.concat([slices[n].units for n in within]).unique()
        states = await asset_states(project, connection, within, {}, self.moment, units=units, judged=(), named=named)
        states = {n: replace(found, documents=slices[n].of(found.documents)) for n, found in states.items()}
        part = slices[name] = slices[name].widened(states[graph.chain(name)[1]].documents["address"])
        beyond = [n for n in needed if n not in slices]
        states |= await asset_states(project, connection, beyond, {}, self.moment, judged=(), named=named)
        states |= await asset_states(
            project, connection, [name], {name: definition}, self.moment, units=part.units, judged={name}, named=()
        )
        return self.seen(name, states)

    async def descent(
        self, asset: Asset[..., Any], definition: Definition, root: str, tops: pl.Series
    ) -> tuple[dict[str, AssetState], pl.Series]:
        """What descends from these documents of the root, down to the asset: the states, and the units that it should have of them."""
        project, graph, name = self.project, self.project.graph, asset.name
        units, states = tops, dict[str, AssetState]()
        async with project.engine.connect() as connection:
            await at_one_moment(connection)
            await by_index(connection)
            for step in (*graph.ordered(self._needed(name)), name):
                units = tops if step == root else states[graph.chain(step)[1]].documents["address"]
                judged = {name: definition} if step == name else {}
                states |= await asset_states(
                    project, connection, [step], judged, self.moment, units=units, judged=judged, named=_named(asset)
                )
        return states, units

    async def remains(self, asset: Asset[..., Any], definition: Definition, units: pl.Series) -> dict[str, AssetState]:
        """These units of an asset, which are made of nothing that there is."""
        project, name = self.project, asset.name
        async with project.engine.connect() as connection:
            await at_one_moment(connection)
            states = await asset_states(
                project, connection, [name], {name: definition}, self.moment, units=units, judged={name}, named=()
            )
        return dict.fromkeys(self._needed(name), AssetState(_NOTHING, _NOTHING)) | states

    def seen(self, name: str, states: Mapping[str, AssetState], share: float = 1.0) -> Seen:
        """An asset, given its state and those of all that it is made of."""
        return Seen(states[name], {n: self._view(n, states[n].documents) for n in self._needed(name)}, share)

    def _needed(self, name: str) -> set[str]:
        """The assets whose documents say which units an asset has, and what each is given."""
        graph = self.project.graph
        if graph.is_whole(name):  # it is given all of them, whatever they descend from
            return set(graph.upstream(name))
        return {n for up in graph.upstream(name) for n in graph.chain(up)}

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


@dataclass(slots=True)
class _Parts:
    """What descends from the documents of the root (`tops`, their units), so many at a time; and last, of the units that the asset
    had (`known`), those that nothing asks for any more.

    Each part is as of a moment of its own, later than the watermarks: what changes in between is noticed as what changes afterwards.
    Who is interrupted while one is read may go on with the same.
    """

    sight: Sight
    asset: Asset[..., Any]
    definition: Definition
    root: str
    tops: pl.Series
    known: pl.Series
    _start: int = 0

    def __aiter__(self) -> _Parts:
        return self

    async def __anext__(self) -> Seen:
        name, start = self.asset.name, self._start
        if start < max(1, len(self.tops)):  # where there are no documents, that is what is seen
            some = self.tops[start : start + PART]
            states, units = await self.sight.descent(self.asset, self.definition, self.root, some)
            self._start += PART
            if len(self.known):
                self.known = self.known.filter(~self.known.is_in(units.implode()))
            return self.sight.seen(name, states, min(1.0, self._start / max(1, len(self.tops))))
        if not len(self.known):
            raise StopAsyncIteration
        states = await self.sight.remains(self.asset, self.definition, self.known)
        self.known = self.known.clear()
        return self.sight.seen(name, states)


async def _only(seen: Seen) -> AsyncIterator[Seen]:
    yield seen


def _named(asset: Asset[..., Any]) -> set[str]:
    """The assets of which it matters how their documents are called."""
    return {d.upstream.name for d in asset.dependencies if d.is_named}
