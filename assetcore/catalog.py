"""Catalog: can Postgres be made again of the bucket, and do the two say the same?

All manifests and records are read, several at a time, and `lineage.replay` says what they tell; what cannot be read is named, and the
rest goes on. A database is one with its bucket: all projects in it are rebuilt at once, with the identifiers that they had, while no run is
at work in any of them.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

import polars as pl

from assetcore import stack
from assetcore.errors import StorageError, UsageError
from assetcore.lineage import answers, commit, read, rebuild, records, schema
from assetcore.lineage.manifest import NAME as MANIFEST
from assetcore.lineage.manifest import read_manifest
from assetcore.lineage.rebuild import Difference
from assetcore.lineage.replay import Catalog, Manifest, number_of, replay
from assetcore.settings import Settings
from assetcore.storage import Bucket, Key

__all__ = ["Rebuilt", "Verified", "rebuild_catalog", "verify_catalog"]

AT_ONCE = 16
ROUNDS = 5
"""So often is looked again for what was done meanwhile."""
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class _Told:
    """What lies in the bucket: manifests, records, for each object that cannot be read the reason, and the keys of all that is there.

    `digests` are those of the records' bytes, whatever they say.
    """

    manifests: Sequence[Manifest]
    records: Sequence[Mapping[str, Any]]
    damaged: Mapping[Key, str]
    keys: Sequence[Key]
    digests: Mapping[Key, bytes]

    def replayed(self, without: frozenset[int] = frozenset(), known: Collection[int] = ()) -> Catalog:
        """What they tell, but for some commits; `known` are those that Postgres knows."""
        unreadable = [number_of(key) for key in self.damaged if MANIFEST in key]
        whole = not any(map(records.is_record, self.damaged))
        return replay([m for m in self.manifests if m.number not in without], self.records, unreadable, known, whole)


@dataclass(frozen=True, slots=True)
class _Seen:
    """What was read of the bucket so far, by key."""

    manifests: dict[Key, Manifest] = field(default_factory=dict)
    others: dict[Key, Mapping[str, Any]] = field(default_factory=dict)
    damaged: dict[Key, str] = field(default_factory=dict)
    digests: dict[Key, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What was written, and what was missing: commits by number, objects by key with the reason."""

    rows: Mapping[str, int]
    manifests: int
    seconds: float
    missing: Sequence[int]
    undone: Sequence[int]
    damaged: Mapping[Key, str]
    left_out: int

    @property
    def whole(self) -> bool:
        """Whether nothing was missing."""
        return not (self.missing or self.damaged or self.left_out)

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "whole": self.whole, "rows": dict(self.rows), "damaged": dict(self.damaged)}


@dataclass(frozen=True, slots=True)
class Verified:
    """Postgres beside the bucket. `unfinished` are commits of known runs that died before Postgres was told: they do not count."""

    tables: Sequence[Difference]
    missing: Sequence[int]
    unfinished: Sequence[int]
    damaged: Mapping[Key, str]
    seconds: float

    @property
    def same(self) -> bool:
        return all(one.same for one in self.tables) and not self.missing and not self.damaged

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "same": self.same, "damaged": dict(self.damaged)}


async def rebuild_catalog(settings: Settings, *, replace: bool, automatic_schema: bool, say: Say) -> Rebuilt:
    """Make what Postgres holds of the bucket alone, in one transaction. Raises UsageError where something is there, unless `replace`."""
    started = time.perf_counter()
    engine, bucket = _open(settings)
    try:
        stage = await schema.ensure(engine, automatic=automatic_schema)
        schema.refuse_stage(settings.stage, stage, settings.database_url or "", embedded=automatic_schema)
        async with engine.connect() as connection:
            if not replace and not await read.is_empty(connection):
                raise UsageError(
                    "The database is not empty: what it holds would be replaced by what the bucket tells.",
                    hint="Compare the two: aipctl catalog verify. To replace it: aipctl catalog rebuild --replace",
                )
        async with _alone(settings, engine, say):
            told = await _read(bucket, say)
            if not told.manifests:
                raise StorageError(
                    f"The bucket {bucket.url} holds no manifest that can be read: there is nothing to rebuild from."
                )
            catalog = _without_deleted(await asyncio.to_thread(told.replayed), told.keys)
            say(f"Writing {sum(frame.height for frame in catalog.tables.values()):,} rows")
            async with engine.begin() as connection:
                if not replace and not await read.is_empty(connection):
                    raise UsageError(
                        "Another run has committed to the database meanwhile.",
                        hint="Compare the two: aipctl catalog verify",
                    )
                rows = await rebuild.rebuild(connection, catalog, told.digests)
                await answers.rebuild(connection, filter(answers.is_answer, told.keys))
        async with engine.begin() as connection:
            await commit.analyze(connection)
    finally:
        await bucket.close()
        await engine.dispose()
    seconds = round(time.perf_counter() - started, 3)
    return Rebuilt(rows, len(told.manifests), seconds, catalog.missing, catalog.undone, told.damaged, catalog.left_out)


