"""The handbook: what its assets make of the Python that runs the tests, called as the plain functions that they are."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import pydoc_data.topics
import re
import subprocess
import sys
import textwrap
import tokenize
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pytest

from assetcore.documents import Document
from assetcore.search import SearchIndex, search
from assetcore.sources import observe
from projects.handbook import assets, code, prose
from projects.handbook.assets import (
    Chunk,
    Cutting,
    Definition,
    Mentions,
    Module,
    Page,
    Topic,
    chunks,
    clean,
    coverage,
    definitions,
    index,
    inventory,
    module_summaries,
    read_topics,
    references,
    search_definitions,
    search_topics,
)

ROOT = Path(__file__).parents[2]

SOURCE = '''"""Support for cats.

At length.
"""
import sys

class Cat(Animal, metaclass=Meta):
    """A cat."""

    @property
    def name(self) -> str:
        """Its name."""
        def hidden(): ...
        return hidden()

    @name.setter
    def name(self, value): ...

    class Paw: ...

if sys.platform == "win32":
    def purr(volume: int = 3, *, loud=False): "Purr."
else:
    async def purr(volume, /, *args, **kwargs) -> None: "Purr, elsewhere."

try:
    import fast
except ImportError:
    def _slow(): ...
'''


def frame(documents: list[Document]) -> pl.DataFrame:
    """The documents as `collect` hands them over in a frame."""
    return pl.DataFrame(
        [{"name": d.name, "media_type": d.media_type, "text": d.text, **d.field_values()} for d in documents]
    )


@dataclass(frozen=True)
class Handbook:
    """Everything made once, of the Python that runs the tests."""

    clean: list[Page]
    definitions: dict[str, list[Definition]]
    inventory: pl.DataFrame
    coverage: pl.DataFrame
    references: list[Mentions]
    summaries: list[Page]
    index: list[Page]
    topics: SearchIndex
    code: SearchIndex


@pytest.fixture(scope="module")
def handbook() -> Handbook:
    return asyncio.run(make())


async def make() -> Handbook:
    pages = [await clean(topic) async for topic in read_topics()]
    modules = [Module(name=path, content=content) for path, content in sources()]
    defined = {module.name: definitions(module) for module in modules}
    everything = frame([definition for found in defined.values() for definition in found])
    inventoried = await inventory(everything.lazy())
    covered = await coverage(inventoried)
    mentioned = [await references(page, inventoried) for page in pages]
    summaries = [await module_summaries(module, defined[module.name]) for module in modules]
    return Handbook(
        clean=pages,
        definitions=defined,
        inventory=inventoried,
        coverage=covered,
        references=mentioned,
        summaries=summaries,
        index=await index(pages, mentioned, summaries, covered),
        topics=await search_topics(frame(list(pages))),
        code=await search_definitions(everything),
    )


def sources() -> list[tuple[str, bytes]]:
    left_out = {"test", "tests", "idle_test", "site-packages", "__pycache__"}
    found = []
    for folder, folders, files in os.walk(assets.LIBRARY):
        folders[:] = sorted(set(folders) - left_out)
        paths = [Path(folder, file) for file in sorted(files) if file.endswith(".py")]
        found += [(path.relative_to(assets.LIBRARY).as_posix(), path.read_bytes()) for path in paths]
    return found


# topics


async def test_topics_are_those_that_help_shows() -> None:
    """The dictionary is read from the file as Python itself has it."""
    assert {topic.name: topic.text async for topic in read_topics()} == pydoc_data.topics.topics


@pytest.mark.parametrize("width", [45, 66, 100])
async def test_white_space_in_a_paragraph_means_nothing(width: int) -> None:
    """Wrapping every paragraph of every topic elsewhere, with two spaces between words, gives the same page."""
    for name, text in pydoc_data.topics.topics.items():
        edited = "\n\n\n".join(rewrapped(block, width) for block in text.split("\n\n"))
        assert (await clean(Topic(name=name, text=edited + "  \n"))).text == (
            await clean(Topic(name=name, text=text))
        ).text


def rewrapped(block: str, width: int) -> str:
    """The block at another width, if it is a paragraph of prose."""
    lines = prose.normalise(block).strip("\n").split("\n")
    if len(lines) > 1 or not prose.SENTENCE.fullmatch(lines[0]):
        return block
    return textwrap.fill(
        lines[0].replace(" ", "  "), width, initial_indent="  ", subsequent_indent="  ", break_long_words=False
    )


async def test_code_is_kept_as_it_is() -> None:
    """White space that means something is kept: an edit of it changes the page."""
    text = 'The "with" statement\n********************\n\nThis is the\nsame:\n\n   with A() as a:\n       pass\n'
    page = await clean(Topic(name="with", text=text))
    assert page.title == "The with statement"
    assert page.text == '# The "with" statement\n\nThis is the same:\n\n    with A() as a:\n        pass\n'
    assert (await clean(Topic(name="with", text=text.replace("       pass", "         pass")))).text != page.text


async def test_terms_stand_above_their_meaning() -> None:
    """A definition list becomes two paragraphs; a hyphen at the end of a line does not tear its word apart."""
    page = await clean(Topic(name="x", text="Tuples\n   The items of a tuple are built-\n   in or not.\n"))
    assert page.text == "Tuples\n\nThe items of a tuple are built-in or not.\n"


async def test_chunks_lose_nothing_and_are_named_by_their_place(handbook: Handbook) -> None:
    """All words of a topic are in its chunks, in order; the first chunk of `with` is `with-0`."""
    for page in handbook.clean:
        made = await chunks(Cutting(), page)
        assert [chunk.name for chunk in made] == [f"{page.name}-{i}" for i in range(len(made))]
        assert [chunk.ordinal for chunk in made] == list(range(len(made)))
        body = re.sub(r"^#.*$", "", page.text, flags=re.MULTILINE)
        assert " ".join(chunk.text for chunk in made).split() == body.split()


async def test_chunks_know_their_heading_and_keep_to_the_size_that_is_configured() -> None:
    """A chunk stands under one heading, and holds whole paragraphs of at most `size` characters together."""
    page = Page(name="p", text="# One\n\n" + "\n\n".join(["word " * 19] * 4) + "\n\n## Two\n\nEnd.\n", title="One")
    small, large = await chunks(Cutting(size=210), page), await chunks(Cutting(), page)
    assert [chunk.heading for chunk in small] == ["One", "One", "Two"]
    assert [chunk.heading for chunk in large] == ["One", "Two"]
    assert all(len(chunk.text) <= 215 for chunk in small)
    assert isinstance(small[0], Chunk)


# modules


async def test_the_sources_are_what_the_library_holds() -> None:
    """Every module of the standard library outside its tests and the installed packages, and the topics, are observed."""
    assert (await observe(assets.modules, ROOT, None))["name"].to_list() == sorted(path for path, _ in sources())
    assert (await observe(assets.topics, ROOT, None))["name"].to_list() == sorted(pydoc_data.topics.topics)


def test_definitions_of_a_module() -> None:
    """Classes, functions and methods under their dotted names, wherever they stand, with signature and docstring."""
    found = definitions(Module(name="animals/cats.py", text=SOURCE))
    assert [(d.name, d.kind, d.signature, d.headline) for d in found] == [
        ("animals.cats", "module", "animals.cats", "Support for cats."),
        ("animals.cats.Cat", "class", "class Cat(Animal, metaclass=Meta)", "A cat."),
        ("animals.cats.Cat.name", "method", "def name(self) -> str", "Its name."),
        ("animals.cats.Cat.name-2", "method", "def name(self, value)", ""),
        ("animals.cats.Cat.Paw", "class", "class Paw", ""),
        ("animals.cats.purr", "function", "def purr(volume: int=3, *, loud=False)", "Purr."),
        ("animals.cats.purr-2", "function", "async def purr(volume, /, *args, **kwargs) -> None", "Purr, elsewhere."),
        ("animals.cats._slow", "function", "def _slow()", ""),
    ]
    assert found[0].text == "animals.cats\n\nSupport for cats.\n\nAt length."
    assert found[3].text == "def name(self, value)"
    assert {d.module for d in found} == {"animals.cats"}


@pytest.mark.parametrize(
    "edited",
    [
        "\n\n# a comment\n" + SOURCE.replace("import sys", "import os, sys"),
        SOURCE.replace("return hidden()", "return 'Tom'"),
    ],
)
def test_edits_that_change_no_definition_change_nothing(edited: str) -> None:
    """A line more above, a comment or another body leave every definition as it was."""
    assert definitions(
        Module(name="animals/cats.py", text=edited.replace('\n\n# a comment\n"""', '# a comment\n"""'))
    ) == definitions(Module(name="animals/cats.py", text=SOURCE))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"print 'Python 2'\n", "SyntaxError"),
        (b"x = '\xff'\n", "SyntaxError"),
        (b"a\0b", "null bytes"),
        (b"class C:\n", "IndentationError"),
    ],
)
def test_a_module_that_cannot_be_parsed_says_so(content: bytes, reason: str) -> None:
    """It is one definition of kind "unreadable", so that it is seen in the handbook instead of failing the build."""
    (found,) = definitions(Module(name="old/spam.py", content=content))
    assert (found.name, found.kind, found.signature) == ("old.spam", "unreadable", "old.spam")
    assert reason in found.headline


