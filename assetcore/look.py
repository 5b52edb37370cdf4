"""Look: which documents are there, and what do they say?"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path, PurePosixPath
from typing import Any

import polars as pl

from assetcore.assets import Asset
from assetcore.checks import CheckReport
from assetcore.documents import Document, document_id
from assetcore.errors import NothingSelectedError, SelectionError, UsageError
from assetcore.excerpts import Place, place, pointed_at
from assetcore.explain import commit_at, find
from assetcore.judgement import Choice
from assetcore.keep import SUFFIXES
from assetcore.lineage import checks as checked
from assetcore.lineage import damage, named, read, trace
from assetcore.lineage.failures import failure_counts
from assetcore.lineage.named import Found
from assetcore.lineage.schema import Connection
from assetcore.partitions import shown_duration
from assetcore.plan import Plan
from assetcore.project import Project
from assetcore.refs import format_ref, parse_ref
from assetcore.storage.keys import artifact_name

__all__ = [
    "SHOWN",
    "AssetInfo",
    "Context",
    "Exported",
    "StoredDocument",
    "checks_of",
    "context",
    "export",
    "list_assets",
    "list_assets_at",
    "scan",
    "show",
    "stored",
]

SHOWN = 1000
"""So many documents are shown at the most."""
SOURCES = 10
"""So many documents of sources are named."""
ORPHAN = "orphan"
"""The kind of an asset that is not declared any more."""
EXPORT_BATCH = 500


@dataclass(frozen=True, slots=True)
class AssetInfo:
    """What there is of one asset."""

    asset: str
    kind: str
    group: str
    tags: tuple[str, ...]
    owner: str | None
    description: str
    units: int
    documents: int
    stale: int | None
    failed: int
    made_at: datetime | None
    checks: tuple[CheckReport, ...] = ()
    partitions: Mapping[str, int] | None = None
    fresh_until: datetime | None = None
    repeats: tuple[int, int] = (0, 0)
    """How many units were made again with the same recipe, and how many came out different."""
    kinds: tuple[str, ...] = ()
    sensitivity: str | None = None
    freshness: timedelta | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "asset": self.asset, "kind": self.kind, "group": self.group, "tags": list(self.tags), "owner": self.owner,
            "description": self.description, "units": self.units, "documents": self.documents, "stale": self.stale,
            "failed": self.failed, "made_at": self.made_at.isoformat() if self.made_at else None,
            "checks": [check.to_json() for check in self.checks],
            "partitions": dict(self.partitions) if self.partitions is not None else None,
            "fresh_until": self.fresh_until.isoformat() if self.fresh_until else None,
            "repeats": {"units": self.repeats[0], "different": self.repeats[1]}, "kinds": list(self.kinds),
            "sensitivity": self.sensitivity, "freshness": shown_duration(self.freshness) if self.freshness else None,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class StoredDocument:
    """A document as it is stored, with where it stands."""

    asset: str
    unit: str
    name: str
    media_type: str
    sha256: bytes
    content: bytes
    key: str
    checks: tuple[Mapping[str, Any], ...] = ()

    @property
    def id(self) -> str:
        return document_id(self.sha256)

    def to_json(self) -> dict[str, Any]:
        return {
            "id": self.id, "asset": self.asset, "unit": self.unit, "document": self.name, "media_type": self.media_type,
            "size": len(self.content), "sha256": self.sha256.hex(), "key": self.key, "checks": [dict(c) for c in self.checks],
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Context:
    """The place in which something stands: of which document it is part, and the lines there, or the value at a JSON pointer."""

    ref: str
    document: str
    id: str
    kind: str
    start: int | None
    end: int | None
    pointer: str | None
    place: Place | None
    value: Any
    sources: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "ref": self.ref, "document": self.document, "id": self.id, "kind": self.kind, "start": self.start, "end": self.end,
            "pointer": self.pointer, "place": self.place.to_json() if self.place else None, "value": self.value,
            "sources": list(self.sources),
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written, and where."""

    directory: Path
    files: tuple[str, ...]
    documents: Mapping[str, tuple[int, ...]]
    """What was written of each asset, by identifier."""
    provenance: str | None = None

    def to_json(self) -> dict[str, Any]:
        more = {"provenance": self.provenance} if self.provenance else {}
        return {"directory": str(self.directory), "files": list(self.files), **more}


