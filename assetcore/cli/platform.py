"""Platform: do the services run, with which schema and which settings, and who runs a project without us?"""

from __future__ import annotations

import os
import re
import sys
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from assetcore.cli.call import Call, verb
from assetcore.errors import ProjectError, ServiceError, UsageError

if TYPE_CHECKING:
    from assetcore.settings import Settings
    from assetcore.stack import ServiceStatus

UNREACHABLE = 69
COMPOSED = ("docker-compose.yml", "Dockerfile", "litellm.yaml", "local_models.py", "gateway.lock")
"""What of stack/ the containers of the services are made of."""


@verb(project=False)
@click.option(
    "--compose", is_flag=True, help="The services are those of stack/docker-compose.yml, and are not started here."
)
async def init(call: Call, compose: bool) -> None:
    """Make a folder ready: write .env from the template, start the services, give Prefect's own commands a profile.

    \b
    What is there already stays as it is: a second time changes nothing.
    A folder without projects gets an empty one for them, projects/.
    Example: aipctl init && aipctl new project notes && aipctl materialize
    """
    from assetcore import loading, stack
    from assetcore.cli import show
    from assetcore.settings import Settings

    root, empty = call.root_given or Path.cwd(), True
    with suppress(ProjectError):  # the folder may be empty yet
        root, empty = call.root(), False
    file = root / ".env"
    if written := not file.exists():
        write_env(file, compose=compose)
    settings = Settings.load(root)
    if empty:  # every other verb finds the root by it, also the one that stops the services
        (root / "projects").mkdir()
        written = True
    statuses, profile, command = [], None, None
    if compose:
        placed, command = place_compose(root)
        written = written or placed
    else:
        addresses = await stack.up(settings, on_progress=call.say)
        settings = addresses.applied_to(settings)
        statuses = [asdict(status) for status in await stack.check(settings)]
        from assetcore import blocks  # Prefect takes a second to import

        profile, changed = blocks.profile(addresses.prefect_api_url, root.resolve())
        written = written or changed
    answer = {
        "root": str(root), "env": str(file), "changed": written, "profile": profile, "services": statuses,
        "projects": loading.project_names(root), "compose": command,
    }  # fmt: skip
    call.answer(answer, show.initialised)


@verb(project=False)
@click.option("--s3", is_flag=True, help="The store is an S3 server, not a folder; so it is from then on.")
async def up(call: Call, s3: bool) -> None:
    """Start the services that the settings give no address for, and wait until they answer."""
    from assetcore import stack

    settings = call.settings()
    if s3:
        if settings.was_given("storage_url"):
            raise UsageError(
                f"--s3 starts a store, and the settings have one already: storage_url is {settings.storage_url}.",
                hint="Leave out one of the two.",
            )
        settings = settings.using("--s3", s3=True)
    await stack.preload(settings)  # it imports while the servers start
    addresses = await stack.up(settings, on_progress=call.say)
    await stack.preload(settings, wait=True)
    await _tell_how_they_are(call, addresses.applied_to(settings))


@verb(project=False)
async def check(call: Call) -> None:
    """Ask every service how it is: address, version and latency, or what is wrong and how to mend it; the database also for its schema.

    Below it stand the settings that somebody gave, with who that was; aipctl config show has the defaults, too.
    """
    settings = call.settings()
    await _tell_how_they_are(call, settings, schema=True, settings=_origins(settings))


FORCE = click.option("--force", is_flag=True, help="Also while a run is at work, which fails then.")


@verb(project=False)
@FORCE
async def down(call: Call, force: bool) -> None:
    """Stop the services that were started; their data stays."""
    from assetcore import stack

    stopped: list[str] = []
    settings = call.settings()
    if not force:
        await _leave_runs_alone(settings, "aipctl down --force")
    await stack.down(settings, stopped.append)
    call.answer(
        {"stopped": [line.removesuffix(" stopped") for line in stopped]},
        lambda _: "\n".join(stopped) or "Nothing was running.",
    )


@verb()
@click.option("--name", metavar="NAME", help="The deployment's name; by default the project's.")
@click.option("--pool", default="assetcore", show_default=True, help="The work pool; made where there is none.")
@click.option("--folder", type=click.Path(path_type=Path), metavar="DIR",
              help="Where workers find the folder that holds projects/; by default where it is here, in an image /srv.")  # fmt: skip
@click.option("--image", metavar="IMAGE", help="The pool is of type docker: each run is a container of this image.")
@click.option("--network", "networks", multiple=True, metavar="NAME",
              help="A Docker network of these containers, for instance that of stack/docker-compose.yml: assetcore.")  # fmt: skip
