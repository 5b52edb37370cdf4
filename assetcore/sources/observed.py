"""Observed: what is known of a source's documents, in columns?"""

from __future__ import annotations

import os
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

import polars as pl

from assetcore.assets import Source
from assetcore.documents import identity
from assetcore.errors import SourceError
from assetcore.frames import joined

__all__ = [
    "OBSERVED",
    "Glance",
    "Listed",
    "Rows",
    "Unread",
    "as_known",
    "as_named",
    "filled",
    "identified",
    "known_time",
    "leave",
    "signed",
    "unchanged",
]

SORTED_HERE = 1 << 12
"""With more names polars is faster, for all that it takes to ask it."""
_SIGN = 1 << 63
Unread: TypeAlias = list[tuple[str, SourceError]]
"""Documents that are there and cannot be read, each with what is to be said of it."""


@dataclass(frozen=True, slots=True)
class Listed:
    """Files as they were listed: names, sizes, modification times (ns; 0 says nothing) and inodes, a column each.

    An object a file would hold five times as much, and a frame of few takes longer to make than they take to be listed.
    """

    names: list[str] = field(default_factory=list)
    sizes: array[int] = field(default_factory=lambda: array("q"))
    times: array[int] = field(default_factory=lambda: array("q"))
    inodes: array[int] = field(default_factory=lambda: array("q"))

    def add(self, name: str, facts: os.stat_result) -> None:
        """One more of them."""
        self.names.append(name)
        self.sizes.append(facts.st_size)
        self.times.append(known_time(facts.st_mtime_ns))
        self.inodes.append(signed(facts.st_ino))

    def sorted(self) -> Listed:
        """These by name."""
        if len(self.names) > SORTED_HERE:
            order = pl.Series(self.names).arg_sort().to_list()
        else:
            order = sorted(range(len(self.names)), key=self.names.__getitem__)
        numbers = (array("q", [column[at] for at in order]) for column in (self.sizes, self.times, self.inodes))
        return Listed([self.names[at] for at in order], *numbers)

    def frame(self) -> pl.DataFrame:
        """A row each, with the columns of `OBSERVED` that tell of a file."""
        columns = {"name": self.names, "size": self.sizes, "mtime_ns": self.times, "inode": self.inodes}
        return pl.DataFrame([pl.Series(name, values, OBSERVED[name]) for name, values in columns.items()])


def known_time(written: int) -> int:
    """The time of a file (ns) as it is recorded: 0, which says nothing, after the year 2262 and before 1677, which no column holds."""
    return written if -_SIGN <= written < _SIGN else 0


def signed(inode: int) -> int:
    """An inode as Postgres and Arrow hold it, which have no unsigned numbers."""
    return inode if inode < _SIGN else inode - 2 * _SIGN


class Glance(NamedTuple):
    """Files as they lay there from a moment on (`at`, ns), sorted by name.

    What can be no document is `unread`. `digest` is of the files and of all else by which documents are made of them, but for their
    contents: where it is what it was, nothing has changed. None where a file can change without its time telling so.
    """

    at: int
    files: Listed
    unread: Unread
    digest: bytes | None


OBSERVED = pl.Schema(
    {
        "name": pl.String(),
        "size": pl.Int64(),
        "mtime_ns": pl.Int64(),
        "inode": pl.Int64(),
        "media_type": pl.String(),
        "sha256": pl.Binary(),
        "fields": pl.Binary(),
        "identity": pl.Binary(),
        "validator": pl.String(),
    }
)
"""`mtime_ns` is 0 where the time of a file says nothing (it was just written), and for documents that are no files.

`validator` is what a source needs to ask next time whether a document has changed, in that source's own words (an ETag, a row's
version); null where it needs nothing. It is no part of the document.
"""


DETERMINING = ["name", "media_type", "sha256", "fields"]
"""What makes the identity of a document, beside the name of its type."""


