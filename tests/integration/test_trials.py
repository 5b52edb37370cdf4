"""Trials: what does changed code make of some of the units, before it is paid for all of them?"""

from __future__ import annotations

import json

import pytest

from assetcore.errors import NothingSelectedError, UsageError
from assetcore.settings import Settings
from tests import readme
from tests.integration.command import Command
from tests.integration.world import World

pytestmark = pytest.mark.integration

CODE = """
    from assetcore import spend

    @asset
    async def chunks(topic: Topic = each(topics)) -> Chunk:
        spend(usd=0.5)
        return Chunk(name=topic.stem, text={how}, ordinal=0)

    @asset
    async def report(chunks: list[Chunk] = collect(chunks)) -> Report:
        return Report(name="report", text=" ".join(c.text for c in chunks))
"""
FIRST, SAME, OTHER = "topic.text", "str(topic.text)", 'topic.text.replace("7", "seven")'


@pytest.fixture
async def world(settings: Settings) -> World:
    world = World(settings)
    world.code(CODE.replace("{how}", FIRST))
    for n in range(10):
        world.document(f"{n}.txt", f"topic {n}")
    await world.materialize()
    return world


async def test_code_that_makes_the_same_is_accepted_and_that_is_told_for_ever(world: World) -> None:
    """Nothing is made again, also not what is below; why says by which units; what changes is made by the new code."""
    world.code(CODE.replace("{how}", SAME))
    world.document("0.txt", "not taken in yet")
    async with world.open() as session:
        [trial] = await session.sample(None, 20)
        assert (len(trial.units), trial.same, trial.rest) == (9, 9, 1)
    world.document("0.txt", "topic 0")
    async with world.open() as session:
        [trial] = await session.sample(None, 4)
        assert (trial.asset, len(trial.units), trial.same, trial.rest, trial.usd) == ("chunks", 4, 4, 6, 3.0)
        assert (await session.plan()).stale == 10
        said = (await session.accept("chunks", 4)).to_json()
    readme.hold("aipctl accept", said)
    assert said["fresh"] == 10
    assert (len(said["accepted"][0]["units"]), said["accepted"][0]["verified"]) == (4, True)
    assert await world.plan() == {}
    with pytest.raises(NothingSelectedError, match="nothing has changed since 'prod'"):
        await world.plan("changed:prod")
    assert await world.made() == {}
    async with world.open() as session:
        why = (await session.why("chunks[1.txt]")).to_json()
        assert (why["fresh"], why["accepted"][0]["units"]) == (True, said["accepted"][0]["units"])
        with pytest.raises(NothingSelectedError, match="No unit of chunks is stale by its code alone"):
            await session.accept("chunks", 4)
    world.document("1.txt", "topic one")
    assert await world.made() == {"chunks": {"made": 1, "usd": 0.5}, "report": {"made": 1}}
    async with world.open() as session:
        assert "accepted" not in (await session.why("chunks[1.txt]")).to_json()
        assert (await session.why("chunks[2.txt]")).accepted
    world.code(CODE.replace("{how}", FIRST))  # and back: the two count as one
    assert await world.plan() == {}
    with pytest.raises(NothingSelectedError, match="nothing has changed since 'prod'"):
        await world.plan("changed:prod")


async def test_code_that_makes_something_else_is_not_accepted_without_a_reason(
    world: World, variables: dict[str, str]
) -> None:
    """The command shows what differs and ends with 1; with `--unverified` a reason stands in the place of a trial."""
    world.code(CODE.replace("{how}", OTHER))
    aipctl = Command(world.root, variables)
    plan = aipctl("plan", "--sample", "10")
    assert "chunks[7.txt] comes out otherwise:" in plan.out
    assert "+topic seven" in plan.out
    assert "chunks: 9 of 10 sampled units came out unchanged." in plan.out
    refused = aipctl("accept", "chunks", "--sample", "10")
    assert (refused.code, "Not accepted" in refused.out) == (1, True)
    assert json.loads(aipctl("plan", "--json").out)["stale"] == 10
    async with world.open() as session:
        for count, unverified, why in ((None, False, None), (3, True, "so"), (None, True, " ")):
            with pytest.raises(UsageError):
                await session.accept("chunks", count, unverified=unverified, why=why)
    accepted = aipctl("accept", "chunks", "--unverified", "--why", "sevens do not matter")
    assert "Accepted without trying: sevens do not matter. 10 units of chunks" in " ".join(accepted.out.split())
    assert await world.plan() == {}
    told = " ".join(aipctl("why", "chunks[7.txt]").out.split())
    assert "chunks[7.txt] is fresh." in told
    assert "made with earlier code that counts as this" in told
    assert "unverified: sevens do not matter" in told
    assert "unverified: sevens do not matter" in " ".join(aipctl("lineage", "report").out.split())
