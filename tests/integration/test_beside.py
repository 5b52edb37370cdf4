"""Verbs beside runs that are at work: what does one leave alone of what the other is about to commit?"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from assetcore import catalog
from assetcore.catalog import rebuild_catalog, verify_catalog
from assetcore.keep import Keeper
from assetcore.lineage import runs
from assetcore.lineage import tables as t
from assetcore.settings import Settings
from assetcore.storage import ObjectInfo, buckets
from assetcore.sweep import sweep_unknown
from tests.integration.world import World

pytestmark = pytest.mark.integration

CODE = """
    @asset
    async def upper(topic: Topic = each(topics)) -> Topic:
        return Topic(topic.name, text=topic.text.upper())
"""


@pytest.fixture
async def world(settings: Settings) -> World:
    """Two texts, of which all was made."""
    world = World(settings)
    world.code(CODE)
    for name in ("a", "b"):
        world.document(f"{name}.txt", f"text {name}")
    await world.materialize()
    return world


def at(world: World, environment: str) -> World:
    return World(world.settings.using("test", environment=environment))


class Gate:
    """Commits of runs wait before it, with their bytes and manifests written."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.reached, self.open = asyncio.Event(), asyncio.Event()
        real = Keeper._commit

        async def wait(keeper: Keeper, batches: Any) -> Any:
            self.reached.set()
            await self.open.wait()
            return await real(keeper, batches)

        patch.setattr(Keeper, "_commit", wait)


async def test_gc_leaves_what_a_run_elsewhere_has_not_committed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long it takes; what one that died has left is garbage, and it is listed as died."""
    gate = Gate(monkeypatch)
    world.document("c.txt", "new")
    running = asyncio.create_task(at(world, "big").materialize())
    await gate.reached.wait()
    async with world.open() as session:
        project = session.project
        assert not await sweep_unknown(project, dry_run=False, grace=timedelta(0))
        await session.gc(dry_run=False)
        assert [run.status for run in await session.runs() if run.environment == "big"] == ["running"]
        gate.open.set()
        assert (await running).status == "done"
    async with at(world, "big").open() as session:
        project = session.project
        assert not (await session.verify()).findings
        async with project.engine.begin() as connection:
            await runs.begin(connection, "0123456789", project.id, project.environment_id, "", {}, datetime.now(UTC))
    async with world.open() as session:
        await session.gc(dry_run=False)
        assert (await session.runs("0123456789"))[0].status == "died"


async def test_gc_leaves_what_was_committed_while_it_listed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look at a large bucket takes its time, in which others go on."""
    gate, real = Gate(monkeypatch), buckets._Folder.list
    world.document("c.txt", "new")
    running = asyncio.create_task(world.materialize())
    await gate.reached.wait()

    async def slowly(self: Any, prefix: str = "") -> AsyncIterator[ObjectInfo]:
        gate.open.set()
        await running
        async for info in real(self, prefix):
            yield info

    async with world.open() as session:
        with monkeypatch.context() as patch:
            patch.setattr(buckets._Folder, "list", slowly)
            assert not await sweep_unknown(session.project, dry_run=False, grace=timedelta(0))
        assert not (await session.verify()).findings


async def test_the_first_run_in_an_environment_waits_for_who_forgets(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who forgets waits for the runs of the environments that there are; another one begins afterwards, and takes nothing of it."""
    gate = Gate(monkeypatch)
    world.document("c.txt", "new")
    live, late = world, at(world, "late")
    running = asyncio.create_task(live.materialize())
    await gate.reached.wait()
    world.remove("a.txt")
    async with world.open() as session, world.open() as other:
        forgetting = asyncio.create_task(other.forget("topics[a.txt]", dry_run=False, on_event=world.events.append))
        async with asyncio.timeout(20):
            while len(await _held(other.project.settings)) < 3:  # the run's own, and two of who forgets
                await asyncio.sleep(0.01)
            beginning = asyncio.create_task(late.materialize())
            while all(event.kind != "waiting" for event in late.events):
                await asyncio.sleep(0.01)
        assert any(event.kind == "waiting" for event in world.events)
        assert [run.environment for run in await session.runs()] == [session.environment] * 2
        gate.open.set()
        assert (await running).status == "done"
        assert (await forgetting).report
        assert (await beginning).status == "done"
    assert {name for _, name in (await late.contents())["upper"]} == {"b.txt", "c.txt"}
    async with late.open() as session:
        assert not (await session.verify()).findings


async def test_environments_of_names_that_none_can_have_hold_nobody_up(world: World) -> None:
    """Once one could be called like a lock that is no run's: who waits for all of them does not wait for itself."""
    async with world.open() as session, asyncio.timeout(60):
        async with session.project.engine.begin() as connection:
            rows = [{"project_id": session.project.id, "name": name} for name in ("(gc)", "(forget)", "prod:fence")]
            await connection.execute(sa.insert(t.environment), rows)
        assert (await session.forget("topics[a.txt]")).documents
        await rebuild_catalog(world.settings, replace=True, automatic_schema=False, say=print)


async def test_a_rebuild_waits_for_runs_and_leaves_environments_what_they_are(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A session that was open before goes on in the same one, also in one in which nothing was made yet; what runs commit is kept."""
    async with at(world, "looked-at").open() as early, at(world, "pr").open() as pr:
        await pr.materialize(local=True, force=True)
        gate, said = Gate(monkeypatch), list[str]()
        world.document("a.txt", "edited")
        async with world.open() as live:
            running = asyncio.create_task(live.materialize(local=True))
            await gate.reached.wait()
            rebuilding = asyncio.create_task(
                rebuild_catalog(world.settings, replace=True, automatic_schema=False, say=said.append)
            )
            async with asyncio.timeout(20):
                while not said:
                    await asyncio.sleep(0.01)
            assert said == [f"Waiting for what is at work: demo ({live.environment})"]
            gate.open.set()
            assert (await running).status == "done"
            assert (await rebuilding).whole
            world.document("b.txt", "edited later")
            assert (await live.materialize(local=True)).status == "done"
        assert {one.content for one in await pr.show("upper")} == {b"TEXT A", b"TEXT B"}
        assert (await early.materialize(local=True)).status == "done"
    for environment in ("looked-at", live.environment):
        assert set((await at(world, environment).contents())["upper"].values()) == {b"EDITED", b"EDITED LATER"}
    assert (await verify_catalog(world.settings, say=said.append)).same


async def test_the_catalog_is_compared_beside_what_is_done_meanwhile(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large bucket takes minutes to read: a run that began before it ends, one comes and goes, an environment is created."""
    gate, real = Gate(monkeypatch), catalog._read
    world.document("c.txt", "new")
    running = asyncio.create_task(at(world, "late").materialize())
    await gate.reached.wait()

    async def slowly(*given: Any) -> Any:
        told = await real(*given)
        if not gate.open.is_set():
            gate.open.set()
            await running
            await world.materialize()
            async with world.open() as session:
                await session.create_environment("pr")
        return told

    monkeypatch.setattr(catalog, "_read", slowly)
    found = await verify_catalog(world.settings, say=lambda _: None)
    assert (found.same, found.unfinished) == (True, []), found.to_json()


async def _held(settings: Settings) -> list[str]:
    """The locks that are held."""
    from redis.asyncio import Redis

    client = Redis.from_url(str(settings.redis_url))
    keys = [key.decode() async for key in client.scan_iter("assetcore:run:*") if not key.endswith(b":fence")]
    await client.aclose()
    return keys
