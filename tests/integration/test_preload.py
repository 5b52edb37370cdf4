"""The preloader: a command that is forked of it is the command that was called, and nothing else."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from assetcore import preload
from assetcore.settings import Settings
from tests.integration.command import AIPCTL, Command, end, lease_runs_out, until
from tests.integration.world import World

pytestmark = pytest.mark.integration

BODY = """
import asyncio, os, sys, time

sys.stderr.write(f"parent {os.getppid()}\\n")

@asset
async def seen(topic: Topic = each(topics)) -> Topic:
    return Topic(topic.name, text=f"{os.environ.get('TOLD')} {os.getcwd()}")

@asset
async def slow(topic: Topic = each(topics)) -> Topic:
    if topic.text == "wait":
        await asyncio.sleep(600)
    if topic.text == "wait in a thread":
        await asyncio.to_thread(time.sleep, 600)
    assert topic.text != "broken", "there is nothing in it"
    return topic
"""
SERVE = "import sys; from assetcore import preload; preload.LOOK_SECONDS = 0.2; preload.serve(*sys.argv[1:])"
LIMITED = "import os, resource as r, sys; r.setrlimit(r.RLIMIT_NOFILE, (512, 512)); os.execv(sys.argv[1], sys.argv[1:])"
ANOTHER = "from assetcore import preload; preload.code_stamp = lambda: ['another']; preload.main()"
DIGEST = "import sys; from assetcore.preload import digest; sys.stdout.write(digest())"


@dataclass(frozen=True)
class Preloaded:
    """A command whose home has a preloader, and that preloader."""

    aipctl: Command
    process: subprocess.Popen[bytes]

    def forks(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children()


@contextmanager
def serving(home: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A preloader of this home."""
    asked = subprocess.run([sys.executable, "-c", DIGEST], capture_output=True, check=True)
    socket = home / preload.SOCKET
    process = subprocess.Popen([sys.executable, "-c", SERVE, str(socket), asked.stdout.decode()], cwd=home)
    try:
        until(socket.exists)
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, subprocess.Popen[bytes]]]:
    home = tmp_path_factory.mktemp("home" * 30)  # longer than a socket's name may be
    with serving(home) as process:
        yield home, process


@pytest.fixture
def world(settings: Settings) -> World:
    world = World(settings)
    world.code(BODY)
    world.document("a.txt", "one")
    return world


@pytest.fixture
def preloaded(world: World, variables: dict[str, str], shared: tuple[Path, subprocess.Popen[bytes]]) -> Preloaded:
    home, process = shared
    return Preloaded(Command(world.root, variables | {"ASSETCORE_HOME": str(home)}), process)


def forked(preloaded: Preloaded, command: Sequence[str] = (AIPCTL,), **variables: str) -> bool:
    """Whether a command came of the preloader: the project tells the number of its parent when it is imported."""
    environment = {**preloaded.aipctl.variables, "COLUMNS": "80", **variables}
    ended = subprocess.run(
        [*command, "ls"], cwd=preloaded.aipctl.root, env=environment, check=True, capture_output=True, text=True
    )
    return f"parent {preloaded.process.pid}\n" in ended.stderr


def begun(process: subprocess.Popen[str]) -> None:
    """Wait until a run tells what it will make."""
    assert process.stderr is not None
    until(lambda: "to make" in process.stderr.readline())  # pyright: ignore[reportOptionalMemberAccess]


async def test_a_fork_has_the_arguments_folder_environment_and_files_of_its_caller(preloaded: Preloaded) -> None:
    """What a unit sees is what the caller has; the answer is on the caller's stdout, and the exit code its own."""
    made = preloaded.aipctl("materialize", "seen", "--local", "--json", variables={"TOLD": "täglich"})
    assert (made.code, made.json["status"]) == (0, "done")
    assert f"parent {preloaded.process.pid}\n" in made.err
    assert preloaded.aipctl("show", "seen[a.txt]").out.split() == ["täglich", str(preloaded.aipctl.root)]
    wrong = preloaded.aipctl("show", "nothing")
    assert (wrong.code, wrong.out) == (4, "")
    assert "nothing" in wrong.err
    assert preloaded.aipctl("nonsense").code == 64
    until(lambda: not preloaded.forks())  # the preloader takes notice of the last one a moment after its caller


async def test_a_failed_unit_ends_a_fork_with_1(world: World, preloaded: Preloaded) -> None:
    """The exit code of a run in which a unit failed is that of a command which imports for itself."""
    world.document("a.txt", "broken")
    for environment in ({}, {"ASSETCORE_PRELOAD": "0"}):
        ended = preloaded.aipctl("materialize", "slow", "--local", variables=environment)
        assert ended.code == 1
        assert "there is nothing in it" in ended.err


ENDING = """
import atexit, pathlib, sys, threading, time

def last() -> None:
    time.sleep(0.3)
    pathlib.Path("thread").touch()

threading.Thread(target=last).start()
atexit.register(pathlib.Path("registered").touch)
atexit.register(sys.stdout.write, "x" * 100_000 + " the end")
"""


