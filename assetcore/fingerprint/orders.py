"""Orders: does a value depend on the order in which a set gives its members?

That order is another one in every process. A set has none in a fingerprint, and a dict neither; but what is joined, listed or unpacked of
a set has it, or of a dict that was filled from one. Told by the syntax that makes a value, as far as the user's functions go:
`"|".join(WORDS)` has it, `sorted(WORDS)` has not.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Callable, Iterable, Iterator, Set
from typing import Any, NamedTuple

from assetcore.fingerprint.normal import FUNCTIONS
from assetcore.fingerprint.scopes import local_names

__all__ = ["Called", "depends_on_order", "lists_folder", "may_depend_on_order", "unordered", "writes_set"]

SETS = frozenset({"set", "frozenset"})
HARMLESS = frozenset({*SETS, "sorted", "len", "sum", "min", "max", "any", "all", "isinstance", "bool"})
"""Functions that give the same whatever the order is."""
PASSING = frozenset({"map", "filter", "iter", "reversed", "chain", "dict", "fromkeys", "Counter"})
"""Functions that give the members on, in the order in which they come."""
TAKING = frozenset(
    {"list", "tuple", "enumerate", "zip", "next", "str", "repr", "join", "deque", "extend", "dumps", "OrderedDict"}
)
"""Functions and methods whose result has the order."""
OF_SETS = frozenset({"union", "intersection", "difference", "symmetric_difference", "copy", "keys", "values", "items"})
FIRST = frozenset({"pop", "popitem", "most_common"})
"""Methods that give what comes first, or last."""
KEEPING = frozenset({"append", "appendleft", "extend", "insert", "write"})
"""Methods by which a loop keeps what it meets in order."""
LISTING = frozenset({"glob", "iglob", "rglob", "iterdir", "listdir", "scandir", "walk"})
"""Functions and methods that list a folder, in whatever order the file system has."""
Resolve = Callable[[tuple[str, ...]], Any]
"""Gives what a chain of names stands for: an object, or a `Called`."""


class Called(NamedTuple):
    """A function of the user: its definition, and how its names are resolved."""

    node: Any
    resolve: Resolve


def may_depend_on_order(nodes: Iterable[Any]) -> bool:
    """Whether there is anything in these statements that could take the members of a set: most write out what they are."""
    return any(isinstance(node, _TAKERS) for node in _inside(nodes))


def writes_set(nodes: Iterable[Any]) -> bool:
    """Whether a set is written in these statements."""
    inside = _inside(nodes)
    return any(isinstance(n, ast.Set | ast.SetComp) or (isinstance(n, ast.Name) and n.id in SETS) for n in inside)


def lists_folder(nodes: Iterable[Any]) -> bool:
    """Whether these statements list a folder and keep the order in which it comes."""
    waiting = list(nodes)
    while waiting:
        node = waiting.pop()
        match node:
            case ast.Call(func=ast.Name(id="sorted")) | ast.DictComp() | ast.SetComp():
                continue
            case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name)) if name in LISTING:
                return True
            case _:
                waiting += ast.iter_child_nodes(node)
    return False


def unordered(nodes: Iterable[Any], resolve: Resolve) -> Set[str]:
    """The names that these statements give a set, or a dict that is filled from one."""
    reading = _Reading(functools.cache(resolve), set(), ())
    for node in nodes:
        reading.takes_one(node)
    return reading.sets


def depends_on_order(nodes: Iterable[Any], resolve: Resolve) -> bool:
    """Whether these statements take members of a set in order."""
    return _Reading(functools.cache(resolve), set(), ()).takes(nodes)


_TAKERS = (ast.Call, ast.ListComp, ast.For, ast.Starred, ast.FormattedValue)


class _Reading:
    """Reads the statements of one scope; `sets` are its names that stand for sets, `within` the functions that it is called by."""

    def __init__(self, resolve: Resolve, sets: set[str], within: tuple[Any, ...]) -> None:
        self.resolve = resolve
        self.sets = sets
        self.own: Set[str] = sets
        self.within = within

    def takes(self, nodes: Iterable[Any]) -> bool:
        """Whether something of the nodes has the order of a set."""
        return any(self.takes_one(node) for node in nodes)

    def takes_one(self, node: Any) -> bool:
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.Lambda():  # runs where it is called
                return False
            case ast.Assign(targets=[ast.Name(id=name)], value=value) if self.is_unordered(value):
                self.sets.add(name)
            case ast.AugAssign(target=ast.Name(id=name), value=value) if self.is_unordered(value):
                self.sets.add(name)
            case ast.Call(func=ast.Name(id=name)) if name in HARMLESS:
                return False
            case ast.Call(keywords=keywords) if any(k.arg == "sort_keys" for k in keywords):
                return False
            case ast.Call(
                func=ast.Attribute(value=ast.Name(id="OrderedDict") | ast.Attribute(attr="OrderedDict")), args=given
            ):
                if any(map(self.is_unordered, given)):
                    return True
            case ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr="update"), args=given):
                if any(map(self.is_unordered, given)):
                    self.sets.add(name)
            case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name), args=given) if name in TAKING:
                if any(map(self.is_unordered, given)):
                    return True
            case ast.Call(func=ast.Attribute(value=inner, attr=name), args=[]) if name in FIRST:
                if self.is_unordered(inner):
                    return True
            case ast.ListComp(generators=generators):
                if any(self.is_unordered(generator.iter) for generator in generators):
                    return True
            case ast.FormattedValue(value=iterated) | ast.YieldFrom(value=iterated):
                if self.is_unordered(iterated):
                    return True
            case ast.For(iter=iterated, body=body):
                if self.is_unordered(iterated):
                    self.sets |= set(_filled(body))
                    if any(map(_keeps, _inside(body))):
                        return True
            case ast.List(elts=members) | ast.Tuple(elts=members) | ast.Call(args=members):
                if any(isinstance(m, ast.Starred) and self.is_unordered(m.value) for m in members):
                    return True
            case _:
                pass
        if isinstance(node, ast.Call) and (called := self.called(node)) is not None and called.takes(called.body):
            return True
        return any(self.takes_one(inner) for inner in ast.iter_child_nodes(node))

    def is_unordered(self, node: Any) -> bool:
        """Whether an expression is a set, or gives the members of one on."""
        match node:
            case ast.Set() | ast.SetComp():
                return True
            case ast.Name() | ast.Attribute():
                return self.is_set(node)
            case ast.BinOp(left=left, right=right, op=ast.BitOr() | ast.BitAnd() | ast.Sub() | ast.BitXor()):
                return self.is_unordered(left) or self.is_unordered(right)
            case ast.IfExp(body=left, orelse=right):
                return self.is_unordered(left) or self.is_unordered(right)
            case ast.GeneratorExp(generators=generators) | ast.DictComp(generators=generators):
                return any(self.is_unordered(generator.iter) for generator in generators)
            case ast.Dict(keys=keys, values=values):
                return any(key is None and self.is_unordered(value) for key, value in zip(keys, values, strict=True))
            case ast.Call(func=ast.Name(id=name)) if name in SETS:
                return True
            case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name), args=given) if name in PASSING:
                return any(map(self.is_unordered, given))
            case ast.Call(func=ast.Attribute(value=inner, attr=name)) if name in OF_SETS and self.is_unordered(inner):
                return True
            case ast.Call():
                called = self.called(node)
                return called is not None and called.gives_a_set()
            case _:
                return False

    def is_set(self, node: Any) -> bool:
        names = _chain(node)
        if names and names[0] in self.own:
            return len(names) == 1 and names[0] in self.sets
        return bool(names) and isinstance(self.resolve(names), set | frozenset)

    def called(self, node: ast.Call) -> _Function | None:
        """The function of the user that a call calls, with the parameters for which it is given sets."""
        names = _chain(node.func)
        found = self.resolve(names) if names and names[0] not in self.own else None
        if not isinstance(found, Called) or not isinstance(found.node, FUNCTIONS) or found.node in self.within:
            return None
        parameters = [a.arg for a in (*found.node.args.posonlyargs, *found.node.args.args)]
        given = {name for name, value in zip(parameters, node.args, strict=False) if self.is_unordered(value)}
        given |= {keyword.arg for keyword in node.keywords if keyword.arg and self.is_unordered(keyword.value)}
        return _Function(found, given, (*self.within, found.node))


class _Function(_Reading):
    """Reads a function that is called."""

    def __init__(self, called: Called, sets: set[str], within: tuple[Any, ...]) -> None:
        super().__init__(called.resolve, sets, within)
        self.own = local_names(called.node)
        self.body: list[Any] = called.node.body

    def gives_a_set(self) -> bool:
        for node in _inside(self.body):
            if isinstance(node, ast.Assign) and self.is_unordered(node.value):
                self.sets |= {target.id for target in node.targets if isinstance(target, ast.Name)}
            elif isinstance(node, ast.For) and self.is_unordered(node.iter):
                self.sets |= set(_filled(node.body))
        return any(isinstance(n, ast.Return) and self.is_unordered(n.value) for n in _inside(self.body))


def _filled(body: Iterable[Any]) -> Iterator[str]:
    """The dicts in which a loop sets members."""
    for node in _inside(body):
        match node:
            case ast.Subscript(value=ast.Name(id=name), ctx=ast.Store()):
                yield name
            case ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr="setdefault" | "update")):
                yield name
            case _:
                pass


def _keeps(node: Any) -> bool:
    """Whether a loop keeps what it meets, or ends with something that it met."""
    match node:
        case ast.Call(func=ast.Attribute(attr=name)):
            return name in KEEPING
        case _:
            return isinstance(node, ast.AugAssign | ast.Yield | ast.Return | ast.Break)


def _inside(nodes: Iterable[Any]) -> Iterator[Any]:
    return (inner for node in nodes for inner in ast.walk(node))


def _chain(node: Any) -> tuple[str, ...]:
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    return (node.id, *reversed(names)) if isinstance(node, ast.Name) else ()
