"""Normal form: what of a definition's syntax can change a result?

`normalise` copies a syntax tree without what cannot: bare constant statements, `pass`, `if TYPE_CHECKING:`, annotations of local
variables. Docstrings, decorators and annotations of functions can be data or not, which only the objects that they name decide at
run time. So docstrings are set aside here, and `written` gives the source without whatever was found not to count.
"""

from __future__ import annotations

import ast
import contextlib
import inspect
import operator
import sys
from collections.abc import Iterator, Set
from dataclasses import dataclass, field
from typing import Any

__all__ = ["FUNCTIONS", "SCOPES", "Normal", "Variant", "below", "deep", "first_line", "normalise", "written"]

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
SCOPES = (*FUNCTIONS, ast.ClassDef, ast.Lambda)
DEPTH = 30_000
Scope = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda


@dataclass(slots=True)
class Normal:
    """A normalised definition: its statements, and the functions and classes in it, numbered from the outside in."""

    body: list[ast.AST]
    scopes: list[Scope] = field(default_factory=list)
    numbers: dict[ast.AST, int] = field(default_factory=dict)
    parents: list[int | None] = field(default_factory=list)
    docstrings: list[str | None] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Variant:
    """What of the scopes of a definition counts, by their numbers."""

    docstrings: frozenset[int] = frozenset()
    annotations: frozenset[int] = frozenset()
    dropped_decorators: frozenset[tuple[int, int]] = frozenset()
    dropped_defaults: frozenset[str] = frozenset()


def normalise(nodes: list[ast.AST]) -> Normal:
    """The normal form of the statements (or the one expression) of a definition; the trees given are left as they are."""
    normal = Normal([])
    normal.body = _Copier(normal).statements(nodes, None)
    return normal


def written(normal: Normal, variant: Variant) -> str:
    """What `ast.unparse` gives of the normal form without what does not count: for people, and for diffs."""
    copier = _Writer(normal, variant)
    try:
        return "\n".join(ast.unparse(copier.copy(node)) for node in normal.body)
    except ValueError:  # Python 3.11 cannot write some f-strings that later versions can read
        return "\n".join(ast.dump(node) for node in normal.body)


