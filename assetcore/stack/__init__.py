"""The stack: which services run for this home, and are they well?

    up      start what the settings give no address for; returns the addresses
    preload start the process that commands are forked of
    at_work which runs would be stopped with the services
    down    stop what was started
    check   ask every service: address, version, latency, or what is wrong and what to do
    chosen  the settings, with the kind of store that the home has
    clean   stop, and remove the home with all data

A service whose address is in the settings is used and never started. `up` costs a few milliseconds when all runs: it reads
services.json, looks at the processes, and knocks at their ports. Only then does it take the lock and start what is missing.
"""

from __future__ import annotations

import asyncio
import importlib
import re
import shutil
import time
from collections.abc import Awaitable, Callable, Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from pathlib import Path
from typing import Protocol, TypeVar
from urllib.parse import urlsplit

from assetcore.errors import ServiceError
from assetcore.settings import EMBEDDED, NAME, Settings, masked
from assetcore.stack import gateway, postgres, prefect, preloader, redis, s3, store
from assetcore.stack.home import Home, Service, unusable
from assetcore.stack.process import alive, did_not_start, heard_at, listens, lost_its_port, wait_for_end
from assetcore.stack.trouble import Trouble, connection_trouble

OUR_NAMES = (
    ".gitignore",
    "names.json",
    "services.json",
    "secrets.json",
    "held",
    "lock",
    "logs",
    "postgres",
    "redis",
    "prefect",
    "store",
    "s3",
    "gateway",
    "preloader",
)

MOVES = 3
"""How often a service is started again because another program has taken its port before it did."""
Progress = Callable[[str], None]
T = TypeVar("T")
RUN_LOCK = "assetcore:run:"
"""What the name of a lock in Redis begins with that a run holds; project:environment follows."""
RUN_LEASE = 30.0
"""After so many seconds the lock of a run that died is free."""
COMPACTING = "(gc)"
"""Stands in the place of an environment for the lock of what compacts, for which no run stops."""
FORGETTING = "(forget)"
"""As that: whoever forgets holds the environments that there are, and the first run in another one waits for this."""

APART = "it is this machine's own: runs of other machines and clones on this database are not held up, nor do they share limits of pools"
SHARE = "Set REDIS_URL to one that all of them use."


class Server(Protocol):
    """What the modules `postgres`, `redis`, `prefect`, `s3` and `gateway` offer."""

    @property
    def SETTING(self) -> str: ...
    @property
    def CLIENT(self) -> str: ...
    @property
    def START_SECONDS(self) -> float: ...

    def start(self, home: Home, remembered: Service) -> Service: ...
    def found(self, home: Home) -> Service | None: ...
    def stop(self, home: Home, service: Service) -> None: ...
    def reset_password(self, home: Home, service: Service) -> Service: ...
    def address(self, home: Home, service: Service) -> str: ...
    async def probe(self, url: str) -> str: ...


