"""Packs: how do many small documents become one object, and how are they read again?

A pack is a Parquet object with a row a document: name, media type, hash, content, and the typed fields as columns. Its bytes
depend on its documents alone. Rows lie in groups of about one mebibyte, so that one document is read without the whole pack.
Whatever is read is hashed again, and must be what lineage says.
"""

from __future__ import annotations

import asyncio
import bisect
import hashlib
from abc import ABC, abstractmethod
from collections import OrderedDict, defaultdict
from collections.abc import Awaitable, Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from threading import Lock
from typing import Any, Generic, NamedTuple, TypeVar

from assetcore.documents import JSON, Document, UnreadableError
from assetcore.errors import StorageError
from assetcore.storage.arrow import pa, pq
from assetcore.storage.buckets import Bucket, DamagedObjectError
from assetcore.storage.formats import (
    arrow_array,
    binary_array,
    columns_of,
    frame_column,
    from_column,
    plain_fields,
    to_column,
)
from assetcore.storage.keys import Key

__all__ = [
    "ENCODED_BYTES",
    "CorruptObjectError",
    "Footer",
    "Location",
    "Reader",
    "Stored",
    "content_views",
    "encode_pack",
    "group_bounds",
    "off_the_loop",
    "one_table",
    "write_pack",
]

T = TypeVar("T")
D = TypeVar("D", bound=Document)

_GROUP_BYTES = 1 << 20
_GROUP_ROWS = 1 << 16
_AT_ONCE = 8
_BUILD_AT_ONCE = 256
LOOP_BYTES, ENCODED_BYTES = 2 << 20, 64 << 10
"""So much the event loop does by itself: reading and picking, or hashing and compressing, which take longer."""
_FOOTERS = 256
_JSON_FIELDS = b"assetcore.json"
"""Which columns of this pack hold JSON, in its metadata; names joined by a comma."""


class CorruptObjectError(DamagedObjectError):
    """The object is there, but it is not what lineage says."""

    def __init__(self, message: str, key: str) -> None:
        super().__init__(
            message, key, hint="It was damaged or replaced. Make its units again: aipctl materialize --verify"
        )


class Location(NamedTuple):
    """Where a document's bytes lie: a row of a pack, or (row None) an object that is the document itself."""

    key: Key
    row: int | None


class Stored(NamedTuple):
    """What lineage knows of a stored document; a tuple, because they are many.

    `fields` are given where no pack holds them: for objects of their own.
    """

    location: Location
    name: str
    media_type: str
    sha256: bytes
    size: int
    fields: Mapping[str, Any] | None = None


def encode_pack(documents: Sequence[Document]) -> bytes:
    """The documents, all of one class, as one Parquet object; the same documents give the same bytes."""
    if not documents:
        raise StorageError("A pack of no documents has no class and no columns.")
    cls = type(documents[0])
    for document in documents:
        if type(document) is not cls:
            raise StorageError(f"A pack holds documents of one class: {documents[0]!r} and {document!r} are of two.")
    columns = columns_of(cls)
    fields = [(column, *to_column(column, [getattr(d, column.name) for d in documents])) for column in columns]
    schema = pa.schema(
        [("name", pa.string()), ("media_type", pa.string()), ("sha256", pa.binary(32)), ("content", pa.large_binary())]
        + [(column.name, array.type) for column, array, _ in fields]
    )
    json_fields = ",".join(column.name for column, _, is_json in fields if is_json)
    about = {"assetcore.pack": "1", "assetcore.class": cls.__name__, _JSON_FIELDS.decode(): json_fields}

    def groups() -> Iterator[pa.Table]:
        for start, stop in group_bounds([len(d.content) for d in documents]):
            some = documents[start:stop]
            arrays = [
                arrow_array([d.name for d in some], pa.string()),
                arrow_array([d.media_type for d in some], pa.string()),
                binary_array([d.sha256 for d in some], width=32),
                binary_array([d.content for d in some]),
                *(array.slice(start, stop - start) for _, array, _ in fields),
            ]
            yield pa.Table.from_arrays(arrays, schema=schema)

    return write_pack(schema, groups(), about)


