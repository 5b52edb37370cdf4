"""Settings: layers, origins, addresses and mistakes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from assetcore.errors import ServiceError, SettingsError, UsageError
from assetcore.layers import CONVENTIONAL
from assetcore.lineage.schema import refuse_stage
from assetcore.settings import Settings, masked

STACK = Path(__file__).parents[2] / "stack"


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """The developer's own variables do not reach these tests."""
    for name in [*CONVENTIONAL, *(name for name in os.environ if name.startswith("ASSETCORE_"))]:
        monkeypatch.delenv(name, raising=False)


def test_without_any_source_the_defaults_hold(tmp_path: Path) -> None:
    """A fresh folder has a home and a store below it, starts all services itself, and works in `prod`."""
    settings = Settings.load(tmp_path)
    assert settings.root == tmp_path
    assert settings.home == tmp_path / ".assetcore"
    assert settings.storage_url == f"file://{tmp_path}/.assetcore/store"
    assert (settings.database_url, settings.redis_url, settings.prefect_api_url) == (None, None, None)
    assert (settings.environment, settings.concurrency, settings.strict) == ("prod", 16, False)
    assert settings.processes >= 1
    assert {origin for _, _, origin in settings.origins()} == {"default"}


def test_the_stronger_layer_wins_and_each_value_knows_its_origin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Argument, environment, .env, assetcore.toml, pyproject.toml, default: in this order."""
    (tmp_path / "pyproject.toml").write_text(
        "[tool.assetcore]\nconcurrency = 1\nprocesses = 1\nbatch_seconds = 1\nstrict = true\n"
    )
    (tmp_path / "assetcore.toml").write_text("concurrency = 2\nprocesses = 2\nbatch_seconds = 2\n")
    (tmp_path / ".env").write_text("ASSETCORE_CONCURRENCY=3\nASSETCORE_PROCESSES=3\nUNRELATED=1\n")
    monkeypatch.setenv("ASSETCORE_CONCURRENCY", "4")
    settings = Settings.load(tmp_path, environment="pr-17", strict=None)
    found = {name: (value, origin) for name, value, origin in settings.origins()}
    assert found["environment"] == ("pr-17", "argument")
    assert found["concurrency"] == (4, "environment variable ASSETCORE_CONCURRENCY")
    assert found["processes"] == (3, f"ASSETCORE_PROCESSES in {tmp_path / '.env'}")
    assert found["batch_seconds"] == (2.0, str(tmp_path / "assetcore.toml"))
    assert found["strict"] == (True, f"[tool.assetcore] in {tmp_path / 'pyproject.toml'}")
    assert found["redis_url"] == (None, "default")


def test_a_value_is_told_as_what_it_is(tmp_path: Path) -> None:
    """A program reads numbers, truth, lists, tables, and null where nobody gave any; what is secret is masked, also inside."""
    settings = Settings.load(
        tmp_path, projects=["one", "two"], retention="30d", models={"judge": "large"}, pools={"llm": {"concurrency": 2}},
        storage_key="hush", redis_url="redis://:hush@h:1/0", buckets={"s3://in": {"region": "eu", "key": "hush", "secret": "hush"}},
    )  # fmt: skip
    found = {name: value for name, value, _ in settings.origins()}
    assert (found["projects"], found["require"], found["s3"], found["strict"]) == (["one", "two"], [], None, False)
    assert (found["models"], found["pools"]) == ({"judge": "large"}, {"llm": {"concurrency": 2}})
    assert found["buckets"] == {"s3://in": {"region": "eu", "key": "***", "secret": "***"}}
    assert (found["storage_key"], found["redis_url"]) == ("***", "redis://:***@h:1/0")
    assert (found["retention"], found["root"]) == ("30 days, 0:00:00", str(tmp_path))
    assert json.loads(json.dumps(found)) == found


def test_tables_of_several_layers_are_joined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One model alias in the environment replaces that one of the file and leaves the others."""
    (tmp_path / "assetcore.toml").write_text('[models]\nembedder = "small"\ntip-generator = "gpt"\n')
    monkeypatch.setenv("ASSETCORE_MODELS__EMBEDDER", "large")
    assert Settings.load(tmp_path).models == {"embedder": "large", "tip-generator": "gpt"}
    monkeypatch.setenv("ASSETCORE_MODELS", '{"tip-generator": "claude"}')
    assert Settings.load(tmp_path).models == {"embedder": "large", "tip-generator": "claude"}


