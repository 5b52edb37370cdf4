"""Documents: what is one, and when are two the same."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Mapping
from datetime import UTC, date, datetime
from enum import Enum
from typing import Any, ClassVar, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, ValidationError, field_validator

from assetcore.documents import (
    Document,
    UnreadableError,
    document_id,
    field_digest_at,
    field_digests,
    identity,
    projected_identity,
    restrict,
)
from assetcore.errors import AssetcoreError, DeclarationError


class Kind(Enum):
    CHAPTER = "chapter"
    PAGE = "page"


class Span(BaseModel):
    start: int
    end: int = 0


class Page(Document):
    """A page with a field of many a type."""

    title: str | None = None
    ordinal: int | str | None = None
    kind: Kind | None = None
    tags: list[str] = Field(default_factory=list)
    span: Span | None = None
    weights: dict[str, float] = Field(default_factory=dict)


class Leaf(Page):
    """A page of another type."""


class Html(Document, media_type="text/html"):
    lang: str = Field(default="en", alias="language")


FIELDS: Mapping[str, st.SearchStrategy[Any]] = {
    "title": st.sampled_from([None, "", "a", "ab", "None"]),
    "ordinal": st.sampled_from([None, 0, 1, "1", "0", ""]),
    "kind": st.sampled_from([None, *Kind]),
    "tags": st.sampled_from([[], [""], ["a", "b"], ["ab"], ["a", "", "b"]]),
    "span": st.sampled_from([None, Span(start=0), Span(start=1), Span(start=0, end=1)]),
    "weights": st.sampled_from([{}, {"a": 0.0}, {"a": -0.0}, {"b": 0.0}, {"a": 0.0, "b": 0.0}]),
}
names = st.sampled_from(["a", "b", "ab", "a/b", "a.txt"])
contents = st.sampled_from([b"", b"a", b"ab", b"b"])
media_types = st.sampled_from(["text/plain", "text/html", "application/json"])
pages = st.builds(
    lambda cls, name, content, media_type, fields: cls(name, content=content, media_type=media_type, **fields),
    st.sampled_from([Page, Leaf]), names, contents, media_types, st.fixed_dictionaries({}, optional=FIELDS),
)  # fmt: skip


def parts(document: Document) -> dict[str, str]:
    """All that a function can see, told apart as Python writes it."""
    own = {name: repr(getattr(document, name)) for name in document.field_names()}
    return {"name": repr(document.name), "media_type": document.media_type, "content": repr(document.content), **own}


def identified(document: Document) -> bytes:
    fields = field_digests(document.field_values())
    return identity(type(document).__name__, document.name, document.media_type, document.sha256, fields)


# -- what a document is --------------------------------------------------------------------------------------------------------


def test_a_document_is_text_data_or_bytes() -> None:
    """Exactly one of the three is given; it decides the media type unless the class or the caller does."""
    text, data, raw = Document("a", text="é"), Document("a", data={"b": [1], "a": "é"}), Document("a", content=b"\xff")
    assert (text.content, text.media_type) == ("é".encode(), "text/plain")
    assert (data.text, data.media_type) == ('{\n "a": "é",\n "b": [\n  1\n ]\n}', "application/json")
    assert (raw.content, raw.media_type) == (b"\xff", "application/octet-stream")
    assert data.data == {"a": "é", "b": [1]}
    assert Html("a", text="<p>").media_type == "text/html"
    assert Html("a", text="<p>", media_type="text/x").media_type == "text/x"
    assert Document("a", text="").content == Document("a", content=b"").content == b""
    assert Document("a", data=False).data is False


@pytest.mark.parametrize("given_parts", [{}, {"text": "", "content": b""}, {"text": "", "data": 1}, {"data": None}])
def test_more_or_less_than_one_content_is_an_error(given_parts: dict[str, Any]) -> None:
    """Nothing, or two of text, data and content, is refused with the number that was given."""
    with pytest.raises(AssetcoreError, match=r"Page\('a'\) was given [02] of text=, data= and content="):
        Page("a", **given_parts)


@pytest.mark.parametrize(
    ("given_parts", "problem"),
    [
        ({"text": b"x"}, "text= takes str"), ({"text": "\ud800"}, "text= takes str"), ({"data": b"x"}, "data= takes what JSON can hold"),
        ({"data": {1, 2}}, "data= takes what JSON"), ({"data": {1: 1, "1": 1}}, "data= takes what JSON"),
        ({"data": [float("nan")]}, "data= takes what JSON"), ({"content": 5}, "content: "), ({"text": "", "media_type": 5}, "media_type: "),
        ({"text": "", "title": 5}, "title: .*got 5"), ({"text": "", "titel": "x"}, "titel: Extra"), ({"text": "", "span": {}}, "start: "),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(given_parts: dict[str, Any], problem: str) -> None:
    """A value that cannot be a content or a field is refused with the class, the document's name and the part."""
    with pytest.raises(AssetcoreError, match=rf"Page\('a'\).*{problem}"):
        Page("a", **given_parts)


