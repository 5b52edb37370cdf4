"""Why something is stale, down to the root: once, with what was and what is, and the way there."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from rich.console import Console, RenderableType

from assetcore import causes, planning
from assetcore.causes import Descendant, Subject
from assetcore.cli.show import contents, stale
from assetcore.errors import NothingSelectedError, UsageError
from assetcore.judgement import Choice
from assetcore.lineage import damage, named
from assetcore.lineage.asking import about_few
from assetcore.reasons import CauseFound, Why
from assetcore.settings import Settings
from assetcore.snapshot import take_descent
from tests.integration.world import CHUNKED, HEAD, World

pytestmark = pytest.mark.integration

DIAMOND = """
    class Limits(BaseModel):
        longest: int = 40
        shortest: int = 1

    @asset(models=["writer"])
    async def clean(limits: Limits, topic: Topic = each(topics)) -> Topic:
        return Topic(topic.name, text=topic.text.strip()[: limits.longest])

    @asset
    async def chunks(topic: Topic = each(clean)) -> list[Chunk]:
        return [Chunk(f"{topic.stem}-{i}", text=w, ordinal=i) for i, w in enumerate(topic.text.split())]

    @asset
    async def marked(chunk: Chunk = each(chunks)) -> Report:
        return Report(chunk.name, text="-" + chunk.text)

    @asset
    async def both(chunks: list[Chunk] = collect(chunks), marked: list[Report] = collect(marked)) -> Report:
        return Report("both", text=" ".join(d.text for d in [*chunks, *marked]))
"""


@pytest.fixture
async def world(settings: Settings) -> World:
    world = World(settings.using("test", models={"writer": "small"}))
    world.code(DIAMOND)
    for name in "abc":
        world.document(f"{name}.txt", f"{name} alpha beta")
    await world.materialize()
    return world


async def why(world: World, ref: str, *config: str) -> Why:
    async with world.open(*config) as session:
        return await session.why(ref)


def only(found: Why) -> CauseFound:
    assert len(found.causes) == 1, [c.detail for c in found.causes]
    return found.causes[0]


def edit(path: Path, before: str, after: str) -> None:
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))


async def test_each_root_is_told_once_however_many_ways_lead_to_it(world: World) -> None:
    """An aggregate over two branches and many units names the one document that was changed, with both ids, a diff and one way."""
    world.document("a.txt", "a alpha gamma")
    cause = only(await why(world, "both"))
    assert (cause.code, cause.detail) == ("input-changed", "topics[a.txt]/a.txt was changed")
    assert cause.path[-1] == "clean[a.txt]"
    assert cause.path[0].startswith("chunks[")
    assert cause.before != cause.after
    assert "-a alpha beta" in str(cause.diff)
    assert "+a alpha gamma" in str(cause.diff)
    world.document("b.txt", "b delta")
    world.remove("c.txt")
    found = {c.detail: c for c in (await why(world, "both")).causes}
    assert set(found) == {"topics[a.txt]/a.txt was changed", "topics[b.txt]/b.txt was changed", "topics[c.txt] is gone"}
    assert found["topics[c.txt] is gone"].path[-1] == "clean[c.txt]"
    async with world.open() as session:
        plan, groups = await session.roots()
    assert plan.stale == 2
    assert [(g.code, g.stale, g.removed) for g in groups] == [("input-changed", 2, 0), ("input-removed", 0, 5)]
    assert {root.detail for g in groups for root in g.roots} == set(found)


async def test_a_unit_waits_only_for_what_it_is_collected_for(settings: Settings) -> None:
    """A new unit with collect(per=) has nothing to do with what changed below other documents."""
    world = World(settings)
    world.code(
        CHUNKED
        + """
    @asset
    async def counts(topic: Topic = each(topics), words: list[Chunk] = collect(chunks, per=topics)) -> Report:
        return Report(topic.name, text=str(len(words)))
