"""Share: how much of a run is Prefect's, where a unit takes a millisecond? The same run with Prefect and without, each in a new home."""

from __future__ import annotations

from collections.abc import Iterator

from tests.bench.meter import Cost, median
from tests.bench.place import project_place
from tests.bench.report import COST, Report, against, figures

PROJECT = '''"""Pages that are worked at for a millisecond each, twice."""

import time

from assetcore import Document, asset, each, folder, source


class Page(Document):
    """A text."""


pages = source("pages", Page, folder("data", pattern="**/*.txt"))


def worked(page: Page) -> Page:
    until = time.perf_counter() + 0.001
    while time.perf_counter() < until:
        pass
    return Page(page.name, text=page.text.upper())


@asset
def read(page: Page = each(pages)) -> Page:
    """The first millisecond."""
    return worked(page)


@asset
def written(page: Page = each(read)) -> Page:
    """The second."""
    return worked(page)
'''
GOAL = 5


def bench(report: Report, documents: int, repeat: int) -> None:
    found: dict[str, list[Cost]] = {}
    for turn in range(repeat):
        report.step(f"Prefect's share of {2 * documents:,} units, {turn + 1} of {repeat}")
        for name, cost in _runs(documents):
            found.setdefault(name, []).append(cost)
    run, local = (median(costs) for costs in found.values())
    share = 100 * (run.wall - local.wall) / run.wall
    report.table(
        f"Prefect's share of {2 * documents:,} units of 1 ms (services up, medians of {repeat})",
        ["case", *COST, "share", "goal"],
        [
            ["with Prefect", *figures(run), f"{share:.1f} %", against(share, GOAL, "%")],
            ["without (--local)", *figures(local), "", ""],
        ],
    )


def _runs(documents: int) -> Iterator[tuple[str, Cost]]:
    for name, words in {"with": (), "without": ("--local",)}.items():
        with project_place("shared", PROJECT) as place:
            for number in range(documents):
                path = place.root / "data" / str(number // 1000) / f"{number}.txt"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(f"page {number}")
            yield name, place.call("materialize", "--json", *words)
