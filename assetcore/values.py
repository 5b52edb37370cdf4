"""Values: how does what a function takes and returns become documents, and back?

`encode` makes documents of what a function returned; equal values give equal bytes, so that an unchanged result is seen as one.
`decode` gives a parameter its documents in the form that its annotation asks for.
"""

from __future__ import annotations

import asyncio
import io
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import polars as pl
from pydantic import BaseModel, ValidationError

from assetcore.assets import Dependency, Model, Output, Table
from assetcore.documents import JSON, PARQUET, Document, UnreadableError, restrict
from assetcore.embeddings import FIT, Embedding, unfit
from assetcore.errors import AssetcoreError, StorageError
from assetcore.storage import (
    Reader,
    Stored,
    arrow_array,
    check_fields,
    columns_of,
    frame_column,
    one_table,
    sorted_json,
)
from assetcore.storage.arrow import pa, pq

__all__ = ["as_made", "decode", "decode_in_parts", "decode_many", "drain", "encode", "is_read_in_parts"]

_STREAM_ROWS = 256
_STREAM_BYTES = 8 << 20
_PARQUET: dict[str, Any] = {"version": "2.6", "compression": "zstd", "compression_level": 3, "row_group_size": 1 << 17}
"""Pinned: a default of another release must not make equal frames different documents."""


async def as_made(dependency: Dependency, documents: Sequence[Document]) -> list[Any]:
    """What a unit has just made, in the form that a parameter asks for: one value for each document, or one list of all."""
    values = await _read(dependency.upstream.output, documents)
    if dependency.form == "list":
        return [values]
    if dependency.upstream.output.form == "table":
        return [await asyncio.to_thread(_formed, dependency, table) for table in values]
    return values


async def drain(returned: Any) -> Any:
    """What a function returned, with a generator's documents as a list; anything else as it is."""
    if isinstance(returned, AsyncIterator):
        return [document async for document in returned]
    return list(returned) if isinstance(returned, Iterator) else returned


def encode(output: Output, returned: Any, default_name: str, who: str) -> list[Document]:
    """The documents of what a function returned (generators: drained); `default_name` names a table or model, `who` asks.

    Raises AssetcoreError, naming what came and what was declared, for a value of another type, two documents of one name, or
    what cannot be stored.
    """
    match output.form:
        case "table":
            return [Table(name=default_name, content=_parquet(_arrow(returned, who), who), media_type=PARQUET)]
        case "model":
            return [Model(name=default_name, content=_json(output, returned, who), media_type=JSON)]
        case "document":
            return _documents(output, returned, who)


async def decode(dependency: Dependency, reader: Reader, stored: Sequence[Stored]) -> Any:
    """The value of a parameter: its documents, in the form that its annotation asks for.

    For `each` one document (or the model or frame that it is), for `collect` all of them. What an AsyncIterator is asked
    for reads piece by piece, each time it is iterated over.
    """
    return (await decode_many(dependency, reader, [stored]))[0]


async def decode_many(dependency: Dependency, reader: Reader, units: Sequence[Sequence[Stored]]) -> list[Any]:
    """The values of a parameter for many units, read together; as `decode` gives for each."""
    output = dependency.upstream.output
    if dependency.kind == "each":
        if wrong := [len(stored) for stored in units if len(stored) != 1]:
            raise UnreadableError(
                f"{dependency.parameter} takes one {output.type_name} at a time, and was given {wrong[0]}."
            )
    elif dependency.form == "iterator":
        return [_Pieces(output, reader, stored) for stored in units]
    elif dependency.form != "list":
        return [await _frame(dependency, reader, stored) for stored in units]
    values = await _objects(output, reader, [one for stored in units for one in stored])
    if dependency.form == "list":
        ends = iter(values)
        return [[next(ends) for _ in stored] for stored in units]
    if dependency.fields is not None:
        return [restrict(value, dependency.fields) for value in values]
    if output.form == "table":
        return [await asyncio.to_thread(_formed, dependency, table) for table in values]
    return values


