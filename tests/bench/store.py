"""Store: how much room does workload W take, and does `verify` read what is stored as fast as it can be read?

Beside a plain read and hash of the same objects. Content is what the documents hold: the texts, their pieces, the summaries, the report.
"""

from __future__ import annotations

import asyncio
import sys

import sqlalchemy as sa

from assetcore import stack
from assetcore.lineage import schema
from assetcore.lineage import tables as t
from assetcore.settings import Settings
from tests.bench.meter import measure
from tests.bench.place import Place, new_place
from tests.bench.report import COST, Report, against, figures, ratio
from tests.bench.workload import corpus, scenarios

READ = """
import hashlib, os, sys
for folder, _, files in os.walk(sys.argv[1]):
    for file in files:
        with open(os.path.join(folder, file), "rb") as opened:
            hashlib.file_digest(opened, "sha256").digest()
"""


def bench(report: Report, documents: int) -> None:
    report.step(f"room and verify, {documents:,} documents")
    with new_place(scenarios.PROJECT) as place:
        corpus.create(place.root / "data", documents)
        place.call("materialize", "--local", services=False)
        stored = place.root / "home" / "store"
        units, content, rows = asyncio.run(_volume(place))
        kept = sum(path.stat().st_size for path in stored.rglob("*") if path.is_file())
        report.table(
            f"Room, workload W of {documents:,} documents: {units:,} units, {content / 1e6:.1f} MB of content",
            ["what", "bytes", "goal"],
            [
                ["Postgres a unit", f"{rows / units:.0f}", against(rows / units, 600, "bytes")],
                ["bucket over content", f"{kept / content:.2f}x", against(kept / content, 1.3, "x")],
            ],
        )
        plain = measure([sys.executable, "-c", READ, stored], cwd=place.root, env=place.env)
        verified = place.call("verify", "--json")
        idle = place.call("ls", "--json")
    more = verified.all_cpu - idle.all_cpu
    report.table(
        f"Verify {kept / 1e6:.1f} MB",
        ["case", *COST, "CPU to plain"],
        [
            ["plain read and hash", *figures(plain), ""],
            ["aipctl verify", *figures(verified), ratio(verified.all_cpu, plain.all_cpu)],
            ["aipctl ls, which reads nothing of it", *figures(idle), ratio(idle.all_cpu, plain.all_cpu)],
            ["verify beyond that", "", f"{more:.2f}", "", "", ratio(more, plain.all_cpu)],
        ],
    )


async def _volume(place: Place) -> tuple[int, int, int]:
    """Units, the bytes of their documents, and those of all tables with their indexes."""
    addresses = await stack.up(Settings.load(place.root, home=place.root / "home"), {"postgres"})
    engine = schema.connect(addresses.database_url)
    try:
        async with engine.connect() as connection:
            units = (await connection.execute(sa.select(sa.func.count()).select_from(t.head))).scalar_one()
            content = (await connection.execute(sa.select(sa.func.sum(t.document.c.size)))).scalar_one()
            sizes = [sa.func.pg_total_relation_size(f'"{table.name}"') for table in t.metadata.sorted_tables]
            rows = sum((await connection.execute(sa.select(*sizes))).one())
    finally:
        await engine.dispose()
    return units, int(content), rows
