"""Dates: what Postgres sends is told exactly, as Python's where Python has it, and leads back to what was sent."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assetcore.sources.dates import CODECS

DAY = 86_400_000_000
FIRST, LAST = -730_119, 2_921_939
"""Python's first and last day, as Postgres counts them."""
MOMENTS = st.integers(FIRST * DAY, (LAST + 1) * DAY - 1)


def decoded(kind: str, *sent: int) -> Any:
    return CODECS[kind].decode(sent)


@pytest.mark.parametrize(
    ("kind", "sent"),
    [
        ("date", st.tuples(st.sampled_from([-(2**31), 2**31 - 1]) | st.integers(FIRST, LAST))),
        ("timestamp", st.tuples(st.sampled_from([-(2**63), 2**63 - 1]) | MOMENTS)),
        ("timestamptz", st.tuples(st.sampled_from([-(2**63), 2**63 - 1]) | MOMENTS)),
        ("time", st.tuples(st.integers(0, DAY - 1))),
        ("timetz", st.tuples(st.integers(0, DAY - 1), st.integers(-57_599, 57_599))),
        ("interval", st.tuples(st.just(0), st.integers(-9_999, 9_999), st.integers(0, DAY - 1))),
    ],
)
@given(data=st.data())
def test_what_is_told_leads_back(kind: str, sent: st.SearchStrategy[tuple[int, ...]], data: st.DataObject) -> None:
    """Also the last moment that Python has, which is not infinity."""
    numbers = data.draw(sent)
    assert CODECS[kind].encode(CODECS[kind].decode(numbers)) == numbers


@given(st.integers(-(2**31), 2**31 - 1), st.integers(-(2**31), 2**31 - 1))
def test_no_two_days_are_told_alike(one: int, other: int) -> None:
    """Before Christ, after the year 9999, and for ever."""
    assert (decoded("date", one) == decoded("date", other)) == (one == other)


@pytest.mark.parametrize(
    ("kind", "sent", "told"),
    [
        ("date", (LAST,), date.max),
        ("date", (LAST + 1,), "10000-01-01"),
        ("date", (FIRST,), date.min),
        ("date", (FIRST - 1,), "0001-12-31 BC"),
        ("date", (FIRST - 366,), "0001-01-01 BC"),
        ("date", (-(2**31),), "-infinity"),
        ("timestamp", ((LAST + 1) * DAY - 1,), datetime.max),
        ("timestamp", ((LAST + 1) * DAY,), "10000-01-01T00:00:00"),
        ("timestamp", (2**63 - 1,), "infinity"),
        ("timestamptz", (5,), datetime(2000, 1, 1, microsecond=5, tzinfo=UTC)),
        ("timestamptz", (FIRST * DAY - 1,), "0001-12-31T23:59:59.999999+00:00 BC"),
        ("time", (DAY,), "24:00:00"),
        ("timetz", (DAY, -57_540), "24:00:00+15:59"),
        ("timetz", (0, 12_600), time(tzinfo=timezone(-timedelta(hours=3, minutes=30)))),
        ("interval", (0, 1, 2 * DAY + 5), timedelta(days=3, microseconds=5)),
        ("interval", (1, 0, 0), "P1M"),
        ("interval", (1, -1, 0), "P1M-1D"),
        ("interval", (-14, 0, -1_500_000), "P-14MT-1.5S"),
        ("interval", (0, 2**31 - 1, 0), "P2147483647D"),
        ("interval", (2**31 - 1, 2**31 - 1, 2**63 - 1), "infinity"),
        ("interval", (-(2**31), -(2**31), -(2**63)), "-infinity"),
    ],
)
def test_what_python_has_is_pythons_and_the_rest_is_text(kind: str, sent: tuple[int, ...], told: object) -> None:
    """A month is no number of days, and the last moment of the year 9999 is not infinity."""
    assert decoded(kind, *sent) == told


@pytest.mark.parametrize("encode", [CODECS["timestamp"].encode, CODECS["timestamptz"].encode])
def test_a_date_is_its_first_moment(encode: Callable[[Any], tuple[int, ...]]) -> None:
    """As asyncpg has it, for the values in a selectable; the moment of a zone is that of UTC."""
    assert encode(date(2000, 1, 2)) == encode(datetime(2000, 1, 2))
    east = timezone(timedelta(hours=2))
    assert CODECS["timestamptz"].encode(datetime(2000, 1, 1, 2, tzinfo=east)) == (0,)
