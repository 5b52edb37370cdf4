"""Names: what does a free name stand for when everything is loaded?

A chain like `helpers.clean.cache` is looked up in closure cells, globals and built-ins, and walked through the user's
modules as far as it goes. A global is traced to the module that it was imported from; what is external gets the dotted path
by which it is imported, so that an alias is the same as the full name.
"""

from __future__ import annotations

import builtins
import functools
import importlib
import importlib.util
import os
import sys
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import PurePath
from typing import Any, NamedTuple

from assetcore.fingerprint.definitions import Definition, Key, Mention, Section
from assetcore.fingerprint.files import Site, SourceFile, source_file
from assetcore.fingerprint.hazards import hazard_of, is_folder, is_place_of_code, is_volatile, is_volatile_within
from assetcore.fingerprint.objects import MISSING, Itself, function_of, home, static_attribute, unwrapped, wrapped
from assetcore.fingerprint.orders import Called, depends_on_order, lists_folder, unordered
from assetcore.fingerprint.origins import Origins
from assetcore.fingerprint.scopes import Imported
from assetcore.fingerprint.values import TYPING, is_plain

__all__ = ["BY_NAME", "Binding", "Located", "Names", "Place", "module_name"]

BY_NAME = frozenset({
    "importlib.import_module", "builtins.__import__", "sys.modules", "sys.modules.get", "builtins.globals",
})  # fmt: skip
"""Where modules and globals are looked up by their names."""

MACHINE = frozenset({"__file__", "__path__", "__spec__", "__loader__", "__cached__", "__package__", "__builtins__"})
"""Globals of a module whose values belong to the machine."""

UNORDERED = (set, frozenset, int, float, type(None))
"""What has no order of members, whatever it was made of."""

Binding = tuple[str, str]
"""A module's name and the name of a global in it."""


@dataclass(slots=True)
class Place:
    """Where names are resolved: the globals and closure cells of a definition, and the file it stands in."""

    part: str
    module: str
    variables: Mapping[str, Any]
    file: SourceFile | None
    cells: Mapping[str, Any] = field(default_factory=dict)

    def within(self, part: str, cells: Mapping[str, Any] | None = None) -> Place:
        """The same place, for another part."""
        return Place(part, self.module, self.variables, self.file, self.cells if cells is None else cells)

    def syntax(self, function: types.FunctionType) -> tuple[list[Any], Site | None]:
        """The syntax that a function of this place was compiled from, and where it stands if it is not a lambda."""
        if self.file is None:
            return [], None
        if function.__code__.co_name == "<lambda>":
            return list(self.file.lambda_(function.__code__)), None
        site = self.file.function(function.__code__)
        return ([site.node] if site else []), site

    def owner(self, site: Site) -> type | None:
        """The class in whose statement a method is defined."""
        value: Any = self.variables
        for name in site.qualname.split(".")[:-1]:
            inside = value if isinstance(value, Mapping) else vars(value) if isinstance(value, type) else {}
            value = inside.get(name)
        return value if isinstance(value, type) else None


class Located(NamedTuple):
    """What a name stands for: a value and the global that holds it, or the dotted path of something external, or neither."""

    value: Any
    binding: Binding | None = None
    path: str | None = None
    rest: tuple[str, ...] = ()
    cell: str | None = None


