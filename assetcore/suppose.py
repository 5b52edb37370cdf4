"""Suppose: what would be observed and declared, if this were changed or removed?

A supposition is stated over what a plan is made from, so the planner decides about it as about everything else, and nothing is done.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import polars as pl

from assetcore.assets import Source
from assetcore.digest import digest
from assetcore.errors import NothingSelectedError, UsageError
from assetcore.graph import Graph
from assetcore.refs import format_ref, parse_ref, suggestion
from assetcore.staleness import Component, Definition

__all__ = ["Supposition", "parse_suppositions", "supposed_definitions", "supposed_observation"]

_HINT = "Write: remove topics[with], change topics[with], change topics, or change chunks (its code)."


@dataclass(frozen=True, slots=True)
class Supposition:
    """A document of a source (or all of them) changed or removed, or the code of an asset changed."""

    verb: Literal["change", "remove"]
    asset: str
    document: str | None = None

    def __str__(self) -> str:
        return f"{self.verb} {format_ref(self.asset, self.document)}"


def parse_suppositions(graph: Graph, texts: Iterable[str]) -> tuple[Supposition, ...]:
    """Read `change REF` and `remove REF`. Raises UsageError, SelectionError."""
    return tuple(_parse(graph, text) for text in texts)


def _parse(graph: Graph, text: str) -> Supposition:
    verb, _, rest = text.strip().partition(" ")
    ref = parse_ref(rest) if rest.strip() else None
    if verb not in ("change", "remove") or ref is None or ref.asset is None:
        raise UsageError(f"{text!r} says neither `change REF` nor `remove REF`.", hint=_HINT)
    if ref.document is not None and ref.document != ref.unit:
        raise UsageError(f"{text!r}: a unit is changed or removed, not one of its documents.", hint=_HINT)
    if not isinstance(graph[ref.asset], Source) and (verb == "remove" or ref.unit is not None):
        raise UsageError(
            f"{text!r}: {ref.asset} is made, not observed; what it makes follows from what is above it.",
            hint=f"Suppose that its code is changed: change {ref.asset}; or something above it.",
        )
    return Supposition("change" if verb == "change" else "remove", ref.asset, ref.unit)


def supposed_observation(supposed: Sequence[Supposition], source: str, observed: pl.DataFrame) -> pl.DataFrame:
    """What would be observed of a source. Raises NothingSelectedError where it has no such document."""
    for one in supposed:
        if one.asset != source:
            continue
        meant = pl.lit(value=True) if one.document is None else pl.col("name") == one.document
        if one.document is not None and not observed.filter(meant).height:
            hint = suggestion(one.document, observed["name"].to_list())
            raise NothingSelectedError(f"{source} has no document {one.document!r}.", hint=hint)
        if one.verb == "remove":
            observed = observed.filter(~meant)
        else:
            observed = pl.concat([observed.filter(~meant), _changed(observed.filter(meant))]).sort("name")
    return observed


def _changed(observed: pl.DataFrame) -> pl.DataFrame:
    """The same documents with other content."""
    other = {
        column: pl.Series(column, [digest("supposed", column, value) for value in observed[column]], pl.Binary)
        for column in ("identity", "sha256")
    }
    return observed.with_columns(**other)


def supposed_definitions(
    supposed: Sequence[Supposition], definitions: Mapping[str, Definition]
) -> dict[str, Definition]:
    """The definitions that assets would have."""
    found = dict(definitions)
    for one in supposed:
        if one.asset in found:
            components = found[one.asset].components
            code = Component(digest("supposed", components["code"].digest), components["code"].detail)
            found[one.asset] = Definition({**components, "code": code})
    return found
