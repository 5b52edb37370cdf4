"""Workload W by CocoIndex: a component for each text, memoised, and a file for what was made of it; the report over all of them.

python with_cocoindex.py DATA_FOLDER

The report is made anew every time, because CocoIndex does not see that a function in another module was edited.
"""

# CocoIndex is installed in an environment of its own, beside the one in which types are checked.
# pyright: reportMissingImports=false

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import cocoindex
from cocoindex.connectors import localfs
from cocoindex.resources.file import FileLike, PatternFilePathMatcher

from projects.workload import steps

DATA = Path(sys.argv[1]).resolve()
HERE = Path.cwd()


@cocoindex.fn(memo=True)
async def summarise(name: str, text: FileLike, made: localfs.DirTarget) -> dict[str, Any]:
    """The pieces and the summary of one text."""
    pieces = [{**steps.facts(piece), "text": piece} for piece in steps.pieces(await text.read_text())]
    row = {"name": name, **steps.summary(pieces)}
    made.declare_file(name.replace("/", "__") + ".json", json.dumps({"pieces": pieces, "summary": row}))
    return row


@cocoindex.fn
async def everything() -> None:
    made = await localfs.mount_dir_target(HERE / "made")
    walk = localfs.walk_dir(DATA, recursive=True, path_matcher=PatternFilePathMatcher(included_patterns=["**/*.txt"]))
    calls = []
    async for key, text in walk.items():
        name = Path(text.file_path.path)
        inside = name.relative_to(DATA) if name.is_absolute() else name
        calls.append(
            cocoindex.use_mount(cocoindex.component_subpath("text", key), summarise, inside.as_posix(), text, made)
        )
    rows = sorted(await asyncio.gather(*calls), key=lambda row: row["name"])
    localfs.declare_file(HERE / "report.json", json.dumps(steps.report(rows)))


if __name__ == "__main__":
    cocoindex.App(cocoindex.AppConfig(name="workload"), everything).update_blocking()
