"""Look: which documents are there, and what do they say?"""

from __future__ import annotations

import asyncio
import difflib
import os
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path, PurePosixPath
from typing import Any

import polars as pl

from assetcore.assets import Asset
from assetcore.checks import CheckReport
from assetcore.documents import Document, document_id
from assetcore.embeddings import Embedding
from assetcore.errors import NothingSelectedError, SelectionError, ServiceError, UsageError
from assetcore.excerpts import Place, place, pointed_at
from assetcore.explain import commit_at, find
from assetcore.fingerprint import HAZARDS, Note
from assetcore.keep import SUFFIXES
from assetcore.lineage import checks as checked
from assetcore.lineage import damage, read, trace, undeclared
from assetcore.lineage.schema import Connection
from assetcore.lineage.trace import Found
from assetcore.partitions import shown_duration
from assetcore.plan import Choice, Plan
from assetcore.project import Project
from assetcore.refs import format_ref, parse_ref
from assetcore.search import Hit, SearchIndex, fused, search, shown
from assetcore.sources import Unread
from assetcore.staleness import LOST
from assetcore.storage.keys import artifact_name
from assetcore.telemetry import get_pipeline_logger
from assetcore.units import shown_unit

__all__ = [
    "EXPIRED",
    "UNREAD",
    "VARIES",
    "AssetInfo",
    "Context",
    "Diff",
    "Exported",
    "StoredDocument",
    "checks",
    "checks_of",
    "compare",
    "context",
    "export",
    "index_vectors",
    "list_assets",
    "list_assets_at",
    "orphans",
    "overdue",
    "scan",
    "search_project",
    "show",
    "unread",
    "varying",
]

logger = get_pipeline_logger(__name__)

SHOWN = 1000
SOURCES = 10
"""So many documents of sources are named."""
ORPHAN = "orphan"
"""The kind of an asset that is not declared any more."""
EXPIRED = "EXPIRED"
"""The code of a plan's note about a source to which nothing new has come for longer than its freshness."""
UNREAD = "UNREAD"
"""The code of a plan's note about a document that is there and cannot be read."""
VARIES = "VARIES"
"""The code of a plan's note about what does not come out the same every time."""
DEPTH = 50
"""Hits of each way of searching that are fused."""
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
    provenance: str | None = None

    def to_json(self) -> dict[str, Any]:
        more = {"provenance": self.provenance} if self.provenance else {}
        return {"directory": str(self.directory), "files": list(self.files), **more}


@dataclass(frozen=True, slots=True)
class Diff:
    """How two documents differ; `diff` is a unified diff where both are text.

    Of several documents at two times: how many are new, changed and gone, and the first of them, each with its ids.
    """

    before: str
    after: str
    same: bool
    diff: str | None
    documents: tuple[Mapping[str, Any], ...] = ()
    counts: Mapping[str, int] | None = None

    def to_json(self) -> dict[str, Any]:
        found = {"before": self.before, "after": self.after, "same": self.same, "diff": self.diff}
        several = {"documents": [dict(d) for d in self.documents], "counts": dict(self.counts or {})}
        return found | (several if self.counts is not None else {})


async def list_assets(project: Project, choice: Choice, plan: Plan) -> list[AssetInfo]:
    """The selected assets with counts, and how many of their units are stale."""
    async with project.engine.connect() as connection:
        counts = await read.asset_counts(connection, project.environment_id)
        failures = await read.failure_counts(connection, project.environment_id)
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
    documents = await _stored(project, found)
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
            current = (await trace.look_up(connection, [above]))[above]
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
        looked_up = await trace.look_up(connection, frontier)
        found |= {number: one for number, one in looked_up.items() if one.asset in names}
    return tuple(format_ref(names[one.asset], one.unit) for one in list(found.values())[:SOURCES])


async def _within(project: Project, connection: Connection, document: int, commit: int | None) -> list[StoredDocument]:
    found = list((await trace.look_up(connection, [document])).values())
    return await _stored(project, await trace.qualified(connection, project.environment_id, found, commit))


async def orphans(project: Project, known: Collection[int]) -> dict[str, int]:
    """Of the assets that were ever made here, those that are not declared any more and still have units."""
    gone = set(known).difference(project.asset_ids.values())
    if not gone:
        return {}
    async with project.engine.connect() as connection:
        return await read.orphans(connection, project.environment_id, gone)


