"""Deploy: workers of a Prefect work pool run a project, and one that is killed leaves a state from which the next run continues."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import jsonschema
import psutil
import pytest
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import DeploymentScheduleCreate, WorkPoolCreate
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId, LogFilter, LogFilterFlowRunId
from prefect.client.schemas.schedules import IntervalSchedule
from prefect.states import Cancelling
from redis import asyncio as redis

from assetcore.deploy import register
from assetcore.errors import ServiceError, UsageError
from assetcore.settings import Settings
from tests import readme
from tests.integration.command import Command, end, lease_runs_out, until
from tests.integration.world import World

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

BODY = """
import asyncio, os, pathlib

@asset
async def clean(topic: Topic = each(topics)) -> Topic:
    print("cleaning", topic.name)
    folder = pathlib.Path("begun")
    folder.mkdir(exist_ok=True)
    (folder / f"{topic.stem}-{os.getpid()}").touch()
    while topic.stem != "a" and pathlib.Path("gate").exists():
        await asyncio.sleep(0.05)
    assert topic.text != "wrong", "this is wrong"
    return Topic(topic.name, text=topic.text.upper())

@asset
def report(topics: list[Topic] = collect(clean)) -> Report:
    return Report("report.txt", text=" ".join(t.text for t in topics))
"""


@pytest.fixture
def world(settings: Settings, prefect_api: str) -> World:
    world = World(settings.using("test", prefect_api_url=prefect_api))
    world.code(BODY)
    world.document("a.txt", "alpha")
    world.document("b.txt", "beta")
    return world


@pytest.fixture
def aipctl(world: World, variables: dict[str, str]) -> Command:
    return Command(world.root, variables)


@pytest.fixture
def pool(world: World) -> str:
    return f"pool-{world.root.parent.name[-4:]}-{os.getpid()}-{abs(hash(world.root)) % 10_000}"


@pytest.fixture
def worker(aipctl: Command, pool: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[subprocess.Popen[str]]:
    """A real worker of the pool, which runs up to two flow runs at once."""
    aipctl("deploy", "--pool", pool, "--name", pool)
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", pool, "--limit", "2"]
    quick = {"PREFECT_WORKER_QUERY_SECONDS": "1", "PREFECT_WORKER_HEARTBEAT_SECONDS": "2"}
    elsewhere = tmp_path_factory.mktemp("worker")
    # Prefect's runner keeps a folder there, under a name that all users of a machine share.
    quick["TMPDIR"] = str(elsewhere)
    with (elsewhere / "log").open("w") as log:
        process = subprocess.Popen(
            command, cwd=elsewhere, env={**aipctl.variables, **quick}, stdout=log, stderr=log, stdin=subprocess.DEVNULL,
            start_new_session=True, text=True,
        )  # fmt: skip
        try:
            yield process
        finally:
            children = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
            end(process)
            for child in children:
                with suppress(psutil.NoSuchProcess):
                    child.kill()


async def triggered(client: PrefectClient, pool: str, **parameters: Any) -> Any:
    """A run of the deployment, as Prefect's UI starts it."""
    deployment = await client.read_deployment_by_name(f"materialize/{pool}")
    return (await client.create_flow_run_from_deployment(deployment.id, parameters=parameters)).id


async def ended(client: PrefectClient, flow_run: Any, seconds: float = 90) -> Any:
    """The flow run, when its state is final."""
    for _ in range(int(seconds / 0.2)):
        found = await client.read_flow_run(flow_run)
        if found.state is not None and found.state.is_final():
            return found
        await asyncio.sleep(0.2)
    raise AssertionError(f"the flow run is still {found.state}")


