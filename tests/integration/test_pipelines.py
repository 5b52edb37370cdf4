"""Pipelines: a declared flow runs in Prefect, here and on a worker, with the same result."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from prefect.client.orchestration import PrefectClient

from assetcore.settings import Settings
from tests import readme
from tests.integration.command import Command, end, until
from tests.integration.test_flow import Relay, task_runs
from tests.integration.test_trace import Collector
from tests.integration.world import World

pytestmark = [pytest.mark.integration, pytest.mark.timeout(200)]

BODY = """
from assetcore import DocumentList, RetryPolicy, pipeline_flow, pipeline_task

class Limits(BaseModel):
    longest: int = 80

class Refused(Exception):
    def __init__(self, status_code: int) -> None:
        super().__init__(f"answer {status_code}")
        self.status_code = status_code

tries = []

@asset
async def clean(topic: Topic = each(topics)) -> Topic:
    return Topic(topic.name, text=topic.text.upper())

@pipeline_task(retry=RetryPolicy("quick", retries=3, first=0.01, jitter=0), idempotent=True)
async def cut(documents: DocumentList, limits: Limits) -> DocumentList:
    tries.append(1)
    if any(one.text == "BUSY" for one in documents) and len(tries) < 3:
        raise Refused(503)
    if any(one.text == "WRONG" for one in documents):
        raise Refused(400)
    return DocumentList(Topic(one.name, text=one.text[:limits.longest]) for one in documents)

@pipeline_flow
async def publish(documents: DocumentList, limits: Limits = Limits()) -> DocumentList:
    "Cut and published."
    return await cut(documents, limits)
