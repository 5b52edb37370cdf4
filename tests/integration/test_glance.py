"""A glance: where nothing has changed in a folder, nothing is read but what can be told of its files; whatever has, is seen."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa

from assetcore.lineage import commit as lineage
from assetcore.lineage import tables as t
from assetcore.settings import Settings
from tests.integration.world import HEAD, World

pytestmark = pytest.mark.integration

BODY = """
@asset
def chunks(topic: Topic = each(topics)) -> list[Chunk]:
    return [Chunk(str(i), text=word, ordinal=i) for i, word in enumerate(topic.text.split())]

@asset
def report(chunks: list[Chunk] = collect(chunks)) -> Report:
    return Report("report", text=" ".join(c.text for c in chunks))
"""

CHECK = """
from assetcore import check

@check(chunks, blocking=False)
def not_empty(chunk: Chunk) -> bool:
    return bool(chunk.text)
"""


@pytest.fixture
async def world(settings: Settings) -> World:
    """Three documents that were written long ago, made of, and looked at again."""
    world = World(settings)
    world.code(BODY)
    for name, text in {"a.txt": "alpha beta", "b.txt": "gamma", "c.txt": "délta"}.items():
        world.document(name, text)
        aged(world, name)
    await world.materialize()
    assert await closely(world) == 0
    return world


def aged(world: World, name: str, seconds: int = 0) -> None:
    """The file was written so many seconds after a moment long ago."""
    os.utime(world.root / "data" / name, times=(1_700_000_000 + seconds,) * 2)


async def closely(world: World, **options: Any) -> int:
    """How many statements of a plan read what is known of each file."""
    asked: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *others: Any) -> None:
        asked.append(statement)

    async with world.open() as session:
        sa.event.listen(session.project.engine.sync_engine, "before_cursor_execute", note)
        await session.plan(**options)
    return sum("FROM observation" in one and not one.startswith("DELETE") for one in asked)


async def told(world: World, **options: Any) -> dict[str, Any]:
    """What a plan tells, but for how long it takes."""
    async with world.open() as session:
        plan = (await session.plan(**options)).to_json()
    return {key: plan[key] for key in ("assets", "sources", "up_to_date")}


def edit(world: World) -> None:
    world.document("a.txt", "edited")
    aged(world, "a.txt", 1)


def rename(world: World) -> None:
    (world.root / "data" / "a.txt").rename(world.root / "data" / "z.txt")


def swap(world: World) -> None:
    """Two files of the same size and time change places: nothing but their inodes tells."""
    world.document("b.txt", "DÉLTA")
    aged(world, "b.txt")
    first, second, between = (world.root / "data" / name for name in ("b.txt", "c.txt", "between"))
    first.rename(between)
    second.rename(first)
    between.rename(second)


def retype(world: World) -> None:
    world.code(BODY, head=HEAD.replace("class Topic(Document):", 'class Topic(Document, media_type="text/markdown"):'))


def extend(world: World) -> None:
    world.code(BODY, head=HEAD.replace('"A text."', '"A text."\n    level: int = 1'))


def narrow(world: World) -> None:
    world.code(BODY, head=HEAD.replace('pattern="*.txt"', 'pattern="[ab].txt"'))


def recode(world: World) -> None:
    """No file changes, and what is read of one of them does."""
    world.code(BODY, head=HEAD.replace('pattern="*.txt"', 'pattern="*.txt", encoding="latin-1"'))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (edit, {"new": 0, "changed": 1, "removed": 0}),
        (rename, {"new": 1, "changed": 0, "removed": 1}),
        (swap, {"new": 0, "changed": 2, "removed": 0}),
        (retype, {"new": 0, "changed": 3, "removed": 0}),
        (extend, {"new": 0, "changed": 3, "removed": 0}),
        (narrow, {"new": 0, "changed": 0, "removed": 1}),
        (recode, {"new": 0, "changed": 1, "removed": 0}),
    ],
)
async def test_what_has_changed_is_seen(
    world: World, change: Callable[[World], None], expected: dict[str, int]
) -> None:
    """Whatever decides which documents there are is in the glance; the plan is the one that reading everything gives, also afterwards."""
    change(world)
    first = await told(world)
    again, everything = await told(world), await told(world, rehash=True)
    assert first == again == everything
    assert {key: first["sources"][0][key] for key in expected} == expected
    assert (await world.materialize()).status == "done"
    assert await world.plan() == {} == await world.plan(rehash=True)


async def test_a_touched_file_is_read_once(world: World) -> None:
    """A file with another time and the content that it had: it is read, nothing is stale, and the next glance tells so."""
    aged(world, "a.txt", 5)
    assert await closely(world) == 1
    assert await closely(world) == 0
    assert await world.plan() == {}
    assert await closely(world, rehash=True) == 1


async def test_an_edit_that_was_planned_is_still_stale(world: World) -> None:
    """A glance tells what was seen the last time, which need not be what was made."""
    edit(world)
    first = await told(world)
    assert await closely(world) == 1, "what is to be taken in is read"
    assert await told(world) == first
    assert (await world.made())["chunks"] == {"made": 1}
    assert await closely(world) == 0


async def test_what_was_just_written_is_looked_at_closely(world: World) -> None:
    """A file that can still change without its time telling so is read until it cannot."""
    os.utime(world.root / "data" / "a.txt")
    assert [await closely(world) for _ in range(2)] == [1, 1]
    aged(world, "a.txt")
    assert [await closely(world) for _ in range(2)] == [1, 0]


async def test_new_code_is_applied_to_what_was_glanced_at(world: World) -> None:
    """Where the code has changed, what is known of the documents is read, and all of it is made anew."""
    world.code(BODY.replace("text=word", "text=word.upper()"))
    assert await closely(world) == 1
    assert {n: counts["made"] for n, counts in (await world.made()).items()} == {"chunks": 3, "report": 1}
    assert (await world.contents())["report"]["report", "report"] == "ALPHA BETA GAMMA DÉLTA".encode()


async def test_what_is_no_document_is_told_each_time(world: World) -> None:
    """A file that cannot be a document is told by every plan, though nothing has changed."""
    (world.root / "data" / "bad\n.txt").write_text("bad")
    aged(world, "bad\n.txt")
    for _ in range(3):
        first = await told(world)
        assert first["sources"][0]["unread"] == 1


async def test_a_look_of_which_the_files_are_not_known_any_more(world: World) -> None:
    """Where what is known of the files is not what the last look has found, they are looked at once more, and known again."""
    o = t.observation.c
    async with world.open() as session, session.project.engine.begin() as connection:
        await connection.execute(sa.delete(t.observation).where(o.name == "b.txt"))
    assert await world.plan() == {}
    world.code(BODY.replace("text=word", "text=word.upper()"))
    assert (await world.plan())["chunks"]["stale"] == 3
    async with world.open() as session, session.project.engine.connect() as connection:
        assert len((await connection.execute(sa.select(o.name))).all()) == 3
    assert (await world.made())["chunks"] == {"made": 3}


async def test_what_is_supposed_of_a_source_is_applied_to_what_was_glanced_at(world: World) -> None:
    """`plan --suppose` changes documents that nobody had to read."""
    async with world.open() as session:
        plan = await session.plan(supposing=["change topics[a.txt]", "remove topics[b.txt]"])
    assert plan.sources[0].to_json()["changed"] == plan.sources[0].to_json()["removed"] == 1
    assert await world.plan() == {}


async def test_a_step_for_its_check_alone_needs_no_files(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A check that is new asks what an asset is, of which nothing has to be made: its source was only glanced at."""
    monkeypatch.setattr("assetcore.sight.SMALL", 1)
    await world.plan()
    world.code(BODY + CHECK)
    assert (await world.materialize("chunks[a.txt]")).status == "done"
    assert (await world.materialize()).status in ("done", "nothing to do")
    assert await world.plan() == {}


