"""Embedding: how do many texts become vectors in few questions?

Texts that are asked for at nearly the same time, by whichever units, are put together until a question holds `TOKENS` of them, and a
few questions are under way at once. A vector is kept in Redis under the digest of its model and text; who finds none claims the
text, so that of two runs one asks for it. Redis may go away at any time: then there is a question more.
"""

from __future__ import annotations

import asyncio
import math
import secrets
from array import array
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

from assetcore.digest import digest
from assetcore.errors import AnswerError, GatewayError, ServiceError
from assetcore.llm.gateway import Response
from assetcore.telemetry import get_pipeline_logger

if TYPE_CHECKING:
    from redis.asyncio import Redis

__all__ = ["AT_ONCE", "MANY", "TOKENS", "VECTOR", "Embedded", "Embedder", "Swept", "VectorCache"]

logger = get_pipeline_logger(__name__)

TOKENS = 16_000
"""About so many tokens are asked for at once; a token is some four letters.

The winner of `aipctl vectors sweep` over 688 chunks of the handbook, by the embedded embedder (local/minilm-static) on two CPUs: in
questions of 4,000 tokens they took 2.80 s, of 8,000 1.99, of 16,000 1.70, of 32,000 1.52 and of 64,000 2.09. That is the smallest size
within 15 % of the quickest (`measures.AS_GOOD`), which takes twice as long for a question.
"""
TEXTS = 512
AT_ONCE = 4
"""Questions under way."""
PAUSE = 0.005
"""Seconds in which others may join a question."""
KEPT = 7 * 24 * 3600
"""Seconds that a vector stays in Redis after it was asked for."""
CLAIM = 60.0
"""Seconds for which a text is left to whoever claimed it and died; who is at work says so in time."""
OURS = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call({0}) end return 0"
"""What begins a script that touches no claim of another's."""
POLL = 0.1
MANY = (400, 413, 422)
"""Refusals that may be about one text of many."""
FEW = 8
"""So many texts are halved at once down to the one that is refused; of more it is first seen whether any is answered."""
VECTOR = "assetcore:embedding:"
"""Begins the keys of vectors in Redis."""

