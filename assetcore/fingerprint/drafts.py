"""Drafts: what has a walk through the code found so far?

Parts while they are being filled, the versions of third-party packages, what cannot be followed, and what turned out to be data.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from assetcore.digest import digest
from assetcore.fingerprint.definitions import Definition
from assetcore.fingerprint.encoding import VERSION, frame, sequence, text
from assetcore.fingerprint.hazards import HAZARDS, Note, hazard_of
from assetcore.fingerprint.normal import Variant
from assetcore.fingerprint.origins import Origins, distributions
from assetcore.fingerprint.values import Reference

__all__ = ["ROOT", "Draft", "Findings", "Keep"]

ROOT = "<asset>"
"""The part of the asset's own function: renaming the function changes nothing."""

READERS = {
    "inspect.getdoc": "docstrings",
    "inspect.signature": "annotations",
    "inspect.get_annotations": "annotations",
    "inspect.getfullargspec": "annotations",
    "typing.get_type_hints": "annotations",
}
"""Functions by which code reads docstrings or annotations: then they are data, in all of the closure."""


@dataclass(frozen=True, slots=True)
class Keep:
    """What is data although it usually is not: docstrings or annotations everywhere, or those of the parts `exposed`."""

    docstrings: bool = False
    annotations: bool = False
    exposed: frozenset[str] = frozenset()
    """Parts that are handed to third-party code, which reads docstrings and annotations to make prompts and schemas."""

    def __or__(self, other: Keep) -> Keep:
        return Keep(
            self.docstrings or other.docstrings, self.annotations or other.annotations, self.exposed | other.exposed
        )


@dataclass(slots=True)
class Draft:
    """A part while it is filled: its sections are bytes with placeholders, and the references that stand in their places."""

    name: str
    short: str
    """The name without its module. It is the label of the part unless two share it: moving a definition changes nothing."""
    sections: list[tuple[str, bytes, list[tuple[Reference, ...]]]] = field(default_factory=list)
    note: str = ""
    definition: Definition | None = None
    variant: Variant = field(default_factory=Variant)
    remark: str = ""
    """For people: what the source alone does not show."""
    decorated_by: list[Reference] = field(default_factory=list)

    @property
    def references(self) -> Iterable[Reference]:
        return (reference for _, _, groups in self.sections for group in groups for reference in group)

    def add(self, tag: str, data: bytes, *references: Reference) -> None:
        self.sections.append((tag, data, [(reference,) for reference in references]))

    def writer(self) -> Callable[[], str]:
        """Gives the normalised source, and what it does not show."""
        definition, variant, remark = self.definition, self.variant, self.remark

        def write() -> str:
            written = definition.source(variant) if definition is not None else ""
            return "\n".join(line for line in (written, remark) if line)

        return write

    def label(self, shared: Counter[str]) -> str:
        return self.short if shared[self.short] == 1 else self.name

    def digest(self, shared: Counter[str]) -> bytes:
        """The local hash: the definition, with the labels of what it refers to. `shared` counts the parts of each short name."""

        def written(reference: Reference) -> bytes:
            name = reference.name
            if reference.kind == "part" and shared[reference.short] == 1:
                name = reference.short
            return text(reference.kind) + text(".".join((name, *reference.rest)))

        pieces = []
        for tag, data, groups in sorted(self.sections, key=lambda section: section[0]):
            pieces += [text(tag), frame(b"d", data), sequence([sequence([*map(written, group)]) for group in groups])]
        return digest("part", VERSION, b"".join(pieces))


class Findings:
    """What a walk collects. `keep` is what an earlier walk has found to be data; `found` what this one has."""

    def __init__(self, origins: Origins, keep: Keep) -> None:
        self.origins = origins
        self.keep = keep
        self.found = Keep()
        self.drafts: dict[str, Draft] = {}
        self.environment: dict[str, str] = {}
        self.notes: dict[tuple[str, str, str], Note] = {}

    def external(self, path: str) -> Reference:
        """A label for what is not followed; third-party packages are pinned."""
        origin = "standard" if path.startswith("module.__") else self.origins.of(path)
        if origin == "third-party":
            self.environment.update(distributions(path.partition(".")[0]))
        return Reference("external", path, origin=origin)

    def used(self, reference: Reference, part: str, line: int) -> None:
        """See what an external name is used for."""
        path = reference.path
        if path in READERS:
            self.reads(READERS[path])
        if (code := hazard_of(path)) is not None:
            self.note(code, part, line, path.removeprefix("builtins."))

    def reads(self, what: str) -> None:
        self.found |= Keep(docstrings=what == "docstrings", annotations=what == "annotations")

    def expose(self, names: Iterable[str]) -> None:
        if more := set(names) - self.found.exposed:
            self.found = replace(self.found, exposed=self.found.exposed | more)

    def expose_decorated(self) -> None:
        """Docstrings and annotations are data where a decorator of the user hands what it decorates to third-party code."""
        if not any(d.decorated_by for d in self.drafts.values()):
            return
        reaching = {d.name for d in self.drafts.values() if any(r.origin == "third-party" for r in d.references)}
        more = reaching
        while more:
            more = {d.name for d in self.drafts.values() if any(r.name in more for r in d.references)} - reaching
            reaching |= more
        self.expose(d.name for d in self.drafts.values() if any(r.name in reaching for r in d.decorated_by))

    def note(self, code: str, part: str, line: int, what: str) -> None:
        where = f"{part}, line {line}" if line else part
        self.notes.setdefault(
            (code, part, what), Note(code, where, f"{HAZARDS[code].title}: {what}", HAZARDS[code].settle)
        )
