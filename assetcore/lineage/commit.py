"""Commit: how does what was made become what an asset is?

The order of a commit is bytes, manifest, one transaction: a crash in between leaves bytes that nobody knows, never lineage without
bytes. The transactions of one project follow each other (they hold the project's row), so commit numbers grow in the order in
which readers see them. A commit compares what it started from: where another run has made one of its units meanwhile, nothing of
it is written and `Overtaken` is raised; the caller judges again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple

import polars as pl
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, BYTEA, REGCLASS, insert
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.schema import ExecutableDDLElement

from assetcore.fingerprint import Part
from assetcore.lineage import schema
from assetcore.lineage import tables as t
from assetcore.lineage.asking import among, one_of
from assetcore.lineage.heads import Loan, take_over
from assetcore.lineage.looks import LastLook
from assetcore.lineage.read import intact
from assetcore.staleness import Definition
from assetcore.storage import Key

__all__ = [
    "Batch", "Checked", "Committed", "Failed", "Made", "NewDocument", "NewObject", "Overtaken", "Reused", "Seen", "Settled", "allocate",
    "allocate_all", "analyze", "commit", "commit_all", "copy", "find_definitions", "keep_checked", "keep_definitions",
    "keep_observation", "keep_types", "settle", "settle_all", "stated",
]  # fmt: skip


LARGE = (t.document, t.materialization, t.edge, t.head, t.collected)
FEW_OF = 10
"""Fewer than one in so many are few: Postgres by itself looks again at a table of which a tenth has changed."""


class Overtaken(Exception):
    """Another run has made some of these units since they were judged."""


@dataclass(frozen=True, slots=True)
class NewObject:
    """An object that was written to the bucket for this commit."""

    id: int
    key: Key
    size: int
    rows: int | None
    sha256: bytes | None = None


class NewDocument(NamedTuple):
    """A version of a document that was not there before; a tuple in the order of manifests, because they are many."""

    id: int
    address: bytes
    name: str
    type: str
    media_type: str
    size: int
    sha256: bytes
    field_digests: bytes
    identity: bytes
    object: int
    row: int | None
    fields: Mapping[str, Any] | None


class Seen(NamedTuple):
    """How a source showed a document when it was taken in: with this, it need not be read again to know that it is the same."""

    mtime_ns: int
    inode: int
    validator: str | None


class Made(NamedTuple):
    """A unit that was executed (or taken in, for a source); a tuple, as the documents.

    `documents` are all it made, old versions and new ones, in order. Where it is not `current`, it is only known: its unit stays what
    it was. `excerpts` say of documents of which others they are part: document, whole, kind, start, end, pointer.
    """

    id: int
    unit: bytes
    label: str
    parent: str | None
    inputs: bytes
    documents: tuple[int, ...]
    new: tuple[NewDocument, ...]
    edges: tuple[tuple[int, int], ...]
    collected: tuple[tuple[int, int, int], ...]
    seconds: float
    was: int | None
    changed: bool
    current: bool = True
    seen: Seen | None = None
    excerpts: tuple[tuple[int, int, str, int | None, int | None, str | None], ...] = ()

    @property
    def given(self) -> int | None:
        """The document that was given for the first parameter, where that was one."""
        first = {document for parameter, document in self.edges if parameter == 0}
        return first.pop() if len(first) == 1 else None

    @property
    def further(self) -> list[tuple[int, int]]:
        """The other edges, each once."""
        given = self.given
        return [edge for edge in dict.fromkeys(self.edges) if edge != (0, given)]


@dataclass(frozen=True, slots=True)
class Reused:
    """A unit that becomes what an earlier materialization with the same recipe was."""

    unit: bytes
    label: str
    materialization: int
    was: int | None
    changed: bool = True


@dataclass(frozen=True, slots=True)
class Failed:
    """A unit whose attempt failed."""

    unit: bytes
    label: str
    inputs: bytes
    error: str
    traceback: str


@dataclass(frozen=True, slots=True)
class Checked:
    """What a check said of a materialization, or of an asset as of a commit."""

    subject: int
    check: int
    status: str
    blocking: bool
    message: str = ""
    traceback: str = ""


@dataclass(frozen=True, slots=True)
class Committed:
    """A commit's number, and that of the asset's commit before it (0 for none)."""

    number: int
    after: int


class Settled(NamedTuple):
    """An asset of which every unit was found fresh: under which conditions, how much of it there is, and as of which commit."""

    asset: int
    settled: Mapping[str, Any]
    units: int
    documents: int
    last: int


@dataclass(frozen=True, slots=True)
class Batch:
    """One commit: what changes of one asset in one environment.

    `number` is that of the block of identifiers it took: known before Postgres is told, so that the manifest, which is named by it,
    and those that collect the asset later can say which commit they mean. `spent` says of those materializations that cost
    something how many tokens and US dollars.
    """

    number: int

    project: int
    environment: int
    asset: int
    definition: int
    run: str
    manifest: Key
    made: tuple[Made, ...] = ()
    reused: tuple[Reused, ...] = ()
    removed: tuple[tuple[bytes, int | None], ...] = ()
    failed: tuple[Failed, ...] = ()
    objects: tuple[NewObject, ...] = ()
    at: datetime = field(default_factory=lambda: datetime.now(UTC))
    spent: tuple[tuple[int, int, float, int, str], ...] = ()
    checked: tuple[Checked, ...] = ()

    @property
    def changes(self) -> bool:
        """Whether the asset's documents change."""
        return bool(self.removed or any(r.changed for r in self.reused) or any(m.changed for m in self.become))

    @property
    def excerpts(self) -> list[tuple[int, int, int, str, int | None, int | None, str | None]]:
        """Which documents are part of which others: the rows of the table."""
        return [(m.id, *excerpt) for m in self.made for excerpt in m.excerpts]

    @property
    def become(self) -> tuple[Made, ...]:
        """The units that were executed and are what they made from now on."""
        return tuple(m for m in self.made if m.current)

    @property
    def heads(self) -> list[tuple[bytes, int]]:
        """Which materialization units are from now on."""
        return [(m.unit, m.id) for m in self.become] + [(r.unit, r.materialization) for r in self.reused]

    @property
    def was(self) -> dict[bytes, int | None]:
        """Which materialization every unit that changes was when it was judged; None where it was nothing."""
        judged = {m.unit: m.was for m in self.become} | {r.unit: r.was for r in self.reused}
        return judged | dict(self.removed)


