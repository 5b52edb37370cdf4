"""Values: which bytes stand for an object that code refers to?

Plain data is encoded by value, typed and framed: the same in every process. Sets have no order, and dicts none that every
process agrees on (one may be filled from a set), so the order of a dict's keys counts where it is written, or decorators fill
it, not here. What has an identity of its own (functions, classes, modules, assets) is a reference. What is neither (clients,
locks, compiled models) is its type alone, and `opaque`: then the statement that makes it is followed instead.
"""

from __future__ import annotations

import array
import collections
import contextlib
import dataclasses
import datetime
import decimal
import enum
import fractions
import pathlib
import re
import types
import typing
import uuid
import zoneinfo
from collections.abc import Callable, Collection, Iterable
from typing import Any, NamedTuple

from assetcore.fingerprint.encoding import constant, frame, sequence, text

__all__ = ["TYPING", "Reference", "Value", "ValueWriter", "is_plain"]


class Reference(NamedTuple):
    """Something that a definition refers to: `kind` "part" is another part of the closure, everything else its `name` alone.

    `short` is the name without its module: it stands for the part in digests unless two parts share it, so that moving a definition
    to another module changes nothing. `rest` are the attributes taken of it.
    """

    kind: str
    name: str
    short: str = ""
    rest: tuple[str, ...] = ()
    origin: str = "user"

    @property
    def path(self) -> str:
        """The dotted path of something external; nothing for anything else."""
        return ".".join((self.name, *self.rest)) if self.kind == "external" else ""


class Value(NamedTuple):
    data: bytes
    references: tuple[tuple[Reference, ...], ...]
    opaque: str
    """What in it is opaque, by its type; empty if nothing is."""


SCALARS = (bool, int, float, complex, str, bytes, type(None), type(Ellipsis))
_SCALARS = frozenset(map(id, SCALARS))
_TEXTS: tuple[type, ...] = (
    datetime.date, datetime.time, datetime.timedelta, datetime.timezone, decimal.Decimal, fractions.Fraction, uuid.UUID, range,
    zoneinfo.ZoneInfo, type(NotImplemented),
)  # fmt: skip
"""Types of the standard library whose `repr` is their value."""
_TEXT_KINDS = frozenset(map(id, _TEXTS))
"""Classes are told by their identity: what their metaclass says of being equal, or that it has no hash, is not asked."""

_BARE: dict[type, Callable[[Any], Any]] = {
    int: int.__int__,
    float: float.__float__,
    complex: complex.__complex__,
    str: str.__str__,
    bytes: bytes.__bytes__,
}
EMPTY = (dict, list, set)
"""Factories of defaults that may be asked what they make."""

TYPING = ("typing", "typing_extensions")
"""The modules whose objects name types."""

_PLACEHOLDER = frame(b"r", b"")


