"""Scaffold: what does a new project begin with?"""

from __future__ import annotations

import keyword
import sys
from pathlib import Path

import click

from assetcore.cli.call import Call, verb
from assetcore.errors import ProjectError, UsageError

PACKAGE = '"""{name}: what does this project keep up to date?"""\n'

ASSETS = '''"""The assets of {name}: pages from a folder, the words of each, and one table over all of them."""

import polars as pl

from assetcore import Document, asset, collect, each, folder, source


class Page(Document):
    """A text file."""


class Word(Document):
    """A word of a page, and how often it occurs there."""

    page: str
    count: int


pages = source("pages", Page, folder("data/{name}", pattern="**/*.txt"))


@asset
async def words(page: Page = each(pages)) -> list[Word]:
    """Once for each page; only pages that changed are read again."""
    found = page.text.lower().split()
    return [Word(name=f"{{page.stem}}-{{word}}", text=word, page=page.stem, count=found.count(word)) for word in sorted(set(found))]


@asset(tags=["report"])
async def frequencies(words: pl.LazyFrame = collect(words)) -> pl.DataFrame:
    """Once, over the words of all pages."""
    counted = words.group_by(word="text").agg(pl.col("count").sum(), pages=pl.len())
    return counted.sort("count", "word", descending=[True, False]).collect()
'''

CONFIG = """# Values for the parameters of {name}'s assets that are pydantic models:
#
#   ASSET:
#     FIELD: 2
#
# One call can differ: aipctl materialize --set ASSET.FIELD=3
"""

TEST = '''"""Tests of {name}, where an asset is a function that can be called: python -m pytest projects"""

import asyncio

from projects.{name}.assets import Page, words


def test_words_are_counted() -> None:
    """Each word once, with how often it occurs."""
    found = asyncio.run(words(Page("a.txt", text="to be or not to be")))
    assert [(word.text, word.count) for word in found] == [("be", 2), ("not", 1), ("or", 1), ("to", 2)]
'''

PAGES = {"first.txt": "An asset is a set of documents\n", "second.txt": "A document is made of documents\n"}


@click.group()
def new() -> None:
    """Start something new."""


@verb(project=False, group=new)
@click.argument("name")
def project(call: Call, name: str) -> None:
    """Start the project NAME: projects/NAME with a small working example and its test, and a folder data/NAME that it reads."""
    if not name.isidentifier() or keyword.iskeyword(name) or name != name.lower() or not name.isascii():
        raise UsageError(
            f"{name!r} cannot be the name of a project.",
            hint="It is a Python package: lowercase letters, digits and _, as in my_notes.",
        )
    if name in sys.stdlib_module_names:
        raise UsageError(
            f"{name!r} cannot be the name of a project: Python has a module of that name, and its tests would find that one.",
            hint=f"Choose another name, such as my_{name}.",
        )
    try:
        root = call.root()
    except ProjectError:  # the first project of this folder
        root = (call.root_given or Path.cwd()).resolve()
    package, data = root / "projects" / name, root / "data" / name
    if package.exists():
        raise UsageError(
            f"There is a project {name} already, in {package}.", hint="Choose another name; nothing was written."
        )
    files = {
        package / "__init__.py": PACKAGE.format(name=name),
        package / "assets.py": ASSETS.format(name=name),
        package / "config.yaml": CONFIG.format(name=name),
        package / f"test_{name}.py": TEST.format(name=name),
    }
    if not data.exists():
        files |= {data / file: text for file, text in PAGES.items()}
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    written = [str(path.relative_to(root)) for path in files]
    told = "\n".join([*(f"  {path}" for path in written), f"Now: aipctl materialize -p {name}"])
    call.answer({"project": name, "root": str(root), "files": written}, lambda _: told)
