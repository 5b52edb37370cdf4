"""Partitions: into which parts is an asset divided, and which parts of another does each of them need?

A part is known by its *key*, a text that is its label everywhere. Days and hours follow from the calendar of a time zone: nothing here
looks at the clock, the time is handed in. A day or an hour is there once it is over, so that what is made of it is made of all of it.
"""

from __future__ import annotations

import inspect
import re
import sys
from abc import ABC, abstractmethod
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from functools import cached_property
from typing import Any, Literal, TypeAlias
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from assetcore.digest import digest, sequence_digest
from assetcore.errors import DeclarationError

__all__ = [
    "Daily", "Dynamic", "Hourly", "Moment", "Partition", "Partitions", "Relation", "Static", "are_aligned", "checked_keys", "duration_of",
    "misfit", "needed", "shown_duration",
]  # fmt: skip

Relation: TypeAlias = Literal["same"] | timedelta
"""Which partitions of an input a partition is given: the same, or all of so much time up to its end."""

HOUR = timedelta(hours=1)
BEGINNING = datetime.min.replace(tzinfo=UTC)
KEY_LIMIT = 200
_UNFIT = re.compile(r"[/\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_UNITS = {"w": timedelta(weeks=1), "d": timedelta(days=1), "h": HOUR, "m": timedelta(minutes=1), "s": timedelta(seconds=1)}  # fmt: skip
_DURATION = re.compile(r"(?:\d+[wdhms])+")


@dataclass(frozen=True, slots=True)
class Partition:
    """One part of an asset: `key` is its name; a day or an hour has a `start` and an `end` (excluded), with their time zone."""

    key: str
    start: datetime | None = None
    end: datetime | None = None

    def __str__(self) -> str:
        return self.key

    @property
    def digest(self) -> bytes:
        """What of a partition a function can see; part of the recipe of its units."""
        zone = str(self.start.tzinfo) if self.start is not None else None
        return digest("partition", self.key, self.start, self.end, zone)


class Partitions(ABC):
    """The parts of an asset: `days["2026-11-01"]` is one of them."""

    @abstractmethod
    def __getitem__(self, key: str) -> Partition:
        """The partition of a key. Raises KeyError where there can be none."""

    @property
    def hands_over(self) -> type:
        """What a parameter may be annotated with, beside `Partition`."""
        return str


@dataclass(frozen=True)
class _Timed(Partitions):
    """Stretches of time, one after the other without a gap, from `start` on; up to and with `end`, if there is one."""

    start: Any
    end: Any = None
    timezone: str = "UTC"

    def __post_init__(self) -> None:
        try:
            _ = self.zone
        except (ZoneInfoNotFoundError, ValueError, TypeError):
            raise self._fail(
                f"has timezone={self.timezone!r}, which is no time zone", 'timezone="Europe/Berlin"'
            ) from None
        for name in ("start", "end"):
            given = getattr(self, name)
            if name == "start" or given is not None:
                try:
                    object.__setattr__(self, name, self._read(name, given))
                    if name == "start":
                        self.at(0)
                except OverflowError:
                    problem = (
                        f"has {name}={given!r}, which is beyond the calendar of {self.timezone}: years 1 to 9999 of UTC"
                    )
                    raise self._fail(problem, f'{name}="2026-11-01"') from None
        if self.end is not None and self.end < self.start:
            start, end = self._written(self.start), self._written(self.end)
            fix = f'start="{end}", end="{start}"; end= is the last one, included'
            raise self._fail(f"ends ({end}) before it starts ({start})", fix)

    def __repr__(self) -> str:
        end = f', end="{self._written(self.end)}"' if self.end is not None else ""
        zone = f', timezone="{self.timezone}"' if self.timezone != "UTC" else ""
        return f'{type(self).__name__}(start="{self._written(self.start)}"{end}{zone})'

    @cached_property
    def zone(self) -> ZoneInfo:
        """The time zone."""
        return ZoneInfo(self.timezone)

    @abstractmethod
    def _read(self, name: str, given: Any) -> Any: ...

    @abstractmethod
    def _written(self, bound: Any) -> str: ...

    @abstractmethod
    def count(self, now: datetime) -> int:
        """How many are over."""

    @abstractmethod
    def at(self, index: int) -> Partition:
        """The partition at this place, from 0."""

    @abstractmethod
    def before(self, end: datetime, window: timedelta) -> datetime:
        """When so much time up to `end` began; the beginning of the calendar where it goes further back than that."""

    def over(self, now: datetime) -> tuple[Partition, ...]:
        """Those that are over."""
        return tuple(map(self.at, range(self.count(now))))

    def _fail(self, problem: str, fix: str) -> DeclarationError:
        return DeclarationError(f"{_caller()}: {type(self).__name__}(...) {problem}.", hint=f"For instance: {fix}.")


@dataclass(frozen=True, repr=False)
class Daily(_Timed):
    """One part for each day from `start` on, in the calendar of `timezone`: `Daily(start="2026-11-01")`.

    A day is there when it is over. `end`, included, is the last one; without it, each midnight adds one. Days on which clocks are
    changed last 23 or 25 hours. The key is `2026-11-01`; a parameter annotated with `date` or `Partition` takes it.
    """

    start: date
    end: date | None = None
    timezone: str = "UTC"

    def __getitem__(self, key: str) -> Partition:
        try:
            day = date.fromisoformat(key)
            found = self.at((day - self.start).days)
        except (ValueError, OverflowError):  # the calendar has no next day
            raise KeyError(key) from None
        if found.key != key or day < self.start or (self.end is not None and day > self.end):
            raise KeyError(key)
        return found

    @property
    def hands_over(self) -> type:
        return date

    def count(self, now: datetime) -> int:
        last = now.astimezone(self.zone).date() - timedelta(days=1)
        if self.end is not None:
            last = min(last, self.end)
        return max(0, (last - self.start).days + 1)

    def at(self, index: int) -> Partition:
        day = self.start + timedelta(days=index)
        return Partition(day.isoformat(), self._midnight(day), self._midnight(day + timedelta(days=1)))

    def before(self, end: datetime, window: timedelta) -> datetime:
        """In days of the calendar: seven of them are seven days, also where one of them has 25 hours, or begins at one."""
        try:
            midnight = datetime.combine(end.date(), time())
            began = (midnight if end == self._midnight(end.date()) else end.replace(tzinfo=None)) - window
            return began.replace(tzinfo=self.zone).astimezone(UTC)
        except OverflowError:
            return BEGINNING

    def _midnight(self, day: date) -> datetime:
        """When a day begins; by way of UTC, because where clocks are put forward at midnight it begins at one."""
        return datetime.combine(day, time(), self.zone).astimezone(UTC).astimezone(self.zone)

    def _read(self, name: str, given: Any) -> date:
        try:
            found = date.fromisoformat(given) if isinstance(given, str) else given
        except ValueError:
            found = None
        if not isinstance(found, date) or isinstance(found, datetime):
            raise self._fail(f"has {name}={given!r}, which is no day", f'{name}="2026-11-01"')
        return found

    def _written(self, bound: Any) -> str:
        return str(bound)


@dataclass(frozen=True, repr=False)
class Hourly(_Timed):
    """One part for each hour from `start` on: `Hourly(start="2026-11-01T00")`.

    An hour is there when it is over. `end`, included, is the last one. The key is `2026-11-01T13` in the time of `timezone`; where clocks
    are put back, the second of two equal hours is told by its offset: `2026-10-25T02+01:00`. An hour that is skipped has no part. A
    parameter annotated with `datetime` or `Partition` takes it.
    """

    start: datetime
    end: datetime | None = None
    timezone: str = "UTC"

    def __getitem__(self, key: str) -> Partition:
        try:
            given = datetime.fromisoformat(key)
            begins = given.replace(tzinfo=given.tzinfo or self.zone).astimezone(UTC)
            index, rest = divmod(begins - self.start.astimezone(UTC), HOUR)
            found = self.at(index)
        except (ValueError, OverflowError):  # the calendar has no next hour
            raise KeyError(key) from None
        if index < 0 or rest or found.key != key or (self.end is not None and begins > self.end.astimezone(UTC)):
            raise KeyError(key)
        return found

    @property
    def hands_over(self) -> type:
        return datetime

    def count(self, now: datetime) -> int:
        over = (now.astimezone(UTC) - self.start.astimezone(UTC)) // HOUR
        if self.end is not None:
            over = min(over, (self.end.astimezone(UTC) - self.start.astimezone(UTC)) // HOUR + 1)
        return max(0, over)

    def at(self, index: int) -> Partition:
        begins = self.start.astimezone(UTC) + index * HOUR
        start = begins.astimezone(self.zone)
        return Partition(_hour(start), start, (begins + HOUR).astimezone(self.zone))

    def before(self, end: datetime, window: timedelta) -> datetime:
        try:
            return end.astimezone(UTC) - window
        except OverflowError:
            return BEGINNING

    def _read(self, name: str, given: Any) -> datetime:
        try:
            found = datetime.fromisoformat(given) if isinstance(given, str) else given
        except ValueError:
            found = None
        if isinstance(found, date) and not isinstance(found, datetime):
            found = datetime.combine(found, time())
        if not isinstance(found, datetime) or (found.minute, found.second, found.microsecond) != (0, 0, 0):
            raise self._fail(f"has {name}={given!r}, which is no full hour", f'{name}="2026-11-01T00"')
        return found.replace(tzinfo=found.tzinfo or self.zone).astimezone(UTC).astimezone(self.zone)

    def _written(self, bound: Any) -> str:
        return _hour(bound)


def _hour(start: datetime) -> str:
    """The key of an hour: minutes only where the time zone is not whole hours from where it began, the offset where it comes twice."""
    text = start.replace(tzinfo=None).isoformat(
        timespec="seconds" if start.second else "minutes" if start.minute else "hours"
    )
    if start.fold:
        offset = start.strftime("%z")
        text += f"{offset[:3]}:{offset[3:5]}"
    return text


@dataclass(frozen=True)
class Static(Partitions):
    """One part for each of these texts: `Static(["de", "en"])`. A parameter annotated with `str` or `Partition` takes it."""

    keys: Sequence[str]

    def __post_init__(self) -> None:
        try:
            object.__setattr__(self, "keys", checked_keys(self.keys))
        except ValueError as error:
            hint = 'For instance: Static(["de", "en"]).'
            raise DeclarationError(f"{_caller()}: Static({self.keys!r:.80}) {error}.", hint=hint) from None
        if not self.keys:
            raise DeclarationError(
                f"{_caller()}: Static([]) has no partition.", hint='For instance: Static(["de", "en"]).'
            )

    def __repr__(self) -> str:
        return f"Static({list(self.keys)!r})"

    def __getitem__(self, key: str) -> Partition:
        if key not in self.keys:
            raise KeyError(key)
        return Partition(key)


@dataclass(frozen=True)
class Dynamic(Partitions):
    """One part for each text that a function gives when a plan is made: `Dynamic(tenants)`, with `def tenants() -> list[str]`, or async.

    A parameter annotated with `str` or `Partition` takes it. What the documents of a source already say is better asked by `each`.
    """

    function: Callable[[], Any]

    def __post_init__(self) -> None:
        problem = None
        if not callable(self.function) or isinstance(self.function, type):
            problem = f"takes a function that gives the keys, found {self.function!r:.80}"
        elif self.function.__hash__ is None:
            problem = f"takes a function, found {self.function!r:.80}, which has no hash"
        elif _parameters(self.function):
            problem = f"asks {getattr(self.function, '__name__', self.function)}, which takes parameters"
        if problem:
            raise DeclarationError(
                f"{_caller()}: Dynamic(...) {problem}.",
                hint='For instance: def tenants() -> list[str]: ..., and Dynamic(tenants); for a fixed list Static(["de", "en"]).',
            )

    def __repr__(self) -> str:
        return f"Dynamic({getattr(self.function, '__name__', self.function)})"

    def __getitem__(self, key: str) -> Partition:
        return Partition(key)


def _parameters(function: Callable[[], Any]) -> bool:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # a built-in, which says nothing
        return False
    return any(p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters)


def checked_keys(given: Any) -> tuple[str, ...]:
    """Keys as they are declared or given by a function. Raises ValueError with what is wrong."""
    if isinstance(given, str | bytes | Mapping) or not isinstance(given, Iterable):
        raise ValueError("is not a list of texts")
    keys = tuple(given)
    for key in keys:
        if not isinstance(key, str):
            raise ValueError(f"has {key!r:.80}, which is not a text")
        if not key.strip() or key != key.strip() or _UNFIT.search(key) or len(key) > KEY_LIMIT:
            raise ValueError(
                f"has {key!r:.80}: a key is 1 to {KEY_LIMIT} characters without /, line breaks, or blanks at its ends"
            )
    if len(set(keys)) < len(keys):
        raise ValueError(f"has {next(k for k in keys if keys.count(k) > 1)!r} twice")
    return keys


@dataclass(frozen=True, slots=True)
class Moment:
    """When a plan is made, and which dynamic partitions there are then: the same for all that is planned and made."""

    now: datetime
    listed: Mapping[Dynamic, tuple[str, ...]] = field(default_factory=dict)
    _found: dict[Partitions, tuple[Partition, ...]] = field(default_factory=dict)

    def partitions(self, of: Partitions) -> tuple[Partition, ...]:
        """Those that there are, in order."""
        if of not in self._found:
            self._found[of] = of.over(self.now) if isinstance(of, _Timed) else tuple(map(Partition, self._keys(of)))
        return self._found[of]

    def count(self, of: Partitions) -> int:
        """How many there are."""
        return of.count(self.now) if isinstance(of, _Timed) else len(self._keys(of))

    def standing(self, of: Partitions) -> str:
        """One text for all that there are, which is another when there are others. No list is made for it."""
        if isinstance(of, _Timed):
            return f"{of!r} {of.count(self.now)}"
        return sequence_digest("partitions", [digest("partition", key) for key in self._keys(of)]).hex()

    def _keys(self, of: Partitions) -> Sequence[str]:
        return of.keys if isinstance(of, Static) else self.listed[of] if isinstance(of, Dynamic) else ()


def are_aligned(own: Partitions, upstream: Partitions) -> bool:
    """Whether a partition of one is the partition of the other that has the same key."""
    if isinstance(own, _Timed) and isinstance(upstream, _Timed):
        return type(own) is type(upstream) and own.timezone == upstream.timezone
    return own == upstream or (isinstance(own, Static) and isinstance(upstream, Static))


def misfit(own: Partitions, upstream: Partitions, relation: Relation) -> tuple[str, str] | None:
    """Why partitions of one cannot be given those of the other: the problem and the way out; None where they can."""
    if isinstance(own, _Timed) and isinstance(upstream, _Timed):
        if own.timezone != upstream.timezone:
            return f"their time zones differ: {own!r} and {upstream!r}", f'give both timezone="{upstream.timezone}"'
        return None
    if isinstance(relation, timedelta):
        return f"a window of time needs days or hours on both sides: {own!r} and {upstream!r}", "leave the window out"
    if isinstance(own, Static) and isinstance(upstream, Static):
        if lacking := [key for key in own.keys if key not in upstream.keys]:
            return f"{upstream!r} has no {lacking[0]!r}", "give both the same keys"
        return None
    if own == upstream:
        return None
    return f"nothing says which of {upstream!r} belong to which of {own!r}", "give both the same partitions"


def needed(
    own: Partitions,
    upstream: Partitions,
    relation: Relation,
    there: Mapping[Partitions, Sequence[Partition]],
) -> Iterator[tuple[str, str]]:
    """Pairs of a key and a key of the input that it is given, of those that there are."""
    mine, theirs = there[own], there[upstream]
    if not (isinstance(own, _Timed) and isinstance(upstream, _Timed)):
        known = {one.key for one in theirs}
        yield from ((one.key, one.key) for one in mine if one.key in known)
        return
    starts = [one.start.astimezone(UTC) for one in theirs if one.start is not None]
    ends = [one.end.astimezone(UTC) for one in theirs if one.end is not None]
    for one in mine:
        assert one.start is not None
        assert one.end is not None
        since = one.start if relation == "same" else own.before(one.end, relation)
        first, last = bisect_right(ends, since.astimezone(UTC)), bisect_left(starts, one.end.astimezone(UTC))
        for other in theirs[first:last]:
            yield one.key, other.key


def duration_of(given: object) -> timedelta | None:
    """A length of time: a timedelta, or a text such as `1d`, `6h`, `30m`, `1d12h`; None for what is none."""
    if isinstance(given, str) and _DURATION.fullmatch(given):
        parts = re.findall(r"(\d+)([wdhms])", given)
        try:
            given = sum((int(number) * _UNITS[unit] for number, unit in parts), timedelta())
        except (OverflowError, ValueError):  # beyond what a timedelta holds, or int reads
            return None
    return given if isinstance(given, timedelta) and given > timedelta() else None


def shown_duration(length: timedelta, units: int = 4) -> str:
    """The text that `duration_of` reads back as this length, to the second; or only its first so many units."""
    parts, rest = [], int(length.total_seconds())
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        number, rest = divmod(rest, size)
        parts += [f"{number}{unit}"] if number else []
    return "".join(parts[:units]) or "0s"


def _caller() -> str:
    """Where the user's code stands that declares it."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename in (__file__, "<string>"):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"
