"""Markdown: how does a plan look as a comment on a pull request?

GitHub-flavoured, short, from the JSON answer of `plan`: a sentence, a table of the assets that a run would touch, and what is at the
root of it, grouped by cause. Names and contents of documents are anybody's: none of them becomes markup.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from assetcore.cli.show import causes, counted, plan_sentence, plural

__all__ = ["plan"]

ROOTS = 5
"""So many roots of each cause are told."""
DIFF_LINES = 30
LONGEST = 60_000
"""GitHub takes comments of up to 65,536 characters."""
COLUMNS = ("units", "stale", "pending", "removed")


def plan(answer: Mapping[str, Any]) -> str:
    """The plan as a comment."""
    busy = [row for row in answer["assets"] if row["stale"] or row["pending"] or row["removed"]]
    lines = [
        f"### {_code(answer['project'])} against {_code(answer['environment'])}",
        "",
        plan_sentence(answer, busy),
        "",
    ]
    shown = [column for column in COLUMNS if any(row[column] for row in busy)]
    if busy:
        lines += [f"| asset | {' | '.join(shown)} | why |", f"|---|{'--:|' * len(shown)}---|"]
        lines += [
            f"| {_code(row['asset'])} | {' | '.join(format(row[column], ',') for column in shown)} | {causes(row['causes'])} |"
            for row in busy
        ]
        lines.append("")
    for source in answer["sources"]:
        if told := counted(source, ("new", "changed", "removed")):
            lines.append(f"- source {_code(source['source'])}: {told} of {plural(source['documents'], 'document')}")
    for check in answer["checks"]:
        if check["failed"] or check["errors"]:
            kind = "blocking check" if check["blocking"] else "check"
            lines.append(f"- {kind} {_code(check['asset'] + '.' + check['check'])} has not passed")
    for group in answer.get("why", ()):
        lines += _group(group)
    text = "\n".join(lines).rstrip() + "\n"
    return text if len(text) <= LONGEST else "\n".join(_without_details(lines)) + "\n"


def _group(group: Mapping[str, Any]) -> Iterator[str]:
    """One cause, folded together, with its roots."""
    yield ""
    yield f"<details><summary><b>{group['code']}</b>: {counted(group, ('stale', 'pending', 'removed'))}</summary>"
    yield ""
    for root in group["roots"][:ROOTS]:
        many = f" ({plural(root['units'], 'unit')})" if root["units"] > 1 and "," not in root["detail"] else ""
        yield f"- {_escaped(root['detail'])}{many}"
        if root.get("diff"):
            yield from _fenced(root["diff"])
        elif root["before"] is not None or root["after"] is not None:
            yield f"  {_code(_short(root['before']))} → {_code(_short(root['after']))}"
    if len(group["roots"]) > ROOTS:
        yield f"- and {len(group['roots']) - ROOTS:,} more: `aipctl plan --why`"
    yield ""
    yield "</details>"


def _fenced(diff: str) -> Iterator[str]:
    """A diff as code; the fence is longer than any run of backticks inside."""
    rows = diff.rstrip("\n").split("\n")
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall(r"`+", diff)), default=0))
    yield f"  {fence}diff"
    yield from (f"  {row}" for row in rows[:DIFF_LINES])
    if len(rows) > DIFF_LINES:
        yield f"  and {len(rows) - DIFF_LINES:,} lines more"
    yield f"  {fence}"


def _without_details(lines: list[str]) -> Iterator[str]:
    """What is left of a comment that is too long: all but what is folded together, as much as fits."""
    size, folded = 0, False
    for line in lines:
        folded = folded or line.startswith("<details>")
        if not folded and (size := size + len(line) + 1) <= LONGEST:
            yield line
        folded = folded and line != "</details>"
    yield "Too long for a comment: `aipctl plan --why` tells all of it."


def _code(text: str) -> str:
    """A name as code; also in a table, where a bar would end the cell."""
    fence = "`" * (1 + max((len(run) for run in re.findall(r"`+", text)), default=0))
    inside = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text).replace("|", "\\|")
    return f"{fence} {inside} {fence}" if len(fence) > 1 else f"`{inside}`"


def _escaped(text: str) -> str:
    """A sentence with names in it: nothing of it is markup, a mention or a link."""
    plain = "".join(c if c.isprintable() else " " for c in text)
    plain = plain.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("@", "@\N{ZERO WIDTH SPACE}")
    return re.sub(r"([\\`*_{}\[\]#|~!])", r"\\\1", plain)


def _short(value: Any) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= 60 else text[:57] + "..."
