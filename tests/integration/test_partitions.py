"""Partitions and freshness (DESIGN section 4, P11 to P14), with real stores and a clock that the tests set."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from assetcore.errors import NothingSelectedError, SelectionError, SourceError, StaleInputError
from assetcore.flow import materialized
from assetcore.planning import plan_for
from assetcore.settings import Settings
from tests.integration.world import HEAD, World

pytestmark = pytest.mark.integration

IMPORTS = """
from __future__ import annotations
from datetime import date
import polars as pl
from assetcore import Daily, Document, Dynamic, Partition, Static, asset, collect, each, folder, source
"""
DAYS = (
    IMPORTS
    + """
days = Daily(start="2026-11-01")

class Order(Document):
    amount: int

class Total(Document):
    "A sum."

@asset(partitions=days)
async def orders(day: date) -> list[Order]:
    return [Order(name=f"order-{n}", text=f"{day} {n}", amount=day.day * n) for n in (1, 2)]

@asset
async def checked(order: Order = each(orders)) -> Order:
    return order

@asset(partitions=days)
async def totals(day: Partition, orders: list[Order] = collect(checked)) -> Total:
    return Total(name="total", text=f"{day.key}: {sum(order.amount for order in orders)}")

@asset(partitions=days)
async def weeks(day: Partition, orders: pl.DataFrame = collect(checked, partitions="7d")) -> Total:
    return Total(name="week", text=f"{orders.height}")

@asset
async def report(totals: list[Total] = collect(totals)) -> Total:
    return Total(name="report", text="; ".join(total.text for total in totals))
