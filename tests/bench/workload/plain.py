"""Workload W without assetcore: all of it, every time, one JSON file for each text and a report.

python tests/bench/workload/plain.py DATA_FOLDER OUTPUT_FOLDER
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from projects.workload import steps


def build(data: Path, output: Path) -> None:
    output.mkdir(parents=True)
    rows = []
    for path in sorted(Path(folder, file) for folder, _, files in os.walk(data) for file in files):
        name = path.relative_to(data).as_posix()
        facts = [steps.facts(piece) for piece in steps.pieces(path.read_text(encoding="utf-8"))]
        rows.append({"name": name, **steps.summary(facts)})
        _write(output / f"{name.replace('/', '__')}.json", {"pieces": facts, "summary": rows[-1]})
    _write(output / "report.json", steps.report(rows))


def _write(path: Path, data: object) -> None:
    path.write_text(json.dumps(data, sort_keys=True, separators=(",", ":")), encoding="utf-8")


if __name__ == "__main__":
    build(Path(sys.argv[1]), Path(sys.argv[2]))
