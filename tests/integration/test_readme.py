"""The README's tour and examples, run as a reader would run them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests import readme
from tests.integration.command import Command, end

pytestmark = pytest.mark.integration

LIBRARY = (
    "pydoc_data/__init__.py",
    "pydoc_data/topics.py",
    "textwrap.py",
    "contextlib.py",
    "functools.py",
    "json/__init__.py",
)
"""The library of the tour: a few modules of this Python, so that numbers differ from the README's and nothing else does."""
END = "-- end of the answer --"


@pytest.fixture
def environment(variables: Mapping[str, str], prefect_api: str, tmp_path: Path) -> dict[str, str]:
    """The environment of a reader: `aipctl` and `python` on the path, and a small library for the handbook."""
    library = tmp_path / "python"
    for name in LIBRARY:
        target = library / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(Path(sysconfig.get_path("stdlib")) / name, target)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return {**variables, "PREFECT_API_URL": prefect_api, "PATH": path, "PYTHON_HOME": str(library)}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with the handbook and nothing else, as a clone has it; its path has a space."""
    folder = tmp_path / "a clone"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(readme.REPOSITORY / "projects" / "handbook", folder / "projects" / "handbook", ignore=ignored)
    return folder


@pytest.mark.timeout(900)  # twenty commands, one after the other, and models that compute
def test_the_tour_answers_what_the_readme_shows(environment: dict[str, str], root: Path) -> None:
    """Every command of the console blocks, in order: the same answers, but for numbers, identifiers and times."""
    shell = _Shell(root, environment)
    try:
        for shown in readme.consoles():
            answer = shell.run(_here(shown.command))
            assert list(_without_figures(answer)) == list(_without_figures(shown.output)), f"{shown.command}\n{answer}"
    finally:
        end(shell.process)


def test_the_examples_run(environment: dict[str, str], root: Path) -> None:
    """The files that the README shows are made without a failure, its config counts, and its script reads the results."""
    aipctl = Command(root, environment)
    assert aipctl("new", "project", "notes").code == 0
    for example in readme.examples():
        (root / example.path).parent.mkdir(exist_ok=True)
        (root / example.path).write_text(example.body, "utf-8")
    ended = aipctl("materialize", "-p", "notes", "--json")
    assert ended.code == 0, ended.err
    assert {row["asset"] for row in ended.json["assets"] if not row["made"]} == set()
    readme.hold("aipctl materialize", ended.json)
    shown = aipctl("show", "-p", "notes", "long_words", "--json").json["documents"]
    assert {len(d["text"]) >= 4 for d in shown} == {True}, "config.yaml says that four letters are the least"
    report = subprocess.run(
        [sys.executable, "report.py"], cwd=root, env=environment, capture_output=True, text=True, check=False
    )
    assert report.returncode == 0, report.stderr
    assert "up to date" in report.stdout
    assert "documents" in report.stdout


def test_answers_in_json_have_the_keys_that_the_readme_names(environment: dict[str, str], root: Path) -> None:
    """For verbs of the table that a small project can be asked: at the top, and for the rows inside."""
    aipctl = Command(root, environment)
    begun = aipctl("new", "project", "notes", "--json")
    readme.hold("aipctl new project", begun.json)
    readme.hold("aipctl materialize", aipctl("materialize", "-p", "notes", "--local", "--json").json)
    (root / "data" / "notes" / "first.txt").write_text("Other words")
    for call in (
        "ls", "plan --units", "why words[first.txt]", "lineage frequencies", "history words", "verify words --rerun 1",
        "forget pages[second.txt]", "journal",
    ):  # fmt: skip
        answered = aipctl(*call.split(), "-p", "notes", "--json")
        assert answered.code == 0, answered.err
        readme.hold(f"aipctl {call.split()[0]}", answered.json)
    failed = aipctl("plan", "-p", "notes", "nothing_of_this_name", "--json")
    told = next(text for first, text in readme.table(*readme.ANSWERS) if first.startswith("any, when"))
    assert {"error", *failed.json["error"]} == set(readme.code(told))


class _Shell:
    """One bash in which command follows command, as in a terminal. What it says on stderr is kept in a file."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self._said = folder.parent / "stderr"
        with self._said.open("w") as said:
            self.process = subprocess.Popen(
                ["bash", "--noprofile", "--norc"], cwd=folder, env=environment, text=True, stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, stderr=said, start_new_session=True,
            )  # fmt: skip

    def run(self, command: str) -> str:
        """What the command writes to stdout; its exit code is 0."""
        assert self.process.stdin is not None
        self.process.stdin.write(f'{command} </dev/null\necho "{END}$?"\n')
        self.process.stdin.flush()
        lines = list(self._lines())
        assert lines[-1:] == [f"{END}0"], f"{command}: {lines}\n{self._said.read_text()}"
        return "\n".join(lines[:-1])

    def _lines(self) -> Iterator[str]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            yield line.rstrip("\n")
            if line.startswith(END):
                return


def _here(command: str) -> str:
    """The command where there is no clone to set up, and the library is a small one."""
    if command == "make materialize":
        return "aipctl materialize"
    if command == ". .venv/bin/activate":
        return ":"
    return command.replace("sysconfig.get_path('stdlib')", "__import__('os').environ['PYTHON_HOME']")


def _without_figures(output: str) -> Iterator[str]:
    """The lines of an answer, without what differs from time to time: numbers, identifiers, durations, widths of columns."""
    for line in output.splitlines():
        line = re.sub(r"^Run [0-9a-f]+ is done in .*?:", "Run is done:", line)
        line = re.sub(r": about .*", ".", line)  # how long it took last time
        line = re.sub(r"\b[a-z2-7]{6,} -> [a-z2-7]{6,}$", "id -> id", line)
        line = re.sub(r"\d[\d,.]*", "0", line)
        line = re.sub(r"─+", "─", " ".join(line.split()))
        if " a unit (p0 " in line:
            continue  # told of assets whose units took long, which here depends on what else the machine does
        if line:
            yield line
