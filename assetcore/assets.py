"""Assets: what does a user declare?

An asset is a named set of documents and the function that makes it. Its dependencies stand in the default values of its
parameters, so the declaration is the signature:

    @asset
    async def chunks(topic: Topic = each(topics)) -> list[Chunk]: ...

Declaring imports nothing heavy and registers nothing anywhere: `project.load` collects the assets of a project's modules and
calls `resolve` on each, which reads the annotations and finds every mistake that can be found without running anything.
"""

from __future__ import annotations

import collections.abc
import functools
import inspect
import re
import sys
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from typing import Any, Generic, Literal, ParamSpec, TypeVar, get_args, get_origin, overload

from pydantic import BaseModel

from assetcore.documents import BUILT_IN, Document
from assetcore.errors import DeclarationError
from assetcore.partitions import Partition, Partitions, Relation, are_aligned, duration_of, misfit

__all__ = [
    "Asset",
    "Collect",
    "Config",
    "Dependency",
    "Each",
    "Output",
    "Sensitivity",
    "Source",
    "asset",
    "collect",
    "each",
    "source",
]

P = ParamSpec("P")
R = TypeVar("R")

Form = Literal["document", "model", "list", "iterator", "polars-lazy", "polars", "pandas", "arrow"]
"""How a parameter wants its documents handed over; what its annotation asks for."""

FRAMES: Mapping[tuple[str, str], Form] = {
    ("polars", "LazyFrame"): "polars-lazy",
    ("polars", "DataFrame"): "polars",
    ("pandas", "DataFrame"): "pandas",
    ("pyarrow", "Table"): "arrow",
}
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


def each(
    upstream: Any,
    *,
    fields: Sequence[str] | None = None,
    cross: bool = False,
    partitions: str | timedelta | None = None,
) -> Any:
    """Depend on every document of `upstream`, one at a time: the function is called once for each.

    `fields` hands over only these parts (`"name"`, `"text"`, `"data"`, `"content"`, `"media_type"` or typed fields): a change of any
    other part makes nothing stale, and touching another part raises. `cross=True` allows a second, unrelated `each`: once for each pair.
    `partitions`, where both are partitioned, says of which partitions of `upstream`, as for `collect`.
    """
    return Each(upstream, fields if fields is None or isinstance(fields, str) else tuple(fields), cross, partitions)


def collect(upstream: Any, *, per: Any = None, by: str | None = None, partitions: str | timedelta | None = None) -> Any:
    """Depend on all documents of `upstream` at once, in the form that the annotation asks for.

    `list[Chunk]`, `AsyncIterator[Chunk]`, `polars.LazyFrame`, `polars.DataFrame`, `pandas.DataFrame` or `pyarrow.Table`. `per=b`, beside
    `each(b)`: those that descend from this document of `b`. `by="field"`: one call for each value of that field.

    Where both are partitioned, a partition is given the documents of the `"same"` partition, or of those within the same time;
    `partitions="7d"` (or a timedelta) those of the seven days up to its end, `partitions="all"` all of them.
    """
    return Collect(upstream, per, by, partitions)


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


class Asset(Generic[P, R]):
    """A named set of documents and the function that makes it. Calling it calls the function; `@asset` makes it."""

    kind: Literal["asset", "source"] = "asset"

    def __init__(self, function: Callable[P, R], options: Options, names: Mapping[str, Any] | None = None) -> None:
        self.function = function
        self.options = options
        self.name: str = options.name or function.__name__
        self.place = _place(function)
        self._names = names
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
        return _is_async(self.function)

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
            self._resolved = _resolve(self)
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
        self._names = None
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


