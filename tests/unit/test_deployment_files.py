"""The files that others read: compose, Dockerfile, prefect.yaml, workflows. Checked by schemas and linters that come as packages."""

from __future__ import annotations

import ast
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from click import Context
from prefect.utilities.templating import apply_values

from assetcore.cli import main
from assetcore.cli.platform import place_compose
from assetcore.deploy import IMAGE_FOLDER

REPOSITORY = Path(__file__).parents[2]
STACK = REPOSITORY / "stack"
WORKFLOWS = sorted((REPOSITORY / ".github" / "workflows").glob("*.yml"))
DOCKERFILE = (STACK / "Dockerfile").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load((STACK / "docker-compose.yml").read_text())
ONCE = {"bucket"}
"""Services that do something and end."""


def tool(*command: str) -> str:
    """What a tool of this environment says; nothing where it is content."""
    program = Path(sys.executable).with_name(command[0])
    done = subprocess.run(
        [program, *command[1:]], cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False
    )
    return "" if done.returncode == 0 else done.stdout + done.stderr


@pytest.mark.parametrize(
    ("schema", "file"),
    [
        ("vendor.compose-spec", STACK / "docker-compose.yml"),
        ("vendor.dependabot", REPOSITORY / ".github" / "dependabot.yml"),
        *(("vendor.github-workflows", file) for file in WORKFLOWS),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_a_file_fits_its_schema(schema: str, file: Path) -> None:
    """The schemas are those that Docker and GitHub publish."""
    assert tool("check-jsonschema", "--builtin-schema", schema, str(file)) == ""


@pytest.mark.parametrize(
    ("tool", "asked"),
    [
        (
            ["docker", "compose", "--env-file", ".env", "--file", str(STACK / "docker-compose.yml")],
            ["config", "--quiet"],
        ),
        (["actionlint"], [str(file) for file in WORKFLOWS]),
    ],
    ids=["docker compose", "actionlint"],
)
def test_who_reads_a_file_is_content(tmp_path: Path, tool: list[str], asked: list[str]) -> None:
    """Docker's own compose, given only the .env that is written, and actionlint; no package has them, the schemas are for all."""
    template = (STACK / "env.template").read_text()
    (tmp_path / ".env").write_text(re.sub(r"^(\w+)=$", r"\1=hush", template, flags=re.MULTILINE))

    def said(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*tool, *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
        )

    if shutil.which(tool[0]) is None or said("--version").returncode != 0:
        pytest.skip(f"{tool[0]} is not installed, or has no such command")
    done = said(*asked)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_dockerfile_has_no_finding() -> None:
    """hadolint's rules, all of them."""
    assert tool("hadolint", "stack/Dockerfile") == ""


def test_images_are_hermetic_run_as_nobody_and_hold_no_secret() -> None:
    """Packages come by hash and before any code, nothing is installed at start, and no secret is an ENV or ARG."""
    stages = re.split(r"^FROM ", DOCKERFILE, flags=re.MULTILINE)[1:]
    last = {found[1]: stage for stage in stages if (found := re.search(r" AS ([\w-]+)", stage))}
    for name in ("worker", "gateway"):
        assert "USER 10001:10001" in last[name]
        assert not re.search(r"^(RUN|ENTRYPOINT|CMD).*(pip|uv) ", last[name], re.MULTILINE)
    for name in ("packages", "gateway-packages"):
        assert "--require-hashes" in last[name]
    assert last["packages"].index("image.lock ./") < last["packages"].index("COPY assetcore")
    assert not re.search(r"^(ENV|ARG).*(KEY|PASSWORD|TOKEN|SECRET)", DOCKERFILE, re.MULTILINE)
    ignored = (REPOSITORY / ".dockerignore").read_text().split()
    assert ignored[0] == "*" or "*" in ignored
    assert "**/.env" in ignored


def test_the_locks_of_images_are_whole() -> None:
    """Each package of image.lock has its version and hashes, and what is declared is in it."""
    locked = dict(re.findall(r"^([a-z0-9._-]+)==(\S+)", (STACK / "image.lock").read_text(), re.MULTILINE))
    declared = re.findall(
        r'^    "([a-z0-9-]+)[\[>=<]',
        (REPOSITORY / "pyproject.toml").read_text().partition("[project.opt")[0],
        re.MULTILINE,
    )
    assert "prefect-docker" in locked
    assert {name for name in declared if name not in locked} == set()
    assert "index-url" not in (STACK / "image.lock").read_text()


def test_every_service_says_how_it_is_and_keeps_what_it_has() -> None:
    """Health checks, order by health, ports on 127.0.0.1, versions, and volumes for those that keep data."""
    services = COMPOSE["services"]
    assert {"postgres", "redis", "store", "bucket", "prefect", "worker", "gateway"} == set(services)
    for name, service in services.items():
        assert name in ONCE or "healthcheck" in service, name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))
        for other, condition in service.get("depends_on", {}).items():
            wanted = "service_completed_successfully" if other in ONCE else "service_healthy"
            assert condition["condition"] == wanted
        image = service["image"]
        assert not image.endswith(":latest"), image
        assert ":" in image
    for name in ("postgres", "redis", "store"):
        assert any(volume.partition(":")[0] in COMPOSE["volumes"] for volume in services[name]["volumes"])
    assert "pgvector" in services["postgres"]["image"]