SERVERS: dict[str, Server] = {"postgres": postgres, "redis": redis, "store": s3, "prefect": prefect, "gateway": gateway}
ALL = frozenset(SERVERS)
COMMON = ALL - {"gateway"}
"""What `up` starts unasked: the gateway is for those who ask models."""


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the services are. An address is empty when that service was not asked for and does not run."""

    database_url: str = field(repr=False)
    redis_url: str = field(repr=False)
    storage_url: str
    prefect_api_url: str
    storage_endpoint: str = ""  # this and what follows: of an S3 server
    storage_region: str = ""
    storage_key: str = field(default="", repr=False)
    storage_secret: str = field(default="", repr=False)
    openai_base_url: str = ""
    openai_api_key: str = field(default="", repr=False)

    def applied_to(self, settings: Settings) -> Settings:
        """The settings with these addresses: what every other room works with."""
        known = {name: getattr(self, name) for name in self.__slots__ if getattr(self, name)}
        return settings.using(EMBEDDED, **{k: v for k, v in known.items() if getattr(settings, k) != v})


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """What `check` learned of one service; `problem` and `remedy` are empty when it is well, and nothing is to be said of it."""

    name: str
    ok: bool
    address: str
    version: str = ""
    latency_ms: float | None = None
    problem: str = ""
    remedy: str = ""


async def up(
    settings: Settings,
    services: Iterable[str] = COMMON,
    on_progress: Progress | None = None,
    *,
    ahead: Iterable[str] = (),
) -> Addresses:
    """Start what is asked for and does not run, wait until it answers, and return the addresses.

    `ahead` names services to start without waiting for them, so that a later `up` finds them ready. Raises ServiceError.
    """
    home = Home(settings.home)
    say = on_progress or (lambda _: None)
    needed, sooner = set(services), set(ahead) - set(services)
    if unknown := (needed | sooner) - ALL:
        raise ValueError(f"unknown services {sorted(unknown)}; known: {sorted(ALL)}")
    await _each(_knock_at_given(settings, name) for name in needed)
    needed, sooner = ({n for n in names if _embedded(settings, home, n)} for names in (needed, sooner))
    remembered = home.services()
    if "gateway" in needed | sooner:
        home.prepare()
        gateway.prepare(settings, home)
        if not alive(remembered.get("gateway", Service())):
            await asyncio.to_thread(gateway.install, home)  # takes a while, and other commands need not wait for it
    if not all(_runs(home, name, remembered, name in needed) for name in needed | sooner):
        home.prepare()
        async with home.lock(lambda: say("waiting for another command that starts or stops the services")):
            await _unbroken(_each(asyncio.to_thread(_start, home, name) for name in sorted(needed | sooner)))
        await _each(_ready(home, name, say) for name in sorted(needed))
    return _addresses(settings, home, needed)


def has_run(settings: Settings, name: str) -> bool:
    """Whether the embedded service was ever started for this home: then it may keep something."""
    return name in Home(settings.home).services()


async def preload(settings: Settings, *, wait: bool = False) -> None:
    """Start the process that later commands are forked of, unless it runs or is not wanted. No command needs it: see its log."""
    home = Home(settings.home)
    if not preloader.wanted(settings) or preloader.in_its_way(home) is not None:
        return
    if not alive(home.services().get(preloader.NAME, Service())):
        home.prepare()
        async with home.lock():
            if not alive(home.services().get(preloader.NAME, Service())):
                home.remember(preloader.NAME, await asyncio.to_thread(preloader.start, home, settings))
    if wait:
        await asyncio.to_thread(preloader.settle, home, home.services()[preloader.NAME])


def apart(settings: Settings) -> bool:
    """Whether the database may be that of many machines, while the locks of runs are in the Redis of this one."""
    return settings.is_given("database_url") and not settings.is_given("redis_url")


async def at_work(settings: Settings, projects: Collection[str] = ()) -> list[str]:
    """The runs that hold a lock in the Redis of this home, as `project (environment)`; in one that others share, those of these projects.

    Raises ServiceError where it does not answer.
    """
    home = Home(settings.home)
    services = _running(home)
    service = services.get("redis", Service())
    url, shared = settings.redis_url, True
    if url is None:
        if not service.pid or not home.has_secret("redis"):
            return []
        url, shared = redis.address(home, service), False
    elif not services:
        return []
    held = await redis.keys(url, RUN_LOCK)
    named = (key.removeprefix(RUN_LOCK).split(":", 1) for key in held)
    return [
        f"{project} ({environment.strip('()')})" for project, environment in named
        if not environment.endswith(":fence") and (not shared or project in projects)
    ]  # fmt: skip


def where_runs_may_be(environments: Iterable[str]) -> list[str]:
    """Those whose locks say whether a run is at work, in order: in one of a name that none can have, as other locks have, none is."""
    return sorted(name for name in environments if re.fullmatch(NAME, name))


async def down(settings: Settings, on_progress: Progress | None = None) -> None:
    """Stop every service that was started for this home, also one whose record was lost; their data stays."""
    home = Home(settings.home)
    say = on_progress or (lambda _: None)
    if not home.services() and not _running(home):
        return
    async with home.lock():
        running = _running(home)
        await _unbroken(_each(asyncio.to_thread(_stop, home, *one) for one in running.items()))
    for name in running:
        say(f"{name} stopped")


async def clean(settings: Settings, on_progress: Progress | None = None) -> None:
    """Stop everything and remove the home; from a folder that we did not make, only what is ours."""
    home = Home(settings.home)
    if not home.path.exists():
        return
    await down(settings, on_progress)
    outside = postgres.outside_folder(home, home.services().get("postgres", Service()))
    ours = [home.path] if home.made_by_us() else [home.path / name for name in OUR_NAMES]
    for path in ours if outside is None else [outside, *ours]:
        try:
            await asyncio.to_thread(_remove, path)
        except OSError as error:
            raise unusable(home.path, error) from error
    if outside is not None:
        with suppress(OSError):  # other homes have theirs there
            outside.parent.rmdir()


def _remove(path: Path) -> None:
    if path.is_symlink() and path.is_dir():  # a home on a larger disk
        shutil.rmtree(path.resolve())
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


async def check(settings: Settings) -> list[ServiceStatus]:
    """Ask every service how it is, all at once; starts nothing. A gateway that nobody has asked for yet is well."""
    home = Home(settings.home)
    services = home.services()
    for name in SERVERS:
        if name not in ("store", "gateway") or _embedded(settings, home, name):
            importlib.import_module(SERVERS[name].CLIENT)  # before the clock runs: the latency is the service's
    unasked = (
        {"gateway"} if _embedded(settings, home, "gateway") and not services.get("gateway", Service()).pid else set()
    )
    names = [name for name in SERVERS if name not in unasked]
    found = await asyncio.gather(*(_server_status(settings, home, services, name) for name in names))
    if preloader.wanted(settings) and (path := preloader.in_its_way(home)) is not None:
        found.append(
            ServiceStatus(
                preloader.NAME, False, "", problem=f"{path} is not its socket", remedy="Move that, or remove it."
            )
        )
    elif alive(services.get(preloader.NAME, Service())):
        found.append(
            ServiceStatus(
                preloader.NAME, True, str(preloader.socket(home)), "" if preloader.listens(home) else "still imports"
            )
        )
    if apart(settings):
        told = {"problem": APART, "remedy": SHARE}
        found = [replace(one, **told) if one.ok and one.name == "redis" else one for one in found]
    return [*found, *(ServiceStatus(name, True, "", "starts when a model is first asked") for name in unasked)]


def chosen(settings: Settings) -> Settings:
    """The settings, with the kind of store that this home has where they leave that open."""
    if not s3.chosen(settings, Home(settings.home)):
        return settings
    left_open = {"s3": True} if settings.s3 is None else {}
    return settings.using("aipctl up --s3", storage_url=s3.URL, **left_open)


def _embedded(settings: Settings, home: Home, name: str) -> bool:
    """Whether a server is started here: the settings give no address for it; and for the store, it is to be more than a folder."""
    return s3.chosen(settings, home) if name == "store" else getattr(settings, SERVERS[name].SETTING) is None


async def _knock_at_given(settings: Settings, name: str) -> None:
    """A service that somebody else runs must at least listen; what it says is for `check`."""
    url = "" if name == "store" else getattr(settings, SERVERS[name].SETTING) or ""
    parts = urlsplit(url)
    if not parts.hostname or "," in parts.netloc:
        return
    port = parts.port or {"http": 80, "https": 443, "redis": 6379, "rediss": 6379}.get(parts.scheme, 5432)
    try:
        async with asyncio.timeout(5):
            _, writer = await asyncio.open_connection(parts.hostname, port)
        writer.close()
    except (OSError, TimeoutError) as error:
        trouble = connection_trouble(error, SERVERS[name].SETTING)
        raise ServiceError(
            f"{name} at {masked(url)} cannot be used: {trouble.problem}.", hint=trouble.remedy
        ) from error


def _runs(home: Home, name: str, services: dict[str, Service], ready: bool) -> bool:
    """Whether nothing is to be done for a service: it runs, and when it must be ready it has answered and still listens."""
    service = services.get(name, Service())
    if not alive(service) or (name != "prefect" and not home.has_secret(name)):
        return False
    if name == "gateway" and gateway.outdated(home, service):
        return False
    return not ready or (service.ready and listens(service.port))


def _start(home: Home, name: str) -> None:
    """Start one service unless it runs; what is hung or cannot be spoken to is stopped first. Runs in a thread, under the lock."""
    server, service = SERVERS[name], home.services().get(name, Service())
    if alive(service):
        if _runs(home, name, {name: service}, service.ready):
            return
        server.stop(home, service)
    else:
        wait_for_end(service.pid)
    home.remember(name, server.start(home, service))


def _running(home: Home) -> dict[str, Service]:
    """What runs for this home; also what only its own files speak of, as the record was lost."""
    remembered = home.services()
    rooms = {**SERVERS, preloader.NAME: preloader}
    known = {name: service for name in rooms if alive(service := remembered.get(name, Service()))}
    found = {name: service for name, room in rooms.items() if name not in known and (service := room.found(home))}
    return known | found


def _stop(home: Home, name: str, service: Service) -> None:
    (preloader if name == preloader.NAME else SERVERS[name]).stop(home, service)
    home.remember(name, service.stopped())


async def _ready(home: Home, name: str, say: Progress) -> None:
    """Wait until a service answers with our password, and remember that it did."""
    server = SERVERS[name]
    service = home.services()[name]
    if service.ready and alive(service):
        return
    begun = time.monotonic()
    say(f"{name} is starting")
    mended, moves, look = False, MOVES, 0.25
    while True:
        trouble = None
        if listens(service.port):
            try:
                version = await server.probe(server.address(home, service))
                break
            except Trouble as error:
                trouble = error
        if not alive(service):
            if not moves or not lost_its_port(service, home, name):
                raise did_not_start(name, home, "ended while it was starting")
            moves -= 1
            async with home.lock():
                await _unbroken(asyncio.to_thread(_start, home, name))
            service = home.services()[name]
            continue
        if trouble is not None and trouble.kind == "password" and not mended:
            mended = True
            async with home.lock():
                service = await _unbroken(asyncio.to_thread(_reset_password, home, name))
        if time.monotonic() - begun > server.START_SECONDS:
            if heard_at(service) and (
                trouble is None or trouble.kind != "starting"
            ):  # it will never be what was asked for
                await _end(home, name, service)
            why = f": {trouble.problem}" if trouble else ""
            raise did_not_start(name, home, f"does not answer after {server.START_SECONDS:.0f} s{why}")
        if time.monotonic() - begun > look:
            look *= 2
            await _end_if_open(home, name, service)
        await asyncio.sleep(0.02)
    await _end_if_open(home, name, service)
    async with home.lock():
        if home.services().get(name) == service:
            home.remember(name, replace(service, ready=True))
    say(f"{name} is ready: {version} on port {service.port} ({time.monotonic() - begun:.1f} s)")


async def _end_if_open(home: Home, name: str, service: Service) -> None:
    """No service of ours is for others than this machine's: one that listens to them has not read how it was to start."""
    if others := [place for place in heard_at(service) if not ip_address(place[0]).is_loopback]:
        await _end(home, name, service)
        raise did_not_start(
            name, home, f"listened on {others[0][0]} port {others[0][1]}, open to other machines, and was ended"
        )


