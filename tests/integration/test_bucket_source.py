"""A source in a bucket, with a real S3 server: what its listing says decides, and what it refuses is said."""

from __future__ import annotations

import functools
import hashlib
import http.server
import os
import secrets
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from assetcore.assets import Source
from assetcore.declarations import source
from assetcore.documents import Document
from assetcore.errors import SourceError
from assetcore.settings import Settings
from assetcore.sources import bucket, documents, observe
from assetcore.storage.filesystems import Filesystem
from tests.integration.world import World

pytestmark = pytest.mark.integration


class Page(Document):
    """A page."""


class Incoming:
    """A prefix of a bucket, into which others put what a source reads."""

    def __init__(self, server: Settings) -> None:
        self.prefix = secrets.token_hex(6)
        self.url = f"s3://incoming/{self.prefix}"
        self.objects = server.home / "s3" / "objects" / "000000000000" / "incoming" / self.prefix
        access = {
            "endpoint": server.storage_endpoint, "region": server.storage_region,
            "key": server.storage_key, "secret": server.storage_secret,
        }  # fmt: skip
        self.settings = server.using("test", storage_url="s3://elsewhere", buckets={"s3://incoming": access})
        self.files = Filesystem(self.url, self.settings.bucket_options(self.url))

    async def write(self, *names: str, content: bytes = b"x") -> None:
        for name in names:
            await self.files.call("pipe_file", self.files.path(name), content)

    async def remove(self, name: str) -> None:
        await self.files.call("rm_file", self.files.path(name))

    def damage(self, name: str, content: bytes) -> None:
        """Change an object past the API: its listing stays as it was."""
        (file,) = [one for one in self.objects.rglob("*") if one.name == name]
        file.write_bytes(content)

    async def observe(self, known: Any = None, *, rehash: bool = False, pattern: str = "**/*", **options: Any) -> Any:
        return await observe(
            of(bucket(self.url, pattern, **options)), Path(), known, rehash=rehash, settings=self.settings
        )


@pytest.fixture
async def incoming(s3_server: Settings) -> AsyncIterator[Incoming]:
    opened = Incoming(s3_server)
    if not await opened.files.call("exists", "incoming"):
        await opened.files.call("call_s3", "create_bucket", Bucket="incoming")
    yield opened
    await opened.files.close()


def of(where: Any) -> Source:
    return source("pages", Page, where)


async def until_error(read: AsyncIterator[Document]) -> tuple[list[str], str]:
    """The names of what is handed over before the SourceError, and its message."""
    got: list[str] = []
    try:
        async for document in read:
            got.append(document.name)  # noqa: PERF401 - what came before the error counts
    except SourceError as error:
        return got, str(error)
    raise AssertionError("no error")


def sha256(*contents: bytes) -> list[bytes]:
    return [hashlib.sha256(content).digest() for content in contents]


async def test_the_etag_decides_what_is_read(incoming: Incoming) -> None:
    """An object with the ETag that is known is not read, even if it was just written; `rehash` reads it all the same."""
    await incoming.write("a.md", "deep/b.md", content=b"old")
    known = await incoming.observe()
    assert known["name"].to_list() == ["a.md", "deep/b.md"]
    assert all(text.startswith("ETag ") for text in known["validator"])
    incoming.damage("a.md", b"new")
    assert (await incoming.observe(known)).equals(known)
    assert (await incoming.observe(known, rehash=True))["sha256"].to_list() == sha256(b"new", b"old")
    await incoming.write("deep/b.md", content=b"newer")
    await incoming.write("c.md", content=b"more")
    again = await incoming.observe(known)
    assert again["sha256"].to_list() == sha256(b"old", b"more", b"newer")
    await incoming.remove("a.md")
    assert (await incoming.observe(again))["name"].to_list() == ["c.md", "deep/b.md"]


async def test_listings_of_several_pages_are_read_to_their_end(incoming: Incoming) -> None:
    """More objects than one page of a listing holds are all there, and only as deep as the pattern goes."""
    await incoming.files.call(
        "pipe", {incoming.files.path(f"many/{i:04}.md"): b"x" for i in range(1010)}, batch_size=32
    )
    await incoming.write("many/deep/a.md", "many/.hidden", "folder/")
    frame = await incoming.observe(pattern="many/*.md")
    assert frame["name"].to_list() == [f"many/{i:04}.md" for i in range(1010)]
    assert (await incoming.observe(frame))["name"].len() == 1011
    read = [
        one.name async for one in documents(of(bucket(incoming.url)), Path(), frame["name"], settings=incoming.settings)
    ]
    assert read == frame["name"].to_list()


async def test_what_is_gone_since_is_named_after_the_rest(incoming: Incoming) -> None:
    """Objects that disappear between observing and reading do not keep the others from being read."""
    await incoming.write("a.md", "b.md")
    await incoming.observe()
    await incoming.remove("a.md")
    got, error = await until_error(
        documents(of(bucket(incoming.url)), Path(), ["a.md", "b.md"], settings=incoming.settings)
    )
    assert "could not read 1 of 2 documents" in error
    assert "a.md (gone since it was observed)" in error
    assert got == ["b.md"]


