"""Calls: how a unit's function is called, and what is seen when it fails."""

from __future__ import annotations

import asyncio
import re
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from pydantic import BaseModel, Field

from assetcore import calls
from assetcore.assets import Asset
from assetcore.calls import Call, Outcome, call_async, call_sync, user_traceback, waited_for
from assetcore.declarations import asset, collect, each, source
from assetcore.documents import Document
from assetcore.errors import GatewayError
from assetcore.sources import folder
from tests.unit.declared import PAGES, Page, Part

ROOT = Path(__file__).parent
PAGE = Page("a", text="alpha")


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries wait for a hundredth of what they wait in a run."""
    monkeypatch.setattr(calls, "BACKOFF_SECONDS", 0.005)


async def called(declared: Asset[..., Any], **values: Any) -> Outcome:
    """What calling an asset gives, off or on the loop."""
    call = Call(values or {"page": PAGE}, "default", f"{declared.name}[a]")
    return await call_async(declared, call, ROOT) if declared.asynchronous else call_sync(declared, call, ROOT)


# -- what a call gives ---------------------------------------------------------------------------------------------------------


async def test_every_kind_of_function_gives_documents() -> None:
    """Functions that return or yield, on or off the loop, give their documents in order."""

    @asset
    async def one(page: Page = each(PAGES)) -> Page:
        await asyncio.sleep(0)
        return page

    @asset
    def some(page: Page = each(PAGES)) -> list[Part]:
        return [Part(name, text=page.text) for name in "ba"]

    @asset
    def yielded(page: Page = each(PAGES)) -> Iterator[Part]:
        yield from (Part(name, text=page.text) for name in "ba")

    @asset
    async def streamed(page: Page = each(PAGES)) -> AsyncIterator[Part]:
        for name in "ba":
            await asyncio.sleep(0)
            yield Part(name, text=page.text)

    @asset
    async def table(page: Page = each(PAGES)) -> pl.DataFrame:
        return pl.DataFrame({"text": [page.text]})

    @asset
    async def perhaps(page: Page = each(PAGES)) -> Page | None:
        return None

    assert (await called(one)).documents == [PAGE]
    for several in (some, yielded, streamed):
        assert [d.name for d in (await called(several)).documents] == ["b", "a"]
    assert [d.name for d in (await called(table)).documents] == ["default"]
    outcome = await called(perhaps)
    assert (outcome.documents, outcome.error, outcome.traceback) == ([], None, "")
    assert 0 <= outcome.seconds < 5


async def test_a_wrong_result_fails_the_unit_with_a_sentence() -> None:
    """What does not fit the declaration is an error that names the unit, what came and what was declared."""

    @asset
    def wrong(page: Page = each(PAGES)) -> Part:
        return page  # pyright: ignore[reportReturnType] - the mistake under test

    @asset
    async def twice(page: Page = each(PAGES)) -> AsyncIterator[Page]:
        yield page
        yield page

    outcome = await called(wrong)
    assert (outcome.documents, outcome.error is not None) == ([], True)
    assert re.search(r"wrong\[a\] .*Page.*Part", str(outcome.error))
    assert "two documents named 'a'" in str((await called(twice)).error)


async def test_fields_are_restricted_where_the_function_is_called() -> None:
    """A function sees of a document what `fields=` names; touching more fails its unit and says how to have it."""

    @asset
    def named(page: Page = each(PAGES, fields=["name"])) -> Part:
        return Part(page.name, text=page.text)

    outcome = call_sync(named, Call({"page": PAGE}, "x", "named[a]", {"page": frozenset({"name"})}), ROOT)
    assert "Page.content is not handed over" in str(outcome.error)


async def test_what_a_function_does_to_its_arguments_stays_with_it() -> None:
    """Lists, frames and config that units share are given to each as its own."""

    class Limits(BaseModel):
        words: list[str]

    @asset
    def spoils(limits: Limits, pages: list[Page] = collect(PAGES), rows: pl.DataFrame = collect(PAGES)) -> Part:
        text = f"{len(pages)} {rows.columns} {limits.words}"
        pages.clear()
        rows.drop_in_place("name")
        limits.words.append("more")
        return Part("x", text=text)

    values = {"limits": Limits(words=["a"]), "pages": [PAGE], "rows": pl.DataFrame({"name": ["a"], "text": ["b"]})}
    texts = {(await called(spoils, **values)).documents[0].text for _ in range(2)}
    assert texts == {"1 ['name', 'text'] ['a']"}


@pytest.mark.parametrize(("seconds", "attempts"), [(0.0, 3), (calls.LONGEST_WAIT + 1, 1)])
async def test_a_unit_waits_for_a_service_as_long_as_that_says_or_not_at_all(seconds: float, attempts: int) -> None:
    """A retry that would come before a service wants to be asked is none: where that is too long to wait for, the unit has failed."""
    asked: list[Page] = []

    @asset(retries=2)
    async def limited(page: Page = each(PAGES)) -> Page:
        asked.append(page)
        raise GatewayError("no room", status=429, transient=True, retry_after=seconds)

    assert "no room" in str((await called(limited)).error)
    assert len(asked) == attempts


async def test_an_attempt_sees_nothing_of_the_one_before() -> None:
    """What a function did to its arguments before it failed is not there when it is tried again; what it reads begins anew."""

    class Tags(Document):
        tags: list[str] = Field(default_factory=list)

    class Pieces:
        async def __aiter__(self) -> AsyncIterator[Page]:
            for name in "ab":
                yield Page(name, text="")

    tagged = source("tagged", Tags, folder("data"))
    seen: list[tuple[list[str], list[str]]] = []

    def spoil(one: Tags, every: list[Tags]) -> None:
        seen.append((list(one.tags), list(every[0].tags)))
        one.tags.append("more")
        every[0].tags.append("more")

    @asset(retries=1)
    def plain(one: Tags = each(tagged), every: list[Tags] = collect(tagged)) -> Part:
        spoil(one, every)
        raise ValueError("not yet")

    @asset(retries=1)
    async def awaited(
        pages: AsyncIterator[Page] = collect(PAGES), one: Tags = each(tagged), every: list[Tags] = collect(tagged)
    ) -> Part:
        spoil(one, every)
        assert [page.name async for page in pages] == ["a", "b"]
        raise ValueError("not yet")

    tags = Tags("t", text="", tags=["a"])
    for one, further in ((plain, {}), (awaited, {"pages": Pieces()})):
        assert (await called(one, one=tags, every=[tags], **further)).error == "ValueError: not yet"
    assert seen == [(["a"], ["a"])] * 4


# -- what fails ----------------------------------------------------------------------------------------------------------------


def failing(error: BaseException) -> list[Asset[..., Any]]:
    """Functions of every kind that raise this."""

    @asset
    def plain(page: Page = each(PAGES)) -> Page:
        raise error

    @asset
    async def awaited(page: Page = each(PAGES)) -> Page:
        raise error

    @asset
    def yields(page: Page = each(PAGES)) -> Iterator[Page]:
        yield page
        raise error

    @asset
    async def streams(page: Page = each(PAGES)) -> AsyncIterator[Page]:
        yield page
        raise error

    return [plain, awaited, yields, streams]


class Speechless(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("no good"), "ValueError: no good"), (KeyError("x"), "KeyError: 'x'"), (ValueError(), "ValueError"),
        (SystemExit(3), "SystemExit: 3"), (StopIteration("s"), "StopIteration: s"), (MemoryError(), "MemoryError"),
        (Speechless(), "Speechless"), (TimeoutError("the server's"), "TimeoutError: the server's"),
        (ValueError("\x00\x1b[31m\ud800"), "ValueError: \\x00\\x1b[31m\\ud800"),
        (pl.exceptions.PanicException("in Rust"), "PanicException: in Rust"), (pytest.fail.Exception("no"), "Failed: no"),
        (GeneratorExit("enough"), "GeneratorExit: enough"), (KeyboardInterrupt("mine"), "KeyboardInterrupt: mine"),
        (BaseExceptionGroup("two", [GeneratorExit()]), "BaseExceptionGroup: two (1 sub-exception)"),
    ],
)  # fmt: skip
async def test_whatever_is_raised_fails_the_unit_alone(error: BaseException, said: str) -> None:
    """An error of any kind becomes an outcome that says it, with the line that raised it; nothing that was yielded before is kept."""
    for one in failing(error):
        outcome = await called(one)
        if isinstance(error, StopIteration) and one.name != "plain":
            assert "StopIteration" in str(
                outcome.error
            )  # Python makes a RuntimeError of it in coroutines and generators
        else:
            assert outcome.error == said
        assert outcome.documents == []
        assert "raise error" in outcome.traceback


async def test_an_error_is_as_long_as_anyone_reads() -> None:
    """Messages and tracebacks of any length are cut in the middle."""
    outcome = await called(failing(ValueError("x" * 1_000_000 + "end"))[0])
    assert len(str(outcome.error)) < 10_000
    assert str(outcome.error).endswith("end")
    assert len(outcome.traceback) < 50_000


async def test_a_failed_unit_is_tried_again_as_often_as_declared() -> None:
    """With retries=2 a function is called up to three times, with growing pauses; what succeeds at last is the result."""
    times: list[float] = []

    def flaky(page: Page = each(PAGES)) -> Page:
        times.append(time.perf_counter())
        if len(times) < 3:
            raise ValueError("not yet")
        return page

    async def flaky_async(page: Page = each(PAGES)) -> Page:
        return flaky(page)

    for function in (flaky, flaky_async):
        times.clear()
        outcome = await called(asset(retries=2)(function))
        assert (outcome.error, outcome.documents, len(times)) == (None, [PAGE], 3)
        pauses = [after - before for before, after in pairwise(times)]
        assert 0.0025 <= pauses[0] < 1
        assert 0.005 <= pauses[1] < 1
        times.clear()
        assert ((await called(asset(retries=1)(function))).error, len(times)) == ("ValueError: not yet", 2)
        times.clear()
        assert ((await called(asset()(function))).error, len(times)) == ("ValueError: not yet", 1)


def test_pauses_grow_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses double from half a second to half a minute, each shortened at random by up to half."""
    monkeypatch.setattr(calls, "BACKOFF_SECONDS", 0.5)
    for attempt in range(20):
        longest = min(30.0, 0.5 * 2**attempt)
        found = [calls._backoff(attempt) for _ in range(50)]
        assert longest / 2 <= min(found) < max(found) <= longest


