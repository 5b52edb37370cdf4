"""Views: the environments of a project, each a named view of what every asset currently is."""

from __future__ import annotations

import shlex
from typing import Any

import click

from assetcore.cli.call import MAKING, Call, verb
from assetcore.cli.names import complete_environment

DIFFERENT = 2


@click.group()
def env() -> None:
    """Create, compare, promote and drop environments: named views of what every asset currently is.

    \b
    aipctl env create pr-17 --from prod   everything as in prod, nothing copied
    aipctl materialize --env pr-17        makes what this code would change
    aipctl env diff pr-17 prod            by asset and document
    aipctl env promote pr-17 --to prod    prod becomes what pr-17 is
    aipctl env drop pr-17
    """


@verb(group=env, config=False)
async def ls(call: Call) -> None:
    """List the environments: what each was created from, and of how many assets it has its own version."""
    from assetcore.cli import show

    async with call.opened(naming=True) as session:
        call.answer({"project": session.name, "environments": await session.environments()}, show.environments)


@verb(group=env, config=False)
@click.argument("name")
@click.option(
    "--from",
    "source",
    metavar="NAME",
    shell_complete=complete_environment,
    help="Which one; by default that of the settings.",
)
async def create(call: Call, name: str, source: str | None) -> None:
    """Create an environment NAME in which everything is as in another. Nothing is copied.

    \b
    aipctl env create pr-17 --from prod
    """
    async with call.opened(naming=True) as session:
        answer = await session.create_environment(name, source)
    call.answer(
        answer,
        lambda a: (
            f"{name} is what {a['from']} is, in {a['assets']} assets. Make in it: aipctl materialize --env {shlex.quote(name)}"
        ),
    )


@verb(group=env, config=False)
@click.argument("name", shell_complete=complete_environment)
@click.argument("other", shell_complete=complete_environment)
@click.option("--exit-code", is_flag=True, help="End with 2 when they differ, with 0 when they do not.")
async def diff(call: Call, name: str, other: str, exit_code: bool) -> None:
    """Show what environment NAME has that OTHER has not, by asset and document.

    \b
    aipctl env diff pr-17 prod
    """
    from assetcore.cli import show

    async with call.opened(naming=True) as session:
        answer = (await session.compare_environments(name, other)).to_json()
    call.answer(answer, show.environment_diff)
    if exit_code and not answer["same"]:
        raise click.exceptions.Exit(DIFFERENT)


@verb(group=env)
@click.argument("name", shell_complete=complete_environment)
@click.option(
    "--to",
    "to",
    required=True,
    metavar="NAME",
    shell_complete=complete_environment,
    help="The environment that becomes what this one is.",
)
@click.option("--rebase", is_flag=True, help="First take over what the other has become since this one was created.")
async def promote(call: Call, name: str, to: str, rebase: bool) -> None:
    """Make another environment what NAME is, in one transaction; no unit is made and nothing is copied.

    Refused where a blocking check has not passed in NAME, and where the other has moved on since NAME was created from it.

    \b
    aipctl env promote pr-17 --to prod
    """
    from assetcore.cli import show

    async with call.opened(MAKING, naming=True) as session:
        promoted = await session.promote(name, to, rebase=rebase, on_event=lambda event: call.say(event.text))
    call.answer(promoted.to_json(), show.promoted)


@verb(group=env, config=False)
@click.argument("name", shell_complete=complete_environment)
async def drop(call: Call, name: str) -> None:
    """Drop an environment. What was made in it stays, and is reused where it is wanted again."""
    async with call.opened(MAKING, naming=True) as session:
        answer: dict[str, Any] = await session.drop_environment(name, on_event=lambda event: call.say(event.text))
    call.answer(answer, lambda a: f"{a['environment']} is dropped.")
