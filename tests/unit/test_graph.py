"""Graph: who is made out of whom, and what the units of an asset are keyed by."""

from __future__ import annotations

from typing import Any

import networkx as nx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from assetcore import folder
from assetcore.assets import Asset
from assetcore.declarations import asset, collect, each, source
from assetcore.errors import DeclarationError, SelectionError
from assetcore.graph import Graph
from tests.unit.declared import PAGES, Page, Part, pages


@asset
async def clean(page: Page = each(PAGES)) -> Page: ...


@asset
async def cut(page: Page = each(clean)) -> list[Part]: ...


@asset
async def marked(part: Part = each(cut)) -> Part: ...


@asset
async def beside(
    page: Page = each(PAGES), part: Part = each(marked), all_pages: list[Page] = collect(clean)
) -> Page: ...


@asset
async def joined(page: Page = each(clean), parts: list[Part] = collect(marked, per=clean)) -> Page: ...


@asset
async def kinds(parts: list[Part] = collect(marked, by="kind")) -> Page: ...


@asset
async def report(joined: list[Page] = collect(joined), kinds: list[Page] = collect(kinds)) -> Page: ...


OTHERS = pages("others")


@asset
async def pairs(part: Part = each(cut), other: Page = each(OTHERS, cross=True)) -> Page: ...


@asset
async def of_pairs(page: Page = each(pairs)) -> Page: ...


GRAPH = Graph("demo", [report, beside, of_pairs])


def test_declaring_what_is_wanted_brings_all_it_is_made_of() -> None:
    """Assets and sources above the declared ones belong to the graph, each after those that it is made of."""
    order = list(GRAPH.assets)
    assert set(order) == {
        "pages",
        "others",
        "clean",
        "cut",
        "marked",
        "beside",
        "joined",
        "kinds",
        "report",
        "pairs",
        "of_pairs",
    }
    for name in order:
        assert all(order.index(up) < order.index(name) for up in GRAPH.upstream(name))
    assert set(GRAPH.sources) == {"pages", "others"}
    assert (GRAPH["report"], GRAPH.project) == (report, "demo")


def test_the_order_is_that_of_the_declarations_where_it_is_free() -> None:
    """Whatever order assets are handed in, the graph's is the one in which a reader meets them."""
    first = list(Graph("demo", [report, beside, of_pairs]).assets)
    assert first == list(Graph("demo", [of_pairs, beside, report, joined, OTHERS]).assets)
    here = [name for name in first if GRAPH.assets[name].place.file == __file__]
    lines = [GRAPH.assets[name].place.line for name in here]
    assert lines == sorted(lines)


def test_ancestors_and_descendants() -> None:
    """Up and down, directly and all the way; of several assets together."""
    assert GRAPH.upstream("beside") == ("pages", "marked", "clean")
    assert GRAPH.downstream("marked") == ("beside", "joined", "kinds")
    assert GRAPH.ancestors(["joined"]) == {"pages", "clean", "cut", "marked"}
    assert GRAPH.ancestors(["clean", "pairs"]) == {"pages", "clean", "cut", "others"}
    assert GRAPH.descendants(["kinds", "of_pairs"]) == {"report"}
    assert GRAPH.ancestors([]) == GRAPH.descendants([]) == frozenset()
    assert GRAPH.ordered({"report", "pages", "cut"}) == ("pages", "cut", "report")


def test_the_driver_is_the_finest_each() -> None:
    """Units are keyed by the documents of the one `each` that descends from all the others, wherever it stands."""
    drivers = {name: GRAPH.driver(name) for name in GRAPH.assets}
    named = {name: driver.upstream.name for name, driver in drivers.items() if driver is not None}
    assert named == {
        "clean": "pages", "cut": "clean", "marked": "cut", "beside": "marked", "joined": "clean", "pairs": "cut", "of_pairs": "pairs",
    }  # fmt: skip
    assert [name for name in GRAPH.assets if GRAPH.is_whole(name) and name not in GRAPH.sources] == ["report"]


def test_a_chain_goes_up_by_drivers_until_units_are_no_longer_documents() -> None:
    """From an asset to whose documents are its units, and so on; pairs and groups end it."""
    assert GRAPH.chain("beside") == ("beside", "marked", "cut", "clean", "pages")
    assert GRAPH.chain("kinds") == ("kinds",)
    assert GRAPH.chain("of_pairs") == ("of_pairs", "pairs")
    assert GRAPH.chain("pages") == ("pages",)


def test_a_chain_may_be_as_long_as_one_likes() -> None:
    """Hundreds of assets, each made of the documents of the one before, are a graph at once: each is looked at once."""
    declared: list[Asset[..., Any]] = [PAGES]
    for number in range(300):

        @asset(name=f"step{number}")
        async def step(page: Page = each(declared[-1])) -> Page:
            return page

        declared.append(step)
    graph = Graph("demo", declared)
    assert len(graph.chain("step299")) == 301
    driver = graph.driver("step299")
    assert driver is not None
    assert driver.upstream.name == "step298"


