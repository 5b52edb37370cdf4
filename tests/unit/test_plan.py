"""Plan: which units must be made, in which order, and why; decided from frames alone, without a store."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any, cast

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field, HttpUrl

from assetcore import planning
from assetcore.assets import Asset
from assetcore.declarations import asset, collect, each
from assetcore.definition import define
from assetcore.digest import digest
from assetcore.documents import Document
from assetcore.errors import StaleInputError
from assetcore.fingerprint import Fingerprint
from assetcore.grammar import parse
from assetcore.graph import Graph
from assetcore.judgement import AssetState, Choice, judge_asset, view_below
from assetcore.plan import (
    AssetPlan,
    Plan,
    Snapshot,
    SourcePlan,
    make_plan,
    source_changes,
    unsettled,
)
from assetcore.selection import catalogue, select
from assetcore.staleness import CAUSES, COMPONENTS, JUDGED, MADE, Component, Definition, definition_causes
from assetcore.units import DOCUMENTS, View
from tests.unit.declared import PAGES, Page, Part, frame

INITIAL = {"clean": "strip", "cut": "words", "joined": "+", "report": "|"}
CODE = dict(INITIAL)
"""What the functions do at the moment: an edit of their code."""


@asset
def clean(page: Page = each(PAGES)) -> Page:
    return Page(page.name, text=page.text.strip() if CODE["clean"] == "strip" else page.text.strip().upper())


@asset
def cut(page: Page = each(clean)) -> list[Part]:
    parts = page.text.split() if CODE["cut"] == "words" else list(page.text.replace(" ", ""))
    return [Part(f"{i}", text=part, kind=part[0]) for i, part in enumerate(parts)]


@asset
def kinds(parts: list[Part] = collect(cut, by="kind")) -> Page:
    return Page("kind", text=" ".join(sorted(part.text for part in parts)))


@asset
def joined(page: Page = each(PAGES), parts: list[Part] = collect(cut, per=PAGES)) -> Page:
    return Page(page.name, text=CODE["joined"].join(part.text for part in parts))


@asset
def report(joined: list[Page] = collect(joined), kinds: list[Page] = collect(kinds)) -> Page:
    return Page("report", text=CODE["report"].join(page.text for page in [*joined, *kinds]))


NAMES = ("clean", "cut", "kinds", "joined", "report")


@dataclass
class Story:
    """A project and what lineage knows of it, in memory: documents and code are edited, planned and made."""

    graph: Graph = field(default_factory=lambda: Graph("demo", [report]))
    texts: dict[str, str] = field(default_factory=lambda: {"a": "x y", "b": "y z"})
    code: dict[str, str] = field(default_factory=lambda: dict(INITIAL))
    states: dict[str, AssetState] = field(default_factory=dict)
    documents: dict[int, Document] = field(default_factory=dict)
    known: dict[str, list[Definition]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        empty = AssetState(pl.DataFrame(schema=MADE), pl.DataFrame(schema=DOCUMENTS))
        self.states = {name: replace(empty, documents=self.keep(name, [])) for name in self.graph.assets}

    @property
    def names(self) -> list[str]:
        return [name for name in self.graph.assets if name not in self.graph.sources]

    def keep(self, name: str, rows: Sequence[tuple[bytes, str, Document]]) -> pl.DataFrame:
        """These documents of an asset, each with a number under which it can be found."""
        first = len(self.documents) + 1
        self.documents |= {first + i: document for i, (_, _, document) in enumerate(rows)}
        return frame(self.graph.assets[name], rows, range(first, first + len(rows)))

    def observed(self) -> pl.DataFrame:
        pages = [Page(name, text=text) for name, text in self.texts.items()]
        return self.keep("pages", [(f"source {p.name}".encode(), p.name, p) for p in pages])

    def definition(self, name: str) -> Definition:
        components = {component: Component(b"") for component in COMPONENTS}
        return Definition(components | {"code": Component(self.code.get(name, "").encode())})

    def snapshot(self, *, settled: Collection[str] = (), former: bool = False) -> Snapshot:
        """What a plan is made from; with `former`, what units were given before is read as well."""
        states = {}
        for name, state in self.states.items():
            known = self.known.setdefault(name, [])
            if self.definition(name) not in known:
                known.append(self.definition(name))
            current = known.index(self.definition(name)) + 1
            definitions = dict(enumerate(known, 1))
            states[name] = replace(
                state, definition=current, definitions=definitions, former=state.former if former else None
            )
        definitions = {name: self.definition(name) for name in self.names}
        units = {name: states.pop(name).made.height for name in settled}
        seconds = dict.fromkeys(self.names, 2.0)
        return Snapshot(definitions, states, units, {"pages": self.observed()}, seconds)

    def plan(
        self, selection: str | None = None, *, force: bool = False, former: bool = False, settled: Collection[str] = ()
    ) -> Plan:
        choice = Choice(frozenset(self.graph.assets), force=force)
        if selection is not None:
            selected = select(parse(selection), catalogue(self.graph))
            choice = Choice(frozenset(selected.assets), dict(selected.units), force)
        return make_plan(self.graph, "prod", self.snapshot(settled=settled, former=former), choice)

    def make(self, *names: str, selection: str = "*") -> dict[str, dict[str, str]]:
        """Make these assets (all by default) as a run does, one after the other; returns what was executed, and with which result.

        Units that are not selected stay as they are.
        """
        selected = select(parse(selection), catalogue(self.graph))
        choice = Choice(frozenset(selected.assets), dict(selected.units))
        CODE.update(self.code)
        done: dict[str, dict[str, str]] = {}
        for name in names or self.graph.assets:
            if name == "pages":
                self.states[name] = replace(self.states[name], documents=self.observed())
                continue
            state = self.snapshot().states[name]
            one = self.graph.assets[name]
            views = {n: View(s.documents) for n, s in self.states.items()}
            judgement = judge_asset(one, self.graph, views, self.definition(name), state)
            chosen = set(choice.narrow(one, judgement.judged)["unit"])
            stale = set(judgement.judged.filter(pl.col("status") == "stale")["unit"]) & chosen
            rows: list[tuple[bytes, str, Document]] = []
            made: list[tuple[Any, ...]] = []
            left = [was for was in state.made.iter_rows() if was[0] not in chosen]
            for unit, label, parent, definition, inputs, *_ in left:
                made.append((unit, label, parent, definition, inputs, len(made) + 1, None, None))
                old = state.documents.filter(pl.col("unit") == unit).sort("position")
                rows += [(unit, label, self.documents[number]) for number in old["document"]]
            for unit, label, parent, inputs, _ in judgement.wanted.units.iter_rows():
                if unit not in chosen:
                    continue
                made.append((unit, label, parent, state.definition, inputs, len(made) + 1, None, None))
                if unit not in stale:
                    old = state.documents.filter(pl.col("unit") == unit).sort("position")
                    rows += [(unit, label, self.documents[number]) for number in old["document"]]
                    continue
                result: Any = one.function(**self.arguments(one, unit, judgement.wanted.given))
                found = result if isinstance(result, list) else [result]
                rows += [(unit, label, document) for document in found]
                done.setdefault(name, {})[f"{parent}/{label}" if parent and name != "cut" else label] = " ".join(
                    d.text for d in found
                )
            former = self.given(one, judgement.wanted.given, made)
            self.states[name] = AssetState(
                pl.DataFrame(made, schema=MADE, orient="row"), self.keep(name, rows), former=former
            )
        return done

    def arguments(self, one: Asset[..., Any], unit: bytes, given: pl.DataFrame) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for index, dependency in enumerate(one.dependencies):
            mine = given.filter((pl.col("unit") == unit) & (pl.col("parameter") == index))["document"]
            if dependency.kind == "collect" and dependency.per is None and dependency.by is None:
                mine = self.states[dependency.upstream.name].documents["document"]
            found = [self.documents[number] for number in mine]
            values[dependency.parameter] = found[0] if dependency.kind == "each" else found
        return values

    def given(self, one: Asset[..., Any], given: pl.DataFrame, made: Sequence[tuple[Any, ...]]) -> pl.DataFrame:
        """What the units were given, as lineage tells it later: one by one, and of whole assets what is not there any more: nothing yet."""
        numbers = pl.DataFrame({"unit": [m[0] for m in made], "materialization": [m[5] for m in made]},
                               schema={"unit": pl.Binary, "materialization": pl.Int64})  # fmt: skip
        return given.join(numbers, on="unit").select("materialization", "parameter", "address")


@pytest.fixture
def story() -> Story:
    """Everything made once."""
    story = Story()
    story.make()
    return story


def told(plan: Plan) -> dict[str, dict[str, int]]:
    """What the plan says of each asset that a run would not leave alone."""
    shown = {
        a.asset: {n: getattr(a, n) for n in ("stale", "pending", "removed") if getattr(a, n)}
        for a in plan.assets
        if not a.idle
    }
    return {
        name: counts | dict(next(a.causes for a in plan.assets if a.asset == name)) for name, counts in shown.items()
    }


# -- the truth table -----------------------------------------------------------------------------------------------------------


def test_p1_what_was_never_made_is_missing_in_the_order_in_which_it_can_be_made() -> None:
    """Before anything was made: all units that can be known are missing, sources are new, and what is below is undecided."""
    plan = Story().plan()
    assert [a.asset for a in plan.assets] == ["clean", "cut", "kinds", "joined", "report"]
    assert told(plan) == {"clean": {"stale": 2, "missing": 2}, "cut": {}, "kinds": {}, "joined": {"stale": 2, "missing": 2},
                          "report": {"stale": 1, "missing": 1}}  # fmt: skip
    assert plan.sources == (SourcePlan("pages", 2, new=2),)
    assert (plan.stale, plan.up_to_date, plan.seconds) == (5, False, 10.0)
    assert [a.undecided for a in plan.assets] == [False, True, True, True, True]


def test_p2_nothing_to_do_is_said_with_the_counts(story: Story) -> None:
    """When nothing has changed, every asset is idle, with its units, and the plan is up to date."""
    plan = story.plan()
    assert (told(plan), plan.up_to_date, plan.stale, plan.seconds) == ({}, True, 0, 0.0)
    assert {a.asset: (a.units, a.fresh) for a in plan.assets} == {
        "clean": (2, 2), "cut": (2, 2), "kinds": (3, 3), "joined": (2, 2), "report": (1, 1),
    }  # fmt: skip


def test_p3_below_a_changed_document_is_pending(story: Story) -> None:
    """The unit of a changed document is stale; units below it are pending, and so is all that gathers what may change."""
    story.texts["a"] = "x y w"
    assert told(story.plan()) == {
        "clean": {"stale": 1, "input-changed": 1}, "cut": {"pending": 1}, "kinds": {"pending": 3},
        "joined": {"pending": 1}, "report": {"pending": 1},
    }  # fmt: skip
    assert story.make()["clean"] == {"a": "x y w"}
    assert told(story.plan()) == {}


def test_p4_equal_content_stops_there(story: Story) -> None:
    """What is made again with an equal result leaves everything below as it is."""
    story.texts["a"] = " x y "
    assert set(story.make()) == {"clean", "joined"}


def test_p6_changed_code_makes_its_own_units_stale(story: Story) -> None:
    """Only the units of the asset whose code changed are stale; those above are fresh, those below pending."""
    story.code["cut"] = "letters"
    assert not story.plan().up_to_date
    assert told(story.plan()) == {
        "cut": {"stale": 2, "code-changed": 2}, "kinds": {"pending": 3}, "joined": {"pending": 2}, "report": {"pending": 1},
    }  # fmt: skip


def test_p12_a_new_document_adds_its_own_unit(story: Story) -> None:
    """A new document is the only unit that is missing; whether units below it appear is told as undecided."""
    story.texts["c"] = "y"
    plan = story.plan()
    assert told(plan)["clean"] == {"stale": 1, "missing": 1}
    cut_plan = next(a for a in plan.assets if a.asset == "cut")
    assert (cut_plan.units, cut_plan.fresh, cut_plan.stale, cut_plan.undecided, cut_plan.idle) == (2, 2, 0, True, False)


def test_p13_what_is_gone_takes_along_what_was_made_of_it(story: Story) -> None:
    """Units of a removed document are removed down the line; what gathered it is stale because something was removed."""
    del story.texts["b"]
    assert set(story.plan().changed_aggregates) == {"kinds"}
    assert told(story.plan(former=True)) == {
        "clean": {"removed": 1}, "cut": {"removed": 1}, "kinds": {"stale": 1, "removed": 1, "input-removed": 1},
        "joined": {"removed": 1}, "report": {"pending": 1},
    }  # fmt: skip
    story.make()
    assert told(story.plan()) == {}


def test_p13_what_is_gone_is_told_from_what_changed(story: Story) -> None:
    """Where a member changed and none is gone, the cause is input-changed, also beside an each of another asset."""
    story.texts["a"] = "xx y"
    story.make("pages", "clean", "cut")
    assert told(story.plan(former=True)) == {
        "kinds": {"stale": 1, "input-changed": 1}, "joined": {"stale": 1, "input-changed": 1}, "report": {"pending": 1},
    }  # fmt: skip


def test_p13_a_member_that_moved_is_gone_from_where_it_was(story: Story) -> None:
    """A document whose value changed leaves one group, which is told as a removal, and joins another."""
    story.texts["a"] = "z y"
    story.make("pages", "clean", "cut")
    assert told(story.plan(former=True))["kinds"] == {"stale": 1, "removed": 1, "input-changed": 1}
    story.texts["a"] = "y y"
    story.make("pages", "clean", "cut")
    story.make("kinds")
    story.texts["a"] = "y x"
    story.make("pages", "clean", "cut")
    assert told(story.plan(former=True))["kinds"] == {"stale": 2, "missing": 1, "input-removed": 1}


@asset
def total(before: list[Page] = collect(clean), pages: list[Page] = collect(PAGES)) -> Page:
    return Page("total", text=f"{len(before)} {len(pages)}")


def test_p13_of_whole_assets_what_is_gone_is_told_from_what_changed() -> None:
    """What collects whole assets is told of a removal when one of them lost a document, about to go or gone, in its own parameter."""
    story = Story(graph=Graph("demo", [total]))
    story.make()
    story.texts["a"] = "changed"
    assert told(story.plan(former=True))["total"] == {"pending": 1}
    story.make("pages", "clean")
    assert told(story.plan(former=True))["total"] == {"stale": 1, "input-changed": 1}
    story.make()
    del story.texts["b"]
    assert set(story.plan().changed_aggregates) == {"total"}
    assert told(story.plan(former=True)) == {"clean": {"removed": 1}, "total": {"stale": 1, "input-removed": 1}}
    given = {parameter: story.states[name].documents["address"] for parameter, name in enumerate(("clean", "pages"))}
    story.make("pages", "clean")
    assert told(story.plan(former=True))["total"] == {"stale": 1, "input-changed": 1}, (
        "nothing is known of what was given"
    )
    for parameter, addresses in given.items():
        rows = [(1, parameter, address) for address in addresses]
        former = pl.DataFrame(
            rows, schema={"materialization": pl.Int64, "parameter": pl.Int64, "address": pl.Binary}, orient="row"
        )
        story.states["total"] = replace(story.states["total"], former=former)
        assert told(story.plan(former=True))["total"] == {"stale": 1, "input-removed": 1}


def test_p13_a_group_that_may_come_back_is_not_removed_yet(story: Story) -> None:
    """While its members are yet to be made, a group without any is pending: what takes their place may belong to it."""
    story.texts["c"] = story.texts.pop("a")
    assert told(story.plan(former=True)) == {
        "clean": {"stale": 1, "removed": 1, "missing": 1}, "cut": {"removed": 1}, "kinds": {"pending": 3},
        "joined": {"stale": 1, "removed": 1, "missing": 1}, "report": {"pending": 1},
    }  # fmt: skip
    assert set(story.make()["kinds"]) <= {"x", "y", "z"}
    assert set(story.states["kinds"].made["label"]) == {"x", "y", "z"}


def test_p15_a_stale_input_that_is_not_selected_is_told(story: Story) -> None:
    """Selecting an asset below a stale one is refused, with all that is stale above it and the selector that helps."""
    story.code["clean"] = "upper"
    plan = story.plan("report")
    assert plan.stale_inputs == ("clean", "cut", "kinds", "joined")
    with pytest.raises(
        StaleInputError, match=r"clean, cut, kinds, joined are stale and not selected.*\(report\)[\s\S]*\+report"
    ):
        plan.check()
    with pytest.raises(
        StaleInputError, match=r"\(clean, kinds, joined, \.\.\.\) are made of them\.\n  Add --upstream\."
    ) as told:
        story.plan("clean[a] or kinds or joined or report").check()
    assert str(told.value).startswith("units of clean, cut are stale and not selected")
    assert story.plan("+report").stale_inputs == ()
    assert story.plan("clean").stale_inputs == ()
    story.plan("+report").check()


def test_p15_speaks_of_units_where_units_are_selected(story: Story) -> None:
    """One unit whose inputs are fresh can be made while others above it are stale."""
    story.texts["b"] = "other"
    story.make("pages")
    assert story.plan("cut").stale_inputs == ("clean",)
    assert story.plan("cut[a]").stale_inputs == ()
    assert story.plan("cut[b]").stale_inputs == ("clean",)


def test_p15_lets_one_document_through_whatever_else_is_stale(story: Story) -> None:
    """Units whose stale inputs are all selected can be made while others beside those stay stale; what is made of all of them cannot."""
    story.texts |= {"a": "x w", "b": "other"}
    one = "clean[a] or cut[a] or joined[a]"
    assert story.plan(one).stale_inputs == story.plan("unit:a").stale_inputs == ()
    assert told(story.plan("unit:a")) == {
        "clean": {"stale": 1, "input-changed": 1}, "cut": {"pending": 1}, "kinds": {}, "joined": {"pending": 1}, "report": {},
    }  # fmt: skip
    assert story.plan("cut[a] or joined[a]").stale_inputs == ("clean", "cut")
    assert story.plan("clean or joined[a]").stale_inputs == ("cut",)
    assert story.plan(f"{one} or report").stale_inputs == ("clean", "cut", "kinds", "joined")
    assert story.plan(f"{one} or kinds").stale_inputs == ("clean", "cut")
    del story.texts["b"]
    assert story.plan(one).stale_inputs == ()
    assert story.plan(f"{one} or kinds or report").stale_inputs == ("clean", "cut", "joined")
    assert story.plan("not unit:b").stale_inputs == ("clean", "cut", "joined")


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(st.sampled_from("abc"), st.sampled_from(["x", "x y", "z", "y  x z"])),
    st.sampled_from([None, "clean", "cut", "joined", "report"]),
    st.lists(st.sampled_from(["unit:a", "unit:b", "unit:c", "unit:x", "not unit:a", "clean", "cut[a]", "kinds[x]",
                              "joined", "report", "cut+1", "not cut[b]"]), min_size=1, max_size=3).map(" or ".join),
)  # fmt: skip
def test_p15_what_may_be_made_need_not_be_made_again(texts: dict[str, str], edited: str | None, selection: str) -> None:
    """A plan that is not refused makes its units of what is final: making all the rest afterwards leaves them alone."""
    story = Story()
    story.make()
    story.texts = texts
    if edited is not None:
        story.code[edited] = "other"
    if story.plan(selection).stale_inputs:
        return
    story.make("pages")
    first = story.make(*NAMES, selection=selection)
    again = story.make(*NAMES)
    assert not [(name, unit) for name, units in first.items() for unit in units if unit in again.get(name, {})]


def test_p15_holds_for_documents_that_are_yet_to_appear(story: Story) -> None:
    """An input that was never made is stale, too, although no unit below waits for it yet."""
    story.texts["c"] = "new"
    assert story.plan("cut").stale_inputs == ("clean",)
    assert Story().plan("cut").stale_inputs == ("clean",)


def test_p15_takes_as_many_steps_for_many_documents_as_for_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is left unmade is looked at together: one of thousands of new documents is planned as quickly as one of some."""
    concat, steps = pl.concat, []
    monkeypatch.setattr(pl, "concat", lambda *given, **options: (steps.append(1), concat(*given, **options))[1])
    counts = []
    for documents in (5, 50):
        steps.clear()
        assert Story(texts={f"p{i}": "x" for i in range(documents)}).plan("unit:p1").stale_inputs == ()
        counts.append(len(steps))
    assert counts[0] == counts[1]


