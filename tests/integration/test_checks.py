"""The truth table of checks, each row with real stores: what is asked when, what is kept, and what becomes current."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from assetcore.errors import NothingSelectedError
from assetcore.lineage import checks
from assetcore.lineage import commit as lineage
from assetcore.lineage import tables as t
from assetcore.lineage.commit import Batch
from assetcore.results import RunResult
from assetcore.settings import Settings
from assetcore.storage import Key
from tests.integration.command import Command
from tests.integration.world import HEAD, World, let_go_on

pytestmark = pytest.mark.integration

CHECKED_HEAD = HEAD.replace("import Document, asset,", "import Document, asset, check,")
BODY = """
@asset
async def chunks(topic: Topic = each(topics)) -> list[Chunk]:
    return [Chunk(f"{topic.stem}-{i}", text=w, ordinal=i) for i, w in enumerate(topic.text.split())]

@asset
async def report(chunks: list[Chunk] = collect(chunks)) -> Report:
    return Report("report.txt", text=" ".join(c.text for c in chunks))
"""
NO_BAD = """
@check(chunks, blocking=True)
async def no_bad(chunk: Chunk) -> str | None:
    return f"{chunk.text} is bad" if chunk.text.startswith("bad") else None
"""
FEW = """
@check(chunks, blocking=True)
async def few(chunks: pl.DataFrame) -> None:
    assert chunks.height <= 3, f"{chunks.height} chunks"
