"""Redis: locks with leases, limits of rates, and keys that stand for work that was begun.

Nothing here is needed to be right: losing Redis loses no data, and no two units become current because of it. Every key has a
time to live, so that nothing stays behind when a process dies.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import secrets
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any, Self, cast

import redis
import redis.connection
import redis.retry
from redis.asyncio import Redis
from redis.asyncio.lock import Lock
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff, NoBackoff
from redis.exceptions import AuthenticationError, LockNotOwnedError, RedisError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from assetcore.errors import AssetcoreError, ServiceError
from assetcore.telemetry import get_pipeline_logger

__all__ = [
    "Lease",
    "LeaseLostError",
    "LockHeldError",
    "Renewal",
    "as_service_error",
    "async_lock",
    "get_async_client",
    "idempotency_key",
    "rate_limit",
]

logger = get_pipeline_logger(__name__)

_UNREACHABLE = (RedisConnectionError, RedisTimeoutError, OSError)
_POLL_SECONDS = 0.1
_FENCE_SECONDS = 24 * 3600
_FENCE = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
    return 0
end
local now = redis.call('TIME')
local fence = math.max(now[1] * 1000000 + now[2], tonumber(redis.call('GET', KEYS[2]) or '0') + 1)
redis.call('SET', KEYS[2], string.format('%.0f', fence), 'EX', ARGV[2])
return string.format('%.0f', fence)
"""
"""Whoever holds the lock gets a number that is larger than that of every holder before, also after all keys were lost."""
_RENEW = """
local holder = redis.call('GET', KEYS[1])
if holder == ARGV[1] then return redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
if holder or redis.call('GET', KEYS[2]) ~= ARGV[3] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""
"""A lease that has ended, on a machine that slept, goes on where nobody has held the lock since: the fence is still ours."""
_WHERE = {"host", "port", "path", "db", "username", "password", "credential_provider"}
_ANSWER_SECONDS = 5.0
_GIVE_UP_SECONDS = 25.0
"""Nothing is sent again after so many seconds without an answer."""
_TELL_SECONDS = 30.0
_LOOK_SECONDS = 0.2


WINDOW = """
local function clock()
    local time = redis.call('TIME')
    return time[1] * 1000 + math.floor(time[2] / 1000)
end
local function left_in_window(begun, now, window, limit)
    redis.call('ZREMRANGEBYSCORE', begun, '-inf', now - window)
    local left = limit - redis.call('ZCARD', begun)
    if left > 0 then return left, 0 end
    local oldest = redis.call('ZRANGE', begun, 0, 0, 'WITHSCORES')
    return 0, oldest[2] and oldest[2] + window - now or 0
end
"""
"""What scripts of Redis begin with that let so many begin within a sliding window: how many more now, else after how many milliseconds."""
_RATE = (
    WINDOW
    + """
local now, window, token = clock(), tonumber(ARGV[1]), ARGV[3]
if redis.call('ZSCORE', KEYS[1], token) then return 0 end
local left, pause = left_in_window(KEYS[1], now, window, tonumber(ARGV[2]))
if left > 0 then redis.call('ZADD', KEYS[1], now, token) end
redis.call('PEXPIRE', KEYS[1], 2 * window)
return left > 0 and 0 or math.max(1, math.ceil(pause))
"""
)


class LockHeldError(AssetcoreError):
    """The lock is held by somebody else, and the time to wait for it is over."""


class LeaseLostError(AssetcoreError):
    """The lock was held, but its lease could not be renewed in time: somebody else may hold it now."""


class Lease:
    """A lock that is held. `fence` grows with each holder: what writes with it can refuse a holder that came too late."""

    def __init__(self, key: str, fence: int) -> None:
        self.key = key
        self.fence = fence
        self.held = True
        """Whether the lease has been renewed in time until now."""
        self._lost = asyncio.Event()

    def check(self) -> None:
        """Raise LeaseLostError unless the lock is still held."""
        if not self.held:
            raise LeaseLostError(
                f"The lock {self.key} was lost while it was held: its lease could not be renewed in time.",
                hint="Somebody else may be at the same work now; run again.",
            )

    async def lost(self) -> None:
        """Return when the lease is lost."""
        await self._lost.wait()


class Renewal:
    """A thread that renews what is leased, with a client of its own: what keeps the event loop busy costs nobody his lease.

    `renew` is called with that client after `pause` seconds, and again after as many as it returns, until it returns None, `end` is
    called or the event loop is no more. It ends with the process, and holds up no exit. One that Python 3.11 ends before it begins, because
    a debugger or coverage traces threads (gh-98257), is started again.
    """

    def __init__(self, client: Redis, pause: float, renew: Callable[[redis.Redis], float | None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopped = threading.Event()
        self._ended = asyncio.Event()
        self._begun = threading.Event()
        self._given = (client, pause, renew)
        self._start()

    def _start(self) -> None:
        self._thread = threading.Thread(target=self._work, args=self._given, name="assetcore-lease", daemon=True)
        self._thread.start()
        self._look = self._loop.call_later(_LOOK_SECONDS, self._look_after)

    def _look_after(self) -> None:
        if not self._begun.is_set() and not self._thread.is_alive():
            self._start()

    def soon(self, call: Callable[[], object]) -> None:
        """Have the event loop call this, from the thread."""
        with contextlib.suppress(RuntimeError):  # it is closed
            self._loop.call_soon_threadsafe(call)

    async def end(self) -> None:
        """End the thread. One that waits for a Redis which does not answer ends by itself."""
        self._stopped.set()
        self._look.cancel()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1 if self._thread.is_alive() else 0):
                await self._ended.wait()

    def _work(self, client: Redis, pause: float | None, renew: Callable[[redis.Redis], float | None]) -> None:
        self._begun.set()
        own: redis.Redis | None = None  # most leases end before they are renewed
        try:
            while pause is not None and not self._stopped.wait(pause) and not self._loop.is_closed():
                own = own or _without_loop(client, pause)
                pause = renew(own)
        finally:
            if own is not None:
                own.close()
            self.soon(self._ended.set)


class _Patience(Retry):
    """Tries again, but not for ever, and says what is waited for. All connections of a client share it."""

    address = ""
    _given_up = _told = -math.inf
    """When it was last given up, and when it was last told."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    async def call_with_retry(
        self, do: Callable[[], Awaitable[Any]], fail: Callable[..., Awaitable[Any]], *arguments: Any, **options: Any
    ) -> Any:
        begun = time.monotonic()
        give_up = begun + (0 if begun - self._given_up < _TELL_SECONDS else _GIVE_UP_SECONDS)

        async def failed(error: Exception, *counted: int) -> None:
            await fail(error, *counted)
            if not isinstance(error, (RedisTimeoutError, TimeoutError)):
                return
            now = time.monotonic()
            if now >= give_up:
                self._given_up = now
                raise error
            if now - self._told >= _TELL_SECONDS:
                self._told = now
                logger.warning("Redis at %s does not answer; waiting for it, for half a minute", self.address)

        return await super().call_with_retry(do, failed, *arguments, **options)


