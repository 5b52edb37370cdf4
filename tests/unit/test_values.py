"""Values: what a function returned becomes documents, and the next function gets them in the form it asked for."""

from __future__ import annotations

import enum
import subprocess
import sys
import textwrap
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from assetcore.assets import Asset, Dependency, Model, Output, Table
from assetcore.declarations import asset, collect, each, source
from assetcore.documents import Document
from assetcore.embeddings import Embedding
from assetcore.errors import AssetcoreError
from assetcore.sources import folder
from assetcore.storage import Bucket, Key, Location, Reader, Stored, encode_pack
from assetcore.values import decode, decode_many, drain, encode


class Topic(Document):
    pass


class Chunk(Document):
    ordinal: int = 0
    extra: dict[str, Any] = {}  # noqa: RUF012 - pydantic copies defaults


class Special(Chunk):
    more: int = 0


class Color(enum.Enum):
    RED = "red"


class Part(BaseModel):
    text: str = ""
    at: datetime | None = None


class Summary(BaseModel):
    count: int
    tags: set[str] = set()
    parts: list[Part] = []
    price: Decimal | None = None
    took: timedelta | None = None
    color: Color = Color.RED
    by_number: dict[int, str] = {}


class Base(BaseModel):
    count: int


topics = source("topics", Topic, folder("topics"))


@asset
def one(topic: Topic = each(topics)) -> Chunk: ...


@asset
def maybe(topic: Topic = each(topics)) -> Chunk | None: ...


@asset
def many(topic: Topic = each(topics)) -> list[Chunk]: ...


@asset
async def streamed(topic: Topic = each(topics)) -> AsyncIterator[Chunk]:
    yield Chunk(name="a", text="")


@asset
def generated(topic: Topic = each(topics)) -> Iterator[Chunk]:
    yield Chunk(name="a", text="")


@asset
def model(topic: Topic = each(topics)) -> Summary: ...


@asset
def frame(topic: Topic = each(topics)) -> pl.DataFrame: ...


@pytest.fixture
def reader() -> Reader:
    return Reader(Bucket.open(f"memory://{uuid.uuid4()}"))


async def keep(reader: Reader, documents: list[Any]) -> list[Stored]:
    """The documents in a pack of the reader's bucket."""
    key = Key(uuid.uuid4().hex)
    if documents:
        await reader.bucket.write(key, encode_pack(documents))
    return [
        Stored(Location(key, row), d.name, d.media_type, d.sha256, len(d.content)) for row, d in enumerate(documents)
    ]


def only(of: Asset[..., Any]) -> Dependency:
    (dependency,) = of.dependencies
    return dependency


# --- what a function returned ---


@pytest.mark.parametrize(
    ("of", "returned", "names"),
    [
        (one, Chunk(name="a", text="x"), ["a"]),
        (maybe, Chunk(name="a", text="x"), ["a"]),
        (maybe, None, []),
        (many, [Chunk(name="a", text="x"), Chunk(name="b", text="x")], ["a", "b"]),
        (many, (Chunk(name="a", text="x"),), ["a"]),
        (many, [], []),
    ],
)
def test_documents_are_taken_as_they_are(of: Asset[..., Any], returned: Any, names: list[str]) -> None:
    """A document, a list of them, or none where that is declared."""
    assert [d.name for d in encode(of.output, returned, "unit", "who")] == names


async def test_generators_are_drained() -> None:
    """What an async or a plain generator yields becomes a list; other values pass."""
    assert [d.name for d in await drain(streamed(Topic(name="t", text="")))] == ["a"]
    assert [d.name for d in await drain(generated(Topic(name="t", text="")))] == ["a"]
    frame = pl.DataFrame()
    assert await drain(frame) is frame


