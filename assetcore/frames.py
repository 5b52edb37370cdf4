"""Frames: what is to be done with few rows as fast as with many?

Polars shares a join, and what has several columns, out among its threads, which is right for a million rows. For a few, waking
threads and waiting for them is nearly all that it costs: a join of two frames of one row switches threads 14 times, which is a third of a
millisecond where cores idle, and most assets are small. A plan takes many such steps for each asset. What is here stays in the
thread that asks, while there are few rows, and gives what polars gives. Where only columns are chosen or few are computed, polars has
words of its own for it: `frame[[...]]`, `select_seq`, `with_columns_seq`, `vstack`.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, Literal

import polars as pl

__all__ = ["FEW", "How", "among", "joined", "listed", "parted", "put", "rows_where", "without"]

How = Literal["inner", "left", "full", "semi", "anti"]
FEW = 128
"""Rows of a frame up to which that is done here: with more, polars is faster even where no core idles."""


def joined(
    left: pl.DataFrame, right: pl.DataFrame, on: str | Sequence[str], how: How = "inner", suffix: str = "_right"
) -> pl.DataFrame:
    """`left.join(right)`, rows in the order of the left, then of the right; a full join has the keys of both in the same columns.

    As in SQL, a key that is null, or a part of which is, equals no other.
    """
    if max(left.height, right.height) > FEW:
        order: Literal["left", "left_right"] = "left_right" if how == "full" else "left"
        coalesce = True if how == "full" else None
        return left.join(right, on=on, how=how, suffix=suffix, coalesce=coalesce, maintain_order=order)
    keys = [on] if isinstance(on, str) else list(on)
    ours, theirs = _keys(left, keys), _keys(right, keys)
    if how in ("semi", "anti"):
        there = {key for key in theirs if key is not None}
        return rows_where(left, pl.Series([(key in there) == (how == "semi") for key in ours], dtype=pl.Boolean))
    places: dict[Hashable, list[int]] = {}
    for place, key in enumerate(theirs):
        if key is not None:
            places.setdefault(key, []).append(place)
    nothing: list[int] | list[None] = [] if how == "inner" else [None]
    pairs: list[tuple[int | None, int | None]] = [
        (place, other) for place, key in enumerate(ours) for other in places.get(key, nothing)
    ]
    met = len(pairs)
    if how == "full":
        known = set(ours)
        pairs += [(None, place) for place, key in enumerate(theirs) if key is None or key not in known]
    from_left, from_right = ([pair[side] for pair in pairs] for side in (0, 1))
    columns = _taken(left, from_left)
    if len(pairs) > met:
        further = pl.Series(from_right[met:], dtype=pl.UInt32)
        columns = [c[:met].append(right[c.name][further]) if c.name in keys else c for c in columns]
    there_already = set(left.columns)
    for column in _taken(without(right, *keys), from_right):
        columns.append(column.alias(f"{column.name}{suffix}") if column.name in there_already else column)
    return pl.DataFrame(columns)


def parted(frame: pl.DataFrame, by: str) -> dict[Any, pl.DataFrame]:
    """The rows of each value of a column, without that column, in the order in which they come."""
    if frame.height > FEW:
        found = frame.partition_by(by, as_dict=True, include_key=False, maintain_order=True)
        return {value: rows for (value,), rows in found.items()}
    values, rows = frame[by].to_list(), without(frame, by)
    return {one: rows_where(rows, pl.Series([v == one for v in values])) for one in dict.fromkeys(values)}


def rows_where(frame: pl.DataFrame, mask: pl.Series) -> pl.DataFrame:
    """The rows for which it is true; most often all of them or none, which is told without copying any."""
    there = mask.sum()
    if there == frame.height:
        return frame
    if not there:
        return frame.clear()
    if frame.height > FEW:
        return frame.filter(mask)
    return pl.DataFrame([column.filter(mask) for column in frame.iter_columns()])


def among(column: pl.Series, values: pl.Series) -> pl.Series:
    """Of each value of a column, whether it is one of these."""
    if max(len(column), len(values)) > FEW:
        return column.is_in(values.implode())
    those = set(values)
    return pl.Series([value in those for value in column], dtype=pl.Boolean)


def listed(frame: pl.DataFrame, texts: Sequence[pl.Expr]) -> pl.Series:
    """Of each row a list of texts: those of these that are not null there."""
    if frame.height > FEW:
        return frame.select(pl.concat_list(texts).list.drop_nulls()).to_series()
    rows = frame.select_seq(text.alias(str(n)) for n, text in enumerate(texts)).iter_rows()
    return pl.Series([[text for text in row if text is not None] for row in rows], dtype=pl.List(pl.String))


def without(frame: pl.DataFrame, *names: str) -> pl.DataFrame:
    """All columns but these, as `frame.drop` gives them."""
    left = frame.clone()
    for name in set(names).intersection(frame.columns):
        left.drop_in_place(name)
    return left


def put(frame: pl.DataFrame, column: pl.Series) -> pl.DataFrame:
    """The frame with this column, in the place of that of its name or after all others, as `frame.with_columns` gives it."""
    if column.name not in frame.columns:
        return frame.hstack([column])
    changed = frame.clone()
    changed.replace_column(frame.get_column_index(column.name), column)
    return changed


def _taken(frame: pl.DataFrame, places: Sequence[int | None]) -> list[pl.Series]:
    """The columns with the rows at these places; most often these are all the rows as they are."""
    columns = frame.get_columns()
    if places == list(range(frame.height)):
        return columns
    rows = pl.Series(places, dtype=pl.UInt32)
    return [column[rows] for column in columns]


def _keys(frame: pl.DataFrame, names: Sequence[str]) -> Sequence[Hashable | None]:
    """What each row is found by: null where it cannot be found."""
    if len(names) == 1:
        return frame[names[0]].to_list()
    found = zip(*(frame[name].to_list() for name in names), strict=True)
    return [None if None in key else key for key in found]
