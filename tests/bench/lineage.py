"""Lineage: what do plans and questions cost over many rows? They are written by the code that commits runs; no bytes are stored.

A source of so many documents, and five assets below it, each once for each document: six times as many units, documents and heads.
What is measured runs in a process of its own, `python -m tests.bench.lineage N`, in a place with services.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import polars as pl

from assetcore import snapshot, stack
from assetcore.documents import document_id, field_digests, identity
from assetcore.lineage import commit as lineage
from assetcore.lineage.commit import Batch, Made, NewDocument
from assetcore.plan import Choice, make_plan
from assetcore.session import Session
from assetcore.settings import Settings
from assetcore.snapshot import changed_commits, observed_digest, source_unit
from assetcore.sources import OBSERVED
from assetcore.storage import Key
from assetcore.units import document_address
from tests.bench.meter import measure
from tests.bench.place import new_place
from tests.bench.report import Report, against

DEPTH = 5
BATCH = 10_000
ASKED = 200
EDITED = 100
"""One in so many documents."""


def bench(report: Report, documents: int) -> None:
    report.step(f"lineage of {documents:,} documents in {DEPTH + 1} assets")
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder) / "chain"
        package.mkdir()
        (package / "__init__.py").write_text('"""A chain of assets."""\n')
        (package / "assets.py").write_text(declarations())
        with new_place(package) as place:
            (place.root / "data").mkdir()
            environment = place.env | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}
            cost = measure(
                [sys.executable, "-m", "tests.bench.lineage", str(documents)], cwd=place.root, env=environment
            )
    found: dict[str, Any] = json.loads(cost.out)
    goals = {
        "plan, nothing stale": 3.0,
        "plan, every unit compared": 3.0 * documents * (DEPTH + 1) / 1e6,
        "plan, 1 % edited": 2.0 * documents / 1e5,
        "lineage up, p95": 0.02,
        "lineage down, p95": 0.02,
    }
    rows = [
        [name, f"{seconds:.3f}", f"{peak:.0f}", against(seconds, goals[name]) if name in goals else ""]
        for name, seconds, peak in found["cases"]
    ]
    report.table(
        f"Lineage of {documents:,} documents, {found['units']:,} units, {found['rows']:,} rows (sources excluded; "
        f"{found['bytes'] / found['units']:.0f} bytes of Postgres a unit; written in {found['written']:.0f} s)",
        ["case", "wall s", "peak MB so far", "goal"],
        rows,
    )


def declarations() -> str:
    lines = [
        "from assetcore import Document, asset, each, folder, source",
        "",
        "",
        "class Page(Document):",
        "    pass",
        "",
        "",
    ]
    lines.append('a0 = source("a0", Page, folder("data"))')
    for depth in range(1, DEPTH + 1):
        lines += ["", "", "@asset", f"async def a{depth}(page: Page = each(a{depth - 1})) -> Page:", "    return page"]
    return "\n".join(lines) + "\n"


async def main(documents: int) -> dict[str, Any]:
    settings = Settings.load(Path.cwd())
    addresses = await stack.up(settings, {"postgres", "redis", "store"})
    async with Session.open(addresses.applied_to(settings), "chain", automatic_schema=True) as session:
        started = time.perf_counter()
        identities = await write(session, documents)
        written = time.perf_counter() - started
        cases: list[tuple[str, float, float]] = []
        await settle(session, identities)

        async def case(name: str, work: Callable[[], Awaitable[Any]]) -> Any:
            before = time.perf_counter()
            found = await work()
            cases.append((name, time.perf_counter() - before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3))
            return found

        observe_as(session, observation(identities))
        assert (await case("plan, nothing stale", lambda: planned(session))) == 0
        numbers = list(range(0, documents, EDITED))
        observe_as(session, observation(identities, edited=numbers))
        assert (await case("plan, 1 % edited", lambda: planned(session))) == len(numbers)
        observe_as(session, observation(identities))
        for direction in ("up", "down"):
            chance = random.Random(7)
            depth = DEPTH if direction == "up" else 0
            times = []
            for _ in range(ASKED):
                before = time.perf_counter()
                found = await session.lineage(document_id(content(depth, chance.randrange(documents)), 20), direction)
                assert len(found.nodes) == DEPTH + 1
                times.append(time.perf_counter() - before)
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
            cases += [
                (f"lineage {direction}, median", statistics.median(times), peak),
                (f"lineage {direction}, p95", statistics.quantiles(times, n=20)[-1], peak),
            ]
        assert (await case("plan, every unit compared", lambda: planned(session, entire=True))) == 0
        rows, size = await volume(session)
    return {"written": written, "cases": cases, "units": documents * (DEPTH + 1), "rows": rows, "bytes": size}


def name(number: int) -> str:
    return f"{number // 1000:04d}/{number:07d}.txt"


def content(depth: int, number: int, edited: bool = False) -> bytes:
    """What stands for the hash of a document's bytes."""
    return hashlib.sha256(f"{depth} {number} {edited}".encode()).digest()


def facts(depth: int, number: int, edited: bool = False) -> bytes:
    return identity("Page", name(number), "text/plain", content(depth, number, edited), field_digests({}))


