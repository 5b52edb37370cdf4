"""Spending: what a unit says that it cost, wherever in it that becomes known."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

import assetcore
from assetcore import calls
from assetcore.calls import Call, call_async, call_sync
from assetcore.declarations import asset, each
from assetcore.errors import UsageError
from assetcore.spending import Spent, spend
from tests.unit.declared import PAGES, Page

ASKED = Call({"page": Page("a", text="alpha")}, "default", "asked[a]")


async def test_what_is_reported_adds_up() -> None:
    """All that a unit reports is one sum, from its own code, the tasks it starts and the threads it waits for."""

    @asset
    async def asked(page: Page = each(PAGES)) -> Page:
        spend(tokens=10, usd=0.5)
        await asyncio.gather(*(asyncio.create_task(ask()) for _ in range(3)))
        await asyncio.to_thread(spend, tokens=1)
        return page

    async def ask() -> None:
        await asyncio.sleep(0)
        assetcore.spend(tokens=100)

    outcome = await call_async(asked, ASKED, Path())
    assert outcome.spent == Spent(311, 0.5)


async def test_units_beside_each_other_have_accounts_of_their_own() -> None:
    """What one unit spends is not another's, however they take turns."""

    @asset
    async def asked(page: Page = each(PAGES)) -> Page:
        for _ in range(len(page.text)):
            spend(tokens=1)
            await asyncio.sleep(0)
        return page

    both = [Call({"page": Page(name, text=name * size)}, "x", "asked") for name, size in (("a", 5), ("b", 9))]
    found = await asyncio.gather(*(call_async(asked, call, Path()) for call in both))
    assert [one.spent for one in found] == [Spent(5), Spent(9)]


async def test_attempts_that_failed_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """A unit that fails has spent what it spent, in each of its attempts, on and off the loop."""
    monkeypatch.setattr(calls, "BACKOFF_SECONDS", 0.001)

    @asset(retries=2)
    async def asked(page: Page = each(PAGES)) -> Page:
        spend(usd=0.1)
        raise ValueError

    @asset(retries=2)
    def called(page: Page = each(PAGES)) -> Page:
        spend(usd=0.1)
        raise ValueError

    for outcome in (await call_async(asked, ASKED, Path()), call_sync(called, ASKED, Path())):
        assert outcome.error == "ValueError"
        assert outcome.spent == Spent(0, pytest.approx(0.3))


def test_outside_a_unit_nothing_happens() -> None:
    """An asset that is called as a function spends into the void; nothing reported is nothing kept."""
    spend(tokens=5)

    @asset
    def called(page: Page = each(PAGES)) -> Page:
        return page

    assert call_sync(called, ASKED, Path()).spent is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"tokens": -1}, {"tokens": 1.5}, {"tokens": True}, {"tokens": 10**30}, {"tokens": 1, "cached_tokens": 2}, {"usd": -0.1},
        {"usd": float("nan")}, {"usd": float("inf")}, {"usd": 1e300}, {"usd": "1"}, {"model": "a\0b"}, {"model": "\ud800"}, {"model": 1},
    ],
)  # fmt: skip
def test_what_is_no_cost_is_refused(wrong: dict[str, object]) -> None:
    """Negative, endless or of another type: an error that shows it, in a unit or outside of one."""
    with pytest.raises(UsageError, match="is no cost"):
        spend(**wrong)  # pyright: ignore[reportArgumentType] - the mistake under test
