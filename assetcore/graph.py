"""Graph: who is made out of whom?

A graph is built from the declarations of one project and never changes. Beside order and ancestry it answers what the units
of an asset are keyed by: the asset's *driver*, the one `each` whose documents are the finest, and the *chain* of drivers above it.
Sensitivity flows along it: an asset is at least as sensitive as what it is made of, unless it is declared to anonymise.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, get_args

from assetcore.assets import Asset, Dependency, Sensitivity, Source
from assetcore.checks import Check
from assetcore.errors import DeclarationError, NothingSelectedError

__all__ = ["Graph"]

AnyAsset = Asset[..., Any]

SCALE: tuple[Sensitivity, ...] = get_args(Sensitivity)
SAYING: Mapping[str, str] = {
    "owner": 'owner="ada"',
    "description": "a docstring (a source: that of its class) or description=",
    "sensitivity": 'sensitivity="internal"',
    "freshness": 'freshness="30d"',
    "tags": 'tags=["report"]',
    "kinds": 'kinds=["markdown"]',
}
"""How a declaration says what can be required of it."""


class Graph:
    """The assets of one project, in an order in which each comes after those it is made of.

    Raises DeclarationError naming every mistake of every asset: annotations, unknown dependencies, two assets of one name,
    `each` parameters that are not related, one that is less sensitive than what it is made of, checks that cannot be asked.
    """

    def __init__(self, project: str, declared: Iterable[AnyAsset], checks: Iterable[Check[..., Any]] = ()) -> None:
        self.project = project
        named = _by_name(declared)
        _resolve_all(named.values())
        self._above = {name: tuple({up.name: None for up in asset.upstreams}) for name, asset in named.items()}
        self._below: dict[str, list[str]] = {name: [] for name in named}
        for name, upstreams in self._above.items():
            for up in upstreams:
                self._below[up].append(name)
        self.assets: Mapping[str, AnyAsset] = {name: named[name] for name in self._sorted(named)}
        _raise_all([problem for asset in self.assets.values() if (problem := self._misaligned(asset))])
        _raise_all([problem for asset in self.assets.values() if (problem := self._exposed(asset))])
        self.checks: Mapping[str, Sequence[Check[..., Any]]] = self._checks_of(checks)

    @cached_property
    def sources(self) -> tuple[str, ...]:
        """The names of the sources, in order."""
        return tuple(name for name, asset in self.assets.items() if isinstance(asset, Source))

    def __getitem__(self, name: str) -> AnyAsset:
        try:
            return self.assets[name]
        except KeyError:
            raise NothingSelectedError(
                f"{self.project} has no asset or source {name!r}.", hint=f"It has: {', '.join(self.assets)}."
            ) from None

    @cached_property
    def functions(self) -> Mapping[str, AnyAsset | Check[..., Any]]:
        """Whose function has which name: an asset's its own, that of a check `asset.check`."""
        return {**self.assets, **{check.key: check for checks in self.checks.values() for check in checks}}

    @cached_property
    def sensitivity(self) -> Mapping[str, Sensitivity | None]:
        """How sensitive each asset is: as declared, or as the most sensitive that it is made of; None where nobody has said so."""
        found: dict[str, Sensitivity | None] = {}
        for name, asset in self.assets.items():
            found[name] = asset.options.sensitivity or max(
                (found[up] for up in self._above[name]), key=_weight, default=None
            )
        return found

    def require(self, names: Collection[str]) -> None:
        """Raises DeclarationError naming every asset that does not say what the setting `require` asks for, with the place."""
        lacking = {name: [what for what in names if self._lacks(asset, what)] for name, asset in self.assets.items()}
        problems = [
            f"{self.assets[n].place}: {n} has no {' and no '.join(what)}." for n, what in lacking.items() if what
        ]
        if problems:
            asked = [what for what in names if any(what in found for found in lacking.values())]
            raise DeclarationError(
                "\n".join(problems),
                hint=f"The setting require asks for it. Give it {', '.join(SAYING[what] for what in asked)}.",
            )

    def upstream(self, name: str) -> tuple[str, ...]:
        """The assets that `name` is made of directly."""
        return tuple(asset.name for asset in self.assets[name].upstreams)

    def downstream(self, name: str) -> tuple[str, ...]:
        """The assets that are made of `name` directly."""
        return tuple(sorted(self._below[name], key=self._rank.__getitem__))

    def ancestors(self, names: Iterable[str]) -> frozenset[str]:
        """All assets that these are made of, however far up; without themselves unless one is above another."""
        return _reached(names, self._above)

    def descendants(self, names: Iterable[str]) -> frozenset[str]:
        """All assets made of these, however far down."""
        return _reached(names, self._below)

    def ordered(self, names: Iterable[str]) -> tuple[str, ...]:
        """These names in the graph's order."""
        return tuple(sorted(set(names), key=self._rank.__getitem__))

    def nearest(self, names: Iterable[str]) -> dict[str, list[str]]:
        """For each of these, in order, those of them that it is made of with none of them in between.

        That is the transitive reduction of their part of the graph's closure. Sets of names are bits of a number: of those above a name,
        the last in the graph's order is above none of the others, so it is one of the nearest, and what is above it is not.
        """
        chosen = self.ordered(names)
        bit = {name: 1 << index for index, name in enumerate(chosen)}
        reached: dict[str, int] = {}
        found: dict[str, list[str]] = {}
        for name in self.assets:
            reached[name] = 0
            for up in self._above[name]:
                reached[name] |= reached[up] | bit.get(up, 0)
            if name in bit:
                rest, nearest = reached[name], found.setdefault(name, [])
                while rest:
                    nearest.append(chosen[rest.bit_length() - 1])
                    rest &= ~(reached[nearest[-1]] | bit[nearest[-1]])
                nearest.reverse()
        return found

    def driver(self, name: str) -> Dependency | None:
        """The `each` whose documents the units of `name` are: the one that descends from all the others."""
        return self._drivers[name]

    def is_whole(self, name: str) -> bool:
        """Whether the asset is made once, over everything: neither once for each document nor for each group or partition."""
        asset = self.assets[name]
        return self.driver(name) is None and asset.partitions is None and all(d.by is None for d in asset.dependencies)

    def is_by_partition(self, name: str) -> bool:
        """Whether each unit of the asset is a partition, rather than a document or a group in one."""
        asset = self.assets[name]
        grouped = any(d.by is not None for d in asset.dependencies)
        return asset.partitions is not None and self.driver(name) is None and not grouped

    def chain(self, name: str) -> tuple[str, ...]:
        """`name`, the asset whose documents are its units, the one whose documents are that one's units, and so on."""
        return self._chain(name, self._drivers)

    @cached_property
    def _drivers(self) -> dict[str, Dependency | None]:
        """The driver of each asset, from those above down: each asked anew of all above it would take twice as long a step."""
        found: dict[str, Dependency | None] = {}
        for name, asset in self.assets.items():
            eaches = [d for d in asset.dependencies if d.kind == "each" and not d.cross]
            names = {d.upstream.name for d in eaches}
            finest = (d for d in eaches if len(names) == 1 or names.issubset(self._chain(d.upstream.name, found)))
            found[name] = next(finest, None)
        return found

    def _chain(self, name: str, drivers: Mapping[str, Dependency | None]) -> tuple[str, ...]:
        chain = [name]
        while (driver := drivers[chain[-1]]) and not self._is_multiplied(chain[-1]):
            chain.append(driver.upstream.name)
        return tuple(chain)

    def _is_multiplied(self, name: str) -> bool:
        """Whether a document above makes several units of the asset."""
        asset = self.assets[name]
        return asset.multiplied or any(d.cross for d in asset.dependencies)

    def consumers_of_fields(self, name: str) -> frozenset[str]:
        """The typed fields by which some asset groups the documents of `name`."""
        downstream = (d for n in self.downstream(name) for d in self.assets[n].dependencies)
        return frozenset(d.by for d in downstream if d.by is not None and d.upstream.name == name)

    def is_taken_in_parts(self, name: str) -> bool:
        """Whether some asset looks at parts of the documents of `name`: groups them by a field, or is handed only some fields."""
        downstream = (d for n in self.downstream(name) for d in self.assets[n].dependencies)
        return any(d.upstream.name == name and (d.by is not None or d.fields is not None) for d in downstream)

    @cached_property
    def _rank(self) -> dict[str, int]:
        return {name: index for index, name in enumerate(self.assets)}

    def _sorted(self, named: Mapping[str, AnyAsset]) -> Iterable[str]:
        """Each after those that it is made of; among those that could come next, the one that is declared first."""

        def ready(name: str) -> tuple[str, int, str]:
            return named[name].place.file, named[name].place.line, name

        waits = {name: len(above) for name, above in self._above.items()}
        heap = [ready(name) for name, count in waits.items() if count == 0]
        heapq.heapify(heap)
        while heap:
            name = heapq.heappop(heap)[-1]
            yield name
            for below in self._below[name]:
                waits[below] -= 1
                if waits[below] == 0:
                    heapq.heappush(heap, ready(below))

    def _checks_of(self, declared: Iterable[Check[..., Any]]) -> dict[str, list[Check[..., Any]]]:
        """The checks of each asset, in the order in which they are declared."""
        found: dict[str, list[Check[..., Any]]] = {}
        known: dict[str, Check[..., Any]] = {}
        problems: list[DeclarationError] = []
        for check in sorted(declared, key=lambda c: (c.place.file, c.place.line)):
            try:
                if self.assets.get(check.asset.name) is not check.asset:
                    raise check.fail(
                        f"is about {check.asset.name}, which is no asset of {self.project}.",
                        "Import the asset into a module of the project, or leave the check out of it.",
                    )
                if known.setdefault(check.key, check) is not check:
                    raise check.fail(
                        f"is declared twice; the other is at {known[check.key].place}.", "Rename one of them."
                    )
                check.resolve()
            except DeclarationError as error:
                problems.append(error)
            found.setdefault(check.asset.name, []).append(check)
        _raise_all(problems)
        return found

    def _lacks(self, asset: AnyAsset, what: str) -> bool:
        match what:
            case "description":
                return not asset.description
            case "sensitivity":  # what is made of others is as sensitive as they are
                return asset.options.sensitivity is None and not self._above[asset.name]
            case "freshness":  # a source is looked at in every plan
                return asset.options.freshness is None and not isinstance(asset, Source)
            case _:
                return not getattr(asset.options, what)

    def _exposed(self, asset: AnyAsset) -> DeclarationError | None:
        own = asset.options.sensitivity
        above = max(self._above[asset.name], key=lambda up: _weight(self.sensitivity[up]), default=None)
        if own is None or above is None or asset.options.anonymises:
            return None
        least = self.sensitivity[above]
        if _weight(own) >= _weight(least):
            return None
        return asset.fail(
            f'has sensitivity="{own}", but is made of {above}, which is {least}.',
            f'Leave it out, or, if the function takes out what is {least}: @asset(sensitivity="{own}", anonymises=True).',
        )

    def _misaligned(self, asset: AnyAsset) -> DeclarationError | None:
        eaches = [d for d in asset.dependencies if d.kind == "each" and not d.cross]
        if eaches and self.driver(asset.name) is None:
            pair = " and ".join(f"each({d.upstream.name})" for d in eaches)
            return asset.fail(
                f"asks {pair}, but neither descends from the other, so nothing says which belong together.",
                "Give one of them cross=True for every pair, or collect() one of them.",
            )
        for dependency in asset.dependencies:
            if dependency.cross and not eaches:
                return asset.fail(
                    f"has only {dependency.parameter!r} as each(), with cross=True.",
                    "cross=True goes on the second each().",
                )
            if dependency.per is not None and dependency.per.name not in self.chain(dependency.upstream.name)[1:]:
                return asset.fail(
                    f"takes collect({dependency.upstream.name}, per={dependency.per.name}) in {dependency.parameter!r}, "
                    f"but {dependency.upstream.name} does not descend from {dependency.per.name} through each().",
                    f"Documents of {dependency.upstream.name} descend from: "
                    f"{', '.join(self.chain(dependency.upstream.name)[1:]) or 'nothing'}.",
                )
        return None


