"""What a function reads beside what it is given is seen; what others read for it, and what it wrote itself, is not."""

from __future__ import annotations

import asyncio
import importlib
import json
import linecache
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import assetcore
from assetcore.watch import MOST, watch


def read_in(root: Path, settled: bool = False) -> tuple[list[tuple[str, str]], object]:
    with watch(root, settled=settled) as watched:
        (root / "seen.txt").read_text()
        os.environ.get("WATCHED")
    return [(one.code, one.what) for one in watched.inputs], watched


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "seen.txt").write_text("seen")
    return tmp_path


def test_files_and_variables_are_seen_once_and_with_their_place(root: Path) -> None:
    """A file of the project is told by its path in it, whatever the number of reads; the place is a line of this file."""
    with watch(root) as watched:
        for _ in range(3):
            (root / "seen.txt").read_text()
            _ = os.environ.get("WATCHED"), os.getenv("WATCHED"), "WATCHED" in os.environ
        with pytest.raises(KeyError):
            _ = os.environ["WATCHED_TOO"]
    found = {one.what: one for one in watched.inputs}
    assert list(found) == [
        "the file seen.txt",
        "the environment variable WATCHED",
        "the environment variable WATCHED_TOO",
    ]
    assert [one.code for one in found.values()] == ["AC102", "AC103", "AC103"]
    assert all(__file__.endswith(one.where.rpartition(":")[0]) for one in found.values())


def test_folders_and_what_is_not_there_are_seen(root: Path) -> None:
    """That a file is not there is read, too, and so is what a folder holds."""
    with watch(root) as watched:
        os.listdir(root)
        with pytest.raises(FileNotFoundError):
            (root / "gone.txt").read_bytes()
    assert [one.what for one in watched.inputs] == [f"the folder {root}", "the file gone.txt"]


def test_what_the_call_wrote_is_its_own(root: Path) -> None:
    """A file that the call has written is read back without a word."""
    with watch(root) as watched:
        (root / "own.txt").write_text("own")
        (root / "own.txt").read_text()
        with tempfile.TemporaryFile("w+") as file:
            file.write("x")
    assert watched.inputs == ()


def test_what_python_and_packages_read_is_not_told(root: Path) -> None:
    """Modules, sources for tracebacks, and the files of the system."""
    with watch(root) as watched:
        sys.modules.pop("this", None)
        importlib.import_module("colorsys")
        linecache.getline(json.__file__, 1)
        Path("/etc/hostname").exists() and Path("/etc/hostname").read_text()
    assert watched.inputs == ()


def test_code_that_cannot_be_read_is_no_file(root: Path) -> None:
    """For the message of a SyntaxError, Python looks for the file that was named; what else opens it is seen."""
    with watch(root) as watched:
        for named in ("<unknown>", str(root / "seen.txt")):
            with pytest.raises(SyntaxError):
                compile("def broken(:", named, "exec")
    assert watched.inputs == ()
    with watch(root) as watched:
        (root / "seen.txt").read_text()
    assert [one.what for one in watched.inputs] != []


def test_what_is_in_no_file_asks_for_who_called_it(root: Path) -> None:
    """Code that a library has written, such as a dataclass's `__init__`, is not the user's: here this package asks, there the test does."""
    own = compile("made()", assetcore.__file__, "eval")
    made = eval(compile("lambda: open(path).close()", "<string>", "eval"), {"path": root / "seen.txt"})
    with watch(root) as watched:
        eval(own, {"made": made})
    assert watched.inputs == ()
    with watch(root) as watched:
        made()
    assert [one.what for one in watched.inputs] == ["the file seen.txt"]
    assert __file__.endswith(watched.inputs[0].where.rpartition(":")[0])


LOOKED = """
import importlib.metadata, sys
from pathlib import Path
from assetcore.watch import watch

with watch(Path.cwd()) as watched:
    list(importlib.metadata.distributions(name="nothing"))
sys.stdout.write(repr(watched.inputs))
"""


def test_the_archive_that_python_looks_for_is_pythons_own(tmp_path: Path) -> None:
    """Which distributions there are is looked for in `python3xx.zip`, too, which need not be there, and is in nobody's settings."""
    done = subprocess.run(
        [sys.executable, "-c", LOOKED], env={**os.environ, "HOME": str(tmp_path)}, capture_output=True, check=True
    )
    assert b"the folder" in done.stdout
    assert b".zip" not in done.stdout


def test_nothing_is_seen_outside_and_where_a_version_answers_for_it(root: Path) -> None:
    """Watching ends with the call; an asset with a version is not watched."""
    assert read_in(root, settled=True)[0] == []
    found, watched = read_in(root)
    (root / "seen.txt").read_text()
    assert [code for code, _ in found] == ["AC102", "AC103"]
    assert len(watched.inputs) == 2  # type: ignore[attr-defined]  # it is a Watched


async def test_calls_that_run_at_once_are_told_apart(root: Path) -> None:
    """Each call sees its own reads, also those in threads that it waits for."""
    for name in "ab":
        (root / name).write_text(name)

    async def call(name: str) -> list[str]:
        with watch(root) as watched:
            await asyncio.sleep(0)
            await asyncio.to_thread((root / name).read_text)
            await asyncio.sleep(0)
        return [one.what for one in watched.inputs]

    assert await asyncio.gather(call("a"), call("b")) == [["the file a"], ["the file b"]]


def test_a_module_by_a_computed_name_is_seen(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module of the project that is imported by a name that is not in the code; an import statement is code."""
    (root / "plugin_watched.py").write_text("import plugin_below\n")
    (root / "plugin_below.py").write_text("")
    monkeypatch.syspath_prepend(root)
    with watch(root) as watched:
        importlib.import_module("plugin_" + "watched")
    assert [(one.code, one.what) for one in watched.inputs] == [("AC101", "the module plugin_watched.py")]


def test_so_much_is_told_and_no_more(root: Path) -> None:
    """A call that reads a thousand files tells of twenty."""
    with watch(root) as watched:
        for number in range(50):
            (root / str(number)).exists() or (root / "seen.txt").with_name(f"{number}.txt").exists()
            os.environ.get(f"WATCHED_{number}")
    assert len(watched.inputs) == MOST
