"""The README says what is so: commands, options, settings, causes, rooms and examples."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import pytest

from assetcore import __version__, errors
from assetcore.assets import Options
from assetcore.cli import VERBS, main
from assetcore.declarations import INSTEAD
from assetcore.grammar import FIELDS, parse
from assetcore.layers import PREFIX
from assetcore.lineage.vectors import CANDIDATES, WIDEST
from assetcore.settings import Settings
from assetcore.staleness import CAUSES
from tests import readme

PROJECT = tomllib.loads((readme.REPOSITORY / "pyproject.toml").read_text("utf-8"))
TARGETS = re.findall(r"^([a-z-]+):", (readme.REPOSITORY / "Makefile").read_text("utf-8"), re.MULTILINE)
COMMANDS = [shown.command for shown in readme.consoles()] + list(readme.inline())


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the project that the README's examples are."""
    folder = tmp_path_factory.mktemp("readme")
    for example in readme.examples():
        path = folder / example.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(example.body, "utf-8")
    (folder / "projects" / "notes" / "__init__.py").touch()
    return folder


@pytest.mark.parametrize("command", sorted({c for c in COMMANDS if re.match(r"(\.venv/bin/)?aipctl\b", c)}))
def test_every_aipctl_call_in_the_readme_is_one_that_exists(command: str) -> None:
    """Its verb exists, and each of its options is one of that verb's."""
    words = shlex.split(command)[1:]
    if not words:
        return
    _options_exist(_verb(words), [word for word in words if word.startswith("-")])


@pytest.mark.parametrize("command", sorted({c for c in COMMANDS if re.match(r"make\b", c)}))
def test_every_make_call_in_the_readme_names_a_target(command: str) -> None:
    """`make` alone is the program; otherwise what is not an assignment is a target of the Makefile."""
    for word in shlex.split(command)[1:]:
        assert "=" in word or word in TARGETS, f"{command}: the Makefile has no target {word}"


def test_the_table_of_verbs_has_every_verb_with_options_of_its_own() -> None:
    """Each verb of `aipctl --help` has a row, and the options in the row are that verb's."""
    told = set()
    for calls, text in readme.table("verb", "what it does"):
        verbs = [_verb(shlex.split(call.replace("[", "").replace("]", ""))[1:]) for call in readme.code(calls)]
        told.update(shlex.split(call)[1] for call in readme.code(calls))
        _options_exist(verbs[0], [c.split()[0] for c in readme.code(text) if c.startswith("--")])
    assert told == {verb for section in VERBS.values() for verb in section}


def test_the_table_of_answers_has_every_verb_that_answers_with_json() -> None:
    """Each verb with --json has a row with the keys of its answer, and only what is a verb has one."""
    told = [call for row in readme.table(*readme.ANSWERS) for call in readme.code(row[0]) if call.startswith("aipctl")]
    assert len(told) == len(set(told))
    verbs = [verb for section in VERBS.values() for name in section for verb in _verbs(name)]
    answering = {verb for verb in verbs if any("--json" in parameter.opts for parameter in verb.params)}
    assert {_verb(shlex.split(call)[1:]) for call in told} == answering
    for call in told:
        keys = readme.keys(call)
        at_the_top = keys.pop("")
        assert at_the_top.always, f"{call}: the README names no key"
        assert set(keys) <= at_the_top.always | at_the_top.sometimes, f"{call}: the rows of nothing are told"


def test_options_that_the_readme_names_alone_are_options_of_some_verb() -> None:
    """`--force` in a sentence is an option of at least one verb."""
    verbs = [verb for section in VERBS.values() for name in section for verb in _verbs(name)]
    known = {option for verb in verbs for p in verb.params for option in (*p.opts, *p.secondary_opts)}
    for text in readme.inline():
        if text.startswith("-"):
            assert text.split()[0] in known, f"{text} is an option of no verb"


def test_the_table_of_exit_codes_is_that_of_the_errors() -> None:
    """Every error class stands in the row of its exit code, and in no other."""
    told = {
        name: int(row[0])
        for row in readme.table("exit code", "meaning", "errors")
        if row[2]
        for name in readme.code(row[2])
    }
    classes = {n: c for n, c in vars(errors).items() if isinstance(c, type) and issubclass(c, errors.AssetcoreError)}
    assert told == {name: cls.exit_code for name, cls in classes.items()}


