"""Trace: where the time of a real run went, in the database, on the screen, and at a collector."""

from __future__ import annotations

import gzip
import json
import logging
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from assetcore.settings import Settings
from tests import readme
from tests.integration.command import Command
from tests.integration.world import World

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

BODY = """
import asyncio
from assetcore import spend
from assetcore.telemetry import get_pipeline_logger, span

logger = get_pipeline_logger(__name__)

@asset(retries=1)
async def clean(topic: Topic = each(topics)) -> Topic:
    if topic.stem == "slow":
        with span("generate", "llm", model="small", input_tokens=5) as call:
            await asyncio.sleep(0.02)
            spend(tokens=12, usd=0.25)
        logger.info("asked", tokens=12)
    assert topic.text != "wrong", "this is wrong"
    return Topic(topic.name, text=topic.text.upper())

@asset
def report(topics: list[Topic] = collect(clean)) -> Report:
    with span("join", texts=len(topics)):
        logger.info("joined", texts=len(topics))
    return Report("report.txt", text=" ".join(t.text for t in topics))
"""


@pytest.fixture
def world(settings: Settings) -> World:
    world = World(settings)
    world.code(BODY)
    for number in range(20):
        world.document(f"{number}.txt", f"text {number}")
    world.document("slow.txt", "beta")
    return world


class Collector:
    """An OTLP collector, or LMNR: keeps what is sent to it."""

    def __init__(self, status: int = 200) -> None:
        received: list[tuple[str, str | None, bytes]] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                content = gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body
                received.append((self.path, self.headers.get("Authorization"), content))
                self.send_response(status)
                self.end_headers()

            def log_message(self, format: str, *arguments: object) -> None:
                """Nothing: the tests ask `received`."""

        self.received = received
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()
    yield collector
    collector.server.shutdown()


async def test_a_run_leaves_a_tree_with_times_and_costs(world: World, variables: dict[str, str]) -> None:
    """Assets, batches, and of the units those that marked something: 22 units leave two spans of a unit."""
    result = await world.materialize()
    async with world.open() as session:
        trace = (await session.trace(str(result.run)[:4])).to_json()
    spans = trace["spans"]
    names = {one["id"]: one["name"] for one in spans}
    parents = {one["name"]: names.get(one["parent"]) for one in spans}
    assert parents["demo"] is None
    above = {one["name"]: names[one["parent"]] for one in spans if one["kind"] in ("source", "asset")}
    assert above == dict.fromkeys(("topics", "clean", "report"), "demo")
    units = [one for one in spans if one["kind"] == "unit"]
    assert [one["name"] for one in units] == ["slow.txt", "report"]
    assert units[0]["attributes"] == {"tokens": 12, "usd": 0.25}
    assert (parents["slow.txt"], parents["generate"]) == ("clean", "slow.txt")
    assert parents["join"] == "report"  # marked in a worker
    (asset,) = [one for one in spans if one["name"] == "clean"]
    assert (asset["attributes"]["made"], asset["attributes"]["usd"]) == (21, 0.25)
    assert asset["attributes"]["keys"][0].startswith("demo/main/")
    batches = [one for one in spans if one["kind"] == "batch"]
    assert sum(one["attributes"]["units"] for one in batches) == 22
    assert all(one["attributes"]["commit_ms"] > 0 and one["attributes"]["ids"] for one in batches)
    assert (trace["run"], trace["tokens"], trace["usd"], trace["dropped"]) == (result.run, 12, 0.25, 0)
    assert len(spans) == 4 + len(batches) + 4

    aipctl = Command(world.root, variables)
    shown = aipctl("trace", str(result.run)[:4])
    assert shown.code == 0, shown.err
    assert "── clean  " in shown.out
    assert re.search(r"── generate  \d+\.\d s  model small", shown.out)
    assert "tokens 12  usd 0.25" in shown.out
    assert max(map(len, shown.out.splitlines())) <= 80
    assert aipctl("trace", str(result.run), "--json").json == trace
    readme.hold("aipctl trace", trace)
    assert aipctl("trace", "nothing").code == 4


async def test_a_failed_unit_is_in_the_trace(world: World) -> None:
    """Quick as it was, with its error and its attempts."""
    world.document("bad.txt", "wrong")
    result = await world.materialize()
    async with world.open() as session:
        spans = (await session.trace(str(result.run))).spans
    (failed,) = [one for one in spans if one.name == "bad.txt"]
    assert "this is wrong" in str(failed.error)
    assert failed.attributes["attempts"] == 2
    assert next(one for one in spans if one.kind == "run").attributes["status"] == "failed"


async def test_a_collector_gets_the_same_spans(world: World, collector: Collector) -> None:
    """OTLP where there is an address, LMNR with its key where there is one: names, costs and the asset are in what arrives."""
    world.settings = world.settings.using(
        "test", otlp_endpoint=collector.url, lmnr_project_api_key="K-hush", lmnr_base_url=collector.url
    )
    assert (await world.materialize()).status == "done"
    assert {path for path, _, _ in collector.received} == {"/v1/traces"}
    assert {authorization for _, authorization, _ in collector.received} == {None, "Bearer K-hush"}
    for _, _, content in collector.received:
        for told in (b"generate", b"gen_ai.request.model", b"assetcore.kind", b"clean", b"gen_ai.usage.cost"):
            assert told in content


async def test_a_collector_that_does_not_listen_fails_nothing(
    world: World, caplog: pytest.LogCaptureFixture, closed_port: int
) -> None:
    """The run is done, the trace is in the database, and one line says that nobody took it elsewhere."""
    world.settings = world.settings.using("test", otlp_endpoint=f"http://127.0.0.1:{closed_port}")
    with caplog.at_level(logging.WARNING, logger="assetcore.telemetry"):
        result = await world.materialize()
    assert result.status == "done"
    assert [one for one in caplog.messages if one.startswith("spans are left out")]
    async with world.open() as session:
        assert (await session.trace(str(result.run))).spans


async def test_old_traces_are_removed(world: World) -> None:
    """With the next run, and only those that are older than the days in the settings."""
    first = await world.materialize()
    world.settings = world.settings.using("test", trace_days=0)
    world.document("new.txt", "new")
    second = await world.materialize()
    async with world.open() as session:
        assert not (await session.trace(str(first.run))).spans
        assert (await session.trace(str(second.run))).spans


def test_log_lines_of_a_run_are_structured(world: World, variables: dict[str, str]) -> None:
    """Where there is no terminal, each line is JSON that says run, asset, unit and document, whichever process wrote it."""
    done = Command(world.root, variables)("materialize", "--local")
    assert done.code == 0, done.err
    line, worker = [json.loads(line) for line in done.err.splitlines() if line.startswith("{")]
    assert (line["message"], line["asset"], line["unit"], line["document"]) == (
        "asked",
        "clean",
        "slow.txt",
        "slow.txt",
    )
    assert (line["project"], line["tokens"], len(line["run"])) == ("demo", 12, 10)
    assert (worker["message"], worker["asset"], worker["unit"], worker["texts"]) == ("joined", "report", "report", 21)
    assert worker["run"] == line["run"]
