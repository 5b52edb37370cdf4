"""Promises that are easily broken in passing: each of these was broken once."""

from __future__ import annotations

import asyncio
import itertools
import os
import unicodedata
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from assetcore import environments
from assetcore.errors import NothingSelectedError, StaleInputError, StorageError
from assetcore.explain import Lineage
from assetcore.lineage import read
from assetcore.lineage import tables as t
from assetcore.running import alone
from assetcore.session import Session
from assetcore.settings import Settings
from assetcore.storage import Key, buckets
from assetcore.sweep import sweep
from tests.integration.world import World, let_go_on

pytestmark = pytest.mark.integration

BODY = """
@asset
async def chunks(topic: Topic = each(topics)) -> list[Chunk]:
    return [Chunk(name=f"{topic.stem}-{i}", text=word, ordinal=i) for i, word in enumerate(topic.text.split())]

@asset
async def counts(topic: Topic = each(topics), words: list[Chunk] = collect(chunks, per=topics)) -> Report:
    return Report(name=topic.name, text=str(len(words)))

@asset
async def report(chunks: list[Chunk] = collect(chunks)) -> Report:
    return Report(name="report.txt", text=" ".join(c.text for c in chunks))
"""


@pytest.fixture
def world(settings: Settings) -> World:
    world = World(settings)
    world.code(BODY)
    for name, text in {"a.txt": "alpha beta", "b.txt": "gamma", "c.txt": "delta epsilon"}.items():
        world.document(name, text)
    return world


async def test_making_some_units_leaves_removed_ones_to_the_next_run(world: World) -> None:
    """A selection of units settles nothing of what is outside it: a document that is gone still leaves."""
    await world.materialize()
    world.document("a.txt", "alpha changed")
    world.remove("b.txt")
    await world.materialize("chunks[a.txt]")
    assert (await world.plan("+report"))["chunks"]["removed"] == 1
    await world.materialize()
    assert b"gamma" not in (await world.contents())["report"]["report", "report.txt"]
    assert await world.plan() == {}


async def test_a_stale_unit_outside_the_selection_is_refused_not_skipped(world: World) -> None:
    """What is selected in part does not count as selected where the rest of it is stale."""
    await world.materialize()
    world.document("a.txt", "alpha changed")
    world.document("b.txt", "gamma changed")
    with pytest.raises(StaleInputError, match="chunks"):
        await world.materialize("chunks[a.txt] or report")
    await world.materialize("chunks[a.txt] or report", upstream=True)
    assert b"gamma changed" in (await world.contents())["report"]["report", "report.txt"]


async def test_one_document_is_made_whatever_else_is_stale(world: World) -> None:
    """Narrowed to a document a run makes what comes of that alone; what is made of all of them waits for the rest."""
    await world.materialize()
    before = await world.contents()
    world.document("a.txt", "alpha changed")
    world.document("b.txt", "gamma changed")
    made = {a.asset: a.made for a in (await world.materialize("unit:a.txt")).assets if a.made}
    assert made == dict.fromkeys(made, 1)
    now = await world.contents()
    assert {unit for unit, _ in now["chunks"]} == {unit for unit, _ in before["chunks"]}
    changed = {unit for unit, name in now["chunks"] if now["chunks"][unit, name] != before["chunks"].get((unit, name))}
    assert changed == {"a.txt"}
    assert now["report"] == before["report"]
    with pytest.raises(StaleInputError, match="chunks"):
        await world.materialize("unit:a.txt or report")
    again = {a.asset: a.made for a in (await world.materialize()).assets if a.made}
    assert again == {**made, "report": 1, "counts": 1}
    assert b"gamma changed" in (await world.contents())["report"]["report", "report.txt"]
    with pytest.raises(NothingSelectedError, match="No selected asset has a unit:d"):
        await world.materialize("unit:d.txt")


