"""Processes: is the service that we started still running, and how is one started that outlives the command?"""

from __future__ import annotations

import os
import random
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from assetcore.errors import ServiceError
from assetcore.stack.home import Home, Service

LOG_BYTES = 10_000_000
PORTS = range(20_000, 30_000)
"""Of which ours are: above those of well-known programs, below those of a cluster's nodes."""
PORTS_TRIED = 100
# The shell forks the command and ends: the service becomes a child of init, belongs to no terminal, and leaves no zombie here.
DETACHED = '"$@" <"$0" 1>&2 & echo $!'


def launch(
    name: str,
    command: Sequence[str | Path],
    home: Home,
    *,
    cwd: Path,
    env: Mapping[str, str],
    account: Mapping[str, Any] | None = None,
    held: int | None = None,
    reads: str | Path = os.devnull,
) -> tuple[int, str]:
    """Start a command that outlives us, its output in the log of the home; returns number and birth of the process.

    `held` is an open file that it inherits (see `Home.holding`), `reads` what it finds on stdin.
    """
    with home.writing():
        log = home.log(name)
        if log.exists() and log.stat().st_size > LOG_BYTES:
            log.replace(log.with_suffix(".old.log"))
        with log.open("ab") as output:
            shell = subprocess.run(
                ["/bin/sh", "-c", DETACHED, *map(str, [reads, *command])],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=output,
                cwd=cwd,
                env=dict(env),
                start_new_session=True,
                check=True,
                pass_fds=() if held is None else (held,),
                **(account or {}),
            )
    pid = int(shell.stdout)
    return pid, born(pid)


def born(pid: int) -> str:
    """When the process started, empty when there is none: two processes with one number differ in it.

    On Linux in ticks of a boot: clocks are set right, and laptops sleep, which moves a start time that is told in hours.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()[:8]
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
        return "" if state in "ZX" else f"{boot}-{fields[18]}"
    except (OSError, IndexError):
        pass
    try:
        process = psutil.Process(pid)
        return "" if process.status() == psutil.STATUS_ZOMBIE else str(round(process.create_time()))
    except psutil.Error:
        return ""


def alive(service: Service) -> bool:
    """Whether the remembered process still runs, and is not another one that got its number after a reboot."""
    return service.pid != 0 and service.born != "" and born(service.pid) == service.born


def runs_with(pid: int, text: str) -> bool:
    """Whether `pid` runs and has `text` on its command line: recognises a service of ours whose record was lost."""
    try:
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE and any(text in word for word in process.cmdline())
    except psutil.Error:
        return False


def end(service: Service, signal: int, seconds: float = 20) -> None:
    """End the process and its children: politely, and with SIGKILL when that takes too long."""
    if not alive(service):
        return
    try:
        process = psutil.Process(service.pid)
        family = [process, *process.children(recursive=True)]
        process.send_signal(signal)
    except psutil.NoSuchProcess:
        return
    except psutil.AccessDenied as error:
        raise ServiceError(
            f"Process {service.pid} belongs to user '{error.name or 'another'}' and cannot be stopped by you.",
            hint="Stop it as the user who started it.",
        ) from error
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and any(map(_running, family)):
        time.sleep(0.02)
    for member in family:
        if _running(member):
            member.kill()
    while any(map(_running, family)) and time.monotonic() < deadline + 5:
        time.sleep(0.02)


def wait_for_end(pid: int, seconds: float = 5) -> None:
    """Wait until a process that has ended holds no port any more: the last of its threads closes what it had open.

    Where a machine is busy, that is a moment after nothing is left of the process but its number. Nobody else's process is waited for.
    """
    deadline = time.monotonic() + seconds
    with suppress(psutil.Error, ValueError):
        process = psutil.Process(pid)
        while _is_ending(process) and time.monotonic() < deadline:
            time.sleep(0.005)


def _running(process: psutil.Process) -> bool:
    try:
        return process.is_running() and (process.status() != psutil.STATUS_ZOMBIE or _is_ending(process))
    except psutil.Error:
        return False


def _is_ending(process: psutil.Process) -> bool:
    return process.status() == psutil.STATUS_ZOMBIE and process.num_threads() > 1


def free_port(preferred: int = 0) -> int:
    """The preferred port if nobody has it, else one that the system gives to nobody unasked, else any that it gives.

    Whoever connects to somewhere leaves from a port that the system chooses. A service that had one of those could find it taken
    when it was started again, and changed its address.
    """
    for port in (*([preferred] if preferred else []), *_unasked_for(), 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return probe.getsockname()[1]
    raise ServiceError("There is no free port on 127.0.0.1.", hint="Close programs that listen there.")


def _unasked_for() -> list[int]:
    """Some ports below those that the system chooses of; none where it chooses of all."""
    try:
        lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except OSError:
        lowest = PORTS.stop  # other systems choose of 49,152 and above
    ports = range(PORTS.start, min(PORTS.stop, lowest))
    return random.sample(ports, min(PORTS_TRIED, len(ports)))


def listens(port: int) -> bool:
    """Whether somebody accepts connections on this port of 127.0.0.1."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def heard_at(service: Service) -> list[tuple[str, int]]:
    """The addresses and ports where its process accepts connections; none where that cannot be known."""
    try:
        connections = psutil.Process(service.pid).net_connections("inet")
    except psutil.Error:
        return []
    return [(one.laddr.ip, one.laddr.port) for one in connections if one.status == psutil.CONN_LISTEN]


def lost_its_port(service: Service, home: Home, name: str) -> bool:
    """Whether a service has ended because another program had its port: between being found free and being taken it is nobody's."""
    return free_port(service.port) != service.port or "already in use" in tail(home.log(name)).lower()


def did_not_start(name: str, home: Home, what: str) -> ServiceError:
    """The sentence for a service that ended or hangs, with what it said last."""
    return ServiceError(
        f"{name} {what}. Its last words:\n{tail(home.log(name))}", hint=f"The whole log is {home.log(name)}"
    )


def tail(file: Path, lines: int = 8) -> str:
    try:
        with file.open("rb") as content:
            content.seek(max(0, os.fstat(content.fileno()).st_size - 8000))
            last = content.read().decode("utf-8", "replace").splitlines()[-lines:]
    except OSError:
        last = []
    return "\n".join(f"    {line[:300]}" for line in last if line.strip()) or "    (nothing)"
