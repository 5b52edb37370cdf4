"""Replay: which lineage do the manifests and records of a bucket tell?

Manifests are taken in the order of their commits, in columns: a million units are never a million objects. What a unit is follows from
the last manifest that names it. Each says what the unit was before, so a manifest whose commit never came about is found by what those
after it started from; and by the journal, which has no row of it though its run is over, or though it is of a promotion
(`promotions`). Nothing is taken that hangs in the air: what refers to a manifest that is missing or damaged is left out, and said, so
that a plan finds it missing and it is made again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import polars as pl

from assetcore.lineage import views
from assetcore.lineage.manifest import no_rows, objects_of
from assetcore.lineage.promotions import RUN, never_promoted
from assetcore.lineage.records import is_whole, journals_of
from assetcore.lineage.views import Views
from assetcore.staleness import Component, Definition
from assetcore.storage import Key, parse_key
from assetcore.storage.arrow import pa as arrow

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["TABLES", "Catalog", "Manifest", "replay", "untold"]

SOURCE = b""
"""What stands for the definition of a source, which has none."""
UNIT = ("project", "environment", "asset", "unit")
TABLES = {
    "object": ("id", "asset", "key", "size", "rows", "sha256", "retired"),
    "document": ("id", "asset", "materialization", "address", "name", "type", "media_type", "size", "sha256", "field_digests", "identity",
                 "object", "row", "fields"),
    "materialization": ("id", "asset", "definition", "unit", "label", "parent", "inputs", "documents", "seconds"),
    "edge": ("materialization", "parameter", "document"),
    "collected": ("materialization", "parameter", "asset", "project", "environment", "commit"),
    "spent": ("materialization", "tokens", "usd", "cached_tokens", "models"),
    "excerpt": ("materialization", "document", "whole", "kind", "start", "end", "pointer"),
    "head": ("project", "environment", "asset", "unit", "materialization", "since", "until"),
    "failure": (*UNIT, "label", "definition", "inputs", "error", "traceback", "run", "at"),
    "watermark": ("project", "environment", "asset", "changed", "last", "units", "documents", "at"),
    "damage": ("id", "asset", "cause", "detail", "at"),
    "observation": ("asset", "name", "size", "mtime_ns", "inode", "media_type", "sha256", "field_digests", "identity", "validator"),
    "borrowed": ("project", "environment", "asset", "lender", "at", "since", "until"),
    "commit": ("number", "project", "environment", "asset", "run", "manifest", "at"),
}  # fmt: skip
"""The columns of what is told of each table, besides the small ones; environments go by name, definitions by digest."""
_COMMITS = {
    "number": pl.Int64, "project": pl.String, "environment": pl.String, "asset": pl.Int64, "run": pl.String, "manifest": pl.String,
    "at": pl.Datetime("us", "UTC"), "definition": pl.Binary, "changes": pl.Boolean, "tells": pl.Boolean,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Manifest:
    """One manifest, as it was read."""

    key: Key
    header: Mapping[str, Any]
    rows: pa.Table

    @property
    def number(self) -> int:
        """The commit's number, which is in the manifest's name."""
        return number_of(self.key)

    @property
    def definition(self) -> bytes:
        """The digest of the definition."""
        facts = self.header["definition"]
        return SOURCE if facts is None else as_stated(facts).digest


@dataclass(frozen=True, slots=True)
class Catalog:
    """All that a bucket tells: a frame for each large table, and the small ones.

    `missing` are the numbers of commits that others refer to and of which there is no manifest, `undone` those that never came about;
    `left_out` is how many materializations and heads hang in the air.
    """

    tables: Mapping[str, pl.DataFrame]
    environments: Sequence[tuple[str, str]]
    assets: Mapping[int, tuple[str, Mapping[str, str]]]
    definitions: Mapping[tuple[int, bytes], tuple[Mapping[str, Any], datetime]]
    parts: Mapping[bytes, str]
    runs: Mapping[str, Mapping[str, Any]]
    missing: Sequence[int]
    undone: Sequence[int]
    left_out: int
    views: Views
    journal: Mapping[str, Sequence[Mapping[str, Any]]]
    keys: Mapping[tuple[str, bytes], bytes]


def number_of(key: Key) -> int:
    """The number of the commit whose manifest has this key."""
    return int(parse_key(key).artifact_name.rpartition("-")[2].partition(".")[0])


def as_stated(facts: Mapping[str, Any]) -> Definition:
    """A definition, from how it was kept."""
    return Definition({n: Component(bytes.fromhex(f["digest"]), f.get("detail")) for n, f in facts.items()})


def replay(
    manifests: Sequence[Manifest],
    records: Sequence[Mapping[str, Any]],
    damaged: Collection[int] = (),
    known: Collection[int] = (),
    told_whole: bool = True,
) -> Catalog:
    """The lineage that these manifests and records tell; `damaged` are the numbers of manifests that are there and cannot be read.

    The record of a compaction is written before its transaction, which a crash may keep from coming about: it counts where the journal,
    which is of the same transaction, tells of it too, or where its number is `known` to Postgres. Where the journal lacks rows, or a
    record could not be read (`told_whole` is False), every record counts: most of what is written comes about.
    """
    ordered = sorted(manifests, key=lambda m: m.number)
    identifiers = _identify(ordered)
    commits = _commits(ordered, identifiers)
    rows = _rows(ordered).join(commits, left_on="commit", right_on="number", how="left")
    journals, keys = journals_of(records)
    undone = set[int]()
    if told_whole and is_whole(journals):
        undone = untold(commits, journals) | (never_promoted((m.header for m in ordered), records, journals) - {*known})
    undone |= _undone(rows.filter(~pl.col("commit").is_in(undone)), damaged, views.views(journals, commits).drops)
    rows, commits = rows.filter(~pl.col("commit").is_in(undone)), commits.filter(~pl.col("number").is_in(undone))
    done = [m for m in ordered if m.number not in undone]

    made = rows.filter(pl.col("event").is_in(["made", "aside"]))
    documents = _members(made, "new", "asset", "materialization")
    listed = made.select("materialization", document="documents").filter(pl.col("document").list.len() > 0)
    lost = listed.explode("document").join(documents, left_on="document", right_on="id", how="anti")
    made = made.join(lost, on="materialization", how="anti")
    edges = _members(made, "edges", "materialization").unique(maintain_order=True)
    told = views.views(journals, commits)
    collected = _members(made, "collected", "materialization", "project", "environment")
    collected = views.lender_of(collected, told.loans, pl.col("materialization") // (1 << 20))
    heads = views.heads(rows, told)
    hanging = heads.join(made, on="materialization", how="anti")
    heads = heads.join(made, on="materialization", how="semi")
    named = pl.concat([lost["document"], edges["document"], hanging["materialization"], rows["was"].drop_nulls()])
    missing = {*(named // (1 << 20)).unique(), *collected["commit"].unique()} - {*commits["number"], *undone, 0}
    about = {r["compaction"]["number"]: r for r in records if "compaction" in r}
    if told_whole and is_whole(journals):
        happened = {row["commit"] for journal in journals.values() for row in journal if row["what"] == "compact"}
        about = {number: about[number] for number in about.keys() & (happened | {*known})}
    compactions = [about[number]["compaction"] for number in sorted(about)]
    documents, objects = _moved(documents, compactions), _compacted(_objects(done, identifiers), compactions)
    tables = {
        "damage": _let_go(documents, compactions), "object": objects, "document": documents,
        "materialization": made.rename({"materialization": "id"}),
        "edge": edges, "collected": collected, "spent": _spent(done), "excerpt": _excerpts(done), "head": heads,
        "failure": _failures(views.without_dropped(rows, told.drops, "commit")),
        "watermark": views.watermarks(commits, heads, made, told), "borrowed": told.loans,
        "observation": _observations(heads, made, documents), "commit": pl.concat([commits, _compaction_commits(about, commits)]),
    }  # fmt: skip
    definitions, parts, runs = _small(done, ordered, identifiers, records)
    return Catalog(
        {name: tables[name].select(columns) for name, columns in TABLES.items()},
        tuple(dict.fromkeys([
            *((m.header["project"], m.header["environment"]) for m in done), *told.views,
            *told.loans.select("project", "environment").iter_rows(),  # dropped, before anything was made in it
        ])),
        _renamed(_names(done, identifiers), journals), definitions, parts, runs, sorted(missing), sorted(undone),
        lost["materialization"].n_unique() + hanging.height, told, journals, keys,
    )  # fmt: skip


def _identify(manifests: Sequence[Manifest]) -> dict[int, int]:
    """The asset's identifier of each manifest, by its number; an asset whose identifier no manifest tells gets a new one."""
    known: dict[tuple[str, str], int] = {}
    for m in manifests:
        project = m.header["project"]
        known |= {(project, name): int(identifier) for identifier, name in m.header["assets"].items()}
        if "asset_id" in m.header:
            known[project, m.header["asset"]] = m.header["asset_id"]
    for m in manifests:
        known.setdefault((m.header["project"], m.header["asset"]), max(known.values(), default=0) + 1)
    return {m.number: m.header.get("asset_id", known[m.header["project"], m.header["asset"]]) for m in manifests}


