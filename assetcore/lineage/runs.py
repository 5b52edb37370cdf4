"""Runs: what ran, when, on whose behalf, and what did it do?"""

from __future__ import annotations

import getpass
import secrets
import socket
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from assetcore.errors import NothingSelectedError, SelectionError
from assetcore.lineage import schema
from assetcore.lineage import tables as t

__all__ = [
    "FLOW", "RunInfo", "StoredRun", "actor", "at_work", "begin", "beginning", "close_abandoned", "find", "finish", "give_up", "has_begun",
    "known", "latest", "left_open", "look_up", "new_run_id", "note_flow_run", "note_shown", "note_unshown", "resume", "unshown",
]  # fmt: skip

FLOW = "flow"
"""Of a plain flow the plan of its run is its name, under this key."""
_RUNS = sa.select(t.run, t.environment.c.name.label("environment")).join_from(
    t.run, t.environment, t.environment.c.id == t.run.c.environment_id
)
"""Runs, each with the name of its environment."""


@dataclass(frozen=True, slots=True)
class RunInfo:
    """One run: what was selected, how it ended, and what it did to each asset."""

    run: str
    environment: str
    status: str
    selection: str
    actor: str
    started_at: datetime
    finished_at: datetime | None
    flow_run: str | None
    plan: Mapping[str, Any]
    assets: Sequence[Mapping[str, Any]] = ()

    @property
    def seconds(self) -> float | None:
        return (self.finished_at - self.started_at).total_seconds() if self.finished_at else None

    def to_json(self) -> dict[str, Any]:
        return {
            "run": self.run, "environment": self.environment, "status": self.status, "selection": self.selection, "actor": self.actor,
            "started_at": self.started_at.isoformat(), "finished_at": self.finished_at.isoformat() if self.finished_at else None,
            "seconds": self.seconds, "flow_run": self.flow_run, "assets": [dict(a) for a in self.assets],
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class StoredRun:
    """What a worker needs to know of a run that was begun elsewhere."""

    run: str
    project: str
    environment: str
    plan: Mapping[str, Any]
    started: datetime


def actor() -> str:
    """On whose behalf this process works: user@host."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = "unknown"
    return f"{user}@{socket.gethostname()}"


def new_run_id() -> str:
    """Short enough to type; unique among the runs of a project in practice, and held so by the primary key."""
    return secrets.token_hex(5)


async def begin(
    connection: AsyncConnection,
    run: str,
    project: int,
    environment: int,
    selection: str,
    plan: Mapping[str, Any],
    started: datetime,
) -> None:
    """Write a run that starts now."""
    await connection.execute(
        sa.insert(t.run).values(
            id=run, project_id=project, environment_id=environment, selection=selection, plan=dict(plan), status="running",
            actor=actor(), started_at=started,
        )
    )  # fmt: skip


async def look_up(database_url: str, run: str) -> StoredRun:
    """A stored run, by its whole identifier, of whichever project. Raises NothingSelectedError, SchemaError, ServiceError."""
    engine = schema.connect(database_url)
    try:
        await schema.ensure(engine, automatic=False)
        async with engine.connect() as connection:
            row = (
                await connection.execute(
                    sa.select(t.run.c.id, t.project.c.name, t.environment.c.name, t.run.c.plan, t.run.c.started_at)
                    .join_from(t.run, t.project, t.project.c.id == t.run.c.project_id)
                    .join(t.environment, t.environment.c.id == t.run.c.environment_id)
                    .where(t.run.c.id == run)
                )
            ).one_or_none()
    finally:
        await engine.dispose()
    if row is None:
        raise NothingSelectedError(f"There is no run {run!r} in the database.", hint="See: aipctl runs")
    return StoredRun(*row)


async def resume(connection: AsyncConnection, run: str) -> None:
    """A stored run is at work again."""
    await connection.execute(sa.update(t.run).where(t.run.c.id == run).values(status="running", finished_at=None))


async def note_flow_run(connection: AsyncConnection, run: str, flow_run: str) -> None:
    """Remember which Prefect flow run shows this run."""
    await connection.execute(sa.update(t.run).where(t.run.c.id == run).values(flow_run=flow_run))


async def finish(
    connection: AsyncConnection, run: str, status: str, assets: Sequence[tuple[str, Mapping[str, Any], float]]
) -> None:
    """Write how a run ended."""
    await connection.execute(
        sa.update(t.run).where(t.run.c.id == run).values(status=status, finished_at=datetime.now(UTC))
    )
    rows = [
        {"run_id": run, "asset": asset, "counts": dict(counts), "seconds": seconds} for asset, counts, seconds in assets
    ]
    if rows:
        statement = insert(t.run_asset).values(rows)
        latest = {"counts": statement.excluded.counts, "seconds": statement.excluded.seconds}
        await connection.execute(statement.on_conflict_do_update(index_elements=["run_id", "asset"], set_=latest))


async def give_up(connection: AsyncConnection, run: str, status: str) -> bool:
    """Write how a run ended that did not come about; False where it is known to have ended."""
    c = t.run.c
    ended = (
        sa.update(t.run).where(c.id == run, c.status == "running").values(status=status, finished_at=datetime.now(UTC))
    )
    return (await connection.execute(ended.returning(c.id))).first() is not None


async def close_abandoned(connection: AsyncConnection, project: int, environment: int) -> None:
    """Runs that are still `running` though nobody holds the environment's lock have died: say so."""
    c = t.run.c
    died = (
        sa.update(t.run)
        .where(c.project_id == project, c.environment_id == environment, c.status == "running")
        .values(status="died", finished_at=datetime.now(UTC))
        .returning(c.flow_run, c.project_id, c.status)
    ).cte("died")
    flow_runs = sa.select(died).where(died.c.flow_run.is_not(None))
    statement = insert(t.unshown).from_select(["flow_run", "project_id", "status"], flow_runs)
    await connection.execute(statement.on_conflict_do_nothing())


async def left_open(connection: AsyncConnection, project: int, environment: int) -> bool:
    """Whether a run is `running` there: at work, or killed."""
    c = t.run.c
    found = sa.select(c.id).where(c.project_id == project, c.environment_id == environment, c.status == "running")
    return (await connection.execute(found.limit(1))).first() is not None


async def at_work(connection: AsyncConnection, project: int) -> list[tuple[str, int, datetime]]:
    """The runs of a project that have not ended, as far as is known: name and identifier of their environment, and when they began."""
    r, e = t.run.c, t.environment.c
    rows = await connection.execute(
        sa.select(e.name, e.id, r.started_at)
        .join_from(t.run, t.environment, e.id == r.environment_id)
        .where(r.project_id == project, r.status == "running")
    )
    return [(name, identifier, started) for name, identifier, started in rows]


async def has_begun(connection: AsyncConnection, environment: int) -> bool:
    """Whether there ever was a run in an environment that could commit: a plain flow cannot."""
    c = t.run.c
    begun = sa.exists().where(c.environment_id == environment, ~c.plan.has_key(FLOW))
    return bool((await connection.execute(sa.select(begun))).scalar())


async def unshown(connection: AsyncConnection, project: int) -> dict[str, str]:
    """Flow runs that have ended, and of which Prefect was not told: each with the status of its run, the earliest first."""
    c = t.unshown.c
    rows = await connection.execute(sa.select(c.flow_run, c.status).where(c.project_id == project).order_by(c.at))
    return {row.flow_run: row.status for row in rows}


async def note_unshown(connection: AsyncConnection, project: int, flow_run: str, status: str) -> None:
    """A flow run has ended, and Prefect could not be told."""
    row = {"flow_run": flow_run, "project_id": project, "status": status}
    await connection.execute(insert(t.unshown).values(row).on_conflict_do_nothing())


async def note_shown(connection: AsyncConnection, flow_runs: Collection[str]) -> None:
    """Prefect shows how these flow runs ended."""
    await connection.execute(sa.delete(t.unshown).where(t.unshown.c.flow_run.in_(list(flow_runs))))


async def latest(
    connection: AsyncConnection, project: int, limit: int, environment: int | None = None
) -> list[RunInfo]:
    """The latest runs of a project, or of one environment of it, newest first."""
    r = t.run.c
    wanted = r.project_id == project if environment is None else r.environment_id == environment
    rows = await connection.execute(_RUNS.where(wanted).order_by(r.started_at.desc()).limit(limit))
    return await _with_assets(connection, rows.all())


async def find(connection: AsyncConnection, project: int, run: str) -> RunInfo:
    """One run, by the beginning of its identifier. Raises NothingSelectedError, or SelectionError where it is that of several."""
    rows = await beginning(connection, project, run)
    if not rows:
        raise NothingSelectedError(f"There is no run {run!r}.", hint="See: aipctl runs")
    if len(rows) > 1:
        found = ", ".join(row.id for row in rows)
        raise SelectionError(f"{run!r} is the beginning of several runs: {found}.", hint="See: aipctl runs")
    return (await _with_assets(connection, rows))[0]


async def beginning(connection: AsyncConnection, project: int, run: str) -> Sequence[Any]:
    """The rows of runs whose identifier begins with this, ten at most."""
    r = t.run.c
    found = await connection.execute(
        _RUNS.where(r.project_id == project, r.id.startswith(run, autoescape=True)).limit(10)
    )
    return found.all()


async def _with_assets(connection: AsyncConnection, rows: Sequence[Any]) -> list[RunInfo]:
    c = t.run_asset.c
    found = await connection.execute(
        sa.select(c.run_id, c.asset, c.counts, c.seconds).where(c.run_id.in_([r.id for r in rows]))
    )
    sources = {r.id: {told["source"] for told in r.plan.get("plan", {}).get("sources", ())} for r in rows}
    assets: dict[str, list[dict[str, Any]]] = {}
    for run, asset, counts, seconds in found:
        kind = {"kind": "source"} if asset in sources[run] else {}
        assets.setdefault(run, []).append({**counts, **kind, "asset": asset, "seconds": round(seconds, 3)})
    return [
        RunInfo(
            r.id,
            r.environment,
            r.status,
            r.selection,
            r.actor,
            r.started_at,
            r.finished_at,
            r.flow_run,
            r.plan,
            tuple(assets.get(r.id, ())),
        )
        for r in rows
    ]


async def known(connection: AsyncConnection, runs: Collection[str]) -> set[str]:
    """Those of these runs that there are."""
    rows = await connection.execute(sa.select(t.run.c.id).where(t.run.c.id.in_(list(runs))))
    return set(rows.scalars())