def test_the_names_that_everybody_uses_work_and_ours_go_before_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DATABASE_URL is read; ASSETCORE_DATABASE_URL wins over it; an empty variable says nothing."""
    monkeypatch.setenv("DATABASE_URL", "postgres://a:b@c/d")
    monkeypatch.setenv("REDIS_URL", "")
    assert Settings.load(tmp_path).database_url == "postgresql+asyncpg://a:b@c/d"
    assert Settings.load(tmp_path).redis_url is None
    monkeypatch.setenv("ASSETCORE_DATABASE_URL", "postgresql://x/y")
    assert Settings.load(tmp_path).database_url == "postgresql+asyncpg://x/y"


def test_an_installation_is_local_unless_it_says_otherwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ENV names the stage; a file that POSIX shells read first is none, and what is no name is refused."""
    assert Settings.load(tmp_path).stage == "local"
    monkeypatch.setenv("ENV", "/home/ann/.shrc")
    assert Settings.load(tmp_path).stage == "local"
    monkeypatch.setenv("ENV", "prod")
    assert Settings.load(tmp_path).stage == "prod"
    monkeypatch.setenv("ENV", "our prod")
    with pytest.raises(
        SettingsError, match=r"'stage' from environment variable ENV is our prod\. It should be a name of"
    ) as told:
        Settings.load(tmp_path)
    assert told.value.hint == "If ENV is meant for another program: ASSETCORE_STAGE=local goes before it."
    monkeypatch.setenv("ASSETCORE_STAGE", "local")
    assert Settings.load(tmp_path).stage == "local"


def test_a_database_of_another_stage_is_refused_without_its_password() -> None:
    """The sentence names database, host, both stages and the way to go on; one that says nothing, or the same, is anybody's."""
    url = "postgresql+asyncpg://ann:hush@db.example.org:5432/shop"
    refuse_stage("local", None, url)
    refuse_stage("prod", "prod", url)
    with pytest.raises(
        UsageError, match=r"database shop at db\.example\.org belongs to prod.* is local .*\n.*ENV=prod"
    ) as told:
        refuse_stage("local", "prod", url)
    assert "hush" not in str(told.value)
    with pytest.raises(UsageError, match=r"\n  On purpose: ENV=prod .*aipctl db upgrade --take$"):
        refuse_stage("local", "prod", url, embedded=True)


@pytest.mark.parametrize(
    ("given_url", "used"),
    [
        ("postgres://u:p@h:1/d", "postgresql+asyncpg://u:p@h:1/d"),
        ("postgresql://u@h/d?sslmode=require", "postgresql+asyncpg://u@h/d?ssl=require"),
        ("postgresql+asyncpg://u:p%40%2F@h/d?host=/run/pg", "postgresql+asyncpg://u:p%40%2F@h/d?host=%2Frun%2Fpg"),
    ],
)
def test_postgres_addresses_are_normalised(tmp_path: Path, given_url: str, used: str) -> None:
    """Whatever spelling of a Postgres address is given, SQLAlchemy's asyncpg driver can read it."""
    assert Settings.load(tmp_path, database_url=given_url).database_url == used