"""
)
TOPICS = (
    IMPORTS
    + 'class Topic(Document):\n    "A text."\n\ntopics = source("topics", Topic, folder("data", pattern="*.txt"))\n'
)


@pytest.fixture
def world(settings: Settings) -> World:
    world = World(settings, now=datetime(2026, 11, 4, 6, tzinfo=UTC))
    world.code(DAYS, head="")
    return world


async def test_p12_each_new_day_is_the_only_one_made(world: World) -> None:
    """Days that are over are made; a day later one more is missing, and only what is made of it is made."""
    plan = await world.plan()
    assert plan["orders"]["causes"] == {"missing": 3}
    assert plan["orders"]["partitions"] == {"all": 3, "done": 0, "missing": 3}
    first = await world.made()
    assert first == {
        "orders": {"made": 3}, "checked": {"made": 6}, "totals": {"made": 3}, "weeks": {"made": 3}, "report": {"made": 1},
    }  # fmt: skip
    assert await world.plan() == {}
    assert world.now is not None
    world.now += timedelta(days=1)
    plan = await world.plan()
    assert (plan["orders"]["causes"], plan["orders"]["fresh"]) == ({"missing": 1}, 3)
    assert plan["orders"]["partitions"] == {"all": 4, "done": 3, "missing": 1}
    assert await world.made() == {
        "orders": {"made": 1}, "checked": {"made": 2}, "totals": {"made": 1}, "weeks": {"made": 1}, "report": {"made": 1},
    }  # fmt: skip
    contents = await world.contents()
    assert contents["report"]["report", "report"] == b"2026-11-01: 3; 2026-11-02: 6; 2026-11-03: 9; 2026-11-04: 12"
    assert contents["weeks"]["2026-11-04", "week"] == b"8"
    assert (await world.materialize()).run is None
    async with world.open() as session:
        _, found = await plan_for(session.project, await session.choose(None), rehash=False)
        assert found.snapshot.states == {}  # nothing is read of assets in which nothing changed


async def test_a_range_is_made_through_the_graph_in_one_run(world: World) -> None:
    """Days of several assets can be selected together: what the others of those days lack is no reason to refuse."""
    both = " or ".join(f"{name}[2026-11-01..2026-11-02]" for name in ("orders", "checked", "totals"))
    assert await world.made(both) == {"orders": {"made": 2}, "checked": {"made": 4}, "totals": {"made": 2}}
    plan = await world.plan()
    assert plan["orders"]["partitions"] == {"all": 3, "done": 2, "missing": 1}
    assert (plan["totals"]["fresh"], plan["totals"]["stale"]) == (2, 1)
    with pytest.raises(StaleInputError, match="orders, checked are stale"):
        await world.materialize("totals[2026-11-03]")
    with pytest.raises(NothingSelectedError, match=r"orders has no unit"):
        await world.materialize("orders[2026-12-01..]")
    with pytest.raises(NothingSelectedError, match=r"2026-11-01: it ends before it begins") as refused:
        await world.materialize("orders[2026-11-02..2026-11-01]")
    assert refused.value.hint == "The other way round: orders[2026-11-01..2026-11-02]"
    with pytest.raises(StaleInputError, match="orders, checked are stale"):
        await world.materialize("weeks[2026-11-03]")
    assert await world.made("totals[2026-11-01]", force=True) == {"totals": {"unchanged": 1}}
    assert await world.made("orders[2026-11-02]", force=True) == {"orders": {"unchanged": 1}}
    assert await world.made() == {
        "orders": {"made": 1}, "checked": {"made": 2}, "totals": {"made": 1}, "weeks": {"made": 3}, "report": {"made": 1},
    }  # fmt: skip


async def test_what_follows_an_asset_is_made_where_it_can_be(world: World) -> None:
    """A run tells of which partitions something was made; what is after them is made of those while others above are stale."""
    one_day = await world.materialize("orders[2026-11-02] or checked[2026-11-02]")
    assert {a.asset: a.partitions for a in one_day.assets if a.made} == dict.fromkeys(
        ("orders", "checked"), ("2026-11-02",)
    )
    async with world.open() as session:
        with pytest.raises(StaleInputError, match="orders, checked are stale"):
            await materialized(session, "totals", "", local=True)
        found = await materialized(session, "totals", "totals[2026-11-02]", local=True)
    assert [(a.asset, a.made, a.partitions) for a in found.assets if a.touched] == [("totals", 1, ("2026-11-02",))]
    await world.materialize("orders or checked")
    async with world.open() as session:  # what was left is not forgotten
        found = await materialized(session, "totals", "totals[2026-11-02]", local=True)
    assert [(a.made, a.partitions) for a in found.assets if a.touched] == [(2, ("2026-11-01", "2026-11-03"))]


async def test_partitions_that_are_made_alike_are_told_each(world: World) -> None:
    """What one partition was made as is taken for the others, later in the same run: all of them have come to be."""
    world.code(DAYS.replace('text=f"{day} {n}", amount=day.day * n', 'text=f"{n}", amount=n'), head="")
    found = await world.materialize("orders or checked")
    told = {a.asset: (a.made, a.reused, a.partitions) for a in found.assets if a.touched}
    days = ("2026-11-01", "2026-11-02", "2026-11-03")
    assert told == {"orders": (3, 0, days), "checked": (2, 4, days)}


async def test_upstream_includes_the_partitions_that_are_needed(world: World) -> None:
    """What is stale above is made with what was selected: only those of its partitions that it is made of; `+` means the same."""
    world.code(DAYS.replace('"7d"', '"2d"'), head="")
    assert await world.made("+weeks[2026-11-03]") == {
        "orders": {"made": 2}, "checked": {"made": 4}, "weeks": {"made": 1},
    }  # fmt: skip
    assert await world.made("weeks[2026-11-03]", upstream=True) == {}
    assert (await world.contents())["weeks"]["2026-11-03", "week"] == b"4"
    assert (await world.plan())["orders"]["partitions"] == {"all": 3, "done": 2, "missing": 1}
    assert await world.made("report", upstream=True) == {
        "orders": {"made": 1}, "checked": {"made": 2}, "totals": {"made": 3}, "report": {"made": 1},
    }  # fmt: skip


async def test_what_a_partition_is_given_is_not_forgotten(world: World) -> None:
    """With another window those partitions are stale that would be given other documents; the others stay as they are."""
    await world.materialize()
    world.code(DAYS.replace('"7d"', '"2d"'), head="")
    plan = await world.plan()
    assert plan["weeks"]["causes"] == {"input-removed": 1}
    assert await world.made() == {"weeks": {"made": 1}}
    for missing in ("orders[2026-11-04]", "weeks[2027-01-01..]"):
        with pytest.raises(NothingSelectedError) as refused:
            await world.materialize(missing)
        assert refused.value.hint is not None
        assert "2026-11-01 .. 2026-11-03" in refused.value.hint
    async with world.open() as session:
        assert [d.unit for d in await session.show("checked[2026-11-02]")] == [
            "2026-11-02/order-1",
            "2026-11-02/order-2",
        ]
        assert [d.name for d in await session.show("orders[2026-11-02]")] == ["order-1", "order-2"]


async def test_p13_a_partition_that_is_gone_leaves_the_asset(world: World) -> None:
    """What a partition held that is not there any more leaves the asset, and what collected it is stale; one that returns is reused."""
    code = (
        IMPORTS
        + """