@pytest.mark.parametrize(
    ("of", "returned", "message"),
    [
        (one, None, r"who returned None; declared is Chunk\."),
        (one, "text", r"who returned str 'text'; declared is Chunk\."),
        (one, [Chunk(name="a", text="")], r"who returned a list of 1; declared is Chunk\."),
        (one, Topic(name="a", text="x"), r"who returned Topic\('a', 1 bytes, text/plain\); declared is Chunk\."),
        (one, Special(name="a", text=""), r"who returned Special\('a'.*; declared is Chunk\.\n  Special is more than"),
        (maybe, 7, r"who returned int 7; declared is Chunk \| None\."),
        (many, Chunk(name="a", text=""), r"who returned Chunk\('a'.*; declared is list\[Chunk\]\."),
        (many, None, r"who returned None; declared is list\[Chunk\]\."),
        (many, [Chunk(name="a", text=""), "b"], r"who returned str 'b' at place 1; declared is list\[Chunk\]\."),
        (many, [None], r"who returned None at place 0; declared is list\[Chunk\]\."),
        (streamed, ["b"], r"who yielded str 'b' at place 0; declared is an iterator of Chunk\."),
        (model, {"count": 1}, r"who returned a dict of 1; declared is Summary\."),
        (frame, [1], r"who returned a list of 1; declared is a frame\."),
        (frame, pl.Series([1]), r"who returned a value of type Series; declared is a frame\."),
    ],
)
def test_a_wrong_value_is_named(of: Asset[..., Any], returned: Any, message: str) -> None:
    """The error says who returned what, and what was declared."""
    with pytest.raises(AssetcoreError, match=message):
        encode(of.output, returned, "unit", "who")


def test_two_documents_of_one_name_are_refused() -> None:
    """Within one unit a name stands for one document."""
    with pytest.raises(AssetcoreError, match=r"chunks\[with\] returned two documents named 'a'"):
        encode(many.output, [Chunk(name="a", text="1"), Chunk(name="a", text="2")], "unit", "chunks[with]")


def test_a_field_that_cannot_be_stored_is_named_before_anything_is() -> None:
    """The error names the asset, the document and the field."""
    with pytest.raises(AssetcoreError, match=r"who: Chunk\('b'.*\) has a value in 'extra' that cannot be stored"):
        encode(many.output, [Chunk(name="a", text=""), Chunk(name="b", text="", extra={"f": object()})], "unit", "who")


def test_content_that_is_no_vector_is_no_embedding() -> None:
    """Also where it was not made by `Embedding.of`: the unit is told which document, and what an index holds."""
    many = Output("document", Embedding, many=True)
    whole = Embedding.of("a", [1.0])
    for content, problem in (
        (b"abc", "3 bytes, which are no 32-bit floats"),
        (b"", "no numbers"),
        (b"\0\0\xc0\x7f", "nan in it"),
    ):
        with pytest.raises(AssetcoreError, match=rf"who returned Embedding\('b', .*, whose vector has {problem}"):
            encode(many, [whole, Embedding("b", content=content)], "unit", "who")


class Shape(BaseModel):
    kind: str = "shape"


class Circle(Shape):
    radius: int = 3


class Holder(BaseModel):
    shape: Shape


class Louder(Document):
    title: Annotated[str, AfterValidator(lambda title: title + "!")]


class Loose(Document):
    title: str = ""
    tags: list[str] = []  # noqa: RUF012 - pydantic copies defaults
    number: int = 0
    numbers: list[int] = []  # noqa: RUF012 - pydantic copies defaults
    texts: dict[str, str] = {}  # noqa: RUF012 - pydantic copies defaults
    day: date | str = ""
    key: uuid.UUID | str = ""
    raw: bytes | str = ""
    any: Any = None
    some: dict[str, Any] = {}  # noqa: RUF012 - pydantic copies defaults
    shape: Shape | None = None
    shapes: list[Shape] = []  # noqa: RUF012 - pydantic copies defaults
    holder: Holder | None = None
    few: Sequence[str] = ()
    score: Decimal | float = 0.0


SURROGATE, LONG = "a\ud800b", 1 << 20_000
STORED, CHANGED = "cannot be stored", "would be read back as something else"


