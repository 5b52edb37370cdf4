"""Manifest: what does the bucket itself know of a commit?

Beside the artifacts of each commit lies its lineage, as Parquet, written before Postgres is told: a row a unit, and in the
metadata what they share. Postgres is the index in use; the manifests are what it can be rebuilt from.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cache
from typing import TYPE_CHECKING, Any

from assetcore.lineage.commit import Batch
from assetcore.staleness import Definition

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["FORMAT", "NAME", "decode_manifest", "encode_manifest"]

FORMAT = 1
NAME = "_manifest"
"""How the artifact names of manifests begin; no document's artifact name does."""


@cache
def _schema() -> pa.Schema:
    """A row a unit. Arrow takes 0.15 s to import, which only writing and reading manifests pay."""
    import pyarrow as pa

    document = pa.struct([
        ("id", pa.int64()), ("address", pa.binary(16)), ("name", pa.string()), ("type", pa.string()), ("media_type", pa.string()),
        ("size", pa.int64()), ("sha256", pa.binary(32)), ("field_digests", pa.binary()), ("identity", pa.binary(32)),
        ("object", pa.int64()), ("row", pa.int32()), ("fields", pa.string()),
    ])  # fmt: skip
    return pa.schema([
        ("event", pa.string()), ("unit", pa.binary(16)), ("label", pa.string()), ("parent", pa.string()), ("materialization", pa.int64()),
        ("inputs", pa.binary(32)), ("seconds", pa.float32()), ("documents", pa.list_(pa.int64())), ("new", pa.list_(document)),
        ("edges", pa.list_(pa.struct([("parameter", pa.int16()), ("document", pa.int64())]))),
        ("collected", pa.list_(pa.struct([("parameter", pa.int16()), ("asset", pa.int32()), ("commit", pa.int64())]))),
    ])  # fmt: skip


def encode_manifest(
    batch: Batch,
    *,
    project: str,
    environment: str,
    asset: str,
    assets: Mapping[int, str],
    definition: Definition | None,
) -> bytes:
    """The Parquet bytes of a batch's manifest. Assets that were collected are named in the metadata, by identifier."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows: list[dict[str, Any]] = [
        {
            "event": "made", "unit": m.unit, "label": m.label, "parent": m.parent, "materialization": m.id, "inputs": m.inputs,
            "seconds": m.seconds, "documents": list(m.documents),
            "new": [asdict(d) | {"fields": None if d.fields is None else json.dumps(d.fields)} for d in m.new],
            "edges": [{"parameter": p, "document": d} for p, d in m.edges],
            "collected": [{"parameter": p, "asset": a, "commit": c} for p, a, c in m.collected],
        }
        for m in batch.made
    ]  # fmt: skip
    rows += [
        {"event": "reused", "unit": r.unit, "label": r.label, "materialization": r.materialization}
        for r in batch.reused
    ]
    rows += [{"event": "removed", "unit": unit, "materialization": was} for unit, was in batch.removed]
    facts = definition and {n: {"digest": c.digest.hex(), "detail": c.detail} for n, c in definition.components.items()}
    header = {
        "format": FORMAT, "project": project, "environment": environment, "asset": asset, "run": batch.run, "at": batch.at.isoformat(),
        "definition": facts, "objects": [asdict(o) for o in batch.objects], "assets": {str(i): n for i, n in assets.items()},
    }  # fmt: skip
    table = pa.Table.from_pylist(
        rows, schema=_schema().with_metadata({"assetcore": json.dumps(header, sort_keys=True)})
    )
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd", use_dictionary=False)
    return sink.getvalue()


def decode_manifest(data: bytes) -> tuple[dict[str, Any], Sequence[dict[str, Any]]]:
    """The header and the rows of a manifest."""
    import pyarrow.parquet as pq

    table = pq.read_table(io.BytesIO(data))
    return json.loads((table.schema.metadata or {})[b"assetcore"]), table.to_pylist()
