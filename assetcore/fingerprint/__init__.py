"""Fingerprint: when are two functions the same?

When nothing that can change a result differs: their code without comments, docstrings, annotations and formatting, and that of
everything they refer to in the user's own packages (functions, classes, constants, defaults, decorators). The same on every machine and,
as far as the syntax allows, on every Python.

    found = fingerprint(chunks, user_packages={"projects"})
    found.digest        the identity: over the sorted list of parts, each by its name and its own digest
    found.parts         that list; the difference of two lists says why two fingerprints differ
    found.environment   third-party distributions that the code touches, with their versions: a digest of their own, not part of this one
    found.notes         what could not be followed, and what settles it

The rooms: `encoding` (bytes of a tree), `normal` (what of a definition counts), `definitions` (its free names), `files` (where things are
defined), `origins` (whose code it is), `values` (bytes of an object), `hazards` (what is not in the code), `closure` (the walk).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from assetcore.digest import digest
from assetcore.fingerprint import encoding
from assetcore.fingerprint.closure import ROOT, Closure, Draft, Keep
from assetcore.fingerprint.hazards import Note
from assetcore.fingerprint.origins import Origins, UserPackages
from assetcore.fingerprint.values import Reference

__all__ = ["Fingerprint", "Note", "Part", "fingerprint"]


@dataclass(frozen=True, slots=True)
class Part:
    """One definition of the closure."""

    name: str
    """`module.qualname`; the asset's own function is `<asset>`, so that renaming it changes nothing."""
    digest: bytes
    """32 bytes: the definition, and the labels of what it refers to."""
    source: str
    """The normalised source, for diffs."""
    note: str = ""
    """"" or how it was followed: "coarse" (a module as a whole), "opaque" (by the statement that makes it), "no source", "version"."""


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What a function is; equal digests mean the same code."""

    digest: bytes
    parts: tuple[Part, ...]
    environment: tuple[tuple[str, str], ...]
    notes: tuple[Note, ...]


def fingerprint(
    function: Callable[..., object],
    *,
    user_packages: UserPackages,
    version: str | None = None,
    types: Iterable[type] = (),
) -> Fingerprint:
    """The fingerprint of an asset's function, or of the asset itself.

    `user_packages` says which modules are the user's own: names of packages, or a predicate on a module's name. A module that is in no
    installed distribution is the user's too. `version` replaces the definition: then only another version is another function.
    `types` are the classes of the arguments, whose methods the function can call.

    Raises DeclarationError for a source, which has no function.
    """
    if version is not None:
        part = Part(ROOT, digest("version", version), f"version = {version!r}", "version")
        return Fingerprint(_combine([(ROOT, part.digest)]), (part,), (), ())
    origins = Origins(user_packages)
    types = tuple(types)
    keep, found = Keep(), None
    while found != keep:  # twice, if the code turns out to read docstrings or annotations
        keep = found or keep
        closure = Closure(origins, keep)
        closure.walk(function, types)
        found = Keep(
            keep.docstrings or closure.found.docstrings,
            keep.annotations or closure.found.annotations,
            keep.exposed | closure.found.exposed,
        )
    drafts = sorted(closure.drafts.values(), key=lambda draft: draft.name)
    shared = Counter(draft.short for draft in drafts)
    parts = tuple(Part(d.name, _local_digest(d, shared), _source(d), d.note) for d in drafts)
    combined = _combine((_label(d.name, d.short, shared), part.digest) for d, part in zip(drafts, parts, strict=True))
    return Fingerprint(combined, parts, tuple(sorted(closure.environment.items())), tuple(sorted(closure.notes.values())))


def _combine(parts: Iterable[tuple[str, bytes]]) -> bytes:
    return digest("fingerprint", encoding.VERSION, *sorted(parts))


def _local_digest(draft: Draft, shared: Counter[str]) -> bytes:
    sections = [
        (tag, data, [[_reference(reference, shared) for reference in group] for group in groups])
        for tag, data, groups in sorted(draft.sections, key=lambda section: section[0])
    ]
    return digest("part", encoding.VERSION, sections)


def _reference(reference: Reference, shared: Counter[str]) -> tuple[str, str, str]:
    name = _label(reference.name, reference.short, shared) if reference.kind == "part" else reference.name
    return ("external", ".".join((name, *reference.rest)), "") if reference.kind == "external" else (
        reference.kind, name, ".".join(reference.rest)
    )  # fmt: skip


def _label(name: str, short: str, shared: Counter[str]) -> str:
    """A part's name without its module, unless two share it: moving a definition to another module changes nothing."""
    return short if shared[short] == 1 else name


def _source(draft: Draft) -> str:
    written = draft.definition.source(draft.variant) if draft.definition is not None else ""
    return "\n".join(line for line in (written, draft.remark) if line)
