"""Units: which calls an asset consists of, and what each is given."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.strategies import DataObject

from assetcore.assets import Asset
from assetcore.declarations import asset, collect, each
from assetcore.digest import sequence_digest
from assetcore.documents import Document
from assetcore.units import GIVEN, WANTED, View, document_address, sort_documents, whole_unit
from tests.unit.declared import PAGES, Page, Part, Shelf, pages

NAMES = ["a", "b", "a/b", "b/a", "/", "a ", "A", "a/b/a", "é"]
names = st.sampled_from(NAMES)
VALUES: list[Any] = [
    0, 1, True, False, "1", "True", None, "None", "", 0.0, -0.0, 1.0, math.nan, math.inf, b"1", [], [1], ["1"], [[1], 1], {}, {"a": 1},
    {"a": "1"}, {"1": "a"},
]  # fmt: skip
"""Values of a field that nearly collide."""


def text(name: str, content: str = "text") -> Page:
    return Page(name, text=content)


def part(name: str, **fields: Any) -> Part:
    return Part(name, text="text", **fields)


# -- once, and once for each ---------------------------------------------------------------------------------------------------


def test_an_asset_without_each_is_one_unit() -> None:
    """What collects everything, or nothing, is made once; its unit is labelled by the asset and stays where it is."""

    @asset
    async def report(pages: list[Page] = collect(PAGES)) -> Part: ...

    @asset
    async def constant() -> Part: ...

    shelf = Shelf.of(report, constant)
    shelf.observe("pages", [])
    empty = shelf.wanted("report").units
    shelf.observe("pages", [text("b"), text("a")])
    for units, label in (
        (empty, "report"),
        (shelf.wanted("report").units, "report"),
        (shelf.wanted("constant").units, "constant"),
    ):
        assert units.select("unit", "label", "parent").rows() == [(whole_unit(), label, None)]
        assert dict(units.schema) == WANTED
    assert shelf.wanted("report").given.is_empty()
    assert dict(shelf.wanted("constant").given.schema) == GIVEN
    assert shelf.units("constant")["constant"]["pending"] is False


@given(st.lists(names, unique=True))
def test_each_is_a_unit_for_every_document(found: list[str]) -> None:
    """Every document of the driver is one unit at the document's address, labelled by its name, given that document alone."""

    @asset
    async def clean(page: Page = each(PAGES)) -> Page: ...

    shelf = Shelf.of(clean)
    shelf.observe("pages", [text(name) for name in found])
    documents = {row["name"]: row for row in shelf.views["pages"].documents.iter_rows(named=True)}
    units = shelf.units("clean")
    assert set(units) == set(found)
    assert shelf.given("clean") == {name: [name] for name in found}
    for name, unit in units.items():
        assert unit["unit"] == documents[name]["address"]
        assert unit["inputs"] == documents[name]["identity"]
        assert unit["parent"] is None


def test_no_document_is_no_unit() -> None:
    """What is made for each of nothing has no units, and the columns that frames of units have."""

    @asset
    async def clean(page: Page = each(PAGES)) -> Page: ...

    @asset
    async def joined(page: Page = each(clean), parts: list[Page] = collect(clean, per=clean.upstreams[0])) -> Page: ...

    shelf = Shelf.of(clean)
    shelf.observe("pages", [])
    wanted = shelf.wanted("clean")
    assert (wanted.units.height, dict(wanted.units.schema)) == (0, WANTED)
    assert (wanted.given.height, dict(wanted.given.schema)) == (0, GIVEN)


def shelf_of_parts(**parts: list[str]) -> Shelf:
    """pages -> cut (one to many) -> marked (each part)."""
    found = pages()

    @asset
    async def cut(page: Page = each(found)) -> list[Part]: ...

    @asset
    async def marked(part: Part = each(cut)) -> Page: ...

    @asset
    async def joined(page: Page = each(found), marked: list[Page] = collect(marked, per=found)) -> Page: ...

    @asset
    async def beside(part: Part = each(cut), page: Page = each(found)) -> Page: ...

    shelf = Shelf.of(cut, marked, joined, beside)
    shelf.observe("pages", [text(name) for name in parts])
    shelf.make("cut", {page: [part(name) for name in found] for page, found in parts.items()})
    shelf.make("marked", {f"{page}|{name}": [text(name)] for page, found in parts.items() for name in found})
    return shelf


