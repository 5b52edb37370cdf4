"""Urls: which addresses does a list name, and which of their contents have changed?

An address is asked with what it said last time (ETag, Last-Modified), so that what has not changed is not sent again. What was sent
while looking lies in an unnamed file until it is taken in: nothing is asked for twice, and what is kept is what was seen.

An address that fails for a moment says nothing about its document. What was known of it stays (and a warning says so), or nothing
is planned at all; that the document is gone is known only from the list, and from 404 and 410 where the declaration says so.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import inspect
import re
import sys
import tempfile
import traceback
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any, Literal, get_args
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit, urlunsplit

import polars as pl

from assetcore.assets import Source
from assetcore.documents import Document, field_digests
from assetcore.errors import DeclarationError, SourceError
from assetcore.sources.files import MEDIA_TYPES, UNKNOWN_MEDIA_TYPE
from assetcore.sources.observed import Rows
from assetcore.telemetry import get_pipeline_logger

if TYPE_CHECKING:
    from assetcore.sources.web import Web

__all__ = ["Urls", "canonical", "document_name", "urls"]

logger = get_pipeline_logger(__name__)

Missing = Literal["error", "gone"]
Failing = Literal["keep", "skip", "error"]
Addresses = Sequence[str] | Callable[[], Iterable[str] | AsyncIterator[str] | Awaitable[Iterable[str]]]

SPOOL_BYTES = 2 << 30
"""What is kept on disk between looking and taking in, at most; the rest is asked for again."""
HINTS = {
    "absent": 'Take it out of the list, or write urls(..., missing="gone"): then its document goes.',
    "failing": 'Plan again when it answers, or write urls(..., failing="skip"): then it is left out until it does.',
}
PIECE = 1 << 20
SHOWN = 5
READABLE = 160
_PLAIN = re.compile(r"[\w.~/:@+,=()!-]+")
_SECRET = re.compile(r"(?i)token|key|secret|sig|pass|auth|credential|session")


def urls(
    addresses: Addresses,
    *,
    missing: Missing = "error",
    failing: Failing = "keep",
    headers: Mapping[str, str] | None = None,
    media_types: Sequence[str] = (),
    max_bytes: int = 32 << 20,
    at_once: int = 8,
    delay: float = 0.1,
    timeout: float = 30,
    retries: int = 2,
    redirects: int = 5,
    media_type: str | None = None,
) -> Urls:
    """The contents of these addresses; each is a document named by its address, without the `https://`.

    addresses    a list, or a function (also a generator, also async) without parameters that gives them: it is called at each look
    missing      what 404 and 410 mean: "error", or "gone" for a document that is no more
    failing      what it means that an address cannot be reached, or answers 408, 425, 429 or 5xx, after all retries:
                 "keep"   its document stays as it is known, and a warning says so; it is an error where nothing is known yet
                 "skip"   the same, and where nothing is known yet it is left out until it answers
                 "error"  nothing is planned
    headers      sent to the hosts of the addresses, and to no other that they redirect to
    media_types  the types that are taken, such as ["text/*"]; any other is an error
    max_bytes    more is an error, and cut off
    at_once      how many are asked at once
    delay        seconds from one question to the next at one host; one that says Retry-After is left alone for so long, up to a minute
    timeout      seconds without a sign of life; ten times as much for the whole
    retries      how often one that fails is asked again, after 0.5 s, 1 s, ...
    redirects    how many are followed; one from https to http is an error
    media_type   of all of them; otherwise by the class, then as the server says

    An address becomes part of names and messages: what is secret belongs into `headers`. Where a name would not say which address it
    is (a query, http, odd letters), it ends with a few letters of the address's digest.
    """
    place = f"{sys._getframe(1).f_code.co_filename}:{sys._getframe(1).f_lineno}"
    if isinstance(addresses, str) or not (callable(addresses) or isinstance(addresses, Sequence)):
        raise DeclarationError(
            f"{place}: urls(...) takes a list of addresses, or a function that gives them; found {addresses!r:.100}.",
            hint='Write urls(["https://example.org/a.html"]).',
        )
    if callable(addresses) and inspect.signature(addresses).parameters:
        raise DeclarationError(
            f"{place}: urls(...) calls {getattr(addresses, '__name__', addresses)}, which takes {inspect.signature(addresses)}.",
            hint="Give it no parameters.",
        )
    wanted: dict[str, tuple[Any, bool, str]] = {
        "missing": (missing, missing in get_args(Missing), '"error" or "gone"'),
        "failing": (failing, failing in get_args(Failing), '"keep", "skip" or "error"'),
        "media_types": (media_types, not isinstance(media_types, str), 'a list such as ["text/*"]'),
        "max_bytes": (max_bytes, _is_number(max_bytes, 1), "a number of bytes above 0"),
        "at_once": (at_once, _is_number(at_once, 1), "a whole number, 1 or more"),
        "delay": (delay, _is_number(delay, 0), "a number of seconds, 0 or more"),
        "timeout": (timeout, _is_number(timeout, 0) and timeout > 0, "a number of seconds above 0"),
        "retries": (retries, _is_number(retries, 0), "a whole number, 0 or more"),
        "redirects": (redirects, _is_number(redirects, 0), "a whole number, 0 or more"),
    }
    for option, (value, fits, wish) in wanted.items():
        if not fits:
            raise DeclarationError(f"{place}: urls({option}={value!r}): {option}= takes {wish}.")
    given = dict(headers or {})
    for name, text in given.items():
        if not (isinstance(name, str) and isinstance(text, str) and (name + text).isascii() and text.isprintable()):
            raise DeclarationError(f"{place}: urls(headers=...): {name!r} must be ASCII text of one line.")
    if not callable(addresses):
        for address in addresses:
            if problem := canonical(address)[1]:
                raise DeclarationError(f"{place}: urls(...): {problem}.", hint="Give it with https:// and a host.")
        addresses = tuple(addresses)
    types = tuple(one.lower() for one in media_types)
    return Urls(
        addresses, missing, failing, given, types, max_bytes, at_once, delay, timeout, retries, redirects, media_type
    )


@dataclass(frozen=True)
class Urls:
    """Where a source's documents come from; made by `urls`."""

    addresses: Addresses
    missing: Missing = "error"
    failing: Failing = "keep"
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    media_types: tuple[str, ...] = ()
    max_bytes: int = 32 << 20
    at_once: int = 8
    delay: float = 0.1
    timeout: float = 30
    retries: int = 2
    redirects: int = 5
    media_type: str | None = None
    _spool: Spool = field(default_factory=lambda: Spool(), init=False, repr=False, compare=False)

    async def observe(
        self, source: Source, root: Path, known: pl.DataFrame | None, *, rehash: bool = False
    ) -> pl.DataFrame:
        """What the addresses hold now; see `sources.observe`. With `rehash`, all is sent again."""
        before = {} if known is None else {name: index for index, name in enumerate(known["name"])}
        fields = field_digests(source.type(name="defaults", content=b"").field_values())
        rows, problems, kinds, kept = Rows(), list[str](), list[str](), list[str]()
        self._spool.clear()

        async def look(web: Web, name: str, url: str) -> None:
            row = known.row(before[name], named=True) if known is not None and name in before else None
            body = Spooled(self._spool)
            answer = await web.get(url, row["validator"] if row and not rehash else None, body)
            told = f"{_shown(url)} {answer.problem}"
            match answer.kind:
                case "content":
                    self._spool.keep(name, body, answer.media_type)
                    media_type = self._media_type_of(source, name, answer.media_type)
                    rows.add(name, body.size, media_type, body.sha256, fields, answer.validator)
                case "unchanged" if row is not None:
                    media_type = self._media_type_of(source, name, answer.media_type)
                    rows.add(name, row["size"], media_type, row["sha256"], fields, row["validator"])
                case "failing" if self.failing != "error" and row is not None:
                    rows.add(name, row["size"], row["media_type"], row["sha256"], fields, row["validator"])
                    kept.append(told)
                case "failing" if self.failing == "skip":
                    kept.append(told)
                case "absent" if self.missing == "gone":
                    pass
                case _:
                    problems.append(told)
                    kinds.append(answer.kind)

        await self._for_each(source, look, enough=lambda: len(problems) > SHOWN)
        if problems or (kept and not rows.name):
            hint = HINTS.get(kinds[0] if kinds else "failing", "Correct the list, or what urls(...) allows.")
            raise SourceError(f"{source.name} cannot be observed: {_some(problems or kept)}.", hint=hint)
        if kept:
            logger.warning("%s: no answer for now, so nothing changes there: %s.", source.name, _some(kept))
        return rows.frame(source, None if rehash else known)

    async def documents(self, source: Source, root: Path, names: Collection[str]) -> AsyncIterator[Document]:
        """What these addresses hold; what was sent while they were observed is not asked for again. See `sources.documents`."""
        wanted = set(names)
        addresses: dict[str, str] = {}
        async with aclosing(self._named(source)) as named:
            async for name, url in named:
                if name in wanted:
                    addresses[name] = url
                if len(addresses) == len(wanted):
                    break
        unread: list[str] = []
        waiting = iter(sorted(wanted))
        begun: deque[asyncio.Task[Document | str]] = deque()
        async with self._web() as web:
            try:
                while True:
                    for name in islice(waiting, self.at_once - len(begun)):
                        begun.append(asyncio.create_task(self._read(source, web, name, addresses.get(name))))
                    if not begun:
                        break
                    read = await begun.popleft()
                    if isinstance(read, Document):
                        yield read
                    else:
                        unread.append(read)
            finally:
                for task in begun:
                    task.cancel()
                await asyncio.gather(*begun, return_exceptions=True)
        if unread:
            raise SourceError(
                f"{source.name} could not read {len(unread)} of {len(wanted)} documents: {_some(unread)}.",
                hint="Plan again: what is gone is then known to be gone.",
            )

    async def _read(self, source: Source, web: Web, name: str, url: str | None) -> Document | str:
        """The document, or why there is none."""
        found = self._spool.take(name)
        if found is None:
            if url is None:
                return f"{name} is not in the list any more"
            content = bytearray()
            answer = await web.get(url, None, content)
            if answer.kind != "content":
                return f"{_shown(url)} {answer.problem}"
            found = bytes(content), answer.media_type
        return source.type(name=name, content=found[0], media_type=self._media_type_of(source, name, found[1]))

    def _media_type_of(self, source: Source, name: str, served: str) -> str:
        suffix = PurePosixPath(name).suffix[1:].lower()
        return self.media_type or source.type.fixed_media_type or served or MEDIA_TYPES.get(suffix, UNKNOWN_MEDIA_TYPE)

    def _web(self) -> Web:
        from assetcore.sources.web import Web  # httpx takes 0.1 s, and whoever declares addresses asks none yet

        return Web(
            headers=self.headers, at_once=self.at_once, delay=self.delay, timeout=self.timeout, max_bytes=self.max_bytes,
            media_types=self.media_types, redirects=self.redirects, retries=self.retries,
        )  # fmt: skip

    async def _for_each(
        self, source: Source, look: Callable[[Web, str, str], Awaitable[None]], enough: Callable[[], bool]
    ) -> None:
        """Look at every address, `at_once` of them at a time, until it is enough."""
        one_at_a_time = asyncio.Lock()
        async with aclosing(self._named(source)) as named, self._web() as web:

            async def work() -> None:
                while not enough():
                    async with one_at_a_time:
                        found = await anext(named, None)
                    if found is None:
                        return
                    await look(web, *found)

            try:
                async with asyncio.TaskGroup() as group:
                    for _ in range(self.at_once):
                        group.create_task(work())
            except BaseExceptionGroup as errors:
                raise errors.exceptions[0] from errors.exceptions[0].__cause__

    async def _named(self, source: Source) -> AsyncGenerator[tuple[str, str], None]:
        """The name and the address of each document. An address that is given twice is one document."""
        seen: dict[str, str] = {}
        async with aclosing(self._given(source)) as given:
            async for address in given:
                url, problem = canonical(address)
                if problem:
                    raise SourceError(f"{source.name}: {problem}.", hint="Give it with https:// and a host.")
                name = document_name(url)
                other = seen.setdefault(name, url)
                if other is url:
                    yield name, url
                elif other != url:
                    raise SourceError(f"{source.name}: {_shown(url)} and {_shown(other)} are both named {name}.")

    async def _given(self, source: Source) -> AsyncGenerator[Any, None]:
        """What is declared; an error of the user's function names its line."""
        if not callable(self.addresses):
            for address in self.addresses:
                yield address
            return
        try:
            addresses: Any = self.addresses()
            addresses = await addresses if inspect.isawaitable(addresses) else addresses
            if hasattr(addresses, "__aiter__"):
                async for address in addresses:
                    yield address
            else:
                for address in addresses:
                    yield address
        except Exception as error:
            frames = [f for f in traceback.extract_tb(error.__traceback__)[1:] if f.filename != __file__]
            where = f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
            raise SourceError(
                f"{source.name} could not list its addresses: {type(error).__name__}: {error}{where}."
            ) from error


