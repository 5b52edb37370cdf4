"""Processes: how are sync functions called in other processes of this machine?

A pool that is started once a run: what ends one of its processes fails the unit that it had, and a cancelled run need not wait for
it.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import ParamSpec, TypeVar

from assetcore.calls import Call, Outcome
from assetcore.runners import worker

__all__ = ["ENDED", "Processes", "let_go", "without_main"]

P = ParamSpec("P")
T = TypeVar("T")
ENDED = "The process that ran it ended in the middle: out of memory, os._exit, or a crash in native code."


class Processes:
    """A pool of processes that have the project loaded; started on first use, ended by `close`.

    They are forks of one clean process (a forkserver) that has imported what every worker needs: the first one costs about a
    second, the next ones nothing. Nothing of the parent's memory, threads or connections is in them.
    """

    def __init__(self, root: Path, project: str, count: int) -> None:
        self.places = count
        self._project = (str(root), project)
        self._pool: ProcessPoolExecutor | None = None
        self._cell: ProcessPoolExecutor | None = None
        self._one_suspect = asyncio.Lock()
        self._starting: asyncio.Task[None] | None = None

    def prepare(self) -> None:
        """Start them in the background, so that they are ready when they are wanted."""
        if self._pool is None:
            self._pool = self._started(self.places)
            self._starting = asyncio.create_task(_ready(self._pool, self.places))

    async def ready(self) -> None:
        """Wait until they can take calls."""
        self.prepare()
        if self._starting is not None:
            await asyncio.shield(self._starting)

    async def call(self, name: str, calls: Sequence[Call], code: bytes) -> list[Outcome]:
        """Call the asset's function for each; a call in which the process dies fails, and no other.

        Which of all that ran ended a process is not known, and it may have been none: a process can be killed for its memory, or
        by hand. So they are called again by a new pool, and only when that breaks too one at a time, in a process of its own.
        """
        for _ in range(2):
            await self.ready()
            assert self._pool is not None
            pool = self._pool
            try:
                return await _submitted(pool, worker.call_all, *self._project, name, calls, code)
            except BrokenProcessPool:
                let_go(pool, broken=True)
                if self._pool is pool:
                    self._pool = self._starting = None
            except worker.UNPICKLED as error:
                if len(calls) == 1:
                    return [worker.unhanded(error)]
                return [(await self.call(name, [call], code))[0] for call in calls]
        return [await self._alone(name, call, code) for call in calls]

    async def _alone(self, name: str, call: Call, code: bytes) -> Outcome:
        async with self._one_suspect:
            cell = self._cell = self._cell or self._started(1)
            try:
                return (await _submitted(cell, worker.call_all, *self._project, name, [call], code))[0]
            except BrokenProcessPool:
                let_go(cell, broken=True)
                self._cell = None
        return Outcome([], 0.0, ENDED)

    async def close(self) -> None:
        """End the processes, also those that are in the middle of a call."""
        for pool in filter(None, (self._pool, self._cell)):
            let_go(pool)
            running = list((pool._processes or {}).values())  # there is no public way to end a call before Python 3.14
            pool.shutdown(wait=False, cancel_futures=True)
            for process in running:
                process.terminate()
        if self._starting is not None:
            self._starting.cancel()
        self._pool = self._cell = self._starting = None

    def _started(self, count: int) -> ProcessPoolExecutor:
        forks = "forkserver" in multiprocessing.get_all_start_methods()
        context = multiprocessing.get_context("forkserver" if forks else "spawn")
        if forks:
            context.set_forkserver_preload([worker.__name__])
        arguments = (*self._project, dict(os.environ))
        return ProcessPoolExecutor(count, mp_context=context, initializer=_start_worker, initargs=arguments)


_one_start = threading.Lock()


def let_go(pool: ProcessPoolExecutor, *, broken: bool = False) -> None:
    """Keep a pool that is not needed any more for as long as the thread that manages it runs.

    Where the garbage collector takes the pool while that thread clears up after a process that ended, and in that thread, the thread
    waits for a lock that it holds, and Python for the thread when it exits (seen on 3.13.0: `_ExecutorManagerThread.terminate_broken`).
    One that is `broken` has nobody who reads what it still writes to its processes: until Python 3.11.5 it waited for that, and the
    command for it (CPython issue 94777).
    """
    if isinstance(manager := pool._executor_manager_thread, threading.Thread):
        vars(manager)["pool"] = pool
        if broken:
            with suppress(KeyError, AttributeError, OSError):
                vars(manager)["call_queue"]._reader.close()


async def _submitted(pool: ProcessPoolExecutor, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    def submit() -> Future[T]:
        with _one_start, without_main():
            return pool.submit(function, *args, **kwargs)

    # In a thread, because submitting starts a process where one is wanted, and the first of them takes its time.
    return await asyncio.wrap_future(await asyncio.to_thread(submit))


async def _ready(pool: ProcessPoolExecutor, count: int) -> None:
    with suppress(BrokenProcessPool, RuntimeError):  # whoever calls finds out, or the pool was closed meanwhile
        await asyncio.gather(*(_submitted(pool, os.getpid) for _ in range(count)))


@contextmanager
def without_main() -> Iterator[None]:
    """A process started meanwhile does not run the user's script again: it needs the project, and not who opened it."""
    main = sys.modules["__main__"]
    hidden = {name: vars(main)[name] for name in ("__file__", "__spec__") if name in vars(main)}
    try:
        main.__dict__.pop("__file__", None)
        main.__spec__ = None
        yield
    finally:
        vars(main).update(hidden)


def _start_worker(root: str, project: str, environment: Mapping[str, str]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    os.environ.clear()  # the forkserver's are those of when it was started
    os.environ.update(environment, ASSETCORE_WORKER="1")
    threading.Thread(target=_end_with_parent, daemon=True).start()
    worker.load_ahead(Path(root), project)


def _end_with_parent() -> None:
    """A parent that was killed cannot end its workers: they see to it themselves."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
