"""Digests are identities: they never change, and different values never share one."""

from __future__ import annotations

import struct
import sys
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, IntEnum, IntFlag, StrEnum
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assetcore.digest import canonical, digest, sequence_digest, short_digest


class Colour(Enum):
    RED = 1


class Word(StrEnum):
    ONE = "1"


class Number(IntEnum):
    ONE = 1


class Text(str):
    __slots__ = ()


GOLDEN: dict[str, tuple[Any, ...]] = {
    "be21588bb009ce50": (),
    "e26546ce303e8c2a": (None,),
    "006469e53fcb122c": (True,),
    "e889d4e8fa9a654c": (1, -1, 2**70),
    "2b3e26c21d5c40da": (1.5, float("inf")),
    "5e322180806eab2e": (1j,),
    "f5e02139a83c27d0": ("", "text", "\u00e4\U0001f600"),
    "8043fc80e86da8bc": (b"", b"bytes"),
    "d8477bb3f722c763": (Colour.RED, Word.ONE, Number.ONE),
    "b5d083847fcf703a": (datetime(2026, 11, 20, 11, 26, tzinfo=UTC), date(2026, 11, 20), time(11, 26)),
    "05695c47b5540999": (timedelta(days=1, microseconds=2),),
    "f36e708d6f0a752c": (Decimal("1.10"),),
    "01830d4748d2e13b": (PurePosixPath("a/b"), UUID(int=1)),
    "6f0a1ce2d312801f": ([1, "a"], (1, "a"), []),
    "e163e5b1eef680d8": ({"b", "a"}, frozenset()),
    "88b0a8ba41c8e27e": ({"b": 1, "a": [2, {"c": None}]},),
}


@pytest.mark.parametrize("prefix", GOLDEN)
def test_a_digest_is_what_it_has_always_been(prefix: str) -> None:
    """What is stored anywhere was found by these very bytes: a change here would make everything stale."""
    assert digest("golden", *GOLDEN[prefix]).hex()[:16] == prefix


def test_the_digest_of_a_sequence_is_what_it_has_always_been() -> None:
    """As above, for the inputs of units and the documents of a source."""
    assert sequence_digest("golden", [b"a" * 32, b"b" * 32]).hex()[:16] == "47da6e57b48a9397"
    assert sequence_digest("golden", []).hex()[:16] == "c4809bebc6120fbe"


def test_a_text_of_a_subclass_is_text() -> None:
    """The kind that is asked first gives what the question after question gives."""
    assert canonical(Text("a")) == canonical("a")
    assert canonical(bytearray(b"a")) == canonical(b"a")


def test_a_sequence_takes_whole_digests_only() -> None:
    """Otherwise two sequences could run together to the same bytes."""
    for members in ([b"short"], [b"a" * 16, b"a" * 16], [b"a" * 64], [b"", b"a" * 32]):
        with pytest.raises(ValueError, match="32 bytes"):
            sequence_digest("golden", members)


def test_an_arbitrary_object_has_no_digest() -> None:
    """Its repr would hold an address, and be another one in every process."""
    with pytest.raises(TypeError, match="object"):
        digest("golden", object())


class Rights(IntFlag):
    READ = 1
    WRITE = 2


NEAR: list[Any] = [
    None, True, False, 0, 1, -1, 10, 1.0, 0.0, -0.0, float("nan"), float("inf"), -float("inf"), 1j, 0j, complex(0.0, -0.0), "",
    "1", "a", "ab", "None", "a\x00", "\u00e9", "e\u0301", "\ud800", "\ud83d\ude00", "\U0001f600", b"", b"1", b"a", b"ab",
    Number.ONE, Word.ONE, Colour.RED, Rights(0), Rights(4), Rights(8), Rights.READ | Rights.WRITE, datetime(2026, 1, 1),
    datetime(2026, 1, 1, tzinfo=UTC), date(2026, 1, 1), time(0), timedelta(0), timedelta(1), timedelta(seconds=1), Decimal(1),
    Decimal("1.0"), UUID(int=1), PurePosixPath("a"), PurePosixPath("1"), (), frozenset(), 2**2048, 2**2048 + 1,
]  # fmt: skip
"""Values of which some are equal, some print alike, and some have the bytes of others."""