async def test_no_database_is_asked_for_units_where_none_are_named() -> None:
    """Whether units are there that are named is looked up for them alone: every plan and every run goes through this."""
    story = Story()
    project: Any = SimpleNamespace(graph=story.graph, engine=None)
    plan = story.plan()
    await planning.check_units(project, plan, cast(Any, None))
    await planning.refuse_absent(project, plan.choice)


def test_p21_a_reverted_edit_is_planned_like_any_other(story: Story) -> None:
    """A plan says what differs from what is; that an earlier recipe will be taken back is found by the run."""
    story.code["clean"] = "upper"
    story.make()
    story.code["clean"] = "strip"
    assert told(story.plan("clean")) == {"clean": {"stale": 2, "code-changed": 2}}


def test_p24_an_aggregate_of_any_size(story: Story) -> None:
    """One of many documents changed: the aggregate over them is stale once the change is known."""
    story.texts = {f"{i:03}": f"w{i}" for i in range(300)}
    story.make()
    story.texts["007"] = "changed"
    story.make("pages", "clean", "cut", "joined", "kinds")
    assert told(story.plan()) == {"report": {"stale": 1, "input-changed": 1}}


# -- selections, force, what needs no look -------------------------------------------------------------------------------------


def test_selected_units_are_all_that_is_planned(story: Story) -> None:
    """A plan of some units counts, lists and times just these."""
    story.code["clean"] = "upper"
    plan = story.plan("clean[a]")
    assert [(a.asset, a.units, a.stale) for a in plan.assets] == [("clean", 1, 1)]
    assert [d.label for d in plan.assets[0].details] == ["a"]
    assert plan.seconds == 2.0
    assert plan.sources[0].source == "pages"


