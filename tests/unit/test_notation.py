"""Notation: what YAML says is read; what would grow without end, or is no value, is a sentence."""

from __future__ import annotations

import time
from datetime import date

import pytest

from assetcore.notation import parse_yaml

LAUGHS = "\n".join(
    ["a0: &a0 [lol, lol, lol]", *(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12))]
)
MERGED = "\n".join(
    ["a0: &a0 {x: 1}", *(f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}]}}" for i in range(1, 12))]
)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (LAUGHS, "its anchors repeat more than anybody can have meant"),
        (MERGED, "its anchors repeat more than anybody can have meant"),
        ("&a [*a]", "an anchor holds itself"),
        ("&a {x: {y: *a}}", "an anchor holds itself"),
        ("[" * 10_000 + "]" * 10_000, "it is nested too deeply"),
        ("{a: " * 10_000 + "1" + "}" * 10_000, "it is nested too deeply"),
        ("since: 2026-02-30", "day is out of range for month"),
        (f"number: {'1' * 10_000}", "Exceeds the limit"),
        ("a: [", "expected the node content"),
        ("!!python/object/apply:os.system [reboot]", "could not determine a constructor"),
        ("a: 1\n---\nb: 2", "expected a single document"),
        ("? [a, b]\n: 1", "found unhashable key"),
        ("a:\n  size: 1\n  x: 2\n  size: 3", "line 4 has the key size once more"),
        ("a: 1\n'a': 2", "line 2 has the key a once more"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused_soon(text: str, sentence: str) -> None:
    """Billion laughs, anchors that hold themselves, ten thousand levels, what is no value: a ValueError, within seconds."""
    begun = time.process_time()
    with pytest.raises(ValueError, match=sentence):
        parse_yaml(text)
    assert time.process_time() - begun < 3


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("a: 1", {"a": 1}),
        ("base: &b {size: 8, x: 1}\nown: {<<: *b, size: 9}", {"base": {"size": 8, "x": 1}, "own": {"size": 9, "x": 1}}),
        ("a: &a {x: 1}\nb: &b {y: 2}\nc:\n  <<: *a\n  <<: *b", {"a": {"x": 1}, "b": {"y": 2}, "c": {"x": 1, "y": 2}}),
        ("- &word alpha\n- *word\n- [*word, *word]", ["alpha", "alpha", ["alpha", "alpha"]]),
        ("[{a: 1}, {a: 2}, {1: x, '1': y}]", [{"a": 1}, {"a": 2}, {1: "x", "1": "y"}]),
        ("2026-01-01", date(2026, 1, 1)),
    ],
)  # fmt: skip
def test_what_is_meant_is_read(text: str, value: object) -> None:
    """Anchors and merges are YAML's own way to say something twice."""
    assert parse_yaml(text) == value
