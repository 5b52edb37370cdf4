"""Web: what does an address answer, when it is asked politely?

The only door of the sources to HTTP. Each host is asked no more often than `delay` allows and is left alone for as long as it asks
to be (Retry-After), redirects are followed within limits, and what is not wanted, too large or of another type, is cut off before
it is read.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
import zlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from fnmatch import fnmatchcase
from importlib.metadata import version
from types import TracebackType
from typing import Literal, Protocol, Self
from urllib.parse import urljoin, urlsplit

import httpx

__all__ = ["Answer", "Body", "Web"]

PATIENCE = 60.0
"""The longest time, in seconds, for which a host that asks for it is waited for."""
WHOLE = 10
"""How many times `timeout` one answer may take as a whole: a server that sends a byte now and then holds nobody up for ever."""
CLOCK_GRAIN = timedelta(seconds=2)
LONGEST_MEDIA_TYPE = 255
"""RFC 6838: 127 characters on each side of the slash. What is longer, or unprintable, says nothing."""
_REDIRECTS = (301, 302, 303, 307, 308)
_FOR_A_MOMENT = (408, 425, 429)


@dataclass(frozen=True, slots=True)
class Answer:
    """What an address answered.

    content     it was put into the body; `media_type` as the server names it, or empty
    unchanged   what was known still holds, `media_type` too
    absent      404 or 410
    failing     for now: no connection, no answer in time, 408, 425, 429 or 5xx, however often it was asked
    refused     an answer that is not taken, as long as neither the address nor the declaration is another
    """

    kind: Literal["content", "unchanged", "absent", "failing", "refused"]
    problem: str = ""
    media_type: str = ""
    validator: str | None = None
    retry_after: float | None = None


class Body(Protocol):
    """Where content is put; a `bytearray` is one."""

    def clear(self) -> None:
        """Begin anew."""
        ...

    def extend(self, piece: bytes, /) -> None:
        """Add the next piece."""
        ...


class Web:
    """A client with manners; use it as a context."""

    def __init__(
        self, *, headers: Mapping[str, str], at_once: int, delay: float, timeout: float, max_bytes: int,
        media_types: Sequence[str], redirects: int, retries: int,
    ) -> None:  # fmt: skip
        self._headers = httpx.Headers({"User-Agent": f"assetcore/{version('assetcore')}"})
        self._headers.update(headers)
        self._delay = delay
        self._timeout = timeout
        self._max_bytes = max_bytes
        self._media_types = media_types
        self._redirects = redirects
        self._retries = retries
        self._gates: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._free: defaultdict[str, float] = defaultdict(float)
        limits, accepted = httpx.Limits(max_connections=at_once), {"Accept-Encoding": "gzip, deflate"}
        self._client = httpx.AsyncClient(timeout=timeout, limits=limits, headers=accepted)

    async def __aenter__(self) -> Self:
        await self._client.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.__aexit__(kind, error, trace)

    async def get(self, url: str, validator: str | None, body: Body) -> Answer:
        """Ask until there is an answer, at most `retries` times more. The content is put into `body`, anew each time.

        `validator` is what an earlier answer had; with it, only what has changed is sent.
        """
        answer = await self._ask(url, validator, body)
        for attempt in range(self._retries):
            if answer.kind != "failing":
                break
            wait = 0.5 * 2**attempt if answer.retry_after is None else answer.retry_after
            if wait > PATIENCE:
                break
            await asyncio.sleep(wait)
            answer = await self._ask(url, validator, body)
        return answer

    async def _ask(self, url: str, validator: str | None, body: Body) -> Answer:
        """Ask once, wherever that leads. An error of the network, or of the server, is an answer."""
        target = url
        try:
            for _ in range(self._redirects + 1):
                headers = self._headers if _origin(target) == _origin(url) else _public(self._headers)
                asked = _conditions(validator, target)
                await self._turn(target)
                async with (
                    asyncio.timeout(WHOLE * self._timeout),
                    self._client.stream("GET", target, headers=[*headers.multi_items(), *asked.items()]) as response,
                ):
                    if response.status_code not in _REDIRECTS or "location" not in response.headers:
                        return await self._read(response, target, validator if asked else None, body)
                    came_from, target = target, urljoin(target, response.headers["location"])
                if not target.startswith(("http://", "https://")):
                    return Answer("refused", f"redirects to {target:.100}, which is no address of http or https")
                if came_from.startswith("https:") and target.startswith("http:"):
                    return Answer("refused", "redirects from https to http, where anybody can change what is sent")
            return Answer("refused", f"redirects more than {self._redirects} times")
        except (TimeoutError, httpx.TimeoutException):
            return Answer("failing", f"does not answer in time (timeout={self._timeout:g})")
        except httpx.HTTPError as error:
            return Answer("failing", str(error) or type(error).__name__)
        except (httpx.InvalidURL, ValueError) as error:
            return Answer("refused", f"cannot be asked, or redirects to what cannot: {error}")

    async def _turn(self, target: str) -> None:
        """Wait until this host may be asked again."""
        host = urlsplit(target).netloc
        async with self._gates[host]:
            while (wait := self._free[host] - time.monotonic()) > 0:  # noqa: ASYNC110 - it may ask for more time meanwhile
                await asyncio.sleep(wait)
            self._free[host] = time.monotonic() + self._delay

    async def _read(self, response: httpx.Response, target: str, validator: str | None, body: Body) -> Answer:
        status = response.status_code
        said = f"answers {status} {response.reason_phrase}".rstrip()
        if status in (404, 410):
            return Answer("absent", said)
        if status == 304 and validator:
            return Answer("unchanged", media_type=json.loads(validator or "{}").get("type", ""))
        if status in _FOR_A_MOMENT or status >= 500:
            wait = _seconds(response.headers.get("retry-after"))
            if wait is not None:
                said += f" and asks to be left alone for {wait:,.0f} s"
                if wait <= PATIENCE:
                    host = urlsplit(target).netloc
                    self._free[host] = max(self._free[host], time.monotonic() + wait)
            return Answer("failing", said, retry_after=wait)
        if status not in (200, 203):
            return Answer("refused", said)
        told = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        media_type = told if told.isascii() and told.isprintable() and len(told) <= LONGEST_MEDIA_TYPE else ""
        if self._media_types and not any(fnmatchcase(media_type, one) for one in self._media_types):
            return Answer("refused", f"is {media_type or 'of no type'}, which media_types= does not name")
        length = response.headers.get("content-length", "")
        size = int(length) if length.isdecimal() else 0
        if size > self._max_bytes:
            return Answer("refused", f"has {size:,} bytes; max_bytes is {self._max_bytes:,}")
        body.clear()
        try:
            decoder = _decoder(response.headers.get("content-encoding", ""))
        except ValueError as error:
            return Answer("refused", str(error))
        size = 0
        try:
            async for piece in response.aiter_raw():
                content = piece if decoder is None else decoder.decompress(piece, self._max_bytes - size + 1)
                size += len(content)
                if size > self._max_bytes:
                    return Answer(
                        "refused", f"has more than {self._max_bytes:,} bytes, which is max_bytes: it was cut off"
                    )
                body.extend(content)
        except zlib.error as error:
            return Answer("failing", f"cannot be decompressed: {error}")
        if decoder is not None and not decoder.eof:
            return Answer("failing", "ends in the middle of what is compressed")
        return Answer("content", media_type=media_type, validator=_validator(response.headers, target, media_type))


def _decoder(encoding: str) -> _Decoder | None:
    """What undoes a Content-Encoding piece by piece, as far as it is told to; None where there is nothing to undo. Raises ValueError.

    Not httpx's own: that undoes as many encodings within each other as a server names, each a thousandfold, before anybody can say stop.
    """
    match encoding.strip().lower():
        case "" | "identity":
            return None
        case "gzip" | "x-gzip" | "deflate" as name:
            return _Decoder(raw=name == "deflate")
        case other:
            raise ValueError(f"is encoded as {other:.100}, which nobody asked for")


class _Decoder:
    """Undoes gzip, of one member or of several (RFC 1952, 2.2), and deflate; with `raw` also where that comes without its header.

    Its first two bytes say what a member is. What follows the last one is padding.
    """

    def __init__(self, *, raw: bool) -> None:
        self._raw = raw
        self._begun = b""
        self._member: zlib._Decompress | None = None

    @property
    def eof(self) -> bool:
        """Whether all that has begun has ended."""
        return self._member is not None and self._member.eof

    def decompress(self, piece: bytes, most: int) -> bytes:
        """What the next piece holds, at most so many bytes. Raises zlib.error."""
        content = b""
        while piece and len(content) < most:
            if self._member is None or self._member.eof:
                begun = self._begun + piece
                form = self._form(begun[:2])
                if form is None:
                    self._begun = begun[:2]
                    break
                piece, self._begun, self._member = begun, b"", zlib.decompressobj(form)
            content += self._member.decompress(piece, most - len(content))
            piece = self._member.unused_data
        return content

    def _form(self, begun: bytes) -> int | None:
        """The form, as zlib numbers it, of what begins so; None if that cannot be said yet, or if it is padding."""
        if len(begun) < 2:
            return None
        if begun == b"\x1f\x8b":
            return zlib.MAX_WBITS | 16
        if self._member is not None:
            return None
        has_header = begun[0] & 15 == zlib.DEFLATED and int.from_bytes(begun) % 31 == 0  # RFC 1950, 2.2
        return -zlib.MAX_WBITS if self._raw and not has_header else zlib.MAX_WBITS


def _validator(headers: httpx.Headers, target: str, media_type: str) -> str | None:
    """What to ask with next time; null where the server gives nothing that can be relied on.

    A time of last change within the clock's grain of the answer says nothing: the content may change again without another time.
    """
    known = {}
    if etag := headers.get("etag"):
        known["etag"] = etag
    if (changed := headers.get("last-modified")) and (etag or _settled(changed, headers.get("date"))):
        known["last-modified"] = changed
    # An ETag is that of one address. A redirect may lead elsewhere next time; only a digest is kept of where it led, because such
    # addresses are often signed.
    return json.dumps(known | {"of": _digest(target), "type": media_type}) if known else None


def _conditions(validator: str | None, target: str) -> dict[str, str]:
    """The headers that ask for the content only if it is another one."""
    known = json.loads(validator) if validator else {}
    if known.get("of") != _digest(target):
        return {}
    named = {"If-None-Match": known.get("etag"), "If-Modified-Since": known.get("last-modified")}
    return {name: value for name, value in named.items() if value}


def _settled(changed: str, date: str | None) -> bool:
    then, now = _moment(changed), _moment(date or "")
    return then is not None and now is not None and now - then > CLOCK_GRAIN


def _seconds(retry_after: str | None) -> float | None:
    """Retry-After in seconds: it is given as such, or as a date."""
    text = (retry_after or "").strip()
    if text.isdecimal():
        return float(text)
    moment = _moment(text)
    return None if moment is None else max(0.0, (moment - datetime.now(UTC)).total_seconds())


def _moment(text: str) -> datetime | None:
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _digest(target: str) -> str:
    return hashlib.sha256(target.encode()).hexdigest()[:16]


def _origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc


def _public(headers: httpx.Headers) -> httpx.Headers:
    """What a host that was not named in the declaration may see: who asks, and nothing that could be a secret."""
    shown = ("user-agent", "accept", "accept-language")
    return httpx.Headers([(name, value) for name, value in headers.multi_items() if name in shown])
