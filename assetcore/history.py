"""History: what was it, since when, by which run and on whose behalf?

Nothing is updated in place, so the versions of a unit are all there: each with the run that made it current, the run that had made
it (another one, where it was reused), and what differed from the version before.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from assetcore.documents import document_id
from assetcore.errors import NothingSelectedError, UsageError
from assetcore.explain import check_forgotten, check_one, find, in_partition
from assetcore.lineage import damage, named, read
from assetcore.lineage import history as lineage
from assetcore.lineage.asking import by_index
from assetcore.lineage.damage import Losses
from assetcore.lineage.failures import failures_labelled
from assetcore.lineage.history import AssetChange, Version
from assetcore.lineage.named import Found
from assetcore.lineage.schema import Connection
from assetcore.project import Project
from assetcore.refs import format_ref, parse_ref, suggestion
from assetcore.staleness import CAUSES, LOST, Definition, definition_causes

__all__ = ["Change", "History", "history"]


@dataclass(frozen=True, slots=True)
class Change:
    """One change: when, by which run, for whom; `what` is made, unchanged, reused or gone; and how it differs from before.

    That the last attempt to make a unit failed is told, too, by its `error`: it changed nothing.

    `documents` are those that there were from then on (name, id). Of an asset `counts` says to how many units something was done, and
    `units` how many were planned for each cause, `pending` those that were decided when what is above had
    been made; without a plan, `asked` says what was.
    """

    at: datetime
    run: str
    actor: str | None
    what: str
    causes: tuple[str, ...] = ()
    documents: tuple[tuple[str, str], ...] = ()
    made_by: str | None = None
    counts: Mapping[str, Any] | None = None
    units: Mapping[str, int] | None = None
    asked: str | None = None
    error: str | None = None

    def to_json(self) -> dict[str, Any]:
        found = {
            "at": self.at.isoformat(), "run": self.run, "actor": self.actor, "what": self.what, "causes": list(self.causes),
            "documents": [{"document": name, "id": identifier} for name, identifier in self.documents], "made_by": self.made_by,
            "counts": self.counts, "units": dict(self.units) if self.units is not None else None, "asked": self.asked,
        }  # fmt: skip
        return found | ({"error": self.error} if self.error else {})


@dataclass(frozen=True, slots=True)
class History:
    """The changes of an asset, a unit or a document, the latest first."""

    ref: str
    changes: tuple[Change, ...]

    def to_json(self) -> dict[str, Any]:
        return {"ref": self.ref, "changes": [change.to_json() for change in self.changes]}


async def history(project: Project, text: str, limit: int) -> History:
    """What was done to what a REF names. Raises NothingSelectedError, SelectionError, UsageError where the limit leaves nothing."""
    if limit < 1:
        raise UsageError(f"At least one change is to be told; found limit={limit}.")
    ref = parse_ref(text)
    async with project.engine.connect() as connection:
        name, label, document = ref.asset, ref.unit, ref.document
        if name is None or name not in project.asset_ids:
            found = (await find(project, connection, text))[0]
            name, label, document = {i: n for n, i in project.asset_ids.items()}[found.asset], found.unit, found.name
        if label is None:
            rows = await lineage.asset_changes(connection, project.environment_id, project.asset_ids[name], limit)
            changes = [_of_run(row) for row in rows]
        else:
            changes = (await _of_unit(project, connection, name, label, document))[:limit]
    if not changes:
        raise NothingSelectedError(f"{text} was never made in {project.environment}.", hint="See: aipctl ls")
    return History(format_ref(name, label, document), tuple(changes))


def _of_run(row: AssetChange) -> Change:
    """What a run did to an asset, and for which causes, as its plan has them."""
    what, told = row.status or "committed", row.planned
    if told is None:
        return Change(row.at, row.run, row.actor, what, counts=dict(row.counts), asked=row.asked)
    units: dict[str, int] = Counter(told["causes"]) + Counter({"input-removed": told["removed"]})
    touched = sum(row.counts.get(done, 0) for done in ("made", "unchanged", "reused", "failed"))
    pending = max(told["pending"], touched - sum(told["causes"].values()))
    causes = tuple(cause for cause in CAUSES if cause in units)
    units = {cause: units[cause] for cause in causes} | ({"pending": pending} if pending else {})
    return Change(row.at, row.run, row.actor, what, causes, counts=dict(row.counts), units=units)


async def _of_unit(
    project: Project, connection: Connection, name: str, label: str, document: str | None
) -> list[Change]:
    asset = project.asset_ids[name]
    await by_index(connection)
    units = await lineage.units_ever(connection, asset, label)
    units = units or await in_partition(project, connection, name, label)
    if not units:
        if failed := await _failed(project, connection, asset, label):
            return failed
        await check_forgotten(project, connection, name, label)
        known = await named.of_asset(connection, project.environment_id, asset, limit=5000)
        raise NothingSelectedError(
            f"{name} never had a unit {label!r}.", hint=suggestion(label, {f.unit for f in known})
        )
    check_one(name, label, units)
    unit, own, _ = units[0]
    versions = await lineage.versions(connection, project.environment_id, asset, [unit], own)
    documents = await named.look_up(connection, {d for version in versions for d in version.documents})
    definitions = (await read.definitions(connection, [asset]))[asset]
    losses = await damage.losses(connection, asset, documents.keys())
    changes = _changes(versions[::-1], documents, definitions, losses, document)
    failed = await _failed(project, connection, asset, own, unit) if document is None else []
    return [*failed, *changes[::-1]]


async def _failed(
    project: Project, connection: Connection, asset: int, label: str, unit: bytes | None = None
) -> list[Change]:
    """The last attempts to make units of this label, or this one of them, where they failed: of those before nothing is kept."""
    failures = await failures_labelled(connection, project.environment_id, asset, label)
    return [Change(f.at, f.run, f.actor, "failed", error=f.error) for f in failures if unit in (None, f.unit)]


def _changes(
    versions: Sequence[Version],
    documents: Mapping[int, Found],
    definitions: Mapping[int, Definition],
    losses: Losses,
    document: str | None,
) -> list[Change]:
    """From the oldest on; of one document only those that changed it."""
    changes: list[Change] = []
    before: Version | None = None
    shown: list[int] | None = None
    for version, after in zip(versions, [*versions[1:], None], strict=True):
        held = [d for d in version.documents if document is None or documents[d].name == document]
        if document is None or held != (shown or []):
            listed = tuple((documents[d].name, document_id(documents[d].sha256)) for d in held)
            what = "gone" if document is not None and not held else _what(version, before, held == shown)
            made_by = version.made_by if version.made_by != version.run else None
            causes = _causes(version, before, definitions, losses)
            changes.append(Change(version.at, version.run, version.actor, what, causes, listed, made_by))
        before, shown = version, held
        if version.until is not None and (after is None or after.since != version.until) and version.until_at and shown:
            changes.append(
                Change(version.until_at, version.until_run or "", version.until_actor, "gone", ("input-removed",))
            )
            shown = None
    return changes


def _what(version: Version, before: Version | None, same: bool) -> str:
    if version.made_by != version.run and before is not None:
        return "reused"
    return "unchanged" if before is not None and same else "made"


def _causes(
    version: Version, before: Version | None, definitions: Mapping[int, Definition], losses: Losses
) -> tuple[str, ...]:
    """How the recipe differs from the one before; where it does not, what else the run's plan had to say."""
    planned = (version.planned or {}).get("causes", {})
    forced = ("forced",) if "forced" in planned else ()  # of an asset that is forced, whatever is made
    if before is None or (before.until is not None and before.until < version.since):
        return (*forced, "missing")
    causes: tuple[str, ...] = ()
    was, now = definitions.get(before.definition), definitions.get(version.definition)
    if was is not None and now is not None:
        causes = definition_causes(was, now)
    causes = (*forced, *causes, *(("input-changed",) if before.inputs != version.inputs else ()))
    return causes or _same_recipe(version, before, losses)


def _same_recipe(version: Version, before: Version, losses: Losses) -> tuple[str, ...]:
    """Why a unit was made again with the recipe that it had: its bytes were lost, or it had expired.

    Where the plan has one cause of these, it is that one. Where it has several, what is noted of the unit's documents decides: nothing,
    while losses of that time are still known, says that none was lost.
    """
    told = version.planned or {}
    planned = told.get("causes", LOST if told.get("lost") else ())  # of a source how many are lost
    found = tuple(cause for cause in (*LOST, "expired") if cause in planned)
    if len(found) < 2:
        return found
    noted = [losses.noted[d] for d in before.documents if d in losses.noted]
    lost = {cause for cause, at in noted if at <= version.at}
    if lost:
        return tuple(cause for cause in found if cause in lost)
    whole = not noted and losses.since is not None and losses.since <= version.at
    return ("expired",) if whole and "expired" in found else ()
