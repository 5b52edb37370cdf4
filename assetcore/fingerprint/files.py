"""Files: what does a source file define, and where?

What a module was imported from counts (`Importer`), whatever its file says by now. A file is parsed once per process for each content it
has had. Definitions are found by the line on which their code begins, so that a redefinition is told from the first, and a lambda by the
columns of its instructions, for several can stand on a line.
"""

from __future__ import annotations

import ast
import hashlib
import linecache
import os
import types
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib.machinery import SourceFileLoader
from typing import Any, Literal, NamedTuple

from assetcore.fingerprint.definitions import Definition, Section, read, read_quoted
from assetcore.fingerprint.normal import FUNCTIONS, deep, first_line
from assetcore.fingerprint.orders import may_depend_on_order, writes_set
from assetcore.fingerprint.scopes import Imported, bound_names, imported_names, local_names

__all__ = ["Importer", "Site", "SourceFile", "Stated", "literal", "size", "source_file"]

EMPTY = frozenset({"dict", "list", "set", "defaultdict", "OrderedDict", "Counter", "deque"})
"""What makes an empty container when it is called without members."""


class Importer(SourceFileLoader):
    """Imports a module from its source, never from bytecode, and keeps the source: an edit that comes later is not what runs."""

    source: bytes | None = None

    def get_code(self, fullname: str) -> types.CodeType:
        self.source = self.get_data(self.path)
        return self.source_to_code(self.source, self.path)


@dataclass(frozen=True, slots=True, eq=False)
class Site:
    """Where a function or class is defined: its node, its qualified name, and the one around it."""

    node: Any
    qualname: str
    parent: Site | None
    line: int

    @property
    def outermost(self) -> Site:
        site = self
        while site.parent is not None:
            site = site.parent
        return site

    @property
    def enclosing(self) -> frozenset[str]:
        """The names of the functions around it."""
        if self.parent is None:
            return frozenset()
        node = self.parent.node
        return self.parent.enclosing | (local_names(node) if isinstance(node, FUNCTIONS) else frozenset())

    @property
    def nested(self) -> bool:
        """Whether it is made anew by each call of a function around it."""
        return "<locals>" in self.qualname


TOLD = frozenset({"__doc__", "__name__", "__qualname__", "__module__"})
"""What a function or class says of itself; to set it changes nothing else."""

CONSTRUCTORS = frozenset({"__new__", "__init__", "__post_init__", "__attrs_post_init__", "model_post_init"})


class Stated(NamedTuple):
    """What the statement of a class says of its attributes: the functions, the literals, and how many members a container has."""

    functions: dict[str, Any]
    literals: dict[str, Any]
    sizes: dict[str, int]
    names: frozenset[str]
    """All that it binds."""


How = Literal["changes", "tells", "calls", "decorates", "hands"]


class Reach(NamedTuple):
    """A statement of a module that does something to what a chain of names stands for.

    It `changes` it (`parts.limits.size = 3`) or only what it `tells` of itself, `calls` a method of it, `decorates` a definition with
    it (then `node` is that definition), or `hands` it to a function (then `node` is the call).
    """

    names: tuple[str, ...]
    node: Any
    how: How


