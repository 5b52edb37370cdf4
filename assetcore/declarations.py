"""Declarations: what does a user write of assets and sources, and which of that cannot be meant?

The dependencies of an asset stand in the default values of its parameters, so the declaration is the signature:

    @asset
    async def chunks(topic: Topic = each(topics)) -> list[Chunk]: ...

Declaring registers nothing anywhere: `loading` collects the assets of a project's modules and reads the signature of each. What is wrong
with an option is told at once.
"""

from __future__ import annotations

import inspect
import re
import sys
import types
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import timedelta
from typing import Any, ParamSpec, TypeVar, get_args, overload

from assetcore.assets import Asset, Collect, Each, Layout, Options, Place, Sensitivity, Source, is_async, place_of
from assetcore.documents import Document
from assetcore.errors import DeclarationError
from assetcore.partitions import Partitions, duration_of
from assetcore.refs import WORDS, called
from assetcore.signatures import resolve

__all__ = ["asset", "collect", "each", "source"]

P = ParamSpec("P")
R = TypeVar("R")


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
            f"{place}: source {name!r} cannot be observed: {where!r} is neither a folder(...) nor an async generator function, nor a"
            " bucket(...), urls(...) or table(...).",
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
    _check_name(called(name), place)
    return Source(called(name), type, where, options, place)


type_ = type
"""The built-in, which the parameter of `source` hides."""


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_whole(value: Any) -> bool:
    return _is_number(value) and (isinstance(value, int) or value.is_integer())


def _are_texts(value: Any) -> bool:
    return isinstance(value, list | tuple | set | frozenset) and all(map(_is_text, value))


LONGEST = timedelta(days=365_250)
"""So long is the longest freshness: a thousand years."""
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
CRON = (
    frozenset(map(str, range(60))),
    frozenset(map(str, range(24))),
    frozenset(map(str, range(1, 32))),
    frozenset((*map(str, range(1, 13)), *_MONTHS)),
    frozenset((*map(str, range(8)), *_DAYS)),
)
"""What the fields of cron count: minutes, hours, days of the month, months, days of the week."""
_TERM = re.compile(r"(?:\*|(?P<first>\w+)(?:-(?P<last>\w+))?)(?:/0*[1-9][0-9]?)?", re.ASCII)
_OF_MONTH = re.compile(rf"l[0-7]|(?:[0-7]|{'|'.join(_DAYS)})#[1-5]")
"""A day of the week, the last or one of the first five in the month."""


def is_cron(text: str) -> bool:
    """Whether a text is five fields of cron that Prefect keeps to, each within what it counts."""
    fields = text.lower().split()
    if len(fields) != len(CRON):
        return False
    *_, day, _, weekday = fields
    if all(map(_OF_MONTH.fullmatch, weekday.split(","))):
        weekday = "*"
    found = [*fields[:2], "*" if day in ("l", "?") else day, fields[3], "*" if weekday == "?" else weekday]
    return all(_counts(term, values) for field, values in zip(found, CRON, strict=True) for term in field.split(","))


def _counts(term: str, values: Collection[str]) -> bool:
    """Whether one term of a field is all, some or a range of the values, perhaps in steps."""
    read = _TERM.fullmatch(term)
    return read is not None and all(end is None or (end.lstrip("0") or "0") in values for end in read.groups())


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
    "retries": ("a whole number, 0 or more", lambda value: _is_whole(value) and value >= 0),
    "timeout": ("a number of seconds above 0", lambda value: _is_number(value) and value > 0),
    "concurrency": ("a whole number, 1 or more", lambda value: _is_whole(value) and value >= 1),
    "pool": ("the name of a pool in the settings", _is_text),
    "layout": ('"packs" or "files"', lambda value: value in get_args(Layout)),
    "renamed_from": ("the name that an asset had", _is_text),
    "partitions": (
        'Daily(start="2026-11-01"), Hourly(...), Static([...]) or Dynamic(...)',
        lambda value: isinstance(value, Partitions),
    ),
    "schedule": (
        'five fields of cron, each within its bounds, such as "0 6 * * *"',
        lambda value: _is_text(value) and is_cron(value),
    ),
    "after": (
        "a list of assets",
        lambda value: isinstance(value, list | tuple) and all(isinstance(one, Asset) for one in value),
    ),
    "on": ("a list of texts", _are_texts),
    "freshness": (
        'a length of time up to a thousand years, such as "1d" or "6h", or a timedelta',
        lambda value: timedelta() < (duration_of(value) or timedelta()) <= LONGEST,
    ),
}
"""What each option of a declaration takes, in words and as a question."""
INSTEAD: Mapping[str, str] = {
    "checks": "A check says itself which asset it is of: write @check(asset) above its function.",
    "each": "Write it as the default value of a parameter: page: Page = each(pages).",
    "collect": "Write it as the default value of a parameter: words: list[Word] = collect(words).",
    "bucket": "All of a project is in one bucket, which is the setting storage_url.",
}
"""What to write in the place of options that one may look for."""


