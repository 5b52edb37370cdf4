"""The command: which verbs are there, how are answers and errors told?"""

from __future__ import annotations

import importlib.util
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

import click
import networkx as nx
import pytest
from click.testing import CliRunner, Result
from rich.console import Console, RenderableType

from assetcore import grammar
from assetcore.cli import VERBS, _sentence, main, show
from assetcore.cli.call import COUNT
from assetcore.cli.names import VALUES
from assetcore.cli.progress import Lines, reporting
from assetcore.costs import Estimate, Spread, UnitCosts
from assetcore.errors import NothingSelectedError, ServiceError
from assetcore.execution import Event

EVERY_VERB = [verb for section in VERBS.values() for verb in section]
HEAVY = [
    "asyncpg",
    "networkx",
    "pandas",
    "polars",
    "prefect",
    "pyarrow",
    "pydantic",
    "rich",
    "sqlalchemy",
    "yaml",
    "lark",
]

PROJECT = '''
import sys
from assetcore.declarations import asset, collect, each, source
from assetcore.documents import Document
from assetcore.sources import folder

print("a project that prints")
sys.stdout.write("in two ways\\n")

class Page(Document):
    """A page."""

class Word(Document):
    """A word."""

pages = source("pages", Page, folder("data"), owner="Ada L")

@asset(tags=["text"], group="parts")
async def words(page: Page = each(pages)) -> list[Word]:
    """The words of a page."""
    return [Word(name=word, text=word) for word in page.text.split()]

@asset(tags=["report"])
async def index(words: list[Word] = collect(words)) -> Word:
    return Word(name="index", text=" ".join(word.name for word in words))
'''


def aipctl(*arguments: str, **environment: str | None) -> Result:
    cleared: dict[str, str | None] = {"PROJECT": None, "NO_COLOR": "1", "COLUMNS": "80"}
    return CliRunner(env=cleared | environment).invoke(main, arguments)


def drawn(renderable: RenderableType, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width, highlight=False, markup=False, emoji=False)
    console.print(renderable, crop=False)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    package = tmp_path / "projects" / "notes"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "assets.py").write_text(PROJECT)
    (tmp_path / "data").mkdir()
    return tmp_path


# --- verbs and help ---------------------------------------------------------------------------------------------------


def test_help_lists_every_verb() -> None:
    """`aipctl --help`, and `aipctl` alone, list every verb with what it does."""
    for arguments in (["--help"], ["-h"], []):
        result = aipctl(*arguments)
        assert result.exit_code == 0
        for verb in EVERY_VERB:
            assert f"  {verb} " in result.stdout


def commands(group: click.Group = main, *above: str) -> Iterator[list[str]]:
    """The words of every verb, also of those in groups."""
    context = click.Context(group)
    for name in group.list_commands(context):
        yield [*above, name]
        if isinstance(command := group.get_command(context, name), click.Group):
            yield from commands(command, *above, name)


@pytest.mark.parametrize("words", list(commands()), ids=" ".join)
def test_every_verb_has_help(words: list[str]) -> None:
    """Every verb explains itself, in at most 80 columns."""
    result = aipctl(*words, "--help")
    assert result.exit_code == 0
    assert result.stdout.startswith("Usage:")
    assert max(map(len, result.stdout.splitlines())) <= 80


def test_config_is_offered_where_something_could_be_made_of_it() -> None:
    """`--set` differs what a plan finds; elsewhere it only lets a project be opened that has no config without it, and is not offered."""
    assert all(
        "--set" in aipctl(*verb.split(), "--help").stdout for verb in ("plan", "why", "ls", "env promote", "deploy")
    )
    others = ("env ls", "env drop", "journal", "runs", "trace", "graph", "vectors ls")
    assert not any("--set" in aipctl(*verb.split(), "--help").stdout for verb in others)


