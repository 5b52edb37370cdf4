"""Fingerprint: when are two functions the same?

When nothing that can change a result differs: their code without comments, docstrings, annotations and formatting, and that
of everything they refer to in the user's own packages (functions, classes, constants, defaults, decorators). The same on
every machine and on every version of Python.

    found = fingerprint(chunks, user_packages={"projects"})
    found.digest        the identity: over the sorted list of parts, each by its name and its own digest
    found.parts         that list; the difference of two lists says why two fingerprints differ
    found.environment   third-party distributions that the code touches, with their versions; not part of the digest
    found.notes         what could not be followed, and what settles it

A part goes by its name without its module, unless two share it: moving a definition to another module changes nothing.

The rooms: `encoding` (bytes of a tree), `normal` (what of a definition counts), `quotes` (types in quotes), `definitions` (its free
names), `files` (where things are defined), `names` (what a name stands for), `objects`, `values` and `classes` (what an object is),
`elsewhere` (what other modules do to it), `orders` (whether it has the order of a set), `origins` (whose code it is), `given` (what of
its arguments it reaches), `hazards` (what is not in the code), `drafts` (what was found), `closure` (the walk).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from assetcore.digest import digest
from assetcore.fingerprint import encoding
from assetcore.fingerprint.closure import Closure
from assetcore.fingerprint.drafts import ROOT, Findings, Keep
from assetcore.fingerprint.files import Importer
from assetcore.fingerprint.given import with_code
from assetcore.fingerprint.hazards import HAZARDS, Note
from assetcore.fingerprint.origins import Origins, UserPackages

__all__ = ["HAZARDS", "Fingerprint", "Importer", "Note", "Part", "fingerprint"]


@dataclass(frozen=True, slots=True)
class Part:
    """One definition of the closure."""

    name: str
    """`module.qualname`; the asset's own function is `<asset>`, so that renaming it changes nothing."""
    digest: bytes
    """32 bytes: the definition, and the labels of what it refers to."""
    write: Callable[[], str] = field(compare=False, repr=False)
    note: str = ""
    """How it was followed, if not by its source: "coarse" (a module as a whole), "opaque" (by the statement that makes it),
    "no source" (by its bytecode), "version"."""

    @property
    def source(self) -> str:
        """The normalised source, for diffs: written when it is asked for, for a plan asks for none."""
        return self.write()


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

    `user_packages` says which modules are the user's own: names of packages, or a predicate on a module's name. A module of
    no installed distribution is the user's too. `version` replaces the definition: then only another version is another
    function. `types` are the classes of the arguments, whose methods and class variables the function can reach.

    Raises DeclarationError for a source, which has no function.
    """
    if version is not None:
        part = Part(ROOT, digest("version", version), lambda: f"version = {version!r}", "version")
        return Fingerprint(_combine([(ROOT, part.digest)]), (part,), (), ())
    origins = Origins(user_packages)
    reached = with_code(types, origins)
    keep = None
    findings = Findings(origins, Keep())
    while keep != findings.keep | findings.found:  # twice, if the code turns out to read docstrings or annotations
        keep = findings.keep | findings.found
        findings = Closure(origins, keep).walk(function, reached)
    drafts = sorted(findings.drafts.values(), key=lambda draft: draft.name)
    shared = Counter(draft.short for draft in drafts)
    parts = tuple(Part(draft.name, draft.digest(shared), draft.writer(), draft.note) for draft in drafts)
    combined = _combine((draft.label(shared), part.digest) for draft, part in zip(drafts, parts, strict=True))
    return Fingerprint(
        combined, parts, tuple(sorted(findings.environment.items())), tuple(sorted(findings.notes.values()))
    )


def _combine(parts: Iterable[tuple[str, bytes]]) -> bytes:
    return digest("fingerprint", encoding.VERSION, *sorted(parts))
