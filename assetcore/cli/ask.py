"""Ask: what is there, what is stale and why, where did it come from, what ran?"""

from __future__ import annotations

import base64
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from assetcore.cli.call import COUNT, MAKING, READING, Call, reference_argument, selection_argument, verb
from assetcore.cli.names import complete_supposition, names_in, remember
from assetcore.cli.plain import plain
from assetcore.errors import NothingSelectedError, UsageError

if TYPE_CHECKING:
    from assetcore.graph import Graph

STALE = 2
PLAN_FORMATS = click.Choice(["table", "markdown"])
FORMATS = click.Choice(["tree", "dot", "mermaid", "graphml", "json"])
TRACES = click.Choice(["tree", "dot", "mermaid", "graphml", "json", "openlineage"])
TABULAR = "application/vnd.apache.parquet"


at_option = click.option("--at", metavar="TIME", help="As of: 2026-11-20T14:30, '2 hours ago', yesterday, or a run.")


@verb()
@selection_argument()
@click.option("--declared", is_flag=True, help="Only what is declared: needs no services.")
@click.option("--cost", is_flag=True, help="Also what making them has taken, in all runs and environments.")
@at_option
async def ls(call: Call, select: str | None, declared: bool, cost: bool, at: str | None) -> None:
    """List assets: counts, when they were made, what is stale; with --at as they were.

    Where SELECT names units, the assets are listed that have them, each as a whole.

    \b
    aipctl ls 'tag:report'
    aipctl ls --at '2 hours ago'
    """
    from assetcore.cli import show

    if declared and (cost or at is not None):
        given = "--cost" if cost else "--at"
        raise UsageError(
            f"{given} is of what was made, and --declared asks for nothing of that.", hint="Give one of them."
        )
    if declared:
        graph, chosen = _declared(call, select)
        rows = [_facts(graph, name) for name in chosen]
        call.answer({"project": graph.project, "environment": None, "assets": rows}, show.assets)
        return
    async with call.opened() as session:
        rows = [info.to_json() for info in await session.ls(select, at=at)]
        if cost:
            taken = await session.costs()
            rows = [row | {"cost": taken.get(row["asset"])} for row in rows]
        call.answer({"project": session.name, "environment": session.environment, "assets": rows}, show.assets)


@verb(environment=False, config=False)
@selection_argument()
@click.option("--format", "form", type=FORMATS, default="tree", show_default=True, help="How to draw it.")
def graph(call: Call, select: str | None, form: str) -> None:
    """Draw who is made out of whom. Needs no services."""
    from assetcore.cli import show

    graph, chosen = _declared(call, select)
    edges = [[up, name] for name in chosen for up in graph.upstream(name) if up in chosen]
    nodes = [_facts(graph, name) for name in chosen]
    _draw(call, {"project": graph.project, "nodes": nodes, "edges": edges}, form, show.graph)


@verb()
@selection_argument(documents=True)
@click.option("--units", is_flag=True, help="List the units.")
@click.option("--why", is_flag=True, help="What is at the root of it, by cause, the largest first.")
@click.option("--force", is_flag=True, help="As `materialize --force` would: everything that is selected.")
@click.option("--rehash", is_flag=True, help="Read every source file again, even if its time and size are the same.")
@click.option("--verify", is_flag=True, help="Read what is stored first: what is lost or damaged is stale.")
@click.option("--if", "supposing", multiple=True, metavar="WHAT", shell_complete=complete_supposition,
              help="As if: 'remove topics[with]', 'change chunks'.")  # fmt: skip
@click.option("--exit-code", is_flag=True, help="End with 2 when something is stale, with 0 when nothing is.")
@click.option(
    "--sample",
    type=COUNT,
    metavar="N",
    help="Try this code on N stale units of each asset; keep nothing.",
)
@click.option(
    "--format", "form", type=PLAN_FORMATS, default="table", show_default=True, help="For people, or for a comment."
)
async def plan(
    call: Call,
    select: str | None,
    units: bool,
    why: bool,
    force: bool,
    rehash: bool,
    verify: bool,
    supposing: tuple[str, ...],
    exit_code: bool,
    sample: int | None,
    form: str,
) -> None:
    """Show what is stale, and why; with --if what would be stale, if a document of a source or the code of an asset were changed.

    \b
    aipctl plan '+coverage' --why
    aipctl plan --if 'remove topics[with]' --if 'change chunks'
    aipctl plan chunks --sample 20              what this code makes of 20 units
    aipctl plan --env prod --format markdown    what this branch would change
    """
    from assetcore.cli import markdown, show
    from assetcore.cli.progress import reporting

    if sample and (force or supposing):
        raise UsageError(
            f"--sample tries units that are stale, not what would be with {'--force' if force else '--if'}.",
            hint="Leave one of them out; fresh units are made once more by: aipctl verify --rerun N",
        )
    why = why or form == "markdown"
    async with call.opened(MAKING if sample else READING) as session:
        if verify:
            with reporting(sys.stderr) as report:
                await session.verify_above(select, on_event=report)
        options = {"force": force, "rehash": rehash, "supposing": supposing}
        planned, roots = await session.roots(select, **options) if why else (await session.plan(select, **options), ())
        tried = []
        if sample:
            with reporting(sys.stderr) as report:
                tried = [trial.to_json() for trial in await session.sample(select, sample, on_event=report)]
    answer: dict[str, Any] = planned.to_json(units=units)
    if supposing:
        answer["if"] = list(supposing)
    if why:
        answer["why"] = [group.to_json() for group in roots]
    if sample:
        answer["sample"] = tried
    call.answer(answer, markdown.plan if form == "markdown" else lambda answer: show.plan(answer, select, units=units))
    if exit_code and not answer["up_to_date"]:
        raise click.exceptions.Exit(STALE)


