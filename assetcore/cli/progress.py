"""Progress: how far is a run? On stderr: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO, assert_never

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from assetcore.cli.plain import plain
from assetcore.cli.show import Text, plural

if TYPE_CHECKING:
    from assetcore.execution import Event

__all__ = ["Lines", "reporting"]

SECONDS_BETWEEN_LINES = 5.0


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
        self._told: dict[str, float] = {}

    def __call__(self, event: Event) -> None:
        if event.kind == "asset-started":
            self._told[event.asset] = self._clock()
        elif event.kind == "progress":
            now = self._clock()
            if now - self._told.setdefault(event.asset, now) < SECONDS_BETWEEN_LINES:
                return
            self._told[event.asset] = now
        if line := sentence(event):
            self._stream.write(plain(line) + "\n")
            self._stream.flush()


class Bars:
    """A bar for each asset that is being made; what is finished becomes a line above the bars."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, event: Event) -> None:
        name = event.asset
        if event.kind in ("asset-started", "progress"):
            if name not in self._tasks:
                self._tasks[name] = self._progress.add_task(name, total=None)
            self._progress.update(self._tasks[name], completed=event.done, total=event.total or None)
            return
        if event.kind == "asset-finished" and name in self._tasks:
            self._progress.remove_task(self._tasks.pop(name))
        if line := sentence(event):
            self._progress.console.print(Text(line))


def sentence(event: Event) -> str:
    """The event in a line; empty where it has nothing to say."""
    match event.kind:
        case "observed":
            changes = [change for change in event.text.split(", ") if change and not change.startswith("0 ")]
            return f"{event.asset}: {plural(event.done, 'document')}" + (f" ({', '.join(changes)})" if changes else "")
        case "planned":
            return f"{event.text}: {plural(event.total, 'unit')} to make"
        case "asset-started":
            return ""
        case "progress":
            return f"{event.asset}: {event.done:,} of {event.total:,}"
        case "asset-finished":
            return f"{event.asset}: {event.text or f'{event.done:,} made'}"
        case "unit-failed" | "waiting" | "message":
            return event.text
        case _:
            assert_never(event.kind)