async def list_assets(project: Project, choice: Choice, plan: Plan) -> list[AssetInfo]:
    """The selected assets with counts, and how many of their units are stale."""
    async with project.engine.connect() as connection:
        counts = await read.asset_counts(connection, project.environment_id)
        failures = await failure_counts(connection, project.environment_id)
        repeats = await damage.repeats(connection, list(project.asset_ids.values()))
    stale: dict[str, int] = {a.asset: a.stale + a.pending + a.removed for a in plan.assets}
    stale |= {s.source: s.new + s.changed + s.removed for s in plan.sources}
    planned = {a.asset: a for a in plan.assets}
    found: list[AssetInfo] = []
    for name in project.graph.ordered(choice.assets):
        asset = project.graph.assets[name]
        identifier = project.asset_ids[name]
        units, documents, made_at = counts.get(identifier, (0, 0, None))
        freshness = asset.options.freshness
        # Of a source: until something new should have come.
        until = made_at + freshness if made_at is not None and freshness is not None else None
        found.append(
            AssetInfo(
                name, asset.kind, asset.group, asset.tags, asset.options.owner, asset.description, units, documents,
                stale.get(name), failures.get(identifier, 0), made_at, tuple(c for c in plan.checks if c.asset == name),
                planned[name].partitions if name in planned else None,
                planned[name].fresh_until if name in planned else until,
                repeats.get(identifier, (0, 0)), asset.kinds, project.graph.sensitivity[name], freshness,
            )
        )  # fmt: skip
    if choice.assets == frozenset(project.graph.assets):
        found += [
            AssetInfo(name, ORPHAN, "", (), None, "no longer declared", units, 0, None, 0, None)
            for name, units in plan.orphans.items()
        ]
    return found


async def list_assets_at(project: Project, choice: Choice, time: str) -> list[AssetInfo]:
    """The selected assets as they were at a time; what was stale then is not known."""
    async with project.engine.connect() as connection:
        commit = await commit_at(project, connection, time)
        counts = await read.asset_counts(connection, project.environment_id, commit)
    found: list[AssetInfo] = []
    for name in project.graph.ordered(choice.assets):
        asset = project.graph.assets[name]
        units, documents, made_at = counts.get(project.asset_ids[name], (0, 0, None))
        about = (asset.kind, asset.group, asset.tags, asset.options.owner, asset.description)
        info = AssetInfo(
            name, *about, units, documents, None, 0, made_at,
            kinds=asset.kinds, sensitivity=project.graph.sensitivity[name], freshness=asset.options.freshness,
        )  # fmt: skip
        found.append(info)
    return found


async def show(project: Project, text: str, at: str | None = None) -> list[StoredDocument]:
    """The documents that a REF names, now or at a time, with their bytes, verified."""
    async with project.engine.connect() as connection:
        found = await find(project, connection, text, at=at, limit=SHOWN + 1)
    if len(found) > SHOWN:
        raise SelectionError(
            f"{text} names more than {SHOWN:,} documents.",
            hint=f"Name a unit: '{text}[...]', or write all of them: aipctl export {text} DIR",
        )
    said = await _said(project, found)
    documents = await stored(project, found)
    return [replace(d, checks=tuple(said.get(f.id, ()))) for d, f in zip(documents, found, strict=True)]


