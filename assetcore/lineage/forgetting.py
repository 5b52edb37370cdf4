"""Forgetting: what descends from a document of a source, and how does it leave lineage?

What descends is followed through every edge and every collected whole, in all environments and all of history, until nothing new is
found. It leaves Postgres as a set, in one transaction; the documents beside it in a pack move with the pack that is written without it.

What a unit that failed said, and what a check has against a whole asset, hangs on nothing that descends, and may quote it all the same.
Both were given documents of an asset that has some of it: whatever failed in such an asset or directly below one, whatever checks have
against one as a whole, and every trace goes with it. All of that can be lost.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, BYTEA, JSONB
from sqlalchemy.ext.asyncio import AsyncConnection

from assetcore.digest import digest
from assetcore.lineage import tables as t
from assetcore.lineage.acceptances import FORGOTTEN
from assetcore.lineage.asking import among
from assetcore.lineage.commit import allocate
from assetcore.storage import Key

__all__ = [
    "PLAN_TELLS", "Descent", "Held", "Moved", "Tombstone", "commits", "current_heads", "descent", "erase", "held",
    "materializations_of", "names_unit", "retire", "tombstone", "tombstones",
]  # fmt: skip

NAMED_UNITS = re.compile(r'\[([^\]]*)\]|unit:("(?:\\.|[^"\\])*"|[^\s()\[\]",+]+)')
"""Where a selection names units: `asset[unit]`, `unit:name`."""
PLAN_TELLS = ("checks", "notes")
"""What a run's plan holds of findings and names besides counts."""


@dataclass(slots=True)
class Descent:
    """All that came of a document: materializations and documents by identifier, units by asset."""

    materializations: set[int] = field(default_factory=set)
    documents: set[int] = field(default_factory=set)
    units: dict[int, set[bytes]] = field(default_factory=dict)
    labels: dict[int, list[str]] = field(default_factory=dict)

    @property
    def every_label(self) -> set[str]:
        """The labels of its units, of whichever asset."""
        return {label for labels in self.labels.values() for label in labels}


@dataclass(frozen=True, slots=True)
class Held:
    """An object with documents that must go: its rows with content hashes, and with the documents' identifiers those that stay."""

    id: int
    key: Key
    asset: int
    size: int
    sha256: bytes | None
    pack: bool
    stay: Sequence[tuple[int, Sequence[int], bytes]]
    go: Sequence[tuple[int, bytes]]


@dataclass(frozen=True, slots=True)
class Moved:
    """An object that was written anew under another key; its own hash only where it has all that lineage says of it."""

    key: Key
    size: int
    rows: int
    sha256: bytes | None

    @property
    def stated(self) -> list[Any]:
        """As manifests and records say it."""
        return [self.key, self.size, self.rows, self.sha256 and self.sha256.hex()]


@dataclass(frozen=True, slots=True)
class Tombstone:
    """What is left of a unit that was forgotten: when, on whose behalf, and which report tells of it, by its file's name and its hash."""

    at: datetime
    actor: str
    file: str
    report: str

    def __str__(self) -> str:
        return f"was forgotten on {self.at.astimezone():%Y-%m-%d %H:%M} by {self.actor}: see the report {self.file}"

    def to_json(self) -> dict[str, str]:
        return {"at": self.at.isoformat(), "actor": self.actor, "file": self.file, "report": self.report}


def _grave(asset: int, label: str) -> str:
    """What stands for a unit that was forgotten: nobody reads its label out of it, but who knows the label finds it."""
    return digest("forgotten", asset, label).hex()[:32]


def tombstones(found: Descent) -> list[str]:
    """What stands for all that is to be forgotten, in the facts of the journal's row."""
    return sorted({_grave(asset, label) for asset, labels in found.labels.items() for label in labels})