@pytest.mark.parametrize(
    ("field", "value", "problem", "shown"),
    [
        ("title", SURROGATE, STORED, "'a\\ud800b': 'utf-8' codec can't encode"),
        ("tags", ["é", SURROGATE], STORED, "'a\\ud800b'"),
        ("texts", {SURROGATE: ""}, STORED, "'a\\ud800b'"),
        ("any", [SURROGATE], STORED, "'a\\ud800b'"),
        pytest.param("number", LONG, STORED, "a value of type int", id="number"),
        pytest.param("numbers", [LONG], STORED, "a value of type list", id="numbers"),
        ("day", date(2026, 1, 2), CHANGED, "datetime.date(2026, 1, 2) as '2026-01-02'"),
        ("key", uuid.UUID(int=5), CHANGED, "as '00000000-0000-"),
        ("raw", b"abc", CHANGED, "b'abc' as 'abc'"),
        ("any", {1: "a"}, CHANGED, "{1: 'a'} as {'1': 'a'}"),
        ("some", {"day": date(2026, 1, 2)}, CHANGED, "as {'day': '2026-01-02'}"),
        ("shape", Circle(), CHANGED, "Circle(kind='shape', radius=3) as Shape(kind='shape')"),
        ("shapes", [Circle()], CHANGED, "Circle(kind='shape', radius=3)"),
        ("holder", Holder(shape=Circle()), CHANGED, "radius=3"),
    ],
)
def test_a_value_that_would_not_come_back_is_refused(field: str, value: Any, problem: str, shown: str) -> None:
    """The error names who returned it, the document, the field and the value: what is stored is what the next function is given."""
    with pytest.raises(AssetcoreError) as raised:
        encode(
            Output("document", Loose, many=True),
            [Loose("a", text=""), Loose("b", text="", **{field: value})],
            "unit",
            "who",
        )
    assert f"who: Loose('b', 0 bytes, text/plain) has a value in {field!r} that {problem}: " in raised.value.message
    assert shown in raised.value.message
    assert raised.value.hint


def test_a_validator_that_changes_a_value_each_time_is_refused() -> None:
    """What is read is validated once more: a class must take what it has made."""
    with pytest.raises(AssetcoreError, match=r"'title' that would be read back as something else: 'a!' as 'a!!'"):
        encode(Output("document", Louder), Louder("a", text="", title="a"), "unit", "who")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("title", "é🙂\0"), ("number", 2**63), ("numbers", [-(2**200)]), ("any", (1, [2.5, None])), ("some", {"box": (0, 1)}),
        ("few", ("a", "b")), ("score", Decimal("1.10")), ("any", float("nan")), ("day", "2026-01-02"), ("shape", Shape()),
    ],
)  # fmt: skip
def test_what_is_as_good_as_it_was_is_taken(field: str, value: Any) -> None:
    """A tuple in a field that says nothing of tuples is the list that JSON makes of it; NaN is NaN."""
    [document] = encode(Output("document", Loose), Loose("a", text="", **{field: value}), "unit", "who")
    assert document.name == "a"


def test_a_model_becomes_json_with_sorted_keys() -> None:
    """Equal models are equal bytes, whatever the order in which they were filled."""
    first = Summary(count=1, tags={"a", "b", "c"}, by_number={2: "b", 1: "a"})
    second = Summary(by_number={1: "a", 2: "b"}, tags={"c", "b", "a"}, count=1)
    (one_document,) = encode(model.output, first, "unit", "who")
    (other,) = encode(model.output, second, "unit", "who")
    assert type(one_document) is Model
    assert (one_document.name, one_document.media_type) == ("unit", "application/json")
    assert one_document.content == other.content
    assert list(one_document.data) == sorted(one_document.data)


def test_equal_models_are_equal_bytes_in_every_process() -> None:
    """The order of a set differs from process to process; the bytes do not."""
    program = """
        from assetcore.assets import Output
        from assetcore.values import encode
        from pydantic import BaseModel
        class Summary(BaseModel):
            tags: set[str]
        print(encode(Output("model", Summary), Summary(tags={str(i) for i in range(20)}), "unit", "who")[0].sha256.hex())
    """
    digests = {
        subprocess.run([sys.executable, "-c", textwrap.dedent(program)], env={"PYTHONHASHSEED": seed}, capture_output=True,
                       text=True, check=True, timeout=60).stdout
        for seed in ("1", "2", "3")
    }  # fmt: skip
    assert len(digests) == 1


def test_a_model_that_cannot_be_read_back_is_refused_at_once() -> None:
    """What JSON cannot hold is found when it is made, not when it is needed."""

    class Odd(BaseModel):
        model_config = ConfigDict(arbitrary_types_allowed=True)
        thing: object

    class Bytes(BaseModel):
        raw: bytes

    for wrong in (Odd(thing=object()), Bytes(raw=b"\xff")):
        with pytest.raises(
            AssetcoreError, match=rf"who returned a {type(wrong).__name__} that cannot be stored as JSON"
        ):
            encode(Output("model", type(wrong)), wrong, "unit", "who")


