"""Vectors: which documents are nearest to a vector, and which index says so?

The embedding documents of an asset, in the store, are the truth; an index in Postgres is derived of them, without a call of a model:

    sync      the index is brought up to what the asset currently is; only what is new or changed is read
    search    the nearest `k` rows, under any filter
    rebuild   the index is made again, from nothing
    rollback  the generation before answers again
    best      the parameters that did best where they were tried (measures), with which the next index is built

An index has a **generation** for each model that its documents are of. While documents of another model come in, the generation
before goes on answering; when the new one holds them all, it takes its place in one transaction.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeVar

from assetcore import gaps
from assetcore.documents import Document, UnreadableError
from assetcore.embeddings import FIT, Embedding, packed, unfit
from assetcore.errors import NothingSelectedError, ServiceError, StorageError, UnindexedError, UsageError
from assetcore.filters import asked, indexed
from assetcore.lineage import journal, read
from assetcore.lineage import vectors as index
from assetcore.lineage.journal import Entry
from assetcore.lineage.schema import Connection
from assetcore.lineage.vectors import CANDIDATES, EXACT, WIDEST, Found, Generation, Row
from assetcore.project import Project
from assetcore.storage import Stored
from assetcore.telemetry import get_pipeline_logger
from assetcore.verify import noting_damage

__all__ = [
    "Trial", "activate", "active", "alias_of", "ask", "best", "embeddings", "generations", "matching", "question", "rebuild", "rollback",
    "similarity_search", "sync", "sync_all", "trials",
]  # fmt: skip

logger = get_pipeline_logger(__name__)

T = TypeVar("T")

DEFAULTS = {"m": 16, "ef_construction": 80, "ef_search": 100}
CHANGES = 5
"""How often an index may be exchanged for another between being found and being asked."""
KEPT = 2
"""Generations of an asset that stay: the one that answers, and the one before, to go back to."""
PART = 2000
"""Documents that are read at once."""
K = 10
QUESTION_SECONDS = 60
ENOUGH = 0.99
"""A recall@10 that is good enough: of the parameters that reach it the fastest are the best."""


@dataclass(frozen=True, slots=True)
class Trial:
    """How an index with these parameters did beside an exact search."""

    asset: str
    model: str
    rows: int
    questions: int
    m: int
    ef_construction: int
    ef_search: int
    recall: float
    p50_ms: float
    p95_ms: float
    build_seconds: float
    bytes: int

    @property
    def parameters(self) -> dict[str, int]:
        return {"m": self.m, "ef_construction": self.ef_construction, "ef_search": self.ef_search}

    def measured(self) -> dict[str, Any]:
        """The parameters, and what was measured of them."""
        return {
            name: value for name, value in self.to_json().items() if name not in ("asset", "model", "rows", "questions")
        }

    def to_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}


def embeddings(project: Project) -> list[str]:
    """The assets whose documents are vectors."""
    return [name for name in project.graph.assets if _is_of_vectors(project, name)]


async def active(project: Project, asset: str) -> Generation:
    """The generation that answers, brought up to what the asset is; while somebody else does that, or where it cannot be done, as it is.

    Raises NothingSelectedError where the asset is not made yet, UnindexedError where there is no index of what was made.
    """
    found, left = await _at_hand(project, asset)
    if found is not None:
        return found
    if left:
        raise UnindexedError(
            f"{asset} has no document that an index can hold: {gaps.named(left)}.", hint=gaps.mend(asset)
        )
    if several := await gaps.several(project, asset):
        raise several
    raise NothingSelectedError(f"{asset} is not made yet.", hint=f"Make it: aipctl materialize '+{asset}'")


async def similarity_search(
    project: Project, asset: str, query_vector: Sequence[float], filter_fields: Mapping[str, Any] | None = None, k: int = K,
    *, exact: bool | None = None, generation: int | None = None,
) -> list[Found]:  # fmt: skip
    """The `k` rows of an asset's index that are nearest to a vector, the nearest first; fewer only where fewer match.

    `filter_fields` gives for each field the value, or a list of values of which one, that a row must have; of a list, what must be in it.
    With `generation`, that one is asked, whichever answers: two models are so compared. Raises UsageError for a field that the asset's
    documents do not have, or a value that it cannot have, and a vector of another length than theirs, NothingSelectedError for a
    generation that there is not.
    """
    filters = dict(filter_fields or {})
    return await _whichever(lambda: _nearest(project, asset, query_vector, filters, max(k, 1), exact, generation))


async def _whichever(ask: Callable[[], Awaitable[T]]) -> T:
    """What the index that answers is asked; again where that was exchanged for another in between."""
    for _ in range(CHANGES):
        try:
            return await ask()
        except Exception as error:
            if not index.is_gone(error):
                raise
    return await ask()


async def _nearest(
    project: Project, asset: str, query_vector: Sequence[float], filters: Mapping[str, Any], k: int, exact: bool | None,
    generation: int | None,
) -> list[Found]:  # fmt: skip
    _check_is_of_vectors(project, asset)
    # Nearly always the index is up to date: one connection, two statements, and no transaction around them.
    engine = project.engine.execution_options(isolation_level="AUTOCOMMIT")
    async with engine.connect() as connection:
        one = await _answering(project, connection, asset) if generation is None else None
        if one is not None:
            wanted = _question(project, asset, one, query_vector, filters)
            return await index.nearest(connection, one, query_vector, k, wanted, exact=exact)
    one = await _asked(project, asset, generation)
    wanted = _question(project, asset, one, query_vector, filters)
    async with engine.connect() as connection:
        return await index.nearest(connection, one, query_vector, k, wanted, exact=exact)


def _question(
    project: Project, asset: str, one: Generation, query_vector: Sequence[float], filters: Mapping[str, Any]
) -> dict[str, list[Any]]:
    """What the rows must have, as the index has it. Raises UsageError for a question that the generation cannot be asked."""
    fields = _fields(project, asset)
    if unknown := sorted(filters.keys() - set(fields)):
        raise UsageError(
            f"{asset} has no field {unknown[0]!r}; it has: {', '.join(fields)}.", hint="Filter by one of these."
        )
    if len(query_vector) != one.dimensions:
        raise UsageError(
            f"{asset} holds vectors of {one.dimensions} numbers ({one.model}), and was asked for one of {len(query_vector)}.",
            hint="Ask with a vector of the same model.",
        )
    if problem := unfit(packed(query_vector)):
        raise UsageError(f"{asset} was asked for a vector that {problem}.", hint=FIT)
    return asked(_kind(project, asset), filters)


async def ask(
    project: Project, asset: str, text: str, filter_fields: Mapping[str, Any] | None = None, k: int = K,
    *, generation: int | None = None,
) -> list[Found]:  # fmt: skip
    """The `k` rows that are nearest to a text. Raises as `question` and `similarity_search`."""
    asked = await question(project, asset, text, generation=generation)
    return await similarity_search(project, asset, asked, filter_fields, k, generation=generation)


async def question(project: Project, asset: str, text: str, *, generation: int | None = None) -> list[float]:
    """A text's vector, by the model, and in the length, that the index, or this generation of it, is of.

    Raises UsageError where the gateway does not have that model any more, or not in that length, GatewayError where it cannot be asked.
    """
    one = await _asked(project, asset, generation)
    [found] = await project.llm.embed_in(one.dimensions, [text], await alias_of(project, asset, one), QUESTION_SECONDS)
    return found.vector


async def alias_of(project: Project, asset: str, one: Generation) -> str:
    """A name under which the gateway has the model that a generation is of."""
    models = await project.llm.learn()
    aliases = [*project.graph.assets[asset].options.models, *models.behind]
    alias = next((a for a in aliases if models.resolve(a) == one.model), None)
    if alias is None:
        raise UsageError(
            f"The index of {asset} is of {one.model or 'a model without a name'}, which {models.place} does not have.",
            hint=f"Give that model an alias there, or make the index again with the present one: aipctl materialize '+{asset}'",
        )
    return alias


async def _asked(project: Project, asset: str, number: int | None) -> Generation:
    """The generation that answers, or the one that is asked for by its number."""
    if number is None:
        return await active(project, asset)
    _check_is_of_vectors(project, asset)
    async with project.engine.connect() as connection:
        return _complete(await index.generations(connection, project.name, project.environment, asset), asset, number)


async def sync(project: Project, asset: str) -> Generation | None:
    """Bring the index up to what the asset currently is; returns the generation that answers, if there is one.

    Documents that no index can hold are left out, and named in a warning.
    """
    found, left = await _brought_up(project, asset)
    _warn(asset, left)
    return found


async def _brought_up(project: Project, asset: str, *, wait: bool = True) -> tuple[Generation | None, list[gaps.Unfit]]:
    """The generation that answers when the index is what the asset currently is; and what was found now that none can hold.

    Who does not `wait` is answered by the generation as it is while somebody else brings it up, which may take minutes.
    """
    _check_is_of_vectors(project, asset)
    names = (project.name, project.environment, asset)
    async with project.engine.connect() as connection:
        current = await _answering(project, connection, asset)
    if current is not None or not project.writable:
        return current, []
    async with noting_damage(project), project.engine.begin() as connection:
        free = wait or await index.alone(connection, *names, wait=False)
        if not free and (current := await _answering(project, connection, asset, behind=True)) is not None:
            return current, []
        await index.alone(connection, *names)
        if (current := await _answering(project, connection, asset)) is not None:  # by somebody who was waited for
            return current, []
        return await _bring_up(project, connection, asset, await index.generations(connection, *names))


async def _at_hand(project: Project, asset: str) -> tuple[Generation | None, list[gaps.Unfit]]:
    """As `_brought_up`, for who searches: while somebody else brings it up, or where what is new cannot be read, the index as it is."""
    try:
        found, left = await _brought_up(project, asset, wait=False)
    except StorageError as error:
        async with project.engine.connect() as connection:
            found, left = await _answering(project, connection, asset, behind=True), []
        if found is None:
            raise
        logger.warning("The index of %s answers as it is, because it cannot be brought up to date: %s", asset, error)
    _warn(asset, left)
    return found, left


async def _bring_up(
    project: Project, connection: Connection, asset: str, found: list[Generation], replaced: Sequence[Generation] = ()
) -> tuple[Generation | None, list[gaps.Unfit]]:
    """Bring these generations up to what the asset currently is; of those that are `replaced`, make others of the same models."""
    identifier = project.asset_ids[asset]
    last = (await read.watermark(connection, project.environment_id, identifier)).changed
    documents = (await read.current_documents(connection, project.environment_id, [identifier]))[identifier]
    wanted = dict(documents.select("address", "document").iter_rows())
    held: dict[int, dict[bytes, int]] = {}
    for one in list(found):
        rows = await index.known(connection, one)
        if rows is None:  # somebody dropped the table
            await index.drop(connection, one)
            found.remove(one)
        else:
            held[one.id] = rows
    missing = {a: d for a, d in wanted.items() if not any(rows.get(a) == d for rows in held.values())}
    left = await _take_in(project, connection, asset, found, held, missing)
    for one in left:
        del wanted[one.address]
    return await _settle(project, connection, asset, found, held, wanted, last, replaced), left


async def _answering(
    project: Project, connection: Connection, asset: str, *, behind: bool = False
) -> Generation | None:
    """The generation that answers, where nothing needs to be done for that, or it may be `behind`; and where nothing may be done, the one
    that did last."""
    names = (project.name, project.environment, asset)
    identifiers = (project.environment_id, project.asset_ids[asset])
    return await index.answering(connection, *names, *identifiers, behind=behind or not project.writable)


async def rebuild(project: Project, asset: str) -> Generation | None:
    """Make the index again of the documents in the store, beside the one that answers, whose place it then takes; no model is asked.

    Raises UnindexedError where it could not take its place, because the documents are of several models at present: all stays as it was.
    """
    project.check_writable()
    names = (project.name, project.environment, asset)
    async with noting_damage(project), project.engine.begin() as connection:
        await index.alone(connection, *names)
        before = await index.generations(connection, *names)
        current, left = await _bring_up(project, connection, asset, [], before)
        there = {one.id for one in await index.generations(connection, *names)}
        facts = {"dropped": [one.id for one in before if one.id not in there]}
        await journal.append(connection, project.id, Entry("vectors rebuild", project.environment, asset, facts=facts))
    _warn(asset, left)
    return current


async def rollback(project: Project, asset: str) -> Generation:
    """Have the generation before the present one answer. Raises NothingSelectedError where there is none."""
    names = (project.name, project.environment, asset)
    async with project.engine.connect() as connection:
        found = await index.generations(connection, *names)
    current = _active(found)
    earlier = [one for one in found if current is not None and one.id < current.id and one.completed is not None]
    if not earlier:
        raise NothingSelectedError(f"{asset} has no earlier generation to go back to.", hint="See: aipctl vectors ls")
    return await activate(project, asset, earlier[0].id)


async def activate(project: Project, asset: str, number: int) -> Generation:
    """Have one of the generations answer, by its number; where its model has no alias, a warning says so.

    Raises NothingSelectedError for one that there is not, or that is not complete.
    """
    project.check_writable()
    names = (project.name, project.environment, asset)
    async with project.engine.begin() as connection:
        await index.alone(connection, *names)
        found = _complete(await index.generations(connection, *names), asset, number)
        await _answer(project, connection, found)
        after = await index.generations(connection, *names)
    try:
        await alias_of(project, asset, found)
    except UsageError as error:
        logger.warning("%s Until it has, words alone decide what a search finds.", error.message)
    except ServiceError:
        logger.debug("the gateway cannot be asked whether it has %s", found.model)
    return next(one for one in after if one.id == number)


async def generations(project: Project) -> list[Generation]:
    """All generations of the project's indexes, the newest first."""
    async with project.engine.connect() as connection:
        return await index.generations(connection, project.name, project.environment)


