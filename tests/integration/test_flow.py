"""A run as Prefect shows it: one flow run, one task for each asset, states and tables that tell what happened."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Self
from urllib.parse import urlsplit

import pytest
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    FlowRunFilter,
    FlowRunFilterId,
)

from assetcore.lineage import runs
from assetcore.results import RunResult
from assetcore.session import Session
from assetcore.settings import Settings
from tests.integration.command import SECONDS, Command, end, lease_runs_out, until
from tests.integration.world import HEAD, World

pytestmark = pytest.mark.integration

BODY = """
@asset(tags=["tidy"])
async def clean(topic: Topic = each(topics)) -> Topic:
    return Topic(topic.name, text=" ".join(topic.text.split()))

@asset(group="books")
async def chunks(topic: Topic = each(clean)) -> list[Chunk]:
    return [Chunk(f"{topic.stem}-{i}", text=w, ordinal=i) for i, w in enumerate(topic.text.split())]

@asset
async def report(chunks: list[Chunk] = collect(chunks)) -> Report:
    return Report("report.txt", text=" ".join(c.text for c in chunks))
"""


@pytest.fixture
def world(settings: Settings, prefect_api: str) -> World:
    world = World(settings.using("test", prefect_api_url=prefect_api))
    world.code(BODY)
    world.document("a.txt", "alpha beta")
    world.document("b.txt", "gamma delta")
    return world


@pytest.fixture
def aipctl(world: World, variables: dict[str, str]) -> Command:
    return Command(world.root, variables)


async def test_a_run_is_one_flow_run_with_a_task_for_each_asset(world: World, prefect_api: str) -> None:
    """One flow run, named for the project, small parameters; its task runs are named by the assets; tables tell plan and result."""
    result = await world.materialize(local=False)
    assert result.status == "done"
    async with PrefectClient(prefect_api) as client:
        flow_run = await client.read_flow_run(_id(result.flow_run))
        assert flow_run.parameters == {"run_id": result.run}
        assert flow_run.name == f"demo-{result.run}"
        assert flow_run.state is not None
        assert (flow_run.state.type.value, flow_run.state.message) == ("COMPLETED", "5 units made")
        tasks = await task_runs(client, result.flow_run, 4)
        assert {t.name for t in tasks} == {"topics", "clean", "chunks", "report"}
        assert {t.state_name for t in tasks} == {"Completed"}
        by_name = {t.name: t for t in tasks}
        assert set(by_name["clean"].tags) == {"asset", "group:main", "tidy"}
        assert by_name["chunks"].id in {one.id for one in by_name["report"].task_inputs["wait_for"]}
        tables = await _tables(client, result.flow_run)
    planned = tables["demo-prod-plan"][0]
    assert (planned["asset"], planned["stale"], planned["causes"]) == ("clean", 2, "missing 2")
    rows = {row["asset"]: row for row in tables["demo-prod-result"]}
    assert (rows["clean"]["made"], rows["report"]["made"]) == (2, 1)
    assert rows["report"]["keys"].endswith("/report/report.txt")
    assert rows["report"]["keys"].startswith(world.settings.storage_url)


LIMITED = """
import asyncio, time

async def timed() -> Report:
    began = time.monotonic()
    await asyncio.sleep(0.3)
    return Report("r", text=f"{began} {time.monotonic()}")

@asset(tags=["TAG", "tidy"])
async def first() -> Report:
    return await timed()

@asset(tags=["TAG"])
async def second() -> Report:
    return await timed()

@asset(tags=["TAG"])
async def third() -> Report:
    return await timed()
