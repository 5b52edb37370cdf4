"""Opening: how does a script, a notebook or a worker get hold of a project?

`open_project` starts what is not there and hands over a session; `scan` reads one asset and lets go of the rest.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import polars as pl

from assetcore import stack
from assetcore.errors import UsageError
from assetcore.llm import calling
from assetcore.loading import find_root, project_names
from assetcore.session import Session
from assetcore.settings import Settings

__all__ = ["open_project", "scan"]


@asynccontextmanager
async def open_project(
    name: str | None = None,
    *,
    root: Path | None = None,
    environment: str | None = None,
    config: Sequence[str] = (),
    **settings: Any,
) -> AsyncIterator[Session]:
    """Open a project from Python: start the embedded services where no address is given, and connect.

    `name` may be left out where there is only one project. `root`, the folder that holds projects/, is found from the current one
    upwards. `environment` and `config` (each "asset.field=value") are what --env and --set are to the command: an environment that
    there is not is refused with NothingSelectedError by what would find everything missing in it, and `materialize` begins it. Further
    arguments are settings. Inside, models can be asked (`assetcore.llm`), by any alias that there is.

        async with open_project("handbook") as handbook:
            await handbook.materialize("+chunks")
    """
    found = Settings.load(
        root or find_root(Path.cwd()), **({"environment": environment} if environment else {}), **settings
    )
    names = project_names(found.root)
    if name is None and len(names) != 1:
        raise UsageError(f"There are {len(names)} projects: {', '.join(names)}.", hint="Name one of them.")
    addresses = await stack.up(found, {"postgres", "redis", "store"}, ahead={"prefect"})
    connected = addresses.applied_to(found)
    automatic = found.database_url is None
    async with Session.open(
        connected, name or names[0], environment=environment, config=config, automatic_schema=automatic
    ) as session:
        with calling(session.project.llm):
            yield session


def scan(
    asset: str,
    *,
    project: str | None = None,
    root: Path | None = None,
    environment: str | None = None,
    **settings: Any,
) -> pl.LazyFrame:
    """The current documents of an asset as a lazy frame, for scripts and notebooks: name, media_type, text, content, typed fields.

    `project`, `root`, `environment` and settings are those of `open_project`. Where an event loop runs, as in a notebook, the loop
    waits; in a session that is open already, `await session.scan(asset)` does not have it wait.

    Raises NothingSelectedError where there is no such asset, or no such environment.
    """

    async def read_it() -> pl.LazyFrame:
        async with open_project(project, root=root, environment=environment, **settings) as session:
            return await session.scan(asset)

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(read_it())
    with ThreadPoolExecutor(1, "scan") as beside:  # a thread has one loop at most
        return beside.submit(asyncio.run, read_it()).result()
