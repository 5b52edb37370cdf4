"""Runners: the same plan gives the same documents wherever its functions are called, and a worker that dies costs nothing."""

from __future__ import annotations

import asyncio
import gc
import http.client
import multiprocessing
import os
import signal
import sys
import threading
import weakref
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import dask.config
import psutil
import pytest

from assetcore.calls import Call
from assetcore.errors import ServiceError, UsageError
from assetcore.results import RunResult
from assetcore.runners import runner_for
from assetcore.runners.clusters import Dask
from assetcore.runners.processes import let_go
from assetcore.session import Session
from assetcore.settings import Settings
from tests.integration.command import Command, until
from tests.integration.world import World

pytestmark = pytest.mark.integration

BODY = """
import os, pathlib, threading, time

class Limits(BaseModel):
    words: int = 2

@asset
def chunks(limits: Limits, topic: Topic = each(topics)) -> list[Chunk]:
    return [Chunk(f"{topic.stem}-{i}", text=w, ordinal=i) for i, w in enumerate(topic.text.split()[:limits.words])]

@asset
def counted(chunks: pl.DataFrame = collect(chunks)) -> pl.DataFrame:
    return chunks.group_by("text").len().sort("text")

@asset
async def report(rows: pl.DataFrame = collect(counted)) -> Report:
    return Report("report.txt", text=str(rows.height))
"""

SLOW = """
import os, pathlib, time

@asset
def slow(topic: Topic = each(topics)) -> Topic:
    begun = pathlib.Path(FOLDER) / f"{topic.stem}-{os.getpid()}"
    begun.touch()
    while (pathlib.Path(FOLDER) / "gate").exists():
        time.sleep(0.02)
    return Topic(topic.name, text=topic.text.upper())
"""

DEADLY = """
import os

@asset
def deadly(topic: Topic = each(topics)) -> Topic:
    if topic.stem == "3":
        os._exit(3)
    return Topic(topic.name, text=topic.text.upper())
"""

POOLED = """
import multiprocessing

@asset
def pooled(topics: list[Topic] = collect(topics)) -> Report:
    with multiprocessing.get_context("fork").Pool(1) as pool:
        return Report("report.txt", text=str(pool.map(len, [topic.text for topic in topics])))
"""

PANICKING = """
@asset
def plain(topic: Topic = each(topics)) -> Topic:
    if topic.stem == "3":
        raise pl.exceptions.PanicException("in Rust")
    return topic

@asset
async def awaited(topic: Topic = each(topics)) -> Topic:
    if topic.stem == "3":
        raise KeyboardInterrupt("of its own")
    return topic
"""

SPOILING = """
class Tags(Document):
    tags: list[str]

class Seen(BaseModel):
    words: list[str] = []

@asset
def tagged() -> list[Tags]:
    return [Tags("t", text="", tags=["a"])]

@asset
def models(topic: Topic = each(topics)) -> Seen:
    return Seen(words=["a"])

def spoil(tagged: list[Tags], models: list[Seen]) -> Report:
    found = [tagged[0].tags, models[0].words, models[-1].words]
    text = repr(found)
    for one in found:
        one.append("more")
    return Report("report.txt", text=text)

@asset
def plain(topic: Topic = each(topics), tagged: list[Tags] = collect(tagged), models: list[Seen] = collect(models)) -> Report:
    return spoil(tagged, models)

@asset
async def awaited(topic: Topic = each(topics), tagged: list[Tags] = collect(tagged), models: list[Seen] = collect(models)) -> Report:
    return spoil(tagged, models)
"""


CROSSING = """
def kind():
    class Made(Document):
        pass
    return Made

Made = kind()

@asset
def made(topic: Topic = each(topics)) -> list[Made]:
    return [Made(topic.name, text="")] if topic.name == "3.txt" else []

@asset
async def given(topic: Topic = each(topics)) -> list[Made]:
    return [Made(topic.name, text="")] if topic.name in ("3.txt", "4.txt") else []

@asset
def taken(given: Made = each(given)) -> Report:
    return Report(given.name, text="")

@asset
def other(topic: Topic = each(topics)) -> Report:
    return Report(topic.name, text="")
"""


@pytest.fixture
def world(settings: Settings) -> World:
    world = World(settings.using("test", processes=2))
    world.code(BODY)
    for number in range(20):
        world.document(f"{number}.txt", f"alpha beta{number} gamma")
    return world


def on(world: World, runner: str, **settings: Any) -> World:
    """The same world with another runner."""
    return World(world.settings.using("test", runner=runner, **settings))


