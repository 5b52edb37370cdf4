"""Slices: which units of an asset can have changed since all of them were found fresh?

What descends from one document of a source is made of nothing else of that source: a page, its pieces, their vectors. So when few
documents of a source changed, an asset that was settled before needs a look at only the units that descend from those: its slice.
A plan then costs what changed, not what there is. Where that cannot be said (a new definition, a group, a cross product, two
changed sources at once), an asset is looked at as a whole; that is always right, and only slower.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import polars as pl

from assetcore.assets import Dependency, Source
from assetcore.graph import Graph
from assetcore.units import View

__all__ = ["Slice", "Slicing", "descent", "root_of", "slicing"]


@dataclass(frozen=True, slots=True)
class Slice:
    """The units of one asset that need a look; how many it has had in all (a source: documents that are there now), and their names."""

    units: pl.Series
    total: int
    names: pl.Series | None = None

    def seen(self, observed: pl.DataFrame) -> pl.DataFrame:
        """Of what was observed of a source, the rows of these documents."""
        assert self.names is not None
        return observed.filter(pl.col("name").is_in(self.names.implode()))

    def beside(self, made: pl.DataFrame) -> int:
        """How many units there are outside, given those that are made inside."""
        return self.total - made["materialization"].count()

    def widened(self, units: pl.Series) -> Slice:
        """With these units, too."""
        return Slice(pl.concat([self.units, units]).unique(), self.total, self.names)

    def of(self, frame: pl.DataFrame) -> pl.DataFrame:
        """The rows of these units."""
        return frame.filter(pl.col("unit").is_in(self.units.implode()))

    def of_view(self, view: View) -> View:
        """The view with the documents of these units only."""
        return View(self.of(view.documents), view.open, view.open_units)


@dataclass(frozen=True, slots=True)
class Slicing:
    """How each asset that needs a look is looked at.

    `roots`: in slices, below the changed documents of this source. `aggregates`: made once, of whole assets of which at least one is
    read in slices: they are stale at most because of those. `whole`: whose documents all are needed, by an asset that is looked at as a
    whole. Names in neither of the first two are looked at as a whole.
    """

    roots: Mapping[str, str] = field(default_factory=dict)
    aggregates: frozenset[str] = frozenset()
    whole: frozenset[str] = frozenset()

    def partial(self, name: str) -> bool:
        """Whether only a slice of its documents is read."""
        return name in self.roots and name not in self.whole


def slicing(
    graph: Graph,
    look: Collection[str],
    settled: Collection[str],
    changed: Collection[str],
    entire: Collection[str] = (),
) -> Slicing:
    """Decide for the assets in `look` and the `changed` sources.

    `settled` are those in `look` that would need none, had nothing above them changed; `entire` those that are to be looked at as a
    whole in any case.
    """
    roots: dict[str, str] = {}
    aggregates: set[str] = set()
    touched = {*look, *changed}
    for name in graph.ordered(touched):
        asset = graph.assets[name]
        above = [d for d in asset.dependencies if d.upstream.name in touched]
        if name in entire:
            continue
        if isinstance(asset, Source):
            roots[name] = name
        elif name in settled and graph.is_whole(name):
            aggregates.add(name)
        elif name in settled:
            found = {roots.get(d.upstream.name) for d in above}
            root = found.pop() if len(found) == 1 else None
            if root is not None and root in graph.chain(name) and all(_descends(d, root, graph) for d in above):
                roots[name] = root
    whole: set[str] = set()
    for name in look:
        asset = graph.assets[name]
        if name in aggregates:
            whole |= {d.upstream.name for d in asset.dependencies if isinstance(d.upstream, Source)}
        elif name not in roots:
            whole |= {step for up in graph.upstream(name) for step in graph.chain(up)}
    return Slicing(roots, frozenset(aggregates), frozenset(whole))


def descent(graph: Graph, name: str) -> Slicing | None:
    """Everything in slices of one document of the source from which a unit of the asset descends with all that it is made of.

    None where a unit is made of more than what comes of one document.
    """
    root = root_of(graph, name)
    scope = {name, *graph.ancestors([name])}
    alone = all(one == root if isinstance(graph.assets[one], Source) else root_of(graph, one) == root for one in scope)
    return Slicing(dict.fromkeys(scope, root)) if root is not None and alone else None


def root_of(graph: Graph, name: str) -> str | None:
    """The source of which one document is above all that a unit of the asset is given; None where a unit is made of more."""
    asset, root = graph.assets[name], graph.chain(name)[-1]
    alone = asset.partitions is None and all(_descends(d, root, graph) for d in asset.dependencies)
    return root if alone and isinstance(graph.assets[root], Source) else None


def _descends(dependency: Dependency, root: str, graph: Graph) -> bool:
    """Whether all that a unit is given of it descends from the same document of the root as the unit does."""
    if dependency.kind == "each":
        return not dependency.cross
    return dependency.per is not None and root in graph.chain(dependency.per.name)
