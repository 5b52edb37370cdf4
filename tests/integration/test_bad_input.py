"""Bad input: a clear sentence, an exit code, and nothing lost."""

from __future__ import annotations

import ctypes
import json
import os
import resource
import secrets
import shlex
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest

from assetcore.errors import SourceError
from assetcore.refs import format_ref
from assetcore.results import Event
from assetcore.settings import Settings
from tests.integration.command import AIPCTL, Command, Ended, end, lease_runs_out, until
from tests.integration.conftest import drop
from tests.integration.world import HEAD, World

pytestmark = pytest.mark.integration

BODY = """
@asset
async def clean(topic: Topic = each(topics)) -> Topic:
    return Topic(topic.name, text=" ".join(topic.text.split()))

@asset
async def report(topics: list[Topic] = collect(clean)) -> Report:
    return Report("report.txt", text="\\n".join(f"{t.name}: {t.text}" for t in topics))
"""


@pytest.fixture
def world(settings: Settings) -> World:
    world = World(settings)
    world.code(BODY)
    world.document("a.txt", "alpha  beta")
    world.document("b.txt", "gamma")
    return world


@pytest.fixture
def aipctl(world: World, variables: dict[str, str]) -> Command:
    return Command(world.root, variables)


def told(ended: Ended, code: int, *words: str) -> None:
    """The command ended with this code and one clear sentence, without a traceback or a word of a bug in ours."""
    assert "error: " in ended.err, ended
    _said(ended, code, ended.err, words)


def shown(ended: Ended, code: int, *words: str) -> None:
    """The command answered with this code, and these words are in its answer."""
    _said(ended, code, ended.out, words)


def _said(ended: Ended, code: int, text: str, words: Sequence[str]) -> None:
    assert ended.code == code, ended
    assert "Traceback" not in ended.err, ended
    assert "bug in assetcore" not in " ".join(ended.err.split()), ended
    for word in words:
        assert word in " ".join(text.split()), ended


# --- sources ----------------------------------------------------------------------------------------------------------


async def test_a_missing_folder(world: World, aipctl: Command) -> None:
    """A source's folder that is not there ends a run with 1 and its name; what was made of it stays, and is fresh when it is back."""
    await world.materialize()
    (world.root / "data").rename(world.root / "away")
    told(aipctl("materialize", "--local"), 1, "topics reads the folder data, which does not exist", "Create it")
    assert aipctl("show", "report").out == "a.txt: alpha beta\nb.txt: gamma"
    (world.root / "away").rename(world.root / "data")
    assert (await world.materialize()).status == "nothing to do"


async def test_an_unreadable_file(world: World, aipctl: Command) -> None:
    """Files that may not be read are named, end a run with 1, and stay what they were; everything else is made. A folder ends the run."""
    await world.materialize()
    world.document("a.txt", "delta")
    world.document("b.txt", "another text")
    world.document("c.txt", "secret")
    for name in "ac":
        (world.root / "data" / f"{name}.txt").chmod(0)
    unread = "topics cannot read {}.txt in data: Permission denied"
    planned = aipctl("plan", preexec_fn=as_ordinary_user)
    shown(planned, 0, "1 changed, 2 unread", unread.format("c"), "exclude=['c.txt']")
    for _ in range(2):
        shown(aipctl("materialize", "--local", preexec_fn=as_ordinary_user), 1, unread.format("a"), unread.format("c"))
        assert aipctl("show", "report").out == "a.txt: alpha beta\nb.txt: another text"
    for name in "ac":
        (world.root / "data" / f"{name}.txt").chmod(0o600)
    assert (await world.materialize()).status == "done"
    assert aipctl("show", "report").out == "a.txt: delta\nb.txt: another text\nc.txt: secret"
    (world.root / "data").chmod(0)
    told(aipctl("plan", preexec_fn=as_ordinary_user), 1, "topics cannot read data: Permission denied")
    (world.root / "data").chmod(0o700)
    assert await world.made() == {}


def as_ordinary_user() -> None:
    """Root reads whatever it likes: the capabilities for that are given up before the command starts."""
    if os.geteuid() == 0:
        libc, drop = ctypes.CDLL(None, use_errno=True), 24
        for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
            assert libc.prctl(drop, capability, 0, 0, 0) == 0


def test_a_file_whose_name_is_no_text(world: World, aipctl: Command) -> None:
    """A file whose name is not UTF-8, or has a line break, is named as far as it can be, with the way to leave it out."""
    for name in (b"gr\xfcn.txt", b"line\nbreak.txt"):
        path = os.path.join(os.fsencode(world.root), b"data", name)
        with open(path, "wb"):
            pass
        shown(aipctl("plan"), 0, "topics found the file", repr(name)[2:-1], "exclude=")
        os.unlink(path)


async def test_a_file_that_is_not_utf_8(world: World, aipctl: Command) -> None:
    """Asking bytes that are not UTF-8 for their text fails that unit by its name; the rest is made, and the bytes are kept."""
    world.document("b.txt", b"gr\xfc\xdfe")
    ended = aipctl("materialize", "--local", "--json")
    assert ended.code == 1
    failure = ended.json["failures"][0]
    assert (failure["asset"], failure["unit"]) == ("clean", "b.txt")
    assert "Topic 'b.txt' is not UTF-8 text: byte 0xfc at 2." in failure["error"]
    assert "assets.py" in failure["traceback"]
    counts = {a["asset"]: (a["made"], a["failed"], a["skipped"]) for a in ended.json["assets"]}
    assert counts == {"clean": (1, 1, 0), "report": (0, 0, 1)}
    assert aipctl("show", "topics[b.txt]", text=False).out == b"gr\xfc\xdfe"
    world.document("b.txt", "grüße")
    assert await world.made() == {"clean": {"made": 1}, "report": {"made": 1}}