@pytest.mark.parametrize("runner", ["processes", "threads", "dask", "ray"])
async def test_the_same_plan_runs_on_every_runner(world: World, runner: str) -> None:
    """Every runner makes the same documents, and what one has made is fresh for the others."""
    if runner == "ray":
        pytest.importorskip("ray")
    result = await on(world, runner).materialize()
    assert result.status == "done"
    assert {a.asset: a.made for a in result.assets} == {"chunks": 20, "counted": 1, "report": 1}
    found = await world.contents()
    assert len(found["chunks"]) == 40
    assert found["chunks"]["3.txt", "3-1"] == b"beta3"
    assert found["report"]["report", "report.txt"] == b"21"
    assert await world.plan() == {}


@pytest.mark.parametrize("runner", ["processes", "threads", "dask"])
async def test_what_a_unit_does_to_what_it_is_given_is_seen_by_no_other(world: World, runner: str) -> None:
    """Documents and models of a whole asset are as they were stored for every unit, whichever was called before it and where."""
    world.code(SPOILING)
    assert (await on(world, runner).materialize()).status == "done"
    found = await world.contents()
    assert {*found["plain"].values(), *found["awaited"].values()} == {b"[['a'], ['a'], ['a']]"}
    assert (len(found["plain"]), len(found["awaited"])) == (20, 20)


@pytest.mark.parametrize("runner", ["processes", "threads", "dask"])
async def test_a_document_that_cannot_cross_to_another_process_fails_its_unit_alone(world: World, runner: str) -> None:
    """Of a class that a function made, given or made: Python finds none by its name. Threads need not; what else there is is made."""
    world.code(CROSSING)
    result = await on(world, runner).materialize()
    crosses = runner == "threads"
    counts = {a.asset: (a.made, a.failed) for a in result.assets}
    assert counts == {
        "made": (20, 0) if crosses else (19, 1), "given": (20, 0), "taken": (2, 0) if crosses else (0, 2), "other": (20, 0),
    }  # fmt: skip
    errors = [f.error for f in result.failures]
    assert all("cannot be handed from process to process" in e and "--runner threads" in e for e in errors)
    assert sorted(f.unit for f in result.failures) == ([] if crosses else ["3.txt", "3.txt", "4.txt"])


@pytest.mark.parametrize("runner", ["processes", "threads", "dask"])
async def test_what_is_no_exception_fails_a_unit_alone(world: World, runner: str) -> None:
    """A panic of a library, or what else Python lets through everything, is the failure of one unit, with its line."""
    world.code(PANICKING)
    result = await on(world, runner).materialize()
    assert {a.asset: (a.made, a.failed) for a in result.assets} == {"plain": (19, 1), "awaited": (19, 1)}
    said = {f.asset: (f.unit, f.error) for f in result.failures}
    assert said == {
        "plain": ("3.txt", "PanicException: in Rust"), "awaited": ("3.txt", "KeyboardInterrupt: of its own"),
    }  # fmt: skip
    assert all("raise " in failure.traceback for failure in result.failures)


@pytest.mark.parametrize("runner", ["processes", "dask"])
async def test_what_a_killed_worker_had_is_made_by_another(world: World, runner: str, tmp_path: Path) -> None:
    """`kill -9` of one of two workers in the middle of a batch: every unit is made, and committed once."""
    folder = tmp_path / "begun"
    folder.mkdir()
    (folder / "gate").touch()
    world.code(SLOW.replace("FOLDER", repr(str(folder))))
    running = asyncio.create_task(on(world, runner).materialize())
    began = await asyncio.to_thread(until, lambda: _processes(folder) if len(_processes(folder)) == 2 else None)
    os.kill(min(began), signal.SIGKILL)
    await asyncio.sleep(0.5)
    await asyncio.sleep(0.5)
    (folder / "gate").unlink()
    result: RunResult = await asyncio.wait_for(running, 60)
    assert result.status == "done", result.failures
    assert [(a.made, a.failed) for a in result.assets] == [(20, 0)]
    assert {d: c[:5] for (_, d), c in (await world.contents())["slow"].items()} == {
        f"{n}.txt": b"ALPHA" for n in range(20)
    }
    assert await world.plan() == {}
    assert await _materializations(world, "slow") == 20
    gone: list[psutil.Process] = []
    for pid in _processes(folder):
        with suppress(psutil.NoSuchProcess):
            gone.append(psutil.Process(pid))
    assert not psutil.wait_procs(gone, timeout=10)[1]