def _weight(sensitivity: Sensitivity | None) -> int:
    return -1 if sensitivity is None else SCALE.index(sensitivity)


def _reached(starts: Iterable[str], steps: Mapping[str, Sequence[str]]) -> frozenset[str]:
    """All that one or more steps lead to."""
    found: set[str] = set()
    waiting = list(starts)
    while waiting:
        new = [name for name in steps.get(waiting.pop(), ()) if name not in found]
        found.update(new)
        waiting.extend(new)
    return frozenset(found)


def _by_name(declared: Iterable[AnyAsset]) -> dict[str, AnyAsset]:
    """Every declared asset and everything above it, by name; two of one name are an error that names both places."""
    named: dict[str, AnyAsset] = {}
    problems: list[DeclarationError] = []
    waiting = list(declared)[::-1]
    while waiting:
        asset = waiting.pop()
        known = named.get(asset.name)
        if known is asset:
            continue
        if known is not None:
            problems.append(
                DeclarationError(
                    f"{asset.place}: {asset.name} is declared twice; the other is at {known.place}.",
                    hint="Rename one of them.",
                )
            )
            continue
        named[asset.name] = asset
        try:
            waiting.extend(asset.upstreams)
        except DeclarationError:
            continue  # reported by _resolve_all, with all the others
    _raise_all(problems)
    return named


def _resolve_all(assets: Iterable[AnyAsset]) -> None:
    problems: list[DeclarationError] = []
    for asset in assets:
        try:
            asset.resolve()
        except DeclarationError as error:
            problems.append(error)
    _raise_all(list({str(p): p for p in problems}.values()))


def _raise_all(problems: list[DeclarationError]) -> None:
    if len(problems) == 1:
        raise problems[0]
    if problems:
        raise DeclarationError("\n".join(map(str, problems)), hint=f"{len(problems)} mistakes in the declarations.")
