"""Loading: where are a user's declarations, and what do they say."""

from __future__ import annotations

import json
import os
import py_compile
import subprocess
import sys
import textwrap
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from assetcore.definition import define
from assetcore.errors import AssetcoreError, DeclarationError, ProjectError, SettingsError, UsageError
from assetcore.fingerprint import Fingerprint
from assetcore.fingerprint.origins import _known, distributions, is_editable
from assetcore.graph import Graph
from assetcore.loading import configuration, find_root, fingerprint_of, load, project_names, user_packages
from assetcore.settings import Settings
from assetcore.staleness import Definition

HEAD = """
from __future__ import annotations
from pydantic import BaseModel, Field
from assetcore import Document, asset, collect, each, folder, source

class Page(Document):
    "A page."

pages = source("pages", Page, folder("data"))
"""
CLEAN = HEAD + "\n@asset\nasync def clean(page: Page = each(pages)) -> Page: return page\n"
Write = Callable[..., Path]


@pytest.fixture(autouse=True)
def nothing_stays_imported() -> Iterator[None]:
    """What a test imports from its folder is forgotten after it, and its folder is no place to import from."""
    path, modules = list(sys.path), set(sys.modules)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if name.partition(".")[0] in ("projects", "books", "shelf", "words", "installed"):
            del sys.modules[name]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write files below a root; `demo/assets.py` means projects/demo/assets.py, whose package is created."""

    def write(files: dict[str, str], root: Path = tmp_path) -> Path:
        for name, body in files.items():
            path = root / ("" if name == "pyproject.toml" or name.startswith("/") else "projects") / name.lstrip("/")
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix == ".py":
                (path.parent / "__init__.py").touch()
            path.write_text(textwrap.dedent(body))
        return root

    return write


def forget_distributions() -> None:
    """What is installed is looked at once in a process; here it changes."""
    for kept in (distributions, is_editable, _known):
        kept.cache_clear()


# -- where projects are --------------------------------------------------------------------------------------------------------


def test_a_root_is_found_from_anywhere_below_it(write: Write) -> None:
    """The nearest folder upwards with projects/, or whose pyproject.toml names some, is the root."""
    root = write({"demo/assets.py": CLEAN, "demo/deep/er/notes.py": ""})
    assert find_root(root) == find_root(root / "projects" / "demo" / "deep" / "er") == root
    inner = root / "inner"
    write({"pyproject.toml": "[tool.assetcore]\nprojects = ['books']\n"}, inner)
    assert find_root(inner) == inner
    (inner / "pyproject.toml").write_text("[tool.other]\n")
    assert find_root(inner) == root


def test_no_root_says_how_to_get_one(tmp_path: Path) -> None:
    """Outside of any project, the error says where it looked and what to do."""
    with pytest.raises(ProjectError, match=r"There is no project here: neither .*[\s\S]*aipctl new project"):
        find_root(tmp_path)


def test_projects_are_packages(write: Write) -> None:
    """Every folder below projects/ with an __init__.py is a project, and each package that pyproject.toml names."""
    root = write({"b/assets.py": CLEAN, "a/assets.py": CLEAN, "notes/readme.txt": ""})
    write({"pyproject.toml": "[tool.assetcore]\nprojects = ['books.kb']\n"})
    assert project_names(root) == ["a", "b", "books.kb"]


def test_an_unknown_project_is_told_what_there_is(write: Write) -> None:
    """A project that is not there names those that are; a folder that is no package, what it lacks."""
    root = write({"demo/assets.py": CLEAN, "notes/readme.txt": ""})
    with pytest.raises(ProjectError, match=r"There is no project 'other' in .*\n  There is: demo\."):
        load(root, "other")
    with pytest.raises(ProjectError, match=r"projects/notes is no package: it has no __init__.py"):
        load(root, "notes")


def test_two_packages_are_not_one_project(write: Write) -> None:
    """Lineage knows a project by its last part: where two have the same, neither takes what the other has made."""
    root = write({"kb/assets.py": CLEAN})
    write({"pyproject.toml": "[tool.assetcore]\nprojects = ['books.kb']\n"})
    for name in ("kb", "books.kb"):
        with pytest.raises(ProjectError, match=r"kb and books\.kb are both the project kb.*\n  Rename one"):
            load(root, name)


@pytest.mark.parametrize("projects", ["'books'", "[1]", "['']", "{a = 1}"])
def test_projects_in_pyproject_are_a_list_of_packages(write: Write, projects: str) -> None:
    """A text or a table where a list of packages belongs is an error that shows it, not a list of letters."""
    root = write({"pyproject.toml": f"[tool.assetcore]\nprojects = {projects}\n"})
    with pytest.raises(
        ProjectError, match=r"pyproject.toml: \[tool.assetcore\] has projects = .* not a list of packages"
    ):
        project_names(root)


@pytest.mark.parametrize("text", ["tool = 5\n", "[tool]\nassetcore = 3\n"])
def test_a_pyproject_without_tables_is_told(write: Write, text: str) -> None:
    """What is no table where one belongs is an error that shows it, for the projects and for the settings."""
    root = write({"pyproject.toml": text, "demo/assets.py": CLEAN})
    what = text.split("\n")[-2].replace("=", r"=")
    with pytest.raises(ProjectError, match=rf"pyproject.toml: {what} is not a table"):
        project_names(root)
    with pytest.raises(SettingsError, match=rf"pyproject.toml: {what} is not a table"):
        Settings.load(root)


def test_a_pyproject_that_cannot_be_read_is_told(write: Write) -> None:
    """A mistake in the file itself names the file and the place."""
    root = write({"pyproject.toml": "[tool.assetcore\n"})
    with pytest.raises(ProjectError, match=r"pyproject.toml cannot be read: .*line 1"):
        project_names(root)


# -- what is loaded ------------------------------------------------------------------------------------------------------------


def test_assets_of_all_modules_are_collected(write: Write) -> None:
    """Assets in any module of the package belong to the project, also those that another module imports, each once."""
    root = write({
        "demo/first.py": CLEAN,
        "demo/deep/second.py": "from projects.demo.first import *\n\n@asset\nasync def cut(page: Page = each(clean)) -> list[Page]: ...\n",
        "demo/__main__.py": "raise SystemExit('never imported')",
    })  # fmt: skip
    graph = load(root, "demo")
    assert (list(graph.assets), graph.project) == (["pages", "clean", "cut"], "demo")
    assert user_packages(graph) == {"projects"}


def test_tests_are_not_imported(write: Write) -> None:
    """Modules and packages of tests, with all in them, may need what is not there where the project runs."""
    others = CLEAN.replace("clean", "deep").replace("pages", "others")
    tests = ("test_one.py", "deep/test_two.py", "test_things/__init__.py", "test_things/helper.py", "__main__.py")
    never = dict.fromkeys((f"demo/{name}" for name in tests), "raise RuntimeError('only for tests')")
    root = write({"demo/assets.py": CLEAN, "demo/deep/more.py": others} | never)
    assert set(load(root, "demo").assets) == {"pages", "clean", "others", "deep"}


def test_a_project_in_a_package_of_its_own(write: Write) -> None:
    """A package that pyproject.toml names is loaded under that name, called by the last part of it, with its config beside it."""
    body = HEAD + "\nclass Limits(BaseModel):\n    size: int = 1\n\n@asset\nasync def x(limits: Limits) -> Page: ...\n"
    root = write({"/shelf/kb/assets.py": body, "/shelf/kb/config.yaml": "x: {size: 7}"})
    write({"pyproject.toml": "[tool.assetcore]\nprojects = ['shelf.kb']\n"})
    (root / "shelf" / "__init__.py").touch()
    graph = load(root, "shelf.kb")
    assert (graph.project, list(graph.assets), user_packages(graph)) == ("kb", ["pages", "x"], {"shelf"})
    assert configuration(graph, root)["x"]["limits"].model_dump() == {"size": 7}


def test_config_comes_from_files_then_variables_then_the_call(write: Write) -> None:
    """config.yaml, config/ASSET.yaml, Prefect's variables, --set: field by field, the later one wins; what is no table is told."""
    body = "\nclass Limits(BaseModel):\n    a: int = 0\n    b: int = 0\n    c: int = 0\n    d: int = 0\n"
    body += "\n@asset\nasync def x(limits: Limits) -> Page: ...\n"
    root = write({
        "demo/assets.py": HEAD + body, "demo/config.yaml": "x: {a: 1, b: 1, c: 1, d: 1}",
        "demo/config/x.yaml": "{b: 2, c: 2, d: 2}", "demo/config/words.yaml": "[one, two]",
    })  # fmt: skip
    graph = load(root, "demo")
    found = configuration(graph, root, ("x.d=4",), {"x": {"c": 3, "d": 3}, "words": ["one", "two"]})
    assert found["x"]["limits"].model_dump() == {"a": 1, "b": 2, "c": 3, "d": 4}
    with pytest.raises(DeclarationError, match="variable demo_x is 'three', and no table"):
        configuration(graph, root, (), {"x": "three"})


