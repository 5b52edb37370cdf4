"""Pools: limits that hold for all that share them, and that outlive nobody; what units say that they cost."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from assetcore import pools
from assetcore.cache import get_async_client
from assetcore.errors import ServiceError, SettingsError
from assetcore.pools import Pool
from assetcore.settings import PoolLimits, Settings
from tests.integration.command import SECONDS, Command, end
from tests.integration.world import World

pytestmark = pytest.mark.integration


@asynccontextmanager
async def pool(url: str, **limits: int) -> AsyncIterator[Pool]:
    """A pool as a process of its own would use it: with a connection of its own."""
    client = get_async_client(url)
    opened = Pool(client, "llm", PoolLimits(**limits))
    try:
        yield opened
    finally:
        await opened.close()
        await client.aclose()


@dataclass
class Calls:
    """Who called when, and how many at once."""

    order: list[str] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    now: int = 0
    most: int = 0

    async def one(self, through: Pool, name: str = "", seconds: float = 0.02) -> None:
        async with through.slot():
            self.order.append(name)
            self.times.append(time.monotonic())
            self.now += 1
            self.most = max(self.most, self.now)
            await asyncio.sleep(seconds)
            self.now -= 1


async def asked(through: Pool, count: int) -> None:
    """Wait until Redis has been asked for so many slots."""
    while int(await through.client.get("assetcore:pool:{llm}:last") or 0) < count:
        await asyncio.sleep(0.005)


async def test_a_limit_holds_for_all_together(redis_url: str) -> None:
    """Forty calls of two processes, three at a time: never more, and never less while there is something to do."""
    calls = Calls()
    async with pool(redis_url, concurrency=3) as one, pool(redis_url, concurrency=3) as other:
        started = time.monotonic()
        await asyncio.gather(*(calls.one(one if i % 2 else other) for i in range(40)))
        took = time.monotonic() - started
    assert (calls.most, len(calls.order)) == (3, 40)
    assert took < 2.5


async def test_slots_are_given_in_the_order_in_which_they_were_asked_for(redis_url: str) -> None:
    """Who asked first begins first, whichever process asks, and however busy another is."""
    calls = Calls()
    async with pool(redis_url, concurrency=1) as one, pool(redis_url, concurrency=1) as other:
        waiting = []
        for number in range(8):
            waiting.append(asyncio.create_task(calls.one(other if number in (2, 5) else one, str(number))))
            await asked(one, number + 1)
        await asyncio.gather(*waiting)
    assert calls.order == [str(number) for number in range(8)]


async def test_no_more_calls_begin_than_the_rate_allows(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of calls that could all begin at once, within any window so many begin; the next do as the first leave it."""
    monkeypatch.setattr(pools, "MINUTE", 0.5)
    calls, ask = Calls(), Pool._ask
    begun: list[tuple[float, float]] = []  # each between these two, by the clock of Redis

    async def timed(through: Pool) -> float:
        before, asked = set(through._held), time.monotonic()
        pause = await ask(through)
        begun.extend([(asked, time.monotonic())] * len(through._held - before))
        return pause

    monkeypatch.setattr(Pool, "_ask", timed)
    async with pool(redis_url, per_minute=5) as one, pool(redis_url, per_minute=5, concurrency=100) as other:
        await asyncio.gather(*(calls.one(one if i % 2 else other, seconds=0.0) for i in range(18)))
    begun.sort()
    assert len(begun) == 18
    for first in range(18 - 5):
        six = begun[first : first + 6]
        assert max(answered for _, answered in six) - six[0][0] > 0.4
    assert max(calls.times) - min(calls.times) < 4


HOLDER = """
import asyncio, sys, time
from assetcore import pools
from assetcore.cache import get_async_client
from assetcore.settings import PoolLimits

async def hold():
    pools.LEASE = 1.0
    pool = pools.Pool(get_async_client(sys.argv[1]), "llm", PoolLimits(concurrency=1))
    async with pool.slot():
        print("held", flush=True)
        HOLDS

asyncio.run(hold())
"""


