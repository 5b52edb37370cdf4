"""Checks in lineage: what did they say of what was made?

A result belongs to what was looked at: a unit's materialization, or the commit that made an asset what it is. A check whose code has
changed is another version and has results of its own. The standing of a check says in one row what it says of an asset as it is, so
that a plan in which nothing changed reads a row a check.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from assetcore.checks import Check, CheckReport, Finding, Verdict
from assetcore.lineage import tables as t
from assetcore.lineage.asking import among, columns
from assetcore.lineage.heads import heads_of
from assetcore.units import DOCUMENTS, sort_documents

__all__ = [
    "Materialized",
    "Version",
    "documents",
    "heads",
    "keep_standing",
    "keep_versions",
    "materialized",
    "of_documents",
    "results",
    "standing",
    "tally",
    "unasked",
]

FINDINGS = 20
"""How many of what did not pass are named."""


@dataclass(frozen=True, slots=True)
class Version:
    """A check as its code is now, and the asset that it is about."""

    check: Check[..., Any]
    asset: int
    digest: bytes


@dataclass(frozen=True, slots=True)
class Materialized:
    """A materialization, by its unit, and the documents that it made."""

    id: int
    unit: bytes
    label: str
    parent: str | None
    documents: tuple[int, ...]


async def keep_versions(connection: AsyncConnection, versions: Sequence[Version]) -> list[int]:
    """The identifiers of these versions of checks; those that are new are written."""
    v = t.check_version
    rows = [{"asset_id": o.asset, "name": o.check.name, "scope": o.check.scope, "digest": o.digest} for o in versions]
    known = await _identifiers(connection, versions)
    if any((r["asset_id"], r["name"], r["digest"]) not in known for r in rows):
        await connection.execute(insert(v).values(rows).on_conflict_do_nothing())
        known = await _identifiers(connection, versions)
    return [known[o.asset, o.check.name, o.digest] for o in versions]


async def _identifiers(connection: AsyncConnection, versions: Sequence[Version]) -> dict[tuple[int, str, bytes], int]:
    v = t.check_version.c
    rows = await connection.execute(
        sa.select(v.asset_id, v.name, v.digest, v.id).where(v.asset_id.in_({o.asset for o in versions}))
    )
    return {(asset, name, digest): identifier for asset, name, digest, identifier in rows}


async def results(connection: AsyncConnection, check: int, subjects: Collection[int]) -> dict[int, tuple[Verdict, str]]:
    """What a check said of these materializations or commits, and in which run; those that it was never asked of are left out."""
    r = t.check_result.c
    rows = await connection.execute(
        sa.select(r.subject, r.status, r.message, r.traceback, r.run_id).where(
            r.check_id == check, among(r.subject, subjects, sa.BigInteger)
        )
    )
    return {
        subject: (Verdict(status, message or "", traceback or ""), run)
        for subject, status, message, traceback, run in rows
    }


async def unasked(
    connection: AsyncConnection, environment: int, asset: int, check: int, run: str, *, blocking: bool
) -> list[int]:
    """The current materializations of an asset that a check is to be asked of: where it never was, where it could not say, and where
    it blocks and had not passed; but not twice in a run.
    """
    head = await heads_of(connection, environment)
    h, r = head.c, t.check_result.c
    again = sa.and_(r.run_id != run, r.status.in_(["failed", "error"] if blocking else ["error"]))
    rows = await connection.execute(
        sa.select(h.materialization_id)
        .select_from(head.outerjoin(t.check_result, sa.and_(r.subject == h.materialization_id, r.check_id == check)))
        .where(
            h.environment_id == environment,
            h.asset_id == asset,
            h.until_commit.is_(None),
            sa.or_(r.subject.is_(None), again),
        )
        .order_by(h.materialization_id)
    )
    return list(rows.scalars())


async def heads(connection: AsyncConnection, environment: int, asset: int) -> dict[bytes, int]:
    """The units of an asset, and the materialization that each currently is."""
    h = (await heads_of(connection, environment)).c
    rows = await connection.execute(
        sa.select(h.unit, h.materialization_id).where(
            h.environment_id == environment, h.asset_id == asset, h.until_commit.is_(None)
        )
    )
    return dict(rows.all())


async def materialized(connection: AsyncConnection, materializations: Collection[int]) -> list[Materialized]:
    """These materializations, each with its documents in order."""
    m = t.materialization.c
    rows = await connection.execute(
        sa.select(m.id, m.unit, m.label, m.parent, t.documents_of(m))
        .where(among(m.id, materializations, sa.BigInteger))
        .order_by(m.id)
    )
    return [Materialized(i, unit, label, parent, tuple(documents)) for i, unit, label, parent, documents in rows]


async def documents(connection: AsyncConnection, materializations: Collection[int]) -> list[int]:
    """The documents that these materializations made together, in the order in which a whole asset is handed over."""
    m, d = t.materialization.c, t.document.c
    listed = (
        sa.func.unnest(t.documents_of(m)).table_valued("id", with_ordinality="position", name="listed").render_derived()
    )
    names = ("document", "address", "unit", "label", "name", "position", "path")
    found = await columns(
        connection,
        sa.select(
            d.id, d.address, m.unit, m.label, d.name, listed.c.position, sa.func.coalesce(m.parent + "/" + m.label, m.label)
        )
        .select_from(t.materialization.join(listed, sa.true()).join(t.document, d.id == listed.c.id))
        .where(among(m.id, materializations, sa.BigInteger)),
        {name: DOCUMENTS[name] for name in names},
    )  # fmt: skip
    return sort_documents(found)["document"].to_list()


async def tally(
    connection: AsyncConnection, environment: int, asset: int, check: int
) -> tuple[dict[str, int], list[Finding]]:
    """What a check says of the units of an asset: how many have passed, failed and so on, and the first that did not pass.

    Counted are what units currently are, and what they would be if their last attempt had not been refused.
    """
    h = (await heads_of(connection, environment)).c
    f, m, r = t.failure.c, t.materialization.c, t.check_result.c
    current = sa.select(h.materialization_id.label("id")).where(
        h.environment_id == environment, h.asset_id == asset, h.until_commit.is_(None)
    )
    same_inputs = (t.leading(m.inputs, t.LEADING_INPUTS) == t.leading(f.inputs, t.LEADING_INPUTS), m.inputs == f.inputs)
    attempts = (
        sa.select(sa.func.max(m.id).label("id"))
        .join_from(t.failure, t.materialization, sa.and_(m.asset_id == f.asset_id, *same_inputs, m.unit == f.unit))
        .where(f.environment_id == environment, f.asset_id == asset, m.definition_id == f.definition_id)
        .group_by(m.unit)
    )  # fmt: skip
    looked_at = current.union(attempts).subquery()
    found = t.check_result.join(looked_at, looked_at.c.id == r.subject)
    counts = await connection.execute(
        sa.select(r.status, sa.func.count()).select_from(found).where(r.check_id == check).group_by(r.status)
    )
    firsts = await connection.execute(
        sa.select(m.label, m.parent, r.status, r.message)
        .select_from(found.join(t.materialization, m.id == r.subject))
        .where(r.check_id == check, r.status != "passed")
        .order_by(m.label, m.id)
        .limit(FINDINGS)
    )
    told = firsts.all()
    labels = {label for label, parent, *_ in told if parent is not None}
    alike = await connection.execute(
        sa.select(m.label)
        .join_from(looked_at, t.materialization, m.id == looked_at.c.id)
        .where(among(m.label, labels, sa.Text))
        .group_by(m.label)
        .having(sa.func.count(m.unit.distinct()) > 1)
    ) if labels else ()  # fmt: skip
    twice = {label for (label,) in alike}
    return dict(counts.all()), [
        Finding(f"{parent}/{label}" if parent and label in twice else label, status, message or "")
        for label, parent, status, message in told
    ]


async def keep_standing(
    connection: AsyncConnection, environment: int, asset: int, reports: Iterable[tuple[int, CheckReport]]
) -> None:
    """Note what checks say of an asset as it is."""
    w, s = t.watermark.c, t.check_standing
    last = await connection.execute(
        sa.select(w.last_commit).where(w.environment_id == environment, w.asset_id == asset)
    )
    commit = last.scalar_one_or_none() or 0
    for check, report in reports:
        values = {
            "last_commit": commit, "passed": report.passed, "failed": report.failed, "errors": report.errors,
            "findings": [finding.to_json() for finding in report.findings], "at": sa.func.now(),
        }  # fmt: skip
        statement = insert(s).values(environment_id=environment, check_id=check, **values)
        await connection.execute(
            statement.on_conflict_do_update(index_elements=["environment_id", "check_id"], set_=values)
        )


async def standing(connection: AsyncConnection, environment: int, versions: Sequence[Version]) -> list[CheckReport]:
    """What these checks say of their assets as they are, and which of them are to be asked: one statement."""
    if not versions:
        return []
    v, s, w = t.check_version.c, t.check_standing.c, t.watermark.c
    rows = await connection.execute(
        sa.select(v.asset_id, v.name, v.digest, s.last_commit, w.last_commit, s.passed, s.failed, s.errors, s.findings)
        .select_from(
            t.check_version.join(
                t.check_standing, sa.and_(s.check_id == v.id, s.environment_id == environment)
            ).outerjoin(t.watermark, sa.and_(w.asset_id == v.asset_id, w.environment_id == environment))
        )
        .where(v.asset_id.in_({o.asset for o in versions}))
    )
    known = {(asset, name, digest): facts for asset, name, digest, *facts in rows}
    reports: list[CheckReport] = []
    for one in versions:
        check = one.check
        about = (check.asset.name, check.name, check.scope, check.blocking)
        facts = known.get((one.asset, check.name, one.digest))
        if facts is None:
            reports.append(CheckReport(*about, due=True))
            continue
        then, last, passed, failed, errors, findings = facts
        due = then != (last or 0) or bool(errors) or (check.blocking and bool(failed))
        found = tuple(Finding(f["unit"], f["status"], f["message"]) for f in findings)
        reports.append(CheckReport(*about, passed, failed, errors, found, due))
    return reports


async def of_documents(
    connection: AsyncConnection, environment: int, versions: Sequence[Version], ids: Collection[int]
) -> dict[int, list[tuple[Version, Verdict]]]:
    """What these checks, in these versions, say of the units that the documents are of."""
    if not versions:
        return {}
    known = await _identifiers(connection, versions)
    by_id = {known[key]: o for o in versions if (key := (o.asset, o.check.name, o.digest)) in known}
    head = await heads_of(connection, environment)
    d, h, r, first = t.document.c, head.c, t.check_result.c, t.materialization.alias("first")
    now = sa.and_(
        h.environment_id == environment,
        h.asset_id == first.c.asset_id,
        h.unit == first.c.unit,
        h.until_commit.is_(None),
    )
    rows = await connection.execute(
        sa.select(d.id, r.check_id, r.status, r.message, r.traceback)
        .select_from(
            t.document.join(first, first.c.id == d.materialization_id)
            .join(head, now)
            .join(t.check_result, r.subject == h.materialization_id)
        )
        .where(among(d.id, ids, sa.BigInteger), among(r.check_id, by_id, sa.Integer))
        .order_by(d.id, r.check_id)
    )
    found: dict[int, list[tuple[Version, Verdict]]] = {}
    for document, check, status, message, traceback in rows:
        verdict = Verdict(status, message or "", traceback or "")
        found.setdefault(document, []).append((by_id[check], verdict))
    return found
