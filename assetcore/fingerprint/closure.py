"""The closure: to what does a function refer, through all of the user's own code?

The walk starts at the asset's function and resolves every free name as it is at run time, after everything is loaded. What it meets
becomes a part (a function, a class, a global, a module used as a value) or a label (the standard library, another asset,
a third-party package, whose version is pinned). Parts name each other by labels, never by digest, so cycles need no special care.
"""

from __future__ import annotations

import ast
import builtins
import functools
import importlib
import importlib.util
import inspect
import logging
import sys
import types
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any, NamedTuple

from assetcore.errors import DeclarationError
from assetcore.fingerprint.definitions import Definition, Imported, Mention, Section
from assetcore.fingerprint.encoding import constant, frame, sequence, text
from assetcore.fingerprint.files import Site, SourceFile, source_file
from assetcore.fingerprint.hazards import HAZARDS, Note, hazard_of, is_volatile
from assetcore.fingerprint.normal import FUNCTIONS, Variant, first_line
from assetcore.fingerprint.origins import Origins, distributions
from assetcore.fingerprint.values import Reference, ValueWriter, is_plain

__all__ = ["ROOT", "Closure", "Draft", "Keep"]

ROOT = "<asset>"
KEY = "__assetcore_key__"
DEPENDENCY = "__assetcore_dependency__"

_MISSING: Any = object()
_UNSEEN = frozenset({"__file__", "__path__", "__spec__", "__loader__", "__cached__", "__package__", "__builtins__"})
"""Globals of a module whose values belong to the machine."""

_READ_DATA = {"inspect.getdoc": "docstrings", "inspect.signature": "annotations", "inspect.get_annotations": "annotations",
              "typing.get_type_hints": "annotations", "inspect.getfullargspec": "annotations"}  # fmt: skip
_UNINTERESTED = frozenset({
    "builtins.property", "builtins.staticmethod", "builtins.classmethod", "functools.lru_cache", "functools.cache", "functools.wraps",
    "functools.cached_property", "functools.total_ordering", "contextlib.contextmanager", "contextlib.asynccontextmanager",
    "abc.abstractmethod", "typing.overload", "typing.override", "typing.final", "typing.no_type_check", "asyncio.coroutine",
})  # fmt: skip
"""Decorators of the standard library that do not read the annotations of what they decorate."""


_GENERATED = ("<string>", "<attrs")
"""File names of methods that dataclasses, attrs and enum generate."""


@dataclass(frozen=True, slots=True)
class Keep:
    """What a first walk found to be data: docstrings or annotations everywhere, or those of the parts `exposed` to third-party code."""

    docstrings: bool = False
    annotations: bool = False
    exposed: frozenset[str] = frozenset()


@dataclass(slots=True)
class Draft:
    """A part while the walk goes on: its sections are bytes with placeholders, and the references that stand in their places."""

    name: str
    short: str
    sections: list[tuple[str, bytes, list[tuple[Reference, ...]]]] = field(default_factory=list)
    note: str = ""
    definition: Definition | None = None
    variant: Variant = Variant()
    remark: str = ""
    """For people: what the source alone does not show."""
    decorated_by: list[Reference] = field(default_factory=list)
    """What decorates scopes that have a docstring."""

    @property
    def references(self) -> Iterable[Reference]:
        return (reference for _, _, groups in self.sections for group in groups for reference in group)


@dataclass(slots=True)
class _Place:
    """Where names are resolved: the globals and closure cells of a definition, and the file it stands in."""

    part: str
    module: str
    variables: Mapping[str, Any]
    file: SourceFile | None
    cells: Mapping[str, Any] = field(default_factory=dict)


class _Located(NamedTuple):
    """What a mention stands for at run time: a value and the global that holds it, or the dotted path of something external."""

    value: Any
    binding: tuple[str, str] | None = None
    path: str | None = None
    rest: tuple[str, ...] = ()
    cell: str | None = None


