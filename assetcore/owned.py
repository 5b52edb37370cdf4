"""Owned: what is given to a function so that nobody else sees what it does to it?

What cannot be changed in place, which most documents cannot, is given as it is, however many share it. Whether it can is decided by the
class, once, and only the parts that can be changed are copied.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import AsyncIterable, Callable
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum
from functools import cached_property, lru_cache
from pathlib import PurePath
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints
from uuid import UUID

from pydantic import BaseModel

__all__ = ["own"]

_FIXED = (str, bytes, int, float, complex, NoneType, date, time, timedelta, Decimal, UUID, Enum, PurePath)


def own(value: Any) -> Any:
    """The value, or a copy of it where it could be changed in place; of what is read piece by piece a reading from the beginning."""
    if isinstance(value, BaseModel):
        return _model(value)
    if isinstance(value, list):  # of one asset, and so of one class
        return list(value) if not value or _can_be_shared(type(value[0])) else [own(one) for one in value]
    if isinstance(value, AsyncIterable):
        return aiter(value)
    match type(value).__module__.partition(".")[0], type(value).__name__:
        case "polars", "DataFrame":
            return value.clone()
        case "pandas", "DataFrame":
            return _pandas(value)
    return value


def _model(value: BaseModel) -> BaseModel:
    cls = type(value)
    if _can_be_shared(cls):
        return value
    if _holds_more(cls):
        return copy.deepcopy(value)
    copied = copy.copy(value)
    held = vars(copied)
    for name in _loose(cls) & held.keys():
        held[name] = copy.deepcopy(held[name])
    return copied


def _pandas(frame: Any) -> Any:
    """A copy also of the lists and dicts that stand in a frame's cells."""
    infer, copied = sys.modules["pandas"].api.types.infer_dtype, frame.copy()
    for place, kind in enumerate(frame.dtypes):
        if kind.kind == "O" and infer(column := frame.iloc[:, place]).startswith("mixed"):
            copied.isetitem(place, column.map(copy.deepcopy))
    return copied


@lru_cache(maxsize=4096)
def _can_be_shared(cls: type) -> bool:
    return _is_fixed(cls)


@lru_cache(maxsize=4096)
def _loose(cls: type[BaseModel], within: frozenset[type] = frozenset()) -> frozenset[str]:
    """The fields of a class, and the properties that it remembers, whose values can be changed in place."""
    kinds: dict[str, Any] = {name: field.annotation for name, field in cls.model_fields.items()}
    for owner in reversed(cls.__mro__):
        properties = {name: member for name, member in vars(owner).items() if isinstance(member, cached_property)}
        kinds |= {name: _returned(member.func) for name, member in properties.items()}
    return frozenset(name for name, kind in kinds.items() if not _is_fixed(kind, within))


def _is_fixed(kind: Any, within: frozenset[type] = frozenset()) -> bool:
    """Whether nothing that is annotated so can be changed in place; False where that is not known. It is part of the classes `within`."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Literal:
        return True
    if origin is Annotated:
        return _is_fixed(inner[0], within)
    if origin in (Union, UnionType, tuple, frozenset):
        return all(one is ... or _is_fixed(one, within) for one in inner)
    if origin is not None or not isinstance(kind, type):
        return False
    if not issubclass(kind, BaseModel):
        return issubclass(kind, _FIXED)
    if kind in within:
        return True
    return bool(kind.model_config.get("frozen")) and not (_holds_more(kind) or _loose(kind, within | {kind}))


def _holds_more(cls: type[BaseModel]) -> bool:
    """Whether its objects hold more than fields: private attributes, or what else they were given."""
    return bool(cls.__private_attributes__) or cls.model_config.get("extra") == "allow"


def _returned(function: Callable[..., Any]) -> Any:
    """What a function says that it returns; None where it does not, or not in words that mean something here."""
    try:
        return get_type_hints(function).get("return")
    except (NameError, TypeError):
        return None
