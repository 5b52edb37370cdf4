"""The catalog: an empty Postgres and the bucket give the same lineage again."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from assetcore.catalog import rebuild_catalog, verify_catalog
from assetcore.errors import PromotionError, UsageError
from assetcore.keep import Keeper
from assetcore.lineage import looks, rebuild, schema
from assetcore.lineage import tables as t
from assetcore.lineage.replay import TABLES
from assetcore.settings import Settings
from assetcore.storage import run_timestamp
from tests import readme
from tests.integration.world import World

pytestmark = pytest.mark.integration

CODE = """
@asset
async def chunks(topic: Topic = each(topics)) -> list[Chunk]:
    "Fails for a topic that says so."
    if "fail" in topic.text:
        raise ValueError("told to fail")
    return [Chunk(name=f"{topic.stem}-{i}", text=w, ordinal=i) for i, w in enumerate(topic.text.split())]

@asset
async def report(chunks: list[Chunk] = collect(chunks)) -> Report:
    return Report(name="report", text=" ".join(c.text for c in chunks))
"""


@pytest.fixture
async def world(settings: Settings) -> World:
    """A project with a history: an edit, a removal, an edit taken back, a unit that fails."""
    world = World(settings)
    world.code(CODE)
    for name in "abc":
        world.document(f"{name}.txt", f"the text of {name}")
        os.utime(
            world.root / "data" / f"{name}.txt", (1e9, 1e9)
        )  # of a file that is new at this moment, the time says nothing yet
    await world.materialize()
    world.document("a.txt", "another text")
    await world.materialize()
    world.document("a.txt", "the text of a")
    world.remove("b.txt")
    world.document("d.txt", "fail")
    await world.materialize()
    return world


def quiet(_: str) -> None:
    pass


async def test_nothing_is_the_same_as_nothing(settings: Settings) -> None:
    """Before the first run the bucket is empty, and so is Postgres: the comparison says so."""
    assert (await verify_catalog(settings, say=quiet)).same


async def emptied(settings: Settings) -> None:
    """What is left when Postgres was lost: the schema."""
    engine = schema.connect(str(settings.database_url))
    async with engine.begin() as connection:
        for table in rebuild.REBUILT:
            await connection.execute(sa.delete(table))
        await connection.execute(sa.select(sa.func.setval(t.block.name, 1)))
    await engine.dispose()


async def everything(settings: Settings) -> dict[str, Any]:
    """All rows of all tables that are facts."""
    engine = schema.connect(str(settings.database_url))
    found: dict[str, Any] = {}
    async with engine.connect() as connection:
        for table in (
            t.head,
            t.document,
            t.materialization,
            t.edge,
            t.typed,
            t.collected,
            t.object_,
            t.commit,
            t.part,
            t.run,
            t.run_asset,
            t.failure,
        ):
            rows = await connection.execute(sa.select(table))
            leave = {"definition_id", "environment_id", "project_id", "type_id"}
            found[table.name] = sorted(repr({k: v for k, v in row._mapping.items() if k not in leave}) for row in rows)
    await engine.dispose()
    return found


async def test_an_empty_database_and_the_bucket_give_the_same_lineage(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """Every fact comes back with its identifier: heads, history, causes, runs, failures, sources of code; and nothing is stale.

    Until then a plan, in which all is missing, says how.
    """
    before, plan = await everything(world.settings), await world.plan()
    async with world.open() as session:
        lineage = (await session.lineage("report")).to_json()
        why = (await session.why("chunks[d.txt]")).to_json()
    assert (await verify_catalog(world.settings, say=quiet)).same
    assert "catalog rebuild" not in caplog.text
    await emptied(world.settings)
    await world.plan()
    assert "holds what was made in demo: lineage is brought back" in caplog.text
    result = await rebuild_catalog(world.settings, replace=False, automatic_schema=False, say=quiet)
    caplog.clear()
    readme.hold("aipctl catalog rebuild", result.to_json())
    assert result.whole
    assert set(result.rows) == set(TABLES)
    assert await everything(world.settings) == before
    compared = await verify_catalog(world.settings, say=quiet)
    readme.hold("aipctl catalog verify", compared.to_json())
    assert compared.same
    assert await world.plan() == plan
    assert "catalog rebuild" not in caplog.text
    async with world.open() as session:
        assert (await session.lineage("report")).to_json() == lineage
        assert (await session.why("chunks[d.txt]")).to_json() == why
    world.document("d.txt", "mended")
    assert (await world.made())["chunks"] == {"made": 1}
    assert (await verify_catalog(world.settings, say=quiet)).same


async def test_what_was_seen_of_a_source_is_known_again(world: World) -> None:
    """A source's files need not be read again after a rebuild: how they looked when they were taken in is in the manifests."""
    engine = schema.connect(str(world.settings.database_url))
    async with world.open() as session:
        source = session.project.asset_ids["topics"]
    async with engine.connect() as connection:
        before = (await looks.observations(connection, [source]))[source]
    await rebuild_catalog(world.settings, replace=True, automatic_schema=False, say=quiet)
    async with engine.connect() as connection:
        after = (await looks.observations(connection, [source]))[source]
    await engine.dispose()
    assert after.filter(after["name"] == "c.txt").equals(before.filter(before["name"] == "c.txt"))


