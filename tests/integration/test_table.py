"""Tables: what a database holds is seen as of one moment, page by page, and what is wrong with it is said without its password."""

from __future__ import annotations

import asyncio
import datetime
import io
import itertools
import json
import re
import resource
import sys
import tracemalloc
import uuid
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any, ClassVar

import asyncpg
import polars as pl
import pytest
import sqlalchemy as sa

from assetcore.assets import Source
from assetcore.declarations import source
from assetcore.documents import Document
from assetcore.errors import DeclarationError, SourceError
from assetcore.settings import Settings
from assetcore.sources import OBSERVED, documents, observe, table
from tests.integration.command import Command
from tests.integration.conftest import _execute, _with_database, drop
from tests.integration.world import World

pytestmark = pytest.mark.integration

ROOT = Path()
TOO_DEEP = 700 if sys.version_info < (3, 13) else 3000
"""So many brackets can be read, and are no value of a document."""


class Article(Document):
    """One article."""

    author: str
    words: int = 0


class Note(Document):
    """Whatever a row is."""


class Dated(Document):
    """What happened on a day."""

    day: datetime.date


@pytest.fixture
async def shop(stack: Settings) -> AsyncIterator[str]:
    """The address of a fresh, empty database of a user, who has a password and may read."""
    name = f"shop_{uuid.uuid4().hex[:12]}"
    await _execute(stack, f"CREATE DATABASE {name}")
    yield _with_database(str(stack.database_url), name).replace("+asyncpg", "", 1)
    await drop(stack, name)


def password_of(address: str) -> str:
    return address.partition("@")[0].rpartition(":")[2]


async def run(address: str, *statements: str) -> None:
    connection = await asyncpg.connect(address)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


ARTICLES = (
    "CREATE TABLE articles (id bigint PRIMARY KEY, body text, author text, words int, updated_at timestamptz DEFAULT now())",
    "INSERT INTO articles SELECT i, 'body ' || i, 'author ' || i % 3, i, '2026-01-01' FROM generate_series(1, 5) i",
)


def of(address: str, what: Any = "articles", type_: type[Document] = Article, **options: Any) -> Source:
    return source("articles", type_, table(address, what, **{"key": "id", **options}))


async def read(source: Source, names: list[str]) -> list[Document]:
    return [document async for document in documents(source, ROOT, names)]


async def failing(source: Source) -> str:
    with pytest.raises(SourceError) as caught:
        await observe(source, ROOT, None)
    return str(caught.value)


# --- what is seen ---


async def test_a_row_is_a_document_with_fields_and_content(shop: str) -> None:
    """Named by its key; what is observed is what a document of it would have."""
    await run(shop, *ARTICLES)
    articles = of(shop, content="body")
    frame = await observe(articles, ROOT, None)
    assert frame.schema == OBSERVED
    assert frame["name"].to_list() == ["1", "2", "3", "4", "5"]
    found = await read(articles, ["2", "1"])
    assert [(d.name, d.text, d.author, d.words, d.media_type) for d in found] == [
        ("1", "body 1", "author 1", 1, "text/plain"),
        ("2", "body 2", "author 2", 2, "text/plain"),
    ]
    assert [d.sha256 for d in found] == frame["sha256"].to_list()[:2]
    assert (await observe(articles, ROOT, frame)).equals(frame)


