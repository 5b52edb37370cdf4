"""Schema: is the database the one that this version works with, and how does it become so?

The migrations are in `migrations/` (in a wheel: inside the package). `HEAD` is the revision that this version's code is written
for; a test holds it equal to the newest migration. Reading the revision needs no Alembic, so a command that finds the schema in
order does not pay for importing it.
"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.exc import InvalidatePoolError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.schema import SetTableComment
from sqlalchemy.util import await_only

from assetcore.errors import SchemaError, ServiceError, StorageError, UsageError
from assetcore.lineage.pulse import SILENCE, Pulse
from assetcore.lineage.tables import LARGEST
from assetcore.settings import LOCAL

__all__ = [
    "HEAD", "TAKER", "Connection", "Engine", "Standing", "check_writable", "connect", "current", "ensure", "from_json", "is_service_error",
    "migrations_folder",
    "reading", "refuse_size", "refuse_stage", "service_error", "standing", "to_json", "upgrade",
]  # fmt: skip

HEAD = "0021"
Engine = AsyncEngine
Connection = AsyncConnection
"""The words of SQLAlchemy that other rooms hold, and hand back to this one."""
TAKER = "assetcore_taker"
"""The execution option that names who takes the rows of a statement: they are copied out as CSV, and the result has none."""
_AS_TEXT = "$json"
_LOCK = 0x617373657463
_READ_ONLY = "25006"
_READING = "postgresql_readonly"
"""The option of an engine, or a connection, that writes nothing: it is not the server then that takes no writes."""
_TRY_AGAIN = "Nothing of what was interrupted is kept; run the command again."
_MOMENTARY = {
    _READ_ONLY: "It takes no writes: is it a standby, or is its disk full? Look at: aipctl check",
    "40001": _TRY_AGAIN,  # serialization failure
    "40P01": _TRY_AGAIN,  # deadlock
    "55P03": _TRY_AGAIN,  # lock not available, where the server has a lock_timeout
}
"""States of the server in which it refuses what is right, by the code of SQL, and what to do then."""
_STAGE = "stage "
"""How the comment on Alembic's table begins that says to which stage the database belongs: it is read with the revision."""
_version = sa.table("alembic_version", sa.column("version_num"))
_catalogue = sa.table("pg_tables", sa.column("tablename"), sa.column("schemaname"))


def connect(database_url: str) -> AsyncEngine:
    """An engine over asyncpg. One pool for each process: five connections, ten more under load, checked before use.

    What keeps a connection from opening, or breaks it, is raised as a ServiceError that names the address. A server that does not answer
    at all is told, and waited for for a minute; one that is slow is waited for as long as it takes.
    """
    engine = create_async_engine(
        database_url, pool_size=5, max_overflow=10, pool_recycle=1800, pool_timeout=2 * SILENCE,
        json_serializer=to_json, json_deserializer=from_json,
    )  # fmt: skip
    pulse = Pulse(engine)

    def opening(dialect: sa.Dialect, record: Any, arguments: Any, options: Any) -> Any:
        patience = {} if pulse.patience is None else {"timeout": pulse.patience}
        try:
            with pulse.opening():
                return dialect.connect(*arguments, **options | patience)
        except Exception as error:
            raise service_error(engine, error) from error

    def taken(connection: Any, *_: Any) -> None:
        try:  # in one exchange, of which SQLAlchemy's own (pool_pre_ping) makes three: it begins a transaction, and ends it
            connection.run_async(lambda driver: driver.fetchrow(";", timeout=pulse.patience))
        except Exception as error:
            raise InvalidatePoolError from error

    def failing(context: sa.ExceptionContext) -> None:
        error = context.original_exception
        if not isinstance(error, Exception):
            return  # who cancels a statement is told that it is cancelled
        ours = context.connection is not None and context.connection.get_execution_options().get(_READING)
        if context.is_disconnect or (is_service_error(error) and not (ours and _state(error) == _READ_ONLY)):
            raise service_error(engine, error) from error
        refuse_size(error)

    def opened(connection: Any, _: Any) -> None:
        as_bytes = {"schema": "pg_catalog", "encoder": bytes, "decoder": bytes, "format": "binary"}
        connection.run_async(lambda driver: driver.set_type_codec("uuid", **as_bytes))

    def copied(cursor: Any, statement: str, parameters: Any, context: Any) -> bool:
        take = context.execution_options.get(TAKER)
        if take is None:
            return False
        driver = context.root_connection.connection.driver_connection
        await_only(driver.copy_from_query(statement, *parameters, output=take, format="csv"))
        return True

    event.listen(engine.sync_engine, "do_connect", opening)
    event.listen(engine.sync_engine, "do_execute", copied)
    event.listen(engine.sync_engine, "connect", opened)
    event.listen(engine.sync_engine, "checkout", taken)
    event.listen(engine.sync_engine, "handle_error", failing)
    return engine


