"""Layers: what do many small assets cost? Ten layers of n/10 assets, each made of three of the layer above, with nothing to do.

The first layer are folders with one text each. Figures of Dagster for the same graph are in the goals: it runs all of it each time.
"""

from __future__ import annotations

import random
import sys

from tests.bench.meter import measure
from tests.bench.place import project_place
from tests.bench.report import COST, Report, against, figures

LAYERS, ABOVE = 10, 3
LOAD = """
import time
from pathlib import Path
import polars
from assetcore.loading import load
before = time.process_time()
load(Path.cwd(), "layers")
print(time.process_time() - before)
"""


def bench(report: Report, assets: int) -> None:
    report.step(f"layers of {assets:,} assets")
    with project_place("layers", declarations(assets)) as place:
        for number in range(assets // LAYERS):
            path = place.root / "data" / str(number) / "page.txt"
            path.parent.mkdir(parents=True)
            path.write_text(f"page {number}")
        loading = measure([sys.executable, "-c", LOAD], cwd=place.root, env=place.env)
        rows = []
        for name, words in {
            "first plan": ("plan", "--json"),
            "materialize": ("materialize", "--json", "--local"),
            "no-op plan": ("plan", "--json"),
            "no-op materialize": ("materialize", "--json"),
        }.items():
            cost = place.call(*words)
            made = assets - assets // LAYERS
            goals = {
                "materialize": against(cost.all_cpu / made * 1000, 8, "ms CPU an asset"),
                "no-op materialize": against(cost.wall, assets / 1000),
            }
            rows.append([name, *figures(cost), f"{cost.all_cpu / assets * 1000:.2f}", goals.get(name, "")])
    loaded = float(loading.out)
    report.table(
        f"G({assets:,}): {assets:,} assets in {LAYERS} layers (services up); loaded in {loaded:.2f} s of CPU "
        f"({against(loaded, 0.3 * assets / 1000)})",
        ["case", *COST, "CPU ms/asset", "goal"],
        rows,
    )


def declarations(assets: int) -> str:
    """The module of the project."""
    width, chance = assets // LAYERS, random.Random(42)
    lines = [
        "from assetcore import Document, asset, collect, folder, source",
        "",
        "",
        "class Page(Document):",
        "    pass",
        "",
        "",
    ]
    lines += [f'a0_{i} = source("a0_{i}", Page, folder("data/{i}"))' for i in range(width)]
    for layer in range(1, LAYERS):
        for i in range(width):
            above = sorted(chance.sample(range(width), ABOVE))
            parameters = ", ".join(f"p{k}: list[Page] = collect(a{layer - 1}_{up})" for k, up in enumerate(above))
            lines += [
                "",
                "",
                "@asset",
                f"async def a{layer}_{i}({parameters}) -> Page:",
                '    return Page("page", text=p0[0].text)',
            ]
    return "\n".join(lines) + "\n"