async def trials(project: Project, asset: str, limit: int | None = None) -> list[tuple[datetime, Trial]]:
    """What was tried for an asset's index, and when; the latest first."""
    async with project.engine.connect() as connection:
        rows = await index.trials(connection, project.name, project.environment, asset, limit)
    return [(row["at"], Trial(**{name: row[name] for name in Trial.__slots__})) for row in rows]


async def best(project: Project, asset: str) -> Trial | None:
    """The fastest of those parameters that find enough, or those that find the most; of the model that answers."""
    async with project.engine.connect() as connection:
        current = _active(await index.generations(connection, project.name, project.environment, asset))
    # An earlier version took numbers of candidates that none can be asked with, and measured another one.
    tried = [one for _, one in await trials(project, asset) if K <= one.ef_search <= CANDIDATES]
    mine = [one for one in tried if current is None or one.model == current.model] or tried
    if not mine:
        return None
    enough = [one for one in mine if one.recall >= ENOUGH]
    return min(enough, key=lambda one: one.p50_ms) if enough else max(mine, key=lambda one: (one.recall, -one.p50_ms))


async def _take_in(
    project: Project, connection: Connection, asset: str, found: list[Generation], held: dict[int, dict[bytes, int]],
    missing: Mapping[bytes, int],
) -> list[gaps.Unfit]:  # fmt: skip
    """Read documents that no generation has, and write each to that of its model, which is made where there is none. Returns those that
    none can hold."""
    names = (project.name, project.environment, asset)
    kind, shown = _kind(project, asset), _fields(project, asset)
    left: list[gaps.Unfit] = []
    addresses = list(missing)
    for begin in range(0, len(addresses), PART):
        part = addresses[begin : begin + PART]
        stored = await read.stored(connection, [missing[a] for a in part])
        documents = await _read(project, [stored[missing[a]] for a in part], kind)
        by_model: dict[tuple[str, int], list[Row]] = {}
        for address, one in zip(part, documents, strict=True):
            if isinstance(one, str):
                left.append(gaps.Unfit(address, stored[missing[address]].name, one))
                continue
            assert isinstance(one, Embedding)
            if (problem := unfit(one.content)) is not None:
                left.append(gaps.Unfit(address, one.name, problem))
                continue
            vector, fields = one.vector, indexed(one, shown)
            by_model.setdefault((one.model, len(vector)), []).append(
                Row(address, missing[address], one.name, fields, vector)
            )
        for (model, dimensions), rows in by_model.items():
            target = next((o for o in found if (o.model, o.dimensions) == (model, dimensions)), None)
            if target is None:
                chosen = await best(project, asset)
                parameters = chosen.parameters if chosen is not None else DEFAULTS
                target = await index.create(connection, *names, model, dimensions, parameters)
                found.insert(0, target)
                held[target.id] = {}
            await index.upsert(connection, target, rows)
            held[target.id] |= {row.address: row.document for row in rows}
    return left