async def test_a_unit_that_takes_too_long_is_stopped() -> None:
    """A timeout ends the call, and is told as such; a TimeoutError of the function's own is not taken for it."""
    stopped: list[bool] = []

    @asset(timeout=0.05)
    async def slow(page: Page = each(PAGES)) -> Page:
        try:
            await asyncio.sleep(60)
        finally:
            stopped.append(True)
        return page

    @asset(timeout=60)
    async def refused(page: Page = each(PAGES)) -> Page:
        raise TimeoutError("the server did not answer")

    assert (await called(slow)).error == "TimeoutError: took longer than its timeout of 0.05 s"
    assert stopped == [True]
    assert (await called(refused)).error == "TimeoutError: the server did not answer"


async def test_who_swallows_his_timeout_has_failed_all_the_same() -> None:
    """What is given after the declared time is over is not taken, however the function has dealt with its cancellation."""

    @asset(timeout=0.02)
    async def deaf(page: Page = each(PAGES)) -> Page:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
        return page

    outcome = await called(deaf)
    assert (outcome.error, outcome.documents) == ("TimeoutError: took longer than its timeout of 0.02 s", [])


@pytest.mark.parametrize("heard", [True, False])
async def test_a_function_that_cancels_its_own_task_fails_alone(heard: bool) -> None:
    """As libraries with scopes of their own do: whether it comes to hear of it or not, others go on. A run that is stopped is stopped."""

    @asset
    async def cancels(page: Page = each(PAGES)) -> Page:
        if page.name != "a":
            await asyncio.sleep(60)
        elif task := asyncio.current_task():
            task.cancel()
            if heard:
                await asyncio.sleep(0)
        return page

    async def waits(name: str) -> Outcome:
        with waited_for():
            return await asyncio.create_task(called(cancels, page=Page(name, text="alpha")))

    outcome = await asyncio.create_task(waits("a"))
    assert (outcome.error, outcome.documents) == ("CancelledError", [])
    stopped = asyncio.create_task(waits("b"))
    await asyncio.sleep(0.01)
    stopped.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stopped


