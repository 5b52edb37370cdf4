"""Progress: how far is a run? On stderr: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

__all__ = ["Lines", "reporting"]

SECONDS_BETWEEN_LINES = 5.0


class Event(Protocol):
    """What a run tells while it runs."""

    @property
    def kind(self) -> str: ...
    @property
    def asset(self) -> str | None: ...
    @property
    def done(self) -> int | None: ...
    @property
    def total(self) -> int | None: ...
    @property
    def text(self) -> str | None: ...


@contextmanager
def reporting(stream: TextIO) -> Iterator[Callable[[Event], None]]:
    """What to hand over as `on_event`."""
    if not stream.isatty():
        yield Lines(stream)
        return
    console = Console(file=stream, highlight=False, markup=False, emoji=False)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        yield Bars(progress)


class Lines:
    """One line for what begins, ends or fails, and one every few seconds for what takes long."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._told: dict[str | None, float] = {}

    def __call__(self, event: Event) -> None:
        if event.kind == "asset-started":
            self._told[event.asset] = self._clock()
        elif event.kind == "progress":
            now = self._clock()
            if now - self._told.setdefault(event.asset, now) < SECONDS_BETWEEN_LINES:
                return
            self._told[event.asset] = now
        if line := sentence(event):
            self._stream.write(line + "\n")
            self._stream.flush()


class Bars:
    """A bar for each asset that is being made; what is finished becomes a line above the bars."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, event: Event) -> None:
        name = event.asset or ""
        if event.kind in ("asset-started", "progress"):
            if name not in self._tasks:
                self._tasks[name] = self._progress.add_task(name, total=event.total)
            self._progress.update(self._tasks[name], completed=event.done or 0, total=event.total)
            return
        if event.kind == "asset-finished" and name in self._tasks:
            self._progress.remove_task(self._tasks.pop(name))
        if line := sentence(event):
            self._progress.console.print(Text(line))


def sentence(event: Event) -> str:
    """The event in a line."""
    done, total = event.done or 0, event.total or 0
    head = f"{event.asset}: " if event.asset else ""
    match event.kind:
        case "observed":
            return head + (event.text or f"{total:,} document{'' if total == 1 else 's'}")
        case "asset-started" | "planned":
            return head + (event.text or f"{total:,} unit{'' if total == 1 else 's'} to make")
        case "progress":
            return f"{head}{done:,} of {total:,}" if total else f"{head}{done:,}"
        case "asset-finished":
            return head + (event.text or f"{done:,} done")
        case _:
            return head + event.text if event.text else ""
