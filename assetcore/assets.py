"""Assets: what is an asset, and what is it made of?

An asset is a named set of documents and the function that makes it; a source is one that is observed. Users write them with the words of
`declarations`; what a function asks for is read of its signature when that is first asked (`signatures`), which for a project is when it is
loaded: until then an asset may name a class that is not defined yet.
"""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, Generic, Literal, ParamSpec, TypeAlias, TypeVar

from pydantic import BaseModel

from assetcore.documents import Document
from assetcore.errors import DeclarationError
from assetcore.partitions import Partition, Partitions, Relation, are_aligned

__all__ = [
    "Asset",
    "Collect",
    "Config",
    "Dependency",
    "Each",
    "Form",
    "Layout",
    "Model",
    "Options",
    "Output",
    "PartitionTaker",
    "Place",
    "Resolved",
    "Sensitivity",
    "Source",
    "Table",
    "is_async",
    "place_of",
]

P = ParamSpec("P")
R = TypeVar("R")

Form = Literal["document", "model", "list", "iterator", "polars-lazy", "polars", "pandas", "arrow"]
"""How a parameter wants its documents handed over; what its annotation asks for."""

Layout = Literal["packs", "files"]
Sensitivity = Literal["public", "internal", "confidential", "restricted"]
"""For whose eyes documents are, the least sensitive first."""


class Table(Document):
    """The document that a frame becomes: Parquet bytes."""


class Model(Document):
    """The document that a pydantic model becomes: its JSON."""


@dataclass(frozen=True, slots=True)
class Each:
    """Once for each document of `upstream`; made by `each`."""

    upstream: Any
    fields: tuple[str, ...] | str | None = None
    cross: bool = False
    partitions: str | timedelta | None = None
    __assetcore_dependency__ = True


@dataclass(frozen=True, slots=True)
class Collect:
    """All documents of `upstream`, of one document of `per`, or of one value of a field; made by `collect`."""

    upstream: Any
    per: Any = None
    by: str | None = None
    partitions: str | timedelta | None = None
    __assetcore_dependency__ = True


@dataclass(frozen=True, slots=True)
class Dependency:
    """One parameter of an asset's function and the documents that it is given."""

    parameter: str
    kind: Literal["each", "collect"]
    upstream: Asset[..., Any]
    form: Form
    type: type[Document] | None
    fields: frozenset[str] | None = None
    per: Asset[..., Any] | None = None
    by: str | None = None
    cross: bool = False
    relation: Relation | None = None

    @property
    def is_whole(self) -> bool:
        """Whether every unit is given all of its documents."""
        return self.kind == "collect" and self.per is None and self.by is None and self.relation is None

    @property
    def is_named(self) -> bool:
        """Whether it matters to the units that are given them how its documents are called: for their labels, partitions, excerpts."""
        return self.kind == "each" or self.relation is not None or self.is_whole

    @property
    def shape(self) -> tuple[Any, ...]:
        """What of the dependency the function can see; part of the recipe. Not the upstream's name: only what it hands over."""
        return (
            self.parameter,
            self.kind,
            self.form,
            sorted(self.fields) if self.fields is not None else None,
            self.per is not None,
            self.by,
        )


@dataclass(frozen=True, slots=True)
class Config:
    """One parameter that takes configuration: a pydantic model, filled from the project's config file and the command line."""

    parameter: str
    model: type[BaseModel]
    default: BaseModel | None


@dataclass(frozen=True, slots=True)
class PartitionTaker:
    """The parameter that takes the unit's partition, and as what: `Partition` itself, a date, a datetime, or its key."""

    parameter: str
    form: type

    def value(self, partition: Partition) -> Any:
        """What it is given."""
        if self.form is Partition:
            return partition
        if self.form is str or partition.start is None:
            return partition.key
        return partition.start.date() if self.form is date else partition.start


@dataclass(frozen=True, slots=True)
class Output:
    """What an asset's function returns."""

    form: Literal["document", "model", "table"]
    type: type[Document] | type[BaseModel]
    many: bool = False
    optional: bool = False
    stream: bool = False

    @property
    def document_type(self) -> type[Document]:
        """The Document class under which the result is stored."""
        if self.form == "table":
            return Table
        if self.form == "model":
            return Model
        return typing.cast("type[Document]", self.type)

    @property
    def type_name(self) -> str:
        """The name that stands for the type in identities and tables."""
        return self.type.__name__


@dataclass(frozen=True, slots=True)
class Options:
    """What `@asset(...)` was given."""

    name: str | None = None
    tags: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    group: str = "main"
    owner: str | None = None
    description: str | None = None
    sensitivity: Sensitivity | None = None
    anonymises: bool = False
    models: tuple[str, ...] = ()
    version: str | None = None
    retries: int = 0
    timeout: float | None = None
    concurrency: int | None = None
    pool: str | None = None
    layout: Layout = "packs"
    renamed_from: str | None = None
    partitions: Partitions | None = None
    freshness: timedelta | None = None
    schedule: str | None = None
    after: tuple[str, ...] = ()
    on: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Place:
    """Where something is declared."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True)
class Resolved:
    """What the annotations of an asset's function say, once all of them can be evaluated."""

    dependencies: tuple[Dependency, ...]
    configs: tuple[Config, ...]
    output: Output
    partitions: Partitions | None = None
    partition: PartitionTaker | None = None


