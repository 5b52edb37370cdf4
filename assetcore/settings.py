"""Settings: which addresses, limits and models does this installation use, and who said so?

Values come in layers, the first that speaks wins: arguments, Prefect variables, environment variables, `.env`, `assetcore.toml`,
`[tool.assetcore]` in pyproject.toml, defaults. Each layer is read by itself (`layers`), so that `origins()` can say where every value came
from. A setting that nobody knows, or that has the wrong form, is an error: a typo that silently becomes a default costs hours.

    environment variable    ASSETCORE_<NAME>, and DATABASE_URL, REDIS_URL, PREFECT_API_URL, OPENAI_BASE_URL, OPENAI_API_KEY
    nested                  ASSETCORE_MODELS__EMBEDDER=text-embedding-3-large, or ASSETCORE_MODELS='{"embedder": "..."}'
    Prefect variable        assetcore_<name>, and database_url, redis_url; read where an address of Prefect is given, by one question
    secret                  in the environment, in a file that its owner alone may read, or as a reference: block:NAME, file:PATH
"""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr, SecretStr, ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from assetcore import layers
from assetcore.errors import SettingsError, UsageError

NAME = r"^[a-z0-9][a-z0-9._-]{0,62}$"
LOCAL = "local"
"""The stage of an installation that does not say another: no database belongs to that by itself."""
EMBEDDED = "embedded stack"
"""Where the address of a service comes from that was started for this home."""


def check_environment(name: str) -> None:
    """Raise UsageError for what cannot be the name of an environment; `fence` is what the lock of each has beside it (`cache`)."""
    if name == "fence" or not re.fullmatch(NAME, name):
        near = "" if name == "fence" else re.sub(r"[^a-z0-9._-]+", "-", name.lower()).strip("-._")[:63]
        raise UsageError(
            f"{name!r:.80} cannot be the name of an environment.",
            hint=f"Such as: {near or 'pr-17'} (at most 63 lowercase letters, digits, '.', '_' and '-', and a letter or digit first)",
        )


def postgres_url(value: object) -> object:
    """The address in the form that SQLAlchemy's asyncpg driver reads; `sslmode=` is libpq's word for what asyncpg calls `ssl=`."""
    if not isinstance(value, str):
        return value
    scheme, separator, rest = value.partition("://")
    if not separator or scheme not in {"postgres", "postgresql", "postgresql+asyncpg"}:
        raise ValueError("the scheme is not postgresql")
    address, _, query = rest.partition("?")
    pairs = [("ssl" if key == "sslmode" else key, text) for key, text in parse_qsl(query, keep_blank_values=True)]
    return f"postgresql+asyncpg://{address}" + (f"?{urlencode(pairs)}" if pairs else "")


def _redis_url(value: object) -> object:
    if isinstance(value, str) and value.partition("://")[0] not in {"redis", "rediss", "unix"}:
        raise ValueError("the scheme is not redis")
    return value


def _storage_url(value: object) -> object:
    if isinstance(value, Path) or (isinstance(value, str) and value.startswith(("/", "~"))):
        return f"file://{Path(value).expanduser()}"
    if isinstance(value, str) and "://" not in value:
        raise ValueError("there is no scheme")
    return value.rstrip("/") if isinstance(value, str) else value


def _http_url(value: object) -> object:
    if isinstance(value, str) and not value.startswith(("http://", "https://")):
        raise ValueError("the scheme is not http")
    return value.rstrip("/") if isinstance(value, str) else value


def _buckets(value: object) -> object:
    for address in value if isinstance(value, dict) else ():
        if not str(address).startswith("s3://"):
            raise ValueError(f"{address} is no address of S3")
    return value


_PERIOD = re.compile(r"(\d+) ?([hdw])")
_HOURS = {"h": 1, "d": 24, "w": 24 * 7}
_LONGEST = 1000 * 365 * 24


def period(value: object) -> timedelta | None:
    """`36h`, `30d`, `8w` as a span of time. Raises ValueError."""
    if isinstance(value, str) and (found := _PERIOD.fullmatch(value.strip())):
        if (hours := int(found[1]) * _HOURS[found[2]]) > _LONGEST:
            raise ValueError("that is longer than a thousand years")
        return timedelta(hours=hours)
    if value is None or isinstance(value, timedelta):
        return value
    raise ValueError("there is no number of hours, days or weeks")


