"""Compaction: history beyond its retention is let go, packs that are mostly superseded are put together anew, and nobody notices."""

from __future__ import annotations

from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any, Self

import pytest
import sqlalchemy as sa

from assetcore import compaction, verify
from assetcore.catalog import rebuild_catalog, verify_catalog
from assetcore.compaction import compact
from assetcore.errors import StorageError
from assetcore.lineage import read, retention
from assetcore.lineage import tables as t
from assetcore.lineage.damage import Damaged
from assetcore.lineage.retention import Used
from assetcore.lineage.schema import Connection
from assetcore.running import alone
from assetcore.session import Session
from assetcore.settings import Settings
from assetcore.sweep import Swept, sweep, sweep_unknown
from tests.integration.world import World

pytestmark = pytest.mark.integration

BODY = """
@asset
async def chunks(topic: Topic = each(topics)) -> list[Chunk]:
    return [Chunk(name=f"{topic.stem}-{i}", text=word, ordinal=i) for i, word in enumerate(topic.text.split())]

@asset
async def report(chunks: list[Chunk] = collect(chunks)) -> Report:
    return Report(name="report.txt", text=" ".join(f"{c.text}{c.ordinal}" for c in chunks))
"""
NOW, DAYS = timedelta(0), timedelta(days=30)


@pytest.fixture
def world(settings: Settings) -> World:
    world = World(settings)
    world.code(BODY)
    for number in range(10):
        world.document(f"t{number}.txt", f"alpha{number} alpha")
    return world


def packs(world: World, asset: str) -> set[str]:
    store = Path(world.settings.storage_url.removeprefix("file://"))
    return {str(path.relative_to(store)) for path in store.rglob(f"{asset}/pack-*")}


async def gc(world: World, *, dry_run: bool = False, keep: timedelta | None = NOW, grace: timedelta = NOW) -> Swept:
    async with world.open() as session:
        return await sweep(
            session.project, alone(session.project, lambda _: None), dry_run=dry_run, keep=keep, grace=grace
        )


async def edit(world: World, numbers: range, text: str) -> None:
    for number in numbers:
        world.document(f"t{number}.txt", f"{text}{number} {text}")
    await world.materialize()


class Ahead(datetime):
    """The clock of a machine that is two hours ahead."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> Self:
        return super().now(tz) + timedelta(hours=2)


async def test_packs_that_are_mostly_superseded_are_put_together(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is current reads as before, out of new packs; the old ones stay for who reads them, and go with a later gc."""
    await world.materialize()
    first = packs(world, "chunks")
    await edit(world, range(8), "gamma")
    before = await world.contents()
    assert (await gc(world, dry_run=True)).let_go > 0
    assert (await gc(world, keep=None)).to_json() | {"dry_run": False} == Swept(False, 0, 0, ()).to_json()
    assert await world.contents() == before
    done = await gc(world, grace=timedelta(hours=1))
    assert (done.compacted, done.replaced) == (2, 0)
    assert first < packs(world, "chunks")
    assert await world.contents() == before
    with monkeypatch.context() as patch:
        patch.setattr(compaction, "datetime", Ahead)
        assert (await gc(world, keep=None, grace=timedelta(hours=1))).replaced == 0, "an hour is one of the database's"
    done = await gc(world)
    assert (done.let_go, done.compacted, done.replaced) == (0, 0, 3)
    assert not first & packs(world, "chunks")
    assert await world.contents() == before
    assert await world.plan() == {}
    async with world.open() as session:
        assert not (await session.verify()).findings
        assert not (await gc(world)).objects
        told = [(line.row.what, line.row.facts) for line in await session.journal()]
        assert [facts["packs"] for what, facts in told if what == "compact"] == [1, 1, 1]
        assert [next(iter(facts)) for what, facts in told if what == "gc"] == ["let_go", "objects"]