class Names:
    """Looks names up, for one walk: files are read once."""

    def __init__(self, origins: Origins) -> None:
        self._origins = origins
        self._files: dict[str, SourceFile | None] = {}

    def place(self, part: str, function: types.FunctionType) -> Place:
        """Where the names of a function are resolved."""
        variables = function.__globals__
        cells: dict[str, Any] = {}
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            try:
                cells[name] = cell.cell_contents
            except ValueError:  # not assigned yet
                continue
        file = self._file(function.__code__.co_filename, variables)
        return Place(part, str(variables.get("__name__", "?")), variables, file, cells)

    def module(self, name: str, part: str = "") -> Place:
        """Where the names of a module's own statements are resolved."""
        module = sys.modules.get(name)
        return Place(
            part, name, {} if module is None else vars(module), None if module is None else self.file_of(module)
        )

    def file_of(self, module: types.ModuleType) -> SourceFile | None:
        path = getattr(module, "__file__", None)
        return self._file(path, vars(module)) if isinstance(path, str) and path.endswith(".py") else None

    def is_extension(self, name: str) -> bool:
        """Whether a module was compiled, so that there is nothing to follow."""
        path = getattr(sys.modules.get(name), "__file__", None)
        return isinstance(path, str) and path.endswith(tuple(EXTENSION_SUFFIXES))

    def of_class(self, cls: type, binding: Binding | None) -> Place:
        """Where a class is defined; `__module__` may have been set, and each cell of a notebook is a file of its own."""

        def has_it(place: Place) -> bool:
            return place.file is not None and place.file.class_(cls) is not None

        said = self.module(cls.__module__)
        if has_it(said):
            return said
        functions = [f for f in vars(cls).values() if isinstance(f, types.FunctionType)]
        own = [f for f in functions if f.__code__.co_qualname.startswith(f"{cls.__qualname__}.")]
        found = [self.place("", function) for function in own] + ([self.module(binding[0])] if binding else [])
        if not any(map(has_it, found)):
            modules = sorted((n, m) for n, m in sys.modules.items() if isinstance(m, types.ModuleType))
            holding = [n for n, m in modules if vars(m).get(cls.__name__) is cls and self._origins.of(n) == "user"]
            found = [self.module(name) for name in holding]
        return next((place for place in found if has_it(place)), said)

    def _file(self, path: str, variables: Mapping[str, Any]) -> SourceFile | None:
        if path not in self._files:
            self._files[path] = source_file(path, variables)
        return self._files[path]

    def locate(self, mention: Mention, place: Place) -> list[Located]:
        """What a mention stands for, without following it."""
        name, rest = mention.names[0], mention.names[1:]
        if mention.imports:
            return [self.imported(imported, rest, place) for imported in mention.imports]
        if name in place.cells:
            return [self._descend(place.cells[name], rest)._replace(cell=name)]
        if name in MACHINE:
            return [Located(MISSING, path=f"module.{name}", rest=rest)]
        if name in place.variables:
            value = place.variables[name]
            if name == "__name__":
                return [Located(module_name(place.module, place.variables), (place.module, name), None, rest)]
            binding, path = self._trace(place.module, name, value, place.file, place.variables)
            return [self._descend(value, rest, binding, path)]
        if hasattr(builtins, name):
            return [Located(MISSING, path=f"builtins.{name}", rest=rest)]
        if place.file is not None and name in place.file.imports:  # for type checkers, or for another platform
            paths = [(_absolute(i, place.variables), i.attribute) for i in place.file.imports[name]]
            return [Located(MISSING, path=".".join(filter(None, path)), rest=rest) for path in paths]
        return [Located(MISSING, rest=rest)]

    def looked_up(self, where: str, key: Key, section: Section, place: Place) -> list[Located] | None:
        """What is looked up by a name; None if it is a module and the name is not in the code. Of globals any may be meant then."""
        name = self._text(section.mentions[key.name], place) if isinstance(key.name, int) else key.name
        if where == "builtins.globals":
            if name is not None:
                return self.locate(Mention((name,), 0), place.within(place.part, {})) if name in place.variables else []
            module = sys.modules.get(place.module)
            return [Located(module)] if module is not None and vars(module) is place.variables else []
        if not name:
            return None if name is None else []
        full = name.lstrip(".")
        rest = key.rest if where.startswith("sys.") else ()
        return [self.imported(Imported(full, None, len(name) - len(full)), rest, place)]

    def _text(self, mention: Mention, place: Place) -> str | None:
        """The text that a name stands for: a constant, or the name of a module."""
        for located in self.locate(mention, place):
            if type(located.value) is str and not located.rest:
                binding = located.binding
                return binding[0] if binding is not None and binding[1] == "__name__" else located.value
        return None

    def is_generic(self, mention: Mention, place: Place) -> bool:
        """Whether types in brackets behind a name make a type: of a class, but not of an enum, or of what `typing` has."""
        for located in self.locate(mention, place):
            value = located.value
            if value is MISSING and located.path is not None:
                first, *names = (*located.path.split("."), *located.rest)
                value = functools.reduce(_attribute, names, sys.modules.get(first, MISSING))
            if isinstance(value, type) and not hasattr(type(value), "__getitem__"):
                return True
            if type(value).__module__ in TYPING and getattr(value, "_name", "") != "Literal":
                return True
        return False

    def imported(self, imported: Imported, rest: tuple[str, ...], place: Place) -> Located:
        """What an import statement inside a function binds."""
        name = _absolute(imported, place.variables)
        attributes = rest if imported.attribute is None else (imported.attribute, *rest)
        if self._origins.of(name) != "user":
            return self._descend(sys.modules.get(name, MISSING), attributes, None, name)
        module = _loaded(name)
        return Located(MISSING, None, name, attributes) if module is None else self._descend(module, attributes)

    def _descend(
        self, value: Any, rest: tuple[str, ...], binding: Binding | None = None, path: str | None = None
    ) -> Located:
        """Go through the user's modules as far as the chain of attributes goes."""
        while isinstance(value, types.ModuleType):
            name = value.__name__
            if self._origins.of(name) != "user":
                patched = self._patched(value, rest)
                return patched or Located(MISSING, None, path or name, rest)
            if not rest:
                return Located(value)
            attribute, rest = rest[0], rest[1:]
            if attribute == "__dict__":
                return Located(value, rest=rest)
            if attribute in MACHINE:
                return Located(MISSING, path=f"module.{attribute}", rest=rest)
            variables = vars(value)
            if attribute not in variables:
                inner = _attribute(value, attribute) if "__getattr__" in variables else MISSING
                if inner is MISSING and "__path__" in variables:
                    inner = _loaded(f"{name}.{attribute}") or MISSING
                if inner is MISSING:
                    return Located(MISSING, rest=(attribute, *rest))
                value, binding, path = inner, (name, attribute), None
                continue
            held = variables[attribute]
            binding, path = self._trace(name, attribute, held, self.file_of(value), variables)
            value = held
        return Located(value, binding, path, rest)

    def _patched(self, module: types.ModuleType, rest: tuple[str, ...]) -> Located | None:
        """A function of the user that has been put into somebody else's module."""
        value: Any = module
        for i, attribute in enumerate(rest):
            value = vars(value).get(attribute) if isinstance(value, types.ModuleType | type) else None
            if isinstance(value, types.FunctionType) and self._origins.of(home(value)) == "user":
                return Located(value, None, None, rest[i + 1 :])
        return None

    def _trace(
        self, module: str, name: str, value: Any, file: SourceFile | None, variables: Mapping[str, Any], depth: int = 0
    ) -> tuple[Binding, str | None]:
        """Where a global comes from: the user's module and name that it was imported from, or its dotted path elsewhere."""
        here = (module, name)
        if file is None or depth > 20:
            return here, None
        for imported in [*file.imports.get(name, ()), *(i._replace(attribute=name) for i in file.star_imports)]:
            origin = _absolute(imported, variables)
            source = sys.modules.get(origin)
            if source is None:
                continue
            held = source if imported.attribute is None else _attribute(source, imported.attribute)
            if held is not value and (held is MISSING or not is_plain(value) or held != value):
                continue
            if self._origins.of(origin) != "user":
                return here, origin if imported.attribute is None else f"{origin}.{imported.attribute}"
            if imported.attribute is not None and not isinstance(value, types.ModuleType):
                return self._trace(origin, imported.attribute, value, self.file_of(source), vars(source), depth + 1)
        return here, None

    def is_volatile(self, binding: Binding) -> bool:
        """Whether a global is made with something that differs between machines or moments; then its value cannot count.

        It does where the folder of the code only tells which file is read, or which modules are imported.
        """
        differing = list(self._differing_in(binding, set()))
        if not differing or not all(map(is_place_of_code, differing)):
            return bool(differing)
        place = self.module(binding[0])
        definition = place.file.statements(binding[1]) if place.file is not None else None
        return definition is None or not self._reads_file(definition, place)

    def reads_beside(self, definition: Definition, place: Place, data: bytes) -> bool:
        """Whether a value that statements make, written as `data`, is what they read from a file, and tells nothing of where that lies."""
        differing = self._differing(definition, place, set())
        is_read = self._reads_file(definition, place) and all(map(is_place_of_code, differing))
        return is_read and not self._is_ordered(definition, place) and not _tells_folder(data, place)

    def uses_volatile(self, definition: Definition, place: Place) -> bool:
        """Whether statements use something that differs between machines or moments."""
        return next(self._differing(definition, place, set()), None) is not None

    def _differing_in(self, binding: Binding, seen: set[Binding]) -> Iterator[str]:
        """What differs of all that a global is made with."""
        if binding in seen:
            return
        seen.add(binding)
        place = self.module(binding[0])
        definition = place.file.statements(binding[1]) if place.file is not None else None
        if definition is None:
            return
        if not isinstance(place.variables.get(binding[1]), UNORDERED) and self._is_ordered(definition, place):
            yield "builtins.set"
        yield from self._differing(definition, place, seen)

    def _differing(self, definition: Definition, place: Place, seen: set[Binding]) -> Iterator[str]:
        """The same of statements."""
        for mention in definition.body.mentions:
            for located in self.locate(mention, place):
                if located.path is not None:
                    path = ".".join((located.path, *located.rest))
                    if path.startswith("module.__") or (self._origins.of(path) != "user" and is_volatile(path)):
                        yield path
                elif located.binding is not None and not callable(located.value):
                    yield from self._differing_in(located.binding, seen)

    def _reads_file(self, definition: Definition, place: Place) -> bool:
        found = (located for mention in definition.body.mentions for located in self.locate(mention, place))
        paths = [".".join((one.path, *one.rest)) for one in found if one.path is not None]
        read = any(code == "AC102" for code, _, _ in definition.hazards) or "AC102" in map(hazard_of, paths)
        return (read or not BY_NAME.isdisjoint(paths)) and not lists_folder(definition.normal.body)

    def below(self, package: types.ModuleType) -> Iterator[types.ModuleType]:
        """The modules of a package that it imports itself; what else of it is loaded is another matter in every program."""
        file, variables = self.file_of(package), vars(package)
        imported = [one for found in file.imports.values() for one in found] if file is not None else []
        loaded = {".".join(filter(None, (_absolute(one, variables), one.attribute))) for one in imported}
        by_name = any(one.module.partition(".")[0] in ("importlib", "pkgutil") for one in imported)
        for _, module in sorted(variables.items()):
            name = module.__name__ if isinstance(module, types.ModuleType) else ""
            is_own = by_name or any(f"{one}.".startswith(f"{name}.") for one in loaded)
            if name.startswith(f"{package.__name__}.") and is_own:
                yield module
                yield from self.below(module)

    def registered(self, registry: Any) -> list[list[Any]]:
        """The keys of a dict under which definitions were put, in the order of those: for each module that has some.

        In which order modules are imported is another one in every program.
        """
        groups: dict[str, list[Any]] = {}
        for key, value in dict(registry).items() if isinstance(registry, dict) else ():
            one = next(iter(value), None) if isinstance(value, list | tuple) else value
            one = unwrapped(function_of(one))[0]
            if isinstance(one, types.FunctionType | type) and self._registers_itself(one):
                groups.setdefault(home(one), []).append(key)
        return [groups[module] for module in sorted(groups) if len(groups[module]) > 1]

    def _registers_itself(self, one: types.FunctionType | type) -> bool:
        """Whether a definition of the user has a decorator, or a base that is told of it."""
        if self._origins.of(home(one)) != "user":
            return False
        if isinstance(one, types.FunctionType):
            site = self.place("", one).syntax(one)[1]
        else:
            bases = [base for base in one.__mro__[1:] if self._origins.of(base.__module__) == "user"]
            if any("__init_subclass__" in vars(base) for base in bases):
                return True
            place = self.of_class(one, None)
            site = place.file.class_(one) if place.file is not None else None
        return site is not None and bool(site.node.decorator_list)

    def _is_ordered(self, definition: Definition, place: Place) -> bool:
        """Whether a value that statements make has the order of a set, which differs between processes."""

        filled = dict[Binding, bool]()

        def resolve(names: tuple[str, ...], where: Place = place) -> Any:
            for located in self.locate(Mention(names, 0), where):
                value, rest = located.value, located.rest
                if isinstance(value, type) and rest:
                    value, rest = static_attribute(value, rest[0]), rest[1:]
                function = unwrapped(function_of(value))[0]
                if isinstance(function, types.FunctionType) and self._origins.of(home(function)) == "user":
                    its = self.place("", function)
                    nodes, _ = its.syntax(function)
                    return Called(nodes[0], functools.partial(resolve, where=its)) if len(nodes) == 1 else None
                if isinstance(value, dict) and located.binding is not None and is_filled(located.binding):
                    return frozenset[Any]()
                if not rest:
                    return value
            return None

        def is_filled(binding: Binding) -> bool:
            its = self.module(binding[0])
            made = its.file.statements(binding[1]) if its.file is not None else None
            if made is not None and binding not in filled:
                filled[binding] = False  # so far: it may be made of itself
                filled[binding] = binding[1] in unordered(made.normal.body, functools.partial(resolve, where=its))
            return filled.get(binding, False)

        takes, writes = place.file.takes_members(definition) if place.file is not None else (False, False)
        if not takes or not (writes or any(self._may_give_set(m, place) for m in definition.body.mentions)):
            return False
        return depends_on_order(definition.normal.body, resolve)

    def _may_give_set(self, mention: Mention, place: Place) -> bool:
        """Whether a name stands for a set, or for something of the user's that may give one."""
        for located in self.locate(mention, place):
            value = located.value
            if isinstance(value, set | frozenset | dict) or (isinstance(value, type) and located.rest):
                return True
            if callable(value) and not isinstance(value, type):
                return True
        return False

    def is_made_volatile(self, binding: Binding, data: bytes) -> bool:
        """The same by way of the user's functions and classes that a global is made by; `data` is its value, written.

        They may look for a folder to read a file there, which differs on no machine: so a folder counts if the value tells one.
        """
        place = self.module(binding[0])
        definition = place.file.statements(binding[1]) if place.file is not None else None
        if definition is None:
            return False
        told: bool | None = None
        for path in self._used_by(definition, place, {binding}):
            if not is_folder(path):
                return True
            told = _tells_folder(data, place) if told is None else told
            if told:
                return True
        return False

    def _used_by(self, definition: Definition, place: Place, seen: set[Any]) -> Iterator[str]:
        """What differs between machines or moments of all that the user's functions and classes use which a definition calls."""
        for i, mention in enumerate(definition.body.mentions):
            for located in self.locate(mention, place):
                path = ".".join((located.path, *located.rest)) if located.path is not None else ""
                if path:
                    if path.startswith("module.__") or (self._origins.of(path) != "user" and is_volatile_within(path)):
                        yield path
                elif callable(located.value):
                    if i in definition.body.called:
                        for inner, where in self._run_by(located, seen):
                            yield from self._used_by(inner, where, seen)
                elif located.binding is not None and located.binding not in seen:
                    seen.add(located.binding)
                    where = self.module(located.binding[0])
                    inner = where.file.statements(located.binding[1]) if where.file is not None else None
                    if inner is not None:
                        yield from self._used_by(inner, where, seen)

    def _run_by(self, located: Located, seen: set[Any]) -> Iterator[tuple[Definition, Place]]:
        """The definitions that run when something of the user is called."""
        called = located.value
        if isinstance(called, type) and located.rest:
            called = static_attribute(called, located.rest[0])
        while isinstance(called, functools.partial):
            called = called.func
        if not isinstance(called, type | types.FunctionType | types.MethodType):
            called = static_attribute(type(called), "__call__", called) if wrapped(called) is None else called
        called = unwrapped(function_of(called))[0]
        if (
            isinstance(called, types.FunctionType)
            and Itself(called) not in seen
            and self._origins.of(home(called)) == "user"
        ):
            seen.add(Itself(called))
            place = self.place("", called)
            site = place.file.function(called.__code__) if place.file is not None else None
            if place.file is not None and site is not None:
                yield place.file.define(site.node), place
        for cls in called.__mro__ if isinstance(called, type) else ():
            if Itself(cls) not in seen and self._origins.of(cls.__module__) == "user":
                seen.add(Itself(cls))
                place = self.of_class(cls, None)
                site = place.file.class_(cls) if place.file is not None else None
                if place.file is not None and site is not None:
                    yield place.file.making(site.node), place


