"""Forgetting: nothing of a document that must go is left, and all the rest is as it was."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import httpx
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa

from assetcore.catalog import rebuild_catalog, verify_catalog
from assetcore.errors import NothingSelectedError, SelectionError, ServiceError, StorageError
from assetcore.forget import delete_retired, verify_report
from assetcore.lineage import schema
from assetcore.lineage import tables as t
from assetcore.lineage.damage import LET_GO
from assetcore.settings import Settings
from assetcore.storage import Key
from assetcore.storage.examine import CORRUPT
from tests.integration.command import Command
from tests.integration.gateway import KEY, fake_gateway
from tests.integration.test_compaction import gc
from tests.integration.world import HEAD, World

pytestmark = pytest.mark.integration

CODE = """
@asset
async def chunks(topic: Topic = each(topics)) -> list[Chunk]:
    return [Chunk(name=f"{topic.stem}-{i}", text=w, ordinal=i) for i, w in enumerate(topic.text.split())]

@asset
async def upper(chunk: Chunk = each(chunks)) -> Report:
    return Report(name=chunk.name, text=chunk.text.upper())

@asset
async def report(chunks: list[Chunk] = collect(chunks)) -> Report:
    return Report(name="report", text=" ".join(c.text for c in chunks))
"""
SUBJECT = ("alice", "secretwordone", "secretwordtwo", "SECRETWORD")


@pytest.fixture
async def world(settings: Settings) -> World:
    """Three documents; that of alice was edited once, and an environment was made from it."""
    world = World(settings)
    world.code(CODE)
    world.document("alice.txt", "the secretwordone of alice")
    world.document("bob.txt", "the text of bob")
    world.document("carol.txt", "the text of carol")
    await world.materialize()
    world.document("alice.txt", "the secretwordtwo")
    await world.materialize()
    async with world.open() as session:
        await session.create_environment("pr-17", "prod")
    world.remove("alice.txt")
    return world


def stored(settings: Settings) -> str:
    """All that lies in the bucket, as text."""
    texts: list[str] = []
    for path in Path(settings.storage_url.removeprefix("file://")).rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            texts.append(str(path))
            if path.suffix == ".parquet":
                table = pq.read_table(path)
                texts += [str(table.to_pylist()), str(table.schema.metadata)]
            texts.append((gzip.decompress(data) if path.suffix == ".gz" else data).decode(errors="replace"))
    return "\n".join(texts)


async def known(settings: Settings) -> str:
    """All that lies in Postgres, as text; of tables that are made at need, too."""
    engine = schema.connect(str(settings.database_url))
    async with engine.connect() as connection:
        found = [str(row) for table in t.metadata.sorted_tables for row in await connection.execute(sa.select(table))]
        for name in await connection.run_sync(lambda sync: sa.inspect(sync).get_table_names()):
            whole = sa.select(sa.cast(sa.literal_column("whole_row"), sa.Text)).select_from(
                sa.table(name).alias("whole_row")
            )
            found += (await connection.execute(whole)).scalars()
    await engine.dispose()
    return "\n".join(found)


async def test_nothing_is_left_of_what_was_forgotten(world: World) -> None:
    """Neither in the bucket nor in Postgres, of no version and in no environment; the others are as they were, and are not made again."""
    before = await world.contents()
    async with world.open() as session:
        async with session.project.engine.begin() as connection:
            accepted = {"old_code": b"a", "new_code": b"b", "units": ["alice.txt", "bob.txt"], "actor": "somebody"}
            await connection.execute(
                sa.insert(t.acceptance).values(asset_id=session.project.asset_ids["chunks"], **accepted)
            )
        shown = await session.forget("topics[alice.txt]")
        assert shown.dry_run
        assert shown.in_source is False
        assert (await session.forget("topics[bob.txt]")).in_source is True
        assert {name: units for name, units, _ in shown.assets} == {"topics": 1, "chunks": 1, "upper": 4, "report": 1}
        assert "secretwordone" in stored(world.settings)
        crashed = Path(world.settings.storage_url.removeprefix("file://")) / "demo/main/20261121T080000.000000Z/chunks"
        crashed.mkdir(parents=True)
        (crashed / "pack-00000099.parquet").write_bytes(b"secretwordone, in bytes that nobody knows")
        done = await session.forget("topics[alice.txt]", dry_run=False)
    assert (done.documents, done.objects) == (shown.documents, shown.objects)
    assert done.report is not None
    assert verify_report(done.report)
    assert not verify_report({**done.report, "report": {**done.report["report"], "documents": 0}})
    assert json.loads(Path(str(done.file)).read_text()) == done.report
    bucket, database = stored(world.settings), await known(world.settings)
    assert [word for word in SUBJECT if word in bucket] == []
    assert [word for word in SUBJECT if word in database] == []
    async with world.open() as session:
        checked = await session.check_journal()
        assert checked.problems == ()
        told = await session.journal("topics")
        assert [(line.names, line.forgotten) for line in told if line.names or line.forgotten] == [
            (("bob.txt", "carol.txt"), 1), ((), 1)
        ]  # fmt: skip
    assert await world.made() == {"report": {"made": 1}}
    after = await world.contents()
    assert after["report"]["report", "report"] == b"the text of bob the text of carol"
    for name in ("topics", "chunks", "upper"):
        assert after[name] == {key: value for key, value in before[name].items() if "alice" not in str(key)}


async def test_a_document_whose_history_was_given_up_is_forgotten(world: World) -> None:
    """What a retention has let go of has no bytes any more; all else of it goes."""
    assert (await gc(world)).let_go
    await gc(world)
    async with world.open() as session:
        done = await session.forget("topics[alice.txt]", dry_run=False)
        assert done.report is not None
        assert done.documents
    bucket, database = stored(world.settings), await known(world.settings)
    assert [word for word in SUBJECT if word in bucket] == []
    assert [word for word in SUBJECT if word in database] == []


@pytest.mark.parametrize("place", ["assetcore.forget.forgetting.erase", "assetcore.session.delete_retired"])
async def test_another_is_forgotten_after_one_that_was_killed(
    world: World, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """Records that the one had written or replaced do not stand in the way of the next, and bring nothing back."""

    begun = False

    async def dies(*arguments: Any) -> None:
        nonlocal begun
        if place.endswith("delete_retired") and not begun:  # which a forget also begins with
            begun = True
            return await delete_retired(*arguments)
        raise RuntimeError("the process ends here")

    async with world.open() as session:
        with monkeypatch.context() as patch:
            patch.setattr(place, dies)
            with pytest.raises(RuntimeError):
                await session.forget("topics[alice.txt]", dry_run=False)
        assert (await session.forget("topics[bob.txt]", dry_run=False)).documents
        world.remove("bob.txt")
        await session.forget("topics[alice.txt]", dry_run=False)
        assert (await session.check_journal()).problems == ()
    bucket, database = stored(world.settings), await known(world.settings)
    assert [word for word in (*SUBJECT, "bob") if word in bucket] == []
    assert [word for word in (*SUBJECT, "bob") if word in database] == []
    await rebuild_catalog(world.settings, replace=True, automatic_schema=False, say=print)
    assert (await verify_catalog(world.settings, say=print)).same
    async with world.open() as session:
        assert {name for line in await session.journal() for name in line.names} <= {"carol.txt"}


async def test_what_was_forgotten_does_not_come_back_from_the_bucket(world: World) -> None:
    """A database that is rebuilt afterwards says the same as before it was lost, and knows nothing of it either."""
    async with world.open() as session:
        await session.forget("topics[alice.txt]", dry_run=False)
    await world.materialize()
    found = await verify_catalog(world.settings, say=lambda _: None)
    assert [one for one in found.tables if not one.same] == []
    before = await world.contents()
    await rebuild_catalog(world.settings, replace=True, automatic_schema=False, say=lambda _: None)
    assert await world.contents() == before
    assert await world.plan() == {}
    assert [word for word in SUBJECT if word in await known(world.settings)] == []
    async with world.open() as session:
        with pytest.raises(SelectionError, match="never had"):
            await session.forget("topics[dave.txt]")
        with pytest.raises(SelectionError, match="does not name a document of a source"):
            await session.forget("chunks[alice.txt]")


async def test_tables_are_removed_from_the_prefect_of_this_home(world: World, prefect_api: str) -> None:
    """The embedded server is found without an address in the settings, as a question that needs no Prefect has none."""
    assert world.settings.prefect_api_url is None
    async with httpx.AsyncClient(base_url=prefect_api) as client:
        table = {"key": "demo-prod-result", "type": "table", "data": json.dumps([{"keys": "topics/alice.txt"}])}
        kept = (await client.post("/artifacts/", json=table)).raise_for_status().json()["id"]
        async with world.open() as session:
            done = await session.forget("topics[alice.txt]", dry_run=False)
        assert (await client.get(f"/artifacts/{kept}")).status_code == 404
    assert done.report is not None
    assert "not removed" not in done.report["report"]["prefect"]


async def test_a_tombstone_is_left(world: World, prefect_api: str) -> None:
    """Who asks for what was forgotten hears when, by whom and by which report, also in a database that was rebuilt; and Prefect's tables
    that named it are gone, or the report says that they are not."""
    world.settings = world.settings.using("test", prefect_api_url="http://127.0.0.1:9/api")
    async with world.open() as session:
        away = await session.forget("topics[alice.txt]", dry_run=False)
        assert away.report is not None
        assert "127.0.0.1:9" in away.report["report"]["prefect"]["not removed"]
    world.settings = world.settings.using("test", prefect_api_url=prefect_api)
    async with httpx.AsyncClient(base_url=prefect_api) as client:
        tables = {}
        for name in ("alice.txt", "malice.txt"):
            table = {"key": "demo-prod-result", "type": "table", "data": json.dumps([{"keys": f"topics/{name}"}])}
            tables[name] = (await client.post("/artifacts/", json=table)).raise_for_status().json()["id"]
        async with world.open() as session:
            again = await session.forget("topics[alice.txt]", dry_run=False)
        left = {name: (await client.get(f"/artifacts/{table}")).status_code for name, table in tables.items()}
    assert left == {"alice.txt": 404, "malice.txt": 200}
    assert again.tombstone is not None
    assert again.tombstone.file == Path(str(away.file)).name
    await rebuild_catalog(world.settings, replace=True, automatic_schema=False, say=lambda _: None)
    said = rf"was forgotten on \d{{4}}-.* by .*: see the report {again.tombstone.file}"
    async with world.open() as session:
        for ref in ("topics[alice.txt]", "chunks[alice.txt]/alice-1", "upper[alice-0]", "topics[alice.txt]@2020-01-01"):
            with pytest.raises(NothingSelectedError, match=said):
                await session.lineage(ref)
        for ask in (session.show, session.why, session.history):
            for ref in ("topics[alice.txt]", "chunks[alice.txt]"):
                with pytest.raises(NothingSelectedError, match=said):
                    await ask(ref)
        assert [line.row.facts["file"] for line in await session.journal() if line.row.what == "forget"] == [
            again.tombstone.file
        ]
        changes = (await session.history("chunks")).changes
        assert changes[0].run == "forget"
        assert all("@" in str(change.actor) for change in changes)
    assert [word for word in SUBJECT if word in await known(world.settings)] == []


# --- what was said of it ------------------------------------------------------------------------------------------------------

TELLING = (
    HEAD
    + """
