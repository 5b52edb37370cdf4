"""Answers: what was answered before, and who is asking the same at this moment?

An answer is an object in the store, `{project}/answers/{time}/{alias}/{digest}.json`, with the question, and a row in Postgres that finds
it by the digest of the question. Of those who ask the same at once, on whichever machines, one holds a lease in Redis and asks;
the others wait for it and find its answer. Without Redis everybody asks for himself.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from assetcore.errors import ServiceError, StorageError
from assetcore.lineage import answers as lineage
from assetcore.lineage.schema import Engine
from assetcore.storage import Bucket
from assetcore.telemetry import get_pipeline_logger

__all__ = ["Answers"]

logger = get_pipeline_logger(__name__)

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

    async def find(self, digest: bytes, since: datetime | None = None) -> dict[str, Any] | None:
        """What was answered last, not before `since`."""
        async with self.engine.connect() as connection:
            key = await lineage.find(connection, self.project, digest, since)
        if key is None:
            return None
        try:
            return json.loads(await self.bucket.read(key))
        except (StorageError, ValueError) as error:  # it is asked again
            logger.warning("the recorded answer %s cannot be read: %s", key, error)
            return None

    async def keep(self, digest: bytes, alias: str, record: Mapping[str, Any]) -> None:
        """Record an answer, where they are `kept`: first the object, then the row that finds it."""
        if not self.kept:
            return
        key = lineage.answer_key(self.project, alias, digest, datetime.now(UTC))
        await self.bucket.write(key, json.dumps(record, ensure_ascii=False, indent=1).encode("utf-8", "replace"))
        async with self.engine.begin() as connection:
            await lineage.keep(connection, [key])

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
