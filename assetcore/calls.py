"""Calls: how is a unit's function called, and what is seen when it fails?

Async functions run on the event loop, so many at once. Sync functions are CPU work and run off it, where a runner takes them.
Whatever a function raises becomes an `Outcome` with the traceback of the user's own code; it never stops other units.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
import signal
import sys
import sysconfig
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from assetcore import llm, telemetry
from assetcore.assets import Asset
from assetcore.checks import Check, Verdict, verdict_of
from assetcore.documents import Document, restrict
from assetcore.errors import GatewayError
from assetcore.owned import own
from assetcore.spending import Spent, account
from assetcore.values import encode
from assetcore.watch import UndeclaredInput, watch

__all__ = ["Call", "Outcome", "Slot", "ask_async", "ask_sync", "call_async", "call_sync", "printable", "waited_for"]

BACKOFF_SECONDS = 0.5
BACKOFF_LIMIT = 30.0
ERROR_LIMIT = 4_000
TRACEBACK_LIMIT = 20_000
LONGEST_WAIT = 3600.0
"""Seconds that a service may ask to be waited for; a unit that would have to wait longer has failed."""
SECRETS = ("KEY", "SECRET", "TOKEN", "PASSWORD")
"""How names end in the environment that hold secrets; shorter ones than SHORTEST_SECRET would be found everywhere."""
SHORTEST_SECRET = 8
PASSWORD = re.compile(r"(\b[a-z][a-z0-9+.-]*://[^\s/:@]*:)[^\s/@]+@", re.IGNORECASE)
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")

_waiting: ContextVar[asyncio.Task[Any] | None] = ContextVar("assetcore_waiting", default=None)


@contextmanager
def waited_for() -> Iterator[None]:
    """The calls inside have tasks of their own, for which this task waits. It is this one that is cancelled where the run is stopped:
    what a function does to its own fails its unit alone.
    """
    token = _waiting.set(asyncio.current_task())
    try:
        yield
    finally:
        _waiting.reset(token)


@dataclass(frozen=True, slots=True)
class Call:
    """One unit's call: the values of its parameters, which of them are restricted to some fields, and who is called."""

    values: dict[str, Any]
    default_name: str
    who: str
    restricted: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def ended(self) -> None:
        """Let go of what was given: what the call gave may have to wait until it is kept."""
        self.values.clear()

    def arguments(self) -> dict[str, Any]:
        """The arguments of one call: what a function does to them must not be seen by the next."""
        owned = {name: own(value) for name, value in self.values.items()}
        return owned | {name: restrict(owned[name], chosen) for name, chosen in self.restricted.items()}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a call gave: documents, or an error with the traceback of the user's code; and what it said that it cost.

    What a check said is its `verdict`. `again` says after how many seconds at the earliest it may be tried again, None that it
    would fail in the same way. `undeclared` is what was read beside what the function was given, `heard` what it logged and marked in
    a worker. `answers` are the keys of what models answered that its documents rest on.
    """

    documents: list[Document]
    seconds: float
    error: str | None = None
    traceback: str = ""
    spent: Spent | None = None
    verdict: Verdict | None = None
    again: float | None = 0.0
    undeclared: tuple[UndeclaredInput, ...] = ()
    heard: telemetry.Heard | None = None
    answers: tuple[str, ...] = ()


async def ask_async(check: Check[..., Any], call: Call, root: Path) -> Outcome:
    """Ask an async check."""
    started = time.perf_counter()
    with account() as costs, llm.Attempt() as asked:
        try:
            verdict = verdict_of(await check.function(**call.arguments()))
            await _heed_own_cancellation()
        except BaseException as error:
            _raise_if_stopped(error)
            verdict = _verdict(error, root, started)
            if verdict.status == "error":
                await llm.failed(asked, error)
    return _said(verdict, started, costs.spent)


def ask_sync(check: Check[..., Any], call: Call, root: Path) -> Outcome:
    """Ask a sync check."""
    started = time.perf_counter()
    with account() as costs:
        try:
            verdict = verdict_of(check.function(**call.arguments()))
        except BaseException as error:
            verdict = _verdict(error, root, started)
    return _said(verdict, started, costs.spent)


Slot = Callable[[], AbstractAsyncContextManager[object]]


async def call_async(asset: Asset[..., Any], call: Call, root: Path, slot: Slot = nullcontext) -> Outcome:
    """Call an async function, with its timeout and retries; each attempt in a slot, for which its time does not run."""
    attempt, waited, started = 0, 0.0, time.perf_counter()
    with account() as costs, watch(root, settled=asset.options.version is not None) as watched:
        while True:
            asked = time.perf_counter()
            async with slot():
                waited += time.perf_counter() - asked
                with llm.Attempt() as asked:
                    outcome = await _attempt(asset, call, root, asked)
            if outcome.error is None or outcome.again is None or attempt == asset.options.retries:
                break
            await asyncio.sleep(max(_backoff(attempt), outcome.again))
            attempt += 1
            telemetry.enrich(attempts=attempt + 1)
    if not (attempt or costs.entries or watched.found):
        return outcome
    took = time.perf_counter() - started - waited
    return replace(outcome, seconds=took, spent=costs.spent, undeclared=watched.inputs)


async def _attempt(asset: Asset[..., Any], call: Call, root: Path, asked: llm.Attempt) -> Outcome:
    started = time.perf_counter()
    limit = None if asset.options.timeout is None else asyncio.timeout(asset.options.timeout)
    try:
        async with limit or nullcontext():
            returned: Any = asset.function(**call.arguments())
            if asset.output.stream:
                returned = [document async for document in returned]
            else:
                returned = await returned
        if limit is not None and limit.expired():  # and the function has swallowed what told it so
            raise TimeoutError
        await _heed_own_cancellation()
        documents = encode(asset.output, returned, call.default_name, call.who)
        return Outcome(documents, time.perf_counter() - started, answers=asked.keys)
    except BaseException as error:
        _raise_if_stopped(error)
        # A TimeoutError where the limit has not expired is the function's own.
        timeout = asset.options.timeout if limit is not None and limit.expired() else None
        if timeout is None:
            await llm.failed(asked, error)
        return _failed(error, root, started, timeout)


def call_sync(asset: Asset[..., Any] | Check[..., Any], call: Call, root: Path) -> Outcome:
    """Call a sync function, with its retries; a check's is asked."""
    with telemetry.hear() as heard:
        outcome = ask_sync(asset, call, root) if isinstance(asset, Check) else _call_sync(asset, call, root)
    return replace(outcome, heard=heard) if heard.lines or heard.spans else outcome


