"""Lineage: what do plans and questions cost over many rows? They are written by the code that commits runs; no bytes are stored.

A source of so many documents, and five assets below it, each once for each document: six times as many units, documents and heads.
What is measured runs in processes of their own, `python -m tests.bench.lineage N write`, then `ask` and `environments`, in a place with
services.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import resource
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
import sqlalchemy as sa

from assetcore import environments, snapshot, stack
from assetcore.documents import document_id, field_digests, identity
from assetcore.judgement import Choice
from assetcore.lineage import commit as lineage
from assetcore.lineage.commit import Batch, Made, NewDocument, NewObject
from assetcore.lineage.manifest import encode_manifest
from assetcore.observation import Look, observed_digest, source_unit
from assetcore.plan import make_plan
from assetcore.session import Session
from assetcore.settings import Settings
from assetcore.snapshot import changed_commits
from assetcore.sources import OBSERVED
from assetcore.storage import Key, object_key
from assetcore.units import document_address
from tests.bench.meter import Services, measure
from tests.bench.place import project_place
from tests.bench.report import Report, against

DEPTH = 5
BATCH = 10_000
PROMOTED = 100_000
REBUILT = 3_000_000
"""Up to so many rows Postgres is also rebuilt: all that the manifests tell is in memory then."""
STAMP = "20261120T000000.000000Z"
ASKED = 200
EDITED = 100
"""One in so many documents."""


def bench(report: Report, documents: int) -> None:
    report.step(f"lineage of {documents:,} documents in {DEPTH + 1} assets")
    with project_place("chain", declarations()) as place:
        (place.root / "data").mkdir()
        environment = place.env | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}

        def staged(stage: str) -> dict[str, Any]:
            report.step(stage)
            words = [sys.executable, "-m", "tests.bench.lineage", str(documents), stage]
            return json.loads(measure(words, cwd=place.root, env=environment).out)

        found = staged("write")
        cases = [Case(**one) for stage in ("ask", "environments") for one in staged(stage)["cases"]]
        if found["rows"] <= REBUILT:
            rebuilt = place.call("catalog", "rebuild", "--replace", "--json")
            cases.append(Case("catalog rebuild", rebuilt.wall, rebuilt.cpu, rebuilt.service_cpu, rebuilt.peak / 1e6))
    moved = min(documents, PROMOTED)
    goals = {
        "plan, nothing stale": 3.0,
        "plan, every unit compared": 3.0 * documents * (DEPTH + 1) / 1e6,
        "plan, 1 % edited": 2.0 * documents / 1e5,
        "lineage up, p95": 0.05,
        "lineage down, p95": 0.05,
        "why, fresh, p95": 0.05,
        "why, edited, p95": 0.05,
        "env create": 0.1,
        f"env promote of {moved:,} units": 5.0 * moved / 1e5,
        "catalog rebuild": 60 * found["rows"] / 1e6,
    }
    within = {"lineage up, p95": 0.02, "lineage down, p95": 0.02}
    rows = [
        [
            one.name, f"{one.wall:.3f}", f"{one.cpu:.3f}", f"{one.postgres:.3f}", f"{one.peak:.0f}", str(one.statements or ""),
            f"{one.asked:.3f}", against(one.wall, goals[one.name]) if one.name in goals else "",
            against(one.asked, within[one.name]) if one.name in within else "",
        ]
        for one in cases
    ]  # fmt: skip
    report.table(
        f"Lineage of {documents:,} documents, {found['units']:,} units, {found['rows']:,} rows (sources excluded; "
        f"{found['bytes'] / found['units']:.0f} bytes of Postgres a unit; written in {found['written']:.0f} s)",
        ["case", "wall s", "CPU s", "Postgres s", "peak MB so far", "statements", "in them s", "goal", "goal in them"],
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


@dataclass(frozen=True, slots=True)
class Case:
    """What was asked; seconds by the clock, of this process and of Postgres; resident memory so far; statements, and seconds in them."""

    name: str
    wall: float
    cpu: float
    postgres: float
    peak: float
    statements: int = 0
    asked: float = 0.0


@dataclass(slots=True)
class Stage:
    """One process: the session, and what its cases took."""

    session: Session
    documents: int
    cases: list[Case] = field(default_factory=list)

    async def case(self, name: str, work: Callable[[], Awaitable[Any]]) -> Any:
        [found] = await self._measured([name], [0], lambda _: work())
        return found

    async def many(self, name: str, numbers: Sequence[int], work: Callable[[int], Awaitable[Any]]) -> None:
        """The median and the 95th percentile of so many calls; CPU and statements are those of one, on average."""
        await self._measured([f"{name}, median", f"{name}, p95"], numbers, work)

    async def _measured(
        self, names: Sequence[str], numbers: Sequence[int], work: Callable[[int], Awaitable[Any]]
    ) -> list[Any]:
        engine, services, statements, began, asked = (
            self.session.project.engine.sync_engine,
            Services(Path("home")),
            0,
            0.0,
            0.0,
        )

        def count(*_: Any) -> None:
            nonlocal statements, began
            statements, began = statements + 1, time.perf_counter()

        def answered(*_: Any) -> None:
            nonlocal asked
            asked += time.perf_counter() - began

        sa.event.listen(engine, "before_cursor_execute", count)
        sa.event.listen(engine, "after_cursor_execute", answered)
        cpu, postgres, found, times, inside = time.process_time(), services.cpu()["postgres"], [], [], []
        for number in numbers:
            before, asked = time.perf_counter(), 0.0
            found.append(await work(number))
            times.append(time.perf_counter() - before)
            inside.append(asked)
        each = len(times)
        cpu, postgres = (time.process_time() - cpu) / each, (services.cpu()["postgres"] - postgres) / each
        sa.event.remove(engine, "before_cursor_execute", count)
        sa.event.remove(engine, "after_cursor_execute", answered)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
        walls, within = (_middle_and_end(some) for some in (times, inside))
        self.cases += [
            Case(told, wall, cpu, postgres, peak, statements // each, sql)
            for told, wall, sql in zip(names, walls, within, strict=True)
        ]
        return found


def _middle_and_end(times: Sequence[float]) -> Sequence[float]:
    """The median and the 95th percentile; of one alone, itself."""
    return times if len(times) == 1 else [statistics.median(times), statistics.quantiles(times, n=20)[-1]]


async def main(documents: int, stage: str) -> dict[str, Any]:
    settings = Settings.load(Path.cwd())
    addresses = await stack.up(settings, {"postgres", "redis", "store"})
    async with Session.open(addresses.applied_to(settings), "chain", automatic_schema=True) as session:
        if stage == "write":
            started = time.perf_counter()
            await settle(session, await write(session, documents))
            written = time.perf_counter() - started
            rows, size = await volume(session)
            return {"written": written, "units": documents * (DEPTH + 1), "rows": rows, "bytes": size}
        found = Stage(session, documents)
        await (ask(found) if stage == "ask" else change(found))
    return {"cases": [asdict(one) for one in found.cases]}


async def ask(stage: Stage) -> None:
    """Plans and questions."""
    session, documents = stage.session, stage.documents
    chance = random.Random(7)
    asked = [chance.randrange(documents) for _ in range(ASKED)]

    async def lineage_of(number: int, direction: str, depth: int) -> None:
        found = await session.lineage(document_id(content(depth, number), 20), direction)
        assert len(found.nodes) == DEPTH + 1

    async def why_fresh(number: int) -> None:
        write_file(number)
        assert (await session.why(f"a{DEPTH}[{name(number)}]")).fresh

    async def why_edited(number: int) -> None:
        write_file(number, edited=True)
        found = await session.why(f"a{DEPTH}[{name(number)}]")
        assert [cause.subject for cause in found.causes] == [f"a0[{name(number)}]/{name(number)}"]

    await stage.many("lineage up", asked, lambda number: lineage_of(number, "up", DEPTH))
    await stage.many("lineage down", asked, lambda number: lineage_of(number, "down", 0))
    await stage.many("why, fresh", asked, why_fresh)
    await stage.many("why, edited", asked, why_edited)
    identities = [facts(0, number) for number in range(documents)]
    was = observation(identities)
    observe_as(session, was, was)
    assert (await stage.case("plan, nothing stale", lambda: planned(session))) == 0
    numbers = list(range(0, documents, EDITED))
    observe_as(session, observation(identities, edited=numbers), was)
    assert (await stage.case("plan, 1 % edited", lambda: planned(session))) == len(numbers)
    observe_as(session, was, was)
    assert (await stage.case("plan, every unit compared", lambda: planned(session, entire=True))) == 0


async def change(stage: Stage) -> None:
    """An environment is made, in it units of one asset are made anew, and it takes the other's place."""
    session, moved = stage.session, min(stage.documents, PROMOTED)
    await stage.case("env create", lambda: session.create_environment("next"))
    there = Session(await environments.within(session.project, "next"))
    await stage.case(f"{moved:,} units made anew in it", lambda: remake(there, moved))
    promoted = await stage.case(f"env promote of {moved:,} units", lambda: session.promote("next", "prod"))
    assert promoted.assets == ((f"a{DEPTH}", moved, 0),)


