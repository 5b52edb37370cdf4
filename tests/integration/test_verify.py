"""Verify: what is lost or damaged in the store is found, becomes stale, and is made again; nothing else is."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from assetcore.errors import StorageError
from assetcore.settings import Settings
from assetcore.verify import Verified
from tests.integration.world import World

pytestmark = pytest.mark.integration

BODY = """
@asset(layout="files")
async def chunks(topic: Topic = each(topics)) -> list[Chunk]:
    (CALLS / topic.name).write_text("x")
    return [Chunk(name=f"{topic.stem}-{i}", text=word, ordinal=i) for i, word in enumerate(topic.text.split())]

@asset
async def upper(chunk: Chunk = each(chunks)) -> Report:
    return Report(name=chunk.name, text=chunk.text.upper())

@asset
async def report(chunks: list[Report] = collect(upper)) -> Report:
    return Report(name="report.txt", text=" ".join(c.text for c in chunks))

from pathlib import Path
CALLS = Path(__file__).parent.parent.parent / "calls"
CALLS.mkdir(exist_ok=True)
"""


@pytest.fixture
def world(settings: Settings) -> World:
    world = World(settings)
    world.code(BODY)
    for number in range(25):
        world.document(f"t{number:02}.txt", f"alpha{number} beta{number}")
    return world


def store(world: World) -> Path:
    return Path(world.settings.storage_url.removeprefix("file://"))


def objects(world: World, asset: str) -> list[Path]:
    return sorted(p for p in store(world).rglob(f"{asset}/*") if not p.name.startswith("_"))


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place % len(data)] ^= 0x10
    path.write_bytes(data)


async def verify(world: World, select: str | None = None, **options: object) -> Verified:
    async with world.open() as session:
        return await session.verify(select, **options)  # type: ignore[arg-type]  # what a caller may give


async def test_bit_rot_in_one_of_fifty_objects(world: World) -> None:
    """P10: a flipped bit and a lost object are found, a plan makes exactly their units again, and what is below comes out as it was."""
    await world.materialize()
    before = await world.contents()
    assert not (await verify(world)).findings
    files = objects(world, "chunks")
    assert len(files) == 50
    flip(files[17], 3)
    files[31].unlink()
    found = await verify(world)
    assert sorted((f.cause, f.asset, f.key) for f in found.findings) == [
        (cause, "chunks", str(path.relative_to(store(world))))
        for cause, path in [("corrupt", files[17]), ("object-missing", files[31])]
    ]
    plan = await world.plan()
    assert plan["chunks"]["causes"] == {"object-missing": 1, "corrupt": 1}
    assert {d["unit"] for d in (await details(world, "chunks"))} == {f.unit for f in found.findings}
    async with world.open() as session:
        why = await session.why(f"chunks[{found.findings[0].unit}]")
        assert why.causes[0].code == found.findings[0].cause
        assert found.findings[0].key in why.causes[0].detail
    for call in (world.root / "calls").iterdir():
        call.unlink()
    made = await world.made()
    assert made == {"chunks": {"made": 2}}
    assert {call.name for call in (world.root / "calls").iterdir()} == {f.unit for f in found.findings}
    assert await world.contents() == before
    assert await world.plan() == {}
    assert not (await verify(world)).findings


async def details(world: World, asset: str) -> list[dict[str, object]]:
    async with world.open() as session:
        plan = await session.plan(asset)
    return [unit.to_json() for unit in plan.assets[0].details]


async def test_a_pack_that_is_damaged_anywhere(world: World) -> None:
    """Every byte of a pack counts: wherever one is flipped it is found, and afterwards all is mended."""
    await world.materialize()
    before = await world.contents()
    (pack,) = objects(world, "upper")
    size = pack.stat().st_size
    for place in (5, size // 2, size - 30):
        (pack,) = objects(world, "upper")[-1:]
        flip(pack, place)
        assert {f.asset for f in (await verify(world)).findings} == {"upper"}, place
        made = await world.made()
        assert set(made) == {"upper"}
    assert await world.contents() == before


async def test_what_a_source_has_kept_is_read_again(world: World) -> None:
    """A source whose kept bytes are lost reads them again; what is made of them is fresh."""
    await world.materialize()
    for path in objects(world, "topics"):
        path.unlink()
    assert {f.cause for f in (await verify(world, "topics")).findings} == {"object-missing"}
    async with world.open() as session:
        plan = await session.plan()
        assert [(s.lost, s.changed, s.new) for s in plan.sources] == [(25, 0, 0)]
    result = await world.materialize()
    assert all(a.made == a.unchanged == 0 for a in result.assets)
    assert (await world.contents())["topics"]["t03.txt", "t03.txt"] == b"alpha3 beta3"
    assert await world.plan() == {}


async def test_a_run_that_stumbles_over_a_lost_object_is_mended_by_the_next(world: World) -> None:
    """Without verify, a read that finds an object gone names it, and from then on it is a cause like any other."""
    await world.materialize()
    (pack,) = objects(world, "upper")
    pack.unlink()
    world.code(BODY.replace('" ".join', '"-".join'))
    assert set(await world.plan()) == {"report"}
    result = await world.materialize()
    assert result.status == "failed"
    assert str(pack.relative_to(store(world))) in result.failures[0].error
    assert (await world.plan())["upper"]["causes"] == {"object-missing": 50}
    assert await world.made() == {"upper": {"made": 50}, "report": {"made": 1}}
    async with world.open() as session:
        (pack,) = objects(world, "upper")
        pack.unlink()
        with pytest.raises(StorageError, match="upper"):
            await session.show("upper")
    assert (await world.plan())["upper"]["causes"] == {"object-missing": 50}


async def test_a_store_that_was_away_is_no_reason_to_make_anything_again(world: World) -> None:
    """What was noted as lost is looked at once more before it is made again: what is back costs nothing."""
    await world.materialize()
    (pack,) = objects(world, "upper")
    pack.rename(world.root / "away")
    assert len((await verify(world)).findings) == 50
    assert (await world.plan())["upper"]["stale"] == 50
    (world.root / "away").rename(pack)
    assert (await world.materialize()).status == "nothing to do"
    assert await world.plan() == {}


async def test_an_earlier_result_whose_bytes_are_lost_is_not_taken_back(world: World) -> None:
    """P21 gives way to P10: an edit that is taken back executes again where the earlier bytes are gone."""
    await world.materialize()
    (pack,) = objects(world, "upper")
    pack.unlink()
    await verify(world)
    world.code(BODY.replace("upper()", "lower()"))
    await world.materialize()
    world.code(BODY)
    assert (await world.made())["upper"] == {"made": 50}


async def test_a_verification_goes_on_where_it_was_stopped(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an interrupted verification has read is not read again; one that has ended begins anew."""
    await world.materialize()
    monkeypatch.setattr("assetcore.verify.PORTION", 10)
    async with world.open() as session:
        stopped = asyncio.create_task(
            session.verify("chunks", on_event=lambda event: stopped.cancel() if event.done == 20 else None)
        )
        with pytest.raises(asyncio.CancelledError):
            await stopped
        rest = await session.verify("chunks")
        assert (rest.already, rest.objects) == (20, 30)
        again = await session.verify("chunks")
        assert (again.already, again.objects) == (0, 50)


