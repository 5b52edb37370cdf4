"""Objects: what can be told of an object without asking it?

Objects of users answer to any name, or raise; so nothing here calls them, and attributes are looked up where they are stored.
"""

from __future__ import annotations

import ast
import types
from collections.abc import Mapping
from typing import Any

from assetcore.fingerprint.definitions import Definition
from assetcore.fingerprint.encoding import children, constant, frame, sequence, text
from assetcore.fingerprint.files import literal, size
from assetcore.fingerprint.normal import first_line
from assetcore.fingerprint.origins import Origins
from assetcore.fingerprint.values import ValueWriter, is_plain

__all__ = [
    "BUILT_IN",
    "GENERATED",
    "MISSING",
    "Itself",
    "asset_key",
    "code_bytes",
    "defaults",
    "dependency_parameters",
    "dispatch_registry",
    "function_of",
    "has_third_party_base",
    "held",
    "home",
    "is_assigned",
    "is_made_anonymously",
    "is_special",
    "is_within",
    "literal_of",
    "runtime_path",
    "shown",
    "starts_empty",
    "static_attribute",
    "unwrapped",
    "wrapped",
    "written_order",
]

KEY = "__assetcore_key__"
DEPENDENCY = "__assetcore_dependency__"
MISSING: Any = object()
_MRO_OF, _MEMBERS_OF = (type.__dict__[name].__get__ for name in ("__mro__", "__dict__"))
"""What no metaclass can answer otherwise."""
GENERATED = ("<string>", "<attrs")
"""File names of methods that dataclasses, attrs and enum generate."""
BUILT_IN = (
    types.BuiltinFunctionType
    | types.MethodDescriptorType
    | types.WrapperDescriptorType
    | types.ClassMethodDescriptorType
)
"""Functions that are written in C."""


class Itself:
    """An object as a key, by its identity: it may have no hash, or be equal to others."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __hash__(self) -> int:
        return id(self.value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Itself) and other.value is self.value


def home(value: Any) -> str:
    """The module whose globals a function uses, or a class was made in; `functools.wraps` falsifies `__module__`."""
    if isinstance(value, types.FunctionType):
        name = str(value.__globals__.get("__name__", ""))
        return (
            "collections" if name.startswith("namedtuple_") else name
        )  # where the constructor of a named tuple is made
    return str(getattr(value, "__module__", "") or "")


def runtime_path(value: Any) -> str:
    if isinstance(value, types.FunctionType):
        return f"{home(value)}.{value.__code__.co_qualname}"
    owner = getattr(value, "__objclass__", None) or getattr(value, "__self__", None)
    module = (
        getattr(value, "__module__", None) or getattr(owner, "__module__", None) or getattr(owner, "__name__", None)
    )
    return f"{module or 'builtins'}.{getattr(value, '__qualname__', type(value).__qualname__)}"


def asset_key(value: Any) -> str | None:
    """The key of an asset; the class of all assets carries it as a property, which is not a key."""
    if isinstance(value, types.ModuleType) or not (hasattr(type(value), KEY) or KEY in held(value)):
        return None
    key = getattr(value, KEY, None)
    return key if isinstance(key, str) else None


def held(value: Any) -> Mapping[str, Any]:
    """What an object holds itself, without asking its `__getattr__`, or a `__dict__` of its own making."""
    if type(_of_class(type(value), "__dict__")) not in (types.GetSetDescriptorType, types.MemberDescriptorType):
        return {}
    try:
        return object.__getattribute__(value, "__dict__")
    except (AttributeError, TypeError):
        return {}


def function_of(value: Any) -> Any:
    """The function of a method, static method or class method; anything else as it is."""
    return value.__func__ if isinstance(value, (types.MethodType, staticmethod, classmethod)) else value


def wrapped(value: Any) -> Any:
    if isinstance(value, types.FunctionType):
        return value.__dict__.get("__wrapped__")
    return static_attribute(value, "__wrapped__")


def static_attribute(value: Any, name: str, default: Any = None) -> Any:
    """As `inspect.getattr_static`, whatever a metaclass says of its classes: in Python 3.13 that one compares and hashes them."""
    kind = type(value)
    if issubclass(kind, type):
        found = _of_class(value, name)
        found = _of_class(kind, name) if found is MISSING else found
    else:
        found, own = _of_class(kind, name), held(value)
        found = own[name] if name in own and not _is_first(found) else found
    return default if found is MISSING else found


def _of_class(cls: type, name: str) -> Any:
    for base in _MRO_OF(cls):
        if name in (members := _MEMBERS_OF(base)):
            return members[name]
    return MISSING


def _is_first(found: Any) -> bool:
    """Whether what a class has goes before what its objects hold: a property, a slot."""
    has = {name for name in ("__get__", "__set__", "__delete__") if _of_class(type(found), name) is not MISSING}
    return "__get__" in has and len(has) > 1


def unwrapped(value: Any) -> tuple[Any, int]:
    """The end of a chain of `__wrapped__`, and how many links it has; dispatchers are left, for they stand for many."""
    links = 0
    while links < 100 and (inner := wrapped(value)) is not None and dispatch_registry(value) is None:
        value = inner
        links += 1
    return value, links


def dispatch_registry(value: Any) -> list[tuple[type, Any]] | None:
    """The implementations of a `functools.singledispatch` function, by type."""
    registry = value.__dict__.get("registry") if isinstance(value, types.FunctionType) else None
    if not isinstance(registry, types.MappingProxyType):
        return None
    return sorted(registry.items(), key=lambda item: (item[0].__module__, item[0].__qualname__))


def defaults(function: types.FunctionType) -> dict[str, Any]:
    """The default values of a function's parameters."""
    positional = function.__code__.co_varnames[: function.__code__.co_argcount]
    given = function.__defaults__ or ()  # may have been set by hand, and be more than there are parameters
    pairs = zip(reversed(positional), reversed(given), strict=False)
    return dict(pairs) | (function.__kwdefaults__ or {})


