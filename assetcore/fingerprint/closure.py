"""The closure: to what does a function refer, through all of the user's own code?

The walk starts at the asset's function and resolves every free name as it is at run time, after everything is loaded.
What it meets becomes a part (a function, a class, a global, a module used as a value) or a label (the standard library,
another asset, a third-party package, whose version is pinned). Parts name each other by labels, never by digest, so cycles
need no special care.
"""

from __future__ import annotations

import ast
import functools
import logging
import types
import typing
from collections import deque
from collections.abc import Callable, Hashable, Iterable
from typing import Any

from assetcore.errors import DeclarationError
from assetcore.fingerprint.classes import Attribute, code_in, computed, filled, members, set_from_outside
from assetcore.fingerprint.definitions import Definition, Key, Mention, Section
from assetcore.fingerprint.drafts import ROOT, Draft, Findings, Keep
from assetcore.fingerprint.elsewhere import Elsewhere, Outside
from assetcore.fingerprint.encoding import constant, frame, sequence, text
from assetcore.fingerprint.files import Site, Stated
from assetcore.fingerprint.names import BY_NAME, Binding, Located, Names, Place, module_name
from assetcore.fingerprint.normal import FUNCTIONS, Variant
from assetcore.fingerprint.objects import (
    BUILT_IN,
    MISSING,
    Itself,
    asset_key,
    code_bytes,
    defaults,
    dependency_parameters,
    dispatch_registry,
    function_of,
    has_third_party_base,
    held,
    home,
    is_made_anonymously,
    is_parametrized,
    is_special,
    is_within,
    literal_of,
    runtime_path,
    shown,
    starts_empty,
    unwrapped,
    wrapped,
    written_order,
)
from assetcore.fingerprint.origins import Origins
from assetcore.fingerprint.values import TYPING, Reference, ValueWriter, is_plain

__all__ = ["Closure"]

UNINTERESTED = frozenset({
    "builtins.property", "builtins.staticmethod", "builtins.classmethod", "functools.lru_cache", "functools.cache",
    "functools.wraps", "functools.cached_property", "functools.total_ordering", "contextlib.contextmanager",
    "contextlib.asynccontextmanager",
    "abc.abstractmethod", "typing.overload", "typing.override", "typing.final", "typing.no_type_check",
})  # fmt: skip
"""Decorators of the standard library that do not read the annotations of what they decorate."""

ROOT_REFERENCE = Reference("part", ROOT, ROOT)


