"""Provenance: those outside are told what was made of what, and have no say in it."""

from __future__ import annotations

import asyncio
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from assetcore.settings import Settings
from tests.integration.world import World

pytestmark = pytest.mark.integration

CODE = """
@asset(description="The words of a topic", owner="ada", tags=["report"], kinds=["text"], sensitivity="internal")
async def chunks(topic: Topic = each(topics)) -> list[Chunk]:
    if "fail" in topic.text:
        raise ValueError("told to fail")
    return [Chunk(name=f"{topic.stem}-{i}", text=w, ordinal=i) for i, w in enumerate(topic.text.split())]
"""


async def test_runs_are_told_and_an_export_takes_its_provenance_along(settings: Settings, tmp_path: Path) -> None:
    """START and COMPLETE or FAIL of each asset; an endpoint that does not answer fails no run; a statement has hashes of all files."""
    told = tmp_path / "events.jsonl"
    world = World(settings.using("test", openlineage=told.as_uri()))
    world.code(CODE)
    world.document("a.txt", "some text")
    assert (await world.materialize()).status == "done"
    events = [json.loads(line) for line in told.read_text().splitlines()]
    assert [(e["job"]["name"], e["eventType"]) for e in events] == [
        ("topics", "START"), ("topics", "COMPLETE"), ("chunks", "START"), ("chunks", "COMPLETE")
    ]  # fmt: skip
    last = events[-1]
    assert last["run"]["runId"] == events[-2]["run"]["runId"] != events[0]["run"]["runId"]
    assert last["inputs"][0]["name"] == "prod/topics"
    assert last["job"]["facets"]["documentation"]["description"] == "The words of a topic"
    assert last["job"]["facets"]["ownership"]["owners"] == [{"name": "ada"}]
    tags = last["outputs"][0]["facets"]["tags"]
    assert [(tag["key"], tag["value"]) for tag in tags["tags"]] == [
        ("report", "true"), ("kind", "text"), ("sensitivity", "internal")
    ]  # fmt: skip
    assert tags["_schemaURL"].endswith("/TagsDatasetFacet.json#/$defs/TagsDatasetFacet")
    assert "tags" not in last["inputs"][0]["facets"]
    assert "topic.stem" in last["job"]["facets"]["sourceCode"]["sourceCode"]
    world.settings = settings.using("test", openlineage=str(told))
    world.document("b.txt", "fail")
    assert (await world.materialize()).status == "failed"
    failed = json.loads(told.read_text().splitlines()[-1])
    assert failed["eventType"] == "FAIL"
    assert "told to fail" in failed["run"]["facets"]["errorMessage"]["message"]

    heard: list[Any] = []

    async def hear(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        heard.append(
            json.loads(await reader.readexactly(int(head.partition("content-length: ")[2].partition("\r")[0])))
        )
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(hear, "127.0.0.1") as endpoint:
        port = endpoint.sockets[0].getsockname()[1]
        world.settings = settings.using("test", openlineage=f"http://127.0.0.1:{port}/events")
        assert (await world.materialize()).status == "failed"
    assert [event["eventType"] for event in heard] == ["START", "FAIL"]

    world.settings = settings.using("test", openlineage="http://127.0.0.1:9/events")
    world.document("b.txt", "mended")
    assert (await world.materialize()).status == "done"
    assert any("did not reach" in event.text for event in world.events)

    async with world.open() as session:
        exported = await session.export("chunks", tmp_path / "out", provenance=True)
    said = json.loads((tmp_path / "out" / str(exported.provenance)).read_text())
    for subject in said["subject"]:
        assert (
            hashlib.sha256((tmp_path / "out" / subject["name"]).read_bytes()).hexdigest() == subject["digest"]["sha256"]
        )
    assert len(said["subject"]) == len(exported.files) == 3
    build = said["predicate"]["buildDefinition"]
    assert [d["name"] for d in build["resolvedDependencies"]] == ["topics[a.txt]", "topics[b.txt]"]
    assert list(build["internalParameters"]["definitions"]) == ["chunks"]


PAIR = """
@asset
async def chunks(topic: Topic = each(topics)) -> Chunk:
    "The words of a topic, in capitals."
    return Chunk(name=topic.name, text=topic.text.upper(), ordinal=0)

@asset
async def report(chunks: list[Chunk] = collect(chunks)) -> Report:
    return Report("report", text=" ".join(c.text for c in chunks))

@asset
async def beside(topic: Topic = each(topics)) -> Report:
    return Report(topic.name, text=topic.text)
"""


async def test_a_statement_tells_what_was_and_not_what_is(settings: Settings, tmp_path: Path) -> None:
    """Of which version of which documents what is exported was made, by which code and run: whatever has changed since, or is beside it."""
    world = World(settings.using("test"))
    world.code(PAIR)
    for name in "ab":
        world.document(f"{name}.txt", name)
    first = await world.materialize()
    async with world.open() as session:
        definition = session.project.definition("chunks").digest.hex()
    world.code(PAIR.replace("upper()", "upper() + '!'"))
    world.document("a.txt", "another")
    assert (await world.materialize("beside")).status == "done"
    hashes = {name: hashlib.sha256(name.encode()).hexdigest() for name in "ab"}
    expected = {
        "chunks[a.txt]": {"topics[a.txt]": hashes["a"]},
        "report": {"topics[a.txt]": hashes["a"], "topics[b.txt]": hashes["b"]},
    }
    for select, made_of in expected.items():
        async with world.open() as session:
            exported = await session.export(select, tmp_path / select, provenance=True)
        said = json.loads((tmp_path / select / str(exported.provenance)).read_text())["predicate"]
        dependencies = said["buildDefinition"]["resolvedDependencies"]
        assert {d["name"]: d["digest"]["sha256"] for d in dependencies} == made_of
        assert said["runDetails"]["metadata"]["invocationId"] == first.run
        if select != "report":
            assert said["buildDefinition"]["internalParameters"]["definitions"] == {"chunks": [definition]}


async def test_what_is_left_is_not_told_to_be_complete(settings: Settings, tmp_path: Path) -> None:
    """An asset that was skipped, as what is above it failed, has an ABORT; a docstring is documentation, typed fields are in the schema."""
    told = tmp_path / "events.jsonl"
    world = World(settings.using("test", openlineage=str(told)))
    world.code(PAIR)
    world.document("a.txt", "some text")
    await world.materialize()
    events = {e["job"]["name"]: e for e in map(json.loads, told.read_text().splitlines())}
    facets = events["chunks"]["outputs"][0]["facets"]
    assert facets["documentation"]["description"] == "The words of a topic, in capitals."
    assert [field["name"] for field in facets["schema"]["fields"]] == ["name", "media_type", "content", "ordinal"]
    world.code(PAIR.replace("topic.text.upper()", "topic.txt"))
    assert (await world.materialize()).status == "failed"
    ended = {e["job"]["name"]: e["eventType"] for e in map(json.loads, told.read_text().splitlines())}
    assert (ended["chunks"], ended["report"]) == ("FAIL", "ABORT")
