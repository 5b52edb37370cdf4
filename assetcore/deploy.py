"""Deploy: how is a project run by the workers of a Prefect work pool?

`register` makes, or brings up to date, the deployment `materialize/NAME` of the flow `run_project` on a work pool, which is made where
there is none: of type process, whose worker finds the project in a folder and the services in its own environment and settings; or,
where an image is given, of type docker, whose worker starts a container of it for each run. Schedules and events that are declared
beside assets become schedules and automations of it; what was set in Prefect's UI stays.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

from httpx import HTTPError
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import DeploymentScheduleCreate, DeploymentUpdate, WorkPoolCreate
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId
from prefect.client.schemas.objects import DeploymentSchedule, State
from prefect.client.schemas.schedules import CronSchedule
from prefect.client.schemas.sorting import AutomationSort
from prefect.events import EventTrigger, ResourceSpecification, RunDeployment
from prefect.events.schemas.automations import Automation, AutomationCore, Posture
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound, PrefectHTTPStatusError
from prefect.types.names import BANNED_CHARACTERS
from prefect.utilities.callables import parameter_schema
from prefect.workers.process import ProcessWorker

from assetcore.errors import ServiceError, UsageError
from assetcore.flow import run_project
from assetcore.graph import Graph

__all__ = ["Container", "Deployed", "Trigger", "register", "trigger", "triggers_of"]


POLL_SECONDS = 0.5
IMAGE_FOLDER = Path("/srv")
"""Where the images of stack/Dockerfile have projects/."""


AT_ONCE = 100
"""Deployments that Prefect is asked for at a time; it gives 200 at most."""
SLUG = "asset-"
MATERIALIZED = "assetcore.asset.materialized"
PARTITIONS = "event.payload.partitions"
SAME_PARTITIONS = "{{% if " + PARTITIONS + " %}}{asset}{{{{ " + PARTITIONS + " | join(' or {asset}') }}}}{{% endif %}}"
"""A selection of those of an asset that an event names."""


@dataclass(frozen=True, slots=True)
class Trigger:
    """When a deployment makes an asset: `what` is a schedule, the asset after which, or the event on which.

    `alike` where both assets have the same partitions.
    """

    asset: str
    kind: Literal["schedule", "after", "on"]
    what: str
    alike: bool = False

    @property
    def parameters(self) -> dict[str, Any]:
        """What the run it starts is given: on a schedule also what the asset is made of.

        After an asset of the same partitions, those of which something was made, where others of that asset are stale.
        """
        given: dict[str, Any] = {"select": self.asset, "upstream": self.kind == "schedule"}
        if self.alike:
            given["otherwise"] = {"__prefect_kind": "jinja", "template": SAME_PARTITIONS.format(asset=self.asset)}
        return given

    def __str__(self) -> str:
        return f"{self.asset} {'at' if self.kind == 'schedule' else self.kind} {self.what}"


def triggers_of(graph: Graph) -> list[Trigger]:
    """What is declared beside assets."""
    found: list[Trigger] = []
    for name, asset in graph.assets.items():
        if asset.options.schedule is not None:
            found.append(Trigger(name, "schedule", asset.options.schedule))
        for upstream in asset.options.after:
            above = graph.assets.get(upstream)
            alike = asset.partitions is not None and above is not None and asset.partitions == above.partitions
            found.append(Trigger(name, "after", upstream, alike))
        found += [Trigger(name, "on", event) for event in asset.options.on]
    return found


@dataclass(frozen=True, slots=True)
class Container:
    """What a run is started in by the worker of a Docker work pool; it is removed when the run has ended."""

    image: str
    networks: tuple[str, ...] = ()

    def variables(self) -> dict[str, Any]:
        """As the template of a Docker work pool calls it. Addresses and secrets are no part: a run reads them from Prefect."""
        known = {"image": self.image, "image_pull_policy": "IfNotPresent", "auto_remove": True}
        return known | ({"networks": list(self.networks)} if self.networks else {})


@dataclass(frozen=True, slots=True)
class Deployed:
    """A deployment as it now is."""

    deployment: str
    identifier: str
    created: bool
    pool: str
    api: str
    folder: str
    triggers: tuple[str, ...] = ()
    image: str | None = None

    def to_json(self) -> dict[str, Any]:
        """What `aipctl deploy --json` prints."""
        return {
            "deployment": self.deployment, "id": self.identifier, "created": self.created, "work_pool": self.pool,
            "prefect_api_url": self.api, "folder": self.folder, "image": self.image, "worker": self.worker, "run": self.run,
            "triggers": list(self.triggers),
        }  # fmt: skip

    @property
    def worker(self) -> str:
        """The command that starts a worker."""
        of_type = "" if self.image is None else " --type docker"
        return f"PREFECT_API_URL={self.api} prefect worker start --pool {self.pool}{of_type}"

    @property
    def run(self) -> str:
        """The command that triggers a run."""
        return f"PREFECT_API_URL={self.api} prefect deployment run {self.deployment}"


async def register(
    api: str,
    *,
    name: str,
    pool: str,
    folder: Path,
    parameters: dict[str, Any],
    target: Any = run_project,
    triggers: Sequence[Trigger] = (),
    container: Container | None = None,
    stage: str | None = None,
) -> Deployed:
    """Register a deployment of a flow, or bring the one of this name up to date; `parameters` are the defaults of its runs.

    Its runs are of the stage that is given.

    Raises ServiceError when Prefect does not answer, UsageError for a name that it takes for none, and for a work pool whose workers start
    something else.
    """
    for what, given, option in (("work pool", pool, "--pool"), ("deployment", name, "--name")):
        if not given.strip("' \"") or any(character in given for character in BANNED_CHARACTERS):
            raise UsageError(
                f"{given!r} cannot be the name of a {what} in Prefect.",
                hint=f"Name it with {option}, without any of {' '.join(BANNED_CHARACTERS)}",
            )
    try:
        async with PrefectClient(api) as client:
            await _see_to_pool(client, pool, container)
            identifier, created = await _upsert(client, target, name, pool, folder, parameters, container, stage)
            await _schedule(client, UUID(identifier), triggers, parameters)
            await _automate(client, f"{target.name}/{name}", UUID(identifier), triggers, parameters)
    except PrefectHTTPStatusError as error:
        raise ServiceError(
            f"Prefect at {api} refuses the deployment {name}: {error.response.text[:500]}", hint="See: aipctl check"
        ) from error
    except (HTTPError, OSError) as error:
        raise ServiceError(
            f"Prefect at {api} cannot be reached: {error}.",
            hint="Start it with: aipctl up, or correct PREFECT_API_URL.",
        ) from error
    image = container.image if container is not None else None
    return Deployed(
        f"{target.name}/{name}", identifier, created, pool, api, str(folder), tuple(map(str, triggers)), image
    )


async def _schedule(
    client: PrefectClient, deployment: UUID, triggers: Sequence[Trigger], parameters: dict[str, Any]
) -> None:
    """The schedules that are declared, and no others of ours; one that was paused in Prefect stays so. Those that were set there stay."""
    known = [one for one in await client.read_deployment_schedules(deployment) if _is_declared(one)]
    paused = {one.parameters["select"] for one in known if not one.active}
    new = [
        DeploymentScheduleCreate(
            schedule=CronSchedule(cron=one.what, timezone="UTC"),
            slug=f"{SLUG}{one.asset}",
            active=one.asset not in paused,
            parameters={**parameters, **one.parameters},
        )
        for one in triggers
        if one.kind == "schedule"
    ]
    for one in known:
        await client.delete_deployment_schedule(deployment, one.id)
    if new:
        await client.create_deployment_schedules(deployment, new)


def _is_declared(schedule: DeploymentSchedule) -> bool:
    """Whether it came of a declaration: then it is called after the asset that it makes."""
    slug = (schedule.slug or "").lower()
    return slug == f"{SLUG}{schedule.parameters.get('select')}".lower()


async def _automate(
    client: PrefectClient, name: str, deployment: UUID, triggers: Sequence[Trigger], parameters: dict[str, Any]
) -> None:
    """An automation for each event that is declared, and no others of ours; one that was paused in Prefect stays so."""
    wanted = {f"{name}: {one}": one for one in triggers if one.kind != "schedule"}
    known: dict[str, Automation] = {}
    for one in await _automations(client, name, deployment):
        if known.setdefault(one.name, one) is not one or one.name not in wanted:
            await client.delete_automation(one.id)
    if not wanted:
        return
    where = f"assetcore.{parameters['project'].rpartition('.')[2]}.{parameters['environment']}"
    for called, one in wanted.items():
        made = one.kind == "after"
        started = {"deployment_id": deployment, "parameters": {**parameters, **one.parameters}}
        action: Any = RunDeployment.model_validate(started)
        automation = AutomationCore(
            name=called,
            description="Declared beside the asset; aipctl deploy keeps it up to date.",
            trigger=EventTrigger(
                expect={MATERIALIZED if made else one.what},
                match=ResourceSpecification({"prefect.resource.id": f"{where}.{one.what}"} if made else {}),
                posture=Posture.Reactive,
                threshold=1,
                within=timedelta(seconds=0),
            ),
            actions=[action],
        )
        if called in known:
            await client.update_automation(known[called].id, automation)
        else:
            await client.create_automation(automation)


async def _automations(client: PrefectClient, name: str, deployment: UUID) -> list[Automation]:
    """The automations that were declared for the deployment of this name, or for one of this name that is gone.

    Another's name can begin with this one; what it starts tells whose an automation is. Prefect gives so many at a time.
    """
    every: dict[UUID, Automation] = {}
    offset = 0
    while page := await client.read_automations(sort=AutomationSort.CREATED_DESC, offset=offset):
        offset += len(page)
        every.update((one.id, one) for one in page)
    called = [one for one in every.values() if one.name.startswith(f"{name}: ")]
    starts = {
        one.id: {a.deployment_id for a in one.actions if isinstance(a, RunDeployment) and a.deployment_id}
        for one in called
    }
    others = list({started for found in starts.values() for started in found} - {deployment})
    there: set[UUID] = set()
    for start in range(0, len(others), AT_ONCE):
        wanted = DeploymentFilter(id=DeploymentFilterId(any_=others[start : start + AT_ONCE]))
        there |= {one.id for one in await client.read_deployments(deployment_filter=wanted)}
    return [one for one in called if starts[one.id] and not starts[one.id] & there]


async def _see_to_pool(client: PrefectClient, name: str, container: Container | None) -> None:
    """Make the work pool where there is none. Raises UsageError where there is one whose workers start something else."""
    wanted = ProcessWorker.type if container is None else "docker"
    try:
        found = await client.read_work_pool(name)
    except ObjectNotFound:
        template = ProcessWorker.get_default_base_job_template()
        if container is not None:  # of the server: prefect-docker is where its worker is
            known = await client.read_worker_metadata()
            template = known["prefect-docker"]["docker"]["default_base_job_configuration"]
        try:
            found = await client.create_work_pool(WorkPoolCreate(name=name, type=wanted, base_job_template=template))
        except ObjectAlreadyExists:  # a worker that has just begun made it
            found = await client.read_work_pool(name)
    if found.type == wanted:
        return
    hint = "Name another with --pool; it is made where there is none."
    if found.type == "docker":
        hint = "Say of which image its worker starts containers: --image ghcr.io/OWNER/IMAGE:TAG, or name another pool with --pool."
    raise UsageError(
        f"The work pool {name} is of type {found.type}, and this would be a deployment for one of type {wanted}.",
        hint=hint,
    )


async def _upsert(
    client: PrefectClient, flow: Any, name: str, pool: str, folder: Path, parameters: dict[str, Any],
    container: Container | None, stage: str | None,
) -> tuple[str, bool]:  # fmt: skip
    there = {"prefect.deployments.steps.set_working_directory": {"directory": str(folder)}}
    values: dict[str, Any] = {
        "entrypoint": f"{flow.fn.__module__}.{flow.fn.__name__}",
        "work_pool_name": pool,
        "job_variables": ({"working_dir": str(folder)} if container is None else container.variables())
        | ({"env": {"ENV": stage}} if stage is not None else {}),
        "pull_steps": [] if container is None else [there],
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
