"""Environments: how is one made from another, compared with it, and put in its place?"""

from __future__ import annotations

import asyncio
import hashlib
import json
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import pytest
import sqlalchemy as sa
from alembic import command

from assetcore import measures
from assetcore.catalog import rebuild_catalog, verify_catalog
from assetcore.errors import NothingSelectedError, PromotionError, UsageError
from assetcore.lineage import environments, schema
from assetcore.lineage import tables as t
from assetcore.session import Session
from assetcore.settings import Settings
from assetcore.storage import DamagedObjectError
from tests import readme
from tests.integration.command import Command
from tests.integration.test_lineage import scripts
from tests.integration.world import World

pytestmark = pytest.mark.integration

CODE = """
    @asset
    async def chunks(topic: Topic = each(topics)) -> list[Chunk]:
        return [Chunk(name=f"{topic.stem}-{i}", text=line{how}, ordinal=i) for i, line in enumerate(topic.text.splitlines())]

    @asset
    async def report(chunks: list[Chunk] = collect(chunks)) -> Report:
        return Report(name="report", text=" ".join(c.text for c in chunks))
"""

CHECK = """
    from assetcore import check

    @check(report, blocking=True)
    def loud(report: Report) -> bool:
        return report.text.isupper()
"""


def at(world: World, environment: str) -> World:
    """The same project, seen from another environment."""
    return World(world.settings.using("test", environment=environment))


@pytest.fixture
async def world(settings: Settings) -> World:
    """A project of three topics, all of it made in prod."""
    world = World(settings)
    world.code(CODE.replace("{how}", ""))
    for name in ("a", "b", "c"):
        world.document(f"{name}.txt", f"{name} one\n{name} two")
    await world.materialize()
    return world


async def rows(world: World, table: sa.Table) -> int:
    engine = schema.connect(str(world.settings.database_url))
    async with engine.connect() as connection:
        found = (await connection.execute(sa.select(sa.func.count()).select_from(table))).scalar_one()
    await engine.dispose()
    return int(found)


async def test_an_environment_is_what_it_was_created_from_and_nothing_is_copied(world: World) -> None:
    """Right after its creation all is fresh and readable, no unit has a row of its own, and what happens in prod is not seen in it."""
    before = await rows(world, t.head)
    async with world.open() as session:
        await session.create_environment("pr")
        assert (await session.compare_environments("pr", "prod")).to_json()["same"]
    assert await rows(world, t.head) == before
    pr = at(world, "pr")
    assert await pr.plan() == {}
    was = await world.contents()
    assert await pr.contents() == was

    world.document("a.txt", "a changed")
    await world.materialize()
    assert await pr.contents() == was
    async with pr.open() as session:
        assert [n.document for n in (await session.lineage("report")).nodes].count("a-1") == 1
        found = {e["environment"]: e for e in await session.environments()}
        assert (found["pr"]["from"], found["pr"]["own"], found["pr"]["units"]) == ("prod", 0, found["prod"]["units"])
        assert len((await session.history("chunks")).changes) == 1, "what was done in prod, up to then"
        [hit] = await session.show("chunks[a.txt]/a-1")
        assert hit.content == b"a two"


async def test_a_run_in_an_environment_makes_what_differs_and_prod_reuses_it(world: World) -> None:
    """New code runs once: in the environment; the other environment takes the results over by recipe, or by promotion."""
    async with world.open() as session:
        await session.create_environment("pr")
    world.code(CODE.replace("{how}", ".upper()"))
    pr = at(world, "pr")
    assert await pr.made() == {"chunks": {"made": 3}, "report": {"made": 1}}
    assert await pr.plan() == {}
    assert (await world.contents())["report"]["report", "report"] == b"a one a two b one b two c one c two"
    assert (await pr.contents())["report"]["report", "report"] == b"A ONE A TWO B ONE B TWO C ONE C TWO"
    async with pr.open() as session:
        diff = (await session.compare_environments("pr", "prod")).to_json()
        assert {a["asset"]: a["changed"] for a in diff["assets"]} == {"chunks": 6, "report": 1}
        assert {"unit": "a.txt", "document": "a-0", "change": "changed"} in diff["assets"][0]["documents"]
        assert len((await session.lineage("report")).nodes) == 1 + 6 + 3
        assert {n.asset for n in (await session.lineage("topics[a.txt]", "down")).nodes} == {
            "topics",
            "chunks",
            "report",
        }
    assert await at(world, "other").made() == {"chunks": {"reused": 3}, "report": {"reused": 1}}
    assert await pr.made("chunks", force=True) == {"chunks": {"unchanged": 3}}