def test_help_and_completion_import_nothing_heavy() -> None:
    """Help of every verb, and completion in a shell, import click and the standard library only."""
    program = f"""
import contextlib, io, os, sys
from assetcore.cli import VERBS, main
with contextlib.redirect_stdout(io.TextIOWrapper(io.BytesIO())):
    for arguments in [[], ["--help"], *([verb, "--help"] for section in VERBS.values() for verb in section)]:
        assert main.main(arguments, "aipctl", standalone_mode=False) == 0, arguments
    main.main(["completion", "bash"], "aipctl", standalone_mode=False)
    for words, word in [("aipctl ma", 1), ("aipctl plan --ex", 2), ("aipctl db ", 2), ("aipctl why a", 2), ("aipctl ls +a", 2)]:
        os.environ.update(_AIPCTL_COMPLETE="bash_complete", COMP_WORDS=words, COMP_CWORD=str(word))
        with contextlib.suppress(SystemExit):
            main.main([], "aipctl")
found = [name for name in {HEAVY!r} if name in sys.modules]
sys.exit(", ".join(found) or 0)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_completion() -> None:
    """A shell completes verbs and options."""
    environment = os.environ | {"_AIPCTL_COMPLETE": "bash_complete", "COMP_WORDS": "aipctl ma", "COMP_CWORD": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "assetcore"], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    if done.stdout == "":  # the shell's function calls `aipctl`, whatever this process is called
        pytest.fail(done.stderr)
    assert "materialize" in done.stdout


def test_names_are_completed(root: Path) -> None:
    """Once a project was loaded, a shell completes its name and those of its assets, also inside a selection."""

    def completed(*words: str) -> list[str]:
        cleared = {name: value for name, value in os.environ.items() if name not in ("PROJECT", "ASSETCORE_HOME")}
        environment = {
            "_AIPCTL_COMPLETE": "bash_complete",
            "COMP_WORDS": " ".join(words),
            "COMP_CWORD": str(len(words) - 1),
        }
        command = [sys.executable, "-m", "assetcore"]
        done = subprocess.run(
            command, env=cleared | environment, cwd=root, capture_output=True, text=True, timeout=60, check=True
        )
        return [line.removeprefix("plain,") for line in done.stdout.split()]

    assert completed("aipctl", "plan", "w") == []
    aipctl("graph", "--root", str(root))
    assert not (root / ".assetcore").exists()
    (root / ".assetcore").mkdir()
    aipctl("graph", "--root", str(root))
    assert completed("aipctl", "plan", "w") == ["words"]
    assert completed("aipctl", "plan", "(+p") == ["(+pages"]
    assert completed("aipctl", "why", "") == ["index", "pages", "words"]
    assert completed("aipctl", "ls", "-p", "n") == ["notes"]
    assert completed("aipctl", "ls", "status", ":", "f") == ["fresh"]  # as bash breaks it
    assert completed("aipctl", "ls", "status", ":") == sorted(VALUES["status"])
    (root / ".assetcore" / "names.json").write_text('{"notes": ["as", "they", "once", "were"]}')
    assert completed("aipctl", "ls", "-p", "n") == []
    (root / ".assetcore" / "names.json").write_text("{")
    assert completed("aipctl", "plan", "w") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell: str) -> None:
    """A completion script calls aipctl."""
    result = aipctl("completion", shell)
    assert result.exit_code == 0
    assert "_AIPCTL_COMPLETE" in result.stdout


def test_version() -> None:
    """`--version` prints the version, `python -m assetcore` is the same command."""
    done = subprocess.run(
        [sys.executable, "-m", "assetcore", "--version"], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == aipctl("--version").stdout
    assert done.stdout.startswith("assetcore ")


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["nope"], 64, "No such command 'nope'"),
        (["lineag"], 64, "lineage"),
        (["ls", "--nope"], 64, "No such option '--nope'"),
        (["why"], 64, "Missing argument 'REF'"),
        (["lineage", "chunks", "--depth", "0"], 64, "--depth"),
        (["verify", "--rate", "nan"], 64, "NaN is no number"),
        (["gc", "--keep", "999999999999w"], 64, "longer than a thousand years"),
        (["export", "chunks", ""], 64, "The name of the folder is empty"),
        (["graph", "a", "b"], 64, "two terms stand beside each other"),
        (["plan", "a,b"], 64, "a comma does not combine terms"),
        (["ls", "tga:x"], 64, "Did you mean tag?"),
        (["why", "a/b"], 64, "is not a REF"),
        (
            ["show", "s3://b/x/notes/main/20261120T112600.123456Z/words/pack-00000020.parquet"],
            64,
            "among these: aipctl show words,",
        ),
        (["completion", "csh"], 64, "csh"),
        (["ls", "--declared", "--at", "nonsense"], 64, "--at is of what was made"),
        (["ls", "--declared", "--cost"], 64, "--cost is of what was made"),
        (["materialize", "--replay"], 64, "--replay says how --force is to ask"),
        (["plan", "--force", "--sample", "3"], 64, "not what would be with --force"),
        (["plan", "--if", "change words", "--sample", "3"], 64, "not what would be with --if"),
        (["runs", "\udc80"], 64, "'\\udc80' is no text: it is not UTF-8."),
        (["trace", "\udc80"], 64, "'\\udc80' is no text"),
        (["plan", "--set", "a.b=\udc80"], 64, "is no text"),
        (["materialize", "--max-cost", "5eur"], 64, "--max-cost: '5eur' is no limit."),
        (["search", " "], 64, "The text to search for is empty."),
        (["journal", "verify", "--since", "3d", "--limit", "1"], 64, "whole journal, and --since and --limit"),
        (["journal", "verify", "--env", "pr-9"], 64, "whole journal, and --env"),
        (["graph", "--env", "pr-9"], 64, "No such option '--env'"),
        (["trace", "21c8", "--env", "pr-9"], 64, "No such option '--env'"),
        (["new", "project", "no-package"], 64, "cannot be the name of a project"),
        (["new", "project", "json"], 64, "Python has a module of that name"),
    ],
)
def test_wrong_usage(arguments: list[str], code: int, sentence: str) -> None:
    """Wrong usage ends with 64 and a sentence on stderr; with --json also with an object on stdout, and nothing else there."""
    result = aipctl(*arguments)
    assert (result.exit_code, result.stdout) == (code, "")
    assert "error: " in result.stderr
    assert sentence in result.stderr
    assert "Traceback" not in result.stderr
    error = json.loads(aipctl(*arguments, "--json").stdout)["error"]
    assert error.keys() == {"kind", "message", "hint", "exit_code"}
    assert error["exit_code"] == code


def test_no_project(tmp_path: Path, root: Path) -> None:
    """Where there is no project, or more than one, the error says what there is."""
    (tmp_path / "empty").mkdir()
    (root / "projects" / "more").mkdir()
    (root / "projects" / "more" / "__init__.py").write_text("")
    result = aipctl("graph", "--root", str(root))
    assert result.exit_code == 64
    assert "There are 2 projects: more, notes." in result.stderr
    result = aipctl("graph", "--root", str(root), "-p", "nites")
    assert result.exit_code == 4
    assert "There is no project 'nites'" in result.stderr
    assert "There is: more, notes." in result.stderr


def test_an_empty_folder_is_a_root_once_it_was_made_ready(tmp_path: Path) -> None:
    """What `init` has made ready, every other verb takes for its root, also the one that stops the services."""
    folder = str(tmp_path)
    assert aipctl("down", "--root", folder).exit_code == 1
    first, second = (json.loads(aipctl("init", "--compose", "--root", folder, "--json").stdout) for _ in range(2))
    assert (first["changed"], second["changed"], first["projects"]) == (True, False, [])
    assert sorted(path.name for path in tmp_path.iterdir()) == [".env", "projects", "stack"]
    assert json.loads(aipctl("down", "--root", folder, "--json").stdout) == {"stopped": []}
    assert aipctl("graph", "--root", folder).exit_code == 64


def test_sentences() -> None:
    """Every way to fail has its exit code; what nobody foresaw is called a bug, in one sentence."""
    assert _sentence(NothingSelectedError("Nothing.", hint="Look.")) == ("NothingSelectedError", "Nothing.", "Look.", 4)
    assert _sentence(ServiceError("Down."))[3] == 69
    assert _sentence(click.Abort())[3] == 130
    assert _sentence(PermissionError(13, "Permission denied", "a.txt"))[1:] == ("Permission denied: a.txt.", None, 1)
    kind, message, hint, code = _sentence(KeyError("x\ny"))
    assert (kind, message, code) == ("KeyError", "This is a bug in assetcore: KeyError: 'x\\ny'", 1)
    assert "--debug" in (hint or "")


@pytest.mark.parametrize(
    "error", [KeyError("x"), KeyboardInterrupt(), SystemExit(0), GeneratorExit(), BaseException("x")]
)
def test_whatever_ends_a_command_is_one_object(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """With --json there is one object on stdout and a sentence on stderr, also for what is no Exception; the exit code is not 0."""

    def raises(*_: object) -> NoReturn:
        raise error

    monkeypatch.setattr(grammar, "parse", raises)
    result = aipctl("plan", "a", "--json")
    told = json.loads(result.stdout)["error"]
    assert (told["kind"], told["exit_code"]) == (_sentence(error)[0], result.exit_code)
    assert result.exit_code != 0
    assert "error: " in result.stderr


def test_debug_shows_the_traceback() -> None:
    """Only --debug shows where an error was raised."""
    assert "Traceback" in aipctl("plan", "a,b", "--debug").stderr


# --- answers without services -----------------------------------------------------------------------------------------


def test_graph(root: Path) -> None:
    """`graph` draws the declarations in five forms; what the project prints is kept away from the answer."""
    result = aipctl("graph", "--root", str(root))
    assert result.exit_code == 0, result.stderr
    assert result.stdout.split("\n")[0].startswith("pages  source")
    assert "a project that prints" not in result.stdout
    assert "a project that prints" in result.stderr
    answer = json.loads(aipctl("graph", "--root", str(root), "--json").stdout)
    assert [node["asset"] for node in answer["nodes"]] == ["pages", "words", "index"]
    assert answer["edges"] == [["pages", "words"], ["words", "index"]]
    assert json.loads(aipctl("graph", "--root", str(root), "--format", "json").stdout) == answer
    assert "n0 -> n1" in aipctl("graph", "--root", str(root), "--format", "dot").stdout
    assert "n0 --> n1" in aipctl("graph", "--root", str(root), "--format", "mermaid").stdout
    read = nx.parse_graphml(aipctl("graph", "--root", str(root), "--format", "graphml").stdout)
    assert (list(read.edges), read.nodes["words"]["group"]) == ([("pages", "words"), ("words", "index")], "parts")


def test_graph_of_a_selection(root: Path) -> None:
    """A selection narrows the graph; one that selects nothing ends with 4 and what was perhaps meant."""
    answer = json.loads(aipctl("graph", "tag:text+", "--root", str(root), "--json").stdout)
    assert ([node["asset"] for node in answer["nodes"]], answer["edges"]) == (["words", "index"], [["words", "index"]])
    result = aipctl("graph", "word", "--root", str(root))
    assert result.exit_code == 4
    assert "Did you mean words?" in result.stderr
    result = aipctl("graph", "status:stale", "--root", str(root))
    assert result.exit_code == 64
    assert "status:stale, which is not known here" in result.stderr


def test_ls_declared(root: Path) -> None:
    """`ls --declared` lists what is declared, with nothing running."""
    answer = json.loads(aipctl("ls", "--declared", "--root", str(root), "--json").stdout)
    assert answer["project"] == "notes"
    assert [(row["asset"], row["kind"], row["tags"], row["owner"], row["units"]) for row in answer["assets"]] == [
        ("pages", "source", [], "Ada L", None),
        ("words", "asset", ["text"], None, None),
        ("index", "asset", ["report"], None, None),
    ]
    assert "Ada L" in aipctl("ls", "--declared", "--root", str(root)).stdout


def test_stdout_holds_the_answer_and_nothing_else(root: Path) -> None:
    """Even a child process that writes to the inherited stdout does not reach the answer."""
    assets = root / "projects" / "notes" / "assets.py"
    assets.write_text("import os\nos.system('echo from a child')\n" + assets.read_text())
    command = [sys.executable, "-m", "assetcore", "graph", "--root", str(root), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert len(json.loads(done.stdout)["nodes"]) == 3
    assert "from a child" in done.stderr
    assert "in two ways" in done.stderr


def test_json_is_whole_in_any_encoding(root: Path) -> None:
    """Where the encoding of stdout lacks a character, JSON escapes it: no value is another one."""
    assets = root / "projects" / "notes" / "assets.py"
    assets.write_text(assets.read_text().replace("Ada L", "Jürgen 日本"), "utf-8")
    command = [sys.executable, "-m", "assetcore", "ls", "--declared", "--root", str(root), "--json"]
    for encoding in ("latin-1", "utf-8"):
        variables = {**os.environ, "PYTHONIOENCODING": encoding}
        done = subprocess.run(command, env=variables, capture_output=True, timeout=60, check=True)
        assert json.loads(done.stdout.decode(encoding))["assets"][0]["owner"] == "Jürgen 日本"
        assert ("Jürgen" in done.stdout.decode(encoding)) == (encoding == "utf-8")


@pytest.mark.parametrize(
    "verb", ["graph", "--help", "ls --help", "completion bash", "graph nosuch --json", "graph --json"]
)
def test_a_reader_that_goes_away(root: Path, verb: str) -> None:
    """`aipctl ... | head` ends quietly, with the exit code of a broken pipe; an error is told, and ends with its own."""
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "assetcore", *verb.split()]
    options = {"cwd": root, "stdout": writing, "stderr": subprocess.PIPE, "text": True, "timeout": 60}
    done = subprocess.run(command, **options, check=False)
    os.close(writing)
    expected = (4, 1) if "nosuch" in verb else (141, 0)
    assert (done.returncode, done.stderr.count("error")) == expected, done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


def test_a_full_disk_below_stdout_is_told(root: Path) -> None:
    """The answer that cannot be written is one sentence, with --json as well."""
    command = [sys.executable, "-m", "assetcore", "graph", "--json"]
    with open("/dev/full", "w") as full:
        options = {"cwd": root, "stdout": full, "stderr": subprocess.PIPE, "text": True, "timeout": 60}
        done = subprocess.run(command, **options, check=False)
    assert (done.returncode, done.stderr.splitlines()[-1]) == (1, "error: No space left on device.")
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


def test_a_pipe_of_somebody_else_is_no_reader_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection of a service, or a pipe of the project's own, that breaks is told, with --json as well."""

    def raises(*_: object) -> NoReturn:
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr(grammar, "parse", raises)
    result = aipctl("plan", "a", "--json")
    assert (result.exit_code, json.loads(result.stdout)["error"]["exit_code"]) == (69, 69)
    assert "A service cannot be reached: [Errno 32] Broken pipe" in result.stderr


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_signals(name: str, code: int) -> None:
    """Ctrl-C and SIGTERM let a coroutine leave things in order, and have exit codes of their own."""
    program = f"""
import asyncio, signal, sys
from assetcore.cli.call import Terminated, _run
signal.signal(signal.SIGINT, signal.default_int_handler)
async def work():
    try:
        asyncio.get_running_loop().call_later(0.05, signal.raise_signal, signal.{name})
        await asyncio.sleep(30)
    finally:
        await asyncio.sleep(0.01)
        print("in order")
try:
    _run(work())
except KeyboardInterrupt:
    sys.exit(130)
except Terminated as ended:
    sys.exit(ended.exit_code)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (code, "in order\n")


@pytest.mark.parametrize(("number", "code"), [("SIGTERM", 143), ("SIGINT", 130)])
@pytest.mark.parametrize("holds", ["time.sleep(600)", "exec('while True: pass')"])
def test_one_signal_ends_what_holds_the_loop(root: Path, holds: str, number: str, code: int) -> None:
    """Code of a project that never returns, such as an import that waits for a server, does not keep a command from ending."""
    program = f"""
