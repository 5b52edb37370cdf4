"""Opening: what Python says of a project, where an event loop runs and where none does, and what it refuses as the command does."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from assetcore import NothingSelectedError, UsageError, open_project, scan
from assetcore.settings import Settings
from tests.integration.world import CHUNKED, World

pytestmark = pytest.mark.integration


@pytest.fixture
def world(settings: Settings) -> World:
    world = World(settings)
    world.code(CHUNKED)
    world.document("a.txt", "one two")
    return world


@pytest.fixture
def given(settings: Settings) -> dict[str, Any]:
    """The settings of this test, as arguments."""
    return {
        "root": settings.root, "database_url": settings.database_url, "redis_url": settings.redis_url, "storage_url": settings.storage_url,
        "prefect_api_url": "http://127.0.0.1:9/api",
    }  # fmt: skip


async def test_an_asset_is_scanned_where_a_loop_runs_and_where_none_does(world: World, given: dict[str, Any]) -> None:
    """A notebook's cell is on an event loop, a script is not: both read the same; what is not there is told as the command tells it."""
    await world.materialize()
    here = scan("chunks", project="demo", **given)
    elsewhere = await asyncio.to_thread(scan, "chunks", **given)
    assert here.select("name", "text", "ordinal").collect().rows() == [("a-0", "one", 0), ("a-1", "two", 1)]
    assert elsewhere.collect().equals(here.collect())
    with pytest.raises(NothingSelectedError, match=r"demo has no asset or source 'chunk'\.\n  It has: .*chunks"):
        scan("chunk", **given)
    with pytest.raises(NothingSelectedError, match="There is no environment 'prd'; there are: prod"):
        scan("chunks", environment="prd", **given)


async def test_an_environment_that_is_not_there_is_begun_by_what_makes_and_refused_by_what_asks(
    world: World, given: dict[str, Any]
) -> None:
    """Everything would be missing in it: a plan, a cause and an export of that are no answers."""
    await world.materialize()
    async with open_project(environment="pr-9", **given) as session:
        for asked in (
            session.plan(),
            session.ls(),
            session.why("clean[a.txt]"),
            session.export(None, world.root / "out"),
        ):
            with pytest.raises(NothingSelectedError, match="There is no environment 'pr-9'; there are: prod"):
                await asked
        assert (await session.materialize(local=True)).status == "done"
        assert (await session.plan()).up_to_date
    async with open_project(environment="pr-9", **given) as session:
        assert (await session.plan()).up_to_date


async def test_arguments_that_say_nothing_are_refused(world: World, given: dict[str, Any]) -> None:
    """A direction that is none, no change at all; a folder may be a text."""
    await world.materialize()
    async with open_project(**given) as session:
        with pytest.raises(UsageError, match=r"Lineage goes 'up' or 'down', not 'sideways'\."):
            await session.lineage("chunks", direction="sideways")
        with pytest.raises(UsageError, match=r"found limit=0"):
            await session.history("chunks", limit=0)
        await session.export("chunks", str(world.root / "out"))
    assert sorted(path.name for path in Path(world.root / "out").rglob("a-*")) == ["a-0", "a-1"]
