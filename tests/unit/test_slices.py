"""Slices: which units of an asset can have changed since all of them were found fresh?"""

from __future__ import annotations

import polars as pl

from assetcore.declarations import asset, collect, each
from assetcore.graph import Graph
from assetcore.slices import Slice, Slicing, slicing
from assetcore.units import View
from tests.unit.declared import Page, Part, pages

BOOKS, NOTES = pages("books"), pages("notes")


@asset
def clean(page: Page = each(BOOKS)) -> Page:
    return page


@asset
def parts(page: Page = each(clean)) -> list[Part]:
    return [Part(word, text=word) for word in page.text.split()]


@asset
def joined(page: Page = each(BOOKS), parts: list[Part] = collect(parts, per=BOOKS)) -> Page:
    return Page(page.name, text=" ".join(part.text for part in parts))


@asset
def noted(page: Page = each(clean), notes: list[Page] = collect(NOTES)) -> Page:
    return Page(page.name, text=f"{page.text} {len(notes)}")


@asset
def pairs(page: Page = each(clean), note: Page = each(NOTES, cross=True)) -> Page:
    return Page(page.name, text=page.text + note.text)


@asset
def kinds(parts: list[Part] = collect(parts, by="kind")) -> Page:
    return Page("kind", text=str(len(parts)))


@asset
def report(joined: list[Page] = collect(joined)) -> Page:
    return Page("report", text=str(len(joined)))


@asset
def covers(report: Page = each(report), books: list[Page] = collect(BOOKS)) -> Page:
    return Page("covers", text=report.text + str(len(books)))


GRAPH = Graph("demo", [noted, pairs, kinds, covers])
ASSETS = {"clean", "parts", "joined", "noted", "pairs", "kinds", "report", "covers"}
BELOW_BOOKS = {"clean": "books", "parts": "books", "joined": "books", "noted": "books"}


def decide(*changed: str, unsettled: frozenset[str] = frozenset(), entire: frozenset[str] = frozenset()) -> Slicing:
    look = set(changed) | GRAPH.descendants(changed) | unsettled | GRAPH.descendants(unsettled)
    look -= set(GRAPH.sources)
    return slicing(GRAPH, look, ASSETS - unsettled, changed, entire)


def test_what_descends_from_the_changed_documents_of_one_source_is_read_in_slices() -> None:
    """Chains of `each`, and `collect(per=)` below the same source, have slices; groups and cross products have none."""
    found = decide("books")
    assert found.roots == {"books": "books", **BELOW_BOOKS}
    assert found.aggregates == {"report"}


def test_what_an_asset_without_a_slice_is_made_of_is_read_as_a_whole() -> None:
    """The groups of parts, the pairs of pages and the collected books need all of their documents; pages joined for a report do not."""
    found = decide("books")
    assert {n for n in found.roots if found.partial(n)} == {"joined", "noted"}
    assert {"parts", "clean", "books", "report"} <= found.whole


def test_a_second_changed_source_that_every_unit_is_given_leaves_no_slice() -> None:
    """What collects all notes is looked at as a whole when a note changed, and what does not keeps its slice."""
    found = decide("books", "notes")
    assert "noted" not in found.roots
    assert found.roots["joined"] == "books"
    assert decide("notes").roots == {"notes": "notes"}


def test_an_unsettled_asset_and_all_below_it_are_looked_at_as_a_whole() -> None:
    """With a new definition of the parts nothing is known of what was made of them; what is beside them keeps its slice."""
    found = decide("books", unsettled=frozenset({"parts"}))
    assert set(found.roots) == {"books", "clean", "noted"}
    assert "clean" in found.whole


def test_what_is_to_be_looked_at_as_a_whole_is() -> None:
    """An asset that is forced, or of which single units were selected, has no slice, nor has anything below it."""
    assert set(decide("books", entire=frozenset({"clean"})).roots) == {"books"}
    assert decide("books", entire=frozenset({"books"})).roots == {}


def test_a_slice_picks_its_rows_and_counts_the_units_beside_it() -> None:
    """Rows of other units are left out of frames and views; units that were made inside do not count as beside."""
    part = Slice(pl.Series("unit", [b"1", b"2"], pl.Binary), 10)
    rows = pl.DataFrame({"unit": [b"1", b"2", b"3"], "materialization": [7, None, 8]})
    assert part.of(rows)["unit"].to_list() == [b"1", b"2"]
    assert part.of_view(View(rows, open=True)).documents.height == 2
    assert part.of_view(View(rows, open=True)).open
    assert part.beside(part.of(rows)) == 9
    assert sorted(part.widened(pl.Series("unit", [b"2", b"3"], pl.Binary)).units) == [b"1", b"2", b"3"]
