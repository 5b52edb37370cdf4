"""Under fire: processes are killed, run over each other, the store fails, the clock goes back. Nothing is lost, nothing is made twice.

In CI each is a handful; `make soak` does it for longer.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections import Counter
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from assetcore.session import Session
from assetcore.settings import Settings
from tests.integration.command import Command, end, lease_runs_out
from tests.integration.faults import Fault, proxy_of
from tests.integration.world import World

pytestmark = pytest.mark.integration

SOAK = "SOAK" in os.environ
KILLS = 200 if SOAK else 3
AT_ONCE = 8
ROUNDS = 30 if SOAK else 1

BODY = """
import asyncio
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent

def called(asset, unit):
    with open(ROOT / "calls.log", "a") as log:
        log.write(f"{asset} {unit}\\n")

@asset(concurrency=4)
async def chunks(topic: Topic = each(topics)) -> list[Chunk]:
    called("chunks", topic.name)
    await asyncio.sleep(0.02)
    return [Chunk(name=f"{topic.stem}-{i}", text=word, ordinal=i) for i, word in enumerate(topic.text.split())]

@asset(layout="files")
async def upper(topic: Topic = each(topics), words: list[Chunk] = collect(chunks, per=topics)) -> Report:
    called("upper", topic.name)
    return Report(name=topic.name, text=" ".join(w.text.upper() for w in words))

@asset
async def report(reports: list[Report] = collect(upper)) -> Report:
    called("report", "report")
    return Report(name="report.txt", text="\\n".join(r.text for r in reports))