def test_config_is_found_however_accents_are_written(write: Write) -> None:
    """A file's name has its accents as characters of their own where a Mac wrote it, as has what was typed there."""
    fields = "    a: int = 1\n    b: int = 1\n    c: int = 1\n"
    body = f"\nclass Limits(BaseModel):\n{fields}\n@asset\nasync def été(limits: Limits) -> Page: ...\n"
    apart = unicodedata.normalize("NFD", "été")
    root = write({
        "demo/assets.py": HEAD + body, "demo/config.yaml": f"{apart}: {{a: 2}}", f"demo/config/{apart}.yaml": "{b: 3}",
    })  # fmt: skip
    found = configuration(load(root, "demo"), root, (f"{apart}.c=4",))
    assert found["été"]["limits"].model_dump() == {"a": 2, "b": 3, "c": 4}
    with pytest.raises(UsageError, match="--set"):
        configuration(load(root, "demo"), root, (f"{apart}.c=x",))
    write({"demo/config/été.yaml": "{b: 5}"})
    with pytest.raises(DeclarationError, match=r"config has two files été\.yaml, spelled in other bytes"):
        configuration(load(root, "demo"), root)
    (root / "projects/demo/config/été.yaml").unlink()
    write({"demo/config.yaml": f"{apart}: {{a: 2}}\nété: {{a: 3}}"})
    with pytest.raises(DeclarationError, match=r"config\.yaml has an asset twice"):
        configuration(load(root, "demo"), root)


