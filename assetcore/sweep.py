"""Sweep: what does nobody need any more?

A crash between storing bytes and committing lineage leaves objects that lineage does not know; an asset that was deleted from the
code leaves its documents. Nothing is removed that lineage points to: what an asset was at any time stays readable, unless a retention is
set (`compaction`).
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from assetcore.compaction import compact
from assetcore.errors import StorageError
from assetcore.lineage import commit as lineage
from assetcore.lineage import journal, read, runs
from assetcore.lineage.commit import Batch
from assetcore.lineage.environments import every
from assetcore.lineage.journal import Entry
from assetcore.lineage.manifest import NAME as MANIFEST
from assetcore.lineage.manifest import decode_manifest, encode_manifest
from assetcore.lineage.promotions import never_promoted
from assetcore.lineage.records import decode, is_record, is_whole, journals_of, kind_of
from assetcore.project import Project
from assetcore.storage import Key, ObjectInfo, is_configuration, object_key, parse_key, run_timestamp
from assetcore.telemetry import get_pipeline_logger

__all__ = ["Swept", "sweep", "sweep_unknown"]

logger = get_pipeline_logger(__name__)

GC = "gc"
"""What stands for a run in the manifests that this room writes."""
WRITING = timedelta(minutes=1)
"""No object takes longer to be written."""
LAST = "9"
"""Stands behind every time of a key."""
GRACE = timedelta(hours=1)
"""Objects younger than this may belong to a commit that is under way elsewhere."""


@dataclass(frozen=True, slots=True)
class Swept:
    """What is (or was) removed: objects that lineage does not know, assets that are no longer declared, and history that is not kept.

    `compacted` are packs of which less than half was needed, `let_go` documents that were given up, `replaced` objects that an earlier
    compaction has left behind.
    """

    dry_run: bool
    objects: int
    bytes: int
    orphans: tuple[str, ...]
    let_go: int = 0
    compacted: int = 0
    replaced: int = 0

    def to_json(self) -> dict[str, Any]:
        return {
            "dry_run": self.dry_run, "objects": self.objects, "bytes": self.bytes, "orphans": list(self.orphans),
            "let_go": self.let_go, "compacted": self.compacted, "replaced": self.replaced,
        }  # fmt: skip


async def sweep(
    project: Project, alone: AbstractAsyncContextManager[None], *, dry_run: bool, grace: timedelta = GRACE,
    keep: timedelta | None = None,
) -> Swept:  # fmt: skip
    """Find what nobody needs, and remove it unless `dry_run`; history older than `keep`, too. No run is at work while objects are removed
    that lineage does not know; what is compacted stops none. With them go indexes of vectors whose environment or asset is not there.
    """
    async with alone:
        async with project.engine.connect() as connection:
            orphans = await read.undeclared(connection, project.environment_id, list(project.asset_ids.values()))
        unknown = await sweep_unknown(project, dry_run=dry_run, grace=grace)
        if not dry_run:
            for identifier, (name, units) in orphans.items():
                await _retire(project, identifier, name, units)
            await _drop_indexes(project)
    packs = await compact(project, keep=keep, dry_run=dry_run, grace=grace)
    return Swept(
        dry_run, len(unknown), sum(info.size for info in unknown) + packs.bytes, tuple(name for name, _ in orphans.values()),
        packs.let_go, packs.packs, packs.objects,
    )  # fmt: skip


async def sweep_unknown(
    project: Project, *, dry_run: bool, grace: timedelta, idle: Collection[str] = ()
) -> list[ObjectInfo]:
    """Remove the objects that lineage does not know, unless they are younger than `grace`, or may be of a run that is at work.

    In the `idle` environments, beside the one that the project is seen from, none is: the caller holds their locks. What writers that
    died left half written may be another project's: it goes when no writer takes so long.
    """
    unknown = await _unknown(project, datetime.now(UTC) - grace, {project.environment, *idle})
    await _refuse_foreign_lineage(project, unknown)
    if unknown and not dry_run:
        await project.bucket.delete([info.key for info in unknown])
        facts = {"objects": len(unknown), "bytes": sum(info.size for info in unknown)}
        async with project.engine.begin() as connection:
            await journal.append(connection, project.id, Entry("gc", project.environment, facts=facts))
    if not dry_run:
        await project.bucket.sweep(datetime.now(UTC) - max(grace, WRITING))
    return unknown


async def _retire(project: Project, identifier: int, name: str, units: list[tuple[bytes, int]]) -> None:
    """The units of an asset leave it, as a commit like any other: what it was stays known."""
    async with project.engine.connect() as connection:
        base = await lineage.allocate(connection)
    key = object_key(
        project.name, "main", run_timestamp(datetime.now(UTC)), name, f"{MANIFEST}-{base >> 20:08d}.parquet"
    )
    batch = Batch(base >> 20, project.id, project.environment_id, identifier, 0, GC, key, removed=tuple(units))
    data = encode_manifest(
        batch, project=project.name, environment=project.environment, asset=name, assets={}, definition=None
    )
    await project.bucket.write_own(key, data)
    facts = {"removed": len(units), "manifest": key, "sha256": hashlib.sha256(data).hexdigest()}
    async with project.engine.begin() as connection:
        await lineage.commit(connection, batch)
        entry = Entry("retire", project.environment, name, GC, batch.number, "not declared any more", facts)
        await journal.append(connection, project.id, entry)


async def _drop_indexes(project: Project) -> None:
    """Indexes of vectors go with their environment, or with their asset: they are made again of the store where they are wanted."""
    from assetcore.lineage import vectors  # numpy behind it takes 0.1 s: only for those who sweep
    from assetcore.vectors import embeddings

    here = project.environment
    async with project.engine.connect() as connection:
        await connection.execution_options(isolation_level="REPEATABLE READ")
        there = [one.name for one in await every(connection, project.id)]
        unneeded = await vectors.unneeded(connection, project.name, [*there, here], here, embeddings(project))
    for environment, one in unneeded:
        async with project.engine.begin() as connection:
            await vectors.drop(connection, one)
            facts = {"generation": one.id, "model": one.model}
            await journal.append(connection, project.id, Entry("vectors drop", environment, one.asset, facts=facts))


async def _unknown(project: Project, before: datetime, idle: Collection[str]) -> list[ObjectInfo]:
    """Objects of this project in the bucket that no lineage points to, and none will: those of a run elsewhere may wait for its commit.

    Lineage is asked once more after the bucket has told what it holds, which takes its time: what was committed meanwhile is known then,
    and a run that has not begun by then has written nothing of it.
    """
    async with project.engine.connect() as connection:
        known = await read.known_keys(connection, project.id)
    listed = project.bucket.list(f"{project.name}/")
    found = [info async for info in listed if info.key not in known and info.modified < before and _may_go(info.key)]
    if not found:
        return []
    async with project.engine.connect() as connection:
        at_work = [began for place, _, began in await runs.at_work(connection, project.id) if place not in idle]
        known = await read.known_keys(connection, project.id)
    since = run_timestamp(min(at_work)) if at_work else LAST
    return [info for info in found if info.key not in known and parse_key(info.key).run_ts < since]


def _may_go(key: Key) -> bool:
    """Whether it is for lineage to know: records no commit has to name, but for that of a compaction, which goes with its pack, nor does
    any name configurations of projects.

    What somebody else has put there, under a name that no key has, is not ours to remove.
    """
    try:
        parts = parse_key(key)
    except StorageError:
        logger.warning("%s is none of assetcore's objects: it stays", key)
        return False
    if is_configuration(key):
        return False
    return not is_record(key) or kind_of(parts.artifact_name) == GC


async def _refuse_foreign_lineage(project: Project, unknown: Sequence[ObjectInfo]) -> None:
    """Manifests of runs that this database has never heard of say that it was lost or restored: then nothing here is garbage.

    But for those of promotions that never came about: until they were listed as runs from their beginning, no database knew of them.
    """
    manifests = [info for info in unknown if parse_key(info.key).artifact_name.startswith(MANIFEST)]
    headers = [await _header(project, info.key) for info in manifests if info.size]  # an empty one was never written
    named = {header["run"] for header in headers}
    async with project.engine.connect() as connection:
        strangers = named - await runs.known(connection, named) - {GC, "forget"}
    never = (
        await _never_promoted(project, [one for one in headers if one["run"] in strangers]) if strangers else set[int]()
    )
    foreign = strangers & {header["run"] for header in headers if header["number"] not in never}
    if foreign:
        raise StorageError(
            f"The bucket holds lineage of {len(foreign)} runs that the database does not know, such as {min(foreign)}: "
            "it was lost, or restored from a backup, or is another one.",
            hint="Nothing was removed. Use the database that belongs to this bucket.",
        )


async def _header(project: Project, key: Key) -> Mapping[str, Any]:
    data = await project.bucket.read(key)
    try:
        return decode_manifest(data)[0]
    except (ValueError, KeyError) as error:
        raise StorageError(
            f"The manifest {key}, which the database does not know, cannot be read: whose lineage it is cannot be told.",
            hint="Nothing was removed. Where `aipctl catalog verify` misses no commit, it is nobody's: delete it, and try again.",
        ) from error


async def _never_promoted(project: Project, headers: Sequence[Mapping[str, Any]]) -> set[int]:
    """Of commits that this database does not know those of promotions that never came about, as the bucket tells it; none where what it
    tells is not whole.
    """
    told: list[Mapping[str, Any]] = []
    async for info in project.bucket.list(f"{project.name}/"):
        if is_record(info.key) and kind_of(parse_key(info.key).artifact_name) in ("journal", "run"):
            try:
                told.append(await asyncio.to_thread(decode, await project.bucket.read(info.key)))
            except (StorageError, ValueError):
                return set()
    journals, _ = journals_of(told)
    return never_promoted(headers, told, journals) if journals and is_whole(journals) else set()
