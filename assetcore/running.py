"""Running: how is a plan run from its lock to its last word, here or where it is taken up?"""

from __future__ import annotations

import asyncio
import gc
import importlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from typing import Any

from assetcore import journal, notify, planning, stack
from assetcore.budget import Budget
from assetcore.costs import parse_limit
from assetcore.errors import UsageError
from assetcore.execution import Run, walk
from assetcore.graph import Graph
from assetcore.lineage import commit as lineage
from assetcore.lineage import runs, spans
from assetcore.lineage.journal import Entry, append
from assetcore.plan import Plan
from assetcore.project import Project
from assetcore.provenance import telling
from assetcore.refs import format_ref
from assetcore.results import AssetResult, Event, RunResult, Say
from assetcore.retrieval import index_vectors
from assetcore.settings import Settings
from assetcore.snapshot import Read
from assetcore.stack.prefect import client_environment

__all__ = [
    "alone",
    "close_dead",
    "nothing_to_do",
    "plan_rows",
    "prepare_prefect",
    "run_through",
    "steps_of",
    "taken_up",
]

LOST = "The lock of this run could not be renewed and is lost: another run may be at work here by now, and make the same units once more."
MANY_UNITS = 1000
"""After so many units, Postgres looks at what its tables hold, if they are not few among those that are there."""


async def nothing_to_do(project: Project, plan: Plan, found: Read, started: datetime) -> RunResult:
    """The end of a run that made nothing, because all is fresh."""
    await planning.note_settled(project, plan, found)
    await _close_left_open(project)
    results = tuple(AssetResult(a.asset, fresh=a.fresh) for a in plan.assets)
    return RunResult(None, None, "nothing to do", results, seconds=_since(started), checks=plan.checks)


async def _close_left_open(project: Project) -> None:
    """Say of a run that was killed after its last commit that it died."""
    if not project.writable:
        return
    async with project.engine.connect() as connection:
        if not await runs.left_open(connection, project.id, project.environment_id):
            return
    await close_dead(project, project.environment, project.environment_id)


async def close_dead(project: Project, name: str, environment: int) -> None:
    """Say of runs in an environment that have not ended that they died, unless one is at work: it holds the lock, and is not waited for."""
    from assetcore.cache import LockHeldError

    with suppress(LockHeldError):
        async with alone(project, lambda _: None, name, wait=0), project.engine.begin() as connection:
            await runs.close_abandoned(connection, project.id, environment)


async def run_through(project: Project, run: Run, plan: Plan, unshown: Mapping[str, str], *, local: bool) -> RunResult:
    """Run the steps of a plan, as a Prefect flow unless `local`, and say what was done."""
    steps = steps_of(plan, project.graph)
    async with telling(run), _at_work(project, run, steps), _gateway_soon(project, plan):
        flow_run = await (_without_prefect(run, steps) if local else _as_flow(project, run, steps, plan, unshown))
        for note in await index_vectors(project, run.results):
            run.tell(Event("message", text=note))
    status = run.status
    planned = {a.asset: AssetResult(a.asset, fresh=a.fresh) for a in plan.assets}
    made = {n: r for n, r in run.results.items() if n in planned}
    results = tuple((planned | made).values())
    checks = tuple(check for one in results for check in one.checks)
    budget = run.budget
    stopped = f"{budget.limit.text} would be exceeded" if budget is not None and status == "stopped" else None
    return RunResult(run.id, flow_run, status, results, tuple(run.failures), _since(run.started), checks, stopped)