class Closure:
    """One walk. `drafts`, `environment` and `notes` are its results; `found` says what another walk has to keep."""

    def __init__(self, origins: Origins, keep: Keep) -> None:
        self.origins = origins
        self.keep = keep
        self.found = Keep()
        self.drafts: dict[str, Draft] = {}
        self.environment: dict[str, str] = {}
        self.notes: dict[tuple[str, str, str], Note] = {}
        self._names: dict[Hashable, str] = {}
        self._alive: list[Any] = []
        self._pending: deque[Callable[[], None]] = deque()
        self._root_ids: set[int] = set()
        self._root_outermost: Any = None

    def walk(self, function: Any, types_: Iterable[type]) -> None:
        """Follow everything from `function` on; `types_` are the classes of its arguments."""
        self._root(function, sorted(set(types_), key=lambda t: (t.__module__, t.__qualname__)))
        while self._pending:
            self._pending.popleft()()
        self._find_exposed()

    # The asset's own function

    def _root(self, function: Any, types_: list[type]) -> None:
        outer = function
        while _asset_key(outer) is not None:
            self._root_ids.add(id(outer))
            inner = inspect.getattr_static(outer, "__wrapped__", None)
            if inner is None:
                raise DeclarationError(f"{outer!r} is observed, not made: it has no function to fingerprint.")
            outer = inner
        inner, links = _unwrapped(outer)
        draft = Draft(ROOT, ROOT)
        self.drafts[ROOT] = draft
        if isinstance(inner, types.FunctionType):
            self._root_ids |= {id(outer), id(inner)}
            written_decorators = self._function(draft, inner)
            if written_decorators < links and outer is not inner:
                self._root_ids.discard(id(outer))
                self._value_section(draft, "wrappers", outer)
        else:
            self._value_section(draft, "value", outer)
        if types_:
            references = [(self._class(t, None),) for t in types_]
            draft.sections.append(("types", b"", sorted(references)))

    def _function(self, draft: Draft, function: types.FunctionType, writer: ValueWriter | None = None) -> int:
        """Fill `draft` with a function's own definition and what its closure holds; returns how many decorators are written on it."""
        code = function.__code__
        place = self._place(draft.name, function)
        nodes, site = self._nodes(function, place.file)
        if draft.name == ROOT:
            self._root_outermost = site.outermost.node if site else None
        if not nodes or place.file is None:
            self._bytecode(draft, function, place)
            return 0
        dependencies = _dependency_parameters(function)
        written = [self._definition(draft, place.file.define(node), place, dependencies) for node in nodes]
        if site is None or site.nested:
            self._captured(draft, function, place, site, writer, defaults=draft.name != ROOT)
        if len(nodes) > 1:
            self._note("AC109", draft.name, code.co_firstlineno, "cannot tell several lambdas of one line apart")
        return sum(written)

    def _nodes(self, function: types.FunctionType, file: SourceFile | None) -> tuple[list[Any], Site | None]:
        if file is None:
            return [], None
        if function.__code__.co_name == "<lambda>":
            return list(file.lambda_(function.__code__)), None
        site = file.function(function.__code__)
        return ([site.node] if site else []), site

    def _place(self, part: str, function: types.FunctionType) -> _Place:
        variables = function.__globals__
        cells: dict[str, Any] = {}
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            try:
                cells[name] = cell.cell_contents
            except ValueError:  # not assigned yet
                continue
        module = str(variables.get("__name__", "?"))
        return _Place(part, module, variables, source_file(function.__code__.co_filename, variables), cells)

    def _captured(
        self, draft: Draft, function: types.FunctionType, place: _Place, site: Site | None, writer: ValueWriter | None, *, defaults: bool
    ) -> None:
        """What a function made by another holds of it: closure cells, and defaults as they were when it was made."""
        held = {f"cell {n}": v for n, v in place.cells.items() if n != "__class__" and self._refer(v, None, None) is None}
        if defaults:
            positional = function.__code__.co_varnames[: function.__code__.co_argcount]
            given = function.__defaults__ or ()
            held |= {f"default {n}": v for n, v in zip(positional[len(positional) - len(given) :], given, strict=True)}
            held |= {f"default {n}": v for n, v in (function.__kwdefaults__ or {}).items()}
        opaque: list[str] = []
        for tag, value in sorted(held.items()):
            own = writer or self._writer()
            before, seen = len(own.references), len(own.opaque)
            data = own.write(value)
            draft.sections.append((tag, data, own.references[before:]))
            opaque += own.opaque[seen:]
            if writer is not None:
                del own.references[before:], own.opaque[seen:]
        outermost = site.outermost if site else None
        made_elsewhere = outermost is not None and outermost.node is not self._root_outermost
        if outermost is not None and (made_elsewhere or (opaque and draft.name == ROOT)):
            draft.sections.append(("factory", b"", [(self._node(place, outermost),)]))
        elif opaque:
            self._note("AC110", place.part, 0, f"holds {', '.join(dict.fromkeys(opaque))}")

    def _bytecode(self, draft: Draft, function: types.FunctionType, place: _Place) -> None:
        """No source: compare what the compiler made of it, which differs between Python versions, and follow the names in it."""
        name = function.__qualname__
        self._note("AC109", draft.name, 0, f"{name} has no source that can be read; its bytecode is compared, for this Python only")
        draft.note = "no source"
        writer = self._writer()
        names: set[str] = set()
        draft.sections.append(("bytecode", _code(function.__code__, writer, names), writer.references))
        mentions = tuple(Mention((n,), 0) for n in sorted(names & set(place.variables)))
        self._section(draft, "names", Section(b"", mentions), place)
        self._captured(draft, function, place, None, None, defaults=True)

    # Definitions

    def _definition(self, draft: Draft, definition: Definition, place: _Place, dependencies: frozenset[str] = frozenset()) -> int:
        """Add what counts of a definition; returns how many of its own decorators count."""
        draft.definition = definition
        for name in definition.reads_own_data:
            self._reads(name)
        for code, line, what in definition.hazards:
            self._note(code, place.part, line, what)
        if definition.name and draft.name != ROOT:
            draft.sections.append(("name", text(definition.name), []))
        body = self._section(draft, "body", definition.body, place)
        for mention in definition.imports:
            self._resolve(mention, place)
        docstrings: set[int] = set()
        annotations: set[int] = set()
        dropped: set[tuple[int, int]] = set()
        written = 0
        for number, scope in enumerate(definition.scopes):
            exposed = draft.name in self.keep.exposed
            interested = third_party = False
            for i, decorator in enumerate(scope.decorators):
                head = None if decorator.head is None else decorator.mentions[decorator.head]
                if head is not None and self._is_ours(head, place):
                    dropped.add((number, i))
                    continue
                written += number == 0
                groups = self._section(draft, f"decorator {number}.{i}", decorator, place)
                heads = () if decorator.head is None else groups[decorator.head]
                interested |= not decorator.accessor and not (heads and all(_is_uninterested(r) for r in heads))
                third_party |= any(r.origin == "third-party" for r in heads)
                draft.decorated_by += heads
            if not scope.is_class and (self.keep.annotations or exposed or interested) and scope.annotations.data:
                annotations.add(number)
                self._section(draft, f"annotations {number}", scope.annotations, place)
            for parameter, default in scope.defaults.items():
                if parameter not in dependencies and number == 0:
                    self._section(draft, f"default {parameter}", default, place)
            third_party |= any(r.origin == "third-party" for base in scope.bases if not number == 0 for r in body[base])
            docstring = definition.normal.docstrings[number]
            inherited = scope.parent is not None and scope.parent in docstrings and definition.scopes[scope.parent].is_class
            if third_party or inherited or self.keep.docstrings or exposed:
                docstrings.add(number)
                if docstring is not None:
                    draft.sections.append((f"docstring {number}", text(docstring), []))
        draft.variant = Variant(frozenset(docstrings), frozenset(annotations), frozenset(dropped), dependencies)
        return written

    def _section(self, draft: Draft, tag: str, section: Section, place: _Place) -> list[tuple[Reference, ...]]:
        """Resolve the mentions of a section and add it to the draft."""
        groups = [self._resolve(mention, place) for mention in section.mentions]
        for called, literal in section.literals:
            if any(_path(r) in ("importlib.import_module", "builtins.__import__") for r in groups[called]):
                groups[called] += self._import_by_name(literal, section.mentions[called], place)
        for argument, called in section.handed:
            if any(r.origin == "third-party" for r in groups[called]):
                self._expose(r.name for r in groups[argument] if r.kind == "part" and not r.rest)
        draft.sections.append((tag, section.data, groups))
        return groups

    def _import_by_name(self, literal: str | None, mention: Mention, place: _Place) -> tuple[Reference, ...]:
        if literal is None:
            self._note("AC101", place.part, mention.line, f"{'.'.join(mention.names)} with a computed name")
            return ()
        located = self._imported(Imported(literal.lstrip("."), None, len(literal) - len(literal.lstrip("."))), (), place)
        return (self._reference(located, mention, place),)

    def _is_ours(self, mention: Mention, place: _Place) -> bool:
        """Whether a decorator is assetcore's own: its arguments are in the recipe, or are for people."""
        for located in self._locate(mention, place):
            value = located.value
            if located.path is not None and self.origins.of(located.path) == "ours":
                return True
            while isinstance(value, functools.partial):
                value = value.func
            value = getattr(value, "__func__", value)
            if isinstance(value, types.FunctionType | type) and self.origins.of(_home(value)) == "ours":
                return True
            if value is not _MISSING and _asset_key(value) is not None:
                return True
        return False

    # Mentions

    def _resolve(self, mention: Mention, place: _Place) -> tuple[Reference, ...]:
        return tuple(self._reference(located, mention, place) for located in self._locate(mention, place))

    def _locate(self, mention: Mention, place: _Place) -> list[_Located]:
        """What a mention stands for, without following it."""
        name, rest = mention.names[0], mention.names[1:]
        if mention.imports:
            return [self._imported(imported, rest, place) for imported in mention.imports]
        if name in place.cells:
            return [self._descend(place.cells[name], rest)._replace(cell=name)]
        if name in _UNSEEN:
            return [_Located(_MISSING, path=f"module.{name}", rest=rest)]
        if name in place.variables:
            value = place.variables[name]
            if name == "__name__":
                return [_Located(_module_name(place.module, place.variables), (place.module, name), None, rest)]
            binding, path = self._trace(place.module, name, value, place.file, place.variables)
            return [self._descend(value, rest, binding, path)]
        if hasattr(builtins, name):
            return [_Located(_MISSING, path=f"builtins.{name}", rest=rest)]
        return [_Located(_MISSING, rest=rest)]

    def _imported(self, imported: Imported, rest: tuple[str, ...], place: _Place) -> _Located:
        """What an import statement inside a function binds."""
        name = _absolute(imported, place.variables)
        attributes = rest if imported.attribute is None else (imported.attribute, *rest)
        if self.origins.of(name) != "user":
            return self._descend(sys.modules.get(name, _MISSING), attributes, None, name)
        module = _loaded(name)
        return _Located(_MISSING, rest=attributes) if module is None else self._descend(module, attributes)

    def _descend(
        self, value: Any, rest: tuple[str, ...], binding: tuple[str, str] | None = None, path: str | None = None
    ) -> _Located:
        """Go through the user's modules as far as the chain of attributes goes."""
        while isinstance(value, types.ModuleType):
            name = value.__name__
            if self.origins.of(name) != "user":
                patched = self._patched(value, rest)
                return patched or _Located(_MISSING, None, path or name, rest)
            if not rest:
                return _Located(value)
            attribute, rest = rest[0], rest[1:]
            if attribute in _UNSEEN:
                return _Located(_MISSING, path=f"module.{attribute}", rest=rest)
            variables = vars(value)
            if attribute not in variables:
                inner = _loaded(f"{name}.{attribute}") if "__path__" in variables else None
                if inner is None:
                    return _Located(_MISSING, rest=(attribute, *rest))
                value, binding, path = inner, None, None
                continue
            held = variables[attribute]
            binding, path = self._trace(name, attribute, held, _module_file(value), variables)
            value = held
        return _Located(value, binding, path, rest)

    def _patched(self, module: types.ModuleType, rest: tuple[str, ...]) -> _Located | None:
        """A function of the user that has been put into somebody else's module."""
        value: Any = module
        for i, attribute in enumerate(rest):
            value = vars(value).get(attribute) if isinstance(value, types.ModuleType | type) else None
            if isinstance(value, types.FunctionType) and self.origins.of(_home(value)) == "user":
                return _Located(value, None, None, rest[i + 1 :])
        return None

    def _trace(
        self, module: str, name: str, value: Any, file: SourceFile | None, variables: Mapping[str, Any], depth: int = 0
    ) -> tuple[tuple[str, str], str | None]:
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
            if held is not value and (held is _MISSING or not is_plain(value) or held != value):
                continue
            if self.origins.of(origin) != "user":
                return here, origin if imported.attribute is None else f"{origin}.{imported.attribute}"
            if imported.attribute is not None and not isinstance(value, types.ModuleType):
                return self._trace(origin, imported.attribute, value, _module_file(source), vars(source), depth + 1)
        return here, None

    def _reference(self, located: _Located, mention: Mention, place: _Place) -> Reference:
        value, rest = located.value, located.rest
        if value is _MISSING:
            if located.path is None:
                self._note("AC112", place.part, mention.line, f"{'.'.join(mention.names)} is not defined")
                return Reference("undefined", ".".join(mention.names))
            return self._external(".".join((located.path, *rest)), place.part, mention.line)
        found = self._refer(value, located.binding, located.path, place.part, mention.line)
        if found is None:
            if located.cell is not None:
                found = Reference("cell", located.cell)
            else:
                found = self._binding(located.binding or (place.module, mention.names[0]), value)
        return found._replace(rest=(*found.rest, *rest))

    def _external(self, path: str, part: str = "", line: int = 0) -> Reference:
        """A label for something that is not followed; third-party packages are pinned."""
        top = path.partition(".")[0]
        origin = "standard" if path.startswith("module.__") else self.origins.of(path)
        if origin == "third-party":
            self.environment.update(distributions(top))
        if path in _READ_DATA:
            self._reads(_READ_DATA[path])
        if part and (code := hazard_of(path)) is not None:
            self._note(code, part, line, path.removeprefix("builtins."))
        return Reference("external", path, origin=origin)

    # Objects

    def _refer(
        self, value: Any, binding: tuple[str, str] | None, path: str | None, part: str = "", line: int = 0
    ) -> Reference | None:
        """The reference for what has an identity of its own; None for data."""
        if is_plain(value) and path is None:
            return None
        if id(value) in self._root_ids:
            return Reference("part", ROOT, ROOT)
        if (key := _asset_key(value)) is not None:
            return Reference("asset", key)
        if isinstance(value, types.ModuleType):
            if self.origins.of(value.__name__) == "user":
                return self._module(value, part, line)
            return self._external(path or value.__name__, part, line)
        if isinstance(value, logging.Logger | logging.LoggerAdapter):
            return Reference("logger", "")
        if isinstance(value, type):
            return self._class(value, path, part, line)
        if isinstance(value, types.FunctionType):
            inner, links = _unwrapped(value)
            if isinstance(inner, types.FunctionType) and self.origins.of(_home(inner)) == "user":
                return self._top_level(inner, links)
            if self.origins.of(_home(value)) != "user":
                return self._external(path or _runtime_path(value), part, line)
            return None
        if isinstance(value, types.BuiltinFunctionType | types.MethodDescriptorType | types.WrapperDescriptorType):
            return self._builtin(value, path, part, line)
        if path is not None and self.origins.of(path) != "user":
            return self._external(path, part, line)
        if callable(value):
            inner, links = _unwrapped(value)
            if links and isinstance(inner, types.FunctionType) and self.origins.of(_home(inner)) == "user":
                return self._top_level(inner, links)
        return self._decorated(binding) if binding is not None else None

    def _builtin(self, value: Any, path: str | None, part: str, line: int) -> Reference | None:
        owner = getattr(value, "__self__", None)
        if owner is not None and not isinstance(owner, types.ModuleType | type):
            return None  # a method of an object
        path = path or _runtime_path(value)
        if self.origins.of(path) == "user":
            self._note("AC107", part or ROOT, line, path)
            return Reference("extension", path)
        return self._external(path, part, line)

    def _top_level(self, function: types.FunctionType, links: int) -> Reference | None:
        """The part for a function that a module defines; None if it was made by another function, or wrapped later."""
        if id(function) in self._root_ids:
            return Reference("part", ROOT, ROOT)
        place = self._place("", function)
        nodes, site = self._nodes(function, place.file)
        if not nodes:
            return None if function.__code__.co_name == "<lambda>" or links else self._sourceless(function)
        if site is None or site.nested or links > len(site.node.decorator_list):
            return None
        if site.parent is not None:
            owner = self._owner(site, place)
            if owner is not None:
                return self._class(owner, None)._replace(rest=tuple(site.qualname.split(".")[1:]))
        return self._part(site.node, place, site.qualname, lambda draft: self._function(draft, function))

    def _sourceless(self, function: types.FunctionType) -> Reference:
        place = self._place("", function)
        return self._part(function, place, function.__qualname__, lambda draft: self._function(draft, function))

    def _owner(self, site: Site, place: _Place) -> type | None:
        value: Any = place.variables
        for name in site.qualname.split(".")[:-1]:
            value = value.get(name) if isinstance(value, Mapping) else vars(value).get(name) if isinstance(value, type) else None
        return value if isinstance(value, type) else None

    def _decorated(self, binding: tuple[str, str]) -> Reference | None:
        """A global whose object its `def` or `class` statement handed to a decorator: the statement is the definition."""
        module = sys.modules.get(binding[0])
        file = None if module is None else _module_file(module)
        if module is None or file is None:
            return None
        statements = file.bindings.get(binding[1], [])
        if len(statements) != 1 or not isinstance(statements[0], (*FUNCTIONS, ast.ClassDef)):
            return None
        place = _Place("", module.__name__, vars(module), file)
        return self._node(place, Site(statements[0], binding[1], None, statements[0].lineno))

    def _node(self, place: _Place, site: Site) -> Reference:
        """The part for a definition of which only the syntax is at hand."""

        def fill(draft: Draft) -> None:
            if place.file is not None:
                self._definition(draft, place.file.define(site.node), _Place(draft.name, place.module, place.variables, place.file))

        return self._part(site.node, place, site.qualname, fill)

    def _part(self, key: Hashable, place: _Place, qualname: str, fill: Callable[[Draft], Any]) -> Reference:
        """The reference to a part, which is filled once, later."""
        name = self._names.get(key)
        if name is None:
            module = _module_name(place.module, place.variables)
            name = wanted = f"{module}.{qualname}" if qualname else module
            count = 1
            while name in self.drafts:
                count += 1
                name = f"{wanted}#{count}"
            self._names[key] = name
            self._alive.append(key)
            short = (qualname or module.rpartition(".")[2]) + name[len(wanted) :]
            draft = self.drafts[name] = Draft(name, short)
            self._pending.append(lambda: fill(draft))
        return Reference("part", name, self.drafts[name].short)

    def _class(self, cls: type, path: str | None, part: str = "", line: int = 0) -> Reference:
        if _asset_key(cls) is not None:
            return Reference("asset", str(getattr(cls, KEY)))
        if self.origins.of(cls.__module__) != "user":
            return self._external(path or f"{cls.__module__}.{cls.__qualname__}", part, line)
        module = sys.modules.get(cls.__module__)
        variables = vars(module) if module is not None else {}
        functions = [f for f in vars(cls).values() if isinstance(f, types.FunctionType)]
        file = next((source_file(f.__code__.co_filename, variables) for f in functions if f.__globals__ is variables), None)
        file = (None if module is None else _module_file(module)) or file
        place = _Place("", cls.__module__, variables, file)
        return self._part(cls, place, cls.__qualname__, lambda draft: self._fill_class(draft, cls, place))

    def _fill_class(self, draft: Draft, cls: type, place: _Place) -> None:
        site = place.file.class_(cls) if place.file is not None else None
        if site is None or place.file is None:
            self._made_class(draft, cls, _Place(draft.name, place.module, place.variables, place.file))
            return
        methods = [f for f in vars(cls).values() if isinstance(f, types.FunctionType) and _within(f.__code__, site.node)]
        cells = {n: v for f in methods for n, v in self._place("", f).cells.items() if n != "__class__"}
        place = _Place(draft.name, place.module, place.variables, place.file, cells)
        if _has_third_party_base(cls, self.origins):
            draft_exposed = Keep(self.keep.docstrings, self.keep.annotations, self.keep.exposed | {draft.name})
            kept, self.keep = self.keep, draft_exposed
            self._definition(draft, place.file.define(site.node), place)
            self.keep = kept
        else:
            self._definition(draft, place.file.define(site.node), place)
        self._captured_by_class(draft, cells)
        bases = [b for b in cls.__mro__[1:] if self.origins.of(b.__module__) == "user"]
        draft.sections.append(("bases", b"", [(self._class(b, None),) for b in bases]))
        self._set_from_outside(draft, cls, site)

    def _captured_by_class(self, draft: Draft, cells: Mapping[str, Any]) -> None:
        for name, value in sorted(cells.items()):
            if self._refer(value, None, None) is None:
                self._value_section(draft, f"cell {name}", value)

    def _made_class(self, draft: Draft, cls: type, place: _Place) -> None:
        """A class that no `class` statement makes (namedtuple, type(...), create_model): the statement that does, or its bases."""
        statements = place.file.statements(cls.__qualname__) if place.file is not None else None
        if statements is not None:
            self._definition(draft, statements, place)
        else:
            draft.note = "opaque"
            self._note("AC110", draft.name, 0, f"the class {cls.__qualname__}")
        draft.sections.append(("bases", text(cls.__qualname__), [(self._class(base, None),) for base in cls.__mro__[1:]]))

    def _set_from_outside(self, draft: Draft, cls: type, site: Site) -> None:
        """Methods and plain values that were put into a class after its statement had run."""
        stated = {s.name: s for s in site.node.body if isinstance(s, (*FUNCTIONS, ast.ClassDef))}
        literals = _literals(site.node.body)
        for name, value in sorted(vars(cls).items(), key=lambda item: item[0]):
            function = getattr(value, "__func__", value)
            if isinstance(function, types.FunctionType) and self.origins.of(_home(function)) == "user":
                own = stated.get(name)
                if own is not None and (own.decorator_list or _within(function.__code__, own)):
                    continue
                if function.__code__.co_filename.startswith(_GENERATED):
                    continue
                self._value_section(draft, f"set {name}", function)
            elif is_plain(value) and not name.startswith("_") and literals.get(name, _MISSING) != value:
                if name not in literals and _assigned(site.node.body, name):
                    continue  # computed by an expression, which is followed
                self._value_section(draft, f"set {name}", value)

    def _module(self, module: types.ModuleType, part: str, line: int) -> Reference:
        """A module used as a value: anything of it may be used, so all of it counts."""
        variables = vars(module)
        file = _module_file(module)
        if file is None and not hasattr(module, "__path__"):
            self._note("AC107", part or ROOT, line, module.__name__)
        place = _Place(module.__name__, module.__name__, variables, file)

        def fill(draft: Draft) -> None:
            draft.note = "coarse"
            draft.remark = f"# the module {draft.name} as a whole: it is used as a value"
            for name, value in sorted(variables.items()):
                if name.startswith("__") and name.endswith("__") or isinstance(value, types.ModuleType):
                    continue
                for reference in self._resolve(Mention((name,), 0), place):
                    if reference.origin == "user":
                        draft.sections.append((name, b"", [(reference,)]))

        return self._part(module.__name__, place, "", fill)

    # Globals

    def _binding(self, binding: tuple[str, str], value: Any) -> Reference:
        """The part for a global that holds data, or an object that only its statement describes."""
        module = sys.modules.get(binding[0])
        variables: Mapping[str, Any] = {} if module is None else vars(module)
        place = _Place("", binding[0], variables, None if module is None else _module_file(module))
        return self._part(binding, place, binding[1], lambda draft: self._fill_binding(draft, binding, value, place))

    def _fill_binding(self, draft: Draft, binding: tuple[str, str], value: Any, place: _Place) -> None:
        place = _Place(draft.name, place.module, place.variables, place.file)
        definition = place.file.statements(binding[1]) if place.file is not None else None
        if definition is not None and self._is_volatile(binding, set()):
            draft.note = "opaque"
            self._definition(draft, definition, place)
            return
        opaque = self._value_section(draft, "value", value, noted=False)
        if definition is not None:
            if opaque:
                draft.note = "opaque"
                self._definition(draft, definition, place)
                return
            draft.definition = definition
            if _literal_of(definition) != value or not is_plain(value):
                draft.remark = _shown(binding[1], value)
        else:
            draft.remark = _shown(binding[1], value)
            if opaque and type(value) is not object:
                draft.note = "opaque"
                self._note("AC110", draft.name, 0, f"a {opaque}")

    def _is_volatile(self, binding: tuple[str, str], seen: set[tuple[str, str]]) -> bool:
        """Whether a global is made with something that differs between machines or moments; then its value cannot count."""
        if binding in seen:
            return False
        seen.add(binding)
        module = sys.modules.get(binding[0])
        file = None if module is None else _module_file(module)
        definition = file.statements(binding[1]) if file is not None else None
        if module is None or definition is None:
            return False
        place = _Place("", module.__name__, vars(module), file)
        for mention in definition.body.mentions:
            for located in self._locate(mention, place):
                if located.path is not None:
                    path = ".".join((located.path, *located.rest))
                    if path.startswith("module.__") or (self.origins.of(path) != "user" and is_volatile(path)):
                        return True
                elif located.binding is not None and not callable(located.value) and self._is_volatile(located.binding, seen):
                    return True
        return False

    def _value_section(self, draft: Draft, tag: str, value: Any, *, noted: bool = True) -> str:
        """Add a value to a draft; returns what in it is opaque."""
        data, references, opaque = self._writer().value(value)
        draft.sections.append((tag, data, list(references)))
        if opaque and noted:
            self._note("AC110", draft.name, 0, f"a {opaque}")
        return opaque

    def _writer(self) -> ValueWriter:
        return ValueWriter(self._write_object, lambda cls: self._class(cls, None))

    def _write_object(self, value: Any, writer: ValueWriter) -> bytes | None:
        """Writes what is not data into a value: references, and functions that were made while running."""
        if (reference := self._refer(value, None, None)) is not None:
            return writer.reference(reference)
        if isinstance(value, types.FunctionType):
            if (registry := _dispatch_registry(value)) is not None:
                return frame(b"d", writer.write(value.__wrapped__) + writer.write(registry))  # type: ignore[attr-defined] # singledispatch sets it
            if self.origins.of(_home(value)) != "user" and (wrapped := _wrapped(value)) is not None:
                return frame(b"w", writer.reference(self._external(_runtime_path(value))) + writer.write(wrapped))
            return self._inline(value, writer)
        if isinstance(value, functools.partial):
            return frame(b"a", writer.write(value.func) + writer.write(value.args) + writer.write(value.keywords))
        if isinstance(value, types.MethodType):
            return frame(b"m", writer.write(value.__func__) + writer.write(value.__self__))
        if isinstance(value, staticmethod | classmethod):
            return frame(b"m", constant(type(value).__name__) + writer.write(value.__func__))
        if isinstance(value, property):
            return frame(b"m", writer.write((value.fget, value.fset, value.fdel)))
        if isinstance(value, types.BuiltinMethodType):
            return frame(b"m", constant(value.__name__) + writer.write(value.__self__))
        if callable(value) and (wrapped := _wrapped(value)) is not None:
            return frame(b"w", writer.reference(self._class(type(value), None)) + writer.write(wrapped))
        return None

    def _inline(self, function: types.FunctionType, writer: ValueWriter) -> bytes:
        """A lambda, or a function made by another: it has no name of its own, so it stands where it is used."""
        draft = Draft(f"{_home(function)}.{function.__code__.co_qualname}", "")
        self._function(draft, function, writer)
        pieces = []
        for tag, data, references in sorted(draft.sections, key=lambda section: section[0]):
            pieces.append(text(tag) + data)
            writer.references += references
        return frame(b"F", sequence(pieces))

    # Findings

    def _find_exposed(self) -> None:
        """Docstrings and annotations are data where a decorator of the user hands what it decorates to third-party code."""
        reaching = {d.name for d in self.drafts.values() if any(r.origin == "third-party" for r in d.references)}
        growing = True
        while growing:
            more = {d.name for d in self.drafts.values() if any(r.name in reaching for r in d.references)} - reaching
            growing = bool(more)
            reaching |= more
        for draft in self.drafts.values():
            if any(r.name in reaching for r in draft.decorated_by):
                self._expose([draft.name])

    def _expose(self, names: Iterable[str]) -> None:
        self.found = Keep(self.found.docstrings, self.found.annotations, self.found.exposed | set(names))

    def _reads(self, what: str) -> None:
        docstrings, annotations = self.found.docstrings or what == "docstrings", self.found.annotations or what == "annotations"
        self.found = Keep(docstrings, annotations, self.found.exposed)

    def _note(self, code: str, part: str, line: int, what: str) -> None:
        where = f"{part}, line {line}" if line else part
        self.notes.setdefault((code, part, what), Note(code, where, f"{HAZARDS[code].title}: {what}", HAZARDS[code].settle))