async def test_promoting_moves_pointers_and_leaves_nothing_stale(world: World) -> None:
    """What was made in an environment is what prod is afterwards: added, changed and gone documents; no plan finds anything to do."""
    async with world.open() as session:
        await session.create_environment("pr")
    world.code(CODE.replace("{how}", ".upper()"))
    world.remove("c.txt")
    world.document("d.txt", "d one")
    pr = at(world, "pr")
    await pr.materialize()
    async with world.open() as session:
        promoted = await session.promote("pr", "prod")
        assert {name: (units, gone) for name, units, gone in promoted.assets} == {
            "topics": (1, 1), "chunks": (3, 1), "report": (1, 0),
        }  # fmt: skip
        assert (await session.compare_environments("pr", "prod")).to_json()["same"]
        assert [run.selection for run in await session.runs(promoted.run)] == ["promote pr"]
        assert (await session.promote("pr", "prod")).run is None
    assert await world.plan() == {}
    assert await pr.plan() == {}
    verified = await verify_catalog(world.settings, say=lambda _: None)
    assert verified.same, verified.to_json()
    assert await world.contents() == await pr.contents()

    world.document("a.txt", "a again")  # and a second change on the same environment
    assert await pr.made() == {"chunks": {"made": 1}, "report": {"made": 1}}
    async with world.open() as session:
        assert {name for name, *_ in (await session.promote("pr", "prod")).assets} == {"topics", "chunks", "report"}
    assert await world.plan() == {}


async def test_what_differs_is_found_by_what_was_done_since_as_by_a_look_at_all(world: World) -> None:
    """Units that were edited, appeared and went in an environment, before and after a promotion, and after its name was used anew."""
    pr = at(world, "pr")

    async def differing() -> tuple[set[tuple[Any, ...]], int]:
        async with pr.open() as session, session.project.engine.connect() as connection:
            project, assets = session.project, list(session.project.asset_ids.values())
            [prod] = [e for e in await environments.every(connection, project.id) if e.name == "prod"]
            there = (project.environment_id, prod.id)
            whole = await environments.compared(connection, *there, assets)
            found = await environments.apart(connection, *there, assets)
            taken = await environments.close(connection, *there, assets)
        assert set(found.drop("label").rows()) == set(whole.rows())
        return set(whole.rows()), len(taken)

    for text in ("a other", "a again"):
        async with world.open() as session:
            await session.create_environment("pr")
        world.document("a.txt", text)
        world.document(f"{text}.txt", "new")
        world.remove("b.txt" if text == "a other" else "c.txt")
        await pr.materialize()
        rows, assets = await differing()
        assert (len(rows), assets) == (7, 3)  # three of topics, three of chunks, the report
        async with world.open() as session:
            await session.promote("pr", "prod")
        assert (await differing())[0] == set()
        world.document("c.txt" if text == "a other" else "a.txt", "more")
        await pr.materialize()
        assert len((await differing())[0]) == 3
        async with world.open() as session:
            await session.promote("pr", "prod")
            await session.drop_environment("pr")


