"""Registry: which identifiers do a project, an environment and its assets have?"""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from assetcore.graph import Graph
from assetcore.lineage import tables as t

__all__ = ["register"]


async def register(engine: AsyncEngine, graph: Graph, environment: str) -> tuple[int, int, dict[str, int]]:
    """The identifiers of the project, the environment and its assets; what is new is written, what was renamed keeps its own."""
    p, e, a = t.project, t.environment, t.asset
    async with engine.begin() as connection:
        find = sa.select(p.c.id).where(p.c.name == graph.project)
        identifier = (await connection.execute(find)).scalar_one_or_none()
        if identifier is None:
            await connection.execute(insert(p).values(name=graph.project).on_conflict_do_nothing())
            identifier = (await connection.execute(find)).scalar_one()
        find = sa.select(e.c.id).where(e.c.project_id == identifier, e.c.name == environment)
        environment_id = (await connection.execute(find)).scalar_one_or_none()
        if environment_id is None:
            await connection.execute(insert(e).values(project_id=identifier, name=environment).on_conflict_do_nothing())
            environment_id = (await connection.execute(find)).scalar_one()
        known = {
            n: i for i, n in await connection.execute(sa.select(a.c.id, a.c.name).where(a.c.project_id == identifier))
        }
        new = []
        for name, asset in graph.assets.items():
            before = asset.options.renamed_from
            if before in known and before not in graph.assets and await _is_unused(connection, known.get(name)):
                if name in known:  # registered by a look at the project before `renamed_from` was written
                    spare = f"{name}~{known[name]}"
                    await connection.execute(sa.update(a).where(a.c.id == known[name]).values(name=spare))
                await connection.execute(sa.update(a).where(a.c.id == known[before]).values(name=name))
                known[name] = known.pop(before)
            elif name not in known:
                new.append({"project_id": identifier, "name": name, "kind": asset.kind, "flow": asset.group})
        if new:
            await connection.execute(insert(a).values(new).on_conflict_do_nothing())
            rows = await connection.execute(sa.select(a.c.id, a.c.name).where(a.c.project_id == identifier))
            known = {n: i for i, n in rows}
    return int(identifier), int(environment_id), {n: known[n] for n in graph.assets}


async def _is_unused(connection: AsyncConnection, asset: int | None) -> bool:
    """Whether nothing was ever committed to an asset."""
    if asset is None:
        return True
    w = t.watermark.c
    return (await connection.execute(sa.select(sa.func.count()).where(w.asset_id == asset))).scalar_one() == 0
