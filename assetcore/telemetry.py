"""Telemetry: what happens where in a run, how long does it take, what does it cost, and how is it told?

A `Recorder` keeps the spans of one run: run > asset > batch, unit > what is called in it. A unit leaves a span only where it takes
`UNIT_SECONDS` or longer, fails, or has spans below it, so that a million quick ones cost next to nothing. What is recorded is
bounded, goes to a sink in batches, and no failure of a sink reaches a unit. What is logged and marked in a worker, which knows no run,
is `heard` there, comes back with what was made, and is told here.

    with span("rerank", model="small") as one:      # anywhere in a unit; outside a run it does nothing
        one.set(tokens=812)
    logger = get_pipeline_logger(__name__)          # each line knows project, run, asset, unit and document
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import time
import traceback
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar, Token
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TextIO

__all__ = [
    "UNIT_SECONDS", "Heard", "Recorder", "Span", "Trace", "configure_logging", "ended", "enrich", "get_pipeline_logger", "hear", "hush",
    "span", "tell", "unit",
]  # fmt: skip

UNIT_SECONDS = 1.0
"""A unit that takes at least so long leaves a span."""
LARGEST_TRACE = 10_000
"""Spans of a run at most; how many more there were is noted at its root."""
LONGEST_VALUE = 1_000
MOST_LINES = 1_000
"""Lines of the log that one call in a worker may write."""
FLUSHED = 500
SINK_SECONDS = 5.0
ROOT = 1


@dataclass(slots=True)
class Span:
    """Something that took time: `id` and `parent` are numbers within its run."""

    id: int
    parent: int | None
    kind: str
    name: str
    started: float
    seconds: float = 0.0
    attributes: dict[str, Any] = field(default_factory=dict)
    error: str | None = None

    def set(self, **attributes: Any) -> None:
        """Note something about it; what is None is left out."""
        self.attributes.update({key: value for key, value in attributes.items() if value is not None})

    def to_json(self) -> dict[str, Any]:
        """What `aipctl trace --json` prints of it."""
        return {
            "id": self.id, "parent": self.parent, "kind": self.kind, "name": self.name,
            "started_at": datetime.fromtimestamp(self.started, UTC).isoformat(), "seconds": round(self.seconds, 6),
            "attributes": self.attributes, "error": self.error,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Trace:
    """The spans of a run, in the order in which they began."""

    run: str
    spans: Sequence[Span]

    def to_json(self) -> dict[str, Any]:
        """What `aipctl trace --json` prints."""
        root = next((one for one in self.spans if one.id == ROOT), None)
        attributes = {} if root is None else root.attributes
        return {
            "run": self.run, "seconds": None if root is None else round(root.seconds, 3), "tokens": attributes.get("tokens", 0),
            "usd": attributes.get("usd", 0.0), "dropped": attributes.get("dropped", 0),
            "spans": [one.to_json() for one in self.spans],
        }  # fmt: skip


Sink = Callable[[Sequence[Span]], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the log that was written in a worker."""

    logger: str
    level: int
    message: str
    at: float
    facts: Mapping[str, Any]
    traceback: str | None


@dataclass(slots=True)
class Heard:
    """What one call in a worker logged and marked; the spans are numbered within it, below `ROOT`."""

    lines: list[Line] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)


@dataclass(slots=True)
class _Place:
    """Where something happens: what is recorded there, and what a line of the log says of it; in a worker the line is kept."""

    recorder: Recorder | None
    span: Span
    facts: Mapping[str, Any]
    lines: list[Line] | None = None


_place: ContextVar[_Place | None] = ContextVar("assetcore_place", default=None)


@dataclass(slots=True)
class Recorder:
    """The spans of one run, from the first to the last."""

    project: str
    run: str
    sinks: list[Sink] = field(default_factory=list)
    recorded: int = 0
    dropped: int = 0
    _ended: list[Span] = field(default_factory=list)
    _last: int = ROOT
    _root: Span = field(init=False)

    def __post_init__(self) -> None:
        self._root = Span(ROOT, None, "run", self.project, time.time())

    @contextmanager
    def span(self, kind: str, name: str, **attributes: Any) -> Iterator[Span]:
        """A span below the run itself."""
        with self._open(kind, name, _Place(self, self._root, {}), attributes) as opened:
            yield opened

    async def flush(self, *, least: int = FLUSHED) -> None:
        """Hand over what has ended, if there is that much of it. A sink that fails is not asked again."""
        if len(self._ended) < least:
            return
        ended, self._ended = self._ended, []
        for sink in list(self.sinks):
            try:
                async with asyncio.timeout(SINK_SECONDS):
                    await sink(ended)
            except Exception as error:
                self.sinks.remove(sink)
                logger.warning("spans are left out from now on: %s: %s", type(error).__name__, error)

    async def close(self, status: str, **attributes: Any) -> Span:
        """End the run's own span, and hand over the rest."""
        root = self._root
        root.seconds = time.time() - root.started
        root.set(run=self.run, status=status, dropped=self.dropped or None, **attributes)
        self._ended.append(root)
        await self.flush(least=1)
        return root

    def _number(self, opened: Span) -> None:
        if not opened.id:
            self._last += 1
            opened.id = self._last

    def _keep(self, ended: Span) -> None:
        if self.recorded >= LARGEST_TRACE:
            self.dropped += 1
            return
        self.recorded += 1
        self._ended.append(ended)

    @contextmanager
    def _open(self, kind: str, name: str, above: _Place, attributes: Mapping[str, Any]) -> Iterator[Span]:
        self._number(above.span)
        opened = Span(0, above.span.id, kind, name, time.time())
        self._number(opened)
        opened.set(**attributes)
        named = {kind: name} if kind == "asset" else {}
        facts = {"project": self.project, "run": self.run, **above.facts, **named}
        token = _place.set(_Place(self, opened, facts, above.lines))
        started = time.perf_counter()
        try:
            yield opened
        except BaseException as error:
            opened.error = f"{type(error).__name__}: {error}"[:LONGEST_VALUE]
            raise
        finally:
            _place.reset(token)
            opened.seconds = time.perf_counter() - started
            self._keep(opened)


