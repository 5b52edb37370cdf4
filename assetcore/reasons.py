"""Reasons: how is it told why a unit is stale, and what differs between two definitions?"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from pydantic_core import to_jsonable_python

from assetcore.documents import Document
from assetcore.staleness import COMPONENTS, Component

__all__ = [
    "SHOWN",
    "CauseFound",
    "CauseGroup",
    "Why",
    "component_differences",
    "diff_of",
    "few",
    "fields_differing",
    "merged",
]


SHOWN = 20
"""So many roots are told; the rest is counted."""


@dataclass(frozen=True, slots=True)
class CauseFound:
    """One root: what was and what is (ids, values, digests, versions) or a unified diff.

    `subject` is what it is about: a document's REF, a config value, an alias, a package, a part of the code. `path` leads from the unit
    that was asked about up to it, by REFs; `units` counts those whose own cause it is. `fields` are what of a document differs beside its
    content. `unit` is one of those whose own cause it is, where it is told of which.
    """

    code: str
    detail: str
    before: Any = None
    after: Any = None
    diff: str | None = None
    subject: str | None = None
    path: tuple[str, ...] = ()
    units: int = 1
    fields: Mapping[str, Mapping[str, Any]] | None = None
    unit: bytes | None = None

    def to_json(self) -> dict[str, Any]:
        found = {
            "code": self.code, "detail": self.detail, "subject": self.subject, "before": self.before, "after": self.after,
            "path": list(self.path), "units": self.units,
        }  # fmt: skip
        fields = {"fields": {name: dict(values) for name, values in self.fields.items()}} if self.fields else {}
        return found | ({"diff": self.diff} if self.diff else {}) | fields


@dataclass(frozen=True, slots=True)
class Why:
    """Why a unit is stale; `fresh` when it is not. `checks` say what they found in what it currently is."""

    unit: str
    status: str
    causes: tuple[CauseFound, ...]
    checks: tuple[Mapping[str, Any], ...] = ()
    notes: tuple[Mapping[str, str], ...] = ()
    made_at: datetime | None = None
    fresh_until: datetime | None = None
    accepted: tuple[Mapping[str, Any], ...] = ()

    @property
    def fresh(self) -> bool:
        return self.status == "fresh"

    def to_json(self) -> dict[str, Any]:
        return {
            "unit": self.unit,
            "fresh": self.fresh,
            "status": self.status,
            "causes": [c.to_json() for c in self.causes],
            "checks": [dict(c) for c in self.checks],
            "notes": [dict(note) for note in self.notes],
            "made_at": self.made_at.isoformat() if self.made_at else None,
            "fresh_until": self.fresh_until.isoformat() if self.fresh_until else None,
            **({"accepted": [dict(one) for one in self.accepted]} if self.accepted else {}),
        }


@dataclass(frozen=True, slots=True)
class CauseGroup:
    """All roots of one cause in a plan: how many units are stale, each by its first cause, how many are pending below, how many go."""

    code: str
    stale: int
    pending: int
    removed: int
    roots: tuple[CauseFound, ...]

    @property
    def units(self) -> int:
        """How many units it concerns."""
        return self.stale + self.pending + self.removed

    def to_json(self) -> dict[str, Any]:
        return {
            "code": self.code,
            "stale": self.stale,
            "pending": self.pending,
            "removed": self.removed,
            "roots": [c.to_json() for c in self.roots],
        }


def component_differences(
    name: str, component: str, before: Component, after: Component, counted: Mapping[str, Any]
) -> list[CauseFound]:
    """What differs between two versions of a definition's component, except for its code; of packages, only those that count."""
    code = COMPONENTS[component]
    was, now = before.detail, after.detail
    match component:
        case "config":
            was, now = dict(_settings(name, was or {})), dict(_settings(name, now or {}))
            says = "the config value {} was changed"
        case "models":
            was, now, says = was or {}, now or {}, "the model alias {} points elsewhere"
        case "environment":
            was, now = ({p: v for p, v in (pins or {}).items() if p in counted} for pins in (was, now))
            says = "the package {} has another version"
        case "version":
            return [CauseFound(code, f"the version of {name} was changed", was, now, subject=name)]
        case "schema":
            return [CauseFound(code, f"what {name} returns is declared differently", was, now, subject=name)]
        case _:
            return [CauseFound(code, f"the dependencies of {name} are declared differently", was, now, subject=name)]
    keys = [key for key in {**was, **now} if was.get(key) != now.get(key)]
    found = [CauseFound(code, says.format(key), was.get(key), now.get(key), subject=key) for key in keys]
    return found or [CauseFound(code, says.format("values"), was, now, subject=name)]


def _settings(name: str, parameters: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The config of an asset by the names that `--set` has for its values; an only parameter is left out."""
    return _flat(next(iter(parameters.values())) if len(parameters) == 1 else dict(parameters), name)


def _flat(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _flat(inner, f"{path}.{key}")
    else:
        yield path, value


def diff_of(before: str, after: str, name: str, then: str = "made with", now: str = "now") -> str:
    """A unified diff of two texts."""
    return unified(before, after, f"{name} ({then})", f"{name} ({now})", context=2)


def unified(before: str, after: str, was: str, now: str, *, context: int = 3) -> str:
    """A unified diff of two texts, empty where they are the same; where they differ in the ends of lines alone, these are shown."""
    old, new = before.splitlines(), after.splitlines()
    if old == new and before != after:
        old, new = _with_ends(before), _with_ends(after)
    return "\n".join(difflib.unified_diff(old, new, was, now, lineterm="", n=context))


def _with_ends(text: str) -> list[str]:
    return [
        line + ascii(whole[len(line) :])[1:-1]
        for line, whole in zip(text.splitlines(), text.splitlines(keepends=True), strict=True)
    ]


def fields_differing(before: Document, after: Document) -> dict[str, dict[str, Any]]:
    """In what two documents differ beside their content: name, media type and typed fields, each `before` and `after`."""
    was, now = ({"name": d.name, "media_type": d.media_type, **d.field_values()} for d in (before, after))
    return {
        name: {
            when: to_jsonable_python(values.get(name), bytes_mode="base64", fallback=str)
            for when, values in (("before", was), ("after", now))
        }
        for name in {**was, **now}
        if was.get(name) != now.get(name)
    }


def few(causes: Sequence[CauseFound]) -> tuple[CauseFound, ...]:
    if len(causes) <= SHOWN:
        return tuple(causes)
    return (*causes[:SHOWN], CauseFound(causes[SHOWN].code, f"and {len(causes) - SHOWN:,} more"))


def merged(causes: Sequence[CauseFound]) -> list[CauseFound]:
    """Each once: what is the root of units of several assets counts for all of them. The largest first."""
    merged: dict[Any, CauseFound] = {}
    for cause in causes:
        key = (cause.code, cause.detail, str(cause.before), str(cause.after))
        known = merged.get(key)
        merged[key] = replace(known, units=known.units + cause.units) if known else cause
    return sorted(merged.values(), key=lambda cause: -cause.units)
