"""Project: what do a user's declarations need to work?

A project, opened, is its graph and config, the current definitions of its assets, the database with its identifiers for the project,
the environment and the assets, and the bucket.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import sqlalchemy as sa
from pydantic import BaseModel
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncEngine

from assetcore.assets import Source
from assetcore.errors import UsageError
from assetcore.fingerprint import Fingerprint, fingerprint
from assetcore.graph import Graph
from assetcore.lineage import schema
from assetcore.lineage import tables as t
from assetcore.loading import configuration, load, user_packages
from assetcore.plan import define
from assetcore.settings import Settings
from assetcore.staleness import Definition
from assetcore.storage import Bucket, Reader

__all__ = ["Project"]


@dataclass(slots=True)
class Project:
    """A project, opened: its graph, what its definitions currently are, and its stores."""

    name: str
    root: Path
    settings: Settings
    graph: Graph
    environment: str
    config: Mapping[str, Mapping[str, BaseModel]]
    overrides: tuple[str, ...]
    engine: AsyncEngine
    bucket: Bucket
    reader: Reader
    id: int
    environment_id: int
    asset_ids: Mapping[str, int]
    _fingerprints: dict[str, Fingerprint] = field(default_factory=dict)
    _definitions: dict[str, Definition] = field(default_factory=dict)

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        settings: Settings,
        name: str,
        *,
        environment: str | None = None,
        config: Sequence[str] = (),
        automatic_schema: bool = False,
    ) -> AsyncIterator[Project]:
        """Load the project and connect to its stores; `automatic_schema` migrates the database (the embedded one)."""
        if settings.database_url is None:
            raise UsageError(
                "No database is known.", hint="Start the embedded services with: aipctl up, or set DATABASE_URL."
            )
        graph = load(settings.root, name)
        configured = configuration(graph, settings.root, config)
        engine = schema.connect(settings.database_url)
        bucket = Bucket.open(settings.storage_url, settings.storage_options())
        try:
            await schema.ensure(engine, automatic=automatic_schema)
            environment = environment or settings.environment
            identifier, environment_id, asset_ids = await _register(engine, graph, environment)
            yield cls(
                graph.project, settings.root, settings, graph, environment, configured, tuple(config), engine, bucket, Reader(bucket),
                identifier, environment_id, asset_ids,
            )  # fmt: skip
        finally:
            await bucket.close()
            await engine.dispose()

    def fingerprint(self, name: str) -> Fingerprint:
        """The fingerprint of an asset's code; computed once."""
        if name not in self._fingerprints:
            asset = self.graph.assets[name]
            self._fingerprints[name] = fingerprint(
                asset.function, user_packages=user_packages(self.graph), version=asset.options.version
            )
        return self._fingerprints[name]

    def definition(self, name: str) -> Definition:
        """The current definition of an asset; computed once."""
        if name not in self._definitions:
            asset = self.graph.assets[name]
            config = {p: value.model_dump(mode="json") for p, value in self.config.get(name, {}).items()}
            models = {alias: self.settings.models.get(alias) for alias in asset.options.models}
            self._definitions[name] = define(asset, self.fingerprint(name), config, models)
        return self._definitions[name]

    def definitions(self, names: Collection[str]) -> dict[str, Definition]:
        """The current definitions of these assets (sources have none)."""
        return {n: self.definition(n) for n in names if not isinstance(self.graph.assets[n], Source)}


async def _register(engine: AsyncEngine, graph: Graph, environment: str) -> tuple[int, int, dict[str, int]]:
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
            if name not in known and before in known and before not in graph.assets:
                await connection.execute(sa.update(a).where(a.c.id == known[before]).values(name=name))
                known[name] = known.pop(before)
            elif name not in known:
                new.append({"project_id": identifier, "name": name, "kind": asset.kind, "flow": asset.group})
        if new:
            await connection.execute(insert(a).values(new).on_conflict_do_nothing())
            rows = await connection.execute(sa.select(a.c.id, a.c.name).where(a.c.project_id == identifier))
            known = {n: i for i, n in rows}
    return int(identifier), int(environment_id), {n: known[n] for n in graph.assets}
