"""Pipelines: what is plain work in Prefect, beside assets, and when may it be tried again?

    @pipeline_task                                   async, never tried again unless a named policy says so
    async def translated(documents: DocumentList) -> DocumentList: ...

    @pipeline_flow                                   documents in, documents out
    async def translate(documents: DocumentList, limits: Limits = Limits()) -> DocumentList:
        return await translated(documents)

They stay ordinary functions: called in a test they need no Prefect. `aipctl run translate --input documents=pages` runs them as a
flow run with its tasks, traced; what a mistake in a declaration costs is an error when the module is loaded.
"""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Generic, ParamSpec, TypeVar, overload

from pydantic import BaseModel

from assetcore.documents import Document
from assetcore.errors import DeclarationError, UsageError
from assetcore.telemetry import span

__all__ = [
    "BACKOFF", "DocumentList", "PipelineFlow", "PipelineTask", "RetryPolicy", "conducted", "pipeline_flow", "pipeline_task",
]  # fmt: skip

P = ParamSpec("P")
D = TypeVar("D", bound=Document)


class DocumentList(list[Document]):
    """Documents, and nothing else: what flows and tasks take and return."""

    def __init__(self, documents: Iterable[Document] = ()) -> None:
        given = list(documents)
        for one in given:
            if not isinstance(one, Document):
                raise UsageError(
                    f"{one!r:.80} is a {type(one).__name__}, and a DocumentList holds documents.",
                    hint="Name what it is: a subclass of Document.",
                )
        super().__init__(given)

    def of(self, kind: type[D]) -> list[D]:
        """Those of one class."""
        return [one for one in self if isinstance(one, kind)]


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When and how often something that failed is tried again: after a growing pause, of which a part is chance.

    An answer 4xx says that the question is wrong, and is not asked again unless its status is in `statuses`.
    """

    name: str
    retries: int
    first: float = 1.0
    longest: float = 60.0
    jitter: float = 0.5
    statuses: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        if not self.name or self.retries < 1 or not 0 < self.first <= self.longest or not 0 <= self.jitter <= 1:
            raise DeclarationError(
                f"{self} is no policy of retries.",
                hint="It has a name, from 1 retries, 0 < first <= longest seconds, and a jitter from 0 to 1.",
            )

    def pauses(self) -> list[float]:
        """The seconds before each further attempt, without the part that is chance."""
        return [min(self.longest, self.first * 2**attempt) for attempt in range(self.retries)]

    def allows(self, error: BaseException) -> bool:
        """Whether another attempt can be of use after this error."""
        status = getattr(error, "status_code", None) or getattr(getattr(error, "response", None), "status_code", None)
        return not isinstance(status, int) or not 400 <= status < 500 or status in self.statuses


BACKOFF = RetryPolicy("backoff", retries=3, statuses=frozenset({408, 429}))
"""For services that are busy: three more attempts after 1, 2 and 4 seconds, half to one and a half times as long each."""


@dataclass(frozen=True, slots=True)
class Terms:
    """Under which terms a function runs."""

    name: str
    description: str
    tags: tuple[str, ...]
    timeout: float | None
    retry: RetryPolicy | None


class PipelineTask(Generic[P]):
    """A task that was declared; calling it does it, inside a flow run as a task run of Prefect."""

    kind = "task"

    def __init__(self, function: Callable[P, Awaitable[DocumentList]], terms: Terms) -> None:
        functools.update_wrapper(self, function)
        self.function = function
        self.terms = terms

    @property
    def name(self) -> str:
        """What it is called."""
        return self.terms.name

    async def __call__(self, *args: P.args, **kwargs: P.kwargs) -> DocumentList:
        """Do it."""
        conductor = _conductor.get()
        if conductor is None or self.kind == "flow":
            return await self.do(args, kwargs)
        return await conductor(self, args, kwargs)

    async def do(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> DocumentList:
        """Do it here, once, traced."""
        with span(self.name, self.kind) as traced:
            returned: Any = await self.function(*args, **dict(kwargs))  # type: ignore[call-arg]  # as they were given
            if not isinstance(returned, list):
                raise UsageError(
                    f"{self.name} returned a {type(returned).__name__}, and is declared to return a DocumentList.",
                    hint="Return DocumentList([...]).",
                )
            made = returned if isinstance(returned, DocumentList) else DocumentList(returned)
            traced.set(documents=len(made), ids=[one.id for one in made[:3]] or None)
            return made

    def __repr__(self) -> str:
        return f"<{self.kind} {self.name}>"


class PipelineFlow(PipelineTask[P]):
    """A flow that was declared; `aipctl run NAME` runs it."""

    kind = "flow"

    def parameters(self) -> Mapping[str, inspect.Parameter]:
        """Its parameters by name, with annotations as types."""
        hints = _hints(self.function)
        found = inspect.signature(self.function).parameters
        return {name: one.replace(annotation=hints.get(name)) for name, one in found.items()}


Conductor = Callable[[Any, tuple[Any, ...], Mapping[str, Any]], Awaitable[DocumentList]]
"""Takes a task, and what it is called with."""
_conductor: ContextVar[Conductor | None] = ContextVar("assetcore_conductor", default=None)


@contextmanager
def conducted(conductor: Conductor) -> Iterator[None]:
    """Have tasks that are called inside done by a conductor: as task runs of Prefect."""
    token = _conductor.set(conductor)
    try:
        yield
    finally:
        _conductor.reset(token)


@overload
def pipeline_task(function: Callable[P, Awaitable[DocumentList]], /) -> PipelineTask[P]: ...
@overload
def pipeline_task(
    *, name: str | None = None, tags: Iterable[str] = (), timeout: float | None = None, retry: RetryPolicy | None = None,
    idempotent: bool = False,
) -> Callable[[Callable[P, Awaitable[DocumentList]]], PipelineTask[P]]: ...  # fmt: skip
def pipeline_task(
    function: Callable[..., Awaitable[DocumentList]] | None = None,
    /,
    *,
    name: str | None = None,
    tags: Iterable[str] = (),
    timeout: float | None = None,
    retry: RetryPolicy | None = None,
    idempotent: bool = False,
) -> Any:
    """Declare an async function from documents to documents as a task.

    It is tried once. With `retry=` a failure is followed by further attempts, and `idempotent=True` says that doing it twice does
    no harm: one without the other is an error. Raises DeclarationError where the function is not async, or takes or returns
    anything loose.
    """
    if retry is not None and not idempotent:
        raise DeclarationError(
            f"A task with retry={retry.name} may be done twice, and nothing says that this does no harm.",
            hint="Make it so, and declare it: @pipeline_task(retry=..., idempotent=True)",
        )

    def declare(function: Callable[..., Awaitable[DocumentList]]) -> PipelineTask[Any]:
        return PipelineTask(function, _terms(function, "task", name, tags, timeout, retry))

    return declare if function is None else declare(function)


@overload
def pipeline_flow(function: Callable[P, Awaitable[DocumentList]], /) -> PipelineFlow[P]: ...
@overload
def pipeline_flow(
    *, name: str | None = None, tags: Iterable[str] = (), timeout: float | None = None
) -> Callable[[Callable[P, Awaitable[DocumentList]]], PipelineFlow[P]]: ...
def pipeline_flow(
    function: Callable[..., Awaitable[DocumentList]] | None = None,
    /,
    *,
    name: str | None = None,
    tags: Iterable[str] = (),
    timeout: float | None = None,
) -> Any:
    """Declare an async function from documents to documents as a flow: it coordinates tasks, and is never tried again as a whole.

    A parameter is a DocumentList, a pydantic model of configuration with a default, a number or a truth value. Raises
    DeclarationError as `pipeline_task`.
    """

    def declare(function: Callable[..., Awaitable[DocumentList]]) -> PipelineFlow[Any]:
        return PipelineFlow(function, _terms(function, "flow", name, tags, timeout, None))

    return declare if function is None else declare(function)


def _terms(
    function: Any, kind: str, name: str | None, tags: Iterable[str], timeout: float | None, retry: RetryPolicy | None
) -> Terms:
    """Check a declaration. Raises DeclarationError with the place of the function."""
    code = getattr(function, "__code__", None)
    if code is None or not inspect.iscoroutinefunction(function):
        where = f" ({code.co_filename}:{code.co_firstlineno})" if code is not None else ""
        raise DeclarationError(
            f"{getattr(function, '__name__', function)}{where} is no async function, and a {kind} is one.",
            hint="Write `async def`; what blocks goes into an asset with `def`, which runs in processes.",
        )
    place = f"{function.__name__} ({code.co_filename}:{code.co_firstlineno})"
    hints = _hints(function)
    if not _is_documents(hints.get("return")):
        raise DeclarationError(
            f"{place} returns {_called(hints.get('return'))}, and a {kind} returns documents.",
            hint="Annotate it: -> DocumentList",
        )
    for parameter in inspect.signature(function).parameters:
        annotation = hints.get(parameter)
        if annotation is None or not _is_allowed(annotation):
            raise DeclarationError(
                f"{place} takes {parameter}: {_called(annotation)}, which says neither what it is nor where it is from.",
                hint="Documents come as DocumentList, configuration as a pydantic model, a number or a truth value.",
            )
    description = (inspect.getdoc(function) or "").partition("\n")[0]
    return Terms(name or function.__name__, description, tuple(tags), timeout, retry)


def _hints(function: Any) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function)
    except NameError as error:
        raise DeclarationError(f"{function.__name__}: {error}.", hint="Import what its annotations name.") from None


def _is_documents(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, DocumentList)


def _is_allowed(annotation: Any) -> bool:
    if _is_documents(annotation):
        return True
    return isinstance(annotation, type) and issubclass(annotation, Document | BaseModel | int | float | bool)


def _called(annotation: Any) -> str:
    return "nothing" if annotation is None else annotation.__name__ if isinstance(annotation, type) else str(annotation)
