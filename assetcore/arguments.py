"""Arguments: what is each unit's function called with?

Documents in the form that a parameter asks for, read together where several units want them, and once where all of them get a whole
asset; config, and the partition.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any

import polars as pl

from assetcore.assets import Asset, Dependency
from assetcore.calls import Call
from assetcore.documents import UnreadableError
from assetcore.judgement import View
from assetcore.keep import Keeper
from assetcore.project import Project
from assetcore.refs import format_ref
from assetcore.storage import Location, Stored
from assetcore.units import partition_key
from assetcore.values import decode, decode_in_parts, decode_many, is_read_in_parts

__all__ = ["Arguments"]

READ_AT_ONCE = 8192
"""Documents of a whole asset that are read at a time into a list or a frame."""
_LYING = ["object", "row", "name", "media_type", "sha256", "size"]


@dataclass(slots=True)
class Arguments:
    """What the units of one asset are called with; `_shared` has by parameter what all of them are given alike, once it is read."""

    project: Project
    keeper: Keeper
    asset: Asset[..., Any]
    _shared: dict[str, Any] = field(default_factory=dict)

    async def calls(
        self,
        views: Mapping[str, View],
        units: pl.DataFrame,
        by_unit: Mapping[bytes, Mapping[int, Sequence[int]]],
        stored: Mapping[int, Stored],
    ) -> list[Call]:
        """A call for each of these units, in their order: by parameter the documents (`stored`) that `by_unit` says, what `views` shows
        of whole assets, config and partition. What cannot be read is an UnreadableError in the place of the value.
        """
        project, asset = self.project, self.asset
        columns: list[tuple[str, list[Any]]] = []
        restricted: dict[str, frozenset[str]] = {}
        wholes = await self._wholes(views)
        for index, dependency in enumerate(asset.dependencies):
            wanted = [[stored[d] for d in by_unit[u].get(index, ())] for u in units["unit"]]
            columns.append((dependency.parameter, await self._values(views, dependency, wanted, wholes)))
            if dependency.fields is not None:
                restricted[dependency.parameter] = dependency.fields
        config = dict(project.config.get(asset.name, {}))
        driver = project.graph.driver(asset.name)
        labelling = [d for d in asset.dependencies if d.cross or d == driver]
        named = bool(labelling) and all(d.fields is None or "name" in d.fields for d in labelling)
        if not labelling:  # a unit of a partition alone goes by it
            named = project.graph.is_by_partition(asset.name)
        partitions = self._partitions(units)
        return [
            Call(
                {**{parameter: values[i] for parameter, values in columns}, **config, **partition},
                label if named else asset.name, format_ref(asset.name, called), restricted,
            )
            for i, (called, label, partition) in enumerate(zip(units["called"], units["label"], partitions, strict=True))
        ]  # fmt: skip

    def _partitions(self, units: pl.DataFrame) -> list[dict[str, Any]]:
        """What each of these units is given as its partition."""
        own, taker = self.asset.options.partitions, self.asset.partition
        if own is None or taker is None:
            return [{}] * units.height
        keys = units.select(partition_key(pl.coalesce("parent", "label")).alias("key"))["key"]
        return [{taker.parameter: taker.value(own[key])} for key in keys]

    async def _values(
        self,
        views: Mapping[str, View],
        dependency: Dependency,
        wanted: Sequence[Sequence[Stored]],
        wholes: Mapping[str, Sequence[Stored]],
    ) -> list[Any]:
        """A parameter's value for each unit of a batch."""
        reader = self.project.reader
        if not dependency.is_whole:
            return await self._each(replace(dependency, fields=None), wanted)  # restricted where it is called
        if dependency.form == "iterator":
            everything = wholes[dependency.parameter]
            return [await decode(dependency, reader, everything) for _ in wanted]
        name = dependency.parameter
        if name not in self._shared:
            if name in wholes:
                self._shared[name] = await decode(dependency, reader, wholes[name])
            else:
                async with aclosing(self._lying(views[dependency.upstream.name].documents)) as parts:
                    self._shared[name] = await decode_in_parts(dependency, reader, parts)
        return [self._shared[name]] * len(wanted)

    async def _each(self, dependency: Dependency, wanted: Sequence[Sequence[Stored]]) -> list[Any]:
        """A value for each unit, read together; where that is not possible in halves, and an error for what cannot be read."""
        try:
            return await decode_many(dependency, self.project.reader, wanted)
        except UnreadableError as error:
            if len(wanted) == 1:
                return [error]
            middle = len(wanted) // 2
            return [one for half in (wanted[:middle], wanted[middle:]) for one in await self._each(dependency, half)]

    async def _lying(self, documents: pl.DataFrame) -> AsyncGenerator[list[Stored]]:
        """Where the documents of a whole asset lie, some at a time; of the next ones it is looked up while these are read.

        Where that was read with the documents, it is known of those that lie in packs.
        """

        async def look_up(some: pl.DataFrame) -> list[Stored]:
            if placed and not some["row"].null_count():
                return [
                    Stored(Location(keys[object_], row), name, media_type, sha256, size)
                    for object_, row, name, media_type, sha256, size in some[_LYING].iter_rows()
                ]
            numbers = some["document"].to_list()
            stored = await self.keeper.stored(numbers)
            return [stored[number] for number in numbers]

        placed = "object" in documents.columns
        packs = documents.filter(pl.col("row").is_not_null())["object"].unique().to_list() if placed else []
        keys = await self.keeper.keys(packs) if packs else {}
        ahead: asyncio.Task[list[Stored]] | None = None
        try:
            for some in documents.iter_slices(READ_AT_ONCE):
                before, ahead = ahead, asyncio.create_task(look_up(some))
                if before is not None:
                    yield await before
            if ahead is not None:
                yield await ahead
        finally:
            if ahead is not None:
                ahead.cancel()

    async def _wholes(self, views: Mapping[str, View]) -> dict[str, list[Stored]]:
        """By parameter, all the documents of the whole assets that units are given; not of those that were handed over before, or that
        are read some at a time.
        """
        documents: dict[str, list[int]] = {}
        for d in self.asset.dependencies:
            if d.is_whole and d.parameter not in self._shared:
                whole = views[d.upstream.name].documents
                if whole.height <= READ_AT_ONCE or not is_read_in_parts(d):
                    documents[d.parameter] = whole["document"].to_list()
        stored = await self.keeper.stored({one for every in documents.values() for one in every})
        return {parameter: [stored[one] for one in every] for parameter, every in documents.items()}
