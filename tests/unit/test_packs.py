"""Packs: what was put in comes out, typed, verified, and in the order asked."""

from __future__ import annotations

import enum
import io
import json
import random
import string
import tracemalloc
import uuid
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field

from assetcore.documents import Document, field_digests
from assetcore.errors import StorageError
from assetcore.storage import (
    Bucket,
    CorruptObjectError,
    Key,
    Location,
    MissingObjectError,
    Reader,
    Stored,
    check_fields,
    encode_pack,
    jsonable_fields,
)

KEY = Key("p/main/20261120T112600.123456Z/a/part-0.parquet")


class Plain(Document):
    pass


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Span(BaseModel):
    start: int
    end: int | None = None


class Rich(Document):
    ordinal: int
    title: str | None = None
    score: float = 0.0
    flag: bool = False
    raw: bytes = b""
    at: datetime | None = None
    day: date | None = None
    color: Color = Color.RED
    kind: Literal["a", "b"] = "a"
    tags: list[str] = []  # noqa: RUF012 - pydantic copies defaults
    numbers: Annotated[list[int] | None, Field(description="some")] = None
    span: Span | None = None
    spans: list[Span] = []  # noqa: RUF012 - pydantic copies defaults
    extra: dict[str, Any] = {}  # noqa: RUF012 - pydantic copies defaults
    names: frozenset[str] = frozenset()
    price: Decimal | None = None


def stored_rows(documents: list[Any], key: Key = KEY) -> list[Stored]:
    return [
        Stored(Location(key, row), d.name, d.media_type, d.sha256, len(d.content)) for row, d in enumerate(documents)
    ]


async def put(bucket: Bucket, documents: list[Any], key: Key = KEY) -> list[Stored]:
    await bucket.write(key, encode_pack(documents))
    return stored_rows(documents, key)


@pytest.fixture
def bucket(tmp_path: Path) -> Bucket:
    return Bucket.open(f"file://{tmp_path}/bucket")


rich = st.builds(
    lambda name, content, **fields: Rich(name=name, content=content, **fields),
    name=st.text(alphabet=string.ascii_letters + " 🙂", min_size=1, max_size=9),
    content=st.binary(max_size=40),
    ordinal=st.integers(-(2**63), 2**63 - 1),
    title=st.none() | st.text(alphabet="aé🙂\n\x00", max_size=3),
    score=st.floats(allow_nan=False),
    flag=st.booleans(),
    raw=st.binary(max_size=5),
    at=st.none() | st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(hours=-5, minutes=30))])),
    day=st.none() | st.dates(),
    color=st.sampled_from(Color),
    kind=st.sampled_from(["a", "b"]),
    tags=st.lists(st.text(max_size=2, alphabet="ab"), max_size=3),
    numbers=st.none() | st.lists(st.integers(-5, 5), max_size=3),
    span=st.none() | st.builds(Span, start=st.integers(), end=st.none() | st.integers()),
    spans=st.lists(st.builds(Span, start=st.integers()), max_size=2),
    extra=st.dictionaries(st.text(max_size=2), st.none() | st.integers() | st.text(max_size=2), max_size=2),
    names=st.frozensets(st.text(max_size=2), max_size=3),
    price=st.none() | st.decimals(allow_nan=False, allow_infinity=False),
)


@settings(max_examples=50)
@given(st.lists(rich, min_size=1, max_size=4))
async def test_documents_come_back_as_they_were(documents: list[Rich]) -> None:
    """Every field comes back with its type and its value, and so with its digest."""
    bucket = Bucket.open(f"memory://{uuid.uuid4()}")
    back = await Reader(bucket).documents(await put(bucket, documents), Rich)
    assert back == documents
    assert [field_digests(d.field_values()) for d in back] == [field_digests(d.field_values()) for d in documents]


def test_the_same_documents_give_the_same_bytes() -> None:
    """A pack depends on its documents alone: not on the order in which a set or a dict was filled."""
    one = Rich(name="a", text="x", ordinal=1, names=frozenset(["a", "b", "c"]), extra={"x": 1, "y": 2})
    other = Rich(name="a", text="x", ordinal=1, names=frozenset(["c", "b", "a"]), extra={"y": 2, "x": 1})
    assert encode_pack([one]) == encode_pack([other])