RANDOM = """
import os

@asset
async def steady(topic: Topic = each(topics)) -> Report:
    return Report(topic.name, text=topic.text)

@asset
async def drawn(topic: Topic = each(topics)) -> Report:
    return Report(topic.name, text=f"{topic.text}\\n{os.urandom(4).hex()}")

@asset
def broken(topic: Topic = each(topics)) -> Report:
    assert not os.path.exists(os.environ.get("BROKEN", "/nowhere"))
    return Report(topic.name, text=topic.text)
"""


async def test_what_does_not_come_out_the_same_is_told_and_marked(world: World, tmp_path: Path) -> None:
    """Units made once more are compared and leave nothing behind; from then on `ls` marks the asset, and a plan of P10 says so."""
    world.code(RANDOM)
    await world.materialize()
    before = await world.contents()
    listed = sorted(store(world).rglob("*"))
    async with world.open() as session:
        found = await session.rerun(9)
        assert {(one.asset, one.same) for one in found} == {("steady", True), ("drawn", False), ("broken", True)}
        assert len(found) == 9
        assert all("(once more)" in one.diff and one.diff.count("\n-") == 1 for one in found if one.asset == "drawn")
        assert {i.asset: i.repeats for i in await session.ls("not topics")} == {
            "steady": (3, 0), "drawn": (3, 3), "broken": (3, 0),
        }  # fmt: skip
    assert await world.contents() == before
    assert sorted(store(world).rglob("*")) == listed
    for path in [*objects(world, "drawn"), *objects(world, "steady")]:
        path.unlink()
    await verify(world)
    async with world.open() as session:
        notes = [note for note in (await session.plan()).notes if note["code"] == "VARIES"]
    assert [(note["asset"], note["where"]) for note in notes] == [("drawn", "3 of 3 did before, without a cause")]
    await world.materialize()
    async with world.open() as session:
        assert {i.asset: i.repeats for i in await session.ls("drawn or steady")} == {
            "steady": (28, 0), "drawn": (28, 28),
        }  # fmt: skip