async def tombstone(connection: AsyncConnection, project: int, asset: int, labels: Collection[str]) -> Tombstone | None:
    """The last time that a unit of an asset with one of these labels was forgotten."""
    j = t.journal.c
    gone = sa.or_(*(j.facts.contains({"gone": [_grave(asset, label)]}) for label in labels))
    rows = await connection.execute(
        sa.select(j.at, j.actor, j.facts["file"].astext, j.facts["report"].astext)
        .where(j.project_id == project, j.what == "forget", gone)
        .order_by(j.number.desc())
        .limit(1)
    )
    row = rows.first()
    return None if row is None else Tombstone(*row)


async def materializations_of(connection: AsyncConnection, asset: int, unit: bytes) -> set[int]:
    """Every version of a unit that there ever was."""
    m = t.materialization.c
    rows = await connection.execute(sa.select(m.id).where(m.asset_id == asset, m.unit == unit))
    return set(rows.scalars())


async def descent(connection: AsyncConnection, roots: Collection[int]) -> Descent:
    """All that came of these materializations, themselves included."""
    m, d, e, c, h = t.materialization.c, t.document.c, t.given.c, t.collected.c, t.head.c
    found, new = Descent(), set(roots)
    while new:
        found.materializations |= new
        listed = sa.select(sa.func.unnest(t.documents_of(m))).where(among(m.id, new, sa.BigInteger))
        first = sa.select(d.id).where(among(d.materialization_id, new, sa.BigInteger))
        documents = set((await connection.execute(listed.union(first))).scalars()) - found.documents
        found.documents |= documents
        collected = sa.and_(
            c.asset_id == h.asset_id, c.environment_id == h.environment_id, h.since_commit <= c.commit_id,
            sa.or_(h.until_commit.is_(None), h.until_commit > c.commit_id),
        )  # fmt: skip
        steps = [
            sa.select(e.materialization_id).where(among(e.document_id, documents, sa.BigInteger)),
            sa.select(c.materialization_id)
            .select_from(t.head.join(t.collected, collected))
            .where(among(h.materialization_id, new, sa.BigInteger)),
            sa.select(m.id).where(
                m.asset_id.in_(sa.select(d.asset_id).where(among(d.id, documents, sa.BigInteger))),
                t.documents_of(m).overlap(sa.cast(list(documents), ARRAY(sa.BigInteger))),
            ),
        ]
        new = set((await connection.execute(sa.union(*steps))).scalars()) - found.materializations
    rows = await connection.execute(
        sa.select(m.asset_id, m.unit, m.label).where(among(m.id, found.materializations, sa.BigInteger)).order_by(m.id)
    )
    for asset, unit, label in rows:
        if unit not in found.units.setdefault(asset, set()):
            found.units[asset].add(unit)
            found.labels.setdefault(asset, []).append(label)
    return found


async def current_heads(
    connection: AsyncConnection, materializations: Collection[int]
) -> dict[tuple[int, int], list[tuple[bytes, int]]]:
    """The units that currently are one of these, by environment and asset."""
    h = t.head.c
    rows = await connection.execute(
        sa.select(h.environment_id, h.asset_id, h.unit, h.materialization_id).where(
            among(h.materialization_id, materializations, sa.BigInteger), h.until_commit.is_(None)
        )
    )
    found: dict[tuple[int, int], list[tuple[bytes, int]]] = {}
    for environment, asset, unit, materialization in rows:
        found.setdefault((environment, asset), []).append((unit, materialization))
    return found


