"""Folder: which files does a pattern name, and which of them have changed?

A file that has the size, modification time and inode that it had last time is not read again. A file that was written within the
clock's grain of being looked at may change without its time changing; it is recorded without a time, and so is read again next
time (as git does with files that are racily clean).
"""

from __future__ import annotations

import asyncio
import errno
import fnmatch
import hashlib
import os
import re
import stat
import sys
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import polars as pl

from assetcore.assets import Source
from assetcore.documents import Document, check_name, field_digests
from assetcore.errors import AssetcoreError, DeclarationError, SourceError
from assetcore.sources.observed import Rows

__all__ = ["Folder", "folder"]

CLOCK_GRAIN_NS = 2_000_000_000
"""The coarsest modification time in use: FAT's two seconds."""
UNKNOWN_MEDIA_TYPE = "application/octet-stream"
MEDIA_TYPES: Mapping[str, str] = {
    suffix: media_type
    for media_type, suffixes in {
        "text/plain": "txt text log rst adoc tex ini cfg conf c h cpp hpp go rs java kt swift rb pl sh sql r lua php",
        "text/markdown": "md markdown",
        "text/html": "html htm",
        "text/css": "css",
        "text/csv": "csv",
        "text/tab-separated-values": "tsv",
        "text/xml": "xml",
        "text/x-python": "py pyi",
        "text/javascript": "js mjs ts tsx jsx",
        "text/calendar": "ics",
        "text/vtt": "vtt",
        "application/json": "json ipynb",
        "application/jsonl": "jsonl ndjson",
        "application/yaml": "yaml yml",
        "application/toml": "toml",
        "application/pdf": "pdf",
        "application/rtf": "rtf",
        "application/epub+zip": "epub",
        "application/msword": "doc",
        "application/vnd.openxmlformats-officedocument.wordprocessingml.document": "docx",
        "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": "xlsx",
        "application/vnd.openxmlformats-officedocument.presentationml.presentation": "pptx",
        "application/vnd.apache.parquet": "parquet",
        "application/zip": "zip",
        "application/gzip": "gz tgz",
        "image/png": "png",
        "image/jpeg": "jpg jpeg",
        "image/gif": "gif",
        "image/webp": "webp",
        "image/svg+xml": "svg",
        "image/tiff": "tif tiff",
        "audio/mpeg": "mp3",
        "audio/wav": "wav",
        "audio/ogg": "ogg",
        "video/mp4": "mp4",
        "video/webm": "webm",
        "message/rfc822": "eml",
    }.items()
    for suffix in suffixes.split()
}
"""By suffix; a table of our own, because the one of the system differs from machine to machine and would make documents differ."""

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
    if isinstance(exclude, str):
        raise DeclarationError(
            f"{place}: exclude= takes a list, found the text {exclude!r}.", hint=f"Write exclude=[{exclude!r}]."
        )
    for one in (pattern, *exclude):
        segments = one.split("/")
        if not one or segments[0] == "" or any(s in (".", "..") for s in segments) or "" in segments[:-1]:
            raise DeclarationError(
                f"{place}: {one!r} is no pattern of files below {str(path)!r}.",
                hint='Write a relative one such as "**/*.txt".',
            )
    if pattern.endswith("/"):
        raise DeclarationError(f"{place}: {pattern!r} names folders, not files.", hint=f'Write "{pattern}**/*".')
    if encoding is not None:
        try:
            "".encode(encoding)
        except LookupError:
            raise DeclarationError(
                f"{place}: {encoding!r} is no encoding.", hint='For example "latin-1" or "utf-16".'
            ) from None
    return Folder(str(path), pattern, tuple(exclude), encoding, max_bytes, media_type)


