"""Given: which classes of what a function is given hold code that it can reach?

Fields alone are the schema's affair, or the config's. A class with anything else (methods, properties, class variables) is followed
as a whole, and so is such a class in the annotation of a field, of whatever kind it is: a model, an enum, a dataclass.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import types
import typing
from collections.abc import Collection, Iterable
from typing import Any

from assetcore.fingerprint.objects import GENERATED, Itself, function_of, home, unwrapped
from assetcore.fingerprint.origins import Origins

__all__ = ["with_code"]

SILENT = ("assetcore", "pydantic", "builtins", "enum")
"""Whose classes have code that is not the user's affair, for it comes with being a document, a model or an enum."""
CODE = (types.FunctionType, property, classmethod, staticmethod, functools.cached_property)


def with_code(given: Iterable[type], origins: Origins) -> list[type]:
    """Those of `given`, and of the user's classes in the fields of the others, that are more than their fields."""
    found = {Itself(cls): cls for one in given for cls in _within(Itself(one), origins)}
    return list(found.values())


@functools.lru_cache(maxsize=1024)
def _within(asked: Itself, origins: Origins) -> tuple[type, ...]:
    given: type = asked.value
    found: list[type] = []
    seen = set[Itself]()
    waiting: list[Any] = [given]
    while waiting:
        named = waiting.pop()
        if isinstance(named, type):
            if Itself(named) in seen or not (named is given or origins.of(named.__module__) == "user"):
                continue
            seen.add(Itself(named))
            annotations = None if _has_code(named, origins) else _annotations(named)
            if annotations is None:
                found.append(named)
            else:
                waiting += annotations
        elif isinstance(named, enum.Enum):  # of a Literal
            waiting.append(type(named))
        elif type(named).__name__ == "TypeAliasType":
            if Itself(named) not in seen:
                seen.add(Itself(named))
                waiting.append(named.__value__)
        elif (generic := typing.get_origin(named)) is not None:
            waiting += [generic, *typing.get_args(named)]
    return tuple(found)


def _has_code(cls: type, origins: Origins) -> bool:
    """Whether a class is more than its fields, and than what its kind of class brings along."""
    kinds = [c for c in cls.__mro__ if _is_silent(c)]
    for owner in (c for c in cls.__mro__ if not _is_silent(c)):
        own = origins.of(owner.__module__) == "user"
        for name, value in vars(owner).items():
            if isinstance(value, CODE) and not (own and _is_generated(value, origins)):
                return True
            if own and not name[0] == name[-1] == "_" and not _is_expected(name, owner, kinds):
                return True
    return False


def _is_silent(cls: type) -> bool:
    return cls.__module__.partition(".")[0] in SILENT


def _is_generated(value: Any, origins: Origins) -> bool:
    """Whether a method comes with a dataclass or an enum, and was not written."""
    function, _ = unwrapped(function_of(value))
    if not isinstance(function, types.FunctionType):
        return False
    return function.__code__.co_filename.startswith(GENERATED) or origins.of(home(function)) == "standard"


def _is_expected(name: str, cls: type, kinds: Collection[type]) -> bool:
    """Whether an attribute is a field (the default of a dataclass, a member of an enum), or one that classes of these kinds have."""
    if isinstance(cls, enum.EnumType):
        return name in cls.__members__
    if dataclasses.is_dataclass(cls) and any(field.name == name for field in dataclasses.fields(cls)):
        return True
    return any(name in vars(kind) for kind in kinds)


def _annotations(cls: type) -> list[Any] | None:
    """What the fields of a class are; None if that cannot be told. Pydantic resolves names that were defined after the class."""
    model: Any = cls
    try:
        if not hasattr(cls, "model_fields"):
            return list(typing.get_type_hints(cls).values())
        if not model.__pydantic_complete__:
            model.model_rebuild(raise_errors=False)
        return [field.annotation for field in model.model_fields.values()]
    except Exception:  # a name for type checkers only, or whatever else the user's annotations come to
        return None
