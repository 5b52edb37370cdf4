"""Promotions that do not come about: what is left of them, and what is said?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from assetcore import environments
from assetcore.catalog import rebuild_catalog, verify_catalog
from assetcore.errors import PromotionError, ServiceError, StorageError
from assetcore.lineage import tables as t
from assetcore.settings import Settings
from assetcore.storage import Key, buckets
from tests.integration.test_compaction import gc
from tests.integration.world import World

pytestmark = pytest.mark.integration

CODE = """
    @asset
    async def chunks(topic: Topic = each(topics)) -> list[Chunk]:
        return [Chunk(name=f"{topic.stem}-{i}", text=word, ordinal=i) for i, word in enumerate(topic.text.split())]
"""


@pytest.fixture
async def world(settings: Settings) -> World:
    """Prod, and an environment `pr` in which one of two topics was edited."""
    world = World(settings)
    world.code(CODE)
    for name in ("a", "b"):
        world.document(f"{name}.txt", f"{name} one")
    await world.materialize()
    async with world.open() as session:
        await session.create_environment("pr")
    world.document("a.txt", "a PROMOTED")
    await pr(world).materialize()
    return world


def pr(world: World) -> World:
    return World(world.settings.using("test", environment="pr"))


async def statuses(world: World) -> list[str]:
    async with world.open() as session:
        return [run.status for run in await session.runs() if run.selection == "promote pr"]


async def forget_runs(world: World, *, commits: bool) -> None:
    """As a database that never knew of promotions, or that was restored from a backup of the time before."""
    async with world.open() as session, session.project.engine.begin() as connection:
        promoted = sa.select(t.run.c.id).where(t.run.c.selection == "promote pr")
        if commits:
            await connection.execute(sa.delete(t.commit).where(t.commit.c.run_id.in_(promoted)))
        await connection.execute(sa.delete(t.run_asset).where(t.run_asset.c.run_id.in_(promoted)))
        await connection.execute(sa.delete(t.run).where(t.run.c.selection == "promote pr"))


async def dies(*_: object) -> None:
    raise OSError("The process is gone.")


def quiet(text: str) -> None:
    pass


@pytest.mark.parametrize("known", [True, False], ids=["a run that died", "of a run that no database knew"])
async def test_a_promotion_that_died_is_none(world: World, monkeypatch: pytest.MonkeyPatch, *, known: bool) -> None:
    """Nothing has moved, also where Postgres is made again of the bucket; what it wrote is garbage, and somebody can be forgotten."""
    before = await world.contents()
    with monkeypatch.context() as patch:
        patch.setattr(environments, "_commit", dies)
        patch.setattr(environments, "_give_up", dies)
        async with world.open() as session:
            with pytest.raises(OSError, match="gone"):
                await session.promote("pr", "prod")
    assert await statuses(world) == ["running"]
    if not known:
        await forget_runs(world, commits=False)
    assert (await verify_catalog(world.settings, say=quiet)).same
    assert (await gc(world, dry_run=True, keep=None)).objects == 2
    rebuilt = await rebuild_catalog(world.settings, replace=True, automatic_schema=False, say=quiet)
    assert len(rebuilt.undone) == 2
    assert rebuilt.whole
    assert await world.contents() == before

    async with world.open() as session:
        assert (await session.promote("pr", "prod")).run
        assert (await session.forget("topics[b.txt]", dry_run=False)).report
    assert (await gc(world, keep=None)).objects == 0
    assert {document: text for (_, document), text in (await world.contents())["chunks"].items()} == {
        "a-0": b"a", "a-1": b"PROMOTED",
    }  # fmt: skip
    assert (await verify_catalog(world.settings, say=quiet)).same


async def test_a_promotion_that_the_database_lost_is_no_garbage(world: World) -> None:
    """The journal in the bucket tells that it came about."""
    async with world.open() as session:
        await session.promote("pr", "prod")
    await forget_runs(world, commits=True)
    with pytest.raises(StorageError, match="lineage of 1 runs that the database does not know"):
        await gc(world)


async def test_a_store_that_fails_meanwhile_ends_the_promotion_alone(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is listed as failed, what it wrote is garbage, and the next one comes about."""
    real, written = buckets._Folder.write, list[Key]()

    async def write(self: Any, key: Key, data: bytes) -> None:
        written.append(key)
        if len(written) == 2:
            raise ServiceError("The store answers 503.")
        await real(self, key, data)

    async with world.open() as session:
        with monkeypatch.context() as patch:
            patch.setattr(buckets._Folder, "write", write)
            with pytest.raises(ServiceError, match="503"):
                await session.promote("pr", "prod")
        assert (await session.promote("pr", "prod")).run
    assert await statuses(world) == ["done", "failed"]
    assert (await gc(world, keep=None)).objects == 1
    assert (await verify_catalog(world.settings, say=quiet)).same


async def test_what_is_lost_is_not_promoted(world: World) -> None:
    """What a verification has found lost is named, with what helps; that leaves no run and nothing in the store."""
    store = Path(world.settings.storage_url.removeprefix("file://"))
    max(store.rglob("chunks/pack-*"), key=lambda path: path.stat().st_mtime_ns).unlink()
    async with pr(world).open() as session:
        assert (await session.verify()).findings
        there = sorted(store.rglob("*"))
        with pytest.raises(PromotionError, match=r"Documents of pr are lost or damaged: chunks\[a\.txt\]; ") as refused:
            await session.promote("pr", "prod")
        assert refused.value.hint == "Make them again: aipctl materialize --env pr"
        assert sorted(store.rglob("*")) == there
        assert await statuses(world) == []
        await session.materialize(local=True)
        assert (await session.promote("pr", "prod")).run
    assert await world.contents() == await pr(world).contents()
