"""Bucket: which objects does a pattern name, and which of them have changed?

One listing, page by page, says what is there. An object whose size, time and ETag (or version) are what they were is not read again.
Where a place has neither ETag nor version, a time within the clock's grain of the look says nothing, as with files of a folder.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import sys
import tempfile
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import polars as pl

from assetcore.assets import Source
from assetcore.documents import Document
from assetcore.errors import DeclarationError, SettingsError, SourceError
from assetcore.sources.files import CLOCK_GRAIN_NS, Files, declared
from assetcore.sources.observed import Rows, Unread, as_known, known_time, leave, signed
from assetcore.sources.patterns import Chosen, head

if TYPE_CHECKING:
    from assetcore.settings import Settings
    from assetcore.storage.filesystems import Entry, Filesystem

__all__ = ["BucketFiles", "bucket"]

T = TypeVar("T")
R = TypeVar("R")

_HELD_BYTES = 64 << 20
"""How much is held of documents that are read ahead, about."""
_WHOLE_BYTES = 8 << 20
"""A larger object goes through a file when it is only hashed."""
_LISTED = pl.Schema(
    {"name": pl.String(), "size": pl.Int64(), "mtime_ns": pl.Int64(), "inode": pl.Int64(), "validator": pl.String()}
)


def bucket(
    url: str,
    pattern: str = "**/*",
    *,
    exclude: Sequence[str] = (),
    encoding: str | None = None,
    max_bytes: int | None = None,
    media_type: str | None = None,
) -> BucketFiles:
    """The objects below an address whose path from there matches `pattern`; each is a document named by that path.

    url         s3://bucket/prefix, or any other address that fsspec can list, where its package is installed: gs://, abfs://, sftp://,
                memory://, file://, or a folder of http(s)://. Credentials are not part of it: they come from the environment, as the
                place's own tools find them, or of S3 from the setting `buckets`
    pattern     `*`, `?` and `[...]` within one name, `**` for any folders, `{a,b}` for either; hidden ones only where the pattern
                itself has the dot. Case counts
    exclude     patterns of objects and folders to leave out; one without a slash at any depth, as in .gitignore
    encoding    what the objects are written in, if it is not UTF-8: their text is handed over as UTF-8
    max_bytes   a larger object is an error
    media_type  of all of them; otherwise by the class, then by the suffix

    That nothing matches is no error; that there is no such bucket, or nothing below the prefix, is one.
    """
    place = f"{sys._getframe(1).f_code.co_filename}:{sys._getframe(1).f_lineno}"
    parts = urlsplit(url) if isinstance(url, str) else None
    if parts is None or not parts.scheme or "://" not in url or not (parts.netloc + parts.path).strip("/"):
        raise DeclarationError(f"{place}: {url!r} is not the address of a bucket.", hint="Write s3://bucket/prefix.")
    if "@" in parts.netloc or parts.query:
        raise DeclarationError(
            f"{place}: the address of the bucket {parts.hostname} holds what may be a secret; addresses are shown and written down.",
            hint="Leave out what is before @ and after ?; give credentials in the environment, or in the setting buckets.",
        )
    return BucketFiles(*declared(place, url.rstrip("/"), pattern, exclude, encoding), max_bytes, media_type)


@dataclass(frozen=True)
class BucketFiles(Files):
    """Where a source's documents come from; made by `bucket`."""

    options: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)
    at_once: int = field(default=16, compare=False)

    def with_access(self, settings: Settings) -> BucketFiles:
        """This, with the credentials that the settings have for it; they never become part of the declaration."""
        return replace(self, options=settings.bucket_options(self.path), at_once=settings.concurrency)

    async def observe(
        self,
        source: Source,
        root: Path,
        known: pl.DataFrame | None,
        *,
        rehash: bool = False,
        unread: Unread | None = None,
    ) -> pl.DataFrame:
        """What lies in the bucket now; see `sources.observe`."""
        now = time.time_ns()
        async with self._opened(source) as files:
            listed = self._versioned(await self._listed(source, files, unread)).sort("name")
            listed = listed.join(
                _hashes(known, rehash), on=listed.columns, how="left", nulls_equal=True, maintain_order="left"
            )
            unknown = listed.filter(pl.col("sha256").is_null()).select("name", "size").rows()
            hashes: list[tuple[bytes, int] | None] = []
            async with aclosing(
                _ahead(unknown, lambda one: self._hash(source, files, one[0], one[1], unread), lambda: self.at_once)
            ) as found:
                async for one in found:
                    hashes.append(one)  # noqa: PERF401 - an async generator that must be closed
        observed = self._observed(source, None if rehash else known, listed, iter(hashes), now)
        return as_known(source, observed, known, unread)

    async def documents(self, source: Source, root: Path, names: Collection[str]) -> AsyncIterator[Document]:
        """Read these objects; see `sources.documents`."""
        wanted = sorted(names)
        unread: list[str] = []
        largest = 1

        def at_once() -> int:
            return max(1, min(self.at_once, _HELD_BYTES // largest))

        async with (
            self._opened(source) as files,
            aclosing(_ahead(wanted, lambda name: self._read(source, files, name), at_once)) as read,
        ):
            async for document in read:
                if isinstance(document, str):
                    unread.append(document)
                else:
                    largest = max(largest, len(document.content))
                    yield document
        if unread:
            raise self.unread(source, unread, len(wanted))

    async def _listed(self, source: Source, files: Filesystem, unread: Unread | None) -> pl.DataFrame:
        """What the pattern names of what the listing shows."""
        folder, flat = head(self.pattern)
        chosen = Chosen(self.pattern, self.exclude)
        pages: list[pl.DataFrame] = [pl.DataFrame(schema=_LISTED)]
        seen = False
        try:
            try:
                async for page in files.pages(folder, flat=flat, enters=chosen.enters):
                    seen = seen or bool(page)
                    pages.append(self._page(source, [entry for entry in page if chosen.chooses(entry.path)], unread))
            except FileNotFoundError:
                seen = False
            if not seen and not await files.is_there():
                raise FileNotFoundError(self.path)
        except SourceError:
            raise
        except Exception as error:  # each file system has errors of its own
            raise self._refused(source, files, "", error) from error
        return pl.concat(pages)

    def _page(self, source: Source, listed: Sequence[Entry], unread: Unread | None) -> pl.DataFrame:
        entries: list[Entry] = []
        for entry in listed:
            if (problem := self.problem(source, entry.path, entry.size or 0)) is not None:
                leave(unread, entry.path, problem)
            else:
                entries.append(entry)
        columns = {
            "name": [entry.path for entry in entries],
            "size": [entry.size for entry in entries],
            "mtime_ns": [
                known_time(int(entry.modified.timestamp() * 1e6) * 1000) if entry.modified else 0 for entry in entries
            ],
            "inode": [signed(entry.inode) for entry in entries],
            "validator": [entry.validator for entry in entries],
        }
        return pl.DataFrame(columns, schema=_LISTED)

    def _versioned(self, listed: pl.DataFrame) -> pl.DataFrame:
        """What is handed over depends on the encoding, too: with another one, a hash is never used again."""
        return listed.with_columns(pl.col("validator") + f"; {self.encoding}") if self.encoding else listed

    def _observed(
        self, source: Source, known: pl.DataFrame | None, listed: pl.DataFrame, hashes: Iterable[Any], now: int
    ) -> pl.DataFrame:
        """The rows of what is there: with the hash that was known, or the next of `hashes`; without what is gone by now."""
        rows, following, fields = Rows(), iter(hashes), self.digests_of_fields(source)
        for name, size, mtime_ns, inode, validator, sha256 in listed.iter_rows():
            if sha256 is None:
                if (found := next(following)) is None:
                    continue
                sha256, size = found[0], found[1] if size is None else size
            rows.name.append(name)
            rows.size.append(size)
            rows.mtime_ns.append(
                0 if validator is None and (mtime_ns >= now - CLOCK_GRAIN_NS or self.encoding) else mtime_ns
            )
            rows.inode.append(inode)
            rows.media_type.append(self.media_type_of(source, name))
            rows.sha256.append(sha256)
            rows.fields.append(fields)
            rows.validator.append(validator)
        return rows.frame(source, known)

    async def _hash(
        self, source: Source, files: Filesystem, name: str, size: int | None, unread: Unread | None
    ) -> tuple[bytes, int] | None:
        """The hash and size of what an object holds; None if it is gone, or left."""
        try:
            if self.encoding is None and (size or 0) > _WHOLE_BYTES:
                return await self._hash_large(files, name)
            content = self.decoded(source, name, await files.read(name))
        except FileNotFoundError:
            return None
        except SourceError as error:
            leave(unread, name, error)
            return None
        except Exception as error:
            leave(unread, name, self._refused(source, files, name, error))
            return None
        if (problem := self.problem(source, name, len(content))) is not None:
            leave(unread, name, problem)
            return None
        return hashlib.sha256(content).digest(), len(content)

    async def _hash_large(self, files: Filesystem, name: str) -> tuple[bytes, int]:
        with tempfile.TemporaryDirectory(prefix="assetcore-") as folder:
            copy = Path(folder) / "object"
            await files.copy(name, copy)

            def digest() -> tuple[bytes, int]:
                with copy.open("rb") as file:
                    return hashlib.file_digest(file, "sha256").digest(), os.fstat(file.fileno()).st_size

            return await asyncio.to_thread(digest)

    async def _read(self, source: Source, files: Filesystem, name: str) -> Document | str:
        """The document, or why it could not be read."""
        try:
            if name.startswith("/") or ".." in name.split("/"):
                raise FileNotFoundError(name)
            content = await files.read(name)
        except FileNotFoundError:
            return f"{name} (gone since it was observed)"
        except Exception as error:
            raise self._refused(source, files, name, error) from error
        if self.max_bytes is not None and len(content) > self.max_bytes:
            return f"{name} (has {len(content):,} bytes by now; max_bytes is {self.max_bytes:,})"
        content = self.decoded(source, name, content)
        return source.type(name=name, content=content, media_type=self.media_type_of(source, name))

    @asynccontextmanager
    async def _opened(self, source: Source) -> AsyncIterator[Filesystem]:
        from assetcore.storage.filesystems import (
            Filesystem,
        )  # pyarrow comes with it, and who declares a bucket asks none yet

        try:
            files = Filesystem(self.path, self.options)
        except SettingsError as error:
            raise SourceError(f"{source.name} cannot be observed: {error.message}", hint=error.hint) from None
        try:
            yield files
        finally:
            await files.close()

    def _refused(self, source: Source, files: Filesystem, name: str, error: Exception) -> SourceError:
        """The sentence for what a place says instead of answering."""
        from assetcore.storage.filesystems import problem_of

        at = f" at {files.endpoint}" if files.endpoint else ""
        what = f"{name} in {self.path}{at}" if name else f"{self.path}{at}"
        access = "Give credentials in the environment, or for S3 in the setting buckets."
        match problem_of(error):
            case "missing":
                return SourceError(
                    f"{source.name} reads the bucket {what}, which does not exist, or there is nothing below it.",
                    hint="Correct bucket(...), or put something there.",
                )
            case "refused":
                return SourceError(f"{source.name} may not read {what}: access is refused ({error}).", hint=access)
            case "keys":
                return SourceError(
                    f"{source.name} cannot read {what}: it asks for credentials, and there are none.", hint=access
                )
            case "unreachable":
                return SourceError(
                    f"{source.name} cannot reach {what}: {type(error).__name__}: {error}.",
                    hint="Is the address right, and the network there? Then try again.",
                )
            case _:
                return SourceError(
                    f"{source.name} cannot read {what}: {type(error).__name__}: {error}.",
                    hint="Correct bucket(...), or leave it out with exclude=[...].",
                )


def _hashes(known: pl.DataFrame | None, rehash: bool) -> pl.DataFrame:
    """The hashes that still hold for what is listed with the same facts."""
    if known is None or rehash:
        return pl.DataFrame(schema=_LISTED | {"sha256": pl.Binary()})
    return known.filter(pl.col("validator").is_not_null() | (pl.col("mtime_ns") != 0)).select(*_LISTED, "sha256")


async def _ahead(
    items: Iterable[T], work: Callable[[T], Awaitable[R]], at_once: Callable[[], int]
) -> AsyncGenerator[R, None]:
    """What the work gives for each item, in order, while some of the next are under way."""
    waiting = iter(items)
    begun: deque[asyncio.Task[R]] = deque()
    try:
        while True:
            begun.extend(asyncio.ensure_future(work(item)) for item in islice(waiting, max(0, at_once() - len(begun))))
            if not begun:
                return
            yield await begun.popleft()
    finally:
        for task in begun:
            task.cancel()
        await asyncio.gather(*begun, return_exceptions=True)