def document_name(url: str) -> str:
    """The name of the document at an address: the address without `https://`; a folder's ends with `index`.

    Where that would not say which address it is, or is no name, a readable form with ten letters of the address's digest.
    """
    parts = urlsplit(url)
    plain = parts.netloc + parts.path
    segments = plain.removesuffix("/").split("/")
    odd = parts.query or segments[-1] == "index" or not all(segment.strip(".") for segment in segments)
    if parts.scheme == "https" and not odd and len(plain) <= READABLE and _PLAIN.fullmatch(plain):
        return f"{plain}index" if plain.endswith("/") else plain
    path = unquote(parts.path, errors="replace")
    suffix = PurePosixPath(path).suffix
    suffix = suffix if re.fullmatch(r"\.[A-Za-z0-9]{1,8}", suffix) else ""
    readable = f"{parts.netloc}/{path.removesuffix(suffix)}-{unquote(_without_secrets(parts.query), errors='replace')}"
    safe = (re.sub(r"[^\w.~-]+", "-", s).strip(".-") for s in readable.split("/"))
    digest = base64.b32encode(hashlib.sha256(url.encode()).digest()).decode()[:10].lower()
    return "/".join(s for s in safe if s)[:READABLE] + f"-{digest}{suffix}"


def canonical(address: Any) -> tuple[str, str]:
    """The address as one writes it, without what is never sent (#...); or what is wrong with it."""
    if not isinstance(address, str) or not address.isprintable() or " " in address.strip():
        return "", f"{address!r:.100} is no address"
    try:
        parts = urlsplit(address.strip())
        port = parts.port
    except ValueError as error:
        return "", f"{address!r:.100} is no address: {error}"
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return "", f"{address!r:.100} is no address of http or https"
    if "@" in parts.netloc:
        return "", f"an address at {parts.hostname} has a user or a password in it, which would be seen: use headers="
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    if port is not None and port != {"http": 80, "https": 443}[parts.scheme]:
        host += f":{port}"
    return urlunsplit((parts.scheme, host, parts.path or "/", parts.query, "")), ""


