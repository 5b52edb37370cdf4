"""Definitions: to what does a piece of code refer?

`read` turns the normal form of a definition into its canonical bytes, in which every free name ("helpers.clean", a dotted chain as
far as it goes) is a placeholder, and the list of those names in the order of their places. What the names stand for is decided
at run time: so `from helpers import clean` and `helpers.clean`, or an alias, come out alike.

Names are free by Python's scopes (`scopes`); a class body is invisible to its methods, and executed in order.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from assetcore.fingerprint.encoding import constant, encode, frame, node, plain, sequence, text
from assetcore.fingerprint.normal import Normal, Variant, deep, normalise, written
from assetcore.fingerprint.quotes import MAKERS, unquoted
from assetcore.fingerprint.scopes import Imported, Scope, collect, function_scope, imported_names

__all__ = [
    "Definition",
    "Key",
    "Mention",
    "ScopeParts",
    "Section",
    "read",
    "read_quoted",
]

PLACEHOLDER = frame(b"r", b"")
DATA_NAMES = {"__doc__": "docstrings", "__annotations__": "annotations"}
"""Names whose presence says that the code reads docstrings or annotations: then they are data, in all of the closure."""

READS = frozenset({"read_text", "read_bytes"})
TELLING = frozenset({*DATA_NAMES, *READS, "__subclasses__"})
"""Words that tell something of the definition wherever they stand in it."""


class Mention(NamedTuple):
    """One place where a free name stands: `names` is the dotted chain; `imports` are set where a function imports it itself.

    In an `annotation` the name may be one for type checkers only.
    """

    names: tuple[str, ...]
    line: int
    imports: tuple[Imported, ...] = ()
    annotation: bool = False


class Key(NamedTuple):
    """By what something is looked up: a text, the index of a mention that stands for one, or neither; and what is taken of it."""

    name: str | int | None
    rest: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Section:
    """Canonical bytes with placeholders, and what stands in their places.

    Mentions are meant by their index. `head` is the one that a decorator begins with; `handed` are pairs (argument, called);
    `keys` are by what something is looked up in what a mention stands for, which may be all modules, or what imports one. `quoted` are
    types in quotes that stand in brackets behind a mention, if that is a generic class; or that are given to what makes a type.
    """

    data: bytes = b""
    mentions: tuple[Mention, ...] = ()
    head: int | None = None
    handed: tuple[tuple[int, int], ...] = ()
    keys: tuple[tuple[int, Key], ...] = ()
    accessor: bool = False
    """A decorator like `@x.setter`, of a property of the same class."""
    quoted: tuple[tuple[int | None, Later], ...] = ()
    called: frozenset[int] = frozenset()
    """The mentions that are called, and not only named."""


@dataclass(slots=True)
class ScopeParts:
    """What of a function or class counts or not, by what its decorators and bases turn out to be."""

    is_class: bool
    parent: int | None
    decorators: list[Section] = field(default_factory=list)
    annotations: Later | None = None
    defaults: dict[str, Later] = field(default_factory=dict)
    bases: list[int] = field(default_factory=list)
    """Of a class inside the definition: the mentions of the body that are its bases."""


@dataclass(slots=True)
class Definition:
    """A definition, read: its body, its scopes (the definition's own first), and what can be said of it without running it."""

    normal: Normal
    body: Section
    scopes: list[ScopeParts]
    imports: tuple[Mention, ...]
    reads_own_data: frozenset[str]
    hazards: tuple[tuple[str, int, str], ...]
    name: str = ""
    _sources: dict[Variant, str] = field(default_factory=dict)

    def source(self, variant: Variant) -> str:
        """The source without what does not count; see `normal.written`."""
        if variant not in self._sources:
            with deep():
                self._sources[variant] = written(self.normal, variant)
        return self._sources[variant]


def read(nodes: Sequence[ast.AST], *, name: str = "") -> Definition:
    """Read a definition: one function, class or lambda, or the module-level statements that bind a name."""
    with deep():
        normal = normalise(list(nodes))
        return _Reader(normal).definition(name)


def read_quoted(statement: ast.stmt, *, is_type: bool) -> Section | None:
    """The types in quotes that a statement writes which names a type, `Items = list["Item"]`; None if there are none.

    It says itself that it does (`Items: TypeAlias = "list[Item]"`), or `is_type` knows it of what came of it.
    """
    match statement:
        case ast.AnnAssign(
            annotation=ast.Name(id="TypeAlias") | ast.Attribute(attr="TypeAlias"), value=ast.expr() as named
        ):
            pass
        case ast.Assign(value=named) | ast.AnnAssign(value=ast.expr() as named) if is_type:
            pass
        case _:
            return None
    with deep():
        if ast.dump(unquoted(named, frozenset())) == ast.dump(named):
            return None
        reader = _Reader(Normal([]))
        return reader.section(lambda: reader.annotation(named))


@dataclass(slots=True)
class Later:
    """A section that is read when it is asked for: most annotations and defaults do not count."""

    normal: Normal
    body: Callable[[_Reader], bytes]
    stack: list[Scope]
    section: Section | None = None

    def read(self) -> Section:
        """The section, read once."""
        if self.section is None:
            with deep():
                reader = _Reader(self.normal)
                reader.stack = self.stack
                self.section = reader.section(lambda: self.body(reader))
        return self.section


@dataclass(slots=True)
class _Open:
    """A section while it is being read."""

    mentions: list[Mention] = field(default_factory=list)
    places: dict[ast.AST, int] = field(default_factory=dict)
    handed: list[tuple[int, int]] = field(default_factory=list)
    taken: dict[ast.AST, tuple[str, ...]] = field(default_factory=dict)
    """Of what is looked up, or comes of a call, the attributes that are taken."""
    keys: dict[int, Key] = field(default_factory=dict)
    quoted: dict[ast.AST, tuple[int | None, Later]] = field(default_factory=dict)
    called: set[int] = field(default_factory=set)


class _Reader:
    def __init__(self, normal: Normal) -> None:
        self.normal = normal
        self.stack: list[Scope] = []
        self.open = _Open()
        self.in_annotation = False
        self.parts = [
            ScopeParts(isinstance(s, ast.ClassDef), p) for s, p in zip(normal.scopes, normal.parents, strict=True)
        ]
        self.imports: list[Mention] = []
        self.data_names: set[str] = set()
        self.hazards: list[tuple[str, int, str]] = []

    def definition(self, name: str) -> Definition:
        body = self.section(lambda: sequence([self.encode(n) for n in self.normal.body]))
        return Definition(
            self.normal, body, self.parts, tuple(self.imports), frozenset(self.data_names), tuple(self.hazards), name
        )

    def encode(self, tree: ast.AST) -> bytes:
        return encode(tree, self.ask)

    def ask(self, tree: ast.AST) -> bytes | None:
        special = _SPECIAL.get(type(tree))
        return None if special is None else special(self, tree)

    def section(self, body: Callable[[], bytes], head: ast.AST | None = None) -> Section:
        """Read something into a section of its own."""
        outer, self.open = self.open, _Open()
        try:
            data = body()
            done = self.open
        finally:
            self.open = outer
        first = None if head is None else done.places.get(head)
        keys, quoted, called = tuple(done.keys.items()), tuple(done.quoted.values()), frozenset(done.called)
        return Section(data, tuple(done.mentions), first, tuple(done.handed), keys, quoted=quoted, called=called)

    def later(self, body: Callable[[_Reader], bytes], expressions: Iterable[ast.expr]) -> Later:
        """A section that is read when it is asked for; now, where that may tell something of the definition."""
        later = Later(self.normal, body, list(self.stack))
        if not all(map(_is_silent, expressions)):
            later.section = self.section(lambda: body(self))
        return later

    # Names

    def name(self, tree: ast.Name) -> bytes | None:
        if tree.id in DATA_NAMES:
            self.data_names.add(DATA_NAMES[tree.id])
        found = self.lookup(tree.id)
        if found is None:
            return None
        if not isinstance(tree.ctx, ast.Load):
            if not self.declared_global(tree.id):
                return None
            self.hazards.append(("AC111", tree.lineno, f"assigns to the global {tree.id}"))
        return self.mention(tree, (tree.id,), found)

    def attribute(self, tree: ast.Attribute) -> bytes | None:
        if tree.attr in DATA_NAMES:
            self.data_names.add(DATA_NAMES[tree.attr])
        if tree.attr in READS:
            self.hazards.append(("AC102", tree.lineno, f"reads a file ({tree.attr})"))
        if tree.attr == "__subclasses__":
            self.hazards.append(("AC108", tree.lineno, "asks for the subclasses that happen to be loaded"))
        if not isinstance(tree.ctx, ast.Load):
            return None
        names: list[str] = []
        root: ast.expr = tree
        while isinstance(root, ast.Attribute):
            names.append(root.attr)
            root = root.value
        if isinstance(root, ast.Subscript | ast.Call):
            self.open.taken.setdefault(root, tuple(reversed(names)))
        if not isinstance(root, ast.Name) or (found := self.lookup(root.id)) is None:
            return None
        for inner in names:
            if inner in DATA_NAMES:
                self.data_names.add(DATA_NAMES[inner])
        return self.mention(tree, (root.id, *reversed(names)), found)

    def mention(self, tree: Any, names: tuple[str, ...], imports: tuple[Imported, ...]) -> bytes:
        self.open.places[tree] = len(self.open.mentions)
        self.open.mentions.append(Mention(names, tree.lineno, imports, self.in_annotation))
        return PLACEHOLDER

    def lookup(self, name: str) -> tuple[Imported, ...] | None:
        """None: `name` is local here. Otherwise it is free, or bound by the imports returned."""
        for i, scope in enumerate(reversed(self.stack)):
            if scope.kind == "class" and i > 0:
                continue
            if name in scope.outward:
                return ()
            if name in scope.nonlocal_:
                continue
            if name in scope.imports:
                return tuple(scope.imports[name])
            if name in scope.bound:
                return None
        return ()

    def declared_global(self, name: str) -> bool:
        return bool(self.stack) and name in self.stack[-1].outward

    # What is more than its fields

    def constant(self, tree: ast.Constant) -> bytes | None:
        if isinstance(tree.value, str) and tree.value in DATA_NAMES:  # getattr(f, "__doc__")
            self.data_names.add(DATA_NAMES[tree.value])
        return None

    def nothing(self, tree: ast.AST) -> bytes:
        """`global` and `nonlocal` count through the names that they make free."""
        return b""

    def call(self, tree: ast.Call) -> bytes:
        data = plain(tree, self.ask)
        first = tree.args[0] if tree.args else None
        called = self.open.places.get(tree.func)
        if called is None:
            match tree.func:
                case ast.Attribute(value=ast.Call(func=inner), attr="get"):  # globals().get("name")
                    self.look_up(tree, inner, first)
                case _:
                    pass
            return data
        self.open.called.add(called)
        name = self.open.mentions[called].names[-1]
        if name in MAKERS:
            self.quotes(tree, None)
        elif name == "cast" and first is not None:  # which does nothing with the type
            for inner in ast.walk(first):
                self.open.quoted.pop(inner, None)
        self.look_up(tree, tree.func, first or next((k.value for k in tree.keywords if k.arg == "name"), None))
        for argument in _flat([*tree.args, *(k.value for k in tree.keywords)]):
            if (place := self.open.places.get(argument)) is not None:
                self.open.handed.append((place, called))
        return data

    def subscript(self, tree: ast.Subscript) -> bytes:
        data = plain(tree, self.ask)
        inside = tree.slice.elts if isinstance(tree.slice, ast.Tuple | ast.List) else [tree.slice]
        is_quoted = any(isinstance(one, ast.Constant) and isinstance(one.value, str) for one in inside)
        if is_quoted and (generic := self.open.places.get(tree.value)) is not None:
            self.quotes(tree, generic)
        where = tree.value.func if isinstance(tree.value, ast.Call) else tree.value
        self.look_up(
            tree, where, tree.slice if isinstance(tree.ctx, ast.Load) else ast.Constant("")
        )  # not looked up, but set
        return data

    def look_up(self, tree: ast.expr, where: ast.expr, key: ast.expr | None) -> None:
        """Note by what something is looked up: `import_module("name")`, `sys.modules["name"]`, `globals()["name"]`."""
        if (place := self.open.places.get(where)) is not None:
            match key:
                case ast.Constant(value=str(name)):
                    pass
                case ast.expr():
                    name = self.open.places.get(key)
                case None:
                    name = None
            self.open.keys[place] = Key(name, self.open.taken.get(tree, ()))

    def quotes(self, tree: ast.expr, generic: int | None) -> None:
        """Note the types in quotes of an expression that names or makes a type."""
        if not self.in_annotation and ast.dump(unquoted(tree, frozenset())) != ast.dump(tree):
            self.open.quoted[tree] = (generic, self.later(lambda reader: reader.annotation(tree), ()))

    def import_(self, tree: ast.Import | ast.ImportFrom) -> bytes:
        """An import inside a function counts through the names that it binds; the module is followed even if none is used."""
        if self.stack:
            self.imports += [Mention((name,), tree.lineno, (what,)) for name, what in imported_names(tree)]
        return b""

    def function(self, tree: ast.FunctionDef | ast.AsyncFunctionDef) -> bytes:
        number = self.normal.numbers[tree]
        parts = self.parts[number]
        self.decorators(tree, parts)
        fields = [("args", self.arguments(tree.args, parts, own=number == 0))]
        self.stack.append(Scope("function", {p.name for p in getattr(tree, "type_params", ())}))
        annotated = _annotated(tree)
        parts.annotations = self.later(lambda reader: reader.annotations(annotated), annotated.values())
        self.stack.append(function_scope(tree))
        fields.append(("body", sequence([self.encode(statement) for statement in tree.body])))
        if number:
            fields.append(("name", text(tree.name)))
        self.stack.pop()
        fields += self.type_parameters(tree)
        self.stack.pop()
        return node(type(tree).__name__, fields)

    def lambda_(self, tree: ast.Lambda) -> bytes:
        number = self.normal.numbers[tree]
        fields = [("args", self.arguments(tree.args, self.parts[number], own=number == 0))]
        self.stack.append(function_scope(tree))
        fields.append(("body", self.encode(tree.body)))
        self.stack.pop()
        return node("Lambda", fields)

    def class_(self, tree: ast.ClassDef) -> bytes:
        number = self.normal.numbers[tree]
        parts = self.parts[number]
        self.decorators(tree, parts)
        bases = sequence([self.encode(base) for base in tree.bases])
        parts.bases = [self.open.places[base] for base in tree.bases if base in self.open.places]
        keywords = sequence([self.encode(keyword) for keyword in tree.keywords])
        scope = Scope("class")
        collect([s for s in tree.body if isinstance(s, ast.Global | ast.Nonlocal)], scope)
        self.stack.append(scope)
        body = []
        for statement in tree.body:
            body.append(self.encode(statement))
            collect([statement], scope)
        fields = [("bases", bases), ("body", sequence(body)), ("keywords", keywords), ("name", text(tree.name))]
        fields += self.type_parameters(tree)
        self.stack.pop()
        return node("ClassDef", fields)

    def decorators(self, tree: Any, parts: ScopeParts) -> None:
        for decorator in tree.decorator_list:
            head = decorator
            while isinstance(head, ast.Call):
                head = head.func
            section = self.section(lambda d=decorator: self.encode(d), head)
            if (
                section.head is None
                and isinstance(head, ast.Attribute)
                and head.attr in ("getter", "setter", "deleter")
            ):
                section = replace(section, accessor=True)
            parts.decorators.append(section)

    def arguments(self, arguments: ast.arguments, parts: ScopeParts, *, own: bool) -> bytes:
        """The parameters' names and defaults; of the definition itself the defaults are sections, for they may be dependencies."""

        def default(name: str, value: ast.expr | None) -> bytes:
            if value is None:
                return constant(None)
            if own:
                parts.defaults[name] = self.later(lambda reader: reader.encode(value), [value])
                return constant(None)
            return self.encode(value)

        positional = [*arguments.posonlyargs, *arguments.args]
        defaulted = positional[len(positional) - len(arguments.defaults) :]
        defaults = [default(a.arg, d) for a, d in zip(defaulted, arguments.defaults, strict=True)]
        keyword = [default(a.arg, d) for a, d in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)]
        names = [
            sequence([text(a.arg) for a in group])
            for group in (arguments.posonlyargs, arguments.args, arguments.kwonlyargs)
        ]
        starred = [constant(a.arg if a else None) for a in (arguments.vararg, arguments.kwarg)]
        return sequence([*names, *starred, sequence([] if own else defaults), sequence([] if own else keyword)])

    def annotations(self, annotated: Mapping[str, ast.expr]) -> bytes:
        return sequence([text(name) + self.annotation(annotation) for name, annotation in annotated.items()])

    def annotated(self, tree: ast.AnnAssign) -> bytes:
        """A field of a class; elsewhere the normal form has dropped the annotation."""
        fields = [("annotation", self.annotation(tree.annotation)), ("simple", constant(tree.simple))]
        fields.append(("target", self.encode(tree.target)))
        if tree.value is not None:
            fields.append(("value", self.encode(tree.value)))
        return node("AnnAssign", fields)

    def annotation(self, tree: ast.expr) -> bytes:
        outer, self.in_annotation = self.in_annotation, True
        own = {scope.name for scope in self.normal.scopes if isinstance(scope, ast.ClassDef)}
        data = self.encode(unquoted(tree, own))
        self.in_annotation = outer
        return data

    def type_parameters(self, tree: Any) -> list[tuple[str, bytes]]:
        parameters = getattr(tree, "type_params", None)
        return [("type_params", sequence([self.encode(p) for p in parameters]))] if parameters else []

    def comprehension(self, tree: Any) -> bytes:
        """The first iterable is evaluated outside, everything else inside."""
        first = self.encode(tree.generators[0].iter)
        scope = Scope("comprehension")
        for generator in tree.generators:
            collect([generator.target], scope)
        self.stack.append(scope)
        generators = []
        for i, generator in enumerate(tree.generators):
            iterable = first if i == 0 else self.encode(generator.iter)
            target = self.encode(generator.target)
            conditions = sequence([self.encode(condition) for condition in generator.ifs])
            generators.append(sequence([iterable, target, conditions, constant(generator.is_async)]))
        held = [(name, self.encode(getattr(tree, name))) for name in ("elt", "key", "value") if name in tree._fields]
        self.stack.pop()
        return node(type(tree).__name__, [("generators", sequence(generators)), *held])