def test_columns_have_the_types_of_the_annotations() -> None:
    """Any Parquet reader sees the documents as a typed table."""
    schema = pq.read_schema(pa.BufferReader(encode_pack([Rich(name="a", text="x", ordinal=1, span=Span(start=1))])))
    types = {field.name: str(field.type) for field in schema}
    assert types == {
        "name": "string", "media_type": "string", "sha256": "fixed_size_binary[32]", "content": "binary", "ordinal": "int64",
        "title": "string", "score": "double", "flag": "bool", "raw": "binary", "at": "timestamp[us, tz=UTC]", "day": "date32[day]",
        "color": "string", "kind": "string", "tags": "list<element: string>", "numbers": "list<element: int64>", "span": "string",
        "spans": "string", "extra": "string", "names": "string", "price": "string",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("ordinal", [2**63, -(2**200), 1]),
        ("at", [datetime(2026, 1, 1), datetime(2026, 1, 1, tzinfo=UTC), None]),
        ("at", [datetime(2026, 1, 1), datetime(2025, 1, 1), None]),
        ("at", [datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=2))), None, None]),
        ("score", [float("inf"), float("-inf"), -0.0]),
        ("extra", [{"a": float("inf")}, {"b": [1, {"c": None}]}, {}]),
    ],
)
async def test_values_that_do_not_fit_their_column_come_back_too(bucket: Bucket, field: str, values: list[Any]) -> None:
    """An int beyond 64 bits, or moments with and without a zone side by side, are kept exactly."""
    documents = [Rich(name=str(i), text="x", **{"ordinal": 0, field: value}) for i, value in enumerate(values)]
    back = await Reader(bucket).documents(await put(bucket, documents), Rich)
    assert [getattr(d, field) for d in back] == values


async def test_a_moment_comes_back_in_its_zone_and_is_shown_as_it_is_in_a_frame(bucket: Bucket) -> None:
    """The same moment elsewhere has another hour, and a digest of its own: a pack gives back what one object does."""
    at = datetime(2026, 1, 1, 0, 30, tzinfo=timezone(timedelta(hours=2)))
    stored = await put(bucket, [Rich(name="a", text="x", ordinal=1, at=at), Rich(name="b", text="x", ordinal=2)])
    [one, _] = await Reader(bucket).documents(stored, Rich)
    assert (one.at, one.at.isoformat()) == (at, at.isoformat())
    assert (await Reader(bucket).table(stored, Rich))["at"].to_pylist() == [at, None]


class Corner(enum.Enum):
    """Values that JSON has no form for, or the form of another."""

    PAIR = (0, 1)
    DAY = date(2026, 1, 2)
    RAW = b"a"
    NUMBER = 1


class Raw(enum.Enum):
    NUL = b"\x00\xff"


class Counted(BaseModel):
    page_count: int = Field(alias="pageCount")
    corner: Corner = Corner.PAIR
    metadata: Literal[Corner.NUMBER, Corner.DAY] = Corner.NUMBER
    parts: list[Counted] = []


class Strict(Document):
    model_config = ConfigDict(strict=True)

    counted: Counted | None = None
    corner: Corner | None = None
    corners: dict[str, list[Corner]] = {}  # noqa: RUF012 - pydantic copies defaults
    raw: Raw | None = None
    raws: list[Raw] = []  # noqa: RUF012 - pydantic copies defaults
    took: timedelta | None = None
    at: datetime | None = None
    moments: list[datetime] = []  # noqa: RUF012 - pydantic copies defaults
    price: Decimal | None = None


LONG_AGO = datetime(1880, 1, 1, tzinfo=timezone(timedelta(minutes=53, seconds=28)))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("counted", Counted(pageCount=3)),
        ("counted", Counted(pageCount=3, corner=Corner.DAY, metadata=Corner.DAY, parts=[Counted(pageCount=1)])),
        *(("corner", member) for member in Corner),
        ("corners", {"a": list(Corner)}),
        ("raw", Raw.NUL),
        ("raws", [Raw.NUL]),
        ("took", timedelta(days=300_000, microseconds=1)),
        ("took", timedelta.min),
        ("at", datetime.max.replace(tzinfo=timezone(timedelta(hours=-2)))),
        ("at", datetime.min.replace(tzinfo=timezone(timedelta(hours=2)))),
        ("at", LONG_AGO),
        ("moments", [LONG_AGO]),
        ("price", Decimal("1.10")),
    ],
)
async def test_what_json_has_no_form_for_comes_back_as_declared(bucket: Bucket, field: str, value: Any) -> None:
    """Aliases, members of enums with any values, durations of centuries and moments that UTC has no day for, in packs and alone."""
    document = Strict(name="a", text="x", **{field: value})
    check_fields([document])
    [packed] = await put(bucket, [document])
    await bucket.write(Key("alone"), document.content)
    alone = packed._replace(
        location=Location(Key("alone"), None), fields=json.loads(json.dumps(jsonable_fields(document)))
    )
    assert await Reader(bucket).documents([packed, alone], Strict) == [document, document]


