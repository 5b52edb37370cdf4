"""Calls: how is a unit's function called, and what is seen when it fails?

Async functions run on the event loop, so many at once. Sync functions are CPU work and run off it: in a thread while there is
too little to pay for a process, else in a pool of processes that is started once a run. Whatever a function raises becomes an
`Outcome` with the traceback of the user's own code; it never stops other units.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import random
import signal
import sys
import sysconfig
import time
import traceback
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from assetcore.assets import Asset
from assetcore.documents import Document, restrict
from assetcore.loading import load
from assetcore.values import encode

__all__ = ["Call", "Outcome", "Processes", "call_async", "call_sync"]

BACKOFF_SECONDS = 0.5
BACKOFF_LIMIT = 30.0


@dataclass(frozen=True, slots=True)
class Call:
    """One unit's call: the values of its parameters, which of them are restricted to some fields, and who is called."""

    values: Mapping[str, Any]
    default_name: str
    who: str
    restricted: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def arguments(self) -> dict[str, Any]:
        return {n: restrict(v, self.restricted[n]) if n in self.restricted else v for n, v in self.values.items()}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a call gave: documents, or an error with the traceback of the user's code."""

    documents: list[Document]
    seconds: float
    error: str | None = None
    traceback: str = ""


async def call_async(asset: Asset[..., Any], call: Call, root: Path) -> Outcome:
    """Call an async function, with its timeout and retries."""
    started = time.perf_counter()
    for attempt in range(asset.options.retries + 1):
        try:
            async with asyncio.timeout(asset.options.timeout):
                returned: Any = asset.function(**call.arguments())
                if asset.output.stream:
                    returned = [document async for document in returned]
                else:
                    returned = await returned
            return Outcome(encode(asset.output, returned, call.default_name, call.who), time.perf_counter() - started)
        except Exception as error:
            if attempt == asset.options.retries:
                timeout = asset.options.timeout if isinstance(error, TimeoutError) else None
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
        except Exception as error:
            if attempt == asset.options.retries:
                return _failed(error, root, started)
            time.sleep(_backoff(attempt))
    raise AssertionError("the loop returns")


class Processes:
    """A pool of processes that have the project loaded; started on first use, ended by `close`."""

    def __init__(self, root: Path, project: str, count: int) -> None:
        self.count = count
        self._arguments = (str(root), project)
        self._pool: ProcessPoolExecutor | None = None

    async def call(self, name: str, calls: Sequence[Call]) -> list[Outcome]:
        """Call the asset's function for each; a process that dies fails the calls that it had."""
        if self._pool is None:
            self._pool = ProcessPoolExecutor(
                self.count,
                mp_context=multiprocessing.get_context("spawn"),
                initializer=_start_worker,
                initargs=self._arguments,
            )
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, _call_in_worker, name, calls)
        except BrokenProcessPool:
            self._pool = None
            if len(calls) == 1:
                problem = f"{calls[0].who}: the process that ran it died (out of memory, or a crash in native code)."
                return [Outcome([], 0.0, problem)]
            # Which of them did it is not known: one at a time, so that only the culprit fails.
            return [outcome for call in calls for outcome in await self.call(name, [call])]

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._pool = None


def _start_worker(root: str, project: str) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    os.environ["ASSETCORE_WORKER"] = "1"
    _graph(root, project)
    _worker.update(root=root, project=project)


_worker: dict[str, str] = {}


@lru_cache(maxsize=1)
def _graph(root: str, project: str) -> Any:
    return load(Path(root), project)


def _call_in_worker(name: str, calls: Sequence[Call]) -> list[Outcome]:
    asset = _graph(_worker["root"], _worker["project"]).assets[name]
    return [call_sync(asset, call, Path(_worker["root"])) for call in calls]


def _failed(error: Exception, root: Path, started: float, timeout: float | None = None) -> Outcome:
    text = f"took longer than its timeout of {timeout:g} s" if timeout is not None else str(error)
    kind = type(error).__name__
    return Outcome([], time.perf_counter() - started, f"{kind}: {text}" if text else kind, user_traceback(error, root))


def user_traceback(error: BaseException, root: Path) -> str:
    """The traceback without the frames that are not the user's: this package, the standard library, installed packages."""
    shown = traceback.TracebackException.from_exception(error)
    inner: traceback.TracebackException | None = shown
    while inner is not None:
        own = [f for f in inner.stack if _is_users(f.filename, root)]
        inner.stack = traceback.StackSummary.from_list(own)
        inner = inner.__cause__ or (None if inner.__suppress_context__ else inner.__context__)
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
