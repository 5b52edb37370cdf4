"""Worker: what does a process that is not the run's own do with the calls it is given?

It loads the project from its own copy of the code, sees that this is the code that lineage will name, and calls. It holds the
project from one batch to the next and nothing else: no database, no bucket, no document.
"""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from assetcore import loading
from assetcore.calls import Call, Outcome, call_sync
from assetcore.errors import AssetcoreError, ServiceError
from assetcore.graph import Graph

__all__ = ["UNPICKLED", "answer", "call_all", "load_ahead", "other_code", "unhanded"]

T = TypeVar("T")


@dataclass(slots=True)
class _Loaded:
    """The project that this process has loaded. Several threads may call its functions; it is only changed while none does."""

    root: Path | None = None
    project: str = ""
    graph: Graph | None = None
    codes: dict[str, bytes] = field(default_factory=dict)
    calling: int = 0
    changed: threading.Condition = field(default_factory=threading.Condition)

    def work(self, root: Path, project: str, name: str, code: bytes, work: Callable[[Graph | None], T]) -> T:
        """Do something with the loaded project, or with None where the code of the asset is another here."""
        with self.changed:
            if not self.has(root, project, name, code):
                self.changed.wait_for(lambda: not self.calling)
                if not self.has(
                    root, project, name, code
                ):  # edited since, or another run's: a worker lives longer than a run
                    self.load(root, project)
            graph = self.graph if self.has(root, project, name, code) else None
            self.calling += 1
        try:
            return work(graph)
        finally:
            with self.changed:
                self.calling -= 1
                self.changed.notify_all()

    def has(self, root: Path, project: str, name: str, code: bytes) -> bool:
        """Whether the project is loaded, and the asset's code is that."""
        if self.graph is None or (self.root, self.project) != (root, project):
            return False
        if name not in self.codes and name in self.graph.functions:
            self.codes[name] = loading.fingerprint_of(self.graph, name).digest
        return self.codes.get(name) == code

    def load(self, root: Path, project: str) -> None:
        """Load a project anew."""
        self.graph = None
        self.codes.clear()
        self.root, self.project = root, project
        self.graph = loading.load(root, loading.package_of(root, project))


_loaded = _Loaded()
UNPICKLED = (pickle.PicklingError, AttributeError, TypeError)
"""What pickle raises for what it cannot take, such as a document of a class that a function made."""


def load_ahead(root: Path, project: str) -> None:
    """Load a project before the first call."""
    with _loaded.changed:
        _loaded.load(root, project)


def call_all(root: str, project: str, name: str, calls: Sequence[Call], code: bytes) -> list[Outcome]:
    """The outcomes of calls that arrived as objects: of the classes that were loaded ahead, so that there is no loading again."""
    found = _loaded.graph if _loaded.has(Path(root), project, name, code) else None
    return _outcomes(found, name, calls, Path(root))


def answer(root: str, project: str, name: str, calls: bytes, code: bytes) -> bytes:
    """The pickled outcomes of pickled calls: only where the project is loaded are the classes of its documents known.

    Nothing where the asset's code is another here, and the calls were not made. `root` is where the project lies on the machine of
    the run; where it is not there, it is looked for from this process's folder upwards. Raises ServiceError when it cannot be loaded.
    """
    place = Path(root)

    def work(graph: Graph | None) -> bytes:
        return _pickled(_outcomes(graph, name, pickle.loads(calls), place)) if graph else b""  # noqa: S301 - from the run

    try:
        if not place.is_dir():
            place = loading.find_root(Path.cwd())
        return _loaded.work(place, project, name, code, work)
    except AssetcoreError as error:
        raise ServiceError(
            f"A worker cannot load the project {project} in {Path.cwd()}: {error.message}",
            hint="Give every worker the same code, and start it in the folder that holds projects/.",
        ) from None


def other_code(name: str) -> Outcome:
    """Of a call that was not made, as the code of that name is another one where the worker is."""
    return Outcome(
        [], 0.0,
        f"A worker found other code for {name} than the run has, and did not call it. It was edited meanwhile (then run again), the"
        " worker has another copy of it, or it depends on what is different there: a file that a constant reads, the environment.",
        again=None,
    )  # fmt: skip


def unhanded(error: Exception) -> Outcome:
    """Of a call that cannot be handed to another process, or whose documents cannot be handed back."""
    return Outcome(
        [], 0.0,
        f"It cannot be handed from process to process: {error}. Define its class at the top of a module, make the function async, or"
        " use --runner threads.",
        again=None,
    )  # fmt: skip


def _pickled(outcomes: Sequence[Outcome]) -> bytes:
    try:
        return pickle.dumps(outcomes)
    except UNPICKLED:
        return pickle.dumps([_handed(outcome) for outcome in outcomes])


def _handed(outcome: Outcome) -> Outcome:
    try:
        pickle.dumps(outcome)
    except UNPICKLED as error:
        return unhanded(error)
    return outcome


def _outcomes(graph: Graph | None, name: str, calls: Sequence[Call], root: Path) -> list[Outcome]:
    if graph is None:
        return [other_code(name) for _ in calls]
    asset = graph.functions[name]
    return [call_sync(asset, call, root) for call in calls]