from pathlib import Path
from assetcore import check, llm
from assetcore.embeddings import Embedding
from assetcore.telemetry import span

class Letter(Document):
    author: str

class LetterVector(Embedding):
    author: str

@asset
async def letters(topic: Topic = each(topics)) -> Letter:
    with span("read", said=topic.text):
        if topic.text.startswith("broken"):
            raise ValueError(f"cannot read {topic.text}")
        return Letter(topic.name, text=topic.text, author=topic.text.split()[0])

@asset
async def pieces(letter: Letter = each(letters)) -> list[Report]:
    return [Report.part_of(letter, 0, len(letter.content), name="piece")]

@asset
async def total(letters: list[Letter] = collect(letters)) -> Report:
    return Report("total", text=" ".join(one.text for one in letters))

@asset
async def groups(letters: list[Letter] = collect(letters, by="author")) -> Report:
    return Report("group", text=" ".join(one.text for one in letters))

@asset(models=["embedder"])
async def vectors(letter: Letter = each(letters)) -> LetterVector:
    [vector] = await llm.embed([letter.text])
    return LetterVector.of(letter.stem, vector, author=letter.author)

@asset(models=["generator"])
async def failing(letter: Letter = each(letters), others: list[Letter] = collect(letters)) -> Report:
    gist = (await llm.generate("Say it in other words.", letter)).text
    raise ValueError((await llm.generate("And in others.", gist)).text + " ".join(one.text for one in others))

