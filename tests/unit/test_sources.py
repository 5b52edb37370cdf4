"""Sources: what is out there is seen as it is, and what is wrong with it is said."""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import os
import random
import socket
import stat
import sys
import tempfile
import time
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import polars as pl
import pytest

from assetcore.assets import Source
from assetcore.declarations import source
from assetcore.documents import Document, field_digests, identity
from assetcore.errors import DeclarationError, SourceError
from assetcore.sources import OBSERVED, documents, folder, glance, observe
from assetcore.sources.observed import SORTED_HERE, Listed, Unread
from assetcore.sources.postgres import _of_keywords


class Topic(Document):
    """One topic."""


class Page(Document):
    fixed_media_type: ClassVar[str | None] = "text/html"
    language: str = "en"


def of(where: Any, type_: type[Document] = Topic) -> Source:
    return source("topics", type_, where)


def write(root: Path, *names: str, content: bytes = b"x", age: float = 60) -> None:
    """Files that were last written `age` seconds ago."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        os.utime(path, (time.time() - age, time.time() - age))


async def names(root: Path, pattern: str = "**/*", **options: Any) -> list[str]:
    frame = await observe(of(folder(".", pattern, **options)), root, None)
    return frame["name"].to_list()


async def read(where: Any, root: Path, wanted: list[str], type_: type[Document] = Topic) -> list[Document]:
    return [document async for document in documents(of(where, type_), root, wanted)]


async def until_error(of_source: Source, root: Path, wanted: list[str]) -> tuple[list[str], str]:
    """The names of what is handed over before the SourceError, and its message."""
    got: list[str] = []
    try:
        async for document in documents(of_source, root, wanted):
            got.append(document.name)  # noqa: PERF401 - what came before the error counts
    except SourceError as error:
        return got, str(error)
    raise AssertionError("no error")


@pytest.fixture
def as_nobody() -> Iterator[Path]:
    """A folder that another user owns, while we are not allowed everything."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        os.chmod(name, 0o777)
        was = os.geteuid()
        if was == 0:
            os.seteuid(65534)
        try:
            yield Path(name)
        finally:
            os.seteuid(was)


async def test_a_file_is_a_document_named_by_its_path(tmp_path: Path) -> None:
    """What is observed of a file is what a document of it would have."""
    write(tmp_path, "data/b.txt", "data/sub/a.html", content=b"<p>")
    frame = await observe(of(folder("data"), Page), tmp_path, None)
    assert frame.schema == OBSERVED
    assert frame["name"].to_list() == ["b.txt", "sub/a.html"]
    for row, document in zip(
        frame.iter_rows(named=True), await read(folder("data"), tmp_path, ["b.txt", "sub/a.html"], Page), strict=True
    ):
        fields = field_digests(document.field_values())
        assert (row["media_type"], row["sha256"], row["size"]) == ("text/html", document.sha256, 3)
        assert row["fields"] == fields
        assert row["identity"] == identity("Page", document.name, "text/html", document.sha256, fields)
        facts = (tmp_path / "data" / document.name).stat()
        assert (row["mtime_ns"], row["inode"]) == (facts.st_mtime_ns, facts.st_ino)


def test_an_inode_of_64_bits_is_a_number_that_postgres_has(tmp_path: Path) -> None:
    """Some file systems number from the top: such files are told apart."""
    write(tmp_path, "a.txt")
    facts = (tmp_path / "a.txt").stat()
    listed = Listed()
    for name, inode in (("b", (1 << 64) - 7), ("a", (1 << 63) - 1), ("c", 1 << 63)):
        changed = list(facts[:10])
        changed[stat.ST_INO] = inode
        listed.add(name, os.stat_result([*changed, 0.0, 0.0, 0.0, 1, 2, 3]))
    frame = listed.sorted().frame()
    assert frame.columns == ["name", "size", "mtime_ns", "inode"]
    assert [row[0] for row in frame.iter_rows()] == ["a", "b", "c"]
    assert frame["inode"].to_list() == [(1 << 63) - 1, -7, -(1 << 63)]
    assert frame["mtime_ns"].to_list() == [2, 2, 2]