def test_force_makes_what_was_selected_and_nothing_above(story: Story) -> None:
    """Forced are the selected units; what is above them stays fresh, what is below waits."""
    plan = story.plan("cut or joined", force=True)
    assert told(plan) == {"cut": {"stale": 2, "forced": 2}, "joined": {"stale": 2, "forced": 2}}
    assert plan.stale_inputs == ()


def test_settled_assets_are_not_looked_at(story: Story) -> None:
    """Of assets that are known to be settled only the count is told; no unit of theirs is judged."""
    plan = story.plan(settled=NAMES)
    assert [(a.asset, a.units, a.fresh) for a in plan.assets] == [
        ("clean", 2, 2),
        ("cut", 2, 2),
        ("kinds", 3, 3),
        ("joined", 2, 2),
        ("report", 1, 1),
    ]
    assert (plan.up_to_date, plan.judgements) == (True, {})


def test_below_a_settled_asset_documents_stand(story: Story) -> None:
    """What is settled is read only for what is made of it, and its documents count as they are."""
    story.code["report"] = "-"
    snapshot = story.snapshot()
    given_counts = {name: snapshot.states[name].made.height for name in NAMES if name != "report"}
    plan = make_plan(
        story.graph, "prod", replace(snapshot, settled=given_counts), Choice(frozenset(story.graph.assets))
    )
    assert told(plan) == {"report": {"stale": 1, "code-changed": 1}}
    assert set(plan.judgements) == {"report"}