async def test_a_database_that_is_not_empty_is_refused(world: World) -> None:
    """What it holds is replaced only where that was said."""
    with pytest.raises(UsageError, match="not empty"):
        await rebuild_catalog(world.settings, replace=False, automatic_schema=False, say=quiet)


def manifests(settings: Settings, asset: str) -> list[Path]:
    return sorted(Path(settings.storage_url.removeprefix("file://")).glob(f"demo/main/*/{asset}/_manifest-*"))


async def test_a_missing_and_a_damaged_manifest_are_named_and_the_rest_is_rebuilt(world: World) -> None:
    """What hangs in the air is left out: a plan finds it missing, and it is made again."""
    first, *_, last = manifests(world.settings, "chunks")
    first.unlink()
    last.write_bytes(b"damaged")
    result = await rebuild_catalog(world.settings, replace=True, automatic_schema=False, say=quiet)
    assert not result.whole
    assert [int(first.stem.rpartition("-")[2])] == list(result.missing)
    assert [Path(key).name for key in result.damaged] == [last.name]
    assert (await world.plan())["chunks"]["stale"] > 0
    world.document("d.txt", "mended")
    await world.materialize()
    assert await world.plan() == {}
    assert (await world.contents())["report"]["report", "report"] == b"the text of a the text of c mended"


async def test_a_manifest_whose_commit_never_came_about_is_passed_over(world: World) -> None:
    """A crash before the transaction leaves a manifest; what was committed after it tells that it does not count."""
    engine = schema.connect(str(world.settings.database_url))
    world.document("c.txt", "edited")
    await world.materialize()
    last = manifests(world.settings, "chunks")[-1]
    number = int(last.stem.rpartition("-")[2])
    async with engine.begin() as connection:  # as if the process had died before Postgres was told
        await connection.execute(sa.delete(t.head).where(t.head.c.since_commit == number))
        await connection.execute(sa.update(t.head).where(t.head.c.until_commit == number).values(until_commit=None))
        made = sa.select(t.materialization.c.id).where(
            t.materialization.c.id >= number << 20, t.materialization.c.id < (number + 1) << 20
        )
        await connection.execute(sa.delete(t.edge).where(t.edge.c.materialization_id.in_(made)))
        await connection.execute(sa.delete(t.commit).where(t.commit.c.id == number))
        for table in (t.document, t.materialization, t.object_):
            await connection.execute(
                sa.delete(table).where(table.c.id >= number << 20, table.c.id < (number + 1) << 20)
            )
        await connection.execute(sa.update(t.watermark).values(settled=None))
    found = await verify_catalog(world.settings, say=quiet)
    assert number in found.unfinished
    world.document("c.txt", "edited again")
    await world.materialize()
    before = await everything(world.settings)
    result = await rebuild_catalog(world.settings, replace=True, automatic_schema=False, say=quiet)
    assert number in result.undone
    after = await everything(world.settings)
    assert {n: after[n] for n in ("head", "edge", "document")} == {n: before[n] for n in ("head", "edge", "document")}
    await engine.dispose()


