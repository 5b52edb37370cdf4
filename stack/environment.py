"""Environment: is the virtual environment what requirements.lock says? If not it is made so; then a command runs in it.

    environment.py COMMAND ...          the project's environment
    environment.py --lock LOCK VENV     an environment of its own for a server, at VENV, of what LOCK pins and nothing else

Needs nothing but the standard library. uv installs everything; where there is no uv, pip fetches the one of the lock file, by its
hash, into the home. The environment is `.venv`, or `venv` in ASSETCORE_HOME where the clone cannot be written to. A stamp in it
says what it was made from: a second call compares one digest. Any number of calls at once make it once.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements.lock"
MARK = "# Made by assetcore: the data of its embedded services. `make clean` removes it.\n*\n"  # as in assetcore/stack/home.py
INTERPRETER = Path(getattr(sys, "_base_executable", None) or sys.executable)


def main(command: list[str]) -> None:
    if command[:1] == ["--lock"]:
        make_for_server(Path(command[1]), Path(command[2]))
        return
    home, venv = places()
    if stamp(venv) != wanted():
        with locked(home):
            if stamp(venv) != wanted():
                make(home, venv)
    if command:
        run_in(venv, command)


def make_for_server(lock: Path, venv: Path) -> None:
    """Make or bring up to date the environment of a server whose packages do not go together with ours."""
    home = ROOT / Path(os.environ.get("ASSETCORE_HOME") or ".assetcore").expanduser()
    digest = hashlib.sha256(f"{venv}\n".encode("utf-8", "surrogateescape") + lock.read_bytes()).hexdigest()
    if stamp(venv) == digest:
        return
    with locked(home):
        if stamp(venv) == digest:
            return
        uv, environment = find_uv(home, venv), uv_environment(home)
        prepare(uv, environment, venv)
        install = [
            uv,
            "pip",
            "install",
            "--quiet",
            "--python",
            venv / "bin" / "python",
            "--no-deps",
            "--require-hashes",
        ]
        # Not compiled beforehand: a server compiles what it imports at its first start, which is a small part of all.
        run([*install, "--requirements", lock], environment, f"install {lock.name}")
        (venv / "assetcore.stamp").write_text(f"{digest} {running_version()}\n")


def places() -> tuple[Path, Path]:
    """The home for what is only needed on the way, and the environment."""
    given = os.environ.get("ASSETCORE_HOME")
    home = ROOT / Path(given).expanduser() if given else ROOT / ".assetcore"
    venv = ROOT / ".venv"
    if os.access(ROOT, os.W_OK) or stamp(venv) == wanted():
        return home, venv
    if given:
        return home, home / "venv"
    raise Failure(
        f"{ROOT} cannot be written to.",
        "Set ASSETCORE_HOME to a folder that you can write to; all that is made goes there.",
    )


def wanted() -> str:
    """A digest of all that determines the environment. A moved clone is made again: its path is in it."""
    digest = hashlib.sha256(f"{ROOT}\n".encode("utf-8", "surrogateescape"))
    for file in (LOCK, ROOT / "pyproject.toml", Path(__file__)):
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def stamp(venv: Path) -> str:
    """What the environment was made from; nothing when it is missing, unfinished, or its interpreter is gone."""
    try:
        made_from, version = (venv / "assetcore.stamp").read_text().split()
    except (OSError, ValueError):
        return ""
    other_python = os.environ.get("PYTHON") and version != running_version()
    return made_from if os.access(venv / "bin" / "python", os.X_OK) and not other_python else ""


def running_version() -> str:
    return "{}.{}".format(*sys.version_info)


def make(home: Path, venv: Path) -> None:
    for folder in (ROOT, venv):
        # PATH cannot name a folder with a colon, nor a .pth file one with a line break, and both are UTF-8.
        if odd := re.search(r"[:\n\r\ud800-\udfff]", str(folder)):
            raise Failure(
                f"No environment can be made for {str(folder)!r}: its name has {odd[0]!r} in it.",
                "Rename that folder, or clone into another one.",
            )
    say(f"making the environment {venv} with Python {running_version()} (once; later calls take no time)")
    uv, environment = find_uv(home, venv), uv_environment(home)
    prepare(uv, environment, venv)
    quiet = [] if sys.stderr.isatty() else ["--quiet"]
    install = [uv, "pip", "install", *quiet, "--python", venv / "bin" / "python"]
    lock = [*install, "--require-hashes", "--compile-bytecode", "--requirements", LOCK]
    run(lock, environment, "install requirements.lock")
    package = [
        *install,
        "--no-deps",
        "--no-build-isolation",
        "--offline",
        "--reinstall-package",
        "assetcore",
        "--editable",
        ".",  # where `run` is; a path is read as more than a path
    ]
    run(package, environment, "install assetcore")
    (venv / "assetcore.stamp").write_text(f"{wanted()} {running_version()}\n")


def prepare(uv: Path, environment: dict[str, str], venv: Path) -> None:
    """An environment without a stamp; one that cannot be used is made anew."""
    (venv / "assetcore.stamp").unlink(missing_ok=True)
    if usable(venv):
        return
    if venv.is_dir():
        shutil.rmtree(venv)
    command = [uv, "venv", "--quiet", "--no-project", "--python", INTERPRETER, venv]
    run(command, environment, "make a virtual environment")


def usable(venv: Path) -> bool:
    """Whether the packages can go into what is there: an environment of this Python, at this place."""
    try:
        version = re.search(r"^version(?:_info)? *= *(\d+\.\d+)", (venv / "pyvenv.cfg").read_text(), re.MULTILINE)
        placed = str(venv) in (venv / "bin" / "activate").read_text()
    except OSError:
        return False
    return (
        version is not None
        and version[1] == running_version()
        and placed
        and os.access(venv / "bin" / "python", os.X_OK)
    )


def find_uv(home: Path, venv: Path) -> Path:
    """uv on PATH (but not the one in the environment that it is to change), or one fetched earlier, or fetch it now."""
    path = os.pathsep.join(part for part in os.get_exec_path() if Path(part).resolve() != (venv / "bin").resolve())
    beside = Path(sys.executable).with_name("uv")  # where a server's environment is made out of the project's
    if beside.parent.resolve() == (venv / "bin").resolve():
        beside = None
    for candidate in (shutil.which("uv", path=path), beside, home / "bootstrap" / "bin" / "uv"):
        if candidate and works([candidate, "--version"]):
            return Path(candidate)
    requirement = re.search(r"^uv==.*(?:\n .*)*", LOCK.read_text(), re.MULTILINE)
    if requirement is None:
        raise Failure(f"{LOCK} does not pin uv.", "Run `make lock`.")
    folder = home / "bootstrap"
    folder.mkdir(exist_ok=True)
    (folder / "uv.lock").write_text(requirement[0] + "\n")
    arguments = ["install", "--quiet", "--disable-pip-version-check", "--no-input", "--target", folder, "--upgrade"]
    arguments += ["--only-binary", ":all:", "--no-deps", "--require-hashes", "--requirement", folder / "uv.lock"]
    environment = os.environ | {"PIP_USER": "0", "PIP_REQUIRE_VIRTUALENV": "0", "PIP_ROOT_USER_ACTION": "ignore"}
    run([*find_pip(folder), *arguments], environment, "install uv with pip")
    return folder / "bin" / "uv"


def find_pip(folder: Path) -> list[str | Path]:
    """A pip of this or another Python: Debian's has none, nor ensurepip, until python3-pip or python3-venv is installed."""
    for python in (INTERPRETER, "python3", "python3.13", "python3.12", "python3.11", "/usr/bin/python3"):
        if works([python, "-m", "pip", "--version"]):
            return [python, "-m", "pip"]
    if shutil.which("pip3") and works(["pip3", "--version"]):
        return ["pip3"]
    if works([INTERPRETER, "-m", "venv", "--clear", folder / "venv"]):
        return [folder / "venv" / "bin" / "python", "-m", "pip"]
    raise Failure(
        f"uv is needed to install the packages, and {INTERPRETER} has no pip to fetch it.",
        "Install one of them: `apt install python3-pip`, or `apt install python3-venv`, or uv from https://docs.astral.sh/uv",
    )