async def test_what_has_moved_on_is_not_overwritten(world: World) -> None:
    """Promotion is refused when the other has changed since; rebasing takes that over, unit by unit, and keeps what was made here."""
    async with world.open() as session:
        await session.create_environment("pr")
    pr = at(world, "pr")
    world.document("a.txt", "a in pr")
    await pr.materialize()
    world.document("a.txt", "a one\na two")
    world.document("b.txt", "b in prod")
    world.document("d.txt", "d in prod")
    await world.materialize()
    async with world.open() as session:
        with pytest.raises(
            PromotionError, match=r"prod has moved on since pr was created from it: topics .run .*chunks.*report"
        ):
            await session.promote("pr", "prod")
        with pytest.raises(PromotionError, match="are stale by that"):  # the folder now differs from both
            await session.promote("pr", "prod", rebase=True)
        diff = (await session.compare_environments("pr", "prod")).to_json()
    changed = {(a["asset"], d["document"]) for a in diff["assets"] for d in a["documents"]}
    assert changed == {("topics", "a.txt"), ("chunks", "a-0"), ("chunks", "a-1"), ("report", "report")}
    world.document("a.txt", "a in pr")
    assert await pr.made() == {"report": {"made": 1}}
    async with world.open() as session:
        await session.promote("pr", "prod")
    assert await world.plan() == {}
    assert (await world.contents())["report"]["report", "report"] == b"a in pr b in prod c one c two d in prod"


async def test_blocking_checks_stand_before_a_promotion(world: World) -> None:
    """A check that has not been asked of the environment as it is, or has not passed, keeps it from being promoted."""
    async with world.open() as session:
        await session.create_environment("pr")
    pr = at(world, "pr")
    world.code(CODE.replace("{how}", ".upper()"))
    await pr.materialize()
    world.code(CODE.replace("{how}", ".upper()") + CHECK)
    async with world.open() as session:
        with pytest.raises(PromotionError, match=r"not been asked of pr as it is: report.loud"):
            await session.promote("pr", "prod")
    await pr.materialize()
    async with world.open() as session:
        await session.promote("pr", "prod")
    assert await world.plan() == {}
    async with world.open() as session:
        assert (await session.plan()).up_to_date  # what the check said holds for prod as well


async def test_a_dropped_environment_is_gone_and_what_it_made_is_not(world: World) -> None:
    """After a drop its name is free, those created from it stay as they are, and its results are reused."""
    async with world.open() as session:
        await session.create_environment("pr")
    world.code(CODE.replace("{how}", ".upper()"))
    await at(world, "pr").materialize()
    async with world.open() as session:
        await session.create_environment("pr-of-pr", "pr")
        with pytest.raises(UsageError, match="already"):
            await session.create_environment("pr")
        for name in ("", " ", "--json", "a\nb", "pr\n", "x" * 64, "..", "(gc)", "fence", "PR-17", "feature/new"):
            with pytest.raises(UsageError, match="cannot be the name of an environment"):
                await session.create_environment(name)
        await session.drop_environment("pr")
        with pytest.raises(NothingSelectedError, match="There is no environment 'pr'; there are: pr-of-pr, prod"):
            await session.drop_environment("pr")
        with pytest.raises(UsageError, match="cannot be dropped"):
            await session.drop_environment("prod")
        with pytest.raises(UsageError, match="was not created from prod"):
            await session.promote("pr-of-pr", "prod")
        for call in (session.promote("", "prod"), session.promote("pr-of-pr", ""), session.drop_environment("")):
            async with asyncio.timeout(20):  # a variable of the shell that is not set: no lock is waited for
                with pytest.raises(NothingSelectedError, match="There is no environment ''"):
                    await call
    assert (await at(world, "pr-of-pr").contents())["report"][
        "report", "report"
    ] == b"A ONE A TWO B ONE B TWO C ONE C TWO"
    async with world.open() as session:
        await session.create_environment("pr", "prod")
    assert await at(world, "pr").made() == {"chunks": {"reused": 3}, "report": {"reused": 1}}


