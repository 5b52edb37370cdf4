"""Place: where does a measured project live? In a temporary folder of its own, with a home and services of its own."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from assetcore.layers import CONVENTIONAL
from tests.bench.meter import Cost, Services, measure

AIPCTL = Path(sys.executable).with_name("aipctl")
REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Place:
    """A folder with `projects/`, and what a command needs to work in it."""

    root: Path
    env: dict[str, str]

    @property
    def services(self) -> Services:
        return Services(self.root / "home")

    def call(self, *words: str, expect: Sequence[int] = (0,), services: bool = True) -> Cost:
        """Measure `aipctl WORDS`."""
        return measure(
            [AIPCTL, *words], cwd=self.root, env=self.env, services=self.services if services else None, expect=expect
        )

    def ask(self, *words: str) -> dict[str, Any]:
        """The answer to `aipctl WORDS --json`, not measured."""
        return json.loads(self.call(*words, "--json", services=False).out)


@contextmanager
def new_place(project: Path, *, up: bool = True, **variables: str) -> Iterator[Place]:
    """A place with a copy of a project's folder; its services run, unless `up` is off, and are stopped at the end.

    It is removed when everything has been measured: on ext4 whoever creates files soon after others were deleted pays for that.
    """
    root = Path(tempfile.mkdtemp(prefix="assetcore-bench-")).resolve()
    atexit.register(shutil.rmtree, root)
    root.chmod(0o711)  # as root, Postgres runs as another user, who must pass through to its data
    shutil.copytree(project, root / "projects" / project.name, ignore=shutil.ignore_patterns("__pycache__"))
    place = Place(root, _environment(root) | variables)
    try:
        if up:
            _quietly(place, "up")
        yield place
    finally:
        _quietly(place, "down")


@contextmanager
def empty_place() -> Iterator[Place]:
    """A place without a project, for what needs some of the services alone: whoever is measured there starts them."""
    with project_place("nothing", up=False) as place:
        yield place


@contextmanager
def project_place(name: str, assets: str = "", *, up: bool = True) -> Iterator[Place]:
    """A place with a project of this name, whose assets are declared in this text."""
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder) / name
        package.mkdir()
        (package / "__init__.py").touch()
        (package / "assets.py").write_text(assets, encoding="utf-8")
        with new_place(package, up=up) as place:
            yield place


def executed(answer: str) -> dict[str, int]:
    """What `materialize --json` did, summed over the assets."""
    assets = json.loads(answer)["assets"]
    words = ("made", "unchanged", "reused", "removed", "failed")
    return {word: sum(asset[word] for asset in assets) for word in words}


def _environment(root: Path) -> dict[str, str]:
    """The environment without what would lead a measured command elsewhere, or let it compile itself each time.

    Nor with what polars has set here when it was imported, by which a command would hold more memory than in anybody's shell.
    """
    led = {*CONVENTIONAL, "PROJECT", "PYTHON_HOME", "PYTHONDONTWRITEBYTECODE", "_RJEM_MALLOC_CONF"}
    kept = {k: v for k, v in os.environ.items() if k not in led and not k.startswith(("ASSETCORE_", "PREFECT_"))}
    return kept | {"ASSETCORE_HOME": str(root / "home")}


def _quietly(place: Place, *words: str) -> None:
    subprocess.run([AIPCTL, *words], cwd=place.root, env=place.env, check=True, capture_output=True)
