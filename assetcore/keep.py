"""Keep: how is what was made stored and committed?

The order is bytes, manifest, one transaction: a crash in between leaves bytes that nobody knows, never lineage without bytes. Many
small documents of a batch become one pack; a document of its own (a report, a large one, `layout="files"`) becomes an object under its
own name. A document that is as it was keeps its identifier, and its bytes are not written again.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

from assetcore.assets import Asset, Source
from assetcore.documents import Document, field_digests, identity
from assetcore.errors import StorageError
from assetcore.excerpts import Excerpt
from assetcore.ferry import Ferry
from assetcore.fingerprint import Part
from assetcore.lineage import commit as lineage
from assetcore.lineage import journal, read, recipes, records
from assetcore.lineage.commit import (
    Batch,
    Checked,
    Committed,
    Failed,
    Made,
    NewDocument,
    NewObject,
    Overtaken,
    Reused,
    Seen,
)
from assetcore.lineage.journal import Entry, committed
from assetcore.lineage.manifest import NAME as MANIFEST
from assetcore.lineage.manifest import encode_manifest
from assetcore.lineage.recipes import Recipes
from assetcore.project import Project
from assetcore.spending import Spent
from assetcore.staleness import Definition
from assetcore.storage import Key, ObjectExistsError, Stored, encode_pack, object_key, sorted_json
from assetcore.storage.formats import jsonable_fields
from assetcore.storage.keys import artifact_name
from assetcore.storage.packs import ENCODED_BYTES, off_the_loop
from assetcore.units import document_address

__all__ = ["SUFFIXES", "Defined", "Draft", "Earlier", "Facts", "Keeper", "facts_of", "record_run"]

OWN_OBJECT_BYTES = 4 << 20
"""A larger document is an object of its own."""
LARGEST_FIELDS = 1 << 20
"""More bytes of typed fields are no metadata. Postgres itself refuses sixteen times as much (`lineage.tables.LARGEST`)."""
NAMED = 100
"""A commit to a source that changes at most so many documents names them in the journal."""
ROW_BYTES = 256
"""About so much a document takes beside its content."""
FEW = 64
"""A batch of more units is a transaction of its own, and of more units or documents is asked for itself."""
Earlier = Mapping[bytes, Sequence[tuple[bytes, int]]]
"""What was made before, by the inputs: units and materializations."""
Facts = tuple[str, str, bytes, bytes, bytes]
"""Of a document: name, media type, content hash, digests of the fields, identity."""
Place = tuple[int, int | None, Mapping[str, Any] | None]
"""Of a document: object, row in it, and the fields where no pack holds them."""
SUFFIXES = {"application/vnd.apache.parquet": ".parquet", "application/json": ".json"}


class Draft(NamedTuple):
    """A unit that was executed, before its documents are stored; a tuple, as what becomes of it.

    `before` are its current documents: identifier, identity. `excerpts` say of some of its documents, by name, of which document that
    it was given they are part; `facts` are those of its documents, where they are known already.
    """

    unit: bytes
    label: str
    parent: str | None
    inputs: bytes
    documents: Sequence[Document]
    edges: tuple[tuple[int, int], ...]
    collected: tuple[tuple[int, int, int], ...]
    seconds: float
    was: int | None
    before: tuple[tuple[int, bytes], ...]
    spent: Spent | None = None
    seen: Seen | None = None
    excerpts: Mapping[str, tuple[int, Excerpt]] = MappingProxyType({})
    facts: Sequence[Facts] | None = None


class Defined(NamedTuple):
    """The identifier of a definition, and whether it is new: then nothing was ever made with it."""

    id: int
    new: bool


@dataclass(frozen=True, slots=True)
class Keeper:
    """Stores and commits for one run."""

    project: Project
    run: str
    stamp: str
    _blocks: Ferry[None, int] = field(init=False)
    _lookups: Ferry[Collection[int], Mapping[int, Stored]] = field(init=False)
    _reuses: Ferry[Recipes, Earlier] = field(init=False)
    _commits: Ferry[tuple[Batch, Entry], Committed] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_blocks", Ferry(self._allocate))
        object.__setattr__(self, "_lookups", Ferry(self._look_up, apart=(StorageError,)))
        object.__setattr__(self, "_reuses", Ferry(self._find_reusable))
        object.__setattr__(self, "_commits", Ferry(self._commit, apart=(Overtaken,)))

    async def allocate(self) -> int:
        """The first of a block of identifiers."""
        return await self._blocks.ask(None)

    async def _allocate(self, asked: Sequence[None]) -> list[int]:
        async with self.project.engine.connect() as connection:
            return await lineage.allocate_all(connection, len(asked))

    async def stored(self, documents: Collection[int]) -> Mapping[int, Stored]:
        """Where the bytes of these documents are."""
        if not documents:
            return {}
        if len(documents) <= FEW:
            return await self._lookups.ask(documents)
        [found] = await self._look_up([documents])
        return found

    async def _look_up(self, asked: Sequence[Collection[int]]) -> list[Mapping[int, Stored]]:
        async with self.project.engine.connect() as connection:
            return [await read.stored(connection, set().union(*asked))] * len(asked)

    async def keys(self, objects: Collection[int]) -> Mapping[int, Key]:
        """The keys of these objects."""
        async with self.project.engine.connect() as connection:
            return await read.keys(connection, objects)

    async def reusable(
        self, asset: Asset[..., Any], definition: int, inputs: Collection[bytes], since: datetime | None
    ) -> Earlier:
        """For each of these inputs, the units and materializations of the asset that have the same recipe, newest first."""
        identifier = self.project.asset_ids[asset.name]
        if not inputs:
            return {}
        if len(inputs) <= FEW:
            return await self._reuses.ask(Recipes(identifier, definition, inputs, since))
        async with self.project.engine.connect() as connection:
            return await recipes.reusable(connection, identifier, definition, inputs, since)

    async def _find_reusable(self, asked: Sequence[Recipes]) -> list[Earlier]:
        async with self.project.engine.connect() as connection:
            return [*await recipes.reusable_of(connection, asked)]

    async def define(self, assets: Collection[Asset[..., Any]]) -> dict[str, Defined]:
        """The definitions of these assets as Postgres knows them; new ones are kept in the bucket, and then in Postgres."""
        project = self.project
        wanted = {project.asset_ids[a.name]: project.definition(a.name) for a in assets}
        async with project.engine.connect() as connection:
            found = await lineage.find_definitions(connection, wanted)
        new = [a for a in assets if project.asset_ids[a.name] not in found]
        if new:
            parts = {a.name: project.fingerprint(a.name).parts for a in new}
            await asyncio.gather(
                *(self._record_definition(a, wanted[project.asset_ids[a.name]], parts[a.name]) for a in new)
            )
            async with project.engine.begin() as connection:
                found |= await lineage.keep_definitions(
                    connection,
                    {project.asset_ids[a.name]: wanted[project.asset_ids[a.name]] for a in new},
                    [part for every in parts.values() for part in every],
                )
        fresh = {a.name for a in new}
        return {a.name: Defined(found[project.asset_ids[a.name]], a.name in fresh) for a in assets}

    async def _record_definition(self, asset: Asset[..., Any], definition: Definition, parts: Collection[Part]) -> None:
        record = records.of_definition(
            self.project.name, asset.name, self.project.asset_ids[asset.name], definition, parts
        )
        key = self.key(asset, f"{records.NAME}-definition-{definition.digest.hex()[:32]}.json.gz")
        with suppress(ObjectExistsError):  # this run has written it, and did not come to tell Postgres
            size = sum(map(len, record["parts"].values()))
            await self.project.bucket.write(key, await off_the_loop(size, records.encode, record, above=ENCODED_BYTES))

    async def broken(self, stored: Mapping[int, Stored]) -> set[int]:
        """The documents among these whose bytes are gone, or are not what lineage says."""
        by_key: dict[Key, list[int]] = {}
        for identifier, one in stored.items():
            by_key.setdefault(one.location.key, []).append(identifier)
        found: set[int] = set()
        for identifiers in by_key.values():
            if await self._is_broken([stored[i] for i in identifiers]):
                found |= {i for i in identifiers if await self._is_broken([stored[i]])}
        return found

    async def _is_broken(self, stored: Sequence[Stored]) -> bool:
        try:
            await self.project.reader.documents([one._replace(fields=None) for one in stored], Document)
        except StorageError:
            return True
        return False

    async def store(
        self, asset: Asset[..., Any], base: int, drafts: Sequence[Draft]
    ) -> tuple[list[Made], list[NewObject]]:
        """Write the bytes of new documents: small ones as one pack, those of their own as objects; returns what to commit."""
        output, whole = asset.output, self._is_one(asset)
        apart = whole or asset.options.layout == "files"
        packed: list[Document] = []
        own: list[tuple[Draft, Document]] = []
        rows: list[int | None] = []
        facts = [draft.facts or [facts_of(one, output.type_name) for one in draft.documents] for draft in drafts]
        for draft, found in zip(drafts, facts, strict=True):
            known = {identity_ for _, identity_ in draft.before}
            for document, fact in zip(draft.documents, found, strict=True):
                if fact[-1] in known:
                    continue
                if apart or len(document.content) > OWN_OBJECT_BYTES:
                    rows.append(None)
                    own.append((draft, document))
                else:
                    rows.append(len(packed))
                    packed.append(document)
        if isinstance(asset, Source):
            refuse_large_fields(document for _, document in own)
        objects: list[NewObject] = []
        alone: list[Place] = []
        counter = iter(range(base, base + (1 << 20)))
        if packed:
            size = sum(len(document.content) + ROW_BYTES for document in packed)
            data, sha256 = await off_the_loop(size, _encoded, packed, above=ENCODED_BYTES)
            key = self.key(asset, f"pack-{base >> 20:08d}.parquet")
            pack = NewObject(next(counter), key, len(data), len(packed), sha256)
            await self.project.bucket.write_own(pack.key, data)
            objects.append(pack)
        for draft, document in own:
            address = None if whole else document_address(draft.unit, document.name)
            key = self.key(asset, _artifact_name(document, address))
            try:
                await self.project.bucket.write(key, document.content)
            except ObjectExistsError:  # this run made it before, and was overtaken
                key = self.key(
                    asset, _artifact_name(document, document_address(base.to_bytes(8, "big"), document.name))
                )
                await self.project.bucket.write_own(key, document.content)
            one = NewObject(next(counter), key, len(document.content), None, document.sha256)
            objects.append(one)
            alone.append((one.id, None, jsonable_fields(document) if document.field_names() else None))
        others = iter(alone)
        places = (next(others) if row is None else (objects[0].id, row, None) for row in rows)
        made = [_made(d, f, output.type_name, places, counter) for d, f in zip(drafts, facts, strict=True)]
        return made, objects

    def check_fields(self, asset: Asset[..., Any], documents: Iterable[Document]) -> None:
        """Raise StorageError for typed fields that would be a blob in Postgres. Those of packs are columns there, and may be large."""
        if self._is_one(asset) or asset.options.layout == "files":
            refuse_large_fields(documents)
        else:
            refuse_large_fields(document for document in documents if len(document.content) > OWN_OBJECT_BYTES)

    def _is_one(self, asset: Asset[..., Any]) -> bool:
        """Whether an asset is one document."""
        return self.project.graph.is_whole(asset.name) and not isinstance(asset, Source) and not asset.output.many

    async def commit(
        self, asset: Asset[..., Any], definition: Definition | None, definition_id: int, *, base: int | None = None,
        made: Sequence[Made] = (), reused: Sequence[Reused] = (), removed: Sequence[tuple[bytes, int | None]] = (),
        failed: Sequence[Failed] = (), objects: Sequence[NewObject] = (), spent: Mapping[int, Spent] | None = None,
        checked: Sequence[Checked] = (),
    ) -> Committed:  # fmt: skip
        """Manifest, then one transaction. The bytes are stored before: a crash leaves bytes that nobody knows, never the reverse.

        Small batches of several assets that are ready at the same moment share a transaction.
        """
        project = self.project
        if base is None:
            base = await self.allocate()
        batch = Batch(
            base >> 20, project.id, project.environment_id, project.asset_ids[asset.name], definition_id, self.run,
            self.key(asset, f"{MANIFEST}-{base >> 20:08d}.parquet"), tuple(made), tuple(reused), tuple(removed), tuple(failed),
            tuple(objects), spent=tuple((n, s.tokens, s.usd, s.cached_tokens, ",".join(s.models)) for n, s in (spent or {}).items()),
            checked=tuple(checked), at=project.clock(),
        )  # fmt: skip
        assets = {project.asset_ids[n]: n for n in project.graph.upstream(asset.name)}
        manifest = partial(
            encode_manifest, batch, project=project.name, environment=project.environment, asset=asset.name, assets=assets,
            definition=definition, kind=asset.kind, group=asset.group,
        )  # fmt: skip
        told = (
            len(batch.reused)
            + len(batch.removed)
            + len(batch.failed)
            + sum(1 + len(m.new) + len(m.edges) for m in batch.made)
        )
        data = await off_the_loop(told * ROW_BYTES, manifest, above=ENCODED_BYTES)
        await project.bucket.write_own(batch.manifest, data)
        entry = _entry(project, asset, batch, data)
        if len(batch.was) + len(batch.failed) > FEW:
            [done] = await self._commit([(batch, entry)])
            return done
        return await self._commits.ask((batch, entry))

    async def _commit(self, batches: Sequence[tuple[Batch, Entry]]) -> list[Committed]:
        async with self.project.engine.begin() as connection:
            done = await lineage.commit_all(connection, [batch for batch, _ in batches])
            await journal.append(connection, self.project.id, *(entry for _, entry in batches))
            return done

    async def close(self) -> None:
        """End what was begun for those who have gone."""
        for ferry in (self._blocks, self._lookups, self._reuses, self._commits):
            await ferry.close()

    async def record(self) -> None:
        """Keep in the bucket what Postgres says of the run, now that it has ended. A run that died has no record."""
        await record_run(self.project, self.project.environment, self.run, self.stamp)

    def key(self, asset: Asset[..., Any], artifact: str) -> Key:
        """The key of an artifact of this run."""
        return object_key(self.project.name, asset.group, self.stamp, asset.name, artifact)


def refuse_large_fields(documents: Iterable[Document]) -> None:
    """Raise StorageError, naming document and field, where the typed fields of one are larger than metadata is."""
    for document in documents:
        plain = jsonable_fields(document)
        sizes = {name: _size(plain[name]) for name in document.field_names()}
        if sum(sizes.values()) > LARGEST_FIELDS:
            name = max(sizes, key=sizes.__getitem__)
            raise StorageError(
                f"{document!r} has {sizes[name]:,} bytes in its field {name!r}; the fields of a document that is an object of its own"
                f" stand in Postgres, and have at most {LARGEST_FIELDS:,}.",
                hint="Put it into the content: text=, data= or content=; fields are for what is short.",
            )


def _size(value: Any) -> int:
    return len((value if isinstance(value, str) else sorted_json(value)).encode(errors="surrogatepass"))


def _encoded(documents: Sequence[Document]) -> tuple[bytes, bytes]:
    """A pack and its hash: what tells later that not a byte of it has changed."""
    data = encode_pack(documents)
    return data, hashlib.sha256(data).digest()


def _entry(project: Project, asset: Asset[..., Any], batch: Batch, manifest: bytes) -> Entry:
    """What the journal says of a commit: few documents of a source by name."""
    named = [(u.unit, u.label) for u in (*batch.become, *batch.reused)] if isinstance(asset, Source) else []
    return committed(batch, project.environment, asset.name, manifest, named if len(named) <= NAMED else ())


def facts_of(document: Document, type_name: str) -> Facts:
    """All that lineage keeps of a document, and what makes it an input."""
    fields = field_digests(document.field_values())
    return (
        document.name, document.media_type, document.sha256, fields,
        identity(type_name, document.name, document.media_type, document.sha256, fields),
    )  # fmt: skip


def _made(
    draft: Draft, facts: Sequence[Facts], type_name: str, places: Iterator[Place], numbers: Iterator[int]
) -> Made:  # fmt: skip
    """What to commit of a unit: documents that are as they were keep their identifiers, new ones take the next of the `places`."""
    known = {identity_: number for number, identity_ in draft.before}
    documents: list[int] = []
    new: list[NewDocument] = []
    for document, (name, media_type, sha256, fields, key) in zip(draft.documents, facts, strict=True):
        if key in known:
            documents.append(known[key])
            continue
        number, address, size = next(numbers), document_address(draft.unit, name), len(document.content)
        place = next(places)
        new.append(NewDocument(number, address, name, type_name, media_type, size, sha256, fields, key, *place))
        documents.append(number)
    before = [number for number, _ in draft.before]
    excerpts: tuple[Any, ...] = ()
    if draft.excerpts:
        named = [(number, draft.excerpts.get(fact[0])) for number, fact in zip(documents, facts, strict=True)]
        parts = [(number, *part) for number, part in named if part is not None]
        excerpts = tuple((number, whole, e.kind, e.start, e.end, e.pointer) for number, whole, e in parts)
    return Made(
        next(numbers), draft.unit, draft.label, draft.parent, draft.inputs, tuple(documents), tuple(new), draft.edges, draft.collected,
        draft.seconds, draft.was, documents != before, seen=draft.seen, excerpts=excerpts,
    )  # fmt: skip


def _artifact_name(document: Document, address: bytes | None) -> str:
    """The last part of the key: the document's name, with a suffix where it has none; unique by its address where names repeat."""
    suffix = SUFFIXES.get(document.media_type, "") if not document.suffix else document.suffix
    stem = document.name.removesuffix(suffix) if suffix else document.name
    name = f"{stem}{suffix}" if address is None else f"{stem}-{address.hex()[:12]}{suffix}"
    return f"document-{name}" if artifact_name(name).startswith((MANIFEST, records.NAME)) else name


async def record_run(project: Project, environment: str, run: str, stamp: str) -> None:
    """Keep in the bucket what Postgres says of a run that has ended."""
    async with project.engine.connect() as connection:
        record = await records.of_run(connection, project.name, environment, run)
    key = object_key(project.name, "main", stamp, "run", f"{records.NAME}-run-{run}.json.gz")
    await project.bucket.write_own(key, await asyncio.to_thread(records.encode, record))
