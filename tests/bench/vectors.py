"""Vectors: how long does a search take among so many chunks, and how many of the right ones does it find?

The vectors are random numbers in clusters, of the local model's dimensions, so that no model is asked. Right are those that an exact
search finds. The index is built with the parameters that a project begins with.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import random
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from assetcore import open_project
from assetcore.vectors import generations, similarity_search
from tests.bench.meter import measure
from tests.bench.place import project_place
from tests.bench.report import Report

QUESTIONS = 200
K = 10
GROUPS = 100
PROJECT = '''"""Chunks that nobody wrote."""

import numpy as np

from assetcore import asset
from assetcore.embeddings import Embedding, Vector

CHUNKS, CLUSTERS, DIMENSIONS = {chunks}, 1000, 384


class ChunkVector(Embedding):
    group: int


def drawn(count: int, seed: int) -> np.ndarray:
    centres = np.random.default_rng(7).normal(size=(CLUSTERS, DIMENSIONS))
    rng = np.random.default_rng(seed)
    return centres[rng.integers(CLUSTERS, size=count)] + rng.normal(size=(count, DIMENSIONS)) * 0.6


@asset
async def vectors() -> list[ChunkVector]:
    numbers = drawn(CHUNKS, 1)
    return [ChunkVector.of(f"chunk-{{i}}", Vector(numbers[i], "random"), group=i % {groups}) for i in range(CHUNKS)]
'''


def bench(report: Report, chunks: int) -> None:
    report.step(f"search among {chunks:,} vectors")
    with project_place("drawn", PROJECT.format(chunks=chunks, groups=GROUPS)) as place:
        made = place.call("materialize", "--local")
        script = "from tests.bench.vectors import main; main()"
        found = json.loads(measure([sys.executable, "-c", script], cwd=place.root, env=place.env).out)
    rows = [
        [name, f"{one['p50']:.1f}", f"{one['p95']:.1f}", f"{one['recall']:.3f}", f"{one['exact']:.1f}"]
        for name, one in found["searches"].items()
    ]
    parameters = ", ".join(f"{name} {value}" for name, value in found["parameters"].items())
    report.table(
        f"{K} nearest of {chunks:,} vectors of 384 numbers ({parameters}), {QUESTIONS} questions; "
        f"made and indexed in {made.wall:.0f} s ({made.all_cpu:.0f} s of CPU)",
        ["search", "p50 ms", "p95 ms", f"recall@{K}", "exact p50 ms"], rows,
    )  # fmt: skip


def main() -> None:
    """Print what was measured, as JSON; called in a process of its own, in a place whose index is made."""
    sys.stdout.write(json.dumps(asyncio.run(_measured())))


async def _measured() -> dict[str, Any]:
    async with open_project("drawn") as session:
        drawn = importlib.import_module("projects.drawn.assets").drawn  # the place's own, which is loaded now
        questions = drawn(QUESTIONS, 2).tolist()
        groups = random.Random(3).choices(range(GROUPS), k=QUESTIONS)
        every = await _searched(session.project, questions, [{}] * QUESTIONS)
        one_in = await _searched(session.project, questions, [{"group": group} for group in groups])
        (generation,) = await generations(session.project)
    searches = {"all": every, f"filtered to 1 in {GROUPS}": one_in}
    return {"parameters": dict(generation.parameters), "searches": searches}


async def _searched(
    project: Any, questions: Sequence[Sequence[float]], filters: Sequence[Mapping[str, Any]]
) -> dict[str, float]:
    """Milliseconds of a search and of an exact one, and the share of the right rows; a row as near as the last right one is right."""
    times: dict[bool | None, list[float]] = {None: [], True: []}
    recall = 0.0
    for question, chosen in zip(questions, filters, strict=True):
        answers = {}
        for exact in (None, True):
            started = time.perf_counter()
            answers[exact] = await similarity_search(project, "vectors", question, chosen, K, exact=exact)
            times[exact].append(1000 * (time.perf_counter() - started))
        recall += sum(hit.score >= answers[True][-1].score for hit in answers[None]) / K / len(questions)
    mine, exactly = sorted(times[None]), sorted(times[True])
    half, most = len(mine) // 2, int(len(mine) * 0.95)
    return {"p50": mine[half], "p95": mine[most], "recall": recall, "exact": exactly[half]}