async def test_units_that_are_not_there_are_told_by_plans_and_runs(world: World) -> None:
    """A misspelt unit is no unit that is up to date, whether anything of its asset is stale or not; of those selected the plan counts."""
    await world.materialize()
    for stale in (False, True):
        if stale:
            world.document("a.txt", "alpha changed")
        for unit in ("d.txt", "*.md", "c.txt..a.txt"):
            with pytest.raises(NothingSelectedError, match="chunks has no unit"):
                await world.plan(f"chunks[{unit}]")
            with pytest.raises(NothingSelectedError, match="chunks has no unit"):
                await world.materialize(f"chunks[{unit}]")
            async with world.open() as session:
                for ask in (session.ls, session.verify, lambda select: session.export(select, world.root / "out")):
                    with pytest.raises(NothingSelectedError, match="chunks has no unit"):
                        await ask(f"chunks[{unit}]")
        async with world.open() as session:
            for part, units in {"b.txt..c.txt": 2, "b*": 1, "c.txt": 1}.items():
                (told,) = (await session.plan(f"chunks[{part}]")).assets
                assert (told.units, told.fresh, told.stale) == (units, units, 0)
    async with world.open() as session:
        for ask in (session.plan, session.ls, session.verify, lambda select: session.materialize(select, local=True)):
            for asset in ("topics", "chunks"):
                with pytest.raises(NothingSelectedError, match=f"{asset} has no unit aa.txt") as refused:
                    await ask(f"{asset}[aa.txt]")
                assert "a.txt" in str(refused.value.hint)
        world.document(
            "d.txt", "delta"
        )  # where it is not made yet, there is nothing of it to read, and it is in its asset
        assert [info.asset for info in await session.ls("topics[d.txt] or chunks[d.txt]")] == ["topics", "chunks"]
        assert (await session.verify("chunks[d.txt]")).to_json()["documents"] == 0


async def test_a_unit_can_be_selected_before_what_is_above_it_is_made(world: World) -> None:
    """As long as nobody knows which units there will be, it is not said that there is no such unit: what is above is made first."""
    below = (
        BODY
        + """
@asset
async def shouted(chunk: Chunk = each(chunks)) -> Chunk:
    return Chunk(chunk.name, text=chunk.text.upper(), ordinal=chunk.ordinal)
"""
    )
    world.code(below)
    assert (await world.plan("shouted[a-1]"))["shouted"]["units"] == 0
    with pytest.raises(StaleInputError, match="chunks is stale and not selected"):
        await world.materialize("shouted[a-1]")
    assert await world.made("shouted[a-1]", upstream=True) == {"chunks": {"made": 3}, "shouted": {"made": 1}}
    assert list((await world.contents())["shouted"].values()) == [b"BETA"]
    with pytest.raises(NothingSelectedError, match="shouted has no unit"):
        await world.materialize("shouted[a-7]")


async def test_a_failed_unit_keeps_back_only_what_descends_from_it(world: World) -> None:
    """What is grouped per document waits only for the documents of its own."""
    world.code(BODY.replace("return [Chunk(", 'assert "gamma" not in topic.text\n    return [Chunk('))
    result = await world.materialize()
    done = {a.asset: a.to_json() for a in result.assets}
    assert (done["chunks"]["made"], done["chunks"]["failed"]) == (2, 1)
    assert (done["counts"]["made"], done["counts"]["skipped"]) == (2, 1)
    assert done["report"]["skipped"] == 1


async def test_one_edited_document_makes_pending_only_what_descends_from_it(world: World) -> None:
    """The plan is as narrow as the run."""
    await world.materialize()
    world.document("a.txt", "alpha changed")
    plan = await world.plan()
    assert (plan["counts"]["pending"], plan["counts"]["fresh"]) == (1, 2)


async def test_what_one_call_does_to_its_arguments_is_not_seen_by_the_next(world: World) -> None:
    """All units that are given a whole asset are given the same."""
    world.code("""
        @asset
        async def others(topic: Topic = each(topics), everything: list[Topic] = collect(topics)) -> Report:
            everything.remove(next(t for t in everything if t.name == topic.name))
            return Report(name=topic.name, text=" ".join(t.stem for t in everything))
    """)
    await world.materialize()
    found = (await world.contents())["others"]
    assert {name: text for (_, name), text in found.items()} == {"a.txt": b"b c", "b.txt": b"a c", "c.txt": b"a b"}


async def test_lineage_through_a_whole_asset_in_another_environment(world: World) -> None:
    """What was reused from another environment has the lineage that it had there."""
    await world.materialize()
    async with Session.open(world.settings, "demo", environment="pr") as session:
        result = await session.materialize(local=True)
        assert {a.asset: a.made for a in result.assets} == {"chunks": 0, "counts": 0, "report": 0}
        traced = await session.lineage("report")
    assert {n.document for n in traced.nodes if n.asset == "topics"} == {"a.txt", "b.txt", "c.txt"}


