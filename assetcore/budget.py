"""Budget: may one more unit begin, or would it cost too much?

A run with a limit stops before the unit that would exceed it. What a unit will take is what such units took before, at the 90th
percentile, or on average in this run, whichever is more; while nothing is known of an asset, its first unit goes alone. Close to the
limit units wait for those in flight to tell what they took, so that the run stops neither late nor early. Of money and tokens all that is
in flight counts together; time passes for all of it at once.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from assetcore.costs import Limit, UnitCosts
from assetcore.spending import Spent

__all__ = ["Budget"]


@dataclass(slots=True)
class Budget:
    """What a run may take, and what it has taken: `spent` by what has ended, `reserved` for what is in flight."""

    limit: Limit
    known: Mapping[str, UnitCosts]
    spent: float = 0.0
    reserved: float = 0.0
    stopped: bool = False
    _began: float = field(default_factory=time.monotonic)
    _in_flight: int = 0
    _seen: dict[str, tuple[int, float]] = field(default_factory=dict)
    _trying: set[str] = field(default_factory=set)
    _ended: asyncio.Event = field(default_factory=asyncio.Event)

    async def admit(self, asset: str, at_once: int = 1) -> float | None:
        """Wait until it is known whether a unit may begin: what is reserved for it, or None where it would exceed the limit.

        So many units are worked at `at_once`: in time, others wait for one of these to end.
        """
        while not self.stopped:
            wanted = self._expected(asset)
            alone = wanted is None and asset in self._trying
            if not alone and self._beside(wanted or 0.0, at_once) + (wanted or 0.0) <= self.limit.amount:
                if wanted is None:
                    self._trying.add(asset)
                self.reserved += wanted or 0.0
                self._in_flight += 1
                return wanted or 0.0
            too_late = self.limit.currency == "seconds" and self._taken() + (wanted or 0.0) > self.limit.amount
            if too_late or not self._in_flight:
                self.stopped = True
                break
            self._ended.clear()
            await self._ended.wait()
        self._ended.set()
        return None

    def settle(
        self, asset: str, reserved: float, seconds: float = 0.0, spent: Spent | None = None, *, ran: bool = True
    ) -> None:
        """A unit that was admitted has ended, and took this; where it was cancelled, nothing is learnt of it."""
        self._in_flight -= 1
        self.reserved = max(0.0, self.reserved - reserved) if self._in_flight else 0.0
        self._trying.discard(asset)
        if ran:
            took = seconds if self.limit.currency == "seconds" else self._amount(spent)
            self.spent += took
            count, total = self._seen.get(asset, (0, 0.0))
            self._seen[asset] = (count + 1, total + took)
        self._ended.set()

    def also(self, spent: Spent) -> None:
        """This was spent beside units: by checks of several, or of the whole asset."""
        self.spent += self._amount(spent)

    def _amount(self, spent: Spent | None) -> float:
        if spent is None or self.limit.currency == "seconds":
            return 0.0
        return spent.usd if self.limit.currency == "usd" else float(spent.tokens)

    def _taken(self) -> float:
        return time.monotonic() - self._began if self.limit.currency == "seconds" else self.spent

    def _beside(self, wanted: float, at_once: int) -> float:
        """What will have been taken when a unit that wants this begins."""
        if self.limit.currency == "seconds":
            return self._taken() + self._in_flight // at_once * wanted
        return self._taken() + self.reserved

    def _expected(self, asset: str) -> float | None:
        """What one unit will take; None where that is not known."""
        before = getattr(self.known[asset], self.limit.currency).p90 if asset in self.known else 0.0
        count, total = self._seen.get(asset, (0, 0.0))
        if not count and not before:
            return None
        return max(before, total / count if count else 0.0)