@overload
def asset(function: Callable[P, R], /) -> Asset[P, R]: ...
@overload
def asset(
    *,
    name: str | None = None,
    tags: Sequence[str] = (),
    kinds: Sequence[str] = (),
    group: str = "main",
    owner: str | None = None,
    description: str | None = None,
    sensitivity: Sensitivity | None = None,
    anonymises: bool = False,
    models: Sequence[str] = (),
    version: str | None = None,
    retries: int = 0,
    timeout: float | None = None,
    concurrency: int | None = None,
    pool: str | None = None,
    layout: Layout = "packs",
    renamed_from: str | None = None,
    partitions: Partitions | None = None,
    freshness: str | timedelta | None = None,
    schedule: str | None = None,
    after: Sequence[Asset[..., Any]] = (),
    on: Sequence[str] = (),
) -> Callable[[Callable[P, R]], Asset[P, R]]: ...
def asset(function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Declare the documents that a function makes.

    name          the asset's name; the function's own by default
    tags, kinds, group, owner, description
                  for people and selections; never part of the recipe. `kinds` is what it is made with or as, such as `["markdown", "llm"]`,
                  `group` the second part of the storage key, and the docstring the description where none is given
    sensitivity   "public", "internal", "confidential" or "restricted"; never part of the recipe. Without it an asset is as sensitive
                  as the most sensitive of what it is made of, and it cannot be less
    anonymises    that the function takes out what is sensitive: `sensitivity` may then be lower than that of what it is made of
    models        aliases of models that the function uses: pointing an alias elsewhere makes the asset stale
    version       replaces the automatic fingerprint of the function: only a new version makes it stale
    retries       how often a failed unit is tried again, with exponential backoff and jitter; 0 unless declared
    timeout       seconds that one unit may take (async functions)
    concurrency   how many units run at once (async functions); that of the pool, or the setting `concurrency`, by default
    pool          a pool of the setting `pools`, whose limits hold for all that use it: in this run, in others, on other machines
    layout        "packs": many small documents in one object; "files": one object each
    renamed_from  the asset's earlier name: its history and content are kept
    partitions    `Daily(...)`, `Hourly(...)`, `Static([...])` or `Dynamic(function)`: one unit for each; with `each` of what is not
                  partitioned, one for each partition and document. A parameter annotated with `Partition` takes it
    freshness     how long a unit stays fresh after it was made: `"1d"`, `"6h"` or a timedelta; then it is stale, as `expired`
    schedule      when a deployment makes it, with what it is made of: five fields of cron, `"0 6 * * *"`, in UTC
    after         assets: when one of them was made, a deployment makes this one
    on            events of Prefect by name, such as `"orders.arrived"`: likewise

    Raises DeclarationError for what cannot be an asset, at once or when the project is loaded.
    """
    if function is not None:
        return _declare(function, options, sys._getframe(1))

    def decorate(function: Callable[..., Any]) -> Asset[..., Any]:
        return _declare(function, options, sys._getframe(1))

    return decorate


def source(name: str, type: type[Document], where: Any, *, tags: Sequence[str] = (), kinds: Sequence[str] = (), group: str = "main",
           owner: str | None = None, description: str | None = None, sensitivity: Sensitivity | None = None,
           renamed_from: str | None = None, freshness: str | timedelta | None = None) -> Source:  # fmt: skip
    """Declare documents that are observed, not made.

    `where` says where they come from: `folder("data/topics", pattern="*.txt")`, `bucket("s3://name/prefix")`, `urls([...])`, or an
    async generator function without parameters that yields documents of `type`. Their bytes are kept when they are materialized, so
    that what was made of them stays explainable after they have changed. The options are those of `asset`. With `freshness="1d"` a plan
    warns when nothing new has come for so long; nothing is made for it, because a source is looked at in every plan.
    """
    place = _caller(sys._getframe(1))
    if not (isinstance(type, type_) and issubclass(type, Document)):
        raise DeclarationError(
            f"{place}: source {name!r} needs a Document subclass, found {type!r}.", hint="class Topic(Document): ..."
        )
    generator = inspect.isasyncgenfunction(where)
    if not generator and not hasattr(where, "observe"):
        raise DeclarationError(
            f"{place}: source {name!r} cannot be observed: {where!r} is neither a folder(...) nor an async generator function.",
            hint='Write source("topics", Topic, folder("data/topics", pattern="*.txt")).',
        )
    missing = [n for n in type.field_names() if type.model_fields[n].is_required()]
    if getattr(where, "as_frame", False) and type.field_names():
        raise DeclarationError(
            f"{place}: source {name!r} is one frame, which has no field {type.field_names()[0]!r} of {type.__name__}.",
            hint="Give it a class without fields: the columns are those of the frame.",
        )
    if missing and not generator and not getattr(where, "fills_fields", False):
        raise DeclarationError(
            f"{place}: source {name!r} reads files, which cannot fill the required field {missing[0]!r} of {type.__name__}.",
            hint=f"Give {missing[0]} a default, or yield the documents from an async generator function.",
        )
    if generator and inspect.signature(where).parameters:
        raise DeclarationError(
            f"{place}: source {name!r} is observed by calling {where.__name__}, which takes {inspect.signature(where)}.",
            hint="Give it no parameters: async def read() -> AsyncIterator[...].",
        )
    given = {
        "name": name, "tags": tags, "kinds": kinds, "group": group, "owner": owner, "description": description,
        "sensitivity": sensitivity, "renamed_from": renamed_from, "freshness": freshness,
    }  # fmt: skip
    options = _options(place, f"source {name!r}", given)
    _check_name(name, place)
    return Source(name, type, where, options, place)


type_ = type
"""The built-in, which the parameter of `source` hides."""


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _are_texts(value: Any) -> bool:
    return isinstance(value, list | tuple | set | frozenset) and all(map(_is_text, value))


CRON = re.compile(r"(?:[\d*/,A-Za-z#?L-]+ +){4}[\d*/,A-Za-z#?L-]+")

WANTED: Mapping[str, tuple[str, Callable[[Any], bool]]] = {
    "name": ("a Python identifier", _is_text),
    "tags": ("a list of texts", _are_texts),
    "kinds": ("a list of texts", _are_texts),
    "group": ("a text without /", lambda value: _is_text(value) and "/" not in value),
    "owner": ("a text", _is_text),
    "description": ("a text", _is_text),
    "sensitivity": (
        '"public", "internal", "confidential" or "restricted"',
        lambda value: value in get_args(Sensitivity),
    ),
    "anonymises": ("True or False", lambda value: isinstance(value, bool)),
    "models": ("a list of texts", _are_texts),
    "version": ('a text, such as "2"', _is_text),
    "retries": ("a whole number, 0 or more", lambda value: _is_number(value) and value >= 0 and value == int(value)),
    "timeout": ("a number of seconds above 0", lambda value: _is_number(value) and value > 0),
    "concurrency": (
        "a whole number, 1 or more",
        lambda value: _is_number(value) and value >= 1 and value == int(value),
    ),
    "pool": ("the name of a pool in the settings", _is_text),
    "layout": ('"packs" or "files"', lambda value: value in get_args(Layout)),
    "renamed_from": ("the name that an asset had", _is_text),
    "partitions": (
        'Daily(start="2026-11-01"), Hourly(...), Static([...]) or Dynamic(...)',
        lambda value: isinstance(value, Partitions),
    ),
    "schedule": (
        'five fields of cron, such as "0 6 * * *"',
        lambda value: _is_text(value) and bool(CRON.fullmatch(value)),
    ),
    "after": (
        "a list of assets",
        lambda value: isinstance(value, list | tuple) and all(isinstance(one, Asset) for one in value),
    ),
    "on": ("a list of texts", _are_texts),
    "freshness": (
        'a length of time, such as "1d" or "6h", or a timedelta',
        lambda value: duration_of(value) is not None,
    ),
}
"""What each option of a declaration takes, in words and as a question."""


def _options(place: Place, who: str, given: Mapping[str, Any]) -> Options:
    """The options of a declaration. Raises DeclarationError for one that does not exist, or has a value that it does not take."""
    optional = {name for name, default in Options.__dataclass_fields__.items() if default.default is None}
    for name, value in given.items():
        if name not in WANTED:
            raise DeclarationError(f"{place}: {who} has no option {name!r}.", hint=f"It has: {', '.join(WANTED)}.")
        what, fits = WANTED[name]
        if not (fits(value) or (value is None and name in optional)):
            hint = f"Write {name}=[{value!r}]." if isinstance(value, str) and what == "a list of texts" else None
            raise DeclarationError(f"{place}: {who} has {name}={value!r}, which is not {what}.", hint=hint)
    fitting: dict[str, Any] = {n: tuple(v) if n in ("tags", "kinds", "models", "on") else v for n, v in given.items()}
    if "after" in fitting:
        fitting["after"] = tuple(one.name for one in fitting["after"])
    if "freshness" in fitting:
        fitting["freshness"] = duration_of(fitting["freshness"])
    return Options(**fitting)


def _declare(function: Any, given: Mapping[str, Any], frame: types.FrameType) -> Asset[..., Any]:
    if not inspect.isfunction(function):
        what = f"an asset ({function!r})" if isinstance(function, Asset) else f"{function!r}"
        raise DeclarationError(
            f"{_caller(frame)}: @asset goes on a function, found {what}.", hint="async def name(...) -> Type: ..."
        )
    if function.__name__ == "<lambda>":
        raise DeclarationError(
            f"{_place(function)}: a lambda cannot be an asset: it has no name and no annotations.",
            hint="Use def or async def.",
        )
    inside = function.__qualname__.rpartition(".")[0]
    if inside and not inside.endswith("<locals>"):
        raise DeclarationError(
            f"{_place(function)}: {function.__name__} is declared in the class {inside}, where no project finds it.",
            hint="Declare it at the top of the module.",
        )
    place = _place(function)
    hidden = function.__globals__.get(function.__name__) if not inside and _is_imported_first(function) else None
    if isinstance(hidden, Asset) and hidden.place.file == place.file and hidden.place != place:
        raise DeclarationError(
            f"{place}: {function.__name__} is declared twice; the other is at {hidden.place}.",
            hint="Rename one of them: the second function takes the name of the first.",
        )
    options = _options(_place(function), f"@asset of {function.__name__}", given)
    strings = any(isinstance(a, str) for a in function.__annotations__.values())
    names = dict(frame.f_locals) if strings and frame.f_code.co_name != "<module>" else None
    declared = Asset(function, options, names)
    _check_name(declared.name, declared.place)
    if not declared.asynchronous and _is_async(inspect.unwrap(function)):
        raise declared.fail(
            "is async below a decorator that is not.", "Make the decorator's inner function async def too, or use none."
        )
    if options.renamed_from == declared.name:
        raise declared.fail("was renamed from its own name.", "renamed_from= is the name that it had before.")
    if options.anonymises and options.sensitivity is None:
        raise declared.fail(
            "anonymises, but does not say how sensitive what it makes still is.",
            'Write @asset(sensitivity="public", anonymises=True).',
        )
    if options.timeout is not None and not declared.asynchronous:
        raise declared.fail(
            "has a timeout, but is not async: a running sync function cannot be stopped.", "Make it async def."
        )
    if options.models and not declared.asynchronous:
        raise declared.fail(
            f"declares models ({', '.join(options.models)}), but is not async, and models are asked with await.",
            "Make it async def; work for the CPU goes into an asset of its own, with def.",
        )
    return declared


def _is_imported_first(function: Callable[..., Any]) -> bool:
    """Whether its module is being imported, so that the names in it are of this import: not a notebook's, nor those of a reload."""
    module = sys.modules.get(function.__module__)
    return bool(
        getattr(getattr(module, "__spec__", None), "_initializing", False)
    )  # importlib's, who says it nowhere else


def _is_async(function: Callable[..., Any]) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)