def _call_sync(asset: Asset[..., Any], call: Call, root: Path) -> Outcome:
    started = time.perf_counter()
    with account() as costs, watch(root, settled=asset.options.version is not None) as watched:
        for attempt in range(asset.options.retries + 1):
            try:
                returned: Any = asset.function(**call.arguments())
                if asset.output.stream:
                    returned = list(returned)
                documents = encode(asset.output, returned, call.default_name, call.who)
                took = time.perf_counter() - started
                return Outcome(documents, took, spent=costs.spent, undeclared=watched.inputs)
            except BaseException as error:
                if attempt == asset.options.retries:
                    return replace(_failed(error, root, started), spent=costs.spent, undeclared=watched.inputs)
                time.sleep(_backoff(attempt))
    raise AssertionError("the loop returns")


def _raise_if_stopped(error: BaseException) -> None:
    """Go on raising where the run is being stopped; otherwise it is the function that raised it."""
    cancelled = isinstance(error, asyncio.CancelledError) and _is_cancelled(_waiting.get() or asyncio.current_task())
    if cancelled or (isinstance(error, KeyboardInterrupt) and _is_ctrl_c(error)):
        raise error


def _is_cancelled(task: asyncio.Task[Any] | None) -> bool:
    return task is not None and task.cancelling() > 0


async def _heed_own_cancellation() -> None:
    """Raise CancelledError here where the function has cancelled its own task and awaited nothing since: its task would end with it."""
    if _is_cancelled(asyncio.current_task()) and not _is_cancelled(_waiting.get()):
        await asyncio.sleep(0)


def _is_ctrl_c(error: KeyboardInterrupt) -> bool:
    """Whether a signal raised it: asyncio, or the command, cancels at the first Ctrl-C and raises at another, or Python does."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    handler = signal.getsignal(signal.SIGINT)
    raises = {asyncio.runners.__name__, getattr(handler, "__module__", None)}
    return handler is signal.default_int_handler or frame.f_globals.get("__name__") in raises


def _said(verdict: Verdict, started: float, spent: Spent | None) -> Outcome:
    shown = replace(verdict, message=printable(verdict.message))
    return Outcome([], time.perf_counter() - started, spent=spent, verdict=shown)


def _verdict(error: BaseException, root: Path, started: float) -> Verdict:
    """What an exception in a check says: AssertionError and ValueError that it failed, any other that it could not say."""
    found = _failed(error, root, started)
    if not isinstance(error, AssertionError | ValueError):
        return Verdict("error", found.error or "", found.traceback)
    frames = [f for f in traceback.extract_tb(error.__traceback__) if _is_users(f.filename, root)]
    line = frames[-1].line if frames else None
    return Verdict("failed", _text(error) or line or type(error).__name__)


def _failed(error: BaseException, root: Path, started: float, timeout: float | None = None) -> Outcome:
    text = f"took longer than its timeout of {timeout:g} s" if timeout is not None else _text(error)
    kind = type(error).__name__
    told = f"{kind}: {text}" if text else kind
    seconds = time.perf_counter() - started
    found = Outcome([], seconds, printable(told), printable(user_traceback(error, root), TRACEBACK_LIMIT))
    if isinstance(error, GatewayError):  # a question that was refused would be refused again
        wait = error.retry_after or 0.0
        return replace(found, again=wait if error.transient and wait <= LONGEST_WAIT else None)
    return found


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except BaseException:  # it is the user's, and says nothing then
        return ""


def printable(text: str, limit: int = ERROR_LIMIT) -> str:
    """The text as it can be kept and shown: no secrets, not longer than anyone reads, control characters and lone surrogates escaped."""
    text = _without_secrets(text)
    if len(text) > limit:
        text = f"{text[: limit // 2]} [... {len(text) - limit:,} characters ...] {text[-limit // 2 :]}"
    return CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def _without_secrets(text: str) -> str:
    """The text with stars in the place of passwords in addresses, and of what the environment has under names such as SHOP_API_KEY.

    What an error says is kept in lineage, and shown to everybody who looks at it there, in logs and in Prefect.
    """
    named = (value for name, value in os.environ.items() if name.upper().endswith(SECRETS))
    for value in sorted({one for one in named if len(one) >= SHORTEST_SECRET}, key=len, reverse=True):
        text = text.replace(value, "***")
    return PASSWORD.sub(r"\1***@", text)


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