@dataclass(slots=True)
class Rows:
    """The columns of what is observed, while they are filled."""

    name: list[str] = field(default_factory=list)
    size: list[int] = field(default_factory=list)
    mtime_ns: list[int] = field(default_factory=list)
    inode: list[int] = field(default_factory=list)
    media_type: list[str] = field(default_factory=list)
    sha256: list[bytes] = field(default_factory=list)
    fields: list[bytes] = field(default_factory=list)
    validator: list[str | None] = field(default_factory=list)
    """May be left empty by a source that has none."""

    def add(
        self, name: str, size: int, media_type: str, sha256: bytes, fields: bytes, validator: str | None = None
    ) -> None:
        """A document that is no file."""
        self.name.append(name)
        self.size.append(size)
        self.mtime_ns.append(0)
        self.inode.append(0)
        self.media_type.append(media_type)
        self.sha256.append(sha256)
        self.fields.append(fields)
        self.validator.append(validator)

    def frame(self, source: Source, known: pl.DataFrame | None = None) -> pl.DataFrame:
        """The rows sorted by name, with the identity of each document; identities in `known` are used where they still hold."""
        self.validator = self.validator or [None] * len(self.name)
        columns = {name: getattr(self, name) for name in self.__slots__}
        rows = pl.DataFrame(columns, schema={name: OBSERVED[name] for name in columns}).sort("name")
        return identified(source, rows, known)


def identified(source: Source, rows: pl.DataFrame, known: pl.DataFrame | None) -> pl.DataFrame:
    """Rows of what is observed with the identity of each document; identities in `known` are used where they still hold."""
    if known is None or not known.height or not _same_type(source, known):
        known = rows.clear().hstack([pl.Series("identity", [], pl.Binary())])
    was = as_named(known, rows["name"])
    same = unchanged(rows, was, DETERMINING[1:])
    identities = was["identity"]
    if not same.all():
        changed = rows.filter(~same)[DETERMINING].iter_rows()
        identities = filled(identities, ~same, [identity(source.output.type_name, *row) for row in changed])
    return rows.hstack([identities])[OBSERVED.names()]


def filled(known: pl.Series, others: pl.Series, found: Sequence[bytes | None]) -> pl.Series:
    """What is known, row by row, with what was found of the `others` (a mask) in their order."""
    new = pl.Series(known.name, found, known.dtype)
    if len(new) == len(known):
        return new
    behind = others.cum_sum().cast(pl.Int64) + (len(known) - 1)
    return pl.concat([known, new])[behind.zip_with(others, pl.int_range(len(known), eager=True))]


def leave(unread: Unread | None, name: str, error: SourceError) -> None:
    """Note that a document cannot be read and go on with the others, where somebody asks for that; otherwise raise the error."""
    if unread is None:
        raise error
    unread.append((name, error))


def as_known(source: Source, observed: pl.DataFrame, known: pl.DataFrame | None, unread: Unread | None) -> pl.DataFrame:
    """What was observed, and of documents that could not be read what is known of them: they stay what they were.

    Where the class has another name now, they are documents of that: all that a source has are of one type.
    """
    if not unread or known is None:
        return observed
    names = pl.Series("name", [name for name, _ in unread if name.isprintable()], pl.String())
    kept = joined(joined(known, names.to_frame(), "name", "semi"), observed, "name", "anti")
    made = [identity(source.output.type_name, *row) for row in kept[DETERMINING].iter_rows()]
    kept = kept.with_columns(pl.Series("identity", made, pl.Binary()))
    return pl.concat([observed, kept[observed.columns]]).sort("name")


def as_named(known: pl.DataFrame, names: pl.Series) -> pl.DataFrame:
    """What is known of documents of these names, row by row; nulls of those that are new."""
    return known if known["name"].equals(names) else joined(names.to_frame(), known, "name", "left")


def unchanged(rows: pl.DataFrame, known: pl.DataFrame, columns: Sequence[str]) -> pl.Series:
    """Of each row, whether it has in these columns what is known."""
    first, *others = columns
    same = rows[first].eq_missing(known[first])
    for column in others:
        same &= rows[column].eq_missing(known[column])
    return same


def _same_type(source: Source, known: pl.DataFrame) -> bool:
    """Whether the identities of `known` are of documents of the same type name; one frame has one."""
    row = known.row(0, named=True)
    made = identity(source.output.type_name, row["name"], row["media_type"], row["sha256"], row["fields"])
    return made == row["identity"]
