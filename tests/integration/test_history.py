"""History: what everything was at any time, by which run and for whom; and nothing that was written is changed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from assetcore.catalog import rebuild_catalog
from assetcore.errors import NothingSelectedError, SelectionError, UsageError
from assetcore.lineage import schema
from assetcore.lineage import tables as t
from assetcore.session import Session
from assetcore.settings import Settings
from tests.integration.world import CHUNKED, World

pytestmark = pytest.mark.integration

CODE = (
    CHUNKED
    + """
    @asset
    async def report(chunks: list[Chunk] = collect(chunks)) -> Report:
        return Report("report", text=" ".join(c.text for c in chunks))
"""
)
FACTS = (t.materialization, t.document, t.edge, t.collected, t.definition, t.part, t.object_, t.commit, t.spent)


@pytest.fixture
def world(settings: Settings) -> World:
    world = World(settings)
    world.code(CODE)
    world.document("a.txt", "one two")
    world.document("b.txt", "three")
    return world


async def run(world: World) -> str:
    result = await world.materialize()
    assert result.run is not None
    return result.run


async def shown(session: Session, ref: str, at: str | None = None) -> dict[str, str]:
    return {d.name: d.content.decode() for d in await session.show(ref, at=at)}


async def test_what_was_is_shown_as_it_was(world: World) -> None:
    """An asset, a unit, a document and a whole environment are read as of a run or a time, and compared with what they are."""
    first = await run(world)
    between = datetime.now(UTC).isoformat()
    world.document("a.txt", "one four")
    world.remove("b.txt")
    second = await run(world)
    async with world.open() as session:
        assert await shown(session, "chunks") == {"a-0": "one", "a-1": "four"}
        assert await shown(session, f"chunks@{first[:6]}") == {"a-0": "one", "a-1": "two", "b-0": "three"}
        assert await shown(session, "chunks", between) == await shown(session, f"chunks@{first}")
        assert await shown(session, f"chunks[b.txt]@{between}") == {"b-0": "three"}
        assert await shown(session, "report[report]/report", between) == {"report": "one two three"}
        assert await shown(session, f"chunks@{second}") == await shown(session, "chunks@now")
        with pytest.raises(NothingSelectedError, match="had no documents then"):
            await session.show("chunks@2 hours ago")
        with pytest.raises(UsageError, match="not a time"):
            await session.show("chunks", at="soon")
        assert {i.asset: (i.units, i.documents) for i in await session.ls(at=between)} == {
            "topics": (2, 2), "clean": (2, 2), "chunks": (2, 3), "report": (1, 1),
        }  # fmt: skip
        assert {i.documents for i in await session.ls(at="an hour ago")} == {0}
        diff = await session.diff(f"chunks@{first}")
        assert diff.counts == {"new": 0, "changed": 1, "gone": 1}
        assert [(d["document"], d["change"]) for d in diff.documents] == [
            ("chunks[a.txt]/a-1", "changed"), ("chunks[b.txt]/b-0", "gone"),
        ]  # fmt: skip
        diff = await session.diff(f"chunks[a.txt]/a-1@{first}", "chunks[a.txt]/a-1@now")
        assert "-two\n+four" in str(diff.diff)
        assert (await session.diff(f"chunks[a.txt]@{first}")).counts == {"new": 0, "changed": 1, "gone": 0}
        assert (await session.diff(f"chunks@{second}")).same
        with pytest.raises(UsageError, match="nothing to compare"):
            await session.diff("chunks")
        now, then = await session.lineage("report"), await session.lineage("report", at=between)
        assert {n.document for n in now.nodes if n.asset == "topics"} == {"a.txt"}
        assert {(n.asset, n.document) for n in then.nodes} >= {
            ("topics", "b.txt"),
            ("chunks", "b-0"),
            ("clean", "a.txt"),
        }
        assert {n.sha256 for n in then.nodes if n.asset == "topics"} != {
            n.sha256 for n in now.nodes if n.asset == "topics"
        }
        down = await session.lineage("topics[b.txt]", "down", at=first)
        assert {(n.asset, n.document) for n in down.nodes} == {
            ("topics", "b.txt"), ("clean", "b.txt"), ("chunks", "b-0"), ("report", "report"),
        }  # fmt: skip


async def test_history_tells_who_did_what_and_why(world: World) -> None:
    """Each change of a unit, a document or an asset has its time, run, actor, cause and what there was from then on."""
    first = await run(world)
    world.document("a.txt", "one four")
    second = await run(world)
    world.document("a.txt", "one two")
    third = await run(world)
    world.remove("a.txt")
    fourth = await run(world)
    async with world.open() as session:
        unit = await session.history("chunks[a.txt]")
        assert [(c.run, c.what, c.causes) for c in unit.changes] == [
            (fourth, "gone", ("input-removed",)),
            (third, "reused", ("input-changed",)),
            (second, "made", ("input-changed",)),
            (first, "made", ("missing",)),
        ]
        assert unit.changes[1].made_by == first
        assert unit.changes[1].documents == unit.changes[3].documents
        assert all("@" in str(c.actor) for c in unit.changes)
        document = await session.history("chunks[a.txt]/a-1")
        assert [c.run for c in document.changes] == [fourth, third, second, first]
        assert [c.run for c in (await session.history("chunks[a.txt]/a-0")).changes] == [fourth, first]
        asset = await session.history("chunks")
        assert [c.run for c in asset.changes] == [fourth, third, second, first]
        assert [c.what for c in asset.changes] == ["done"] * 4
        assert (asset.changes[3].counts or {})["made"] == 2
        assert [(c.causes, c.units) for c in (await session.history("clean")).changes] == [
            (("input-removed",), {"input-removed": 1}),
            (("input-changed",), {"input-changed": 1}),
            (("input-changed",), {"input-changed": 1}),
            (("missing",), {"missing": 2}),
        ]
        assert [c.units for c in asset.changes] == [
            {"input-removed": 1},
            {"pending": 1},
            {"pending": 1},
            {"pending": 2},
        ]
        assert [c.run for c in (await session.history("topics[b.txt]")).changes] == [first]
        made = await session.lineage(second, depth=1)
        assert {(n.asset, n.document) for n in made.nodes} == {
            ("topics", "a.txt"), ("clean", "a.txt"), ("chunks", "a-0"), ("chunks", "a-1"), ("chunks", "b-0"), ("report", "report")
        }  # fmt: skip
        assert {n.asset for n in (await session.lineage(second[:6], "down", 0)).nodes} == {n.asset for n in made.nodes}
        digest = next(n.sha256 for n in made.nodes if n.document == "b-0")
        with pytest.raises(SelectionError, match="beginning of 4 documents' ids"):  # the hash as --json prints it
            await session.show(str(digest)[:12])
        with pytest.raises(NothingSelectedError, match="no asset or document 0189"):
            await session.lineage("0189")
        with pytest.raises(NothingSelectedError, match="never had a unit 'x'"):
            await session.history("chunks[x]")


async def test_a_unit_that_is_not_there_is_told_by_what_became_of_it(world: World) -> None:
    """One that only ever failed, one that went, one that was not there then: each error names the verb that tells more."""
    world.code(CODE.replace("text=topic.text.strip()", 'text=[topic.text.strip()][topic.text == "bad"]'))
    world.document("bad.txt", "bad")
    await run(world)
    world.document("a.txt", "bad")
    world.remove("b.txt")
    failed = await run(world)
    async with world.open() as session:
        for ask in (session.show, session.lineage):
            with pytest.raises(NothingSelectedError, match=r"clean\[bad.txt\] was never made: it failed") as refused:
                await ask("clean[bad.txt]")
            assert refused.value.hint == "See: aipctl why 'clean[bad.txt]'"
        for ask in (session.show, session.lineage, session.why):
            with pytest.raises(NothingSelectedError, match=r"clean has no unit 'b.txt' any more") as refused:
                await ask("clean[b.txt]")
            assert refused.value.hint == "See: aipctl history 'clean[b.txt]'"
        with pytest.raises(NothingSelectedError, match=r"clean had no unit 'b.txt' then\.") as refused:
            await session.show("clean[b.txt]@2020-01-01")
        assert refused.value.hint == "See: aipctl history 'clean[b.txt]'"
        [only] = (await session.history("clean[bad.txt]")).changes
        assert (only.what, only.run, only.error) == ("failed", failed, "IndexError: list index out of range")
        last, *others = (await session.history("clean[a.txt]")).changes
        assert (last.what, last.run, last.to_json()["error"]) == (
            "failed",
            failed,
            "IndexError: list index out of range",
        )
        assert [one.what for one in others] == ["made"]
        assert "error" not in others[0].to_json()
        assert "failed" not in {one.what for one in (await session.history("clean[b.txt]")).changes}


async def test_of_equal_documents_no_more_of_the_id_is_asked_for(world: World) -> None:
    """It would tell them apart no better: they have the same content, and so the same id."""
    world.document("b.txt", "one two")
    await run(world)
    async with world.open() as session:
        one, _ = await session.show("clean")
        with pytest.raises(SelectionError, match="beginning of 4 documents' ids") as refused:
            await session.show(one.id)
        assert refused.value.hint == "They have the same content: name it as it is listed."


async def test_what_a_run_did_to_a_source_is_told_apart(world: World) -> None:
    """Documents of a source that came back or went are no units that were reused or removed: their row says that it is of a source."""
    await run(world)
    world.document("a.txt", "one four")
    await run(world)
    world.document("a.txt", "one two")
    world.remove("b.txt")
    await run(world)
    async with world.open() as session:
        found = (await session.runs())[0].to_json()
    rows = {row["asset"]: (row.get("kind"), row["reused"], row["removed"]) for row in found["assets"]}
    assert rows == {"topics": ("source", 1, 1), "clean": (None, 1, 1), "chunks": (None, 1, 1), "report": (None, 0, 0)}


LASTING = """
@asset(layout="files", freshness="1d")
async def words(topic: Topic = each(topics)) -> Topic:
    return Topic(topic.name, text=topic.text.upper())