def test_relative_and_home_folders_are_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative home is relative to the root, `~` is the user's folder, and a plain path is a store too."""
    monkeypatch.setenv("HOME", "/home/somebody")
    assert Settings.load(tmp_path, home="state").home == tmp_path / "state"
    assert Settings.load(tmp_path, home="~/state").home == Path("/home/somebody/state")
    assert Settings.load(tmp_path, storage_url="/data/my store/").storage_url == "file:///data/my store"
    assert Settings.load(tmp_path, storage_url="s3://bucket/prefix/").storage_url == "s3://bucket/prefix"


def test_an_s3_store_gets_its_options(tmp_path: Path) -> None:
    """Endpoint, region and keys reach fsspec; a folder needs none of them."""
    settings = Settings.load(
        tmp_path,
        storage_url="s3://b",
        storage_endpoint="http://127.0.0.1:9000/",
        storage_key="k",
        storage_secret="s",
        storage_region="eu",
    )
    assert settings.storage_options() == {
        "endpoint_url": "http://127.0.0.1:9000",
        "client_kwargs": {"region_name": "eu"},
        "key": "k",
        "secret": "s",
        "use_listings_cache": False,
    }
    assert Settings.load(tmp_path).storage_options() == {}


@pytest.mark.parametrize(
    ("file", "text", "sentence"),
    [
        (
            "assetcore.toml",
            "concurency = 4",
            "'concurency' from .*assetcore.toml is not known.\n  Did you mean 'concurrency'",
        ),
        ("assetcore.toml", "root = '/'", "'root' .* is not known"),
        (
            "assetcore.toml",
            "concurrency = 0",
            "'concurrency' from .*assetcore.toml is 0: .*greater than.* a whole number from 1",
        ),
        ("assetcore.toml", "concurrency = ", "assetcore.toml cannot be read: Invalid value"),
        ("assetcore.toml", "models = 3", "'models' from .* is 3: .* a table of model aliases"),
        (
            "pyproject.toml",
            "[tool.assetcore]\nhomes = '/'",
            r"'homes' from \[tool.assetcore\] in .* Did you mean 'home'",
        ),
        (".env", "ASSETCORE_STRICT=perhaps", r"'strict' from ASSETCORE_STRICT in .*\.env is perhaps: .* true or false"),
        (".env", "ASSETCORE_MODELS={a", "'models' from ASSETCORE_MODELS is not JSON"),
        (".env", "ASSETCORE_ENVIROMENT=x", "'enviroment' .* Did you mean 'environment'"),
        (
            ".env",
            "DATABASE_URL=mysql://u:hush@h/d",
            "'database_url' from DATABASE_URL in .* is mysql://u:[*]+@h/d: the scheme",
        ),
        (".env", "REDIS_URL=localhost:6379", "'redis_url' .*: the scheme is not redis"),
        (".env", "ASSETCORE_STORAGE_URL=data/store", "'storage_url' .* there is no scheme"),
        (".env", "ASSETCORE_ENVIRONMENT=My Env", "'environment' .* a name of lowercase letters"),
        (".env", "PREFECT_API_URL=localhost:4200", "'prefect_api_url' .*: the scheme is not http"),
        (".env", "ASSETCORE_WEBHOOK_URL=hook/T0/hush", r"'webhook_url' .* is [*]+: the scheme is not http"),
        (".env", "PUSHOVER_URL=ftp://api", "'pushover_url' from PUSHOVER_URL in .*: the scheme is not http"),
    ],
)
def test_a_mistake_names_the_setting_its_origin_and_what_is_expected(
    tmp_path: Path, file: str, text: str, sentence: str
) -> None:
    """Every unknown or wrong setting is an error that says where it stands and how it should look."""
    written(tmp_path / file, text)
    with pytest.raises(SettingsError) as caught:
        Settings.load(tmp_path)
    assert re.search(sentence, str(caught.value), re.DOTALL), str(caught.value)


def test_a_file_that_is_no_text_is_told(tmp_path: Path) -> None:
    """An .env with bytes that are not UTF-8 is an error with the file's name."""
    (tmp_path / ".env").write_bytes(b"ASSETCORE_HOME=\xff\xfe")
    with pytest.raises(SettingsError, match=r"\.env cannot be read"):
        Settings.load(tmp_path)


