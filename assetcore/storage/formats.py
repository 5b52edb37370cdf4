"""Formats: which Arrow column holds a typed field, and which value comes back?

Text, numbers, flags, bytes, dates and lists of them become columns of their own type, decided by the annotation alone, so that
every pack of a class has the same columns. Anything else (nested models, dicts, unions) is JSON text with sorted keys. Where the
values do not fit their column (an int beyond 64 bits, moments that are not in UTC), that pack holds the field as JSON.
"""

from __future__ import annotations

import base64
import itertools
import json
import types
import typing
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from functools import cache, lru_cache
from pathlib import PurePath
from typing import Any
from uuid import UUID

import polars as pl
from pydantic import BaseModel, TypeAdapter
from pydantic_core import to_jsonable_python

from assetcore.digest import canonical
from assetcore.documents import Document, UnreadableError, has_validators, plain_value
from assetcore.errors import StorageError
from assetcore.storage.arrow import pa

__all__ = [
    "FieldColumn",
    "arrow_array",
    "binary_array",
    "check_fields",
    "columns_of",
    "frame_column",
    "from_column",
    "jsonable_fields",
    "plain_fields",
    "sorted_json",
    "to_column",
]


@dataclass(frozen=True, slots=True)
class FieldColumn:
    """How one typed field is stored. `arrow` is None where it is JSON text whatever the values are."""

    name: str
    arrow: pa.DataType | None
    plain: Callable[[Any], Any] | None = None

    @property
    def type(self) -> pa.DataType:
        """The Arrow type of the column."""
        return self.arrow if self.arrow is not None else pa.string()

    def of(self, value: Any) -> Any:
        """What the column holds for a value of the field."""
        return value if value is None or self.plain is None else self.plain(value)


@lru_cache(maxsize=4096)
def columns_of(cls: type[BaseModel]) -> tuple[FieldColumn, ...]:
    """The columns of a class's typed fields (of a pydantic model: its fields), in the order of their declaration."""
    if not issubclass(cls, Document):
        return tuple(FieldColumn(name, *_natural(field.annotation)) for name, field in cls.model_fields.items())
    return tuple(FieldColumn(name, *_natural(cls.model_fields[name].annotation)) for name in cls.field_names())


def to_column(column: FieldColumn, values: Sequence[Any]) -> tuple[pa.Array, bool]:
    """The values as an Arrow array, and whether they had to become JSON text. Raises StorageError for what JSON cannot hold."""
    if column.arrow is not None:
        plain = values if column.plain is None else [column.of(v) for v in values]
        arrow = _moments(plain) if column.arrow == _moment() else column.arrow
        if arrow is not None:
            try:
                return arrow_array(plain, arrow), False
            except (TypeError, OverflowError, UnicodeEncodeError, pl.exceptions.PolarsError, pa.ArrowException):
                pass
    try:
        return arrow_array([None if v is None else sorted_json(v) for v in values], pa.string()), True
    except (TypeError, ValueError) as error:
        raise StorageError(f"The field {column.name!r} has a value that cannot be stored: {error}.") from None


def frame_column(column: FieldColumn, values: Sequence[Any]) -> pa.Array | None:
    """The values as a frame shows them, None where they do not fit: a column has one time zone, so moments are shown in UTC."""
    if column.arrow == _moment():
        values = [_in_utc(value) for value in values]
    array, is_json = to_column(column, values)
    return None if is_json and column.arrow is not None else array


def from_column(column: pa.Array | pa.ChunkedArray, is_json: bool) -> list[Any]:
    """The values of a column as plain Python values, which the class validates into what its annotation says."""
    if is_json:
        return [None if v is None else json.loads(v) for v in column.to_pylist()]
    if pa.types.is_timestamp(column.type):
        epoch = datetime(1970, 1, 1, tzinfo=UTC if column.type.tz else None)
        return [None if v is None else epoch + timedelta(microseconds=v) for v in column.cast(pa.int64()).to_pylist()]
    return column.to_pylist()