async def test_an_empty_and_a_very_large_file(world: World, aipctl: Command, tmp_path: Path) -> None:
    """A file of no bytes and one of 200 MB are documents like others, in bounded memory, and come out as they went in."""
    world.code("""
        @asset
        async def copies(topic: Topic = each(topics)) -> Report:
            return Report(topic.name, content=topic.content)

        @asset
        def sizes(topic: Topic = each(topics)) -> Report:
            return Report(topic.name, text=str(len(topic.content)))
    """)
    world.document("a.txt", b"")
    world.document("b.txt", bytes(range(256)) * (200 * 4096))
    process = aipctl.start("materialize", "--local", stdout=None, stderr=None)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    assert used.ru_maxrss < 1_200_000, f"{used.ru_maxrss / 1000:.0f} MB"
    assert aipctl("show", "sizes[a.txt]").out == "0"
    assert aipctl("show", "sizes[b.txt]").out == "209715200"
    assert aipctl("export", "copies", str(tmp_path / "out")).code == 0
    assert (tmp_path / "out" / "copies" / "b.txt").read_bytes() == (world.root / "data" / "b.txt").read_bytes()
    assert (tmp_path / "out" / "copies" / "a.txt").read_bytes() == b""


NAMES = [
    "with space.txt", " both ends ", "it's \"quoted\".txt", "back\\slash.txt", "💡 idée.txt", "../../up.txt", "..", "/etc/passwd",
    "a/b/c.txt", "a", "A", "Straße.TXT", "STRASSE.txt", "strasse.txt", "é.txt", "e\u0301.txt", "x" * 300, "x" * 299 + "y", "X" * 300,
    "[unit]", "a[b]/c", "-rf", "%2e%2e", "CON", "name.", ".hidden", "*?<>|:", "$(reboot)", "{x}", "日本語.txt",
]  # fmt: skip


async def test_names_of_every_kind_stay_apart(world: World, aipctl: Command, tmp_path: Path) -> None:
    """Documents whose names have spaces, quotes, emoji, `../`, 300 characters or differ in case only are kept, shown and exported apart."""
    world.code(f"""
        NAMES = {NAMES!r}

        @asset
        async def many(topics: list[Topic] = collect(topics)) -> list[Report]:
            return [Report(name, text=f"I am {{i}}") for i, name in enumerate(NAMES)]

        @asset(layout="files")
        async def alone(report: Report = each(many)) -> Report:
            return Report(report.name, text=report.text)

        @asset
        def upper(report: Report = each(alone)) -> Report:
            return Report(report.name, text=report.text.upper())
    """)
    result = await world.materialize()
    assert not result.failures
    found = await world.contents()
    for asset in ("many", "alone"):
        assert {name: text for (_, name), text in found[asset].items()} == {
            n: f"I am {i}".encode() for i, n in enumerate(NAMES)
        }
    assert {unit: text for (unit, _), text in found["upper"].items()} == {
        n: f"I AM {i}".encode() for i, n in enumerate(NAMES)
    }
    for select in ("many", "alone", "upper"):
        out = tmp_path / "out"
        ended = aipctl("export", select, str(out), "--json")
        assert ended.code == 0, ended
        files = [out / name for name in ended.json["files"]]
        assert len({str(f).lower() for f in files}) == len(NAMES)  # also where the file system does not tell case apart
        assert sorted(f.read_text().lower() for f in files) == sorted(f"i am {i}" for i in range(len(NAMES)))
        assert all(f.resolve().is_relative_to(out.resolve()) for f in files)
    async with world.open() as session:
        for i, name in enumerate(NAMES):
            ref = format_ref("upper", name)
            assert [d.content for d in await session.show(ref)] == [f"I AM {i}".encode()], ref
    listed = {d["document"] for d in aipctl("show", "many", "--json").json["documents"]}
    assert listed == set(NAMES)
    assert aipctl("show", "many").code == 0
    assert await world.plan() == {}


async def test_a_name_that_cannot_be(world: World) -> None:
    """A name with a control character, an empty one, or one that is too long fails its unit and says what a name can be."""
    world.code("""
        BAD = {"a.txt": "line\\nbreak", "b.txt": "", "c.txt": "x" * 1025, "d.txt": "nul\\0"}

        @asset
        async def named(topic: Topic = each(topics)) -> Report:
            return Report(BAD[topic.name], text="")
    """)
    world.document("c.txt", "c")
    world.document("d.txt", "d")
    result = await world.materialize()
    said = {f.unit: f.error for f in result.failures}
    assert set(said) == {"a.txt", "b.txt", "c.txt", "d.txt"}
    assert "control characters" in said["a.txt"]
    assert "is empty" in said["b.txt"]
    assert "longer than 1024 bytes" in said["c.txt"]


async def test_a_file_that_disappears_before_it_is_read(world: World) -> None:
    """A file that is gone between observing and reading is named; the rest is made, and the next run is complete."""

    def vanish(event: Event) -> None:
        if event.kind == "observed":
            (world.root / "data" / "b.txt").unlink(missing_ok=True)

    result = await world.materialize(on_event=vanish)
    assert result.status == "failed"
    assert [(f.asset, "b.txt (gone since it was observed)" in f.error) for f in result.failures] == [("topics", True)]
    assert set((await world.contents())["clean"]) == {("a.txt", "a.txt")}
    assert (await world.made()).keys() <= {"report"}
    assert (await world.contents())["report"] == {("report", "report.txt"): b"a.txt: alpha beta"}
    assert await world.plan() == {}


async def test_a_file_that_changes_before_it_is_read(world: World) -> None:
    """A file that is written to between observing and reading ends up as what it is, not as what it was."""

    def rewrite(event: Event) -> None:
        if event.kind == "observed":
            world.document("b.txt", "gamma and delta")

    await world.materialize(on_event=rewrite)
    await world.materialize()
    assert (await world.contents())["report"] == {
        ("report", "report.txt"): b"a.txt: alpha beta\nb.txt: gamma and delta"
    }
    assert await world.plan() == {}


GENERATOR = """
async def read() -> AsyncIterator[Topic]:
    yield Topic("one", text="1")
    yield Topic("two", text="2")
    {then}

read_topics = source("read_topics", Topic, read)

@asset
async def kept(topic: Topic = each(read_topics)) -> Report:
    return Report(topic.name, text=topic.text)
"""