async def test_a_project_is_deployed_once_whatever_how_often(aipctl: Command, prefect_api: str, pool: str) -> None:
    """`aipctl deploy` makes pool and deployment, with parameters to fill in; again, it brings them up to date and leaves schedules."""
    first = aipctl("deploy", "--pool", pool, "--name", pool, "--json")
    readme.hold("aipctl deploy", first.json)
    assert (first.code, first.json["created"], first.json["deployment"]) == (0, True, f"materialize/{pool}"), first.err
    async with PrefectClient(prefect_api) as client:
        (one,) = [await client.read_deployment_by_name(f"materialize/{pool}")]
        every = DeploymentScheduleCreate(schedule=IntervalSchedule(interval="P1D"), active=False)
        await client.create_deployment_schedules(one.id, [every])
        again = aipctl("deploy", "--pool", pool, "--name", pool, "--env", "night")
        assert f"The deployment materialize/{pool} is brought up to date, on the work pool {pool}." in again.out
        assert f"prefect worker start --pool {pool}" in again.out
        two = await client.read_deployment_by_name(f"materialize/{pool}")
    asked = (two.parameter_openapi_schema or {})["properties"]
    assert (two.id, len(two.schedules)) == (one.id, 1)
    assert (one.parameters["environment"], two.parameters["environment"]) == ("prod", "night")
    assert two.parameters["project"] == "demo"
    assert list(asked) == ["project", "select", "environment", "force", "upstream", "config", "runner", "otherwise"]
    assert "which assets" in asked["select"].get("description", "")


async def test_a_pool_that_several_make_at_once(prefect_api: str, pool: str) -> None:
    """One of them makes it, such as a worker that begins just now; it serves all."""
    wanted: dict[str, Any] = {"pool": pool, "folder": Path(), "parameters": {"project": "demo"}}
    await asyncio.gather(*(register(prefect_api, name=f"{pool}-{i}", **wanted) for i in range(4)))
    async with PrefectClient(prefect_api) as client:
        assert (await client.read_work_pool(pool)).type == "process"
        for i in range(4):
            assert (await client.read_deployment_by_name(f"materialize/{pool}-{i}")).work_pool_name == pool


async def test_a_project_is_deployed_to_containers(aipctl: Command, prefect_api: str, pool: str) -> None:
    """With --image the pool is of type docker, and what a container is made of is what its template knows; no secret is in it."""
    image = "ghcr.io/owner/assetcore:v1.2.3"
    words = ("deploy", "--pool", pool, "--name", pool, "--image", image, "--network", "assetcore")
    done = aipctl(*words, "--json")
    assert (done.code, done.json["image"], done.json["folder"]) == (0, image, "/srv"), done.err
    assert done.json["worker"].endswith(f"prefect worker start --pool {pool} --type docker")
    assert f"container of {image}" in " ".join(aipctl(*words).out.split())
    async with PrefectClient(prefect_api) as client:
        found = await client.read_work_pool(pool)
        one = await client.read_deployment_by_name(f"materialize/{pool}")
    assert found.type == "docker"
    jsonschema.validate(one.job_variables, {**found.base_job_template["variables"], "additionalProperties": False})
    assert one.job_variables == {
        "image": image, "image_pull_policy": "IfNotPresent", "auto_remove": True, "networks": ["assetcore"],
    }  # fmt: skip
    assert one.pull_steps == [{"prefect.deployments.steps.set_working_directory": {"directory": "/srv"}}]
    told = aipctl("deploy", "--pool", pool)
    assert (told.code, "is of type docker" in told.err, "--image" in told.err) == (64, True, True)
    assert aipctl("deploy", "--network", "assetcore").code == 64