async def test_a_missing_bucket_and_a_missing_prefix_are_told(incoming: Incoming) -> None:
    """Both are errors that name the address; a bucket that is there and empty has no documents."""
    with pytest.raises(SourceError, match=rf"pages reads the bucket {incoming.url} at http://.*, which does not exist"):
        await incoming.observe()
    settings = incoming.settings.using("test", buckets={"s3://": incoming.settings.buckets["s3://incoming"]})
    with pytest.raises(SourceError, match=r"pages reads the bucket s3://missing .*which does not exist"):
        await observe(of(bucket("s3://missing")), Path(), None, settings=settings)
    name = f"empty-{incoming.prefix}"
    await incoming.files.call("call_s3", "create_bucket", Bucket=name)
    assert (await observe(of(bucket(f"s3://{name}")), Path(), None, settings=settings)).height == 0


async def test_refused_and_missing_credentials_and_a_closed_port_are_told(
    incoming: Incoming, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, closed_port: int
) -> None:
    """Each has its sentence, and none shows the credentials."""
    for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for file in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(file, str(tmp_path / "none"))
    closed = f"http://127.0.0.1:{closed_port}"
    endpoint = incoming.settings.storage_endpoint
    cases: list[tuple[dict[str, Any], str]] = [
        (
            {"endpoint": endpoint, "key": "wrong", "secret": "geheim"},
            "pages may not read s3://incoming/.*: access is refused",
        ),
        ({"endpoint": endpoint, "anonymous": True}, "pages may not read s3://incoming/.*: access is refused"),
        ({"endpoint": endpoint}, "pages cannot read s3://incoming/.*: it asks for credentials, and there are none"),
        ({"endpoint": closed, "key": "k", "secret": "geheim"}, f"pages cannot reach s3://incoming/.* at {closed}"),
    ]
    for access, sentence in cases:
        incoming.settings = incoming.settings.using("test", buckets={"s3://incoming": access})
        with pytest.raises(SourceError, match=sentence) as caught:
            await incoming.observe()
        assert "geheim" not in f"{caught.value} {caught.value.hint}"


BODY = """
from assetcore import bucket

pages = source("pages", Topic, bucket("{url}", "**/*.md"))

@asset
async def upper(topic: Topic = each(pages)) -> Report:
    return Report(topic.name, text=topic.text.upper())
"""


@pytest.fixture
def world(settings: Settings, incoming: Incoming) -> World:
    world = World(settings.using("test", buckets=incoming.settings.buckets))
    world.code(BODY.replace("{url}", incoming.url))
    world.document("a.txt", "of the folder")
    return world


async def test_a_project_follows_its_bucket(world: World, incoming: Incoming) -> None:
    """New, changed and gone objects make their units, and nothing else is executed; nothing changed executes nothing."""
    await incoming.write("a.md", "deep/b.md", content=b"old")
    assert (await world.made("upper"))["upper"] == {"made": 2}
    assert (await world.materialize("upper")).status == "nothing to do"
    await incoming.write("deep/b.md", content=b"new")
    await incoming.write("c.md", content=b"more")
    await incoming.remove("a.md")
    assert (await world.made("upper"))["upper"] == {"made": 2, "removed": 1}
    assert sorted((await world.contents())["upper"].values()) == [b"MORE", b"NEW"]


async def test_credentials_never_reach_lineage(world: World, incoming: Incoming) -> None:
    """No table, no manifest and no event has them."""
    await incoming.write("a.md", content=b"old")
    await world.materialize("upper")
    secret = str(incoming.files.fs.secret)
    connection = await asyncpg.connect(str(world.settings.database_url).replace("+asyncpg", "", 1))
    try:
        tables = [
            row[0] for row in await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        ]
        rows = [str(row[0]) for table in tables for row in await connection.fetch(f'SELECT t::text FROM "{table}" t')]
    finally:
        await connection.close()
    assert any("a.md" in row for row in rows)
    stored = [
        path.read_bytes()
        for path in Path(world.settings.storage_url.removeprefix("file://")).rglob("*")
        if path.is_file()
    ]
    assert secret not in "\n".join(rows) + repr(world.events)
    assert not any(secret.encode() in content for content in stored)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A web server that lists a folder."""
    folder = tmp_path / "site"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            """Nobody reads it."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/pages", folder / "pages"
        server.shutdown()
        thread.join()


async def test_a_folder_that_a_web_server_lists_is_a_bucket(site: tuple[str, Path]) -> None:
    """Names, sizes and times come from the listing and the headers; what is not there is told."""
    url, folder = site
    with pytest.raises(SourceError, match=r"pages reads the bucket http://.*/pages, which does not exist"):
        await observe(of(bucket(url)), Path(), None)
    (folder / "deep").mkdir(parents=True)
    for name, text in {"a.md": "alpha", "deep/b.md": "beta", "c.txt": "gamma"}.items():
        (folder / name).write_text(text)
        os.utime(folder / name, (1e9, 1e9))  # of a file that is new at this moment, the time says nothing yet
    where = of(bucket(url, "**/*.md"))
    frame = await observe(where, Path(), None)
    assert frame["name"].to_list() == ["a.md", "deep/b.md"]
    assert frame["sha256"].to_list() == sha256(b"alpha", b"beta")
    assert (await observe(where, Path(), frame)).equals(frame)
    assert [one.text async for one in documents(where, Path(), ["a.md", "deep/b.md"])] == ["alpha", "beta"]
