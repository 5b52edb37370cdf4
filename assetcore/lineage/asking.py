"""Asking: how is Postgres asked of many at once, and its answer taken as columns?

Statements that plans and questions ask again and again are put together once, with names in the place of what they are asked about.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Collection, Iterable, Mapping, Sequence
from functools import cache
from typing import Any

import polars as pl
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection

from assetcore.lineage.heads import FEW, at_one_moment, once
from assetcore.lineage.schema import TAKER

__all__ = ["ONE", "Statement", "among", "array_of", "asked", "columns", "frame", "gathered", "one_of", "parsed"]

Statement = sa.Select[*tuple[Any, ...]]
"""A statement that finds rows."""
PART_BYTES = 4 << 20
"""About so much of what is copied out is taken in at a time."""
BY_INDEX = {
    "join_collapse_limit": "1",
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "jit": "off",
}
COPYING = "copying"
COPYING_WITH = {"jit": "off", "max_parallel_workers_per_gather": "0", "bytea_output": "hex", "extra_float_digits": "1"}
"""Compiling the statement takes longer than it saves, and several processes would have to hand over to one. What is written is as `parsed`
reads it, whatever the database or the role prefers.
"""


def array_of(values: Iterable[Any] | str, kind: Any) -> sa.ColumnElement[Any]:
    """One parameter, however many values: these, or those that are given by this name when the statement is executed.

    By name where they may be very many: what SQLAlchemy remembers of a statement holds the values that it was first put together with.
    """
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


async def about_few(connection: AsyncConnection) -> None:
    """What is read over this connection is as of one moment, and about few units that are named: rows, not columns, planned once."""
    await at_one_moment(connection, few=True)
    await by_index(connection, named=True)


async def by_index(connection: AsyncConnection, *, named: bool = False) -> None:
    """For the rest of a transaction that asks about few documents: join in the order as written, by indexes.

    Before Postgres has looked at what a large run wrote, it would begin at the wrong end, or read whole tables. Where all that is asked
    about is `named` (identifiers, units, labels), a statement is planned once, not for each of its values; how much of a table is in a
    range, such as the documents whose hash begins with something, only the values tell.
    """
    await connection.execute(_by_index(named=named))


@cache
def _by_index(*, named: bool) -> sa.Select[*tuple[Any, ...]]:
    settings = BY_INDEX | ({"plan_cache_mode": "force_generic_plan"} if named else {})
    return sa.select(*(sa.func.set_config(name, value, True) for name, value in settings.items()))


async def columns(
    connection: AsyncConnection,
    statement: Statement,
    schema: Mapping[str, Any],
    values: Mapping[str, Any] | None = None,
) -> pl.DataFrame:
    """What a statement finds with these values, as columns."""
    parts = await gathered(connection, statement, schema, values)
    return parts[0] if len(parts) == 1 else pl.concat([pl.DataFrame(schema=dict(schema)), *parts])


async def gathered(
    connection: AsyncConnection,
    statement: Statement,
    schema: Mapping[str, Any],
    values: Mapping[str, Any] | None = None,
) -> list[pl.DataFrame]:
    """What a statement finds with these values, as columns, in parts.

    One statement, whose rows Postgres copies out as CSV, and polars takes in part by part: a million rows are never a million objects.
    Few rows are read as they are.
    """
    known = once(connection)
    if known is not None and known[FEW]:
        rows = (await connection.execute(statement, values)).all()
        return [frame(rows, schema)] if rows else []
    if known is None or COPYING not in known:  # this begins the transaction, too, which a copy alone would not
        settings = [sa.func.set_config(name, value, True) for name, value in COPYING_WITH.items()]
        await connection.execute(sa.select(*settings))
    if known is not None:
        known[COPYING] = True
    parts: list[Awaitable[pl.DataFrame]] = []
    held: list[bytes] = []
    size = 0

    def parse() -> None:
        nonlocal size
        data = b"".join(held)
        held.clear()
        size = 0
        parts.append(asyncio.ensure_future(asyncio.to_thread(parsed, data, schema)))

    async def take(rows: bytes) -> None:
        nonlocal size
        held.append(rows)  # whole ones: each is a message of its own
        size += len(rows)
        if size >= PART_BYTES:
            parse()

    await connection.execute(statement, values, execution_options={TAKER: take})
    if not parts:
        return [parsed(b"".join(held), schema)] if held else []
    if held:
        parse()
    return list(await asyncio.gather(*parts))


def parsed(rows: bytes, schema: Mapping[str, Any]) -> pl.DataFrame:
    """Rows of CSV as Postgres writes them, as columns: what is not quoted and empty is null; a UUID or bytes are hexadecimal digits.

    Base64 would be read faster, and Postgres would take longer for it than that saves.
    """
    as_text = {name: pl.String if kind in (pl.Binary, pl.Boolean) else kind for name, kind in schema.items()}
    # Names come first, so that nothing that begins a row is taken for the mark of an encoding.
    found = pl.read_csv(b",".join(map(str.encode, schema)) + b"\n" + rows, schema=as_text, infer_schema=False)
    digits = pl.col([name for name, kind in schema.items() if kind == pl.Binary])
    flags = pl.col([name for name, kind in schema.items() if kind == pl.Boolean])
    octets = digits.str.strip_prefix("\\x").str.replace_all("-", "", literal=True).str.decode("hex")
    return found.with_columns(octets, flags == "t")


def frame(rows: Sequence[Any], schema: Mapping[str, Any]) -> pl.DataFrame:
    """Rows as columns; much faster than handing rows to polars one at a time."""
    columns = zip(*rows, strict=True) if rows else ([] for _ in schema)
    return pl.DataFrame(
        [
            pl.Series(name, column, dtype, strict=False)
            for (name, dtype), column in zip(schema.items(), columns, strict=True)
        ]
    )