def _check_name(name: str, place: Place) -> None:
    if not name.isidentifier() or len(name) > 100:
        raise DeclarationError(
            f"{place}: {name!r} cannot be the name of an asset.",
            hint="Names are Python identifiers of at most 100 characters.",
        )


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


def _resolve(declared: Asset[..., Any]) -> Resolved:
    hints = annotations_of(declared)
    dependencies: list[Dependency] = []
    configs: list[Config] = []
    takers: list[PartitionTaker] = []
    for parameter in inspect.signature(declared.function).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            raise declared.fail(
                f"takes {parameter}, which nothing can fill.", "Give each input a parameter with a name of its own."
            )
        annotation = hints.get(parameter.name)
        match parameter.default:
            case Each():
                dependencies.append(each_of(declared, parameter.name, annotation, parameter.default))
            case Collect():
                dependencies.append(collect_of(declared, parameter.name, annotation, parameter.default))
            case Asset():
                upstream = parameter.default.name
                raise declared.fail(
                    f"has the asset {upstream} itself as the default of {parameter.name!r}.",
                    f"Write {parameter.name}: ... = each({upstream}) or collect({upstream}).",
                )
            case default if default is parameter.empty and _may_be_partition(declared, annotation):
                takers.append(_taker(declared, parameter.name, annotation))
            case default:
                configs.append(_config(declared, parameter.name, annotation, default))
    output = _output(declared, hints.get("return", inspect.Parameter.empty))
    if output.type is Document:
        raise declared.fail("returns Document itself.", "Subclass it to name what it is: class Report(Document): ...")
    _check_together(declared, dependencies)
    if len(takers) > 1:
        raise declared.fail(
            f"takes its partition twice, in {takers[0].parameter!r} and {takers[1].parameter!r}.", "Take it once."
        )
    partitions = declared.options.partitions or next(
        (d.upstream.partitions for d in dependencies if d.kind == "each" and not d.cross and d.upstream.partitions),
        None,
    )
    related = (_related(declared, d, partitions) for d in dependencies)
    return Resolved(tuple(related), tuple(configs), output, partitions, takers[0] if takers else None)