async def deploy(
    call: Call, name: str | None, pool: str, folder: Path | None, image: str | None, networks: tuple[str, ...]
) -> None:
    """Register the project with Prefect, so that the workers of a work pool run it.

    It is a deployment of the flow `materialize`, with the parameters project, select, environment, force, upstream, config and
    runner. What assets declare with schedule=, after= and on= becomes schedules and automations of it. Registering it again brings
    it up to date; schedules that were set in Prefect stay.

    Example: aipctl deploy --pool docker --image ghcr.io/OWNER/assetcore:v1.2.3 --network assetcore
    """
    from assetcore import loading, stack
    from assetcore.lineage import schema

    if networks and image is None:
        raise UsageError("--network is of containers, and there are none without --image.", hint="Give both, or none.")
    settings = call.settings()
    project = call.project(settings.root)
    graph = loading.load(settings.root, project, settings.require)  # what cannot be loaded is not deployed
    if settings.database_url is not None:  # nor is what would find another schema, or would be refused for its stage
        await schema.check_writable(settings.database_url, settings.stage)
    addresses = await stack.up(settings, ("prefect",), call.say)
    from assetcore.cli import show
    from assetcore.deploy import IMAGE_FOLDER, Container, register, triggers_of  # Prefect takes a second to import

    parameters = {"project": project, "environment": settings.environment, "config": list(call.config)}
    deployed = await register(
        addresses.prefect_api_url,
        name=name or project.rpartition(".")[2],
        pool=pool,
        folder=folder or (settings.root if image is None else IMAGE_FOLDER),
        parameters=parameters,
        triggers=triggers_of(graph),
        container=Container(image, networks) if image is not None else None,
        stage=settings.stage if settings.was_given("stage") else None,
    )
    call.answer(deployed.to_json(), show.deployment)


@verb(project=False)
@click.option("--yes", is_flag=True, help="Do not ask.")
@FORCE
async def clean(call: Call, yes: bool, force: bool) -> None:
    """Stop the services and remove all their data: documents, lineage, runs."""
    from assetcore import stack

    settings = call.settings()
    if not force:
        await _leave_runs_alone(settings, "aipctl clean --force")
    if settings.home.exists() and not yes:
        question = f"Remove {settings.home} with everything that was made?"
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            raise UsageError(
                f"clean removes {settings.home} with everything that was made.", hint="If so: aipctl clean --yes"
            )
        click.confirm(question, abort=True, err=True)
    existed = settings.home.exists()
    await stack.clean(settings, call.say)
    call.answer(
        {"removed": str(settings.home) if existed else None},
        lambda answer: f"{answer['removed']} removed." if existed else "There is nothing to remove.",
    )


async def _leave_runs_alone(settings: Settings, nevertheless: str) -> None:
    """Refuse what stops the services while a run uses them. Raises UsageError."""
    from assetcore import stack
    from assetcore.loading import project_names

    names: list[str] = []
    with suppress(ProjectError):  # services can be stopped whatever is wrong with projects
        names = [name.rpartition(".")[2] for name in project_names(settings.root)]
    try:
        runs = await stack.at_work(settings, names)
    except ServiceError as error:
        raise ServiceError(error.message, hint=f"If none is: {nevertheless}") from error
    if runs:
        raise UsageError(
            f"A run is at work: {', '.join(runs)}. Without the services it would fail.",
            hint=f"Wait for it, or stop it with Ctrl-C (one that was killed counts for half a minute). Nevertheless: {nevertheless}",
        )


@click.group()
def blocks() -> None:
    """Tell Prefect what workers need: the store, secrets, variables."""


@verb(project=False, group=blocks, name="init")
async def blocks_init(call: Call) -> None:
    """Write the store's block, a Secret block for each secret, and the settings and projects/*/config/*.yaml as variables.

    Settings that are given here become variables assetcore_NAME, which win over .env wherever PREFECT_API_URL is set. A file above
    5,000 characters becomes a document in the store, and its variable points there. A second time changes nothing.
    """
    from assetcore import stack
    from assetcore.blocks import keep  # Prefect takes a second to import
    from assetcore.cli import show
    from assetcore.settings import Settings

    settings = Settings.load(call.root(), published=False)
    addresses = await stack.up(settings, ("prefect", "store"), call.say)
    kept = await keep(addresses.prefect_api_url, addresses.applied_to(settings))
    call.answer({"prefect_api_url": addresses.prefect_api_url, "kept": [one.to_json() for one in kept]}, show.kept)


@click.group()
def db() -> None:
    """Look after the database's schema."""


