"""Names: what can a shell complete without loading a project?

Every verb that loads a project leaves the names of its assets in the home, where completion finds them: it answers in the time
that click takes to start. Where there is no home, or it cannot be written, nothing is completed, and nothing fails.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    import click

__all__ = ["complete_asset", "complete_project", "remember"]

FILE = "names.json"


def remember(home: Path, project: str, assets: Collection[str]) -> None:
    """Leave the names of a project's assets for completion, if there is a home and they are not there already."""
    known = _read(home / FILE)
    if not home.is_dir() or known.get(project) == list(assets):
        return
    with suppress(OSError):
        unfinished = home / f"{FILE}.{os.getpid()}"
        unfinished.write_text(json.dumps({**known, project: list(assets)}), encoding="utf-8")
        unfinished.replace(home / FILE)


def complete_asset(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """The names that the last word of a selection, or a REF, can become."""
    word = re.search(r"\w*$", incomplete)
    assert word is not None
    known = _nearest()
    project = context.params.get("project_given")
    names = known.get(project, []) if project else [name for names in known.values() for name in names]
    return [incomplete[: word.start()] + name for name in sorted(set(names)) if name.startswith(word[0])]


def complete_project(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """The projects that were loaded here before."""
    return [name for name in sorted(_nearest()) if name.startswith(incomplete)]


def _nearest() -> Mapping[str, list[str]]:
    """The names in ASSETCORE_HOME, or in the nearest home upwards."""
    if home := os.environ.get("ASSETCORE_HOME"):
        return _read(Path(home).expanduser() / FILE)
    here = Path.cwd()
    found = (_read(folder / ".assetcore" / FILE) for folder in (here, *here.parents))
    return next(filter(None, found), {})


def _read(path: Path) -> dict[str, list[str]]:
    try:
        names: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return cast("dict[str, list[str]]", names) if isinstance(names, dict) else {}