@pytest.mark.parametrize(
    ("file", "hint"),
    [("sender_reprot.yaml", "Did you mean sender_report.yaml"), ("sender_report.yml", "Did you mean sender_report.yaml"),
     ("Sender_Report.yaml", "Did you mean sender_report.yaml"), ("headers.yaml", "Those that do: sender_report")],
)  # fmt: skip
def test_a_file_of_config_that_no_asset_reads_is_told(write: Write, file: str, hint: str) -> None:
    """It is meant for an asset, by its name, and would do nothing; what has a name of its own is a variable, and none of these."""
    body = (
        "\nclass Limits(BaseModel):\n    top: int = 1\n\n@asset\nasync def sender_report(limits: Limits) -> Page: ...\n"
    )
    root = write({
        "demo/assets.py": HEAD + body + "\n@asset\nasync def headers() -> Page: ...\n", "demo/config/words.yaml": "[one, two]",
        "demo/config/sender_report.yaml": "top: 2",
    })  # fmt: skip
    graph = load(root, "demo")
    assert configuration(graph, root)["sender_report"]["limits"].model_dump() == {"top": 2}
    write({f"demo/config/{file}": "top: 3"})
    with pytest.raises(DeclarationError, match=f"{file} is not the config of an asset[^?]*{hint}"):
        configuration(graph, root)


def test_edits_are_seen_even_within_the_same_second(write: Write) -> None:
    """A project that is loaded again is what its files say now, also when neither size nor second of a file has changed."""
    root = write({"demo/assets.py": CLEAN, "demo/words.py": "WORD = 'aaa'\n"})
    more = "from projects.demo.words import WORD\nfrom projects.demo.assets import *\nfound = source(WORD, Page, folder('data'))\n"
    write({"demo/more.py": more})
    for word in ("aaa", "bbb", "ccc"):
        (root / "projects" / "demo" / "words.py").write_text(f"WORD = '{word}'\n")
        os.utime(root / "projects" / "demo" / "words.py", (1_700_000_000, 1_700_000_000))
        assert word in load(root, "demo").assets
    (root / "projects" / "demo" / "more.py").unlink()
    assert "ccc" not in load(root, "demo").assets
    assert not list(root.rglob("*.pyc"))


def test_bytecode_that_somebody_left_is_not_what_a_file_says(write: Write) -> None:
    """Python takes bytecode for that of a file of the same size and second; a project is what its files say."""
    root = write({"demo/assets.py": CLEAN + "\nfound = source('aaa', Page, folder('data'))\n"})
    module = root / "projects" / "demo" / "assets.py"
    os.utime(module, (1_700_000_000, 1_700_000_000))
    py_compile.compile(str(module))
    module.write_text(module.read_text().replace("'aaa'", "'bbb'"))
    os.utime(module, (1_700_000_000, 1_700_000_000))
    assert "bbb" in load(root, "demo").assets


@pytest.mark.parametrize("edited", ["/words.py", "demo/assets.py"])
def test_a_fingerprint_is_of_the_code_that_was_imported(write: Write, edited: str) -> None:
    """An edit after a project was loaded, of its modules or of what they import from the root, counts when it is loaded again."""
    body = CLEAN.replace("return page", "return twice(page)").replace(
        "from pyd", "from words import twice\nfrom pyd", 1
    )
    files = {"demo/assets.py": body, "/words.py": "def twice(page): return page\n"}
    code = fingerprint_of(load(write(files), "demo"), "clean").digest
    loaded = load(write(files), "demo")
    root = write({edited: files[edited].replace("return", "return 2 *")})
    assert fingerprint_of(loaded, "clean").digest == code
    assert fingerprint_of(load(root, "demo"), "clean").digest != code
    assert not any(type(finder).__module__ == "assetcore.loading" for finder in sys.meta_path)