@pytest.mark.parametrize("written", [1 << 63, -(1 << 63) - 1, 10**19])
def test_a_time_that_no_column_holds_says_nothing(tmp_path: Path, written: int) -> None:
    write(tmp_path, "a.txt")
    facts = (tmp_path / "a.txt").stat()
    listed = Listed()
    for name, at in (("a", written), ("b", (1 << 63) - 1), ("c", -(1 << 63))):
        listed.add(name, os.stat_result([*facts[:10], 0.0, 0.0, 0.0, 1, at, 3]))
    assert listed.frame()["mtime_ns"].to_list() == [0, (1 << 63) - 1, -(1 << 63)]


@pytest.mark.parametrize("encoding", [None, "latin-1"])
async def test_a_file_of_the_far_future_is_read_each_time(tmp_path: Path, encoding: str | None) -> None:
    write(tmp_path, "data/a.txt", content=b"one")
    far = 10**19
    os.utime(tmp_path / "data/a.txt", ns=(far, far))
    if (tmp_path / "data/a.txt").stat().st_mtime_ns != far:
        pytest.skip("this file system has no such times; what they become is tested above")
    source = of(folder("data", encoding=encoding), Page)
    frame = await observe(source, tmp_path, None)
    (tmp_path / "data/a.txt").write_bytes(b"two")
    os.utime(tmp_path / "data/a.txt", ns=(far, far))
    again = await observe(source, tmp_path, frame)
    assert frame["mtime_ns"].to_list() == [0]
    assert again["sha256"].to_list() == [hashlib.sha256(b"two").digest()]
    glanced = await glance(source, tmp_path)
    assert glanced is not None
    assert glanced.digest is None


@pytest.mark.parametrize("count", [0, 1, 50, SORTED_HERE, SORTED_HERE + 1])
def test_files_are_listed_by_name_however_many_there_are(tmp_path: Path, count: int) -> None:
    write(tmp_path, "a.txt")
    facts, letters = (tmp_path / "a.txt").stat(), random.Random(count).choices("aZ/.é\uffee\U0001f600", k=count)
    names = [f"{letter}{number}" for number, letter in enumerate(letters)]
    listed = Listed()
    for place, name in enumerate(names):
        listed.add(name, os.stat_result([*facts[:6], place, *facts[7:10], 0.0, 0.0, 0.0, 1, 2, 3]))
    found = listed.sorted()
    assert found.names == sorted(names)
    assert [names[size] for size in found.sizes] == found.names
    assert found.frame()["size"].to_list() == found.sizes.tolist()


@pytest.mark.parametrize(
    ("pattern", "exclude", "found"),
    [
        ("*", [], ["A.txt", "a.txt", "b.md"]),
        ("*.txt", [], ["A.txt", "a.txt"]),
        ("*.TXT", [], []),
        ("[ab].*", [], ["a.txt", "b.md"]),
        ("?.txt", [], ["A.txt", "a.txt"]),
        ("*.{txt,md}", [], ["A.txt", "a.txt", "b.md"]),
        ("{d,b}{/**/,}*.{txt,md}", [], ["b.md", "d/a.txt", "d/e/a.txt"]),
        ("**/*.txt", [], ["A.txt", "a.txt", "d/a.txt", "d/e/a.txt"]),
        ("**", [], ["A.txt", "a.txt", "b.md", "d/a.txt", "d/e/a.txt", "d/e/f/g.py"]),
        ("d/**", [], ["d/a.txt", "d/e/a.txt", "d/e/f/g.py"]),
        ("**/e/*", [], ["d/e/a.txt"]),
        ("d/**/**/a.txt", [], ["d/a.txt", "d/e/a.txt"]),
        ("d/a.txt", [], ["d/a.txt"]),
        ("*/*", [], ["d/a.txt"]),
        (".*", [], [".hidden"]),
        ("**/.*/*", [], [".git/config", "d/.cache/x.txt"]),
        ("**/.*", [], [".hidden"]),
        ("nothing-like-this", [], []),
        ("**/*", ["*.txt"], ["b.md", "d/e/f/g.py"]),
        ("**/*", ["d/**"], ["A.txt", "a.txt", "b.md"]),
        ("**/*", ["d/"], ["A.txt", "a.txt", "b.md"]),
        ("**/*", ["e"], ["A.txt", "a.txt", "b.md", "d/a.txt"]),
        ("**/*", ["**/e/**"], ["A.txt", "a.txt", "b.md", "d/a.txt"]),
        ("**/*", ["a.txt/"], ["A.txt", "a.txt", "b.md", "d/a.txt", "d/e/a.txt", "d/e/f/g.py"]),
        ("**/*", ["d/*.txt", "{A,b}.*"], ["a.txt", "d/e/a.txt", "d/e/f/g.py"]),
        ("**/.*/*", [".git"], ["d/.cache/x.txt"]),
        ("**/*", ["**"], []),
    ],
)
async def test_patterns_name_files(tmp_path: Path, pattern: str, exclude: list[str], found: list[str]) -> None:
    """A pattern names what people expect; no match is no error."""
    write(tmp_path, "a.txt", "A.txt", "b.md", "d/a.txt", "d/e/a.txt", "d/e/f/g.py")
    write(tmp_path, ".hidden", ".git/config", "d/.cache/x.txt")
    assert await names(tmp_path, pattern, exclude=exclude) == found


