"""Models, without a gateway: what a provider's numbers and times are taken for."""

from __future__ import annotations

import json
from typing import Any

import pytest

from assetcore.llm.gateway import Response, _seconds


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
