"""Asking: how is Postgres asked of many at once, and its answer taken as columns?

Statements that plans and questions ask again and again are put together once, with names in the place of what they are asked about.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from typing import Any

import polars as pl
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection

from assetcore.lineage.heads import FEW, once

__all__ = ["ONE", "Statement", "among", "array_of", "asked", "columns", "frame", "gathered", "one_of"]

Statement = sa.Select[*tuple[Any, ...]]
"""A statement that finds rows."""
GATHERED_ROWS = 1 << 10
"""SQLAlchemy has asyncpg fetch 50 gatherings at a time, whatever it is told: so many rows are Python objects fifty times over."""
GATHERING = {"jit": "off", "max_parallel_workers_per_gather": "0"}


def array_of(values: Iterable[Any] | str, kind: Any) -> sa.ColumnElement[Any]:
    """One parameter, however many values: these, or those that are given by this name when the statement is executed."""
    return sa.cast(sa.bindparam(values) if isinstance(values, str) else list(values), ARRAY(kind))


def among(column: sa.ColumnElement[Any], values: Iterable[Any] | str, kind: Any) -> sa.ColumnElement[bool]:
    """`column = ANY(array)`: one parameter and one statement text, however many values."""
    return column == sa.any_(array_of(values, kind))


def one_of(column: sa.ColumnElement[Any], assets: Collection[int] | str) -> sa.ColumnElement[bool]:
    """`column` is one of these assets, or of those that are `asked` by this name when the statement is executed.

    Of a single one Postgres knows how much there is of it, which is worth a text of its own.
    """
    if isinstance(assets, str):
        return column == sa.bindparam(ONE) if assets == ONE else among(column, assets, sa.Integer)
    return column == next(iter(assets)) if len(assets) == 1 else among(column, assets, sa.Integer)


ONE = "asset"


def asked(assets: Collection[int]) -> dict[str, Any]:
    """What `one_of` is given when the statement is executed, under the name that it was told."""
    return {ONE: next(iter(assets))} if len(assets) == 1 else {"assets": list(assets)}


async def columns(
    connection: AsyncConnection,
    statement: Statement,
    schema: Mapping[str, Any],
    values: Mapping[str, Any] | None = None,
) -> pl.DataFrame:
    """What a statement finds with these values, as columns."""
    parts = [part async for part in gathered(connection, statement, schema, values)]
    return parts[0] if len(parts) == 1 else pl.concat([pl.DataFrame(schema=dict(schema)), *parts])


async def gathered(
    connection: AsyncConnection,
    statement: Statement,
    schema: Mapping[str, Any],
    values: Mapping[str, Any] | None = None,
) -> AsyncIterator[pl.DataFrame]:
    """What a statement finds with these values, as columns, part by part.

    One statement, whose answers are streamed: Postgres gathers so many rows, and a million rows are never a million objects. Few rows
    are read as they are.
    """
    # Compiling the statement takes longer than it saves, and gathering in several processes means copying between them.
    known = once(connection)
    if known is not None and known[FEW]:
        if rows := (await connection.execute(statement, values)).all():
            yield frame(rows, schema)
        return
    if known is None or "gathering" not in known:
        settings = [sa.func.set_config(name, value, True) for name, value in GATHERING.items()]  # of this transaction
        await connection.execute(sa.select(*settings))
    if known is not None:
        known["gathering"] = True
    rows = statement.add_columns((sa.func.row_number().over() // GATHERED_ROWS).label("gathered")).subquery()
    arrays = [sa.func.array_agg(column) for column in rows.c if column is not rows.c.gathered]
    async with connection.stream(
        sa.select(*arrays).group_by(rows.c.gathered), values, execution_options={"yield_per": 1}
    ) as found:
        async for row in found:
            parts = zip(schema.items(), row, strict=True)
            yield pl.DataFrame([pl.Series(name, part, dtype, strict=False) for (name, dtype), part in parts])


def frame(rows: Sequence[Any], schema: Mapping[str, Any]) -> pl.DataFrame:
    """Rows as columns; much faster than handing rows to polars one at a time."""
    columns = zip(*rows, strict=True) if rows else ([] for _ in schema)
    return pl.DataFrame(
        [
            pl.Series(name, column, dtype, strict=False)
            for (name, dtype), column in zip(schema.items(), columns, strict=True)
        ]
    )
