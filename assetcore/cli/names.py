"""Names: what can a shell complete without loading a project?

Every verb that loads a project leaves the names that are in it in the home, where completion finds them: it answers in the time
that click takes to start. Where there is no home, or it cannot be written, nothing is completed, and nothing fails.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

if TYPE_CHECKING:
    import click

    from assetcore.graph import Graph

__all__ = [
    "complete_asset",
    "complete_environment",
    "complete_flow",
    "complete_index",
    "complete_input",
    "complete_journal",
    "complete_project",
    "complete_selection",
    "complete_setting",
    "complete_supposition",
    "names_in",
    "remember",
]

FILE = "names.json"
Kind: TypeAlias = Literal["assets", "config", "indexes", "flows", "environments"]
Names: TypeAlias = dict[str, dict[Kind, list[str]]]
"""What was remembered of each project."""

VALUES: Mapping[str, Collection[str]] = {
    "kind": ("source", "asset"),
    "sensitivity": ("public", "internal", "confidential", "restricted"),
    "status": ("fresh", "stale", "pending", "removed"),
    "cause": (
        "forced", "missing", "failed", "object-missing", "corrupt", "inputs-changed", "schema-changed", "version-changed",
        "code-changed", "environment-changed", "config-changed", "model-changed", "input-removed", "input-changed", "expired",
    ),
}  # fmt: skip
"""The fields of a selection whose values are the same in every project; a test holds them equal to where they are decided."""


def names_in(graph: Graph) -> dict[Kind, list[str]]:
    """What a loaded project tells: its assets, the values that `--set` can set, and the assets that have an index of vectors."""
    from assetcore.embeddings import Embedding  # where a project is loaded

    config: list[str] = []
    for name, asset in graph.assets.items():
        for one in asset.configs:
            place = f"{name}.{one.parameter}" if len(asset.configs) > 1 else name
            config += [f"{place}.{field}=" for field in one.model.model_fields]
    outputs = {name: asset.output for name, asset in graph.assets.items()}
    indexes = [n for n, o in outputs.items() if o.form == "document" and issubclass(o.document_type, Embedding)]
    return {"assets": list(graph.assets), "config": config, "indexes": indexes}


def remember(home: Path, project: str, names: Mapping[Kind, Iterable[str]]) -> None:
    """Leave names of a project for completion, if there is a home and they are not there already."""
    known = _read(home / FILE)
    before = known.get(project, {})
    after = before | {kind: list(some) for kind, some in names.items()}
    if not home.is_dir() or before == after:
        return
    with suppress(OSError):
        unfinished = home / f"{FILE}.{os.getpid()}"
        unfinished.write_text(json.dumps({**known, project: after}), encoding="utf-8")
        unfinished.replace(home / FILE)


def complete_selection(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """What the last word of a selection can become: the name of an asset, or a value of a field; of units nothing is known."""
    before = context.params.get(parameter.name or "")
    text = f"{before} {incomplete}" if before else incomplete  # bash breaks words at colons
    if text.rfind("[") > text.rfind("]"):
        return []
    if field := re.search(r"(\w+) ?: ?([\w-]*)$", text):
        return _continued("" if incomplete == ":" else incomplete, field[2], VALUES.get(field[1], ()))
    name = re.search(r"(?:^|[\s(])(?:\d*\+)?(\w*)$", incomplete)
    return _continued(incomplete, name[1], _known(context, "assets")) if name else []


def complete_asset(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """The names that an asset, or a REF, can become; of its units nothing is known."""
    return _continued(incomplete, incomplete, _known(context, "assets"))


def complete_journal(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """What `aipctl journal` can be asked: about an asset, or whether it is whole."""
    return _continued(incomplete, incomplete, {*_known(context, "assets"), "verify"})


def complete_index(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """The assets that have an index of vectors."""
    return _continued(incomplete, incomplete, _known(context, "indexes"))


def complete_flow(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """The flows that there were when one was run."""
    return _continued(incomplete, incomplete, _known(context, "flows"))


def complete_environment(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """The environments that there were when somebody last named one."""
    return _continued(incomplete, incomplete, _known(context, "environments"))


def complete_setting(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """`ASSET.FIELD=`, as config has them."""
    return _continued(incomplete, incomplete, _known(context, "config"))


def complete_input(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """In `PARAM=ASSET` the asset."""
    given = re.fullmatch(r"\w+=(\w*)", incomplete)
    return _continued(incomplete, given[1], _known(context, "assets")) if given else []


def complete_supposition(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """In `change ASSET` and `remove ASSET` the asset."""
    given = re.fullmatch(r"(?:change|remove) (\w*)", incomplete)
    return _continued(incomplete, given[1], _known(context, "assets")) if given else []


def complete_project(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """The projects that were loaded here before."""
    return _continued(incomplete, incomplete, _nearest())


def _continued(incomplete: str, word: str, names: Iterable[str]) -> list[str]:
    """What was typed, with its last word made each of these names that begins so."""
    start = incomplete.removesuffix(word) if word else incomplete
    return [start + name for name in sorted(set(names)) if name.startswith(word)]


def _known(context: click.Context, kind: Kind) -> list[str]:
    """What is known of the project that was named; where none was, of all of them."""
    known = _nearest()
    project = context.params.get("project_given")
    chosen = [known.get(project, {})] if project else list(known.values())
    return [name for names in chosen for name in names.get(kind, ())]


def _nearest() -> Names:
    """The names in ASSETCORE_HOME, or in the nearest home upwards."""
    if home := os.environ.get("ASSETCORE_HOME"):
        return _read(Path(home).expanduser() / FILE)
    here = Path.cwd()
    found = (_read(folder / ".assetcore" / FILE) for folder in (here, *here.parents))
    return next(filter(None, found), {})


def _read(path: Path) -> Names:
    """What is there; of a project whose names another version has left in its own way, nothing."""
    try:
        names: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(names, dict):
        return {}
    return cast("Names", {project: known for project, known in names.items() if isinstance(known, dict)})
