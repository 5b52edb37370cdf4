"""Forget: what came of a document of a source, and how does all of it go?

Found by lineage, in every environment and in history: a pack is written anew without the rows, a manifest and a record without what they
say of them, and without what failures and checks may have quoted. What is current of it leaves as a commit like any other, so that what was
made of it together with others is stale. Then one transaction takes the rows out of Postgres, points to what was written anew, and leaves a
tombstone: a row of the journal that says when, on whose behalf and by which report, and knows the units that are gone by a digest of their
labels. The key of the subject is destroyed: what the journal says of it can be read by nobody, and its chain still holds. What was replaced
in the bucket is retired by the same transaction, and deleted when the journal is in the bucket: by `delete_retired`, by who forgets again,
or by `gc`.

Whenever it is interrupted the document is either still known, and forgetting it again does all of it, or it has its tombstone, and
forgetting it again deletes what is left. A report says what was erased, and is signed.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from assetcore import sources, stack, vault
from assetcore.assets import Source
from assetcore.documents import Document
from assetcore.embeddings import Embedding
from assetcore.errors import SelectionError, ServiceError, SourceError
from assetcore.lineage import (
    answers,
    damage,
    environments,
    forgetting,
    journal,
    read,
    records,
    retention,
    spans,
    vectors,
)
from assetcore.lineage import commit as lineage
from assetcore.lineage.acceptances import FORGOTTEN
from assetcore.lineage.commit import Batch
from assetcore.lineage.damage import Damaged
from assetcore.lineage.forgetting import Descent, Held, Moved, Tombstone
from assetcore.lineage.journal import Entry
from assetcore.lineage.manifest import NAME as MANIFEST
from assetcore.lineage.manifest import encode_manifest, rewritten
from assetcore.lineage.runs import actor
from assetcore.observation import observe_one, source_unit
from assetcore.project import Project
from assetcore.refs import format_ref, parse_ref
from assetcore.storage import (
    DamagedObjectError,
    Key,
    MissingObjectError,
    flows_of,
    object_key,
    parse_key,
    run_timestamp,
)
from assetcore.storage.examine import Examined, examined, lost_whole
from assetcore.storage.repack import Kept, repack

__all__ = ["Forgotten", "delete_retired", "forget", "verify_report"]

FORGET = "forget"
"""What stands for a run in the manifests that this room writes."""
KEY_FILE = "report.key"
NAMELESS = ("journal", "definition")
"""Records of these kinds name no document and no unit: one that is damaged can stay."""
NEEDLE, SHORTEST = 200, 16
"""A recorded question is looked for by so much of the beginning of a text; shorter texts are no one's."""


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What is (or was) erased: units and documents by asset, objects, manifests; and the signed report when it was done.

    `lost` are documents that lay beside it in a pack and cannot be read any more, by asset. `tombstone` says when and by whom it had been
    forgotten before: then there is nothing but what that had left behind. `in_source` says whether the source still has it, so that the
    next run takes it in again; None where that cannot be asked about one document.
    """

    ref: str
    dry_run: bool
    assets: tuple[tuple[str, int, tuple[str, ...]], ...] = ()
    documents: int = 0
    objects: int = 0
    bytes: int = 0
    lost: Mapping[str, int] = field(default_factory=dict[str, int])
    report: Mapping[str, Any] | None = None
    file: str | None = None
    tombstone: Tombstone | None = None
    in_source: bool | None = None

    def to_json(self) -> dict[str, Any]:
        assets = [{"asset": name, "units": units, "examples": list(labels)} for name, units, labels in self.assets]
        return {
            "ref": self.ref, "dry_run": self.dry_run, "assets": assets, "documents": self.documents, "objects": self.objects,
            "bytes": self.bytes, "lost": self.lost, "report": self.report, "file": self.file,
            "tombstone": self.tombstone and self.tombstone.to_json(), "in_source": self.in_source,
        }  # fmt: skip


async def forget(project: Project, text: str, *, dry_run: bool) -> Forgotten:
    """Find what came of a document of a source, and erase it unless `dry_run`. No run is at work meanwhile. Raises SelectionError."""
    source, name = _subject(project, text)
    ref = format_ref(source, name)
    identifier, unit = project.asset_ids[source], source_unit(name)
    async with project.engine.connect() as connection:
        await connection.execution_options(isolation_level="REPEATABLE READ")
        roots = await forgetting.materializations_of(connection, identifier, unit)
        before = await forgetting.tombstone(connection, project.id, identifier, [name])
        if not roots and before is None:
            raise SelectionError(
                f"{source} never had a document {name!r}.",
                hint=f"See: aipctl show {source}, or: aipctl journal {source}",
            )
        found = await forgetting.descent(connection, roots)
        objects = await forgetting.held(connection, found.documents)
        names = {i: n for i, (n, _) in (await environments.registered(connection, project.id)).items()}
    if not roots:
        if not dry_run:
            await _forget_shown(project, {name})
        return Forgotten(ref, dry_run, tombstone=before, in_source=await _is_in_source(project, source, name))
    order = {n: i for i, n in enumerate(project.graph.assets)}
    assets = sorted(
        ((names[a], len(u), tuple(found.labels[a][:3])) for a, u in found.units.items()),
        key=lambda x: order.get(x[0], 0),
    )
    size = sum(one.size for one in objects)
    there = await _is_in_source(project, source, name)
    told = Forgotten(ref, dry_run, tuple(assets), len(found.documents), len(objects), size, in_source=there)
    if dry_run:
        return told
    needles, unread = await _needles(project, found, name)
    left = await _delete_answers(project, needles)
    await _retire(project, found, names)
    moved, rows, damaged = await _rewrite_packs(project, objects)
    lost = Counter(names[one.asset] for one in damaged)
    manifests, old, failing = await _rewrite_manifests(project, found, moved, rows)
    records_, old_records = await _rewrite_records(project, found, unit, name, moved, rows)
    now = datetime.now(UTC)
    report = _signed(project, {
        "project": project.name, "subject": unit.hex(), "at": now.isoformat(), "actor": actor(),
        "assets": {asset: units for asset, units, _ in assets}, "documents": len(found.documents),
        "materializations": len(found.materializations), "objects": {one.key: one.size for one in objects}, "manifests": old,
        "lost": lost, "unread": unread if left else 0, "flows": await _count_given(project),
        "prefect": await _forget_shown(project, {name, *_labels(found, name), *(one.key for one in objects)}),
    })  # fmt: skip
    file = project.settings.home / "reports" / f"forget-{run_timestamp(now)}.json"
    await asyncio.to_thread(_write_private, file, json.dumps(report, indent=1, sort_keys=True).encode())
    facts = {
        "subject": unit.hex(), "units": sum(units for _, units, _ in assets), "documents": len(found.documents),
        "replaced": [*old, *old_records], "gone": forgetting.tombstones(found), "file": file.name,
        "report": hashlib.sha256(json.dumps(report, sort_keys=True).encode()).hexdigest(),
    }  # fmt: skip
    indexed = [asset for asset, _, _ in assets if _may_be_indexed(project, asset)]
    async with project.engine.begin() as connection:
        for environment in await environments.every(connection, project.id) if indexed else ():
            for asset in indexed:  # what somebody is putting into an index now is seen there
                await vectors.alone(connection, project.name, environment.name, asset)
        await forgetting.erase(
            connection, project.id, found, moved, rows, manifests | records_, failing, identifier, name
        )
        await spans.forget_all(connection, project.id)
        await damage.note(connection, damaged)
        await vectors.forget(connection, project.name, found.documents)
        kept = {one.key for one in objects if moved.get(one.id) is not None}
        await forgetting.retire(connection, identifier, [*kept, *map(Key, (*old, *old_records))])
        await journal.append(connection, project.id, Entry(FORGET, asset=source, facts=facts))
    return replace(told, lost=lost, report=report, file=str(file))


async def _is_in_source(project: Project, name: str, document: str) -> bool | None:
    """Whether a source has a document now; None where it is not asked about one, or does not answer."""
    source = project.graph.assets[name]
    if not isinstance(source, Source) or not sources.looks_at_one(source):
        return None
    try:
        async with project.engine.connect() as connection:
            return not (await observe_one(project, connection, name, document)).is_empty()
    except SourceError:
        return None


async def delete_retired(project: Project) -> None:
    """Delete what was replaced, here and by compactions, which may still hold it."""
    async with project.engine.connect() as connection:
        retired = await retention.retired(connection, project.id, timedelta(0))
    await project.bucket.delete([key for key, _ in retired.values()])
    async with project.engine.begin() as connection:
        await retention.forget_objects(connection, retired)


def _labels(found: Descent, name: str) -> set[str]:
    """The labels of units that tell the name: not those of what was made of it together with others."""
    stem = name.rpartition("/")[2].partition(".")[0]
    return {label for labels in found.labels.values() for label in labels if len(stem) > 2 and stem in label}


async def _forget_shown(project: Project, names: Collection[str]) -> dict[str, Any]:
    """Remove the tables in Prefect that name it; what became of that, for the report."""
    settings = project.settings
    api = settings.prefect_api_url
    if api is None and not stack.has_run(settings, "prefect"):
        return {"artifacts": 0, "not removed": "Prefect does not run here, and no address of it is known"}
    try:
        api = api or (await stack.up(settings, {"prefect"})).prefect_api_url
        return {"artifacts": await asyncio.to_thread(vault.forget_shown, api, names)}
    except ServiceError as error:
        return {"artifacts": 0, "not removed": error.message}


async def _count_given(project: Project) -> int:
    """How many documents lie in the store that plain flows gave: lineage knows nothing of them, so they stay."""
    return len([info async for info in project.bucket.list(f"{flows_of(project.name)}/")])


def _subject(project: Project, text: str) -> tuple[str, str]:
    """The source and the name of the document that a REF names. Raises SelectionError."""
    ref = parse_ref(text)
    asset = project.graph.assets.get(ref.asset or "")
    if not isinstance(asset, Source) or (ref.unit or ref.document) is None:
        known = ", ".join(project.graph.sources)
        raise SelectionError(
            f"{text!r} does not name a document of a source: only what was taken in can be forgotten, with all that came of it.",
            hint=f"Write SOURCE[DOCUMENT]; the sources are: {known}",
        )
    return asset.name, str(ref.document or ref.unit)


async def _retire(project: Project, found: Descent, names: Mapping[int, str]) -> None:
    """What is current of it leaves its assets, in every environment: what collected them is stale from now on."""
    async with project.engine.connect() as connection:
        heads = await forgetting.current_heads(connection, found.materializations)
        places = {one.id: one.name for one in await environments.every(connection, project.id)}
    stamp = run_timestamp(datetime.now(UTC))
    for (environment, asset), units in heads.items():
        async with project.engine.connect() as connection:
            base = await lineage.allocate(connection)
        key = object_key(project.name, "main", stamp, names[asset], f"{MANIFEST}-{base >> 20:08d}.parquet")
        batch = Batch(base >> 20, project.id, environment, asset, 0, FORGET, key, removed=tuple(units))
        place = places.get(environment, project.environment)
        data = encode_manifest(
            batch, project=project.name, environment=place, asset=names[asset], assets={}, definition=None
        )
        await project.bucket.write_own(key, data)
        async with project.engine.begin() as connection:
            await lineage.commit(connection, batch)
            await journal.append(connection, project.id, journal.committed(batch, place, names[asset], data))


async def _rewrite_packs(
    project: Project, objects: list[Held]
) -> tuple[dict[int, Moved | None], dict[int, int], list[Damaged]]:
    """Packs without what must go, under new keys, and the rows of what stays; None for an object of which nothing stays.

    What stays and cannot be read is lost, and does not keep the rest from going: its rows are beyond the last of the new pack, of which no
    hash is kept, so that whoever looks finds it lost, also when Postgres was made again. Where nothing can be read nothing is written.
    """
    moved: dict[int, Moved | None] = {}
    rows: dict[int, int] = {}
    lost: list[Damaged] = []
    stamp = run_timestamp(datetime.now(UTC))
    for one in objects:
        if not one.pack or not one.stay:
            moved[one.id] = None
            continue
        places = [row for row, *_ in (*one.stay, *one.go)]
        hashes = [sha for *_, sha in (*one.stay, *one.go)]
        facts, data = Examined(one.key, one.size, one.sha256, places, hashes), b""
        try:  # what cannot be read just now ends it: nothing is deleted that may be sound
            data = await project.bucket.read(one.key)
            wrong = await asyncio.to_thread(examined, data, facts)
        except MissingObjectError:
            wrong = lost_whole(facts)
        sound = [kept for place, kept in enumerate(one.stay) if place not in wrong]
        rotten = [(kept, wrong[place]) for place, kept in enumerate(one.stay) if place in wrong]
        lost += [Damaged(document, one.asset, *how) for (_, documents, _), how in rotten for document in documents]
        key, new = _again(project, one.key, stamp), b""
        if sound:
            kept = Kept(one.key, data, [row for row, _, _ in sound], [sha for *_, sha in sound])
            ((new, _),) = await asyncio.to_thread(repack, [kept])
            await project.bucket.write_own(key, new)
        moved[one.id] = Moved(key, len(new), len(sound), None if rotten else hashlib.sha256(new).digest())
        after = [*sound, *(kept for kept, _ in rotten)]
        rows |= {document: row for row, (_, documents, _) in enumerate(after) for document in documents}
    return moved, rows, lost


async def _rewrite_manifests(
    project: Project, found: Descent, moved: Mapping[int, Moved | None], rows: Mapping[int, int]
) -> tuple[dict[int, Key], list[str], set[int]]:
    """Manifests without what they say of it, under new keys; returns the new keys by commit, the old keys, and the assets whose failures
    may tell of it.

    One that cannot be understood any more may say something of it: it goes, and has no new key.
    """
    async with project.engine.connect() as connection:
        commits = await forgetting.commits(connection, project.id, found.units)
    failing = set(found.units)
    stamp = run_timestamp(datetime.now(UTC))
    new: dict[int, Key] = {}
    old: list[str] = []
    objects = {i: m and m.stated for i, m in moved.items()}
    for number, asset, key in commits:
        if records.is_record(key):
            continue  # of a compaction
        try:
            data = await project.bucket.read(key)
        except MissingObjectError:  # what is not there says nothing itself
            failing.add(asset)
            continue
        try:
            changed = await asyncio.to_thread(rewritten, data, found.materializations, found.units, objects, rows)
        except (ValueError, KeyError, TypeError):  # damaged
            failing.add(asset)
            old.append(key)
            continue
        if changed is not None:
            new[number] = _again(project, key, stamp)
            await project.bucket.write_own(new[number], changed)
            old.append(key)
            failing.add(asset)
    return new, old, failing


async def _rewrite_records(
    project: Project, found: Descent, unit: bytes, name: str, moved: Mapping[int, Moved | None], rows: Mapping[int, int]
) -> tuple[dict[int, Key], list[str]]:
    """Records without what they hold of it, under new keys: runs that name it, what checks said of it, compactions, the subject's key.

    One that cannot be understood any more may hold something of it: it goes, unless its kind never does.

    One that was killed may have left others of the same name: those that it had replaced, which the journal names, and those that it wrote
    and did not come to tell of. Of one name the first that was not replaced holds. Returns the new keys of compactions by commit, and all
    old keys.
    """
    stamp = run_timestamp(datetime.now(UTC))
    new: dict[int, Key] = {}
    listed = sorted([info.key async for info in project.bucket.list(f"{project.name}/") if records.is_record(info.key)])
    replaced = await _replaced(project, listed)
    old: list[str] = [key for key in listed if key in replaced]
    written: set[Key] = set()
    for key in listed:
        if key in replaced:
            continue
        try:
            record = records.decode(await project.bucket.read(key))
        except MissingObjectError:
            continue
        except ValueError:
            if records.kind_of(parse_key(key).artifact_name) not in NAMELESS:
                old.append(key)
            continue
        before = json.dumps(record, sort_keys=True)
        if "keys" in record:
            record["keys"].pop(unit.hex(), None)
        if "checked" in record:
            record["checked"] = [one for one in record["checked"] if not _is_said_of(found, one)]
        if "run" in record:
            _rewrite_run(record, found, name)
        if "compaction" in record:
            _rewrite_compaction(record["compaction"], found, moved, rows)
        if json.dumps(record, sort_keys=True) == before:
            continue
        again = _again(project, key, stamp)
        old.append(key)
        if again in written:
            continue
        if "compaction" in record:
            record["compaction"]["manifest"] = new[record["compaction"]["number"]] = again
        await project.bucket.write_own(again, records.encode(record))
        written.add(again)
    return new, old


async def _replaced(project: Project, listed: Sequence[Key]) -> set[Key]:
    """Of these keys those that the journal says were replaced."""
    told: set[str] = set()
    for key in listed:
        if records.kind_of(parse_key(key).artifact_name) == "journal":
            with suppress(MissingObjectError, ValueError):
                rows = records.decode(await project.bucket.read(key))["journal"]
                told.update(one for row in rows for one in row["facts"].get("replaced", ()))
    return {key for key in listed if key in told}


def _is_said_of(found: Descent, checked: Sequence[Any]) -> bool:
    """Whether what a check said is of it, or has something against the whole of an asset that had some of it."""
    asset, _, scope, _, subject, status, *_ = checked
    return subject in found.materializations or (scope == "asset" and asset in found.units and status != "passed")


def _rewrite_run(record: dict[str, Any], found: Descent, name: str) -> None:
    """A run's record without what checks have against assets that had some of it, and without what names it."""
    run = record["run"]
    record["standing"] = [one for one in record["standing"] if one[0] not in found.units]
    planned = run["plan"].get("plan", {})
    planned |= {key: [] for key in forgetting.PLAN_TELLS if planned.get(key)}
    if name in json.dumps(run, ensure_ascii=False) or forgetting.names_unit(run["selection"], found.every_label):
        run |= {"plan": {}, "selection": FORGOTTEN}


