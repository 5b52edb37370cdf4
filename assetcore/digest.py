"""Digests: how do many values become one identity?

Every digest is SHA-256 over a tag and the canonical encoding of its values. The encoding is injective: each value carries its
type and its length, so no two different inputs encode alike (`["ab", "c"]` and `["a", "bc"]`, `1` and `True` and `"1"`, an
empty list and nothing). It depends on values alone: not on the platform, the Python version or the order of a dict or set.
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Iterable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from functools import lru_cache
from pathlib import PurePath
from typing import Any
from uuid import UUID

__all__ = ["SIZE", "begun", "canonical", "digest", "sequence_digest", "short_digest"]

SIZE = 32
"""Bytes of a digest."""
_LENGTH = struct.Struct(">Q").pack


def digest(tag: str, *values: object) -> bytes:
    """SHA-256 of `tag` and the canonical encoding of `values`: 32 bytes.

    Raises TypeError for a value that has no canonical encoding (an arbitrary object).
    """
    hashed = _tagged(tag).copy()
    for value in values:
        hashed.update(canonical(value))
    return hashed.digest()


def short_digest(tag: str, *values: object) -> bytes:
    """The first 16 bytes of `digest`: for addresses, which name a place and never prove a content."""
    return digest(tag, *values)[:16]


def sequence_digest(tag: str, digests: Iterable[bytes]) -> bytes:
    """The digest of an ordered sequence of 32-byte digests; fixed width, so that concatenation is unambiguous."""
    members = list(digests)
    if any(len(member) != SIZE for member in members):
        raise ValueError(f"{tag}: every member of a sequence digest is {SIZE} bytes")
    hashed = _tagged(tag).copy()
    hashed.update(_frame(b"Q", b"".join(members)))
    return hashed.digest()


def canonical(value: Any) -> bytes:
    """The canonical, self-delimiting encoding of a plain value. Dicts and sets are ordered by their encoded members."""
    kind = type(value)
    if kind is str:  # the most frequent ones first, and without a call: the questions below take their time
        encoded = value.encode("utf-8", "surrogatepass")
        return b"S%b%b" % (_LENGTH(len(encoded)), encoded)
    if kind is bytes:
        return b"Y%b%b" % (_LENGTH(len(value)), value)
    if kind is int:
        return _frame(b"I", _digits(value))
    match value:
        case None:
            return _frame(b"N", b"")
        case Enum():  # a combination of flags may have no name
            name = value.name if value.name is not None else value.value
            return _frame(b"E", canonical(type(value).__qualname__) + canonical(name))
        case bool():
            return _frame(b"B", b"\x01" if value else b"\x00")
        case int():
            return _frame(b"I", _digits(value))
        case float():
            return _frame(b"F", _binary64(value))
        case complex():
            return _frame(b"J", _binary64(value.real) + _binary64(value.imag))
        case str():
            return _frame(b"S", value.encode("utf-8", "surrogatepass"))
        case bytes() | bytearray() | memoryview():
            return _frame(b"Y", bytes(value))
        case datetime() | date() | time():
            return _frame(b"D", canonical(type(value).__name__) + canonical(value.isoformat()))
        case timedelta():
            return _frame(b"d", canonical([value.days, value.seconds, value.microseconds]))
        case Decimal() | UUID() | PurePath():
            return _frame(b"X", canonical(_kind(value)) + canonical(str(value)))
        case list() | tuple():
            kind = b"L" if isinstance(value, list) else b"U"
            return _frame(kind, b"".join(map(canonical, value)))
        case set() | frozenset():
            return _frame(b"M", b"".join(sorted(map(canonical, value))))
        case Mapping():
            return _frame(b"K", b"".join(sorted(canonical(k) + canonical(v) for k, v in value.items())))
        case _:
            raise TypeError(f"no canonical encoding for {type(value).__module__}.{type(value).__qualname__}")


@lru_cache(maxsize=4096)
def begun(tag: str, first: str) -> Any:
    """A `digest` that has read the tag and its first value, for those that begin alike: to be copied, not to be changed."""
    hashed = _tagged(tag).copy()
    hashed.update(canonical(first))
    return hashed


@lru_cache(maxsize=256)
def _tagged(tag: str) -> Any:
    """SHA-256 that has read the tag: to be copied, not to be changed."""
    return hashlib.sha256(_frame(b"T", tag.encode()))


def _digits(value: int) -> bytes:
    """Decimal; hexadecimal beyond what Python may be told to refuse to write in decimal (never below 640 digits)."""
    return (str(int(value)) if value.bit_length() < 2048 else hex(value)).encode()


def _binary64(value: float) -> bytes:
    """The eight bytes of a float. There is one NaN: which sign and payload it has depends on the processor that made it."""
    return struct.pack(">d", value if value == value else math.nan)


def _kind(value: object) -> str:
    return "path" if isinstance(value, PurePath) else type(value).__name__


def _frame(kind: bytes, payload: bytes) -> bytes:
    return kind + _LENGTH(len(payload)) + payload
