"""Results: what did a run do, and what is there to say while it goes on?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from assetcore.checks import CheckReport

__all__ = ["AssetResult", "Event", "Failure", "RunResult", "Say"]

NOTHING = "nothing to do"
Kind = Literal[
    "observed", "planned", "asset-started", "progress", "asset-finished", "unit-failed", "waiting", "message"
]


@dataclass(frozen=True, slots=True)
class Event:
    """Something to show while a run goes on."""

    kind: Kind
    asset: str = ""
    done: int = 0
    total: int = 0
    text: str = ""


Say = Callable[[Event], None]


@dataclass(frozen=True, slots=True)
class Failure:
    """A unit that failed."""

    asset: str
    unit: str
    error: str
    traceback: str

    def to_json(self) -> dict[str, Any]:
        return {"asset": self.asset, "unit": self.unit, "error": self.error, "traceback": self.traceback}


@dataclass(slots=True)
class AssetResult:
    """What a run did to one asset, in units, and what its checks say of it then.

    `taken_in` counts the documents of a source, which is observed and not made. `tokens` and `usd` are what the units that were called
    said that they cost, also those that failed. `partitions` are those of which something was made, where an asset is divided.
    """

    asset: str
    made: int = 0
    unchanged: int = 0
    reused: int = 0
    fresh: int = 0
    removed: int = 0
    failed: int = 0
    skipped: int = 0
    left: int = 0
    taken_in: int = 0
    tokens: int = 0
    usd: float = 0.0
    seconds: float = 0.0
    keys: list[str] = field(default_factory=list)
    checks: tuple[CheckReport, ...] = ()
    partitions: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        spent = {"tokens": self.tokens, "usd": round(self.usd, 6)} if self.tokens or self.usd else {}
        return {
            "asset": self.asset, "made": self.made, "unchanged": self.unchanged, "reused": self.reused, "fresh": self.fresh,
            "removed": self.removed, "failed": self.failed, "skipped": self.skipped, **({"left": self.left} if self.left else {}), **spent,
        }  # fmt: skip

    @property
    def touched(self) -> bool:
        """Whether anything was done to it, or could not be."""
        return self.summary != NOTHING

    @property
    def summary(self) -> str:
        """The counts that are not zero, in words, and the checks that did not pass."""
        shown = ("taken_in", "made", "unchanged", "reused", "removed", "failed", "skipped", "left")
        counts = ", ".join(f"{getattr(self, n)} {n.replace('_', ' ')}" for n in shown if getattr(self, n))
        return "; ".join([counts or NOTHING, *filter(None, (check.summary for check in self.checks))])

    @property
    def refused(self) -> bool:
        """Whether a blocking check did not pass."""
        return any(check.refuses for check in self.checks)


@dataclass(frozen=True, slots=True)
class RunResult:
    """What a run did. `run` is None when there was nothing to do."""

    run: str | None
    flow_run: str | None
    status: str
    assets: tuple[AssetResult, ...]
    failures: tuple[Failure, ...] = ()
    seconds: float = 0.0
    checks: tuple[CheckReport, ...] = ()
    stopped: str | None = None

    def to_json(self) -> dict[str, Any]:
        """What `aipctl materialize --json` prints."""
        left = {a.asset: a.left + a.skipped for a in self.assets if a.left or (self.stopped and a.skipped)}
        return {
            "run": self.run,
            "flow_run": self.flow_run,
            "status": self.status,
            "assets": [a.to_json() for a in self.assets],
            "failures": [f.to_json() for f in self.failures],
            "seconds": round(self.seconds, 3),
            "checks": [c.to_json() for c in self.checks],
            **({"stopped": self.stopped, "left": left} if self.stopped else {}),
        }