async def varying(project: Project, plan: Plan) -> list[Mapping[str, str]]:
    """Of what a plan makes again because its bytes are lost (P10), the assets that are known not to come out the same every time."""
    lost = {a.asset: sum(a.causes.get(cause, 0) for cause in LOST) for a in plan.assets}
    lost = {name: count for name, count in lost.items() if count}
    if not lost:
        return []
    async with project.engine.connect() as connection:
        seen = await damage.repeats(connection, [project.asset_ids[name] for name in lost])
    found: list[Mapping[str, str]] = []
    for name, count in lost.items():
        units, different = seen.get(project.asset_ids[name], (0, 0))
        if different:
            what = f"{count:,} units are made again, and may come out different"
            where = f"{different:,} of {units:,} did before, without a cause"
            settle = "What is made of them may change with them."
            found.append({"code": VARIES, "asset": name, "what": what, "where": where, "settle": settle})
    return found


def unread(project: Project, found: Mapping[str, Unread]) -> list[Mapping[str, str]]:
    """The documents of sources that cannot be read: each stays what it was."""
    return [
        {
            "code": UNREAD, "asset": source, "what": error.message.rstrip("."), "where": str(project.graph.assets[source].place),
            "settle": error.hint or "",
        }
        for source, problems in found.items()
        for _, error in problems[:SOURCES]
    ]  # fmt: skip


def overdue(
    project: Project, plan: Plan, marks: Mapping[int, read.Watermark], now: datetime
) -> list[Mapping[str, str]]:
    """The sources of a plan to which nothing new has come for longer than their freshness, and in which there is nothing new now."""
    found: list[Mapping[str, str]] = []
    for one in plan.sources:
        source, mark = project.graph.assets[one.source], marks.get(project.asset_ids[one.source])
        freshness = source.options.freshness
        if freshness is None or mark is None or mark.made_at is None or now - mark.made_at < freshness or not one.idle:
            continue
        what = f"nothing new has come for {shown_duration(now - mark.made_at, units=2)}"
        where = f"its freshness is {shown_duration(freshness)}"
        settle = "Look at what delivers it."
        found.append({"code": EXPIRED, "asset": one.source, "what": what, "where": where, "settle": settle})
    return found


async def checks(project: Project, plan: Plan) -> tuple[CheckReport, ...]:
    """What the checks of a plan's assets say of them as they are, and which of them a run would ask."""
    versions = project.checks(a.asset for a in plan.assets)
    if not versions:
        return ()
    async with project.engine.connect() as connection:
        return tuple(await checked.standing(connection, project.environment_id, versions))


async def notes(project: Project, names: Collection[str]) -> tuple[dict[str, str], ...]:
    """What a change of would go unnoticed: what of the code of assets cannot be followed, and what their units were seen to read."""
    declared = [name for name in names if name in project.graph.functions]
    found = [{"asset": name, **note._asdict()} for name in declared for note in project.fingerprint(name).notes]
    digests = {project.asset_ids[name]: project.definition(name).digest for name in declared}
    if digests:
        async with project.engine.connect() as connection:
            seen = await undeclared.seen(connection, digests)
        for name in declared:
            for one in seen.get(project.asset_ids[name], ()):
                what = f"{one.what}, which no input declares and a unit was seen to read"
                found.append({"asset": name, **Note(one.code, one.where, what, HAZARDS[one.code].settle)._asdict()})
    return tuple(found)


async def checks_of(project: Project, text: str) -> tuple[Mapping[str, Any], ...]:
    """What checks say of the unit that a REF names."""
    if not project.graph.checks:
        return ()
    async with project.engine.connect() as connection:
        try:
            found = (await find(project, connection, text, limit=1))[:1]
        except SelectionError:  # it has no documents
            return ()
    return tuple(said for one in (await _said(project, found)).values() for said in one)


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


async def _stored(project: Project, found: Sequence[Found]) -> list[StoredDocument]:
    """Documents with their bytes; a document's class gives no more than fields, so the plainest serves."""
    names = {i: n for n, i in project.asset_ids.items()}
    async with project.engine.connect() as connection:
        stored = await read.stored(connection, [f.id for f in found])
    plain = await project.reader.documents([replace(stored[f.id], fields=None) for f in found], Document)
    return [
        StoredDocument(
            names.get(f.asset, "?"), f.unit, f.name, f.media_type, f.sha256, document.content, stored[f.id].location.key
        )
        for f, document in zip(found, plain, strict=True)
    ]


