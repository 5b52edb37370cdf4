"""The store as an S3 server: chosen once, kept through every kind of violence, and as good as a folder for a project."""

from __future__ import annotations

import asyncio
import os
import re
import tempfile
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import httpx
import psutil
import pytest

from assetcore import stack
from assetcore.errors import ServiceError, StorageError, UsageError
from assetcore.layers import CONVENTIONAL
from assetcore.running import alone
from assetcore.settings import Settings
from assetcore.stack.home import Home
from assetcore.stack.process import alive
from assetcore.storage import Bucket, Key, ObjectExistsError
from assetcore.sweep import sweep
from tests import readme
from tests.integration.command import Command
from tests.integration.world import World
from tests.unit.test_buckets import (  # noqa: F401 - what is true of every bucket, here of the fixture `bucket` below
    test_a_key_is_written_once,
    test_a_missing_object_is_named,
    test_objects_are_listed_and_deleted,
    test_of_writers_at_once_one_wins,
    test_one_bucket_serves_several_event_loops,
    test_packs_are_read_from_any_bucket,
    test_what_is_written_is_read,
)

pytestmark = pytest.mark.integration

STORE = frozenset({"store"})
A = Key("p/f/r/s/a")


@pytest.fixture
async def bucket(s3_settings: Settings) -> AsyncIterator[Bucket]:
    opened = Bucket.open(s3_settings.storage_url, s3_settings.storage_options())
    yield opened
    await opened.close()


@pytest.fixture
async def own() -> AsyncIterator[Settings]:
    """Settings of a home of its own whose store is to be an S3 server; nothing runs yet."""
    with tempfile.TemporaryDirectory(prefix="assetcore-s3-") as folder:
        Path(folder).chmod(0o711)
        settings = Settings.load(Path(folder), home=Path(folder) / "home", s3=True)
        yield settings
        await stack.clean(settings)


# -- the server --------------------------------------------------------------------------------------------------------------------


async def test_what_was_chosen_once_is_used_from_then_on(own: Settings) -> None:
    """A later `up` without the choice starts the same server, and so does one with it."""
    first = await stack.up(own, STORE)
    assert first.storage_url == "s3://assetcore"
    later = Settings.load(own.root, home=own.home)
    assert await stack.up(later, STORE) == first
    assert (await store_status(later)).ok
    await stack.down(later)
    assert (await store_status(later)).problem == "it is not running"
    assert (await stack.up(later, STORE)).storage_url == first.storage_url


async def test_without_the_choice_the_store_is_a_folder(own: Settings) -> None:
    """`up` starts no server, and the address is that of a folder."""
    plain = Settings.load(own.root, home=own.home)
    assert (await stack.up(plain, STORE)).storage_url == f"file://{own.home}/store"
    assert not own.home.exists()


async def test_objects_survive_kill_and_restart(own: Settings) -> None:
    """What was written is there after kill -9, and after down and up, on the same port."""
    addresses = await stack.up(own, STORE)
    await write(addresses.applied_to(own), A, b"stays")
    process = psutil.Process(Home(own.home).services()["store"].pid)
    process.kill()
    process.wait()
    assert (await store_status(own)).problem == "it ended by itself"
    assert await stack.up(own, STORE) == addresses
    assert await read(addresses.applied_to(own), A) == b"stays"
    await stack.down(own)
    again = (await stack.up(own, STORE)).applied_to(own)
    assert await read(again, A) == b"stays"
    with pytest.raises(ObjectExistsError):
        await write(again, A, b"other")


async def test_a_lost_record_or_key_does_not_lead_to_a_second_server(own: Settings) -> None:
    """When services.json and secrets.json are gone, the server is found, replaced, and keeps what it has."""
    addresses = await stack.up(own, STORE)
    await write(addresses.applied_to(own), A, b"stays")
    before = Home(own.home).services()["store"]
    (own.home / "services.json").unlink()
    (own.home / "secrets.json").unlink()
    again = (await stack.up(own, STORE)).applied_to(own)
    assert not alive(before)
    assert again.storage_key != addresses.applied_to(own).storage_key
    assert await read(again, A) == b"stays"