def _names(manifests: Sequence[Manifest], identifiers: Mapping[int, int]) -> dict[int, tuple[str, dict[str, str]]]:
    """Each asset's project, and its last name, kind and group; of two that were called the same, the earlier is marked."""
    found: dict[int, tuple[str, dict[str, str]]] = {}
    for m in manifests:
        project, header = m.header["project"], m.header
        for identifier, name in header["assets"].items():
            found.setdefault(int(identifier), (project, {"name": name, "kind": "asset", "flow": "main"}))
        kind = header.get("kind") or ("asset" if header["definition"] else "source")
        flow = header.get("group") or parse_key(m.key).flow
        found[identifiers[m.number]] = (project, {"name": header["asset"], "kind": kind, "flow": flow})
    taken: dict[tuple[str, str], int] = {}
    for identifier, (project, facts) in found.items():
        if (earlier := taken.get((project, facts["name"]))) is not None:
            found[earlier][1]["name"] = f"{facts['name']}~{earlier}"
        taken[project, facts["name"]] = identifier
    return found


def _renamed(
    assets: dict[int, tuple[str, dict[str, Any]]], journals: Mapping[str, Sequence[Mapping[str, Any]]]
) -> dict[int, tuple[str, dict[str, Any]]]:
    """The assets, with the names that they had: the journal tells of each that was renamed."""
    for row in (row for rows in journals.values() for row in rows if row["what"] == "rename"):
        if (facts := assets.get(row["facts"]["asset_id"])) is not None:
            facts[1]["name"] = row["asset"]
            facts[1]["former"] = [name for name in facts[1].get("former", ()) if name != row["asset"]] + [
                row["facts"]["from"]
            ]
    return assets


