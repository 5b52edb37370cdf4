"""Buckets: how are objects written once, read, listed and deleted?

A bucket is one fsspec address: `file:///folder`, `s3://bucket/prefix`, `memory://name`. Objects are immutable: `write` creates
and never overwrites, whole or not at all, also when two writers race and when the process dies in between.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from io import FileIO
from itertools import islice
from pathlib import Path
from typing import Any

from assetcore.errors import ServiceError, SettingsError, StorageError
from assetcore.storage.arrow import pa
from assetcore.storage.filesystems import AT_ONCE, Filesystem
from assetcore.storage.keys import Key

__all__ = ["Bucket", "DamagedObjectError", "MissingObjectError", "ObjectExistsError", "ObjectInfo"]

_TEMPORARY = ".tmp"
"""The folder of a file:// bucket in which objects are written before they get their name."""
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
_LIST_PAGE = 1000


class DamagedObjectError(StorageError):
    """The object under `key` is not there, or is not what lineage says."""

    def __init__(self, message: str, key: str, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.key = key


class MissingObjectError(DamagedObjectError):
    """The object is not in the bucket."""


class ObjectExistsError(StorageError):
    """The key is taken: objects are written once."""


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One object of a listing."""

    key: Key
    size: int
    modified: datetime


class Bucket:
    """One place for objects; `Bucket.open(url)` makes it. Safe to use from several tasks and event loops at once."""

    def __init__(self, url: str) -> None:
        self.url = url

    @classmethod
    def open(cls, url: str, options: Mapping[str, Any] | None = None) -> Bucket:
        """The bucket at an address. Nothing is contacted or created before the first call.

        `options` go to the fsspec file system: for S3 `key`, `secret`, `endpoint_url`, `client_kwargs`, ...
        """
        protocol, separator, rest = url.partition("://")
        if not separator or not rest.strip("/"):
            raise SettingsError(
                f"{url!r} is not the address of a bucket.",
                hint="Write file:///folder, s3://bucket/prefix or memory://name.",
            )
        if protocol == "file":
            return _Folder(url, Path(rest))
        return _Remote(url, dict(options or {}))

    async def ensure(self) -> None:
        """Create the bucket if it is not there; does nothing if it is."""
        raise NotImplementedError

    async def write(self, key: Key, data: bytes) -> None:
        """Create the object. Raises ObjectExistsError when the key is taken, StorageError when it cannot be written."""
        raise NotImplementedError

    async def write_own(self, key: Key, data: bytes) -> None:
        """Create an object under a key that nobody else can have: if it is there, the answer to writing it was lost on the way."""
        try:
            await self.write(key, data)
        except ObjectExistsError:
            if await self.read(key) != data:
                raise

    async def read(self, key: Key) -> bytes:
        """The bytes of the object. Raises MissingObjectError."""
        raise NotImplementedError

    async def open_input(self, key: Key) -> pa.NativeFile:
        """The object as a random-access file of pyarrow, to be read by ranges in a thread. Raises MissingObjectError."""
        raise NotImplementedError

    async def exists(self, keys: Sequence[Key]) -> set[Key]:
        """Those of the keys that have an object."""
        raise NotImplementedError

    def list(self, prefix: str = "") -> AsyncIterator[ObjectInfo]:
        """The objects whose keys start with `prefix`."""
        raise NotImplementedError

    async def delete(self, keys: Sequence[Key]) -> None:
        """Delete the objects; those that are not there are passed over."""
        raise NotImplementedError

    async def sweep(self, before: datetime) -> int:
        """Remove what writes that died before that moment left behind; how many there were."""
        return 0

    async def close(self) -> None:
        """Give connections back."""

    def __repr__(self) -> str:
        return f"<Bucket {self.url}>"

    def _missing(self, key: str) -> MissingObjectError:
        return MissingObjectError(f"The object {key} is not in the bucket {self.url}.", key)

    def _taken(self, key: str) -> ObjectExistsError:
        return ObjectExistsError(
            f"The object {key} is already in the bucket {self.url}: objects are never overwritten."
        )


class _Folder(Bucket):
    """A bucket in a local folder."""

    def __init__(self, url: str, root: Path) -> None:
        super().__init__(url)
        self._root = root
        self._temporary = root / _TEMPORARY

    async def ensure(self) -> None:
        await asyncio.to_thread(self._do, "written", str(self._root), _make_directory, self._temporary)

    async def write(self, key: Key, data: bytes) -> None:
        await asyncio.to_thread(self._do, "written", key, self._write, key, data)

    async def read(self, key: Key) -> bytes:
        return await asyncio.to_thread(self._do, "read", key, self._path(key).read_bytes)

    async def open_input(self, key: Key) -> pa.NativeFile:
        return await asyncio.to_thread(self._do, "read", key, pa.OSFile, str(self._path(key)))

    async def exists(self, keys: Sequence[Key]) -> set[Key]:
        return await asyncio.to_thread(lambda: {key for key in keys if self._path(key).is_file()})

    async def list(self, prefix: str = "") -> AsyncIterator[ObjectInfo]:
        objects = self._walk(self._root, "", prefix)
        while page := await asyncio.to_thread(self._do, "listed", prefix, lambda: list(islice(objects, _LIST_PAGE))):
            for info in page:
                yield info

    async def delete(self, keys: Sequence[Key]) -> None:
        def delete() -> None:
            for key in keys:
                self._do("deleted", key, self._unlink, key)

        await asyncio.to_thread(delete)

    async def sweep(self, before: datetime) -> int:
        return await asyncio.to_thread(self._do, "listed", _TEMPORARY, self._sweep, before.timestamp())

    def _path(self, key: str) -> Path:
        if any(part in ("", ".", "..", _TEMPORARY) for part in key.split("/")) or "\0" in key:
            raise StorageError(f"{key!r:.200} is not a key that the bucket {self.url} can hold.")
        return self._root / key

    def _do(self, verb: str, key: str, call: Callable[..., Any], *arguments: Any) -> Any:
        """What `call` gives; what the operating system refuses, as a sentence."""
        try:
            return call(*arguments)
        except FileNotFoundError:
            raise self._missing(key) from None
        except FileExistsError:
            raise self._taken(key) from None
        except OSError as error:
            if error.errno in _FULL:
                raise StorageError(
                    f"The object {key} could not be written: no space is left for the bucket {self.url} ({error.strerror}).",
                    hint="Free some space and run again: nothing half-written was left behind.",
                ) from None
            raise StorageError(
                f"The object {key} of the bucket {self.url} cannot be {verb}: {error.strerror}."
            ) from None

    def _write(self, key: str, data: bytes) -> None:
        # The bytes are on the disk before the name exists, and a link is refused where the name does: so an object is whole
        # or absent, and of two writers one wins.
        path = self._path(key)
        temporary = self._temporary / uuid.uuid4().hex
        try:
            with self._create(temporary) as file:
                left = memoryview(data)
                while left:
                    left = left[file.write(left) :]
                os.fsync(file.fileno())
            try:
                _link(temporary, path)
            except FileNotFoundError:
                _make_directory(path.parent)
                _link(temporary, path)
            _sync_directory(path.parent)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)

    def _create(self, temporary: Path) -> FileIO:
        """A new file; without a buffer, as each call of the system is a moment at which a thread waits for its turn again."""
        try:
            return open(temporary, "xb", buffering=0)
        except FileNotFoundError:
            _make_directory(self._temporary)
            return open(temporary, "xb", buffering=0)

    def _unlink(self, key: str) -> None:
        path = self._path(key)
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        for folder in path.parents:
            if folder == self._root:
                break
            try:
                folder.rmdir()
            except OSError:
                break  # not empty, or already gone

    def _walk(self, folder: Path, above: str, prefix: str) -> Iterator[ObjectInfo]:
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except FileNotFoundError:
            return
        for entry in entries:
            key = above + entry.name
            if entry.name == _TEMPORARY and not above:
                continue
            if entry.is_dir():
                below = key + "/"
                if below.startswith(prefix) or prefix.startswith(below):
                    yield from self._walk(folder / entry.name, below, prefix)
            elif key.startswith(prefix):
                with contextlib.suppress(FileNotFoundError):
                    facts = entry.stat()
                    yield ObjectInfo(Key(key), facts.st_size, datetime.fromtimestamp(facts.st_mtime, UTC))

    def _sweep(self, before: float) -> int:
        if not self._temporary.is_dir():
            return 0
        removed = 0
        for entry in list(os.scandir(self._temporary)):
            with contextlib.suppress(FileNotFoundError):
                if entry.stat().st_mtime < before:
                    os.unlink(entry.path)
                    removed += 1
        return removed


class _Remote(Bucket):
    """A bucket behind any other fsspec file system; S3 above all."""

    def __init__(self, url: str, options: dict[str, Any]) -> None:
        super().__init__(url)
        self._files = Filesystem(url, options)
        self._region = options.get("client_kwargs", {}).get("region_name") or "us-east-1"

    async def ensure(self) -> None:
        if not self._files.is_s3:
            await self._do("created", "", "makedirs", self._files.root, exist_ok=True)
            return
        top = self._files.root.split("/")[0]
        if await self._do("found", "", "exists", top):
            return
        # s3fs's own mkdir names us-east-1 as a place, which S3 refuses: it is where a bucket lies when no place is named.
        place = (
            {"CreateBucketConfiguration": {"LocationConstraint": self._region}} if self._region != "us-east-1" else {}
        )
        await self._do("created", "", "call_s3", "create_bucket", Bucket=top, **place)

    async def write(self, key: Key, data: bytes) -> None:
        try:
            await self._files.call("pipe_file", self._path(key), data, mode="create")
        except FileExistsError:
            raise self._taken(key) from None
        except FileNotFoundError:
            raise self._nowhere(f"The object {key} cannot be written") from None
        except Exception as error:
            # A lost race shows as one of several errors; what is there now decides.
            if (
                isinstance(error, OSError)
                and not isinstance(error, PermissionError)
                and key in await self.exists([key])
            ):
                raise self._taken(key) from None
            raise self._refused("written", key, error) from error

    async def read(self, key: Key) -> bytes:
        try:
            return await self._files.read(key)
        except FileNotFoundError:
            await self._insist()
            raise self._missing(key) from None
        except Exception as error:
            raise self._refused("read", key, error) from error

    async def open_input(self, key: Key) -> pa.NativeFile:
        try:
            return pa.PythonFile(
                await asyncio.to_thread(self._files.fs.open, self._path(key), "rb", block_size=4 << 20), mode="r"
            )
        except FileNotFoundError:
            await self._insist()
            raise self._missing(key) from None
        except Exception as error:
            raise self._refused("read", key, error) from error

    async def exists(self, keys: Sequence[Key]) -> set[Key]:
        there: set[Key] = set()
        for start in range(0, len(keys), 4 * AT_ONCE):
            some = keys[start : start + 4 * AT_ONCE]
            found = await asyncio.gather(*map(self._is_there, some))
            there.update(key for key, is_there in zip(some, found, strict=True) if is_there)
        if keys and not there:
            await self._insist()
        return there

    async def _is_there(self, key: Key) -> bool:
        try:
            return (await self._files.call("info", self._path(key)))["type"] == "file"
        except FileNotFoundError:
            return False
        except Exception as error:
            raise self._refused("found", key, error) from error

    async def list(self, prefix: str = "") -> AsyncIterator[ObjectInfo]:
        def may_hold(folder: str) -> bool:
            return f"{folder}/".startswith(prefix) or prefix.startswith(f"{folder}/")

        try:
            async for page in self._files.pages(prefix.rpartition("/")[0], enters=may_hold):
                for entry in page:
                    if entry.path.startswith(prefix):
                        modified = entry.modified or datetime.now(UTC)  # not known: never old enough to be removed
                        yield ObjectInfo(Key(entry.path), entry.size or 0, modified)
        except FileNotFoundError:
            if self._files.is_s3:
                raise self._nowhere("Nothing can be listed") from None
            return
        except Exception as error:
            raise self._refused("listed", prefix, error) from error

    async def delete(self, keys: Sequence[Key]) -> None:
        there = await self.exists(keys)
        if there:
            await self._do("deleted", "", "rm", [self._path(key) for key in sorted(there)])

    async def close(self) -> None:
        await self._files.close()

    def _path(self, key: str) -> str:
        return self._files.path(key)

    async def _insist(self) -> None:
        """Where an object is not found: is its bucket there? Without it, nothing is lost but the address. Raises StorageError."""
        if self._files.is_s3:
            try:
                await self._files.is_there()
            except FileNotFoundError:
                raise self._nowhere("Nothing can be read") from None
            except Exception:
                return  # it may be read, and not be listed

    def _nowhere(self, what: str) -> StorageError:
        where = f" at {self._files.endpoint}" if self._files.endpoint else ""
        return StorageError(
            f"{what}: the bucket {self.url}{where} does not exist.",
            hint="Create it, or correct storage_url: `aipctl check` shows where it is set.",
        )

    async def _do(self, verb: str, key: str, name: str, *arguments: Any, **options: Any) -> Any:
        try:
            return await self._files.call(name, *arguments, **options)
        except FileNotFoundError:
            raise self._missing(key) from None
        except Exception as error:
            raise self._refused(verb, key, error) from error

    def _refused(self, verb: str, key: str, error: Exception) -> StorageError | ServiceError:
        what = f"The object {key} of the bucket {self.url}" if key else f"The bucket {self.url}"
        where = f" at {self._files.endpoint}" if self._files.endpoint else ""
        return ServiceError(
            f"{what} cannot be {verb}{where}: {type(error).__name__}: {error}.",
            hint="Is the object store running, and are its address and credentials right? `aipctl check` shows them.",
        )


def _link(temporary: Path, path: Path) -> None:
    try:
        os.link(temporary, path)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        # A file system without hard links: taking the name first still lets one writer win.
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
        os.replace(temporary, path)


def _make_directory(path: Path) -> None:
    if path.is_dir():
        return
    _make_directory(path.parent)
    with contextlib.suppress(FileExistsError):
        path.mkdir()
        _sync_directory(path.parent)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
