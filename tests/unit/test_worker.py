"""Worker: what a process of a cluster does with the calls it is given, one run after another."""

from __future__ import annotations

import pickle
import threading
import time
from pathlib import Path

import pytest

from assetcore.calls import Call, Outcome
from assetcore.documents import Document
from assetcore.errors import ServiceError
from assetcore.loading import fingerprint_of, load
from assetcore.runners import worker

CODE = """
import os, time
from assetcore import Document, asset, each, folder, source

class Page(Document):
    "A page."

pages = source("pages", Page, folder("data"))

@asset
def work(page: Page = each(pages)) -> Page:
    while os.path.exists(page.text):
        time.sleep(0.01)
    return Page(page.name, text=page.text.upper())
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    package = tmp_path / "projects" / "demo"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "assets.py").write_text(CODE)
    return tmp_path


def edit(root: Path, old: str, new: str) -> None:
    file = root / "projects" / "demo" / "assets.py"
    file.write_text(file.read_text().replace(old, new))


def code(root: Path) -> bytes:
    """The digest that the run's process would name."""
    return fingerprint_of(load(root, "demo"), "work").digest


def answered(root: Path, digest: bytes, *texts: str) -> list[Outcome] | None:
    """What a worker answers; None where it has other code."""
    calls = [Call({"page": Document(str(i), text=text)}, str(i), f"work[{i}]") for i, text in enumerate(texts)]
    answer = worker.answer(str(root), "demo", "work", pickle.dumps(calls), digest)
    return pickle.loads(answer) if answer else None


def test_calls_and_outcomes_cross_as_bytes(root: Path) -> None:
    """Each call has its outcome, in order, made of the worker's own copy of the project."""
    found = answered(root, code(root), "a", "b")
    assert found is not None
    assert [o.documents[0].text for o in found] == ["A", "B"]


def test_a_worker_lives_longer_than_an_edit(root: Path) -> None:
    """It refuses the code that it does not have, and loads what is there when that is what the run asks for."""
    before = code(root)
    assert answered(root, before, "a") is not None
    edit(root, "upper()", "lower()")
    after = code(root)
    found = answered(root, after, "A")
    assert found is not None
    assert found[0].documents[0].text == "a"
    assert answered(root, before, "a") is None
    assert answered(root, after, "A") is not None


def test_code_is_changed_only_while_nobody_calls_it(root: Path) -> None:
    """Threads of a worker call the same code beside each other; one that asks for other code waits until they have ended."""
    found: dict[str, list[Outcome] | None] = {}

    def call(name: str, digest: bytes, *texts: str) -> None:
        found[name] = answered(root, digest, *texts)

    first, gate = code(root), root / "gate"
    gate.touch()
    slow = [threading.Thread(target=call, args=(f"slow {i}", first, *[str(gate)] * 10)) for i in range(3)]
    for thread in slow:
        thread.start()
    while worker._loaded.calling < 3:
        time.sleep(0.01)
    edit(root, "upper()", "title()")
    late = threading.Thread(target=call, args=("late", b"other", "a"))
    late.start()
    late.join(0.1)
    assert late.is_alive()
    gate.unlink()
    for thread in (*slow, late):
        thread.join()
    assert [len(found[f"slow {i}"] or ()) for i in range(3)] == [10, 10, 10]
    assert found["late"] is None


def test_a_worker_on_another_machine_looks_from_its_own_folder(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the run's folder is not there, the project is found from the worker's folder upwards."""
    digest = code(root)
    monkeypatch.chdir(root / "projects")
    assert answered(Path("/nowhere/at/all"), digest, "a") is not None


def test_a_worker_without_the_project_says_so(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A project that is not there is an error that says what a worker needs."""
    digest = code(root)
    (tmp_path / "projects" / "demo" / "__init__.py").unlink()
    monkeypatch.setattr(worker, "_loaded", worker._Loaded())
    with pytest.raises(ServiceError, match=r"cannot load the project demo .*\n.*the same code"):
        answered(root, digest, "a")