async def allocate(connection: AsyncConnection) -> int:
    """The first of a block of 2**20 identifiers."""
    [base] = await allocate_all(connection, 1)
    return base


async def allocate_all(connection: AsyncConnection, count: int) -> list[int]:
    """The firsts of so many blocks of 2**20 identifiers."""
    blocks = sa.select(t.block.next_value()).select_from(sa.func.generate_series(1, count))
    return [int(block) << 20 for block in (await connection.execute(blocks)).scalars()]


def stated(definition: Definition) -> dict[str, Any]:
    """A definition as it is kept: each component with its digest and what it was made of."""
    return {n: {"digest": c.digest.hex(), "detail": c.detail} for n, c in definition.components.items()}


async def find_definitions(connection: AsyncConnection, wanted: Mapping[int, Definition]) -> dict[int, int]:
    """The identifiers of these definitions, by asset; none where it is new."""
    d = t.definition.c
    digests = {asset: definition.digest for asset, definition in wanted.items()}
    rows = await connection.execute(
        sa.select(d.asset_id, d.digest, d.id).where(
            among(d.asset_id, digests, sa.Integer), among(d.digest, set(digests.values()), BYTEA)
        )
    )
    return {asset: identifier for asset, digest, identifier in rows if digests[asset] == digest}


async def keep_definitions(
    connection: AsyncConnection, new: Mapping[int, Definition], parts: Iterable[Part]
) -> dict[int, int]:
    """The identifiers of these definitions, by asset, which are written where they are new, with the sources of their parts."""
    values = [{"asset_id": a, "digest": d.digest, "facts": stated(d)} for a, d in sorted(new.items())]
    await connection.execute(insert(t.definition).on_conflict_do_nothing(), values)
    rows = [{"digest": digest, "source": part.source} for digest, part in sorted({p.digest: p for p in parts}.items())]
    if rows:  # in one order for all, so that none waits for another that waits for it
        await connection.execute(insert(t.part).on_conflict_do_nothing(), rows)
    return await find_definitions(connection, new)


