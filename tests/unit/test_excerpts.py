"""Excerpts: which part of which other document one is, beside what it is."""

from __future__ import annotations

import json
import pickle

import pytest

from assetcore.documents import Document, excerpt_of, field_digests, identity
from assetcore.errors import AssetcoreError
from assetcore.excerpts import place, pointed_at


class Page(Document):
    """A page."""


class Chunk(Document):
    """A piece of a page."""

    ordinal: int = 0


PAGE = Page("a.txt", text="one\ntwö three\nfour\nfive\n")


def test_a_part_says_what_stands_there() -> None:
    """A part by bytes has the content and media type of what it was cut from, and a name and fields of its own."""
    start = len(b"one\n")
    chunk = Chunk.part_of(PAGE, start, start + len("twö three".encode()), name="second", ordinal=2)
    assert (chunk.text, chunk.name, chunk.media_type, chunk.ordinal) == ("twö three", "second", "text/plain", 2)
    excerpt = excerpt_of(chunk)
    assert excerpt is not None
    assert (excerpt.name, excerpt.sha256, excerpt.kind, excerpt.start) == ("a.txt", PAGE.sha256, "bytes", 4)
    assert Chunk.part_of(PAGE, 4).name == "a-4"
    assert Chunk.part_of(PAGE, 0, 3, text="ONE").text == "ONE"
    book = Page("b.json", data={"chapters": [{"title": "I/O"}, 7]}, media_type="application/json")
    assert Chunk.part_of(book, pointer="/chapters/0/title").text == "I/O"
    part = Chunk.part_of(book, pointer="/chapters/0")
    assert (json.loads(part.content), part.name, part.media_type) == ({"title": "I/O"}, "b-0", "application/json")
    assert Chunk.part_of(PAGE, pages=(3, 4), text="read by a scanner").name == "a-3"


def test_where_it_stands_is_no_part_of_what_it_is() -> None:
    """Two documents that say the same are equal and have one identity, wherever they were cut from; and it survives a pickle."""
    here, there = Chunk.part_of(PAGE, 0, 3, name="x"), Chunk.part_of(Page("b.txt", text="one"), 0, 3, name="x")
    plain = Chunk("x", text="one")
    keys = {
        identity("Chunk", c.name, c.media_type, c.sha256, field_digests(c.field_values())) for c in (here, there, plain)
    }
    assert len(keys) == 1
    assert here == there == plain
    assert excerpt_of(plain) is None
    assert excerpt_of(pickle.loads(pickle.dumps(here))) == excerpt_of(here)
    assert here.model_dump() == plain.model_dump()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "given 0 of"),
        ({"start": 1, "pages": (1, 2)}, "given 2 of"),
        ({"start": 3, "end": 1}, "it has 25 bytes"),
        ({"start": 0, "end": 99}, "it has 25 bytes"),
        ({"pages": (1, 2)}, "what they say"),
        ({"pages": (0, 2), "text": "x"}, "from 1 on"),
        ({"pointer": "/a"}, "needs JSON"),
    ],
)
def test_a_part_that_is_not_there_is_an_error(arguments: dict[str, object], message: str) -> None:
    """What is asked for, and what there is, is said."""
    with pytest.raises(AssetcoreError, match=message):
        Chunk.part_of(PAGE, **arguments)


def test_pointers_and_places() -> None:
    """A JSON pointer is read as RFC 6901 has it; bytes are shown by lines, with those around them."""
    content = json.dumps({"a/b": {"m~n": [1, 2]}, "": 5}).encode()
    assert pointed_at(content, "/a~1b/m~0n/1") == 2
    assert pointed_at(content, "/") == 5
    assert pointed_at(content, "") == json.loads(content)
    for wrong in ("a", "/x", "/a~1b/m~0n/2", "/a~1b/m~0n/-", "/a~1b/m~0n/1/0"):
        with pytest.raises(AssetcoreError):
            pointed_at(content, wrong)
    found = place(PAGE.content, 4, 14, around=1)
    assert found is not None
    assert (found.first, found.last, found.before, found.lines, found.after) == (
        2,
        2,
        ("one",),
        ("twö three",),
        ("four",),
    )
    assert place(b"\xff", 0, 1) is None
