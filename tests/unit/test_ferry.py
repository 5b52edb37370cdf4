"""Those who ask at the same moment are answered together."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from assetcore.ferry import Ferry


class Bank:
    """What is on the other side: it answers with the double, and remembers who came together."""

    def __init__(self) -> None:
        self.crossings: list[list[int]] = []

    async def cross(self, asked: Sequence[int]) -> list[int]:
        self.crossings.append(list(asked))
        await asyncio.sleep(0.001)
        if 13 in asked:
            raise LookupError("13")
        if 99 in asked:
            raise OSError("99")
        return [2 * one for one in asked]


async def test_those_who_come_at_the_same_moment_cross_together_and_those_who_come_later_when_it_is_back() -> None:
    """Each is given its own answer, and nobody waits for others to come."""
    bank = Bank()
    ferry = Ferry(bank.cross)
    first = [asyncio.create_task(ferry.ask(n)) for n in (1, 2, 3)]
    await asyncio.sleep(0.0005)
    later = [asyncio.create_task(ferry.ask(n)) for n in (4, 5)]
    assert await asyncio.gather(*first, *later) == [2, 4, 6, 8, 10]
    assert bank.crossings == [[1, 2, 3], [4, 5]]
    assert await ferry.ask(6) == 12


async def test_an_error_about_one_question_is_told_to_no_other() -> None:
    """Where it may be about one only, each crosses for itself; any other error is told to all of them."""
    bank = Bank()
    ferry = Ferry(bank.cross, apart=(LookupError,))
    assert await asyncio.gather(*map(ferry.ask, (1, 13, 2)), return_exceptions=True) == [2, _like(LookupError), 4]
    assert bank.crossings == [[1, 13, 2], [1], [13], [2]]
    told = await asyncio.gather(*map(ferry.ask, (1, 99)), return_exceptions=True)
    assert told == [_like(OSError), _like(OSError)]


async def test_who_is_cancelled_takes_nobody_along() -> None:
    """The others are answered; when the ferry is closed nothing is left at work."""
    bank = Bank()
    ferry = Ferry(bank.cross)
    gone, stays = asyncio.create_task(ferry.ask(1)), asyncio.create_task(ferry.ask(2))
    await asyncio.sleep(0.0005)
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    assert await stays == 4
    asking = asyncio.create_task(ferry.ask(3))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    asking.cancel()
    await asyncio.wait([asking])
    await ferry.close()
    assert asyncio.all_tasks() == {asyncio.current_task()}


class _like:
    def __init__(self, kind: type[Exception]) -> None:
        self.kind = kind

    def __eq__(self, other: object) -> bool:
        return isinstance(other, self.kind)

    __hash__ = object.__hash__