async def test_of_two_compactions_at_once_the_later_one_moves_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One whose lock was lost finds the packs that it was about to put together done, and says so of none of them."""
    await world.materialize()
    await edit(world, range(8), "gamma")
    before, found = await world.contents(), list[list[Used]]()
    real = retention.used

    async def used_by_both(connection: Connection, project: int) -> list[Used]:
        found.append(await real(connection, project))
        return found[0]

    monkeypatch.setattr(retention, "used", used_by_both)
    async with world.open() as session:
        for _ in range(2):
            await compact(session.project, keep=NOW, dry_run=False, grace=timedelta(hours=1))
        told = [line.row.facts["packs"] for line in await session.journal() if line.row.what == "compact"]
    assert [len(one) for one in found] == [3, 0]
    assert told == [1, 1, 1]
    assert await world.contents() == before


async def test_what_was_let_go_is_made_anew_and_says_so_when_it_is_read(world: World) -> None:
    """An edit that is taken back executes again when what it had made is let go; without a retention it does not."""
    await world.materialize()
    await edit(world, range(10), "gamma")
    await edit(world, range(10), "alpha")
    await edit(world, range(10), "gamma")
    for number in range(10):
        world.document(f"t{number}.txt", f"alpha{number} alpha")
    async with world.open() as session:
        stored_before = await session.show("chunks[t1.txt]")
    assert (await gc(world)).let_go > 0
    await gc(world)
    made = await world.made()
    assert made["chunks"] == {"made": 10}
    assert stored_before[0].content == b"gamma1"
    await gc(world)
    async with world.open() as session:
        project = session.project
        async with project.engine.connect() as connection:
            gone = list((await connection.execute(t.damage.select())).all())
            with pytest.raises(StorageError, match="history is kept for"):
                await read.stored(connection, [gone[0].document_id])


async def test_what_another_environment_has_or_had_lately_is_kept(world: World) -> None:
    """Nothing goes that is current anywhere, was within the time that is kept, or that something current is made of."""
    await world.materialize()
    async with Session.open(world.settings, "demo", environment="pr") as other:
        await other.materialize(local=True)
    before = await world.contents()
    await edit(world, range(10), "gamma")
    assert (await gc(world)).let_go == 0
    await edit(world, range(10), "delta")
    assert (await gc(world, keep=timedelta(hours=1))).let_go == 0
    assert (await gc(world)).let_go == 10 + 20 + 1
    async with Session.open(world.settings, "demo", environment="pr") as other:
        found = {(d.unit, d.name): d.content for d in await other.show("chunks")}
    assert found == before["chunks"]


@pytest.mark.parametrize("how", ["dropped", "rebased"])
async def test_what_an_environment_had_until_lately_is_kept(world: World, how: str) -> None:
    """To drop an environment, or to take over what another has become, ends the use of what it had: from then on the time counts."""
    await world.materialize()
    async with world.open() as session:
        await session.create_environment("pr")
    if how == "dropped":  # it has what prod never had
        world.document("t0.txt", "omega omega")
        async with Session.open(world.settings, "demo", environment="pr") as other:
            await other.materialize(local=True)
        world.document("t0.txt", "alpha0 alpha")
    else:  # it still has what prod had once
        await edit(world, range(1), "gamma")
        await passed(world)
        await edit(world, range(1), "delta")
    await passed(world)
    async with world.open() as session:
        await (session.drop_environment("pr") if how == "dropped" else session.promote("pr", "prod", rebase=True))
    kept = await gc(world, dry_run=True, keep=DAYS)
    await passed(world)
    gone = await gc(world, dry_run=True, keep=DAYS)
    assert kept.let_go == (0 if how == "dropped" else 4), "what prod itself had forty days ago"
    assert gone.let_go > kept.let_go


async def passed(world: World) -> None:
    """All that was done was done forty days earlier."""
    async with world.open() as session, session.project.engine.begin() as connection:
        for table in (t.commit, t.journal):
            await connection.execute(sa.update(table).values(at=table.c.at - timedelta(days=40)))


async def test_a_crash_at_any_point_of_a_compaction_loses_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever was written before the transaction is garbage that the next gc removes; it then does what was left."""
    await world.materialize()
    await edit(world, range(9), "gamma")
    before = await world.contents()

    async def dies(*_: object) -> None:
        raise RuntimeError("the process ends here")

    for place in (
        "assetcore.compaction.records.encode",
        "assetcore.lineage.retention.compact",
        "assetcore.lineage.retention.note_compaction",
    ):
        with monkeypatch.context() as patch:
            patch.setattr(place, dies if "encode" not in place else (lambda _: 1 / 0))
            with pytest.raises((RuntimeError, ZeroDivisionError)):
                await gc(world)
        assert await world.contents() == before
        async with world.open() as session:
            assert not (await session.verify()).findings
        assert (await verify_catalog(world.settings, say=print)).same
    assert (await gc(world)).compacted == 2
    await gc(world)
    await gc(world)
    assert await world.contents() == before
    assert (await verify_catalog(world.settings, say=print)).same
    assert len(packs(world, "chunks")) == 2
    assert (await gc(world)) == Swept(False, 0, 0, ())
    await rebuild_catalog(world.settings, replace=True, automatic_schema=False, say=print)
    assert await world.contents() == before
    assert (await gc(world)) == Swept(False, 0, 0, ())