async def commit(connection: AsyncConnection, batch: Batch) -> Committed:
    """Write one batch. The caller's transaction is committed by the caller."""
    [done] = await commit_all(connection, [batch])
    return done


async def commit_all(connection: AsyncConnection, batches: Sequence[Batch]) -> list[Committed]:
    """Write batches of one environment, each of another asset, in as many statements as one takes.

    The caller's transaction is committed by the caller. Where one of them was overtaken, nothing of any is written.
    """
    project, environment = batches[0].project, batches[0].environment
    types = await keep_types(connection, {(d.type, d.media_type) for b in batches for m in b.made for d in m.new})
    await connection.execute(sa.select(t.project.c.id).where(t.project.c.id == project).with_for_update(key_share=True))
    lent = await take_over(connection, environment, {b.asset: b.number for b in batches})
    await _supersede(connection, environment, batches)
    await _still_there(connection, batches)
    await connection.execute(
        sa.insert(t.commit),
        [
            {"id": b.number, "project_id": project, "environment_id": environment, "asset_id": b.asset, "run_id": b.run,
             "manifest": b.manifest, "at": b.at}
            for b in batches
        ],
    )  # fmt: skip
    await _copy(
        connection,
        t.object_,
        [(o.id, b.asset, o.key, o.size, o.rows, o.sha256, None) for b in batches for o in b.objects],
    )
    await _copy(
        connection, t.document,
        [(d.id, m.id, d.object, d.size, b.asset, types[d.type, d.media_type], d.row, d.address, d.name, d.sha256, d.field_digests,
          d.identity)
         for b in batches for m in b.made for d in m.new],
    )  # fmt: skip
    await _copy(
        connection, t.materialization,
        [(m.id, m.given, b.asset, b.definition, m.seconds, m.unit, m.label, m.parent, m.inputs,
          None if m.documents == (m.id - 1,) else m.documents)
         for b in batches for m in b.made],
    )  # fmt: skip
    made = [m for b in batches for m in b.made]
    typed = [(d.id, schema.to_json(d.fields)) for m in made for d in m.new if d.fields is not None]
    await _copy(connection, t.typed, typed)
    await _copy(connection, t.edge, [(m.id, document, parameter) for m in made for parameter, document in m.further])
    await _copy(connection, t.collected, _collected(environment, made, lent))
    await _copy(connection, t.spent, [row for b in batches for row in b.spent])
    await _copy(connection, t.excerpt, [row for b in batches for row in b.excerpts])
    heads = [(m, b.number, None, environment, b.asset, unit) for b in batches for unit, m in b.heads]
    await _copy(connection, t.head, heads)
    await _note_failures(connection, environment, batches)
    for batch in batches:
        await keep_checked(connection, batch.run, batch.checked)
    return await _move_watermarks(connection, environment, batches)


class _Analyze(ExecutableDDLElement):
    """Have Postgres look at what is in these tables."""

    inherit_cache = False


@compiles(_Analyze)
def _analyze(element: _Analyze, compiler: Any, **_: Any) -> str:
    return "ANALYZE " + ", ".join(compiler.preparer.format_table(table) for table in LARGE)


