"""Checks: which conditions must documents meet?

A check is a function that is given what an asset made, and says whether that is as it should be:

    @check(chunks, blocking=True)
    def has_text(chunk: Chunk) -> bool: ...                    # each document of a unit, before the unit is committed

    @check(chunks)
    def some(chunks: list[Chunk]) -> str | None: ...           # what one call made, before it is committed

    @check(chunks)
    def enough(chunks: pl.DataFrame) -> None: ...              # the whole asset, when it is made

What the parameter asks for says over what it is asked: a document, or what the asset's function returns, is of one unit; any other form
that `collect` knows, and every parameter with `= collect(asset)`, is of the whole asset. None, True and an empty text mean that
it passed; False, a text, AssertionError and ValueError that it failed; anything else that it could not say (an error). What is not passed
is a warning, unless the check is `blocking`: then it does not become current.
"""

from __future__ import annotations

import collections.abc
import functools
import inspect
import sys
import types
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, ParamSpec, TypeVar, get_args, get_origin

from assetcore.assets import Asset, Collect, Dependency, Each, Options, Source
from assetcore.errors import DeclarationError
from assetcore.signatures import FRAMES, annotations_of, class_key, collect_of, each_of, resolve, shown

__all__ = ["Check", "CheckReport", "Finding", "Scope", "Status", "Verdict", "check", "together", "verdict_of"]

P = ParamSpec("P")
R = TypeVar("R")
Scope = Literal["unit", "asset"]
Status = Literal["passed", "failed", "error"]
STREAMS = (collections.abc.AsyncIterator, collections.abc.AsyncIterable)
MESSAGES = 3
"""How many documents of a unit, or units of an asset, a message names."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a check said of what it was given."""

    status: Status
    message: str = ""
    traceback: str = ""


PASSED = Verdict("passed")


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check has against a unit; against the whole asset where `unit` is None."""

    unit: str | None
    status: Status
    message: str

    def to_json(self) -> dict[str, Any]:
        return {"unit": self.unit, "status": self.status, "message": self.message}

    def __str__(self) -> str:
        return self.message if self.unit is None else f"{self.unit}: {self.message}"


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What a check says of an asset: of how many units (or of the asset as one), the first findings, whether it is to be asked.

    It is `due` when it was changed since, when something has not been looked at, when it could not say, and when what it guards
    is there although it failed.
    """

    asset: str
    check: str
    scope: Scope
    blocking: bool
    passed: int = 0
    failed: int = 0
    errors: int = 0
    findings: tuple[Finding, ...] = ()
    due: bool = False

    @property
    def status(self) -> str:
        """`passed`, `failed` or `error`; `due` where nothing is known yet."""
        if self.errors or self.failed:
            return "error" if self.errors > self.failed else "failed"
        return "passed" if self.passed or not self.due else "due"

    @property
    def refuses(self) -> bool:
        """Whether a blocking check did not pass."""
        return self.blocking and bool(self.failed or self.errors)

    @property
    def summary(self) -> str:
        """What it says, in words; empty where it has nothing to say."""
        if not (self.failed or self.errors):
            return ""
        units = self.failed + self.errors
        of = f" for {units:,} unit{'s' if units > 1 else ''}" if self.scope == "unit" else ""
        verb = "could not say" if self.status == "error" else "failed"
        return f"{self.check} {verb}{of}"

    @property
    def message(self) -> str:
        """What it found, in one line: the first of its findings; empty where it has nothing to say."""
        return listed([str(finding) for finding in self.findings], self.failed + self.errors)

    def to_json(self) -> dict[str, Any]:
        return {
            "asset": self.asset, "check": self.check, "scope": self.scope, "blocking": self.blocking, "status": self.status,
            "passed": self.passed, "failed": self.failed, "errors": self.errors, "due": self.due,
            "findings": [finding.to_json() for finding in self.findings],
        }  # fmt: skip