@contextmanager
def span(name: str, kind: str = "span", **attributes: Any) -> Iterator[Span]:
    """A span around what happens inside, below whatever is at work here; outside a run it is kept nowhere.

    Known attributes: model, tokens, input_tokens, output_tokens, cached_tokens, usd, keys, documents, attempt.
    """
    above = _place.get()
    if above is None or above.recorder is None:
        opened = Span(0, None, kind, name, time.time())
        opened.set(**attributes)
        yield opened
        return
    with above.recorder._open(kind, name, above, attributes) as opened:
        yield opened


@dataclass(slots=True)
class unit:
    """A unit that is made here: it leaves a span if that is worth it. `values` are what its function is given.

    The function that it would be, if a generator did not take three times as long.
    """

    label: str
    values: Mapping[str, Any]
    _opened: Span = field(init=False)
    _above: _Place | None = None
    _token: Token[_Place | None] | None = None

    def __enter__(self) -> Span:
        above = self._above = _place.get()
        opened = self._opened = Span(0, None if above is None else above.span.id, "unit", self.label, time.time())
        if above is not None and above.recorder is not None:
            facts = {**above.facts, "unit": self.label, "values": self.values}
            self._token = _place.set(_Place(above.recorder, opened, facts))
        return opened

    def __exit__(self, *raised: object) -> None:
        if self._token is None or self._above is None or self._above.recorder is None:
            return
        _place.reset(self._token)
        opened, recorder = self._opened, self._above.recorder
        opened.seconds = opened.seconds or time.time() - opened.started
        # It has an identifier where it has spans below it.
        if opened.id or opened.seconds >= UNIT_SECONDS or opened.error is not None:
            recorder._number(opened)
            recorder._keep(opened)


def ended(
    label: str, seconds: float, error: str | None, *, values: Mapping[str, Any] | None = None, heard: Heard | None = None,
    **attributes: Any,
) -> None:  # fmt: skip
    """A unit that a worker has made just now: what it logged is told, and it leaves a span if that is worth it."""
    if heard is not None:
        tell(heard, unit=label, values=values or {})
    above, below = _place.get(), heard.spans if heard is not None else []
    if above is None or above.recorder is None or (seconds < UNIT_SECONDS and error is None and not below):
        return
    recorder, began = above.recorder, time.time() - seconds
    made = Span(0, above.span.id, "unit", label, began, seconds, error=error)
    made.set(**attributes)
    recorder._number(made)
    recorder._keep(made)
    numbers = {ROOT: made.id}
    for one in sorted(below, key=lambda span: span.id):  # a span has a higher number than the one that it is in
        known, one.id, one.parent = one.id, 0, numbers[one.parent or ROOT]
        recorder._number(one)
        numbers[known] = one.id
        recorder._keep(one)


@contextmanager
def hear() -> Iterator[Heard]:
    """In a worker: what is logged and marked inside is kept, for the run's process to tell."""
    heard, recorder = Heard(), Recorder("", "")
    token = _place.set(_Place(recorder, recorder._root, {}, heard.lines))
    try:
        yield heard
    finally:
        _place.reset(token)
        heard.spans = recorder._ended


def tell(heard: Heard, **facts: Any) -> None:
    """Log what was heard in a worker, with where in the run that was."""
    above = _place.get()
    known = above.facts if above is not None else {}
    token = _place.set(_Place(None, Span(0, None, "unit", "", 0.0), {**known, **facts}))
    try:
        for line in heard.lines:
            target = logging.getLogger(line.logger)
            if target.isEnabledFor(line.level):
                record = target.makeRecord(
                    line.logger, line.level, "", 0, line.message, (), None, extra={FACTS: line.facts}
                )
                record.created, record.exc_text = line.at, line.traceback
                target.handle(record)
    finally:
        _place.reset(token)