async def analyze(connection: AsyncConnection, written: int | None = None) -> None:
    """After many rows were written: Postgres looks at them now, not in a minute, so that the next questions are answered by index.

    Given how many units were `written`, not where they are few among those of which it knows: that changes no answer.
    """
    if written is not None:
        tables = sa.table("pg_class", sa.column("oid"), sa.column("reltuples"))
        known = sa.select(tables.c.reltuples).where(tables.c.oid == sa.cast(t.head.name, REGCLASS))
        if written * FEW_OF < (await connection.execute(known)).scalar_one():
            return
    await connection.execute(_Analyze())


async def settle(
    connection: AsyncConnection,
    environment: int,
    asset: int,
    settled: Mapping[str, Any],
    *,
    units: int,
    documents: int,
    last: int,
) -> None:
    """Note that every unit of an asset was found fresh under these conditions, unless it was committed to after `last`."""
    await settle_all(connection, environment, [Settled(asset, settled, units, documents, last)])


async def settle_all(connection: AsyncConnection, environment: int, found: Sequence[Settled]) -> None:
    """Note of assets that every unit was found fresh, unless they were committed to after what was found.

    Failures that are still noted are those of units that are not wanted any more, or that have been mended: they are forgotten.
    """
    w, f, statement = t.watermark, t.failure.c, insert(t.watermark)
    new = statement.excluded
    noted = await connection.execute(
        statement.on_conflict_do_update(
            index_elements=["environment_id", "asset_id"],
            set_={"settled": new.settled, "units": new.units, "documents": new.documents},
            where=w.c.last_commit == new.last_commit,
        ).returning(w.c.asset_id),
        [
            {"environment_id": environment, "asset_id": one.asset, "changed_commit": 0, "last_commit": one.last,
             "settled": dict(one.settled), "units": one.units, "documents": one.documents}
            for one in sorted(found, key=lambda one: one.asset)
        ],
    )  # fmt: skip
    assets = list(noted.scalars())
    if assets:
        await connection.execute(
            sa.delete(t.failure).where(f.environment_id == environment, one_of(f.asset_id, assets))
        )


async def keep_types(connection: AsyncConnection, wanted: Set[tuple[str, str]]) -> Mapping[tuple[str, str], int]:
    """The identifiers of these types (class and media type) of documents, which are written where they are new.

    Commits ask for the same few again and again: a connection remembers what was there before its transaction wrote anything.
    """
    memory = (await connection.get_raw_connection()).info
    known: dict[tuple[str, str], int] = memory.get(t.document_type.name, {})
    if known.keys() >= wanted:
        return known
    k, wrote_nothing = t.document_type.c, sa.func.pg_current_xact_id_if_assigned().is_(None)
    every = sa.select(k.type, k.media_type, k.id, wrote_nothing)
    rows = (await connection.execute(every)).all()
    if rows and rows[0][-1]:
        memory[t.document_type.name] = {(name, media_type): identifier for name, media_type, identifier, _ in rows}
    if new := wanted - {(name, media_type) for name, media_type, *_ in rows}:
        values = [{"type": name, "media_type": media_type} for name, media_type in sorted(new)]
        await connection.execute(insert(t.document_type).on_conflict_do_nothing(), values)
        rows = (await connection.execute(every)).all()
    return {(name, media_type): identifier for name, media_type, identifier, _ in rows}


async def keep_checked(connection: AsyncConnection, run: str, checked: Sequence[Checked]) -> None:
    """Write what checks said, in the place of what they said of the same before."""
    if checked:
        r, now = t.check_result.c, datetime.now(UTC)
        again = sa.tuple_(r.subject, r.check_id).in_(
            sa.select(
                sa.func.unnest(sa.cast([c.subject for c in checked], ARRAY(sa.BigInteger))),
                sa.func.unnest(sa.cast([c.check for c in checked], ARRAY(sa.Integer))),
            )
        )
        await connection.execute(sa.delete(t.check_result).where(again))
        await _copy(
            connection, t.check_result,
            [(c.subject, c.check, c.status, c.blocking, c.message or None, c.traceback or None, run, now) for c in checked],
        )  # fmt: skip