def test_an_empty_module_and_one_in_latin_1() -> None:
    """Nothing in it but itself; and the encoding is the one that the source declares."""
    (empty,) = definitions(Module(name="json/__init__.py", content=b""))
    assert (empty.name, empty.kind, empty.text) == ("json", "module", "json")
    (latin,) = definitions(Module(name="latin.py", content='# coding: latin-1\n"""Café."""\n'.encode("latin-1")))
    assert latin.headline == "Café."


def test_every_definition_of_the_standard_library_has_a_name_of_its_own(handbook: Handbook) -> None:
    """Over ten thousand definitions, no name twice in a module, and all modules can be read by the Python they belong to."""
    counts = {module: len(found) for module, found in handbook.definitions.items()}
    assert sum(counts.values()) > 10_000
    assert len(counts) > 500
    assert all(len({d.name for d in found}) == counts[module] for module, found in handbook.definitions.items())
    assert "unreadable" not in handbook.inventory["kind"].to_list()


async def test_an_edited_docstring_stops_at_the_inventory() -> None:
    """The inventory says what there is, and whether it is documented: not what it says."""
    before, edited, removed = [
        await inventory(frame(list(definitions(Module(name="cats.py", text=text)))).lazy())
        for text in (SOURCE, SOURCE.replace("A cat.", "A very good cat."), SOURCE.replace('"""A cat."""', "..."))
    ]
    assert edited.equals(before)
    assert not removed.equals(before)


