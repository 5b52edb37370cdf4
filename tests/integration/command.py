"""The real command in a process of its own, as a user calls it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redis import asyncio as redis

from assetcore.settings import Settings

AIPCTL = str(Path(sys.executable).with_name("aipctl"))
SECONDS = 90
"""For a command that hangs; those of a machine that has other things to do may take a minute."""


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit code, and what it wrote."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one JSON object that is all of stdout."""
        found = json.loads(self.out)
        assert isinstance(found, dict)
        return found


@dataclass(frozen=True)
class Command:
    """`aipctl` in a folder, with an environment."""

    root: Path
    variables: Mapping[str, str]

    def __call__(self, *arguments: str, **options: Any) -> Ended:
        """Run it to its end."""
        process = self.start(*arguments, **options)
        try:
            out, err = process.communicate(timeout=SECONDS)
        except subprocess.TimeoutExpired:
            end(process)
            raise
        return Ended(process.returncode, out, err)

    def start(
        self, *arguments: str, variables: Mapping[str, str] | None = None, **options: Any
    ) -> subprocess.Popen[str]:
        """Run it, without waiting; in a session of its own, so that a signal reaches nobody else."""
        return subprocess.Popen(
            [AIPCTL, *arguments],
            **{"cwd": self.root, "env": {**self.variables, "COLUMNS": "80", **(variables or {})}, "text": True, "stdin": subprocess.DEVNULL,
               "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "start_new_session": True, **options},
        )  # fmt: skip


def end(process: subprocess.Popen[str]) -> None:
    """Kill what is left of a command and its children."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=10)


def until(holds: Callable[[], Any], seconds: float = 120) -> Any:
    """Wait until something holds; what it then is. A machine that does other things, too, may take half a minute to begin a run."""
    give_up = time.monotonic() + seconds
    while not (found := holds()):
        if time.monotonic() > give_up:
            raise AssertionError(f"{holds} does not hold within {seconds} s")
        time.sleep(0.05)
    return found


async def lease_runs_out(settings: Settings) -> None:
    """Half a minute passes for the locks of a process that was killed: each has a lease, and now it is over."""
    client = redis.Redis.from_url(str(settings.redis_url))
    async for key in client.scan_iter("assetcore:run:*"):
        if not key.endswith(b":fence"):
            assert 0 < await client.pttl(key) <= 30_000
            await client.delete(key)
    await client.aclose()
