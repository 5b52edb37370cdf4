"""Which commits never came about, as the journal tells it."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest

from assetcore.lineage.promotions import never_promoted
from assetcore.lineage.replay import untold


def begun(run: str, environment: str = "dev") -> dict[str, Any]:
    return row("run", run, environment, status="begun")


def ended(run: str, environment: str = "dev") -> dict[str, Any]:
    return row("run", run, environment, status="done")


def committed(number: int, run: str) -> dict[str, Any]:
    return row("commit", run) | {"commit": number}


def row(what: str, run: str | None = None, environment: str = "dev", **facts: Any) -> dict[str, Any]:
    return {"what": what, "run": run, "environment": environment, "commit": None, "facts": facts}


CASES = {
    "it ended, and has a row of the one alone": ([begun("a"), committed(1, "a"), ended("a")], {2}),
    "another one began after it": ([begun("a"), committed(1, "a"), begun("b")], {2}),
    "both have rows": ([begun("a"), committed(1, "a"), committed(2, "a"), ended("a")], set[int]()),
    "it is at work, or was when Postgres was lost": ([begun("a"), committed(1, "a")], set[int]()),
    "one in another environment says nothing": ([begun("a"), committed(1, "a"), begun("b", "prod")], set[int]()),
    "its beginning was lost, too": ([begun("b"), ended("b")], set[int]()),
    "it began after all that the journal tells": ([begun("b"), ended("b"), begun("c")], set[int]()),
    "a rebuild took it from its manifest": ([begun("a"), ended("a"), row("rebuild", untold=[1, 2])], set[int]()),
}


@pytest.mark.parametrize(("journal", "never"), CASES.values(), ids=CASES)
def test_of_a_run_that_is_over_only_what_the_journal_tells_came_about(
    journal: list[dict[str, Any]], never: set[int]
) -> None:
    commits = pl.DataFrame({"number": [1, 2], "run": ["a", "a"]})
    assert untold(commits, {"project": journal}) == never


def test_each_project_has_a_journal_of_its_own() -> None:
    """Of projects that share a bucket."""
    commits = pl.DataFrame({"number": [1, 2], "run": ["a", "b"]})
    assert untold(commits, {"one": [begun("a"), ended("a")], "other": [begun("b")]}) == {1}


PROMOTION = {"format": 2, "number": 7, "run": "0123456789", "kind": ""}
NEVER = {
    "nothing tells of it": (PROMOTION, [], [row("env promote", "9876543210")], {7}),
    "the journal tells of it": (PROMOTION, [], [committed(7, "0123456789")], set[int]()),
    "a rebuild took it from its manifest": (PROMOTION, [], [row("rebuild", untold=[7])], set[int]()),
    "its run is done": (PROMOTION, [{"run": {"id": "0123456789", "status": "done"}}], [], set[int]()),
    "its run has failed": (PROMOTION, [{"run": {"id": "0123456789", "status": "failed"}}], [], {7}),
    "a run made something": (PROMOTION | {"kind": "asset"}, [], [], set[int]()),
    "an asset was retired": (PROMOTION | {"run": "gc"}, [], [], set[int]()),
    "the first format": (PROMOTION | {"format": 1}, [], [], set[int]()),
}


@pytest.mark.parametrize(("header", "records", "journal", "never"), NEVER.values(), ids=NEVER)
def test_a_promotion_came_about_where_something_of_its_transaction_tells(
    header: dict[str, Any], records: list[dict[str, Any]], journal: list[dict[str, Any]], never: set[int]
) -> None:
    assert never_promoted([header], records, {"project": journal}) == never
