"""Manifest: what does the bucket itself know of a commit?

Beside the artifacts of each commit lies its lineage, as Parquet, written before Postgres is told: a row a unit, and in the
metadata what they share. A unit was made, reused, removed or failed; what was made and did not become current was put `aside`. `was`
is the materialization that the unit was before: a manifest whose commit never came about, because the process died or another run was
faster, is told by what those after it started from. Postgres is the index in use; the manifests are what it can be rebuilt from.
"""

from __future__ import annotations

import io
import json
from array import array
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from functools import cache
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from assetcore.lineage.commit import Batch, NewDocument, NewObject, stated
from assetcore.staleness import Definition
from assetcore.storage import arrow_array

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "FORMAT",
    "NAME",
    "decode_manifest",
    "encode_manifest",
    "no_rows",
    "objects_of",
    "read_manifest",
    "rewritten",
]

FORMAT = 2
"""Format 1 lacks `was`, failures, how a source's documents were seen, and the asset's identifier, kind and group."""
NAME = "_manifest"
"""How the artifact names of manifests begin; no document's artifact name does."""
FEW_VALUES = 64
FEW_ROWS = 4
"""So few are not compressed: each column would only become larger, and a compressor for each takes half of what writing them costs."""


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
        ("was", pa.int64()), ("error", pa.string()), ("traceback", pa.string()),
        ("seen", pa.struct([("mtime_ns", pa.int64()), ("inode", pa.int64()), ("validator", pa.string())])),
    ])  # fmt: skip


def encode_manifest(
    batch: Batch,
    *,
    project: str,
    environment: str,
    asset: str,
    assets: Mapping[int, str],
    definition: Definition | None,
    kind: str = "",
    group: str = "",
) -> bytes:
    """The Parquet bytes of a batch's manifest. Assets that were collected are named in the metadata, by identifier."""
    import pyarrow as pa

    facts = definition and stated(definition)
    header = {
        "format": FORMAT, "project": project, "environment": environment, "asset": asset, "run": batch.run, "at": batch.at.isoformat(),
        "definition": facts, "objects": [_object(o) for o in batch.objects], "assets": {str(i): n for i, n in assets.items()},
        "spent": batch.spent, "number": batch.number, "asset_id": batch.asset, "kind": kind, "group": group, "changes": batch.changes,
    }  # fmt: skip
    header |= {"excerpts": batch.excerpts} if batch.excerpts else {}
    table = pa.Table.from_arrays(_columns(batch), schema=_schema())
    return _written(table, header, "zstd" if table.num_rows > FEW_ROWS else "none")


def _written(table: pa.Table, header: Mapping[str, Any], compression: str) -> bytes:
    """As Parquet, without the schema in Arrow's words: nothing here needs it, and it takes as much room as a few rows do."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(
        sink, table.schema, compression=compression, use_dictionary=False, write_statistics=False, store_schema=False
    ) as to:
        to.add_key_value_metadata({"assetcore": json.dumps(header, sort_keys=True)})
        to.write_table(table)
    return sink.getvalue().to_pybytes()


def _object(one: NewObject) -> dict[str, Any]:
    return asdict(one) | {"sha256": one.sha256.hex() if one.sha256 else None}


def objects_of(header: Mapping[str, Any]) -> list[NewObject]:
    """The objects that a manifest's commit wrote."""
    return [
        NewObject(**(o | {"sha256": bytes.fromhex(o["sha256"]) if o.get("sha256") else None}))
        for o in header["objects"]
    ]


def _columns(batch: Batch) -> list[pa.Array]:
    """The columns of a manifest, each made at once: a dictionary a document would take ten times as long."""

    made, reused, removed, failed = batch.made, batch.reused, batch.removed, batch.failed
    others = len(reused) + len(removed) + len(failed)
    new = [d for m in made for d in m.new]
    *columns, fields = zip(*new, strict=True) if new else ((),) * len(NewDocument._fields)
    documents = [*columns, [None if values is None else json.dumps(values) for values in fields]]
    edges = [edge for m in made for edge in m.edges]
    collected = [one for m in made for one in m.collected]
    events = ["made" if m.current else "aside" for m in made]
    events += ["reused"] * len(reused) + ["removed"] * len(removed) + ["failed"] * len(failed)
    no_units, no_changes = [None] * len(removed), [None] * (len(made) + len(reused) + len(removed))
    plain: list[Sequence[Any]] = [
        events,
        [m.unit for m in made] + [r.unit for r in reused] + [unit for unit, _ in removed] + [f.unit for f in failed],
        [m.label for m in made] + [r.label for r in reused] + no_units + [f.label for f in failed],
        [m.parent for m in made] + [None] * others,
        [m.id for m in made] + [r.materialization for r in reused] + [was for _, was in removed] + [None] * len(failed),
        [m.inputs for m in made] + [None] * (len(reused) + len(removed)) + [f.inputs for f in failed],
        [m.seconds for m in made] + [None] * others,
    ]
    last: list[tuple[str, Sequence[Any]]] = [
        ("was", [m.was for m in made] + [r.was for r in reused] + [was for _, was in removed] + [None] * len(failed)),
        ("error", [*no_changes, *(f.error for f in failed)]),
        ("traceback", [*no_changes, *(f.traceback for f in failed)]),
        ("seen", [m.seen and m.seen._asdict() for m in made] + [None] * others),
    ]
    schema = _schema()
    arrays = [_array(column, schema.field(index).type) for index, column in enumerate(plain)]
    lists: list[tuple[str, list[Sequence[Any]], list[int]]] = [
        ("documents", [[d for m in made for d in m.documents]], [len(m.documents) for m in made]),
        ("new", documents, [len(m.new) for m in made]),
        ("edges", [[p for p, _ in edges], [d for _, d in edges]], [len(m.edges) for m in made]),
        ("collected", [[one[i] for one in collected] for i in range(3)], [len(m.collected) for m in made]),
    ]
    arrays += [_lists(schema.field(name).type, columns, lengths, others) for name, columns, lengths in lists]
    return arrays + [_array(column, schema.field(name).type) for name, column in last]