async def test_an_environment_created_again_is_not_what_it_was_before(world: World) -> None:
    """Who borrowed of it before the drop, and who asks for that time, finds what it then was; so does a database made again."""
    edited = CODE.replace("{how}", ".upper()")
    pr, of_pr, later = (at(world, name) for name in ("pr", "of-pr", "later"))
    for environment in (pr, of_pr, later):
        source = "prod" if environment is pr else "pr"
        async with world.open() as session:
            await session.create_environment(environment.settings.environment, source)
        world.code(edited)
        await pr.materialize()
    was, then = await pr.contents(), datetime.now(UTC).isoformat()
    async with world.open() as session:
        await session.drop_environment("pr")
    async with of_pr.open() as session:
        told = [(change.run, change.what) for change in (await session.history("chunks[a.txt]")).changes]
    async with world.open() as session:
        await session.create_environment("pr")
    assert await of_pr.contents() == was
    world.code(CODE.replace("{how}", ".title()"))
    assert await pr.made("chunks[a.txt]") == {"chunks": {"made": 1}}

    async def as_it_was() -> None:
        async with pr.open() as session:
            shown = await session.show("chunks", at=then)
            assert {(d.unit, d.name): d.content for d in shown} == was["chunks"]
        assert await of_pr.contents() == was
        async with of_pr.open() as session:
            assert {i.asset: (i.units, i.documents) for i in await session.ls()}["chunks"] == (3, 6)
            assert [(change.run, change.what) for change in (await session.history("chunks[a.txt]")).changes] == told
        world.code(edited)
        assert await of_pr.plan() == {}
        verified = await verify_catalog(world.settings, say=lambda _: None)
        assert verified.same, verified.to_json()

    await as_it_was()
    await rebuild_catalog(world.settings, replace=True, automatic_schema=False, say=lambda _: None)
    await as_it_was()
    world.document("a.txt", "a changed")
    assert await of_pr.made() == {"chunks": {"made": 1}, "report": {"made": 1}}
    assert (await of_pr.contents())["report"]["report", "report"] == b"A CHANGED B ONE B TWO C ONE C TWO"
    assert (await later.contents()) == was
    with pytest.raises(PromotionError, match="chunks, report are stale by that"):
        async with world.open() as session:
            await session.promote("of-pr", "pr", rebase=True)
    now = (await of_pr.contents())[
        "chunks"
    ]  # what both have changed stays, what only the other has become is taken over
    assert [now["a.txt", "a-0"], now["b.txt", "b-0"], len(now)] == [b"A CHANGED", b"b one", 5]


async def test_a_whole_asset_is_that_of_the_environment_that_gave_it(world: World) -> None:
    """Created again from what had changed before it was dropped, and borrowed before it was dropped once more; after a rebuild, too."""
    pr, of_pr = at(world, "pr"), at(world, "of-pr")

    def code(how: str, between: str) -> None:
        world.code(CODE.replace("{how}", how).replace('" ".join', f'"{between}".join'))

    async def created_again() -> None:
        async with world.open() as session:
            await session.drop_environment("pr")
            await session.create_environment("pr", "prod")

    async def made_of_what_is_there(environment: World) -> None:
        there = {
            (*ref, hashlib.sha256(content).hexdigest())
            for ref, content in (await environment.contents())["chunks"].items()
        }
        async with environment.open() as session:
            above = await session.lineage("report")
        assert {(str(n.unit), str(n.document), n.sha256) for n in above.nodes if n.asset == "chunks"} == there

    async with world.open() as session:
        await session.create_environment("pr", "prod")
    code(".upper()", " ")
    await pr.materialize()
    await made_of_what_is_there(pr)
    code("", " ")
    world.document("b.txt", "b changed")
    await world.materialize()
    await created_again()
    code(".strip()", "-")
    assert await pr.made() == {"chunks": {"unchanged": 3}, "report": {"made": 1}}
    await made_of_what_is_there(pr)
    async with world.open() as session:
        await session.create_environment("of-pr", "pr")
    await created_again()
    code(".strip()", "+")
    assert await of_pr.made() == {"report": {"made": 1}}
    await made_of_what_is_there(of_pr)
    await rebuild_catalog(world.settings, replace=True, automatic_schema=False, say=lambda _: None)
    await made_of_what_is_there(of_pr)