async def _read(project: Project, stored: Sequence[Stored], kind: type[Document]) -> list[Document | str]:
    """These documents; of one that does not fit its class, which is another by now, why."""
    try:
        return list(await project.reader.documents(stored, kind))
    except UnreadableError as error:
        if len(stored) == 1:
            return [error.message.rstrip(".")]
        half = len(stored) // 2
        return [*await _read(project, stored[:half], kind), *await _read(project, stored[half:], kind)]


async def _settle(
    project: Project, connection: Connection, asset: str, found: list[Generation], held: Mapping[int, Mapping[bytes, int]],
    wanted: Mapping[bytes, int], last: int, replaced: Sequence[Generation] = (),
) -> Generation | None:  # fmt: skip
    """Take out what is gone, index what is large and no other, and let a generation answer when it has come to hold all documents.

    One that held all of them the last time, too, and does not answer, is one that somebody went back from. Those that were `replaced` go.
    """
    before = _active(found)
    complete: Generation | None = None
    for one in found:
        rows = held[one.id]
        gone = [address for address in rows if address not in wanted]
        await index.remove(connection, one, gone)
        large = len(rows) - len(gone) > EXACT and one.dimensions <= WIDEST
        if large and not one.indexed:
            await index.build_index(connection, one, one.parameters["m"], one.parameters["ef_construction"])
        elif one.indexed and not large:
            await index.forget_index(connection, one)
        whole = all(rows.get(a) == d for a, d in wanted.items())
        if whole:
            await index.note(connection, one, synced=last)
        if (
            whole
            and wanted
            and not one.active
            and (one.completed is None or before is None or one.synced < before.synced)
        ):
            complete = one
    current = complete or before
    if current is None and wanted and _active(replaced) is not None:
        raise UnindexedError(
            f"The index of {asset} is not made again, because no other would have all documents: they are of several models at present.",
            hint=f"What there is goes on answering. Make what is stale first: aipctl materialize '+{asset}'",
        )
    for one in replaced:
        if not wanted or any((one.model, one.dimensions) == (other.model, other.dimensions) for other in found):
            await index.drop(connection, one)
    there = await index.generations(connection, project.name, project.environment, asset)
    finished = [one for one in there if one.completed is not None and (current is None or one.id != current.id)]
    for one in finished[KEPT - 1 :]:
        await index.drop(connection, one)
    if complete is not None:
        await index.note(connection, complete, completed=datetime.now(UTC))
        await _answer(project, connection, complete)
    elif before is not None:
        await index.note(connection, before, synced=last)
    return _active(await index.generations(connection, project.name, project.environment, asset))