@pytest.mark.parametrize(
    ("then", "sentence"),
    [
        ("raise OSError('the feed is away')", "read_topics failed while it was observed: OSError: the feed is away"),
        ("yield Report('three', text='3')", "read_topics yielded Report('three'"),
        ("yield 'three'", "read_topics yielded str 'three'"),
        ("yield Topic('one', text='again')", "read_topics yielded two documents named 'one'"),
    ],
)
async def test_a_generator_that_goes_wrong_halfway(world: World, then: str, sentence: str) -> None:
    """A generator source that raises, or yields what it may not, is told with its line; nothing of what was known is lost."""
    world.code(GENERATOR.format(then="pass"))
    await world.materialize()
    before = await world.contents()
    world.code(GENERATOR.format(then=then))
    with pytest.raises(SourceError) as raised:
        await world.materialize()
    assert sentence in raised.value.message
    assert "assets.py:" in raised.value.message
    world.code(GENERATOR.format(then="pass"))
    assert await world.contents() == before
    assert (await world.materialize()).status == "nothing to do"


# --- the project's code -----------------------------------------------------------------------------------------------

ASSET = "@asset\nasync def x(topic: Topic = each(topics)) -> Report:\n    return Report('r', text='')\n"
SECOND = "t2 = source('t2', Topic, folder('data'))\n\n"


def but(old: str, new: str) -> str:
    """The asset, with a mistake in it."""
    return ASSET.replace(old, new)