@verb()
@reference_argument()
async def why(call: Call, ref: str) -> None:
    """Explain why a unit is stale, down to the document, config value or line of code that changed.

    REF is asset[unit]. An asset will do where it has one unit, or all of it is fresh.
    """
    from assetcore.cli import show

    async with call.opened() as session:
        call.answer((await session.why(ref)).to_json(), show.why)


@verb()
@reference_argument()
@click.option("--up/--down", default=True, help="Where it came from (default), or what came of it.")
@click.option("--depth", type=COUNT, metavar="N", help="At most N steps away.")
@at_option
@click.option("--spans", is_flag=True, help="Which part of which document each is, where `part_of` said so.")
@click.option("--format", "form", type=TRACES, default="tree", show_default=True, help="How to draw it.")
async def lineage(call: Call, ref: str, up: bool, depth: int | None, at: str | None, spans: bool, form: str) -> None:
    """Trace where a document came from, or what came of it; with --at what it was made of then.

    REF is asset, asset[unit], asset[unit]/document, the beginning of a document's id, or that of a run: all that it made.

    \b
    aipctl lineage 'chunks[with]/with-0'
    aipctl lineage 'topics[with]' --down --format mermaid
    """
    from assetcore.cli import show

    async with call.opened() as session:
        traced = await session.lineage(ref, direction="up" if up else "down", depth=depth, at=at, spans=spans)
        namespace = f"assetcore://{session.name}/{session.environment}"
    if form == "openlineage":
        events = show.openlineage(traced.to_json(), namespace, datetime.now(UTC))
        call.objects(*([{"events": events}] if call.json else events))
        return
    _draw(call, traced.to_json(), form, show.lineage)


@verb()
@reference_argument()
@click.option("--limit", type=COUNT, default=20, show_default=True, help="At most so many changes.")
async def history(call: Call, ref: str, limit: int) -> None:
    """Show what was done to an asset, a unit or a document: when, by which run, for whom, and why; the latest first.

    \b
    aipctl history chunks
    aipctl history 'chunks[with]/with-0'

    Of an asset: how many units each run made, and how many were planned for each cause. What it made, and of what:
    aipctl lineage RUN --depth 1.
    """
    from assetcore.cli import show

    async with call.opened() as session:
        call.answer((await session.history(ref, limit=limit)).to_json(), show.history)


@verb()
@reference_argument()
@at_option
@click.option("--context", is_flag=True, help="Show the place in its source, with some lines around it.")
async def show(call: Call, ref: str, at: str | None, context: bool) -> None:
    """Print a document as it is, or was, or list those of a unit or an asset; with --context where it was cut from.

    REF is asset, asset[unit], asset[unit]/document, or the beginning of a document's id.

    \b
    aipctl show 'chunks[with]/with-0'
    aipctl show 'chunks[with]@yesterday'
    aipctl show 'vectors[with-0]' --context
    """
    from assetcore.cli import show

    async with call.opened() as session:
        if context:
            call.answer((await session.context(ref, at=at)).to_json(), show.context)
            return
        found = await session.show(ref, at=at)
    if call.json:
        documents = [document.to_json() | _content(document.content, document.media_type) for document in found]
        call.answer({"ref": ref, "documents": documents}, show.documents)
    elif len(found) != 1:
        call.answer({"ref": ref, "documents": [document.to_json() for document in found]}, show.documents)
    elif not call.out.isatty():
        call.binary(found[0].content)
    else:
        _print_to_terminal(call, found[0].name, found[0].content, found[0].media_type)


@verb()
@reference_argument("one")
@reference_argument("other", required=False)
async def diff(call: Call, one: str, other: str | None) -> None:
    """Compare two documents; or a document, a unit or an asset at two times, by default with what it is now.

    \b
    aipctl diff 'chunks[with]/with-0' 'chunks[with]/with-1'
    aipctl diff 'chunks@2 hours ago'
    aipctl diff chunks@2026-11-20 chunks@21c810ffe5
    """
    from assetcore.cli import show

    async with call.opened() as session:
        call.answer((await session.diff(one, other)).to_json(), show.comparison)


