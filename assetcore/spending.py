"""Spending: what does a unit say that it cost?

`spend` is what a user's function calls, wherever in it the cost becomes known; the room that calls the function opens an account
for each unit, and what was spent is kept with what the unit made. Outside a unit it does nothing, so that an asset stays an
ordinary function.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from contextvars import ContextVar, Token
from dataclasses import dataclass, field

from assetcore.errors import UsageError

__all__ = ["MOST", "Account", "Spent", "account", "spend", "together"]


MOST = 10**12
"""Nothing costs more, in tokens or dollars; sums of it are kept in 64 bits."""


@dataclass(frozen=True, slots=True)
class Spent:
    """What something cost: tokens of models, how many of them the provider had cached, US dollars, and which models were asked."""

    tokens: int = 0
    usd: float = 0.0
    cached_tokens: int = 0
    models: tuple[str, ...] = ()


def together(entries: Iterable[Spent | None]) -> Spent | None:
    """All of these, or None where there is nothing."""
    some = [one for one in entries if one is not None]
    if len(some) < 2:
        return some[0] if some else None
    return Spent(
        sum(one.tokens for one in some),
        math.fsum(one.usd for one in some),
        sum(one.cached_tokens for one in some),
        tuple(sorted({model for one in some for model in one.models})),
    )


@dataclass(slots=True)
class Account:
    """What one unit spends, in all its attempts and all the threads and tasks that it starts."""

    entries: list[Spent] = field(default_factory=list)
    _token: Token[Account | None] | None = None

    def __enter__(self) -> Account:
        self._token = _account.set(self)
        return self

    def __exit__(self, *raised: object) -> None:
        if self._token is not None:
            _account.reset(self._token)

    @property
    def spent(self) -> Spent | None:
        """All of it, or None where nothing was reported."""
        return together(self.entries)


_account: ContextVar[Account | None] = ContextVar("assetcore_account", default=None)


def spend(*, tokens: int = 0, usd: float = 0.0, cached_tokens: int = 0, model: str = "") -> None:
    """Report what the unit that is being made has just cost; what is reported adds up.

        answer = await client.generate(...)
        assetcore.spend(tokens=answer.usage.total_tokens, usd=answer.cost)

    `assetcore.llm` does so by itself. It is stored with what the unit makes, and summed for each asset of a run. Attempts that
    failed count. Outside a unit (a test, a notebook, a thread that does not know its unit) it does nothing. Raises UsageError for
    what is no cost.
    """
    known = isinstance(tokens, int) and isinstance(usd, int | float) and not isinstance(tokens, bool)
    known = known and isinstance(model, str) and (model.isprintable() or not model)
    if not known or not 0 <= tokens <= MOST or not 0 <= usd <= MOST or not 0 <= cached_tokens <= tokens:
        raise UsageError(
            f"spend(tokens={tokens!r:.40}, usd={usd!r:.40}, cached_tokens={cached_tokens!r:.40}, model={model!r:.80}) is no cost.",
            hint="Tokens are a whole number, dollars a number; from 0. Cached tokens are some of the tokens. A model is a name.",
        )
    current = _account.get()
    if current is not None:
        current.entries.append(Spent(tokens, float(usd), cached_tokens, (model,) if model else ()))


def account() -> Account:
    """An account for what is called inside `with`; no generator, which would cost as much as all else that is done for a small unit."""
    return Account()
