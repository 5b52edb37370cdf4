"""Heads: what is every unit, seen from an environment?

An environment that was created from another copies nothing: it borrows each asset as the other had it, until its own first commit to
that asset takes the heads over. So what is current in an environment is its own heads, and those of others at the commit at which
they were borrowed; whoever asks reads them through `heads_of`. In one that borrows nothing, these are the rows of the table as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from assetcore.lineage import tables as t

__all__ = ["Loan", "as_of", "at_one_moment", "heads_of", "lent_heads", "loans", "once", "take_over", "undropped_since"]

_ONCE = "assetcore_once"
FEW = "few"


class Loan(NamedTuple):
    """Whose heads stand for an asset, and as of which commit; `end` is the commit with which the lender was dropped after that."""

    lender: int
    at: int
    end: int | None = None


async def at_one_moment(connection: AsyncConnection, *, few: bool = False) -> None:
    """What is read over this connection is as of one moment: what all questions ask first is then asked once.

    With `few`, all that is asked is known to be about few rows.
    """
    await connection.execution_options(isolation_level="REPEATABLE READ", **{_ONCE: {FEW: few}})


def once(connection: AsyncConnection) -> dict[str, Any] | None:
    """What was asked before over a connection that reads as of one moment."""
    return connection.sync_connection.get_execution_options().get(_ONCE) if connection.sync_connection else None


async def loans(connection: AsyncConnection, environment: int, commit: int | None = None) -> dict[int, Loan]:
    """What an environment borrows now, or borrowed at one of its commits, by asset."""
    known, key = once(connection), f"loans of {environment} at {commit}"
    if known is None:
        return await _loans(connection, environment, commit)
    if key not in known:
        known[key] = await _loans(connection, environment, commit)
    return known[key]


async def _loans(connection: AsyncConnection, environment: int, commit: int | None) -> dict[int, Loan]:
    rows = await connection.execute(_borrowed(commit), {"environment": environment})
    return {asset: Loan(lender, at, _first_after(at, drops)) for asset, lender, at, drops in rows}


@lru_cache
def _borrowed(commit: int | None) -> sa.Select[Any, Any, Any, Any]:
    b, e = t.borrowed.c, t.environment.c
    here = b.environment_id == sa.bindparam("environment")
    lent = sa.select(b.asset_id, b.lender_id, b.at_commit, e.drops)
    return lent.join_from(t.borrowed, t.environment, e.id == b.lender_id).where(here, _standing(b, commit))


async def _end(connection: AsyncConnection, environment: int, commit: int) -> int | None:
    """The commit with which an environment was dropped after one of its commits; None where it still is the one that it then was.

    Created again, it takes heads over that are older than the drop: they are no part of what it was before.
    """
    drops = sa.select(t.environment.c.drops).where(t.environment.c.id == environment)
    return _first_after(commit, (await connection.execute(drops)).scalar_one_or_none() or ())


def _first_after(commit: int, drops: Sequence[int]) -> int | None:
    return min((drop for drop in drops if drop > commit), default=None)


async def heads_of(connection: AsyncConnection, environment: int, commit: int | None = None) -> sa.FromClause:
    """The table `head` as an environment sees it now, or saw it at a commit: its own rows, and in their place those it borrows.

    What is borrowed is told as current rows of this environment. To be narrowed by `as_of`, asset and unit as the table would be.
    """
    borrowed = await loans(connection, environment, commit)
    end = None if commit is None else await _end(connection, environment, commit)
    return _seen(environment, tuple(sorted(borrowed.items())), end) if borrowed or end else t.head


@lru_cache
def _seen(environment: int, borrowed: Sequence[tuple[int, Loan]], end: int | None) -> sa.FromClause:
    """The same while the same is borrowed: what is asked of it is put together once."""
    h, lent = t.head.c, dict(borrowed)
    own = sa.select(*h).where(h.environment_id == environment, h.asset_id.not_in(list(lent)))
    if end is not None:
        own = own.where(h.until_commit <= end)
    return sa.union_all(own, *lent_heads(environment, lent)).subquery("head")


def as_of(h: Any, commit: int | None) -> sa.ColumnElement[bool]:
    """Heads (columns) that are current, or were at a commit."""
    return _standing(h, commit)


def undropped_since(h: Any, commit: sa.ColumnElement[int]) -> sa.ColumnElement[bool]:
    """Heads (columns) whose environment was not dropped between one of its commits and their end: else they are of what it was later."""
    e = t.environment.alias("holder")
    drops = sa.func.unnest(e.c.drops).table_valued("number", name="dropped").render_derived()
    drop = drops.c.number
    later = sa.and_(e.c.id == h.environment_id, drop > commit, sa.or_(h.until_commit.is_(None), h.until_commit > drop))
    return ~sa.select(drop).select_from(e.join(drops, sa.true())).where(later).correlate_except(e, drops).exists()


def lent_heads(environment: int, borrowed: Mapping[int, Loan]) -> list[sa.Select[*tuple[Any, ...]]]:
    """The heads of others that stand for these assets, as rows of this environment.

    One part for what still is and one for what was, because each has its own index; for each lender, whatever the number of assets.
    """
    h = t.head.c
    parts: list[sa.Select[*tuple[Any, ...]]] = []
    for lender, end in dict.fromkeys((loan.lender, loan.end) for _, loan in sorted(borrowed.items())):
        commits = {asset: loan.at for asset, loan in borrowed.items() if (loan.lender, loan.end) == (lender, end)}
        at = sa.case(commits, value=h.asset_id)
        rows = sa.select(
            h.materialization_id, h.since_commit, sa.cast(sa.null(), sa.BigInteger).label("until_commit"),
            sa.literal(environment, sa.Integer).label("environment_id"), h.asset_id, h.unit,
        ).where(h.environment_id == lender, h.asset_id.in_(list(commits)), h.since_commit <= at)  # fmt: skip
        past = rows.where(h.until_commit > min(commits.values()), h.until_commit > at)
        parts += [rows.where(h.until_commit.is_(None)), past] if end is None else [past.where(h.until_commit <= end)]
    return parts


async def take_over(connection: AsyncConnection, environment: int, commits: Mapping[int, int]) -> dict[int, Loan]:
    """Before an environment's first commits to assets that it borrows (by asset): the heads become its own, in one statement each.

    They keep the commit since which they are what they are, so that a unit that was given the asset as of that commit still finds it.
    Returns what the environment still borrows.
    """
    lent = dict(await loans(connection, environment))
    b = t.borrowed
    for asset in lent.keys() & commits.keys():
        for rows in lent_heads(environment, {asset: lent.pop(asset)}):
            await connection.execute(sa.insert(t.head).from_select([c.name for c in t.head.c], rows))
        await connection.execute(
            sa.update(b)
            .where(b.c.environment_id == environment, b.c.asset_id == asset, b.c.until_commit.is_(None))
            .values(until_commit=commits[asset])
        )
    return lent


def _standing(columns: Any, commit: int | None) -> sa.ColumnElement[bool]:
    """Rows that hold from one commit until another: those that hold now, or did at a commit."""
    if commit is None:
        return columns.until_commit.is_(None)
    still = sa.or_(columns.until_commit.is_(None), columns.until_commit > commit)
    return sa.and_(columns.since_commit <= commit, still)
