"""Moments: which point in time does a text mean?

    2026-11-20T14:30, 2026-11-20     ISO 8601; without an offset in the zone of the machine, a date is its first moment
    2 hours ago, yesterday, now      from now on backwards; yesterday and today are their first moment
    21c810ffe5                       a run, by the beginning of its identifier: when it had ended

In a REF a time stands behind an @: `chunks@yesterday`, `chunks[with]@21c810ffe5`, `chunks[with]/with-0@2026-11-20`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from assetcore.errors import UsageError

__all__ = ["RunMoment", "moment", "split_time"]

SECONDS = {
    "second": 1, "minute": 60, "hour": 3600, "day": 86_400, "week": 604_800, "month": 30 * 86_400, "year": 365 * 86_400,
}  # fmt: skip
_AGO = re.compile(r"(?P<count>\d{1,6}|an?|one) (?P<unit>second|minute|hour|day|week|month|year)s? ago")
_RUN = re.compile(r"[0-9a-f]{4,10}")
_HINT = "Write 2026-11-20T14:30, 2026-11-20, '2 hours ago', yesterday, or the beginning of a run's identifier."


@dataclass(frozen=True, slots=True)
class RunMoment:
    """The moment at which a run had ended, by the beginning of its identifier."""

    run: str


def moment(text: str, now: datetime) -> datetime | RunMoment:
    """The time that a text means, with its zone; `now` has one. Raises UsageError."""
    words = " ".join(text.lower().split())
    if words == "now":
        return now
    if words in ("today", "yesterday"):
        day = now.astimezone().replace(tzinfo=None) - timedelta(days=words == "yesterday")
        return day.replace(hour=0, minute=0, second=0, microsecond=0).astimezone()
    if ago := _AGO.fullmatch(words):
        count = int(ago["count"]) if ago["count"].isdigit() else 1
        try:
            return now - timedelta(seconds=count * SECONDS[ago["unit"]])
        except OverflowError:
            raise UsageError(f"{text!r} is before all times.", hint=_HINT) from None
    if _RUN.fullmatch(words):
        return RunMoment(words)
    try:
        if "-" not in words:
            raise ValueError
        found = datetime.fromisoformat(text.strip())
    except ValueError:
        raise UsageError(f"{text!r} is not a time.", hint=_HINT) from None
    try:
        here = found.astimezone(UTC).astimezone()
    except (ValueError, OverflowError):  # there is no such year in one of the two
        raise UsageError(f"{text!r} is beyond all times.", hint=_HINT) from None
    return found if found.tzinfo is not None else here


def split_time(text: str) -> tuple[str, str | None]:
    """A REF and the time behind its last @, if there is one: what follows an @ inside brackets or quotes, or is no time, is of the REF."""
    ref, mark, time = text.rpartition("@")
    if not mark or not ref or "]" in time or time.endswith('"'):
        return text, None
    try:
        moment(time, datetime.now().astimezone())
    except UsageError:
        if "/" in ref or "/" in time:  # the name of a document may hold anything
            return text, None
        raise
    return ref, time