@pytest.mark.parametrize("runner", ["processes", "dask"])
async def test_a_unit_that_ends_its_worker_fails_alone(world: World, runner: str) -> None:
    """A function that ends its process, whichever it is, fails its own unit with a sentence; the other units are made.

    Dask gives a worker up that is not back in time, and waits for ever once it has none; here none would be back in time.
    """
    world.code(DEADLY)
    with dask.config.set({"distributed.deploy.lost-worker-timeout": "1ms"}):
        result = await on(world, runner).materialize()
    assert [(a.made, a.failed) for a in result.assets] == [(19, 1)]
    (failure,) = result.failures
    assert (failure.unit, "ended in the middle" in failure.error) == ("3.txt", True)


async def test_a_dask_cluster_that_is_there_is_used(world: World) -> None:
    """Workers of a scheduler at an address, which outlive the run, see the code as it is now."""
    from distributed import LocalCluster

    async with LocalCluster(
        n_workers=1, threads_per_worker=2, host="127.0.0.1", dashboard_address=None, asynchronous=True
    ) as cluster:
        there = on(world, "dask", dask_address=cluster.scheduler_address)
        assert (await there.made())["chunks"] == {"made": 20}
        world.code(BODY.replace("topic.text.split()", "topic.text.upper().split()"))
        assert (await there.made())["chunks"] == {"made": 20}
        assert (await world.contents())["chunks"]["3.txt", "3-1"] == b"BETA3"
        assert len(cluster.workers) == 1


