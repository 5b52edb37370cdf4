"""Parquet: how does a table of a database become one file, without being in memory?"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from typing import IO, Any

import pyarrow as pa
from pyarrow import parquet as pq

from assetcore.sources.postgres import Row, Snapshot, plain

__all__ = ["write"]

GROUP_ROWS = 1 << 17
GROUP_BYTES = 32 << 20
"""A row group is of so many rows, or of so many bytes, whichever are fewer."""

TYPES: Mapping[str, pa.DataType] = {
    "bool": pa.bool_(),
    "int2": pa.int16(),
    "int4": pa.int32(),
    "int8": pa.int64(),
    "oid": pa.int64(),
    "float4": pa.float32(),
    "float8": pa.float64(),
    "bytea": pa.binary(),
    "date": pa.date32(),
    "time": pa.time64("us"),
    "timestamp": pa.timestamp("us"),
    "timestamptz": pa.timestamp("us", tz="UTC"),
}
"""Every other type is text: what it says, exactly, and JSON for lists and JSON. `numeric(p, s)` of a table is a decimal number."""


async def write(file: IO[bytes], snapshot: Snapshot, columns: Sequence[str]) -> None:
    """Write these columns of all rows, in the order of their keys. The same rows make the same bytes."""
    schema = pa.schema([(name, _type(snapshot, name)) for name in columns])
    with pq.ParquetWriter(
        file, schema, version="2.6", compression="zstd", compression_level=3, store_schema=False
    ) as writer:
        group: list[pa.RecordBatch] = []
        async with aclosing(snapshot.pages(columns)) as pages:
            async for page in pages:
                group.append(_batch(snapshot, schema, page))
                if sum(b.num_rows for b in group) >= GROUP_ROWS or sum(b.nbytes for b in group) >= GROUP_BYTES:
                    await asyncio.to_thread(writer.write_table, pa.Table.from_batches(group, schema), GROUP_ROWS)
                    group = []
        if group:
            await asyncio.to_thread(writer.write_table, pa.Table.from_batches(group, schema), GROUP_ROWS)


def _type(snapshot: Snapshot, column: str) -> pa.DataType:
    if column in snapshot.scales:
        precision, scale = snapshot.scales[column]
        return pa.decimal128(precision, scale) if precision <= 38 and scale <= precision else pa.string()
    return TYPES.get(snapshot.types[column], pa.string())


def _text(value: Any) -> str | None:
    form = plain(value)
    return form if form is None or isinstance(form, str) else json.dumps(form, sort_keys=True, ensure_ascii=False)


def _batch(snapshot: Snapshot, schema: pa.Schema, page: Sequence[Row]) -> pa.RecordBatch:
    arrays = []
    for field in schema:
        values: list[Any] = [row[field.name] for row in page]
        if field.type == pa.string():
            values = [_text(value) for value in values]
        try:
            arrays.append(pa.array(values, field.type))
        except (pa.ArrowException, OverflowError, ValueError, TypeError) as error:
            # Text stands among dates where Python has no such date.
            odd = next((value for value in values if isinstance(value, str)), error)
            raise snapshot.error(
                f"has a value in the column {field.name} that Parquet's {field.type} does not hold: {odd}",
                "Leave the column out with columns=[...], or cast it in a query.",
            ) from None
    return pa.RecordBatch.from_arrays(arrays, schema=schema)