class Check(Generic[P, R]):
    """A condition that an asset's documents must meet. Calling it calls the function; `@check` makes it."""

    def __init__(
        self, function: Callable[P, R], asset: Asset[..., Any], *, blocking: bool, names: dict[str, Any] | None = None
    ) -> None:
        self.function = function
        self.asset = asset
        self.blocking = blocking
        self.name: str = function.__name__
        self.key = f"{asset.name}.{self.name}"
        self._declared = Asset(function, Options(name=self.key), resolve, names)
        self.place = self._declared.place
        self._resolved: tuple[Scope, Dependency] | None = None
        functools.update_wrapper(self, function)

    @property
    def asynchronous(self) -> bool:
        """Whether the function runs on the event loop."""
        return self._declared.asynchronous

    @property
    def description(self) -> str:
        """The first paragraph of its docstring."""
        return self._declared.description

    @property
    def scope(self) -> Scope:
        """Whether it is asked of each unit, or of the whole asset."""
        return self.resolve()[0]

    @property
    def given(self) -> Dependency:
        """Its parameter, and the form in which that is given what is checked."""
        return self.resolve()[1]

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<check {self.key} at {self.place}>"

    def resolve(self) -> tuple[Scope, Dependency]:
        """Read the annotations. Raises DeclarationError naming the check, what was found and what was expected."""
        if self._resolved is None:
            self._resolved = _resolve(self)
        return self._resolved

    def fail(self, problem: str, fix: str) -> DeclarationError:
        """The error for a mistake in this declaration."""
        return self._declared.fail(problem, fix)


def check(asset: Asset[..., Any], /, *, blocking: bool = False) -> Callable[[Callable[P, R]], Check[P, R]]:
    """Declare a condition that the documents of `asset` must meet, as a function of them.

    The annotation of its one parameter says over what it is asked: `Chunk`, each document of a unit; `list[Chunk]`, where the asset's
    function returns a list, what one call made; a frame or `AsyncIterator[Chunk]`, the whole asset; any of them with
    `= collect(asset)`, the whole asset, too. It passed if it returns None, True or an empty text; it failed if it returns False or a
    text that says why, or raises AssertionError or ValueError. `blocking` keeps what did not pass from becoming current.

    Raises DeclarationError for what cannot be a check, at once or when the project is loaded.
    """
    frame = sys._getframe(1)
    where = f"{frame.f_code.co_filename}:{frame.f_lineno}"
    if not isinstance(asset, Asset):
        known = f"@check({asset})" if isinstance(asset, str) else "@check(chunks)"
        raise DeclarationError(
            f"{where}: @check takes the asset that it is about, found {asset!r:.80}.",
            hint=f"Pass the asset itself: {known}",
        )
    if isinstance(asset, Source):
        raise DeclarationError(
            f"{where}: {asset.name} is a source: its documents are as they are found, and no check can keep them away.",
            hint="Check an asset that is made of it.",
        )
    if not isinstance(blocking, bool):
        raise DeclarationError(
            f"{where}: @check({asset.name}) has blocking={blocking!r}, which is neither True nor False."
        )

    def decorate(function: Callable[P, R]) -> Check[P, R]:
        if not inspect.isfunction(function) or function.__name__ == "<lambda>":
            raise DeclarationError(
                f"{where}: @check({asset.name}) goes on a function with a name, found {function!r:.80}.",
                hint="def name(chunk: Chunk) -> bool: ...",
            )
        local = sys._getframe(1)
        names = dict(local.f_locals) if local.f_code.co_name != "<module>" else None
        return Check(function, asset, blocking=blocking, names=names)

    return decorate


def verdict_of(returned: Any) -> Verdict:
    """What the value that a check's function returned means."""
    if isinstance(returned, str):
        return Verdict("failed", returned) if returned.strip() else PASSED
    if returned is None or returned is True:
        return PASSED
    if returned is False:
        return Verdict("failed", "returned False")
    if type(returned).__module__ == "numpy" and type(returned).__name__ in ("bool", "bool_"):
        return verdict_of(bool(returned))
    return Verdict("error", f"returned {returned!r:.80}, which is neither None, True or False nor a text")


