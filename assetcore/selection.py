"""Selection: which assets, and which of their units, does a text mean?

Everything here is pure. `grammar` reads the text, `needs` says which facts the answer takes, `select` answers over a `Catalogue`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NoReturn, TypeAlias, assert_never

from assetcore.errors import NothingSelectedError, SelectionError
from assetcore.grammar import (
    And,
    Anywhere,
    Around,
    Ends,
    Field,
    Label,
    Name,
    Not,
    Or,
    Pattern,
    Selection,
    Span,
    Units,
    parts,
)
from assetcore.refs import suggestion

if TYPE_CHECKING:
    from assetcore.graph import Graph  # a selection is answered without pydantic and networkx

__all__ = [
    "AssetFacts",
    "Both",
    "Catalogue",
    "Either",
    "Except",
    "Needed",
    "Selected",
    "UnitRule",
    "asks_this_asset",
    "catalogue",
    "holds",
    "needs",
    "references",
    "select",
]


@dataclass(frozen=True, slots=True)
class AssetFacts:
    """What a declaration says of an asset, as far as it can be selected by."""

    tags: tuple[str, ...] = ()
    group: str = "main"
    owner: str | None = None
    kind: str = "asset"
    project: str = ""
    kinds: tuple[str, ...] = ()
    sensitivity: str | None = None


@dataclass(frozen=True, slots=True)
class Catalogue:
    """What there is to select from: assets in their order, who is made out of whom, and what `needs` asked for.

    `statuses` and `causes` hold for each asset the words that apply to any of its units; `changed` returns the assets
    that differ from a git ref or an environment. None means that this place does not know.
    """

    assets: Mapping[str, AssetFacts]
    upstream: Mapping[str, Collection[str]]
    downstream: Mapping[str, Collection[str]]
    statuses: Mapping[str, Collection[str]] | None = None
    causes: Mapping[str, Collection[str]] | None = None
    changed: Callable[[str], Collection[str]] | None = None


def catalogue(
    graph: Graph,
    *,
    statuses: Mapping[str, Collection[str]] | None = None,
    causes: Mapping[str, Collection[str]] | None = None,
    changed: Callable[[str], Collection[str]] | None = None,
) -> Catalogue:
    """The catalogue of a project's graph."""
    return Catalogue(
        {
            name: AssetFacts(
                asset.tags,
                asset.group,
                asset.options.owner,
                asset.kind,
                graph.project,
                asset.kinds,
                graph.sensitivity[name],
            )
            for name, asset in graph.assets.items()
        },
        {name: graph.upstream(name) for name in graph.assets},
        {name: graph.downstream(name) for name in graph.assets},
        statuses,
        causes,
        changed,
    )


@dataclass(frozen=True, slots=True)
class Either:
    """Units that any of the rules match."""

    of: tuple[UnitRule, ...]

    def matches(self, label: str) -> bool:
        return any(rule.matches(label) for rule in self.of)

    def __str__(self) -> str:
        return " or ".join(map(str, self.of))


@dataclass(frozen=True, slots=True)
class Both:
    """Units that all of the rules match."""

    of: tuple[UnitRule, ...]

    def matches(self, label: str) -> bool:
        return all(rule.matches(label) for rule in self.of)

    def __str__(self) -> str:
        return " and ".join(map(str, self.of))


@dataclass(frozen=True, slots=True)
class Except:
    """Units that the rule does not match."""

    of: UnitRule

    def matches(self, label: str) -> bool:
        return not self.of.matches(label)

    def __str__(self) -> str:
        return f"not ({self.of})"


@dataclass(frozen=True, slots=True)
class Needed:
    """Of an asset above some units: the partitions that those are given. Which these are a plan knows; until then, all."""

    def matches(self, label: str) -> bool:
        return True

    def __str__(self) -> str:
        return "what is below needs"


UnitRule: TypeAlias = Label | Span | Anywhere | Either | Both | Except | Needed
"""Which units of one asset: `rule.matches(label)`; `str(rule)` is for messages."""


def holds(rule: UnitRule, names: Collection[str]) -> bool:
    """Whether a rule holds of a unit that goes by several names: by its label, by its path, by its partition."""
    match rule:
        case Either(of):
            return any(holds(one, names) for one in of)
        case Both(of):
            return all(holds(one, names) for one in of)
        case Except(of):
            return not holds(of, names)
        case _:
            return any(map(rule.matches, names))