def test_what_a_project_imports_from_its_root_is_seen_anew_and_what_is_installed_is_not(write: Write) -> None:
    """Modules of the user's own beside projects/ are imported anew as well; those of installed packages stay what they are."""
    root = write({"/words.py": "WORD = 'aaa'\n", "/.venv/site-packages/installed.py": "STATE = []\n"})
    more = "import installed, words\nfrom projects.demo.assets import *\nfound = source(words.WORD, Page, folder('data'))\n"
    write({"demo/assets.py": CLEAN, "demo/more.py": more})
    sys.path.append(str(root / ".venv" / "site-packages"))
    load(root, "demo")
    installed = sys.modules["installed"]
    (root / "words.py").write_text("WORD = 'bbb'\n")
    assert "bbb" in load(root, "demo").assets
    assert sys.modules["installed"] is installed


def test_the_code_of_an_asset_includes_the_methods_of_what_it_is_given(write: Write) -> None:
    """A method of a document or config class is code that the function can call; a class of fields alone is told by its schema."""
    body = """
class Rich(Document):
    size: int = 0

    def first(self): return self.text[0]

class Limits(BaseModel):
    low: int = 0

    @property
    def high(self): return self.low + 1

rich = source("rich", Rich, folder("data"))

@asset
async def x(limits: Limits, page: Rich = each(rich)) -> Page: ...

@asset
async def y(page: Page = each(pages)) -> Page: ...
"""

    def prints(text: str, head: str = HEAD) -> list[bytes]:
        graph = load(write({"demo/assets.py": head + text}), "demo")
        return [fingerprint_of(graph, name).digest for name in "xy"]

    x, y = prints(body)
    for edit in (("self.text[0]", "self.text[1]"), ("self.low + 1", "self.low + 2")):
        changed, same = prints(body.replace(*edit))
        assert (changed != x, same == y) == (True, True), edit
    assert prints(body, HEAD.replace('"A page."', "more: str = ''")) == [x, y]


@pytest.mark.parametrize("editable", [True, False])
def test_a_package_that_is_installed_as_editable_is_the_users(write: Write, tmp_path: Path, editable: bool) -> None:
    """Its code counts and is imported anew, wherever it is; another installation is told by its version, and left as it is."""
    files = {"demo/assets.py": CLEAN.replace("return page", "return shelf.kept(page)") + "import shelf\n"}
    root = write(files, tmp_path / "root")
    code, site = tmp_path / "code", tmp_path / "site-packages"
    about = site / "shelf-1.0.dist-info"
    about.mkdir(parents=True)
    code.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: shelf\nVersion: 1.0\n")
    (about / "direct_url.json").write_text(json.dumps({"url": f"file://{code}", "dir_info": {"editable": editable}}))
    sys.path[:0] = [str(code), str(site)]
    forget_distributions()

    def found(kept: str) -> tuple[Fingerprint, Any]:
        (code / "shelf.py").write_text(f"def kept(page): return {kept}\n")
        graph = load(root, "demo")
        return fingerprint_of(graph, "clean"), sys.modules["shelf"]

    try:
        (one, before), (other, after) = found("page"), found("page, 1")
        assert (one.digest != other.digest, before is not after) == (editable, editable)
        assert one.environment == (() if editable else (("shelf", "1.0"),))
    finally:
        forget_distributions()


