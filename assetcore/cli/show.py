"""Show: how does an answer look to a person?

Every function takes the JSON answer of a verb and returns something that rich can print, so that the two can never disagree.
Tables fit 80 columns: names fold rather than being cut, columns of nothing but zeros are left out, numbers stand to the right.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import datetime
from importlib.metadata import version
from typing import Any, NamedTuple

from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text as RichText
from rich.tree import Tree

from assetcore.cli.plain import plain
from assetcore.selection import format_ref

__all__ = [
    "assets",
    "causes",
    "check_lines",
    "compared",
    "comparison",
    "context",
    "documents",
    "dot",
    "environment_diff",
    "environments",
    "exported",
    "found",
    "garbage",
    "graph",
    "history", "lineage",
    "mermaid",
    "openlineage",
    "outcome",
    "plan",
    "plan_sentence",
    "promoted",
    "rebuilt",
    "run",
    "runs",
    "services",
    "settings",
    "verified",
    "why",
]  # fmt: skip

Answer = Mapping[str, Any]
CHILDREN_SHOWN = 20
DEPTH_SHOWN = 50
FAILURES_SHOWN = 10
ROWS_SHOWN = 100
ROW_NAMES = 3
UNBROKEN = 20
"""Words of at most this length are never folded."""


class Text(RichText):
    """A text of rich that a terminal obeys nowhere but in its style."""

    def __init__(self, text: str = "", *arguments: Any, **options: Any) -> None:
        super().__init__(plain(text), *arguments, **options)

    def append(self, text: RichText | str, style: Any = None) -> Text:
        super().append(plain(text) if isinstance(text, str) else text, style)
        return self


# --- ask --------------------------------------------------------------------------------------------------------------


def assets(answer: Answer) -> RenderableType:
    """`ls`: one line for each asset."""
    rows = answer["assets"]
    columns = [
        words("asset"),
        words("kind"),
        words("group"),
        count("units"),
        count("documents"),
        Column("partitions", _partitions),
        count("stale"),
        count("failed"),
        Column("checks", _standing),
        Column("varies", _varies),
        Column("made", lambda row: moment(row.get("made_at"))),
        Column("fresh until", lambda row: moment(row.get("fresh_until"))),
        Column("calls", lambda row: number((row.get("cost") or {}).get("calls")), numeric=True),
        Column("time", lambda row: duration(row["cost"]["seconds"]) if row.get("cost") else "", numeric=True),
        Column("tokens", lambda row: number((row.get("cost") or {}).get("tokens")), numeric=True),
        Column(
            "cost", lambda row: dollars(row["cost"]["usd"]) if (row.get("cost") or {}).get("usd") else "", numeric=True
        ),
        Column("kinds", lambda row: ", ".join(row.get("kinds") or ())),
        Column("tags", lambda row: ", ".join(row.get("tags") or ())),
        words("owner"),
        words("sensitivity"),
    ]
    if all(row["group"] == "main" for row in rows):
        columns = [column for column in columns if column.title != "group"]
    return table(columns, rows)


def _partitions(row: Answer) -> str:
    """`3`; `2 of 3` where not all of them are done."""
    counts = row.get("partitions")
    if not counts:
        return ""
    return f"{counts['all']:,}" if counts["done"] == counts["all"] else f"{counts['done']:,} of {counts['all']:,}"


def _varies(row: Answer) -> str:
    """`3 of 20`: so many units that were made again without a cause came out different."""
    repeats = row.get("repeats") or {"units": 0, "different": 0}
    return f"{repeats['different']:,} of {repeats['units']:,}" if repeats["different"] else ""


def _standing(row: Answer) -> str:
    """`1 of 3 failed`; `3 passed`; how many there are, where only declarations are known."""
    checks = row.get("checks") or ()
    bad = sum(1 for check in checks if check.get("status") in ("failed", "error"))
    if bad:
        return f"{bad} of {len(checks)} failed"
    passed = sum(1 for check in checks if check.get("status") == "passed")
    return f"{passed} passed" if passed else plural(len(checks), "check") if checks else ""


def check_lines(checks: Sequence[Answer]) -> list[RenderableType]:
    """What did not pass: each check with the first units, and whether that keeps anything from being current."""
    lines: list[RenderableType] = []
    for check in checks:
        bad = check["failed"] + check["errors"]
        if not bad:
            continue
        verb = "could not say" if check["status"] == "error" else "failed"
        of = f" for {plural(bad, 'unit')}" if check["scope"] == "unit" else ""
        weight = "blocking" if check["blocking"] else "a warning"
        style = "red" if check["blocking"] else "yellow"
        lines.append(Text(f"Check {check['asset']}.{check['check']} {verb}{of} ({weight}):", style=style))
        found = check["findings"][:FAILURES_SHOWN]
        named = [(f"{finding['unit']}: " if finding["unit"] else "") + finding["message"] for finding in found]
        lines += [Text(f"  {line}") for line in named]
        if bad > len(named) and check["scope"] == "unit":
            lines.append(Text(f"  and {bad - len(named):,} more", style="dim"))
    return lines


def plan(answer: Answer, *, units: bool = False) -> RenderableType:
    """`plan`: what is stale for each asset and why, what the sources brought, what it will take."""
    parts: list[RenderableType] = [Text(f"If: {'; '.join(answer['if'])}", style="bold")] if answer.get("if") else []
    parts += [
        Text(f"{source['source']}: {plural(source['documents'], 'document')}, {changes}")
        for source in answer.get("sources", ())
        if (changes := counted(source, ("new", "changed", "removed", "lost")))
    ]
    idle = [row for row in answer["assets"] if not _touched(row)]
    busy = [row for row in answer["assets"] if _touched(row)]
    if busy:
        columns = [
            words("asset"),
            Column("partitions", _partitions),
            count("units"),
            count("fresh"),
            count("stale"),
            Column("why", lambda row: causes(row.get("causes", {}))),
            count("pending"),
            count("removed"),
        ]
        parts.append(table(columns, busy))
    for row in busy if units else ():
        parts += _unit_lines(row)
    parts += [line for group in answer.get("why", ()) for line in _roots(group)]
    undecided = answer.get("undecided", ())
    fresh = [row["asset"] for row in idle if row["asset"] not in undecided]
    if fresh and busy:
        parts.append(Text(f"Fresh: {', '.join(fresh)}", style="dim"))
    if undecided:
        parts.append(Text(f"Known when what is above them is made: {', '.join(undecided)}", style="dim"))
    if stale_inputs := answer.get("stale_inputs"):
        parts.append(Text(f"Not selected, but stale above: {', '.join(stale_inputs)} (add --upstream)"))
    if orphans := answer.get("orphans"):
        named = ", ".join(f"{name} ({plural(count, 'unit')})" for name, count in orphans.items())
        parts.append(Text(f"No longer declared: {named}. To remove: aipctl gc --yes", style="dim"))
    parts += _notes(answer)
    parts += check_lines(answer.get("checks", ()))
    if due := [f"{check['asset']}.{check['check']}" for check in answer.get("checks", ()) if check["due"]]:
        parts.append(Text(f"To check: {', '.join(due)}", style="dim"))
    parts += [line for one in answer.get("sample", ()) for line in trial(one)]
    parts += estimates(answer)
    parts.append(Text(plan_sentence(answer, busy)))
    return Group(*parts)


def plan_sentence(answer: Answer, busy: Sequence[Answer]) -> str:
    """`16 stale (input-changed 16), 3 pending: about 12 s.`"""
    if not busy and answer.get("up_to_date", True):
        return "Everything is up to date."
    reasons: Counter[str] = Counter()
    for row in busy:
        reasons.update(row.get("causes", {}))
    totals = {key: sum(row[key] for row in busy) for key in ("stale", "pending", "removed")}
    counts = counted(totals, ("pending", "removed"))
    if totals["stale"]:
        stale = f"{totals['stale']:,} stale" + (f" ({causes(reasons)})" if reasons else "")
        counts = ", ".join(filter(None, (stale, counts)))
    estimate = answer.get("estimate") or {}
    costs = [f"about {duration(estimate['seconds'])}"] if estimate.get("seconds") else []
    costs += [plural(estimate["tokens"], "token")] if estimate.get("tokens") else []
    costs += [dollars(estimate["usd"])] if estimate.get("usd") else []
    return (counts or "No unit is stale") + (f": {', '.join(costs)}" if costs else "") + "."


def _touched(row: Answer) -> bool:
    return bool(row["stale"] or row["pending"] or row["removed"])


def causes(counts: Mapping[str, int]) -> str:
    """`input-changed 16, missing 2`, most first."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{code} {count:,}" for code, count in ordered if count)


