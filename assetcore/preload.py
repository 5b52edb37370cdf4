"""Preload: how does a command begin with all that it imports already there?

Importing Prefect, polars, SQLAlchemy and Arrow takes longer than most of what a command then does. So one process of a home, the
preloader, has imported them, and does nothing else: `aipctl` hands it its arguments, folder, environment and open files, and a fork
of that process becomes the command. Nothing of a project, a database or a command is ever in the preloader, and what a fork finds
imported is what it would have imported: it is refused where files of assetcore or installed packages have changed since, where
variables differ that Python or Prefect read when they are imported, or the limits of the process. A command that is refused, or
finds no preloader, imports for itself.

The two are one to whoever calls: signals reach the fork, its exit code is the command's, and it ends with SIGKILL where the command
does. This module imports next to nothing: it is what `aipctl` begins with. Linux only: elsewhere a process cannot be forked once
system libraries are loaded, or cannot hand over its files.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import socket

__all__ = ["SOCKET", "digest", "is_fork", "listener", "main", "serve", "surroundings"]

SOCKET = "preloader"
"""The socket's name in the home."""
WITHOUT = frozenset({"up", "down", "clean", "check", "init", "new", "completion", "config", "deploy", "db", "blocks"})
"""Verbs that look after the services themselves, or import little."""
READ_AT_IMPORT = (
    *(f"PYTHON{letter}" for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"), "PYTHON_GIL", "PYTHON_JIT", "PYTHON_CPU_COUNT", "PREFECT_",
    "LC_", "LANG", "LD_", "TZ", "SSL_", "POLARS_", "RAYON_", "OMP_", "ARROW_", "MALLOC_", "_RJEM_", "OTEL_",
)  # fmt: skip
IMPORTED = (
    "assetcore.cli.ask", "assetcore.cli.make", "assetcore.cli.show", "assetcore.cli.progress", "assetcore.declarations",
    "assetcore.session", "assetcore.cache", "assetcore.runners.processes", "assetcore.flow", "asyncpg", "pyarrow.parquet",
    "pyarrow.compute", "prefect.flow_engine", "prefect.task_engine", "prefect.utilities.visualization",
    "anyio._backends._asyncio", "cryptography.hazmat.primitives.ciphers.aead",
)  # fmt: skip
"""What most commands import sooner or later, the last ones at the moment when they are used: Prefect's engine, for instance."""
READY, GO = b"?", b"!"
"""What the preloader says before it is given anything, and what a fork hears before it begins."""
MEMORY = {
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    "_RJEM_MALLOC_CONF": "dirty_decay_ms:0,muzzy_decay_ms:0,background_thread:false",
}
"""Arrow's own allocator keeps what it had, and that of polars gives it back later, in threads of its own, unless they are imported so."""
LOOK_SECONDS = 60.0
"""So often the preloader looks whether its home is still there."""
READY_SECONDS = 1.0
"""A preloader that does not take a connection by then is stopped, or the machine is: files that it were given would stay open in it."""
ANSWER_SECONDS = 5.0
LOST = 137

_begun: ContextVar[list[Any] | None] = ContextVar("begun", default=None)
"""The surroundings in which this command was begun."""
_forked: ContextVar[bool] = ContextVar("forked", default=False)


def main() -> None:
    """What `aipctl` is: a fork of the preloader where there is one for it, or else this process."""
    words, options = sys.argv[1:], sys.orig_argv[1:2]
    plain = not options or not options[0].startswith("-") or options == ["-m"]
    plain = plain and "_AIPCTL_COMPLETE" not in os.environ and None not in (sys.stdin, sys.stdout, sys.stderr)
    if plain and sys.platform == "linux":
        _begun.set(surroundings(os.environ))
        named = bool(words) and not words[0].startswith("-") and words[0] not in WITHOUT
        if named and not {"--help", "--root"}.intersection(words) and (fork := _handed_over()):
            sys.exit(_ended(*fork))
    ended: list[int] = []
    atexit.register(_leave, ended)
    _command(ended)


def _command(ended: list[int]) -> None:
    """The command in this process, and the exit code that it ends with."""
    try:
        importlib.import_module("assetcore.cli").main()
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            ended.append(end.code or 0)
        raise


def _leave(ended: Sequence[int]) -> None:
    """End now: what is registered before all that is imported runs after all that it has registered. Taking down so many modules one by
    one would take longer than many a command.
    """
    # Where nobody reads what is left to say, Python has its own words for it.
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sys.stdout.flush()
        sys.stderr.flush()
        for code in ended:
            os._exit(code)


def is_fork() -> bool:
    """Whether this process is a fork of a preloader: what it has imported was imported in another folder, some time ago."""
    return _forked.get()


def code_stamp() -> list[Any]:
    """What is imported, and by whom: the Python, when its packages were last installed, and each file of assetcore."""
    files: list[list[Any]] = []
    folders = [os.path.dirname(__file__)]
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.name.endswith(".py"):
                    files.append([entry.path, entry.stat().st_mtime_ns])
                elif entry.is_dir() and entry.name != "__pycache__":
                    folders.append(entry.path)
    installed = [[p, os.stat(p).st_mtime_ns] for p in sys.path if p.endswith("-packages") and os.path.isdir(p)]
    return [sys.executable, sys.version, sorted(files), sorted(installed)]


def surroundings(environment: Mapping[str, str]) -> list[Any]:
    """What a process is not given any more after its imports: variables that they read, who it is, its limits and its namespaces."""
    import resource  # for this only

    kinds = sorted(name for name in dir(resource) if name.startswith("RLIMIT_"))
    limits = [resource.getrlimit(getattr(resource, name)) for name in kinds]
    spaces = [os.readlink(f"/proc/self/ns/{name}") for name in ("mnt", "net", "pid", "user")]
    variables = sorted([name, value] for name, value in environment.items() if name.startswith(READ_AT_IMPORT))
    who = [os.getresuid(), os.getresgid(), sorted(os.getgroups())]
    return [variables, who, limits, os.getpriority(os.PRIO_PROCESS, 0), sorted(os.sched_getaffinity(0)), spaces]


def digest(given: list[Any] | None = None) -> str:
    """Surroundings in a few letters; without an argument, those that this command was begun in. Variables may hold secrets."""
    import hashlib  # for those who start a preloader, and for it
    import json

    given = given or _begun.get() or surroundings(os.environ)
    return hashlib.sha256(json.dumps(given).encode()).hexdigest()


def _handed_over() -> tuple[socket.socket, int] | None:
    """Have a fork of the preloader begin with this command: the connection to it and its number, or None where there is none."""
    import json  # the smaller part of what a command that is handed over imports
    import signal
    import socket

    try:
        path = _socket_path()
        if path is None:
            return None
        connection = _connected(path)
    except OSError:
        return None
    try:
        if connection.recv(1) != READY:
            raise ConnectionError(path)
        connection.settimeout(ANSWER_SECONDS)
        umask = os.umask(0)
        os.umask(umask)
        asked = {
            "code": code_stamp(), "surroundings": _begun.get(), "argv": sys.argv, "path": sys.path, "environment": dict(os.environ),
            "folder": os.getcwd(), "umask": umask, "ignored": [n for n in _signals() if signal.getsignal(n) is signal.SIG_IGN],
        }  # fmt: skip
        content = json.dumps(asked).encode()
        socket.send_fds(connection, [len(content).to_bytes(8, "big")], [0, 1, 2])
        connection.sendall(content)
        if pid := int(_line(connection) or 0):
            return connection, pid
    except (OSError, ValueError):  # also where one of the three files is closed, or the folder is gone
        pass
    connection.close()
    return None


def _ended(connection: socket.socket, pid: int) -> int:
    """Be that fork to whoever called, until it has ended; its exit code. It begins when it hears of us, and dies with us."""
    import signal

    passed: list[int] = []

    def pass_on(number: int, _: object) -> None:
        passed.append(number)
        os.kill(pid, number)

    def stop(_: int, __: object) -> None:
        os.killpg(pid, signal.SIGSTOP)
        os.kill(os.getpid(), signal.SIGSTOP)
        os.killpg(pid, signal.SIGCONT)

    for number in _signals():
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, stop if number == signal.SIGTSTP else pass_on)
    with connection:
        try:
            connection.settimeout(None)
            connection.sendall(GO)
            code = _line(connection)
            connection.settimeout(0.1)
            while code and os.path.exists(f"/proc/{pid}"):  # what it has started may hold the connection, too
                try:
                    if not connection.recv(1):
                        break
                except TimeoutError:
                    continue
        except OSError:
            code = b""
    if code:
        return int(code)
    if passed:
        signal.signal(passed[-1], signal.SIG_DFL)
        os.kill(os.getpid(), passed[-1])
    sys.stderr.write("error: The process of this command was killed, or ran out of memory.\n")
    return LOST


