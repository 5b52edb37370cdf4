"""Snapshot: what is known when a plan is made or an asset is judged?

The sources are observed, lineage is read as of one moment, in a number of statements that does not depend on the number of units;
and of an asset that is known to be settled (every unit found fresh, with this definition, and nothing above it changed since)
nothing is read but that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from inspect import isawaitable

import polars as pl

from assetcore import sources
from assetcore.assets import Source
from assetcore.errors import SourceError, StorageError
from assetcore.frames import joined, without
from assetcore.grammar import Anywhere, Label
from assetcore.graph import AnyAsset
from assetcore.judgement import AssetState, Choice
from assetcore.lineage import acceptances, damage, read
from assetcore.lineage.acceptances import with_accepted
from assetcore.lineage.costs import unit_costs
from assetcore.lineage.heads import at_one_moment
from assetcore.lineage.named import by_unit
from assetcore.lineage.schema import Connection
from assetcore.lineage.trace import descending
from assetcore.observation import Look, as_documents, completed, observe, observe_one, observed_digest, source_unit
from assetcore.partitions import Dynamic, Moment, Partitions, checked_keys, shown_duration
from assetcore.plan import Snapshot, unsettled, without_lost
from assetcore.project import Project
from assetcore.slices import Slice, Slicing, slicing
from assetcore.staleness import MADE, Definition
from assetcore.suppose import Supposition, supposed_definitions, supposed_observation
from assetcore.units import document_address, group_address

__all__ = [
    "Read",
    "asset_states",
    "changed_commits",
    "is_settled",
    "now",
    "settled_with",
    "take",
    "take_descent",
]


FEW = 4
"""A source is read in slices when at most one in so many of its documents differ."""


@dataclass(frozen=True, slots=True)
class Read:
    """A snapshot to plan from, with what it was made of: the sources as observed, and the watermarks."""

    snapshot: Snapshot
    observed: Mapping[str, pl.DataFrame]
    marks: Mapping[int, read.Watermark]
    unread: Mapping[str, sources.Unread]
    """Of sources, the documents that could not be read: they are what they were."""

    def lean(self) -> Read:
        """What a run goes on with: the sources as observed, the slices and the watermarks, without the state of every unit."""
        return replace(self, snapshot=replace(self.snapshot, states={}, observed={}))


async def take(
    project: Project,
    choice: Choice,
    *,
    rehash: bool = False,
    entire: bool = False,
    supposed: Sequence[Supposition] = (),
) -> Read:
    """Observe the sources, and read what lineage knows of the units that need a look; with `entire`, of all units of their assets.

    What is `supposed` is taken as observed and declared.
    """
    graph = project.graph
    scope = choice.assets | graph.ancestors(choice.assets)
    names = [n for n in graph.sources if n in scope]
    if any(graph.assets[n].options.models for n in scope):
        await project.llm.learn()
    definitions = supposed_definitions(supposed, project.definitions(scope))
    moment = await now(project, scope)
    unread: dict[str, sources.Unread] = {name: [] for name in names}
    closely = {one.asset for one in supposed}
    looks = await observe(project, names, rehash=rehash, unread=unread, closely=closely)
    for name in closely.intersection(names):
        seen, before = looks[name].observed, looks[name].before
        assert seen is not None
        looks[name] = Look.at(supposed_observation(supposed, name, seen), before)
    while not isinstance(found := await _taken(project, choice, definitions, moment, looks, entire), Read):
        looks |= await observe(project, found, unread=unread, closely=found)
    return replace(found, unread={name: problems for name, problems in unread.items() if problems})


async def _taken(
    project: Project,
    choice: Choice,
    definitions: Mapping[str, Definition],
    moment: Moment,
    looks: Mapping[str, Look],
    entire: bool,
) -> Read | list[str]:
    """As `take`, after these looks; or the sources of which it is not known any more what was observed, where a glance had told that."""
    graph, names = project.graph, list(looks)
    async with project.engine.connect() as connection:
        await at_one_moment(connection)
        marks = await read.watermarks(connection, project.environment_id)
        lost = await damage.damaged_assets(connection, project.environment_id)
        settled = _settled(project, definitions, marks, lost, moment)
        damaged = [n for n in names if project.asset_ids[n] in lost]
        changed = [n for n in names if n in damaged or not _is_taken_in(project, n, looks[n].digest, marks)]
        look = unsettled(graph, choice.assets, settled, changed, force=choice.force)
        left = {n: u for n, u in settled.items() if n not in look}
        for name in left.keys() & choice.units.keys():
            left[name] = await _selected(project, connection, choice, name)
        needed = {up for n in look for direct in graph.upstream(n) for up in graph.chain(direct)} | look
        wanted = {*needed, *changed, *(choice.assets if choice.force else ())}
        there = {n: one for n, one in looks.items() if n in wanted or one.observed is not None}
        whole = await completed(project, connection, there)
        if lost_sight := [n for n in there if n not in whole]:
            return lost_sight
        raw = {n: one.observed for n, one in whole.items() if one.observed is not None}
        before = {n: one.before for n, one in whole.items() if one.before is not None}
        sound = {} if entire else {n: before[n] for n in changed if n not in damaged}
        differing = await _differing(project, connection, raw, sound, marks)
        del there, whole, before, sound
        entirely = {*(choice.assets if choice.force else choice.units), *(n for n in changed if n not in differing)}
        how = slicing(graph, look, settled, changed, entirely)
        states = await asset_states(
            project,
            connection,
            {n for n in needed if not how.partial(n)},
            definitions,
            moment,
            judged=None if entire else look,
        )
        slices: dict[str, Slice] = {}
        for name in graph.ordered(how.roots):
            if name in differing:
                slices[name] = differing[name]
            else:
                upstream = graph.chain(name)[1]
                slices[name] = Slice(_addresses(slices[upstream], states[upstream].documents), settled[name])
            if how.partial(name):
                states |= await asset_states(project, connection, [name], definitions, moment, units=slices[name].units)
        seconds = await read.seconds_per_unit(connection, project.id) if look else {}
        took = await unit_costs(connection, [project.asset_ids[n] for n in look if n in definitions])
    observed: dict[str, pl.DataFrame] = {}
    for name in raw:
        seen = slices[name].seen(raw[name]) if how.partial(name) else raw[name]
        observed[name] = as_documents(graph.assets[name], seen, states[name].documents) if name in states else seen
    oldest = {n: o for n in settled if (o := _oldest(marks[project.asset_ids[n]])) is not None}
    oldest |= {n: state.oldest for n, state in states.items() if state.oldest is not None and n not in slices}
    snapshot = Snapshot(
        definitions,
        states,
        left,
        observed,
        seconds,
        slices,
        how,
        frozenset(settled),
        moment,
        oldest,
        {n: took[i] for n in look if (i := project.asset_ids[n]) in took},
        {n: one.documents for n, one in looks.items()},
    )
    return Read(snapshot, raw, marks, {})


async def take_descent(
    project: Project, connection: Connection, name: str, how: Slicing, document: str, unit: bytes
) -> Snapshot | None:
    """Observe one document of a source, and read what lineage knows of the units of `name`, and of those above, that descend from it.

    The rest is taken for what it is known to be; so are these where the document is what was taken in, and all is settled above it: then
    nothing is read of them. For assets `how` says that nothing else decides (`slices.descent`). None where this unit of `name` is none
    of them any more: what it was made of is not made now.
    """
    graph = project.graph
    if any(graph.assets[n].options.models for n in how.roots):
        await project.llm.learn()
    definitions = project.definitions(how.roots)
    moment = Moment(project.clock(), {})
    root = how.roots[name]
    raw = await observe_one(project, connection, root, document)
    top = pl.Series("unit", [source_unit(document)], pl.Binary)
    known = await read.current_identities(connection, project.environment_id, [project.asset_ids[root]], top)
    if known[project.asset_ids[root]]["identity"].equals(raw["identity"]):
        marks = await read.watermarks(connection, project.environment_id)
        lost = await damage.damaged_assets(connection, project.environment_id)
        settled = _settled(project, definitions, marks, lost, moment)
        if project.asset_ids[root] not in lost and not unsettled(graph, [name], settled, ()):
            return Snapshot(definitions, {}, settled, {root: raw}, moment=moment)
    units = await descending(connection, project.environment_id, [project.asset_ids[n] for n in how.roots], top)
    if unit not in units.to_list():
        return None
    states = await asset_states(project, connection, how.roots, definitions, moment, units=units)
    slices = {root: Slice(top, 1, pl.Series("name", [document]))}
    slices |= {one: Slice(units, 0) for one in how.roots if one != root}
    observed = {root: as_documents(graph.assets[root], raw, states[root].documents)}
    return Snapshot(definitions, states, {}, observed, slices=slices, how=how, moment=moment)


async def _selected(project: Project, connection: Connection, choice: Choice, name: str) -> int:
    """How many units of an asset that needs no look are selected: nothing but how they are called is asked."""
    asset, rule = project.graph.assets[name], choice.units[name]
    rule = rule.rule if isinstance(rule, Anywhere) else rule
    label = rule.pattern.text if isinstance(rule, Label) and not rule.pattern.glob else None
    if label is not None and asset.partitions is None:
        return len(await by_unit(connection, project.environment_id, project.asset_ids[name], label))
    labels = await read.labels(connection, project.environment_id, project.asset_ids[name])
    return choice.narrow(asset, labels).height


async def _differing(
    project: Project,
    connection: Connection,
    observed: Mapping[str, pl.DataFrame],
    before: Mapping[str, pl.DataFrame],
    marks: Mapping[int, read.Watermark],
) -> dict[str, Slice]:
    """Of each changed source the documents that are new, differ or are gone; a source of which most differ is left out.

    Where lineage holds what was observed the time `before`, it is not asked what that was.
    """
    found: dict[str, Slice] = {}
    held = {n: seen for n, seen in before.items() if _is_taken_in(project, n, observed_digest(seen), marks)}
    asked = {name: project.asset_ids[name] for name in before if name not in held}
    identities: dict[int, pl.DataFrame] = {}
    if asked:
        identities = await read.current_identities(connection, project.environment_id, asked.values())
    for name in before:
        known = held[name] if name in held else identities.pop(asked[name])
        now = observed[name].select("name", pl.col("identity").alias("now"))
        both = joined(known, now, "name", "full")
        differing = both.filter(pl.col("identity").ne_missing(pl.col("now")))["name"]
        if len(differing) * FEW <= known.height:
            units = pl.Series("unit", [source_unit(n) for n in differing], pl.Binary)
            found[name] = Slice(units, now.height, differing)
    return found


def _addresses(above: Slice, documents: pl.DataFrame) -> pl.Series:
    """The units below a slice: the addresses of the documents that are or were in it, as far as they are known."""
    known = above.of(documents)["address"].rename("unit")
    if above.names is None:
        return known
    pairs = zip(above.units, above.names, strict=True)
    return pl.concat([known, pl.Series("unit", [document_address(u, n) for u, n in pairs], pl.Binary)]).unique()


async def now(project: Project, names: Iterable[str]) -> Moment:
    """What time it is, and which partitions these assets have by that."""
    return Moment(project.clock(), await _listed(project, names))


async def _listed(project: Project, names: Iterable[str]) -> dict[Dynamic, tuple[str, ...]]:
    """The keys of the dynamic partitions of these assets, each function asked once."""
    found: dict[Dynamic, tuple[str, ...]] = {}
    for asset in (project.graph.assets[name] for name in project.graph.ordered(names)):
        own = asset.options.partitions
        if isinstance(own, Dynamic) and own not in found:
            try:
                given = await asyncio.to_thread(own.function)
                keys = await given if isawaitable(given) else given
                keys = (
                    tuple(keys) if isinstance(keys, Iterator) else keys
                )  # asked for, a generator is the user's code, too
            except Exception as error:  # the user's function, whatever it raises
                told = f"{type(error).__name__}: {error}"
                raise SourceError(f"{asset.place}: {own!r} of {asset.name} could not be asked: {told}.") from error
            try:
                found[own] = checked_keys(keys)
            except ValueError as error:
                raise SourceError(
                    f"{asset.place}: {own!r} of {asset.name} {error}.",
                    hint="It gives a list of texts, each of them once.",
                ) from None
    return found


def _settled(
    project: Project,
    definitions: Mapping[str, Definition],
    marks: Mapping[int, read.Watermark],
    lost: Collection[int],
    moment: Moment,
) -> dict[str, int]:
    """The assets that need no look as long as nothing changes above them, and how many units each has."""
    identifiers = {name: project.asset_ids[name] for name in definitions}
    return {
        name: marks[identifier].units
        for name, identifier in identifiers.items()
        if identifier not in lost and is_settled(project, name, definitions[name].digest, marks, moment)
    }


def is_settled(project: Project, name: str, digest: bytes, marks: Mapping[int, read.Watermark], moment: Moment) -> bool:
    """Whether every unit was found fresh with this definition, wiring and partitions, none has expired, and nothing above has changed."""
    mark = marks.get(project.asset_ids[name])
    if mark is None or mark.settled is None or mark.settled.get("definition") != digest.hex():
        return False
    options = project.graph.assets[name].options
    if options.freshness is not None and mark.units:
        oldest = _oldest(mark)
        if oldest is None or oldest + options.freshness <= moment.now:
            return False
    if mark.settled.get("wiring") != _wiring(project, name):
        return False
    if mark.settled.get("partitions") != _division(project.graph.assets[name], moment):
        return False
    return bool(mark.settled.get("upstream") == changed_commits(project, name, marks))


def settled_with(
    project: Project,
    name: str,
    definition: Definition,
    marks: Mapping[int, read.Watermark],
    moment: Moment,
    oldest: datetime | None,
) -> dict[str, object]:
    """Under which conditions every unit of an asset is fresh; what `is_settled` asks."""
    options = project.graph.assets[name].options
    settled: dict[str, object] = {
        "definition": definition.digest.hex(),
        "upstream": changed_commits(project, name, marks),
    }
    if (wiring := _wiring(project, name)) is not None:
        settled["wiring"] = wiring
    if (division := _division(project.graph.assets[name], moment)) is not None:
        settled["partitions"] = division
    if options.freshness is not None and oldest is not None:
        settled["oldest"] = oldest.isoformat()
    return settled


def _wiring(project: Project, name: str) -> list[list[int | bool | None]] | None:
    """Which asset each parameter is given, divided per which, and what is crossed, where the assets above may be wired in several ways.

    No recipe says it, because the inputs do: but of a settled asset they are not looked at.
    """
    dependencies, ids = project.graph.assets[name].dependencies, project.asset_ids
    if len(dependencies) == 1 and dependencies[0].per is None:
        return None
    return [[ids[d.upstream.name], None if d.per is None else ids[d.per.name], d.cross] for d in dependencies]


def _division(asset: AnyAsset, moment: Moment) -> list[str] | None:
    """Which partitions there are, and what each is given: the parameters say it in words, which are no part of a recipe."""
    if asset.partitions is None:
        return None
    relations = [
        d.relation if isinstance(d.relation, str) else shown_duration(d.relation) if d.relation else "all"
        for d in asset.dependencies
    ]
    return [moment.standing(asset.options.partitions) if asset.options.partitions is not None else "", *relations]


def _oldest(mark: read.Watermark) -> datetime | None:
    text = (mark.settled or {}).get("oldest")
    return datetime.fromisoformat(text) if text is not None else None


def _is_taken_in(project: Project, name: str, observed: str, marks: Mapping[int, read.Watermark]) -> bool:
    """Whether lineage holds exactly what was observed, which has this digest."""
    mark = marks.get(project.asset_ids[name])
    return mark is not None and mark.settled is not None and mark.settled.get("observed") == observed


def changed_commits(project: Project, name: str, marks: Mapping[int, read.Watermark]) -> dict[str, int]:
    """At which commit each asset that `name` is made of last changed; by identifier, which a renamed asset keeps."""
    identifiers = [project.asset_ids[up] for up in project.graph.upstream(name)]
    return {str(i): marks[i].changed if i in marks else 0 for i in identifiers}


async def asset_states(
    project: Project,
    connection: Connection,
    names: Iterable[str],
    definitions: Mapping[str, Definition],
    moment: Moment,
    *,
    units: pl.Series | None = None,
    judged: Collection[str] | None = None,
    named: Collection[str] | None = None,
    placed: Collection[str] = (),
) -> dict[str, AssetState]:
    """The state of these assets, in a number of statements that does not depend on the number of units; of some `units`, or of all.

    With `judged`, only what it takes to judge the units of these assets is read: of the others, how they were made is not. With
    `named`, how documents are called is only read of these. Of those that are `placed`, it is read where the bytes lie, too.
    """
    identifiers = {n: project.asset_ids[n] for n in names}
    assets = list(identifiers.values())
    if not assets:
        return {}
    in_parts = None if judged is None else [i for n, i in identifiers.items() if project.graph.is_taken_in_parts(n)]
    called = None if named is None else [i for n, i in identifiers.items() if n in named]
    lying = [i for n, i in identifiers.items() if n in placed]
    documents = await read.current_documents(
        connection, project.environment_id, assets, units=units, in_parts=in_parts, named=called, placed=lying
    )
    looked = assets if judged is None else [i for n, i in identifiers.items() if n in judged]
    made = await read.made_units(connection, project.environment_id, looked, units=units)
    known = await read.definitions(connection, assets)
    accepted = await acceptances.of_assets(connection, assets)
    lost = await damage.current_damage(connection, project.environment_id, assets)
    nothing = pl.DataFrame(schema=MADE)
    timed = {
        identifiers[n]: moment.now - freshness
        for n in identifiers
        if identifiers[n] in looked
        and n in definitions
        and (freshness := project.graph.assets[n].options.freshness) is not None
    }
    expired = await read.expired(connection, project.environment_id, timed, units) if timed else {}
    oldest = await read.oldest(connection, project.environment_id, timed) if timed else {}
    states: dict[str, AssetState] = {}
    for name, identifier in identifiers.items():
        damaged = lost if lost.is_empty() else lost.filter(pl.col("asset") == identifier)
        frame = documents.pop(identifier)
        if damaged.height and isinstance(project.graph.assets[name], Source):
            frame = without_lost(frame, damaged)
        frame = await _with_values(project, connection, name, frame)
        current = next(
            (i for i, d in known[identifier].items() if name in definitions and d.digest == definitions[name].digest),
            None,
        )
        states[name] = AssetState(
            made.get(identifier, nothing),
            frame,
            current,
            with_accepted(known[identifier], definitions.get(name), accepted.get(identifier, ())),
            damaged=damaged,
            expired=expired.get(identifier),
            oldest=oldest.get(identifier),
            there={p: moment.partitions(p) for p in _partitions(project.graph.assets[name])}
            if name in definitions
            else {},
        )
    return states


def _partitions(asset: AnyAsset) -> set[Partitions]:
    """Those of the asset, and of what it is made of."""
    return {p for one in (asset, *asset.upstreams) if (p := one.partitions) is not None}


async def _with_values(project: Project, connection: Connection, name: str, documents: pl.DataFrame) -> pl.DataFrame:
    """The documents with the values by which some asset groups them, as text: one of each group is read, Postgres has no values."""
    output = project.graph.assets[name].output
    for field in sorted(project.graph.consumers_of_fields(name)):
        grouped = documents.with_columns(group_address(output, field).alias("group"))
        firsts = grouped.unique("group", keep="first", maintain_order=True)
        stored = await read.stored(connection, firsts["document"].to_list())
        try:
            values = await project.reader.column([stored[d] for d in firsts["document"]], field)
            shown = [str(value) for value in values]
        except (
            StorageError
        ):  # documents of an earlier class, without the field: they are stale, and shown without a value
            shown = [None] * firsts.height
        labels = firsts.select("group", pl.Series(f"value:{field}", shown, pl.String))
        documents = without(joined(grouped, labels, "group", "left"), "group")
    return documents