def asks_this_asset(rule: UnitRule) -> bool:
    """Whether a rule names units of its asset: of one that asks any asset for units, not each has to have some."""
    match rule:
        case Anywhere():
            return False
        case Either(of) | Both(of):
            return all(map(asks_this_asset, of))
        case Except(of):
            return asks_this_asset(of)
        case _:
            return True


@dataclass(frozen=True, slots=True)
class Selected:
    """What a selection selects: assets in the catalogue's order, and a rule for each that is only meant in part."""

    assets: tuple[str, ...]
    units: Mapping[str, UnitRule] = field(default_factory=dict)

    def includes(self, asset: str, unit: str) -> bool:
        """Whether this unit of this asset is selected."""
        rule = self.units.get(asset)
        return asset in self.assets and (rule is None or rule.matches(unit))


def needs(selection: Selection) -> frozenset[Literal["status", "cause", "changed"]]:
    """Which facts beyond the declarations `select` asks for: nothing is planned for a plain selection."""
    found = {part.field for _, part in parts(selection) if isinstance(part, Field)}
    return frozenset(name for name in ("status", "cause", "changed") if name in found)


def references(selection: Selection) -> frozenset[str]:
    """What `changed:` compares with in this selection: git refs and environments."""
    fields = [part for _, part in parts(selection) if isinstance(part, Field)]
    return frozenset(part.pattern.text for part in fields if part.field == "changed")


def select(selection: Selection, catalogue: Catalogue) -> Selected:
    """What the selection selects in this catalogue.

    Raises NothingSelectedError when it is nothing, or when it names an asset that does not exist: a misspelt name
    beside a good one would otherwise go unnoticed. The hint says what was perhaps meant.
    """
    for _, part in parts(selection):
        name = part if isinstance(part, Name) else part.name if isinstance(part, Units) else None
        if name is not None and not name.pattern.glob and name.pattern.text not in catalogue.assets:
            _nothing(f"There is no asset {name.pattern}.", name.pattern.text, catalogue.assets, "Assets")
    found = _evaluate(selection, catalogue)
    if not found:
        _selects_nothing(selection, catalogue)
    assets = tuple(asset for asset in catalogue.assets if asset in found)
    return Selected(assets, {asset: rule for asset in assets if (rule := found[asset]) is not None})


_Found: TypeAlias = "dict[str, UnitRule | None]"
"""Asset to its rule; None is all of its units."""


def _evaluate(selection: Selection, catalogue: Catalogue) -> _Found:
    match selection:
        case Name(pattern):
            return dict.fromkeys(_named(pattern, catalogue))
        case Units(name, rule):
            return dict.fromkeys(_named(name.pattern, catalogue), rule)
        case Anywhere():
            return dict.fromkeys(catalogue.assets, selection)
        case Field():
            return dict.fromkeys(_with_field(selection, catalogue))
        case Around(of, up, down):
            found = _evaluate(of, catalogue)
            start = set(found)
            partial = Needed() if any(rule is not None for rule in found.values()) else None
            above = dict.fromkeys(_reach(start, catalogue.upstream, up), partial)
            return found | above | dict.fromkeys(_reach(start, catalogue.downstream, down))
        case Ends(end, of):
            found = _evaluate(of, catalogue)
            beyond = catalogue.upstream if end == "roots" else catalogue.downstream
            return {asset: rule for asset, rule in found.items() if not any(a in found for a in beyond.get(asset, ()))}
        case Not(of):
            return _complement(_evaluate(of, catalogue), catalogue)
        case And(of):
            found = _evaluate(of[0], catalogue)
            for term in of[1:]:
                found = _intersection(found, _evaluate(term, catalogue))
            return found
        case Or(of):
            found = {}
            for term in of:
                found = _union(found, _evaluate(term, catalogue))
            return found
        case _:
            assert_never(selection)


def _named(pattern: Pattern, catalogue: Catalogue) -> list[str]:
    if not pattern.glob:
        return [pattern.text] if pattern.text in catalogue.assets else []
    return [asset for asset in catalogue.assets if pattern.matches(asset)]


def _with_field(part: Field, catalogue: Catalogue) -> Iterable[str]:
    if part.field == "changed":
        changed = catalogue.changed(part.pattern.text) if catalogue.changed else _unknown(part)
        return [asset for asset in catalogue.assets if asset in changed]
    values = _values(part, catalogue)
    return [asset for asset in catalogue.assets if any(map(part.pattern.matches, values.get(asset, ())))]


