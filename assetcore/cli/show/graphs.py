"""Graphs: how does it look what is made of what? `graph`, `lineage`, and the same in the words of other programs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from importlib.metadata import version
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text as RichText

from assetcore.cli.plain import plain
from assetcore.cli.show.parts import CHILDREN_SHOWN, Answer, Text, plural
from assetcore.cli.show.stale import acceptance
from assetcore.refs import format_ref

DEPTH_SHOWN = 50
OPENLINEAGE = "https://openlineage.io/spec"


def lineage(answer: Answer) -> RenderableType:
    """`lineage`: a tree from what was asked for, away from it, by name; what was shown above is not shown again."""
    nodes = {node["id"]: node for node in answer["nodes"]}
    beyond = {
        node: sorted(children, key=lambda child: label_of(nodes[child])) for node, children in _beyond(answer).items()
    }
    reached = {child for children in beyond.values() for child in children}
    roots = [answer["root"]] if answer["root"] in nodes else [node for node in nodes if node not in reached]
    parts = {span["document"]: span for span in answer.get("spans", ())}

    def label(node: str) -> Text:
        span = parts.get(node)
        of = f" of {label_of(nodes[span['of']])}" if span and span["of"] in nodes else ""
        return Text(label_of(nodes[node])).append(f"  {part(span)}{of}" if span else "", style="dim")

    tree = _trees(roots, beyond, label)
    notes = [Text(f"Only the first {plural(len(nodes), 'document')}; fewer steps: --depth N", style="dim")]
    if not answer.get("truncated"):
        notes = []
    for asset, said in (answer.get("accepted") or {}).items():
        notes += [
            Text(f"{asset}, code of {one['old'][:10]} counts as {one['new'][:10]}:\n{acceptance(one)}") for one in said
        ]
    return Group(tree, *notes) if notes else tree


def part(span: Answer) -> str:
    """`bytes 120 to 480`, `page 3`, `/chapters/0`."""
    if span["kind"] == "pointer":
        return span["pointer"] or "all"
    if span["kind"] == "pages" and span["start"] == span["end"]:
        return f"page {span['start']:,}"
    return f"{span['kind']} {span['start']:,} to {span['end']:,}"


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
    return Group(drawn)  # a text that stands alone is broken, whatever it says


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


def graphml(answer: Answer) -> str:
    """A graph or a lineage for programs that lay out and measure graphs (yEd, Gephi, networkx)."""
    import networkx as nx  # 0.13 s: only who asks for this waits for it

    drawn: nx.DiGraph[str] = nx.DiGraph(_downward(answer))
    for node in answer["nodes"]:
        facts = {name: plain(value) for name, value in node.items() if isinstance(value, str)}
        drawn.add_node(node.get("id", node["asset"]), **facts, label=plain(label_of(node)))
    return "\n".join([*nx.generate_graphml(drawn), ""])


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
        return {"namespace": namespace, "name": label_of(node), **facets}

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
    return {node.get("id", node["asset"]): label_of(node) for node in answer["nodes"]}


def label_of(node: Answer) -> str:
    """The shortest REF: a unit's label and its document's name are often the same."""
    unit, document = node.get("unit"), node.get("document")
    return format_ref(node["asset"], unit, document if unit is not None and document != unit else None)


def _dot_quoted(text: str) -> str:
    escaped = plain(text).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _mermaid_quoted(text: str) -> str:
    entities = {"&": "&amp;", '"': "&quot;", "<": "&lt;", ">": "&gt;", "#": "#35;"}
    return "".join(entities.get(character, character) for character in plain(text))