"""


@pytest.fixture
def aipctl(settings: Settings, variables: dict[str, str], prefect_api: str) -> Command:
    world = World(settings)
    world.code(BODY)
    world.document("a.txt", "alpha")
    world.document("b.txt", "busy")
    aipctl = Command(world.root, {**variables, "PREFECT_API_URL": prefect_api})
    assert aipctl("materialize", "--local").code == 0
    return aipctl


async def test_a_flow_runs_here_and_on_a_worker_with_the_same_result(
    aipctl: Command, prefect_api: str, tmp_path: Path
) -> None:
    """Tasks are task runs, tried again as declared, traced; the documents lie in the store, and are the same by a deployment."""
    command = ("run", "publish", "--input", "documents=clean", "--param", "limits={longest: 3}", "--json")
    here = aipctl(*command)
    assert here.code == 0, here.err
    readme.hold("aipctl run", here.json)
    documents = here.json["documents"]
    assert [one["name"] for one in documents] == ["a.txt", "b.txt"]
    assert Path(documents[0]["key"].removeprefix("file://")).read_bytes() == b"ALP"
    spans = aipctl("trace", here.json["run"], "--json").json["spans"]
    assert [one["kind"] for one in spans].count("task") == 3
    assert sum(one["error"] is not None for one in spans if one["kind"] == "task") == 2
    async with PrefectClient(prefect_api) as client:
        tasks = await task_runs(client, here.json["flow_run"], 1)
        shown = await client.read_flow_run(here.json["flow_run"])
    assert [task.name for task in tasks] == ["cut"]
    assert "ALPHA" not in str(shown.parameters) + str(tasks[0])

    pool = f"flows-{tmp_path.name[-8:].strip('_')}"
    worker = subprocess.Popen(
        [sys.executable, "-m", "prefect", "worker", "start", "--pool", pool, "--type", "process"],
        cwd=tmp_path, env={**aipctl.variables, "PREFECT_WORKER_QUERY_SECONDS": "1", "TMPDIR": str(tmp_path)},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL, start_new_session=True, text=True,
    )  # fmt: skip
    try:
        there = aipctl(*command, "--deployment", "--pool", pool)
    finally:
        end(worker)
    assert there.code == 0, there.err
    assert [one["sha256"] for one in there.json["documents"]] == [one["sha256"] for one in documents]
    assert there.json["run"] != here.json["run"]

    collector = Collector()
    more = {"ASSETCORE_TRACE_DAYS": "0", "ASSETCORE_OTLP_ENDPOINT": collector.url}
    later = Command(aipctl.root, {**aipctl.variables, **more})
    assert later(*command).code == 0
    collector.server.shutdown()
    assert any(b"publish" in content for _, _, content in collector.received)
    assert aipctl("trace", here.json["run"], "--json").json["spans"] == []  # it was older than the days in the settings
    *flows, made = aipctl("runs", "--json").json["runs"]
    assert aipctl("trace", made["run"], "--json").json["spans"]  # a run's goes with the next run
    assert [run["selection"] for run in flows] == ["run publish"] * 3, "what ran here and what a worker ran"
    assert {run["status"] for run in flows} == {"done"}
    assert [run["run"] for run in flows][1:] == [there.json["run"], here.json["run"]]
    assert "run publish" in aipctl("runs").out
    assert f"Flow run: {here.json['flow_run']}" in aipctl("runs", here.json["run"][:6]).out
    rows = [row for row in aipctl("journal", "--json").json["journal"] if row["what"] == "flow"]
    assert [(row["run"], row["facts"]) for row in rows[:1]] == [
        (here.json["run"], {"flow": "publish", "status": "done"})
    ]
    assert len(rows) == 3
    assert aipctl("journal", "verify").code == 0
    assert aipctl("catalog", "verify").code == 0, "the bucket knows it too"


def test_what_is_asked_wrongly_is_told(aipctl: Command) -> None:
    """An unknown flow, parameter or value, what is not made yet, and a flow that fails: a sentence, and nothing on stdout."""
    (aipctl.root / "data" / "c.txt").write_text("WRONG")
    assert aipctl("materialize", "--local").code == 0
    with (aipctl.root / "projects" / "demo" / "assets.py").open("a") as module:
        module.write("\n@asset\nasync def later(topic: Topic = each(topics)) -> Topic:\n    return topic\n")
    for words, code, sentence in [
        (("run", "publish", "--input", "documents=later"), 4, "later is not made yet"),
        (("run", "publsh"), 4, "demo has no flow 'publsh'"),
        (("run", "publish"), 64, "publish takes documents, and was given nothing for it"),
        (
            ("run", "publish", "--input", "documents=clean", "--param", "limits={longest: many}"),
            64,
            "limits.longest: Input should be",
        ),
        (
            ("run", "publish", "--input", "documents=clean", "--param", "limits={longst: 2}"),
            64,
            "limits.longst: Extra inputs",
        ),
        (("run", "publish", "--input", "documents=topics"), 1, "publish failed: Refused: answer 400"),
    ]:
        told = aipctl(*words)
        assert (told.code, told.out) == (code, ""), told.err
        assert sentence in told.err
    failed, *before = aipctl("runs", "--json").json["runs"]
    assert (failed["selection"], failed["status"], failed["assets"]) == ("run publish", "failed", [])
    assert [run["selection"] for run in before] == ["", ""], "what did not begin is not listed"


WAITING = """
import asyncio, pathlib

@pipeline_flow
async def slow(documents: DocumentList) -> DocumentList:
    pathlib.Path("begun").touch()
    while pathlib.Path("gate").exists():
        await asyncio.sleep(0.05)
    return documents
"""


async def test_a_flow_that_prefect_lost_sight_of_has_run(aipctl: Command, prefect_api: str, settings: Settings) -> None:
    """When Prefect's API goes away in a flow, its documents are stored; the next flow or run has Prefect show how it ended."""
    World(settings).code(BODY + WAITING)
    gate, parts = aipctl.root / "gate", urlsplit(prefect_api)
    gate.touch()
    with Relay(str(parts.hostname), int(parts.port or 0)) as relay:
        variables = {"PREFECT_API_URL": f"http://127.0.0.1:{relay.port}/api"}
        process = aipctl.start("run", "slow", "--input", "documents=topics", "--json", variables=variables)
        try:
            until((aipctl.root / "begun").exists)
            relay.close()
            gate.unlink()
            out, err = process.communicate(timeout=80)
        finally:
            end(process)
    assert process.returncode == 0, err
    assert "Prefect's API does not answer" in err
    lost = json.loads(out)
    assert [one["name"] for one in lost["documents"]] == ["a.txt", "b.txt"]
    async with PrefectClient(prefect_api) as client:
        assert (state := (await client.read_flow_run(lost["flow_run"])).state) is not None
        assert state.is_running()
        assert aipctl("run", "publish", "--input", "documents=topics").code == 0
        assert (state := (await client.read_flow_run(lost["flow_run"])).state) is not None
        assert state.is_completed()