async def _end(home: Home, name: str, service: Service) -> None:
    async with home.lock():
        if home.services().get(name) == service:
            await _unbroken(asyncio.to_thread(_stop, home, name, service))


def _reset_password(home: Home, name: str) -> Service:
    return home.remember(name, SERVERS[name].reset_password(home, home.services()[name]))


def _addresses(settings: Settings, home: Home, needed: set[str]) -> Addresses:
    """Addresses that were given, and those of what was started and answers; not of what is only starting."""
    found: dict[str, str] = {}
    services = home.services()
    for name, server in SERVERS.items():
        if name in needed:
            found |= _settings_for(home, name, services[name])
        else:
            found[server.SETTING] = "" if _embedded(settings, home, name) else getattr(settings, server.SETTING)
    return Addresses(**found)


def _settings_for(home: Home, name: str, service: Service) -> dict[str, str]:
    """The settings with which an embedded service is used."""
    if name == "store":
        return s3.settings_for(home, service)
    if name == "gateway":
        return gateway.settings_for(home, service)
    return {SERVERS[name].SETTING: SERVERS[name].address(home, service)}


async def _server_status(settings: Settings, home: Home, services: dict[str, Service], name: str) -> ServiceStatus:
    service = services.get(name, Service())
    if not _embedded(settings, home, name):
        return await _asked(name, settings)
    if not alive(service):
        problem = "it ended by itself" if service.pid else "it is not running"
        return ServiceStatus(name, False, "", problem=problem, remedy="aipctl up")
    known = settings.using(EMBEDDED, **_settings_for(home, name, service))
    if not service.ready and not listens(service.port):
        return ServiceStatus(name, False, _shown(known, name), problem="it is still starting", remedy="Wait a moment.")
    return await _asked(name, known, remedy="aipctl down && aipctl up")


