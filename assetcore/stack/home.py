"""Home: what does the folder of the embedded services remember?

.gitignore      hides the folder from git, and says that we made it
lock            held while services are started or stopped: one set per home, however many commands run
services.json   port, process and readiness of each service, and which folder that was said of
secrets.json    generated passwords, for the owner only
held/           a file for each service that must not be there twice, locked by its process for as long as that lives
logs/           what each service prints
postgres/ redis/ prefect/ store/     the data
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import json
import os
import pwd
import secrets
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from assetcore.errors import ServiceError

LOCK_SECONDS = 180
HELD_SECONDS = 10
"""So long may what is left of a process that was killed still end."""
_ONE_WRITER = threading.Lock()  # services start side by side in threads; between processes it is the file `lock`
MARK = "# Made by assetcore: the data of its embedded services. `make clean` removes it.\n*\n"


@dataclass(frozen=True, slots=True)
class Service:
    """What is remembered of one service; `pid` is 0 when it was stopped, and the port is kept for the next time.

    `born` tells the process from any other that has, or will have, the same number (see `process.born`).
    """

    port: int = 0
    pid: int = 0
    born: str = ""
    ready: bool = False
    folder: str = ""

    def stopped(self) -> Service:
        return replace(self, pid=0, born="", ready=False)


@dataclass(frozen=True, slots=True)
class Home:
    """The folder, with its rules about who may read what."""

    path: Path

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    def log(self, name: str) -> Path:
        return self.logs / f"{name}.log"

    def prepare(self) -> None:
        """Make the folder. As root others may pass through it (not read it): Postgres refuses to run as root."""
        with self.writing():
            if not self.path.exists():
                self.path.mkdir(parents=True, mode=0o711 if os.geteuid() == 0 else 0o700)
            if not any(self.path.iterdir()):
                (self.path / ".gitignore").write_text(MARK, "utf-8")
            for folder in (self.logs, self.path / "store", self.path / "held"):
                folder.mkdir(mode=0o700, exist_ok=True)

    def made_by_us(self) -> bool:
        try:
            return (self.path / ".gitignore").read_text("utf-8").startswith(MARK.partition(":")[0])
        except OSError:
            return False

    def services(self) -> dict[str, Service]:
        """What is remembered; nothing when the file is missing or was cut off by a power failure. In a copy of a home, none of them runs:
        what was remembered is the original's."""
        content = self._read("services.json")
        marks = self._marks() if content else []
        return {name: _service(fields, marks) for name, fields in content.items() if isinstance(fields, dict)}

    def remember(self, name: str, service: Service) -> Service:
        with _ONE_WRITER:
            services = self.services() | {name: service}
            marks = {"of": self._marks()}
            self._write("services.json", {key: asdict(value) | marks for key, value in services.items()})
        return service

    def secret(self, name: str) -> str:
        """The password of a service, generated at the first call."""
        with _ONE_WRITER:
            known = self._read("secrets.json")
            if not isinstance(password := known.get(name), str):
                password = secrets.token_urlsafe(24)
                self._write("secrets.json", known | {name: password})
        return password

    def has_secret(self, name: str) -> bool:
        return isinstance(self._read("secrets.json").get(name), str)

    @asynccontextmanager
    async def lock(self, on_wait: Callable[[], None] | None = None) -> AsyncIterator[None]:
        """Hold the home; another command that starts or stops services is waited for."""
        with self.writing():
            file = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            deadline = time.monotonic() + LOCK_SECONDS
            waited = False
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if not waited and on_wait:
                        on_wait()
                    waited = True
                if time.monotonic() > deadline:
                    raise ServiceError(
                        f"Another command has been starting or stopping the services in {self.path} for {LOCK_SECONDS} s.",
                        hint="See which one with `ps`, end it, and try again.",
                    )
                await asyncio.sleep(0.02)
            yield
        finally:
            os.close(file)

    @contextmanager
    def holding(self, name: str) -> Iterator[int]:
        """A file, locked by whoever has it open, which a service inherits: two must not work on the same data.

        It tells what numbers of processes cannot: a container, or another machine, does not see those of the service. Raises ServiceError.
        """
        with self.writing():
            file = os.open(self.path / "held" / name, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            give_up = time.monotonic() + HELD_SECONDS
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > give_up:
                        raise ServiceError(
                            f"{name} of {self.path} runs already, for a container or a machine whose processes are not seen from here.",
                            hint="Stop it there (aipctl down), or set ASSETCORE_HOME to another folder.",
                        ) from None
                time.sleep(0.02)
            yield file
        finally:
            os.close(file)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Say in a sentence what the file system refused."""
        try:
            yield
        except OSError as error:
            raise unusable(self.path, error) from error

    def _marks(self) -> list[str]:
        """What tells this folder from a copy of it: its path, and what it keeps where it is moved."""
        folder = self.path.stat()
        return [os.path.realpath(self.path), f"{folder.st_dev}:{folder.st_ino}"]

    def _read(self, name: str) -> dict[str, Any]:
        try:
            content = json.loads((self.path / name).read_text("utf-8"))
        except FileNotFoundError:
            return {}
        except PermissionError as error:
            raise unusable(self.path, error) from error
        except (OSError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}

    def _write(self, name: str, content: dict[str, Any]) -> None:
        with self.writing():
            new = self.path / f"{name}.{os.getpid()}.new"
            with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
                json.dump(content, file, indent=1)
                file.flush()
                os.fsync(file.fileno())
            os.replace(new, self.path / name)


def _service(fields: Mapping[str, Any], marks: Sequence[str]) -> Service:
    """A service as it is remembered; of one that was said of another home, only the port that it may have here, too."""
    of = fields.get("of")
    if isinstance(of, list) and not any(said == mark for said, mark in zip(of, marks, strict=False)):
        return Service(port=fields.get("port", 0))
    return Service(**{field: value for field, value in fields.items() if field in Service.__slots__})


def unusable(path: Path, error: OSError) -> ServiceError:
    """The sentence for a folder that cannot be used."""
    elsewhere = "Set ASSETCORE_HOME to a folder that you can write to."
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT:
            return ServiceError(
                f"The embedded services have no space left in {path}.", hint=f"Make room there. {elsewhere}"
            )
        case errno.EACCES | errno.EPERM | errno.EROFS:
            return ServiceError(
                f"The embedded services may not use {error.filename or path}: {error.strerror}{_owner(path)}.",
                hint=elsewhere,
            )
        case _:
            return ServiceError(f"The embedded services cannot use {path}: {error}.", hint=elsewhere)


def _owner(path: Path) -> str:
    for folder in (path, *path.parents):
        try:
            owner = folder.stat().st_uid
        except OSError:
            continue
        return (
            f" ({folder} belongs to user {_name(owner)}, you are {_name(os.geteuid())})"
            if owner != os.geteuid()
            else ""
        )
    return ""


def _name(uid: int) -> str:
    try:
        return f"'{pwd.getpwuid(uid).pw_name}'"
    except KeyError:
        return str(uid)