async def test_a_row_is_json_where_no_column_is_its_content(shop: str) -> None:
    """Every value in a form that is exact and the same everywhere; columns= says which."""
    await run(
        shop,
        """CREATE TABLE kinds (id uuid PRIMARY KEY, whole smallint, number numeric(10, 2), floating float8, inf float8, flag bool, day date,
           moment timestamptz, span interval, raw bytea, list text[], inner_json jsonb, nothing text, address inet, "Mixed Case" text)""",
        """INSERT INTO kinds VALUES ('00000000-0000-0000-0000-000000000001', 7, 1.10, 0.5, 'inf', true, '2026-01-02',
           '2026-01-02 03:04:05+02', '1 day', '\\x00ff', '{a,b}', '{"a": [1, null]}', null, '10.0.0.1', 'x')""",
    )
    kinds = of(shop, "kinds", Note)
    (row,) = await read(kinds, (await observe(kinds, ROOT, None))["name"].to_list())
    assert row.name == "00000000-0000-0000-0000-000000000001"
    assert row.media_type == "application/json"
    assert row.data == {
        "id": row.name, "whole": 7, "number": "1.10", "floating": 0.5, "inf": "inf", "flag": True, "day": "2026-01-02",
        "moment": "2026-01-02T01:04:05+00:00", "span": "1 day, 0:00:00", "raw": "00ff", "list": ["a", "b"],
        "inner_json": {"a": [1, None]}, "nothing": None, "address": "10.0.0.1", "Mixed Case": "x",
    }  # fmt: skip
    (row,) = await read(of(shop, "kinds", Note, columns=["flag", "Mixed Case"]), [row.name])
    assert row.data == {"flag": True, "Mixed Case": "x"}
    for content, expected, media_type in [
        ("raw", b"\x00\xff", "application/octet-stream"),
        ("inner_json", b'{\n "a": [\n  1,\n  null\n ]\n}', "application/json"),
        ("number", b"1.10", "text/plain"),
    ]:
        (row,) = await read(of(shop, "kinds", Note, content=content), [row.name])
        assert (row.content, row.media_type) == (expected, media_type)


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("date", {"2026-01-02": "2026-01-02", "infinity": "infinity", "9999-12-31": "9999-12-31", "-infinity": "-infinity",
                  "0001-01-01": "0001-01-01", "0044-03-15 BC": "0044-03-15 BC", "20000-02-29": "20000-02-29"}),
        ("timestamp", {"2026-01-02 03:04:05.6": "2026-01-02T03:04:05.600000", "infinity": "infinity",
                       "9999-12-31 23:59:59.999999": "9999-12-31T23:59:59.999999", "4713-01-01 BC": "4713-01-01T00:00:00 BC"}),
        ("timestamptz", {"2026-01-02 03:04+02": "2026-01-02T01:04:00+00:00", "infinity": "infinity", "-infinity": "-infinity",
                         "9999-12-31 23:59:59.999999+00": "9999-12-31T23:59:59.999999+00:00",
                         "20000-01-01 00:00+00": "20000-01-01T00:00:00+00:00"}),
        ("time", {"24:00": "24:00:00", "00:00": "00:00:00", "01:02:03.4": "01:02:03.400000"}),
        ("timetz", {"24:00+15:59": "24:00:00+15:59", "00:00-03:30": "00:00:00-03:30"}),
        ("interval", {"1 day 01:02:03": "1 day, 1:02:03", "-1 day": "-1 day, 0:00:00", "1 mon": "P1M", "30 days": "30 days, 0:00:00",
                      "29 days": "29 days, 0:00:00", "1 mon -1 day": "P1M-1D", "1000000 years 0.5 s": "P12000000MT0.5S"}),
        ("date[]", {"{infinity,2026-01-02,NULL}": ["infinity", "2026-01-02", None]}),
        ("bit varying", {"101": "101", "": "", "1010101010": "1010101010"}),
        ("int4range", {"[1,5)": "[1,5)", "empty": "empty", "(,5)": "(,5)"}),
        ("tstzrange", {"[2026-01-01 00:00+00,infinity)": "[2026-01-01T00:00:00+00:00,infinity)"}),
        ("datemultirange", {"{[2026-01-01,2026-01-03),[2027-01-01,)}": ["[2026-01-01,2026-01-03)", "[2027-01-01,)"]}),
        ("path", {"[(0,1),(2,3)]": {"closed": False, "points": [[0.0, 1.0], [2.0, 3.0]]},
                  "((0,1),(2,3))": {"closed": True, "points": [[0.0, 1.0], [2.0, 3.0]]}}),
        ("polygon", {"((0,1),(2,3))": [[0.0, 1.0], [2.0, 3.0]]}),
        ("span", {'(infinity,"[a,b]")': {"until": "infinity", "note": "[a,b]"}}),
        ("jsonb", {"[0.1, 1.50, 1e3, 17, -0.00001, 0.2999999999999999889]": [0.1, 1.5, 1000, 17, -0.00001, 0.3],
                   '{"a": 123456789012345678901234567890.5}': {"a": "123456789012345678901234567890.5"},
                   "[9007199254740993.5]": ["9007199254740993.5"]}),
        ("json", {"[1e400, 1e-400, 1.5e3, 1e99999999999999999999]": ["1e400", "1e-400", 1500.0, "1e99999999999999999999"],
                  "[0.10000000000000001, 0.1000000000000000055511]": [0.1, 0.1]}),
        ("numeric", {"NaN": "NaN", "Infinity": "Infinity", "1.10": "1.10"}),
        ("inet", {"10.0.0.1": "10.0.0.1", "10.0.0.0/8": "10.0.0.0/8"}),
    ],
)  # fmt: skip
async def test_a_value_is_told_exactly(shop: str, kind: str, told: dict[str, Any]) -> None:
    """What Python holds as Python does, and what it does not, a float or a date that is none of its own, as text; none for another."""
    await run(
        shop, "CREATE TYPE span AS (until date, note text)", f"CREATE TABLE told (id int PRIMARY KEY, value {kind})"
    )
    values = [f"""({number}, '{value}')""" for number, value in enumerate(told)]
    await run(shop, f"INSERT INTO told VALUES {', '.join(values)}")
    rows = await read(of(shop, "told", Note, columns=["value"]), [str(number) for number in range(len(told))])
    assert [row.data["value"] for row in sorted(rows, key=lambda row: int(row.name))] == list(told.values())


