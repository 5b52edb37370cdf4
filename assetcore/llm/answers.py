"""Answers: what was answered before, and who is asking the same at this moment?

An answer is an object in the store, `{project}/answers/{time}/{alias}/{digest}.json`, with the question, and a row in Postgres that finds
it by the digest of the question. One that was of no use is refused: a copy comes after it that says by whom (`refused_by`), and who
that is finds none. Of those who ask the same at once, on whichever machines, one holds a lease in Redis and asks;
the others wait for it and find its answer. Without Redis everybody asks for himself.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from assetcore.errors import ServiceError, StorageError
from assetcore.lineage import answers as lineage
from assetcore.lineage.schema import Engine
from assetcore.storage import Bucket, Key
from assetcore.telemetry import get_pipeline_logger

__all__ = ["Answers"]

logger = get_pipeline_logger(__name__)

ANYONE = "anyone"
"""Refuses an answer that is none, whoever asks; else it is refused by the digest of the code that could do nothing with it."""
LEASE = 30.0
"""Seconds after which the question of a process that died may be asked by another."""


@dataclass(frozen=True, slots=True)
class Answers:
    """The recorded answers of a project."""

    engine: Engine
    bucket: Bucket
    project: str
    redis_url: str | None
    kept: bool = True

    async def find(self, digest: bytes, since: datetime | None = None, code: str = "") -> dict[str, Any] | None:
        """What was answered last, with its `key`: not before `since`, and not what this code, or anyone, has refused."""
        async with self.engine.connect() as connection:
            key = await lineage.find(connection, self.project, digest, since)
        if key is None:
            return None
        record = await self._read(key)
        if record is None or not {ANYONE, code}.isdisjoint(record.get("refused_by", ())):
            return None
        return record | {"key": key}

    async def keep(self, digest: bytes, alias: str, record: Mapping[str, Any]) -> str:
        """Record an answer, where they are `kept`: first the object, then the row that finds it. Gives its key."""
        if not self.kept:
            return ""
        return await self._write(lineage.answer_key(self.project, alias, digest, datetime.now(UTC)), record)

    async def refuse(self, keys: Iterable[str], by: str | None) -> None:
        """Have these answers not be found again by a code, or by anyone; where there is a later one by now, that is found."""
        for key in dict.fromkeys(keys):
            digest, alias, answered = lineage.question_of(key)
            async with self.engine.connect() as connection:
                is_last = await lineage.find(connection, self.project, digest, None) == key
            record = await self._read(Key(key)) if is_last and self.kept else None
            if record is None:
                continue
            after = max(datetime.now(UTC), answered + timedelta(microseconds=1))  # also where clocks differ
            copy = record | {"refused_by": sorted({*record.get("refused_by", ()), by or ANYONE})}
            try:
                await self._write(lineage.answer_key(self.project, alias, digest, after), copy)
            except StorageError as error:
                logger.warning("the answer %s was of no use, and will be found again: %s", key, error)

    async def _read(self, key: Key) -> dict[str, Any] | None:
        try:
            return json.loads(await self.bucket.read(key))
        except (StorageError, ValueError) as error:  # it is asked again
            logger.warning("the recorded answer %s cannot be read: %s", key, error)
            return None

    async def _write(self, key: Key, record: Mapping[str, Any]) -> str:
        await self.bucket.write_own(key, json.dumps(record, ensure_ascii=False, indent=1).encode("utf-8", "replace"))
        async with self.engine.begin() as connection:
            await lineage.keep(connection, [key])
        return key

    @asynccontextmanager
    async def alone(self, digest: bytes) -> AsyncIterator[None]:
        """While this is open, nobody else asks the same."""
        if self.redis_url is None:
            yield
            return
        from assetcore.cache import async_lock, get_async_client  # 0.15 s, and only for those who ask models

        client = get_async_client(self.redis_url)
        lock = async_lock(client, f"assetcore:llm:{self.project}:{digest.hex()}", LEASE)
        held = False
        try:
            try:
                await lock.__aenter__()
                held = True
            except ServiceError as error:
                logger.warning("another run may ask the same model the same: %s", error)
            yield
        finally:
            if held:
                await lock.__aexit__(None, None, None)
            await client.aclose()
