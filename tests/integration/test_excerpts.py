"""Excerpts in lineage: an answer resolves to the place in the source that it was cut from."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime

import pytest
import sqlalchemy as sa

from assetcore.catalog import verify_catalog
from assetcore.errors import NothingSelectedError
from assetcore.lineage import schema
from assetcore.lineage import tables as t
from assetcore.settings import Settings
from tests.integration.world import World

pytestmark = pytest.mark.integration

CODE = """
    @asset
    async def sections(topic: Topic = each(topics)) -> list[Report]:
        found, start = [], 0
        for i, line in enumerate(topic.content.split(b"\\n\\n")):
            found.append(Report.part_of(topic, start, start + len(line), name=f"section-{i}"))
            start += len(line) + 2
        return found

    @asset
    def words(section: Report = each(sections)) -> list[Chunk]:
        last = section.content.rpartition(b" ")
        return [Chunk.part_of(section, len(last[0]) + len(last[1]), name=f"{section.name}-last", ordinal=0)]

    @asset
    async def loud(word: Chunk = each(words)) -> Report:
        return Report(word.name, text=word.text.upper())

    @asset
    async def astray(topic: Topic = each(topics)) -> Report:
        return Report.part_of(Topic("other", text="x"), 0, 1, name="x") if STRAY else Report("x", text=topic.text)

    STRAY = False
"""


async def test_an_answer_resolves_to_its_place_in_the_source(settings: Settings) -> None:
    """Parts of parts, in other processes too, are found in the source; where a part moves, nothing below it is made again."""
    world = World(settings)
    world.code(CODE)
    world.document("a.txt", "first line\nof one\n\nsecond section\n\nthird")
    await world.materialize()
    async with world.open() as session:
        found = await session.context("loud[section-1-last]")
        assert (found.document, found.kind, found.sources) == ("topics[a.txt]", "bytes", ("topics[a.txt]",))
        assert found.place is not None
        assert (found.place.first, found.place.lines, found.place.before[-2:]) == (
            4,
            ("second section",),
            ("of one", ""),
        )
        assert (await session.show("topics[a.txt]"))[0].content[found.start : found.end] == b"section"
        traced = await session.lineage("words[section-0]", spans=True)
        assert sorted((s["start"], s["end"]) for s in traced.spans or ()) == [(0, 17), (14, 17)]
        with pytest.raises(NothingSelectedError, match="part_of"):
            await session.context("astray[a.txt]")
        assert (await session.lineage("words[section-0]")).spans is None
    world.document("a.txt", "a first line\nof one\n\nsecond section\n\nthird")
    assert (await world.made("+loud"))["sections"] == {"made": 1}
    assert not await world.plan("loud")
    async with world.open() as session:
        moved = await session.context("loud[section-1-last]")
        assert (moved.start, moved.place and moved.place.lines) == ((found.start or 0) + 2, ("second section",))
        result = await session.context("loud[section-1-last]", at="now")
        assert result.start == moved.start
    engine = schema.connect(str(settings.database_url))
    async with engine.connect() as connection:
        wholes = await connection.execute(sa.select(t.excerpt.c.kind, sa.func.count()).group_by(t.excerpt.c.kind))
        assert {kind for kind, _ in wholes} == {"bytes"}
    await engine.dispose()
    verified = await verify_catalog(settings, say=lambda _: None)
    assert verified.same, verified.to_json()
    world.code(CODE.replace("STRAY = False", "STRAY = True"))
    failed = await world.materialize("astray")
    assert [f.error for f in failed.failures] == ["'x' is part of 'other', which astray[a.txt] was not given."]


async def test_what_is_taken_over_from_another_unit_has_its_place_too(settings: Settings) -> None:
    """A unit with the recipe of another one is told its part of the document that it was given itself."""
    world = World(settings)
    world.code(CODE)
    world.document("a.txt", "first line\n\nsecond section")
    await world.materialize("+loud")
    world.document("b.txt", "some other line\n\nsecond section")
    world.document("c.txt", "first line\n\nsecond section")
    assert (await world.made("+loud"))["words"] == {"made": 1, "reused": 3}
    async with world.open() as session:
        for name, unit, start in (
            ("a", "a.txt/section-1", 19),
            ("b", "b.txt/section-1", 24),
            ("c", "c.txt/section-1", 19),
        ):
            found = await session.context(f"words[{unit}]")
            assert (found.document, found.start, found.end) == (f"topics[{name}.txt]", start, start + 7)
    verified = await verify_catalog(settings, say=lambda _: None)
    assert verified.same, verified.to_json()


async def test_what_went_and_came_back_elsewhere_is_followed_to_where_it_is(settings: Settings) -> None:
    """What was made of it is reused: it leads to the document as it now is, at an earlier time to that of then, and one by one or whole."""
    world = World(settings)
    world.code(
        CODE
        + """
    @asset
    async def lengths(topic: Topic = each(topics), sections: list[Report] = collect(sections, per=topics)) -> Report:
        return Report("lengths", text=f"{len(topic.text)} of {len(sections)}")

    @asset
    async def summary(words: list[Chunk] = collect(words), lengths: list[Report] = collect(lengths)) -> Report:
        return Report("summary", text=" ".join(word.text for word in words))

    @asset
    async def index(words: list[Chunk] = collect(words)) -> Report:
        return Report("index", text=" ".join(word.text for word in words))
    """
    )
    texts = ["X\n\nthe second", "X\n\nother thing", "a longer X\n\nthe second"]
    times: list[str] = []
    for text in texts:
        world.document("a.txt", text)
        done = await world.made()
        times.append(datetime.now(UTC).isoformat())
    assert (done["words"], done["loud"], done["index"]) == ({"unchanged": 1, "reused": 1}, {"reused": 1}, {"reused": 1})
    async with world.open() as session:
        for ref in ("words[section-1]", "loud[section-1-last]", "index", "summary"):
            for time, text in ((None, texts[2]), (times[2], texts[2]), (times[0], texts[0])):
                traced = await session.lineage(ref, at=time, spans=True)
                sources = [node.sha256 for node in traced.nodes if node.asset == "topics"]
                assert sources == [hashlib.sha256(text.encode()).hexdigest()], (ref, time)
                names = [(node.asset, node.unit, node.document) for node in traced.nodes]
                assert len(set(names)) == len(names)
                nodes = {node.id: node for node in traced.nodes}
                places = [(s["start"], s["end"]) for s in traced.spans or () if nodes[s["of"]].asset == "topics"]
                assert (text.index("the second"), len(text)) in places
        for at, text in ((None, texts[2]), (times[0], texts[0])):
            place = await session.context("loud[section-1-last]", at=at)
            assert (text.encode()[place.start : place.end], place.sources) == (b"second", ("topics[a.txt]",))
