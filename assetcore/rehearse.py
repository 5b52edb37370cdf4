"""Rehearse: what would these units come out as, were they made once more?

Units are called with what they are given now, as a run would call them, and nothing is kept: no object, no lineage, no environment. What
comes out is laid beside what is current. Where the recipe is the same and the result is not, the function is not deterministic; that
is counted for each asset, here and wherever a unit is made again without a cause of its own.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import polars as pl

from assetcore.assets import Asset, Source
from assetcore.batches import Work
from assetcore.documents import Document
from assetcore.graph import Graph
from assetcore.guard import Guard
from assetcore.judgement import Part
from assetcore.keep import Keeper, facts_of
from assetcore.lineage import damage, read
from assetcore.plan import Plan
from assetcore.pools import Pools
from assetcore.project import Project
from assetcore.reasons import unified
from assetcore.results import AssetResult, Event, Say
from assetcore.runners import runner_for
from assetcore.snapshot import Read

__all__ = ["Rehearsed", "rehearse", "sample"]

DIFF_BYTES = 200_000
NOBODY = "rehearsal"


@dataclass(frozen=True, slots=True)
class Rehearsed:
    """A unit that was called once more: whether all its documents came out as they are, or what kept it from coming out at all."""

    asset: str
    unit: str
    same: bool
    diff: str = ""
    error: str | None = None
    tokens: int = 0
    usd: float = 0.0

    def to_json(self) -> dict[str, Any]:
        return {
            "asset": self.asset, "unit": self.unit, "same": self.same, "diff": self.diff, "error": self.error, "tokens": self.tokens,
            "usd": self.usd,
        }  # fmt: skip


def sample(graph: Graph, plan: Plan, count: int, chance: random.Random) -> dict[str, pl.DataFrame]:
    """So many units of a forced plan that are fresh but for that, taken from each asset in turn (`staleness.JUDGED`)."""
    fresh: dict[str, pl.DataFrame] = {}
    for name, judgement in plan.judgements.items():
        asset = graph.assets[name]
        if isinstance(asset, Source):
            continue
        alone = pl.col("causes").list.eval(pl.element() != "forced").list.any().not_() & ~pl.col("blocked")
        found = plan.choice.narrow(asset, judgement.judged).filter((pl.col("status") == "stale") & alone)
        if found.height:
            fresh[name] = found
    wanted = dict.fromkeys(fresh, 0)
    left = count
    while left and any(wanted[name] < found.height for name, found in fresh.items()):
        for name, found in fresh.items():
            if left and wanted[name] < found.height:
                wanted[name] += 1
                left -= 1
    return {n: fresh[n][sorted(chance.sample(range(fresh[n].height), k))] for n, k in wanted.items() if k}


async def rehearse(
    project: Project, plan: Plan, found: Read, units: Mapping[str, pl.DataFrame], say: Say, *, counted: bool = True
) -> list[Rehearsed]:
    """Call these units of a plan once more, and compare.

    Where all recipes are those that they were made with it is counted, unless it is known that they are not (`counted`).
    """
    runner = runner_for(project.settings, project.graph, project.name)
    pools = Pools(project.settings.redis_url, project.settings.pools)
    rehearsed: list[Rehearsed] = []
    try:
        for name, some in units.items():
            asset = project.graph.assets[name]
            if isinstance(asset, Source):
                continue
            say(Event("asset-started", name))
            state, definition = found.snapshot.states[name], found.snapshot.definitions[name]
            keeper, result, judgement = Keeper(project, NOBODY, ""), AssetResult(name), plan.judgements[name]
            guard = Guard(project, keeper, runner, say, asset, definition, result, [])
            work = Work(
                project, keeper, guard, runner, say, asset, definition, state.definition or 0, found.marks, result, 0,
                True, None if asset.options.pool is None else pools[asset.options.pool],
            )  # fmt: skip
            outcomes = await work.rehearse(Part(judgement.called(some), judgement, state, plan.views))
            before = await _current(project, asset, state.documents.join(some.select("unit"), on="unit", how="semi"))
            compared = []
            for ready, outcome in outcomes:
                spent = {"tokens": outcome.spent.tokens, "usd": outcome.spent.usd} if outcome.spent else {}
                told = Rehearsed(name, ready.called, same=False, error=outcome.error, **spent)
                if outcome.error is None:
                    difference = _difference(asset, before.get(ready.unit, []), outcome.documents)
                    told = replace(told, same=difference is None, diff=difference or "")
                compared.append(told)
            ended = [one for one in compared if one.error is None]
            different = sum(1 for one in ended if not one.same)
            if counted and project.writable and ended and state.definition is not None:
                async with project.engine.begin() as connection:
                    await damage.note_repeats(
                        connection, project.asset_ids[name], state.definition, len(ended), different
                    )
            say(
                Event(
                    "asset-finished", name, text=f"{len(compared):,} made once more, {different:,} came out different"
                )
            )
            rehearsed += compared
    finally:
        await runner.close()
        await pools.close()
    return rehearsed


async def _current(project: Project, asset: Asset[..., Any], documents: pl.DataFrame) -> dict[bytes, list[Document]]:
    """What these units currently are, in order."""
    ordered = documents.sort("unit", "position")
    async with project.engine.connect() as connection:
        stored = await read.stored(connection, ordered["document"].to_list())
    contents = await project.reader.documents([stored[d] for d in ordered["document"]], asset.output.document_type)
    found: dict[bytes, list[Document]] = {}
    for unit, document in zip(ordered["unit"], contents, strict=True):
        found.setdefault(unit, []).append(document)
    return found


def _difference(asset: Asset[..., Any], before: Sequence[Document], after: Sequence[Document]) -> str | None:
    """How what came out differs from what is current; None where it does not."""
    kind = asset.output.type_name
    if [facts_of(d, kind)[-1] for d in before] == [facts_of(d, kind)[-1] for d in after]:
        return None
    old, new = {d.name: d for d in before}, {d.name: d for d in after}
    parts: list[str] = []
    for name in dict.fromkeys([*old, *new]):
        was, now = old.get(name), new.get(name)
        if was is None or now is None:
            parts.append(f"{name}: {'is new' if was is None else 'is gone'}")
        elif was.content != now.content:
            parts.append(_texts(name, was.content, now.content))
        else:
            fields = [f for f in type(now).field_names() if getattr(was, f, None) != getattr(now, f)]
            if fields:
                parts.append(f"{name}: another value of {', '.join(fields)}")
    return "\n".join(parts) or "another order"


def _texts(name: str, was: bytes, now: bytes) -> str:
    try:
        if len(was) + len(now) > DIFF_BYTES:
            raise ValueError
        return unified(was.decode(), now.decode(), f"{name} (is)", f"{name} (once more)")
    except ValueError:
        return f"{name}: {len(was):,} bytes before, {len(now):,} now"