import os, signal, sys, threading, time
from assetcore.cli import call
call.GRACE = 0.2
def work():
    threading.Timer(0.2, os.kill, [os.getpid(), signal.{number}]).start()
    {holds}
async def at_work():
    work()
signal.signal(signal.SIGINT, signal.default_int_handler)
try:
    call._run(at_work())
except call.Terminated as ended:
    sys.exit(ended.exit_code)
except KeyboardInterrupt:
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    sys.exit(130)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=20, check=False)
    assert (done.returncode, done.stderr) == (code, "")


# --- a new project ----------------------------------------------------------------------------------------------------


def test_new_project(tmp_path: Path) -> None:
    """A new project is a small example that loads; an existing one is never touched."""
    result = aipctl("new", "project", "my_notes", "--root", str(tmp_path))
    assert result.exit_code == 0, result.stderr
    assert "aipctl materialize -p my_notes" in result.stdout
    assert sorted(path.name for path in (tmp_path / "data" / "my_notes").iterdir()) == ["first.txt", "second.txt"]
    again = aipctl("new", "project", "my_notes", "--root", str(tmp_path), "--json")
    assert again.exit_code == 64
    assert "already" in json.loads(again.stdout)["error"]["message"]
    second = json.loads(aipctl("new", "project", "other", "--root", str(tmp_path), "--json").stdout)
    assert "projects/other/assets.py" in second["files"]
    answer = json.loads(aipctl("graph", "-p", "my_notes", "--root", str(tmp_path), "--json").stdout)
    assert [node["asset"] for node in answer["nodes"]] == ["pages", "words", "frequencies"]


