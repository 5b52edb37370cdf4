"""Completion: what does a shell offer for a word that was begun?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import pytest
from click.shell_completion import ShellComplete
from pydantic import BaseModel

from assetcore import Document, asset, each, folder, source
from assetcore.assets import Sensitivity
from assetcore.cli import main
from assetcore.cli.names import VALUES, names_in
from assetcore.embeddings import Embedding
from assetcore.graph import Graph
from assetcore.planning import STATUSES
from assetcore.staleness import CAUSES


class Page(Document):
    """A page."""


class Limits(BaseModel):
    shortest: int = 1
    longest: int = 9


KNOWN = {
    "assets": ["words", "wide", "index"],
    "config": ["words.shortest="],
    "indexes": ["wide"],
    "flows": ["publish"],
    "environments": ["pr-17", "prod"],
}


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("plan |w", "wide words"),
        ("plan |2+w", "2+wide 2+words"),
        ("plan |not (a or w", "not (a or wide not (a or words"),
        ("plan |words+", ""),
        ("plan |words[", ""),
        ("plan |words[a or w", ""),
        ("plan |tag:", ""),
        ("plan |status:s", "status:stale"),
        (
            "plan |w and not cause:in",
            "w and not cause:input-changed w and not cause:input-removed w and not cause:inputs-changed",
        ),
        ("ls |sensitivity:i", "sensitivity:internal"),
        ("ls -p other |w", ""),
        ("why |w", "wide words"),
        ("why |words[", ""),
        ("why |words[a]/w", ""),
        ("show |+w", ""),
        ("accept |i", "index"),
        ("journal |v", "verify"),
        ("journal |i", "index"),
        ("vectors rebuild |", "wide"),
        ("vectors best |w", "wide"),
        ("plan --if |change i", "change index"),
        ("plan --if |remove words[", ""),
        ("plan --set |w", "words.shortest="),
        ("run |p", "publish"),
        ("run publish --input |documents=i", "documents=index"),
        ("materialize --env |p", "pr-17 prod"),
        ("env drop |pr-", "pr-17"),
        ("env diff pr-17 |prod", "prod"),
        ("env promote pr-17 --to |", "pr-17 prod"),
        ("env create |p", ""),
        ("env create pr-18 --from |prod", "prod"),
    ],
)
def test_what_is_completed(typed: str, completed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names of assets, environments, flows and indexes where such are asked for, the fixed values of a field, and nothing elsewhere."""
    (tmp_path / ".assetcore").mkdir()
    (tmp_path / ".assetcore" / "names.json").write_text(json.dumps({"notes": KNOWN, "other": {}}))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PROJECT", raising=False)
    monkeypatch.delenv("ASSETCORE_HOME", raising=False)
    words, _, incomplete = typed.partition("|")
    found = ShellComplete(main, {}, "aipctl", "_AIPCTL_COMPLETE").get_completions(words.split(), incomplete)
    assert " ".join(one.value for one in found) == completed


def test_the_values_that_are_completed_are_those_that_there_are() -> None:
    """Completion imports nothing, and so has lists of its own; they say what is decided elsewhere."""
    assert VALUES["cause"] == CAUSES
    assert VALUES["status"] == STATUSES
    assert VALUES["sensitivity"] == get_args(Sensitivity)


def test_a_loaded_project_says_what_can_be_completed() -> None:
    """`--set` takes what assets have as config, by parameter where they have several; indexes are of assets that return embeddings."""

    pages = source("pages", Page, folder("data"))

    @asset
    async def cut(limits: Limits, page: Page = each(pages)) -> Page: ...

    @asset
    async def both(limits: Limits, more: Limits, page: Page = each(pages)) -> Embedding: ...

    assert names_in(Graph("notes", [pages, cut, both])) == {
        "assets": ["pages", "cut", "both"],
        "config": [
            "cut.shortest=", "cut.longest=", "both.limits.shortest=", "both.limits.longest=", "both.more.shortest=", "both.more.longest="
        ],
        "indexes": ["both"],
    }  # fmt: skip
