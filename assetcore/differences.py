"""Differences: how do two documents differ, or an asset, a unit or a document at two times?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import polars as pl

from assetcore.documents import Document, document_id
from assetcore.errors import AssetcoreError, SelectionError, UsageError
from assetcore.explain import commit_at, find
from assetcore.lineage import read
from assetcore.lineage.named import Found
from assetcore.look import SHOWN
from assetcore.project import Project
from assetcore.reasons import fields_differing, unified
from assetcore.refs import format_ref, parse_ref
from assetcore.storage import Stored
from assetcore.units import shown_unit

__all__ = ["Diff", "compare"]


@dataclass(frozen=True, slots=True)
class Diff:
    """How two documents differ; `diff` is a unified diff where both are text, `fields` are what differs beside the content.

    Of several documents at two times: how many are new, changed and gone, and the first of them, each with its ids.
    """

    before: str
    after: str
    same: bool
    diff: str | None
    documents: tuple[Mapping[str, Any], ...] = ()
    counts: Mapping[str, int] | None = None
    fields: Mapping[str, Mapping[str, Any]] | None = None

    def to_json(self) -> dict[str, Any]:
        found: dict[str, Any] = {"before": self.before, "after": self.after, "same": self.same, "diff": self.diff}
        found |= {"fields": {name: dict(values) for name, values in self.fields.items()}} if self.fields else {}
        several = {"documents": [dict(d) for d in self.documents], "counts": dict(self.counts or {})}
        return found | (several if self.counts is not None else {})


async def compare(project: Project, one: str, other: str | None) -> Diff:
    """How two documents differ; or which documents of a unit or an asset do, at two times. Without `other`, one as it was and is."""
    refs = [parse_ref(one)]
    if other is None and refs[0].time is None:
        raise UsageError("There is nothing to compare with.", hint=f"Say as of when: aipctl diff '{one}@2 hours ago'")
    other = other or str(replace(refs[0], time=None))
    refs.append(parse_ref(other))
    name = refs[0].asset
    if name is not None and name in project.asset_ids and [(r.asset, r.unit) for r in refs] == [(name, None)] * 2:
        return await _compare_assets(project, name, one, other, [ref.time for ref in refs])
    async with project.engine.connect() as connection:
        found = [await find(project, connection, text) for text in (one, other)]
    before, after = found
    if len(before) == len(after) == 1:
        return await _compare_documents(project, one, other, before[0], after[0])
    if (refs[0].asset, refs[0].unit) == (refs[1].asset, refs[1].unit):
        return _compared(refs[0].asset or "", one, other, _frame_of(before), _frame_of(after))
    ref, many = (one, before) if len(before) != 1 else (other, after)
    raise SelectionError(
        f"{ref} names {len(many)} documents.", hint=f"Name one of them, as listed by: aipctl show '{ref}'"
    )


async def _compare_documents(project: Project, one: str, other: str, before: Found, after: Found) -> Diff:
    async with project.engine.connect() as connection:
        places = await read.stored(connection, [before.id, after.id])
    a, b = [await _typed(project, found, places[found.id]) for found in (before, after)]
    try:
        text = unified(a.content.decode(), b.content.decode(), one, other)
    except UnicodeDecodeError:
        text = None
    fields = fields_differing(a, b)
    return Diff(one, other, a.content == b.content and before.identity == after.identity, text, fields=fields)


async def _typed(project: Project, found: Found, place: Stored) -> Document:
    """A document with its typed fields; without them where its class is another by now."""
    kinds = {project.asset_ids[name]: asset.output.document_type for name, asset in project.graph.assets.items()}
    try:
        [document] = await project.reader.documents([place], kinds[found.asset])
    except (AssetcoreError, KeyError):
        [document] = await project.reader.documents([place._replace(fields=None)], Document)
    return document


async def _compare_assets(project: Project, name: str, one: str, other: str, times: Sequence[str | None]) -> Diff:
    """The documents of an asset at two times: rows, not bytes."""
    asset = project.asset_ids[name]
    async with project.engine.connect() as connection:
        commits = [await commit_at(project, connection, time) for time in times]
        frames = [
            (await read.current_documents(connection, project.environment_id, [asset], commit))[asset]
            for commit in commits
        ]
    called = shown_unit(pl.concat([frame.select("unit", "label") for frame in frames])).alias("unit")
    before, after = (frame.select("address", called, "name", "identity", "sha256") for frame in frames)
    return _compared(name, one, other, before, after)


def _frame_of(found: Sequence[Found]) -> pl.DataFrame:
    rows = [(f.address, f.unit, f.name, f.identity, f.sha256) for f in found]
    schema = {"address": pl.Binary, "unit": pl.String, "name": pl.String, "identity": pl.Binary, "sha256": pl.Binary}
    return pl.DataFrame(rows, schema, orient="row")


def _compared(name: str, one: str, other: str, before: pl.DataFrame, after: pl.DataFrame) -> Diff:
    both = before.join(after, on="address", how="full", coalesce=True, suffix="_after")
    differing = both.filter(pl.col("identity").ne_missing(pl.col("identity_after")))
    differing = differing.with_columns(
        pl.coalesce("unit_after", "unit").alias("unit"), pl.coalesce("name_after", "name").alias("name")
    ).sort("unit", "name")
    changes = tuple(
        {
            "document": format_ref(name, row["unit"], row["name"] if row["name"] != row["unit"] else None),
            "change": "new" if row["sha256"] is None else "gone" if row["sha256_after"] is None else "changed",
            "before": None if row["sha256"] is None else document_id(row["sha256"]),
            "after": None if row["sha256_after"] is None else document_id(row["sha256_after"]),
        }
        for row in differing.head(SHOWN).iter_rows(named=True)
    )
    new, gone = differing["sha256"].null_count(), differing["sha256_after"].null_count()
    counts = {"new": new, "changed": differing.height - new - gone, "gone": gone}
    return Diff(one, other, not differing.height, None, changes, counts)
