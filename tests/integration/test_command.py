"""The command from end to end: what each verb answers, to programs and to people, and how it ends."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest

from assetcore.documents import document_id
from assetcore.settings import Settings
from tests import readme
from tests.integration.command import Command
from tests.integration.world import World

pytestmark = pytest.mark.integration

BODY = """
from assetcore import SearchIndex

class Limits(BaseModel):
    words: int = 9

@asset(tags=["tidy"], owner="ann")
async def clean(topic: Topic = each(topics)) -> Topic:
    "Topics without needless white space."
    assert "broken" not in topic.text
    return Topic(topic.name, text=" ".join(topic.text.split()))

@asset(group="books")
async def chunks(limits: Limits, topic: Topic = each(clean)) -> list[Chunk]:
    words = topic.text.split()[:limits.words]
    return [Chunk(f"{topic.stem}-{i}", text=w, ordinal=i) for i, w in enumerate(words)]

@asset
async def report(chunks: list[Chunk] = collect(chunks)) -> Report:
    print("this goes to stderr")
    return Report("report.txt", text="".join(f"{c.name} {c.text}\\n" for c in chunks))

@asset
async def index(topics: pl.DataFrame = collect(clean)) -> SearchIndex:
    return SearchIndex.build("index", topics.select("name", "text", asset=pl.lit("clean")))
