"""Conduct: how does a declared flow run in Prefect, here or on a worker?

Its documents are those of assets, its result goes into the store under the flow's own keys, and Prefect is shown names and counts,
never the documents. Each task that it calls is a task run; a failure is told by the flow's hook, the one place that does.
What has ended is listed among the runs of the project, and the journal has it. `run_pipeline` is what a deployment runs: it opens the
project where it is and conducts the same flow.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.context import FlowRunContext
from prefect.settings import temporary_settings
from prefect.states import Completed

from assetcore import journal, notify
from assetcore.assets import Dependency
from assetcore.collectors import collector_for
from assetcore.documents import Document
from assetcore.errors import AssetcoreError, MakeError, NothingSelectedError, ServiceError, StorageError, UsageError
from assetcore.flow import prefect_settings_for, settle
from assetcore.keep import record_run
from assetcore.lineage import read, runs, spans
from assetcore.lineage.journal import Entry, append
from assetcore.lineage.runs import new_run_id
from assetcore.loading import flows
from assetcore.opening import open_project
from assetcore.pipelines import DocumentList, PipelineFlow, PipelineTask, conducted
from assetcore.session import Session
from assetcore.storage import flows_of, object_key, run_timestamp
from assetcore.telemetry import Recorder, Sink, Span, get_pipeline_logger
from assetcore.values import decode

__all__ = ["Conducted", "conduct", "run_pipeline"]

logger = get_pipeline_logger(__name__)


@dataclass(frozen=True, slots=True)
class Conducted:
    """What a flow gave: where each document lies."""

    flow: str
    run: str
    flow_run: str | None
    seconds: float
    documents: Sequence[Mapping[str, Any]]

    def to_json(self) -> dict[str, Any]:
        """What `aipctl run --json` prints."""
        return {
            "flow": self.flow, "run": self.run, "flow_run": self.flow_run, "seconds": round(self.seconds, 3),
            "documents": list(self.documents),
        }  # fmt: skip


async def conduct(
    session: Session, declared: PipelineFlow[Any], inputs: Mapping[str, str], parameters: Mapping[str, Any]
) -> Conducted:
    """Run a flow in this process, as a flow run of Prefect; `inputs` names the asset of each list of documents.

    Raises UsageError for what its parameters do not take, and whatever the flow raises.
    """
    session.project.check_writable()
    given = {**_checked(declared, parameters), **await _documents(session, declared, inputs)}
    missing = [n for n, p in declared.parameters().items() if p.default is p.empty and n not in given]
    if missing:
        raise UsageError(
            f"{declared.name} takes {', '.join(missing)}, and was given nothing for it.",
            hint=f"Documents: --input {missing[0]}=ASSET; a value: --param {missing[0]}=VALUE",
        )
    async with session.project.engine.begin() as connection:
        await spans.forget_flows_before(connection, session.project.settings.trace_days)
        unshown = await runs.unshown(connection, session.project.id)
    started = datetime.now(UTC)
    run = new_run_id()
    collector = collector_for(session.project.settings, session.name, run)
    recorder = Recorder(session.name, run, [_keeping(session, run), *([collector] if collector is not None else [])])
    made: list[DocumentList] = []
    raised: list[Exception] = []
    seen: list[str] = []

    async def told(_: Any, flow_run: Any, state: State[Any]) -> None:
        api = session.project.settings.prefect_api_url
        link = f"{api.removesuffix('/api')}/runs/flow-run/{flow_run.id}" if api else None
        failed = notify.Failed(
            f"{session.name}/{declared.name}", run, [(declared.name, state.message or "")], 1, link=link
        )
        await notify.tell(session.project.settings, failed)

    hooks: list[Any] = [told]

    @flow(
        name=declared.name, flow_run_name=f"{declared.name}-{run}", description=declared.terms.description or None,
        timeout_seconds=declared.terms.timeout, persist_result=False, validate_parameters=False, log_prints=True, retries=0,
        on_failure=hooks,
    )  # fmt: skip
    async def shown(project: str, inputs: Mapping[str, str], parameters: Mapping[str, str]) -> State[Any]:
        context = FlowRunContext.get()
        if context is not None and context.flow_run is not None:
            seen.append(str(context.flow_run.id))
        try:
            with recorder.span("flow", declared.name), conducted(_task):
                made.append(await declared.do((), given))
        except Exception as error:
            raised.append(error)
            raise
        return Completed(message=_counted(made[0]))

    async def called() -> None:
        flow_run: Any = shown(session.name, dict(inputs), {name: str(value) for name, value in parameters.items()})
        try:
            await flow_run
        except Exception as error:
            problem = raised[0] if raised else None if made else error
            if error is not problem:  # the flow has ended, and Prefect could not be told
                logger.warning("Prefect's API does not answer: %s is shown there by the next run.", declared.name)
                async with session.project.engine.begin() as connection:
                    ended = "done" if problem is None else "failed"
                    await runs.note_unshown(connection, session.project.id, seen[0], ended)
            if problem is not None:
                raise problem from None

    status = "failed"
    async with _listed(session, declared.name, run, started, seen):
        try:
            with temporary_settings(prefect_settings_for(session.project.settings.prefect_api_url)):
                await settle(session.project, unshown)
                await called()
            status = "done"
        except AssetcoreError:
            raise
        except Exception as error:
            raise MakeError(
                f"{declared.name} failed: {type(error).__name__}: {error}"[:2000], hint=f"See: aipctl trace {run}"
            ) from error
        finally:
            await recorder.close(status)
        documents = await _stored(session, declared, run_timestamp(started), made[0])
    seconds = (datetime.now(UTC) - started).total_seconds()
    return Conducted(declared.name, run, seen[0] if seen else None, seconds, documents)


@asynccontextmanager
async def _listed(session: Session, name: str, run: str, started: datetime, seen: Sequence[str]) -> AsyncIterator[None]:
    """What runs here is listed, with its end, as a run of the project, and the journal has it."""
    status = "failed"
    try:
        yield
        status = "done"
    except BaseException as error:
        status = "failed" if isinstance(error, Exception) else "cancelled"
        raise
    finally:
        await asyncio.shield(_list(session, name, run, started, status, seen))


async def _list(session: Session, name: str, run: str, started: datetime, status: str, seen: Sequence[str]) -> None:
    """Write the run, which has ended: it holds no lock, so that one that is at work would be taken for dead."""
    project = session.project
    entry = Entry("flow", project.environment, run=run, facts={"flow": name, "status": status})
    try:
        async with project.engine.begin() as connection:
            about = (run, project.id, project.environment_id, f"run {name}", {runs.FLOW: name}, started)
            await runs.begin(connection, *about)
            for flow_run in seen:
                await runs.note_flow_run(connection, run, flow_run)
            await runs.finish(connection, run, status, ())
            await append(connection, project.id, entry)
        await record_run(project, project.environment, run, run_timestamp(started))
        await journal.flush(project)
    except (ServiceError, StorageError) as error:
        logger.warning("that %s was run (%s) cannot be written down: %s", name, run, error)


@flow(name="pipeline", flow_run_name="{project}-{name}", persist_result=False, validate_parameters=False)
async def run_pipeline(
    project: str, name: str, inputs: dict[str, str] | None = None, parameters: dict[str, Any] | None = None
) -> State[Any]:
    """Run a flow of a project, with the settings found where it runs.

    Args:
        project: the project's name
        name: the flow's name
        inputs: the asset of each list of documents
        parameters: the values of its other parameters
    """
    async with open_project(project) as session:
        declared = flows(session.project.root, session.name)[name]
        done = await conduct(session, declared, inputs or {}, parameters or {})
    get_run_logger().info("%s", json.dumps(done.to_json()))
    return Completed(message=json.dumps(done.to_json())[:20_000])


async def _task(declared: PipelineTask[Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> DocumentList:
    """A task as a task run. Its arguments are not parameters: Prefect would keep them."""
    terms, made = declared.terms, list[DocumentList]()
    retry = terms.retry
    again: dict[str, Any] = {}
    if retry is not None:
        again = {
            "retries": retry.retries, "retry_delay_seconds": retry.pauses(), "retry_jitter_factor": retry.jitter,
            "retry_condition_fn": _allowing(declared),
        }  # fmt: skip

    @task(
        name=terms.name, task_run_name=terms.name, description=terms.description or None, cache_policy=NO_CACHE,
        persist_result=False, timeout_seconds=terms.timeout, log_prints=True, **again,
    )  # fmt: skip
    async def shown() -> State[Any]:
        made.append(await declared.do(args, kwargs))
        return Completed(message=_counted(made[-1]))

    called: Any = shown()
    await called
    return made[-1]


def _allowing(declared: PipelineTask[Any]) -> Any:
    async def allows(_: Any, __: Any, state: State[Any]) -> bool:
        error = await state.aresult(raise_on_failure=False)
        retry = declared.terms.retry
        return retry is not None and isinstance(error, BaseException) and retry.allows(error)

    return allows


def _keeping(session: Session, run: str) -> Sink:
    async def keep(ended: Sequence[Span]) -> None:
        async with session.project.engine.begin() as connection:
            await spans.keep(connection, run, ended)

    return keep


async def _documents(
    session: Session, declared: PipelineFlow[Any], inputs: Mapping[str, str]
) -> dict[str, DocumentList]:
    """The current documents of assets, as the flow's parameters take them. Raises NothingSelectedError for one that was never made."""
    project, known = session.project, declared.parameters()
    found: dict[str, DocumentList] = {}
    for parameter, name in inputs.items():
        if parameter not in known or not issubclass(known[parameter].annotation, DocumentList):
            lists = [n for n, p in known.items() if issubclass(p.annotation, DocumentList)]
            raise UsageError(
                f"{declared.name} takes no documents as {parameter!r}.",
                hint=f"Those that it takes: {', '.join(lists) or 'none'}.",
            )
        asset = session.graph[name]
        identifier = project.asset_ids[name]
        async with project.engine.connect() as connection:
            if not (await read.watermark(connection, project.environment_id, identifier)).changed:
                raise NothingSelectedError(f"{name} is not made yet.", hint=f"Make it: aipctl materialize '+{name}'")
            documents = (await read.current_documents(connection, project.environment_id, [identifier]))[identifier]
            stored = await read.stored(connection, documents["document"].to_list())
        dependency = Dependency(parameter, "collect", asset, "list", None)
        found[parameter] = DocumentList(
            await decode(dependency, project.reader, [stored[one] for one in documents["document"]])
        )
    return found