GIVEN = {
    "a method of a model in a field": (
        "class Meta(BaseModel):\n    v: str = 'x'\n    def pretty(self): return 1",
        "meta: list[Meta]", "return 1", "return 2",
    ),
    "a method of a model that is declared later": (
        "class Meta(BaseModel):\n    inner: list['Inner'] = []\nclass Inner(BaseModel):\n    v: str = 'x'\n    def pretty(self): return 1",
        "meta: Meta | None", "return 1", "return 2",
    ),
    "a method of an enum": (
        "import enum\nclass Kind(enum.StrEnum):\n    A = 'a'\n    def label(self): return 1",
        "kind: Kind", "return 1", "return 2",
    ),
    "a method of an enum in a literal": (
        "import enum\nfrom typing import Literal\nclass Kind(enum.Enum):\n    A = 'a'\n    def label(self): return 1",
        "kind: Literal[Kind.A]", "return 1", "return 2",
    ),
    "a method of a dataclass": (
        "import dataclasses\n@dataclasses.dataclass\nclass Point:\n    x: int = 1\n    def far(self): return 1",
        "point: dict[str, Point]", "return 1", "return 2",
    ),
    "a cached method": (
        "import functools\nclass Meta(BaseModel):\n    v: str = 'x'\n    @functools.lru_cache\n    def pretty(self): return 1",
        "meta: Meta", "return 1", "return 2",
    ),
    "a class variable": ("from typing import ClassVar", "LIMIT: ClassVar[int] = 10; size: int", "10", "11"),
    "a method behind an alias": (
        "from typing_extensions import TypeAliasType\nclass Meta(BaseModel):\n    def pretty(self): return 1\n"
        "Some = TypeAliasType('Some', list[Meta])",
        "some: Some", "return 1", "return 2",
    ),
}  # fmt: skip
"""What stands before a class, its field, and an edit of what a function can reach through that field."""


@pytest.mark.parametrize("what", GIVEN)
@pytest.mark.parametrize("base", ["BaseModel", "Document"])
def test_what_is_reached_through_a_field_counts(write: Write, what: str, base: str) -> None:
    """P6: a function that is given a document or config can call what the classes of its fields hold, and read class variables."""
    before, fields, old, new = GIVEN[what]

    def found(text: str) -> bytes:
        taken = "given: Given" if base == "BaseModel" else "given: Given = each(made)"
        made = "" if base == "BaseModel" else "@asset\nasync def made(page: Page = each(pages)) -> Given: ...\n"
        body = f"{text}\n{made}\n@asset\nasync def x({taken}, other: list[Page] = collect(pages)) -> Page: ...\n"
        return fingerprint_of(load(write({"demo/assets.py": HEAD + body}), "demo"), "x").digest

    declared = f"{before}\nclass Given({base}):\n    {fields}\n"
    first = found(declared)
    assert found(declared) == first
    assert found(declared.replace(old, new)) != first


PLAIN = """
import dataclasses
import enum
from typing import Literal

class Kind(enum.StrEnum):
    A = "a"

class Step(enum.Enum):
    ONE = 1

@dataclasses.dataclass(frozen=True, slots=True, order=True)
class Point:
    x: int = 1

class Meta(BaseModel):
    kind: Kind = Kind.A
    others: list["Meta"] = []

class Plain(Document, media_type="text/html"):
    meta: Meta = Meta()
    point: Point = Point()
    step: Literal[Step.ONE] | None = None
    size: int = 0

class Limits(BaseModel):
    meta: Meta = Meta()
    at: datetime.timedelta = datetime.timedelta(1)

plain = source("plain", Plain, folder("data"))

@asset
async def x(limits: Limits, page: Plain = each(plain)) -> Page: ...
"""


def test_fields_alone_do_not_count(write: Write) -> None:
    """Models, enums and dataclasses of fields alone are the schema's affair: the code of what consumes them is as without them."""

    def found(body: str) -> bytes:
        return fingerprint_of(load(write({"demo/assets.py": HEAD + "import datetime\n" + body}), "demo"), "x").digest

    bare = "class Limits(BaseModel): ...\n@asset\nasync def x(limits: Limits, page: Page = each(pages)) -> Page: ...\n"
    assert found(PLAIN) == found(bare)


def test_two_roots_in_one_process_do_not_mix(write: Write, tmp_path: Path) -> None:
    """Projects of one name in two folders are each their own, in whatever order they are loaded."""
    roots = [tmp_path / "one", tmp_path / "two"]
    for root in roots:
        write(
            {
                "demo/assets.py": f"from projects.demo.names import *\nfound = source('of_{root.name}', Page, folder('data'))",
                "demo/names.py": HEAD,
            },
            root,
        )
    for root in (*roots, *roots, roots[0], roots[0], roots[1]):
        graph = load(root, "demo")
        assert f"of_{root.name}" in graph.assets
        assert all(asset.place.file.startswith(str(root)) for asset in graph.assets.values())


def mistake(root: Path) -> AssetcoreError:
    with pytest.raises(AssetcoreError) as found:
        load(root, "demo")
    return found.value


