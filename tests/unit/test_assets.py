"""Assets: what does a user declare, and which mistakes are found before anything runs."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from pydantic import BaseModel

from assetcore.assets import Asset, Source, Table
from assetcore.declarations import asset, collect, each, source
from assetcore.documents import Document
from assetcore.errors import DeclarationError
from assetcore.graph import Graph
from tests.unit.declared import PAGES, Page, Part

HEAD = """
import functools, typing
from typing import Annotated, Any, Optional
from collections.abc import AsyncIterator, Iterator, Sequence
import pandas as pd
import polars as pl
import pyarrow as pa
from pydantic import BaseModel
from assetcore import Document, asset, collect, each, folder, source

class Page(Document):
    lang: str = "en"

class Other(Document): ...
class Limits(BaseModel):
    size: int = 10

class Card(BaseModel):
    title: str

pages = source("pages", Page, folder("data"))

@asset
async def parts(page: Page = each(pages)) -> list[Page]: ...
@asset
async def table(page: Page = each(pages)) -> pl.DataFrame: ...
@asset
async def card(page: Page = each(pages)) -> Card: ...
@asset
async def other(page: Page = each(pages)) -> Other: ...
"""
FIRST = HEAD.count("\n") + 1
futures = pytest.mark.parametrize("future", ["", "from __future__ import annotations"], ids=["evaluated", "as text"])


def declared(body: str, future: str = "") -> dict[str, Any]:
    """What a module `demo.py` with this body declares; the body begins at line `FIRST`."""
    scope: dict[str, Any] = {"__name__": "demo"}
    exec(compile(future + HEAD + body.strip("\n"), "/projects/demo.py", "exec"), scope)
    return scope


def load(body: str, future: str = "") -> Graph:
    """The graph of that module."""
    return Graph("demo", [value for value in declared(body, future).values() if isinstance(value, Asset)])


PARAMETERS: list[tuple[str, str, str]] = [
    # the parameters of an asset, what is wrong, what helps
    ("page: Page", "does not say where the Page in 'page' comes from.", "Write page: Page = each(...)."),
    ("page: Page = each", "does not say where the Page in 'page' comes from.", "each(...)"),
    ("page: Page = pages", "has the asset pages itself as the default of 'page'.", "each(pages) or collect(pages)"),
    ("page: Page = each('pages')", "asks each('pages') for 'page', which is not an asset", "not its name: each(pages)"),
    ("page: list[Page] = collect(5)", "asks collect(5) for 'page', which is not an asset", "Declare it first"),
    ("page: Page = each(pages), m: list[Page] = collect(parts, per='pages')",
     "asks per=('pages') for 'm', which is not an asset", "not its name: per=(pages)"),
    ("limit: int = 5", "takes 'limit' (int), which is neither a dependency nor config.", "pydantic BaseModel"),
    ("limit", "takes 'limit' (no annotation), which is neither a dependency nor config.", "pydantic BaseModel"),
    ("limits: BaseModel", "takes 'limits' (BaseModel), which is neither", "pydantic BaseModel"),
    ("limits: Limits | None = None", "takes 'limits' (", "pydantic BaseModel"),
    ("limits: Limits = 5", "takes 'limits' (Limits), which is neither", "pydantic BaseModel"),
    ("*pages: Page", "takes *pages", "a parameter with a name of its own"),
    ("**pages: Page", "takes **pages", "a parameter with a name of its own"),
    ("page: Page = each(pages), /", "takes page: ", "a parameter with a name of its own"),
    ("page = each(pages)", "has no annotation on 'page', but each(pages) hands over Page.", "Write page: Page = ..."),
    ("page: str = each(pages)", "has the annotation str on 'page', but each(pages) hands over Page.", "page: Page"),
    ("page: Any = each(pages)", "has the annotation Any on 'page', but each(pages) hands over Page.", "page: Page"),
    ("page: Other = each(pages)", "has the annotation Other on 'page', but each(pages)", "page: Page"),
    ("page: list[Page] = each(pages)", "has the annotation list[demo.Page] on 'page', but each(pages)", "page: Page"),
    ("page: Page | None = each(pages)", "has the annotation demo.Page | None on 'page'", "page: Page"),
    ("page: BaseModel = each(pages)", "has the annotation BaseModel on 'page'", "page: Page"),
    ("page: Limits = each(pages)", "has the annotation Limits on 'page'", "page: Page"),
    ("page: pl.DataFrame = each(pages)", "has the annotation DataFrame on 'page'", "page: Page"),
    ("page: Page = each(table)", "has the annotation Page on 'page', but each(table) hands over a frame", "page: polars.DataFrame"),
    ("page: Page = each(card)", "has the annotation Page on 'page', but each(card) hands over Card.", "page: Card"),
    ("page: Limits = each(card)", "has the annotation Limits on 'page', but each(card) hands over Card.", "page: Card"),
    ("page: Page = collect(pages)", "has the annotation Page on 'page', but collect(pages) hands over list[Page]", "page: list[Page]"),
    ("page = collect(pages)", "has no annotation on 'page', but collect(pages) hands over list[Page]", "list[Page]"),
    ("page: list = collect(pages)", "has the annotation list on 'page'", "page: list[Page]"),
    ("page: list[Any] = collect(pages)", "Any] on 'page'", "page: list[Page]"),
    ("page: list[str] = collect(pages)", "has the annotation list[str] on 'page'", "page: list[Page]"),
    ("page: list[Other] = collect(pages)", "has the annotation list[demo.Other] on 'page'", "page: list[Page]"),
    ("page: Sequence[Page] = collect(pages)", "Sequence[demo.Page] on 'page'", "page: list[Page]"),
    ("page: dict[str, Page] = collect(pages)", "has the annotation dict[", "page: list[Page]"),
    ("page: Iterator[Page] = collect(pages)", "Iterator[demo.Page] on 'page'", "page: list[Page]"),
    ("page: list[Page] = collect(table)", "but collect(table) hands over a frame.", "page: polars.DataFrame"),
    ("page: list[Page] = collect(card)", "but collect(card) hands over list[Card]", "page: list[Card]"),
    ("page: Page = each(pages), m: list[Page] = collect(parts, per=other)",
     "takes collect(parts, per=other) in 'm' without each(other) beside it.", "Add a parameter with each(other)."),
    ("m: list[Page] = collect(parts, per=pages)", "in 'm' without each(pages) beside it.", "each(pages)"),
    ("o: Other = each(other), m: list[Page] = collect(parts, per=other)",
     "takes collect(parts, per=other) in 'm', but parts does not descend from other", "parts descend from: pages."),
    ("m: list[Page] = collect(pages, by='size')", "groups 'm' by 'size', but Page has no such typed field.", "It has: lang."),
    ("m: list[Page] = collect(pages, by='name')", "groups 'm' by 'name', but Page has no such typed field.", "It has: lang."),
    ("m: list[Card] = collect(card, by='title')", "groups 'm' by 'title', but Card has no such", "It has: none."),
    ("m: list[Page] = collect(pages, by='lang'), page: Page = each(pages)",
     "mixes collect(by='lang') in 'm' with each() in 'page'.", "Group in one asset"),
    ("m: list[Page] = collect(pages, by='lang'), n: list[Page] = collect(pages, by='lang')",
     "has two parameters with by=.", "in one parameter"),
    ("page: Page = each(pages), m: list[Page] = collect(parts, per=pages, by='lang')", "gives 'm' both per= and by=.", "Choose one"),
    ("a: Page = each(parts), b: Other = each(other)",
     "asks each(parts) and each(other), but neither descends from the other", "cross=True"),
    ("a: Page = each(parts, cross=True)", "has only 'a' as each(), with cross=True.", "on the second each()"),
    ("a: Page = each(pages, fields=['size'])",
     "asks for the field 'size' of pages in 'a', which Page does not have.", "It has: text, data, name, media_type, content, lang."),
    ("a: Page = each(pages, fields='text')", "has fields='text' on 'a', which takes a list.", "fields=['text']"),
    ("a: pl.DataFrame = each(table, fields=['name'])", "has fields= on 'a', but table makes no documents", "Leave fields= out"),
    ("page: 'Pgae' = each(pages)", "has an annotation that cannot be evaluated: name 'Pgae'", "Import or define"),
]  # fmt: skip
RESULTS: list[tuple[str, str, str]] = [
    # how the definition of an asset goes on after its parameters, what is wrong, what helps
    (": ...", "does not say what it returns.", "Return a Document subclass"),
    (" -> None: ...", "does not say what it returns.", "Return a Document subclass"),
    (" -> str: ...", "returns str.", "Loose text or bytes have no name"),
    (" -> bytes: ...", "returns bytes.", "wrap them in a Document"),
    (" -> Any: ...", "returns Any.", "Return a Document subclass"),
    (" -> dict: ...", "returns dict.", "a pydantic model"),
    (" -> BaseModel: ...", "returns BaseModel.", "a pydantic model"),
    (" -> Document: ...", "returns Document itself.", "Subclass it"),
    (" -> list[Document]: ...", "returns Document itself.", "Subclass it"),
    (" -> Document | None: ...", "returns Document itself.", "Subclass it"),
    (" -> list: ...", "returns list", "list[...]"),
    (" -> list[str]: ...", "returns list[str]: its members are not documents.", "Name what they are."),
    (" -> list[Card]: ...", "returns list[demo.Card]: its members are not documents.", "Name"),
    (" -> list[Page | Other]: ...", "its members are not documents.", "Name what they are."),
    (" -> tuple[Page, Page]: ...", "returns tuple[demo.Page, demo.Page].", "list[...]"),
    (" -> set[Page]: ...", "returns set[demo.Page].", "list[...]"),
    (" -> Page | Other: ...", "returns demo.Page | demo.Other.", "only with None"),
    (" -> Optional[str]: ...", "returns ", "only with None"),
    (" -> list[Page] | None: ...", "returns list[demo.Page] | None.", "only with None"),
    (" -> Page: yield page", "is annotated with Page, but yields.", "AsyncIterator[...]"),
    (" -> Page | None: yield page", "but yields.", "AsyncIterator[...]"),
    (" -> list[Page]: yield page", "is annotated with list[demo.Page], but yields.", "Iterator[...]"),
    (" -> pl.DataFrame: yield page", "but yields.", "Iterator[...]"),
    (" -> AsyncIterator: yield page", "but yields.", "AsyncIterator[...]"),
    (" -> AsyncIterator[str]: yield page", "its members are not documents.", "Name what they are."),
    (" -> AsyncIterator[Page]: return page", "but does not yield.", "list[...]"),
    (" -> Iterator[Page]: yield page", "Iterator[demo.Page].", "async def yields AsyncIterator"),
    (" -> 'list[': ...", "has an annotation that cannot be evaluated", "Import or define"),
]  # fmt: skip
FUNCTIONS: list[tuple[str, str, str]] = [
    ("def x(page: AsyncIterator[Page] = collect(pages)) -> Page: ...",
     "takes an AsyncIterator in 'page', but is not async.", "Make it async def"),
    ("def x(page: Page = each(pages)) -> AsyncIterator[Page]: yield page", "AsyncIterator[demo.Page].", "def yields Iterator[...]"),
]  # fmt: skip
MISTAKES = [
    *((f"async def x({parameters}) -> Page: ...", *rest) for parameters, *rest in PARAMETERS),
    *((f"async def x(page: Page = each(pages)){result}", *rest) for result, *rest in RESULTS),
    *FUNCTIONS,
]


@futures
@pytest.mark.parametrize(("function", "problem", "fix"), MISTAKES, ids=[m[0] for m in MISTAKES])
def test_a_mistake_is_found_when_the_graph_is_built(function: str, problem: str, fix: str, future: str) -> None:
    """Every mistake names file, line and asset, what was found, what was expected, and what to write."""
    with pytest.raises(DeclarationError) as found:
        load(f"@asset\n{function}", future)
    assert found.value.message.startswith(f"/projects/demo.py:{FIRST}: x "), found.value.message
    assert problem in found.value.message
    assert fix in str(found.value.hint)


OPTIONS: list[tuple[str, str]] = [
    ("sensitivity='secret'", "has sensitivity='secret', which is not \"public\", \"internal\", \"confidential\" or \"restricted\"."),
    ("anonymises=1", "has anonymises=1, which is not True or False."),
    ("kinds='llm'", "has kinds='llm', which is not a list of texts."),
    ("tag=['a']", "has no option 'tag'."), ("retry=3", "has no option 'retry'."), ("partitions=1", "has partitions=1, which is not Daily("),
    ("freshness=60", "has freshness=60, which is not a length of time"),
    ("freshness='999999d'", "has freshness='999999d', which is not a length of time up to"),
    ("freshness='soon'", "has freshness='soon', which is not"),
    ("tags='a'", "has tags='a', which is not a list of texts."), ("models='m'", "has models='m', which is not a list of texts."),
    ("tags=[1]", "has tags=[1], which is not a list of texts."), ("tags=None", "has tags=None, which is not a list of texts."),
    ("models=['']", "has models=[''], which is not a list of texts."), ("name=5", "has name=5, which is not a Python identifier."),
    ("group=''", "has group='', which is not a text without /."), ("group='a/b'", "has group='a/b', which is not a text without /."),
    ("group=None", "has group=None, which is not a text without /."), ("owner=5", "has owner=5, which is not a text."),
    ("version=2", "has version=2, which is not a text, such as"), ("version=''", "has version='', which is not a text, such as"),
    ("retries=-1", "has retries=-1, which is not a whole number, 0 or more."), ("retries='3'", "has retries='3', which is not"),
    ("retries=True", "has retries=True, which is not"), ("retries=1.5", "has retries=1.5, which is not"),
    ("retries=float('inf')", "has retries=inf, which is not"),
    ("timeout=0", "has timeout=0, which is not a number of seconds above 0."), ("timeout='3'", "has timeout='3', which is not"),
    ("concurrency=0", "has concurrency=0, which is not a whole number, 1 or more."), ("layout='pack'", "has layout='pack', which is not"),
    ("renamed_from=5", "has renamed_from=5, which is not the name that an asset had."),
]  # fmt: skip


@pytest.mark.parametrize(("option", "problem"), OPTIONS, ids=[o[0] for o in OPTIONS])
def test_a_wrong_option_is_found_where_it_stands(option: str, problem: str) -> None:
    """An option that does not exist, or has a value that it does not take, names the asset, the option and what it takes."""
    with pytest.raises(DeclarationError) as found:
        declared(f"@asset({option})\nasync def x(page: Page = each(pages)) -> Page: ...")
    assert found.value.message.startswith(f"/projects/demo.py:{FIRST}: @asset of x {problem}"), found.value.message


def test_a_wrong_option_says_what_there_is() -> None:
    """Who mistypes an option is told all of them; who gives a text for a list, how to write it."""
    with pytest.raises(DeclarationError, match=r"It has: name, tags, kinds, group, owner"):
        declared("@asset(tagz=[])\nasync def x() -> Page: ...")
    with pytest.raises(DeclarationError, match=r"Write tags=\['daily'\]"):
        declared("@asset(tags='daily')\nasync def x() -> Page: ...")


@pytest.mark.parametrize(
    ("option", "instead"),
    [
        ("checks=[]", "write @check(asset) above its function"),
        ("each=pages", "the default value of a parameter: page: Page = each(pages)"),
        ("collect=pages", "the default value of a parameter: words: list[Word] = collect(words)"),
        ("bucket='primary'", "which is the setting storage_url"),
    ],
)
def test_what_is_said_otherwise_is_told_how(option: str, instead: str) -> None:
    """Who gives as an option what is declared in another way is told that way."""
    with pytest.raises(DeclarationError, match=f"has no option '{option.partition('=')[0]}'") as found:
        declared(f"@asset({option})\nasync def x(page: Page = each(pages)) -> Page: ...")
    assert instead in (found.value.hint or "")


AT_ONCE: list[tuple[str, str]] = [
    ("asset(lambda page=each(pages): page)", "a lambda cannot be an asset"),
    ("asset('x')", "@asset goes on a function, found 'x'."),
    ("asset(5)", "@asset goes on a function, found 5."),
    ("asset(functools.partial(print))", "@asset goes on a function, found functools.partial("),
    ("asset(parts)", "@asset goes on a function, found an asset (<asset parts at /projects/demo.py:"),
    ("@asset\nclass X: ...", "@asset goes on a function, found <class 'demo.X'>."),
    ("@asset(name='a-b')\nasync def x() -> Page: ...", "'a-b' cannot be the name of an asset."),
    ("@asset(name='a b')\nasync def x() -> Page: ...", "'a b' cannot be the name of an asset."),
    ("@asset(name='" + "a" * 101 + "')\nasync def x() -> Page: ...", "cannot be the name of an asset."),
    ("@asset\nasync def Not() -> Page: ...", "'Not' cannot be the name of an asset: selections have that word"),
    ("source('and', Page, folder('data'))", "'and' cannot be the name of an asset: selections have that word"),
    ("@asset(timeout=3)\ndef x() -> Page: ...", "x has a timeout, but is not async"),
    ("@asset(models=['judge'])\ndef x() -> Page: ...", "x declares models (judge), but is not async"),
    ("@asset(renamed_from='x')\nasync def x() -> Page: ...", "x was renamed from its own name."),
    ("source('a b', Page, folder('data'))", "'a b' cannot be the name of an asset."),
    ("source('more', str, folder('data'))", "source 'more' needs a Document subclass, found <class 'str'>."),
    ("source('more', Page(name='a', text=''), folder('data'))", "source 'more' needs a Document subclass, found Page('a'"),
    ("source('more', Page, 'data')", "source 'more' cannot be observed: 'data' is neither"),
    ("source('more', Page, folder('data'), tags='a')", "source 'more' has tags='a', which is not a list of texts."),
    ("source('more', Page, folder('data'), group='a/b')", "source 'more' has group='a/b', which is not a text without /."),
]  # fmt: skip


@pytest.mark.parametrize(("body", "problem"), AT_ONCE, ids=[b[0].splitlines()[0][:60] for b in AT_ONCE])
def test_what_cannot_be_an_asset_at_all_is_found_at_once(body: str, problem: str) -> None:
    """What is no function, has no usable name or cannot be observed is refused on the line that declares it."""
    with pytest.raises(DeclarationError) as found:
        declared(body)
    assert re.match(rf"/projects/demo.py:({FIRST}|{FIRST + 1}): ", found.value.message), found.value.message
    assert problem in found.value.message


def test_a_name_is_one_however_its_accents_are_written() -> None:
    """An accent that is a character of its own, as an editor or a file may have it, makes no other asset."""
    scope = declared(
        "@asset(name='e\\u0301tude')\nasync def x() -> Page: ...\nmore = source('re\\u0301gion', Page, folder('data'))"
    )
    assert (scope["x"].name, scope["more"].name) == ("étude", "région")


def test_a_source_reads_by_a_generator_without_parameters() -> None:
    """What reads a source is an async generator function that can be called as it is; of files, every field has a default."""
    head = "class Event(Document):\n    kind: str\n"
    with pytest.raises(DeclarationError, match=r"is observed by calling read, which takes \(day\)"):
        declared(head + "async def read(day):\n    yield 1\nsource('events', Event, read)")
    with pytest.raises(DeclarationError, match="neither a folder"):
        declared(head + "def read():\n    yield 1\nsource('events', Event, read)")
    with pytest.raises(DeclarationError, match="cannot fill the required field 'kind' of Event"):
        declared(head + "source('events', Event, folder('data'))")
    assert (
        declared(head + "async def read():\n    yield 1\nevents = source('events', Event, read)")[
            "events"
        ].type.__name__
        == "Event"
    )


def test_a_decorator_that_hides_async_is_found() -> None:
    """A coroutine that a plain wrapper returns would never be awaited; an async wrapper is fine, one without a signature is not."""
    plain = """