async def test_only_who_has_the_key_gets_in_and_only_from_this_machine(s3_server: Settings) -> None:
    """Without our key nothing is told, changed or erased, and no path of the server's own is open; it listens on 127.0.0.1."""
    url, home = str(s3_server.storage_endpoint), Home(s3_server.home)
    await write(s3_server, Key("p/f/r/s/guarded"), b"x")
    wrong = {"authorization": "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request, Signature=0"}
    right = {"authorization": f"AWS4-HMAC-SHA256 Credential={home.secret('store')}/20260101/us-east-1/s3/aws4_request"}
    async with httpx.AsyncClient(trust_env=False) as client:
        for headers in ({}, wrong):
            for method, path in [
                ("GET", "/"),
                ("GET", "/assetcore/p/f/r/s/guarded"),
                ("DELETE", "/assetcore"),
                ("OPTIONS", "/"),
            ]:
                assert (await client.request(method, url + path, headers=headers)).status_code == 403
        for path in ("/_ministack/reset", "/_ministack/config", "/_localstack/health"):
            assert (await client.post(url + path, headers=right)).status_code == 403
    assert await read(s3_server, Key("p/f/r/s/guarded")) == b"x"
    process = psutil.Process(home.services()["store"].pid)
    assert {c.laddr.ip for c in process.net_connections() if c.status == "LISTEN"} == {"127.0.0.1"}
    assert home.secret("store") not in " ".join(process.cmdline())


async def test_a_wrong_key_is_told(s3_server: Settings) -> None:
    """`check` says that the store refuses access, and using it is an error that names the bucket."""
    wrong = s3_server.using("test", storage_key="wrong", storage_secret="wrong")
    (status,) = [status for status in await stack.check(wrong) if status.name == "store"]
    assert (status.ok, "refuses access" in status.problem) == (False, True)
    with pytest.raises(ServiceError, match="The object p/f/r/s/a of the bucket s3://assetcore"):
        await read(wrong, A)


async def test_a_wrong_bucket_is_told(s3_server: Settings) -> None:
    """`check` says that it is not there and which setting names it; so does whoever writes, reads or lists, and nobody creates it."""
    wrong = s3_server.using("test", storage_url="s3://no-such-bucket/prefix")
    (status,) = [status for status in await stack.check(wrong) if status.name == "store"]
    assert (status.ok, status.problem) == (False, "it does not exist")
    assert "storage_url" in status.remedy
    bucket = Bucket.open(wrong.storage_url, wrong.storage_options())
    with pytest.raises(StorageError, match=r"p/f/r/s/a cannot be written: the bucket s3://no-such-bucket/prefix"):
        await bucket.write(A, b"x")
    for question in (bucket.read(A), bucket.open_input(A), bucket.exists([A]), anext(aiter(bucket.list()))):
        with pytest.raises(StorageError, match=rf"prefix at {wrong.storage_endpoint} does not exist") as caught:
            await question
        assert type(caught.value) is StorageError  # and no object is said to be lost
        assert "correct storage_url" in str(caught.value.hint)
    await bucket.close()


async def test_a_store_with_documents_is_not_left_behind(own: Settings) -> None:
    """Neither a folder nor a server that holds documents is exchanged for the other: lineage points to what is in it."""
    kept = own.home / "store" / "p" / "document"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"x")
    with pytest.raises(UsageError, match=r"is a folder, and has documents in it"):
        await stack.up(own, STORE)
    kept.unlink()
    addresses = await stack.up(own, STORE)
    await write(addresses.applied_to(own), A, b"x")
    with pytest.raises(UsageError, match=r"is an S3 server, and has documents in it"):
        await stack.up(Settings.load(own.root, home=own.home, s3=False), STORE)