class Closure:
    """One walk; its results are `findings`."""

    def __init__(self, origins: Origins, keep: Keep) -> None:
        self.findings = Findings(origins, keep)
        self._origins = origins
        self._names = Names(origins)
        self._elsewhere = Elsewhere(origins, self._names)
        self._parts: dict[Hashable, str] = {}
        self._pending: deque[Callable[[], Any]] = deque()
        self._stated: set[str] = set()
        self._bases: set[Itself] = set()  # of classes that statements make: those name what they are made of
        self._used: set[tuple[str, Binding]] = set()
        self._packages: dict[str, types.ModuleType] = {}
        self._root_ids: set[int] = set()
        self._root_outermost: Any = None

    def walk(self, function: Any, types_: Iterable[type]) -> Findings:
        """Follow everything from `function` on; `types_` are the classes of its arguments."""
        self._root(function, sorted(types_, key=lambda t: (t.__module__, t.__qualname__)))
        while self._pending:
            self._pending.popleft()()
        self.findings.expose_decorated()
        return self.findings

    # Functions

    def _root(self, function: Any, types_: list[type]) -> None:
        """The asset's own function, or whatever callable stands in its place."""
        outer = function
        while asset_key(outer) is not None:
            self._root_ids.add(id(outer))
            if (inside := wrapped(outer)) is None:
                raise DeclarationError(f"{outer!r} is observed, not made: it has no function to fingerprint.")
            outer = inside
        inner, links = unwrapped(outer)
        draft = self.findings.drafts[ROOT] = Draft(ROOT, ROOT)
        if isinstance(inner, types.FunctionType):
            self._root_ids |= {id(outer), id(inner)}
            written = self._function(draft, inner)
            if written < links:  # wrapped by calls that no decorator shows
                self._root_ids.discard(id(outer))
                self._value(draft, "wrappers", outer)
        else:
            self._value(draft, "value", outer)
        if types_:
            draft.add("types", b"", *sorted(self._class(t) for t in types_))

    def _function(self, draft: Draft, function: types.FunctionType, writer: ValueWriter | None = None) -> int:
        """Fill a draft with a function's own definition and what it holds; returns how many decorators are written on it."""
        place = self._names.place(draft.name, function)
        nodes, site = place.syntax(function)
        if draft.name == ROOT:
            self._root_outermost = site.outermost.node if site else None
        if not nodes or place.file is None:
            self._bytecode(draft, function, place)
            return 0
        dependencies = dependency_parameters(function)
        written = [self._definition(draft, place.file.define(node), place, dependencies) for node in nodes]
        if site is None or site.nested:
            self._captured(draft, function, place, site, writer)
        elif site.parent is None:
            if (changes := place.file.changes(site.qualname)) is not None:
                self._section(draft, "changes", changes.body, place)
            stands = place.variables.get(site.qualname)
            if held(stands).keys() - {"__wrapped__"} and asset_key(stands) is None:
                outside = self._elsewhere.of(stands, place.module, "changes")
                self._changed_elsewhere(draft, outside)
                statements = [(one.definition, one.place) for one in outside] + ([(changes, place)] if changes else [])
                if not any(self._names.uses_volatile(*statement) for statement in statements):
                    for name, value in filled(stands, [definition for definition, _ in statements]):
                        opaque = self._value(draft, f"filled {name}", value, noted=False)
                        self._order(draft, name, value)
                        self._kept(draft, value, opaque)
        if len(nodes) > 1:
            line = function.__code__.co_firstlineno
            self.findings.note(
                "AC109", draft.name, line, "several lambdas of one line, which this Python cannot tell apart"
            )
        return sum(written)

    def _captured(
        self,
        draft: Draft,
        function: types.FunctionType,
        place: Place,
        site: Site | None,
        writer: ValueWriter | None = None,
    ) -> None:
        """What a function made by another holds of it: closure cells, and defaults as they were when it was made."""
        holds = {f"cell {n}": v for n, v in place.cells.items() if n != "__class__" and self._refer(v) is None}
        if draft.name != ROOT:
            holds |= {f"held default {name}": value for name, value in defaults(function).items()}
        opaque: list[str] = []
        for tag, value in sorted(holds.items()):
            own = self._writer() if writer is None else writer.beside()
            data, references, strange = own.value(value)
            draft.sections.append((tag, data, list(references)))
            opaque += [strange] if strange else []
        outermost = site.outermost if site else None
        elsewhere = outermost is not None and outermost.node is not self._root_outermost
        if outermost is not None and (elsewhere or (opaque and draft.name == ROOT)):
            draft.add("factory", b"", self._node(place, outermost))
        elif opaque:
            self.findings.note("AC110", place.part, 0, f"{function.__qualname__} holds a {', '.join(opaque)}")
        if writer is not None:
            writer.opaque += opaque

    def _bytecode(self, draft: Draft, function: types.FunctionType, place: Place) -> None:
        """No source: compare what the compiler made of it, which differs between Python versions, and follow the names in it."""
        what = f"{function.__qualname__} is compared by its bytecode, which every Python version compiles differently"
        self.findings.note("AC109", draft.name, 0, what)
        draft.note = "no source"
        writer, names = self._writer(), set[str]()
        draft.sections.append(("bytecode", code_bytes(function.__code__, writer, names), writer.references))
        mentions = tuple(Mention((name,), 0) for name in sorted(names & set(place.variables)))
        self._section(draft, "names", Section(b"", mentions), place)
        self._captured(draft, function, place, None)

    def _top_level(self, function: types.FunctionType, links: int) -> Reference | None:
        """The part for a function that a module defines; None if another function made it, or something wrapped it later."""
        if id(function) in self._root_ids:
            return ROOT_REFERENCE
        place = self._names.place("", function)
        nodes, site = place.syntax(function)
        if not nodes and function.__code__.co_name != "<lambda>" and not links:
            return self._part(function, place, function.__qualname__, lambda draft: self._function(draft, function))
        if site is None or site.nested or links > len(site.node.decorator_list):
            return None
        if site.parent is not None and (owner := place.owner(site)) is not None:
            return self._class(owner)._replace(rest=tuple(site.qualname.split(".")[1:]))
        return self._part(site.node, place, site.qualname, lambda draft: self._function(draft, function))

    def _decorated(self, binding: Binding) -> Reference | None:
        """A global whose object its `def` or `class` statement handed to a decorator: the statement is the definition."""
        place = self._names.module(binding[0])
        statements = place.file.bindings.get(binding[1], []) if place.file is not None else []
        if len(statements) != 1 or not isinstance(statements[0], (*FUNCTIONS, ast.ClassDef)):
            return None
        found = self._node(place, Site(statements[0], binding[1], None, statements[0].lineno))
        self._stated.add(found.name)
        return found

    def _use(self, part: str, binding: Binding) -> None:
        """An object that only its statement describes may hand out what stands under its decorators: `@steps.step`, `@app.command()`.

        Whoever uses it reaches that too; whoever is decorated by it does not.
        """
        if (part, binding) in self._used:
            return
        self._used.add((part, binding))

        def fill() -> None:
            place = self._names.module(binding[0])
            if part not in self._stated or place.file is None:
                return
            found = [self._registered(node, place) for node in place.file.reaching(binding[1], "decorates")]
            value = place.variables.get(binding[1])
            if not is_plain(value):
                outside = {one.reach.node: one.place for one in self._elsewhere.of(value, binding[0], "decorates")}
                found += [self._registered(node, its) for node, its in outside.items()]
            if found:
                self.findings.drafts[part].add("decorates", b"", *found)

        self._pending.append(fill)

    def _registered(self, node: Any, place: Place) -> Reference:
        """What a decorator was handed; functions, classes and assets are known as objects."""
        value = place.variables.get(node.name)
        found = self._refer(value)
        if found is not None and (isinstance(value, type) or found.kind == "asset"):
            return found
        if found is not None and found.name in (ROOT, self._parts.get(node)):
            return found
        return self._node(place, Site(node, node.name, None, node.lineno))

    def _node(self, place: Place, site: Site) -> Reference:
        """The part for a definition of which only the syntax is at hand."""

        def fill(draft: Draft) -> None:
            if place.file is not None:
                self._definition(draft, place.file.define(site.node), place.within(draft.name))

        return self._part(site.node, place, site.qualname, fill)

    def _part(self, key: Hashable, place: Place, qualname: str, fill: Callable[[Draft], Any]) -> Reference:
        """The reference to a part, which is filled once, later."""
        if key not in self._parts:
            module = module_name(place.module, place.variables)
            name = wanted = f"{module}.{qualname}" if qualname else module
            count = 1
            while name in self.findings.drafts:
                count += 1
                name = f"{wanted}#{count}"
            self._parts[key] = name
            short = (qualname or module.rpartition(".")[2]) + name[len(wanted) :]
            draft = self.findings.drafts[name] = Draft(name, short)
            self._pending.append(lambda: fill(draft))
        return self._known(key)

    def _known(self, key: Hashable) -> Reference:
        name = self._parts[key]
        return Reference("part", name, self.findings.drafts[name].short)

    # Definitions

    def _definition(
        self,
        draft: Draft,
        definition: Definition,
        place: Place,
        dependencies: frozenset[str] = frozenset(),
        *,
        documented: bool = False,
    ) -> int:
        """Add what counts of a definition; returns how many of its own decorators count. `documented`: its docstrings do."""
        keep = self.findings.keep
        exposed = draft.name in keep.exposed
        draft.definition = definition
        for name in definition.reads_own_data:
            self.findings.reads(name)
        for code, line, what in definition.hazards:
            self.findings.note(code, place.part, line, what)
        if definition.name and draft.name != ROOT:
            draft.add("name", text(definition.name))
        body = self._section(draft, "body", definition.body, place)
        for mention in definition.imports:
            self._resolve(mention, place)
        docstrings, annotations, dropped = set[int](), set[int](), set[tuple[int, int]]()
        for number, scope in enumerate(definition.scopes):
            interested, heads = self._decorators(draft, number, definition, place, dropped)
            if scope.annotations is not None and (interested or exposed or keep.annotations):
                annotations.add(number)
                self._section(draft, f"annotations {number}", scope.annotations.read(), place)
            for parameter, default in scope.defaults.items():
                if parameter not in dependencies:
                    self._section(draft, f"default {parameter}", default.read(), place)
            if number:  # the bases of the definition itself are known as objects
                heads = [*heads, *(r for base in scope.bases for r in body[base])]
            inherited = (
                scope.parent in docstrings and scope.parent is not None and definition.scopes[scope.parent].is_class
            )
            third_party = any(r.origin == "third-party" for r in heads)
            if third_party or inherited or exposed or keep.docstrings or (documented and number == 0):
                docstrings.add(number)
                if (docstring := definition.normal.docstrings[number]) is not None:
                    draft.add(f"docstring {number}", text(docstring))
        draft.variant = Variant(frozenset(docstrings), frozenset(annotations), frozenset(dropped), dependencies)
        own = len(definition.scopes[0].decorators) if definition.scopes else 0
        return own - sum(number == 0 for number, _ in dropped)

    def _decorators(
        self, draft: Draft, number: int, definition: Definition, place: Place, dropped: set[tuple[int, int]]
    ) -> tuple[bool, list[Reference]]:
        """Add the decorators of a scope that are not assetcore's; whether one may read annotations, and what they begin with."""
        interested, heads = False, list[Reference]()
        for i, decorator in enumerate(definition.scopes[number].decorators):
            mention = None if decorator.head is None else decorator.mentions[decorator.head]
            if mention is not None and self._is_ours(mention, place):
                dropped.add((number, i))
                continue
            groups = self._section(draft, f"decorator {number}.{i}", decorator, place)
            found = () if decorator.head is None else groups[decorator.head]
            interested |= not decorator.accessor and not (found and all(map(_is_uninterested, found)))
            heads += found
        draft.decorated_by += heads
        return interested, heads

    def _is_ours(self, mention: Mention, place: Place) -> bool:
        """Whether a decorator is assetcore's own: what it is given stands in the recipe, or is for people."""
        for located in self._names.locate(mention, place):
            value = located.value
            while isinstance(value, functools.partial):
                value = value.func
            value = function_of(value)
            if isinstance(value, types.FunctionType | type) and self._origins.of(home(value)) == "ours":
                return True
            if (located.path is not None and self._origins.of(located.path) == "ours") or asset_key(value) is not None:
                return True
        return False

    def _section(self, draft: Draft, tag: str, section: Section, place: Place) -> list[tuple[Reference, ...]]:
        """Resolve the mentions of a section and add it to the draft."""
        groups = [self._resolve(mention, place, used=i != section.head) for i, mention in enumerate(section.mentions)]
        if self._packages:
            groups = [(*found, *self._below(found)) for found in groups]
        for where, key in section.keys:
            for reference in groups[where]:
                if reference.origin == "standard" and reference.path in BY_NAME:
                    groups[where] += self._looked_up(reference.path, key, section, section.mentions[where], place)
        for i, (generic, quoted) in enumerate(section.quoted):
            if generic is None or self._names.is_generic(section.mentions[generic], place):
                self._section(draft, f"{tag} quoted {i}", quoted.read(), place)
        for argument, called in section.handed:
            if any(r.origin == "third-party" for r in groups[called]):
                self.findings.expose(r.name for r in groups[argument] if r.kind == "part" and not r.rest)
        draft.sections.append((tag, section.data, groups))
        return groups

    def _looked_up(
        self, path: str, key: Key, section: Section, mention: Mention, place: Place
    ) -> tuple[Reference, ...]:
        found = self._names.looked_up(path, key, section, place)
        if found is None:
            self.findings.note("AC101", place.part, mention.line, f"{'.'.join(mention.names)} with a computed name")
        return tuple(self._reference(one, mention, place) for one in found or ())

    def _resolve(self, mention: Mention, place: Place, *, used: bool = True) -> tuple[Reference, ...]:
        """What a mention stands for; it is `used` unless it is the decorator of a definition."""
        located = self._names.locate(mention, place)
        found = tuple(self._reference(one, mention, place) for one in located)
        for one, reference in zip(located, found, strict=True):
            if used and one.binding is not None and reference.kind == "part":
                self._use(reference.name, one.binding)
        return found

    def _reference(self, located: Located, mention: Mention, place: Place) -> Reference:
        """Follow what a name stands for."""
        if located.value is MISSING:
            if located.path is None:
                if not mention.annotation:
                    self.findings.note("AC112", place.part, mention.line, ".".join(mention.names))
                return Reference("undefined", ".".join(mention.names))
            found = self.findings.external(located.path)
            if found.origin == "user" and not mention.annotation:
                self.findings.note("AC112", place.part, mention.line, located.path)
        else:
            found = self._refer(located.value, located.binding, located.path)
            if found is None and located.cell is not None:
                found = Reference("cell", located.cell)
            elif found is None:
                found = self._binding(located.binding or (place.module, mention.names[0]), located.value)
        found = found._replace(rest=(*found.rest, *located.rest))
        if found.kind == "external":
            self.findings.used(found, place.part, mention.line)
        elif found.kind == "extension":
            self.findings.note("AC107", place.part, mention.line, found.name)
        return found

    # Objects

    def _refer(self, value: Any, binding: Binding | None = None, path: str | None = None) -> Reference | None:
        """The reference for what has an identity of its own; None for data, which its binding or holder encodes."""
        if is_plain(value) and path is None:
            return None
        if id(value) in self._root_ids:
            return ROOT_REFERENCE
        if (key := asset_key(value)) is not None:
            return ROOT_REFERENCE if id(unwrapped(value)[0]) in self._root_ids else Reference("asset", key)
        if isinstance(value, types.ModuleType):
            return self._module(value, path)
        if isinstance(value, logging.Logger | logging.LoggerAdapter):
            return Reference("logger", "")
        if isinstance(value, type):
            return self._class(value, path, binding)
        if dispatch_registry(value) is not None:
            return None
        if isinstance(value, BUILT_IN) or type(value).__name__ == "cython_function_or_method":
            return self._built_in(value, path)
        if callable(value):
            inner, links = unwrapped(value)
            if isinstance(inner, types.FunctionType) and self._origins.of(home(inner)) == "user":
                return self._top_level(inner, links)
        if path is not None and self._origins.of(path) != "user":
            return self.findings.external(path)
        if isinstance(value, types.FunctionType):
            return self.findings.external(runtime_path(value)) if self._origins.of(home(value)) != "user" else None
        return self._decorated(binding) if binding is not None else None

    def _built_in(self, value: Any, path: str | None) -> Reference | None:
        """A function written in C; None for a method of an object, whose object counts."""
        owner = getattr(value, "__self__", None)
        if owner is not None and not isinstance(owner, types.ModuleType | type):
            return None
        path = path or runtime_path(value)
        return Reference("extension", path) if self._origins.of(path) == "user" else self.findings.external(path)

    def _module(self, module: types.ModuleType, path: str | None) -> Reference:
        """A module used as a value: anything of it may be used, so all of it counts."""
        name, variables = module.__name__, vars(module)
        if self._origins.of(name) != "user":
            return self.findings.external(path or name)
        place = self._names.module(name, name)
        if self._names.is_extension(name):
            return Reference("extension", name)
        if "__path__" in variables:
            self._packages[module_name(name, variables)] = module

        def fill(draft: Draft) -> None:
            draft.note = "coarse"
            draft.remark = f"# all of {name}, which is used as a value"
            for attribute, value in sorted(variables.items()):
                if is_special(attribute) or isinstance(value, types.ModuleType):
                    continue
                found = self._resolve(Mention((attribute,), 0), place)
                draft.sections += [(attribute, b"", [(r,)]) for r in found if r.origin == "user"]

        return self._part(name, place, "", fill)

    def _below(self, found: Iterable[Reference]) -> list[Reference]:
        """The modules of packages that are used as values."""
        packages = [self._packages[one.name] for one in found if not one.rest and one.name in self._packages]
        return [self._module(module, None) for package in packages for module in self._names.below(package)]

    def _class(self, cls: type, path: str | None = None, binding: Binding | None = None) -> Reference:
        """A class: the user's as a whole, with its bases."""
        if self._origins.of(cls.__module__) != "user" and not is_made_anonymously(cls):
            return self.findings.external(path or f"{cls.__module__}.{cls.__qualname__}")
        key = Itself(cls)
        if key in self._parts:
            return self._known(key)
        if self._names.is_extension(cls.__module__):
            return Reference("extension", f"{cls.__module__}.{cls.__qualname__}")
        place = self._names.of_class(cls, binding)
        return self._part(key, place, cls.__qualname__, lambda draft: self._fill_class(draft, cls, place, binding))

    def _fill_class(self, draft: Draft, cls: type, place: Place, binding: Binding | None) -> None:
        site = place.file.class_(cls) if place.file is not None else None
        if place.file is None or site is None:
            self._made_class(draft, cls, place, binding)
            return
        methods = [f for f in vars(cls).values() if isinstance(f, types.FunctionType) and home(f) == place.module]
        methods = [f for f in methods if is_within(f.__code__, site.node)]
        cells = {n: v for f in methods for n, v in self._names.place("", f).cells.items() if n != "__class__"}
        stated = place.file.stated(site.node)
        documented = has_third_party_base(cls, self._origins)
        inside = place.within(draft.name, {**dict.fromkeys(site.enclosing), **cells})
        self._definition(draft, place.file.define(site.node), inside, documented=documented)
        for name, value in sorted(cells.items()):
            if self._refer(value) is None:
                self._value(draft, f"cell {name}", value)
        if draft.definition is not None and any(code == "AC102" for code, _, _ in draft.definition.hazards):
            self._read_in(draft, cls, site, place)
        if site.nested and site.outermost.node is not self._root_outermost:
            self._made_inside(draft, cls, site, place, methods, stated)
        bases = [b for b in cls.__mro__[1:] if self._origins.of(b.__module__) == "user"]
        self._bases |= set(map(Itself, bases))
        draft.add("bases", b"", *map(self._class, bases))
        self._set_from_outside(draft, cls, site, place.within(draft.name), stated)

    def _read_in(self, draft: Draft, cls: type, site: Site, place: Place) -> None:
        """What the statement of a class has read from files beside the code."""
        for name, made in place.file.assignments(site.node) if place.file is not None else ():
            data, references, opaque = self._writer().value(vars(cls).get(name))
            if name in vars(cls) and not opaque and self._names.reads_beside(made, place, data):
                draft.sections.append((f"read {name}", data, list(references)))

    def _made_inside(
        self, draft: Draft, cls: type, site: Site, place: Place, methods: list[types.FunctionType], stated: Stated
    ) -> None:
        """A class that a function makes: the function, and what its statement computed of that one's names, as it came out."""
        draft.add("factory", b"", self._node(place, site.outermost))
        volatile = place.file is not None and self._names.uses_volatile(place.file.making(site.node), place)
        for name, value in computed(cls, methods, stated, volatile=volatile):
            self._value(draft, f"held {name}", value)

    def _made_class(self, draft: Draft, cls: type, place: Place, binding: Binding | None) -> None:
        """A class that no `class` statement makes (namedtuple, type(...), create_model): the statement that does, and its bases."""
        statements = place.file.statements(cls.__qualname__) if place.file is not None else None
        if statements is None and binding is not None:  # it has another name there than its own
            place = self._names.module(binding[0])
            statements = place.file.statements(binding[1]) if place.file is not None else None
        place = place.within(draft.name)
        if statements is not None:
            self._definition(draft, statements, place)
        else:
            draft.note = "opaque"
            if not (is_parametrized(cls) and Itself(cls) in self._bases):
                self.findings.note("AC110", draft.name, 0, f"the class {cls.__qualname__}")
        draft.add("bases", text(cls.__qualname__), *(self._class(base) for base in cls.__mro__[1:]))

    def _set_from_outside(self, draft: Draft, cls: type, site: Site, place: Place, stated: Stated) -> None:
        """Methods and data that were put into a class after its statement had run."""
        changes, assigned, outside = None, frozenset[str](), list[Outside]()
        if place.file is not None and not site.nested:
            changes = place.file.changes(site.qualname)
            outside = self._elsewhere.of(cls, place.module, "changes")
            assigned = place.file.assigned(site.qualname) | {one.rest[0] for one in outside if len(one.rest) == 1}
        statements = [(one.definition, one.place) for one in outside] + ([(changes, place)] if changes else [])
        by_statement = volatile = any(self._names.uses_volatile(*statement) for statement in statements)
        other, module = self._is_other, place.module
        for one in set_from_outside(
            cls, site.node.body, stated, self._origins, other, module=module, assigned=assigned, volatile=volatile
        ):
            if not one.is_data:
                self._value(draft, f"set {one.name}", one.value)
            elif self._set_data(draft, one, is_noted=one.name in stated.names, is_assigned=one.name in assigned):
                by_statement = True
        if by_statement:
            if changes is not None:
                self._section(draft, "changes", changes.body, place)
            self._changed_elsewhere(draft, outside)

    def _is_other(self, written: Any, value: Any) -> bool:
        return self._writer().value(written) != self._writer().value(value)

    def _set_data(self, draft: Draft, one: Attribute, *, is_noted: bool, is_assigned: bool) -> bool:
        """What a class was given; of what libraries keep in it nothing can be told. Whether only a statement can tell what it is."""
        data, references, opaque = self._writer().value(one.value)
        if opaque and is_assigned:
            return True
        if opaque and (is_noted or self._origins.of(type(one.value).__module__) == "user"):
            self.findings.note("AC110", draft.name, 0, f"a {opaque}")
        if is_noted or not opaque:
            draft.sections.append((f"set {one.name}", data, list(references)))
            self._order(draft, one.name, one.value)
        return False

    # Data

    def _binding(self, binding: Binding, value: Any) -> Reference:
        """The part for a global that holds data, or an object that only its statement describes."""
        place = self._names.module(binding[0])
        return self._part(binding, place, binding[1], lambda draft: self._fill_binding(draft, binding, value, place))

    def _fill_binding(self, draft: Draft, binding: Binding, value: Any, place: Place) -> None:
        definition = place.file.statements(binding[1]) if place.file is not None else None
        volatile = definition is not None and self._names.is_volatile(binding)
        data, references, opaque = (b"", (), "") if volatile else self._writer().value(value)
        if not opaque:  # then it goes by its statement anyway
            volatile = volatile or self._names.is_made_volatile(binding, data)
        if not volatile:
            draft.sections.append(("value", data, list(references)))
        is_type = typing.get_origin(value) is not None or type(value).__module__ in TYPING
        if place.file is not None and (quoted := place.file.quoted(binding[1], is_type=is_type)) is not None:
            self._section(draft, "quoted", quoted, place.within(draft.name))
        if definition is not None and (volatile or opaque):
            draft.note = "opaque"
            self._stated.add(draft.name)
            self._definition(draft, definition, place.within(draft.name))
            self._handed(draft, binding[1], place.within(draft.name))
            if not volatile and len(definition.normal.body) == 1 and starts_empty(definition):
                self._kept(draft, value, opaque)
            if not is_plain(value):
                outside = self._elsewhere.of(value, binding[0], "changes", "calls", "hands")
                self._changed_elsewhere(draft, outside)
            return
        draft.definition = definition
        if definition is not None:
            draft.add("order", written_order(definition))
            if starts_empty(definition):
                self._order(draft, binding[1], value)
        if definition is None or not is_plain(value) or literal_of(definition) != value:
            draft.remark = shown(binding[1], value)
        if opaque and type(value) is not object:
            draft.note = "opaque"
            self.findings.note("AC110", draft.name, 0, f"a {opaque}")

    def _order(self, draft: Draft, name: str, registry: Any) -> None:
        """The order in which decorators filled a registry, which the value of a dict does not have."""
        if keys := self._names.registered(registry):
            self._value(draft, f"order of {name}", keys)

    def _kept(self, draft: Draft, registry: Any, opaque: str) -> None:
        """What a registry holds that only its type tells: the code in it counts, the rest is no statement's."""
        for i, member in enumerate(members(registry) if opaque else ()):
            if self._origins.of(type(member).__module__) == "user" and self._writer().value(member).opaque:
                self.findings.note("AC110", draft.name, 0, f"a {opaque}")
                for name, value in code_in(member):
                    self._value(draft, f"kept {i}.{name}", value, noted=False)

    def _handed(self, draft: Draft, name: str, place: Place) -> None:
        """The calls of the user's functions that a module hands an object to, for they may change it: `setup(client, retries=3)`."""
        if place.file is None:
            return
        calls = [r.node for r in place.file.reached.get(name, ()) if r.how == "hands" and len(r.names) == 1]
        for i, call in enumerate(calls):
            section = place.file.define(call).body
            if self._calls_user(section, place):
                self._section(draft, f"handed {i}", section, place)

    def _calls_user(self, section: Section, place: Place) -> bool:
        called = [one.value for i in section.called for one in self._names.locate(section.mentions[i], place)]
        return any(isinstance(c, types.FunctionType) and self._origins.of(home(c)) == "user" for c in called)

    def _changed_elsewhere(self, draft: Draft, outside: Iterable[Outside]) -> None:
        """The statements of other modules that change what a draft stands for."""
        found = {one.reach.node: one for one in outside}
        for i, one in enumerate(found.values()):
            place, section = one.place.within(draft.name), one.definition.body
            if one.reach.how != "hands" or self._calls_user(section, place):
                self._section(draft, f"elsewhere {i}", section, place)

    def _value(self, draft: Draft, tag: str, value: Any, *, noted: bool = True) -> str:
        """Add a value to a draft; returns what in it is opaque."""
        data, references, opaque = self._writer().value(value)
        draft.sections.append((tag, data, list(references)))
        if opaque and noted:
            self.findings.note("AC110", draft.name, 0, f"a {opaque}")
        return opaque

    def _writer(self) -> ValueWriter:
        return ValueWriter(self._write_object, self._class)

    def _write_object(self, value: Any, writer: ValueWriter) -> bytes | None:
        """Writes what is not data into a value: references, and what was made of functions while running."""
        if (reference := self._refer(value)) is not None:
            return writer.reference(reference)
        if (registry := dispatch_registry(value)) is not None:
            return frame(b"d", writer.write(wrapped(value)) + writer.write(registry))
        inner = wrapped(value) if callable(value) else None
        if inner is not None and (not isinstance(value, types.FunctionType) or self._origins.of(home(value)) != "user"):
            is_function = isinstance(value, types.FunctionType)
            by = self.findings.external(runtime_path(value)) if is_function else self._class(type(value))
            return frame(b"w", writer.reference(by) + writer.write(inner))
        match value:
            case types.FunctionType():
                return self._inline(value, writer)
            case functools.partial():
                return frame(b"a", writer.write(value.func) + writer.write(value.args) + writer.write(value.keywords))
            case types.MethodType():
                return frame(b"m", writer.write(value.__func__) + writer.write(value.__self__))
            case staticmethod() | classmethod():
                return frame(b"m", constant(type(value).__name__) + writer.write(value.__func__))
            case property():
                return frame(b"m", writer.write((value.fget, value.fset, value.fdel)))
            case types.BuiltinMethodType():
                return frame(b"m", constant(value.__name__) + writer.write(value.__self__))
            case _:
                return None

    def _inline(self, function: types.FunctionType, writer: ValueWriter) -> bytes:
        """A lambda, or a function made by another: it has no name of its own, so it stands where it is used."""
        draft = Draft(f"{home(function)}.{function.__code__.co_qualname}", "")
        self._function(draft, function, writer)
        pieces = []
        for tag, data, references in sorted(draft.sections, key=lambda section: section[0]):
            pieces.append(text(tag) + data)
            writer.references += references
        return frame(b"F", sequence(pieces))


def _is_uninterested(reference: Reference) -> bool:
    """Whether a decorator does not read annotations; for the user's own functions, what they call tells."""
    return (reference.kind == "part" and not reference.rest) or reference.path in UNINTERESTED
