"""Forgetting: nothing of a document that must go is left, and all the rest is as it was."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import httpx
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa

from assetcore.catalog import rebuild_catalog, verify_catalog
from assetcore.errors import NothingSelectedError, SelectionError
from assetcore.forget import delete_retired, verify_report
from assetcore.lineage import schema
from assetcore.lineage import tables as t
from assetcore.settings import Settings
from tests.integration.test_compaction import gc
from tests.integration.world import World

pytestmark = pytest.mark.integration

CODE = """
@asset
async def chunks(topic: Topic = each(topics)) -> list[Chunk]:
    return [Chunk(name=f"{topic.stem}-{i}", text=w, ordinal=i) for i, w in enumerate(topic.text.split())]

@asset
async def upper(chunk: Chunk = each(chunks)) -> Report:
    return Report(name=chunk.name, text=chunk.text.upper())

@asset
async def report(chunks: list[Chunk] = collect(chunks)) -> Report:
    return Report(name="report", text=" ".join(c.text for c in chunks))
"""
SUBJECT = ("alice", "secretwordone", "secretwordtwo", "SECRETWORD")


@pytest.fixture
async def world(settings: Settings) -> World:
    """Three documents; that of alice was edited once, and an environment was made from it."""
    world = World(settings)
    world.code(CODE)
    world.document("alice.txt", "the secretwordone of alice")
    world.document("bob.txt", "the text of bob")
    world.document("carol.txt", "the text of carol")
    await world.materialize()
    world.document("alice.txt", "the secretwordtwo")
    await world.materialize()
    async with world.open() as session:
        await session.create_environment("pr-17", "prod")
    world.remove("alice.txt")
    return world


def stored(settings: Settings) -> str:
    """All that lies in the bucket, as text."""
    texts: list[str] = []
    for path in Path(settings.storage_url.removeprefix("file://")).rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            texts.append(str(path))
            if path.suffix == ".parquet":
                table = pq.read_table(path)
                texts += [str(table.to_pylist()), str(table.schema.metadata)]
            texts.append((gzip.decompress(data) if path.suffix == ".gz" else data).decode(errors="replace"))
    return "\n".join(texts)


async def known(settings: Settings) -> str:
    """All that lies in Postgres, as text."""
    engine = schema.connect(str(settings.database_url))
    async with engine.connect() as connection:
        found = [str(row) for table in t.metadata.sorted_tables for row in await connection.execute(sa.select(table))]
    await engine.dispose()
    return "\n".join(found)


async def test_nothing_is_left_of_what_was_forgotten(world: World) -> None:
    """Neither in the bucket nor in Postgres, of no version and in no environment; the others are as they were, and are not made again."""
    before = await world.contents()
    async with world.open() as session:
        async with session.project.engine.begin() as connection:
            accepted = {"old_code": b"a", "new_code": b"b", "units": ["alice.txt", "bob.txt"], "actor": "somebody"}
            await connection.execute(
                sa.insert(t.acceptance).values(asset_id=session.project.asset_ids["chunks"], **accepted)
            )
        shown = await session.forget("topics[alice.txt]")
        assert shown.dry_run
        assert {name: units for name, units, _ in shown.assets} == {"topics": 1, "chunks": 1, "upper": 4, "report": 1}
        assert "secretwordone" in stored(world.settings)
        crashed = Path(world.settings.storage_url.removeprefix("file://")) / "demo/main/20261121T080000.000000Z/chunks"
        crashed.mkdir(parents=True)
        (crashed / "pack-00000099.parquet").write_bytes(b"secretwordone, in bytes that nobody knows")
        done = await session.forget("topics[alice.txt]", dry_run=False)
    assert (done.documents, done.objects) == (shown.documents, shown.objects)
    assert done.report is not None
    assert verify_report(done.report)
    assert not verify_report({**done.report, "report": {**done.report["report"], "documents": 0}})
    assert json.loads(Path(str(done.file)).read_text()) == done.report
    bucket, database = stored(world.settings), await known(world.settings)
    assert [word for word in SUBJECT if word in bucket] == []
    assert [word for word in SUBJECT if word in database] == []
    async with world.open() as session:
        checked = await session.check_journal()
        assert checked.problems == ()
        told = await session.journal("topics")
        assert [(line.names, line.forgotten) for line in told if line.names or line.forgotten] == [
            (("bob.txt", "carol.txt"), 1), ((), 1)
        ]  # fmt: skip
    assert await world.made() == {"report": {"made": 1}}
    after = await world.contents()
    assert after["report"]["report", "report"] == b"the text of bob the text of carol"
    for name in ("topics", "chunks", "upper"):
        assert after[name] == {key: value for key, value in before[name].items() if "alice" not in str(key)}


async def test_a_document_whose_history_was_given_up_is_forgotten(world: World) -> None:
    """What a retention has let go of has no bytes any more; all else of it goes."""
    assert (await gc(world)).let_go
    await gc(world)
    async with world.open() as session:
        done = await session.forget("topics[alice.txt]", dry_run=False)
        assert done.report is not None
        assert done.documents
    bucket, database = stored(world.settings), await known(world.settings)
    assert [word for word in SUBJECT if word in bucket] == []
    assert [word for word in SUBJECT if word in database] == []


@pytest.mark.parametrize("place", ["assetcore.forget.forgetting.erase", "assetcore.session.delete_retired"])
async def test_another_is_forgotten_after_one_that_was_killed(
    world: World, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """Records that the one had written or replaced do not stand in the way of the next, and bring nothing back."""

    begun = False

    async def dies(*arguments: Any) -> None:
        nonlocal begun
        if place.endswith("delete_retired") and not begun:  # which a forget also begins with
            begun = True
            return await delete_retired(*arguments)
        raise RuntimeError("the process ends here")

    async with world.open() as session:
        with monkeypatch.context() as patch:
            patch.setattr(place, dies)
            with pytest.raises(RuntimeError):
                await session.forget("topics[alice.txt]", dry_run=False)
        assert (await session.forget("topics[bob.txt]", dry_run=False)).documents
        world.remove("bob.txt")
        await session.forget("topics[alice.txt]", dry_run=False)
        assert (await session.check_journal()).problems == ()
    bucket, database = stored(world.settings), await known(world.settings)
    assert [word for word in (*SUBJECT, "bob") if word in bucket] == []
    assert [word for word in (*SUBJECT, "bob") if word in database] == []
    await rebuild_catalog(world.settings, replace=True, automatic_schema=False, say=print)
    assert (await verify_catalog(world.settings, say=print)).same
    async with world.open() as session:
        assert {name for line in await session.journal() for name in line.names} <= {"carol.txt"}


async def test_what_was_forgotten_does_not_come_back_from_the_bucket(world: World) -> None:
    """A database that is rebuilt afterwards says the same as before it was lost, and knows nothing of it either."""
    async with world.open() as session:
        await session.forget("topics[alice.txt]", dry_run=False)
    await world.materialize()
    found = await verify_catalog(world.settings, say=lambda _: None)
    assert [one for one in found.tables if not one.same] == []
    before = await world.contents()
    await rebuild_catalog(world.settings, replace=True, automatic_schema=False, say=lambda _: None)
    assert await world.contents() == before
    assert await world.plan() == {}
    assert [word for word in SUBJECT if word in await known(world.settings)] == []
    async with world.open() as session:
        with pytest.raises(SelectionError, match="never had"):
            await session.forget("topics[dave.txt]")
        with pytest.raises(SelectionError, match="does not name a document of a source"):
            await session.forget("chunks[alice.txt]")


async def test_tables_are_removed_from_the_prefect_of_this_home(world: World, prefect_api: str) -> None:
    """The embedded server is found without an address in the settings, as a question that needs no Prefect has none."""
    assert world.settings.prefect_api_url is None
    async with httpx.AsyncClient(base_url=prefect_api) as client:
        table = {"key": "demo-prod-result", "type": "table", "data": json.dumps([{"keys": "topics/alice.txt"}])}
        kept = (await client.post("/artifacts/", json=table)).raise_for_status().json()["id"]
        async with world.open() as session:
            done = await session.forget("topics[alice.txt]", dry_run=False)
        assert (await client.get(f"/artifacts/{kept}")).status_code == 404
    assert done.report is not None
    assert "not removed" not in done.report["report"]["prefect"]


async def test_a_tombstone_is_left(world: World, prefect_api: str) -> None:
    """Who asks for what was forgotten hears when, by whom and by which report, also in a database that was rebuilt; and Prefect's tables
    that named it are gone, or the report says that they are not."""
    world.settings = world.settings.using("test", prefect_api_url="http://127.0.0.1:9/api")
    async with world.open() as session:
        away = await session.forget("topics[alice.txt]", dry_run=False)
        assert away.report is not None
        assert "127.0.0.1:9" in away.report["report"]["prefect"]["not removed"]
    world.settings = world.settings.using("test", prefect_api_url=prefect_api)
    async with httpx.AsyncClient(base_url=prefect_api) as client:
        tables = {}
        for name in ("alice.txt", "malice.txt"):
            table = {"key": "demo-prod-result", "type": "table", "data": json.dumps([{"keys": f"topics/{name}"}])}
            tables[name] = (await client.post("/artifacts/", json=table)).raise_for_status().json()["id"]
        async with world.open() as session:
            again = await session.forget("topics[alice.txt]", dry_run=False)
        left = {name: (await client.get(f"/artifacts/{table}")).status_code for name, table in tables.items()}
    assert left == {"alice.txt": 404, "malice.txt": 200}
    assert again.tombstone is not None
    assert again.tombstone.file == Path(str(away.file)).name
    await rebuild_catalog(world.settings, replace=True, automatic_schema=False, say=lambda _: None)
    said = rf"was forgotten on \d{{4}}-.* by .*: see the report {again.tombstone.file}"
    async with world.open() as session:
        for ref in ("topics[alice.txt]", "chunks[alice.txt]/alice-1", "upper[alice-0]", "topics[alice.txt]@2020-01-01"):
            with pytest.raises(NothingSelectedError, match=said):
                await session.lineage(ref)
        for ask in (session.show, session.why, session.history):
            for ref in ("topics[alice.txt]", "chunks[alice.txt]"):
                with pytest.raises(NothingSelectedError, match=said):
                    await ask(ref)
        assert [line.row.facts["file"] for line in await session.journal() if line.row.what == "forget"] == [
            again.tombstone.file
        ]
        changes = (await session.history("chunks")).changes
        assert changes[0].run == "forget"
        assert all("@" in str(change.actor) for change in changes)
    assert [word for word in SUBJECT if word in await known(world.settings)] == []