async def test_fields_take_what_a_column_holds(shop: str) -> None:
    """Dates, numbers, lists and JSON come as Python has them; a column that is missing leaves the default."""

    class Full(Document):
        day: datetime.date
        number: Decimal
        tags: list[str]
        more: dict[str, int]
        absent: str = "default"

    await run(
        shop,
        "CREATE TABLE full_rows (id int PRIMARY KEY, day date, number numeric, tags text[], more json)",
        """INSERT INTO full_rows VALUES (1, '2026-01-02', 1.5, '{x}', '{"a": 1}')""",
    )
    (row,) = await read(of(shop, "full_rows", Full), ["1"])
    assert row.field_values() == {
        "day": datetime.date(2026, 1, 2), "number": Decimal("1.5"), "tags": ["x"], "more": {"a": 1}, "absent": "default",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "values", "names"),
    [
        ("int", "-1, 0, 10, 9", ["-1", "0", "10", "9"]),
        ("text", "'b', 'a/b', 'ä', '%2F'", ["%2F", "a/b", "b", "ä"]),
        ("varchar(20)", "'b', 'B', 'a'", ["B", "a", "b"]),
        ("date", "'2026-01-02', '2025-01-02'", ["2025-01-02", "2026-01-02"]),
        ("timestamptz", "'2026-01-02 00:00:00.5+00'", ["2026-01-02T00:00:00.500000+00:00"]),
        ("timestamp", "'2026-01-02'", ["2026-01-02T00:00:00"]),
        ("numeric", "1.50, 1e3", ["1.50", "1000"]),
    ],
)
async def test_a_key_is_of_many_types(shop: str, kind: str, values: str, names: list[str]) -> None:
    """A document's name leads back to its row."""
    rows = ", ".join(f"({value})" for value in values.split(", "))
    await run(shop, f"CREATE TABLE keys (id {kind} PRIMARY KEY)", f"INSERT INTO keys VALUES {rows}")
    keys = of(shop, "keys", Note)
    assert (await observe(keys, ROOT, None))["name"].to_list() == names
    assert [document.name for document in await read(keys, names)] == names


@pytest.mark.parametrize(
    ("kind", "values", "names"),
    [
        ("numeric", "'NaN', 1.50, 'Infinity'", ["1.50", "Infinity", "NaN"]),
        ("date", "'infinity', '9999-12-31', '-infinity'", ["-infinity", "9999-12-31", "infinity"]),
        ("timestamp", "'infinity', '2026-01-02'", ["2026-01-02T00:00:00", "infinity"]),
        ("timestamptz", "'infinity', '2026-01-02 00:00+00'", ["2026-01-02T00:00:00+00:00", "infinity"]),
    ],
)
@pytest.mark.parametrize("key", ["id", ("id", "part")])
async def test_a_key_may_be_infinite_or_no_number(
    shop: str, kind: str, values: str, names: list[str], key: str | tuple[str, str]
) -> None:
    """As in tables of what is valid until when; alone, and as a part of a key; seen, seen again, and read."""
    rows = ", ".join(f"({value}, 1)" for value in values.split(", "))
    await run(shop, f"CREATE TABLE keys (id {kind}, part int)", f"INSERT INTO keys VALUES {rows}")
    names = names if key == "id" else [f"{name}/1" for name in names]
    keys = of(shop, "keys", Note, key=key, version="xmin")
    known = await observe(keys, ROOT, None)
    assert known["name"].to_list() == names
    assert sorted(document.name for document in await read(keys, names)) == names
    await run(shop, "UPDATE keys SET part = part")
    assert (await observe(keys, ROOT, known)).drop("validator").equals(known.drop("validator"))
    await run(shop, "INSERT INTO keys SELECT * FROM keys")
    assert "has two rows with id = " in await failing(keys)


async def test_a_key_of_several_columns_names_apart_what_is_apart(shop: str) -> None:
    """Slashes in its parts do not make two rows one."""
    await run(
        shop,
        "CREATE TABLE pairs (a text, b text, n int, PRIMARY KEY (a, b))",
        "INSERT INTO pairs VALUES ('x', 'y/z', 1), ('x/y', 'z', 2), ('%2F', '', 3)",
        "INSERT INTO pairs SELECT 'many', i, i FROM generate_series(1, 2500) i",
    )
    pairs = of(shop, "pairs", Note, key=("a", "b"), content="n")
    frame = await observe(pairs, ROOT, None)
    assert frame.height == 2503
    assert {d.name: d.text for d in await read(pairs, ["x/y%2Fz", "x%2Fy/z", "%252F/"])} == {
        "x/y%2Fz": "1", "x%2Fy/z": "2", "%252F/": "3",
    }  # fmt: skip
    assert len(await read(pairs, frame["name"].to_list())) == 2503


async def test_a_query_is_a_table_too(shop: str) -> None:
    """As text, with everything that SQL has, or as a selectable of SQLAlchemy with values of its own."""
    await run(shop, *ARTICLES)
    text = "SELECT id, body || ' at 10:30' AS body, 'x'::text AS author FROM articles WHERE id > 3;"
    found = await read(of(shop, text, content="body"), ["4"])
    assert [(d.text, d.author) for d in found] == [("body 4 at 10:30", "x")]
    assert (await observe(of(shop, text, content="body"), ROOT, None))["name"].to_list() == ["4", "5"]
    commented = "SELECT id, body, author FROM articles -- all of them\nWHERE id = 5 -- but for most"
    assert (await observe(of(shop, commented, content="body"), ROOT, None))["name"].to_list() == ["5"]
    articles = sa.table("articles", sa.column("id"), sa.column("body"), sa.column("author"))
    chosen = sa.select(articles).where(articles.c.id.in_([1, 2]), articles.c.body != "body 1")
    assert (await observe(of(shop, chosen, content="body"), ROOT, None))["name"].to_list() == ["2"]