def _rewrite_compaction(
    told: dict[str, Any], found: Descent, moved: Mapping[int, Moved | None], rows: Mapping[int, int]
) -> None:
    """What a compaction moved, without what must go, and in the rows where it is now."""
    told["moves"] = [[d, rows.get(d, row)] for d, row in told["moves"] if d not in found.documents]
    told["let_go"] = [one for one in told["let_go"] if one[0] not in found.documents]
    objects: list[Any] = []
    for one in told["objects"]:
        now = moved.get(one[0], ...)
        if now is ...:
            objects.append(one)
        elif isinstance(now, Moved):
            objects.append([one[0], *now.stated])
    told["objects"] = objects


async def _needles(project: Project, found: Descent, name: str) -> tuple[list[str], int]:
    """What tells that a recorded question or answer holds something of it: its name, and how each text that came of it begins.

    And how many of its documents cannot be read any more: a question that was asked when they could may hold their text, unknown to all.
    """
    async with project.engine.connect() as connection:
        stored = await read.stored(connection, found.documents, kept=False)
    texts, unread = {name}, 0
    for one in stored.values():
        try:
            document = (await project.reader.documents([one._replace(fields=None)], Document))[0]
            texts.add(document.content.decode().strip()[:NEEDLE])
        except DamagedObjectError:
            unread += 1
        except UnicodeDecodeError:
            continue  # what is no text is in no question either
    return [text for text in texts if len(text) >= SHORTEST or text == name], unread


