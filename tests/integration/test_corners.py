"""Where rules meet: groups of every kind of value, failures of what is gone, names that repeat across assets."""

from __future__ import annotations

import pytest

from assetcore.settings import Settings
from tests.integration.world import HEAD, World

pytestmark = pytest.mark.integration

GROUPED = """
import json
from pathlib import Path

class Event(Document):
    kind: int | str | float | list[str] | None = None
    weight: float = 0.0

async def read() -> AsyncIterator[Event]:
    path = Path(__file__).parent.parent.parent / "data" / "events.json"
    for i, (kind, weight) in enumerate(json.loads(path.read_text())):
        yield Event(f"e{i}", text="x", kind=kind, weight=weight)

events = source("events", Event, read)

@asset
async def kept(event: Event = each(events)) -> Event:
    return Event(event.name, text=event.text, kind=event.kind, weight=event.weight)

@asset
async def kinds(events: list[Event] = collect(events, by="kind")) -> Report:
    return Report("kind", text=f"{events[0].kind!r}: {' '.join(e.name for e in events)}")

@asset
async def weights(events: list[Event] = collect(kept, by="weight")) -> Report:
    return Report("weight", text=f"{events[0].weight!r}: {' '.join(e.name for e in events)}")
"""


@pytest.fixture
def world(settings: Settings) -> World:
    return World(settings)


async def texts(world: World, asset: str) -> list[str]:
    """The texts of an asset's documents."""
    async with world.open() as session:
        return sorted(document.content.decode() for document in await session.show(asset))


async def test_groups_of_near_values_lose_and_merge_nothing(world: World) -> None:
    """Documents of a source or an asset are grouped by any value that a field can have; each value is a unit, whatever comes and goes."""
    world.code(GROUPED)
    world.document("events.json", '[[1, 0.0], ["1", -0.0], [1.5, 0.0], [["a"], 1.0], [["a"], 1.0], [null, 2.0]]')
    assert (await world.plan())["kinds"]["causes"] == {"missing": 5}
    assert (await world.made())["kinds"] == {"made": 5}
    assert await world.plan() == {}
    assert await texts(world, "kinds") == ["'1': e1", "1.5: e2", "1: e0", "None: e5", "['a']: e3 e4"]
    assert await texts(world, "weights") == ["-0.0: e1", "0.0: e0 e2", "1.0: e3 e4", "2.0: e5"]
    world.document("events.json", '[[1, 0.0], ["1", -0.0], ["b", 0.0], [["a"], 1.0], [["a"], 1.0], ["c", 1.0]]')
    assert (await world.made())["kinds"] == {"made": 2, "removed": 2}
    assert await texts(world, "kinds") == ["'1': e1", "'b': e2", "'c': e5", "1: e0", "['a']: e3 e4"]


async def test_a_field_can_be_grouped_by_as_soon_as_it_is_declared(world: World) -> None:
    """A document class gets a field and an asset groups by it, in one edit: the plan says so, and the run makes it."""
    cut = """
        @asset
        async def chunks(topic: Topic = each(topics)) -> list[Chunk]:
            return [Chunk(f"{topic.stem}-{i}", text=w, ordinal=i{more}) for i, w in enumerate(topic.text.split())]
    """
    world.code(cut.replace("{more}", ""))
    world.document("a.txt", "alpha beta Alpha")
    await world.materialize()
    first = """
        @asset
        async def letters(chunks: list[Chunk] = collect(chunks, by="first")) -> Report:
            return Report("letter", text=" ".join(c.text for c in chunks))
    """
    world.code(
        cut.replace("{more}", ", first=w[0]") + first, head=HEAD.replace("ordinal: int", "ordinal: int\n    first: str")
    )
    plan = await world.plan()
    assert plan["chunks"]["causes"] == {"schema-changed": 1}
    assert (await world.made())["letters"] == {"made": 3}
    assert await world.plan() == {}
    assert await texts(world, "letters") == ["Alpha", "alpha", "beta"]


async def test_a_failed_unit_whose_document_is_gone_is_forgotten(world: World) -> None:
    """When a document that failed is removed, nothing is left to do, and nothing is told to have failed."""
    world.code("""
        @asset
        async def clean(topic: Topic = each(topics)) -> Topic:
            assert "bad" not in topic.text
            return Topic(topic.name, text=topic.text)
    """)
    world.document("a.txt", "good")
    world.document("b.txt", "bad")
    assert (await world.materialize()).status == "failed"
    async with world.open() as session:
        assert next(i.failed for i in await session.ls("clean")) == 1
    world.remove("b.txt")
    assert await world.plan() == {}
    await world.materialize()
    assert (await world.materialize()).status == "nothing to do"
    async with world.open() as session:
        assert next((i.failed, i.stale) for i in await session.ls("clean")) == (0, 0)


