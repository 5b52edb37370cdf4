"""Observed: what is known of a source's documents, in columns?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import polars as pl

from assetcore.assets import Source
from assetcore.documents import identity
from assetcore.errors import SourceError
from assetcore.frames import joined

__all__ = ["OBSERVED", "Rows", "Unread", "as_known", "leave"]

Unread: TypeAlias = list[tuple[str, SourceError]]
"""Documents that are there and cannot be read, each with what is to be said of it."""

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
        determining = ["name", "media_type", "sha256", "fields"]
        if known is None or not known.height or not _same_type(source, known):
            rows = rows.with_columns(identity=pl.lit(None, pl.Binary()))
        elif rows[determining].equals(known[determining]):
            return rows.hstack([known["identity"]])[OBSERVED.names()]
        else:
            rows = joined(rows, known[[*determining, "identity"]], determining, "left")
        missing = rows["identity"].is_null()
        if missing.any():
            made = [identity(source.output.type_name, *row) for row in rows.filter(missing)[determining].iter_rows()]
            rows = rows.with_columns(identity=_scatter(rows["identity"], missing, made))
        return rows[OBSERVED.names()]


def leave(unread: Unread | None, name: str, error: SourceError) -> None:
    """Note that a document cannot be read and go on with the others, where somebody asks for that; otherwise raise the error."""
    if unread is None:
        raise error
    unread.append((name, error))


def as_known(observed: pl.DataFrame, known: pl.DataFrame | None, unread: Unread | None) -> pl.DataFrame:
    """What was observed, and of documents that could not be read what is known of them: they stay what they were."""
    if not unread or known is None:
        return observed
    names = pl.Series("name", [name for name, _ in unread if name.isprintable()], pl.String())
    kept = joined(joined(known, names.to_frame(), "name", "semi"), observed, "name", "anti")
    return pl.concat([observed, kept[observed.columns]]).sort("name")


def _same_type(source: Source, known: pl.DataFrame) -> bool:
    """Whether the identities of `known` are of documents of the same type name; one frame has one."""
    row = known.row(0, named=True)
    made = identity(source.output.type_name, row["name"], row["media_type"], row["sha256"], row["fields"])
    return made == row["identity"]


def _scatter(values: pl.Series, where: pl.Series, made: Sequence[bytes]) -> pl.Series:
    filled = iter(made)
    return pl.Series(
        "identity", [next(filled) if take else value for value, take in zip(values, where, strict=True)], pl.Binary()
    )
