"""Blocks: what does Prefect keep for this installation: a profile, the store, secrets, variables?

Written here, read by the settings (`vault`) wherever Prefect's address is known: what a laptop's `.env` says, workers find in Prefect.
Writing again what is there already changes nothing. Secrets go into Secret blocks only, and a variable holds a reference to each.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain, count
from pathlib import Path
from typing import Any, Literal

from httpx import HTTPError
from prefect.blocks.core import Block
from prefect.blocks.system import Secret
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import VariableCreate, VariableUpdate
from prefect.exceptions import PrefectHTTPStatusError
from prefect.filesystems import LocalFileSystem, RemoteFileSystem
from prefect.settings import (
    PREFECT_API_URL,
    Profile,
    get_current_settings,
    load_profiles,
    save_profiles,
    temporary_settings,
)
from pydantic import BaseModel, SecretStr

from assetcore.errors import DeclarationError, ServiceError, UsageError
from assetcore.notation import parse_yaml
from assetcore.settings import EMBEDDED, Settings
from assetcore.storage import Bucket, configuration_key

__all__ = ["LONGEST_VARIABLE", "Kept", "configurations", "keep", "profile"]

LONGEST_VARIABLE = 5000
"""Characters of JSON that Prefect takes as a variable's value."""
STORE = "assetcore-store"
PROFILE = "assetcore"
OWNERS = "assetcore-profiles.json"
"""Which folder each profile is of: a file beside those of Prefect."""
UNPUBLISHED = frozenset({"root", "home", "projects", "prefect_api_url", "s3", "stage"})
"""Settings that say where a machine has its things and what it is, or where Prefect is: nothing for other machines."""


@dataclass(frozen=True, slots=True)
class Kept:
    """Something that Prefect keeps, and what was done for that."""

    kind: Literal["block", "secret", "variable"]
    name: str
    change: Literal["created", "updated", "unchanged"]
    where: str = ""

    def to_json(self) -> dict[str, str]:
        """What `aipctl blocks init --json` prints."""
        return {"kind": self.kind, "name": self.name, "change": self.change, "where": self.where}


def profile(api: str, root: Path) -> tuple[str, bool]:
    """See that Prefect's own commands have a profile that points here; returns its name, and whether something was changed.

    It is `assetcore`, or where that points to the server of another folder, `assetcore-FOLDER`. Whose each is stands beside the profiles.
    """
    path = get_current_settings().profiles_path
    assert path is not None, "Prefect has a path for profiles."
    note = path.with_name(OWNERS)
    owners = _read(note)
    profiles = load_profiles(include_defaults=False)
    folder = f"{PROFILE}-{re.sub(r'[^A-Za-z0-9_-]+', '-', root.name)}"
    mine = (name for name, owner in owners.items() if owner == str(root) and name in profiles.names)

    def points_here(name: str) -> bool:
        return name in profiles.names and profiles[name].settings.get(PREFECT_API_URL) == api

    names = chain(mine, [PROFILE, folder], (f"{folder}-{number}" for number in count(2)))
    name = next(n for n in names if n not in profiles.names or points_here(n) or owners.get(n) == str(root))
    if changed := not points_here(name):
        if name in profiles.names:
            profiles.remove_profile(name)
        profiles.add_profile(Profile(name=name, settings={PREFECT_API_URL: api}))
        save_profiles(profiles)
    if changed or name not in owners:
        with suppress(OSError):  # where nothing can be written, nobody takes it either
            note.write_text(json.dumps(owners | {name: str(root)}), "utf-8")
    return name, changed


