"""Verify: do the bytes still say what lineage says?

Every object that holds a current document is read and hashed. What is gone or has changed is noted of the documents in it: from then on
a plan finds their units stale (P10), and a run makes exactly those again. A read that meets such an object on its way notes the same.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl

from assetcore.judgement import Choice
from assetcore.lineage import damage
from assetcore.lineage.damage import Damaged
from assetcore.project import Project
from assetcore.results import Event, Say
from assetcore.storage import DamagedObjectError, Key
from assetcore.storage.examine import Examined, Pace, examine

__all__ = ["Finding", "Verified", "look_again", "note_damage", "noting_damage", "verify"]

AT_ONCE = 8
PORTION = 64
"""After so many objects it is written down how far the verification is."""
RESUMABLE = timedelta(days=1)
"""What an interrupted verification has read so long ago is read again."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A current document whose bytes are lost: `object-missing` or `corrupt`."""

    asset: str
    unit: str
    document: str
    cause: str
    key: str
    detail: str

    def to_json(self) -> dict[str, Any]:
        return {
            "asset": self.asset, "unit": self.unit, "document": self.document, "cause": self.cause, "key": self.key,
            "detail": self.detail,
        }  # fmt: skip


@dataclass(slots=True)
class Verified:
    """What was read, and what is wrong. `already` are objects that an interrupted verification had read."""

    objects: int = 0
    documents: int = 0
    bytes: int = 0
    already: int = 0
    seconds: float = 0.0
    findings: list[Finding] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return {
            "objects": self.objects, "documents": self.documents, "bytes": self.bytes, "already": self.already,
            "seconds": round(self.seconds, 3), "damaged": [finding.to_json() for finding in self.findings],
        }  # fmt: skip


async def verify(
    project: Project, choice: Choice, say: Say, *, rate: float | None = None, again: bool = False
) -> Verified:
    """Read what the chosen assets and sources currently consist of, at most `rate` bytes a second.

    One that was interrupted is gone on with, unless `again`.
    """
    started = time.perf_counter()
    found = Verified()
    pace = Pace(rate)
    async with project.engine.connect() as connection:
        done = set() if again else await damage.verified(connection, datetime.now(UTC) - RESUMABLE)
    read: list[int] = []
    for name in project.graph.ordered(choice.assets):
        read += await _verify_asset(project, name, choice, found, pace, done, say)
    async with project.engine.begin() as connection:
        await damage.finished(connection, read)
    found.seconds = time.perf_counter() - started
    return found


async def _verify_asset(
    project: Project, name: str, choice: Choice, found: Verified, pace: Pace, done: Collection[int], say: Say
) -> list[int]:
    """One asset, portion by portion, in the order in which it was written; the objects that were read now or before."""
    say(Event("asset-started", name))
    async with project.engine.connect() as connection:
        documents = await damage.expected(connection, project.environment_id, project.asset_ids[name])
        documents = choice.narrow(project.graph.assets[name], documents)
        objects = await damage.objects(connection, documents["object"].unique().to_list())
        noted = await damage.noted(connection, project.environment_id)
    left = objects.filter(~pl.col("object").is_in(list(done)))
    found.already += objects.height - left.height
    before = len(found.findings)
    for start in range(0, left.height, PORTION):
        some = left.slice(start, PORTION)
        members = documents.join(some.select("object"), on="object", how="semi")
        lost, keys = await _look_where_it_is_now(
            project, await _examine(project, some, members, pace), members, some, pace
        )
        details = {one.document: one for one in lost}
        for row in members.filter(pl.col("document").is_in(list(details))).iter_rows(named=True):
            one = details[row["document"]]
            found.findings.append(Finding(name, row["label"], row["name"], one.cause, keys[one.document], one.detail))
        async with project.engine.begin() as connection:
            await _write_down(connection, project.asset_ids[name], lost, noted.intersection(members["document"]))
            broken = set(members.filter(pl.col("document").is_in(list(details)))["object"])
            await damage.note_verified(connection, [number for number in some["object"] if number not in broken])
        found.objects += some.height
        found.documents += members.height
        found.bytes += int(some["size"].sum())
        say(Event("progress", name, start + some.height, left.height))
    wrong = len(found.findings) - before
    say(
        Event(
            "asset-finished",
            name,
            text=f"{documents.height:,} document{'s' * (documents.height != 1)}"
            + (f", {wrong:,} damaged" if wrong else ""),
        )
    )
    return objects["object"].to_list()