"""


@pytest.fixture
def world(settings: Settings) -> World:
    return _world(settings, 40)


def _world(settings: Settings, topics: int) -> World:
    world = World(settings.using("test", batch_seconds=0.05))
    world.code(BODY)
    for number in range(topics):
        world.document(f"t{number:02}.txt", f"alpha{number} beta{number}")
    return world


def calls(world: World) -> Counter[str]:
    """What was called, and how often, since it was last asked."""
    log = world.root / "calls.log"
    found = Counter(log.read_text().splitlines() if log.exists() else [])
    log.write_text("")
    return found


async def test_killed_at_any_moment(world: World, variables: dict[str, str]) -> None:
    """After SIGKILL what lineage says is there, whatever was under way; the next run makes what is missing and nothing else."""
    aipctl = Command(world.root, variables | {"ASSETCORE_BATCH_SECONDS": "0.05"})
    chance = random.Random()
    for kill in range(KILLS):
        if kill % 4 == 3:
            for number in range(20):
                world.document(f"t{number:02}.txt", f"gamma{kill} delta{number}")
        process = aipctl.start("materialize", "--local")
        try:
            await asyncio.sleep(chance.uniform(0.8, 3.0))
            process.kill()
        finally:
            end(process)
        await lease_runs_out(world.settings)
        calls(world)
        async with world.open() as session:
            assert not (await session.verify()).findings
            plan = await session.plan()
        missing = {a.asset: a.stale + a.pending for a in plan.assets}
        assert all(a.units == a.fresh + missing[a.asset] for a in plan.assets), plan
    result = await world.materialize()
    again = calls(world)
    assert set(again.values()) <= {1}
    assert {a.asset: a.made for a in result.assets} == {
        asset: sum(1 for call in again if call.startswith(f"{asset} ")) for asset in ("chunks", "upper", "report")
    }
    contents = await world.contents()
    assert (len(contents["chunks"]), len(contents["upper"])) == (80, 40)
    assert contents["report"]["report", "report.txt"].count(b"\n") == 39
    assert await world.plan() == {}


async def test_many_runs_over_each_other(world: World) -> None:
    """Eight runs of overlapping selections at once: each unit is made once, and what there is then is what one run would give."""
    selections = ["chunks[t0*]", "chunks[t1*]", "chunks", "+upper", "+report", "chunks or upper", None, "+upper"]
    for round in range(ROUNDS):
        for number in range(40):
            world.document(f"t{number:02}.txt", f"alpha{number} beta{round}")
        await asyncio.gather(*(world.materialize(select, upstream=True) for select in selections[:AT_ONCE]))
        assert set(calls(world).values()) == {1}
        assert (await world.materialize()).status == "nothing to do"
    async with Session.open(world.settings, "demo", environment="alone") as alone:
        await alone.materialize(local=True, force=True)
        other = {(d.unit, d.name): d.content for d in await alone.show("report")}
    assert (await world.contents())["report"] == other


FAULTS: dict[str, tuple[Fault, ...]] = {
    "PUT": ("500", "lost", "503", "slow"),
    "GET": ("truncated", "500", "lost", "slow"),
}


async def test_a_store_that_fails_now_and_then(s3_settings: Settings) -> None:
    """Answers that say 500 or 503, come late, end in the middle or never come: a run gets over it, and writes nothing twice."""
    async with proxy_of(str(s3_settings.storage_endpoint)) as proxy:
        world = _world(s3_settings.using("test", storage_endpoint=proxy.url), 4)
        for round, (method, faults) in enumerate(list(FAULTS.items()) * ROUNDS):
            world.document("t00.txt", f"alpha round{round}")
            proxy.strike(method, *faults)
            started = time.monotonic()
            result = await world.materialize()
            assert result.status == "done", (method, result.failures)
            assert time.monotonic() - started < 60
        async with world.open() as session:
            assert not (await session.verify()).findings
            (document,) = await session.show("upper[t00.txt]")
            assert document.content == f"ALPHA ROUND{round}".encode()
            assert (await session.plan()).up_to_date
        assert not proxy.waiting


async def test_a_clock_that_goes_back(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that begins an hour before the one that it follows is one like any other."""

    class Earlier(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:  # type: ignore[override]  # as it is called here
            return datetime.now(tz) - timedelta(hours=1)  # type: ignore[arg-type]

    await world.materialize()
    calls(world)
    with monkeypatch.context() as patch:
        for room in ("session", "execution", "lineage.commit", "lineage.runs"):
            patch.setattr(f"assetcore.{room}.datetime", Earlier)
        world.document("t00.txt", "the clock went back")
        assert await world.made() == {"chunks": {"made": 1}, "upper": {"made": 1}, "report": {"made": 1}}
        assert await world.plan() == {}
    assert await world.plan() == {}
    assert b"THE CLOCK WENT BACK" in (await world.contents())["report"]["report", "report.txt"]
    world.document("t01.txt", "and forth")
    assert await world.made() == {"chunks": {"made": 1}, "upper": {"made": 1}, "report": {"made": 1}}


async def test_content_that_is_made_to_hurt(world: World) -> None:
    """JSON ten thousand deep fails its own unit with a sentence, or passes through untouched; nothing hangs, and the rest is made."""
    world.code("""
        import json

        @asset
        async def parsed(topic: Topic = each(topics)) -> Report:
            return Report(topic.name, data=json.loads(topic.text) if topic.text[0] in "[{" else {"text": topic.text})

        @asset
        async def passed(topic: Topic = each(topics)) -> Report:
            return Report(topic.name, content=topic.content, media_type="application/json")

        @asset
        async def everything(passed: pl.DataFrame = collect(passed)) -> pl.DataFrame:
            return passed.select("name", "text")
    """)
    world.document("deep.txt", "[" * 10_000 + "]" * 10_000)
    world.document("wide.txt", '{"a": ' * 5_000 + "1" + "}" * 5_000)
    result = await world.materialize()
    assert {f.unit for f in result.failures} <= {"deep.txt", "wide.txt"}
    assert all("RecursionError" in f.error or "recursion" in f.error for f in result.failures)
    done = {a.asset: a.made for a in result.assets}
    assert (done["passed"], done["everything"]) == (42, 1)
    assert (
        Path(world.root / "data" / "deep.txt").read_bytes()
        == (await world.contents())["passed"]["deep.txt", "deep.txt"]
    )