names = st.sampled_from(["pages", *NAMES])


@given(st.sets(names), st.sets(names), st.booleans(), st.booleans())
def test_what_needs_a_look_is_what_is_not_settled_and_what_is_below(
    chosen: set[str], settled: set[str], changed: bool, force: bool
) -> None:
    """Looked at are assets in scope that are not settled, are forced, or lie below one of these or below a changed source."""
    graph = Graph("demo", [report])
    scope = chosen | graph.ancestors(chosen)
    moving = {n for n in NAMES if n not in settled or (force and n in chosen)} | ({"pages"} if changed else set())
    expected: set[str] = set()
    for name in graph.ordered(scope):
        if name in moving or expected & set(graph.upstream(name)):
            expected.add(name)
    assert unsettled(graph, chosen, settled, {"pages"} & moving & scope, force=force) == expected


def test_assets_without_units_cost_nothing() -> None:
    """A project whose sources are empty is made once, and then nothing is left to do, plan after plan."""
    story = Story(texts={})
    assert told(story.plan()) == {"report": {"stale": 1, "missing": 1}}
    assert story.make() == {"report": {"report": ""}}
    plan = story.plan()
    assert plan.up_to_date
    assert {a.asset: a.units for a in plan.assets} == {"clean": 0, "cut": 0, "kinds": 0, "joined": 0, "report": 1}
    story.texts["a"] = ""
    story.make()
    assert story.plan().up_to_date