def name(number: int) -> str:
    return f"{number // 1000:04d}/{number:07d}.txt"


def content(depth: int, number: int, edited: bool = False) -> bytes:
    """What stands for the hash of a document's bytes."""
    return hashlib.sha256(f"{depth} {number} {edited}".encode()).digest()


def write_file(number: int, edited: bool = False) -> None:
    """What a look at this document finds."""
    path = Path("data", name(number))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"0 {number} {edited}")


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
                identifier = project.asset_ids[asset]
                found = await lineage.keep_definitions(connection, {identifier: project.definition(asset)}, parts)
                definition = found[identifier]
        below: list[tuple[bytes, int]] = []
        identities = [facts(depth, number) for number in range(documents)]
        for start in range(0, documents, BATCH):
            async with project.engine.begin() as connection:
                base = await lineage.allocate(connection)
                pack = NewObject(base, Key(f"chain/main/none/{asset}/pack-{base >> 20}.parquet"), 1, BATCH)
                made = []
                for place, number in enumerate(range(start, min(start + BATCH, documents))):
                    unit = above[number][0] if depth else source_unit(name(number))
                    new = NewDocument(
                        base + 2 * place + 1, document_address(unit, name(number)), name(number), "Page", "text/plain", 2000,
                        content(depth, number), b"", identities[number], pack.id, place, None,
                    )  # fmt: skip
                    edges = ((0, above[number][1]),) if depth else ()
                    made.append(
                        Made(base + 2 * place + 2, unit, name(number), None, given[number], (new.id,), (new,), edges, (), 0.001,
                             None, changed=True)
                    )  # fmt: skip
                    below.append((new.address, new.id))
                batch = Batch(
                    base >> 20, project.id, project.environment_id, project.asset_ids[asset], definition, "bench",
                    manifest_key(asset, base >> 20), tuple(made), objects=(pack,),
                )  # fmt: skip
                await keep_manifest(session, batch, asset)
                await lineage.commit(connection, batch)
        above, given = below, identities
    async with project.engine.begin() as connection:
        await lineage.analyze(connection)
    return observed