async def export(project: Project, choice: Choice, directory: Path) -> Exported:
    """Write the current documents of the selected assets below `directory`, a folder an asset, names made safe for files."""
    written: list[str] = []
    for name in project.graph.ordered(choice.assets):
        async with project.engine.connect() as connection:
            found = await trace.of_asset(connection, project.environment_id, project.asset_ids[name])
            found = [f for f in found if choice.has(project.graph.assets[name], f.unit, f.parent)]
            names = _file_names(await trace.qualified(connection, project.environment_id, found))
        for start in range(0, len(found), EXPORT_BATCH):
            documents = await _stored(project, found[start : start + EXPORT_BATCH])
            some = zip(names[start : start + EXPORT_BATCH], documents, strict=True)
            await asyncio.to_thread(_write_files, directory / name, list(some), project.graph.assets[name])
        written += [f"{name}/{file}" for file in names]
    if not written:
        raise NothingSelectedError(
            "The selected assets have no documents yet.", hint="Make them first: aipctl materialize"
        )
    return Exported(directory, tuple(written))


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


async def compare(project: Project, one: str, other: str | None) -> Diff:
    """How two documents differ; or which documents of a unit or an asset do, at two times. Without `other`, one as it was and is."""
    refs = [parse_ref(one)]
    if other is None and refs[0].time is None:
        raise UsageError("There is nothing to compare with.", hint=f"Say as of when: aipctl diff '{one}@2 hours ago'")
    other = other or str(replace(refs[0], time=None))
    refs.append(parse_ref(other))
    name = refs[0].asset
    if name is not None and name in project.asset_ids and [(r.asset, r.unit) for r in refs] == [(name, None)] * 2:
        return await _compare_assets(project, name, one, other, [ref.time for ref in refs])
    async with project.engine.connect() as connection:
        found = [await find(project, connection, text) for text in (one, other)]
    before, after = found
    if len(before) == len(after) == 1:
        return await _compare_documents(project, one, other, before[0], after[0])
    if (refs[0].asset, refs[0].unit) == (refs[1].asset, refs[1].unit):
        return _compared(refs[0].asset or "", one, other, _frame_of(before), _frame_of(after))
    ref, many = (one, before) if len(before) != 1 else (other, after)
    raise SelectionError(
        f"{ref} names {len(many)} documents.", hint=f"Name one of them, as listed by: aipctl show '{ref}'"
    )


async def _compare_documents(project: Project, one: str, other: str, before: Found, after: Found) -> Diff:
    a, b = await _stored(project, [before, after])
    try:
        lines = difflib.unified_diff(
            a.content.decode().splitlines(), b.content.decode().splitlines(), one, other, lineterm=""
        )
        text = "\n".join(lines)
    except UnicodeDecodeError:
        text = None
    return Diff(one, other, a.content == b.content, text)


async def _compare_assets(project: Project, name: str, one: str, other: str, times: Sequence[str | None]) -> Diff:
    """The documents of an asset at two times: rows, not bytes."""
    asset = project.asset_ids[name]
    async with project.engine.connect() as connection:
        commits = [await commit_at(project, connection, time) for time in times]
        frames = [
            (await read.current_documents(connection, project.environment_id, [asset], commit))[asset]
            for commit in commits
        ]
    called = shown_unit(pl.concat([frame.select("unit", "label") for frame in frames])).alias("unit")
    before, after = (frame.select("address", called, "name", "identity", "sha256") for frame in frames)
    return _compared(name, one, other, before, after)


def _frame_of(found: Sequence[Found]) -> pl.DataFrame:
    rows = [(f.address, f.unit, f.name, f.identity, f.sha256) for f in found]
    schema = {"address": pl.Binary, "unit": pl.String, "name": pl.String, "identity": pl.Binary, "sha256": pl.Binary}
    return pl.DataFrame(rows, schema, orient="row")


