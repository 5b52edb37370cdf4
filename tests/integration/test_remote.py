"""Sources on the network: what came over the wire is kept, asked for sparingly, and never lost because nobody answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from assetcore.errors import SourceError
from assetcore.settings import Settings
from tests.integration.command import Command
from tests.integration.world import World
from tests.unit.site import Reply, Site, running

pytestmark = pytest.mark.integration


@pytest.fixture
def world(settings: Settings) -> World:
    (settings.root / "data").mkdir()
    return World(settings)


@pytest.fixture
async def site(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Site]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    async with running(Site()) as site:
        yield site


PAGES = """
    from assetcore import urls

    ADDRESSES = [{addresses}]
    pages = source("pages", Topic, urls(lambda: ADDRESSES, delay=0, retries=0, missing="gone"))

    @asset
    async def words(page: Topic = each(pages)) -> Chunk:
        return Chunk(name="words", text=page.text, ordinal=len(page.text.split()))

    @asset
    async def report(words: list[Chunk] = collect(words)) -> Report:
        return Report(name="report", text=str(sum(word.ordinal for word in words)))
    """


async def test_addresses_are_asked_once_and_made_again_only_where_they_changed(world: World, site: Site) -> None:
    """First all, then nothing; then what changed, what is gone and what is new; and no answer for a moment changes nothing."""
    site.pages = {f"/{i}": Reply(f"page {i}".encode(), headers={"ETag": f'"{i}"'}) for i in range(4)}

    def listed(*numbers: int) -> None:
        world.code(PAGES.format(addresses=", ".join(f'"{site.url}/{i}"' for i in numbers)))

    listed(0, 1, 2, 3)
    assert await world.made() == {"words": {"made": 4}, "report": {"made": 1}}
    assert sorted(site.paths()) == ["/0", "/1", "/2", "/3"]
    assert await world.made() == {}
    site.pages["/1"] = Reply(b"page one two three")
    del site.pages["/2"]
    site.pages["/4"] = Reply(b"page 4")
    listed(0, 1, 2, 3, 4)
    site.asked.clear()
    assert (await world.plan())["words"]["stale"] == 2
    assert (await world.made())["words"] == {"made": 2, "removed": 1}
    contents = {document: content for (_, document), content in (await world.contents())["report"].items()}
    assert contents == {"report": b"10"}
    site.pages["/0"] = Reply(status=503)
    assert await world.made() == {}
    assert len((await world.contents())["pages"]) == 4


async def test_the_command_tells_who_does_not_answer(world: World, site: Site, variables: dict[str, str]) -> None:
    """On stderr, beside a plan that stands: stdout is the answer alone."""
    site.pages = {"/0": Reply(b"page")}
    world.code(PAGES.format(addresses=f'"{site.url}/0"'))
    await world.made()
    site.pages["/0"] = Reply(status=503)
    aipctl = Command(world.root, variables | {"NO_PROXY": "127.0.0.1"})
    ended = await asyncio.to_thread(aipctl, "plan", "--json")
    assert (ended.code, ended.json["up_to_date"]) == (0, True)
    assert f"pages: no answer for now, so nothing changes there: {site.url}/0 answers 503" in ended.err


async def test_an_address_that_is_not_there_is_an_error_of_the_source(world: World, site: Site) -> None:
    """Nothing is planned, and what there was stays."""
    site.pages = {"/0": Reply(b"page")}
    world.code(PAGES.format(addresses=f'"{site.url}/0"').replace(', missing="gone"', ""))
    await world.made()
    site.pages.clear()
    with pytest.raises(SourceError, match=rf"pages cannot be observed: {site.url}/0 answers 404"):
        await world.plan()
    site.pages = {"/0": Reply(b"page")}
    assert await world.made() == {}