"""
    )
    for name in "abc":
        world.document(f"{name}.txt", f"{name} alpha")
    await world.materialize()
    world.document("b.txt", "b beta")
    world.remove("c.txt")
    world.document("d.txt", "d alpha")
    own = ("counts[d.txt] was never made", ())
    told = [(cause.detail, cause.path) for cause in (await why(world, "counts[d.txt]")).causes]
    assert told == [own, ("clean[d.txt] was never made", ("clean[d.txt]",))]
    await world.materialize("clean")
    told = [(cause.detail, cause.path) for cause in (await why(world, "counts[d.txt]")).causes]
    assert told == [own, ("chunks[d.txt] was never made", ("chunks[d.txt]",))]
    async with world.open() as session:
        plan, _ = await session.roots()
    assert {a.asset: (a.stale, a.removed) for a in plan.assets} == {"clean": (0, 0), "chunks": (2, 1), "counts": (1, 1)}


TENANTS = """
    from pathlib import Path
    from assetcore import Dynamic, Partition

    def tenants() -> list[str]:
        return (Path(__file__).parents[2] / "tenants").read_text().split()

    @asset(partitions=Dynamic(tenants))
    async def letters(tenant: Partition, topic: Topic = each(topics)) -> Topic:
        return Topic(topic.name, text=f"{topic.text} for {tenant}")

    @asset
    async def posted(letter: Topic = each(letters)) -> Topic:
        return letter
"""


async def test_a_unit_that_went_is_told_by_what_it_was_made_for(settings: Settings) -> None:
    """Its partition, or the document that it was made for: never itself, and not what went beside it."""
    world = World(settings)
    world.code(TENANTS)
    (world.root / "tenants").write_text("acme globex")
    for name in "abc":
        world.document(f"{name}.txt", name)
    await world.materialize()
    world.remove("c.txt")
    (world.root / "tenants").write_text("globex")
    told = {
        ref: [(cause.detail, cause.path) for cause in (await why(world, ref)).causes]
        for ref in ("letters[acme/a.txt]", "posted[acme/a.txt/a.txt]", "letters[acme/c.txt]", "letters[globex/c.txt]")
    }
    assert told == {
        "letters[acme/a.txt]": [("the partition letters[acme] is gone", ())],
        "posted[acme/a.txt/a.txt]": [("the partition letters[acme] is gone", ("letters[acme/a.txt]",))],
        "letters[acme/c.txt]": [("the partition letters[acme] is gone", ())],
        "letters[globex/c.txt]": [("topics[c.txt] is gone", ())],
    }
    async with world.open() as session:
        _, groups = await session.roots()
    assert [(root.detail, root.units) for group in groups for root in group.roots] == [
        ("the partition letters[acme] is gone", 3),
        ("topics[c.txt] is gone", 1),
    ]


async def test_a_group_of_which_nothing_is_left_does_not_name_itself_as_the_cause(settings: Settings) -> None:
    """Where it cannot be said which document a unit was made for, it is said that it is gone."""
    world = World(settings)
    world.code(
        CHUNKED
        + """
    @asset
    async def places(chunks: list[Chunk] = collect(chunks, by="ordinal")) -> Report:
        return Report("place", text=" ".join(chunk.text for chunk in chunks))
