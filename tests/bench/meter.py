"""Meter: what does a command cost: time, CPU of its own, CPU of the services that it talks to, memory?"""

from __future__ import annotations

import itertools
import json
import os
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from assetcore.stack.preloader import NAME as PRELOADER

SAMPLE_SECONDS = 0.03
QUIET_SHARE = 0.12
"""Below this share of a core the services are at rest: Prefect's own loops take some of it at any time."""
REST_SECONDS = 30.0


class CommandFailedError(Exception):
    """A command ended with another exit code than expected: its last words."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What one call cost. `cpu` holds all processes that the command started and waited for; `peak` is their resident memory.

    A command that is a fork of the preloader counts as if it were the process that was called: its pages are its own, those that it still
    shares with the preloader, too, which is not counted beside it.
    """

    wall: float
    cpu: float
    peak: int
    services: Mapping[str, float] = field(default_factory=dict)
    out: str = ""

    @property
    def service_cpu(self) -> float:
        return sum(self.services.values())

    @property
    def all_cpu(self) -> float:
        return self.cpu + self.service_cpu


@dataclass(frozen=True, slots=True)
class Services:
    """The embedded services of a home: their processor time, those of processes that ended included."""

    home: Path

    def preloader(self) -> list[int]:
        """The number of the process that commands are forked of, where there is one."""
        known = json.loads((self.home / "services.json").read_text("utf-8"))
        return [known[PRELOADER]["pid"]] if known.get(PRELOADER, {}).get("pid") else []

    def cpu(self) -> dict[str, float]:
        known = json.loads((self.home / "services.json").read_text("utf-8"))
        return {name: _tree_cpu(service["pid"]) for name, service in known.items() if service["pid"]}

    def rest(self) -> dict[str, float]:
        """Wait until what was asked of them is done (Prefect stores events after a run has returned); then as `cpu`."""
        deadline = time.monotonic() + REST_SECONDS
        before = self.cpu()
        while time.monotonic() < deadline:
            time.sleep(0.5)
            now = self.cpu()
            if sum(now.values()) - sum(before.values()) < 0.5 * QUIET_SHARE:
                return now
            before = now
        return before


def measure(
    command: Sequence[str | Path],
    *,
    cwd: Path,
    env: Mapping[str, str],
    services: Services | None = None,
    expect: Sequence[int] = (0,),
) -> Cost:
    """Run a command to its end. The services' share is counted until they are at rest again."""
    before = services.rest() if services else {}
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        started = time.perf_counter()
        process = subprocess.Popen(list(map(str, command)), cwd=cwd, env=dict(env), stdout=out, stderr=err)
        with _Peak(process.pid, services.preloader() if services else ()) as peak:
            _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0), err.seek(0)
        said, told = out.read().decode(), err.read().decode(errors="replace")
    if process.returncode not in expect:
        raise CommandFailedError(f"{' '.join(map(str, command))} ended with {process.returncode}:\n{told[-3000:]}")
    after = services.rest() if services else {}
    spent = {name: after[name] - before.get(name, 0.0) for name in after}
    return Cost(wall, usage.ru_utime + usage.ru_stime + spent.pop(PRELOADER, 0.0), peak.bytes, spent, said)


def median(costs: Sequence[Cost]) -> Cost:
    """The median of each figure; the output is the last one's."""
    names = {name for cost in costs for name in cost.services}
    return Cost(
        statistics.median(c.wall for c in costs),
        statistics.median(c.cpu for c in costs),
        int(statistics.median(c.peak for c in costs)),
        {name: statistics.median(c.services.get(name, 0.0) for c in costs) for name in sorted(names)},
        costs[-1].out,
    )


class _Peak:
    """The largest resident memory of a process and all below it, and of all that is below others, looked at again and again.

    What the kernel kept (ru_maxrss) would be of no use: it holds what this process was when the command was forked off it.
    """

    def __init__(self, pid: int, others: Sequence[int]) -> None:
        self.bytes = 0
        self._process = psutil.Process(pid)
        self._others = [psutil.Process(other) for other in others]
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> _Peak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._ended.wait(SAMPLE_SECONDS):
            total = 0
            below = itertools.chain.from_iterable(_tree(other)[1:] for other in self._others)
            for process in itertools.chain(_tree(self._process), below):
                try:
                    total += process.memory_info().rss
                except psutil.Error:
                    continue
            self.bytes = max(self.bytes, total)


def _tree_cpu(pid: int) -> float:
    try:
        processes = _tree(psutil.Process(pid))
    except psutil.Error:
        return 0.0
    total = 0.0
    for process in processes:
        try:
            total += sum(process.cpu_times()[:4])  # own and, of children that ended, theirs: user, system
        except psutil.Error:
            continue
    return total


def _tree(process: psutil.Process) -> list[psutil.Process]:
    try:
        return [process, *process.children(recursive=True)]
    except psutil.Error:
        return []