async def test_new_project_works(tmp_path: Path) -> None:
    """The functions of a new project can be called as they are."""
    aipctl("new", "project", "my_notes", "--root", str(tmp_path))
    spec = importlib.util.spec_from_file_location("scaffolded", tmp_path / "projects" / "my_notes" / "assets.py")
    assert spec is not None
    assert spec.loader is not None
    assets = importlib.util.module_from_spec(spec)
    sys.modules["scaffolded"] = assets
    try:
        spec.loader.exec_module(assets)
        words = await assets.words(assets.Page(name="a.txt", text="to be or not to be"))
    finally:
        del sys.modules["scaffolded"]
    assert [(word.text, word.count) for word in words] == [("be", 2), ("not", 1), ("or", 1), ("to", 2)]


# --- for people -------------------------------------------------------------------------------------------------------

LONG = "a_rather_long_name_of_an_asset_that_somebody_has_given_to_it"


def asset_plan(asset: str, units: int, stale: int = 0, **more: Any) -> dict[str, Any]:
    causes = {"input-changed": stale} if stale else {}
    row = {
        "asset": asset,
        "units": units,
        "fresh": units - stale,
        "stale": stale,
        "pending": 0,
        "removed": 0,
        "causes": causes,
    }
    return row | more


def planned(*assets: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "project": "handbook",
        "environment": "prod",
        "stale": sum(row["stale"] for row in assets),
        "assets": list(assets),
        "sources": [{"source": "topics", "documents": 79, "new": 0, "changed": 2, "removed": 1}],
        "up_to_date": not any(row["stale"] for row in assets),
        "estimate": {"seconds": 12.3, "tokens": None, "usd": None},
        **more,
    }


