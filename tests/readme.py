"""The READMEs, taken apart: which commands, examples and tables are in them?"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
TEXTS = {path: path.read_text("utf-8") for path in (REPOSITORY / "README.md", REPOSITORY / "stack" / "README.md")}
TEXT = "\n".join(TEXTS.values())


@dataclass(frozen=True)
class Example:
    """A fenced block that is a file: its first line names the path below the project's root."""

    path: str
    body: str


@dataclass(frozen=True)
class Shown:
    """A command as it is shown, and what it answers."""

    command: str
    output: str


def blocks(language: str) -> list[str]:
    """The fenced blocks of a language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


def examples() -> list[Example]:
    """The Python and YAML files that the README shows."""
    found = []
    for block in [*blocks("python"), *blocks("yaml")]:
        first, _, body = block.partition("\n")
        assert first.startswith("# "), f"An example does not begin with its path: {first}"
        found.append(Example(first.removeprefix("# "), body))
    return found


def consoles() -> list[Shown]:
    """The commands of all console blocks, in order, with the output that is shown below each."""
    return [
        Shown(found[1], found[2])
        for block in blocks("console")
        for found in re.finditer(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block, re.MULTILINE)
    ]


def inline() -> Iterator[str]:
    """What stands between single backticks outside fenced blocks."""
    prose = re.sub(r"^```.*?^```$", "", TEXT, flags=re.MULTILINE | re.DOTALL)
    for found in re.finditer(r"`([^`]+)`", prose):
        yield " ".join(found[1].split())


def table(*header: str) -> list[list[str]]:
    """The rows of the table with this header, each a list of its cells."""
    first = f"| {' | '.join(header)} |\n"
    assert TEXT.count(first) == 1, f"The README has {TEXT.count(first)} tables with the header {header}"
    rows = []
    for line in TEXT.partition(first)[2].splitlines()[1:]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


def code(cell: str) -> list[str]:
    """What stands between backticks in a cell."""
    return re.findall(r"`([^`]+)`", cell)
