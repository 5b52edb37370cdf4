"""Calls: how is a unit's function called, and what is seen when it fails?

Async functions run on the event loop, so many at once. Sync functions are CPU work and run off it, in a pool of processes that
is started once a run: what ends such a process fails the unit that it had, and a cancelled run need not wait for it. Whatever a
function raises becomes an `Outcome` with the traceback of the user's own code; it never stops other units.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import random
import re
import signal
import sys
import sysconfig
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from pydantic import BaseModel

from assetcore.assets import Asset
from assetcore.documents import Document, restrict
from assetcore.loading import fingerprint_of, load
from assetcore.values import encode

__all__ = ["Call", "Outcome", "Processes", "call_async", "call_sync"]

P = ParamSpec("P")
T = TypeVar("T")
BACKOFF_SECONDS = 0.5
BACKOFF_LIMIT = 30.0
ERROR_LIMIT = 4_000
TRACEBACK_LIMIT = 20_000
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Call:
    """One unit's call: the values of its parameters, which of them are restricted to some fields, and who is called."""

    values: Mapping[str, Any]
    default_name: str
    who: str
    restricted: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def arguments(self) -> dict[str, Any]:
        """The arguments of one call: what a function does to them must not be seen by the next."""
        return {n: restrict(v, self.restricted[n]) if n in self.restricted else _own(v) for n, v in self.values.items()}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a call gave: documents, or an error with the traceback of the user's code."""

    documents: list[Document]
    seconds: float
    error: str | None = None
    traceback: str = ""


def _own(value: Any) -> Any:
    """The value, or a copy of it where it could be changed in place."""
    if isinstance(value, list):
        return list(value)
    if isinstance(value, BaseModel):
        return value if isinstance(value, Document) else value.model_copy(deep=True)
    match type(value).__module__.partition(".")[0], type(value).__name__:
        case "polars", "DataFrame":
            return value.clone()
        case "pandas", "DataFrame":
            return value.copy()
    return value


async def call_async(asset: Asset[..., Any], call: Call, root: Path) -> Outcome:
    """Call an async function, with its timeout and retries."""
    started = time.perf_counter()
    for attempt in range(asset.options.retries + 1):
        limit = asyncio.timeout(asset.options.timeout)
        try:
            async with limit:
                returned: Any = asset.function(**call.arguments())
                if asset.output.stream:
                    returned = [document async for document in returned]
                else:
                    returned = await returned
            return Outcome(encode(asset.output, returned, call.default_name, call.who), time.perf_counter() - started)
        except (Exception, SystemExit, asyncio.CancelledError) as error:
            task = asyncio.current_task()
            if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
                raise  # the run is being cancelled; otherwise it is the function that raised it
            if attempt == asset.options.retries:
                timeout = (
                    asset.options.timeout if limit.expired() else None
                )  # another TimeoutError is the function's own
                return _failed(error, root, started, timeout)
            await asyncio.sleep(_backoff(attempt))
    raise AssertionError("the loop returns")


def call_sync(asset: Asset[..., Any], call: Call, root: Path) -> Outcome:
    """Call a sync function, with its retries."""
    started = time.perf_counter()
    for attempt in range(asset.options.retries + 1):
        try:
            returned: Any = asset.function(**call.arguments())
            if asset.output.stream:
                returned = list(returned)
            return Outcome(encode(asset.output, returned, call.default_name, call.who), time.perf_counter() - started)
        except (Exception, SystemExit) as error:
            if attempt == asset.options.retries:
                return _failed(error, root, started)
            time.sleep(_backoff(attempt))
    raise AssertionError("the loop returns")


