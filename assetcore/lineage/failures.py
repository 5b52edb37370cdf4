"""Failures: which units failed when they were last tried, and of what?"""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from assetcore.lineage import tables as t

__all__ = ["Failure", "failure_counts", "failures_labelled", "last_failure"]


class Failure(NamedTuple):
    """That the last attempt to make a unit failed: when, in which run, and on whose behalf."""

    unit: bytes
    at: datetime
    run: str
    actor: str | None
    error: str


async def last_failure(
    connection: AsyncConnection, environment: int, asset: int, unit: bytes
) -> tuple[str, str] | None:
    """The error and traceback of a unit's last attempt, if it failed."""
    f = t.failure.c
    row = (
        await connection.execute(
            sa.select(f.error, f.traceback).where(f.environment_id == environment, f.asset_id == asset, f.unit == unit)
        )
    ).one_or_none()
    return (row[0], row[1]) if row else None


async def failures_labelled(connection: AsyncConnection, environment: int, asset: int, label: str) -> list[Failure]:
    """Of the units with this label the last attempts, where they failed, the latest first."""
    f, r = t.failure.c, t.run.c
    rows = await connection.execute(
        sa.select(f.unit, f.at, f.run_id, r.actor, f.error)
        .select_from(t.failure.outerjoin(t.run, r.id == f.run_id))
        .where(f.environment_id == environment, f.asset_id == asset, f.label == label)
        .order_by(f.at.desc())
    )
    return [Failure(*row) for row in rows]


async def failure_counts(connection: AsyncConnection, environment: int) -> dict[int, int]:
    """How many units of every asset failed when they were last tried."""
    f = t.failure.c
    rows = await connection.execute(
        sa.select(f.asset_id, sa.func.count()).where(f.environment_id == environment).group_by(f.asset_id)
    )
    return dict(rows.all())