@pytest.mark.parametrize("environment", [{}, {"ASSETCORE_PRELOAD": "0"}])
async def test_what_is_registered_for_the_end_is_done(
    world: World, preloaded: Preloaded, environment: dict[str, str]
) -> None:
    """A command ends without taking down what it had imported, and not before its threads, and what they and others leave to the end."""
    world.code(ENDING)
    ended = preloaded.aipctl("ls", variables=environment)
    assert ended.code == 0, ended.err
    assert ended.err.endswith("x the end")  # what a project prints while it is imported goes there
    assert (world.root / "thread").exists()
    assert (world.root / "registered").exists()


@pytest.mark.parametrize("environment", [{}, {"ASSETCORE_PRELOAD": "0"}])
async def test_who_reads_no_further_is_no_error(preloaded: Preloaded, environment: dict[str, str]) -> None:
    """As in `aipctl ls | head -1`: nothing is said of it."""
    aipctl = shlex.quote(str(AIPCTL))
    piped = subprocess.run(
        f"{aipctl} ls --help | head -c 1; {aipctl} ls --json | head -c 1", shell=True, cwd=preloaded.aipctl.root,
        env={**preloaded.aipctl.variables, **environment}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert [line for line in piped.stderr.splitlines() if not line.startswith("parent ")] == []


@pytest.mark.parametrize("how", ["wait", "wait in a thread"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_signals_reach_the_fork(world: World, preloaded: Preloaded, number: signal.Signals, how: str) -> None:
    """Ctrl-C and SIGTERM end a run in good order, with their exit codes, and the next run makes the rest."""
    world.document("a.txt", how)
    process = preloaded.aipctl.start("materialize", "slow", "--local")
    begun(process)
    process.send_signal(number)
    assert process.wait(30) == {signal.SIGINT: 130, signal.SIGTERM: 143}[number]
    until(lambda: not preloaded.forks())
    world.document("a.txt", "well")
    assert preloaded.aipctl("materialize", "slow", "--local", "--json").json["assets"][0]["made"] == 1


async def test_a_fork_dies_with_its_caller(world: World, preloaded: Preloaded) -> None:
    """`kill -9` of the command leaves no process behind; a fork that is killed is told as that."""
    world.document("a.txt", "wait")
    for victim in ("caller", "fork"):
        process = preloaded.aipctl.start("materialize", "slow", "--local")
        begun(process)  # a fork that is killed before is none: the command would import for itself
        (fork,) = preloaded.forks()
        if victim == "caller":
            process.kill()
            assert process.wait(10) == -signal.SIGKILL
        else:
            fork.kill()
            assert process.wait(10) == preload.LOST
            assert "was killed" in process.communicate()[1]
        until(lambda: not preloaded.forks())
        end(process)
        await lease_runs_out(world.settings)


async def test_a_command_that_would_import_otherwise_does_so_itself(preloaded: Preloaded) -> None:
    """Variables that are read by imports, options of Python, limits and closed files: such a command is no fork."""
    assert forked(preloaded)
    assert not forked(preloaded, PYTHONHASHSEED="7")
    assert not forked(preloaded, PREFECT_LOGGING_LEVEL="DEBUG")
    assert not forked(preloaded, ASSETCORE_PRELOAD="false")
    assert not forked(preloaded, [sys.executable, "-c", LIMITED, AIPCTL])
    assert not forked(preloaded, [sys.executable, "-X", "utf8", "-m", "assetcore"])
    assert not forked(preloaded, ["/bin/sh", "-c", 'exec "$0" "$@" <&-', AIPCTL])
    assert forked(preloaded, [sys.executable, "-m", "assetcore"])


async def test_a_preloader_that_is_stopped_holds_nothing_of_a_command(preloaded: Preloaded) -> None:
    """A command that it does not answer imports for itself, and who reads what the command says sees the end of it."""
    preloaded.process.send_signal(signal.SIGSTOP)
    try:
        assert not forked(preloaded)
    finally:
        preloaded.process.send_signal(signal.SIGCONT)
    assert forked(preloaded)


async def test_a_preloader_ends_when_its_code_has_changed_and_when_its_home_is_gone(
    world: World, variables: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Another state of the files of assetcore is imported by the command itself; at its next look the preloader misses its socket."""
    home = tmp_path_factory.mktemp("home")
    aipctl = Command(world.root, variables | {"ASSETCORE_HOME": str(home)})
    with serving(home) as process:
        another = home / "aipctl"
        another.write_text(ANOTHER, "utf-8")
        ended = subprocess.run(
            [sys.executable, another, "ls"],
            cwd=world.root,
            env=aipctl.variables,
            check=True,
            capture_output=True,
            text=True,
        )
        assert f"parent {os.getpid()}\n" in ended.stderr
        assert process.wait(30) == 0
        assert not (home / preload.SOCKET).exists()
    with serving(home) as process:
        assert f"parent {process.pid}\n" in aipctl("ls").err
        (home / preload.SOCKET).unlink()
        assert process.wait(30) == 0
        assert f"parent {os.getpid()}\n" in aipctl("ls").err


async def test_a_preloader_of_another_user_is_not_asked(preloaded: Preloaded, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a command hands over holds secrets: only a process of the same user gets it."""
    path = str(Path(preloaded.aipctl.variables["ASSETCORE_HOME"], preload.SOCKET))
    preload._connected(path).close()
    monkeypatch.setattr(os, "geteuid", lambda: 1 + os.getuid())
    with pytest.raises(PermissionError, match="another user"):
        preload._connected(path)