FRAMES = {
    "n": [3, 1, 2],
    "text": ["é", None, ""],
    "score": [0.5, float("nan"), None],
    "day": [date(2026, 1, 1), None, date(1, 1, 1)],
    "at": [datetime(2026, 1, 1, tzinfo=UTC), None, datetime(1970, 1, 1, tzinfo=UTC)],
    "took": [timedelta(seconds=1), None, timedelta(days=-1)],
    "tags": [["a"], [], None],
    "raw": [b"\x00", None, b""],
    "flag": [True, None, False],
    "nothing": [None, None, None],
}


def test_a_frame_becomes_parquet() -> None:
    """It has the unit's name, and any Parquet reader can read it."""
    (document,) = encode(frame.output, pl.DataFrame(FRAMES), "unit", "who")
    assert type(document) is Table
    assert (document.name, document.media_type) == ("unit", "application/vnd.apache.parquet")
    assert pl.read_parquet(document.content).to_dict(as_series=False).keys() == FRAMES.keys()


@pytest.mark.parametrize(
    "make",
    [
        lambda data: pl.DataFrame(data),
        lambda data: pl.LazyFrame(data),
        lambda data: pl.concat([pl.DataFrame(data)[:1], pl.DataFrame(data)[1:]], rechunk=False),
        lambda data: pa.table(data).replace_schema_metadata({"noise": "x"}),
        lambda data: pa.Table.from_batches(pa.table(data).to_batches(max_chunksize=1)),
    ],
)
def test_equal_frames_are_equal_bytes(make: Any) -> None:
    """Chunks, laziness and metadata make no difference."""
    data = {"n": [3, 1, 2], "text": ["é", None, ""], "tags": [["a"], [], None]}
    reference = encode(frame.output, make(data), "unit", "who")[0].content
    assert encode(frame.output, make(data), "unit", "who")[0].content == reference
    assert encode(frame.output, pl.DataFrame(data), "unit", "who")[0].content == reference
    assert b"ARROW" not in reference
    assert b"noise" not in reference


def test_equal_pandas_frames_are_equal_bytes() -> None:
    """How the rows are numbered, and pandas' own metadata, make no difference."""
    data = {"n": [3, 1, 2], "text": ["é", "b", ""]}
    reference = encode(frame.output, pd.DataFrame(data), "unit", "who")[0].content
    filtered = pd.DataFrame({"n": [9, 3, 1, 2], "text": ["x", "é", "b", ""]})
    assert encode(frame.output, filtered[filtered.n < 9], "unit", "who")[0].content == reference
    assert b"pandas" not in reference
    assert pl.read_parquet(reference).to_dict(as_series=False) == data


def test_a_pandas_index_that_says_something_is_kept() -> None:
    """A named index, or one of text, becomes columns."""
    by_name = pd.DataFrame({"n": [1, 2]}, index=pd.Index(["a", "b"], name="key"))
    unnamed = pd.DataFrame({"n": [1, 2]}, index=["a", "b"])
    assert pl.read_parquet(encode(frame.output, by_name, "u", "who")[0].content).columns == ["key", "n"]
    assert pl.read_parquet(encode(frame.output, unnamed, "u", "who")[0].content).columns == ["index", "n"]


def test_the_numbering_of_categories_makes_no_difference() -> None:
    """Categories are their values: a frame is the same whatever strings the process met before."""
    pl.Series(["z", "y", "x"], dtype=pl.Categorical)
    values = pl.DataFrame({"c": ["a", "b", "a"]})
    reference = encode(frame.output, values, "u", "who")[0].content
    for other in (
        values.with_columns(pl.col("c").cast(pl.Categorical)),
        values.with_columns(pl.col("c").cast(pl.Enum(["b", "a"]))),
        pd.DataFrame({"c": pd.Categorical(["a", "b", "a"], categories=["b", "a"])}),
    ):
        assert encode(frame.output, other, "u", "who")[0].content == reference


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (
            pd.DataFrame({"x": pd.Series([1, "a", 2.5], dtype=object)}),
            r"a frame whose column 'x' mixes float and int and str",
        ),
        (pd.DataFrame({"x": pd.Series([object()], dtype=object)}), r"a frame that cannot be stored"),
        (
            pl.DataFrame({"x": pl.Series([object()], dtype=pl.Object)}),
            r"a frame whose column 'x' holds Python objects \(object\)",
        ),
        (pa.table([pa.array([1]), pa.array([2])], ["x", "x"]), r"a frame with two columns 'x'"),
        (pd.DataFrame([[1, 2]], columns=["x", "x"]), r"who returned a frame .*'?x'?"),
    ],
)
def test_a_frame_that_cannot_be_stored_is_named(returned: Any, message: str) -> None:
    """The error names the column and what it mixes."""
    with pytest.raises(AssetcoreError, match=message):
        encode(frame.output, returned, "unit", "who")


