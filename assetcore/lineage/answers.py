"""Answers: which recorded answer of a model belongs to a question?

An answer lies under `{project}/answers/{time}/{alias}/{digest}.json`: the key alone says which question it answers, so that the table can
be made again of a listing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from assetcore.lineage import tables as t
from assetcore.lineage.schema import Connection
from assetcore.storage import Key, object_key, parse_key, run_timestamp

__all__ = ["FLOW", "answer_key", "find", "forget", "is_answer", "keep", "question_of", "rebuild"]

FLOW = "answers"
_NAME = re.compile(r"/answers/[^/]+/[^/]+/[0-9a-f]{64}\.json$")


def answer_key(project: str, alias: str, digest: bytes, at: datetime) -> Key:
    """Where an answer lies."""
    return object_key(project, FLOW, run_timestamp(at), alias, f"{digest.hex()}.json")


def is_answer(key: str) -> bool:
    """Whether an answer lies there."""
    return _NAME.search(key) is not None


def question_of(key: str) -> tuple[bytes, str, datetime]:
    """The digest of the question that is answered there, the alias that was asked, and when it was recorded."""
    parts = parse_key(key)
    at = datetime.strptime(parts.run_ts, "%Y%m%dT%H%M%S.%fZ").replace(tzinfo=UTC)
    return bytes.fromhex(parts.artifact_name[:64]), parts.step, at


async def find(connection: Connection, project: str, digest: bytes, since: datetime | None) -> Key | None:
    """The key of the newest answer to a question, not older than `since`."""
    c = t.answer.c
    query = sa.select(c.key).where(c.project == project, c.digest == digest).order_by(c.at.desc()).limit(1)
    if since is not None:
        query = query.where(c.at >= since)
    found = (await connection.execute(query)).scalar_one_or_none()
    return None if found is None else Key(found)


async def keep(connection: Connection, keys: Iterable[Key]) -> None:
    """Note where answers lie."""
    rows = [_row(key) for key in keys]
    if rows:
        await connection.execute(insert(t.answer).on_conflict_do_nothing(), rows)


async def rebuild(connection: Connection, keys: Iterable[Key]) -> None:
    """Know these answers and no others."""
    await connection.execute(sa.delete(t.answer))
    await keep(connection, keys)


def _row(key: Key) -> dict[str, object]:
    digest, _, at = question_of(key)
    return {"project": parse_key(key).project, "digest": digest, "at": at, "key": key}


async def forget(connection: Connection, keys: Iterable[str]) -> None:
    """Know these answers no more."""
    await connection.execute(sa.delete(t.answer).where(t.answer.c.key.in_(list(keys))))