async def test_a_document_made_again_after_another_result_keeps_what_came_of_it(world: World) -> None:
    """Lineage downwards follows the document, not the row that it once was."""
    await world.materialize()
    before = [n.document for n in (await _lineage(world, "chunks[b.txt]/b-0", "down")).nodes if n.asset == "report"]
    world.code(BODY.replace("text=word", "text=word.upper()"))
    await world.materialize("chunks")
    world.code(BODY.replace("text=word", "text=str(word)"))
    await world.materialize("chunks")
    after = [n.document for n in (await _lineage(world, "chunks[b.txt]/b-0", "down")).nodes if n.asset == "report"]
    assert before == after == ["report.txt"]


async def _lineage(world: World, ref: str, direction: str) -> Lineage:
    async with world.open() as session:
        return await session.lineage(ref, direction)


async def test_what_is_lost_from_the_store_is_written_again(world: World) -> None:
    """Making a unit again by force writes its bytes again, though they come out the same; for sources, too."""
    await world.materialize()
    store = Path(world.settings.storage_url.removeprefix("file://"))
    for path in [*store.rglob("chunks/pack-*"), *store.rglob("topics/pack-*")]:
        path.unlink()
    result = await world.materialize("chunks")
    assert result.status == "nothing to do"
    await world.materialize("topics or chunks", force=True)
    contents = await world.contents()
    assert contents["topics"]["a.txt", "a.txt"] == b"alpha beta"
    assert contents["chunks"]["a.txt", "a-0"] == b"alpha"
    assert await world.plan() == {}


async def test_gc_leaves_a_bucket_alone_whose_lineage_it_does_not_know(
    world: World, template: str, stack: Settings
) -> None:
    """A lost or restored database does not make the bucket garbage."""
    await world.materialize()
    async with world.open() as session:
        project = session.project
        project.id = -1  # a database that knows nothing of this project
        async with project.engine.begin() as connection:
            assert not await read.known_keys(connection, -1)
            from sqlalchemy import text

            await connection.execute(text("DELETE FROM run_asset"))
            await connection.execute(text("DELETE FROM run"))
        with pytest.raises(StorageError, match="does not know"):
            await sweep(project, alone(project, lambda _: None), dry_run=False, grace=timedelta(0))


async def test_gc_works_beside_what_is_not_its_own(world: World) -> None:
    """A file that somebody has put there stays; a manifest of which a crash left the name goes; one that is rotten is named. So do
    configurations stay that were kept for all projects where those of one lie that is called `platform`.
    """
    await world.materialize()
    store = Path(world.settings.storage_url.removeprefix("file://"))
    stray, folder = store / "demo" / ".DS_Store", store / "demo/main/20200101T000000.000000Z/chunks"
    folder.mkdir(parents=True)
    empty, rotten = folder / "_manifest-00000099.parquet", folder / "_manifest-00000098.parquet"
    stray.write_bytes(b"x")
    empty.write_bytes(b"")
    async with world.open() as session:
        project = session.project

        async def gc() -> int:
            done = await sweep(project, alone(project, lambda _: None), dry_run=False, grace=-timedelta(minutes=1))
            return done.objects

        assert await gc() == 1
        assert (stray.exists(), empty.exists()) == (True, False)
        folder.mkdir(parents=True)  # the last object took it along
        rotten.write_bytes(b"rotten")
        with pytest.raises(StorageError, match=r"_manifest-00000098\.parquet.* cannot be read"):
            await gc()
    assert rotten.exists()
    package = world.root / "projects" / "platform"
    package.mkdir()
    (package / "__init__.py").write_text((world.root / "projects/demo/assets.py").read_text())
    kept = store / "platform/config/20200101T000000.000000Z/notes_words/notes_words.json"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"[]")
    async with Session.open(world.settings, "platform") as session:
        swept = await sweep(session.project, alone(session.project, print), dry_run=False, grace=-timedelta(minutes=1))
    assert (swept.objects, kept.exists()) == (0, True)