def test_units_are_named_so_that_they_can_be_asked_for() -> None:
    """In a plan's details a unit is named by its label, with its parent where labels repeat."""

    @asset
    def marked(part: Part = each(cut)) -> Page: ...

    story = Story(graph=Graph("demo", [marked]))
    story.make("pages", "clean", "cut")
    plan = make_plan(story.graph, "prod", story.snapshot(), Choice(frozenset(["marked"])))
    assert [d.label for d in plan.assets[0].details] == ["a/0", "a/1", "b/0", "b/1"]
    assert plan.assets[0].details[0].to_json() == {"unit": "a/0", "status": "stale", "causes": ["missing"]}


def test_a_plan_can_be_read_by_programs(story: Story) -> None:
    """The JSON of a plan has the promised keys, and each stale unit counts once, under the first of its causes."""
    story.texts["a"] = "w"
    story.code["clean"] = "upper"
    shown = story.plan().to_json(units=True)
    assert {"project", "environment", "stale", "assets", "estimate"} <= shown.keys()
    first = shown["assets"][0]
    assert {"asset", "units", "fresh", "stale", "pending", "removed", "causes"} <= first.keys()
    assert (first["stale"], first["causes"]) == (2, {"code-changed": 2})
    assert first["details"][0] == {"unit": "a", "status": "stale", "causes": ["code-changed", "input-changed"]}
    assert {"seconds", "tokens", "usd"} == shown["estimate"].keys()
    assert shown["estimate"]["seconds"] == 4.0
    assert list(first["causes"]) == [cause for cause in CAUSES if cause in first["causes"]]