async def test_cancelling_a_run_is_not_a_failure_of_its_units() -> None:
    """When the run is cancelled, the call ends with it; when a function raises CancelledError by itself, its unit fails."""

    @asset(retries=5)
    async def endless(page: Page = each(PAGES)) -> Page:
        await asyncio.sleep(60)
        return page

    task = asyncio.create_task(called(endless))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    (_, awaited, _, _) = failing(asyncio.CancelledError("mine"))
    assert (await called(awaited)).error == "CancelledError: mine"


def test_ctrl_c_is_no_failure_of_the_unit_that_was_at_work() -> None:
    """The second one, which asyncio raises wherever the loop is, and the first in a program that leaves Ctrl-C to Python."""

    @asset
    async def blocks(page: Page = each(PAGES)) -> Page:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        return page

    async def left_to_python() -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        await called(blocks)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever started the tests may have it ignored
    try:
        for work in (called(blocks), left_to_python()):
            with pytest.raises(KeyboardInterrupt):
                asyncio.run(work)
    finally:
        signal.signal(signal.SIGINT, before)


# -- what is seen --------------------------------------------------------------------------------------------------------------


def frames(text: str) -> list[tuple[str, str]]:
    """File and function of each frame that a traceback shows."""
    return [(Path(file).name, function) for file, function in re.findall(r'File "([^"]+)", line \d+, in (\S+)', text)]


