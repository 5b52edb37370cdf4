"""History: which versions of a unit were there, and which runs changed an asset?

Heads and borrowed assets are superseded and never updated, so that all of it can be read at any later time.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB, JSONPATH
from sqlalchemy.ext.asyncio import AsyncConnection

from assetcore.lineage import tables as t
from assetcore.lineage.asking import among
from assetcore.lineage.heads import heads_of, loans
from assetcore.lineage.named import labelled, spellings
from assetcore.lineage.read import dated
from assetcore.lineage.trace import makers

__all__ = ["AssetChange", "Making", "Version", "asset_changes", "commit_at", "made_by", "units_ever", "versions"]


@dataclass(frozen=True, slots=True)
class Version:
    """What a unit was, from one commit until another (None: still); by which run, on whose behalf, and what made it."""

    unit: bytes
    label: str
    since: int
    at: datetime
    run: str
    actor: str | None
    until: int | None
    until_at: datetime | None
    until_run: str | None
    until_actor: str | None
    materialization: int
    definition: int
    inputs: bytes
    documents: Sequence[int]
    made_by: str
    planned: Mapping[str, Any] | None
    """What the plan of the run says of the asset (`AssetPlan.to_json`, `SourcePlan.to_json`); None of what was done without one."""


class Making(NamedTuple):
    """That units of an asset were made by a run, with a definition, and when."""

    asset: int
    definition: bytes
    run: str
    at: datetime


@dataclass(frozen=True, slots=True)
class AssetChange:
    """What a run did to an asset."""

    run: str
    actor: str | None
    status: str | None
    at: datetime
    commits: int
    counts: Mapping[str, Any]
    asked: str | None
    planned: Mapping[str, Any] | None
    """What the run's plan says of the asset (`AssetPlan.to_json`); None of what was done without one, as a promotion is."""


async def commit_at(connection: AsyncConnection, project: int, environment: int, at: datetime) -> int | None:
    """The number from which follows all that an environment was at this time; None: as it is now. 0 before it was there, and after a drop.

    That is the last commit in it, or its creation or rebase, of which the journal tells. Its rows are not looked at for an environment
    with which nothing of the kind was ever done.
    """
    c, b, e, j = t.commit.c, t.borrowed.c, t.environment.c, t.journal.c
    this = sa.select(e.name).where(e.id == environment).scalar_subquery()
    turned = sa.or_(
        sa.exists().where(b.environment_id == environment),
        sa.exists().where(e.id == environment, sa.func.cardinality(e.drops) > 0),
    )
    commits = sa.select(c.id.label("number"), c.at, sa.false().label("dropped")).where(c.environment_id == environment)
    turns = sa.select(sa.cast(j.facts["number"].astext, sa.BigInteger), j.at, j.what == "env drop").where(
        turned, j.project_id == project, j.environment == this, j.what.startswith("env ")
    )
    done = commits.union_all(turns).subquery().c
    last, dropped, later = (
        await connection.execute(
            sa.select(
                sa.func.max(done.number).filter(done.at <= at),
                sa.func.max(done.number).filter(done.at <= at, done.dropped),
                sa.func.max(done.number).filter(done.at > at),
            )
        )
    ).one()
    if later is None:
        return None
    return 0 if last is None or last == dropped else last


async def units_ever(connection: AsyncConnection, asset: int, label: str) -> list[tuple[bytes, str, str | None]]:
    """The units that an asset has or had by this label, alone or below their parent: unit, label, parent."""
    h, m = t.head.c, t.materialization.c
    names, matches = spellings(label)
    rows = await connection.execute(
        sa.select(h.unit, m.label, m.parent)
        .select_from(labelled(t.head, names))
        .where(matches, h.asset_id == asset)
        .distinct()
        .limit(100)
    )
    return [(unit, name, parent) for unit, name, parent in rows]


