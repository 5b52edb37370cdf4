"""Sources: which documents are out there now, and what do they hold?

`glance` lists files, and reads none. `observe` looks without keeping: one row a document, with its hash and identity, in columns, so that
a million files stay cheap.
`documents` reads those that are wanted. Where they come from (a folder, a bucket, addresses, a table, a generator) is each source's own
affair.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from assetcore.assets import Source
from assetcore.documents import Document
from assetcore.sources.bucket import BucketFiles, bucket
from assetcore.sources.folder import Folder, folder
from assetcore.sources.generator import Generator
from assetcore.sources.observed import OBSERVED, Glance, Unread
from assetcore.sources.table import DatabaseTable, table
from assetcore.sources.urls import Urls, urls

if TYPE_CHECKING:
    from assetcore.settings import Settings  # 0.1 s, which a process that only calls functions need not take

__all__ = [
    "OBSERVED",
    "BucketFiles",
    "DatabaseTable",
    "Folder",
    "Glance",
    "Unread",
    "Urls",
    "bucket",
    "documents",
    "folder",
    "glance",
    "looks_at_one",
    "observe",
    "table",
    "urls",
]


async def glance(source: Source, root: Path) -> Glance | None:
    """What can be told of the files of a source without reading any, as `observe` begins; None of a source that is not a folder.

    Raises SourceError where the folder cannot be listed.
    """
    where = source.where
    return await asyncio.to_thread(where.glance, source, root) if isinstance(where, Folder) else None


async def observe(
    source: Source,
    root: Path,
    known: pl.DataFrame | None,
    *,
    rehash: bool = False,
    only: Collection[str] | None = None,
    settings: Settings | None = None,
    unread: Unread | None = None,
    glanced: Glance | None = None,
) -> pl.DataFrame:
    """The documents of a source as they are now: one row each, sorted by name, with the columns of `OBSERVED`.

    `known` is what was observed last time: a file with the same size, modification time and inode is not read again, unless
    `rehash`. `root` is the project's root, to which relative folders are relative. `settings` say how buckets are reached.
    With `only`, nothing but documents of these names is looked at; that a source must be able to (`looks_at_one`). With what a glance
    has just `glanced`, the folder is not listed again.

    Raises SourceError, naming the source and the file or the line of the user's generator. With `unread` a file that cannot be read, or
    cannot be a document, is put there with its error, stays what is `known` of it, and the others go on.
    """
    where = _where(source, settings)
    if isinstance(where, Folder):
        return await where.observe(source, root, known, rehash=rehash, only=only, unread=unread, glanced=glanced)
    if isinstance(where, BucketFiles):
        return await where.observe(source, root, known, rehash=rehash, unread=unread)
    return await where.observe(source, root, known, rehash=rehash)


def looks_at_one(source: Source) -> bool:
    """Whether a single document of a source can be looked at; others are looked at as a whole."""
    return isinstance(source.where, Folder)


async def documents(
    source: Source, root: Path, names: Collection[str], *, settings: Settings | None = None
) -> AsyncIterator[Document]:
    """Read these documents now, in the order of their names (a generator: in its own order), one at a time.

    A document may differ from what was observed, if it was changed since: its `sha256` is that of the bytes handed over. Those that
    are gone since are left out, and named in one SourceError after all others have been handed over.
    """
    async for document in _where(source, settings).documents(source, root, names):
        yield document


def _where(source: Source, settings: Settings | None) -> Folder | BucketFiles | Urls | DatabaseTable | Generator:
    where = source.where
    if isinstance(where, BucketFiles) and settings is not None:
        return where.with_access(settings)
    return source.where if hasattr(source.where, "observe") else Generator(source.where)