class ValueWriter:
    """Encodes one value; `refer` writes what is not data, through this writer, or gives None; `typed` refers to a class."""

    def __init__(self, refer: Callable[[Any, ValueWriter], bytes | None], typed: Callable[[type], Reference]) -> None:
        self._refer = refer
        self._typed = typed
        self._inside: list[int] = []
        self.references: list[tuple[Reference, ...]] = []
        self.opaque: list[str] = []

    def value(self, value: Any) -> Value:
        data = self.write(value)
        return Value(data, tuple(self.references), ", ".join(dict.fromkeys(self.opaque)))

    def beside(self) -> ValueWriter:
        """A writer for something inside the value that is being written, which keeps its own references."""
        other = ValueWriter(self._refer, self._typed)
        other._inside = self._inside
        return other

    def reference(self, *references: Reference) -> bytes:
        self.references.append(references)
        return _PLACEHOLDER

    def write(self, value: Any) -> bytes:
        kind = type(value)
        if id(kind) in _SCALARS:
            return constant(value)
        if id(value) in self._inside:  # a container that holds itself
            return frame(b"c", constant(self._inside[::-1].index(id(value))))
        self._inside.append(id(value))
        try:
            return self._write(value, kind)
        finally:
            self._inside.pop()

    def _write(self, value: Any, kind: type) -> bytes:
        if callable(own := getattr(kind, "__code_fingerprint__", None)):
            return self._tagged("own", kind, self.write(own(value)))
        if (referred := self._refer(value, self)) is not None:
            return referred
        if isinstance(value, enum.Enum):
            return self._tagged("enum", kind, constant(value.name) if value.name else self.write(value.value))
        if isinstance(value, re.Pattern):
            return frame(b"p", self.write(value.pattern) + constant(value.flags))
        if isinstance(value, pathlib.PurePath):
            return frame(b"f", text(value.as_posix()))
        if isinstance(value, slice):
            return frame(b"i", self.write((value.start, value.stop, value.step)))
        if not _TEXT_KINDS.isdisjoint(map(id, kind.__mro__)):
            return self._tagged("text", kind, text(repr(value)))
        if (held := self._fields(value, kind)) is not None:
            return self._tagged("fields", kind, self._pairs(held.items()))
        if (held := self._container(value, kind)) is not None:
            return held
        if (generic := typing.get_origin(value)) is not None:
            return frame(b"g", self.write(generic) + self.write(typing.get_args(value)))
        if kind.__module__ in TYPING:  # Literal, TypeVar: by name, for their classes vary
            named = _named(value)
            counts = kind.__name__ == "TypeAliasType" or any(r.origin == "user" for r in self._referred(named))
            return frame(b"h", text(repr(value)) + b"".join(map(self.write, named if counts else ())))
        self.opaque.append(f"{kind.__module__}.{kind.__qualname__}")
        return self._tagged("opaque", kind, b"")

    def _referred(self, value: Any) -> Iterable[Reference]:
        """To what a value refers."""
        return (reference for group in self.beside().value(value).references for reference in group)

    def _fields(self, value: Any, kind: type) -> dict[str, Any] | None:
        """The fields of a dataclass, a pydantic model, an attrs class or a plain namespace, and what it holds beside them."""
        if dataclasses.is_dataclass(kind):
            fields = {f.name: getattr(value, f.name, None) for f in dataclasses.fields(value)}
            return fields | self._beside(value, kind, fields)
        if _is_model(kind):
            extra = getattr(value, "__pydantic_extra__", None) or {}
            return {**vars(value), **extra, **self._private(value, kind)}
        if hasattr(kind, "__attrs_attrs__"):
            fields = {a.name: getattr(value, a.name, None) for a in kind.__attrs_attrs__}
            return fields | self._beside(value, kind, fields)
        if kind is types.SimpleNamespace:
            return vars(value)
        return None

    def _beside(self, value: Any, kind: type, fields: Collection[str] = ()) -> dict[str, Any]:
        """What an object of the user's class holds beside its fields, or its members; not what a cached property keeps in it."""
        held = getattr(value, "__dict__", None)
        if not held or self._typed(kind).origin != "user":
            return {}
        return {n: held[n] for n in sorted(held) if n not in fields and not hasattr(getattr(kind, n, None), "__get__")}

    def _private(self, value: Any, kind: Any) -> dict[str, Any]:
        """The private attributes of a pydantic model that are not as its class declares them."""
        held = getattr(value, "__pydantic_private__", None)
        if not held or self._typed(kind).origin != "user":
            return {}

        def declared(name: str) -> Any:
            attribute = kind.__private_attributes__.get(name)
            factory = getattr(attribute, "default_factory", None)
            if factory is None:
                return getattr(attribute, "default", None)
            return factory() if any(factory is empty for empty in EMPTY) else factory

        return {n: held[n] for n in sorted(held) if self.beside().value(held[n]) != self.beside().value(declared(n))}

    def _container(self, value: Any, kind: type) -> bytes | None:
        match value:
            case dict() | types.MappingProxyType():
                ordered = isinstance(value, collections.OrderedDict)
                held = dict(value)
                data = self._pairs((key, held[key]) for key in (held if ordered else self._sorted(held)))
                if isinstance(value, collections.defaultdict):
                    data += self.write(value.default_factory)
                return self._typed_container("dict", value, kind, data)
            case list() | tuple() | collections.deque() | array.array():
                return self._typed_container("list", value, kind, sequence([self.write(item) for item in value]))
            case set() | frozenset():
                return self._typed_container(
                    "set", value, kind, sequence([self.write(item) for item in self._sorted(value)])
                )
            case bytearray() | memoryview():
                return self._typed_container("bytes", value, kind, constant(bytes(value)))
            case int() | float() | complex() | str() | bytes():
                return self._typed_container("scalar", value, kind, constant(_bare(value)))
            case _:
                return None

    def _pairs(self, items: Any) -> bytes:
        return sequence([self.write(key) + self.write(value) for key, value in items])

    def _sorted(self, members: Any) -> list[Any]:
        """The members of a set, or the keys of a dict, by their own bytes and references: whatever order a process gives them."""

        def key(member: Any) -> tuple[bytes, list[tuple[Reference, ...]]]:
            alone = self.beside()
            return alone.write(member), alone.references

        return sorted(members, key=key)

    def _typed_container(self, tag: str, value: Any, kind: type, data: bytes) -> bytes:
        if kind.__module__ == "builtins":
            return frame(b"v", text(tag) + text(kind.__name__) + data)
        beside = self._beside(value, kind)
        if beside and not any(isinstance(inner, kind) for held in beside.values() for inner in _members(held)):
            data += self._pairs(beside.items())
        return self._tagged(tag, kind, data)

    def _tagged(self, tag: str, kind: type, data: bytes) -> bytes:
        return frame(b"t", text(tag) + self.reference(self._typed(kind)) + data)


def _named(value: Any) -> list[Any]:
    """What a type variable is bound to or one of, and what a new type or an alias names."""
    found = []
    for name in ("__bound__", "__constraints__", "__supertype__", "__value__"):
        with contextlib.suppress(Exception):  # an alias is evaluated now, and may have a name for type checkers only
            found.append(getattr(value, name, None))
    return [one for one in found if not (one is None or (isinstance(one, tuple) and not one))]


def _members(value: Any) -> Iterable[Any]:
    """A value, and what it holds as a container: a text that is linked with others of its class is a node of a graph."""
    return (value, *value) if isinstance(value, list | tuple | set | frozenset | dict) else (value,)


def _bare(value: Any) -> Any:
    """The value of a subclass of a scalar type, as that type; what the subclass overrides is not asked."""
    for base, convert in _BARE.items():
        if isinstance(value, base):
            return convert(value)
    raise TypeError(type(value).__qualname__)


def is_plain(value: Any) -> bool:
    return id(type(value)) in _SCALARS


def _is_model(kind: type) -> bool:
    """A pydantic model, but not one that reads its values from the environment."""
    names = {c.__name__ for c in kind.__mro__ if c.__module__.partition(".")[0] in ("pydantic", "pydantic_settings")}
    return "BaseModel" in names and "BaseSettings" not in names
