"""Large assets are judged and made in parts: nothing of it is seen but that less is held at a time."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import pytest

from assetcore import arguments, batches, keep, sight
from assetcore.errors import StorageError
from assetcore.keep import Keeper
from assetcore.settings import Settings
from tests.integration.world import World

pytestmark = pytest.mark.integration

BODY = """
@asset
async def chunks(topic: Topic = each(topics)) -> list[Chunk]:
    return [Chunk(name=f"{topic.stem}-{i}", text=word, ordinal=i) for i, word in enumerate(topic.text.split())]

@asset
async def loud(chunk: Chunk = each(chunks, fields=["text"])) -> Report:
    return Report(name="loud", text=chunk.text.upper())

@asset
async def counts(topic: Topic = each(topics), words: list[Chunk] = collect(chunks, per=topics)) -> Report:
    return Report(name=topic.name, text=str(len(words)))

@asset
async def report(counts: list[Report] = collect(counts)) -> Report:
    return Report(name="report.txt", text=" ".join(f"{c.name} {c.text}" for c in counts))
"""
OF_A_FRAME = """
import polars as pl

@asset
async def report(counts: pl.DataFrame = collect(counts)) -> Report:
    return Report(name="report.txt", text="  ".join(f"{name} {text}" for name, text in counts["name", "text"].iter_rows()))
"""
FORMS = {
    "list": BODY.replace('" ".join', '"  ".join'),
    "frame": BODY[: BODY.rindex("@asset")] + OF_A_FRAME,
}
"""The report with other code: it takes the whole asset in either form."""
DOCUMENTS, PART, WORDS, MANY = 23, 4, 3, 12


@pytest.fixture
def world(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> World:
    """A source of 23 documents, which is looked at in parts of four; no asset is small."""
    monkeypatch.setattr(sight, "PART", PART)
    monkeypatch.setattr(sight, "SMALL", -1)
    world = World(settings)
    world.code(BODY)
    for number in range(DOCUMENTS):
        world.document(f"{number:02}.txt", f"word {number} {number + 1}")
    return world


async def test_what_is_held_of_a_large_asset_at_a_time_is_a_part(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many documents there are, a first build reads those of one part at a time; only what is collected is read whole."""
    read: dict[str, int] = {}
    states = sight.asset_states

    async def noted(*given: Any, **known: Any) -> Any:
        found = await states(*given, **known)
        for name, state in found.items():
            read[name] = max(read.get(name, 0), state.documents.height)
        return found

    monkeypatch.setattr(sight, "asset_states", noted)
    await world.materialize()
    assert read == {"topics": PART, "chunks": PART * WORDS, "loud": 0, "counts": DOCUMENTS, "report": 0}


@pytest.mark.parametrize("code", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize(
    ("largest", "wanted"),
    {"in packs": (100, []), "objects of their own": (0, [5, 5, 5, 5, 3]), "of both kinds": (1, [5, 3])}.values(),
    ids=["in packs", "objects of their own", "of both kinds"],
)
async def test_where_documents_lie_is_told_with_them_or_of_some_at_a_time(
    world: World, monkeypatch: pytest.MonkeyPatch, code: str, largest: int, wanted: list[int]
) -> None:
    """A report over a large asset is given all of it, in order. Where packs hold it, that is known with it; of objects of their own, which
    have their fields in Postgres, it is asked of a few at a time.
    """
    asked: list[int] = []
    stored = Keeper.stored

    async def noted(keeper: Keeper, documents: Collection[int]) -> Any:
        asked.extend([len(documents)] if documents else [])
        return await stored(keeper, documents)

    monkeypatch.setattr(arguments, "READ_AT_ONCE", 5)
    monkeypatch.setattr(keep, "OWN_OBJECT_BYTES", largest)
    for name in ("06.txt", "21.txt"):  # in the second part and in the last
        world.document(name, " ".join(map(str, range(MANY))))
    await world.materialize("*")
    world.code(code)
    monkeypatch.setattr(Keeper, "stored", noted)
    assert await world.made() == {"report": {"made": 1}}
    assert asked == wanted
    [report] = (await world.contents())["report"].values()
    counted = ((number, MANY if number in (6, 21) else WORDS) for number in range(DOCUMENTS))
    assert report.decode() == "  ".join(f"{number:02}.txt {words}" for number, words in counted)


async def test_a_recipe_is_executed_once_whatever_part_its_units_are_in(world: World) -> None:
    """Words that stand in several topics are said out loud once; the other units take that."""
    done = await world.made()
    assert done["chunks"] == {"made": DOCUMENTS}
    assert done["loud"] == {"made": DOCUMENTS + 2, "reused": DOCUMENTS * WORDS - DOCUMENTS - 2}
    loud = (await world.contents())["loud"]
    assert len(loud) == DOCUMENTS * WORDS
    assert {text for _, text in loud.items()} == {b"WORD", *(str(n).encode() for n in range(DOCUMENTS + 1))}
    assert await world.plan() == {}


async def test_what_nothing_asks_for_any_more_leaves(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """With new code all is looked at, in parts; what was made of documents that are gone belongs to none of them, and goes."""
    await world.materialize()
    world.remove("05.txt")
    world.remove("22.txt")
    world.code(BODY.replace("str(len(words))", "str(2 * len(words))"))
    done = await world.made()
    assert done["counts"] == {"made": DOCUMENTS - 2, "removed": 2}
    assert len((await world.contents())["counts"]) == DOCUMENTS - 2
    assert await world.plan() == {}


async def test_where_nothing_of_a_source_could_be_taken_in_nothing_is_made(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that fails from the first: what is made of the source waits, and the next run makes it."""

    async def fail(*given: Any) -> Any:
        raise StorageError("The store is full.")

    monkeypatch.setattr(Keeper, "store", fail)
    result = await world.materialize()
    assert result.status == "failed"
    assert not any(a.made for a in result.assets)
    monkeypatch.undo()
    assert (await world.made())["chunks"] == {"made": DOCUMENTS}
    assert await world.plan() == {}


async def test_what_a_failing_store_kept_from_being_come_to_is_unfinished(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the store fails on the way, what is made of units in later parts is not made of what they were before."""
    await world.materialize()
    world.code(BODY.replace("text=word,", 'text=word + "!",'))
    monkeypatch.setattr(batches, "LARGEST_BATCH", 2)
    store, stored = Keeper.store, 0

    async def fail(self: Keeper, asset: Any, *given: Any) -> Any:
        nonlocal stored
        stored += asset.name == "chunks"
        if stored > 2:
            raise StorageError("The store is full.")
        return await store(self, asset, *given)

    monkeypatch.setattr(Keeper, "store", fail)
    result = await world.materialize()
    found = {a.asset: a for a in result.assets}
    assert result.status == "failed"
    assert found["chunks"].failed
    assert found["counts"].made + found["counts"].unchanged + found["counts"].fresh <= 4
    assert not found["report"].made
    monkeypatch.undo()
    await world.materialize()
    assert (await world.contents())["chunks"]["22.txt", "22-0"] == b"word!"
    assert await world.plan() == {}