def get_async_client(url: str) -> Redis:
    """A client for the Redis at an address; whoever asks closes it with `aclose()`. Nothing is contacted before its first use.

    A command whose connection breaks is sent again for about two seconds, so that a restart of Redis in between goes unnoticed. One that
    is not answered at all is sent again, for half a minute; that is told, and the commands after it wait for five seconds.
    """
    retry = _Patience(ExponentialBackoff(cap=0.5, base=0.05), retries=6)
    try:
        client = Redis.from_url(
            url,
            socket_timeout=_ANSWER_SECONDS,
            socket_connect_timeout=_ANSWER_SECONDS,
            health_check_interval=30,
            retry=retry,
            retry_on_error=[*_UNREACHABLE],
        )
    except ValueError as error:
        raise ServiceError(
            f"The address of Redis cannot be used: {error}.", hint="Write redis://:password@host:6379/0."
        ) from None
    retry.address = _address(client)
    return client


@asynccontextmanager
async def async_lock(
    client: Redis,
    key: str,
    ttl: float,
    *,
    wait: float | None = None,
    on_wait: Callable[[], object] | None = None,
    on_lost: Callable[[], object] | None = None,
) -> AsyncIterator[Lease]:
    """Hold a lock, among all processes that use this Redis.

    The lease lasts `ttl` seconds and is renewed by a thread while the block runs, also while that keeps the event loop busy; a process
    that dies loses it after `ttl` at the latest. `wait` seconds are spent on waiting for another holder (None: as long as it takes),
    after calling `on_wait` once. Only its holder releases it. If the lease could not be renewed in time, the block goes on: `lease.held`
    says so, and `on_lost` is called as soon as the event loop is free.

    Raises LockHeldError after `wait`, ServiceError when Redis cannot be reached.
    """
    if ttl <= 0:
        raise ValueError(f"the lease of {key} needs a time to live, found {ttl}")
    lock = Lock(client, key, timeout=ttl, thread_local=False)
    with as_service_error(client):
        lease = await _acquire(client, lock, key, wait, on_wait)
    renewal: Renewal

    def lose() -> None:
        lease.held = False
        if on_lost is not None:
            renewal.soon(on_lost)
        renewal.soon(lease._lost.set)

    renewal = Renewal(client, ttl / 3, _renewing(lease, lock, ttl, lose))
    try:
        yield lease
    finally:
        # Also when the block is cancelled: the lock is given back, and not left to its lease.
        await asyncio.shield(_release(lock, renewal))


async def idempotency_key(client: Redis, key: str, ttl: float) -> bool:
    """Whether this is the first to ask for `key` within `ttl` seconds. Raises ServiceError when Redis cannot be reached."""
    if ttl <= 0:
        raise ValueError(f"{key} needs a time to live, found {ttl}")
    mine = secrets.token_bytes(16)
    with as_service_error(client):
        # With GET, because a command that is sent again after its answer was lost must know its own value.
        found = await client.set(key, mine, nx=True, px=_milliseconds(ttl), get=True)
    return found is None or found == mine


