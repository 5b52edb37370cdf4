"""Checks: what over which documents is declared, which mistakes are found at load, and what an answer means."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from assetcore.assets import Asset
from assetcore.calls import Call, ask_async, ask_sync
from assetcore.checks import Check, CheckReport, Finding, Verdict, check, together, verdict_of
from assetcore.declarations import asset, each
from assetcore.documents import Document
from assetcore.errors import DeclarationError
from assetcore.graph import Graph
from assetcore.judgement import Choice
from assetcore.loading import fingerprint_of
from assetcore.plan import AssetPlan, Plan
from assetcore.values import as_made
from tests.unit.declared import PAGES, Page

HEAD = """
from collections.abc import AsyncIterator, Iterator
import pandas as pd
import polars as pl
import pyarrow as pa
from pydantic import BaseModel
from assetcore import Document, asset, check, collect, each, folder, source

class Page(Document): ...
class Other(Document): ...
class Card(BaseModel):
    title: str

pages = source("pages", Page, folder("data"))
@asset
async def parts(page: Page = each(pages)) -> list[Page]: ...
@asset
async def single(page: Page = each(pages)) -> Page: ...
@asset
async def streamed(page: Page = each(pages)) -> AsyncIterator[Page]:
    yield page
@asset
async def table(page: Page = each(pages)) -> pl.DataFrame: ...
@asset
async def card(page: Page = each(pages)) -> Card: ...
"""
FIRST = HEAD.count("\n") + 1
futures = pytest.mark.parametrize("future", ["", "from __future__ import annotations"], ids=["evaluated", "as text"])


def load(body: str, future: str = "") -> Graph:
    """The graph of a module `demo.py` with this body, which begins at line `FIRST`."""
    scope: dict[str, Any] = {"__name__": "demo"}
    exec(compile(future + HEAD + body.strip("\n"), "/projects/demo.py", "exec"), scope)
    found = scope.values()
    return Graph("demo", [v for v in found if isinstance(v, Asset)], [v for v in found if isinstance(v, Check)])


@futures
@pytest.mark.parametrize(
    ("about", "parameter", "scope", "form"),
    [
        ("parts", "page: Page", "unit", "document"),
        ("parts", "found: list[Page]", "unit", "list"),
        ("parts", "found: list[Page] = collect(parts)", "asset", "list"),
        ("parts", "found: pl.DataFrame", "asset", "polars"),
        ("parts", "found: pl.LazyFrame", "asset", "polars-lazy"),
        ("parts", "found: pd.DataFrame = collect(parts)", "asset", "pandas"),
        ("parts", "found: pa.Table", "asset", "arrow"),
        ("parts", "found: AsyncIterator[Page]", "asset", "iterator"),
        ("parts", "*, page: Page", "unit", "document"),
        ("parts", "page: Document", "unit", "document"),
        ("streamed", "found: list[Page]", "unit", "list"),
        ("single", "page: Page", "unit", "document"),
        ("single", "found: list[Page]", "asset", "list"),
        ("table", "frame: pl.DataFrame", "unit", "polars"),
        ("table", "frame: pl.DataFrame = collect(table)", "asset", "polars"),
        ("card", "one: Card", "unit", "model"),
        ("card", "found: list[Card]", "asset", "list"),
        ("card", "found: pl.DataFrame", "asset", "polars"),
    ],
)
def test_the_parameter_says_over_what_a_check_is_asked(
    about: str, parameter: str, scope: str, form: str, future: str
) -> None:
    """What the function returns, or one document of it, is a unit; every other form, and `collect`, is the whole asset."""
    graph = load(f"@check({about}, blocking=True)\nasync def fits({parameter}) -> bool: ...", future)
    (found,) = graph.checks[about]
    assert (found.scope, found.given.form) == (scope, form)
    assert (found.key, found.blocking, found.asynchronous) == (f"{about}.fits", True, True)
    assert graph.functions[f"{about}.fits"] is found
    assert graph.functions[about] is graph.assets[about]


MISTAKES: list[tuple[str, str, str]] = [
    # the declaration, what is wrong, what helps
    ("@check(parts)\ndef fits(): ...", "parts.fits takes ().", "Give it one parameter, annotated with Page (each document)"),
    ("@check(parts)\ndef fits(a: Page, b: Page): ...", "parts.fits takes (a: ", "one parameter"),
    ("@check(parts)\ndef fits(*pages: Page): ...", "parts.fits takes (*pages", "one parameter"),
    ("@check(parts)\ndef fits(page): ...", "has no annotation on 'page', which is no form of what parts makes.", "list[Page]"),
    ("@check(parts)\ndef fits(page: Other): ...", "has the annotation Other on 'page', which is no form of what parts", "Write Page"),
    ("@check(parts)\ndef fits(pages: list[Other]): ...", "has the annotation list[demo.Other] on 'pages'", "list[Page]"),
    ("@check(table)\ndef fits(frame: list[Page]): ...", "which is no form of what table makes.", "Write a frame"),
    ("@check(card)\ndef fits(one: Page): ...", "which is no form of what card makes.", "Write Card"),
    ("@check(parts)\ndef fits(page: Page = each(parts)): ...", "has each(parts) as the default of 'page'.", "Leave it out"),
    ("@check(parts)\ndef fits(page: Page = collect(single)): ...", "as the default of 'page'.", "write collect(parts)"),
    ("@check(parts)\ndef fits(page: Page) -> Page: ...", "is annotated with Page.", "-> bool | str | None"),
    ("@check(parts)\ndef fits(page: Page) -> int | None: ...", "is annotated with int | None.", "-> bool | str | None"),
    ("@check(parts)\ndef fits(page: Page):\n    yield True", "yields.", "Return True, False, or a text"),
    ("@check(parts)\ndef fits(pages: AsyncIterator[Page]): ...", "takes an AsyncIterator in 'pages', but is not async.", "Make it async"),
    ("@check(parts)\ndef fits(page: Pag): ...", "name 'Pag' is not defined", ""),
]  # fmt: skip


@futures
@pytest.mark.parametrize(("body", "problem", "fix"), MISTAKES)
def test_mistakes_are_found_at_load_with_file_line_and_fix(body: str, problem: str, fix: str, future: str) -> None:
    """Each names the check, where it is, what was found and what to write."""
    with pytest.raises((DeclarationError, NameError), match=re.escape(problem)) as caught:
        load(body, future)
    if isinstance(
        caught.value, DeclarationError
    ):  # a name that is not there is Python's own, where it is evaluated at once
        about = re.findall(r"@check\((\w+)\)", body)[0]
        assert caught.value.message.startswith(f"/projects/demo.py:{FIRST}: {about}.fits")
        assert fix in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("body", "problem", "fix"),
    [
        ("@check\ndef fits(page: Page): ...", "@check takes the asset that it is about, found <function fits", "@check(chunks)"),
        ("@check('parts')\ndef fits(page: Page): ...", "found 'parts'.", "Pass the asset itself: @check(parts)"),
        ("@check(pages)\ndef fits(page: Page): ...", "pages is a source", "Check an asset that is made of it."),
        ("@check(parts, blocking=1)\ndef fits(page: Page): ...", "has blocking=1, which is neither True nor False.", ""),
        ("fits = check(parts)(lambda page: True)", "goes on a function with a name, found <function <lambda>", "def name("),
        ("@check(parts)\n@check(single)\ndef fits(page: Page): ...", "goes on a function with a name, found <check single.fits", ""),
    ],
)  # fmt: skip
def test_mistakes_of_the_decorator_are_found_at_once(body: str, problem: str, fix: str) -> None:
    """They name the line of the decorator."""
    with pytest.raises(DeclarationError, match=re.escape(problem)) as caught:
        load(body)
    assert caught.value.message.startswith("/projects/demo.py:")
    assert fix in (caught.value.hint or "")


def test_two_checks_of_one_name_and_a_check_of_a_foreign_asset() -> None:
    """Both are said, with both places; checks of one name on two assets are two checks."""
    load("@check(parts)\ndef fits(page: Page): ...\none = fits\n@check(single)\ndef fits(page: Page): ...")
    with pytest.raises(DeclarationError, match=f"parts.fits is declared twice; the other is at .*:{FIRST}"):
        load("@check(parts)\ndef fits(page: Page): ...\none = fits\n@check(parts)\ndef fits(page: Page): ...")

    @asset
    async def foreign(page: Page = each(PAGES)) -> Page:
        return page

    @check(foreign)
    def fits(page: Page) -> bool:
        return True

    with pytest.raises(DeclarationError, match="is about foreign, which is no asset of demo") as caught:
        Graph("demo", [PAGES], [fits])
    assert "Import the asset" in (caught.value.hint or "")


def test_a_check_stays_an_ordinary_function() -> None:
    """Calling it calls the function, and it says what it is for."""
    graph = load(
        '@check(parts)\ndef fits(page: Page) -> bool:\n    """It has text.\n\n    More."""\n    return bool(page.text)'
    )
    (fits,) = graph.checks["parts"]
    assert fits(graph.assets["parts"].output.type("a", text="x")) is True
    assert (fits.__name__, fits.description) == ("fits", "It has text.")
    assert repr(fits) == f"<check parts.fits at /projects/demo.py:{FIRST}>"


def test_the_fingerprint_of_a_check_is_its_own(tmp_path: Path) -> None:
    """Its code and what it calls count; whether it blocks does not, and neither does the asset's code; nor does it for the asset."""

    def digests(body: str, file: str) -> tuple[bytes, bytes]:
        path = tmp_path / file
        path.write_text(HEAD + body)
        scope: dict[str, Any] = {"__name__": "demo"}
        exec(compile(path.read_text(), str(path), "exec"), scope)
        found = scope.values()
        graph = Graph("demo", [v for v in found if isinstance(v, Asset)], [v for v in found if isinstance(v, Check)])
        return fingerprint_of(graph, "parts.fits").digest, fingerprint_of(graph, "parts").digest

    body = "\ndef helper(text): return text\n@check(parts)\ndef fits(page: Page) -> bool:\n    return bool(helper(page.text))\n"
    first = digests(body, "a.py")
    assert digests(body.replace("@check(parts)", "@check(parts, blocking=True)"), "b.py") == first
    edited = digests(body.replace("return text", "return text.strip()"), "c.py")
    assert (edited[0] != first[0], edited[1] == first[1]) == (True, True)