def _commits(manifests: Sequence[Manifest], identifiers: Mapping[int, int]) -> pl.DataFrame:
    """A row a commit. `tells` says whether its manifest tells what it started from."""
    rows = [
        (
            m.number, m.header["project"], m.header["environment"], identifiers[m.number], m.header["run"], m.key,
            datetime.fromisoformat(m.header["at"]), m.definition, m.header.get("changes", True), m.header["format"] > 1,
        )
        for m in manifests
    ]  # fmt: skip
    return pl.DataFrame(rows, _COMMITS, orient="row")


def _rows(manifests: Sequence[Manifest]) -> pl.DataFrame:
    """The rows of all manifests, with the number of their commit."""
    numbered = [(m.number, m.rows) for m in manifests] or [(0, no_rows())]
    tables = [
        rows.append_column("commit", arrow.repeat(arrow.scalar(number, arrow.int64()), rows.num_rows))
        for number, rows in numbered
    ]
    return pl.DataFrame(pl.from_arrow(arrow.concat_tables(tables)))


def untold(commits: pl.DataFrame, journals: Mapping[str, Sequence[Mapping[str, Any]]]) -> set[int]:
    """The commits of which a whole journal has no row, though it tells that their run has begun, and is over: it ended, or in its
    environment another one came after it.

    What a rebuild once took from its manifest, because the rows were lost with Postgres, is told by the row of that rebuild.
    """
    told: set[int] = set()
    over: set[str] = set()
    for project, rows in journals.items():
        told.update(row["commit"] for row in rows if row["commit"] is not None)
        last: dict[tuple[str, str], str] = {}
        for row in rows:
            if row["what"] == "rebuild":
                told.update(row["facts"].get("untold", ()))
            if row["what"] != "run":
                continue
            before = last.pop((project, row["environment"]), None)
            if before is not None:
                over.add(before)
            if row["facts"]["status"] == "begun":
                last[project, row["environment"]] = row["run"]
    ended = pl.col("run").is_in(over) & ~pl.col("number").is_in(told)
    return set(commits.filter(ended)["number"])