async def test_a_dask_cluster_that_has_lost_its_workers_is_told(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Dask waits for ever for workers that went away in the middle; the run says so, and ends after a while. What was made is kept."""
    from distributed import LocalCluster

    folder = tmp_path / "begun"
    folder.mkdir()
    (folder / "gate").touch()
    world.code(SLOW.replace("FOLDER", repr(str(folder))))
    for name, seconds in {"LOOK": 0.1, "QUIET": 0.5, "LOST": 2.0}.items():
        monkeypatch.setattr(f"assetcore.runners.clusters.{name}_SECONDS", seconds)
    async with LocalCluster(n_workers=1, host="127.0.0.1", dashboard_address=None, asynchronous=True) as cluster:
        running = asyncio.create_task(on(world, "dask", dask_address=cluster.scheduler_address).materialize())
        await asyncio.to_thread(until, lambda: _processes(folder))
        cluster.scale(0)
        with pytest.raises(ServiceError, match="has lost its workers during the run"):
            await asyncio.wait_for(running, 60)
    assert "has no workers: waiting for some" in caplog.text


async def test_a_dask_cluster_may_be_without_workers_while_nothing_is_asked_of_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that grows as it is needed has none while a run does other things for long; there are some again when it is asked."""
    from distributed import LocalCluster

    for name, seconds in {"LOOK": 0.05, "LOST": 0.3}.items():
        monkeypatch.setattr(f"assetcore.runners.clusters.{name}_SECONDS", seconds)
    async with LocalCluster(n_workers=1, host="127.0.0.1", dashboard_address=None, asynchronous=True) as cluster:
        runner = Dask(world.root, "demo", 1, cluster.scheduler_address)
        await runner.ready()
        cluster.scale(0)
        await asyncio.sleep(1)
        cluster.scale(1)
        monkeypatch.setattr("assetcore.runners.clusters.LOST_SECONDS", 60)
        [outcome] = await runner.call("chunks", [Call({}, "chunks", "chunks")], b"another")
        assert "other code" in str(outcome.error)
        await runner.close()


@pytest.mark.parametrize("runner", ["processes", "dask"])
async def test_a_function_may_have_processes_of_its_own(world: World, runner: str) -> None:
    """As with libraries that work in parallel. No worker is left when the run has ended."""
    world.code(POOLED)
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    result = await on(world, runner).materialize()
    assert (result.status, result.failures) == ("done", ())
    left = [child for child in psutil.Process().children(recursive=True) if child.pid not in before]
    _, alive = psutil.wait_procs(left, timeout=10)
    assert not [one for one in alive if not any("forkserver" in w or "resource_tracker" in w for w in one.cmdline())]


async def test_a_dask_cluster_of_the_run_listens_on_loopback_and_has_no_dashboard(world: World) -> None:
    """Its ports are those that the system gives, on 127.0.0.1, and nothing is shown there."""
    before = _listening()
    async with on(world, "dask").open() as session:
        runner = runner_for(session.project.settings, session.graph, session.name)
        try:
            await runner.ready()
            opened = _listening() - before
            pages = [await asyncio.to_thread(_asked, port) for _, port in opened]
        finally:
            await runner.close()
    assert {address for address, _ in opened} == {"127.0.0.1"}
    assert 8787 not in {port for _, port in opened}
    assert set(pages) <= {None, 404}
    assert 404 in pages


def _listening() -> set[tuple[str, int]]:
    """Where this process and its children listen."""
    found = set[tuple[str, int]]()
    for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
        with suppress(psutil.Error):
            found |= {tuple(c.laddr) for c in process.net_connections("inet") if c.status == psutil.CONN_LISTEN}
    return found


def _asked(port: int) -> int | None:
    """What an HTTP server answers to somebody who looks for a page; None where there is no such server."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/status")
        return connection.getresponse().status
    except (http.client.HTTPException, OSError):
        return None
    finally:
        connection.close()


async def test_a_cluster_that_is_not_there_is_told(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """An address at which nobody answers is an error that names it and what to do."""
    monkeypatch.setattr("assetcore.runners.clusters.START_SECONDS", 1.0)
    with pytest.raises(ServiceError, match=r"tcp://127.0.0.1:1 .*\n.*dask_address"):
        await on(world, "dask", dask_address="tcp://127.0.0.1:1").materialize()
    assert (await world.plan())["chunks"]["stale"] == 20


async def test_a_runner_whose_package_is_missing_is_told(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra installed, asking for its runner says which package is missing and how to have it."""
    monkeypatch.setitem(sys.modules, "ray", None)
    async with world.open() as session:
        with pytest.raises(UsageError, match=r"pip install 'assetcore\[ray\]'"):
            runner_for(session.project.settings.using("test", runner="ray"), session.graph, "demo")


async def test_the_command_takes_a_runner(world: World, variables: dict[str, str]) -> None:
    """`aipctl materialize --runner threads` runs the same plan in threads."""
    ended = Command(world.root, variables)("materialize", "--local", "--json", "--runner", "threads")
    assert (ended.code, ended.json["status"]) == (0, "done"), ended.err
    assert {a["asset"]: a["made"] for a in ended.json["assets"]} == {"chunks": 20, "counted": 1, "report": 1}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_a_thread_that_ends_before_it_begins_is_started_again(world: World) -> None:
    """Where threads are traced, Python 3.11 can end one on its way to its work: another takes it, and the run does not wait for ever."""
    lost: list[str] = []

    def lose(event: str, _: tuple[Any, ...]) -> None:
        thread = threading.current_thread().name
        if event == "sys.settrace" and armed and thread.startswith("assetcore-") and thread not in lost:
            lost.append(thread)
            raise RuntimeError("Cannot install a trace function while another trace function is being installed")

    armed, traced = True, threading.gettrace()
    sys.addaudithook(lose)  # it stays, and does nothing once it is disarmed
    threading.settrace(traced or (lambda *_: None))
    try:
        result = await on(world, "threads").materialize()
    finally:
        armed = False
        threading.settrace(traced)  # pyright: ignore[reportArgumentType]  # None ends it
    assert result.status == "done", result.failures
    assert sorted(lost) == ["assetcore-chunks", "assetcore-counted", "assetcore-lease"]
    assert {a.asset: a.made for a in result.assets} == {"chunks": 20, "counted": 1, "report": 1}


async def test_a_project_that_pyproject_names_is_found_by_workers(world: World) -> None:
    """Workers load a project that is a module of any package as the run does."""
    package = world.root / "mypackage"
    package.mkdir()
    (package / "__init__.py").touch()
    (world.root / "projects" / "demo" / "assets.py").rename(package / "pipeline.py")
    (world.root / "pyproject.toml").write_text('[tool.assetcore]\nprojects = ["mypackage.pipeline"]\n')
    for runner in ("processes", "dask"):
        settings = on(world, runner).settings
        async with Session.open(settings, "mypackage.pipeline", environment=runner) as session:
            result = await session.materialize("chunks", local=True)
        assert result.status == "done", result.failures


def _processes(folder: Path) -> set[int]:
    return {int(file.name.partition("-")[2]) for file in folder.iterdir() if "-" in file.name}


async def _materializations(world: World, asset: str) -> int:
    """How many materializations lineage has of an asset, current or not."""
    import sqlalchemy as sa

    from assetcore.lineage import tables as t

    async with world.open() as session, session.project.engine.connect() as connection:
        wanted = t.materialization.c.asset_id == session.project.asset_ids[asset]
        return int((await connection.execute(sa.select(sa.func.count()).where(wanted))).scalar_one())


def test_a_pool_that_is_let_go_is_there_until_its_manager_has_ended() -> None:
    """Nobody collects it while its thread may be clearing up; afterwards nothing holds it."""
    pool = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))
    pool.submit(os.getpid).result(60)
    manager, seen = pool._executor_manager_thread, weakref.ref(pool)
    let_go(pool)
    del pool
    gc.collect()
    kept = seen()
    assert kept is not None
    assert manager is not None
    kept.shutdown(wait=False)
    del kept
    manager.join(60)
    del manager
    gc.collect()
    assert seen() is None
