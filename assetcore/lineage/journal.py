"""Journal in Postgres: what was done, by whom, when and why, each row sealed by the one before it?

A row is appended in the transaction of what it tells, under the lock of its project: there is no change without its row and no row
without its change, and a process that dies takes none with it. The rows of a project are numbered without gaps and each holds the hash
of the one before. A commit is one row, whatever the number of its units: it points to its manifest and holds the digest of it.

What names a document (`about`) is a box that only the key of that document's source opens. When that key is destroyed, nobody can read
it any more, and the chain still holds: it is made over the boxes.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import BYTEA, insert
from sqlalchemy.ext.asyncio import AsyncConnection

from assetcore.digest import digest
from assetcore.lineage import records
from assetcore.lineage import tables as t
from assetcore.lineage.asking import among
from assetcore.lineage.commit import Batch
from assetcore.lineage.runs import actor
from assetcore.storage import Key, object_key, parse_key

__all__ = [
    "Entry", "Kept", "Row", "Sealed", "append", "batches", "commits_of", "committed", "keys", "lies_at", "note_batches",
    "open_box", "restore", "rows", "start", "unsealed", "witnesses",
]  # fmt: skip

Sealed = tuple[bytes, str]
"""Who it is about (16 bytes: the address of a source's unit), and what names it."""
NONCE = 12
_BATCH = re.compile(rf"/journal/{records.NAME}-journal-(\d+)-(\d+)\.json\.gz$")


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that was done. `facts` name no document; what does is in `about`."""

    what: str
    environment: str | None = None
    asset: str | None = None
    run: str | None = None
    commit: int | None = None
    why: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    about: Sequence[Sealed] = ()


@dataclass(frozen=True, slots=True)
class Row:
    """An entry as it was written: numbered, dated, signed for by an actor, and chained. `boxes` are subject and what only its key opens."""

    number: int
    at: datetime
    actor: str
    what: str
    environment: str | None
    asset: str | None
    run: str | None
    commit: int | None
    why: str | None
    facts: Mapping[str, Any]
    boxes: Sequence[Sequence[str]]
    hash: bytes

    def sealed(self, before: bytes) -> bytes:
        """The hash that the row must have, after the row with this hash."""
        told = (
            self.number,
            self.at.astimezone(UTC),
            self.actor,
            self.what,
            self.environment,
            self.asset,
            self.run,
            self.commit,
            self.why,
        )
        return digest("journal", before, *told, json.dumps([self.facts, self.boxes], sort_keys=True))

    def to_json(self) -> dict[str, Any]:
        return {
            "number": self.number, "at": self.at.isoformat(), "actor": self.actor, "what": self.what, "environment": self.environment,
            "asset": self.asset, "run": self.run, "commit": self.commit, "why": self.why, "facts": dict(self.facts),
            "boxes": [list(box) for box in self.boxes], "hash": self.hash.hex(),
        }  # fmt: skip

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Row:
        return cls(**{**row, "at": datetime.fromisoformat(row["at"]), "hash": bytes.fromhex(row["hash"])})


class Kept(NamedTuple):
    """A batch in the bucket: the first and the last row that it holds, its key, and the digest of its bytes."""

    first: int
    last: int
    key: Key
    digest: bytes


def lies_at(project: str, stamp: str, what: str, first: int, last: int) -> Key:
    """The key of what is written of these rows at this time: the batch itself (`journal`), or what opens its boxes (`keys`)."""
    return object_key(project, "main", stamp, "journal", f"{records.NAME}-{what}-{first:08d}-{last:08d}.json.gz")


def witnesses(project: str, digests: Mapping[Key, bytes]) -> list[Kept]:
    """The batches of a project among these objects, known by their keys alone, so that one that cannot be read is missed.

    Where several begin with the same row, because two processes wrote at once or a rebuild had lost sight of the first, the one that
    holds most is named first: together they cover what all of them do.
    """
    found: list[Kept] = []
    for key, bytes_digest in digests.items():
        if named := _BATCH.search(key):
            first, last = map(int, named.groups())
            if lies_at(project, parse_key(key).run_ts, "journal", first, last) == key:
                found.append(Kept(first, last, key, bytes_digest))
    return sorted(found, key=lambda one: (one.first, -one.last, one.key))


def committed(batch: Batch, environment: str, asset: str, manifest: bytes, about: Sequence[Sealed] = ()) -> Entry:
    """What the journal says of a commit: how much of what, and the manifest that tells the rest."""
    counts = {name: len(value) for name in ("made", "reused", "removed", "failed") if (value := getattr(batch, name))}
    facts = {**counts, "manifest": batch.manifest, "sha256": hashlib.sha256(manifest).hexdigest()}
    return Entry("commit", environment, asset, batch.run, batch.number, facts=facts, about=about)


def start(project: str) -> bytes:
    """What stands before the first row of a project."""
    return digest("journal-of", project)


async def append(connection: AsyncConnection, project: int, *entries: Entry, after: int = 0) -> None:
    """Write what is done in this transaction, with numbers after this one. The project's row is locked until the transaction ends."""
    p, j = t.project.c, t.journal
    name = (
        await connection.execute(sa.select(p.name).where(p.id == project).with_for_update(key_share=True))
    ).scalar_one()
    last = await connection.execute(
        sa.select(j.c.number, j.c.hash).where(j.c.project_id == project).order_by(j.c.number.desc()).limit(1)
    )
    number, before = last.one_or_none() or (0, start(name))
    number = max(number, after)
    opened = await keys(connection, project, {subject for entry in entries for subject, _ in entry.about}, new=True)
    who, now = actor(), datetime.now(UTC)
    written: list[dict[str, Any]] = []
    for entry in entries:
        number += 1
        boxes = [[subject.hex(), _close(opened[subject], text)] for subject, text in entry.about]
        unsealed_row = Row(
            number,
            now,
            who,
            entry.what,
            entry.environment,
            entry.asset,
            entry.run,
            entry.commit,
            entry.why,
            dict(entry.facts),
            boxes,
            b"",
        )
        before = unsealed_row.sealed(before)
        written.append(_values(project, replace(unsealed_row, hash=before)))
    await connection.execute(sa.insert(j), written)


async def restore(connection: AsyncConnection, project: int, rows: Sequence[Row]) -> None:
    """Write rows as they were once written."""
    if rows:
        await connection.execute(sa.insert(t.journal), [_values(project, row) for row in rows])


def _values(project: int, row: Row) -> dict[str, Any]:
    values = {**row.to_json(), "at": row.at, "hash": row.hash, "project_id": project}
    return {**values, "commit_id": values.pop("commit")}


async def keys(
    connection: AsyncConnection, project: int, subjects: Collection[bytes], *, new: bool = False
) -> dict[bytes, bytes]:
    """The keys of these subjects; with `new`, one is made for each that has none and was not forgotten."""
    k = t.subject_key
    if not subjects:
        return {}
    mine = sa.and_(k.c.project_id == project, among(k.c.subject, subjects, BYTEA))
    found = dict((await connection.execute(sa.select(k.c.subject, k.c.key).where(mine))).all())
    fresh = {subject: _new_key() for subject in subjects if new and subject not in found}
    if fresh:
        await connection.execute(
            insert(k).values(
                [{"project_id": project, "subject": subject, "key": key} for subject, key in fresh.items()]
            )
        )
    return {**found, **fresh}


async def rows(
    connection: AsyncConnection, project: int, *, since: datetime | None = None, commits: Collection[int] | None = None,
    asset: str | None = None, environment: str | None = None, after: int = 0, limit: int | None = None, newest: bool = False,
) -> list[Row]:  # fmt: skip
    """Rows of the journal, oldest first: since a moment, of an asset, an environment, some commits; the `newest` of them if limited."""
    j = t.journal.c
    wanted = [j.project_id == project, j.number > after]
    if since is not None:
        wanted.append(j.at >= since)
    if asset is not None:
        wanted.append(j.asset == asset)
    if environment is not None:
        wanted.append(sa.or_(j.environment == environment, j.environment.is_(None)))  # none: it concerned all of them
    if commits is not None:
        wanted.append(among(j.commit_id, commits, sa.BigInteger))
    shown = (
        j.number,
        j.at,
        j.actor,
        j.what,
        j.environment,
        j.asset,
        j.run,
        j.commit_id,
        j.why,
        j.facts,
        j.boxes,
        j.hash,
    )
    ordered = sa.select(*shown).where(*wanted).order_by(j.number.desc() if newest else j.number).limit(limit)
    found = [Row(*row) for row in await connection.execute(ordered)]
    return found[::-1] if newest else found


async def commits_of(connection: AsyncConnection, project: int, asset: int, unit: str) -> list[int]:
    """The commits that changed what a unit is, in any environment, by the unit's label."""
    h, m = t.head.c, t.materialization.c
    found = await connection.execute(
        sa.select(h.since_commit, h.until_commit)
        .select_from(t.head.join(t.materialization, m.id == h.materialization_id))
        .join(t.environment, t.environment.c.id == h.environment_id)
        .where(t.environment.c.project_id == project, h.asset_id == asset, m.asset_id == asset, m.label == unit)
    )
    return sorted({commit for pair in found for commit in pair if commit is not None})


async def batches(connection: AsyncConnection, project: int) -> list[Kept]:
    """The batches in the bucket, by their first row."""
    b = t.journal_batch.c
    found = await connection.execute(
        sa.select(b.first, b.last, b.key, b.digest).where(b.project_id == project).order_by(b.first)
    )
    return [Kept(*row) for row in found]


async def unsealed(connection: AsyncConnection, project: int) -> list[Row]:
    """The rows that are in no batch yet."""
    b = t.journal_batch.c
    last = await connection.execute(sa.select(sa.func.coalesce(sa.func.max(b.last), 0)).where(b.project_id == project))
    return await rows(connection, project, after=last.scalar_one())


async def note_batches(connection: AsyncConnection, project: int, kept: Iterable[Kept]) -> None:
    """Remember that rows lie in the bucket; of two batches that begin with the same row, the one that is noted first counts."""
    if rows_ := [{"project_id": project, **one._asdict()} for one in kept]:
        await connection.execute(insert(t.journal_batch).on_conflict_do_nothing(), rows_)


def _new_key() -> bytes:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # 20 ms, for rows that name a document only

    return AESGCM.generate_key(256)


def _close(key: bytes, text: str) -> str:
    """A text in a box: what is drawn anew for each box, then the encrypted text, as hexadecimal."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    nonce = os.urandom(NONCE)
    return (nonce + AESGCM(key).encrypt(nonce, text.encode(), None)).hex()


def open_box(key: bytes, box: str) -> str:
    """The text in a box."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    data = bytes.fromhex(box)
    return AESGCM(key).decrypt(data[:NONCE], data[NONCE:], None).decode()