def to_json(value: Any) -> str:
    """JSON as Postgres takes it: what jsonb cannot hold (NUL, NaN, infinities) is kept as text inside."""
    with suppress(ValueError):
        text = json.dumps(value, allow_nan=False)
        if "\\u0000" not in text:
            return text
    return json.dumps({_AS_TEXT: json.dumps(value)})


def from_json(text: str | bytes) -> Any:
    """The value that `to_json` was given."""
    value = json.loads(text)
    return json.loads(value[_AS_TEXT]) if isinstance(value, dict) and value.keys() == {_AS_TEXT} else value


def is_service_error(error: BaseException) -> bool:
    """Whether it is the server's state, and not what was asked of it: connection lost, no resources, a full disk, read-only."""
    state = _state(error)
    return (
        isinstance(error, OSError)
        or state[:2] in ("08", "28", "53", "57", "58")
        or state in _MOMENTARY
        or "connection is closed" in str(error)
    )


def service_error(engine: AsyncEngine, error: BaseException) -> ServiceError:
    """The sentence for a database that cannot be used."""
    address = engine.url.render_as_string(hide_password=True)
    told = "it does not answer" if isinstance(error, TimeoutError) else str(getattr(error, "orig", None) or error)
    reason = told.split(">: ")[-1].splitlines()
    return ServiceError(
        f"Postgres at {address} cannot be used: {reason[0].rstrip('.') if reason else type(error).__name__}.",
        hint=_MOMENTARY.get(_state(error), "Look at: aipctl check, or start the services with: aipctl up"),
    )


def _state(error: BaseException) -> str:
    """The five letters of SQL for what the server said, empty where it is not the server that said it."""
    return getattr(error, "sqlstate", None) or getattr(error.__cause__, "sqlstate", None) or ""


def refuse_size(error: BaseException) -> None:
    """Raise StorageError where Postgres has refused a value because it is too large for metadata."""
    told = error if hasattr(error, "constraint_name") else error.__cause__
    constraint = str(getattr(told, "constraint_name", None))
    if constraint.startswith("ck_") and constraint.endswith("_size"):
        column = constraint.removeprefix("ck_").removesuffix("_size")
        raise StorageError(
            f"Postgres refuses a value of more than {LARGEST >> 20} MiB ({column}).",
            hint="Bytes belong into the content of documents, which is in the store.",
        ) from error


def migrations_folder() -> Path:
    """Where the migrations are: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    inside = package / "migrations"
    return inside if inside.is_dir() else package.parent / "migrations"


class Standing(NamedTuple):
    """Of a database: the schema's revision, None where it is empty, and the stage that it says it belongs to."""

    revision: str | None
    stage: str | None


async def standing(connection: AsyncConnection) -> Standing:
    """What a database says of itself."""
    comment = sa.func.obj_description(sa.func.to_regclass(_version.name), "pg_class")
    found = await connection.execute(
        sa.select(sa.func.count(), comment)
        .select_from(_catalogue)
        .where(_catalogue.c.tablename == _version.name, _catalogue.c.schemaname == sa.func.current_schema())
    )
    there, said = found.one()
    if not there:
        return Standing(None, None)
    revision = (await connection.execute(sa.select(_version.c.version_num))).scalar_one_or_none()
    return Standing(revision, said.removeprefix(_STAGE) if said and said.startswith(_STAGE) else None)


async def ensure(engine: AsyncEngine, *, automatic: bool) -> str | None:
    """The stage that the database says it belongs to.

    Raises SchemaError unless the schema is `HEAD`; with `automatic` (the embedded database) it is brought there first.
    """
    async with engine.connect() as connection:
        found, stage = await standing(connection)
    if found == HEAD:
        return stage
    _refuse(found, automatic=automatic)
    await _migrate(engine)
    return stage


