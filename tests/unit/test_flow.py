"""What Prefect is told beside states: it may be slow, and it may be gone."""

from __future__ import annotations

import asyncio

import pytest

from assetcore import flow
from assetcore.flow import LOST, _Display, _said
from assetcore.results import Event


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