async def _examine(project: Project, objects: pl.DataFrame, members: pl.DataFrame, pace: Pace) -> list[Damaged]:
    """What is wrong with these objects, several at once."""
    gate = asyncio.Semaphore(AT_ONCE)
    by_object = {key[0]: some for key, some in members.partition_by("object", as_dict=True).items()}

    async def one(number: int, key: str, size: int, sha256: bytes | None) -> list[Damaged]:
        some = by_object[number]
        async with gate:
            wrong = await examine(
                project.bucket, Examined(Key(key), size, sha256, some["row"].to_list(), some["sha256"].to_list()), pace
            )
        identifiers = some["document"]
        return [Damaged(identifiers[place], 0, cause, detail) for place, (cause, detail) in wrong.items()]

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(*row)) for row in objects.iter_rows() if row[0] in by_object]
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return [found for task in tasks for found in task.result()]


async def _look_where_it_is_now(
    project: Project, lost: Sequence[Damaged], members: pl.DataFrame, objects: pl.DataFrame, pace: Pace
) -> tuple[list[Damaged], dict[int, str]]:
    """What is lost, and under which keys: `gc` and `forget` may have moved or removed what was to be read here since that was asked."""
    place = ["document", "object", "row", "key"]
    before = members.join(objects.select("object", "key"), on="object").select(place)
    keys = dict(before.select("document", "key").iter_rows())
    if not lost:
        return [], keys
    async with project.engine.connect() as connection:
        now = await damage.of_documents(connection, [one.document for one in lost])
        there = await damage.objects(connection, now["object"].unique().to_list())
    now = now.join(there.select("object", "key"), on="object")
    moved = now.join(before, on=place, how="anti", nulls_equal=True)
    stayed = set(now["document"]) - set(moved["document"])
    again = await _examine(project, there, moved, pace) if moved.height else []
    keys |= dict(moved.select("document", "key").iter_rows())
    return [*(one for one in lost if one.document in stayed), *again], keys


async def _write_down(connection: Any, asset: int, lost: Sequence[Damaged], noted: Collection[int]) -> None:
    """Note what is lost, and forget what was noted of documents that are right."""
    await damage.note(connection, (one._replace(asset=asset) for one in lost))
    right = set(noted).difference(one.document for one in lost)
    if right:
        await damage.clear(connection, right)


async def note_damage(project: Project, keys: Collection[str]) -> int:
    """Look at the objects under these keys, which a read has stumbled over, and note what is lost; how many documents that is."""
    async with project.engine.connect() as connection:
        known = await damage.among_keys(connection, keys)
        objects = await damage.objects(connection, [number for number, _ in known.values()])
        members = await damage.in_objects(connection, objects["object"].to_list())
    lost = await _examine(project, objects, members, Pace())
    assets = dict(known.values())
    places = dict(members.select("document", "object").iter_rows())
    async with project.engine.begin() as connection:
        await damage.note(connection, [one._replace(asset=assets[places[one.document]]) for one in lost])
    return len(lost)


@asynccontextmanager
async def noting_damage(project: Project) -> AsyncIterator[None]:
    """What is read inside and turns out to be lost is noted, so that the next plan knows it; the error goes on."""
    try:
        yield
    except DamagedObjectError as error:
        if project.writable:
            await note_damage(project, [error.key])
        raise


async def look_again(project: Project) -> bool:
    """Before anything is made again because its bytes are lost: are they still? A store that was away is no reason to pay twice.

    Whether something is there again.
    """
    async with project.engine.connect() as connection:
        noted = await damage.noted(connection, project.environment_id)
        members = await damage.of_documents(connection, noted)
        objects = await damage.objects(connection, members["object"].unique().to_list())
    lost = {one.document for one in await _examine(project, objects, members, Pace())}
    if right := noted.difference(lost):
        async with project.engine.begin() as connection:
            await damage.clear(connection, right)
    return bool(right)
