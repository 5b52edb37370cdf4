"""Observe: what does a look at a folder of many small files cost, at first and when nothing has changed? Beside walking it and asking
for the facts of each file, which is the least that such a look can cost, and beside reading and hashing all of it.

Each is a process of its own, `python -m tests.bench.observe HOW`, in a place with a Postgres that keeps what was seen.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.bench.meter import Cost, measure
from tests.bench.place import REPOSITORY, project_place
from tests.bench.report import Report, ratio

PROJECT = '''"""Files."""

from assetcore import Document, folder, source


class Page(Document):
    """A text."""


pages = source("pages", Page, folder("data", "**/*.txt"))
'''
A_FOLDER = 1000
CASES = {
    "walk and stat": "walk",
    "walk, read and hash": "hash",
    "project opened, no look": "open",
    "first look": "look",
    "look, nothing changed": "look",
}


def bench(report: Report, files: int) -> None:
    report.step(f"a folder of {files:,} files")
    with project_place("looked", PROJECT) as place:
        for number in range(files):
            path = place.root / "data" / f"{number // A_FOLDER:04d}" / f"{number:07d}.txt"
            if number % A_FOLDER == 0:
                path.parent.mkdir(parents=True)
            path.write_text(f"{number} " * 30)
            os.utime(path, (1_700_000_000, 1_700_000_000))  # what was just written is read again
        costs: dict[str, Cost] = {}
        for name, how in CASES.items():
            report.step(name)
            words = [sys.executable, "-m", "tests.bench.observe", how]
            environment = place.env | {"PYTHONPATH": str(REPOSITORY)}
            costs[name] = measure(words, cwd=place.root, env=environment, services=place.services)
    least = costs["walk and stat"]
    report.table(
        f"A folder of {files:,} small files",
        ["case", "wall s", "CPU s", "services s", "peak MB", "µs CPU a file", "CPU to walking", "files opened"],
        [
            [
                name, f"{cost.wall:.2f}", f"{cost.cpu:.2f}", f"{cost.service_cpu:.2f}", f"{cost.peak / 1e6:.0f}",
                f"{cost.all_cpu / files * 1e6:.1f}", ratio(cost.all_cpu, least.all_cpu), cost.out,
            ]
            for name, cost in costs.items()
        ],
    )  # fmt: skip


def walk(folder: str) -> Iterator[tuple[str, os.stat_result]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                yield from walk(entry.path)
            else:
                yield entry.path, entry.stat()


async def look(names: list[str]) -> None:
    from assetcore import observation, stack
    from assetcore.session import Session
    from assetcore.settings import Settings

    settings = Settings.load(Path.cwd())
    addresses = await stack.up(settings, {"postgres", "redis", "store"})
    async with Session.open(addresses.applied_to(settings), "looked", automatic_schema=True) as session:
        await observation.observe(session.project, names)


def main(how: str) -> int:
    """Do it, and count the files of the folder that were opened."""
    opened = 0
    data = str(Path("data").resolve())

    def count(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal opened
        if event == "open" and isinstance(arguments[0], str) and os.path.abspath(arguments[0]).startswith(data):
            opened += 1

    if how in ("look", "open"):
        sys.addaudithook(count)
        asyncio.run(look(["pages"] if how == "look" else []))
    else:
        for path, _ in walk(data):
            if how == "hash":
                hashlib.sha256(Path(path).read_bytes()).digest()
                opened += 1
    return opened


if __name__ == "__main__":
    sys.stdout.write(str(main(sys.argv[1])))
