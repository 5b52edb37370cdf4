"""Costs: what will making take, by what it took before, and how much may it take?

What is known of an asset are the median and the 90th percentile of time, tokens and dollars, over a sample of the units that any run
has made. An estimate is the median for each unit; beside it stands the 90th percentile, so that one sees what to be ready for.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

from assetcore.errors import UsageError

__all__ = ["Estimate", "Limit", "Spread", "UnitCosts", "estimated", "parse_limit", "priced", "total"]

Currency = Literal["usd", "tokens", "seconds"]
_LIMIT = re.compile(
    r"(?P<amount>\d+(?:\.\d+)?)(?P<unit>usd|tokens|s|min|h)|\$(?P<dollars>\d+(?:\.\d+)?)", re.IGNORECASE
)
_SECONDS = {"s": 1, "min": 60, "h": 3600}


class Spread(NamedTuple):
    """The median, and what one unit in ten is above."""

    median: float = 0.0
    p90: float = 0.0


FREE = Spread()


@dataclass(frozen=True, slots=True)
class UnitCosts:
    """What one unit of an asset took, from so many `units` that were made before."""

    units: int
    seconds: Spread = FREE
    tokens: Spread = FREE
    usd: Spread = FREE


@dataclass(frozen=True, slots=True)
class Estimate:
    """What making so many units of an asset will take. `per_unit` is None where none was ever made."""

    asset: str
    stale: int
    pending: int
    per_unit: UnitCosts | None

    def of(self, currency: Currency, *, p90: bool = False, units: int | None = None) -> float:
        if self.per_unit is None:
            return 0.0
        spread: Spread = getattr(self.per_unit, currency)
        return (self.stale if units is None else units) * (spread.p90 if p90 else spread.median)

    def to_json(self) -> dict[str, Any]:
        """By asset: how much for what is stale and what is pending; of a unit median and p90, and from how many that is known."""
        if self.per_unit is None:
            return {"asset": self.asset, "stale": self.stale, "pending": self.pending, "known": 0}
        per_unit = {name: {"median": _round(getattr(self.per_unit, name).median), "p90": _round(getattr(self.per_unit, name).p90)}
                    for name in ("seconds", "tokens", "usd")}  # fmt: skip
        return {
            "asset": self.asset, "stale": self.stale, "pending": self.pending, "known": self.per_unit.units, "per_unit": per_unit,
            **{name: amounts(self, name) for name in ("tokens", "usd")},
        }  # fmt: skip


def amounts(estimate: Estimate, currency: Currency) -> dict[str, float]:
    """For the stale units at the median and at the 90th percentile; for the pending ones at the median."""
    return {
        "median": _round(estimate.of(currency)), "p90": _round(estimate.of(currency, p90=True)),
        "pending": _round(estimate.of(currency, units=estimate.pending)),
    }  # fmt: skip


def priced(estimate: Estimate, given: float, answered: float) -> Estimate:
    """An estimate where another model follows the one that it is known from: its tokens at the prices of the new one.

    How many go in and how many come out is not known: the median is at the price of what goes in, and what stands beside it at that
    of what comes out, where that is higher.
    """
    known = estimate.per_unit
    if known is None:
        return estimate
    usd = Spread(known.tokens.median * given, known.tokens.p90 * max(given, answered))
    return replace(estimate, per_unit=replace(known, usd=usd))


def estimated(planned: Iterable[tuple[str, int, int]], known: Mapping[str, UnitCosts]) -> tuple[Estimate, ...]:
    """An estimate for each asset (name, stale, pending) of which something is to be made."""
    return tuple(
        Estimate(name, stale, pending, known.get(name)) for name, stale, pending in planned if stale or pending
    )


def total(estimates: Iterable[Estimate]) -> dict[str, float | None]:
    """Tokens and dollars for all that is stale; None where no unit ever spent any."""
    known = [e for e in estimates if e.per_unit is not None]
    tokens, usd = sum(e.of("tokens") for e in known), sum(e.of("usd") for e in known)
    return {"tokens": round(tokens) or None, "usd": _round(usd) or None}


@dataclass(frozen=True, slots=True)
class Limit:
    """How much a run may take at most."""

    amount: float
    currency: Currency
    text: str


def parse_limit(text: str) -> Limit:
    """`5usd`, `$5`, `100000tokens`, `90s`, `30min`, `2h`. Raises UsageError."""
    found = _LIMIT.fullmatch(text.strip().replace("_", ""))
    if found is None:
        raise UsageError(f"{text!r} is no limit.", hint="Such as: 5usd, 100000tokens, 30min")
    if found["dollars"]:
        return Limit(float(found["dollars"]), "usd", text.strip())
    unit, amount = found["unit"].lower(), float(found["amount"])
    if unit in _SECONDS:
        return Limit(amount * _SECONDS[unit], "seconds", text.strip())
    return Limit(amount, "usd" if unit == "usd" else "tokens", text.strip())


def _round(value: float) -> float:
    """Enough digits for money and time: six."""
    return round(value, 6)
