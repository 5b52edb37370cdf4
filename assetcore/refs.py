"""Refs: which one thing does a text name, how is it written, and what was perhaps meant?

A REF is `asset`, `asset[unit]`, `asset[unit]/document`, or the beginning of a document's id; the unit or document in double quotes where it
could be read as something else. `parse_ref` reads one, `format_ref` writes it.
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

from assetcore.errors import SelectionError
from assetcore.moments import split_time

__all__ = [
    "BARE_UNIT",
    "QUOTED",
    "UNIT_HINT",
    "WORDS",
    "Ref",
    "called",
    "format_ref",
    "parse_ref",
    "quoted",
    "suggestion",
    "unquoted",
    "written",
]

WORDS = frozenset({"and", "or", "not"})
"""What combines the terms of a selection, in letters of any case: no asset is called so."""
QUOTED = r'"(?:\\[\s\S]|[^"\\])*"'
BARE_UNIT = re.compile(r'(?!\s)(?:(?!\.\.)[^\]"\n])+(?<![\s.])')
_UNITS = re.compile(rf"\[(?P<body>(?:{QUOTED}|[^\]\"\n])*)\]")
_ID_PREFIX = re.compile(r"[a-z2-7]{4,52}|[0-9a-f]{4,64}")
_REF_HINT = "A REF is asset, asset[unit], asset[unit]/document, or the first characters (4 or more) of a document's id."
UNIT_HINT = 'A unit is written asset[unit]; in double quotes where it holds ], " or ..: asset["a ] b"].'


@dataclass(frozen=True, slots=True)
class Ref:
    """One thing, and the time behind its @. A bare word can be an asset or the beginning of an id: both are set, and an asset wins."""

    asset: str | None
    unit: str | None = None
    document: str | None = None
    prefix: str | None = None
    time: str | None = None

    def __str__(self) -> str:
        return format_ref(self.asset, self.unit, self.document) if self.asset is not None else self.prefix or ""


def parse_ref(text: str) -> Ref:
    """Read `asset`, `asset[unit]`, `asset[unit]/document`, or the beginning of a document's id.

    A unit or document that begins with a double quote, and a unit that holds `]`, is written in double quotes, as
    `format_ref` does. A time may follow behind an @. Raises SelectionError when it is none of them.
    """
    word, time = split_time(text.strip())
    asset, bracket, _ = word.partition("[")
    name = called(asset)
    if not bracket:
        prefix = word.lower() if _ID_PREFIX.fullmatch(word.lower()) else None
        if not word.isidentifier() and prefix is None:
            raise SelectionError(f"{text!r} is not a REF.", hint=_REF_HINT)
        return Ref(name if word.isidentifier() else None, prefix=prefix, time=time)
    found = _UNITS.match(word, len(asset))
    rest = word[found.end() :] if found else ""
    if not asset.isidentifier() or found is None or (rest and not rest.startswith("/")) or rest == "/":
        raise SelectionError(f"{text!r} is not a REF.", hint=f"{_REF_HINT} {UNIT_HINT}")
    return Ref(name, _part(text, found["body"].strip()), _part(text, rest[1:]) if rest else None, time=time)


def format_ref(asset: str, unit: str | None = None, document: str | None = None) -> str:
    """The REF that `parse_ref` reads back as these three; it can be used as a selection where it names no document."""
    if unit is None:
        return asset
    one = f"{asset}[{written(unit, BARE_UNIT)}]"
    if document is None:
        return one
    plain = not document.startswith('"') and document == document.strip() and document != ""
    plain = plain and split_time(f"/{document}")[1] is None
    return f"{one}/{document if plain else quoted(document)}"


def called(name: str) -> str:
    """The name of an asset in the one way of writing it: é may be one character or two, as in names of files of a Mac."""
    return unicodedata.normalize("NFC", name)


def _part(text: str, part: str) -> str:
    if re.fullmatch(QUOTED, part):
        return unquoted(part)
    if not part or part.startswith('"'):
        raise SelectionError(f"{text!r} is not a REF.", hint=f"{_REF_HINT} {UNIT_HINT}")
    return part


def written(text: str, bare: re.Pattern[str]) -> str:
    """A text as it is read back: as it stands where `bare` matches it and nothing in it is a wildcard, otherwise in double quotes."""
    return text if "*" not in text and "?" not in text and bare.fullmatch(text) else quoted(text)


def quoted(text: str) -> str:
    """A text in double quotes."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def unquoted(token: str) -> str:
    """What stands in double quotes."""
    # Only \" and \\ are escapes: any other backslash stands for itself, as in a name that holds one.
    return re.sub(r'\\(["\\])', r"\1", token[1:-1])


def suggestion(word: str, known: Iterable[str]) -> str | None:
    """'Did you mean chunks?' when something known is near the word, otherwise None."""
    folded, word = {name.casefold(): name for name in known}, word.casefold()
    near = difflib.get_close_matches(word, folded, n=3, cutoff=0.6)
    if len(word) >= 3:
        near += [name for name in folded if name not in near and (word in name or name.startswith(word[:4]))]
    return f"Did you mean {' or '.join(folded[name] for name in near[:3])}?" if near else None
