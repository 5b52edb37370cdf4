"""Postgres: which rows does a user's table hold, as of one moment?

All of a look is read in one read-only snapshot (REPEATABLE READ), in pages by key: a page begins after the last key of the one before,
so that rows which are written or deleted meanwhile neither move nor hide another row, and no page costs more than the first.

The database is the user's, not the one of lineage: a door of its own. Its password is in the engine's address and nowhere else; what
is said of the address leaves it out.
"""

from __future__ import annotations

import datetime
import decimal
import difflib
import itertools
import json
import os
import re
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import asyncpg
import sqlalchemy as sa
from dotenv import dotenv_values
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import NullPool

from assetcore.errors import SourceError
from assetcore.settings import Settings, postgres_url
from assetcore.sources import dates

__all__ = ["Key", "Row", "Snapshot", "key_name", "opened", "plain"]

Row = Mapping[str, Any]
Key = tuple[Any, ...]

PAGE_BYTES = 8 << 20
LARGEST_PAGE = 2_000
LARGEST_LIST = 1_000
FIRST_PAGE = 50
"""How many rows are read before it is known how large they are."""
SECONDS_TO_CONNECT = 20
_UNAMBIGUOUS = re.compile(r'[^\s"\\,()\[\]]+')
_KEYWORD = re.compile(r"\s*(\w+)\s*=\s*(?:'((?:[^'\\]|\\.)*)'|((?!')(?:[^\s\\]|\\.)*))\s*", re.DOTALL)
NUMERIC = 1700
"""The identifier of the type `numeric` in every Postgres."""


@dataclass(frozen=True, slots=True)
class _KeyType:
    """How the values of a key are compared, and how one is read back from a document's name."""

    type: sa.types.TypeEngine[Any]
    parse: Callable[[str], Any]
    texts: Collection[str] = ()
    """What such a value is called where Python has none that is the same, and equal to itself."""

    def named(self, text: str) -> Any:
        """The value that is written so. Raises ValueError or ArithmeticError."""
        return text if text in self.texts else self.parse(text)


