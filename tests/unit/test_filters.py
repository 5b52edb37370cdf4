"""Filters: what an index holds of a field is found by the value that the document has, and by the text that means it."""

from __future__ import annotations

import enum
import json
import math
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any, Literal
from uuid import UUID

import pytest
from pydantic import BaseModel

from assetcore.documents import Document
from assetcore.errors import UsageError
from assetcore.filters import asked, indexed


class Weight(enum.IntEnum):
    LIGHT, HEAVY = 1, 2


class Place(enum.Enum):
    HERE, THERE = (0, 1), date(2026, 1, 1)


class Limits(enum.Enum):
    SMALL, LARGE = {"bytes": 1, "rows": 2}, {"bytes": 3}


class Author(BaseModel):
    name: str
    born: date | None = None


def _kept(annotation: Any, value: Any) -> tuple[type[Document], Any]:
    """A class with a field of this kind, and what an index has of a document of it."""
    kind = type("Kept", (Document,), {"__annotations__": {"f": annotation}, "__module__": __name__})
    return kind, indexed(kind("a", text="a", f=value), ["f"])["f"]


def _has(row: Any, wanted: Any) -> bool:
    """What Postgres says of `@>` for members of an object."""
    if isinstance(wanted, dict):
        return isinstance(row, dict) and all(name in row and _has(row[name], value) for name, value in wanted.items())
    if isinstance(wanted, list):
        return isinstance(row, list) and all(any(_has(one, value) for one in row) for value in wanted)
    return type(row) is type(wanted) and row == wanted


KINDS: list[tuple[Any, Any, list[Any], list[Any]]] = [
    (str, "a", ["a"], ["b"]),
    (str, "3", ["3"], []),
    (str, "a\x00b", ["a\x00b"], ["ab"]),
    (int, 3, [3, "3", 3.0], [4, "4"]),
    (int, 2**60 + 1, [2**60 + 1, str(2**60 + 1)], [2**60]),
    (float, 1.5, [1.5, "1.5"], [1]),
    (float, 1.0, [1, "1"], []),
    (float, math.inf, [math.inf, "inf"], [-math.inf]),
    (float, math.nan, [math.nan, "nan"], [0]),
    (bool, True, [True, "true", "yes"], [False, "false"]),
    (str | None, None, [None], ["a"]),
    (int | None, None, [None, "null"], [0, "0"]),
    (date, date(2026, 1, 1), [date(2026, 1, 1), "2026-01-01"], ["2026-01-02"]),
    (time, time(1, 2), [time(1, 2), "01:02"], ["01:03"]),
    (
        datetime,
        datetime(2026, 1, 1, 1, tzinfo=timezone(timedelta(hours=1))),
        [datetime(2026, 1, 1, tzinfo=UTC), "2026-01-01T00:00Z"],
        [],
    ),
    (datetime, datetime(2026, 1, 1), ["2026-01-01", "2026-01-01T00:00:00"], ["2026-01-01T00:00Z"]),
    (timedelta, timedelta(days=1), [timedelta(hours=24), "P1D"], ["PT1H"]),
    (Decimal, Decimal("1.10"), [Decimal("1.1"), "1.10", "1.1"], ["1.11"]),
    (Decimal, Decimal("1" * 40), ["1" * 40], ["1" * 39 + "0"]),
    (UUID, UUID(int=1), [UUID(int=1), str(UUID(int=1))], [UUID(int=2)]),
    (bytes, b"\xff", [b"\xff"], [b"\xfe"]),
    (bytes, b"a", ["a"], ["b"]),
    (Weight, Weight.HEAVY, [Weight.HEAVY, 2, "2"], [1]),
    (Place, Place.HERE, [Place.HERE], [Place.THERE]),
    (Limits, Limits.SMALL, [Limits.SMALL, {"bytes": 1}], [Limits.LARGE, {"bytes": 3}]),
    (Literal[1, 2], 1, [1, "1"], [2]),
    (list[str], ["a", "b"], ["a", "b", ["a", "b"], '["b"]'], ["c", ["a", "c"]]),
    (set[date], {date(2026, 1, 1)}, ["2026-01-01"], ["2026-01-02"]),
    (tuple[int, str], (1, "a"), [1, "a", (1, "a"), "1"], [2, "b"]),
    (list[int] | None, None, [None, "null"], [1]),
    (list, [1, "a"], [1, "a"], [2]),
    (dict[str, int], {"a": 1, "b": 2}, [{"a": 1}, '{"a": 1}'], [{"a": 2}]),
    (dict[int, date], {1: date(2026, 1, 1)}, [{1: date(2026, 1, 1)}], [{1: date(2026, 1, 2)}]),
    (
        Author,
        Author(name="a", born=date(1999, 1, 1)),
        [
            {"name": "a"},
            Author(name="a", born=date(1999, 1, 1)),
            Author(name="a"),
            '{"name": "a"}',
            '{"born": "1999-01-01"}',
        ],
        [{"name": "b"}, '{"name": "b"}', '{"name": "a", "born": null}'],
    ),
    (
        list[Author] | None,
        [Author(name="a", born=date(1999, 1, 1))],
        [Author(name="a"), '{"name": "a"}', '{"born": "1999-01-01"}', '[{"name": "a"}]'],
        ['{"name": "b"}', '[{"name": "b"}]'],
    ),
]


@pytest.mark.parametrize(("annotation", "value", "right", "wrong"), KINDS, ids=[f"{k[0]}-{k[1]}"[:40] for k in KINDS])
def test_a_field_has_the_value_that_its_document_was_given(annotation: Any, value: Any, right: Any, wrong: Any) -> None:
    """Equal values and texts that mean them are found, others are not, and all of it is JSON that Postgres takes."""
    kind, row = _kept(annotation, value)
    assert "\\u0000" not in json.dumps(row, allow_nan=False)
    for one in right:
        assert any(_has(row, wanted) for wanted in asked(kind, {"f": [one]})["f"]), one
    for one in wrong:
        assert not any(_has(row, wanted) for wanted in asked(kind, {"f": [one]})["f"]), one
    assert asked(kind, {"f": []}) == {"f": []}


@pytest.mark.parametrize("value", ["a", 3, 1.5, True, None, ["a", 1], {"a": {"b": [1.0]}, 1: None}])
def test_plain_json_stands_in_an_index_as_it_is(value: Any) -> None:
    """As in rows of an earlier version: they are found beside new ones."""
    _, row = _kept(Any, value)
    assert row == json.loads(json.dumps(value))
    assert type(row) is type(value)


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (int, "three"),
        (date, "soon"),
        (Weight, 3),
        (list[int], "a"),
        (str, 3),
        (int, None),
        (str, "\ud800"),
        (Author, '{"age": 3}'),
        (Author, '{"born": "soon"}'),
        (Author, "a"),
        (str, {"a": 1}),
        (date | None, {"year": 2026}),
        (Literal["a", "b"], {}),
        (Weight, {"a": 1}),
    ],
)
def test_a_value_that_a_field_cannot_have_is_refused(annotation: Any, value: Any) -> None:
    """It would find nothing, in silence."""
    kind = type("Kept", (Document,), {"__annotations__": {"f": annotation}, "__module__": __name__})
    with pytest.raises(UsageError, match="The field 'f' of Kept cannot be"):
        asked(kind, {"f": value})
