"""Schema: is the database the one that this version works with, and how does it become so?

The migrations are in `migrations/` (in a wheel: inside the package). `HEAD` is the revision that this version's code is written
for; a test holds it equal to the newest migration. Reading the revision needs no Alembic, so a command that finds the schema in
order does not pay for importing it.
"""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from assetcore.errors import SchemaError, ServiceError

__all__ = ["HEAD", "Connection", "Engine", "connect", "ensure", "migrations_folder", "revision", "upgrade"]

HEAD = "0001"
Engine = AsyncEngine
Connection = AsyncConnection
"""The words of SQLAlchemy that other rooms hold, and hand back to this one."""
_LOCK = 0x617373657463
_version = sa.table("alembic_version", sa.column("version_num"))
_catalogue = sa.table("pg_tables", sa.column("tablename"), sa.column("schemaname"))


def connect(database_url: str) -> AsyncEngine:
    """An engine over asyncpg. One pool for each process: five connections, ten more under load, checked before use."""
    return create_async_engine(database_url, pool_size=5, max_overflow=10, pool_pre_ping=True, pool_recycle=1800)


def migrations_folder() -> Path:
    """Where the migrations are: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    inside = package / "migrations"
    return inside if inside.is_dir() else package.parent / "migrations"


async def revision(connection: AsyncConnection) -> str | None:
    """The schema's revision, or None for an empty database."""
    found = await connection.execute(
        sa.select(sa.func.count())
        .select_from(_catalogue)
        .where(_catalogue.c.tablename == "alembic_version", _catalogue.c.schemaname == sa.func.current_schema())
    )
    if not found.scalar_one():
        return None
    return (await connection.execute(sa.select(_version.c.version_num))).scalar_one_or_none()


async def ensure(engine: AsyncEngine, *, automatic: bool) -> None:
    """Raise SchemaError unless the schema is `HEAD`; with `automatic` (the embedded database) bring it there first."""
    async with reach(engine) as connection:
        found = await revision(connection)
    if found == HEAD:
        return
    if found is not None and found > HEAD:
        raise SchemaError(
            f"The database has schema {found}, which is newer than the {HEAD} of this assetcore.",
            hint="Upgrade assetcore, or use another database.",
        )
    if not automatic:
        raise SchemaError(
            f"The database has {'no schema' if found is None else f'schema {found}'}, this assetcore works with {HEAD}.",
            hint="Run: aipctl db upgrade",
        )
    await _migrate(engine)


async def upgrade(database_url: str) -> tuple[str | None, str]:
    """Bring the database to `HEAD`; returns the revision before and after. Raises SchemaError for a newer database."""
    engine = connect(database_url)
    try:
        async with reach(engine) as connection:
            before = await revision(connection)
        await ensure(engine, automatic=True)
        return before, HEAD
    finally:
        await engine.dispose()


class reach:
    """Open a connection; whatever keeps it from opening becomes a ServiceError that names the address."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._connection: AsyncConnection | None = None

    async def __aenter__(self) -> AsyncConnection:
        address = self._engine.url.render_as_string(hide_password=True)
        try:
            self._connection = await self._engine.connect()
        except Exception as error:
            reason = str(getattr(error, "orig", None) or error).split(">: ")[-1].splitlines()[0]
            raise ServiceError(
                f"Postgres at {address} cannot be used: {reason}.",
                hint="Look at: aipctl check, or start the services with: aipctl up",
            ) from error
        return self._connection

    async def __aexit__(self, *_: object) -> None:
        if self._connection is not None:
            await self._connection.close()


async def _migrate(engine: AsyncEngine) -> None:
    from alembic import command, config  # only where something is to be migrated: 0.1 s

    def run(connection: sa.Connection) -> None:
        settings = config.Config(attributes={"connection": connection})
        settings.set_main_option("script_location", str(migrations_folder()).replace("%", "%%"))
        command.upgrade(settings, "head")

    async with engine.begin() as connection:
        await connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
        await connection.run_sync(run)