def _path(reference: Reference) -> str:
    return ".".join((reference.name, *reference.rest)) if reference.kind == "external" else ""


def _is_uninterested(reference: Reference) -> bool:
    """Whether a decorator does not read annotations; for the user's own functions, what they call tells."""
    return (reference.kind == "part" and not reference.rest) or _path(reference) in _UNINTERESTED


def _home(value: Any) -> str:
    """The module whose globals a function uses, or a class was made in; `functools.wraps` falsifies `__module__`."""
    if isinstance(value, types.FunctionType):
        return str(value.__globals__.get("__name__", ""))
    return str(getattr(value, "__module__", "") or "")


def _runtime_path(value: Any) -> str:
    if isinstance(value, types.FunctionType):
        return f"{_home(value)}.{value.__code__.co_qualname}"
    owner = getattr(value, "__objclass__", None) or getattr(value, "__self__", None)
    module = getattr(value, "__module__", None) or getattr(owner, "__module__", None) or getattr(owner, "__name__", None)
    return f"{module or 'builtins'}.{getattr(value, '__qualname__', type(value).__qualname__)}"


def _asset_key(value: Any) -> str | None:
    """The key of an asset declared elsewhere; classes of assetcore carry it as a property, which is not a key."""
    if isinstance(value, types.ModuleType) or not (hasattr(type(value), KEY) or KEY in getattr(value, "__dict__", ())):
        return None
    key = getattr(value, KEY, None)
    return key if isinstance(key, str) else None