async def test_names_with_schemas_and_capitals_are_quoted(shop: str) -> None:
    """A table is named as it is called."""
    await run(
        shop,
        'CREATE SCHEMA "Sales"',
        'CREATE TABLE "Sales"."Order" ("Id" int PRIMARY KEY)',
        'INSERT INTO "Sales"."Order" VALUES (1)',
    )
    assert (await observe(of(shop, "Sales.Order", Note, key="Id"), ROOT, None))["name"].to_list() == ["1"]


async def test_an_empty_table_has_no_documents(shop: str) -> None:
    await run(shop, ARTICLES[0])
    assert (await observe(of(shop), ROOT, None)).height == 0


# --- what has changed ---


@pytest.mark.parametrize("version", [None, "updated_at", "xmin"])
async def test_changes_inserts_and_deletes_are_seen(shop: str, version: str | None) -> None:
    """With a version and without."""
    await run(shop, *ARTICLES)
    articles = of(shop, content="body", version=version)
    known = await observe(articles, ROOT, None)
    assert (await observe(articles, ROOT, known)).equals(known)
    await run(
        shop,
        "UPDATE articles SET body = 'changed', updated_at = now() WHERE id = 2",
        "DELETE FROM articles WHERE id = 3",
        "INSERT INTO articles VALUES (10, 'new', 'author', 1)",
    )
    frame = await observe(articles, ROOT, known)
    assert frame["name"].to_list() == ["1", "10", "2", "4", "5"]
    changed = frame.join(known, on=["name", "identity"], how="anti")["name"].to_list()
    assert changed == ["10", "2"]
    assert [d.text for d in await read(articles, ["10", "2"])] == ["new", "changed"]


async def test_only_rows_with_another_version_are_read(shop: str) -> None:
    """A change without another version is not seen, unless all is read; without a version nothing is taken for known."""
    await run(shop, *ARTICLES, "UPDATE articles SET updated_at = null WHERE id = 5")
    articles = of(shop, content="body", version="updated_at")
    known = await observe(articles, ROOT, None)
    await run(shop, "UPDATE articles SET body = 'changed' WHERE id IN (1, 5)")
    seen = await observe(articles, ROOT, known)
    assert seen.join(known, on=["name", "identity"], how="anti")["name"].to_list() == ["5"]
    all_read = await observe(articles, ROOT, seen, rehash=True)
    assert all_read.join(seen, on=["name", "identity"], how="anti")["name"].to_list() == ["1"]


async def test_another_declaration_reads_all_rows_again(shop: str) -> None:
    """The version is that of a row; which document is made of it is the declaration's."""
    await run(shop, *ARTICLES)
    known = await observe(of(shop, content="body", version="updated_at"), ROOT, None)
    frame = await observe(of(shop, content="author", version="updated_at"), ROOT, known)
    assert not set(frame["sha256"]) & set(known["sha256"])
    assert "updated_at" not in (await read(of(shop, version="updated_at"), ["1"]))[0].data


# --- one moment ---


async def test_what_is_written_meanwhile_is_not_seen(shop: str) -> None:
    """Rows that are written, deleted or moved to another key while pages are read neither show nor hide another row."""
    await run(
        shop,
        "CREATE TABLE accounts (id int PRIMARY KEY, amount int, updated_at int)",
        "INSERT INTO accounts SELECT i, 1, 0 FROM generate_series(1, 5000) i",
    )
    writing = asyncio.Event()

    async def write() -> None:
        connection = await asyncpg.connect(shop)
        try:
            for number in itertools.count():
                async with connection.transaction():  # money is moved: the sum stays
                    one = number + 1 if number < 5000 else number + 5000
                    await connection.execute("DELETE FROM accounts WHERE id = $1", one)
                    await connection.execute("INSERT INTO accounts VALUES ($1, 1, $2)", 10_000 + number, number)
                writing.set()
        finally:
            await connection.close()

    writer = asyncio.create_task(write())
    await writing.wait()
    known = None
    for version in (None, None, "updated_at", "updated_at"):
        known = await observe(of(shop, "accounts", Note, content="amount", version=version), ROOT, known)
        assert known.height == 5000
    assert not writer.done()
    writer.cancel()
    await asyncio.gather(writer, return_exceptions=True)


async def test_rows_that_are_gone_since_are_told_after_the_others(shop: str) -> None:
    """With their names; and a name that can be no key is one of them."""
    await run(shop, *ARTICLES)
    articles = of(shop, content="body")
    await run(shop, "DELETE FROM articles WHERE id = 2")
    reading = documents(articles, ROOT, ["1", "2", "no number"])
    assert (await anext(reading)).name == "1"
    with pytest.raises(SourceError, match=r"articles: 2 of 3 rows are gone since they were observed: 2, no number\."):
        await anext(reading)


