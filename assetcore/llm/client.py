"""Client: through what does one process ask models?

It knows where the gateway is (the embedded one is started by the first question), which model stands behind which alias, what was
answered before, and in which mode it is asked: what is recorded is found again, unless things are to be made `anew` (`--force`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from assetcore.digest import digest
from assetcore.errors import AnswerError, GatewayError, UsageError
from assetcore.llm.embedding import AT_ONCE, MANY, VECTOR, Embedded, Embedder, Swept, VectorCache
from assetcore.llm.gateway import Gateway, Response
from assetcore.models import Models, Price, configured, described, listed_price, price_of
from assetcore.settings import Settings
from assetcore.spending import spend

if TYPE_CHECKING:
    from assetcore.llm.answers import Answers  # SQLAlchemy, of which a process that only calls functions needs nothing

__all__ = ["Answer", "Client"]

PRICES = "gateway/venv/lib/python*/site-packages/litellm/model_prices_and_context_window_backup.json"
"""Below the home: LiteLLM's list of prices, which is there where the embedded gateway was ever started."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model answered. `recorded` says that it did so earlier, and that nothing was paid now; `key` is where that lies.

    `cut` says that it is not all of the answer: it has come to `max_tokens`, or to the most that the model says at once.
    """

    text: str
    model: str
    tokens: int = 0
    cached_tokens: int = 0
    usd: float = 0.0
    recorded: bool = False
    key: str = ""
    cut: bool = False


@dataclass(slots=True)
class Client:
    """The models of an opened project. `start` starts the embedded gateway and returns the settings with its address."""

    settings: Settings
    answers: Answers | None = None
    start: Callable[[Settings], Awaitable[Settings]] | None = None
    _since: datetime | None = None
    _keeps: bool = True
    _models: Models | None = None
    _gateway: Gateway | None = None
    _embedders: dict[tuple[str, int | None, bool, str], Embedder] = field(default_factory=dict)
    _slots: dict[str, asyncio.Semaphore] = field(default_factory=dict)
    _cache: VectorCache | None = None
    _shortened: set[tuple[str, int]] = field(default_factory=set)
    _opening: asyncio.Lock = field(default_factory=asyncio.Lock)

    # -- which model ---------------------------------------------------------------------------------------------------------------

    async def learn(self) -> Models:
        """Which models there are: as the embedded gateway's configuration says, or as a gateway that somebody else runs does."""
        if self._models is None and self.settings.openai_base_url is not None:
            self._models = await self._asked_for_models(await self.gateway())
        return self.models

    @property
    def models(self) -> Models:
        """Which models there are; of a gateway that somebody else runs only after `learn`."""
        if self._models is None:
            if self.settings.openai_base_url is not None:
                return Models(self.settings.models, {}, f"the gateway at {self.settings.openai_base_url}")
            self._models = configured(self.settings.root, self.settings.models)
        return self._models

    def version(self, alias: str) -> str:
        """The model behind an alias, as it is written down with what it made."""
        return self.models.resolve(alias) or self.models.called(alias)

    def price(self, alias: str) -> Price | None:
        """What a token costs of the model behind an alias: as the gateway says, or LiteLLM's list, which comes with the embedded one."""
        known = self.models.prices.get(self.models.called(alias))
        model = self.models.resolve(alias)
        if known is not None or model is None:
            return known
        lists = self.settings.home.glob(PRICES)
        return next((found for file in lists if (found := listed_price(file, model)) is not None), None)

    async def _asked_for_models(self, gateway: Gateway) -> Models:
        place = f"the gateway at {gateway.url}"
        prices: dict[str, Price] = {}
        try:
            found = (await gateway.get("/model/info")).content["data"]
            behind = described([(one["model_name"], one["litellm_params"]) for one in found])
            told = {str(one["model_name"]): price_of(one.get("model_info") or {}) for one in found}
            prices = {name: price for name, price in told.items() if price is not None}
        except GatewayError as error:
            if error.status not in (400, 404, 405):
                raise
            behind = {}
        except (KeyError, TypeError):
            behind = {}
        if not behind:  # it is no LiteLLM: a name is all there is
            listed = (await gateway.get("/models")).content.get("data", [])
            behind = {str(one["id"]): str(one["id"]) for one in listed}
        return Models(self.settings.models, behind, place, prices)

    @contextmanager
    def anew(self, since: datetime | None, *, kept: bool = True) -> Iterator[None]:
        """Inside, models are asked again what they were asked before `since`, where it is given; unless answers are `kept`, whatever
        they were asked: then nothing is found, neither vectors, and nothing is recorded.
        """
        before = self._since, self._keeps
        self._since, self._keeps = since, kept
        try:
            yield
        finally:
            self._since, self._keeps = before

    # -- questions -----------------------------------------------------------------------------------------------------------------

    async def ask(
        self, messages: Sequence[Mapping[str, str]], alias: str, parameters: Mapping[str, Any], sample: int, seconds: float, code: str = ""
    ) -> Answer:  # fmt: skip
        """What a model answers to messages; from what is recorded, where it was asked before, and this code has not refused it."""
        name, model = self._known(alias)
        body = {"model": name, "messages": list(messages), **parameters}
        if self.answers is None or not self._keeps:
            return await self._answer(body, alias, model, seconds)
        key = digest("answer", model, list(messages), dict(parameters), sample)
        since = self._since
        if (record := await self.answers.find(key, since, code)) is not None:
            return _recorded(record)
        async with self.answers.alone(key):
            if (record := await self.answers.find(key, since, code)) is not None:  # of somebody who was waited for
                return _recorded(record)
            answer = await self._answer(body, alias, model, seconds)
            record = {
                "question": body, "model": answer.model, "answer": answer.text, "tokens": answer.tokens,
                "cached_tokens": answer.cached_tokens, "usd": answer.usd,
                **({"cut": True} if answer.cut else {}),
            }  # fmt: skip
            return replace(answer, key=await self.answers.keep(key, alias, record))

    async def refuse(self, keys: Sequence[str], code: str | None = None) -> None:
        """Have recorded answers, and vectors, not be found again by this code, or by anyone: whoever asks the same, asks the model."""
        kept = [key for key in keys if key.startswith(VECTOR)]
        recorded = [key for key in keys if not key.startswith(VECTOR)]
        if self.answers is not None and recorded:
            await self.answers.refuse(recorded, code)
        if kept and code and (cache := self._vector_cache()) is not None:
            await cache.refuse(kept, code)

    async def embed(
        self, texts: Sequence[str], alias: str, dimensions: int | None, seconds: float, code: str = ""
    ) -> list[Embedded]:
        """A vector for each text, and what each cost; from Redis, where it is there, and this code has not refused it."""
        name, model = self._known(alias)
        if empty := [i for i, text in enumerate(texts) if not text.strip()]:
            raise UsageError(
                f"Text {empty[0] + 1} of {len(texts)} has no words, so that it has no vector.", hint="Leave it out."
            )
        embedder = self._embedders.get((alias, dimensions, self._keeps, code))
        cache = self._vector_cache() if self._keeps else None
        if embedder is None or (cache is not None and embedder.since != self._since):
            cache = None if cache is None else replace(cache, code=code, since=self._since)
            slots = self._slots.setdefault(alias, asyncio.Semaphore(AT_ONCE))
            embedder = Embedder(name, model, dimensions, self._embeddings, cache, slots=slots, since=self._since)
            self._embedders[alias, dimensions, self._keeps, code] = embedder
        return await embedder.embed(texts, seconds)

    async def embed_in(self, length: int, texts: Sequence[str], alias: str, seconds: float) -> list[Embedded]:
        """Vectors of `length` numbers: as the model gives them, or shortened by it. Raises UsageError where it gives no such."""
        given = 0
        if (alias, length) not in self._shortened:
            first = await self.embed(texts[:1], alias, None, seconds)
            given = len(first[0].vector) if first else length
            if given == length:
                return [*first, *await self.embed(texts[1:], alias, None, seconds)]
        try:
            found = await self.embed(texts, alias, length, seconds)
        except (AnswerError, GatewayError) as error:
            if isinstance(error, GatewayError) and error.status not in MANY:
                raise
            raise UsageError(
                f"{alias} ({self.version(alias)}) gives vectors of {given or 'other'} numbers, and none of {length}.",
                hint="Does the gateway still hand on `dimensions`, and to the model that it had?",
            ) from error
        self._shortened.add((alias, length))
        return found

    async def swept(self, texts: Sequence[str], alias: str, tokens: int, seconds: float) -> Swept:
        """How long vectors of these texts take in questions of so many tokens; what is kept of them is left out."""
        name, model = self._known(alias)
        took: list[float] = []

        async def ask(body: Mapping[str, Any], seconds: float) -> Response:
            begun = time.perf_counter()
            response = await self._embeddings(body, seconds)
            took.append(1000 * (time.perf_counter() - begun))
            return response

        begun = time.perf_counter()
        await Embedder(name, model, None, ask, None, tokens).embed(texts, seconds)
        all_of_them = time.perf_counter() - begun
        took.sort()
        p50, p95 = took[len(took) // 2], took[int(len(took) * 0.95)]
        return Swept(tokens, len(took), round(all_of_them, 3), round(p50, 1), round(p95, 1))

    async def gateway(self) -> Gateway:
        """The gateway; the embedded one is started when it does not run."""
        if self._gateway is None:
            async with self._opening:
                if self._gateway is None:
                    settings = self.settings
                    if settings.openai_base_url is None:
                        if self.start is None:
                            raise UsageError(
                                "No gateway to models is known.", hint="Set OPENAI_BASE_URL and OPENAI_API_KEY."
                            )
                        settings = await self.start(settings)
                    assert settings.openai_base_url is not None
                    key = settings.openai_api_key
                    self._gateway = Gateway(settings.openai_base_url, key.get_secret_value() if key else None)
        return self._gateway

    async def close(self) -> None:
        """Give back connections."""
        if self._gateway is not None:
            await self._gateway.close()
            self._gateway = None
        if self._cache is not None:
            await self._cache.client.aclose()
            self._cache = None
        self._embedders.clear()

    def _known(self, alias: str) -> tuple[str, str]:
        models = self.models
        model = models.resolve(alias)
        if model is None and models.behind:
            raise models.unknown(alias, "A call")
        return models.called(alias), model or models.called(alias)

    async def _embeddings(self, body: Mapping[str, Any], seconds: float) -> Response:
        return await (await self.gateway()).post("/embeddings", body, seconds)

    async def _answer(self, body: Mapping[str, Any], alias: str, model: str, seconds: float) -> Answer:
        response = await (await self.gateway()).post("/chat/completions", body, seconds)
        version = response.headers.get("x-litellm-model-name") or model
        spend(tokens=response.tokens, cached_tokens=response.cached_tokens, usd=response.usd, model=version)
        try:
            [choice, *_] = response.content["choices"]
            text = choice["message"]["content"]
        except (KeyError, ValueError, TypeError) as error:
            raise _no_answer(alias, model, response) from error
        if not isinstance(text, str) or not text:
            raise _no_answer(alias, model, response)
        # Half of a character that UTF-16 has in two, where a model was cut off, is in no document and no record.
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        cut = choice.get("finish_reason") == "length"
        return Answer(text, version, response.tokens, response.cached_tokens, response.usd, cut=cut)

    def _vector_cache(self) -> VectorCache | None:
        if self._cache is None and self.settings.redis_url is not None:
            from assetcore.cache import get_async_client  # 0.15 s, and only for those who ask models

            self._cache = VectorCache(get_async_client(self.settings.redis_url))
        return self._cache


def _recorded(record: Mapping[str, Any]) -> Answer:
    return Answer(
        record["answer"], record["model"], record["tokens"], record["cached_tokens"], record["usd"], recorded=True, key=record["key"],
        cut=record.get("cut", False),
    )  # fmt: skip


def _no_answer(alias: str, model: str, response: Response) -> AnswerError:
    return AnswerError(f"{alias} ({model}) gave an answer without text.", answer=str(response.content)[:2000])
