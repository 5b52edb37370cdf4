"""The real neighbours of the integration tests: one embedded stack for the session, a fresh database and store for each test."""

from __future__ import annotations

import asyncio
import itertools
import os
import secrets
import socket
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import pytest
from redis import asyncio as redis

from assetcore import stack as services
from assetcore.layers import CONVENTIONAL
from assetcore.settings import Settings

# A developer's own addresses must not lead the tests to their services.
for variable in [*CONVENTIONAL, *(name for name in os.environ if name.startswith("ASSETCORE_"))]:
    os.environ.pop(variable, None)


@pytest.fixture(scope="session")
def stack() -> Iterator[Settings]:
    """Settings with the addresses of Postgres, Redis and a store; Prefect is starting meanwhile (see `prefect_api`)."""
    with tempfile.TemporaryDirectory(prefix="assetcore-tests-") as folder:
        Path(folder).chmod(0o711)  # as root, Postgres runs as another user, who must pass through to its data
        embedded = Settings.load(Path(folder), home=Path(folder) / "home")
        try:
            addresses = asyncio.run(services.up(embedded, {"postgres", "redis", "store"}, ahead={"prefect"}))
            yield embedded.using("test", database_url=addresses.database_url, redis_url=addresses.redis_url)
        finally:
            asyncio.run(services.clean(embedded))


@pytest.fixture(scope="session")
def prefect_api(stack: Settings) -> Iterator[str]:
    """The address of the session's Prefect API, ready; Prefect's own settings point there from then on."""
    url = asyncio.run(services.up(stack, {"prefect"})).prefect_api_url
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFECT_API_URL", url)
        patch.setenv("PREFECT_HOME", str(stack.home / "prefect-client"))
        yield url


@pytest.fixture(scope="session")
def template(stack: Settings) -> str:
    """The name of a migrated database, made once, that each test's database is a copy of."""
    from assetcore.lineage.schema import upgrade  # heavy, and tests of the stack alone do without

    name = "template_assetcore"
    url = _with_database(str(stack.database_url), name)
    asyncio.run(_execute(stack, f"CREATE DATABASE {name}"))
    asyncio.run(upgrade(url))
    return name


@pytest.fixture
async def database(stack: Settings, template: str) -> AsyncIterator[str]:
    """The address of a fresh, migrated database."""
    name = f"test_{secrets.token_hex(6)}"
    await _execute(stack, f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY")
    yield _with_database(str(stack.database_url), name)
    await drop(stack, name)


@pytest.fixture
def store_url(tmp_path: Path) -> str:
    """The address of a fresh, empty store."""
    folder = tmp_path / "store"
    folder.mkdir()
    return f"file://{folder}"


@pytest.fixture(scope="session")
def s3_server() -> Iterator[Settings]:
    """Settings of the embedded S3 server, in a home of its own: the store of the other tests is a folder."""
    with tempfile.TemporaryDirectory(prefix="assetcore-s3-") as folder:
        embedded = Settings.load(Path(folder), home=Path(folder) / "home", s3=True)
        try:
            yield asyncio.run(services.up(embedded, {"store"})).applied_to(embedded)
        finally:
            asyncio.run(services.clean(embedded))


@pytest.fixture
def s3_settings(settings: Settings, s3_server: Settings) -> Settings:
    """Settings of a test as `settings`, but with a fresh, empty store in the S3 server."""
    names = ("storage_endpoint", "storage_region", "storage_key", "storage_secret")
    given = {name: getattr(s3_server, name) for name in names}
    return settings.using("test", storage_url=f"{s3_server.storage_url}/{secrets.token_hex(6)}", **given)


@pytest.fixture
async def redis_url(stack: Settings) -> str:
    """The address of an emptied Redis database that the test before did not use."""
    url = f"{str(stack.redis_url).rpartition('/')[0]}/{next(_redis_databases)}"
    client = redis.Redis.from_url(url)
    await client.flushdb()
    await client.aclose()
    return url


@pytest.fixture
def settings(stack: Settings, database: str, redis_url: str, store_url: str, tmp_path: Path) -> Settings:
    """Settings of a test: a root of its own, fresh database, Redis and store; Prefect when `prefect_api` is asked for too."""
    return stack.using("test", root=tmp_path, database_url=database, redis_url=redis_url, storage_url=store_url)


@pytest.fixture
def variables(settings: Settings) -> dict[str, str]:
    """The environment for an `aipctl` in a subprocess that works with this test's database, Redis and store."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("ASSETCORE_")}
    return inherited | {
        "ASSETCORE_HOME": str(settings.home),
        "ASSETCORE_STORAGE_URL": settings.storage_url,
        "DATABASE_URL": str(settings.database_url),
        "REDIS_URL": str(settings.redis_url),
    }


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port at which nobody listens, and that nobody else is given meanwhile."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield int(taken.getsockname()[1])


_redis_databases = itertools.cycle(range(1, 16))


async def drop(settings: Settings, name: str) -> None:
    """Drop a database with whoever is connected to it.

    Postgres refuses that to a role that is no superuser while a process is there that has no role, such as one of autovacuum or one that
    has just begun; those go by themselves.
    """
    give_up = time.monotonic() + 10
    while True:
        try:
            await _execute(settings, f"DROP DATABASE {name} WITH (FORCE)")
            break
        except asyncpg.InsufficientPrivilegeError:
            if time.monotonic() > give_up:
                raise
            await asyncio.sleep(0.1)


async def _execute(settings: Settings, statement: str) -> None:
    connection = await asyncpg.connect(str(settings.database_url).replace("+asyncpg", "", 1))
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


def _with_database(url: str, name: str) -> str:
    return f"{url.rpartition('/')[0]}/{name}"


TALLY = pytest.StashKey[Counter[str]]()


@pytest.fixture
def tally(request: pytest.FixtureRequest) -> Counter[str]:
    """What a test under fire counts; the session says at its end how much it was."""
    return request.config.stash.setdefault(TALLY, Counter())


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say how much was done under fire."""
    if counted := config.stash.get(TALLY, None):
        terminalreporter.section("under fire")
        for what, number in sorted(counted.items()):
            terminalreporter.write_line(f"{number:>7,} {what}")