async def remake(session: Session, count: int) -> None:
    """Units of the last asset give another result, in an environment of its own."""
    project, asset = session.project, f"a{DEPTH}"
    async with project.engine.connect() as connection:
        known = (await snapshot.read.made_units(connection, project.environment_id, [project.asset_ids[asset]]))[
            project.asset_ids[asset]
        ].head(count)
    for start in range(0, count, BATCH):
        async with project.engine.begin() as connection:
            base = await lineage.allocate(connection)
            pack = NewObject(base, Key(f"chain/main/none/{asset}/pack-{base >> 20}.parquet"), 1, BATCH)
            made = []
            rows = known.slice(start, BATCH).select("unit", "label", "inputs", "materialization").rows()
            for place, (unit, label, inputs, was) in enumerate(rows):
                sha256 = hashlib.sha256(f"anew {label}".encode()).digest()
                new = NewDocument(
                    base + 2 * place + 1, document_address(unit, label), label, "Page", "text/plain", 2000, sha256, b"",
                    identity("Page", label, "text/plain", sha256, field_digests({})), pack.id, place, None,
                )  # fmt: skip
                made.append(
                    Made(
                        base + 2 * place + 2,
                        unit,
                        label,
                        None,
                        inputs,
                        (new.id,),
                        (new,),
                        (),
                        (),
                        0.001,
                        was,
                        changed=True,
                    )
                )
            batch = Batch(
                base >> 20, project.id, project.environment_id, project.asset_ids[asset], known["definition"][0], "anew",
                manifest_key(asset, base >> 20), tuple(made), objects=(pack,),
            )  # fmt: skip
            await keep_manifest(session, batch, asset)
            await lineage.commit(connection, batch)


def manifest_key(asset: str, number: int) -> Key:
    return object_key("chain", "main", STAMP, asset, f"_manifest-{number:08d}.parquet")


async def keep_manifest(session: Session, batch: Batch, asset: str) -> None:
    project = session.project
    definition = project.definition(asset) if batch.definition else None
    kind = "asset" if definition else "source"
    data = encode_manifest(
        batch, project=project.name, environment=project.environment, asset=asset, assets={}, definition=definition,
        kind=kind, group="main",
    )  # fmt: skip
    await project.bucket.write(batch.manifest, data)


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


def observe_as(session: Session, observed: pl.DataFrame, before: pl.DataFrame) -> None:
    """The look at the outer world is not what is measured here."""

    async def observe(*_: Any, **__: Any) -> dict[str, Look]:
        return {"a0": Look.at(observed, before["name", "identity"])}

    snapshot.observe = observe  # type: ignore[assignment]  # the bench's own process


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
    from assetcore.lineage import tables as t

    rows = size = 0
    async with session.project.engine.connect() as connection:
        for table in (t.document, t.materialization, t.edge, t.head):
            rows += (await connection.execute(sa.select(sa.func.count()).select_from(table))).scalar_one()
            size += (await connection.execute(sa.select(sa.func.pg_total_relation_size(table.name)))).scalar_one()
    return rows, size


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asyncio.run(main(int(sys.argv[1]), sys.argv[2]))))