@dataclass
class SourceFile:
    """One content of a source file, indexed."""

    tree: ast.Module
    at_line: dict[int, list[Site]] = field(default_factory=dict)
    by_name: dict[str, list[Site]] = field(default_factory=dict)
    bindings: dict[str, list[ast.stmt]] = field(default_factory=dict)
    reached: dict[str, list[Reach]] = field(default_factory=dict)
    """What its statements do to what they name, by the first name."""
    imports: dict[str, list[Imported]] = field(default_factory=dict)
    star_imports: list[Imported] = field(default_factory=list)
    _definitions: dict[Any, Definition | None] = field(default_factory=dict)
    _stated: dict[Any, Stated] = field(default_factory=dict)
    _quoted: dict[tuple[str, bool], Section | None] = field(default_factory=dict)
    _taking: dict[int, tuple[bool, bool]] = field(default_factory=dict)

    def function(self, code: types.CodeType) -> Site | None:
        """The definition that `code` was compiled from; lambdas are `lambda_`."""
        found = [s for s in self.at_line.get(code.co_firstlineno, ()) if getattr(s.node, "name", "") == code.co_name]
        if not found:  # the file has been edited since it was loaded: what has the name now
            found = self.by_name.get(code.co_qualname, [])
        return found[-1] if found and isinstance(found[-1].node, FUNCTIONS) else None

    def lambda_(self, code: types.CodeType) -> list[ast.Lambda]:
        """The lambda that `code` was compiled from; several if this Python does not keep columns."""
        candidates = self._lambdas.get(code.co_firstlineno, [])
        if len(candidates) < 2:
            return candidates
        spans = [s for s in code.co_positions() if None not in s and s[3] != 0]
        if not spans:
            return candidates
        start = min((s[0], s[2]) for s in spans)
        end = max((s[1], s[3]) for s in spans)
        inside = [
            n
            for n in candidates
            if (n.body.lineno, n.body.col_offset) <= start
            and end <= (n.body.end_lineno or 0, n.body.end_col_offset or 0)
        ]
        return [max(inside, key=lambda n: (n.body.lineno, n.body.col_offset))] if inside else candidates

    def class_(self, cls: type) -> Site | None:
        found = [s for s in self.by_name.get(cls.__qualname__, ()) if isinstance(s.node, ast.ClassDef)]
        if len(found) < 2:
            return found[0] if found else None
        lines = [f.__code__.co_firstlineno for f in vars(cls).values() if isinstance(f, types.FunctionType)]
        first = vars(cls).get("__firstlineno__")
        for site in reversed(found):
            end = site.node.end_lineno or site.line
            if first == site.line or any(site.line <= line <= end for line in lines):
                return site
        return found[-1]

    def define(self, node: Any) -> Definition:
        """A function, class or lambda of this file, read once."""
        definition = self._definitions.get(node)
        if definition is None:
            definition = self._definitions[node] = read([node], name=getattr(node, "name", ""))
        return definition

    def statements(self, name: str) -> Definition | None:
        """The module-level statements that make or change the global `name`."""
        if name not in self.bindings:
            return None
        definition = self._definitions.get(name)
        if definition is None:
            definition = self._definitions[name] = read(self.bindings[name])
        return definition

    def quoted(self, name: str, *, is_type: bool) -> Section | None:
        """The types in quotes of the statement that makes a global, if that is a type."""
        made = self.bindings.get(name, ())
        if len(made) != 1:
            return None
        if (name, is_type) not in self._quoted:
            self._quoted[name, is_type] = read_quoted(made[0], is_type=is_type)
        return self._quoted[name, is_type]

    def changes(self, name: str) -> Definition | None:
        """The module-level statements that change what the global `name` stands for, and do not make it."""
        key = ("changes", name)
        if key not in self._definitions:
            found = [s for s in self.bindings.get(name, ()) if name not in bound_names([s]) and not _is_telling(s)]
            self._definitions[key] = read(found) if found else None
        return self._definitions[key]

    def takes_members(self, definition: Definition) -> tuple[bool, bool]:
        """Whether anything in statements of this file could take the members of a set, and whether they write one; told once."""
        if id(definition) not in self._taking:
            body = definition.normal.body
            self._taking[id(definition)] = (may_depend_on_order(body), writes_set(body))
        return self._taking[id(definition)]

    def reaching(self, name: str, *how: How) -> list[Any]:
        """The statements of the module that do this to what its global `name` stands for."""
        return list(dict.fromkeys(r.node for r in self.reached.get(name, ()) if r.how in how))

    def assigned(self, name: str) -> frozenset[str]:
        """The attributes of a global that statements of the module set: `x.y = 1`."""
        reached = self.reached.get(name, ())
        return frozenset(r.names[1] for r in reached if r.how == "changes" and len(r.names) == 2)

    def making(self, node: ast.ClassDef) -> Definition:
        """What runs when a class of this file is called: what its statement gives its fields, and the methods that fill an instance."""
        key = ("making", node)
        found = self._definitions.get(key)
        if found is None:
            inner = (*FUNCTIONS, ast.ClassDef)
            run = [s for s in node.body if not isinstance(s, inner) or s.name in CONSTRUCTORS]
            found = self._definitions[key] = read(run)
        return found

    def assignments(self, node: ast.ClassDef) -> Iterator[tuple[str, Definition]]:
        """The statements of a class of this file that give a name a value."""
        for statement in node.body:
            match statement:
                case (
                    ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name), value=ast.expr())
                ):
                    yield name, self.define(statement)
                case _:
                    pass

    def stated(self, node: Any) -> Stated:
        """What the statement of a class of this file says, read once."""
        if node not in self._stated:
            functions = {inner.name: inner for inner in ast.walk(node) if isinstance(inner, FUNCTIONS)}
            names = bound_names(node.body)
            self._stated[node] = Stated(functions, _literals(node.body), _sizes(node.body), names)
        return self._stated[node]

    @cached_property
    def _lambdas(self) -> dict[int, list[ast.Lambda]]:
        found: dict[int, list[ast.Lambda]] = {}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Lambda):
                found.setdefault(node.lineno, []).append(node)
        return found


