"""Costs: what did making take, what will it, and where does a run stop?"""

from __future__ import annotations

import pytest

from assetcore.settings import Settings
from tests.integration.command import Command
from tests.integration.world import World

pytestmark = pytest.mark.integration

CODE = """
    from assetcore import spend

    @asset
    async def chunks(topic: Topic = each(topics)) -> Chunk:
        spend(tokens=100 * len(topic.text), usd=0.5)
        return Chunk(name=topic.stem, text=topic.text{how}, ordinal=0)

    @asset
    async def report(chunks: list[Chunk] = collect(chunks)) -> Report:
        return Report(name="report", text=" ".join(c.text for c in chunks))
"""


@pytest.fixture
async def world(settings: Settings) -> World:
    world = World(settings)
    world.code(CODE.replace("{how}", ""))
    for n in range(8):
        world.document(f"{n}.txt", "x" * (n + 1))
    return world


async def test_a_run_stops_before_the_unit_that_would_exceed_its_limit(world: World, variables: dict[str, str]) -> None:
    """It says what is left, in its answer and by the exit code; the next run continues; plans then know what the rest costs."""
    stopped = await world.materialize(max_cost="1.60usd")
    assert stopped.status == "stopped"
    answer = stopped.to_json()
    assert {a["asset"]: (a["made"], a.get("left", 0)) for a in answer["assets"]} == {"chunks": (3, 5), "report": (0, 0)}
    assert answer["left"] == {"chunks": 5, "report": 1}
    async with world.open() as session:
        assert [run.status for run in await session.runs()] == ["stopped"]
        plan = (await session.plan()).to_json()
        assert plan["estimate"]["usd"] == 2.5
        assert plan["estimates"][0]["known"] == 3
        assert plan["estimates"][0]["usd"] == {"median": 2.5, "p90": 2.5, "pending": 0.0}

    aipctl = Command(world.root, variables)
    told = aipctl("materialize", "--local", "--max-cost", "$1", "--json")
    assert (told.code, told.json["left"]) == (2, {"chunks": 3, "report": 1})
    told = aipctl("materialize", "--local", "--max-cost", "10usd")
    assert (told.code, "is done" in told.out) == (0, True)
    assert aipctl("materialize", "--local", "--max-cost", "1.5").code == 64

    world.code(CODE.replace("{how}", ".upper()"))
    text = aipctl("plan").out
    assert "chunks: 4.00 USD (p90 4.00 USD), 3,600 tokens (p90 5,840), from 8 units" in " ".join(text.split())
    cost = {row["asset"]: row["cost"] for row in aipctl("ls", "--cost", "--json").json["assets"]}
    assert (cost["chunks"]["calls"], cost["chunks"]["tokens"], cost["chunks"]["usd"]) == (8, 3600, 4.0)