class Text(Document):
    "A text."

@asset(partitions=Static(["de", "en"]))
async def greetings(language: str) -> Text:
    return Text(name="greeting", text={"de": "Hallo", "en": "Hello", "fr": "Salut"}[language])

@asset
async def all_greetings(greetings: list[Text] = collect(greetings)) -> Text:
    return Text(name="all", text=" ".join(g.text for g in greetings))
"""
    )
    world.code(code, head="")
    assert await world.made() == {"greetings": {"made": 2}, "all_greetings": {"made": 1}}
    world.code(code.replace('["de", "en"]', '["en", "fr"]'), head="")
    plan = await world.plan()
    assert (plan["greetings"]["causes"], plan["greetings"]["removed"]) == ({"missing": 1}, 1)
    assert await world.made() == {"greetings": {"made": 1, "removed": 1}, "all_greetings": {"made": 1}}
    assert (await world.contents())["all_greetings"]["all_greetings", "all"] == b"Hello Salut"
    world.code(code, head="")
    assert await world.made() == {"greetings": {"reused": 1, "removed": 1}, "all_greetings": {"reused": 1}}


async def test_documents_in_each_partition(world: World) -> None:
    """With each of what is not partitioned there is a unit for every partition and document; a function says which partitions there are."""
    world.code(
        """
        from pathlib import Path

        def tenants() -> list[str]:
            return (Path(__file__).parents[2] / "tenants").read_text().split()

        @asset(partitions=Dynamic(tenants))
        async def letters(tenant: Partition, topic: Topic = each(topics)) -> Topic:
            if topic.text == "bad" and tenant.key == "globex":
                raise ValueError("no letter")
            return Topic(name=topic.name, text=f"{topic.text} for {tenant}")

        @asset(partitions=Dynamic(tenants))
        async def books(letters: list[Topic] = collect(letters)) -> Topic:
            return Topic(name="book", text="; ".join(letter.text for letter in letters))
        """,
        head=TOPICS,
    )
    with pytest.raises(SourceError, match=r"Dynamic\(tenants\) of letters could not be asked: FileNotFoundError"):
        await world.plan()
    (world.root / "tenants").write_bytes(b"\xff")  # what is wrong with it is a ValueError of the function's own
    with pytest.raises(SourceError, match=r"Dynamic\(tenants\) of letters could not be asked: UnicodeDecodeError"):
        await world.plan()
    (world.root / "tenants").write_text("acme globex")
    world.document("a.txt", "one")
    world.document("b.txt", "bad")
    assert await world.made() == {"letters": {"made": 3, "failed": 1}, "books": {"made": 1, "skipped": 1}}
    plan = await world.plan()
    assert plan["letters"]["causes"] == {"failed": 1}
    assert plan["letters"]["partitions"] == {"all": 2, "done": 1, "missing": 0}
    world.document("b.txt", "two")
    assert await world.made() == {"letters": {"made": 2}, "books": {"made": 2}}
    found = await world.contents()
    assert found["books"]["globex", "book"] == b"one for globex; two for globex"
    (world.root / "tenants").write_text("globex initech")
    assert await world.made() == {"letters": {"made": 2, "removed": 2}, "books": {"made": 1, "removed": 1}}
    assert await world.made("letters[initech]", force=True) == {"letters": {"unchanged": 2}}
    (world.root / "tenants").write_text("globex globex")
    with pytest.raises(SourceError, match="has 'globex' twice"):
        await world.plan()


async def test_a_unit_that_fails_is_called_as_it_is_asked_about(world: World) -> None:
    """With its partition, or what it is below, where another unit has its label: by the run, its trace, its checks, and why."""
    world.code(
        """
        from assetcore import check

        class Piece(Document):
            "A piece of a text."

        @asset(partitions=Static(["de", "en"]))
        async def letters(language: str, topic: Topic = each(topics)) -> Topic:
            if topic.text == "no" and language == "en":
                raise ValueError("no letter")
            return Topic(name=topic.name, text=f"{topic.text} in {language}")

        @check(letters, blocking=True)
        async def is_polite(letter: Topic) -> bool:
            return letter.text != "rude in de"

        @asset
        async def pieces(topic: Topic = each(topics)) -> list[Piece]:
            return [Piece("head", text=topic.text), Piece(f"body of {topic.name}", text="body")]

        @asset
        async def marks(piece: Piece = each(pieces)) -> Piece:
            if piece.text == "no":
                raise ValueError("no mark")
            return piece
        """,
        head=TOPICS,
    )
    for name in ("a.txt", "b.txt", "c.txt"):
        world.document(name, "no" if name == "a.txt" else "rude" if name == "b.txt" else "yes")
    first = await world.materialize()
    units = {(failure.asset, failure.unit) for failure in first.failures}
    assert units == {("letters", "en/a.txt"), ("letters", "de/b.txt"), ("marks", "a.txt/head")}
    assert [finding.unit for report in first.checks for finding in report.findings] == ["de/b.txt"]
    told = {event.text.partition(":")[0] for event in world.events if event.kind == "unit-failed"}
    assert told == {"letters[en/a.txt]", "letters[de/b.txt]", "marks[a.txt/head]"}
    async with world.open() as session:
        spans = (await session.trace(str(first.run))).spans
        assert {one.name for one in spans if one.kind == "unit" and one.error} == {"en/a.txt", "a.txt/head"}
        for asset, unit in units:
            assert not (await session.why(f"{asset}[{unit}]")).fresh
        plan = await session.plan("letters[en]")
        assert [[unit.label for unit in one.details] for one in plan.assets] == [["en/a.txt"]]
    world.document("c.txt", "no")  # alone: only what descends from it is looked at
    again = await world.materialize("pieces+")
    assert {failure.unit for failure in again.failures} == {"a.txt/head", "c.txt/head"}
    code = (world.root / "projects/demo/assets.py").read_text()
    is_new = "\n@check(letters, blocking=True)\nasync def is_new(letter: Topic) -> bool:\n    return 'yes' not in letter.text\n"
    world.code(is_new, head=code)
    stands = [f.unit for f in (await world.materialize("letters")).failures if "what is current is refused" in f.error]
    assert stands == ["en/c.txt"]


async def test_a_partition_is_asked_about_by_its_units(world: World) -> None:
    """Every verb takes a partition of several units where it has one of them, and otherwise says which there are."""
    world.code(
        """
        @asset(partitions=Static(["de", "en"]))
        async def letters(language: Partition, topic: Topic = each(topics)) -> Topic:
            return Topic(name=topic.name, text=f"{topic.text} in {language}")
        """,
        head=TOPICS,
    )
    world.document("a.txt", "one")
    await world.materialize()
    async with world.open() as session:
        assert [d.unit for d in await session.show("letters[de]")] == ["de/a.txt"]
        assert (await session.why("letters[de]")).fresh
        assert [change.what for change in (await session.history("letters[de]")).changes] == ["made"]
    world.document("b.txt", "two")
    async with world.open() as session:
        with pytest.raises(
            SelectionError, match="letters has 2 units in 'de'"
        ) as refused:  # one of them is yet to be made
            await session.why("letters[de]")
        assert refused.value.hint == "Say which: letters[de/a.txt], letters[de/b.txt]."
    await world.materialize()
    async with world.open() as session:
        for ask in (session.why, session.history):
            with pytest.raises(SelectionError, match="letters has 2 units in 'en'") as refused:
                await ask("letters[en]")
            assert refused.value.hint == "Say which: letters[en/a.txt], letters[en/b.txt]."
        with pytest.raises(NothingSelectedError, match="letters has no unit 'fr'"):
            await session.why("letters[fr]")


FRESH = (
    IMPORTS
    + """