"""


async def test_a_tag_that_prefect_limits_is_a_limit_of_tasks(world: World, prefect_api: str) -> None:
    """Of assets with a tag for which Prefect has a concurrency limit of one, one is made at a time."""
    tag = f"database-{uuid.uuid4().hex[:8]}"
    world.code(LIMITED.replace("TAG", tag))
    async with PrefectClient(prefect_api) as client:
        await client.create_concurrency_limit(tag, 1)
        result = await world.materialize(local=False)
        tags = {one.name: set(one.tags) for one in await task_runs(client, result.flow_run, 4)}
    assert tags["first"] == {"asset", "group:main", "tidy", tag}
    made = await world.contents()
    times = sorted(tuple(map(float, b"".join(made[name].values()).split())) for name in ("first", "second", "third"))
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(times))


async def test_states_tell_what_was_unchanged_and_what_was_reused(world: World, prefect_api: str) -> None:
    """A task whose units came out as before ends as Unchanged; one that took back earlier results ends as Reused."""
    await world.materialize()
    world.document("a.txt", "  alpha   beta ")
    unchanged = await world.materialize(local=False)
    world.document("a.txt", "other words")
    await world.materialize()
    world.document("a.txt", "alpha beta")
    reused = await world.materialize(local=False)
    async with PrefectClient(prefect_api) as client:
        states = {t.name: t.state_name for t in await task_runs(client, unchanged.flow_run, 4)}
        assert states["clean"] == "Unchanged"
        states = {t.name: t.state_name for t in await task_runs(client, reused.flow_run, 4)}
    assert (states["clean"], states["chunks"], states["report"]) == ("Reused", "Reused", "Reused")


async def test_states_and_tables_tell_what_checks_say(world: World, prefect_api: str) -> None:
    """As part of the message and in the table of results: what only warns is completed, what is refused has failed."""
    head = HEAD.replace("asset, collect", "asset, check, collect")
    few = """
@check(clean, blocking={blocking})
async def few(texts: list[Topic]) -> str:
    return f"{{len(texts)}} texts" if len(texts) > {limit} else ""
