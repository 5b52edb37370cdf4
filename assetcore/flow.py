"""Flow: how does a plan run and show in Prefect? The only door to Prefect, with `deploy`, `blocks` and `conduct`.

`run_plan(run_id)` is one importable flow, so that it deploys: it reads the stored run and generates a task for each step, named by
its asset, which waits for the tasks of what the asset is made of. Async tasks are awaited where they are ready (3-4 ms each);
nothing is submitted to a runner. Prefect's states are a display: what is fresh is decided by lineage alone, and its caching and
result persistence are off for every generated task, whatever the environment says.

`run_project(project, select, ...)` is what a deployment runs: it plans, and its own flow run shows the run.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from contextlib import ExitStack, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, Literal, TypeVar
from uuid import UUID

import prefect.settings as prefect_settings
from prefect import allow_failure, flow, get_run_logger, task
from prefect.artifacts import acreate_progress_artifact, acreate_table_artifact, aupdate_progress_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    TaskRunFilter,
    TaskRunFilterState,
    TaskRunFilterStateType,
)  # fmt: skip
from prefect.client.schemas.objects import State, StateType
from prefect.context import FlowRunContext, TaskRunContext, refresh_global_settings_context
from prefect.events import emit_event
from prefect.exceptions import FailedRun, ObjectNotFound
from prefect.settings import temporary_settings
from prefect.states import Completed, Crashed, Failed

from assetcore.checks import CheckReport
from assetcore.errors import ServiceError, StaleInputError
from assetcore.execution import Run, walk
from assetcore.grammar import Label, Pattern
from assetcore.lineage import runs
from assetcore.preload import is_fork
from assetcore.project import Project
from assetcore.results import AssetResult, Event, RunResult

if TYPE_CHECKING:
    from assetcore.session import Session

__all__ = ["Steps", "execute", "materialized", "prefect_settings_for", "run_plan", "run_project", "settle"]

T = TypeVar("T")
PROGRESS_SECONDS = 2.0
API_SECONDS = 5.0
SILENT_SECONDS = 15.0
SHOWN_SECONDS = 10.0
LIMITS_AT_ONCE = 200
"""So many limits does Prefect name in one answer."""
SETTLED_AT_ONCE = 20
"""So many flow runs that ended untold does a run see to before it begins; more are left to the next."""
MOST_PARTITIONS = 1000
"""So many does an event name."""
LOST = "Prefect's API does not answer any more: the run goes on, and is not shown there."


@dataclass(frozen=True, slots=True)
class Steps:
    """The steps of a run in order, each with those that it waits for; the rows of the plan, to show."""

    waits: Mapping[str, Sequence[str]]
    plan: Sequence[Mapping[str, Any]]


Opened = tuple[Run, Steps, "_Display", asyncio.Future[str | None]]
_current: ContextVar[Opened | None] = ContextVar("assetcore_run", default=None)
"""The run that this process has open, and what hears when its steps have ended; `run_plan` opens it itself where it runs elsewhere."""


async def execute(run: Run, steps: Steps, unshown: Mapping[str, str]) -> str | None:
    """Run the steps as a Prefect flow run in this process; returns the flow run's identifier.

    `unshown` are flow runs that have ended, each with its status, and that Prefect would show as running for ever. When the steps have
    ended all is stored, and only the display is left: an API that does not answer any more is not waited for, and the next run tells it.
    """
    display = _Display(run.say)
    context = FlowRunContext.get()
    if context is not None and context.flow is not None and context.flow.fn is run_project.fn:
        await settle(run.project, unshown)
        await _perform_all(run, steps, display)
        return None if context.flow_run is None else str(context.flow_run.id)
    ended: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
    token = _current.set((run, steps, display, ended))
    with ExitStack() as stack:
        stack.enter_context(temporary_settings(prefect_settings_for(run.project.settings.prefect_api_url)))
        stack.callback(_current.reset, token)
        await settle(run.project, unshown)
        named = run_plan.with_options(name=run.project.name, flow_run_name=f"{run.project.name}-{run.id}")
        vars(named)["serialize_parameters"] = (
            dict  # a run's name is text already; Prefect would import FastAPI to find that out
        )
        called: Any = named(run.id, return_state=True)  # typed as if it were not a coroutine
        shown: asyncio.Task[State[Any]] = asyncio.ensure_future(called)
    try:
        await asyncio.wait({shown, ended}, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.wait({shown}, timeout=SHOWN_SECONDS)
    except asyncio.CancelledError:
        shown.cancel()
        await asyncio.wait({shown, ended}, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.wait({shown}, timeout=SHOWN_SECONDS)
        if not _was_told(shown):
            await _note_unshown(run, "cancelled")
        raise
    if not ended.done():  # the flow never came to its steps
        await _raise_error(shown.result())
        raise ServiceError(
            f"Prefect at {run.project.settings.prefect_api_url} did not run the flow.", hint="See: aipctl check"
        )
    if not shown.done() or display.silent_since is not None:
        display.lose()
    if not _was_told(shown):
        await _note_unshown(run, run.status if ended.exception() is None else "failed")
    return ended.result()


@flow(name="assetcore", persist_result=False, validate_parameters=False)
async def run_plan(run_id: str) -> State[Any]:
    """Run the stored plan of a run: the steps of its assets, each as soon as what it is made of is there."""
    opened = _current.get()
    if opened is None:
        from assetcore.session import (
            resumed,  # a worker: the run is opened from the settings it finds (a cycle otherwise)
        )

        async with resumed(run_id, Path.cwd()) as (run, waits, plan):
            return await _perform_all(run, Steps(waits, plan), _Display(run.say))
    run, steps, display, ended = opened
    try:
        state = await _perform_all(run, steps, display)
    except asyncio.CancelledError:
        ended.cancel()
        raise
    except BaseException as error:
        ended.set_exception(error)
        ended.exception()  # it is known, also where nobody is left to ask
        raise
    context = FlowRunContext.get()
    ended.set_result(str(context.flow_run.id) if context is not None and context.flow_run is not None else None)
    return state


@flow(name="materialize", flow_run_name="{project}", persist_result=False)
async def run_project(
    project: str, select: str | None = None, environment: str | None = None, force: bool = False, upstream: bool = False,
    config: list[str] | None = None, runner: Literal["processes", "threads", "dask", "ray"] | None = None,
    otherwise: str | None = None,
) -> State[Any]:  # fmt: skip
    """Make what is stale in a project, and only that, with the settings found where the flow runs.

    Args:
        project: the project's name
        select: which assets, as `aipctl materialize SELECT` reads it; all of them by default
        environment: the environment; by default the one in the settings
        force: make everything that is selected, stale or not
        upstream: also make what the selected assets are made of, where it is stale
        config: config values for this run, each ASSET.FIELD=VALUE
        runner: where sync functions are called; by default as in the settings
        otherwise: which assets instead, where what is selected is made of something stale that is not
    """
    from assetcore.opening import open_project  # a worker: it opens the project itself (a cycle otherwise)

    logger = get_run_logger()

    def tell(event: Event) -> None:
        if event.text:
            level = logging.ERROR if event.kind == "unit-failed" else logging.INFO
            logger.log(level, "%s", event.text if event.asset in ("", event.text) else f"{event.asset}: {event.text}")

    async with open_project(project, environment=environment, config=config or (), runner=runner) as session:
        options: dict[str, Any] = {"force": force, "upstream": upstream, "on_event": tell}
        result = await materialized(session, select, otherwise, **options)
    told = "; ".join(f"{asset.asset}: {asset.summary}" for asset in result.assets if asset.touched)
    if result.failures:
        return Failed(message=told or f"{len(result.failures)} failed")
    return Completed(message=told or "Everything is up to date: nothing was run.")


async def materialized(session: Session, select: str | None, otherwise: str | None, **options: Any) -> RunResult:
    """Make what is selected; or the other, where all of that cannot be made, as it is made of something stale that is not selected."""
    try:
        return await session.materialize(select, **options)
    except StaleInputError:
        if not otherwise:
            raise
        return await session.materialize(otherwise, **options)


def prefect_settings_for(api: str | None) -> dict[Any, Any]:
    """What holds for our flow runs, whatever the environment says. A fork of the preloader reads Prefect's own settings first."""
    if is_fork():
        refresh_global_settings_context()
    values: dict[Any, Any] = {
        prefect_settings.PREFECT_RESULTS_PERSIST_BY_DEFAULT: False,
        prefect_settings.PREFECT_TASKS_REFRESH_CACHE: False,
        prefect_settings.PREFECT_CLIENT_MAX_RETRIES: 3,  # with its pauses 14 s: a server that restarts is waited for, a lost one is not
    }
    if api is not None:
        values[prefect_settings.PREFECT_API_URL] = api
    return values


