"""Keys: under which key does an artifact lie?

    {project}/{flow}/{run_ts}/{step}/{artifact_name}

This is the only place that makes or reads a key. A key is written once and never overwritten; distinct artifact names
never share one, not even in a store that ignores case.
"""

from __future__ import annotations

import base64
import re
import unicodedata
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NewType

from assetcore.digest import short_digest
from assetcore.errors import StorageError

__all__ = [
    "Key",
    "KeyParts",
    "configuration_key",
    "flows_of",
    "is_configuration",
    "object_key",
    "parse_key",
    "run_timestamp",
]

Key = NewType("Key", str)
"""The address of one object inside a bucket."""

_PLAIN_NAME = re.compile(r"[a-z0-9_](?:[a-z0-9._-]{0,126}[a-z0-9_-])?")
"""Artifact names that are kept as they are: no two of them differ only by case or by Unicode form."""
_PLAIN_PART = re.compile(r"\w(?:[\w.-]{0,126}[\w-])?")
_DIGESTED = re.compile(r"(?:^|-)[a-z2-7]{26}(?:\.[a-z0-9]{1,12})?$")
"""How a sanitised name ends. A name that already ends so is sanitised too, else the two could meet."""
_SUFFIX = re.compile(r"\.[a-z0-9]{1,12}$")
_TIMESTAMP = re.compile(r"\d{8}T\d{6}\.\d{6}Z")
_STEM_LIMIT = 80
_CONFIGURATIONS = "platform.config", "config"
"""Where configurations lie that Prefect's variables point to: in the place of a project, of a name that none can have."""
_CONFIGURATIONS_BEFORE = "platform", "config"


@dataclass(frozen=True, slots=True)
class KeyParts:
    """What a key says about the object under it."""

    project: str
    flow: str
    run_ts: str
    step: str
    artifact_name: str


def run_timestamp(at: datetime) -> str:
    """The basic ISO 8601 form in UTC, with microseconds: `20261120T112600.123456Z`. `at` must have a time zone."""
    if at.tzinfo is None:
        raise StorageError(f"{at.isoformat()} has no time zone, so it names no moment.", hint="Use datetime.now(UTC).")
    return at.astimezone(UTC).strftime("%Y%m%dT%H%M%S.%fZ")


def object_key(project: str, flow: str, run_ts: str, step: str, artifact_name: str) -> Key:
    """The key of an artifact.

    `artifact_name` may be any text. It stays as it is where it is lower-case ASCII letters, digits, `.`, `_` and `-`
    (at most 128); otherwise it is reduced to these, and a digest of the whole name keeps it apart from every other.
    The other parts are identifiers already; one that could not be a single path segment is sanitised in the same way.
    """
    if not _TIMESTAMP.fullmatch(run_ts):
        raise StorageError(f"{run_ts!r} is not a run's timestamp.", hint="Make it with run_timestamp(at).")
    parts = [_segment(project, _PLAIN_PART), _segment(flow, _PLAIN_PART), run_ts, _segment(step, _PLAIN_PART)]
    return Key("/".join([*parts, _segment(artifact_name, _PLAIN_NAME)]))


def flows_of(project: str) -> str:
    """What stands for the project in the keys of what its plain flows gave: lineage knows nothing of it."""
    return f"{project}.flows"


def configuration_key(at: datetime, name: str) -> Key:
    """The key of a configuration that is too long for its variable: lineage knows nothing of it."""
    return object_key(*_CONFIGURATIONS, run_timestamp(at), name, f"{name}.json")


def is_configuration(key: str) -> bool:
    """Whether one lies there, or where they lay before: below what is a project's, where that is called `platform`."""
    parts = parse_key(key)
    places = (_CONFIGURATIONS, _CONFIGURATIONS_BEFORE)
    return (parts.project, parts.flow) in places and parts.artifact_name == artifact_name(f"{parts.step}.json")


def artifact_name(name: str) -> str:
    """The last segment of the key of an artifact of this name: safe for a file, and apart from that of every other name."""
    return _segment(name, _PLAIN_NAME)


def parse_key(key: str) -> KeyParts:
    """The parts of a key, as they were given to `object_key`. Raises StorageError for what is not a key."""
    parts = key.split("/")
    if len(parts) != 5 or not all(parts) or not _TIMESTAMP.fullmatch(parts[2]):
        layout = "{project}/{flow}/{run_ts}/{step}/{artifact_name}"
        raise StorageError(f"{key!r:.200} is not a key of assetcore.", hint=f"Keys are {layout}.")
    return KeyParts(*parts)


def _segment(text: str, plain: re.Pattern[str]) -> str:
    if plain.fullmatch(text) and not _DIGESTED.search(text):
        return text
    whole = base64.b32encode(short_digest("segment", text)).decode().rstrip("=").lower()
    ascii_text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    suffix = _SUFFIX.search(ascii_text)
    stem = re.sub(r"[^A-Za-z0-9_]+", "-", ascii_text[: suffix.start()] if suffix else ascii_text)
    stem = stem.strip("-")[:_STEM_LIMIT].rstrip("-")
    return (f"{stem}-{whole}" if stem else whole) + (suffix.group() if suffix else "")