async def test_a_hundred_thousand_rows_take_little_memory(shop: str) -> None:
    """Looking at 100,000 rows of 2 KB (200 MB), and reading them, holds a few megabytes of content."""
    await run(
        shop,
        "CREATE TABLE large (id int PRIMARY KEY, body text, updated_at int)",
        "INSERT INTO large SELECT i, repeat(md5(i::text), 64), 0 FROM generate_series(1, 100000) i",
    )
    large = of(shop, "large", Note, content="body", version="updated_at")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    frame = await observe(large, ROOT, None)
    assert frame.height == 100_000
    read = 0
    async for document in documents(large, ROOT, frame["name"].to_list()):
        read += len(document.content)
    assert read == 100_000 * 2048
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 150_000, f"{grown / 1024:.0f} MB more than before"
    await run(shop, "UPDATE large SET body = 'changed', updated_at = 1 WHERE id % 1000 = 0")
    again = await observe(large, ROOT, frame)
    assert again.join(frame, on=["name", "identity"], how="anti").height == 100


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("text", "repeat('x', 1000000)"),
        ("jsonb", "jsonb_build_object('said', jsonb_build_array(repeat('x', 1000000)))"),
        ("text[]", "array_fill(repeat('x', 1000), '{1000}')"),
    ],
)
async def test_a_page_is_as_large_as_its_rows_allow(shop: str, kind: str, value: str) -> None:
    """Rows of a megabyte come a few at a time: looking at 200 of them holds much less than 200 MB."""
    await run(
        shop,
        f"CREATE TABLE wide (id int PRIMARY KEY, body {kind})",
        f"INSERT INTO wide SELECT i, {value} FROM generate_series(1, 200) i",
    )
    wide = of(shop, "wide", Note, content="body")
    tracemalloc.start()
    frame = await observe(wide, ROOT, None)
    read = 0
    async for document in documents(wide, ROOT, frame["name"].to_list()):
        read += len(document.content)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert read >= 200_000_000
    assert peak < 100_000_000


# --- a frame ---


async def test_a_whole_table_is_one_parquet_document(shop: str) -> None:
    """Columns have the types of the table; the same rows make the same bytes; a change of one makes another document."""
    await run(
        shop,
        """CREATE TABLE sales (id int PRIMARY KEY, price numeric(10, 2), free numeric, moment timestamptz, day date, note text,
           ok bool, share float8, tags text[], raw bytea, updated_at int)""",
        """INSERT INTO sales SELECT i, i / 4.0, i / 3.0, '2026-01-01', '2026-01-01', CASE WHEN i % 2 = 0 THEN 'even' END, true, 0.5,
           '{a}', '\\x00', 0 FROM generate_series(1, 30000) i""",
    )
    for version in (None, "updated_at"):
        sales = of(shop, "sales", Note, as_frame=True, version=version)
        known = await observe(sales, ROOT, None)
        assert known.select("name", "media_type").rows() == [("articles", "application/vnd.apache.parquet")]
        assert await read(sales, []) == []
        (document,) = await read(sales, ["articles"])
        assert document.sha256 == known["sha256"][0]
        frame = pl.read_parquet(io.BytesIO(document.content))
        assert frame.height == 30_000
        assert frame["id"].to_list() == list(range(1, 30_001))
        assert frame.schema["price"] == pl.Decimal(10, 2)
        assert frame.schema["moment"] == pl.Datetime("us", "UTC")
        assert frame.row(1, named=True) | {"free": ""} == {
            "id": 2, "price": Decimal("0.50"), "free": "", "moment": datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC),
            "day": datetime.date(2026, 1, 1), "note": "even", "ok": True, "share": 0.5, "tags": '["a"]', "raw": b"\x00",
        } | ({} if version else {"updated_at": 0})  # fmt: skip
        assert (await observe(sales, ROOT, known)).equals(known)
        await run(shop, "UPDATE sales SET note = 'odd', updated_at = updated_at + 1 WHERE id = 777")
        changed = await observe(sales, ROOT, known)
        assert (
            changed["sha256"][0] != known["sha256"][0]
            if version is None
            else changed["validator"][0] != known["validator"][0]
        )
        await run(shop, "UPDATE sales SET note = null, updated_at = 0 WHERE id = 777")
        assert (await observe(sales, ROOT, changed)).equals(known)


# --- what is wrong ---


async def test_what_cannot_be_connected_to_is_told_without_the_password(shop: str, stack: Settings) -> None:
    """A wrong password, user, database, port; and an address that is none."""
    user, password = shop.removeprefix("postgresql://").partition(":")[0], password_of(shop)
    for address, message in [
        (
            shop.replace(f":{password}@", ":wr0ng-secret@"),
            r"articles cannot connect to postgresql://\S+:\*\*\*@.*password.*\n  Correct the password",
        ),
        (shop.replace(f"//{user}:", "//nobody:"), r"cannot connect to postgresql://nobody:\*\*\*@"),
        (shop.rpartition("/")[0] + "/no_such", r'database "no_such" does not exist.*\n  Correct the name'),
        (re.sub(r":\d+/", ":9/", shop), r"cannot connect to .*:9/.*\n  Is the server there"),
        ("postgresql://me:wr0ng-s@cret@127.0.0.1/x", r"whose address in table\(...\) is none of Postgres"),
        ("mysql://me:wr0ng-secret@127.0.0.1/x", r"whose address in table\(...\) is none of Postgres"),
        (f"{shop}?password=wr0ng-secret", r"cannot connect to"),
        (f"{shop}?nonsense=wr0ng-secret", r"cannot connect to"),
    ]:
        told = await failing(of(address))
        assert re.search(message, told), told
        assert password not in told
        assert "wr0ng-s" not in told
        assert "wr0ng-s" not in repr(of(address).where)