def _read(note: Path) -> dict[str, str]:
    """The folder of each profile that was written here; nothing where that was lost."""
    try:
        found = json.loads(note.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def configurations(root: Path) -> dict[str, Any]:
    """What lies in `projects/*/config/*.yaml`, by the name of its variable: `notes_limits` for projects/notes/config/limits.yaml.

    Raises DeclarationError for a file that cannot be read.
    """
    found: dict[str, Any] = {}
    for file in sorted(root.glob("projects/*/config/*.y*ml")):
        name = re.sub(r"[^a-z0-9]+", "_", f"{file.parents[1].name}_{file.stem}".lower()).strip("_")
        if name in found:
            raise DeclarationError(f"{file} would be the variable {name}, as another file is.", hint="Rename it.")
        try:
            found[name] = json.loads(json.dumps(parse_yaml(file.read_text("utf-8")), default=str))
        except (OSError, ValueError, TypeError) as error:
            raise DeclarationError(
                f"{file} cannot be read: {error}.", hint="Correct it; nothing was written."
            ) from None
    return found


async def keep(api: str, settings: Settings) -> list[Kept]:
    """Write the store's block, the secrets and the variables; returns each with what was done.

    Raises UsageError for a setting that is too long for a variable, ServiceError when Prefect does not answer.
    """
    given = {
        name: origin
        for name, _, origin in settings.origins()
        if origin not in ("default", EMBEDDED, "argument") and name not in UNPUBLISHED
    }
    secrets: dict[str, str] = {}
    variables = {f"assetcore_{name}": _published(name, getattr(settings, name), secrets) for name in given}
    for name, value in variables.items():
        if (length := len(json.dumps(value))) > LONGEST_VARIABLE:
            raise UsageError(
                f"Setting '{name.removeprefix('assetcore_')}' has {length:,} characters, and a Prefect variable at most "
                f"{LONGEST_VARIABLE:,}: nothing was written.",
                hint="Keep it in assetcore.toml, which goes with the projects.",
            )
    project = configurations(settings.root)
    try:
        with temporary_settings({PREFECT_API_URL: api}):
            kept = [await _keep_block(STORE, _store(settings))]
            kept += [await _keep_block(name, Secret(value=SecretStr(text))) for name, text in sorted(secrets.items())]
            async with PrefectClient(api) as client:
                kept += [await _keep_variable(client, name, value) for name, value in sorted(variables.items())]
                for name, value in project.items():
                    kept.append(await _keep_configuration(client, settings, name, value))
    except PrefectHTTPStatusError as error:
        raise ServiceError(
            f"Prefect at {api} refuses: {error.response.text[:500]}", hint="See: aipctl check"
        ) from error
    except (HTTPError, OSError) as error:
        raise ServiceError(f"Prefect at {api} cannot be reached: {error}.", hint="See: aipctl check") from error
    return kept


def _store(settings: Settings) -> Block:
    """The store as a block. Credentials are not part of it: workers have them in their environment, or as secret blocks."""
    if settings.storage_url.startswith("file://"):
        return LocalFileSystem(basepath=settings.storage_url.removeprefix("file://"))
    client = {"endpoint_url": settings.storage_endpoint, "region_name": settings.storage_region}
    known = {key: value for key, value in client.items() if value}
    return RemoteFileSystem(basepath=settings.storage_url, settings={"client_kwargs": known} if known else {})


async def _keep_block(name: str, block: Block) -> Kept:
    kind: Literal["block", "secret"] = "secret" if isinstance(block, Secret) else "block"
    known: Any = None
    with suppress(ValueError):  # there is none
        known = await type(block).aload(name)
    if known is not None and _content(known) == _content(block):
        return Kept(kind, name, "unchanged")
    await block.asave(name, overwrite=True)
    return Kept(kind, name, "created" if known is None else "updated")


def _content(block: Any) -> Any:
    return block.get() if isinstance(block, Secret) else block.model_dump(include=set(type(block).model_fields))


async def _keep_variable(client: PrefectClient, name: str, value: Any, where: str = "") -> Kept:
    known = await client.read_variable_by_name(name)
    if known is None:
        await client.create_variable(VariableCreate(name=name, value=value))
    elif known.value == value:
        return Kept("variable", name, "unchanged", where)
    else:
        await client.update_variable(VariableUpdate(name=name, value=value))
    return Kept("variable", name, "created" if known is None else "updated", where)


async def _keep_configuration(client: PrefectClient, settings: Settings, name: str, value: Any) -> Kept:
    """A project's configuration as a variable; one that is too long becomes an object, and the variable points to it."""
    text = json.dumps(value, ensure_ascii=False, sort_keys=True)
    if len(json.dumps(value)) <= LONGEST_VARIABLE:
        return await _keep_variable(client, name, value)
    content = text.encode()
    sha256 = hashlib.sha256(content).hexdigest()
    known = await client.read_variable_by_name(name)
    pointer = known.value if known is not None and isinstance(known.value, Mapping) else {}
    if pointer.get("sha256") == sha256:
        return Kept("variable", name, "unchanged", str(pointer.get("document")))
    key = configuration_key(datetime.now(UTC), name)
    bucket = Bucket.open(settings.storage_url, settings.storage_options())
    try:
        await bucket.write_own(key, content)
    finally:
        await bucket.close()
    where = f"{settings.storage_url}/{key}"
    return await _keep_variable(client, name, {"document": where, "sha256": sha256, "size": len(content)}, where)


def _published(name: str, value: Any, secrets: dict[str, str]) -> Any:
    """A setting's value as JSON for everybody's eyes; what is secret in it goes into `secrets`, and a reference stands in its place."""
    password = isinstance(value, str) and re.match(r"\w[\w+.-]*://[^/@]*:[^/@]+@", value)
    if isinstance(value, SecretStr) or password:
        block = f"assetcore-{re.sub(r'[^a-z0-9]+', '-', name.lower()).strip('-')}"
        secrets[block] = value.get_secret_value() if isinstance(value, SecretStr) else value
        return f"block:{block}"
    if isinstance(value, BaseModel):
        value = {key: one for key in type(value).model_fields if (one := getattr(value, key)) is not None}
    if isinstance(value, Mapping):
        return {key: _published(f"{name}-{key}", one, secrets) for key, one in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_published(f"{name}-{index}", one, secrets) for index, one in enumerate(value)]
    return value if isinstance(value, str | int | float | bool | None) else str(value)