def _may_be_partition(declared: Asset[..., Any], annotation: Any) -> bool:
    own = declared.options.partitions
    return annotation in (Partition, date, datetime) or (own is not None and annotation in (str, int, own.hands_over))


def _taker(declared: Asset[..., Any], name: str, annotation: Any) -> PartitionTaker:
    own = declared.options.partitions
    if own is None:
        raise declared.fail(
            f"takes a partition in {name!r} ({shown(annotation)}), but is not partitioned.",
            'Write @asset(partitions=Daily(start="2026-11-01")).',
        )
    if annotation not in (Partition, own.hands_over):
        kind = type(own).__name__
        raise declared.fail(
            f"takes its partition in {name!r} as {shown(annotation)}, but {kind} hands over {shown(own.hands_over)}.",
            f"Write {name}: {shown(own.hands_over)}, or {name}: Partition for all that is known of it.",
        )
    return PartitionTaker(name, annotation)


def _related(declared: Asset[..., Any], dependency: Dependency, own: Partitions | None) -> Dependency:
    """The dependency with which partitions of its upstream a partition is given. Raises DeclarationError where that cannot be said."""
    upstream, name = dependency.upstream, dependency.parameter
    said = inspect.signature(declared.function).parameters[name].default.partitions
    asked = f"{dependency.kind}({upstream.name}, partitions={said!r})"
    if said is not None:
        for one, divided in ((upstream, upstream.partitions), (declared, own)):
            if divided is None:
                raise declared.fail(
                    f"asks {asked} for {name!r}, but {one.name} is not partitioned.", "Leave partitions= out."
                )
        if dependency.per is not None:
            raise declared.fail(f"gives {name!r} both per= and partitions=.", "Choose one.")
        if said not in ("same", "all") and duration_of(said) is None:
            raise declared.fail(
                f"asks {asked} for {name!r}.", 'partitions= is "same", "all", or a length of time such as "7d".'
            )
    if upstream.partitions is None or own is None or said == "all" or dependency.per is not None or dependency.cross:
        return dependency
    relation: Relation = "same" if said in (None, "same") else typing.cast("timedelta", duration_of(said))
    if problem := misfit(own, upstream.partitions, relation):
        what, fix = problem
        raise declared.fail(
            f"is given partitions of {upstream.name} in {name!r}, but {what}.",
            f'{fix[0].upper()}{fix[1:]}, or write {dependency.kind}({upstream.name}, partitions="all").',
        )
    return replace(dependency, relation=relation)


