"""Golden vectors of fingerprints: does this interpreter agree with them?

Run as a script by any Python from 3.11 on, without any package installed; prints what does not agree as one JSON list.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import json
import sys
import tempfile
import types
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
VECTORS = Path(__file__).with_suffix(".json")

PACKAGE = '''
import enum, functools, logging, math, re
from dataclasses import dataclass
from pathlib import PurePosixPath

log = logging.getLogger(__name__)
WORD = re.compile(r"\\w+", re.IGNORECASE)
TABLE = {"a": 1, "b": [1.5, -0.0, None, True, b"x", {3, "x", (1, 2)}], "path": PurePosixPath("a/b")}
STEPS = [lambda x: x + 1, lambda x, k=2: x * k, *[lambda x, i=i: x - i for i in range(2)]]


class Color(enum.Enum):
    """Colours."""

    RED = "r"


@dataclass
class Limits:
    size: int = 5

    def half(self) -> int:
        return self.size // 2


class Client:
    def __init__(self, address):
        self.address = address

    def ask(self, n):
        return even(n)


def scale(n):
    def apply(x):
        return x * n

    return apply


def even(n):
    return n == 0 or odd(n - 1)


@functools.lru_cache(maxsize=None)
def odd(n: int) -> bool:
    """Odd."""
    return n != 0 and even(n - 1)


@functools.singledispatch
def show(x):
    return f"{x!r:>{LIMITS.size}}"


@show.register
def _(x: int):
    return str(x)


LIMITS, double, client = Limits(7), scale(2), Client("https://example.org")
half = functools.partial(scale, 0.5)


def made(text: str, n: int = 3) -> str:
    """Made."""
    log.info("x")
    match n:
        case 0:
            return show(n)
    return WORD.sub(Color.RED.value, text) + str([f(TABLE["a"]) for f in STEPS]) + str(client.ask(double(n)) + half()(math.pi))
'''


def vector(source: str) -> dict[str, str]:
    """The bytes of a source's tree as it is, and of its normal form with its names, as SHA-256."""
    from assetcore.fingerprint.definitions import Section, read
    from assetcore.fingerprint.encoding import encode

    tree = ast.parse(source)
    found, nothing = read(tree.body), Section()
    scopes = [
        [scope.is_class, scope.parent, [_section(s) for s in scope.decorators],
         _section(scope.annotations.read() if scope.annotations else nothing),
         {name: _section(s.read()) for name, s in scope.defaults.items()}, scope.bases]
        for scope in found.scopes
    ]  # fmt: skip
    imports = [[list(mention.names), [list(i) for i in mention.imports]] for mention in found.imports]
    rest = [_section(found.body), scopes, found.normal.docstrings, imports, sorted(found.reads_own_data)]
    return {
        "tree": hashlib.sha256(encode(tree)).hexdigest(),
        "definition": hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest(),
    }


def _section(section: Any) -> list[Any]:
    mentions = [[list(mention.names), [list(imported) for imported in mention.imports]] for mention in section.mentions]
    imported = [(i, k) for i, k in section.keys if section.mentions[i].names[-1] in ("import_module", "__import__")]
    literals = [[i, key.name if isinstance(key.name, str) else None] for i, key in imported]
    return [section.data.hex(), mentions, section.head, list(section.handed), literals, section.accessor]


def fingerprint_of_package() -> str:
    """The fingerprint of a function whose closure has a part of every kind."""
    from assetcore.fingerprint import fingerprint

    with tempfile.TemporaryDirectory() as home:
        (Path(home) / "golden_package.py").write_text(PACKAGE, encoding="utf-8")
        sys.path.insert(0, home)
        try:
            module = importlib.import_module("golden_package")
            found = fingerprint(module.made, user_packages={"golden_package"})
        finally:
            sys.path.remove(home)
            sys.modules.pop("golden_package", None)
    return found.digest.hex()


def disagreements() -> list[str]:
    """The names of the vectors with which this interpreter does not agree."""
    golden = json.loads(VECTORS.read_text(encoding="utf-8"))
    known = [v for v in golden["definitions"] if sys.version_info[:2] >= tuple(v.get("since", (3, 11)))]
    wrong = [v["name"] for v in known if vector(v["source"]) != {"tree": v["tree"], "definition": v["definition"]}]
    return wrong if fingerprint_of_package() == golden["package"] else [*wrong, "package"]


if __name__ == "__main__":
    package = types.ModuleType("assetcore")  # the face of the package imports what this interpreter may not have
    package.__path__ = [str(ROOT / "assetcore")]
    sys.modules["assetcore"] = package
    sys.dont_write_bytecode = True
    sys.stdout.write(json.dumps(disagreements()))