def _compared(name: str, one: str, other: str, before: pl.DataFrame, after: pl.DataFrame) -> Diff:
    both = before.join(after, on="address", how="full", coalesce=True, suffix="_after")
    differing = both.filter(pl.col("identity").ne_missing(pl.col("identity_after")))
    differing = differing.with_columns(
        pl.coalesce("unit_after", "unit").alias("unit"), pl.coalesce("name_after", "name").alias("name")
    ).sort("unit", "name")
    changes = tuple(
        {
            "document": format_ref(name, row["unit"], row["name"] if row["name"] != row["unit"] else None),
            "change": "new" if row["sha256"] is None else "gone" if row["sha256_after"] is None else "changed",
            "before": None if row["sha256"] is None else document_id(row["sha256"]),
            "after": None if row["sha256_after"] is None else document_id(row["sha256_after"]),
        }
        for row in differing.head(SHOWN).iter_rows(named=True)
    )
    new, gone = differing["sha256"].null_count(), differing["sha256_after"].null_count()
    counts = {"new": new, "changed": differing.height - new - gone, "gone": gone}
    return Diff(one, other, not differing.height, None, changes, counts)


async def search_project(
    project: Project, text: str, limit: int, filters: Mapping[str, Any] | None = None
) -> list[Hit]:
    """Ask every search index that the project has made, by words, and every index of vectors, by meaning; fused by rank.

    `filters` are fields of the embedding documents, of which `asset` and `document` say what a hit is. Where the gateway cannot be asked,
    the words alone decide.
    """
    filters = dict(filters or {})
    words = [n for n in project.graph.assets if _is_of(project, n, SearchIndex)]
    meanings = [n for n in project.graph.assets if _is_of(project, n, Embedding)]
    if not words and not meanings:
        raise NothingSelectedError(
            f"{project.name} has nothing to search.", hint="Declare an asset that returns a SearchIndex or Embeddings."
        )
    indexes: list[SearchIndex] = []
    async with project.engine.connect() as connection:
        for name in words:
            found = await trace.of_asset(connection, project.environment_id, project.asset_ids[name])
            stored = await read.stored(connection, [f.id for f in found])
            indexes += await project.reader.documents([stored[f.id] for f in found], SearchIndex)
    near = [hits for name in meanings if (hits := await _near(project, name, text, limit, filters)) is not None]
    if not indexes and not near:
        raise NothingSelectedError(
            f"{', '.join([*words, *meanings])} is not made yet.",
            hint=f"Make it: aipctl materialize '{' or '.join(f'+{n}' for n in [*words, *meanings])}'",
        )
    by_words = search(indexes, text, DEPTH if near or filters else limit) if indexes else []
    if filters:
        from assetcore import vectors  # numpy behind it takes 0.1 s: only for projects with vectors

        allowed = await vectors.matching(project, meanings, filters)
        by_words = [hit for hit in by_words if (hit.asset, hit.name) in allowed]
    if not near:
        return by_words[:limit]
    known = {(hit.asset, hit.name): hit for hit in by_words}
    best = fused([list(known), *near], limit)
    return [
        replace(known[key], score=round(score, 4)) if key in known else shown(indexes, *key, text, score)
        for key, score in best
    ]


async def index_vectors(project: Project, names: Iterable[str]) -> None:
    """Bring the indexes of these assets up to date, as far as they are of vectors."""
    mine = [name for name in names if _is_of(project, name, Embedding)]
    if mine:
        from assetcore import vectors  # numpy behind it takes 0.1 s: only for projects with vectors

        await vectors.sync_all(project, mine)


def _is_of(project: Project, name: str, kind: type[Document]) -> bool:
    output = project.graph.assets[name].output
    return output.form == "document" and issubclass(output.document_type, kind)


async def _near(
    project: Project, name: str, text: str, limit: int, filters: Mapping[str, Any]
) -> list[tuple[str, str]] | None:
    """What an index of vectors finds, by asset and document; None where it is not made, or the gateway cannot be asked."""
    from assetcore import vectors  # numpy behind it takes 0.1 s: only for projects with vectors

    try:
        found = await vectors.ask(project, name, text, filters, max(DEPTH, limit))
    except NothingSelectedError:
        return None
    except ServiceError as error:
        logger.warning("%s is not asked: %s", name, error.message)
        return None
    return [(one.fields.get("asset") or name, one.fields.get("document") or one.name) for one in found]


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