"""


@pytest.fixture
def world(settings: Settings) -> World:
    world = World(settings)
    world.document("a.txt", "alpha")
    world.document("b.txt", "beta gamma")
    return world


def code(world: World, *bodies: str) -> None:
    world.code("".join((BODY, *bodies)), head=CHECKED_HEAD)


def counts(result: RunResult) -> dict[str, dict[str, int]]:
    """The non-zero counts of every asset that something was done to."""
    found = {a.asset: {k: v for k, v in a.to_json().items() if k != "asset" and v} for a in result.assets}
    return {asset: c for asset, c in found.items() if c}


def said(result: RunResult) -> dict[str, tuple[str, int, int]]:
    """Status, passed and not passed of every check."""
    return {c.check: (c.status, c.passed, c.failed + c.errors) for c in result.checks}


async def rows(world: World, table: sa.Table) -> list[Any]:
    async with world.open() as session, session.project.engine.connect() as connection:
        return list((await connection.execute(sa.select(table))).all())


async def texts(world: World, asset: str = "chunks") -> str:
    return " ".join(sorted(c.decode() for c in (await world.contents()).get(asset, {}).values()))


# -- over a unit -----------------------------------------------------------------------------------------------------------------


async def test_a_check_that_passes_changes_nothing(world: World) -> None:
    """What passes is made as without a check; there is one result for each unit, and then nothing to do."""
    code(world, NO_BAD)
    result = await world.materialize()
    assert (result.status, said(result)) == ("done", {"no_bad": ("passed", 2, 0)})
    assert len(await rows(world, t.check_result)) == 2
    again = await world.materialize()
    assert (again.run, said(again)) == (None, {"no_bad": ("passed", 2, 0)})


async def test_a_refused_unit_keeps_its_old_content_and_downstream_is_untouched(world: World) -> None:
    """Only the unit is refused: its old content is current, the others are committed, the report waits, the run has failed."""
    code(world, NO_BAD)
    await world.materialize()
    world.document("a.txt", "alpha bad")
    world.document("b.txt", "beta delta")
    result = await world.materialize()
    assert result.status == "failed"
    assert counts(result) == {"chunks": {"made": 1, "failed": 1}, "report": {"skipped": 1}}
    assert result.failures[0].unit == "a.txt"
    assert result.failures[0].error == "refused by the check no_bad: a-1: bad is bad"
    assert await texts(world) == "alpha beta delta"
    assert await texts(world, "report") == "alpha beta gamma"
    plan = await world.plan()
    assert plan["chunks"]["causes"] == {"failed": 1}
    assert said(result) == {"no_bad": ("failed", 2, 1)}


async def test_a_refused_unit_is_made_again_by_the_next_run_as_any_failed_unit(world: World) -> None:
    """P14 holds: what failed is tried again, what succeeded stays; when its input is mended, all is made and there is nothing to do."""
    code(world, NO_BAD)
    world.document("a.txt", "bad")
    assert counts(await world.materialize())["chunks"] == {"made": 1, "failed": 1}
    assert counts(await world.materialize())["chunks"] == {"failed": 1, "fresh": 1}
    world.document("a.txt", "good")
    mended = await world.materialize()
    assert (mended.status, counts(mended)["chunks"]["made"]) == ("done", 1)
    assert said(mended) == {"no_bad": ("passed", 2, 0)}
    assert await world.plan() == {}


async def test_what_was_refused_is_taken_without_a_call_when_the_check_is_mended(world: World) -> None:
    """A check that was too strict is edited: the documents that it refused become current, and no function is called."""
    code(world, NO_BAD)
    world.document("a.txt", "badge")
    await world.materialize()
    code(world, NO_BAD.replace('.startswith("bad")', ' == "bad"'))
    result = await world.materialize()
    assert (result.status, counts(result)["chunks"]) == ("done", {"reused": 1, "fresh": 1})
    assert await texts(world) == "badge beta gamma"


async def test_a_warning_is_committed_and_told(world: World) -> None:
    """A check that does not block keeps nothing back: the run is done, and the finding stays until the document changes."""
    code(world, NO_BAD.replace(", blocking=True", ""))
    world.document("a.txt", "bad")
    result = await world.materialize()
    assert (result.status, result.failures) == ("done", ())
    assert said(result) == {"no_bad": ("failed", 1, 1)}
    assert [str(f) for c in result.checks for f in c.findings] == ["a.txt: bad is bad"]
    again = await world.materialize()
    assert (again.status, said(again)) == ("nothing to do", {"no_bad": ("failed", 1, 1)})


@pytest.mark.parametrize("asynchronous", ["async def", "def"])
@pytest.mark.parametrize(
    ("line", "status", "message"),
    [
        ("return None", "passed", ""),
        ("return True", "passed", ""),
        ("return ''", "passed", ""),
        ("return False", "failed", "returned False"),
        ("return 'too short'", "failed", "too short"),
        ("assert chunks == []", "failed", "assert chunks == []"),
        ("raise ValueError('no heading')", "failed", "no heading"),
        ("raise KeyError('heading')", "error", "KeyError: 'heading'"),
        ("return 5", "error", "returned 5, which is neither None, True or False nor a text"),
    ],
)
async def test_what_a_function_says_and_what_it_means(
    world: World, asynchronous: str, line: str, status: str, message: str
) -> None:
    """Over a list, once for each unit; the same on the event loop and in another process."""
    world.remove("b.txt")
    body = f"\n@check(chunks)\n{asynchronous} some(chunks: list[Chunk]) -> bool | str | None:\n    {line}\n"
    code(world, body)
    result = await world.materialize("chunks")
    assert result.status == "done"
    assert said(result) == {"some": (status, int(status == "passed"), int(status != "passed"))}
    assert [f.message for f in result.checks[0].findings] == ([message] if message else [])


async def test_sync_checks_are_asked_where_the_runner_calls(world: World) -> None:
    """Those of an async asset, too; the name of a check is known there as that of an asset is."""
    world.settings = world.settings.using("test", runner="threads")
    code(world, "\n@check(chunks)\ndef some(chunk: Chunk) -> bool:\n    return chunk.text != 'alpha'\n")
    assert said(await world.materialize("chunks")) == {"some": ("failed", 1, 1)}


async def test_a_check_that_could_not_say_is_asked_again_and_blocks(world: World) -> None:
    """An error is no pass: a blocking check that raises refuses, and what it could not say is asked by the next run."""
    code(world, NO_BAD.replace(", blocking=True", "").replace("return", "raise OSError('down')\n    return"))
    assert said(await world.materialize()) == {"no_bad": ("error", 0, 2)}
    assert counts(await world.materialize())["chunks"] == {"fresh": 2}
    code(world, NO_BAD.replace("return", "raise OSError('down')\n    return"))
    result = await world.materialize()
    assert (result.status, len(result.failures)) == ("failed", 2)
    assert await texts(world) == "alpha beta gamma"


async def test_a_process_that_a_check_ends_is_no_pass(world: World) -> None:
    """A check that takes its process along could not say; the run goes on."""
    code(world, "\n@check(chunks)\ndef some(chunks: list[Chunk]) -> None:\n    import os; os._exit(1)\n")
    result = await world.materialize()
    assert (result.status, said(result)) == ("done", {"some": ("error", 0, 2)})
    assert "ended in the middle" in result.checks[0].findings[0].message


# -- when a check changes --------------------------------------------------------------------------------------------------------


async def test_an_edited_check_is_asked_of_what_is_current_and_nothing_is_made(world: World) -> None:
    """Its code is no part of the recipe. The plan says that it is to be asked; a comment in it changes nothing."""
    code(world, NO_BAD)
    await world.materialize()
    code(world, NO_BAD.replace("    return", "    # a comment\n    return"))
    assert (await world.materialize()).run is None
    code(world, NO_BAD.replace('"bad"', '"be"'))
    async with world.open() as session:
        plan = await session.plan()
    assert (plan.stale, plan.up_to_date, [c.due for c in plan.checks]) == (0, False, [True])
    result = await world.materialize()
    assert counts(result) == {"chunks": {"fresh": 2}, "report": {"fresh": 1}}
    assert (result.status, said(result)) == ("failed", {"no_bad": ("failed", 1, 1)})
    assert result.failures[0].error == "what is current is refused by the check no_bad: b-0: beta is bad"
    assert await texts(world) == "alpha beta gamma"
    assert (await world.materialize()).status == "failed"
    code(world, NO_BAD)  # what it said then still holds
    again = await world.materialize()
    assert (again.run, said(again)) == (None, {"no_bad": ("passed", 2, 0)})


async def test_a_check_that_is_new_is_asked_of_what_is_there(world: World) -> None:
    """Whatever its scope, without a call of the asset's function, and only where the asset is selected."""
    code(world)
    await world.materialize()
    code(world, NO_BAD, FEW)
    assert (await world.materialize("report")).run is None
    result = await world.materialize("chunks")
    assert counts(result) == {"chunks": {"fresh": 2}}
    assert said(result) == {"no_bad": ("passed", 2, 0), "few": ("passed", 1, 0)}