@pytest.mark.parametrize("name", ["", "a\nb", "a\x00", "\x7f", "\ud800", "é\x9f", "x" * 1025, "é" * 513, None, 5, b"a"])
def test_a_name_is_printable_text(name: Any) -> None:
    """Names are text of 1 to 1024 bytes without control characters; the error says what is wrong with this one."""
    with pytest.raises(AssetcoreError, match=r"The name .* of a Page (is|has)"):
        Page(name, text="")


@pytest.mark.parametrize(
    "name", ["a", " ", "x" * 1024, "é" * 512, "../a", "a/b", 'say "hi"', "🙂", "a\u200db", "日本.txt"]
)
def test_any_printable_name_will_do(name: str) -> None:
    """Spaces, quotes, emoji, slashes and length up to 1024 bytes are a user's choice."""
    assert Page(name, text="").name == name


def test_content_is_read_as_what_it_is() -> None:
    """Text and data of bytes that are neither are refused, naming the document."""
    with pytest.raises(AssetcoreError, match=r"Page 'a' is not UTF-8 text: byte 0xff at 1"):
        _ = Page("a", content=b"a\xff").text
    with pytest.raises(AssetcoreError, match="Page 'a' is not JSON"):
        _ = Page("a", text="{").data


def test_stem_suffix_and_label() -> None:
    """The stem and suffix are those of the last part of the name; the id is the first 30 bits of the content's hash."""
    page = Page("reference/with.tar.gz", text="")
    assert (page.stem, page.suffix) == ("with.tar", ".gz")
    assert (Page("README", text="").stem, Page("README", text="").suffix) == ("README", "")
    assert page.id == document_id(page.sha256) == "4oymiq"
    assert document_id(page.sha256, 8).startswith(page.id)
    assert repr(page) == str(page) == "Page('reference/with.tar.gz', 0 bytes, text/plain)"


def test_nothing_of_a_document_can_be_set() -> None:
    """A document's parts cannot be assigned or removed, and none can be added."""
    page = Page("a", text="x", title="t")
    for part in ("name", "content", "media_type", "title", "text", "other"):
        with pytest.raises((ValidationError, AttributeError)):
            setattr(page, part, "y")
        with pytest.raises((ValidationError, AttributeError)):
            delattr(page, part)
    assert page == Page("a", text="x", title="t")


@given(pages)
def test_a_document_survives_being_copied_pickled_and_stored(page: Page) -> None:
    """Copies, pickles and what is stored and read again are the same document."""
    stored = type(page).stored(page.name, page.content, page.media_type, page.field_values())
    for same in (copy.copy(page), copy.deepcopy(page), pickle.loads(pickle.dumps(page)), stored, page.model_copy()):
        assert type(same) is type(page)
        assert same == page
        assert parts(same) == parts(page)
        assert hash(same) == hash(page)
        assert identified(same) == identified(page)


