"""A project in memory: declared assets, and the documents that they are, as the frames that the pure rooms decide over."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import polars as pl

from assetcore import folder
from assetcore.assets import Asset, Source
from assetcore.declarations import source
from assetcore.documents import Document, field_digests, identity
from assetcore.graph import Graph
from assetcore.units import DOCUMENTS, View, Wanted, document_address, sort_documents, wanted_units


class Page(Document):
    """A page."""


class Part(Document):
    """A part of a page."""

    kind: Any = None
    weight: int = 0


def pages(name: str = "pages", type_: type[Document] = Page) -> Source:
    """A source that is never observed here."""
    return source(name, type_, folder("data"))


PAGES = pages()


def frame(
    of: Asset[..., Any],
    rows: Iterable[tuple[bytes, str, Document]],
    numbers: Iterable[int] = (),
    parents: Mapping[bytes, str | None] | None = None,
) -> pl.DataFrame:
    """Documents as `units.DOCUMENTS`: unit, its label, document; numbered in turn, and shown by the fields that they have."""
    numbered = iter(numbers or count(1))
    places: dict[bytes, int] = {}
    found: list[dict[str, Any]] = []
    for unit, label, document in rows:
        places[unit] = places.get(unit, 0) + 1
        facts = field_digests(document.field_values())
        type_name = of.output.type_name
        found.append({
            "document": next(numbered), "address": document_address(unit, document.name), "unit": unit, "label": label,
            "name": document.name, "position": places[unit], "pending": False, "media_type": document.media_type,
            "sha256": document.sha256, "field_digests": facts,
            "path": "/".join(filter(None, ((parents or {}).get(unit), label))),
            "identity": identity(type_name, document.name, document.media_type, document.sha256, facts),
            **{f"value:{name}": str(value) for name, value in document.field_values().items()},
        })  # fmt: skip
    values = {f"value:{name}": pl.String for name in of.output.document_type.field_names()}
    return sort_documents(pl.DataFrame(found, schema=DOCUMENTS | values, orient="row"))


@dataclass
class Shelf:
    """A graph and what its assets are now."""

    graph: Graph
    views: dict[str, View] = field(default_factory=dict)
    numbers: Iterable[int] = field(default_factory=lambda: count(1))

    @classmethod
    def of(cls, *declared: Asset[..., Any]) -> Shelf:
        return cls(Graph("demo", declared))

    def observe(self, name: str, documents: Sequence[Document]) -> None:
        """What a source holds now."""
        rows = [(document_address(b"source", d.name), d.name, d) for d in documents]
        self.views[name] = View(frame(self.graph.assets[name], rows, self.numbers))

    def make(self, name: str, made: Mapping[str, Sequence[Document]]) -> None:
        """What an asset is now, by its units' labels (`parent|label` where labels repeat)."""
        rows, parents = [], {}
        for unit, label, parent in self.wanted(name).units.select("unit", "label", "parent").iter_rows():
            rows += [(unit, label, d) for d in made.get(f"{parent}|{label}", made.get(label, ()))]
            parents[unit] = parent
        self.views[name] = View(frame(self.graph.assets[name], rows, self.numbers, parents))

    def wanted(self, name: str) -> Wanted:
        return wanted_units(self.graph.assets[name], self.graph, self.views)

    def units(self, name: str) -> dict[str, dict[str, Any]]:
        """The wanted units by `parent|label`, or by label alone where there is no parent."""
        rows = self.wanted(name).units.iter_rows(named=True)
        return {f"{row['parent']}|{row['label']}" if row["parent"] else row["label"]: row for row in rows}

    def given(self, name: str, parameter: int = 0) -> dict[str, list[str]]:
        """The names of the documents that each unit is given one by one in a parameter."""
        wanted = self.wanted(name)
        labels = {row["unit"]: label for label, row in self.units(name).items()}
        upstream = self.graph.assets[name].dependencies[parameter].upstream.name
        names = dict(self.views[upstream].documents.select("document", "name").iter_rows())
        found: dict[str, list[str]] = {}
        for unit, document in (
            wanted.given.filter(pl.col("parameter") == parameter).select("unit", "document").iter_rows()
        ):
            found.setdefault(labels[unit], []).append(names[document])
        return found

    def open(self, name: str, *pending: str, more: bool = True, units: Sequence[str] = ()) -> None:
        """Say that these documents (by name) are to be made again, whether documents may yet appear, and in which units (by label)."""
        documents = self.views[name].documents
        marked = documents.with_columns((pl.col("pending") | pl.col("name").is_in(pending)).alias("pending"))
        addresses = [row["unit"] for label, row in self.units(name).items() if label in units] if units else []
        self.views[name] = View(marked, more, pl.Series("unit", addresses, pl.Binary))