# what is made of both


async def test_a_summary_lists_what_is_public() -> None:
    """A page for a module: its docstring, its classes and functions, without methods and what begins with an underscore."""
    module = Module(name="cats.py", text=SOURCE)
    page = await module_summaries(module, definitions(module))
    assert page.title == "Support for cats."
    assert page.text.split("\n") == [
        "# cats", "", "Support for cats.", "", "At length.", "",
        "* `class Cat(Animal, metaclass=Meta)` A cat.",
        "* `class Paw`",
        "* `def purr(volume: int=3, *, loud=False)` Purr.",
        "* `async def purr(volume, /, *args, **kwargs) -> None` Purr, elsewhere.",
    ]  # fmt: skip


async def test_coverage_is_the_documented_share() -> None:
    """Classes, functions and methods count; modules do not."""
    covered = await coverage(
        await inventory(frame(list(definitions(Module(name="animals/cats.py", text=SOURCE)))).lazy())
    )
    assert covered.to_dicts() == [{"package": "animals", "defined": 7, "documented": round(4 / 7, 3)}]


def test_references_name_definitions_that_exist(handbook: Handbook) -> None:
    """A topic refers to what it quotes and the library defines."""
    mentioned = {page.name: page.data for page in handbook.references}
    known = set(handbook.inventory["name"])
    assert all(name in known for names in mentioned.values() for name in names)
    assert "importlib.import_module" in mentioned["import"]
    assert sum(map(bool, mentioned.values())) >= 15


def test_the_index_lists_every_topic_and_every_module(handbook: Handbook) -> None:
    """Once as Markdown, once as JSON, with the same names."""
    markdown, data = handbook.index
    assert (markdown.name, data.name) == ("handbook.md", "handbook.json")
    assert set(data.data["topics"]) == {page.name for page in handbook.clean}
    assert set(data.data["modules"]) == {page.name for page in handbook.summaries}
    assert "* with: The with statement\n" in markdown.text
    assert "* asyncio.tasks: Support for tasks, coroutines and the scheduler.\n" in markdown.text
    assert all(0 <= share <= 1 for share in data.data["documented"].values())
    assert handbook.coverage.height == len(data.data["documented"])