@asset
async def failing_groups(letters: list[Letter] = collect(letters, by="author")) -> Report:
    raise ValueError(" ".join(one.text for one in letters))

@asset
async def reading(letter: Letter = each(letters)) -> Report:
    return Report(letter.name, text=Path(f"{letter.author}.json").read_text())

@asset
async def below(report: Report = each(failing)) -> Report:
    return report

@asset
async def beside() -> Report:
    raise ValueError("somethingelse")

@check(letters)
def short(letter: Letter) -> str | None:
    return f"{letter.text} is too long"

@check(letters)
def few(letters: pl.DataFrame) -> None:
    assert letters.height < 1, " ".join(letters["text"])

@check(groups, blocking=True)
def blank(report: Report) -> str | None:
    return f"{report.text} is refused" if "secret" in report.text else None

@check(total, blocking=True)
def empty(reports: pl.DataFrame) -> str | None:
    return f"refused: {' '.join(reports['text'])}"
"""
)
"""Where what is said is not what is made: nearly all of it is told of the words of the documents."""
SAID = ("mallory", "secretword", "hushedword", "shoutedword", "secretname")


async def test_nothing_is_left_of_what_was_said_of_it(settings: Settings) -> None:
    """By units that failed, alone or in groups, by checks and models, in spans and plans, also in another environment and of an asset
    that was renamed; what was said of an asset that is not below stays."""
    async with fake_gateway() as gateway:
        words = {
            "secretword": "It is all about a hushedword, as they tell.",
            "hushedword": "IT IS ABOUT SOME SHOUTEDWORD!",
        }
        gateway.say = lambda body: next(
            (said for word, said in words.items() if word in body["messages"][-1]["content"]), "It is about nothing."
        )
        world = World(settings.using("test", openai_base_url=gateway.url, openai_api_key=KEY))
        world.code(TELLING, head="")
        world.document("bob.txt", "bob wrote the text of bob")
        world.document("mallory.txt", "broken secretword of mallory")
        await world.materialize()
        world.document("mallory.txt", "secretname wrote the secretword of mallory")
        await world.materialize()
        world.code(
            TELLING.replace("@asset\nasync def pieces", '@asset(renamed_from="pieces")\nasync def parts'), head=""
        )
        async with world.open() as session:
            await session.create_environment("pr-17", "prod")
        await world.materialize("groups[secretname]", force=True)
        await world.materialize("groups and unit:secretname", force=True)
        world.document("mallory.txt", "secretname wrote another secretword")
        result = await world.materialize()
        assert result.status == "failed"
        before = await world.contents()
        given = (
            Path(world.settings.storage_url.removeprefix("file://"))
            / "demo.flows/shorten/20261121T080000.000000Z/result/a"
        )
        given.parent.mkdir(parents=True)
        given.write_text("what a flow gave")
        bucket, database = stored(world.settings), await known(world.settings)
        assert [word for word in SAID if word not in bucket.lower()] == []
        assert [word for word in SAID if word not in database.lower()] == ["hushedword"]
        world.remove("mallory.txt")
        async with world.open() as session:
            done = await session.forget("topics[mallory.txt]", dry_run=False)
            assert done.report is not None
            assert done.report["report"]["flows"] == 1
            assert (await session.check_journal()).problems == ()
        bucket, database = stored(world.settings), await known(world.settings)
        assert [word for word in SAID if word in bucket.lower()] == []
        assert [word for word in SAID if word in database.lower()] == []
        assert "somethingelse" in bucket
        assert "somethingelse" in database
        assert (await verify_catalog(world.settings, say=print)).same
        await rebuild_catalog(world.settings, replace=True, automatic_schema=False, say=print)
        assert (await verify_catalog(world.settings, say=print)).same
        database = await known(world.settings)
        assert [word for word in SAID if word in database.lower()] == []
        assert "somethingelse" in database
        await world.materialize()
        after = await world.contents()
    for asset in ("topics", "letters", "parts", "vectors"):
        assert after[asset] == {key: value for key, value in before[asset].items() if "mallory" not in str(key)}


# --- where bytes are rotten --------------------------------------------------------------------------------------------------


@pytest.fixture
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each document is a row group of its pack."""
    monkeypatch.setattr("assetcore.storage.packs._GROUP_ROWS", 1)