async def test_a_traceback_shows_the_users_code_and_nothing_else() -> None:
    """Frames of this package, of the standard library and of installed packages are left out, wherever they stand."""

    def key(name: str) -> str:
        return Part("", text=name).name

    @asset
    async def sorts(page: Page = each(PAGES)) -> Page:
        async with asyncio.timeout(5):
            pl.DataFrame({"a": ["x"]}).with_columns(pl.col("a").map_elements(key, return_dtype=pl.String))
            sorted("ab", key=key)
        return page

    text = (await called(sorts)).traceback
    assert {file for file, _ in frames(text)} == {"test_calls.py"}
    assert frames(text)[0][1].endswith("sorts")
    assert 'return Part("", text=name).name' in text
    assert text.startswith("Traceback (most recent call last):")


def test_causes_and_groups_are_shown_in_the_same_way() -> None:
    """What an error was raised from, and the errors of a group, keep the user's frames and lose all others."""

    def decode() -> None:
        Document("a", content=b"\xff").text  # noqa: B018 - raises

    def wrapped() -> None:
        try:
            decode()
        except Exception as error:
            raise ValueError("outer") from error

    async def grouped() -> None:
        async def fails() -> None:
            wrapped()

        async with asyncio.TaskGroup() as group:
            group.create_task(fails())

    with pytest.raises(ValueError, match="outer") as one:
        wrapped()
    text = user_traceback(one.value, ROOT)
    assert "direct cause" in text
    assert {file for file, _ in frames(text)} == {"test_calls.py"}
    assert [f.rpartition(".")[2] for _, f in frames(text)].count("decode") == 1
    with pytest.raises(ExceptionGroup) as several:
        asyncio.run(grouped())
    text = user_traceback(several.value, ROOT)
    assert {file for file, _ in frames(text)} == {"test_calls.py"}
    assert {"grouped", "fails", "wrapped", "decode"} <= {f.rpartition(".")[2] for _, f in frames(text)}


def test_an_error_without_users_frames_still_says_what_it_is() -> None:
    """Where no line is the user's, the error itself remains."""
    with pytest.raises(ValueError, match="invalid literal") as found:
        int("x")
    text = user_traceback(found.value.with_traceback(None), ROOT)
    assert text == "ValueError: invalid literal for int() with base 10: 'x'\n"