def test_plan_for_people() -> None:
    """A plan says how many are stale and why, for each asset and in one sentence."""
    text = drawn(show.plan(planned(asset_plan("chunks", 12345, 16), asset_plan("index", 1))))
    assert "topics: 79 documents, 2 changed, 1 removed" in text
    assert "12,345" in text
    assert text.endswith("16 stale (input-changed 16): about 12 s.\n")
    assert "Fresh: index" in text
    assert "pending" not in text
    assert "Everything is up to date." in drawn(show.plan(planned(asset_plan("index", 1), sources=[])))


def test_hints_are_commands_that_can_be_copied() -> None:
    """What a hint tells to call has the selection or the REF in it, quoted as a shell needs it."""
    answer = planned(asset_plan("frequencies", 1), stale_inputs=["words"])
    assert "aipctl materialize 'tag:a or b' --upstream" in drawn(show.plan(answer, "tag:a or b"), 200)
    erased = {"ref": "pages[a b.txt]", "dry_run": True, "assets": [], "documents": 1, "objects": 1, "bytes": 1}
    for there, said in (
        (True, "\nThe source still has it: remove it there"),
        (None, "\nIf the source still has it: remove"),
        (False, ""),
    ):
        rest = {"lost": {}, "file": None, "tombstone": None, "in_source": there}
        told = drawn(show.forgotten({**erased, **rest}), 200)
        assert "aipctl forget 'pages[a b.txt]' --yes" in told
        assert said in told
        assert ("takes it in again" in told) == bool(said)


def test_plan_with_units() -> None:
    """`plan --units` lists the units with their causes; a label is printed as it is, whatever it holds."""
    details = [{"unit": "[red]a b", "status": "stale", "causes": ["missing"]}]
    text = drawn(show.plan(planned(asset_plan("chunks", 1, 1, details=details)), units=True))
    assert "  [red]a b  stale (missing)" in text
    assert "[red]" not in drawn(show.plan(planned(asset_plan("chunks", 1, 1, details=details))))


def test_plan_with_roots() -> None:
    """`plan --why` groups the roots by cause, with how much waits for each and what was and is."""
    root = {"detail": "the config value a.b was changed", "before": 1, "after": 2, "units": 3}
    group = {"code": "config-changed", "stale": 3, "pending": 4, "removed": 2, "roots": [root]}
    text = drawn(show.plan(planned(asset_plan("chunks", 3, 3), why=[group])))
    assert "config-changed: 3 stale, 4 pending, 2 removed\n  the config value a.b was changed (3 units)\n" in text
    assert "\n    1 -> 2\n" in text


DIFF = "--- a.txt (made with)\n+++ a.txt (now)\n@@ -1 +1 @@\n-old\n+new"


def test_a_changed_document_is_told_by_both_ids_beside_the_difference_of_its_text() -> None:
    """Each version can be shown by its id, which no digest of code can."""
    document = {
        "code": "input-changed",
        "detail": "pages[a] was changed",
        "before": "aaaaaa",
        "after": "bbbbbb",
        "diff": DIFF,
    }
    code = document | {"code": "code-changed", "before": "c" * 64, "after": "d" * 64}
    text = drawn(show.why({"unit": "one[a]", "fresh": False, "status": "stale", "causes": [document, code]}))
    assert text.startswith(
        "one[a] is stale:\n  input-changed: pages[a] was changed\n    aaaaaa -> bbbbbb\n    --- a.txt (made with)\n"
    )
    assert (text.count("->"), text.count("+new")) == (1, 2)


def test_a_plan_tells_how_long_a_unit_takes_and_from_how_many_that_is_known() -> None:
    """Of what takes a second in all, and of what costs anything."""
    slow = UnitCosts(734, Spread(3.9, 6.2), Spread(835, 2600), Spread(0.002, 0.006))
    quick = UnitCosts(40, Spread(0.0021, 0.018))
    known = [Estimate("summaries", 10, 0, slow), Estimate("pages", 300, 0, quick), Estimate("words", 40, 0, quick)]
    estimates = [one.to_json() for one in (*known, Estimate("index", 0, 3, slow))]
    text = drawn(show.plan(planned(asset_plan("chunks", 3, 3), estimates=estimates)), width=200)
    assert (
        "summaries: 3.9 s a unit (p90 6.2 s), 0.02 USD (p90 0.06 USD), 8,350 tokens (p90 26,000), from 734 units\n"
        in text
    )
    assert "pages: 2.1 ms a unit (p90 18 ms), from 40 units\n" in text
    assert "words" not in text


@pytest.mark.parametrize("width", [80, 60])
def test_tables_fit(width: int) -> None:
    """No table is wider than the terminal, and no name is cut."""
    rows = [asset_plan(LONG, 1_234_567, 1_000_000, pending=234, removed=5), asset_plan("b", 10**6)]
    text = drawn(show.plan(planned(*rows)), width)
    assert max(map(len, text.splitlines())) <= width
    assert "1,234,567" in text
    counts = dict.fromkeys(("made", "unchanged", "reused", "fresh", "removed", "failed", "skipped"), 123456)
    result = {"run": "r1", "status": "failed", "assets": [{"asset": LONG, "seconds": 3723.0} | counts], "seconds": 1.0}
    text = drawn(show.outcome(result), width)
    assert max(map(len, text.splitlines())) <= width
    assert "failed 123,456" in text or "   123,456" in text
    assert "1 h 2 min" in text
    assert LONG in text.replace("\n", "")


def test_the_counts_of_runs_are_those_that_each_run_said() -> None:
    """What happened to the documents of a source is in the source's own row, and in no sum of units."""
    counts = dict.fromkeys(("made", "unchanged", "skipped"), 0)
    units = {"asset": "chunks", "seconds": 1.0, "reused": 11, "removed": 4, "failed": 1} | counts
    documents = {
        "asset": "topics",
        "seconds": 1.0,
        "reused": 700,
        "removed": 800,
        "failed": 20,
        "kind": "source",
    } | counts
    about = {
        "run": "r1",
        "environment": "main",
        "started_at": "2026-11-20T14:30:00+00:00",
        "status": "done",
        "seconds": 1.0,
    }
    answer = about | {"selection": "", "actor": "ada@box", "flow_run": None, "assets": [units, documents]}
    text = drawn(show.runs({"runs": [answer]}), 120)
    assert re.search(r"done +1\.0 s +0 +21 +11 +4\n", text), text
    assert "700" in drawn(show.run(answer), 120)