"""


async def causes(world: World, ref: str) -> list[tuple[str, ...]]:
    """The causes of all that was done, the earliest first."""
    async with world.open() as session:
        return [change.causes for change in (await session.history(ref)).changes[::-1]]


async def test_why_a_unit_was_made_again_with_the_same_recipe(world: World) -> None:
    """Forced, lost, damaged, expired or gone before: as it was for the run, unit by unit, also where one run had several causes."""
    world.code(LASTING)
    world.now = datetime.now(UTC)
    bucket = Path(world.settings.storage_url.removeprefix("file://"))

    async def latest(asset: str, text: bytes) -> Path:
        return [
            path for path in sorted(bucket.rglob(f"{asset}/*")) if text in path.read_bytes() and path.name[0] != "_"
        ][-1]

    async def made_again() -> dict[str, int]:
        async with world.open() as session:
            await session.verify()
        plan = await world.plan()
        await run(world)
        return plan["words"]["causes"]

    await run(world)
    await world.materialize("words", force=True)
    (await latest("words", b"ONE TWO")).unlink()
    assert await made_again() == {"object-missing": 1}
    (await latest("words", b"ONE TWO")).write_bytes(b"ONE TOO")
    assert await made_again() == {"corrupt": 1}
    world.now += timedelta(days=2)
    assert await made_again() == {"expired": 2}
    world.now += timedelta(hours=20)
    await world.materialize("words[a.txt]", force=True)
    (await latest("words", b"ONE TWO")).unlink()
    world.now += timedelta(hours=5)
    assert await made_again() == {"object-missing": 1, "expired": 1}
    world.remove("a.txt")
    await run(world)
    world.document("a.txt", "one two")
    await run(world)
    forced, lost, expired = ("forced",), ("object-missing",), ("expired",)
    of_a = [("missing",), forced, lost, ("corrupt",), expired, forced, lost, ("input-removed",), ("missing",)]
    assert await causes(world, "words[a.txt]") == of_a
    changed = [one for one in of_a if one not in (forced, expired)]  # those came out as it was
    assert await causes(world, "words[a.txt]/a.txt") == changed
    assert await causes(world, "words[b.txt]") == [("missing",), forced, expired, expired]
    await rebuild_catalog(world.settings, replace=True, automatic_schema=False, say=lambda _: None)
    of_a[6] = ()  # which of the two it was, was noted in Postgres alone: nothing is said
    assert await causes(world, "words[a.txt]") == of_a
    assert await causes(world, "words[b.txt]") == [("missing",), forced, expired, ()]


async def test_an_asset_that_was_renamed_keeps_what_runs_did_to_it_and_why(world: World) -> None:
    """Counts and causes are those of the name that it had in the run, also where another asset has that name now."""
    await run(world)
    await world.materialize("chunks", force=True)
    async with world.open() as session:
        asset, unit = await session.history("chunks"), await session.history("chunks[a.txt]")
    world.code(
        CODE.replace("@asset\n    async def chunks", '@asset(renamed_from="chunks")\n    async def words').replace(
            "collect(chunks)", "collect(words)"
        )
    )
    world.document("a.txt", "one four")
    await run(world)
    plain = CODE.replace("def chunks", "def words").replace("collect(chunks)", "collect(words)")
    another = (
        plain[: plain.index("    @asset\n    async def report")]
        + """
    @asset
    async def chunks(topic: Topic = each(topics)) -> Topic:
        return topic
    """
    )
    world.code(another)
    world.document("b.txt", "five six seven")
    await run(world)
    async with world.open() as session:
        assert (await session.history("words")).changes[2:] == asset.changes
        assert (await session.history("words[a.txt]")).changes[1:] == unit.changes
        latest = (await session.history("words")).changes[0]
        assert (latest.counts or {})["made"] == 1
        assert [c.counts and c.counts["made"] for c in (await session.history("chunks")).changes] == [2]


async def test_why_a_document_of_a_source_was_taken_in_again(world: World) -> None:
    """Its bytes were lost, and it had not changed."""
    await run(world)
    bucket = Path(world.settings.storage_url.removeprefix("file://"))
    for path in bucket.rglob("topics/*"):
        if path.name[0] != "_":
            path.unlink()
    async with world.open() as session:
        await session.verify()
    await run(world)
    assert await causes(world, "topics[a.txt]") == [("missing",), ("object-missing",)]


async def test_the_history_of_a_unit_takes_the_same_statements_however_long_it_is(world: World) -> None:
    """What plans say and what is noted of lost bytes is asked for all versions at once."""
    seen: list[str] = []

    async def asked() -> int:
        async with world.open() as session:
            engine = session.project.engine.sync_engine
            sa.event.listen(engine, "before_cursor_execute", lambda *told: seen.append(told[2]))
            seen.clear()
            await session.history("clean[a.txt]")
            return len(seen)

    await run(world)
    few = await asked()
    for _ in range(3):
        await world.materialize("clean", force=True)
    assert len(await causes(world, "clean[a.txt]")) == 4
    assert await asked() == few


async def test_nothing_is_updated_in_place(world: World) -> None:
    """Whatever runs do (make, edit, revert, remove, force, change code), facts stay as they were; of a head only its end is written."""
    await run(world)
    engine = schema.connect(str(world.settings.database_url))
    seen = await rows(engine)
    steps = (
        lambda: world.document("a.txt", "one four"),
        lambda: world.document("a.txt", "one two"),
        lambda: world.remove("b.txt"),
        lambda: world.code(CODE.replace("strip()", "upper()")),
    )
    for step in steps:
        step()
        await run(world)
        now = await rows(engine)
        assert {table: before - now[table] for table, before in seen.items() if before - now[table]} == {}
        seen = now
    await world.materialize(force=True)
    now = await rows(engine)
    assert all(before <= now[table] for table, before in seen.items())
    async with engine.connect() as connection:
        ends = sa.select(t.head.c.since_commit, t.head.c.until_commit).where(t.head.c.until_commit.is_not(None))
        assert all(since < until for since, until in await connection.execute(ends))
    await engine.dispose()


async def rows(engine: schema.Engine) -> dict[str, set[Any]]:
    """All rows of the tables of facts; of heads what must never change."""
    found: dict[str, set[Any]] = {}
    async with engine.connect() as connection:
        for table in FACTS:
            found[table.name] = {repr(tuple(row)) for row in await connection.execute(sa.select(table))}
        h = t.head.c
        heads = sa.select(h.environment_id, h.asset_id, h.unit, h.materialization_id, h.since_commit)
        found["head"] = {repr(tuple(row)) for row in await connection.execute(heads)}
    return found


async def test_what_a_report_was_made_of_is_followed_as_it_then_was(world: World) -> None:
    """What was made again and came out the same changes nothing; one version of each document is at the root."""
    world.code(
        CODE
        + """
    @asset
    async def firsts(topic: Topic = each(topics)) -> Topic:
        return Topic(topic.name, text=topic.text.split()[0])

    @asset
    async def index(firsts: list[Topic] = collect(firsts), topics: list[Topic] = collect(clean)) -> Report:
        return Report("index", text=f"{firsts[0].text} {topics[1].text}")
    """
    )
    await run(world)
    async with world.open() as session:
        before = await session.lineage("index")
    world.document("a.txt", "one two ")  # `clean` and `firsts` come out the same
    await run(world)
    async with world.open() as session:
        assert await session.lineage("index") == before
    world.document("b.txt", "three four")  # `clean` comes out differently, `firsts` does not
    await run(world)
    async with world.open() as session:
        after = await session.lineage("index")
    assert sorted(str(node.unit) for node in after.nodes if node.asset == "topics") == ["a.txt", "b.txt"]