class Processes:
    """A pool of processes that have the project loaded; started on first use, ended by `close`.

    They are forks of one clean process (a forkserver) that has imported what every worker needs: the first one costs about a
    second, the next ones nothing. Nothing of the parent's memory, threads or connections is in them.
    """

    def __init__(self, root: Path, project: str, count: int) -> None:
        self.count = count
        self._arguments = (str(root), project)
        self._pool: ProcessPoolExecutor | None = None
        self._cell: ProcessPoolExecutor | None = None
        self._one_suspect = asyncio.Lock()
        self._starting: asyncio.Task[None] | None = None

    def prepare(self) -> None:
        """Start them in the background, so that they are ready when they are wanted."""
        if self._pool is None:
            self._pool = self._started(self.count)
            self._starting = asyncio.create_task(_ready(self._pool, self.count))

    async def ready(self) -> None:
        """Wait until they can take calls."""
        self.prepare()
        if self._starting is not None:
            await asyncio.shield(self._starting)

    async def call(self, name: str, calls: Sequence[Call], code: bytes) -> list[Outcome]:
        """Call the asset's function for each; a call in which the process dies fails, and no other.

        `code` is the digest of the fingerprint that lineage will say it was made with: the processes load the project themselves,
        and refuse when what they found is something else.
        """
        await self.ready()
        assert self._pool is not None
        pool = self._pool
        try:
            return await _submitted(pool, _call_in_worker, name, calls, code)
        except BrokenProcessPool:
            if self._pool is pool:
                self._pool = self._starting = None
        # Which of all that ran did it is not known: they are called again, one at a time in a process of its own.
        return [await self._alone(name, call, code) for call in calls]

    async def _alone(self, name: str, call: Call, code: bytes) -> Outcome:
        async with self._one_suspect:
            cell = self._cell = self._cell or self._started(1)
            try:
                return (await _submitted(cell, _call_in_worker, name, [call], code))[0]
            except BrokenProcessPool:
                self._cell = None
        problem = "The process that ran it ended in the middle: out of memory, os._exit, or a crash in native code."
        return Outcome([], 0.0, problem)

    def close(self) -> None:
        """End the processes, also those that are in the middle of a call."""
        for pool in filter(None, (self._pool, self._cell)):
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
            context.set_forkserver_preload([__name__])
        arguments = (*self._arguments, dict(os.environ))
        return ProcessPoolExecutor(count, mp_context=context, initializer=_start_worker, initargs=arguments)


_one_start = threading.Lock()


async def _submitted(pool: ProcessPoolExecutor, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    def submit() -> Future[T]:
        with _one_start, _without_main():
            return pool.submit(function, *args, **kwargs)

    # In a thread, because submitting starts a process where one is wanted, and the first of them takes its time.
    return await asyncio.wrap_future(await asyncio.to_thread(submit))


async def _ready(pool: ProcessPoolExecutor, count: int) -> None:
    with suppress(BrokenProcessPool, RuntimeError):  # whoever calls finds out, or the pool was closed meanwhile
        await asyncio.gather(*(_submitted(pool, os.getpid) for _ in range(count)))


@contextmanager
def _without_main() -> Iterator[None]:
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
    _graph(root, project)
    _worker.update(root=root, project=project)


def _end_with_parent() -> None:
    """A parent that was killed cannot end its workers: they see to it themselves."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


_worker: dict[str, str] = {}


@lru_cache(maxsize=1)
def _graph(root: str, project: str) -> Any:
    return load(Path(root), project)


@lru_cache(maxsize=1024)
def _code(root: str, project: str, name: str) -> bytes:
    return fingerprint_of(_graph(root, project), name).digest


def _call_in_worker(name: str, calls: Sequence[Call], code: bytes) -> list[Outcome]:
    asset = _graph(_worker["root"], _worker["project"]).assets[name]
    if _code(_worker["root"], _worker["project"], name) != code:
        return [Outcome([], 0.0, "The code was edited while the run was under way: run again.") for _ in calls]
    return [call_sync(asset, call, Path(_worker["root"])) for call in calls]


def _failed(error: BaseException, root: Path, started: float, timeout: float | None = None) -> Outcome:
    text = f"took longer than its timeout of {timeout:g} s" if timeout is not None else _text(error)
    kind = type(error).__name__
    told = f"{kind}: {text}" if text else kind
    seconds = time.perf_counter() - started
    return Outcome([], seconds, _printable(told, ERROR_LIMIT), _printable(user_traceback(error, root), TRACEBACK_LIMIT))


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # it is the user's, and says nothing then
        return ""


def _printable(text: str, limit: int) -> str:
    """The text as it can be kept and shown: not longer than anyone reads, control characters and lone surrogates escaped."""
    if len(text) > limit:
        text = f"{text[: limit // 2]} [... {len(text) - limit:,} characters ...] {text[-limit // 2 :]}"
    return CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def user_traceback(error: BaseException, root: Path) -> str:
    """The traceback without the frames that are not the user's: this package, the standard library, installed packages."""
    shown = traceback.TracebackException.from_exception(error)
    waiting = [shown]
    while waiting:
        one = waiting.pop()
        one.stack = traceback.StackSummary.from_list([f for f in one.stack if _is_users(f.filename, root)])
        waiting += [e for e in (one.__cause__, one.__context__, *(one.exceptions or ())) if e is not None]
    return "".join(shown.format())


def _is_users(file: str, root: Path) -> bool:
    if file.startswith(str(Path(__file__).parent)) or "site-packages" in file:
        return False
    if file.startswith(str(root)):
        return True
    return not file.startswith((sysconfig.get_path("stdlib"), sys.prefix, "<frozen"))


def _backoff(attempt: int) -> float:
    """Exponential with full jitter: half to all of 0.5 s, 1 s, 2 s, ... up to 30 s."""
    return min(BACKOFF_LIMIT, BACKOFF_SECONDS * 2**attempt) * random.uniform(0.5, 1.0)  # noqa: S311 - no secret
