"""Registry: which identifiers do a project, an environment and its assets have?

An asset keeps its identifier under every name that it had. Opening a project renames nothing: what is declared under a new name
(`renamed_from`) is found under the old one, and the row takes the new name when that code makes something. From then on code that still
has the old name, on another branch or in another environment, finds the asset by that. A name that was written down with its accents as
characters of their own, as names were once kept, is that of the asset, and is renamed likewise.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from assetcore.graph import Graph
from assetcore.lineage import tables as t
from assetcore.refs import called

__all__ = ["environment_names", "look_up", "register", "rename"]


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
        found = await _named(connection, identifier, graph)
        new = [
            {"project_id": identifier, "name": name, "kind": asset.kind, "flow": asset.group}
            for name, asset in graph.assets.items()
            if name not in found
        ]
        if new:
            await connection.execute(insert(a).values(new).on_conflict_do_nothing())
            rows = await connection.execute(
                sa.select(a.c.name, a.c.id).where(a.c.project_id == identifier, a.c.name.in_([n["name"] for n in new]))
            )
            found |= dict(rows.all())
    return int(identifier), int(environment_id), {n: found[n] for n in graph.assets}


async def environment_names(connection: AsyncConnection, project: int) -> list[str]:
    """The names of all environments that a project was ever opened in, whether there is anything in them or not."""
    e = t.environment.c
    return list((await connection.execute(sa.select(e.name).where(e.project_id == project).order_by(e.name))).scalars())


async def look_up(engine: AsyncEngine, graph: Graph, environment: str) -> tuple[int, int, dict[str, int]]:
    """The same of a database in which nothing is to be written: what is new has a number below zero, of which nothing is known there."""
    p, e = t.project.c, t.environment.c
    async with engine.connect() as connection:
        found = await connection.execute(sa.select(p.id).where(p.name == graph.project))
        identifier = found.scalar_one_or_none() or -1
        found = await connection.execute(sa.select(e.id).where(e.project_id == identifier, e.name == environment))
        environment_id = found.scalar_one_or_none() or -1
        named = await _named(connection, identifier, graph)
    return identifier, environment_id, {name: named.get(name, -n) for n, name in enumerate(graph.assets, 1)}


async def _named(connection: AsyncConnection, project: int, graph: Graph) -> dict[str, int]:
    """The declared assets that are there: by their names, by the names that they are renamed from, and by names that they had."""
    a = t.asset.c
    known: dict[str, int] = {}
    former: dict[str, tuple[int, str]] = {}
    rows = await connection.execute(sa.select(a.id, a.name, a.former).where(a.project_id == project).order_by(a.id))
    for identifier, name, names in rows:
        known[name] = identifier
        former |= dict.fromkeys(map(called, names), (identifier, name))
    known = {called(name): identifier for name, identifier in known.items()} | known
    found: dict[str, int] = {}
    for name, asset in graph.assets.items():
        before = asset.options.renamed_from
        origin = known.get(before) if before is not None and before not in graph.assets else None
        if origin is not None and await _is_unused(connection, known.get(name)):
            found[name] = origin
        elif name in known:
            found[name] = known[name]
        elif name in former and former[name][1] not in graph.assets:
            found[name] = former[name][0]
    return found


async def rename(connection: AsyncConnection, asset_ids: Mapping[str, int], graph: Graph) -> list[tuple[str, int, str]]:
    """Have the assets that this code renames go by their new names from now on; returns new name, identifier and old name of each."""
    a = t.asset
    meant = {asset_ids[n]: n for n, asset in graph.assets.items() if asset.options.renamed_from or not n.isascii()}
    if not meant:
        return []
    rows = await connection.execute(
        sa.select(a.c.id, a.c.project_id, a.c.name, a.c.former).where(a.c.id.in_(list(meant)))
    )
    done: list[tuple[str, int, str]] = []
    for identifier, project, before, former in rows.all():
        name = meant[identifier]
        if before == name or called(before) not in (name, graph.assets[name].options.renamed_from):
            continue
        # A row of that name is of a look at the project before `renamed_from` was written: nothing was ever made of it.
        spare: Any = sa.func.concat(a.c.name, "~", a.c.id)
        await connection.execute(sa.update(a).where(a.c.project_id == project, a.c.name == name).values(name=spare))
        names = [one for one in former if one != name] + [before]
        await connection.execute(sa.update(a).where(a.c.id == identifier).values(name=name, former=names))
        done.append((name, identifier, before))
    return done


async def _is_unused(connection: AsyncConnection, asset: int | None) -> bool:
    """Whether nothing was ever committed to an asset."""
    if asset is None:
        return True
    w = t.watermark.c
    return (await connection.execute(sa.select(sa.func.count()).where(w.asset_id == asset))).scalar_one() == 0