def test_secrets_are_shown_nowhere(tmp_path: Path) -> None:
    """Neither origins nor the repr nor an error has a password in it."""
    given_values = {
        "database_url": "postgresql://u:hush@h/d",
        "redis_url": "redis://:hush@h",
        "storage_key": "hush",
        "storage_secret": "hush",
    }
    settings = Settings.load(tmp_path, **given_values)
    assert "hush" not in f"{settings!r} {settings} {settings.origins()}"
    with pytest.raises(SettingsError) as caught:
        Settings.load(tmp_path, **{name: [value] for name, value in given_values.items() if "storage" in name})
    assert "hush" not in str(caught.value)


def test_values_of_one_more_origin_are_checked_and_named(tmp_path: Path) -> None:
    """`using` returns new settings that know the origin of what was added; the old ones are as before."""
    settings = Settings.load(tmp_path, strict=True)
    more = settings.using("embedded stack", redis_url="redis://h:1/0")
    origins = {name: origin for name, _, origin in more.origins()}
    assert (origins["redis_url"], origins["strict"], origins["home"]) == ("embedded stack", "argument", "default")
    assert settings.redis_url is None
    with pytest.raises(SettingsError, match="from embedded stack"):
        settings.using("embedded stack", redis_url="http://h")


@given(st.text("abc:@/%?#", min_size=1, max_size=8))
def test_masking_hides_every_password(password: str) -> None:
    """Whatever characters a password has, once it is encoded into an address it does not survive masking."""
    from urllib.parse import quote

    encoded = quote(password, safe="")
    shown = masked(f"redis://user:XY{encoded}YX@host:6379/0")
    assert shown == "redis://user:***@host:6379/0"


def test_the_template_for_docker_fits_the_compose_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """stack/env.template, filled in, is a valid .env that names a value for all that docker-compose.yml requires."""
    compose = (STACK / "docker-compose.yml").read_text()
    template = (STACK / "env.template").read_text()
    required = set(re.findall(r"\$\{(\w+)(?::\?[^}]*)?\}", compose))
    assert required <= set(re.findall(r"^(\w+)=", template, re.MULTILINE))
    published = [port for service in yaml.safe_load(compose)["services"].values() for port in service.get("ports", ())]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)
    for name in required:
        monkeypatch.delenv(name, raising=False)
    written(tmp_path / ".env", re.sub(r"^(\w+)=$", r"\1=hush", template, flags=re.MULTILINE))
    settings = Settings.load(tmp_path, published=False)
    assert settings.database_url == "postgresql+asyncpg://assetcore:hush@127.0.0.1:5432/assetcore"
    assert settings.storage_options()["secret"] == "hush"
    assert "hush" not in str(settings.origins())


def written(file: Path, text: str, mode: int = 0o600) -> Path:
    """A file with this text and mode."""
    file.write_text(text)
    file.chmod(mode)
    return file


@pytest.mark.parametrize(
    ("name", "text", "holds"),
    [
        (".env", "DATABASE_URL=postgresql://u:hush@h/d", "database_url"),
        (".env", "ASSETCORE_STORAGE_SECRET=hush", "storage_secret"),
        (".env", "ANTHROPIC_API_KEY=hush", "ANTHROPIC_API_KEY"),
        (".env", "SHOP_DATABASE_URL=postgresql://u:hush@h/d", "SHOP_DATABASE_URL"),
        ("assetcore.toml", "storage_key = 'hush'", "storage_key"),
        ("assetcore.toml", "[buckets.'s3://b']\nkey = 'hush'\nsecret = 'hush'", "buckets"),
        ("pyproject.toml", "[tool.assetcore]\nredis_url = 'redis://:hush@h/0'", "redis_url"),
    ],
)
@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604])
def test_a_secrets_file_that_others_may_read_is_refused(
    tmp_path: Path, name: str, text: str, holds: str, mode: int
) -> None:
    """A file with a secret in it has the mode 0600; one that is wider is named, with what to do. Without a secret any mode will do."""
    file = written(tmp_path / name, text, mode)
    with pytest.raises(SettingsError, match=rf"holds a secret \({holds}\).*{mode:04o}.\n  chmod 600 ") as told:
        Settings.load(tmp_path)
    assert "hush" not in str(told.value)
    file.chmod(0o600)
    assert "hush" not in str(Settings.load(tmp_path).origins())
    written(tmp_path / name, "", mode)
    Settings.load(tmp_path)