def annotations_of(declared: Asset[..., Any]) -> dict[str, Any]:
    """The annotations of a declared function, evaluated. Raises DeclarationError for one that cannot be."""
    try:
        return typing.get_type_hints(declared.function, localns=dict(declared._names) if declared._names else None)
    except Exception as error:
        raise declared.fail(
            f"has an annotation that cannot be evaluated: {error}.",
            "Import or define the name at the top of the module.",
        ) from None


def each_of(declared: Asset[..., Any], name: str, annotation: Any, default: Each) -> Dependency:
    """What a parameter with `each` is given. Raises DeclarationError where its annotation does not fit."""
    upstream = _upstream(declared, name, "each", default.upstream)
    output = upstream.output
    form, found = _single_form(annotation)
    if output.form == "document":
        _check_type(
            declared, name, annotation, f"each({upstream.name})", found if form == "document" else None, output.type
        )
    elif output.form == "model" and not (form == "model" and issubclass(output.type, typing.cast("type", found))):
        raise _mismatch(declared, name, annotation, f"each({upstream.name})", output.type.__name__)
    elif output.form == "table" and form not in FRAMES.values():
        raise _mismatch(declared, name, annotation, f"each({upstream.name})", "a frame, such as polars.DataFrame")
    fields = _fields(declared, name, default.fields, upstream)
    return Dependency(name, "each", upstream, form, typing.cast("Any", found), fields, cross=default.cross)