@pytest.mark.parametrize(
    ("body", "line", "problem", "hint"),
    [
        ("x = 1\ndef broken(:\n    pass\n", 2, "invalid syntax: def broken(:", None),
        ("x = 1\nif x:\nx = 2\n", 3, "expected an indented block", None),
        ("import json\nimport not_installed_at_all\n", 2, "ModuleNotFoundError: No module named 'not_installed_at_all'",
         "Install what it needs"),
        ("from json import nothing_such\n", 1, "ImportError: cannot import name 'nothing_such'", "Install what it needs"),
        ("from projects.demo.helper import fail\n\nfail()\n", 2, "ZeroDivisionError: division by zero", "The line is: 1 / 0"),
        ("colour = 1\nprint(color)\n", 2, "NameError: name 'color' is not defined", "Did you mean colour?"),
        ("raise SystemExit(3)\n", 1, "SystemExit: 3", "The line is: raise SystemExit(3)"),
        ("import ast\nast.parse('x = = 1')\n", 2, "SyntaxError: invalid syntax (<unknown>, line 1)", "The line is: ast.parse("),
        ("class Odd(Exception):\n    def __str__(self): raise RuntimeError\nraise Odd\n", 3, "Odd: it cannot say what is wrong",
         "The line is: raise Odd"),
        ("raise GeneratorExit(3)\n", 1, "GeneratorExit: 3", "The line is: raise GeneratorExit(3)"),
    ],
)  # fmt: skip
def test_a_module_that_cannot_be_imported_is_told_with_its_line(
    write: Write, body: str, line: int, problem: str, hint: str | None
) -> None:
    """The error names the user's file and line, what went wrong there, and what to do where that can be known."""
    root = write({"demo/assets.py": body, "demo/helper.py": "def fail():\n    1 / 0\n"})
    file = "helper.py" if "helper" in body else "assets.py"
    error = mistake(root)
    assert isinstance(error, ProjectError)
    assert error.message.startswith(f"{root}/projects/demo/{file}:{line}: "), error.message
    assert problem in error.message
    assert (hint or "") in (error.hint or "")


def test_a_mistake_in_a_declaration_is_told_as_such(write: Write) -> None:
    """What the declarations say wrongly is a DeclarationError with the place, whether it is found on import or in the graph."""
    root = write({"demo/assets.py": HEAD + "\n@asset(tagz=1)\nasync def x() -> Page: ...\n"})
    assert isinstance(mistake(root), DeclarationError)
    write({"demo/assets.py": HEAD + "\n@asset\nasync def x() -> str: ...\n"})
    assert mistake(root).message.startswith(f"{root}/projects/demo/assets.py:11: x returns str.")


def test_an_asset_that_no_project_would_find_is_told(write: Write) -> None:
    """One that a second function hides by its name, and one in a class: both are found where they are declared."""
    root = write(
        {
            "demo/assets.py": CLEAN
            + "@asset(name='tidy')\nasync def clean(page: Page = each(pages)) -> Page: return page\n"
        }
    )
    file = f"{root}/projects/demo/assets.py"
    assert mistake(root).message == f"{file}:13: clean is declared twice; the other is at {file}:11."
    write(
        {
            "demo/assets.py": HEAD
            + "\nclass Books:\n    @asset\n    async def x(page: Page = each(pages)) -> Page: return page\n"
        }
    )
    assert mistake(root).message == f"{file}:12: x is declared in the class Books, where no project finds it."


def test_a_project_without_assets_is_told(write: Write) -> None:
    """A package in which nothing is declared says so, and how to declare."""
    error = mistake(write({"demo/assets.py": "x = 1\n"}))
    assert (error.message, error.hint) == (
        "The project demo declares no asset.",
        "Put @asset on a function in one of its modules.",
    )


# -- config --------------------------------------------------------------------------------------------------------------------


BODY = (
    HEAD
    + """
class Inner(BaseModel):
    low: int = 1
    high: int = 9

class Limits(BaseModel):
    size: int = 10
    words: list[str] = Field(default_factory=lambda: ["a"])
    weights: dict[str, float] = Field(default_factory=dict)
    inner: Inner = Inner()
    alias: str = Field(default="", alias="as")

class Needed(BaseModel):
    key: str

@asset
async def one(limits: Limits) -> Page: ...

@asset
async def given(limits: Limits = Limits(size=3, weights={"x": 1.0}, inner=Inner(low=5))) -> Page: ...

@asset
async def two(limits: Limits, needed: Needed) -> Page: ...

@asset
async def none(page: Page = each(pages)) -> Page: ...
"""
)


@pytest.fixture
def demo(write: Write) -> tuple[Graph, Path]:
    root = write({"demo/assets.py": BODY})
    return load(root, "demo"), root


def configured(demo: tuple[Graph, Path], text: str = "", *overrides: str) -> dict[str, dict[str, Any]]:
    """The config of every asset; `two` is given what it needs."""
    graph, root = demo
    (root / "projects" / "demo" / "config.yaml").write_text(textwrap.dedent(text))
    found = configuration(graph, root, ("two.needed.key=k", *overrides))
    return {name: {p: value.model_dump() for p, value in values.items()} for name, values in found.items()}