def literal(expression: ast.expr, otherwise: Any) -> Any:
    """The value that an expression writes out, or what stands for any other."""
    try:
        return ast.literal_eval(expression)
    except (ValueError, TypeError, MemoryError, RecursionError):
        return otherwise


_seen: dict[str, tuple[tuple[int, ...] | bytes | None, bytes, SourceFile | None]] = {}
"""By path: the file's stamp, or the very source that a module was imported from; the hash of its content, and what it defines."""


def source_file(path: str, variables: Mapping[str, Any] | None = None) -> SourceFile | None:
    """The file, parsed; None if there is no source to read.

    `variables` are the globals of its module: their loader has what the module was imported from, or gives the source of modules in a
    zip; notebooks and doctests keep theirs in `linecache`.
    """
    if not path or path == "<string>":
        return None
    known = _seen.get(path)
    stamp: tuple[int, ...] | bytes | None
    if (content := _imported_from(path, variables)) is not None:
        stamp = content
        if known is not None and known[0] is stamp:
            return known[2]
    else:
        try:
            status = os.stat(path)
            stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
            if known is not None and known[0] == stamp:
                return known[2]
            with open(path, "rb") as file:
                content = file.read()
        except OSError:
            stamp = None
            lines = linecache.getlines(path, dict(variables) if variables is not None else None)
            if not lines:
                return None
            content = "".join(lines).encode("utf-8", "surrogatepass")
    key = hashlib.sha256(content).digest()
    parsed = known[2] if known is not None and known[1] == key else _parse(content)
    _seen[path] = (stamp, key, parsed)
    return parsed


def _imported_from(path: str, variables: Mapping[str, Any] | None) -> bytes | None:
    loader = getattr((variables or {}).get("__spec__"), "loader", None)
    return loader.source if isinstance(loader, Importer) and loader.path == path else None


def _parse(content: bytes) -> SourceFile | None:
    try:
        with deep():
            return _index(ast.parse(content))
    except (SyntaxError, ValueError):
        return None


def _index(tree: ast.Module) -> SourceFile:
    file = SourceFile(tree)
    for statement in tree.body:
        for name in _bound(statement, file):
            file.bindings.setdefault(name, []).append(statement)
    _add_sites(file, tree.body, None, "")
    return file


def _add_sites(file: SourceFile, statements: list[Any], parent: Site | None, prefix: str) -> None:
    for statement in statements:
        if isinstance(statement, (*FUNCTIONS, ast.ClassDef)):
            site = Site(statement, prefix + statement.name, parent, first_line(statement))
            file.at_line.setdefault(site.line, []).append(site)
            file.by_name.setdefault(site.qualname, []).append(site)
            inner = "." if isinstance(statement, ast.ClassDef) else ".<locals>."
            _add_sites(file, statement.body, site, site.qualname + inner)
        else:
            for block in _blocks(statement):
                _add_sites(file, block, parent, prefix)


def _blocks(statement: Any) -> Iterator[list[Any]]:
    for name in ("body", "orelse", "finalbody"):
        block = getattr(statement, name, None)
        if isinstance(block, list):
            yield block
    for inner in [*getattr(statement, "handlers", ()), *getattr(statement, "cases", ())]:
        yield inner.body


