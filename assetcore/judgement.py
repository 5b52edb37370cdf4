"""Judgement: which units of one asset are stale, given the documents above it?

A plan asks it of every asset in turn, with documents that may yet be pending; a run asks again, with the documents as they then are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import polars as pl

from assetcore.assets import Asset
from assetcore.frames import among, joined, put, rows_where
from assetcore.graph import Graph
from assetcore.selection import UnitRule, holds
from assetcore.slices import Slice
from assetcore.staleness import Definition, definition_causes, judge
from assetcore.units import There, View, Wanted, shown_unit, wanted_units

__all__ = [
    "AssetState",
    "Choice",
    "Judgement",
    "Part",
    "changed_aggregates",
    "judge_asset",
    "judge_chosen",
    "view_below",
]


@dataclass(frozen=True, slots=True)
class AssetState:
    """What lineage knows of one asset: its units (`staleness.MADE`), its current documents, the definitions they were made with.

    `former` (materialization, parameter, address) holds documents that a unit was given last time and that may be gone; it is
    read only for units whose inputs changed, and tells `input-removed` from `input-changed`. `damaged` (unit, document, cause) are the
    documents whose bytes are lost. `expired` are the units that were made longer ago than they stay fresh, `oldest` is when the first of
    all was made; `there` are the partitions of the asset and its inputs.
    """

    made: pl.DataFrame
    documents: pl.DataFrame
    definition: int | None = None
    definitions: Mapping[int, Definition] = field(default_factory=dict)
    former: pl.DataFrame | None = None
    damaged: pl.DataFrame | None = None
    expired: pl.Series | None = None
    oldest: datetime | None = None
    there: There = field(default_factory=dict)

    def lean(self) -> AssetState:
        """What making units looks at: which documents each has, and with what it was made."""
        made = self.made[["unit", "definition", "inputs", "materialization"]]
        return replace(self, made=made, documents=self.documents[["unit", "document", "identity", "position"]])


@dataclass(frozen=True, slots=True)
class Choice:
    """What was selected: assets, for some of them only certain units, and whether to make them regardless."""

    assets: frozenset[str]
    units: Mapping[str, UnitRule] = field(default_factory=dict)
    force: bool = False

    def narrow(self, asset: Asset[..., Any], judged: pl.DataFrame) -> pl.DataFrame:
        """The rows that were selected."""
        if asset.name not in self.assets:
            return judged.clear()
        if asset.name not in self.units:
            return judged
        names = judged["label", "parent"].iter_rows()
        matching = [self.has(asset, label, parent) for label, parent in names]
        return judged.filter(pl.Series(matching, dtype=pl.Boolean))

    def has(self, asset: Asset[..., Any], label: str, parent: str | None) -> bool:
        """Whether a unit was selected: by its label, with or without what it is below, or by its partition."""
        rule = self.units.get(asset.name)
        if rule is None:
            return True
        names = [label]
        if parent is not None:
            names += [f"{parent}/{label}", *([parent.partition("/")[0]] if asset.partitions is not None else [])]
        return holds(rule, names)


@dataclass(frozen=True, slots=True)
class Judgement:
    """The units of one asset, judged (`staleness.JUDGED`), and what each is given."""

    judged: pl.DataFrame
    wanted: Wanted

    def lean(self, units: pl.DataFrame) -> Judgement:
        """What it takes to make these units, and to say afterwards which of those that are not fresh are left."""
        given = self.wanted.given[["unit", "parameter", "document"]]
        if units.height < self.judged.height and given.height:
            given = joined(given, units, "unit", "semi")
        judged = rows_where(self.judged, self.judged["status"] != "fresh")[["unit", "label", "parent", "status"]]
        return Judgement(judged, Wanted(self.wanted.units.clear(), given))

    def called(self, units: pl.DataFrame) -> pl.DataFrame:
        """These of the units, with how each is `called` where it is told: with its parent where another one has its label."""
        if units["parent"].null_count() == units.height:
            return put(units, units["label"].alias("called"))
        alike = rows_where(self.judged, among(self.judged["label"], units["label"]))
        path = pl.concat_str("parent", "label", separator="/", ignore_nulls=True).alias("path")
        return units.with_columns(path).with_columns(shown_unit(alike).alias("called")).drop("path")


@dataclass(frozen=True, slots=True)
class Part:
    """What was judged of an asset at a time: the units to make, those that are gone, what all of them are, and what they are given.

    `share` says which share of all was judged with it. An asset that is given whole assets has one part.
    """

    units: pl.DataFrame
    judgement: Judgement
    state: AssetState
    views: Mapping[str, View]
    gone: Sequence[tuple[bytes, int | None]] = ()
    share: float = 1.0

    def of(self, units: pl.DataFrame) -> Part:
        """The same, for these of its units alone."""
        given = joined(self.judgement.wanted.given, units, "unit", "semi")
        wanted = replace(self.judgement.wanted, given=given)
        return replace(self, units=units, judgement=replace(self.judgement, wanted=wanted), gone=(), share=1.0)


def judge_asset(
    asset: Asset[..., Any],
    graph: Graph,
    views: Mapping[str, View],
    definition: Definition,
    state: AssetState,
    *,
    force: bool = False,
) -> Judgement:
    """Judge the units of one asset against the documents above it."""
    wanted = wanted_units(asset, graph, views, state.there)
    causes = {i: definition_causes(old, definition) for i, old in state.definitions.items() if i != state.definition}
    gone = _units_with_members_gone(asset, wanted, views, state) if state.former is not None else None
    # A group without members may get some, while documents that could be its members are yet to be made.
    may_return = any(d.by is not None and views[d.upstream.name].open for d in asset.dependencies)
    judged = judge(
        wanted.units, state.made, definition=state.definition, definitions=causes, removed_inputs=gone,
        damaged=state.damaged, expired=state.expired, may_return=may_return, force=force,
    )  # fmt: skip
    return Judgement(judged, wanted)


def judge_chosen(
    asset: Asset[..., Any],
    graph: Graph,
    views: Mapping[str, View],
    definition: Definition,
    state: AssetState,
    choice: Choice,
) -> Judgement:
    """Judge the units of one asset; those that were selected are stale where the choice forces them."""
    judgement = judge_asset(asset, graph, views, definition, state)
    if not choice.force or asset.name not in choice.assets:
        return judgement
    forced = judge_asset(asset, graph, views, definition, state, force=True).judged
    chosen = choice.narrow(asset, forced)
    others = joined(judgement.judged, chosen, "unit", "anti")
    both = pl.concat([joined(forced, chosen, "unit", "semi"), others])
    return Judgement(both.sort("label", "unit"), judgement.wanted)


def changed_aggregates(asset: Asset[..., Any], judgement: Judgement) -> list[int]:
    """The materializations of units that are given several documents, some of which changed or are gone: which, `former` tells."""
    never = judgement.judged["materialization"].null_count() == judgement.judged.height
    if never or not any(d.kind == "collect" for d in asset.dependencies):
        return []
    changed = judgement.judged.filter(pl.col("causes").list.contains("input-changed"))
    return changed["materialization"].drop_nulls().to_list()


def _units_with_members_gone(
    asset: Asset[..., Any], wanted: Wanted, views: Mapping[str, View], state: AssetState
) -> pl.Series:
    """The units that were given, among several documents in one parameter, one which they would not be given any more."""
    assert state.former is not None
    former = joined(state.former, state.made["unit", "materialization"], "materialization")
    gone = [former.select("unit").clear()]
    for index, dependency in enumerate(asset.dependencies):
        then = former.filter(pl.col("parameter") == index)
        if dependency.is_whole:
            gone.append(joined(then, views[dependency.upstream.name].documents, "address", "anti")[["unit"]])
        elif dependency.kind == "collect":
            gone.append(joined(then, wanted.given, ["unit", "parameter", "address"], "anti")[["unit"]])
    return pl.concat(gone)["unit"].unique()


def view_below(judged: pl.DataFrame, documents: pl.DataFrame, part: Slice | None = None) -> View:
    """What assets below may count on: documents of fresh units stand, those of others are pending, those of removed units are gone.

    With `part` only that slice was judged, and all beside it is fresh.
    """
    status = judged["status"]
    again = judged["unit"].filter((status == "stale") | (status == "pending"))
    if documents.is_empty():
        return View(documents, open=len(again) > 0, open_units=again)
    gone = judged["unit"].filter(status == "removed")
    standing = rows_where(documents, ~among(documents["unit"], gone)) if len(gone) else documents
    units = standing["unit"]
    is_again = among(units, again) if part is not None else ~among(units, judged["unit"].filter(status == "fresh"))
    return View(put(standing, is_again.alias("pending")), open=len(again) > 0, open_units=again)