def uv_environment(home: Path) -> dict[str, str]:
    environment = os.environ | {"UV_PYTHON_DOWNLOADS": "never"}
    for variable in ("VIRTUAL_ENV", "CONDA_PREFIX", "PYTHONHOME", "PYTHONPATH"):
        environment.pop(variable, None)
    user = os.environ.get("HOME")
    if not {"UV_CACHE_DIR", "XDG_CACHE_HOME"} & environment.keys() and not (user and os.access(user, os.W_OK)):
        environment["UV_CACHE_DIR"] = str(home / "cache" / "uv")
    if has_certificates():
        environment.setdefault(
            "UV_SYSTEM_CERTS", "1"
        )  # as pip does: behind a proxy that is what the index can be trusted by
    return environment


def has_certificates() -> bool:
    """Whether this machine knows whom to trust; uv brings certificates of its own for one that does not."""
    import ssl  # only where something is to be installed

    paths = ssl.get_default_verify_paths()
    return bool(paths.cafile or (paths.capath and any(Path(paths.capath).iterdir())))


def run(command: list[str | Path], environment: dict[str, str], what: str) -> None:
    result = subprocess.run(
        [str(word) for word in command], env=environment, cwd=ROOT, stdin=subprocess.DEVNULL, check=False
    )
    if result.returncode != 0:
        name = Path(command[0]).name
        raise Failure(
            f"{name} could not {what}: see above.",
            "Is the package index reachable, and is there room on the disk? Then try again.",
        )


