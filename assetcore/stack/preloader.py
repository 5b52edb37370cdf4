"""Preloader: how is the process started that commands are forked of, and does it answer?

Not one of the servers: it has no address that settings could give instead, and nothing waits for it.
"""

from __future__ import annotations

import os
import signal
import stat
import sys
import time
from contextlib import suppress
from pathlib import Path

from assetcore import preload
from assetcore.settings import Settings
from assetcore.stack.home import Home, Service
from assetcore.stack.prefect import client_environment
from assetcore.stack.process import alive, born, launch

NAME = "preloader"
START_SECONDS = 20.0


def wanted(settings: Settings) -> bool:
    """Whether this home is to have one: it has services of ours, and commands are those of Linux."""
    return settings.preload and settings.database_url is None and sys.platform == "linux"


def in_its_way(home: Home) -> Path | None:
    """What is in the place of its socket, if that is something else."""
    try:
        mode = socket(home).stat().st_mode
    except OSError:
        return None
    return None if stat.S_ISSOCK(mode) else socket(home)


def start(home: Home, settings: Settings) -> Service:
    """Start it. It takes commands when it has imported everything, a second or two later."""
    code = "import sys; from assetcore.preload import serve; serve(*sys.argv[1:])"
    command = [sys.executable, "-c", code, socket(home), preload.digest()]
    environment = preload.MEMORY | client_environment(settings) | os.environ
    pid, birth = launch(NAME, command, home, cwd=home.path, env=environment)
    return Service(pid=pid, born=birth, ready=True)


def socket(home: Home) -> Path:
    return home.path / preload.SOCKET


def listens(home: Home) -> bool:
    """Whether it has imported everything, and takes commands."""
    return socket(home).is_socket()


def found(home: Home) -> Service | None:
    """The one that takes commands, also where its record was lost."""
    pid = preload.listener(str(socket(home))) if listens(home) else None
    return Service(pid=pid, born=born(pid), ready=True) if pid else None


def settle(home: Home, service: Service) -> None:
    """Wait until it takes commands, or has ended."""
    give_up = time.monotonic() + START_SECONDS
    while alive(service) and not listens(home) and time.monotonic() < give_up:
        time.sleep(0.02)


def stop(home: Home, service: Service) -> None:
    """Stop it; commands that it was forked into go on."""
    if alive(service):
        with suppress(ProcessLookupError):
            os.kill(service.pid, signal.SIGTERM)
    if listens(home):
        socket(home).unlink(missing_ok=True)