def test_what_could_not_be_read_in_a_source_is_counted() -> None:
    """The rows of a result are of what is made; the failures are of all, and the sentence counts them."""
    counts = dict.fromkeys(("made", "reused", "fresh", "removed", "failed", "skipped"), 0) | {"unchanged": 14}
    failure = {"asset": "topics", "unit": "topics", "error": "topics: a.txt is not UTF-8", "traceback": ""}
    answer = {"run": "r7", "status": "failed", "seconds": 1.0, "assets": [{"asset": "chunks", "seconds": 1.0} | counts]}
    text = drawn(show.outcome(answer | {"failures": [failure, failure]}), 200)
    assert "failed in 1.0 s: 14 unchanged, 2 failed. The next run makes what failed and what is missing." in text


def test_outcome_for_people() -> None:
    """A result names what was made, each failure with the user's own traceback, and what the next run will do."""
    row = {
        "asset": "chunks",
        "made": 5,
        "unchanged": 1,
        "reused": 0,
        "fresh": 70,
        "removed": 0,
        "failed": 1,
        "skipped": 0,
        "seconds": 1.25,
    }
    failure = {
        "asset": "chunks",
        "unit": "with] [b]",
        "error": "ValueError: no",
        "traceback": "File x, line 3\n    raise ValueError",
    }
    answer = {
        "run": "r7",
        "flow_run": None,
        "status": "failed",
        "assets": [row],
        "failures": [{**failure, "unit": "other", "traceback": "File y, line 4"}, *[failure] * 11],
        "seconds": 61.2,
    }
    text = drawn(show.outcome(answer))
    assert "reused" not in text
    assert 'chunks["with] [b]"] failed: ValueError: no' in text
    assert "  File x, line 3" in text
    assert "  File y, line 4" in text
    assert text.count("File x, line 3") == 1  # all of them have it
    assert "and 2 more failures" in text
    assert (
        "Run r7 failed in 1 min 1 s: 5 made, 1 unchanged, 1 failed. The next run makes what failed and what is missing."
        in " ".join(text.split())
    )
    idle = answer | {"status": "nothing to do", "assets": [], "failures": []}
    assert drawn(show.outcome(idle)) == "Everything is up to date: nothing was run.\n"


def test_why_for_people() -> None:
    """The causes of a stale unit come with before and after, or with a diff."""
    causes = [
        {"code": "config-changed", "detail": "chunks.size", "before": 500, "after": None},
        {
            "code": "code-changed",
            "detail": "split was changed",
            "before": "ab",
            "after": "cd",
            "diff": "--- a\n+++ b\n-x\n+y\n",
        },
    ]
    text = drawn(show.why({"unit": "chunks[with]", "fresh": False, "status": "stale", "causes": causes}))
    assert "chunks[with] is stale:\n  config-changed: chunks.size\n    500 -> nothing\n" in text
    assert "    -x\n    +y\n" in text
    assert drawn(show.why({"unit": "chunks[with]", "fresh": True, "causes": []})) == "chunks[with] is fresh.\n"


def node(identity: str, document: str) -> dict[str, Any]:
    return {"id": identity, "asset": "chunks", "unit": "u", "document": document, "sha256": identity * 4}


def test_lineage_for_people() -> None:
    """Lineage is a tree from the root in the direction that was asked for; what was shown is not shown again."""
    nodes = [node("a", "a"), node("b", "b"), node("c", 'c"<x>'), node("d", "d")]
    edges = [["d", "b"], ["d", "c"], ["b", "a"], ["c", "a"]]
    up = {"root": "d", "direction": "up", "nodes": nodes, "edges": edges}
    assert drawn(show.lineage(up)).splitlines() == [
        "chunks[u]/d",
        "├── chunks[u]/b",
        "│   └── chunks[u]/a",
        '└── chunks[u]/c"<x>',
        "    └── chunks[u]/a",
    ]
    assert drawn(show.lineage(up | {"root": "chunks[u]"})).startswith("chunks[u]/d\n")
    assert "fewer steps" in drawn(show.lineage(up | {"truncated": True}))
    assert r'n2 [label="chunks[u]/c\"<x>"]' in show.dot(up)
    assert "  n1 -> n3;" in show.dot(up)
    assert "  n3 -> n1;" in show.dot(up | {"direction": "down"})
    assert 'n2["chunks[u]/c&quot;&lt;x&gt;"]' in show.mermaid(up)
    read = nx.parse_graphml(show.graphml(up))
    assert (list(read.predecessors("d")), list(read.successors("a"))) == (["b", "c"], ["b", "c"])
    assert [read.nodes[n]["label"] for n in "cd"] == ['chunks[u]/c"<x>', "chunks[u]/d"]


def test_long_lineage_is_drawn_without_recursion() -> None:
    """A chain of thousands, and a node with thousands of children, are no problem."""
    chain = [str(number) for number in range(5000)]
    answer = {
        "root": "0",
        "direction": "down",
        "nodes": [node(n, n) for n in chain],
        "edges": [[n, str(int(n) + 1)] for n in chain[:-1]],
    }
    assert len(show.dot(answer)) > 5000
    star = answer | {"edges": [["0", n] for n in chain[1:]]}
    assert "and 4,979 more" in drawn(show.lineage(star))
    assert "chunks[u]/50  ..." in drawn(show.lineage(answer))