Ask = Callable[[Mapping[str, Any], float], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Embedded:
    """A text's vector, and its share of what the question cost; nothing where it was known."""

    vector: list[float]
    tokens: int = 0
    usd: float = 0.0
    key: str = ""
    """Under which it is kept in Redis."""


@dataclass(frozen=True, slots=True)
class Swept:
    """How long some texts took, asked for in questions of about so many tokens: all of them, and one question of those."""

    tokens: int
    questions: int
    seconds: float
    p50_ms: float
    p95_ms: float


class Cache(Protocol):
    """Where vectors are kept, by digest."""

    async def found(self, keys: Sequence[bytes]) -> list[list[float] | None]: ...
    async def claimed(self, keys: Sequence[bytes]) -> list[bool]: ...
    async def renew(self, keys: Sequence[bytes]) -> None: ...
    async def keep(self, vectors: Mapping[bytes, Sequence[float]]) -> None: ...
    async def release(self, keys: Sequence[bytes]) -> None: ...


@dataclass(slots=True)
class Embedder:
    """Asks one model for vectors. `name` is what it is called at the gateway, `model` what stands behind it."""

    name: str
    model: str
    dimensions: int | None
    ask: Ask
    cache: Cache | None
    tokens: int = TOKENS
    slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(AT_ONCE))
    since: datetime | None = None
    """What was asked for before is asked for again: of it there is nothing in `cache`."""
    _waiting: list[tuple[bytes, str]] = field(default_factory=list)
    _under_way: dict[bytes, asyncio.Future[Embedded]] = field(default_factory=dict)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _length: int = 0

    async def embed(self, texts: Sequence[str], seconds: float) -> list[Embedded]:
        """The vectors of these texts. The first who asks for a text pays for it."""
        keys = [digest("embedding", self.model, self.dimensions, text) for text in texts]
        mine: set[bytes] = set()
        for key, text in zip(keys, texts, strict=True):
            if key not in self._under_way:
                self._under_way[key] = asyncio.get_running_loop().create_future()
                if not self._waiting:
                    self._start(self._ask_soon(seconds))
                self._waiting.append((key, text))
                mine.add(key)
        found = [await asyncio.shield(future) for future in [self._under_way[key] for key in keys]]
        paid: set[bytes] = set()
        answers: list[Embedded] = []
        for key, one in zip(keys, found, strict=True):
            tokens, usd = (one.tokens, one.usd) if key in mine and key not in paid else (0, 0.0)
            answers.append(Embedded(one.vector, tokens, usd, _vector(key)))
            paid.add(key)
        return answers

    def _start(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _ask_soon(self, seconds: float) -> None:
        await asyncio.sleep(PAUSE)
        waiting, self._waiting = self._waiting, []
        for part in _parts(waiting, self.tokens):
            self._start(self._settle(part, seconds))

    async def _settle(self, part: Sequence[tuple[bytes, str]], seconds: float) -> None:
        """Give those who wait for these texts what they wait for, or the error."""
        futures = {key: self._under_way[key] for key, _ in part}
        try:
            async with self.slots:
                found = await self._known_or_asked(part, seconds)
            for key, one in found.items():
                if isinstance(one, Embedded):
                    futures[key].set_result(one)
                else:
                    futures[key].set_exception(one)
        except BaseException as error:
            for future in futures.values():
                if not future.done() and isinstance(error, Exception):
                    future.set_exception(error)
                else:
                    future.cancel()
            if not isinstance(error, Exception):
                raise
        finally:
            for key, future in futures.items():
                self._under_way.pop(key, None)
                if not future.cancelled():
                    future.exception()  # whoever waited may be gone: then nobody needs to hear of it

    async def _known_or_asked(
        self, part: Sequence[tuple[bytes, str]], seconds: float
    ) -> dict[bytes, Embedded | Exception]:
        if self.cache is None:
            return await self._asked(part, seconds)
        found: dict[bytes, Embedded | Exception] = {}
        missing = dict(part)
        while missing:
            known = await self.cache.found(list(missing))
            for key, vector in zip(list(missing), known, strict=True):
                if vector is not None:
                    found[key] = Embedded(vector)
                    del missing[key]
            claims = await self.cache.claimed(list(missing)) if missing else []
            mine = [key for key, claimed in zip(list(missing), claims, strict=True) if claimed]
            if mine:
                async with _held(self.cache, mine):
                    asked = await self._asked([(key, missing.pop(key)) for key in mine], seconds)
                    found |= asked
                    await self.cache.keep({k: one.vector for k, one in asked.items() if isinstance(one, Embedded)})
            elif missing:
                await asyncio.sleep(POLL)
        return found

    async def _asked(
        self, part: Sequence[tuple[bytes, str]], seconds: float, *, halved: bool = False
    ) -> dict[bytes, Embedded | Exception]:
        """Ask the gateway. A refusal of many texts may be about one of them: then the halves are asked for, unless it is about none.

        That is seen by three of them, before anything is `halved`: where each is refused alone with the same words, all are.
        """
        texts = [text for _, text in part]
        body: dict[str, Any] = {"model": self.name, "input": texts, "encoding_format": "float"}
        if self.dimensions is not None:
            body["dimensions"] = self.dimensions
        try:
            response = await self.ask(body, seconds)
        except GatewayError as error:
            if error.status not in MANY or len(part) == 1:
                return dict.fromkeys((key for key, _ in part), error)
            found: dict[bytes, Embedded | Exception] = {}
            if len(part) > FEW and not halved:
                by_length = sorted(part, key=lambda one: len(one[1]))
                for one in (by_length[len(part) // 2], by_length[0], by_length[-1]):
                    found |= await self._asked([one], seconds)
                    if str(found[one[0]]) != str(error):
                        break
                else:
                    return dict.fromkeys((key for key, _ in part), error)
            left = [one for one in part if one[0] not in found]
            for half in (left[: len(left) // 2], left[len(left) // 2 :]):
                found |= await self._asked(half, seconds, halved=True)
            return found
        vectors = self._vectors(response.content, len(part))
        shares = _shares(response.tokens, [len(text) + 1 for text in texts])
        total = sum(shares) or 1
        return {
            key: Embedded(vector, tokens, response.usd * tokens / total)
            for (key, _), vector, tokens in zip(part, vectors, shares, strict=True)
        }

    def _vectors(self, content: Any, count: int) -> list[list[float]]:
        """The vectors of an answer. Raises AnswerError for another number of them, or of another length than before."""
        try:
            data = sorted(content["data"], key=lambda one: one["index"])
            vectors = [[float(number) for number in one["embedding"]] for one in data]
        except (KeyError, TypeError, ValueError) as error:
            raise self._wrong(content, "something that is not a list of embeddings") from error
        if len(vectors) != count:
            raise self._wrong(content, f"{len(vectors)} vectors for {count} texts")
        wanted = self.dimensions or self._length or len(vectors[0])
        if other := next((len(one) for one in vectors if len(one) != wanted), 0) or (0 if wanted else 1):
            raise self._wrong(content, f"a vector of {other} numbers where {wanted} were expected")
        if not all(math.isfinite(number) for one in vectors for number in one):
            raise self._wrong(content, "a vector with a number that is none")
        self._length = wanted
        return vectors

    def _wrong(self, content: Any, what: str) -> AnswerError:
        return AnswerError(
            f"{self.name} ({self.model}) was asked for vectors and gave {what}.",
            answer=str(content)[:2000],
            hint="Does the alias stand for one model, and for one that embeds? See stack/litellm.yaml, or the gateway's own configuration.",
        )


@asynccontextmanager
async def _held(cache: Cache, keys: Sequence[bytes]) -> AsyncIterator[None]:
    """While these texts are asked for, however long that takes, they stay claimed."""

    async def renew() -> None:
        while True:
            await asyncio.sleep(CLAIM / 3)
            await cache.renew(keys)

    renewing = asyncio.create_task(renew())
    try:
        yield
    finally:
        renewing.cancel()
        await cache.release(keys)


@dataclass(slots=True)
class VectorCache:
    """Vectors in Redis, for some days. Where Redis cannot be used there are none, and everybody asks for himself.

    Those are not found that this code has refused, or that were asked for before `since`.
    """

    client: Redis
    code: str = ""
    since: datetime | None = None
    _told: bool = False
    _ours: str = field(default_factory=lambda: secrets.token_hex(8))
    """What our claims say."""

    async def found(self, keys: Sequence[bytes]) -> list[list[float] | None]:
        names = [_vector(key) for key in keys]
        pipe = self.client.pipeline(transaction=False)
        pipe.mget(names)
        if self.code:
            pipe.mget([_refused(name, self.code) for name in names])
        if self.since is not None:
            for name in names:
                pipe.pttl(name)
        answers = await self._try(pipe.execute())
        if not answers:
            return [None] * len(keys)
        stored: list[bytes | None] = answers.pop(0)
        if self.code:
            marks = answers.pop(0)
            stored = [
                one if mark is None or mark != _mark(one) else None for one, mark in zip(stored, marks, strict=True)
            ]
        if self.since is not None:
            youngest = 1000 * (KEPT - (datetime.now(UTC) - self.since).total_seconds())
            stored = [one if left >= youngest else None for one, left in zip(stored, answers, strict=True)]
        return [_numbers(one) for one in stored]

    async def refuse(self, names: Sequence[str], code: str) -> None:
        """Have vectors, by the keys they are kept under, not be found again by a code; what comes in their place is."""
        for begin in range(0, len(names), TEXTS):
            some = names[begin : begin + TEXTS]
            stored = await self._try(self.client.mget(some)) or [None] * len(some)
            pipe = self.client.pipeline(transaction=False)
            for name, one in zip(some, stored, strict=True):
                if one is not None:
                    pipe.set(_refused(name, code), _mark(one), ex=KEPT)
            await self._try(pipe.execute())

    async def claimed(self, keys: Sequence[bytes]) -> list[bool]:
        pipe = self.client.pipeline(transaction=False)
        for key in keys:
            pipe.set(_claim(key), self._ours, nx=True, px=round(1000 * CLAIM))
        answers = await self._try(pipe.execute())
        return [bool(one) for one in answers] if answers else [True] * len(keys)

    async def keep(self, vectors: Mapping[bytes, Sequence[float]]) -> None:
        pipe = self.client.pipeline(transaction=False)
        for key, vector in vectors.items():
            pipe.set(_vector(key), array("f", vector).tobytes(), ex=KEPT)
            if self.code:  # a model that gives the same vector again may be right
                pipe.delete(_refused(_vector(key), self.code))
        if vectors:
            await self._try(pipe.execute())

    async def renew(self, keys: Sequence[bytes]) -> None:
        await self._to_ours(keys, "'PEXPIRE', KEYS[1], ARGV[2]", round(1000 * CLAIM))

    async def release(self, keys: Sequence[bytes]) -> None:
        await self._to_ours(keys, "'DEL', KEYS[1]")

    async def _to_ours(self, keys: Sequence[bytes], command: str, *arguments: int) -> None:
        pipe = self.client.pipeline(transaction=False)
        for key in keys:
            pipe.eval(OURS.format(command), 1, _claim(key), self._ours, *arguments)
        await self._try(pipe.execute())

    async def _try(self, work: Awaitable[Any]) -> Any:
        from assetcore.cache import as_service_error  # imported already, by whoever made the client

        try:
            with as_service_error(self.client):
                return await work
        except ServiceError as error:
            if not self._told:
                logger.warning("vectors are not kept: %s", error)
                self._told = True
            return None


def _vector(key: bytes) -> str:
    return f"{VECTOR}{key.hex()}"


def _refused(name: str, code: str) -> str:
    return f"{name}:refused:{code}"


def _mark(stored: bytes | None) -> bytes:
    """Which of the vectors it was that a text had."""
    return digest("vector", stored)


def _claim(key: bytes) -> str:
    return f"{_vector(key)}:claim"


def _numbers(stored: bytes | None) -> list[float] | None:
    if not stored or len(stored) % 4:
        return None
    numbers = array("f")
    numbers.frombytes(stored)
    return numbers.tolist()


def _parts(waiting: Sequence[tuple[bytes, str]], most: int = TOKENS) -> list[list[tuple[bytes, str]]]:
    """The texts in their order, in questions of about so many tokens."""
    parts: list[list[tuple[bytes, str]]] = []
    size = 0
    for key, text in waiting:
        tokens = len(text) // 4 + 1
        if not parts or size + tokens > most or len(parts[-1]) == TEXTS:
            parts.append([])
            size = 0
        parts[-1].append((key, text))
        size += tokens
    return parts


def _shares(total: int, weights: Sequence[int]) -> list[int]:
    """A whole number in parts by weight, which add up to it."""
    whole, before, done, shares = sum(weights), 0, 0, []
    for weight in weights:
        done += weight
        upto = total * done // whole
        shares.append(upto - before)
        before = upto
    return shares