def works(command: list[str | Path]) -> bool:
    try:
        return (
            subprocess.run([str(word) for word in command], capture_output=True, cwd="/", check=False).returncode == 0
        )
    except OSError:
        return False


@contextmanager
def locked(home: Path) -> Iterator[None]:
    """Hold the home: of two calls at once in one clone, the second waits and finds the work done."""
    try:
        home.mkdir(parents=True, exist_ok=True, mode=0o711 if os.geteuid() == 0 else 0o700)
        if not any(home.iterdir()):
            (home / ".gitignore").write_text(MARK)
        file = os.open(home / "bootstrap.lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise Failure(
            f"{home} cannot be used: {error.strerror}.", "Set ASSETCORE_HOME to a folder that you can write to."
        ) from error
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another command that makes the environment")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
    finally:
        os.close(file)


def run_in(venv: Path, command: list[str]) -> NoReturn:
    environment = os.environ | {
        "VIRTUAL_ENV": str(venv),
        "PATH": f"{venv / 'bin'}{os.pathsep}{os.environ.get('PATH', '/usr/bin:/bin')}",
    }
    for variable in ("PYTHONHOME", "PYTHON"):
        environment.pop(variable, None)
    try:
        os.execvpe(command[0], command, environment)  # noqa: S606  the command takes the place of this process
    except OSError as error:
        raise Failure(
            f"{command[0]} cannot be run: {error.strerror}.", f"The programs of the project are in {venv / 'bin'}."
        ) from error


def say(text: str) -> None:
    sys.stderr.write(f"assetcore: {text}\n")


class Failure(Exception):
    """What could not be done, and what to do about it."""

    def __init__(self, sentence: str, hint: str) -> None:
        super().__init__(f"{sentence}\n  {hint}")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except Failure as failure:
        say(str(failure))
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    except OSError as error:
        say(
            f"the environment cannot be made: {error}.\n  Mend that and try again, or set ASSETCORE_HOME to another folder."
        )
        sys.exit(1)
