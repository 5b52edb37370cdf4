"""Filters: how do a document's typed fields stand in an index, and which values there does a filter ask for?

An index holds fields as JSON, in which Postgres can look for values. What JSON has no word for is written in one way, whoever wrote it:
days and moments in ISO 8601 (moments with an offset in UTC), durations in seconds, decimals without zeros at their end, enums by their
values, sets as lists, bytes in base64. A value that is asked for is read as the field's annotation says, and written in the same way; a
text is so a number, a day or a flag where the field is one.
"""

from __future__ import annotations

import base64
import json
import math
import types
import typing
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Context, Decimal
from enum import Enum
from functools import lru_cache
from typing import Any
from uuid import UUID

from pydantic import BaseModel, TypeAdapter, ValidationError

from assetcore.documents import Document, plain_value
from assetcore.errors import UsageError
from assetcore.storage import sorted_json

__all__ = ["asked", "indexed"]

SCALARS = (str, bytes, int, float, Decimal, date, time, timedelta, UUID, types.NoneType)
"""What has nothing in it that a dict could name; an enum may have."""
NUL = "\x00"
"""What a text may hold, and JSON in Postgres may not."""
INSTEAD = "\ufffd"


def indexed(document: Document, names: Sequence[str]) -> dict[str, Any]:
    """These fields of a document as an index holds them: plain JSON."""
    values = document.field_values()
    return {name: _plain(values[name]) for name in names}


def asked(kind: type[Document], filters: Mapping[str, Any]) -> dict[str, list[Any]]:
    """For each field the values, as an index holds them, of which a row has one; by what is given for it: a value, or several in a list.

    A row has a value where the field is equal to it; a list, tuple or set where it has the value in it; a dict or model where it has what
    is given of it. Raises UsageError for a value that the field cannot have.
    """
    found: dict[str, list[Any]] = {}
    for name, given in filters.items():
        values = given if isinstance(given, list | tuple | set | frozenset) else [given]
        found[name] = [one for value in values for one in _readings(kind, name, value)]
    return found


def _readings(kind: type[Document], name: str, value: Any) -> list[Any]:
    """What a value may mean: the whole of the field, some of it, or something in it. Mostly one of them is possible."""
    whole, members = _forms(kind, name)
    if isinstance(value, Mapping):  # some of what a dict or a model holds
        found = [] if _has_no_parts(kind.model_fields[name].rebuild_annotation()) else [_plain(plain_value(value))]
    else:
        found = whole.read(value)
        found += [[read] for member in members for read in member.read(value)]
    if not found or not _is_text(found):
        raise UsageError(
            f"The field {name!r} of {kind.__name__} cannot be {value!r:.80}: it is {_shown(kind.model_fields[name].annotation)}.",
            hint="Filter by a value that it can have.",
        )
    return found


