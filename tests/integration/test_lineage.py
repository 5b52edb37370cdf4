"""Lineage in Postgres: commits are whole or not at all, nothing is overwritten, and reading stays on indexes."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import json
import random
import re
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import asyncpg
import polars as pl
import pytest
import sqlalchemy as sa
from alembic import command, config
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from assetcore.documents import document_id, identity
from assetcore.errors import SchemaError, ServiceError, StorageError
from assetcore.lineage import asking, costs, named, read, recipes, schema, tables, trace
from assetcore.lineage import commit as lineage
from assetcore.lineage import history as past
from assetcore.lineage.commit import Batch, Committed, Failed, Made, NewDocument, NewObject, Overtaken, Reused
from assetcore.staleness import Component, Definition
from assetcore.storage import Key
from assetcore.units import document_address

pytestmark = pytest.mark.integration

PROJECT, PROD, NIGHT = 1, 1, 2
PAGES, CHUNKS, REPORT, FEW = 1, 2, 3, 4


def unit(label: str) -> bytes:
    return document_address(b"test", label)


@dataclass
class History:
    """A database to which a test commits, as a run does."""

    engine: schema.Engine
    definition: int = 0
    versions: dict[int, bytes] = field(default_factory=dict)

    async def made(
        self, asset: int, results: dict[str, str], was: dict[str, int | None] | None = None, given: Iterable[tuple[int, int]] = (),
        collected: Iterable[tuple[int, int, int]] = (), *, environment: int = PROD, changed: bool = True, key: str | None = None,
    ) -> tuple[Committed, dict[str, int]]:  # fmt: skip
        """Commit units that each made one document with this text; returns the commit, and each unit's materialization."""
        batch, numbers = await self.batch(
            asset, results, was or {}, given, collected, environment, changed=changed, key=key
        )
        return await self.commit(batch), numbers

    async def batch(
        self, asset: int, results: dict[str, str], was: dict[str, int | None], given: Iterable[tuple[int, int]] = (),
        collected: Iterable[tuple[int, int, int]] = (), environment: int = PROD, *, changed: bool = True, key: str | None = None,
    ) -> tuple[Batch, dict[str, int]]:  # fmt: skip
        async with self.engine.connect() as connection:
            base = await lineage.allocate(connection)
        numbers = iter(range(base, base + (1 << 20)))
        pack = NewObject(next(numbers), Key(key or f"pack-{base}"), 1, len(results))
        made: list[Made] = []
        for row, (label, text) in enumerate(results.items()):
            sha256 = hashlib.sha256(text.encode()).digest()
            facts = ("Page", label, "text/plain", sha256, b"")
            document = NewDocument(
                next(numbers), document_address(unit(label), label), label, "Page", "text/plain", len(text), sha256, b"",
                identity(*facts), pack.id, row, None,
            )  # fmt: skip
            made.append(
                Made(
                    next(numbers), unit(label), label, None, hashlib.sha256(text.encode()).digest(), (document.id,), (document,),
                    tuple(given), tuple(collected), 0.5, was.get(label), changed=changed,
                )
            )  # fmt: skip
        manifest = Key(f"manifest-{base}")
        batch = Batch(
            base >> 20, PROJECT, environment, asset, self.definition, "run", manifest, tuple(made), objects=(pack,)
        )
        return batch, {m.label: m.id for m in made}

    async def empty(self, asset: int, **parts: Any) -> Batch:
        batch, _ = await self.batch(asset, {}, {})
        return replace(batch, objects=(), **parts)

    async def commit(self, batch: Batch) -> Committed:
        async with self.engine.begin() as connection:
            return await lineage.commit(connection, batch)

    async def current(self, asset: int, commit: int | None = None, environment: int = PROD) -> dict[str, bytes]:
        """The documents of an asset, now or as of a commit: name and content's hash."""
        async with self.engine.connect() as connection:
            frame = (await read.current_documents(connection, environment, [asset], commit))[asset]
        return dict(frame.select("name", "sha256").iter_rows())

    async def mark(self, asset: int) -> read.Watermark:
        async with self.engine.connect() as connection:
            return (await read.watermarks(connection, PROD))[asset]

    async def settle(self, asset: int, last: int) -> read.Watermark:
        async with self.engine.begin() as connection:
            await lineage.settle(connection, PROD, asset, {"definition": "x"}, units=1, documents=1, last=last)
        return await self.mark(asset)

    async def rows(self) -> dict[str, int]:
        """How many rows every table has."""
        async with self.engine.connect() as connection:
            return {
                table.name: (await connection.execute(sa.select(sa.func.count()).select_from(table))).scalar_one()
                for table in tables.metadata.sorted_tables
            }


@pytest.fixture
async def history(database: str) -> AsyncIterator[History]:
    engine = schema.connect(database)
    t = tables
    async with engine.begin() as connection:
        await connection.execute(sa.insert(t.project).values(name="demo"))
        await connection.execute(
            sa.insert(t.environment), [{"project_id": PROJECT, "name": n} for n in ("prod", "night")]
        )
        for name in ("pages", "chunks", "report", "few"):
            await connection.execute(
                sa.insert(t.asset).values(project_id=PROJECT, name=name, kind="asset", flow="main")
            )
        definition = Definition({"code": Component(b"1" * 32)})
        identifier = (await lineage.keep_definitions(connection, {CHUNKS: definition}, ()))[CHUNKS]
    yield History(engine, identifier)
    await engine.dispose()