def _tells_folder(data: bytes, place: Place) -> bool:
    """Whether a written value holds a folder of this machine: that of the code, of the user or of the process."""
    above = PurePath(str(place.variables.get("__file__", ""))).parents
    folders = [str(folder) for folder in above if len(folder.parts) > 2] + [os.getcwd(), os.path.expanduser("~")]
    return any(os.fsencode(folder) in data for folder in folders if len(folder) > 1)


def module_name(name: str, variables: Mapping[str, Any]) -> str:
    """A module's name; the one that is run as a script has the name it would have if it were imported."""
    if name not in ("__main__", "__mp_main__"):
        return name
    file = variables.get("__file__")
    return PurePath(str(file)).stem if file else name


def _absolute(imported: Imported, variables: Mapping[str, Any]) -> str:
    if not imported.level:
        return imported.module
    package = variables.get("__package__") or str(variables.get("__name__", "")).rpartition(".")[0]
    try:
        return importlib.util.resolve_name("." * imported.level + imported.module, package)
    except ImportError:
        return imported.module


def _loaded(name: str) -> types.ModuleType | None:
    """A module of the user; one that a function imports when it is called is imported now."""
    try:
        return sys.modules.get(name) or importlib.import_module(name)
    except Exception:
        return None


def _attribute(module: Any, name: str) -> Any:
    try:
        return getattr(module, name, MISSING)
    except Exception:
        return MISSING
