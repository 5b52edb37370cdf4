"""The handbook without assetcore: the same transformations as projects/handbook, all of them, every time, into a folder.

What `make bench` compares a build with. It shares the project's pure functions, keeps no lineage, and makes everything again:

    python tests/bench/plain_handbook.py OUTPUT_FOLDER        (PYTHON_HOME points it at another Python)

Prints one JSON object: how many documents each step made, and the seconds that it took.
"""

from __future__ import annotations

import ast
import json
import os
import sys
import sysconfig
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl

from assetcore.search import SearchIndex
from projects.handbook import code, prose

HOME = Path(os.environ.get("PYTHON_HOME") or sysconfig.get_path("stdlib")).expanduser()
LIBRARY = max(HOME.glob("lib/python3.*"), default=HOME)
LEFT_OUT = {"test", "tests", "idle_test", "site-packages", "__pycache__"}
SIZE = 1000


def build(output: Path, library: Path = LIBRARY) -> dict[str, dict[str, float]]:
    """Make the whole handbook below `output`; what each step made, and how long it took."""
    report: dict[str, dict[str, float]] = {}

    @contextmanager
    def step(name: str) -> Iterator[Path]:
        started = time.perf_counter()
        folder = output / name
        folder.mkdir(parents=True, exist_ok=True)
        yield folder
        report[name] = {"files": sum(1 for _ in folder.iterdir()), "seconds": round(time.perf_counter() - started, 3)}

    with step("topics") as folder:
        tree = ast.parse((library / "pydoc_data" / "topics.py").read_bytes())
        topics = ast.literal_eval(next(node.value for node in tree.body if isinstance(node, ast.Assign)))
        for name, text in topics.items():
            (folder / f"{name}.txt").write_text(text, encoding="utf-8")

    with step("modules") as folder:
        modules = dict(_modules(library))
        for name, content in modules.items():
            (folder / f"{name}.py").write_bytes(content)

    with step("clean") as folder:
        clean = {name: prose.normalise(text) for name, text in topics.items()}
        for name, text in clean.items():
            (folder / f"{name}.md").write_text(text, encoding="utf-8")

    with step("chunks") as folder:
        for name, text in clean.items():
            pieces = list(enumerate(prose.pieces(text, SIZE)))
            chunks = [
                {"name": f"{name}-{i}", "topic": name, "ordinal": i, "heading": h, "text": t} for i, (h, t) in pieces
            ]
            _write_json(folder / f"{name}.json", chunks)

    with step("definitions") as folder:
        definitions = {module: list(code.definitions(content, module)) for module, content in modules.items()}
        for module, found in definitions.items():
            _write_json(folder / f"{module}.json", [definition._asdict() for definition in found])

    with step("inventory") as folder:
        frame = pl.DataFrame([definition._asdict() for found in definitions.values() for definition in found])
        inventory = frame.select("name", "kind", "module", documented=pl.col("headline") != "").sort("name", "kind")
        inventory.write_parquet(folder / "inventory.parquet")

    with step("coverage") as folder:
        defined = inventory.filter(pl.col("kind").is_in(["class", "function", "method"]))
        by_package = defined.group_by(pl.col("module").str.split(".").list.first().alias("package"))
        coverage = by_package.agg(defined=pl.len(), documented=pl.col("documented").mean().round(3)).sort("package")
        coverage.write_parquet(folder / "coverage.parquet")

    with step("references") as folder:
        names = set(inventory["name"])
        references = {
            topic: [name for name in prose.quoted_names(text) if name in names] for topic, text in clean.items()
        }
        for topic, mentioned in references.items():
            _write_json(folder / f"{topic}.json", mentioned)

    with step("module_summaries") as folder:
        headlines = {}
        for module, (about, *defined_here) in definitions.items():
            headlines[module] = about.headline
            lines = [f"* `{d.signature}` {d.headline}".rstrip() for d in defined_here if code.is_public(d.name, d.kind)]
            (folder / f"{module}.md").write_text("\n".join([f"# {about.text}\n", *lines]), encoding="utf-8")

    with step("index") as folder:
        titles = {topic: prose.title(text) for topic, text in clean.items()}
        data = {
            "topics": {topic: {"title": title, "mentions": references[topic]} for topic, title in titles.items()},
            "modules": headlines,
            "documented": dict(coverage.select("package", "documented").iter_rows()),
        }
        lines = ["# Topics\n", *(f"* {topic}: {title}" for topic, title in titles.items())]
        lines += ["\n# Modules\n", *(f"* {module}: {line}".removesuffix(": ") for module, line in headlines.items())]
        (folder / "handbook.md").write_text("\n".join(lines), encoding="utf-8")
        _write_json(folder / "handbook.json", data)

    with step("search_topics") as folder:
        pages = pl.DataFrame({"name": list(clean), "title": list(titles.values()), "text": list(clean.values())})
        index = SearchIndex.build("topics", pages.with_columns(asset=pl.lit("clean"), weight=pl.lit(1.5)))
        (folder / "topics.zip").write_bytes(index.content)

    with step("search_definitions") as folder:
        index = SearchIndex.build("definitions", frame.select("name", "text", asset=pl.lit("definitions")))
        (folder / "definitions.zip").write_bytes(index.content)

    return report


def _modules(library: Path) -> Iterator[tuple[str, bytes]]:
    for folder, folders, files in os.walk(library):
        folders[:] = sorted(set(folders) - LEFT_OUT)
        for path in (Path(folder, file) for file in sorted(files) if file.endswith(".py")):
            yield code.module_name(path.relative_to(library).as_posix()), path.read_bytes()


def _write_json(path: Path, data: object) -> None:
    path.write_text(json.dumps(data, sort_keys=True, ensure_ascii=False), encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    started = time.perf_counter()
    steps = build(Path(sys.argv[1]))
    print(json.dumps({"seconds": round(time.perf_counter() - started, 3), "steps": steps}))
