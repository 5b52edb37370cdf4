"""Imports: what does `import assetcore` cost above bare Python, and what does a module of assets (polars and pydantic come with it)?"""

from __future__ import annotations

import os
import sys

from tests.bench.meter import Cost, measure, median
from tests.bench.place import REPOSITORY
from tests.bench.report import Report, against

GOAL_MS = 150
CASES = {
    "bare Python": "pass",
    "import assetcore": "import assetcore",
    "what declarations take": "from assetcore import Document, asset, collect, each, folder, source",
}


def bench(report: Report, repeat: int) -> None:
    report.step("imports")
    costs = {name: _cost(code, repeat) for name, code in CASES.items()}
    bare = costs["bare Python"]
    rows = []
    for name, cost in costs.items():
        above = (cost.cpu - bare.cpu) * 1000
        goal = against(above, GOAL_MS, "ms of CPU above it") if name == "import assetcore" else ""
        rows.append([name, f"{cost.wall * 1000:.0f}", f"{cost.cpu * 1000:.0f}", f"{above:.0f}", goal])
    report.table(f"imports (median of {_times(repeat)})", ["case", "wall ms", "CPU ms", "above", "goal"], rows)


def _cost(code: str, repeat: int) -> Cost:
    command = [sys.executable, "-c", code]
    measure(command, cwd=REPOSITORY, env=os.environ)  # compiled, and read from the disk
    return median([measure(command, cwd=REPOSITORY, env=os.environ) for _ in range(_times(repeat))])


def _times(repeat: int) -> int:
    return 3 * repeat
