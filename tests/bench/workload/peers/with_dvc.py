"""Workload W by DVC: two stages, all texts into a folder of files, and these into the report. A stage is the unit of what is made again.

python with_dvc.py summaries DATA_FOLDER        what the first stage runs
python with_dvc.py report                       what the second stage runs
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from projects.workload import steps

MADE = Path("made")


def summaries(data: Path) -> None:
    MADE.mkdir(exist_ok=True)
    for folder, _, files in os.walk(data, followlinks=True):
        for path in (Path(folder, file) for file in files):
            name = path.relative_to(data).as_posix()
            pieces = [{**steps.facts(piece), "text": piece} for piece in steps.pieces(path.read_text(encoding="utf-8"))]
            row = {"name": name, **steps.summary(pieces)}
            (MADE / f"{name.replace('/', '__')}.json").write_text(json.dumps({"pieces": pieces, "summary": row}))


def report() -> None:
    rows = [json.loads(path.read_bytes())["summary"] for path in MADE.iterdir()]
    Path("report.json").write_text(json.dumps(steps.report(sorted(rows, key=lambda row: row["name"]))))


if __name__ == "__main__":
    report() if sys.argv[1] == "report" else summaries(Path(sys.argv[2]))