async def test_what_no_column_holds_is_refused_as_a_frame(bucket: Bucket) -> None:
    """A frame never shows another value than the document has: it says that the field does not fit."""
    stored = await put(bucket, [Rich(name="a", text="x", ordinal=2**63), Rich(name="b", text="x", ordinal=1)])
    with pytest.raises(StorageError, match=r"The field 'ordinal' of Rich has values .* that do not fit int64"):
        await Reader(bucket).table(stored, Rich)
    assert (await Reader(bucket).table(stored[1:], Rich))["ordinal"].to_pylist() == [1]


def test_a_value_that_json_cannot_hold_is_named() -> None:
    """What cannot be stored is refused with the name of the field."""
    with pytest.raises(StorageError, match=r"The field 'extra' has a value that cannot be stored"):
        encode_pack([Rich(name="a", text="x", ordinal=1, extra={"f": object()})])


def test_a_pack_is_of_one_class_and_not_empty() -> None:
    """Documents of two classes, or none, are no pack."""
    with pytest.raises(StorageError, match=r"Plain\('a'.*Rich\('b'"):
        encode_pack([Plain(name="a", text=""), Rich(name="b", text="", ordinal=1)])
    with pytest.raises(StorageError, match="no documents"):
        encode_pack([])


async def test_any_rows_are_read_in_the_order_asked(bucket: Bucket) -> None:
    """Rows of several packs and objects of their own, shuffled and repeated, come in the order asked."""
    other = Key(KEY.replace("part-0", "part-1"))
    documents = [Rich(name=f"n{i}", text=f"text {i} " * 2000, ordinal=i, tags=[str(i)]) for i in range(300)]
    stored = await put(bucket, documents[:200]) + await put(bucket, documents[200:], other)
    own = Rich(name="own", content=b"\x00", ordinal=7, span=Span(start=1), at=datetime(2026, 1, 1, tzinfo=UTC))
    await bucket.write(Key("own"), own.content)
    stored.append(Stored(Location(Key("own"), None), "own", own.media_type, own.sha256, 1, jsonable_fields(own)))
    documents.append(own)
    assert pq.ParquetFile(await bucket.open_input(KEY)).num_row_groups > 2
    order = random.Random(1).choices(range(301), k=400)
    reader = Reader(bucket, cache_bytes=3 << 20)
    asked = [stored[i] for i in order]
    assert await reader.documents(asked, Rich) == [documents[i] for i in order]
    table = await reader.table(asked, Rich)
    assert table["name"].to_pylist() == [documents[i].name for i in order]
    assert table["tags"].to_pylist() == [documents[i].tags for i in order]
    assert table["at"].to_pylist() == [documents[i].at for i in order]
    assert await reader.column(asked, "ordinal") == [documents[i].ordinal for i in order]
    assert await reader.column(stored[-1:], "span") == [{"start": 1, "end": None}]


