"""Trust: what was done, does the bucket say the same as the database, and what must go?"""

from __future__ import annotations

import click
from click.core import ParameterSource

from assetcore.cli.call import COUNT, MAKING, Call, reference_argument, verb
from assetcore.cli.names import complete_journal
from assetcore.errors import UsageError


@verb(config=False)
@click.argument("ref", required=False, shell_complete=complete_journal)
@click.option(
    "--since", metavar="TIME", help="From then on: 2026-11-21T08:00, yesterday, '2 hours ago', or 3d, 12h, 30m (ago)."
)
@click.option("--limit", type=COUNT, default=50, show_default=True, help="At most so many, the newest.")
async def journal(call: Call, ref: str | None, since: str | None, limit: int) -> None:
    """Tell what was done, oldest first: with the whole project, or with the asset or unit that REF names; with --env in one environment.

    \b
    `aipctl journal verify` checks instead that every row follows from the one
    before, in the database and in the bucket, and ends with 1 if not.
    Example: aipctl journal 'topics[with]' --since 3d
    """
    from datetime import UTC, datetime

    from assetcore.cli import show
    from assetcore.journal import since_when

    moment = since_when(since, datetime.now(UTC)) if since is not None else None
    if ref == "verify":
        _refuse_part(call)
    async with call.opened() as session:
        if ref != "verify":
            lines = await session.journal(ref, since=moment, limit=limit, here=call.environment is not None)
            call.answer({"project": session.name, "journal": [line.to_json() for line in lines]}, show.journal)
            return
        checked = await session.check_journal()
        call.answer(checked.to_json(), show.journal_checked)
    if checked.problems:
        raise click.exceptions.Exit(1)


def _refuse_part(call: Call) -> None:
    """Raise UsageError where only a part of the journal is to be checked: of a chain, that says nothing."""
    context = click.get_current_context()
    given = [
        f"--{name}" for name in ("since", "limit") if context.get_parameter_source(name) is ParameterSource.COMMANDLINE
    ]
    if call.environment is not None:
        given.append("--env")
    if given:
        raise UsageError(
            f"journal verify checks the whole journal, and {' and '.join(given)} would choose of it.",
            hint="aipctl journal verify",
        )


@verb()
@reference_argument()
@click.option("--yes", is_flag=True, help="Erase it; without it, only say what would be erased.")
async def forget(call: Call, ref: str, yes: bool) -> None:
    """Erase a document of a source, with all that came of it, in every environment and in history.

    \b
    Remove it from the source first: otherwise the next run takes it in again.
    Example: aipctl forget 'letters[alice.txt]' --yes
    """
    from assetcore.cli import show

    async with call.opened(MAKING) as session:
        forgotten = await session.forget(ref, dry_run=not yes, on_event=lambda event: call.say(event.text))
        call.answer(forgotten.to_json(), show.forgotten)


@click.group()
def catalog() -> None:
    """Make the database again of the bucket, or compare the two."""


@verb(project=False, group=catalog)
@click.option("--replace", is_flag=True, help="Also where the database is not empty: what it holds is replaced.")
async def rebuild(call: Call, replace: bool) -> None:
    """Make all that an empty database holds of the manifests in the bucket, for every project in it.

    \b
    Example: after Postgres was lost, with the bucket kept
      aipctl catalog rebuild && aipctl plan
    """
    from assetcore import stack
    from assetcore.catalog import rebuild_catalog
    from assetcore.cli import show

    settings = call.settings()
    addresses = await stack.up(settings, ("postgres", "redis", "store"), call.say)
    connected, embedded = addresses.applied_to(settings), settings.database_url is None
    result = await rebuild_catalog(connected, replace=replace, automatic_schema=embedded, say=call.say)
    call.answer(result.to_json(), show.rebuilt)
    if not result.whole:
        raise click.exceptions.Exit(1)


@verb(project=False, group=catalog, name="verify")
async def catalog_verify(call: Call) -> None:
    """Compare what the database holds with what the manifests in the bucket tell. Ends with 1 where they differ."""
    from assetcore import stack
    from assetcore.catalog import verify_catalog
    from assetcore.cli import show

    settings = call.settings()
    addresses = await stack.up(settings, ("postgres", "store"), call.say)
    result = await verify_catalog(addresses.applied_to(settings), say=call.say)
    call.answer(result.to_json(), show.compared)
    if not result.same:
        raise click.exceptions.Exit(1)