def collect_of(declared: Asset[..., Any], name: str, annotation: Any, default: Collect) -> Dependency:
    """What a parameter with `collect` is given. Raises DeclarationError where its annotation does not fit."""
    upstream = _upstream(declared, name, "collect", default.upstream)
    per = _upstream(declared, name, "per=", default.per) if default.per is not None else None
    output = upstream.output
    origin, arguments = get_origin(annotation), get_args(annotation)
    form: Form | None = FRAMES.get(class_key(annotation))
    found: Any = None
    if form is None and origin is list and arguments:
        form, found = "list", arguments[0]
    elif form is None and origin in (collections.abc.AsyncIterator, collections.abc.AsyncIterable) and arguments:
        form, found = "iterator", arguments[0]
    expected = f"list[{output.type.__name__}], AsyncIterator[{output.type.__name__}] or a frame"
    if form is None:
        raise _mismatch(declared, name, annotation, f"collect({upstream.name})", expected)
    if found is not None and output.form != "table":
        _check_type(declared, name, annotation, f"collect({upstream.name})", found, output.type, expected)
    if found is not None and output.form == "table":
        raise _mismatch(declared, name, annotation, f"collect({upstream.name})", "a frame")
    if form == "iterator" and not declared.asynchronous:
        raise declared.fail(
            f"takes an AsyncIterator in {name!r}, but is not async.", "Make it async def, or ask for a list."
        )
    if default.by is not None:
        if per is not None:
            raise declared.fail(
                f"gives {name!r} both per= and by=.", "Choose one: per= groups by ancestor, by= by a field."
            )
        known = typing.cast("type[Document]", output.type).field_names() if output.form == "document" else ()
        if default.by not in known:
            raise declared.fail(
                f"groups {name!r} by {default.by!r}, but {output.type.__name__} has no such typed field.",
                f"It has: {', '.join(known) or 'none'}.",
            )
    return Dependency(name, "collect", upstream, form, found, per=per, by=default.by)


