"""Prefect: how does the embedded server start, and does a Prefect API answer?

One server on SQLite, with a PREFECT_HOME below our home: the user's own profiles and settings neither change it nor are changed.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import psutil

from assetcore.settings import Settings
from assetcore.stack.home import Home, Service
from assetcore.stack.process import born, end, free_port, launch
from assetcore.stack.trouble import Trouble, connection_trouble
from assetcore.telemetry import LOGS

SETTING = "prefect_api_url"
CLIENT = "httpx"
START_SECONDS = 180.0
NOT_OURS = (
    "PREFECT_",
    "COVERAGE_",
)  # the user's Prefect settings; and a server under coverage measures nothing, slowly
SERVER = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    "PREFECT_SERVER_LOGGING_LEVEL": "WARNING",
    "DO_NOT_TRACK": "1",
    # Task runs are recorded in batches: 1,000 of them took 25 s to be stored one by one, 0.7 s so.
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "100",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_READ_BATCH_SIZE": "100",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
}
DATABASE = "sqlite+aiosqlite:///prefect.db"
"""In the folder where the server starts: in an address, what is % or ? in the name of a folder means something else."""
CLIENT_ENVIRONMENT = {
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",  # its log goes to its server; the terminal is for our progress
    "PREFECT_LOGGING_INTERNAL_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_EXTRA_LOGGERS": LOGS,  # what is logged in a run is shown with its flow run, too
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",  # and after it, with none: who could not be told of a failure, say
    "DO_NOT_TRACK": "1",
}
CERTIFICATE = "prefect/certificate.pem"
"""One certificate of all that there are. Prefect makes five clients a run, and each reads whom it could trust, 20 ms long, for an address
that needs none: our server is reached without TLS."""
NOT_ASKED = {
    "PREFECT_CLIENT_CSRF_SUPPORT_ENABLED": "false",
    "PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED": "false",
}
"""What need not be asked of the server that was started for this home: a tenth of all questions."""


def client_environment(settings: Settings) -> dict[str, str]:
    """What Prefect, as a client, is to find in its environment unless the user has said otherwise; it reads it when it is imported."""
    # The user's own profile is not ours.
    found = CLIENT_ENVIRONMENT | {"PREFECT_HOME": str(settings.home / "prefect-client")}
    if settings.prefect_api_url is None:
        found |= NOT_ASKED
        if (certificate := settings.home / CERTIFICATE).exists():
            found["PREFECT_API_SSL_CERT_FILE"] = str(certificate)
    return found


def start(home: Home, remembered: Service) -> Service:
    """Start the server; it answers some seconds later."""
    folder = home.path / "prefect"
    pid_file = folder / "server.pid"
    with home.writing():
        folder.mkdir(mode=0o700, exist_ok=True)
        (home.path / CERTIFICATE).write_text(_one_certificate())
    if (running := found(home)) is not None:
        stop(home, running)
    port = free_port(remembered.port)
    environment = {key: value for key, value in os.environ.items() if not key.startswith(NOT_OURS)}
    environment |= SERVER | {
        "PREFECT_HOME": str(folder),
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": DATABASE,
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_UI_STATIC_DIRECTORY": str(folder / "ui"),
    }
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    pid, birth = launch("prefect", command, home, cwd=folder, env=environment)
    with home.writing():
        pid_file.write_text(str(pid))
    return Service(port=port, pid=pid, born=birth)


def _one_certificate() -> str:
    import certifi  # where Prefect's clients read all of them

    every = Path(certifi.where()).read_text()
    return every[every.index("-----BEGIN") :].partition("\n\n")[0] + "\n"


def found(home: Home) -> Service | None:
    """The server that runs, also where its record was lost: its pid file speaks of it."""
    folder = home.path / "prefect"
    try:
        pid = int((folder / "server.pid").read_text())
        return Service(pid=pid, born=born(pid)) if Path(psutil.Process(pid).cwd()) == folder else None
    except (OSError, ValueError, psutil.Error):
        return None


def stop(home: Home, service: Service) -> None:
    end(service, signal.SIGTERM)


def reset_password(home: Home, service: Service) -> Service:
    """There is no password: nothing to reset."""
    return service


def address(home: Home, service: Service) -> str:
    return f"http://127.0.0.1:{service.port}/api"


async def probe(url: str) -> str:
    """The server's version. Raises Trouble."""
    import httpx  # 0.1 s, and only needed when a service was just started, or is checked

    try:
        async with httpx.AsyncClient(timeout=5, trust_env=not url.startswith("http://127.0.0.1:")) as client:
            (await client.get(f"{url}/health")).raise_for_status()
            answer = await client.get(f"{url}/admin/version")
            version = answer.raise_for_status().json()
    except httpx.HTTPStatusError as error:
        status = error.response.status_code
        if status in {401, 403}:
            raise Trouble(
                "password", f"it refuses access ({status})", "Set PREFECT_API_AUTH_STRING or PREFECT_API_KEY."
            ) from error
        raise Trouble(
            "other", f"it answers {status} to {error.request.url.path}", f"Correct {SETTING}: it ends in /api."
        ) from error
    except ValueError as error:
        raise Trouble("other", "its answer is not Prefect's", f"Correct {SETTING}: it ends in /api.") from error
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        raise connection_trouble(error, SETTING) from error
    return f"Prefect {version}"
