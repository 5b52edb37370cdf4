"""Pools: may one more call begin now?

A pool stands for something that many units share, such as a model behind an API, and has limits in the settings: how many calls
at once, how many a minute. They hold for all assets, runs, processes and machines that use the same Redis. A slot is taken in the
run's process before a call begins, wherever it is then called, so that workers need no Redis.

Slots are leased: those of a process that died are free again after `LEASE` seconds; a thread renews those of one whose event loop is
busy. They are given in the order in which they were asked for, whichever process asks. One script in Redis decides, by the clock of
Redis: what it knows is who holds a slot, who waits since when, and which calls began within the last minute.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from assetcore.errors import ServiceError
from assetcore.settings import PoolLimits
from assetcore.telemetry import get_pipeline_logger

if TYPE_CHECKING:
    import redis
    from redis.asyncio import Redis

    from assetcore.cache import Renewal

__all__ = ["Pool", "Pools"]

logger = get_pipeline_logger(__name__)

LEASE = 15.0
"""Seconds for which a slot outlives its holder."""
WAITING_LEASE = 5.0
"""Seconds for which a place in the queue outlives whoever waits there."""
MINUTE = 60.0
POLL = 0.05
"""Seconds between two looks at Redis while somebody waits; a slot that this process gives back is given on at once."""
SCRIPT = """
local held, queue, waiting, begun, last = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local lease, patience, minute, concurrency, per_minute = unpack(ARGV, 1, 5)
local released, holding, asking = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])
local now = clock()
local at = 9
for i = at, at + released - 1 do
    for _, key in ipairs({held, queue, waiting}) do redis.call('ZREM', key, ARGV[i]) end
end
at = at + released
for i = at, at + holding - 1 do redis.call('ZADD', held, now + lease, ARGV[i]) end
at = at + holding
redis.call('ZREMRANGEBYSCORE', held, '-inf', now)
local mine, granted = {}, {}
for i = at, at + asking - 1 do
    local token = ARGV[i]
    if redis.call('ZSCORE', held, token) then
        table.insert(granted, token)
    else
        mine[token] = true
        redis.call('ZADD', waiting, now + patience, token)
        if not redis.call('ZSCORE', queue, token) then
            redis.call('ZADD', queue, redis.call('INCR', last), token)
        end
    end
end
for _, token in ipairs(redis.call('ZRANGEBYSCORE', waiting, '-inf', now)) do
    redis.call('ZREM', waiting, token)
    redis.call('ZREM', queue, token)
end
local room, pause = redis.call('ZCARD', queue), 0
if tonumber(concurrency) > 0 then room = math.min(room, concurrency - redis.call('ZCARD', held)) end
if tonumber(per_minute) > 0 then
    local left
    left, pause = left_in_window(begun, now, minute, per_minute)
    room = math.min(room, left)
end
if room > 0 then
    for _, token in ipairs(redis.call('ZRANGE', queue, 0, room - 1)) do
        if mine[token] then
            redis.call('ZREM', queue, token)
            redis.call('ZREM', waiting, token)
            redis.call('ZADD', held, now + lease, token)
            if tonumber(per_minute) > 0 then redis.call('ZADD', begun, now, token) end
            table.insert(granted, token)
        end
    end