"""
COUNTS = {"made", "unchanged", "reused", "fresh", "removed", "failed", "skipped"}
CAUSE = {"code", "detail", "before", "after"}


@pytest.fixture
def world(settings: Settings) -> World:
    world = World(settings)
    world.code(BODY)
    world.document("a.txt", "the with statement")
    world.document("b.txt", "context   managers and the with statement")
    return world


@pytest.fixture
def aipctl(world: World, variables: dict[str, str]) -> Command:
    return Command(world.root, variables)


def rows(answer: Any, *, key: str = "asset") -> dict[str, Any]:
    return {row[key]: row for row in answer}


async def test_plan_materialize_and_why_answer_in_the_promised_shape(world: World, aipctl: Command) -> None:
    """`plan`, `materialize` and `why` have the keys that programs were promised, and stdout holds one JSON object only."""
    plan = aipctl("plan", "--json").json
    assert {"project", "environment", "stale", "assets", "estimate"} <= set(plan)
    assert (plan["project"], plan["environment"]) == ("demo", "prod")
    assert plan["stale"] == sum(row["stale"] for row in plan["assets"])
    assert set(plan["estimate"]) == {"seconds", "tokens", "usd"}
    expected = {
        "asset": "clean",
        "units": 2,
        "fresh": 0,
        "stale": 2,
        "pending": 0,
        "removed": 0,
        "causes": {"missing": 2},
    }
    assert rows(plan["assets"])["clean"] == expected

    ended = aipctl("materialize", "--local", "--json")
    made = ended.json
    assert ended.code == 0
    assert "this goes to stderr" in ended.err
    assert {"run", "flow_run", "status", "assets"} <= set(made)
    assert (made["flow_run"], made["status"]) == (None, "done")
    assert all(set(row) == {"asset"} | COUNTS for row in made["assets"])
    assert {name: row["made"] for name, row in rows(made["assets"]).items()} == {
        "clean": 2,
        "chunks": 2,
        "report": 1,
        "index": 1,
    }

    world.document("a.txt", "the with statement, edited")
    plan = aipctl("plan", "--json", "--exit-code")
    assert plan.code == 2
    assert rows(plan.json["assets"])["clean"]["causes"] == {"input-changed": 1}
    why = aipctl("why", "clean[a.txt]", "--json").json
    assert (why["unit"], why["fresh"]) == ("clean[a.txt]", False)
    assert all(set(cause) >= CAUSE for cause in why["causes"])
    assert [cause["code"] for cause in why["causes"]] == ["input-changed"]
    assert "edited" in json.dumps(why["causes"])
    assert aipctl("why", "clean[b.txt]", "--json").json["fresh"] is True

    assert rows(aipctl("materialize", "--local", "--json").json["assets"])["clean"]["made"] == 1
    fresh = aipctl("plan", "--json", "--exit-code")
    assert (fresh.code, fresh.json["stale"]) == (0, 0)


async def test_the_verbs_that_look_answer_in_the_promised_shape(world: World, aipctl: Command, tmp_path: Path) -> None:
    """`ls graph lineage show export diff runs search gc` answer with one JSON object each, of a shape that holds."""
    run = (await world.materialize()).run

    def answer(*words: str) -> Any:
        """What the verb answers, which has the keys that the README names."""
        found = aipctl(*words, "--json").json
        readme.hold(f"aipctl {words[0]}", found)
        return found

    answered = answer("ls")
    assert readme.keys("aipctl ls")["assets"].always >= {
        "asset",
        "kind",
        "group",
        "tags",
        "owner",
        "units",
        "documents",
        "stale",
    }
    listed = rows(answered["assets"])
    assert set(listed["clean"]) >= {"partitions", "fresh_until", "repeats"}
    assert (listed["clean"]["units"], listed["clean"]["documents"], listed["chunks"]["documents"]) == (2, 2, 9)
    assert (listed["topics"]["kind"], listed["clean"]["owner"], listed["clean"]["tags"]) == ("source", "ann", ["tidy"])

    graph = answer("graph", "+report")
    assert [node["asset"] for node in graph["nodes"]] == ["topics", "clean", "chunks", "report"]
    assert graph["edges"] == [["topics", "clean"], ["clean", "chunks"], ["chunks", "report"]]

    up = answer("lineage", "chunks[a.txt]/a-1")
    assert {(node["asset"], node["document"]) for node in up["nodes"]} == {
        ("chunks", "a-1"),
        ("clean", "a.txt"),
        ("topics", "a.txt"),
    }
    assert (up["direction"], len(up["edges"])) == ("up", 2)
    assert up["root"] in {node["id"] for node in up["nodes"]}
    down = aipctl("lineage", "topics[a.txt]", "--down", "--depth", "1", "--json").json
    assert {node["asset"] for node in down["nodes"]} == {"topics", "clean"}

    shown = answer("show", "clean[b.txt]")["documents"]
    assert [(d["document"], d["text"], d["media_type"]) for d in shown] == [
        ("b.txt", "context managers and the with statement", "text/plain")
    ]
    assert re.fullmatch(r"[a-z2-7]{6}", shown[0]["id"])
    assert shown[0]["key"].startswith("demo/main/")
    assert aipctl("show", "clean[b.txt]").out == "context managers and the with statement"
    assert aipctl("show", shown[0]["id"]).out == "context managers and the with statement"

    exported = answer("export", "clean or report", str(tmp_path / "out"))
    assert sorted(exported["files"]) == ["clean/a.txt", "clean/b.txt", "report/report.txt"]
    assert (tmp_path / "out" / "clean" / "a.txt").read_text() == "the with statement"
    one = aipctl("export", "clean or report", str(tmp_path / "one"), "--docs", "b* or c*", "--json").json
    assert one["files"] == ["clean/b.txt"]

    diff = answer("diff", "clean[a.txt]", "clean[b.txt]")
    assert diff["same"] is False
    assert "-the with statement" in diff["diff"]

    found = answer("search", "context manager")
    assert (found["hits"][0]["name"], found["hits"][0]["asset"]) == ("b.txt", "clean")

    ran = answer("runs")["runs"]
    assert [(r["run"], r["status"]) for r in ran] == [(run, "done")]
    assert aipctl("runs", str(run)[:4], "--json").json["run"] == run

    swept = answer("gc")
    assert (swept["dry_run"], swept["objects"], swept["orphans"]) == (True, 0, [])


async def test_what_people_see_fits_80_columns(world: World, aipctl: Command) -> None:
    """Tables and trees fit 80 columns, say what happened in a sentence, and have no JSON in them."""
    world.document("a-rather-long-name-of-a-document-as-they-come-from-other-systems-2026-11-20.txt", "broken")
    failed = aipctl("materialize", "--local")
    assert failed.code == 1
    assert (
        "clean[a-rather-long-name-of-a-document-as-they-come-from-other-systems-2026-11-20.txt] failed"
        in failed.out.replace("\n", "")
    )
    assert "The next run makes what failed and what is missing." in failed.out.replace("\n", " ")
    world.document("b.txt", "context managers")
    answers = [
        aipctl(*words.split())
        for words in ("plan --units", "ls", "graph", "runs", "show topics", "lineage chunks[a.txt]")
    ]
    for ended in answers:
        assert ended.code == 0, ended.err
        assert max(map(len, ended.out.splitlines())) <= 80, ended.out
    plan = answers[0].out
    assert "1 changed" in plan
    assert "input-changed 1" in plan


async def test_every_way_to_end_has_its_exit_code(world: World, aipctl: Command) -> None:
    """0 done, 1 failed, 2 stale, 4 nothing selected, 64 wrong usage, 69 no service; with --json the error is on stdout too."""
    assert aipctl("plan", "--exit-code").code == 2
    world.document("c.txt", "broken")
    assert aipctl("materialize", "--local").code == 1
    typo = aipctl("plan", "chunk", "--json")
    assert (typo.code, typo.json["error"]["exit_code"]) == (4, 4)
    assert "chunks" in str(typo.json["error"]["hint"])
    nothing = aipctl("journal", "chunk", "--json")
    assert (nothing.code, nothing.json["error"]["hint"]) == (4, "Did you mean chunks?")
    assert aipctl("runs", "zzz").code == 4
    none = aipctl("vectors", "rebuild", "--json")
    assert (none.code, none.json["error"]["message"]) == (4, "demo has no asset of vectors.")
    assert aipctl("ls", "status:stal").code == 64
    assert aipctl("plan", "chunks clean").code == 64
    assert aipctl("materialise").code == 64
    unreachable = aipctl("plan", "--json", variables={"DATABASE_URL": "postgresql://nobody@127.0.0.1:9/none"})
    assert (unreachable.code, unreachable.json["error"]["kind"]) == (69, "ServiceError")


async def test_an_ambiguous_beginning_of_an_id_lists_the_candidates(world: World, aipctl: Command) -> None:
    """A beginning that several documents share is refused with a REF for each of them; a longer one names one document."""
    seen: dict[str, str] = {}
    for text in (f"text {i}" for i in itertools.count()):
        identifier = document_id(hashlib.sha256(text.encode()).digest())
        if (twin := seen.setdefault(identifier[:4], text)) != text:
            break
    world.document("a.txt", f" {twin}")  # white space, so that source and asset have ids of their own
    world.document("b.txt", f" {text}")
    await world.materialize("clean")
    ended = aipctl("show", identifier[:4])
    assert ended.code == 64
    assert f"{identifier[:4]} is the beginning of 2 documents' ids" in ended.err
    assert "clean[a.txt]" in ended.err
    assert "clean[b.txt]" in ended.err
    assert aipctl("show", identifier).out == text


async def test_an_input_that_was_never_made_is_refused_with_the_way_out(aipctl: Command) -> None:
    """Selecting an asset alone whose inputs were never made ends with 1 and says +asset; --upstream makes them."""
    refused = aipctl("materialize", "report", "--local")
    assert refused.code == 1
    assert "+report" in refused.err
    assert aipctl("materialize", "report", "--upstream", "--local", "--json").json["status"] == "done"


async def test_a_new_project_can_be_materialized_at_once(tmp_path: Path, variables: dict[str, str]) -> None:
    """`new project` leaves a project that works: made, looked at, fresh."""
    aipctl = Command(tmp_path, variables)
    assert aipctl("new", "project", "notes").code == 0
    made = aipctl("materialize", "--local", "--json")
    assert (made.code, made.json["status"]) == (0, "done")
    assert rows(made.json["assets"])["words"]["made"] == 2
    assert aipctl("plan", "--exit-code").code == 0
    assert aipctl("ls", "-p", "notes").code == 0
    again = aipctl("new", "project", "notes")
    assert again.code == 64
    assert "already" in again.err
