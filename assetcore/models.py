"""Models: which model stands behind an alias?

    alias > what it is called at the gateway (the setting `models`, or the same) > the model that the gateway asks

What the gateway asks is said by its own configuration, `stack/litellm.yaml` beside `projects/`, or the one that comes with assetcore;
of a gateway that somebody else runs (OPENAI_BASE_URL) it is asked. The last of the three is part of the recipe of every asset that
declares the alias.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from assetcore.errors import SettingsError
from assetcore.notation import parse_yaml

__all__ = ["Models", "Price", "config_file", "configured", "described", "listed_price", "price_of"]

SHAPING = ("dimensions", "max_tokens", "reasoning_effort", "seed", "stop", "temperature", "top_p")
"""What of a model's parameters shapes its answers; keys, addresses and limits do not."""


class Price(NamedTuple):
    """Dollars for a token that goes in, and for one that comes out."""

    given: float
    answered: float


@dataclass(frozen=True, slots=True)
class Models:
    """What is known of a gateway's models: `behind` says which model answers to a name, `place` where that is written."""

    names: Mapping[str, str]
    behind: Mapping[str, str]
    place: str
    prices: Mapping[str, Price] = field(default_factory=dict)
    """What the gateway itself says of prices, by the name at the gateway."""

    def called(self, alias: str) -> str:
        """What an alias is called at the gateway."""
        return self.names.get(alias, alias)

    def resolve(self, alias: str) -> str | None:
        """The model behind an alias; None where nobody knows it."""
        name = self.called(alias)
        return self.behind.get(name, name if alias in self.names else None)

    def unknown(self, alias: str, who: str) -> SettingsError:
        """The error for an alias that nobody knows."""
        known = ", ".join(sorted({*self.names, *self.behind})) or "none"
        return SettingsError(
            f"{who} asks for the model {alias!r}, which {self.place} does not have; it has: {known}.",
            hint=f"Add it there: - {{model_name: {alias}, litellm_params: {{model: openai/gpt-5-mini}}}}",
        )


def price_of(entry: Mapping[str, Any]) -> Price | None:
    """What LiteLLM says of a model's price, in its list of prices or in `model_info`; None where it says nothing."""
    given, answered = entry.get("input_cost_per_token"), entry.get("output_cost_per_token")
    if not isinstance(given, int | float):
        return None
    return Price(float(given), float(answered) if isinstance(answered, int | float) else 0.0)


def listed_price(file: Path, model: str) -> Price | None:
    """The price of a model (`openai/gpt-5-mini`) in LiteLLM's list of prices; None where it is not in it."""
    try:
        listed = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    bare = model.partition(" ")[0]
    entry = listed.get(bare) or listed.get(bare.partition("/")[2])
    return price_of(entry) if isinstance(entry, dict) else None


def config_file(root: Path) -> Path:
    """The configuration of the embedded gateway: that of the folder, or the one that comes with assetcore."""
    package = Path(__file__).resolve().parent
    inside = package / "bootstrap" / "stack"
    shipped = inside if inside.is_dir() else package.parent / "stack"
    own = root / "stack" / "litellm.yaml"
    return own if own.is_file() else shipped / "litellm.yaml"


def configured(root: Path, names: Mapping[str, str]) -> Models:
    """What the embedded gateway's configuration says. Raises SettingsError for a file that is none."""
    file = config_file(root)
    try:
        content = parse_yaml(file.read_text("utf-8"))
        entries = [(str(e["model_name"]), dict(e["litellm_params"])) for e in content["model_list"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SettingsError(
            f"{file} cannot be read as the configuration of a LiteLLM gateway: {type(error).__name__}: {error}.",
            hint="It needs: model_list: [{model_name: generator, litellm_params: {model: openai/gpt-5-mini}}]",
        ) from error
    return Models(names, described(entries), str(file))


def described(entries: list[tuple[str, dict[str, Any]]]) -> dict[str, str]:
    """For each name the model behind it, with what shapes its answers; several that share the load are one."""
    found: dict[str, set[str]] = {}
    for name, parameters in entries:
        shaping = {key: parameters[key] for key in SHAPING if parameters.get(key) is not None}
        text = str(parameters.get("model", name)) + (f" {json.dumps(shaping, sort_keys=True)}" if shaping else "")
        found.setdefault(name, set()).add(text)
    return {name: " | ".join(sorted(models)) for name, models in found.items()}
