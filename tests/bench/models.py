"""Models: how many texts a second does `embed` get out of a gateway, beside the same questions sent straight to it?

The gateway is the embedded one, with the local model; the questions that `embed` makes of the texts are kept, and sent again with
httpx, as many at once. Each round asks for texts of its own, so that none is found in the cache before.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
from collections.abc import Awaitable, Mapping
from pathlib import Path
from typing import Any

import httpx

from assetcore import stack
from assetcore.cache import get_async_client
from assetcore.llm.embedding import AT_ONCE, Embedder, VectorCache
from assetcore.llm.gateway import Gateway, Response
from assetcore.settings import Settings
from tests.bench.meter import measure
from tests.bench.place import empty_place
from tests.bench.report import Report

ROUNDS = 3
WORDS = 60
ALIAS = "embedder"
SECONDS = 600
SHARE = 90


def bench(report: Report, texts: int) -> None:
    report.step(f"embeddings of {texts:,} texts through a gateway")
    with empty_place() as place:
        script = f"from tests.bench.models import main; main({texts})"
        found = json.loads(measure([sys.executable, "-c", script], cwd=place.root, env=place.env).out)
    straight = found["straight"]
    rows = []
    for name, title in TITLES.items():
        share = 100 * straight["wall"] / found[name]["wall"]
        met = f"≥ {SHARE} %: {'met' if share >= SHARE else f'missed by {SHARE - share:.0f}'}"
        one = found[name]
        rows.append([title, f"{texts / one['wall']:,.0f}", f"{one['cpu'] / texts * 1e6:.0f}", f"{share:.0f} %",
                     met if name == "embed" else ""])  # fmt: skip
    report.table(
        f"embed, {texts:,} texts of {WORDS} words in {found['questions']} questions, {AT_ONCE} at once (median of {ROUNDS})",
        ["how", "texts/s", "µs CPU a text", "of straight", "goal"], rows,
    )  # fmt: skip


TITLES = {
    "straight": "httpx, the same questions",
    "embed": "embed, kept in Redis",
    "bare": "embed, without Redis",
    "known": "embed, all found in Redis",
}


def main(texts: int) -> None:
    """Print what was measured, as JSON; called in a process of its own, in a place whose gateway runs."""
    sys.stdout.write(json.dumps(asyncio.run(_measured(texts))))


async def _measured(count: int) -> dict[str, Any]:
    given = Settings.load(Path.cwd())
    settings = (await stack.up(given, {"redis", "gateway"})).applied_to(given)
    assert settings.openai_base_url is not None
    assert settings.openai_api_key is not None
    key = settings.openai_api_key.get_secret_value()
    gateway, client = Gateway(settings.openai_base_url, key), get_async_client(str(settings.redis_url))
    questions: list[Mapping[str, Any]] = []

    async def ask(body: Mapping[str, Any], seconds: float) -> Response:
        questions.append(body)
        return await gateway.post("/embeddings", body, seconds)

    costs: dict[str, list[tuple[float, float]]] = {name: [] for name in TITLES}
    async with httpx.AsyncClient(
        headers={"Authorization": f"Bearer {key}"}, timeout=SECONDS, trust_env=False
    ) as direct:
        await Embedder(ALIAS, ALIAS, None, ask, None).embed(["The model is loaded by its first question."], SECONDS)
        for number in range(ROUNDS):
            texts = [" ".join(f"word{(number * count + i) * WORDS + j}" for j in range(WORDS)) for i in range(count)]
            questions.clear()
            costs["bare"].append(await _cost(Embedder(ALIAS, ALIAS, None, ask, None).embed(texts, SECONDS)))
            asked = list(questions)
            costs["straight"].append(await _cost(_straight(direct, f"{settings.openai_base_url}/embeddings", asked)))
            for name in ("embed", "known"):
                embedder = Embedder(ALIAS, ALIAS, None, ask, VectorCache(client))
                costs[name].append(await _cost(embedder.embed(texts, SECONDS)))
    await gateway.close()
    await client.aclose()
    told = {name: [statistics.median(values) for values in zip(*each, strict=True)] for name, each in costs.items()}
    return {"questions": len(asked), **{name: {"wall": wall, "cpu": cpu} for name, (wall, cpu) in told.items()}}


async def _straight(direct: httpx.AsyncClient, url: str, questions: list[Mapping[str, Any]]) -> None:
    """The same questions, as many at once, and nothing done with the answers but reading their JSON."""
    free = asyncio.Semaphore(AT_ONCE)

    async def send(body: Mapping[str, Any]) -> None:
        async with free:
            json.loads((await direct.post(url, json=body)).raise_for_status().content)

    await asyncio.gather(*(send(body) for body in questions))


async def _cost(work: Awaitable[object]) -> tuple[float, float]:
    """Seconds on the clock, and of this process's CPU."""
    wall, cpu = time.perf_counter(), time.process_time()
    await work
    return time.perf_counter() - wall, time.process_time() - cpu