def test_a_copy_with_other_content_has_its_hash() -> None:
    """Replacing parts gives a document that is checked, and hashed, as one that is made anew."""
    page = Page("a", text="x", title="t")
    before = page.sha256
    assert page.model_copy(update={"content": b"y"}).sha256 == Page("a", text="y").sha256 != before
    assert page.model_copy(update={"text": "y"}) == Page("a", text="y", title="t")
    assert page.model_copy(update={"data": [1]}).data == [1]
    assert page.model_copy(update={"name": "b"}) == Page("b", text="x", title="t")
    for wrong in ({"titel": "y"}, {"name": ""}, {"title": 5}, {"text": "y", "content": b"y"}):
        with pytest.raises(AssetcoreError):
            page.model_copy(update=wrong)


def test_deep_copies_share_nothing() -> None:
    """A deep copy has containers of its own."""
    page = Page("a", text="x", tags=["t"])
    page.model_copy(deep=True).tags.append("u")
    assert page.tags == ["t"]


# -- what a subclass may be ----------------------------------------------------------------------------------------------------


RESERVED = [
    "name", "content", "media_type", "text", "data", "stem", "suffix", "id", "sha256", "stored", "field_names", "field_values",
    "model_copy", "model_dump", "model_config", "fixed_media_type", "copy", "json", "schema",
]  # fmt: skip


def class_with(body: str) -> type[Document]:
    """A class of this body, declared in a module `below.py`."""
    scope: dict[str, Any] = {"__name__": "below"}
    head = "from __future__ import annotations\nimport typing\nfrom typing import *\nfrom pydantic import *\n"
    source = f"{head}from assetcore import Document\n\nclass Below(Document):\n    {body}\n"
    exec(compile(source, "/projects/below.py", "exec"), scope)
    return scope["Below"]


@pytest.mark.parametrize("name", RESERVED)
def test_a_field_cannot_hide_what_every_document_has(name: str) -> None:
    """A field named like something that documents have is refused where its class is declared: file, line, class and field."""
    with pytest.raises(DeclarationError, match=rf"^/projects/below.py:7: Below has a field '{name}'.*already"):
        class_with(f"{name}: str")


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("_hidden: int = 0", "has a private field '_hidden', which would not be stored"),
        ("model_config = ConfigDict(frozen=False)", "sets frozen=False"),
        ("model_config = {'extra': 'allow'}", "sets extra='allow'"),
    ],
)
def test_a_field_that_would_be_lost_is_refused(body: str, problem: str) -> None:
    """Private fields, fields that nobody declared, and fields that can be set would not be what is stored."""
    with pytest.raises(DeclarationError, match=rf"^/projects/below.py:7: Below {problem}"):
        class_with(body)


@pytest.mark.parametrize("body", ["limit: ClassVar[int] = 3", "_limit: typing.ClassVar[int] = 3", "def first(self): return self.text[0]",
                                  "names: list[str]", "texts: str = ''", "'A docstring.'"])  # fmt: skip
def test_what_is_no_field_or_hides_nothing_is_free(body: str) -> None:
    """Class variables, methods and fields of near names are the user's own."""
    assert issubclass(class_with(body), Document)


def test_a_field_cannot_hide_through_another_base() -> None:
    """A field that comes in by a second base class is found, too."""

    class Dated(BaseModel):
        id: str

    with pytest.raises(DeclarationError, match=r"test_documents.py:\d+: Event has a field 'id'"):

        class Event(Dated, Document): ...


@pytest.mark.parametrize("media_type", ["html", "", 5])
def test_a_media_type_has_two_parts(media_type: Any) -> None:
    """The media type of a class is written as type/subtype."""
    with pytest.raises(DeclarationError, match=r"test_documents.py:\d+: Below has media_type="):

        class Below(Document, media_type=media_type): ...


def test_fields_are_those_that_the_classes_add() -> None:
    """The typed fields are named in the order of their declaration, inherited ones first, without class variables."""

    class Longer(Html):
        limit: ClassVar[int] = 3
        words: int = 0

    assert Longer.field_names() == ("lang", "words")
    assert Document.field_names() == ()
    assert Longer("a", text="").media_type == "text/html"
    assert Longer("a", text="", words=2).field_values() == {"lang": "en", "words": 2}