async def keep_observation(
    connection: AsyncConnection,
    asset: int,
    before: LastLook | None,
    known: pl.DataFrame,
    observed: pl.DataFrame,
    glance: bytes | None,
    identities: bytes,
) -> None:
    """Remember a look at a source; of what was observed only the rows are written that differ from what was `known`.

    `glance` tells of a later glance that nothing has changed, and is None where that cannot be told. Where somebody else has looked
    since the look `before`, with which `known` was read or earlier, that one stays remembered, and no glance tells anything of it: what
    two have seen is never mixed.
    """
    o, k = t.observation, t.look
    await connection.execute(
        sa.select(t.asset.c.id).where(t.asset.c.id == asset).with_for_update(key_share=True)
    )  # one look at a time
    last = (await connection.execute(sa.select(k.c.looks).where(k.c.asset_id == asset))).scalar_one_or_none() or 0
    alone = last == (0 if before is None else before.looks)
    told = {
        "looks": last + 1,
        "documents": observed.height,
        "glance": glance if alone else None,
        "observed": identities,
    }
    await connection.execute(
        insert(k).values(asset_id=asset, **told).on_conflict_do_update(index_elements=["asset_id"], set_=told)
    )
    if not alone or observed.equals(known):
        return
    changed, gone = observed, list[str]()
    if known.height:
        changed = observed.join(known, on=observed.columns, how="anti", nulls_equal=True)
        gone = known.join(observed, on=known.columns, how="anti", nulls_equal=True)["name"].to_list()
    if gone:
        await connection.execute(
            sa.delete(o).where(o.c.asset_id == asset, among(o.c.name, "gone", sa.Text)), {"gone": gone}
        )
    if changed.height:
        await copy(connection, o, ((asset, *row) for row in changed[known.columns].iter_rows()))


def _collected(
    environment: int, made: Iterable[Made], lent: Mapping[int, Loan]
) -> list[tuple[int, int, int, int, int]]:
    """The whole assets that units were given, each in the environment that held it: the lender, where it was borrowed."""
    collected = [(m.id, *one) for m in made for one in m.collected]
    return [
        (m, parameter, asset, lent[asset].lender if asset in lent else environment, at)
        for m, parameter, asset, at in collected
    ]


def _these(table: sa.Table, pairs: Collection[tuple[int, bytes]]) -> sa.ColumnElement[bool]:
    """These units, each of its asset. Of a single asset, whose batch may be large, Postgres looks up an array by index."""
    assets, units = [asset for asset, _ in pairs], [unit for _, unit in pairs]
    asset, unit = table.c.asset_id, table.c.unit
    if len(set(assets)) == 1:
        return sa.and_(asset == assets[0], among(unit, units, t.Address))
    every = sa.select(
        sa.func.unnest(sa.cast(assets, ARRAY(sa.Integer))), sa.func.unnest(sa.cast(units, ARRAY(t.Address)))
    )
    return sa.tuple_(asset, unit).in_(every)


async def _still_there(connection: AsyncConnection, batches: Sequence[Batch]) -> None:
    """Raise Overtaken unless what is taken from earlier materializations has its bytes, where they were: `gc` may have been faster."""
    m, o = t.materialization.c, t.object_.c
    taken = {r.materialization for b in batches for r in b.reused}
    if taken:
        unharmed = intact([b.asset for b in batches])
        whole = sa.select(sa.func.count()).where(among(m.id, taken, sa.BigInteger), unharmed)
        if (await connection.execute(whole)).scalar_one() != len(taken):
            raise Overtaken
    new = {one.id for b in batches for one in b.objects}
    places = {d.object for b in batches for made in b.made for d in made.new} - new
    if places:
        there = sa.select(sa.func.count()).where(among(o.id, places, sa.BigInteger), o.retired_at.is_(None))
        if (await connection.execute(there)).scalar_one() != len(places):
            raise Overtaken