def is_read_in_parts(dependency: Dependency) -> bool:
    """Whether `decode_in_parts` gives what `decode` gives."""
    return dependency.form == "list" or (
        dependency.form != "iterator" and dependency.upstream.output.form == "document"
    )


async def decode_in_parts(dependency: Dependency, reader: Reader, parts: AsyncIterator[Sequence[Stored]]) -> Any:
    """As `decode`, of documents that are told some at a time: where they all lie is not held beside what they are."""
    if dependency.form == "list":
        return [value async for some in parts for value in await decode(dependency, reader, some)]
    kind = dependency.upstream.output.document_type
    tables = [await reader.table(some, kind) async for some in parts]
    return await asyncio.to_thread(_formed, dependency, one_table(tables, kind))


# What a function returned.


def _documents(output: Output, returned: Any, who: str) -> list[Document]:
    if returned is None and output.optional:
        return []
    documents: list[Any] = [returned]
    if output.many:
        if not isinstance(returned, list | tuple):
            raise _wrong(output, who, _shown(returned))
        documents = list(returned)
    names: set[str] = set()
    for place, document in enumerate(documents):
        if type(document) is not output.document_type:
            found = _shown(document)
            raise _wrong(output, who, f"{found} at place {place}" if output.many else found, document)
        if document.name in names:
            raise AssetcoreError(
                f"{who} {_verb(output)} two documents named {document.name!r}.",
                hint="Within one unit every document needs a name of its own.",
            )
        if isinstance(document, Embedding) and (problem := unfit(document.content)) is not None:
            raise AssetcoreError(f"{who} {_verb(output)} {document!r}, whose vector {problem}.", hint=FIT)
        names.add(document.name)
    try:
        check_fields(documents)
    except StorageError as error:
        raise AssetcoreError(f"{who}: {error.message}", hint=error.hint) from None
    return documents


def _json(output: Output, returned: Any, who: str) -> bytes:
    if type(returned) is not output.type:
        raise _wrong(output, who, _shown(returned), returned)
    model = cast("type[BaseModel]", output.type)
    try:
        content = sorted_json(returned, indent=1)
        model.model_validate_json(content, by_alias=True, by_name=True)
    except (TypeError, ValueError) as error:
        problem = _problems(error) if isinstance(error, ValidationError) else str(error)
        raise AssetcoreError(
            f"{who} returned a {model.__name__} that cannot be stored as JSON and read again: {problem}.",
            hint="Give it fields that JSON can hold.",
        ) from None
    return content.encode()


def _arrow(returned: Any, who: str) -> pa.Table:
    """Any frame as an Arrow table that holds its values and nothing of the library that made it."""
    pandas = sys.modules.get("pandas")  # slow to import, and imported already if this is one of its frames
    try:
        if isinstance(returned, pl.LazyFrame):
            returned = returned.collect()
        if isinstance(returned, pl.DataFrame):
            _refuse_objects(returned, who)
            table = returned.to_arrow()
        elif pandas is not None and isinstance(returned, pandas.DataFrame):
            table = _of_pandas(returned, who)
        elif isinstance(returned, pa.Table):
            table = returned
        else:
            raise AssetcoreError(
                f"{who} returned {_shown(returned)}; declared is a frame.",
                hint="Return a polars.DataFrame, polars.LazyFrame, pandas.DataFrame or pyarrow.Table.",
            )
        return _plain(table, who)
    except pa.ArrowException as error:
        raise AssetcoreError(f"{who} returned a frame that cannot be stored: {error}.") from None


