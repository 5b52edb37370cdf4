"""Examine: are the bytes of an object what they were when they were written?

Where lineage has the hash of the whole object, that is all that is asked: one read, one hash, at the speed of the store. Only when it
differs, or where it is not known, is a pack opened and looked at row by row, so that one damaged row group costs the documents in it
and not those beside it.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from assetcore.errors import StorageError
from assetcore.storage.arrow import pa, pq
from assetcore.storage.buckets import Bucket, MissingObjectError
from assetcore.storage.keys import Key
from assetcore.storage.packs import ENCODED_BYTES, Footer, content_views, off_the_loop

__all__ = ["CORRUPT", "MISSING", "Examined", "Pace", "examine", "examined", "lost_whole"]

MISSING, CORRUPT = "object-missing", "corrupt"
WHOLE_BYTES = 16 << 20
"""A larger object is hashed in pieces of half this size; a pack is read whole only when it differs."""


@dataclass(frozen=True, slots=True)
class Examined:
    """An object with the documents that lie in it, by row and hash (row None: the object is the document)."""

    key: Key
    size: int
    sha256: bytes | None
    rows: Sequence[int | None]
    hashes: Sequence[bytes]


@dataclass(slots=True)
class Pace:
    """At most so many bytes a second, over all that wait for it; without a rate, as fast as it goes."""

    rate: float | None = None
    _due: float = field(default_factory=time.monotonic)

    async def __call__(self, size: int) -> None:
        """Wait until so many more bytes may be read."""
        if self.rate:
            now = time.monotonic()
            begin = max(self._due, now)
            self._due = begin + size / self.rate
            await asyncio.sleep(begin - now)


async def examine(bucket: Bucket, one: Examined, pace: Pace) -> dict[int, tuple[str, str]]:
    """What is wrong with which of an object's documents, by their place in `rows`: the cause, and a few words. Empty when all is well.

    Raises StorageError or ServiceError where the store cannot be read: then nothing is known.
    """
    try:
        if one.size > WHOLE_BYTES:
            found = await _hashed_in_pieces(bucket, one, pace)
            if found == one.sha256 or one.rows[0] is None:  # a document of its own may be larger than memory
                return _compared(found, one)
        await pace(one.size)
        data = await bucket.read(one.key)
    except MissingObjectError:
        return lost_whole(one)
    return await off_the_loop(len(data), examined, data, one, above=ENCODED_BYTES)


def lost_whole(one: Examined) -> dict[int, tuple[str, str]]:
    """What is said of an object that is not there."""
    return dict.fromkeys(range(len(one.rows)), (MISSING, "the object is gone"))


def examined(data: bytes, one: Examined) -> dict[int, tuple[str, str]]:
    """What `examine` says of an object that was read: these are all its bytes."""
    found = _hashed(data)
    if found == one.sha256 or one.rows[0] is None:
        return _compared(found, one)
    damaged = _damaged_rows(data, one)
    if one.sha256 is not None and not damaged:  # what tells the rows apart, such as the names of columns, is damaged
        damaged = dict.fromkeys(range(len(one.rows)), f"the pack hashes to {found.hex()[:16]}…")
    return {place: (CORRUPT, what) for place, what in damaged.items()}


def _compared(found: bytes, one: Examined) -> dict[int, tuple[str, str]]:
    """What the hash of the whole object says, where that is all there is to ask."""
    if found == one.sha256:
        return {}
    what = f"its bytes hash to {found.hex()[:16]}…"
    return {place: (CORRUPT, what) for place, known in enumerate(one.hashes) if known != found}


def _hashed(data: bytes | memoryview) -> bytes:
    return hashlib.sha256(data).digest()


async def _hashed_in_pieces(bucket: Bucket, one: Examined, pace: Pace) -> bytes:
    source = await bucket.open_input(one.key)
    whole = hashlib.sha256()
    with source:
        while True:
            await pace(WHOLE_BYTES // 2)
            try:
                piece = await asyncio.to_thread(source.read, WHOLE_BYTES // 2)
            except OSError as error:
                raise StorageError(
                    f"The object {one.key} of the bucket {bucket.url} cannot be read: {error}."
                ) from error
            if not piece:
                return whole.digest()
            await asyncio.to_thread(whole.update, piece)


def _damaged_rows(data: bytes, one: Examined) -> dict[int, str]:
    """The places of the documents whose rows cannot be read, or do not hash to what they did."""
    everything = range(len(one.rows))
    by_group: defaultdict[int, list[int]] = defaultdict(list)
    damaged: dict[int, str] = {}
    with pa.BufferReader(data) as source:
        try:
            file = pq.ParquetFile(source, page_checksum_verification=True)
            footer = Footer.of(file.metadata)
            for place, row in enumerate(one.rows):
                if (row or 0) < footer.starts[-1]:
                    by_group[footer.groups_of([row or 0], one.key, one.key)[0]].append(place)
                else:  # `forget` puts there what it could not read
                    damaged[place] = "the pack has no such row"
        except (pa.ArrowException, OSError, UnicodeDecodeError, StorageError):
            return dict.fromkeys(everything, "the pack cannot be opened")
        for group, places in by_group.items():
            try:
                table = file.read_row_group(group)  # with every column: each page has a checksum
                views = list(content_views(table.column("content")))
                hashes = {place: _hashed(views[(one.rows[place] or 0) - footer.starts[group]]) for place in places}
            except (pa.ArrowException, OSError, UnicodeDecodeError, KeyError, IndexError):
                damaged |= dict.fromkeys(places, "its part of the pack cannot be read")
                continue
            for place, found in hashes.items():
                if found != one.hashes[place]:
                    damaged[place] = f"its bytes hash to {found.hex()[:16]}…"
    return damaged