def _check_together(declared: Asset[..., Any], dependencies: Sequence[Dependency]) -> None:
    eaches = [d for d in dependencies if d.kind == "each"]
    groups = [d for d in dependencies if d.by is not None]
    if groups and eaches:
        raise declared.fail(
            f"mixes collect(by={groups[0].by!r}) in {groups[0].parameter!r} with each() in {eaches[0].parameter!r}.",
            "Group in one asset, and use each() of it in another.",
        )
    if len(groups) > 1:
        raise declared.fail("has two parameters with by=.", "Group by one field, in one parameter.")
    for dependency in dependencies:
        if dependency.per is not None and dependency.per not in [d.upstream for d in eaches]:
            per = dependency.per.name
            raise declared.fail(
                f"takes collect({dependency.upstream.name}, per={per}) in {dependency.parameter!r} without each({per}) beside it.",
                f"Add a parameter with each({per}).",
            )


def _upstream(declared: Asset[..., Any], name: str, verb: str, found: Any) -> Asset[..., Any]:
    if isinstance(found, Asset):
        return found
    hint = f"Declare it first, with @asset or source(...), and pass it by its name: {verb}(name)."
    if isinstance(found, str):
        hint = f"Pass the asset itself, not its name: {verb}({found})."
    shown = getattr(found, "__name__", None) or repr(found)
    raise declared.fail(f"asks {verb}({shown}) for {name!r}, which is not an asset or source.", hint)


def _single_form(annotation: Any) -> tuple[Form, Any]:
    form = FRAMES.get(class_key(annotation))
    if form is not None:
        return form, None
    if isinstance(annotation, type) and issubclass(annotation, Document):
        return "document", annotation
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "model", annotation
    return "document", None


def _check_type(
    declared: Asset[..., Any],
    name: str,
    annotation: Any,
    asked: str,
    found: Any,
    made: type,
    expected: str | None = None,
) -> None:
    if not (
        isinstance(found, type) and issubclass(made, found) and issubclass(found, BaseModel) and found is not BaseModel
    ):
        raise _mismatch(declared, name, annotation, asked, expected or made.__name__)


def _mismatch(declared: Asset[..., Any], name: str, annotation: Any, asked: str, expected: str) -> DeclarationError:
    found = "no annotation" if annotation is None else f"the annotation {shown(annotation)}"
    fix = "polars.DataFrame" if expected.startswith("a frame") else expected.split(",")[0]
    return declared.fail(f"has {found} on {name!r}, but {asked} hands over {expected}.", f"Write {name}: {fix} = ...")


def _fields(
    declared: Asset[..., Any], name: str, fields: tuple[str, ...] | str | None, upstream: Asset[..., Any]
) -> frozenset[str] | None:
    if fields is None:
        return None
    if isinstance(fields, str):
        raise declared.fail(f"has fields={fields!r} on {name!r}, which takes a list.", f"Write fields=[{fields!r}].")
    if upstream.output.form != "document":
        raise declared.fail(
            f"has fields= on {name!r}, but {upstream.name} makes no documents with fields.", "Leave fields= out."
        )
    known = (*BUILT_IN, *upstream.output.document_type.field_names())
    chosen = ["content" if f in ("text", "data") else f for f in fields]
    for wanted in chosen:
        if wanted not in known:
            raise declared.fail(
                f"asks for the field {wanted!r} of {upstream.name} in {name!r}, which {upstream.output.type.__name__} does not have.",
                f"It has: text, data, {', '.join(known)}.",
            )
    return frozenset(chosen)