"""
    )
    world.document("a.txt", "one two")
    await world.materialize()
    world.document("a.txt", "one")
    await world.materialize("+chunks")
    cause = only(await why(world, "places[1]"))
    assert (cause.code, cause.detail) == ("input-removed", "what places[1] was made for is gone")


async def test_each_root_has_the_way_of_the_unit_whose_cause_it_is(world: World) -> None:
    """Where several units of one asset are stale, no cause of one is told with the way through another."""
    for name in "abc":
        world.document(f"{name}.txt", f"{name} alpha gamma")
    found = (await why(world, "both")).causes
    for cause in found:
        assert cause.detail.startswith("topics[")
        assert cause.path[-1] == f"clean[{str(cause.subject)[7:12]}]"
        assert cause.path[0] in {f"chunks[{str(cause.subject)[7:12]}]", f"marked[{str(cause.subject)[7]}-1]"}, (
            cause.path
        )
    assert len(found) == 3


async def test_what_is_new_is_the_root_of_what_waits_for_it(world: World) -> None:
    """Where nothing between a new document and an aggregate is there yet, it is the cause all the same, alone and beside others."""
    world.document("d.txt", "d alpha")
    cause = only(await why(world, "both"))
    assert (cause.code, cause.detail) == ("missing", "clean[d.txt] was never made")
    async with world.open() as session:
        _, groups = await session.roots()
    assert [(g.code, g.stale, g.pending) for g in groups] == [("missing", 1, 1)]
    world.document("a.txt", "a alpha gamma")
    found = {cause.detail for cause in (await why(world, "both")).causes}
    assert found == {"clean[d.txt] was never made", "topics[a.txt]/a.txt was changed"}


async def test_values_models_and_code_are_told_as_they_were_and_are(world: World) -> None:
    """A config value with before and after, an alias with both models, the lines of a function: of all units that share it, once."""
    path = world.root / "projects" / "demo" / "assets.py"
    cause = only(await why(world, "both", "clean.longest=30"))
    assert (cause.code, cause.subject, cause.before, cause.after) == ("config-changed", "clean.longest", 40, 30)
    assert cause.units == 3
    renamed = World(world.settings.using("test", models={"writer": "large"}))
    cause = only(await why(renamed, "clean[a.txt]"))
    assert (cause.code, cause.before, cause.after) == ("model-changed", "small", "large")
    edit(path, "strip()", "lstrip()")
    edit(path, '"-"', '"+"')
    async with world.open() as session:
        plan, groups = await session.roots()
    assert [(g.code, g.stale, [r.subject for r in g.roots]) for g in groups] == [
        ("code-changed", plan.stale, ["the function of marked", "the function of clean"])
    ]
    assert groups[0].pending == 4
    assert ["lstrip" in str(root.diff) for root in groups[0].roots] == [False, True]


async def test_a_unit_that_is_stale_by_itself_is_told_what_changed_above_it_too(world: World) -> None:
    """Code and config of its own, and the document that it waits for: of the unit, and of an aggregate below it."""
    edit(world.root / "projects" / "demo" / "assets.py", '"-"', '"+"')
    world.document("a.txt", "a alpha gamma")
    wanted = {("code-changed", "the function of marked"), ("input-changed", "topics[a.txt]/a.txt")}
    for ref, first in (("marked[a-1]", "chunks[a.txt]"), ("both", "")):
        found = (await why(world, ref)).causes
        assert {(cause.code, cause.subject) for cause in found} == wanted
        assert [c.path[0] for c in found if c.code == "input-changed" and first] == ([first] if first else [])
    assert only(await why(world, "marked[b-1]")).code == "code-changed"


async def test_the_root_is_found_in_what_earlier_runs_did(world: World) -> None:
    """What a unit is given came out differently in an earlier run: why leads through it to the code or document that did that."""
    edit(world.root / "projects" / "demo" / "assets.py", "strip()", "upper()")
    world.document("b.txt", "b delta")
    await world.materialize("clean")
    cause = only(await why(world, "chunks[a.txt]"))
    assert (cause.code, cause.subject, cause.path) == ("code-changed", "the function of clean", ("clean[a.txt]",))
    assert "upper" in str(cause.diff)
    assert {c.code for c in (await why(world, "chunks[b.txt]")).causes} == {"code-changed", "input-changed"}
    assert {c.subject for c in (await why(world, "both")).causes} == {"the function of clean", "topics[b.txt]/b.txt"}


async def test_what_would_be_stale_is_told_without_doing_it(world: World) -> None:
    """A plan can suppose that documents of sources or the code of assets were changed: just what that touches would be."""

    async def planned(*supposing: str) -> dict[str, tuple[int, int, int]]:
        async with world.open() as session:
            plan = await session.plan(supposing=supposing)
        return {a.asset: (a.stale, a.pending, a.removed) for a in plan.assets if not a.idle}

    assert await planned("remove topics[a.txt]") == {
        "clean": (0, 0, 1), "chunks": (0, 0, 1), "marked": (0, 0, 3), "both": (1, 0, 0),
    }  # fmt: skip
    found = await planned("change topics[a.txt]", "change marked")
    assert (found["clean"], found["chunks"], found["marked"]) == ((1, 0, 0), (0, 1, 0), (9, 0, 0))
    assert (await planned("change topics"))["clean"] == (3, 0, 0)
    assert await planned() == {}
    async with world.open() as session:
        _, groups = await session.roots(supposing=["change chunks"])
        assert [(g.code, [r.detail for r in g.roots]) for g in groups] == [
            ("code-changed", ["the code of chunks was changed"])
        ]
        with pytest.raises(NothingSelectedError, match="no document 'x'"):
            await session.plan(supposing=["remove topics[x]"])
        for wrong in ("remove chunks", "change chunks[a.txt]", "drop topics", "change"):
            with pytest.raises(UsageError):
                await session.plan(supposing=[wrong])


async def test_what_is_beside_the_change_is_fresh_at_once(settings: Settings) -> None:
    """Of many units of which few changed, why answers for each as if it had looked at all; what is not there is told, too."""
    world = World(settings)
    world.code("""
        @asset
        async def clean(topic: Topic = each(topics)) -> Topic:
            return Topic(topic.name, text=topic.text.strip())
    """)
    for name in "abcdefgh":
        world.document(f"{name}.txt", name)
    await world.materialize()
    assert (await why(world, "clean[b.txt]")).fresh
    world.document("a.txt", "other")
    world.document("new.txt", "new")
    assert (await why(world, "clean[b.txt]")).fresh
    assert only(await why(world, "clean[a.txt]")).subject == "topics[a.txt]/a.txt"
    assert only(await why(world, "clean[new.txt]")).code == "missing"
    with pytest.raises(NothingSelectedError, match="no unit 'x'"):
        await why(world, "clean[x]")


async def test_what_was_made_of_a_source_is_found_after_it_was_given_another_name(world: World) -> None:
    """Without `renamed_from` a source is another one with the same documents: nothing is made for it, and what came of them is told."""
    world.code(
        DIAMOND.replace("each(topics)", "each(pages)"),
        head=HEAD.replace('topics = source("topics"', 'pages = source("pages"'),
    )
    assert await world.made() == {}
    async with world.open() as session:
        came = {(n.asset, n.document) for n in (await session.lineage("pages[a.txt]", "down")).nodes}
        assert {("clean", "a.txt"), ("chunks", "a-0"), ("both", "both")} <= came
        [document] = [n.document for n in (await session.lineage("chunks[a.txt]/a-0")).nodes if n.asset == "topics"]
        assert document == "a.txt"


async def test_a_unit_is_judged_alone_as_among_all(world: World) -> None:
    """What descends from one document is looked at alone; that says of each unit what a look at all of them says."""
    counted: dict[str, int] = {}
    for number in range(4):
        world.document(f"{number}.txt", f"{number} alpha gamma")
    await world.materialize()
    world.document("a.txt", "a alpha other")
    world.document("0.txt", "0 more")
    for gone in ("b.txt", "1.txt"):
        (world.root / "data" / gone).unlink()
    edit(world.root / "projects" / "demo" / "assets.py", '"-" + chunk.text', '"+" + chunk.text')
    world.document("new.txt", "new")
    async with world.open() as session:
        project = session.project

        async def decided(about: Subject) -> Descendant | None:
            async with project.engine.connect() as connection:
                return await causes.deciding(project, connection, about)

        assert await decided(Subject("both", "both")) is None, "it is made of all"
        assert await decided(Subject("clean", "new.txt")) is None, "it was never made"
        for name in ("topics", "clean", "chunks", "marked"):
            choice = Choice(frozenset([name]))
            plan, found = await planning.plan_for(project, choice, rehash=False, entire=True)
            state = found.snapshot.states[name].documents
            for label in sorted(set(state["path"])):
                about = Subject(name, label)
                decides = await decided(about)
                assert decides is not None
                async with project.engine.connect() as connection:
                    whole = await causes.why(project, connection, about, plan, found.snapshot)
                async with project.engine.connect() as connection:
                    await about_few(connection)
                    part = await take_descent(project, connection, name, decides.how, decides.document, decides.unit)
                    assert part is not None
                    judged = await planning.judged(project, part, choice)
                    alone = await causes.why(project, connection, about, judged, part, known=decides)
                assert alone == whole
                counted[whole.status] = counted.get(whole.status, 0) + 1
    assert counted.keys() == {"fresh", "stale", "pending", "removed"}, counted


async def test_a_unit_whose_input_is_not_made_any_more_is_gone(world: World) -> None:
    """The page is there, and no piece of it is what the unit was made of: it is not fresh, although nothing waits above it."""
    world.document("a.txt", "a alpha")
    await world.materialize("+chunks")
    found = await why(world, "marked[a-2]")
    assert (found.status, only(found).code) == ("removed", "input-removed")
    assert (await why(world, "marked[a-1]")).fresh


async def test_of_what_is_settled_nothing_is_read(world: World) -> None:
    """Where all above was found fresh, and the document is what was taken in, that is the answer: the one that a look at all gives."""

    async def looked(ref: str) -> tuple[bool, Why]:
        """Whether units were looked at for it, and the answer."""
        async with world.open() as session:
            project = session.project
            about = await causes.subject(project, ref)
            choice = Choice(frozenset([about.asset]))
            async with project.engine.connect() as connection:
                await about_few(connection)
                decides = await causes.deciding(project, connection, about)
                assert decides is not None
                part = await take_descent(project, connection, about.asset, decides.how, decides.document, decides.unit)
                assert part is not None
            plan, found = await planning.plan_for(project, choice, rehash=False, entire=True)
            async with project.engine.connect() as connection:
                whole = await causes.why(project, connection, about, plan, found.snapshot)
            answer = await session.why(ref)
            assert replace(answer, unit=ref, notes=(), checks=(), accepted=()) == replace(whole, unit=ref)
            assert (answer.made_at is None) == (about.asset == "topics")
            return bool(part.states), answer

    refs = ("topics[a.txt]", "clean[a.txt]", "chunks[a.txt]", "marked[a-1]", "marked[a.txt/a.txt/a-1]", "marked[b-1]")
    for ref in refs:
        has_looked, answer = await looked(ref)
        assert (has_looked, answer.fresh) == (False, True), ref
    assert answer.unit == "marked[b-1]"
    assert (await looked("marked[a.txt/a.txt/a-1]"))[1].unit == "marked[a-1]", "the shortest name that is its own"

    world.document("a.txt", "a other beta")
    assert [await looked(ref) for ref in ("marked[b-1]",)] == [(False, answer)]
    for ref in refs[:-1]:
        has_looked, changed = await looked(ref)
        assert (has_looked, changed.fresh) == (True, False), ref
    await world.materialize()
    world.document("a.txt", "a alpha beta")
    assert not (await looked("clean[a.txt]"))[1].fresh, "what it was once is not what was taken in"
    await world.materialize()
    assert (await looked("clean[a.txt]"))[1].fresh

    edit(world.root / "projects" / "demo" / "assets.py", '"-" + chunk.text', '"+" + chunk.text')
    assert [(await looked(ref))[0] for ref in ("chunks[a.txt]", "marked[a-1]")] == [False, True]
    await world.materialize()
    async with world.open() as session:
        assets, environment = session.project.asset_ids, session.project.environment_id
        async with session.project.engine.begin() as connection:
            [piece, *_] = await named.of_asset(connection, environment, assets["chunks"])
            await damage.note(connection, [damage.Damaged(piece.id, assets["chunks"], "corrupt", "other bytes")])
    assert [(await looked(ref))[0] for ref in ("clean[a.txt]", "chunks[a.txt]")] == [False, True]
    assert only((await looked("chunks[a.txt]"))[1]).code == "corrupt"


async def test_why_asks_little(world: World) -> None:
    """How many statements an answer takes: of a unit that is fresh with all above it, and of one of which a document was edited."""
    asked: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *others: Any) -> None:
        asked.append(statement)

    async with world.open() as session:
        await session.why("marked[a-1]")
        sa.event.listen(session.project.engine.sync_engine, "before_cursor_execute", note)
        assert (await session.why("marked[a-1]")).fresh
        assert len(asked) == 9
        asked.clear()
        world.document("a.txt", "a other beta")
        assert not (await session.why("marked[a-1]")).fresh
        assert len(asked) == 16


async def test_what_a_unit_is_not_handed_is_not_told_as_its_cause(settings: Settings) -> None:
    """With `fields=` an edit of another field, or of the text, is no cause: of a document in which all changed, what it sees is told."""
    world = World(settings)
    world.document("a.txt", "a")
    world.code("""
        async def counted() -> AsyncIterator[Chunk]:
            yield Chunk("one", text="first", media_type="text/plain", ordinal=1)

        numbers = source("numbers", Chunk, counted)

        @asset
        async def second(chunk: Chunk = each(numbers, fields=["name", "ordinal"])) -> Report:
            return Report(chunk.name, text=str(chunk.ordinal))

        @asset
        async def third(chunk: Chunk = each(numbers, fields=["name", "text"])) -> Report:
            return Report(chunk.name, text=chunk.text)
    """)
    await world.materialize()
    other = 'text="other", media_type="text/markdown", ordinal=2'
    edit(world.root / "projects" / "demo" / "assets.py", 'text="first", media_type="text/plain", ordinal=1', other)
    seen = only(await why(world, "second[one]"))
    assert (seen.fields, seen.diff) == ({"ordinal": {"before": 1, "after": 2}}, None)
    seen = only(await why(world, "third[one]"))
    assert (seen.fields, "+other" in (seen.diff or "")) == ({}, True)


async def test_a_field_that_changed_is_told_where_the_text_did_not(settings: Settings) -> None:
    """Which field, from what to what, by why, plan and diff: the text of such a document, and so its id, is what it was."""
    world = World(settings)
    world.document("a.txt", "a")
    world.code("""
        async def counted() -> AsyncIterator[Chunk]:
            yield Chunk("one", text="same", ordinal=1)

        numbers = source("numbers", Chunk, counted)

        @asset
        async def second(chunk: Chunk = each(numbers)) -> Report:
            return Report(chunk.name, text=str(chunk.ordinal))
    """)
    run = (await world.materialize()).run
    edit(world.root / "projects" / "demo" / "assets.py", "ordinal=1", "ordinal=2")
    told = {"ordinal": {"before": 1, "after": 2}}
    cause = only(await why(world, "second[one]"))
    assert (cause.detail, cause.fields, cause.diff) == ("numbers[one]/one was changed", told, "")
    async with world.open() as session:
        _, [group] = await session.roots()
    assert group.to_json()["roots"][0]["fields"] == told
    shown = render(stale.why((await why(world, "second[one]")).to_json()))
    assert "    ordinal: 1 -> 2" in shown
    assert shown.count(" -> ") == 1
    await world.materialize()
    async with world.open() as session:
        diff = await session.diff(f"numbers[one]/one@{run}")
        assert (diff.same, diff.diff, diff.to_json()["fields"]) == (False, "", told)
        assert render(contents.comparison(diff.to_json())).strip() == "ordinal: 1 -> 2"
        assert not (await session.diff(f"numbers@{run}")).same
        assert (await session.diff("numbers[one]@now")).same


def render(what: RenderableType) -> str:
    file = io.StringIO()
    Console(file=file, width=200).print(what)
    return file.getvalue()