async def test_awkward_names_are_names(tmp_path: Path) -> None:
    """Spaces, quotes, emoji, long names and names that differ only by case are documents of their own."""
    awkward = [
        "a b.txt",
        'it\'s "quoted".txt',
        "🙂.txt",
        "x" * 250,
        "..a",
        "a..",
        "A.txt",
        "a.txt",
        "e\u0301.txt",
        "\u00e9.txt",
        "[x]*.txt",
    ]
    write(tmp_path, *awkward, content=b"hello")
    found = await names(tmp_path, "{*,.*}")
    assert found == sorted(awkward)
    read_back = await read(folder("."), tmp_path, found)
    assert [d.name for d in read_back] == found


async def test_a_path_of_300_characters_is_a_name(tmp_path: Path) -> None:
    """A long path is no trouble."""
    name = "/".join(["y" * 100] * 3)
    write(tmp_path, name)
    assert await names(tmp_path) == [name]


@pytest.mark.parametrize("name", [b"caf\xe9.txt", b"line\nbreak.txt", b"bell\x07"])
async def test_a_name_that_no_document_can_have_is_an_error(tmp_path: Path, name: bytes) -> None:
    """The file is named as the bytes that it has."""
    (tmp_path / os.fsdecode(name)).write_bytes(b"x")
    with pytest.raises(SourceError) as caught:
        await names(tmp_path)
    assert "topics found the file" in str(caught.value)
    assert repr(name) in str(caught.value)
    assert await names(tmp_path, exclude=["*"]) == []


async def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    """The error names the source, the folder as it was written, and where it was looked for."""
    with pytest.raises(
        SourceError, match=r"topics reads the folder data/missing, which does not exist: looked for /.*/data/missing"
    ):
        await observe(of(folder("data/missing")), tmp_path, None)


async def test_a_folder_that_is_a_file_is_named(tmp_path: Path) -> None:
    """A path to a file is no folder, nor is a path through one."""
    write(tmp_path, "file.txt")
    with pytest.raises(SourceError, match=r"topics reads the folder file.txt, which is a file"):
        await observe(of(folder("file.txt")), tmp_path, None)
    with pytest.raises(SourceError, match="does not exist"):
        await observe(of(folder("file.txt/below")), tmp_path, None)


async def test_an_unreadable_file_is_an_error(as_nobody: Path) -> None:
    """A file that we may not read is named, when it is observed and when it is read."""
    write(as_nobody, "a.txt", "b.txt")
    os.chmod(as_nobody / "b.txt", 0)
    with pytest.raises(SourceError, match=r"topics cannot read b.txt in \.: Permission denied"):
        await names(as_nobody)
    assert await names(as_nobody, exclude=["b.txt"]) == ["a.txt"]
    with pytest.raises(SourceError, match=r"could not read 1 of 2 documents of \.: b.txt \(Permission denied\)"):
        await read(folder("."), as_nobody, ["a.txt", "b.txt"])


async def test_an_unreadable_folder_is_an_error(as_nobody: Path) -> None:
    """A folder that we may not list is named; nothing is silently left out."""
    write(as_nobody, "closed/a.txt")
    os.chmod(as_nobody / "closed", 0)
    try:
        with pytest.raises(SourceError, match=r"topics cannot read closed/ in \.: Permission denied"):
            await names(as_nobody)
        assert await names(as_nobody, exclude=["closed"]) == []
    finally:
        os.chmod(as_nobody / "closed", 0o755)