def test_a_unit_below_a_made_asset_knows_its_parent() -> None:
    """Where names repeat, units are told apart by the unit that made their document."""
    shelf = shelf_of_parts(x=["1", "2"], y=["1"])
    assert set(shelf.units("marked")) == {"x|1", "x|2", "y|1"}
    assert len({unit["unit"] for unit in shelf.units("marked").values()}) == 3


@given(st.lists(st.lists(names, min_size=1, max_size=4), unique_by=tuple, min_size=2))
def test_different_places_never_share_an_address(paths: list[list[str]]) -> None:
    """An address stands for one path of names: `a/b` in unit `a`, `b` in unit `a/a` and `a/b/a` are three places."""
    addresses = []
    for path in paths:
        address = b""
        for name in path:
            address = document_address(address, name)
        addresses.append(address)
    assert len(set(addresses)) == len(paths)
    assert {len(address) for address in addresses} == {16}


@given(st.dictionaries(names, st.lists(names, unique=True, max_size=3), max_size=4))
def test_units_of_near_names_stay_apart(parts: dict[str, list[str]]) -> None:
    """However names are nested and repeated, every document of every unit is a unit of its own, given just that document."""
    shelf = shelf_of_parts(**parts)
    wanted = shelf.wanted("marked")
    assert wanted.units.height == sum(map(len, parts.values()))
    assert wanted.units["unit"].n_unique() == wanted.units.height
    assert wanted.given["document"].n_unique() == wanted.given.height == wanted.units.height


# -- fields --------------------------------------------------------------------------------------------------------------------


def one_unit(declared: Asset[..., Any], document: Document) -> dict[str, Any]:
    shelf = Shelf.of(declared)
    shelf.observe("parts", [document])
    (unit,) = shelf.units(declared.name).values()
    return unit


@given(
    st.sets(st.sampled_from(["name", "text", "media_type", "kind", "weight"])),
    st.fixed_dictionaries({
        "name": st.sampled_from(["a", "b"]), "text": st.sampled_from(["", "a"]), "media_type": st.sampled_from(["text/plain", "text/a"]),
        "kind": st.sampled_from(["a", None]), "weight": st.sampled_from([0, 1]),
    }),
    st.fixed_dictionaries({
        "name": st.sampled_from(["a", "b"]), "text": st.sampled_from(["", "a"]), "media_type": st.sampled_from(["text/plain", "text/a"]),
        "kind": st.sampled_from(["a", None]), "weight": st.sampled_from([0, 1]),
    }),
)  # fmt: skip
def test_fields_are_all_that_counts(chosen: set[str], one: dict[str, Any], other: dict[str, Any]) -> None:
    """P23: with `fields=`, the inputs of two versions differ exactly when a chosen part does."""
    parts, fields = pages("parts", Part), sorted(chosen)

    @asset
    async def seen(part: Part = each(parts, fields=fields)) -> Page: ...

    inputs = [one_unit(seen, Part(**version))["inputs"] for version in (one, other)]
    assert (inputs[0] == inputs[1]) == all(one[name] == other[name] for name in chosen)


# -- everything ----------------------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(names, st.sampled_from(["", "1", "2"])), unique_by=lambda x: x[0]), st.data())
def test_what_collects_everything_sees_every_change(found: list[tuple[str, str]], data: DataObject) -> None:
    """P24: the inputs of an aggregate differ exactly when a document does, whatever the order in which they were found."""

    @asset
    async def report(pages: list[Page] = collect(PAGES)) -> Part: ...

    shelf = Shelf.of(report)

    def inputs(documents: list[tuple[str, str]]) -> bytes:
        shelf.observe("pages", [text(*one) for one in documents])
        return shelf.units("report")["report"]["inputs"]

    other = data.draw(
        st.lists(st.sampled_from(found) | st.tuples(names, st.just("1")), unique_by=lambda x: x[0])
        if found
        else st.just([])
    )
    assert (inputs(found) == inputs(other)) == (sorted(found) == sorted(other))