def write_pack(
    schema: pa.Schema, groups: Iterable[pa.Table], about: Mapping[str, str] | Mapping[bytes, bytes]
) -> bytes:
    """A pack of these row groups as a Parquet object, with what is to be said about it in its footer."""
    flat = [field.name for field in schema if not pa.types.is_nested(field.type)]
    options: dict[str, Any] = {
        "use_dictionary": [name for name in flat if name not in ("name", "sha256", "content")],
        "write_statistics": [name for name in flat if name not in ("sha256", "content")],
        "store_schema": False,
        "write_page_checksum": True,
    }
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, schema, version="2.6", compression="zstd", compression_level=3, **options) as writer:
        for table in groups:
            writer.write_table(table, row_group_size=table.num_rows)
        writer.add_key_value_metadata(about)
    return sink.getvalue().to_pybytes()


def group_bounds(sizes: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Where the row groups of rows of these sizes begin and end."""
    start = total = 0
    for index, size in enumerate(sizes):
        if index > start and (total + size > _GROUP_BYTES or index - start >= _GROUP_ROWS):
            yield start, index
            start, total = index, 0
        total += size
    yield start, len(sizes)


class Reader:
    """Reads documents back from one bucket: several objects at once, and of a pack only the row groups that are needed.

    Up to `cache_bytes` of row groups stay decoded, so that batches that walk through a pack do not read it again.
    """

    def __init__(self, bucket: Bucket, cache_bytes: int = 16 << 20) -> None:
        self.bucket = bucket
        self._groups: _Cache[pa.Table] = _Cache(cache_bytes, _table_bytes)
        self._footers: _Cache[Footer] = _Cache(_FOOTERS, lambda _: 1)

    async def documents(self, stored: Sequence[Stored], type: type[D]) -> list[D]:
        """The documents, in the order asked.

        Raises MissingObjectError, CorruptObjectError (naming the object and both hashes), or what the class says to the fields.
        """
        found: dict[int, D] = {}

        async def build(piece: _Piece) -> None:
            # Not in a thread: glibc grows a thread's own heap page by page, which made the many small objects ten times dearer.
            for some in piece.slices(_BUILD_AT_ONCE):
                found.update(zip(some.places, some.documents(type), strict=True))
                await asyncio.sleep(0)

        await self._each_piece(stored, build)
        return [found[place] for place in range(len(stored))]

    async def table(self, stored: Sequence[Stored], type: type[Document]) -> pa.Table:
        """The documents as an Arrow table, in the order asked.

        Columns: `name`, `media_type`, `text` (null unless the media type is text or JSON and the bytes are UTF-8), `content`
        (null where `text` is given), then the typed fields; a field that has no Arrow type of its own is JSON text.
        Raises as `documents` does.
        """
        built_in = [("name", pa.large_string()), ("media_type", pa.large_string())]
        built_in += [("text", pa.large_string()), ("content", pa.large_binary())]
        schema = pa.schema([*built_in, *((column.name, column.type) for column in columns_of(type))])
        pieces: list[tuple[list[int], pa.Table]] = []

        async def build(piece: _Piece) -> None:
            part = await off_the_loop(piece.size, piece.as_table, type, schema.names)
            pieces.append((piece.places, part))

        await self._each_piece(stored, build)
        table = one_table([pa.Table.from_batches([], schema=schema), *(part for _, part in pieces)], type)
        places = [place for part, _ in pieces for place in part]
        order = sorted(range(len(places)), key=places.__getitem__)
        return table if order == list(range(len(places))) else table.take(arrow_array(order, pa.int64()))

    async def column(self, stored: Sequence[Stored], field: str) -> list[Any]:
        """One typed field of each document, as plain values, in the order asked; no content is read."""
        found: dict[int, Any] = {}

        async def build(piece: _Piece) -> None:
            found.update(zip(piece.places, piece.values(field), strict=True))

        await self._each_piece(stored, build, only=field)
        return [found[place] for place in range(len(stored))]

    async def _each_piece(
        self, stored: Sequence[Stored], build: Callable[[_Piece], Awaitable[None]], only: str | None = None
    ) -> None:
        """Call `build` for each object that the documents lie in; contents are verified unless `only` one field is read."""
        by_key: defaultdict[Key, list[int]] = defaultdict(list)
        for place, one in enumerate(stored):
            by_key[one.location.key].append(place)
        gate = asyncio.Semaphore(_AT_ONCE)

        async def read(key: Key, places: list[int]) -> None:
            some = [stored[place] for place in places]
            where = f"{key} of the bucket {self.bucket.url}"
            async with gate:
                if some[0].location.row is None:
                    piece = _Whole(where, places, some, b"" if only else await self.bucket.read(key))
                else:
                    table, json_fields = await self._rows(key, where, [one.location.row or 0 for one in some], only)
                    piece = _Rows(where, places, some, table, json_fields)
                if only is None:
                    await off_the_loop(piece.size, piece.verify)
                await build(piece)

        if len(by_key) == 1:
            for key, places in by_key.items():
                await read(key, places)
            return
        tasks = [asyncio.ensure_future(read(key, places)) for key, places in by_key.items()]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()

    async def _rows(self, key: Key, where: str, rows: list[int], only: str | None) -> tuple[pa.Table, frozenset[str]]:
        """The asked rows of a pack, in the order asked, and which of its columns are JSON."""
        footer = self._footers.get(key)
        tables: dict[int, pa.Table | None] = {}
        if footer is not None:
            tables = {group: self._groups.get((key, group, only)) for group in footer.groups_of(rows, key, where)}
        if footer is None or None in tables.values():
            source = await self.bucket.open_input(key)
            footer, tables = await asyncio.to_thread(self._load, source, key, where, rows, only)
        return await off_the_loop(
            sum(t.nbytes for t in tables.values() if t), footer.pick, tables, rows
        ), footer.json_fields

    def _load(
        self, source: pa.NativeFile, key: Key, where: str, rows: list[int], only: str | None
    ) -> tuple[Footer, dict[int, pa.Table | None]]:
        tables: dict[int, pa.Table | None] = {}
        footer = self._footers.get(key)
        try:
            with source:
                file = pq.ParquetFile(
                    source,
                    metadata=footer.metadata if footer else None,
                    pre_buffer=True,
                    page_checksum_verification=True,
                )
                footer = footer or Footer.of(file.metadata)
                if "content" not in file.schema_arrow.names:
                    raise CorruptObjectError(f"The object {where} is no pack: it has no column 'content'.", key)
                self._footers.put(key, footer)
                if only is not None and only not in file.schema_arrow.names:
                    raise StorageError(f"The pack {where} has no field {only!r}.")
                for group in footer.groups_of(rows, key, where):
                    table = self._groups.get((key, group, only))
                    if table is None:
                        table = file.read_row_group(group, columns=[only] if only else None)
                        self._groups.put((key, group, only), table)
                    tables[group] = table
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise StorageError(f"The object {where} cannot be read: {error}.") from error
            raise CorruptObjectError(f"The object {where} is not a pack, or a damaged one: {error}.", key) from None
        return footer, tables


def one_table(tables: Sequence[pa.Table], type: type[Document]) -> pa.Table:
    """Tables of documents of one class, one after the other. Raises UnreadableError where their columns do not fit."""
    try:
        return pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowException as error:
        raise UnreadableError(f"The documents of {type.__name__} do not fit into one table: {error}.") from None


@dataclass(frozen=True, slots=True)
class Footer:
    """What the end of a pack says: how many rows each row group has, and which columns are JSON."""

    metadata: pq.FileMetaData
    starts: list[int]
    json_fields: frozenset[str]

    @classmethod
    def of(cls, metadata: pq.FileMetaData) -> Footer:
        starts = [0]
        for group in range(metadata.num_row_groups):
            starts.append(starts[-1] + metadata.row_group(group).num_rows)
        names = (metadata.metadata or {}).get(_JSON_FIELDS, b"").decode()
        return cls(metadata, starts, frozenset(names.split(",")) - {""})

    def groups_of(self, rows: Sequence[int], key: Key, where: str) -> list[int]:
        """The row groups that hold these rows."""
        if not 0 <= min(rows) <= max(rows) < self.starts[-1]:
            raise CorruptObjectError(
                f"Row {max(rows)} was asked of the pack {where}, which has {self.starts[-1]} rows.", key
            )
        return sorted({bisect.bisect_right(self.starts, row) - 1 for row in rows})

    def pick(self, tables: Mapping[int, pa.Table | None], rows: list[int]) -> pa.Table:
        """The rows out of the row groups, in the order asked; those that follow each other are not copied."""
        offsets: dict[int, int] = {}
        total = 0
        for group in sorted(tables):
            offsets[group] = total - self.starts[group]
            total += self.starts[group + 1] - self.starts[group]
        table = pa.concat_tables([one for _, one in sorted(tables.items()) if one is not None])
        indices = [row + offsets[bisect.bisect_right(self.starts, row) - 1] for row in rows]
        first = indices[0]
        if indices == list(range(first, first + len(indices))):
            return table.slice(first, len(indices))
        return table.take(arrow_array(indices, pa.int64()))


@dataclass(frozen=True, slots=True)
class _Piece(ABC):
    """Some documents out of one object."""

    where: str
    places: list[int]
    stored: list[Stored]

    @abstractmethod
    def slices(self, rows: int) -> Iterator[_Piece]:
        """The piece in parts of at most so many documents."""

    @abstractmethod
    def views(self) -> Iterable[memoryview | bytes]:
        """The contents, without copying them."""

    @abstractmethod
    def contents(self) -> list[bytes]:
        """The contents."""

    @abstractmethod
    def content_column(self) -> pa.Array | pa.ChunkedArray:
        """The contents as an Arrow column."""

    @abstractmethod
    def values(self, field: str) -> list[Any]:
        """A typed field as plain values."""

    @abstractmethod
    def fields(self, type: type[Document]) -> Iterable[Mapping[str, Any]]:
        """The typed fields of each document, as plain values."""

    @abstractmethod
    def typed_columns(self, type: type[Document]) -> list[pa.Array | pa.ChunkedArray] | None:
        """The typed fields as columns, where they lie there as such."""

    @property
    def size(self) -> int:
        """Bytes of its contents."""
        return sum(one.size for one in self.stored)

    def verify(self) -> None:
        """Raise CorruptObjectError unless each content hashes to what lineage says."""
        for one, content in zip(self.stored, self.views(), strict=True):
            found = hashlib.sha256(content).digest()
            if found != one.sha256:
                row = "" if one.location.row is None else f"row {one.location.row} of "
                raise CorruptObjectError(
                    f"The bytes of {one.name!r}, {row}{self.where}, hash to {found.hex()}; lineage says {one.sha256.hex()}.",
                    one.location.key,
                )

    def documents(self, type: type[D]) -> list[D]:
        """The documents, validated by their class."""
        rows = zip(self.stored, self.contents(), self.fields(type), strict=True)
        return [type.stored(one.name, content, one.media_type, fields) for one, content, fields in rows]

    def as_table(self, type: type[Document], names: Sequence[str]) -> pa.Table:
        """The documents as a table; see `Reader.table`."""
        of_documents = [
            arrow_array([one.name for one in self.stored], pa.large_string()),
            arrow_array([one.media_type for one in self.stored], pa.large_string()),
        ]
        typed = self.typed_columns(type) or self._columns_of_documents(type)
        return pa.table([*of_documents, *self._text_and_content(), *typed], list(names))

    def _columns_of_documents(self, type: type[Document]) -> list[pa.Array]:
        columns = columns_of(type)
        documents = self.documents(type) if columns else []
        arrays = []
        for column in columns:
            array = frame_column(column, [getattr(document, column.name) for document in documents])
            if array is None:
                raise UnreadableError(
                    f"The field {column.name!r} of {type.__name__} has values in {self.where} that do not fit {column.type}.",
                    hint="Ask for list[...] instead of a frame, or declare the field as text.",
                )
            arrays.append(array)
        return arrays

    def _text_and_content(self) -> tuple[pa.Array | pa.ChunkedArray, pa.Array]:
        content = self.content_column()
        is_text = [_is_text(one.media_type) for one in self.stored]
        if all(is_text):
            try:
                return content.cast(pa.large_string()), pa.nulls(len(self.stored), pa.large_binary())
            except pa.ArrowInvalid:
                pass  # some of it is not UTF-8
        whole = self.contents()
        texts = [_decoded(one) if text else None for one, text in zip(whole, is_text, strict=True)]
        contents = [one if text is None else None for one, text in zip(whole, texts, strict=True)]
        return arrow_array(texts, pa.large_string()), arrow_array(contents, pa.large_binary())


@dataclass(frozen=True, slots=True)
class _Whole(_Piece):
    """An object that is a document itself, under one or more names."""

    content: bytes

    def slices(self, rows: int) -> Iterator[_Piece]:
        yield self

    def views(self) -> Iterable[bytes]:
        return self.contents()

    def contents(self) -> list[bytes]:
        return [self.content] * len(self.stored)

    def content_column(self) -> pa.Array:
        return binary_array(self.contents())

    def values(self, field: str) -> list[Any]:
        return [plain_fields(one.fields or {}).get(field) for one in self.stored]

    def fields(self, type: type[Document]) -> Iterable[Mapping[str, Any]]:
        return [plain_fields(one.fields or {}) for one in self.stored]

    def typed_columns(self, type: type[Document]) -> None:
        return None


@dataclass(frozen=True, slots=True)
class _Rows(_Piece):
    """Rows of a pack."""

    table: pa.Table
    json_fields: frozenset[str]

    def slices(self, rows: int) -> Iterator[_Piece]:
        for start in range(0, len(self.places), rows):
            part = slice(start, start + rows)
            yield replace(self, places=self.places[part], stored=self.stored[part], table=self.table.slice(start, rows))

    def views(self) -> Iterable[memoryview]:
        return content_views(self.table.column("content"))

    def contents(self) -> list[bytes]:
        return self.table.column("content").to_pylist()

    def content_column(self) -> pa.ChunkedArray:
        return self.table.column("content").cast(pa.large_binary())

    def values(self, field: str) -> list[Any]:
        return from_column(self.table.column(field), field in self.json_fields)

    def fields(self, type: type[Document]) -> Iterable[Mapping[str, Any]]:
        # A field that the class has got since is left to its default; one that it has lost is not read.
        names = [name for name in type.field_names() if name in self.table.column_names]
        if not names:
            return [{}] * len(self.stored)
        return [dict(zip(names, row, strict=True)) for row in zip(*map(self.values, names), strict=True)]

    def typed_columns(self, type: type[Document]) -> list[pa.ChunkedArray] | None:
        columns = columns_of(type)
        is_json = {name: name in self.json_fields for name in self.table.column_names}
        if any(is_json.get(column.name) != (column.arrow is None) for column in columns):
            return None
        return [self.table.column(column.name) for column in columns]


class _Cache(Generic[T]):
    """The values used last, up to a weight; safe between threads."""

    def __init__(self, limit: int, weigh: Callable[[T], int]) -> None:
        self._limit = limit
        self._weigh = weigh
        self._weight = 0
        self._values: OrderedDict[Hashable, T] = OrderedDict()
        self._lock = Lock()

    def get(self, key: Hashable) -> T | None:
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
            return self._values.get(key)

    def put(self, key: Hashable, value: T) -> None:
        weight = self._weigh(value)
        with self._lock:
            if key in self._values or weight > self._limit:
                return
            self._values[key] = value
            self._weight += weight
            while self._weight > self._limit:
                self._weight -= self._weigh(self._values.popitem(last=False)[1])


def _table_bytes(table: pa.Table) -> int:
    return table.nbytes


async def off_the_loop(size: int, call: Callable[..., T], *arguments: Any, above: int = LOOP_BYTES) -> T:
    """Call, in a thread where so many bytes would hold up the event loop: for few, threads take longer to hand over to each other."""
    return await asyncio.to_thread(call, *arguments) if size > above else call(*arguments)


def content_views(column: pa.ChunkedArray) -> Iterator[memoryview]:
    """The values of a binary column without copying them."""
    for chunk in column.chunks:
        _, offsets, data = chunk.buffers()
        width = 8 if pa.types.is_large_binary(chunk.type) else 4
        bounds = (
            memoryview(offsets).cast("q" if width == 8 else "i")[chunk.offset : chunk.offset + len(chunk) + 1].tolist()
        )
        view = memoryview(data) if data is not None else memoryview(b"")
        for start, stop in pairwise(bounds):
            yield view[start:stop]


def _is_text(media_type: str) -> bool:
    kind = media_type.partition(";")[0].strip().lower()
    return kind.startswith("text/") or kind == JSON or kind.endswith("+json")


def _decoded(content: bytes) -> str | None:
    try:
        return content.decode()
    except UnicodeDecodeError:
        return None