@pytest.mark.parametrize(
    ("returned", "verdict"),
    [
        (None, Verdict("passed")),
        (True, Verdict("passed")),
        (np.True_, Verdict("passed")),
        ("", Verdict("passed")),
        (" \n", Verdict("passed")),
        (False, Verdict("failed", "returned False")),
        (np.False_, Verdict("failed", "returned False")),
        ("no text", Verdict("failed", "no text")),
        (1, Verdict("error", "returned 1, which is neither None, True or False nor a text")),
        ([], Verdict("error", "returned [], which is neither None, True or False nor a text")),
    ],
)
def test_what_a_returned_value_means(returned: Any, verdict: Verdict) -> None:
    """Only what is meant as an answer is one: an empty list says nothing."""
    assert verdict_of(returned) == verdict


def test_a_unit_of_several_documents_is_as_good_as_the_worst() -> None:
    """The message names the documents, at most three of them; that of a single document needs no name."""
    failed, error = Verdict("failed", "short"), Verdict("error", "KeyError", "trace")
    assert together([], []) == together([Verdict("passed")], ["a"]) == Verdict("passed")
    assert together([failed], ["a"]) == failed
    assert together([Verdict("passed"), failed], ["a", "b"]) == Verdict("failed", "b: short")
    assert together([failed, error], ["a", "b"]) == Verdict("error", "a: short; b: KeyError", "trace")
    assert together([failed] * 5, list("abcde")).message == "a: short; b: short; c: short; and 2 more"