@pytest.mark.parametrize("pattern", ["**/*", "**/*.txt"])
async def test_what_may_be_listed_and_not_looked_at_stays_what_it_was(as_nobody: Path, pattern: str) -> None:
    """A folder may tell the names that lie in it and nothing else: no document of it is taken for gone."""
    write(as_nobody, "a.txt", "half/b.txt", "half/below/c.txt", "away/d.txt", "away/e/f.txt")
    (as_nobody / "half/link.txt").symlink_to(as_nobody / "away/d.txt")
    topics = of(folder(".", pattern, exclude=["away"]))
    known = await observe(topics, as_nobody, None)
    assert known["name"].to_list() == ["a.txt", "half/b.txt", "half/below/c.txt", "half/link.txt"]
    os.chmod(as_nobody / "away", 0)  # the link leads to where nobody may look
    try:
        unread: Unread = []
        assert (await observe(topics, as_nobody, known, unread=unread)).equals(known)
        assert [(name, str(error).split(":")[0]) for name, error in unread] == [
            ("half/link.txt", "topics cannot read half/link.txt in .")
        ]
    finally:
        os.chmod(as_nobody / "away", 0o755)
    os.chmod(as_nobody / "half", 0o444)
    try:
        with pytest.raises(SourceError, match=r"topics cannot read half/below/ in \.: Permission denied"):
            await observe(topics, as_nobody, known, unread=[])
        flat = of(folder(".", pattern, exclude=["away", "below"]))
        unread = []
        assert (await observe(flat, as_nobody, known, unread=unread))["name"].to_list() == [
            "a.txt", "half/b.txt", "half/link.txt",
        ]  # fmt: skip
        assert [name for name, _ in unread] == ["half/b.txt", "half/link.txt"]
    finally:
        os.chmod(as_nobody / "half", 0o755)


@pytest.mark.parametrize(("pattern", "wanted"), [("**/*.txt", True), ("*.txt", False)])
async def test_a_link_that_may_lead_to_a_folder_where_nobody_may_look(
    as_nobody: Path, pattern: str, wanted: bool
) -> None:
    """Documents could lie behind it, unless the pattern names none below, or it is left out."""
    write(as_nobody, "a.txt", "away/e/f.txt")
    (as_nobody / "link").symlink_to(as_nobody / "away/e")
    os.chmod(as_nobody / "away", 0)
    try:
        if wanted:
            with pytest.raises(SourceError, match=r"topics cannot read link/ in \.: Permission denied"):
                await names(as_nobody, pattern, exclude=["away"])
        assert await names(as_nobody, pattern, exclude=["away", "link"] if wanted else []) == ["a.txt"]
    finally:
        os.chmod(as_nobody / "away", 0o755)


async def test_links_are_followed_and_loops_are_not(tmp_path: Path) -> None:
    """A link to a file or folder counts as what it leads to; a link to a folder above ends there."""
    write(tmp_path, "here/a.txt", "there/b.txt")
    (tmp_path / "here/link.txt").symlink_to("a.txt")
    (tmp_path / "here/there").symlink_to("../there")
    (tmp_path / "there/back").symlink_to("../here")
    (tmp_path / "here/self").symlink_to(".")
    frame = await observe(of(folder("here")), tmp_path, None)
    assert frame["name"].to_list() == ["a.txt", "link.txt", "there/b.txt"]


@pytest.mark.parametrize("target", ["nowhere", "dangling.txt"])
async def test_a_link_that_leads_nowhere_is_an_error(tmp_path: Path, target: str) -> None:
    """A dangling link, or one to itself, that the pattern names is named."""
    (tmp_path / "dangling.txt").symlink_to(target)
    with pytest.raises(SourceError, match=r"cannot read dangling.txt in \.: it is a link that leads nowhere"):
        await names(tmp_path)
    assert await names(tmp_path, "*.md") == []


async def test_only_regular_files_are_documents(tmp_path: Path) -> None:
    """A pipe or a socket is passed over, and does not block."""
    write(tmp_path, "a.txt")
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        assert await names(tmp_path) == ["a.txt"]