async def test_a_rename_that_was_looked_at_before_it_was_declared(world: World) -> None:
    """Planning with a new name, and only then writing `renamed_from`, keeps what the asset has."""
    await world.materialize()
    renamed = BODY.replace("def chunks(topic", "def pieces(topic").replace("collect(chunks", "collect(pieces")
    world.code(renamed)
    assert (await world.plan())["pieces"]["causes"] == {"missing": 3}
    world.code(renamed.replace("@asset\nasync def pieces", '@asset(renamed_from="chunks")\nasync def pieces'))
    assert await world.plan() == {}


async def test_a_name_that_was_kept_with_its_accents_apart_is_the_same(world: World) -> None:
    """What was made under it stays, for it is one name, and from the next run on the asset goes by it as everybody writes it."""
    body, apart = BODY.replace("chunks", "pièces"), unicodedata.normalize("NFD", "pièces")
    world.code(body)
    await world.materialize()
    async with world.open() as session, session.project.engine.begin() as connection:
        await connection.execute(sa.update(t.asset).where(t.asset.c.name == "pièces").values(name=apart))
    assert await world.plan() == {}
    assert (await world.materialize()).status == "nothing to do"
    async with world.open() as session:
        assert await session.journal("pièces")
        assert [(one.row.asset, one.row.why) for one in await session.journal() if one.row.what == "rename"] == [
            ("pièces", f"from {apart}")
        ]
    other = BODY.replace("chunks", "pieces")
    for former in (apart, "pièces"):  # by both it is known where it gets another name
        world.code(other.replace("@asset\nasync def pieces", f'@asset(renamed_from="{former}")\nasync def pieces'))
        assert "pieces" not in await world.plan()


OTHER = """
@asset
async def pieces(topic: Topic = each(topics)) -> Report:
    return Report(name=topic.name, text="new")
"""


async def test_a_name_that_was_given_up_is_free_again(world: World) -> None:
    """A branch renamed an asset and was given up: named back, once, the asset keeps what it has, and another one may have the new name."""
    await world.materialize()
    renamed = BODY.replace("def chunks(topic", "def pieces(topic").replace("collect(chunks", "collect(pieces")
    world.code(renamed.replace("@asset\nasync def pieces", '@asset(renamed_from="chunks")\nasync def pieces'))
    assert (await world.materialize()).status == "nothing to do"
    world.code(BODY.replace("@asset\nasync def chunks", '@asset(renamed_from="pieces")\nasync def chunks'))
    assert (await world.materialize()).status == "nothing to do"
    world.code(BODY + OTHER)
    assert await world.made() == {"pieces": {"made": 3}}


async def test_cancelling_keeps_what_had_ended(world: World) -> None:
    """Units that ended before a run was cancelled are not made again."""
    (ended := world.root / "ended").mkdir()
    code = """
        import asyncio, pathlib

        @asset
        async def slow(topic: Topic = each(topics)) -> Report:
            await asyncio.sleep(600 if topic.name == "c.txt" else 0)
            pathlib.Path(ENDED, topic.name).touch()
            return Report(name=topic.name, text=topic.text)
    """
    world.code(code.replace("ENDED", repr(str(ended))))
    running = asyncio.create_task(world.materialize())
    async with asyncio.timeout(60):
        while len(list(ended.iterdir())) < 2:
            await asyncio.sleep(0.05)
    await let_go_on()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    plan = await world.plan()
    assert (plan["slow"]["fresh"], plan["slow"]["stale"]) == (2, 1)