def _bound(statement: ast.stmt, file: SourceFile) -> set[str]:
    """The globals that a module-level statement makes or changes: `x = 1`, `x.append(1)`, `x.y = 1`, also inside `if` or `try`."""
    names: set[str] = set()

    def reach(chains: Iterable[tuple[str, ...]], how: How, node: Any = statement) -> None:
        for chain in dict.fromkeys(chains):
            file.reached.setdefault(chain[0], []).append(Reach(chain, node, how))

    def change(*targets: ast.expr) -> None:
        chains = [chain for target in targets for chain in _targets(target)]
        names.update(chain[0] for chain in chains)
        reach([c for c in chains if len(c) > 1], "tells" if all(c[-1] in TOLD for c in chains) else "changes")

    pending: list[Any] = [statement]
    while pending:
        match pending.pop():
            case (ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef()) as definition:
                names.add(definition.name)
                heads = [chain for d in definition.decorator_list for chain in _targets(d)]
                reach(heads, "decorates", definition)
            case ast.ImportFrom(names=[ast.alias(name="*")]) as star:
                file.star_imports.append(Imported(star.module or "", None, star.level))
            case ast.Import() | ast.ImportFrom() as imported:
                for name, what in imported_names(imported):
                    file.imports.setdefault(name, []).append(what)
            case ast.Expr(value=expression):
                while isinstance(expression, ast.Await):
                    expression = expression.value
                for given in getattr(expression, "args", ()):
                    if isinstance(expression, ast.Call) and isinstance(given, ast.Name | ast.Attribute):
                        reach(_targets(given), "hands", expression)
                match expression:
                    case ast.Call(func=ast.Name(id="setattr" | "delattr"), args=[changed, attribute, *_]):
                        named = (attribute.value,) if isinstance(attribute, ast.Constant) else ()
                        names.update(chain[0] for chain in _targets(changed))
                        reach([(*chain, *map(str, named)) for chain in _targets(changed)], "changes")
                    case ast.Call(func=called) if chain := _chain(called):
                        names.add(chain[0])
                        reach([chain], "calls")
                    case _:
                        pass
            case ast.Assign(targets=targets):
                change(*targets)
            case ast.AugAssign(target=target) | ast.AnnAssign(target=target, value=ast.expr()):
                change(target)
            case ast.Delete(targets=targets):
                change(*[target for target in targets if not isinstance(target, ast.Name)])
            case compound:
                if isinstance(compound, ast.For | ast.AsyncFor):
                    change(compound.target)
                change(*[i.optional_vars for i in getattr(compound, "items", ()) if i.optional_vars is not None])
                for block in _blocks(compound):
                    pending.extend(block)
    return names


def _literals(body: list[Any]) -> dict[str, Any]:
    """The names to which statements assign a literal."""
    found: dict[str, Any] = {}
    for statement in body:
        targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
        value = getattr(statement, "value", None)
        for target in targets:
            if isinstance(target, ast.Name) and isinstance(value, ast.expr):
                written = literal(value, found)
                if written is not found:
                    found[target.id] = written
    return found


def _sizes(body: list[Any]) -> dict[str, int]:
    """How many members the containers have that statements assign to names, where no other statement reads those again."""
    found: dict[str, int] = {}
    for statement in body:
        targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
        count = size(getattr(statement, "value", None))
        if count is not None:
            found |= {target.id: count for target in targets if isinstance(target, ast.Name)}
    plain = [s for s in body if not isinstance(s, ast.ClassDef)]
    parts = [p for s in plain for p in ([*s.decorator_list, s.args] if isinstance(s, FUNCTIONS) else [s])]
    read_again = {n.id for p in parts for n in ast.walk(p) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
    return {name: size for name, size in found.items() if name not in read_again}


def size(expression: ast.expr | None) -> int | None:
    """How many members a container has that an expression writes; None if it does not tell."""
    match expression:
        case ast.Dict(keys=keys) if None not in keys:
            return len(keys)
        case ast.List(elts=members) | ast.Tuple(elts=members):
            return None if any(isinstance(member, ast.Starred) for member in members) else len(members)
        case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name), args=given, keywords=[]) if name in EMPTY:
            return 0 if len(given) == (name == "defaultdict") else None
        case _:
            return None


def _is_telling(statement: ast.stmt) -> bool:
    """Whether a statement changes nothing of a function or class but what it says of itself, or calls a method of it."""
    match statement:
        case ast.Assign(targets=[ast.Attribute(attr=name)]):
            return name in TOLD
        case ast.Expr(value=ast.Call(func=ast.Attribute(value=ast.Name()))):
            return True
        case _:
            return False


def _targets(target: ast.expr) -> list[tuple[str, ...]]:
    """The names to which something is assigned, each a chain: `x` and `y.z` of `x, y.z[0] = ...`."""
    if isinstance(target, ast.Tuple | ast.List):
        return [chain for inner in target.elts for chain in _targets(inner)]
    if isinstance(target, ast.Starred):
        return _targets(target.value)
    if isinstance(target, ast.Name):
        return [(target.id,)]
    chain = _chain(target)
    return [chain] if chain else []


def _chain(expression: ast.expr) -> tuple[str, ...]:
    """`x`, `y` of `x.y[0].z`; nothing for a plain name, which is not changed by calling it."""
    if isinstance(expression, ast.Name):
        return ()
    names: list[str] = []
    while isinstance(expression, ast.Attribute | ast.Subscript | ast.Call):
        if isinstance(expression, ast.Attribute):
            names.append(expression.attr)
        else:
            names.clear()
        expression = expression.func if isinstance(expression, ast.Call) else expression.value
    return (expression.id, *reversed(names)) if isinstance(expression, ast.Name) else ()
