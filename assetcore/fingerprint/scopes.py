"""Scopes: which names does a piece of code bind?

By Python's rules: parameters, stores, comprehensions, `except` and `match` targets, `global`, `nonlocal`, imports. What is bound inside a
function, class or comprehension is bound there alone.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from assetcore.fingerprint.normal import below

__all__ = ["Imported", "Scope", "bound_names", "collect", "function_scope", "imported_names", "local_names"]


class Imported(NamedTuple):
    """What an import statement binds: a module, or an attribute of one. `level` counts the dots in front."""

    module: str
    attribute: str | None
    level: int = 0


@dataclass(slots=True)
class Scope:
    """The names that a function, class or comprehension (`kind`) binds, and those that it says are not its own."""

    kind: str
    bound: set[str] = field(default_factory=set)
    imports: dict[str, list[Imported]] = field(default_factory=dict)
    outward: set[str] = field(default_factory=set)
    """Names declared `global`."""
    nonlocal_: set[str] = field(default_factory=set)


def imported_names(statement: ast.Import | ast.ImportFrom) -> Iterable[tuple[str, Imported]]:
    """The names that an import statement binds, and to what."""
    for alias in statement.names:
        if isinstance(statement, ast.ImportFrom):
            yield alias.asname or alias.name, Imported(statement.module or "", alias.name, statement.level)
        elif alias.asname:
            yield alias.asname, Imported(alias.name, None)
        else:
            yield alias.name.split(".")[0], Imported(alias.name.split(".")[0], None)


def bound_names(body: Iterable[ast.AST]) -> frozenset[str]:
    """The names that statements bind, in their own scope."""
    scope = Scope("class")
    collect(body, scope)
    return frozenset(scope.bound | set(scope.imports))


def local_names(function: ast.FunctionDef | ast.AsyncFunctionDef) -> frozenset[str]:
    """The names that a function binds, but those that it imports."""
    return frozenset(function_scope(function).bound)


def function_scope(tree: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) -> Scope:
    """What a function or lambda binds, its parameters with it."""
    scope = Scope("function")
    arguments = tree.args
    starred = [a for a in (arguments.vararg, arguments.kwarg) if a is not None]
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, *starred]
    scope.bound.update(a.arg for a in every)
    collect(tree.body if isinstance(tree.body, list) else [tree.body], scope)
    scope.bound -= scope.outward | scope.nonlocal_
    return scope


def collect(nodes: Iterable[ast.AST], scope: Scope, *, walrus_only: bool = False) -> None:
    """Add to `scope` the names that `nodes` bind in it; not those bound in functions, classes and comprehensions inside."""
    for tree in nodes:
        match tree:
            case ast.Constant():
                continue
            case ast.Name(id=name, ctx=context):
                if not walrus_only and not isinstance(context, ast.Load):
                    scope.bound.add(name)
                continue
            case ast.NamedExpr(target=ast.Name(id=name)):
                scope.bound.add(name)
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                scope.bound.add(tree.name)
                continue
            case ast.Lambda():
                continue
            case ast.Import() | ast.ImportFrom():
                for name, what in imported_names(tree):
                    scope.imports.setdefault(name, []).append(what)
                continue
            case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
                scope.bound.add(name)
            case ast.MatchMapping(rest=str(name)):
                scope.bound.add(name)
            case ast.Global():
                scope.outward.update(tree.names)
            case ast.Nonlocal():
                scope.nonlocal_.update(tree.names)
            case _:
                pass
        comprehends = isinstance(tree, ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp)
        collect(below(tree), scope, walrus_only=walrus_only or comprehends)