def together(verdicts: Sequence[Verdict], names: Sequence[str]) -> Verdict:
    """The verdict over a unit from those over each of its documents, which have these names."""
    found = [(verdict, name) for verdict, name in zip(verdicts, names, strict=True) if verdict.status != "passed"]
    if not found:
        return PASSED
    status: Status = "error" if any(verdict.status == "error" for verdict, _ in found) else "failed"
    shown_ = [v.message if len(verdicts) == 1 else f"{name}: {v.message}" for v, name in found[:MESSAGES]]
    return Verdict(status, listed(shown_, len(found)), next((v.traceback for v, _ in found if v.traceback), ""))


def listed(messages: Sequence[str], count: int) -> str:
    """The first messages in one line, and how many there are more."""
    more = [f"and {count - MESSAGES:,} more"] if count > MESSAGES else []
    return "; ".join([*messages[:MESSAGES], *more])


def _resolve(check: Check[..., Any]) -> tuple[Scope, Dependency]:
    declared, asset, function = check._declared, check.asset, check.function
    type_name = asset.output.type_name
    forms = (
        "a frame, such as polars.DataFrame"
        if asset.output.form == "table"
        else f"{type_name} (each document), list[{type_name}], a frame, or AsyncIterator[{type_name}]"
    )
    parameters = list(inspect.signature(function).parameters.values())
    named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    if len(parameters) != 1 or len(named) != 1:
        raise check.fail(f"takes {inspect.signature(function)}.", f"Give it one parameter, annotated with {forms}.")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise check.fail("yields.", "Return True, False, or a text that says what is wrong.")
    hints = annotations_of(declared)
    _check_returned(check, hints.get("return", bool))
    parameter = named[0]
    annotation, default = hints.get(parameter.name), parameter.default
    if default is not inspect.Parameter.empty and default != Collect(asset):
        wrong = f"each({asset.name})" if isinstance(default, Each) else f"{default!r:.80}"
        raise check.fail(
            f"has {wrong} as the default of {parameter.name!r}.",
            f"Leave it out, or write collect({asset.name}) to ask it of the whole asset.",
        )
    streams = get_origin(annotation) in STREAMS
    if streams and not check.asynchronous:
        raise check.fail(
            f"takes an AsyncIterator in {parameter.name!r}, but is not async.",
            "Make it async def, or ask for a frame.",
        )
    try:
        if default is not inspect.Parameter.empty or streams or _is_whole(annotation, asset):
            return "asset", collect_of(declared, parameter.name, annotation, Collect(asset))
        if get_origin(annotation) is list:
            return "unit", collect_of(declared, parameter.name, annotation, Collect(asset))
        return "unit", each_of(declared, parameter.name, annotation, Each(asset))
    except DeclarationError:
        found = "no annotation" if annotation is None else f"the annotation {shown(annotation)}"
        raise check.fail(
            f"has {found} on {parameter.name!r}, which is no form of what {asset.name} makes.", f"Write {forms}."
        ) from None


def _is_whole(annotation: Any, asset: Asset[..., Any]) -> bool:
    """Whether a form is one of the whole asset, and not what its function returns."""
    if get_origin(annotation) is list:
        return not asset.output.many
    return class_key(annotation) in FRAMES and asset.output.form != "table"


def _check_returned(check: Check[..., Any], annotation: Any) -> None:
    union = get_origin(annotation) in (typing.Union, types.UnionType)
    said = get_args(annotation) if union else (annotation,)
    if not all(one in (None, type(None), bool, str) for one in said):
        raise check.fail(
            f"is annotated with {shown(annotation)}.",
            "A check returns a truth value, or a text that says what is wrong: -> bool | str | None.",
        )
