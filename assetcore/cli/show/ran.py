"""Ran: how does it look what was done? `materialize`, `runs`, `trace`, `history`, `run`, `deploy`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.tree import Tree

from assetcore.cli.show.parts import (
    CHILDREN_SHOWN,
    FAILURES_SHOWN,
    Answer,
    Column,
    Text,
    as_written,
    count,
    counted,
    dollars,
    duration,
    indented,
    moment,
    plural,
    table,
    took,
    words,
)
from assetcore.cli.show.stale import check_lines
from assetcore.refs import format_ref

TOUCHED = ("made", "unchanged", "reused", "removed", "failed", "skipped")
TRACED = (
    "made",
    "unchanged",
    "reused",
    "taken_in",
    "failed",
    "units",
    "documents",
    "model",
    "tokens",
    "usd",
    "attempts",
)
"""What a line of a trace says beside the time, where it is known."""


def outcome(answer: Answer) -> RenderableType:
    """`materialize`: what happened to each asset, the failures (a traceback that several have at the first of them), one sentence."""
    parts = _results(answer["assets"])
    failures = answer.get("failures", ())
    told = {""}
    for failure in failures[:FAILURES_SHOWN]:
        parts.append(as_written(f"{format_ref(failure['asset'], failure['unit'])} failed: {failure['error']}"))
        if failure["traceback"] not in told:
            told.add(failure["traceback"])
            parts.append(indented(as_written(failure["traceback"], style="dim"), 2))
    if len(failures) > FAILURES_SHOWN:
        parts.append(Text(f"and {len(failures) - FAILURES_SHOWN:,} more failures (all of them: --json)"))
    warnings = [check for check in answer.get("checks", ()) if not check["blocking"]]  # a blocking one's are failures
    parts += check_lines(warnings)
    parts.append(Text(_outcome_sentence(answer)))
    return Group(*parts)


def deployment(answer: Answer) -> str:
    """`deploy`: what is registered, how a worker is started, how a run is triggered."""
    done = "registered" if answer["created"] else "brought up to date"
    where = "Start a worker, in an environment with assetcore and the addresses of the services:"
    if answer["image"]:
        where = (
            f"Each run is a container of {answer['image']}.\n"
            "It reads addresses and secrets that `aipctl blocks init` has written to Prefect.\n"
            "Start a worker where Docker is, or that of stack/docker-compose.yml:"
        )
    return (
        f"The deployment {answer['deployment']} is {done}, on the work pool {answer['work_pool']}.\n"
        + "".join(f"  {trigger}\n" for trigger in answer["triggers"])
        + f"{where}\n  {answer['worker']}\n"
        f"Trigger a run, here or in Prefect's UI:\n  {answer['run']}\n"
    )


def _results(rows: Sequence[Answer]) -> list[RenderableType]:
    """A table of the assets to which something happened, if there are any."""
    busy = [row for row in rows if any(row[key] for key in TOUCHED) or row.get("left")]
    columns = [
        words("asset"),
        *map(count, ("made", "unchanged", "reused", "fresh", "removed", "failed", "skipped", "left")),
        Column("time", took, numeric=True),
        count("tokens"),
        Column("cost", lambda row: dollars(row["usd"]) if row.get("usd") else "", numeric=True),
    ]
    return [table(columns, busy, keep=("made",))] if busy else []


def _outcome_sentence(answer: Answer) -> str:
    counts = counted(_totals(answer), TOUCHED) or "nothing made"
    match answer["status"]:
        case "nothing to do":
            return "Everything is up to date: nothing was run."
        case "failed":
            totals = _totals(answer)
            ended, then = "failed", " A blocking check refuses what is current."
            if totals["failed"] or totals["skipped"]:
                then = " The next run makes what failed and what is missing."
        case "stopped":
            left = ", ".join(f"{asset} {units:,}" for asset, units in answer["left"].items())
            ended, then = "was stopped", f" {answer['stopped']}. Left for the next run: {left}."
        case "cancelled":
            ended, then = "was stopped", " The next run continues with what is missing."
        case _:
            ended, then = "is done", ""
    return f"Run {answer['run']} {ended} in {took(answer)}: {counts}.{then}"


def _totals(answer: Answer) -> Counter[str]:
    """What happened to units. Of the documents of a source, which are observed and not made, only those that could not be taken in.

    The answer of a run has no rows of sources, but all that failed; that of a list of runs has rows of sources.
    """
    totals: Counter[str] = Counter()
    for row in answer["assets"]:
        totals.update({key: row[key] for key in (("failed",) if row.get("kind") == "source" else TOUCHED)})
    listed = {row["asset"] for row in answer["assets"]}
    totals["failed"] += sum(one["asset"] not in listed for one in answer.get("failures", ()))
    return totals


def runs(answer: Answer) -> RenderableType:
    """`runs`: one line for each run, the latest first."""
    if not answer["runs"]:
        return Text("Nothing has run yet.")
    several = len({row["environment"] for row in answer["runs"]}) > 1
    columns = [
        words("run"),
        *([words("environment")] if several else []),
        Column("started", lambda row: moment(row["started_at"])),
        words("status"),
        Column("time", took, numeric=True),
        *(count(key) for key in ("made", "failed")),
        *(count(key)._replace(spare=True) for key in TOUCHED if key not in ("made", "failed")),
        words("selection")._replace(spare=True),
    ]
    return table(columns, [{**row, **_totals(row)} for row in answer["runs"]], keep=("made",))


def run(answer: Answer) -> RenderableType:
    """`runs RUN`: who ran what and when, and what that did to each asset."""
    lines = [f"Run {answer['run']} of {answer['actor']}: {answer['status']}, started {moment(answer['started_at'])}"]
    if answer["seconds"] is not None:
        lines[0] += f", {took(answer)}"
    lines.append(f"Environment: {answer['environment']}")
    if answer["selection"]:
        lines.append(f"Selection: {answer['selection']}")
    if answer["flow_run"]:
        lines.append(f"Flow run: {answer['flow_run']}")
    return Group(*map(Text, lines), *_results(answer["assets"]))


def history(answer: Answer) -> RenderableType:
    """`history`: one line for each change, the latest first."""

    def why(row: Answer) -> str:
        reused = [f"made by {row['made_by']}"] if row["made_by"] else []
        units = row["units"] or {}
        return row.get("error") or row["asked"] or counted(units, list(units)) or ", ".join([*row["causes"], *reused])

    def what(row: Answer) -> str:
        done = counted(row["counts"] or {}, TOUCHED)
        return done if done and row["what"] == "done" else ", ".join(filter(None, (row["what"], done)))

    def shown(row: Answer) -> str:
        ids = [document["id"] for document in row["documents"]]
        return ", ".join(ids[:3]) + (f" and {len(ids) - 3:,} more" if len(ids) > 3 else "")

    columns = [
        Column("when", lambda row: moment(row["at"])),
        Column("what", what),
        Column("why", why),
        words("run"),
        Column("by", lambda row: row["actor"] or ""),
        Column("documents", shown),
    ]
    return table(columns, answer["changes"])


def trace(answer: Answer) -> RenderableType:
    """`trace`: a tree of what took time; batches of an asset in one line."""
    if not answer["spans"]:
        return Text(f"Run {answer['run']} has left no trace, or it was removed with the days.")
    below: dict[int | None, list[Answer]] = {}
    for span in answer["spans"]:
        below.setdefault(span["parent"], []).append(span)
    roots = below.get(None) or [span for span in answer["spans"] if span["kind"] in ("asset", "source")]
    drawn = Tree(_span(roots[0])) if len(roots) == 1 else Tree(f"run {answer['run']}")
    waiting = [(drawn, below.get(roots[0]["id"], []) if len(roots) == 1 else roots)]
    while waiting:
        branch, spans = waiting.pop()
        batches = [span for span in spans if span["kind"] == "batch"]
        if len(batches) > 1:
            seconds = sum(span["seconds"] for span in batches)
            branch.add(Text(f"{len(batches)} batches kept  {duration(seconds)}", overflow="fold"))
        units = sorted((s for s in spans if s["kind"] == "unit"), key=lambda s: (not s["error"], -s["seconds"]))
        quicker = {span["id"] for span in units[CHILDREN_SHOWN:]}
        shown = [s for s in spans if s["id"] not in quicker and (s["kind"] != "batch" or len(batches) == 1)]
        waiting.extend((branch.add(_span(span)), below.get(span["id"], [])) for span in shown)
        if quicker:
            branch.add(Text(f"and {plural(len(quicker), 'unit')} that took less (all of them: --json)", style="dim"))
    return Group(drawn, *([Text(f"{answer['dropped']:,} more spans were left out.")] if answer["dropped"] else []))


def _span(span: Answer) -> Text:
    facts = [
        f"{key.replace('_', ' ')} {_fact(span['attributes'][key])}" for key in TRACED if span["attributes"].get(key)
    ]
    line = Text("  ".join([span["name"], duration(span["seconds"]), *facts]), overflow="fold")
    return line.append(f"  {span['error']}", style="red") if span["error"] else line


def _fact(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}" if isinstance(value, float) else str(value)


def conducted(answer: Answer) -> RenderableType:
    """`run`: where the documents are that a flow returned."""
    told = f"{answer['flow']} is done in {took(answer)}: {plural(len(answer['documents']), 'document')}. See: aipctl trace {answer['run']}"
    return Group(
        *([table([words("name"), words("id"), words("key")], answer["documents"])] if answer["documents"] else []),
        Text(told),
    )