def _is_text(found: Any) -> bool:
    """Whether there are no lone surrogates in it, as in what is no UTF-8."""
    try:
        json.dumps(found, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


class _Form:
    """What an annotation says that a value can be."""

    def __init__(self, annotation: Any) -> None:
        self.adapter: TypeAdapter[Any] = TypeAdapter(annotation)
        variants = [one for one in _variants(annotation) if isinstance(one, type)]
        self.models = [one for one in variants if issubclass(one, BaseModel)]

    def read(self, value: Any) -> list[Any]:
        """The value as an index holds it, or nothing. A text that is none may be JSON: `3`, `["a", "b"]`, of a model some of it."""
        if self.models and isinstance(value, str) and (some := self._some(value)) is not None:
            return [some]
        return [_plain(_given(read)) for read in _read(self.adapter, value)]

    def _some(self, text: str) -> dict[str, Any] | None:
        """What a text gives of the fields of a model, which need not be all that it must have."""
        try:
            given = json.loads(text)
        except ValueError:
            return None
        for model in self.models if isinstance(given, dict) else ():
            if given.keys() <= model.model_fields.keys():
                fields = {name: _Form(model.model_fields[name].rebuild_annotation()) for name in given}
                found = {name: fields[name].read(value) for name, value in given.items()}
                if all(found.values()):
                    return {name: one for name, [one] in found.items()}
        return None


@lru_cache(maxsize=1024)
def _forms(kind: type[Document], name: str) -> tuple[_Form, tuple[_Form, ...]]:
    """What the field can be, and what there can be in it."""
    annotation = kind.model_fields[name].rebuild_annotation()
    return _Form(annotation), tuple(map(_Form, _members(annotation)))


def _read(adapter: TypeAdapter[Any], value: Any) -> list[Any]:
    """The value as an annotation has it, or nothing; also of a text that is JSON."""
    try:
        return [adapter.validate_python(value)]
    except ValidationError:
        if not isinstance(value, str):
            return []
    try:
        return [adapter.validate_json(value)]
    except (ValidationError, UnicodeEncodeError):
        return []


def _given(value: Any) -> Any:
    """A value of which models are what was given of them, without what they have by default."""
    if isinstance(value, BaseModel):
        return value.model_dump(exclude_unset=True)
    if isinstance(value, list | tuple):
        return [_given(item) for item in value]
    return plain_value(value)


def _variants(annotation: Any) -> list[Any]:
    """What an annotation is, without its names; of a union each."""
    if hasattr(annotation, "__value__"):  # `type Name = ...` of Python 3.12
        return _variants(annotation.__value__)
    if isinstance(annotation, typing.NewType):
        return _variants(annotation.__supertype__)
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _variants(arguments[0])
    if origin in (typing.Union, types.UnionType):
        return [variant for one in arguments for variant in _variants(one)]
    return [annotation]


def _has_no_parts(annotation: Any) -> bool:
    """Whether what it is has no names in it: text, a number, a day and the like."""
    return all(
        typing.get_origin(one) is typing.Literal or (isinstance(one, type) and issubclass(one, SCALARS))
        for one in _variants(annotation)
    )


def _members(annotation: Any) -> list[Any]:
    """What a list, a tuple or a set of this annotation has in it; nothing for others."""
    found: list[Any] = []
    for variant in _variants(annotation):
        holder = typing.get_origin(variant) or variant
        if (
            not isinstance(holder, type)
            or not issubclass(holder, Collection)
            or issubclass(holder, Mapping | str | bytes)
        ):
            continue
        if not issubclass(holder, Enum | BaseModel):
            found += [one for one in typing.get_args(variant) if one is not ...] or [Any]
    return found


def _shown(annotation: Any) -> str:
    return annotation.__name__ if isinstance(annotation, type) and not typing.get_args(annotation) else f"{annotation}"


def _plain(value: Any) -> Any:
    """A value as JSON in Postgres can hold it; equal values come out alike."""
    match value:
        case Enum():
            return _plain(value.value)
        case None | bool() | int():
            return value
        case str():
            return value.replace(NUL, INSTEAD)
        case float():
            return value if math.isfinite(value) else str(value)
        case bytes():
            return base64.b64encode(value).decode()
        case BaseModel():
            return _plain(value.model_dump())
        case Mapping():
            return {_key(key): _plain(member) for key, member in value.items()}
        case list() | tuple():
            return [_plain(member) for member in value]
        case set() | frozenset():
            return sorted(map(_plain, value), key=sorted_json)
        case datetime():
            return _in_utc(value).isoformat()
        case Decimal():
            return str(
                value.normalize(Context(prec=max(len(value.as_tuple().digits), 1))) if value.is_finite() else value
            )
        case _:
            return json.loads(sorted_json(value))


def _in_utc(value: datetime) -> datetime:
    try:
        return value.astimezone(UTC) if value.utcoffset() is not None else value
    except OverflowError:  # UTC has no such day
        return value


def _key(key: Any) -> str:
    [found] = json.loads(sorted_json({key: None}))
    return found.replace(NUL, INSTEAD)