"""
    world.code(BODY + few.format(blocking=False, limit=1), head=head)
    warned = await world.materialize("clean", local=False)
    world.code(BODY + few.format(blocking=True, limit=2), head=head)
    world.document("c.txt", "epsilon")
    refused = await world.materialize("clean", local=False)
    world.remove("c.txt")
    world.code(BODY + few.format(blocking=True, limit=1), head=head)
    current = await world.materialize("clean", local=False)
    assert [run.status for run in (warned, refused, current)] == ["done", "failed", "failed"]
    async with PrefectClient(prefect_api) as client:

        async def shown(run: RunResult, tasks: int) -> tuple[str | None, str | None, str]:
            found = {one.name: one.state for one in await task_runs(client, run.flow_run, tasks)}
            rows = {row["asset"]: row for row in (await _tables(client, run.flow_run))["demo-prod-result"]}
            flow_run = await client.read_flow_run(_id(run.flow_run))
            assert flow_run.state is not None
            assert (flow_run.state.type.value == "FAILED") == (run.status == "failed")
            return found["clean"].name, found["clean"].message, rows["clean"]["checks"]

        assert await shown(warned, 2) == ("Completed", "2 made; few failed", "few failed (2 texts)")
        assert await shown(refused, 2) == ("Failed", "1 failed; few failed", "few failed (3 texts)")
        assert (await shown(current, 2))[0] == "Failed"


async def test_nothing_stale_is_no_flow_run(world: World, prefect_api: str, aipctl: Command) -> None:
    """When nothing is stale there is no flow run; the command says so."""
    await world.materialize()
    async with PrefectClient(prefect_api) as client:
        before = await client.count_flow_runs()
        ended = aipctl("materialize", "--json")
        assert (ended.code, ended.json["run"], ended.json["flow_run"]) == (0, None, None)
        assert ended.json["status"] == "nothing to do"
        assert await client.count_flow_runs() == before
    assert "up to date" in aipctl("materialize").out


async def test_a_run_loads_no_library_that_nothing_asks_for(world: World, aipctl: Command) -> None:
    """pandas, FastAPI and networkx, half a second together, are loaded where a frame of pandas, a server or GraphML is asked for."""
    ended = aipctl("materialize", variables={"PYTHONPROFILEIMPORTTIME": "1"})
    assert ended.code == 0, ended.err
    loaded = {line.rpartition("|")[2].strip() for line in ended.err.splitlines() if line.startswith("import time:")}
    assert {"prefect.flows", "pyarrow.parquet.core"} <= loaded
    assert not {"pandas", "fastapi", "networkx"} & loaded


async def test_a_failed_unit_fails_its_task_and_the_flow_at_the_end(
    world: World, prefect_api: str, aipctl: Command
) -> None:
    """A unit that raises fails its task and the flow run; what does not depend on it is made; the command ends with 1."""
    world.code(
        BODY.replace(
            "    return Topic(topic.name",
            "    assert 'gamma' not in topic.text, 'no gamma here'\n    return Topic(topic.name",
        )
    )
    ended = aipctl("materialize", "--json")
    assert ended.code == 1
    answer = ended.json
    assert answer["status"] == "failed"
    assert [(f["asset"], f["unit"]) for f in answer["failures"]] == [("clean", "b.txt")]
    assert "no gamma here" in answer["failures"][0]["error"]
    made = {a["asset"]: (a["made"], a["failed"], a["skipped"]) for a in answer["assets"]}
    assert made == {"clean": (1, 1, 0), "chunks": (1, 0, 0), "report": (0, 0, 1)}
    async with PrefectClient(prefect_api) as client:
        flow_run = await client.read_flow_run(_id(answer["flow_run"]))
        assert flow_run.state is not None
        assert (flow_run.state.type.value, flow_run.state.message) == ("FAILED", "1 unit failed")
        states = {t.name: t.state_name for t in await task_runs(client, answer["flow_run"], 4)}
    assert states == {"topics": "Completed", "clean": "Failed", "chunks": "Completed", "report": "Skipped"}


async def test_what_goes_wrong_outside_of_units_is_not_lost_in_prefect(world: World) -> None:
    """An object that an asset reads is gone: the run fails and names the object, as it does without Prefect."""
    await world.materialize("clean", upstream=True)
    for pack in (world.root / "store").rglob("*/clean/pack-*.parquet"):
        pack.unlink()
    result = await world.materialize(local=False)
    assert result.status == "failed"
    assert [f.asset for f in result.failures] == ["chunks"]
    assert "/clean/pack-" in result.failures[0].error


async def test_the_users_prefect_settings_cannot_make_a_task_return_anothers_value(
    world: World, prefect_api: str, aipctl: Command
) -> None:
    """With result persistence switched on in the environment, every task still does its own work and stores no result."""
    storage = world.root / "results"
    variables = {"PREFECT_RESULTS_PERSIST_BY_DEFAULT": "true", "PREFECT_LOCAL_STORAGE_PATH": str(storage)}
    assert aipctl("materialize", "--json", variables=variables).json["status"] == "done"
    forced = aipctl("materialize", "--force", "--json", variables=variables).json
    assert {a["asset"]: a["unchanged"] for a in forced["assets"]} == {"clean": 2, "chunks": 2, "report": 1}
    assert not list(storage.rglob("*")) if storage.exists() else True
    async with PrefectClient(prefect_api) as client:
        states = {t.name: t.state_name for t in await task_runs(client, forced["flow_run"], 4)}
    assert states == {"topics": "Completed", "clean": "Unchanged", "chunks": "Unchanged", "report": "Unchanged"}


WAITING = """
import asyncio, pathlib

class Limits(BaseModel):
    words: int = 1

@asset
async def first(limits: Limits, topic: Topic = each(clean)) -> Report:
    pathlib.Path("begun").touch()
    while pathlib.Path("gate").exists():
        await asyncio.sleep(0.05)
    return Report(topic.name, text=" ".join(topic.text.split()[: limits.words]))