def _wrapped(value: Any) -> Any:
    if isinstance(value, types.FunctionType):
        return value.__dict__.get("__wrapped__")
    return inspect.getattr_static(value, "__wrapped__", None)


def _unwrapped(value: Any) -> tuple[Any, int]:
    """The end of a chain of `__wrapped__`, and how many links it has; dispatchers are left, for they stand for many."""
    links = 0
    while links < 100 and (wrapped := _wrapped(value)) is not None and _dispatch_registry(value) is None:
        value = wrapped
        links += 1
    return value, links


def _dispatch_registry(value: Any) -> list[tuple[type, Any]] | None:
    """The implementations of a `functools.singledispatch` function, by type."""
    registry = getattr(value, "__dict__", {}).get("registry") if isinstance(value, types.FunctionType) else None
    if not isinstance(registry, types.MappingProxyType):
        return None
    return sorted(registry.items(), key=lambda item: (item[0].__module__, item[0].__qualname__))


def _dependency_parameters(function: types.FunctionType) -> frozenset[str]:
    """The parameters whose defaults are dependencies; their expressions are in the recipe."""
    positional = function.__code__.co_varnames[: function.__code__.co_argcount]
    given = function.__defaults__ or ()
    defaults = dict(zip(positional[len(positional) - len(given) :], given, strict=True)) | (function.__kwdefaults__ or {})
    return frozenset(name for name, value in defaults.items() if hasattr(type(value), DEPENDENCY) or _holds_dependency(value))


