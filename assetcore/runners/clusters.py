"""Clusters: how are sync functions called by the workers of Dask or Ray, on this machine or on many?

With an address in the settings the cluster that is there is used, and left as it is; without one a cluster is made on this machine
for the run. Calls and outcomes cross as bytes, so that only processes that have loaded the project need to know its classes. Both
give what a lost worker had to another; a call that ends one worker after another is found by calling one at a time, and fails.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
import pickle
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, ClassVar

from assetcore.calls import Call, Outcome
from assetcore.errors import AssetcoreError, ServiceError, UsageError
from assetcore.runners import worker
from assetcore.runners.processes import ENDED, without_main
from assetcore.telemetry import get_pipeline_logger

__all__ = ["Dask", "Ray"]

logger = get_pipeline_logger(__name__)
START_SECONDS = 30.0
LOOK_SECONDS = 5.0
"""So often is looked whether a Dask scheduler has workers."""
QUIET_SECONDS, LOST_SECONDS = 30.0, 300.0
"""It may have none for so long before that is said, and before it is given up: a cluster that grows as it is needed takes minutes."""
OWN_DASK = {
    "distributed.scheduler.allowed-failures": 1,
    "distributed.scheduler.http.routes": [],  # no dashboard: that there is a server for one, on a port of its own, cannot be helped
    "distributed.worker.http.routes": [],
    "distributed.worker.daemon": False,  # a function may have processes of its own; workers end with the run's process by themselves
    # A worker that has ended comes back. Where it ended twice within this time, it was given up while it was on its way; with the last
    # of them, what was left to do waited for ever.
    "distributed.deploy.lost-worker-timeout": "1 day",
}


class _WorkerEnded(Exception):
    """What the calls were given to has ended, again and again."""


class _Cluster(ABC):
    """What is the same with both: started once, calls as bytes, suspects one at a time."""

    package: ClassVar[str]
    extra: ClassVar[str]

    def __init__(self, root: Path, project: str, count: int, address: str | None) -> None:
        self.places = count
        self._project = (str(root), project)
        self._address = address
        self._one_suspect = asyncio.Lock()
        self._beside = 0
        self._changed = asyncio.Condition()
        self._starting: asyncio.Task[None] | None = None
        try:
            self._library: Any = importlib.import_module(self.package)
        except ImportError as error:
            raise UsageError(
                f"The runner {self.extra} needs the package {self.package}, which cannot be imported: {error}.",
                hint=f"Install it: pip install 'assetcore[{self.extra}]', or use --runner processes.",
            ) from None

    def prepare(self) -> None:
        """Connect in the background."""
        if self._starting is None:
            self._starting = asyncio.create_task(self._start())

    async def ready(self) -> None:
        """Wait until there is a worker."""
        self.prepare()
        assert self._starting is not None
        await asyncio.shield(self._starting)

    async def call(self, name: str, calls: Sequence[Call], code: bytes) -> list[Outcome]:
        """Call the asset's function for each, on some worker."""
        await self.ready()
        try:
            async with self._with_others():
                return await self._answer(name, calls, code)
        except _WorkerEnded:  # one of these calls did it, or one that waited or ran beside them
            return [await self._apart(name, call, code) for call in calls]

    async def close(self) -> None:
        """Leave the cluster; end it where it was made for the run."""
        starting, self._starting = self._starting, None
        if starting is not None:
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
            await self._stop()

    @asynccontextmanager
    async def _with_others(self) -> AsyncIterator[None]:
        async with self._changed:
            await self._changed.wait_for(lambda: not self._one_suspect.locked())
            self._beside += 1
        try:
            yield
        finally:
            async with self._changed:
                self._beside -= 1
                self._changed.notify_all()

    async def _apart(self, name: str, call: Call, code: bytes) -> Outcome:
        """Call it while nothing else of this run is called: a worker that ends now is ended by it."""
        try:
            async with self._one_suspect:
                async with self._changed:
                    await self._changed.wait_for(lambda: not self._beside)
                return (await self._answer(name, [call], code))[0]
        except _WorkerEnded:
            return Outcome([], 0.0, ENDED)
        finally:
            async with self._changed:
                self._changed.notify_all()

    async def _answer(self, name: str, calls: Sequence[Call], code: bytes) -> list[Outcome]:
        try:
            asked = await asyncio.to_thread(pickle.dumps, list(calls))
        except worker.UNPICKLED as error:
            if len(calls) == 1:
                return [worker.unhanded(error)]
            return [(await self._answer(name, [call], code))[0] for call in calls]
        try:
            answered = await self._submit(*self._project, name, asked, code)
        except (AssetcoreError, _WorkerEnded):
            raise
        except Exception as error:
            raise ServiceError(
                f"A worker of {self.extra} cannot call {name}: {type(error).__name__}: {error}",
                hint="Give every worker the packages of the run, assetcore among them, in the same versions.",
            ) from error
        if not answered:
            return [worker.other_code(name) for _ in calls]
        found: list[Outcome] = pickle.loads(answered)  # noqa: S301 - what a worker of ours has just made of our calls
        return found

    @abstractmethod
    async def _start(self) -> None: ...
    @abstractmethod
    async def _submit(self, *arguments: Any) -> bytes: ...
    @abstractmethod
    async def _stop(self) -> None: ...