def arrow_array(values: Sequence[Any], type: pa.DataType) -> pa.Array:
    """An Arrow array of Python values. `pa.array` would do, but it imports pandas, which takes a quarter of a second."""
    if all(value is None for value in values):
        return pa.nulls(len(values), type)
    found = pl.Series(values=values, dtype=_as_polars(type)).to_arrow()
    return found if found.type == type else found.cast(type)


def binary_array(values: Sequence[bytes], width: int | None = None) -> pa.Array:
    """An Arrow array of bytes, none of them null; of fixed width where one is given."""
    data = pa.py_buffer(b"".join(values))
    if width is not None:
        return pa.Array.from_buffers(pa.binary(width), len(values), [None, data])
    offsets = array("q", itertools.accumulate(map(len, values), initial=0))
    return pa.Array.from_buffers(pa.large_binary(), len(values), [None, pa.py_buffer(offsets), data])


def jsonable_fields(document: Document) -> dict[str, Any]:
    """The typed fields as plain JSON values, for an object that stands alone; `plain_fields` takes them back."""
    columns = [c for c in columns_of(type(document)) if c.arrow is not None and _is_binary(c.arrow)]
    values = {name: getattr(document, name) for name in document.field_names()}
    values.update({c.name: _as_base64(c.of(values[c.name])) for c in columns})
    binary = [c.name for c in columns]
    try:
        plain = {name: json.loads(sorted_json(value)) for name, value in values.items()}
    except (TypeError, ValueError) as error:
        raise StorageError(f"{document!r} has a field that cannot be stored: {error}.") from None
    return plain | ({_BASE64: binary} if binary else {})


