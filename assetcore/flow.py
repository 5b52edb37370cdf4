"""Flow: how does a plan run and show in Prefect? The only door to Prefect.

`run_plan(run_id)` is one importable flow, so that it deploys: it reads the stored run and generates a task for each step, named by
its asset, which waits for the tasks of what the asset is made of. Async tasks are awaited where they are ready (3-4 ms each);
nothing is submitted to a runner. Prefect's states are a display: what is fresh is decided by lineage alone, and its caching and
result persistence are off for every generated task, whatever the environment says.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import prefect.settings as prefect_settings
from prefect import allow_failure, flow, task
from prefect.artifacts import acreate_progress_artifact, acreate_table_artifact, aupdate_progress_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.context import FlowRunContext
from prefect.events import emit_event
from prefect.exceptions import FailedRun
from prefect.settings import temporary_settings
from prefect.states import Completed, Failed

from assetcore.execution import Run, walk
from assetcore.lineage import runs
from assetcore.results import AssetResult

__all__ = ["Steps", "execute", "run_plan"]

PROGRESS_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Steps:
    """The steps of a run in order, each with those that it waits for; the rows of the plan, to show."""

    waits: Mapping[str, Sequence[str]]
    plan: Sequence[Mapping[str, Any]]


_current: ContextVar[tuple[Run, Steps] | None] = ContextVar("assetcore_run", default=None)
"""The run that this process has open: `run_plan` opens it itself where it runs elsewhere."""


async def execute(run: Run, steps: Steps) -> str | None:
    """Run the steps as a Prefect flow run in this process; returns the flow run's identifier."""
    settings = run.project.settings
    token = _current.set((run, steps))
    with ExitStack() as stack:
        stack.enter_context(temporary_settings(_settings(settings.prefect_api_url)))
        stack.callback(_current.reset, token)
        named = run_plan.with_options(name=run.project.name, flow_run_name=f"{run.project.name}-{run.id}")
        outcome: Any = named(run.id, return_state=True)  # typed as if it were not a coroutine
        state: State[Any] = await outcome
    await _raise_error(state)
    return str(state.state_details.flow_run_id) if state.state_details.flow_run_id else None


@flow(name="assetcore", persist_result=False, validate_parameters=False)
async def run_plan(run_id: str) -> State[Any]:
    """Run the stored plan of a run: the steps of its assets, each as soon as what it is made of is there."""
    opened = _current.get()
    if opened is None:
        from assetcore.session import (
            resumed,  # a worker: the run is opened from the settings it finds (a cycle otherwise)
        )

        async with resumed(run_id, Path.cwd()) as (run, waits, plan):
            return await _perform_all(run, Steps(waits, plan))
    return await _perform_all(*opened)


async def _perform_all(run: Run, steps: Steps) -> State[Any]:
    context = FlowRunContext.get()
    if context is not None and context.flow_run is not None:
        async with run.project.engine.begin() as connection:
            await runs.note_flow_run(connection, run.id, str(context.flow_run.id))
    slug = re.sub(r"[^a-z0-9]+", "-", f"{run.project.name}-{run.project.environment}".lower())
    await acreate_table_artifact(
        list(map(dict, steps.plan)), key=f"{slug}-plan", description=f"What run {run.id} is to make, and why"
    )
    await walk(steps.waits, lambda name, states: _step(run, name, states))
    rows = [_row(run.results[name], run) for name in steps.waits if name in run.results]
    await acreate_table_artifact(
        rows, key=f"{slug}-result", description=f"What run {run.id} made, with the keys of its objects"
    )
    failed = sum(r.failed for r in run.results.values())
    if failed:
        return Failed(message=f"{failed} unit{'s' if failed > 1 else ''} failed")
    return Completed(message=f"{sum(r.made for r in run.results.values())} units made")


async def _step(run: Run, name: str, upstream: Sequence[State[Any]]) -> State[Any]:
    """One step as a Prefect task. Those that it waits for have ended; they may have failed, for some units only."""
    asset = run.project.graph.assets[name]

    @task(
        name=name, task_run_name=name, tags=[asset.kind, f"group:{asset.group}", *asset.tags], description=asset.description or None,
        cache_policy=NO_CACHE, persist_result=False, retries=0, log_prints=False,
    )  # fmt: skip
    async def perform() -> State[Any]:
        result = await _with_progress(run, name)
        _emit(run, result)
        return _state(result)

    outcome: Any = perform(return_state=True, wait_for=[allow_failure(state) for state in upstream])
    state: State[Any] = await outcome
    await _raise_error(state)
    return state


async def _raise_error(state: State[Any]) -> None:
    """Raise what a task or flow raised, which Prefect keeps in its state; that units failed is told by the run itself."""
    if not state.is_completed():
        error = await state.aresult(raise_on_failure=False)
        if isinstance(error, BaseException) and not isinstance(error, FailedRun):
            raise error


async def _with_progress(run: Run, name: str) -> AssetResult:
    """Perform a step; one that takes longer than a moment shows how far it is."""
    work = asyncio.create_task(run.perform(name))
    try:
        done, _ = await asyncio.wait([work], timeout=PROGRESS_SECONDS)
        if done:
            return work.result()
        shown = await acreate_progress_artifact(run.progress.get(name, 0.0), description=name)
        while not done:
            done, _ = await asyncio.wait([work], timeout=PROGRESS_SECONDS)
            await aupdate_progress_artifact(shown, 100.0 if done else run.progress.get(name, 0.0))
        return work.result()
    except asyncio.CancelledError:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        raise


def _state(result: AssetResult) -> State[Any]:
    message = result.summary
    if result.failed:
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
    emit_event(
        "assetcore.asset.materialized" if not result.failed else "assetcore.asset.failed",
        resource={
            "prefect.resource.id": f"assetcore.{run.project.name}.{run.project.environment}.{result.asset}",
            "prefect.resource.name": result.asset,
        },
        payload={"run": run.id, **result.to_json()},
    )


def _row(result: AssetResult, run: Run) -> dict[str, Any]:
    keys = [f"{run.project.settings.storage_url}/{key}" for key in result.keys]
    shown = ", ".join(keys[:3]) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")
    return {**result.to_json(), "seconds": round(result.seconds, 2), "keys": shown}


def _settings(api: str | None) -> dict[Any, Any]:
    """What holds for our flow runs, whatever the environment says."""
    values: dict[Any, Any] = {
        prefect_settings.PREFECT_RESULTS_PERSIST_BY_DEFAULT: False,
        prefect_settings.PREFECT_TASKS_REFRESH_CACHE: False,
    }
    if api is not None:
        values[prefect_settings.PREFECT_API_URL] = api
    return values