async def test_what_is_borrowed_is_followed_as_it_was_where_it_was_made(world: World) -> None:
    """Lineage in an environment, which was nothing when the other made what it borrows, is what it is in that; also one loan further."""
    world.document("a.txt", "a one\na two ")
    world.code(CODE.replace("{how}", ".strip()"))
    assert (await world.made())["chunks"] == {"unchanged": 3}
    world.code(CODE.replace("{how}", ".strip()").replace('" ".join', '"-".join'))
    await world.made()
    async with world.open() as session:
        was = await session.lineage("report")
        await session.create_environment("pr", "prod")
        await session.create_environment("of-pr", "pr")
    for name in ("pr", "of-pr"):
        async with at(world, name).open() as session:
            assert await session.lineage("report") == was
    async with world.open() as session:
        sources = {node.sha256 for node in was.nodes if node.asset == "topics"}
        assert sources == {d.sha256.hex() for d in await session.show("topics")}


async def test_what_an_environment_became_later_was_not_given_to_what_was_made_before(world: World) -> None:
    """Created again and committed to, it has heads that are older than what was made of it: not that came of their documents."""
    pr, of_pr = at(world, "pr"), at(world, "of-pr")
    async with world.open() as session:
        await session.create_environment("pr", "prod")
    world.code(CODE.replace("{how}", ".upper()"))
    await pr.materialize()
    async with world.open() as session:
        await session.create_environment("of-pr", "pr")
        await session.drop_environment("pr")
        await session.create_environment("pr", "prod")
    world.code(CODE.replace("{how}", ".title()"))
    await pr.materialize("chunks[a.txt]")
    world.code(CODE.replace("{how}", ""))
    assert await of_pr.made("chunks") == {"chunks": {"reused": 3}}  # as in prod, and what pr now has of b and c
    async with of_pr.open() as session:
        below = await session.lineage("chunks[b.txt]", "down")
    assert "report" not in {node.asset for node in below.nodes}


async def test_an_environment_is_shown_as_it_was_whatever_was_done_with_it(world: World) -> None:
    """From when it was created, rebased or dropped on, and not before, also where nothing was committed after that."""
    pr, seen = at(world, "pr"), list[tuple[str, str, dict[tuple[str, str], bytes]]]()

    async def now(what: str) -> None:
        seen.append((what, datetime.now(UTC).isoformat(), (await pr.contents()).get("chunks", {})))

    async def as_it_was() -> None:
        async with pr.open() as session:
            for what, time, chunks in seen:
                known = {i.asset: i.documents for i in await session.ls(at=time)}
                assert known["chunks"] == len(chunks), what
                shown = await session.show("chunks", at=time) if chunks else []
                assert {(d.unit, d.name): d.content for d in shown} == chunks, what

    await now("before")
    async with world.open() as session:
        await session.create_environment("pr", "prod")
    await now("created")
    await as_it_was()
    world.code(CODE.replace("{how}", ".upper()"))
    await pr.materialize()
    await now("made")
    async with world.open() as session:
        await session.drop_environment("pr")
    await now("dropped")
    await as_it_was()
    async with world.open() as session:
        await session.create_environment("pr", "prod")
    await now("created again")
    await as_it_was()
    world.code(CODE.replace("{how}", ""))
    world.document("a.txt", "a changed")
    await world.materialize()
    await now("while prod went on")
    async with world.open() as session:
        await session.promote("pr", "prod", rebase=True)
    await now("rebased")
    world.code(CODE.replace("{how}", ".title()"))
    await pr.materialize("chunks[a.txt]")  # the heads of the others are taken over, which are older
    await now("made again")
    assert len({tuple(chunks.items()) for _, _, chunks in seen}) == 5
    await as_it_was()
    await rebuild_catalog(world.settings, replace=True, automatic_schema=False, say=lambda _: None)
    await as_it_was()


