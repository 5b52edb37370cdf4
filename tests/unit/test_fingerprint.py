"""Fingerprint: edits that cannot change a result leave it alone, all others do not, and it says what it cannot follow."""

from __future__ import annotations

import functools
import importlib
import itertools
import json
import shutil
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assetcore.errors import DeclarationError
from assetcore.fingerprint import Fingerprint, fingerprint

PACKAGE = "shop"

BASE = {
    "__init__.py": "",
    "assets.py": '''
        from __future__ import annotations

        import math
        import re
        from typing import TYPE_CHECKING

        from assetcore.assets import asset, collect, each, source
        from assetcore.documents import Document

        from shop import helpers
        from shop.helpers import LIMITS, Client, gently, scale, tidy

        if TYPE_CHECKING:
            from collections.abc import Sequence

        PROMPT = "Summarise in three words."
        WEIGHTS = {"title": 2, "body": 1}
        double = scale(2)
        client = Client("https://example.org", timeout=5)


        class Page(Document):
            """A page of the shop."""

            rank: int = 0

            def headline(self) -> str:
                return self.text.split("\\n")[0]


        class Summary(Document):
            """What remains of it."""

            score: float = 0.0


        async def observed():
            yield Page("a", text="A\\nb")


        pages = source("pages", Page, observed)


        @asset(tags=["nightly"])
        @gently(times=2)
        async def summaries(page: Page = each(pages), factor: int = 3) -> Summary:
            """Summaries of all pages."""
            # the words count double
            words: list[str] = helpers.words(page.text)
            score = double(len(words)) * WEIGHTS["title"] + math.sqrt(factor) + LIMITS.size
            answer = client.ask(PROMPT + page.headline())
            return Summary(page.name, text=tidy(answer) + str(TALLY.count(words)), score=score)


        class Tally:
            def count(self, words) -> int:
                return len(set(words))


        TALLY = Tally()


        @asset
        async def unrelated(page: Page = each(pages)) -> Summary:
            return Summary(page.name, text="1")
    ''',
    "helpers.py": '''
        import functools
        import logging
        import re
        from dataclasses import dataclass

        log = logging.getLogger("shop")
        WORD = re.compile(r"[a-z]+")


        @dataclass
        class Limits:
            size: int = 5


        LIMITS = Limits(size=7)


        def words(text: str) -> list[str]:
            """All words."""
            log.info("splitting")
            return WORD.findall(text)


        def tidy(text):
            return text.strip()


        def scale(factor):
            step = factor + 0

            def apply(value):
                return value * step

            return apply


        def gently(times):
            def decorate(function):
                @functools.wraps(function)
                async def attempt(*args, **kwargs):
                    for _ in range(times):
                        try:
                            return await function(*args, **kwargs)
                        except OSError:
                            continue
                    raise OSError

                return attempt

            return decorate


        class Client:
            """Asks."""

            def __init__(self, address, timeout):
                self.address = address
                self.timeout = timeout

            def ask(self, question):
                return question.upper()
    ''',
}


class Edit(NamedTuple):
    what: str
    file: str
    old: str
    new: str