def _config(declared: Asset[..., Any], name: str, annotation: Any, default: Any) -> Config:
    is_model = isinstance(annotation, type) and issubclass(annotation, BaseModel) and annotation is not BaseModel
    if is_model and not issubclass(annotation, Document):
        if default is inspect.Parameter.empty:
            return Config(name, annotation, None)
        if isinstance(default, annotation):
            return Config(name, annotation, default)
    if isinstance(annotation, type) and issubclass(annotation, Document):
        raise declared.fail(
            f"does not say where the {annotation.__name__} in {name!r} comes from.",
            f"Write {name}: {annotation.__name__} = each(...).",
        )
    found = "no annotation" if annotation is None else shown(annotation)
    raise declared.fail(
        f"takes {name!r} ({found}), which is neither a dependency nor config.",
        "Give it each(...) or collect(...) as default, or annotate it with a pydantic BaseModel.",
    )


def _output(declared: Asset[..., Any], annotation: Any) -> Output:
    fix = "Return a Document subclass, list[...] or AsyncIterator[...] of one, a frame, or a pydantic model."
    if annotation is inspect.Parameter.empty or annotation is None or annotation is type(None):
        raise declared.fail("does not say what it returns.", fix)
    origin, arguments = get_origin(annotation), get_args(annotation)
    streams = (collections.abc.AsyncIterator, collections.abc.AsyncGenerator, collections.abc.AsyncIterable,
               collections.abc.Iterator, collections.abc.Generator, collections.abc.Iterable)  # fmt: skip
    generator = inspect.isasyncgenfunction(declared.function) or inspect.isgeneratorfunction(declared.function)
    if generator and origin is not list and origin not in streams:
        raise declared.fail(
            f"is annotated with {shown(annotation)}, but yields.",
            "Annotate a function that yields with AsyncIterator[...] (async def) or Iterator[...] (def).",
        )
    if origin in (typing.Union, types.UnionType):
        inner = [a for a in arguments if a is not type(None)]
        if len(inner) == 1 and isinstance(inner[0], type) and issubclass(inner[0], Document) and len(arguments) == 2:
            return Output("document", inner[0], optional=True)
        raise declared.fail(f"returns {shown(annotation)}.", f"{fix} A union is allowed only with None.")
    if origin is list or origin in streams:
        inner = arguments[0] if arguments else None
        if not (isinstance(inner, type) and issubclass(inner, Document)):
            raise declared.fail(
                f"returns {shown(annotation)}: its members are not documents.", f"{fix} Name what they are."
            )
        if generator != (origin in streams):
            raise declared.fail(
                f"is annotated with {shown(annotation)}, but {'yields' if generator else 'does not yield'}.",
                "Annotate a function that yields with (Async)Iterator[...], one that returns with list[...].",
            )
        if generator and inspect.isasyncgenfunction(declared.function) != (origin in streams[:3]):
            raise declared.fail(
                f"is annotated with {shown(annotation)}.",
                "async def yields AsyncIterator[...], def yields Iterator[...].",
            )
        return Output("document", inner, many=True, stream=generator)
    form = FRAMES.get(class_key(annotation))
    if form is not None:
        return Output("table", Table)
    if isinstance(annotation, type) and issubclass(annotation, Document):
        return Output("document", annotation)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel) and annotation is not BaseModel:
        return Output("model", annotation)
    raise declared.fail(
        f"returns {shown(annotation)}.", f"{fix} Loose text or bytes have no name: wrap them in a Document."
    )


def class_key(annotation: Any) -> tuple[str, str]:
    """The package and name of a class, to know it by without importing it."""
    return (str(getattr(annotation, "__module__", "")).split(".")[0], getattr(annotation, "__name__", ""))


def shown(annotation: Any) -> str:
    """An annotation as it is written."""
    return (
        annotation.__name__
        if isinstance(annotation, type) and not get_args(annotation)
        else str(annotation).replace("typing.", "")
    )


def _place(function: Any) -> Place:
    code = getattr(inspect.unwrap(function), "__code__", None)
    return Place(code.co_filename, code.co_firstlineno) if code else Place("?", 0)


def _caller(frame: types.FrameType) -> Place:
    return Place(frame.f_code.co_filename, frame.f_lineno)