# --- what a parameter is given ---


async def test_each_gives_one_document(reader: Reader) -> None:
    """The document as it was made; with fields= only those parts of it."""

    @asset
    def narrow(chunk: Chunk = each(many, fields=["ordinal"])) -> Chunk: ...

    @asset
    def whole(chunk: Chunk = each(many)) -> Chunk: ...

    chunks = [Chunk(name="a", text="x", ordinal=1), Chunk(name="b", text="y", ordinal=2)]
    stored = await keep(reader, chunks)
    assert await decode(only(whole), reader, stored[1:]) == chunks[1]
    assert await decode_many(only(whole), reader, [[stored[1]], [stored[0]]]) == [chunks[1], chunks[0]]
    given = await decode(only(narrow), reader, stored[:1])
    assert given.ordinal == 1
    with pytest.raises(AssetcoreError, match=r"Chunk\.content is not handed over"):
        _ = given.text
    with pytest.raises(AssetcoreError, match="chunk takes one Chunk at a time, and was given 2"):
        await decode(only(whole), reader, stored)


async def test_a_parameter_may_ask_for_a_base_class(reader: Reader) -> None:
    """It is given what was made, with all its fields."""

    @asset
    def special(topic: Topic = each(topics)) -> list[Special]: ...

    @asset
    def consumer(chunk: Chunk = each(special)) -> Chunk: ...

    stored = await keep(reader, [Special(name="a", text="x", more=3)])
    given = await decode(only(consumer), reader, stored)
    assert (type(given), given.more) == (Special, 3)


async def test_collect_gives_a_list_or_a_stream(reader: Reader) -> None:
    """All documents in the order of the inputs; a stream holds a few at a time."""

    @asset
    def listed(chunks: list[Chunk] = collect(many)) -> Chunk: ...

    @asset
    async def streaming(chunks: AsyncIterator[Chunk] = collect(many)) -> Chunk: ...

    chunks = [Chunk(name=f"{i}", text="x" * i, ordinal=i) for i in range(700)]
    stored = await keep(reader, chunks)
    assert await decode(only(listed), reader, stored) == chunks
    assert await decode(only(listed), reader, []) == []
    assert await decode_many(only(listed), reader, [stored[:2], [], stored[2:3]]) == [chunks[:2], [], chunks[2:3]]
    assert [c async for c in await decode(only(streaming), reader, stored)] == chunks
    assert [c async for c in await decode(only(streaming), reader, [])] == []


async def test_a_stream_reads_no_further_than_it_is_followed(reader: Reader) -> None:
    """A reader that stops early never meets what lies beyond."""

    @asset
    async def streaming(chunks: AsyncIterator[Chunk] = collect(many)) -> Chunk: ...

    good = await keep(reader, [Chunk(name=f"{i}", text="x") for i in range(300)])
    lost = [Stored(Location(Key("lost"), 0), "lost", "text/plain", b"\x00" * 32, 1)]
    stream = aiter(await decode(only(streaming), reader, good + lost))
    assert [(await anext(stream)).name for _ in range(256)] == [f"{i}" for i in range(256)]
    with pytest.raises(AssetcoreError, match="lost"):
        await anext(stream)