async def test_what_is_reused_is_checked_first(world: World) -> None:
    """An edit that is taken back brings back earlier documents only if the checks that there are now let them."""
    world.document("a.txt", "bad")
    code(world)
    await world.materialize()
    world.document("a.txt", "good")
    code(world, NO_BAD)
    await world.materialize()
    world.document("a.txt", "bad")
    result = await world.materialize()
    assert (result.status, counts(result)["chunks"]) == ("failed", {"failed": 1, "fresh": 1})
    assert await texts(world) == "beta gamma good"
    world.document("a.txt", "good")
    assert await world.made() == {}


# -- over the whole asset --------------------------------------------------------------------------------------------------------


async def test_a_refused_whole_leaves_all_as_it_was(world: World) -> None:
    """Nothing that the run made of the asset becomes current, what went stays, and nothing is made of it."""
    code(world, FEW)
    first = await world.materialize()
    assert said(first) == {"few": ("passed", 1, 0)}
    world.document("a.txt", "one two")
    world.document("c.txt", "three four five")
    world.remove("b.txt")
    result = await world.materialize()
    assert result.status == "failed"
    assert counts(result) == {"chunks": {"failed": 3}, "report": {"skipped": 1}}
    assert [f.error for f in result.failures] == ["what was made is refused by the check few: 5 chunks"]
    assert await texts(world) == "alpha beta gamma"
    assert await texts(world, "report") == "alpha beta gamma"
    assert said(result) == {"few": ("failed", 0, 1)}