async def rate_limit(client: Redis, bucket: str, limit: int, window_seconds: float) -> float:
    """0.0 if one more may begin now, which is counted; else after how many seconds to ask again.

    Within any `window_seconds`, by the clock of Redis, at most `limit` begin, among all that use this Redis. Nobody is remembered who
    was refused: where many wait, and in turn, a pool of the settings is what they need. Raises ServiceError when Redis cannot be reached.

        while pause := await rate_limit(client, "webhooks", 10, 60):
            await asyncio.sleep(pause)
    """
    if limit < 1 or window_seconds <= 0:
        raise ValueError(f"{bucket} needs a limit and a window, found {limit} in {window_seconds} s")
    # The token, because a command that is sent again after its answer was lost must know its own.
    arguments = (_RATE, 1, f"assetcore:rate:{bucket}", _milliseconds(window_seconds), limit, secrets.token_hex(8))
    with as_service_error(client):
        pause = await cast("Awaitable[int]", client.eval(*arguments))
    return pause / 1000


async def _acquire(
    client: Redis, lock: Lock, key: str, wait: float | None, on_wait: Callable[[], object] | None
) -> Lease:
    token = secrets.token_hex(16)
    give_up = None if wait is None else time.monotonic() + wait
    waited = False
    while True:
        if await lock.acquire(blocking=False, token=token):
            arguments = (_FENCE, 2, key, f"{key}:fence", token, str(_FENCE_SECONDS))
            fence = int(await cast("Awaitable[str | bytes | int]", client.eval(*arguments)))
            if fence:  # none if the lease ended in between, or Redis lost it
                return Lease(key, fence)
        if give_up is not None and time.monotonic() >= give_up:
            raise LockHeldError(
                f"The lock {key} is held by somebody else.", hint="Wait until the other run has ended, and try again."
            )
        if on_wait is not None and not waited:
            on_wait()
        waited = True
        await asyncio.sleep(_POLL_SECONDS)


def _renewing(lease: Lease, lock: Lock, ttl: float, lose: Callable[[], None]) -> Callable[[redis.Redis], float | None]:
    """Renews the lease until it is lost; a Redis that is away for a moment is asked again until the lease has run out."""
    until = time.monotonic() + ttl
    arguments = (_RENEW, 2, lease.key, f"{lease.key}:fence", lock.local.token, _milliseconds(ttl), lease.fence)

    def renew(client: redis.Redis) -> float | None:
        nonlocal until
        asked, pause = time.monotonic(), min(_POLL_SECONDS, ttl / 10)
        try:
            if client.eval(*arguments):
                until = asked + ttl
                return ttl / 3
        except (RedisError, OSError) as error:
            if time.monotonic() + pause < until:
                return pause
            logger.warning("the lease of %s could not be renewed in time: %s", lease.key, error)
        logger.warning("the lock %s is no longer held", lease.key)
        lose()
        return None

    return renew


def _without_loop(client: Redis, patience: float) -> redis.Redis:
    """A client for the same Redis that needs no event loop, and gives each question so long at most."""
    pool = client.connection_pool
    where = {k: v for k, v in pool.connection_kwargs.items() if k in _WHERE or k.startswith("ssl_")}
    kind = getattr(redis.connection, pool.connection_class.__name__)
    timeout = min(_ANSWER_SECONDS, patience)
    times = {"socket_timeout": timeout, "socket_connect_timeout": timeout, "retry": redis.retry.Retry(NoBackoff(), 0)}
    return redis.Redis.from_pool(redis.ConnectionPool(kind, **where, **times))


async def _release(lock: Lock, renewal: Renewal) -> None:
    await renewal.end()
    try:
        async with asyncio.timeout(_ANSWER_SECONDS):  # nobody waits for half a minute for what ends by itself
            await lock.release()
    except LockNotOwnedError:
        pass  # lost already; it is somebody else's to release
    except (RedisError, OSError) as error:
        reason = str(error) or "Redis does not answer"
        logger.warning("the lock %s could not be released, and ends with its lease: %s", lock.name, reason)


@contextlib.contextmanager
def as_service_error(client: Redis) -> Iterator[None]:
    """What Redis, or its absence, raises inside becomes a ServiceError that names its address."""
    try:
        yield
    except AuthenticationError as error:
        raise ServiceError(
            f"Redis at {_address(client)} refuses the password: {error}.", hint="Correct REDIS_URL."
        ) from error
    except _UNREACHABLE as error:
        raise ServiceError(
            f"Redis at {_address(client)} cannot be reached: {error}.",
            hint="Start the embedded services with `aipctl up`, or correct REDIS_URL.",
        ) from error
    except RedisError as error:
        raise ServiceError(
            f"Redis at {_address(client)} refuses: {error}.",
            hint="Look at its password and its memory: `aipctl check`.",
        ) from error


def _address(client: Redis) -> str:
    """Host and port, or the socket; never the password."""
    known = client.connection_pool.connection_kwargs
    return str(known.get("path") or f"{known.get('host', 'localhost')}:{known.get('port', 6379)}")


def _milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1000))
