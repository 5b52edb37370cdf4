"""Window: how many calls are in flight, while what the earlier ones gave is kept?

    read > ready > in flight > landed > keep

Each arrow goes on by itself: as soon as one call ends the next begins, whichever batch it will be kept in, and one that takes long
holds up no other. What has landed is kept when it holds about `seconds` of work, or has waited for `PATIENCE`; little more than a
batch is ready, and no more lands while a batch is kept than another, or two where they are small, whatever there is to do in all. A batch
holds few items where they are heavy: what is in memory does not grow with the size of documents either.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from assetcore.calls import waited_for

__all__ = ["Window"]

T = TypeVar("T")
R = TypeVar("R")
FIRST_BATCH = 64
GROWTH = 8
"""Sizes grow at most eightfold, so that one odd call decides little."""
MANY = 512
"""Of a batch of so many, no second one lands while it is kept: small results weigh more than their bytes."""
PATIENCE = 2.0
"""Seconds that what has landed may wait to be kept."""


@dataclass(slots=True)
class Window(Generic[T, R]):
    """A stream of items that are called and kept.

    `read` gives the next items, about as many as it is asked for, and none at the end; `call` gives a result for each item of a
    part; `keep` takes items with their results. `weight` says how many bytes an item and its result hold, of which a batch has about
    `heaviest`. Parts are of one item, or where calling has a price of its own (`parts`) of as many as fill a fair share of the time.
    What was called is kept before an error or a cancellation goes on.
    """

    read: Callable[[int], Awaitable[Sequence[T]]]
    call: Callable[[Sequence[T]], Coroutine[Any, Any, Sequence[R]]]
    keep: Callable[[Sequence[tuple[T, R]]], Awaitable[None]]
    cost: Callable[[R], float]
    weight: Callable[[T, R], int]
    places: int
    parts: bool
    seconds: float
    largest: int
    heaviest: int
    _size: int = FIRST_BATCH
    _part: int = 1
    _seconds_each: float = 0.0
    _bytes_each: float = 0.0
    _count: int = 0
    _ready: deque[tuple[int, T]] = field(default_factory=deque)
    _landed: list[tuple[int, T, R]] = field(default_factory=list)
    _all_read: bool = False
    _all_called: bool = False
    _more: asyncio.Event = field(default_factory=asyncio.Event)
    _fewer: asyncio.Event = field(default_factory=asyncio.Event)
    _room: asyncio.Event = field(default_factory=asyncio.Event)
    _due: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        """Call everything that `read` gives, and keep it."""
        calling = asyncio.create_task(self._read_and_call())
        keeping = asyncio.create_task(self._keep_on())
        try:
            await asyncio.wait({calling, keeping}, return_when=asyncio.FIRST_COMPLETED)  # keeping only ends by an error
        finally:
            if not calling.done():
                calling.cancel()
                await asyncio.wait({calling})
            self._all_called = True
            self._due.set()
            await asyncio.shield(asyncio.wait({keeping}))  # what is made is kept, also when the run is being cancelled
        keeping.result()
        calling.result()

    async def _read_and_call(self) -> None:
        callers = self.places * (2 if self.parts else 1)  # one part is on its way while another is worked at
        tasks = [asyncio.create_task(work) for work in (self._read_on(), *(self._call_on() for _ in range(callers)))]
        try:
            await asyncio.wait(tasks)
        except asyncio.CancelledError:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            raise
        # All are looked at: of an error that nobody has looked at, asyncio tells on the terminal.
        failed = [task for task in tasks if task.cancelled() or task.exception() is not None]
        for task in failed:
            task.result()

    async def _read_on(self) -> None:
        try:
            while items := await self.read(self._size):
                self._ready.extend(enumerate(items, self._count))
                self._count += len(items)
                self._more.set()
                while len(self._ready) > self._low:
                    self._fewer.clear()
                    await self._fewer.wait()
        finally:  # what was read is called, also when there is no more to be had because of an error
            self._end_reading()

    def _end_reading(self) -> None:
        self._all_read = True
        self._more.set()

    @property
    def _low(self) -> int:
        """So few are ready that more should be read."""
        return 0 if self._all_read else max(self._size // 4, self.places)

    async def _call_on(self) -> None:
        """Call one part after another."""
        with waited_for():
            while True:
                while not self._ready:
                    if self._all_read:
                        return
                    self._more.clear()
                    await self._more.wait()
                while self._is_full:
                    self._room.clear()
                    await self._room.wait()
                if part := self._take():
                    try:
                        await self._call(part)
                    except BaseException:
                        self._ready.clear()  # what is in flight lands; nothing more is begun
                        self._end_reading()
                        raise

    @property
    def _is_full(self) -> bool:
        """So much has landed that calling waits for keeping. A slow commit holds up few calls where there are few in a batch."""
        return len(self._landed) >= min(2 * self._size, max(self._size, MANY))

    def _take(self) -> list[tuple[int, T]]:
        count = 1
        if self.parts and self._seconds_each:
            share = -(-len(self._ready) // self.places)
            wanted = int(self.seconds / 4 / self._seconds_each)
            count = self._part = max(1, min(wanted, share, self._part * GROWTH))
        part = [self._ready.popleft() for _ in range(min(count, len(self._ready)))]
        if len(self._ready) <= self._low:
            self._fewer.set()
        return part

    async def _call(self, part: Sequence[tuple[int, T]]) -> None:
        # A task of its own: what a function does to its context, or to its task, is seen by no other.
        called = asyncio.create_task(self.call([item for _, item in part]))  # noqa: RUF006 - it is awaited
        try:
            self._land(part, await called)
        except asyncio.CancelledError:
            if called.done() and not called.cancelled() and called.exception() is None:
                self._land(part, called.result())  # it ended in time
            raise

    def _land(self, part: Sequence[tuple[int, T]], results: Sequence[R]) -> None:
        self._landed.extend((index, item, result) for (index, item), result in zip(part, results, strict=True))
        seconds = max(sum(map(self.cost, results)) / len(results), 1e-7)
        self._seconds_each = (self._seconds_each + seconds) / 2 if self._seconds_each else seconds
        held = sum(self.weight(item, result) for (_, item), result in zip(part, results, strict=True)) / len(results)
        self._bytes_each = max(held, (self._bytes_each + held) / 2)  # what is heavy may come together
        self._size = min(self._size, self._wanted)
        if len(self._landed) >= self._size:
            self._due.set()

    async def _keep_on(self) -> None:
        """Keep what has landed, batch by batch, in the order in which it was read."""
        while not (self._all_called and not self._landed):
            if not self._all_called:
                with suppress(TimeoutError):
                    async with asyncio.timeout(PATIENCE):
                        await self._due.wait()
            self._due.clear()
            if not self._landed:
                continue
            landed = sorted(self._landed, key=lambda one: one[0])
            batch, self._landed = landed[: self._size], landed[self._size :]
            self._size = min(self._wanted, self._size * GROWTH)
            self._room.set()
            if len(self._landed) >= self._size:
                self._due.set()
            await self.keep([(item, result) for _, item, result in batch])

    @property
    def _wanted(self) -> int:
        """How many hold `seconds` of work and no more bytes than a batch may, as far as is known."""
        by_time = max(self.places * self.seconds / self._seconds_each, self.places)
        return int(max(min(by_time, self.largest, self.heaviest / max(self._bytes_each, 1)), 1))
