"""Quotes: which types stand in quotes, and what are they as code?

A type that is defined later stands in quotes: in annotations, in brackets behind a generic class, and in what makes a type of types.
"""

from __future__ import annotations

import ast
import builtins
import copy
from collections.abc import Set
from typing import Any

__all__ = ["MAKERS", "unquoted"]

MAKERS = frozenset({"TypeVar", "NewType", "TypeAliasType", "NamedTuple", "TypedDict", "make_dataclass", "create_model"})
"""Functions and classes that make a type of types, which may stand in quotes."""


def unquoted(annotation: Any, own: Set[str]) -> Any:
    """An annotation with the types that stand in quotes as code; as written, where they are of this definition or built in."""
    match annotation:
        case ast.Constant(value=str(quoted)):
            try:
                parsed = unquoted(ast.parse(quoted, mode="eval").body, own)
            except (SyntaxError, ValueError):
                return annotation
            inside = list(ast.walk(parsed))
            names = {node.id for node in inside if isinstance(node, ast.Name)}
            if names <= own | vars(builtins).keys() or any(isinstance(node, ast.Lambda) for node in inside):
                return annotation
            return ast.increment_lineno(parsed, annotation.lineno - 1)
        case ast.Subscript(value=ast.Name(id="Literal") | ast.Attribute(attr="Literal")):
            return annotation
        case ast.Subscript(
            value=ast.Name(id="Annotated") | ast.Attribute(attr="Annotated"),
            slice=ast.Tuple(elts=[first, *rest]) as every,
        ):
            return _with(annotation, slice=_with(every, elts=[unquoted(first, own), *rest]))
        case ast.Subscript(slice=inner):
            return _with(annotation, slice=unquoted(inner, own))
        case ast.Call(func=ast.Name(id=maker) | ast.Attribute(attr=maker), args=[named, *types], keywords=keywords) if (
            maker in MAKERS
        ):
            given = [_with(keyword, value=_inside(keyword.value, own)) for keyword in keywords]
            return _with(annotation, args=[named, *[_inside(one, own) for one in types]], keywords=given)
        case ast.Tuple(elts=elements) | ast.List(elts=elements):
            return _with(annotation, elts=[unquoted(element, own) for element in elements])
        case ast.BinOp(left=left, right=right):
            return _with(annotation, left=unquoted(left, own), right=unquoted(right, own))
        case _:
            return annotation


def _inside(given: Any, own: Set[str]) -> Any:
    """The same of what makes a type is given: a type, a type and a default, names and types."""
    match given:
        case ast.Tuple(elts=[first, *rest]):
            return _with(given, elts=[unquoted(first, own), *rest])
        case ast.List(elts=fields):
            return _with(given, elts=[_second(field, own) for field in fields])
        case ast.Dict(values=types):
            return _with(given, values=[unquoted(one, own) for one in types])
        case _:
            return unquoted(given, own)


def _second(field: ast.expr, own: Set[str]) -> Any:
    match field:
        case ast.Tuple(elts=[name, named, *rest]):
            return _with(field, elts=[name, unquoted(named, own), *rest])
        case _:
            return field


def _with(tree: ast.AST, **fields: Any) -> ast.AST:
    """A node with other fields."""
    changed = copy.copy(tree)
    vars(changed).update(fields)
    return changed
