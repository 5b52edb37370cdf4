"""Models: which one stands behind an alias, and how texts and rankings are put together."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from assetcore.errors import SettingsError
from assetcore.llm.embedding import _parts, _shares
from assetcore.models import Models, Price, config_file, configured, described, listed_price
from assetcore.search import fused


def test_what_shapes_answers_is_part_of_a_model() -> None:
    """Its name, dimensions and temperature; not its key or address. Two that share a name are one, in whatever order."""
    one = ("a", {"model": "openai/x", "dimensions": 256, "api_key": "secret", "rpm": 5})
    other = ("a", {"model": "azure/x"})
    assert described([one]) == {"a": 'openai/x {"dimensions": 256}'}
    assert described([one, other]) == described([other, one]) == {"a": 'azure/x | openai/x {"dimensions": 256}'}


def test_an_alias_is_followed_to_the_model() -> None:
    """By what the settings call it, to what the gateway asks; an alias that nobody knows is nothing."""
    models = Models({"embedder": "large", "other": "unlisted"}, {"large": "openai/l", "judge": "openai/j"}, "there")
    assert [models.resolve(a) for a in ("embedder", "judge", "other", "writer")] == [
        "openai/l",
        "openai/j",
        "unlisted",
        None,
    ]
    assert "it has: embedder, judge, large, other" in str(models.unknown("writer", "summaries"))


def test_the_configuration_that_comes_along_has_the_three_aliases(tmp_path: Path) -> None:
    """One of the folder's own comes first, and what is none is told with its path."""
    assert {"generator", "judge", "embedder"} <= configured(tmp_path, {}).behind.keys()
    own = tmp_path / "stack" / "litellm.yaml"
    own.parent.mkdir()
    own.write_text("model_list: [{model_name: generator}]")
    assert config_file(tmp_path) == own
    with pytest.raises(SettingsError, match=r"litellm\.yaml cannot be read"):
        configured(tmp_path, {})


def test_texts_are_put_together_by_size_and_pay_by_size() -> None:
    """No text is lost or cut, and the shares of a bill add up to it."""
    texts = [(bytes([i]), "word " * 5000) for i in range(6)]
    assert [len(part) for part in _parts(texts)] == [2, 2, 2]
    assert _shares(10, [1, 1, 1]) == [3, 3, 4]


def test_what_two_rankings_agree_on_comes_first() -> None:
    """Reciprocal rank fusion: second in both is better than first in one."""
    a, b, c = ("x", "a"), ("x", "b"), ("x", "c")
    assert [key for key, _ in fused([[a, b], [c, b]], 3)] == [b, a, c]


def test_a_price_is_found_by_the_name_of_the_model(tmp_path: Path) -> None:
    """In LiteLLM's list, with or without the provider before it; what is not in the list has none, and no list is no error."""
    file = tmp_path / "prices.json"
    listed = {
        "text-embedding-3-large": {"input_cost_per_token": 1.3e-07},
        "x/y": {"input_cost_per_token": 1, "output_cost_per_token": 2},
    }
    file.write_text(json.dumps(listed))
    assert listed_price(file, 'openai/text-embedding-3-large {"dimensions": 256}') == Price(1.3e-07, 0.0)
    assert listed_price(file, "x/y") == Price(1, 2)
    assert listed_price(file, "local/minilm-static") is None
    assert listed_price(tmp_path / "none.json", "x/y") is None
