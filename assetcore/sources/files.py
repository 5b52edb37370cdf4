"""Files: what is a document of what lies in a folder or a bucket, and which of it is meant?"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from assetcore.assets import Source
from assetcore.documents import NAME_LIMIT, check_name, field_digests
from assetcore.errors import AssetcoreError, DeclarationError, SourceError

__all__ = ["CLOCK_GRAIN_NS", "MEDIA_TYPES", "UNKNOWN_MEDIA_TYPE", "Files", "declared"]

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


def declared(
    place: str, path: str, pattern: str, exclude: Sequence[str], encoding: str | None
) -> tuple[str, str, tuple[str, ...], str | None]:
    """What a user declares of files, checked. Raises DeclarationError."""
    if isinstance(exclude, str):
        raise DeclarationError(
            f"{place}: exclude= takes a list, found the text {exclude!r}.", hint=f"Write exclude=[{exclude!r}]."
        )
    for one in (pattern, *exclude):
        segments = one.split("/")
        if not one or segments[0] == "" or any(s in (".", "..") for s in segments) or "" in segments[:-1]:
            raise DeclarationError(
                f"{place}: {one!r} is no pattern of files below {path!r}.",
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
    return path, pattern, tuple(exclude), encoding


@dataclass(frozen=True)
class Files:
    """Which files are documents, and how they are read; the options of `folder` and `bucket`."""

    path: str
    pattern: str = "**/*"
    exclude: tuple[str, ...] = ()
    encoding: str | None = None
    max_bytes: int | None = None
    media_type: str | None = None

    def media_type_of(self, source: Source, name: str) -> str:
        """The media type of a document: as declared here or by its class, or by its suffix."""
        return self.media_types_of(source, [name])[0]

    def media_types_of(self, source: Source, names: Sequence[str]) -> list[str]:
        """As `media_type_of`, of many documents."""
        if fixed := self.media_type or source.type.fixed_media_type:
            return [fixed] * len(names)
        suffixes = (name.rpartition("/")[2].rpartition(".")[2].lower() for name in names)
        return [MEDIA_TYPES.get(suffix, UNKNOWN_MEDIA_TYPE) for suffix in suffixes]

    def digests_of_fields(self, source: Source) -> bytes:
        """The digests of the typed fields, which have their defaults in every document."""
        return field_digests(source.type(name="defaults", content=b"").field_values())

    def problem(self, source: Source, name: str, size: int) -> SourceError | None:
        """Why something cannot be a document: by its name, or by its size."""
        plain = name.isascii() and name.isprintable() and 0 < len(name) <= NAME_LIMIT  # most are, and there may be many
        if plain and (self.max_bytes is None or size <= self.max_bytes):
            return None
        try:
            check_name(name, source.type.__name__)
        except AssetcoreError:
            shown = os.fsencode(name)
            return SourceError(
                f"{source.name} found the file {shown!r} in {self.path}, whose name cannot be a document's: it is not printable "
                "UTF-8 of at most 1024 bytes.",
                hint="Rename the file, or leave it out with exclude=[...].",
            )
        if self.max_bytes is not None and size > self.max_bytes:
            return SourceError(
                f"{source.name} found the file {name} in {self.path} with {size:,} bytes; max_bytes is {self.max_bytes:,}.",
                hint="Raise max_bytes=, or leave the file out with exclude=[...].",
            )
        return None

    def decoded(self, source: Source, name: str, content: bytes) -> bytes:
        """The content as it is handed over: text in another encoding as UTF-8. Raises SourceError."""
        if self.encoding is None:
            return content
        try:
            return content.decode(self.encoding).encode()
        except UnicodeError as error:
            raise SourceError(
                f"{source.name} cannot read {name} in {self.path} as {self.encoding}: {error}.",
                hint="Correct encoding=, or leave the file out with exclude=[...].",
            ) from None

    def unread(self, source: Source, unread: Sequence[str], wanted: int) -> SourceError:
        """The sentence for documents that could not be read; each with the reason."""
        shown = "; ".join(unread[:5]) + (f"; and {len(unread) - 5} more" if len(unread) > 5 else "")
        return SourceError(
            f"{source.name} could not read {len(unread)} of {wanted} documents of {self.path}: {shown}.",
            hint="Plan again: what is gone is then known to be gone.",
        )
