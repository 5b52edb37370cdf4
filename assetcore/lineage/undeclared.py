"""Undeclared: what were units seen to read that nothing declares? By definition: another code may read something else."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import BYTEA, insert
from sqlalchemy.ext.asyncio import AsyncConnection

from assetcore.lineage import tables as t
from assetcore.lineage.read import among
from assetcore.watch import UndeclaredInput

__all__ = ["keep", "seen"]


async def keep(connection: AsyncConnection, asset: int, definition: int, found: Collection[UndeclaredInput]) -> None:
    """Note what was read; what is known already stays as it was."""
    rows = [
        {"asset_id": asset, "definition_id": definition, "code": u.code, "what": u.what, "place": u.where}
        for u in found
    ]
    await connection.execute(insert(t.undeclared_input).values(rows).on_conflict_do_nothing())


async def seen(connection: AsyncConnection, definitions: Mapping[int, bytes]) -> dict[int, list[UndeclaredInput]]:
    """What units of these assets were seen to read, with the definition that has this digest; one statement."""
    u, d = t.undeclared_input.c, t.definition.c
    rows = await connection.execute(
        sa.select(u.asset_id, u.code, u.what, u.place)
        .join_from(t.undeclared_input, t.definition, d.id == u.definition_id)
        .where(among(u.asset_id, definitions, sa.Integer), among(d.digest, definitions.values(), BYTEA))
        .order_by(u.asset_id, u.code, u.what)
    )
    found: dict[int, list[UndeclaredInput]] = {}
    for asset, *facts in rows:
        found.setdefault(asset, []).append(UndeclaredInput(*facts))
    return found