async def test_what_a_whole_check_refused_is_not_made_again(world: World) -> None:
    """The next run asks again without a call of the function; when one unit is mended, the others become current as they were made."""
    code(world, FEW)
    world.document("c.txt", "three four five")
    assert counts(await world.materialize())["chunks"] == {"failed": 3}
    async with world.open() as session:
        plan = await session.plan("chunks")
    assert (plan.stale, [c.status for c in plan.checks]) == (3, ["failed"])
    assert counts(await world.materialize())["chunks"] == {"failed": 3}
    assert len(await rows(world, t.materialization)) == 3 + 3  # topics, and each chunk once
    world.document("c.txt", "")
    result = await world.materialize()
    assert counts(result)["chunks"] == {"made": 1, "reused": 2}
    assert (result.status, await texts(world)) == ("done", "alpha beta gamma")
    assert (await world.materialize()).run is None


async def test_a_run_that_died_before_the_whole_was_looked_at_has_lost_nothing(world: World) -> None:
    """Held documents are known already: the run after a cancelled one takes them again."""
    code(world, FEW.replace("assert", "raise SystemError('gone')\n    assert"))
    assert counts(await world.materialize())["chunks"] == {"failed": 2}
    code(world, FEW)
    result = await world.materialize()
    assert counts(result) == {"chunks": {"reused": 2}, "report": {"made": 1}}


async def test_early_cutoff_holds_behind_a_whole_check(world: World) -> None:
    """Units that come out as before are unchanged, and nothing below them is made."""
    code(world, FEW)
    await world.materialize()
    world.document("b.txt", "beta   gamma ")
    assert await world.made() == {"chunks": {"unchanged": 1}}
    assert (await world.materialize()).run is None


async def test_a_whole_check_that_warns_is_asked_of_what_is_current(world: World) -> None:
    """After the commits, over all documents and not only those of the run; in every form."""
    code(
        world,
        FEW.replace(", blocking=True", ""),
        """
@check(chunks)
async def streamed(chunks: AsyncIterator[Chunk]) -> bool:
    return len([c async for c in chunks]) == 3

@check(chunks)
def listed(chunks: list[Chunk] = collect(chunks)) -> bool:
    return [c.name for c in chunks] == ["a-0", "b-0", "b-1"]

@check(report)
def of_one(report: Report) -> bool:
    return report.text == "alpha beta gamma"

@check(report)
def all_of_it(reports: list[Report]) -> bool:
    return len(reports) == 1
""",
    )
    result = await world.materialize()
    names = ("few", "streamed", "listed", "of_one", "all_of_it")
    assert said(result) == dict.fromkeys(names, ("passed", 1, 0))
    world.document("c.txt", "more")
    result = await world.materialize()
    assert said(result) == dict.fromkeys(names, ("failed", 0, 1)) | {"all_of_it": ("passed", 1, 0)}
    assert (result.status, await texts(world)) == ("done", "alpha beta gamma more")


async def test_a_unit_that_failed_does_not_keep_the_others_from_being_looked_at(world: World) -> None:
    """What would become current is looked at; the unit that failed stays what it was."""
    code(world, FEW, NO_BAD)
    await world.materialize()
    world.document("a.txt", "bad")
    world.document("b.txt", "delta")
    result = await world.materialize()
    assert counts(result)["chunks"] == {"made": 1, "failed": 1}
    assert said(result) == {"no_bad": ("failed", 2, 1), "few": ("passed", 1, 0)}
    assert await texts(world) == "alpha delta"


