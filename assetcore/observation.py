"""Observation: which documents do the sources have now, and what was seen of them the last time?

A look begins with a glance, which lists the files of a folder and reads none. Where it finds what the last one found, nothing has changed,
and not even what is known is read. What a look has found is kept, so that the next one reads only what differs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import polars as pl

from assetcore import sources
from assetcore.assets import Source
from assetcore.digest import sequence_digest, short_digest
from assetcore.errors import AssetcoreError
from assetcore.frames import joined, without
from assetcore.graph import AnyAsset
from assetcore.lineage import commit as lineage
from assetcore.lineage.asking import about_few
from assetcore.lineage.looks import LastLook, last_looks, observations
from assetcore.lineage.schema import Connection
from assetcore.project import Project
from assetcore.units import document_address, group_address, sort_documents

__all__ = ["Look", "as_documents", "completed", "observe", "observe_one", "observed_digest", "source_unit"]


class Look(NamedTuple):
    """A look at a source: how many documents it has, the digest of their identities; what was observed, and what had been the last time
    (name, identity). These two are None where a glance told that nothing has changed: what was observed then is still what there is.
    """

    documents: int
    digest: str
    observed: pl.DataFrame | None = None
    before: pl.DataFrame | None = None

    @classmethod
    def at(cls, observed: pl.DataFrame, before: pl.DataFrame | None) -> Look:
        """A look that observed this."""
        return cls(observed.height, observed_digest(observed), observed, before)


async def observe(
    project: Project,
    names: Sequence[str],
    *,
    rehash: bool = False,
    unread: Mapping[str, sources.Unread] | None = None,
    closely: Collection[str] = (),
) -> dict[str, Look]:
    """Look at sources: of each a row a document. What was found is remembered, so that only what differs is read next time.

    Where a glance tells that nothing has changed, not even what is known is read, unless the source is in `closely`. With `unread`,
    documents that cannot be read are put there.
    """
    if not names:
        return {}
    glances = await asyncio.gather(*(sources.glance(_source(project, n), project.root) for n in names))
    seen = dict(zip(names, glances, strict=True))
    async with project.engine.connect() as connection:
        # Before what is known is read: whoever keeps a look in between is noticed when this one is kept.
        last = await last_looks(connection, [project.asset_ids[n] for n in names])
        same = {
            name: Look(was.documents, was.observed.hex())
            for name, one in seen.items()
            if one is not None and one.digest is not None and not one.unread and not rehash and name not in closely
            if (was := last.get(project.asset_ids[name])) is not None and was.glance == one.digest
        }
        others = [n for n in names if n not in same]
        known = await observations(connection, [project.asset_ids[n] for n in others]) if others else {}

    async def look(name: str) -> Look:
        identifier = project.asset_ids[name]
        problems = None if unread is None else unread[name]
        return await _observe(project, name, known.pop(identifier), rehash, problems, seen[name], last.get(identifier))

    found = same | dict(zip(others, await asyncio.gather(*map(look, others)), strict=True))
    return {name: found[name] for name in names}


async def _observe(
    project: Project,
    name: str,
    known: pl.DataFrame,
    rehash: bool,
    unread: sources.Unread | None,
    glance: sources.Glance | None,
    last: LastLook | None,
) -> Look:
    source, identifier = _source(project, name), project.asset_ids[name]
    observed = await sources.observe(
        source,
        project.root,
        _named(known, "field_digests", "fields"),
        rehash=rehash,
        settings=project.settings,
        unread=unread,
        glanced=glance,
    )
    observed = _named(observed, "fields", "field_digests")[known.columns]
    found = Look.at(observed, known["name", "identity"])
    telling = glance.digest if glance is not None and _has_settled(observed, glance) and not unread else None
    if project.writable and (telling != (None if last is None else last.glance) or not observed.equals(known)):
        identities = bytes.fromhex(found.digest)
        async with project.engine.begin() as connection:
            await lineage.keep_observation(connection, identifier, last, known, observed, telling, identities)
    return found


def _has_settled(observed: pl.DataFrame, glance: sources.Glance) -> bool:
    """Whether all that was glanced at was observed, and nothing was written so lately that it may change without its time telling so."""
    return observed.height == len(glance.files.names) and bool((observed["mtime_ns"] != 0).all())


async def completed(project: Project, connection: Connection, looks: Mapping[str, Look]) -> dict[str, Look]:
    """These looks with what was observed: where there was only a glance, that is what the last look has observed.

    A source of which that is not known any more, because somebody else has looked meanwhile, is left out.
    """
    glanced = {name: project.asset_ids[name] for name, one in looks.items() if one.observed is None}
    known = await observations(connection, glanced.values()) if glanced else {}
    found = {name: Look.at(known[i], known[i]["name", "identity"]) for name, i in glanced.items()}
    found = {name: one for name, one in found.items() if one.digest == looks[name].digest}
    return {name: found.get(name, one) for name, one in looks.items() if name in found or name not in glanced}


async def observe_one(project: Project, connection: Connection, name: str, document: str) -> pl.DataFrame:
    """Look at one document of a source, where it can be asked for one. Nothing is remembered: it is no look at the source."""
    source = project.graph.assets[name]
    assert isinstance(source, Source)
    if not sources.looks_at_one(source):
        await connection.rollback()  # no transaction waits for the world outside
        seen = (await observe(project, [name], unread={name: []}, closely=[name]))[name].observed
        assert seen is not None
        await about_few(connection)
        return seen.filter(pl.col("name") == document)
    identifier = project.asset_ids[name]
    known = (await observations(connection, [identifier], [document]))[identifier]
    observed = await sources.observe(
        source, project.root, _named(known, "field_digests", "fields"), only=[document], unread=[]
    )
    return _named(observed, "fields", "field_digests")[known.columns]


def as_documents(source: AnyAsset, observed: pl.DataFrame, known: pl.DataFrame) -> pl.DataFrame:
    """What was observed, as documents (`units.DOCUMENTS`): those that lineage knows keep their identifiers."""
    facts = known[["name", "document", "address", "unit"]].hstack([known["identity"].alias("was")])
    rows = joined(observed, facts, "name", "left")
    units = [u or source_unit(n) for u, n in zip(rows["unit"], rows["name"], strict=True)]
    addresses = [a or document_address(u, n) for a, u, n in zip(rows["address"], units, rows["name"], strict=True)]
    documents = rows.select_seq(
        pl.when(pl.col("identity") == pl.col("was")).then("document").otherwise(None).alias("document"),
        pl.Series("address", addresses, pl.Binary), pl.Series("unit", units, pl.Binary), pl.col("name").alias("label"), "name",
        pl.lit(1, pl.Int64).alias("position"), "identity", pl.lit(value=False).alias("pending"), "media_type", "sha256", "field_digests",
        pl.col("name").alias("path"),
    )  # fmt: skip
    for value in (column for column in known.columns if column.startswith("value:")):
        group = group_address(source.output, value.removeprefix("value:")).alias("group")
        labels = known.select(group, value).unique("group", keep="any")
        documents = without(joined(documents.with_columns(group), labels, "group", "left"), "group")
    return sort_documents(documents)


def observed_digest(observed: pl.DataFrame) -> str:
    """One value for all that was observed of a source."""
    return sequence_digest("observed", observed["identity"]).hex()


def source_unit(name: str) -> bytes:
    """The unit of one observed document."""
    return short_digest("source", name)


def _named(frame: pl.DataFrame, before: str, after: str) -> pl.DataFrame:
    """The frame with a column by another name; there may be thousands of sources, and `rename` is a query."""
    return pl.DataFrame([column.alias(after) if column.name == before else column for column in frame.iter_columns()])


def _source(project: Project, name: str) -> Source:
    source = project.graph.assets[name]
    if not isinstance(source, Source):
        raise AssetcoreError(f"{name} is not a source.")
    return source