def test_services_for_people() -> None:
    """How each service is, or what is wrong and how to mend it, beside its name however long."""
    well = {
        "name": "postgres",
        "ok": True,
        "address": "postgresql://h/db",
        "version": "18.4",
        "latency_ms": 1.2,
        "problem": "",
        "remedy": "",
    }
    ill = {
        "name": "redis",
        "ok": False,
        "address": "",
        "version": "",
        "latency_ms": None,
        "problem": "it is not running " * 9,
        "remedy": "aipctl up",
    }
    first, second, *more = drawn(show.services({"services": [well, ill]})).splitlines()
    assert first.rstrip() == "postgres  ok   18.4  1.2 ms  postgresql://h/db"
    assert second.startswith("redis     bad  it is not running")
    assert more[-1].rstrip().endswith("(aipctl up)")
    assert all(len(line) <= 80 and line.startswith(" " * 15) for line in more)
    given = {"name": "environment", "value": "night", "origin": "argument"}
    told = drawn(show.checked({"services": [well], "settings": [given, {**given, "name": "s3", "origin": "default"}]}))
    assert "environment  night  argument" in told
    values = [("a", None), ("b", True), ("c", 16), ("d", ["owner"]), ("e", "-")]
    rows = drawn(show.settings({"settings": [{"name": n, "value": v, "origin": "x"} for n, v in values]})).splitlines()
    assert [row.split() for row in rows[2:]] == [
        ["a", "-", "x"], ["b", "true", "x"], ["c", "16", "x"], ["d", '["owner"]', "x"], ["e", "-", "x"],
    ]  # fmt: skip
    assert "s3" not in told
    assert "1 setting by default: aipctl config show" in told


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (9.94, "9.9 s"), (9.96, "10 s"), (59.4, "59 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")],
)
def test_durations(seconds: float, text: str) -> None:
    """Durations are as exact as anybody needs."""
    assert show.duration(seconds) == text


# --- progress ---------------------------------------------------------------------------------------------------------


def test_plain_progress() -> None:
    """Without a terminal, progress is plain lines, and a long asset says how far it is every few seconds."""
    now, stream = 0.0, io.StringIO()
    report = Lines(stream, clock=lambda: now)
    report(Event("observed", "topics", 79, text="0 new, 2 changed, 0 gone"))
    report(Event("planned", total=1200, text="run 1f"))
    report(Event("asset-started", "chunks"))
    for done in range(0, 1200, 100):
        now += 1.0
        report(Event("progress", "chunks", done=done, total=1200))
    report(Event("unit-failed", "chunks", text="chunks[with]: ValueError: no"))
    report(Event("asset-finished", "chunks", 1200, text="1,199 made, 1 failed"))
    report(Event("message"))
    assert stream.getvalue().splitlines() == [
        "topics: 79 documents (2 changed)",
        "run 1f: 1,200 units to make",
        "chunks: 400 of 1,200",
        "chunks: 900 of 1,200",
        "chunks[with]: ValueError: no",
        "chunks: 1,199 made, 1 failed",
    ]


def test_bars_on_a_terminal() -> None:
    """On a terminal there are bars while something runs, and lines for what is done."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    with reporting(stream) as report:
        report(Event("asset-started", "chunks"))
        report(Event("progress", "chunks", done=5, total=10))
        report(Event("asset-finished", "chunks", done=10))
    assert "chunks: 10 made" in stream.getvalue()


def test_a_process_that_calls_the_command_is_not_ended_by_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only `aipctl` itself ends in time when Prefect is loaded: a program that calls it goes on."""
    import threading
    import types

    from assetcore.cli import end_in_time

    monkeypatch.setitem(sys.modules, "prefect", sys.modules.get("prefect") or types.ModuleType("prefect"))
    before = set(threading.enumerate())
    end_in_time(0)
    assert set(threading.enumerate()) <= before


SENDING = """
import asyncio, sys
from prefect.events.clients import NullEventsClient
from prefect.events.schemas.events import Event, Resource
from prefect.events.worker import EventsWorker
from assetcore.cli import end_in_time

class Slow(NullEventsClient):
    async def _emit(self, event):
        await asyncio.sleep(0.05)

sys.argv = ["aipctl"]
for number in range(3):
    EventsWorker.instance(Slow).send(Event(event="done", resource=Resource({"prefect.resource.id": str(number)})))
end_in_time(0)
"""