@contextlib.contextmanager
def deep() -> Iterator[None]:
    """Allow for syntax that nests deep, as a sum of a thousand terms does; Python's own frames take no C stack."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(max(limit, DEPTH))
    try:
        yield
    finally:
        sys.setrecursionlimit(limit)


def first_line(node: Any) -> int:
    """The line at which the compiled function says that it begins: that of its first decorator."""
    decorators = getattr(node, "decorator_list", None)
    return decorators[0].lineno if decorators else node.lineno


class _Copier:
    """Copies statements. Of an expression nothing is left out: it stands as it is, unless there is a lambda in it, which is a scope."""

    def __init__(self, normal: Normal) -> None:
        self.normal = normal

    def copy(self, node: Any, parent: int | None) -> Any:
        if isinstance(node, ast.Name | ast.Constant):
            return node
        if isinstance(node, SCOPES):
            parent = self.enter(node, parent)
            copied = self.fields(node, parent)
            self.normal.numbers[copied] = parent
            self.normal.scopes[parent] = copied
            return copied
        if isinstance(node, ast.AnnAssign) and self.local(parent):
            return self.plain_assignment(node, parent)
        return self.fields(node, parent)

    def fields(self, node: Any, parent: int | None) -> Any:
        fields: dict[str, Any] = {}
        same = not isinstance(node, ast.stmt | ast.Lambda)
        for name in node._fields:
            value = kept = getattr(node, name, None)
            if isinstance(value, ast.AST) and name != "ctx":
                kept = self.copy(value, parent)
                same = same and kept is value
            elif isinstance(value, list):
                if name in ("body", "orelse", "finalbody"):
                    kept = self.statements(value, parent)
                else:
                    kept = [self.copy(item, parent) if isinstance(item, ast.AST) else item for item in value]
                same = same and len(kept) == len(value) and all(map(operator.is_, kept, value))
            fields[name] = kept
        if same:
            return node
        copied = _blank(node)
        vars(copied).update(fields, lineno=getattr(node, "lineno", 0))
        return copied

    def statements(self, nodes: list[Any], parent: int | None) -> list[Any]:
        kept: list[Any] = []
        for node in nodes:
            if isinstance(node, ast.Pass) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)):
                continue
            if isinstance(node, ast.If) and _is_type_checking(node.test):
                kept += self.statements(node.orelse, parent)
                continue
            if isinstance(node, ast.AnnAssign) and node.value is None and self.local(parent):
                continue
            kept.append(self.copy(node, parent))
        return kept

    def enter(self, node: Scope, parent: int | None) -> int:
        number = len(self.normal.scopes)
        docstring = None if isinstance(node, ast.Lambda) else ast.get_docstring(node, clean=False)
        self.normal.scopes.append(node)
        self.normal.parents.append(parent)
        self.normal.docstrings.append(None if docstring is None else inspect.cleandoc(docstring))
        return number

    def local(self, parent: int | None) -> bool:
        """Whether the annotations of assignments are never evaluated here; those of a class are its fields."""
        return parent is None or not isinstance(self.normal.scopes[parent], ast.ClassDef)

    def plain_assignment(self, node: ast.AnnAssign, parent: int | None) -> ast.AST:
        copied = ast.Assign(targets=[self.copy(node.target, parent)], value=self.copy(node.value, parent))
        copied.lineno = node.lineno
        return copied


class _Writer:
    """Copies a normal form for people: without the docstrings, annotations, decorators and defaults that do not count."""

    def __init__(self, normal: Normal, variant: Variant) -> None:
        self.normal = normal
        self.variant = variant

    def copy(self, node: Any) -> Any:
        copied = _blank(node)
        for name in node._fields:
            value = getattr(node, name, None)
            if isinstance(value, ast.AST):
                value = self.copy(value)
            elif isinstance(value, list):
                value = [self.copy(item) if isinstance(item, ast.AST) else item for item in value]
            setattr(copied, name, value)
        copied.lineno = getattr(node, "lineno", 0)
        if getattr(copied, "body", None) == []:
            copied.body = [ast.Pass()]
        number = self.normal.numbers.get(node)
        if number is not None and not isinstance(node, ast.Lambda):
            self.trim(copied, number)
        return copied

    def trim(self, copied: Any, number: int) -> None:
        dropped = self.variant.dropped_decorators
        copied.decorator_list = [d for i, d in enumerate(copied.decorator_list) if (number, i) not in dropped]
        if isinstance(copied, FUNCTIONS) and number not in self.variant.annotations:
            copied.returns = None
            for argument in _arguments(copied.args):
                argument.annotation = None
        if number == 0 and isinstance(copied, FUNCTIONS):
            _drop_defaults(copied.args, self.variant.dropped_defaults)
        docstring = self.normal.docstrings[number]
        if docstring is not None and number in self.variant.docstrings:
            copied.body.insert(0, ast.Expr(ast.Constant(docstring), lineno=copied.lineno))


def below(node: ast.AST) -> list[Any]:
    """What a node is made of, in order; not whether a name is read or written, which is no code of its own."""
    found: list[Any] = []
    for name in node._fields:
        value = getattr(node, name, None)
        if isinstance(value, ast.AST):
            if name != "ctx":
                found.append(value)
        elif isinstance(value, list):
            found += [item for item in value if isinstance(item, ast.AST)]
    return found


def _blank(node: Any) -> Any:
    """A node of the same class, to be filled; the class itself would fill in defaults, and complain from Python 3.13 on."""
    return ast.AST.__new__(type(node))


def _is_type_checking(test: ast.expr) -> bool:
    return (isinstance(test, ast.Name) and test.id == "TYPE_CHECKING") or (
        isinstance(test, ast.Attribute) and test.attr == "TYPE_CHECKING"
    )


def _arguments(arguments: ast.arguments) -> list[ast.arg]:
    starred = [a for a in (arguments.vararg, arguments.kwarg) if a is not None]
    return [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, *starred]


def _drop_defaults(arguments: ast.arguments, names: Set[str]) -> None:
    """Write `...` for the defaults that are dependencies: they are part of the recipe, not of the code."""
    positional = [*arguments.posonlyargs, *arguments.args]
    offset = len(positional) - len(arguments.defaults)
    for i in range(len(arguments.defaults)):
        if positional[offset + i].arg in names:
            arguments.defaults[i] = ast.Constant(...)
    for i, argument in enumerate(arguments.kwonlyargs):
        if argument.arg in names and arguments.kw_defaults[i] is not None:
            arguments.kw_defaults[i] = ast.Constant(...)