@verb()
@click.argument("words", nargs=-1, required=True, metavar="TEXT")
@click.option("--limit", type=COUNT, default=10, show_default=True, help="At most so many.")
@click.option(
    "--filter",
    "filters",
    multiple=True,
    metavar="FIELD=VALUE",
    help="Only what has this value, which is read as the field is annotated; of one field several: any.",
)
async def search(call: Call, words: tuple[str, ...], limit: int, filters: tuple[str, ...]) -> None:
    """Find documents by words and by meaning, the best first. The project declares what is searched: SearchIndex, Embedding.

    \b
    aipctl search "how does a context manager exit"
    aipctl search slice --filter asset=clean --limit 3
    """
    from assetcore.cli import show

    if not (text := " ".join(words)).strip():
        raise UsageError("The text to search for is empty.", hint='aipctl search "context manager"')
    wanted = _filters(filters)
    async with call.opened() as session:
        hits = [asdict(hit) for hit in await session.search(text, limit=limit, filters=wanted)]
    call.answer({"text": text, "hits": hits}, show.found)


@verb(config=False)
@click.argument("run", required=False)
@click.option("--limit", type=COUNT, default=20, show_default=True, help="At most so many.")
async def runs(call: Call, run: str | None, limit: int) -> None:
    """List what ran, in all environments or with --env in one, the latest first; or show one RUN."""
    from assetcore.cli import show

    async with call.opened() as session:
        here = call.environment is not None
        found = [info.to_json() for info in await session.runs(run, limit=limit, here=here)]
    if run is None:
        call.answer({"project": session.name, "runs": found}, show.runs)
        return
    if here and found[0]["environment"] != call.environment:
        raise NothingSelectedError(
            f"The run {found[0]['run']} was in {found[0]['environment']}, not in {call.environment}.",
            hint=f"Look at it: aipctl runs {found[0]['run']}",
        )
    call.answer(found[0], show.run)


@verb(environment=False, config=False)
@click.argument("run")
async def trace(call: Call, run: str) -> None:
    """Show where the time of a RUN went, and its cost: assets, batches, units above a second, calls of models.

    RUN is the beginning of a run's identifier. Example: aipctl trace 21c8
    """
    from assetcore.cli import show

    async with call.opened() as session:
        call.answer((await session.trace(run)).to_json(), show.trace)


def _declared(call: Call, select: str | None) -> tuple[Graph, tuple[str, ...]]:
    """The graph of the project, and what is selected of it by declarations alone."""
    from assetcore.grammar import parse
    from assetcore.loading import load
    from assetcore.selection import catalogue
    from assetcore.selection import select as selected

    settings = call.settings()
    name = call.project(settings.root)
    graph = load(settings.root, name, settings.require)
    remember(settings.home, name, names_in(graph))
    chosen = tuple(graph.assets) if select is None else selected(parse(select), catalogue(graph)).assets
    return graph, chosen


def _facts(graph: Graph, name: str) -> dict[str, Any]:
    from assetcore.partitions import shown_duration

    asset = graph.assets[name]
    freshness = asset.options.freshness
    return {
        "asset": name, "kind": asset.kind, "kinds": list(asset.kinds), "group": asset.group, "tags": list(asset.tags),
        "owner": asset.options.owner, "sensitivity": graph.sensitivity[name],
        "freshness": shown_duration(freshness) if freshness else None, "description": asset.description,
        "units": None, "documents": None, "stale": None, "failed": None, "made_at": None,
        "checks": [{"check": check.name, "scope": check.scope, "blocking": check.blocking} for check in graph.checks.get(name, ())],
    }  # fmt: skip


def _draw(call: Call, answer: dict[str, Any], form: str, tree: Any) -> None:
    """A graph in the form that was asked for."""
    from assetcore.cli import show

    if form == "json" or call.json:
        call.objects(answer)
    elif form == "tree":
        call.answer(answer, tree)
    else:
        call.text({"dot": show.dot, "mermaid": show.mermaid, "graphml": show.graphml}[form](answer))


def _content(content: bytes, media_type: str) -> dict[str, str]:
    """The content as JSON can hold it: text where it is text, base64 otherwise."""
    try:
        return {"text": content.decode()} if media_type != TABULAR else {"base64": base64.b64encode(content).decode()}
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(content).decode()}


def _print_to_terminal(call: Call, name: str, content: bytes, media_type: str) -> None:
    """A document for eyes: text with control characters made harmless, a table as its first rows."""
    if media_type == TABULAR:
        import io

        import polars as pl

        with pl.Config(tbl_rows=40, tbl_cols=-1, tbl_hide_dataframe_shape=False, fmt_str_lengths=60):
            call.text(f"{plain(str(pl.read_parquet(io.BytesIO(content))))}\n")
        return
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise UsageError(
            f"{name} is {media_type}, {len(content):,} bytes: nothing for a terminal.",
            hint=f"Write it to a file: aipctl show ... > {name.rpartition('/')[2]}",
        ) from None
    visible = plain(text)
    call.text(visible if visible.endswith("\n") else visible + "\n")


def _filters(given: tuple[str, ...]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for one in given:
        field, separator, value = one.partition("=")
        if not (separator and field):
            raise UsageError(f"--filter {one} is not FIELD=VALUE.", hint="aipctl search slice --filter asset=clean")
        found.setdefault(field, []).append(value)
    return found