async def test_a_database_of_the_schema_before_knows_when_environments_were_dropped(world: World) -> None:
    """The journal told it: what the migration to 0021 finds there is what is written now."""
    async with world.open() as session:
        for name in ("pr", "pr", "other"):
            await session.create_environment(name)
            await session.drop_environment(name)
    drops = sa.select(t.environment.c.name, t.environment.c.drops).order_by(t.environment.c.name)

    def migrate(connection: sa.Connection) -> None:
        settings = scripts()
        settings.attributes["connection"] = connection
        command.downgrade(settings, "0020")
        command.upgrade(settings, "head")

    engine = schema.connect(str(world.settings.database_url))
    async with engine.begin() as connection:
        now = (await connection.execute(drops)).all()
        await connection.run_sync(migrate)
        assert (await connection.execute(drops)).all() == now
    await engine.dispose()
    assert {name: len(numbers) for name, numbers in now} == {"pr": 2, "other": 1, "prod": 0}


async def test_a_selection_compares_with_an_environment(world: World) -> None:
    """`changed:NAME` selects what this code would make otherwise than the environment's documents were made, and what is below."""
    with pytest.raises(NothingSelectedError, match="nothing has changed since 'prod'"):
        await world.plan("changed:prod")
    world.code(CODE.replace("{how}", "").replace('" ".join', '"-".join'))
    assert list(await world.plan("changed:prod")) == ["report"]
    world.code(CODE.replace("{how}", ".lower()"))
    assert list(await world.plan("changed:prod")) == ["chunks", "report"]


def completable(world: World) -> list[str]:
    """The environments that a shell completes."""
    return json.loads((world.settings.home / "names.json").read_text())["demo"]["environments"]


async def test_the_verbs_tell_it(world: World, variables: dict[str, str]) -> None:
    """`aipctl env` in a shell: create, ls, diff, promote, drop, each also as one JSON object."""
    aipctl = Command(world.root, variables)
    assert "pr is what prod is, in 3 assets" in aipctl("env", "create", "pr", "--from", "prod").out
    world.code(CODE.replace("{how}", ".upper()"))
    await at(world, "pr").materialize()
    comment = aipctl("plan", "--env", "prod", "--format", "markdown").out
    assert "### `demo` against `prod`" in comment
    assert "| `chunks` | 3 | 3 | 0 | code-changed 3 |" in comment
    assert "+    return [Chunk(" in comment
    listed = aipctl("env", "ls", "--json").json
    readme.hold("aipctl env ls", listed)
    assert [e["environment"] for e in listed["environments"]] == ["pr", "prod"]
    assert completable(world) == ["pr", "prod"]
    told = aipctl("env", "diff", "pr", "prod", "--exit-code")
    assert told.code == 2
    assert "~ chunks[a.txt]/a-0" in told.out
    assert "pr against prod: 7 changed." in told.out
    assert "prod is now what pr is: 4 units moved" in aipctl("env", "promote", "pr", "--to", "prod").out
    ran = aipctl("runs", "--json")
    assert "promote pr" in ran.out
    readme.hold("aipctl runs", ran.json)
    assert aipctl("runs").code == 0
    dropped = json.loads(aipctl("env", "drop", "pr", "--json").out)
    readme.hold("aipctl env drop", dropped)
    assert dropped == {"environment": "pr"}
    assert completable(world) == ["prod"]
    assert aipctl("env", "diff", "pr", "prod").code == 4


