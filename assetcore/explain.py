"""Explain: why is it stale, and where did it come from?

`why` goes down to the root: the document, the config value, the model or the lines of code that changed, also through assets
whose own state is open until one above them is made. `lineage` follows documents, up or down, through one-to-many and many-to-one.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from assetcore.assets import Source
from assetcore.documents import document_id
from assetcore.errors import AssetcoreError, NothingSelectedError, SelectionError
from assetcore.lineage import read, trace
from assetcore.lineage.schema import Connection
from assetcore.lineage.trace import Found
from assetcore.plan import AssetState, Plan, Snapshot
from assetcore.project import Project
from assetcore.selection import format_ref, parse_ref, suggestion
from assetcore.snapshot import source_unit
from assetcore.staleness import COMPONENTS, Component
from assetcore.units import document_address

__all__ = ["CauseFound", "Lineage", "LineageNode", "Why", "find", "lineage", "why"]

EXPANDED = 200
"""A whole asset that was given is shown document by document up to so many; beyond, as the asset."""
NODES = 5000
ROOT_CAUSES = 20
DIFF_BYTES = 200_000


@dataclass(frozen=True, slots=True)
class CauseFound:
    """One reason, with what was and what is: digests, values, or a diff."""

    code: str
    detail: str
    before: Any = None
    after: Any = None
    diff: str | None = None

    def to_json(self) -> dict[str, Any]:
        found = {"code": self.code, "detail": self.detail, "before": self.before, "after": self.after}
        return found | ({"diff": self.diff} if self.diff else {})


@dataclass(frozen=True, slots=True)
class Why:
    """Why a unit is stale; `fresh` when it is not. `checks` say what they found in what it currently is."""

    unit: str
    status: str
    causes: tuple[CauseFound, ...]
    checks: tuple[Mapping[str, Any], ...] = ()

    @property
    def fresh(self) -> bool:
        return self.status == "fresh"

    def to_json(self) -> dict[str, Any]:
        return {
            "unit": self.unit,
            "fresh": self.fresh,
            "status": self.status,
            "causes": [c.to_json() for c in self.causes],
            "checks": [dict(c) for c in self.checks],
        }


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
    """A trace: edges go from a document to what it was made of (up), or to what was made of it (down)."""

    root: str
    direction: str
    nodes: tuple[LineageNode, ...]
    edges: tuple[tuple[str, str], ...]
    truncated: bool = False

    def to_json(self) -> dict[str, Any]:
        return {
            "root": self.root, "direction": self.direction, "nodes": [n.to_json() for n in self.nodes],
            "edges": [list(e) for e in self.edges], "truncated": self.truncated,
        }  # fmt: skip


async def find(project: Project, connection: Connection, text: str, *, limit: int | None = None) -> list[Found]:
    """The current documents that a REF names. Raises SelectionError where it names none, or is the beginning of several ids."""
    return await trace.qualified(connection, project.environment_id, await _find(project, connection, text, limit))


async def _find(project: Project, connection: Connection, text: str, limit: int | None) -> list[Found]:
    ref = parse_ref(text)
    if ref.asset is not None and ref.asset in project.asset_ids:
        identifier = project.asset_ids[ref.asset]
        if ref.unit is None:
            found = await trace.of_asset(connection, project.environment_id, identifier, limit=limit)
            if not found:
                raise NothingSelectedError(
                    f"{ref.asset} has no documents yet.", hint=f"Make them: aipctl materialize +{ref.asset}"
                )
            return found
        units = await _units(project, connection, ref.asset, ref.unit)
        found = await trace.documents(connection, project.environment_id, identifier, [u for u, _, _ in units])
        if ref.document is not None:
            found = [f for f in found if f.name == ref.document]
        if not found:
            raise NothingSelectedError(
                f"{text} names no document.", hint=f"See: aipctl show {format_ref(ref.asset, ref.unit)}"
            )
        return found
    if ref.prefix is not None and ref.unit is None:
        found = await trace.with_prefix(connection, project.environment_id, ref.prefix)
        if len({f.sha256 for f in found}) > 1 or len(found) > 1:
            names = {i: n for n, i in project.asset_ids.items()}
            shown = "\n".join(
                f"  {document_id(f.sha256, max(8, len(ref.prefix) + 2))}  {format_ref(names[f.asset], f.unit, f.name)}"
                for f in found[:20] if f.asset in names
            )  # fmt: skip
            raise SelectionError(
                f"{text} is the beginning of {len(found)} documents' ids:\n{shown}",
                hint="Give more of its id, or name it as it is listed.",
            )
        if found:
            return found
    raise NothingSelectedError(
        f"There is no asset or document {text}.", hint=suggestion(ref.asset or text, project.graph.assets)
    )


def _address_of(project: Project, asset: str, label: str) -> bytes | None:
    """The address of a unit, where it follows from its label: of a source, and of what is made once for each of its documents."""
    graph = project.graph
    if asset not in graph.assets or not isinstance(graph.assets[graph.chain(asset)[-1]], Source):
        return None
    steps = len(graph.chain(asset)) - 1
    return source_unit(label) if steps == 0 else document_address(source_unit(label), label) if steps == 1 else None


async def _units(
    project: Project, connection: Connection, asset: str, label: str
) -> list[tuple[bytes, str, str | None]]:
    address = _address_of(project, asset, label)
    units = await trace.by_unit(connection, project.environment_id, project.asset_ids[asset], label, address)
    if not units:
        documents = await trace.of_asset(connection, project.environment_id, project.asset_ids[asset], limit=5000)
        raise NothingSelectedError(
            f"{asset} has no unit {label!r}.", hint=suggestion(label, {d.unit for d in documents})
        )
    if len(units) > 1:
        shown = ", ".join(format_ref(asset, f"{parent}/{name}") for _, name, parent in units[:10])
        raise SelectionError(f"{asset} has {len(units)} units {label!r}.", hint=f"Say which: {shown}.")
    return units


# -- lineage -------------------------------------------------------------------------------------------------------------------


async def lineage(project: Project, text: str, direction: str, depth: int | None) -> Lineage:
    """Follow documents up (what they were made of) or down (what was made of them), `depth` steps or to the end."""
    async with project.engine.connect() as connection:
        await trace.by_index(connection)
        roots = await find(project, connection, text)
        names = {i: n for n, i in project.asset_ids.items()}
        found: dict[int, Found] = {f.id: f for f in roots}
        edges: set[tuple[str, str]] = set()
        wholes: dict[str, LineageNode] = {}
        frontier = set(found)
        steps = 0
        while frontier and (depth is None or steps < depth) and len(found) < NODES:
            step = await (trace.up if direction == "up" else trace.down)(connection, project.environment_id, frontier)
            pairs = set(step.edges)
            for asset, environment, commit, document in step.wholes:
                members = await trace.of_asset(connection, environment, asset, commit=commit, limit=EXPANDED + 1)
                if len(members) > EXPANDED:
                    node = LineageNode(f"{names.get(asset, '?')}@{commit}", names.get(asset, "?"), None, None, None)
                    wholes[node.id] = node
                    edges.add((_node_id(document), node.id))
                    edges |= _asset_edges(project, node, wholes) if depth is None else set()
                else:
                    pairs |= {(document, member.id) for member in members}
            beyond = {b for _, b in pairs} - set(found)
            looked_up = await trace.look_up(connection, beyond)
            found |= {
                f.id: f for f in await trace.qualified(connection, project.environment_id, list(looked_up.values()))
            }
            edges |= {(_node_id(a), _node_id(b)) for a, b in pairs if a in found and b in found}
            frontier = beyond & set(found)
            steps += 1
    nodes = [
        LineageNode(_node_id(f.id), names.get(f.asset, "?"), f.unit, f.name, f.sha256.hex()) for f in found.values()
    ]
    root = _node_id(roots[0].id) if len(roots) == 1 else text
    return Lineage(root, direction, (*nodes, *wholes.values()), tuple(sorted(edges)), len(found) >= NODES)


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


# -- why -----------------------------------------------------------------------------------------------------------------------


async def why(project: Project, text: str, plan: Plan, snapshot: Snapshot) -> Why:
    """Why the unit that a REF names is stale, given a plan of its asset."""
    ref = parse_ref(text)
    if ref.asset is None or ref.asset not in project.graph.assets:
        async with project.engine.connect() as connection:
            found = (await find(project, connection, text))[0]
        names = {i: n for n, i in project.asset_ids.items()}
        return await why_unit(project, names[found.asset], found.unit, plan, snapshot)
    return await why_unit(project, ref.asset, ref.unit, plan, snapshot)


async def why_unit(project: Project, name: str, label: str | None, plan: Plan, snapshot: Snapshot) -> Why:
    """Why one unit of an asset is stale."""
    if isinstance(project.graph.assets[name], Source):
        return await _why_source(project, name, label, snapshot)
    judgement = plan.judgements.get(name)
    if judgement is None:
        async with project.engine.connect() as connection:
            if label is not None:
                await _units(project, connection, name, label)
        return Why(format_ref(name, label), "fresh", ())
    return await _why_row(project, name, _row(judgement.judged, name, label), plan, snapshot)


async def _why_row(project: Project, name: str, row: Mapping[str, Any], plan: Plan, snapshot: Snapshot) -> Why:
    """Why a unit is stale, given its row of the judgement of its asset."""
    causes: list[CauseFound] = []
    async with project.engine.connect() as connection:
        for code in row["causes"]:
            causes += await _cause(project, connection, name, code, row, plan, snapshot)
        if row["status"] == "pending":
            causes += await _root_causes(project, name, row, plan, snapshot)
    if row["status"] == "removed":
        causes.append(CauseFound("input-removed", "what it was made for is gone", before=row["label"]))
    return Why(_reference(plan.judgements[name].judged, name, row), row["status"], tuple(causes))


def _reference(judged: pl.DataFrame, name: str, row: Mapping[str, Any]) -> str:
    """The shortest REF of a unit: with its parent where its label repeats."""
    repeated = row["parent"] is not None and (judged["label"] == row["label"]).sum() > 1
    return format_ref(name, f"{row['parent']}/{row['label']}" if repeated else row["label"])


def _row(judged: pl.DataFrame, name: str, label: str | None) -> dict[str, Any]:
    rows = judged
    if label is not None:
        qualified = pl.col("parent") + "/" + pl.col("label")
        rows = judged.filter((pl.col("label") == label) | (qualified == label).fill_null(value=False))
    if rows.height == 1:
        return rows.row(0, named=True)
    if rows.height == 0:
        raise NothingSelectedError(
            f"{name} has no unit {label!r}.", hint=suggestion(label or "", judged["label"].to_list())
        )
    if label is None:
        stale = rows.filter(pl.col("status") != "fresh")
        example = (stale if stale.height else rows)["label"][0]
        raise SelectionError(
            f"{name} has {rows.height} units.", hint=f"Ask for one: aipctl why '{format_ref(name, example)}'"
        )
    shown = ", ".join(format_ref(name, f"{p}/{n}") for n, p in rows.select("label", "parent").head(10).iter_rows())
    raise SelectionError(f"{name} has {rows.height} units {label!r}.", hint=f"Say which: {shown}.")


async def _cause(
    project: Project,
    connection: Connection,
    name: str,
    code: str,
    row: Mapping[str, Any],
    plan: Plan,
    snapshot: Snapshot,
) -> list[CauseFound]:
    state = snapshot.states[name]
    if code == "missing":
        return [CauseFound(code, "it was never made")]
    if code == "forced":
        return [CauseFound(code, "it is to be made whether stale or not")]
    if code == "failed":
        failure = await read.last_failure(connection, project.environment_id, project.asset_ids[name], row["unit"])
        error, traceback = failure or ("its last attempt failed", "")
        return [CauseFound(code, "\n".join(filter(None, (error, traceback.rstrip()))))]
    component = next((c for c, cause in COMPONENTS.items() if cause == code), None)
    if component is not None:
        return await _component_changed(project, connection, name, component, code, row, state, snapshot)
    return await _inputs_changed(project, connection, name, code, row, plan, snapshot)


async def _component_changed(
    project: Project, connection: Connection, name: str, component: str, code: str, row: Mapping[str, Any],
    state: AssetState, snapshot: Snapshot,
) -> list[CauseFound]:  # fmt: skip
    made_with = state.made.filter(pl.col("unit") == row["unit"])["definition"][0]
    before = state.definitions[made_with].components.get(component, Component(b""))
    after = snapshot.definitions[name].components[component]
    if component != "code":
        was, now = before.detail, after.detail
        detail = {
            "config": "its config was changed", "version": "its version was changed", "models": "a model alias points elsewhere",
            "environment": "a package has another version",
            "schema": "what it returns is declared differently", "shape": "its dependencies are declared differently",
        }[component]  # fmt: skip
        if isinstance(was, dict) and isinstance(now, dict):
            keys = [k for k in {**was, **now} if was.get(k) != now.get(k)]
            was, now = {k: was.get(k) for k in keys}, {k: now.get(k) for k in keys}
        return [CauseFound(code, detail, was, now)]
    old, new = before.detail or {}, after.detail or {}
    changed = sorted(n for n in {**old, **new} if old.get(n) != new.get(n))
    parts = {p.digest.hex(): p.source for p in project.fingerprint(name).parts}
    digests = [old[n] for n in changed if n in old]
    parts |= {
        d.hex(): s for d, s in (await read.sources_of_parts(connection, [bytes.fromhex(x) for x in digests])).items()
    }
    return [
        CauseFound(
            code,
            _part_name(n, name) + (" was changed" if n in old and n in new else " is new" if n in new else " is gone"),
            old.get(n), new.get(n), _diff(parts.get(old.get(n, ""), ""), parts.get(new.get(n, ""), ""), _part_name(n, name)),
        )
        for n in changed
    ]  # fmt: skip


def _part_name(part: str, asset: str) -> str:
    return f"the function of {asset}" if part == "<asset>" else part


async def _inputs_changed(
    project: Project,
    connection: Connection,
    name: str,
    code: str,
    row: Mapping[str, Any],
    plan: Plan,
    snapshot: Snapshot,
) -> list[CauseFound]:
    """Which of the documents that the unit is given are new, changed or gone since it was made."""
    asset = project.graph.assets[name]
    given = plan.judgements[name].wanted.given.filter(pl.col("unit") == row["unit"])
    before = await trace.inputs_of(connection, row["materialization"])
    wholes = await trace.wholes_of(connection, row["materialization"])
    causes: list[CauseFound] = []
    for index, dependency in enumerate(asset.dependencies):
        view = plan.views[dependency.upstream.name].documents
        if any(w[0] == index for w in wholes):
            parameter = next(w for w in wholes if w[0] == index)
            old = await trace.of_asset(connection, parameter[2], parameter[1], commit=parameter[3])
            now = view
        else:
            old = [f for p, f in before if p == index]
            now = view.join(given.filter(pl.col("parameter") == index), on="address", how="semi")
        causes += await _differences(project, connection, dependency.upstream.name, old, now, code)
    return causes or [CauseFound(code, "what it is given has changed")]


async def _differences(
    project: Project, connection: Connection, upstream: str, old: Sequence[Found], now: pl.DataFrame, code: str
) -> list[CauseFound]:
    was = {f.address: f for f in old}
    rows = {r["address"]: r for r in now.iter_rows(named=True)}
    causes: list[CauseFound] = []
    for address, found in was.items():
        if address not in rows:
            causes.append(
                CauseFound(
                    "input-removed", f"{format_ref(upstream, found.unit, found.name)} is gone", before=found.label
                )
            )
    for address, row in rows.items():
        ref = format_ref(upstream, row["label"], row["name"])
        if address not in was:
            causes.append(CauseFound("input-changed", f"{ref} is new", after=document_id(row["sha256"])))
        elif was[address].identity != row["identity"]:
            diff = await _document_diff(project, connection, upstream, was[address], row)
            causes.append(
                CauseFound("input-changed", f"{ref} was changed", was[address].label, document_id(row["sha256"]), diff)
            )
        if len(causes) >= ROOT_CAUSES:
            causes.append(CauseFound(code, "and more"))
            break
    return causes


async def _document_diff(
    project: Project, connection: Connection, upstream: str, old: Found, row: Mapping[str, Any]
) -> str | None:
    """The difference of two versions of a document where both are text."""
    asset = project.graph.assets[upstream]
    try:
        stored = await read.stored(connection, [i for i in (old.id, row["document"]) if i is not None])
        if sum(s.size for s in stored.values()) > DIFF_BYTES:
            return None
        cls = asset.output.document_type
        before = (await project.reader.documents([stored[old.id]], cls))[0].content
        after = None
        if row["document"] is not None:
            after = (await project.reader.documents([stored[row["document"]]], cls))[0].content
        elif isinstance(asset, Source):
            from assetcore import sources

            async for document in sources.documents(asset, project.root, [row["name"]]):
                after = document.content
        return _diff(before.decode(), after.decode(), row["name"]) if after is not None else None
    except (UnicodeDecodeError, AssetcoreError):
        return None


async def _root_causes(
    project: Project, name: str, row: Mapping[str, Any], plan: Plan, snapshot: Snapshot
) -> list[CauseFound]:
    """What keeps a pending unit open: the causes of the stale units above it, each with the way there."""
    causes: list[CauseFound] = []
    given = plan.judgements[name].wanted.given.filter(pl.col("unit") == row["unit"])
    for index, dependency in enumerate(project.graph.assets[name].dependencies):
        upstream = dependency.upstream.name
        judgement = plan.judgements.get(upstream)
        if judgement is None:
            continue
        open_units = judgement.judged.filter(pl.col("status").is_in(["stale", "pending", "removed"]))
        mine = given.filter(pl.col("parameter") == index)
        if mine.height:
            documents = plan.views[upstream].documents.join(mine, on="address", how="semi")
            open_units = open_units.join(documents.select("unit"), on="unit", how="semi")
        for above in open_units.head(ROOT_CAUSES).iter_rows(named=True):
            found = await _why_row(project, upstream, above, plan, snapshot)
            causes += [CauseFound(c.code, f"{found.unit}: {c.detail}", c.before, c.after, c.diff) for c in found.causes]
            if len(causes) >= ROOT_CAUSES:
                return [*causes[:ROOT_CAUSES], CauseFound("input-changed", "and more")]
    return causes


async def _why_source(project: Project, name: str, label: str | None, snapshot: Snapshot) -> Why:
    """A source's document differs from what was taken in, or it does not."""
    state = snapshot.states.get(name)
    unit = format_ref(name, label)
    if state is None:
        return Why(unit, "fresh", ())
    observed = dict(snapshot.observed[name].select("name", "identity").iter_rows())
    known = dict(state.documents.select("name", "identity").iter_rows())
    if label is None:
        changed = [n for n in {**observed, **known} if observed.get(n) != known.get(n)]
        causes = [
            CauseFound("input-changed", f"{format_ref(name, n)} is new, changed or gone")
            for n in sorted(changed)[:ROOT_CAUSES]
        ]
        return Why(unit, "stale" if causes else "fresh", tuple(causes))
    if label not in observed and label not in known:
        raise NothingSelectedError(f"{name} has no document {label!r}.", hint=suggestion(label, {*observed, *known}))
    if observed.get(label) == known.get(label):
        return Why(unit, "fresh", ())
    if label not in known:
        return Why(unit, "stale", (CauseFound("missing", "it is new"),))
    code = "input-changed" if label in observed else "input-removed"
    return Why(unit, "stale", (CauseFound(code, "it was changed" if label in observed else "it is gone"),))


def _diff(before: str, after: str, name: str) -> str:
    lines = difflib.unified_diff(
        before.splitlines(), after.splitlines(), f"{name} (made with)", f"{name} (now)", lineterm="", n=2
    )
    return "\n".join(lines)