class Dask(_Cluster):
    """Workers of a Dask cluster, each with the same code as the run."""

    package = "distributed"
    extra = "dask"
    _cluster: Any = None
    _client: Any = None
    _settings: AbstractContextManager[Any] = nullcontext()
    _watching: asyncio.Task[None] | None = None
    _asked = 0
    """How many answers are waited for."""
    _at = ""

    async def _start(self) -> None:
        dask: Any = importlib.import_module("dask")
        if self._address is None:
            logging.getLogger("distributed").setLevel(logging.ERROR)  # workers of our own come and go as they should
            self._settings = dask.config.set(OWN_DASK)  # until it ends: some of them are asked when a worker does
            with without_main():
                self._cluster = await self._library.LocalCluster(
                    n_workers=self.places, threads_per_worker=1, host="127.0.0.1", asynchronous=True, silence_logs=logging.ERROR,
                    memory_limit=0, scheduler_kwargs={"dashboard": False, "dashboard_address": "127.0.0.1:0"},  # None is 8787
                )  # fmt: skip
        address = self._at = self._address or self._cluster.scheduler_address
        try:
            self._client = await self._library.Client(
                address, asynchronous=True, set_as_default=False, timeout=START_SECONDS
            )
            await self._client.wait_for_workers(1, timeout=START_SECONDS)
        except (OSError, TimeoutError, ValueError) as error:
            raise ServiceError(
                f"The Dask scheduler at {address} has no workers or cannot be reached: {str(error) or 'no answer'}.",
                hint=f"Correct the setting dask_address, or start workers beside projects/: dask worker {address}",
            ) from error
        self.places = sum((await self._client.nthreads()).values()) or 1
        self._watching = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        """Until something was waited for without workers for so long that none will come: Dask itself waits for ever."""
        since, told = time.monotonic(), False
        while time.monotonic() - since < LOST_SECONDS:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                there = not self._asked or bool(await self._client.nthreads())
            except Exception:  # who waits for an answer is told by its end that the scheduler was lost
                there = True
            if there:
                since, told = time.monotonic(), False
            elif not told and time.monotonic() - since >= QUIET_SECONDS:
                logger.warning("The Dask scheduler at %s has no workers: waiting for some.", self._at)
                told = True

    async def _submit(self, *arguments: Any) -> bytes:
        assert self._watching is not None
        future = self._client.submit(worker.answer, *arguments, pure=False)
        answer = asyncio.ensure_future(future)
        self._asked += 1
        try:
            await asyncio.wait({answer, self._watching}, return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                raise ServiceError(
                    f"The Dask scheduler at {self._at} has lost its workers during the run, and no others have come.",
                    hint=f"Start some beside projects/, and run again: dask worker {self._at}",
                )
            return answer.result()
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if answer.cancelled() and not (task is not None and task.cancelling()):
                raise ServiceError(f"The Dask scheduler at {self._at} was lost during the run.") from error
            raise
        except self._library.KilledWorker as error:
            raise _WorkerEnded from error
        finally:
            self._asked -= 1
            if not answer.done():
                answer.cancel()
                with suppress(Exception):
                    await future.cancel()

    async def _stop(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
        with self._settings:
            for one in filter(None, (self._client, self._cluster)):
                with suppress(Exception):  # what ends anyway need not end well
                    await asyncio.wait_for(one.close(), START_SECONDS)


class Ray(_Cluster):
    """Workers of a Ray cluster, each with the same code as the run."""

    package = "ray"
    extra = "ray"

    async def _start(self) -> None:
        ray = self._library
        self._ours = not ray.is_initialized()
        if self._ours:
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
            local: dict[str, Any] = {
                "num_cpus": self.places,
                "include_dashboard": False,
                "_node_ip_address": "127.0.0.1",
            }
            options = {"address": self._address} if self._address else {"address": "local", **local}
            try:
                await asyncio.to_thread(ray.init, **options, log_to_driver=False, logging_level=logging.ERROR)
            except (ConnectionError, ValueError, RuntimeError) as error:
                raise ServiceError(
                    f"Ray at {self._address or 'this machine'} cannot be started or reached: {error}.",
                    hint="Correct the setting ray_address.",
                ) from error
        self.places = int(ray.cluster_resources().get("CPU", 1))
        self._remote = ray.remote(max_retries=1, num_cpus=1)(worker.answer)

    async def _submit(self, *arguments: Any) -> bytes:
        reference = self._remote.remote(*arguments)
        try:
            return await asyncio.wrap_future(reference.future())
        except asyncio.CancelledError:
            with suppress(Exception):
                self._library.cancel(reference, force=True)
            raise
        except self._library.exceptions.RayTaskError as error:
            raise (error.cause if isinstance(error.cause, Exception) else error) from None
        except (self._library.exceptions.WorkerCrashedError, self._library.exceptions.OutOfMemoryError) as error:
            raise _WorkerEnded from error

    async def _stop(self) -> None:
        if self._ours:
            await asyncio.to_thread(self._library.shutdown)