@verb(project=False, group=db)
@click.option("--take", is_flag=True, help="Also of a database that belongs to another stage: it is this one's then.")
async def upgrade(call: Call, take: bool) -> None:
    """Bring the database's schema to the one that this version works with.

    With ENV=prod, or another stage that is not local, the database belongs to that from then on: installations of another
    stage write nothing to it.

    Example: ENV=prod aipctl db upgrade
    """
    from assetcore import stack
    from assetcore.lineage import schema

    settings = call.settings()
    addresses = await stack.up(settings, ("postgres",), call.say)
    embedded = settings.database_url is None
    before, after = await schema.upgrade(addresses.database_url, settings.stage, take=take, embedded=embedded)
    answer = {"before": before.revision, "after": after.revision, "stage": after.stage}
    told = (
        f"The schema is at {after.revision} already."
        if before.revision == after.revision
        else f"The schema is at {after.revision} now; it was {before.revision or 'empty'}."
    )
    belongs = f" The database belongs to {after.stage}." if after.stage else ""
    call.answer(answer, lambda _: told + belongs)


@click.group()
def config() -> None:
    """Show the settings, and where each came from."""


@verb(project=False, group=config, name="show")
def config_show(call: Call) -> None:
    """Show every setting, its value with passwords masked, and where it came from."""
    from assetcore.cli import show

    call.answer({"settings": _origins(call.settings())}, show.settings)


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script for a shell.

    \b
    bash   eval "$(aipctl completion bash)"             in ~/.bashrc
    zsh    eval "$(aipctl completion zsh)"              in ~/.zshrc
    fish   aipctl completion fish > ~/.config/fish/completions/aipctl.fish
    """
    from click.shell_completion import get_completion_class

    from assetcore.cli import main

    kind = get_completion_class(shell)
    if kind is None:
        raise UsageError(f"There is no completion for {shell}.")
    click.echo(kind(main, {}, "aipctl", "_AIPCTL_COMPLETE").source())


def write_env(file: Path, *, compose: bool) -> None:
    """Write .env from the template, for its owner alone, with passwords of its own.

    Without containers, no service has an address: `aipctl up` starts them.
    """
    import secrets

    from assetcore.stack.packages import bootstrap

    text = (bootstrap() / "stack" / "env.template").read_text("utf-8")
    text = re.sub(r"^(\w+)=$", lambda found: f"{found[1]}={secrets.token_hex(24)}", text, flags=re.MULTILINE)
    if not compose:
        text = re.sub(
            r"^((?:DATABASE_URL|REDIS_URL|PREFECT_API_URL|OPENAI_\w+|ASSETCORE_STORAGE_\w+)=)",
            r"# \1",
            text,
            flags=re.MULTILINE,
        )
    with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as out:
        out.write(text)


def place_compose(root: Path) -> tuple[bool, str]:
    """See to it that stack/docker-compose.yml is there with all that the services need: whether it was not, and how they are started.

    A clone has it. Elsewhere it is a copy, without the sources that the image of a worker is built of: that service is left out.
    """
    import yaml

    from assetcore.stack.packages import bootstrap

    ours, folder, command = (
        bootstrap(),
        root / "stack",
        "docker compose --env-file .env -f stack/docker-compose.yml up --detach",
    )
    if root.resolve() == ours.resolve():
        return False, command
    missing = [name for name in COMPOSED if not (folder / name).exists()]
    folder.mkdir(exist_ok=True)
    for name in missing:
        (folder / name).write_bytes((ours / "stack" / name).read_bytes())
    services = yaml.safe_load((folder / "docker-compose.yml").read_text("utf-8"))["services"]
    return bool(missing), " ".join([command, *(name for name in services if name != "worker")])


def _origins(settings: Settings) -> list[dict[str, Any]]:
    from assetcore import stack

    rows = stack.chosen(settings).origins()
    return [{"name": name, "value": value, "origin": origin} for name, value, origin in rows]


async def _with_schema(settings: Settings, status: ServiceStatus) -> ServiceStatus:
    """A database that answers is not well where every verb is refused for its schema."""
    from assetcore import stack
    from assetcore.lineage import schema

    if status.name != "postgres" or not status.ok:
        return status
    try:
        addresses = await stack.up(settings, ("postgres",))  # it runs: this asks where
        await schema.current(addresses.database_url, automatic=settings.database_url is None)
    except ServiceError as error:
        return replace(status, ok=False, problem=error.message.rstrip("."), remedy=error.hint or "")
    return status


async def _tell_how_they_are(call: Call, asked: Settings, *, schema: bool = False, **more: Any) -> None:
    from assetcore import stack
    from assetcore.cli import show

    statuses = await stack.check(asked)
    if schema:
        statuses = [await _with_schema(asked, status) for status in statuses]
    call.answer({"services": [asdict(status) for status in statuses], **more}, show.checked if more else show.services)
    if not all(status.ok for status in statuses):
        raise click.exceptions.Exit(UNREACHABLE)
