"""Threads: how are sync functions called beside the event loop, in this process?

Nothing is copied and nothing started, so that this is the fastest for functions that do next to nothing, and right for those that
release the interpreter. One that crashes takes the run with it, and one that does not end cannot be ended: the command does not
wait for it.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from assetcore.calls import Call, Outcome, call_sync
from assetcore.graph import Graph

__all__ = ["Threads"]

LOOK_SECONDS = 1.0
"""So often is looked whether a thread has begun."""


class Threads:
    """Calls sync functions in threads of this process, so many at once."""

    def __init__(self, root: Path, graph: Graph, count: int) -> None:
        self.places = count
        self._root = root
        self._graph = graph
        self._free = asyncio.Semaphore(count)

    def prepare(self) -> None:
        """There is nothing to start."""

    async def ready(self) -> None:
        """It always is."""

    async def call(self, name: str, calls: Sequence[Call], code: bytes) -> list[Outcome]:
        """Call the asset's function for each; the code is the one that is loaded here."""
        asset, loop = self._graph.functions[name], asyncio.get_running_loop()
        async with self._free:
            ended: asyncio.Future[list[Outcome]] = loop.create_future()

            def finish(outcomes: list[Outcome] | BaseException) -> None:
                if ended.cancelled():
                    return
                if isinstance(outcomes, BaseException):
                    ended.set_exception(outcomes)
                else:
                    ended.set_result(outcomes)

            begun = threading.Event()

            def work() -> None:
                begun.set()
                try:
                    outcomes: list[Outcome] | BaseException = [call_sync(asset, call, self._root) for call in calls]
                except BaseException as error:
                    outcomes = error
                try:
                    loop.call_soon_threadsafe(finish, outcomes)
                except RuntimeError:
                    return  # the loop has ended, and nobody waits for it

            def look() -> None:
                nonlocal thread, later
                if not thread.is_alive() and not begun.is_set():
                    thread = _start(work, name)
                if not begun.is_set():
                    later = loop.call_later(LOOK_SECONDS, look)

            # A thread of its own that nobody joins, where a pool's would keep the command from ending after Ctrl-C. Where a debugger
            # or coverage traces threads, Python 3.11 ends one before it begins if another is being traced just then (gh-98257).
            thread = _start(work, name)
            later = loop.call_later(LOOK_SECONDS, look)
            try:
                return await ended
            finally:
                later.cancel()

    async def close(self) -> None:
        """There is nothing to end."""


def _start(work: Callable[[], None], name: str) -> threading.Thread:
    thread = threading.Thread(target=work, name=f"assetcore-{name}", daemon=True)
    thread.start()
    return thread