async def _delete_answers(project: Project, needles: Sequence[str]) -> int:
    """Delete what models were asked and answered, where it holds something of it; how much of the rest is left.

    An answer that goes may have been asked about in turn, also by a unit that made nothing: questions are read in the order in which they
    were asked, and looked through for the answers before them. What cannot be understood any more answers nothing, and goes.
    """
    found: list[Key] = []
    said: list[str] = []
    left = 0
    for key in sorted([info.key async for info in project.bucket.list(f"{project.name}/{answers.FLOW}/")]):
        try:
            record = json.loads(await project.bucket.read(key))
            question, told = ("\n".join(_strings(some)) for some in (record["question"], record))
            answer = str(record["answer"]).strip()[:NEEDLE]
        except MissingObjectError:
            continue
        except (ValueError, KeyError, TypeError):
            found.append(key)
            continue
        if any(needle in told for needle in needles) or any(one in question for one in said):
            found.append(key)
            said += [answer] if len(answer) >= SHORTEST else []
        else:
            left += 1
    if found:
        async with project.engine.begin() as connection:
            await answers.forget(connection, found)
        await project.bucket.delete(found)
    return left


def _strings(value: Any) -> Iterator[str]:
    match value:
        case str():
            yield value
        case dict():
            for member in value.values():
                yield from _strings(member)
        case list():
            for member in value:
                yield from _strings(member)
        case _:
            pass