@pytest.mark.parametrize(
    ("what", "options", "message"),
    [
        ("article", {}, r"articles reads the table article of postgresql://\S+, which does not exist.*\n  Did you mean 'articles'\?"),
        ("public.nothing", {}, r"reads the table public.nothing .*\n.*articles"),
        ("articles", {"key": "idd"}, r"the table articles of \S+ has no column 'idd', which key= asks for.\n  Did you mean 'id'\?"),
        ("articles", {"content": "text"}, r"has no column 'text', which content= asks for.\n  It has: id, body, author"),
        ("articles", {"version": "updated"}, r"has no column 'updated', which version= asks for"),
        ("articles", {"columns": ["nope"]}, r"has no column 'nope', which columns= asks for"),
        ("articles", {"as_frame": True, "columns": ["nope"], "type_": Note}, r"has no column 'nope', which columns= asks for"),
        ("articles", {"key": "flags"}, r"has a key flags of type bool, by which rows cannot be paged"),
        ("SELECT id, body FROM articles", {}, r"the query of \S+ has no column 'author', which the class Article asks for"),
        ("SELECT nope FROM articles", {}, r'articles cannot read the query of \S+: column "nope" does not exist\.\n  Correct the name'),
        ("SELEC id", {}, r"cannot read the query of \S+: syntax error"),
        ("DELETE FROM articles RETURNING *", {}, r"cannot read the query"),
        ("SELECT id, 1 / (id - 2) AS body, author FROM articles", {}, r"cannot read the query of \S+: division by zero"),
        ("SELECT id % 2 AS id, body, author FROM articles", {}, r"has two rows with id = 0.\n  Give key= the columns"),
        ("SELECT nullif(id, 2) AS id, body, author FROM articles", {}, r"has a row whose id is null, which is its key"),
        ("SELECT id, nullif(body, 'body 2') AS body, author FROM articles", {"content": "body"},
         r"has the row '2', whose content body is null"),
        ("SELECT id, body, nullif(author, 'author 2') AS author FROM articles", {},
         r"has the row '2', which is no document.*author.*None.*\n.*author is text"),
        ("SELECT id, body, author, 'many' AS words FROM articles", {},
         r"has the row '1', which is no document: .*words: .*integer.*'many'.*\n.*words is text"),
        ("SELECT '' AS id, body, author FROM articles LIMIT 1", {}, r"has the row '', which is no document: The name '' "),
        ("SELECT id, 'NaN'::numeric(5, 1) AS n FROM articles", {"as_frame": True, "type_": Note}, None),
        ("SELECT DATE '0044-03-15 BC' AS id", {"type_": Note}, r"has a row whose id is 0044-03-15 BC, by which rows cannot be paged"),
        ("SELECT TIMESTAMP '20000-01-01' AS id", {"type_": Note}, r"has a row whose id is 20000-01-01T00:00:00, by which rows cannot"),
        ("SELECT 1 AS id, DATE 'infinity' AS day", {"type_": Dated},
         r"has the row '1', which is no document: .*day: .*'infinity'.*\n.*day is date"),
        ("SELECT 1 AS id, DATE 'infinity' AS day", {"as_frame": True, "type_": Note},
         r"has a value in the column day that Parquet's date32.* does not hold: infinity\."),
        ("SELECT 1 AS id, to_jsonb(10::numeric ^ 5000) AS big", {"type_": Note},
         r"has a value in the column big that cannot be read: .*4300.*\n  Leave the column out"),
        ("SELECT 1 AS id, (repeat('[', 3000) || repeat(']', 3000))::json AS deep", {"type_": Note},
         r"has a value in the column deep that cannot be read: .*recursion|the row '1', whose JSON is nested too deep"),
        (f"SELECT 1 AS id, (repeat('[', {TOO_DEEP}) || repeat(']', {TOO_DEEP}))::json AS deep", {"type_": Note},
         r"has the row '1', whose JSON is nested too deep"),
    ],
)  # fmt: skip
async def test_what_is_wrong_with_a_table_is_told(
    shop: str, what: str, options: dict[str, Any], message: str | None
) -> None:
    """Which source, which table, which row and column, and what to do."""
    await run(shop, *ARTICLES, "ALTER TABLE articles ADD flags bool DEFAULT true")
    declared = of(shop, what, **options)
    if message is None:
        await observe(declared, ROOT, None)
        return
    told = await failing(declared)
    assert re.search(message, told), told
    assert password_of(shop) not in told