@asynccontextmanager
async def taken_up(project: Project, stored: runs.StoredRun) -> AsyncIterator[tuple[Run, Plan]]:
    """A run that was begun elsewhere, opened here to be completed: planned anew, so that nothing made is made again."""
    project.check_writable()
    request = stored.plan
    async with alone(project, lambda _: None):
        choice = await planning.choose(project, request["select"], force=request["force"])
        options = {"upstream": request["upstream"], "rehash": request["rehash"]}
        choice, plan, found = await planning.widened(project, choice, **options)
        plan.check()
        planning.check_pools(project, plan)
        planning.check_models(project, plan)
        async with project.engine.begin() as connection:
            await runs.close_abandoned(connection, project.id, project.environment_id)
            await runs.resume(connection, stored.run)
            await spans.forget(connection, stored.run)
        now = datetime.now(UTC)  # keys of its own: under the first start's may lie bytes that were never committed
        run = Run(project, stored.run, now, choice, found, lambda _: None)
        if request.get("max_cost"):
            run.budget = Budget(parse_limit(request["max_cost"]), found.snapshot.costs)
        since = stored.started if request["force"] and not request.get("replay") else None
        with project.llm.anew(since):
            async with _at_work(project, run, steps_of(plan, project.graph)):
                yield run, plan


@asynccontextmanager
async def alone(
    project: Project, say: Say, environment: str | None = None, *, wait: float | None = None
) -> AsyncIterator[None]:
    """One run at a time in an environment: a second one waits, for so many seconds, and then finds what the first has made."""
    url = project.settings.redis_url
    if url is None:
        raise UsageError("No Redis is known.", hint="Start the embedded services with: aipctl up, or set REDIS_URL.")
    from assetcore.cache import (  # the Redis client takes 0.15 s to import: only for a run
        async_lock,
        get_async_client,
    )

    if environment is None and stack.apart(project.settings):
        say(Event("message", text=f"The Redis of this run: {stack.APART}. {stack.SHARE}"))
    client = get_async_client(url)
    key = f"{stack.RUN_LOCK}{project.name}:{project.environment if environment is None else environment}"
    try:
        async with async_lock(
            client,
            key,
            stack.RUN_LEASE,
            wait=wait,
            on_wait=lambda: say(Event("waiting", text="another run of this project is at work; waiting for it")),
            on_lost=lambda: say(Event("message", text=LOST)),
        ):
            yield
    finally:
        await client.aclose()


@asynccontextmanager
async def _gateway_soon(project: Project, plan: Plan) -> AsyncIterator[None]:
    """Start the embedded gateway where models will be asked, while what they are asked about is made."""
    client = project.llm
    asked = any(client.models.resolve(alias) in client.models.behind.values() for a in plan.assets if not a.idle
                for alias in project.graph.assets[a.asset].options.models)  # fmt: skip
    starting = asyncio.create_task(client.gateway()) if asked else None
    try:
        yield
    finally:
        if starting is not None:  # what went wrong was told to whoever asked
            await asyncio.wait({starting})
            starting.cancelled() or starting.exception()


async def _as_flow(
    project: Project, run: Run, steps: Mapping[str, Sequence[str]], plan: Plan, unshown: Mapping[str, str]
) -> str | None:
    """Run the steps as a Prefect flow run, with the API in the settings or the embedded one, which is started when needed."""
    prepare_prefect(project.settings)
    flow, addresses = await asyncio.gather(
        asyncio.to_thread(_flow_room),
        stack.up(project.settings, {"prefect"}, lambda text: run.say(Event("message", text=text))),
    )
    project.settings = addresses.applied_to(project.settings)
    return await flow.execute(run, flow.Steps(steps, plan_rows(plan)), unshown)


@asynccontextmanager
async def _at_work(project: Project, run: Run, steps: Collection[str]) -> AsyncIterator[None]:
    """Whatever happens inside: processes are ended, and how the run ended is written down."""
    status = "failed"
    problems: list[tuple[str, str]] = []
    run.prepare(steps)
    try:
        yield
        status = run.status
    except (asyncio.CancelledError, KeyboardInterrupt):
        status = "cancelled"
        raise
    except BaseException as error:
        problems.append((project.name, f"{type(error).__name__}: {error}"))
        raise
    finally:
        try:
            await asyncio.shield(run.close())
        finally:  # who is to be told is told first, also of what keeps the end from being written down
            if status == "failed":
                await asyncio.shield(_tell_failure(project, run, problems))
            await asyncio.shield(_finish(project, run, status))


