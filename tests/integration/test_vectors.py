"""Vectors: the index is derived of documents, finds the nearest under any filter, and changes hands in one transaction."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from sqlalchemy.schema import DropTable

from assetcore import gaps, measures, vectors
from assetcore.embeddings import LARGEST, LONGEST, Embedding, Vector, unfit
from assetcore.errors import AssetcoreError, NothingSelectedError, UnindexedError, UsageError
from assetcore.lineage import schema, tables
from assetcore.lineage import vectors as index
from assetcore.lineage.tables import answer as answers
from assetcore.lineage.vectors import Row
from assetcore.session import Session
from assetcore.settings import Settings
from assetcore.storage import MissingObjectError
from tests import readme
from tests.integration.gateway import KEY, FakeGateway, Reply, fake_gateway
from tests.integration.world import HEAD, World

pytestmark = pytest.mark.integration

BODY = (
    HEAD
    + """
from assetcore import SearchIndex, llm
from assetcore.embeddings import Embedding

class TopicVector(Embedding):
    letter: str

@asset(models=["embedder"])
async def vectors(topic: Topic = each(topics)) -> TopicVector:
    [vector] = await llm.embed([topic.text])
    return TopicVector.of(topic.stem, vector, asset="topics", document=topic.name, letter=topic.name[0])

@asset
async def words(topics: pl.DataFrame = collect(topics)) -> SearchIndex:
    return SearchIndex.build("topics", topics.select("name", "text", asset=pl.lit("topics")))
"""
)
NAMES = ("ant", "ape", "bee", "cow")


@pytest.fixture
async def gateway() -> AsyncIterator[FakeGateway]:
    async with fake_gateway() as found:
        yield found


@pytest.fixture
def world(settings: Settings, gateway: FakeGateway) -> World:
    world = World(settings.using("test", openai_base_url=gateway.url, openai_api_key=KEY))
    world.code(BODY, head="")
    for name in NAMES:
        world.document(f"{name}.txt", f"all about the {name}")
    return world


@pytest.fixture
async def opened(world: World) -> AsyncIterator[Session]:
    """The world, made, and open."""
    await world.materialize()
    async with world.open() as session:
        yield session


async def test_the_nearest_documents_are_found_under_filters(opened: Session, gateway: FakeGateway) -> None:
    """By the documents' typed fields, one value or any of several; fewer than asked for only where there are fewer."""
    asked = gateway.vector("all about the bee")
    found = await vectors.similarity_search(opened.project, "vectors", asked, k=2)
    assert (found[0].name, found[0].score) == ("bee", pytest.approx(1, abs=1e-3))
    assert len(found) == 2
    by_letter = await vectors.similarity_search(opened.project, "vectors", asked, {"letter": "a"}, k=10)
    assert {one.name for one in by_letter} == {"ant", "ape"}
    several = await vectors.similarity_search(
        opened.project, "vectors", asked, {"letter": ["a", "c"], "asset": "topics"}, k=10
    )
    assert {one.name for one in several} == {"ant", "ape", "cow"}


RAW = """
from assetcore.embeddings import Embedding

class TopicVector(Embedding):
    letter: str

@asset
async def vectors(topic: Topic = each(topics)) -> TopicVector:
    numbers = {"ant": NUMBERS, "ape": [0.0, 0.0]}.get(topic.stem, [1.0, 0.5])
    return TopicVector.of(topic.stem, numbers, model="m", asset="topics", document=topic.name, letter=topic.name[0])
"""

FIELDS = """
import datetime as dt
import decimal, enum, uuid
from assetcore import llm
from assetcore.embeddings import Embedding

class Colour(enum.Enum):
    RED, BLUE = "red", "blue"

class TopicVector(Embedding):
    day: dt.date
    at: dt.datetime
    lasts: dt.timedelta
    price: decimal.Decimal
    key: uuid.UUID
    digest: bytes
    colour: Colour
    tags: set[str]
    pair: tuple[int, int]
    ordinal: int
    public: bool
    share: float
    letter: str

@asset(models=["embedder"])
async def vectors(topic: Topic = each(topics)) -> TopicVector:
    [vector] = await llm.embed([topic.text])
    first = topic.name.startswith("a")
    return TopicVector.of(
        topic.stem, vector, asset="topics", document=topic.name, day=dt.date(2026, 1, len(topic.text)),
        at=dt.datetime(2026, 1, 1, 2, tzinfo=dt.timezone(dt.timedelta(hours=2 * first))), lasts=dt.timedelta(hours=1 + first),
        price=decimal.Decimal("1.10" if first else "2"), key=uuid.UUID(int=first), digest=b"\\xff" if first else b"a",
        colour=Colour.RED if first else Colour.BLUE, tags={"all", "first" if first else "other"}, pair=(1, 2 + first),
        ordinal=int(first), public=first, share=float("nan") if first else 0.5, letter=topic.name[0],
    )
"""