async def held(connection: AsyncConnection, documents: Collection[int]) -> list[Held]:
    """The objects that hold these documents, and what else lies in each."""
    d, o = t.document.c, t.object_.c
    inside = sa.select(d.object_id).where(among(d.id, documents, sa.BigInteger))
    rows = await connection.execute(
        sa.select(o.id, o.key, o.asset_id, o.size, o.sha256, o.rows, d.id, d.row, d.sha256)
        .join_from(t.object_, t.document, d.object_id == o.id)
        .where(o.id.in_(inside))
        .order_by(o.id, d.row, d.id)
    )
    objects: dict[int, tuple[Key, int, int, bytes | None, bool]] = {}
    stay: defaultdict[int, dict[int, tuple[list[int], bytes]]] = defaultdict(dict)
    go: defaultdict[int, dict[int, bytes]] = defaultdict(dict)
    for identifier, key, asset, size, whole, count, document, row, sha256 in rows:
        objects[identifier] = (Key(key), asset, size, whole, count is not None)
        if document in documents:
            go[identifier][row or 0] = sha256
        else:
            stay[identifier].setdefault(row or 0, ([], sha256))[0].append(document)
    return [
        Held(i, *facts, [(row, ids, sha256) for row, (ids, sha256) in stay[i].items()], list(go[i].items()))
        for i, facts in objects.items()
    ]


async def commits(connection: AsyncConnection, project: int, assets: Collection[int]) -> list[tuple[int, int, Key]]:
    """The commits to these assets, and to others those of which the journal does not say that nothing failed: number, asset, manifest."""
    c, j = t.commit.c, t.journal.c
    sound = sa.select(j.commit_id).where(j.project_id == project, j.commit_id == c.id, ~j.facts.has_key("failed"))
    wanted = sa.or_(c.asset_id.in_(list(assets)), ~sound.exists())
    rows = await connection.execute(
        sa.select(c.id, c.asset_id, c.manifest).where(c.project_id == project, wanted).order_by(c.id)
    )
    return [(number, asset, Key(key)) for number, asset, key in rows]


def names_unit(selection: str, labels: Collection[str]) -> bool:
    """Whether a selection names a unit that has one of these labels."""
    return any(named.strip('"') in labels for found in NAMED_UNITS.findall(selection) for named in found if named)


async def erase(
    connection: AsyncConnection,
    project: int,
    found: Descent,
    moved: Mapping[int, Moved | None],
    rows: Mapping[int, int],
    manifests: Mapping[int, Key],
    failing: Collection[int],
    source: int,
    name: str,
) -> None:
    """Take all of it out of lineage; what stays of a pack is from now on where it was moved. The caller's transaction is the caller's.

    What failed of the `failing` assets may tell of it.
    """
    await _hold(connection, project, found.units)
    m, d = found.materializations, found.documents
    for table, column, values in (
        (t.head, t.head.c.materialization_id, m), (t.edge, t.edge.c.materialization_id, m), (t.edge, t.edge.c.document_id, d),
        (t.collected, t.collected.c.materialization_id, m), (t.spent, t.spent.c.materialization_id, m),
        (t.excerpt, t.excerpt.c.materialization_id, m), (t.excerpt, t.excerpt.c.whole_id, d),
        (t.check_result, t.check_result.c.subject, m), (t.damage, t.damage.c.document_id, d), (t.typed, t.typed.c.document_id, d),
        (t.document, t.document.c.id, d), (t.materialization, t.materialization.c.id, m),
    ):  # fmt: skip
        await connection.execute(sa.delete(table).where(among(column, values, sa.BigInteger)))
    for table in (t.failure, t.undeclared_input):
        await connection.execute(sa.delete(table).where(table.c.asset_id.in_(list(failing))))
    for asset in found.units:
        tried, labels = t.acceptance.c.units, sa.cast(found.labels[asset], ARRAY(sa.Text))
        without = tried.op("-", return_type=JSONB())(labels).op("||", return_type=JSONB())(sa.cast([FORGOTTEN], JSONB))
        named = sa.and_(t.acceptance.c.asset_id == asset, tried.has_any(labels))
        await connection.execute(sa.update(t.acceptance).where(named).values(units=without))
    o, k = t.observation.c, t.look
    await connection.execute(sa.update(k).where(k.c.asset_id == source).values(looks=k.c.looks + 1, glance=None))
    await connection.execute(sa.delete(t.observation).where(o.asset_id == source, o.name == name))
    s, c, v = t.check_standing.c, t.check_result.c, t.check_version.c
    versions = sa.select(v.id).where(v.asset_id.in_(list(found.units)))
    await connection.execute(sa.delete(t.check_standing).where(s.check_id.in_(versions)))
    whole = c.check_id.in_(versions.where(v.scope == "asset"))
    await connection.execute(sa.delete(t.check_result).where(whole, c.status != "passed"))
    await _forget_runs(connection, project, found, name)
    for identifier, now in moved.items():
        values = {"retired_at": sa.func.clock_timestamp()} if now is None else {
            "key": now.key, "size": now.size, "rows": now.rows, "sha256": now.sha256
        }  # fmt: skip
        await connection.execute(sa.update(t.object_).where(t.object_.c.id == identifier).values(values))
    if rows:
        place = sa.select(
            sa.func.unnest(sa.cast(list(rows), ARRAY(sa.BigInteger))).label("document"),
            sa.func.unnest(sa.cast(list(rows.values()), ARRAY(sa.Integer))).label("row"),
        ).subquery()
        await connection.execute(
            sa.update(t.document).where(t.document.c.id == place.c.document).values(row=place.c.row)
        )
    for number, key in manifests.items():
        await connection.execute(sa.update(t.commit).where(t.commit.c.id == number).values(manifest=key))
    w = t.watermark.c
    await connection.execute(sa.update(t.watermark).where(w.asset_id.in_(list(found.units))).values(settled=sa.null()))
    k = t.subject_key.c
    subjects = found.units[source]
    await connection.execute(sa.delete(t.subject_key).where(k.project_id == project, among(k.subject, subjects, BYTEA)))