def {kind}logged(function):
    @functools.wraps(function)
    {kind}def call(*args, **kwargs): return function(*args, **kwargs)
    return call

@asset
@logged
async def x(page: Page = each(pages)) -> Page: ...
"""
    with pytest.raises(DeclarationError, match="x is async below a decorator that is not"):
        declared(plain.replace("{kind}def call", "def call").replace("{kind}", ""))
    assert load(plain.replace("{kind}def call", "async def call").replace("{kind}", "")).assets["x"].asynchronous
    with pytest.raises(DeclarationError, match=r"call takes \*args"):
        load(plain.replace("    @functools.wraps(function)\n", "").replace("{kind}", ""))


def test_all_mistakes_are_told_together() -> None:
    """One load names every mistake of every asset, each once, also of those that are made of a mistaken one."""
    with pytest.raises(DeclarationError) as found:
        load("""
@asset
async def one(page: str = each(pages)) -> Page: ...
@asset
async def two(page: Page = each(pages)) -> str: ...
@asset
async def three(page: Page = each(two)) -> Page: ...
""")
    assert [line.split(": ")[1].split()[0] for line in found.value.message.splitlines() if "demo.py" in line] == [
        "one",
        "two",
    ]
    assert found.value.hint == "2 mistakes in the declarations."


# -- what is right -------------------------------------------------------------------------------------------------------------


RIGHT = [
    ("async def x(page: Page = each(pages)) -> Page: ...", "document"),
    ("async def x(page: Document = each(pages)) -> Page: ...", "document"),
    ("async def x(page: Annotated[Page, 'a note'] = each(pages)) -> Annotated[Page, 'a note']: ...", "document"),
    ("async def x(*, page: Page = each(pages)) -> Page: ...", "document"),
    ("async def x(card: Card = each(card)) -> Page: ...", "document"),
    ("async def x(rows: pl.DataFrame = each(table)) -> Page: ...", "document"),
    ("async def x(page: Page = each(pages)) -> Page | None: ...", "document"),
    ("async def x(page: Page = each(pages)) -> Optional[Page]: ...", "document"),
    ("def x(page: Page = each(pages)) -> list[Page]: ...", "document"),
    ("def x(page: Page = each(pages)) -> typing.List[Page]: ...", "document"),
    ("def x(page: Page = each(pages)) -> Iterator[Page]: yield page", "document"),
    ("async def x(page: Page = each(pages)) -> AsyncIterator[Page]: yield page", "document"),
    ("async def x(page: Page = each(pages)) -> Card: ...", "model"),
    ("async def x(rows: pl.LazyFrame = collect(pages)) -> pl.LazyFrame: ...", "table"),
    ("async def x(rows: pd.DataFrame = collect(pages)) -> pd.DataFrame: ...", "table"),
    ("async def x(rows: pa.Table = collect(table)) -> pa.Table: ...", "table"),
    ("async def x(m: AsyncIterator[Page] = collect(pages)) -> Page: ...", "document"),
    ("async def x(m: list[Document] = collect(pages)) -> Page: ...", "document"),
    ("async def x(m: list[Page] = collect(pages, by='lang')) -> Page: ...", "document"),
    ("async def x(page: Page = each(pages), m: list[Page] = collect(parts, per=pages)) -> Page: ...", "document"),
    ("async def x(page: Page = each(pages), part: Page = each(parts)) -> Page: ...", "document"),
    ("async def x(part: Page = each(parts), o: Other = each(other, cross=True)) -> Page: ...", "document"),
    ("async def x(limits: Limits, page: Page = each(pages, fields=['text', 'lang'])) -> Page: ...", "document"),
    ("async def x(page: Page = each(pages), limits: Limits = Limits(size=3)) -> Page: ...", "document"),
    ("async def x() -> Page: ...", "document"),
]  # fmt: skip


@futures
@pytest.mark.parametrize(("function", "form"), RIGHT, ids=[r[0].partition("(")[2] for r in RIGHT])
def test_every_form_of_a_declaration_is_understood(function: str, form: str, future: str) -> None:
    """Each documented form of inputs and results loads, whether annotations are evaluated or text."""
    declared_asset = load(f"@asset\n{function}", future).assets["x"]
    assert declared_asset.output.form == form
    assert declared_asset.place.line == FIRST
    assert declared_asset.asynchronous == function.startswith("async")


def test_forms_follow_from_annotations() -> None:
    """The annotation of a parameter says how its documents are handed over, that of the result what is stored."""

    class Limits(BaseModel):
        size: int = 10

    three = Limits(size=3)

    @asset
    async def cut(page: Page = each(PAGES, fields=["text", "name"])) -> list[Part]: ...

    @asset
    async def report(
        limits: Limits,
        page: Page = each(PAGES),
        one: list[Part] = collect(cut, per=PAGES),
        two: AsyncIterator[Part] = collect(cut),
        lazy: pl.LazyFrame = collect(cut),
        four: pd.DataFrame = collect(cut),
        five: pa.Table = collect(cut),
        more: Limits = three,
    ) -> AsyncIterator[Part]:
        yield Part("a", text="")

    assert [d.form for d in report.dependencies] == ["document", "list", "iterator", "polars-lazy", "pandas", "arrow"]
    assert [d.type for d in report.dependencies] == [Page, Part, Part, None, None, None]
    assert [d.per for d in report.dependencies] == [None, PAGES, None, None, None, None]
    assert [(c.parameter, c.model, c.default) for c in report.configs] == [
        ("limits", Limits, None),
        ("more", Limits, Limits(size=3)),
    ]
    assert (report.output.type, report.output.many, report.output.stream) == (Part, True, True)
    assert report.upstreams == (PAGES, cut)
    assert cut.dependencies[0].fields == {"content", "name"}
    assert (cut.output.many, cut.output.stream, cut.output.optional) == (True, False, False)


def test_shapes_tell_apart_what_a_function_is_handed() -> None:
    """The shape of a dependency differs with parameter, kind, form, fields and grouping, and not with who made the documents."""
    other = source("other", Part, PAGES.where)
    parts = source("parts", Part, PAGES.where)

    def shape(annotation: Any, default: Any) -> Any:
        async def x(value: Any = default) -> Part: ...

        x.__annotations__["value"] = annotation
        return asset(x).dependencies[0].shape

    shapes = [
        shape(Part, each(parts)), shape(Part, each(parts, fields=[])), shape(Part, each(parts, fields=["name"])),
        shape(Part, each(parts, fields=["name", "text"])), shape(list[Part], collect(parts)), shape(pl.DataFrame, collect(parts)),
        shape(pl.LazyFrame, collect(parts)), shape(list[Part], collect(parts, by="kind")), shape(list[Part], collect(parts, by="weight")),
    ]  # fmt: skip
    assert len({repr(one) for one in shapes}) == len(shapes)
    assert shape(Part, each(parts)) == shape(Part, each(other))

    @asset
    async def cut(page: Page = each(PAGES)) -> list[Part]: ...

    @asset
    async def some(page: Page = each(PAGES), parts: list[Part] = collect(cut, per=PAGES)) -> Part: ...

    @asset
    async def all_of_them(page: Page = each(PAGES), parts: list[Part] = collect(cut)) -> Part: ...

    assert some.dependencies[1].shape != all_of_them.dependencies[1].shape
    assert shape(Part, each(parts, fields=["text", "name"])) == shape(
        Part, each(parts, fields=["name", "content", "data"])
    )


def test_names_that_are_only_known_where_it_is_declared_are_found() -> None:
    """Annotations as text may name classes of the function in which the asset is declared."""

    class Local(Document):
        """Known here only."""

    found = source("found", Local, PAGES.where)

    @asset
    async def bare(page: Local = each(found)) -> Local: ...

    @asset(tags=["local"])
    async def with_options(page: Local = each(found)) -> Local: ...

    assert bare.output.type is with_options.output.type is Local


# -- an asset stays a function -------------------------------------------------------------------------------------------------


async def test_calling_an_asset_calls_its_function() -> None:
    """`await clean(Page(...))` and `cut(Page(...))` are ordinary calls, by position or by name, with ordinary defaults."""

    @asset
    async def clean(page: Page = each(PAGES)) -> Page:
        """Text without white space."""
        return Page(page.name, text=page.text.strip())

    @asset
    def cut(page: Page = each(PAGES), limits: Page = Page("limit", text="1")) -> Iterator[Part]:  # noqa: B008 - frozen
        yield Part(page.name, text=limits.text)

    assert (await clean(Page("a", text=" x "))).text == (await clean(page=Page("a", text=" x "))).text == "x"
    assert [part.text for part in cut(Page("a", text=""))] == ["1"]
    assert (clean.__name__, clean.__doc__, clean.__module__) == ("clean", "Text without white space.", __name__)


def test_calling_without_an_input_says_which_is_missing() -> None:
    """A dependency stands in a default value, which is no document: leaving it out of a call is an error that names it."""

    @asset
    def joined(page: Page = each(PAGES), all_pages: list[Page] = collect(PAGES)) -> Page:
        return page

    with pytest.raises(TypeError, match=r"joined\(\) needs a value for 'page' when it is called"):
        joined()
    with pytest.raises(TypeError, match=r"joined\(\) needs a value for 'all_pages'"):
        joined(Page("a", text=""))
    with pytest.raises(TypeError, match="unexpected keyword argument 'pgae'"):
        joined(pgae=Page("a", text=""))  # pyright: ignore[reportCallIssue] - the mistake under test
    with pytest.raises(TypeError, match="pages is a source: it is observed, not called"):
        PAGES()


def test_declaring_registers_nothing_and_keeps_what_was_said() -> None:
    """Options are kept as given; a description is the first paragraph of the docstring unless one is given."""

    @asset(
        tags=["a", "b"],
        group="books",
        owner="ada",
        models=["m"],
        version="2",
        retries=3.0,
        concurrency=2.0,
        layout="files",
    )
    async def report() -> Part:
        """What there
        is.

        And more.
        """

    assert (report.tags, report.group, report.options.owner, report.options.models) == (
        ("a", "b"),
        "books",
        "ada",
        ("m",),
    )
    assert (report.options.version, report.options.retries, report.options.concurrency) == ("2", 3, 2)
    assert (type(report.options.retries), type(report.options.concurrency)) == (int, int)
    assert report.description == "What there is."
    assert asset(description="Other.")(report.function).description == "Other."
    assert PAGES.description == "A page."
    assert (report.kind, PAGES.kind, isinstance(PAGES, Source)) == ("asset", "source", True)
    assert re.fullmatch(r"<asset report at .*test_assets.py:\d+>", repr(report))


def test_frames_are_stored_as_tables() -> None:
    """What a frame or a model becomes is a document of its own class, under the name of what was declared."""

    @asset
    async def table() -> pl.DataFrame: ...

    assert (table.output.document_type, table.output.type_name) == (Table, "Table")


@pytest.mark.parametrize(
    "wrong",
    [
        {"schedule": "daily"},
        {"schedule": "0 6 * *"},
        {"schedule": "0 25 * * *"},
        {"schedule": "*/0 0 * * *"},
        {"schedule": "0 0 * * 8"},
        {"after": ["words"]},
        {"on": "arrived"},
    ],
)
def test_when_an_asset_is_made_is_declared_with_schedules_assets_and_events(wrong: dict[str, Any]) -> None:
    """Five fields of cron, assets themselves, names of events; anything else is told with what is wanted."""

    @asset(schedule="0 6 * * MON-FRI", on=["orders.arrived"])
    async def first() -> Document: ...

    @asset(after=[first])
    async def second() -> Document: ...

    assert (first.options.schedule, first.options.on, second.options.after) == (
        "0 6 * * MON-FRI",
        ("orders.arrived",),
        ("first",),
    )
    with pytest.raises(DeclarationError, match=rf"has {next(iter(wrong))}=.*, which is not "):
        asset(**wrong)(first.function)