_WHOLE = _KeyType(sa.BigInteger(), int)
_TEXT = _KeyType(sa.Text(), str)
KEY_TYPES: Mapping[str, _KeyType] = {
    "int2": _WHOLE,
    "int4": _WHOLE,
    "int8": _WHOLE,
    "text": _TEXT,
    "varchar": _TEXT,
    "uuid": _KeyType(sa.Uuid(), uuid.UUID),
    "numeric": _KeyType(sa.Numeric(), decimal.Decimal, ("NaN",)),
    "date": _KeyType(sa.Date(), datetime.date.fromisoformat, dates.INFINITE),
    "timestamp": _KeyType(sa.DateTime(), datetime.datetime.fromisoformat, dates.INFINITE),
    "timestamptz": _KeyType(sa.DateTime(timezone=True), datetime.datetime.fromisoformat, dates.INFINITE),
}


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A table, or what a query gives, as of one moment. `types` are Postgres' names of the columns' types."""

    who: str
    what: str
    shown: str
    types: Mapping[str, str]
    scales: Mapping[str, tuple[int, int]]
    _connection: AsyncConnection
    _from: sa.FromClause
    _key: tuple[str, ...]

    async def pages(self, columns: Sequence[str]) -> AsyncGenerator[list[Row], None]:
        """All rows in the order of their keys, a page at a time; a page is of so many rows as a few megabytes hold."""
        names = list(dict.fromkeys([*self._key, *columns]))
        size, last = FIRST_PAGE, None
        await self._check_no_key_is_null()
        statement = self._select(names).order_by(*self._key_columns)
        while True:
            after = statement if last is None else statement.where(self._key_value > self._tuple(last))
            rows = await self._read(after.limit(size + 1), names)
            keys = [self.key_of(row) for row in rows]
            self._check_all_can_be_named(keys)
            for one, following in itertools.pairwise(keys):
                if one == following:
                    raise self.error(
                        f"has two rows with {self._shown_key(one)}",
                        "Give key= the columns that tell rows apart, such as those of the primary key.",
                    )
            page = rows[:size]
            if page:
                yield page
            if len(rows) <= size:
                return
            last, size = keys[len(page) - 1], _next_size(page)

    async def rows(self, keys: Sequence[Key], columns: Sequence[str]) -> AsyncGenerator[list[Row], None]:
        """The rows of these keys, as far as there are any; a page at a time, in the order of the keys given."""
        names = list(dict.fromkeys([*self._key, *columns]))
        start, size = 0, FIRST_PAGE
        while start < len(keys):
            some = keys[start : start + size]
            if len(self._key) == 1:
                array = sa.cast([one for (one,) in some], postgresql.ARRAY(self._key_types[0].type))
                wanted = self._key_value == sa.any_(array)
            else:
                some = some[:LARGEST_LIST]
                wanted = self._key_value.in_(some)
            found = {self.key_of(row): row for row in await self._read(self._select(names).where(wanted), names)}
            page = [found[key] for key in some if key in found]
            yield page
            start += len(some)
            size = _next_size(page) if page else size

    def key_of(self, row: Row) -> Key:
        """The values of a row's key."""
        # A numeric NaN, which in Python is not equal to itself, is one row's key as any other: its text stands for it.
        return tuple(part if (part := row[name]) == part else str(part) for name in self._key)

    def key_named(self, name: str) -> Key | None:
        """The key that `key_name` made this name of; None if it is none of this table."""
        parts = [name] if len(self._key) == 1 else [unquote(part) for part in name.split("/")]
        try:
            return tuple(kind.named(part) for kind, part in zip(self._key_types, parts, strict=True))
        except (ValueError, ArithmeticError):
            return None

    def require(self, columns: Collection[str], option: str) -> None:
        """Raise SourceError unless the table has these columns, which `option` asks for."""
        for name in columns:
            if name not in self._from.c:
                near = difflib.get_close_matches(name, self.types, n=1)
                hint = f"Did you mean {near[0]!r}?" if near else f"It has: {', '.join(self.types)}."
                raise self.error(f"has no column {name!r}, which {option} asks for", hint)

    def error(self, problem: str, hint: str | None = None) -> SourceError:
        """The sentence for something that is wrong with the table."""
        return SourceError(f"{self.who}: {self.what} of {self.shown} {problem}.", hint=hint)

    @property
    def _key_types(self) -> list[_KeyType]:
        return [KEY_TYPES[self.types[name]] for name in self._key]

    @property
    def _key_columns(self) -> list[sa.ColumnElement[Any]]:
        pairs = zip(self._key, self._key_types, strict=True)
        return [sa.type_coerce(self._from.c[name], kind.type) for name, kind in pairs]

    @property
    def _key_value(self) -> sa.ColumnElement[Any]:
        return self._key_columns[0] if len(self._key) == 1 else sa.tuple_(*self._key_columns)

    def _tuple(self, key: Key) -> sa.ColumnElement[Any]:
        values = [sa.literal(value, kind.type) for value, kind in zip(key, self._key_types, strict=True)]
        return values[0] if len(values) == 1 else sa.tuple_(*values)

    def _select(self, names: Sequence[str]) -> sa.Select[*tuple[Any, ...]]:
        return sa.select(*map(self._column, names))

    def _column(self, name: str) -> sa.Label[Any]:
        return sa.type_coerce(self._from.c[name], sa.types.NullType()).label(name)

    async def _read(self, statement: sa.Select[*tuple[Any, ...]], names: Sequence[str]) -> list[Row]:
        with _told(self.who, self.what, self.shown):
            try:
                found = await self._connection.execute(statement)
            except _UNREADABLE as error:
                raise await self._unreadable(statement, names, error) from None
            return [dict(zip(names, row, strict=True)) for row in found]

    async def _unreadable(
        self, statement: sa.Select[*tuple[Any, ...]], names: Sequence[str], error: Exception
    ) -> SourceError:
        """The sentence for a value that is none of Python's; its column is looked for, as the driver does not say which it is."""
        where = "has a value"
        for name in names:
            try:
                await self._connection.execute(statement.with_only_columns(self._column(name)))
            except _UNREADABLE as found:
                where, error = f"has a value in the column {name}", found
                break
        return self.error(
            f"{where} that cannot be read: {_first_line(error)}",
            "Leave the column out with columns=[...], or cast it in a query.",
        )

    def _check_all_can_be_named(self, keys: Sequence[Key]) -> None:
        """Raise SourceError for a date that Python does not have: its name would not lead back to it."""
        for at, (name, kind) in enumerate(zip(self._key, self._key_types, strict=True)):
            parts = (key[at] for key in keys if kind.texts)
            far = next((part for part in parts if isinstance(part, str) and part not in kind.texts), None)
            if far is not None:
                raise self.error(
                    f"has a row whose {name} is {far}, by which rows cannot be paged",
                    "Leave such rows out with a query, or cast the key to text there.",
                )

    async def _check_no_key_is_null(self) -> None:
        for name, column in zip(self._key, self._key_columns, strict=True):
            with _told(self.who, self.what, self.shown):
                found = await self._connection.execute(sa.select(sa.exists().where(column.is_(None))))
            if found.scalar_one():
                raise self.error(
                    f"has a row whose {name} is null, which is its key",
                    "Leave such rows out with a query, or choose another key=.",
                )

    def _shown_key(self, key: Key) -> str:
        return ", ".join(f"{name} = {plain(value)!r}" for name, value in zip(self._key, key, strict=True))