async def test_runs_say_in_which_environment_they_were(world: World, variables: dict[str, str]) -> None:
    """All are listed; where they were in several, each with its own."""
    aipctl = Command(world.root, variables)
    assert "environment" not in aipctl("runs").out
    async with world.open() as session:
        await session.create_environment("pr")
    world.document("a.txt", "a other")
    await at(world, "pr").materialize()
    listed = aipctl("runs", "--json").json["runs"]
    assert [run["environment"] for run in listed] == ["pr", "prod"]
    heading, _, *lines = aipctl("runs").out.splitlines()
    assert heading.split()[:3] == ["run", "environment", "started"]
    assert [line.split()[1] for line in lines] == ["pr", "prod"]
    assert "Environment: pr\n" in aipctl("runs", listed[0]["run"]).out
    for name, run in zip(("pr", "prod"), listed, strict=True):  # with --env, those of one
        assert aipctl("runs", "--env", name, "--json").json["runs"] == [run]
        rows = aipctl("journal", "--env", name, "--json").json["journal"]
        assert {row["environment"] for row in rows} == {name}
    assert aipctl("runs", listed[0]["run"], "--env", "prod").code == 4
    assert aipctl("runs", listed[0]["run"], "--env", "pr").code == 0


async def test_a_question_about_an_environment_that_is_not_there_names_the_near_ones(
    world: World, variables: dict[str, str]
) -> None:
    """What `--env` names must be there for a question; a run may begin it, and so may a question of a project that has none yet."""
    aipctl = Command(world.root, variables)
    async with world.open() as session:
        await session.create_environment("pr-17")
    for words in (("env", "create", "feature/New prompt"), ("plan", "--env", "feature/New prompt")):
        refused = aipctl(*words)
        assert (refused.code, "Such as: feature-new-prompt (" in refused.err) == (64, True), refused.err
    typo = aipctl("plan", "--env", "pr-71", "--json")
    assert (typo.code, typo.json["error"]["message"]) == (4, "There is no environment 'pr-71'; there are: pr-17, prod.")
    assert typo.json["error"]["hint"] == "Did you mean pr-17?"
    begun = aipctl("materialize", "--local", "--env", "night", "--json").json
    assert {a["asset"]: a["reused"] for a in begun["assets"]} == {"chunks": 3, "report": 1}
    assert aipctl("plan", "--env", "night", "--exit-code").code == 0
    async with Session.open(world.settings, "demo", environment="pr-71") as session:
        with pytest.raises(NothingSelectedError, match=r"Did you mean pr-17\?"):
            await session.refuse_unknown_environment()
    world.settings = world.settings.using("test", root=world.root / "elsewhere")
    world.code(CODE.replace("{how}", ""))
    (world.root / "projects" / "demo").rename(world.root / "projects" / "other")
    async with Session.open(world.settings, "other", environment="pr-71") as session:
        await session.refuse_unknown_environment()


async def test_a_laptop_that_points_at_production_writes_nothing_there(world: World, variables: dict[str, str]) -> None:
    """A database that belongs to prod is read by a local installation, and written to only by one that says that it is prod, too."""
    aipctl = Command(world.root, variables)
    url = str(world.settings.database_url)
    assert await schema.upgrade(url) == (schema.Standing(schema.HEAD, None),) * 2, "a local one claims nothing"
    assert "The database belongs to prod." in aipctl("db", "upgrade", variables={"ENV": "prod"}).out
    world.document("a.txt", "another text")
    refused = aipctl("materialize", "--local", variables={"ENV": "local"})
    assert refused.code == 64
    told = " ".join(refused.err.split())
    assert f"The database {url.rpartition('/')[2]} at " in told
    assert " belongs to prod, and this installation is local (ENV): nothing is written there." in told
    assert "On purpose: ENV=prod aipctl ..." in told
    assert urlsplit(url).password not in refused.err
    assert await world.plan() != {}, "questions are answered"
    async with world.open() as session:
        with pytest.raises(UsageError, match="belongs to prod"):  # what no verb has thought of
            async with session.project.engine.begin() as connection:
                await connection.execute(sa.insert(t.project).values(name="another"))
        for writes in (
            session.materialize(local=True), session.gc(dry_run=False), session.forget("topics[a.txt]", dry_run=False), session.verify(),
            session.create_environment("pr"), session.drop_environment("pr"), session.promote("pr", "prod"),
            session.accept("report", unverified=True, why="none"), measures.trial(session.project, "report"),
            rebuild_catalog(world.settings, replace=True, automatic_schema=False, say=print),
            schema.check_writable(url, world.settings.stage),  # a deployment whose runs would be refused
        ):  # fmt: skip
            with pytest.raises(UsageError, match="belongs to prod"):
                await writes
    world.settings = world.settings.using("test", stage="prod")
    assert await world.made() == {"chunks": {"made": 1}, "report": {"made": 1}}
    with pytest.raises(UsageError, match="aipctl db upgrade --take"):
        await schema.upgrade(url, "staging")
    assert (await schema.upgrade(url, "staging", take=True))[1].stage == "staging"
    with pytest.raises(UsageError, match="belongs to staging"):
        await world.materialize()