_SPECIAL: dict[type[ast.AST], Callable[[_Reader, Any], bytes | None]] = {
    ast.Name: _Reader.name, ast.Attribute: _Reader.attribute, ast.Constant: _Reader.constant, ast.Call: _Reader.call,
    ast.Subscript: _Reader.subscript,
    ast.FunctionDef: _Reader.function, ast.AsyncFunctionDef: _Reader.function, ast.Lambda: _Reader.lambda_,
    ast.ClassDef: _Reader.class_, ast.Import: _Reader.import_, ast.ImportFrom: _Reader.import_,
    ast.ListComp: _Reader.comprehension, ast.SetComp: _Reader.comprehension, ast.GeneratorExp: _Reader.comprehension,
    ast.AnnAssign: _Reader.annotated, ast.DictComp: _Reader.comprehension, ast.Global: _Reader.nothing,
    ast.Nonlocal: _Reader.nothing,
}  # fmt: skip


def _annotated(tree: ast.FunctionDef | ast.AsyncFunctionDef) -> dict[str, ast.expr]:
    """The annotations of a function by its parameters, and of what it returns."""
    arguments = tree.args
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
    annotated = {a.arg: a.annotation for a in every if a is not None and a.annotation is not None}
    return annotated if tree.returns is None else {**annotated, "return": tree.returns}


def _is_silent(expression: ast.expr) -> bool:
    """Whether nothing can be told of a definition by this expression in it but its own bytes: a plain one without telling words."""
    waiting: list[Any] = [expression]
    while waiting:
        node = waiting.pop()
        kind = type(node)
        if kind is ast.Name:
            word = node.id
        elif kind is ast.Constant:
            word = node.value
        elif kind is ast.Attribute:
            word = node.attr
            waiting.append(node.value)
        elif kind is ast.Call:
            word = None
            waiting += [node.func, *node.args, *[keyword.value for keyword in node.keywords]]
        elif kind is ast.Subscript:
            word = None
            waiting += [node.value, node.slice]
        elif kind is ast.BinOp:
            word = None
            waiting += [node.left, node.right]
        else:
            return False
        if word in TELLING:
            return False
    return True


def _flat(nodes: list[ast.expr]) -> Iterable[ast.expr]:
    for item in nodes:
        if isinstance(item, ast.List | ast.Tuple | ast.Set):
            yield from _flat(item.elts)
        elif isinstance(item, ast.Dict):
            yield from _flat(item.values)
        else:
            yield item