def test_what_works_with_the_database_is_no_superuser() -> None:
    """The superuser has a password of its own; the role of the addresses in .env owns its databases, and the extensions are there."""
    environment = COMPOSE["services"]["postgres"]["environment"]
    assert environment.keys() == {"POSTGRES_PASSWORD"}
    assert "POSTGRES_ADMIN_PASSWORD" in environment["POSTGRES_PASSWORD"]
    made = COMPOSE["configs"]["databases"]["content"]
    assert re.search(r"^CREATE ROLE assetcore LOGIN PASSWORD '\$\{POSTGRES_PASSWORD", made, re.MULTILINE)
    assert {"assetcore", "prefect"} == set(re.findall(r"^CREATE DATABASE (\w+) OWNER assetcore;", made, re.MULTILINE))
    assert {"vector", "pg_trgm"} == set(re.findall(r"^CREATE EXTENSION (\w+);", made, re.MULTILINE))


def test_compose_needs_only_the_env_that_is_written() -> None:
    """Every variable has a default, or a line in stack/env.template; those without either would stop `docker compose`."""
    text = (STACK / "docker-compose.yml").read_text()
    known = set(re.findall(r"^(\w+)=", (STACK / "env.template").read_text(), re.MULTILINE))
    needed = {name for name, default in re.findall(r"(?<!\$)\$\{(\w+)(:-[^}]*)?", text) if not default}
    assert needed <= known
    assert not re.search(r"(PASSWORD|SECRET|KEY): *[A-Za-z0-9]", text)


def test_prefect_yaml_deploys_a_flow_that_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """The entrypoint is a flow of the package and takes these parameters; the image is the one that is built, secrets are blocks, and
    runs are of the stage that deploys.
    """
    file = yaml.safe_load((STACK / "prefect.yaml").read_text())
    (built,) = [step for one in file["build"] for step in one.values()]
    assert (built["dockerfile"], built["target"]) == ("stack/Dockerfile", "worker")
    for deployment in file["deployments"]:
        module, _, name = deployment["entrypoint"].rpartition(".")
        tree = ast.parse((REPOSITORY / f"{module.replace('.', '/')}.py").read_text())
        (flow,) = [n for n in tree.body if isinstance(n, ast.AsyncFunctionDef) and n.name == name]
        assert set(deployment["parameters"]) <= {argument.arg for argument in flow.args.args}
        variables = deployment["work_pool"]["job_variables"]
        assert variables["image"] == "{{ image.image }}"
        monkeypatch.setenv("ENV", "staging")
        given = apply_values(variables, {"image": {"image": "assetcore:v1"}})
        assert (given["image"], given["env"].pop("ENV")) == ("assetcore:v1", "staging")
        assert all("prefect.blocks.secret" in value for value in given["env"].values())


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.name)
def test_an_action_of_others_is_named_by_its_commit(file: Path) -> None:
    """A tag can be moved to other code; which version the commit is stands beside it."""
    used = re.findall(r"uses: +(.+)", file.read_text())
    assert [one for one in used if not re.fullmatch(r"\./\S+|[\w./-]+@[0-9a-f]{40} # v\d+(\.\d+)+", one)] == []
    assert used


def test_a_tag_releases_images_and_packages() -> None:
    """Checks first, then wheel and sdist to PyPI, images to GHCR, and the deployment where there is a Prefect."""
    check, release = (
        yaml.safe_load((REPOSITORY / ".github" / "workflows" / f"{n}.yml").read_text()) for n in ("check", "release")
    )
    assert set(check["jobs"]) == {"lint", "types", "check", "package"}
    assert release[True]["push"]["tags"] == ["v*.*.*"]  # `on` is a truth value to YAML
    assert set(release["jobs"]) == {"check", "version", "publish", "image", "deploy"}
    for name in ("publish", "image"):
        assert "check" in release["jobs"][name]["needs"]
    told = str(release["jobs"]["image"])
    assert "ghcr.io" in told
    assert "secrets.GITHUB_TOKEN" in told
    targets = {one["target"] for one in release["jobs"]["image"]["strategy"]["matrix"]["include"]}
    assert targets <= set(re.findall(r" AS ([\w-]+)", DOCKERFILE))


