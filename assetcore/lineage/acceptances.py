"""Acceptances: which versions of an asset's code count as one, and who said so?

Code that was edited without changing what it makes need not make everything again: that the old fingerprint stands for the new one is
written down, with who said so, when, and by which units it was tried, or why it was said without trying. Nothing of it is ever removed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from assetcore.lineage import tables as t
from assetcore.lineage.asking import Statement, asked, one_of
from assetcore.lineage.heads import once
from assetcore.lineage.runs import actor
from assetcore.staleness import Definition

__all__ = ["FORGOTTEN", "Acceptance", "keep", "of_assets", "restore", "same_code", "with_accepted"]

FORGOTTEN = "(forgotten)"
"""What stands for a unit that was tried and whose name must not be known any more."""


@dataclass(frozen=True, slots=True)
class Acceptance:
    """That what `old` code of an asset made counts as made by `new` code. Without `units` nobody has tried: then there is a `why`."""

    asset: int
    old: bytes
    new: bytes
    units: tuple[str, ...]
    why: str | None = None
    actor: str = ""
    at: datetime | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "old": self.old.hex(), "new": self.new.hex(), "units": list(self.units), "verified": bool(self.units), "why": self.why,
            "actor": self.actor, "at": self.at.isoformat() if self.at else None,
        }  # fmt: skip


async def keep(connection: AsyncConnection, acceptances: Sequence[Acceptance]) -> list[Acceptance]:
    """Write these down, with the one who says so and the time; what was accepted before stays as it was said then."""
    said = [replace(one, actor=actor(), at=datetime.now(UTC)) for one in acceptances]
    await restore(connection, said)
    return said


async def restore(connection: AsyncConnection, said: Sequence[Acceptance]) -> None:
    """Write acceptances as they were once said."""
    rows = [
        {
            "asset_id": a.asset,
            "old_code": a.old,
            "new_code": a.new,
            "units": list(a.units),
            "why": a.why,
            "actor": a.actor,
            "at": a.at,
        }
        for a in said
    ]
    if rows:
        await connection.execute(insert(t.acceptance).values(rows).on_conflict_do_nothing())


async def of_assets(connection: AsyncConnection, assets: Collection[int]) -> dict[int, list[Acceptance]]:
    """What was accepted of these assets, in the order in which it was said."""
    before = once(connection)
    known: dict[int, list[Acceptance]] = {} if before is None else before.setdefault("accepted", {})
    if unknown := set(assets) - known.keys():
        known |= {asset: [] for asset in unknown}
        which = asked(unknown)
        rows = await connection.execute(_of_assets(*which), which)
        for asset, old, new, units, why, who, at in rows:
            known[asset].append(Acceptance(asset, old, new, tuple(units), why, who, at))
    return {asset: known[asset] for asset in assets if known[asset]}


@lru_cache
def _of_assets(which: str) -> Statement:
    a = t.acceptance.c
    said = sa.select(a.asset_id, a.old_code, a.new_code, a.units, a.why, a.actor, a.at)
    return said.where(one_of(a.asset_id, which)).order_by(a.at)


def same_code(code: bytes, accepted: Iterable[Acceptance]) -> frozenset[bytes]:
    """The digests of all code that counts as this one: by one acceptance, or by several, one after another."""
    pairs = [(a.old, a.new) for a in accepted]
    same = {code}
    while more := {other for old, new in pairs for one, other in ((old, new), (new, old)) if one in same} - same:
        same |= more
    return frozenset(same)


def with_accepted(
    known: Mapping[int, Definition], current: Definition | None, accepted: Sequence[Acceptance]
) -> Mapping[int, Definition]:
    """The definitions that an asset was made with, where code that counts as the present one is the present one."""
    if current is None or not accepted or "code" not in current.components:
        return known
    code = current.components["code"]
    same = same_code(code.digest, accepted)
    return {
        i: Definition({**d.components, "code": code})
        if "code" in d.components and d.components["code"].digest in same
        else d
        for i, d in known.items()
    }
