"""What does it cost? Measurements as tables, with ratios between what is measured in one run; nothing here passes or fails.

    make bench                          the command, the handbook, workload W of 1,000 and 10,000 documents, lineage, layers of assets, ...
    make bench ARGS='command'           one of them: command, handbook, workload, lineage, layers, share, telemetry, imports, models,
                                        vectors, limits, observe, store, peers
    make bench ARGS='workload --documents 1000 --repeat 5'
    make bench ARGS='lineage --documents 1000000'     half an hour, and 6 GB of disk
    BENCH_VENVS=FOLDER make bench ARGS=peers          also CocoIndex and DVC, from FOLDER/cocoindex and FOLDER/dvc

CPU time and ratios are the figures to look at where other work is done on the machine. Services run before the clock starts, and
their CPU is counted until they are at rest again. Memory is the resident memory of all processes of the command together.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys

from tests.bench import (
    command,
    handbook,
    imports,
    layers,
    limits,
    lineage,
    models,
    observe,
    peers,
    share,
    store,
    telemetry,
    vectors,
)
from tests.bench.report import Report
from tests.bench.workload import scenarios

SECTIONS = (
    "command",
    "handbook",
    "workload",
    "lineage",
    "layers",
    "share",
    "telemetry",
    "imports",
    "models",
    "vectors",
    "limits",
    "observe",
    "store",
    "peers",
)


def main() -> None:
    arguments = argparse.ArgumentParser(
        prog="make bench", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    arguments.add_argument("sections", nargs="*", metavar="SECTION", help=f"{', '.join(SECTIONS)}; all by default")
    arguments.add_argument("--repeat", type=int, default=3, help="medians of so many (the longest: once)")
    arguments.add_argument("--documents", default="1000,10000", help="sizes of workload W; the last one, of lineage")
    arguments.add_argument("--assets", default="1000", help="sizes of the layers of assets")
    arguments.add_argument("--texts", type=int, default=4000, help="how many are embedded")
    arguments.add_argument("--chunks", type=int, default=100_000, help="how many are searched")
    given = arguments.parse_args()
    sections = given.sections or SECTIONS
    if unknown := set(sections) - set(SECTIONS):
        arguments.error(f"there is no section {', '.join(sorted(unknown))}")
    report = Report()
    report.say(
        f"Python {platform.python_version()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the start, {sys.platform}\n"
    )
    if "command" in sections:
        command.bench(report, given.repeat)
    if "handbook" in sections:
        handbook.bench(report, given.repeat)
    if "workload" in sections:
        for documents in map(int, given.documents.split(",")):
            scenarios.bench(report, documents, given.repeat if documents < 5000 else 1)
    if "lineage" in sections:
        lineage.bench(report, int(given.documents.rpartition(",")[2]))
    if "layers" in sections:
        for assets in map(int, given.assets.split(",")):
            layers.bench(report, assets)
    if "share" in sections:
        share.bench(report, int(given.documents.rpartition(",")[2]), given.repeat)
    if "telemetry" in sections:
        telemetry.bench(report, int(given.documents.partition(",")[0]))
    if "imports" in sections:
        imports.bench(report, given.repeat)
    if "models" in sections:
        models.bench(report, given.texts)
    if "vectors" in sections:
        vectors.bench(report, given.chunks)
    if "limits" in sections:
        limits.bench(report)
    if "observe" in sections:
        observe.bench(report, int(given.documents.rpartition(",")[2]))
    if "store" in sections:
        store.bench(report, int(given.documents.rpartition(",")[2]))
    if "peers" in sections:
        for documents in map(int, given.documents.split(",")):
            peers.bench(report, documents)


if __name__ == "__main__":
    main()
