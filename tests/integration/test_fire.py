"""Under fire: processes are killed, run over each other, the store fails, the clock goes back. Nothing is lost, nothing is made twice.

In CI each is a handful; `make soak` does it for longer, with 200 kills (SOAK).
"""

from __future__ import annotations

import asyncio
import gzip
import io
import itertools
import json
import os
import random
import signal
import time
import zipfile
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from urllib.parse import quote, urlsplit

import httpx
import psutil
import pytest
from redis import asyncio as redis

from assetcore import stack as services
from assetcore.catalog import verify_catalog
from assetcore.journal import JournalCheck
from assetcore.refs import format_ref
from assetcore.session import Session
from assetcore.settings import PoolLimits, Settings
from assetcore.stack.home import Home
from tests.integration.command import Command, Ended, lease_runs_out, until
from tests.integration.faults import Fault, proxy_of
from tests.integration.forks import Forks, fork_server
from tests.integration.test_forget import known, stored
from tests.integration.world import World

SOAK = "SOAK" in os.environ
pytestmark = [pytest.mark.integration, *([pytest.mark.timeout(4 * 3600)] if SOAK else [])]

KILLS = int(os.environ.get("SOAK", 6))
LENGTHS = {"materialize": 275, "gc": 160, "promote": 145, "rebuild": 70, "forget": 400}
"""About so much does each verb do to the outer world; longer and shorter as they are killed or come to their end."""
SECONDS_AT_ONCE = 60
ROUNDS = 30 if SOAK else 1

BODY = """
import asyncio
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent

def called(asset, unit):
    with open(ROOT / "calls.log", "a") as log:
        log.write(f"{asset} {unit}\\n")

@asset(concurrency=4)
async def chunks(topic: Topic = each(topics)) -> list[Chunk]:
    called("chunks", topic.name)
    await asyncio.sleep(0.02)
    return [Chunk(name=f"{topic.stem}-{i}", text=word, ordinal=i) for i, word in enumerate(topic.text.split())]

@asset(layout="files")
async def upper(topic: Topic = each(topics), words: list[Chunk] = collect(chunks, per=topics)) -> Report:
    called("upper", topic.name)
    return Report(name=topic.name, text=" ".join(w.text.upper() for w in words))

@asset
async def report(reports: list[Report] = collect(upper)) -> Report:
    called("report", "report")
    return Report(name="report.txt", text="\\n".join(r.text for r in reports))
"""


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    with fork_server() as forks:
        yield forks


@pytest.fixture
def world(settings: Settings) -> World:
    return _world(settings, 40)


def _world(settings: Settings, topics: int, code: str = BODY) -> World:
    world = World(settings.using("test", batch_seconds=0.05))
    world.code(code)
    for number in range(topics):
        world.document(f"t{number:02}.txt", f"alpha{number} beta{number}")
    return world


def calls(world: World) -> Counter[str]:
    """What was called, and how often, since it was last asked."""
    log = world.root / "calls.log"
    found = Counter(log.read_text().splitlines() if log.exists() else [])
    log.write_text("")
    return found