async def test_a_removed_document_is_told_apart_from_one_of_the_same_name_elsewhere(world: World) -> None:
    """P13: what collects two folders that hold the same names is stale because a document was removed from one of them."""
    world.code("""
        english = source("english", Topic, folder("data/en"))
        german = source("german", Topic, folder("data/de"))

        @asset
        async def report(english: list[Topic] = collect(english), german: list[Topic] = collect(german)) -> Report:
            return Report("report", text=" ".join(t.text for t in [*english, *german]))
    """)
    for language in ("en", "de"):
        for name in ("a", "b"):
            world.document(f"{language}/{name}.txt", f"{name} in {language}")
    await world.materialize()
    world.remove("en/a.txt")
    assert (await world.plan())["report"]["causes"] == {"input-removed": 1}
    world.document("en/a.txt", "a in en")
    world.document("en/b.txt", "another b in en")
    assert (await world.plan())["report"]["causes"] == {"input-changed": 1}


async def test_why_follows_units_whose_labels_repeat(world: World) -> None:
    """Why something is pending is found also where the units above it share their labels."""
    world.code("""
        @asset
        async def chunks(topic: Topic = each(topics)) -> list[Chunk]:
            return [Chunk(f"part-{i}", text=w, ordinal=i) for i, w in enumerate(topic.text.split())]

        @asset
        async def marked(chunk: Chunk = each(chunks)) -> Report:
            return Report(chunk.name, text=MARK + chunk.text)

        @asset
        async def report(marked: list[Report] = collect(marked)) -> Report:
            return Report("report", text=" ".join(m.text for m in marked))

        MARK = "-"
    """)
    for name in ("a", "b"):
        world.document(f"{name}.txt", "alpha beta")
    await world.materialize()
    path = world.root / "projects" / "demo" / "assets.py"
    path.write_text(path.read_text().replace('MARK = "-"', 'MARK = "*"'))
    async with world.open() as session:
        why = await session.why("report")
        assert why.status == "pending"
        assert [(cause.code, cause.units) for cause in why.causes] == [("code-changed", 4)]
        assert why.causes[0].path in [(f"marked[{page}.txt/part-{i}]",) for page in "ab" for i in (0, 1)]


async def test_a_name_that_a_function_does_not_see_is_not_in_what_it_makes(world: World) -> None:
    """P23: where one of a pair hides its name, what is made of the pair has a name without it, and a rename executes nothing."""
    world.code("""
        others = source("others", Topic, folder("others"))

        @asset
        async def pairs(topic: Topic = each(topics), other: Topic = each(others, cross=True, fields=["text"])) -> pl.DataFrame:
            return pl.DataFrame({"both": [topic.text + other.text]})

        @asset
        async def seen(topic: Topic = each(topics), other: Topic = each(others, cross=True)) -> pl.DataFrame:
            return pl.DataFrame({"both": [topic.text + other.text]})
    """)
    world.document("a.txt", "alpha")
    world.document("../others/b.txt", "beta")
    await world.materialize()
    assert set((await world.contents())["pairs"]) == {("a.txt × b.txt", "pairs")}
    (world.root / "others" / "b.txt").rename(world.root / "others" / "c.txt")
    assert await world.made() == {"pairs": {"reused": 1, "removed": 1}, "seen": {"made": 1, "removed": 1}}
    assert set((await world.contents())["pairs"]) == {("a.txt × c.txt", "pairs")}
    assert set((await world.contents())["seen"]) == {("a.txt × c.txt", "a.txt × c.txt")}


@pytest.mark.parametrize("kind", ["async ", ""])
async def test_code_that_is_edited_while_a_project_is_open(world: World, kind: str) -> None:
    """What the old code makes is never known as made by the new one: the next run makes it again."""
    code = f"""
        @asset
        {kind}def shout(topic: Topic = each(topics)) -> Report:
            return Report("shout", text=topic.text.upper())
    """
    world.document("a.txt", "loud")
    world.code(code)
    async with world.open() as session:
        world.code(code.replace("upper", "title"))
        await session.materialize(local=True)
    first = (await world.contents()).get("shout")
    assert first in ({("a.txt", "shout"): b"LOUD"}, None)  # None: another process imported the new code, and said so
    assert (await world.plan())["shout"]["stale"] == 1
    await world.materialize()
    assert (await world.contents())["shout"] == {("a.txt", "shout"): b"Loud"}
    assert not await world.plan()


async def test_a_unit_is_written_in_one_way_wherever_it_is_told(settings: Settings) -> None:
    """As a REF that can be given back: in the lines of a run, and in what is said of what a function returned."""
    world = World(settings)
    world.code("""
    @asset
    async def twice(topic: Topic = each(topics)) -> list[Topic]:
        return [topic, topic]
    """)
    world.document("a*.txt", "one")
    (failure,) = (await world.materialize()).failures
    ref = 'twice["a*.txt"]'
    assert f"{ref} returned" in failure.error
    assert [event.text for event in world.events if event.kind == "unit-failed"] == [f"{ref}: {failure.error}"]
