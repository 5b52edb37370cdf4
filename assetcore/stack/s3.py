"""S3: how does the embedded S3 server start, and does it answer?

The server is ministack, guarded by stack/s3_server.py, in an environment of its own that stack/environment.py makes from stack/s3.lock.
It listens on 127.0.0.1, asks for a generated key, and keeps objects as files that survive kill -9. It is started only where it was
chosen, by `aipctl up --s3` or the setting `s3`; the store is a folder otherwise.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from urllib.parse import urlsplit

from assetcore.errors import ServiceError, UsageError
from assetcore.settings import Settings
from assetcore.stack import packages
from assetcore.stack.home import Home, Service
from assetcore.stack.process import born, end, free_port, launch, runs_with
from assetcore.stack.trouble import Trouble, connection_trouble

SETTING = "storage_url"
CLIENT = "s3fs"
START_SECONDS = 30.0
URL = "s3://assetcore"
REGION = "us-east-1"


def chosen(settings: Settings, home: Home) -> bool:
    """Whether the store is this server: by the setting `s3`, or because it was before.

    Raises UsageError when the choice would leave behind what is in the other store: lineage points there.
    """
    if settings.was_given(SETTING):
        return False
    was = (_folder(home) / "chosen").exists()
    if settings.s3 is None or settings.s3 == was:
        return was
    left, kind = (_folder(home) / "objects", "an S3 server") if was else (home.path / "store", "a folder")
    if any(file.is_file() for file in left.rglob("*")):
        raise UsageError(
            f"The store of {home.path} is {kind}, and has documents in it, to which lineage points.",
            hint="Leave the setting s3 out to go on with it, or begin anew in another ASSETCORE_HOME, or after: aipctl clean",
        )
    return settings.s3


def settings_for(home: Home, service: Service) -> dict[str, str]:
    """The settings with which the server is used."""
    key = home.secret("store")
    endpoint = f"http://127.0.0.1:{service.port}"
    return {
        "storage_url": URL,
        "storage_endpoint": endpoint,
        "storage_region": REGION,
        "storage_key": key,
        "storage_secret": key,
    }


def start(home: Home, remembered: Service) -> Service:
    """Make the server's environment if it is not there, and start the server."""
    folder = _folder(home)
    pid_file = folder / "server.pid"
    with home.writing():
        for needed in (folder, folder / "objects", folder / "state", folder / "temporary"):
            needed.mkdir(mode=0o700, exist_ok=True)
        if (running := found(home)) is not None:
            stop(home, running)  # two servers must not work on the same files; this one's port and key are unknown
    otherwise = "Without it the store is a folder: leave out --s3 and the setting s3."
    what = "store: the environment of the S3 server"
    python = packages.environment(home, folder / "venv", "s3.lock", what, otherwise)
    with home.writing():
        (folder / "chosen").touch()
    port = free_port(remembered.port)
    environment = {
        "PATH": os.defpath,
        "LC_ALL": "C",
        "TMPDIR": str(folder / "temporary"),
        "S3_ACCESS_KEY": home.secret("store"),
        "GATEWAY_PORT": str(port),
        "SERVICES": "s3",
        "S3_PERSIST": "1",
        "S3_DATA_DIR": str(folder / "objects"),
        "PERSIST_STATE": "1",
        "STATE_DIR": str(folder / "state"),
        "LOG_LEVEL": "WARNING",
    }
    command = [python, packages.bootstrap() / "stack" / "s3_server.py"]
    with home.holding("store") as held:
        pid, birth = launch("store", command, home, cwd=folder, env=environment, held=held)
    with home.writing():
        pid_file.write_text(str(pid))
    return Service(port=port, pid=pid, born=birth)


def found(home: Home) -> Service | None:
    """The server that runs, also where its record was lost: its pid file speaks of it."""
    try:
        pid = int((_folder(home) / "server.pid").read_text())
    except (OSError, ValueError):
        return None
    return Service(pid=pid, born=born(pid)) if runs_with(pid, str(_folder(home) / "venv")) else None


def stop(home: Home, service: Service) -> None:
    end(service, signal.SIGTERM)


def reset_password(home: Home, service: Service) -> Service:
    """The key is in the environment of the process, which each start makes anew."""
    stop(home, service)
    return start(home, service)


def address(home: Home, service: Service) -> str:
    return f"http://{home.secret('store')}@127.0.0.1:{service.port}"


async def probe(url: str) -> str:
    """Ask for the bucket of the store, which is created when it is not there. Raises Trouble."""
    from assetcore.storage import Bucket  # 0.3 s with pyarrow, and only needed when the server was just started

    parts = urlsplit(url)
    options = {"key": parts.username, "secret": parts.username, "endpoint_url": f"http://127.0.0.1:{parts.port}"}
    bucket = Bucket.open(URL, options | {"client_kwargs": {"region_name": REGION}})
    try:
        await bucket.ensure()
    except ServiceError as error:
        if isinstance(error.__cause__, PermissionError):
            raise Trouble("password", "it refuses the key", "aipctl down && aipctl up") from error
        raise connection_trouble(error, SETTING) from error
    finally:
        await bucket.close()
    return "S3"


def _folder(home: Home) -> Path:
    return home.path / "s3"