def _unit_lines(row: Answer) -> list[RenderableType]:
    lines: list[RenderableType] = [Text(f"{row['asset']}:", style="bold")]
    for unit in row.get("details", ()):
        codes = f" ({', '.join(unit['causes'])})" if unit["causes"] else ""
        lines.append(Text(f"  {unit['unit']}  {unit['status']}{codes}"))
    return lines


def why(answer: Answer) -> RenderableType:
    """`why`: the causes, each with what it was before and what it is now."""
    said = [
        Text(f"  check {check['check']} {check['status']}" + (f": {check['message']}" if check["message"] else ""))
        for check in answer.get("checks", ())
    ]
    made = f"made {moment(answer['made_at'])}" if answer.get("made_at") else ""
    until = f", fresh until {moment(answer['fresh_until'])}" if answer.get("fresh_until") else ""
    if made and (answer["fresh"] or until):
        said.insert(0, Text(f"  {made}{until}", style="dim"))
    said += [acceptance(one) for one in answer.get("accepted", ())]
    said += _notes(answer)
    if answer["fresh"]:
        return Group(Text(f"{answer['unit']} is fresh."), *said)
    parts: list[RenderableType] = [Text(f"{answer['unit']} is {answer.get('status', 'stale')}:")]
    for cause in answer["causes"]:
        parts += _root(cause, f"{cause['code']}: ")
    return Group(*parts, *said)


def _notes(answer: Answer) -> list[RenderableType]:
    """What of the code cannot be followed, and what was read that nothing declares."""
    return [
        Text(f"{note['code']} {note['asset']}: {note['what']} ({note['where']}). {note['settle']}", style="yellow")
        for note in answer.get("notes", ())
    ]


def _root(cause: Answer, head: str = "") -> list[RenderableType]:
    """One root: what it is, the way to it, and what was and is."""
    many = f" ({plural(cause['units'], 'unit')})" if cause.get("units", 1) > 1 and "," not in cause["detail"] else ""
    parts: list[RenderableType] = [Text(f"  {head}{cause['detail']}{many}")]
    if way := cause.get("path"):
        parts.append(Text(f"    through {' > '.join(way)}", style="dim"))
    before, after = cause["before"], cause["after"]
    if cause.get("diff"):
        parts.append(indented(diff_text(cause["diff"]), 4))
    elif before is not None or after is not None:
        parts.append(Text(f"    {short(before)} -> {short(after)}"))
    return parts


def _roots(group: Answer) -> list[RenderableType]:
    """All roots of one cause in a plan."""
    counts = counted(group, ("stale", "pending"))
    parts: list[RenderableType] = [Text(f"{group['code']}: {counts}", style="bold")]
    return parts + [line for cause in group["roots"] for line in _root(cause)]