def _socket_path() -> str | None:
    """The socket in the home of the nearest folder upwards that has one, the project's root being the last."""
    if os.environ.get("ASSETCORE_PRELOAD", "").lower() in ("0", "false", "no", "off"):
        return None
    home = os.path.expanduser(os.environ.get("ASSETCORE_HOME") or ".assetcore")
    folder = os.getcwd()
    while True:
        if os.path.exists(path := os.path.join(folder, home, SOCKET)):
            return path
        if folder == os.path.dirname(folder) or os.path.isdir(os.path.join(folder, "projects")):
            return None
        folder = os.path.dirname(folder)


def _connected(path: str) -> socket.socket:
    """A connection to the preloader, which must be our own. Raises OSError."""
    import socket

    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.settimeout(READY_SECONDS)
        with _short(path) as name:
            connection.connect(name)
        if _peer(connection)[1] != os.geteuid():
            raise PermissionError(f"{path} is another user's")
    except OSError:
        connection.close()
        raise
    return connection


def listener(path: str) -> int | None:
    """The number of the process that takes commands at a socket."""
    try:
        with _connected(path) as connection:
            return _peer(connection)[0]
    except OSError:
        return None


def serve(path: str, wanted: str) -> None:
    """Be the preloader: import all, listen at `path`, and return in each fork as the command that it becomes, which then runs.

    `wanted` is the digest of the surroundings in which commands may be forked. It ends when its code has changed, when another
    preloader has taken its place, and when its home is gone.
    """
    import gc

    ended: list[int] = []
    atexit.register(_leave, ended)
    code = code_stamp()
    for name in IMPORTED:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # what is here now is nobody's garbage, and its pages stay shared
    connection = _next(path, code, wanted)
    if connection is None:
        return
    try:
        _command(ended)
    finally:
        with contextlib.suppress(OSError):
            connection.sendall(b"%d\n" % next(iter(ended), 1))