def test_fields_that_group_are_known_above() -> None:
    """An asset knows by which of its fields it is grouped."""
    assert GRAPH.consumers_of_fields("marked") == {"kind"}
    assert GRAPH.consumers_of_fields("cut") == frozenset()


def test_an_unknown_name_is_told_what_there_is() -> None:
    """Asking for an asset that the project does not have names those that it has."""
    with pytest.raises(SelectionError, match=r"demo has no asset or source 'chunks'.\n  It has: .*clean.*report"):
        GRAPH["chunks"]


# -- what does not fit together ------------------------------------------------------------------------------------------------


def test_two_assets_of_one_name_are_told_with_both_places() -> None:
    """Names are unique in a project, over assets and sources; the error names both declarations."""

    @asset(name="clean")
    async def other() -> Page: ...

    with pytest.raises(
        DeclarationError, match=r"test_graph.py:\d+: clean is declared twice; the other is at .*test_graph.py:\d+"
    ):
        Graph("demo", [clean, other])
    with pytest.raises(DeclarationError, match="pages is declared twice"):
        Graph("demo", [clean, source("pages", Page, PAGES.where)])
    with pytest.raises(DeclarationError, match="clean is declared twice"):
        Graph("demo", [cut, asset(name="clean")(other.function)])


def test_one_asset_under_two_names_in_python_is_one_asset() -> None:
    """An asset that several modules import is the same asset."""
    assert list(Graph("demo", [clean, clean, cut]).assets) == ["pages", "clean", "cut"]


def test_documents_that_have_nothing_to_do_with_each_other_do_not_align() -> None:
    """Two `each` of which neither descends from the other need cross=True; the error says so, and names both."""

    @asset
    async def unrelated(part: Part = each(cut), other: Page = each(OTHERS)) -> Page: ...

    @asset
    async def cousins(page: Page = each(clean), tidy: Page = each(beside)) -> Page: ...

    @asset
    async def siblings(one: Part = each(marked), two: Page = each(joined)) -> Page: ...

    for mistaken, pair in (
        (unrelated, r"each\(cut\) and each\(others\)"),
        (siblings, r"each\(marked\) and each\(joined\)"),
    ):
        with pytest.raises(
            DeclarationError,
            match=rf"{mistaken.name} asks {pair}, but neither descends from the other[\s\S]*cross=True",
        ):
            Graph("demo", [mistaken])
    driver = Graph("demo", [cousins]).driver("cousins")
    assert driver is not None
    assert driver.upstream is beside


def test_members_must_descend_from_what_they_are_grouped_by() -> None:
    """`per=` goes by descent through each(): not through what collects, groups or pairs."""

    @asset
    async def wrong(page: Page = each(OTHERS), parts: list[Part] = collect(cut, per=OTHERS)) -> Page: ...

    @asset
    async def through_pairs(part: Part = each(cut), of_them: list[Page] = collect(of_pairs, per=cut)) -> Page: ...

    @asset
    async def of_itself(page: Page = each(clean), same: list[Page] = collect(clean, per=clean)) -> Page: ...

    with pytest.raises(
        DeclarationError, match=r"cut does not descend from others through each\(\)[\s\S]*descend from: clean, pages"
    ):
        Graph("demo", [wrong])
    with pytest.raises(DeclarationError, match=r"of_pairs does not descend from cut[\s\S]*descend from: pairs\."):
        Graph("demo", [through_pairs])
    with pytest.raises(DeclarationError, match=r"clean does not descend from clean through each\(\)"):
        Graph("demo", [of_itself])


# -- metadata ------------------------------------------------------------------------------------------------------------------

TICKETS = source("tickets", Page, folder("data"), owner="ann", sensitivity="confidential", kinds=["mail"])


@asset(freshness="1d")
async def summaries(ticket: Page = each(TICKETS), pages: list[Page] = collect(PAGES)) -> Page:
    """A summary of each ticket."""


@asset(sensitivity="public", anonymises=True)
async def figures(summaries: list[Page] = collect(summaries)) -> Page: ...


@asset
async def poster(figures: Page = each(figures), pages: list[Page] = collect(PAGES)) -> Page: ...


def test_an_asset_is_as_sensitive_as_the_most_sensitive_that_it_is_made_of() -> None:
    """Unless it is declared to anonymise; from there on the lower one counts. Where nobody says anything, nothing is known."""
    expected = {
        "pages": None,
        "tickets": "confidential",
        "summaries": "confidential",
        "figures": "public",
        "poster": "public",
    }
    assert Graph("demo", [poster]).sensitivity == expected