def lineage(answer: Answer) -> RenderableType:
    """`lineage`: a tree from what was asked for, away from it; what was shown above is not shown again."""
    nodes = {node["id"]: node for node in answer["nodes"]}
    beyond = _beyond(answer)
    reached = {child for children in beyond.values() for child in children}
    roots = [answer["root"]] if answer["root"] in nodes else [node for node in nodes if node not in reached]
    parts = {span["document"]: span for span in answer.get("spans", ())}

    def label(node: str) -> Text:
        span = parts.get(node)
        of = f" of {_node_label(nodes[span['of']])}" if span and span["of"] in nodes else ""
        return Text(_node_label(nodes[node])).append(f"  {_part(span)}{of}" if span else "", style="dim")

    tree = _trees(roots, beyond, label)
    notes = [Text(f"Only the first {plural(len(nodes), 'document')}; fewer steps: --depth N", style="dim")]
    if not answer.get("truncated"):
        notes = []
    for asset, said in (answer.get("accepted") or {}).items():
        notes += [
            Text(f"{asset}, code of {one['old'][:10]} counts as {one['new'][:10]}:\n{acceptance(one)}") for one in said
        ]
    return Group(tree, *notes) if notes else tree


def _part(span: Answer) -> str:
    """`bytes 120 to 480`, `page 3`, `/chapters/0`."""
    if span["kind"] == "pointer":
        return span["pointer"] or "all"
    if span["kind"] == "pages" and span["start"] == span["end"]:
        return f"page {span['start']:,}"
    return f"{span['kind']} {span['start']:,} to {span['end']:,}"


def context(answer: Answer) -> RenderableType:
    """`show --context`: the document that something is part of, and the lines there, marked, with those around them."""
    found = answer["place"]
    lines = f", lines {found['first']:,} to {found['last']:,}" if found else ""
    parts: list[RenderableType] = [Text(f"{answer['document']}: {_part(answer)}{lines}", style="bold")]
    if found:
        number = found["first"] - len(found["before"])
        for key, mark in (("before", " "), ("lines", ">"), ("after", " ")):
            for line in found[key]:
                shown = "".join(c if c.isprintable() or c == "\t" else f"\\x{ord(c):02x}" for c in line)
                parts.append(Text(f"{mark} {number:>5}  {shown}", style="" if mark == ">" else "dim"))
                number += 1
    elif answer["kind"] == "pointer":
        value = json.dumps(answer["value"], ensure_ascii=False, indent=1)
        parts.append(indented(Text("".join(c if c.isprintable() or c == "\n" else "?" for c in value)), 2))
    others = [ref for ref in answer["sources"] if not answer["document"].startswith(ref)]
    return Group(*parts, *([Text(f"made of {', '.join(others)}", style="dim")] if others else []))


def graph(answer: Answer) -> RenderableType:
    """`graph`: a tree from the sources down; what was shown above is not shown again."""
    nodes = {node["asset"]: node for node in answer["nodes"]}
    beyond = _beyond(answer)
    inner = {target for _, target in answer["edges"]}

    def label(name: str) -> Text:
        node = nodes[name]
        notes = [node["kind"]] if node["kind"] != "asset" else []
        notes += [node["group"]] if node["group"] != "main" else []
        notes += [node["sensitivity"]] if node["sensitivity"] else []
        return Text(name).append("".join(f"  {note}" for note in notes), style="dim")

    return _trees([name for name in nodes if name not in inner], beyond, label)


def _beyond(answer: Answer) -> dict[str, list[str]]:
    beyond: dict[str, list[str]] = {}
    for one, other in answer["edges"]:
        beyond.setdefault(one, []).append(other)
    return beyond


def _trees(roots: Sequence[str], beyond: Mapping[str, Sequence[str]], label: Callable[[str], Text]) -> RenderableType:
    """Trees over a graph without circles: a line for each node, never wrapped, drawn without recursion."""
    lines: list[RichText] = []
    shown: set[str] = set()
    waiting = [(root, "", "") for root in reversed(roots)]
    while waiting:
        node, head, below = waiting.pop()
        line = Text(head).append_text(label(node)) if node else Text(head)
        children = beyond.get(node, ())
        if node in shown and children:
            line.append("  (see above)", style="dim")
            children = ()
        elif len(below) >= 4 * DEPTH_SHOWN and children:
            line.append("  ...", style="dim")
            children = ()
        shown.add(node)
        lines.append(line)
        listed = [(child, "") for child in children[:CHILDREN_SHOWN]]
        if len(children) > CHILDREN_SHOWN:
            listed.append(("", f"and {len(children) - CHILDREN_SHOWN:,} more"))
        for child, note in reversed(listed):
            last = (child, note) == listed[-1]
            waiting.append((child, below + ("└── " if last else "├── ") + note, below + ("    " if last else "│   ")))
    drawn = Text("\n").join(lines)
    drawn.no_wrap, drawn.overflow = True, "ignore"
    return drawn


def dot(answer: Answer) -> str:
    """A graph or a lineage for Graphviz."""
    quoted = {identity: _dot_quoted(label) for identity, label in _labelled(answer).items()}
    numbers = {identity: f"n{index}" for index, identity in enumerate(quoted)}
    lines = ["digraph {", "  rankdir=LR; node [shape=box, fontname=sans-serif];"]
    lines += [f"  {numbers[identity]} [label={label}];" for identity, label in quoted.items()]
    lines += [f"  {numbers[source]} -> {numbers[target]};" for source, target in _downward(answer)]
    return "\n".join([*lines, "}", ""])


def mermaid(answer: Answer) -> str:
    """A graph or a lineage for Mermaid."""
    labels = _labelled(answer)
    numbers = {identity: f"n{index}" for index, identity in enumerate(labels)}
    lines = ["graph LR"]
    lines += [f'  {numbers[identity]}["{_mermaid_quoted(label)}"]' for identity, label in labels.items()]
    lines += [f"  {numbers[source]} --> {numbers[target]}" for source, target in _downward(answer)]
    return "\n".join([*lines, ""])


