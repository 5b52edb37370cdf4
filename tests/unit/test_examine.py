"""Examine: a damaged object is told by its hash, and of a pack only those documents whose bytes are lost."""

from __future__ import annotations

import asyncio
import hashlib
import io
import time
from dataclasses import replace

import pytest

from assetcore.documents import Document
from assetcore.errors import StorageError
from assetcore.storage import Bucket, Key, encode_pack
from assetcore.storage.arrow import pa, pq
from assetcore.storage.examine import CORRUPT, MISSING, Examined, Pace, examine
from assetcore.storage.packs import CorruptObjectError
from assetcore.storage.repack import Kept, repack


class Page(Document):
    number: int


PAGES = [Page(f"p{i}", text=f"{i} " * 300_000, number=i) for i in range(6)]
"""Several row groups: each holds about a mebibyte."""


@pytest.fixture
def bucket(tmp_path: object) -> Bucket:
    return Bucket.open(f"file://{tmp_path}")


async def put(bucket: Bucket, data: bytes, *, known: bytes | None) -> Examined:
    await bucket.write(Key("pack"), data)
    hashes = [page.sha256 for page in PAGES]
    sha256 = None if known is None else hashlib.sha256(known).digest()
    return Examined(Key("pack"), len(data), sha256, list(range(len(PAGES))), hashes)


@pytest.mark.parametrize("kept", [True, False])
async def test_a_pack_as_it_was_written(bucket: Bucket, *, kept: bool) -> None:
    """Nothing is wrong with it, whether its own hash was kept or not."""
    data = encode_pack(PAGES)
    assert await examine(bucket, await put(bucket, data, known=data if kept else None), Pace()) == {}


async def test_one_row_group_that_is_damaged_costs_its_own_documents(bucket: Bucket) -> None:
    """The documents beside it are as they were."""
    data = encode_pack(PAGES)
    place = len(data) // 2
    rotten = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
    found = await examine(bucket, await put(bucket, rotten, known=data), Pace())
    assert 0 < len(found) < len(PAGES)
    assert {cause for cause, _ in found.values()} == {CORRUPT}


async def test_rows_are_taken_out_of_a_damaged_pack(bucket: Bucket) -> None:
    """What can be read of it goes into a new one as it was; what cannot is refused."""
    data = encode_pack(PAGES)
    place = len(data) // 2
    rotten = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
    wrong = await examine(bucket, await put(bucket, rotten, known=data), Pace())
    rows = [row for row in range(len(PAGES)) if row not in wrong]
    ((new, _),) = repack([Kept(Key("pack"), rotten, rows, [PAGES[row].sha256 for row in rows])])
    expected = pq.read_table(pa.BufferReader(encode_pack([PAGES[row] for row in rows])))
    assert pq.read_table(pa.BufferReader(new)).equals(expected, check_metadata=True)
    with pytest.raises(CorruptObjectError):
        repack([Kept(Key("pack"), rotten, [*rows, *wrong], [PAGES[row].sha256 for row in (*rows, *wrong)])])


async def test_a_row_beyond_the_last_is_lost_alone(bucket: Bucket) -> None:
    """There a forget puts what it could not read; the rows that are there are right."""
    one = await put(bucket, encode_pack(PAGES), known=None)
    more = replace(one, rows=[*one.rows, len(PAGES), len(PAGES) + 1], hashes=[*one.hashes, bytes(32), bytes(32)])
    assert (await examine(bucket, more, Pace())).keys() == {len(PAGES), len(PAGES) + 1}


async def test_whatever_bit_is_flipped_in_the_footer(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer is that documents are lost, never an error: also where the footer still reads, and tells of other rows than there are."""
    monkeypatch.setattr("assetcore.storage.packs._GROUP_ROWS", 1)
    pages = [Page(f"p{i}", text=str(i), number=i) for i in range(2)]
    data = encode_pack(pages)
    begin = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    hashes = [page.sha256 for page in pages]
    for place in range(begin, len(data)):
        rotten = data[:place] + bytes([data[place] ^ 0x10]) + data[place + 1 :]
        key = Key(f"pack-{place}")
        await bucket.write(key, rotten)
        assert await examine(bucket, Examined(key, len(data), hashlib.sha256(data).digest(), [0, 1], hashes), Pace()), (
            place
        )


async def test_what_only_the_hash_of_the_whole_tells(bucket: Bucket) -> None:
    """A pack whose rows all read well, but whose column names were changed, is damaged in all its documents."""
    data = encode_pack(PAGES)
    found = await examine(bucket, await put(bucket, data.replace(b"number", b"numbes"), known=data), Pace())
    assert len(found) == len(PAGES)


async def test_an_object_that_is_gone_or_cut_off(bucket: Bucket) -> None:
    """Gone is one thing, cut off another."""
    data = encode_pack(PAGES)
    one = await put(bucket, data[: len(data) // 2], known=data)
    assert {cause for cause, _ in (await examine(bucket, one, Pace())).values()} == {CORRUPT}
    await bucket.delete([one.key])
    assert {cause for cause, _ in (await examine(bucket, one, Pace())).values()} == {MISSING}


class Failing(io.BytesIO):
    def read(self, *_: object) -> bytes:
        raise OSError("the connection is lost")


@pytest.fixture
def few_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every object is a large one."""
    monkeypatch.setattr("assetcore.storage.examine.WHOLE_BYTES", 64)


async def test_a_document_of_its_own_is_never_read_whole(
    few_bytes: None, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be larger than memory: its hash, made in pieces, says all there is to say. A large pack is opened when it differs."""
    sound, rotten = b"a" * 1000, b"a" * 999 + b"b"
    await bucket.write(Key("own"), rotten)
    pack = encode_pack(PAGES[:1])
    one = replace(await put(bucket, pack, known=None), rows=[0], hashes=[PAGES[0].sha256])
    assert await examine(bucket, one, Pace()) == {}
    monkeypatch.setattr(bucket, "read", None)
    for known, wrong in ((sound, {0}), (rotten, set[int]())):
        digest = hashlib.sha256(known).digest()
        found = await examine(bucket, Examined(Key("own"), 1000, digest, [None], [digest]), Pace())
        assert found.keys() == wrong


async def test_a_store_that_fails_in_between_says_nothing_of_the_bytes(
    few_bytes: None, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What could not be read is an error that names the object, and no damage."""
    one = await put(bucket, encode_pack(PAGES), known=None)

    async def opened(_: Key) -> pa.NativeFile:
        return pa.PythonFile(Failing(), mode="r")

    monkeypatch.setattr(bucket, "open_input", opened)
    with pytest.raises(StorageError, match=r"The object pack of the bucket .* cannot be read: the connection is lost"):
        await examine(bucket, one, Pace())


async def test_a_pace_is_kept_by_all_who_share_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """What begins is held back until what was read before is paid for, and no longer."""
    waited: list[float] = []
    now = 1000.0

    async def sleep(seconds: float) -> None:
        nonlocal now
        waited.append(seconds)
        now += seconds

    monkeypatch.setattr(asyncio, "sleep", sleep)
    monkeypatch.setattr(time, "monotonic", lambda: now)
    pace = Pace(1_000_000, now)
    for _ in range(4):
        await pace(50_000)
    assert waited == pytest.approx([0.0, 0.05, 0.05, 0.05])