def _again(project: Project, key: Key, stamp: str) -> Key:
    """A new key for what lay under this one: the same name, written now."""
    parts = parse_key(key)
    return object_key(parts.project, parts.flow, stamp, parts.step, parts.artifact_name)


def _signed(project: Project, told: Mapping[str, Any]) -> dict[str, Any]:
    """The report with an Ed25519 signature of this installation's key, which is made at the first report."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # 20 ms, for a report only

    file = project.settings.home / KEY_FILE
    if not file.exists():
        _write_private(file, Ed25519PrivateKey.generate().private_bytes_raw())
    key = Ed25519PrivateKey.from_private_bytes(file.read_bytes())
    signature = key.sign(_bytes(told))
    return {"report": dict(told), "signature": signature.hex(), "public_key": key.public_key().public_bytes_raw().hex()}


def verify_report(report: Mapping[str, Any]) -> bool:
    """Whether a report is as it was signed, by the public key that it names."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(report["public_key"]))
    try:
        key.verify(bytes.fromhex(report["signature"]), _bytes(report["report"]))
    except InvalidSignature:
        return False
    return True


def _bytes(told: Mapping[str, Any]) -> bytes:
    return json.dumps(told, sort_keys=True, separators=(",", ":")).encode()


def _write_private(file: Any, data: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as opened:
        opened.write(data)


def _may_be_indexed(project: Project, name: str) -> bool:
    """Whether an asset has vectors; of one that is not declared here nobody knows."""
    asset = project.graph.assets.get(name)
    return asset is None or issubclass(asset.output.document_type, Embedding)