async def _finish(project: Project, run: Run, status: str) -> None:
    """Write down how a run ended, as far as that can be: what it made is committed, and its answer does not wait for this."""
    left: list[str] = []

    async def write(what: str, work: Callable[[], Awaitable[object]]) -> bool:
        try:
            await work()
        except Exception as error:
            left.append(f"{what} ({str(error).partition(chr(10))[0] or type(error).__name__})")
            return False
        return True

    closed = await write("how it ended", partial(_close, project, run, status))
    if closed:
        await write("its record", run.keeper.record)
    await write("its trace", partial(run.end, status))
    if closed:
        await write("the journal", partial(journal.flush, project))
        await write("statistics", partial(_analyze, project, run))
    if left:
        run.tell(Event("message", text=f"What run {run.id} made is kept. Not written down: {'; '.join(left)}"))


async def _close(project: Project, run: Run, status: str) -> None:
    results = [(r.asset, r.to_json(), r.seconds) for r in run.results.values()]
    async with project.engine.begin() as connection:
        await runs.finish(connection, run.id, status, results)
        await append(connection, project.id, Entry("run", project.environment, run=run.id, facts={"status": status}))


async def _analyze(project: Project, run: Run) -> None:
    written = sum(r.made + r.unchanged + r.taken_in for r in run.results.values())
    if written >= MANY_UNITS:
        async with project.engine.begin() as connection:
            await lineage.analyze(connection, written)


async def _tell_failure(project: Project, run: Run, problems: Sequence[tuple[str, str]]) -> None:
    """Tell those who asked for it that a run failed: the one place that does."""
    settings = project.settings
    failures = [(format_ref(f.asset, f.unit), f.error) for f in run.failures]
    api = settings.prefect_api_url
    link = f"{api.removesuffix('/api')}/runs/flow-run/{run.flow_run}" if api and run.flow_run else None
    keys = [f"{settings.storage_url}/{key}" for result in run.results.values() for key in result.keys]
    flow = f"{project.name} ({project.environment})"
    every = [*failures, *problems]
    await notify.tell(settings, notify.Failed(flow, run.id, every, len(every), keys, link))


def prepare_prefect(settings: Settings) -> None:
    """Say what Prefect is to find in its environment, before it is imported."""
    for name, value in client_environment(settings).items():
        os.environ.setdefault(name, value)


def _flow_room() -> Any:
    """The room that knows Prefect, which takes a second to import; a tenth of it went into looking for garbage where there is none."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        return importlib.import_module("assetcore.flow")
    finally:
        if enabled:
            gc.enable()


async def _without_prefect(run: Run, steps: Mapping[str, Sequence[str]]) -> None:
    await walk(steps, lambda name, _: run.perform(name))


def steps_of(plan: Plan, graph: Graph) -> dict[str, list[str]]:
    """The steps of a run in order: sources to take in, assets to make; each with the steps that it waits for."""
    sources = [s.source for s in plan.sources if not s.idle]
    return graph.nearest([*sources, *(a.asset for a in plan.assets if not a.idle or a.asset in plan.to_check)])


def plan_rows(plan: Plan) -> list[dict[str, Any]]:
    """What is to be done, as a table for people."""
    return [
        {
            "asset": asset.asset, "units": asset.units, "fresh": asset.fresh, "stale": asset.stale, "pending": asset.pending,
            "removed": asset.removed, "causes": ", ".join(f"{cause} {count}" for cause, count in asset.causes.items()),
        }
        for asset in plan.assets if not asset.idle or asset.asset in plan.to_check
    ]  # fmt: skip


def _since(started: datetime) -> float:
    return (datetime.now(UTC) - started).total_seconds()