end
for _, key in ipairs(KEYS) do redis.call('PEXPIRE', key, math.max(2 * minute, 2 * lease)) end
return {math.ceil(pause), granted}
"""
RENEW = """
local now = clock()
for i = 3, #ARGV do redis.call('ZADD', KEYS[1], 'XX', now + ARGV[1], ARGV[i]) end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
"""
"""Renews what is still held: what was given back meanwhile is not taken again."""


@dataclass(slots=True)
class Pool:
    """A pool as one process uses it. One task speaks with Redis for all that wait here."""

    client: Redis
    name: str
    limits: PoolLimits
    _waiting: dict[str, asyncio.Future[None]] = field(default_factory=dict)
    _held: set[str] = field(default_factory=set)
    _released: set[str] = field(default_factory=set)
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _speaking: asyncio.Task[None] | None = None
    _renewal: Renewal | None = None
    _closed: bool = False
    _unanswered: bool = False
    """Whether Redis could not be asked the last time."""

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Hold a slot of the pool while the block runs. Raises ServiceError when Redis cannot be reached."""
        token = secrets.token_hex(8)
        granted = self._waiting[token] = asyncio.get_running_loop().create_future()
        if self._speaking is None or self._speaking.done():
            self._speaking = asyncio.create_task(self._speak())
        if self._renewal is None:
            from assetcore import cache  # imported already, by whoever made the client

            self._renewal = cache.Renewal(self.client, LEASE / 3, self._renew)
        self._wake.set()
        try:
            await granted
            yield
        finally:
            self._waiting.pop(token, None)
            self._held.discard(token)
            self._released.add(token)
            self._wake.set()

    async def close(self) -> None:
        """Give back what is still held or asked for."""
        self._released |= {*self._held, *self._waiting}
        self._held.clear()
        self._waiting.clear()
        self._closed = True
        self._wake.set()
        if self._renewal is not None:
            await self._renewal.end()
        if self._speaking is not None:  # not cancelled: the client of Redis may not notice
            await asyncio.wait({self._speaking})
        if self._released and not self._unanswered:
            with suppress(ServiceError):  # the leases end by themselves
                await self._ask()

    def _renew(self, client: redis.Redis) -> float:
        """Renew what is held, from a thread: the event loop may be kept busy for longer than a lease."""
        from assetcore import cache

        if held := tuple(self._held):
            keys = f"assetcore:pool:{{{self.name}}}:held"
            times = [round(1000 * seconds) for seconds in (LEASE, max(2 * MINUTE, 2 * LEASE))]
            with suppress(Exception):  # what keeps us from it is met by whoever waits for a slot
                client.eval(cache.WINDOW + RENEW, 1, keys, *times, *held)
        return LEASE / 3

    async def _speak(self) -> None:
        """Ask for those who wait, hold what is held where Redis has forgotten it, give back what is not needed any more."""
        while not self._closed:
            self._wake.clear()
            try:
                pause = await self._ask()
                self._unanswered = False
            except Exception as error:  # whatever it is, those who wait must hear of it
                self._unanswered = True
                if not self._waiting:
                    logger.warning("the slots of the pool %s could not be renewed: %s", self.name, error)
                for granted in self._waiting.values():
                    if not granted.done():
                        granted.set_exception(error)
                pause = POLL
            if self._waiting:
                pause = max(POLL, min(pause, WAITING_LEASE / 3))
            else:
                pause = LEASE / 3
            with suppress(TimeoutError):  # not wait_for, which may not see before Python 3.12 that it is cancelled
                async with asyncio.timeout(pause if self._waiting or self._held else None):
                    await self._wake.wait()

    async def _ask(self) -> float:
        """One call of the script; returns for how many seconds the rate lets nobody begin."""
        released, held = list(self._released), list(self._held)
        waiting = [token for token, granted in self._waiting.items() if not granted.done()]
        keys = [f"assetcore:pool:{{{self.name}}}:{part}" for part in ("held", "queue", "waiting", "begun", "last")]
        limits = (self.limits.concurrency or 0, self.limits.per_minute or 0)
        times = [round(1000 * seconds) for seconds in (LEASE, WAITING_LEASE, MINUTE)]
        counts = [len(released), len(held), len(waiting)]
        arguments: list[Any] = [*keys, *times, *limits, *counts, *released, *held, *waiting]
        from assetcore import cache  # imported already, by whoever made the client

        with cache.as_service_error(self.client):
            answer: Any = self.client.eval(cache.WINDOW + SCRIPT, len(keys), *arguments)
            pause, granted = await cast("Awaitable[tuple[int, list[bytes]]]", answer)
        self._released.difference_update(released)
        for token in (one.decode() for one in granted):
            future = self._waiting.pop(token, None)
            if future is not None and not future.done():
                self._held.add(token)
                future.set_result(None)
        return pause / 1000


@dataclass(slots=True)
class Pools:
    """The pools of the settings, each opened when it is first asked for."""

    redis_url: str | None
    limits: Mapping[str, PoolLimits]
    _client: Redis | None = None
    _pools: dict[str, Pool] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Pool:
        if self._client is None:
            from assetcore.cache import (
                get_async_client,
            )  # 0.1 s, which a run without pools, and whoever only plans, need not wait

            assert self.redis_url is not None  # a run has a lock there
            self._client = get_async_client(self.redis_url)
        if name not in self._pools:
            self._pools[name] = Pool(self._client, name, self.limits[name])
        return self._pools[name]

    async def close(self) -> None:
        """Give back all slots."""
        await asyncio.gather(*(pool.close() for pool in self._pools.values()))
        if self._client is not None:
            await self._client.aclose()