@pytest.mark.parametrize(
    ("query", "first", "expected"),
    [
        ("context manager", 2, {"with", "context-managers"}),
        ("generator", 3, {"yield"}),
        ("slice", 1, {"slicings"}),
        ("slicing", 1, {"slicings"}),
        ("unicode strings", 2, {"strings", "string-methods"}),
        ("format specification", 1, {"formatstrings"}),
        ("exception handling", 4, {"try", "exceptions", "raise"}),
        ("operator precedence", 1, {"operator-summary"}),
        ("list comprehension", 1, {"lists"}),
        ("async for", 1, {"async"}),
        ("metaclass", 2, {"class"}),
        ("python debugger", 1, {"debugger"}),
    ],
)
def test_a_search_returns_the_right_topics_first(
    handbook: Handbook, query: str, first: int, expected: set[str]
) -> None:
    """The topics that a reader of the reference would open stand at the top, before thousands of definitions."""
    hits = search([handbook.topics, handbook.code], query)
    assert expected <= {hit.name for hit in hits[:first]}
    assert all(hit.asset == "clean" for hit in hits[:first])


@pytest.mark.parametrize(
    ("query", "expected"),
    [("OrderedDict", "collections.OrderedDict"), ("contextlib contextmanager", "contextlib.contextmanager")],
)
def test_a_search_for_a_name_finds_its_definition(handbook: Handbook, query: str, expected: str) -> None:
    """A name of the library leads to where it is defined."""
    assert expected in [hit.name for hit in search([handbook.topics, handbook.code], query, 3)]


# the project


def test_another_python_is_named_by_its_home(tmp_path: Path) -> None:
    """PYTHON_HOME may be the home of a Python, or the folder of its library."""
    library = tmp_path / "lib" / "python3.99"
    library.mkdir(parents=True)
    for home in (tmp_path, library):
        program = "from projects.handbook import assets; print(assets.LIBRARY)"
        environment = {**os.environ, "PYTHON_HOME": str(home)}
        found = subprocess.run(
            [sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
        )
        assert found.stdout.strip() == str(library)


def test_all_declarations_are_right() -> None:
    """Every asset's annotations fit what it depends on."""
    declared = [value for value in vars(assets).values() if hasattr(value, "resolve") and hasattr(value, "place")]
    assert len(declared) == 12
    assert {asset.name for asset in declared if asset.resolve().dependencies} == {asset.name for asset in declared} - {
        "topics",
        "modules",
    }


def test_the_example_stays_short() -> None:
    """It is under 200 lines of code, and what needs models under 90 more: it is what newcomers read first."""
    folder = ROOT / "projects" / "handbook"
    with_models = {folder / "retrieval.py", folder / "evaluation.py"}
    assert sum(code_lines(path) for path in set(folder.glob("*.py")) - with_models) < 200
    assert sum(map(code_lines, with_models)) < 90


def code_lines(path: Path) -> int:
    """Lines that hold code: no blank lines, comments and docstrings."""
    silent = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    with path.open("rb") as source:
        tokens = [token for token in tokenize.tokenize(source.readline) if token.type not in silent]
    starts = {token.start[0]: token for token in reversed(tokens)}
    docstrings = {
        line for line, token in starts.items() if token.type == tokenize.STRING and token.string.startswith('"""')
    }
    lines = {
        line
        for token in tokens[1:]
        for line in range(token.start[0], token.end[0] + 1)
        if token.start[0] not in docstrings
    }
    return len(lines)


def test_the_plain_script_makes_the_same(handbook: Handbook, tmp_path: Path) -> None:
    """What `make bench` compares with does the same work: its files hold what the assets return."""
    specification = importlib.util.spec_from_file_location(
        "plain_handbook", ROOT / "tests" / "bench" / "plain_handbook.py"
    )
    assert specification is not None
    assert specification.loader is not None
    plain = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(plain)
    plain.build(tmp_path)
    assert {path.stem: path.read_text("utf-8") for path in (tmp_path / "clean").iterdir()} == {
        p.name: p.text for p in handbook.clean
    }
    summaries = {
        path.name.removesuffix(".md"): path.read_text("utf-8") for path in (tmp_path / "module_summaries").iterdir()
    }
    assert summaries == {page.name: page.text for page in handbook.summaries}
    assert json.loads((tmp_path / "index" / "handbook.json").read_text("utf-8")) == handbook.index[1].data
    assert (tmp_path / "index" / "handbook.md").read_text("utf-8") == handbook.index[0].text
    assert (tmp_path / "search_definitions" / "definitions.zip").read_bytes() == handbook.code.content
    assert (tmp_path / "search_topics" / "topics.zip").read_bytes() == handbook.topics.content
    assert pl.read_parquet(tmp_path / "coverage" / "coverage.parquet").equals(handbook.coverage)


def test_helpers_know_nothing_of_assets() -> None:
    """The pure functions import nothing of assetcore: they can be read, tested and reused alone."""
    assert not any("assetcore" in Path(module.__file__ or "").read_text("utf-8") for module in (code, prose))
