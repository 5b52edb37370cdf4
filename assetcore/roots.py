"""Roots: which changes lie at the bottom of a plan, and what waits for them?

A unit that is pending waits for units above it, these for others, until one is certain to be made: there is a root. All of it is
stated over the frames of a plan, asset by asset, so that what hangs on a hundred thousand units is found as fast as on one; each
unit on the way is met once, however many ways lead to it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import polars as pl

from assetcore.assets import Dependency, Source
from assetcore.frames import joined, rows_where
from assetcore.graph import AnyAsset, Graph
from assetcore.plan import Plan, Snapshot
from assetcore.units import There, ancestor, in_partition, own_partition, projected

__all__ = ["GIVEN_TO", "Above", "above", "differences", "lost_partition", "waiting"]

GIVEN_TO = {
    "materialization": pl.Int64, "parameter": pl.Int64, "document": pl.Int64, "address": pl.Binary, "unit": pl.Binary,
    "label": pl.String, "name": pl.String, "identity": pl.Binary, "media_type": pl.String, "sha256": pl.Binary, "field_digests": pl.Binary,
}  # fmt: skip
"""A document that a unit was given when it became this materialization, or would be given now."""
DIFFERENCES = ["address", "identity", "identity_now"]
BELOW = {"unit": pl.Binary, "below": pl.String, "below_unit": pl.Binary}


@dataclass(frozen=True, slots=True)
class Above:
    """What a unit waits for, and itself: for each asset rows of its judgement, with the unit below through which each was met."""

    reached: Mapping[str, pl.DataFrame]
    followed: Mapping[str, pl.Series]
    """Of units that are there no more, those whose input went, too: that is what is told."""

    def stale(self) -> Iterator[tuple[str, pl.DataFrame]]:
        """The units that are certain to be made, of each asset: what they say is the cause."""
        yield from self._that_are("stale")

    def gone(self) -> Iterator[tuple[str, pl.DataFrame]]:
        """What is not there any more, as far up as that can be followed: to documents of sources, where it can."""
        for name, rows in self._that_are("removed"):
            further = self.followed.get(name)
            ends = rows if further is None else rows.filter(~pl.col("unit").is_in(further.implode()))
            if ends.height:
                yield name, ends

    def _that_are(self, status: str) -> Iterator[tuple[str, pl.DataFrame]]:
        found = ((name, rows, rows["status"] == status) for name, rows in self.reached.items())
        yield from ((name, rows_where(rows, there)) for name, rows, there in found if there.any())

    def way(self, name: str, unit: bytes) -> list[tuple[str, str | None, str]]:
        """From the unit that was asked about, without it, up to this one: asset, parent and label of each."""
        way: list[tuple[str, str | None, str]] = []
        while True:
            rows = self.reached[name]
            row = rows.row(rows["unit"].to_list().index(unit), named=True)
            if row["below"] is None:
                return way[::-1]
            way.append((name, row["parent"], row["label"]))
            name, unit = row["below"], row["below_unit"]


def above(plan: Plan, graph: Graph, snapshot: Snapshot, name: str, unit: bytes) -> Above:
    """All that this unit of an asset waits for, whether it is stale by itself or not, up to the units that wait for nothing."""
    waiting = {name: [pl.DataFrame({"unit": [unit], "below": [None], "below_unit": [None]}, schema=BELOW)]}
    reached: dict[str, pl.DataFrame] = {}
    followed: dict[str, pl.Series] = {}
    for asset in reversed(graph.ordered({name, *graph.ancestors([name])})):
        judgement = plan.judgements.get(asset)
        if asset not in waiting or judgement is None:
            continue
        met = pl.concat(waiting.pop(asset))
        if met.height > 1:
            met = met.unique("unit", keep="first", maintain_order=True)
        rows = joined(judgement.judged, met, "unit")
        gone = rows["status"] == "removed"
        driver = graph.driver(asset) if gone.any() else None
        if driver is not None and driver.upstream.name in snapshot.states:
            lost = lost_partition(graph.assets[asset], rows, snapshot.states[asset].there)
            further = _what_went(driver, plan, snapshot, rows.filter(gone & lost.is_null()), graph.assets[asset])
            followed[asset] = further["below_unit"]
            if isinstance(driver.upstream, Source):
                sources = further.with_columns(pl.lit("removed").alias("status"))
                before = [reached[driver.upstream.name]] if driver.upstream.name in reached else []
                together = pl.concat([*before, sources]).unique("unit", keep="first", maintain_order=True)
                reached[driver.upstream.name] = together
            else:
                waiting.setdefault(driver.upstream.name, []).append(further.select(list(BELOW)))
        reached[asset] = rows
        held = rows["unit"].filter(rows["blocked"] & ~gone).to_frame()
        for wait in _one_up(plan, graph, asset, held):
            lead = wait.pairs.select_seq(
                pl.col("up").alias("unit"), pl.lit(asset).alias("below"), pl.col("unit").alias("below_unit")
            )
            waiting.setdefault(wait.upstream, []).append(lead)
    return Above(reached, followed)


def lost_partition(asset: AnyAsset, units: pl.DataFrame, there: There) -> pl.Series:
    """In which partition of the asset each unit is, where that is not there any more; null where it is, or there are none."""
    own = asset.options.partitions
    if own is None or own not in there:
        return pl.repeat(None, units.height, dtype=pl.String, eager=True).alias("lost")
    known = [partition.key for partition in there[own]]
    return units.select(pl.when(~own_partition().is_in(known)).then(own_partition()).alias("lost"))["lost"]


def _what_went(
    driver: Dependency, plan: Plan, snapshot: Snapshot, going: pl.DataFrame, asset: AnyAsset
) -> pl.DataFrame:
    """The units above whose documents these units were made for, where those went, too."""
    upstream = driver.upstream.name
    found = snapshot.states[upstream].documents.select(pl.col("address").alias("below_unit"), "unit", "label")
    if isinstance(driver.upstream, Source):
        found = joined(found, plan.views[upstream].documents, "unit", "anti")
    elif (judgement := plan.judgements.get(upstream)) is not None:
        found = joined(found, judgement.judged.filter(pl.col("status") == "removed"), "unit", "semi")
    else:
        found = found.clear()
    if asset.multiplied:
        keys = going.select(own_partition().alias("of")).unique(maintain_order=True)
        found = found.join(keys, how="cross", maintain_order="left")
        units = [in_partition(key, unit) for key, unit in found.select("of", "below_unit").iter_rows()]
        found = found.with_columns(pl.Series("below_unit", units, pl.Binary))
    found = joined(found, going.select(pl.col("unit").alias("below_unit")), "below_unit")
    return found.select(
        "unit", pl.lit(asset.name).alias("below"), "below_unit", "label", pl.lit(None, pl.String).alias("parent")
    )


class _Wait(NamedTuple):
    """Open units of an asset above (`up`) that a `unit` waits for; where each of `units` waits for all of them, the first tells it."""

    upstream: str
    pairs: pl.DataFrame
    units: pl.DataFrame | None = None


def _one_up(plan: Plan, graph: Graph, asset: str, units: pl.DataFrame) -> list[_Wait]:
    """What these units of an asset wait for: what they are given, all of a whole asset, and what may yet come of units above it."""
    dependencies = graph.assets[asset].dependencies
    judged = [(index, one) for index, one in enumerate(dependencies) if one.upstream.name in plan.judgements]
    if not units.height or not judged:
        return []
    found: list[_Wait] = []
    wholes = [dependency.upstream.name for _, dependency in judged if dependency.is_whole]
    # All of them or none is told without joining frames: of one document there are few.
    given = plan.judgements[asset].wanted.given
    if units.height < plan.judgements[asset].judged.height:
        given = joined(given, units, "unit", "semi")
    for index, dependency in judged:
        upstream = dependency.upstream.name
        if dependency.is_whole:
            continue
        documents = plan.views[upstream].documents[["address", "unit"]]
        mine = given if len(dependencies) == 1 else given.filter(pl.col("parameter") == index)
        pairs = joined(mine, documents, "address", suffix="_up")
        pairs = pl.DataFrame([pairs["unit"], pairs["unit_up"].alias("up")])
        still = _open(plan, upstream)
        if still.height < plan.judgements[upstream].judged.height:
            pairs = joined(pairs, still, "up", "semi")
        found.append(_Wait(upstream, pairs))
    if wholes:
        found += _shared(plan, graph, wholes, units)
    elif (those := pl.concat([wait.pairs["unit"] for wait in found])).n_unique() < units.height:
        # They wait for documents that are not there yet: of those above, nobody can say which, but what they are collected for.
        astray = joined(units, those.to_frame(), "unit", "anti")
        if near := [
            wait for _, one in judged if one.per is not None for wait in _below(plan, graph, asset, one, astray)
        ]:
            found += near
            astray = joined(astray, pl.concat([wait.pairs["unit"] for wait in near]).to_frame(), "unit", "anti")
        found += _shared(plan, graph, [dependency.upstream.name for _, dependency in judged], astray)
    return found


def _below(plan: Plan, graph: Graph, asset: str, dependency: Dependency, units: pl.DataFrame) -> list[_Wait]:
    """These units wait for what may yet come of the document that theirs is collected for (`per`), and for nothing else."""
    driver = graph.driver(asset)
    if driver is None or dependency.per is None:
        return []
    per = dependency.per.name
    index = graph.assets[asset].dependencies.index(driver)
    given = plan.judgements[asset].wanted.given
    given = rows_where(given, given["parameter"] == index)
    mine = joined(
        joined(given, units, "unit", "semi"), ancestor(driver.upstream.name, per, graph, plan.views), "address"
    )
    waits: list[_Wait] = []
    for step, up in pairwise(graph.chain(dependency.upstream.name)):
        if step == per or step not in plan.judgements:
            break
        still = joined(_open(plan, step).rename({"up": "address"}), ancestor(up, per, graph, plan.views), "address")
        pairs = joined(mine, still, "of", suffix="_up").select("unit", pl.col("address_up").alias("up"))
        waits.append(_Wait(step, pairs))
    return waits


def _shared(plan: Plan, graph: Graph, upstreams: Iterable[str], units: pl.DataFrame) -> list[_Wait]:
    """These units wait for all that is open of these assets, and for units above of which more of them may come."""
    waits: list[tuple[str, pl.DataFrame]] = []
    for upstream in upstreams:
        waits += [(upstream, _open(plan, upstream)), *_yet_to_come(plan, graph, upstream)]
    first = units.head(1)
    return [
        _Wait(up, still.join(first, how="cross").select("unit", "up"), units) for up, still in waits if still.height
    ]


def _yet_to_come(plan: Plan, graph: Graph, asset: str) -> Iterator[tuple[str, pl.DataFrame]]:
    """The open units above an asset (`up`) that none of its units is made of: what comes of them will be units that are not there yet."""
    judgement = plan.judgements[asset]
    for index, dependency in enumerate(graph.assets[asset].dependencies):
        upstream = dependency.upstream.name
        if dependency.is_whole or upstream not in plan.judgements:
            continue
        if (still := _open(plan, upstream, gone=False)).height:
            mine = judgement.wanted.given.filter(pl.col("parameter") == index)
            leading = joined(plan.views[upstream].documents[["address", "unit"]], mine[["address"]], "address", "semi")
            yield upstream, joined(still, leading.select(up="unit"), "up", "anti")
        yield from _yet_to_come(plan, graph, upstream)


def _open(plan: Plan, name: str, *, gone: bool = True) -> pl.DataFrame:
    judged = plan.judgements[name].judged
    settled = ["fresh"] if gone else ["fresh", "removed"]
    return judged["unit"].filter(~judged["status"].is_in(settled)).alias("up").to_frame()


def differences(was: pl.DataFrame, now: pl.DataFrame, dependency: Dependency) -> pl.DataFrame:
    """Documents of one parameter that units (`GIVEN_TO`) were given and would not be given, or not like that: the most shared first.

    A row a change, with what was (`document`, `label`, `name`, `sha256`), what is (the same with `_now`), null where there is none, and
    how many `units` it concerns, the `materialization` of one of them.
    """
    if dependency.fields is not None:
        was, now = (frame.with_columns(projected(frame, dependency)) for frame in (was, now))
    both = joined(was, now, ["materialization", "address"], "full", "_now")
    changed = rows_where(both, both["identity"].ne_missing(both["identity_now"]))
    facts = [c for c in (*was.columns, *(f"{c}_now" for c in was.columns)) if c in changed.columns]
    told = [f for f in facts if f not in (*DIFFERENCES, "materialization")]
    if changed.height == 1:
        return changed[[*DIFFERENCES, "materialization", *told]].hstack([pl.Series("units", [1], pl.UInt32)])
    grouped = changed.group_by(DIFFERENCES, maintain_order=True).agg(
        pl.col("materialization", *told).first(), pl.col("materialization").n_unique().alias("units")
    )
    shown = pl.coalesce("label_now", "label"), pl.coalesce("name_now", "name")
    return grouped.sort(-pl.col("units").cast(pl.Int64), *shown)


def waiting(plan: Plan, graph: Graph) -> dict[str, int]:
    """How many pending units wait for units that are stale or gone, by the first of their causes."""
    groups: dict[str, pl.DataFrame] = {}
    counts: dict[str, int] = {}
    for name in graph.ordered(plan.judgements):
        judged = plan.judgements[name].judged
        cause = (
            pl.when(pl.col("status") == "removed")
            .then(pl.lit("input-removed"))
            .otherwise(pl.col("causes").list.first())
        )
        own = judged.filter(pl.col("status").is_in(["stale", "removed"])).select("unit", cause.alias("cause"))
        pending = judged.filter(pl.col("status") == "pending").select("unit")
        passed = [own]
        for wait in _one_up(plan, graph, name, pending):
            met = joined(wait.pairs, groups[wait.upstream].rename({"unit": "up"}), "up")
            if wait.units is None:
                passed.append(met["unit", "cause"])
            else:
                passed.append(wait.units.join(met.select("cause").unique(), how="cross"))
        groups[name] = pl.concat(passed).unique()
        wait = (
            groups[name]
            .join(pending, on="unit", how="semi")
            .join(plan.choice.narrow(graph.assets[name], judged), on="unit", how="semi")
        )
        for code, units in wait.group_by("cause").len().iter_rows():
            counts[code] = counts.get(code, 0) + units
    return counts