async def _supersede(connection: AsyncConnection, environment: int, batches: Sequence[Batch]) -> None:
    """End what the units of these batches are, each with the number of its batch.

    Raises Overtaken unless every unit still was what it was when it was judged: then what is written here is for nothing.
    """
    expected = {(b.asset, unit): was for b in batches for unit, was in b.was.items()}
    if not expected:
        return
    h, numbers = t.head.c, {b.asset: b.number for b in batches}
    ending = sa.update(t.head).where(
        h.environment_id == environment, h.until_commit.is_(None), _these(t.head, expected.keys())
    )
    if len(batches) == 1:
        ending = ending.values(until_commit=batches[0].number)
    else:
        by = (
            sa.func.unnest(
                sa.cast(list(numbers), ARRAY(sa.Integer)), sa.cast(list(numbers.values()), ARRAY(sa.BigInteger))
            )
            .table_valued(sa.column("asset", sa.Integer), sa.column("number", sa.BigInteger), name="by")
            .render_derived()
        )
        ending = ending.where(h.asset_id == by.c.asset).values(until_commit=by.c.number)
    rows = await connection.execute(ending.returning(h.asset_id, h.unit, h.materialization_id))
    found = {(asset, unit): m for asset, unit, m in rows}
    if any(found.get(one) != was for one, was in expected.items()):
        raise Overtaken


async def _note_failures(connection: AsyncConnection, environment: int, batches: Sequence[Batch]) -> None:
    """Keep what failed, and forget what was mended."""
    again = [(b.asset, unit) for b in batches for unit in {*b.was, *(x.unit for x in b.failed)}]
    if again:
        await connection.execute(
            sa.delete(t.failure).where(t.failure.c.environment_id == environment, _these(t.failure, again))
        )
    await _copy(
        connection, t.failure,
        [(environment, b.asset, x.unit, x.label, b.definition, x.inputs, x.error, x.traceback, b.run, b.at)
         for b in batches for x in b.failed],
    )  # fmt: skip


async def _move_watermarks(connection: AsyncConnection, environment: int, batches: Sequence[Batch]) -> list[Committed]:
    """Note each commit as its asset's last."""
    w, statement = t.watermark, insert(t.watermark)
    found = await connection.execute(
        sa.select(w.c.asset_id, w.c.last_commit).where(
            w.c.environment_id == environment, one_of(w.c.asset_id, [b.asset for b in batches])
        )
    )
    before: dict[int, int] = dict(found.all())
    new = statement.excluded
    await connection.execute(
        statement.on_conflict_do_update(
            index_elements=["environment_id", "asset_id"],
            set_={
                "changed_commit": sa.func.greatest(w.c.changed_commit, new.changed_commit), "last_commit": new.last_commit,
                "settled": sa.null(), "made_at": new.made_at,
            },
        ),
        [
            {"environment_id": environment, "asset_id": b.asset, "changed_commit": b.number if b.changes else 0,
             "last_commit": b.number, "settled": None, "units": 0, "documents": 0, "made_at": b.at}
            for b in sorted(batches, key=lambda b: b.asset)  # in one order for all, as `settle` does
        ],
    )  # fmt: skip
    return [Committed(b.number, before.get(b.asset, 0)) for b in batches]


async def _copy(connection: AsyncConnection, table: sa.Table, rows: Sequence[tuple[Any, ...]]) -> None:
    if rows:
        await copy(connection, table, rows)


async def copy(connection: AsyncConnection, table: sa.Table, rows: Iterable[tuple[Any, ...]]) -> None:
    """COPY rows in the columns' order, inside the connection's transaction."""
    raw = await connection.get_raw_connection()
    driver: Any = raw.driver_connection
    columns = [column.name for column in table.columns]
    try:
        await driver.copy_records_to_table(table.name, records=rows, columns=columns)
    except Exception as error:  # the driver's own: SQLAlchemy has not seen it
        if schema.is_service_error(error):
            raise schema.service_error(connection.engine, error) from error
        schema.refuse_size(error)
        raise