def _shown(settings: Settings, name: str) -> str:
    """The address of a service, without its password."""
    at = f" at {settings.storage_endpoint}" if name == "store" and settings.storage_endpoint else ""
    return masked(getattr(settings, SERVERS[name].SETTING)) + at


async def _asked(name: str, settings: Settings, remedy: str = "") -> ServiceStatus:
    address = _shown(settings, name)
    begun = time.perf_counter()
    try:
        async with asyncio.timeout(15):
            if name == "store":
                version = await store.probe(settings)
            else:
                url = getattr(settings, SERVERS[name].SETTING)
                if name == "gateway" and settings.openai_api_key is not None:
                    url = gateway.with_key(url, settings.openai_api_key.get_secret_value())
                version = await SERVERS[name].probe(url)
    except TimeoutError:
        return ServiceStatus(
            name, False, address, problem="it does not answer within 15 s", remedy=remedy or "See its log."
        )
    except Trouble as trouble:
        return ServiceStatus(name, False, address, problem=trouble.problem, remedy=remedy or trouble.remedy)
    return ServiceStatus(name, True, address, version, round((time.perf_counter() - begun) * 1000, 1))


async def _each(works: Iterable[Awaitable[None]]) -> None:
    """Do all of it side by side, to the end, and then raise the first error."""
    for result in await asyncio.gather(*works, return_exceptions=True):
        if isinstance(result, BaseException):
            raise result


async def _unbroken(work: Awaitable[T]) -> T:
    """Finish a step before a Ctrl-C takes effect: a service that was started is always remembered."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise
