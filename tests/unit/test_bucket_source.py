"""Bucket sources: what a listing shows is seen as it is, and only what differs is read. Here on fsspec's local file systems."""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem

from assetcore.assets import Source
from assetcore.declarations import source
from assetcore.documents import Document
from assetcore.errors import DeclarationError, SettingsError, SourceError
from assetcore.settings import Settings
from assetcore.sources import OBSERVED, bucket, documents, folder, observe
from assetcore.sources.bucket import _ahead
from assetcore.sources.patterns import Chosen, head
from assetcore.storage.filesystems import problem_of

ROOT = Path("/nowhere")


class Page(Document):
    """A page."""


def of(where: Any) -> Source:
    return source("pages", Page, where)


@pytest.fixture(params=["memory", "file"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return Place(f"memory://{uuid.uuid4()}/below" if request.param == "memory" else f"file://{tmp_path}/below")


class Place:
    """A place that fsspec knows, which counts what is read there."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.files, self.root = fsspec.core.url_to_fs(url)

    def write(self, *names: str, content: bytes = b"x", age: float = 60) -> None:
        """Objects that were last written `age` seconds ago."""
        for name in names:
            path = f"{self.root}/{name}"
            self.files.makedirs(path.rpartition("/")[0], exist_ok=True)
            self.files.pipe_file(path, content)
            if "memory" in self.files.protocol:
                stored = self.files.store[path]
                stored.created = stored.modified = stored.created.fromtimestamp(
                    time.time() - age, stored.created.tzinfo
                )
            else:
                os.utime(path, (time.time() - age, time.time() - age))

    def remove(self, name: str) -> None:
        self.files.rm(f"{self.root}/{name}")


class Noted(LocalFileSystem):
    """Local files that note which of them are read, and of which some vanish between being listed and being read."""

    protocol = "noted"
    reads: ClassVar[list[str]] = []
    vanishing: ClassVar[set[str]] = set()

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        return super()._strip_protocol(str(path).removeprefix("noted://"))

    def cat_file(self, path: str, *arguments: Any, **options: Any) -> Any:
        name = path.rpartition("/")[2]
        self.reads.append(name)
        if name in self.vanishing:
            raise FileNotFoundError(path)
        return super().cat_file(path, *arguments, **options)


fsspec.register_implementation("noted", Noted, clobber=True)


@pytest.fixture
def noted(tmp_path: Path) -> Place:
    """A place whose reads are noted in `Noted.reads`."""
    Noted.reads.clear()
    Noted.vanishing.clear()
    return Place(f"noted://{tmp_path}/below")


def reads() -> list[str]:
    """What was read since this was asked last."""
    happened = sorted(Noted.reads)
    Noted.reads.clear()
    return happened


async def names(where: Any) -> list[str]:
    return (await observe(of(where), ROOT, None))["name"].to_list()


async def until_error(where: Any, wanted: list[str]) -> tuple[list[str], str]:
    """The names of what is handed over before the SourceError, and its message."""
    got: list[str] = []
    try:
        async for document in documents(of(where), ROOT, wanted):
            got.append(document.name)  # noqa: PERF401 - what came before the error counts
    except SourceError as error:
        return got, str(error)
    raise AssertionError("no error")


async def test_a_file_of_the_far_future_is_observed_like_others(tmp_path: Path) -> None:
    """A local place has the times of its files, of which some no column holds."""
    local = Place(f"file://{tmp_path}/below")
    local.write("a.txt", content=b"one")
    os.utime(f"{local.root}/a.txt", (10**10, 10**10))
    frame = await observe(of(bucket(local.url)), tmp_path, None)
    assert frame["mtime_ns"].to_list() == [0]
    local.write("a.txt", content=b"two")
    os.utime(f"{local.root}/a.txt", (10**10, 10**10))
    again = await observe(of(bucket(local.url)), tmp_path, frame)
    assert again["sha256"].to_list() == [hashlib.sha256(b"two").digest()]


async def test_an_object_is_a_document_named_by_its_path(place: Place) -> None:
    """A bucket gives the documents that a folder with the same files gives."""
    place.write("a.md", "sub/b.html", "sub/deep/c.txt", content=b"<p>")
    frame = await observe(of(bucket(place.url)), ROOT, None)
    assert frame.schema == OBSERVED
    assert frame["name"].to_list() == ["a.md", "sub/b.html", "sub/deep/c.txt"]
    assert frame["media_type"].to_list() == ["text/markdown", "text/html", "text/plain"]
    assert frame["size"].to_list() == [3, 3, 3]
    read = [one async for one in documents(of(bucket(place.url)), ROOT, frame["name"].to_list())]
    assert [one.sha256 for one in read] == frame["sha256"].to_list()
    if place.url.startswith("file"):
        same = await observe(of(folder(place.root)), ROOT, None)
        assert same.select("name", "identity").equals(frame.select("name", "identity"))


PATTERNS = [
    ("*", []), ("*.txt", []), ("*.{txt,md}", []), ("{d,b}{/**/,}*.{txt,md}", []), ("**/*.txt", []), ("**", []), ("d/**", []),
    ("**/e/*", []), ("d/**/**/a.txt", []), ("d/a.txt", []), ("d/e/*", []), ("*/*", []), (".*", []), ("**/.*/*", []), ("nothing/*", []),
    ("**/*", ["*.txt"]), ("**/*", ["d/**"]), ("**/*", ["e"]), ("**/*", ["a.txt/"]), ("**/.*/*", [".git"]), ("**/*", ["**"]),
]  # fmt: skip


@pytest.mark.parametrize(("pattern", "exclude"), PATTERNS)
async def test_patterns_name_what_they_name_in_a_folder(tmp_path: Path, pattern: str, exclude: list[str]) -> None:
    """Bucket and folder agree on what a pattern means, listed folder by folder or all at once."""
    place = Place(f"file://{tmp_path}/below")
    all_names = [
        "a.txt",
        "A.txt",
        "b.md",
        "d/a.txt",
        "d/e/a.txt",
        "d/e/f/g.py",
        ".hidden",
        ".git/config",
        "d/.cache/x.txt",
    ]
    place.write(*all_names)
    found = await names(folder(place.root, pattern, exclude=exclude))
    assert await names(bucket(place.url, pattern, exclude=exclude)) == found
    chosen = Chosen(pattern, exclude)
    assert sorted(name for name in all_names if chosen.chooses(name)) == found
    start, flat = head(pattern)
    assert all(name.startswith(f"{start}/" if start else "") for name in found)
    assert not flat or all(name.count("/") == (start.count("/") + 1 if start else 0) for name in found)


async def test_what_has_not_changed_is_not_read_again(noted: Place) -> None:
    """Only what is new or differs in the listing is read; `rehash` reads all."""
    noted.write("a.md", "b.md", content=b"old")
    pages = of(bucket(noted.url))
    known = await observe(pages, ROOT, None)
    assert reads() == ["a.md", "b.md"]
    again = await observe(pages, ROOT, known)
    assert (again.equals(known), reads()) == (True, [])
    noted.write("b.md", "c.md", content=b"new", age=30)
    changed = await observe(pages, ROOT, known)
    assert reads() == ["b.md", "c.md"]
    assert changed["sha256"].to_list() == [hashlib.sha256(text).digest() for text in (b"old", b"new", b"new")]
    assert (await observe(pages, ROOT, changed, rehash=True)).equals(changed)
    assert reads() == ["a.md", "b.md", "c.md"]
    noted.remove("a.md")
    assert (await observe(pages, ROOT, changed))["name"].to_list() == ["b.md", "c.md"]
    assert reads() == []


async def test_an_object_that_was_just_written_is_read_again(noted: Place) -> None:
    """Where there is no ETag, a time within the clock's grain says nothing."""
    noted.write("a.md", age=0)
    known = await observe(of(bucket(noted.url)), ROOT, None)
    assert known["mtime_ns"].to_list() == [0]
    await observe(of(bucket(noted.url)), ROOT, known)
    assert reads() == ["a.md", "a.md"]


async def test_a_missing_place_is_named(place: Place) -> None:
    """A bucket that does not exist is an error; a pattern that names nothing in one that does is none."""
    for pattern in ("**/*", "*.md", "some/where/*"):
        with pytest.raises(SourceError, match=r"pages reads the bucket .*below, which does not exist"):
            await names(bucket(place.url, pattern))
    place.write("a.md")
    assert await names(bucket(place.url, "some/where/*")) == []


async def test_an_object_over_the_limit_is_an_error(place: Place) -> None:
    """Already the listing tells; what has grown since is told when it is read."""
    place.write("a.md", content=b"12345")
    assert await names(bucket(place.url, max_bytes=5)) == ["a.md"]
    with pytest.raises(SourceError, match=r"pages found the file a.md in .*below with 5 bytes; max_bytes is 4"):
        await names(bucket(place.url, max_bytes=4))
    _, error = await until_error(bucket(place.url, max_bytes=4), ["a.md"])
    assert "a.md (has 5 bytes by now; max_bytes is 4)" in error


async def test_what_is_gone_since_is_named_after_the_rest(place: Place) -> None:
    """Objects that disappear between observing and reading do not keep the others from being read."""
    place.write(*(f"{i:03}.md" for i in range(60)))
    found = await names(bucket(place.url))
    place.remove("000.md")
    place.remove("030.md")
    got, error = await until_error(bucket(place.url), [*found, "../outside", "/etc/passwd"])
    assert got == [name for name in found if name not in ("000.md", "030.md")]
    assert "pages could not read 4 of 62 documents" in error
    assert "000.md (gone since it was observed)" in error


async def test_what_is_gone_while_it_is_observed_is_left_out(noted: Place) -> None:
    """An object that was listed and is gone before it is read is not there."""
    noted.write("a.md", "b.md", "c.md")
    Noted.vanishing.add("b.md")
    assert await names(bucket(noted.url)) == ["a.md", "c.md"]


async def test_large_objects_are_hashed_through_a_file(noted: Place) -> None:
    """An object above 8 MiB is never held to be hashed."""
    content = os.urandom(9 << 20)
    noted.write("large.bin", content=content)
    frame = await observe(of(bucket(noted.url)), ROOT, None)
    assert (frame["sha256"].to_list(), reads()) == ([hashlib.sha256(content).digest()], [])


async def test_text_in_another_encoding_is_handed_over_as_utf_8(place: Place) -> None:
    """What is observed is what will be read; a text that is not in the encoding is named."""
    place.write("a.txt", content="häß".encode("latin-1"))
    latin = bucket(place.url, encoding="latin-1")
    frame = await observe(of(latin), ROOT, None)
    (document,) = [one async for one in documents(of(latin), ROOT, ["a.txt"])]
    assert (document.text, frame["sha256"].to_list()) == ("häß", [document.sha256])
    utf8 = await observe(of(bucket(place.url)), ROOT, frame)
    assert utf8["sha256"].to_list() == [hashlib.sha256("häß".encode("latin-1")).digest()]
    with pytest.raises(SourceError, match=r"pages cannot read a.txt in .* as ascii"):
        await names(bucket(place.url, encoding="ascii"))


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("bucket/prefix", "is not the address of a bucket"),
        ("s3://", "is not the address of a bucket"),
        (Path("data"), "is not the address of a bucket"),
        ("s3://key:secret@bucket/prefix", "holds what may be a secret"),
        ("https://example.org/list?sig=secret", "holds what may be a secret"),
    ],
)
def test_an_address_without_a_place_or_with_a_secret_is_refused(url: Any, said: str) -> None:
    """It is told when it is declared, with file and line, and without the secret."""
    with pytest.raises(DeclarationError, match=rf"test_bucket_source.py:\d+: .*{said}") as caught:
        bucket(url)
    assert "key:" not in str(caught.value)
    assert "sig=" not in str(caught.value)


