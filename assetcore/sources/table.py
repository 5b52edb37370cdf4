"""Table: what documents do the rows of a table in Postgres make, and which of them have changed?

A row is a document, named by its key: its typed fields are the columns of their names, its content is one column, or the row as
JSON. Or the whole table is one document, a Parquet file. Where a column says which version a row is (`version=`), only rows with
another version are read; otherwise all are read and hashed. A row that is not there any more is a document that is gone.
"""

from __future__ import annotations

import hashlib
import sys
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, ClassVar

import polars as pl

from assetcore.assets import Source
from assetcore.digest import short_digest
from assetcore.documents import PARQUET, Document, field_digests
from assetcore.errors import AssetcoreError, DeclarationError, SourceError
from assetcore.sources.observed import OBSERVED, Rows

if TYPE_CHECKING:
    from assetcore.sources.postgres import Row, Snapshot

__all__ = ["DatabaseTable", "table"]

JSON_TYPES = ("json", "jsonb")


def table(
    address: str,
    of: Any,
    *,
    key: str | Sequence[str],
    content: str | None = None,
    columns: Sequence[str] | None = None,
    version: str | None = None,
    as_frame: bool = False,
    media_type: str | None = None,
) -> DatabaseTable:
    """The rows of a table in Postgres; each is a document named by its key.

    address     the name of an environment variable with the address (also one in `.env` beside projects/), or `database_url` for that of
                the setting, or the address itself: postgresql://user:password@host:5432/database, or in libpq's keyword form,
                "host=... dbname=... user=... password=..."
    of          a table or view, `name` or `schema.name`; a query, "select ..."; or a selectable of SQLAlchemy
    key         the column that tells rows apart, or several; whole numbers, text, uuid, numeric, date or timestamps
    content     the column that is the content: text, bytea or json. Without it, the content is the row as JSON
    columns     those of the JSON, or of the frame; all but `version` by default
    version     a column that has another value whenever a row has changed, such as `updated_at`; or "xmin", which every table has.
                Rows with the version that is known are not read. Without it every look reads all rows, and hashes them
    as_frame    one document instead of one a row: the whole table, which is handed over as a frame (`rows: pl.DataFrame = each(sales)`)
    media_type  of all documents; otherwise by the class, then by the column

    A field of the Document class takes the column of its name. What Python does not hold exactly is text: an infinite date, one before
    Christ or after the year 9999, a span in months, a number of JSON that no float is. All is read in one snapshot, in pages by key: an
    index on the key makes a page cheap. A password never leaves the address.
    """
    place = f"{sys._getframe(1).f_code.co_filename}:{sys._getframe(1).f_lineno}"
    keys = (key,) if isinstance(key, str) else tuple(key)
    texts = {"content": content, "version": version, "media_type": media_type}
    problem = next(
        (f"{n}= takes a text, found {v!r}" for n, v in texts.items() if v is not None and not _is_text(v)), None
    )
    if not _is_text(address):
        problem = "the first parameter is an address, or the name of an environment variable that has one"
    elif not _is_text(of) and not hasattr(of, "subquery"):
        problem = f"the second parameter is the name of a table, or a query; found {of!r:.100}"
    elif not keys or not all(map(_is_text, keys)):
        problem = f"key= takes the name of a column, or a list of them; found {key!r}"
    elif isinstance(columns, str) or not all(map(_is_text, columns or ())):
        problem = f"columns= takes a list of names, found {columns!r}"
    elif as_frame and (content is not None or media_type is not None):
        problem = "as_frame=True makes one Parquet document: it has no content= and no media_type="
    elif content is not None and columns is not None:
        problem = "columns= are those of the JSON that content= replaces: give one of them"
    if problem:
        raise DeclarationError(
            f"{place}: table(...): {problem}.",
            hint='Write table("SHOP_DATABASE_URL", "articles", key="id", content="body").',
        )
    return DatabaseTable(
        address, of, keys, content, None if columns is None else tuple(columns), version, as_frame, media_type
    )


