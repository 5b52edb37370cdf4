"""Dates: which date, time or span of time is it that Postgres holds, also where Python has none that is the same?

Postgres has infinity, years from 4713 BC to 294276, a time 24:00, and months, which are no number of days. What Python's classes hold
is told as these; what they do not is text, which says it exactly and on every machine alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any

__all__ = ["CODECS", "INFINITE", "Codec"]

EPOCH = datetime.combine(date(2000, 1, 1), time())
"""From here Postgres counts days and microseconds, in 32 and 64 bits, whose ends are the infinities."""
MICROSECOND = timedelta(microseconds=1)
DAY = timedelta(days=1) // MICROSECOND
DAYS_OF_400_YEARS = 146_097
INFINITE = ("-infinity", "infinity")
_ENDS_OF_32 = (-(2**31), 2**31 - 1)
_ENDS_OF_64 = (-(2**63), 2**63 - 1)
_SPANS: Mapping[tuple[int, ...], str] = dict(
    zip(zip(_ENDS_OF_32, _ENDS_OF_32, _ENDS_OF_64, strict=True), INFINITE, strict=True)
)


@dataclass(frozen=True, slots=True)
class Codec:
    """From a value to the numbers that Postgres sends and takes for it (asyncpg calls them its format `tuple`), and back."""

    encode: Callable[[Any], tuple[int, ...]]
    decode: Callable[[tuple[int, ...]], Any]


def _days(value: date | str) -> tuple[int]:
    if isinstance(value, str):
        return (_ENDS_OF_32[INFINITE.index(value)],)
    return (value.toordinal() - EPOCH.toordinal(),)


def _date(sent: tuple[int, ...]) -> date | str:
    (days,) = sent
    try:
        return date.fromordinal(days + EPOCH.toordinal())
    except (ValueError, OverflowError):
        return INFINITE[days > 0] if days in _ENDS_OF_32 else _text(days)


def _moments(epoch: datetime) -> Codec:
    """Of moments that are naive, as the epoch is, or aware as it is; asyncpg takes a date for its first moment, and so does this."""

    def encode(value: date | str) -> tuple[int]:
        if isinstance(value, str):
            return (_ENDS_OF_64[INFINITE.index(value)],)
        moment = value if isinstance(value, datetime) else datetime.combine(value, time())
        return (((moment.astimezone(UTC) if epoch.tzinfo else moment) - epoch) // MICROSECOND,)

    def decode(sent: tuple[int, ...]) -> datetime | str:
        (microseconds,) = sent
        try:
            return epoch + timedelta(0, 0, microseconds)
        except OverflowError:
            if microseconds in _ENDS_OF_64:
                return INFINITE[microseconds > 0]
            days, rest = divmod(microseconds, DAY)
            return _text(days, "T" + (epoch + timedelta(0, 0, rest)).timetz().isoformat())

    return Codec(encode, decode)


def _text(days: int, rest: str = "") -> str:
    """The day so many days after the epoch, whichever it is, with what follows it: the calendar begins anew each 400 years."""
    cycles, days = divmod(days, DAYS_OF_400_YEARS)
    day = EPOCH + timedelta(days)
    year = day.year + 400 * cycles
    return f"{year:04}-{day:%m-%d}{rest}" if year > 0 else f"{1 - year:04}-{day:%m-%d}{rest} BC"


def _of_day(value: time) -> tuple[int]:
    return ((datetime.combine(EPOCH, value.replace(tzinfo=None)) - EPOCH) // MICROSECOND,)


def _time(sent: tuple[int, ...]) -> time | str:
    (microseconds,) = sent
    return "24:00:00" if microseconds == DAY else (EPOCH + timedelta(0, 0, microseconds)).time()


def _of_day_and_zone(value: time) -> tuple[int, int]:
    east = value.utcoffset()
    if east is None:
        raise ValueError(f"{value} is in no zone")
    return (*_of_day(value), -east // timedelta(seconds=1))


def _timetz(sent: tuple[int, ...]) -> time | str:
    microseconds, west = sent
    value, zone = _time((microseconds,)), timezone(timedelta(seconds=-west))
    return value + time(tzinfo=zone).isoformat()[8:] if isinstance(value, str) else value.replace(tzinfo=zone)


def _of_span(value: timedelta) -> tuple[int, int, int]:
    return 0, value.days, value.seconds * 1_000_000 + value.microseconds


def _interval(sent: tuple[int, ...]) -> timedelta | str:
    """Days, of 24 hours, and less; with months the duration as ISO 8601 writes it, P1M."""
    months, days, microseconds = sent
    try:
        if not months:
            return timedelta(days, 0, microseconds)
    except OverflowError:
        pass
    if sent in _SPANS:
        return _SPANS[sent]
    seconds = Decimal(microseconds).scaleb(-6).normalize()
    parts = [f"{months}M" * bool(months), f"{days}D" * bool(days), f"T{seconds:f}S" * bool(microseconds)]
    return "P" + "".join(parts)


CODECS: Mapping[str, Codec] = {
    "date": Codec(_days, _date),
    "time": Codec(_of_day, _time),
    "timetz": Codec(_of_day_and_zone, _timetz),
    "timestamp": _moments(EPOCH),
    "timestamptz": _moments(EPOCH.replace(tzinfo=UTC)),
    "interval": Codec(_of_span, _interval),
}
"""By the names that Postgres has for the types."""
