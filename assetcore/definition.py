"""Definition: what is an asset made with, part by part?"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import Any

from pydantic import BaseModel

from assetcore.assets import Asset
from assetcore.digest import digest
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
    """Over the values themselves, because JSON lists a set in the order of its hashes; over JSON where they have no encoding."""
    try:
        return digest("config", {p: v.model_dump() for p, v in config.items()})
    except TypeError:
        return digest("config", {p: v.model_dump(mode="json") for p, v in config.items()})


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