MISTAKES: dict[str, tuple[str, tuple[str, ...]]] = {
    "a syntax error": ("def broken(:\n    pass", ("assets.py:19: invalid syntax", "def broken(:")),
    "a missing module": (
        "import no_such_module",
        ("assets.py:19", "ModuleNotFoundError: No module named 'no_such_module'"),
    ),
    "a missing name": ("from assetcore import colect", ("assets.py:19", "cannot import name 'colect'")),
    "an exit while it is imported": ("import sys\nsys.exit('bye')", ("assets.py:20", "SystemExit: bye")),
    "an error while it is imported": ("LIMIT = 1 / 0", ("assets.py:19", "ZeroDivisionError", "LIMIT = 1 / 0")),
    "a wrong annotation": (
        but("topic: Topic", "topic: Report"),
        ("assets.py:19: x has the annotation Report on 'topic'", "Topic"),
    ),
    "no annotation": (but("topic: Topic", "topic"), ("assets.py:19: x", "no annotation", "'topic'")),
    "no dependency": (
        but(" = each(topics)", ""),
        ("assets.py:19: x does not say where the Topic in 'topic' comes from", "each(...)"),
    ),
    "a missing dependency": (
        but("each(topics)", "each(topcs)"),
        ("assets.py:20", "NameError: name 'topcs' is not defined", "Did you mean topics?"),
    ),
    "a dependency by its name": (
        but("each(topics)", "each('topics')"),
        ("assets.py:19: x asks each('topics')", "each(topics)"),
    ),
    "the asset itself as a default": (
        but("each(topics)", "topics"),
        ("assets.py:19: x has the asset topics itself", "each(topics)"),
    ),
    "a loose str": (but("-> Report", "-> str"), ("assets.py:19: x returns str", "wrap them in a Document")),
    "loose strs": (but("-> Report", "-> list[str]"), ("assets.py:19: x returns list[str]",)),
    "no result": (but(" -> Report", ""), ("assets.py:19: x does not say what it returns",)),
    "an unknown annotation": (
        but("-> Report", "-> Reprot"),
        ("assets.py:19: x has an annotation that cannot be evaluated", "Reprot"),
    ),
    "a generator that is not annotated": (
        but("return", "yield"),
        ("assets.py:19: x is annotated with Report, but yields",),
    ),
    "two assets of one name": (
        ASSET + but("def x", "def y").replace("@asset", "@asset(name='x')"),
        ("assets.py:22: x is declared twice", "assets.py:19"),
    ),
    "an asset and a source of one name": (
        but("def x", "def z").replace("@asset", "@asset(name='topics')"),
        ("assets.py:19: topics is declared twice", "assets.py:17"),
    ),
    "a lambda": ("x = asset(lambda: None)", ("assets.py:19: a lambda cannot be an asset",)),
    "a class": ("@asset\nclass X: ...", ("assets.py:19", "@asset goes on a function")),
    "an unknown option": (but("@asset", "@asset(tag=['a'])"), ("assets.py:19: @asset", "'tag'", "tags")),
    "tags that are text": (but("@asset", "@asset(tags='a')"), ("assets.py:19", "tags=['a']")),
    "text as an exclude": (
        "t2 = source('t2', Topic, folder('data', exclude='x'))",
        ("assets.py:19: exclude= takes a list",),
    ),
    "a source that is no source": (
        "t2 = source('t2', Topic, 'data')",
        ("assets.py:19: source 't2' cannot be observed", "folder("),
    ),
    "a source of required fields": (
        "t2 = source('t2', Chunk, folder('data'))",
        ("assets.py:19", "required field 'ordinal' of Chunk"),
    ),
    "unrelated inputs": (
        SECOND + but("= each(topics)", "= each(topics), other: Topic = each(t2)"),
        ("assets.py:21: x", "cross=True"),
    ),
    "no asset": ("", ("declares no asset",)),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_the_code_is_told_with_its_place(world: World, aipctl: Command, mistake: str) -> None:
    """What is wrong in a project's code ends `plan` with 1, the file, the line, and what to do."""
    code, words = MISTAKES[mistake]
    head = HEAD if mistake != "no asset" else "import os\n"
    world.code(code, head=f"{head}\n")
    told(aipctl("plan"), 1, *words)


LIMITED = """
class Limits(BaseModel):
    size: int = 10

@asset
async def cut(limits: Limits, topic: Topic = each(clean)) -> Topic:
    return topic
"""


def test_config_that_does_not_fit(world: World, aipctl: Command) -> None:
    """Config for what is not there, of a wrong type, or that cannot be read is told with its place; --set likewise."""
    world.code(BODY + LIMITED)
    told(aipctl("plan", "--set", "cut.sizes=3"), 64, "cut.sizes", "Its fields are size")
    told(aipctl("plan", "--set", "cut.size=many"), 64, "cut.size", "'many'")
    told(aipctl("plan", "--set", "cutt.size=3"), 64, "no asset 'cutt'", "cut")
    told(aipctl("plan", "--set", "size=3"), 64, "asset.field=value")
    for text, words in {
        "cutt:\n  size: 3\n": ("config.yaml", "'cutt'", "cut"),
        "cut:\n  size: many\n": ("cut.size", "config.yaml"),
        "cut: 3\n": ("config.yaml", "table"),
        "cut: [": ("config.yaml", "cannot be read"),
        "clean:\n  size: 3\n": ("'clean'", "Those that do: cut"),
    }.items():
        world.config(text)
        told(aipctl("plan"), 1, *words)


def test_typos_in_selections(aipctl: Command) -> None:
    """A selection that names nothing ends with 4 and the nearest name; so do a REF and a project."""
    told(aipctl("plan", "claen"), 4, "claen", "clean")
    told(aipctl("plan", "tag:report"), 4, "tag:report")
    told(aipctl("materialize", "clean[c.txt]", "--local"), 4, "clean has no unit")
    told(aipctl("plan", "--docs", "a.txt, b.txt"), 64, "comma", "unit:a.txt or")
    told(aipctl("show", "reprot"), 4, "reprot", "report")
    told(aipctl("plan", "clean, report"), 64, "or")
    told(aipctl("plan", "-p", "dmeo"), 4, "'dmeo'", "demo")
    told(aipctl("plan", variables={"ASSETCORE_CONCURENCY": "3"}), 64, "concurency", "concurrency")


# --- units ------------------------------------------------------------------------------------------------------------

UNITS = """
import os
from datetime import date

@asset
async def wrong(topic: Topic = each(topics)) -> Report:
    return Topic("t", text="") if topic.stem == "b" else Report("r", text="")

@asset
async def loose(topic: Topic = each(topics)) -> list[Report]:
    return ["text"] if topic.stem == "b" else []

@asset
async def yields(topic: Topic = each(topics)) -> AsyncIterator[Report]:
    yield Report("r", text="")
    if topic.stem == "b":
        yield 3

@asset
async def twice(topic: Topic = each(topics)) -> list[Report]:
    return [Report("r", text="1"), Report("r" if topic.stem == "b" else "s", text="2")]

@asset
async def nothing(topic: Topic = each(topics)) -> Report:
    if topic.stem != "b":
        return Report("r", text="")

@asset
def dies(topic: Topic = each(topics)) -> Report:
    if topic.stem == "b":
        os._exit(9)
    return Report("r", text="")

@asset
def exits(topic: Topic = each(topics)) -> Report:
    if topic.stem == "b":
        raise SystemExit("enough")
    return Report("r", text="")

@asset
def panics(topic: Topic = each(topics)) -> Report:
    if topic.stem == "b":
        raise pl.exceptions.PanicException("in Rust")
    return Report("r", text="")

@asset
async def closes(topic: Topic = each(topics)) -> Report:
    if topic.stem == "b":
        raise GeneratorExit("by mistake")
    return Report("r", text="")

@asset(timeout=0.2)
async def hangs(topic: Topic = each(topics)) -> Report:
    import asyncio
    if topic.stem == "b":
        await asyncio.sleep(60)
    return Report("r", text="")

@asset
async def cancels(topic: Topic = each(topics)) -> Report:
    import asyncio
    if topic.stem == "b":
        raise asyncio.CancelledError
    return Report("r", text="")

@asset
async def recurses(topic: Topic = each(topics)) -> Report:
    def deeper(n):
        return deeper(n + 1)
    return Report("r", text=str(deeper(0)) if topic.stem == "b" else "")

class Titled(Document):
    title: str = ""
    day: date | str = ""

@asset
async def unwritable(topic: Topic = each(topics)) -> Titled:
    return Titled("r", text="", title="a\\ud800b" if topic.stem == "b" else "a")

@asset(layout="files")
async def unwritable_alone(topic: Topic = each(topics)) -> Titled:
    return Titled("r", text="", title="a\\ud800b" if topic.stem == "b" else "a")

@asset
async def changes(topic: Topic = each(topics)) -> Titled:
    return Titled("r", text="", day=date(2026, 1, 2) if topic.stem == "b" else "today")

@asset
async def mistyped(topic: Topic = each(topics)) -> Report:
    return Report("r", text="", media_type="text/\\0plain" if topic.stem == "b" else "text/plain")
"""


def test_units_that_go_wrong_fail_alone_and_by_name(world: World, aipctl: Command) -> None:
    """Whatever a unit does wrong, it fails by its name and alone; processes that die included."""
    world.code(UNITS)
    ended = aipctl("materialize", "--local", "--json")
    assert ended.code == 1, ended
    said = {f["asset"]: f["error"] for f in ended.json["failures"]}
    assert {f["unit"] for f in ended.json["failures"]} == {"b.txt"}
    expected = {
        "wrong": "returned Topic('t'", "loose": "'text'", "yields": "int 3", "twice": "two documents named 'r'", "nothing": "None",
        "dies": "The process that ran it ended in the middle", "exits": "SystemExit: enough", "hangs": "timeout of 0.2 s",
        "cancels": "CancelledError", "recurses": "RecursionError", "panics": "PanicException: in Rust",
        "closes": "GeneratorExit: by mistake",
        "unwritable": "unwritable[b.txt]: Titled('r', 0 bytes, text/plain) has a value in 'title' that cannot be stored: 'a\\ud800b'",
        "unwritable_alone": "has a value in 'title' that cannot be stored: 'a\\ud800b'",
        "changes": "a value in 'day' that would be read back as something else: datetime.date(2026, 1, 2) as '2026-01-02'",
        "mistyped": "The media type 'text/\\x00plain' of Report('r') has control characters",
    }  # fmt: skip
    assert set(said) == set(expected)
    for name, words in expected.items():
        assert words in said[name], said[name]
    assert {a["asset"]: (a["made"], a["failed"]) for a in ended.json["assets"]} == dict.fromkeys(expected, (1, 1))
    again = aipctl("materialize", "--local", "--json")
    assert {a["asset"]: (a["made"], a["fresh"], a["failed"]) for a in again.json["assets"]} == dict.fromkeys(
        expected, (0, 1, 1)
    )


WORDS = """
import os
from pydantic import field_validator

class Word(Document):
    word: str

    @field_validator("word")
    @classmethod
    def may_be_said(cls, word):
        if word == os.environ.get("UNSAID"):
            raise ValueError("this is not said")
        return word

@asset
async def words(topic: Topic = each(topics)) -> Word:
    return Word(topic.name, text="", word=topic.text)
"""
READ = """
@asset
async def alone(word: Word = each(words)) -> Report:
    return Report(word.name, text=str(word.word))

@asset
async def together(words: list[Word] = collect(words)) -> Report:
    return Report("r", text=str(len(words)))

@asset
async def below(report: Report = each(alone)) -> Report:
    return Report(report.name, text=report.text)

@asset
async def beside(topic: Topic = each(topics)) -> Report:
    return Report(topic.name, text=topic.text)
"""


async def test_what_its_class_does_not_take_any_more_fails_whom_it_is_given(world: World, aipctl: Command) -> None:
    """Stored documents that do not fit their class fail the units that are given them, or the asset that is given all; nothing else."""
    world.code(WORDS)
    assert (await world.materialize()).status == "done"
    world.code(WORDS + READ)
    for made in (1, 0):
        ended = aipctl("materialize", "--local", "--json", variables={"UNSAID": "alpha  beta"})
        assert ended.code == 1, ended
        problem = "Word('a.txt') does not fit its declaration: word: Value error, this is not said"
        assert {(f["asset"], f["unit"], problem in f["error"]) for f in ended.json["failures"]} == {
            ("alone", "a.txt", True),
            ("together", "together", True),
        }
        counts = {a["asset"]: (a["made"], a["failed"]) for a in ended.json["assets"]}
        assert {"alone": (made, 1), "together": (0, 1), "below": (made, 0), "beside": (2 * made, 0)}.items() <= (
            {"beside": (0, 0), "below": (0, 0)} | counts
        ).items()
    assert (await world.contents())["below"] == {("b.txt", "b.txt"): b"gamma"}


async def test_a_source_whose_document_cannot_be_stored(world: World, aipctl: Command) -> None:
    """A document of a generator with a text that is none is told by its name; the others are taken in."""
    world.code("""
        class Titled(Document):
            title: str

        async def read() -> AsyncIterator[Titled]:
            yield Titled("good", text="", title="x")
            yield Titled("bad", text="", title="a\\ud800b")

        titled = source("titled", Titled, read)

        @asset
        async def kept(one: Titled = each(titled)) -> Report:
            return Report(one.name, text=one.title)
    """)
    ended = aipctl("materialize", "--local", "--json")
    assert ended.code == 1, ended
    [failure] = ended.json["failures"]
    assert failure["asset"] == "titled"
    assert "Titled('bad', 0 bytes, text/plain) has a value in 'title' that cannot be stored" in failure["error"]
    assert (await world.contents())["kept"] == {("good", "good"): b"x"}


ODD = """
import math

class Odd(Document):
    word: str = ""
    number: float = 0.0
    raw: bytes = b""
    parts: list[bytes] = []

class Limits(BaseModel):
    most: float = math.inf
    mark: str = "\\0"

ODDS = [
    {"word": "nul \\0 here"}, {"word": "x" * 100_000}, {"number": math.nan}, {"number": -math.inf}, {"raw": bytes(range(256))},
    {"parts": [b"\\0", b"\\xff"]}, {"word": "line\\nbreak [x]/y"},
]

@asset
async def packed(limits: Limits, topics: list[Topic] = collect(topics)) -> list[Odd]:
    return [Odd(str(i), text="", **odd) for i, odd in enumerate(ODDS)]

@asset(layout="files")
async def single(odd: Odd = each(packed)) -> Odd:
    return odd

@asset
async def told(odd: Odd = each(single), before: Odd = each(packed)) -> Report:
    assert repr(odd.field_values()) == repr(before.field_values())
    return Report("r", text=repr(odd.field_values()))

@asset
async def words(odds: list[Odd] = collect(single, by="word")) -> Report:
    return Report("r", text=odds[0].word)
"""


async def test_fields_that_would_be_a_blob_in_postgres(world: World) -> None:
    """A document of its own with megabytes in a typed field fails its unit alone; in a pack fields are columns, and it is kept."""
    world.code("""
        class Page(Document):
            body: str

        @asset(layout="files")
        async def pages(topic: Topic = each(topics)) -> Page:
            return Page(topic.name, text="", body=topic.text * (1 << 18 if topic.name == "a.txt" else 1))

        @asset
        async def packed(topic: Topic = each(topics)) -> Page:
            return Page(topic.name, text="", body=topic.text * (1 << 18))
    """)
    result = await world.materialize()
    [failure] = result.failures
    assert failure.unit == "a.txt"
    assert "has 2,883,584 bytes in its field 'body'" in failure.error
    assert "Put it into the content" in failure.error
    assert {a.asset: (a.made, a.failed) for a in result.assets if a.asset != "topics"} == {
        "pages": (1, 1),
        "packed": (2, 0),
    }


async def test_odd_values_in_fields_and_config_are_kept(world: World, aipctl: Command) -> None:
    """NUL, NaN, infinities, any bytes and very long text in typed fields, config and groups are kept as they are, in packs and alone."""
    world.code(ODD)
    result = await world.materialize()
    assert not result.failures
    found = await world.contents()
    assert found["told"]["4", "r"].decode() == repr({"word": "", "number": 0.0, "raw": bytes(range(256)), "parts": []})
    assert "nan" in found["told"]["2", "r"].decode()
    assert {text.decode() for text in found["words"].values()} == {
        "nul \0 here",
        "x" * 100_000,
        "",
        "line\nbreak [x]/y",
    }
    assert all(len(unit) <= 200 and unit.isprintable() for unit, _ in found["words"])
    assert await world.plan() == {}
    for ref in (format_ref("words", unit) for unit, _ in found["words"]):
        assert aipctl("show", ref, "--json").json["documents"][0]["asset"] == "words"


async def test_odd_errors_are_told(world: World, aipctl: Command) -> None:
    """An error whose text has NUL, escape codes or lone surrogates, or is very long, fails its unit like any other."""
    world.code("""
        SAID = {"a.txt": "nul \\0 here", "b.txt": "\\udc80 and \\x1b[31mred", "c.txt": "x" * 30_000_000}

        @asset
        async def fails(topic: Topic = each(topics)) -> Report:
            raise ValueError(SAID[topic.name])
    """)
    world.document("c.txt", "c")
    ended = aipctl("materialize", "--local", "--json")
    assert ended.code == 1
    said = {f["unit"]: f["error"] for f in ended.json["failures"]}
    assert said["a.txt"] == "ValueError: nul \\x00 here"
    assert said["b.txt"] == "ValueError: \\udc80 and \\x1b[31mred"
    assert len(said["c.txt"]) < 5000
    assert len(ended.out) < 60_000
    assert "\x1b[31m" not in ended.err


async def test_documents_of_one_name_are_exported_apart(world: World, aipctl: Command, tmp_path: Path) -> None:
    """Documents that have one name, in units that have one label, are all exported, each in a file of its own."""
    world.code("""
        @asset
        async def parts(topic: Topic = each(topics)) -> list[Report]:
            return [Report(f"part-{i}", text=f"{topic.stem}{i}") for i in range(2)]

        @asset
        async def marked(part: Report = each(parts)) -> Report:
            return Report(part.name, text=part.text)

        @asset
        async def again(part: Report = each(marked)) -> list[Report]:
            return [Report("x", text=part.text), Report("part-0/part-0/x", text=part.text.upper())]
    """)
    await world.materialize()
    assert aipctl("export", "parts or marked or again", str(tmp_path)).code == 0
    for asset in ("parts", "marked"):
        assert sorted(f.read_text() for f in (tmp_path / asset).iterdir()) == ["a0", "a1", "b0", "b1"]
    assert sorted(f.read_text() for f in (tmp_path / "again").iterdir()) == [
        "A0",
        "A1",
        "B0",
        "B1",
        "a0",
        "a1",
        "b0",
        "b1",
    ]


# --- services ---------------------------------------------------------------------------------------------------------


def test_services_that_are_down_or_refuse(
    world: World, aipctl: Command, variables: dict[str, str], closed_port: int
) -> None:
    """A service that is down or refuses the password ends a command with 69, its name and its address without the password."""
    database, redis_url = variables["DATABASE_URL"], variables["REDIS_URL"]
    secret = str(urlsplit(database).password)
    cases = [
        ({"DATABASE_URL": f"postgresql://u:{secret}@127.0.0.1:{closed_port}/x"}, ("ostgres", f"127.0.0.1:{closed_port}")),
        ({"DATABASE_URL": database.replace(secret, "wrong")}, ("ostgres", "password")),
        ({"DATABASE_URL": database.rpartition("/")[0] + "/missing"}, ("ostgres", '"missing" does not exist')),
        ({"REDIS_URL": f"redis://127.0.0.1:{closed_port}/0"}, ("edis", f"127.0.0.1:{closed_port}")),
        ({"REDIS_URL": redis_url.replace(str(urlsplit(redis_url).password), "wrong")}, ("edis", "password")),
        ({"PREFECT_API_URL": f"http://127.0.0.1:{closed_port}/api"}, ("refect", f"127.0.0.1:{closed_port}")),
        ({"ASSETCORE_STORAGE_URL": "s3://bucket/x", "ASSETCORE_STORAGE_ENDPOINT": f"http://127.0.0.1:{closed_port}",
          "ASSETCORE_STORAGE_KEY": "k", "ASSETCORE_STORAGE_SECRET": "s"}, (f"127.0.0.1:{closed_port}",)),
    ]  # fmt: skip
    for changed, words in cases:
        local = ["--local"] if "PREFECT_API_URL" not in changed else []
        ended = aipctl("materialize", *local, variables=changed)
        told(ended, 69, *words)
        assert secret not in ended.out + ended.err
    assert aipctl("materialize", "--local").code == 0


async def test_a_database_that_goes_away_in_the_middle(
    world: World, aipctl: Command, stack: Settings, settings: Settings
) -> None:
    """Connections that break during a run end it with 69; the next run continues with what is missing."""
    world.code(GATE)
    (world.root / "gate").touch()
    process = aipctl.start("materialize", "--local")
    try:
        until((world.root / "begun").exists)
        name = str(settings.database_url).rpartition("/")[2]
        connection = await asyncpg.connect(str(stack.database_url).replace("+asyncpg", "", 1))
        await connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        await connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name)
        (world.root / "gate").unlink()
        out, err = process.communicate(timeout=60)
        await connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        await connection.close()
    finally:
        end(process)
    told(Ended(process.returncode, out, err), 69, "Postgres")
    done = aipctl("materialize", "--local", "--json").json
    assert {a["asset"]: (a["made"], a["fresh"]) for a in done["assets"]} == {"clean": (0, 2), "slow": (1, 0)}