def test_two_collected_assets_are_told_apart() -> None:
    """Documents that move from one collected asset to the other change the inputs."""
    one, two = pages("one"), pages("two")

    @asset
    async def report(one: list[Page] = collect(one), two: list[Page] = collect(two)) -> Part: ...

    shelf = Shelf.of(report)
    inputs = set()
    for first, second in (("ab", ""), ("a", "b"), ("b", "a"), ("", "ab"), ("", "")):
        shelf.observe("one", [text(name) for name in first])
        shelf.observe("two", [text(name) for name in second])
        inputs.add(shelf.units("report")["report"]["inputs"])
    assert len(inputs) == 5


# -- groups --------------------------------------------------------------------------------------------------------------------


def canonical(value: object) -> str:
    """Tells values apart as Python's own notation does."""
    return repr(value)


@given(st.lists(st.tuples(st.sampled_from(VALUES), st.integers(0, 1))))
def test_every_document_is_in_the_group_of_its_value(found: list[tuple[Any, int]]) -> None:
    """`by=`: a unit for each value, told apart by type too; every document is given to exactly one, whatever else there is."""
    parts = pages("parts", Part)

    @asset
    async def ranks(parts: list[Part] = collect(parts, by="kind")) -> Page: ...

    shelf = Shelf.of(ranks)
    documents = [part(f"{place}", kind=value, weight=weight) for place, (value, weight) in enumerate(found)]
    shelf.observe("parts", documents)
    groups: dict[str, set[str]] = {}
    for one in documents:
        groups.setdefault(canonical(one.kind), set()).add(one.name)
    wanted = shelf.wanted("ranks")
    named = dict(shelf.views["parts"].documents.select("document", "name").iter_rows())
    made: dict[bytes, set[str]] = {}
    for unit, document in wanted.given.select("unit", "document").iter_rows():
        made.setdefault(unit, set()).add(named[document])
    assert sorted(map(sorted, made.values())) == sorted(map(sorted, groups.values()))
    assert set(wanted.units["unit"]) == set(made)


def test_a_group_stays_where_it_is_when_others_come_and_go() -> None:
    """The address of a group follows from its value alone, so that a document of another type of value moves no group."""
    parts = pages("parts", Part)

    @asset
    async def ranks(parts: list[Part] = collect(parts, by="kind")) -> Page: ...

    shelf = Shelf.of(ranks)
    shelf.observe("parts", [part("a", kind=1), part("b", kind=2)])
    before = shelf.units("ranks")
    shelf.observe("parts", [part("a", kind=1), part("c", kind="1.5"), part("d", kind=0.5), part("e", kind="1")])
    after = shelf.wanted("ranks").units
    assert after.height == 4
    kept = after.filter(pl.col("unit") == before["1"]["unit"])
    assert (kept["label"].item(), kept["inputs"].item()) == ("1", before["1"]["inputs"])
    assert before["2"]["unit"] not in set(after["unit"])


def test_a_group_whose_value_is_not_read_yet_is_shown_by_its_digest() -> None:
    """Of a document that was only observed, the value is known by its digest: enough to group by, and shown as such."""
    parts = pages("parts", Part)

    @asset
    async def ranks(parts: list[Part] = collect(parts, by="kind")) -> Page: ...

    shelf = Shelf.of(ranks)
    shelf.observe("parts", [part("a", kind="x"), part("b", kind="y")])
    known = shelf.views["parts"].documents
    unread = pl.when(pl.col("name") == "a").then(pl.lit(None, pl.String)).otherwise("value:kind")
    units = shelf.units("ranks")
    shelf.views["parts"] = View(known.with_columns(unread.alias("value:kind")))
    labels = {row["unit"]: label for label, row in shelf.units("ranks").items()}
    assert labels == {units["y"]["unit"]: "y", units["x"]["unit"]: "#" + units["x"]["unit"][:4].hex()}


# -- members, aligned documents, pairs -----------------------------------------------------------------------------------------


def test_per_gives_the_descendants_of_one_document() -> None:
    """`per=` goes through as many steps as lie between: pages, their parts, what was made of those; none is an empty list."""
    shelf = shelf_of_parts(x=["2", "1"], y=["1"], z=[])
    assert shelf.given("joined", 0) == {name: [name] for name in "xyz"}
    assert shelf.given("joined", 1) == {"x": ["1", "2"], "y": ["1"]}
    empty = shelf.units("joined")["z"]["inputs"]
    page = shelf.units("cut")["z"]["inputs"]
    assert empty == sequence_digest("inputs", [page, sequence_digest("inputs", [])])