def test_a_plan_is_shown_without_its_frames(story: Story) -> None:
    """What a notebook prints of one: counts and causes, as long for a thousand units as for ten."""
    lengths = []
    for count in (10, 1000):
        story.texts = {f"{number:04}": "x" for number in range(count)}
        lengths.append(len(repr(story.plan())))
    assert "shape:" not in repr(story.plan())
    assert lengths[1] - lengths[0] < 50


# -- any history ---------------------------------------------------------------------------------------------------------------


edits: Mapping[str, Callable[[Story, Any], None]] = {
    "edit": lambda story, chance: story.texts.update({chance.choice("abc"): chance.choice(["x y", " x y", "y", "", "z x"])}),
    "remove": lambda story, chance: story.texts.pop(chance.choice("abc"), None) and None,
    "rename": lambda story, chance: story.texts.update({chance.choice("de"): story.texts.pop(min(story.texts))}) if story.texts else None,
    "clean": lambda story, chance: story.code.update(clean=chance.choice(["strip", "upper"])),
    "cut": lambda story, chance: story.code.update(cut=chance.choice(["words", "letters"])),
    "report": lambda story, chance: story.code.update(report=chance.choice("|-")),
}  # fmt: skip


@given(st.lists(st.lists(st.sampled_from(sorted(edits)), max_size=3), max_size=5), st.randoms())
@settings(max_examples=25)
def test_a_plan_keeps_its_word_whatever_was_edited(history: list[list[str]], chance: Any) -> None:
    """After any edits: what the plan calls fresh is not executed, what it calls stale is, what is removed goes, and then it is idle.

    And what is made step by step is what a build from nothing makes.
    """
    story = Story()
    for step in [[], *history]:
        for edit in step:
            edits[edit](story, chance)
        plan = story.plan(former=True)
        words = {a.asset: {d.label: d.status for d in a.details} for a in plan.assets}
        before = {name: set(story.states[name].made["label"]) for name in NAMES}
        done = story.make()
        for a in plan.assets:
            executed = set(done.get(a.asset, ()))
            stale = {label for label, status in words[a.asset].items() if status == "stale"}
            assert stale <= executed, (a.asset, words, done)
            fresh = before[a.asset] - set(words[a.asset])
            assert not (executed & fresh), (a.asset, words, done)
            removed = {label for label, status in words[a.asset].items() if status == "removed"}
            assert not (removed & set(story.states[a.asset].made["label"]))
            if a.idle:
                assert not executed
        assert story.plan(former=True).up_to_date
        assert definition_causes(story.definition("clean"), story.definition("clean")) == ()
        fresh_story = Story(texts=dict(story.texts), code=dict(story.code))
        fresh_story.make()
        for name in NAMES:
            columns = ["unit", "name", "identity", "position"]
            assert (
                story.states[name].documents.select(columns).equals(fresh_story.states[name].documents.select(columns))
            ), name


