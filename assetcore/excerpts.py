"""Excerpts: which part of which other document is this one?

`Document.part_of` notes it beside the document: by bytes, pages, or a JSON pointer (RFC 6901). It is no part of what a document is: two
that say the same are the same, wherever they were cut from, so that text inserted above a paragraph changes where the paragraph
stands and makes nothing below it stale. Lineage keeps it with the fact that a unit made the document.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from assetcore.errors import AssetcoreError

__all__ = ["Excerpt", "Place", "place", "pointed_at"]

Kind = Literal["bytes", "pages", "pointer"]
AROUND = 3
"""So many lines are shown before and after."""


@dataclass(frozen=True, slots=True)
class Excerpt:
    """The document that something is part of, by name and content; and from where to where, or which value in it."""

    name: str
    sha256: bytes
    kind: Kind
    start: int | None = None
    end: int | None = None
    pointer: str | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """A part of a text, by lines from 1 on, with the lines around it."""

    first: int
    last: int
    before: tuple[str, ...]
    lines: tuple[str, ...]
    after: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "first": self.first,
            "last": self.last,
            "before": list(self.before),
            "lines": list(self.lines),
            "after": list(self.after),
        }


def place(content: bytes, start: int, end: int, around: int = AROUND) -> Place | None:
    """The lines in which these bytes stand; None where the content is not text."""
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return None
    lines = text.split("\n")
    first = content.count(b"\n", 0, start)
    last = content.count(b"\n", 0, max(start, end - 1))
    return Place(
        first + 1, last + 1, tuple(lines[max(0, first - around) : first]), tuple(lines[first : last + 1]),
        tuple(lines[last + 1 : last + 1 + around]),
    )  # fmt: skip


def pointed_at(content: bytes, pointer: str) -> Any:
    """The value at a JSON pointer. Raises AssetcoreError where there is none, or the content is not JSON."""
    try:
        value = json.loads(content)
    except ValueError:
        raise AssetcoreError(f"The pointer {pointer!r} needs JSON, and this is none.") from None
    if pointer and not pointer.startswith("/"):
        raise AssetcoreError(f"{pointer!r} is not a JSON pointer.", hint="It begins with a slash: /chapters/0/text")
    for step in pointer.split("/")[1:]:
        key = step.replace("~1", "/").replace("~0", "~")
        try:
            value = value[int(key)] if isinstance(value, list) and key.isdecimal() else _member(value, key)
        except (KeyError, IndexError):
            raise AssetcoreError(f"There is nothing at {pointer!r}: no {key!r}.") from None
    return value


def _member(value: Any, key: str) -> Any:
    if not isinstance(value, Mapping):
        raise KeyError(key)
    return value[key]
