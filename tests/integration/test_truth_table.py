"""The truth table of staleness (DESIGN section 4), each row with real stores."""

from __future__ import annotations

import pytest

from assetcore.errors import StaleInputError
from assetcore.settings import Settings
from tests.integration.world import World

pytestmark = pytest.mark.integration

BODY = """
def helper(text):
    return text.upper()

class Limits(BaseModel):
    size: int = 10

@asset
async def clean(topic: Topic = each(topics)) -> Topic:
    return Topic(topic.name, text=" ".join(topic.text.split()))

@asset
async def chunks(limits: Limits, topic: Topic = each(clean)) -> list[Chunk]:
    text = helper(topic.text)
    return [Chunk(f"{topic.stem}-{i}", text=text[k:k + limits.size], ordinal=i) for i, k in enumerate(range(0, len(text), limits.size))]

@asset
async def report(chunks: list[Chunk] = collect(chunks)) -> Report:
    return Report("report.txt", text="\\n".join(f"{c.name} {c.text}" for c in chunks))
"""


@pytest.fixture
def world(settings: Settings) -> World:
    world = World(settings)
    world.code(BODY)
    world.document("a.txt", "alpha beta")
    world.document("b.txt", "gamma delta epsilon")
    return world


async def test_p1_and_p2_everything_is_made_once_and_then_nothing(world: World) -> None:
    """What was never made is made; when nothing changed, nothing is executed and there is no run."""
    assert (await world.plan())["clean"]["causes"] == {"missing": 2}
    first = await world.made()
    assert first == {"clean": {"made": 2}, "chunks": {"made": 2}, "report": {"made": 1}}
    again = await world.materialize()
    assert again.run is None
    assert again.status == "nothing to do"
    assert await world.plan() == {}


async def test_p3_a_changed_document_makes_its_unit_stale_and_those_below_pending(world: World) -> None:
    """The unit of a changed document is stale, what is below it is pending until it is known."""
    await world.materialize()
    world.document("a.txt", "alpha beta gamma")
    plan = await world.plan()
    assert plan["clean"]["causes"] == {"input-changed": 1}
    assert (plan["chunks"]["pending"], plan["report"]["pending"]) == (1, 1)
    assert await world.made() == {"clean": {"made": 1}, "chunks": {"made": 1}, "report": {"made": 1}}


async def test_p4_equal_content_stops_there(world: World) -> None:
    """A unit that is made again with equal content is unchanged, and nothing below it is executed."""
    await world.materialize()
    world.document("a.txt", "alpha   beta ")
    assert await world.made() == {"clean": {"unchanged": 1}}
    assert await world.plan() == {}


async def test_p5_comments_and_annotations_change_nothing(world: World) -> None:
    """Comments, docstrings, formatting and annotations leave everything fresh."""
    await world.materialize()
    world.code(BODY.replace("def helper(text):", 'def helper(text: str) -> str:\n    "Upper."  # really'))
    assert await world.plan() == {}


async def test_p6_a_helper_edited_makes_its_users_stale(world: World) -> None:
    """Logic edited in what a function calls makes the units of that asset stale."""
    await world.materialize()
    world.code(BODY.replace("text.upper()", "text.lower()"))
    assert (await world.plan())["chunks"]["causes"] == {"code-changed": 2}
    assert await world.made() == {"chunks": {"made": 2}, "report": {"made": 1}}


async def test_p7_a_version_stands_for_the_code(world: World) -> None:
    """A bumped version makes the units stale; with a version, an edit alone does not."""
    versioned = BODY.replace("@asset\nasync def clean", '@asset(version="1")\nasync def clean')
    world.code(versioned)
    await world.materialize()
    world.code(versioned.replace('" ".join', '"  ".join'))
    assert await world.plan() == {}
    world.code(versioned.replace('version="1"', 'version="2"'))
    assert (await world.plan())["clean"]["causes"] == {"version-changed": 2}
    assert await world.made() == {"clean": {"unchanged": 2}}


async def test_p8_config_counts_only_for_its_asset(world: World) -> None:
    """Config is part of the recipe of the assets that take it, and of no other."""
    await world.materialize()
    world.config("chunks:\n  size: 5\n")
    plan = await world.plan()
    assert plan["chunks"]["causes"] == {"config-changed": 2}
    assert "clean" not in plan