async def write(session: Session, documents: int) -> list[bytes]:
    """Commit the source and the assets, batch by batch, as runs do."""
    project = session.project
    observed = [facts(0, number) for number in range(documents)]
    given = observed
    above: list[tuple[bytes, int]] = []
    for depth in range(DEPTH + 1):
        asset, definition = f"a{depth}", 0
        if depth:
            async with project.engine.begin() as connection:
                parts = project.fingerprint(asset).parts
                definition = await lineage.keep_definition(
                    connection, project.asset_ids[asset], project.definition(asset), parts
                )
        below: list[tuple[bytes, int]] = []
        identities = [facts(depth, number) for number in range(documents)]
        for start in range(0, documents, BATCH):
            async with project.engine.begin() as connection:
                base = await lineage.allocate(connection)
                made = []
                for place, number in enumerate(range(start, min(start + BATCH, documents))):
                    unit = above[number][0] if depth else source_unit(name(number))
                    new = NewDocument(
                        base + 2 * place, document_address(unit, name(number)), name(number), "Page", "text/plain", 2000,
                        content(depth, number), b"", identities[number], base, place, None,
                    )  # fmt: skip
                    edges = ((0, above[number][1]),) if depth else ()
                    made.append(
                        Made(base + 2 * place + 1, unit, name(number), None, given[number], (new.id,), (new,), edges, (), 0.001,
                             None, changed=True)
                    )  # fmt: skip
                    below.append((new.address, new.id))
                batch = Batch(
                    base >> 20, project.id, project.environment_id, project.asset_ids[asset], definition, "bench",
                    Key(f"chain/main/none/{asset}/_manifest-{base >> 20}.parquet"), tuple(made),
                )  # fmt: skip
                await lineage.commit(connection, batch)
        above, given = below, identities
    async with project.engine.begin() as connection:
        await lineage.analyze(connection)
    return observed


async def settle(session: Session, identities: list[bytes]) -> None:
    """Note that all of it is fresh, as a run does at the end of each step."""
    project, count = session.project, len(identities)
    for depth in range(DEPTH + 1):
        async with project.engine.begin() as connection:
            marks = await snapshot.read.watermarks(connection, project.environment_id)
            identifier = project.asset_ids[f"a{depth}"]
            settled: dict[str, Any] = {"observed": observed_digest(observation(identities))}
            if depth:
                digest = project.definition(f"a{depth}").digest.hex()
                settled = {"definition": digest, "upstream": changed_commits(project, f"a{depth}", marks)}
            await lineage.settle(
                connection,
                project.environment_id,
                identifier,
                settled,
                units=count,
                documents=count,
                last=marks[identifier].last,
            )


def observation(identities: list[bytes], edited: list[int] | None = None) -> pl.DataFrame:
    """What a look at the source would find."""
    now, hashes = list(identities), [content(0, number) for number in range(len(identities))]
    for number in edited or ():
        now[number], hashes[number] = facts(0, number, True), content(0, number, True)
    count = len(now)
    columns = {
        "name": [name(number) for number in range(count)], "size": [2000] * count, "mtime_ns": [1] * count, "inode": [1] * count,
        "media_type": ["text/plain"] * count, "sha256": hashes, "fields": [b""] * count, "identity": now, "validator": [None] * count,
    }  # fmt: skip
    frame = pl.DataFrame({column: columns[column] for column in OBSERVED}, schema=dict(OBSERVED))
    return frame.rename({"fields": "field_digests"}).sort("name")


def observe_as(session: Session, observed: pl.DataFrame) -> None:
    """The look at the outer world is not what is measured here."""

    async def observe(*_: Any, **__: Any) -> list[pl.DataFrame]:
        return [observed]

    snapshot.observe = observe  # type: ignore[assignment] # the bench's own process


async def planned(session: Session, *, entire: bool = False) -> int:
    """How many units a plan finds stale."""
    choice = Choice(frozenset(n for n in session.graph.assets if n not in session.graph.sources))
    if entire:
        async with session.project.engine.begin() as connection:
            for identifier in session.project.asset_ids.values():
                mark = await snapshot.read.watermark(connection, session.project.environment_id, identifier)
                await lineage.settle(
                    connection, session.project.environment_id, identifier, {"definition": ""}, units=mark.units,
                    documents=mark.documents, last=mark.last,
                )  # fmt: skip
    found = await snapshot.take(session.project, choice)
    return make_plan(session.graph, session.environment, found.snapshot, choice).stale


async def volume(session: Session) -> tuple[int, int]:
    """How many rows the large tables have, and how many bytes they take with their indexes."""
    import sqlalchemy as sa

    from assetcore.lineage import tables as t

    rows = size = 0
    async with session.project.engine.connect() as connection:
        for table in (t.document, t.materialization, t.edge, t.head):
            rows += (await connection.execute(sa.select(sa.func.count()).select_from(table))).scalar_one()
            size += (await connection.execute(sa.select(sa.func.pg_total_relation_size(table.name)))).scalar_one()
    return rows, size


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asyncio.run(main(int(sys.argv[1])))))
