"""Costs and budgets: what will making take, and may one more unit begin?"""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assetcore.budget import Budget
from assetcore.costs import Estimate, Limit, Spread, UnitCosts, estimated, parse_limit, priced, total
from assetcore.errors import UsageError
from assetcore.spending import Spent

KNOWN = {"a": UnitCosts(40, Spread(1.0, 2.0), Spread(100, 300), Spread(0.5, 1.0))}


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("5usd", (5.0, "usd")), ("$0.50", (0.5, "usd")), ("5 USD".replace(" ", ""), (5.0, "usd")), ("100000tokens", (100000.0, "tokens")),
        ("100_000tokens", (100000.0, "tokens")), ("90s", (90.0, "seconds")), ("30min", (1800.0, "seconds")), ("1.5h", (5400.0, "seconds")),
    ],
)  # fmt: skip
def test_limits_are_dollars_tokens_or_time(text: str, limit: tuple[float, str]) -> None:
    """An amount and its unit; a dollar sign is one, too."""
    found = parse_limit(text)
    assert (found.amount, found.currency) == limit


@pytest.mark.parametrize("text", ["5", "usd", "-5usd", "5eur", "5usd or so", ""])
def test_what_is_no_limit_is_refused(text: str) -> None:
    """The hint says how one is written."""
    with pytest.raises(UsageError, match="Such as: 5usd"):
        parse_limit(text)


def test_an_estimate_is_the_median_for_each_unit_with_the_90th_percentile_beside_it() -> None:
    """It says from how many units that is known, and what is pending is told apart; what was never made has no cost that is known."""
    found = estimated([("a", 10, 4), ("b", 3, 0), ("idle", 0, 0)], KNOWN)
    shown = [one.to_json() for one in found]
    assert shown[0]["usd"] == {"median": 5.0, "p90": 10.0, "pending": 2.0}
    assert shown[0]["tokens"] == {"median": 1000, "p90": 3000, "pending": 400}
    assert (shown[0]["known"], shown[0]["per_unit"]["seconds"]) == (40, {"median": 1.0, "p90": 2.0})
    assert shown[1] == {"asset": "b", "stale": 3, "pending": 0, "known": 0}
    assert len(shown) == 2
    assert total(found) == {"tokens": 1000, "usd": 5.0}
    assert total(estimated([("b", 3, 0)], KNOWN)) == {"tokens": None, "usd": None}


async def run(budget: Budget, prices: list[float], places: int) -> tuple[int, float, int]:
    """Units of asset `a` at these prices, so many at once: how many were made, what they cost, how many were in flight at most."""
    waiting = iter(prices)
    made, cost, flying, most = 0, 0.0, 0, 0

    async def worker() -> None:
        nonlocal made, cost, flying, most
        for price in waiting:
            reserved = await budget.admit("a")
            if reserved is None:
                return
            flying += 1
            most = max(most, flying)
            await asyncio.sleep(0)
            flying -= 1
            made, cost = made + 1, cost + price
            budget.settle("a", reserved, spent=Spent(usd=price))

    async with asyncio.timeout(5):
        await asyncio.gather(*(worker() for _ in range(places)))
    return made, cost, most


@given(st.integers(1, 40), st.integers(1, 8), st.sampled_from([0.25, 0.5, 1.0]), st.booleans())
def test_a_limit_is_never_exceeded_by_what_costs_the_same(units: int, places: int, price: float, known: bool) -> None:
    """Whatever is in flight: as many units are made as there is money for, known or not, and not one more."""
    history = {"a": UnitCosts(9, usd=Spread(price, price))} if known else {}
    budget = Budget(Limit(5.0, "usd", "5usd"), history)
    made, cost, _ = asyncio.run(run(budget, [price] * units, places))
    assert cost <= 5.0
    assert made == min(units, int(5.0 / price))
    assert budget.stopped == (units > made)


async def test_while_nothing_is_known_one_unit_goes_alone() -> None:
    """The first unit tells what such units cost; then as many are in flight as there are places."""
    made, cost, most = await run(Budget(Limit(100.0, "usd", ""), {}), [2.0] * 30, 8)
    assert (made, cost) == (30, 60.0)
    assert most <= 8
    budget = Budget(Limit(100.0, "usd", ""), {})
    first = await budget.admit("a")
    second = asyncio.create_task(budget.admit("a"))
    await asyncio.sleep(0.01)
    assert not second.done()
    budget.settle("a", first or 0.0, spent=Spent(usd=2.0))
    assert await second == 2.0


async def test_a_unit_that_was_cancelled_teaches_nothing() -> None:
    """What was reserved for it is free again."""
    budget = Budget(Limit(1.0, "usd", ""), KNOWN)
    reserved = await budget.admit("a")
    assert reserved == 1.0
    budget.settle("a", reserved, ran=False)
    assert await budget.admit("a") == 1.0
    assert not budget.stopped


async def test_time_is_a_limit_too() -> None:
    """A unit that is not expected to end in time does not begin."""
    assert await Budget(Limit(1.5, "seconds", ""), KNOWN).admit("a") is None
    assert await Budget(Limit(2.5, "seconds", ""), KNOWN).admit("a") == 2.0


async def test_time_passes_for_all_that_is_in_flight_at_once() -> None:
    """As many begin as are worked at side by side; who would have to wait for one of these too long does not, and then it is too late."""
    budget = Budget(Limit(3.5, "seconds", ""), KNOWN)
    assert [await budget.admit("a", 8) for _ in range(8)] == [2.0] * 8
    ninth = asyncio.create_task(budget.admit("a", 8))
    await asyncio.sleep(0.01)
    assert not ninth.done()
    budget.settle("a", 2.0, seconds=0.1)  # it ended sooner than such units did
    assert await ninth == 2.0
    late = Budget(Limit(2.005, "seconds", ""), KNOWN)
    assert await late.admit("a", 1) == 2.0
    waiting = asyncio.create_task(late.admit("a", 1))
    await asyncio.sleep(0.02)
    late.settle("a", 2.0, seconds=0.02)
    assert await waiting is None
    assert late.stopped


def test_another_model_is_reckoned_at_its_prices() -> None:
    """The tokens that are known, at the price of what goes in, and beside it of what comes out; an asset nothing is known of stays so."""
    known = Estimate("a", 10, 5, UnitCosts(3, tokens=Spread(100, 300)))
    assert priced(known, 0.01, 0.05).to_json()["usd"] == {"median": 10.0, "p90": 150.0, "pending": 5.0}
    assert priced(known, 0.01, 0.0).to_json()["usd"]["p90"] == 30.0
    assert priced(Estimate("a", 10, 5, None), 1, 1).per_unit is None