async def test_schedules_and_events_are_declared_beside_assets(
    aipctl: Command, world: World, prefect_api: str, pool: str
) -> None:
    """`schedule=` becomes a schedule of the deployment, `after=` and `on=` become automations; what is not declared any more goes."""
    world.code(BODY.replace("@asset\nasync", '@asset(schedule="0 6 * * *", on=["orders.arrived"])\nasync').replace(
        "@asset\ndef", "@asset(after=[clean])\ndef"))  # fmt: skip
    first = aipctl("deploy", "--pool", pool, "--name", pool)
    assert "clean at 0 6 * * *\n  clean on orders.arrived\n  report after clean\n" in first.out, first.err
    async with PrefectClient(prefect_api) as client:
        one = await client.read_deployment_by_name(f"materialize/{pool}")
        (schedule,) = one.schedules
        assert (schedule.schedule.cron, schedule.parameters["select"], schedule.parameters["upstream"]) == (
            "0 6 * * *",
            "clean",
            True,
        )
        mine = [a for a in await client.read_automations() if a.name.startswith(f"materialize/{pool}: ")]
        assert sorted(a.name.partition(": ")[2] for a in mine) == ["clean on orders.arrived", "report after clean"]
        (after,) = [a for a in mine if a.name.endswith("after clean")]
        assert after.trigger.expect == {"assetcore.asset.materialized"}
        assert after.trigger.match.root == {"prefect.resource.id": "assetcore.demo.prod.clean"}
        action: Any = after.actions[0]
        assert action.parameters["select"] == "report"
        await client.pause_automation(after.id)
        aipctl("deploy", "--pool", pool, "--name", pool)
        assert len((await client.read_deployment_by_name(f"materialize/{pool}")).schedules) == 1
        again = [a for a in await client.read_automations() if a.name.startswith(f"materialize/{pool}: ")]
        assert sorted((a.name, a.enabled) for a in again) == sorted((a.name, a.id != after.id) for a in mine)
        await client.delete_deployment(one.id)
        aipctl("deploy", "--pool", pool, "--name", pool)
        again = [a for a in await client.read_automations() if a.name.startswith(f"materialize/{pool}: ")]
        assert sorted(a.name for a in again) == sorted(a.name for a in mine)
        world.code(BODY)
        aipctl("deploy", "--pool", pool, "--name", pool)
        assert (await client.read_deployment_by_name(f"materialize/{pool}")).schedules == []
        assert [a for a in await client.read_automations() if a.name.startswith(f"materialize/{pool}: ")] == []


async def test_what_cannot_be_deployed_is_told(aipctl: Command, world: World, prefect_api: str, pool: str) -> None:
    """A project that cannot be loaded, a pool of another type, and a Prefect that is not there are errors that say what to do."""
    async with PrefectClient(prefect_api) as client:
        await client.create_work_pool(WorkPoolCreate(name=pool, type="kubernetes"))
    wanted: dict[str, Any] = {"name": "x", "pool": pool, "folder": Path(), "parameters": {"project": "demo"}}
    with pytest.raises(UsageError, match=rf"The work pool {pool} is of type kubernetes.*\n.*--pool"):
        await register(prefect_api, **wanted)
    with pytest.raises(ServiceError, match=r"http://127\.0\.0\.1:1/api cannot be reached"):
        await register("http://127.0.0.1:1/api", **wanted)
    for option, words in (("--pool", "work pool"), ("--name", "deployment")):
        for silly in ("a/b", "50%", " "):
            told = aipctl("deploy", option, silly)
            assert (told.code, f"{silly!r} cannot be the name of a {words}" in told.err) == (64, True), told.err
            assert option in told.err
    nothing = world.settings.database_url.rpartition("/")[0] + "/postgres" if world.settings.database_url else ""
    told = aipctl("deploy", variables={"DATABASE_URL": nothing})
    assert (told.code, "aipctl db upgrade" in told.err) == (69, True), told.err
    world.code("\n1/0\n")
    assert aipctl("deploy").code == 1


