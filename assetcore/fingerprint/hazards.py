"""Hazards: what can change a result and is not in the code?

Each has a code, by which a project can allow it or forbid it.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

__all__ = ["HAZARDS", "Note", "hazard_of", "is_folder", "is_place_of_code", "is_volatile", "is_volatile_within"]


class Hazard(NamedTuple):
    title: str
    settle: str


HAZARDS: dict[str, Hazard] = {
    "AC101": Hazard(
        "an import by a name that is not in the code", 'Import it by name, or give the asset a version="1".'
    ),
    "AC102": Hazard("a file that no input declares", 'Depend on it as a source, or give the asset a version="1".'),
    "AC103": Hazard("an environment variable", "Take it as config: a parameter annotated with a pydantic model."),
    "AC104": Hazard("the clock", "Take the time as config, or from an input."),
    "AC105": Hazard("randomness", "Seed a random.Random with a constant or with config."),
    "AC106": Hazard("code in text", 'Write it as code, or give the asset a version="1".'),
    "AC107": Hazard(
        "an extension module of the project", 'Give the asset a version="1" and raise it with the extension.'
    ),
    "AC108": Hazard("the subclasses that happen to be loaded", "Name the classes in a list."),
    "AC109": Hazard("code without readable source", 'Put it into a file, or give the asset a version="1".'),
    "AC110": Hazard(
        "an object that no statement makes", 'Give its class __code_fingerprint__(), or the asset a version="1".'
    ),
    "AC111": Hazard("a global that is changed while running", "Pass it as an argument and return it."),
    "AC112": Hazard("a name that is not defined", 'Define it at module level, or give the asset a version="1".'),
}
"""What the fingerprint cannot follow, and what settles it."""


class Note(NamedTuple):
    """Something that the fingerprint cannot follow: `what`, `where` in the user's code, and what settles it."""

    code: str
    where: str
    what: str
    settle: str


_PATHS: dict[str, tuple[str, ...]] = {
    "AC102": (
        "builtins.open", "io.open", "os.open", "os.listdir", "os.scandir", "os.walk", "glob.glob", "glob.iglob",
        "codecs.open", "gzip.open", "bz2.open", "lzma.open", "zipfile.ZipFile", "tarfile.open", "sqlite3.connect",
        "shelve.open", "importlib.resources", "pkgutil.get_data", "linecache.getline", "linecache.getlines",
        "fileinput.input", "numpy.load", "numpy.loadtxt", "numpy.genfromtxt", "numpy.fromfile",
        "pyarrow.parquet.read_table", "pyarrow.csv.read_csv",
    ),
    "AC103": (
        "os.environ", "os.environb", "os.getenv", "os.getenvb", "os.path.expandvars", "pydantic_settings.BaseSettings",
    ),
    "AC104": (
        "time.time", "time.time_ns", "time.monotonic", "time.monotonic_ns", "time.localtime", "time.gmtime",
        "time.strftime", "time.ctime", "datetime.datetime.now", "datetime.datetime.utcnow", "datetime.datetime.today",
        "datetime.date.today",
    ),
    "AC105": ("random", "secrets", "os.urandom", "uuid.uuid1", "uuid.uuid4", "numpy.random"),
    "AC106": ("builtins.exec", "builtins.eval", "builtins.compile", "runpy"),
}  # fmt: skip
_SEEDED = ("random.Random", "numpy.random.default_rng", "numpy.random.Generator")
_READERS = ("pandas.read_", "polars.read_", "polars.scan_")

_MACHINE = (
    "tempfile", "platform", "getpass", "socket", "locale", "sysconfig", "os.getcwd", "os.getpid", "os.cpu_count",
    "os.uname", "os.getlogin", "os.path.expanduser", "os.path.abspath", "os.path.realpath", "sys.argv", "sys.path",
    "sys.executable", "sys.prefix", "sys.platform", "pathlib.Path.cwd", "pathlib.Path.home",
)  # fmt: skip
"""What differs between machines; a constant made with it counts by its statement, as `__file__` does."""

_IDENTITIES = ("builtins.id", "builtins.hash")
"""What differs between processes; code that only uses it on its way makes the same with it everywhere."""

_FOLDERS = (
    "os.getcwd", "os.path.expanduser", "os.path.abspath", "os.path.realpath", "sys.modules", "sys.path", "sys.argv",
    "sys.executable", "sys.prefix", "pathlib.Path.cwd", "pathlib.Path.home",
)  # fmt: skip
"""What tells a folder of the machine: with it code finds files, and what it makes of them need not tell where they lie."""


@lru_cache(maxsize=4096)
def hazard_of(path: str) -> str | None:
    """The code of the hazard that a dotted path of the standard library or a third-party package is, if it is one."""
    if path in _SEEDED:
        return None
    for code, paths in _PATHS.items():
        if _under(path, paths):
            return code
    return "AC102" if path.startswith(_READERS) else None


def is_volatile(path: str) -> bool:
    """Whether a value made with this differs between machines or moments, so that it cannot stand for the code."""
    return _under(path, _MACHINE + _IDENTITIES) or hazard_of(path) in ("AC103", "AC104", "AC105")


def is_volatile_within(path: str) -> bool:
    """The same of what a function uses on its way to what it returns."""
    return (is_volatile(path) or is_folder(path)) and not _under(path, _IDENTITIES)


def is_folder(path: str) -> bool:
    """Whether this tells a folder of the machine, so that a value made with it differs only if it holds one."""
    return path.startswith("module.__") or _under(path, _FOLDERS)


def is_place_of_code(path: str) -> bool:
    """Whether this tells where the code itself lies, or makes that absolute."""
    return path.startswith("module.__") or path in ("os.path.abspath", "os.path.realpath")


def _under(path: str, paths: tuple[str, ...]) -> bool:
    return any(path == p or (path.startswith(p) and path[len(p)] == ".") for p in paths)