# -- parts ---------------------------------------------------------------------------------------------------------------------


@given(
    st.dictionaries(st.sampled_from("abcd"), st.sampled_from(["1", "2"])),
    st.dictionaries(st.sampled_from("abcd"), st.sampled_from(["1", "2"])),
)
def test_sources_are_compared_by_name_and_identity(was: dict[str, str], now: dict[str, str]) -> None:
    """New, changed and gone documents are counted; to take in is what is new or changed, in the order of names."""

    def rows(texts: dict[str, str]) -> pl.DataFrame:
        return frame(PAGES, [(name.encode(), name, Page(name, text=text)) for name, text in texts.items()])

    plan, fresh, gone = source_changes("pages", rows(now), rows(was))
    changed = {name for name in now.keys() & was.keys() if now[name] != was[name]}
    assert plan == SourcePlan(
        "pages", len(now), len(now.keys() - was.keys()), len(changed), len(was.keys() - now.keys())
    )
    assert fresh["name"].to_list() == sorted(changed | (now.keys() - was.keys()))
    assert sorted(gone["name"]) == sorted(was.keys() - now.keys())
    assert plan.idle == (now == was)
    assert fresh.columns == rows(now).columns


def test_below_documents_of_fresh_units_stand() -> None:
    """Handed down: documents of fresh units as they are, of units to be made as pending, of removed units not at all."""
    documents = frame(
        PAGES,
        [(unit.encode(), unit, Page(unit, text="")) for unit in ("fresh", "stale", "pending", "removed", "unknown")],
    )
    units = ["fresh", "stale", "pending", "removed"]
    judged = pl.DataFrame(
        [{"unit": u.encode(), "status": u} for u in units], schema={"unit": pl.Binary, "status": pl.String}
    )
    below = view_below(judged, documents)
    assert dict(below.documents.select("name", "pending").iter_rows()) == {
        "fresh": False,
        "stale": True,
        "pending": True,
        "unknown": True,
    }
    assert below.open
    assert not view_below(judged.filter(pl.col("status").is_in(["fresh", "removed"])), documents).open


def test_idle_is_what_a_run_leaves_alone() -> None:
    """An asset is idle when none of its units is to be made or to go, and none can appear."""
    assert AssetPlan("x", 2, 2).idle
    for busy in ({"stale": 1}, {"pending": 1}, {"removed": 1}, {"undecided": True}):
        assert not AssetPlan("x", 2, 2, **busy).idle