@asynccontextmanager
async def opened(who: str, root: Path, address: str, of: Any, key: tuple[str, ...]) -> AsyncIterator[Snapshot]:
    """A snapshot of a table, `schema.table`, a query, or a selectable of SQLAlchemy. Raises SourceError."""
    url = _url(who, root, address)
    shown = url.set(query={}).render_as_string(hide_password=True).replace("+asyncpg", "", 1)
    what = (f"the table {of}" if _is_name(of) else "the query") if isinstance(of, str) else "the selection"
    arguments = {"timeout": SECONDS_TO_CONNECT, "server_settings": {"application_name": "assetcore"}}
    async with AsyncExitStack() as stack:
        with _told(who, what, shown):
            engine = create_async_engine(
                url, poolclass=NullPool, connect_args=arguments, json_deserializer=_JSON.decode
            )
        stack.push_async_callback(engine.dispose)
        try:
            connection = await stack.enter_async_context(engine.connect())
        except Exception as error:  # whatever a driver, a resolver or TLS says
            raise _unreachable(who, shown, error) from None
        await connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        with _told(who, what, shown):
            from_, types, scales = await _described(who, shown, connection, of)
        snapshot = Snapshot(who, what, shown, types, scales, connection, from_, key)
        snapshot.require(key, "key=")
        for name in key:
            if types.get(name) not in KEY_TYPES:
                raise snapshot.error(
                    f"has a key {name} of type {types.get(name, name)}, by which rows cannot be paged",
                    f"A key is of one of: {', '.join(KEY_TYPES)}. Cast it in a query.",
                )
        yield snapshot


def key_name(key: Key) -> str:
    """The name of the document that a row is: its key, the parts of a composite one with slashes between."""
    if len(key) == 1:
        return str(plain(key[0]))
    return "/".join(quote(str(plain(part)), safe=" !\"#$&'()*+,-.:;<=>?@[]^_`{|}~") for part in key)


def plain(value: Any) -> Any:
    """A value of a row as JSON holds it; what JSON has no form for is text, exact and the same on every machine."""
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return value if value - value == 0 else str(value)
        case datetime.datetime() | datetime.date() | datetime.time():
            return value.isoformat()
        case bytes():
            return value.hex()
        case asyncpg.Path() if not isinstance(value, asyncpg.Polygon):
            return {"closed": value.is_closed, "points": plain(value.points)}
        case list() | tuple() | asyncpg.Polygon():
            return [plain(one) for one in value]
        case dict() | asyncpg.Record():
            return {str(name): plain(one) for name, one in value.items()}
        case asyncpg.Range():
            return "empty" if value.isempty else _range(value)
        case asyncpg.BitString():
            return value.as_string().replace(" ", "")
        case _:
            return str(value)


def _range(value: asyncpg.Range) -> str:
    """A range in the notation of Postgres, `[1,5)`; a bound that could be taken for something else is quoted."""

    def shown(bound: Any) -> str:
        text = str(plain(bound))
        return "" if bound is None else text if _UNAMBIGUOUS.fullmatch(text) else json.dumps(text)

    return (
        f"{'[' if value.lower_inc else '('}{shown(value.lower)},{shown(value.upper)}{']' if value.upper_inc else ')'}"
    )


def _number(text: str) -> float | str:
    """A number of JSON, where a float is this number, however many of its digits are written; otherwise its text."""
    number = float(text)
    if repr(number) == text:
        return number
    try:
        exact = decimal.Decimal(text)
    except ArithmeticError:  # an exponent of twenty digits
        return text
    digits = len(exact.as_tuple().digits)
    return number if exact in (decimal.Decimal(repr(number)), decimal.Decimal(f"{number:.{digits}g}")) else text


_JSON = json.JSONDecoder(parse_float=_number)
_UNREADABLE = (ValueError, ArithmeticError, RecursionError)
"""What the driver raises for a value that it cannot make one of Python's of."""