OTHERWISE = """
import uuid

@asset
async def answers(topic: Topic = each(topics)) -> Topic:
    "What comes out otherwise each time, as what a model says does."
    return Topic(topic.name, text=uuid.uuid4().hex)
"""


@pytest.mark.parametrize("rebuilt", [1, 2], ids=["rebuilt once", "rebuilt twice"])
async def test_a_manifest_after_which_nothing_came_is_passed_over_where_the_journal_tells_that_its_run_is_over(
    world: World, monkeypatch: pytest.MonkeyPatch, rebuilt: int
) -> None:
    """A crash before the transaction, on units that nothing makes again: what was current before it is current after a rebuild."""
    world.code(CODE + OTHERWISE)
    await world.materialize()
    before = await world.contents()

    async def die(*given: Any) -> Any:
        raise OSError("The process is gone.")

    with monkeypatch.context() as patch:
        patch.setattr(Keeper, "_commit", die)
        with pytest.raises(OSError, match="gone"):
            await world.materialize("answers", force=True)
    number = int(manifests(world.settings, "answers")[-1].stem.rpartition("-")[2])
    world.document("e.txt", "the next run makes what is new alone, and its end takes the journal to the bucket")
    await world.materialize()
    now = await everything(world.settings)
    for _ in range(rebuilt):
        result = await rebuild_catalog(world.settings, replace=True, automatic_schema=False, say=quiet)
        assert number in result.undone
        assert result.whole
    after = await everything(world.settings)
    assert {n: after[n] for n in ("head", "edge", "document")} == {n: now[n] for n in ("head", "edge", "document")}
    kept = {
        document: content
        for document, content in (await world.contents())["answers"].items()
        if "e.txt" not in document
    }
    assert kept == before["answers"]
    assert (await verify_catalog(world.settings, say=quiet)).same


async def test_what_a_run_committed_of_which_the_journal_was_lost_is_kept(world: World) -> None:
    """Postgres is lost before a run could take its rows to the bucket: what its manifests tell has come about."""
    world.code(CODE + OTHERWISE)
    await world.materialize()
    made = (await world.contents())["answers"]
    max(Path(world.settings.storage_url.removeprefix("file://")).rglob("*-journal-*.json.gz")).unlink()
    result = await rebuild_catalog(world.settings, replace=True, automatic_schema=False, say=quiet)
    assert not result.undone
    assert (await world.contents())["answers"] == made


@pytest.mark.parametrize("stopped", ["before Postgres was told", "after Postgres was told"])
async def test_a_run_that_was_stopped_before_its_first_commit_makes_no_difference(world: World, stopped: str) -> None:
    """Definitions are written before anything is made with them: one with which nothing was made is none that is missed anywhere."""
    new = """
@asset
async def upper(topic: Topic = each(topics)) -> Topic:
    return Topic(topic.name, text=topic.text.upper())
"""
    world.code(CODE + new)
    async with world.open() as session:
        keeper = Keeper(session.project, "0123456789", run_timestamp(datetime.now(UTC)))
        await keeper.define([session.graph.assets["upper"]])
    if stopped == "before Postgres was told":
        engine = schema.connect(str(world.settings.database_url))
        async with engine.begin() as connection:
            latest = sa.select(sa.func.max(t.definition.c.id)).scalar_subquery()
            facts = (
                await connection.execute(sa.select(t.definition.c.facts).where(t.definition.c.id == latest))
            ).scalar_one()
            parts = [bytes.fromhex(digest) for digest in facts["code"]["detail"].values()]
            await connection.execute(sa.delete(t.definition).where(t.definition.c.id == latest))
            await connection.execute(sa.delete(t.part).where(t.part.c.digest.in_(parts)))
        await engine.dispose()
    assert (await verify_catalog(world.settings, say=quiet)).same
    await world.materialize()
    assert (await verify_catalog(world.settings, say=quiet)).same


