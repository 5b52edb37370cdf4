"""Staleness: every status has its cause, and the columns agree with an oracle that looks at one row at a time."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Any

import polars as pl
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from assetcore.staleness import CAUSES, COMPONENTS, JUDGED, MADE, Component, Definition, definition_causes, judge
from assetcore.units import WANTED

UNITS = [b"a", b"b", b"c", b"a\x00"]
INPUTS = [b"1", b"2", b"11"]
DEFINITIONS = {
    1: (), 2: ("code-changed",), 3: ("inputs-changed", "config-changed"), 4: ("version-changed",),
    5: ("schema-changed", "model-changed"),
}  # fmt: skip
"""What differs between each stored definition and the current one."""

Causes = tuple[str, ...]


@dataclass(frozen=True)
class Row:
    """One unit: what it should be given now, what it is, and what failed last."""

    unit: bytes
    wanted: tuple[bytes, bool] | None  # inputs, pending
    made: tuple[int, bytes] | None  # definition, inputs
    failed: tuple[int, bytes] | None  # definition, inputs

    @property
    def known(self) -> bool:
        return self.made is not None or self.failed is not None


def expected(
    row: Row, current: int | None, *, force: bool, gone: bool, may_return: bool = False
) -> tuple[str, Causes, bool] | None:
    """Status, causes and whether it is blocked; None where there is nothing to say of a unit. DESIGN section 4, a row at a time."""
    if row.wanted is None:
        return ("pending" if may_return else "removed", (), may_return) if row.made is not None else None
    inputs, blocked = row.wanted
    causes = {"forced"} if force else set()
    same_recipe = not blocked and row.made == (current, inputs)
    if not blocked and not same_recipe and row.failed == (current, inputs):
        causes.add("failed")
    elif row.made is None:
        causes.add("missing")
    if row.made is not None:
        causes |= set(DEFINITIONS[row.made[0]]) if row.made[0] != current else set()
        if not blocked and row.made[1] != inputs:
            causes.add("input-removed" if gone else "input-changed")
    ordered = tuple(cause for cause in CAUSES if cause in causes)
    return ("stale" if ordered else "pending" if blocked else "fresh", ordered, blocked)


def rows(current: int | None) -> st.SearchStrategy[list[Row]]:
    inputs, definitions = st.sampled_from(INPUTS), st.sampled_from([i for i in DEFINITIONS if i != 1 or current == 1])
    recipe = st.none() | st.tuples(definitions, inputs)
    wanted = st.none() | st.tuples(inputs, st.booleans())
    row = st.builds(Row, st.sampled_from(UNITS), wanted, recipe, recipe)
    return st.lists(row, max_size=len(UNITS), unique_by=lambda r: r.unit)


def asked(given_rows: list[Row], current: int | None, **options: Any) -> pl.DataFrame:
    """The rows as the frames that `judge` takes, judged."""
    wanted = [(r.unit, f"label {r.unit!r}", "now", *r.wanted) for r in given_rows if r.wanted is not None]
    made = [
        (r.unit, f"label {r.unit!r}", "then", *(r.made or (None, None)), i if r.made else None, *(r.failed or (None, None)))
        for i, r in enumerate(given_rows) if r.known
    ]  # fmt: skip
    definitions = {i: causes for i, causes in DEFINITIONS.items() if i != current}
    return judge(
        pl.DataFrame(wanted, schema=WANTED, orient="row"), pl.DataFrame(made, schema=MADE, orient="row"),
        definition=current, definitions=definitions, **options,
    )  # fmt: skip


@given(st.data(), st.sampled_from([1, None]), st.booleans(), st.booleans(), st.sets(st.sampled_from(UNITS)))
def test_every_unit_has_the_status_and_causes_that_the_truth_table_gives_it(
    data: st.DataObject, current: int | None, force: bool, may_return: bool, gone: set[bytes]
) -> None:
    """Judging columns gives, for every unit, what looking at that unit alone gives."""
    given_rows = data.draw(rows(current))
    options = {"force": force, "may_return": may_return}
    judged = asked(given_rows, current, removed_inputs=pl.Series("unit", sorted(gone), pl.Binary), **options)
    found = {u: (s, tuple(c), b) for u, s, c, b in judged.select("unit", "status", "causes", "blocked").iter_rows()}
    oracle = {r.unit: expected(r, current, gone=r.unit in gone, **options) for r in given_rows}
    assert found == {unit: answer for unit, answer in oracle.items() if answer is not None}


@given(st.data(), st.sampled_from([1, None]))
def test_a_unit_is_fresh_exactly_when_its_recipe_is_the_one_it_was_made_with(
    data: st.DataObject, current: int | None
) -> None:
    """Fresh means: wanted, nothing above it open, and definition and inputs are those that it was made with."""
    given_rows = data.draw(rows(current))
    judged = asked(given_rows, current)
    fresh = {r.unit for r in given_rows if r.wanted and not r.wanted[1] and r.made == (current, r.wanted[0])}
    assert set(judged.filter(pl.col("status") == "fresh")["unit"]) == fresh


@given(st.data(), st.booleans(), st.booleans())
def test_an_answer_brings_its_reasons(data: st.DataObject, force: bool, gone: bool) -> None:
    """Stale units have causes out of CAUSES, in their order and each once; no other unit has any."""
    removed = pl.Series("unit", UNITS if gone else [], pl.Binary)
    judged = asked(data.draw(rows(1)), 1, force=force, removed_inputs=removed)
    for status, causes in judged.select("status", "causes").iter_rows():
        assert bool(causes) == (status == "stale")
        assert causes == [cause for cause in CAUSES if cause in causes]
    assert dict(judged.schema) == JUDGED
    keys = [(parent, label, unit) for parent, label, unit in judged.select("parent", "label", "unit").iter_rows()]
    assert keys == sorted(keys)
    assert judged["unit"].is_unique().all()


def one(**facts: Any) -> tuple[str, Causes, bool]:
    """The answer for one unit."""
    options = {name: facts.pop(name) for name in ("force", "removed_inputs", "may_return") if name in facts}
    row = Row(b"a", **{"wanted": (b"1", False), "made": None, "failed": None, **facts})
    answer = asked([row], 1, **options).row(0, named=True)
    return answer["status"], tuple(answer["causes"]), answer["blocked"]


def test_what_was_never_made_is_missing() -> None:
    """P1, P12: a unit that was never made is stale because it is missing, also when it waits for an input."""
    assert one() == ("stale", ("missing",), False)
    assert one(wanted=(b"1", True)) == ("stale", ("missing",), True)


def test_the_same_recipe_is_fresh() -> None:
    """P2: with the definition and the inputs that it was made with, a unit is fresh."""
    assert one(made=(1, b"1")) == ("fresh", (), False)


def test_pending_says_nothing_of_inputs_that_are_not_known_yet() -> None:
    """P3: a unit below one that is to be made is pending: its inputs may differ, or come out as they were."""
    assert one(made=(1, b"1"), wanted=(b"2", True)) == ("pending", (), True)
    assert one(made=(1, b"1"), wanted=(b"1", True)) == ("pending", (), True)


def test_a_changed_definition_is_certain_even_where_the_inputs_are_open() -> None:
    """P6: what was made with other code is stale, whatever its inputs turn out to be; it has to wait for them."""
    assert one(made=(2, b"1"), wanted=(b"1", True)) == ("stale", ("code-changed",), True)


def test_a_member_that_is_gone_is_told_from_one_that_changed() -> None:
    """P13: inputs differ because something was removed, or because something changed; never both at once."""
    gone = pl.Series("unit", [b"a"], pl.Binary)
    assert one(made=(1, b"2"), removed_inputs=gone) == ("stale", ("input-removed",), False)
    assert one(made=(1, b"2")) == ("stale", ("input-changed",), False)
    assert one(made=(1, b"1"), removed_inputs=gone) == ("fresh", (), False)


def test_a_failure_counts_for_the_recipe_that_failed() -> None:
    """P14: a unit failed if its present recipe did; the failure of another recipe says nothing of this one."""
    assert one(failed=(1, b"1")) == ("stale", ("failed",), False)
    assert one(failed=(1, b"2")) == ("stale", ("missing",), False)
    assert one(failed=(2, b"1")) == ("stale", ("missing",), False)
    assert one(failed=(1, b"1"), made=(2, b"1")) == ("stale", ("failed", "code-changed"), False)


def test_a_failure_does_not_take_away_what_was_made() -> None:
    """A unit that is what its recipe says is fresh, even when making it once more by force has failed."""
    assert one(failed=(1, b"1"), made=(1, b"1")) == ("fresh", (), False)


def test_what_was_never_made_cannot_be_removed() -> None:
    """A unit that only ever failed and is no longer wanted leaves nothing behind that a run would have to remove."""
    row = Row(b"a", wanted=None, made=None, failed=(1, b"1"))
    assert asked([row], 1).is_empty()


def test_a_unit_that_may_be_wanted_again_is_pending() -> None:
    """While what decides whether there is such a unit is open, it is not removed yet."""
    assert one(wanted=None, made=(1, b"1"), may_return=True) == ("pending", (), True)
    assert one(made=(1, b"1"), may_return=True) == ("fresh", (), False)


def test_force_makes_everything_wanted_stale_and_nothing_else() -> None:
    """Forced units keep their other causes behind that one; what is not wanted is removed all the same."""
    assert one(made=(1, b"1"), force=True) == ("stale", ("forced",), False)
    assert one(made=(2, b"2"), force=True) == ("stale", ("forced", "code-changed", "input-changed"), False)
    assert one(wanted=None, made=(1, b"1"), force=True) == ("removed", (), False)


def test_an_asset_without_units_is_judged_without_units() -> None:
    """No unit wanted and none made gives a frame with the right columns and no row."""
    assert dict(asked([], None).schema) == JUDGED


def test_labels_are_those_of_now() -> None:
    """A wanted unit is shown under its present label, one that is no longer wanted under its last."""
    judged = asked([Row(b"a", (b"1", False), (1, b"1"), None), Row(b"b", None, (1, b"1"), None)], 1)
    assert judged.select("parent", "label").rows() == [("now", "label b'a'"), ("then", "label b'b'")]


def definition(**components: bytes) -> Definition:
    return Definition({name: Component(components.get(name, b"same")) for name in (*COMPONENTS, *components)})


@pytest.mark.parametrize(("name", "cause"), COMPONENTS.items())
def test_each_component_has_its_cause(name: str, cause: str) -> None:
    """P6, P7, P9, P18, P19: a difference in one component gives its cause alone."""
    assert definition_causes(definition(), definition(**{name: b"other"})) == (cause,)


def test_a_new_version_stands_for_the_code() -> None:
    """P7: when the version changes, that the code behind it looks different is not told as well."""
    changed = definition(version=b"2", code=b"other", config=b"other")
    assert definition_causes(definition(), changed) == ("version-changed", "config-changed")


digests = st.sampled_from([b"", b"1", b"2"])
components = st.dictionaries(st.sampled_from([*COMPONENTS, "environment"]), st.builds(Component, digests, digests))


@given(components, components)
@example({}, {"environment": Component(b"1")})
@example({"code": Component(b"1", "a")}, {"code": Component(b"1", "b")})
def test_two_definitions_differ_exactly_when_there_is_a_cause(
    old: dict[str, Component], new: dict[str, Component]
) -> None:
    """Different definitions have a cause, equal ones none; also where an older release kept other components."""
    before, after = Definition(old), Definition(new)
    causes = definition_causes(before, after)
    assert bool(causes) == (before.digest != after.digest)
    assert list(causes) == [cause for cause in CAUSES if cause in causes]


def test_a_digest_holds_every_component_and_no_detail() -> None:
    """A definition's digest tells all its components apart, and what people read of them is no part of it."""
    texts = [definition(**dict.fromkeys(names, b"other")) for names in combinations(COMPONENTS, 2)]
    assert len({one.digest for one in texts}) == len(texts)
    assert Definition({"code": Component(b"1", "a")}).digest == Definition({"code": Component(b"1", "b")}).digest
    swapped = Definition({"code": Component(b"1"), "config": Component(b"2")})
    assert swapped.digest != Definition({"code": Component(b"2"), "config": Component(b"1")}).digest