class Limits(BaseModel):
    size: int = 1


CODE_PRINT = Fingerprint(b"1" * 32, (), (), ())


def components(
    function: Any, config: Any = None, models: Any = None, print_: Fingerprint = CODE_PRINT, **options: Any
) -> Definition:
    return define(asset(**options)(function), print_, config or {}, models or {})


def test_each_part_of_a_declaration_is_its_own_component() -> None:
    """A difference in shape, result, version, code, config or models shows in that component alone."""

    async def base(page: Page = each(PAGES)) -> Part: ...
    async def shaped(other: Page = each(PAGES)) -> Part: ...
    async def result(page: Page = each(PAGES)) -> Page: ...
    async def many(page: Page = each(PAGES)) -> list[Part]: ...

    one = components(base)
    assert (
        definition_causes(
            one, components(base, tags=["a"], owner="b", group="c", retries=3, layout="files", description="d")
        )
        == ()
    )
    assert definition_causes(one, components(shaped)) == ("inputs-changed",)
    assert definition_causes(one, components(result)) == ("schema-changed",)
    assert definition_causes(one, components(many)) == ("schema-changed",)
    assert definition_causes(one, components(base, version="1")) == ("version-changed",)
    assert definition_causes(one, components(base, print_=replace(CODE_PRINT, digest=b"2" * 32))) == ("code-changed",)
    assert definition_causes(one, components(base, config={"limits": Limits()})) == ("config-changed",)
    assert definition_causes(one, components(base, models={"tips": "small"})) == ("model-changed",)
    assert definition_causes(components(base, models={"tips": "small"}), components(base, models={"tips": None})) == (
        "model-changed",
    )


class Service(BaseModel):
    """Config with a value that only JSON can tell."""

    url: HttpUrl = HttpUrl("https://example.org")
    stop: Any = None
    within: Any = None


def test_config_is_the_same_in_every_process_whatever_it_holds() -> None:
    """P2, P8: sets have no order, beside and around a value without an encoding of its own; without a set its JSON counts."""

    async def made(page: Page = each(PAGES)) -> Part: ...

    def config(**given: Any) -> bytes:
        return components(made, config={"service": Service(**given)}).components["config"].digest

    one, other = [0, 8], [8, 0]
    assert [*set(one)] != [*set(other)]
    for shape in (
        lambda of: {"stop": set(of)},
        lambda of: {"stop": {"a": [frozenset(of)]}, "within": ({frozenset(of)},)},
        lambda of: {"stop": {re.compile(str(n)) for n in of}},
    ):
        assert config(**shape(one)) == config(**shape(other))
        assert config(**shape(one)) != config(**shape([0, 9]))
    plain = Service(stop=(1, "a"))
    assert config(stop=(1, "a")) == digest("config", {"service": plain.model_dump(mode="json")})


def test_a_schema_is_what_its_fields_are_and_not_what_is_said_of_them() -> None:
    """P19: fields count with names, types and defaults; docstrings, titles and descriptions do not, nor does their order."""

    def schema(fields: dict[str, Any], doc: str = "", name: str = "Found") -> bytes:
        annotations = {key: value[0] for key, value in fields.items()}
        cls = type(
            name, (Document,), {"__annotations__": annotations, "__doc__": doc, **{k: v[1] for k, v in fields.items()}}
        )

        async def made(page: Page = each(PAGES)) -> Any: ...

        made.__annotations__["return"] = cls
        return components(made).components["schema"].digest

    one = {"size": (int, Field(default=1)), "title": (str, Field(default=""))}
    base = schema(one)
    assert schema(one, doc="Said of it.") == base
    assert (
        schema({"size": (int, Field(default=1, description="How large.", title="Size")), "title": one["title"]}) == base
    )
    assert schema(dict(reversed(one.items()))) == base
    others = [
        schema({"size": (int, Field(default=2)), "title": one["title"]}),
        schema({"size": (float, Field(default=1)), "title": one["title"]}),
        schema({"size": one["size"]}), schema({**one, "more": (int, Field(default=1))}), schema(one, name="Other"),
        schema({"size": one["size"], "title": (str, Field())}), schema({"size": one["size"], "label": (str, Field(default=""))}),
    ]  # fmt: skip
    assert len({base, *others}) == len(others) + 1


def test_frames_of_judgements_keep_their_columns(story: Story) -> None:
    """Each judgement in a plan has the columns that the run and `why` read."""
    for judgement in story.plan(force=True).judgements.values():
        assert dict(judgement.judged.schema) == JUDGED