async def test_what_has_not_changed_is_not_read_again(tmp_path: Path) -> None:
    """Size, time and inode decide; `rehash` reads all the same."""
    write(tmp_path, "a.txt", "b.txt", content=b"old")
    topics = of(folder("."))
    known = await observe(topics, tmp_path, None)
    assert known["mtime_ns"].min() != 0
    times = (tmp_path / "a.txt").stat()
    (tmp_path / "a.txt").write_bytes(b"new")
    os.utime(tmp_path / "a.txt", ns=(times.st_atime_ns, times.st_mtime_ns))  # a change that leaves no trace
    again = await observe(topics, tmp_path, known)
    assert again.equals(known)
    rehashed = await observe(topics, tmp_path, known, rehash=True)
    assert rehashed["sha256"].to_list() == [hashlib.sha256(b"new").digest(), hashlib.sha256(b"old").digest()]
    assert rehashed["identity"][0] != known["identity"][0]
    assert rehashed["identity"][1] == known["identity"][1]


@pytest.mark.parametrize(
    "change",
    [
        lambda path: path.write_bytes(b"longer than before"),
        lambda path: (path.write_bytes(b"new"), os.utime(path, (1, 1))),
        lambda path: (write(path.parent, "other", content=b"new"), os.replace(path.parent / "other", path)),
    ],
    ids=["size", "time", "inode"],
)
async def test_each_trace_of_a_change_is_enough(tmp_path: Path, change: Callable[[Path], object]) -> None:
    """Another size, time or inode makes a file be read again."""
    write(tmp_path, "a.txt", content=b"old")
    known = await observe(of(folder(".")), tmp_path, None)
    change(tmp_path / "a.txt")
    again = await observe(of(folder(".")), tmp_path, known)
    assert again["sha256"].to_list() == [hashlib.sha256((tmp_path / "a.txt").read_bytes()).digest()]
    assert again["identity"][0] != known["identity"][0]


async def test_a_file_that_was_just_written_is_read_again(tmp_path: Path) -> None:
    """A change within the clock's grain, which leaves the time as it was, is seen by the next observation."""
    write(tmp_path, "a.txt", content=b"old", age=0)
    write(tmp_path, "future.txt", content=b"old", age=-3600)
    known = await observe(of(folder(".")), tmp_path, None)
    assert known["mtime_ns"].to_list() == [0, 0]
    times = (tmp_path / "a.txt").stat()
    (tmp_path / "a.txt").write_bytes(b"new")
    os.utime(tmp_path / "a.txt", ns=(times.st_atime_ns, times.st_mtime_ns))
    again = await observe(of(folder(".")), tmp_path, known)
    assert again["sha256"][0] == hashlib.sha256(b"new").digest()


async def test_new_gone_and_renamed_files_are_seen(tmp_path: Path) -> None:
    """The frame is what is there now, whatever was known."""
    write(tmp_path, "a.txt", "b.txt", "c.txt")
    known = await observe(of(folder(".")), tmp_path, None)
    (tmp_path / "a.txt").unlink()
    (tmp_path / "b.txt").rename(tmp_path / "z.txt")
    write(tmp_path, "new.txt")
    again = await observe(of(folder(".")), tmp_path, known)
    fresh = await observe(of(folder(".")), tmp_path, None)
    assert again["name"].to_list() == ["c.txt", "new.txt", "z.txt"]
    assert again.equals(fresh)
    for name in again["name"]:
        (tmp_path / name).unlink()
    assert (await observe(of(folder(".")), tmp_path, known)).height == 0


async def test_what_is_known_of_another_declaration_makes_no_wrong_identity(tmp_path: Path) -> None:
    """Another class, media type, field or encoding gives what observing anew gives, though hashes are used again."""
    write(tmp_path, "a.txt", "b.txt", content="é".encode("latin-1"))
    known = await observe(of(folder(".")), tmp_path, None)
    other = type("Other", (Document,), {"__annotations__": {"n": int}, "n": 1, "__module__": __name__})
    for where, type_ in [
        (folder("."), other),
        (folder("."), Page),
        (folder(".", media_type="text/markdown"), Topic),
        (folder(".", encoding="latin-1"), Topic),
    ]:
        again = await observe(of(where, type_), tmp_path, known)
        assert again.equals(await observe(of(where, type_), tmp_path, None))
        assert not set(again["identity"]) & set(known["identity"])
        assert (await observe(of(folder(".")), tmp_path, again)).equals(known)


