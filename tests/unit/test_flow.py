"""What Prefect is told beside states: it may be slow, and it may be gone."""

from __future__ import annotations

import asyncio

import pytest

from assetcore import flow
from assetcore.flow import LOST, _Display, _event, _said
from assetcore.results import AssetResult, Event


async def answers() -> str:
    return "shown"


async def fails() -> str:
    raise OSError("busy")


def test_an_answer_that_does_not_come_does_not_end_the_display(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only an API that is silent for longer than its patience is given up, which is said once; after that it is not asked."""
    said: list[Event] = []
    now = 0.0
    monkeypatch.setattr(flow, "monotonic", lambda: now)

    async def tell() -> list[str | None]:
        nonlocal now
        display = _Display(said.append, patience=5)
        told = [await display.show(call) for call in (fails(), answers(), fails())]
        now += 6
        told += [await display.show(call) for call in (answers(), fails())]
        now += 6
        return told + [await display.show(call) for call in (fails(), answers(), fails())]

    assert asyncio.run(tell()) == [None, "shown", None, "shown", None, None, None, None]
    assert [event.text for event in said] == [LOST]


@pytest.mark.parametrize(("counts", "event"), [
    ({"made": 1, "unchanged": 2}, "materialized"), ({"reused": 1}, "materialized"), ({"removed": 1}, "materialized"),
    ({"taken_in": 1}, "materialized"), ({"made": 1, "failed": 1}, "failed"),
    ({"unchanged": 3}, None), ({"skipped": 1}, None), ({"left": 4}, None), ({"fresh": 9}, None),
])  # fmt: skip
def test_what_runs_after_an_asset_is_started_where_it_is_another_than_it_was(
    counts: dict[str, int], event: str | None
) -> None:
    """Of a step that left everything as it was no automation hears."""
    assert _event(AssetResult("a", **counts)) == (f"assetcore.asset.{event}" if event else None)


def test_a_table_has_only_the_columns_that_say_something() -> None:
    """Of counts that are zero everywhere Prefect's page would show a screen full before the keys."""
    rows = [
        {"asset": "a", "made": 1, "failed": 0, "keys": ""},
        {"asset": "b", "made": 0, "failed": 0, "tokens": 7, "keys": "k"},
    ]
    assert _said(rows) == [
        {"asset": "a", "made": 1, "keys": "", "tokens": ""},
        {"asset": "b", "made": 0, "keys": "k", "tokens": 7},
    ]