def _next(path: str, code: list[Any], wanted: str) -> socket.socket | None:
    """Fork for every command that may be; in a fork, the connection to its caller. None where the preloader is to end."""
    import json
    import signal
    import socket

    def reap(*_: object) -> None:
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass

    with socket.socket(socket.AF_UNIX) as listener:
        os.umask(0o077)
        with _short(path) as name:
            listener.bind(f"{name}.{os.getpid()}")
        listener.listen(16)
        listener.settimeout(LOOK_SECONDS)
        os.replace(f"{path}.{os.getpid()}", path)
        mine = os.stat(path).st_ino
        signal.signal(signal.SIGCHLD, reap)
        while _inode(path) == mine:
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                continue
            connection.settimeout(ANSWER_SECONDS)
            files: list[int] = []
            try:
                connection.sendall(READY)
                size, files, _, _ = socket.recv_fds(connection, 8, 3)
                asked = json.loads(_exactly(connection, int.from_bytes(size, "big")))
                if asked["code"] != code:
                    os.unlink(path)
                elif _peer(connection)[1] == os.geteuid() and digest(asked["surroundings"]) == wanted and not os.fork():
                    listener.close()
                    _become(connection, asked, files)
                    return connection
            except (OSError, ValueError, KeyError):  # a caller that went away; it imports for itself
                pass
            for file in files:
                os.close(file)
            connection.close()
    return None


def _become(connection: socket.socket, asked: dict[str, Any], files: Sequence[int]) -> None:
    """In a fork: become the command that its caller would be. Ends here where that cannot be, or the caller waits no more."""
    import signal
    import threading

    try:
        os.setsid()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for number in _signals():
            usual = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
            signal.signal(number, signal.SIG_IGN if number in asked["ignored"] else usual)
        os.chdir(asked["folder"])
        os.umask(asked["umask"])
        os.environ.clear()
        os.environ.update(asked["environment"])
        sys.argv[:], sys.path[:] = asked["argv"], asked["path"]
        importlib.invalidate_caches()
        for number, file in enumerate(files):
            os.dup2(file, number)
            os.close(file)
        sys.stdout.reconfigure(line_buffering=os.isatty(1))  # pyright: ignore[reportAttributeAccessIssue]  Python's own
        _begun.set(asked["surroundings"])
        _forked.set(True)
        connection.sendall(b"%d\n" % os.getpid())
        begins = _exactly(connection, len(GO)) == GO
    except BaseException:
        begins = False
    if not begins:
        os._exit(1)
    connection.settimeout(None)

    def watch() -> None:
        with contextlib.suppress(OSError):
            connection.recv(1)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


@contextlib.contextmanager
def _short(path: str) -> Iterator[str]:
    """Another name for a path, which is short enough for a socket however deep its folder is."""
    folder = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{os.path.basename(path)}"
    finally:
        os.close(folder)


def _signals() -> list[int]:
    """What is passed on to a fork, which belongs to no terminal."""
    import signal

    names = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGTSTP", "SIGUSR1", "SIGUSR2")
    return [getattr(signal, name) for name in names]


def _peer(connection: socket.socket) -> tuple[int, int, int]:
    """The process at the other end, or that listens there, and its user and group."""
    import socket
    import struct

    found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return struct.unpack("3i", found)


def _line(connection: socket.socket) -> bytes:
    """A line without its end; empty where the other end is gone."""
    found = b""
    while not found.endswith(b"\n"):
        if not (more := connection.recv(1)):
            return b""
        found += more
    return found[:-1]


def _exactly(connection: socket.socket, size: int) -> bytes:
    """So many bytes, or fewer where the other end is gone."""
    found = bytearray()
    while len(found) < size and (more := connection.recv(min(1 << 16, size - len(found)))):
        found += more
    return bytes(found)


def _inode(path: str) -> int | None:
    try:
        return os.stat(path).st_ino
    except OSError:
        return None