async def test_p9_an_alias_that_points_elsewhere(world: World) -> None:
    """The units of assets that declare a model alias are stale when it points to another model."""
    world.code(BODY.replace("@asset\nasync def clean", '@asset(models=["cleaner"])\nasync def clean'))
    world.settings = world.settings.using("test", models={"cleaner": "one"})
    await world.materialize()
    world.settings = world.settings.using("test", models={"cleaner": "two"})
    assert (await world.plan())["clean"]["causes"] == {"model-changed": 2}


async def test_p12_a_new_document_is_the_only_one_made(world: World) -> None:
    """A new document adds its own units; what collects them is made again."""
    await world.materialize()
    world.document("c.txt", "zeta")
    assert (await world.plan())["clean"]["causes"] == {"missing": 1}
    assert await world.made() == {"clean": {"made": 1}, "chunks": {"made": 1}, "report": {"made": 1}}


async def test_p13_a_removed_document_takes_its_outputs_along(world: World) -> None:
    """Outputs of a document that is gone leave the asset; aggregates are stale for that reason."""
    await world.materialize()
    world.remove("b.txt")
    plan = await world.plan()
    assert plan["clean"]["removed"] == plan["chunks"]["removed"] == 1
    assert plan["report"]["causes"] == {"input-removed": 1}
    assert await world.made() == {"clean": {"removed": 1}, "chunks": {"removed": 1}, "report": {"made": 1}}
    assert set((await world.contents())["clean"]) == {("a.txt", "a.txt")}


async def test_p14_only_what_failed_is_tried_again(world: World) -> None:
    """A unit that raises fails alone, with the user's traceback; the next run makes it and what it kept from being made."""
    failing = BODY.replace(
        'return Topic(topic.name, text=" ".join',
        'assert "gamma" not in topic.text\n    return Topic(topic.name, text=" ".join',
    )
    world.code(failing)
    result = await world.materialize()
    assert result.status == "failed"
    counts = {a.asset: a.to_json() for a in result.assets}
    assert (counts["clean"]["made"], counts["clean"]["failed"]) == (1, 1)
    assert counts["chunks"]["made"] == 1
    assert counts["report"]["skipped"] == 1
    assert result.failures[0].unit == "b.txt"
    assert "assets.py" in result.failures[0].traceback
    assert "site-packages" not in result.failures[0].traceback
    plan = await world.plan()
    assert plan["clean"]["causes"] == {"failed": 1}
    world.document("b.txt", "mended")
    assert await world.made() == {"clean": {"made": 1}, "chunks": {"made": 1}, "report": {"made": 1}}


async def test_p15_a_stale_input_must_be_selected_too(world: World) -> None:
    """A selected asset with a stale input that is not selected is refused, with the selector that helps."""
    await world.materialize()
    world.code(BODY.replace("text.upper()", "text.lower()"))
    with pytest.raises(StaleInputError, match=r"chunks is stale.*[\s\S]*\+report"):
        await world.materialize("report")
    assert await world.made("report", upstream=True) == {"chunks": {"made": 2}, "report": {"made": 1}}


async def test_p18_a_dependency_added(world: World) -> None:
    """Adding a dependency makes the units stale for that reason."""
    await world.materialize()
    world.code(BODY.replace("async def report(chunks: list[Chunk] = collect(chunks))",
                            "async def report(chunks: list[Chunk] = collect(chunks), topics: list[Topic] = collect(clean))"))  # fmt: skip
    assert (await world.plan())["report"]["causes"] == {"inputs-changed": 1}