def _holds_dependency(value: Any) -> bool:
    return DEPENDENCY in getattr(value, "__dict__", ())


def _module_name(name: str, variables: Mapping[str, Any]) -> str:
    """A module's name; the one that is run as a script has the name it would have if it were imported."""
    if name not in ("__main__", "__mp_main__"):
        return name
    file = variables.get("__file__")
    return PurePath(str(file)).stem if file else name


def _module_file(module: types.ModuleType) -> SourceFile | None:
    path = getattr(module, "__file__", None)
    return source_file(path, vars(module)) if isinstance(path, str) and path.endswith(".py") else None


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
    except Exception:  # noqa: BLE001 - the user's module may raise anything; the caller says that the name is not defined
        return None


def _attribute(module: types.ModuleType, name: str) -> Any:
    try:
        return getattr(module, name, _MISSING)
    except Exception:  # noqa: BLE001 - a module's own __getattr__ may raise anything
        return _MISSING


def _has_third_party_base(cls: type, origins: Origins) -> bool:
    """Whether docstrings of a class can be read by third-party code; what is behind a base of assetcore is its own affair."""
    for base in cls.__bases__:
        origin = origins.of(base.__module__)
        if origin == "third-party" or (origin == "user" and _has_third_party_base(base, origins)):
            return True
    inherited = any(type(base) is type(cls) for base in cls.__bases__)
    return not inherited and origins.of(type(cls).__module__) == "third-party"


