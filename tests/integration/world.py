"""A small world to test in: a folder with a project whose code, config and documents a test edits as a user would."""

from __future__ import annotations

import asyncio
import itertools
import os
import textwrap
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from assetcore.results import Event, RunResult
from assetcore.session import Session
from assetcore.settings import Settings

HEAD = """
from __future__ import annotations
from collections.abc import AsyncIterator
import polars as pl
from pydantic import BaseModel
from assetcore import Document, asset, collect, each, folder, source

class Topic(Document):
    "A text."

class Chunk(Document):
    ordinal: int

class Report(Document):
    "A report."

topics = source("topics", Topic, folder("data", pattern="*.txt"))
"""

CHUNKED = """
    @asset
    async def clean(topic: Topic = each(topics)) -> Topic:
        return Topic(topic.name, text=topic.text.strip())

    @asset
    async def chunks(topic: Topic = each(clean)) -> list[Chunk]:
        return [Chunk(f"{topic.stem}-{i}", text=w, ordinal=i) for i, w in enumerate(topic.text.split())]
"""
"""The words of each text."""


_moments = itertools.count(1_700_000_000)


@dataclass
class World:
    """A project `demo` below a root, opened anew for every verb, as the command does. It is `now`, or as late as it is."""

    settings: Settings
    events: list[Event] = field(default_factory=list)
    now: datetime | None = None

    @property
    def root(self) -> Path:
        return self.settings.root

    def code(self, body: str, *, head: str = HEAD, file: str = "assets.py") -> None:
        """Write a module of the project."""
        package = self.root / "projects" / "demo"
        package.mkdir(parents=True, exist_ok=True)
        (package / "__init__.py").touch()
        (package / file).write_text(head + textwrap.dedent(body))

    def document(self, name: str, text: str | bytes) -> None:
        """Write a document; its file tells of a time long ago, as most do, and of another one each time."""
        path = self.root / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        moment = next(_moments)
        os.utime(path, times=(moment, moment))

    def remove(self, name: str) -> None:
        (self.root / "data" / name).unlink()

    def config(self, text: str) -> None:
        (self.root / "projects" / "demo" / "config.yaml").write_text(textwrap.dedent(text))

    @asynccontextmanager
    async def open(self, *config: str) -> AsyncIterator[Session]:
        clock = None if self.now is None else lambda: self.now or datetime.now(UTC)
        async with Session.open(self.settings, "demo", config=config, clock=clock) as session:
            yield session

    async def plan(self, select: str | None = None, **options: Any) -> dict[str, dict[str, Any]]:
        """The plan's assets that are not idle, by name."""
        async with self.open() as session:
            plan = await session.plan(select, **options)
        return {a.asset: a.to_json() for a in plan.assets if not a.idle}

    async def materialize(
        self, select: str | None = None, *, config: tuple[str, ...] = (), **options: Any
    ) -> RunResult:
        async with self.open(*config) as session:
            return await session.materialize(select, **{"local": True, "on_event": self.events.append, **options})

    async def made(self, select: str | None = None, **options: Any) -> dict[str, dict[str, int]]:
        """What materializing did: the non-zero counts of every asset that something was done to."""
        result = await self.materialize(select, **options)
        counts = {
            a.asset: {k: v for k, v in a.to_json().items() if k not in ("asset", "fresh") and v} for a in result.assets
        }
        return {asset: found for asset, found in counts.items() if found}

    async def contents(self) -> dict[str, dict[tuple[str, str], bytes]]:
        """Everything that is current: asset -> (unit, document) -> content."""
        async with self.open() as session:
            found: dict[str, dict[tuple[str, str], bytes]] = {}
            for info in await session.ls():
                if info.documents:
                    shown = await session.show(info.asset)
                    found[info.asset] = {(d.unit, d.name): d.content for d in shown}
            return found


async def let_go_on() -> None:
    """Let the tasks of this loop go on with what they have been told."""
    for _ in range(50):
        await asyncio.sleep(0)