@pytest.mark.parametrize("holds", ["await asyncio.sleep(60)", "time.sleep(60)"])
async def test_slots_of_a_process_that_died_are_free_again(redis_url: str, holds: str) -> None:
    """While its holder lives a slot stays taken, beyond its lease, also where a function blocks the holder's event loop; a holder that
    is killed loses it when the lease is over."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER.replace("HOLDS", holds), redis_url],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    calls = Calls()
    async with pool(redis_url, concurrency=1) as mine:
        try:
            assert holder.stdout is not None
            await asyncio.to_thread(holder.stdout.readline)
            waiting = asyncio.create_task(calls.one(mine))
            await asyncio.sleep(2.0)
            assert not calls.order
        finally:
            end(holder)
        await asyncio.wait_for(waiting, 5)
    assert calls.most == 1


async def test_who_waits_no_longer_holds_up_nobody(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that is cancelled while it waits, and a process that dies while it waits, are passed over."""
    monkeypatch.setattr(pools, "WAITING_LEASE", 0.5)
    calls = Calls()
    async with pool(redis_url, concurrency=1) as mine, pool(redis_url, concurrency=1) as dead:
        done = asyncio.Event()

        async def one() -> None:
            async with mine.slot():
                calls.order.append("first")
                await done.wait()

        first = asyncio.create_task(one())
        waiting: list[asyncio.Task[None]] = []
        for through, name in ((mine, "cancelled"), (dead, "lost"), (mine, "last")):
            await asked(mine, 1 + len(waiting))
            waiting.append(asyncio.create_task(calls.one(through, name)))
        cancelled, lost, last = waiting
        await asked(mine, 4)
        cancelled.cancel()
        dead._closed = True  # it asks no more, and gives nothing back
        done.set()
        await asyncio.wait_for(asyncio.gather(first, last), 5)
        lost.cancel()
        await asyncio.gather(cancelled, lost, return_exceptions=True)
    assert calls.order == ["first", "last"]


async def test_a_redis_that_is_not_there_is_told() -> None:
    """Without Redis no slot is given, and the error names its address."""
    async with pool("redis://127.0.0.1:1/0", concurrency=1) as nowhere:
        with pytest.raises(ServiceError, match=r"Redis at 127\.0\.0\.1:1 cannot be reached"):
            async with nowhere.slot():
                pass


# -- in a run ------------------------------------------------------------------------------------------------------------------


BODY = """
import asyncio, os, pathlib, time
from assetcore import spend

def begin(who):
    folder = pathlib.Path(FOLDER)
    (folder / who).touch()
    (folder / f"most-{len([f for f in folder.iterdir() if not f.name.startswith('most')])}").touch()

def leave(who):
    (pathlib.Path(FOLDER) / who).unlink()

@asset(pool="llm")
async def asked(topic: Topic = each(topics)) -> Topic:
    begin(f"asked-{topic.name}-{os.getppid()}-{os.getpid()}")
    await asyncio.sleep(0.1)
    leave(f"asked-{topic.name}-{os.getppid()}-{os.getpid()}")
    return topic

@asset(pool="llm")
def counted(topic: Topic = each(topics)) -> Topic:
    begin(f"counted-{topic.name}-{os.getppid()}-{os.getpid()}")
    time.sleep(0.1)
    leave(f"counted-{topic.name}-{os.getppid()}-{os.getpid()}")
    return topic
"""


@pytest.fixture
def world(settings: Settings) -> World:
    world = World(settings.using("test", pools={"llm": PoolLimits(concurrency=3)}, processes=2))
    for number in range(12):
        world.document(f"{number}.txt", f"text {number}")
    return world


async def test_a_limit_holds_across_assets_runs_and_processes(
    world: World, variables: dict[str, str], tmp_path: Any
) -> None:
    """Two runs in processes of their own, each with an async and a sync asset of one pool: three calls at once, and no more."""
    folder = tmp_path / "calls"
    folder.mkdir()
    world.code(BODY.replace("FOLDER", repr(str(folder))))
    given = {"ASSETCORE_POOLS": '{"llm": {"concurrency": 3}}', "ASSETCORE_PROCESSES": "2"}
    command = Command(world.root, {**variables, **given})
    running = [command.start("materialize", "--local", "--env", environment) for environment in ("one", "two")]
    try:
        for process in running:
            _, err = process.communicate(timeout=SECONDS)
            assert process.returncode == 0, err
    finally:
        for process in running:
            end(process)
    most = max(int(file.name.removeprefix("most-")) for file in folder.iterdir())
    assert most == 3