def postgres_in(checked: Ended) -> tuple[str, str]:
    """What `check` says of Postgres: what is wrong, and what mends it."""
    [status] = [status for status in checked.json["services"] if status["name"] == "postgres"]
    assert status.keys() == {"name", "ok", "address", "version", "latency_ms", "problem", "remedy"}
    assert status["ok"] is not bool(status["problem"])
    return status["problem"], status["remedy"]


async def test_a_database_of_another_version(
    world: World, aipctl: Command, stack: Settings, settings: Settings
) -> None:
    """A newer schema ends with 69, and `check` says so; an empty database that was named says `aipctl db upgrade`, which makes it work."""
    await world.materialize()
    connection = await asyncpg.connect(str(settings.database_url).replace("+asyncpg", "", 1))
    head = await connection.fetchval(
        "UPDATE alembic_version SET version_num = '9999' RETURNING (SELECT version_num FROM alembic_version)"
    )
    told(aipctl("plan"), 69, "The database has schema 9999, which is newer than", "Upgrade assetcore")
    told(aipctl("db", "upgrade"), 69, "newer")
    assert postgres_in(aipctl("check", "--json"))[1] == "Upgrade assetcore, or use another database."
    await connection.execute("UPDATE alembic_version SET version_num = $1", head)
    await connection.execute("CREATE SCHEMA empty")
    await connection.execute(f"CREATE DATABASE {(empty := f'empty_{secrets.token_hex(4)}')}")
    try:
        variables = {"DATABASE_URL": f"{str(settings.database_url).rpartition('/')[0]}/{empty}"}
        told(aipctl("plan", variables=variables), 69, "no schema", "aipctl db upgrade")
        assert postgres_in(aipctl("check", "--json", variables=variables)) == (
            f"The database has no schema, this assetcore works with {head}",
            "Run: aipctl db upgrade",
        )
        assert aipctl("db", "upgrade", variables=variables).code == 0
        assert "already" in aipctl("db", "upgrade", variables=variables).out
        assert aipctl("materialize", "--local", variables=variables).code == 0
        assert postgres_in(aipctl("check", "--json", variables=variables))[0] == ""
    finally:
        await drop(settings, empty)
        await connection.close()
    assert await world.plan() == {}