def test_the_table_of_settings_has_every_setting_with_its_variable() -> None:
    """All but `root`, which is where one is; each with the variable that sets it, and with its default where it is a number."""
    told, defaults = set(), dict[str, str]()
    for names, variables, about in readme.table("setting", "variable", "what it is"):
        told.update(readme.code(names))
        name, variable = readme.code(names)[0], readme.code(variables)[0]
        assert variable in (f"{PREFIX}{name.upper()}", name.upper())
        if number := re.search(r": ([\d.]+)$", about):
            defaults[name] = number[1]
    assert told == set(Settings.model_fields) - {"root"}
    fields = {name: field.default for name, field in Settings.model_fields.items()}
    assert defaults == {
        n: f"{d:g}" for n, d in fields.items() if isinstance(d, int | float) and not isinstance(d, bool)
    }


def test_the_causes_in_the_readme_are_those_that_a_plan_gives() -> None:
    """The table of section "When something is stale" names each cause once."""
    told = [name for row in readme.table("what happened", "what is made", "cause") for name in readme.code(row[2])]
    assert sorted(told) == sorted(CAUSES)


def test_the_selections_in_the_readme_can_be_read() -> None:
    """Each selection in the table parses, and every field of the grammar is shown."""
    shown = [text for row in readme.table("selection", "chooses") for text in readme.code(row[0])]
    for text in shown:
        parse(text)
    assert {text.split(":")[0] for text in shown if re.match(r"\w+:", text)} == {*FIELDS, "unit"}


def test_the_options_of_asset_in_the_readme_are_those_it_takes() -> None:
    """The list "`@asset(...)` takes" is the list of options, in their order."""
    listed = re.search(r"`@asset\(\.\.\.\)` takes (.*?);", readme.TEXT, re.DOTALL)
    assert listed is not None
    ours = [name for name in Options.__dataclass_fields__ if name in readme.code(listed[1])]
    assert sorted(readme.code(listed[1])) == sorted(ours) == sorted(Options.__dataclass_fields__)


def test_the_rooms_in_the_readme_are_those_of_the_house_with_the_questions_of_their_docstrings() -> None:
    """One row a room, from the roof down as in the import contract, and the drawing is that of pyproject.toml."""
    layers = PROJECT["tool"]["importlinter"]["contracts"][0]["layers"]
    rooms = [room for layer in layers for room in re.split(r"\s*[:|]\s*", layer)]
    assert readme.table("room", "its question") == [[f"`{room}`", _question(room)] for room in rooms]
    drawn = re.search(
        r"^# The house.*\n#\n((?:#.*\n)+)", (readme.REPOSITORY / "pyproject.toml").read_text(), re.MULTILINE
    )
    assert drawn is not None
    assert "\n".join(line[2:].rstrip() for line in drawn[1].splitlines()) in readme.TEXT


def test_the_reasons_for_a_service_of_its_own_are_told() -> None:
    """The five for which a part is taken out of the one process stand among the decisions."""
    [decision] = re.findall(r"^\* \*\*One process with workers.*?(?=^\* )", readme.TEXT, re.MULTILINE | re.DOTALL)
    listed = re.search(r"one of five reasons: (.*?)\.", " ".join(decision.split()))
    assert listed is not None
    reasons = [re.sub(r"^(or |an? )+", "", reason) for reason in listed[1].split(", ")]
    assert reasons == [
        "language boundary", "scaling hotspot", "SLA divergence", "team ownership", "regulatory isolation",
    ]  # fmt: skip


def test_what_stands_in_the_place_of_options_is_told() -> None:
    """The options that a declaration refuses with what to write instead are named as not there; those that it has are not."""
    missing = " ".join(cells[0] for cells in readme.table("not there", "what stands in its place"))
    named = set(re.findall(r"@asset\((\w+)=", missing))
    assert named <= INSTEAD.keys() - Options.__dataclass_fields__.keys()
    assert not INSTEAD.keys() & Options.__dataclass_fields__.keys()


