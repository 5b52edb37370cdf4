"""Layers: what does each place say about the settings, and may it hold a secret?

Arguments, Prefect variables, environment variables, `.env`, `assetcore.toml` and `[tool.assetcore]` are each read by themselves, so that of
every value it is known who said so. Which settings there are, and which layer wins, is not decided here.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import stat
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from dotenv import dotenv_values
from pydantic_settings import BaseSettings, DotEnvSettingsSource, EnvSettingsSource
from pydantic_settings import SettingsError as UnreadableValueError

from assetcore import vault
from assetcore.errors import SettingsError

__all__ = [
    "CONVENTIONAL",
    "PREFIX",
    "Given",
    "check_mode",
    "dereference",
    "is_secret",
    "of_machine",
    "of_prefect",
    "published",
]

PREFIX = "ASSETCORE_"
CONVENTIONAL = {
    "ENV": "stage",
    "DATABASE_URL": "database_url",
    "REDIS_URL": "redis_url",
    "PREFECT_API_URL": "prefect_api_url",
    "OPENAI_BASE_URL": "openai_base_url",
    "OPENAI_API_KEY": "openai_api_key",
    "LMNR_PROJECT_API_KEY": "lmnr_project_api_key",
    "LMNR_BASE_URL": "lmnr_base_url",
    "OTEL_EXPORTER_OTLP_ENDPOINT": "otlp_endpoint",
    "PUSHOVER_USER": "pushover_user",
    "PUSHOVER_TOKEN": "pushover_token",
    "PUSHOVER_URL": "pushover_url",
}


class Given(NamedTuple):
    """A value, and who said so: where that is a file, which."""

    value: Any
    origin: str
    file: Path | None = None


Layer = dict[str, Given]


def of_machine(cls: type[BaseSettings], root: Path) -> list[Layer]:
    """The layers of this machine, strongest first; arguments and Prefect's variables come before them."""
    return [
        _from_environment(cls),
        _from_dotenv(cls, root / ".env"),
        _from_toml(root / "assetcore.toml", ()),
        _from_toml(root / "pyproject.toml", ("tool", "assetcore")),
    ]


def published(*layers: Layer) -> Mapping[str, Any]:
    """The variables of the Prefect that the layers name, if they name one."""
    api = next((layer["prefect_api_url"].value for layer in layers if "prefect_api_url" in layer), None)
    asked = isinstance(api, str) and api.startswith(("http://", "https://"))
    return vault.variables(str(api).rstrip("/")) if asked else {}


def of_prefect(cls: type[BaseSettings], variables: Mapping[str, Any]) -> Layer:
    layer: Layer = {}
    conventional = {variable.lower(): name for variable, name in CONVENTIONAL.items()}
    for variable, value in variables.items():
        ours = variable.startswith(PREFIX.lower())
        name = variable.removeprefix(PREFIX.lower()) if ours else conventional.get(variable)
        if name is None or name in ("prefect_api_url", "stage"):  # what a machine is, it says itself
            continue
        origin = f"Prefect variable {variable}"
        if is_secret(cls, name, value):
            raise SettingsError(
                f"Setting '{name}' from {origin} is a secret, and Prefect shows variables to everybody.",
                hint="Put it into a Secret block, and block:NAME into the variable: aipctl blocks init does both.",
            )
        table = isinstance(value, str) and value.startswith(("{", "["))
        try:
            given = Given(json.loads(value) if table else value, origin)
        except ValueError:
            raise SettingsError(f"Setting '{name}' from {origin} is not JSON: {value:.80}") from None
        if ours or name not in layer:
            layer[name] = given
    return layer


def _from_environment(cls: type[BaseSettings]) -> Layer:
    source = _parsed(
        lambda: EnvSettingsSource(cls, env_prefix=PREFIX, env_ignore_empty=True, env_nested_delimiter="__")()
    )
    return _variables(cls, source, os.environ, "environment variable {}")


def _from_dotenv(cls: type[BaseSettings], file: Path) -> Layer:
    if not file.is_file():
        return {}
    try:
        variables = dotenv_values(file)
        source = _parsed(
            lambda: DotEnvSettingsSource(
                cls, env_file=file, env_prefix=PREFIX, env_ignore_empty=True, env_nested_delimiter="__"
            )()
        )
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"{file} cannot be read: {error}.", hint="Make it readable UTF-8 text, or remove it."
        ) from error
    for name, value in variables.items():  # what is no setting, too: a provider's key, a password in a source's address
        ours = name in CONVENTIONAL or name.upper().startswith(PREFIX)
        if value and not ours and (SECRETIVE.search(name) or _has_password(value)):
            check_mode(file, name)
    return _variables(cls, source, variables, f"{{}} in {file}", file)


