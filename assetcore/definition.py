"""Definition: what is an asset made with, part by part?"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from typing import Any

from pydantic import BaseModel

from assetcore.assets import Asset
from assetcore.digest import canonical, digest
from assetcore.fingerprint import Fingerprint
from assetcore.staleness import Component, Definition

__all__ = ["define"]


def define(
    asset: Asset[..., Any],
    fingerprint: Fingerprint,
    config: Mapping[str, BaseModel],
    models: Mapping[str, str | None],
    packages: Collection[str] = (),
) -> Definition:
    """The current definition of an asset.

    `config` holds its parameters' values, `models` what its aliases point to, `packages` the installed distributions whose version
    counts; those of the others that the code touches are kept to be shown.
    """
    pins = dict(fingerprint.environment)
    counted = {name: version for name, version in pins.items() if name in packages}
    output = asset.output
    schema = {"form": output.form, "type": output.type_name, "many": output.many, "fields": _schema(output.type)}
    version = asset.options.version
    taken = [("partition", asset.partition.parameter, asset.partition.form.__name__)] if asset.partition else []
    return Definition(
        {
            "shape": Component(digest("shape", [*(d.shape for d in asset.dependencies), *taken])),
            "schema": Component(digest("schema", schema), schema),
            "version": Component(digest("version", version), version),
            "code": Component(fingerprint.digest, {part.name: part.digest.hex() for part in fingerprint.parts}),
            "environment": Component(digest("environment", counted), pins),
            "config": Component(_config_digest(config), {p: v.model_dump(mode="json") for p, v in config.items()}),
            "models": Component(digest("models", models), dict(models)),
        }
    )


def _config_digest(config: Mapping[str, BaseModel]) -> bytes:
    """Over the values themselves; where one has no encoding, over their JSON, but for the order that it lists a set in."""
    values = {p: v.model_dump() for p, v in config.items()}
    try:
        return digest("config", values)
    except TypeError:
        return digest("config", _ordered(values, {p: v.model_dump(mode="json") for p, v in config.items()}))


def _ordered(value: Any, told: Any) -> Any:
    """`told`, the JSON of a value, with its sets as they are: JSON lists them in the order of their hashes."""
    match value, told:
        case ((set() | frozenset()), list()):
            return value if _is_encoded(value) else sorted(told, key=canonical)
        case Mapping(), dict() if len(value) == len(told):
            return {k: _ordered(v, told[k]) for k, v in zip(told, value.values(), strict=True)}
        case Sequence(), list() if len(value) == len(told):
            return [_ordered(v, t) for v, t in zip(value, told, strict=True)]
        case _:
            return told


def _is_encoded(value: Any) -> bool:
    try:
        canonical(value)
    except TypeError:
        return False
    return True


@lru_cache(maxsize=1024)
def _schema(cls: type[Any]) -> Any:
    """The JSON schema of the typed fields without what only people read."""

    def strip(value: Any) -> Any:
        if isinstance(value, dict):
            labels = ("title", "description")
            return {k: strip(v) for k, v in value.items() if not (k in labels and isinstance(v, str))}
        return [strip(item) for item in value] if isinstance(value, list) else value

    schema = strip(cls.model_json_schema())
    for built_in in ("name", "content", "media_type"):
        schema.get("properties", {}).pop(built_in, None)
    return schema