def dependency_parameters(function: types.FunctionType) -> frozenset[str]:
    """The parameters whose defaults are dependencies; their expressions are in the recipe."""
    return frozenset(n for n, v in defaults(function).items() if hasattr(type(v), DEPENDENCY) or DEPENDENCY in held(v))


def has_third_party_base(cls: type, origins: Origins) -> bool:
    """Whether docstrings of a class can be read by third-party code; what is behind a base of assetcore is its own affair."""
    for base in cls.__bases__:
        origin = origins.of(base.__module__)
        if origin == "third-party" or (origin == "user" and has_third_party_base(base, origins)):
            return True
    inherited = any(type(base) is type(cls) for base in cls.__bases__)
    return not inherited and origins.of(type(cls).__module__) == "third-party"


def is_within(code: types.CodeType, node: Any) -> bool:
    """Whether code was compiled from within a definition; what dataclasses and attrs generate has no file."""
    if code.co_filename.startswith(GENERATED):
        return False
    return first_line(node) <= code.co_firstlineno <= (node.end_lineno or node.lineno)


def is_assigned(body: list[Any], name: str) -> bool:
    return any(
        isinstance(n, ast.Name) and n.id == name and isinstance(n.ctx, ast.Store) for s in body for n in ast.walk(s)
    )


def is_made_anonymously(cls: type) -> bool:
    """Whether `types.new_class` made a class, as `make_dataclass` does: it says to be of `types`, where it is not."""
    return cls.__module__ == "types" and not hasattr(types, cls.__qualname__)


def is_parametrized(cls: type) -> bool:
    """Whether pydantic made a class of a generic one and what stands in its brackets: `RootModel[Part]`."""
    made = vars(cls).get("__pydantic_generic_metadata__")
    return isinstance(made, dict) and made.get("origin") is not None


def is_special(name: str) -> bool:
    return name.startswith("__") and name.endswith("__")


def literal_of(definition: Definition) -> Any:
    match definition.normal.body:
        case [ast.Assign(value=value)]:
            return literal(value, MISSING)
        case _:
            return MISSING


def starts_empty(definition: Definition) -> bool:
    """Whether statements make an empty container, which is filled elsewhere: they have no loop."""
    match definition.normal.body:
        case [ast.Assign(value=value), *rest]:
            loops = (ast.For, ast.While, ast.comprehension)
            return size(value) == 0 and not any(isinstance(n, loops) for s in rest for n in ast.walk(s))
        case _:
            return False


def written_order(definition: Definition) -> bytes:
    """The keys of the dicts that statements write, in their order, which the value of a dict does not have."""
    displays: list[list[ast.expr | None]] = []
    for node in (node for statement in definition.normal.body for node in ast.walk(statement)):
        if isinstance(node, ast.Dict):
            displays.append(list(node.keys))
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dict":
            displays.append([ast.Constant(keyword.arg) for keyword in node.keywords])
    displays.append([key for statement in definition.normal.body for key in _keys(statement)])
    return sequence([children(keys) for keys in displays if len(keys) > 1])


def _keys(statement: ast.AST) -> list[ast.expr]:
    """The keys that a statement adds to a dict: `known["a"] = 1`, `known.update(a=1)`."""
    match statement:
        case ast.Assign(targets=[ast.Subscript(slice=key)]):
            return [key]
        case ast.Expr(value=ast.Call(func=ast.Attribute(attr="update"), keywords=keywords)):
            return [ast.Constant(keyword.arg) for keyword in keywords]
        case _:
            return []


def shown(name: str, value: Any) -> str:
    """A value for people, where the statement does not show it; only of plain data, which has no addresses."""
    try:
        written = repr(value) if _is_literal(value, 0) else ""
    except RecursionError:
        return ""
    return f"# {name} = {written[:1000]}" if written else ""


def _is_literal(value: Any, depth: int) -> bool:
    if is_plain(value):
        return True
    if depth > 5:
        return False
    if type(value) is list or type(value) is tuple:
        return all(_is_literal(item, depth + 1) for item in value)
    if type(value) is dict:
        return all(_is_literal(k, depth + 1) and _is_literal(v, depth + 1) for k, v in value.items())
    return False


def code_bytes(code: types.CodeType, writer: ValueWriter, names: set[str]) -> bytes:
    """What the compiler made of a function: instructions, names and constants."""
    names.update(code.co_names)
    constants = [
        code_bytes(c, writer, names) if isinstance(c, types.CodeType) else writer.write(c) for c in code.co_consts
    ]
    held = [*code.co_names, *code.co_varnames, *code.co_freevars, *code.co_cellvars]
    return frame(b"b", constant(code.co_code) + sequence([text(n) for n in held]) + sequence(constants))