from pathlib import Path

class Text(Document):
    "A text."

@asset(freshness="1d")
async def quotes() -> Text:
    return Text(name="quotes", text=(Path(__file__).parents[2] / "quotes").read_text())

@asset
async def shown(quotes: list[Text] = collect(quotes)) -> Text:
    return Text(name="shown", text=quotes[0].text.upper())
"""
)


async def test_p11_what_is_older_than_its_freshness_is_made_again(world: World) -> None:
    """A unit expires; made again with equal content it is unchanged, nothing below is executed, and its time starts again."""
    world.code(FRESH, head="")
    (world.root / "quotes").write_text("one")
    assert world.now is not None
    assert await world.made() == {"quotes": {"made": 1}, "shown": {"made": 1}}
    world.now += timedelta(hours=23, minutes=59)
    assert await world.plan() == {}
    world.now += timedelta(minutes=1)
    plan = await world.plan()
    assert (plan["quotes"]["causes"], plan["shown"]["pending"]) == ({"expired": 1}, 1)
    assert await world.made() == {"quotes": {"unchanged": 1}}
    world.now += timedelta(hours=23)
    assert await world.plan() == {}
    async with world.open() as session:
        _, found = await plan_for(session.project, await session.choose(None), rehash=False)
        assert found.snapshot.states == {}
    world.now += timedelta(hours=1)
    (world.root / "quotes").write_text("two")
    assert await world.made() == {"quotes": {"made": 1}, "shown": {"made": 1}}
    world.code(FRESH.replace('"1d"', '"6h"'), head="")
    assert await world.plan() == {}
    world.now += timedelta(hours=6)
    assert (await world.plan())["quotes"]["causes"] == {"expired": 1}
    world.code(FRESH.replace('(freshness="1d")', ""), head="")
    assert await world.plan() == {}


async def test_p11_what_another_unit_made_does_not_become_younger(settings: Settings) -> None:
    """A renamed document has what is made of it made anew where that can expire; units of one recipe are still executed once in a run."""
    world = World(settings, now=datetime(2026, 11, 1, tzinfo=UTC))
    world.code("""
    @asset
    async def parts(topic: Topic = each(topics)) -> Report:
        return Report("part", text=topic.text)

    @asset(freshness="1d")
    async def asked(part: Report = each(parts)) -> Report:
        return Report("answer", text=part.text)
    """)
    world.document("a.txt", "question")
    await world.materialize()
    world.now += timedelta(hours=23)
    world.remove("a.txt")
    for name in ("b.txt", "c.txt"):
        world.document(name, "question")
    assert (await world.made())["asked"] == {"made": 1, "reused": 1, "removed": 1}
    world.now += timedelta(hours=23)
    assert await world.plan() == {}
    world.now += timedelta(hours=1)
    assert (await world.plan())["asked"]["causes"] == {"expired": 2}


async def test_what_is_asked_says_when_it_was_made_and_until_when_it_is_fresh(world: World) -> None:
    """ls, plan and why tell when a unit was made and when it expires."""
    world.code(FRESH, head="")
    (world.root / "quotes").write_text("one")
    await world.materialize()
    assert world.now is not None
    async with world.open() as session:
        (info, _) = await session.ls()
        assert (info.made_at, info.fresh_until) == (world.now, world.now + timedelta(days=1))
        why = await session.why("quotes")
        assert (why.status, why.made_at, why.fresh_until) == ("fresh", world.now, world.now + timedelta(days=1))
        (quotes, _) = (await session.plan()).assets
        assert quotes.fresh_until == world.now + timedelta(days=1)
    world.now += timedelta(days=2)
    async with world.open() as session:
        (cause,) = (await session.why("quotes")).causes
        assert (cause.code, cause.detail) == ("expired", "quotes[quotes] was made 2d ago, and stays fresh for 1d")


GROUPS = """
@asset(partitions=days)
async def ranks(day: Partition, orders: list[Order] = collect(checked, by="amount")) -> Total:
    return Total(name="rank", text=f"{day.key}: {sorted(o.name for o in orders)}")