async def test_a_look_that_began_earlier_hides_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `--rehash` has found meanwhile, and no time tells, stays known: the look that began before it is not mixed with it."""
    world.settings = world.settings.using("test", runner="threads")
    keep = lineage.keep_observation
    looked, go_on = asyncio.Event(), asyncio.Event()

    async def late(*given: Any) -> None:
        monkeypatch.setattr(lineage, "keep_observation", keep)
        looked.set()
        await go_on.wait()
        await keep(*given)

    with (world.root / "data" / "a.txt").open("r+") as file:
        file.write("ALPHA")
    aged(world, "a.txt", 0)
    world.document("b.txt", "edited")
    moment = (world.root / "data" / "a.txt").stat()
    monkeypatch.setattr(lineage, "keep_observation", late)
    async with world.open() as session:
        run = asyncio.create_task(session.materialize(local=True))
        await looked.wait()
        assert (await told(world, rehash=True))["sources"][0]["changed"] == 2
        go_on.set()
        assert (await run).status == "done"
    assert (world.root / "data" / "a.txt").stat().st_mtime_ns == moment.st_mtime_ns
    for _ in range(2):
        assert (await told(world))["sources"][0]["changed"] == 1
    assert (await world.materialize()).status == "done"
    assert await world.plan() == {} == await world.plan(rehash=True)


async def test_a_document_that_could_not_be_read_when_its_class_changed(world: World) -> None:
    """A file that cannot be read is a document of the class that there is: it has changed as the others have, and waits until it can."""
    renamed = HEAD.replace("Topic", "Theme")
    world.document("b.txt", "larger than the others are")
    await world.materialize()
    world.code(BODY.replace("Topic", "Theme"), head=renamed.replace('"*.txt"', '"*.txt", max_bytes=12'))
    assert (await told(world))["sources"][0] | {"changed": 3, "unread": 1} == (await told(world))["sources"][0]
    assert (await world.materialize()).status == "failed"
    assert (await told(world))["sources"][0] | {"changed": 1, "unread": 1} == (await told(world))["sources"][0]
    world.code(BODY.replace("Topic", "Theme"), head=renamed)
    for options in ({}, {"rehash": True}):
        assert (await told(world, **options))["up_to_date"] is False
    assert (await world.materialize()).status == "done"
    assert await world.plan() == {} == await world.plan(rehash=True)


async def test_a_rehash_mends_what_is_known(world: World) -> None:
    """An identity that is not the document's, however it came about, is made anew where all is read."""
    o = t.observation.c
    async with world.open() as session, session.project.engine.begin() as connection:
        await connection.execute(sa.update(t.observation).where(o.name == "b.txt").values(identity=bytes(32)))
    assert (await told(world, rehash=True))["up_to_date"] is True
    async with world.open() as session, session.project.engine.connect() as connection:
        rows = await connection.execute(sa.select(o.identity).where(o.name == "b.txt"))
        assert rows.scalar_one() != bytes(32)
