"""Explain: where did it come from, and what came of it?

`find` says which documents a REF names. `lineage` follows documents, up or down, through one-to-many and many-to-one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from assetcore.documents import document_id
from assetcore.errors import NothingSelectedError, SelectionError, UsageError
from assetcore.lineage import environments, forgetting, history, named, runs, trace
from assetcore.lineage.asking import by_index
from assetcore.lineage.failures import failures_labelled
from assetcore.lineage.heads import at_one_moment
from assetcore.lineage.named import Found
from assetcore.lineage.schema import Connection
from assetcore.moments import RunMoment, moment
from assetcore.project import Project
from assetcore.refs import Ref, format_ref, parse_ref, suggestion

__all__ = [
    "Lineage",
    "LineageNode",
    "check_forgotten",
    "check_one",
    "commit_at",
    "find",
    "in_partition",
    "lineage",
    "no_unit",
    "origins",
    "units_labelled",
]

EXPANDED = 200
"""A whole asset that was given is shown document by document up to so many; beyond, as the asset."""
NODES = 5000
NAMED = 10


@dataclass(frozen=True, slots=True)
class LineageNode:
    """A document of a trace; or a whole asset (`document` and `sha256` are None then), when it has very many documents."""

    id: str
    asset: str
    unit: str | None
    document: str | None
    sha256: str | None

    def to_json(self) -> dict[str, Any]:
        return {"id": self.id, "asset": self.asset, "unit": self.unit, "document": self.document, "sha256": self.sha256}


@dataclass(frozen=True, slots=True)
class Lineage:
    """A trace: edges go from a document to what it was made of (up), or to what was made of it (down).

    `spans`, where they were asked for, say which part `of` another node a `document` is.
    """

    root: str
    direction: str
    nodes: tuple[LineageNode, ...]
    edges: tuple[tuple[str, str], ...]
    truncated: bool = False
    spans: tuple[Mapping[str, Any], ...] | None = None
    accepted: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        found = {
            "root": self.root, "direction": self.direction, "nodes": [n.to_json() for n in self.nodes],
            "edges": [list(e) for e in self.edges], "truncated": self.truncated,
            **({"accepted": {asset: list(said) for asset, said in self.accepted.items()}} if self.accepted else {}),
        }  # fmt: skip
        return found | ({} if self.spans is None else {"spans": [dict(span) for span in self.spans]})


async def find(
    project: Project, connection: Connection, text: str, *, at: str | None = None, limit: int | None = None
) -> list[Found]:
    """The documents that a REF names, now or at a time: that behind its @, or `at`.

    Raises SelectionError where it names none, or is the beginning of several ids; UsageError where the time is none.
    """
    ref = parse_ref(text)
    commit = await commit_at(project, connection, ref.time or at)
    found = await _find(project, connection, ref, text, commit, limit)
    return await named.qualified(connection, project.environment_id, found, commit)


async def commit_at(project: Project, connection: Connection, time: str | None) -> int | None:
    """The last commit at a time (`moments`), from which follows what everything then was; None for now."""
    if time is None:
        return None
    now = datetime.now(UTC).astimezone()
    meant = moment(time, now)
    if isinstance(meant, RunMoment):
        meant = (await runs.find(connection, project.id, meant.run)).finished_at or now
    return await history.commit_at(connection, project.id, project.environment_id, meant)


async def _find(
    project: Project, connection: Connection, ref: Ref, text: str, commit: int | None, limit: int | None
) -> list[Found]:
    environment = project.environment_id
    if ref.asset is not None and ref.asset in project.asset_ids:
        identifier = project.asset_ids[ref.asset]
        if ref.unit is None:
            found = await named.of_asset(connection, environment, identifier, commit=commit, limit=limit)
            if not found:
                await check_forgotten(project, connection, ref.asset, ref.asset)
            if not found and commit is not None:
                raise NothingSelectedError(
                    f"{ref.asset} had no documents then.", hint=f"See: aipctl history {ref.asset}"
                )
            if not found:
                raise NothingSelectedError(
                    f"{ref.asset} has no documents yet in {project.environment}.",
                    hint=f"Make them: aipctl materialize +{ref.asset}",
                )
            return found
        units = await in_partition(project, connection, ref.asset, ref.unit, commit)
        units = units or await units_labelled(project, connection, ref.asset, ref.unit, commit)
        found = await named.documents(connection, environment, identifier, [(u, n) for u, n, _ in units], commit)
        if ref.document is not None:
            found = [f for f in found if f.name == ref.document]
        unit = format_ref(ref.asset, ref.unit)
        if not found and ref.document is None:
            raise NothingSelectedError(f"{unit} made no documents.", hint=f"See: aipctl history '{unit}'")
        if not found:
            raise NothingSelectedError(f"{text} names no document.", hint=f"See: aipctl show '{unit}'")
        return found
    if ref.prefix is not None and ref.unit is None:
        found = await named.with_prefix(connection, environment, ref.prefix, commit)
        if len({f.sha256 for f in found}) > 1 or len(found) > 1:
            names = {i: n for n, i in project.asset_ids.items()}
            shown = "\n".join(
                f"  {document_id(f.sha256, max(8, len(ref.prefix) + 2))}  {format_ref(names[f.asset], f.unit, f.name)}"
                for f in found[:20] if f.asset in names
            )  # fmt: skip
            same = len({f.sha256 for f in found}) == 1
            raise SelectionError(
                f"{text} is the beginning of {len(found)} documents' ids:\n{shown}",
                hint=f"{'They have the same content: name' if same else 'Give more of its id, or name'} it as it is listed.",
            )
        if found:
            return found
    hint = suggestion(ref.asset or text, project.graph.assets)
    if ref.prefix is not None and ref.time is None:
        earlier = f"If it was made earlier and is not current, say as of when, by a run or a time: '{text}@RUN'."
        hint = f"{hint} {earlier}" if hint else earlier
    raise NothingSelectedError(f"There is no asset or document {text}.", hint=hint)


async def units_labelled(
    project: Project, connection: Connection, asset: str, label: str, commit: int | None = None
) -> list[tuple[bytes, str, str | None]]:
    """The one unit of an asset that goes by this label, or is alone in this partition, now or as of a commit.

    Raises NothingSelectedError, SelectionError.
    """
    units = await named.by_unit(connection, project.environment_id, project.asset_ids[asset], label, commit)
    units = units or await in_partition(project, connection, asset, label, commit)
    if not units:
        raise await no_unit(project, connection, asset, label, commit)
    check_one(asset, label, units)
    return units


async def in_partition(
    project: Project, connection: Connection, asset: str, label: str, commit: int | None = None
) -> list[tuple[bytes, str, str | None]]:
    """The units in a partition of an asset that has several of them in one, now or as of a commit: unit, label, parent."""
    if project.graph.assets[asset].partitions is None or project.graph.is_by_partition(asset):
        return []
    return await named.in_partition(connection, project.environment_id, project.asset_ids[asset], label, commit)


async def no_unit(
    project: Project,
    connection: Connection,
    asset: str,
    label: str,
    commit: int | None = None,
    near: Iterable[str] = (),
) -> NothingSelectedError:
    """That an asset has no unit of this label, now or as of a commit; where it is told what became of it, or which one was meant.

    That may be one of those `near` it, or one that has documents. Raises NothingSelectedError where it was forgotten.
    """
    await check_forgotten(project, connection, asset, label)
    environment, identifier, ref = project.environment_id, project.asset_ids[asset], format_ref(asset, label)
    if commit is None and await failures_labelled(connection, environment, identifier, label):
        return NothingSelectedError(f"{ref} was never made: it failed.", hint=f"See: aipctl why '{ref}'")
    says = f"{asset} has no unit {label!r}" if commit is None else f"{asset} had no unit {label!r} then"
    ever = await history.units_ever(connection, identifier, label)
    if ever and await history.versions(connection, environment, identifier, [unit for unit, _, _ in ever], ever[0][1]):
        return NothingSelectedError(
            f"{says}{' any more' if commit is None else ''}.", hint=f"See: aipctl history '{ref}'"
        )
    documents = await named.of_asset(connection, environment, identifier, commit=commit, limit=5000)
    return NothingSelectedError(f"{says}.", hint=suggestion(label, {*near, *(d.unit for d in documents)}))


async def check_forgotten(project: Project, connection: Connection, asset: str, label: str) -> None:
    """Raise NothingSelectedError where a unit of this label was forgotten."""
    found = await forgetting.tombstone(connection, project.id, project.asset_ids[asset], named.ends_of(label))
    if found is not None:
        raise NothingSelectedError(
            f"{format_ref(asset, label)} {found}.",
            hint="The report is in the folder reports of the home of whoever did it.",
        )


def check_one(asset: str, label: str, units: Sequence[tuple[bytes, str, str | None]]) -> None:
    """Raise SelectionError where several units go by one label, or are in one partition."""
    if len(units) > 1:
        refs = sorted(format_ref(asset, f"{parent}/{name}") for _, name, parent in units)
        shown = ", ".join(refs[:NAMED]) + (f", and {len(units) - NAMED:,} more" if len(units) > NAMED else "")
        below = "" if any(label in (name, f"{parent}/{name}") for _, name, parent in units) else "in "
        raise SelectionError(f"{asset} has {len(units):,} units {below}{label!r}.", hint=f"Say which: {shown}.")


# -- lineage -------------------------------------------------------------------------------------------------------------------


async def lineage(
    project: Project, text: str, direction: str, depth: int | None, at: str | None = None, *, spans: bool = False
) -> Lineage:
    """Follow documents up (what they were made of) or down (what was made of them), `depth` steps or to the end, now or at a time.

    They are those that a REF names, or that a run made, by the beginning of its identifier. Raises UsageError where it is no direction.
    """
    if direction not in ("up", "down"):
        raise UsageError(f"Lineage goes 'up' or 'down', not {direction!r}.")
    async with project.engine.connect() as connection:
        await at_one_moment(connection)
        await by_index(connection)
        commit = await commit_at(project, connection, parse_ref(text).time or at)
        roots = await _roots(project, connection, text, at)
        await by_index(connection, named=True)
        names = {i: n for n, i in project.asset_ids.items()}
        found: dict[int, Found] = {f.id: f for f in roots}
        # What was made again, with another result in between, is one document.
        firsts = {(f.asset, f.address, f.identity): f.id for f in roots}
        same = {f.id: f.id for f in roots}
        edges: set[tuple[str, str]] = set()
        wholes: dict[str, LineageNode] = {}
        frontier = set(found)
        steps, seen_from = 0, project.environment_id
        while frontier and (depth is None or steps < depth) and len(found) < NODES:
            follow = trace.up if direction == "up" else trace.down
            step = await follow(connection, seen_from, frontier, commit)
            pairs = set(step.edges)
            if (
                direction == "down" and not steps and not pairs
            ):  # an asset that was given another name has other documents
                names_before = await trace.formerly(connection, project.id, frontier, list(names))
                if names_before:
                    step = await follow(connection, project.environment_id, set(names_before), commit)
                    pairs = {(names_before[a], b) for a, b in step.edges}
            for asset, environment, given, document, _ in step.wholes:
                members = await named.of_asset(connection, environment, asset, commit=given, limit=EXPANDED + 1)
                if len(members) > EXPANDED:
                    node = LineageNode(f"{names.get(asset, '?')}@{given}", names.get(asset, "?"), None, None, None)
                    wholes[node.id] = node
                    edges.add((_node_id(document), node.id))
                    edges |= _asset_edges(project, node, wholes) if depth is None else set()
                else:
                    pairs |= {(document, member.id) for member in members}
            if step.wholes:
                seen_from, commit = await trace.when_made(connection, seen_from, step.wholes, commit)
            beyond = {b for _, b in pairs} - same.keys()
            looked_up = await named.look_up(connection, beyond) if beyond else {}
            same |= {i: firsts.setdefault((f.asset, f.address, f.identity), i) for i, f in looked_up.items()}
            new = [f for i, f in looked_up.items() if same[i] == i]
            found |= {f.id: f for f in await named.qualified(connection, seen_from, new, commit)}
            edges |= {(_node_id(a), _node_id(same[b])) for a, b in pairs if a in found and b in same}
            frontier = {f.id for f in new}
            steps += 1
        if any(f.asset not in names for f in found.values()):
            known = await environments.registered(connection, project.id)
            names = {i: name for i, (name, _) in known.items()} | names
        excerpts = await trace.excerpts(connection, seen_from, set(found), commit) if spans else {}
    nodes = [
        LineageNode(_node_id(f.id), names.get(f.asset, "?"), f.unit, f.name, f.sha256.hex()) for f in found.values()
    ]
    root = _node_id(roots[0].id) if len(roots) == 1 else text
    parts = tuple(
        {
            "document": _node_id(document),
            "of": _node_id(same.get(whole, whole)),
            "kind": kind,
            "start": start,
            "end": end,
            "pointer": pointer,
        }
        for document, (whole, kind, start, end, pointer) in sorted(excerpts.items())
    )
    every = (*nodes, *wholes.values())
    return Lineage(root, direction, every, tuple(sorted(edges)), len(found) >= NODES, parts if spans else None)


async def origins(project: Project, connection: Connection, documents: Collection[int]) -> list[Found]:
    """What these documents were made of, as far up as lineage goes: all that was made of nothing, however much it is."""
    found, frontier = set(documents), set(documents)
    ends: set[int] = set()
    seen_from, commit = project.environment_id, None
    while frontier:
        step = await trace.up(connection, seen_from, frontier, commit)
        above = {document for _, document in step.edges}
        for asset, environment, given in {whole[:3] for whole in step.wholes}:
            above |= {one.id for one in await named.of_asset(connection, environment, asset, commit=given)}
        if step.wholes:
            seen_from, commit = await trace.when_made(connection, seen_from, step.wholes, commit)
        ends |= frontier - {document for document, _ in step.edges} - {document for *_, document, _ in step.wholes}
        frontier = above - found
        found |= frontier
    ended = list((await named.look_up(connection, ends)).values())
    return await named.qualified(connection, project.environment_id, ended)


async def _roots(project: Project, connection: Connection, text: str, at: str | None) -> list[Found]:
    try:
        return await find(project, connection, text, at=at)
    except NothingSelectedError:
        ref = parse_ref(text)
        known = [run.id for run in await runs.beginning(connection, project.id, ref.prefix)] if ref.prefix else []
        if ref.asset in project.asset_ids or len(known) != 1:
            raise
        made = await named.of_run(connection, project.id, known[0], NODES)
        if not made:
            raise NothingSelectedError(
                f"The run {known[0]} made nothing.", hint=f"See: aipctl runs {known[0]}"
            ) from None
        return made


def _asset_edges(project: Project, node: LineageNode, wholes: dict[str, LineageNode]) -> set[tuple[str, str]]:
    """Above a whole asset the trace goes on by assets."""
    edges: set[tuple[str, str]] = set()
    waiting = [node]
    while waiting:
        below = waiting.pop()
        for name in project.graph.upstream(below.asset) if below.asset in project.graph.assets else ():
            above = wholes.get(name) or LineageNode(name, name, None, None, None)
            edges.add((below.id, above.id))
            if name not in wholes:
                wholes[name] = above
                waiting.append(above)
    return edges


def _node_id(document: int) -> str:
    return str(document)