async def test_an_environment_that_cannot_be_made_is_told(own: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the packages of the server cannot be had, the error says so and what works without them."""
    monkeypatch.setenv("UV_OFFLINE", "1")
    monkeypatch.setenv("UV_CACHE_DIR", str(own.root / "empty"))
    with pytest.raises(
        ServiceError, match=r"the environment of the S3 server could not be made:(.|\n)*s3\.lock"
    ) as caught:
        await stack.up(own, STORE)
    assert "the store is a folder" in str(caught.value.hint)
    plain = Settings.load(own.root, home=own.home)
    assert (await stack.up(plain, STORE)).storage_url.startswith("file://")


# -- a project on it ---------------------------------------------------------------------------------------------------------------

BODY = """
@asset
async def chunks(topic: Topic = each(topics)) -> list[Chunk]:
    return [Chunk(f"{topic.stem}-{i}", text=word, ordinal=i) for i, word in enumerate(topic.text.split())]

@asset(layout="files")
async def upper(topic: Topic = each(topics)) -> Report:
    return Report(topic.name, text=topic.text.upper())

@asset
async def report(chunks: pl.LazyFrame = collect(chunks)) -> pl.DataFrame:
    return chunks.select("text", "ordinal").sort("text").collect()
"""


@pytest.fixture
def world(s3_settings: Settings) -> World:
    world = World(s3_settings)
    world.code(BODY)
    world.document("a.txt", "alpha beta")
    world.document("b.txt", "gamma delta")
    return world


async def test_a_project_lives_in_the_bucket(world: World, bucket: Bucket, tmp_path: Path) -> None:
    """Made, found fresh, edited, shown and exported: all of it as in a folder, and nothing of it beside the bucket."""
    assert await world.made() == {"chunks": {"made": 2}, "upper": {"made": 2}, "report": {"made": 1}}
    assert (await world.materialize()).status == "nothing to do"
    world.document("a.txt", "alpha omega")
    assert await world.made() == {"chunks": {"made": 1}, "upper": {"made": 1}, "report": {"made": 1}}
    contents = await world.contents()
    assert contents["upper"] == {("a.txt", "a.txt"): b"ALPHA OMEGA", ("b.txt", "b.txt"): b"GAMMA DELTA"}
    assert sorted(contents["chunks"].values()) == [b"alpha", b"delta", b"gamma", b"omega"]
    async with world.open() as session:
        await session.export("upper", tmp_path / "out")
        frame = (await session.scan("chunks")).select("text").collect()
    assert {path.read_text() for path in (tmp_path / "out").rglob("*.txt")} == {"ALPHA OMEGA", "GAMMA DELTA"}
    assert sorted(frame["text"]) == ["alpha", "delta", "gamma", "omega"]
    keys = [info.key async for info in bucket.list("demo/")]
    assert any(key.endswith(".parquet") and "/chunks/" in key for key in keys)
    assert list((world.settings.home / "store").rglob("*upper*")) == []


async def test_another_bucket_is_not_taken_for_a_loss(world: World) -> None:
    """With the address of a bucket that does not exist a run fails and says so; what lies in the right one is fresh as before."""
    await world.materialize()
    right, wrong = world.settings, world.settings.using("test", storage_url="s3://no-such-bucket/prefix")
    world.settings = wrong
    world.document("a.txt", "alpha omega")
    failed = await world.materialize()
    assert failed.status == "failed"
    assert re.search(r"no-such-bucket/prefix at .* does not exist", failed.failures[0].error)
    with pytest.raises(StorageError, match=r"no-such-bucket/prefix at .* does not exist"):
        async with world.open() as session:
            await session.verify()
    world.settings = right
    world.document("a.txt", "alpha beta")
    assert await world.plan() == {}


async def test_gc_removes_from_the_bucket_what_nobody_knows(world: World, bucket: Bucket) -> None:
    """An object of a run that died is found and removed, the others stay."""
    await world.materialize()
    before = {info.key async for info in bucket.list()}
    lost = Key("demo/main/20260101T000000.000000Z/chunks/pack-00000001.parquet")
    await bucket.write(lost, b"half a run")
    async with world.open() as session:
        swept = await sweep(
            session.project, alone(session.project, lambda _: None), dry_run=False, grace=-timedelta(minutes=1)
        )
    assert swept.objects == 1
    assert {info.key async for info in bucket.list()} == before
    assert len((await world.contents())["upper"]) == 2


async def test_damaged_bytes_are_noticed_when_they_are_read(world: World, s3_server: Settings) -> None:
    """Bytes that were changed in the bucket, past the API, are an error that names the object and both hashes."""
    await world.materialize()
    (damaged,) = [
        file for file in (s3_server.home / "s3" / "objects").rglob("a*.txt") if world.settings.storage_url[-12:] in str(file)
        and "/upper/" in str(file)
    ]  # fmt: skip
    damaged.write_bytes(b"ALPHA BETO")
    async with world.open() as session:
        with pytest.raises(StorageError, match=r"a\.txt.* hash to [0-9a-f]{64}; lineage says [0-9a-f]{64}"):
            await session.show("upper[a.txt]")
        assert (await session.show("upper[b.txt]"))[0].content == b"GAMMA DELTA"


async def test_two_projects_that_write_at_once_do_not_meet(world: World) -> None:
    """Runs side by side, in different environments, write keys of their own, and each comes out whole."""
    other = replace(world, settings=world.settings.using("test", environment="other"))
    await asyncio.gather(world.materialize(), other.materialize())
    assert await world.contents() == await other.contents()


def test_the_command_makes_a_project_on_s3(tmp_path: Path) -> None:
    """After `aipctl up --s3` every verb works with the server, `check` shows it, and `down` stops it."""
    tmp_path.chmod(0o711)
    ours = ("ASSETCORE_", "PREFECT_", *CONVENTIONAL)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    call = Command(tmp_path, inherited | {"ASSETCORE_HOME": str(tmp_path / "home")})
    try:
        assert call("new", "project", "notes").code == 0
        up = call("up", "--s3", "--json")
        assert up.code == 0, up.err
        made = call("materialize", "--local", "--json")
        assert (made.code, made.json["status"]) == (0, "done"), made.err
        assert not any((tmp_path / "home" / "store").iterdir())
        shown = {
            row["name"]: (row["value"], row["origin"]) for row in call("config", "show", "--json").json["settings"]
        }
        assert shown["storage_url"] == ("s3://assetcore", "aipctl up --s3")
        assert shown["s3"] == (True, "aipctl up --s3")
        checked = call("check", "--json").json
        readme.hold("aipctl check", checked)
        services = {service["name"]: service for service in checked["services"]}
        assert services["store"]["ok"]
        assert services["preloader"]["address"] == str(tmp_path / "home" / "preloader")
        assert services["store"]["address"].startswith("s3://assetcore at http://127.0.0.1:")
        assert {"store", "preloader"} <= set(call("down", "--json").json["stopped"])
        assert call("materialize", "--local", "--json").json["status"] == "nothing to do"
        refused = call("up", "--s3", variables={"ASSETCORE_STORAGE_URL": "file:///tmp/elsewhere"})
        assert (refused.code, "storage_url is file:///tmp/elsewhere" in refused.err) == (64, True)
    finally:
        call("clean", "--yes")


async def store_status(settings: Settings) -> stack.ServiceStatus:
    (status,) = [status for status in await stack.check(settings) if status.name == "store"]
    return status


async def write(settings: Settings, key: Key, data: bytes) -> None:
    bucket = Bucket.open(settings.storage_url, settings.storage_options())
    await bucket.write(key, data)
    await bucket.close()


async def read(settings: Settings, key: Key) -> bytes:
    bucket = Bucket.open(settings.storage_url, settings.storage_options())
    try:
        return await bucket.read(key)
    finally:
        await bucket.close()
