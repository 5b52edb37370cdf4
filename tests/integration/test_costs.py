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


JUDGED = """
    from assetcore import check, spend

    @asset(concurrency=2)
    async def chunks(topic: Topic = each(topics)) -> Chunk:
        spend(usd=0.01, tokens=1, model="writer")
        return Chunk(name=topic.stem, text=topic.text{how}, ordinal=0)

    @check(chunks)
    {kind} judged(chunk: Chunk) -> bool:
        spend(usd=1.0, tokens=5, model="judge")
        return True
"""


@pytest.mark.parametrize("kind", ["async def", "def"])
async def test_what_checks_spend_on_a_unit_counts_for_the_limit_and_for_the_next_estimate(
    world: World, variables: dict[str, str], kind: str
) -> None:
    """A judge that costs more than what it judges stops a run as the unit itself does, and plans know of it."""
    world.code(JUDGED.format(how="", kind=kind))
    first = await world.materialize(max_cost="3.05usd")
    [done] = first.to_json()["assets"]
    assert (first.status, done["made"], done["usd"]) == ("stopped", 3, pytest.approx(3.03))
    world.code(JUDGED.format(how=".upper()", kind=kind))
    async with world.open() as session:
        plan = (await session.plan()).to_json()
    assert plan["estimate"]["usd"] == pytest.approx(8.08)
    again = await world.materialize(max_cost="3.05usd")
    [done] = again.to_json()["assets"]
    assert (again.status, done["made"]) == ("stopped", 3)
    cost = {r["asset"]: r["cost"] for r in Command(world.root, variables)("ls", "--cost", "--json").json["assets"]}
    assert cost["chunks"]["usd"] == pytest.approx(6.06)


GUARDED = """
    from assetcore import check, spend

    @asset
    async def chunks(topic: Topic = each(topics)) -> Chunk:
        spend(usd=0.5)
        return Chunk(name=topic.stem, text=topic.text{how}, ordinal=0)

    @check(chunks, blocking=True)
    def of_one_kind(chunks: list[Chunk]) -> bool:
        return len({{chunk.text.isupper() for chunk in chunks}}) == 1

    @asset
    async def report(chunks: list[Chunk] = collect(chunks)) -> Report:
        return Report(name="report", text=" ".join(c.text for c in chunks))
"""


async def test_of_a_run_that_its_limit_stopped_nothing_is_current_that_a_check_over_the_whole_has_not_seen(
    world: World,
) -> None:
    """Where a blocking check is over the whole asset, it is committed at once or not at all; the next run takes up what was made."""
    world.code(GUARDED.format(how=""))
    await world.materialize()
    before = await world.contents()
    world.code(GUARDED.format(how=".upper()"))
    stopped = await world.materialize(max_cost="1.60usd")
    assert stopped.status == "stopped"
    assert stopped.to_json()["left"] == {"chunks": 8, "report": 1}
    assert {a["asset"]: (a["made"], a["usd"]) for a in stopped.to_json()["assets"] if a["asset"] == "chunks"} == {
        "chunks": (0, 1.5)
    }
    assert not stopped.failures
    assert await world.contents() == before
    done = await world.materialize()
    assert done.status == "done"
    assert {a["asset"]: (a["made"], a["reused"]) for a in done.to_json()["assets"]} == {
        "chunks": (5, 3),
        "report": (1, 0),
    }
    assert (await world.contents())["report"]["report", "report"].isupper()
