"""Records: what does the bucket hold of a project beside its commits?

What no manifest says is kept in small objects of its own, as compressed JSON: the definition of an asset with the normalised sources of
its code, when it is new, and each run when it has ended, with what checks said in it. Their names begin with `_record`, and `gc` leaves
them alone.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from assetcore.fingerprint import Part
from assetcore.lineage import tables as t
from assetcore.lineage.commit import stated
from assetcore.staleness import Definition
from assetcore.storage import Key

__all__ = ["NAME", "decode", "encode", "is_record", "is_whole", "journals_of", "kind_of", "of_definition", "of_run"]

FORMAT = 1
NAME = "_record"
"""How the artifact names of records begin; no document's artifact name does."""


def is_record(key: Key) -> bool:
    """Whether an object is a record: known by its name alone."""
    return key.rpartition("/")[2].startswith(NAME)


def kind_of(artifact: str) -> str:
    """Which kind of record has this artifact name: `_record-run-…` is of a run."""
    return artifact.removeprefix(f"{NAME}-").partition("-")[0]


def encode(record: Mapping[str, Any]) -> bytes:
    """The bytes of a record; the same record gives the same bytes."""
    text = json.dumps({"format": FORMAT, **record}, sort_keys=True, default=_plain)
    return gzip.compress(text.encode(), mtime=0)


def decode(data: bytes) -> dict[str, Any]:
    """The record. Raises ValueError where the bytes are none."""
    try:
        return json.loads(gzip.decompress(data))
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"The bytes are no record: {error}") from error


def of_definition(
    project: str, asset: str, asset_id: int, definition: Definition, parts: Collection[Part]
) -> dict[str, Any]:
    """The record of a definition: its components, and the sources of its parts by digest."""
    sources = {p.digest.hex(): p.source for p in parts}
    return {"project": project, "asset": asset, "asset_id": asset_id, "facts": stated(definition), "parts": sources}


async def of_run(connection: AsyncConnection, project: str, environment: str, run: str) -> dict[str, Any]:
    """The record of a run that has ended: who began it and why, what it did to each asset, and what checks said in it."""
    r, a = t.run.c, t.run_asset.c
    v, c, s = t.check_version.c, t.check_result.c, t.check_standing.c
    row = (await connection.execute(sa.select(t.run).where(r.id == run))).one()._mapping
    assets = await connection.execute(sa.select(a.asset, a.counts, a.seconds).where(a.run_id == run).order_by(a.asset))
    facts = (v.asset_id, v.name, v.scope, v.digest)
    said = await connection.execute(
        sa.select(*facts, c.subject, c.status, c.blocking, c.message, c.traceback, c.at)
        .join_from(t.check_result, t.check_version, v.id == c.check_id)
        .where(c.run_id == run)
    )
    checked = [list(one) for one in said]
    standing = await connection.execute(
        sa.select(*facts, s.last_commit, s.passed, s.failed, s.errors, s.findings, s.at)
        .join_from(t.check_standing, t.check_version, v.id == s.check_id)
        .where(s.environment_id == row["environment_id"], s.at >= row["started_at"])
    )
    return {
        "project": project, "environment": environment, "checked": checked, "standing": [list(one) for one in standing],
        "run": {name: value for name, value in row.items() if name not in ("project_id", "environment_id")},
        "assets": [list(one) for one in assets],
    }  # fmt: skip


def journals_of(
    records: Iterable[Mapping[str, Any]],
) -> tuple[dict[str, list[Mapping[str, Any]]], dict[tuple[str, bytes], bytes]]:
    """The journal of each project, its rows in order, and the keys of those whom it names."""
    rows: dict[str, dict[int, Mapping[str, Any]]] = {}
    keys: dict[tuple[str, bytes], bytes] = {}
    for record in records:
        if "journal" in record:
            rows.setdefault(record["project"], {}).update({row["number"]: row for row in record["journal"]})
        elif "keys" in record:
            keys |= {(record["project"], bytes.fromhex(s)): bytes.fromhex(key) for s, key in record["keys"].items()}
    return {project: [found[n] for n in sorted(found)] for project, found in rows.items()}, keys


def is_whole(journals: Mapping[str, Sequence[Mapping[str, Any]]]) -> bool:
    """Whether no row is missing between the first and the last of each journal."""
    return all(row["number"] == place for rows in journals.values() for place, row in enumerate(rows, start=1))


def _plain(value: object) -> Any:
    match value:
        case datetime():
            return value.isoformat()
        case bytes():
            return value.hex()
        case _:
            raise TypeError(f"A record cannot hold {value!r}.")
