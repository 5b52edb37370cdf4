"""Looks: what was each source found to be when it was last looked at?"""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache
from typing import NamedTuple

import polars as pl
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from assetcore.frames import parted
from assetcore.lineage import tables as t
from assetcore.lineage.asking import ONE, Statement, among, asked, columns, one_of

__all__ = ["OBSERVED", "LastLook", "last_looks", "observations"]

OBSERVED = {
    "name": pl.String, "size": pl.Int64, "mtime_ns": pl.Int64, "inode": pl.Int64, "media_type": pl.String, "sha256": pl.Binary,
    "field_digests": pl.Binary, "identity": pl.Binary, "validator": pl.String,
}  # fmt: skip


class LastLook(NamedTuple):
    """The last look at a source as a whole.

    Which one it was of all that were kept, how many documents it found, the digest of the glance that it began with (None where that does
    not tell that nothing has changed since), and the digest of the identities of the documents in their order.
    """

    looks: int
    documents: int
    glance: bytes | None
    observed: bytes


async def last_looks(connection: AsyncConnection, assets: Collection[int]) -> dict[int, LastLook]:
    """The last look at each of these sources, as a whole; none at what was never looked at. One statement."""
    k = t.look.c
    rows = await connection.execute(
        sa.select(k.asset_id, k.looks, k.documents, k.glance, k.observed).where(one_of(k.asset_id, assets))
    )
    return {asset: LastLook(*told) for asset, *told in rows}


async def observations(
    connection: AsyncConnection, assets: Collection[int], names: Collection[str] | None = None
) -> dict[int, pl.DataFrame]:
    """The last look at each of these sources, or at these of their documents. One statement."""
    which = asked(assets)
    statement = _observations(*which, names is not None)
    values = which if names is None else which | {"names": list(names)}
    if len(assets) == 1:  # a column less of what may be large
        [asset] = assets
        return {asset: (await columns(connection, statement, OBSERVED, values)).sort("name")}
    found = await columns(connection, statement, {"asset": pl.Int64} | OBSERVED, values)
    by_asset = parted(found.sort("name"), "asset")
    empty = pl.DataFrame(schema=OBSERVED)
    return {a: by_asset.get(a, empty) for a in assets}


@lru_cache
def _observations(which: str, of_names: bool) -> Statement:
    o = t.observation.c
    of_asset = [] if which == ONE else [o.asset_id]
    wanted = [one_of(o.asset_id, which), *([among(o.name, "names", sa.Text)] if of_names else [])]
    shown = (o.name, o.size, o.mtime_ns, o.inode, o.media_type, o.sha256, o.field_digests, o.identity, o.validator)
    return sa.select(*of_asset, *shown).where(*wanted)