@given(st.dictionaries(names, st.lists(names, unique=True, max_size=3), max_size=4))
def test_per_gives_every_document_to_its_own_ancestor(parts: dict[str, list[str]]) -> None:
    """However names repeat, each document is given to the page it was cut from and to no other."""
    shelf = shelf_of_parts(**parts)
    in_order = {
        page: sorted(found, key=lambda name: name.replace("/", "\x01")) for page, found in parts.items() if found
    }
    assert shelf.given("joined", 1) == in_order


def test_aligned_documents_belong_together() -> None:
    """Two `each` on one line: the finer one makes the units, and each is given the document that it descends from."""
    shelf = shelf_of_parts(x=["1", "2"], y=["1"])
    assert shelf.given("beside", 0) == {"x|1": ["1"], "x|2": ["2"], "y|1": ["1"]}
    assert shelf.given("beside", 1) == {"x|1": ["x"], "x|2": ["x"], "y|1": ["y"]}


def shelf_of_pairs(ones: str, twos: str) -> Shelf:
    one, two = pages("one"), pages("two")

    @asset
    async def pairs(first: Page = each(one), second: Page = each(two, cross=True)) -> Page: ...

    shelf = Shelf.of(pairs)
    shelf.observe("one", [text(name) for name in ones])
    shelf.observe("two", [text(name, "other") for name in twos])
    return shelf


def test_cross_is_every_pair() -> None:
    """`cross=True`: a unit for each pair, labelled by both names, at an address of its own, given one document of each."""
    shelf = shelf_of_pairs("ab", "ab")
    units = shelf.units("pairs")
    assert set(units) == {"a × a", "a × b", "b × a", "b × b"}
    assert len({unit["unit"] for unit in units.values()}) == len({unit["inputs"] for unit in units.values()}) == 4
    assert shelf.given("pairs", 0)["a × b"] == ["a"]
    assert shelf.given("pairs", 1)["a × b"] == ["b"]
    assert shelf_of_pairs("ab", "").units("pairs") == {}


def test_a_pair_stays_where_it_is_when_others_come_and_go() -> None:
    """The address of a pair follows from its two documents alone."""
    few, many = shelf_of_pairs("b", "b").units("pairs"), shelf_of_pairs("abc", "abc").units("pairs")
    assert few["b × b"] == many["b × b"]


# -- what is open --------------------------------------------------------------------------------------------------------------


def pending(shelf: Shelf, name: str) -> set[str]:
    return {label for label, unit in shelf.units(name).items() if unit["pending"]}


def test_only_units_given_an_open_document_wait_for_it() -> None:
    """A pending document opens the unit that is given it, also beside another `each`, and what collects the whole asset."""
    shelf = shelf_of_parts(x=["1", "2"], y=["1"])
    shelf.open("pages", "x")
    assert pending(shelf, "cut") == {"x"}
    assert pending(shelf, "beside") == {"x|1", "x|2"}
    shelf.open("cut", "2")
    assert pending(shelf, "marked") == {"x|2"}


def test_what_gathers_all_documents_waits_while_any_may_appear() -> None:
    """While an asset is open, all that collects the whole of it waits. What takes its documents singly does not."""

    @asset
    async def whole(pages: list[Page] = collect(PAGES)) -> Page: ...

    @asset
    async def beside(page: Page = each(PAGES), all_pages: list[Page] = collect(PAGES)) -> Page: ...

    @asset
    async def alone(page: Page = each(PAGES)) -> Page: ...

    shelf = Shelf.of(whole, beside, alone)
    shelf.observe("pages", [text("a"), text("b")])
    assert (pending(shelf, "whole"), pending(shelf, "beside")) == (set(), set())
    shelf.open("pages")
    assert (pending(shelf, "whole"), pending(shelf, "beside"), pending(shelf, "alone")) == (
        {"whole"},
        {"a", "b"},
        set(),
    )


@pytest.mark.parametrize(("open_asset", "unit"), [("marked", "x|2"), ("cut", "x")])
def test_what_gathers_descendants_waits_while_any_may_appear_below_its_own_document(open_asset: str, unit: str) -> None:
    """`per=`: a unit on the way from a page to what is gathered is open, so documents may yet appear below that page, and no other."""
    shelf = shelf_of_parts(x=["1", "2"], y=["1"], z=[])
    assert pending(shelf, "joined") == set()
    shelf.open(open_asset, units=[unit])
    assert pending(shelf, "joined") == {"x"}


