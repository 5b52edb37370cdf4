"""Units: which calls does an asset consist of, and what is each given?

A unit is one call of an asset's function. Its *address* (16 bytes) says which one it is over time: the address of the document
it is called for, the value of its group, or its partition. Its *inputs* (32 bytes) say what it is given: the identities of its
documents, in the order of the parameters. All of it is stated over columns, so that a million units cost seconds, not minutes.

Columns, everywhere:
    documents  document i64|null, address bin, unit bin, label str, name str, position i64, identity bin, pending bool
               and media_type, sha256, field_digests (for `fields=` and `by=`), value:<field> (for people: what `by=` groups by)
    wanted     unit bin, label str, parent str|null, inputs bin, pending bool
    given      unit bin, parameter i64, document i64|null, address bin      (what is not the whole of an asset)

The partition of a unit is the first step of its path: its label, or where it has a parent, the first step of that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import pairwise
from typing import Any

import polars as pl

from assetcore.assets import Asset, Dependency, Output, Source
from assetcore.digest import sequence_digest, short_digest
from assetcore.documents import field_digest_at, projected_identity
from assetcore.frames import joined, without
from assetcore.graph import Graph
from assetcore.partitions import Partition, Partitions, needed

__all__ = [
    "DOCUMENTS", "PLACED", "WANTED", "There", "View", "Wanted", "ancestor", "document_address", "group_address", "in_partition",
    "open_partitions", "own_partition", "partition_key", "partition_pairs", "projected", "reached_partitions", "sort_documents",
    "wanted_units", "whole_unit",
]  # fmt: skip

DOCUMENTS = {
    "document": pl.Int64, "address": pl.Binary, "unit": pl.Binary, "label": pl.String, "name": pl.String, "position": pl.Int64,
    "identity": pl.Binary, "pending": pl.Boolean, "media_type": pl.String, "sha256": pl.Binary, "field_digests": pl.Binary,
    "path": pl.String,
}  # fmt: skip
"""`path` is the label of the unit below those of the units that its input came from: no two units of an asset have one path."""
PLACED = {"object": pl.Int64, "row": pl.Int64, "size": pl.Int64}
"""Where the bytes of a document lie: beside DOCUMENTS, of a large asset that is about to be read whole."""
WANTED = {"unit": pl.Binary, "label": pl.String, "parent": pl.String, "inputs": pl.Binary, "pending": pl.Boolean}
_NONE = pl.Series("unit", [], pl.Binary)
There = Mapping[Partitions, Sequence[Partition]]
"""The partitions that there are."""
HASHED_ROWS = 1 << 12
"""So many units have their inputs in Python at a time."""
LABEL_LIMIT = 200
CONTROL = r"[\x00-\x1f\x7f-\x9f]"
GIVEN = {"unit": pl.Binary, "parameter": pl.Int64, "document": pl.Int64, "address": pl.Binary}


@dataclass(frozen=True, slots=True)
class View:
    """What an asset's documents are, as far as is known.

    `documents` holds the current ones; `pending` marks those that will be made again, whose identity is therefore open.
    `open` says that documents may appear, change or vanish: some unit of the asset is yet to be made. `open_units` are those of
    them that are known; others may appear where an asset above is open. `open_partitions` are the partitions in which that may be; None
    where it may be in any.
    """

    documents: pl.DataFrame
    open: bool = False
    open_units: pl.Series = field(default_factory=lambda: _NONE)
    open_partitions: pl.Series | None = None

    def lean(self, *, whole: bool) -> View:
        """What is still asked for when all units are judged: of an asset that is given as a `whole`, which documents these are."""
        placed = ["media_type", "sha256", *PLACED] if "object" in self.documents.columns else []
        documents = self.documents[["document", "name", *placed]]
        return replace(self, documents=documents if whole else documents.clear())


@dataclass(frozen=True, slots=True)
class Wanted:
    """The units that an asset should have now, and which documents each is given (beside whole assets)."""

    units: pl.DataFrame
    given: pl.DataFrame


def document_address(unit: bytes, name: str) -> bytes:
    """The address of a document: 16 bytes over the unit that makes it and its name."""
    return short_digest("address", unit, name)


def whole_unit() -> bytes:
    """The address of the only unit of an asset that is made once, over everything."""
    return short_digest("unit", "whole")


def partition_unit(key: str) -> bytes:
    """The address of the unit of a partition."""
    return short_digest("unit", "partition", key)


def in_partition(key: str, unit: bytes) -> bytes:
    """The address of what a unit, or a document, is in a partition with which it is paired."""
    return short_digest("partition", key, unit)


def partition_key(path: pl.Expr) -> pl.Expr:
    """The partition in which a unit is, by its path."""
    return path.str.split("/").list.first()


def own_partition() -> pl.Expr:
    """The partition in which a unit of a partitioned asset is."""
    return partition_key(pl.coalesce("parent", "label"))


def group_address(output: Output, by: str) -> pl.Expr:
    """The address of the group that a document belongs to: the 16 bytes that stand for its field `by` among its field digests."""
    return pl.col("field_digests").bin.slice(field_digest_at(output.document_type.field_names(), by), 16)


def shown_unit(known: pl.DataFrame) -> pl.Expr:
    """What a unit is called for people: its label, or its path where several of the `known` units have that label."""
    twice = known.unique("unit").filter(pl.col("label").is_duplicated())["label"].unique()
    return pl.when(pl.col("label").is_in(twice.implode())).then("path").otherwise("label")


def sort_documents(documents: pl.DataFrame) -> pl.DataFrame:
    """The order in which documents are handed over: by the path of the unit, step by step, then as the unit returned them."""
    if documents.height < 2:
        return documents
    path = pl.coalesce("path", "label").str.replace_all("/", "\x01", literal=True)
    return documents.sort(path, "unit", "position", "address")


def open_partitions(
    asset: Asset[..., Any], again: pl.DataFrame, views: Mapping[str, View], there: There
) -> pl.Series | None:
    """The partitions in which documents may yet appear, change or go: of the units that are to be made `again`, and of those to come."""
    if asset.partitions is None:
        return None
    found = [again.select(own_partition().alias("key"))["key"]]
    for dependency in asset.dependencies:
        view = views[dependency.upstream.name]
        if (dependency.kind == "each" or dependency.by is not None) and view.open:
            reached = reached_partitions(asset, dependency, view, there)
            if reached is None:
                return None
            found.append(reached)
    return pl.concat(found).unique()


def reached_partitions(asset: Asset[..., Any], dependency: Dependency, view: View, there: There) -> pl.Series | None:
    """The partitions of the asset that are given some of what is open of a dependency; None where that may be any."""
    if dependency.relation is None or view.open_partitions is None:
        return None
    pairs = partition_pairs(asset, dependency, there)
    return pairs.filter(pl.col("partition").is_in(view.open_partitions.implode()))["of"].rename("key").unique()


def partition_pairs(asset: Asset[..., Any], dependency: Dependency, there: There) -> pl.DataFrame:
    """Which partition of the dependency each partition (of) of the asset is given."""
    own, upstream = asset.partitions, dependency.upstream.partitions
    assert own is not None
    assert upstream is not None
    assert dependency.relation is not None
    pairs = list(needed(own, upstream, dependency.relation, there))
    return pl.DataFrame(pairs, {"of": pl.String, "partition": pl.String}, orient="row")


def wanted_units(asset: Asset[..., Any], graph: Graph, views: Mapping[str, View], there: There | None = None) -> Wanted:
    """The units of an asset, given the views of all assets that its dependencies and their chains of drivers name.

    `there` holds the partitions of the asset and of what it is made of.
    """
    there = there or {}
    driver = graph.driver(asset.name)
    grouped = next((d for d in asset.dependencies if d.by is not None), None)
    own = asset.options.partitions
    if graph.is_whole(asset.name) and all(d.is_whole for d in asset.dependencies):
        return _whole(asset, views)
    if driver is not None and len(asset.dependencies) == 1 and asset.partitions is None:
        return _alone(driver, views)
    if driver is not None:
        base = _base(asset, driver, views)
        if asset.partitions is not None:
            base = _in_partitions(asset, driver, base, there)
    elif grouped is not None:
        base = _groups(_grouped(asset, grouped, views, there), grouped)
    elif own is not None:
        keys = [partition.key for partition in there[own]]
        base = pl.DataFrame(
            {"unit": list(map(partition_unit, keys)), "label": keys, "parent": [None] * len(keys), "partition": keys},
            schema={"unit": pl.Binary, "label": pl.String, "parent": pl.String, "partition": pl.String},
        )
    else:
        base = pl.DataFrame(
            {"unit": [whole_unit()], "label": [asset.name], "parent": [None]},
            schema={"unit": pl.Binary, "label": pl.String, "parent": pl.String},
        )
    parts = [_part(index, d, driver, asset, base, graph, views, there) for index, d in enumerate(asset.dependencies)]
    units = base
    for index, part in enumerate(parts):
        theirs = part.inputs.rename({"inputs": f"inputs{index}", "pending": f"pending{index}"})
        units = joined(units, theirs, "unit", "left").with_columns_seq(
            pl.col(f"inputs{index}").fill_null(sequence_digest("inputs", [])),
            pl.col(f"pending{index}").fill_null(part.open),
        )
    if own is not None:
        digests = pl.DataFrame(
            {"partition": [p.key for p in there[own]], "recipe": [p.digest for p in there[own]]},
            schema={"partition": pl.String, "recipe": pl.Binary},
        )
        units = joined(units, digests, "partition", "left")
    return Wanted(_combine(units, len(parts)), pl.concat([p.given for p in parts] or [pl.DataFrame(schema=GIVEN)]))


def _whole(asset: Asset[..., Any], views: Mapping[str, View]) -> Wanted:
    """The only unit of an asset that is made once, over everything: no frame is joined for a single row."""
    above = [views[d.upstream.name] for d in asset.dependencies]
    given = [sequence_digest("inputs", view.documents["identity"]) for view in above]
    inputs = given[0] if len(given) == 1 else sequence_digest("inputs", given)
    pending = any(view.open or view.documents["pending"].any() for view in above)
    row = (whole_unit(), asset.name, None, inputs, pending)
    columns = [pl.Series(name, [value], kind) for (name, kind), value in zip(WANTED.items(), row, strict=True)]
    return Wanted(pl.DataFrame(columns), pl.DataFrame(schema=GIVEN))


def _alone(driver: Dependency, views: Mapping[str, View]) -> Wanted:
    """The units of an asset that is made once for each document, and of nothing else: no frame is joined."""
    documents = _as_handed(views[driver.upstream.name].documents, driver)
    units = documents.select_seq(*_unit_of(isinstance(driver.upstream, Source)))
    given = documents.select_seq(*_GIVEN_ALONE)
    return Wanted(units.sort("parent", "label", "unit") if units.height > 1 else units, given)


_GIVEN_ALONE = (
    pl.col("address").alias("unit"), pl.lit(0, pl.Int64).alias("parameter"), pl.col("document"), pl.col("address"),
)  # fmt: skip


@cache
def _unit_of(of_source: bool) -> tuple[pl.Expr, ...]:
    """The unit of each document that is all that its unit is given."""
    return (*_named_for(of_source=of_source), pl.col("identity").alias("inputs"), pl.col("pending"))


@dataclass(frozen=True, slots=True)
class _Part:
    """What one parameter contributes: unit, inputs, pending; and which documents, where it is not a whole asset."""

    inputs: pl.DataFrame
    given: pl.DataFrame
    open: bool = False


def _base(asset: Asset[..., Any], driver: Dependency, views: Mapping[str, View]) -> pl.DataFrame:
    """A row a unit: the driver's documents, times those of each dependency with cross=True."""
    base = views[driver.upstream.name].documents.select(
        *_named_for(of_source=isinstance(driver.upstream, Source)), pl.col("address").alias("driver")
    )
    for dependency in asset.dependencies:
        if dependency.cross:
            other = views[dependency.upstream.name].documents.select(
                pl.col("address").alias(f"cross:{dependency.parameter}"), pl.col("name").alias("other")
            )
            base = (
                base.join(other, how="cross")
                .with_columns((pl.col("label") + " × " + pl.col("other")).alias("label"))
                .drop("other")
            )
    crossed = [f"cross:{d.parameter}" for d in asset.dependencies if d.cross]
    if crossed:
        pairs = base.select("driver", *crossed).iter_rows()
        base = base.with_columns(pl.Series("unit", [short_digest("pair", *pair) for pair in pairs], pl.Binary))
    return base