@dataclass(frozen=True)
class Folder:
    """Where a source's documents come from; made by `folder`."""

    path: str
    pattern: str = "**/*"
    exclude: tuple[str, ...] = ()
    encoding: str | None = None
    max_bytes: int | None = None
    media_type: str | None = None

    async def observe(
        self, source: Source, root: Path, known: pl.DataFrame | None, *, rehash: bool = False
    ) -> pl.DataFrame:
        """What lies in the folder now; see `sources.observe`."""
        return await asyncio.to_thread(self._observe, source, root, known, rehash)

    async def documents(self, source: Source, root: Path, names: Collection[str]) -> AsyncIterator[Document]:
        """Read these files; see `sources.documents`."""
        wanted, start = sorted(names), 0
        unread: list[str] = []
        while start < len(wanted):
            some, start = await asyncio.to_thread(self._read_some, source, self._top(root), wanted, start, unread)
            for document in some:
                yield document
        if unread:
            shown = "; ".join(unread[:5]) + (f"; and {len(unread) - 5} more" if len(unread) > 5 else "")
            raise SourceError(
                f"{source.name} could not read {len(unread)} of {len(wanted)} documents of {self.path}: {shown}.",
                hint="Plan again: what is gone is then known to be gone.",
            )

    def _observe(self, source: Source, root: Path, known: pl.DataFrame | None, rehash: bool) -> pl.DataFrame:
        top = self._top(root)
        now = time.time_ns()
        files = sorted(self._scan(source, top))
        known_hashes = {} if rehash or known is None or self.encoding else _hashes(known, files)
        unknown = [index for index, file in enumerate(files) if index not in known_hashes]
        hashes = known_hashes | self._hash(source, top, files, unknown)
        rows = Rows()
        fields = self._fields(source)
        for index, (name, size, mtime_ns, inode) in enumerate(files):
            sha256 = hashes[index]
            if sha256 is None:
                continue  # gone since the folder was listed
            rows.name.append(name)
            rows.size.append(size)
            # An encoding is no part of what is recorded, so a hash that depends on it is never used again.
            rows.mtime_ns.append(0 if mtime_ns >= now - CLOCK_GRAIN_NS or self.encoding else mtime_ns)
            rows.inode.append(inode)
            rows.media_type.append(self._media_type_of(source, name))
            rows.sha256.append(sha256)
            rows.fields.append(fields)
        return rows.frame(source, known)

    def _top(self, root: Path) -> str:
        return str(root / Path(self.path).expanduser())

    def _media_type_of(self, source: Source, name: str) -> str:
        suffix = name.rpartition("/")[2].rpartition(".")[2].lower()
        return self.media_type or source.type.fixed_media_type or MEDIA_TYPES.get(suffix, UNKNOWN_MEDIA_TYPE)

    def _fields(self, source: Source) -> bytes:
        """The digests of the typed fields, which have their defaults in every document."""
        return field_digests(source.type(name="defaults", content=b"").field_values())

    def _scan(self, source: Source, top: str) -> Iterator[tuple[str, int, int, int]]:
        """Name, size, modification time and inode of each file that the pattern names."""
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
        yield from self._scan_folder(source, top, "", states, ((facts.st_dev, facts.st_ino),))

    def _scan_folder(
        self, source: Source, path: str, above: str, states: Sequence[_States], ancestors: tuple[tuple[int, int], ...]
    ) -> Iterator[tuple[str, int, int, int]]:
        wanted, files_out, folders_out = self._matchers
        try:
            with os.scandir(path) as entries:
                found = list(entries)
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
                here = _place_of(entry)
                if here is not None and here not in ancestors:
                    yield from self._scan_folder(source, entry.path, name + "/", below, (*ancestors, here))
            elif wanted.names(states[0], entry.name) and not files_out.names(states[1], entry.name):
                try:
                    facts = entry.stat()
                except OSError as error:
                    if entry.is_symlink():
                        raise self._unreadable(source, name, error, "it is a link that leads nowhere") from None
                    continue  # gone since the folder was listed
                if stat.S_ISREG(facts.st_mode):
                    self._check(source, name, facts.st_size)
                    yield name, facts.st_size, facts.st_mtime_ns, facts.st_ino

    def _check(self, source: Source, name: str, size: int) -> None:
        try:
            check_name(name, source.type.__name__)
        except AssetcoreError:
            shown = os.fsencode(name)
            raise SourceError(
                f"{source.name} found the file {shown!r} in {self.path}, whose name cannot be a document's: it is not printable "
                "UTF-8 of at most 1024 bytes.",
                hint="Rename the file, or leave it out with exclude=[...].",
            ) from None
        if self.max_bytes is not None and size > self.max_bytes:
            raise SourceError(
                f"{source.name} found the file {name} in {self.path} with {size:,} bytes; max_bytes is {self.max_bytes:,}.",
                hint="Raise max_bytes=, or leave the file out with exclude=[...].",
            )

    def _hash(
        self, source: Source, top: str, files: Sequence[tuple[str, int, int, int]], indices: Sequence[int]
    ) -> dict[int, bytes | None]:
        """SHA-256 of the contents; None for a file that is gone. Hashing releases the interpreter, so several run at once."""

        def hash_one(index: int) -> bytes | None:
            name = files[index][0]
            try:
                if self.encoding:
                    return hashlib.sha256(self._content(source, top, name)).digest()
                with open(os.path.join(top, name), "rb") as file:
                    if files[index][1] < _SMALL_BYTES:  # half the time of what is made for large files
                        return hashlib.sha256(file.read()).digest()
                    return hashlib.file_digest(file, "sha256").digest()
            except OSError as error:
                if error.errno in _GONE:
                    return None
                raise self._unreadable(source, name, error) from None

        if sum(files[index][1] for index in indices) < _READ_BYTES:
            return {index: hash_one(index) for index in indices}
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            return dict(zip(indices, pool.map(hash_one, indices), strict=True))

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
            documents.append(source.type(name=name, content=content, media_type=self._media_type_of(source, name)))
            size += len(content)
        return documents, start

    def _content(self, source: Source, top: str, name: str) -> bytes:
        with open(os.path.join(top, name), "rb") as file:
            content = file.read()
        if self.encoding is None:
            return content
        try:
            return content.decode(self.encoding).encode()
        except UnicodeError as error:
            raise SourceError(
                f"{source.name} cannot read {name} in {self.path} as {self.encoding}: {error}.",
                hint="Correct encoding=, or leave the file out with exclude=[...].",
            ) from None

    def _unreadable(self, source: Source, name: str, error: OSError, problem: str | None = None) -> SourceError:
        what = f"{name} in {self.path}" if name else self.path
        return SourceError(
            f"{source.name} cannot read {what}: {problem or error.strerror}.",
            hint=f"Make it readable, or leave it out with exclude=[{name.rstrip('/') or '...'!r}].",
        )

    @cached_property
    def _matchers(self) -> tuple[_Matcher, _Matcher, _Matcher]:
        """What to find, which files to leave out, which folders to leave out."""
        files, folders = _left_out(self.exclude)
        return _Matcher([self.pattern]), _Matcher(files, hidden=True), _Matcher(folders, hidden=True)


