"""Batches: how are one asset's stale units made?

What an earlier recipe made is taken back (`recall`); the rest is called, a steady number at a time, and what the calls gave is stored and
committed in batches that hold about `batch_seconds` of work. A batch is the unit of memory, of a transaction, and of what a crash
can lose.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import islice
from typing import Any, NamedTuple

import polars as pl

from assetcore import telemetry
from assetcore.arguments import Arguments
from assetcore.assets import Asset
from assetcore.budget import Budget
from assetcore.calls import Call, Outcome, Slot, call_async, printable
from assetcore.documents import UnreadableError, document_id, excerpt_of
from assetcore.errors import StorageError
from assetcore.excerpts import Excerpt
from assetcore.fingerprint import HAZARDS
from assetcore.frames import joined, rows_where
from assetcore.guard import Guard
from assetcore.judgement import AssetState, Part
from assetcore.keep import Draft, Keeper, facts_of
from assetcore.lineage import damage, read
from assetcore.lineage.commit import Committed, Failed
from assetcore.llm import calling
from assetcore.pools import Pool
from assetcore.project import Project
from assetcore.recall import Recall
from assetcore.results import AssetResult, Event, Say
from assetcore.runners import Runner
from assetcore.spending import together
from assetcore.staleness import Definition
from assetcore.units import own_partition
from assetcore.watch import UndeclaredInput
from assetcore.window import Window

__all__ = ["LARGEST_BATCH", "Work"]

LARGEST_BATCH = 2048
HEAVIEST_BATCH = 32 << 20
"""About how many bytes the documents of a batch have, given and made; several batches are in memory at a time."""
NOT_BEGUN = Outcome([], 0.0)
"""Stands for a call that the run's budget had no room for."""
TRACED_KEYS = 3


class Ready(NamedTuple):
    """A unit that can be called, with what it will be committed with; a tuple, as what becomes of it.

    `edges` are the documents that it is given, in all of so many bytes (`size`), `before` those that it now has (identifier, identity);
    `called` is how it is told; `again` says that these were made with the same recipe, `unread` why what it is given cannot be read.
    """

    unit: bytes
    called: str
    label: str
    parent: str | None
    inputs: bytes
    was: int | None
    edges: tuple[tuple[int, int], ...]
    call: Call
    before: tuple[tuple[int, bytes], ...]
    again: bool
    size: int
    unread: str


