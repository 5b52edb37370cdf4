"""Spans: where did the time of a run go?

Written by COPY, a few hundred at a time, and removed with the days: a trace is looked at soon or not at all.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from assetcore.lineage import tables as t
from assetcore.lineage.runs import FLOW
from assetcore.telemetry import Span

__all__ = ["find", "forget", "forget_all", "forget_before", "forget_flows_before", "keep", "of_run"]


async def keep(connection: AsyncConnection, run: str, spans: Sequence[Span]) -> None:
    """Add ended spans to those of a run."""
    raw = await connection.get_raw_connection()
    driver: Any = raw.driver_connection
    rows = [
        (
            run, one.id, one.parent, one.kind, one.name.replace("\0", ""), datetime.fromtimestamp(one.started, UTC), one.seconds,
            json.dumps(one.attributes, default=str).replace("\\u0000", ""), None if one.error is None else one.error.replace("\0", ""),
        )
        for one in spans
    ]  # fmt: skip
    await driver.copy_records_to_table(t.span.name, records=rows, columns=[column.name for column in t.span.columns])


async def of_run(connection: AsyncConnection, run: str) -> list[Span]:
    """The spans of a run, in the order in which they began."""
    c = t.span.c
    rows = await connection.execute(
        sa.select(c.id, c.parent, c.kind, c.name, c.started_at, c.seconds, c.attributes, c.error)
        .where(c.run_id == run)
        .order_by(c.started_at, c.id)
    )
    return [
        Span(r.id, r.parent, r.kind, r.name, r.started_at.timestamp(), r.seconds, r.attributes, r.error) for r in rows
    ]


async def find(connection: AsyncConnection, beginning: str) -> str | None:
    """The only run, or flow, whose identifier begins so and that left a trace."""
    found = await connection.execute(
        sa.select(t.span.c.run_id).where(t.span.c.run_id.startswith(beginning, autoescape=True)).distinct().limit(2)
    )
    runs = found.scalars().all()
    return runs[0] if len(runs) == 1 else None


async def forget(connection: AsyncConnection, run: str) -> None:
    """Remove the trace of a run, which begins anew."""
    await connection.execute(sa.delete(t.span).where(t.span.c.run_id == run))


async def forget_all(connection: AsyncConnection, project: int) -> None:
    """Remove the traces of a project's runs, and of plain flows, which do not say of which project they are."""
    of_others = sa.select(t.run.c.id).where(t.run.c.project_id != project)
    await connection.execute(sa.delete(t.span).where(t.span.c.run_id.not_in(of_others)))


async def forget_before(connection: AsyncConnection, project: int, days: float) -> None:
    """Remove the traces of a project's runs that began longer ago."""
    old = sa.select(t.run.c.id).where(
        t.run.c.project_id == project, t.run.c.started_at < datetime.now(UTC) - timedelta(days=days)
    )
    await connection.execute(sa.delete(t.span).where(t.span.c.run_id.in_(old)))


async def forget_flows_before(connection: AsyncConnection, days: float) -> None:
    """Remove the traces of plain flows that began longer ago, also of those that are not listed as runs."""
    of_a_run = sa.select(t.run.c.id).where(t.run.c.id == t.span.c.run_id, ~t.run.c.plan.has_key(FLOW)).exists()
    old = t.span.c.started_at < datetime.now(UTC) - timedelta(days=days)
    await connection.execute(sa.delete(t.span).where(old, ~of_a_run))