Reading: TypeAlias = "Callable[[Asset[..., Any]], Resolved]"
"""Reads the signature of an asset's function; `signatures.resolve` does."""


class Asset(Generic[P, R]):
    """A named set of documents and the function that makes it. Calling it calls the function; `@asset` makes it."""

    kind: Literal["asset", "source"] = "asset"

    def __init__(
        self, function: Callable[P, R], options: Options, read: Reading, names: Mapping[str, Any] | None = None
    ) -> None:
        self.function = function
        self.options = options
        self.name: str = options.name or function.__name__
        self.place = place_of(function)
        self.names = names
        """What its annotations may name beside what is in its module."""
        self._read = read
        self._asynchronous = is_async(function)
        self._resolved: Resolved | None = None
        functools.update_wrapper(self, function)

    @property
    def __assetcore_key__(self) -> str:
        return self.name

    @property
    def group(self) -> str:
        """The group that it was declared in; the second part of its storage keys."""
        return self.options.group

    @property
    def tags(self) -> tuple[str, ...]:
        """Its tags, for selections such as `tag:report`."""
        return self.options.tags

    @property
    def kinds(self) -> tuple[str, ...]:
        """What it is made with or as, for selections such as `kind:llm`."""
        return self.options.kinds

    @property
    def description(self) -> str:
        """The description given, or the first paragraph of the docstring."""
        return self.options.description or (inspect.getdoc(self.function) or "").split("\n\n")[0].replace("\n", " ")

    @property
    def asynchronous(self) -> bool:
        """Whether the function runs on the event loop."""
        return self._asynchronous

    @property
    def dependencies(self) -> tuple[Dependency, ...]:
        """The parameters that are given documents, in their order."""
        return self.resolve().dependencies

    @property
    def configs(self) -> tuple[Config, ...]:
        """The parameters that are given configuration."""
        return self.resolve().configs

    @property
    def output(self) -> Output:
        """What the function returns."""
        return self.resolve().output

    @property
    def partitions(self) -> Partitions | None:
        """What it is divided into: as declared, or as that which it is made of one by one."""
        return self.resolve().partitions

    @property
    def partition(self) -> PartitionTaker | None:
        """The parameter that takes the partition."""
        return self.resolve().partition

    @property
    def multiplied(self) -> bool:
        """Whether it is made once for each pair of a partition and a document, instead of each document being in one partition."""
        own = self.options.partitions
        return own is not None and any(
            d.relation != "same" or d.upstream.partitions is None or not are_aligned(own, d.upstream.partitions)
            for d in self.dependencies if d.kind == "each" and not d.cross
        )  # fmt: skip

    @property
    def upstreams(self) -> tuple[Asset[..., Any], ...]:
        """The assets that the dependencies name, each once, in the order of the parameters."""
        return tuple(dict.fromkeys(d.upstream for d in self.dependencies))

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        if problem := _unfilled(self, args, kwargs):
            raise TypeError(problem)
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<{self.kind} {self.name} at {self.place}>"

    def resolve(self) -> Resolved:
        """Read the annotations. Raises DeclarationError naming the asset, the parameter, what was found and what was expected."""
        if self._resolved is None:
            self._resolved = self._read(self)
        return self._resolved

    def fail(self, problem: str, fix: str) -> DeclarationError:
        """The error for a mistake in this declaration."""
        return DeclarationError(f"{self.place}: {self.name} {problem}", hint=fix)


class Source(Asset[[], Any]):
    """An asset that is observed, not made; `source` makes it."""

    kind = "source"

    def __init__(self, name: str, type_: type[Document], where: Any, options: Options, place: Place) -> None:
        self.where = where
        self.type = type_
        self.options = options
        self.name = name
        self.place = place
        self.names = None
        frame = getattr(where, "as_frame", False)
        self._resolved = Resolved((), (), Output("table", type_) if frame else Output("document", type_, many=True))

    @property
    def description(self) -> str:
        return self.options.description or (self.type.__doc__ or "").split("\n\n")[0].replace("\n", " ")

    @property
    def asynchronous(self) -> bool:
        return True

    def __call__(self) -> Any:
        raise TypeError(f"{self.name} is a source: it is observed, not called")


def _unfilled(declared: Asset[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> str | None:
    signature = inspect.signature(declared.function)
    try:
        given = signature.bind_partial(*args, **kwargs).arguments
    except TypeError:
        return None  # the function's own error says it best
    for parameter in signature.parameters.values():
        if isinstance(parameter.default, Each | Collect) and parameter.name not in given:
            return f"{declared.name}() needs a value for {parameter.name!r} when it is called as a function"
    return None


def is_async(function: Callable[..., Any]) -> bool:
    """Whether a call of it runs on the event loop."""
    return inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)


def place_of(function: Any) -> Place:
    """Where a function is written."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    return Place(code.co_filename, code.co_firstlineno) if code else Place("?", 0)