def test_a_command_ends_without_a_word_of_what_prefect_is_still_sent(tmp_path: Path) -> None:
    """Events go on to Prefect when all is done; that some are left is no news, and stderr is for what is."""
    variables = os.environ | {"PREFECT_API_URL": "http://127.0.0.1:9/api", "PREFECT_HOME": str(tmp_path)}
    ended = subprocess.run([sys.executable, "-c", SENDING], env=variables, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


def test_lineage_in_the_words_of_openlineage() -> None:
    """A unit that made something is a job event; the documents that it was given and made are datasets with their hashes."""
    answer = {"root": "2", "direction": "up", "nodes": [node("1", "a"), node("2", "b")], "edges": [["2", "1"]]}
    (event,) = show.openlineage(answer, "assetcore://demo/prod", datetime(2026, 11, 20, tzinfo=UTC))
    assert event["eventTime"] == "2026-11-20T00:00:00+00:00"
    assert event["job"] == {"namespace": "assetcore://demo/prod", "name": "chunks[u]"}
    assert [d["name"] for d in event["inputs"]] == ["chunks[u]/a"]
    assert [d["facets"]["version"]["datasetVersion"] for d in event["outputs"]] == ["2222"]
    assert event["schemaURL"].endswith("#/$defs/JobEvent")


def test_no_name_is_broken_however_narrow_the_terminal() -> None:
    """What can be copied into the next command stands in one line: units, REFs, ways, trees, and what a row is named by. The list of
    `plan --units` fits the terminal.
    """
    unit = "Jahresbericht über die Entwicklung der Abteilung/日本語の長いファイル名/" + "long_" * 20 + "(final).txt"
    ref = f"chunks[{unit}]"
    counts = {"units": 1, "fresh": 0, "stale": 1, "pending": 0, "removed": 0, "causes": {"failed": 1}}
    failed = {
        "code": "failed", "detail": "ValueError: no\nTraceback, of it", "subject": ref, "before": None, "after": None, "path": [ref],
        "units": 2,
    }  # fmt: skip
    report = {
        "asset": "chunks", "check": "short", "scope": "unit", "blocking": False, "status": "failed", "passed": 0, "failed": 1,
        "errors": 0, "due": False, "findings": [{"unit": unit, "status": "failed", "message": "too long"}],
    }  # fmt: skip
    row = {"asset": "chunks", **counts, "details": [{"unit": unit, "status": "stale", "causes": ["failed"]}]}
    group = {"code": "failed", "stale": 1, "pending": 0, "removed": 0, "roots": [failed]}
    lines = drawn(show.plan({"assets": [row], "why": [group], "checks": [report]}, units=True), 60).splitlines()
    for told in (
        f"  {ref}: ValueError: no (2 units)",
        f"    through {ref}",
        f"  {unit}: too long",
    ):
        assert told in lines
    asked = drawn(show.why({"unit": ref, "fresh": False, "status": "stale", "causes": [failed]}), 60).splitlines()
    assert asked[0] == f"{ref} is stale:"
    result = dict.fromkeys(("made", "unchanged", "reused", "removed", "failed", "skipped", "fresh"), 0)
    failure = {"asset": "chunks", "unit": unit, "error": "ValueError: no", "traceback": ""}
    answer = {
        "run": "r1",
        "status": "failed",
        "seconds": 1,
        "assets": [{"asset": "chunks", **result}],
        "failures": [failure],
    }
    assert f"{ref} failed: ValueError: no" in drawn(show.outcome(answer), 60).splitlines()
    nodes = [node(name, name) | {"unit": unit} for name in "acb"]
    tree = {"root": "c", "direction": "up", "nodes": nodes, "edges": [["c", "b"], ["c", "a"]]}
    assert drawn(show.lineage(tree), 60).splitlines() == [f"{ref}/c", f"├── {ref}/a", f"└── {ref}/b"]
    listed = [{"document": unit, "id": "abc234", "size": 1, "media_type": "text/plain", "unit": name} for name in "ab"]
    assert drawn(show.documents({"documents": listed}), 60).splitlines().count(unit) == 2


def test_the_place_of_a_part_is_one_line_or_several() -> None:
    """Lines are told from the first to the last, and a single one as what it is."""
    about = {"document": "pages[a]", "kind": "bytes", "start": 1, "end": 2, "pointer": None, "sources": []}
    for last, told in ((3, "line 3"), (4, "lines 3 to 4")):
        place = {"first": 3, "last": last, "before": [], "lines": ["x"] * (last - 2), "after": []}
        assert drawn(show.context(about | {"place": place})).splitlines()[0] == f"pages[a]: bytes 1 to 2, {told}"


def test_history_and_comparisons_for_people() -> None:
    """A history has a line a change; a comparison of two times names the documents that differ and counts all of them."""
    change = {
        "at": "2026-11-20T14:30:00+00:00", "run": "r1", "actor": "ada@box", "what": "reused", "causes": ["input-changed"],
        "documents": [{"document": "a", "id": "abc234"}], "made_by": "r0", "counts": None,
        "units": None, "asked": None,
    }  # fmt: skip
    run = change | {
        "what": "done",
        "counts": {"made": 3, "failed": 1},
        "units": {"code-changed": 2, "pending": 1},
        "documents": [],
    }
    promoted = run | {"what": "failed", "counts": {"reused": 5}, "units": None, "asked": "promote pr"}
    text = " ".join(drawn(show.history({"ref": "a", "changes": [change, run, promoted]})).split())
    told = ("3 made, 1 failed", "2 code-changed, 1 pending", "failed, 5 reused", "promote pr")
    for word in ("reused", "input-changed, made by r0", "ada@box", "abc234", *told):
        assert word in text
    gone = {"document": "a[b]", "change": "gone", "before": "abc234", "after": None}
    text = drawn(show.comparison({"diff": None, "same": False, "documents": [gone], "counts": {"gone": 3, "new": 1}}))
    assert "and 3 more" in text
    assert text.endswith("1 new, 3 gone.\n")


def test_more_than_any_table_holds_is_all_of_it() -> None:
    """A number that Postgres could not take is one that it can."""
    assert COUNT.convert("99999999999999999999", None, None) == 2**31 - 1
    assert COUNT.convert("7", None, None) == 7


def test_what_is_closed_is_not_asked() -> None:
    """Begun without stdin, stdout or stderr, the command does what it does, and what it would say goes nowhere."""
    command = f'"{sys.executable}" -m assetcore completion bash >&- 2>&- <&-'
    assert subprocess.run(command, shell=True, check=False).returncode == 0  # only a shell closes them so


def test_the_journal_is_a_table_at_eighty_columns() -> None:
    """Digests are told by their beginning, an environment's own rows name it, and who did it stands where there is room."""
    about: dict[str, Any] = {
        "at": "2026-11-20T12:00:00+00:00",
        "actor": "ada@laptop",
        "names": [],
        "forgotten": 0,
        "why": None,
        "run": None,
    }
    rows = [
        {**about, "number": 1, "what": "env create", "asset": None, "environment": "pr-17", "facts": {"from": "prod"}},
        {**about, "number": 2, "what": "accept", "asset": "search_definitions", "environment": "prod",
         "facts": {"asset_id": 7, "old": "ab" * 32, "new": "cd" * 32, "sampled": 4}},
    ]  # fmt: skip
    text = drawn(show.journal({"journal": rows}))
    assert all(len(line) <= 80 for line in text.splitlines())
    assert "when" in text.splitlines()[0], "a table, not a paragraph for each row"
    assert "pr-17" in text
    assert "abababab" in text
    assert "ab" * 6 not in text
    assert "A wider terminal also shows: actor, environment." in text
    assert "ada@laptop" in drawn(show.journal({"journal": rows}), 140)
