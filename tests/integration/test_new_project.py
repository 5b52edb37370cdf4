"""Ten projects beside each other: each begins with an example that is made at once, a test that passes, and little else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from assetcore.cli import main
from assetcore.session import Session
from assetcore.settings import Settings

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

NAMES = [f"project_{letter}" for letter in "abcdefghij"]
GLUE = 40


async def test_ten_new_projects_are_made_at_once(settings: Settings) -> None:
    """No project needs more than its declarations, none sees another's documents, and all their tests pass."""
    root = settings.root
    for name in NAMES:
        assert CliRunner().invoke(main, ["new", "project", name, "--root", str(root)]).exit_code == 0
        code = [line for file in sorted((root / "projects" / name).iterdir()) for line in _code(file)]
        assert len(code) < GLUE, code
    for name in NAMES:
        async with Session.open(settings, name) as session:
            result = await session.materialize(local=True)
            assert (result.status, {a.asset: a.made for a in result.assets}) == ("done", {"words": 2, "frequencies": 1})
            assert len(await session.show("words")) == 13
            assert (await session.materialize(local=True)).run is None
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "projects"]
    tested = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert tested.returncode == 0, tested.stdout
    assert "10 passed" in tested.stdout


def _code(file: Path) -> list[str]:
    """Lines of code and configuration: no test, nothing empty, no comment or docstring of one line."""
    if file.name.startswith("test_") or not file.is_file():
        return []
    lines = [line.strip() for line in file.read_text().splitlines()]
    return [line for line in lines if line and not line.startswith(("#", '"""'))]
