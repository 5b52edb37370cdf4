"""Command: what does aipctl cost before it does anything? Beside importing click, the least that such a command can cost."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.bench.meter import Cost, measure, median
from tests.bench.place import AIPCTL, REPOSITORY, new_place
from tests.bench.report import Report, against, ratio

GOAL = 3.0
COMPLETION = {"_AIPCTL_COMPLETE": "bash_complete", "COMP_WORDS": "aipctl plan co", "COMP_CWORD": "2"}


def bench(report: Report, repeat: int) -> None:
    """Each is measured beside `import click`, in turns, so that a loaded machine slows both."""
    with new_place(REPOSITORY / "projects" / "handbook", up=False) as place:
        python: Sequence[str | Path] = [sys.executable, "-c", "import click"]
        cases: dict[str, tuple[Sequence[str | Path], Mapping[str, str]]] = {
            "python -c 'import click'": (python, {}),
            "aipctl --help": ([AIPCTL, "--help"], {}),
            "aipctl plan --help": ([AIPCTL, "plan", "--help"], {}),
            "completion of: aipctl plan co": ([AIPCTL], COMPLETION),
        }
        costs: dict[str, list[Cost]] = {name: [] for name in cases}
        for turn in range(max(repeat, 3) * 3 + 1):
            for name, (command, variables) in cases.items():
                cost = measure(command, cwd=place.root, env=place.env | variables)
                if turn:  # the first one may compile
                    costs[name].append(cost)
    base = statistics.median(c.cpu for c in costs["python -c 'import click'"])
    rows = []
    for name, found in costs.items():
        middle = median(found)
        goal = against(middle.cpu / base, GOAL, "x") if name.startswith(("aipctl", "completion")) else ""
        rows.append([name, f"{middle.wall * 1000:.0f}", f"{middle.cpu * 1000:.0f}", ratio(middle.cpu, base), goal])
    report.table("The command", ["call", "wall ms", "CPU ms", "to click", "goal"], rows)
