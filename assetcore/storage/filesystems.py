"""Filesystems: how is any place that fsspec knows asked and listed, and what is wrong when it refuses?

Coroutines of an asynchronous file system run on fsspec's own loop, the calls of others in threads: one `Filesystem` serves every loop
and thread. Listings come page by page, so that a million objects are never held at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from assetcore.errors import SettingsError

__all__ = ["Entry", "Filesystem", "Problem", "problem_of"]

AT_ONCE = 32
"""How many questions are asked of one place at once, at most."""
Problem = Literal["missing", "taken", "refused", "keys", "unreachable", "other"]

_TIMES = ("LastModified", "last_modified", "mtime", "updated", "modified", "created")
_VERSIONS = (
    "ETag",
    "etag",
    "VersionId",
    "version_id",
    "generation",
    "md5Hash",
    "content_md5",
    "Content-MD5",
    "Last-Modified",
)


@dataclass(frozen=True, slots=True)
class Entry:
    """One file or object of a listing, as far as the listing says.

    `path` is relative to the place; `size` and `modified` may be unknown; `validator` is what changes with every change of the content
    (an ETag, a version), where the place knows such a thing; `inode` is 0 but for files.
    """

    path: str
    size: int | None
    modified: datetime | None
    validator: str | None
    inode: int


class Filesystem:
    """A place such as s3://bucket/prefix, with the file system that fsspec has for it. Nothing is contacted before the first call."""

    def __init__(self, url: str, options: Mapping[str, Any] | None = None) -> None:
        protocol = url.partition("://")[0]
        self.url = url
        self.is_s3 = protocol in ("s3", "s3a")
        given = dict(options or {})
        self.endpoint: str | None = given.get("endpoint_url") or given.get("client_kwargs", {}).get("endpoint_url")
        if self.is_s3:
            # Listings must show what others wrote, and checksum trailers are an extension that not every S3 server knows.
            defaults = {
                "request_checksum_calculation": "when_required",
                "response_checksum_validation": "when_required",
            }
            defaults |= {"max_pool_connections": 2 * AT_ONCE, "connect_timeout": 10, "retries": {"max_attempts": 3}}
            given["config_kwargs"] = defaults | given.get("config_kwargs", {})
        if protocol != "memory":
            given |= {"use_listings_cache": False, "skip_instance_cache": True}
        try:
            import fsspec  # 0.05 s, and a folder needs none of it

            self.fs: Any = fsspec.filesystem(protocol, **given)
            self.root = str(self.fs._strip_protocol(url)).rstrip("/")
        except (ValueError, ImportError, TypeError) as error:
            hint = "Write s3://bucket/prefix, or the address of another store that fsspec has, with the package that it needs."
            raise SettingsError(f"{url} cannot be opened: {error}.", hint=hint) from None

    async def call(self, name: str, *arguments: Any, **options: Any) -> Any:
        """A method of fsspec's file system, by its name without an underscore."""
        if not self.fs.async_impl:
            return await asyncio.to_thread(getattr(self.fs, name), *arguments, **options)
        coroutine = getattr(self.fs, "_" + name)(*arguments, **options)
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coroutine, self.fs.loop))

    def path(self, name: str) -> str:
        """The path, for `call`, of what lies there under this name."""
        return f"{self.root}/{name}" if name else self.root

    async def pages(
        self, folder: str = "", *, flat: bool = False, enters: Callable[[str], bool] = lambda _: True
    ) -> AsyncIterator[list[Entry]]:
        """What lies below a folder: of S3 in the order of the keys, in pages of a thousand; elsewhere a page a folder.

        flat      only what lies in it directly
        enters    whether a folder is of interest; asked only where folders are listed one by one
        """
        if self.is_s3:
            async for page in self._pages_of_s3(folder, flat):
                yield page
            return
        waiting = [folder]
        while waiting:
            here = waiting.pop()
            found = await self.call("ls", self.path(here), detail=True)
            infos = [(str(info["name"]).removeprefix(self.root).strip("/"), info) for info in found]
            yield await self._complete(
                [_entry(path, info) for path, info in sorted(infos, key=_first) if info["type"] == "file"]
            )
            if not flat:
                below = (path for path, info in infos if info["type"] == "directory" and path not in ("", here))
                waiting += sorted((path for path in below if enters(path)), reverse=True)

    async def read(self, name: str) -> bytes:
        """All that an object holds: one answer, and so one version of it, where several ranges might be of several."""
        return await self.call("cat_file", self.path(name), **({"max_concurrency": 1} if self.is_s3 else {}))

    async def copy(self, name: str, to: Path) -> None:
        """The same, into a local file."""
        await self.call("get_file", self.path(name), str(to), **({"max_concurrency": 1} if self.is_s3 else {}))

    async def is_there(self) -> bool:
        """Whether there is anything at this place; an empty bucket counts, of a folder or prefix its being there."""
        if not self.is_s3:
            return bool(await self.call("exists", self.root))
        bucket, _, prefix = self.root.partition("/")
        found = await self.call("call_s3", "list_objects_v2", Bucket=bucket, Prefix=_as_folder(prefix), MaxKeys=1)
        return not prefix or bool(found.get("Contents"))

    async def close(self) -> None:
        """Give connections back."""
        session = getattr(self.fs, "_s3", None)
        if session is not None:
            await asyncio.to_thread(self.fs.close_session, self.fs.loop, session)

    async def _complete(self, entries: list[Entry]) -> list[Entry]:
        """Entries whose size the listing does not tell (http) are asked for one by one."""
        if all(entry.size is not None for entry in entries):
            return entries
        questions = asyncio.Semaphore(AT_ONCE)

        async def asked(entry: Entry) -> Entry:
            async with questions:
                try:
                    return _entry(entry.path, await self.call("info", self.path(entry.path)))
                except FileNotFoundError:
                    return entry  # gone, or it does not say; reading it will tell

        return list(await asyncio.gather(*map(asked, entries)))

    async def _pages_of_s3(self, folder: str, flat: bool) -> AsyncIterator[list[Entry]]:
        bucket, _, prefix = self.root.partition("/")
        within = len(_as_folder(prefix))
        options: dict[str, Any] = {"Delimiter": "/"} if flat else {}
        while True:
            page = await self.call(
                "call_s3",
                "list_objects_v2",
                Bucket=bucket,
                Prefix=_as_folder(self.path(folder).partition("/")[2]),
                **options,
            )
            # A key that ends with a slash is what some tools write for an empty folder.
            yield [
                _entry(info["Key"][within:], info) for info in page.get("Contents", []) if not info["Key"].endswith("/")
            ]
            if not page.get("IsTruncated"):
                return
            options["ContinuationToken"] = page["NextContinuationToken"]