async def test_a_pool_nobody_has_given_limits_is_told(world: World) -> None:
    """An asset that names another pool is an error of the settings that names asset, pool and what to write; nothing runs."""
    world.code(BODY.replace('pool="llm"', 'pool="gpu"', 1).replace("FOLDER", "'x'"))
    with pytest.raises(
        SettingsError, match=r"asked \(.*assets.py:\d+\) asks for the pool 'gpu'.*have: llm.*\n.*gpu = "
    ):
        await world.materialize()
    async with world.open() as session:
        assert await session.runs() == []


SPENDING = """
from assetcore import spend

@asset(retries=1)
async def asked(topic: Topic = each(topics)) -> Topic:
    spend(tokens=100, usd=0.001)
    assert topic.text != "wrong", "wrong"
    return topic

@asset
def counted(topic: Topic = each(asked)) -> Topic:
    for _ in range(3):
        spend(tokens=1)
    return topic

@asset
def free(topic: Topic = each(asked)) -> Topic:
    return topic
"""


async def test_what_units_cost_is_kept_and_summed(world: World, variables: dict[str, str], monkeypatch: Any) -> None:
    """Each materialization has its cost, a run the sums for each asset; attempts that failed count, what is fresh costs nothing."""
    monkeypatch.setattr("assetcore.calls.BACKOFF_SECONDS", 0.001)
    world.code(SPENDING)
    world.document("0.txt", "wrong")
    result = await world.materialize()
    spent = {a.asset: (a.to_json().get("tokens"), a.to_json().get("usd")) for a in result.assets}
    assert spent == {"asked": (1300, 0.013), "counted": (33, 0.0), "free": (None, None)}
    assert sorted(await _spent(world)) == [(3, 0.0)] * 11 + [(100, 0.001)] * 11
    async with world.open() as session:
        (run,) = await session.runs(result.run)
    assert {a["asset"]: a["tokens"] for a in run.assets if "tokens" in a} == {"asked": 1300, "counted": 33}
    shown = Command(world.root, variables)("runs", str(result.run)).out
    assert "1,300" in shown
    assert "0.013 USD" in shown
    world.document("0.txt", "right")
    again = await world.materialize()
    assert {a.asset: a.tokens for a in again.assets} == {"asked": 100, "counted": 3, "free": 0}


async def _spent(world: World) -> list[tuple[int, float]]:
    import sqlalchemy as sa

    from assetcore.lineage import tables as t

    async with world.open() as session, session.project.engine.connect() as connection:
        rows = await connection.execute(
            sa.select(t.spent.c.tokens, t.spent.c.usd).join(
                t.head, t.head.c.materialization_id == t.spent.c.materialization_id
            )
        )
        return [(row.tokens, row.usd) for row in rows]


async def test_a_slow_call_holds_up_no_other_of_its_pool(world: World, tmp_path: Any) -> None:
    """While one of 60 calls goes on, 59 others are begun and ended beside it, in many commits: no batch waits for its slowest."""
    (ended := tmp_path / "ended").mkdir()
    world = World(world.settings.using("test", pools={"llm": PoolLimits(concurrency=6)}, batch_seconds=0.1))
    for number in range(60):
        world.document(f"{number}.txt", f"text {number}")
    code = """
        import asyncio, pathlib

        @asset(pool="llm", timeout=60)
        async def asked(topic: Topic = each(topics)) -> Topic:
            ended = pathlib.Path(ENDED)
            while topic.name == "0.txt" and len(list(ended.iterdir())) < 59:
                await asyncio.sleep(0.02)
            await asyncio.sleep(0.1)
            (ended / topic.name).touch()
            return topic
    """
    world.code(code.replace("ENDED", repr(str(ended))))
    result = await world.materialize()
    assert [(asked.made, asked.failed) for asked in result.assets] == [(60, 0)]
    assert len([e for e in world.events if e.kind == "progress" and e.asset == "asked"]) > 4
