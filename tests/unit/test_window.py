"""Window: a steady number of calls in flight, while what they gave is kept in batches."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from assetcore import window
from assetcore.calls import Call, call_async
from assetcore.declarations import asset, each
from assetcore.window import Window
from tests.unit.declared import PAGES, Page

seen: ContextVar[int] = ContextVar("seen", default=0)


@dataclass
class Work:
    """Items that take so many seconds each; what happened to them."""

    seconds: list[float]
    claimed: float | None = None
    parts: bool = False
    read: list[int] = field(default_factory=list)
    called: list[int] = field(default_factory=list)
    kept: list[list[int]] = field(default_factory=list)
    part_sizes: list[int] = field(default_factory=list)
    flying: int = 0
    most: int = 0
    fails: int | None = None
    unreadable: int | None = None
    keep_seconds: float = 0.0
    bytes: int = 1
    unkept: int = 0

    async def next(self, count: int) -> Sequence[int]:
        at = len(self.read)
        if self.unreadable is not None and at >= self.unreadable:
            raise OSError("unreadable")
        items = list(range(at, min(at + count, len(self.seconds))))
        self.read += items
        self.unkept = max(self.unkept, len(self.read) - len(self.all_kept))
        return items

    async def call(self, items: Sequence[int]) -> Sequence[float]:
        self.flying += 1
        self.most = max(self.most, self.flying)
        self.part_sizes.append(len(items))
        assert seen.get() == 0
        seen.set(1)
        try:
            if self.fails in items:
                raise RuntimeError("no worker")
            if wait := sum(self.seconds[i] for i in items):
                await asyncio.sleep(wait)
        finally:
            self.flying -= 1
        self.called += items
        return [self.seconds[i] if self.claimed is None else self.claimed for i in items]

    async def keep(self, made: Sequence[tuple[int, float]]) -> None:
        await asyncio.sleep(self.keep_seconds)
        self.kept.append([item for item, _ in made])

    def window(self, places: int = 8, seconds: float = 0.5, largest: int = 2048) -> Window[int, float]:
        return Window(
            self.next, self.call, self.keep, lambda cost: cost, lambda item, cost: self.bytes, places, self.parts, seconds,
            largest, 1_000_000,
        )  # fmt: skip

    @property
    def all_kept(self) -> list[int]:
        return [item for batch in self.kept for item in batch]


@pytest.mark.parametrize("parts", [False, True])
@pytest.mark.parametrize("count", [0, 1, 7, 64, 65, 1000])
async def test_everything_is_called_and_kept_once(count: int, parts: bool) -> None:
    """Whatever the number of items, each is called once and kept once; a batch is kept in the order in which it was read."""
    work = Work([0.0] * count, parts=parts)
    await work.window().run()
    assert sorted(work.called) == sorted(work.all_kept) == list(range(count))
    assert all(batch == sorted(batch) for batch in work.kept)


async def test_slow_calls_keep_the_window_full_across_batches() -> None:
    """160 calls of 50 ms, 8 at a time, take far from the eight seconds that they add up to, however many batches they are kept in."""
    work = Work([0.05] * 160, keep_seconds=0.02)
    started = time.monotonic()
    await work.window(seconds=0.05).run()
    took = time.monotonic() - started
    assert work.most == 8
    assert len(work.kept) > 3
    assert took < 4


async def test_one_that_takes_long_holds_up_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """While one call goes on for long, the others go on beside it, and are kept without it."""
    monkeypatch.setattr(window, "PATIENCE", 0.1)
    work = Work([0.0] + [0.01] * 400)
    call = work.call

    async def long(items: Sequence[int]) -> Sequence[float]:
        while 0 in items and len(work.all_kept) < 400:
            await asyncio.sleep(0.01)
        return await call(items)

    holding = work.window(seconds=0.05)
    holding.call = long
    await holding.run()
    assert work.called[-1] == 0
    assert len(work.kept) > 2
    assert work.kept[-1] == [0]


async def test_cheap_calls_are_kept_in_large_batches() -> None:
    """Functions of 20 µs: after a first small one, batches grow to the largest there may be."""
    work = Work([0.0] * 20_000, claimed=20e-6)
    await work.window().run()
    assert [len(batch) for batch in work.kept[:3]] == [64, 512, 2048]
    assert len(work.kept) < 15


@pytest.mark.parametrize("parts", [False, True])
async def test_what_is_heavy_is_kept_in_small_batches(parts: bool) -> None:
    """However quick the calls, a batch holds about as many bytes as it may, and only a few batches are in memory; one item always fits."""
    work = Work([0.0] * 3000, claimed=20e-6, bytes=50_000, parts=parts)
    await work.window().run()
    assert {len(batch) for batch in work.kept[1:-1]} == {20}
    assert work.unkept <= 64 + 20 * 5
    work = Work([0.0] * 50, claimed=20e-6, bytes=5_000_000, parts=parts)
    await work.window().run()
    assert work.all_kept == list(range(50))
    assert {len(batch) for batch in work.kept[1:]} == {1}


async def test_parts_hold_a_fair_share_of_the_time() -> None:
    """Where calling has a price, cheap items travel in large parts and dear ones alone."""
    cheap, dear = Work([0.0] * 20_000, claimed=20e-6, parts=True), Work([0.01] * 40, claimed=2.0, parts=True)
    await cheap.window(2).run()
    await dear.window(2).run()
    assert max(cheap.part_sizes) > 500
    assert len(cheap.part_sizes) < 100
    assert set(dear.part_sizes) == {1}


async def test_little_is_held_at_a_time() -> None:
    """What is read but not yet kept stays within a few batches, also where keeping is slower than calling."""
    work = Work([0.0] * 3000, claimed=0.01, keep_seconds=0.005)
    held: list[int] = []
    keep = work.keep

    async def watched(made: Sequence[tuple[int, float]]) -> None:
        held.append(len(work.read) - len(work.all_kept))
        await keep(made)

    made = work.window(8, 0.05)
    made.keep = watched
    await made.run()
    assert len(work.all_kept) == 3000
    assert max(held) < 400


@pytest.mark.parametrize(("largest", "at_most"), [(1000, 1000), (600, 600), (300, 512), (100, 200)])
async def test_while_a_batch_is_kept_no_more_than_another_lands(largest: int, at_most: int) -> None:
    """Beside the one that is kept: where batches are large another one lands, where they are small two; then no further call is begun."""
    work = Work([0.0] * 4000, claimed=0.001)
    landed: list[int] = []
    keep = work.keep

    async def watched(made: Sequence[tuple[int, float]]) -> None:
        await keep(made)
        still = 0
        while still < 50:  # until no further call is begun
            called = len(work.called)
            await asyncio.sleep(0)
            still = still + 1 if len(work.called) == called else 0
        landed.append(len(work.called) - len(work.all_kept))

    made = work.window(8, 1.0, largest)
    made.keep = watched
    await made.run()
    assert len(work.all_kept) == 4000
    assert at_most <= max(landed) <= at_most + 8


async def test_what_has_landed_waits_no_longer_than_is_patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slow calls are kept before a batch is full: a crash loses seconds of work."""
    monkeypatch.setattr(window, "PATIENCE", 0.1)
    work = Work([0.06] * 20)
    await work.window(2, seconds=10).run()
    assert len(work.kept) >= 4