async def _answer(project: Project, connection: Connection, one: Generation) -> None:
    """Have a generation answer from the end of the transaction on, and write down that it does."""
    await index.activate(connection, project.name, project.environment, one)
    facts = {"generation": one.id, "model": one.model}
    await journal.append(connection, project.id, Entry("vectors activate", project.environment, one.asset, facts=facts))


def _complete(found: Sequence[Generation], asset: str, number: int) -> Generation:
    """The generation of this number. Raises NothingSelectedError for one that there is not, or that is not complete."""
    known = {one.id: one for one in found if one.completed is not None}
    if number not in known:
        there = ", ".join(map(str, known)) or "none"
        raise NothingSelectedError(
            f"{asset} has no complete generation {number}; there are: {there}.", hint="See: aipctl vectors ls"
        )
    return known[number]


def _is_of_vectors(project: Project, name: str) -> bool:
    asset = project.graph.assets.get(name)
    return asset is not None and asset.output.form == "document" and issubclass(asset.output.document_type, Embedding)


def _kind(project: Project, asset: str) -> type[Document]:
    return project.graph.assets[asset].output.document_type


def _check_is_of_vectors(project: Project, name: str) -> None:
    """Raise UsageError for what has no vectors."""
    if not _is_of_vectors(project, name):
        known = ", ".join(embeddings(project)) or "none"
        raise UsageError(
            f"{name} is no asset of vectors; {project.name} has: {known}.", hint="One returns Embedding documents."
        )