@dataclass(slots=True)
class _Display:
    """What Prefect is told beside states; a run does not fail, nor wait for long, because that cannot be shown."""

    say: Callable[[Event], None]
    patience: float = SILENT_SECONDS
    lost: bool = False
    silent_since: float | None = None

    async def show(self, call: Coroutine[Any, Any, T]) -> T | None:
        """The answer of Prefect's API, or None where it does not answer in time.

        A busy machine may take seconds for one answer: only an API that gives none for `patience` seconds is not asked again.
        """
        if self.lost:
            call.close()
            return None
        began = monotonic()
        try:
            async with asyncio.timeout(API_SECONDS):
                answer = await call
        except Exception:
            self.silent_since = began if self.silent_since is None else self.silent_since
            if monotonic() - self.silent_since >= self.patience:
                self.lose()
            return None
        self.silent_since = None
        return answer

    def lose(self) -> None:
        """Prefect does not answer any more: nothing is shown from now on, and the run goes on."""
        if not self.lost:
            self.lost = True
            # Or Prefect's handler says of each batch of lines that it could not be sent.
            logging.raiseExceptions = False
            self.say(Event("message", text=LOST))


def _was_told(shown: asyncio.Task[State[Any]]) -> bool:
    """Whether Prefect knows that the flow run has ended: what the flow itself raises is in its state, the task raises what the API did."""
    return shown.done() and (shown.cancelled() or shown.exception() is None)