async def test_no_hash_of_text_in_another_encoding_is_used_again(tmp_path: Path) -> None:
    """Also not that of a file from before 1970: without the encoding the document is another one."""
    write(tmp_path, "a.txt", content="é".encode("latin-1"))
    os.utime(tmp_path / "a.txt", times=(-1000, -1000))
    known = await observe(of(folder(".", encoding="latin-1")), tmp_path, None)
    assert known["mtime_ns"].to_list() == [0]
    again = await observe(of(folder(".")), tmp_path, known)
    assert again.equals(await observe(of(folder(".")), tmp_path, None))


async def test_text_in_another_encoding_is_handed_over_as_utf_8(tmp_path: Path) -> None:
    """What is observed is what will be read: the text in UTF-8."""
    write(tmp_path, "a.txt", content="häß".encode("latin-1"))
    latin = folder(".", encoding="latin-1")
    (document,) = await read(latin, tmp_path, ["a.txt"])
    assert document.text == "häß"
    assert (await observe(of(latin), tmp_path, None))["sha256"].to_list() == [document.sha256]
    for call in (
        observe(of(folder(".", encoding="ascii")), tmp_path, None),
        read(folder(".", encoding="ascii"), tmp_path, ["a.txt"]),
    ):
        with pytest.raises(SourceError, match=r"topics cannot read a.txt in \. as ascii: .*0xe4"):
            await call


async def test_any_bytes_are_content(tmp_path: Path) -> None:
    """Bytes that are no text, and none at all, are documents; asking for their text says why it cannot be had."""
    write(tmp_path, "empty.txt", content=b"")
    write(tmp_path, "broken.txt", content=b"\xff\xfe")
    assert await names(tmp_path) == ["broken.txt", "empty.txt"]
    broken, empty = await read(folder("."), tmp_path, ["broken.txt", "empty.txt"])
    assert (broken.content, empty.content, empty.text) == (b"\xff\xfe", b"", "")
    with pytest.raises(Exception, match=r"'broken\.txt' is not UTF-8 text"):
        _ = broken.text


async def test_a_large_file_is_observed_without_being_held(tmp_path: Path) -> None:
    """Observing 200 MB takes a few MB; reading them holds them once."""
    with open(tmp_path / "large.bin", "wb") as file:
        file.truncate(200_000_000)
    tracemalloc.start()
    frame = await observe(of(folder(".")), tmp_path, None)
    observed = tracemalloc.get_traced_memory()[1]
    tracemalloc.reset_peak()
    (document,) = await read(folder("."), tmp_path, ["large.bin"])
    held = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert observed < 10_000_000
    assert held < 250_000_000
    assert frame["sha256"].to_list() == [document.sha256]


async def test_a_file_over_the_limit_is_an_error(tmp_path: Path) -> None:
    """`max_bytes` guards against a file that nobody meant."""
    write(tmp_path, "a.txt", content=b"12345")
    assert await names(tmp_path, max_bytes=5) == ["a.txt"]
    with pytest.raises(SourceError, match=r"topics found the file a.txt in \. with 5 bytes; max_bytes is 4"):
        await names(tmp_path, max_bytes=4)


async def test_what_is_gone_since_is_named_after_the_rest(tmp_path: Path) -> None:
    """Files that disappear between observing and reading do not keep the others from being read."""
    write(tmp_path, *(f"{i:03}.txt" for i in range(200)))
    found = await names(tmp_path)
    for name in ("000.txt", "100.txt"):
        (tmp_path / name).unlink()
    got, error = await until_error(of(folder(".")), tmp_path, [*found, "../outside", "/etc/passwd"])
    assert got == [name for name in found if name not in ("000.txt", "100.txt")]
    assert "topics could not read 4 of 202 documents of ." in error
    for name in ("000.txt (gone since it was observed)", "100.txt", "../outside", "/etc/passwd"):
        assert name in error