async def test_checks_of_frames_and_models(world: World) -> None:
    """A frame that a function returns is looked at for each unit; with collect, all of them together. A model is handed over as itself."""
    world.code(
        """
class Size(BaseModel):
    words: int

@asset
async def sizes(topic: Topic = each(topics)) -> Size:
    return Size(words=len(topic.text.split()))

@asset
async def tables(topic: Topic = each(topics)) -> pl.DataFrame:
    return pl.DataFrame({"word": topic.text.split()})

@check(sizes, blocking=True)
def single(size: Size) -> bool:
    return size.words == 1

@check(sizes)
def sum_of_all(sizes: pl.DataFrame) -> bool:
    return sizes["words"].sum() == 3

@check(tables)
def not_two(table: pl.DataFrame) -> str:
    return "two" if table.height == 2 else ""

@check(tables)
def three(table: pl.LazyFrame = collect(tables)) -> bool:
    return table.collect().height == 3
""",
        head=CHECKED_HEAD,
    )
    result = await world.materialize()
    assert said(result) == {
        "single": ("failed", 1, 1), "sum_of_all": ("failed", 0, 1), "not_two": ("failed", 1, 1), "three": ("passed", 1, 0),
    }  # fmt: skip
    assert [f.unit for f in result.failures] == ["b.txt"]


# -- where it is told ------------------------------------------------------------------------------------------------------------


async def test_every_answer_tells(world: World) -> None:
    """plan, ls, show, why and the JSON of a run name the check, the unit and what is wrong."""
    code(world, NO_BAD.replace(", blocking=True", ""))
    world.document("a.txt", "bad")
    result = (await world.materialize()).to_json()
    expected = {
        "asset": "chunks", "check": "no_bad", "scope": "unit", "blocking": False, "status": "failed", "passed": 1, "failed": 1,
        "errors": 0, "due": False, "findings": [{"unit": "a.txt", "status": "failed", "message": "bad is bad"}],
    }  # fmt: skip
    assert result["checks"] == [expected]
    async with world.open() as session:
        assert (await session.plan()).to_json()["checks"] == [expected]
        infos = {info.asset: info.to_json()["checks"] for info in await session.ls()}
        assert infos == {"topics": [], "chunks": [expected], "report": []}
        shown = {d.name: d.to_json()["checks"] for d in await session.show("chunks")}
        finding = {"check": "no_bad", "status": "failed", "blocking": False, "message": "bad is bad"}
        assert shown["a-0"] == [finding]
        assert shown["b-0"] == [finding | {"status": "passed", "message": ""}]
        assert list((await session.why("chunks[a.txt]")).to_json()["checks"]) == [finding]


async def test_why_says_of_an_asset_what_plan_says_of_it(world: World, variables: dict[str, str]) -> None:
    """Not what is said of its first unit; and of a unit also what is said of the whole asset."""
    code(world, NO_BAD.replace(", blocking=True", ""), FEW.replace(", blocking=True", ""))
    for name in "cdefg":
        world.document(f"{name}.txt", "bad")
    await world.materialize()
    async with world.open() as session:
        unit = {"check": "no_bad", "status": "passed", "blocking": False, "message": ""}
        planned = [report.to_json() for report in (await session.plan()).checks]
        asked = [dict(said) for said in (await session.why("chunks")).checks]
        first = [dict(said) for said in (await session.why("chunks[a.txt]")).checks]
    messages = [said.pop("message") for said in asked]
    assert asked == planned
    assert [(said["check"], said["status"]) for said in asked] == [("no_bad", "failed"), ("few", "failed")]
    assert messages == ["c.txt: bad is bad; d.txt: bad is bad; e.txt: bad is bad; and 2 more", "8 chunks"]
    assert first == [unit, planned[1] | {"message": "8 chunks"}]
    aipctl = Command(world.root, variables)
    assert "check no_bad failed for 5 units: c.txt: bad is bad;" in " ".join(aipctl("why", "chunks").out.split())
    assert "check few failed: 8 chunks" in aipctl("why", "chunks").out
    assert "check no_bad passed\n  check few failed: 8 chunks" in aipctl("why", "chunks[a.txt]").out


