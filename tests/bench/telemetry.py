"""Telemetry: what does it cost that a run is traced? Counted: the spans it leaves, times what one costs; and what a quick unit costs."""

from __future__ import annotations

import json
import time

from assetcore import telemetry
from tests.bench.place import project_place
from tests.bench.report import Report, against

LOOPS = 100_000
PROJECT = '''"""Pages, each read once."""

from assetcore import Document, asset, each, folder, source


class Page(Document):
    """A text."""


pages = source("pages", Page, folder("data", pattern="*.txt"))


@asset
async def read(page: Page = each(pages)) -> Page:
    """As it is."""
    return Page(page.name, text=page.text.upper())
'''


def bench(report: Report, documents: int) -> None:
    report.step(f"telemetry of {documents:,} quick units")
    with project_place("traced", PROJECT) as place:
        for number in range(documents):
            path = place.root / "data" / f"{number}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"page {number}")
        cost = place.call("materialize", "--json", "--local")
        run = json.loads(cost.out)["run"]
        spans = len(json.loads(place.call("trace", run, "--json").out)["spans"])
    unit, kept = _each(_quick_unit), _each(_span)
    share = (unit * documents + kept * spans) / cost.all_cpu
    report.table(
        f"telemetry, {documents:,} units of one quick asset",
        ["spans of the run", "µs a quick unit", "µs a span", "CPU s of the run", "share", "goal"],
        [
            [
                str(spans),
                f"{unit * 1e6:.1f}",
                f"{kept * 1e6:.1f}",
                f"{cost.all_cpu:.2f}",
                f"{share:.2%}",
                against(share * 100, 2, "%"),
            ]
        ],
    )


def _each(work: object) -> float:
    """Seconds of CPU of one call, inside an asset of a run."""
    assert callable(work)
    with telemetry.Recorder("bench", "bench").span("asset", "read"):
        before = time.process_time()
        for _ in range(LOOPS):
            work()
    return (time.process_time() - before) / LOOPS


def _quick_unit() -> None:
    with telemetry.unit("page", {}):
        pass


def _span() -> None:
    with telemetry.span("rerank", model="small"):
        pass
