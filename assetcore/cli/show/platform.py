"""Platform: how do services, settings and environments look? `check`, `init`, `config`, `env`."""

from __future__ import annotations

import json
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table

from assetcore.cli.show.parts import CHILDREN_SHOWN, Answer, Column, Text, count, counted, moment, plural, table, words
from assetcore.refs import format_ref


def services(answer: Answer) -> RenderableType:
    """`up`: how each service is, with what is wrong and how to mend it."""
    drawn = Table.grid(padding=(0, 2, 0, 0))
    for row in answer["services"]:
        latency = f"{row['latency_ms']:g} ms" if row.get("latency_ms") is not None else ""
        remedy = f"({row['remedy']})" if row.get("remedy") else ""
        facts = filter(None, (row["version"], latency, row["address"], row.get("problem"), remedy))
        well = Text("ok", style="green") if row["ok"] else Text("bad", style="red")
        drawn.add_row(Text(row["name"]), well, Text("  ".join(facts), overflow="fold"))
    return drawn


def checked(answer: Answer) -> RenderableType:
    """`check`: the services, the settings that somebody gave, and how many nobody did."""
    given = [row for row in answer["settings"] if row["origin"] != "default"]
    shown = [settings({"settings": given})] if given else []
    others = plural(len(answer["settings"]) - len(given), "setting")
    return Group(services(answer), Text(), *shown, Text(f"{others} by default: aipctl config show"))


def initialised(answer: Answer) -> RenderableType:
    """`init`: what is where now, and what to do next."""
    lines = [
        Text(
            f"{answer['env']} {'is written' if answer['changed'] else 'is there'}; aipctl config show lists the settings."
        )
    ]
    if answer["profile"]:
        other = "" if answer["profile"] == "assetcore" else " (assetcore is another folder's)"
        lines.append(Text(f"Prefect's own commands: prefect --profile {answer['profile']} ...{other}"))
    else:
        lines.append(Text(f"Now: {answer['compose']}", no_wrap=True, overflow="ignore"))  # to be copied
    if answer["services"]:
        project = answer["projects"][0] if answer["projects"] else None
        lines += [Text(f"Now: aipctl {f'materialize -p {project}' if project else 'new project NAME'}")]
    return Group(*([services(answer)] if answer["services"] else []), *lines)


def _setting(value: Any) -> str:
    """The value of a setting; a dash where nobody gave one."""
    return "-" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


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
    columns = [words("name"), Column("value", lambda row: _setting(row["value"])), words("origin")]
    return table(columns, answer["settings"])
