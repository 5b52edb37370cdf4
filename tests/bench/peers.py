"""Peers: what does workload W cost by others, in the same minutes?

A script with a manifest in the same Postgres always; CocoIndex and DVC where the folder that BENCH_VENVS names has an environment of that
name (`python -m venv cocoindex && cocoindex/bin/pip install cocoindex`). Each does what is described in its file of `workload/peers`, with
the same steps and texts, in a folder of its own; each report is compared with the plain script's.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg

from assetcore import stack
from assetcore.settings import Settings
from tests.bench.meter import Cost, measure
from tests.bench.place import Place, new_place
from tests.bench.report import Report, ratio
from tests.bench.workload import scenarios

SCRIPTS = Path(__file__).parent / "workload" / "peers"
STAGES = """
stages:
  summaries:
    cmd: {command} summaries data
    deps: [data]
    outs: [made]
  report:
    cmd: {command} report
    deps: [made, projects/workload/steps.py]
    outs: [report.json]
"""
"""Of DVC. The steps are a dependency of the report alone, as if each stage had a module of its own: that favours it."""


@dataclass(frozen=True, slots=True)
class Peer:
    """Somebody else who makes the workload: a command, in a folder with the steps."""

    name: str
    folder: Path
    command: Sequence[str | Path]
    env: dict[str, str] = field(default_factory=dict)
    uses_services: bool = False

    def make(self, place: Place) -> Cost:
        env = place.env | {"PYTHONPATH": str(self.folder)} | self.env
        return measure(self.command, cwd=self.folder, env=env, services=place.services if self.uses_services else None)


def bench(report: Report, documents: int) -> None:
    found: dict[str, dict[str, Cost]] = {}
    with new_place(scenarios.PROJECT) as place:
        data = place.root / "data"
        data.mkdir()
        peers = [_on_postgres(place), *_installed(place)]
        for scene, edit in scenarios.STORY.items():
            report.step(f"{documents:,} documents, {scene}")
            edit(place.root, documents)
            for peer in peers:
                shutil.copytree(place.root / "projects", peer.folder / "projects", dirs_exist_ok=True)
            costs = {"assetcore": place.call("materialize", "--json")}
            scenarios.plain(place, data)
            scenarios.compare(report, place, scene)
            wanted = json.loads((place.root / "plain" / "report.json").read_bytes())
            for peer in peers:
                costs[peer.name] = peer.make(place)
                if json.loads((peer.folder / "report.json").read_bytes()) != wanted:
                    report.say(f"WRONG after {scene}: the report of {peer.name}")
            found[scene] = costs
    names = list(next(iter(found.values())))
    rows: list[list[str]] = []
    for scene, costs in found.items():
        own = costs["assetcore"]
        for name, cost in costs.items():
            rows.append(
                [scene if name == names[0] else "", name, f"{cost.wall:.2f}", f"{cost.all_cpu:.2f}", f"{cost.peak / 1e6:.0f}",
                 f"{documents / cost.wall:,.0f}", ratio(own.wall, cost.wall), ratio(own.all_cpu, cost.all_cpu)]
            )  # fmt: skip
    report.table(
        f"Workload W beside others, {documents:,} documents (CPU with that of services; the last two: assetcore to it)",
        ["case", "who", "wall s", "CPU s", "peak MB", "documents/s", "wall", "CPU"], rows,
    )  # fmt: skip


def _on_postgres(place: Place) -> Peer:
    """In a database of its own of the same server."""
    database = asyncio.run(_new_database(place))
    words = [sys.executable, "-P", SCRIPTS / "on_postgres.py", database, place.root / "data"]
    return Peer("plain Postgres", _folder(place, "postgres"), words, uses_services=True)


async def _new_database(place: Place) -> str:
    addresses = await stack.up(Settings.load(place.root, home=place.root / "home"), {"postgres"})
    server = addresses.database_url.replace("+asyncpg", "").rpartition("/")[0]
    connection = await asyncpg.connect(f"{server}/postgres")
    await connection.execute("create database plain")
    await connection.close()
    return f"{server}/plain"


def _installed(place: Place) -> list[Peer]:
    """Those that there is an environment for."""
    venvs = Path(os.environ.get("BENCH_VENVS", ""))
    known: dict[str, Callable[[Place, Path], Peer]] = {"cocoindex": _with_cocoindex, "dvc": _with_dvc}
    return [
        make(place, venvs / name / "bin") for name, make in known.items() if (venvs / name / "bin" / "python").exists()
    ]


def _with_cocoindex(place: Place, programs: Path) -> Peer:
    folder = _folder(place, "cocoindex")
    settings = {
        "COCOINDEX_DB": str(folder / "state"), "COCOINDEX_DISABLE_USAGE_TRACKING": "1", "COCOINDEX_LMDB_MAP_SIZE": str(1 << 35),
    }  # fmt: skip
    return Peer(
        "CocoIndex", folder, [programs / "python", "-P", SCRIPTS / "with_cocoindex.py", place.root / "data"], settings
    )


def _with_dvc(place: Place, programs: Path) -> Peer:
    folder = _folder(place, "dvc")
    (folder / "data").symlink_to(place.root / "data")
    (folder / "run.sh").write_text(f'exec "{programs / "python"}" -P "{SCRIPTS / "with_dvc.py"}" "$@"\n')
    (folder / "dvc.yaml").write_text(STAGES.format(command="sh run.sh"))
    settings = {
        "DVC_NO_ANALYTICS": "1",
        "DVC_SITE_CACHE_DIR": str(folder / "cache"),
        "PATH": f"{programs}:{place.env['PATH']}",
    }
    measure([programs / "dvc", "init", "-q", "--no-scm"], cwd=folder, env=place.env | settings)
    return Peer("DVC", folder, [programs / "dvc", "repro", "-q"], settings)


def _folder(place: Place, name: str) -> Path:
    folder = place.root / "peers" / name
    folder.mkdir(parents=True)
    return folder