def problem_of(error: BaseException) -> Problem:
    """What an error of any of fsspec's file systems means; by its type, for its text may quote any key."""
    name = type(error).__name__
    match error:
        case FileNotFoundError():
            return "missing"
        case FileExistsError():
            return "taken"
        case PermissionError():
            return "refused"
        case _ if "Credential" in name:
            return "keys"
        case ConnectionError() | TimeoutError():
            return "unreachable"
        case _ if any(word in name for word in ("Connect", "Timeout", "DNS")):
            return "unreachable"
        case _ if getattr(error, "status", None) in (401, 403) or "InvalidAccessKeyId" in str(error):
            return "refused"
    return "other"


def _entry(path: str, info: Mapping[str, Any]) -> Entry:
    size = info.get("size", info.get("Size"))
    versions = [f"{name} {info[name]}" for name in _VERSIONS if info.get(name) not in (None, "", "null")]
    modified = next((_moment(info[name]) for name in _TIMES if info.get(name) is not None), None)
    inode = info.get("ino")
    return Entry(path, size, modified, "; ".join(versions) or None, inode if isinstance(inode, int) else 0)


def _moment(value: object) -> datetime | None:
    match value:
        case datetime():
            return value.astimezone(UTC)
        case int() | float():
            return datetime.fromtimestamp(value, UTC)
        case _:
            return None


def _as_folder(prefix: str) -> str:
    return f"{prefix}/" if prefix else ""


def _first(pair: tuple[str, object]) -> str:
    return pair[0]