async def _note_unshown(run: Run, status: str) -> None:
    if run.flow_run is not None:
        async with run.project.engine.begin() as connection:
            await runs.note_unshown(connection, run.project.id, run.flow_run, status)


async def settle(project: Project, unshown: Mapping[str, str]) -> None:
    """Have Prefect show how flow runs ended of which it was not told; those that it cannot be told of now are left to the next run."""
    told: list[str] = []
    with suppress(Exception):  # an API that is away is met by whoever has something to run
        for one, status in list(unshown.items())[:SETTLED_AT_ONCE]:
            async with asyncio.timeout(API_SECONDS):
                await _close(one, status)
            told.append(one)
    if told:
        async with project.engine.begin() as connection:
            await runs.note_shown(connection, told)


async def _close(flow_run: str, status: str) -> None:
    """Set the state of a flow run that has ended and is not shown so, and of those of its tasks that are shown as at work."""
    message = "Its process died." if status == "died" else f"The run is {status}. Prefect's API was away when it ended."
    state = {"done": Completed, "stopped": Completed, "failed": Failed}.get(status, Crashed)
    at_work = TaskRunFilterState(type=TaskRunFilterStateType(any_=[StateType.PENDING, StateType.RUNNING]))
    async with get_client() as client:
        with suppress(ObjectNotFound):  # it was shown by another server
            found = await client.read_flow_run(UUID(flow_run))
            if found.state is None or not found.state.is_final():
                await client.set_flow_run_state(found.id, state(message=message), force=True)
            tasks = await client.read_task_runs(
                flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[found.id])),
                task_run_filter=TaskRunFilter(state=at_work),
            )
            for one in tasks:
                await client.set_task_run_state(one.id, state(message=message), force=True)