async def test_a_worker_makes_what_is_stale(
    worker: subprocess.Popen[str], world: World, prefect_api: str, pool: str
) -> None:
    """A triggered run makes the stale units and shows its tasks, with what they print; two at once make nothing twice; failures fail
    the flow run."""
    async with PrefectClient(prefect_api) as client:
        both = [await triggered(client, pool), await triggered(client, pool)]
        states = [(await ended(client, one)).state for one in both]
        assert {s.type.value for s in states} == {"COMPLETED"}, states
        assert sorted(str(s.message) for s in states)[0] == "Everything is up to date: nothing was run."
        wanted = FlowRunFilter(id=FlowRunFilterId(any_=both))

        async def shown() -> bool:  # the server writes them down a moment after they happened
            return {t.name for t in await client.read_task_runs(flow_run_filter=wanted)} == {
                "topics",
                "clean",
                "report",
            }

        async def printed() -> bool:
            logs = await client.read_logs(LogFilter(flow_run_id=LogFilterFlowRunId(any_=both)))
            return {"cleaning a.txt", "cleaning b.txt"} <= {line.message for line in logs}

        await _until(shown)
        await _until(printed)
        assert len(list((world.root / "begun").iterdir())) == 2
        assert (await world.contents())["report"]["report", "report.txt"] == b"ALPHA BETA"
        world.document("b.txt", "wrong")
        failed = await ended(client, await triggered(client, pool, select="clean"))
        assert (failed.state.type.value, "1 failed" in failed.state.message) == ("FAILED", True)
        async with world.open() as session:
            last = (await session.runs())[0]
        assert (last.status, last.flow_run) == ("failed", str(failed.id))


async def test_a_killed_flow_run_is_continued_by_the_next(
    worker: subprocess.Popen[str], world: World, prefect_api: str, pool: str
) -> None:
    """`kill -9` of the process of a flow run: Prefect is told that it crashed, and the next run makes what is missing only."""
    world.document("c.txt", "gamma")
    (world.root / "gate").touch()
    async with PrefectClient(prefect_api) as client:
        first = await triggered(client, pool)
        folder = world.root / "begun"
        await asyncio.to_thread(until, lambda: folder.exists() and len(list(folder.iterdir())) == 3, 90)
        async with world.open() as session:
            await _until(lambda: _made(session, "clean"))
        (process,) = {int(file.name.partition("-")[2]) for file in folder.iterdir()}
        os.kill(process, signal.SIGKILL)
        assert (await ended(client, first)).state.type.value == "CRASHED"
        await lease_runs_out(world.settings)
        (world.root / "gate").unlink()
        second = (await ended(client, await triggered(client, pool))).state
    assert (second.type.value, "clean: 2 made" in second.message) == ("COMPLETED", True), second
    assert [len(list(folder.glob(f"{name}-*"))) for name in "abc"] == [1, 2, 2]
    async with world.open() as session:
        assert [run.status for run in await session.runs()] == ["done", "died"]


async def test_a_run_that_is_cancelled_in_prefect_ends(
    worker: subprocess.Popen[str], world: World, prefect_api: str, pool: str
) -> None:
    """Cancelled in Prefect's UI, a run ends, gives its lock back and is listed as cancelled; what was committed is kept."""
    (world.root / "gate").touch()
    folder = world.root / "begun"
    async with PrefectClient(prefect_api) as client:
        first = await triggered(client, pool)
        await asyncio.to_thread(until, lambda: folder.exists() and len(list(folder.iterdir())) == 2, 90)
        async with world.open() as session:
            await _until(lambda: _made(session, "clean"))
        await client.set_flow_run_state(first, Cancelling())
        assert (await ended(client, first)).state.type.value == "CANCELLED"
        (process,) = {int(file.name.partition("-")[2]) for file in folder.iterdir()}
        await asyncio.to_thread(until, lambda: not psutil.pid_exists(process))
        assert await _locks(world.settings) == []  # given back, and not left to its lease
        (world.root / "gate").unlink()
        second = (await ended(client, await triggered(client, pool))).state
    assert second.type.value == "COMPLETED"
    async with world.open() as session:
        assert [run.status for run in await session.runs()] == ["done", "cancelled"]
    assert len(list(folder.glob("a-*"))) == 1


async def _made(session: Any, asset: str) -> int:
    return next(info.documents for info in await session.ls(asset) if info.asset == asset)


async def _locks(settings: Settings) -> list[bytes]:
    """The locks of runs that are held."""
    client = redis.Redis.from_url(str(settings.redis_url))
    found = [key async for key in client.scan_iter("assetcore:run:*") if not key.endswith(b":fence")]
    await client.aclose()
    return found


async def _until(holds: Any) -> None:
    for _ in range(1200):
        if await holds():
            return
        await asyncio.sleep(0.1)
    raise AssertionError("it does not hold within 2 minutes")