@pytest.mark.parametrize(
    "line",
    [
        "assert page.text",
        "raise OSError('down\\x00')",
        "raise SystemExit(3)",
        "raise GeneratorExit(3)",
        "return np.True_",
    ],
)
def test_async_and_sync_say_the_same(line: str) -> None:
    """What a function raises is a verdict, with the failing line where there is no text; control characters are shown."""
    scope: dict[str, Any] = {
        "np": np,
        "check": check,
        "Page": Page,
        "asset": asset,
        "each": each,
        "PAGES": PAGES,
        "__name__": "demo",
    }
    exec("@asset\nasync def made(page: Page = each(PAGES)) -> Page: ...", scope)
    said = []
    for kind in ("def", "async def"):
        exec(f"@check(made)\n{kind} fits(page: Page):\n    {line}", scope)
        call = Call({"page": Page("a", text="")}, "fits", "made.fits")
        one: Check[..., Any] = scope["fits"]
        root = Path("/projects")
        outcome = asyncio.run(ask_async(one, call, root)) if one.asynchronous else ask_sync(one, call, root)
        said.append(outcome.verdict)
    assert said[0].status == said[1].status
    assert said[0].message == said[1].message
    assert "\x00" not in said[0].message


async def test_what_was_just_made_is_handed_over_in_the_form_asked_for() -> None:
    """Document by document, or the list of them; a frame as a frame."""

    @asset
    async def found(page: Page = each(PAGES)) -> list[Page]: ...

    @check(found)
    def one(page: Page) -> bool: ...

    @check(found)
    def all_(pages: list[Page]) -> bool: ...

    documents: list[Document] = [Page("a", text="x"), Page("b", text="y")]
    assert await as_made(one.given, documents) == documents
    assert await as_made(all_.given, documents) == [documents]
    assert await as_made(all_.given, []) == [[]]


def test_a_report_says_what_it_is_and_a_plan_with_one_that_is_due_is_not_up_to_date() -> None:
    """Failed before error where there are as many; due only where nothing is known."""
    about = ("chunks", "fits", "unit", True)
    report = CheckReport(*about, 3, 1, 0, (Finding("a", "failed", "short"),))
    assert (report.status, report.refuses, report.summary) == ("failed", True, "fits failed for 1 unit")
    assert CheckReport(*about, 3, 1, 2).summary == "fits could not say for 3 units"
    assert CheckReport("chunks", "fits", "asset", False, failed=1).summary == "fits failed"
    assert (CheckReport(*about).status, CheckReport(*about, due=True).status) == ("passed", "due")
    assert CheckReport(*about, 3, due=True).status == "passed"
    plan = Plan("demo", "prod", (AssetPlan("chunks", 3, 3),), (), Choice(frozenset({"chunks"})))
    assert plan.up_to_date
    due = Plan("demo", "prod", plan.assets, (), plan.choice, checks=(CheckReport(*about, due=True),))
    assert (due.up_to_date, due.to_check) == (False, {"chunks"})
    assert due.to_json()["checks"][0]["status"] == "due"


def test_frames_of_a_unit() -> None:
    """A frame that a function returned is given back as one."""

    @asset
    async def rows(page: Page = each(PAGES)) -> pl.DataFrame: ...

    @check(rows)
    def tall(frame: pl.DataFrame) -> bool: ...

    assert (tall.scope, tall.given.kind, tall.given.form) == ("unit", "each", "polars")