def _values(part: Field, catalogue: Catalogue) -> Mapping[str, Collection[str]]:
    """For each asset, its values of the field."""
    match part.field:
        case "tag":
            return {asset: facts.tags for asset, facts in catalogue.assets.items()}
        case "group":
            return {asset: (facts.group,) for asset, facts in catalogue.assets.items()}
        case "owner":
            return {asset: (facts.owner,) for asset, facts in catalogue.assets.items() if facts.owner is not None}
        case "sensitivity":
            known = ((asset, facts.sensitivity) for asset, facts in catalogue.assets.items())
            return {asset: (sensitivity,) for asset, sensitivity in known if sensitivity is not None}
        case "kind":
            return {asset: (facts.kind, *facts.kinds) for asset, facts in catalogue.assets.items()}
        case "project":
            return {asset: (facts.project,) for asset, facts in catalogue.assets.items()}
        case "status":
            return catalogue.statuses if catalogue.statuses is not None else _unknown(part)
        case "cause":
            return catalogue.causes if catalogue.causes is not None else _unknown(part)
        case "changed":
            return {}
        case _:
            assert_never(part.field)


def _unknown(part: Field) -> NoReturn:
    raise SelectionError(
        f"The selection asks for {part}, which is not known here.", hint="Select by name, tag, group, owner or kind."
    )


def _reach(start: set[str], beyond: Mapping[str, Collection[str]], layers: int | None) -> set[str]:
    """What is reached from `start` in at most `layers` steps, without `start` itself."""
    reached: set[str] = set()
    edge = start
    while edge and (layers is None or layers > 0):
        edge = {asset for known in edge for asset in beyond.get(known, ())} - reached - start
        reached |= edge
        layers = None if layers is None else layers - 1
    return reached


def _union(one: _Found, other: _Found) -> _Found:
    result = dict(one)
    for asset, rule in other.items():
        known = result.get(asset, rule)
        if known is None or rule is None:
            result[asset] = None
        elif known == rule:
            result[asset] = rule
        else:
            result[asset] = Either((*(known.of if isinstance(known, Either) else (known,)), rule))
    return result


def _intersection(one: _Found, other: _Found) -> _Found:
    result: _Found = {}
    for asset, rule in one.items():
        if asset not in other:
            continue
        also = other[asset]
        if rule is None or also is None or rule == also:
            result[asset] = also if rule is None else rule
        elif (single := _single(rule) or _single(also)) is None:
            result[asset] = Both((*(rule.of if isinstance(rule, Both) else (rule,)), also))
        elif rule.matches(single.pattern.text) and also.matches(single.pattern.text):
            result[asset] = single
    return result


def _single(rule: UnitRule) -> Label | None:
    """The rule, if it is one label exactly: what else holds of it can then be decided here."""
    return rule if isinstance(rule, Label) and not rule.pattern.glob else None


def _complement(found: _Found, catalogue: Catalogue) -> _Found:
    result: _Found = {}
    for asset in catalogue.assets:
        if asset not in found:
            result[asset] = None
        elif (rule := found[asset]) is not None and rule != Needed():
            result[asset] = rule.of if isinstance(rule, Except) else Except(rule)
    return result


def _selects_nothing(selection: Selection, catalogue: Catalogue) -> NoReturn:
    """Say which term is empty; where none is, that they have nothing in common."""
    whole = f"The selection '{selection}' selects nothing"
    for _, part in parts(selection):
        if not isinstance(part, Name | Units | Field) or _evaluate(part, catalogue):
            continue
        if not isinstance(part, Field):
            pattern = part.pattern if isinstance(part, Name) else part.name.pattern
            word = re.sub(r"[*?]", "", pattern.text)
            _nothing(f"{whole}: no asset matches {pattern}.", word, catalogue.assets, "Assets")
        value = str(part.pattern)
        match part.field:
            case "changed":
                raise NothingSelectedError(f"{whole}: nothing has changed since {value}.")
            case "status":
                reason = f"nothing is {value}"
            case "cause":
                reason = f"nothing is stale because of {value}"
            case _:
                reason = f"no asset has the {part.field} {value}"
        known = {value for values in _values(part, catalogue).values() for value in values}
        _nothing(f"{whole}: {reason}.", part.pattern.text, known, f"Found for {part.field}")
    raise NothingSelectedError(f"{whole}: its terms share nothing.", hint="Try them one by one: aipctl ls TERM")


def _nothing(sentence: str, word: str, known: Iterable[str], what: str) -> NoReturn:
    names = sorted(known)
    shown = ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
    hints = [suggestion(word, names), f"{what}: {shown}." if names else None]
    raise NothingSelectedError(sentence, hint=" ".join(filter(None, hints)) or None)
