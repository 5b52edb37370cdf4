"""Signatures: what does a function ask for and return, and what of that can it not be given?

The dependencies of an asset stand in the default values of its parameters, so the declaration is the signature:

    @asset
    async def chunks(topic: Topic = each(topics)) -> list[Chunk]: ...

Reading one evaluates its annotations, imports nothing heavy, and finds every mistake that can be found without running anything. A sentence
names the asset, the parameter, what was found and what was expected.
"""

from __future__ import annotations

import collections.abc
import inspect
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date, datetime, timedelta
from typing import Any, get_args, get_origin

from pydantic import BaseModel

from assetcore.assets import Asset, Collect, Config, Dependency, Each, Form, Output, PartitionTaker, Resolved, Table
from assetcore.documents import BUILT_IN, Document
from assetcore.errors import DeclarationError
from assetcore.partitions import Partition, Partitions, Relation, duration_of, misfit

__all__ = ["FRAMES", "annotations_of", "class_key", "collect_of", "each_of", "resolve", "shown"]

FRAMES: Mapping[tuple[str, str], Form] = {
    ("polars", "LazyFrame"): "polars-lazy",
    ("polars", "DataFrame"): "polars",
    ("pandas", "DataFrame"): "pandas",
    ("pyarrow", "Table"): "arrow",
}


def resolve(declared: Asset[..., Any]) -> Resolved:
    """What the function of an asset asks for and returns. Raises DeclarationError for what it cannot be given."""
    hints = annotations_of(declared)
    dependencies: list[Dependency] = []
    configs: list[Config] = []
    takers: list[PartitionTaker] = []
    parameters = inspect.signature(declared.function).parameters
    for parameter in parameters.values():
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
    related = (_related(declared, d, parameters[d.parameter].default.partitions, partitions) for d in dependencies)
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


def _related(declared: Asset[..., Any], dependency: Dependency, said: str | None, own: Partitions | None) -> Dependency:
    """The dependency with which partitions of its upstream a partition is given, by what `partitions=` says.

    Raises DeclarationError where that cannot be said.
    """
    upstream, name = dependency.upstream, dependency.parameter
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
        return typing.get_type_hints(declared.function, localns=dict(declared.names) if declared.names else None)
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
