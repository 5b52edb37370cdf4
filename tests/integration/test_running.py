"""Running: from its lock to its last word, also where something that it needs goes away meanwhile."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from assetcore import running
from assetcore.cache import get_async_client
from assetcore.settings import Settings
from tests.integration.world import World

pytestmark = pytest.mark.integration

GATED = """
import asyncio
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
    monkeypatch.setattr(running, "LOCK_SECONDS", 0.6)
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
