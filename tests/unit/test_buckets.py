"""Buckets: an object is written once, whole or not at all."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import textwrap
import threading
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from assetcore.errors import ServiceError, SettingsError, StorageError
from assetcore.storage import Bucket, Key, MissingObjectError, ObjectExistsError, Reader, encode_pack
from assetcore.storage.packs import Location, Stored

A, B, C = Key("p/f/r/s/a"), Key("p/f/r/s/b"), Key("p/f/r2/s/c")


@pytest.fixture(params=["file", "memory"])
def bucket(request: pytest.FixtureRequest, tmp_path: Path) -> Bucket:
    return Bucket.open(
        f"file://{tmp_path}/a bucket #1" if request.param == "file" else f"memory://{uuid.uuid4()}/below"
    )


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user may enter."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        os.chmod(name, 0o755)
        yield Path(name)


async def keys(bucket: Bucket, prefix: str = "") -> list[str]:
    return [info.key async for info in bucket.list(prefix)]


def left(root: Path) -> list[str]:
    return [str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()]


async def test_what_is_written_is_read(bucket: Bucket) -> None:
    """Bytes come back, also none of them, and by ranges."""
    await bucket.ensure()
    await bucket.ensure()
    await bucket.write(A, b"0123456789")
    await bucket.write(B, b"")
    assert await bucket.read(A) == b"0123456789"
    assert await bucket.read(B) == b""
    with await bucket.open_input(A) as file:
        file.seek(3)
        assert file.read(4) == b"3456"
        assert file.size() == 10


async def test_a_key_is_written_once(bucket: Bucket) -> None:
    """Writing to a key that is taken is refused, whatever the bytes, and the first object stays."""
    await bucket.write(A, b"first")
    for data in (b"second", b"first"):
        with pytest.raises(
            ObjectExistsError, match=r"p/f/r/s/a is already in the bucket .*: objects are never overwritten"
        ):
            await bucket.write(A, data)
    assert await bucket.read(A) == b"first"


async def test_of_writers_at_once_one_wins(bucket: Bucket) -> None:
    """Of 16 writers of one key exactly one succeeds, and the object is that one's."""
    written = [str(i).encode() * 100_000 for i in range(16)]
    results = await asyncio.gather(*(bucket.write(A, data) for data in written), return_exceptions=True)
    winners = [data for data, result in zip(written, results, strict=True) if result is None]
    assert len(winners) == 1
    assert await bucket.read(A) == winners[0]
    assert all(result is None or isinstance(result, ObjectExistsError) for result in results)


async def test_a_missing_object_is_named(bucket: Bucket) -> None:
    """Reading what is not there names the key and the bucket."""
    with pytest.raises(MissingObjectError) as caught:
        await bucket.read(A)
    assert A in str(caught.value)
    assert bucket.url in str(caught.value)
    with pytest.raises(MissingObjectError):
        await bucket.open_input(A)
    await bucket.write(B, b"x")
    with pytest.raises(MissingObjectError):
        await bucket.read(A)


async def test_objects_are_listed_and_deleted(bucket: Bucket) -> None:
    """A listing takes any prefix of a key; deleting passes over what is not there."""
    assert await keys(bucket) == []
    for key in (C, A, B):
        await bucket.write(key, key.encode())
    assert await keys(bucket) == [A, B, C]
    assert await keys(bucket, "p/f/r/") == [A, B]
    assert await keys(bucket, "p/f/r") == [A, B, C]
    assert await keys(bucket, "p/f/r/s/b") == [B]
    assert await keys(bucket, "q/") == []
    async for info in bucket.list():
        assert info.size == len(info.key)
        assert abs(datetime.now(UTC) - info.modified) < timedelta(minutes=1)
    assert await bucket.exists([A, Key("p/f/r/s"), Key("p/f/r/s/x")]) == {A}
    await bucket.delete([A, C, Key("p/f/r/s/x")])
    assert await keys(bucket) == [B]
    assert await bucket.exists([A, B, C]) == {B}
    await bucket.close()


def test_one_bucket_serves_several_event_loops(bucket: Bucket) -> None:
    """Threads with loops of their own share a bucket."""

    def work(number: int) -> None:
        asyncio.run(bucket.write(Key(f"p/f/r/s/{number}"), b"x"))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(asyncio.run(keys(bucket))) == 8


async def test_deleting_leaves_no_empty_folders(tmp_path: Path) -> None:
    """A folder that lost its last object goes too; the bucket stays."""
    bucket = Bucket.open(f"file://{tmp_path}/bucket")
    await bucket.write(A, b"x")
    await bucket.write(C, b"x")
    await bucket.delete([A])
    assert [path.name for path in (tmp_path / "bucket/p/f").iterdir()] == ["r2"]
    await bucket.delete([C])
    assert (tmp_path / "bucket").is_dir()
    assert not (tmp_path / "bucket/p").exists()