async def _perform_all(run: Run, steps: Steps, display: _Display) -> State[Any]:
    context = FlowRunContext.get()
    if context is not None and context.flow_run is not None:
        run.flow_run = str(context.flow_run.id)
        async with run.project.engine.begin() as connection:
            await runs.note_flow_run(connection, run.id, run.flow_run)
    slug = re.sub(r"[^a-z0-9]+", "-", f"{run.project.name}-{run.project.environment}".lower())
    planned = _said(steps.plan)
    about = f"What run {run.id} is to make, and why"
    shown = asyncio.create_task(display.show(acreate_table_artifact(planned, key=f"{slug}-plan", description=about)))
    tagged = any(run.project.graph.assets[name].tags for name in steps.waits)
    limited = (await display.show(_limited_tags()) if tagged else None) or frozenset()
    try:
        await walk(steps.waits, lambda name, states: _step(run, name, states, display, limited))
        await shown
    finally:
        shown.cancel()
    rows = _said([_row(run.results[name], run) for name in steps.waits if name in run.results])
    about = f"What run {run.id} made, with the keys of its objects"
    await display.show(acreate_table_artifact(rows, key=f"{slug}-result", description=about))
    if display.silent_since is not None:  # it will not hear how the flow run ends, either
        await _note_unshown(run, run.status)
    failed = sum(r.failed for r in run.results.values())
    if failed:
        return Failed(message=f"{failed} unit{'s' if failed > 1 else ''} failed")
    if refused := [r.asset for r in run.results.values() if r.refused]:
        return Failed(message=f"A blocking check of {', '.join(refused)} did not pass")
    return Completed(message=f"{sum(r.made for r in run.results.values())} units made")


async def _limited_tags() -> frozenset[str]:
    """The tags of which Prefect lets only so many tasks run at a time: `prefect concurrency-limit create TAG NUMBER`."""
    names: list[str] = []
    async with get_client() as client:
        while len(names) % LIMITS_AT_ONCE == 0:
            page = await client.read_global_concurrency_limits(limit=LIMITS_AT_ONCE, offset=len(names))
            names += [limit.name for limit in page]
            if not page:
                break
    return frozenset(name.removeprefix("tag:") for name in names if name.startswith("tag:"))


async def _step(
    run: Run, name: str, upstream: Sequence[State[Any]], display: _Display, limited: Collection[str]
) -> State[Any]:
    """One step as a Prefect task. Those that it waits for have ended; they may have failed, for some units only."""
    asset = run.project.graph.assets[name]
    results: list[AssetResult] = []
    errors: list[BaseException] = []

    @task(
        name=name, task_run_name=name, description=asset.description or None, cache_policy=NO_CACHE, persist_result=False, retries=0,
        tags=[tag for tag in asset.tags if tag in limited],  # it waits for a slot of each of these
        log_prints=_current.get() is None,  # what an asset prints: on a worker into the log of its task, here to whoever watches
    )  # fmt: skip
    async def perform() -> State[Any]:
        _tag([asset.kind, f"group:{asset.group}", *asset.tags])
        try:
            result = await _with_progress(run, name, display)
        except BaseException as error:
            errors.append(error)
            raise
        results.append(result)
        _emit(run, result)
        return _state(result)

    shown: State[Any] | None = None
    if not display.lost:
        called: Any = perform(return_state=True, wait_for=[allow_failure(state) for state in upstream])
        with suppress(Exception):  # Prefect's own: what the step raised is known
            shown = await called
        if errors:
            # Prefect only keeps it in a state; a run that went on would make things of what is not there.
            raise errors[0]
        if not results:
            display.lose()  # Prefect could not begin it
    if not results:
        return _state(await run.perform(name))
    return shown or _state(results[0])