def packs(world: World, asset: str) -> list[Path]:
    """The packs of an asset, in the order in which they were written."""
    return sorted(Path(world.settings.storage_url.removeprefix("file://")).rglob(f"*/{asset}/pack-*.parquet"))


def rot(pack: Path, *names: str) -> None:
    """Flip a bit in the content of these documents of a pack, or, without names, lose its end."""
    data = bytearray(pack.read_bytes())
    file = pq.ParquetFile(pack)
    for name in names:
        group = file.read(["name"]).column("name").to_pylist().index(name)
        content = file.metadata.row_group(group).column(file.schema_arrow.names.index("content"))
        data[content.data_page_offset + content.total_compressed_size - 3] ^= 0x10
    pack.write_bytes(data if names else data[: len(data) // 2])


BESIDE = {f"{name}-{i}" for name in ("bob", "carol") for i in range(4)}
ROTTEN = {
    "history": (["alice-1"], set[str]()),
    "beside": (["bob-0", "bob-2"], {"bob-0", "bob-2"}),
    "both": (["alice-1", "bob-0"], {"bob-0"}),
    "cut": ([], BESIDE),
}
"""In what the first pack of `chunks`, in which alice is history, is rotten, and what that loses beside it."""


@pytest.mark.parametrize(("names", "lost"), ROTTEN.values(), ids=ROTTEN)
async def test_what_is_rotten_goes_too(small_groups: None, world: World, names: list[str], lost: set[str]) -> None:
    """A damaged pack keeps nothing from going. Beside it all that reads is as it was; what does not is told, and made again."""
    before = await world.contents()
    pack = packs(world, "chunks")[0]
    rot(pack, *names)
    async with world.open() as session:
        done = await session.forget("topics[alice.txt]", dry_run=False)
        assert (await session.check_journal()).problems == ()
    assert done.lost == ({"chunks": len(lost)} if lost else {})
    assert done.report is not None
    assert done.report["report"]["lost"] == done.lost
    assert not pack.exists()
    bucket, database = stored(world.settings), await known(world.settings)
    assert [word for word in SUBJECT if word in bucket or word in database] == []
    units = {name.partition("-")[0] for name in lost}
    plan = await world.plan()
    assert plan.pop("report")["stale"] == 1
    assert {name: facts["causes"] for name, facts in plan.items() if facts["causes"]} == (
        {"chunks": {"corrupt": len(units)}} if lost else {}
    )
    assert (await verify_catalog(world.settings, say=print)).same
    await rebuild_catalog(world.settings, replace=True, automatic_schema=False, say=print)
    assert (await verify_catalog(world.settings, say=print)).same
    async with world.open() as session:
        assert {one.document for one in (await session.verify()).findings} == lost
    made = {"report": {"made": 1}} | ({"chunks": {"made": len(units)}} if lost else {})
    assert await world.made() == made
    after = await world.contents()
    for asset in ("topics", "chunks", "upper"):
        assert after[asset] == {key: value for key, value in before[asset].items() if "alice" not in str(key)}
    async with world.open() as session:
        assert not (await session.verify()).findings
        assert (await session.check_journal()).problems == ()
    assert (await verify_catalog(world.settings, say=print)).same


async def test_what_is_current_and_rotten_goes_too(small_groups: None, world: World) -> None:
    """Where only its own bytes are rotten nothing else is lost."""
    rot(packs(world, "chunks")[0], "bob-1")
    world.remove("bob.txt")
    async with world.open() as session:
        assert (await session.forget("topics[bob.txt]", dry_run=False)).lost == {}
        assert not (await session.verify()).findings
    assert "bob" not in stored(world.settings) + await known(world.settings)
    assert (await verify_catalog(world.settings, say=print)).same


async def test_another_is_forgotten_beside_what_was_lost(small_groups: None, world: World) -> None:
    """What a forget could not read stays lost when the pack is written once more, and goes like all else when it must."""
    rot(packs(world, "chunks")[0], "bob-0", "carol-1")
    for name, lost in (("alice", {"chunks": 2}), ("bob", {"chunks": 1}), ("carol", {})):
        async with world.open() as session:
            done = await session.forget(f"topics[{name}.txt]", dry_run=False)
        assert done.lost == lost
        world.document("keeper.txt", name)
        assert (await verify_catalog(world.settings, say=print)).same


async def test_a_forget_that_a_rotten_pack_had_stopped_completes(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its heads were retired by then, and may have been settled since; said again, all of it goes."""
    rot(packs(world, "chunks")[0])

    def stops(*_: Any) -> None:
        raise StorageError("The pack cannot be read.")

    async with world.open() as session:
        with monkeypatch.context() as patch:
            patch.setattr("assetcore.forget.repack", stops)
            with pytest.raises(StorageError):
                await session.forget("topics[alice.txt]", dry_run=False)
    await world.materialize()
    async with world.open() as session:
        assert (await session.forget("topics[alice.txt]", dry_run=False)).report
        again = await session.forget("topics[alice.txt]", dry_run=False)
        assert again.tombstone is not None
    bucket, database = stored(world.settings), await known(world.settings)
    assert [word for word in SUBJECT if word in bucket or word in database] == []
    await world.materialize()
    async with world.open() as session:
        assert not (await session.verify()).findings


async def test_a_store_that_fails_for_a_moment_loses_nothing(
    small_groups: None, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What cannot be read just now is not lost, also where no hash of the whole tells that it is sound: said again, all is as it was."""
    rot(packs(world, "chunks")[0], "bob-0")
    async with world.open() as session:
        await session.forget("topics[alice.txt]", dry_run=False)  # after this no hash of that pack is known
    await world.materialize()
    monkeypatch.setattr("assetcore.storage.examine.WHOLE_BYTES", 1)
    before = await world.contents()
    async with world.open() as session:
        bucket = session.project.bucket
        read = bucket.read

        async def reads(key: Key) -> bytes:
            if "/chunks/pack-" in key:
                raise ServiceError("The store is away.")
            return await read(key)

        with monkeypatch.context() as patch:
            patch.setattr(bucket, "read", reads)
            with pytest.raises(ServiceError):
                await session.forget("topics[bob.txt]", dry_run=False)
        done = await session.forget("topics[bob.txt]", dry_run=False)
        assert done.lost == {}
        assert not (await session.verify()).findings
    after = await world.contents()
    assert after["chunks"] == {key: value for key, value in before["chunks"].items() if "bob" not in str(key)}


@pytest.mark.parametrize("cut", [True, False])
async def test_what_tells_of_it_and_is_rotten_goes_too(world: World, *, cut: bool) -> None:
    """A manifest or the record of a run that cannot be understood may name it: neither is left, and what is current stays as it is."""
    root = Path(world.settings.storage_url.removeprefix("file://"))
    told = [
        path for name in ("*/chunks/_manifest-*", "*/upper/_manifest-*", "_record-run-*") for path in root.rglob(name)
    ]
    assert len(told) > 4
    for path in told:
        data = path.read_bytes()
        path.write_bytes(data[:-9] if cut else bytes(len(data)))
    assert (await verify_catalog(world.settings, say=print)).damaged
    before = await world.contents()
    async with world.open() as session:
        done = await session.forget("topics[alice.txt]", dry_run=False)
        assert done.lost == {}
        assert (await session.check_journal()).problems == ()
        assert not (await session.verify()).findings
    bucket, database = stored(world.settings), await known(world.settings)
    assert [word for word in SUBJECT if word in bucket or word in database] == []
    assert not any(path.exists() for path in told)
    checked = await verify_catalog(world.settings, say=print)
    assert not checked.damaged
    assert checked.missing
    assert await world.made() == {"report": {"made": 1}}
    after = await world.contents()
    for asset in ("topics", "chunks", "upper"):
        assert after[asset] == {key: value for key, value in before[asset].items() if "alice" not in str(key)}


async def test_what_was_given_up_stays_so_in_a_rotten_pack(world: World) -> None:
    """That its bytes are lost, too, is no reason to note it as damaged: a compaction would keep what nobody needs."""
    assert (await gc(world)).let_go
    rot(packs(world, "chunks")[0])
    noted = sa.select(t.damage.c.document_id, t.damage.c.cause)
    async with world.open() as session:
        async with session.project.engine.connect() as connection:
            given_up = {document for document, _ in await connection.execute(noted)}
        assert (await session.forget("topics[bob.txt]", dry_run=False)).lost
        async with session.project.engine.connect() as connection:
            causes = [(cause, document in given_up) for document, cause in await connection.execute(noted)]
    assert set(causes) == {(LET_GO, True), (CORRUPT, False)}


async def test_what_a_rotten_pack_has_lost_is_shown(world: World, variables: dict[str, str]) -> None:
    """The command ends with 0, and says how to have it again."""
    rot(packs(world, "upper")[0])
    done = Command(world.root, variables)("forget", "topics[alice.txt]", "--yes")
    assert done.code == 0, done
    assert "cannot be read any more: upper 8. To make it again: aipctl materialize" in " ".join(done.out.split())
