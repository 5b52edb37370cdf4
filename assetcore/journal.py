"""Journal: what was done here, and is what was written of it whole?

Rows are appended in Postgres with what they tell (`lineage.journal`). From there they go to the bucket, in batches that are written
once: when a run has ended, and with whatever changes something else. Rows that a process left behind go with the next batch. Each batch
repeats the chain, so that Postgres and the bucket bear witness for each other.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from assetcore.errors import NothingSelectedError, StorageError, UsageError
from assetcore.lineage import journal, records
from assetcore.lineage.journal import Kept, Row, lies_at, open_box
from assetcore.moments import moment
from assetcore.project import Project
from assetcore.refs import parse_ref, suggestion
from assetcore.storage import Key, run_timestamp

__all__ = ["JournalCheck", "Line", "check", "flush", "read", "since_when"]

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


@dataclass(frozen=True, slots=True)
class Line:
    """A row of the journal for people: with the names that can still be read; `forgotten` counts those that cannot."""

    row: Row
    names: tuple[str, ...]
    forgotten: int

    def to_json(self) -> dict[str, Any]:
        told = self.row.to_json()
        del told["boxes"]
        return {**told, "names": list(self.names), "forgotten": self.forgotten}


@dataclass(frozen=True, slots=True)
class JournalCheck:
    """How many rows and batches there are, and a sentence for each thing that is not as it must be."""

    rows: int
    batches: int
    unsealed: int
    problems: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "rows": self.rows,
            "batches": self.batches,
            "unsealed": self.unsealed,
            "problems": list(self.problems),
            "whole": not self.problems,
        }


def since_when(text: str, now: datetime) -> datetime:
    """The moment that a text means: `3d`, `12h`, `30m` ago, or a time as everywhere (`moments`). Raises UsageError."""
    with suppress(ValueError, OverflowError, UsageError):  # before the first year, too
        if text[-1:] in UNITS and text[:-1].isdigit():
            return now - timedelta(seconds=int(text[:-1]) * UNITS[text[-1]])
        if isinstance(found := moment(text, now), datetime):
            return found
    raise UsageError(
        f"{text!r} is no moment.",
        hint="Write 2026-11-21, 2026-11-21T08:00, yesterday, '2 hours ago', or how long ago: 3d, 12h, 30m",
    )


async def flush(project: Project) -> Key | None:
    """Write the rows that are in no batch yet into the bucket, and tell Postgres; the key, or None where there was nothing."""
    async with project.engine.connect() as connection:
        new = await journal.unsealed(connection, project.id)
        subjects = {bytes.fromhex(subject) for row in new for subject, _ in row.boxes}
        opened = await journal.keys(connection, project.id, subjects)
    if not new:
        return None
    stamp, first, last = run_timestamp(datetime.now(UTC)), new[0].number, new[-1].number
    batch = {"project": project.name, "first": first, "last": last, "journal": [row.to_json() for row in new]}
    data = await asyncio.to_thread(records.encode, batch)
    key = lies_at(project.name, stamp, "journal", first, last)
    if opened:  # apart from the rows: these are written once, a key can be destroyed
        kept = {"project": project.name, "keys": {subject.hex(): value.hex() for subject, value in opened.items()}}
        await project.bucket.write_own(lies_at(project.name, stamp, "keys", first, last), records.encode(kept))
    await project.bucket.write_own(key, data)
    async with project.engine.begin() as connection:
        await journal.note_batches(connection, project.id, [Kept(first, last, key, hashlib.sha256(data).digest())])
    return key


async def read(
    project: Project, ref: str | None, *, since: datetime | None, limit: int | None, here: bool = False
) -> list[Line]:
    """Rows of the journal, oldest first: the newest `limit` of them, about an asset or one of its units if a REF says so.

    With `here`, only of this environment.
    """
    asset, commits = None, None
    async with project.engine.connect() as connection:
        if ref is not None:
            parsed = parse_ref(ref)
            if parsed.asset is None or parsed.asset not in project.asset_ids:
                raise NothingSelectedError(
                    f"There is no asset {parsed.asset or ref!r}.",
                    hint=suggestion(parsed.asset or ref, project.graph.assets) or "See: aipctl ls",
                )
            if parsed.unit is None:
                asset = parsed.asset
            else:
                commits = await journal.commits_of(connection, project.id, project.asset_ids[parsed.asset], parsed.unit)
        found = await journal.rows(
            connection, project.id, since=since, asset=asset, environment=project.environment if here else None,
            commits=commits, limit=limit, newest=True,
        )  # fmt: skip
        subjects = {bytes.fromhex(subject) for row in found for subject, _ in row.boxes}
        opened = await journal.keys(connection, project.id, subjects)
    return [_line(row, opened) for row in found]


def _line(row: Row, opened: Mapping[bytes, bytes]) -> Line:
    names = [open_box(opened[key], box) for subject, box in row.boxes if (key := bytes.fromhex(subject)) in opened]
    return Line(row, tuple(names), len(row.boxes) - len(names))


async def check(project: Project) -> JournalCheck:
    """Whether every row follows from the one before, the bucket holds the same rows, and manifests are those that were committed."""
    async with project.engine.connect() as connection:
        await connection.execution_options(isolation_level="REPEATABLE READ")
        rows = await journal.rows(connection, project.id)
        batches = await journal.batches(connection, project.id)
    problems = chain_problems(project.name, rows)
    known = {row.number: row for row in rows}
    covered = 0
    for first, last, key, digest in batches:
        if first > covered + 1:
            problems.append(f"No batch in the bucket holds the rows {covered + 1} to {first - 1}.")
        covered = max(covered, last)
        try:
            data = await project.bucket.read(key)
            if hashlib.sha256(data).digest() != digest:
                problems.append(f"The batch {key} is not the one that was written: its bytes hash to something else.")
                continue
            held = records.decode(data).get("journal", ())
        except (StorageError, ValueError) as error:
            problems.append(f"The batch of the rows {first} to {last} cannot be read: {error}")
            continue
        if [told["number"] for told in held] != list(range(first, last + 1)):
            problems.append(f"The batch {key} does not hold the rows {first} to {last}, as it did when it was written.")
        for told in held:
            here = known.get(told["number"])
            if here is None or json.loads(json.dumps(here.to_json())) != told:
                problems.append(f"Row {told['number']} in Postgres is not the one in the batch {key}.")
    problems += await _manifest_problems(project, rows)
    unsealed = sum(number > covered for number in known)
    return JournalCheck(len(rows), len(batches), unsealed, tuple(problems))


def chain_problems(project: str, rows: Sequence[Row]) -> list[str]:
    """Where the chain of a project's rows is broken: numbers that are missing, rows that were changed. Each break is told once."""
    problems: list[str] = []
    number, before = 0, journal.start(project)
    for row in rows:
        if row.number != number + 1:
            problems.append(f"Rows {number + 1} to {row.number - 1} of the journal are missing.")
        elif row.sealed(before) != row.hash:
            problems.append(
                f"Row {row.number} ({row.what}, {row.at:%Y-%m-%d %H:%M:%S}) was changed after it was written."
            )
        number, before = row.number, row.hash
    return problems


async def _manifest_problems(project: Project, rows: Sequence[Row]) -> list[str]:
    """Manifests that are not those whose digest the journal holds; one that `forget` or `gc` has replaced is, if that was written."""
    told: dict[str, str | None] = {}
    for row in rows:
        if manifest := row.facts.get("manifest"):
            told[manifest] = row.facts["sha256"]
        told |= dict.fromkeys(row.facts.get("replaced", ()))
    problems: list[str] = []
    slots = asyncio.Semaphore(16)

    async def one(key: str, digest: str) -> None:
        async with slots:
            try:
                data = await project.bucket.read(Key(key))
            except StorageError as error:
                problems.append(f"A manifest cannot be read: {error}")
                return
        if hashlib.sha256(data).hexdigest() != digest:
            problems.append(f"The manifest {key} is not the one that was committed: its bytes hash to something else.")

    await asyncio.gather(*(one(key, digest) for key, digest in told.items() if digest is not None))
    return sorted(problems)