@asset(partitions=days)
async def everywhere(day: date, orders: list[Order] = collect(checked, by="amount", partitions="all")) -> Total:
    return Total(name="all", text=f"{len(orders)}")
"""


async def test_groups_within_a_partition_are_units_of_their_own(world: World) -> None:
    """`by=` in a partitioned asset: a unit for each value in each partition, given those documents; in every one, with all of them."""
    world.code(DAYS + GROUPS, head="")
    made = await world.made()
    assert (made["ranks"], made["everywhere"]) == ({"made": 6}, {"made": 15})
    assert await world.plan() == {}
    contents = (await world.contents())["ranks"]
    assert contents["4", "rank"] == b"2026-11-02: ['order-2']"
    async with world.open() as session:
        [one] = await session.show("ranks[2026-11-02/4]")
        assert one.content == b"2026-11-02: ['order-2']"
        assert len(await session.show("ranks[2026-11-02]")) == 2
        above = {(n.asset, n.unit) for n in (await session.lineage("ranks[2026-11-02/4]")).nodes}
        assert ("orders", "2026-11-02") in above
        assert ("orders", "2026-11-01") not in above
    assert world.now is not None
    world.now += timedelta(days=1)
    assert (await world.plan("ranks[2026-11-04]"))["ranks"]["pending"] == 0
    made = await world.made("+ranks")
    assert made["ranks"] == {"made": 2}
    assert (await world.made())["everywhere"] == {"made": 4 * 6 - 15 + 3}
    code = (DAYS + GROUPS).replace("amount=day.day * n", "amount=day.day * n if day.day > 1 else n + 6")
    world.code(code, head="")
    made = await world.made("+ranks")
    assert made["ranks"] == {"made": 2, "removed": 2}
    assert await world.plan("+ranks") == {}


async def test_a_source_to_which_nothing_new_comes_is_told(settings: Settings) -> None:
    """`freshness=` of a source: a warning in plans and runs, nothing is made for it, and it ends with the next document."""
    world = World(settings, now=datetime(2026, 11, 4, 6, tzinfo=UTC))
    head = HEAD.replace('pattern="*.txt")', 'pattern="*.txt"), freshness="1d"')
    world.code("", head=head)
    world.document("a.txt", "one")
    await world.materialize()

    async def notes() -> list[str]:
        async with world.open() as session:
            return [note["what"] for note in (await session.plan()).notes if note["code"] == "EXPIRED"]

    assert await notes() == []
    world.now = datetime(2026, 11, 7, 8, tzinfo=UTC)
    assert await notes() == ["nothing new has come for 3d2h"]
    async with world.open() as session:
        [topics] = await session.ls("topics")
        assert (topics.stale, topics.fresh_until) == (0, datetime(2026, 11, 5, 6, tzinfo=UTC))
    assert (await world.materialize()).status == "nothing to do"
    assert "nothing new" in world.events[-2].text
    world.document("b.txt", "two")
    assert await notes() == []
    await world.materialize()
    assert await notes() == []