async def test_a_definition_that_only_one_of_both_has_is_told(world: World) -> None:
    """Where something was made with it, or the bucket tells that it was: it is missed."""
    engine = schema.connect(str(world.settings.database_url))
    async with engine.begin() as connection:
        await connection.execute(sa.delete(t.part))
        latest = sa.select(sa.func.max(t.definition.c.id)).scalar_subquery()
        await connection.execute(
            sa.update(t.definition).where(t.definition.c.id == latest).values(facts={"code": {"digest": "00"}})
        )
    await engine.dispose()
    tables = {one.table: one for one in (await verify_catalog(world.settings, say=quiet)).tables}
    assert tables["definition"].only_postgres == 1
    assert tables["definition"].only_bucket > 1


async def borrowing(settings: Settings) -> dict[str, Any]:
    """All rows that tell what environments are, of what they borrow, and what was accepted."""
    engine = schema.connect(str(settings.database_url))
    found: dict[str, Any] = {}
    a, w = t.acceptance.c, t.watermark.c
    async with engine.connect() as connection:
        for name, statement in {
            "borrowed": sa.select(t.borrowed),
            "base": sa.select(t.environment.c.name, t.environment.c.base),
            "accepted": sa.select(a.asset_id, a.old_code, a.new_code, a.units, a.why, a.actor),
            "watermark": sa.select(w.environment_id, w.asset_id, w.changed_commit, w.last_commit),
            "asset": sa.select(t.asset.c.id, t.asset.c.name, t.asset.c.former),
        }.items():
            found[name] = sorted(repr(tuple(row)) for row in await connection.execute(statement))
    await engine.dispose()
    return found


async def test_environments_and_what_was_accepted_come_back(world: World) -> None:
    """What was borrowed, taken over, dropped, rebased and promoted is what it was, now and then; what was accepted counts; all of it
    is compared."""
    at = {name: World(world.settings.using("test", environment=name)) for name in ("pr", "other")}
    loud = CODE.replace("text=w,", "text=w.upper(),")
    async with world.open() as session:
        await session.create_environment("pr")
    world.code(loud)
    await at["pr"].materialize("chunks")  # its own chunks, prod's topics and report
    async with at["pr"].open() as session:
        await session.create_environment("other", "pr")
    world.code(CODE)
    world.document("d.txt", "mended")
    await world.materialize()
    world.code(loud)
    async with world.open() as session:
        with pytest.raises(PromotionError, match="stale by that"):
            await session.promote("pr", "prod", rebase=True)
    await at["pr"].materialize()
    async with world.open() as session:
        await session.promote("pr", "prod")
        await session.drop_environment("pr")
        await session.create_environment("unused")
        await session.drop_environment("unused")
        await session.create_environment("pr", "other")
    await at["pr"].materialize("chunks", force=True)
    renamed = CODE.replace("text=w,", "text=str(w).upper(),").replace("async def report", "async def summary")
    world.code(renamed.replace("@asset\nasync def summary", '@asset(renamed_from="report")\nasync def summary'))
    async with world.open() as session:
        assert (await session.accept("chunks", 2)).fresh == 3
    await world.materialize()
    compared = await verify_catalog(world.settings, say=quiet)
    assert compared.same, compared.to_json()
    before, lent = await everything(world.settings), await borrowing(world.settings)
    plans = {name: await one.plan() for name, one in [("prod", world), *at.items()]}
    async with at["pr"].open() as session:
        listed = await session.environments()

    await emptied(world.settings)
    assert not (await verify_catalog(world.settings, say=quiet)).same
    result = await rebuild_catalog(world.settings, replace=False, automatic_schema=False, say=quiet)
    assert result.whole, result.to_json()
    compared = await verify_catalog(world.settings, say=quiet)
    assert compared.same, compared.to_json()
    after = await everything(world.settings)
    assert {k: v for k, v in after.items() if k != "failure"} == {k: v for k, v in before.items() if k != "failure"}
    assert await borrowing(world.settings) == lent
    assert {name: await one.plan() for name, one in [("prod", world), *at.items()]} == plans
    async with at["pr"].open() as session:
        again = await session.environments()
    leave = ("created_at", "made_at", "units", "documents")
    assert [{k: v for k, v in e.items() if k not in leave} for e in again] == [
        {k: v for k, v in e.items() if k not in leave} for e in listed
    ]