async def test_collect_gives_documents_as_any_frame(reader: Reader) -> None:
    """The columns are name, media type, text, content and the typed fields, in every kind of frame."""

    @asset
    def lazy(f: pl.LazyFrame = collect(many)) -> Chunk: ...

    @asset
    def eager(f: pl.DataFrame = collect(many)) -> Chunk: ...

    @asset
    def pandas(f: pd.DataFrame = collect(many)) -> Chunk: ...

    @asset
    def arrow(f: pa.Table = collect(many)) -> Chunk: ...

    stored = await keep(reader, [Chunk(name="a", text="x", ordinal=1), Chunk(name="b", content=b"\xff", ordinal=2)])
    expected = {
        "name": ["a", "b"], "media_type": ["text/plain", "application/octet-stream"], "text": ["x", None],
        "content": [None, b"\xff"], "ordinal": [1, 2], "extra": ["{}", "{}"],
    }  # fmt: skip
    given = await decode(only(lazy), reader, stored)
    assert isinstance(given, pl.LazyFrame)
    assert given.collect().to_dict(as_series=False) == expected
    given = await decode(only(eager), reader, stored)
    assert isinstance(given, pl.DataFrame)
    assert given.to_dict(as_series=False) == expected
    given = await decode(only(arrow), reader, stored)
    assert isinstance(given, pa.Table)
    assert given.to_pydict() == expected
    given = await decode(only(pandas), reader, stored)
    assert isinstance(given, pd.DataFrame)
    assert list(given.columns) == list(expected)
    assert given.ordinal.tolist() == [1, 2]
    empty = await decode(only(eager), reader, [])
    assert empty.columns == list(expected)
    assert empty.height == 0


async def test_frames_come_back_as_they_were(reader: Reader) -> None:
    """One frame for each(), all of them one below the other for collect()."""

    @asset
    def single(f: pl.DataFrame = each(frame)) -> Chunk: ...

    @asset
    def all_of_them(f: pl.LazyFrame = collect(frame)) -> Chunk: ...

    @asset
    def as_pandas(f: pd.DataFrame = collect(frame)) -> Chunk: ...

    original = pl.DataFrame(FRAMES)
    stored = await keep(
        reader, [*encode(frame.output, original, "a", "who"), *encode(frame.output, original[:1], "b", "who")]
    )
    assert (await decode(only(single), reader, stored[:1])).equals(original)
    together = (await decode(only(all_of_them), reader, stored)).collect()
    assert together.equals(pl.concat([original, original[:1]]))
    assert len(await decode(only(as_pandas), reader, stored)) == 4
    assert (await decode(only(all_of_them), reader, [])).collect().height == 0


@pytest.mark.parametrize(
    "column",
    [
        pl.Series([datetime(2026, 1, 1), None], dtype=pl.Datetime("ns")),
        pl.Series([datetime(2026, 1, 1, tzinfo=UTC), None], dtype=pl.Datetime("ms", "Europe/Berlin")),
        pl.Series([timedelta(microseconds=1), None], dtype=pl.Duration("us")),
        pl.Series([[1, 2], [3, 4]], dtype=pl.Array(pl.Int8, 2)),
        pl.Series([{"a": 1, "b": [None]}, None], dtype=pl.Struct({"a": pl.UInt8, "b": pl.List(pl.Float32)})),
        pl.Series([Decimal("1.10"), None], dtype=pl.Decimal(10, 2)),
        pl.Series([2**64 - 1, 0], dtype=pl.UInt64),
    ],
)
async def test_every_type_of_column_comes_back(reader: Reader, column: pl.Series) -> None:
    """Zones, durations, arrays, structs and decimals keep their type."""

    @asset
    def single(f: pl.DataFrame = each(frame)) -> Chunk: ...

    original = pl.DataFrame({"x": column})
    given = await decode(only(single), reader, await keep(reader, encode(frame.output, original, "a", "who")))
    assert given.schema == original.schema
    assert given.equals(original)


async def test_frames_with_other_columns_are_joined_by_name(reader: Reader) -> None:
    """A column that a frame does not have is null there; types that cannot meet are named."""

    @asset
    def all_of_them(f: pl.DataFrame = collect(frame)) -> Chunk: ...

    def of(name: str, **columns: Any) -> Document:
        return encode(frame.output, pl.DataFrame(columns), name, "who")[0]

    given = await decode(only(all_of_them), reader, await keep(reader, [of("a", x=[1]), of("b", y=["z"], x=[2.5])]))
    assert given.to_dict(as_series=False) == {"x": [1.0, 2.5], "y": [None, "z"]}
    with pytest.raises(AssetcoreError, match=r"The frames of frame do not fit together for 'f'"):
        await decode(only(all_of_them), reader, await keep(reader, [of("a", x=[1]), of("b", x=["z"])]))