"""


WORKER = "import asyncio, sys; from assetcore.flow import run_plan; asyncio.run(run_plan(sys.argv[1]))"


async def test_a_worker_completes_a_stored_run(world: World, aipctl: Command, prefect_api: str) -> None:
    """`run_plan(run_id)` where no run is open reads the stored plan, with the settings that it finds there, and completes it."""
    world.code(BODY + WAITING)
    (world.root / "gate").touch()
    process = aipctl.start("materialize", "first", "--upstream", "--local", "--set", "first.words=2", "--env", "night")
    try:
        until((world.root / "begun").exists)
    finally:
        end(process)
    (world.root / "gate").unlink()
    await lease_runs_out(world.settings)
    async with world.open() as session:
        begun = (await session.runs())[0]
        assert begun.status == "running"
    command = [sys.executable, "-c", WORKER, begun.run]
    subprocess.run(command, cwd=world.root, env=dict(aipctl.variables), check=True, timeout=60)
    async with Session.open(world.settings, "demo", environment="night", config=["first.words=2"]) as session:
        run = (await session.runs(begun.run))[0]
        assert run.status == "done"
        assert {a["asset"]: a["made"] for a in run.assets} == {"first": 2}  # clean was made before, and not again
        assert [d.content for d in await session.show("first")] == [b"alpha beta", b"gamma delta"]
        assert (await session.materialize("first", local=True)).status == "nothing to do"
    async with PrefectClient(prefect_api) as client:
        assert [t.name for t in await task_runs(client, run.flow_run, 1)] == ["first"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)], ids=["SIGINT", "SIGKILL"])
async def test_a_run_that_ended_early_is_not_shown_as_running(
    world: World, aipctl: Command, prefect_api: str, number: int, code: int
) -> None:
    """Ctrl-C closes the flow run; that of a killed process is closed by the next run, which continues with what is missing."""
    world.code(BODY + WAITING)
    (world.root / "gate").touch()
    process = aipctl.start("materialize", "+first")
    try:
        until((world.root / "begun").exists)
        process.send_signal(number)
        process.communicate(timeout=30)
    finally:
        end(process)
    assert process.returncode == code
    if number == signal.SIGKILL:
        await lease_runs_out(world.settings)
    (world.root / "gate").unlink()
    ended = aipctl("materialize", "+first", "--json")
    assert ended.code == 0
    assert {a["asset"]: a["made"] for a in ended.json["assets"] if a["made"]} == {"first": 2}
    async with world.open() as session, PrefectClient(prefect_api) as client:
        last, before = await session.runs()
        assert (last.status, before.status) == ("done", "cancelled" if number == signal.SIGINT else "died")
        state = (await client.read_flow_run(_id(before.flow_run))).state
        assert state is not None
        assert state.type.value == "CRASHED"
    assert await _unshown(world) == []


async def test_an_api_that_goes_away_stops_nothing(world: World, aipctl: Command, prefect_api: str) -> None:
    """When Prefect's API is lost during a run, all is made and stored; the command says so and ends. The next run has Prefect show it."""
    with cut_in_the_middle(world, aipctl, prefect_api) as (process, _, _):
        out, err = process.communicate(timeout=80)
    assert process.returncode == 0, err
    assert json.loads(out)["status"] == "done"
    assert "Prefect's API does not answer any more" in err
    assert (await world.materialize()).status == "nothing to do"
    lost = _id(json.loads(out)["flow_run"])
    async with PrefectClient(prefect_api) as client:
        assert (state := (await client.read_flow_run(lost)).state) is not None
        assert state.is_running()
        world.document("a.txt", "another")
        assert aipctl("materialize").code == 0
        assert (state := (await client.read_flow_run(lost)).state) is not None
        assert (state.name, state.message) == ("Completed", "The run is done. Prefect's API was away when it ended.")
        wanted = FlowRunFilter(id=FlowRunFilterId(any_=[lost]))
        tasks = await client.read_task_runs(flow_run_filter=wanted)
        assert {t.state_name for t in tasks} == {"Completed"}
    assert await _unshown(world) == []


