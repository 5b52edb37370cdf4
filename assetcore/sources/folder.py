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
from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path

import polars as pl

from assetcore.assets import Source
from assetcore.documents import Document
from assetcore.errors import SourceError
from assetcore.frames import joined, rows_where
from assetcore.sources.files import CLOCK_GRAIN_NS, MEDIA_TYPES, UNKNOWN_MEDIA_TYPE, Files, declared
from assetcore.sources.observed import Rows, Unread, as_known, leave
from assetcore.sources.patterns import Matcher, States, left_out

__all__ = ["MEDIA_TYPES", "UNKNOWN_MEDIA_TYPE", "Folder", "folder"]

_READ_AT_ONCE = 64
_SMALL_BYTES = 1 << 18
_READ_BYTES = 8 << 20
_GONE = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR)


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
    ) -> pl.DataFrame:
        """What lies in the folder now, or what of these names does; see `sources.observe`."""
        return await asyncio.to_thread(self._observe, source, root, known, rehash, only, unread)

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

    def _observe(
        self,
        source: Source,
        root: Path,
        known: pl.DataFrame | None,
        rehash: bool,
        only: Collection[str] | None,
        unread: Unread | None,
    ) -> pl.DataFrame:
        top = self._top(root)
        now = time.time_ns()
        files = sorted(self._scan(source, top, only, unread))
        known_hashes = {} if rehash or known is None or self.encoding else _hashes(known, files)
        unknown = [index for index, file in enumerate(files) if index not in known_hashes]
        hashes = known_hashes | self._hash(source, top, files, unknown, unread)
        rows = Rows()
        fields = self.digests_of_fields(source)
        for index, (name, size, mtime_ns, inode) in enumerate(files):
            sha256 = hashes[index]
            if sha256 is None:
                continue  # gone since the folder was listed, or not to be read
            rows.name.append(name)
            rows.size.append(size)
            # An encoding is no part of what is recorded, so a hash that depends on it is never used again.
            rows.mtime_ns.append(0 if mtime_ns >= now - CLOCK_GRAIN_NS or self.encoding else mtime_ns)
            rows.inode.append(inode)
            rows.media_type.append(self.media_type_of(source, name))
            rows.sha256.append(sha256)
            rows.fields.append(fields)
        return as_known(rows.frame(source, known), known, unread)

    def _top(self, root: Path) -> str:
        return str(root / Path(self.path).expanduser())

    def _scan(
        self, source: Source, top: str, only: Collection[str] | None, unread: Unread | None
    ) -> Iterator[tuple[str, int, int, int]]:
        """Name, size, modification time and inode of each file that the pattern names, or of `only` these."""
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
        yield from self._scan_folder(source, top, "", states, ((facts.st_dev, facts.st_ino),), only, unread)

    def _scan_folder(
        self,
        source: Source,
        path: str,
        above: str,
        states: Sequence[States],
        ancestors: tuple[tuple[int, int], ...],
        only: Collection[str] | None,
        unread: Unread | None,
    ) -> Iterator[tuple[str, int, int, int]]:
        wanted, files_out, folders_out = self._matchers
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
            name = above + entry.name
            if _is_folder(entry):
                below = [
                    matcher.enter(state, entry.name) for matcher, state in zip(self._matchers, states, strict=True)
                ]
                if not below[0] or folders_out.names(states[2], entry.name):
                    continue
                place = _place_of(entry)
                if place is not None and place not in ancestors:
                    yield from self._scan_folder(
                        source, os.fspath(entry), name + "/", below, (*ancestors, place), only, unread
                    )
            elif wanted.names(states[0], entry.name) and not files_out.names(states[1], entry.name):
                try:
                    facts = entry.stat()
                except OSError as error:
                    if entry.is_symlink():
                        leave(unread, name, self._unreadable(source, name, error, "it is a link that leads nowhere"))
                    continue  # gone since the folder was listed
                if stat.S_ISREG(facts.st_mode):
                    if (problem := self.problem(source, name, facts.st_size)) is not None:
                        leave(unread, name, problem)
                        continue
                    yield name, facts.st_size, facts.st_mtime_ns, facts.st_ino

    def _hash(
        self,
        source: Source,
        top: str,
        files: Sequence[tuple[str, int, int, int]],
        indices: Sequence[int],
        unread: Unread | None,
    ) -> dict[int, bytes | None]:
        """SHA-256 of the contents; None for a file that is gone, or left. Hashing releases the interpreter, so several run at once."""

        def hash_one(index: int) -> bytes | None:
            name = files[index][0]
            try:
                if self.encoding:
                    return hashlib.sha256(self._content(source, top, name)).digest()
                with open(os.path.join(top, name), "rb", buffering=0) as file:
                    if files[index][1] < _SMALL_BYTES:  # half the time of what is made for large files
                        return hashlib.sha256(file.read()).digest()
                    return hashlib.file_digest(file, "sha256").digest()
            except OSError as error:
                if error.errno not in _GONE:
                    leave(unread, name, self._unreadable(source, name, error))
            except SourceError as error:
                leave(unread, name, error)
            return None

        if sum(files[index][1] for index in indices) < _READ_BYTES:
            return {index: hash_one(index) for index in indices}
        threads = os.cpu_count() or 1
        share = max(1, min(_READ_AT_ONCE, len(indices) // (4 * threads)))  # handing over costs as much as hashing
        parts = [indices[start : start + share] for start in range(0, len(indices), share)]
        with ThreadPoolExecutor(threads) as pool:
            found = pool.map(lambda part: [hash_one(index) for index in part], parts)
            return dict(zip(indices, chain.from_iterable(found), strict=True))

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


def _hashes(known: pl.DataFrame, files: Sequence[tuple[str, int, int, int]]) -> dict[int, bytes | None]:
    """The hashes of those files that have not changed since they were recorded, by their index."""
    if known.is_empty() or not files:
        return {}
    now = pl.DataFrame(files, schema=["name", "size", "mtime_ns", "inode"], orient="row").with_row_index()
    same = ["name", "size", "mtime_ns", "inode"]
    found = joined(rows_where(now, now["mtime_ns"] != 0), known[[*same, "sha256"]], same)
    return dict(found["index", "sha256"].iter_rows())


def _is_folder(entry: os.DirEntry[str] | Path) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False  # a link to itself


def _place_of(entry: os.DirEntry[str] | Path) -> tuple[int, int] | None:
    try:
        facts = entry.stat()
    except OSError:
        return None  # gone since the folder above was listed
    return facts.st_dev, facts.st_ino