@dataclass(frozen=True)
class DatabaseTable:
    """Where a source's documents come from; made by `table`."""

    address: str = field(repr=False)
    of: Any
    key: tuple[str, ...]
    content: str | None = None
    columns: tuple[str, ...] | None = None
    version: str | None = None
    as_frame: bool = False
    media_type: str | None = None
    fills_fields: ClassVar[bool] = True
    """The fields of a document take what is in columns, and need no defaults."""

    async def observe(
        self, source: Source, root: Path, known: pl.DataFrame | None, *, rehash: bool = False
    ) -> pl.DataFrame:
        """The rows as they are now, all of one moment; see `sources.observe`."""
        before = pl.DataFrame(schema=OBSERVED) if known is None or rehash else known
        rows = Rows()
        async with self._opened(source, root) as snapshot:
            if self.as_frame:
                await self._observe_frame(source, snapshot, before, rows)
            else:
                await self._observe_rows(source, snapshot, before, rows)
        return rows.frame(source, None if rehash else known)

    async def documents(self, source: Source, root: Path, names: Collection[str]) -> AsyncIterator[Document]:
        """Read these rows, all as of one moment; see `sources.documents`."""
        wanted = sorted(set(names))
        unread = set(wanted)
        if not wanted:
            return
        async with self._opened(source, root) as snapshot:
            read = self._read_frame if self.as_frame else self._read_rows
            async with aclosing(read(source, snapshot, wanted)) as documents:
                async for document in documents:
                    unread.discard(document.name)
                    yield document
        if unread:
            shown = ", ".join(sorted(unread)[:5]) + (f" and {len(unread) - 5} more" if len(unread) > 5 else "")
            raise SourceError(
                f"{source.name}: {len(unread)} of {len(wanted)} rows are gone since they were observed: {shown}.",
                hint="Plan again: what is gone is then known to be gone.",
            )

    def _opened(self, source: Source, root: Path) -> AbstractAsyncContextManager[Snapshot]:
        from assetcore.sources import postgres  # SQLAlchemy takes 0.2 s, and whoever declares a table reads none yet

        return postgres.opened(source.name, root, self.address, self.of, self.key)

    # -- a document a row ------------------------------------------------------------------------------------------------------

    async def _observe_rows(self, source: Source, snapshot: Snapshot, known: pl.DataFrame, rows: Rows) -> None:
        form = _Form(self, source, snapshot)

        def add(row: Row) -> None:
            document = form.document(row)
            fields = field_digests(document.field_values())
            size, sha256 = len(document.content), document.sha256
            rows.add(document.name, size, document.media_type, sha256, fields, form.validator(row))

        if self.version is None or not known.height:
            async for page in snapshot.pages(form.columns):
                for row in page:
                    add(row)
            return
        async for page in snapshot.pages([self.version]):
            now = {"name": [form.name(row) for row in page], "validator": [form.validator(row) for row in page]}
            schema = {"name": pl.String(), "validator": pl.String()}
            same = pl.DataFrame(now, schema=schema).join(known, on=["name", "validator"], how="inner")
            facts = ("name", "size", "media_type", "sha256", "fields", "validator")
            for fact in same.select(facts).iter_rows():
                rows.add(*fact)
            unchanged = set(same["name"])
            changed = [snapshot.key_of(r) for r, n in zip(page, now["name"], strict=True) if n not in unchanged]
            async for part in snapshot.rows(changed, form.columns):
                for row in part:
                    add(row)

    async def _read_rows(
        self, source: Source, snapshot: Snapshot, names: Sequence[str]
    ) -> AsyncGenerator[Document, None]:
        form = _Form(self, source, snapshot)
        keys = [key for name in names if (key := snapshot.key_named(name)) is not None]
        async for page in snapshot.rows(keys, form.columns):
            for row in page:
                yield form.document(row)

    # -- one document, the whole table -----------------------------------------------------------------------------------------

    async def _observe_frame(self, source: Source, snapshot: Snapshot, known: pl.DataFrame, rows: Rows) -> None:
        validator = None
        if self.version is not None:
            validator = await self._version_of_all(snapshot)
            same = known.filter(pl.col("name") == source.name, pl.col("validator") == validator)
            for fact in same.select("name", "size", "media_type", "sha256", "fields", "validator").iter_rows():
                rows.add(*fact)
                return
        with tempfile.TemporaryFile(prefix="assetcore-") as file:
            await self._write(source, snapshot, file)
            size = file.tell()
            file.seek(0)
            sha256 = hashlib.file_digest(file, "sha256").digest()
        fields = field_digests(source.type(name="defaults", content=b"").field_values())
        rows.add(source.name, size, self._parquet(source), sha256, fields, validator)

    async def _read_frame(
        self, source: Source, snapshot: Snapshot, names: Sequence[str]
    ) -> AsyncGenerator[Document, None]:
        if source.name not in names:
            return
        with tempfile.TemporaryFile(prefix="assetcore-") as file:
            await self._write(source, snapshot, file)
            file.seek(0)
            content = file.read()
        yield source.type(name=source.name, content=content, media_type=self._parquet(source))

    async def _write(self, source: Source, snapshot: Snapshot, file: IO[bytes]) -> None:
        from assetcore.sources import parquet  # pyarrow takes 0.1 s, and most tables are no frames

        columns = self._shown_columns(snapshot)
        await parquet.write(file, snapshot, columns)

    async def _version_of_all(self, snapshot: Snapshot) -> str:
        """The version of a whole table: one digest over the keys and versions of all its rows."""
        assert self.version is not None
        snapshot.require([self.version], "version=")
        digest = hashlib.sha256(short_digest("table", self._shown_columns(snapshot), snapshot.types))
        async for page in snapshot.pages([self.version]):
            for row in page:
                digest.update(short_digest("row", [str(part) for part in (*snapshot.key_of(row), row[self.version])]))
        return digest.hexdigest()

    def _parquet(self, source: Source) -> str:
        return source.type.fixed_media_type or PARQUET

    def _shown_columns(self, snapshot: Snapshot) -> list[str]:
        """The columns of the JSON, or of the frame."""
        snapshot.require(self.columns or (), "columns=")
        return list(self.columns or (name for name in snapshot.types if name != self.version))