def _refuse(found: str | None, *, automatic: bool) -> None:
    """Raise SchemaError for another schema than `HEAD`, unless it can be brought there and is `automatic`."""
    if found is not None and found > HEAD and found not in _shipped():
        raise SchemaError(
            f"The database has schema {found}, which is newer than the {HEAD} of this assetcore.",
            hint="Upgrade assetcore, or use another database.",
        )
    if found != HEAD and not automatic:
        raise SchemaError(
            f"The database has {'no schema' if found is None else f'schema {found}'}, this assetcore works with {HEAD}.",
            hint="Run: aipctl db upgrade",
        )


async def current(database_url: str, *, automatic: bool = False) -> str | None:
    """The stage that a database says it belongs to, of one that can be worked with. Changes nothing.

    Raises SchemaError where what works with it would be refused: it has not the schema of this version or, with `automatic` (the
    embedded database), cannot be brought there; ServiceError where it cannot be asked.
    """
    engine = connect(database_url)
    try:
        async with engine.connect() as connection:
            found, stage = await standing(connection)
        _refuse(found, automatic=automatic)
        return stage
    finally:
        await engine.dispose()


async def check_writable(database_url: str, stage: str) -> None:
    """Raise SchemaError or ServiceError as `current` does, UsageError where a database is not one of this stage."""
    refuse_stage(stage, await current(database_url), database_url)


async def upgrade(
    database_url: str, stage: str = LOCAL, *, take: bool = False, embedded: bool = False
) -> tuple[Standing, Standing]:
    """Bring the database to `HEAD`; returns how it was and is. From then on it belongs to the stage, if that is not the local one.

    Raises SchemaError for a newer database, and UsageError for one of another stage, unless it is to `take` it over.
    """
    engine = connect(database_url)
    try:
        async with engine.connect() as connection:
            before = await standing(connection)
        if not take:
            refuse_stage(stage, before.stage, database_url, embedded=embedded, upgrading=True)
        await ensure(engine, automatic=True)
        if stage == before.stage or (stage == LOCAL and not take):
            return before, Standing(HEAD, before.stage)
        said = sa.Table(_version.name, sa.MetaData(), comment=f"{_STAGE}{stage}")
        async with engine.begin() as connection:
            await connection.execute(SetTableComment(said))
        return before, Standing(HEAD, stage)
    finally:
        await engine.dispose()


def reading(engine: AsyncEngine, ours: str, theirs: str, *, embedded: bool = False) -> AsyncEngine:
    """The engine of a database that belongs to another stage: what would write all the same Postgres refuses, told as UsageError."""
    database_url = engine.url.render_as_string()

    def failing(context: sa.ExceptionContext) -> None:
        if getattr(context.original_exception, "sqlstate", None) == _READ_ONLY:
            refuse_stage(ours, theirs, database_url, embedded=embedded)

    event.listen(engine.sync_engine, "handle_error", failing)
    return engine.execution_options(**{_READING: True})


def refuse_stage(
    ours: str, theirs: str | None, database_url: str, *, embedded: bool = False, upgrading: bool = False
) -> None:
    """Raise UsageError where a database says that it belongs to another stage: a laptop that points at production writes nothing there."""
    if theirs is None or theirs == ours:
        return
    address = urlsplit(database_url)
    elsewhere = "" if embedded else "Without DATABASE_URL, a database of its own is used. "
    take = "; to make it this one's: aipctl db upgrade --take" if embedded or upgrading else ""
    raise UsageError(
        f"The database {address.path.lstrip('/')} at {address.hostname or 'a socket of this machine'} belongs to {theirs}, and this"
        f" installation is {ours} (ENV): nothing is written there.",
        hint=f"{elsewhere}On purpose: ENV={theirs} aipctl ...{take}",
    )


def _shipped() -> set[str]:
    """The revisions that this version knows; what follows what is said by the migrations, not by their numbers."""
    return {file.name.partition("_")[0] for file in (migrations_folder() / "versions").glob("*.py")}


async def _migrate(engine: AsyncEngine) -> None:
    from alembic import command, config  # only where something is to be migrated: 0.1 s

    def run(connection: sa.Connection) -> None:
        settings = config.Config(attributes={"connection": connection})
        settings.set_main_option("script_location", str(migrations_folder()).replace("%", "%%"))
        command.upgrade(settings, "head")

    async with engine.begin() as connection:
        await connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
        await connection.run_sync(run)
