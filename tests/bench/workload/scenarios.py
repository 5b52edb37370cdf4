"""Scenarios: what does workload W cost at first, when nothing or little changes, and when code does? Beside a plain script.

    a first build   b nothing changed   c 1 % of the texts edited   f that edit reverted   d 1 % deleted   e the last function edited

What `report` holds afterwards is compared with the plain script's: a figure for a wrong result would be worth nothing. What a document of a
first build costs is meant beyond start-up: beyond a first build of ten.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.bench.meter import Cost, measure, median
from tests.bench.place import Place, executed, new_place
from tests.bench.report import COST, Report, against, figures, ratio
from tests.bench.workload import corpus

HERE = Path(__file__).parent
PROJECT = HERE / "projects" / "workload"


FEW = 10
NOTHING_CHANGED = {10_000: 1.0, 100_000: 4.0}
"""Goals: seconds of CPU where nothing changed, by the number of texts. Below ten thousand start-up is most of everything."""


def bench(report: Report, documents: int, repeat: int) -> None:
    """Tell the story `repeat` times, each in a home of its own; medians."""
    costs: dict[str, list[tuple[Cost, Cost]]] = {}
    starts: list[Cost] = []
    for turn in range(repeat):
        report.step(f"workload of {documents:,} documents, {turn + 1} of {repeat}")
        starts.append(_start())
        for name, cost, plain in _told(report, documents):
            costs.setdefault(name, []).append((cost, plain))
    medians = {name: tuple(map(median, zip(*pairs, strict=True))) for name, pairs in costs.items()}
    rows = []
    for name, (cost, plain) in medians.items():
        did = ", ".join(f"{count:,} {word}" for word, count in executed(cost.out).items() if count) or "nothing"
        rows.append(
            [name, *figures(cost), f"{cost.all_cpu / documents * 1000:.3f}", f"{plain.wall:.2f}", f"{plain.cpu:.2f}",
             ratio(cost.all_cpu, plain.cpu), did]
        )  # fmt: skip
    report.table(
        f"Workload W, {documents:,} documents (services up, medians of {repeat}; plain makes all of it every time)",
        ["case", *COST, "CPU ms/doc", "plain wall", "plain CPU", "CPU to plain", "executed"], rows,
    )  # fmt: skip
    if documents in NOTHING_CHANGED:
        (first, _), (nothing, _), (edited, _), *_ = medians.values()
        report.table(f"What was aimed at, W, {documents:,}", ["what", "goal"], [
            ["first build, beyond start-up",
             against((first.all_cpu - median(starts).all_cpu) / (documents - FEW) * 1000, 0.6, "ms CPU a document")],
            ["nothing changed", against(nothing.all_cpu, NOTHING_CHANGED[documents], "s of CPU")],
            ["1 % edited, beyond nothing changed", against(edited.wall - nothing.wall, 3)],
        ])  # fmt: skip


def _start() -> Cost:
    """What a first build costs where there is next to nothing to do."""
    with new_place(PROJECT) as place:
        corpus.create(place.root / "data", FEW)
        return place.call("materialize", "--json")


def _told(report: Report, documents: int) -> Iterator[tuple[str, Cost, Cost]]:
    with new_place(PROJECT) as place:
        data = place.root / "data"
        for name, edit in STORY.items():
            edit(place.root, documents)
            cost = place.call("materialize", "--json")
            beside = plain(place, data)
            compare(report, place, name)
            yield name, cost, beside


def plain(place: Place, data: Path) -> Cost:
    output = place.root / "plain"
    shutil.rmtree(output, ignore_errors=True)
    return measure(
        [sys.executable, "-P", HERE / "plain.py", data, output],
        cwd=place.root,
        env=place.env | {"PYTHONPATH": str(place.root)},
    )


def compare(report: Report, place: Place, name: str) -> None:
    target = place.root / "exported"
    place.call("export", "report", str(target), services=False)
    (made,) = [json.loads(path.read_bytes()) for path in target.rglob("*") if path.is_file()]
    wanted = json.loads((place.root / "plain" / "report.json").read_bytes())
    if made != wanted:
        report.say(f"WRONG after {name}: the report is {made}, the plain script's is {wanted}")
    shutil.rmtree(target)


def _edit_last_function(root: Path, _: int) -> None:
    path = root / "projects" / "workload" / "steps.py"
    text = path.read_text(encoding="utf-8")
    assert "[:10]" in text
    path.write_text(text.replace("[:10]", "[:9]"), encoding="utf-8")


STORY: dict[str, Callable[[Path, int], None]] = {
    "a first build": lambda root, count: corpus.create(root / "data", count),
    "b nothing changed": lambda root, count: None,
    "c 1 % edited": lambda root, count: corpus.edit(root / "data", count),
    "f that edit reverted": lambda root, count: corpus.edit(root / "data", count, revision=0),
    "d 1 % deleted": lambda root, count: corpus.delete(root / "data", count),
    "e last function edited": _edit_last_function,
}
