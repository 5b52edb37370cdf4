"""Pipelines: which functions may be flows and tasks, and when they are tried again."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel

from assetcore import Document, DocumentList, RetryPolicy, pipeline_flow, pipeline_task
from assetcore.errors import DeclarationError, UsageError
from assetcore.pipelines import BACKOFF


class Page(Document):
    """A page."""


class Limits(BaseModel):
    longest: int = 80


@pipeline_task
async def shouted(documents: DocumentList) -> DocumentList:
    """In capitals."""
    return DocumentList(Page(one.name, text=one.text.upper()) for one in documents)


@pipeline_flow(tags=["demo"])
async def shout(documents: DocumentList, limits: Limits = Limits()) -> DocumentList:  # noqa: B008 - as users write it; a model is not changed
    """All of them, cut."""
    return DocumentList(Page(one.name, text=one.text[: limits.longest]) for one in await shouted(documents))


async def test_a_flow_stays_an_ordinary_function() -> None:
    """Called in a test it does its work, without Prefect."""
    made = await shout(DocumentList([Page("a.txt", text="alpha")]), Limits(longest=3))
    assert [one.text for one in made] == ["ALP"]
    assert (shout.name, shout.terms.tags, shout.terms.description) == ("shout", ("demo",), "All of them, cut.")
    assert shouted.terms.retry is None
    assert made.of(Page) == list(made)


def test_a_list_of_documents_holds_documents() -> None:
    """Anything else is named."""
    with pytest.raises(UsageError, match=r"'loose' is a str, and a DocumentList holds documents"):
        DocumentList(["loose"])


async def _bytes(content: bytes) -> DocumentList: ...
async def _text(documents: DocumentList) -> str: ...
async def _silent(documents: DocumentList): ...
async def _anything(documents) -> DocumentList: ...
async def _list(documents: list[str]) -> DocumentList: ...
def _blocking(documents: DocumentList) -> DocumentList: ...


@pytest.mark.parametrize("declare", [pipeline_task, pipeline_flow])
@pytest.mark.parametrize(
    ("function", "sentence"),
    [
        (_bytes, r"_bytes \(.*test_pipelines.py:\d+\) takes content: bytes, which says neither"),
        (_text, r"_text \(.*\) returns str, and a \w+ returns documents"),
        (_silent, r"_silent \(.*\) returns nothing"),
        (_anything, r"_anything \(.*\) takes documents: nothing"),
        (_list, r"_list \(.*\) takes documents: list\[str\]"),
        (_blocking, r"_blocking \(.*\) is no async function.*\n.*async def"),
        (print, "print is no async function"),
    ],
)
def test_what_is_loose_or_blocks_is_refused_when_it_is_declared(declare: Any, function: Any, sentence: str) -> None:
    """With the place of the function, and what to write instead."""
    with pytest.raises(DeclarationError, match=sentence):
        declare(function)


async def test_a_flow_that_returns_something_else_is_told() -> None:
    """An annotation that lies is found when it is called."""

    @pipeline_flow
    async def lies(documents: DocumentList) -> DocumentList:
        return "a text"

    with pytest.raises(UsageError, match="lies returned a str, and is declared to return a DocumentList"):
        await lies(DocumentList())


def test_retries_are_asked_for_and_declared_harmless() -> None:
    """No policy without `idempotent=True`; a policy that makes no sense is refused."""
    with pytest.raises(DeclarationError, match=r"retry=backoff may be done twice.*\n.*idempotent=True"):
        pipeline_task(retry=BACKOFF)
    assert pipeline_task(retry=BACKOFF, idempotent=True)(shouted.function).terms.retry is BACKOFF
    for wrong in ({"retries": 0}, {"retries": 1, "jitter": 2}, {"retries": 1, "first": 9, "longest": 3}):
        with pytest.raises(DeclarationError, match="is no policy of retries"):
            RetryPolicy("odd", **wrong)


class HTTPError(Exception):
    def __init__(self, status: int) -> None:
        self.response = type("Response", (), {"status_code": status})


def test_pauses_grow_and_a_wrong_question_is_not_asked_again() -> None:
    """Twice as long each time, up to a limit; 4xx never, but for the statuses that are named."""
    policy = RetryPolicy("upload", retries=5, first=1, longest=6)
    assert policy.pauses() == [1, 2, 4, 6, 6]
    assert [policy.allows(HTTPError(status)) for status in (400, 404, 429, 500, 503)] == [
        False,
        False,
        False,
        True,
        True,
    ]
    assert BACKOFF.allows(HTTPError(429))
    assert policy.allows(OSError("gone"))
