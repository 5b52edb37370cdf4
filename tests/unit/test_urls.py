"""Urls: what addresses hold is seen once, asked for politely, and never lost because a server is out for a moment."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import ipaddress
import logging
import re
import ssl
import time
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any, ClassVar

import polars as pl
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from assetcore.assets import Source
from assetcore.declarations import source
from assetcore.documents import Document, check_name
from assetcore.errors import DeclarationError, SourceError
from assetcore.sources import OBSERVED, documents, observe
from assetcore.sources import urls as declared
from assetcore.sources.urls import canonical, document_name
from tests.unit.site import Reply, Site, running

OLD = "Sat, 01 Nov 2025 10:00:00 GMT"
ROOT = Path()
MEMBER = gzip.compress(b"x", mtime=0)


class Topic(Document):
    """One topic."""


class Page(Document):
    fixed_media_type: ClassVar[str | None] = "text/html"
    language: str = "en"


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A developer's proxy is not asked for pages on 127.0.0.1."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with running(Site()) as site:
        yield site


def urls(*args: Any, **options: Any) -> Any:
    """As a user declares them, without the pauses."""
    return declared(*args, **{"delay": 0, "retries": 0, **options})


def of(where: Any, type_: type[Document] = Topic) -> Source:
    return source("topics", type_, where)


def at(site: Site, *paths: str) -> list[str]:
    return [site.url + path for path in paths]


async def read(source: Source, names: list[str]) -> dict[str, Document]:
    return {document.name: document async for document in documents(source, ROOT, names)}


def named(frame: pl.DataFrame, site: Site) -> dict[str, str]:
    """The path's last part of each name, without the digest that http asks for -> the digest of the content."""
    return {
        re.sub(r"-[a-z2-7]{10}(?=\.|$)", "", n.rpartition("/")[2]): h.hex()
        for n, h in frame.select("name", "sha256").iter_rows()
    }