async def _hold(connection: AsyncConnection, project: int, assets: Collection[int]) -> None:
    """For the rest of the transaction nobody commits, or notes what was found settled: in the order in which they take these rows."""
    w = t.watermark.c
    await connection.execute(sa.select(t.project.c.id).where(t.project.c.id == project).with_for_update(key_share=True))
    marks = sa.select(w.asset_id).where(w.asset_id.in_(list(assets))).order_by(w.environment_id, w.asset_id)
    await connection.execute(marks.with_for_update())


async def _forget_runs(connection: AsyncConnection, project: int, found: Descent, name: str) -> None:
    """What runs were asked for where that names it, and what the plans of all runs say of checks and of what was noted."""
    r, labels = t.run.c, found.every_label
    without: sa.ColumnElement[Any] = r.plan
    for key in PLAN_TELLS:
        without = without.op("#-", return_type=JSONB())(sa.cast(["plan", key], ARRAY(sa.Text)))
    telling = r.plan["plan"].has_any(sa.cast(list(PLAN_TELLS), ARRAY(sa.Text)))
    await connection.execute(sa.update(t.run).where(r.project_id == project, telling).values(plan=without))
    asked = await connection.execute(
        sa.select(r.id, r.selection).where(
            r.project_id == project, sa.or_(r.selection.contains("["), r.selection.contains("unit:"))
        )
    )
    runs = [run for run, selection in asked if names_unit(selection, labels)]
    named = sa.or_(
        sa.cast(r.plan, sa.Text).contains(name, autoescape=True),
        r.selection.contains(name, autoescape=True),
        among(r.id, runs, sa.Text),
    )
    await connection.execute(
        sa.update(t.run).where(r.project_id == project, named).values(plan={}, selection=FORGOTTEN)
    )


async def retire(connection: AsyncConnection, asset: int, keys: Sequence[Key]) -> None:
    """Note objects that something has taken the place of: they are to be deleted. The caller's transaction is the caller's."""
    base = await allocate(connection)
    rows = [{"id": base + i, "asset_id": asset, "key": key, "size": 0} for i, key in enumerate(keys)]
    if rows:
        await connection.execute(sa.insert(t.object_).values(retired_at=sa.func.clock_timestamp()), rows)