async def test_a_compaction_that_never_came_about_is_not_rebuilt(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its pack goes with the next gc, and its record stays: a database that is made of the bucket must not look for that pack."""
    await world.materialize()
    await edit(world, range(9), "gamma")
    before = await world.contents()

    async def dies(*_: object) -> None:
        raise RuntimeError("the process ends here")

    with monkeypatch.context() as patch:
        patch.setattr("assetcore.lineage.retention.compact", dies)
        with pytest.raises(RuntimeError):
            await gc(world)
    async with world.open() as session:
        await sweep_unknown(session.project, dry_run=False, grace=timedelta(0))
    await rebuild_catalog(world.settings, replace=True, automatic_schema=False, say=print)
    assert await world.contents() == before
    assert (await verify_catalog(world.settings, say=print)).same


async def test_a_rebuilt_catalog_knows_where_what_was_compacted_lies(world: World) -> None:
    """P20 after a compaction: the records beside the packs give the same lineage."""
    await world.materialize()
    await edit(world, range(9), "gamma")
    await gc(world)
    await gc(world)
    before = await world.contents()
    compared = await verify_catalog(world.settings, say=print)
    assert not [one for one in compared.tables if not one.same]
    await rebuild_catalog(world.settings, replace=True, automatic_schema=False, say=print)
    assert await world.contents() == before
    assert await world.plan() == {}


async def test_p17_an_asset_that_is_no_longer_declared_is_listed_until_gc_removes_it(world: World) -> None:
    """A plan and `ls` name it with its units; what it was stays history, as long as that is kept."""
    await world.materialize()
    world.code(BODY.partition("@asset\nasync def report")[0])
    async with world.open() as session:
        assert (await session.plan()).orphans == {"report": 1}
        assert [(i.asset, i.units) for i in await session.ls() if i.kind == "orphan"] == [("report", 1)]
    assert (await gc(world, keep=None)).orphans == ("report",)
    async with world.open() as session:
        assert (await session.plan()).orphans == {}
    assert (await gc(world)).let_go == 1


async def test_what_moves_while_it_is_verified_is_not_lost(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A verification takes hours, in which packs are put together and the old ones go; what is lost in the new ones is found there."""
    await world.materialize()
    await edit(world, range(9), "gamma")
    real = verify._examine

    async def slowly(*given: Any) -> list[Damaged]:
        with monkeypatch.context() as patch:
            patch.setattr(verify, "_examine", real)
            await gc(world)
            await gc(world)
            if rotten:
                for name in packs(world, "chunks"):
                    (Path(world.settings.storage_url.removeprefix("file://")) / name).write_bytes(b"rotten")
        return await real(*given)

    for rotten in (False, True):
        if rotten:
            await edit(world, range(9), "delta")
        async with world.open() as session:
            with monkeypatch.context() as patch:
                patch.setattr(verify, "_examine", slowly)
                findings = (await session.verify("chunks")).findings
            there = packs(world, "chunks")
            assert bool(findings) == rotten
            assert {one.key for one in findings} <= there