def _named_for(*, of_source: bool) -> tuple[pl.Expr, pl.Expr, pl.Expr]:
    """The unit of each document of the driver: its address, its label, and its parent."""
    parent = pl.lit(None, pl.String) if of_source else pl.coalesce("path", "label")
    return pl.col("address").alias("unit"), pl.col("name").alias("label"), parent.alias("parent")


def _in_partitions(asset: Asset[..., Any], driver: Dependency, base: pl.DataFrame, there: There) -> pl.DataFrame:
    """The units with their partition: that of the document, or each with which the document is paired."""
    own = asset.options.partitions
    if driver.relation is not None:
        base = base.with_columns(partition_key(pl.col("parent")).alias("partition"))
    if own is None:
        return base
    keys = pl.DataFrame({"of": [partition.key for partition in there[own]]}, schema={"of": pl.String})
    if not asset.multiplied:
        return joined(base, keys.rename({"of": "partition"}), "partition", "semi")
    if driver.relation is not None:
        pairs = partition_pairs(asset, driver, there)
        base = without(joined(base, pairs, "partition"), "partition")
    else:
        base = base.join(keys, how="cross", maintain_order="left")
    units = [in_partition(key, unit) for key, unit in base.select("of", "unit").iter_rows()]
    return base.with_columns(
        pl.Series("unit", units, pl.Binary),
        pl.concat_str("of", "parent", separator="/", ignore_nulls=True).alias("parent"),
    ).rename({"of": "partition"})