OPENLINEAGE = "https://openlineage.io/spec"


def openlineage(answer: Answer, namespace: str, at: datetime) -> list[dict[str, Any]]:
    """A lineage in OpenLineage's words: a job event for each unit that made something, whose datasets are documents with their hashes."""
    nodes = {node["id"]: node for node in answer["nodes"]}
    producer = f"urn:assetcore:{version('assetcore')}"

    def dataset(node: Answer) -> dict[str, Any]:
        facet = {
            "_producer": producer, "_schemaURL": f"{OPENLINEAGE}/facets/1-0-1/DatasetVersionDatasetFacet.json",
            "datasetVersion": node["sha256"],
        }  # fmt: skip
        facets = {"facets": {"version": facet}} if node["sha256"] else {}
        return {"namespace": namespace, "name": _node_label(node), **facets}

    given: dict[tuple[str, str | None], dict[str, dict[str, Any]]] = {}
    for source, target in _downward(answer):
        made = given.setdefault((nodes[target]["asset"], nodes[target]["unit"]), {"inputs": {}, "outputs": {}})
        made["inputs"][source], made["outputs"][target] = dataset(nodes[source]), dataset(nodes[target])
    return [
        {
            "eventTime": at.isoformat(), "producer": producer, "schemaURL": f"{OPENLINEAGE}/2-0-2/OpenLineage.json#/$defs/JobEvent",
            "job": {"namespace": namespace, "name": format_ref(asset, unit)},
            "inputs": list(made["inputs"].values()), "outputs": list(made["outputs"].values()),
        }
        for (asset, unit), made in given.items()
    ]  # fmt: skip


def _downward(answer: Answer) -> Iterator[tuple[str, str]]:
    """The edges from what was given to what was made, as arrows are read; those of a lineage up go from the root away."""
    up = answer.get("direction") == "up"
    for one, other in answer["edges"]:
        yield (other, one) if up else (one, other)


def _labelled(answer: Answer) -> dict[str, str]:
    return {node.get("id", node["asset"]): _node_label(node) for node in answer["nodes"]}


def _node_label(node: Answer) -> str:
    """The shortest REF: a unit's label and its document's name are often the same."""
    unit, document = node.get("unit"), node.get("document")
    return format_ref(node["asset"], unit, document if unit is not None and document != unit else None)


def _dot_quoted(text: str) -> str:
    escaped = plain(text).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _mermaid_quoted(text: str) -> str:
    entities = {"&": "&amp;", '"': "&quot;", "<": "&lt;", ">": "&gt;", "#": "#35;"}
    return "".join(entities.get(character, character) for character in plain(text))


def documents(answer: Answer) -> RenderableType:
    """`show` of several documents: one line for each."""
    rows = answer["documents"]
    columns = [
        words("document"),
        words("id"),
        Column("size", lambda row: size(row["size"]), numeric=True),
        Column("media type", lambda row: row["media_type"]),
        Column("unit", lambda row: row["unit"] if row.get("unit") not in (None, row["document"]) else ""),
        Column(
            "checks", lambda row: "; ".join(_objection(check) for check in row.get("checks") or () if check["message"])
        ),
    ]
    drawn: list[RenderableType] = [table(columns, rows[:ROWS_SHOWN])]
    if len(rows) > ROWS_SHOWN:
        drawn.append(Text(f"and {len(rows) - ROWS_SHOWN:,} more (all of them: --json)", style="dim"))
    return Group(*drawn)


def _objection(check: Answer) -> str:
    return f"{check['check']}: {check['message']}"


def history(answer: Answer) -> RenderableType:
    """`history`: one line for each change, the latest first."""

    def why(row: Answer) -> str:
        reused = [f"made by {row['made_by']}"] if row["made_by"] else []
        counts = row["counts"] or {}
        return counted(counts, TOUCHED) if row["counts"] is not None else ", ".join([*row["causes"], *reused])

    def shown(row: Answer) -> str:
        ids = [document["id"] for document in row["documents"]]
        return ", ".join(ids[:3]) + (f" and {len(ids) - 3:,} more" if len(ids) > 3 else "")

    columns = [
        Column("when", lambda row: moment(row["at"])),
        words("what"),
        Column("why", why),
        words("run"),
        Column("by", lambda row: row["actor"] or ""),
        Column("documents", shown),
    ]
    return table(columns, answer["changes"])


def comparison(answer: Answer) -> RenderableType:
    """`diff`: a unified diff, or what is to be said where there is none; of several documents those that differ."""
    if answer.get("documents"):
        columns = [words("document"), words("change"), words("before"), words("after")]
        rows, counts = answer["documents"], answer["counts"]
        total = Text(f"{counted(counts, ('new', 'changed', 'gone'))}.")
        more = sum(counts.values()) - len(rows[:ROWS_SHOWN])
        parts = [table(columns, rows[:ROWS_SHOWN]), *([Text(f"and {more:,} more", style="dim")] if more else []), total]
        return Group(*parts)
    return (
        diff_text(answer["diff"])
        if answer["diff"]
        else Text("They are the same." if answer["same"] else "They differ.")
    )


def found(answer: Answer) -> RenderableType:
    """`search`: the best documents first, each with the passage that answers."""
    parts: list[RenderableType] = []
    for hit in answer["hits"]:
        head = Text(hit["name"], style="bold").append(f"  {hit['asset']}", style="dim")
        parts.append(head if hit["title"] in ("", hit["name"]) else head.append(f"  {hit['title']}", style=""))
        parts.append(indented(Text(" ".join(hit["snippet"].split())), 2))
    return Group(*parts) if parts else Text("Nothing was found.")


# --- make -------------------------------------------------------------------------------------------------------------