def _active(found: Sequence[Generation]) -> Generation | None:
    return next((one for one in found if one.active), None)


def _fields(project: Project, asset: str) -> list[str]:
    """What the rows of an asset's index can be filtered by."""
    return [name for name in _kind(project, asset).field_names() if name != "model"]


async def matching(project: Project, names: Sequence[str], filters: Mapping[str, Any]) -> set[tuple[str, str]]:
    """What stands behind the rows that match, in all these indexes: asset and document. Their documents have these fields."""
    found: set[tuple[str, str]] = set()
    for name in names:
        found |= await _whichever(partial(_matching, project, name, asked(_kind(project, name), filters)))
    return found


async def _matching(project: Project, name: str, wanted: Mapping[str, list[Any]]) -> set[tuple[str, str]]:
    one, _ = await _at_hand(project, name)
    if one is None:
        return set()
    async with project.engine.connect() as connection:
        return await index.documents(connection, one, wanted)


async def sync_all(project: Project, names: Sequence[str]) -> list[str]:
    """Bring the indexes of these assets up to date, as far as that can be: what was made is kept anyhow. Returns what is to be known."""
    notes: list[str] = []
    for name in sorted(names):
        try:
            _, left = await _brought_up(project, name)
            notes += [*gaps.left_out(name, left), *await gaps.behind(project, name)]
        except Exception as error:
            reason = getattr(error, "message", None) or str(error).partition("\n")[0] or type(error).__name__
            notes.append(
                f"The index of {name} could not be brought up to date: {reason.rstrip('.')}. Its documents are made and kept;"
                f" the next search tries again, or: aipctl vectors rebuild {name}"
            )
    return notes


def _warn(asset: str, left: Sequence[gaps.Unfit]) -> None:
    for note in gaps.left_out(asset, left):
        logger.warning(note)
