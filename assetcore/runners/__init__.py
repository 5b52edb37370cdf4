"""Runners: where are sync functions called?

    assetcore.runners            this file: what a runner is, and which one the settings ask for
    assetcore.runners.processes  a pool of processes on this machine (the default)
    assetcore.runners.threads    threads of this process: for functions that release the interpreter, or do next to nothing
    assetcore.runners.clusters   Dask and Ray, on this machine or on many; their only doors
    assetcore.runners.worker     what a process that is not this one does with what it is given

A runner is given the name of an asset or check and calls, and gives an outcome for each. What crosses to a worker are the documents
themselves, so that it needs the project's code and neither database nor bucket; what it makes comes back, and is stored and
committed here. A worker holds nothing: what one that died had is called again by another. Async functions wait rather than work, and
stay on this process's event loop with every runner.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, assert_never

from assetcore.calls import Call, Outcome
from assetcore.graph import Graph
from assetcore.settings import Settings

__all__ = ["Runner", "runner_for"]


class Runner(Protocol):
    """Calls sync functions off the event loop."""

    @property
    def places(self) -> int:
        """How many calls it can work at, at the same time; known when it is ready."""
        ...

    def prepare(self) -> None:
        """Start it in the background, so that it is ready when it is wanted."""
        ...

    async def ready(self) -> None:
        """Wait until it can take calls. Raises ServiceError when there is nobody to take them."""
        ...

    async def call(self, name: str, calls: Sequence[Call], code: bytes) -> list[Outcome]:
        """Call the function of that name (an asset's, or a check's as `asset.check`) for each, and give their outcomes in order.

        `code` is the digest of the fingerprint that lineage will say it was made with: a worker loads the project itself, and
        refuses when what it found is something else. A call that ends its worker fails; one whose worker was ended by something
        else is made by another.
        """
        ...

    async def close(self) -> None:
        """End what was started, also what is in the middle of a call; may be called twice."""
        ...


def runner_for(settings: Settings, graph: Graph, name: str) -> Runner:
    """The runner that the settings ask for, not yet started. Raises UsageError where a package is missing for it."""
    root: Path = settings.root
    match settings.runner:
        case "processes":
            from assetcore.runners.processes import Processes

            return Processes(root, name, settings.processes)
        case "threads":
            from assetcore.runners.threads import Threads

            return Threads(root, graph, settings.concurrency)
        case "dask":  # imported where it is asked for: it takes half a second
            from assetcore.runners.clusters import Dask

            return Dask(root, name, settings.processes, settings.dask_address)
        case "ray":
            from assetcore.runners.clusters import Ray

            return Ray(root, name, settings.processes, settings.ray_address)
        case other:
            assert_never(other)