async def versions(
    connection: AsyncConnection, environment: int, asset: int, units: Collection[bytes], label: str
) -> list[Version]:
    """All that these units of one label were in an environment, or in the one from which it borrows the asset, the latest first."""
    h, m, c, r, j = t.head.c, t.materialization.c, t.commit.c, t.run.c, t.journal.c
    ended, by, made = t.commit.alias("ended"), t.run.alias("by"), t.commit.alias("made")
    loan = (await loans(connection, environment)).get(asset)
    here, name = h.environment_id == environment, _named(asset)
    if loan is not None:
        lent = sa.and_(h.environment_id == loan.lender, h.since_commit <= loan.at)
        here = sa.or_(here, lent if loan.end is None else sa.and_(lent, h.until_commit <= loan.end))
    rows = await connection.execute(
        sa.select(
            h.unit, m.label, h.since_commit, c.at, c.run_id, r.actor, h.until_commit, ended.c.at, ended.c.run_id, by.c.actor, m.id,
            m.definition_id, m.inputs, t.documents_of(m), made.c.run_id,
            sa.type_coerce(sa.func.coalesce(_planned(name, "assets", "asset"), _planned(name, "sources", "source")), JSONB),
        )
        .select_from(
            labelled(t.head, [label])
            .join(t.commit, c.id == h.since_commit)
            .join(made, made.c.id == t.commit_of(m.id))
            .outerjoin(t.run, r.id == c.run_id)
            .outerjoin(t.journal, sa.and_(j.commit_id == h.since_commit, j.what == "commit"))
            .outerjoin(ended, ended.c.id == h.until_commit)
            .outerjoin(by, by.c.id == ended.c.run_id)
        )
        .where(here, h.asset_id == asset, among(h.unit, units, t.Address))
        .order_by(h.since_commit.desc())
    )  # fmt: skip
    return [Version(*row) for row in rows]


async def asset_changes(connection: AsyncConnection, environment: int, asset: int, limit: int) -> list[AssetChange]:
    """The runs that committed to an asset, the latest first; those of other environments, too, up to when it was borrowed from there."""
    c, r, a, b, j = t.commit.c, t.run.c, t.run_asset.c, t.borrowed.c, t.journal.c
    lent = await connection.execute(
        sa.select(b.lender_id, b.at_commit).where(b.environment_id == environment, b.asset_id == asset).distinct()
    )
    here = sa.or_(c.environment_id == environment, *(sa.and_(c.environment_id == e, c.id <= at) for e, at in lent))
    changes = (
        sa.select(
            c.run_id, sa.func.max(c.id).label("last"), sa.func.max(c.at).label("at"), sa.func.count().label("commits")
        )
        .where(here, c.asset_id == asset)
        .group_by(c.run_id)
        .order_by(sa.desc("at"))
        .limit(limit)
        .subquery()
    )
    rows: Any = await connection.execute(
        sa.select(
            changes.c.run_id,
            sa.func.coalesce(r.actor, j.actor),
            r.status,
            changes.c.at,
            changes.c.commits,
            a.counts,
            r.selection,
            sa.type_coerce(_planned(_named(asset), "assets", "asset"), JSONB),
        )
        .select_from(
            changes.outerjoin(t.run, r.id == changes.c.run_id)
            .outerjoin(t.journal, sa.and_(j.commit_id == changes.c.last, j.what == "commit"))  # `forget` is no run
            .outerjoin(t.run_asset, sa.and_(a.run_id == changes.c.run_id, a.asset == _named(asset)))
        )
        .order_by(changes.c.at.desc())
    )
    return [
        AssetChange(run, actor, status, at, commits, counts or {}, asked, told)
        for run, actor, status, at, commits, counts, asked, told in rows
    ]


def _planned(name: sa.ColumnElement[str], listed: str, named: str) -> sa.ColumnElement[Any]:
    """What the plan of a run says of the asset of this name, among its `assets` or its `sources`."""
    of_asset = sa.cast(f"$.plan.{listed}[*] ? (@.{named} == $name)", JSONPATH)
    return sa.func.jsonb_path_query_first(t.run.c.plan, of_asset, sa.func.jsonb_build_object("name", name))


def _named(asset: int) -> sa.ColumnElement[str]:
    """The name of an asset when a run committed to it, which the journal has beside the commit; else the one that it has now."""
    return sa.func.coalesce(t.journal.c.asset, sa.select(t.asset.c.name).where(t.asset.c.id == asset).scalar_subquery())


async def made_by(connection: AsyncConnection, environment: int, documents: Collection[int]) -> list[Making]:
    """What made these documents: their units as they are, or else those that made them first."""
    m, k, f = t.materialization.c, t.commit.c, t.definition.c
    of_documents = makers(await heads_of(connection, environment), environment, documents, None).subquery()
    _, first, now, _ = of_documents.c
    made = dated(of_documents.join(t.materialization, m.id == sa.func.coalesce(now, first)), m.id)
    rows = await connection.execute(
        sa.select(m.asset_id, f.digest, k.run_id, sa.func.max(k.at))
        .select_from(made.join(t.definition, f.id == m.definition_id))
        .group_by(m.asset_id, f.digest, k.run_id)
        .order_by(sa.func.max(k.at))
    )
    return [Making(*row) for row in rows]
