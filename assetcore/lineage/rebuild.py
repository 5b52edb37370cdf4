"""Rebuild: how does Postgres come to say what the bucket tells, and does it?

Both directions are sets: a table is copied at once, and compared with what Postgres holds as columns. Identifiers are those that the
manifests name, so that what was written before the loss and what is written after it speak of the same things.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Mapping, Set
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple, TypeVar

import polars as pl
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from assetcore.lineage import acceptances, journal
from assetcore.lineage import tables as t
from assetcore.lineage.acceptances import FORGOTTEN, Acceptance
from assetcore.lineage.asking import columns
from assetcore.lineage.commit import copy, keep_types
from assetcore.lineage.environments import Base, Pin
from assetcore.lineage.journal import Entry, Row
from assetcore.lineage.replay import SOURCE, Catalog, as_stated
from assetcore.storage import Key

__all__ = ["Difference", "commits", "compare", "known_runs", "places", "rebuild", "rows_told"]

REBUILT = (
    t.journal, t.journal_batch, t.subject_key, t.borrowed, t.acceptance,
    t.damage, t.verified, t.repeat, t.unshown,
    t.check_standing, t.check_result, t.check_version, t.look,
    t.observation, t.watermark, t.failure, t.head, t.collected, t.edge, t.spent,
    t.excerpt, t.typed, t.document, t.materialization, t.object_, t.commit, t.run_asset, t.run, t.part, t.definition,
)  # fmt: skip
"""What is emptied before it is written anew, each table before those that it points to; then what has a name."""
BLOCK = 1 << 20
Name = TypeVar("Name")


@dataclass(frozen=True, slots=True)
class Difference:
    """How a table in Postgres differs from what the bucket tells: rows that only one of them has, and one of these."""

    table: str
    rows: int
    only_bucket: int
    only_postgres: int
    example: str | None

    @property
    def same(self) -> bool:
        return not (self.only_bucket or self.only_postgres)


async def commits(connection: AsyncConnection) -> set[int]:
    """The numbers of all commits."""
    return set((await connection.execute(sa.select(t.commit.c.id))).scalars())


async def known_runs(connection: AsyncConnection) -> set[str]:
    """The identifiers of all runs."""
    return set((await connection.execute(sa.select(t.run.c.id))).scalars())


async def rows_told(connection: AsyncConnection) -> int:
    """How many things the journals tell: whatever is done adds a row."""
    return (await connection.execute(sa.select(sa.func.count()).select_from(t.journal))).scalar_one()


async def places(connection: AsyncConnection) -> dict[str, list[str]]:
    """The environments of all projects, whether there is anything in them or not."""
    rows = await connection.execute(
        sa.select(t.project.c.name, t.environment.c.name).join_from(t.environment, t.project).order_by(t.project.c.id)
    )
    found: dict[str, list[str]] = {}
    for project, environment in rows:
        found.setdefault(project, []).append(environment)
    return found


async def rebuild(connection: AsyncConnection, told: Catalog, digests: Mapping[Key, bytes]) -> dict[str, int]:
    """Write all that the bucket tells in the place of what there is; returns the rows of each large table.

    `digests` are those of the records: the batches of the journals bear witness of their rows from then on.
    """
    for table in REBUILT:
        await connection.execute(sa.delete(table))
    projects, environments = await _write_names(connection, told, await _named(connection))
    definitions = {key: number for number, key in enumerate(told.definitions, 1)}
    await _insert(
        connection, t.definition,
        [{"id": number, "asset_id": asset, "digest": digest, "facts": dict(told.definitions[asset, digest][0]),
          "at": told.definitions[asset, digest][1]} for (asset, digest), number in definitions.items()],
    )  # fmt: skip
    await _insert(connection, t.part, [{"digest": digest, "source": source} for digest, source in told.parts.items()])
    await _write_runs(connection, told, projects, environments)
    documents = told.tables["document"].select("type", "media_type").unique()
    types = await keep_types(connection, set(documents.iter_rows()))
    frames = _with_identifiers(told, projects, environments, definitions, types)
    for table in (
        t.commit,
        t.object_,
        t.damage,
        t.document,
        t.typed,
        t.materialization,
        t.edge,
        t.collected,
        t.spent,
        t.excerpt,
        t.head,
        t.failure,
        t.watermark,
        t.observation,
        t.borrowed,
    ):
        await copy(connection, table, frames[table.name].iter_rows())
    await _continue_numbers(connection, told)
    await _continue_journals(connection, told, projects, digests)
    return {name: frame.height for name, frame in told.tables.items()}


class _Named(NamedTuple):
    """What had a name: who has opened a project knows these by their identifiers, and goes on with them."""

    projects: Mapping[str, int]
    environments: Mapping[tuple[str, str], int]
    assets: Mapping[int, tuple[str, Mapping[str, Any]]]


async def _named(connection: AsyncConnection) -> _Named:
    """Empty the tables of what has a name; returns what there was."""
    e, a, p = t.environment.c, t.asset.c, t.project.c
    assets = (await connection.execute(sa.delete(t.asset).returning(*t.asset.c))).mappings().all()
    rows = (await connection.execute(sa.delete(t.environment).returning(e.project_id, e.name, e.id))).all()
    names: dict[int, str] = dict((await connection.execute(sa.delete(t.project).returning(p.id, p.name))).all())
    facts = (a.name.name, a.former.name, a.kind.name, a.flow.name)
    return _Named(
        {name: number for number, name in names.items()},
        {(names[project], name): number for project, name, number in rows},
        {one["id"]: (names[one["project_id"]], {fact: one[fact] for fact in facts}) for one in assets},
    )


async def _write_names(
    connection: AsyncConnection, told: Catalog, before: _Named
) -> tuple[dict[str, int], dict[tuple[str, str], int]]:
    """Projects, environments and assets, with the identifiers that they had; returns those of the first two, as far as they are told.

    What was there and is not told had nothing: it stays, for those who are about to make something in it.
    """
    projects = _numbered(dict.fromkeys(project for project, _ in told.environments), before.projects)
    environments = _numbered(told.environments, before.environments)
    every = {**before.projects, **projects}
    await _insert(connection, t.project, [{"id": number, "name": name} for name, number in every.items()])
    await _insert(
        connection, t.environment,
        [{"id": number, "project_id": every[project], "name": name, **_created(told, (project, name), environments)}
         for (project, name), number in {**before.environments, **environments}.items()],
    )  # fmt: skip
    taken = {(project, facts["name"]) for project, facts in told.assets.values()}
    others = {
        i: one for i, one in before.assets.items() if i not in told.assets and (one[0], one[1]["name"]) not in taken
    }
    await _insert(
        connection, t.asset,
        [{"id": i, "project_id": every[project], "former": [], **facts} for i, (project, facts) in {**others, **told.assets}.items()],
    )  # fmt: skip
    return projects, environments


def _numbered(names: Iterable[Name], before: Mapping[Name, int]) -> dict[Name, int]:
    """An identifier for each: the one that it had, or one that nothing has."""
    new = itertools.count(max(before.values(), default=0) + 1)
    return {name: before[name] if name in before else next(new) for name in names}


def _created(told: Catalog, place: tuple[str, str], environments: Mapping[tuple[str, str], int]) -> dict[str, Any]:
    """When an environment was created, and from what; and when it was dropped."""
    view, drops = told.views.views.get(place), told.views.dropped(place)
    if view is None:
        return {"base": None, "created_at": None, "drops": drops}
    there = {name: number for (project, name), number in environments.items() if project == place[0]}
    pins = {asset: Pin(changed, there[lender], at) for asset, (changed, lender, at) in view.pins.items()}
    return {"base": Base(there[view.base], pins).to_json(), "created_at": view.created_at, "drops": drops}


async def _write_runs(
    connection: AsyncConnection, told: Catalog, projects: Mapping[str, int], environments: Mapping[tuple[str, str], int]
) -> None:
    """Runs, what they did to each asset, and what checks said in them."""
    runs = [r for r in told.runs.values() if (r["project"], r["environment"]) in environments]
    places = [
        {"project_id": projects[r["project"]], "environment_id": environments[r["project"], r["environment"]]}
        for r in runs
    ]
    moments = [
        {n: r["run"][n] and datetime.fromisoformat(r["run"][n]) for n in ("started_at", "finished_at")} for r in runs
    ]
    await _insert(
        connection,
        t.run,
        [{**r["run"], **moment, **place} for r, moment, place in zip(runs, moments, places, strict=True)],
    )
    await _insert(
        connection, t.run_asset,
        [{"run_id": r["run"]["id"], "asset": a, "counts": c, "seconds": s} for r in runs for a, c, s in r["assets"]],
    )  # fmt: skip
    checks: dict[tuple[int, str, str, bytes], int] = {}
    results: dict[tuple[int, int], tuple[Any, ...]] = {}
    standing: dict[tuple[int, int], dict[str, Any]] = {}
    for run, place in sorted(zip(runs, places, strict=True), key=lambda pair: pair[0]["run"]["started_at"]):
        for asset, name, scope, digest, subject, status, blocking, message, traceback, at in run["checked"]:
            check = checks.setdefault((asset, name, scope, bytes.fromhex(digest)), len(checks) + 1)
            then = datetime.fromisoformat(at)
            results[subject, check] = (subject, check, status, blocking, message, traceback, run["run"]["id"], then)
        for asset, name, scope, digest, last, passed, failed, errors, findings, at in run["standing"]:
            check = checks.setdefault((asset, name, scope, bytes.fromhex(digest)), len(checks) + 1)
            standing[place["environment_id"], check] = {
                "environment_id": place["environment_id"], "check_id": check, "last_commit": last, "passed": passed, "failed": failed,
                "errors": errors, "findings": findings, "at": datetime.fromisoformat(at),
            }  # fmt: skip
    await _insert(
        connection, t.check_version,
        [{"id": i, "asset_id": a, "name": n, "scope": s, "digest": d} for (a, n, s, d), i in checks.items() if a in told.assets],
    )  # fmt: skip
    await copy(connection, t.check_result, list(results.values()))
    await _insert(connection, t.check_standing, list(standing.values()))


def _with_identifiers(
    told: Catalog, projects: Mapping[str, int], environments: Mapping[tuple[str, str], int], definitions: Mapping[tuple[int, bytes], int],
    types: Mapping[tuple[str, str], int],
) -> dict[str, pl.DataFrame]:  # fmt: skip
    """The large tables in the columns of Postgres: environments and definitions by identifier instead of name and digest."""
    places = pl.DataFrame(
        [(project, name, projects[project], number) for (project, name), number in environments.items()],
        {"project": pl.String, "environment": pl.String, "project_id": pl.Int64, "environment_id": pl.Int64},
        orient="row",
    )
    made_with = pl.DataFrame(
        [(asset, digest, number) for (asset, digest), number in definitions.items()],
        {"asset": pl.Int64, "definition": pl.Binary, "definition_id": pl.Int64},
        orient="row",
    )
    found: dict[str, pl.DataFrame] = {}
    order = {
        "commit": ("number", "project_id", "environment_id", "asset", "run", "manifest", "at"),
        "document": ("id", "materialization", "object", "size", "asset", "type_id", "row", "address", "name", "sha256",
                     "field_digests", "identity"),
        "edge": ("materialization", "document", "parameter"),
        "head": ("materialization", "since", "until", "environment_id", "asset", "unit"),
        "collected": ("materialization", "parameter", "asset", "environment_id", "commit"),
        "materialization": ("id", "given", "asset", "definition_id", "seconds", "unit", "label", "parent", "inputs", "documents"),
        "borrowed": ("environment_id", "asset", "lender_id", "at", "since", "until"),
        "failure": ("environment_id", "asset", "unit", "label", "definition_id", "inputs", "error", "traceback", "run", "at"),
        "watermark": ("environment_id", "asset", "changed", "last", "settled", "units", "documents", "at"),
    }  # fmt: skip
    kinds = pl.DataFrame(
        [(*kind, number) for kind, number in types.items()],
        {"type": pl.String, "media_type": pl.String, "type_id": pl.Int64},
        orient="row",
    )
    for name, frame in _as_kept(told.tables).items():
        if "environment" in frame.columns:
            frame = frame.join(places, on=["project", "environment"], how="left")
        if "lender" in frame.columns:
            lenders = places.select("project", lender="environment", lender_id="environment_id")
            frame = frame.join(lenders, on=["project", "lender"], how="left")
        if "type" in frame.columns:
            frame = frame.join(kinds, on=["type", "media_type"], how="left")
        if "definition" in frame.columns:
            frame = frame.join(made_with, on=["asset", "definition"], how="left").with_columns(
                pl.col("definition_id").fill_null(0)
            )
        if name == "watermark":
            frame = frame.with_columns(settled=pl.lit(None, pl.String))
        found[name] = frame.select(order.get(name, frame.columns))
    return found


def _as_kept(tables: Mapping[str, pl.DataFrame]) -> dict[str, pl.DataFrame]:
    """What Postgres keeps beside the row that it is of, or in it: typed fields, the one document that a unit was given, or made."""
    made, edges, documents = tables["materialization"], tables["edge"], tables["document"]
    first = edges.filter(pl.col("parameter") == 0).filter(pl.len().over("materialization") == 1)
    given = first.select("document", id="materialization").rename({"document": "given"})
    numbered = pl.col("documents").list.len() == 1, pl.col("documents").list.first() == pl.col("id") - 1
    made = made.join(given, on="id", how="left", maintain_order="left").with_columns(
        documents=pl.when(~pl.all_horizontal(numbered)).then("documents")
    )
    return dict(tables) | {
        "materialization": made,
        "edge": edges.join(first, on=edges.columns, how="anti", maintain_order="left"),
        "typed": documents.filter(pl.col("fields").is_not_null()).select("id", "fields"),
    }


async def _continue_numbers(connection: AsyncConnection, told: Catalog) -> None:
    """What is numbered from now on comes after all that the bucket tells of, also what never came about or is missing."""
    identified = [told.tables[name]["id"] for name in ("object", "document", "materialization")]
    blocks = [number // BLOCK for ids in identified for number in ids.sort().tail(1).to_list()]
    last = max([0, *told.missing, *told.undone, *told.tables["commit"]["number"], *blocks])
    await connection.execute(sa.select(sa.func.setval(t.block.name, max(last, 1))))
    for table in (t.project, t.environment, t.asset, t.definition, t.check_version):
        highest = sa.select(sa.func.coalesce(sa.func.max(table.c.id), 0) + 1).scalar_subquery()
        sequence = sa.func.pg_get_serial_sequence(table.name, "id")
        await connection.execute(sa.select(sa.func.setval(sequence, highest, sa.false())))


async def _continue_journals(
    connection: AsyncConnection, told: Catalog, projects: Mapping[str, int], digests: Mapping[Key, bytes]
) -> None:
    """What was written of the journals, and one more row in each: which commits they do not tell, because Postgres was lost too soon.

    Its number comes after those of rows that were written and cannot be read any more: they are missing, and nothing takes their place.
    """
    subjects = [
        {"project_id": projects[project], "subject": subject, "key": key}
        for (project, subject), key in told.keys.items()
        if project in projects
    ]
    await _insert(connection, t.subject_key, subjects)
    commits = told.tables["commit"]
    for project, identifier in projects.items():
        rows = [Row.from_json(row) for row in told.journal.get(project, ())]
        await journal.restore(connection, identifier, rows)
        await acceptances.restore(connection, _accepted(told, project))
        known = {row.commit for row in rows}
        numbers = [n for n in commits.filter(pl.col("project") == project)["number"] if n not in known]
        facts = {"commits": len(commits), "missing": len(told.missing), "untold": numbers}
        kept = journal.witnesses(project, digests)
        await journal.note_batches(connection, identifier, kept)
        last = max((one.last for one in kept), default=0)
        await journal.append(connection, identifier, Entry("rebuild", facts=facts), after=last)


def _accepted(told: Catalog, project: str) -> list[Acceptance]:
    """What was accepted, as the journal tells it; the units that were tried by their labels, where they are not forgotten."""
    rows = [row for row in told.journal.get(project, ()) if row["what"] == "accept" and "units" in row["facts"]]
    made = told.tables["materialization"].filter(pl.col("asset").is_in([row["facts"]["asset_id"] for row in rows]))
    labels = {(asset, unit): label for asset, unit, label in made.select("asset", "unit", "label").iter_rows()}
    found: list[Acceptance] = []
    for row in rows:
        facts = row["facts"]
        units = tuple(labels.get((facts["asset_id"], bytes.fromhex(unit)), FORGOTTEN) for unit in facts["units"])
        old, new, at = bytes.fromhex(facts["old"]), bytes.fromhex(facts["new"]), datetime.fromisoformat(row["at"])
        found.append(Acceptance(facts["asset_id"], old, new, units, row["why"], row["actor"], at))
    return found


async def _insert(connection: AsyncConnection, table: sa.Table, rows: list[dict[str, Any]]) -> None:
    if rows:
        await connection.execute(insert(table), rows)


async def compare(connection: AsyncConnection, told: Catalog) -> list[Difference]:
    """Each table of Postgres beside what the bucket tells. Not what may be lost: failures, looks at sources, what was found settled."""
    found: list[Difference] = []
    for name, statement in _statements().items():
        here = told.tables[name]
        shape = {column: here.schema[column] for column in map(str, statement.selected_columns.keys())}
        if name == "object":  # those that were replaced go when they are old enough
            here = here.filter(pl.col("retired").is_null())
        if name == "materialization":
            here = here.with_columns(pl.col("documents").cast(pl.List(pl.String)).list.join(","))
            shape["documents"] = pl.String()
        there = await columns(connection, statement, shape)
        found.append(_difference(name, here.select(list(shape)), there))
    return [
        *found,
        await _definitions(connection, told),
        await _environments(connection, told),
        await _acceptances(connection, told),
    ]


def _difference(table: str, told: pl.DataFrame, found: pl.DataFrame) -> Difference:
    only_told = told.join(found, on=told.columns, how="anti", nulls_equal=True)
    only_found = found.join(told, on=told.columns, how="anti", nulls_equal=True)
    example = next((one for frame in (only_told, only_found) for one in frame.head(1).iter_rows(named=True)), None)
    text = (
        None
        if example is None
        else ", ".join(f"{n} {v.hex() if isinstance(v, bytes) else v}" for n, v in example.items())
    )
    return Difference(table, told.height, only_told.height, only_found.height, text)


def _statements() -> dict[str, sa.Select[*tuple[Any, ...]]]:
    """What is read of each large table, under the names that `replay.TABLES` has."""
    o, d, m, e, c, s, x, h, k = (
        table.c
        for table in (
            t.object_,
            t.document,
            t.materialization,
            t.given,
            t.collected,
            t.spent,
            t.excerpt,
            t.head,
            t.commit,
        )
    )
    b, y, lender = t.borrowed.c, t.document_type.c, t.environment.alias("lender")
    project, environment = t.project.c.name.label("project"), t.environment.c.name.label("environment")

    def placed(table: sa.Table) -> sa.Join:
        there = table.join(t.environment, t.environment.c.id == table.c.environment_id)
        return there.join(t.project, t.project.c.id == t.environment.c.project_id)

    digest = sa.func.coalesce(t.definition.c.digest, sa.literal(SOURCE, sa.LargeBinary)).label("definition")
    documents = sa.func.array_to_string(t.documents_of(m), ",").label("documents")
    return {
        "object": sa.select(o.id, o.asset_id.label("asset"), o.key, o.size, o.rows, o.sha256).where(
            o.retired_at.is_(None)
        ),
        "document": sa.select(
            d.id, d.asset_id.label("asset"), d.materialization_id.label("materialization"), d.address, d.name, y.type,
            y.media_type, d.size, d.sha256, d.field_digests, d.identity, d.object_id.label("object"), d.row,
        ).join_from(t.document, t.document_type, y.id == d.type_id),
        "materialization": sa.select(
            m.id, m.asset_id.label("asset"), digest, m.unit, m.label, m.parent, m.inputs, documents,
        ).select_from(t.materialization.outerjoin(t.definition, t.definition.c.id == m.definition_id)),
        "edge": sa.select(e.materialization_id.label("materialization"), e.parameter, e.document_id.label("document")).where(
            e.document_id.is_not(None)
        ),
        "collected": sa.select(
            c.materialization_id.label("materialization"), c.parameter, c.asset_id.label("asset"), project, environment,
            c.commit_id.label("commit"),
        ).select_from(placed(t.collected)),
        "spent": sa.select(s.materialization_id.label("materialization"), s.tokens, s.usd, s.cached_tokens, s.models),
        "excerpt": sa.select(
            x.materialization_id.label("materialization"), x.document_id.label("document"), x.whole_id.label("whole"), x.kind, x.start,
            x.end, x.pointer,
        ),
        "head": sa.select(
            project, environment, h.asset_id.label("asset"), h.unit, h.materialization_id.label("materialization"),
            h.since_commit.label("since"), h.until_commit.label("until"),
        ).select_from(placed(t.head)),
        "borrowed": sa.select(
            project, environment, b.asset_id.label("asset"), lender.c.name.label("lender"), b.at_commit.label("at"),
            b.since_commit.label("since"), b.until_commit.label("until"),
        ).select_from(placed(t.borrowed).join(lender, lender.c.id == b.lender_id)),
        "commit": sa.select(
            k.id.label("number"), project, environment, k.asset_id.label("asset"), k.run_id.label("run"), k.manifest,
        ).select_from(placed(t.commit)),
    }  # fmt: skip


async def _definitions(connection: AsyncConnection, told: Catalog) -> Difference:
    """Definitions and the sources of code, by their digests.

    Both are written before the first commit of an asset that is made with them. Where a run was stopped in between, nothing was made
    with a definition that Postgres alone has, or with a part that the bucket alone has: it does not count.
    """
    d = t.definition.c
    used = sa.union(sa.select(t.materialization.c.definition_id), sa.select(t.failure.c.definition_id))
    rows = await connection.execute(sa.select(d.asset_id, d.facts, d.id.in_(used)))
    found = {(asset, as_stated(facts).digest): is_used for asset, facts, is_used in rows}
    known = {one for one, is_used in found.items() if is_used or one in told.definitions}
    parts = set((await connection.execute(sa.select(t.part.c.digest))).scalars())
    named = parts | {bytes.fromhex(part) for facts, _ in told.definitions.values() for part in _parts(facts)}
    return _small(
        "definition",
        {("definition", *one) for one in told.definitions}
        | {("part", 0, part) for part in told.parts if part in named},
        {("definition", *one) for one in known} | {("part", 0, part) for part in parts},
    )


def _parts(facts: Mapping[str, Any]) -> Collection[str]:
    """The digests of the parts of the code that a definition names."""
    return (facts.get("code", {}).get("detail") or {}).values()


async def _environments(connection: AsyncConnection, told: Catalog) -> Difference:
    """What environments were created from, by names, and with which commits those that had anything were dropped."""
    e = t.environment.c
    shown = sa.select(e.id, t.project.c.name, e.name, e.base, e.drops)
    rows = list(await connection.execute(shown.join_from(t.environment, t.project)))
    names = {identifier: name for identifier, _, name, *_ in rows}
    found = {
        (project, name, names[base.environment], asset, pin.changed, names[pin.lender], pin.at)
        for _, project, name, facts, _ in rows if facts for base in [Base.from_json(facts)] for asset, pin in base.assets.items()
    }  # fmt: skip
    there = {(project, name): drops for _, project, name, _, drops in rows}
    return _small(
        "environment",
        {(*place, v.base, asset, *pin) for place, v in told.views.views.items() for asset, pin in v.pins.items()}
        | {(*place, "dropped", number) for place in told.environments for number in told.views.dropped(place)},
        found | {(*place, "dropped", number) for place in told.environments for number in there.get(place, ())},
    )


async def _acceptances(connection: AsyncConnection, told: Catalog) -> Difference:
    """What was accepted, by whom and why."""
    here = {(a.asset, a.old.hex(), a.new.hex(), a.actor, a.why) for p in told.journal for a in _accepted(told, p)}
    a = t.acceptance.c
    rows = await connection.execute(sa.select(a.asset_id, a.old_code, a.new_code, a.actor, a.why))
    return _small(
        "acceptance", here, {(asset, old.hex(), new.hex(), actor, why) for asset, old, new, actor, why in rows}
    )


def _small(table: str, here: Set[tuple[Any, ...]], found: Set[tuple[Any, ...]]) -> Difference:
    only_told, only_found = here - found, found - here
    example = next(iter([*only_told, *only_found]), None)
    text = None if example is None else " ".join(str(v.hex() if isinstance(v, bytes) else v) for v in example)
    return Difference(table, len(here), len(only_told), len(only_found), text)