def sha256(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


# -- commits -------------------------------------------------------------------------------------------------------------------


async def test_commits_of_several_assets_in_one_transaction_change_what_each_of_them_alone_would(
    history: History,
) -> None:
    """A unit of one asset ends that of no other that has its address; where one was overtaken, nothing of any is written."""
    before, was = await history.made(CHUNKS, {"a": "one"})
    other, _ = await history.made(REPORT, {"a": "old"})
    one, _ = await history.batch(CHUNKS, {"a": "two"}, {"a": was["a"]})
    two = await history.empty(REPORT, failed=(Failed(unit("a"), "a", b"", "no", ""),))
    async with history.engine.begin() as connection:
        done = await lineage.commit_all(connection, [two, one])
    assert done == [Committed(two.number, other.number), Committed(one.number, before.number)]
    assert await history.current(CHUNKS) == {"a": sha256("two")}
    assert await history.current(CHUNKS, before.number) == {"a": sha256("one")}
    assert await history.current(REPORT) == {"a": sha256("old")}
    assert (await history.mark(CHUNKS)).changed == one.number
    assert (await history.mark(REPORT)).changed == other.number
    rows = await history.rows()
    assert rows["failure"] == 1
    again, _ = await history.batch(CHUNKS, {"a": "three"}, {"a": was["a"]})
    new, _ = await history.batch(REPORT, {"b": "new"}, {})
    with pytest.raises(Overtaken):
        async with history.engine.begin() as connection:
            await lineage.commit_all(connection, [new, again])
    assert await history.rows() == rows


async def test_a_type_of_documents_that_was_not_committed_is_not_remembered(history: History) -> None:
    """What documents are is kept once; after a commit that failed, the next one of the same connection writes it anew."""
    batch, _ = await history.batch(CHUNKS, {"a": "one"}, {})
    wanted = {("Page", "text/plain")}
    async with history.engine.connect() as connection:
        for _ in range(2):
            await lineage.commit(connection, batch)
            await lineage.keep_types(connection, wanted)
            await connection.rollback()
        [identifier] = (await lineage.keep_types(connection, wanted)).values()
        await connection.commit()
        assert await lineage.keep_types(connection, wanted) == {("Page", "text/plain"): identifier}
        kept = sa.select(tables.document_type.c.id)
        assert list((await connection.execute(kept)).scalars()) == [identifier]
    assert await history.commit(batch) == Committed(batch.number, 0)
    assert (await history.rows())["document_type"] == 1


async def test_a_commit_is_whole_or_not_at_all(history: History) -> None:
    """A commit that fails in the middle, in the database or after it, leaves no row of any table."""
    await history.made(CHUNKS, {"a": "one"}, key="taken")
    before, shown = await history.rows(), await history.current(CHUNKS)
    broken, numbers = await history.batch(CHUNKS, {"b": "two", "c": "three"}, {})
    with pytest.raises(asyncpg.UniqueViolationError):
        await history.commit(replace(broken, made=(*broken.made, broken.made[0])))
    taken, _ = await history.batch(CHUNKS, {"b": "two"}, {}, key="taken")
    with pytest.raises(asyncpg.UniqueViolationError):
        await history.commit(taken)

    async def stopped() -> None:
        async with history.engine.begin() as connection:
            await lineage.commit(connection, broken)
            raise RuntimeError("pulled the plug")

    with pytest.raises(RuntimeError, match="plug"):
        await stopped()
    assert await history.rows() == before
    assert await history.current(CHUNKS) == shown
    await history.commit(broken)
    assert set(await history.current(CHUNKS)) == {"a", "b", "c"}
    assert len(numbers) == 2


async def test_who_was_overtaken_writes_nothing(history: History) -> None:
    """A commit says what its units were when they were judged; where one of them has moved on, nothing of it is written."""
    _, first = await history.made(CHUNKS, {"a": "one", "b": "one"})
    _, second = await history.made(CHUNKS, {"a": "two"}, was={"a": first["a"]})
    before = await history.rows()
    late = [
        (await history.batch(CHUNKS, {"a": "three", "c": "three"}, {"a": first["a"]}))[0],
        (await history.batch(CHUNKS, {"b": "three"}, {}))[0],
        await history.empty(CHUNKS, reused=(Reused(unit("a"), "a", first["a"], first["a"]),)),
        await history.empty(CHUNKS, removed=((unit("a"), first["a"]),)),
        await history.empty(CHUNKS, removed=((unit("x"), first["a"]),)),
    ]
    for batch in late:
        with pytest.raises(Overtaken):
            await history.commit(batch)
    assert await history.rows() == before
    await history.made(CHUNKS, {"a": "three"}, was={"a": second["a"]})
    assert await history.current(CHUNKS) == {"a": sha256("three"), "b": sha256("one")}
    await history.made(CHUNKS, {"a": "one"}, environment=NIGHT)
    assert await history.current(CHUNKS) == {"a": sha256("three"), "b": sha256("one")}, (
        "another environment is another place"
    )


async def test_what_an_asset_was_can_be_read_as_of_any_commit(history: History) -> None:
    """Units are superseded and never updated: each commit's view of an asset stays as it was, whatever comes after."""
    seen: list[tuple[int, dict[str, bytes]]] = []

    async def then(step: Awaitable[Committed]) -> None:
        number = (await step).number
        seen.append((number, await history.current(CHUNKS)))

    _, first = await history.made(CHUNKS, {"a": "one", "b": "one"})
    batch, second = await history.batch(CHUNKS, {"a": "two"}, {"a": first["a"]})
    await then(history.commit(batch))
    await then(history.commit(await history.empty(CHUNKS, removed=((unit("b"), first["b"]),))))
    await then(history.commit(await history.empty(CHUNKS, reused=(Reused(unit("a"), "a", first["a"], second["a"]),))))
    await then(history.commit(await history.empty(CHUNKS, reused=(Reused(unit("b"), "b", first["b"], None),))))
    assert [documents for _, documents in seen] == [
        {"a": sha256("two"), "b": sha256("one")}, {"a": sha256("two")}, {"a": sha256("one")}, {"a": sha256("one"), "b": sha256("one")},
    ]  # fmt: skip
    for number, documents in seen:
        assert await history.current(CHUNKS, number) == documents
        async with history.engine.connect() as connection:
            found = await named.of_asset(connection, PROD, CHUNKS, commit=number)
        assert {f.name: f.sha256 for f in found} == documents


async def test_what_is_read_does_not_depend_on_how_much_is_taken_in_at_a_time(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows come in as many parts as it takes, of several assets at once; what was not asked for is null, and the order stays."""
    await history.made(PAGES, {name: name for name in "edcba"})
    await history.made(CHUNKS, {name: name for name in "cab"})
    async with history.engine.connect() as connection:
        whole = await read.current_documents(connection, PROD, [PAGES, CHUNKS])
        monkeypatch.setattr(asking, "PART_BYTES", 2)
        some = await read.current_documents(connection, PROD, [PAGES, CHUNKS])
        told = await read.current_documents(connection, PROD, [PAGES, CHUNKS, REPORT], in_parts=(), named=[PAGES])
    for asset in (PAGES, CHUNKS):
        assert some[asset].equals(whole[asset], null_equal=True)
    unread = {"media_type", "sha256", "field_digests"}
    assert told[PAGES].drop(unread).equals(whole[PAGES].drop(unread), null_equal=True)
    unread |= {"name", "label", "path"}
    assert told[CHUNKS].drop(unread).equals(whole[CHUNKS].drop(unread), null_equal=True)
    assert all(told[CHUNKS][name].is_null().all() for name in unread)
    assert told[REPORT].schema == whole[PAGES].schema


HURTFUL = [
    "", " ", "\t", '"', '""', '"a', ",", "a,b", ";", "\n", "\r", "\r\n", "a\nb", "\\", "\\N", "\\.", "\\x00", "'", "''", "$1", "%s",
    "null", "NULL", "\ufeff", "\ufeffa", "é", "🙂", "\x01", "\x7f", "\u2028", "#", "t", "f", "0", "-", "1e5", None,
]  # fmt: skip
"""Texts that mean something to somebody between here and Postgres."""


@pytest.mark.parametrize("part", [1, 64, 1 << 20])
async def test_values_are_copied_out_as_they_are(history: History, monkeypatch: pytest.MonkeyPatch, part: int) -> None:
    """Whatever a text holds, wherever it stands; nothing and an empty one are two things; bytes, UUIDs, numbers and flags."""
    monkeypatch.setattr(asking, "PART_BYTES", part)
    rng = random.Random(part)
    rows = [
        (
            text, i * 10**15 if i % 3 else None, i % 2 == 0 if i % 5 else None, rng.randbytes(i) if i % 7 else None,
            uuid.UUID(bytes=rng.randbytes(16)).bytes if i % 4 else None, rng.random() * 10**i, HURTFUL[-i],
        )
        for i, text in enumerate(HURTFUL)
    ]  # fmt: skip
    kinds = [sa.Text, sa.BigInteger, sa.Boolean, sa.LargeBinary, tables.head.c.unit.type, sa.Double, sa.Text]
    names = "abcdefg"
    given = sa.values(*(sa.column(name, kind) for name, kind in zip(names, kinds, strict=True)), name="given").data(
        rows
    )
    schema = dict(
        zip(names, [pl.String, pl.Int64, pl.Boolean, pl.Binary, pl.Binary, pl.Float64, pl.String], strict=True)
    )
    async with history.engine.connect() as connection:
        preferred = {"bytea_output": "escape", "extra_float_digits": "0"}
        await connection.execute(
            sa.select(*(sa.func.set_config(name, value, False) for name, value in preferred.items()))
        )
        for shown in (names, names[::-1], "a"):
            statement = sa.select(*(given.c[name] for name in shown)).where(
                given.c.g.is_distinct_from(sa.bindparam("no"))
            )
            found = await asking.columns(connection, statement, {name: schema[name] for name in shown}, {"no": "\\'$1"})
            expected = [tuple(row[names.index(name)] for name in shown) for row in rows]
            assert Counter(found.rows()) == Counter(expected)
            assert list(found.schema.values()) == [schema[name] for name in shown]
        assert (await asking.columns(connection, statement.where(sa.false()), {"a": pl.String}, {"no": ""})).is_empty()


async def test_what_postgres_says_of_a_copy_is_raised(history: History) -> None:
    """And the connection is as after any other statement that fails."""
    async with history.engine.connect() as connection:
        with pytest.raises(asyncpg.DivisionByZeroError):
            await asking.columns(connection, sa.select(sa.literal(1) / sa.literal(0)), {"a": pl.Int64})
        await connection.rollback()
        assert (await asking.columns(connection, sa.select(sa.literal(1)), {"a": pl.Int64})).rows() == [(1,)]


async def test_a_copy_that_is_stopped_leaves_the_database_as_it_is(history: History) -> None:
    """Who waits no longer for many rows is let go at once, and the next one is served."""
    numbers = sa.select(sa.func.generate_series(1, 200_000_000).label("a"))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5), history.engine.connect() as connection:
            await asking.columns(connection, numbers, {"a": pl.Int64})
    async with history.engine.connect() as connection:
        assert (await asking.columns(connection, sa.select(sa.literal(1)), {"a": pl.Int64})).rows() == [(1,)]


async def test_a_failure_is_noted_until_its_unit_is_made_or_gone(history: History) -> None:
    """The last failure of a unit is kept with the recipe that failed, and forgotten when the unit is made, taken back or removed."""
    _, first = await history.made(CHUNKS, {"a": "one", "b": "one"})
    failed = tuple(Failed(unit(label), label, b"i" * 32, "ValueError: no", "...") for label in "abc")
    await history.commit(await history.empty(CHUNKS, failed=failed))
    await history.commit(await history.empty(CHUNKS, failed=failed))

    async def labels() -> set[str]:
        async with history.engine.connect() as connection:
            units = (await read.made_units(connection, PROD, [CHUNKS]))[CHUNKS]
        return set(units.filter(pl.col("failed_inputs").is_not_null())["label"])

    assert await labels() == {"a", "b", "c"}
    await history.made(CHUNKS, {"c": "one"})
    assert await labels() == {"a", "b"}
    await history.commit(await history.empty(CHUNKS, reused=(Reused(unit("a"), "a", first["a"], first["a"]),)))
    await history.commit(await history.empty(CHUNKS, removed=((unit("b"), first["b"]),)))
    assert await labels() == set()


async def test_a_watermark_tells_when_documents_last_changed(history: History) -> None:
    """Commits that change no document move the last commit on and leave the last change; each says which commit it came after."""
    first, numbers = await history.made(CHUNKS, {"a": "one"})
    assert (await history.mark(CHUNKS)).changed == (await history.mark(CHUNKS)).last == first.number
    second, _ = await history.made(CHUNKS, {"a": "one"}, was=dict(numbers), changed=False)
    third = await history.commit(await history.empty(CHUNKS, failed=(Failed(unit("x"), "x", b"i" * 32, "E", ""),)))
    mark = await history.mark(CHUNKS)
    assert (mark.changed, mark.last) == (first.number, third.number)
    assert [c.after for c in (first, second, third)] == [0, first.number, second.number]
    assert first.number < second.number < third.number


async def test_an_asset_is_settled_only_when_nothing_was_committed_since(history: History) -> None:
    """That all units are fresh holds for what was judged: a commit meanwhile or later undoes it. Failures are forgotten with it."""
    first, numbers = await history.made(CHUNKS, {"a": "one"})
    failure = (Failed(unit("gone"), "gone", b"i" * 32, "E", ""),)
    failed = await history.commit(await history.empty(CHUNKS, failed=failure))
    assert (await history.settle(CHUNKS, first.number)).settled is None
    assert (await history.rows())["failure"] == 1
    assert (await history.settle(CHUNKS, failed.number)).settled == {"definition": "x"}
    assert (await history.rows())["failure"] == 0
    await history.made(CHUNKS, {"a": "two"}, was=dict(numbers))
    assert (await history.mark(CHUNKS)).settled is None
    assert (await history.settle(REPORT, 0)).settled == {"definition": "x"}, "an asset without units is settled, too"


# -- tracing -------------------------------------------------------------------------------------------------------------------


async def test_what_was_given_is_told_from_what_an_asset_is_now(history: History) -> None:
    """A unit that was given a whole asset is traced to what that asset then was; one by one, to the very documents."""
    pages, first = await history.made(PAGES, {"a": "one", "b": "one"})
    async with history.engine.connect() as connection:
        then = (await read.current_documents(connection, PROD, [PAGES]))[PAGES]
    given = [(0, number) for number in then["document"]]
    _, chunks = await history.made(CHUNKS, {"a": "c"}, given=given)
    _, report = await history.made(REPORT, {"r": "r"}, collected=[(0, PAGES, pages.number)])
    await history.made(PAGES, {"a": "two"}, was=dict(first))
    await history.commit(await history.empty(PAGES, removed=((unit("b"), first["b"]),)))
    async with history.engine.connect() as connection:
        former = await read.former_members(connection, [chunks["a"], report["r"]])
        assert set(former.rows()) == {
            (m, 0, address) for m in (chunks["a"], report["r"]) for address in then["address"]
        }
        documents = await read.current_documents(connection, PROD, [CHUNKS, REPORT])
        made_of = await trace.up(connection, PROD, documents[CHUNKS]["document"].to_list())
        assert {b for _, b in made_of.edges} == set(then["document"])
        down = await trace.down(connection, PROD, then["document"].to_list())
        assert {b for _, b in down.edges} == {*documents[CHUNKS]["document"], *documents[REPORT]["document"]}


# -- the schema ----------------------------------------------------------------------------------------------------------------


def scripts() -> config.Config:
    settings = config.Config()
    settings.set_main_option("script_location", str(schema.migrations_folder()).replace("%", "%%"))
    return settings


async def test_the_code_is_written_for_the_newest_migration() -> None:
    """schema.HEAD is the one newest migration, so that a command can tell without Alembic whether the database fits."""
    assert ScriptDirectory.from_config(scripts()).get_heads() == [schema.HEAD]


async def test_migrations_lead_to_the_tables_and_back(history: History) -> None:
    """Up, down to nothing, and up again: then the database has exactly the tables, columns and indexes that the code declares."""

    def migrate(connection: sa.Connection, *, up: bool) -> None:
        settings = scripts()
        settings.attributes["connection"] = connection
        command.upgrade(settings, "head") if up else command.downgrade(settings, "base")

    def differences(connection: sa.Connection) -> list[Any]:
        return compare_metadata(MigrationContext.configure(connection, opts={"compare_type": True}), tables.metadata)

    async with history.engine.begin() as connection:
        assert await connection.run_sync(differences) == []
        await connection.run_sync(lambda c: migrate(c, up=False))
        left = set(await connection.run_sync(lambda c: sa.inspect(c).get_table_names()))
        assert left == {"alembic_version"}
        assert await connection.run_sync(lambda c: sa.inspect(c).get_sequence_names()) == []
        await connection.run_sync(lambda c: migrate(c, up=True))
        assert await connection.run_sync(differences) == []


GIVEN: dict[str, list[tuple[int, str]]] = {
    "first": [(0, "a")], "again": [(0, "a"), (0, "a")], "several": [(0, "a"), (0, "b")], "second": [(1, "b")],
    "both": [(0, "a"), (1, "b"), (1, "a")], "nothing": [],
}  # fmt: skip
"""Units, and which documents each of their parameters was given."""


async def given_in_every_way(history: History) -> tuple[dict[str, int], dict[str, int]]:
    """Units of `GIVEN` that make one document each, of the same name; the documents that they were given."""
    _, above = await history.made(PAGES, {"a": "1", "b": "2"})
    documents = {name: (await first_documents(history, above[name]))[0] for name in above}
    made: dict[str, int] = {}
    for name, given in GIVEN.items():
        made |= (await history.made(CHUNKS, {name: name}, given=[(p, documents[d]) for p, d in given]))[1]
    return made, documents


async def made_in_every_way(history: History) -> dict[str, tuple[int, ...]]:
    """Units of FEW that made no document, an earlier one, one beside an earlier one, and one of typed fields of its own."""
    earlier = await first_documents(history, (await history.made(FEW, {"earlier": "e"}))[1]["earlier"])
    batch, _ = await history.batch(FEW, {"none": "n", "old": "o", "two": "p", "typed": "q"}, {})
    none, old, two, typed = batch.made
    note = typed.new[0]._replace(type="Note", media_type="text/markdown", fields={"n": [1]})
    made = (
        none._replace(documents=(), new=()), old._replace(documents=(*earlier,), new=()),
        two._replace(documents=(*two.documents, *earlier)), typed._replace(new=(note,)),
    )  # fmt: skip
    await history.commit(replace(batch, made=made, failed=(Failed(unit("x"), "x", b"", "no", ""),)))
    return {m.label: m.documents for m in made}


async def test_what_was_given_and_made_is_told_wherever_it_is_kept(history: History) -> None:
    """A document that was given or made alone stands in the unit's row, and others beside it: it is found in the same way."""
    made, documents = await given_in_every_way(history)
    kept = await made_in_every_way(history)
    async with history.engine.connect() as connection:
        came = {(await first_documents(history, number))[0]: name for name, number in made.items()}
        up = await trace.up(connection, PROD, list(came))
        down = await trace.down(connection, PROD, [*documents.values()])
        wanted = {(name, documents[d]) for name, given in GIVEN.items() for _, d in given}
        assert {(came[one], above) for one, above in up.edges} == wanted
        assert {(came[one], above) for above, one in down.edges} == wanted
        former = await read.former_members(connection, made.values())
        assert former.height == len({(name, *one) for name, given in GIVEN.items() for one in given})
        units = (await read.made_units(connection, PROD, [FEW]))[FEW]
        numbers = dict(units.select("label", "materialization").iter_rows())
        found = await read.documents_of(connection, numbers.values())
        assert {name: tuple(d[1] for d in found[numbers[name]]) for name in kept} == kept
        [note] = found[numbers["typed"]]
        assert (note.type, note.media_type, note.fields) == ("Note", "text/markdown", {"n": [1]})
        assert (await read.stored(connection, [note[1]]))[note[1]].media_type == "text/markdown"
        assert (await read.counts(connection, PROD, [FEW]))[FEW] == (5, 5)


async def test_rows_of_the_schema_before_are_found_as_they_were(history: History) -> None:
    """Rows of 0018, which told of each fact all that is kept once now, come to be the rows that are written now."""
    made, documents = await given_in_every_way(history)
    kept = await made_in_every_way(history)

    def migrate(connection: sa.Connection, revision: str) -> None:
        settings = scripts()
        settings.attributes["connection"] = connection
        command.downgrade(settings, revision) if revision == "0018" else command.upgrade(settings, revision)

    def stored(connection: sa.Connection) -> dict[str, list[dict[str, Any]]]:
        names = ("materialization", "edge", "document", "typed", "head", "failure")
        there = [name for name in names if sa.inspect(connection).has_table(name)]
        reflected = {name: sa.Table(name, sa.MetaData(), autoload_with=connection) for name in there}
        rows = {name: connection.execute(sa.select(table)).mappings() for name, table in reflected.items()}
        return {name: sorted(map(dict, found), key=repr) for name, found in rows.items()}

    async with history.engine.begin() as connection:
        commits = {c.id: (c.run_id, c.at) for c in await connection.execute(sa.select(tables.commit))}
        now = await connection.run_sync(stored)
        await connection.run_sync(lambda c: migrate(c, "0018"))
        before = await connection.run_sync(stored)
        await connection.run_sync(lambda c: migrate(c, "head"))
        after = await connection.run_sync(stored)
    types = [{row.pop("type_id") for row in rows["document"]} for rows in (now, after)]
    assert len(types[0]) == len(types[1]) == 2
    assert after == now
    edges = {(row["materialization_id"], row["parameter"], row["document_id"]) for row in before["edge"]}
    assert edges == {(made[name], p, documents[d]) for name, given in GIVEN.items() for p, d in given}
    assert all(commits[row["id"] >> 20] == (row["run_id"], row["made_at"]) for row in before["materialization"])
    assert {row["label"]: tuple(row["documents"]) for row in before["materialization"] if row["label"] in kept} == kept
    assert [row["fields"] for row in before["document"] if row["type"] == "Note"] == [{"n": [1]}]
    assert {row["unit"] for row in before["failure"]} == {unit("x")}


async def first_documents(history: History, materialization: int) -> list[int]:
    async with history.engine.connect() as connection:
        made = sa.select(tables.documents_of(tables.materialization.c)).where(
            tables.materialization.c.id == materialization
        )
        return list((await connection.execute(made)).scalar_one())


async def test_what_many_are_asked_by_is_not_held_afterwards(history: History) -> None:
    """A hundred thousand inputs are six megabytes, which the remembered statement must not keep for as long as the process lives."""
    inputs = [sha256(str(number)) for number in range(200)]
    async with history.engine.connect() as connection:
        assert await recipes.reusable(connection, CHUNKS, history.definition, inputs) == {}
    gc.collect()
    assert not [one for one in gc.get_referrers(inputs[0]) if isinstance(one, list) and one is not inputs]


async def test_hashes_that_begin_alike_are_told_apart(history: History) -> None:
    """Documents and recipes are found by the first bytes of their hashes, and compared as a whole."""
    batch, _ = await history.batch(CHUNKS, {"a": "1", "b": "2"}, {})
    made = []
    for one, end in zip(batch.made, (b"a", b"b"), strict=True):
        alike = b"begins alike" + end * 20
        new = tuple(document._replace(sha256=alike) for document in one.new)
        made.append(one._replace(inputs=alike, new=new))
    await history.commit(replace(batch, made=tuple(made)))
    a, b = (one.inputs for one in made)
    async with history.engine.connect() as connection:
        assert await recipes.reusable(connection, CHUNKS, history.definition, [a]) == {a: [(unit("a"), made[0].id)]}
        asked = [recipes.Recipes(CHUNKS, history.definition, [b], None)]
        assert await recipes.reusable_of(connection, asked) == [{b: [(unit("b"), made[1].id)]}]
        assert [f.sha256 for f in await named.with_prefix(connection, PROD, b.hex()[:26])] == [b]
        assert {f.sha256 for f in await named.with_prefix(connection, PROD, b.hex()[:24])} == {a, b}


async def test_the_database_refuses_what_is_no_metadata(history: History) -> None:
    """A value as large as no metadata is comes to Postgres neither by COPY nor by INSERT; the sentence names table and column."""
    blob = "x" * (tables.LARGEST + 1)
    part = sa.insert(tables.part).values(digest=bytes(32), source=blob)
    async with history.engine.connect() as connection:
        with pytest.raises(StorageError, match=r"more than 16 MiB \(typed_fields\)"):
            await lineage.copy(connection, tables.typed, [(1, json.dumps([blob]))])
        await connection.rollback()
        with pytest.raises(StorageError, match=r"more than 16 MiB \(part_source\)"):
            await connection.execute(part)


async def test_a_statement_that_is_cancelled_is_no_service_that_fails(history: History) -> None:
    """Ctrl-C in the middle of a statement ends what asked for it, and says nothing of Postgres; the next statement is answered."""

    async def wait() -> None:
        async with history.engine.connect() as connection:
            await connection.execute(sa.select(sa.func.pg_sleep(60)))

    waiting = asyncio.create_task(wait())
    await asyncio.sleep(0.5)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    async with history.engine.connect() as connection:
        assert (await connection.execute(sa.select(sa.literal(1)))).scalar_one() == 1


async def test_a_server_that_refuses_what_is_right_is_a_service_that_fails(history: History) -> None:
    """A server that takes no writes (a standby, a full disk), and two that block each other: told with what to do, not as our mistake."""
    writing = sa.insert(tables.project).values(name="demo")
    async with history.engine.connect() as connection:
        await connection.exec_driver_sql("SET TRANSACTION READ ONLY")
        with pytest.raises(
            ServiceError, match=r"cannot execute INSERT in a read-only transaction\.\n.*is it a standby"
        ):
            await connection.execute(writing)

    names, held = ("one", "other"), asyncio.Barrier(2)
    async with history.engine.begin() as connection:
        await connection.execute(sa.insert(tables.project), [{"name": name} for name in names])

    async def take(*turn: str) -> None:
        async with history.engine.begin() as connection:
            for name in turn:
                await connection.execute(
                    sa.select(tables.project).where(tables.project.c.name == name).with_for_update()
                )
                await held.wait() if name == turn[0] else None

    ended = await asyncio.gather(take(*names), take(*reversed(names)), return_exceptions=True)
    [told] = [error for error in ended if error is not None]
    assert isinstance(told, ServiceError)
    assert re.search(r"deadlock detected\.\n.*run the command again", str(told))


async def test_a_schema_that_does_not_fit_is_told(history: History) -> None:
    """An older or absent schema asks for an upgrade unless that is automatic; a newer one for another assetcore."""
    await schema.ensure(history.engine, automatic=False)
    version = sa.table("alembic_version", sa.column("version_num"))
    for found, message in (
        ("0000", "has schema 0000[\\s\\S]*aipctl db upgrade"),
        ("9999", "has schema 9999, which is newer"),
    ):
        async with history.engine.begin() as connection:
            await connection.execute(sa.update(version).values(version_num=found))
        with pytest.raises(SchemaError, match=message):
            await schema.ensure(history.engine, automatic=found == "9999")


# -- speed ---------------------------------------------------------------------------------------------------------------------


LARGE = {"head", "materialization", "document", "edge"}
MANY, SOME = 20_000, 20


@pytest.fixture
async def large(history: History) -> dict[int, list[int]]:
    """Many pages, a chunk of each, a few of some of these, and a report of all the few; the documents of each asset."""
    documents: dict[int, list[int]] = {}
    for asset, above, number in ((PAGES, None, MANY), (CHUNKS, PAGES, MANY), (FEW, CHUNKS, SOME)):
        batch, _ = await history.batch(asset, {f"{i:05}": f"{asset} {i}" for i in range(number)}, {})
        if above is not None:
            given = zip(batch.made, documents[above], strict=False)
            first = int(asset == CHUNKS)  # what is no first parameter has a row of its own
            batch = replace(batch, made=tuple(m._replace(edges=((first, d),)) for m, d in given))
        few = await history.commit(batch)
        documents[asset] = [d for m in batch.made for d in m.documents]
    batch, _ = await history.batch(REPORT, {"r": "r"}, {}, collected=[(0, FEW, few.number)])
    await history.commit(batch)
    documents[REPORT] = list(batch.made[0].documents)
    async with history.engine.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        await connection.exec_driver_sql("ANALYZE")
    return documents


async def test_reading_stays_on_indexes(history: History, large: dict[int, list[int]]) -> None:
    """With many units around, what is read of a small asset, or of a few documents, scans no large table from end to end."""
    few, page, one = large[FEW][:3], large[PAGES][:1], pl.Series("unit", [unit("00007")], pl.Binary)
    async with history.engine.connect() as connection:
        made = (await read.made_units(connection, PROD, [FEW]))[FEW]["materialization"].to_list()[:3]
        commit = (await read.watermarks(connection, PROD))[FEW].last
        below = [replace(found, parent="x") for found in await named.of_asset(connection, PROD, FEW, limit=3)]
        was: dict[str, int | None] = dict(
            (await read.made_units(connection, PROD, [FEW]))[FEW].select("label", "materialization").iter_rows()
        )
    for text in ("other", f"{FEW} 19"):  # what came back is held under another identifier than the first
        last, now = await history.made(FEW, {"00019": text}, was)
        was |= now
    questions: dict[str, Callable[[schema.Connection], Awaitable[Any]]] = {
        "current documents": lambda c: read.current_documents(c, PROD, [FEW]),
        "as of a commit": lambda c: read.current_documents(c, PROD, [FEW], commit),
        "made units": lambda c: read.made_units(c, PROD, [FEW]),
        "counts": lambda c: read.counts(c, PROD, [FEW]),
        "where bytes are": lambda c: read.stored(c, few),
        "reusable": lambda c: recipes.reusable(c, CHUNKS, 0, [sha256("2 1"), sha256("2 2")]),
        "reusable of several": lambda c: recipes.reusable_of(
            c, [recipes.Recipes(CHUNKS, 0, [sha256("2 1")], None), recipes.Recipes(FEW, 0, [sha256("4 1")], None)]
        ),
        "what units took": lambda c: costs.unit_costs(c, [FEW]),
        "documents of": lambda c: read.documents_of(c, made),
        "former members": lambda c: read.former_members(c, made),
        "up": lambda c: trace.up(c, PROD, few),
        "up, of what came back": lambda c: trace.up(c, PROD, large[FEW][-1:]),
        "up, of what had come back": lambda c: trace.up(c, PROD, large[FEW][-1:], last.number),
        "down, one by one": lambda c: trace.down(c, PROD, page),
        "down, through a whole asset": lambda c: trace.down(c, PROD, few),
        "by id": lambda c: named.with_prefix(c, PROD, document_id(sha256("1 7"))),
        "given to": lambda c: trace.given_to(c, made),
        "by label": lambda c: named.by_unit(c, PROD, FEW, "00007"),
        "repeated labels": lambda c: named.qualified(c, PROD, below),
        "look up": lambda c: named.look_up(c, few),
        "the document at the top": lambda c: named.rooted(c, PROD, FEW, "00007", [0, 1]),
        "what descends": lambda c: trace.descending(c, PROD, [PAGES, CHUNKS, FEW], one),
        "documents of a unit": lambda c: read.current_documents(c, PROD, [PAGES, CHUNKS], units=one),
        "made units of few": lambda c: read.made_units(c, PROD, [PAGES, CHUNKS], units=one),
        "identities of few": lambda c: read.current_identities(c, PROD, [PAGES, CHUNKS], units=one),
        "up, as of a commit": lambda c: trace.up(c, PROD, few, commit),
        "down, as of a commit": lambda c: trace.down(c, PROD, page, commit),
        "a unit as of a commit": lambda c: named.documents(c, PROD, FEW, [(unit("00007"), "00007")], commit),
        "by label, as of a commit": lambda c: named.by_unit(c, PROD, FEW, "00007", commit),
        "by id, as of a commit": lambda c: named.with_prefix(c, PROD, document_id(sha256("1 7")), commit),
        "parts": lambda c: trace.excerpts(c, PROD, few, commit),
        "all that a unit was": lambda c: past.versions(c, PROD, FEW, [unit("00007")], "00007"),
        "units there ever were": lambda c: past.units_ever(c, FEW, "x/00007"),
    }
    scanned: dict[str, set[str]] = {}
    for name, ask in questions.items():
        for plan in await plans_of(history.engine, ask):
            scanned.setdefault(name, set()).update(full_scans(plan) & LARGE)
    assert {name: found for name, found in scanned.items() if found} == {}
    assert set(scanned) == set(questions)


async def test_tracing_finds_the_few_among_many(history: History, large: dict[int, list[int]]) -> None:
    """Up and down, one by one and through a whole asset, and by the beginning of an id: each finds just what belongs there."""
    page, chunk, few = large[PAGES][7], large[CHUNKS][7], large[FEW][7]
    async with history.engine.connect() as connection:
        assert (await trace.up(connection, PROD, [few])).edges == {(few, chunk)}
        assert (await trace.up(connection, PROD, [chunk])).edges == {(chunk, page)}
        assert [root for *_, root in await named.rooted(connection, PROD, FEW, "00007", [0, 1])] == ["00007"]
        assert (await trace.down(connection, PROD, [page])).edges == {(page, chunk)}
        assert (await trace.down(connection, PROD, [few])).edges == {(few, large[REPORT][0])}
        assert {(w[0], w[3]) for w in (await trace.up(connection, PROD, large[REPORT])).wholes} == {
            (FEW, large[REPORT][0])
        }
        assert [f.id for f in await named.with_prefix(connection, PROD, document_id(sha256("1 7"), 12))] == [page]
        assert await named.with_prefix(connection, NIGHT, document_id(sha256("1 7"), 12)) == []


async def test_postgres_looks_at_its_tables_where_they_grew(history: History) -> None:
    """After a run that wrote much Postgres looks at its tables; not again after one that wrote little beside what it knows of."""

    async def known() -> float:
        async with history.engine.connect() as connection:
            tables = sa.table("pg_class", sa.column("relname"), sa.column("reltuples"))
            return (
                await connection.execute(sa.select(tables.c.reltuples).where(tables.c.relname == "head"))
            ).scalar_one()

    async def make(numbers: range) -> None:
        await history.made(PAGES, {str(number): f"text {number}" for number in numbers})
        async with history.engine.begin() as connection:
            await lineage.analyze(connection, len(numbers))

    await make(range(40))
    assert await known() == 40
    await make(range(40, 43))
    assert await known() == 40
    await make(range(43, 48))
    assert await known() == 48


async def plans_of(engine: schema.Engine, ask: Any) -> list[Any]:
    """How Postgres answers the statements of a question."""
    asked: list[tuple[str, Any]] = []

    def note(connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, executemany: bool) -> None:
        asked.append((statement, parameters))

    sa.event.listen(engine.sync_engine, "before_cursor_execute", note)
    try:
        async with engine.connect() as connection:
            await ask(connection)
    finally:
        sa.event.remove(engine.sync_engine, "before_cursor_execute", note)
    found = []
    async with engine.connect() as connection:
        for statement, parameters in asked:
            rows = await connection.exec_driver_sql(f"EXPLAIN (FORMAT JSON) {statement}", tuple(parameters))
            plan = rows.scalar_one()
            found.append(json.loads(plan) if isinstance(plan, str) else plan)
    return found


def full_scans(plan: Any) -> set[str]:
    """The tables that a plan reads from end to end."""
    if isinstance(plan, list):
        return set().union(*map(full_scans, plan))
    if not isinstance(plan, dict):
        return set()
    own = {plan["Relation Name"]} if plan.get("Node Type") == "Seq Scan" else set()
    return own.union(*(full_scans(part) for part in plan.values()))