# The 25 edits of the specification: 11 that cannot change a result, 14 that do.
NEUTRAL = [
    Edit("comment", "assets.py", "# the words count double", "# each word counts double,\n    # for now"),
    Edit("docstring", "assets.py", '"""Summaries of all pages."""', '"""One summary for each page."""'),
    Edit("docstring of a helper", "helpers.py", '"""All words."""', '"""Every word in it."""'),
    Edit("formatting", "assets.py", "tidy(answer) + str(TALLY.count(words)), score=score",
         "(\n        tidy( answer )  +  str(TALLY.count(words))\n    ),\n    score = score,\n"),
    Edit("type hints", "assets.py", "factor: int = 3) -> Summary", "factor: 'int | float' = 3) -> 'Summary'"),
    Edit("type hint of a local variable", "assets.py", "words: list[str] =", "words ="),
    Edit("type hints of a helper", "helpers.py", "def words(text: str) -> list[str]:", "def words(text):"),
    Edit("moved inside the file", "helpers.py", "def tidy(text):\n    return text.strip()\n\n\n", ""),
    Edit("unused helper", "helpers.py", "def tidy(", "def unused(x):\n    return x + 1\n\n\ndef tidy("),
    Edit("unrelated sibling", "assets.py", 'text="1"', 'text="2"'),
    Edit("imports in another order", "assets.py", "import math\nimport re\n", "import re\nimport math\n"),
]  # fmt: skip
CHANGING = [
    Edit("body", "assets.py", "score = double(len(words))", "score = 1 + double(len(words))"),
    Edit("default", "assets.py", "factor: int = 3", "factor: int = 4"),
    Edit("decorator argument", "assets.py", "@gently(times=2)", "@gently(times=3)"),
    Edit("decorator body", "helpers.py", "except OSError:", "except ValueError:"),
    Edit("helper called as module.name", "helpers.py", "return WORD.findall(text)", "return WORD.findall(text)[1:]"),
    Edit("a helper's global regex", "helpers.py", '[a-z]+"', '[a-z0-9]+"'),
    Edit("string constant", "assets.py", "in three words.", "in four words."),
    Edit("dict value", "assets.py", '"title": 2', '"title": 3'),
    Edit("a dataclass instance's value", "helpers.py", "Limits(size=7)", "Limits(size=8)"),
    Edit("method of a class", "assets.py", "return len(set(words))", "return len(words)"),
    Edit("argument of an opaque client", "assets.py", "timeout=5", "timeout=6"),
    Edit("method of that client's class", "helpers.py", "question.upper()", "question.lower()"),
    Edit("a closure's value", "assets.py", "double = scale(2)", "double = scale(4)"),
    Edit("the closure factory's body", "helpers.py", "step = factor + 0", "step = factor + 1"),
]
# Further ones of both kinds.
NEUTRAL_TOO = [
    Edit("import as", "assets.py", "from shop import helpers\n", "import shop.helpers as h\n"),
    Edit("module.name for an imported name", "assets.py", "text=tidy(answer)", "text=helpers.tidy(answer)"),
    Edit("renamed import", "assets.py", "scale, tidy\n", "scale, tidy as neat\n"),
    Edit("moved to another line", "assets.py", "class Page(", "UNUSED = 1\n\n\nclass Page("),
    Edit("docstring of a class", "helpers.py", '"""Asks."""', '"""Asks politely."""'),
    Edit("docstring of a document class", "assets.py", '"""A page of the shop."""', '"""One page."""'),
    Edit("no docstring", "assets.py", '"""Summaries of all pages."""\n    ', ""),
    Edit("type hint of a method", "assets.py", "def headline(self) -> str:", "def headline(self):"),
    Edit("tags", "assets.py", '@asset(tags=["nightly"])', '@asset(tags=["hourly"], owner="me", description="other")'),
    Edit("options", "assets.py", '@asset(tags=["nightly"])', "@asset"),
    Edit("string written in two pieces", "assets.py", '"Summarise in three words."', '"Summarise in " \'three words.\''),
    Edit("number written in hexadecimal", "assets.py", "timeout=5", "timeout=0x5"),
    Edit("another logger", "helpers.py", 'getLogger("shop")', "getLogger(__name__)"),
    Edit("pass and bare strings", "assets.py", "score = double", '"nothing"\n    pass\n    score = double'),
    Edit("imports for type checkers", "assets.py", "import Sequence", "import Mapping"),
    Edit("renamed function", "assets.py", "async def summaries(", "async def overviews("),
    Edit("the source's own function", "assets.py", 'yield Page("a", text="A', 'yield Page("a", text="B'),
    Edit("import inside the function", "assets.py", "    words: list[str] =", "    import math\n    words: list[str] ="),
    Edit("unused import", "assets.py", "import re\n", "import re, json\n"),
    Edit("__main__ block", "helpers.py", "def tidy(", 'if __name__ == "__main__":\n    print(1)\n\n\ndef tidy('),
]
CHANGING_TOO = [
    Edit("sync for async", "assets.py", "async def summaries", "def summaries"),
    Edit("document class's field", "assets.py", "score: float = 0.0", "score: float = 1.0"),
    Edit("method of the argument's class", "assets.py", 'split("\\n")[0]', 'split("\\n")[-1]'),
    Edit("method of a dataclass", "helpers.py", "size: int = 5", "size: int = 5\n\n    def double(self):\n        return 2"),
    Edit("decorator removed", "assets.py", "@gently(times=2)\n", ""),
    Edit("inner function of the factory", "helpers.py", "return value * step", "return value + step"),
    Edit("regex flags", "helpers.py", '[a-z]+")', '[a-z]+", re.I)'),
    Edit("int for float", "assets.py", '"body": 1', '"body": 1.0'),
    Edit("bool for int", "assets.py", '"body": 1', '"body": True'),
    Edit("order of a dict", "assets.py", '{"title": 2, "body": 1}', '{"body": 1, "title": 2}'),
    Edit("address", "assets.py", "https://example.org", "https://example.com"),
    Edit("wrapped later", "helpers.py", "class Client:", "tidy = gently(2)(tidy)\n\n\nclass Client:"),
    Edit("patched function", "assets.py", "double = scale(2)", "helpers.words = lambda text: []\ndouble = scale(2)"),
    Edit("patched method", "assets.py", "TALLY = Tally()", "TALLY = Tally()\nTally.count = lambda self, words: 0"),
    Edit("patched class attribute", "assets.py", "TALLY = Tally()", "TALLY = Tally()\nTally.limit = 4"),
    Edit("client changed afterwards", "assets.py", "\n\nclass Page", "\nclient.timeout = 9\n\nclass Page"),
    Edit("negative zero", "assets.py", '"body": 1', '"body": -0.0'),
    Edit("another helper of the same name", "assets.py", "import LIMITS, Client, gently, scale, tidy",
         "import LIMITS, Client, gently, scale\nfrom shop.helpers import words as tidy"),
]  # fmt: skip