async def test_duplicates_are_seen_wherever_pages_end(shop: str) -> None:
    """Also where the second of two is the first of the next page."""
    await run(shop, "CREATE TABLE twice (id int)", "INSERT INTO twice SELECT i FROM generate_series(1, 5000) i")
    assert (await observe(of(shop, "twice", Note), ROOT, None)).height == 5000
    for again in (50, 51, 2050, 5000):
        await run(shop, f"INSERT INTO twice VALUES ({again})")
        assert f"has two rows with id = {again}." in await failing(of(shop, "twice", Note))
        await run(shop, f"DELETE FROM twice WHERE ctid = (SELECT max(ctid) FROM twice WHERE id = {again})")


async def test_a_user_that_may_not_read_is_told_what_it_needs(shop: str) -> None:
    """And a value that Parquet cannot hold names its column."""
    await run(
        shop, *ARTICLES, "CREATE TABLE odd (id int PRIMARY KEY, price numeric(5, 1))", "INSERT INTO odd VALUES (1, 'NaN')",
    )  # fmt: skip
    assert re.search(
        r"the table odd .* has a value in the column price that Parquet's decimal",
        await failing(of(shop, "odd", Note, as_frame=True)),
    )
    await run(shop, "REVOKE SELECT ON articles FROM current_user")
    told = await failing(of(shop))
    assert re.search(
        r"cannot read the table articles of \S+: permission denied for table articles\.\n.*GRANT SELECT", told
    ), told


# --- where the address comes from, and where it does not go ---