def _groups(documents: pl.DataFrame, dependency: Dependency) -> pl.DataFrame:
    """A row a value of the field by which documents are grouped; of a partitioned asset, in each partition."""
    value = f"value:{dependency.by}"
    groups = documents.group_by("of", maintain_order=True).agg(
        pl.col(value).drop_nulls().first(), pl.col("group", "partition").first()
    )
    short = "#" + pl.col("group").bin.slice(0, 4).bin.encode("hex")
    text = pl.coalesce(value, short)  # what has not been read yet is shown by its digest
    unfit = (text == "") | text.str.contains(CONTROL) | (text.str.len_chars() > LABEL_LIMIT)
    shown = text.str.replace_all(CONTROL, " ").str.slice(0, LABEL_LIMIT // 2) + short
    return groups.select(
        pl.col("of").alias("unit"),
        pl.when(unfit).then(shown).otherwise(text).alias("label"),
        pl.col("partition").alias("parent"),
        "partition",
    )


def _grouped(asset: Asset[..., Any], dependency: Dependency, views: Mapping[str, View], there: There) -> pl.DataFrame:
    """The documents of the dependency with the address of their unit (of): their group, in a partition where the asset has those."""
    group = group_address(dependency.upstream.output, str(dependency.by))
    documents = views[dependency.upstream.name].documents.with_columns(group.alias("group"))
    own = asset.partitions
    if own is None:
        return documents.with_columns(pl.col("group").alias("of"), pl.lit(None, pl.String).alias("partition"))
    if dependency.relation is None:
        keys = pl.DataFrame({"of": [partition.key for partition in there[own]]}, schema={"of": pl.String})
        documents = documents.join(keys, how="cross", maintain_order="left_right")
    else:
        documents = documents.with_columns(partition_key(pl.coalesce("path", "label")).alias("partition"))
        pairs = partition_pairs(asset, dependency, there)
        documents = without(joined(documents, pairs, "partition"), "partition")
    units = documents.select(pl.col("of").alias("partition"), "group").unique(maintain_order=True)
    addresses = [short_digest("partition", key, group) for key, group in units.iter_rows()]
    units = units.with_columns(pl.Series("of", addresses, pl.Binary))
    return joined(documents.rename({"of": "partition"}), units, ["partition", "group"])


def _part(
    index: int, dependency: Dependency, driver: Dependency | None, asset: Asset[..., Any],
    base: pl.DataFrame, graph: Graph, views: Mapping[str, View], there: There,
) -> _Part:  # fmt: skip
    view = views[dependency.upstream.name]
    if dependency.kind == "each":
        return _each_part(index, dependency, driver, base, graph, views)
    if dependency.by is not None:
        reached = reached_partitions(asset, dependency, view, there) if view.open else pl.Series("key", [], pl.String)
        units = base.select("unit", pl.col("unit").alias("of"), "partition")
        open_of = None if reached is None else units.filter(pl.col("partition").is_in(reached.implode()))["of"]
        return _members_part(index, _grouped(asset, dependency, views, there), units.drop("partition"), open_of)
    if dependency.per is not None and driver is not None:
        below = ancestor(dependency.upstream.name, dependency.per.name, graph, views)
        members = view.documents.select("address", "document", "identity", "pending")
        documents = joined(members, below, "address")
        above = ancestor(driver.upstream.name, dependency.per.name, graph, views)
        of = joined(base["unit", "driver"].rename({"driver": "address"}), above, "address", "left")["unit", "of"]
        return _members_part(
            index, documents, of, _open_under(dependency.upstream.name, dependency.per.name, graph, views)
        )
    if dependency.relation is not None:
        pairs = partition_pairs(asset, dependency, there)
        documents = view.documents.with_columns(partition_key(pl.coalesce("path", "label")).alias("partition"))
        documents = joined(documents, pairs, "partition")
        of = base.select("unit", pl.col("partition").alias("of"))
        nowhere = pl.Series("key", [], pl.String)
        reached = reached_partitions(asset, dependency, view, there) if view.open else nowhere
        return _members_part(index, documents, of, reached)
    digest = sequence_digest("inputs", view.documents["identity"])
    pending = view.open or bool(view.documents["pending"].any())
    inputs = base.select("unit", pl.lit(digest).alias("inputs"), pl.lit(pending).alias("pending"))
    return _Part(inputs, pl.DataFrame(schema=GIVEN))


def _each_part(
    index: int,
    dependency: Dependency,
    driver: Dependency | None,
    base: pl.DataFrame,
    graph: Graph,
    views: Mapping[str, View],
) -> _Part:
    documents = _as_handed(views[dependency.upstream.name].documents, dependency)
    facts = documents.select_seq(
        pl.col("address").alias("of"), "document", pl.col("identity").alias("inputs"), "pending"
    )
    if dependency.cross:
        of = base.select("unit", pl.col(f"cross:{dependency.parameter}").alias("of"))
    elif driver is None or driver.upstream is dependency.upstream:
        of = base.select("unit", pl.col("driver").alias("of"))
    else:
        above = ancestor(driver.upstream.name, dependency.upstream.name, graph, views)
        of = joined(base["unit", "driver"].rename({"driver": "address"}), above, "address", "left")["unit", "of"]
    given = joined(of, facts, "of")
    return _Part(
        given["unit", "inputs", "pending"],
        given.select_seq("unit", pl.lit(index, pl.Int64).alias("parameter"), "document", pl.col("of").alias("address")),
    )


def _members_part(index: int, documents: pl.DataFrame, of: pl.DataFrame, open_of: pl.Series | None) -> _Part:
    """Each unit is given several documents: those whose `of` is the unit's. `open_of` may gain, lose or change some; None: all may."""
    members = joined(documents["of", "document", "address", "identity", "pending"], of, "of")
    groups = members.group_by("unit", maintain_order=True).agg("identity", pl.col("pending").any())
    is_open = pl.lit(value=True) if open_of is None else pl.col("of").is_in(open_of.implode())
    lists = (identities for some in groups.iter_slices(HASHED_ROWS) for identities in some["identity"].to_list())
    digests = pl.Series("inputs", [sequence_digest("inputs", identities) for identities in lists], pl.Binary)
    inputs = joined(of, groups["unit", "pending"].hstack([digests]), "unit", "left").select_seq(
        "unit",
        pl.col("inputs").fill_null(sequence_digest("inputs", [])),
        pl.col("pending").fill_null(value=False) | is_open.fill_null(value=False),
    )
    given = members.select_seq("unit", pl.lit(index, pl.Int64).alias("parameter"), "document", "address")
    return _Part(inputs, given)


def _open_under(name: str, above: str, graph: Graph, views: Mapping[str, View]) -> pl.Series:
    """The documents of `above` below which documents of `name` may yet appear, change or go: their units on the way are to be made."""
    found = [pl.Series("of", [], pl.Binary)]
    for step, up in pairwise(graph.chain(name)):
        if step == above:
            break
        units = views[step].open_units
        if up == above:
            found.append(units)
        else:
            ancestors = ancestor(up, above, graph, views)
            found.append(joined(units.to_frame("address"), ancestors, "address")["of"])
    return pl.concat([one.rename("of") for one in found])


def ancestor(name: str, above: str, graph: Graph, views: Mapping[str, View]) -> pl.DataFrame:
    """For each document of `name` (address), the document of `above` that it descends from (of): one join a step."""
    found = views[name].documents.select("address", pl.col("address").alias("of"))
    for step in graph.chain(name):
        if step == above:
            return found
        up = views[step].documents.select(pl.col("address").alias("of"), pl.col("unit").alias("up"))
        found = joined(found, up, "of")["address", "up"].rename({"up": "of"})
    raise LookupError(f"{name} does not descend from {above}")


def _as_handed(documents: pl.DataFrame, dependency: Dependency) -> pl.DataFrame:
    """Documents with their identity to one that is handed them: of all their parts, or of some."""
    return documents if dependency.fields is None else documents.with_columns(projected(documents, dependency))


def projected(documents: pl.DataFrame, dependency: Dependency) -> pl.Series:
    """The identities of documents to one that is handed only some of their parts (`fields=`)."""
    output = dependency.upstream.output
    names = output.document_type.field_names()
    chosen = dependency.fields or frozenset()
    rows = documents["name", "media_type", "sha256", "field_digests"].iter_rows()
    return pl.Series(
        "identity",
        [projected_identity(output.type_name, n, m, sha, fields, names, chosen) for n, m, sha, fields in rows],
        pl.Binary,
    )


def _combine(units: pl.DataFrame, parameters: int) -> pl.DataFrame:
    """One `inputs` for each unit: the parameter's own where there is one, else the digest over all of them in order.

    A unit's own partition (recipe) comes before what its parameters are given.
    """
    recipe = ["recipe"] if "recipe" in units.columns else []
    if parameters == 1 and not recipe:
        inputs = pl.col("inputs0").alias("inputs")
    else:
        columns = [*recipe, *(f"inputs{i}" for i in range(parameters))]
        rows = units.select(columns).iter_rows() if columns else [() for _ in range(units.height)]
        inputs = pl.Series("inputs", [sequence_digest("inputs", row) for row in rows], pl.Binary)
    pending = (
        pl.any_horizontal([pl.col(f"pending{i}") for i in range(parameters)]) if parameters else pl.lit(value=False)
    )
    return units.select_seq("unit", "label", "parent", inputs, pending.alias("pending")).sort("parent", "label", "unit")