class Shop:
    """Writes versions of a package, each into a folder of its own, and loads them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.versions = itertools.count()

    def load(self, files: dict[str, str], module: str = "assets") -> ModuleType:
        home = self.folder / f"version {next(self.versions)}"
        for name, content in files.items():
            path = home / PACKAGE / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(content), encoding="utf-8")
        forget()
        sys.path.insert(0, str(home))
        importlib.invalidate_caches()
        try:
            return importlib.import_module(f"{PACKAGE}.{module}")
        finally:
            sys.path.remove(str(home))

    def fingerprint(self, files: dict[str, str], name: str = "summaries", **options: Any) -> Fingerprint:
        module = self.load(files)
        found = getattr(module, name)
        return fingerprint(found, user_packages={PACKAGE}, **options)

    def of(self, source: str, name: str = "made", **options: Any) -> Fingerprint:
        """The fingerprint of a function in a package of one module."""
        return self.fingerprint({"__init__.py": "", "assets.py": source}, name, **options)


def forget() -> None:
    for name in [n for n in sys.modules if n.partition(".")[0] == PACKAGE]:
        del sys.modules[name]


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield Shop(tmp_path)
    forget()


def edited(edit: Edit) -> dict[str, str]:
    files = {name: textwrap.dedent(content) for name, content in BASE.items()}
    assert edit.old in files[edit.file], edit.what
    files[edit.file] = files[edit.file].replace(edit.old, edit.new, 1)
    if edit.what == "moved inside the file":
        files["helpers.py"] += "\n\n" + edit.old
    if edit.what == "renamed import":
        files["assets.py"] = files["assets.py"].replace("text=tidy(", "text=neat(")
    if edit.what == "import as":
        files["assets.py"] = files["assets.py"].replace("helpers.words", "h.words")
    return files


def both(shop: Shop, edit: Edit) -> tuple[bytes, bytes]:
    name = "overviews" if edit.what == "renamed function" else "summaries"
    before, after = shop.load(BASE), None
    first = fingerprint(before.summaries, user_packages={PACKAGE}, types=[before.Page])
    after = shop.load(edited(edit))
    return first.digest, fingerprint(getattr(after, name), user_packages={PACKAGE}, types=[after.Page]).digest


@pytest.mark.parametrize("edit", [*NEUTRAL, *NEUTRAL_TOO], ids=lambda edit: edit.what)
def test_an_edit_that_cannot_change_a_result_keeps_the_fingerprint(shop: Shop, edit: Edit) -> None:
    """Comments, docstrings, formatting, type hints, places and names of things do not count."""
    before, after = both(shop, edit)
    assert before == after


@pytest.mark.parametrize("edit", [*CHANGING, *CHANGING_TOO], ids=lambda edit: edit.what)
def test_an_edit_that_changes_a_result_changes_the_fingerprint(shop: Shop, edit: Edit) -> None:
    """Whatever the function can reach in the user's own code counts."""
    before, after = both(shop, edit)
    assert before != after


def test_the_table_has_the_25_kinds_of_edits() -> None:
    """11 that cannot change a result and 14 that do."""
    assert (len(NEUTRAL), len(CHANGING)) == (11, 14)