async def test_one_document_of_thousands_costs_its_row_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a pack of 4,000 documents, reading one reads the footer and one group of rows; those beside it then cost nothing."""
    read: list[int] = []

    class Counted(io.FileIO):
        def read(self, size: int | None = -1) -> Any:
            read.append(len(data := super().read(-1 if size is None else size) or b""))
            return data

    async def counted(key: Key) -> pa.NativeFile:
        return pa.PythonFile(Counted(tmp_path / key), mode="r")

    bucket = Bucket.open(f"file://{tmp_path}")
    monkeypatch.setattr(bucket, "open_input", counted)
    chance = random.Random(1)
    documents = [Plain(name=str(i), content=chance.randbytes(2048)) for i in range(4000)]
    stored = await put(bucket, documents)
    reader = Reader(bucket)
    assert await reader.documents(stored[2000:2001], Plain) == documents[2000:2001]
    assert 1 << 20 <= sum(read) < 2 << 20
    read.clear()
    assert await reader.documents([stored[2001], stored[1999]], Plain) == [documents[2001], documents[1999]]
    assert read == []


async def test_a_table_has_text_or_content(bucket: Bucket) -> None:
    """Text and JSON that is UTF-8 stands in `text`; everything else in `content`."""
    documents = [
        Plain(name="t", text="é"),
        Plain(name="j", data={"a": 1}),
        Plain(name="b", content=b"\xff"),
        Plain(name="broken", content=b"\xff", media_type="text/plain"),
        Plain(name="ld", content=b"{}", media_type="application/ld+json; charset=utf-8"),
        Plain(name="empty", text=""),
    ]
    table = await Reader(bucket).table(await put(bucket, documents), Plain)
    assert table.column_names == ["name", "media_type", "text", "content"]
    assert table["text"].to_pylist() == ["é", '{\n "a": 1\n}', None, None, "{}", ""]
    assert table["content"].to_pylist() == [None, None, b"\xff", b"\xff", None, None]


async def test_a_table_of_nothing_has_the_columns(bucket: Bucket) -> None:
    """An aggregate over no documents gets a frame with the right columns and no rows."""
    reader = Reader(bucket)
    full = await reader.table(await put(bucket, [Rich(name="a", text="x", ordinal=1)]), Rich)
    empty = await reader.table([], Rich)
    assert empty.num_rows == 0
    assert empty.schema == full.schema
    assert await reader.documents([], Rich) == []


async def test_damaged_bytes_are_never_handed_over(bucket: Bucket) -> None:
    """Content that does not hash to what lineage says is refused, naming the object and both hashes."""
    documents = [Plain(name="a", text="one"), Plain(name="b", text="two")]
    stored = await put(bucket, documents)
    wrong = [stored[0], Stored(Location(KEY, 1), "b", "text/plain", documents[0].sha256, 3)]
    for ask in (Reader(bucket).documents, Reader(bucket).table):
        with pytest.raises(CorruptObjectError) as caught:
            await ask(wrong, Plain)
        for part in (KEY, documents[0].sha256.hex(), documents[1].sha256.hex(), "row 1", "'b'"):
            assert part in str(caught.value)


async def test_every_damage_of_a_pack_is_found(tmp_path: Path, bucket: Bucket) -> None:
    """A pack cut short or with a flipped byte gives the documents or a StorageError, never something else."""
    documents = [Rich(name=f"n{i}", text=f"text {i}", ordinal=i) for i in range(5)]
    stored = await put(bucket, documents)
    file = tmp_path / "bucket" / KEY
    whole = file.read_bytes()
    step = max(1, len(whole) // 60)
    damaged = [whole[:cut] for cut in range(0, len(whole), step)]
    damaged += [whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :] for at in range(0, len(whole), step)]
    refused: list[StorageError] = []
    for data in damaged:
        file.write_bytes(data)
        try:
            back = await Reader(bucket).documents(stored, Rich)
        except StorageError as error:
            refused.append(error)
        else:
            assert back == documents
    assert len(refused) > len(damaged) // 2
    assert all(KEY in error.message for error in refused)
    assert all("aipctl materialize --verify" in str(error.hint) for error in refused)


async def test_a_missing_object_and_a_missing_row_are_told_apart(bucket: Bucket) -> None:
    """A lost object is missing; a pack with too few rows is corrupt."""
    document = Plain(name="a", text="x")
    with pytest.raises(MissingObjectError, match=KEY):
        await Reader(bucket).documents(stored_rows([document]), Plain)
    await put(bucket, [document])
    with pytest.raises(CorruptObjectError, match="Row 1 was asked"):
        await Reader(bucket).documents([Stored(Location(KEY, 1), "a", "text/plain", document.sha256, 1)], Plain)


async def test_names_are_lineages(bucket: Bucket) -> None:
    """Content that exists already may be pointed to under another name."""
    document = Plain(name="a", text="x")
    await put(bucket, [document])
    stored = [Stored(Location(KEY, 0), "renamed", "text/markdown", document.sha256, 1)]
    (back,) = await Reader(bucket).documents(stored, Plain)
    assert (back.name, back.media_type, back.text) == ("renamed", "text/markdown", "x")


async def test_a_class_may_have_changed_its_fields_since(bucket: Bucket) -> None:
    """A field that the class has got since has its default; one that it has lost is not read."""

    class Before(Document):
        kept: int
        lost: int

    class After(Document):
        kept: int
        new: str = "default"

    stored = await put(bucket, [Before(name="a", text="x", kept=1, lost=2)])
    reader = Reader(bucket)
    (back,) = await reader.documents(stored, After)
    assert (back.kept, back.new) == (1, "default")
    assert (await reader.table(stored, After)).column_names[4:] == ["kept", "new"]
    with pytest.raises(StorageError, match="has no field 'new'"):
        await reader.column(stored, "new")


async def test_empty_and_large_documents_share_a_pack(bucket: Bucket) -> None:
    """A document of 0 bytes and one larger than a row group lie side by side."""
    documents = [
        Plain(name="empty", content=b""),
        Plain(name="large", content=b"x" * (3 << 20)),
        Plain(name="tail", content=b"y"),
    ]
    assert await Reader(bucket).documents(await put(bucket, documents), Plain) == documents


async def test_a_large_object_is_held_once(tmp_path: Path) -> None:
    """A document of its own is handed over as it was read, without a copy."""
    document = Plain(name="large", content=b"x" * 50_000_000)
    bucket = Bucket.open(f"file://{tmp_path}/bucket")
    await bucket.write(KEY, document.content)
    tracemalloc.start()
    (back,) = await Reader(bucket).documents(
        [Stored(Location(KEY, None), "large", document.media_type, document.sha256, 50_000_000)], Plain
    )
    held = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert back == document
    assert held < 60_000_000