async def test_a_kind_of_place_that_is_not_known_is_told() -> None:
    """fsspec's own words say what is unknown, or which package would know it."""
    with pytest.raises(SourceError, match=r"pages cannot be observed: .*carrier-pigeon"):
        await names(bucket("carrier-pigeon://loft/a"))


async def test_work_ahead_is_bounded_in_order_and_ended() -> None:
    """So many at once and no more, whatever finishes first; what is under way when nobody wants more is cancelled."""
    running, most, ended = 0, 0, 0

    async def work(number: int) -> int:
        nonlocal running, most, ended
        running += 1
        most = max(most, running)
        try:
            await asyncio.sleep(0.002 * (number % 3))
            return number
        finally:
            running -= 1
            ended += 1

    done = [number async for number in _ahead(range(20), work, lambda: 4)]
    assert (done, most, ended) == (list(range(20)), 4, 20)
    some: AsyncIterator[int] = _ahead(range(20), work, lambda: 4)
    assert await anext(some) == 0
    await some.aclose()
    assert running == 0


@pytest.mark.parametrize(
    ("error", "problem"),
    [
        (FileNotFoundError("The specified bucket does not exist"), "missing"),
        (PermissionError("Forbidden"), "refused"),
        (OSError(22, "InvalidAccessKeyId"), "refused"),
        (type("NoCredentialsError", (Exception,), {})("Unable to locate credentials"), "keys"),
        (ConnectionRefusedError(), "unreachable"),
        (type("EndpointConnectionError", (Exception,), {})("Could not connect to the endpoint URL"), "unreachable"),
        (ValueError("odd"), "other"),
    ],
)
def test_what_file_systems_say_is_told_apart(error: Exception, problem: str) -> None:
    """The errors of all file systems mean one of six things."""
    assert problem_of(error) == problem


