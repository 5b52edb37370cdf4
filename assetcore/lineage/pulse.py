"""Pulse: does the Postgres that somebody waits for still answer?

A statement takes as long as it takes: that a server is slow is no reason to give it up. What is looked at is whether it is there at all.
While a connection has been in use for long, the server is asked over another one the only question that it answers whoever asks: whether
it speaks TLS. Where it says nothing to that, this is told; where it has said nothing for a minute, all connections are broken, so that
those who wait are told that the service cannot be used. From then on nobody waits for long.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import time
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine

from assetcore.telemetry import get_pipeline_logger

__all__ = ["Pulse"]

logger = get_pipeline_logger(__name__)

LONG = 5.0
"""After so many seconds of a connection's use the server is asked whether it is there."""
PAUSE = 15.0
"""So many seconds after it has answered it is asked again."""
ANSWER = 5.0
"""So many seconds it has for the answer, for which it needs neither a lock nor anything that is stored; also to close a connection."""
SILENCE = 60.0
"""After so many seconds without an answer nobody waits any longer."""
OPENING = 15.0
"""So many seconds a connection may take to open, or to say that it is alive, at a server that says nothing just now."""
_TLS = struct.pack("!II", 8, 80877103)
"""The question, of which the answer is one letter."""


class Pulse:
    """Watches the connections of an engine, from the loop in which they are used."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.address = engine.url.render_as_string(hide_password=True)
        self._places = _places(engine)
        self._in_use: dict[object, float] = {}
        self._connections: weakref.WeakSet[Any] = weakref.WeakSet()
        self._look: asyncio.TimerHandle | None = None
        self._asking: asyncio.Task[None] | None = None
        self._silent_since: float | None = None
        self._given_up = False
        pool = engine.sync_engine
        event.listen(pool, "connect", self._opened)
        event.listen(pool, "checkout", lambda connection, record, _: self._begin(record))
        event.listen(pool, "checkin", lambda connection, record: self._end(record))
        event.listen(pool, "close", lambda connection, _: self._closing(connection))

    @property
    def patience(self) -> float | None:
        """How many seconds a server may take to say that it is alive; None: as many as it takes where nothing is wrong."""
        return ANSWER if self._given_up else OPENING if self._silent_since is not None else None

    @contextmanager
    def opening(self) -> Iterator[None]:
        """While a connection is opened, the server is waited for as well; once one is, it is there."""
        key = object()
        self._begin(key)
        try:
            yield
        finally:
            self._end(key)
        self._silent_since, self._given_up = None, False

    def _opened(self, connection: Any, _: Any) -> None:
        self._connections.add(connection.driver_connection)

    def _begin(self, user: object) -> None:
        self._in_use[user] = time.monotonic()
        if self._look is None and self._asking is None:
            self._again(LONG)

    def _end(self, user: object) -> None:
        self._in_use.pop(user, None)
        if not self._in_use and self._look is not None:
            self._look.cancel()
            self._look = None

    def _closing(self, connection: Any) -> None:
        """To close a connection takes a word of the server's, for which nobody waits for long."""
        driver = connection.driver_connection
        if self._silent_since is not None or self._given_up:
            driver.terminate()
        else:
            with suppress(RuntimeError):  # the loop is gone: nobody can be asked, or waits
                asyncio.get_running_loop().call_later(ANSWER, driver.terminate)

    def _again(self, pause: float) -> None:
        self._look = asyncio.get_running_loop().call_later(pause, self._looked)

    def _looked(self) -> None:
        self._look = None
        if not self._in_use or self._given_up:
            return
        waited = time.monotonic() - min(self._in_use.values())
        if waited < LONG or not self._places:
            self._again(max(LONG - waited, LONG / 10))
        else:
            self._asking = asyncio.create_task(self._ask())

    async def _ask(self) -> None:
        asked = time.monotonic()
        answered = await asyncio.to_thread(_answers, self._places, ANSWER)
        self._asking = None
        if answered:
            self._silent_since, pause = None, PAUSE
        else:
            if self._silent_since is None:
                self._silent_since = asked
                logger.warning("Postgres at %s does not answer; waiting for it, for a minute", self.address)
            pause = max(0.0, asked + ANSWER - time.monotonic())
            if time.monotonic() - self._silent_since >= SILENCE:
                self._give_up()
        if self._in_use and not self._given_up:
            self._again(pause)

    def _give_up(self) -> None:
        logger.warning(
            "Postgres at %s has not answered for %.0f s: it is not waited for any longer", self.address, SILENCE
        )
        self._given_up, self._silent_since = True, None
        for driver in list(self._connections):
            driver.terminate()


def _answers(places: Sequence[tuple[str, int]], seconds: float) -> bool:
    """Whether a server says anything at one of these places, whatever it is: for a thread, as the loop may be kept busy."""
    for host, port in places:
        try:
            with _connected(host, port, seconds) as connection:
                connection.settimeout(seconds)
                connection.sendall(_TLS)
                if connection.recv(1):
                    return True
        except OSError:
            continue
    return False


def _connected(host: str, port: int, seconds: float) -> socket.socket:
    if not host.startswith("/"):
        return socket.create_connection((host, port), seconds)
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(seconds)
    try:
        connection.connect(f"{host}/.s.PGSQL.{port}")
    except OSError:
        connection.close()
        raise
    return connection


def _places(engine: AsyncEngine) -> list[tuple[str, int]]:
    """Where the driver looks for the server; empty where the address leaves that to variables, and it cannot be asked."""
    _, options = engine.dialect.create_connect_args(engine.url)
    host, port = options.get("host"), options.get("port") or 5432
    hosts: list[str] = host if isinstance(host, list) else [host or ""]
    ports: list[int] = port if isinstance(port, list) else [port] * len(hosts)
    return [(one, int(number)) for one, number in zip(hosts, ports, strict=True) if one]