WIRED = """
@asset
async def shout(topic: Topic = each(topics)) -> Topic:
    return Topic(topic.name, text=topic.text.upper())

@asset
async def halves(topic: Topic = each(clean)) -> list[Topic]:
    return [Topic(f"{topic.stem}-{i}", text=half) for i, half in enumerate(topic.text.split())]

@asset
async def pieces(topic: Topic = each(halves)) -> list[Topic]:
    return [Topic(f"{topic.stem}-{i}", text=letter) for i, letter in enumerate(topic.text[:2])]

@asset
async def report(SHAPE) -> Report:
    given = [[one.text for one in some] if isinstance(some, list) else some.text for some in (x, y)]
    return Report("report.txt", text=repr(given))
"""


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("x: list[Topic] = collect(clean), y: list[Topic] = collect(shout)",
         "x: list[Topic] = collect(shout), y: list[Topic] = collect(clean)"),
        ("x: Topic = each(clean), y: list[Topic] = collect(shout)", "x: Topic = each(shout), y: list[Topic] = collect(clean)"),
        ("x: Topic = each(clean), z: Topic = each(shout, cross=True), y: list[Topic] = collect(shout)",
         "x: Topic = each(shout), z: Topic = each(clean, cross=True), y: list[Topic] = collect(shout)"),
        ("x: Topic = each(clean, cross=True), z: Topic = each(shout), y: list[Topic] = collect(shout)",
         "x: Topic = each(clean), z: Topic = each(shout, cross=True), y: list[Topic] = collect(shout)"),
        ("x: Topic = each(clean), z: Topic = each(halves), y: list[Topic] = collect(pieces, per=clean)",
         "x: Topic = each(clean), z: Topic = each(halves), y: list[Topic] = collect(pieces, per=halves)"),
        ("z: Topic = each(topics), x: list[Topic] = collect(clean, per=topics), y: list[Topic] = collect(shout, per=topics)",
         "z: Topic = each(topics), x: list[Topic] = collect(shout, per=topics), y: list[Topic] = collect(clean, per=topics)"),
    ],
)  # fmt: skip
async def test_p18_the_same_assets_given_to_other_parameters(world: World, before: str, after: str) -> None:
    """Which parameter is given which asset counts, also among the same assets: what is made is what a forced run makes."""
    body = BODY[: BODY.index("@asset\nasync def report")] + WIRED
    world.code(body.replace("SHAPE", before))
    await world.materialize()
    world.code(body.replace("SHAPE", after))
    assert "report" in await world.plan()
    await world.materialize()
    made = (await world.contents())["report"]
    await world.materialize("report", force=True)
    assert (await world.contents())["report"] == made
    assert await world.plan() == {}


async def test_p19_a_document_class_changed_its_fields(world: World) -> None:
    """An asset whose document class has other fields is stale for that reason."""
    await world.materialize()
    head = __import__("tests.integration.world", fromlist=["HEAD"]).HEAD
    world.code(BODY, head=head.replace("    ordinal: int", "    ordinal: int\n    language: str = 'en'"))
    assert (await world.plan())["chunks"]["causes"] == {"schema-changed": 2}


async def test_p21_a_reverted_edit_executes_nothing(world: World) -> None:
    """What an earlier recipe made is taken back without executing anything: for documents and for code."""
    await world.materialize()
    before = await world.contents()
    world.document("a.txt", "something else")
    await world.materialize()
    world.document("a.txt", "alpha beta")
    assert await world.made() == {"clean": {"reused": 1}, "chunks": {"reused": 1}, "report": {"reused": 1}}
    world.code(BODY.replace("text.upper()", "text.lower()"))
    await world.materialize()
    world.code(BODY)
    assert await world.made() == {"chunks": {"reused": 2}, "report": {"reused": 1}}
    assert await world.contents() == before


async def test_p22_and_p23_renames_and_fields(world: World) -> None:
    """A rename counts where the name is seen; what `fields=` leaves out does not count."""
    world.code("""
        @asset
        async def seen(topic: Topic = each(topics)) -> Topic:
            return Topic(topic.name, text=topic.text)

        @asset
        async def unseen(topic: Topic = each(topics, fields=["text"])) -> Report:
            return Report("out", text=topic.text.upper())
    """)
    await world.materialize()
    (world.root / "data" / "a.txt").rename(world.root / "data" / "z.txt")
    assert await world.made() == {"seen": {"made": 1, "removed": 1}, "unseen": {"reused": 1, "removed": 1}}


@pytest.mark.parametrize("size", [1, 99, 100, 3000])
async def test_p24_an_aggregate_of_any_size(world: World, size: int) -> None:
    """One of many documents changed makes the aggregate over them stale, at every size."""
    for name in ("a.txt", "b.txt"):
        world.remove(name)
    for i in range(size):
        world.document(f"{i}.txt", f"text {i}")
    world.code("""
        @asset
        async def total(topics: pl.DataFrame = collect(topics)) -> Report:
            return Report("total", text=str(topics["text"].str.len_chars().sum()))
    """)
    await world.materialize()
    world.document("0.txt", "another text altogether")
    assert (await world.plan())["total"]["causes"] == {"input-changed": 1}
    assert await world.made() == {"total": {"made": 1}}


async def test_p25_a_renamed_asset_keeps_what_it_has(world: World) -> None:
    """An asset renamed with `renamed_from` keeps history and content; nothing is executed."""
    await world.materialize()
    renamed = BODY.replace("@asset\nasync def clean", '@asset(renamed_from="clean")\nasync def tidy').replace(
        "each(clean)", "each(tidy)"
    )
    world.code(renamed)
    assert await world.plan() == {}
    assert set((await world.contents())["tidy"]) == {("a.txt", "a.txt"), ("b.txt", "b.txt")}