class _Form:
    """How a row becomes a document, given the columns that there are."""

    def __init__(self, table: DatabaseTable, source: Source, snapshot: Snapshot) -> None:
        from assetcore.sources import postgres

        self._postgres = postgres
        self._table = table
        self._type = source.type
        self._snapshot = snapshot
        self._shown = table._shown_columns(snapshot) if table.content is None else [table.content]
        snapshot.require(self._shown, "content=")
        snapshot.require([table.version] if table.version else [], "version=")
        required = [name for name, info in source.type.model_fields.items() if info.is_required()]
        self._fields = [name for name in source.type.field_names() if name in snapshot.types or name in required]
        snapshot.require(self._fields, f"the class {source.type.__name__}")
        wanted = [*table.key, *self._fields, *self._shown, *([table.version] if table.version else [])]
        self.columns = list(dict.fromkeys(wanted))
        # What a version stands for is the document that was made of the row: with other columns it is another one.
        annotations = {name: str(source.type.model_fields[name].annotation) for name in source.type.field_names()}
        made_of = [
            table.content,
            self._shown,
            annotations,
            table.media_type,
            source.type.fixed_media_type,
            table.version,
        ]
        self._digest = short_digest("row", made_of).hex()

    def name(self, row: Row) -> str:
        """The name of a row's document."""
        return self._postgres.key_name(self._snapshot.key_of(row))

    def validator(self, row: Row) -> str | None:
        """What a row has as long as it says the same; None where there is no telling."""
        version = row[self._table.version] if self._table.version else None
        return None if version is None else f"{self._digest} {version}"

    def document(self, row: Row) -> Document:
        """The document that a row is. Raises SourceError, naming the row and the column."""
        name = self.name(row)
        fields = {field: row[field] for field in self._fields}
        try:
            return self._type(name=name, media_type=self._table.media_type or "", **self._content(name, row), **fields)
        except AssetcoreError as error:
            if isinstance(error, SourceError):
                raise
            types = ", ".join(f"{field} is {self._snapshot.types[field]}" for field in self._fields)
            raise self._snapshot.error(
                f"has the row {name!r}, which is no document: {error.message.rstrip('.')}",
                f"Its columns: {types}. Change the class, or cast in a query." if types else None,
            ) from None
        except RecursionError:
            raise self._snapshot.error(
                f"has the row {name!r}, whose JSON is nested too deep",
                "Leave the column out with columns=[...], or cast it to text in a query.",
            ) from None

    def _content(self, name: str, row: Row) -> dict[str, Any]:
        column = self._table.content
        if column is None:
            return {"data": {shown: self._postgres.plain(row[shown]) for shown in self._shown}}
        value = row[column]
        match value:
            case None:
                raise self._snapshot.error(
                    f"has the row {name!r}, whose content {column} is null",
                    "Leave such rows out with a query, or give it a value there: coalesce(...).",
                )
            case bytes():
                return {"content": value}
            case _ if self._snapshot.types[column] in JSON_TYPES:
                return {"data": self._postgres.plain(value)}
            case _:
                return {"text": str(self._postgres.plain(value))}


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())
