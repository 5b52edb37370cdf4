"""Costs: what did units take?

Asked of a sample: the units of an asset lie in their index in the order of the hashes of their inputs, so the first of them are any.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection

from assetcore.costs import Spread, UnitCosts
from assetcore.lineage import tables as t

__all__ = ["spent_on", "unit_costs"]

SAMPLE = 1000


async def unit_costs(connection: AsyncConnection, assets: Collection[int]) -> dict[int, UnitCosts]:
    """What one unit of each of these assets took: median and 90th percentile, from at most `SAMPLE` units that were called."""
    if not assets:
        return {}
    m, s = t.materialization.c, t.spent.c
    wanted = (
        sa.func.unnest(sa.cast(list(assets), ARRAY(sa.Integer))).table_valued("asset", name="wanted").render_derived()
    )
    some = (
        sa.select(m.id, m.seconds)
        .where(m.asset_id == wanted.c.asset, m.definition_id > 0, m.seconds > 0)
        .order_by(t.leading(m.inputs, t.LEADING_INPUTS))
        .limit(SAMPLE)
        .lateral("some")
    )
    columns = (some.c.seconds, sa.func.coalesce(s.tokens, 0), sa.func.coalesce(s.usd, 0))
    shares = sa.cast([0.5, 0.9], ARRAY(sa.Double))
    found: Any = await connection.execute(
        sa.select(wanted.c.asset, sa.func.count(), *(sa.func.percentile_cont(shares).within_group(sa.cast(c, sa.Double)) for c in columns))
        .select_from(wanted.join(some, sa.true()).outerjoin(t.spent, s.materialization_id == some.c.id))
        .group_by(wanted.c.asset)
    )  # fmt: skip
    return {row[0]: UnitCosts(row[1], *(Spread(*spread) for spread in row[2:])) for row in found}


async def spent_on(connection: AsyncConnection, project: int) -> dict[int, dict[str, Any]]:
    """What all units of each asset took that any run has made: calls, their seconds, tokens, dollars."""
    m, s, a = t.materialization.c, t.spent.c, t.asset.c
    rows = await connection.execute(
        sa.select(
            m.asset_id, sa.func.count(), sa.func.sum(m.seconds), sa.func.coalesce(sa.func.sum(s.tokens), 0),
            sa.func.coalesce(sa.func.sum(s.usd), 0.0),
        )
        .select_from(t.materialization.join(t.asset, a.id == m.asset_id).outerjoin(t.spent, s.materialization_id == m.id))
        .where(a.project_id == project, m.definition_id > 0, m.seconds > 0)
        .group_by(m.asset_id)
    )  # fmt: skip
    return {
        asset: {"calls": calls, "seconds": round(float(seconds), 3), "tokens": int(tokens), "usd": round(float(usd), 6)}
        for asset, calls, seconds, tokens, usd in rows
    }
