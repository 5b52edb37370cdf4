"""Undeclared: what were units seen to read that nothing declares? By definition: another code may read something else."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import BYTEA, insert
from sqlalchemy.ext.asyncio import AsyncConnection

from assetcore.lineage import tables as t
from assetcore.lineage.asking import among
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
    rows = await connection.execute(_seen(), {"assets": [*definitions], "digests": [*definitions.values()]})
    found: dict[int, list[UndeclaredInput]] = {}
    for asset, *facts in rows:
        found.setdefault(asset, []).append(UndeclaredInput(*facts))
    return found


@cache
def _seen() -> sa.Select[Any, Any, Any, Any]:
    u, d = t.undeclared_input.c, t.definition.c
    return (
        sa.select(u.asset_id, u.code, u.what, u.place)
        .join_from(t.undeclared_input, t.definition, d.id == u.definition_id)
        .where(among(u.asset_id, "assets", sa.Integer), among(d.digest, "digests", BYTEA))
        .order_by(u.asset_id, u.code, u.what)
    )
