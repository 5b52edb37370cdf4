"""Classes: what does a class hold that its statement does not say?

What was put into it after its statement had run, such as a registry that decorators or subclasses filled; and where a function made it,
what came of that one's names. A function can hold a registry too.
"""

from __future__ import annotations

import ast
import collections
import functools
import operator
import types
from collections.abc import Callable, Iterable, Iterator, Set
from typing import Any, NamedTuple

from assetcore.fingerprint.definitions import Definition
from assetcore.fingerprint.files import Stated, size
from assetcore.fingerprint.objects import (
    GENERATED,
    MISSING,
    defaults,
    dispatch_registry,
    function_of,
    held,
    home,
    is_assigned,
    is_special,
    is_within,
)
from assetcore.fingerprint.origins import Origins
from assetcore.fingerprint.values import is_plain

__all__ = ["Attribute", "code_in", "computed", "filled", "members", "set_from_outside"]

CONTAINERS = (
    dict,
    list,
    tuple,
    set,
    collections.defaultdict,
    collections.OrderedDict,
    collections.Counter,
    collections.deque,
)
"""Containers that a class may keep what it is given in."""
CODE = (types.FunctionType, type, functools.partial)
_name = operator.itemgetter(0)
_CONTAINERS = frozenset(map(id, CONTAINERS))


class Attribute(NamedTuple):
    """What a class holds under a name; `is_data` unless it is a method or a plain value."""

    name: str
    value: Any
    is_data: bool = False


def computed(
    cls: type, methods: Iterable[types.FunctionType], stated: Stated, *, volatile: bool
) -> Iterator[tuple[str, Any]]:
    """What a statement computed when it ran, as it came out, and the defaults of its methods; of what is `volatile` those alone."""
    names = () if volatile else sorted(stated.names - stated.literals.keys())
    for name in names:
        value = vars(cls).get(name, MISSING)
        if value is not MISSING and not is_special(name) and (is_plain(value) or id(type(value)) in _CONTAINERS):
            yield name, value
    for function in methods:
        for name, value in defaults(function).items():
            yield f"{function.__name__}.{name}", value


def filled(function: Any, statements: Iterable[Definition]) -> Iterator[tuple[str, Any]]:
    """The registries in attributes of a function: containers with code in them of which the statements that set them do not tell.

    What else it keeps there is what it has made so far.
    """
    nodes = (node for one in statements for statement in one.normal.body for node in ast.walk(statement))
    for node in nodes:
        match node:
            case ast.Assign(targets=[ast.Attribute(attr=name)], value=written):
                value = held(function).get(name, ())
                if _holds_code(value) and size(written) not in (None, len(value)):
                    yield name, value
            case _:
                pass


def members(value: Any) -> Iterator[Any]:
    """What a container holds, also in pairs."""
    if id(type(value)) in _CONTAINERS:
        for member in list(value.values() if isinstance(value, dict) else value):
            yield from member if isinstance(member, tuple) else (member,)


def code_in(member: Any) -> Iterator[tuple[str, Any]]:
    """The attributes of an object that are functions or classes: what a decorator made of them, and keeps."""
    for name, value in sorted(held(member).items() if isinstance(held(member), dict) else ()):
        if isinstance(function_of(value), CODE):
            yield name, value


def _holds_code(value: Any) -> bool:
    """Whether a container holds functions or classes, or what was made of them."""
    return any(callable(one) or any(code_in(one)) for one in members(value))


def set_from_outside(
    cls: type,
    body: list[Any],
    stated: Stated,
    origins: Origins,
    is_other: Callable[[Any, Any], bool],
    *,
    module: str,
    assigned: Set[str],
    volatile: bool,
) -> Iterator[Attribute]:
    """The methods and data that were put into a class after its statement (`body`) had run; where that is `volatile` the methods alone.

    `is_other` tells whether a value is another than what is written, `assigned` are the names that statements of modules set, and
    `module` is where the class stands.
    """
    for name, value in sorted(vars(cls).items(), key=_name):
        function = function_of(value)
        if isinstance(function, types.FunctionType) and origins.of(home(function)) == "user":
            own = stated.functions.get(name)
            here = own is not None and _is_from(function, module, own)
            as_stated = here or (name not in assigned and (is_assigned(body, name) or (own and own.decorator_list)))
            if not as_stated and not function.__code__.co_filename.startswith(GENERATED):
                yield Attribute(name, function)
        elif isinstance(value, functools.singledispatchmethod):
            found = [(kind, one, function_of(one)) for kind, one in dispatch_registry(value.dispatcher) or ()]
            added = [(k, one) for k, one, f in found if not any(_is_from(f, module, statement) for statement in body)]
            if added:
                yield Attribute(name, added)
        elif volatile:
            continue
        elif is_plain(value):
            if name.startswith("_") and name not in assigned:
                continue
            is_computed = name not in stated.literals and name not in assigned and is_assigned(body, name)
            if not is_computed and stated.literals.get(name, MISSING) != value:
                yield Attribute(name, value)
        elif _is_set(cls, name, value, stated, origins, is_other, is_assigned=name in assigned):
            yield Attribute(name, value, is_data=True)


def _is_from(function: Any, module: str, node: Any) -> bool:
    """Whether a function was defined within a statement of a module."""
    return isinstance(function, types.FunctionType) and home(function) == module and is_within(function.__code__, node)


def _is_set(
    cls: type,
    name: str,
    value: Any,
    stated: Stated,
    origins: Origins,
    is_other: Callable[[Any, Any], bool],
    *,
    is_assigned: bool,
) -> bool:
    """Whether a class holds more in an attribute than its statement says: a registry that was filled, or another value."""
    if is_special(name) or any(
        name in vars(base) for base in cls.__mro__[1:] if origins.of(base.__module__) != "user"
    ):  # the affair of a base, as pydantic's `model_config` is
        return False
    if name not in stated.names:
        return is_assigned or not name.startswith("_")
    if id(type(value)) not in _CONTAINERS:
        return is_assigned
    written = stated.literals.get(name, MISSING)
    if written is not MISSING and (is_plain(written) or name in stated.sizes):
        return is_other(written, value)
    return len(value) != stated.sizes.get(name, len(value))
