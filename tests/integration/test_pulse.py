"""A Postgres that hangs is told and given up after a while; one that is slow is waited for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import pytest
import sqlalchemy as sa

from assetcore.errors import ServiceError
from assetcore.lineage import pulse, schema

pytestmark = pytest.mark.integration


@dataclass
class Line:
    """A way to Postgres that can be held: then nothing passes, and who comes anew is let in and hears nothing."""

    host: str
    port: int
    asked: int = 0
    open: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.asked += 1
        await self.open.wait()
        there = await asyncio.open_connection(self.host, self.port)
        async with asyncio.TaskGroup() as both:
            both.create_task(self._pass(reader, there[1]))
            both.create_task(self._pass(there[0], writer))

    async def _pass(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await source.read(1 << 16):
                await self.open.wait()
                target.write(data)
        target.close()


@pytest.fixture
async def line(database: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Line, schema.Engine]]:
    """A line to the test's database and an engine that goes through it, in a world where time is short."""
    for name, seconds in {"LONG": 0.2, "PAUSE": 0.3, "ANSWER": 0.3, "SILENCE": 1.0, "OPENING": 0.6}.items():
        monkeypatch.setattr(pulse, name, seconds)
    url = urlsplit(database)
    line = Line(str(url.hostname), int(url.port or 0))
    line.open.set()
    server = await asyncio.start_server(line.serve, "127.0.0.1", 0)
    here = server.sockets[0].getsockname()[1]
    engine = schema.connect(url._replace(netloc=f"{url.username}:{url.password}@127.0.0.1:{here}").geturl())
    yield line, engine
    line.open.set()
    async with asyncio.timeout(10):
        await engine.dispose()
    server.close()


async def wait(engine: schema.Engine, seconds: float) -> None:
    async with engine.connect() as connection:
        await connection.execute(sa.select(sa.func.pg_sleep(seconds)))


async def test_a_statement_that_takes_long_is_waited_for(
    line: tuple[Line, schema.Engine], caplog: pytest.LogCaptureFixture
) -> None:
    """However long it takes: the server is asked meanwhile whether it is there, and nobody hears of it."""
    way, engine = line
    await wait(engine, 2.5)
    assert way.asked > 3
    assert caplog.messages == []


async def test_a_server_that_hangs_is_told_and_given_up(
    line: tuple[Line, schema.Engine], caplog: pytest.LogCaptureFixture
) -> None:
    """Who waits is told soon, and after a while that it cannot be used; from then on nobody waits for long, nor at the end."""
    way, engine = line
    await asyncio.gather(wait(engine, 0), wait(engine, 0))
    waiting = [asyncio.create_task(wait(engine, 0.5)) for _ in range(2)]
    await asyncio.sleep(0.1)
    begun = time.monotonic()
    way.open.clear()
    for one in waiting:
        with pytest.raises(ServiceError, match=r"Postgres at postgresql\+asyncpg://assetcore:\*\*\*@127"):
            await one
    assert 1 < time.monotonic() - begun < 6
    begun = time.monotonic()
    with pytest.raises(ServiceError, match="it does not answer"):
        await wait(engine, 0)
    await engine.dispose()
    assert time.monotonic() - begun < 3
    told = [message.partition("does not answer")[1] or message.rpartition(": ")[2] for message in caplog.messages]
    assert told == ["does not answer", "it is not waited for any longer"]
    way.open.set()
    await wait(engine, 0)


async def test_a_server_that_answers_again_in_time_is_waited_for(line: tuple[Line, schema.Engine]) -> None:
    """A short silence costs nothing but its time."""
    way, engine = line
    waiting = asyncio.create_task(wait(engine, 0.5))
    await asyncio.sleep(0.2)
    way.open.clear()
    await asyncio.sleep(0.9)
    way.open.set()
    await waiting


async def test_nobody_waits_for_a_server_that_hangs_to_close_a_connection(line: tuple[Line, schema.Engine]) -> None:
    """It hangs between the last statement and the end."""
    way, engine = line
    await wait(engine, 0)
    way.open.clear()
    async with asyncio.timeout(3):
        await engine.dispose()