def _parsed(read: Any) -> dict[str, Any]:
    try:
        return read()
    except UnreadableValueError as error:
        setting = re.sub(r'.*field "(\w+)".*', r"\1", str(error))
        raise SettingsError(
            f"Setting '{setting}' from {PREFIX}{setting.upper()} is not JSON.",
            hint="""A table is written {"alias": "model"} and a list ["a", "b"].""",
        ) from error


def _variables(
    cls: type[BaseSettings],
    parsed: dict[str, Any],
    variables: Mapping[str, str | None],
    origin: str,
    file: Path | None = None,
) -> Layer:
    layer: Layer = {}
    for variable, text in variables.items():
        upper = variable.upper()
        if upper.startswith(PREFIX):
            name = upper.removeprefix(PREFIX).partition("__")[0].lower()
            if text:
                layer[name] = Given(parsed.get(name, text), origin.format(variable), file)
    for variable, name in CONVENTIONAL.items():
        if (text := variables.get(variable)) and not (variable == "ENV" and "/" in text):  # that is the shell's own
            layer.setdefault(name, Given(text, origin.format(variable), file))
    return layer


def _from_toml(file: Path, table: tuple[str, ...]) -> Layer:
    try:
        content: Any = tomllib.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(
            f"{file} cannot be read: {error}.", hint="Correct it; the settings in it are unknown until then."
        ) from error
    for key in table:
        if not isinstance(content := content.get(key, {}), dict):
            raise SettingsError(f"{file}: {key} = {content!r:.80} is not a table.", hint=f"[{'.'.join(table)}]")
    where = f"[{'.'.join(table)}] in {file}" if table else str(file)
    return {name: Given(value, where, file) for name, value in content.items()}


# --- secrets --------------------------------------------------------------------------------------------------------------

REFERENCES = ("block:", "file:")
SECRETIVE = re.compile(r"(_API_KEY|_MASTER_KEY|_PASSWORD|_SECRET|_TOKEN)$")
"""How variables are called that hold secrets, whoever reads them."""
_ADDRESSES = ("database_url", "redis_url")
"""Settings that are no secret themselves, but may hold a password."""


def is_secret(cls: type[BaseSettings], name: str, value: object) -> bool:
    """Whether a value, written down where others may read it, would give something away. A reference does not."""
    if isinstance(value, dict):
        inner = [access.get(key) for access in value.values() if isinstance(access, dict) for key in ("key", "secret")]
        return name == "buckets" and any(isinstance(one, str) and not one.startswith(REFERENCES) for one in inner)
    if not isinstance(value, str) or value.startswith(REFERENCES) or name not in cls.model_fields:
        return False
    if "SecretStr" in str(cls.model_fields[name].annotation):
        return True
    return _has_password(value)


def _has_password(value: str) -> bool:
    try:
        return urlsplit(value).password is not None
    except ValueError:
        return False


def check_mode(file: Path, holds: str) -> None:
    """Refuse a file that others may read. Raises SettingsError."""
    mode = stat.S_IMODE(file.stat().st_mode)
    if mode & 0o077:
        raise SettingsError(
            f"{file} holds a secret ({holds}), and others may read it: its mode is {mode:04o}.",
            hint=f"chmod 600 {shlex.quote(str(file))}",
        )


def dereference(cls: type[BaseSettings], values: dict[str, Any], origins: dict[str, str], root: Path) -> None:
    """Put secrets in the place of references to them."""

    def secret(setting: str, reference: object, origin: str) -> tuple[Any, str]:
        if not isinstance(reference, str) or not reference.startswith(REFERENCES):
            return reference, origin
        kind, _, name = reference.partition(":")
        asked_by = f"Setting '{setting}' from {origin}"
        found = vault.secret(api, name, asked_by) if kind == "block" else _secret_file(root, name, asked_by)
        return found, f"{reference} by {origin}"

    api = values.get("prefect_api_url")
    for setting, value in list(values.items()):
        if setting in _ADDRESSES or (
            setting in cls.model_fields and "SecretStr" in str(cls.model_fields[setting].annotation)
        ):
            values[setting], origins[setting] = secret(setting, value, origins[setting])
        elif setting == "buckets" and isinstance(value, dict):
            values[setting] = {
                url: {key: secret(f"buckets.{url}.{key}", one, origins[setting])[0] for key, one in access.items()}
                if isinstance(access, dict)
                else access
                for url, access in value.items()
            }


def _secret_file(root: Path, name: str, asked_by: str) -> str:
    file = root / Path(name).expanduser()
    try:
        check_mode(file, asked_by.removeprefix("Setting ").partition(" from ")[0].strip("'"))
        return file.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{asked_by} is in {file}, which cannot be read: {error}.") from None
