"""Deploy: how is a project run by the workers of a Prefect work pool?

`register` makes, or brings up to date, the deployment `materialize/NAME` of the flow `run_project` on a work pool of type process,
which is made where there is none. It can be triggered and scheduled in Prefect's UI as it is; schedules and whatever else was set
there stay. A worker finds the project in a folder, and the services in its own environment and settings.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from httpx import HTTPError
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import DeploymentUpdate, WorkPoolCreate
from prefect.client.schemas.objects import State
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.utilities.callables import parameter_schema
from prefect.workers.process import ProcessWorker

from assetcore.errors import ServiceError, UsageError
from assetcore.flow import run_project

__all__ = ["Deployed", "register", "trigger"]


POLL_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Deployed:
    """A deployment as it now is."""

    deployment: str
    identifier: str
    created: bool
    pool: str
    api: str
    folder: str

    def to_json(self) -> dict[str, Any]:
        """What `aipctl deploy --json` prints."""
        return {
            "deployment": self.deployment, "id": self.identifier, "created": self.created, "work_pool": self.pool,
            "prefect_api_url": self.api, "folder": self.folder, "worker": self.worker, "run": self.run,
        }  # fmt: skip

    @property
    def worker(self) -> str:
        """The command that starts a worker."""
        return f"PREFECT_API_URL={self.api} prefect worker start --pool {self.pool}"

    @property
    def run(self) -> str:
        """The command that triggers a run."""
        return f"PREFECT_API_URL={self.api} prefect deployment run {self.deployment}"


async def register(
    api: str, *, name: str, pool: str, folder: Path, parameters: dict[str, Any], target: Any = run_project
) -> Deployed:
    """Register a deployment of a flow, or bring the one of this name up to date; `parameters` are the defaults of its runs.

    Raises ServiceError when Prefect does not answer, UsageError for a work pool whose workers do not start processes.
    """
    try:
        async with PrefectClient(api) as client:
            await _see_to_pool(client, pool)
            identifier, created = await _upsert(client, target, name, pool, folder, parameters)
    except PrefectHTTPStatusError as error:
        raise ServiceError(
            f"Prefect at {api} refuses the deployment {name}: {error.response.text[:500]}", hint="See: aipctl check"
        ) from error
    except (HTTPError, OSError) as error:
        raise ServiceError(
            f"Prefect at {api} cannot be reached: {error}.",
            hint="Start it with: aipctl up, or correct PREFECT_API_URL.",
        ) from error
    return Deployed(f"{target.name}/{name}", identifier, created, pool, api, str(folder))


async def _see_to_pool(client: PrefectClient, name: str) -> None:
    try:
        found = await client.read_work_pool(name)
    except ObjectNotFound:
        template = ProcessWorker.get_default_base_job_template()
        await client.create_work_pool(WorkPoolCreate(name=name, type=ProcessWorker.type, base_job_template=template))
        return
    if found.type != ProcessWorker.type:
        raise UsageError(
            f"The work pool {name} is of type {found.type}, and aipctl deploys to one whose workers start processes.",
            hint="Name another with --pool; it is made where there is none.",
        )


async def _upsert(
    client: PrefectClient, flow: Any, name: str, pool: str, folder: Path, parameters: dict[str, Any]
) -> tuple[str, bool]:
    values: dict[str, Any] = {
        "entrypoint": f"{flow.fn.__module__}.{flow.fn.__name__}",
        "work_pool_name": pool,
        "job_variables": {"working_dir": str(folder)},
        "parameters": parameters,
        "parameter_openapi_schema": parameter_schema(flow).model_dump_for_openapi(),
        "enforce_parameter_schema": True,
        "description": flow.description,
        "tags": ["assetcore", f"project:{parameters['project']}"],
    }
    try:
        existing = await client.read_deployment_by_name(f"{flow.name}/{name}")
    except ObjectNotFound:
        flow_id = await client.create_flow(flow)
        return str(await client.create_deployment(flow_id, name, **values)), True
    await client.update_deployment(
        existing.id, DeploymentUpdate(**values)
    )  # creating it again would drop its schedules
    return str(existing.id), False


async def trigger(api: str, deployed: Deployed, parameters: dict[str, Any], seconds: float) -> State[Any]:
    """Run a deployment, and wait until a worker has ended it; its last state. Raises ServiceError when nobody takes it in time."""
    async with PrefectClient(api) as client:
        run = await client.create_flow_run_from_deployment(UUID(deployed.identifier), parameters=parameters)
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            found = await client.read_flow_run(run.id)
            if found.state is not None and found.state.is_final():
                return found.state
            await asyncio.sleep(POLL_SECONDS)
    raise ServiceError(
        f"No worker has ended the flow run of {deployed.deployment} within {seconds:g} s.",
        hint=f"Start one: {deployed.worker}",
    )