class BucketAccess(BaseModel):
    """How the buckets below one address are reached; what is left out, AWS finds by itself."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    endpoint: Annotated[str, BeforeValidator(_http_url)] | None = None
    region: str | None = None
    key: SecretStr | None = None
    secret: SecretStr | None = None
    anonymous: bool = False

    def options(self) -> dict[str, Any]:
        """The same in the words of fsspec."""
        options: dict[str, Any] = {"use_listings_cache": False}
        if self.endpoint:
            options["endpoint_url"] = self.endpoint
        if self.region:
            options["client_kwargs"] = {"region_name": self.region}
        if self.key and self.secret:
            options |= {"key": self.key.get_secret_value(), "secret": self.secret.get_secret_value()}
        return options | ({"anon": True} if self.anonymous else {})


class PoolLimits(BaseModel):
    """What a pool of calls allows, among all runs that share a Redis; what is left out is not limited."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    concurrency: int | None = Field(default=None, ge=1)
    per_minute: int | None = Field(default=None, ge=1)


class Settings(BaseSettings):
    """Everything that differs between a laptop, a CI job and a server. Load it with `Settings.load(root)`."""

    model_config = SettingsConfigDict(extra="forbid", frozen=True, validate_default=False)

    root: Path = Field(description="the folder that holds projects/")
    home: Path = Field(description="the folder for the embedded services, their data and their logs")
    projects: tuple[str, ...] = Field(
        default=(), description="a list of package names that hold projects, besides projects/*"
    )
    environment: str = Field(
        default="prod", pattern=NAME, description="a name of lowercase letters, digits, '.', '_' and '-'"
    )
    stage: str = Field(
        default=LOCAL,
        pattern=NAME,
        description="a name of lowercase letters, digits, '.', '_' and '-', such as local, staging or prod",
    )
    database_url: Annotated[str, BeforeValidator(postgres_url)] | None = Field(
        default=None, repr=False, description="a Postgres address such as postgresql://user:password@host:5432/database"
    )
    redis_url: Annotated[str, BeforeValidator(_redis_url)] | None = Field(
        default=None, repr=False, description="a Redis address such as redis://:password@host:6379/0"
    )
    storage_url: Annotated[str, BeforeValidator(_storage_url)] = Field(
        description="a bucket or folder such as s3://bucket/prefix or file:///data/store"
    )
    storage_endpoint: Annotated[str, BeforeValidator(_http_url)] | None = Field(
        default=None, description="the address of an S3 server other than AWS, such as http://127.0.0.1:9000"
    )
    storage_region: str | None = Field(default=None, description="an S3 region such as eu-central-1")
    storage_key: SecretStr | None = Field(default=None, description="the S3 access key")
    storage_secret: SecretStr | None = Field(default=None, description="the S3 secret key")
    buckets: Annotated[dict[str, BucketAccess], BeforeValidator(_buckets)] = Field(
        default_factory=dict,
        description="a table of S3 addresses that sources read: 's3://bucket' = {endpoint, region, key, secret, anonymous}",
    )
    retention: Annotated[timedelta, BeforeValidator(period)] | None = Field(
        default=None, description="how long history is kept, such as 36h, 30d or 8w; without it, for good"
    )
    s3: bool | None = Field(
        default=None,
        description="true or false: whether the embedded store is an S3 server rather than a folder; as it was, if not given",
    )
    prefect_api_url: Annotated[str, BeforeValidator(_http_url)] | None = Field(
        default=None, description="the address of a Prefect API such as http://host:4200/api"
    )

    openai_base_url: Annotated[str, BeforeValidator(_http_url)] | None = Field(
        default=None,
        description="the address of a LiteLLM gateway such as http://host:4000/v1, the only host that models are asked of",
    )
    openai_api_key: SecretStr | None = Field(default=None, description="the key of that gateway")

    concurrency: int = Field(default=16, ge=1, description="a whole number from 1: how many async units run at once")
    processes: int = Field(
        default_factory=lambda: (
            len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        ),
        ge=1,
        description="a whole number from 1: how many processes run CPU-bound units",
    )
    runner: Literal["processes", "threads", "dask", "ray"] = Field(
        default="processes", description="processes, threads, dask or ray: where sync functions are called"
    )
    dask_address: str | None = Field(
        default=None, description="the address of a Dask scheduler such as tcp://host:8786"
    )
    ray_address: str | None = Field(default=None, description="the address of a Ray cluster such as ray://host:10001")
    batch_seconds: float = Field(
        default=0.5, gt=0, le=3600, description="a number of seconds above 0: how much work one batch holds"
    )
    pools: dict[str, PoolLimits] = Field(
        default_factory=dict,
        description="a table of pools: name = {concurrency = 8, per_minute = 600}, of which one may be left out",
    )
    models: dict[str, str] = Field(
        default_factory=dict, description="a table of model aliases: alias = 'what it is called at the gateway'"
    )
    preload: bool = Field(
        default=True,
        description="true or false: whether a process beside the embedded services has imported what commands need, for the next one",
    )
    packages: dict[str, Literal["ignore", "stale"]] = Field(
        default_factory=dict,
        description="a table of installed packages: name = 'stale' makes what uses it stale when its version changes",
    )
    lmnr_project_api_key: SecretStr | None = Field(
        default=None, description="the key of a project in LMNR, to which the spans of runs go then"
    )
    lmnr_base_url: Annotated[str, BeforeValidator(_http_url)] | None = Field(
        default=None, description="the address of an LMNR of one's own, such as http://host:8000"
    )
    otlp_endpoint: Annotated[str, BeforeValidator(_http_url)] | None = Field(
        default=None,
        description="the address of an OTLP collector, such as http://host:4318, to which the spans of runs go",
    )
    pushover_user: SecretStr | None = Field(default=None, description="the key of a user or group of Pushover")
    pushover_token: SecretStr | None = Field(default=None, description="the token of an application of Pushover")
    pushover_url: Annotated[str, BeforeValidator(_http_url)] = Field(
        default="https://api.pushover.net/1/messages.json", description="the address of Pushover's API"
    )
    webhook_url: Annotated[SecretStr, BeforeValidator(_http_url)] | None = Field(
        default=None, description="an address that failures are posted to as JSON, such as https://host/hook"
    )
    trace_days: float = Field(
        default=30, ge=0, description="a number of days from 0: how long the database keeps the traces of runs"
    )
    openlineage: str | None = Field(
        default=None, description="where OpenLineage events of runs go: an http:// address or a file; none by default"
    )
    require: tuple[Literal["owner", "description", "sensitivity", "freshness", "tags", "kinds"], ...] = Field(
        default=(), description='a list of what every asset has to declare, such as ["owner", "description"]'
    )
    strict: bool = Field(default=False, description="true or false: whether warnings about a project are errors")

    _origins: dict[str, str] = PrivateAttr(default_factory=dict)
    _variables: dict[str, Any] = PrivateAttr(default_factory=dict)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what is handed over: `load` reads the layers itself, to know the origin of each value."""
        return (init_settings,)

    @classmethod
    def load(cls, root: Path, *, published: bool = True, **overrides: Any) -> Self:
        """The settings of the folder `root`; `overrides` that are None are left out. Raises SettingsError.

        `published=False` leaves out what Prefect holds: the settings as this machine alone has them.
        """
        root = Path(root).absolute()
        values: dict[str, Any] = {}
        origins: dict[str, str] = {}
        arguments = {name: layers.Given(value, "argument") for name, value in overrides.items() if value is not None}
        here = layers.of_machine(cls, root)
        variables = layers.published(arguments, *here) if published else {}
        for layer in (arguments, layers.of_prefect(cls, variables), *here):
            for name, (value, origin, file) in layer.items():
                if name not in cls.model_fields or name == "root":
                    raise _unknown(name, origin, cls)
                if file is not None and layers.is_secret(cls, name, value):
                    layers.check_mode(file, name)
                if name not in values:
                    values[name], origins[name] = value, origin
                elif isinstance(values[name], dict) and isinstance(value, dict):
                    values[name] = value | values[name]
        layers.dereference(cls, values, origins, root)
        try:
            home = Path(values.get("home", ".assetcore")).expanduser()
        except (TypeError, RuntimeError) as error:
            raise SettingsError(
                f"Setting 'home' from {origins.get('home')} is {values.get('home')!r}: {error}."
            ) from error
        home = root / home
        settings = cls._checked(
            {"storage_url": f"file://{home}/store"} | values | {"root": root, "home": home}, origins
        )
        settings._origins.update(origins)
        settings._variables.update(variables)
        return settings

    def using(self, origin: str, **values: Any) -> Self:
        """These settings with some values from one more origin, such as the addresses of the embedded stack."""
        given = {name: getattr(self, name) for name in type(self).model_fields}
        settings = self._checked(given | values, dict.fromkeys(values, origin))
        settings._origins.update(self._origins | dict.fromkeys(values, origin))
        settings._variables.update(self._variables)
        return settings

    def origins(self) -> list[tuple[str, Any, str]]:
        """(name, value as JSON has it with passwords masked, where it came from), for each setting, in the order of declaration."""
        return [
            (name, _plain(getattr(self, name)), self._origins.get(name, "default")) for name in type(self).model_fields
        ]

    def configured(self, project: str) -> dict[str, Any]:
        """What Prefect's variables `PROJECT_NAME` hold for a project, by NAME; `aipctl blocks init` writes them."""
        beginning = f"{project.lower()}_"
        return {n.removeprefix(beginning): v for n, v in self._variables.items() if n.startswith(beginning)}

    def was_given(self, name: str) -> bool:
        """Whether somebody said so, rather than nobody."""
        return name in self._origins

    def is_given(self, name: str) -> bool:
        """Whether it is somebody's own, rather than nobody's or that of the embedded service."""
        return self._origins.get(name, EMBEDDED) != EMBEDDED

    def storage_options(self) -> dict[str, Any]:
        """What fsspec needs beside `storage_url` to open the store."""
        if not self.storage_url.startswith(("s3://", "s3a://")):
            return {}
        access = BucketAccess(
            endpoint=self.storage_endpoint, region=self.storage_region, key=self.storage_key, secret=self.storage_secret
        )
        return access.options()

    def bucket_options(self, url: str) -> dict[str, Any]:
        """What fsspec needs beside `url` to read there: by the longest address in `buckets`, or as the store, if it is its bucket."""
        named = [known for known in self.buckets if url == known or url.startswith(f"{known.removesuffix('/')}/")]
        if named:
            return self.buckets[max(named, key=len)].options()
        return self.storage_options() if urlsplit(url)[:2] == urlsplit(self.storage_url)[:2] else {}

    @classmethod
    def _checked(cls, values: dict[str, Any], origins: Mapping[str, str]) -> Self:
        try:
            return cls(**values)
        except ValidationError as error:
            raise _wrong(error, origins, cls) from None


