"""Gateway: how does the embedded LiteLLM proxy start, and does a gateway answer?

The proxy runs in an environment of its own, which is made from stack/gateway.lock. It listens on 127.0.0.1, asks for a generated key, and
reads `stack/litellm.yaml` beside projects/, or the one that comes with assetcore. Of the environment and of `.env` it is given the
keys of providers (`..._API_KEY`) and nothing else. It is started only where a model is asked, and again when its configuration has
changed.
"""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from dotenv import dotenv_values

from assetcore.digest import digest
from assetcore.models import config_file
from assetcore.settings import Settings
from assetcore.stack import packages
from assetcore.stack.home import Home, Service
from assetcore.stack.process import born, end, free_port, launch, runs_with
from assetcore.stack.trouble import Trouble, connection_trouble

SETTING = "openai_base_url"
CLIENT = "httpx"
START_SECONDS = 240.0
KEYS = "_API_KEY"
OFFLINE = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # prices as they were when it was released, rather than from the network
    "LITELLM_TELEMETRY": "False",
    "HF_HUB_OFFLINE": "1",
    "LITELLM_LOG": "WARNING",
    "DO_NOT_TRACK": "1",
}


def prepare(settings: Settings, home: Home) -> None:
    """Write what the gateway is to be started with, where that has changed."""
    folder = _folder(home)
    given = (
        {**dotenv_values(settings.root / ".env"), **os.environ} if (settings.root / ".env").is_file() else os.environ
    )
    keys = json.dumps({name: value for name, value in sorted(given.items()) if name.endswith(KEYS) and value})
    wanted = {
        "litellm.yaml": config_file(settings.root).read_bytes(),
        "local_models.py": (packages.bootstrap() / "stack" / "local_models.py").read_bytes(),
        "keys.json": keys.encode(),
    }
    with home.writing():
        folder.mkdir(parents=True, mode=0o700, exist_ok=True)
        for name, content in wanted.items():
            file = folder / name
            if not file.is_file() or file.read_bytes() != content:
                file.touch(mode=0o600)
                file.write_bytes(content)


def install(home: Home) -> Path:
    """The folder of the gateway's environment, which is made or brought up to date first; it has a lock of its own."""
    otherwise = "Set OPENAI_BASE_URL and OPENAI_API_KEY to a LiteLLM gateway that runs."
    venv = _folder(home) / "venv"
    packages.environment(home, venv, "gateway.lock", "gateway: the environment of LiteLLM", otherwise)
    return venv


def outdated(home: Home, service: Service) -> bool:
    """Whether it was started with another configuration."""
    return service.folder != _configuration(_folder(home))


def settings_for(home: Home, service: Service) -> dict[str, str]:
    """The settings with which the gateway is used."""
    return {SETTING: f"http://127.0.0.1:{service.port}/v1", "openai_api_key": home.secret("gateway")}


def start(home: Home, remembered: Service) -> Service:
    """Make the gateway's environment if it is not there, and start the gateway."""
    folder = _folder(home)
    pid_file = folder / "gateway.pid"
    if (running := found(home)) is not None:
        stop(home, running)
    venv = install(home)
    port = free_port(remembered.port)
    variables = {"PATH": os.defpath, "HOME": str(folder), "LITELLM_MASTER_KEY": home.secret("gateway"), **OFFLINE}
    variables |= {
        name: value for name, value in os.environ.items() if name.upper().endswith("_PROXY") or name == "SSL_CERT_FILE"
    }
    variables |= json.loads((folder / "keys.json").read_text())
    command = [
        venv / "bin" / "litellm",
        "--config",
        folder / "litellm.yaml",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    pid, birth = launch("gateway", command, home, cwd=folder, env=variables)
    with home.writing():
        pid_file.write_text(str(pid))
    return Service(port=port, pid=pid, born=birth, folder=_configuration(folder))


def found(home: Home) -> Service | None:
    """The gateway that runs, also where its record was lost: its pid file speaks of it."""
    try:
        pid = int((_folder(home) / "gateway.pid").read_text())
    except (OSError, ValueError):
        return None
    return Service(pid=pid, born=born(pid)) if runs_with(pid, str(_folder(home) / "venv")) else None


def stop(home: Home, service: Service) -> None:
    end(service, signal.SIGTERM, seconds=5)


def reset_password(home: Home, service: Service) -> Service:
    """The key is in the environment of the process, which each start makes anew."""
    stop(home, service)
    return start(home, service)


def address(home: Home, service: Service) -> str:
    return with_key(f"http://127.0.0.1:{service.port}/v1", home.secret("gateway"))


def with_key(url: str, key: str | None) -> str:
    """The address with its key where others have a password: that is how `probe` is told both."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=f":{key}@{parts.netloc.rpartition('@')[2]}")) if key else url


async def probe(url: str) -> str:
    """Ask for the models, which takes the key, and for no answer of any. Raises Trouble."""
    import httpx  # 0.1 s, and only needed when a gateway was just started, or is checked

    parts = urlsplit(url)
    bare = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
    headers = {"Authorization": f"Bearer {parts.password}"} if parts.password else {}
    try:
        async with httpx.AsyncClient(timeout=10, trust_env=False) as client:
            answer = await client.get(f"{bare}/models", headers=headers)
    except httpx.HTTPError as error:
        raise connection_trouble(error, SETTING) from error
    if answer.status_code in (401, 403):
        raise Trouble("password", "it refuses the key", "Correct OPENAI_API_KEY.")
    if not answer.is_success:
        raise Trouble("other", f"it answers {answer.status_code}", "See its log, or correct OPENAI_BASE_URL.")
    version = answer.headers.get("x-litellm-version")
    return f"LiteLLM {version}" if version else "OpenAI API"


def _configuration(folder: Path) -> str:
    try:
        parts = [(folder / name).read_bytes() for name in ("litellm.yaml", "local_models.py", "keys.json")]
    except OSError:
        return ""
    return digest("gateway", *parts).hex()


def _folder(home: Home) -> Path:
    return home.path / "gateway"
