"""Blocks: what a folder's settings are to workers elsewhere, by way of Prefect."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import PrefectClient

from tests import readme
from tests.integration.command import Command

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

ENV = """
ASSETCORE_CONCURRENCY=7
ASSETCORE_STORAGE_SECRET=hush-hush
ASSETCORE_MODELS={"embedder": "small"}
ASSETCORE_BUCKETS={"s3://incoming": {"region": "eu", "key": "K-hush", "secret": "S-hush"}}
"""


@pytest.fixture
async def client(prefect_api: str) -> AsyncIterator[PrefectClient]:
    """Prefect's client; what the test has published is taken back, because Prefect is the session's."""
    async with PrefectClient(prefect_api) as client:
        before = {variable.name for variable in await client.read_variables()}
        yield client
        for variable in await client.read_variables():
            if variable.name not in before:
                await client.delete_variable_by_name(variable.name)
        for block in await client.read_block_documents():
            if (block.name or "").startswith("assetcore-"):
                await client.delete_block_document(block.id)


@pytest.fixture
def aipctl(tmp_path: Path, variables: dict[str, str], prefect_api: str) -> Command:
    """The command in a folder with settings, a project and two files of configuration, one of them long."""
    package = tmp_path / "projects" / "notes"
    (package / "config").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "config" / "limits.yaml").write_text("longest: 800\nsince: 2026-01-01\n")
    (package / "config" / "words.yaml").write_text(json.dumps(["word"] * 1000))
    (tmp_path / ".env").write_text(ENV)
    (tmp_path / ".env").chmod(0o600)
    return Command(tmp_path, {**variables, "PREFECT_API_URL": prefect_api})


async def test_what_is_published_is_found_elsewhere(
    aipctl: Command, client: PrefectClient, tmp_path_factory: pytest.TempPathFactory, prefect_api: str
) -> None:
    """`blocks init` keeps secrets in Secret blocks and all else in variables; a folder that knows Prefect alone has the same settings."""
    first = aipctl("blocks", "init", "--json")
    assert first.code == 0, first.err
    assert {one["change"] for one in first.json["kept"]} == {"created"}
    assert "hush" not in first.out + first.err
    shown = {variable.name: variable.value for variable in await client.read_variables()}
    assert shown["assetcore_storage_secret"] == "block:assetcore-storage-secret"
    assert "hush" not in str(shown)
    assert "prefect_api_url" not in str(shown)
    assert shown["notes_limits"] == {"longest": 800, "since": "2026-01-01"}
    pointer: Any = shown["notes_words"]
    assert "/platform.config/config/" in pointer["document"], "below no project"
    assert json.loads(Path(pointer["document"].removeprefix("file://")).read_bytes()) == ["word"] * 1000

    again = aipctl("blocks", "init", "--json")
    readme.hold("aipctl blocks init", again.json)
    assert {one["change"] for one in again.json["kept"]} == {"unchanged"}, again.out
    (aipctl.root / ".env").write_text(ENV.replace("CONCURRENCY=7", "CONCURRENCY=8"))
    changed = aipctl("blocks", "init", "--json").json["kept"]
    assert [one["name"] for one in changed if one["change"] == "updated"] == ["assetcore_concurrency"]

    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "projects").mkdir()
    (elsewhere / "assetcore.toml").write_text("concurrency = 2\nprocesses = 2\n")
    bare = {name: value for name, value in aipctl.variables.items() if not name.endswith("_URL")}
    other = Command(elsewhere, {**bare, "PREFECT_API_URL": prefect_api, "ASSETCORE_CONCURRENCY": "3"})
    settled = other("config", "show", "--json").json
    readme.hold("aipctl config show", settled)
    found = {row["name"]: row for row in settled["settings"]}
    assert (found["concurrency"]["value"], found["concurrency"]["origin"]) == (
        8,
        "Prefect variable assetcore_concurrency",
    )
    assert found["processes"]["value"] == 2
    assert found["storage_secret"]["value"] == "***"
    origin = "block:assetcore-storage-secret by Prefect variable assetcore_storage_secret"
    assert found["storage_secret"]["origin"] == origin
    assert found["models"]["value"] == {"embedder": "small"}
    assert ":***@" in found["database_url"]["value"]
    assert other("check").code == 0


async def test_configuration_of_a_project_is_found_elsewhere(
    aipctl: Command, client: PrefectClient, prefect_api: str
) -> None:
    """An asset takes its config from the variable of its name, also where that points to a document; without it, from its files."""
    package = aipctl.root / "projects" / "notes"
    (package / "assets.py").write_text(
        "from pydantic import BaseModel\nfrom assetcore import Document, asset\n"
        "class Limits(BaseModel):\n    longest: int = 1\n    since: str = ''\n    words: list[str] = []\n"
        "class Told(Document):\n    'What it was given.'\n"
        "@asset\nasync def limits(limits: Limits) -> Told:\n"
        "    return Told('limits', text=f'{limits.longest} {len(limits.words)}')\n"
    )
    (package / "config" / "limits.yaml").write_text(json.dumps({"longest": 800, "words": ["word"] * 1000}))
    assert aipctl("blocks", "init").code == 0
    (package / "config" / "limits.yaml").unlink()
    assert aipctl("materialize", "--local").code == 0
    assert aipctl("show", "limits[limits]/limits").out == "800 1000"
    variables = {name: value for name, value in aipctl.variables.items() if name != "PREFECT_API_URL"}
    assert Command(aipctl.root, variables)("plan", "--exit-code").code == 2


async def test_a_variable_that_is_too_long_is_refused_before_anything_is_written(
    aipctl: Command, client: PrefectClient
) -> None:
    """A setting of 6,000 characters does not fit into a Prefect variable: the sentence says how long it may be."""
    models = json.dumps({f"alias-{number}": "a model" for number in range(300)})
    (aipctl.root / ".env").write_text(f"ASSETCORE_CONCURRENCY=9\nASSETCORE_MODELS={models}\n")
    refused = aipctl("blocks", "init")
    assert (refused.code, refused.out) == (64, "")
    assert "'models' has 7," in refused.err
    assert "at most 5,000: nothing was written." in refused.err
    assert not [v.name for v in await client.read_variables() if v.name.startswith("assetcore_")]


async def test_what_somebody_else_wrote_into_variables_is_checked(aipctl: Command, client: PrefectClient) -> None:
    """An unknown name, a secret in the open, and a block that is not there are told with the variable's name."""
    from prefect.client.schemas.actions import VariableCreate

    (aipctl.root / ".env").unlink()
    for name, value, sentence in [
        ("assetcore_concurency", 3, "Setting 'concurency' from Prefect variable assetcore_concurency is not known."),
        ("assetcore_concurrency", "many", "from Prefect variable assetcore_concurrency is many"),
        ("database_url", "postgresql://u:hush@h/d", "Prefect variable database_url is a secret"),
        ("assetcore_storage_key", "block:assetcore-nowhere", "has no Secret block of this name"),
    ]:
        await client.create_variable(VariableCreate(name=name, value=value))
        told = aipctl("config", "show")
        await client.delete_variable_by_name(name)
        assert told.code == 64
        assert sentence in told.err, told.err
        assert "hush" not in told.err


