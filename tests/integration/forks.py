"""The command in processes that start at once, because they are forked, and that die at a chosen moment.

A fork server has imported what the command needs, and runs nothing itself. Each process that it forks counts what it does to the
outer world: a statement or a commit to Postgres, a file that is written, linked or removed. It can be told to kill itself, as `kill -9`
does, before the n-th of these: so every moment of a run can be reached, also those that last a thousandth of a second.
"""

from __future__ import annotations

import importlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, NoReturn

import asyncpg
import sqlalchemy as sa

from assetcore.cli import main
from tests.integration.command import SECONDS, Ended, until

HEAVY = ("assetcore.session", "assetcore.catalog", "assetcore.cli.show", "assetcore.cli.ask", "assetcore.cli.make",
         "assetcore.cli.trust", "assetcore.cli.views", "assetcore.cache", "assetcore.stack", "asyncpg", "polars", "pandas",
         "pyarrow.parquet", "rich.console", "rich.table", "rich.tree")  # fmt: skip


@dataclass(frozen=True)
class Started:
    """A process: where it writes, and how it ended, when it has."""

    folder: Path

    @property
    def ended(self) -> Ended | None:
        """None while it runs."""
        code = _read(self.folder / "code")
        return Ended(int(code), _read(self.folder / "out"), _read(self.folder / "err")) if code else None

    @property
    def done(self) -> int:
        """What it had done to the outer world when it ended by itself."""
        return int(_read(self.folder / "done"))

    @property
    def pid(self) -> int:
        return int(until(lambda: _read(self.folder / "pid")))

    def wait(self, seconds: float = SECONDS) -> Ended:
        return until(lambda: self.ended, seconds)


@dataclass(frozen=True)
class Forks:
    """A fork server: called like `Command`, in a folder, with an environment."""

    process: subprocess.Popen[str]
    folder: Path
    numbers: Iterator[int]

    def start(self, root: Path, variables: Mapping[str, str], *arguments: str, dies_at: int | None = None) -> Started:
        """Run the command; it dies before the `dies_at`-th thing that it does to the outer world."""
        started = Started(self.folder / str(next(self.numbers)))
        started.folder.mkdir()
        asked = {
            "root": str(root),
            "variables": dict(variables),
            "arguments": arguments,
            "dies_at": dies_at,
            "folder": str(started.folder),
        }
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(asked) + "\n")
        self.process.stdin.flush()
        return started


def _read(file: Path) -> str:
    return file.read_text() if file.exists() else ""


@contextmanager
def fork_server() -> Iterator[Forks]:
    """A fork server; what it forked ends with it."""
    with tempfile.TemporaryDirectory(prefix="assetcore-forks-") as folder:
        command = [sys.executable, "-m", "tests.integration.forks"]
        repository = Path(__file__).parents[2]
        process = subprocess.Popen(command, cwd=repository, stdin=subprocess.PIPE, text=True, start_new_session=True)
        try:
            yield Forks(process, Path(folder), count())
        finally:
            assert process.stdin is not None
            process.stdin.close()
            process.wait(timeout=10)


# -- the server ----------------------------------------------------------------------------------------------------------------


def serve() -> None:
    """Fork for each line that is read; write down how each of them ended."""
    for module in HEAVY:
        importlib.import_module(module)
    running: dict[int, Path] = {}
    waiting, open_ = b"", True
    while open_:
        if select.select([0], [], [], 0.01)[0]:
            read = os.read(0, 1 << 20)
            open_ = bool(read)
            *whole, waiting = (waiting + read).split(b"\n")
            for line in whole:
                asked = json.loads(line)
                pid = os.fork()
                if pid == 0:
                    _run(**asked)
                running[pid] = Path(asked["folder"])
                _write(running[pid] / "pid", pid)
        for pid in list(running):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                _write(running.pop(pid) / "code", os.waitstatus_to_exitcode(status))
    for pid in running:
        os.killpg(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _run(root: str, variables: dict[str, str], arguments: list[str], dies_at: int | None, folder: str) -> NoReturn:
    """What a forked process does: the command, as if it had been started."""
    os.setsid()
    os.chdir(root)
    os.environ.clear()
    os.environ.update({**variables, "COLUMNS": "80"})
    for descriptor, name in ((0, os.devnull), (1, f"{folder}/out"), (2, f"{folder}/err")):
        opened = os.open(name, os.O_RDWR | os.O_CREAT)
        os.dup2(opened, descriptor)
        os.close(opened)
    sys.stdin, sys.stdout, sys.stderr = (os.fdopen(n, mode) for n, mode in ((0, "r"), (1, "w"), (2, "w")))
    sys.argv = ["aipctl", *arguments]
    done = _count(dies_at)
    code: Any = 1
    try:
        main(arguments)
    except SystemExit as end:
        code = end.code
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        _write(Path(folder) / "done", len(done))
        os._exit(code or 0)


def _count(dies_at: int | None) -> list[str]:
    """Have this process count what it does to the outer world, and die before the `dies_at`-th; returns what it has done."""
    done: list[str] = []

    def step(what: str) -> None:
        if len(done) + 1 == dies_at:
            os.kill(os.getpid(), signal.SIGKILL)
        done.append(what)

    for name in ("link", "unlink", "fsync", "replace"):
        setattr(os, name, _after(step, name, getattr(os, name)))
    connection = asyncpg.Connection
    connection.copy_records_to_table = _after(step, "copy", connection.copy_records_to_table)  # type: ignore[method-assign]  # COPY counts, too
    for event in ("before_cursor_execute", "commit"):
        sa.event.listen(sa.Engine, event, lambda *_, event=event: step(event))
    return done


def _after(step: Callable[[str], None], name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def counted(*arguments: Any, **options: Any) -> Any:
        step(name)
        return function(*arguments, **options)

    return counted


def _write(file: Path, number: int) -> None:
    """Whoever reads the file finds it whole."""
    file.with_suffix(".new").write_text(str(number))
    file.with_suffix(".new").rename(file)


if __name__ == "__main__":
    serve()