@dataclass
class Tour:
    """A world in which the command is killed again and again; what was done, and how much each verb does when nobody kills it."""

    world: World
    forks: Forks
    variables: Mapping[str, str]
    tally: Counter[str]
    chance: random.Random
    length: dict[str, int] = field(default_factory=lambda: dict(LENGTHS))
    topics: dict[str, str] = field(default_factory=dict)
    kills: int = 0

    def edit(self, name: str) -> None:
        """Give a topic another text, which no topic ever had."""
        self.tally["edits"] += 1
        self.topics[name] = f"alpha{self.tally['edits']}a beta{self.chance.random()}b"
        self.world.document(name, self.topics[name])

    async def kill(self, verb: str, *arguments: str) -> None:
        """Begin a verb and kill it before one of the things that it does; then its locks run out."""
        dies_at = self.chance.randint(1, self.length[verb])
        started = self.forks.start(self.world.root, self.variables, *arguments, dies_at=dies_at)
        ended = await asyncio.to_thread(started.wait)
        self.tally[f"kill points in {verb}" if ended.code == -9 else f"times {verb} had ended before"] += 1
        if ended.code == -9:
            self.kills += 1
            self.length[verb] = max(self.length[verb], dies_at * 3 // 2)
            await lease_runs_out(self.world.settings)
            for file in (Path(self.world.settings.storage_url.removeprefix("file://")) / ".tmp").glob("*"):
                os.utime(file, (0, 0))  # so long does no writer take
        else:
            assert ended.code == 0, (arguments, ended)
            self.length[verb] = started.done

    async def run(self, *arguments: str) -> Ended:
        """Run a verb to its end."""
        self.tally["runs"] += 1
        return await asyncio.to_thread(self.forks.start(self.world.root, self.variables, *arguments).wait)

    async def check(self) -> dict[str, int]:
        """What holds whatever was killed: the bytes are there, the bucket and Postgres say the same; what is still to be made."""
        self.tally["checks"] += 1
        async with self.world.open() as session:
            assert not (await session.verify()).findings
            plan = await session.plan()
        missing = {a.asset: a.stale + a.pending for a in plan.assets}
        assert all(a.units == a.fresh + missing[a.asset] for a in plan.assets), plan
        return missing

    async def complete(self) -> None:
        """The next run makes what is missing and nothing else, and nothing is current twice or wrong."""
        missing = await self.check()
        calls(self.world)
        result = await self.world.materialize()
        self.tally["runs"] += 1
        again = calls(self.world)
        made = Counter(call.partition(" ")[0] for call in again)
        assert set(again.values()) <= {1}
        assert {a.asset: a.made for a in result.assets if a.made} == made
        assert all(made[asset] <= missing[asset] for asset in made), (made, missing)
        contents = await self.world.contents()
        words = [word for text in self.topics.values() for word in text.split()]
        assert Counter(content.decode() for content in contents["chunks"].values()) == Counter(words)
        assert {name: text.decode() for (_, name), text in contents["upper"].items()} == {
            name: text.upper() for name, text in self.topics.items()
        }
        assert len(contents["report"]["report", "report.txt"].splitlines()) == len(self.topics)
        assert await self.world.plan() == {}
        same = await verify_catalog(self.world.settings, say=lambda _: None)
        assert same.same, same.to_json()
        self.tally["checks"] += 1

    # -- a verb that is killed ---------------------------------------------------------------------------------------------------

    async def materialize(self) -> None:
        """In the middle of observing, a batch, a pack, a manifest, a commit."""
        for name in self.chance.sample(sorted(self.topics), 5):
            self.edit(name)
        await self.kill("materialize", "materialize", "--local")

    async def gc(self) -> None:
        """With an object that nobody knows, packs to put together, and history to let go."""
        stray = (
            Path(self.world.settings.storage_url.removeprefix("file://"))
            / "demo/main/20200101T000000.000000Z/chunks/pack-x.parquet"
        )
        stray.parent.mkdir(parents=True, exist_ok=True)
        stray.write_bytes(b"what a crash has left")
        os.utime(stray, (0, 0))
        await self.kill("gc", "gc", "--keep", "0h", "--yes")
        assert (await self.run("gc", "--keep", "0h", "--yes")).code == 0
        assert not stray.exists()

    async def promote(self) -> None:
        """Prod is what it was or what it becomes, and never in between."""
        name = f"pr-{self.tally['edits']}"
        assert (await self.run("env", "create", name, "--from", "prod")).code == 0
        before = await self.world.contents()
        for one in self.chance.sample(sorted(self.topics), 3):
            self.edit(one)
        assert (await self.run("materialize", "--local", "--env", name)).code == 0
        await self.kill("promote", "env", "promote", name, "--to", "prod")
        after = await self.world.contents()
        ended = await self.run("env", "promote", name, "--to", "prod")
        assert ended.code == 0, ended
        now = await self.world.contents()
        assert after in (before, now)
        assert (await self.run("env", "drop", name)).code == 0

    async def rebuild(self) -> None:
        """Postgres holds what it held, or what the bucket tells."""
        await self.kill("rebuild", "catalog", "rebuild", "--replace")
        ended = await self.run("catalog", "rebuild", "--replace")
        assert ended.code == 0, ended

    async def forget(self) -> None:
        """Begun again it completes; nothing of the document is left, and nothing else is lost."""
        name = self.chance.choice(sorted(self.topics))
        text = self.topics.pop(name)
        self.world.remove(name)
        await self.kill("forget", "forget", f"topics[{name}]", "--yes")
        await self.check()
        ended = await self.run("forget", f"topics[{name}]", "--yes")
        assert ended.code == 0, ended
        left = [word for word in text.split() if word in stored(self.world.settings)]
        assert not left, left
        self.edit(f"{name.partition('.')[0]}x.txt")


async def test_killed_at_any_moment(
    settings: Settings, variables: dict[str, str], forks: Forks, tally: Counter[str]
) -> None:
    """After SIGKILL what lineage says is there, whatever was under way; the next run makes what is missing and nothing else."""
    seed = int(os.environ.get("SEED") or random.SystemRandom().randrange(10**6))
    tour = Tour(_world(settings, 0), forks, variables | {"ASSETCORE_BATCH_SECONDS": "0.05"}, tally, random.Random(seed))
    print(f"SEED={seed} repeats this")
    for number in range(10):
        tour.edit(f"t{number}.txt")
    await tour.complete()
    verbs = [tour.materialize, tour.materialize, tour.gc, tour.promote, tour.rebuild, tour.forget]
    for verb in itertools.cycle(verbs):
        await verb()
        await tour.complete()
        if tour.kills == KILLS:
            break


SELECTIONS = ("chunks[t0*]", "+report", "chunks[t1*]", "chunks", "+upper", "chunks or upper", "*", "+upper")


async def test_many_runs_over_each_other(
    world: World, variables: dict[str, str], forks: Forks, tally: Counter[str]
) -> None:
    """Two, then eight processes with overlapping selections: each unit is made once, and what there is then is what one run gives."""
    for processes in (2, 8):
        give_up, rounds = time.monotonic() + (SECONDS_AT_ONCE if SOAK else 0), 0
        while rounds < ROUNDS or time.monotonic() < give_up:
            rounds += 1
            tally[f"times {processes} processes at once"] += 1
            for number in range(40):
                world.document(f"t{number:02}.txt", f"alpha{number} beta{tally.total()}")
            started = [
                forks.start(world.root, variables, "materialize", select, "--upstream", "--local")
                for select in SELECTIONS[:processes]
            ]
            ended = [await asyncio.to_thread(one.wait) for one in started]
            assert {one.code for one in ended} == {0}, ended
            assert set(calls(world).values()) == {1}
            assert (await world.materialize()).status == "nothing to do"
    async with Session.open(world.settings, "demo", environment="alone") as alone:
        await alone.materialize(local=True, force=True)
        other = {(d.unit, d.name): d.content for d in await alone.show("report")}
    assert (await world.contents())["report"] == other


GATE = """
import asyncio
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent

@asset(pool="few", concurrency=8)
async def slow(topic: Topic = each(topics)) -> Report:
    with open(ROOT / "calls.log", "a") as log:
        log.write(f"slow {topic.name}\\n")
    while (ROOT / "gate").exists():
        await asyncio.sleep(0.02)
    return Report(name=topic.name, text=topic.text.upper())

@asset
async def report(reports: list[Report] = collect(slow)) -> Report:
    return Report(name="report.txt", text="\\n".join(r.text for r in reports))
"""


async def test_services_that_go_away_in_the_middle(
    settings: Settings, stack: Settings, variables: dict[str, str], forks: Forks, tally: Counter[str]
) -> None:
    """Postgres restarted or killed, Redis emptied, stopped, or gone for good: the run gets over it or says who is away, soon;
    the next one makes what is missing."""
    world = _world(settings.using("test", pools={"few": PoolLimits(concurrency=2)}), 6, GATE)
    environment = variables | {"ASSETCORE_POOLS": '{"few": {"concurrency": 2}}', "ASSETCORE_BATCH_SECONDS": "0.05"}
    passwords = {str(urlsplit(str(url)).password) for url in (settings.database_url, settings.redis_url)}
    log, gate = world.root / "calls.log", world.root / "gate"
    embedded = Settings.load(stack.root, home=stack.home)

    async def emptied() -> None:
        client = redis.Redis.from_url(str(settings.redis_url))
        await client.flushdb()
        await client.aclose()

    async def restarted(name: str, number: signal.Signals) -> None:
        _stop(stack, name, number)
        await services.up(embedded, {name})

    strikes: dict[str, tuple[Callable[[], Awaitable[None]], str, bool]] = {
        "Postgres restarted": (lambda: restarted("postgres", signal.SIGINT), "Postgres", False),
        "Postgres killed": (lambda: restarted("postgres", signal.SIGKILL), "Postgres", False),
        "Redis emptied": (emptied, "", False),
        "Redis killed and started": (lambda: restarted("redis", signal.SIGKILL), "", False),
        "Redis stopped": (lambda: asyncio.to_thread(_stop, stack, "redis", signal.SIGTERM), "Redis", True),
    }
    for round, (what, (strike, blamed, stays_away)) in enumerate(list(strikes.items()) * (6 if SOAK else 1)):
        tally[what] += 1
        for number in range(6):
            world.document(f"t{number:02}.txt", f"round {round} of {number}")
        calls(world)
        gate.touch()
        started = forks.start(world.root, environment, "materialize", "--local")
        until(lambda: len(log.read_text().splitlines()) == 2)
        begun = time.monotonic()
        await strike()
        gate.unlink()
        ended = await asyncio.to_thread(started.wait)
        assert time.monotonic() - begun < 60, (what, "waited too long")
        assert ended.code in ((0, 69) if blamed else (0,)), (what, ended)
        assert ended.code == 0 or blamed in ended.err, (what, ended)
        assert not any(word in ended.err for word in ("Traceback", "bug in assetcore", *passwords)), (what, ended)
        if stays_away:
            await services.up(embedded, {"redis"})
        await lease_runs_out(settings)
        async with world.open() as session:
            assert not (await session.verify()).findings
            missing = {a.asset: a.stale + a.pending for a in (await session.plan()).assets}
        calls(world)
        await world.materialize()
        assert sum(calls(world).values()) <= missing["slow"], what
        text = (await world.contents())["report"]["report", "report.txt"].decode()
        assert text.splitlines() == [f"ROUND {round} OF {number}" for number in range(6)]
        assert await world.plan() == {}


def _stop(stack: Settings, name: str, number: signal.Signals) -> None:
    """End a service of the session's, and wait until it is gone."""
    process = psutil.Process(Home(stack.home).services()[name].pid)
    process.send_signal(number)
    process.wait(20)


FAULTS: dict[str, tuple[Fault, ...]] = {
    "PUT": ("500", "lost", "503", "slow"),
    "GET": ("truncated", "500", "lost", "slow"),
}


async def test_a_store_that_fails_now_and_then(s3_settings: Settings) -> None:
    """Answers that say 500 or 503, come late, end in the middle or never come: a run gets over it, and writes nothing twice."""
    async with proxy_of(str(s3_settings.storage_endpoint)) as proxy:
        world = _world(s3_settings.using("test", storage_endpoint=proxy.url), 4)
        for round, (method, faults) in enumerate(list(FAULTS.items()) * ROUNDS):
            world.document("t00.txt", f"alpha round{round}")
            proxy.strike(method, *faults)
            started = time.monotonic()
            result = await world.materialize()
            assert result.status == "done", (method, result.failures)
            assert time.monotonic() - started < 60
        async with world.open() as session:
            assert not (await session.verify()).findings
            (document,) = await session.show("upper[t00.txt]")
            assert document.content == f"ALPHA ROUND{round}".encode()
            assert (await session.plan()).up_to_date
        assert not proxy.waiting


async def test_a_clock_that_goes_back(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that begins an hour before the one that it follows is one like any other."""

    class Earlier(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:  # type: ignore[override]  # as it is called here
            return datetime.now(tz) - timedelta(hours=1)  # type: ignore[arg-type]  # as it is given

    await world.materialize()
    calls(world)
    with monkeypatch.context() as patch:
        for room in ("session", "running", "execution", "lineage.commit", "lineage.runs"):
            patch.setattr(f"assetcore.{room}.datetime", Earlier)
        world.document("t00.txt", "the clock went back")
        assert await world.made() == {"chunks": {"made": 1}, "upper": {"made": 1}, "report": {"made": 1}}
        assert await world.plan() == {}
    assert await world.plan() == {}
    assert b"THE CLOCK WENT BACK" in (await world.contents())["report"]["report", "report.txt"]
    world.document("t01.txt", "and forth")
    assert await world.made() == {"chunks": {"made": 1}, "upper": {"made": 1}, "report": {"made": 1}}


HURTING = """
import json
from typing import Any

class Tree(Document):
    tree: Any

class Wish(BaseModel):
    wanted: Any = None

def nested(levels):
    value = 1
    for _ in range(levels):
        value = [value]
    return value

@asset
async def parsed(topic: Topic = each(topics)) -> Report:
    return Report(topic.name, data=json.loads(topic.content) if topic.content[:1] in (b"[", b"{") else [1])

@asset
async def built(topic: Topic = each(topics)) -> Report:
    return Report(topic.name, data=nested(10_000 if topic.name == "deep.txt" else 900 if topic.name == "wide.txt" else 1))

@asset
async def fields(topic: Topic = each(topics)) -> Tree:
    return Tree(topic.name, text="", tree=nested(10_000 if topic.name == "deep.txt" else 700 if topic.name == "wide.txt" else 1))

@asset
async def passed(topic: Topic = each(topics)) -> Report:
    return Report(topic.name, content=topic.content, media_type="application/json")

@asset
async def cut(report: Report = each(passed)) -> Chunk:
    if report.name in ("deep.txt", "wide.txt"):
        return Chunk.part_of(report, pointer="/0/0" if report.name == "deep.txt" else "/a/a", name=report.stem, text="", ordinal=0)
    return Chunk(report.stem, text="", ordinal=0)

@asset
async def wished(wish: Wish) -> Report:
    return Report("wish", text=str(wish.wanted)[:10])

@asset
async def everything(passed: pl.DataFrame = collect(passed)) -> pl.DataFrame:
    return passed.select("name", "text", "content")

@asset
async def columns(fields: pl.DataFrame = collect(fields)) -> pl.DataFrame:
    return fields.select("name", "tree")
"""


async def test_content_that_is_made_to_hurt(
    settings: Settings, variables: dict[str, str], forks: Forks, tally: Counter[str]
) -> None:
    """JSON ten thousand deep fails its own unit with a sentence, or passes through untouched; a zip bomb is its bytes; a YAML that grows
    without end is refused; nothing hangs, and the rest is made."""
    world = _world(settings, 40, HURTING)
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("../../outside.txt", b"\0" * (32 << 20))
    contents = {
        "deep.txt": b"[" * 10_000 + b"]" * 10_000, "wide.txt": b'{"a": ' * 5_000 + b"1" + b"}" * 5_000, "bomb.zip.txt": bomb.getvalue(),
        "bomb.gz.txt": gzip.compress(b"\0" * (32 << 20)),
    }  # fmt: skip
    for name, content in contents.items():
        world.document(name, content)

    async def told(code: int, *arguments: str) -> str:
        begun = time.monotonic()
        tally["hostile questions"] += 1
        ended = await asyncio.to_thread(forks.start(world.root, variables, *arguments).wait)
        assert ended.code == code, (arguments, ended)
        assert "Traceback" not in ended.err, (arguments, ended)
        assert "bug in assetcore" not in ended.err, (arguments, ended)
        assert time.monotonic() - begun < 60
        return ended.err

    result = await world.materialize()
    assert {f.unit for f in result.failures} <= {"deep.txt", "wide.txt"}, result.failures
    failed = {(f.asset, f.unit): f.error for f in result.failures}
    assert all("nested" in error or "recursion" in error for error in failed.values()), failed
    assert {("parsed", "deep.txt"), ("built", "deep.txt"), ("fields", "deep.txt")} <= failed.keys()
    done = {a.asset: a.made for a in result.assets}
    assert (done["passed"], done["everything"], done["wished"]) == (44, 1, 1)
    kept = (await world.contents())["passed"]
    assert {name: kept[name, name] for name in contents} == contents
    await told(0, "show", "passed[deep.txt]")
    await told(0, "diff", "passed[deep.txt]", "passed[wide.txt]")
    await told(64, "plan", "--set", f"wished.wanted={'[' * 10_000}{']' * 10_000}")
    lists = ["a0: &a0 [lol, lol, lol]", *(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12))]
    world.config("\n".join(["wished:", "  wanted:", *(f"    {line}" for line in lists)]))
    assert "anchors repeat" in await told(1, "plan")
    assert not list(world.root.parent.rglob("outside.txt"))


NAMES = [
    "'; DROP TABLE document; --.txt", "<script>alert(1)</script>.txt", "<img src=x onerror=alert(1)>.txt", "$(touch owned).txt",
    "`touch owned`.txt", "; touch owned;.txt", "| touch owned.txt", "%s%n{0}{x!r}.txt", "[red]rich[/red].txt", "\u202egnp.txt",
    "..\\..\\up.txt", "@team [link](http://evil) ![x](y).txt", "a]b[c.txt", "--json.txt", "~.txt", "*.txt",
]  # fmt: skip
HOSTILE = "\x1b]0;owned\x07\x1b[2J\x9b31mred\u202egnp.exe\rover <script>alert(1)</script> $(touch owned) '; DROP TABLE document; --"
OBEYED = set("\x1b\x07\x9b\u202e\r")
SHOWING = """
@asset
async def copies(topic: Topic = each(topics)) -> Report:
    if topic.name.startswith("%s"):
        raise ValueError(topic.text)
    return Report(topic.name, text=topic.text)

@asset(layout="files")
async def files(report: Report = each(copies)) -> Report:
    return Report(report.name, text=report.text + "!")
"""


async def test_what_is_shown_is_not_obeyed(
    settings: Settings, variables: dict[str, str], forks: Forks, tmp_path: Path
) -> None:
    """Names and contents that speak SQL, shell, HTML, Markdown or to a terminal are shown by every verb, and nobody obeys them."""
    world = _world(settings, 0, SHOWING)
    for folder in ("projects", "data"):
        (world.root / folder).mkdir(exist_ok=True)
    world.code("NAMES = " + repr(NAMES) + SOURCE + SHOWING.replace("each(topics)", "each(named)"))
    (world.root / "text").write_text(HOSTILE)

    async def shown(code: int, *arguments: str) -> str:
        ended = await asyncio.to_thread(forks.start(world.root, variables, *arguments).wait)
        assert ended.code == code, (arguments, ended)
        assert "bug in assetcore" not in ended.err, (arguments, ended)
        if "--json" not in arguments and arguments[0] not in (
            "export",
            "show",
        ):  # to a file, a document is shown as it is
            assert not OBEYED & set(ended.out + ended.err), (arguments, ended)
        return ended.out

    await shown(0, "plan", "--units")
    await shown(1, "materialize", "--local")
    for arguments in (
        ["ls"], ["plan", "--why"], ["show", "copies"], ["runs"], ["journal"], ["verify"], ["history", "copies"],
        ["export", "copies or files", str(tmp_path / "out"), "--provenance"],
    ):  # fmt: skip
        await shown(0, *arguments)
    for name in NAMES[:3] + NAMES[9:12]:
        ref = format_ref("files", name)
        for arguments in (
            ["show", ref],
            ["lineage", ref, "--format", "dot"],
            ["lineage", ref, "--format", "mermaid"],
            ["why", ref],
        ):
            await shown(0, *arguments)
    text = await shown(0, "plan", "--format", "markdown")
    assert "<script>" not in text
    assert "](http" not in text
    for name in NAMES:
        if not name.startswith("%s"):
            (document,) = json.loads(await shown(0, "show", format_ref("copies", name), "--json"))["documents"]
            assert document["document"] == name
    contents = {HOSTILE.encode(), f"{HOSTILE}!".encode()}
    written = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert len([path for path in written if path.read_bytes() in contents]) == 2 * (len(NAMES) - 1)
    assert all(path.resolve().is_relative_to((tmp_path / "out").resolve()) for path in written)
    assert not list(tmp_path.rglob("owned"))
    assert not (await _journal_of(world)).problems


LEAKING = """
import os

from assetcore import check

@asset
async def fine(topic: Topic = each(topics)) -> Report:
    return Report(topic.name, text=topic.text)

@check(fine)
def doubtful(report: Report) -> str:
    return f"no answer from {os.environ['SHOP_URL']}, asked with {os.environ['SHOP_API_KEY']}"

@asset
async def leaking(topic: Topic = each(topics)) -> Report:
    try:
        raise OSError(f"refused: {os.environ['SHOP_URL']}")
    except OSError as error:
        raise ConnectionError(f"cannot connect to {os.environ['SHOP_URL']} with {os.environ['SHOP_API_KEY']}") from error

@asset
def beside(topic: Topic = each(topics)) -> Report:
    raise ConnectionError(f"cannot connect to {os.environ['SHOP_URL']} with {os.environ['SHOP_API_KEY']}")
"""


async def test_planted_secrets_are_nowhere(
    settings: Settings, stack: Settings, variables: dict[str, str], prefect_api: str
) -> None:
    """After a run that fails with secrets in its users' errors, neither a password nor a key is in what was said, in lineage, the journal,
    the bucket, the traces, the files of the home, or Prefect."""
    world = _world(
        settings, 2, LEAKING.replace("@check(topics)\ndef told(topic: Topic)", "@check(topics)\ndef told(topic: Topic)")
    )
    planted = {"password": "plan/ted-pass@word", "key": "sk-planted-0123456789", "token": "planted-token-0123456789"}
    aipctl = Command(world.root, variables | {
        "SHOP_URL": f"postgresql://reader:{quote(planted['password'], safe='')}@db.invalid:5432/shop", "SHOP_API_KEY": planted["key"],
        "OPENAI_API_KEY": planted["key"], "PUSHOVER_TOKEN": planted["token"], "PREFECT_API_URL": prefect_api,
        "ASSETCORE_STORAGE_SECRET": planted["token"],
    })  # fmt: skip
    ended = await asyncio.to_thread(aipctl, "materialize", "--json", "--debug")
    assert ended.code == 1, ended
    assert "cannot connect to postgresql://reader:***@db.invalid:5432/shop with ***" in ended.out, ended
    said = {"what was said": ended.out + ended.err}
    for arguments in (
        ["runs"],
        ["plan", "--why"],
        ["trace", ended.json["run"]],
        ["journal"],
        ["config", "show"],
        ["check"],
    ):
        asked = await asyncio.to_thread(aipctl, *arguments)
        said[" ".join(arguments)] = asked.out + asked.err
    said |= {"the bucket": stored(settings), "Postgres": await known(settings)}
    async with httpx.AsyncClient(base_url=prefect_api) as client:
        for what in ("flow_runs", "task_runs", "logs", "artifacts", "events"):
            said[f"Prefect's {what}"] = (await client.post(f"/{what}/filter", json={})).text
    for file in [*settings.root.rglob("*"), *(stack.home / "reports").glob("*")]:
        if file.is_file():
            said[str(file)] = file.read_bytes().decode(errors="replace")
    own = {str(urlsplit(str(url)).password) for url in (settings.database_url, settings.redis_url)}
    for secret in {*planted.values(), quote(planted["password"], safe=""), *own}:
        assert not [where for where, text in said.items() if secret in text], secret


SOURCE = """
from pathlib import Path

async def observed():
    for name in NAMES:
        yield Topic(name, text=(Path(__file__).parent.parent.parent / "text").read_bytes().decode())

named = source("named", Topic, observed)
"""


async def _journal_of(world: World) -> JournalCheck:
    async with world.open() as session:
        return await session.check_journal()