async def test_a_document_changed_since_is_handed_over_as_it_is(tmp_path: Path) -> None:
    """Its hash is that of the bytes handed over, so the reader can tell."""
    write(tmp_path, "a.txt", content=b"old")
    frame = await observe(of(folder(".")), tmp_path, None)
    write(tmp_path, "a.txt", content=b"new")
    (document,) = await read(folder("."), tmp_path, ["a.txt"])
    assert document.sha256 == hashlib.sha256(b"new").digest() != frame["sha256"][0]


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("data", ""), {}, "'' is no pattern"),
        (("data", "/etc/*"), {}, "'/etc/\\*' is no pattern"),
        (("data", "../*"), {}, "'../\\*' is no pattern"),
        (("data", "a//b"), {}, "'a//b' is no pattern"),
        (("data", "a/"), {}, "'a/' names folders"),
        (("data",), {"exclude": "*.tmp"}, "exclude= takes a list"),
        (("data",), {"exclude": ["../x"]}, "'../x' is no pattern"),
        (("data",), {"encoding": "klingon"}, "'klingon' is no encoding"),
    ],
)
def test_a_wrong_folder_is_found_when_it_is_declared(
    arguments: tuple[Any, ...], options: dict[str, Any], message: str
) -> None:
    """The error names the file and the line of the declaration."""
    with pytest.raises(DeclarationError, match=rf"test_sources.py:\d+: .*{message}"):
        folder(*arguments, **options)


async def test_absolute_and_home_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder may lie anywhere."""
    write(tmp_path, "data/a.txt")
    monkeypatch.setenv("HOME", str(tmp_path))
    for path in (tmp_path / "data", str(tmp_path / "data"), "~/data"):
        frame = await observe(of(folder(path)), Path("/nonexistent"), None)
        assert frame["name"].to_list() == ["a.txt"]


# --- generators ---


@pytest.mark.parametrize(
    ("text", "address", "beside"),
    [
        ("host=h port=5433 dbname=d user=u password=p", "postgresql+asyncpg://u:p@h:5433/d", {}),
        ("  user = u  host= h", "postgresql+asyncpg://u@h", {}),
        (r"host=h user='a b' password='it\'s \\ x://y'", "postgresql+asyncpg://a b:it%27s %5C x%3A%2F%2Fy@h", {}),
        (r"host=h user=a\ b password=it's", "postgresql+asyncpg://a b:it%27s@h", {}),
        ("hostaddr=10.0.0.1 dbname=d sslmode=require", "postgresql+asyncpg://10.0.0.1/d", {"ssl": "require"}),
        ("host=/run/pg port=5433 dbname=d", "postgresql+asyncpg:///d", {"host": "/run/pg", "port": "5433"}),
        ("host=a,b port=1,2", "postgresql+asyncpg://", {"host": "a,b", "port": "1,2"}),
        ("host='h", None, {}),
        ("host=h port=x", None, {}),
        ("host=h hostaddr=10.0.0.1", None, {}),
        ("host=h oh", None, {}),
    ],
)
def test_an_address_of_keywords_is_read_as_libpq_reads_it(
    text: str, address: str | None, beside: dict[str, str]
) -> None:
    """Values in quotes, backslashes, spaces around =; what is no such address is refused, and not in part."""
    if address is None:
        with pytest.raises(ValueError):  # noqa: PT011 - it has no text, in which a password could be
            _of_keywords(text)
        return
    url = _of_keywords(text)
    assert url.set(query={}).render_as_string(hide_password=False) == address
    assert url.query == beside


async def test_what_a_generator_yields_is_observed(tmp_path: Path) -> None:
    """Hash, fields and identity are those of the documents; the order does not matter."""

    async def pages() -> AsyncIterator[Page]:
        yield Page(name="b", text="two", language="de")
        yield Page(name="a", text="one")

    frame = await observe(of(pages, Page), tmp_path, None)
    assert frame.schema == OBSERVED
    assert frame["name"].to_list() == ["a", "b"]
    (document,) = await read(pages, tmp_path, ["b"], Page)
    fields = field_digests({"language": "de"})
    assert frame["identity"][1] == identity("Page", "b", "text/html", document.sha256, fields)
    assert frame["size"].to_list() == [3, 3]
    assert (await observe(of(pages, Page), tmp_path, frame)).equals(frame)


async def test_an_empty_generator_has_no_documents(tmp_path: Path) -> None:
    """A source without documents is legal."""

    async def nothing() -> AsyncIterator[Topic]:
        for name in ():
            yield Topic(name=name, text="")

    assert (await observe(of(nothing), tmp_path, None)).height == 0


async def test_a_generator_is_run_no_further_than_needed(tmp_path: Path) -> None:
    """Once the wanted documents are there it is closed, and its clean-up has run."""
    events: list[str] = []

    async def many() -> AsyncIterator[Topic]:
        try:
            for number in range(1000):
                events.append(f"{number}")
                yield Topic(name=f"{number}", text="x")
        finally:
            events.append("closed")

    assert [d.name for d in await read(many, tmp_path, ["1", "3"])] == ["1", "3"]
    assert events == ["0", "1", "2", "3", "closed"]
    assert await read(many, tmp_path, []) == []


@pytest.mark.parametrize("kind", [ValueError, SystemExit, pl.exceptions.PanicException, asyncio.CancelledError])
async def test_a_generator_that_fails_is_named_with_its_line(tmp_path: Path, kind: type[BaseException]) -> None:
    """The error names the source, the exception and the user's line, and keeps the exception."""

    async def failing() -> AsyncIterator[Topic]:
        yield Topic(name="a", text="x")
        raise kind("no 'seven'")

    line = inspect.getsourcelines(failing)[1] + 2
    with pytest.raises(
        SourceError, match=rf"topics failed while it was observed: {kind.__name__}: .*'seven'.*test_sources.py:{line}\)"
    ) as caught:
        await observe(of(failing), tmp_path, None)
    assert isinstance(caught.value.__cause__, kind)  # whose traceback --debug shows
    assert caught.value.hint == "Its traceback is shown by: aipctl plan --debug"