def plain_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The values of the typed fields, as `Document.stored` takes them, of what `jsonable_fields` made of them."""
    binary = fields.get(_BASE64, ())
    return {n: _from_base64(v) if n in binary else v for n, v in fields.items() if n != _BASE64}


_BASE64 = "$base64"
"""Beside the fields: the names of those whose bytes are written in base64, because JSON has no bytes."""


def _is_binary(arrow: pa.DataType) -> bool:
    return _is_binary(arrow.value_type) if pa.types.is_list(arrow) else arrow == pa.binary()


def _as_base64(value: Any) -> Any:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return [_as_base64(member) for member in value] if isinstance(value, list) else value


def _from_base64(value: Any) -> Any:
    if isinstance(value, str):
        return base64.b64decode(value)
    return [_from_base64(member) for member in value] if isinstance(value, list) else value


def check_fields(documents: Iterable[Document]) -> None:
    """Raise StorageError, naming document, field and value, for what could not be stored, or would be read back as something else."""
    for document in documents:
        cls = type(document)
        doubtful = [
            column
            for column, is_kept in _doubted(cls)
            if (value := getattr(document, column.name)) is not None and not is_kept(value)
        ]
        if doubtful or has_validators(cls):
            _read_back(document, doubtful)


@lru_cache(maxsize=4096)
def _doubted(cls: type[Document]) -> tuple[tuple[FieldColumn, Callable[[Any], bool]], ...]:
    """The columns of which not every value comes back as it was, each with what says of most values at once that they do."""
    return tuple((c, is_kept) for c in columns_of(cls) if (is_kept := _kept(c.arrow, c.plain)) is not None)


def _kept(arrow: pa.DataType | None, plain: Callable[[Any], Any] | None = None) -> Callable[[Any], bool] | None:
    """What says of a value, in little time, that it surely comes back as it was; None where every value does."""
    if arrow is None:
        return lambda value: False
    if plain is not None:
        kept = _kept(arrow)
        return None if kept is None else lambda value: kept(plain(value))
    if pa.types.is_list(arrow):
        kept = _kept(arrow.value_type)
        return None if kept is None else lambda members: all(one is None or kept(one) for one in members)
    return {pa.string(): _is_text, pa.int64(): _is_int64}.get(arrow)


def _is_text(value: str) -> bool:
    """Whether a text has no lone surrogates, which broken JSON and PDF files give."""
    if value.isascii():
        return True
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_int64(value: int) -> bool:
    return -(2**63) <= value < 2**63


def _read_back(document: Document, doubtful: Sequence[FieldColumn]) -> None:
    """Raise StorageError unless what would be read of a document has the same values."""
    columns = columns_of(type(document))
    values = {column.name: getattr(document, column.name) for column in columns}
    plain = (
        values | {c.name: c.of(values[c.name]) for c in columns if c.plain is not None} | _as_read(document, doubtful)
    )
    try:
        back = type(document).stored(document.name, document.content, document.media_type, plain)
    except UnreadableError as error:
        raise StorageError(f"{document!r} could not be read again. {error.message}", hint=_ONE_TYPE) from None
    for name, value in values.items():
        if not _is_same(value, found := getattr(back, name)):
            raise StorageError(
                f"{document!r} has a value in {name!r} that would be read back as something else:"
                f" {_shown(value)} as {_shown(found)}.",
                hint=_ONE_TYPE,
            )


def _as_read(document: Document, columns: Sequence[FieldColumn]) -> dict[str, Any]:
    """The values in these columns as JSON has them."""
    found: dict[str, Any] = {}
    for column in columns:
        value = getattr(document, column.name)
        try:
            text = sorted_json(value)
            text.encode()
            found[column.name] = json.loads(text)
            canonical(plain_value(value))
        except (TypeError, ValueError) as error:
            raise StorageError(
                f"{document!r} has a value in {column.name!r} that cannot be stored: {_shown(value)}: {error}.",
                hint="Fields hold text, numbers, flags, dates, bytes, enums, lists, dicts and pydantic models of these.",
            ) from None
    return found


_ONE_TYPE = "Annotate the field with the one type that its values have, or give it a value that JSON holds as it is."


def _is_same(one: Any, other: Any) -> bool:
    """Whether values are equal, or have the same identity (NaN equals nothing). A tuple is the list that JSON makes of it."""
    if one == other:
        return True
    one, other = _seen(one), _seen(other)
    return one == other or canonical(one) == canonical(other)


def _shown(value: Any) -> str:
    try:
        return f"{value!r:.80}"
    except Exception:  # Python writes no number of more than 4,300 digits, and what is the user's may do anything
        return f"a value of type {type(value).__name__}"


def _seen(value: Any) -> Any:
    """A value as a function sees it: a model is more than its fields."""
    match value:
        case BaseModel():
            return [type(value).__qualname__, _seen(value.model_dump(serialize_as_any=True, warnings=False))]
        case list() | tuple():
            return [_seen(member) for member in value]
        case Mapping():
            return {key: _seen(member) for key, member in value.items()}
        case _:
            return value


def sorted_json(value: Any, *, indent: int | None = None) -> str:
    """JSON that is the same for the same value: keys of mappings and members of sets are sorted."""
    return json.dumps(_jsonable(value), sort_keys=True, ensure_ascii=False, indent=indent)


@cache
def _simple() -> Mapping[Any, pa.DataType]:
    """The Arrow types of the simple annotations."""
    return {
        str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_(), bytes: pa.binary(), date: pa.date32(),
    }  # fmt: skip


@cache
def _moment() -> pa.DataType:
    return pa.timestamp("us", tz="UTC")


@cache
def _polars() -> Mapping[pa.DataType, pl.DataType]:
    """The polars types of the simple Arrow types."""
    return {
        pa.string(): pl.String(), pa.large_string(): pl.String(), pa.binary(): pl.Binary(), pa.large_binary(): pl.Binary(),
        pa.int16(): pl.Int16(), pa.int32(): pl.Int32(), pa.int64(): pl.Int64(), pa.float32(): pl.Float32(), pa.float64(): pl.Float64(),
        pa.bool_(): pl.Boolean(), pa.date32(): pl.Date(),
    }  # fmt: skip


def _as_polars(type: pa.DataType) -> pl.DataType:
    if pa.types.is_list(type):
        return pl.List(_as_polars(type.value_type))
    if pa.types.is_struct(type):
        return pl.Struct({field.name: _as_polars(field.type) for field in type})
    if pa.types.is_timestamp(type):
        return pl.Datetime("us", type.tz)
    return pl.Binary() if pa.types.is_fixed_size_binary(type) else _polars()[type]


def _natural(annotation: Any) -> tuple[pa.DataType | None, Callable[[Any], Any] | None]:
    """The Arrow type of an annotation and what makes a value fit it; None where it is JSON."""
    annotation = _bare(annotation)
    if annotation in _simple():
        return _simple()[annotation], None
    if annotation is datetime:
        return _moment(), None
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        arrow = _of_values([member.value for member in annotation])
        return arrow, (lambda member: member.value) if arrow is not None else None
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal:
        return _of_values(arguments), None
    if origin is list and arguments:
        arrow, plain = _natural(arguments[0])
        if arrow is None or arrow == _moment():
            return None, None
        each = (lambda members: [None if m is None else plain(m) for m in members]) if plain is not None else None
        return pa.list_(arrow), each
    return None, None


def _bare(annotation: Any) -> Any:
    """The annotation without Annotated, NewType, type aliases and Optional."""
    while True:
        origin = typing.get_origin(annotation)
        if origin is typing.Annotated:
            annotation = typing.get_args(annotation)[0]
        elif isinstance(annotation, typing.NewType):
            annotation = annotation.__supertype__
        elif hasattr(annotation, "__value__"):  # `type Name = ...` of Python 3.12
            annotation = annotation.__value__
        elif origin in (typing.Union, types.UnionType):
            members = [a for a in typing.get_args(annotation) if a is not types.NoneType]
            if len(members) != 1:
                return annotation
            annotation = members[0]
        else:
            return annotation


def _of_values(values: Sequence[Any]) -> pa.DataType | None:
    kinds = {type(value) for value in values}
    return _simple().get(kinds.pop()) if len(kinds) == 1 else None


def _moments(values: Sequence[datetime | None]) -> pa.DataType | None:
    """With a time zone where all are in UTC, without where none has one; None where a column would not give them back as they are.

    A column knows moments in UTC alone: the same moment elsewhere has another day or hour, and a digest of its own.
    """
    offsets = {value.utcoffset() for value in values if value is not None}
    if offsets <= {_NOTHING}:
        return _moment()
    return pa.timestamp("us") if offsets == {None} else None


def _in_utc(value: datetime | None) -> datetime | None:
    try:
        return value.astimezone(UTC) if value is not None and value.utcoffset() else value
    except OverflowError:  # UTC has no such day
        return value


def _jsonable(value: Any) -> Any:
    match value:
        case None | bool() | int() | float() | str() if not isinstance(value, Enum):
            return value
        case Enum():
            return _jsonable(value.value)
        case BaseModel():
            return _jsonable(value.model_dump(round_trip=True))
        case Mapping():
            return {_key(key): _jsonable(member) for key, member in value.items()}
        case list() | tuple():
            return [_jsonable(member) for member in value]
        case set() | frozenset():
            return [_jsonable(member) for member in sorted(value, key=canonical)]
        case datetime() | date() | time():
            return _on_the_minute(value).isoformat()
        case Decimal() | UUID() | PurePath():
            return str(value)
        case timedelta():  # beyond some centuries a number has no room for microseconds
            seconds = value.total_seconds()
            return seconds if _durations().validate_python(seconds) == value else to_jsonable_python(value)
        case bytes():
            return value.decode()
        case _:
            return to_jsonable_python(value)


def _on_the_minute(value: Any) -> Any:
    """A moment whose offset has seconds, as those of the nineteenth century, in UTC: pydantic reads none with seconds."""
    is_odd = isinstance(value, datetime) and (value.utcoffset() or _NOTHING) % _MINUTE
    return value.astimezone(UTC) if is_odd else value


_NOTHING, _MINUTE = timedelta(), timedelta(minutes=1)


@cache
def _durations() -> TypeAdapter[timedelta]:
    return TypeAdapter(timedelta)


def _key(key: Any) -> str | int | float | bool | None:
    plain = _jsonable(key)
    if isinstance(plain, list | dict):
        raise TypeError(f"{key!r} cannot be a key in JSON")
    return plain