def masked(url: str) -> str:
    """A URL without its password."""
    parts = urlsplit(url)
    if parts.password is None:
        return url
    return urlunsplit(parts._replace(netloc=parts.netloc.replace(f":{parts.password}@", ":***@", 1)))


def _unknown(name: str, origin: str, cls: type[Settings]) -> SettingsError:
    known = [field for field in cls.model_fields if field != "root"]
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"Did you mean '{near[0]}'?" if near else f"Known settings: {', '.join(sorted(known))}."
    return SettingsError(f"Setting '{name}' from {origin} is not known.", hint=hint)


def _wrong(error: ValidationError, origins: Mapping[str, str], cls: type[Settings]) -> SettingsError:
    sentences: list[str] = []
    for problem in error.errors():
        name = str(problem["loc"][0])
        field = cls.model_fields[name]
        secret = any(word in str(field.annotation) for word in ("SecretStr", "BucketAccess"))
        value = "***" if secret else _shown(problem["input"])
        reason = re.sub(r"^Value error, ", "", problem["msg"])
        why = "" if problem["type"] == "string_pattern_mismatch" else f": {reason}"  # what it should be says more
        sentence = (
            f"Setting '{name}' from {origins.get(name, 'default')} is {value}{why}. It should be {field.description}."
        )
        if sentence not in sentences:
            sentences.append(sentence)
    others = "ENV" in origins.get("stage", "") and any(problem["loc"][0] == "stage" for problem in error.errors())
    hint = "If ENV is meant for another program: ASSETCORE_STAGE=local goes before it." if others else None
    return SettingsError("\n".join(sentences), hint=hint)


def _shown(value: object) -> str:
    plain = _plain(value)
    return "-" if plain is None else plain if isinstance(plain, str) else json.dumps(plain)


def _plain(value: object) -> Any:
    """A value as JSON has it, with what is secret in it masked."""
    match value:
        case None | bool() | int() | float():
            return value
        case str():
            return masked(value)
        case SecretStr():
            return "***"
        case BaseModel():
            return {name: _plain(getattr(value, name)) for name in value.model_dump(exclude_defaults=True)}
        case Mapping():
            return {str(name): _plain(one) for name, one in value.items()}
        case list() | tuple():
            return [_plain(one) for one in value]
        case _:
            return str(value)
