"""Trust: how does it look that all is well, and what is not? `verify`, `gc`, `catalog`, `journal`, `forget`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from shlex import quote

from rich.console import Group, RenderableType

from assetcore.cli.show.parts import (
    FAILURES_SHOWN,
    ROWS_SHOWN,
    Answer,
    Column,
    Text,
    count,
    diff_text,
    duration,
    indented,
    moment,
    plural,
    size,
    table,
    took,
    words,
)
from assetcore.refs import format_ref

ROW_NAMES = 3
_DIGEST = re.compile(r"\b([0-9a-f]{10})[0-9a-f]{22,}\b")
"""What is told of by its beginning, as runs are."""
UNTOLD = ("manifest", "sha256", "number", "asset_id", "from")
"""What of a row's facts is for programs; people read it in `why`."""


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
    return Text(done + "; ".join(parts) + free + (". To do it, add --yes." if answer["dry_run"] else "."))


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


def _not_whole(answer: Answer) -> list[str]:
    lines = [f"Cannot be read: {key}: {reason}" for key, reason in answer["damaged"].items()]
    if answer["missing"]:
        numbers = ", ".join(f"{number:08d}" for number in answer["missing"][:FAILURES_SHOWN])
        more = (
            f" and {len(answer['missing']) - FAILURES_SHOWN:,} more" if len(answer["missing"]) > FAILURES_SHOWN else ""
        )
        lines.append(f"Manifests that others refer to and that are missing: {numbers}{more}.")
    return lines


def journal(answer: Answer) -> RenderableType:
    """`journal`: one line for each thing that was done."""
    if not answer["journal"]:
        return Text("Nothing was done.")
    rows = answer["journal"]
    columns = [
        Column("", lambda row: f"{row['number']:,}", numeric=True),
        Column("when", lambda row: moment(row["at"])),
        words("what"),
        words("asset"),
        Column("how", _done),
        words("actor")._replace(spare=True),
    ]
    if len({row["environment"] for row in rows}) > 1:
        columns.append(words("environment")._replace(spare=True))
    return table(columns, rows)


def _done(row: Answer) -> str:
    """What a row of the journal says, in a few words."""
    facts = {k: v for k, v in row["facts"].items() if isinstance(v, int | str) and k not in UNTOLD}
    parts = [row["environment"]] if row["what"].startswith("env ") else []
    parts += [
        f"{value:,} {name}" if isinstance(value, int) else _DIGEST.sub(r"\1", value) for name, value in facts.items()
    ]
    named = row["names"][:ROW_NAMES]
    more = len(row["names"]) - len(named)
    parts += [*named, *([f"and {more:,} more"] if more else [])]
    if row["what"] in ("run", "flow"):
        parts.append(row["run"])
    if row["forgotten"]:
        parts.append(f"{row['forgotten']:,} forgotten")
    return ", ".join(parts + ([row["why"]] if row["why"] else []))


def journal_checked(answer: Answer) -> RenderableType:
    """`journal verify`: what is wrong, or how much is right."""
    if answer["problems"]:
        return Group(*(Text(problem) for problem in answer["problems"]))
    return Text(
        f"The journal is whole: {plural(answer['rows'], 'row')}, {answer['unsealed']:,} of them not in the bucket yet."
    )


def forgotten(answer: Answer) -> RenderableType:
    """`forget`: how much of each asset goes, or went, and where the report is."""
    if told := answer["tombstone"]:
        at, who, file = moment(told["at"]), told["actor"], told["file"]
        again = " The source has it again, and the next run takes it in." if answer["in_source"] else ""
        return Text(f"{answer['ref']} was forgotten on {at} by {who}: see the report {file}.{again}")
    columns = [words("asset"), count("units"), Column("such as", lambda row: ", ".join(row["examples"]))]
    if not answer["dry_run"]:
        columns = columns[:2]
    what = (
        f"{plural(answer['documents'], 'document')} in {plural(answer['objects'], 'object')} ({size(answer['bytes'])})"
    )
    end = (
        f"Would erase {what}. To do it: aipctl forget {quote(answer['ref'])} --yes"
        if answer["dry_run"]
        else f"Erased {what}."
    )
    lines: list[RenderableType] = [table(columns, answer["assets"]), Text(end)]
    if answer["in_source"] is not False:
        has = "The source still has it" if answer["in_source"] else "If the source still has it"
        lines.append(Text(f"{has}: remove it there, or the next run takes it in again."))
    if lost := answer["lost"]:
        those = ", ".join(f"{name} {number:,}" for name, number in lost.items())
        lines.append(Text(f"Beside it lay what cannot be read any more: {those}. To make it again: aipctl materialize"))
    if answer["file"]:
        lines.append(Text(f"The signed report: {answer['file']}"))
        if unread := answer["report"]["report"]["unread"]:
            those = f"{plural(unread, 'document')} of it could not be read"
            lines.append(Text(f"{those}: what models were asked was not searched for what it said"))
        if flows := answer["report"]["report"]["flows"]:
            lines.append(
                Text(
                    f"Lineage does not know of what flows made what they gave: {plural(flows, 'document')} not removed"
                )
            )
        if left := answer["report"]["report"]["prefect"].get("not removed"):
            lines.append(Text(f"Tables in Prefect that may name it were not removed: {left}"))
    return Group(*lines)