async def _described(
    who: str, shown: str, connection: AsyncConnection, of: Any
) -> tuple[sa.FromClause, dict[str, str], dict[str, tuple[int, int]]]:
    """What to select from, the type of each column, and the precision and scale of those numbers that have one."""
    scales: dict[str, tuple[int, int]] = {}
    if not isinstance(of, str):
        statement: Any = of
    elif _is_name(of):
        await _check_table(who, shown, connection, of)
        schema, _, name = of.rpartition(".")
        statement = sa.select(sa.literal_column("*")).select_from(sa.table(name, schema=schema or None))
        scales = await _scales(connection, of)
    else:
        # What follows begins a line of its own: the query may end in a comment.
        statement = sa.text(of.strip().rstrip(";").replace(":", "\\:") + "\n")
    await connection.execute(sa.select(1))  # from here on the snapshot stands
    raw: Any = (await connection.get_raw_connection()).driver_connection
    prepared = await raw.prepare(
        str(statement.compile(dialect=connection.dialect, compile_kwargs={"render_postcompile": True}))
    )
    types = {attribute.name: attribute.type.name for attribute in prepared.get_attributes()}
    for name in sorted(set().union(*(_dates_in(attribute.type) for attribute in prepared.get_attributes()))):
        codec = dates.CODECS[name]
        await raw.set_type_codec(name, schema="pg_catalog", encoder=codec.encode, decoder=codec.decode, format="tuple")
    columns = [sa.column(name) for name in types]
    if not isinstance(of, str):
        return of.subquery(), types, scales
    if _is_name(of):
        schema, _, name = of.rpartition(".")
        # Every row of a table has an xmin, which says the transaction that wrote it; it is selected only where it is asked for.
        return sa.table(name, *columns, sa.column("xmin"), schema=schema or None), types, scales
    return statement.columns(*columns).subquery("rows"), types, scales


def _dates_in(kind: asyncpg.Type) -> Collection[str]:
    """The types of dates and times that a value of this type can hold: each is one more question to the server."""
    element = kind.name.removesuffix("[]")
    if kind.kind == "scalar" or (
        kind.kind == "array" and kind.schema == "pg_catalog" and not element.endswith("range")
    ):
        return {element} & dates.CODECS.keys()
    return dates.CODECS.keys()


async def _check_table(who: str, shown: str, connection: AsyncConnection, of: str) -> None:
    if await _identifier(connection, of) is not None:
        return
    tables = sa.table("tables", sa.column("table_schema"), sa.column("table_name"), schema="information_schema")
    known = await connection.execute(
        sa.select(tables.c.table_schema, tables.c.table_name).where(
            tables.c.table_schema.not_in(["pg_catalog", "information_schema"])
        )
    )
    names = sorted(f"{schema}.{name}" if schema != "public" else name for schema, name in known)
    near = difflib.get_close_matches(of, names, n=1, cutoff=0.5)
    some = f"It has: {', '.join(names[:10])}{', ...' if len(names) > 10 else ''}." if names else "It has none."
    raise SourceError(
        f"{who} reads the table {of} of {shown}, which does not exist, or which its user may not see.",
        hint=f"Did you mean {near[0]!r}?" if near else some,
    )


async def _identifier(connection: AsyncConnection, of: str) -> int | None:
    """Postgres' own identifier of a table or view."""
    quoted = ".".join(connection.dialect.identifier_preparer.quote(part) for part in of.split("."))
    found = await connection.execute(sa.select(sa.cast(sa.func.to_regclass(quoted), postgresql.OID)))
    return found.scalar_one()


async def _scales(connection: AsyncConnection, of: str) -> dict[str, tuple[int, int]]:
    """Precision and scale of the columns of a table that are `numeric(p, s)`, as Postgres packs them into one number."""
    attributes = sa.table("pg_attribute", *(sa.column(n) for n in ("attrelid", "attname", "atttypid", "atttypmod")))
    found = await connection.execute(
        sa.select(attributes.c.attname, attributes.c.atttypmod).where(
            attributes.c.attrelid == sa.cast(await _identifier(connection, of), postgresql.OID),
            attributes.c.atttypid == NUMERIC,
            attributes.c.atttypmod > 3,
        )
    )
    return {name: ((packed - 4) >> 16 & 0xFFFF, (packed - 4) & 0x7FF) for name, packed in found}


def _is_name(of: str) -> bool:
    """Whether a text names a table rather than being a query."""
    return not any(letter.isspace() for letter in of.strip())