def _hashes(known: pl.DataFrame, files: Sequence[tuple[str, int, int, int]]) -> dict[int, bytes | None]:
    """The hashes of those files that have not changed since they were recorded, by their index."""
    now = (
        pl.DataFrame(files, schema=["name", "size", "mtime_ns", "inode"], orient="row").with_row_index()
        if files
        else None
    )
    if now is None:
        return {}
    same = ["name", "size", "mtime_ns", "inode"]
    found = now.filter(pl.col("mtime_ns") != 0).join(known.select(*same, "sha256"), on=same, how="inner")
    return dict(found.select("index", "sha256").iter_rows())


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False  # a link to itself


def _place_of(entry: os.DirEntry[str]) -> tuple[int, int] | None:
    try:
        facts = entry.stat()
    except OSError:
        return None  # gone since the folder above was listed
    return facts.st_dev, facts.st_ino


_States = frozenset[tuple[int, int]]
"""How far the patterns have come: (pattern, segment)."""


class _Matcher:
    """Walks patterns along with the folders, so that no folder is entered in which nothing can match."""

    def __init__(self, patterns: Iterable[str], *, hidden: bool = False) -> None:
        self._patterns = [_segments(one, hidden) for pattern in patterns for one in _expanded(pattern)]
        self._hidden = hidden
        self.start = self._closed((number, 0) for number in range(len(self._patterns)))

    def enter(self, states: _States, name: str) -> _States:
        """The states below the folder `name`; none if nothing there can match."""
        return self._closed(self._steps(states, name))

    def names(self, states: _States, name: str) -> bool:
        """Whether a pattern names this entry."""
        for number, at in states:
            segments = self._patterns[number]
            segment = segments[at]
            if segment is not None and at == len(segments) - 1 and segment(name):
                return True
        return False

    def _steps(self, states: _States, name: str) -> Iterator[tuple[int, int]]:
        for number, at in states:
            segments = self._patterns[number]
            segment = segments[at]
            if segment is None:
                if self._hidden or not name.startswith("."):
                    yield number, at
            elif at + 1 < len(segments) and segment(name):
                yield number, at + 1

    def _closed(self, states: Iterable[tuple[int, int]]) -> _States:
        """With what is reached by letting `**` stand for no folder at all."""
        closed = set(states)
        for number, at in list(closed):
            while self._patterns[number][at] is None:
                at += 1
                closed.add((number, at))
        return frozenset(closed)


def _segments(pattern: str, hidden: bool) -> list[Callable[[str], bool] | None]:
    """What each part of the path must fit; None for `**`."""
    parts = pattern.split("/")
    if parts[-1] == "**":
        parts.append("*")
    return [None if part == "**" else _segment(part, hidden) for part in parts]


def _segment(part: str, hidden: bool) -> Callable[[str], bool]:
    fits = re.compile(fnmatch.translate(part)).match
    if hidden or part.startswith("."):
        return lambda name: fits(name) is not None
    if part == "*":
        return lambda name: not name.startswith(".")
    return lambda name: not name.startswith(".") and fits(name) is not None


def _expanded(pattern: str) -> list[str]:
    """The patterns that `{a,b}` stands for."""
    found = re.search(r"\{([^{}]*,[^{}]*)\}", pattern)
    if not found:
        return [pattern]
    before, after = pattern[: found.start()], pattern[found.end() :]
    return [whole for choice in found[1].split(",") for whole in _expanded(before + choice + after)]


def _left_out(patterns: Iterable[str]) -> tuple[list[str], list[str]]:
    """The patterns of files, and those of folders, that an exclude= stands for; one that is for folders only matches no file."""
    files, folders = [], []
    for pattern in patterns:
        whole = pattern.removesuffix("/**/*").removesuffix("/**").rstrip("/")
        anywhere = whole if "/" in pattern.rstrip("/") else f"**/{whole}"
        folders.append(anywhere)
        if whole == pattern:
            files.append(anywhere)
    return files, folders
