"""Packages: where does a server live whose packages do not go together with ours?

In an environment of its own, which stack/environment.py makes from a lock of its own, at the server's first start.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from assetcore.errors import ServiceError
from assetcore.stack.home import Home


def bootstrap() -> Path:
    """The folder with `stack/` and `requirements.lock`: inside the installed package, or the checkout that it is in."""
    package = Path(__file__).resolve().parent.parent
    inside = package / "bootstrap"
    return inside if inside.is_dir() else package.parent


def environment(home: Home, venv: Path, lock: str, what: str, hint: str) -> Path:
    """The Python of the server's environment, which is made or brought up to date first. Raises ServiceError."""
    stack = bootstrap() / "stack"
    command = [sys.executable, "-IS", stack / "environment.py", "--lock", stack / lock, venv]
    variables = os.environ | {"ASSETCORE_HOME": str(home.path)}
    done = subprocess.run(command, env=variables, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = "\n".join(f"    {line}" for line in done.stderr.strip().splitlines()[-8:])
        raise ServiceError(f"{what} could not be made:\n{lines}", hint=hint)
    return venv / "bin" / "python"
