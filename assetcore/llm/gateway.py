"""Gateway: how is one question asked over HTTP, and what does it mean when there is no answer?

it cannot be reached, is silent or hangs      GatewayError, transient
408, 429, 5xx                                 GatewayError, transient; Retry-After is kept
401, 403, any other 4xx                       GatewayError
200, but no JSON or half of it                GatewayError, transient
"""

from __future__ import annotations

import asyncio
import email.utils
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from assetcore.errors import GatewayError
from assetcore.settings import masked
from assetcore.spending import MOST

if TYPE_CHECKING:
    import httpx

__all__ = ["Gateway", "Response"]

AGAIN = (408, 425, 429)
"""What among the refusals is not about the question."""


@dataclass(frozen=True, slots=True)
class Response:
    """What the gateway said."""

    content: Any
    headers: Mapping[str, str]

    @property
    def tokens(self) -> int:
        """How many tokens were given and answered; 0 where it does not say, or not as a number."""
        usage = _entries(self.content, "usage")
        parts = _count(usage.get("prompt_tokens")) + _count(usage.get("completion_tokens"))
        return _count(usage.get("total_tokens")) or parts

    @property
    def cached_tokens(self) -> int:
        """How many of the tokens the provider had cached."""
        cached = _entries(_entries(self.content, "usage"), "prompt_tokens_details").get("cached_tokens")
        return min(_count(cached), self.tokens)

    @property
    def usd(self) -> float:
        """What the call cost, as the gateway reckons; 0 where it does not know."""
        for name in ("x-litellm-response-cost", "x-litellm-response-cost-original"):
            try:
                usd = float(self.headers[name])
            except (KeyError, ValueError):
                continue
            return usd if 0 <= usd <= MOST else 0.0
        return 0.0


@dataclass(slots=True)
class Gateway:
    """A gateway at an address. Nothing is contacted before the first question, and never another host."""

    url: str
    key: str | None
    _client: httpx.AsyncClient | None = field(default=None)

    async def post(self, path: str, body: Mapping[str, Any], seconds: float) -> Response:
        """The answer to one question. Raises GatewayError."""
        return await self._request("POST", path, body, seconds)

    async def get(self, path: str, seconds: float = 30) -> Response:
        """What lies under a path. Raises GatewayError."""
        return await self._request("GET", path, None, seconds)

    async def close(self) -> None:
        if self._client is not None:
            await self._client.aclose()

    async def _request(self, method: str, path: str, body: Mapping[str, Any] | None, seconds: float) -> Response:
        import httpx  # 0.1 s, and only for those who ask models

        if self._client is None:
            direct: dict[str, None] = dict.fromkeys(
                ("http://", "https://")
            )  # not by way of a proxy: that is another host
            self._client = httpx.AsyncClient(follow_redirects=False, mounts=direct)
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        try:
            # Of the whole answer: one that trickles, or stops in the middle, never runs into the timeout of a read.
            async with asyncio.timeout(seconds):
                answer = await self._client.request(
                    method, f"{self.url}{path}", json=body, headers=headers, timeout=seconds
                )
        except (TimeoutError, httpx.TimeoutException) as error:
            raise self._error(f"does not answer within {seconds:g} s", transient=True) from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            why = str(error).rstrip(".") or type(error).__name__
            raise self._error(
                f"cannot be reached: {why}", transient=True, hint="Look at: aipctl check, or correct OPENAI_BASE_URL."
            ) from error
        if answer.is_success:
            try:
                return Response(json.loads(answer.content), answer.headers)
            except ValueError as error:
                raise self._error("sent an answer that is no JSON, or not all of it", transient=True) from error
        raise self._refusal(answer)

    def _refusal(self, answer: httpx.Response) -> GatewayError:
        status = answer.status_code
        said = _said(answer.content)
        match status:
            case 401 | 403:
                return self._error(f"refuses the key ({status}): {said}", status, hint="Correct OPENAI_API_KEY.")
            case _ if status in AGAIN or status >= 500:
                wait = _seconds(answer.headers.get("retry-after"))
                what = "has no room for more at present" if status == 429 else "fails"
                hint = "Let the asset try again: @asset(retries=3), or give its pool a limit (setting pools)."
                return self._error(f"{what} ({status}): {said}", status, transient=True, retry_after=wait, hint=hint)
        return self._error(f"refuses the question ({status}): {said}", status)

    def _error(
        self, what: str, status: int | None = None, *, transient: bool = False, retry_after: float | None = None, hint: str | None = None
    ) -> GatewayError:  # fmt: skip
        text = f"The gateway at {masked(self.url)} {what}."
        return GatewayError(text, status=status, transient=transient, retry_after=retry_after, hint=hint)


def _said(content: bytes) -> str:
    """What a gateway says in its error, on one line."""
    try:
        found = json.loads(content)["error"]
        text = found["message"] if isinstance(found, dict) else str(found)
    except (ValueError, KeyError, TypeError):
        text = content.decode("utf-8", "replace")
    return " ".join(str(text).split())[:500].rstrip(".") or "it does not say why"


def _entries(content: Any, name: str) -> Mapping[str, Any]:
    """What an answer has under a name, where these are entries themselves."""
    found = content.get(name) if isinstance(content, dict) else None
    return found if isinstance(found, dict) else {}


def _count(said: Any) -> int:
    """A count as a provider says it; what is none, or of nothing, is 0."""
    try:
        return max(0, min(int(said), MOST))
    except (TypeError, ValueError, OverflowError):
        return 0


def _seconds(retry_after: str | None) -> float | None:
    """A Retry-After in seconds: it is a number, or a date."""
    if not retry_after:
        return None
    try:
        seconds = float(retry_after)
    except ValueError:
        try:
            seconds = (email.utils.parsedate_to_datetime(retry_after) - datetime.now(UTC)).total_seconds()
        except (ValueError, TypeError):
            return None
    return max(seconds, 0.0) if math.isfinite(seconds) else None