def test_config_is_defaults_then_file_then_command(demo: tuple[Graph, Path]) -> None:
    """Each field is the model's default, the declared default, the file's or the command's, the later one over the earlier."""
    found = configured(demo)
    assert set(found) == {"one", "given", "two"}
    assert (found["one"]["limits"]["size"], found["given"]["limits"]["size"]) == (10, 3)
    found = configured(demo, "given: {size: 4}\none: {words: [x, y]}\n")
    assert (found["given"]["limits"]["size"], found["one"]["limits"]["words"]) == (4, ["x", "y"])
    found = configured(demo, "given: {size: 4}\n", "given.size=5", "one.words=[z]", "one.size=6")
    assert (found["given"]["limits"]["size"], found["one"]["limits"]["words"], found["one"]["limits"]["size"]) == (
        5,
        ["z"],
        6,
    )


def test_models_inside_are_merged_and_other_values_replaced(demo: tuple[Graph, Path]) -> None:
    """One field of a nested model can be set alone; a list or a dictionary is given as a whole."""
    found = configured(demo, "given:\n  inner: {high: 7}\n  weights: {z: 2.0}\n")["given"]["limits"]
    assert (found["inner"], found["weights"], found["size"]) == ({"low": 5, "high": 7}, {"z": 2.0}, 3)
    found = configured(demo, "given:\n  inner: {high: 7}\n", "given.inner.low=2")["given"]["limits"]
    assert found["inner"] == {"low": 2, "high": 7}


def test_fields_are_known_by_name_and_by_alias(demo: tuple[Graph, Path]) -> None:
    """A field with an alias can be given under both, also over a declared default."""
    assert configured(demo, "given: {alias: x}\none: {as: y}\n")["given"]["limits"]["alias"] == "x"
    assert configured(demo, "given: {alias: x}\none: {as: y}\n")["one"]["limits"]["alias"] == "y"


def test_with_two_config_parameters_each_has_its_own_table(demo: tuple[Graph, Path]) -> None:
    """An asset with several config parameters is configured below their names."""
    found = configured(demo, "two:\n  limits: {size: 2}\n  needed: {key: file}\n", "two.needed.key=command")
    assert (found["two"]["limits"]["size"], found["two"]["needed"]["key"]) == (2, "command")


def test_an_empty_file_and_empty_tables_say_nothing(demo: tuple[Graph, Path]) -> None:
    """Nothing, a comment, and an asset without values are no config, and can be overridden."""
    for text in ("", "# later\n", "one:\n", "two:\n  limits:\n"):
        assert configured(demo, text)["one"]["limits"]["size"] == 10
    assert configured(demo, "one:\n", "one.size=4")["one"]["limits"]["size"] == 4


WRONG = [
    (
        "onne: {size: 1}",
        (),
        DeclarationError,
        r"config.yaml: 'onne' is not an asset that takes config[\s\S]*one, given, two",
    ),
    ("none: {size: 1}", (), DeclarationError, r"'none' is not an asset that takes config"),
    (
        "one: {sizes: 1}",
        (),
        DeclarationError,
        r"config of one does not fit Limits: one.sizes: Extra[\s\S]*Its fields are size, words",
    ),
    ("one: {size: many}", (), DeclarationError, r"one.size: .*integer.*got 'many'"),
    ("one: {inner: {low: x}}", (), DeclarationError, r"one.inner.low: .*got 'x'"),
    ("one: {inner: 5}", (), DeclarationError, r"one.inner: .*got 5"),
    ("one: 5", (), DeclarationError, r"config.yaml is not a table of assets"),
    ("[one]", (), DeclarationError, r"config.yaml is not a table of assets"),
    ("one: {", (), DeclarationError, r"config.yaml cannot be read: .*"),
    ("two: {size: 5}", (), DeclarationError, r"config of two has size: 5, but two takes limits, needed"),
    ("two: {limits: 5}", (), DeclarationError, r"config of two has limits: 5, but two takes limits, needed"),
    (
        "two: {limit: {size: 5}}",
        (),
        DeclarationError,
        r"config of two has limit: \{'size': 5\}, but two takes limits, needed",
    ),
    ("", ("one.size=many",), UsageError, r"--set one.size=many: the config of one .* one.size: .*got 'many'"),
    ("", ("one.size.x=3",), UsageError, r"--set one.size.x=3: .*one.size: .*got \{'x': 3\}"),
    ("", ("one.words=[a, {}]",), UsageError, r"--set one.words=\[a, \{\}\]: .*one.words.1: .*got \{\}"),
    ("", ("one.sizes=1",), UsageError, r"--set one.sizes=1: .*one.sizes: Extra[\s\S]*Its fields are size, words"),
    (
        "one: {size: many}",
        ("one.words=[a]", "given.size=1"),
        DeclarationError,
        r"^The config of one .*one.size: .*'many'",
    ),
    ("", ("two.limits.size=x", "two.needed.key=a"), UsageError, r"--set two.limits.size=x: .*two.size: .*got 'x'"),
    ("two: {limits: {size: x}}", ("two.needed.key=a",), DeclarationError, r"^The config of two .*two.size: .*got 'x'"),
    (
        "two: {needed: {key: a}}",
        ("two.size=5",),
        UsageError,
        r"--set two.size=5: the config of two has size: 5, but two takes",
    ),
    ("", ("one.size",), UsageError, r"'one.size' is not a config value"),
    ("", ("size=3",), UsageError, r"'size=3' is not a config value"),
    ("", ("one.=3",), UsageError, r"'one.=3' is not a config value"),
    ("", (".size=3",), UsageError, r"'.size=3' is not a config value"),
    ("", ("on.size=3",), UsageError, r"there is no asset 'on'"),
    ("", ("none.size=3",), UsageError, r"none takes no config[\s\S]*one, given, two"),
    ("", ("one.words=[a",), UsageError, r"'\[a' cannot be read"),
]


