"""Encoding: which bytes stand for a syntax tree, the same on every Python version?

`ast.dump` differs between minor versions of Python, because each adds fields. Here a node is its class and those of its fields
that hold something, in alphabetical order; what cannot change a result (positions, contexts, string prefixes) is left out.
Every value carries its kind and its length, so no two trees encode alike.

VERSION belongs to the promise that golden vectors hold in tests/unit/fingerprint_golden.json: another encoding is a migration
that keeps fresh what was fresh, never an edit. Only the standard library is used, so that any interpreter can check it.
"""

from __future__ import annotations

import ast
import struct
from collections.abc import Callable, Iterable, Sequence
from functools import cache, lru_cache
from typing import Any

__all__ = ["VERSION", "children", "constant", "encode", "field", "frame", "node", "sequence", "text"]

VERSION = 1

_IGNORED = frozenset({"ctx", "kind", "type_comment", "type_ignores"})

Special = Callable[[ast.AST], bytes | None]
"""Gives the bytes of a node that is not encoded as it is written, or None; empty bytes drop the node from a list."""


def encode(tree: ast.AST, special: Special | None = None) -> bytes:
    """The canonical bytes of `tree`; `special` is asked first, for every node below."""
    if special is not None and (given := special(tree)) is not None:
        return given
    return plain(tree, special)


def plain(tree: ast.AST, special: Special | None = None) -> bytes:
    """The canonical bytes of `tree`, without asking `special` for the node itself."""
    if isinstance(tree, ast.Constant):
        return constant(tree.value)
    if isinstance(tree, ast.JoinedStr):
        return node("JoinedStr", [("values", children(_joined(tree), special))])
    if (
        isinstance(tree, ast.FormattedValue)
        and isinstance(tree.format_spec, ast.JoinedStr)
        and not _joined(tree.format_spec)
    ):
        tree = ast.FormattedValue(value=tree.value, conversion=tree.conversion, format_spec=None)
    head, names = _shape(type(tree))
    pieces = [head]
    for name, label in names:
        value = getattr(tree, name, None)
        if value is not None and value != []:
            pieces += (label, _value(value, special))
    return frame(b"n", b"".join(pieces))


def node(kind: str, fields: Iterable[tuple[str, bytes]]) -> bytes:
    """A node of class `kind`; `fields` are given in alphabetical order."""
    return frame(b"n", text(kind) + b"".join([field(name, value) for name, value in fields]))


def field(name: str, value: bytes) -> bytes:
    return text(name) + value


def children(nodes: Iterable[ast.AST | None], special: Special | None = None) -> bytes:
    """A list of nodes, in order; None keeps its place, a node that `special` drops does not."""
    return sequence([constant(None) if item is None else encode(item, special) for item in nodes])


def sequence(items: Sequence[bytes]) -> bytes:
    return frame(b"l", b"".join(items))


@lru_cache(maxsize=4096)
def text(value: str) -> bytes:
    return frame(b"s", value.encode("utf-8", "surrogatepass"))


def constant(value: Any) -> bytes:
    """A literal, typed and exact: `1`, `True` and `1.0` differ, and so do `0.0` and `-0.0`."""
    if type(value) is str:  # as most are
        return frame(b"S", value.encode("utf-8", "surrogatepass"))
    match value:
        case None:
            return frame(b"N", b"")
        case bool():
            return frame(b"B", b"\x01" if value else b"\x00")
        case int():
            return frame(b"I", f"{value:x}".encode())  # hexadecimal: str() refuses more than 4300 decimal digits
        case float():
            return frame(b"F", struct.pack(">d", value))
        case complex():
            return frame(b"J", struct.pack(">dd", value.real, value.imag))
        case str():
            return frame(b"S", value.encode("utf-8", "surrogatepass"))
        case bytes():
            return frame(b"Y", value)
        case _ if value is Ellipsis:
            return frame(b"E", b"")
        case _:
            raise TypeError(f"no literal of Python is a {type(value).__qualname__}")


def frame(kind: bytes, payload: bytes) -> bytes:
    return kind + len(payload).to_bytes(8, "big") + payload


@cache
def _shape(kind: type[ast.AST]) -> tuple[bytes, tuple[tuple[str, bytes], ...]]:
    """A class of nodes, and the fields that count in alphabetical order, each with how it is written."""
    return text(kind.__name__), tuple((name, text(name)) for name in sorted(set(kind._fields) - _IGNORED))


def _value(value: Any, special: Special | None) -> bytes:
    if isinstance(value, ast.AST):
        return encode(value, special)
    if isinstance(value, list):
        items = [_value(item, special) if isinstance(item, ast.AST) else constant(item) for item in value]
        return sequence(items)
    return constant(value)


def _joined(tree: ast.JoinedStr) -> list[ast.expr]:
    """The pieces of an f-string with neighbouring literals merged and empty ones dropped: versions split them differently."""
    pieces: list[ast.expr] = []
    for value in tree.values:
        for piece in _joined(value) if isinstance(value, ast.JoinedStr) else [value]:
            if isinstance(piece, ast.Constant) and isinstance(piece.value, str):
                if not piece.value:
                    continue
                if pieces and isinstance(last := pieces[-1], ast.Constant) and isinstance(last.value, str):
                    pieces[-1] = ast.Constant(last.value + piece.value)
                    continue
            pieces.append(piece)
    return pieces
