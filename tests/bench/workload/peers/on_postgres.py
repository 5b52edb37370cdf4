"""Workload W by a script with a manifest in Postgres: what somebody would write who needs only this, and only what changed.

python on_postgres.py DATABASE DATA_FOLDER

A row a text (how it was seen, its hash, its bytes, its summary) and a row a piece, by COPY, in one transaction; a text is read where size
or time differ, and made where its hash or the code does. It keeps no history, and cannot say why or of what. The report is written to
report.json.
"""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import asyncpg

from projects.workload import steps

SCHEMA = """
create table if not exists source_text (
    name text primary key, size bigint, mtime_ns bigint, sha256 bytea, code bytea, content bytea, summary text
);
create table if not exists piece (
    text_name text, ordinal int, tokens int, chars int, digest text, content text, primary key (text_name, ordinal)
);
"""
CODE = hashlib.sha256("".join(map(inspect.getsource, (steps.pieces, steps.facts, steps.summary))).encode()).digest()


async def build(database: str, data: Path) -> None:
    connection = await asyncpg.connect(database)
    await connection.execute(SCHEMA)
    known = {
        row[0]: row
        for row in await connection.fetch("select name, size, mtime_ns, sha256, code, summary from source_text")
    }
    texts, pieces, there, summaries = [], [], set(), {}
    for name, facts in files(data):
        there.add(name)
        was = known.get(name)
        if was is not None and (was[1], was[2], was[4]) == (facts.st_size, facts.st_mtime_ns, CODE):
            summaries[name] = json.loads(was[5])
            continue
        content = (data / name).read_bytes()
        sha256 = hashlib.sha256(content).digest()
        cut = steps.pieces(content.decode())
        made = [steps.facts(piece) for piece in cut]
        summaries[name] = {"name": name, **steps.summary(made)}
        texts.append((name, facts.st_size, facts.st_mtime_ns, sha256, CODE, content, json.dumps(summaries[name])))
        pieces += [(name, i, *one.values(), text) for i, (one, text) in enumerate(zip(made, cut, strict=True))]
    gone = [*(known.keys() - there), *(name for name, *_ in texts if name in known)]
    async with connection.transaction():
        if gone:
            await connection.execute("delete from piece where text_name = any($1)", gone)
            await connection.execute("delete from source_text where name = any($1)", gone)
        if texts:
            await connection.copy_records_to_table("source_text", records=texts)
            await connection.copy_records_to_table("piece", records=pieces)
    await connection.close()
    report = steps.report([summaries[name] for name in sorted(summaries)])
    Path("report.json").write_text(json.dumps(report))


def files(folder: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Each file by its path below the folder."""
    waiting = [("", str(folder))]
    while waiting:
        above, path = waiting.pop()
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.is_dir():
                    waiting.append((f"{above}{entry.name}/", entry.path))
                else:
                    yield above + entry.name, entry.stat()


if __name__ == "__main__":
    asyncio.run(build(sys.argv[1], Path(sys.argv[2])))