def test_credentials_come_from_the_settings_by_the_longest_address(tmp_path: Path) -> None:
    """An address stands for all below it, not for those that merely begin alike; the store's own bucket needs no entry."""
    settings = Settings.load(
        tmp_path,
        storage_url="s3://store/prefix", storage_endpoint="http://127.0.0.1:9000", storage_key="k", storage_secret="s",
        buckets={
            "s3://": {"region": "eu-central-1"},
            "s3://data": {"endpoint": "http://127.0.0.1:1"},
            "s3://data/private": {"key": "key", "secret": "geheim"},
            "s3://open": {"anonymous": True},
        },
    )  # fmt: skip
    assert settings.bucket_options("s3://other")["client_kwargs"] == {"region_name": "eu-central-1"}
    assert settings.bucket_options("s3://data/a")["endpoint_url"] == "http://127.0.0.1:1"
    assert settings.bucket_options("s3://database")["client_kwargs"] == {"region_name": "eu-central-1"}
    assert settings.bucket_options("s3://data/private/a")["secret"] == "geheim"
    assert settings.bucket_options("s3://open/a")["anon"] is True
    assert settings.bucket_options("gs://open/a") == {}
    own = Settings.load(tmp_path, storage_url="s3://store/prefix", storage_key="k", storage_secret="s")
    assert own.bucket_options("s3://store/incoming")["key"] == "k"
    assert own.bucket_options("s3://elsewhere") == {}
    where = bucket("s3://data/private").with_access(settings)
    assert "geheim" not in repr(where) + str(settings.origins()) + repr(settings)
    assert where == bucket("s3://data/private")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"gs://data": {}}, "gs://data is no address of S3"),
        ({"s3://data": {"key": "geheim", "sekret": "geheim"}}, "Extra inputs are not permitted"),
    ],
)
def test_credentials_of_the_wrong_form_are_told_without_them(tmp_path: Path, value: Any, said: str) -> None:
    """The sentence names the setting, and shows nothing of what may be a secret."""
    with pytest.raises(SettingsError, match=said) as caught:
        Settings.load(tmp_path, buckets=value)
    assert "buckets" in str(caught.value)
    assert "geheim" not in str(caught.value)
