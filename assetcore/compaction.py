"""Compaction: which history is given up, and how is what is left put together?

History is kept for good unless a retention is set. What is older, in use in no environment, and no part of what anything in use is made
of, is let go: its rows leave the packs. A pack of which less than half is still needed is read, what is needed of it goes into a new pack,
and the pointers move in one transaction. Nothing is written in place: who reads meanwhile finds the old object, which goes with a later
`gc`. The order is pack, record, transaction; a crash in between leaves bytes that nobody knows.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby

from assetcore.journal import flush
from assetcore.lineage import commit as lineage
from assetcore.lineage import journal, records, retention
from assetcore.lineage.commit import NewObject
from assetcore.lineage.journal import Entry
from assetcore.lineage.retention import Member, Used
from assetcore.lineage.schema import Connection
from assetcore.project import Project
from assetcore.storage import DamagedObjectError, Key, object_key, parse_key, run_timestamp
from assetcore.storage.repack import Kept, repack

__all__ = ["Compacted", "compact"]

PACK_BYTES = 16 << 20
"""About so many bytes of old packs become one new pack."""
GC = "gc"


@dataclass(frozen=True, slots=True)
class Compacted:
    """Documents that are let go, packs that are put together anew and objects that go, and the bytes that are free then."""

    let_go: int
    packs: int
    objects: int
    bytes: int


async def compact(project: Project, *, keep: timedelta | None, dry_run: bool, grace: timedelta) -> Compacted:
    """Let go of history that is older than `keep`, compact what is less than half needed, and remove what was replaced before `grace`.

    No run has to stop for it; while it is found out what is old, commits of the project wait.
    """
    now = datetime.now(UTC)
    async with project.engine.connect() as connection, connection.begin() as transaction:
        let_go = 0
        if keep is not None:
            await retention.lock(connection, project.id)
            old = await retention.past_retention(connection, project.id, now - keep)
            await retention.give_up(connection, old, f"history is kept for {_days(keep)} (setting retention)")
            let_go = old.height
            if let_go and not dry_run:
                await _tell(connection, project, f"history is kept for {_days(keep)}", let_go=let_go)
        used = [one for one in await retention.used(connection, project.id) if one.needed * 2 < one.content]
        if dry_run:
            await transaction.rollback()
    gone = [one for one in used if not one.needed]
    packs = [one for one in used if one.needed and one.rows is not None]
    freed = sum(one.size * (one.content - one.needed) // one.content for one in [*gone, *packs])
    async with project.engine.connect() as connection:
        retired = await retention.retired(connection, project.id, grace)
    if not dry_run:
        for asset, some in groupby(gone, lambda one: one.asset):
            await _commit(project, asset, None, [], list(some))
        for some in _portions(packs):
            await _put_together(project, some)
        if (
            retired
        ):  # before the old packs go the bucket's journal must tell of the compaction, or a rebuild would look for them
            await flush(project)
        await project.bucket.delete([key for key, _ in retired.values()])
        async with project.engine.begin() as connection:
            await retention.forget_objects(connection, retired)
            if retired:
                await _tell(connection, project, "replaced earlier", objects=len(retired))
    return Compacted(let_go, len(packs), len(retired), freed + sum(size for _, size in retired.values()))


def _portions(packs: Sequence[Used]) -> Iterator[list[Used]]:
    """Packs of one asset, in the order in which they were written, that become one."""
    portion: list[Used] = []
    for one in packs:
        if portion and (one.asset != portion[0].asset or sum(p.size for p in portion) + one.size > PACK_BYTES):
            yield portion
            portion = []
        portion.append(one)
    if portion:
        yield portion


async def _put_together(project: Project, packs: Sequence[Used]) -> None:
    """What is needed of these packs in new ones; one that is damaged is left as it is."""
    async with project.engine.connect() as connection:
        members = await retention.members(connection, [one.id for one in packs])
    kept: list[Kept] = []
    for one in packs:
        found = members[one.id]
        if not found:  # another compaction was first
            continue
        rows, hashes = [m.row for m in found], [m.sha256 for m in found]
        try:
            kept.append(Kept(one.key, await project.bucket.read(one.key), rows, hashes))
        except DamagedObjectError:
            continue
    by_key = {one.key: one for one in packs}
    while kept:
        try:
            made = await asyncio.to_thread(repack, kept)
            break
        except DamagedObjectError as error:
            kept = [one for one in kept if one.key != error.key]
    else:
        return
    for data, some in made:
        old = [by_key[one.key] for one in some]
        await _commit(project, old[0].asset, data, [m for one in old for m in members[one.id]], old)


async def _commit(
    project: Project, asset: int, data: bytes | None, rows: Sequence[Member], old: Sequence[Used]
) -> None:
    """The new pack, a record of it, and one transaction that moves the pointers of the rows to it, in their order."""
    place, now = parse_key(old[0].key), datetime.now(UTC)
    async with project.engine.connect() as connection:
        base = await lineage.allocate(connection)
        let_go = await retention.let_go_of(connection, [one.id for one in old])
    number, stamp = base >> 20, run_timestamp(now)

    def key(artifact: str) -> Key:
        return object_key(project.name, place.flow, stamp, place.step, artifact)

    new = None
    moves = [(document, row) for row, member in enumerate(rows) for document in member.documents]
    if data is not None:
        new = NewObject(base, key(f"pack-{number:08d}.parquet"), len(data), len(rows), hashlib.sha256(data).digest())
        await project.bucket.write_own(new.key, data)
    manifest = key(f"{records.NAME}-{GC}-{number:08d}.json.gz")
    compaction = {
        "number": number, "asset_id": asset, "at": now, "run": GC, "manifest": manifest, "moves": moves,
        "objects": [] if new is None else [[new.id, new.key, new.size, new.rows, new.sha256]],
        "retired": [one.id for one in old], "let_go": let_go,
    }  # fmt: skip
    record = {"project": project.name, "environment": project.environment, "compaction": compaction}
    await project.bucket.write_own(manifest, await asyncio.to_thread(records.encode, record))
    async with project.engine.connect() as connection, connection.begin() as transaction:
        await retention.lock(connection, project.id)
        if not await retention.compact(connection, asset, new, moves, [one.id for one in old]):
            await transaction.rollback()  # something was taken again meanwhile: the next time
            return
        await retention.note_compaction(
            connection, number, project.id, project.environment_id, asset, GC, manifest, now
        )
        entry = Entry(
            "compact", project.environment, place.step, GC, number, facts={"packs": len(old), "documents": len(rows)}
        )
        await journal.append(connection, project.id, entry)


async def _tell(connection: Connection, project: Project, why: str, **facts: int) -> None:
    await journal.append(connection, project.id, Entry("gc", project.environment, why=why, facts=facts))


def _days(keep: timedelta) -> str:
    return f"{keep.days} days" if keep >= timedelta(days=2) else f"{keep.total_seconds() / 3600:g} hours"
