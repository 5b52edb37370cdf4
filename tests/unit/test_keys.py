"""Keys: one layout, made in one place, and no two names under one key."""

from __future__ import annotations

import re
import string
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assetcore.errors import StorageError
from assetcore.storage.keys import KeyParts, object_key, parse_key, run_timestamp

RUN = "20261120T112600.123456Z"
AWKWARD = [
    "a b", "a-b", 'say "hi".txt', "it's", "🙂", "🙃.txt", "../../etc/passwd", "..", ".", "/", "a/b", "a-b.txt",
    "a/b.txt", "x" * 300, "x" * 299 + "y", "readme.md", "README.md", "Readme.md", "straße", "strasse", "STRASSE",
    "e\u0301", "\u00e9", "a.", "a", ".a", "-a", "a-", "a\\b", "a:b", "a?b", "a%20b", "\n", " ", "\u00a0", "ﬁ", "fi",
]  # fmt: skip

sane = st.text(alphabet=string.ascii_lowercase + string.digits + "_", min_size=1, max_size=20)
near = st.text(alphabet="aA-./ é", min_size=1, max_size=5)

moment = st.datetimes(timezones=st.just(UTC), min_value=datetime(1970, 1, 1))


@given(sane, sane, moment, sane, sane)
def test_a_key_gives_its_parts_back(project: str, flow: str, at: datetime, step: str, name: str) -> None:
    """Parsing what was formatted gives the parts back."""
    key = object_key(project, flow, run_timestamp(at), step, name)
    assert parse_key(key) == KeyParts(project, flow, run_timestamp(at), step, name)


def test_layout_is_the_documented_one() -> None:
    """A key reads {project}/{flow}/{run_ts}/{step}/{artifact_name}."""
    run_ts = run_timestamp(datetime(2026, 11, 20, 11, 26, 0, 123456, UTC))
    key = object_key("handbook", "main", run_ts, "chunks", "part-0.parquet")
    assert key == "handbook/main/20261120T112600.123456Z/chunks/part-0.parquet"


def test_timestamps_are_utc_whatever_the_zone() -> None:
    """Two clocks in different zones that show the same moment give the same timestamp."""
    east = datetime(2026, 11, 20, 13, 26, 0, 5, timezone(timedelta(hours=2)))
    assert run_timestamp(east) == "20261120T112600.000005Z" == run_timestamp(east.astimezone(UTC))
    with pytest.raises(StorageError, match="no time zone"):
        run_timestamp(datetime(2026, 11, 20))


def test_awkward_names_stay_one_short_segment_and_apart() -> None:
    """Spaces, quotes, emoji, ../, 300 characters and case-only differences give short, plain and distinct segments."""
    names = [parse_key(object_key("p", "f", RUN, "s", name)).artifact_name for name in AWKWARD]
    assert len({name.casefold() for name in names}) == len(AWKWARD)
    for name in names:
        assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", name), name
        assert ".." not in name


def test_a_sanitised_name_keeps_its_suffix() -> None:
    """A file that is exported from the bucket still opens with the right program."""
    parts = parse_key(object_key("p", "f", RUN, "s", "annual report.pdf"))
    assert re.fullmatch(r"annual-report-[a-z2-7]{26}\.pdf", parts.artifact_name)


@given(near, near)
def test_two_names_never_share_a_key(one: str, other: str) -> None:
    """Different names give keys that differ even where case is ignored."""
    keys = [object_key("p", "f", RUN, "s", name).casefold() for name in (one, other)]
    assert (keys[0] == keys[1]) == (one == other)


def test_a_name_that_looks_sanitised_cannot_take_anothers_place() -> None:
    """The sanitised form of one name, used as a name itself, gives another key."""
    forged = parse_key(object_key("p", "f", RUN, "s", "a b")).artifact_name
    assert parse_key(object_key("p", "f", RUN, "s", forged)).artifact_name != forged


def test_a_group_with_a_slash_stays_one_segment() -> None:
    """No part can add a level to the layout or leave it."""
    parts = parse_key(object_key("p", "../data prep", RUN, "s", "x"))
    assert re.fullmatch(r"data-prep-[a-z2-7]{26}", parts.flow)


@pytest.mark.parametrize("text", ["", "a/b/c", "a/b/c/d/e", f"a/b/{RUN}/d", f"a/b/{RUN}/d/e/f", f"a//{RUN}/d/e"])
def test_what_is_not_a_key_is_refused(text: str) -> None:
    """Anything but five parts with a timestamp in the middle is refused, and the text is named."""
    with pytest.raises(StorageError, match=r"is not a key"):
        parse_key(text)


def test_a_timestamp_of_another_form_is_refused() -> None:
    """A key is never made with a timestamp that could not be parsed back."""
    with pytest.raises(StorageError, match="not a run's timestamp"):
        object_key("p", "f", "2026-11-20", "s", "x")