def test_what_gathers_documents_waits_for_those_that_are_open() -> None:
    """One open document among many keeps waiting what is given it with others, and nothing else."""
    shelf = shelf_of_parts(x=["1", "2"], y=["1"])
    shelf.open("marked", "2", more=False)
    assert pending(shelf, "joined") == {"x"}

    @asset
    async def whole(pages: list[Page] = collect(PAGES)) -> Page: ...

    other = Shelf.of(whole)
    other.observe("pages", [text("a"), text("b")])
    other.open("pages", "b", more=False)
    assert pending(other, "whole") == {"whole"}


def test_groups_wait_while_any_document_may_appear() -> None:
    """While an asset is open, every group of its documents waits."""
    parts = pages("parts", Part)

    @asset
    async def ranks(parts: list[Part] = collect(parts, by="kind")) -> Page: ...

    shelf = Shelf.of(ranks)
    shelf.observe("parts", [part("a", kind=1), part("b", kind=2)])
    assert pending(shelf, "ranks") == set()
    shelf.open("parts")
    assert pending(shelf, "ranks") == {"1", "2"}


# -- order ---------------------------------------------------------------------------------------------------------------------


def test_documents_are_handed_over_as_a_reader_meets_them() -> None:
    """All of one page come before all of the next, and within a page part by part; a name is before those that it begins."""
    shelf = shelf_of_parts(**{"b": ["1", "2"], "a": ["2", "1"], "a b": ["1"]})
    assert shelf.views["marked"].documents["path"].to_list() == ["a/1", "a/2", "a b/1", "b/1", "b/2"]
    assert [row["parent"] for row in shelf.units("marked").values()] == ["a", "a", "a b", "b", "b"]


@given(st.dictionaries(names, st.lists(names, unique=True, max_size=3), max_size=4), st.randoms())
@settings(max_examples=50)
def test_the_order_in_which_documents_are_found_says_nothing(parts: dict[str, list[str]], chance: Any) -> None:
    """Rows that come in another order, as they may from a database, give the same units, inputs and members."""
    shelf = shelf_of_parts(**parts)
    before = {name: (shelf.wanted(name), shelf.given(name)) for name in ("marked", "joined", "beside")}
    for name, view in shelf.views.items():
        rows = list(range(view.documents.height))
        chance.shuffle(rows)
        shelf.views[name] = View(sort_documents(view.documents[rows]))
    for name, (wanted, found) in before.items():
        assert shelf.wanted(name).units.equals(wanted.units)
        assert shelf.given(name) == found


@given(st.dictionaries(names, st.lists(names, unique=True, max_size=4), max_size=4))
def test_documents_of_a_unit_stay_together_in_the_order_in_which_it_returned_them(parts: dict[str, list[str]]) -> None:
    """Documents come unit by unit, also where several units have one label, and within a unit as the function returned them."""
    shelf = shelf_of_parts(**parts)

    shelf.make(
        "marked", {f"{page}|{name}": [text(f"{name}{i}") for i in (3, 1, 2)] for page in parts for name in parts[page]}
    )
    documents = shelf.views["marked"].documents
    units = documents["unit"].to_list()
    assert documents["path"].to_list() == sorted(documents["path"], key=lambda path: path.replace("/", "\x01"))
    assert [u for i, u in enumerate(units) if i == 0 or units[i - 1] != u] == list(dict.fromkeys(units))
    for one in documents.partition_by("unit"):
        assert [name[-1] for name in one["name"]] == ["3", "1", "2"]


@pytest.mark.parametrize("form", [list[Page], AsyncIterator[Page], pl.DataFrame])
def test_the_form_of_a_parameter_is_no_part_of_what_it_is_given(form: Any) -> None:
    """The same documents as a list, an iterator or a frame are the same inputs; the form belongs to the definition."""

    async def report(pages: Any = collect(PAGES)) -> Part: ...

    report.__annotations__["pages"] = form
    shelf = Shelf.of(asset(report))
    shelf.observe("pages", [text("a"), text("b")])
    members = shelf.views["pages"].documents["identity"]
    assert shelf.units("report")["report"]["inputs"] == sequence_digest("inputs", members)
