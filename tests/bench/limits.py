"""Limits: how far off is a rate under load, and what does asking for it cost? A hundred callers at once, all the time."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path

from assetcore import stack
from assetcore.cache import get_async_client, rate_limit
from assetcore.settings import Settings
from tests.bench.meter import measure
from tests.bench.place import empty_place
from tests.bench.report import Report, against

CALLERS = 100
LIMIT = 40
BUCKETS = 20
WINDOWS = 5


def bench(report: Report) -> None:
    report.step(f"a rate under {CALLERS} callers")
    with empty_place() as place:
        script = "from tests.bench.limits import main; main()"
        found = json.loads(measure([sys.executable, "-c", script], cwd=place.root, env=place.env).out)
    rows = [
        [
            name, *(f"{one[figure]:,.0f}" for figure in ("allowed", "begun", "calls")), f"{one['calls'] / one['seconds']:,.0f}",
            against(abs(one["begun"] - one["allowed"]), 0, "off"),
        ]
        for name, one in found.items()
    ]  # fmt: skip
    report.table(
        f"rate_limit, {CALLERS} callers at once", ["case", "allowed", "begun", "calls", "calls/s", "goal"], rows
    )


def main() -> None:
    """Print what was counted, as JSON; called in a process of its own, in a place whose Redis runs."""
    sys.stdout.write(json.dumps(asyncio.run(_counted())))


async def _counted() -> dict[str, dict[str, float]]:
    addresses = await stack.up(Settings.load(Path.cwd()), {"redis"})
    client = get_async_client(str(addresses.redis_url))
    try:
        await asyncio.gather(*(client.ping() for _ in range(CALLERS)))  # a connection for each, before the clock runs
        once = {"allowed": LIMIT * BUCKETS, "begun": 0.0, "calls": CALLERS * BUCKETS, "seconds": 0.0}
        started = time.perf_counter()
        for number in range(BUCKETS):
            pauses = await asyncio.gather(*(rate_limit(client, f"once-{number}", LIMIT, 60) for _ in range(CALLERS)))
            once["begun"] += sum(pause == 0 for pause in pauses)
        once["seconds"] = time.perf_counter() - started
        going = {"allowed": LIMIT * WINDOWS, "begun": 0.0, "calls": 0.0, "seconds": 0.0}
        until = time.monotonic() + WINDOWS - 0.1  # within so many windows of a second so many may begin, and no more

        async def press() -> None:
            while time.monotonic() < until:
                pause = await rate_limit(client, "going", LIMIT, 1)
                going["calls"] += 1
                going["begun"] += pause == 0
                await asyncio.sleep(min(pause, max(0.0, until - time.monotonic())))

        started = time.perf_counter()
        await asyncio.gather(*(press() for _ in range(CALLERS)))
        going["seconds"] = time.perf_counter() - started
    finally:
        await client.aclose()
    return {f"{BUCKETS} buckets, each asked once": once, f"{WINDOWS} windows of a second, asked on and on": going}