async def test_fields_of_every_kind_filter_in_python_and_as_texts(world: World, gateway: FakeGateway) -> None:
    """Whatever a document can hold: days, moments, decimals, enums, flags; a text is read as the field's annotation says."""
    world.code(HEAD + FIELDS, head="")
    result = await world.materialize()
    assert result.status == "done"
    async with world.open() as session:
        asked, first, others = gateway.vector("all about the ant"), {"ant", "ape"}, {"bee", "cow"}

        async def named(**filters: Any) -> set[str]:
            found = await vectors.similarity_search(session.project, "vectors", asked, filters, k=10)
            return {one.name for one in found}

        assert await named(day=date(2026, 1, 17)) == first | others
        assert await named(at=datetime(2026, 1, 1, tzinfo=UTC)) == await named(at="2026-01-01T01:00:00+01:00") == first
        assert (
            await named(lasts=timedelta(hours=2))
            == await named(price=Decimal("1.1"))
            == await named(price="1.10")
            == first
        )
        assert await named(key=UUID(int=0)) == await named(digest=b"a") == await named(colour="blue") == others
        assert (
            await named(tags="first")
            == await named(tags=["first", "none"])
            == await named(tags=[["all", "first"]])
            == first
        )
        assert await named(pair=[(1, 3)]) == await named(pair=3, ordinal="1") == first
        assert await named(letter=[]) == set()
        assert await named(share=0.5, letter="b") == {"bee"}
        assert await named(share="nan", letter="a") == first, "what JSON has no word for hides no other field"
        for texts, names in (
            ({"day": ["2026-01-17"], "public": ["false"]}, others), ({"ordinal": ["1"]}, first), ({"colour": ["red"]}, first),
        ):  # fmt: skip
            assert {hit.name for hit in await session.search("all about", filters=texts)} == {f"{n}.txt" for n in names}
        with pytest.raises(UsageError, match=r"'ordinal' of TopicVector cannot be 'three': it is int"):
            await session.search("all about", filters={"ordinal": ["three"]})


async def test_what_cannot_be_asked_is_told(opened: Session) -> None:
    """A field that the documents do not have, a vector of another length, and an asset or a generation that there is not."""
    with pytest.raises(UsageError, match="no field 'colour'; it has: asset, document, letter"):
        await vectors.similarity_search(opened.project, "vectors", [0.0] * 8, {"colour": "red"})
    with pytest.raises(UsageError, match=r"vectors of 8 numbers .* asked for one of 3"):
        await vectors.similarity_search(opened.project, "vectors", [1.0, 2.0, 3.0])
    for name in ("vektors", "words", "topics"):
        with pytest.raises(UsageError, match=f"{name} is no asset of vectors; demo has: vectors"):
            await vectors.similarity_search(opened.project, name, [0.0] * 8)
    with pytest.raises(NothingSelectedError, match=r"no complete generation 999; there are: \d+\."):
        await vectors.ask(opened.project, "vectors", "ants", generation=999)


async def test_an_index_that_is_not_made_yet(world: World) -> None:
    """Says how to make it."""
    async with world.open() as session:
        with pytest.raises(NothingSelectedError, match="vectors is not made yet"):
            await vectors.similarity_search(session.project, "vectors", [0.0] * 8)


async def test_only_what_changed_is_asked_for(world: World, gateway: FakeGateway) -> None:
    """A changed document is a row that is replaced, a new one is added, one that is gone leaves."""
    await world.materialize()
    world.document("bee.txt", "all about honey")
    world.document("dog.txt", "all about the dog")
    world.remove("cow.txt")
    asked = len(gateway.asked)
    await world.materialize()
    assert sorted(text for q in gateway.asked[asked:] for text in q[1]["input"]) == [
        "all about honey",
        "all about the dog",
    ]
    async with world.open() as session:
        found = await vectors.similarity_search(session.project, "vectors", gateway.vector("all about honey"), k=10)
        assert found[0].name == "bee"
        assert {one.name for one in found} == {"ant", "ape", "bee", "dog"}
        assert len(await vectors.generations(session.project)) == 1


async def test_a_lost_index_is_made_again_without_a_model(opened: Session, gateway: FakeGateway) -> None:
    """A table that somebody dropped, and `rebuild`: both are made of the documents in the store."""
    asked = len(gateway.asked)
    [one] = await vectors.generations(opened.project)
    async with opened.project.engine.begin() as connection:
        await connection.run_sync(sa.Table(f"vector_{one.id}", sa.MetaData()).drop)
    with pytest.raises(UsageError, match=r"has a field 'nosuchfield' to filter by[\s\S]*letter"):
        await opened.search("all about the cow", filters={"nosuchfield": "1"})
    hits = await opened.search("all about the cow", filters={"letter": "c"})
    assert [hit.name for hit in hits] == ["cow.txt"]
    for again in (vectors.sync, vectors.rebuild):
        made = await again(opened.project, "vectors")
        assert made is not None
        assert made.id > one.id
        found = await vectors.similarity_search(opened.project, "vectors", gateway.vector("all about the ant"), k=1)
        assert found[0].name == "ant"
    assert len(gateway.asked) == asked


