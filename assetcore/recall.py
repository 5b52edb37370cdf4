"""Recall: which stale units need not be executed?

Those whose recipe an earlier materialization had: an edit that was taken back, a document that was renamed where the function does not see
it. What that made is current again. Units of one recipe that are stale together are executed once: the first of them, then the others
are such units, too.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import polars as pl

from assetcore.assets import Asset
from assetcore.frames import joined, rows_where
from assetcore.guard import Guard
from assetcore.judgement import Part
from assetcore.keep import Earlier, Keeper
from assetcore.lineage import named, read, trace
from assetcore.lineage.commit import Made, NewDocument, Reused
from assetcore.lineage.schema import Connection
from assetcore.project import Project
from assetcore.results import AssetResult
from assetcore.units import document_address

__all__ = ["Recall"]


@dataclass(slots=True)
class Recall:
    """What is taken back of one asset, part by part.

    `new` says that nothing was made with this definition yet, `since` when what is taken back was made at the earliest. What is done is
    no longer among the `unfinished`.
    """

    project: Project
    keeper: Keeper
    guard: Guard
    asset: Asset[..., Any]
    definition_id: int
    collected: tuple[tuple[int, int, int], ...]
    commit: Callable[..., Awaitable[None]]
    result: AssetResult
    unfinished: set[bytes]
    forced: bool
    new: bool
    since: datetime | None
    _begun: list[pl.Series] = field(default_factory=list)
    _again: list[Part] = field(default_factory=list)

    async def first(self, part: Part) -> pl.DataFrame:
        """The units of a part that are to be executed now: of those with one recipe the first; the others are kept for `again`."""
        earlier = {} if self.forced or self.new else await self._earlier(part.units)
        left = await self._take_back(part, earlier, of_others=self.since is None)
        if self.forced:
            return left
        firsts = left.unique("inputs", keep="first", maintain_order=True) if left.height > 1 else left
        if part.share < 1 or self._begun:  # what only looks as if it were begun is executed a little later
            begun = firsts["inputs"].hash()
            if self._begun:
                firsts = rows_where(firsts, ~begun.is_in(pl.concat(self._begun).implode()))
            self._begun.append(begun)
        if firsts.height < left.height:
            others = joined(left, firsts, "unit", "anti")
            self._again.append(part.of(others))
        return firsts

    def again(self) -> Part | None:
        """Units of a recipe that was begun; None where there are no more."""
        return self._again.pop(0) if self._again else None

    async def take_back(self, part: Part) -> pl.DataFrame:
        """The units of a part that are left when what was made with their recipes is taken back."""
        return await self._take_back(part, await self._earlier(part.units), of_others=True)

    async def _earlier(self, units: pl.DataFrame) -> Earlier:
        """What was made before with the recipes of these units, and may be taken again."""
        inputs = units["inputs"].to_list()
        return await self.guard.fit(await self.keeper.reusable(self.asset, self.definition_id, inputs, self.since))

    async def _take_back(self, part: Part, earlier: Earlier, *, of_others: bool) -> pl.DataFrame:
        """Commit what an earlier materialization with the same recipe made, and what is no longer wanted; returns what is left.

        A recipe that another unit had (a renamed document whose name the function does not see) gives the same documents at
        this unit's address: nothing is executed and no byte is written. As such a fact is new, its time starts now: where that counts
        (`since`), nothing is taken `of_others` but what this run has made.
        """
        reused: list[Reused] = []
        copied: dict[bytes, int] = {}
        units = part.units
        if earlier:
            for unit, label, inputs, was in units.select("unit", "label", "inputs", "materialization").iter_rows():
                same = [m for u, m in earlier.get(inputs, ()) if u == unit]
                if same:
                    reused.append(Reused(unit, label, same[0], was))
                elif of_others and inputs in earlier:
                    copied[unit] = earlier[inputs][0][1]
        base, made = await self._copies(part, copied) if copied else (None, [])
        if reused or made or part.gone:
            await self.commit(base=base, made=made, reused=reused, removed=part.gone)
        taken = [*(r.unit for r in reused), *copied]
        self.unfinished.difference_update(taken, (unit for unit, _ in part.gone))
        self.result.reused += len(taken)
        return units.filter(~pl.col("unit").is_in(pl.Series("unit", taken, pl.Binary).implode())) if taken else units

    async def _copies(self, part: Part, copied: Mapping[bytes, int]) -> tuple[int, list[Made]]:
        given: dict[bytes, list[tuple[int, int]]] = {}
        for unit, parameter, document in part.judgement.wanted.given.select(
            "unit", "parameter", "document"
        ).iter_rows():
            if unit in copied:
                given.setdefault(unit, []).append((parameter, document))
        base = await self.keeper.allocate()
        async with self.project.engine.connect() as connection:
            documents = await read.documents_of(connection, copied.values())
            excerpts = await trace.excerpts_of(connection, copied.values())
            same = await self._same(connection, part, copied, excerpts, given)
        numbers = iter(range(base, base + (1 << 20)))
        made: list[Made] = []
        rows = part.units.select("unit", "label", "parent", "inputs", "materialization").iter_rows()
        for unit, label, parent, inputs, was in rows:
            if unit not in copied:
                continue
            new = tuple(
                NewDocument(
                    next(numbers), document_address(unit, d.name), d.name, d.type, d.media_type, d.size, d.sha256, d.field_digests,
                    d.identity, d.object_id, d.row, d.fields,
                )
                for d in documents[copied[unit]]
            )  # fmt: skip
            edges, ids = tuple(given.get(unit, ())), tuple(d.id for d in new)
            now = {d[1]: number for d, number in zip(documents[copied[unit]], ids, strict=True)}
            parts = tuple(
                (now[document], same[unit, whole], kind, start, end, pointer)
                for document, whole, kind, start, end, pointer in excerpts.get(copied[unit], ())
                if (unit, whole) in same
            )
            made.append(
                Made(
                    next(numbers), unit, label, parent, inputs, ids, new, edges, self.collected, 0.0, was, changed=True,
                    excerpts=parts,
                )
            )  # fmt: skip
        return base, made

    async def _same(
        self,
        connection: Connection,
        part: Part,
        copied: Mapping[bytes, int],
        excerpts: Mapping[int, Sequence[tuple[Any, ...]]],
        given: Mapping[bytes, Sequence[tuple[int, int]]],
    ) -> dict[tuple[bytes, int], int]:
        """Of what another unit was given and excerpts are of, by unit: the document with the same bytes that it is given itself."""
        wholes = {whole for parts in excerpts.values() for _, whole, *_ in parts}
        if not wholes:
            return {}
        views = [part.views[d.upstream.name].documents["document"] for d in self.asset.dependencies if d.is_whole]
        collected = {whole for documents in views for whole in wholes.intersection(documents)}
        known = await named.look_up(connection, wholes | {d for pairs in given.values() for _, d in pairs})
        shared, found = {known[d].sha256: d for d in collected}, dict[tuple[bytes, int], int]()
        for unit, materialization in copied.items():
            own = {known[d].sha256: d for _, d in given.get(unit, ())}
            for whole in {whole for _, whole, *_ in excerpts.get(materialization, ())}:
                sha256 = known[whole].sha256
                if (document := own.get(sha256, shared.get(sha256))) is not None:
                    found[unit, whole] = document
        return found