async def test_what_a_power_cut_leaves_behind(tmp_path: Path, variables: dict[str, str]) -> None:
    """Services that died without a word, with their pid and socket files left behind, are started again; nothing is lost."""
    (tmp_path / "own").mkdir(mode=0o711)
    home = tmp_path / "own" / "home"
    own = {k: v for k, v in variables.items() if k not in ("DATABASE_URL", "REDIS_URL", "ASSETCORE_STORAGE_URL")}
    aipctl = Command(tmp_path / "own", own | {"ASSETCORE_HOME": str(home)})
    try:
        assert aipctl("new", "project", "notes").code == 0
        assert aipctl("materialize", "--local").code == 0
        services = json.loads((home / "services.json").read_text())
        pids = {name: service["pid"] for name, service in services.items() if service["pid"]}
        assert set(pids) == {"postgres", "redis", "preloader"}  # --local starts no Prefect
        for pid in pids.values():
            os.kill(pid, signal.SIGKILL)
        ended = aipctl("plan", "--exit-code")
        assert ended.code == 0, ended
        assert aipctl("materialize", "--local", "--json").json["status"] == "nothing to do"
    finally:
        aipctl("clean", "--yes")


# --- the disk and the store -------------------------------------------------------------------------------------------

LARGE = """
@asset(layout="files")
async def small(topic: Topic = each(topics)) -> Report:
    return Report(topic.name, text=topic.text)

@asset(layout="files")
async def large(topic: Topic = each(topics)) -> Report:
    return Report(topic.name, content=b"x" * 4_000_000)
"""


