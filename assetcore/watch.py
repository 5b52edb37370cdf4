"""Watch: what does a function read beside what it is given?

The fingerprint names what it sees in the code (AC101 to AC103); this sees what happens. Python tells of each file that is opened, modules
included (PEP 578, audit hooks); environment variables are told by `os.environ`, which is given a class that does. Only what the
user's code asks for counts, in the context of a watched call: not what Python, installed packages or this package read for themselves,
and no file that the call has written. Files that are opened by an extension (`pl.read_csv`) are not seen.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from contextvars import ContextVar, Token
from dataclasses import dataclass, field
from functools import cache
from importlib.util import source_from_cache
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

__all__ = ["MOST", "UndeclaredInput", "watch"]

MOST = 20
"""So many undeclared inputs of one call are told."""
_LISTED = frozenset({"os.listdir", "os.scandir"})
_OF_CODE = (".py", ".pyc")
_OF_THE_SYSTEM = ("/proc/", "/sys/", "/dev/", "/etc/", "/usr/lib/", "/usr/share/")
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_OWN = str(Path(__file__).parent) + os.sep


class UndeclaredInput(NamedTuple):
    """Something that was read and is in no input, config or fingerprint: the hazard's code, what it is, and where in the user's code."""

    code: str
    what: str
    where: str


@dataclass(slots=True)
class Watched:
    """What one call has read so far; what it wrote is its own."""

    root: Path
    settled: bool = False
    found: dict[tuple[str, str], UndeclaredInput] = field(default_factory=dict)
    written: set[str] = field(default_factory=set)
    _token: Token[Watched | None] | None = None

    def __enter__(self) -> Watched:
        self._token = _watched.set(None if self.settled else self)
        return self

    def __exit__(self, *raised: object) -> None:
        if self._token is not None:
            _watched.reset(self._token)

    def note(self, code: str, what: str, asker: FrameType | None) -> None:
        if len(self.found) < MOST:
            line = "" if asker is None else f"{_shown(asker.f_code.co_filename, self.root)}:{asker.f_lineno}"
            self.found.setdefault((code, what), UndeclaredInput(code, what, line))

    @property
    def inputs(self) -> tuple[UndeclaredInput, ...]:
        return tuple(self.found.values())


_watched: ContextVar[Watched | None] = ContextVar("assetcore_watched", default=None)


def watch(root: Path, *, settled: bool = False) -> Watched:
    """Note what is read inside `with`. With `settled` the asset has a version, which answers for all of it: nothing is noted."""
    _install()
    return Watched(root, settled)


@cache
def _install() -> None:
    """Once in a process, because an audit hook stays."""
    sys.addaudithook(_hear)
    os.environ.__class__ = _Environment


class _Environment(type(os.environ)):
    """The environment, telling which variables the user's code asks for."""

    def __getitem__(self, name: str) -> str:
        if (watched := _watched.get()) is not None:
            asker = sys._getframe(1)
            while asker.f_back is not None and _is_of_environment(asker):
                asker = asker.f_back
            if not _is_library(asker.f_code.co_filename):
                watched.note("AC103", f"the environment variable {name}", asker)
        return super().__getitem__(name)


def _is_of_environment(frame: FrameType) -> bool:
    return frame.f_globals.get("__name__") in ("os", "collections.abc")


def _hear(event: str, given: tuple[Any, ...]) -> None:
    if event != "open" and event not in _LISTED:
        return
    if event == "open" and given[2] == 0 and given[1] is not None:  # the parser, in search of the line of a SyntaxError
        return
    watched = _watched.get()
    if watched is None:
        return
    token = _watched.set(None)  # what is done here is not the user's
    try:
        if given[0] is not None and not isinstance(given[0], int):
            _file(watched, os.fsdecode(given[0]), given if event == "open" else None)
    finally:
        _watched.reset(token)


def _file(watched: Watched, name: str, opened: tuple[Any, ...] | None) -> None:
    path = os.path.abspath(name)
    if opened is not None:
        _, mode, flags = opened
        if any(letter in mode for letter in "wax+") if isinstance(mode, str) else flags & _WRITES:
            watched.written.add(path)
            return
    if path in watched.written or path.startswith((*_OF_THE_SYSTEM, _settings())) or _is_library(path):
        return
    if path.endswith(_OF_CODE):
        _module(watched, path)
        return
    asks, asker = _asker(sys._getframe(2))
    if asks:
        kind = "the file" if opened is not None else "the folder"
        watched.note("AC102", f"{kind} {_shown(path, watched.root)}", asker)


def _module(watched: Watched, path: str) -> None:
    """A module of the user's, imported by a name that is not in the code; an import statement is followed by the fingerprint."""
    frame: FrameType | None = sys._getframe(3)
    while frame is not None and frame.f_code.co_filename.startswith("<frozen importlib"):
        frame = frame.f_back
    if frame is not None and frame.f_globals.get("__name__") == "importlib":  # import_module
        asks, asker = _asker(frame)
        if asks:
            source = source_from_cache(path) if path.endswith(".pyc") else path
            watched.note("AC101", f"the module {_shown(source, watched.root)}", asker)


def _asker(frame: FrameType | None) -> tuple[bool, FrameType | None]:
    """Whether something is read for the user, and the frame of theirs that asks; none in a thread that their code has started."""
    while frame is not None:
        file = frame.f_code.co_filename
        if file.startswith((_OWN, "<frozen importlib")):  # this package, and the search for a module
            return False, None
        if not _is_library(file):
            return True, frame
        frame = frame.f_back
    return True, None


@cache
def _settings() -> str:
    """Where programs keep theirs: what begins with a dot in the home."""
    return os.path.expanduser(os.path.join("~", "."))


@cache
def _libraries() -> tuple[str, ...]:
    paths = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    if sys.prefix != sys.base_prefix:
        paths.add(sys.prefix)
    major, minor = sys.version_info[:2]
    archive = os.path.join(sys.base_prefix, sys.platlibdir, f"python{major}{minor}.zip")  # it need not be there
    return (archive, *(str(Path(path)) + os.sep for path in paths))


@cache
def _is_library(file: str) -> bool:
    """Python's own, installed, ours, or in no file: what a library has written, such as the `__init__` of a dataclass."""
    return file.startswith(("<", _OWN, *_libraries())) or "site-packages" in file


def _shown(path: str, root: Path) -> str:
    return path.removeprefix(str(root) + os.sep)