def _shown(url: str) -> str:
    """The address for people; values that look like secrets are left out."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(query=_without_secrets(parts.query)))[:300]


def _without_secrets(query: str) -> str:
    pairs = parse_qsl(query, keep_blank_values=True)
    if not any(_SECRET.search(name) for name, _ in pairs):
        return query
    return urlencode([(name, "..." if _SECRET.search(name) else value) for name, value in pairs], safe=".")


def _some(texts: Sequence[str]) -> str:
    shown = "; ".join(sorted(texts)[:SHOWN])
    return f"{shown}; and {len(texts) - SHOWN} more" if len(texts) > SHOWN else shown


def _is_number(value: Any, least: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value >= least


class Spool:
    """Contents on disk between looking and taking in: an unnamed file, which is gone with the process.

    Nothing in it is relied on: what cannot be written, or is not what was seen, is asked for again.
    """

    def __init__(self) -> None:
        self._file: IO[bytes] | None = None
        self._end = 0
        self._held: dict[str, tuple[Spooled, str]] = {}

    def clear(self) -> None:
        """Forget everything, and give the disk back."""
        self._held.clear()
        self._end = 0
        if self._file is not None:
            self._file.truncate(0)

    def append(self, piece: bytes) -> tuple[int, int] | None:
        """Write a piece; where it lies, or None."""
        if self._end + len(piece) > SPOOL_BYTES:
            return None
        try:
            self._file = self._file or tempfile.TemporaryFile(prefix="assetcore-")  # noqa: SIM115 - it lives as long as the source
            self._file.seek(self._end)
            self._file.write(piece)
        except OSError:
            return None
        self._end += len(piece)
        return self._end - len(piece), len(piece)

    def keep(self, name: str, body: Spooled, media_type: str) -> None:
        """Hold the content of a document until it is taken."""
        if body.close():
            self._held[name] = body, media_type

    def take(self, name: str) -> tuple[bytes, str] | None:
        """The content of a document, and its type as the server named it; once. The last one gives the disk back."""
        body, media_type = self._held.pop(name, (None, ""))
        if body is None or self._file is None:
            return None
        pieces: list[bytes] = []
        for at, size in body.pieces:
            self._file.seek(at)
            pieces.append(self._file.read(size))
        if not self._held:
            self.clear()
        content = b"".join(pieces)
        return (content, media_type) if hashlib.sha256(content).digest() == body.sha256 else None


class Spooled:
    """One content on its way into the spool, hashed as it comes; at most a piece of it is in memory."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self.clear()

    def clear(self) -> None:
        """Begin anew."""
        self._hash, self._open = hashlib.sha256(), bytearray()
        self.size, self.pieces, self._lost = 0, list[tuple[int, int]](), False

    def extend(self, piece: bytes, /) -> None:
        """Add the next piece."""
        self._hash.update(piece)
        self.size += len(piece)
        if not self._lost:
            self._open += piece
            if len(self._open) >= PIECE:
                self._write()

    def close(self) -> bool:
        """Write what is left; whether all of it is there."""
        self._write()
        return not self._lost

    @property
    def sha256(self) -> bytes:
        """Of all that was added."""
        return self._hash.digest()

    def _write(self) -> None:
        place = self._spool.append(bytes(self._open))
        self._open.clear()
        if place is None:
            self._lost = True
        else:
            self.pieces.append(place)