def sha(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()


# --- what is seen ---


async def test_an_address_is_a_document_that_is_sent_once(site: Site) -> None:
    """What was observed is what is taken in, without asking again; the type is the server's unless the class fixes it."""
    site.pages = {"/a.html": Reply(b"<p>one", headers={"Content-Type": "Text/HTML; charset=utf-8"}), "/b": Reply(b"")}
    topics = of(urls(at(site, "/a.html", "/b")))
    frame = await observe(topics, ROOT, None)
    assert frame.schema == OBSERVED
    assert named(frame, site) == {"a.html": sha(b"<p>one"), "b": sha(b"")}
    assert dict(frame.select("size", "media_type").iter_rows()) == {6: "text/html", 0: "text/plain"}
    found = await read(topics, frame["name"].to_list())
    assert [document.content for document in found.values()] == [b"<p>one", b""]
    assert [document.media_type for document in found.values()] == frame["media_type"].to_list()
    assert sorted(site.paths()) == ["/a.html", "/b"]
    again = await read(topics, frame["name"].to_list())
    assert again == found
    assert sorted(site.paths()) == ["/a.html", "/b"]


async def test_fields_and_media_types_are_those_of_the_document(site: Site) -> None:
    """The identity that is observed is that of the document that is read."""
    site.pages = {"/a": Reply(b"x", headers={"Content-Type": ""}), "/b.md": Reply(b"y", headers={"Content-Type": ""})}
    for where, type_, expected in [
        (urls(at(site, "/a", "/b.md")), Page, ["text/html"] * 2),
        (urls(at(site, "/a", "/b.md")), Topic, ["application/octet-stream", "text/markdown"]),
        (urls(at(site, "/a", "/b.md"), media_type="text/x-any"), Page, ["text/x-any"] * 2),
    ]:
        frame = await observe(of(where, type_), ROOT, None)
        assert frame["media_type"].to_list() == expected
        assert [d.media_type for d in (await read(of(where, type_), frame["name"].to_list())).values()] == expected


@pytest.mark.parametrize(
    "validator",
    [{"ETag": '"1"'}, {"ETag": 'W/"1"', "Last-Modified": OLD}, {"Last-Modified": OLD}],
    ids=["etag", "both", "last-modified"],
)
async def test_what_has_not_changed_is_not_sent_again(site: Site, validator: dict[str, str]) -> None:
    """The question names what the last answer said; 304 leaves everything as it was, and what is changed is sent."""
    site.pages = {
        "/a": Reply(b"one", headers=validator | {"Content-Type": "text/html"}),
        "/b": Reply(b"two", headers=validator),
    }
    topics = of(urls(at(site, "/a", "/b")))
    known = await observe(topics, ROOT, None)
    site.asked.clear()
    again = await observe(topics, ROOT, known)
    assert again.equals(known)
    for asked in site.asked:
        assert asked.headers.get("if-none-match") == validator.get("ETag")
        assert asked.headers.get("if-modified-since") == validator.get("Last-Modified")
    site.pages["/a"] = Reply(b"three", headers={"ETag": '"2"'})
    changed = await observe(topics, ROOT, again)
    assert named(changed, site) == {"a": sha(b"three"), "b": sha(b"two")}
    site.asked.clear()
    all_again = await observe(topics, ROOT, changed, rehash=True)
    assert all_again.equals(changed)
    assert not any("if-none-match" in asked.headers or "if-modified-since" in asked.headers for asked in site.asked)


async def test_a_time_that_was_just_set_is_not_relied_on(site: Site) -> None:
    """Last-Modified within the clock's grain of the answer says nothing, as with a file that was just written."""
    site.pages = {"/a": Reply(b"one", headers={"Last-Modified": format_datetime(datetime.now(UTC), usegmt=True)})}
    frame = await observe(of(urls(at(site, "/a"))), ROOT, None)
    assert frame["validator"].to_list() == [None]


async def test_an_etag_counts_only_where_it_came_from(site: Site) -> None:
    """A redirect that leads elsewhere is followed without the condition: an equal ETag there says nothing."""
    site.pages = {
        "/a": Reply(status=302, headers={"Location": "/one?signature=secret"}),
        "/one?signature=secret": Reply(b"one", headers={"ETag": '"1"'}),
        "/two": Reply(b"two", headers={"ETag": '"1"'}),
    }
    topics = of(urls(at(site, "/a")))
    known = await observe(topics, ROOT, None)
    assert "secret" not in str(known.to_dicts())
    assert (await observe(topics, ROOT, known)).equals(known)
    assert [asked.headers.get("if-none-match") for asked in site.asked] == [None, None, None, '"1"']
    site.pages["/a"] = Reply(status=302, headers={"Location": "/two"})
    changed = await observe(topics, ROOT, known)
    assert named(changed, site) == {"a": sha(b"two")}


async def test_a_compressed_answer_is_its_content(site: Site) -> None:
    """Content-Encoding belongs to the way, not to the document; the limit counts what it becomes."""
    site.pages = {"/a": Reply(gzip.compress(b"x" * 50_000), headers={"Content-Encoding": "gzip"})}
    assert named(await observe(of(urls(at(site, "/a"))), ROOT, None), site) == {"a": sha(b"x" * 50_000)}
    with pytest.raises(SourceError, match=r"more than 40,000 bytes, which is max_bytes: it was cut off"):
        await observe(of(urls(at(site, "/a"), max_bytes=40_000)), ROOT, None)


@pytest.mark.parametrize("piece", [1, 7, 1000])
@pytest.mark.parametrize(
    ("encoding", "body", "content"),
    [
        ("gzip", b"".join(gzip.compress(one, mtime=0) for one in (b"first, ", b"", b"second")), b"first, second"),
        ("x-gzip", gzip.compress(b"padded", mtime=0) + b"\0" * 50, b"padded"),
        ("deflate", zlib.compress(b"with its header"), b"with its header"),
        ("deflate", zlib.compress(b"without its header", wbits=-zlib.MAX_WBITS), b"without its header"),
        ("deflate", gzip.compress(b"something else", mtime=0), b"something else"),
    ],
    ids=["members", "padded", "deflate", "no header", "mistaken"],
)
async def test_a_compressed_answer_is_read_to_its_end(
    site: Site, encoding: str, body: bytes, content: bytes, piece: int
) -> None:
    """Members of gzip one after another are one content, and deflate may lack its header; wherever a piece of it ends."""
    site.pages = {"/a": Reply(body, headers={"Content-Encoding": encoding}, pause=0.001, piece=piece)}
    assert named(await observe(of(urls(at(site, "/a"))), ROOT, None), site) == {"a": sha(content)}


@pytest.mark.parametrize(
    ("encoding", "body", "sentence"),
    [
        ("gzip", gzip.compress(b"\0" * (64 << 20), mtime=0), "more than 1,000,000 bytes, which is max_bytes: it was cut off"),
        ("deflate", zlib.compress(b"\0" * (64 << 20)), "more than 1,000,000 bytes, which is max_bytes: it was cut off"),
        ("gzip, gzip", gzip.compress(gzip.compress(b"\0" * (64 << 20), mtime=0), mtime=0), "encoded as gzip, gzip, which nobody asked for"),
        ("br", b"x", "encoded as br, which nobody asked for"),
        ("gzip", gzip.compress(b"x" * 5000, mtime=0)[:-9], "ends in the middle of what is compressed"),
        ("gzip", MEMBER + gzip.compress(b"x" * 5000, mtime=0)[:-9], "ends in the middle of what is compressed"),
        ("gzip", MEMBER + gzip.compress(b"\0" * (64 << 20), mtime=0), "more than 1,000,000 bytes, which is max_bytes: it was cut off"),
        ("gzip", b"no gzip at all", "cannot be decompressed"),
    ],
)  # fmt: skip
async def test_a_bomb_is_cut_off_before_it_is_large(site: Site, encoding: str, body: bytes, sentence: str) -> None:
    """What becomes a thousand times as large is undone up to the limit and no further, and once only; what is broken is told."""
    site.pages = {"/a": Reply(body, headers={"Content-Encoding": encoding})}
    tracemalloc.start()
    try:
        with pytest.raises(SourceError, match=re.escape(sentence)):
            await observe(of(urls(at(site, "/a"), max_bytes=1_000_000, retries=0)), ROOT, None)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


async def test_what_is_compressed_inside_is_left_alone(site: Site) -> None:
    """A .gz or .zip that is a document is its bytes, whatever is in it."""
    packed = gzip.compress(b"\0" * (64 << 20))
    site.pages = {"/a.gz": Reply(packed, headers={"Content-Type": "application/gzip"})}
    assert named(await observe(of(urls(at(site, "/a.gz"))), ROOT, None), site) == {"a.gz": sha(packed)}


async def test_addresses_come_from_any_function(site: Site) -> None:
    """A function, a generator, a coroutine or an async generator; each address once, with # cut off."""
    site.pages = {"/a": Reply(b"one"), "/b": Reply(b"two")}
    addresses = at(site, "/a", "/b#part", "/a#other", "/b")

    def returns() -> list[str]:
        return addresses

    def yields() -> Iterator[str]:
        yield from addresses

    async def awaited() -> list[str]:
        return addresses

    async def streams() -> AsyncIterator[str]:
        for address in addresses:
            yield address

    for where in (addresses, tuple(addresses), returns, yields, awaited, streams):
        topics = of(urls(where))
        frame = await observe(topics, ROOT, None)
        assert named(frame, site) == {"a": sha(b"one"), "b": sha(b"two")}
        assert sorted(site.paths()) == ["/a", "/b"]
        assert len(await read(topics, frame["name"].to_list())) == 2
    assert (await observe(of(urls([])), ROOT, None)).height == 0


async def test_a_function_that_fails_is_named_with_its_line(site: Site) -> None:
    """So is one that gives what is no address; the exception is kept."""

    async def failing() -> AsyncIterator[str]:
        yield f"{site.url}/a"
        int("seven")

    async def wrong() -> AsyncIterator[Any]:
        yield "ftp://example.org"

    site.pages = {"/a": Reply(b"")}
    with pytest.raises(
        SourceError, match=r"topics could not list its addresses: ValueError.*test_urls.py:\d+\)"
    ) as caught:
        await observe(of(urls(failing)), ROOT, None)
    assert isinstance(caught.value.__cause__, ValueError)
    with pytest.raises(SourceError, match=r"topics: 'ftp://example.org' is no address of http or https"):
        await observe(of(urls(wrong)), ROOT, None)


# --- limits ---


async def test_too_much_is_cut_off_before_it_is_read(site: Site) -> None:
    """By its length where the server says so, else as soon as there is too much; never all of it in memory."""
    large = b"x" * 20_000_000
    site.pages = {"/said": Reply(large), "/unsaid": Reply(large, length=False)}
    tracemalloc.start()
    with pytest.raises(SourceError, match=r"/said has 20,000,000 bytes; max_bytes is 100,000"):
        await observe(of(urls(at(site, "/said"), max_bytes=100_000)), ROOT, None)
    with pytest.raises(SourceError, match=r"/unsaid has more than 100,000 bytes"):
        await observe(of(urls(at(site, "/unsaid"), max_bytes=100_000)), ROOT, None)
    assert tracemalloc.get_traced_memory()[1] < 5_000_000
    tracemalloc.stop()


async def test_contents_are_not_held_in_memory(site: Site) -> None:
    """Looking at 64 MB takes a piece of memory for each address that is asked at once."""
    site.pages = {f"/{i}": Reply(bytes([i]) * 4_000_000) for i in range(16)}
    topics = of(urls(at(site, *site.pages), at_once=2))
    tracemalloc.start()
    frame = await observe(topics, ROOT, None)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8_000_000
    site.paths()
    async for document in documents(topics, ROOT, frame["name"].to_list()):
        assert document.sha256 in frame["sha256"].to_list()
    assert site.paths() == []


async def test_only_wanted_types_are_taken(site: Site) -> None:
    """`text/*` names all of them; anything else is an error that names the address."""
    site.pages = {
        "/a": Reply(b"x", headers={"Content-Type": "text/markdown"}),
        "/b": Reply(b"x", headers={"Content-Type": "image/png"}),
    }
    where = {"media_types": ["text/*", "application/pdf"]}
    assert (await observe(of(urls(at(site, "/a"), **where)), ROOT, None)).height == 1
    with pytest.raises(SourceError, match=r"/b is image/png, which media_types= does not name"):
        await observe(of(urls(at(site, "/a", "/b"), **where)), ROOT, None)


async def test_redirects_are_followed_so_far(site: Site) -> None:
    """The document keeps the name of the address that was declared."""
    site.pages = {f"/{i}": Reply(status=301 + i % 2, headers={"Location": f"/{i + 1}"}) for i in range(4)} | {
        "/4": Reply(b"there")
    }
    assert named(await observe(of(urls(at(site, "/0"), redirects=4)), ROOT, None), site) == {"0": sha(b"there")}
    with pytest.raises(SourceError, match=r"/0 redirects more than 3 times"):
        await observe(of(urls(at(site, "/0"), redirects=3)), ROOT, None)
    site.pages["/0"] = Reply(status=302, headers={"Location": "file:///etc/passwd"})
    with pytest.raises(SourceError, match=r"redirects to file:///etc/passwd, which is no address of http"):
        await observe(of(urls(at(site, "/0"))), ROOT, None)


async def test_what_is_secret_stays_with_the_host_that_was_named(site: Site) -> None:
    """Another host is sent who asks, and no header that the declaration has for this one."""
    async with running(Site({"/b": Reply(b"there")})) as other:
        site.pages = {"/a": Reply(status=302, headers={"Location": f"{other.url}/b"})}
        where = urls(
            at(site, "/a"), headers={"Authorization": "Bearer secret", "X-Key": "secret", "User-Agent": "me/1"}
        )
        await observe(of(where), ROOT, None)
        assert site.asked[0].headers["authorization"] == "Bearer secret"
        assert not {"authorization", "x-key"} & set(other.asked[0].headers)
        assert [asked.headers["user-agent"] for asked in (*site.asked, *other.asked)] == ["me/1"] * 2
    assert "secret" not in repr(where)


async def test_a_way_down_from_https_to_http_is_refused(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What came over http could be anybody's; http to https is fine."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a test")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now - timedelta(1), now + timedelta(1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    pem = tmp_path / "both.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    pem.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(pem)
    async with running(Site(), tls) as safe:
        safe.pages = {"/down": Reply(status=302, headers={"Location": f"{site.url}/a"}), "/here": Reply(b"safe")}
        site.pages = {"/a": Reply(b"x"), "/up": Reply(status=307, headers={"Location": f"{safe.url}/here"})}
        with pytest.raises(SourceError, match=r"(?i)certificate"):
            await observe(of(urls(at(safe, "/here"))), ROOT, None)
        monkeypatch.setenv("SSL_CERT_FILE", str(pem))
        with pytest.raises(SourceError, match=r"/down redirects from https to http"):
            await observe(of(urls(at(safe, "/down"))), ROOT, None)
        assert site.paths() == []
        assert named(await observe(of(urls(at(site, "/up"))), ROOT, None), site) == {"up": sha(b"safe")}


# --- manners ---


async def test_no_more_than_so_many_are_asked_at_once(site: Site) -> None:
    """At most `at_once`, in looking and in reading."""
    site.pages = {f"/{i}": Reply(b"x", pause=0.02) for i in range(12)}
    topics = of(urls(at(site, *site.pages), at_once=3))
    frame = await observe(topics, ROOT, None)
    assert 1 < site.most_at_once <= 3
    await read(topics, frame["name"].to_list())
    while site.at_once:  # the server rests after an answer, too
        await asyncio.sleep(0)
    site.most_at_once = 0
    await read(topics, frame["name"].to_list())
    assert 1 < site.most_at_once <= 3


async def test_a_host_is_given_time_between_questions(site: Site) -> None:
    """`delay` seconds from one question to the next, however many may be asked at once."""
    site.pages = {f"/{i}": Reply(b"x") for i in range(5)}
    began = time.monotonic()
    await observe(of(urls(at(site, *site.pages), delay=0.1)), ROOT, None)
    assert time.monotonic() - began >= 0.4


@pytest.mark.parametrize("status", [429, 503])
async def test_a_host_that_asks_for_time_is_left_alone(site: Site, status: int) -> None:
    """Retry-After counts for the whole host, and the answer that comes then is taken."""
    site.pages = {
        "/a": [Reply(status=status, headers={"Retry-After": "1"}), Reply(b"one")],
        "/b": Reply(b"two", pause=0.1),
    }
    frame = await observe(of(urls(at(site, "/a", "/b"), at_once=1, retries=1)), ROOT, None)
    assert named(frame, site) == {"a": sha(b"one"), "b": sha(b"two")}
    first, second, _ = site.asked
    assert second.at - first.at > 0.95


@pytest.mark.parametrize("as_date", [False, True])
async def test_nobody_waits_a_day(site: Site, *, as_date: bool) -> None:
    """A host that asks for more than a minute fails at once, and the message says for how long."""
    day = timedelta(days=1)
    value = format_datetime(datetime.now(UTC) + day, usegmt=True) if as_date else str(int(day.total_seconds()))
    site.pages = {"/a": Reply(status=503, headers={"Retry-After": value})}
    with pytest.raises(SourceError, match=r"/a answers 503 Said and asks to be left alone for 86,\d{3} s"):
        await asyncio.wait_for(observe(of(urls(at(site, "/a"), retries=5)), ROOT, None), 5)
    assert site.paths() == ["/a"]


async def test_a_failure_of_a_moment_is_tried_again(site: Site) -> None:
    """A 500 and a connection that breaks in the middle of the content are asked again; the content is the whole one."""
    site.pages = {"/a": [Reply(status=500), Reply(b"x" * 5000, cut=True), Reply(b"y" * 5000)]}
    topics = of(urls(at(site, "/a"), retries=2))
    frame = await observe(topics, ROOT, None)
    assert named(frame, site) == {"a": sha(b"y" * 5000)}
    assert [d.content for d in (await read(topics, frame["name"].to_list())).values()] == [b"y" * 5000]
    assert site.paths() == ["/a"] * 3


# --- failing ---


async def test_an_address_that_fails_for_a_moment_keeps_its_document(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    """Its row stays as it was, a warning names it, and the next look finds what has changed."""
    site.pages = {"/a": Reply(b"one", headers={"ETag": '"1"'}), "/b": Reply(b"two")}
    known = await observe(of(urls(at(site, "/a", "/b"))), ROOT, None)
    for trouble in (
        Reply(status=503),
        Reply(b"half", cut=True, headers={"Content-Length": "9"}),
        Reply(b"slow", pause=1),
    ):
        site.pages["/a"] = trouble
        patience = {"timeout": 0.2} if trouble.pause else {}  # only one is waited for in vain
        topics = of(urls(at(site, "/a", "/b"), **patience))
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            assert (await observe(topics, ROOT, known)).equals(known)
        assert re.search(r"topics: no answer for now, so nothing changes there: http://127.0.0.1:\d+/a ", caplog.text)
        with pytest.raises(SourceError, match=r"topics cannot be observed: http://127.0.0.1:\d+/a "):
            await observe(of(urls(at(site, "/a", "/b"), failing="error", **patience)), ROOT, known)
    site.pages["/a"] = Reply(b"three")
    assert named(await observe(topics, ROOT, known), site) == {"a": sha(b"three"), "b": sha(b"two")}


async def test_an_address_of_which_nothing_is_known_must_answer_once(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    """Unless failing="skip" leaves it out until it does; where none answers and none is known, that is an error."""
    site.pages = {"/a": Reply(b"one"), "/b": Reply(status=502)}
    with pytest.raises(SourceError, match=r"/b answers 502 Said.\n.*failing=\"skip\""):
        await observe(of(urls(at(site, "/a", "/b"))), ROOT, None)
    frame = await observe(of(urls(at(site, "/a", "/b"), failing="skip")), ROOT, None)
    assert named(frame, site) == {"a": sha(b"one")}
    assert "/b answers 502" in caplog.text
    with pytest.raises(SourceError, match="/b answers 502"):
        await observe(of(urls(at(site, "/b"), failing="skip")), ROOT, None)


async def test_a_server_that_is_not_there_is_named() -> None:
    """A refused connection and a name that nobody has are failures of an address."""
    for address in ("http://127.0.0.1:9/a", "http://nobody.invalid/a"):
        with pytest.raises(SourceError, match=re.escape(address)):
            await observe(of(urls([address], timeout=5)), ROOT, None)


@pytest.mark.parametrize("status", [404, 410])
async def test_an_absent_document_is_gone_only_where_the_source_says_so(site: Site, status: int) -> None:
    """Otherwise it is an error that names the address, however well it was known."""
    site.pages = {"/a": Reply(b"one"), "/b": Reply(b"two", headers={"ETag": '"1"'})}
    addresses = at(site, "/a", "/b")
    known = await observe(of(urls(addresses)), ROOT, None)
    site.pages["/b"] = Reply(status=status)
    with pytest.raises(
        SourceError, match=rf"topics cannot be observed: {site.url}/b answers {status} Said\.\n.*missing=\"gone\""
    ):
        await observe(of(urls(addresses)), ROOT, known)
    assert named(await observe(of(urls(addresses, missing="gone")), ROOT, known), site) == {"a": sha(b"one")}


async def test_many_problems_are_named_a_few_at_a_time(site: Site) -> None:
    """Some are named, and when there are that many no more addresses are asked."""
    with pytest.raises(SourceError, match=r"(answers 404 Said; ){5}and [1-9] more\.|answers 404 Said; and"):
        await observe(of(urls(at(site, *(f"/{i}" for i in range(200))), at_once=2)), ROOT, None)
    assert len(site.asked) < 10


async def test_what_is_gone_since_it_was_seen_is_told_after_the_others(site: Site) -> None:
    """The documents that can be read are handed over first."""
    site.pages = {"/a": Reply(b"one"), "/b": Reply(b"two")}
    addresses = at(site, "/a", "/b")
    names = (await observe(of(urls(addresses)), ROOT, None))["name"].to_list()
    del site.pages["/b"]
    reading = documents(of(urls(addresses)), ROOT, [*names, "nowhere"])
    assert (await anext(reading)).content == b"one"
    with pytest.raises(
        SourceError, match=r"could not read 2 of 3 documents: .*/b answers 404 Said; nowhere is not in the list"
    ):
        await anext(reading)


async def test_reading_can_be_given_up(site: Site) -> None:
    """Whoever stops listening ends the questions that were begun."""
    site.pages = {f"/{i}": Reply(b"x", pause=0.05) for i in range(8)}
    topics = of(urls(at(site, *site.pages), at_once=2))
    names = [document_name(url) for url in at(site, *site.pages)]
    reading = documents(topics, ROOT, names)
    await anext(reading)
    await reading.aclose()
    assert len(site.paths()) <= 4


# --- names ---


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://example.org/", "example.org/index"),
        ("https://example.org/docs/", "example.org/docs/index"),
        ("https://example.org/docs/a.html", "example.org/docs/a.html"),
        ("https://example.org:8443/a", "example.org:8443/a"),
        ("https://de.wikipedia.org/wiki/Köln_(Stadt)", "de.wikipedia.org/wiki/Köln_(Stadt)"),
        ("https://example.org/docs/index", "example.org/docs/index-??????????"),
        ("http://example.org/a.html", "example.org/a-??????????.html"),
        ("https://example.org/a.html?id=5&lang=de", "example.org/a-id-5-lang-de-??????????.html"),
        ("https://example.org/a?token=abcdef", "example.org/a-token-??????????"),
        ("https://example.org/a%20b.pdf", "example.org/a-b-??????????.pdf"),
        ("https://example.org/a/../b", "example.org/a/b-??????????"),
        ("https://example.org//a", "example.org/a-??????????"),
    ],
)
def test_a_name_says_which_address_it_is(url: str, name: str) -> None:
    """Readable, and the same whatever else is in the list."""
    pattern = re.escape(name).replace(re.escape("?" * 10), "[a-z2-7]{10}")
    assert re.fullmatch(pattern, document_name(url))


PATHS = st.text(st.sampled_from("aä/.-?=%20&:@ index"), max_size=12)


@given(
    st.lists(
        st.builds(lambda s, p: f"{s}://h.org/{p}", st.sampled_from(["http", "https"]), PATHS), min_size=2, max_size=40
    )
)
def test_no_two_addresses_have_one_name(addresses: list[str]) -> None:
    """Whatever they differ in; and every name is one that a document can have."""
    different = {canonical(address)[0] for address in addresses} - {""}
    names = {document_name(url) for url in different}
    assert len(names) == len(different)
    for name in names:
        check_name(name, "Topic")
        assert ".." not in name.split("/")


def test_a_long_address_has_a_name() -> None:
    """Names are of at most 1024 bytes, whatever the letters."""
    check_name(document_name("https://example.org/" + "ä" * 2000), "Topic")


# --- declarations ---


@pytest.mark.parametrize(
    ("addresses", "options", "message"),
    [
        ("https://example.org", {}, "takes a list of addresses"),
        (["example.org"], {}, "'example.org' is no address of http or https"),
        (["https://"], {}, "is no address"),
        (["https://example.org:x/"], {}, "is no address"),
        (["https://example.org/a b"], {}, "is no address"),
        ([7], {}, "7 is no address"),
        (["https://me:word@example.org/"], {}, "has a user or a password in it"),
        (lambda n: [], {}, r"takes \(n\)"),
        ([], {"missing": "forget"}, 'missing= takes "error" or "gone"'),
        ([], {"failing": "forget"}, 'failing= takes "keep"'),
        ([], {"at_once": 0}, "at_once= takes a whole number"),
        ([], {"max_bytes": 0}, "max_bytes= takes"),
        ([], {"delay": -1}, "delay= takes"),
        ([], {"timeout": 0}, "timeout= takes"),
        ([], {"media_types": "text/html"}, "media_types= takes a list"),
        ([], {"headers": {"X": "a\nb"}}, "must be ASCII text of one line"),
    ],
)
def test_a_wrong_declaration_says_where_and_what(addresses: Any, options: dict[str, Any], message: str) -> None:
    """File, line and what to write; a password in an address is not repeated."""
    with pytest.raises(DeclarationError, match=rf"test_urls.py:\d+: .*{message}") as caught:
        declared(addresses, **options)
    assert "word@" not in str(caught.value)