def test_a_tag_deploys_its_image_to_the_stage_of_the_database() -> None:
    """Where there is a Prefect: the same image is asked to deploy and is what runs are containers of, in the network of the services, and
    each verb says the stage, without which a database of prod refuses.
    """
    jobs = yaml.safe_load((REPOSITORY / ".github" / "workflows" / "release.yml").read_text())["jobs"]
    deploy = jobs["deploy"]
    assert (deploy["if"], deploy["needs"]) == ("vars.PREFECT_API_URL != ''", "image")
    assert "type=ref,event=tag" in str(jobs["image"])
    image = "ghcr.io/${{ github.repository }}:${{ github.ref_name }}"
    assert (deploy["container"]["image"], deploy["env"]["IMAGE"]) == (image, image)
    assert deploy["env"]["ENV"] == "${{ vars.ENV || 'prod' }}"
    assert (
        "--user root" in deploy["container"]["options"]
    )  # GitHub writes beside the steps as root, and the image is nobody's
    assert deploy["defaults"]["run"]["working-directory"] == str(IMAGE_FOLDER)
    (step,) = deploy["steps"]
    upgrade, _, words = step["run"].partition(" && ")
    assert upgrade == "aipctl db upgrade"
    command = main.get_command(Context(main), "deploy")
    assert command is not None
    assert shlex.split(words)[:2] == ["aipctl", "deploy"]
    given = command.make_context("deploy", shlex.split(words)[2:]).params
    assert (given["image"], given["networks"]) == ("$IMAGE", (COMPOSE["networks"]["default"]["name"],))
    assert f"--pool {given['pool']} --type docker" in " ".join(COMPOSE["services"]["worker"]["command"])


def test_where_there_is_no_clone_the_services_have_what_they_are_made_of(tmp_path: Path) -> None:
    """`init --compose` puts it there, keeps what was edited, and starts all but the worker, whose image is built of sources."""
    placed, command = place_compose(tmp_path)
    folder = tmp_path / "stack"
    services: dict[str, Any] = yaml.safe_load((folder / "docker-compose.yml").read_text())["services"]
    started = command.partition(" --detach ")[2].split()
    assert placed
    assert set(started) == set(services) - {"worker"}
    for name in started:
        for volume in services[name].get("volumes", ()):
            assert not volume.startswith(".") or (folder / volume.partition(":")[0]).is_file(), volume
        built = services[name].get("build", {"target": None})["target"]
        stages = {f"{built}", f"{built}-packages"}
        for stage in re.split(r"^FROM ", (folder / "Dockerfile").read_text(), flags=re.MULTILINE):
            if stages & {stage.partition("\n")[0].partition(" AS ")[2]}:
                files = re.findall(r"stack/\S+", "".join(re.findall(r"^COPY (?!--).*", stage, re.MULTILINE)))
                assert files, stage
                assert [file for file in files if not (tmp_path / file).is_file()] == []
    (folder / "litellm.yaml").write_text("edited")
    (folder / "Dockerfile").unlink()
    assert place_compose(tmp_path) == (True, command)
    assert (folder / "litellm.yaml").read_text() == "edited"
    assert place_compose(tmp_path) == (False, command)
    assert place_compose(REPOSITORY) == (False, command.partition(" --detach ")[0] + " --detach")


def test_the_wheel_has_all_that_an_installation_reads(tmp_path: Path) -> None:
    """Every file of the package, the marker by which type checkers read its annotations, the migrations, and what starts the services."""
    assert tool("python", "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)) == ""
    (wheel,) = tmp_path.glob("*.whl")
    packed = set(zipfile.ZipFile(wheel).namelist())
    expected = {
        f"{inside}/{file.relative_to(folder).as_posix()}"
        for folder, inside in [
            (REPOSITORY / "assetcore", "assetcore"),
            (REPOSITORY / "migrations", "assetcore/migrations"),
            (STACK, "assetcore/bootstrap/stack"),
        ]
        for file in folder.rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    assert expected | {"assetcore/py.typed", "assetcore/bootstrap/requirements.lock"} <= packed