def _undone(rows: pl.DataFrame, damaged: Collection[int], drops: pl.DataFrame) -> set[int]:
    """The commits that never came about: what came after them on a unit started from what was there before them.

    An environment that was dropped starts from something else afterwards. Where a manifest between the two cannot be read, that may have
    been its doing, and nothing is said.
    """
    became = pl.when(pl.col("event") != "removed").then("materialization").alias("became")
    events = rows.filter(pl.col("event").is_in(["made", "reused", "removed"])).select(
        *UNIT, "commit", "was", "tells", became
    )
    times = events.select("project", "environment", "commit").unique().join(drops, on=["project", "environment"])
    times = (
        times.filter(pl.col("dropped") < pl.col("commit"))
        .group_by("project", "environment", "commit")
        .agg(times=pl.len())
    )
    events = events.join(times, on=["project", "environment", "commit"], how="left").sort(*UNIT, "commit")
    undone: set[int] = set()
    while True:
        before = events.with_columns(pl.col("commit", "became").shift(1).over(*UNIT, "times").name.prefix("before_"))
        older = pl.col("was").is_null() | (pl.col("was") // (1 << 20) < pl.col("before_commit"))
        differs = pl.col("was").ne_missing(pl.col("before_became"))
        suspect = before.filter(pl.col("tells") & pl.col("before_commit").is_not_null() & differs & older)
        pairs = suspect.select("before_commit", "commit").unique().iter_rows()
        found = {earlier for earlier, later in pairs if not any(earlier < number < later for number in damaged)}
        if not found:
            return undone
        undone |= found
        events = events.filter(~pl.col("commit").is_in(found))


def _members(rows: pl.DataFrame, column: str, *beside: str) -> pl.DataFrame:
    """The members of a column of lists, as rows, with what stands beside them."""
    return rows.select(*beside, column).filter(pl.col(column).list.len() > 0).explode(column).unnest(column)


def _failures(rows: pl.DataFrame) -> pl.DataFrame:
    """The units whose last attempt failed: nothing became of them since."""
    failed = rows.filter(pl.col("event") == "failed").sort("commit").unique(UNIT, keep="last", maintain_order=True)
    later = (
        rows.filter(pl.col("event").is_in(["made", "reused", "removed"]))
        .group_by(UNIT)
        .agg(pl.col("commit").max().alias("mended"))
    )
    failed = failed.join(later, on=UNIT, how="left")
    return failed.filter(pl.col("mended").is_null() | (pl.col("mended") < pl.col("commit")))


def _observations(heads: pl.DataFrame, made: pl.DataFrame, documents: pl.DataFrame) -> pl.DataFrame:
    """How the documents of sources were seen when they were last taken in."""
    seen = made.filter((pl.col("definition") == SOURCE) & pl.col("seen").is_not_null()).select(
        "materialization", "seen"
    )
    current = heads.filter(pl.col("until").is_null()).join(seen.unnest("seen"), on="materialization")
    last = current.sort("since").unique(["asset", "unit"], keep="last")
    return last.join(documents.drop("asset"), on="materialization").unique(["asset", "name"], keep="last")


def _objects(manifests: Sequence[Manifest], identifiers: Mapping[int, int]) -> pl.DataFrame:
    schema = {
        "id": pl.Int64, "asset": pl.Int64, "key": pl.String, "size": pl.Int64, "rows": pl.Int64, "sha256": pl.Binary,
        "retired": pl.Datetime("us", "UTC"),
    }  # fmt: skip
    objects = [
        (o.id, identifiers[m.number], o.key, o.size, o.rows, o.sha256, None)
        for m in manifests
        for o in objects_of(m.header)
    ]
    return pl.DataFrame(objects, schema, orient="row")


def _excerpts(manifests: Sequence[Manifest]) -> pl.DataFrame:
    schema = {column: pl.String if column in ("kind", "pointer") else pl.Int64 for column in TABLES["excerpt"]}
    return pl.DataFrame([tuple(e) for m in manifests for e in m.header.get("excerpts", ())], schema, orient="row")


def _spent(manifests: Sequence[Manifest]) -> pl.DataFrame:
    schema = {
        "materialization": pl.Int64,
        "tokens": pl.Int64,
        "usd": pl.Float64,
        "cached_tokens": pl.Int64,
        "models": pl.String,
    }
    spent = [tuple(s) for m in manifests for s in m.header.get("spent", ())]
    return pl.DataFrame(
        [(*s, 0, "")[:5] for s in spent], schema, orient="row"
    )  # the first release told the first three


def _moved(documents: pl.DataFrame, compactions: Sequence[Mapping[str, Any]]) -> pl.DataFrame:
    """The documents, where the last compaction that moved them has put them."""
    moves = [(d, c["objects"][0][0], row) for c in compactions for d, row in c["moves"]]
    schema = {"id": pl.Int64, "object_now": documents.schema["object"], "row_now": documents.schema["row"]}
    last = pl.DataFrame(moves, schema, orient="row").unique("id", keep="last", maintain_order=True)
    moved = documents.join(last, on="id", how="left", maintain_order="left")
    return moved.with_columns(object=pl.coalesce("object_now", "object"), row=pl.coalesce("row_now", "row")).drop(
        "object_now", "row_now"
    )


def _compacted(objects: pl.DataFrame, compactions: Sequence[Mapping[str, Any]]) -> pl.DataFrame:
    """The objects of commits and of compactions; those that were replaced are retired."""
    new = [
        (number, c["asset_id"], key, size, rows, sha256 and bytes.fromhex(sha256), None)
        for c in compactions
        for number, key, size, rows, sha256 in c["objects"]
    ]
    retired = [(number, datetime.fromisoformat(c["at"])) for c in compactions for number in c["retired"]]
    at = pl.DataFrame(retired, {"id": pl.Int64, "since": pl.Datetime("us", "UTC")}, orient="row").unique("id")
    both = pl.concat([objects, pl.DataFrame(new, objects.schema, orient="row")])
    return both.join(at, on="id", how="left", maintain_order="left").with_columns(retired="since").drop("since")


def _let_go(documents: pl.DataFrame, compactions: Sequence[Mapping[str, Any]]) -> pl.DataFrame:
    """The documents that were given up."""
    gone = [(d, detail, datetime.fromisoformat(c["at"])) for c in compactions for d, detail in c["let_go"]]
    schema = {"id": pl.Int64, "detail": pl.String, "at": pl.Datetime("us", "UTC")}
    frame = pl.DataFrame(gone, schema, orient="row").unique("id", keep="first", maintain_order=True)
    return frame.join(documents.select("id", "asset"), on="id").with_columns(cause=pl.lit("let-go"))


def _compaction_commits(records: Mapping[int, Mapping[str, Any]], commits: pl.DataFrame) -> pl.DataFrame:
    """A row for each compaction, as of a commit that changed nothing."""
    rows = [
        {
            "number": number, "project": r["project"], "environment": r["environment"], "asset": r["compaction"]["asset_id"],
            "run": r["compaction"]["run"], "manifest": r["compaction"]["manifest"],
            "at": datetime.fromisoformat(r["compaction"]["at"]), "definition": b"", "changes": False,
        }
        for number, r in sorted(records.items())
    ]  # fmt: skip
    return pl.DataFrame(rows, commits.schema)


def _small(
    manifests: Sequence[Manifest], every: Sequence[Manifest], identifiers: Mapping[int, int], records: Iterable[Mapping[str, Any]]
) -> tuple[
    dict[tuple[int, bytes], tuple[Mapping[str, Any], datetime]], dict[bytes, str], dict[str, Mapping[str, Any]]
]:  # fmt: skip
    """Definitions, the sources of their parts, and runs: those without a record died, and are known by their manifests,
    also by those of commits that never came about: they are no strangers to `gc`."""
    definitions: dict[tuple[int, bytes], tuple[Mapping[str, Any], datetime]] = {}
    parts: dict[bytes, str] = {}
    runs: dict[str, Mapping[str, Any]] = {}
    for record in records:
        if "run" in record:
            known = runs.get(record["run"]["id"])
            if known is None or str(known["run"]["finished_at"]) < str(record["run"]["finished_at"]):
                runs[record["run"]["id"]] = record
        elif "parts" in record:
            parts |= {bytes.fromhex(digest): source for digest, source in record["parts"].items()}
    died: dict[str, dict[str, Any]] = {}
    for m in manifests:
        if m.header["definition"] is not None:
            at = datetime.fromisoformat(m.header["at"])
            definitions.setdefault((identifiers[m.number], m.definition), (m.header["definition"], at))
    for m in every:
        at, run = datetime.fromisoformat(m.header["at"]), m.header["run"]
        if run in runs or not RUN.fullmatch(run):
            continue
        started = datetime.strptime(parse_key(m.key).run_ts, "%Y%m%dT%H%M%S.%fZ").replace(tzinfo=UTC)
        facts = {"id": run, "selection": "", "plan": {}, "status": "died", "flow_run": None, "actor": "unknown"}
        facts |= {"started_at": started.isoformat(), "finished_at": at.isoformat()}
        about = {"project": m.header["project"], "environment": m.header["environment"]}
        died[run] = {**about, "run": facts, "assets": [], "checked": [], "standing": []}
    return definitions, parts, runs | died