async def test_why_says_of_what_a_check_speaks_and_show_that_a_unit_made_nothing(
    world: World, variables: dict[str, str]
) -> None:
    """A check that refused what is new has passed what is current; a unit without documents is no reason to ask the same again."""
    code(world, NO_BAD)
    world.document("e.txt", "")
    await world.materialize()
    world.document("a.txt", "bad")
    await world.materialize()
    aipctl = Command(world.root, variables)
    told = aipctl("why", "chunks[a.txt]").out
    assert "refused by the check no_bad" in told
    assert "check no_bad passed (of what is current)" in told
    async with world.open() as session:
        with pytest.raises(NothingSelectedError, match=r"chunks\[e.txt\] made no documents"):
            await session.show("chunks[e.txt]")


async def test_why_says_what_a_check_over_the_whole_asset_has_put_aside(world: World) -> None:
    """A unit that was made, and refused with all the others, is not told to have never been made; one that was not is."""
    code(world, FEW)
    await world.materialize()
    world.document("c.txt", "delta")
    assert counts(await world.materialize())["chunks"]["failed"] == 1
    world.document("d.txt", "epsilon")
    async with world.open() as session:
        told = {
            unit: [(c.code, c.detail) for c in (await session.why(f"chunks[{unit}]")).causes]
            for unit in ("c.txt", "d.txt")
        }
        _, groups = await session.roots()
    assert told == {
        "c.txt": [("missing", "chunks[c.txt] was made, and put aside by the check few")],
        "d.txt": [("missing", "chunks[d.txt] was never made")],
    }
    assert {root.detail for group in groups for root in group.roots} == {d for [(_, d)] in told.values()}


async def test_the_command_ends_with_one_where_a_blocking_check_failed(world: World, variables: dict[str, str]) -> None:
    """And with 0 for a warning; plan and materialize say what is wrong, in text and in JSON."""
    aipctl = Command(world.root, variables)
    world.document("a.txt", "bad")
    code(world, NO_BAD.replace(", blocking=True", ""))
    ended = aipctl("materialize", "--local")
    assert ended.code == 0
    assert "Check chunks.no_bad failed for 1 unit (a warning):\n  a.txt: bad is bad\n" in ended.out
    code(world, NO_BAD, FEW)
    ended = aipctl("materialize", "--local")
    assert ended.code == 1
    assert "chunks[a.txt] failed: what is current is refused by the check no_bad: bad is bad" in ended.out
    assert "A blocking check refuses what is current." in " ".join(ended.out.split())
    shown = aipctl("plan")
    assert (
        "Check chunks.no_bad failed for 1 unit (blocking):\n  a.txt: bad is bad\nTo check: chunks.no_bad\n" in shown.out
    )
    assert [c["check"] for c in aipctl("plan", "--json").json["checks"]] == ["no_bad", "few"]
    assert "2 checks" in aipctl("ls", "--declared").out
    assert "1 of 2 failed" in " ".join(aipctl("ls").out.split())
    assert "check no_bad failed: bad is bad" in aipctl("why", "chunks[a.txt]").out


async def test_a_cancelled_run_keeps_what_could_be_looked_at(world: World, tmp_path: Path) -> None:
    """What a check had not ended with is not committed; the next run makes only that."""
    (ended := tmp_path / "ended").mkdir()
    waits = f"""import asyncio, pathlib
    await asyncio.sleep(600 if chunk.name == 'a-0' else 0)
    pathlib.Path({str(ended)!r}, chunk.name).touch()
    return"""
    code(world, NO_BAD.replace("return", waits))
    running = asyncio.create_task(world.materialize())
    async with asyncio.timeout(60):
        while len(list(ended.iterdir())) < 2:
            await asyncio.sleep(0.05)
    await let_go_on()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert await texts(world) == "beta gamma"
    code(world, NO_BAD)
    assert counts(await world.materialize())["chunks"] == {"made": 1, "fresh": 1}


async def test_checks_hold_in_every_environment_by_themselves(world: World) -> None:
    """What another environment has made is reused, and its results count; the standing is each environment's own."""
    code(world, NO_BAD, FEW)
    await world.materialize()
    world.settings = world.settings.using("test", environment="pr")
    result = await world.materialize()
    assert counts(result) == {"chunks": {"reused": 2}, "report": {"reused": 1}}
    assert said(result) == {"no_bad": ("passed", 2, 0), "few": ("passed", 1, 0)}
    assert len(await rows(world, t.check_result)) == 2 + 2  # a unit is looked at once, a whole in each environment
    assert (await world.materialize()).run is None


