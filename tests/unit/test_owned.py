"""Owned: nobody sees what another does to what both were given, and what cannot be changed is not copied."""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator
from datetime import date
from enum import StrEnum
from functools import cached_property
from typing import Any, Literal

import pandas as pd
import polars as pl
import pytest
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

from assetcore.documents import Document, excerpt_of
from assetcore.owned import own


class Kind(StrEnum):
    A = "a"


class Place(BaseModel, frozen=True):
    page: int
    within: Place | None = None


class Plain(Document):
    number: int
    share: float | None = None
    day: date = date(2026, 1, 1)
    raw: bytes = b""
    kind: Kind = Kind.A
    word: Literal["x", "y"] = "x"
    pair: tuple[int, str] = (1, "")
    names: frozenset[str] = frozenset()
    place: Place = Place(page=1)

    @cached_property
    def half(self) -> float:
        return self.number / 2


class Model(BaseModel):
    seen: list[str] = Field(default_factory=list)


class Loose(Document):
    tags: list[str]
    by_name: dict[str, list[int]]
    inner: Model = Model()
    anything: Any = None
    nested: tuple[list[str], ...] = ()


class Remembers(Document):
    @cached_property
    def words(self) -> list[str]:
        return self.text.split()


class Private(BaseModel):
    model_config = ConfigDict(frozen=True)
    _seen: list[str] = PrivateAttr(default_factory=list)

    @property
    def seen(self) -> list[str]:
        return self._seen


class Extra(BaseModel):
    model_config = ConfigDict(frozen=True, extra="allow")


class Node(BaseModel, frozen=True):
    below: tuple[Node, ...] = ()


def loose() -> Loose:
    return Loose(
        "a", text="x", tags=["a"], by_name={"a": [1]}, inner=Model(seen=["a"]), anything=["a"], nested=(["a"],)
    )


def spoil(one: Loose) -> None:
    one.tags.append("more")
    one.by_name["a"].append(2)
    one.inner.seen.append("more")
    one.anything.append("more")
    one.nested[0].append("more")


@pytest.mark.parametrize(
    "value", [Plain("a", text="x", number=1), Document("a", text="x"), Place(page=1), Node(), "text"]
)
def test_what_cannot_be_changed_in_place_is_the_same_for_all(value: Any) -> None:
    """Nothing is copied of it; a list of it is a list of one's own, with the same members."""
    assert own(value) is value
    together = own(given := [value, value])
    assert together is not given
    assert all(one is value for one in together)


def test_fields_that_can_be_changed_are_ones_own() -> None:
    """Lists, dicts and models in the fields of a document, alone and in a list; the document is equal, and its content is not copied."""
    given, untouched = loose(), loose()
    for owned in (own(given), own([given])[0]):
        assert (owned, owned.sha256, type(owned)) == (given, given.sha256, Loose)
        assert owned.content is given.content
        spoil(owned)
        assert given == untouched


def test_models_are_ones_own() -> None:
    """Models can be assigned to, unless they are frozen; what they keep beside their fields is copied, too."""
    given = [Model(seen=["a"])]
    owned = own(given)[0]
    owned.seen.append("more")
    owned.seen = []
    assert given == [Model(seen=["a"])]
    private, extra = Private(), Extra.model_validate({"more": ["a"]})
    own(private).seen.append("more")
    vars(own(extra)).clear()
    own(extra).model_extra["more"].append("b")
    assert (private.seen, extra.model_extra) == ([], {"more": ["a"]})


def test_what_a_document_remembers_is_remembered_by_its_owner_alone() -> None:
    """A property that is computed once and gives a list: who changes it changes nobody else's."""
    given = Remembers("a", text="to be")
    own(given).words.append("or")
    assert own(given).words == ["to", "be"]
    assert given.words == ["to", "be"]
    own(given).words.append("or")
    assert given.words == ["to", "be"]


def test_a_copy_is_still_part_of_what_it_was_part_of() -> None:
    """Where a document stands in another one goes with it."""
    whole = Document("a", text="to be")
    part = Loose.part_of(whole, 0, 2, tags=[], by_name={})
    assert excerpt_of(own(part)) == excerpt_of(part) is not None


def test_cells_of_a_frame_are_ones_own() -> None:
    """Columns, and in pandas the lists and dicts in cells; columns of plain values are not looked through."""
    given = pd.DataFrame({"text": ["a", None], "tags": [["a"], None], "facts": [{"a": ["b"]}, {}], "n": [1, 2]})
    untouched = copy.deepcopy(given)
    owned = own(given)
    pd.testing.assert_frame_equal(owned, untouched)
    owned.loc[0, "n"] = 5
    owned["tags"][0].append("more")
    owned["facts"][0]["a"].append("more")
    assert given.to_dict() == {**untouched.to_dict(), "tags": {0: ["a"], 1: None}, "facts": {0: {"a": ["b"]}, 1: {}}}
    rows = pl.DataFrame({"tags": [["a"]]})
    own(rows).drop_in_place("tags")
    assert rows.columns == ["tags"]


async def test_what_is_read_piece_by_piece_begins_anew() -> None:
    """Each who is given it reads all of it."""

    class Pieces:
        async def __aiter__(self) -> AsyncIterator[int]:
            for number in range(3):
                yield number

    given = Pieces()
    first = own(given)
    assert await anext(first) == 0
    assert [number async for number in own(given)] == [0, 1, 2]