@pytest.mark.parametrize("key", ["../outside", "a//b", "/etc/passwd", ".", "a/../b", "a\0b", ".tmp/x"])
async def test_a_key_never_leaves_the_bucket(tmp_path: Path, key: str) -> None:
    """A key that would lie elsewhere is refused, for reading and for writing."""
    bucket = Bucket.open(f"file://{tmp_path}/bucket")
    for call in (bucket.write(Key(key), b"x"), bucket.read(Key(key)), bucket.exists([Key(key)])):
        with pytest.raises(StorageError, match="is not a key"):
            await call
    assert left(tmp_path) == []


@pytest.mark.parametrize("url", ["", "data", "/data", "file://", "s3:///", "s3://"])
def test_what_is_no_address_is_refused(url: str) -> None:
    """The address of a bucket says how it is spoken to and where it is."""
    with pytest.raises(SettingsError, match="is not the address of a bucket"):
        Bucket.open(url)


def test_an_unknown_kind_of_bucket_is_refused() -> None:
    """A protocol that fsspec does not know is a setting of the wrong form."""
    with pytest.raises(SettingsError, match=r"carrier-pigeon[\s\S]*Write s3://bucket/prefix"):
        Bucket.open("carrier-pigeon://loft")


async def test_an_unreachable_store_is_a_service_that_is_down() -> None:
    """The sentence names the bucket, the endpoint and what to look at."""
    options = {
        "key": "k",
        "secret": "s",
        "endpoint_url": "http://127.0.0.1:9",
        "config_kwargs": {"retries": {"max_attempts": 0}},
    }
    bucket = Bucket.open("s3://bucket/prefix", options)
    for call in (bucket.read(A), bucket.write(A, b"x"), bucket.ensure(), keys(bucket), bucket.exists([A])):
        with pytest.raises(ServiceError, match=r"s3://bucket/prefix .* at http://127.0.0.1:9"):
            await call
    await bucket.close()


async def test_what_a_dead_writer_left_is_invisible_and_swept(tmp_path: Path) -> None:
    """A writer that died before its object had a name leaves nothing that is listed, and `sweep` removes it."""
    bucket = Bucket.open(f"file://{tmp_path}/bucket")
    assert await bucket.sweep(datetime.now(UTC)) == 0
    await bucket.write(A, b"x")
    (tmp_path / "bucket/.tmp/dead").write_bytes(b"half")
    assert await keys(bucket) == [A]
    assert await bucket.sweep(datetime.now(UTC) - timedelta(hours=1)) == 0
    assert await bucket.sweep(datetime.now(UTC) + timedelta(hours=1)) == 1
    assert left(tmp_path) == [f"bucket/{A}"]


def test_a_full_disk_is_a_sentence_and_leaves_nothing(tmp_path: Path) -> None:
    """When no space is left the write is refused with what to do, and no temporary file stays."""
    program = f"""
        import asyncio, resource
        from assetcore.errors import StorageError
        from assetcore.storage import Bucket, Key
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))   # a file system that takes 4 KiB and no more
        bucket = Bucket.open("file://{tmp_path}/bucket")
        asyncio.run(bucket.write(Key("p/f/r/s/small"), b"x" * 100))
        try:
            asyncio.run(bucket.write(Key("p/f/r/s/large"), b"x" * 100_000))
        except StorageError as error:
            print(error)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=60)
    assert "p/f/r/s/large could not be written: no space is left for the bucket" in done.stdout, done.stderr
    assert "Free some space" in done.stdout
    assert left(tmp_path) == ["bucket/p/f/r/s/small"]


async def test_a_folder_that_may_not_be_written_is_a_sentence(open_folder: Path) -> None:
    """A bucket in a folder of somebody else says so."""
    program = f"""
        import asyncio
        from assetcore.errors import StorageError
        from assetcore.storage import Bucket, Key
        import os
        if os.geteuid() == 0:
            os.setegid(65534), os.seteuid(65534)
        try:
            asyncio.run(Bucket.open("file://{open_folder}/bucket").write(Key("p/f/r/s/a"), b"x"))
        except StorageError as error:
            print(error)
    """
    os.chmod(open_folder, 0o555)
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=60)
    assert "cannot be written: Permission denied" in done.stdout, done.stderr


async def test_a_file_in_the_way_is_a_sentence(tmp_path: Path) -> None:
    """A bucket whose folder is a file says so."""
    (tmp_path / "bucket").write_text("I am a file")
    bucket = Bucket.open(f"file://{tmp_path}/bucket")
    with pytest.raises(StorageError, match="cannot be written: Not a directory"):
        await bucket.write(A, b"x")


async def test_large_objects_pass(tmp_path: Path) -> None:
    """An object of 200 MB is written and read."""
    bucket = Bucket.open(f"file://{tmp_path}/bucket")
    data = os.urandom(1 << 20) * 200
    await bucket.write(A, data)
    assert await bucket.read(A) == data


async def test_packs_are_read_from_any_bucket(bucket: Bucket) -> None:
    """The reader needs nothing of a bucket but ranges."""
    from assetcore.assets import Table

    document = Table(name="a", content=b"abc")
    await bucket.write(A, encode_pack([document]))
    stored = [Stored(Location(A, 0), "a", document.media_type, document.sha256, 3)]
    assert await Reader(bucket).documents(stored, Table) == [document]