def test_init_makes_a_folder_ready_and_changes_nothing_the_second_time(
    variables: dict[str, str], prefect_api: str, tmp_path: Path
) -> None:
    """`.env` from the template for its owner alone, addresses, a profile for Prefect's own commands."""
    aipctl = Command(tmp_path, {**variables, "PREFECT_HOME": str(tmp_path / "prefect")})
    first = aipctl("init", "--json")
    assert first.code == 0, first.err
    env = tmp_path / ".env"
    assert (first.json["changed"], env.stat().st_mode & 0o777) == (True, 0o600)
    assert [service["ok"] for service in first.json["services"]] == [True] * 5
    profiles = (tmp_path / "prefect" / "profiles.toml").read_text()
    assert f'[profiles.{first.json["profile"]}]\nPREFECT_API_URL = "{prefect_api}"' in profiles
    text = env.read_text()
    second = aipctl("init", "--json")
    readme.hold("aipctl init", second.json)
    assert (second.json["changed"], env.read_text()) == (False, text)
    assert (tmp_path / "prefect" / "profiles.toml").read_text() == profiles
    env.unlink()
    compose = aipctl("init", "--compose")
    assert "Now: docker compose --env-file .env -f stack/docker-compose.yml up --detach postgres redis" in compose.out
    assert (tmp_path / "stack" / "docker-compose.yml").is_file()
    assert "\nDATABASE_URL=postgresql://assetcore:${POSTGRES_PASSWORD}@" in env.read_text()
