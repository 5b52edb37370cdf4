"""A web server as small as a test needs: answers by path, and what it was asked."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email.utils import formatdate


@dataclass(frozen=True)
class Asked:
    """One question, and when it came."""

    path: str
    headers: Mapping[str, str]
    at: float


@dataclass
class Reply:
    """What is answered: with an ETag, 304 to a question that names it."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    pause: float = 0
    """Seconds between the pieces of the body."""
    piece: int = 1000
    """How many bytes a piece has where there is a pause, or a cut."""
    length: bool = True
    cut: bool = False
    """Whether the connection is closed in the middle of the body."""


@dataclass
class Site:
    """The server: `pages` are its answers, each a reply or several that are given in turn, the last one for ever."""

    pages: dict[str, Reply | list[Reply]] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    url: str = ""
    at_once: int = 0
    most_at_once: int = 0

    def paths(self) -> list[str]:
        """The paths that were asked since this was last called."""
        paths = [one.path for one in self.asked]
        self.asked.clear()
        return paths

    def reply(self, path: str) -> Reply:
        found = self.pages.get(path, Reply(b"not here", 404))
        if isinstance(found, list):
            return found.pop(0) if len(found) > 1 else found[0]
        return found

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := (await reader.readline()).decode():
                headers = {}
                while header := (await reader.readline()).decode().strip():
                    name, _, value = header.partition(":")
                    headers[name.lower()] = value.strip()
                path = line.split(" ")[1]
                self.asked.append(Asked(path, headers, asyncio.get_running_loop().time()))
                self.at_once += 1
                self.most_at_once = max(self.at_once, self.most_at_once)
                try:
                    if not await self._answer(writer, self.reply(path), headers):
                        return
                finally:
                    self.at_once -= 1
        except ConnectionError:
            return
        finally:
            writer.close()

    async def _answer(self, writer: asyncio.StreamWriter, reply: Reply, asked: Mapping[str, str]) -> bool:
        headers = {"Date": formatdate(usegmt=True), "Content-Type": "text/plain; charset=utf-8", **reply.headers}
        known = {"ETag": "if-none-match", "Last-Modified": "if-modified-since"}
        same = reply.status == 200 and any(n in headers and asked.get(known[n]) == headers[n] for n in known)
        status, body = (304, b"") if same else (reply.status, reply.body)
        if reply.length and "Content-Length" not in headers and not same:
            headers["Content-Length"] = str(len(body))
        closes = reply.cut or (not reply.length and not same)
        if closes:
            headers["Connection"] = "close"
        head = f"HTTP/1.1 {status} Said\r\n" + "".join(f"{n}: {v}\r\n" for n, v in headers.items()) + "\r\n"
        writer.write(head.encode())
        size = reply.piece if reply.pause or reply.cut else 1 << 18
        for at in range(0, len(body), size):
            await asyncio.sleep(reply.pause)
            writer.write(body[at : at + size])
            await writer.drain()
            if reply.cut:
                break
        await asyncio.sleep(reply.pause)
        await writer.drain()
        return not closes


@asynccontextmanager
async def running(site: Site, tls: ssl.SSLContext | None = None) -> AsyncIterator[Site]:
    """The server on a free port of 127.0.0.1, ended with its connections."""
    tasks: set[asyncio.Task[None]] = set()

    def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(site.serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(begin, "127.0.0.1", 0, ssl=tls)
    site.url = f"{'https' if tls else 'http'}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield site
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