def _checked(declared: PipelineFlow[Any], parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Values for parameters that are no documents, as their annotations say."""
    from pydantic import TypeAdapter, ValidationError

    known = {n: p for n, p in declared.parameters().items() if not issubclass(p.annotation, Document | DocumentList)}
    checked: dict[str, Any] = {}
    for name, value in parameters.items():
        if name not in known:
            raise UsageError(
                f"{declared.name} has no parameter {name!r}.",
                hint=f"It has: {', '.join(known) or 'none but documents'}.",
            )
        try:
            checked[name] = TypeAdapter(known[name].annotation).validate_python(value, extra="forbid")
        except ValidationError as error:
            problem = error.errors()[0]
            where = ".".join([name, *map(str, problem["loc"])])
            got = f", got {problem['input']!r:.80}" if problem["loc"] else ""
            raise UsageError(f"--param {name}={value!r:.80}: {where}: {problem['msg']}{got}.") from None
    return checked


async def _stored(
    session: Session, declared: PipelineFlow[Any], at: str, documents: DocumentList
) -> list[dict[str, Any]]:
    """Write what a flow gave into the store; lineage knows nothing of it, so it lies beside the project's own keys."""
    bucket, settings = session.project.bucket, session.project.settings
    told: list[dict[str, Any]] = []
    for one in documents:
        key = object_key(flows_of(session.name), declared.name, at, "result", one.name)
        where = f"{settings.storage_url}/{key}"
        if any(where == before["key"] for before in told):
            raise StorageError(
                f"{declared.name} returned two documents named {one.name}.", hint="Give each a name of its own."
            )
        await bucket.write_own(key, one.content)
        told.append({"name": one.name, "id": one.id, "sha256": one.sha256.hex(), "key": where})
    return told


def _counted(documents: DocumentList) -> str:
    return f"{len(documents)} document{'s' * (len(documents) != 1)}"
