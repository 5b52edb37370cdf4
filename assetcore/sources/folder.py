"""Folder: which files does a pattern name, and which of them have changed?

A file that has the size, modification time and inode that it had last time is not read again. A file that was written within the
clock's grain of being looked at may change without its time changing; it is recorded without a time, and so is read again next
time (as git does with files that are racily clean).
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import stat
import sys
import time
from collections.abc import AsyncIterator, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import chain
from pathlib import Path

import polars as pl

from assetcore.assets import Source
from assetcore.digest import digest
from assetcore.documents import Document, identity
from assetcore.errors import SourceError
from assetcore.frames import put, rows_where
from assetcore.sources.files import CLOCK_GRAIN_NS, MEDIA_TYPES, UNKNOWN_MEDIA_TYPE, Files, declared
from assetcore.sources.observed import Glance, Listed, Unread, as_known, as_named, filled, identified, leave, unchanged
from assetcore.sources.patterns import Matcher, States, left_out

__all__ = ["MEDIA_TYPES", "UNKNOWN_MEDIA_TYPE", "Folder", "folder"]

_READ_AT_ONCE = 64
_SMALL_BYTES = 1 << 18
_READ_BYTES = 8 << 20
_GONE = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR)
_NOWHERE = (*_GONE, errno.ELOOP)


def folder(
    path: str | Path,
    pattern: str = "**/*",
    *,
    exclude: Sequence[str] = (),
    encoding: str | None = None,
    max_bytes: int | None = None,
    media_type: str | None = None,
) -> Folder:
    """The files below a folder whose path in it matches `pattern`; each is a document named by that path.

    path        relative to the project's root (the directory that holds projects/), or absolute, or with ~
    pattern     `*`, `?` and `[...]` within one name, `**` for any folders, `{a,b}` for either; hidden files and folders only where
                the pattern itself has the dot. Case counts
    exclude     patterns of files and folders to leave out; one without a slash at any depth, as in .gitignore
    encoding    what the files are written in, if it is not UTF-8: their text is handed over as UTF-8
    max_bytes   a larger file is an error
    media_type  of all of them; otherwise by the class, then by the suffix

    Only regular files are documents; links are followed, loops are not. No match is no error: then there are no documents.
    """
    place = f"{sys._getframe(1).f_code.co_filename}:{sys._getframe(1).f_lineno}"
    return Folder(*declared(place, str(path), pattern, exclude, encoding), max_bytes, media_type)


@dataclass(frozen=True)
class Folder(Files):
    """Where a source's documents come from; made by `folder`."""

    async def observe(
        self,
        source: Source,
        root: Path,
        known: pl.DataFrame | None,
        *,
        rehash: bool = False,
        only: Collection[str] | None = None,
        unread: Unread | None = None,
        glanced: Glance | None = None,
    ) -> pl.DataFrame:
        """What lies in the folder now, or what of these names does; see `sources.observe`."""
        return await asyncio.to_thread(self._observe, source, root, known, rehash, only, unread, glanced)

    async def documents(self, source: Source, root: Path, names: Collection[str]) -> AsyncIterator[Document]:
        """Read these files; see `sources.documents`."""
        wanted, start = sorted(names), 0
        unread: list[str] = []
        while start < len(wanted):
            some, start = await asyncio.to_thread(self._read_some, source, self._top(root), wanted, start, unread)
            for document in some:
                yield document
        if unread:
            raise self.unread(source, unread, len(wanted))

    def glance(self, source: Source, root: Path, only: Collection[str] | None = None) -> Glance:
        """What lies in the folder now, without reading any of it; see `sources.glance`."""
        unread: Unread = []
        now = time.time_ns()
        files = self._scan(source, self._top(root), only, unread).sorted()
        return Glance(now, files, unread, self._digest(source, files) if only is None else None)

    def _digest(self, source: Source, files: Listed) -> bytes | None:
        """The digest of a glance that finds these files; see `Glance`."""
        if self.encoding or 0 in files.times:
            return None
        fixed = self.media_type or source.type.fixed_media_type
        made = identity(source.output.type_name, "", "", b"", self.digests_of_fields(source))
        facts = ("\0".join(files.names), *(numbers.tobytes() for numbers in (files.sizes, files.times, files.inodes)))
        return digest("glance", made, fixed or _suffixes(), *facts)

    def _observe(
        self,
        source: Source,
        root: Path,
        known: pl.DataFrame | None,
        rehash: bool,
        only: Collection[str] | None,
        unread: Unread | None,
        glanced: Glance | None,
    ) -> pl.DataFrame:
        now, listed, problems, _ = glanced or self.glance(source, root, only)
        for name, problem in problems:
            leave(unread, name, problem)
        files = listed.frame()
        hashes = pl.Series([None] * files.height, dtype=pl.Binary)
        if known is not None and not rehash and not self.encoding:
            hashes = _hashes(known, files)
        if hashes.null_count():
            hashes = self._hashed(source, self._top(root), files, hashes, unread)
        if hashes.null_count():  # gone since the folder was listed, or not to be read
            files, hashes = rows_where(files, hashes.is_not_null()), hashes.drop_nulls()
        names, times = files["name"].to_list(), files["mtime_ns"]
        # An encoding is no part of what is recorded, so a hash that depends on it is never used again.
        if self.encoding:
            files = put(files, pl.Series("mtime_ns", [0] * len(times), pl.Int64))
        elif (late := times >= now - CLOCK_GRAIN_NS).any():
            files = put(files, times.set(late, 0))
        rows = files.hstack([
            pl.Series("media_type", self.media_types_of(source, names), pl.String),
            hashes.alias("sha256"),
            pl.Series("fields", [self.digests_of_fields(source)] * len(names), pl.Binary),
            pl.Series("validator", [None] * len(names), pl.String),
        ])  # fmt: skip
        return as_known(source, identified(source, rows, None if rehash else known), known, unread)

    def _top(self, root: Path) -> str:
        return str(root / Path(self.path).expanduser())

    def _scan(self, source: Source, top: str, only: Collection[str] | None, unread: Unread) -> Listed:
        """The files that the pattern names, or `only` these."""
        try:
            facts = os.stat(top)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR):
                raise self._unreadable(source, "", error) from None
            raise SourceError(
                f"{source.name} reads the folder {self.path}, which does not exist: looked for {top}.",
                hint="Create it, or correct folder(...): a relative path starts at the project's root.",
            ) from None
        if not stat.S_ISDIR(facts.st_mode):
            raise SourceError(
                f"{source.name} reads the folder {self.path}, which is a file.", hint="Name the folder that it lies in."
            )
        states = [matcher.start for matcher in self._matchers]
        files = Listed()
        self._scan_folder(source, top, "", states, ((facts.st_dev, facts.st_ino),), only, unread, files)
        return files

    def _scan_folder(
        self,
        source: Source,
        path: str,
        above: str,
        states: Sequence[States],
        ancestors: tuple[tuple[int, int], ...],
        only: Collection[str] | None,
        unread: Unread,
        files: Listed,
    ) -> None:
        wanted, files_out, folders_out = self._matchers
        is_wanted, is_left_out = wanted.naming(states[0]), files_out.naming(states[1])
        found: Sequence[os.DirEntry[str] | Path]
        try:
            if only is None:
                with os.scandir(path) as entries:
                    found = list(entries)
            else:
                here = {name.removeprefix(above).partition("/")[0] for name in only if name.startswith(above)}
                found = [Path(path, name) for name in here]
        except OSError as error:
            if error.errno in _GONE and above:
                return  # gone since the folder above was listed
            raise self._unreadable(source, above, error) from None
        for entry in found:
            own = entry.name
            name = above + own
            is_folder, is_file = _is_folder(entry), is_wanted(own) and not is_left_out(own)
            if is_folder or (is_folder is None and not is_file):
                below = [matcher.enter(state, own) for matcher, state in zip(self._matchers, states, strict=True)]
                if not below[0] or folders_out.names(states[2], own):
                    continue
                try:
                    facts = entry.stat()
                except OSError as error:
                    if error.errno in _GONE:
                        continue  # gone since the folder above was listed
                    raise self._unreadable(source, name + "/", error) from None
                if (place := (facts.st_dev, facts.st_ino)) not in ancestors:
                    self._scan_folder(
                        source, os.fspath(entry), name + "/", below, (*ancestors, place), only, unread, files
                    )
            elif is_file:
                try:
                    facts = entry.stat()
                except OSError as error:
                    if error.errno in _NOWHERE and entry.is_symlink():
                        leave(unread, name, self._unreadable(source, name, error, "it is a link that leads nowhere"))
                    elif error.errno not in _GONE:
                        leave(unread, name, self._unreadable(source, name, error))
                    continue  # gone since the folder was listed
                if stat.S_ISREG(facts.st_mode):
                    if (problem := self.problem(source, name, facts.st_size)) is not None:
                        leave(unread, name, problem)
                        continue
                    files.add(name, facts)

    def _hashed(
        self, source: Source, top: str, files: pl.DataFrame, hashes: pl.Series, unread: Unread | None
    ) -> pl.Series:
        """The hashes of files with those that are not known; null of a file that is gone, or left."""
        unknown = hashes.is_null()
        some = rows_where(files, unknown)
        return filled(hashes, unknown, self._hash(source, top, some["name"].to_list(), some["size"].to_list(), unread))

    def _hash(
        self, source: Source, top: str, names: Sequence[str], sizes: Sequence[int], unread: Unread | None
    ) -> list[bytes | None]:
        """SHA-256 of the contents; None for a file that is gone, or left. Hashing releases the interpreter, so several run at once."""

        def hash_one(name: str, size: int) -> bytes | None:
            try:
                if self.encoding:
                    return hashlib.sha256(self._content(source, top, name)).digest()
                with open(os.path.join(top, name), "rb", buffering=0) as file:
                    if size < _SMALL_BYTES:  # half the time of what is made for large files
                        return hashlib.sha256(file.read()).digest()
                    return hashlib.file_digest(file, "sha256").digest()
            except OSError as error:
                if error.errno not in _GONE:
                    leave(unread, name, self._unreadable(source, name, error))
            except SourceError as error:
                leave(unread, name, error)
            return None

        if sum(sizes) < _READ_BYTES:
            return list(map(hash_one, names, sizes))
        threads = os.cpu_count() or 1
        share = max(1, min(_READ_AT_ONCE, len(names) // (4 * threads)))  # handing over costs as much as hashing
        parts = [slice(start, start + share) for start in range(0, len(names), share)]
        with ThreadPoolExecutor(threads) as pool:
            found = pool.map(lambda part: list(map(hash_one, names[part], sizes[part])), parts)
            return list(chain.from_iterable(found))

    def _read_some(
        self, source: Source, top: str, names: Sequence[str], start: int, unread: list[str]
    ) -> tuple[list[Document], int]:
        """The documents from `start` on, as many as one hop into a thread should bring, and where the next hop starts."""
        documents: list[Document] = []
        size = 0
        while start < len(names) and len(documents) < _READ_AT_ONCE and size < _READ_BYTES:
            name = names[start]
            start += 1
            try:
                if name.startswith("/") or ".." in name.split("/"):
                    raise FileNotFoundError(errno.ENOENT, "it does not lie in the folder")
                content = self._content(source, top, name)
            except OSError as error:
                unread.append(
                    f"{name} (gone since it was observed)" if error.errno in _GONE else f"{name} ({error.strerror})"
                )
                continue
            documents.append(source.type(name=name, content=content, media_type=self.media_type_of(source, name)))
            size += len(content)
        return documents, start

    def _content(self, source: Source, top: str, name: str) -> bytes:
        with open(
            os.path.join(top, name), "rb", buffering=0
        ) as file:  # read at once: a buffer takes as long as the file
            content = file.read()
        return self.decoded(source, name, content)

    def _unreadable(self, source: Source, name: str, error: OSError, problem: str | None = None) -> SourceError:
        what = f"{name} in {self.path}" if name else self.path
        return SourceError(
            f"{source.name} cannot read {what}: {problem or error.strerror}.",
            hint=f"Make it readable, or leave it out with exclude=[{name.rstrip('/') or '...'!r}].",
        )

    @cached_property
    def _matchers(self) -> tuple[Matcher, Matcher, Matcher]:
        """What to find, which files to leave out, which folders to leave out."""
        files, folders = left_out(self.exclude)
        return Matcher([self.pattern]), Matcher(files, hidden=True), Matcher(folders, hidden=True)


@cache
def _suffixes() -> bytes:
    """Which suffix is of which media type: another release may know others."""
    return digest("media types", dict(MEDIA_TYPES), UNKNOWN_MEDIA_TYPE)


def _hashes(known: pl.DataFrame, files: pl.DataFrame) -> pl.Series:
    """The hash of each file that has not changed since it was recorded; null of the others."""
    was = as_named(known[[*files.columns, "sha256"]], files["name"])
    same = unchanged(files, was, files.columns[1:]) & (files["mtime_ns"] != 0)
    if same.all():
        return was["sha256"]
    return was["sha256"].zip_with(same, pl.Series([None] * files.height, dtype=pl.Binary))


def _is_folder(entry: os.DirEntry[str] | Path) -> bool | None:
    """Whether it is one, or leads to one; None where that is not to be told, because it leads to where nobody may look."""
    try:
        return entry.is_dir()
    except OSError as error:
        return False if error.errno in _NOWHERE else None
