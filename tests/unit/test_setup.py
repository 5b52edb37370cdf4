"""Set-up: what `make` says and does before anything is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone with a space in its path and nothing made yet; its lock file pins nothing, so that nothing can be fetched."""
    clone = tmp_path / "my clone"
    (clone / "stack").mkdir(parents=True)
    for name in ("Makefile", "pyproject.toml", "stack/run", "stack/environment.py"):
        shutil.copy2(ROOT / name, clone / name)
    (clone / "requirements.lock").touch()
    return clone


OUTER = {"ASSETCORE_HOME", "PYTHON", "MAKEFLAGS", "MAKEOVERRIDES", "MAKELEVEL", "MFLAGS"}
"""What a make around the tests must not hand down to those that they start."""


def call(clone: Path, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    inherited = {key: value for key, value in os.environ.items() if key not in OUTER}
    return subprocess.run(
        command, cwd=clone, env=inherited | variables, capture_output=True, text=True, timeout=60, check=False
    )


def test_make_lists_its_targets(clone: Path) -> None:
    """`make` alone says what there is, and every target it lists exists."""
    shown = call(clone, "make").stdout
    for target in ("materialize", "test", "check", "up", "down", "clean", "bench"):
        assert f"make {target} " in shown
    for line in shown.splitlines():
        assert call(clone, "make", "--dry-run", line.split()[1]).returncode == 0


def test_project_and_selection_reach_the_command_as_they_are(clone: Path) -> None:
    """Quotes, spaces and parentheses in SELECT survive make and the shell."""
    program(clone, "run", 'printf "%s|" "$@"')
    asked = call(
        clone, "make", "materialize", "PROJECT=my project", "SELECT=roots(+index) and not 'a'", "ARGS=--force --json"
    ).stdout
    assert asked == "aipctl|materialize|--project|my project|roots(+index) and not 'a'|--force|--json|"


def test_without_a_new_enough_python_the_answer_is_a_sentence(clone: Path, tmp_path: Path) -> None:
    """With only an old Python on PATH, one sentence says what is needed, what there is, and how to name another."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("python3", "python3.11", "python3.12", "python3.13", "python3.14", "python"):
        program(clone, folder / name, 'test "$1" = --version && echo "Python 3.9.2"; exit 1')
    script = clone / "stack" / "run"
    script.write_text(script.read_text().replace(" /usr/bin/python3;", ";"))
    answer = call(clone, "make", "setup", PATH=f"{folder}:/usr/bin:/bin")
    assert answer.returncode != 0
    assert "assetcore needs Python 3.11 or newer" in answer.stderr
    assert "Python 3.9.2" in answer.stderr
    assert "make PYTHON=" in answer.stderr
    assert "named 'nowhere'" in call(clone, "make", "setup", "PYTHON=nowhere").stderr


def test_a_finished_environment_is_used_at_once(clone: Path) -> None:
    """When the stamp fits, a command starts without a word and without uv, with the environment's programs first on PATH."""
    finished(clone)
    answer = call(clone, "stack/run", "sh", "-c", 'echo "$VIRTUAL_ENV|${PATH%%:*}"')
    assert answer.stdout.strip() == f"{clone}/.venv|{clone}/.venv/bin"
    assert answer.stderr == ""
    assert "no-such-command cannot be run" in call(clone, "stack/run", "no-such-command").stderr


@pytest.mark.parametrize("change", ["requirements.lock", "pyproject.toml", "moved", "python gone"])
def test_an_environment_that_no_longer_fits_is_made_again(clone: Path, change: str) -> None:
    """A changed lock or package, a moved clone and a vanished interpreter are all noticed."""
    finished(clone)
    match change:
        case "moved":
            clone = clone.rename(clone.parent / "elsewhere")
        case "python gone":
            (clone / ".venv/bin/python").unlink()
        case file:
            (clone / file).write_text("# changed\n")
    answer = call(clone, "stack/run", "true", PATH=without_uv())
    assert "making the environment" in answer.stderr
    assert "does not pin uv" in answer.stderr
    assert answer.returncode == 1


def test_a_clone_that_cannot_be_written_to_names_the_way_out(clone: Path) -> None:
    """In a read-only clone the answer names ASSETCORE_HOME, and with it everything goes there."""
    script = clone / "stack" / "environment.py"
    read_only = "os.access = lambda path, mode: str(path) != str(ROOT)\n"  # as root, every folder is writable
    script.write_text(script.read_text().replace("\n\ndef main(", f"\n\n{read_only}\ndef main(", 1))
    answer = call(clone, "stack/run", "true")
    assert answer.returncode == 1
    assert f"{clone} cannot be written to" in answer.stderr
    assert "ASSETCORE_HOME" in answer.stderr
    home = clone.parent / "home"
    answer = call(clone, "stack/run", "true", ASSETCORE_HOME=str(home), PATH=without_uv())
    assert f"making the environment {home}/venv" in answer.stderr
    assert (home / ".gitignore").read_text().startswith("# Made by assetcore")


@pytest.mark.parametrize(("name", "told"), [("a:b", "':'"), ("a\nb", r"'\n'"), (b"a\xffb", r"'\udcff'")])
def test_a_folder_that_no_environment_can_be_in_is_told(clone: Path, name: str | bytes, told: str) -> None:
    """What PATH or Python cannot name is found before anything is fetched; the answer says which folder, what in it, and what to do."""
    moved = clone.rename(clone.parent / os.fsdecode(name))
    answer = call(moved, "make", "setup")
    assert answer.returncode != 0
    assert f"{str(moved)!r}: its name has {told} in it" in answer.stderr
    assert "Rename that folder" in answer.stderr


def test_an_environment_is_made_whatever_else_the_folder_is_called(clone: Path, tmp_path: Path) -> None:
    """The folder is not spelled where uv takes what follows for more than a path: the package is what is in it."""
    moved = clone.rename(tmp_path / 'a [b] 100%20 c?d #e $HOME *\\ "q" é')
    (tmp_path / "bin").mkdir()
    said = tmp_path / "said"
    program(moved, tmp_path / "bin" / "uv", f'echo "$PWD|$*" >>{said}\n[ $1 != venv ] || mkdir -p "$PWD/.venv"')
    assert call(moved, "make", "setup", PATH=f"{tmp_path / 'bin'}:{os.environ['PATH']}").returncode == 0
    assert said.read_text().splitlines()[-1].startswith(f"{moved}|pip install")
    assert said.read_text().splitlines()[-1].endswith("--editable .")


def test_packages_are_fetched_from_whom_the_machine_trusts(clone: Path, tmp_path: Path) -> None:
    """uv asks the machine's certificates, where there are some and the user says nothing else: behind a proxy there are no others."""
    (certificates := tmp_path / "certificates.pem").touch()
    script = "import sys; sys.path.insert(0, 'stack'); import environment as e; print(e.uv_environment(e.ROOT)['UV_SYSTEM_CERTS'])"
    trusting = call(clone, "python3", "-c", script, SSL_CERT_FILE=str(certificates))
    assert trusting.stdout.strip() == "1", trusting.stderr
    assert (
        call(clone, "python3", "-c", script, SSL_CERT_FILE=str(certificates), UV_SYSTEM_CERTS="0").stdout.strip() == "0"
    )
    nowhere = {"SSL_CERT_FILE": str(tmp_path / "none"), "SSL_CERT_DIR": str(tmp_path / "no folder")}
    assert "KeyError" in call(clone, "python3", "-c", script, **nowhere).stderr


def finished(clone: Path) -> None:
    """An environment that is as it should be, as far as the stamp tells."""
    venv = clone / ".venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "python").symlink_to(Path(os.path.realpath(shutil.which("python3") or "/usr/bin/python3")))
    script = "import sys; sys.path.insert(0, 'stack'); import environment as e; print(e.wanted(), e.running_version())"
    stamp = call(clone, str(venv / "bin" / "python"), "-c", script).stdout
    (venv / "assetcore.stamp").write_text(stamp)


def without_uv() -> str:
    return ":".join(folder for folder in os.environ["PATH"].split(":") if not (Path(folder) / "uv").exists())


def program(clone: Path, path: Path | str, text: str) -> None:
    """Write a shell script; a bare name stands for one below stack/."""
    file = clone / "stack" / path
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o755)
