"""Contents: how does it look what there is? `ls`, `show`, `diff`, `search`, `export`."""

from __future__ import annotations

import json

from rich.console import Group, RenderableType
from rich.table import Table

from assetcore.cli.show.graphs import part
from assetcore.cli.show.parts import (
    ROWS_SHOWN,
    Answer,
    Column,
    Text,
    count,
    counted,
    diff_text,
    dollars,
    duration,
    field_lines,
    indented,
    moment,
    number,
    partitions_done,
    plural,
    size,
    table,
    words,
)


def assets(answer: Answer) -> RenderableType:
    """`ls`: one line for each asset."""
    rows = answer["assets"]
    dated = [
        Column("made", lambda row: moment(row.get("made_at"))),
        Column("fresh until", lambda row: moment(row.get("fresh_until"))),
    ]
    costs = any(row.get("cost") for row in rows)
    columns = [
        words("asset"),
        *([] if costs else [words("kind")]),
        count("units"),
        count("documents"),
        Column("partitions", partitions_done),
        count("stale"),
        count("failed"),
        Column("checks", _standing),
        Column("varies", _varies),
        *([] if costs else dated),
        Column("calls", lambda row: number((row.get("cost") or {}).get("calls")), numeric=True),
        Column("call time", lambda row: duration(row["cost"]["seconds"]) if row.get("cost") else "", numeric=True),
        Column("tokens", lambda row: number((row.get("cost") or {}).get("tokens") or None), numeric=True),
        Column(
            "cost", lambda row: dollars(row["cost"]["usd"]) if (row.get("cost") or {}).get("usd") else "", numeric=True
        ),
        Column("tags", lambda row: ", ".join(row.get("tags") or ()), spare=True),
        Column("kinds", lambda row: ", ".join(row.get("kinds") or ()), spare=True),
        words("owner")._replace(spare=True),
        words("sensitivity")._replace(spare=True),
        *([column._replace(spare=True) for column in dated] if costs else []),
    ]
    if any(row["group"] != "main" for row in rows):
        columns.append(words("group")._replace(spare=True))
    return table(columns, rows)


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


def context(answer: Answer) -> RenderableType:
    """`show --context`: the document that something is part of, and the lines there, marked, with those around them."""
    found = answer["place"]
    lines = ""
    if found:
        first, last = f"{found['first']:,}", f"{found['last']:,}"
        lines = f", line {first}" if first == last else f", lines {first} to {last}"
    parts: list[RenderableType] = [Text(f"{answer['document']}: {part(answer)}{lines}", style="bold")]
    if found:
        number = found["first"] - len(found["before"])
        numbered = Table.grid(padding=(0, 2, 0, 0))
        for key, mark in (("before", " "), ("lines", ">"), ("after", " ")):
            for line in found[key]:
                shown = "".join(c if c.isprintable() or c == "\t" else f"\\x{ord(c):02x}" for c in line)
                numbered.add_row(f"{mark} {number:>5}", Text(shown), style="" if mark == ">" else "dim")
                number += 1
        parts.append(numbered)
    elif answer["kind"] == "pointer":
        value = json.dumps(answer["value"], ensure_ascii=False, indent=1)
        parts.append(indented(Text("".join(c if c.isprintable() or c == "\n" else "?" for c in value)), 2))
    others = [ref for ref in answer["sources"] if not answer["document"].startswith(ref)]
    return Group(*parts, *([Text(f"made of {', '.join(others)}", style="dim")] if others else []))


def comparison(answer: Answer) -> RenderableType:
    """`diff`: a unified diff, or what is to be said where there is none; of several documents those that differ."""
    if answer.get("documents"):
        columns = [words("document"), words("change"), words("before"), words("after")]
        rows, counts = answer["documents"], answer["counts"]
        total = Text(f"{counted(counts, ('new', 'changed', 'gone'))}.")
        more = sum(counts.values()) - len(rows[:ROWS_SHOWN])
        parts = [table(columns, rows[:ROWS_SHOWN]), *([Text(f"and {more:,} more", style="dim")] if more else []), total]
        return Group(*parts)
    parts = [*field_lines(answer), *([diff_text(answer["diff"])] if answer["diff"] else [])]
    return Group(*parts) if parts else Text("They are the same." if answer["same"] else "They differ.")


def found(answer: Answer) -> RenderableType:
    """`search`: the best documents first, each with the passage that answers."""
    parts: list[RenderableType] = []
    for hit in answer["hits"]:
        head = Text(hit["name"], style="bold").append(f"  {hit['asset']}", style="dim")
        parts.append(head if hit["title"] in ("", hit["name"]) else head.append(f"  {hit['title']}", style=""))
        parts.append(indented(Text(" ".join(hit["snippet"].split())), 2))
    return Group(*parts) if parts else Text("Nothing was found.")


def exported(answer: Answer) -> RenderableType:
    """`export`: how much was written where."""
    written = answer["files"] if isinstance(answer["files"], int) else len(answer["files"])
    return Text(f"{plural(written, 'document')} written to {answer['directory']}.")