def _within(code: types.CodeType, node: Any) -> bool:
    """Whether code was compiled from within a definition; what dataclasses and attrs generate has no file."""
    return not code.co_filename.startswith(_GENERATED) and first_line(node) <= code.co_firstlineno <= (node.end_lineno or node.lineno)


def _literals(body: list[Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for statement in body:
        targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
        value = getattr(statement, "value", None)
        for target in targets:
            if isinstance(target, ast.Name) and isinstance(value, ast.expr):
                literal = _literal(value)
                if literal is not _MISSING:
                    found[target.id] = literal
    return found


def _assigned(body: list[Any], name: str) -> bool:
    return any(isinstance(n, ast.Name) and n.id == name and isinstance(n.ctx, ast.Store) for s in body for n in ast.walk(s))


def _literal(expression: ast.expr) -> Any:
    try:
        return ast.literal_eval(expression)
    except (ValueError, TypeError, MemoryError, RecursionError):
        return _MISSING


def _literal_of(definition: Definition) -> Any:
    match definition.normal.body:
        case [ast.Assign(value=value)]:
            return _literal(value)
        case _:
            return _MISSING


def _shown(name: str, value: Any) -> str:
    """A value for people, where the statement does not show it; only of plain data, which has no addresses."""
    try:
        shown = ast.unparse(ast.Constant(value)) if is_plain(value) else repr(value) if _is_literal(value, 0) else ""
    except RecursionError:
        return ""
    return f"# {name} = {shown[:1000]}" if shown else ""


def _is_literal(value: Any, depth: int) -> bool:
    if is_plain(value):
        return True
    if depth > 5:
        return False
    if type(value) in (list, tuple):
        return all(_is_literal(item, depth + 1) for item in value)
    if type(value) is dict:
        return all(_is_literal(k, depth + 1) and _is_literal(v, depth + 1) for k, v in value.items())
    return False


def _code(code: types.CodeType, writer: ValueWriter, names: set[str]) -> bytes:
    """What the compiler made of a function: instructions, names and constants."""
    names.update(code.co_names)
    constants = [_code(c, writer, names) if isinstance(c, types.CodeType) else writer.write(c) for c in code.co_consts]
    held = [*code.co_names, *code.co_varnames, *code.co_freevars, *code.co_cellvars]
    return frame(b"b", constant(code.co_code) + sequence([text(n) for n in held]) + sequence(constants))
