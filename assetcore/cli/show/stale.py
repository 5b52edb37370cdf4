"""Stale: how does it look that something must be made, why, and what that would take? `plan`, `why`, `accept`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from shlex import quote

from rich.console import Group, RenderableType

from assetcore.cli.show.parts import (
    FAILURES_SHOWN,
    Answer,
    Column,
    Text,
    as_written,
    brief,
    count,
    counted,
    diff_text,
    dollars,
    duration,
    field_lines,
    indented,
    moment,
    partitions_done,
    plural,
    short,
    table,
    words,
)
from assetcore.refs import format_ref


def plan(answer: Answer, select: str | None = None, *, units: bool = False) -> RenderableType:
    """`plan SELECT`: what is stale for each asset and why, what the sources brought, what it will take."""
    parts: list[RenderableType] = [Text(f"If: {'; '.join(answer['if'])}", style="bold")] if answer.get("if") else []
    parts += [
        Text(f"{source['source']}: {plural(source['documents'], 'document')}, {changes}")
        for source in answer.get("sources", ())
        if (changes := counted(source, ("new", "changed", "removed", "lost", "unread")))
    ]
    idle = [row for row in answer["assets"] if not _touched(row)]
    busy = [row for row in answer["assets"] if _touched(row)]
    if busy:
        columns = [
            words("asset"),
            Column("partitions", partitions_done),
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
        parts.append(
            Text(
                f"Not selected, but stale above: {', '.join(stale_inputs)}. To make them, too:"
                f" aipctl materialize {quote(select or '')} --upstream"
            )
        )
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
    # Where what would be made was refused, too, it is the unit as it is that was looked at.
    of = "" if answer["fresh"] else " (of what is current)"
    said = [Text(f"  {_verdict(c)}{'' if 'scope' in c else of}") for c in answer.get("checks", ())]
    made = f"made {moment(answer['made_at'])}" if answer.get("made_at") else ""
    until = f", fresh until {moment(answer['fresh_until'])}" if answer.get("fresh_until") else ""
    if made and (answer["fresh"] or until):
        said.insert(0, Text(f"  {made}{until}", style="dim"))
    said += [acceptance(one) for one in answer.get("accepted", ())]
    said += _notes(answer)
    if answer["fresh"]:
        return Group(as_written(f"{answer['unit']} is fresh."), *said)
    parts: list[RenderableType] = [as_written(f"{answer['unit']} is {answer.get('status', 'stale')}:")]
    for cause in answer["causes"]:
        parts += _root(cause, f"{cause['code']}: ")
    return Group(*parts, *said)


def _verdict(check: Answer) -> str:
    """What a check says of a unit or, where it has a `scope`, of an asset."""
    if check["status"] == "due":
        return f"check {check['check']} is to be asked"
    bad = check.get("failed", 0) + check.get("errors", 0)
    of = f" for {plural(bad, 'unit')}" if check.get("scope") == "unit" and bad else ""
    return f"check {check['check']} {check['status']}{of}" + (f": {check['message']}" if check["message"] else "")


def _notes(answer: Answer) -> list[RenderableType]:
    """What of the code cannot be followed, and what was read that nothing declares."""
    return [
        Text(f"{note['code']} {note['asset']}: {note['what']} ({note['where']}). {note['settle']}", style="yellow")
        for note in answer.get("notes", ())
    ]


def _root(cause: Answer, head: str = "") -> list[RenderableType]:
    """One root: what it is, the way to it, and what was and is."""
    said, _, traceback = cause["detail"].partition("\n")
    many = f" ({plural(cause['units'], 'unit')})" if cause.get("units", 1) > 1 and "," not in said else ""
    parts: list[RenderableType] = [as_written(f"  {head}{said}{many}")]
    if traceback:
        parts.append(indented(as_written(traceback, style="dim"), 4))
    if way := cause.get("path"):
        parts.append(as_written(f"    through {' > '.join(way)}", style="dim"))
    before, after, diff = cause["before"], cause["after"], cause.get("diff")
    # The two versions of a document have ids, by which each can be shown; those of lines of code are digests.
    if before != after and (not diff or cause["code"] == "input-changed"):
        parts.append(Text(f"    {short(before)} -> {short(after)}"))
    parts += [indented(line, 4) for line in field_lines(cause)]
    if diff:
        parts.append(indented(diff_text(diff), 4))
    return parts


def _roots(group: Answer) -> list[RenderableType]:
    """All roots of one cause in a plan."""
    # Each is counted by its first cause.
    counts = counted(group, ("stale", "pending", "removed")) or "of units that are counted above"
    parts: list[RenderableType] = [Text(f"{group['code']}: {counts}", style="bold")]
    for cause in group["roots"]:
        parts += _root(cause, f"{cause['subject']}: " if group["code"] == "failed" and cause["subject"] else "")
    return parts


def estimates(answer: Answer) -> list[RenderableType]:
    """What a unit of each asset takes, and what models will be paid for all of them: at the median, at the 90th percentile, and from how
    many units that is known. Nothing where all of it takes less than a second."""
    lines: list[RenderableType] = []
    for one in answer.get("estimates", ()):
        each = one["per_unit"]["seconds"] if one["known"] else {"p90": 0.0}
        takes_time = each["p90"] * one["stale"] >= 1
        if one["known"] and (takes_time or one["tokens"]["p90"] or one["usd"]["p90"]):
            amounts = [f"{brief(each['median'])} a unit (p90 {brief(each['p90'])})"] if takes_time else []
            if one["usd"]["p90"]:
                amounts.append(f"{dollars(one['usd']['median'])} (p90 {dollars(one['usd']['p90'])})")
            if one["tokens"]["p90"]:
                amounts.append(f"{round(one['tokens']['median']):,} tokens (p90 {round(one['tokens']['p90']):,})")
            pending = f"; {dollars(one['usd']['pending'])} more for what is pending" if one["usd"]["pending"] else ""
            lines.append(
                Text(f"{one['asset']}: {', '.join(amounts)}{pending}, from {plural(one['known'], 'unit')}", style="dim")
            )
        elif not one["known"] and one["stale"]:
            lines.append(Text(f"{one['asset']}: never made, so its cost is not known", style="dim"))
    return lines if any("from" in str(line) for line in lines) else []


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
        lines += [as_written(f"  {line}") for line in named]
        if bad > len(named) and check["scope"] == "unit":
            lines.append(Text(f"  and {bad - len(named):,} more", style="dim"))
    return lines


def trial(answer: Answer) -> list[RenderableType]:
    """What a sample of stale units came out as: those that differ with their diffs, the share that does not, the cost of the rest."""
    parts: list[RenderableType] = []
    differing = [one for one in answer["units"] if not one["same"]]
    for one in differing[:FAILURES_SHOWN]:
        reference = format_ref(answer["asset"], one["unit"])
        parts.append(
            as_written(f"{reference} failed: {one['error']}" if one["error"] else f"{reference} comes out otherwise:")
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