async def verify_catalog(settings: Settings, *, say: Say) -> Verified:
    """Compare what Postgres holds with what the bucket tells. What is done meanwhile is read, too."""
    started = time.perf_counter()
    engine, bucket = _open(settings)
    seen, rounds = _Seen(), ROUNDS
    try:
        await schema.ensure(engine, automatic=False)
        while True:
            async with engine.connect() as connection:
                before = await rebuild.rows_told(connection)
            told = await _read(bucket, say, seen)
            async with engine.connect() as connection:
                known, runs = await rebuild.commits(connection), await rebuild.known_runs(connection)
            unfinished = frozenset(
                m.number for m in told.manifests if m.number not in known and m.header["run"] in runs
            )
            catalog = await asyncio.to_thread(told.replayed, unfinished, known)
            async with engine.connect() as connection:
                await connection.execution_options(isolation_level="REPEATABLE READ")
                rounds -= 1
                if not rounds or await rebuild.rows_told(connection) == before:
                    differences = await rebuild.compare(connection, catalog)
                    break
    finally:
        await bucket.close()
        await engine.dispose()
    seconds = round(time.perf_counter() - started, 3)
    return Verified(differences, catalog.missing, sorted(unfinished), told.damaged, seconds)


@asynccontextmanager
async def _alone(settings: Settings, engine: schema.Engine, say: Say) -> AsyncIterator[None]:
    """No run is at work in any environment of any project that the database knows, nothing is forgotten or compacted; others wait."""
    if settings.redis_url is None:
        raise UsageError("No Redis is known.", hint="Start the embedded services with: aipctl up, or set REDIS_URL.")
    async with engine.connect() as connection:
        known = await rebuild.places(connection)
    from assetcore.cache import async_lock, get_async_client  # 0.15 s, and only here

    client = get_async_client(settings.redis_url)
    async with AsyncExitStack() as locks:
        locks.push_async_callback(client.aclose)
        for project, names in known.items():
            for one in (stack.FORGETTING, stack.COMPACTING, *stack.where_runs_may_be(names)):
                wait = partial(say, f"Waiting for what is at work: {project} ({one.strip('()')})")
                lock = async_lock(client, f"{stack.RUN_LOCK}{project}:{one}", stack.RUN_LEASE, on_wait=wait)
                await locks.enter_async_context(lock)
        yield


def _open(settings: Settings) -> tuple[schema.Engine, Bucket]:
    if settings.database_url is None:
        raise UsageError(
            "No database is known.", hint="Start the embedded services with: aipctl up, or set DATABASE_URL."
        )
    return schema.connect(settings.database_url), Bucket.open(settings.storage_url, settings.storage_options())


async def _read(bucket: Bucket, say: Say, seen: _Seen | None = None) -> _Told:
    """Every manifest and record of the bucket; those that were `seen` before are not read again."""
    seen = seen or _Seen()
    slots = asyncio.Semaphore(AT_ONCE)

    async def one(key: Key) -> None:
        async with slots:
            try:
                data = await bucket.read(key)
                if records.is_record(key):
                    seen.digests[key] = hashlib.sha256(data).digest()
                    seen.others[key] = await asyncio.to_thread(records.decode, data)
                else:
                    seen.manifests[key] = Manifest(key, *await asyncio.to_thread(read_manifest, data))
                seen.damaged.pop(key, None)
            except (StorageError, ValueError) as error:
                seen.damaged[key] = str(error).partition("\n")[0][:200]

    listed = [info.key async for info in bucket.list()]
    keys = [key for key in listed if records.is_record(key) or key.rpartition("/")[2].startswith(MANIFEST)]
    new = [key for key in keys if key not in seen.manifests and key not in seen.others]
    say(f"Reading {len(new):,} manifests and records of {bucket.url}")
    await asyncio.gather(*map(one, new))
    manifests = {key: seen.manifests[key] for key in keys if key in seen.manifests}
    others = {key: seen.others[key] for key in keys if key in seen.others}
    digests = {key: seen.digests[key] for key in keys if key in seen.digests}
    damaged = {key: seen.damaged[key] for key in keys if key in seen.damaged}
    passed_over = _replaced(manifests, others)
    return _Told(
        [one for key, one in manifests.items() if key not in passed_over],
        [one for key, one in others.items() if key not in passed_over],
        dict(sorted(damaged.items())),
        listed,
        digests,
    )


def _without_deleted(catalog: Catalog, keys: Collection[Key]) -> Catalog:
    """But for packs that a compaction has replaced, and a `gc` deleted since."""
    deleted = pl.col("retired").is_not_null() & ~pl.col("key").is_in(list(keys))
    return replace(catalog, tables={**catalog.tables, "object": catalog.tables["object"].filter(~deleted)})


def _replaced(manifests: Mapping[Key, Manifest], others: Mapping[Key, Mapping[str, Any]]) -> set[Key]:
    """What is to be passed over: what `forget` has replaced and could not delete, or has written and did not come to tell of."""
    facts = [row["facts"] for record in others.values() for row in record.get("journal", ())]
    replaced = {Key(key) for fact in facts for key in fact.get("replaced", ())}
    numbers = {key: one.number for key, one in manifests.items()}
    numbers |= {key: one["compaction"]["number"] for key, one in others.items() if "compaction" in one}
    first: dict[int, Key] = {}
    for key in sorted(numbers.keys() - replaced):  # by the time at which they were written
        if first.setdefault(numbers[key], key) != key:
            replaced.add(key)
    return replaced