def test_a_field_with_an_alias_is_stored_under_its_name() -> None:
    """An alias is one more way to give a field; what is stored comes back by its name."""
    page = Html("a", text="", language="de")
    assert page.lang == Html("a", text="", lang="de").lang == "de"
    assert Html.stored(page.name, page.content, page.media_type, page.field_values()) == page


def test_what_is_stored_and_does_not_fit_its_class_is_told_as_such() -> None:
    """A class that has changed, or whose own code fails, is named with the document, the field and the value."""

    class Careless(Document):
        size: int

        @field_validator("size")
        @classmethod
        def known(cls, size: int) -> int:
            return {1: 1}[size]

    with pytest.raises(UnreadableError, match=r"Careless\('a'\) does not fit its declaration: size: .* got 'x'"):
        Careless.stored("a", b"", "text/plain", {"size": "x"})
    with pytest.raises(UnreadableError, match=r"Careless\('a'\) does not fit its declaration: KeyError: 2"):
        Careless.stored("a", b"", "text/plain", {"size": 2})


@pytest.mark.parametrize("media_type", ["text/\0plain", "text/\ud800", "\n", "x" * 1025])
def test_a_media_type_that_cannot_be_kept_is_refused(media_type: str) -> None:
    """A header of the web that was taken over has anything in it: the error names class, document and media type."""
    with pytest.raises(AssetcoreError, match=r"^The media type '.* of Html\('a'\) (has control|is longer)"):
        Html("a", text="", media_type=media_type)
    assert Html("a", text="", media_type="text/plain; charset=utf-8").media_type == "text/plain; charset=utf-8"


# -- when two are the same -----------------------------------------------------------------------------------------------------


@given(pages, pages)
def test_two_documents_have_one_identity_exactly_when_a_function_sees_no_difference(one: Page, other: Page) -> None:
    """The identity holds type, name, media type, content and every field, told apart by type and boundary; and nothing else."""
    same = type(one) is type(other) and parts(one) == parts(other)
    assert (identified(one) == identified(other)) == same


@given(pages, pages, st.sets(st.sampled_from(["name", "media_type", "content", *FIELDS])))
def test_a_projected_identity_holds_exactly_what_is_chosen(one: Page, other: Page, chosen: set[str]) -> None:
    """P23: of two documents of one type, the projected identities differ exactly when a chosen part does."""

    def projected(page: Page) -> bytes:
        fields = field_digests(page.field_values())
        return projected_identity(
            "Page", page.name, page.media_type, page.sha256, fields, page.field_names(), frozenset(chosen)
        )

    same = all(parts(one)[part] == parts(other)[part] for part in chosen)
    assert (projected(one) == projected(other)) == same


@given(pages, st.sets(st.sampled_from(sorted(FIELDS))), st.sets(st.sampled_from(sorted(FIELDS))))
def test_other_choices_are_other_identities(page: Page, one: set[str], other: set[str]) -> None:
    """What is handed over differs where the choice does, whatever the values."""
    facts = ("Page", page.name, page.media_type, page.sha256, field_digests(page.field_values()), page.field_names())
    assert (projected_identity(*facts, frozenset(one)) == projected_identity(*facts, frozenset(other))) == (
        one == other
    )


def test_identities_stay_what_they_are() -> None:
    """Identities are kept in databases and buckets: these must not change between releases, platforms and Python versions."""
    page = Page("a", text="x", title="t", ordinal=1, kind=Kind.PAGE, tags=["u"], span=Span(start=1), weights={"w": 0.5})
    fields = field_digests(page.field_values())
    assert fields.hex()[:32] == KIND_DIGEST
    assert identified(page).hex() == IDENTITY
    chosen = frozenset({"name", "title"})
    assert (
        projected_identity("Page", "a", "text/plain", page.sha256, fields, Page.field_names(), chosen).hex()
        == PROJECTED
    )


KIND_DIGEST = "a6525f9a9ac71381ee9b10cf6801ca05"
IDENTITY = "86532240cadefeb2688a16c4fe46db5095e5329435c2cf991a3557214598d853"
PROJECTED = "49e6d7eb7474eb034d8ba55b50287648acf61160c01fdc65d6139e4f52889891"


