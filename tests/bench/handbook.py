"""Handbook: what does it cost to make the example, and to keep it up to date? Beside a plain script that makes all of it every time."""

from __future__ import annotations

import ast
import shutil
import sys
import sysconfig
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.bench.meter import CommandFailedError, Cost, measure, median
from tests.bench.place import REPOSITORY, Place, executed, new_place
from tests.bench.report import COST, Report, against, figures, ratio

PROJECT = REPOSITORY / "projects" / "handbook"
PLAIN = Path(__file__).with_name("plain_handbook.py")
UNREAD = ("__pycache__", "site-packages", "test", "tests", "idle_test")
"""What neither the handbook nor the plain script reads."""
SHARE = "first build, without Prefect"
BUILD = "first build"
SPINE = "not group:retrieval"
"""What the plain script does, too: it asks no model."""
Edit = Callable[[Path], None]


@dataclass(frozen=True, slots=True)
class Scene:
    """One thing that happens to a handbook, and the command that follows."""

    name: str
    words: Sequence[str] = ("materialize", "--json", SPINE)
    edit: Edit | None = None


def bench(report: Report, repeat: int) -> None:
    """Tell the story `repeat` times, each in a home of its own; medians."""
    costs: dict[str, list[Cost]] = {}
    for turn in range(repeat):
        report.step(f"handbook {turn + 1} of {repeat}")
        for name, cost in _told():
            costs.setdefault(name, []).append(cost)
    report.step("handbook, everything cold")
    try:
        costs["everything cold: services, schema, build"] = [_cold()]
    except CommandFailedError as error:
        report.say(f"{error}\n")
    found = {name: median(all_costs) for name, all_costs in costs.items()}
    plain = found["plain script, all of it"]
    goals = {
        BUILD: against(found[BUILD].wall, 2 * plain.wall + 10),
        "no-op plan": against(found["no-op plan"].wall, 1.5),
        "no-op materialize": against(found["no-op materialize"].wall, 1.0),
        "one topic edited": against(found["one topic edited"].wall, 3.0),
    }
    rows = [
        [name, *figures(cost), ratio(cost.wall, plain.wall), ratio(cost.all_cpu, plain.cpu), _executed(cost), goals.get(name, "")]
        for name, cost in found.items()
    ]  # fmt: skip
    report.table(
        f"The handbook (services up, medians of {repeat})",
        ["case", *COST, "wall to plain", "CPU to plain", "executed", "goal"],
        rows,
    )
    _share(report, found[BUILD], found[SHARE])


def _told() -> Iterator[tuple[str, Cost]]:
    with _place() as place:
        script = [sys.executable, PLAIN, place.root / "plain"]
        yield (
            "plain script, all of it",
            measure(script, cwd=place.root, env=place.env | {"PYTHONPATH": str(REPOSITORY)}),
        )
        for scene in STORY:
            if scene.edit is not None:
                scene.edit(place.root)
            yield scene.name, place.call(*scene.words)
    with _place() as place:
        yield SHARE, place.call("materialize", "--json", "--local", SPINE)


def _cold() -> Cost:
    with _place(up=False) as place:
        return place.call("materialize", "--json", services=False)


@contextmanager
def _place(*, up: bool = True) -> Iterator[Place]:
    with new_place(PROJECT, up=up) as place:
        library = place.root / "python" / "lib" / "python3"
        shutil.copytree(
            sysconfig.get_path("stdlib"), library.with_name("python3.0"), ignore=shutil.ignore_patterns(*UNREAD)
        )
        yield Place(place.root, place.env | {"PYTHON_HOME": str(place.root / "python")})


def _share(report: Report, build: Cost, local: Cost) -> None:
    wall, cpu = build.wall - local.wall, build.all_cpu - local.all_cpu
    prefect = build.services.get("prefect", 0.0) - local.services.get("prefect", 0.0)
    report.say(
        f"Prefect's share of the first build: {wall:.2f} s of {build.wall:.2f} s ({wall / build.wall:.0%}; goal: under 10 %); "
        f"CPU {cpu:.2f} s of {build.all_cpu:.2f} s, of which its server {prefect:.2f} s\n"
    )


def _executed(cost: Cost) -> str:
    if '"made"' not in cost.out:
        return ""
    return ", ".join(f"{count} {word}" for word, count in executed(cost.out).items() if count) or "nothing"


# -- what happens ------------------------------------------------------------------------------------------------------------------


def _library(root: Path) -> Path:
    return next((root / "python" / "lib").iterdir())


def _modules(root: Path) -> list[Path]:
    """One module in a hundred."""
    return sorted(_library(root).rglob("*.py"))[7::100]


def _edit_modules(root: Path) -> None:
    for path in _modules(root):
        with path.open("a", encoding="utf-8") as file:
            file.write('\n\ndef added_by_the_bench(argument):\n    """What was added."""\n')


def _revert_modules(root: Path) -> None:
    for path in _modules(root):
        text = path.read_bytes()
        path.write_bytes(text[: text.rindex(b"\n\ndef added_by_the_bench")])


def _edit_topic(root: Path) -> None:
    path = _library(root) / "pydoc_data" / "topics.py"
    tree = ast.parse(path.read_bytes())
    topics = ast.literal_eval(next(node.value for node in tree.body if isinstance(node, ast.Assign)))
    topics["with"] += "\nSee also the examples in the bench.\n"
    path.write_text(f"topics = {topics!r}\n", encoding="utf-8")


def _edit_function(root: Path) -> None:
    _replace(root / "projects" / "handbook" / "prose.py", "len(paragraph) > size", "len(paragraph) >= size - 1")


def _revert_function(root: Path) -> None:
    _replace(root / "projects" / "handbook" / "prose.py", "len(paragraph) >= size - 1", "len(paragraph) > size")


def _replace(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text, f"{path} has changed: it holds no {old!r}"
    path.write_text(text.replace(old, new), encoding="utf-8")


STORY = (
    Scene(BUILD),
    Scene("no-op plan", ("plan", "--json", SPINE)),
    Scene("no-op materialize"),
    Scene("1 % of the modules edited", edit=_edit_modules),
    Scene("that edit reverted", edit=_revert_modules),
    Scene("one topic edited", edit=_edit_topic),
    Scene("one function edited", edit=_edit_function),
    Scene("that function reverted", edit=_revert_function),
    Scene("what models make, beside it", ("materialize", "--json")),
    Scene("one topic edited, all of it", ("materialize", "--json"), edit=_edit_topic),
)
