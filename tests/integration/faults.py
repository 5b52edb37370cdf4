"""A proxy between S3's client and its server that does to chosen requests what networks and servers do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit

Fault = Literal["500", "503", "slow", "truncated", "lost"]
"""An answer that says so; one that takes a second; one that ends in the middle; one that never comes, though the server did it."""


@dataclass
class Proxy:
    """Faults wait for requests of a method; each strikes once."""

    upstream: str
    waiting: list[tuple[str, Fault]] = field(default_factory=list)
    struck: list[tuple[str, Fault]] = field(default_factory=list)
    url: str = ""

    def strike(self, method: str, *faults: Fault) -> None:
        self.waiting += [(method, fault) for fault in faults]

    def _fault(self, method: str) -> Fault | None:
        for one in self.waiting:
            if one[0] == method:
                self.waiting.remove(one)
                self.struck.append(one)
                return one[1]
        return None

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request a connection: head and body are passed on as they are, since S3's signature covers them."""
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            if b"100-continue" in head.lower():
                writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            body = await reader.readexactly(_length(head))
            fault = self._fault(head.split(b" ", 1)[0].decode())
            if fault in ("500", "503"):
                name = "InternalError" if fault == "500" else "SlowDown"
                said = f"<Error><Code>{name}</Code><Message>a fault</Message></Error>".encode()
                writer.write(
                    f"HTTP/1.1 {fault} {name}\r\nContent-Length: {len(said)}\r\nConnection: close\r\n\r\n".encode()
                    + said
                )
            else:
                if fault == "slow":
                    await asyncio.sleep(1)
                answer = await self._ask(head.replace(b"100-continue", b""), body)
                if fault != "lost":
                    writer.write(answer[: len(answer) // 2] if fault == "truncated" else answer)
            await writer.drain()
        writer.close()

    async def _ask(self, head: bytes, body: bytes) -> bytes:
        at = urlsplit(self.upstream)
        reader, writer = await asyncio.open_connection(at.hostname, at.port)
        lines = [
            line for line in head.split(b"\r\n") if line and not line.lower().startswith((b"connection:", b"expect:"))
        ]
        writer.write(b"\r\n".join([*lines, b"Connection: close", b"", b""]) + body)
        await writer.drain()
        answer = await reader.read(-1)
        writer.close()
        start, _, rest = answer.partition(b"\r\n")
        return start + b"\r\nConnection: close\r\n" + rest


def _length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line.partition(b":")[2])
    return 0


@asynccontextmanager
async def proxy_of(upstream: str) -> AsyncIterator[Proxy]:
    """A proxy on a free port, in front of this address."""
    proxy = Proxy(upstream)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield proxy
    finally:
        server.close()
