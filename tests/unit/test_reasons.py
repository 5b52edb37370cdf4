"""How two texts differ, for people."""

from __future__ import annotations

import pytest

from assetcore.reasons import diff_of, unified


@pytest.mark.parametrize(
    ("before", "after", "lines"),
    [
        ("a\nb\n", "a\nc\n", [" a", "-b", "+c"]),
        ("a\nb\n", "a\nb", [r" a\n", r"-b\n", "+b"]),
        ("a\nb\n", "a\r\nb\n", [r"-a\n", r"+a\r\n", r" b\n"]),
        ("a\x0cb", "a\nb", [r"-a\x0c", r"+a\n", " b"]),
        ("", "\n", ["+"]),
    ],
)
def test_texts_that_differ_have_a_diff(before: str, after: str, lines: list[str]) -> None:
    """Where only the ends of lines differ, these are what is shown."""
    head, now, at, *shown = unified(before, after, "was", "is").split("\n")
    assert (head, now, shown) == ("--- was", "+++ is", lines)
    assert at.startswith("@@")
    assert diff_of(before, after, "x").startswith("--- x (made with)\n+++ x (now)\n")


def test_equal_texts_have_none() -> None:
    assert unified("a\r\nb", "a\r\nb", "was", "is") == ""