@dataclass(slots=True)
class Work:
    """The making of one asset's stale units, batch by batch.

    `new` says that nothing was made with this definition yet, `since` when what is taken back was made at the earliest. `part` is the
    one that was read last; `unfinished` are the units among the `judged` ones (those that were not fresh) that are not what they should be.
    """

    project: Project
    keeper: Keeper
    guard: Guard
    runner: Runner
    say: Say
    asset: Asset[..., Any]
    definition: Definition
    definition_id: int
    marks: Mapping[int, read.Watermark]
    result: AssetResult
    last: int
    forced: bool
    pool: Pool | None
    budget: Budget | None = None
    new: bool = False
    since: datetime | None = None
    undeclared: set[UndeclaredInput] = field(default_factory=set)
    unfinished: set[bytes] = field(default_factory=set)
    judged: int = 0
    alone: bool = True
    part: Part = field(init=False)
    _divided: list[pl.DataFrame] = field(default_factory=list)
    _arguments: Arguments = field(init=False)
    _recall: Recall = field(init=False)
    _committing: asyncio.Lock = field(default_factory=asyncio.Lock)

    def __post_init__(self) -> None:
        self._arguments = Arguments(self.project, self.keeper, self.asset)
        self._recall = Recall(
            self.project, self.keeper, self.guard, self.asset, self.definition_id, self._collected(), self._commit, self.result,
            self.unfinished, self.forced, self.new, self.since,
        )  # fmt: skip

    async def make(self, parts: AsyncIterator[Part]) -> None:
        """Make what these parts have to make, each taken up when the one before is nearly done; a recipe is executed once."""
        await self._stream(parts, self._recall.first)
        while (part := self._recall.again()) is not None:  # the first of their recipe are made by now
            await self._stream(_one(part), self._recall.take_back)

    async def _stream(self, parts: AsyncIterator[Part], begin: Callable[[Part], Awaitable[pl.DataFrame]]) -> None:
        """Make what `begin` says is to be made of each part: so many calls are in flight at any time, and what they gave is committed in
        batches.
        """
        units = pl.DataFrame()
        taken = begun = kept = 0

        async def next_part() -> bool:
            nonlocal units, taken, begun
            part = await anext(parts, None)
            if part is not None:
                self.part = part
                if self.asset.partitions is not None:
                    self._divided.append(part.units.select("unit", own_partition().alias("key")))
                units, taken = await begin(part), 0
                begun += units.height
            return part is not None

        async def read_next(count: int) -> list[Ready]:
            nonlocal taken
            if self.budget is not None and self.budget.stopped:
                return []
            while taken == units.height:
                if not await next_part():
                    return []
            some = units.slice(taken, count)
            taken += some.height
            return await self._ready(self.part, some)

        async def keep(made: Sequence[tuple[Ready, Outcome]]) -> None:
            nonlocal kept
            made = [(one, outcome) for one, outcome in made if outcome is not NOT_BEGUN]
            if not made:
                return
            with telemetry.span(f"{len(made)} kept", "batch", units=len(made)):
                await self._keep(made, *await self._drafts(made))
            kept += len(made)
            self.say(Event("progress", self.asset.name, kept, max(kept, round(begun / self.part.share))))

        while not units.height:
            if not await next_part():
                return
        if not self.asset.asynchronous:
            await self.runner.ready()  # how many calls it can take is known then
        window = Window(
            read_next, self._call, keep, lambda outcome: outcome.seconds, _weight, self._places(), self._in_parts,
            self.project.settings.batch_seconds, LARGEST_BATCH, HEAVIEST_BATCH,
        )  # fmt: skip
        with self._calling():
            await window.run()
        while await next_part():  # nothing more of them is begun
            pass
        self.result.left += begun - kept

    async def rehearse(self, part: Part) -> list[tuple[Ready, Outcome]]:
        """Call the units of a part as `make` does, and keep nothing of what they give."""
        if not self.asset.asynchronous:
            await self.runner.ready()
        self.part = part
        ready = await self._ready(part, part.units)
        gate = asyncio.Semaphore(self._places())

        async def call(one: Ready) -> Outcome:
            async with gate:
                return (await self._call([one]))[0]

        with self._calling():
            return list(zip(ready, await asyncio.gather(*map(call, ready)), strict=True))

    def _calling(self) -> AbstractContextManager[None]:
        """Inside, this asset's functions ask models; a worker's have no client."""
        asset = self.asset
        if not asset.asynchronous:
            return nullcontext()
        return calling(self.project.llm, asset.name, asset.options.models, self.definition.digest)

    def _places(self) -> int:
        if not self.asset.asynchronous:
            return self.runner.places
        pooled = self.pool and self.pool.limits.concurrency
        return self.asset.options.concurrency or pooled or self.project.settings.concurrency

    @property
    def _in_parts(self) -> bool:
        """Whether several calls travel together: not where each needs a slot of its own."""
        return not self.asset.asynchronous and self.pool is None

    async def _ready(self, part: Part, units: pl.DataFrame) -> list[Ready]:
        """These units of a part with what they are given, read from the store."""
        before, recipes = _before(part.state, units), self._recipes(part.state, units)
        given = joined(part.judgement.wanted.given, units, "unit", "semi")
        by_unit: dict[bytes, dict[int, list[int]]] = {unit: {} for unit in units["unit"]}
        for unit, parameter, document in given["unit", "parameter", "document"].iter_rows():
            by_unit[unit].setdefault(parameter, []).append(document)
        stored = await self.keeper.stored(list(dict.fromkeys(given["document"])))
        calls = await self._arguments.calls(part.views, units, by_unit, stored)
        rows = units["unit", "called", "label", "parent", "inputs", "materialization"].iter_rows()
        ready: list[Ready] = []
        for (unit, called, label, parent, inputs, was), call in zip(rows, calls, strict=True):
            edges = tuple((p, d) for p, documents in sorted(by_unit[unit].items()) for d in documents)
            again, size = recipes.get(unit) == inputs, sum(stored[d].size for _, d in edges)
            kept, unread = before.get(unit, ()), _unread(call)
            ready.append(Ready(unit, called, label, parent, inputs, was, edges, call, kept, again, size, unread))
        return ready

    def _recipes(self, state: AssetState, units: pl.DataFrame) -> Mapping[bytes, bytes]:
        """With which inputs those of these units were made that were made with this definition."""
        if state.made.is_empty():
            return {}
        made = rows_where(state.made, state.made["definition"] == self.definition_id)
        return dict(joined(made, units, "unit", "semi")["unit", "inputs"].iter_rows())

    async def _call(self, units: Sequence[Ready]) -> list[Outcome]:
        """What these calls give; those that cannot be called have failed."""
        possible = [unit for unit in units if not unit.unread]
        outcomes = iter(await self._admitted(possible) if possible else ())
        return [Outcome([], 0.0, unit.unread) if unit.unread else next(outcomes) for unit in units]

    async def _admitted(self, units: Sequence[Ready]) -> list[Outcome]:
        """What these calls give; those that the run's budget has no room for are not begun."""
        if self.budget is None:
            return await self._called(units)
        outcomes: list[Outcome] = []
        places = self._places()
        at_once = min(places, (self.pool and self.pool.limits.concurrency) or places)
        for unit in units:
            reserved = await self.budget.admit(self.asset.name, at_once)
            if reserved is None:
                outcomes.append(NOT_BEGUN)
                continue
            ended: list[Outcome] = []
            try:
                ended = await self._called([unit])
            finally:
                took = sum(one.seconds for one in ended), next((one.spent for one in ended), None)
                self.budget.settle(self.asset.name, reserved, *took, ran=bool(ended))
            outcomes += ended
        return outcomes

    async def _called(self, units: Sequence[Ready]) -> list[Outcome]:
        calls = [unit.call for unit in units]
        slot = nullcontext if self.pool is None else self.pool.slot
        if self.asset.asynchronous:
            outcomes = [await self._call_here(unit, slot) for unit in units]
        else:
            async with slot():
                outcomes = await self.runner.call(
                    self.asset.name, calls, self.project.fingerprint(self.asset.name).digest
                )
            for unit, outcome in zip(units, outcomes, strict=True):
                heard = {"values": unit.call.values, "heard": outcome.heard}
                telemetry.ended(unit.called, outcome.seconds, outcome.error, **heard, **_costs(outcome))
        outcomes = [self._storable(self._declared(outcome)) for outcome in outcomes]
        for call in calls:
            call.ended()
        made = {u.unit: o.documents for u, o in zip(units, outcomes, strict=True) if o.error is None}
        spent = await self.guard.ask(made, in_flight=True)
        if not spent:
            return outcomes
        return [
            replace(outcome, spent=together((outcome.spent, spent.get(unit.unit))))
            for unit, outcome in zip(units, outcomes, strict=True)
        ]

    def _declared(self, outcome: Outcome) -> Outcome:
        """The outcome; in strict mode one that failed, where the function has read what nothing declares."""
        if not outcome.undeclared:
            return outcome
        self.undeclared.update(outcome.undeclared)
        if not self.project.settings.strict or outcome.error is not None:
            return outcome
        first = outcome.undeclared[0]
        told = f"reads {first.what} ({first.code}), which no input declares. {HAZARDS[first.code].settle}"
        where = f"  {first.where}\n" if first.where else ""
        return replace(outcome, documents=[], error=told, traceback=where, answers=())

    def _storable(self, outcome: Outcome) -> Outcome:
        """The outcome; one that failed, where typed fields would be a blob in Postgres."""
        try:
            self.keeper.check_fields(self.asset, outcome.documents)
        except StorageError as error:
            return replace(outcome, documents=[], error=str(error))
        return outcome

    async def _call_here(self, unit: Ready, slot: Slot) -> Outcome:
        with telemetry.unit(unit.called, unit.call.values) as traced:
            outcome = await call_async(self.asset, unit.call, self.project.root, slot)
            traced.seconds, traced.error = outcome.seconds, outcome.error
            if outcome.spent is not None:
                traced.set(**_costs(outcome))
            return outcome

    async def _drafts(self, made: Sequence[tuple[Ready, Outcome]]) -> tuple[list[Draft], list[Failed]]:
        before = {one.unit: one.before for one, _ in made if one.before}
        damaged = self.part.state.damaged
        lost = set() if damaged is None else set(damaged["document"])
        if self.forced:  # what is lost or damaged is written again, even if it comes out the same
            async with self.project.engine.connect() as connection:
                known = await read.stored(connection, [d for documents in before.values() for d, _ in documents])
            lost |= await self.keeper.broken(known)
        if self.forced or lost:
            await self._compare(made, before)
        if lost:
            before = {u: tuple(pair for pair in documents if pair[0] not in lost) for u, documents in before.items()}
        collected = self._collected()
        excerpts = await self._excerpts(made)
        drafts: list[Draft] = []
        failed: list[Failed] = []
        for one, outcome in made:
            self.guard.spend(outcome.spent, settled=True)
            if outcome.error is not None:
                failed.append(Failed(one.unit, one.label, one.inputs, outcome.error, outcome.traceback))
                continue
            parts = excerpts.get(one.unit, {})
            if astray := next(
                (f"{n!r} is part of {e.name!r}" for n, (whole, e) in parts.items() if whole is None), None
            ):
                failed.append(
                    Failed(one.unit, one.label, one.inputs, f"{astray}, which {one.call.who} was not given.", "")
                )
                continue
            drafts.append(Draft(
                one.unit, one.label, one.parent, one.inputs, outcome.documents, one.edges, collected, outcome.seconds, one.was,
                before.get(one.unit, ()), outcome.spent,
                excerpts={name: (whole, e) for name, (whole, e) in parts.items() if whole is not None},
            ))  # fmt: skip
        spent = await self.guard.ask({draft.unit: draft.documents for draft in drafts}, in_flight=False)
        for place, draft in enumerate(drafts if spent else ()):
            self.guard.spend(spent.get(draft.unit))
            drafts[place] = draft._replace(spent=together((draft.spent, spent.get(draft.unit))))
        return drafts, failed

    async def _excerpts(
        self, made: Sequence[tuple[Ready, Outcome]]
    ) -> Mapping[bytes, Mapping[str, tuple[int | None, Excerpt]]]:
        """Of documents that are said to be part of others, by unit and name: which of the given ones these are. Most say nothing."""
        said: list[tuple[Ready, dict[str, Excerpt]]] = []
        for one, outcome in made:
            parts = {d.name: excerpt for d in outcome.documents if (excerpt := excerpt_of(d)) is not None}
            if parts and outcome.error is None:
                said.append((one, parts))
        if not said:
            return {}
        names = pl.Series("name", sorted({e.name for _, parts in said for e in parts.values()}))
        wholes: set[int] = set()
        for dependency in self.asset.dependencies:
            if dependency.is_whole:
                documents = self.part.views[dependency.upstream.name].documents
                wholes.update(documents.filter(pl.col("name").is_in(names.implode()))["document"])
        async with self.project.engine.connect() as connection:
            known = await read.stored(connection, wholes | {d for one, _ in said for _, d in one.edges})
        found: dict[bytes, dict[str, tuple[int | None, Excerpt]]] = {}
        for one, parts in said:
            given = {(known[d].name, known[d].sha256): d for d in (*wholes, *(d for _, d in one.edges))}
            found[one.unit] = {name: (given.get((e.name, e.sha256)), e) for name, e in parts.items()}
        return found

    async def _compare(
        self, made: Sequence[tuple[Ready, Outcome]], before: Mapping[bytes, Sequence[tuple[int, bytes]]]
    ) -> None:
        """Count the units whose recipe is the one they were made with, and how many of them came out different all the same."""
        again = [(one, o) for one, o in made if o.error is None and one.again]
        kind = self.asset.output.type_name
        different = sum(
            [identity for _, identity in before.get(one.unit, ())] != [facts_of(d, kind)[-1] for d in outcome.documents]
            for one, outcome in again
        )
        if again:
            async with self.project.engine.begin() as connection:
                await damage.note_repeats(
                    connection, self.project.asset_ids[self.asset.name], self.definition_id, len(again), different
                )

    async def _keep(
        self, tried: Sequence[tuple[Ready, Outcome]], drafts: Sequence[Draft], failed: Sequence[Failed]
    ) -> None:
        base = await self.keeper.allocate()
        made, objects = await self.keeper.store(self.asset, base, drafts)
        spent = {m.id: d.spent for m, d in zip(made, drafts, strict=True) if d.spent is not None}
        committing = time.perf_counter()
        made, aside, refused, checked = self.guard.part(made)
        failed = [*failed, *refused]
        lost = {one.unit: one for one in failed}
        doubted = [key for one, outcome in tried if one.unit in lost for key in outcome.answers]
        await self.project.llm.refuse(doubted, self.definition.digest.hex())
        await self._commit(
            base=base, made=[*made, *aside], objects=objects, failed=failed, checked=checked, spent=spent
        )
        telemetry.enrich(
            documents=sum(len(m.new) for m in made),
            keys=[o.key for o in objects][:TRACED_KEYS] or None,
            ids=[document_id(n.sha256) for n in islice((n for m in made for n in m.new), TRACED_KEYS)] or None,
            commit_ms=round((time.perf_counter() - committing) * 1000, 1),
        )
        self.result.keys.extend(o.key for o in objects)
        changed = Counter(m.changed or m.was is None for m in made)
        self.result.made += changed[True]
        self.result.unchanged += changed[False]
        self.result.failed += len(failed)
        self.unfinished.difference_update(m.unit for m in made)
        await self.guard.fail([
            (one.called, one.parent if one.called == one.label else None, one.was is not None, lost[one.unit].error,
             lost[one.unit].traceback)
            for one, _ in tried if one.unit in lost
        ])  # fmt: skip

    def partitions(self, without: Collection[bytes]) -> tuple[str, ...]:
        """In which partitions the units are that were taken up; `without` those."""
        if not self._divided:
            return ()
        left = pl.Series("unit", list(without), pl.Binary).to_frame()
        return tuple(joined(pl.concat(self._divided), left, "unit", "anti")["key"].unique().sort())

    async def publish(self) -> None:
        """Make current what was held until the whole asset is looked at, unless that is refused."""
        self._note(await self.guard.publish())

    async def _commit(self, **what: Any) -> None:
        """Commit one after the other: what is taken back of a part, while those before it are made, is not taken for another run's."""
        async with self._committing:
            self._note(await self.guard.commit(**what))

    def _note(self, committed: Committed | None) -> None:
        """Another run's commit between ours means that not all units are as they were judged."""
        if committed is None:
            return
        self.alone = self.alone and committed.after == self.last
        self.last = committed.number

    def _collected(self) -> tuple[tuple[int, int, int], ...]:
        """The whole assets that every unit is given, each as of its last commit: what changed it last may have been in another
        environment, or in an earlier one of this name.
        """
        ids = self.project.asset_ids
        return tuple(
            (
                index,
                ids[d.upstream.name],
                self.marks[ids[d.upstream.name]].last if ids[d.upstream.name] in self.marks else 0,
            )
            for index, d in enumerate(self.asset.dependencies)
            if d.is_whole
        )


async def _one(part: Part) -> AsyncIterator[Part]:
    yield part


def _unread(call: Call) -> str:
    """Why a call is not possible; empty where it is."""
    errors = (printable(f"its input {n!r}: {v}") for n, v in call.values.items() if isinstance(v, UnreadableError))
    return next(errors, "")


def _weight(unit: Ready, outcome: Outcome) -> int:
    return unit.size + sum(len(document.content) for document in outcome.documents)


def _before(state: AssetState, units: pl.DataFrame) -> Mapping[bytes, tuple[tuple[int, bytes], ...]]:
    """What these units currently are: the identifiers and identities of their documents in order."""
    if state.documents.is_empty():
        return {}
    own = joined(state.documents, units, "unit", "semi").sort("unit", "position")
    grouped = own.group_by("unit", maintain_order=True).agg("document", "identity")
    return {unit: tuple(zip(documents, identities, strict=True)) for unit, documents, identities in grouped.iter_rows()}


def _costs(outcome: Outcome) -> dict[str, Any]:
    spent = outcome.spent
    return {} if spent is None else {"tokens": spent.tokens, "usd": round(spent.usd, 6)}