def test_files_are_utf_8_whatever_the_locale(write: Write) -> None:
    """Config, which is a part of recipes, and pyproject.toml say the same on a machine whose locale has another encoding, or none."""
    program = """
import locale
from pathlib import Path
from assetcore.loading import configuration, load, project_names
root = Path.cwd()
found = configuration(load(root, "demo"), root)
print(locale.getpreferredencoding(False), ascii(found["x"]["limits"].word), project_names(root))
"""
    root = write({
        "demo/assets.py": HEAD + "class Limits(BaseModel):\n    word: str\n@asset\nasync def x(limits: Limits) -> Page: ...\n",
        "demo/config.yaml": "x: {word: Märchen}", "pyproject.toml": "[project]\nauthors = ['Märchen']\n",
    })  # fmt: skip
    variables = {**os.environ, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=root, env=variables, capture_output=True, text=True, check=False)
    assert done.stdout.split(" ", 1)[1] == "'M\\xe4rchen' ['demo']\n", done.stderr
    assert done.stdout.split()[0] != "UTF-8"


@pytest.mark.parametrize(
    ("text", "overrides", "kind", "problem"), WRONG, ids=[f"{w[0]} {' '.join(w[1])}".strip() for w in WRONG]
)
def test_config_that_does_not_fit_is_told(
    demo: tuple[Graph, Path], text: str, overrides: tuple[str, ...], kind: type[AssetcoreError], problem: str
) -> None:
    """A mistake in the file or in --set names the asset, the field, what was given and what there is."""
    with pytest.raises(kind, match=problem):
        configured(demo, text, *overrides)


def test_what_must_be_given_is_asked_for(demo: tuple[Graph, Path]) -> None:
    """A field without a default that nobody gave is named, with the ways to give it."""
    graph, root = demo
    with pytest.raises(
        DeclarationError, match=r"two.key: Field required[\s\S]*config.yaml or with --set two.FIELD=VALUE"
    ):
        configuration(graph, root)


# -- metadata ------------------------------------------------------------------------------------------------------------------


def test_what_is_required_is_asked_for_when_a_project_is_loaded(write: Write) -> None:
    """Place, asset and what is missing; what is declared in the words of the setting is enough."""
    root = write({"demo/assets.py": CLEAN})
    with pytest.raises(DeclarationError, match=r"demo/assets\.py:11: clean has no owner and no description\."):
        load(root, "demo", ["owner", "description"])
    told = CLEAN.replace("@asset", '@asset(owner="ann", description="Clean pages.")').replace(
        'folder("data")', 'folder("data"), owner="ann"'
    )
    assert "clean" in load(write({"demo/assets.py": told}), "demo", ["owner", "description"]).assets


def test_metadata_is_no_part_of_a_recipe(write: Write) -> None:
    """Owner, description, tags, kinds, sensitivity and freshness may change, and the definition stays what it was."""

    def definition(body: str) -> Definition:
        graph = load(write({"demo/assets.py": body}), "demo")
        return define(graph["clean"], fingerprint_of(graph, "clean"), {}, {})

    options = 'owner="ann", description="Pages.", tags=["t"], kinds=["llm"], sensitivity="internal", anonymises=True, freshness="1d"'
    assert definition(CLEAN.replace("@asset", f"@asset({options})")) == definition(CLEAN)
