"""Report: how are figures shown? As plain tables, one for each question, with what was aimed at beside what was found."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from tests.bench.meter import Cost

COST = ("wall s", "CPU s", "services s", "peak MB")


@dataclass(slots=True)
class Report:
    """The tables of one call of `make bench`."""

    console: Console = field(default_factory=lambda: Console(width=150, highlight=False, markup=False))

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        table = Table(title=title, box=SIMPLE, title_justify="left", title_style="bold")
        for position, column in enumerate(columns):
            table.add_column(column, justify="left" if position == 0 or column in ("executed", "goal") else "right")
        for row in rows:
            table.add_row(*row)
        self.console.print(table)

    def say(self, line: str) -> None:
        self.console.print(line)

    def step(self, line: str) -> None:
        """Say on stderr how far it is: some of it takes minutes."""
        Console(stderr=True, highlight=False, markup=False).print(f"… {line} (load {os.getloadavg()[0]:.1f})")


def figures(cost: Cost) -> list[str]:
    """The columns `COST`."""
    return [
        f"{cost.wall:.2f}",
        f"{cost.cpu:.2f}",
        f"{cost.service_cpu:.2f}" if cost.services else "–",
        f"{cost.peak / 1e6:.0f}",
    ]


def ratio(one: float, other: float) -> str:
    return f"{one / other:.1f}x" if other else "–"


def against(found: float, goal: float, unit: str = "s") -> str:
    """A goal, and whether it was met in this run."""
    return f"≤ {goal:g} {unit}: {'met' if found <= goal else f'missed by {found - goal:.2f}'}"