TOUCHED = ("made", "unchanged", "reused", "removed", "failed", "skipped")


def outcome(answer: Answer) -> RenderableType:
    """`materialize`: what happened to each asset, the failures, one sentence."""
    parts = _results(answer["assets"])
    failures = answer.get("failures", ())
    for failure in failures[:FAILURES_SHOWN]:
        parts.append(Text(f"{format_ref(failure['asset'], failure['unit'])} failed: {failure['error']}"))
        if failure["traceback"]:
            parts.append(indented(Text(failure["traceback"].rstrip(), style="dim"), 2))
    if len(failures) > FAILURES_SHOWN:
        parts.append(Text(f"and {len(failures) - FAILURES_SHOWN:,} more failures (all of them: --json)"))
    parts += check_lines(
        [check for check in answer.get("checks", ()) if not check["blocking"]]
    )  # a blocking one's are failures
    parts.append(Text(_outcome_sentence(answer)))
    return Group(*parts)


def deployment(answer: Answer) -> str:
    """`deploy`: what is registered, how a worker is started, how a run is triggered."""
    done = "registered" if answer["created"] else "brought up to date"
    return (
        f"The deployment {answer['deployment']} is {done}, on the work pool {answer['work_pool']}.\n"
        + "".join(f"  {trigger}\n" for trigger in answer["triggers"])
        + f"Start a worker, in an environment with assetcore and the addresses of the services:\n  {answer['worker']}\n"
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
        Column("cost", lambda row: f"${row['usd']:,.4f}" if row.get("usd") else "", numeric=True),
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
    totals: Counter[str] = Counter()
    for row in answer["assets"]:
        totals.update({key: row[key] for key in TOUCHED})
    return totals


def runs(answer: Answer) -> RenderableType:
    """`runs`: one line for each run, the latest first."""
    if not answer["runs"]:
        return Text("Nothing has run yet.")
    columns = [
        words("run"),
        Column("started", lambda row: moment(row["started_at"])),
        words("status"),
        *map(count, TOUCHED),
        Column("time", took, numeric=True),
        words("selection"),
    ]
    return table(columns, [{**row, **_totals(row)} for row in answer["runs"]], keep=("made",))


def run(answer: Answer) -> RenderableType:
    """`runs RUN`: who ran what and when, and what that did to each asset."""
    lines = [f"Run {answer['run']} of {answer['actor']}: {answer['status']}, started {moment(answer['started_at'])}"]
    if answer["seconds"] is not None:
        lines[0] += f", {took(answer)}"
    if answer["selection"]:
        lines.append(f"Selection: {answer['selection']}")
    if answer["flow_run"]:
        lines.append(f"Flow run: {answer['flow_run']}")
    return Group(*map(Text, lines), *_results(answer["assets"]))


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
        shown = [span for span in spans if span["kind"] != "batch" or len(batches) == 1]
        waiting.extend((branch.add(_span(span)), below.get(span["id"], [])) for span in shown)
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


def exported(answer: Answer) -> RenderableType:
    """`export`: how much was written where."""
    written = answer["files"] if isinstance(answer["files"], int) else len(answer["files"])
    return Text(f"{plural(written, 'document')} written to {answer['directory']}.")


def verified(answer: Answer) -> RenderableType:
    """`verify`: what is lost or damaged, and how much was read how fast."""
    lost = answer["damaged"]
    parts: list[RenderableType] = []
    for one in lost[:ROWS_SHOWN]:
        parts.append(Text(f"{format_ref(one['asset'], one['unit'], one['document'])}  {one['cause']}: {one['detail']}"))
        parts.append(Text(f"  {one['key']}", style="dim"))
    if len(lost) > ROWS_SHOWN:
        parts.append(Text(f"and {len(lost) - ROWS_SHOWN:,} more (all of them: --json)", style="dim"))
    read = f"{plural(answer['objects'], 'object')} with {plural(answer['documents'], 'document')} ({size(answer['bytes'])})"
    already = f", {answer['already']:,} more before it was interrupted" if answer["already"] else ""
    then = (
        f" {plural(len(lost), 'document')} damaged: aipctl materialize makes them again." if lost else " All is well."
    )
    parts.append(Text(f"Read {read} in {took(answer)}{already}.{then}"))
    return Group(*parts, *_rerun(answer["rerun"]))


def _rerun(rows: Sequence[Answer]) -> list[RenderableType]:
    """Units that were made once more: those that failed or came out different, and how many there were of each asset."""
    parts: list[RenderableType] = []
    by_asset: dict[str, list[Answer]] = {}
    for row in rows:
        by_asset.setdefault(row["asset"], []).append(row)
    for asset, units in by_asset.items():
        odd = [row for row in units if not row["same"]]
        if not odd:
            parts.append(Text(f"{asset}: {plural(len(units), 'unit')} made once more came out the same."))
            continue
        parts.append(
            Text(f"{asset}: {len(odd):,} of {plural(len(units), 'unit')} made once more did not come out the same:")
        )
        for row in odd[:FAILURES_SHOWN]:
            parts.append(
                Text(f"  {format_ref(asset, row['unit'])}" + (f" failed: {row['error']}" if row["error"] else ""))
            )
            if row["diff"]:
                parts.append(indented(diff_text(row["diff"]), 4))
        if len(odd) > FAILURES_SHOWN:
            parts.append(Text(f"  and {len(odd) - FAILURES_SHOWN:,} more (all of them: --json)", style="dim"))
    return parts


def garbage(answer: Answer) -> RenderableType:
    """`gc`: what nothing refers to, what is not kept, and what is put together anew."""
    parts: list[str] = []
    if answer["objects"]:
        parts.append(f"{plural(answer['objects'], 'object')} that nothing refers to")
    if answer.get("orphans"):
        parts.append(f"assets that are no longer declared: {', '.join(answer['orphans'])}")
    if answer["let_go"]:
        parts.append(f"{plural(answer['let_go'], 'earlier version')} of documents")
    if answer["compacted"]:
        parts.append(f"the unneeded part of {plural(answer['compacted'], 'pack')}")
    if answer["replaced"]:
        parts.append(f"{plural(answer['replaced'], 'object')} that were replaced")
    if not parts:
        return Text("There is nothing to remove.")
    done = "Would remove: " if answer["dry_run"] else "Removed: "
    free = f" ({size(answer['bytes'])})" if answer["bytes"] else ""
    return Text(done + "; ".join(parts) + free + (". To do it: aipctl gc --yes" if answer["dry_run"] else "."))


# --- trust ------------------------------------------------------------------------------------------------------------


def rebuilt(answer: Answer) -> RenderableType:
    """`catalog rebuild`: what was written, and what was missing."""
    rows = answer["rows"]
    lines = [
        f"{plural(answer['manifests'], 'commit')} read; {plural(rows['materialization'], 'unit')} and "
        f"{plural(rows['document'], 'document')} written in {duration(answer['seconds'])}."
    ]
    lines += _not_whole(answer)
    if answer["left_out"]:
        lines.append(
            f"Left out, because what they refer to is not there: {plural(answer['left_out'], 'unit')}. A plan finds them missing."
        )
    if answer["undone"]:
        lines.append(f"Passed over, because they never came about: {plural(len(answer['undone']), 'commit')}.")
    return Group(*(Text(line) for line in lines))


def compared(answer: Answer) -> RenderableType:
    """`catalog verify`: the tables that differ, and what cannot be read."""
    lines: list[RenderableType] = []
    if differing := [one for one in answer["tables"] if one["only_bucket"] or one["only_postgres"]]:
        columns = [
            words("table"), Column("in the bucket", lambda row: f"{row['rows']:,}", numeric=True),
            Column("only there", lambda row: f"{row['only_bucket']:,}", numeric=True),
            Column("only in Postgres", lambda row: f"{row['only_postgres']:,}", numeric=True),
        ]  # fmt: skip
        lines.append(table(columns, differing, keep=("only there", "only in Postgres")))
        lines += [Text(f"{one['table']}: {one['example']}", style="dim") for one in differing]
    lines += [Text(line) for line in _not_whole(answer)]
    if answer["unfinished"]:
        lines.append(Text(f"Never came about, and left to gc: {plural(len(answer['unfinished']), 'commit')}."))
    if not (differing or answer["missing"] or answer["damaged"]):
        rows = sum(one["rows"] for one in answer["tables"])
        lines.append(
            Text(
                f"Postgres and the bucket say the same: {plural(rows, 'row')} compared in {duration(answer['seconds'])}."
            )
        )
    return Group(*lines)


def journal(answer: Answer) -> RenderableType:
    """`journal`: one line for each thing that was done."""
    if not answer["journal"]:
        return Text("Nothing was done.")
    rows = answer["journal"]
    columns = [
        Column("", lambda row: f"{row['number']:,}", numeric=True),
        Column("when", lambda row: moment(row["at"])),
        words("actor"),
        words("what"),
        words("asset"),
        Column("how", _done),
    ]
    if len({row["environment"] for row in rows}) > 1:
        columns.append(words("environment"))
    return table(columns, rows)


def _done(row: Answer) -> str:
    """What a row of the journal says, in a few words."""
    facts = {k: v for k, v in row["facts"].items() if isinstance(v, int | str) and k not in ("manifest", "sha256")}
    parts = [f"{value:,} {name}" if isinstance(value, int) else str(value) for name, value in facts.items()]
    named = row["names"][:ROW_NAMES]
    more = len(row["names"]) - len(named)
    parts += [*named, *([f"and {more:,} more"] if more else [])]
    if row["what"] == "run":
        parts.append(row["run"])
    if row["forgotten"]:
        parts.append(f"{row['forgotten']:,} forgotten")
    return ", ".join(parts + ([row["why"]] if row["why"] else []))


def forgotten(answer: Answer) -> RenderableType:
    """`forget`: how much of each asset goes, or went, and where the report is."""
    columns = [words("asset"), count("units"), Column("such as", lambda row: ", ".join(row["examples"]))]
    if not answer["dry_run"]:
        columns = columns[:2]
    what = (
        f"{plural(answer['documents'], 'document')} in {plural(answer['objects'], 'object')} ({size(answer['bytes'])})"
    )
    end = f"Would erase {what}. To do it: aipctl forget REF --yes" if answer["dry_run"] else f"Erased {what}."
    lines: list[RenderableType] = [table(columns, answer["assets"]), Text(end)]
    if answer["file"]:
        lines.append(Text(f"The signed report: {answer['file']}"))
    return Group(*lines)


def journal_checked(answer: Answer) -> RenderableType:
    """`journal verify`: what is wrong, or how much is right."""
    if answer["problems"]:
        return Group(*(Text(problem) for problem in answer["problems"]))
    return Text(
        f"The journal is whole: {plural(answer['rows'], 'row')}, {answer['unsealed']:,} of them not in the bucket yet."
    )


def _not_whole(answer: Answer) -> list[str]:
    lines = [f"Cannot be read: {key}: {reason}" for key, reason in answer["damaged"].items()]
    if answer["missing"]:
        numbers = ", ".join(f"{number:08d}" for number in answer["missing"][:FAILURES_SHOWN])
        more = (
            f" and {len(answer['missing']) - FAILURES_SHOWN:,} more" if len(answer["missing"]) > FAILURES_SHOWN else ""
        )
        lines.append(f"Manifests that others refer to and that are missing: {numbers}{more}.")
    return lines


# --- platform ---------------------------------------------------------------------------------------------------------


def services(answer: Answer) -> RenderableType:
    """`up`, `check`: one line for each service, with what is wrong and how to mend it."""
    rows = answer["services"]
    width = max((len(row["name"]) for row in rows), default=0)
    return Group(*(_service(row, width) for row in rows))


def _service(row: Answer, width: int) -> Text:
    # One line, however long: it is read by eyes and by grep.
    line = Text(f"{row['name']:<{width}}  ", no_wrap=True, overflow="ignore")
    line.append("ok " if row["ok"] else "bad", style="green" if row["ok"] else "red")
    latency = f"{row['latency_ms']:g} ms" if row.get("latency_ms") is not None else ""
    remedy = f"({row['remedy']})" if row.get("remedy") else ""
    for fact in filter(None, (row["address"], row["version"], latency, row.get("problem"), remedy)):
        line.append(f"  {fact}")
    return line


def initialised(answer: Answer) -> RenderableType:
    """`init`: what is where now."""
    lines = [
        Text(
            f"{answer['env']} {'is written' if answer['changed'] else 'is there'}; aipctl config show lists the settings."
        )
    ]
    if answer["profile"]:
        lines.append(Text(f"Prefect's own commands: prefect --profile {answer['profile']} ..."))
    else:
        lines.append(Text("Now: docker compose --env-file .env -f stack/docker-compose.yml up --detach"))
    return Group(*lines, *([services(answer)] if answer["services"] else []))


def kept(answer: Answer) -> RenderableType:
    """`blocks init`: what Prefect keeps now."""
    return table([words("kind"), words("name"), words("change"), words("where")], answer["kept"])


def environments(answer: Answer) -> RenderableType:
    """`env ls`: one line for each environment."""
    columns = [
        words("environment"), words("from"), count("assets"), count("own"), count("units"), count("documents"),
        Column("made", lambda row: moment(row["made_at"])),
    ]  # fmt: skip
    return table(columns, answer["environments"]) if answer["environments"] else Text("There is no environment yet.")


def environment_diff(answer: Answer) -> RenderableType:
    """`env diff`: what differs of each asset, and the first documents."""
    name, other = answer["environment"], answer["other"]
    rows = [row for row in answer["assets"] if row["documents"] or row["remade"]]
    if not rows:
        return Text(f"{name} is what {other} is.")
    signs = {"added": ("+", "green"), "changed": ("~", "yellow"), "removed": ("-", "red")}
    parts: list[RenderableType] = [table([words("asset"), *(count(kind) for kind in (*signs, "remade"))], rows)]
    for row in rows:
        for one in row["documents"][:CHILDREN_SHOWN]:
            sign, style = signs[one["change"]]
            document = one["document"] if one["document"] != one["unit"] else None
            parts.append(Text(f"{sign} {format_ref(row['asset'], one['unit'], document)}", style=style))
        if len(row["documents"]) > CHILDREN_SHOWN:
            more = len(row["documents"]) - CHILDREN_SHOWN
            parts.append(Text(f"  and {more:,} more of {row['asset']} (all of them: --json)", style="dim"))
    counts = {kind: sum(row[kind] for row in rows) for kind in signs}
    told = counted(counts, tuple(signs))
    parts.append(Text(f"{name} against {other}: {told}." if told else f"All documents of {name} are those of {other}."))
    return Group(*parts)


def promoted(answer: Answer) -> RenderableType:
    """`env promote`: what moved."""
    name, to = answer["environment"], answer["to"]
    if answer["run"] is None:
        return Text(f"{to} is what {name} is already.")
    units = sum(row["units"] for row in answer["assets"])
    drawn = table([words("asset"), count("units"), count("removed")], answer["assets"])
    return Group(drawn, Text(f"{to} is now what {name} is: {plural(units, 'unit')} moved, by run {answer['run']}."))


def settings(answer: Answer) -> RenderableType:
    """`config show`: every setting, its value, and who said so."""
    columns = [words("name"), words("value"), words("origin")]
    return table(columns, answer["settings"])


# --- parts ------------------------------------------------------------------------------------------------------------


class Column(NamedTuple):
    """A column of a table: its title and what it says of a row. Numbers stand to the right and are never broken."""

    title: str
    text: Callable[[Answer], str]
    numeric: bool = False


def words(key: str) -> Column:
    """The value of this key as it is."""
    return Column(key, lambda row: "" if row.get(key) is None else str(row[key]))


def count(key: str) -> Column:
    """The number of this key."""
    return Column(key, lambda row: number(row.get(key)), numeric=True)


def table(columns: Sequence[Column], rows: Sequence[Answer], keep: Collection[str] = ()) -> RenderableType:
    """A table of these rows. Columns that say nothing are left out, except the first and those to `keep`."""
    chosen: list[tuple[Column, list[str]]] = []
    for index, column in enumerate(columns):
        cells = [column.text(row) for row in rows]
        if index == 0 or column.title in keep or any(cell not in ("", "0") for cell in cells):
            chosen.append((column, cells))
    return Rows(chosen)


class Rows:
    """Columns side by side where they fit, otherwise each row as a paragraph: a number is never cut."""

    def __init__(self, columns: Sequence[tuple[Column, list[str]]]) -> None:
        self.columns = columns

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        widths = [max(map(len, (column.title, *cells))) for column, cells in self.columns]
        least = [
            width if column.numeric else min(width, UNBROKEN)
            for (column, _), width in zip(self.columns, widths, strict=True)
        ]
        if sum(least) + 2 * (len(least) - 1) > options.max_width:
            yield from self._paragraphs()
            return
        drawn = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
        for (column, _), width in zip(self.columns, least, strict=True):
            drawn.add_column(
                column.title, justify="right" if column.numeric else "left", overflow="fold", min_width=width
            )
        for cells in zip(*(cells for _, cells in self.columns), strict=True):
            drawn.add_row(*map(Text, cells))
        yield drawn

    def _paragraphs(self) -> Iterator[Text]:
        (_, heads), *others = self.columns
        for row, head in enumerate(heads):
            facts = [f"{column.title} {cells[row]}" for column, cells in others if cells[row] not in ("", "0")]
            yield Text(head, style="bold", overflow="fold")
            yield Text("  " + ", ".join(facts))


def diff_text(unified: str) -> RichText:
    """A unified diff, coloured as everywhere."""
    styles = {"+": "green", "-": "red", "@": "cyan"}
    lines = [Text(line, style=styles.get(line[:1], "")) for line in unified.rstrip("\n").split("\n")]
    return Text("\n", no_wrap=True, overflow="ignore").join(lines)


def indented(text: RichText, columns: int) -> RichText:
    """The text with every line moved to the right."""
    return Text("\n").join(Text(" " * columns).append_text(line) for line in text.split("\n"))


def trial(answer: Answer) -> list[RenderableType]:
    """What a sample of stale units came out as: those that differ with their diffs, the share that does not, the cost of the rest."""
    parts: list[RenderableType] = []
    differing = [one for one in answer["units"] if not one["same"]]
    for one in differing[:FAILURES_SHOWN]:
        reference = format_ref(answer["asset"], one["unit"])
        parts.append(
            Text(f"{reference} failed: {one['error']}" if one["error"] else f"{reference} comes out otherwise:")
        )
        if one["diff"]:
            parts.append(indented(diff_text(one["diff"]), 2))
    if len(differing) > FAILURES_SHOWN:
        parts.append(Text(f"and {len(differing) - FAILURES_SHOWN:,} more (all of them: --json)", style="dim"))
    rest = answer["rest"]
    took = [f"about {duration(rest['seconds'])}"] if rest["seconds"] else []
    took += [plural(rest["tokens"], "token")] if rest["tokens"] else []
    took += [dollars(rest["usd"])] if rest["usd"] else []
    told = (
        f"{answer['asset']}: {answer['unchanged']:,} of {plural(answer['sampled'], 'sampled unit')} came out unchanged"
    )
    left = (
        f"; the other {plural(rest['units'], 'stale unit')} would take {', '.join(took)}"
        if rest["units"] and took
        else ""
    )
    return [*parts, Text(f"{told}{left}.")]


def accepted(answer: Answer) -> RenderableType:
    """`accept`: what was tried, and what was said."""
    parts = trial(answer["trial"]) if answer["trial"] else []
    if answer["accepted"]:
        how = "" if answer["accepted"][0]["verified"] else f" without trying: {answer['accepted'][0]['why']}"
        parts.append(
            Text(f"Accepted{how}. {plural(answer['fresh'], 'unit')} of {answer['asset']} count as made by this code.")
        )
    else:
        parts.append(Text("Not accepted: what this code makes is not what there is."))
    return Group(*parts)


def acceptance(answer: Answer) -> Text:
    """One acceptance, wherever it is told."""
    by = f"by {answer['actor']} on {moment(answer['at'])}"
    if answer["verified"]:
        return Text(
            f"  made with earlier code that counts as this, {by}: {plural(len(answer['units']), 'sampled unit')} came out the same"
        )
    return Text(f"  made with earlier code that counts as this, {by}, unverified: {answer['why']}", style="yellow")


def estimates(answer: Answer) -> list[RenderableType]:
    """What models will be paid for, by asset: at the median, at the 90th percentile, and from how many units that is known."""
    lines: list[RenderableType] = []
    for one in answer.get("estimates", ()):
        if one["known"] and (one["tokens"]["p90"] or one["usd"]["p90"]):
            amounts = (
                [f"{dollars(one['usd']['median'])} (p90 {dollars(one['usd']['p90'])})"] if one["usd"]["p90"] else []
            )
            if one["tokens"]["p90"]:
                amounts.append(f"{round(one['tokens']['median']):,} tokens (p90 {round(one['tokens']['p90']):,})")
            pending = f"; {dollars(one['usd']['pending'])} more for what is pending" if one["usd"]["pending"] else ""
            lines.append(
                Text(f"{one['asset']}: {', '.join(amounts)}{pending}, from {plural(one['known'], 'unit')}", style="dim")
            )
        elif not one["known"] and one["stale"]:
            lines.append(Text(f"{one['asset']}: never made, so its cost is not known", style="dim"))
    return lines if any("from" in str(line) for line in lines) else []


def dollars(amount: float) -> str:
    """`12.50 USD`; of less than a dollar two digits that say something."""
    return f"{amount:,.2f} USD" if amount >= 1 or not amount else f"{amount:.2g} USD"


def number(value: int | None) -> str:
    return "" if value is None else f"{value:,}"


def plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def counted(counts: Mapping[str, int], keys: Sequence[str]) -> str:
    """`3 new, 1 removed`: what is not zero."""
    return ", ".join(f"{counts[key]:,} {key}" for key in keys if counts.get(key))


def size(count: int) -> str:
    """Bytes for people: `812 B`, `3.4 MB`."""
    amount = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} TB"


def duration(seconds: float) -> str:
    """`0.4 s`, `12 s`, `3 min 20 s`, `2 h 5 min`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def took(answer: Answer) -> str:
    seconds = answer.get("seconds")
    return "" if seconds is None else duration(seconds)


def moment(value: str | datetime | None) -> str:
    """A point in time in the reader's own zone, to the second."""
    if value is None:
        return ""
    at = datetime.fromisoformat(value) if isinstance(value, str) else value
    return at.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def short(value: Any) -> str:
    """A value in one line of at most 60 characters."""
    text = "nothing" if value is None else str(value).replace("\n", " ")
    return text if len(text) <= 60 else text[:57] + "..."