def test_the_known_ceilings_are_those_of_the_code() -> None:
    """What vectors take follows from their numbers; what HNSW can hold and be asked for is as in the code."""
    [text] = re.findall(r"^\*\*Known ceilings\.\*\*.*?^Not there:", readme.TEXT, re.MULTILINE | re.DOTALL)
    numbers = 5_000_000 * 768
    assert f"{numbers * 4 / 1e9:.1f} GB as 32-bit floats" in text
    assert f"{numbers * 2 / 1e9:.1f} GB in its" in text
    assert f"over up to {WIDEST:,} numbers" in text
    assert f"for up to {CANDIDATES:,} candidates" in text


def test_links_and_files_in_the_readme_are_there() -> None:
    """Anchors are headings, also those of another file, and paths that begin with a folder of the repository exist."""
    for here, text in readme.TEXTS.items():
        for target in re.findall(r"\]\(([^)]+)\)", text):
            path, _, anchor = target.partition("#")
            there = (here.parent / path).resolve() if path else here
            assert there.exists(), f"{target} is not there"
            assert not anchor or anchor in _anchors(readme.TEXTS[there]), f"{target} is no heading"
    for path in readme.inline():
        if re.fullmatch(r"(stack|projects/handbook|tests|\.github)/[\w./-]+", path):
            assert (readme.REPOSITORY / path).exists(), f"{path} is not there"
        elif re.fullmatch(r"(storage|lineage)/\w+\.py", path):
            assert (readme.REPOSITORY / "assetcore" / path).exists(), f"{path} is not there"


def _anchors(text: str) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


def test_the_changelog_ends_with_this_version() -> None:
    """The newest version in CHANGELOG.md is that of the package."""
    versions = re.findall(r"^## (\d\S*)", (readme.REPOSITORY / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert versions[0] == PROJECT["project"]["version"] == __version__


def test_the_first_example_is_what_a_new_project_begins_with(tmp_path: Path) -> None:
    """`aipctl new project notes` writes the file that the README shows first."""
    main(["new", "project", "notes", "--root", str(tmp_path)], standalone_mode=False)
    first = readme.examples()[0]
    assert (tmp_path / first.path).read_text("utf-8") == first.body


def test_the_examples_can_be_loaded_and_their_test_passes(root: Path) -> None:
    """The examples are a project without mistakes, and its test is run as a reader would run it."""
    script = "import pathlib, assetcore; print(*assetcore.load(pathlib.Path(), 'notes').assets)"
    loaded = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=False)
    assert loaded.returncode == 0, loaded.stderr
    places = [f"projects/notes/{module}.py" for module in ("assets", "forms", "days")]
    modules = [example.body for example in readme.examples() if example.path in places]
    declared = re.findall(r"^(?:async )?def (\w+)\(|^(\w+) = source", "\n".join(modules), re.MULTILINE)
    functions = {name for pair in declared for name in pair if name} - {"read_greetings"}
    assert set(loaded.stdout.split()) == functions
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", ".", "tests/test_notes.py"]
    tested = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert tested.returncode == 0, tested.stdout


def _verb(words: list[str]) -> click.Command:
    """The command that these words call."""
    command: click.Command = main
    for word in words:
        if not isinstance(command, click.Group) or word.startswith("-"):
            break
        found = command.get_command(click.Context(command), word)
        assert found is not None, f"aipctl has no verb {word}"
        command = found
    return command


def _verbs(name: str) -> list[click.Command]:
    """The verb of this name; of a group its verbs, which are those that can be called."""
    command = _verb([name])
    return list(command.commands.values()) if isinstance(command, click.Group) else [command]


def _options_exist(command: click.Command, options: list[str]) -> None:
    known = {option for p in command.params for option in (*p.opts, *p.secondary_opts)} | {"--help", "-h"}
    for option in options:
        assert option.partition("=")[0] in known, f"{command.name} has no option {option}"


def _question(room: str) -> str:
    """The first line of a room's docstring, without the room's name."""
    file = readme.REPOSITORY / "assetcore" / f"{room}.py"
    file = file if file.exists() else file.with_suffix("") / "__init__.py"
    return (ast.get_docstring(ast.parse(file.read_text("utf-8"))) or "").splitlines()[0].partition(": ")[2]