def _tag(tags: Sequence[str]) -> None:
    """Tag the task run that this is. Prefect shows them when it ends.

    A task that has tags before it begins asks the server for a slot of each: a question a task, whose answer Prefect's client was seen to
    overlook for two seconds in every other run. So it has only those that are limited.
    """
    if (context := TaskRunContext.get()) is not None:
        context.task_run.tags = list(tags)


async def _raise_error(state: State[Any]) -> None:
    """Raise what a task or flow raised, which Prefect keeps in its state; that units failed is told by the run itself."""
    if not state.is_completed():
        error = await state.aresult(raise_on_failure=False)
        if isinstance(error, BaseException) and not isinstance(error, FailedRun):
            raise error


async def _with_progress(run: Run, name: str, display: _Display) -> AssetResult:
    """Perform a step; one that takes longer than a moment shows how far it is, once something of it is done."""
    work = asyncio.create_task(run.perform(name))
    shown: UUID | None = None
    try:
        while True:
            done, _ = await asyncio.wait([work], timeout=PROGRESS_SECONDS)
            percent = 100.0 if done else run.progress.get(name, 0.0)
            if shown is not None:
                await display.show(aupdate_progress_artifact(shown, percent))
            elif percent and not done:
                shown = await display.show(acreate_progress_artifact(percent, description=name))
            if done:
                return work.result()
    except asyncio.CancelledError:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        raise


def _state(result: AssetResult) -> State[Any]:
    message = result.summary
    if result.failed or result.refused:
        return Failed(message=message)
    if result.made or result.removed or result.taken_in:
        return Completed(message=message)
    if result.unchanged:
        return Completed(name="Unchanged", message=message)
    if result.reused:
        return Completed(name="Reused", message=message)
    if result.skipped:
        return Completed(name="Skipped", message=message)
    return Completed(message=message)


def _emit(run: Run, result: AssetResult) -> None:
    event = _event(result)
    if event is None:
        return
    emit_event(
        event,
        resource={
            "prefect.resource.id": f"assetcore.{run.project.name}.{run.project.environment}.{result.asset}",
            "prefect.resource.name": result.asset,
        },
        payload={"run": run.id, **result.to_json(), **_where(result)},
    )


def _where(result: AssetResult) -> dict[str, list[str]]:
    """In which partitions something was made, as what follows selects its own; nothing of so many that an event does not hold them."""
    if not 0 < len(result.partitions) <= MOST_PARTITIONS:
        return {}
    return {"partitions": [f"[{Label(Pattern(key))}]" for key in result.partitions]}


def _event(result: AssetResult) -> str | None:
    """What Prefect's automations hear of a step; nothing of one after which the asset is what it was."""
    if result.failed or result.refused:
        return "assetcore.asset.failed"
    became = result.made or result.reused or result.removed or result.taken_in
    return "assetcore.asset.materialized" if became else None


def _row(result: AssetResult, run: Run) -> dict[str, Any]:
    keys = [f"{run.project.settings.storage_url}/{key}" for key in result.keys]
    shown = ", ".join(keys[:3]) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")
    checks = "; ".join(f"{c.summary or f'{c.check} passed'}{_first(c)}" for c in result.checks)
    facts = {**result.to_json(), "checks": checks, "seconds": round(result.seconds, 2), "keys": shown}
    return {"asset": facts.pop("asset"), "taken in": result.taken_in, **facts}


def _said(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A table without the columns that say nothing: with all of them Prefect's page would show the first ones only."""
    columns = dict.fromkeys(column for row in rows for column, value in row.items() if value)
    return [{column: row.get(column, "") for column in columns} for row in rows]


def _first(check: CheckReport) -> str:
    return f" ({check.findings[0]})" if check.findings else ""