def _of_pandas(frame: Any, who: str) -> pa.Table:
    # Numbers of rows are dropped, as to_sql and most people do; an index that says something becomes columns.
    if any(name is not None for name in frame.index.names) or frame.index.inferred_type not in ("integer", "empty"):
        frame = frame.reset_index()
    try:
        return pa.Table.from_pandas(frame, preserve_index=False)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        for name in frame.columns:
            column = frame[name]
            if getattr(column, "ndim", 1) == 1 and column.dtype == object:
                kinds = sorted({type(value).__name__ for value in column if value is not None and value == value})
                if len(kinds) > 1:
                    raise AssetcoreError(
                        f"{who} returned a frame whose column {name!r} mixes {' and '.join(kinds)}.",
                        hint="Give the column one type, for example with .astype(str).",
                    ) from None
        raise AssetcoreError(f"{who} returned a frame that cannot be stored: {error}.") from None


def _refuse_objects(frame: pl.DataFrame, who: str) -> None:
    for name, kind in frame.schema.items():
        if kind == pl.Object:
            kinds = sorted({type(value).__name__ for value in frame[name] if value is not None})
            raise AssetcoreError(
                f"{who} returned a frame whose column {name!r} holds Python objects ({', '.join(kinds) or 'none'}).",
                hint="Give the column a type, for example with pl.Series(..., dtype=pl.String).",
            )


def _plain(table: pa.Table, who: str) -> pa.Table:
    names = table.column_names
    if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
        raise AssetcoreError(f"{who} returned a frame with two columns {twice[0]!r}.", hint="Name every column once.")
    # How a dictionary is numbered depends on what else the process has seen; its values do not.
    schema = pa.schema([pa.field(field.name, _without_dictionaries(field.type)) for field in table.schema])
    return table.replace_schema_metadata(None).cast(schema).combine_chunks()