def enrich(**attributes: Any) -> None:
    """Note something about what is at work here, such as the keys it wrote; outside a run it does nothing."""
    above = _place.get()
    if above is not None:
        above.span.set(**attributes)


# --- the log --------------------------------------------------------------------------------------------------------------


class PipelineLogger(logging.LoggerAdapter[logging.Logger]):
    """A logger whose lines say where in a run they were written, and what else is handed over with them.

    logger.info("too long", length=90_000)
    """

    def process(self, msg: Any, kwargs: Any) -> tuple[Any, Any]:
        known = {"exc_info", "stack_info", "stacklevel", "extra"}
        facts = {**(self.extra or {}), **{key: kwargs.pop(key) for key in list(kwargs) if key not in known}}
        kwargs["extra"] = {**(kwargs.get("extra") or {}), FACTS: facts}
        return msg, kwargs

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        """Write a line, or keep it where this is a worker."""
        place = _place.get()
        if place is None or place.lines is None:
            super().log(level, msg, *args, **kwargs)
        elif level >= logging.INFO or self.isEnabledFor(level):
            self._keep(place.lines, level, msg, args, kwargs)

    def _keep(self, lines: list[Line], level: int, msg: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if len(lines) > MOST_LINES:
            return
        name = self.logger.name
        if len(lines) == MOST_LINES:
            lines.append(
                Line(
                    name, logging.WARNING, f"more than {MOST_LINES} lines: the rest is left out", time.time(), {}, None
                )
            )
            return
        msg, known = self.process(msg, kwargs)
        error = known.get("exc_info")
        raised = error if isinstance(error, BaseException) else sys.exception() if error else None
        trace = "".join(traceback.format_exception(raised)).rstrip() if raised is not None else None
        try:
            message = str(msg) % args if args else str(msg)
        except Exception:  # a slip in a line of the log fails no unit
            message = str(msg)
        facts = {key: _plain(value) for key, value in known["extra"][FACTS].items()}
        lines.append(Line(name, level, message, time.time(), facts, trace))


FACTS = "assetcore_facts"
"""The attribute of a record that has what was handed over with a line."""
LOGS = "assetcore"
"""All loggers stand below this one: one handler, and Prefect is told of one name."""


def get_pipeline_logger(name: str, **facts: Any) -> PipelineLogger:
    """The logger of a module; `facts` stand in each of its lines.

        logger = get_pipeline_logger(__name__)
        logger.info("split", parts=12)

    Inside a run its lines also say project, run, asset, unit and the document that the unit is made of.
    """
    own = name == LOGS or name.startswith(f"{LOGS}.")
    return PipelineLogger(logging.getLogger(name if own else f"{LOGS}.{name}"), facts)


logger = get_pipeline_logger(__name__)


def configure_logging(stream: TextIO, level: int = logging.INFO) -> None:
    """Write what is logged to a stream: for people on a terminal, one JSON object a line elsewhere."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_ForPeople() if stream.isatty() else _AsJson())
    top = logging.getLogger(LOGS)
    top.handlers[:] = [handler]
    top.setLevel(level)
    top.propagate = False


def hush(*names: str) -> None:
    """Have these loggers of others tell of errors only."""
    for name in names:
        logging.getLogger(name).setLevel(logging.ERROR)


def _facts(record: logging.LogRecord) -> dict[str, Any]:
    """Where a line was written, and what was handed over with it."""
    place = _place.get()
    facts = dict(place.facts) if place is not None else {}
    values = facts.pop("values", {})
    document = next((value for value in values.values() if hasattr(value, "content") and hasattr(value, "id")), None)
    if document is not None:
        facts |= {"document": document.name, "document_id": document.id}
    return facts | getattr(record, FACTS, {})


def _plain(value: Any) -> Any:
    """A value that crosses to another process whatever it is."""
    try:
        return json.loads(json.dumps(value, default=str))
    except (TypeError, ValueError, RecursionError):
        return f"<{type(value).__name__}>"


def _traceback(formatter: logging.Formatter, record: logging.LogRecord) -> str | None:
    return formatter.formatException(record.exc_info) if record.exc_info else record.exc_text


class _AsJson(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname.lower(),
            "logger": record.name.removeprefix(f"{LOGS}."),
            "message": record.getMessage(),
            **_facts(record),
        }
        if (told := _traceback(self, record)) is not None:
            line["traceback"] = told
        return json.dumps(line, ensure_ascii=False, default=str)


class _ForPeople(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        facts = {key: value for key, value in _facts(record).items() if key not in ("project", "run", "document_id")}
        where = facts.pop("asset", record.name.removeprefix(f"{LOGS}."))
        if unit := facts.pop("unit", None):
            where = f"{where}[{unit}]"
        told = "".join(f" {key}={value}" for key, value in facts.items())
        line = f"{record.levelname.lower()}: {where}: {record.getMessage()}{told}"
        trace = _traceback(self, record)
        return line if trace is None else f"{line}\n{trace}"