def _lists(kind: pa.ListType, columns: Sequence[Sequence[Any]], lengths: Sequence[int], nulls: int) -> pa.Array:
    """Lists of numbers or structs: the members in columns, how many each list has, and how many nulls follow."""
    import pyarrow as pa

    member = kind.value_type
    if pa.types.is_struct(member):
        fields = [_array(column, member.field(i).type) for i, column in enumerate(columns)]
        members = pa.StructArray.from_arrays(fields, fields=list(member))
    else:
        members = _array(columns[0], member)
    ends = list(accumulate(lengths, initial=0))
    filled = pa.ListArray.from_arrays(_array(ends, pa.int32()), members, type=kind)
    return pa.concat_arrays([filled, pa.nulls(nulls, kind)]) if nulls else filled


def _array(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """As `arrow_array`: most batches are small, and for a few numbers, digests or words it takes ten times as long as this."""
    import pyarrow as pa

    if len(values) > FEW_VALUES or None in values:
        return arrow_array(values, kind)
    if kind in _codes():
        buffers = [None, pa.py_buffer(array(_codes()[kind], values))]
    elif pa.types.is_fixed_size_binary(kind):
        buffers = [None, pa.py_buffer(b"".join(values))]
    elif pa.types.is_string(kind):
        encoded = [value.encode() for value in values]
        ends = array("i", accumulate(map(len, encoded), initial=0))
        buffers = [None, pa.py_buffer(ends), pa.py_buffer(b"".join(encoded))]
    else:
        return arrow_array(values, kind)
    return pa.Array.from_buffers(kind, len(values), buffers)


@cache
def _codes() -> dict[pa.DataType, str]:
    import pyarrow as pa

    return {pa.int16(): "h", pa.int32(): "i", pa.int64(): "q", pa.float32(): "f"}


def no_rows() -> pa.Table:
    """What a manifest of nothing would hold."""
    return _schema().empty_table()


def decode_manifest(data: bytes) -> tuple[dict[str, Any], Sequence[dict[str, Any]]]:
    """The header and the rows of a manifest."""
    header, table = read_manifest(data)
    return header, table.to_pylist()


def read_manifest(data: bytes) -> tuple[dict[str, Any], pa.Table]:
    """The header of a manifest and its rows as columns, in the columns of this format: what an earlier one lacks is null.

    Raises ValueError where the bytes are none.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(io.BytesIO(data))
        columns = [
            table.column(field.name).combine_chunks()
            if field.name in table.column_names
            else pa.nulls(table.num_rows, field.type)
            for field in _schema()
        ]
        header = json.loads((table.schema.metadata or {})[b"assetcore"])
        return header, pa.Table.from_arrays(columns, schema=_schema())
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise ValueError(f"The bytes are no manifest: {error}") from error


def rewritten(
    data: bytes, materializations: Collection[int], assets: Collection[int], objects: Mapping[int, list[Any] | None],
    rows: Mapping[int, int],
) -> bytes | None:  # fmt: skip
    """A manifest without what it says of these, or None where it says nothing of them.

    What failed may say something of them where it is of one of these `assets`, or was given documents of one. `objects` that were written
    anew are named as they are now (key, size, rows, hash), those that are gone are left out; documents that stay are in the `rows` where
    they are now. That a unit left its asset stays said: it names nothing. Raises ValueError where the bytes are no manifest.
    """
    import pyarrow as pa

    header, table = read_manifest(data)
    before = table.to_pylist()
    gone = set(materializations)
    near = not {header.get("asset_id"), *map(int, header["assets"])}.isdisjoint(assets)
    after: list[dict[str, Any]] = []
    for row in before:
        if row["event"] == "removed" or not (row["materialization"] in gone or (row["event"] == "failed" and near)):
            new = [{**d, "row": rows.get(d["id"], d["row"])} for d in row["new"]] if row["new"] is not None else None
            after.append({**row, "new": new})
    named = [o for o in header["objects"] if objects.get(o["id"], ...) is not None]
    for one in named:
        if one["id"] in objects:
            key, size, count, digest = objects[one["id"]] or (None,) * 4
            one |= {"key": key, "size": size, "rows": count} | ({"sha256": digest} if "sha256" in one else {})
    left = {row["materialization"] for row in after}
    spent = [one for one in header.get("spent", ()) if one[0] in left]
    if len(after) == len(before) and not any(o["id"] in objects for o in header["objects"]):
        return None
    header |= {"objects": named, "spent": spent}
    if "excerpts" in header:
        header["excerpts"] = [one for one in header["excerpts"] if one[0] in left]
    return _written(pa.Table.from_pylist(after, schema=_schema()), header, "zstd")