keys = st.sampled_from([None, True, 1.5, "1", "a", "b", b"a", Number.ONE, (), ("a",)])
near = st.recursive(
    st.sampled_from(NEAR),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(keys, inner, max_size=2)
        | st.sets(keys, max_size=3)
    ),
    max_leaves=5,
)


@given(near, near)
def test_different_values_never_encode_alike(one: Any, other: Any) -> None:
    """Values that nearly collide: `1`, `1.0`, `True`, `"1"`, `b"1"`, an enum of that value, and lists that run together."""
    assert (canonical(one) == canonical(other)) == (_shown(one) == _shown(other))


@given(st.lists(near, max_size=3), st.lists(near, max_size=3))
def test_no_two_rows_of_values_share_a_digest(one: list[Any], other: list[Any]) -> None:
    """`("ab", "c")` and `("a", "bc")` differ, and so do all others; tags tell what the values mean."""
    assert (short_digest("a", *one) == short_digest("a", *other)) == (_shown(one) == _shown(other))
    assert short_digest("a", *one) != short_digest("b", *one)


@given(near)
def test_a_value_tells_where_it_ends(value: Any) -> None:
    """No encoding is the beginning of another, so that rows of values can stand one after the other."""
    encoded = canonical(value)
    assert len(encoded) == 9 + int.from_bytes(encoded[1:9], "big")


def test_near_values_are_all_apart() -> None:
    """Each of the near values has an encoding of its own."""
    assert len({canonical(value) for value in NEAR}) == len(NEAR)


def test_the_order_of_a_dict_or_set_says_nothing() -> None:
    """Dicts and sets are the same in whatever order they were filled; lists are not."""
    assert digest("t", {"a": 1, "b": 2}) == digest("t", {"b": 2, "a": 1})
    assert digest("t", dict.fromkeys("abc")) == digest("t", MappingProxyType(dict.fromkeys("cba")))
    assert digest("t", set("abcdef")) == digest("t", set("fedcba"))
    assert digest("t", ["a", "b"]) != digest("t", ["b", "a"])


def test_every_not_a_number_is_the_same() -> None:
    """Processors disagree about the sign of the NaN that they make; nobody else can see it."""
    (other,) = struct.unpack(">d", bytes.fromhex("fff8000000000001"))
    assert canonical(other) == canonical(float("nan")) == canonical(-float("nan"))
    assert canonical(complex(0, other)) == canonical(complex(0, float("nan")))


def test_numbers_of_any_size_have_a_digest_that_no_setting_changes() -> None:
    """How many digits Python agrees to write in decimal is a setting, and says nothing of the number."""
    numbers = [2**2046, 2**2047, 2**2047 + 1, -(2**2047), 2**2048]
    before = [canonical(number) for number in numbers]
    assert len(set(before)) == len(numbers)
    limit = sys.get_int_max_str_digits()
    try:
        sys.set_int_max_str_digits(640)
        assert [canonical(number) for number in numbers] == before
    finally:
        sys.set_int_max_str_digits(limit)


def _shown(value: Any) -> str:
    """A text that tells values apart by their types, and does not mind the order of a dict."""
    if isinstance(value, dict):
        return "{" + ",".join(sorted(f"{_shown(key)}:{_shown(value[key])}" for key in value)) + "}"
    if isinstance(value, set | frozenset):
        return "set{" + ",".join(sorted(map(_shown, value))) + "}"
    if isinstance(value, list | tuple):
        return f"{type(value).__name__}({','.join(map(_shown, value))})"
    number = value.value if isinstance(value, Rights) else ""  # some combinations of flags have one repr
    return f"{type(value).__name__}:{value!r}{number}"
