"""Moments: which point in time a text means, and where a REF ends and its time begins."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from assetcore.errors import UsageError
from assetcore.moments import RunMoment, moment, split_time

NOW = datetime(2026, 11, 20, 14, 30, tzinfo=timezone(timedelta(hours=1)))


def test_times_are_iso_or_from_now_backwards() -> None:
    """A time has an offset or is the machine's; a date is its first moment; `ago` counts back from now."""
    assert moment("2026-11-20T10:00+00:00", NOW) == datetime(2026, 11, 20, 10, tzinfo=UTC)
    assert moment("2026-11-20", NOW) == datetime(2026, 11, 20).astimezone()
    assert moment(" 2026-11-20 10:00 ", NOW) == datetime(2026, 11, 20, 10).astimezone()
    assert moment("now", NOW) == NOW
    assert moment("2 hours ago", NOW) == NOW - timedelta(hours=2)
    assert moment("An hour  ago", NOW) == NOW - timedelta(hours=1)
    assert moment("3 weeks ago", NOW) == NOW - timedelta(weeks=3)
    today, yesterday = moment("today", NOW), moment("yesterday", NOW)
    assert isinstance(today, datetime)
    assert isinstance(yesterday, datetime)
    assert (today.hour, today.minute) == (yesterday.hour, yesterday.minute) == (0, 0)
    assert yesterday < today <= NOW


def test_a_run_is_a_moment() -> None:
    """The beginning of a run's identifier means when it had ended; eight digits are no date without hyphens."""
    assert moment("21c810ffe5", NOW) == RunMoment("21c810ffe5")
    assert moment("20261120", NOW) == RunMoment("20261120")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "soon",
        "abc",
        "2 parsecs ago",
        "2026-13-40",
        "999999 years ago",
        "tomorrow",
        "21c810ffe5x",
        "0001-01-01",
        "0001-01-01T00:00+14:00",
        "9999-12-31T23:59:59-14:00",
    ],
)
def test_what_is_no_time_says_what_would_be(text: str) -> None:
    """The error holds examples of each form."""
    with pytest.raises(UsageError, match="2 hours ago"):
        moment(text, NOW)


def test_a_time_stands_behind_the_last_at_of_a_ref() -> None:
    """Units and names of documents may hold an @ themselves; quotes keep one from being read as a time."""
    assert split_time("chunks@yesterday") == ("chunks", "yesterday")
    assert split_time("chunks[a@b]@2 hours ago") == ("chunks[a@b]", "2 hours ago")
    assert split_time("chunks[a]/b@2026-11-20") == ("chunks[a]/b", "2026-11-20")
    assert split_time("chunks") == ("chunks", None)
    assert split_time("chunks[me@home.org]") == ("chunks[me@home.org]", None)
    assert split_time("mails[x]/me@home.org") == ("mails[x]/me@home.org", None)
    assert split_time('mails[x]/"a@yesterday"') == ('mails[x]/"a@yesterday"', None)
    with pytest.raises(UsageError, match="'last week' is not a time"):
        split_time("chunks@last week")