async def test_an_address_is_named_and_comes_from_the_environment(
    shop: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An environment variable, one in `.env`, or the setting `database_url`; what is missing is named."""
    await run(shop, *ARTICLES)
    with pytest.raises(
        SourceError, match=r"reads the database SHOP_URL, but there is no environment variable.*\n.*export SHOP_URL="
    ):
        await observe(of("SHOP_URL"), tmp_path, None)
    (tmp_path / ".env").write_text(f"SHOP_URL={shop}\n")
    (tmp_path / ".env").chmod(0o600)  # it holds a password
    assert (await observe(of("SHOP_URL"), tmp_path, None)).height == 5
    url = sa.make_url(shop)
    keywords = (
        f"host={url.host} port = {url.port} dbname='{url.database}' user={url.username} password='{url.password}'"
    )
    for address in (keywords, "SHOP_URL"):
        monkeypatch.setenv("SHOP_URL", f"{keywords} sslmode=prefer")
        assert (await observe(of(address), tmp_path, None)).height == 5
    monkeypatch.setenv("SHOP_URL", f"{keywords} connect_tiemout=1")
    with pytest.raises(
        SourceError, match=r"cannot connect to postgresql://\S+:\*\*\*@\S+: .*connect_tiemout"
    ) as caught:
        await observe(of("SHOP_URL"), tmp_path, None)
    assert str(url.password) not in str(caught.value)
    monkeypatch.setenv("SHOP_URL", f"{keywords} 'oh'")
    with pytest.raises(SourceError, match=r"whose address in SHOP_URL is none of Postgres"):
        await observe(of("SHOP_URL"), tmp_path, None)
    monkeypatch.setenv("SHOP_URL", "postgresql://127.0.0.1:9/x")
    with pytest.raises(SourceError, match=r"cannot connect to postgresql://127\.0\.0\.1:9/x"):
        await observe(of("SHOP_URL"), tmp_path, None)
    monkeypatch.setenv("SHOP_URL", "no address with s3cret")
    with pytest.raises(SourceError, match=r"whose address in SHOP_URL is none of Postgres") as caught:
        await observe(of("SHOP_URL"), tmp_path, None)
    assert "s3cret" not in str(caught.value)
    monkeypatch.delenv("DATABASE_URL", raising=False)
    monkeypatch.setenv("database_url", shop)
    with pytest.raises(
        SourceError, match=r"the setting database_url, which is not set.*\n.*Set DATABASE_URL, or name a"
    ):
        await observe(of("database_url"), tmp_path, None)
    monkeypatch.setenv("DATABASE_URL", shop)
    assert (await observe(of("database_url"), tmp_path, None)).height == 5


PROJECT = """
    from assetcore import table

    class Article(Document):
        author: str

    articles = source("articles", Article, table("{address}", "articles", key="id", content="body", version="updated_at"))
    sales = source("sales", Topic, table("{address}", "articles", key="id", as_frame=True))

    @asset
    async def shout(article: Article = each(articles)) -> Article:
        return Article(name=article.name, text=article.text.upper(), author=article.author)

    @asset
    async def counts(sales: pl.DataFrame = collect(sales)) -> pl.DataFrame:
        return sales.group_by("author").len().sort("author")

    @asset
    async def report(all_of_them: list[Article] = collect(shout)) -> Report:
        return Report(name="report", text=" ".join(sorted(a.text for a in all_of_them)))
    """


async def test_a_table_in_a_project(shop: str, settings: Settings, database: str) -> None:
    """Made once; then only what changed; what is as it was before is not stored again, as rows or as a frame; and the password is in no
    table of lineage, in no plan and in no error.
    """
    await run(shop, *ARTICLES)
    world = World(settings)
    (settings.root / "data").mkdir()
    world.code(PROJECT.replace("{address}", shop))
    async with world.open() as session:
        graph = session.project.graph
        assert graph.assets["articles"].output.type_name == "Article"
    assert (await world.made())["shout"] == {"made": 5}
    assert await world.made() == {}
    await run(
        shop,
        "UPDATE articles SET body = 'edited', updated_at = now() WHERE id = 1",
        "DELETE FROM articles WHERE id = 2",
        "INSERT INTO articles (id, body, author) VALUES (6, 'new', 'author 6')",
    )
    planned = await world.plan()
    assert planned["shout"]["stale"] == 2
    made = await world.made()
    assert made["shout"] == {"made": 2, "removed": 1}
    assert made["counts"] == {"made": 1}
    contents = await world.contents()
    assert list(contents["report"].values()) == [b"BODY 3 BODY 4 BODY 5 EDITED NEW"]
    password = password_of(shop)
    objects = Path(settings.storage_url.removeprefix("file://"))
    await run(shop, "UPDATE articles SET author = 'somebody' WHERE id = 6")
    assert await world.made("+counts") == {"counts": {"made": 1}}
    kept = len(list(objects.rglob("sales/pack-*.parquet")))
    await run(shop, "UPDATE articles SET author = 'author 6' WHERE id = 6")
    assert await world.made("+counts") == {"counts": {"reused": 1}}
    await world.made("sales", force=True)
    assert [e.text for e in world.events if e.kind == "asset-finished" and e.asset == "sales"] == [
        "1 taken in", "1 taken in", "1 taken in", "1 reused", "nothing to do",
    ]  # fmt: skip
    assert len(list(objects.rglob("sales/pack-*.parquet"))) == kept
    await run(shop, "DROP TABLE articles")
    with pytest.raises(SourceError) as caught:
        await world.plan()
    assert password not in json.dumps([planned, made, str(caught.value)])
    connection = await asyncpg.connect(database.replace("+asyncpg", "", 1))
    try:
        tables = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = current_schema()")
        for (name,) in tables:
            rows = await connection.fetch(f'SELECT "{name}"::text FROM "{name}"')
            assert not any(password in row[0] for row in rows), name
    finally:
        await connection.close()
    for file in Path(settings.storage_url.removeprefix("file://")).rglob("*"):
        assert not file.is_file() or password.encode() not in file.read_bytes()


async def test_the_command_says_nothing_of_a_password(shop: str, settings: Settings, variables: dict[str, str]) -> None:
    """Neither in what it prints for people, nor in --json, nor with a traceback; with an address from the environment."""
    await run(shop, *ARTICLES)
    world = World(settings)
    (settings.root / "data").mkdir()
    world.code(PROJECT.replace("{address}", "SHOP_URL"))
    aipctl = Command(settings.root, variables | {"SHOP_URL": shop})
    wrong = Command(settings.root, variables | {"SHOP_URL": shop.replace(password_of(shop), "wr0ng")})
    plan = await asyncio.to_thread(aipctl, "plan", "--json")
    assert (plan.code, plan.json["stale"]) == (0, 7)
    for ended in (
        plan,
        await asyncio.to_thread(wrong, "plan", "--json"),
        await asyncio.to_thread(wrong, "plan", "--debug"),
    ):
        assert not any(word in ended.out + ended.err for word in (password_of(shop), "wr0ng"))
    assert ended.code == 1
    assert "cannot connect to postgresql://" in ended.err  # articles or sales: they are looked at side by side


# --- declarations ---


class Fixed(Document):
    fixed_media_type: ClassVar[str | None] = "text/html"


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("", "articles"), {}, "the first parameter is an address"),
        (("X", ""), {}, "the second parameter is the name of a table"),
        (("X", 7), {}, "the second parameter is the name of a table, or a query; found 7"),
        (("X", "t"), {"key": ()}, "key= takes the name of a column"),
        (("X", "t"), {"columns": "a"}, "columns= takes a list of names"),
        (("X", "t"), {"content": 7}, "content= takes a text"),
        (("X", "t"), {"content": "a", "as_frame": True}, "as_frame=True makes one Parquet document"),
        (("X", "t"), {"content": "a", "columns": ["b"]}, "give one of them"),
    ],
)
def test_a_wrong_declaration_says_where_and_what(arguments: Any, options: dict[str, Any], message: str) -> None:
    """File, line and what to write."""
    with pytest.raises(DeclarationError, match=rf"test_table.py:\d+: table\(...\): .*{re.escape(message)}"):
        table(*arguments, **{"key": "id", **options})


def test_a_frame_cannot_fill_fields() -> None:
    """The rows of a table fill the fields of a class; a whole table has none to give."""
    of("X", type_=Article)
    with pytest.raises(DeclarationError, match="is one frame, which has no field 'author' of Article"):
        of("X", type_=Article, as_frame=True)
    of("X", type_=Fixed, as_frame=True)