async def context(project: Project, text: str, at: str | None = None) -> Context:
    """Where in what it was cut from a document stands: of itself, or of the one document that it was made of, and so on.

    Raises NothingSelectedError where no `part_of` said so.
    """
    environment = project.environment_id
    async with project.engine.connect() as connection:
        commit = await commit_at(project, connection, parse_ref(text).time or at)
        found = await find(project, connection, text, at=at)
        if len(found) != 1:
            raise SelectionError(
                f"{text} names {len(found)} documents.", hint=f"Name one of them: aipctl show '{text}'"
            )
        (current,) = found
        while (
            excerpt := (await trace.excerpts(connection, environment, [current.id], commit)).get(current.id)
        ) is None:
            step = await trace.up(connection, environment, [current.id], commit)
            if len(step.edges) != 1 or step.wholes:
                raise NothingSelectedError(
                    f"Nothing says of which part of which document {text} was made.",
                    hint="Make documents with part_of: Chunk.part_of(topic, start, end)",
                )
            ((_, above),) = step.edges
            current = (await named.look_up(connection, [above]))[above]
        (whole,) = await _within(project, connection, excerpt[0], commit)
        kind, start, end, pointer = excerpt[1:]
        further = excerpt
        while kind == "bytes" and start is not None and end is not None:
            further = (await trace.excerpts(connection, environment, [further[0]], commit)).get(further[0])
            if further is None or further[1] != "bytes" or further[2] is None:
                break
            (outer,) = await _within(project, connection, further[0], commit)
            if outer.content[further[2] : further[3]] != whole.content:
                break  # it was changed when it was cut out
            whole, start, end = outer, start + further[2], end + further[2]
        sources = await _sources_above(project, connection, current.id, commit)
    seen = place(whole.content, start, end) if kind == "bytes" and start is not None and end is not None else None
    value = pointed_at(whole.content, pointer) if pointer is not None else None
    ref = format_ref(whole.asset, whole.unit, whole.name if whole.name != whole.unit else None)
    return Context(text, ref, whole.id, kind, start, end, pointer, seen, value, sources)


async def _sources_above(
    project: Project, connection: Connection, document: int, commit: int | None
) -> tuple[str, ...]:
    """The first documents of sources that one was made of, one by one."""
    names = {i: n for n, i in project.asset_ids.items() if n in project.graph.sources}
    seen, frontier, found = {document}, {document}, dict[int, Found]()
    while frontier and len(found) < SOURCES:
        step = await trace.up(connection, project.environment_id, frontier, commit)
        frontier = {above for _, above in step.edges} - seen
        seen |= frontier
        looked_up = await named.look_up(connection, frontier)
        found |= {number: one for number, one in looked_up.items() if one.asset in names}
    refs = dict.fromkeys(format_ref(names[one.asset], one.unit) for one in found.values())
    return tuple(refs)[:SOURCES]


async def _within(project: Project, connection: Connection, document: int, commit: int | None) -> list[StoredDocument]:
    found = list((await named.look_up(connection, [document])).values())
    return await stored(project, await named.qualified(connection, project.environment_id, found, commit))


async def checks_of(project: Project, asset: str, unit: str | None) -> tuple[Mapping[str, Any], ...]:
    """What checks say of an asset, as a plan has it; or of the unit that a REF names: those over it, then those over the whole asset."""
    versions = project.checks([asset])
    if not versions:
        return ()
    told = [v for v in versions if unit is None or v.check.scope == "asset"]
    async with project.engine.connect() as connection:
        reports = await checked.standing(connection, project.environment_id, told)
        try:
            found = (await find(project, connection, unit, limit=1))[:1] if unit else []
        except SelectionError:  # it has no documents
            found = []
    said = [said for one in (await _said(project, found)).values() for said in one]
    return (*said, *({**report.to_json(), "message": report.message} for report in reports))


async def _said(project: Project, found: Sequence[Found]) -> dict[int, list[dict[str, Any]]]:
    """What checks say of the units that these documents are of."""
    names = {i: n for n, i in project.asset_ids.items()}
    versions = project.checks({names[f.asset] for f in found if f.asset in names})
    if not versions:
        return {}
    async with project.engine.connect() as connection:
        said = await checked.of_documents(connection, project.environment_id, versions, [f.id for f in found])
    return {
        document: [
            {"check": v.check.name, "status": verdict.status, "blocking": v.check.blocking, "message": verdict.message}
            for v, verdict in verdicts
        ]
        for document, verdicts in said.items()
    }