def _next_size(page: Sequence[Row]) -> int:
    """How many rows make a page, if they are as large as these."""
    size, held = 0, [value for row in page for value in row.values()]
    while held:
        match held.pop():
            case str() | bytes() as text:
                size += len(text)
            case list() | tuple() as members:
                held += members
            case dict() as members:
                held += members
                held += members.values()
            case _:
                size += 16
    return max(1, min(LARGEST_PAGE, PAGE_BYTES * len(page) // max(size, 1)))


def _url(who: str, root: Path, address: str) -> sa.URL:
    """The address, which is given as such, or is that of an environment variable, of `.env`, or of the setting `database_url`."""
    given: Any = address
    where = "table(...)"
    if address == "database_url":
        where, given = address, Settings.load(root).database_url
        if not given:
            raise SourceError(
                f"{who} reads the database of the setting database_url, which is not set: the embedded one has no address to name.",
                hint='Set DATABASE_URL, or name a variable of your own, such as table("SHOP_URL", ...), and set that.',
            )
    elif "://" not in address and not _KEYWORD.match(address):
        file = root / ".env"
        given = os.environ.get(address) or (dotenv_values(file).get(address) if file.is_file() else None)
        where = address
        if not given:
            raise SourceError(
                f"{who} reads the database {address}, but there is no environment variable of that name, and none in {file}.",
                hint=f"Set it: export {address}=postgresql://user:password@host:5432/database",
            )
    try:
        url = _of_keywords(given) if _KEYWORD.match(given) else sa.make_url(str(postgres_url(given)))
        if "@" in (url.host or ""):
            raise ValueError
        int(url.port or 0)
    except (ValueError, ArgumentError):
        raise SourceError(
            f"{who} reads a database whose address in {where} is none of Postgres.",
            hint="It is postgresql://user:password@host:5432/database, where @ in a password is written %40 and / is %2F; "
            "or host=... dbname=... user=... password=...",
        ) from None
    return url


def _of_keywords(text: str) -> sa.URL:
    """An address in libpq's keyword form (PostgreSQL, 32.1.1.1): values with spaces are quoted, a backslash stands before ' and \\.

    Several hosts, and a socket's folder, stay beside the address, as in a URL. Raises ValueError, without the text.
    """
    given: dict[str, str] = {}
    at = 0
    while at < len(text):
        found = _KEYWORD.match(text, at)
        if found is None:
            raise ValueError
        given[found[1]] = re.sub(r"\\(.)", r"\1", found[2] or found[3] or "", flags=re.DOTALL)
        at = found.end()
    host = given.pop("host", "") or given.pop("hostaddr", "")
    if "hostaddr" in given:  # the name is for TLS then, and the driver has one for both
        raise ValueError
    if "sslmode" in given:
        given["ssl"] = given.pop("sslmode")
    user, password, database = (given.pop(name, None) for name in ("user", "password", "dbname"))
    url = sa.URL.create("postgresql+asyncpg", user, password, database=database)
    if "," in host or host.startswith("/"):
        return url.set(query={**given, "host": host})
    port = given.pop("port", "")
    return url.set(host=host or None, port=int(port) if port else None, query=given)


@contextmanager
def _told(who: str, what: str, shown: str) -> Iterator[None]:
    """What Postgres says, as a SourceError; never with the statement, whose values are the user's data."""
    try:
        yield
    except (SQLAlchemyError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
        cause = _cause(error)
        hint = {
            "42501": "Its user needs: GRANT SELECT, and USAGE on the schema.",
            "42601": "Correct the query.",
            "42703": "Correct the name of the column.",
            "42P01": "Correct the name of the table.",
            "57014": "The server, or somebody, cancelled the statement: an index on the key makes pages fast.",
            "25P03": "The server ends transactions that rest; raise idle_in_transaction_session_timeout for this user.",
        }.get(getattr(cause, "sqlstate", None) or "", "Plan again when the database is well.")
        raise SourceError(f"{who} cannot read {what} of {shown}: {_first_line(cause)}.", hint=hint) from None


def _unreachable(who: str, shown: str, error: Exception) -> SourceError:
    cause = _cause(error)
    hint = {
        "28P01": "Correct the password in the address.",
        "28000": "Correct the user in the address.",
        "3D000": "Correct the name of the database in the address.",
        "53300": "Plan again when it has connections to spare.",
    }.get(getattr(cause, "sqlstate", None) or "", "Is the server there, and may this machine connect to it?")
    return SourceError(f"{who} cannot connect to {shown}: {_first_line(cause)}.", hint=hint)


def _cause(error: BaseException) -> BaseException:
    """What the driver said, without what SQLAlchemy put around it."""
    while (inner := getattr(error, "orig", None) or error.__cause__) is not None and inner is not error:
        error = inner
    return error


def _first_line(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return f"it does not answer within {SECONDS_TO_CONNECT} s"
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
