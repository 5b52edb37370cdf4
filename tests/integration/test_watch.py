"""What units read that nothing declares is noticed by a run, and named from then on."""

from __future__ import annotations

import pytest

from assetcore.settings import Settings
from tests.integration.world import World

pytestmark = pytest.mark.integration

CODE = """
import importlib
from projects.demo.other import opened

@asset
async def chunks(topic: Topic = each(topics)) -> Chunk:
    return Chunk(topic.name, text=topic.text + opened("limit.txt"), ordinal=1)

@asset
def reports(chunk: Chunk = each(chunks)) -> Report:
    return Report(chunk.name, text=chunk.text + opened("limit.txt"))

@asset(version="1")
async def settled(topic: Topic = each(topics)) -> Report:
    return Report(topic.name, text=opened("limit.txt"))
"""
OTHER = """
from pathlib import Path
ROOT = Path(__file__).parents[2]
READ = "read_text"

def opened(name: str) -> str:
    return getattr(ROOT / name, READ)()
"""


@pytest.fixture
def world(settings: Settings) -> World:
    world = World(settings)
    world.document("a.txt", "alpha")
    world.document("b.txt", "beta")
    (world.root / "limit.txt").write_text("10")
    world.code(OTHER, head="", file="other.py")
    world.code(CODE)
    return world


async def test_what_a_unit_reads_undeclared_is_named_from_then_on(world: World) -> None:
    """In the plan and in `why`, of async and sync functions, with the line; not of an asset whose version answers for it."""
    await world.materialize()
    async with world.open() as session:
        notes = [note for note in (await session.plan()).notes if "limit.txt" in note["what"]]
        why = await session.why("reports[a.txt]")
    assert [(note["asset"], note["code"]) for note in notes] == [("chunks", "AC102"), ("reports", "AC102")]
    assert notes[0]["what"] == "the file limit.txt, which no input declares and a unit was seen to read"
    assert notes[0]["where"] == "projects/demo/other.py:7"
    assert [note["what"] for note in why.notes if "limit.txt" in note["what"]] == [notes[1]["what"]]


async def test_in_strict_mode_the_unit_fails(world: World) -> None:
    """With `strict`, what is read undeclared fails the unit, with the file and the remedy; nothing of it becomes current."""
    strict = World(world.settings.using("test", strict=True))
    result = await strict.materialize()
    assert [f.asset for f in result.failures] == ["chunks", "chunks"]
    assert result.failures[0].error.startswith(
        "reads the file limit.txt (AC102), which no input declares. Depend on it as a source"
    )
    plan = await strict.plan()
    assert plan["chunks"]["causes"] == {"failed": 2}