def test_a_full_disk(world: World, aipctl: Command) -> None:
    """Where no more can be written, the object and the reason are named, what fits is made, and later runs make the rest."""
    world.code(LARGE)

    def two_megabytes_a_file() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, 2_000_000))

    ended = aipctl("materialize", "--local", "--json", preexec_fn=two_megabytes_a_file)
    assert ended.code == 1
    assert [f["asset"] for f in ended.json["failures"]] == ["large"]
    assert "/large/" in ended.json["failures"][0]["error"]
    assert "bug" not in ended.err
    assert {a["asset"]: a["made"] for a in ended.json["assets"]} == {"small": 2, "large": 0}
    done = aipctl("materialize", "--local", "--json").json
    assert {a["asset"]: (a["made"], a["fresh"]) for a in done["assets"]} == {"small": (0, 2), "large": (2, 0)}


@pytest.mark.skipif(os.geteuid() != 0, reason="a small file system can be mounted by root only")
def test_a_full_file_system(world: World, aipctl: Command) -> None:
    """No space left on the store's device is told as that; when there is room again, the next run completes."""
    world.code(LARGE)
    store = world.settings.storage_url.removeprefix("file://")
    script = f"""mount -t tmpfs -o size=5m none {store} || exit 77
        {shlex.quote(str(AIPCTL))} materialize --local; echo first $?
        mount -o remount,size=50m {store}
        {shlex.quote(str(AIPCTL))} materialize --local --json; {shlex.quote(str(AIPCTL))} plan --exit-code; echo last $?"""
    options = {"cwd": world.root, "env": dict(aipctl.variables), "capture_output": True, "text": True, "timeout": 90}
    done = subprocess.run(["unshare", "-m", "sh", "-c", script], **options, check=False)
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip("this root may not mount")
    assert "first 1" in done.stdout, done
    assert "No space left" in done.stdout + done.stderr
    assert "last 0" in done.stdout
    assert "Traceback" not in done.stderr


async def test_an_object_that_is_gone_or_damaged(world: World, aipctl: Command) -> None:
    """Reading an object that was deleted or changed in the store ends with 1 and names its key; the next run makes it again (P10)."""
    world.code(
        BODY
        + "\n@asset\nasync def other(topic: Topic = each(topics)) -> Report:\n    return Report(topic.name, text='')\n"
    )
    await world.materialize("clean", upstream=True)
    store = Path(world.settings.storage_url.removeprefix("file://"))
    pack = next(store.rglob("clean/pack-*.parquet"))
    key, content = str(pack.relative_to(store)), pack.read_bytes()
    for damaged in (None, b"", content[: len(content) // 2], content.replace(b"PAR1", b"PAR2"), flipped(content)):
        pack.unlink(missing_ok=True)
        if damaged is not None:
            pack.write_bytes(damaged)
        told(aipctl("show", "clean"), 1, key)
    ended = aipctl("materialize", "--local", "--json")
    assert ended.code == 0
    assert {a["asset"]: a["made"] for a in ended.json["assets"]} == {"clean": 2, "report": 1, "other": 2}


def flipped(content: bytes) -> bytes:
    """The same pack with other bytes in the place of a document's."""
    place = content.index(b"alpha beta")
    return content[:place] + b"alphA beta" + content[place + 10 :]


# --- runs that end early ----------------------------------------------------------------------------------------------

GATE = """
import asyncio, pathlib

@asset
async def clean(topic: Topic = each(topics)) -> Topic:
    return Topic(topic.name, text=topic.text)

@asset
async def slow(topics: list[Topic] = collect(clean)) -> Report:
    pathlib.Path("begun").touch()
    while pathlib.Path("gate").exists():
        await asyncio.sleep(0.02)
    return Report("slow", text="")
"""
SYNC_GATE = GATE.replace("async def slow", "def slow").replace("await asyncio.sleep", "__import__('time').sleep")
THREAD_GATE = GATE.replace("await asyncio.sleep(0.02)", "await asyncio.to_thread(__import__('time').sleep, 60)")
"""What no one can end: a thread of the unit's own goes on."""
HELD_GATE = GATE.replace("await asyncio.sleep", "__import__('time').sleep")
"""What lets nobody else have a turn: a unit that holds the event loop."""


@pytest.mark.parametrize("code", [GATE, SYNC_GATE], ids=["async", "sync"])
async def test_a_killed_command(world: World, aipctl: Command, code: str) -> None:
    """After SIGKILL in the middle no process is left, the lock ends with its lease, and the next run continues: nothing is made again."""
    world.code(code)
    (world.root / "gate").touch()
    process = aipctl.start("materialize", "--local")
    try:
        until((world.root / "begun").exists)
        children = descendants(process.pid)
        process.kill()
        until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in children))
    finally:
        end(process)
    await lease_runs_out(world.settings)
    (world.root / "gate").unlink()
    ended = aipctl("materialize", "--local", "--json")
    assert {a["asset"]: (a["made"], a["fresh"]) for a in ended.json["assets"]} == {"clean": (0, 2), "slow": (1, 0)}
    assert [run["status"] for run in aipctl("runs", "--json").json["runs"]] == ["done", "died"]


