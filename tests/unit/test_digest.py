"""Digests are identities: they never change, and different values never share one."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from pathlib import PurePosixPath
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
    with pytest.raises(ValueError, match="32 bytes"):
        sequence_digest("golden", [b"short"])


def test_an_arbitrary_object_has_no_digest() -> None:
    """Its repr would hold an address, and be another one in every process."""
    with pytest.raises(TypeError, match="object"):
        digest("golden", object())


near = st.recursive(
    st.sampled_from([None, True, False, 0, 1, 1.0, "", "1", "a", "ab", b"", b"1", b"a", b"ab", Number.ONE, Word.ONE]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.sampled_from("ab"), inner, max_size=2)
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


def _shown(value: Any) -> str:
    """A text that tells values apart by their types, and does not mind the order of a dict."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{key!r}:{_shown(value[key])}" for key in sorted(value)) + "}"
    if isinstance(value, list | tuple):
        return f"{type(value).__name__}({','.join(map(_shown, value))})"
    return f"{type(value).__name__}:{value!r}"
