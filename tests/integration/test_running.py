"""Running: from its lock to its last word, also where something that it needs goes away meanwhile."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from assetcore import running, stack
from assetcore.cache import get_async_client
from assetcore.lineage import runs
from assetcore.settings import EMBEDDED, Settings
from assetcore.storage import Key
from assetcore.storage.buckets import _Folder
from tests.integration.test_notify import Receiver
from tests.integration.world import World

pytestmark = pytest.mark.integration

GATED = """
import asyncio
from datetime import UTC, datetime
from pathlib import Path
ROOT = Path(__file__).parent.parent.parent

@asset
async def slow(topic: Topic = each(topics)) -> Report:
    (ROOT / "begun").touch()
    while not (ROOT / "open").exists():
        await asyncio.sleep(0.02)
    return Report(name=topic.name, text=topic.text.upper())
"""


async def there(file: Path) -> None:
    """Wait for a file."""
    async with asyncio.timeout(20):
        while not file.exists():
            await asyncio.sleep(0.02)


@pytest.fixture
def world(settings: Settings) -> World:
    world = World(settings)
    world.code(GATED)
    world.document("a.txt", "alpha")
    return world


async def test_a_run_that_has_lost_its_lock_says_so(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes on, because what it commits is compared, and tells that another may be at the same work."""
    monkeypatch.setattr(stack, "RUN_LEASE", 0.6)
    redis = get_async_client(str(world.settings.redis_url))
    try:
        async with asyncio.TaskGroup() as group:
            run = group.create_task(world.materialize())
            await there(world.root / "begun")
            (key,) = [key async for key in redis.scan_iter("assetcore:run:demo:prod")]
            await redis.set(key, "another")
            async with asyncio.timeout(5):
                while running.LOST not in [event.text for event in world.events]:
                    await asyncio.sleep(0.02)
            (world.root / "open").touch()
        assert run.result().status == "done"
        assert await redis.get(key) == b"another"
    finally:
        await redis.aclose()


async def test_a_run_whose_lock_holds_up_nobody_else_says_so(world: World) -> None:
    """The database is given and may be that of many machines, Redis is the embedded one: each run says what to set."""
    (world.root / "open").touch()
    world.settings = world.settings.using(EMBEDDED, redis_url=world.settings.redis_url)
    assert (await world.materialize()).status == "done"
    (told,) = [event.text for event in world.events if stack.APART in event.text]
    assert told.endswith("Set REDIS_URL to one that all of them use.")


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.server.shutdown()


async def test_a_store_that_is_full_is_told_and_answered(
    world: World, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What keeps a run from storing keeps it from writing its record: who is to be told is, and the answer says what failed."""
    world.settings = world.settings.using("test", webhook_url=f"{receiver.url}/hook")
    write, full = _Folder._write, False

    def refused(self: _Folder, key: Key, data: bytes) -> None:
        if full:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(self, key, data)

    monkeypatch.setattr(_Folder, "_write", refused)
    async with asyncio.TaskGroup() as group:
        run = group.create_task(world.materialize())
        await there(world.root / "begun")
        full = True
        (world.root / "open").touch()
    result = run.result()
    assert result.status == "failed"
    assert "No space left" in result.failures[0].error
    (hook,) = receiver.hooks()
    assert hook["run"] == result.run
    assert "What run" in world.events[-1].text
    assert "its record (" in world.events[-1].text

    full = False
    assert (await world.materialize()).status == "done"


async def test_a_run_whose_record_cannot_be_written_is_done(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """All is made and committed: the answer says so, and a message what was not written down."""
    write = _Folder._write

    def refused(self: _Folder, key: Key, data: bytes) -> None:
        if "_record-run-" in key:
            raise OSError(errno.EIO, "Input/output error")
        write(self, key, data)

    monkeypatch.setattr(_Folder, "_write", refused)
    (world.root / "open").touch()
    result = await world.materialize()
    assert result.status == "done"
    assert "Not written down: its record (" in world.events[-1].text
    async with world.open() as session:
        assert [run.status for run in await session.runs()] == ["done"]


async def test_a_run_that_was_killed_is_closed_also_where_nothing_is_to_do(world: World) -> None:
    """Its edit was taken back, or its last commit had come about: the next command lists it as died, unless the lock is held."""
    (world.root / "open").touch()
    await world.materialize()
    async with world.open() as session:
        project = session.project
        async with project.engine.begin() as connection:
            now = datetime.now(UTC)
            await runs.begin(connection, "killed", project.id, project.environment_id, "", {}, now)

        async def statuses() -> dict[str, str]:
            return {run.run: run.status for run in await session.runs()}

        async with running.alone(project, lambda _: None):
            assert (await world.materialize()).status == "nothing to do"
            assert (await statuses())["killed"] == "running"
        assert (await world.materialize()).status == "nothing to do"
        assert (await statuses())["killed"] == "died"