def _options(place: Place, who: str, given: Mapping[str, Any]) -> Options:
    """The options of a declaration. Raises DeclarationError for one that does not exist, or has a value that it does not take."""
    optional = {name for name, default in Options.__dataclass_fields__.items() if default.default is None}
    for name, value in given.items():
        if name not in WANTED:
            hint = INSTEAD.get(name, f"It has: {', '.join(WANTED)}.")
            raise DeclarationError(f"{place}: {who} has no option {name!r}.", hint=hint)
        what, fits = WANTED[name]
        if not (fits(value) or (value is None and name in optional)):
            hint = f"Write {name}=[{value!r}]." if isinstance(value, str) and what == "a list of texts" else None
            raise DeclarationError(f"{place}: {who} has {name}={value!r}, which is not {what}.", hint=hint)
    fitting: dict[str, Any] = {n: tuple(v) if n in ("tags", "kinds", "models", "on") else v for n, v in given.items()}
    fitting |= {n: called(fitting[n]) for n in ("name", "renamed_from") if fitting.get(n)}
    if "after" in fitting:
        fitting["after"] = tuple(one.name for one in fitting["after"])
    for name in ("retries", "concurrency"):
        if fitting.get(name) is not None:
            fitting[name] = int(fitting[name])
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
            f"{place_of(function)}: a lambda cannot be an asset: it has no name and no annotations.",
            hint="Use def or async def.",
        )
    inside = function.__qualname__.rpartition(".")[0]
    if inside and not inside.endswith("<locals>"):
        raise DeclarationError(
            f"{place_of(function)}: {function.__name__} is declared in the class {inside}, where no project finds it.",
            hint="Declare it at the top of the module.",
        )
    place = place_of(function)
    hidden = function.__globals__.get(function.__name__) if not inside and _is_imported_first(function) else None
    if isinstance(hidden, Asset) and hidden.place.file == place.file and hidden.place != place:
        raise DeclarationError(
            f"{place}: {function.__name__} is declared twice; the other is at {hidden.place}.",
            hint="Rename one of them: the second function takes the name of the first.",
        )
    options = _options(place_of(function), f"@asset of {function.__name__}", given)
    strings = any(isinstance(a, str) for a in function.__annotations__.values())
    names = dict(frame.f_locals) if strings and frame.f_code.co_name != "<module>" else None
    declared = Asset(function, options, resolve, names)
    _check_name(declared.name, declared.place)
    if not declared.asynchronous and is_async(inspect.unwrap(function)):
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


def _check_name(name: str, place: Place) -> None:
    if not name.isidentifier() or len(name) > 100:
        raise DeclarationError(
            f"{place}: {name!r} cannot be the name of an asset.",
            hint="Names are Python identifiers of at most 100 characters.",
        )
    if name.lower() in WORDS:
        raise DeclarationError(
            f"{place}: {name!r} cannot be the name of an asset: selections have that word for something else.",
            hint=f'Name it otherwise. What was made under that name is kept with renamed_from="{name}".',
        )


def _caller(frame: types.FrameType) -> Place:
    return Place(frame.f_code.co_filename, frame.f_lineno)