async def stored(project: Project, found: Sequence[Found]) -> list[StoredDocument]:
    """Documents with their bytes; a document's class gives no more than fields, so the plainest serves."""
    names = {i: n for n, i in project.asset_ids.items()}
    async with project.engine.connect() as connection:
        places = await read.stored(connection, [f.id for f in found])
    plain = await project.reader.documents([places[f.id]._replace(fields=None) for f in found], Document)
    return [
        StoredDocument(
            names.get(f.asset, "?"), f.unit, f.name, f.media_type, f.sha256, document.content, places[f.id].location.key
        )
        for f, document in zip(found, plain, strict=True)
    ]


async def export(project: Project, choice: Choice, directory: Path) -> Exported:
    """Write the current documents of the selected assets below `directory`, a folder an asset, names made safe for files."""
    written: list[str] = []
    exported: dict[str, tuple[int, ...]] = {}
    for name in project.graph.ordered(choice.assets):
        async with project.engine.connect() as connection:
            found = await named.of_asset(connection, project.environment_id, project.asset_ids[name])
            found = [f for f in found if choice.has(project.graph.assets[name], f.unit, f.parent)]
            names = _file_names(await named.qualified(connection, project.environment_id, found))
        for start in range(0, len(found), EXPORT_BATCH):
            documents = await stored(project, found[start : start + EXPORT_BATCH])
            some = zip(names[start : start + EXPORT_BATCH], documents, strict=True)
            await asyncio.to_thread(_write_files, directory / name, list(some), project.graph.assets[name])
        written += [f"{name}/{file}" for file in names]
        exported[name] = tuple(f.id for f in found)
    if not written:
        raise NothingSelectedError(
            "The selected assets have no documents yet.", hint="Make them first: aipctl materialize"
        )
    return Exported(directory, tuple(written), exported)


def file_name(name: str, media_type: str) -> str:
    """A name that is safe for a file, apart from every other: the one that the document has in the bucket's keys."""
    suffix = SUFFIXES.get(media_type, "") if not PurePosixPath(name).suffix else ""
    return artifact_name(name + suffix)


def _file_names(found: Sequence[Found]) -> list[str]:
    """A file name for each of an asset's documents: its own; with its unit where names repeat; with its address where these do, too."""
    own = [file_name(f.name, f.media_type) for f in found]
    in_unit = [file_name(f"{f.unit}/{f.name}", f.media_type) for f in found]
    addressed = [file_name(f"{f.unit}/{f.name}/{f.address.hex()}", f.media_type) for f in found]
    repeated = Counter(own)
    names = [u if repeated[o] > 1 else o for o, u in zip(own, in_unit, strict=True)]
    repeated = Counter(names)
    return [a if repeated[n] > 1 else n for n, a in zip(names, addressed, strict=True)]


def _write_files(folder: Path, documents: Sequence[tuple[str, StoredDocument]], asset: Asset[..., Any]) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, document in documents:
            temporary = folder / f".{name}.part"
            temporary.write_bytes(document.content)
            os.replace(temporary, folder / name)
    except OSError as error:
        raise UsageError(f"{asset.name} cannot be exported to {folder}: {error.strerror or error}.") from None


async def scan(project: Project, name: str) -> pl.LazyFrame:
    """The current documents of an asset as a lazy frame: name, media_type, text, content, and the typed fields as columns."""
    asset = project.graph[name]
    async with project.engine.connect() as connection:
        documents = (await read.current_documents(connection, project.environment_id, [project.asset_ids[name]]))[
            project.asset_ids[name]
        ]
        stored = await read.stored(connection, documents["document"].to_list())
    table = await project.reader.table([stored[d] for d in documents["document"]], asset.output.document_type)
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    return frame.lazy()