async def test_models_come_back_as_they_were(reader: Reader) -> None:
    """One model for each(), a list, a stream or a frame for collect()."""

    @asset
    def single(m: Summary = each(model)) -> Chunk: ...

    @asset
    def listed(m: list[Summary] = collect(model)) -> Chunk: ...

    @asset
    async def streaming(m: AsyncIterator[Summary] = collect(model)) -> Chunk: ...

    @asset
    def framed(m: pl.DataFrame = collect(model)) -> Chunk: ...

    first = Summary(
        count=1, tags={"b", "a"}, parts=[Part(text="é", at=datetime(2026, 1, 1, tzinfo=UTC))], price=Decimal("1.10"),
        took=timedelta(seconds=1.5), by_number={1: "x"},
    )  # fmt: skip
    models = [first, Summary(count=2)]
    stored = await keep(reader, [encode(model.output, m, f"unit-{i}", "who")[0] for i, m in enumerate(models)])
    assert await decode(only(single), reader, stored[:1]) == first
    assert await decode(only(listed), reader, stored) == models
    assert [m async for m in await decode(only(streaming), reader, stored)] == models
    given = await decode(only(framed), reader, stored)
    assert given["name"].to_list() == ["unit-0", "unit-1"]
    assert given["count"].to_list() == [1, 2]
    assert (await decode(only(framed), reader, [])).columns == given.columns


class Aliased(BaseModel):
    inner: int = Field(alias="outer")


async def test_a_model_with_aliases_comes_back(reader: Reader) -> None:
    """Names inside and outside of a model may differ."""

    @asset
    def aliased(topic: Topic = each(topics)) -> Aliased: ...

    @asset
    def single(m: Aliased = each(aliased)) -> Chunk: ...

    made = Aliased(outer=3)
    stored = await keep(reader, encode(aliased.output, made, "unit", "who"))
    assert await decode(only(single), reader, stored) == made


async def test_a_model_whose_class_has_changed_is_named(reader: Reader) -> None:
    """The error names the model and the field that no longer fits."""

    @asset
    def single(m: Summary = each(model)) -> Chunk: ...

    stored = await keep(reader, [Model(name="unit", data={"other": 1})])
    with pytest.raises(
        AssetcoreError, match=r"The stored Summary 'unit' does not fit its class any more: count: Field required"
    ):
        await decode(only(single), reader, stored)


def test_nothing_of_pandas_is_imported() -> None:
    """pandas takes its time to load; only a function that uses it pays. pyarrow imports it at the first `pa.array`."""
    program = """
        import asyncio, sys
        from datetime import UTC, datetime
        import polars as pl
        from assetcore.assets import Output, Table
        from assetcore.declarations import asset, collect, each, source
        from assetcore.documents import Document
        from assetcore.sources import folder
        from assetcore.storage import Bucket, Key, Location, Reader, Stored, encode_pack
        from assetcore.values import decode, encode

        class Rich(Document):
            number: int
            at: datetime
            words: list[str]
            extra: dict

        def keep(bucket, documents, key):
            asyncio.run(bucket.write(Key(key), encode_pack(documents)))
            return [Stored(Location(Key(key), i), d.name, d.media_type, d.sha256, len(d.content)) for i, d in enumerate(documents)]

        def many() -> list[Rich]: ...
        def framed() -> pl.DataFrame: ...
        many, framed = asset(many), asset(framed)
        def frame(f: pl.DataFrame = collect(many)) -> Rich: ...
        def lists(f: list[Rich] = collect(many)) -> Rich: ...
        def frames(f: pl.LazyFrame = collect(framed)) -> Rich: ...

        bucket = Bucket.open("memory://x")
        document = dict(text="x", number=1, at=datetime.now(UTC), words=["a"], extra={"a": 1})
        stored = keep(bucket, [Rich(name="a", **document), Rich(name="b", **document)], "rich")
        table = encode(framed.output, pl.DataFrame({"at": [datetime.now(UTC)], "c": ["x"]}), "t", "who")
        for asked, given in [(frame, stored[::-1]), (lists, stored[1:]), (frames, keep(bucket, table, "tables"))]:
            asyncio.run(decode(asset(asked).dependencies[0], Reader(bucket), given))
        asyncio.run(Reader(bucket).column(stored, "at"))
        print("pandas" in sys.modules)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=60)
    assert done.stdout == "False\n", done.stderr