async def test_a_look_that_is_cancelled_is_no_failure_of_its_generator(tmp_path: Path) -> None:
    """Ctrl-C while it waits ends the look, and names nobody."""
    waits = asyncio.Event()

    async def waiting() -> AsyncIterator[Topic]:
        waits.set()
        await asyncio.Event().wait()
        yield Topic(name="a", text="x")

    look = asyncio.create_task(observe(of(waiting), tmp_path, None))
    await waits.wait()
    look.cancel()
    with pytest.raises(asyncio.CancelledError):
        await look


async def test_a_wrong_document_is_named_with_its_line(tmp_path: Path) -> None:
    """A yielded value of another type, also of a subclass, is refused where it was yielded."""

    class Special(Topic):
        pass

    values: list[Any] = []

    async def wrong() -> AsyncIterator[Any]:
        yield values[-1]

    line = inspect.getsourcelines(wrong)[1] + 1
    for value, shown in [("text", "str 'text'"), (Special(name="a", text=""), "Special"), (None, "NoneType None")]:
        values.append(value)
        with pytest.raises(SourceError, match=rf"topics yielded {shown}.*test_sources.py:{line}\); declared is Topic"):
            await observe(of(wrong), tmp_path, None)


async def test_two_documents_of_one_name_are_refused(tmp_path: Path) -> None:
    """A name stands for one document."""

    async def twice() -> AsyncIterator[Topic]:
        yield Topic(name="a", text="1")
        yield Topic(name="a", text="2")

    with pytest.raises(SourceError, match=r"topics yielded two documents named 'a' \(.*test_sources.py:\d+\)"):
        await observe(of(twice), tmp_path, None)


async def test_what_a_generator_no_longer_yields_is_named(tmp_path: Path) -> None:
    """Documents that are gone since they were observed are named after the others."""

    async def some() -> AsyncIterator[Topic]:
        yield Topic(name="a", text="1")

    got, error = await until_error(of(some), tmp_path, ["a", "b"])
    assert got == ["a"]
    assert "topics no longer yields 1 of 2 documents that were observed: b." in error


async def test_looking_again_at_two_thousand_files_opens_none_of_them(tmp_path: Path) -> None:
    """What is known costs a look at the folder, not at the files."""
    opened: list[str] = []
    looking = False

    def hear(event: str, given: tuple[Any, ...]) -> None:
        if looking and event == "open" and str(given[0]).startswith(str(tmp_path)):
            opened.append(given[0])

    sys.addaudithook(hear)
    for name in range(100):
        write(tmp_path, *(f"{name}/{i}.txt" for i in range(20)))
    topics = of(folder("."))
    looking = True
    known = await observe(topics, tmp_path, None)
    assert len(opened) == 2000
    opened.clear()
    again = await observe(topics, tmp_path, known)
    looking = False
    assert opened == []
    assert again.equals(known)
    assert isinstance(again, pl.DataFrame)