async def test_a_cancelled_window_keeps_what_had_ended() -> None:
    """Cancelled in the middle, it keeps every call that had ended and no other, and is cancelled."""
    work = Work([0.0, 0.0, 0.0, 5.0, 5.0])
    running = asyncio.create_task(work.window(5).run())
    while len(work.called) < 3 or work.flying < 2:
        await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert sorted(work.all_kept) == [0, 1, 2]
    assert work.flying == 0


async def test_an_error_of_calling_lets_what_is_in_flight_land() -> None:
    """Where calls cannot be made, nothing more is begun, what was under way is kept, and the error goes on."""
    work = Work([0.1] * 20, fails=2)
    with pytest.raises(RuntimeError, match="no worker"):
        await work.window(4).run()
    assert sorted(work.all_kept) == [0, 1, 3]


async def test_of_errors_that_several_calls_meet_one_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    """As where a cluster is lost: asyncio has nothing to tell of the others when they are forgotten."""
    work = Work([0.0] * 8)

    async def lost(items: Sequence[int]) -> Sequence[float]:
        await asyncio.sleep(0.01)
        raise RuntimeError("no worker")

    one = work.window()
    one.call = lost
    with pytest.raises(RuntimeError, match="no worker"):
        await one.run()
    gc.collect()
    assert "never retrieved" not in caplog.text


async def test_an_error_of_reading_comes_after_what_was_read() -> None:
    """Where the next items cannot be read, those before are called and kept, and the error goes on."""
    work = Work([0.001] * 200, unreadable=64)
    with pytest.raises(OSError, match="unreadable"):
        await work.window(4).run()
    assert sorted(work.all_kept) == list(range(64))


async def test_an_error_of_keeping_ends_it() -> None:
    """Where nothing can be kept, calling ends too, and the error goes on."""
    work = Work([0.01] * 500)

    async def full(made: Sequence[tuple[int, float]]) -> None:
        raise OSError("full")

    failing = work.window(4, 0.05)
    failing.keep = full
    with pytest.raises(OSError, match="full"):
        await failing.run()
    assert work.flying == 0
    assert len(work.called) < 200


async def test_a_function_that_cancels_its_own_task_stops_no_window() -> None:
    """Its call is an outcome that failed; all others are called and kept. A window that is cancelled is, as ever."""

    @asset
    async def cancels(page: Page = each(PAGES)) -> Page:
        task = asyncio.current_task()
        if task is not None and page.name == "1":
            task.cancel()
        return page

    work = Work([0.0] * 5)
    errors: list[str | None] = []

    async def call(items: Sequence[int]) -> Sequence[float]:
        asked = [Call({"page": Page(str(item), text="x")}, "", "cancels") for item in items]
        errors.extend([(await call_async(cancels, one, Path())).error for one in asked])
        return await Work.call(work, items)

    flowing = work.window()
    flowing.call = call
    await flowing.run()
    assert sorted(work.all_kept) == list(range(5))
    assert sorted(filter(None, errors)) == ["CancelledError"]
