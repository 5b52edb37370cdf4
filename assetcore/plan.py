"""Plan: which units must be made, in which order, and why?

A plan is a pure function of a graph, a snapshot of lineage and a selection. It walks the graph once, from the sources down: the
units of an asset follow from the documents above it, `judgement` says which are stale, and what they will leave open is handed down
as a `View` whose documents are pending. The run walks the same way, with the documents as they then are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, NamedTuple

import polars as pl

from assetcore.assets import Asset, Source
from assetcore.checks import CheckReport
from assetcore.costs import Estimate, UnitCosts, estimated, total
from assetcore.errors import StaleInputError
from assetcore.frames import among, joined, rows_where, without
from assetcore.grammar import Label, Pattern
from assetcore.graph import Graph
from assetcore.judgement import AssetState, Choice, Judgement, changed_aggregates, judge_asset, judge_chosen, view_below
from assetcore.partitions import Moment
from assetcore.selection import Either, UnitRule
from assetcore.slices import Slice, Slicing
from assetcore.staleness import CAUSES, LOST, Definition
from assetcore.units import There, View, open_partitions, partition_key, partition_pairs, wanted_units

__all__ = [
    "AssetPlan", "Plan", "Snapshot", "SourcePlan", "UnitPlan", "make_plan", "source_changes", "unsettled", "with_above", "without_lost",
]  # fmt: skip

LOST_IDENTITY = b"lost"
"""What stands for the identity of a document whose bytes are lost: no identity is so short."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a plan is made from: current definitions, the state of the assets that need a look, counts of those that do not.

    Of assets in `slices` only those units need a look; `how` tells of which only those were read. `before` are those that would need
    no look, had nothing above them changed. `oldest` says when the first unit of each asset was made, where units expire. `documents`
    says how many each source has; one that is not in `observed` is what it was.
    """

    definitions: Mapping[str, Definition]
    states: Mapping[str, AssetState]
    settled: Mapping[str, int]
    observed: Mapping[str, pl.DataFrame]
    seconds_per_unit: Mapping[str, float] = field(default_factory=dict)
    slices: Mapping[str, Slice] = field(default_factory=dict)
    how: Slicing = field(default_factory=Slicing)
    before: frozenset[str] = frozenset()
    moment: Moment | None = None
    oldest: Mapping[str, datetime] = field(default_factory=dict)
    costs: Mapping[str, UnitCosts] = field(default_factory=dict)
    documents: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class UnitPlan:
    """One unit that is not fresh."""

    label: str
    status: str
    causes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return {"unit": self.label, "status": self.status, "causes": list(self.causes)}


@dataclass(frozen=True, slots=True)
class AssetPlan:
    """What a run would do to one asset. `causes` counts each stale unit once, under the first of its causes.

    `undecided`: an asset above it is to be made, so that units may yet appear, change or go. `partitions` counts those that there are
    (`all`), those of which every unit is as it should be (`done`), and those of which there is nothing yet (`missing`).
    `fresh_until` says when the first unit expires.
    """

    asset: str
    units: int
    fresh: int
    stale: int = 0
    pending: int = 0
    removed: int = 0
    causes: Mapping[str, int] = field(default_factory=dict)
    details: tuple[UnitPlan, ...] = field(default=(), repr=False)
    undecided: bool = False
    partitions: Mapping[str, int] | None = None
    fresh_until: datetime | None = None

    @property
    def idle(self) -> bool:
        """Whether a run would leave it alone."""
        return not (self.stale or self.pending or self.removed or self.undecided)

    def to_json(self) -> dict[str, Any]:
        return {
            "asset": self.asset, "units": self.units, "fresh": self.fresh, "stale": self.stale, "pending": self.pending,
            "removed": self.removed, "causes": dict(self.causes),
            **({"partitions": dict(self.partitions)} if self.partitions is not None else {}),
            **({"fresh_until": self.fresh_until.isoformat()} if self.fresh_until is not None else {}),
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class SourcePlan:
    """What was observed of a source, against what lineage has of it; `lost` are those whose kept bytes are (P10): they are read again.

    `unread` are there and cannot be read: they stay what they were, and each is a failure.
    """

    source: str
    documents: int
    new: int = 0
    changed: int = 0
    removed: int = 0
    lost: int = 0
    forced: bool = False
    unread: int = 0

    @property
    def idle(self) -> bool:
        return not (self.new or self.changed or self.removed or self.lost or self.forced or self.unread)

    def to_json(self) -> dict[str, Any]:
        return {
            "source": self.source,
            "documents": self.documents,
            "new": self.new,
            "changed": self.changed,
            "removed": self.removed,
            "lost": self.lost,
            "unread": self.unread,
        }


@dataclass(frozen=True, slots=True)
class Plan:
    """Which units are stale and why, for each selected asset in the order in which they would be made."""

    project: str
    environment: str
    assets: tuple[AssetPlan, ...]
    sources: tuple[SourcePlan, ...]
    choice: Choice
    stale_inputs: tuple[str, ...] = ()
    seconds: float = 0.0
    changed_aggregates: Mapping[str, Sequence[int]] = field(default_factory=dict, repr=False)
    judgements: Mapping[str, Judgement] = field(default_factory=dict, repr=False)
    views: Mapping[str, View] = field(default_factory=dict, repr=False)
    notes: tuple[Mapping[str, str], ...] = ()
    checks: tuple[CheckReport, ...] = ()
    estimates: tuple[Estimate, ...] = ()
    orphans: Mapping[str, int] = field(default_factory=dict)
    """Assets that are not declared any more (P17), and how many units they still have."""

    @property
    def stale(self) -> int:
        """How many units are certain to be made."""
        return sum(a.stale for a in self.assets)

    @property
    def up_to_date(self) -> bool:
        """Whether a run would do nothing at all."""
        return all(a.idle for a in self.assets) and all(s.idle for s in self.sources) and not self.to_check

    @property
    def lost(self) -> bool:
        """Whether anything is to be made or taken in again because its bytes are lost (P10)."""
        return any(a.causes.keys() & set(LOST) for a in self.assets) or any(s.lost for s in self.sources)

    @property
    def to_check(self) -> frozenset[str]:
        """The assets of which a run would ask a check."""
        return frozenset(check.asset for check in self.checks if check.due)

    def lean(self) -> Plan:
        """The same plan without the frames of all units that it was made from."""
        return replace(self, judgements={}, views={})

    def check(self) -> None:
        """Raise StaleInputError when a selected asset has a stale input that is not selected (P15)."""
        if self.stale_inputs:
            selected = [a.asset for a in self.assets]
            stale = [f"units of {name}" if name in selected else name for name in self.stale_inputs]
            one = len(stale) == 1 and self.stale_inputs[0] not in selected
            suggestion = (
                f"Select {' or '.join(f'+{name}' for name in selected)}, or add" if len(selected) < 4 else "Add"
            )
            raise StaleInputError(
                f"{', '.join(stale)} {'is' if one else 'are'} stale and not selected, but the selected assets "
                f"({', '.join(selected[:3])}{', ...' if len(selected) > 3 else ''}) are made of {'it' if one else 'them'}.",
                hint=f"{suggestion} --upstream.",
            )

    def to_json(self, *, units: bool = False) -> dict[str, Any]:
        """What `aipctl plan --json` prints; with `units` also the units that are not fresh."""
        assets = [a.to_json() | ({"details": [d.to_json() for d in a.details]} if units else {}) for a in self.assets]
        return {
            "project": self.project, "environment": self.environment, "stale": self.stale, "assets": assets,
            "sources": [s.to_json() for s in self.sources], "up_to_date": self.up_to_date,
            "stale_inputs": list(self.stale_inputs),
            "orphans": dict(self.orphans),
            "notes": [dict(note) for note in self.notes], "checks": [check.to_json() for check in self.checks],
            "undecided": [a.asset for a in self.assets if a.undecided and not (a.stale or a.pending or a.removed)],
            "estimate": {"seconds": round(self.seconds, 1), **total(self.estimates)},
            "estimates": [e.to_json() for e in self.estimates],
        }  # fmt: skip


def unsettled(
    graph: Graph,
    chosen: Collection[str],
    settled: Collection[str],
    changed_sources: Collection[str],
    *,
    force: bool = False,
) -> frozenset[str]:
    """The assets whose units must be looked at: not known to be settled, or below one that is not, or below a changed source."""
    scope = set(chosen) | graph.ancestors(chosen)
    roots = {n for n in scope if n not in settled and n not in graph.sources} | set(changed_sources)
    if force:
        roots |= set(chosen) - set(graph.sources)
    return frozenset((roots | graph.descendants(roots)) & scope)


def source_changes(
    source: str, observed: pl.DataFrame, known: pl.DataFrame
) -> tuple[SourcePlan, pl.DataFrame, pl.DataFrame]:
    """What is new, changed and gone: the plan, the observed rows to take in, and the known documents that are gone."""
    was = known[["name"]].hstack([known["identity"].alias("was")])
    differing = joined(observed, was, "name", "left")
    fresh = rows_where(differing, differing["was"].ne_missing(differing["identity"]))
    still = observed.height - differing["was"].null_count()
    gone = joined(known, observed, "name", "anti") if still < known.height else known.clear()
    new, lost = fresh["was"].null_count(), rows_where(fresh, among(fresh["was"], pl.Series([LOST_IDENTITY]))).height
    changed = fresh.height - new - lost
    return SourcePlan(source, observed.height, new, changed, gone.height, lost), without(fresh, "was"), gone


def without_lost(known: pl.DataFrame, damaged: pl.DataFrame) -> pl.DataFrame:
    """The known documents of a source; those whose bytes are lost are not known to be what they were: they are taken in again."""
    if damaged.is_empty():
        return known
    lost = pl.col("document").is_in(damaged["document"].implode())
    return known.with_columns(pl.when(lost).then(pl.lit(LOST_IDENTITY)).otherwise("identity").alias("identity"))


def make_plan(
    graph: Graph, environment: str, snapshot: Snapshot, choice: Choice, *, details: bool = True,
    standing: Mapping[str, Judgement] | None = None,
) -> Plan:  # fmt: skip
    """Walk the graph from the sources down and judge every asset that needs a look. Judgements that are `standing` are not made again."""
    scope = choice.assets | graph.ancestors(choice.assets)
    views: dict[str, View] = {}
    within: dict[str, View] = {}
    plans: list[AssetPlan] = []
    sources: list[SourcePlan] = []
    open_assets: dict[str, frozenset[str]] = {}
    blocking: set[str] = set()
    partial: set[str] = set()
    left = _Left(graph, choice, views)
    changing: set[str] = set()
    changed: dict[str, list[int]] = {}
    judgements: dict[str, Judgement] = {}
    seconds = 0.0
    for name in graph.ordered(scope):
        asset = graph.assets[name]
        state = snapshot.states.get(name)
        if isinstance(asset, Source):
            observed = snapshot.observed.get(name)
            known = state.documents if state else None
            if observed is None:
                sources.append(SourcePlan(name, snapshot.documents[name]))
            elif known is None:
                sources.append(SourcePlan(name, observed.height))
            else:
                sources.append(source_changes(name, observed, known)[0])
            if snapshot.how.partial(name):
                sources[-1] = replace(sources[-1], documents=snapshot.slices[name].total)
            if choice.force and name in choice.assets:
                sources[-1] = replace(
                    sources[-1], forced=True
                )  # its bytes are looked at, and taken in again where lost
            if not sources[-1].idle:
                changing.add(name)
            if observed is not None:
                views[name] = View(observed)
            continue
        above = frozenset().union(*(open_assets.get(up, frozenset()) for up in graph.upstream(name)))
        below_no_change = name in snapshot.how.aggregates and not any(
            views[up].open or up in changing for up in graph.upstream(name)
        )
        if state is None or name not in snapshot.definitions or name in snapshot.settled or below_no_change:
            if name in choice.assets:
                count = snapshot.settled.get(name, 1 if below_no_change else 0)
                plans.append(_timed(AssetPlan(name, count, count), asset, snapshot, None))
            if state is not None:
                views[name] = View(state.documents)
            continue
        part = snapshot.slices.get(name)
        if part is None:
            state = _with_going(asset, snapshot, views, state)
        elif not snapshot.how.partial(name):  # otherwise nothing else was read
            state = replace(state, made=part.of(state.made))
        if standing is not None and name in standing:
            judgement = standing[name]
        elif part is not None:
            for up in views.keys() - within.keys():
                # Where only a slice is read there is nothing else to leave out.
                beyond = up in snapshot.slices and not snapshot.how.partial(up)
                within[up] = snapshot.slices[up].of_view(views[up]) if beyond else views[up]
            judgement = judge_asset(asset, graph, within, snapshot.definitions[name], state)
        else:
            judgement = judge_chosen(asset, graph, views, snapshot.definitions[name], state, choice)
        judged = judgement.judged
        judgements[name] = judgement
        if state.former is None and (aggregates := changed_aggregates(asset, judgement)):
            changed[name] = aggregates
        below = view_below(judged, snapshot.states[name].documents, part)
        again = rows_where(judged, (judged["status"] == "stale") | (judged["status"] == "pending"))
        views[name] = replace(
            below,
            open=below.open or any(views[up].open for up in graph.upstream(name)),
            open_partitions=open_partitions(asset, again, views, state.there),
        )
        is_open = bool((judged["status"] != "fresh").any())
        if is_open:
            changing.add(name)
        chosen = choice.narrow(asset, judged)
        if choice.units:
            left.note(asset, judged, chosen["unit"], snapshot.states[name].documents, part, state.there)
        if name in choice.assets:
            found = replace(_asset_plan(name, chosen, judgement, details=details), undecided=bool(above))
            beside = part.beside(state.made) if part is not None else 0
            found = replace(found, units=found.units + beside, fresh=found.fresh + beside)
            plans.append(_timed(found, asset, snapshot, judged))
            seconds += plans[-1].stale * snapshot.seconds_per_unit.get(name, 0.0)
            # Units that are yet to appear are not there to be blocked; where these are all that is selected, nothing else would be made.
            if chosen["blocked"].any() or chosen.is_empty() or name not in choice.units:
                blocking |= above - choice.assets
            if above & partial and left.reach(asset, chosen["unit"], state.there):
                blocking |= above & partial
            others = judged.clear() if chosen is judged else joined(judged, chosen, "unit", "anti")
            if (others["status"] != "fresh").any() or left.missed.get(name):
                partial.add(name)  # units outside the selection stay stale
        if is_open or above:  # where something above is open, units may yet appear
            open_assets[name] = above | {name}
    return Plan(
        graph.project, environment, tuple(plans), tuple(sources), choice, graph.ordered(blocking), seconds, changed,
        judgements, views, estimates=estimated(((p.asset, p.stale, p.pending) for p in plans), snapshot.costs),
    )  # fmt: skip


def with_above(choice: Choice, names: Collection[str], graph: Graph, moment: Moment) -> Choice:
    """The choice with these assets above it: whole, or in the partitions that the chosen partitions are given."""
    needs: dict[str, set[str] | None] = {}
    units = {name: rule for name, rule in choice.units.items() if name not in names}
    for name in reversed(graph.ordered({*choice.assets, *names})):
        asset, rule = graph.assets[name], choice.units.get(name)
        keys = needs.get(name, set())
        if name in choice.assets:
            chosen = _chosen_keys(asset, rule, moment)
            keys = None if keys is None or chosen is None else keys | chosen
        if name in names and keys:
            labels = tuple(Label(Pattern(key)) for key in sorted(keys))
            units[name] = labels[0] if len(labels) == 1 else Either(labels)
        for dependency in asset.dependencies:
            above = dependency.upstream
            given: set[str] | None = None
            if keys is not None and dependency.relation is not None:
                there = {p: moment.partitions(p) for p in (asset.partitions, above.partitions) if p is not None}
                given = {key for own, key in partition_pairs(asset, dependency, there).iter_rows() if own in keys}
            known = needs.setdefault(above.name, set())
            needs[above.name] = None if given is None or known is None else known | given
    return replace(choice, assets=choice.assets | set(names), units=units)


def _chosen_keys(asset: Asset[..., Any], rule: UnitRule | None, moment: Moment) -> set[str] | None:
    """The partitions that are chosen; None where it is all of them, or where units are chosen by other names."""
    if asset.partitions is None or rule is None:
        return None
    return {one.key for one in moment.partitions(asset.partitions) if rule.matches(one.key)} or None


class _Unmade(NamedTuple):
    """A unit that was never made: which documents, and so which units below, come of it is not known."""

    asset: str
    unit: bytes
    label: str
    parent: str | None


@dataclass(frozen=True, slots=True)
class _Left:
    """What a run leaves behind that is not fresh, where only some units are selected: what would the selected ones be given of it?"""

    graph: Graph
    choice: Choice
    views: dict[str, View]
    """Of all assets, before the run."""
    after: dict[str, View] = field(default_factory=dict)
    """Of assets with units that are not selected: pending is what comes of those, and all that is selected stands."""
    unmade: dict[str, list[_Unmade]] = field(default_factory=dict)
    """Of an asset and of those whose documents are its units."""
    missed: dict[str, list[_Unmade]] = field(default_factory=dict)
    """Of an asset, the unmade units above it below which it is not selected: a unit is taken to be called as the one that it comes of."""

    def note(
        self, asset: Asset[..., Any], judged: pl.DataFrame, chosen: pl.Series, documents: pl.DataFrame, part: Slice | None,
        there: There,
    ) -> None:  # fmt: skip
        """Note an asset, given its units, which of them are selected, and its documents as they are."""
        name, driver = asset.name, self.graph.driver(asset.name)
        never = rows_where(judged, judged["materialization"].is_null() & (judged["status"] != "fresh"))
        above = self.unmade.get(driver.upstream.name, []) if driver is not None else []
        self.unmade[name] = [*above, *(_Unmade(name, *row) for row in never[["unit", "label", "parent"]].iter_rows())]
        passed = set(self.missed.get(driver.upstream.name, [])) if driver is not None else set()
        self.missed[name] = [one for one in above if one in passed or not self._selects(asset, one)]
        grouped = any(d.by is not None and self.views[d.upstream.name].open for d in asset.dependencies)

        is_chosen, status = among(judged["unit"], chosen), pl.col("status")
        then = pl.when(is_chosen & (status != "removed")).then(pl.lit("fresh"))
        then = then.when(~is_chosen & (status != "fresh")).then(pl.lit("stale")).otherwise("status")
        after = judged.with_columns(then.alias("status"))
        views = {**self.views, **self.after}
        view = view_below(after, documents, part)
        self.after[name] = replace(
            view,
            open=view.open or any(views[up.name].open for up in asset.upstreams if up.name in self.after)
            or bool(self.missed[name]) or (grouped and name in self.choice.units),
            open_partitions=open_partitions(asset, rows_where(after, after["status"] == "stale"), views, there),
        )  # fmt: skip

    def _selects(self, asset: Asset[..., Any], one: _Unmade) -> bool:
        return asset.name in self.choice.assets and self.choice.has(asset, one.label, one.parent)

    def reach(self, asset: Asset[..., Any], chosen: pl.Series, there: There) -> bool:
        """Whether some of these units of an asset would be given any of that."""
        views = {**self.views, **self.after}
        missed: dict[str, list[bytes]] = {}
        for one in {one for up in asset.upstreams for one in self.missed.get(up.name, ())}:
            missed.setdefault(one.asset, []).append(one.unit)
        for name, found in missed.items():
            units = pl.concat([views[name].open_units, pl.Series("unit", found, pl.Binary)])
            views[name] = replace(views[name], open_units=units)
        units = wanted_units(asset, self.graph, views, there).units
        return bool(among(chosen, rows_where(units, units["pending"])["unit"]).any())


def _timed(found: AssetPlan, asset: Asset[..., Any], snapshot: Snapshot, judged: pl.DataFrame | None) -> AssetPlan:
    """With what is to be said of its partitions and its freshness; without `judged`, every unit is known to be fresh."""
    oldest = snapshot.oldest.get(asset.name)
    if oldest is not None and asset.options.freshness is not None:
        found = replace(found, fresh_until=oldest + asset.options.freshness)
    own = asset.options.partitions
    if own is None or snapshot.moment is None:
        return found
    there = snapshot.moment.count(own)
    if judged is None:
        return replace(found, partitions={"all": there, "done": there, "missing": 0})
    units = judged.filter(pl.col("status") != "removed").with_columns(
        partition_key(pl.coalesce("parent", "label")).alias("key")
    )
    unfinished = units.filter(pl.col("status") != "fresh")["key"].n_unique()
    missing = there - units.filter(pl.col("materialization").is_not_null())["key"].n_unique()
    done = units["key"].n_unique() - unfinished
    return replace(found, partitions={"all": there, "done": done, "missing": missing})


def _with_going(asset: Asset[..., Any], snapshot: Snapshot, views: Mapping[str, View], state: AssetState) -> AssetState:
    """Of whole assets, what lineage still has was given, too: one document that is about to go tells enough."""
    if state.former is None:
        return state
    former = [state.former]
    for index, dependency in enumerate(asset.dependencies):
        if dependency.is_whole:
            now = views[dependency.upstream.name].documents
            going = joined(snapshot.states[dependency.upstream.name].documents, now, "address", "anti").head(1)
            given = state.made.select("materialization").drop_nulls().join(going.select("address"), how="cross")
            former.append(given.select("materialization", pl.lit(index, pl.Int64).alias("parameter"), "address"))
    return replace(state, former=pl.concat(former))


def _asset_plan(name: str, judged: pl.DataFrame, judgement: Judgement, *, details: bool) -> AssetPlan:
    """What is to be told of an asset, where these of its units are looked at."""
    statuses = Counter(judged["status"].to_list())
    first: Counter[str] = Counter()
    if statuses["stale"]:
        first.update(rows_where(judged, judged["status"] == "stale")["causes"].list.first().to_list())
    causes: dict[str, int] = {cause: first[cause] for cause in CAUSES if first[cause]}
    units: tuple[UnitPlan, ...] = ()
    if details and statuses["fresh"] < judged.height:
        rows = judgement.called(rows_where(judged, judged["status"] != "fresh"))[
            "called", "status", "causes"
        ].iter_rows()
        units = tuple(UnitPlan(called, status, tuple(found)) for called, status, found in rows)
    return AssetPlan(
        name, judged.height - statuses["removed"], statuses["fresh"], statuses["stale"], statuses["pending"], statuses["removed"],
        causes, units,
    )  # fmt: skip
