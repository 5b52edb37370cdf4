"""Models, without a gateway: which answers are doubted, and what a provider's numbers and times are taken for."""

from __future__ import annotations

import json
from typing import Any

import pytest

from assetcore.errors import AnswerError, GatewayError, ServiceError
from assetcore.llm import Answer, Attempt
from assetcore.llm.gateway import Response, _seconds


def raised_for(error: BaseException, cause: BaseException, *, said: bool) -> BaseException:
    """The error as it is raised where another one is handled."""
    error.__context__ = cause
    if said:
        error.__cause__ = cause
    return error


LIMIT = GatewayError("no room", status=429, transient=True)


@pytest.mark.parametrize(
    ("error", "doubted"),
    [
        (ValueError("no heading"), ["1", "2"]),
        (KeyError("heading"), ["1", "2"]),
        (ExceptionGroup("both", [LIMIT, ValueError("no heading")]), ["1", "2"]),
        (AnswerError("none", answer="second"), ["2"]),
        (AnswerError("none", answer="neither"), []),
        (LIMIT, []),
        (ServiceError("Redis is down"), []),
        (ConnectionError("a service of the user's"), []),
        (TimeoutError(), []),
        (ExceptionGroup("one", [LIMIT]), []),
        (raised_for(RuntimeError("could not ask"), LIMIT, said=True), []),
        (raised_for(RuntimeError("could not ask"), LIMIT, said=False), []),
        (raised_for(ValueError("no number"), KeyError("score"), said=True), ["1", "2"]),
    ],
)
def test_answers_are_doubted_unless_something_else_failed(error: BaseException, doubted: list[str]) -> None:
    """What a function made of its answers may fail by any of them; a service that fails, and another answer, says nothing of them."""
    with Attempt() as attempt:
        attempt.answers += [Answer("first", "m", key="1"), Answer("second", "m", key="2"), Answer("third", "m")]
    assert list(attempt.suspects(error)) == doubted


@pytest.mark.parametrize(
    ("usage", "tokens", "cached"),
    [
        ({"total_tokens": 10, "prompt_tokens_details": {"cached_tokens": 4}}, 10, 4),
        ({"total_tokens": 3, "prompt_tokens_details": {"cached_tokens": 9}}, 3, 3),
        ({"prompt_tokens": 3, "completion_tokens": 2}, 5, 0),
        ({"prompt_tokens_details": {"cached_tokens": 5}}, 0, 0),
        ({"total_tokens": -1}, 0, 0),
        ({"total_tokens": "abc"}, 0, 0),
        ({"total_tokens": float("inf")}, 0, 0),
        ({"total_tokens": 3, "prompt_tokens_details": 3}, 3, 0),
        ([], 0, 0),
        (None, 0, 0),
    ],
)
def test_odd_numbers_of_a_provider_are_a_cost_all_the_same(usage: Any, tokens: int, cached: int) -> None:
    """What is no count counts nothing, and no more tokens are cached than there are: an answer that was paid for is not lost by it."""
    response = Response(json.loads(json.dumps({"usage": usage})), {"x-litellm-response-cost": "nan"})
    assert (response.tokens, response.cached_tokens, response.usd) == (tokens, cached, 0.0)


@pytest.mark.parametrize(
    ("said", "seconds"), [("7", 7.0), ("86400", 86400.0), ("-3", 0.0), ("inf", None), ("nan", None), ("soon", None), (None, None)]
)  # fmt: skip
def test_retry_after_is_taken_as_it_is_said(said: str | None, seconds: float | None) -> None:
    """A gateway that wants to be left alone for long is not asked earlier."""
    assert _seconds(said) == seconds
