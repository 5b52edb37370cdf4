"""Make: bring documents up to date, take them out, look whether they are what they were, sweep what nobody needs."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import click

from assetcore.cli.call import COUNT, MAKING, RATE, READING, Call, selection_argument, verb
from assetcore.cli.names import complete_asset
from assetcore.errors import UsageError

FAILED = 1
LEFT = 2
INTERRUPTED = 130
RUNNERS = ("threads", "processes", "dask", "ray")


@verb()
@selection_argument(documents=True)
@click.option("--force", is_flag=True, help="Make everything that is selected, stale or not.")
@click.option("--upstream", is_flag=True, help="Also make what the selected assets are made of, where it is stale.")
@click.option("--rehash", is_flag=True, help="Read every source file again, even if its time and size are the same.")
@click.option("--verify", is_flag=True, help="Read what is stored first, and make again what is lost or damaged.")
@click.option("--replay", is_flag=True, help="With --force: take what models answered to the same questions before.")
@click.option(
    "--max-cost", metavar="LIMIT", help="Stop before the unit that would exceed it: 5usd, 100000tokens, 30min."
)
@click.option("--local", is_flag=True, help="Without Prefect: nothing is shown there, and its server need not run.")
@click.option(
    "--runner", type=click.Choice(RUNNERS), help="Where sync functions are called; by default as in the settings."
)
async def materialize(
    call: Call,
    select: str | None,
    force: bool,
    upstream: bool,
    rehash: bool,
    verify: bool,
    replay: bool,
    max_cost: str | None,
    local: bool,
    runner: str | None,
) -> None:
    """Make what is stale, and only that. Ctrl-C stops it; the next run continues with what is missing."""
    from assetcore.cli import end_in_time, return_memory, show
    from assetcore.cli.progress import reporting
    from assetcore.costs import parse_limit

    if replay and not force:
        raise UsageError("--replay says how --force is to ask, and there is none.", hint="Give both, or none.")
    if max_cost is not None:
        try:
            parse_limit(max_cost)
        except UsageError as error:
            raise UsageError(f"--max-cost: {error.message}", hint=error.hint) from None
    return_memory()
    try:
        async with call.opened(MAKING, ahead=() if local else {"prefect"}, anew=True, runner=runner) as session:
            with reporting(sys.stderr) as report:
                result = await session.materialize(
                    select,
                    force=force,
                    upstream=upstream,
                    rehash=rehash,
                    verify=verify,
                    replay=replay,
                    max_cost=max_cost,
                    local=local,
                    on_event=report,
                )
    except asyncio.CancelledError:
        call.say("Stopped. What was made is kept: the next run continues with what is missing.")
        raise
    call.answer(result.to_json(), show.outcome)
    code = {"failed": FAILED, "stopped": LEFT, "cancelled": INTERRUPTED}.get(result.status, 0)
    end_in_time(code)
    raise click.exceptions.Exit(code)


@verb()
@click.argument("asset", shell_complete=complete_asset)
@click.option("--sample", type=COUNT, metavar="N", help="Try this code on N units: all must come out the same.")
@click.option("--unverified", is_flag=True, help="Without trying; it needs a reason, which is told for ever.")
@click.option("--why", metavar="TEXT", help="The reason.")
async def accept(call: Call, asset: str, sample: int | None, unverified: bool, why: str | None) -> None:
    """Have what earlier code of an asset made count as made by its present code, so that it need not be made again.

    \b
    aipctl accept chunks --sample 20
    aipctl accept chunks --unverified --why "only logging was added"
    """
    from assetcore.cli import show
    from assetcore.cli.progress import reporting

    async with call.opened(MAKING) as session:
        with reporting(sys.stderr) as report:
            accepted = await session.accept(asset, sample, unverified=unverified, why=why, on_event=report)
    call.answer(accepted.to_json(), show.accepted)
    if not accepted.acceptances:
        raise click.exceptions.Exit(FAILED)


def _folder(context: click.Context, parameter: click.Parameter, name: str) -> Path:
    if not name and not context.resilient_parsing:  # a variable of the shell that is not set
        raise UsageError("The name of the folder is empty.", hint="For this folder, write a dot: .")
    return Path(name)


@verb()
@selection_argument(required=True, documents=True)
@click.argument("directory", type=click.Path(file_okay=False), callback=_folder)
@click.option(
    "--provenance", is_flag=True, help="Add an in-toto statement: hashes, code, sources (provenance.intoto.json)."
)
async def export(call: Call, select: str, directory: Path, provenance: bool) -> None:
    """Write the selected documents into DIRECTORY, each asset in a folder, under names that are safe for files."""
    from assetcore.cli import show

    async with call.opened() as session:
        call.answer((await session.export(select, directory, provenance=provenance)).to_json(), show.exported)


@verb()
@selection_argument(documents=True)
@click.option("--rate", type=RATE, metavar="MB", help="Read at most so many MB a second.")
@click.option("--again", is_flag=True, help="Read all, also what an interrupted verification has read.")
@click.option("--rerun", type=COUNT, metavar="N", help="Also make N units once more: do they come out the same?")
async def verify(call: Call, select: str | None, rate: float | None, again: bool, rerun: int | None) -> None:
    """Read and hash what is stored. Ends with 1 where something is lost or damaged; materialize makes that again.

    One that was interrupted is gone on with. --rerun calls functions, which costs what it costs, and keeps nothing of what they
    make. Example: aipctl verify chunks+ --rate 50
    """
    from assetcore.cli import show
    from assetcore.cli.progress import reporting

    async with call.opened(MAKING if rerun else READING) as session:
        with reporting(sys.stderr) as report:
            bytes_a_second = rate * 1e6 if rate else None
            found = await session.verify(select, rate=bytes_a_second, again=again, on_event=report)
            again_made = await session.rerun(rerun, select, on_event=report) if rerun and not found.findings else []
        answer = {
            "project": session.name, "environment": session.environment, **found.to_json(),
            "rerun": [one.to_json() for one in again_made],
        }  # fmt: skip
    call.answer(answer, show.verified)
    raise click.exceptions.Exit(FAILED if answer["damaged"] or any(one["error"] for one in answer["rerun"]) else 0)


@verb()
@click.option("--yes", is_flag=True, help="Remove them; without it, only say what would be removed.")
@click.option(
    "--keep", metavar="TIME", help="Keep history for so long (36h, 30d, 8w); by default as the setting retention says."
)
async def gc(call: Call, yes: bool, keep: str | None) -> None:
    """Remove what nobody needs: what a crash has left, assets that are no longer declared, history that is not kept.

    Packs of which less than half is still needed are put together anew. Example: aipctl gc --keep 30d --yes
    """
    from assetcore.cli import show
    from assetcore.settings import period

    try:
        kept = period(keep)
    except ValueError as error:
        raise UsageError(f"--keep {keep}: {error}.", hint="Write, for example, 36h, 30d or 8w.") from None
    async with call.opened(MAKING) as session:
        call.answer(
            (await session.gc(dry_run=not yes, keep=kept, on_event=lambda event: call.say(event.text))).to_json(),
            show.garbage,
        )