async def test_an_index_answers_until_another_has_taken_its_place(
    world: World, gateway: FakeGateway, caplog: pytest.LogCaptureFixture
) -> None:
    """`rebuild` drops nothing where an object is lost, which is noted, or where documents are of several models; nor the index before."""
    await world.materialize()
    for pack in Path(str(world.settings.storage_url).removeprefix("file://")).rglob("vectors/pack*"):
        pack.unlink()
    asked = gateway.vector("all about the bee")
    async with world.open() as session:
        with pytest.raises(MissingObjectError):
            await vectors.rebuild(session.project, "vectors")
        assert (await vectors.similarity_search(session.project, "vectors", asked, k=1))[0].name == "bee"
        [one] = await vectors.generations(session.project)
        async with session.project.engine.begin() as connection:  # as after a run whose documents cannot be read
            known = await index.known(connection, one)
            await index.remove(connection, one, list(known or ())[:1])
            await index.note(connection, one, synced=-1)
        assert len(await vectors.similarity_search(session.project, "vectors", asked)) == 3
        assert "The index of vectors answers as it is, because it cannot be brought up to date" in caplog.text
    assert (await world.plan())["vectors"]["causes"] == {"object-missing": 4}
    await world.materialize()
    gateway.models["embedder"] = "test/other"
    await world.materialize("vectors[ant.txt]")
    async with world.open() as session:
        before = await vectors.generations(session.project)
        with pytest.raises(UnindexedError, match="is not made again, because no other would have all documents"):
            await vectors.rebuild(session.project, "vectors")
        assert await vectors.generations(session.project) == before
    await world.materialize()
    async with world.open() as session:
        earlier, made = before[-1].id, await vectors.rebuild(session.project, "vectors")
        assert made is not None
        assert [(one.id, one.active) for one in await vectors.generations(session.project)] == [
            (made.id, True), (earlier, False),
        ]  # fmt: skip
        assert (await vectors.rollback(session.project, "vectors")).id == earlier


async def test_an_index_goes_with_its_environment_and_with_its_asset(world: World, gateway: FakeGateway) -> None:
    """`env drop` takes it along, `gc` what is left of others: tables as well; what is there keeps its own."""
    await world.materialize()
    elsewhere = World(world.settings.using("test", environment="pr"))

    async def there() -> tuple[list[tuple[str, str]], int]:
        async with world.open() as session, session.project.engine.connect() as connection:
            g = tables.vector_generation.c
            rows = (await connection.execute(sa.select(g.environment, g.asset).order_by(g.id))).all()
            named = await connection.run_sync(lambda sync: sa.inspect(sync).get_table_names())
        return [(row[0], row[1]) for row in rows], sum(name.startswith("vector_") for name in named) - 2

    async with world.open() as session:
        await session.create_environment("pr", "prod")
    async with elsewhere.open() as session:
        await vectors.sync(session.project, "vectors")
        assert (await there()) == ([("prod", "vectors"), ("pr", "vectors")], 2)
    async with world.open() as session:
        await session.drop_environment("pr")
        assert (await there()) == ([("prod", "vectors")], 1)
        for environment in ("gone", "prod"):
            async with session.project.engine.begin() as connection:
                await index.create(
                    connection, "demo", environment, "former" if environment == "prod" else "vectors", "m", 2, {}
                )
        await session.gc()
        assert len((await there())[0]) == 3
        await session.gc(dry_run=False)
        assert (await there()) == ([("prod", "vectors")], 1)
        hits = await session.search("all about the cow", filters={"letter": "c"})
        assert [hit.name for hit in hits] == ["cow.txt"]


async def test_what_is_forgotten_is_in_no_index_that_was_being_made(world: World) -> None:
    """Who forgets a document waits for an index that it is being put into."""
    await world.materialize()
    async with world.open() as session:
        [one] = await vectors.generations(session.project)
        async with session.project.engine.begin() as another, asyncio.TaskGroup() as group:
            await index.alone(another, "demo", "prod", "vectors")
            made = await index.create(another, "demo", "prod", "vectors", one.model, one.dimensions, {})
            known = await index.known(another, one) or {}
            await index.upsert(
                another, made, [Row(address, known[address], "x", {}, [1.0] * one.dimensions) for address in known]
            )
            forgetting = group.create_task(session.forget("topics[bee.txt]", dry_run=False))
            await asyncio.wait([forgetting], timeout=2)
            assert not forgetting.done()
            await another.commit()
        async with session.project.engine.connect() as connection:
            assert [len(await index.known(connection, each) or ()) for each in (one, made)] == [3, 3]
            await connection.execute(DropTable(sa.Table(f"vector_{one.id}", sa.MetaData())))
            await connection.commit()
        assert (await session.forget("topics[cow.txt]", dry_run=False)).documents  # where somebody dropped a table, too
        async with session.project.engine.connect() as connection:
            assert len(await index.known(connection, made) or ()) == 2