@given(pages)
def test_the_order_in_which_fields_are_declared_says_nothing(page: Page) -> None:
    """Digests of fields stand in the order of their names, each at a place that follows from the names alone."""
    values = page.field_values()
    digests = field_digests(values)
    assert digests == field_digests(dict(reversed(values.items())))
    for name, value in values.items():
        place = field_digest_at(reversed(list(values)), name)
        assert digests[place : place + 16] == field_digests({name: value})


def test_where_a_document_comes_from_is_no_part_of_it() -> None:
    """Documents of equal parts are equal, however they came to be; of unequal types they are not."""
    assert identified(Page("a", text="1")) == identified(Page("a", data=1, media_type="text/plain"))
    assert Page("a", text="1") != Leaf("a", text="1")
    assert Page("a", text="1") == Page("a", data=1, media_type="text/plain")
    assert len({Page("a", text="1"), Page("a", text="1"), Leaf("a", text="1")}) == 2


class Word(str):
    """Text of another class."""


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from([Word("a"), 1 << 70, -0.0, 1e16]),
    lambda some: st.lists(some) | st.dictionaries(st.text() | st.integers(0, 1), some) | st.tuples(some),
    max_leaves=8,
)


@given(plain)
def test_data_is_written_as_json_writes_it(value: Any) -> None:
    """The content is, byte for byte, what `json.dumps` makes of it; what that refuses is refused."""
    try:
        wanted = json.dumps({"a": value}, sort_keys=True, ensure_ascii=False, allow_nan=False, indent=1).encode()
    except (TypeError, ValueError):
        with pytest.raises(AssetcoreError, match="data= takes what JSON can hold"):
            Page("a", data={"a": value})
    else:
        assert Page("a", data={"a": value}).content == wanted


def test_data_that_holds_itself_is_refused() -> None:
    """What would be written without an end is told."""
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(AssetcoreError, match=r"data= takes what JSON can hold: Circular"):
        Page("a", data=endless)


# -- some of a document --------------------------------------------------------------------------------------------------------


@given(pages, st.sets(st.sampled_from(["name", "media_type", "content", *FIELDS])))
def test_a_restricted_document_has_just_what_was_chosen(page: Page, chosen: set[str]) -> None:
    """Chosen parts are as they were; touching any other says which are handed over and how to have it."""
    some = restrict(page, frozenset(chosen))
    assert isinstance(some, Page)
    for part in ("name", "media_type", "content", *FIELDS):
        if part in chosen:
            assert repr(getattr(some, part)) == repr(getattr(page, part))
        else:
            with pytest.raises(AssetcoreError, match=rf"{part} is not handed over[\s\S]*Add '{part}' to fields="):
                getattr(some, part)
    assert repr(some).startswith(type(page).__name__)


@pytest.mark.parametrize(("derived", "needs"), [("stem", "name"), ("suffix", "name"), ("text", "content"), ("data", "content"),
                                                ("sha256", "content"), ("id", "content")])  # fmt: skip
def test_what_is_derived_of_a_hidden_part_is_hidden(derived: str, needs: str) -> None:
    """What follows from a part is there exactly when that part is."""
    page = Page("a.txt", text="1")
    assert getattr(restrict(page, frozenset({needs})), derived) == getattr(page, derived)
    with pytest.raises(AssetcoreError, match=f"Page.{needs} is not handed over"):
        getattr(restrict(page, frozenset({"title"})), derived)


def test_fields_of_every_plain_type_have_a_digest() -> None:
    """Dates, bytes, literals, sets, tuples, nested models and dictionaries of them can be fields."""

    class Many(Document):
        at: datetime = datetime(2026, 1, 1, tzinfo=UTC)
        on: date = date(2026, 1, 1)
        raw: bytes = b""
        choice: Literal["a", "b"] = "a"
        some: frozenset[int] = frozenset({1, 2})
        pair: tuple[int, Span] = (1, Span(start=1))
        deep: dict[str, list[Span]] = Field(default={"a": [Span(start=1)]})

    assert len(field_digests(Many("a", text="").field_values())) == 16 * 7