COUNTED = """
import asyncio, os

@asset(concurrency=4)
async def counted(topic: Topic = each(topics)) -> Topic:
    with open("executed", "a") as file:
        file.write(f"{topic.name}\\n")
    await asyncio.sleep(0.05)
    while os.path.getsize("executed") > 1000 and os.path.exists("gate"):  # more than 120 have begun
        await asyncio.sleep(0.02)
    return Topic(topic.name, text=topic.text)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=["SIGKILL", "SIGINT"])
async def test_what_was_committed_is_not_executed_again(world: World, aipctl: Command, number: int) -> None:
    """Of an asset that was in the middle of its units, the next run executes those that were not committed, and only those."""
    world.code(COUNTED)
    for i in range(200):
        world.document(f"{i}.txt", f"text {i}")
    executed, gate = world.root / "executed", world.root / "gate"
    gate.touch()
    process = aipctl.start("materialize", "--local", variables={"ASSETCORE_BATCH_SECONDS": "0.2"})
    try:
        until(lambda: executed.exists() and len(executed.read_text().split()) > 110)
        process.send_signal(number)
        process.wait(timeout=20)
    finally:
        end(process)
    gate.unlink()
    if number == signal.SIGKILL:
        await lease_runs_out(world.settings)
    async with world.open() as session:
        kept = {document.unit for document in await session.show("counted")}
    before = executed.read_text().split()
    assert kept
    assert kept <= set(before)
    if number == signal.SIGINT:  # there is time to keep what had ended, too
        assert len(before) - len(kept) <= 4
    assert aipctl("materialize", "--local", "--json").json["assets"][0]["made"] == 202 - len(kept)
    again = executed.read_text().split()[len(before) :]
    assert sorted(again) == sorted({f"{n}.txt" for n in [*range(200), "a", "b"]} - kept)


@pytest.mark.parametrize("code", [GATE, SYNC_GATE, THREAD_GATE, HELD_GATE], ids=["async", "sync", "thread", "held"])
@pytest.mark.parametrize(
    ("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["SIGINT", "SIGTERM"]
)
async def test_an_interrupted_command(world: World, aipctl: Command, code: str, number: int, exit_code: int) -> None:
    """Ctrl-C ends a run within seconds, with 130 and no lock left; the next run continues: nothing is made again."""
    world.code(code)
    (world.root / "gate").touch()
    process = aipctl.start("materialize", "--local", "--json")
    try:
        until((world.root / "begun").exists)
        children = descendants(process.pid)
        os.killpg(process.pid, number)  # as a terminal does: to the command and all its children
        out, err = process.communicate(timeout=15)
    finally:
        end(process)
    assert process.returncode == exit_code, err
    kind = {130: "Interrupted", 143: "Terminated"}[exit_code]
    assert json.loads(out)["error"] == {"kind": kind, "message": f"{kind}.", "hint": None, "exit_code": exit_code}
    assert "the next run continues" in err
    assert "Traceback" not in err
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in children))
    (world.root / "gate").unlink()
    done = aipctl("materialize", "--local", "--json")
    assert {a["asset"]: (a["made"], a["fresh"]) for a in done.json["assets"]} == {"clean": (0, 2), "slow": (1, 0)}
    assert "waiting" not in done.err
    assert [run["status"] for run in aipctl("runs", "--json").json["runs"]] == ["done", "cancelled"]


async def test_two_commands_at_once(world: World, aipctl: Command) -> None:
    """Of two runs at once the second says that it waits, and then finds everything made: each unit is made once."""
    world.code(GATE)
    (world.root / "gate").touch()
    first = aipctl.start("materialize", "--local", "--json")
    second = None
    try:
        until((world.root / "begun").exists)
        second = aipctl.start("materialize", "--local", "--json")
        assert second.stderr is not None
        until(lambda: "waiting for it" in second.stderr.readline())
        impatient = aipctl.start("materialize", "--local")
        assert impatient.stderr is not None
        until(lambda: "waiting for it" in impatient.stderr.readline())
        impatient.send_signal(signal.SIGINT)
        assert impatient.wait(timeout=10) == 130
        (world.root / "gate").unlink()
        outs = [process.communicate(timeout=60)[0] for process in (first, second)]
    finally:
        end(first)
        if second is not None:
            end(second)
    assert (first.returncode, second.returncode) == (0, 0)
    assert {a["asset"]: a["made"] for a in json.loads(outs[0])["assets"]} == {"clean": 2, "slow": 1}
    assert json.loads(outs[1])["status"] == "nothing to do"


async def test_a_lock_that_was_lost(world: World, aipctl: Command) -> None:
    """Two runs that both think they are alone, because Redis lost the lock, leave each unit made once and nothing broken."""
    world.code(GATE)
    (world.root / "gate").touch()
    first = aipctl.start("materialize", "--local", "--json")
    second = None
    try:
        until((world.root / "begun").exists)
        await lease_runs_out(world.settings)
        (world.root / "begun").unlink()
        second = aipctl.start("materialize", "--local", "--json")
        until((world.root / "begun").exists)
        (world.root / "gate").unlink()
        outs = [process.communicate(timeout=60) for process in (first, second)]
    finally:
        end(first)
        if second is not None:
            end(second)
    assert (first.returncode, second.returncode) == (0, 0), outs
    counts = [{a["asset"]: a for a in json.loads(out)["assets"]}["slow"] for out, _ in outs]
    assert sorted((c["made"], c["failed"]) for c in counts) == [(0, 0), (1, 0)]
    assert await world.plan() == {}
    assert set((await world.contents())["slow"]) == {("slow", "slow")}


def descendants(pid: int) -> list[int]:
    """The processes below one, now."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):  # a thread that has just ended
            for child in map(int, task.read_text().split()):
                found += [child, *descendants(child)]
    return found