async def test_a_check_that_is_due_below_what_came_out_unchanged(world: World) -> None:
    """Early cutoff leaves the asset alone, and its new check is asked all the same."""
    code(world)
    await world.materialize()
    world.document("a.txt", " alpha ")
    code(
        world,
        FEW.replace("chunks", "report").replace("report.height", "chunks.height").replace("(report: ", "(chunks: "),
    )
    result = await world.materialize()
    assert counts(result) == {"chunks": {"unchanged": 1, "fresh": 1}, "report": {"fresh": 1}}
    assert said(result) == {"few": ("passed", 1, 0)}


async def test_one_of_many_documents_is_refused_and_mended(world: World) -> None:
    """Where only the slice of an asset is looked at, checks see what they always see: the unit, and the whole asset."""
    for number in range(40):
        world.document(f"{number:02}.txt", f"word{number}")
    code(world, NO_BAD, FEW.replace("<= 3", "== 43"))
    first = await world.materialize()
    assert (first.status, said(first)) == ("done", {"no_bad": ("passed", 42, 0), "few": ("passed", 1, 0)})
    world.document("07.txt", "bad")
    result = await world.materialize()
    assert counts(result)["chunks"] == {"failed": 1, "fresh": 41}
    assert said(result) == {"no_bad": ("failed", 42, 1), "few": ("passed", 1, 0)}
    world.document("07.txt", "two words")
    result = await world.materialize()
    assert counts(result)["chunks"] == {"failed": 1, "fresh": 41}
    assert [f.error for f in result.failures] == ["what was made is refused by the check few: 44 chunks"]
    world.document("07.txt", "one")
    result = await world.materialize()
    assert (result.status, counts(result)["chunks"]) == ("done", {"made": 1, "fresh": 41})
    assert (await world.materialize()).run is None


async def test_another_run_that_was_faster_is_met_with_what_was_held(world: World, tmp_path: Path) -> None:
    """A unit that another run has changed meanwhile is judged again; what was made of it is taken, and looked at once more."""
    gate = tmp_path / "gate"
    waits = f"""
@check(chunks, blocking=True)
async def waits(chunks: pl.DataFrame) -> None:
    import asyncio, pathlib
    while pathlib.Path({str(gate)!r}).exists():
        await asyncio.sleep(0.05)
"""
    code(world, waits)
    await world.materialize()
    gate.touch()
    world.document("a.txt", "edited")
    running = asyncio.create_task(world.materialize())
    async with world.open() as session:
        project, asset = session.project, session.project.asset_ids["chunks"]
        async with asyncio.timeout(30):
            while len(await rows(world, t.materialization)) < 2 + 3 + 1 + 1:  # until the edited unit is made, and held
                await asyncio.sleep(0.1)
        async with project.engine.begin() as connection:
            heads = await checks.heads(connection, project.environment_id, asset)
            was = {m.label: m for m in await checks.materialized(connection, heads.values())}["a.txt"]
            number = (await lineage.allocate(connection)) >> 20
            other = Batch(
                number, project.id, project.environment_id, asset, 0, "other", Key("m"), removed=((was.unit, was.id),)
            )
            await lineage.commit(connection, other)
    gate.unlink()
    result = await running
    assert (result.status, counts(result)["chunks"]) == ("done", {"reused": 1, "fresh": 1})
    assert await texts(world) == "beta edited gamma"


async def test_what_a_check_spends_counts_for_its_asset(world: World) -> None:
    """A check may ask a model, too: what it says that it cost is summed with what the units cost."""
    code(world, NO_BAD.replace("    return", "    import assetcore; assetcore.spend(tokens=10, usd=0.5)\n    return"))
    result = await world.materialize("chunks")
    assert [(a.tokens, a.usd) for a in result.assets if a.asset == "chunks"] == [(30, 1.5)]
