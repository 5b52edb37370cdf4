"""Frames: few rows are joined as polars joins them, without other threads."""

from __future__ import annotations

import resource
from collections.abc import Callable
from functools import partial
from typing import Any, get_args

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from assetcore.frames import FEW, How, among, joined, listed, parted, put, rows_where, without

SCHEMA = {"unit": pl.Binary, "part": pl.Int16, "x": pl.String, "there": pl.List(pl.String)}
OTHER = {"part": pl.Int16, "unit": pl.Binary, "x": pl.String, "when": pl.Datetime("us", "UTC"), "flag": pl.Boolean}
units = st.sampled_from([b"a", b"b", b"c", b"a\x00", None])
parts = st.sampled_from([0, 1, None])
rows = st.lists(st.tuples(units, parts, st.sampled_from(["x", None]), st.sampled_from([[], ["y"], None])), max_size=6)
others = st.lists(
    st.tuples(parts, units, st.sampled_from(["z", None]), st.none(), st.sampled_from([True, False, None])), max_size=6
)


def frame(found: list[Any], schema: Any) -> pl.DataFrame:
    return pl.DataFrame(found, schema=schema, orient="row")


@given(
    rows, others, st.sampled_from(["unit", ["unit"], ["unit", "part"]]), st.sampled_from(get_args(How)), st.booleans()
)
def test_few_rows_are_joined_as_polars_does(left: list[Any], right: list[Any], on: Any, how: How, narrow: bool) -> None:
    one, two = frame(left, SCHEMA), frame(right, OTHER)
    if narrow:
        one, two = one.select("unit", "part"), two.select(on)
    before = one.rows()
    order = "left_right" if how == "full" else "left"
    expected = one.join(
        two, on=on, how=how, suffix="_then", coalesce=True if how == "full" else None, maintain_order=order
    )
    assert_frame_equal(joined(one, two, on, how, "_then"), expected)
    assert one.rows() == before


@pytest.mark.parametrize("how", get_args(How))
def test_many_rows_come_in_the_same_order(how: How) -> None:
    left = pl.DataFrame({"key": [k % 7 for k in range(FEW)], "row": range(FEW)})
    right = pl.DataFrame({"key": [k % 9 for k in range(40)], "other": range(40)})
    few = joined(left, right, "key", how)
    copies = (pl.concat([f, f.with_columns(key=pl.col("key") + 100)]) for f in (left, right))
    many = joined(*copies, "key", how).filter(pl.col("key") < 100)
    assert_frame_equal(few, many)


def test_few_rows_stay_in_the_thread_that_asks() -> None:
    """Polars wakes its threads for each of these, and waits for them: 14 switches for a join of two rows."""
    left = pl.DataFrame({"unit": [b"a", b"b"], "x": ["y", None]})
    right = pl.DataFrame({"unit": [b"a"], "y": [[1]], "z": ["s"]})
    steps: list[Callable[[], object]] = [partial(joined, left, right, "unit", how) for how in get_args(How)]
    steps += [
        lambda: parted(left, "x"),
        lambda: rows_where(left, pl.Series([True, False])),
        lambda: among(left["unit"], right["unit"]),
        lambda: listed(left, [pl.col("x"), pl.lit("z")]),
        lambda: without(left, "x"),
        lambda: put(left, right["unit"].extend(right["unit"])),
    ]

    def switches(step: Callable[[], object], times: int = 200) -> float:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw
        for _ in range(times):
            step()
        return (resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw - before) / times

    assert [found for step in steps if (found := switches(step)) >= 1] == []


@pytest.mark.parametrize("times", [1, FEW])
def test_rows_are_parted_by_the_values_of_a_column(times: int) -> None:
    rows = pl.DataFrame({"asset": [2, 1, 2, None], "unit": [b"a", b"b", b"c", b"d"]})
    found = parted(pl.concat([rows] * times), "asset")
    assert list(found) == [2, 1, None]
    assert [one["unit"].to_list() for one in found.values()] == [[b"a", b"c"] * times, [b"b"] * times, [b"d"] * times]
    assert parted(rows.clear(), "asset") == {}


@pytest.mark.parametrize("times", [1, FEW])
def test_values_are_found_among_others(times: int) -> None:
    column = pl.Series([b"a", b"b", b"a\x00"] * times)
    assert among(column, pl.Series([b"a", b"c"])).to_list() == [True, False, False] * times
    assert among(column, pl.Series([], dtype=pl.Binary)).to_list() == [False] * 3 * times


@pytest.mark.parametrize("times", [1, FEW])
def test_texts_are_listed_that_are_there(times: int) -> None:
    rows = pl.DataFrame({"x": ["a", None, None], "y": ["b", "c", None]})
    found = listed(pl.concat([rows] * times), [pl.col("x"), pl.col("y").str.to_uppercase(), pl.lit("z")])
    assert found.dtype == pl.List(pl.String)
    assert found.to_list() == [["a", "B", "z"], ["C", "z"], ["z"]] * times
    assert listed(rows.clear(), [pl.col("x"), pl.lit("z")]).to_list() == []


def test_rows_are_taken_as_they_are_where_all_or_none_are_meant() -> None:
    rows = pl.DataFrame({"a": [1, 2], "b": ["x", "y"]})
    assert rows_where(rows, pl.Series([True, True])) is rows
    assert_frame_equal(rows_where(rows, pl.Series([False, False])), rows.clear())
    assert_frame_equal(rows_where(rows, pl.Series([False, True])), rows[1:])


def test_columns_are_left_out_as_polars_drops_them() -> None:
    rows = pl.DataFrame({"a": [1], "b": ["x"], "c": [None]})
    assert_frame_equal(without(rows, "b"), rows.drop("b"))
    assert_frame_equal(without(rows, "c", "b", "other"), rows.select("a"))
    assert without(rows, "a", "b", "c").columns == []
    assert rows.columns == ["a", "b", "c"]


def test_a_column_takes_the_place_of_that_of_its_name() -> None:
    rows = pl.DataFrame({"a": [1], "b": ["x"]})
    for column in (pl.Series("a", [True]), pl.Series("c", [2])):
        assert_frame_equal(put(rows, column), rows.with_columns(column))
    assert_frame_equal(rows, pl.DataFrame({"a": [1], "b": ["x"]}))
    with pytest.raises(pl.exceptions.ShapeError):
        put(rows, pl.Series("a", [1, 2]))
