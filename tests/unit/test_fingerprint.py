"""Fingerprint: edits that cannot change a result leave it alone, all others do not, and it says what it cannot follow."""

from __future__ import annotations

import ast
import dis
import functools
import importlib
import inspect
import itertools
import linecache
import os
import random
import shutil
import subprocess
import sys
import sysconfig
import textwrap
import time
import types
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assetcore.errors import DeclarationError
from assetcore.fingerprint import Fingerprint, fingerprint
from assetcore.fingerprint.definitions import read
from assetcore.fingerprint.encoding import encode
from assetcore.fingerprint.files import source_file
from assetcore.fingerprint.objects import static_attribute
from assetcore.fingerprint.origins import by_package, distributions
from assetcore.fingerprint.values import Reference, Value, ValueWriter
from tests.unit import fingerprint_golden

PACKAGE = "shop"

BASE = {
    "__init__.py": "",
    "assets.py": '''
        from __future__ import annotations

        import math
        import re
        from typing import TYPE_CHECKING

        from assetcore.declarations import asset, collect, each, source
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
    Edit(
        "string written in two pieces", "assets.py", '"Summarise in three words."', "\"Summarise in \" 'three words.'"
    ),
    Edit("number written in hexadecimal", "assets.py", "timeout=5", "timeout=0x5"),
    Edit("another logger", "helpers.py", 'getLogger("shop")', "getLogger(__name__)"),
    Edit("pass and bare strings", "assets.py", "score = double", '"nothing"\n    pass\n    score = double'),
    Edit("imports for type checkers", "assets.py", "import Sequence", "import Mapping"),
    Edit("renamed function", "assets.py", "async def summaries(", "async def overviews("),
    Edit("the source's own function", "assets.py", 'yield Page("a", text="A', 'yield Page("a", text="B'),
    Edit(
        "import inside the function", "assets.py", "    words: list[str] =", "    import math\n    words: list[str] ="
    ),
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


# What has been seen in trials


DISPATCH = """
import functools
@functools.singledispatch
def show(x): return 0
@show.register
def _(x: int): return 1
"""

FACTORY = """
class Client:
    def __init__(self, address): self.address = address
def asking(client):
    def ask(x): return client.address, x
    return ask
"""

KNOWN = """
known = {}
def register(f): return known.setdefault(f.__name__, f)
class Base:
    known = {}
    def __init_subclass__(cls): Base.known[cls.__name__] = cls
"""

TASKS = """
tasks = {}
class Task:
    def __init__(self, function, times): self.function, self.times = function, times
    def run(self): return [self.function() for _ in range(self.times)]
def task(times):
    def decorate(f):
        tasks[f.__name__] = Task(f, times)
        task.kept.append(Task(f, times))
        return f
    return decorate
task.kept = []
"""

REGISTER = """
def register(f):
    register.items.append((len(register.items), f))
    return f
register.items = []
"""

NAMED = """
def register(name):
    def decorate(f):
        register.known[name] = f
        return f
    return decorate
register.known = {}
def run(name): return register.known[name](1)
"""

ITEM = """
import typing
import pydantic
class Item(pydantic.BaseModel):
    x: int = 1
"""

DISPATCH_METHOD = """
import functools
class K:
    @functools.singledispatchmethod
    def show(self, x): return 0
    @show.register
    def _(self, x: int): return 1
"""

STEPS = """
class Steps:
    def __init__(self): self.known = {}
    def step(self, f):
        self.known[f.__name__] = f
        return f
    def named(self, name): return lambda f: self.known.setdefault(name, f) and None
    def run(self, name, x): return self.known[name](x)
steps = Steps()
"""

CLASS = """
def first(x): return x
class R:
    n = 0
    known = {}
    _subs = list()
    all = {"first": first}
    def __init_subclass__(cls): R._subs.append(cls)
    @classmethod
    def step(cls, f):
        cls.known[f.__name__] = f
        return f
"""

MODEL = """
import pydantic
class M(pydantic.BaseModel):
    _known: dict = pydantic.PrivateAttr(default_factory=dict)
    def step(self, f): self._known[f.__name__] = f
X = M()
"""

PAIRS = {
    "getattr on a module": (
        "from shop import parts\ndef made(name): return getattr(parts, name)(1)",
        "def f(x): return x + 1",
        "def f(x): return x + 2",
    ),
    "module imported by its name in a text": (
        "from importlib import import_module as load\ndef made(): return load(name='shop.parts').f(1)",
        "def f(x): return x + 1",
        "def f(x): return x + 2",
    ),
    "module imported by a constant": (
        "import importlib\nNAME = 'shop.parts'\ndef made(): return importlib.import_module(NAME).f(1)",
        "def f(x): return x + 1",
        "def f(x): return x + 2",
    ),
    "one of the loaded modules": (
        "import sys, shop.parts\ndef made(): return sys.modules['shop.parts'].f(1)",
        "def f(x): return x + 1",
        "def f(x): return x + 2",
    ),
    "one of the loaded modules, by a constant": (
        "import sys, shop.parts\nNAME = 'shop.parts'\ndef made(): return sys.modules.get(NAME).f(1)",
        "def f(x): return x + 1",
        "def f(x): return x + 2",
    ),
    "the module itself": (
        'import sys\nfrom shop.parts import f\ndef made(): return sys.modules[__name__].f(1)',
        "def f(x): return x + 1",
        "def f(x): return x + 2",
    ),
    "one of the globals": (
        "from shop.parts import f\ndef made(): return globals()['f'](1)",
        "def f(x): return x + 1",
        "def f(x): return x + 2",
    ),
    "one of the globals, by a constant": (
        "from shop.parts import f\nNAME = 'f'\ndef made(): return globals().get(NAME)(1)",
        "def f(x): return x + 1",
        "def f(x): return x + 2",
    ),
    "any of the globals": (
        'from shop.parts import f\ndef made(name): return globals()[name](1)',
        "def f(x): return x + 1",
        "def f(x): return x + 2",
    ),
    "variables of a module": (
        "from shop import parts\ndef made(): return vars(parts)['f'](1)",
        "def f(x): return x + 1",
        "def f(x): return x + 2",
    ),
    "dict of a module": (
        "from shop import parts\ndef made(): return parts.__dict__['f'](1)",
        "def f(x): return x + 1",
        "def f(x): return x + 2",
    ),
    "module in a list": (
        "from shop import parts\nMODULES = [parts]\ndef made(): return MODULES[0].f(1)",
        "def f(x): return x + 1",
        "def f(x): return x + 2",
    ),
    "registry filled by decorators": (
        "from shop.parts import registry\ndef made(name): return registry[name](1)",
        "registry = {}\ndef register(f):\n    registry[f.__name__] = f\n    return f\n@register\ndef f(x): return x + 1",
        "registry = {}\ndef register(f):\n    registry[f.__name__] = f\n    return f\n@register\ndef f(x): return x + 2",
    ),
    "registry in an attribute of a function": (
        "from shop.parts import register\ndef made(): return [f(1) for f in register.items]",
        REGISTER + "@register\ndef f(x): return x + 1",
        REGISTER + "@register\ndef f(x): return x + 2",
    ),
    "registry in an attribute of a function, by name": (
        "from shop.parts import run\ndef made(name): return run(name)",
        NAMED + "@register('f')\ndef f(x): return x + 1",
        NAMED + "@register('f')\ndef f(x): return x + 2",
    ),
    "object of a decorator in a registry": (
        "from shop.parts import tasks\ndef made(): return tasks['f'].run()",
        TASKS + "@task(1)\ndef f(): return 1",
        TASKS + "@task(1)\ndef f(): return 2",
    ),
    "argument of a decorator that keeps an object": (
        "from shop.parts import tasks\ndef made(): return tasks['f'].run()",
        TASKS + "@task(1)\ndef f(): return 1",
        TASKS + "@task(2)\ndef f(): return 1",
    ),
    "object of a decorator in an attribute of a function": (
        "from shop.parts import task\ndef made(): return task.kept[0].run()",
        TASKS + "@task(1)\ndef f(): return 1",
        TASKS + "@task(1)\ndef f(): return 2",
    ),
    "order of a registry": (
        "from shop.parts import known\ndef made(): return [f() for f in known.values()]",
        KNOWN + "@register\ndef f(): return 1\n@register\ndef g(): return 2",
        KNOWN + "@register\ndef g(): return 2\n@register\ndef f(): return 1",
    ),
    "order of a registry of subclasses": (
        "from shop.parts import Base\ndef made(): return list(Base.known)",
        KNOWN + "class F(Base): ...\nclass G(Base): ...",
        KNOWN + "class G(Base): ...\nclass F(Base): ...",
    ),
    "order of a registry in an attribute of a function": (
        "from shop.parts import run\ndef made(): return list(run('f'))",
        NAMED + "@register('f')\ndef f(x): return 1\n@register('g')\ndef g(x): return 2",
        NAMED + "@register('g')\ndef g(x): return 2\n@register('f')\ndef f(x): return 1",
    ),
    "order of what is added to a dict": (
        "from shop.parts import known\ndef made(): return list(known)",
        KNOWN + "known['f'] = 1\nknown['g'] = 2",
        KNOWN + "known['g'] = 2\nknown['f'] = 1",
    ),
    "order of what a dict is updated with": (
        "from shop.parts import known\ndef made(): return list(known)",
        KNOWN + "known.update(f=1, g=2)",
        KNOWN + "known.update(g=2, f=1)",
    ),
    "function handed to the method of an object": (
        "from shop.parts import steps\ndef made(x): return steps.run('f', x)",
        STEPS + "@steps.step\ndef f(x): return x + 1",
        STEPS + "@steps.step\ndef f(x): return x + 2",
    ),
    "function that a method of an object keeps for itself": (
        "from shop.parts import steps\ndef made(x): return steps.run('f', x)",
        STEPS + "if True:\n    @steps.named('f')\n    def f(x): return x + 1",
        STEPS + "if True:\n    @steps.named('f')\n    def f(x): return x + 2",
    ),
    "name under which an object has a function": (
        "from shop.parts import steps\ndef made(x): return steps.run('f', x)",
        STEPS + "@steps.named('f')\ndef f(x): return x + 1\n@steps.named('g')\ndef g(x): return x + 2",
        STEPS + "@steps.named('g')\ndef f(x): return x + 1\n@steps.named('f')\ndef g(x): return x + 2",
    ),
    "class handed to the method of an object": (
        "from shop.parts import steps\ndef made(x): return steps.run('F', x)",
        STEPS + "class E:\n    x = 1\n@steps.step\nclass F(E): ...",
        STEPS + "class E:\n    x = 2\n@steps.step\nclass F(E): ...",
    ),
    "command of a third-party application": (
        "from shop.parts import app\ndef made(): return app(['f'])",
        "import click\n@click.group()\ndef app(): ...\n@app.command()\ndef f(): return 1",
        "import click\n@click.group()\ndef app(): ...\n@app.command()\ndef f(): return 2",
    ),
    "registry in a class": (
        "from shop.parts import R\ndef made(): return R.known['f'](1)",
        CLASS + "@R.step\ndef f(x): return x + 1",
        CLASS + "@R.step\ndef f(x): return x + 2",
    ),
    "registry of subclasses": (
        "from shop.parts import R\ndef made(): return R._subs[0].x",
        CLASS + "class F(R):\n    x = 1",
        CLASS + "class F(R):\n    x = 2",
    ),
    "registry in a class that has members at first": (
        "from shop.parts import R\ndef made(): return R.all['f'](1)",
        CLASS + "def f(x): return x + 1\nR.all['f'] = f",
        CLASS + "def f(x): return x + 2\nR.all['f'] = f",
    ),
    "registry in a pydantic model": (
        "from shop.parts import M\ndef made(): return M.known",
        "import pydantic, typing\nclass M(pydantic.BaseModel):\n    known: typing.ClassVar[dict] = {}\nM.known['a'] = 1",
        "import pydantic, typing\nclass M(pydantic.BaseModel):\n    known: typing.ClassVar[dict] = {}\nM.known['a'] = 2",
    ),
    "data set in a class": (
        "from shop.parts import R\ndef made(): return R.a",
        CLASS + "R.a = [1]",
        CLASS + "R.a = [2]",
    ),
    "container in a class for a plain value": (
        "from shop.parts import R\ndef made(): return R.n",
        CLASS + "R.n = [1]",
        CLASS + "R.n = [2]",
    ),
    "setattr on a class": (
        "from shop.parts import R\ndef made(): return R.a",
        CLASS + "for n in 'ab':\n    setattr(R, n, [1])",
        CLASS + "for n in 'ab':\n    setattr(R, n, [2])",
    ),
    "attribute of a class that a function makes": (
        "from shop.parts import C\ndef made(): return C.k",
        "def make(n):\n    class C:\n        k = n\n    return C\nC = make(1)",
        "def make(n):\n    class C:\n        k = n\n    return C\nC = make(2)",
    ),
    "default in a class that a function makes": (
        "from shop.parts import C\ndef made(): return C().k()",
        "def make(n):\n    class C:\n        def k(self, n=n): return n\n    return C\nC = make(1)",
        "def make(n):\n    class C:\n        def k(self, n=n): return n\n    return C\nC = make(2)",
    ),
    "body of a function that makes a class": (
        "from shop.parts import C\ndef made(): return C().k()",
        "def make(n):\n    m = max(n, 5)\n    class C:\n        def k(self): return m\n    return C\nC = make(7)",
        "def make(n):\n    m = max(n, 6)\n    class C:\n        def k(self): return m\n    return C\nC = make(7)",
    ),
    "argument that a dataclass keeps": (
        "from shop.parts import X\ndef made(): return X.b",
        "import dataclasses as d\n@d.dataclass\nclass C:\n    a: d.InitVar[int]\n    def __post_init__(self, a): self.b = a\nX = C(1)",
        "import dataclasses as d\n@d.dataclass\nclass C:\n    a: d.InitVar[int]\n    def __post_init__(self, a): self.b = a\nX = C(2)",
    ),
    "private attribute of a pydantic model": (
        "from shop.parts import X\ndef made(): return X._b",
        "import pydantic\nclass C(pydantic.BaseModel):\n    _b: int = 1\nX = C()\nX._b = 2",
        "import pydantic\nclass C(pydantic.BaseModel):\n    _b: int = 1\nX = C()\nX._b = 3",
    ),
    "private registry of a pydantic model": (
        "from shop.parts import X\ndef made(): return X._known",
        MODEL + "@X.step\ndef f(x): return x + 1",
        MODEL + "@X.step\ndef f(x): return x + 2",
    ),
    "attribute of a text": (
        "from shop.parts import X\ndef made(): return X.t",
        "class C(str): ...\nX = C('a')\nX.t = 1",
        "class C(str): ...\nX = C('a')\nX.t = 2",
    ),
    "attribute of a dict": (
        "from shop.parts import X\ndef made(): return X.t",
        "class C(dict): ...\nX = C(a=1)\nX.t = 1",
        "class C(dict): ...\nX = C(a=1)\nX.t = 2",
    ),
    "attribute of a function": (
        "from shop.parts import f\ndef made(): return f()",
        "def f(): return f.table\nf.table = {'a': [1]}",
        "def f(): return f.table\nf.table = {'a': [2]}",
    ),
    "attribute of a function, filled": (
        "from shop.parts import f\ndef made(): return f()",
        "N = 1\ndef f(): return f.table\nf.table = []\nfor n in 'a': f.table.append(N)",
        "N = 2\ndef f(): return f.table\nf.table = []\nfor n in 'a': f.table.append(N)",
    ),
    "attribute of the function itself": (
        "from shop.parts import N\ndef made(): return made.n\nsetattr(made, 'n', N)",
        "N = [1]",
        "N = [2]",
    ),
    "defaults set by hand": (
        "from shop.parts import f\ndef made(): return f()",
        "def f(x=1): return x\nf.__defaults__ = (2,)",
        "def f(x=1): return x\nf.__defaults__ = (3,)",
    ),
    "dataclass made under another name": (
        "from shop.parts import Q\ndef made(): return Q()",
        "import dataclasses\nQ = dataclasses.make_dataclass('M', [('a', int, 1)])",
        "import dataclasses\nQ = dataclasses.make_dataclass('M', [('a', int, 2)])",
    ),
    "pydantic model made under another name": (
        "from shop.parts import Q\ndef made(): return Q()",
        "import pydantic\nQ = pydantic.create_model('M', a=(int, 1))",
        "import pydantic\nQ = pydantic.create_model('M', a=(int, 2))",
    ),
    "object handed to a function that changes it": (
        "from shop.parts import X\ndef made(): return X.v",
        "class T: ...\ndef setup(o, v): o.v = v\nX = T()\nsetup(X, 1)",
        "class T: ...\ndef setup(o, v): o.v = v\nX = T()\nsetup(X, 2)",
    ),
    "function that changes an object": (
        "from shop.parts import X\ndef made(): return X.v",
        "class T: ...\ndef setup(o): o.v = 1\nX = T()\nif True: setup(X)",
        "class T: ...\ndef setup(o): o.v = 2\nX = T()\nif True: setup(X)",
    ),
    "import inside a function": (
        "def made():\n    from shop.parts import f\n    return f(1)",
        "def f(x): return x + 1",
        "def f(x): return x + 2",
    ),
    "module imported inside a function": (
        "def made():\n    import shop.parts\n    return shop.parts.f(1)",
        "def f(x): return x + 1",
        "def f(x): return x + 2",
    ),
    "import inside a nested function": (
        "def made():\n    def inner():\n        from .parts import f as g\n        return g(1)\n    return inner()",
        "def f(x): return x + 1",
        "def f(x): return x + 2",
    ),
    "import_module with a literal": (
        "import importlib\ndef made(): return importlib.import_module('shop.parts').f(1)",
        "def f(x): return x + 1",
        "def f(x): return x + 2",
    ),
    "lambdas in a list": (
        "from shop.parts import STEPS\ndef made(): return STEPS[1](1)",
        "STEPS = [lambda x: x + 1, lambda x: x + 2]",
        "STEPS = [lambda x: x + 1, lambda x: x + 3]",
    ),
    "lambdas in a list, swapped": (
        "from shop.parts import STEPS\ndef made(): return STEPS[1](1)",
        "STEPS = [lambda x: x + 1, lambda x: x + 2]",
        "STEPS = [lambda x: x + 2, lambda x: x + 1]",
    ),
    "default of a lambda": (
        "from shop.parts import STEPS\ndef made(): return STEPS[1](1)",
        "STEPS = [lambda x, i=i: x + i for i in range(3)]",
        "STEPS = [lambda x, i=i: x + i for i in range(1, 4)]",
    ),
    "two products of one factory, swapped": (
        "from shop.parts import double, triple\ndef made(): return double(1) - triple(1)",
        "def by(n):\n    def f(x): return x * n\n    return f\ndouble, triple = by(2), by(3)",
        "def by(n):\n    def f(x): return x * n\n    return f\ndouble, triple = by(3), by(2)",
    ),
    "object in the closure of a factory's product": (
        "from shop.parts import ask\ndef made(): return ask(1)",
        FACTORY + "ask = asking(Client('a'))",
        FACTORY + "ask = asking(Client('b'))",
    ),
    "imports, swapped": (
        "from shop.parts import f, g\ndef made(): return f(1) - g(1)",
        "def a(x): return x + 1\ndef b(x): return x + 2\nf, g = a, b",
        "def a(x): return x + 1\ndef b(x): return x + 2\nf, g = b, a",
    ),
    "partial": (
        "from shop.parts import f\ndef made(): return f()",
        "from functools import partial\ndef g(x, y): return x + y\nf = partial(g, 1, y=2)",
        "from functools import partial\ndef g(x, y): return x + y\nf = partial(g, 1, y=3)",
    ),
    "function of a partial": (
        "from shop.parts import f\ndef made(): return f()",
        "from functools import partial\ndef g(x, y): return x + y\nf = partial(g, 1, y=2)",
        "from functools import partial\ndef g(x, y): return x - y\nf = partial(g, 1, y=2)",
    ),
    "bound method": (
        "from shop.parts import ask\ndef made(): return ask(1)",
        "class C:\n    def ask(self, x): return x + 1\nask = C().ask",
        "class C:\n    def ask(self, x): return x + 2\nask = C().ask",
    ),
    "callable instance": (
        "from shop.parts import ask\ndef made(): return ask(1)",
        "class C:\n    def __call__(self, x): return x + 1\nask = C()",
        "class C:\n    def __call__(self, x): return x + 2\nask = C()",
    ),
    "implementation of a single dispatch": (
        "from shop.parts import show\ndef made(x): return show(x)",
        DISPATCH + "@show.register\ndef _(x: str): return 2",
        DISPATCH + "@show.register\ndef _(x: str): return 3",
    ),
    "type of a single dispatch": (
        "from shop.parts import show\ndef made(x): return show(x)",
        "import functools\n@functools.singledispatch\ndef show(x): return 0\n@show.register\ndef _(x: int): return 1",
        "import functools\n@functools.singledispatch\ndef show(x): return 0\n@show.register\ndef _(x: float): return 1",
    ),
    "implementation of a single dispatch method, by a later statement": (
        "from shop.parts import K\ndef made(x): return K().show(x)",
        DISPATCH_METHOD + "@K.show.register\ndef _(self, x: str): return 2",
        DISPATCH_METHOD + "@K.show.register\ndef _(self, x: str): return 3",
    ),
    "type of a single dispatch method, by a later statement": (
        "from shop.parts import K\ndef made(x): return K().show(x)",
        DISPATCH_METHOD + "K.show.register(str, lambda self, x: 2)",
        DISPATCH_METHOD + "K.show.register(bytes, lambda self, x: 2)",
    ),
    "cached function": (
        "from shop.parts import f\ndef made(): return f(1)",
        "from functools import lru_cache\n@lru_cache\ndef f(x): return x + 1",
        "from functools import lru_cache\n@lru_cache\ndef f(x): return x + 2",
    ),
    "function cached afterwards": (
        "from shop.parts import g\ndef made(): return g(1)",
        "from functools import lru_cache\ndef f(x): return x + 1\ng = lru_cache(f)",
        "from functools import lru_cache\ndef f(x): return x + 2\ng = lru_cache(f)",
    ),
    "decorator that hides the function": (
        "from shop.parts import f\ndef made(): return f(1)",
        "def d(g):\n    def w(*a): return g(*a)\n    return w\n@d\ndef f(x): return x + 1",
        "def d(g):\n    def w(*a): return g(*a)\n    return w\n@d\ndef f(x): return x + 2",
    ),
    "decorator that makes an object": (
        "from shop.parts import f\ndef made(): return f.run(1)",
        "class Task:\n    def __init__(self, g): self.g = g\n    def run(self, x): return self.g(x)\n@Task\ndef f(x): return x + 1",
        "class Task:\n    def __init__(self, g): self.g = g\n    def run(self, x): return self.g(x)\n@Task\ndef f(x): return x + 2",
    ),
    "enum": (
        "from shop.parts import Color\ndef made(): return Color.RED.value",
        "import enum\nclass Color(enum.Enum):\n    RED = 1",
        "import enum\nclass Color(enum.Enum):\n    RED = 2",
    ),
    "enum's class behind a member": (
        "from shop.parts import RED\ndef made(): return RED.label()",
        "import enum\nclass Color(enum.Enum):\n    RED = 1\n    def label(self): return 'r'\nRED = Color.RED",
        "import enum\nclass Color(enum.Enum):\n    RED = 1\n    def label(self): return 'R'\nRED = Color.RED",
    ),
    "base class": (
        "from shop.parts import B\ndef made(): return B().f()",
        "class A:\n    def f(self): return 1\nclass B(A): ...",
        "class A:\n    def f(self): return 2\nclass B(A): ...",
    ),
    "metaclass": (
        "from shop.parts import B\ndef made(): return B.f()",
        "class M(type):\n    def f(cls): return 1\nclass B(metaclass=M): ...",
        "class M(type):\n    def f(cls): return 2\nclass B(metaclass=M): ...",
    ),
    "named tuple": (
        "from shop.parts import P\ndef made(): return P(1, 2)",
        "from collections import namedtuple\nP = namedtuple('P', 'x y')",
        "from collections import namedtuple\nP = namedtuple('P', 'y x')",
    ),
    "mutual recursion": (
        "from shop.parts import even\ndef made(): return even(4)",
        "def even(n): return n == 0 or odd(n - 1)\ndef odd(n): return n != 0 and even(n - 1)",
        "def even(n): return n == 0 or odd(n - 1)\ndef odd(n): return n != 1 and even(n - 1)",
    ),
    "constant behind a star import": (
        "from shop.parts import *\ndef made(): return LIMIT",
        "LIMIT = 1",
        "LIMIT = 2",
    ),
    "constant from an environment that differs": (
        "from shop.parts import KEY\ndef made(): return KEY",
        "import os\nKEY = os.environ.get('KEY', 'a')",
        "import os\nKEY = os.environ.get('KEY', 'b')",
    ),
    "prompt handed to third-party code": (
        "import pydantic\nfrom shop.parts import find\ndef made(): return pydantic.validate_call(find)",
        'def find(x: int):\n    """Find it."""',
        'def find(x: int):\n    """Find it quickly."""',
    ),
    "docstring that the code reads": (
        "from shop.parts import find\ndef made(): return find.__doc__",
        'def find(x: int):\n    """Find it."""',
        'def find(x: int):\n    """Find it quickly."""',
    ),
    "annotations that the code reads": (
        "import inspect\nfrom shop.parts import find\ndef made(): return inspect.signature(find)",
        "def find(x: int): ...",
        "def find(x: str): ...",
    ),
    "docstring of a pydantic model": (
        "from shop.parts import Answer\ndef made(): return Answer()",
        'import pydantic\nclass Answer(pydantic.BaseModel):\n    """The answer."""',
        'import pydantic\nclass Answer(pydantic.BaseModel):\n    """The short answer."""',
    ),
    "docstring under a third-party decorator": (
        "from shop.parts import find\ndef made(): return find(1)",
        'import pydantic\n@pydantic.validate_call\ndef find(x: int):\n    """Find it."""',
        'import pydantic\n@pydantic.validate_call\ndef find(x: int):\n    """Find it quickly."""',
    ),
    "annotation under a third-party decorator": (
        "from shop.parts import find\ndef made(): return find(1)",
        "import pydantic\n@pydantic.validate_call\ndef find(x: int): return x",
        "import pydantic\n@pydantic.validate_call\ndef find(x: str): return x",
    ),
    "annotation of a dataclass": (
        "from shop.parts import A\ndef made(): return A(1)",
        "from dataclasses import dataclass\n@dataclass\nclass A:\n    x: int",
        "from dataclasses import dataclass\n@dataclass\nclass A:\n    x: str",
    ),
    "model in the quoted annotation of a model": (
        "from shop.parts import Answer\ndef made(): return Answer.model_json_schema()",
        'import pydantic\nclass Answer(pydantic.BaseModel):\n    items: list["Item | None"]\n'
        "class Item(pydantic.BaseModel):\n    x: int = 1",
        'import pydantic\nclass Answer(pydantic.BaseModel):\n    items: list["Item | None"]\n'
        "class Item(pydantic.BaseModel):\n    x: int = 2",
    ),
    "model in quotes within quotes, annotated": (
        "from __future__ import annotations\nimport typing\nimport pydantic\nfrom shop.parts import Item\n"
        "class Answer(pydantic.BaseModel):\n    items: typing.Annotated['dict[str, \\'Item\\']', pydantic.Field(title='Item')]\n"
        "def made(): return Answer",
        'import pydantic\nclass Item(pydantic.BaseModel):\n    """One."""',
        'import pydantic\nclass Item(pydantic.BaseModel):\n    """One of them."""',
    ),
    "type in quotes within a named type": (
        "import pydantic\nfrom shop.parts import Items\ndef made(): return pydantic.TypeAdapter(Items)",
        "import pydantic\nItems = list['Item']\nclass Item(pydantic.BaseModel):\n    x: int = 1",
        "import pydantic\nItems = list['Item']\nclass Item(pydantic.BaseModel):\n    x: int = 2",
    ),
    "type in quotes within the named type of a field": (
        "import pydantic, typing\nfrom shop.parts import *\nclass A(pydantic.BaseModel):\n    x: 'Items'\ndef made(): return A",
        "import pydantic, typing\nItems = typing.Annotated[typing.Optional['Item'], pydantic.Field(title='i')]\n"
        "class Item(pydantic.BaseModel):\n    x: int = 1",
        "import pydantic, typing\nItems = typing.Annotated[typing.Optional['Item'], pydantic.Field(title='i')]\n"
        "class Item(pydantic.BaseModel):\n    x: int = 2",
    ),
    "named type that is all in quotes": (
        "from shop.parts import Items\ndef made(): return Items",
        "import typing\nclass Item:\n    x: int = 1\nItems: typing.TypeAlias = 'list[Item]'",
        "import typing\nclass Item:\n    x: int = 2\nItems: typing.TypeAlias = 'list[Item]'",
    ),
    "type in quotes in the base of a class": (
        "from shop.parts import Items\ndef made(): return Items",
        ITEM + "class Items(pydantic.RootModel[list['Item']]): ...",
        ITEM.replace("1", "2") + "class Items(pydantic.RootModel[list['Item']]): ...",
    ),
    "type in quotes in a generic class": (
        "import pydantic\nfrom shop.parts import *\ndef made(): return pydantic.RootModel['Item']",
        ITEM,
        ITEM.replace("1", "2"),
    ),
    "type in quotes in a generic class of the project": (
        "from shop.parts import *\nclass Items(Page['Item']): ...\ndef made(): return Items",
        ITEM + "T = typing.TypeVar('T')\nclass Page(pydantic.BaseModel, typing.Generic[T]):\n    items: list[T]",
        ITEM.replace("1", "2")
        + "T = typing.TypeVar('T')\nclass Page(pydantic.BaseModel, typing.Generic[T]):\n    items: list[T]",
    ),
    "type in quotes in an adapter": (
        "import pydantic\nfrom shop.parts import *\nADAPTER = pydantic.TypeAdapter(list['Item'])\ndef made(): return ADAPTER",
        ITEM,
        ITEM.replace("1", "2"),
    ),
    "type in quotes that binds a type variable": (
        "from shop.parts import T\ndef made(): return T",
        "import typing\nT = typing.TypeVar('T', bound='Item')\n" + ITEM,
        "import typing\nT = typing.TypeVar('T', bound='Item')\n" + ITEM.replace("1", "2"),
    ),
    "type of a type variable": (
        "from shop.parts import T\ndef made(): return T",
        ITEM + "T = typing.TypeVar('T', Item, int)",
        ITEM.replace("1", "2") + "T = typing.TypeVar('T', Item, int)",
    ),
    "type behind a new type": (
        "from shop.parts import T\ndef made(): return T",
        ITEM + "T = typing.NewType('T', Item)",
        ITEM.replace("1", "2") + "T = typing.NewType('T', Item)",
    ),
    "type behind an alias": (
        "from shop.parts import T\ndef made(): return T",
        "from typing_extensions import TypeAliasType\nT = TypeAliasType('T', list[int])",
        "from typing_extensions import TypeAliasType\nT = TypeAliasType('T', list[str])",
    ),
    "type in quotes in a model that a call makes": (
        "from shop.parts import M\ndef made(): return M",
        "import pydantic\nM = pydantic.create_model('M', item=('Item | None', None))\n" + ITEM,
        "import pydantic\nM = pydantic.create_model('M', item=('Item | None', None))\n" + ITEM.replace("1", "2"),
    ),
    "type in quotes in a named tuple that a call makes": (
        "from shop.parts import M\ndef made(): return M",
        "import typing\nM = typing.NamedTuple('M', [('item', 'Item')])\n" + ITEM,
        "import typing\nM = typing.NamedTuple('M', [('item', 'Item')])\n" + ITEM.replace("1", "2"),
    ),
    "type in quotes in a typed dict that a call makes": (
        "from shop.parts import M\ndef made(): return M",
        "import typing\nM = typing.TypedDict('M', {'item': 'Item'})\n" + ITEM,
        "import typing\nM = typing.TypedDict('M', {'item': 'Item'})\n" + ITEM.replace("1", "2"),
    ),
    "quoted annotation under a third-party decorator": (
        "import pydantic\nfrom shop.parts import Item\n@pydantic.validate_call\ndef made(x: 'Item'): return x",
        "import pydantic\nclass Item(pydantic.BaseModel):\n    x: int = 1",
        "import pydantic\nclass Item(pydantic.BaseModel):\n    x: int = 2",
    ),
    "redefined function": (
        "from shop.parts import f\ndef made(): return f(1)",
        "def f(x): return x + 1\ndef f(x): return x + 2",
        "def f(x): return x + 1\ndef f(x): return x + 3",
    ),
    "closure variable with the function's own name": (
        "from shop.parts import outer\nmade = outer(1)",
        "def outer(made):\n    def inner(): return made\n    return inner",
        "def outer(made):\n    def inner(): return -made\n    return inner",
    ),
    "own fingerprint": (
        "from shop.parts import model\ndef made(): return model.run()",
        "class Model:\n    def __code_fingerprint__(self): return '1'\nmodel = Model()",
        "class Model:\n    def __code_fingerprint__(self): return '2'\nmodel = Model()",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", PAIRS, ids=str)
def test_what_is_reached_in_a_roundabout_way_counts(shop: Shop, case: str) -> None:
    """Dispatch, registries, patches, factories and dynamic names do not hide an edit; the same code twice is the same."""
    module, before, after = PAIRS[case]

    def of(parts: str) -> Fingerprint:
        return shop.fingerprint({"__init__.py": "", "assets.py": module, "parts.py": parts}, "made")

    first = of(before)
    assert first.digest == of(before).digest
    assert first.digest != of(after).digest


LIMITS_ELSEWHERE = (
    "class O:\n    def __init__(self, n): self.n = n\nclass X:\n    v, o = 0, None\n    def m(self): return 0\n"
)
OF_PARTS = "from shop import more, parts\ndef made(): return "

ELSEWHERE_IN_THE_PROJECT = {
    "decorated by an object": (
        OF_PARTS + "parts.steps.run('f', 1)",
        STEPS,
        "from shop.parts import steps\n@steps.step\ndef f(x): return {}",
    ),
    "decorated by a module's object": (
        OF_PARTS + "parts.steps.run('f', 1)",
        STEPS,
        "import shop.parts as p\nif True:\n    @p.steps.named('f')\n    def f(x): return {}",
    ),
    "added by a method": (
        OF_PARTS + "parts.steps.run('f', 1)",
        STEPS,
        "import shop.parts\nshop.parts.steps.step(lambda x: {})",
    ),
    "handed to a function": (
        OF_PARTS + "parts.X.v",
        "class T: ...\nX = T()",
        "from shop import parts\ndef setup(o, v): o.v = v\nsetup(parts.X, {})",
    ),
    "attribute of an object": (OF_PARTS + "parts.X.v", "class T: ...\nX = T()", "from shop.parts import *\nX.v = {}"),
    "attribute of a function": (OF_PARTS + "parts.f()", "def f(): return f.v", "from shop.parts import f\nf.v = {}"),
    "attribute of a class": (OF_PARTS + "parts.X.v", LIMITS_ELSEWHERE, "from shop.parts import X\nX.v = {}"),
    "private attribute of a class": (
        OF_PARTS + "parts.X()._v",
        LIMITS_ELSEWHERE,
        "from shop.parts import X\nX._v = {}",
    ),
    "object in a class": (
        OF_PARTS + "parts.X.o.n",
        LIMITS_ELSEWHERE,
        "from shop import parts\nparts.X.o = parts.O({})",
    ),
    "setattr of an object in a class": (
        OF_PARTS + "parts.X.o.n",
        LIMITS_ELSEWHERE,
        "from shop import parts\nsetattr(parts.X, 'o', parts.O({}))",
    ),
    "object in a module": (
        OF_PARTS + "parts.o.n",
        LIMITS_ELSEWHERE + "o = O(1)",
        "from shop import parts\nparts.o = parts.O({})",
    ),
    "method on the line of the one that it replaces": (
        OF_PARTS + "parts.X().m()",
        LIMITS_ELSEWHERE,
        "from shop.parts import X\n\n\n\ndef m(self): return {}\nX.m = m",
    ),
    "property for a property": (
        OF_PARTS + "parts.X().p",
        "class X:\n    @property\n    def p(self): return 0",
        "from shop.parts import X\nX.p = property(lambda self: {})",
    ),
}


@pytest.mark.parametrize("case", ELSEWHERE_IN_THE_PROJECT, ids=str)
def test_what_other_modules_do_to_an_object_counts(shop: Shop, case: str) -> None:
    """It is imported by a module that sets an attribute of it, calls it, or decorates with it."""
    module, parts, more = ELSEWHERE_IN_THE_PROJECT[case]

    def of(value: int, unrelated: str = "") -> Fingerprint:
        files = {"assets.py": module, "parts.py": parts, "more.py": more.format(value) + unrelated}
        return shop.fingerprint({"__init__.py": "", **files}, "made")

    assert of(1).digest == of(1, "\ndef other(): return 1\nother.x = 1").digest
    assert of(1).digest != of(2).digest


def test_an_object_in_a_class_goes_by_the_statement_that_sets_it(shop: Shop) -> None:
    """Also where the class and the statement stand in one module."""
    source = LIMITS_ELSEWHERE + "X.o = O(1)\nX.other = O(2)\ndef made(): return X.o"
    assert not shop.of(source).notes
    assert shop.of(source).digest != shop.of(source.replace("O(1)", "O(3)")).digest
    assert shop.of(source).digest != shop.of(source.replace("O(2)", "O(3)")).digest


def test_the_clock_in_a_class_by_another_module_does_not_count(shop: Shop) -> None:
    """What differs by moment goes by the statement, wherever that stands."""

    def of(more: str) -> bytes:
        files = {"assets.py": OF_PARTS + "parts.X.v", "parts.py": LIMITS_ELSEWHERE, "more.py": more}
        return shop.fingerprint({"__init__.py": "", **files}, "made").digest

    more = "import time\nfrom shop.parts import X\nX.v = time.time()"
    assert of(more) == of(more)
    assert of(more) != of(more + " + 1")


def test_what_a_program_does_to_an_object_is_its_own_affair(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """The module that a program was started with is another one in every program: a script and a command find the same."""
    files = {
        "__init__.py": "",
        "assets.py": "from shop.parts import steps\ndef made(): return steps",
        "parts.py": STEPS,
    }
    before = shop.fingerprint(files, "made").digest
    script = shop.load({**files, "script.py": "from shop.parts import steps\nsteps.step(print)"}, "script")
    made = importlib.import_module("shop.assets").made
    assert fingerprint(made, user_packages={PACKAGE}).digest != before
    del sys.modules["shop.script"]
    monkeypatch.setitem(sys.modules, "__main__", script)
    assert fingerprint(made, user_packages={PACKAGE}).digest == before


TEXTS = """
import typing
import pydantic
from shop.parts import remark, word
class A(pydantic.BaseModel):
    x: typing.Literal["word"]
    y: typing.Annotated[int, "remark", pydantic.Field(description="remark")]
def made(): return A
"""

PACKAGES = {
    "module of a package": "from shop import inner\ndef made(name): return getattr(inner, name).f(1)",
    "module of a package that the function imports": "def made(name):\n    from shop import inner\n    return getattr(inner, name).f(1)",
    "modules that a loop finds": (
        "import importlib, pkgutil\nfrom shop import inner\n"
        "FOUND = {m.name: importlib.import_module(m.name) for m in pkgutil.iter_modules(inner.__path__, 'shop.inner.')}\n"
        "def made(name): return FOUND[name].f(1)"
    ),
}


@pytest.mark.parametrize("case", PACKAGES, ids=str)
def test_the_modules_of_a_package_that_is_used_as_a_value_count(shop: Shop, case: str) -> None:
    """As far as it imports them; of a package that is only gone through, those that are named."""

    def of(source: str, more: str) -> bytes:
        files = {"assets.py": source, "inner/__init__.py": "from shop.inner import more", "inner/more.py": more}
        return shop.fingerprint({"__init__.py": "", **files}, "made").digest

    function = "def f(x): return x"
    assert of(PACKAGES[case], function) != of(PACKAGES[case], f"{function} + 1")
    named = "def made():\n    import shop.inner.more\n    return shop.inner.__name__"
    assert of(named, function) == of(named, f"{function} + 1")


def test_what_else_of_a_package_is_loaded_does_not_count(shop: Shop) -> None:
    """It is another matter in every program."""
    files = {"inner/__init__.py": "from . import more", "inner/more.py": "", "inner/other.py": ""}
    source = "from shop import inner\ndef made(name): return getattr(inner, name)"
    before, after = (
        {"__init__.py": "", **files, "assets.py": source + more} for more in ("", "\nimport shop.inner.other")
    )
    assert shop.fingerprint(before, "made").digest == shop.fingerprint(after, "made").digest


NOT_COUNTED = {
    "moved to another module": (
        {"assets.py": "from shop.parts import f\ndef made(): return f(1)", "parts.py": "LIMIT = 2\ndef f(x): return x + LIMIT"},
        {"assets.py": "from shop.inner.more import f\ndef made(): return f(1)", "parts.py": "LIMIT = 2",
         "inner/__init__.py": "", "inner/more.py": "from shop.parts import LIMIT as MOST\ndef f(x): return x + MOST"},
    ),
    "moved into the asset's module": (
        {"assets.py": "from shop import parts\ndef made(): return parts.f(1)", "parts.py": "def f(x): return x"},
        {"assets.py": "def f(x): return x\ndef made(): return f(1)"},
    ),
    "third-party import": (
        {"assets.py": "import polars as pl\ndef made(): return pl.col('x')"},
        {"assets.py": "from polars import col\ndef made(): return col('x')"},
    ),
    "unused function of the same module": (
        {"assets.py": "from shop import parts\ndef made(): return parts.f(1)", "parts.py": "def f(x): return x"},
        {"assets.py": "from shop import parts\ndef made(): return parts.f(1)", "parts.py": "def g(): ...\ndef f(x): return x"},
    ),
    "folder of the code": (
        {"assets.py": "from pathlib import Path\nHERE = Path(__file__).parent\nDATA = HERE / 'x'\ndef made(): return DATA"},
        {"assets.py": "from pathlib import Path\n\nHERE = Path(__file__).parent\nDATA = HERE / 'x'\ndef made(): return DATA"},
    ),
    "memory address": (
        {"assets.py": "import threading\nLOCK = threading.Lock()\nNONE = object()\ndef made(x=NONE): return LOCK"},
        {"assets.py": "import threading\nLOCK = threading.Lock()\nNONE = object()\n\ndef made(x=NONE): return LOCK"},
    ),
    "indentation of a docstring that counts": (
        {"assets.py": 'import pydantic\n@pydantic.validate_call\ndef made():\n    """A.\n\n    B."""'},
        {"assets.py": 'import pydantic\nif True:\n  @pydantic.validate_call\n  def made():\n      """A.\n\n      B."""'},
    ),
    "quotes around the annotation of a field": (
        {"assets.py": "from shop.parts import A\nclass B:\n    x: dict[str, A]\ndef made(): return B", "parts.py": "class A: ..."},
        {"assets.py": "from shop.parts import A\nclass B:\n    x: dict[str, 'A']\ndef made(): return B", "parts.py": "class A: ..."},
    ),
    "what has the name of a literal or of a remark": (
        {"assets.py": TEXTS, "parts.py": "word, remark = 1, 2"}, {"assets.py": TEXTS, "parts.py": "word, remark = 3, 4"},
    ),
    "what has the name of a key": (
        {"assets.py": "D = {'Item': 'a'}\nX = D['Item']\nclass Item:\n    x = 1\ndef made(): return X"},
        {"assets.py": "D = {'Item': 'a'}\nX = D['Item']\nclass Item:\n    x = 2\ndef made(): return X"},
    ),
    "type in quotes in a cast": (
        {"assets.py": "import typing\nclass Item:\n    x = 1\ndef made(x): return typing.cast(list['Item'], x)"},
        {"assets.py": "import typing\nclass Item:\n    x = 2\ndef made(x): return typing.cast(list['Item'], x)"},
    ),
    "what has the name of a member of an enum": (
        {"assets.py": "import enum\nclass E(enum.Enum):\n    Item = 1\nclass Item:\n    x = 1\ndef made(): return E['Item']"},
        {"assets.py": "import enum\nclass E(enum.Enum):\n    Item = 1\nclass Item:\n    x = 2\ndef made(): return E['Item']"},
    ),
    "folder of the code in a class": (
        {"assets.py": "from pathlib import Path\nclass R:\n    n = 0\nR.here = Path(__file__)\ndef made(): return R.here"},
        {"assets.py": "from pathlib import Path\n\nclass R:\n    n = 0\nR.here = Path(__file__)\ndef made(): return R.here"},
    ),
    "folder of the code in a class that a function makes": (
        {"assets.py": "def make(n):\n    class C:\n        k = [__file__]\n    return C\nC = make(1)\ndef made(): return C.k"},
        {"assets.py": "def make(n):\n\n    class C:\n        k = [__file__]\n    return C\nC = make(1)\ndef made(): return C.k"},
    ),
    "docstring and cache of a function": (
        {"assets.py": "import functools\n@functools.cache\ndef f(): return 1\ndef made(): return f()"},
        {"assets.py": "import functools\n@functools.cache\ndef f(): return 1\ndef made(): return f()\n"
                      "f.cache_clear()\nmade.__doc__ = 'Made.'"},
    ),
    "object that is printed": (
        {"assets.py": "import threading\nX = threading.Lock()\ndef made(): return X"},
        {"assets.py": "import threading\nX = threading.Lock()\nprint(X)\ndef made(): return X"},
    ),
    "what else has the decorator of a helper": (
        {"assets.py": STEPS + "@steps.step\ndef f(x): return x\n@steps.step\ndef g(x): return 1\ndef made(): return f(1)"},
        {"assets.py": STEPS + "@steps.step\ndef f(x): return x\n@steps.step\ndef g(x): return 2\ndef made(): return f(1)"},
    ),
    "another asset under the decorator of an object": (
        {"assets.py": STEPS + "from assetcore.declarations import asset\n@steps.step\n@asset\ndef other() -> int: return 1\n"
                      "def made(): return steps"},
        {"assets.py": STEPS + "from assetcore.declarations import asset\n@steps.step\n@asset\ndef other() -> int: return 2\n"
                      "def made(): return steps"},
    ),
    "what else the module has that is looked up": (
        {"assets.py": "import sys\ndef f(): ...\ndef made(): return sys.modules[__name__].f, globals()['f']\ndef other(): return 1"},
        {"assets.py": "import sys\ndef f(): ...\ndef made(): return sys.modules[__name__].f, globals()['f']\ndef other(): return 2"},
    ),
    "what else the module has where a global is set": (
        {"assets.py": "def made(name): globals()[name] = 1\ndef other(): return 1"},
        {"assets.py": "def made(name): globals()[name] = 1\ndef other(): return 2"},
    ),
    "another asset's body": (
        {"assets.py": "from assetcore.declarations import asset\n@asset\ndef other() -> int: return 1\ndef made(): return other()"},
        {"assets.py": "from assetcore.declarations import asset\n@asset\ndef other() -> int: return 2\ndef made(): return other()"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", NOT_COUNTED, ids=str)
def test_what_cannot_change_a_result_does_not_count(shop: Shop, case: str) -> None:
    """Where a definition stands, how it is imported and where the process keeps it changes nothing."""
    before, after = ({"__init__.py": "", **files} for files in NOT_COUNTED[case])
    assert shop.fingerprint(before, "made").digest == shop.fingerprint(after, "made").digest


HERE = "from pathlib import Path\nROOT = Path(__file__).parent\n"
ELSEWHERE = {
    "folder by a helper": HERE + "def here(name): return ROOT / name\nX = here('a')",
    "folder by a helper of a helper": HERE
    + "def root(): return ROOT\ndef here(name): return str(root() / name)\nX = [here('a')]",
    "folder in a default of a dataclass": HERE
    + "import dataclasses\n@dataclasses.dataclass\nclass C:\n    p: Path = ROOT\nX = C()",
    "folder in a base's constructor": HERE
    + "import dataclasses\n@dataclasses.dataclass\nclass B:\n    p: Path = None\n"
    "    def __post_init__(self): self.p = ROOT\nclass C(B): ...\nX = C()",
    "folder in a default of a pydantic model": HERE
    + "import pydantic\nclass C(pydantic.BaseModel):\n    p: Path = ROOT\nX = C()",
    "folder by a class method": HERE + "class C:\n    @classmethod\n    def here(cls): return ROOT\nX = C.here()",
    "folder by the loaded modules": "import sys\nX = sys.modules[__name__].__file__",
    "clock by a helper": "import time\ndef now(): return time.time()\nX = now()",
    "clock by a partial": "import time, functools\ndef now(_): return time.time()\nlater = functools.partial(now, 1)\nX = later()",
    "clock by an object that is called": "import time\nclass C:\n    def __call__(self): return time.time()\nnow = C()\nX = now()",
    "identity": "X = id(object())",
    "folder in what a class has read": HERE
    + "class C:\n    a = str(ROOT) + (ROOT / 'assets.py').read_text()[:2]\nX = C",
    "folder in what was read": HERE + "X = [str(ROOT), (ROOT / 'assets.py').read_text()[:2]]",
}


@pytest.mark.parametrize("case", ELSEWHERE, ids=str)
def test_what_differs_by_machine_or_moment_does_not_count(shop: Shop, case: str) -> None:
    """A global that helpers or classes of the user make of the clock or of the folder of the code goes by what makes it."""
    source = f"{ELSEWHERE[case]}\ndef made(): return X"
    first = shop.of(source)
    assert first.digest == shop.of(source).digest
    assert first.digest != shop.of(source.replace("X = ", "X = 1, ")).digest


READ_BESIDE_THE_CODE = {
    "by a helper": HERE + "def text(name): return (ROOT / name).read_text()\nX = text('prompt.md')",
    "by its path": HERE + "X = (ROOT / 'prompt.md').read_text()",
    "by its name": "import os\nX = {'a': open(os.path.join(os.path.dirname(os.path.abspath(__file__)), 'prompt.md')).read()}",
    "by a class": HERE + "class X:\n    prompt: str = (ROOT / 'prompt.md').read_text()",
    "by a statement": HERE + "with open(ROOT / 'prompt.md') as file:\n    X = file.read()",
    "and written into another text": HERE + "TEXT = (ROOT / 'prompt.md').read_text()\nX = f'Please: {TEXT}'",
}


def test_the_order_in_which_a_folder_is_listed_does_not_count(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is another one on every machine: what is read in it goes by what makes it; in a dict, or sorted, it counts."""
    listing = Path.glob

    def of(made: str, *, backwards: bool, text: str = "A") -> bytes:
        monkeypatch.setattr(Path, "glob", lambda self, pattern: sorted(listing(self, pattern), reverse=backwards))
        files = {"__init__.py": "", "assets.py": f"{HERE}X = {made}\ndef made(): return X", "a.md": text, "b.md": "B"}
        return shop.fingerprint(files, "made").digest

    kept = "[p.read_text() for p in ROOT.glob('*.md')]"
    assert of(kept, backwards=False) == of(kept, backwards=True)
    for made in [
        "[p.read_text() for p in sorted(ROOT.glob('*.md'))]",
        "{p.name: p.read_text() for p in ROOT.glob('*.md')}",
    ]:
        assert of(made, backwards=False) == of(made, backwards=True)
        assert of(made, backwards=False) != of(made, backwards=False, text="C")


@pytest.mark.parametrize("case", READ_BESIDE_THE_CODE, ids=str)
def test_what_is_read_beside_the_code_counts(shop: Shop, case: str) -> None:
    """What looks for a file by the folder of the code makes of it what does not differ: the value counts, as ever."""
    source = READ_BESIDE_THE_CODE[case] + "\ndef made(): return X"

    def of(prompt: str) -> bytes:
        return shop.fingerprint({"__init__.py": "", "assets.py": source, "prompt.md": prompt}, "made").digest

    assert of("Be short.") == of("Be short.")
    assert of("Be short.") != of("Be brief.")


# What it cannot follow, it says


NOTES = {
    "AC101": "import importlib\ndef made(name): return importlib.import_module(name)",
    "AC102": "from pathlib import Path\ndef made(): return Path('a.txt').read_text()",
    "AC103": "import os\ndef made(): return os.environ['HOME']",
    "AC104": "from datetime import datetime\ndef made(): return datetime.now()",
    "AC105": "import random\ndef made(): return random.choice([1, 2])",
    "AC106": "def made(code): exec(code)",
    "AC108": "class A: ...\ndef made(): return A.__subclasses__()",
    "AC109": "exec('def f(): return 1')\ndef made(): return f()",
    "AC110": "import threading\nglobals()['lock'] = threading.Lock()\ndef made(): return lock",
    "AC111": "count = 0\ndef made():\n    global count\n    count += 1",
    "AC112": "def made(): return missing + 1",
}


@pytest.mark.parametrize("code", NOTES)
def test_a_hole_is_named_with_its_place_and_a_way_out(shop: Shop, code: str) -> None:
    """What can change a result and is not in the code is noted: code, place, what it is, what settles it."""
    notes = shop.of(NOTES[code]).notes
    assert [note.code for note in notes] == [code]
    assert all(note.where and note.what and note.settle for note in notes)
    assert shop.of(NOTES[code], version="1").notes == ()


def test_an_object_in_a_registry_that_no_statement_makes_is_a_hole(shop: Shop) -> None:
    """Its type is all that is known of it."""
    source = "class K:\n    def __init__(self, n): self.n = n\nKNOWN = []\ndef add(k): KNOWN.append(k)\n{}\ndef made(): return KNOWN"
    assert [note.code for note in shop.of(source.format("add(K(1))")).notes] == ["AC110"]
    assert not shop.of(source.format("KNOWN.append(K(1))")).notes


def test_a_hole_in_a_helper_is_named_with_the_helper(shop: Shop) -> None:
    """The place of a note is the definition that has the hole, with its line."""
    found = shop.of("import time\ndef f():\n    return time.time()\ndef made(): return f()")
    (note,) = found.notes
    assert (note.code, note.where) == ("AC104", "shop.assets.f, line 3")


def test_honest_code_has_no_notes(shop: Shop) -> None:
    """The example of the edits is followed without a hole."""
    assert shop.fingerprint(BASE).notes == ()


@pytest.mark.parametrize("base", ["pydantic.RootModel[Part]", "pydantic.RootModel[list[Part]]", "Box[Part]"])
def test_a_generic_model_as_a_base_is_no_hole(shop: Shop, base: str) -> None:
    """The statement of the class names what stands in the brackets, which counts."""
    source = f"""
        import pydantic, typing
        T = typing.TypeVar("T")
        class Box(pydantic.BaseModel, typing.Generic[T]):
            one: T | None = None
        class Part(pydantic.BaseModel):
            a: int = 1
        class X({base}): ...
        Y = {{'one': {base}}}
        def made(): return X
    """
    found, other = shop.of(source), shop.of(source.replace("a: int = 1", "a: int = 2"))
    assert (found.notes, other.notes) == ((), ())
    assert found.digest != other.digest
    assert [hole.code for hole in shop.of(source.replace("return X", "return Y['one']")).notes] == ["AC110"]


def test_what_a_cached_property_keeps_does_not_count(shop: Shop) -> None:
    """Whether somebody has asked already is no difference."""
    source = """
        import dataclasses, functools
        @dataclasses.dataclass
        class C:
            a: int = 1
            @functools.cached_property
            def b(self): return self.a
        X = C()
        def made(): return X.b
    """
    assert shop.of(source).digest == shop.of(source + "\n        X.b").digest


def test_what_a_function_keeps_in_an_attribute_does_not_count(shop: Shop) -> None:
    """Whether it has been called already is no difference."""
    source = "def f(x): return f.known.setdefault(x, x + 1)\nf.known = {}\ndef made(): return f(1)"
    assert shop.of(source).digest == shop.of(source + "\nprint(f(2))").digest


def test_a_graph_of_texts_ends(shop: Shop) -> None:
    """Texts that know their parents and children count by themselves, as ever."""
    source = """
        class Token(tuple):
            def __new__(cls, names, parent=None):
                self = super().__new__(cls, names)
                self.parent, self.inner = parent, set()
                if parent is not None:
                    parent.inner.add(self)
                return self
        ROOT = Token(("a",))
        INNER = [Token(("a", n), ROOT) for n in "bcd"]
        def made(): return INNER
    """
    assert shop.of(source).digest == shop.of(source).digest
    assert shop.of(source).digest != shop.of(source.replace('"bcd"', '"bce"')).digest


def test_a_set_may_hold_what_holds_it(shop: Shop) -> None:
    """A registry in which its members find each other ends."""
    source = """
        import dataclasses
        @dataclasses.dataclass(eq=False)
        class Step:
            name: str
            def __post_init__(self): self.all = ALL
        ALL = set()
        ALL |= {Step("a"), Step("b")}
        def made(): return ALL
    """
    assert shop.of(source).digest == shop.of(source).digest


def test_a_private_attribute_may_hold_its_model(shop: Shop) -> None:
    """What holds itself ends, here too."""
    source = "import pydantic\nclass C(pydantic.BaseModel):\n    _me: object = None\nX = C()\nX._me = [X]\ndef made(): return X"
    assert shop.of(source).digest == shop.of(source).digest


def test_a_class_that_a_function_makes_has_no_undefined_names(shop: Shop) -> None:
    """What its statement takes of the function around it counts by what came of it."""
    source = (
        "def make(n, base):\n    class C(base):\n        k = n\n    return C\nC = make(1, dict)\ndef made(): return C.k"
    )
    assert not shop.of(source).notes


def test_writing_a_seeded_generator_is_no_hole(shop: Shop) -> None:
    """random.Random(42) is the same everywhere."""
    assert shop.of("import random\ndef made(): return random.Random(42).random()").notes == ()


def test_an_environment_variable_does_not_enter_the_fingerprint(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """A constant read from the environment counts by its statement: the same on every machine, and no secret is kept."""
    source = "import os\nTOKEN = os.environ['SHOP_TOKEN']\nHEADERS = {'x': TOKEN}\ndef made(): return HEADERS"
    monkeypatch.setenv("SHOP_TOKEN", "first secret")
    first = shop.of(source)
    monkeypatch.setenv("SHOP_TOKEN", "second secret")
    assert first == shop.of(source)
    assert "secret" not in repr(first)
    assert [note.code for note in first.notes] == ["AC103"]


@pytest.mark.parametrize("made", ["settings.model", "Settings().model", "read()"])
def test_settings_that_the_environment_gives_are_a_hole(shop: Shop, monkeypatch: pytest.MonkeyPatch, made: str) -> None:
    """Their values do not enter the fingerprint, so it is said where the class is that reads them."""
    source = f"""
        import pydantic_settings as ps

        class Base(ps.BaseSettings): ...

        class Settings(Base):
            model: str = "a"

        settings = Settings()

        def read(): return settings.model
        def made(): return {made}
    """
    monkeypatch.setenv("MODEL", "one")
    one = shop.of(source)
    monkeypatch.setenv("MODEL", "two")
    assert shop.of(source).digest == one.digest
    assert [note[:3] for note in one.notes] == [
        ("AC103", "shop.assets.Base, line 4", "an environment variable: pydantic_settings.BaseSettings")
    ]


# The parts


def test_the_parts_are_the_closure_by_name(shop: Shop) -> None:
    """The asset's function is `<asset>`; everything else is named by the module that defines it."""
    found = shop.fingerprint(BASE)
    assert [part.name for part in found.parts] == [
        "<asset>", "shop.assets.PROMPT", "shop.assets.Summary", "shop.assets.TALLY", "shop.assets.Tally", "shop.assets.WEIGHTS",
        "shop.assets.client", "shop.assets.double", "shop.helpers.Client", "shop.helpers.LIMITS", "shop.helpers.Limits",
        "shop.helpers.WORD", "shop.helpers.gently", "shop.helpers.scale", "shop.helpers.tidy", "shop.helpers.words",
    ]  # fmt: skip
    assert {part.name for part in found.parts if part.note == "opaque"} == {"shop.assets.TALLY", "shop.assets.client"}


def test_the_difference_of_two_lists_says_why(shop: Shop) -> None:
    """One edit of a helper changes one part, and its sources show the edit."""
    edit = next(e for e in CHANGING if e.what == "helper called as module.name")
    before = {part.name: part for part in shop.fingerprint(BASE).parts}
    after = {part.name: part for part in shop.fingerprint(edited(edit)).parts}
    (changed,) = {name for name in before if before[name].digest != after[name].digest}
    assert changed == "shop.helpers.words"
    assert before[changed].source == "def words(text):\n    log.info('splitting')\n    return WORD.findall(text)"
    assert after[changed].source.endswith("return WORD.findall(text)[1:]")


def test_the_source_shows_only_what_counts(shop: Shop) -> None:
    """Our decorators, annotations, docstrings and dependencies are not in the source of the asset's function."""
    source = {part.name: part.source for part in shop.fingerprint(BASE).parts}["<asset>"]
    assert source.splitlines()[:2] == ["@gently(times=2)", "async def summaries(page=..., factor=3):"]


def test_a_computed_constant_shows_its_value(shop: Shop) -> None:
    """The statement alone would not show what changed."""
    found = {p.name: p for p in shop.of("LIMIT = sum([1, 2])\ndef made(): return LIMIT").parts}
    assert found["shop.assets.LIMIT"].source == "LIMIT = sum([1, 2])\n# LIMIT = 3"


def test_what_says_that_it_comes_from_nowhere_is_followed(shop: Shop) -> None:
    """Objects that C code makes may name a module without a name; it is nobody's."""
    source = "Made = type('Made', (), {'__module__': '.C'})\nSAID = Made()\ndef made(): return Made, SAID"
    assert shop.of(source).digest != shop.of(source.replace("Made, SAID", "SAID, Made")).digest


def test_a_module_used_as_a_value_is_followed_as_a_whole(shop: Shop) -> None:
    """Any name of it may be asked for, so all of them are parts."""
    files = {"__init__.py": "", "assets.py": PAIRS["getattr on a module"][0], "parts.py": "A = 1\ndef f(x): return x"}
    found = {part.name: part.note for part in shop.fingerprint(files, "made").parts}
    assert found == {"<asset>": "", "shop.parts": "coarse", "shop.parts.A": "", "shop.parts.f": ""}


def test_third_party_packages_are_pinned_apart(shop: Shop) -> None:
    """The distributions that the closure touches are listed with their versions, outside the digest of the code."""
    found = shop.of("import polars as pl, yaml, json\ndef made(): return pl.col(yaml.safe_load('a')), json")
    assert [name for name, _ in found.environment] == ["PyYAML", "polars"]


def test_a_package_that_is_imported_later_is_pinned_too(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose code a package is does not depend on whether it has been imported yet; it is not imported to find out."""
    monkeypatch.delitem(sys.modules, "yaml", raising=False)
    distributions.cache_clear()
    found = shop.of("def made(text):\n    import yaml\n    return yaml.safe_load(text)")
    assert [name for name, _ in found.environment] == ["PyYAML"]
    assert [part.name for part in found.parts] == ["<asset>"]
    assert "yaml" not in sys.modules


def test_a_named_tuple_costs_no_look_at_every_distribution(shop: Shop) -> None:
    """Its constructor names a module that does not exist."""
    source = "from typing import NamedTuple\nclass P(NamedTuple):\n    x: int = 1\ndef made(): return P()"
    before = by_package.cache_info().misses + by_package.cache_info().hits
    assert shop.of(source).digest != shop.of(source.replace("= 1", "= 2")).digest
    assert by_package.cache_info().misses + by_package.cache_info().hits == before


def test_an_asset_contributes_its_key_alone(shop: Shop) -> None:
    """Another asset or source that the function names is not followed."""
    source = """
        class Other:
            __assetcore_key__ = 'other'
            def __init__(self, x): self.x = x
        other = Other(1)
        def made(): return other
    """
    found = shop.of(source)
    assert [part.name for part in found.parts] == ["<asset>"]
    assert found.digest != shop.of(source.replace("'other'", "'another'")).digest
    assert found.digest == shop.of(source.replace("Other(1)", "Other(2)")).digest


def test_dependencies_do_not_count(shop: Shop) -> None:
    """Which upstream an asset reads stands in the recipe, not in the code."""
    source = """
        from assetcore.declarations import asset, collect, each, source
        from assetcore.documents import Document
        class A(Document): ...
        async def observed(): yield A("a", text="a")
        first, second = source("first", A, observed), source("second", A, observed)
        @asset
        def made(a: A = each(first), *, b: list[A] = collect(first)) -> A: return a
    """
    found = shop.of(source)
    assert [part.name for part in found.parts] == ["<asset>"]
    assert (
        found.digest
        == shop.of(source.replace("each(first)", "each(second)").replace("collect(first)", "collect(second)")).digest
    )


def test_the_asset_and_its_function_have_one_fingerprint(shop: Shop) -> None:
    """The asset is unwrapped."""
    module = shop.load(BASE)
    packages = {PACKAGE}
    assert fingerprint(module.unrelated, user_packages=packages) == fingerprint(
        module.unrelated.function, user_packages=packages
    )


def test_a_source_has_no_fingerprint(shop: Shop) -> None:
    """It is observed, not made."""
    module = shop.load(BASE)
    with pytest.raises(DeclarationError, match=r"pages .* is observed"):
        fingerprint(module.pages, user_packages={PACKAGE})


def test_a_version_replaces_the_definition(shop: Shop) -> None:
    """With version= only another version is another function."""
    first, second = "def made(): return 1", "def made(): return 2"
    assert shop.of(first, version="1") == shop.of(second, version="1")
    assert shop.of(first, version="1").digest != shop.of(first, version="2").digest
    assert shop.of(first, version="1").digest != shop.of(first).digest


def test_user_packages_may_be_a_predicate(shop: Shop) -> None:
    """A predicate on a module's name says the same as the list of packages."""
    module = shop.load(BASE)
    named = fingerprint(module.summaries, user_packages={PACKAGE})
    assert named == fingerprint(module.summaries, user_packages=lambda name: name.startswith(PACKAGE))
    assert named == fingerprint(module.summaries, user_packages=())


def test_an_asset_made_by_a_factory_counts_what_it_holds(shop: Shop) -> None:
    """An asset declared inside a function is its own code and what it captures, not the code around it."""
    source = "def make(n):\n    other = 5\n    def made(x): return x * n + 1\n    return made\nmade = make(2)"
    found = shop.of(source)
    assert [part.name for part in found.parts] == ["<asset>"]
    assert found.digest == shop.of(source.replace("other = 5", "other = 6")).digest
    assert found.digest != shop.of(source.replace("make(2)", "make(3)")).digest
    assert found.digest != shop.of(source.replace("n + 1", "n + 2")).digest


def test_a_function_without_source_is_compared_by_its_bytecode() -> None:
    """What exec makes has no source: an edit is still seen, and a note says how to settle it."""

    def made(text: str) -> Fingerprint:
        names: dict[str, Any] = {"__name__": "shop.notebook", "LIMIT": 3}
        exec(text, names)
        return fingerprint(names["made"], user_packages={PACKAGE})

    assert made("def made(): return 1 + LIMIT").digest != made("def made(): return 2 + LIMIT").digest
    assert made("def made(): return 1 + LIMIT").digest == made("def made():\n    return 1 + LIMIT").digest
    (note,) = made("def made(): return 1").notes
    assert note.code == "AC109"
    assert 'version="1"' in note.settle


def test_a_notebook_cell_is_source(monkeypatch: pytest.MonkeyPatch) -> None:
    """Notebooks keep the text of a cell in linecache: it is followed like a file."""

    def made(text: str) -> Fingerprint:
        name = "<cell 1>"
        monkeypatch.setitem(linecache.cache, name, (len(text), None, text.splitlines(keepends=True), name))
        names: dict[str, Any] = {"__name__": "__main__"}
        exec(compile(text, name, "exec"), names)
        return fingerprint(names["made"], user_packages=())

    assert made("def made():\n    return 1 # one\n") == made("\n\ndef made():\n    return 1\n")
    assert made("def made():\n    return 1\n").digest != made("def made():\n    return 2\n").digest


def test_what_holds_itself_ends(shop: Shop) -> None:
    """Containers, closures and classes may be circular."""
    source = """
        LOOP = {'a': 1}
        LOOP['self'] = LOOP
        class A:
            def a(self): return A
        A.again = A
        def f():
            def g(): return g
            return g
        G = f()
        def made(): return LOOP, A, G, made
    """
    assert shop.of(source).digest != shop.of(source.replace("'a': 1", "'a': 2")).digest


def test_syntax_may_nest_deep(shop: Shop) -> None:
    """A sum of two thousand terms is followed, and so is a long chain of elif."""
    total = " + ".join(f"x{i % 7}" for i in range(2000))
    chain = "if x1 == 0: return 0\n" + "".join(f"    elif x1 == {i}: return {i}\n" for i in range(1, 300))
    source = f"def f(x0, x1, x2, x3, x4, x5, x6):\n    {chain}    return {total}\ndef made(): return f(*range(7))"
    assert shop.of(source).digest != shop.of(source.replace("x6 + x0 + x1", "x6 + x1 + x1", 1)).digest


def test_a_strange_object_does_no_harm(shop: Shop) -> None:
    """Objects that answer to every name, or raise, are opaque and not asked further."""
    source = """
        class Any:
            def __getattr__(self, name): return self
            def __call__(self, *a): return self
        class Raises:
            def __getattr__(self, name): raise RuntimeError(name)
            def __eq__(self, other): raise RuntimeError
            __hash__ = None
        ANY, RAISES = Any(), Raises()
        def made(): return ANY.x.y(), RAISES
    """
    assert {p.name: p.note for p in shop.of(source).parts}["shop.assets.RAISES"] == "opaque"


FROM_SETS = """
import collections
import json
import re
SET = {'a', 'bb', 'ccc', 'dddd', 'eeeee'}
def prefixes():
    found = {'f', 'rb'}
    found |= {'x', 'y', 'z'}
    return found
def group(*names): return '(' + '|'.join(names) + ')'
def first(words):
    for word in words:
        return word
class Kinds:
    all = {'k', 'l', 'm', 'n'}
    @staticmethod
    def joined(words): return [f'{w}' for w in words]
joined, listed, starred, shown = '|'.join(SET), list(SET), (*SET, 1), f'{SET}'
PATTERN = re.compile('|'.join(word.upper() for word in SET - {'a'})).match
NUMBERS = {word: number for number, word in enumerate(SET)}
KEPT = []
for word in Kinds.all: KEPT.append(word)
FILLED = {word: 1 for word in SET}
MORE = {}
for word in SET: MORE[word] = 1
def lengths(words):
    found = {}
    for word in words: found[word] = len(word)
    return found
ORDERED = collections.OrderedDict.fromkeys(SET)
OF_DICTS = [*FILLED, ','.join(MORE), list(lengths(SET).items()), tuple({**MORE}), json.dumps(dict.fromkeys(SET)), ORDERED]
def first_function(): ...
def second_function(): ...
def third_function(): ...
FUNCTIONS = {f.__name__: f for f in {first_function, second_function, third_function}}
HELPED = [group(*prefixes()), first(SET), Kinds.joined(words=Kinds.all)]
FURTHER = {'kept': KEPT}
"""


class Meta(type):
    of_meta = 1

    @property
    def shadowed(cls) -> int:
        return 2


class Held(metaclass=Meta):
    plain, shadowed = 3, 4

    def __init__(self) -> None:
        vars(self).update(plain=5, settled=6, own=7)

    @property
    def settled(self) -> int:
        return 8

    def __getattr__(self, name: str) -> str:
        return name


class Slotted(Held):
    __slots__ = ("slot",)


class Proxy:
    """As proxies of web frameworks are, outside of a request."""

    plain = 9

    @property
    def __dict__(self) -> dict[str, object]:  # type: ignore[override]
        raise RuntimeError


OBJECTS = [
    Held,
    Held(),
    Slotted,
    Slotted(),
    Meta,
    len,
    inspect,
    3,
    functools.partial(len),
    Held.settled,
    Proxy,
    Proxy(),
]


@pytest.mark.parametrize("value", OBJECTS)
def test_attributes_are_looked_up_where_they_are_stored(value: object) -> None:
    """As `inspect.getattr_static` does it where classes are as classes are."""
    for name in (
        "plain",
        "shadowed",
        "settled",
        "own",
        "of_meta",
        "slot",
        "none",
        "__init__",
        "__wrapped__",
        "__name__",
        "func",
        "real",
    ):
        assert static_attribute(value, name, "none") is inspect.getattr_static(value, name, "none"), name


STRANGE_CLASSES = {
    "without a hash": "def __eq__(cls, other): return cls is other",
    "that raise": "def __eq__(cls, other): raise ValueError",
    "equal to all others": "def __eq__(cls, other): return True\n    def __hash__(cls): return 1",
}


@pytest.mark.parametrize("case", STRANGE_CLASSES, ids=str)
def test_classes_are_told_by_their_identity(shop: Shop, case: str) -> None:
    """Whatever their metaclass says of them: named, in a constant, as a base, or given to the function."""
    source = f"""
import dataclasses
class M(type):
    {STRANGE_CLASSES[case]}
class K(metaclass=M):
    x = 1
class L(K):
    def y(self): return 2
@dataclasses.dataclass
class D(metaclass=M):
    "Some versions of dataclasses make one, which compares classes."
    z: int = 3
    l: L | None = None
X = [D(), {{"a": K}}]
class C(metaclass=M):
    def __call__(self): return [4]
call = C()
Y = call()
def made(): return K, L, X, Y
"""

    def of(source: str) -> bytes:
        module = shop.load({"__init__.py": "", "assets.py": source})
        return fingerprint(module.made, user_packages={PACKAGE}, types=[module.D, module.L]).digest

    found = [
        of(source),
        of(source),
        *(of(source.replace(old, old.replace(old.strip("]")[-1], "9"))) for old in ("x = 1", "return 2", "= 3", "[4]")),
    ]
    assert found[0] == found[1]
    assert len(set(found)) == 5


@pytest.mark.parametrize("seed", ["0", "1"])
def test_every_process_finds_the_same(shop: Shop, seed: str, tmp_path: Path) -> None:
    """Neither the hash seed nor memory addresses nor the folder of the code enter."""
    files = dict(BASE)
    files["helpers.py"] = textwrap.dedent(BASE["helpers.py"]) + "\n\nNAMES = {'a', 'b', tidy, words, (1, 'x')}\n"
    files["helpers.py"] += "LENGTHS = {name: 1 for name in {'a', 'bb', 'ccc', 'dddd', 'eeeee'}}\n"
    files["sets.py"] = FROM_SETS
    made = "sets.joined, sets.listed, sets.starred, sets.shown, sets.PATTERN, sets.NUMBERS, sets.HELPED, sets.FURTHER"
    made += ", sets.OF_DICTS, sets.FUNCTIONS, sets.MORE"
    files["assets.py"] = "from shop import sets\n" + textwrap.dedent(BASE["assets.py"]).replace(
        "math.sqrt(factor)", f"len([helpers.NAMES, helpers.LENGTHS, {made}])"
    ).replace("from __future__ import annotations", "")
    here = shop.fingerprint(files)
    program = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import shop.assets\nfrom assetcore.fingerprint import fingerprint\n"
        "print(fingerprint(shop.assets.summaries, user_packages={'shop'}).digest.hex())"
    )
    home = str(tmp_path / "version 0")
    done = subprocess.run(
        [sys.executable, "-c", program, home],
        env={"PYTHONHASHSEED": seed},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.strip() == here.digest.hex()


def test_what_is_sorted_of_a_set_counts_by_its_value(shop: Shop) -> None:
    """It is the same in every process, and nothing of how it was made has to be."""
    source = "WORDS = {{'a', 'b'}}\ndef made(): return X\nX = {}"
    for one, other in [
        ("sorted(WORDS)", "sorted(list(WORDS))"),
        ("len(WORDS)", "2"),
        ("sorted({word: 1 for word in WORDS})", "sorted(dict.fromkeys(WORDS))"),
        ("{*WORDS, 'c'}", "WORDS | {'c'}"),
    ]:
        values = [[p for p in shop.of(source.format(made)).parts if p.name == "shop.assets.X"] for made in (one, other)]
        assert [p.digest for p in values[0]] == [p.digest for p in values[1]]
        assert [p.note for p in values[0]] == [""]


def test_what_a_function_does_when_it_is_called_makes_no_constant(shop: Shop) -> None:
    """An object that a decorator made of a function counts by its value, whatever the function does with sets."""
    source = """
        import dataclasses
        @dataclasses.dataclass
        class Task:
            call: object
        @Task
        def task(words): return list(set(words))
        def made(): return task
    """
    assert {p.name: p.note for p in shop.of(source).parts}["shop.assets.task"] == ""


# The same on every Python


def interpreters() -> list[str]:
    """Other versions of Python on this machine: on the path, of pyenv, of uv."""
    homes = [Path.home() / ".pyenv/versions", Path.home() / ".local/share/uv/python"]
    found = {}
    for minor in {11, 12, 13, 14} - {sys.version_info.minor}:
        places = [str(p) for home in homes for p in sorted(home.glob(f"*3.{minor}.*/bin/python3.{minor}"))]
        for candidate in [*places, *filter(None, [shutil.which(f"python3.{minor}")])]:
            runs = subprocess.run([candidate, "-c", ""], capture_output=True, timeout=30, check=False).returncode == 0
            if runs and minor not in found:
                found[minor] = candidate
    return list(found.values())


def test_this_python_agrees_with_the_golden_vectors() -> None:
    """Another encoding is a migration that keeps fresh what was fresh, never an edit."""
    assert fingerprint_golden.disagreements() == []


def test_other_pythons_agree_with_the_golden_vectors() -> None:
    """An upgrade of Python makes nothing stale."""
    found = interpreters()
    if not found:
        pytest.skip("no other version of Python is installed")
    for interpreter in found:
        done = subprocess.run(
            [interpreter, "-I", fingerprint_golden.__file__], capture_output=True, text=True, timeout=60, check=False
        )
        assert (done.stdout, done.stderr) == ("[]", ""), interpreter


# Properties


NAMES = st.sampled_from(["a", "b", "aa"])
LITERALS = st.sampled_from(
    ["1", "True", "1.0", "'1'", "b'1'", "None", "...", "''", "'a'", "-0.0", "0.0", "0", "()", "[]", "1j"]
)


def _compound(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    pairs = st.tuples(inner, inner)
    return st.one_of(
        st.lists(inner, max_size=3).map(lambda xs: f"[{', '.join(xs)}]"),
        st.lists(inner, min_size=1, max_size=3).map(lambda xs: f"({', '.join(xs)},)"),
        st.lists(inner, min_size=1, max_size=3).map(lambda xs: f"f({', '.join(xs)})"),
        st.lists(pairs, max_size=2).map(lambda xs: "{" + ", ".join(f"{k}: {v}" for k, v in xs) + "}"),
        pairs.map(lambda p: f"({p[0]} + {p[1]})"),
        pairs.map(lambda p: f"({p[0]} if {p[1]} else a)"),
        st.tuples(NAMES, inner).map(lambda p: f"f({p[0]}={p[1]})"),
        inner.map(lambda x: f"(lambda a: {x})"),
        inner.map(lambda x: f"({x}).a"),
    )


EXPRESSIONS = st.recursive(NAMES | LITERALS, _compound, max_leaves=5)


@settings(max_examples=300)
@given(EXPRESSIONS, EXPRESSIONS)
def test_two_trees_have_the_same_bytes_only_if_they_are_the_same(first: str, second: str) -> None:
    """The encoding is injective: what nearly collides does not."""
    trees = [ast.parse(source, mode="eval") for source in (first, second)]
    assert (encode(trees[0]) == encode(trees[1])) == (ast.dump(trees[0]) == ast.dump(trees[1]))


SCALAR_VALUES = st.sampled_from(
    [0, 1, True, False, 1.0, 0.0, -0.0, "1", "", b"1", b"", None, ..., 1j, "a", "aa", (), float("nan")]
)
VALUES = st.recursive(
    SCALAR_VALUES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(st.sampled_from(["a", "b", "1", 1]), inner, max_size=2),
    ),
    max_leaves=6,
)


def value(of: Any) -> Value:
    return ValueWriter(lambda value, writer: None, lambda cls: Reference("class", cls.__qualname__)).value(of)


@settings(max_examples=500)
@given(VALUES, VALUES)
def test_two_values_have_the_same_bytes_only_if_they_are_the_same(first: Any, second: Any) -> None:
    """Types, nesting and the order of lists count: `repr` tells exactly these values apart, once dicts are sorted."""
    assert (value(first) == value(second)) == (repr(by_key(first)) == repr(by_key(second)))


def by_key(of: Any) -> Any:
    if isinstance(of, dict):
        return {key: by_key(of[key]) for key in sorted(of, key=repr)}
    return type(of)(map(by_key, of)) if isinstance(of, list | tuple) else of


@settings(max_examples=100)
@given(st.sets(st.one_of(st.integers(), st.text(max_size=2), st.tuples(st.integers(0, 3)))), st.randoms())
def test_a_set_has_no_order(members: set[Any], shuffle: random.Random) -> None:
    """However a set was filled, its bytes are the same."""
    order = list(members)
    shuffle.shuffle(order)
    assert value(set(order)) == value(members)


def modules_of_the_standard_library() -> list[Path]:
    home = Path(sysconfig.get_path("stdlib"))
    names = [
        "textwrap",
        "dataclasses",
        "json/decoder",
        "asyncio/tasks",
        "argparse",
        "ast",
        "typing",
        "contextlib",
        "tempfile",
    ]
    return [home / f"{name}.py" for name in names]


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("def made(a=each(b, '__doc__')): ...", {"docstrings"}),
        ("def made(a=each(b.__doc__)): ...", {"docstrings"}),
        ("def made(a: list[b.__annotations__]): ...", {"annotations"}),
        ("def made(a=each(f'{b:__doc__}')): ...", {"docstrings"}),
        ("def made(a=lambda: __doc__): ...", {"docstrings"}),
        ("def made(a: list[b] = each(c, d.e)): ...", set()),
    ],
)
def test_a_default_or_an_annotation_tells_what_the_code_reads_even_if_it_does_not_count(
    source: str, told: set[str]
) -> None:
    """They are read when they are asked for, unless there is more to know of them than their bytes."""
    assert read(ast.parse(source).body).reads_own_data == told


def test_a_class_that_names_itself_in_quotes_stays_as_it_is_written() -> None:
    """What it refers to is itself, or built in: what was made with it is not made again."""
    written = 'class Node:\n    below: "list[Node] | None"\n    def same(self) -> "Node": ...'
    found = read(ast.parse(written).body)
    annotations = found.scopes[1].annotations
    assert annotations is not None
    assert (found.body.mentions, annotations.read().mentions) == ((), ())
    assert encode(ast.Constant("list[Node] | None")) in found.body.data


def test_a_default_that_reads_a_file_is_said_even_if_it_does_not_count() -> None:
    hazards = read(ast.parse("def made(a=each(b, Path('c').read_text())): ...").body).hazards
    assert [code for code, _, _ in hazards] == ["AC102"]


@pytest.mark.parametrize("path", modules_of_the_standard_library(), ids=lambda path: path.stem)
def test_real_code_does_not_depend_on_its_formatting(path: Path) -> None:
    """Every definition of these modules reads the same after it has been written anew by `ast.unparse`."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            assert read([node]).body.data == read(ast.parse(ast.unparse(node)).body).body.data, node.name


@pytest.mark.parametrize("path", modules_of_the_standard_library(), ids=lambda path: path.stem)
def test_no_global_name_of_real_code_is_missed(path: Path) -> None:
    """Whatever the compiler looks up as a global is a mention: the scopes are Python's."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        compiled = compile(ast.Module([node], []), path.name, "exec", dont_inherit=True)
        (code,) = [c for c in codes(compiled) if c.co_name == node.name]
        found = read([node])
        annotations = [s.annotations.read() for s in found.scopes[1:] if s.annotations is not None]
        sections = [found.body, *annotations, *(d for s in found.scopes[1:] for d in s.decorators)]
        mentioned = {mention.names[0] for section in sections for mention in section.mentions}
        assert looked_up(code) - {"__debug__"} <= mentioned, node.name


def codes(compiled: types.CodeType) -> list[types.CodeType]:
    """What a module compiles; what has type parameters stands in a scope that holds them."""
    inner = [c for c in compiled.co_consts if isinstance(c, types.CodeType)]
    return [one for c in inner for one in (codes(c) if c.co_name.startswith("<generic parameters") else [c])]


def looked_up(code: types.CodeType) -> set[str]:
    inner = [c for c in code.co_consts if isinstance(c, types.CodeType)]
    own = {i.argval for i in dis.get_instructions(code) if i.opname == "LOAD_GLOBAL"}
    return own.union(*map(looked_up, inner))


@settings(max_examples=15)
@given(st.permutations(range(5)))
def test_the_order_of_definitions_does_not_count(order: list[int]) -> None:
    """Definitions may be moved about freely."""
    helpers = [f"def f{i}(x):\n    return x + {i} + (f{(i + 1) % 5}(x) if x else K{i})\n" for i in range(5)]
    constants = [f"K{i} = {i}\n" for i in range(5)]
    name = "<ordered>"

    def made(source: str) -> bytes:
        linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
        variables: dict[str, Any] = {"__name__": "__main__"}
        exec(compile(source, name, "exec"), variables)
        return fingerprint(variables["f0"], user_packages=()).digest

    try:
        assert made("".join(helpers + constants)) == made("".join([constants[i] + helpers[i] for i in order]))
    finally:
        del linecache.cache[name]


# Cost


def test_a_file_is_parsed_once_for_each_content(tmp_path: Path) -> None:
    """A thousand assets of one module cost one parse; touching a file does not cost another."""
    path = tmp_path / "module.py"
    path.write_text("def f(): ...\n")
    first = source_file(str(path))
    assert first is not None
    assert source_file(str(path)) is first
    os.utime(path, ns=(1, 1))
    assert source_file(str(path)) is first
    path.write_text("def g(): ...\n")
    assert source_file(str(path)) is not first


def test_a_closure_of_13_definitions_costs_under_5_ms(shop: Shop) -> None:
    """Once its modules are parsed."""
    helpers = "".join(
        f"def h{i}(x, n=3):\n    total = [LIMIT * h{(i + 1) % 12}(x - k) for k in range(n)]\n    return [total, x]\n"
        for i in range(12)
    )
    module = shop.load({"__init__.py": "", "assets.py": f"LIMIT = 3\n{helpers}def made(x): return h0(x)\n"})
    assert len(fingerprint(module.made, user_packages={PACKAGE}).parts) == 14
    spent = []
    for _ in range(20):
        started = time.process_time()
        fingerprint(module.made, user_packages={PACKAGE})
        spent.append(time.process_time() - started)
    assert min(spent) < 0.005