async def test_a_store_whose_answers_are_lost(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is written is there, and whoever wrote it is told that somebody else had: no verb takes that for an error."""
    real = buckets._Folder.write

    async def write(self: Any, key: Key, data: bytes) -> None:
        await real(self, key, data)
        raise self._taken(key)

    monkeypatch.setattr(buckets._Folder, "write", write)
    assert (await world.materialize()).status == "done"
    async with world.open() as session:
        await session.create_environment("pr")
        world.document("a.txt", "alpha changed")
        pr = Session(await environments.within(session.project, "pr"))
        assert (await pr.materialize(local=True)).status == "done"
        assert (await pr.promote("pr", "prod")).run
        assert session.project.llm.answers is not None
        await session.project.llm.answers.keep(bytes(32), "alias", {"question": [], "answer": "so it is"})
        assert (await session.forget("topics[b.txt]", dry_run=False)).report
        assert not (await session.verify()).findings
        assert (await session.check_journal()).problems == ()


async def test_two_first_looks_at_once(world: World) -> None:
    """Two commands that observe a source at the same time do not disturb each other."""
    plans = await asyncio.gather(*(world.plan() for _ in range(4)))
    assert all(plan["chunks"]["causes"] == {"missing": 3} for plan in plans)


async def test_a_set_in_config_is_the_same_in_every_process(world: World) -> None:
    """The order in which a set happens to be listed is not part of a recipe."""
    world.code("""
        class Words(BaseModel):
            stop: set[str] = {"alpha", "beta", "gamma", "delta", "epsilon", "zeta"}

        @asset
        async def kept(words: Words, topic: Topic = each(topics)) -> Report:
            return Report(name=topic.name, text=" ".join(w for w in topic.text.split() if w not in words.stop))
    """)
    async with world.open() as session:
        one = session.project.definition("kept").components["config"].digest
        values = session.project.config["kept"]["words"]
        values.stop = {*sorted(values.stop, reverse=True)}
        session.project._definitions.clear()
        assert session.project.definition("kept").components["config"].digest == one


async def test_a_package_whose_version_counts(world: World) -> None:
    """A package that the settings name makes what uses it stale when its version changes; others do not."""
    body = """
        @asset
        async def frame(topics: pl.DataFrame = collect(topics)) -> pl.DataFrame:
            return topics.select(pl.col("name").str.len_chars())
    """
    world.code(body)
    world.settings = world.settings.using("test", packages={"polars": "stale"})
    async with world.open() as session:
        assert "polars" in session.project.definition("frame").components["environment"].detail
    await world.materialize()
    world.settings = world.settings.using("test", packages={})
    assert (await world.plan())["frame"]["causes"] == {"environment-changed": 1}


async def test_a_plan_asks_as_often_of_many_units_as_of_few(world: World) -> None:
    """How many statements a plan takes depends on what changed, not on how many units there are, or how many are stale."""
    asked: dict[int, dict[str, int]] = {}
    moments = itertools.count(1_700_000_000)
    for name in ("a.txt", "b.txt", "c.txt"):
        world.remove(name)

    def write(numbers: range, text: str) -> None:
        for number in numbers:
            world.document(f"{number:03}.txt", f"{text} {number}")
            moment = next(moments)  # long ago: what was just written is looked at twice
            os.utime(world.root / "data" / f"{number:03}.txt", times=(moment, moment))

    for count in (18, 180):
        write(range(count), "text")
        world.code(BODY)
        await world.materialize()
        found = asked[count] = {"nothing": await statements(world)}
        write(range(1), "edited")
        found["one"] = await statements(world)
        write(range(0, count, 6), "again")
        found["a sixth"] = await statements(world)
        world.code(BODY.replace("text=word", "text=word.upper()"))
        found["code"] = await statements(world)
    assert asked[18] == asked[180]
    assert asked[18]["nothing"] < asked[18]["one"]


async def test_what_a_source_was_is_not_asked_of_lineage_where_the_last_look_knows(world: World) -> None:
    """Which documents differ says the last look at the source, as long as lineage holds what was seen then; afterwards lineage says it."""
    asked: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *others: Any) -> None:
        asked.append(statement)

    async def identities() -> tuple[dict[str, Any], int]:
        asked.clear()
        async with world.open() as session:
            sa.event.listen(session.project.engine.sync_engine, "before_cursor_execute", note)
            plan = (await session.plan()).to_json()
        return plan, sum("document.name, head.unit, document.identity" in one for one in asked)

    for number in range(8):
        world.document(f"{number}.txt", f"text {number}")
    await world.materialize()
    world.document("3.txt", "edited")
    world.document("new.txt", "new")
    world.remove("5.txt")
    first, never = await identities()
    again, once = await identities()
    assert (never, once) == (0, 1)
    assert first == again
    assert first["assets"][0]["causes"] == {"input-changed": 1, "missing": 1}
    await world.materialize()
    assert await world.plan() == {}


async def statements(world: World) -> int:
    """How many statements a plan sends to Postgres, once it has looked at the sources."""
    asked: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *others: Any) -> None:
        asked.append(statement)

    async with world.open() as session:
        await session.plan()
    async with world.open() as session:
        sa.event.listen(session.project.engine.sync_engine, "before_cursor_execute", note)
        await session.plan()
    return len(asked)