async def test_questions_to_a_database_of_another_stage_leave_it_as_it_is(world: World) -> None:
    """What a local installation declares, looks at and finds lost is kept nowhere; it is answered what is so there all the same."""
    await schema.upgrade(str(world.settings.database_url), "prod")
    before = {table.name: await rows(world, table) for table in t.metadata.sorted_tables}
    world.code(
        CODE.replace("{how}", "")
        + "\n    @asset\n    async def new(report: Report = each(report)) -> Report:\n        return report\n"
    )
    world.document("d.txt", "d one")
    plan = await world.plan()
    assert plan["new"]["causes"] == {"missing": 1}
    assert plan["chunks"]["causes"] == {"missing": 1}
    async with at(world, "night").open() as session:
        assert [info.documents for info in await session.ls()] == [0, 0, 0, 0]
    async with world.open() as session:
        assert (await session.why("chunks[d.txt]")).causes[0].code == "missing"
        assert (await session.lineage("report")).nodes
        await session.gc()
        await session.forget("topics[a.txt]")
        assert [one.same for one in await session.rerun(2)] == [True, True]
        [shown] = await session.show("report")
    for file in (world.root / "store").rglob("*.parquet"):
        file.write_bytes(b"")
    async with world.open() as session:
        with pytest.raises(DamagedObjectError):
            await session.show("chunks")
    assert shown.content == b"a one a two b one b two c one c two"
    assert {table.name: await rows(world, table) for table in t.metadata.sorted_tables} == before


async def test_a_rename_on_a_branch_leaves_other_environments_what_they_have(world: World) -> None:
    """Code with the new name and code with the old one mean the same asset, whichever runs, in whatever order; no unit is made for it."""
    old = CODE.replace("{how}", "")
    plain = old.replace("chunks(topic", "pieces(topic").replace("collect(chunks", "collect(pieces")
    new = plain.replace("@asset\n    async def pieces", '@asset(renamed_from="chunks")\n    async def pieces')
    async with world.open() as session:
        await session.create_environment("pr")
    pr = at(world, "pr")
    world.code(new)
    assert await pr.plan() == {}
    async with pr.open() as session:
        assert "rename" not in {line.row.what for line in await session.journal()}
    world.code(old)
    assert await world.plan() == {}
    world.code(new)
    assert await pr.made() == {}
    async with pr.open() as session:
        [line] = [line for line in await session.journal() if line.row.what == "rename"]
        assert (line.row.environment, line.row.asset, line.row.facts["from"]) == ("pr", "pieces", "chunks")
    world.code(plain)  # the rename was made, and need not be said any more
    assert await pr.plan() == {}
    world.code(old)
    assert await world.plan() == {}
    world.document("a.txt", "a changed")
    assert await world.made() == {"chunks": {"made": 1}, "report": {"made": 1}}
    world.code(new)
    assert await pr.made() == {"pieces": {"reused": 1}, "report": {"reused": 1}}
    async with pr.open() as session:
        assert len((await session.lineage("topics[a.txt]", "down")).nodes) == 3
    await rebuild_catalog(world.settings, replace=True, automatic_schema=False, say=lambda _: None)
    world.code(plain)
    assert await pr.plan() == {}
    world.code(old)
    assert await world.plan() == {}