async def test_nobody_waits_for_an_index_that_is_brought_up(
    opened: Session, gateway: FakeGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A search is answered by the index as it is; those that have to wait find it brought up, and do not do it again."""
    project, read, known = opened.project, 0, index.known

    async def counted(*given: Any) -> dict[bytes, int] | None:
        nonlocal read
        read += 1
        return await known(*given)

    monkeypatch.setattr(index, "known", counted)
    [one] = await vectors.generations(project)
    async with project.engine.begin() as connection:
        await index.note(connection, one, synced=-1)
    async with project.engine.begin() as another, asyncio.TaskGroup() as group:
        await index.alone(another, project.name, project.environment, "vectors")
        async with asyncio.timeout(10):
            found = await vectors.similarity_search(project, "vectors", gateway.vector("all about the bee"), k=1)
            assert [hit.name for hit in await opened.search("all about the cow", filters={"letter": "c"})] == [
                "cow.txt"
            ]
        assert (found[0].name, read) == ("bee", 0)
        for _ in range(3):
            group.create_task(vectors.sync(project, "vectors"))
        await asyncio.sleep(0.3)
        await another.rollback()
    assert read == 1


async def test_another_model_is_another_generation(
    world: World, gateway: FakeGateway, caplog: pytest.LogCaptureFixture
) -> None:
    """While only some documents are of the new model the old generation answers; then the new one does, until it is rolled back."""
    await world.materialize()
    gateway.models["embedder"], gateway.dimensions = "test/more-letters", 12
    await world.materialize("vectors[ant.txt]")
    async with world.open() as session:
        newer, older = await vectors.generations(session.project)
        assert (newer.active, newer.dimensions, older.active, older.dimensions) == (False, 12, True, 8)
    await world.materialize()
    async with world.open() as session:
        newer, older = await vectors.generations(session.project)
        assert (newer.active, older.active) == (True, False)
        assert (await vectors.similarity_search(session.project, "vectors", gateway.vector("all about the ant")))[
            0
        ].name == "ant"
        [earlier] = await vectors.similarity_search(
            session.project, "vectors", gateway.vector("all about the ant")[:8], k=1, generation=older.id
        )
        assert earlier.name == "ant"
        back = await vectors.rollback(session.project, "vectors")
        assert (back.id, back.model) == (older.id, "test/letters")
        assert "Until it has, words alone decide what a search finds." in caplog.text
        assert "bee.txt" in {hit.name for hit in await session.search("all about the bee")}
        assert "vectors is not asked: The index of vectors is of test/letters" in caplog.text
        with pytest.raises(UsageError, match=r"vectors is of test/letters, which the gateway .* does not have"):
            await vectors.ask(session.project, "vectors", "ants")
        with pytest.raises(NothingSelectedError, match="no earlier generation"):
            await vectors.rollback(session.project, "vectors")
        assert (await vectors.activate(session.project, "vectors", newer.id)).active


async def test_an_index_that_is_behind_says_so(
    world: World, gateway: FakeGateway, caplog: pytest.LogCaptureFixture
) -> None:
    """A text that the new model refuses keeps the old one answering: run, search and list name it, and how much is not found meanwhile.

    When the alias points to the first model again, the first index answers again.
    """
    reply = gateway.reply

    async def refuse(method: str, path: str, headers: Any, body: Any) -> Reply:
        refused = any("honey" in text for text in body.get("input", []))
        return Reply(400, "{}") if refused else await reply(method, path, headers, body)

    await world.materialize()
    gateway.models["embedder"] = "test/other"
    gateway.reply = refuse  # type: ignore[method-assign]
    world.document("bee.txt", "all about honey")
    world.document("dog.txt", "all about the dog")
    assert [failure.unit for failure in (await world.materialize()).failures] == ["bee.txt"]
    missed = "is behind: 1 of its documents are in that of {} alone, and are not found by meaning."
    said = f"{missed.format('test/other')} That of test/other answers when it has all; it lacks bee."
    assert [event.text for event in world.events if said in event.text]
    async with world.open() as session:
        await session.search("all about the dog")
        assert said in caplog.text
        assert said in (await gaps.behind(session.project, "vectors"))[0]
        gateway.reply = reply  # type: ignore[method-assign]
        await world.materialize()
        assert await gaps.behind(session.project, "vectors") == []
        newer, older = await vectors.generations(session.project)
        assert (newer.model, newer.active) == ("test/other", True)
        gateway.models["embedder"] = "test/letters"
        await world.materialize()
        assert (await vectors.active(session.project, "vectors")).id == older.id
        await vectors.activate(session.project, "vectors", newer.id)
        world.document("eel.txt", "all about the eel")
        await world.materialize()
        assert (await vectors.active(session.project, "vectors")).id == newer.id, "somebody chose it"
        [told] = await gaps.behind(session.project, "vectors", soon=True)
        assert missed.format("test/letters") in told
        assert f"To have that answer: aipctl vectors rollback vectors --to {older.id}" in told


async def test_documents_of_several_models_have_no_index_that_answers(world: World) -> None:
    """A model for each language, say: what is told is not that nothing was made, but why none answers, and what to do."""
    world.code(HEAD + RAW.replace("NUMBERS", "[1.0, 0.5, 2.0]"), head="")
    await world.materialize()
    said = "vectors has no index that answers, because its documents are of several models: "
    assert [event.text for event in world.events if said in event.text]
    async with world.open() as session:
        for search in (session.search("ants"), vectors.similarity_search(session.project, "vectors", [1.0, 0.5])):
            with pytest.raises(UnindexedError, match=f"{said}3 of m with 2 numbers, 1 of m with 3 numbers"):
                await search


async def test_a_filter_by_a_field_that_nothing_has_is_refused_by_the_words_alone(world: World) -> None:
    """Before there are vectors, and where there are to be none: it is no reason to find nothing."""
    await world.materialize("words")
    async with world.open() as session:
        assert [hit.name for hit in await session.search("cow")] == ["cow.txt"]
        with pytest.raises(UsageError, match=r"has a field 'nosuchfield' to filter by[\s\S]*letter"):
            await session.search("cow", filters={"nosuchfield": "1"})
    world.code(BODY[: BODY.index("@asset(models")] + BODY[BODY.index("@asset\n") :], head="")
    async with world.open() as session:
        with pytest.raises(UsageError, match=r"'letter' to filter by[\s\S]*no asset returns Embeddings"):
            await session.search("cow", filters={"letter": "c"})


async def test_an_index_of_another_stage_answers_as_it_is(world: World, gateway: FakeGateway) -> None:
    """Where nothing may be written, an index that is behind is not brought up to date, and what a model says is not kept."""
    await world.materialize()
    async with world.open() as session:
        [one] = await vectors.generations(session.project)
        async with session.project.engine.begin() as connection:
            await index.note(connection, one, synced=0)
    await schema.upgrade(str(world.settings.database_url), "prod")
    async with world.open() as session:
        assert [hit.name for hit in await session.search("all about the cow", limit=1)] == ["cow.txt"]
        assert await vectors.generations(session.project) == [replace(one, synced=0)]
        answer = await session.project.llm.ask([{"role": "user", "content": "who?"}], "generator", {}, 0, 30)
        assert answer.text
        async with session.project.engine.connect() as connection:
            assert not (await connection.execute(sa.select(answers))).all()
    assert not list((world.root / "store" / "demo" / "answers").glob("*"))


async def test_an_index_changes_hands_while_it_is_asked(world: World, gateway: FakeGateway) -> None:
    """Another model, going back, and making all of it again: whoever asks meanwhile has an answer, and all of it."""
    await world.materialize()
    answers: list[list[str]] = []

    async def ask(session: Session, asked: asyncio.Event) -> None:
        while not asked.is_set():
            found = await vectors.similarity_search(
                session.project, "vectors", gateway.vector("all about the bee"), k=4
            )
            answers.append(sorted(one.name for one in found))

    async with world.open() as session, world.open() as other:
        over = asyncio.Event()
        asking = [asyncio.create_task(ask(session, over)) for _ in range(3)]
        gateway.models["embedder"] = "test/other-letters"
        await world.materialize()
        await vectors.rollback(other.project, "vectors")
        for _ in range(3):
            await vectors.rebuild(other.project, "vectors")
        over.set()
        await asyncio.gather(*asking)
    assert len(answers) > 10
    assert {tuple(one) for one in answers} == {NAMES}


async def test_search_asks_for_words_and_for_meaning(opened: Session, gateway: FakeGateway) -> None:
    """What both find comes first; a filter holds for both; without the gateway the words decide alone."""
    hits = await opened.search("all about the cow", limit=2)
    assert (hits[0].name, hits[0].asset) == ("cow.txt", "topics")
    assert {hit.name for hit in await opened.search("about the cow", filters={"letter": "a"})} == {"ant.txt", "ape.txt"}
    gateway.replies = [Reply(503, "{}")]
    assert (await opened.search("cow"))[0].name == "cow.txt"


async def test_a_long_document_does_not_hide_the_others(world: World, gateway: FakeGateway) -> None:
    """`limit` is of documents: where one has more pieces near the question than are asked for, more are."""
    world.code(HEAD + """
from assetcore import llm
from assetcore.embeddings import Embedding

@asset(models=["embedder"])
async def vectors(topic: Topic = each(topics)) -> list[Embedding]:
    [vector] = await llm.embed([topic.text])
    pieces = 80 if topic.stem == "bee" else 1
    return [Embedding.of(f"{topic.stem}-{i}", vector, asset="topics", document=topic.name) for i in range(pieces)]
""", head="")  # fmt: skip
    await world.materialize()
    async with world.open() as session:
        hits = await session.search("all about the bee", limit=4)
        assert hits[0].name == "bee.txt"
        assert {hit.name for hit in hits} == {f"{name}.txt" for name in NAMES}


async def test_every_filter_gives_as_many_rows_as_there_are(database: str) -> None:
    """With an HNSW index over 6,000 rows: under a filter that keeps 1 % as well, and the same rows as an exact search."""
    engine = schema.connect(database)
    rng = random.Random(7)
    async with engine.begin() as connection:
        one = await index.create(
            connection, "p", "prod", "a", "m", 16, {"m": 8, "ef_construction": 32, "ef_search": 40}
        )
        rows = [
            Row(
                i.to_bytes(16, "big"),
                i,
                f"r{i}",
                {"rare": i % 100 == 0, "asset": "a"},
                [rng.gauss(0, 1) for _ in range(16)],
            )
            for i in range(6000)
        ]
        await index.upsert(connection, one, rows)
        await index.upsert(connection, one, rows[:10])  # again: the same rows
        assert await index.count(connection, one) == 6000
        await index.build_index(connection, one, 8, 32)
        [one] = await index.generations(connection, "p", "prod")
        assert one.indexed
        for filters in ({}, {"rare": True}):
            asked = [rng.gauss(0, 1) for _ in range(16)]
            found = await index.nearest(connection, one, asked, 10, filters, exact=False)
            exact = await index.nearest(connection, one, asked, 10, filters, exact=True)
            assert len(found) == len(exact) == 10
            best = max(_cosine(asked, r.vector) for r in rows if not filters or r.fields["rare"])
            assert exact[0].score == pytest.approx(best, abs=2e-3)
            assert len({f.name for f in found} & {e.name for e in exact}) >= 8
        assert len(await index.nearest(connection, one, asked, 100, {"rare": True}, exact=False)) == 60
    async with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        for filters, there in (({}, 10), ({"asset": "a"}, 10), ({"rare": True}, 10), ({"asset": "b"}, 0)):
            found = await index.nearest(connection, one, asked, 10, filters)
            assert len(found) == there
            if "rare" in filters:
                assert found == exact
    await engine.dispose()


async def test_parameters_are_tried_beside_an_exact_search(world: World) -> None:
    """A trial says recall, latency and what building took; the best is the fastest of those that find enough; nothing of it stays."""
    for i in range(40):
        world.document(f"{i}.txt", f"number {i}")
    await world.materialize()
    async with world.open() as session:
        tried = await measures.trial(
            session.project, "vectors", m=[4, 8], ef_construction=[16], ef_search=[10, 100], questions=10
        )
        assert [(one.m, one.ef_search) for one in tried] == [(4, 10), (4, 100), (8, 10), (8, 100)]
        assert set(tried[0].to_json()) == readme.keys("aipctl vectors trial")["trials"].always
        assert all(0.5 < one.recall <= 1 and one.p50_ms <= one.p95_ms and one.bytes > 0 for one in tried)
        chosen = await vectors.best(session.project, "vectors")
        assert chosen is not None
        assert chosen.p50_ms == min(one.p50_ms for one in tried if one.recall >= 0.99)
        again = await vectors.rebuild(session.project, "vectors")
        assert again is not None
        assert again.parameters == chosen.parameters
        assert not again.indexed
        with pytest.raises(UsageError, match="do not go together"):
            await measures.trial(session.project, "vectors", m=[16], ef_construction=[16])
        for candidates in (0, 9, 1001, 5000):
            with pytest.raises(UsageError, match=f"ef_search={candidates} is no number of candidates"):
                await measures.trial(
                    session.project, "vectors", m=[16], ef_construction=[32], ef_search=[100, candidates]
                )
        listed = await vectors.trials(session.project, "vectors")
        assert [one for _, one in listed] == tried[::-1]
        assert len({at for at, _ in listed}) == 1
        assert [one for _, one in await vectors.trials(session.project, "vectors", 1)] == tried[-1:]
        rows = [entry.row for entry in await session.journal()]
        [row] = [row for row in rows if row.what == "vectors trial"]
        assert (row.asset, row.facts["rows"], len(row.facts["trials"])) == ("vectors", 44, 4)
        assert row.facts["trials"][0] == tried[0].measured()
        changed = [
            (row.what, row.facts.get("generation"), row.facts.get("dropped"))
            for row in rows
            if row.what in ("vectors activate", "vectors rebuild")
        ]
        first = changed[0][1]
        assert changed == [
            ("vectors activate", first, None),
            ("vectors activate", again.id, None),
            ("vectors rebuild", None, [first]),
        ]

        async with session.project.engine.begin() as connection:  # of an earlier version: measured with another number
            untrue = replace(tried[0], ef_search=0, recall=1.0, p50_ms=0.0)
            await index.journal(
                connection, [{"project": "demo", "environment": session.environment, **untrue.to_json()}]
            )
        assert await vectors.best(session.project, "vectors") == chosen


async def test_two_models_are_compared_by_what_their_generations_find(
    world: World, gateway: FakeGateway, variables: dict[str, str]
) -> None:
    """Recall@k, what only one of them found and the overlap are those of an exact search; each is asked by its own model."""
    texts = {
        f"{name}{i}": f"All about {name} {i}. It says of itself that it is {name} {i}."
        for name in NAMES
        for i in range(4)
    }
    for name in NAMES:
        world.remove(f"{name}.txt")
    for name, text in texts.items():
        world.document(f"{name}.txt", text)
    await world.materialize()
    gateway.models |= {"embedder": "test/more-letters", "embedder-before": "test/letters"}
    gateway.dimensions, gateway.shorter = 12, {"embedder-before": 8}
    await world.materialize()

    async with world.open() as session:
        found = await measures.compare(session.project, k=3)
        readme.hold("aipctl vectors compare", found.to_json())
        with pytest.raises(NothingSelectedError, match=r"no complete generation 999; there are: \d+, \d+\."):
            await measures.compare(session.project, (999, found.generations[0].generation))
        with pytest.raises(UsageError, match="two generations of the same index"):
            await measures.compare(session.project, (found.generations[0].generation,) * 2)
    asked = [
        text for body in gateway.questions("/v1/embeddings") for text in body["input"] if text not in texts.values()
    ]
    assert len(asked) == 2 * found.questions, "each question once of each model"

    def nearest(question: str, dimensions: int) -> set[str]:
        def cosine(text: str) -> float:
            one, other = gateway.vector(question)[:dimensions], gateway.vector(text)[:dimensions]
            return sum(a * b for a, b in zip(one, other, strict=True)) / math.hypot(*one) / math.hypot(*other)

        return set(sorted(texts, key=lambda name: -cosine(texts[name]))[:3])

    questions = asked[: found.questions]
    right = {question: next(n for n in texts if question in texts[n]) for question in questions}
    assert found.k == 3
    both = [[nearest(question, dimensions) for question in questions] for dimensions in (8, 12)]
    recalls = [[right[q] in names for q, names in zip(questions, one, strict=True)] for one in both]
    assert [one.recall for one in found.generations] == [round(sum(one) / len(questions), 4) for one in recalls]
    assert [one.only for one in found.generations] == [
        sum(a and not b for a, b in zip(*sides, strict=True)) for sides in (recalls, recalls[::-1])
    ]
    assert found.overlap == pytest.approx(
        sum(len(a & b) / 3 for a, b in zip(*both, strict=True)) / len(questions), abs=1e-4
    )


async def test_shortened_vectors_are_asked_for_by_vectors_of_their_length(world: World, gateway: FakeGateway) -> None:
    """Search and comparison ask the model for as many numbers as an index has; where it gives no such, that is told."""
    await world.materialize()
    world.code(BODY.replace("[topic.text])", "[topic.text], dimensions=4)"), head="")
    await world.materialize()
    async with world.open() as session:
        for text in ("who?", "where?"):
            await vectors.ask(session.project, "vectors", text)
        assert (await vectors.ask(session.project, "vectors", "all about the bee", k=1))[0].name == "bee"
        assert [body.get("dimensions") for body in gateway.questions("/v1/embeddings")[-3:]] == [None, 4, 4]
        found = await measures.compare(session.project, k=1)
        assert [(one.dimensions, one.recall) for one in found.generations] == [(8, 1.0), (4, 1.0)]
        gateway.shortens = False
        with pytest.raises(UsageError, match=r"embedder \(test/letters\) gives vectors of .* numbers, and none of 4"):
            await vectors.ask(session.project, "vectors", "who is the ape?")


async def test_sizes_of_questions_are_measured_and_journaled(world: World, gateway: FakeGateway) -> None:
    """Every text is asked for in questions of each size, whatever is kept of it; times are told, and the best size is in the journal."""
    for name in NAMES:
        world.document(f"{name}.txt", " ".join(f"{name}{i}" for i in range(300)))
    await world.materialize()
    before = len(gateway.asked)
    async with world.open() as session:
        found = await measures.sweep(session.project, "vectors", [100, 400])
        readme.hold("aipctl vectors sweep", found.to_json())
        last = (await session.journal())[-1].row
    assert found.texts == 12, "of each document three different parts"
    assert [one.tokens for one in found.batches] == [100, 400]
    assert found.texts == found.batches[0].questions > found.batches[1].questions > 1
    assert all(0 < one.p50_ms <= one.p95_ms for one in found.batches)
    asked = [len(body["input"]) for _, body in gateway.asked[before:]]
    assert sum(asked) in (6 * found.texts, 6 * found.texts + 1), "three times in either size, after one to begin with"
    assert (last.what, last.facts["tokens a question"]) == ("vectors sweep", found.best)
    assert found.best in (100, 400)


def test_an_embedding_holds_its_vector_and_its_model() -> None:
    """32-bit floats and back; what is no vector is told."""
    one = Embedding.of("a", Vector([0.5, -2.0], "test/letters"), asset="topics", document="a.txt")
    assert (one.vector, one.model, len(one.content)) == ([0.5, -2.0], "test/letters", 8)


async def test_a_vector_that_no_index_can_hold_fails_its_unit_alone(world: World) -> None:
    """A norm of zero makes NaN of a vector: its unit is named, the others are found; one of zeros is as far from all as can be told."""
    world.code(HEAD + RAW.replace("NUMBERS", "[float('nan'), 1.0]"), head="")
    result = await world.materialize()
    [failure] = result.failures
    assert failure.unit == "ant.txt"
    assert "a vector that has nan in it" in failure.error
    async with world.open() as session:
        found = await vectors.similarity_search(session.project, "vectors", [1.0, 0.5], k=10)
        assert [(one.name, one.score) for one in found] == [("bee", 1.0), ("cow", 1.0), ("ape", 0.0)]
        for bad in ([math.nan, 1.0], [1e6, 1.0]):
            with pytest.raises(UsageError, match=r"vectors was asked for a vector that has (nan|1e.06) in it"):
                await vectors.similarity_search(session.project, "vectors", bad)


async def test_stored_vectors_that_no_index_can_hold_are_left_out_and_named(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Those of an earlier version, or of a source: the run says so once it has made all, and what else there is is found."""
    with monkeypatch.context() as patch:
        patch.setattr("assetcore.values.unfit", lambda _: None)
        patch.setattr("assetcore.embeddings.unfit", lambda _: None)
        world.code(HEAD + RAW.replace("NUMBERS", "[float('inf'), 1.0]"), head="")
        result = await world.materialize()
    assert result.status == "done"
    told = [event.text for event in world.events if "cannot be in its index" in event.text]
    assert [text.split(". ")[0] for text in told] == [
        "1 of the documents of vectors cannot be in its index, and are not found by meaning: ant (has inf in it)"
    ]
    async with world.open() as session:
        found = await vectors.similarity_search(session.project, "vectors", [1.0, 0.5], k=10)
        assert {one.name for one in found} == {"ape", "bee", "cow"}
        assert await vectors.rebuild(session.project, "vectors") is not None
    assert "ant (has inf in it)" in caplog.text
    world.code(HEAD + RAW.replace("NUMBERS", "[0.5, 1.0]"), head="")
    await world.materialize("vectors[ant.txt]")
    async with world.open() as session:
        assert len(await vectors.similarity_search(session.project, "vectors", [1.0, 0.5], k=10)) == 4
    world.code(
        HEAD
        + RAW.replace("NUMBERS", "[0.5, 1.0]")
        .replace("letter: str", "letter: str\n    size: int")
        .replace("letter=", "size=1, letter="),
        head="",
    )
    await world.materialize("vectors[ant.txt]")
    caplog.clear()
    async with world.open() as session:
        assert await vectors.rebuild(session.project, "vectors") is not None
        assert "ape (TopicVector('ape') does not fit its declaration: size: Field required" in caplog.text
        [found] = await vectors.similarity_search(session.project, "vectors", [1.0, 0.5], {"size": 1}, k=10)
        assert found.name == "ant"


async def test_an_index_that_cannot_be_brought_up_to_date_ends_no_run(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was made is kept and told as made, with what to do about the index; the next search does it."""

    async def full(*_: Any) -> None:
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(index, "upsert", full)
        result = await world.materialize()
    assert result.status == "done"
    [told] = [event.text for event in world.events if "could not be brought up to date" in event.text]
    assert "no space left on device" in told
    assert "aipctl vectors rebuild vectors" in told
    async with world.open() as session:
        assert [hit.name for hit in await session.search("all about the cow", limit=1)] == ["cow.txt"]


async def test_vectors_that_are_too_wide_for_hnsw_are_looked_at_one_by_one(
    world: World, gateway: FakeGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pgvector holds 16,000 numbers, and builds an index over 4,000: beyond, many rows are no reason to end in an error."""
    engine = schema.connect(str(world.settings.database_url))
    async with engine.begin() as connection:
        for wide in (index.WIDEST, LONGEST):
            one = await index.create(connection, "p", "prod", f"a{wide}", "m", wide, vectors.DEFAULTS)
            await index.upsert(connection, one, [Row(b"a" * 16, 1, "a", {}, [LARGEST] * wide)])
            [found] = await index.nearest(connection, one, [1.0] * wide, 10, {})
            assert found.score == pytest.approx(1, abs=1e-3)
            if wide == index.WIDEST:
                await index.build_index(connection, one, 8, 32)
    await engine.dispose()
    monkeypatch.setattr(vectors, "EXACT", 3)
    monkeypatch.setattr(vectors, "WIDEST", 7)
    monkeypatch.setattr(measures, "WIDEST", 7)
    await world.materialize()
    async with world.open() as session:
        assert [one.indexed for one in await vectors.generations(session.project)] == [False]
        with pytest.raises(UsageError, match="have 8 numbers; HNSW is built over 7 at most"):
            await measures.trial(session.project, "vectors")
        monkeypatch.setattr(vectors, "WIDEST", 8)
        again = await vectors.rebuild(session.project, "vectors")
        assert again is not None
        assert again.indexed


@pytest.mark.parametrize("number", [0.0, -1e-45, 32_767.9, 32_768, -65_504])
def test_an_index_can_hold_what_halfvec_can(number: float) -> None:
    """Up to 65,504, which is the largest of 16 bits."""
    assert unfit(Embedding.of("a", [number, 1.0]).content) is None


@pytest.mark.parametrize(
    "vector", [[], [math.nan], [1.0, math.inf], [-math.inf], [65_505, 1.0], [-1e6], [1e300], [0.1] * (LONGEST + 1)]
)
def test_what_no_index_can_hold_is_no_embedding(vector: list[float]) -> None:
    """It is refused where it is made, with what is wrong with it."""
    with pytest.raises(
        AssetcoreError, match=r"Embedding\('a'\) was given a vector that has (no numbers|16,001 numbers|\S+ in it)"
    ):
        Embedding.of("a", vector)


def _cosine(one: Sequence[float], other: Sequence[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True)) / math.hypot(*one) / math.hypot(*other)
