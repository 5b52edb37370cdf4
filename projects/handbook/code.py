"""Code: what does a module define, and what does it say of it?"""

from __future__ import annotations

import ast
import copy
import warnings
from collections import Counter
from collections.abc import Iterator
from typing import Literal, NamedTuple

Kind = Literal["module", "class", "function", "method", "unreadable"]
Node = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


class Found(NamedTuple):
    name: str
    kind: Kind
    module: str
    signature: str
    headline: str
    text: str


def module_name(path: str) -> str:
    """`asyncio.tasks` for `asyncio/tasks.py`, `asyncio` for `asyncio/__init__.py`."""
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def is_public(name: str, kind: Kind) -> bool:
    """Whether a summary lists it: a class or a function whose name does not begin with an underscore."""
    return kind in ("class", "function") and not name.rpartition(".")[2].startswith("_")


def definitions(source: bytes, module: str) -> Iterator[Found]:
    """The module, then its classes, functions and methods. Where a name is defined twice, the second is `name-2`.

    A module that this Python cannot parse, because it is written for another, is one thing of kind "unreadable" and says why.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an invalid escape is for the module's authors to mend
            tree = ast.parse(source, module)
    except (SyntaxError, ValueError) as error:
        yield _found(module, "unreadable", module, module, f"{type(error).__name__}: {error}")
        return
    seen: Counter[str] = Counter()
    for name, kind, node in _walk(tree, module, "module"):
        seen[name] += 1
        unique = name if seen[name] == 1 else f"{name}-{seen[name]}"
        yield _found(unique, kind, module, _signature(node) or module, ast.get_docstring(node) or "")


def _found(name: str, kind: Kind, module: str, signature: str, docstring: str) -> Found:
    return Found(name, kind, module, signature, docstring.partition("\n")[0], f"{signature}\n\n{docstring}".rstrip())


def _walk(parent: ast.AST, name: str, kind: Kind) -> Iterator[tuple[str, Kind, Node]]:
    if isinstance(parent, Node):
        yield name, kind, parent
    for node in ast.iter_child_nodes(parent):
        if isinstance(node, ast.ClassDef):
            yield from _walk(node, f"{name}.{node.name}", "class")
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):  # what is defined inside it is its own affair
            yield f"{name}.{node.name}", "method" if kind == "class" else "function", node
        elif isinstance(node, ast.stmt | ast.excepthandler):  # if, try, with ...
            yield from _walk(node, name, kind)


def _signature(node: Node) -> str:
    bare = copy.copy(node)
    vars(bare).update(body=[], decorator_list=[])
    return ast.unparse(bare).removesuffix(":")