def test_what_is_less_sensitive_than_its_inputs_must_anonymise() -> None:
    """However far up the sensitive one is; more sensitive than its inputs an asset may always be."""

    @asset(sensitivity="internal")
    async def leak(summary: Page = each(summaries)) -> Page: ...

    @asset(sensitivity="restricted")
    async def joined_up(summary: Page = each(summaries)) -> Page: ...

    where = r"test_graph\.py:\d+: leak has sensitivity=\"internal\", but is made of summaries, which is confidential\."
    with pytest.raises(DeclarationError, match=where + r'[\s\S]*@asset\(sensitivity="internal", anonymises=True\)'):
        Graph("demo", [leak])
    assert Graph("demo", [joined_up]).sensitivity["joined_up"] == "restricted"


def test_who_anonymises_says_how_sensitive_the_result_is() -> None:
    """What the function takes out is its own knowledge: no default would be safe."""
    with pytest.raises(DeclarationError, match=r"figures anonymises, but does not say[\s\S]*sensitivity=\"public\""):
        asset(anonymises=True)(figures.function)


def test_what_is_required_and_not_declared_is_named_with_its_place() -> None:
    """A docstring is a description, what is inherited is declared enough, and a source needs no freshness."""
    graph = Graph("demo", [summaries])
    graph.require([])
    graph.require(["description"])
    with pytest.raises(DeclarationError) as raised:
        graph.require(["owner", "description", "sensitivity", "freshness", "kinds"])
    lines = str(raised.value).split("\n")
    assert [line.split(": ", 1)[1] for line in lines[:2]] == [
        "pages has no owner and no sensitivity and no kinds.",
        "summaries has no owner and no kinds.",
    ]
    assert [line.split(": ")[0] for line in lines[:2]] == [str(PAGES.place), str(summaries.place)]
    assert raised.value.hint is not None
    assert 'owner="ada", sensitivity="internal", kinds=["markdown"]' in raised.value.hint
    with pytest.raises(DeclarationError, match="poster has no freshness"):
        Graph("demo", [poster]).require(["freshness"])


# -- any graph -----------------------------------------------------------------------------------------------------------------


@st.composite
def graphs(draw: st.DrawFn) -> tuple[Graph, dict[str, list[str]]]:
    """A graph of up to eight assets, each collecting some before it, and its edges."""
    made: list[Asset[..., Any]] = [PAGES]
    edges: dict[str, list[str]] = {"pages": []}
    for number in range(draw(st.integers(0, 7))):
        chosen = draw(st.lists(st.sampled_from(made), unique_by=lambda one: one.name, max_size=3))
        scope: dict[str, Any] = {
            "asset": asset,
            "collect": collect,
            "Page": Page,
            **{f"_{one.name}": one for one in chosen},
        }
        parameters = ", ".join(f"{one.name}: list[Page] = collect(_{one.name})" for one in chosen)
        exec(f"@asset\nasync def a{number}({parameters}) -> Page: ...", scope)
        made.append(scope[f"a{number}"])
        edges[f"a{number}"] = [one.name for one in chosen]
    handed = draw(st.permutations(made))
    return Graph("demo", handed), edges


@given(graphs())
def test_order_and_ancestry_agree_with_the_edges(drawn: tuple[Graph, dict[str, list[str]]]) -> None:
    """For any graph: upstream is what was declared, downstream its reverse, ancestry their closure, order a topological one."""
    graph, edges = drawn
    assert set(graph.assets) == set(edges)
    above: dict[str, set[str]] = {}
    for name in edges:  # declared in an order in which each comes after those it is made of
        above[name] = set(edges[name]).union(*(above[up] for up in edges[name]))
    order = list(graph.assets)
    for name, ups in edges.items():
        assert list(graph.upstream(name)) == ups
        assert set(graph.downstream(name)) == {n for n, u in edges.items() if name in u}
        assert graph.ancestors([name]) == above[name]
        assert graph.descendants([name]) == {n for n, a in above.items() if name in a}
        assert all(order.index(up) < order.index(name) for up in ups)


@given(graphs(), st.data())
def test_the_nearest_are_the_transitive_reduction(
    drawn: tuple[Graph, dict[str, list[str]]], data: st.DataObject
) -> None:
    """For any part of any graph: who waits for whom is what networkx says, the reduction of that part of the closure."""
    graph, edges = drawn
    names = data.draw(st.sets(st.sampled_from(sorted(edges))))
    whole = nx.DiGraph((up, name) for name, above in edges.items() for up in above)
    whole.add_nodes_from(edges)
    reduced = nx.transitive_reduction(nx.transitive_closure_dag(whole).subgraph(names))
    assert graph.nearest(names) == {
        name: list(graph.ordered(reduced.predecessors(name))) for name in graph.ordered(names)
    }
