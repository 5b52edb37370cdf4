"""Vectors: which indexes of vectors are there, how well do they do, and which one answers?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from assetcore.cli.call import COUNT, Call, verb
from assetcore.cli.names import complete_index
from assetcore.errors import NothingSelectedError, UsageError

if TYPE_CHECKING:
    from assetcore.project import Project


@click.group()
def vectors() -> None:
    """Look after the indexes of vectors: they are made of the embedding documents in the store, and can be made again of them."""


def _numbers(context: click.Context, parameter: click.Parameter, text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(f"{parameter.opts[0]} {text} is not a list of numbers.", hint="Write: --m 16,32") from None


@verb(group=vectors, name="ls", config=False)
async def ls(call: Call) -> None:
    """List the generations of each index: model, dimensions, which one answers."""
    from assetcore import gaps
    from assetcore import vectors as room

    async with call.opened() as session:
        found = await room.generations(session.project)
        for name in room.embeddings(session.project):
            for note in await gaps.behind(session.project, name):
                call.say(note)
    rows = [
        {"asset": g.asset, "generation": g.id, "model": g.model, "active": g.active, "complete": g.completed is not None,
         "created": g.created.isoformat(), "dimensions": g.dimensions, "indexed": g.indexed, **g.parameters}
        for g in found
    ]  # fmt: skip
    answer = {"project": session.name, "generations": rows}
    call.answer(answer, lambda answer: _table(answer["generations"], "There is no index yet.", kept=6))


@verb(group=vectors, config=False)
@click.argument("asset", required=False, shell_complete=complete_index)
@click.option("--m", default="8,16,32", show_default=True, callback=_numbers, help="Neighbours of each vector.")
@click.option(
    "--ef-construction", default="80,200", show_default=True, callback=_numbers, help="Candidates when it is built."
)
@click.option(
    "--ef-search",
    default="20,40,100,200",
    show_default=True,
    callback=_numbers,
    help="Candidates when it is asked: 10 to 1000.",
)
@click.option("--questions", type=COUNT, default=100, show_default=True, help="How many are asked.")
async def trial(
    call: Call,
    asset: str | None,
    m: Sequence[int],
    ef_construction: Sequence[int],
    ef_search: Sequence[int],
    questions: int,
) -> None:
    """Try parameters of the HNSW index beside an exact search, and keep what was measured.

    \b
    aipctl vectors trial --m 16,32 --ef-construction 80,200 --ef-search 40,100
    """
    from assetcore import measures
    from assetcore import vectors as room

    async with call.opened() as session:
        name = _asset(session.project, asset)
        found = await measures.trial(session.project, name, m, ef_construction, ef_search, questions)
        chosen = await room.best(session.project, name)
    answer = {"asset": name, "trials": [one.to_json() for one in found], "best": chosen and chosen.to_json()}
    call.answer(answer, lambda given: _table([_short(one) for one in given["trials"]], "Nothing was tried."))


@verb(group=vectors, config=False)
@click.argument("generations", metavar="[GENERATION GENERATION]", type=COUNT, nargs=-1)
@click.option("--k", type=COUNT, default=10, show_default=True, help="Among so many rows the right one counts.")
@click.option("--questions", type=COUNT, default=100, show_default=True, help="How many are asked.")
async def compare(call: Call, generations: tuple[int, ...], k: int, questions: int) -> None:
    """Compare two generations of an index, by default the newest two: which model finds more, and how fast?

    Both are asked for the same documents, by a sentence out of each, and each by its own model: its alias must be there still.

    \b
    aipctl vectors compare 3 4 --k 5 --questions 200
    """
    from assetcore import measures

    if len(generations) not in (0, 2):
        raise UsageError("Name two generations, or none.", hint="See: aipctl vectors ls")
    async with call.opened() as session:
        two = (generations[0], generations[1]) if generations else None
        answer = (await measures.compare(session.project, two, k=k, questions=questions)).to_json()
    call.answer(answer, _compared)


@verb(group=vectors, config=False)
@click.argument("asset", required=False, shell_complete=complete_index)
@click.option(
    "--tokens", default="1000,2000,4000,8000,16000,32000", show_default=True, callback=_numbers, help="In one question."
)
@click.option(
    "--texts", type=COUNT, default=512, show_default=True, help="How many are embedded, three times for each."
)
async def sweep(call: Call, asset: str | None, tokens: Sequence[int], texts: int) -> None:
    """Measure in questions of how many tokens vectors are had soonest of the gateway, and keep it in the journal.

    The vectors are asked for, and cost what they cost.

    \b
    aipctl vectors sweep --tokens 4000,16000 --texts 512
    """
    from assetcore import measures

    async with call.opened() as session:
        found = (await measures.sweep(session.project, _asset(session.project, asset), tokens, texts)).to_json()
    call.answer(found, _swept)


@verb(group=vectors, config=False)
@click.argument("asset", required=False, shell_complete=complete_index)
async def best(call: Call, asset: str | None) -> None:
    """Say which parameters did best: the fastest with a recall@10 of at least 0.99. A new index is built with them."""
    from assetcore import vectors as room

    async with call.opened() as session:
        name = _asset(session.project, asset)
        chosen = await room.best(session.project, name)
    if chosen is None:
        raise NothingSelectedError(f"Nothing was tried for {name} yet.", hint="Try: aipctl vectors trial")
    call.answer({"asset": name, "best": chosen.to_json()}, lambda answer: _table([_short(answer["best"])], ""))


@verb(group=vectors, config=False)
@click.argument("asset", required=False, shell_complete=complete_index)
@click.option("--limit", type=COUNT, default=20, show_default=True, help="At most so many.")
async def trials(call: Call, asset: str | None, limit: int) -> None:
    """List the parameters that were tried, and how they did, the latest first."""
    from assetcore import vectors as room

    async with call.opened() as session:
        name = _asset(session.project, asset)
        found = await room.trials(session.project, name, limit)
    rows = [{"at": at.isoformat(), **one.to_json()} for at, one in found]
    empty = "Nothing was tried yet. Try: aipctl vectors trial"
    call.answer(
        {"asset": name, "trials": rows},
        lambda answer: _table([{"at": row["at"], **_short(row)} for row in answer["trials"]], empty, kept=6),
    )


@verb(group=vectors, config=False)
@click.argument("asset", required=False, shell_complete=complete_index)
async def rebuild(call: Call, asset: str | None) -> None:
    """Make an index again of the documents in the store. No model is asked."""
    from assetcore import vectors as room

    async with call.opened() as session:
        name = _asset(session.project, asset)
        one = await room.rebuild(session.project, name)
    if one is None:
        raise NothingSelectedError(f"{name} is not made yet.", hint=f"Make it: aipctl materialize '+{name}'")
    answer = {"asset": name, "generation": one.id, "model": one.model, "dimensions": one.dimensions}
    call.answer(answer, lambda _: f"Generation {one.id} of {name} answers: {one.dimensions} numbers of {one.model}.")


@verb(group=vectors, config=False)
@click.argument("asset", required=False, shell_complete=complete_index)
@click.option("--to", "number", type=COUNT, metavar="GENERATION", help="This generation; by default the one before.")
async def rollback(call: Call, asset: str | None, number: int | None) -> None:
    """Have an earlier generation of an index answer."""
    from assetcore import vectors as room

    async with call.opened() as session:
        project = session.project
        name = _asset(project, asset)
        one = await (room.rollback(project, name) if number is None else room.activate(project, name, number))
    answer = {"asset": name, "generation": one.id, "model": one.model, "dimensions": one.dimensions}
    call.answer(answer, lambda _: f"Generation {one.id} of {name} answers: {one.dimensions} numbers of {one.model}.")


def _asset(project: Project, given: str | None) -> str:
    """The asset whose index is meant: the only one, where there is one."""
    from assetcore import vectors as room

    names = room.embeddings(project)
    if given is None and len(names) == 1:
        return names[0]
    if given in names:
        return given
    if not names:
        raise NothingSelectedError(
            f"{project.name} has no asset of vectors.", hint="Declare one: an asset that returns Embedding documents."
        )
    known = ", ".join(names)
    if given is None:
        raise UsageError(f"{project.name} has {len(names)} assets of vectors: {known}.", hint="Name one of them.")
    raise UsageError(f"{given} is no asset of vectors; {project.name} has: {known}.")


def _short(one: dict[str, Any]) -> dict[str, Any]:
    return {
        name: one[name] for name in ("m", "ef_construction", "ef_search", "recall", "p50_ms", "p95_ms", "build_seconds")
    }


def _compared(answer: dict[str, Any]) -> Any:
    from rich.console import Group

    sides = [
        {("recall@" + str(answer["k"]) if name == "recall" else name): value for name, value in side.items()}
        for side in answer["generations"]
    ]
    told = f"Of the first {answer['k']} rows both give {answer['overlap']:.0%}, over {answer['questions']} questions."
    return Group(_table(sides, "", kept=6), told)


def _swept(answer: dict[str, Any]) -> Any:
    from rich.console import Group

    told = f"Best: {answer['best']:,} tokens a question; they are asked in {answer['default']:,}, over {answer['texts']} texts."
    return Group(_table(answer["batches"], ""), told)


def _table(rows: list[dict[str, Any]], empty: str, kept: int | None = None) -> Any:
    """A table of these rows, of which the first `kept` columns stay where a terminal is narrow."""
    from assetcore.cli import show

    if not rows:
        return empty

    def said(row: Mapping[str, Any], key: str) -> str:
        value = row[key]
        return (
            show.moment(value)
            if key in ("at", "created")
            else ("", "yes")[value]
            if isinstance(value, bool)
            else str(value)
        )

    columns = [show.Column(key.replace("_", " "), partial(said, key=key)) for key in rows[0]]
    spare = [column._replace(spare=True) for column in columns[kept:]] if kept else []
    return show.table(columns[:kept] + spare, rows)
