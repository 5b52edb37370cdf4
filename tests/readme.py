"""The READMEs, taken apart: which commands, examples and tables are in them?"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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


ANSWERS = ("with `--json`", "one object with")
"""The header of the table of answers."""


@dataclass(frozen=True)
class Keys:
    """Keys that an object has: always, and (in the README behind "also") sometimes."""

    always: frozenset[str]
    sometimes: frozenset[str]

    def fit(self, found: Mapping[str, Any]) -> bool:
        return self.always <= set(found) <= self.always | self.sometimes


def keys(verb: str) -> dict[str, Keys]:
    """What the README says of a verb's answer: of the object (""), and of what is below one of its keys ("a cause has": `causes`)."""
    parts = next(text for verbs, text in table(*ANSWERS) if verb in code(verbs)).split("; ")
    found = {"": _keys(parts[0])}
    for part in parts[1:]:
        if item := re.match(r"(?:an? (\w+)|one of `(\w+)`|`(\w+)`) has (.*)", part):
            found[item[2] or item[3] or f"{item[1]}s"] = _keys(item[4])
    return found


def hold(verb: str, answer: Mapping[str, Any]) -> None:
    """Assert that an answer has the keys that the README names for its verb, at the top and below."""
    for place, told in keys(verb).items():
        inside = [answer] if not place else answer.get(place, ())
        for one in [inside] if isinstance(inside, Mapping) else inside:
            assert told.fit(one), f"{verb}, {place or 'at the top'}: the README says {told}, and there is {sorted(one)}"


def _keys(text: str) -> Keys:
    always, _, sometimes = re.sub(r"\([^)]*\)", "", text).partition(" also ")
    words = [frozenset(one for one in code(part) if one.isidentifier()) for part in (always, sometimes)]
    return Keys(words[0], words[1])