def test_a_secret_may_lie_in_a_file_of_its_own(tmp_path: Path) -> None:
    """`file:PATH` in any layer stands for what is in the file, which its owner alone may read; the origin names both."""
    secret = written(tmp_path / "database", "postgresql://u:hush@h/d\n")
    written(
        tmp_path / "assetcore.toml", "database_url = 'file:database'\n[buckets.'s3://b']\nkey='file:database'", 0o644
    )
    settings = Settings.load(tmp_path)
    assert settings.database_url == "postgresql+asyncpg://u:hush@h/d"
    assert str(settings.buckets["s3://b"].key.get_secret_value()).startswith("postgresql://u:hush")
    (origin,) = [origin for name, _, origin in settings.origins() if name == "database_url"]
    assert origin == f"file:database by {tmp_path / 'assetcore.toml'}"
    secret.chmod(0o644)
    with pytest.raises(SettingsError, match="database holds a secret"):
        Settings.load(tmp_path)
    secret.unlink()
    with pytest.raises(SettingsError, match=r"'database_url' from .*assetcore.toml is in .*cannot be read"):
        Settings.load(tmp_path)


def test_a_reference_to_a_block_needs_a_prefect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`block:NAME` without an address of Prefect, or with one that does not answer or is none of HTTP, says so."""
    monkeypatch.setenv("DATABASE_URL", "block:database")
    with pytest.raises(SettingsError, match=r"block:database, and no Prefect is named.*\n.*PREFECT_API_URL"):
        Settings.load(tmp_path)
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:1/api")
    with pytest.raises(ServiceError, match=r"lies in Prefect at http://127\.0\.0\.1:1/api, which does not give it"):
        Settings.load(tmp_path)
    monkeypatch.setenv("PREFECT_API_URL", tmp_path.as_uri())
    with pytest.raises(ServiceError, match=r"which does not give it: the scheme is not http"):
        Settings.load(tmp_path)


def test_a_prefect_that_does_not_answer_has_no_variables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The other layers hold, and it is said once."""
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:1/api")
    assert Settings.load(tmp_path, concurrency=3).concurrency == 3
    assert len(caplog.messages) == 1
    assert "its variables are not read" in caplog.text


def test_only_what_can_be_declared_can_be_required(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`require` is a list of names, in a file or as JSON in a variable; a name that nobody knows is an error with those that there are."""
    (tmp_path / "pyproject.toml").write_text('[tool.assetcore]\nrequire = ["owner", "sensitivity"]\n')
    assert Settings.load(tmp_path).require == ("owner", "sensitivity")
    monkeypatch.setenv("ASSETCORE_REQUIRE", '["tags"]')
    assert Settings.load(tmp_path).require == ("tags",)
    monkeypatch.setenv("ASSETCORE_REQUIRE", '["owner", "onwer"]')
    with pytest.raises(
        SettingsError, match=r"'require' from environment variable ASSETCORE_REQUIRE is onwer: .*'description'"
    ):
        Settings.load(tmp_path)


def test_importing_settings_is_cheap() -> None:
    """Neither Prefect nor SQLAlchemy nor a frame library comes with the settings."""
    heavy = {"prefect", "sqlalchemy", "polars", "pandas", "fsspec", "urllib.request", "httpx"}
    script = f"import sys, assetcore.settings; sys.exit(bool({heavy} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