@contextmanager
def cut_in_the_middle(
    world: World, aipctl: Command, prefect_api: str
) -> Iterator[tuple[subprocess.Popen[str], Relay, dict[str, str]]]:
    """A run whose way to Prefect's API is cut in its middle, and that goes on then; the way, and the variables that lead along it."""
    world.code(BODY + WAITING)
    (world.root / "gate").touch()
    parts = urlsplit(prefect_api)
    with Relay(str(parts.hostname), int(parts.port or 0)) as relay:
        variables = {"PREFECT_API_URL": f"http://127.0.0.1:{relay.port}/api"}
        process = aipctl.start("materialize", "--json", variables=variables)
        try:
            until((world.root / "begun").exists)
            relay.close()
            (world.root / "gate").unlink()
            yield process, relay, variables
        finally:
            end(process)


async def _unshown(world: World) -> list[str]:
    async with world.open() as session, session.project.engine.connect() as connection:
        return list(await runs.unshown(connection, session.project.id))


AWAY_SECONDS = 30 if "SOAK" in os.environ else 3


async def test_an_api_that_is_away_for_a_while(world: World, aipctl: Command, prefect_api: str) -> None:
    """When Prefect's API is away in the middle of a run and comes back, all is made, the run ends soon, and so does the next one."""
    with cut_in_the_middle(world, aipctl, prefect_api) as (process, relay, variables):
        await asyncio.sleep(AWAY_SECONDS)
        relay.open()
        out, err = process.communicate(timeout=SECONDS)
        assert process.returncode == 0, err
        assert "Traceback" not in err
        assert json.loads(out)["status"] == "done"
        world.document("a.txt", "another")
        again = aipctl("materialize", "--json", variables=variables)
    assert (again.code, again.json["status"]) == (0, "done")
    async with PrefectClient(prefect_api) as client:
        state = (await client.read_flow_run(_id(again.json["flow_run"]))).state
    assert state is not None
    assert state.is_final(), state
    assert await world.plan() == {}


class Relay:
    """A way to a server that can be cut, and mended."""

    def __init__(self, host: str, port: int) -> None:
        self._to = (host, port)
        self._open: list[socket.socket] = []
        self._lock = threading.Lock()
        self.port = 0

    def __enter__(self) -> Self:
        self.open()
        return self

    def open(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", self.port))
        self.port = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, args=(self._listening,), daemon=True).start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        with self._lock:
            for one in (self._listening, *self._open):
                with suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
                one.close()

    def _accept(self, listening: socket.socket) -> None:
        with suppress(OSError):
            while True:
                near, far = listening.accept()[0], socket.create_connection(self._to)
                with self._lock:
                    if listening.fileno() < 0:  # cut while this one came
                        near.close()
                        far.close()
                        return
                    self._open += [near, far]
                for one, other in ((near, far), (far, near)):
                    threading.Thread(target=self._pass_on, args=(one, other), daemon=True).start()

    def _pass_on(self, one: socket.socket, other: socket.socket) -> None:
        with suppress(OSError):
            while data := one.recv(1 << 16):
                other.sendall(data)
            other.shutdown(socket.SHUT_WR)


def _id(text: str | None) -> uuid.UUID:
    assert text is not None
    return uuid.UUID(text)


async def task_runs(client: PrefectClient, flow_run: str | None, count: int) -> list[Any]:
    """The task runs of a flow run; the server writes them down a moment after they happened, or many beside other work."""
    wanted = FlowRunFilter(id=FlowRunFilterId(any_=[_id(flow_run)]))
    for _ in range(1200):
        found = await client.read_task_runs(flow_run_filter=wanted)
        if len(found) == count and all(t.state is not None and t.state.is_final() for t in found):
            return found
        await asyncio.sleep(0.1)
    raise AssertionError(f"{count} task runs expected, found {[(t.name, t.state_name) for t in found]}")


async def _tables(client: PrefectClient, flow_run: str | None) -> dict[str, list[dict[str, Any]]]:
    wanted = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[_id(flow_run)]))
    found = await client.read_artifacts(artifact_filter=wanted)
    return {a.key: json.loads(a.data) for a in found if a.type == "table" and isinstance(a.data, str) and a.key}
