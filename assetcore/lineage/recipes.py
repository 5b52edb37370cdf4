"""Recipes: what was made before with the same definition and the same inputs, and can be taken again?"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, BYTEA
from sqlalchemy.ext.asyncio import AsyncConnection

from assetcore.lineage import tables as t
from assetcore.lineage.asking import among
from assetcore.lineage.read import dated, intact

__all__ = ["Recipes", "put_aside", "reusable", "reusable_of"]


class Recipes(NamedTuple):
    """Recipes of an asset that something may have been made with before: not longer ago than `since`."""

    asset: int
    definition: int
    inputs: Collection[bytes]
    since: datetime | None


async def reusable(
    connection: AsyncConnection,
    asset: int,
    definition: int,
    inputs: Collection[bytes],
    since: datetime | None = None,
) -> dict[bytes, list[tuple[bytes, int]]]:
    """For each of these inputs, the units and materializations of the asset that have the same recipe, newest first.

    What has lost its bytes is left out; with `since`, also what was made before it.
    """
    m = t.materialization.c
    young = [t.commit.c.at > since] if since is not None else []
    rows = await connection.execute(
        sa.select(m.inputs, m.unit, m.id)
        .select_from(dated(t.materialization, m.id))
        .where(*_with_inputs(asset, definition), intact([asset]), *young)
        .order_by(m.id.desc()),
        _asked(inputs),
    )
    found: dict[bytes, list[tuple[bytes, int]]] = {}
    for key, unit, materialization in rows:
        found.setdefault(key, []).append((unit, materialization))
    return found


async def put_aside(
    connection: AsyncConnection, asset: int, definition: int, inputs: Mapping[bytes, bytes]
) -> set[bytes]:
    """Of these units of the asset, each with its inputs, those that were made with this recipe without ever becoming current."""
    m, h = t.materialization.c, t.head.c
    was_current = sa.exists().where(h.materialization_id == m.id)
    rows = await connection.execute(
        sa.select(m.unit, m.inputs).where(*_with_inputs(asset, definition), ~was_current), _asked(inputs.values())
    )
    return {unit for unit, made_of in rows if inputs.get(unit) == made_of}


def _with_inputs(asset: int, definition: int) -> tuple[sa.ColumnElement[bool], ...]:
    """What was made of an asset with a definition and some of the inputs that are `_asked` about, by the index of recipes."""
    m = t.materialization.c
    by = among(t.leading(m.inputs, t.LEADING_INPUTS), "beginnings", BYTEA)
    return m.asset_id == asset, m.definition_id == definition, by, among(m.inputs, "inputs", BYTEA)


def _asked(inputs: Collection[bytes]) -> dict[str, list[bytes]]:
    return {"beginnings": list({key[: t.LEADING_INPUTS] for key in inputs}), "inputs": list(inputs)}


async def reusable_of(
    connection: AsyncConnection, asked: Sequence[Recipes]
) -> list[dict[bytes, list[tuple[bytes, int]]]]:
    """As `reusable`, of few recipes of each of several assets. One statement."""
    m = t.materialization.c
    every = [(one.asset, one.definition, key[: t.LEADING_INPUTS], key) for one in asked for key in one.inputs]
    assets, definitions_, beginnings, inputs = zip(*every, strict=True) if every else ((), (), (), ())
    wanted = sa.select(
        sa.func.unnest(sa.cast(list(assets), ARRAY(sa.Integer))),
        sa.func.unnest(sa.cast(list(definitions_), ARRAY(sa.Integer))),
        sa.func.unnest(sa.cast(list(beginnings), ARRAY(BYTEA))),
        sa.func.unnest(sa.cast(list(inputs), ARRAY(BYTEA))),
    )
    recipe = sa.tuple_(m.asset_id, m.definition_id, t.leading(m.inputs, t.LEADING_INPUTS), m.inputs)
    rows = await connection.execute(
        sa.select(m.asset_id, m.inputs, m.unit, m.id, t.commit.c.at)
        .select_from(dated(t.materialization, m.id))
        .where(recipe.in_(wanted), intact({one.asset for one in asked}))
        .order_by(m.id.desc())
    )
    since = {one.asset: one.since for one in asked}
    found: dict[int, dict[bytes, list[tuple[bytes, int]]]] = {one.asset: {} for one in asked}
    for asset, key, unit, materialization, made in rows:
        after = since[asset]
        if after is None or made > after:
            found[asset].setdefault(key, []).append((unit, materialization))
    return [found[one.asset] for one in asked]
