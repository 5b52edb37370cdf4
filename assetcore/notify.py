"""Notify: who is told that something failed, and how often?

    Failure happens -> `tell(settings, failure)` -> every notifier that the settings name, once in five minutes for the same failure

There is one call site for runs and one for flows of Prefect; tasks call nothing here. A further channel is a class with `send` and a
line in `NOTIFIERS`. Whether it could be told never changes how a run ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from assetcore.digest import short_digest
from assetcore.settings import Settings
from assetcore.telemetry import get_pipeline_logger

__all__ = ["Failed", "Notifier", "PushoverNotifier", "WebhookNotifier", "notifiers_of", "tell"]

logger = get_pipeline_logger(__name__)

QUIET_SECONDS = 300.0
"""The same failure is told once in so many seconds, whichever processes meet it."""
SECONDS = 10.0
SHOWN = 5
PUSHOVER = "https://api.pushover.net/1/messages.json"
PUSHOVER_MESSAGE = 1024
PUSHOVER_TITLE = 250


@dataclass(frozen=True, slots=True)
class Failed:
    """What failed: enough to find it, and to tell it from another."""

    flow: str
    run: str
    problems: Sequence[tuple[str, str]]
    """What failed (`asset[unit]`), and with which error."""
    total: int
    keys: Sequence[str] = ()
    link: str | None = None

    @property
    def title(self) -> str:
        """Which flow, in a line."""
        return f"{self.flow} failed"

    @property
    def message(self) -> str:
        """Run, link, what failed with which error, and where the objects of the run lie."""
        lines = [f"run {self.run}: {self.total:,} failed", *([self.link] if self.link else [])]
        lines += [f"{what}: {error.strip().partition(chr(10))[0][:160]}" for what, error in self.problems[:SHOWN]]
        if self.total > SHOWN:
            lines.append(f"and {self.total - SHOWN:,} more")
        return "\n".join([*lines, *(f"key: {key}" for key in self.keys[:SHOWN])])

    @property
    def digest(self) -> str:
        """The same for the same failure: flow, units and errors, whichever run it was."""
        errors = sorted(f"{what}: {error.partition(chr(10))[0]}" for what, error in self.problems[:SHOWN])
        return short_digest("failed", self.flow, *errors).hex()


class Notifier(Protocol):
    """A way to tell somebody."""

    @property
    def name(self) -> str:
        """What it is called in the log."""
        ...

    async def send(self, title: str, message: str, **facts: Any) -> None:
        """Tell it. Raises what keeps it from being told; `facts` are flow, run, link, keys and problems, for those who can use them."""
        ...


@dataclass(frozen=True, slots=True)
class PushoverNotifier:
    """To a telephone, by Pushover."""

    user: str
    token: str
    url: str = PUSHOVER
    name: str = "pushover"

    @classmethod
    def of(cls, settings: Settings) -> PushoverNotifier | None:
        """The one that the settings name, if both its keys are there."""
        user, token = settings.pushover_user, settings.pushover_token
        if user is None or token is None:
            return None
        return cls(user.get_secret_value(), token.get_secret_value(), settings.pushover_url)

    async def send(self, title: str, message: str, **facts: Any) -> None:
        """One message, cut to what Pushover takes."""
        form = {
            "user": self.user,
            "token": self.token,
            "title": title[:PUSHOVER_TITLE],
            "message": message[:PUSHOVER_MESSAGE],
        }
        if link := facts.get("link"):
            form |= {"url": link, "url_title": "Prefect"}
        await _post(self.url, data=form)


@dataclass(frozen=True, slots=True)
class WebhookNotifier:
    """To whoever takes JSON at an address: {title, message, flow, run, link, keys, problems}."""

    url: str
    name: str = "webhook"

    @classmethod
    def of(cls, settings: Settings) -> WebhookNotifier | None:
        """The one that the settings name."""
        return None if settings.webhook_url is None else cls(settings.webhook_url.get_secret_value())

    async def send(self, title: str, message: str, **facts: Any) -> None:
        """One POST."""
        await _post(self.url, json={"title": title, "message": message, "text": f"{title}\n{message}", **facts})


NOTIFIERS = (PushoverNotifier.of, WebhookNotifier.of)


def notifiers_of(settings: Settings) -> list[Notifier]:
    """Who is to be told, as the settings say."""
    return [notifier for of in NOTIFIERS if (notifier := of(settings)) is not None]


async def tell(settings: Settings, failed: Failed, notifiers: Sequence[Notifier] | None = None) -> list[str]:
    """Tell everybody who has not been told of the same within five minutes; returns who was told. Never raises."""
    chosen = notifiers_of(settings) if notifiers is None else notifiers
    told = await asyncio.gather(*(_tell_one(settings, failed, notifier) for notifier in chosen))
    return [name for name in told if name is not None]


async def _tell_one(settings: Settings, failed: Failed, notifier: Notifier) -> str | None:
    key = f"assetcore:notified:{notifier.name}:{failed.digest}"
    facts = {
        "flow": failed.flow, "run": failed.run, "link": failed.link, "keys": list(failed.keys[:SHOWN]),
        "problems": [list(problem) for problem in failed.problems[:SHOWN]],
    }  # fmt: skip
    try:
        if not await _first(settings, key):
            return None
        async with asyncio.timeout(SECONDS):
            await notifier.send(failed.title, failed.message, **facts)
    except Exception as error:  # the run has ended as it has, whoever can be told
        logger.warning("%s could not be told that %s: %s", notifier.name, failed.title, type(error).__name__)
        await _again(settings, key)
        return None
    return notifier.name


async def _first(settings: Settings, key: str) -> bool:
    """Whether nobody has told this yet. Without Redis it is told: twice is better than never."""
    if settings.redis_url is None:
        return True
    from assetcore import cache  # 0.15 s, where something is to be told

    client = cache.get_async_client(settings.redis_url)
    try:
        return await cache.idempotency_key(client, key, QUIET_SECONDS)
    except Exception:
        return True
    finally:
        await client.aclose()


async def _again(settings: Settings, key: str) -> None:
    """What could not be told may be told by the next who meets it."""
    if settings.redis_url is None:
        return
    from assetcore import cache

    client = cache.get_async_client(settings.redis_url)
    try:
        await client.delete(key)
    except Exception as error:
        logger.warning("Redis does not answer: %s", type(error).__name__)
    finally:
        await client.aclose()


async def _post(url: str, **content: Any) -> None:
    import httpx  # 0.1 s, where something is to be told

    async with httpx.AsyncClient(timeout=SECONDS) as client:
        (await client.post(url, **content)).raise_for_status()
