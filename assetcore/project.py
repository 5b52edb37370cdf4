"""Project: what do a user's declarations need to work?

A project, opened, is its graph and config, the current definitions of its assets, the database with its identifiers for the project,
the environment and the assets, and the bucket.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from assetcore.assets import Source
from assetcore.definition import define
from assetcore.digest import digest
from assetcore.errors import StorageError, UsageError
from assetcore.fingerprint import Fingerprint
from assetcore.graph import Graph
from assetcore.lineage import schema
from assetcore.lineage.checks import Version
from assetcore.lineage.registry import look_up, register
from assetcore.llm.answers import Answers
from assetcore.llm.client import Client
from assetcore.loading import configuration, fingerprint_of, load
from assetcore.settings import Settings
from assetcore.staleness import Definition
from assetcore.storage import Bucket, Key, Reader

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
    engine: schema.Engine
    bucket: Bucket
    reader: Reader
    id: int
    environment_id: int
    asset_ids: Mapping[str, int]
    llm: Client
    clock: Callable[[], datetime]
    stage: str | None = None
    embedded: bool = False
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
        clock: Callable[[], datetime] | None = None,
    ) -> AsyncIterator[Project]:
        """Load the project and connect to its stores; `automatic_schema` migrates the database (the embedded one).

        `clock` says what time it is: which days and hours there are, and what has expired.
        """
        if settings.database_url is None:
            raise UsageError(
                "No database is known.", hint="Start the embedded services with: aipctl up, or set DATABASE_URL."
            )
        graph = load(settings.root, name, settings.require)
        engine = schema.connect(settings.database_url)
        bucket = Bucket.open(settings.storage_url, settings.storage_options())
        try:
            published = await _published(settings, graph.project, bucket)
            configured = configuration(graph, settings.root, config, published)
            stage = await schema.ensure(engine, automatic=automatic_schema)
            environment = environment or settings.environment
            foreign = stage if stage != settings.stage else None
            if foreign is None:
                identifier, environment_id, asset_ids = await register(engine, graph, environment)
            else:
                engine = schema.reading(engine, settings.stage, foreign, embedded=automatic_schema)
                identifier, environment_id, asset_ids = await look_up(engine, graph, environment)
            client = Client(settings, Answers(engine, bucket, graph.project, settings.redis_url, foreign is None))
            try:
                yield cls(
                    graph.project, settings.root, settings, graph, environment, configured, tuple(config), engine, bucket, Reader(bucket),
                    identifier, environment_id, asset_ids, client,
                    clock or (lambda: datetime.now(UTC)), stage, automatic_schema,
                )  # fmt: skip
            finally:
                await client.close()
        finally:
            await bucket.close()
            await engine.dispose()

    @property
    def writable(self) -> bool:
        """Whether the database is this installation's; one that says that it belongs to another stage (`stage`) is only read."""
        return self.stage is None or self.stage == self.settings.stage

    def check_writable(self) -> None:
        """Raise UsageError where the database is only read."""
        schema.refuse_stage(self.settings.stage, self.stage, self.settings.database_url or "", embedded=self.embedded)

    def fingerprint(self, name: str) -> Fingerprint:
        """The fingerprint of an asset's or check's code, and of the methods of the documents and config that it is given; computed once.

        Raises DeclarationError in strict mode where something cannot be followed.
        """
        if name not in self._fingerprints:
            called = self.graph.functions[name]
            found = fingerprint_of(self.graph, name)
            if self.settings.strict and found.notes:
                note = found.notes[0]
                raise called.fail(f"cannot be followed at {note.where}: {note.what} ({note.code}).", note.settle)
            self._fingerprints[name] = found
        return self._fingerprints[name]

    def definition(self, name: str) -> Definition:
        """The current definition of an asset; computed once."""
        if name not in self._definitions:
            asset = self.graph.assets[name]
            config = dict(self.config.get(name, {}))
            models = {alias: self.llm.models.resolve(alias) for alias in asset.options.models}
            counted = [package for package, policy in self.settings.packages.items() if policy == "stale"]
            self._definitions[name] = define(asset, self.fingerprint(name), config, models, counted)
        return self._definitions[name]

    def checks(self, names: Iterable[str]) -> list[Version]:
        """The checks of these assets, each in its present version: its code, and what it is given."""
        found = [check for name in names for check in self.graph.checks.get(name, ())]
        return [
            Version(
                c, self.asset_ids[c.asset.name], digest("check", self.fingerprint(c.key).digest, c.scope, c.given.form)
            )
            for c in found
        ]

    def definitions(self, names: Collection[str]) -> dict[str, Definition]:
        """The current definitions of these assets (sources have none)."""
        return {n: self.definition(n) for n in names if not isinstance(self.graph.assets[n], Source)}


async def _published(settings: Settings, project: str, bucket: Bucket) -> dict[str, Any]:
    """The configuration of a project that Prefect's variables hold; a long one lies in the store, and its variable says where."""
    found = settings.configured(project)
    for name, value in found.items():
        if isinstance(value, Mapping) and set(value) == {"document", "sha256", "size"}:
            content = await bucket.read(Key(str(value["document"]).removeprefix(f"{settings.storage_url}/")))
            if hashlib.sha256(content).hexdigest() != value["sha256"]:
                raise StorageError(
                    f"{value['document']} does not hold what the Prefect variable {project}_{name} says.",
                    hint="Write it again: aipctl blocks init",
                )
            found[name] = json.loads(content)
    return found
