"""Processes: sync functions run in a pool of them, and one that dies takes down only the unit that it had."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from assetcore.calls import Call
from assetcore.documents import Document
from assetcore.loading import fingerprint_of, load
from assetcore.runners.processes import Processes

pytestmark = pytest.mark.integration

CODE = """
import os, signal, sys, time
from assetcore import Document, asset, each, folder, source

class Page(Document):
    "A page."

pages = source("pages", Page, folder("data"))

@asset
def work(page: Page = each(pages)) -> Page:
    match page.text:
        case "exit": sys.exit(3)
        case "die": os._exit(3)
        case "killed": os.kill(os.getpid(), signal.SIGKILL)
        case "raise": raise ValueError(page.name)
        case "sleep": time.sleep(60)
        case "environment": return Page(page.name, text=os.environ["LESSON"])
    time.sleep(0.02)
    return Page(page.name, text=str(os.getpid()))
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    package = tmp_path / "projects" / "demo"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "assets.py").write_text(CODE)
    return tmp_path


@pytest.fixture
async def processes(root: Path) -> AsyncIterator[Processes]:
    pool = Processes(root, "demo", 2)
    yield pool
    await pool.close()


def code(root: Path) -> bytes:
    return fingerprint_of(load(root, "demo"), "work").digest


def asked(*texts: str) -> list[Call]:
    documents = [Document(f"{i}", text=text) for i, text in enumerate(texts)]
    return [Call({"page": document}, document.name, f"work[{document.name}]") for document in documents]


async def test_calls_run_beside_this_process(root: Path, processes: Processes) -> None:
    """Results come in the order of the calls, from other processes, which have this one's environment."""
    outcomes = await processes.call("work", asked("a", "b", "raise", "c"), code(root))
    assert [o.error for o in outcomes] == [None, None, "ValueError: 2", None]
    assert 'raise": raise ValueError(page.name)' in outcomes[2].traceback
    assert str(os.getpid()) not in {o.documents[0].text for o in outcomes if o.documents}
    assert [o.documents[0].name for o in outcomes if o.documents] == ["0", "1", "3"]


async def test_the_environment_is_that_of_now(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers have the environment of when their pool was started, not of when the first one ever was."""
    for lesson in ("one", "two"):
        monkeypatch.setenv("LESSON", lesson)
        pool = Processes(root, "demo", 1)
        try:
            outcomes = await pool.call("work", asked("environment"), code(root))
        finally:
            await pool.close()
        assert outcomes[0].documents[0].text == lesson


@pytest.mark.parametrize("end", ["die", "killed"])
async def test_a_process_that_dies_fails_its_own_unit_only(root: Path, processes: Processes, end: str) -> None:
    """Of many calls, the one in which a process ended fails with a sentence; all the others give what they give, and work goes on."""
    outcomes = await processes.call("work", asked("a", end, "b", "exit", "c"), code(root))
    assert [o.error is None for o in outcomes] == [True, False, True, False, True]
    assert "The process that ran it ended in the middle" in str(outcomes[1].error)
    assert outcomes[3].error == "SystemExit: 3"
    assert (await processes.call("work", asked("d"), code(root)))[0].error is None


async def test_code_that_was_edited_meanwhile_is_not_run(root: Path, processes: Processes) -> None:
    """What the processes load must be what lineage will say it was made with: otherwise nothing is made, and it says so."""
    before = code(root)
    (root / "projects" / "demo" / "assets.py").write_text(CODE.replace("str(os.getpid())", "'other'"))
    outcomes = await processes.call("work", asked("a", "b"), before)
    (said,) = {o.error for o in outcomes}
    assert said == (
        "A worker found other code for work than the run has, and did not call it. It was edited meanwhile (then run again), the worker"
        " has another copy of it, or it depends on what is different there: a file that a constant reads, the environment."
    )


async def test_closing_ends_what_is_running(root: Path) -> None:
    """Closing ends the processes, also one that is in the middle of a call, and can be done twice."""
    pool = Processes(root, "demo", 1)
    await pool.ready()
    assert pool._pool is not None
    (running,) = [psutil.Process(pid) for pid in pool._pool._processes]
    started = time.monotonic()
    await pool.close()
    await pool.close()
    psutil.wait_procs([running], timeout=10)
    assert not running.is_running()
    assert time.monotonic() - started < 10