def _without_dictionaries(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_dictionary(kind):
        return _without_dictionaries(kind.value_type)
    if pa.types.is_string_view(kind):
        return pa.large_string()
    if pa.types.is_binary_view(kind):
        return pa.large_binary()
    if pa.types.is_struct(kind):
        return pa.struct([pa.field(field.name, _without_dictionaries(field.type)) for field in kind])
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return pa.large_list(_without_dictionaries(kind.value_type))
    return kind


def _parquet(table: pa.Table, who: str) -> bytes:
    sink = io.BytesIO()
    try:
        pq.write_table(table, sink, store_schema=any(_needs_schema(field.type) for field in table.schema), **_PARQUET)
    except (pa.ArrowException, ValueError) as error:
        raise AssetcoreError(f"{who} returned a frame that cannot be stored as Parquet: {error}.") from None
    return sink.getvalue()


def _needs_schema(kind: pa.DataType) -> bool:
    """Whether Parquet alone would give another type back."""
    if pa.types.is_timestamp(kind):
        return kind.tz not in (None, "UTC") or kind.unit == "s"
    if pa.types.is_nested(kind):
        fixed = pa.types.is_fixed_size_list(kind)
        return fixed or any(_needs_schema(kind.field(i).type) for i in range(kind.num_fields))
    return pa.types.is_duration(kind) or pa.types.is_time(kind)


def _wrong(output: Output, who: str, found: str, value: Any = None) -> AssetcoreError:
    hint = f"Return {_declared(output)}, or change the annotation."
    if isinstance(value, output.type):
        hint = f"{type(value).__name__} is more than its annotation says, and would be read back as {output.type_name}."
    return AssetcoreError(f"{who} {_verb(output)} {found}; declared is {_declared(output)}.", hint=hint)


def _verb(output: Output) -> str:
    return "yielded" if output.stream else "returned"


def _declared(output: Output) -> str:
    name = output.type_name
    if output.stream:
        return f"an iterator of {name}"
    if output.many:
        return f"list[{name}]"
    return f"{name} | None" if output.optional else name


def _shown(value: Any) -> str:
    if value is None:
        return "None"
    if isinstance(value, Document):
        return repr(value)
    if isinstance(value, list | tuple | dict | set):
        return f"a {type(value).__name__} of {len(value)}"
    kind = type(value).__name__
    return f"{kind} {value!r:.60}" if isinstance(value, str | bytes | int | float) else f"a value of type {kind}"


def _problems(error: ValidationError) -> str:
    return "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())


# What a parameter is given.


async def _objects(output: Output, reader: Reader, stored: Sequence[Stored]) -> list[Any]:
    """The documents, or the models or Arrow tables that they are."""
    return await _read(output, await reader.documents(stored, output.document_type))


async def _read(output: Output, documents: Sequence[Document]) -> list[Any]:
    match output.form:
        case "document":
            return list(documents)
        case "model":
            return [_model(output, document) for document in documents]
        case "table":
            return [await asyncio.to_thread(_read_parquet, document) for document in documents]


@dataclass(frozen=True, slots=True)
class _Pieces:
    """Documents that are read piece by piece, so that no more is held than a few mebibytes or one document; from the beginning for each
    who asks.
    """

    output: Output
    reader: Reader
    stored: Sequence[Stored]

    async def __aiter__(self) -> AsyncIterator[Any]:
        start, stored = 0, self.stored
        while start < len(stored):
            stop, size = start, 0
            while stop < len(stored) and stop - start < _STREAM_ROWS and (stop == start or size < _STREAM_BYTES):
                size += stored[stop].size
                stop += 1
            for value in await _objects(self.output, self.reader, stored[start:stop]):
                yield value
            start = stop


async def _frame(dependency: Dependency, reader: Reader, stored: Sequence[Stored]) -> Any:
    output = dependency.upstream.output
    match output.form:
        case "document":
            table = await reader.table(stored, output.document_type)
        case "table":
            table = _together(dependency, await _objects(output, reader, stored))
        case "model":
            table = _of_models(dependency, stored, await _objects(output, reader, stored))
    return await asyncio.to_thread(_formed, dependency, table)


def _together(dependency: Dependency, tables: Sequence[pa.Table]) -> pa.Table:
    try:
        return pa.concat_tables(tables, promote_options="permissive") if tables else pa.table({})
    except pa.ArrowException as error:
        raise UnreadableError(
            f"The frames of {dependency.upstream.name} do not fit together for {dependency.parameter!r}: {error}.",
            hint=f"Let {dependency.upstream.name} return the same column types in every unit.",
        ) from None


def _of_models(dependency: Dependency, stored: Sequence[Stored], models: Sequence[BaseModel]) -> pa.Table:
    """A row a model: its name, unless the model has one, and its fields."""
    model = cast("type[BaseModel]", dependency.upstream.output.type)
    columns: dict[str, Any] = {"name": arrow_array([one.name for one in stored], pa.string())}
    for column in columns_of(model):
        columns[column.name] = frame_column(column, [getattr(one, column.name) for one in models])
        if columns[column.name] is None:
            raise UnreadableError(
                f"The field {column.name!r} of {model.__name__} has values that do not fit {column.arrow}.",
                hint=f"Let {dependency.parameter!r} ask for list[{model.__name__}] instead of a frame.",
            )
    return pa.table(columns)


def _model(output: Output, document: Document) -> BaseModel:
    model = cast("type[BaseModel]", output.type)
    try:
        return model.model_validate_json(document.content, by_alias=True, by_name=True)
    except ValidationError as error:
        raise UnreadableError(
            f"The stored {model.__name__} {document.name!r} does not fit its class any more: {_problems(error)}.",
            hint="Make it again.",
        ) from None


def _read_parquet(document: Document) -> pa.Table:
    try:
        return pq.ParquetFile(pa.BufferReader(document.content)).read()
    except (pa.ArrowException, OSError) as error:
        raise UnreadableError(f"The stored frame {document.name!r} cannot be read: {error}.") from None


def _formed(dependency: Dependency, table: pa.Table) -> Any:
    match dependency.form:
        case "arrow":
            return table
        case "pandas":
            return table.to_pandas()
        case "polars":
            return pl.from_arrow(table)
        case "polars-lazy":
            return cast("pl.DataFrame", pl.from_arrow(table)).lazy()
        case _:
            raise AssetcoreError(f"{dependency.parameter!r} asks for {dependency.form}, which no frame becomes.")
