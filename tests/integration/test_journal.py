"""The journal: what was done is told, nothing of it can be changed unnoticed, and it survives Postgres."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from assetcore.catalog import rebuild_catalog
from assetcore.errors import UsageError
from assetcore.journal import JournalCheck, since_when
from assetcore.lineage import records, runs, schema
from assetcore.lineage import tables as t
from assetcore.lineage.journal import Entry, append
from assetcore.moments import moment
from assetcore.settings import Settings
from tests.integration.world import World

pytestmark = pytest.mark.integration

CODE = """
@asset
async def chunks(topic: Topic = each(topics)) -> list[Chunk]:
    return [Chunk(name=f"{topic.stem}-{i}", text=w, ordinal=i) for i, w in enumerate(topic.text.split())]
"""


@pytest.fixture
async def world(settings: Settings) -> World:
    """A project that was made once, and again after an edit."""
    world = World(settings)
    world.code(CODE)
    world.document("alice.txt", "the text of alice")
    world.document("bob.txt", "the text of bob")
    await world.materialize()
    world.document("bob.txt", "another text")
    await world.materialize()
    return world


async def problems(world: World) -> tuple[str, ...]:
    async with world.open() as session:
        return (await session.check_journal()).problems


async def changed(world: World, statement: sa.Executable) -> None:
    engine = schema.connect(str(world.settings.database_url))
    async with engine.begin() as connection:
        await connection.execute(statement)
    await engine.dispose()


async def test_every_change_is_a_row_in_the_order_in_which_it_was_done(world: World) -> None:
    """Runs and commits, with who did it; of a unit, those that changed it; documents of a source by name."""
    async with world.open() as session:
        told = await session.journal()
        assert [(line.row.what, line.row.asset) for line in told] == 2 * [
            ("run", None), ("commit", "topics"), ("commit", "chunks"), ("run", None)
        ]  # fmt: skip
        assert [line.row.number for line in told] == list(range(1, 9))
        assert {line.row.actor for line in told} != {""}
        assert [line.names for line in told if line.row.asset == "topics"] == [("alice.txt", "bob.txt"), ("bob.txt",)]
        assert len(await session.journal("topics[bob.txt]")) == len(await session.journal("chunks[bob.txt]")) == 2
        assert len(await session.journal("topics[alice.txt]")) == 1
        assert [line.row.number for line in await session.journal(limit=3)] == [6, 7, 8]
        assert await session.journal(since=datetime.now(UTC) + timedelta(hours=1)) == []
        assert (await session.check_journal()).unsealed == 0
    assert await problems(world) == ()
    assert len(batches(world)) == 2
    assert b"alice" not in b"".join(path.read_bytes() for path in batches(world))


async def test_nothing_can_be_changed_unnoticed(world: World) -> None:
    """A row that was changed or taken out, a batch that was lost and a manifest that was edited are each named."""
    row, manifest = (
        t.journal,
        sorted(Path(world.settings.storage_url.removeprefix("file://")).glob("demo/main/*/chunks/_manifest-*"))[0],
    )
    await changed(world, sa.update(row).where(row.c.number == 3).values(actor="somebody else"))
    assert any("Row 3 (commit" in problem for problem in await problems(world))
    await changed(world, sa.delete(row).where(row.c.number.in_([5, 6])))
    assert "Rows 5 to 6 of the journal are missing." in await problems(world)
    manifest.write_bytes(manifest.read_bytes() + b" ")
    (batch,) = Path(world.settings.storage_url.removeprefix("file://")).glob(
        "demo/main/*/journal/_record-journal-00000005-*"
    )
    batch.unlink()
    found = " ".join(await problems(world))
    assert "is not the one that was committed" in found
    assert "The batch of the rows 5 to 8 cannot be read" in found


async def test_rows_that_a_process_left_behind_go_with_the_next_batch(world: World) -> None:
    """What Postgres was told survives the process; what Postgres had told nobody when it was lost is known to be missing, by number."""
    async with world.open() as session:
        async with session.project.engine.begin() as connection:
            from assetcore.lineage.journal import Entry, append

            await append(connection, session.project.id, Entry("left", why="the process died"))
        assert (await session.check_journal()).unsealed == 1
    world.document("bob.txt", "a third text")
    await world.materialize()
    async with world.open() as session:
        assert (await session.check_journal()).unsealed == 0
    (last,) = Path(world.settings.storage_url.removeprefix("file://")).glob(
        "demo/main/*/journal/_record-journal-00000009-*"
    )
    last.unlink()
    await rebuild_catalog(world.settings, replace=True, automatic_schema=False, say=lambda _: None)
    async with world.open() as session:
        told = await session.journal()
        assert [line.row.number for line in told] == list(range(1, 10))
        assert told[-1].row.what == "rebuild"
        assert len(told[-1].row.facts["untold"]) == 2
        assert told[1].names == ("alice.txt", "bob.txt")
        assert json.dumps([line.to_json() for line in told])
    assert await problems(world) == ()


def batches(world: World) -> list[Path]:
    return sorted(
        Path(world.settings.storage_url.removeprefix("file://")).glob("demo/main/*/journal/_record-journal-*")
    )


async def rebuilt(world: World) -> JournalCheck:
    """What `journal verify` says when Postgres was made again of the bucket."""
    await rebuild_catalog(world.settings, replace=True, automatic_schema=False, say=lambda _: None)
    async with world.open() as session:
        return await session.check_journal()


async def test_batches_bear_witness_after_a_rebuild_too(world: World) -> None:
    """The journal is as it was but for the row of the rebuild; the next batch holds what is new, and one that is changed is found."""
    async with world.open() as session:
        before = await session.check_journal()
    assert await rebuilt(world) == replace(before, rows=before.rows + 1, unsealed=1)
    written = batches(world)
    world.document("bob.txt", "a third text")
    await world.materialize()
    (new,) = set(batches(world)) - set(written)
    assert new.name == "_record-journal-00000009-00000013.json.gz"
    async with world.open() as session:
        after = await session.check_journal()
    assert after == JournalCheck(13, 3, 0, ())
    assert await rebuilt(world) == replace(after, rows=14, unsealed=1)
    written[0].write_bytes(new.read_bytes())
    (found,) = await problems(world)
    assert written[0].name in found
    assert "is not the one that was written" in found


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("how", ["edited", "shortened", "damaged"])
async def test_a_batch_that_was_changed_before_a_rebuild_is_found(world: World, how: str, place: int) -> None:
    """Also the last one, after which no row follows: the rows that its key names are missed, and no other takes their numbers."""
    path = batches(world)[place]
    record = records.decode(path.read_bytes())
    match how:
        case "edited":
            record["journal"][-1]["actor"] = "somebody else"
            path.write_bytes(records.encode(record))
        case "shortened":
            record |= {"journal": record["journal"][:-1], "last": record["last"] - 1}
            path.write_bytes(records.encode(record))
        case _:
            data = path.read_bytes()
            path.write_bytes(data[:100] + bytes([data[100] ^ 255]) + data[101:])
    found = await rebuilt(world)
    last = 4 * (place + 1)
    expected = {
        "edited": [f"Row {last} (run, "],
        "shortened": [f"Rows {last} to {last} of the journal are missing", f"does not hold the rows {last - 3} to {last}"],
        "damaged": [f"Rows {last - 3} to {last} of the journal are missing", f"The batch of the rows {last - 3} to {last} cannot be read"],
    }[how]  # fmt: skip
    assert len(found.problems) == len(expected)
    assert all(said in problem for said, problem in zip(expected, found.problems, strict=True))
    assert (found.batches, found.unsealed) == (2, 1)
    world.document("bob.txt", "a third text")
    await world.materialize()
    assert [one.name for one in batches(world)][2:] == ["_record-journal-00000009-00000013.json.gz"]
    assert await problems(world) == found.problems


async def test_rows_that_were_written_twice_are_covered_by_both(world: World) -> None:
    """Two processes write at once, and an earlier release wrote all rows again after a rebuild: all of these bear witness."""
    one, other = batches(world)
    told = [record for path in (one, other) for record in records.decode(path.read_bytes())["journal"]]
    again = one.with_name("_record-journal-00000001-00000007.json.gz")
    again.write_bytes(records.encode({"project": "demo", "first": 1, "last": 7, "journal": told[:7]}))
    assert await rebuilt(world) == JournalCheck(9, 2, 1, ())
    other.write_bytes(again.read_bytes())
    assert any(other.name in problem for problem in await problems(world))
    again.unlink()
    assert any("The batch of the rows 1 to 7 cannot be read" in problem for problem in await problems(world))


def test_moments_are_dates_or_how_long_ago() -> None:
    """3d is three days ago; a date without a zone is meant here; anything else is told."""
    now = datetime(2026, 11, 21, 12, tzinfo=UTC)
    assert since_when("3d", now) == datetime(2026, 11, 18, 12, tzinfo=UTC)
    assert since_when("2026-11-21T08:00+00:00", now) == datetime(2026, 11, 21, 8, tzinfo=UTC)
    assert since_when("2026-11-21", now).tzinfo is not None
    assert since_when("yesterday", now) == moment("yesterday", now)
    assert since_when("2 hours ago", now) == datetime(2026, 11, 21, 10, tzinfo=UTC)
    for never in ("", "99999999999999d", "²d", "0001-01-01", "21c810ffe5", "recently"):
        with pytest.raises(UsageError, match="is no moment"):
            since_when(never, now)


async def test_two_runs_that_begin_at_once_do_not_wait_for_each_other(world: World) -> None:
    """Both have told Postgres of their run when each comes to the journal: one after the other, and the chain holds."""
    async with world.open() as session:
        project = session.project

    async def tell(connection: schema.Connection, run: str) -> None:
        await append(connection, project.id, Entry("run", "prod", run=run, facts={"status": "begun"}))
        await connection.commit()

    engine = schema.connect(str(world.settings.database_url))
    async with engine.connect() as one, engine.connect() as other:
        for connection, run in ((one, "one"), (other, "other")):
            await runs.begin(connection, run, project.id, project.environment_id, "", {}, datetime.now(UTC))
        await asyncio.gather(tell(one, "one"), tell(other, "other"))
    await engine.dispose()
    assert await problems(world) == ()
