"""Models: what is asked of a gateway, what is paid for, and what can go wrong. The gateway is a small server, spoken to over HTTP."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
import sqlalchemy as sa
from pydantic import BaseModel

from assetcore import calls, llm, open_project
from assetcore.cache import get_async_client
from assetcore.catalog import rebuild_catalog
from assetcore.errors import AnswerError, GatewayError, ServiceError, SettingsError, UsageError
from assetcore.lineage import runs, schema
from assetcore.lineage import tables as t
from assetcore.llm import Client, embedding
from assetcore.llm.embedding import VectorCache
from assetcore.running import taken_up
from assetcore.settings import Settings
from tests.integration.gateway import KEY, FakeGateway, Reply, fake_gateway
from tests.integration.world import HEAD, World

pytestmark = pytest.mark.integration

BODY = (
    HEAD
    + """
from assetcore import check, llm

class Prompt(Document):
    "What a model is told."

prompts = source("prompts", Prompt, folder("prompts", pattern="*.md"))

@asset(models=["generator"])
async def summaries(topic: Topic = each(topics), prompt: list[Prompt] = collect(prompts)) -> Report:
    return Report(name=topic.stem, text=(await llm.generate(prompt[0], topic)).text)
"""
)


class Verdict(BaseModel):
    score: int
    reason: str


@pytest.fixture
async def gateway() -> AsyncIterator[FakeGateway]:
    async with fake_gateway() as found:
        yield found


@pytest.fixture
def connected(settings: Settings, gateway: FakeGateway) -> Settings:
    """Settings whose gateway is the test's."""
    return settings.using("test", openai_base_url=gateway.url, openai_api_key=KEY)


@pytest.fixture
async def client(connected: Settings) -> AsyncIterator[Client]:
    """A client with a cache, but without recorded answers; models are asked through it."""
    found = Client(connected)
    await found.learn()
    with llm.calling(found):
        yield found
    await found.close()


@pytest.fixture
def world(connected: Settings) -> World:
    world = World(connected)
    world.code(BODY, head="")
    (world.root / "prompts").mkdir()
    (world.root / "prompts" / "summary.md").write_text("Summarise.")
    for name in ("a", "b", "c"):
        world.document(f"{name}.txt", f"text of {name}")
    return world


# -- one question ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "transient", "match"),
    [
        (Reply(500, '{"error": {"message": "out of memory"}}'), True, r"fails \(500\): out of memory"),
        (Reply(429, "slow down", {"retry-after": "7"}), True, r"no room for more .*\(429\): slow down"),
        (Reply(400, '{"error": {"message": "too long"}}'), False, r"refuses the question \(400\): too long"),
        (Reply(401, "{}"), False, r"refuses the key \(401\)"),
        (Reply(200, '{"choices": [{"mess'), True, r"no JSON, or not all of it"),
        (Reply(200, "x" * 100, hang=True), True, r"does not answer within 0\.3 s"),
    ],
)
async def test_what_a_gateway_can_do_wrong(
    client: Client, gateway: FakeGateway, reply: Reply, transient: bool, match: str
) -> None:
    """Each way of failing is a GatewayError that says what happened and whether it can pass; nothing is asked twice."""
    gateway.replies = [reply]
    with pytest.raises(GatewayError, match=match) as caught:
        await llm.generate("Hello", seconds=0.3 if reply.hang else 30)  # only one is waited for in vain
    assert caught.value.transient == transient
    assert caught.value.retry_after == (7.0 if reply.headers else None)
    assert caught.value.exit_code == 69
    assert len(gateway.asked) == 1


async def test_a_gateway_that_is_down(settings: Settings) -> None:
    """Nobody there is a sentence with the address and what to do."""
    client = Client(settings.using("test", openai_base_url="http://127.0.0.1:9/v1"))
    with (
        llm.calling(client),
        pytest.raises(GatewayError, match=r"127\.0\.0\.1:9/v1 cannot be reached(.|\n)*aipctl check"),
    ):
        await llm.generate("Hello")


async def test_a_model_that_says_nothing(client: Client, gateway: FakeGateway) -> None:
    """An answer without text is no answer."""
    gateway.replies = [Reply(200, '{"choices": []}'), Reply(200, '{"choices": [{"message": {"content": ""}}]}')]
    for _ in range(2):
        with pytest.raises(AnswerError, match="without text"):
            await llm.generate("Hello")


async def test_an_answer_that_is_cut_off_says_so(world: World, gateway: FakeGateway) -> None:
    """Of an answer that ends at max_tokens that is known, also when it is found again; as the reason why it is no JSON, too."""
    cut = Reply(200, '{"choices": [{"message": {"content": "{"}, "finish_reason": "length"}]}')
    gateway.replies = [cut, cut, cut]
    async with world.open() as session:
        await session.project.llm.learn()
        with llm.calling(session.project.llm):
            assert [(await llm.generate("Hello", max_tokens=1)).cut for _ in range(2)] == [True, True]
            with pytest.raises(AnswerError, match="cut off"):
                await llm.generate_structured(Verdict, "Judge.", max_tokens=1)
    assert len(gateway.asked) == 3


async def test_half_a_character_is_marked(client: Client, gateway: FakeGateway) -> None:
    """Where a model was cut off within a character, what is left of it is one that any document can hold."""
    gateway.replies = [Reply(200, '{"choices": [{"message": {"content": "said \\ud83d\\ude00 \\ud83d"}}]}')]
    assert (await llm.generate("Hello")).text == "said \U0001f600 \ufffd"


async def test_an_alias_that_nobody_knows(client: Client, gateway: FakeGateway) -> None:
    """The error names the aliases that there are; the gateway is not asked."""
    with pytest.raises(SettingsError, match=r"'generater', which the gateway at .* it has: embedder, generator, judge"):
        await llm.generate("Hello", model="generater")
    assert gateway.asked == []


# -- structured --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", ['{"score": "high"}', '{"score": 3, "rea', "I think it is a 3."])
async def test_an_answer_that_is_not_what_was_asked_is_repaired_once(
    client: Client, gateway: FakeGateway, first: str
) -> None:
    """The model is shown its answer and what is wrong with it; fences around JSON are no mistake."""
    answers = iter([first, '```json\n{"score": 3, "reason": "short"}\n```'])
    gateway.say = lambda body: next(answers)
    assert await llm.generate_structured(Verdict, "Judge.", "A text.", model="judge") == Verdict(
        score=3, reason="short"
    )
    asked, repaired = gateway.questions("/v1/chat/completions")
    assert asked["response_format"]["json_schema"]["schema"]["required"] == ["score", "reason"]
    assert repaired["messages"][2] == {"role": "assistant", "content": first}


async def test_a_model_that_never_gives_it(client: Client, gateway: FakeGateway) -> None:
    """The second wrong answer is an error that keeps it."""
    gateway.say = lambda body: '{"score": "high"}'
    with pytest.raises(AnswerError, match=r"judge \(test/echo\) .* twice .*score") as caught:
        await llm.generate_structured(Verdict, "Judge.", "A text.", model="judge")
    assert caught.value.answer == '{"score": "high"}'
    assert len(gateway.asked) == 2


# -- embeddings --------------------------------------------------------------------------------------------------------------------


async def test_texts_of_many_units_are_asked_for_together(client: Client, gateway: FakeGateway) -> None:
    """A hundred calls at once are one question; each text is asked for once, and the second time not at all."""
    texts = [f"text {i % 60}" for i in range(100)]
    found = await asyncio.gather(*(llm.embed([text]) for text in texts))
    assert [len(vectors) for vectors in found] == [1] * 100
    assert found[0][0] == pytest.approx(gateway.vector("text 0"), abs=1e-6)
    (question,) = gateway.questions("/v1/embeddings")
    assert len(question["input"]) == 60
    await llm.embed(texts)
    assert len(gateway.asked) == 1


async def test_many_tokens_are_several_questions(client: Client, gateway: FakeGateway) -> None:
    """A question holds about 16,000 tokens."""
    await llm.embed([f"{i} " + "word " * 4000 for i in range(10)])
    assert sorted(len(question["input"]) for question in gateway.questions("/v1/embeddings")) == [1, 3, 3, 3]


async def test_one_text_that_is_refused_leaves_the_others(client: Client, gateway: FakeGateway) -> None:
    """A refusal of many texts is about one of them: the others have their vectors."""
    refused = Reply(400, '{"error": {"message": "too long"}}')
    gateway.replies = [refused, refused]  # of both, then of the first
    one, other = await asyncio.gather(llm.embed(["one"]), llm.embed(["other"]), return_exceptions=True)
    assert isinstance(one, GatewayError)
    assert isinstance(other, list)


async def test_a_refusal_of_every_text_is_learned_by_few_questions(
    client: Client, gateway: FakeGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that embeds nothing is asked four times, not for each text; where one text is the reason, the others are asked for once."""
    answered, reply, bad = Counter[str](), gateway.reply, ""

    async def refusing(method: str, path: str, headers: Mapping[str, str], body: Any) -> Reply:
        if any(bad in text for text in body["input"]):
            gateway.asked.append((path, body))
            return Reply(400, '{"error": {"message": "no"}}')
        answered.update(body["input"])
        return await reply(method, path, headers, body)

    monkeypatch.setattr(gateway, "reply", refusing)
    texts = [f"text {i} " + "x" * i for i in range(100)]
    found = await asyncio.gather(*(llm.embed([text]) for text in texts), return_exceptions=True)
    assert (sum(isinstance(one, GatewayError) for one in found), len(gateway.asked)) == (100, 4)
    bad = "text 40 "
    found = await asyncio.gather(*(llm.embed([text]) for text in texts), return_exceptions=True)
    assert sum(isinstance(one, GatewayError) for one in found) == 1
    assert len(gateway.asked) < 4 + 20
    assert set(answered.values()) == {1}
    assert len(answered) == 99


@pytest.mark.parametrize(
    ("body", "match"),
    [
        ('{"data": [{"index": 0, "embedding": [1, 2, 3]}]}', "a vector of 3 numbers where 8 were expected"),
        ('{"data": []}', "0 vectors for 1 texts"),
        ('{"data": [{"index": 0, "embedding": [NaN, 1, 1, 1, 1, 1, 1, 1]}]}', "a number that is none"),
        ('{"choices": []}', "not a list of embeddings"),
    ],
)
async def test_vectors_that_are_none(client: Client, gateway: FakeGateway, body: str, match: str) -> None:
    """A vector of another length, too few of them, or no numbers: an AnswerError, and nothing is kept."""
    await llm.embed(["first"])
    gateway.replies = [Reply(200, body)]
    with pytest.raises(AnswerError, match=match):
        await llm.embed(["second"])
    assert await llm.embed(["second"]) == [pytest.approx(gateway.vector("second"), abs=1e-6)]


async def test_two_processes_ask_for_a_text_once(
    connected: Settings, gateway: FakeGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever comes second waits for the first one's vector, however long a question takes."""
    monkeypatch.setattr(embedding, "CLAIM", 0.3)
    gateway.pause = 1.0
    clients = [Client(connected), Client(connected)]
    for one in clients:
        await one.learn()
    found = await asyncio.gather(*(one.embed(["text"], "embedder", None, 5) for one in clients))
    assert [one[0].tokens for one in found].count(0) == 1
    assert len(gateway.asked) == 1
    claims = get_async_client(str(connected.redis_url))
    caches = [VectorCache(claims), VectorCache(claims)]
    for keys in ([b"one"], [b"one", b"two"]):
        await caches[0].claimed(keys)
        await caches[1].release(keys)
    assert await caches[1].claimed([b"one", b"two"]) == [False, False], "a claim is released by its owner"
    for one in (*clients, claims):
        await (one.close() if isinstance(one, Client) else one.aclose())


async def test_without_redis_every_text_is_asked_for(connected: Settings, gateway: FakeGateway) -> None:
    """A Redis that cannot be reached costs a question more, and nothing else."""
    client = Client(connected.using("test", redis_url="redis://127.0.0.1:9/0"))
    await client.learn()
    with llm.calling(client):
        assert len(await llm.embed(["text"])) == 1
    await client.close()


async def test_no_other_host_is_asked(client: Client, gateway: FakeGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a proxy of the environment nor where a gateway would send us: the key goes to OPENAI_BASE_URL alone."""
    async with fake_gateway() as other:
        for variable in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy"):
            monkeypatch.setenv(variable, other.url.removesuffix("/v1"))
        gateway.replies = [Reply(307, "{}", {"location": f"{other.url}/chat/completions"})]
        with pytest.raises(GatewayError, match=r"refuses the question \(307\)"):
            await llm.generate("Hello")
        assert (await llm.generate("Hello")).text == "said: Hello"
        assert other.asked == []


async def test_a_vector_that_redis_has_forgotten_is_asked_for_again(
    client: Client, gateway: FakeGateway, settings: Settings
) -> None:
    """Every key of the cache has its time; when that is over, or Redis was emptied, there is a question more and the same vector."""
    first = await llm.embed(["text"])
    redis = get_async_client(str(settings.redis_url))
    keys = await redis.keys("*")
    assert keys
    assert all([await redis.pttl(key) > 0 for key in keys])
    for key in keys:
        await redis.pexpire(key, 1)
    await asyncio.sleep(0.05)
    assert await llm.embed(["text"]) == first
    assert len(gateway.questions("/v1/embeddings")) == 2
    with client.anew(None, kept=False):  # what is made once more to see whether it varies
        await llm.embed(["text"])
    await llm.embed(["text"])
    assert len(gateway.questions("/v1/embeddings")) == 3
    await redis.aclose()


# -- in a run ----------------------------------------------------------------------------------------------------------------------


async def test_a_prompt_is_a_document(world: World, gateway: FakeGateway) -> None:
    """Editing a prompt makes its users stale; taking the edit back asks no model."""
    assert (await world.made())["summaries"] == {"made": 3, "tokens": 30, "usd": 0.75}
    assert len(gateway.asked) == 3
    (world.root / "prompts" / "summary.md").write_text("Summarise in one sentence.")
    assert (await world.plan())["summaries"]["causes"] == {"input-changed": 3}
    await world.made()
    assert len(gateway.asked) == 6
    (world.root / "prompts" / "summary.md").write_text("Summarise.")
    await world.made()
    assert len(gateway.asked) == 6


async def test_another_model_behind_the_alias(world: World, gateway: FakeGateway) -> None:
    """The gateway says which model answers to the alias: another one makes stale what the first one made, at its own price."""
    await world.made()
    gateway.models["generator"] = "test/better"
    assert (await world.plan())["summaries"]["causes"] == {"model-changed": 3}
    async with world.open() as session:
        plan = (await session.plan()).to_json()
    assert plan["estimate"]["usd"] == 3 * 10 * 0.5
    assert plan["estimates"][0]["usd"]["p90"] == 3 * 10 * 1.5
    await world.made()
    assert len(gateway.asked) == 6
    assert await world.plan() == {}


async def test_what_was_answered_is_not_paid_twice(world: World, gateway: FakeGateway) -> None:
    """Other code around the same question finds the answer; --force asks again, --force --replay does not."""
    await world.made()
    first = await world.contents()
    world.code(BODY.replace("return Report(", "return Report(media_type='text/markdown', "), head="")
    assert (await world.made("summaries"))["summaries"] == {"made": 3}
    assert len(gateway.asked) == 3
    gateway.say = lambda body: "another answer"
    await world.made("summaries", force=True, replay=True)
    assert len(gateway.asked) == 3
    assert (await world.contents())["summaries"].keys() == first["summaries"].keys()
    await world.made("summaries", force=True)
    assert len(gateway.asked) == 6


async def test_a_bad_answer_is_not_what_the_next_attempt_gets(
    world: World, gateway: FakeGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever asks again after an answer that was none asks the model: a retry, and the next run, also of a rebuilt catalog."""
    monkeypatch.setattr(calls, "BACKOFF_SECONDS", 0.005)
    for name in ("b", "c"):
        world.remove(f"{name}.txt")
    world.code("""
class Verdict(BaseModel):
    score: int

@asset(models=["judge"], retries=1)
async def verdicts(topic: Topic = each(topics)) -> Verdict:
    return await llm.generate_structured(Verdict, "Judge.", topic, model="judge")
""", head=HEAD + "from assetcore import llm")  # fmt: skip
    said = iter(['{"score": "high"}'] * 4)
    gateway.say = lambda body: next(said, '{"score": 3}')
    failed = await world.made()
    assert failed["verdicts"] == {"failed": 1, "tokens": 40, "usd": 1.0}
    assert len(gateway.asked) == 4
    await rebuild_catalog(world.settings, replace=True, automatic_schema=False, say=lambda _: None)
    assert (await world.made())["verdicts"] == {"made": 1, "tokens": 10, "usd": 0.25}
    async with world.open() as session:
        records = [
            json.loads(await session.project.bucket.read(info.key))
            async for info in session.project.bucket.list("demo/answers/")
        ]
    assert len(records) == 9  # five answers, and of the four that were none that these are not to be found
    assert [r["answer"] for r in records if "refused_by" in r] == ['{"score": "high"}'] * 4


PICKY = BODY.replace(
    "return Report(name=topic.stem, text=(await llm.generate(prompt[0], topic)).text)",
    """
    text = (await llm.generate(prompt[0], topic)).text
    if "good" not in text:
        raise ValueError(text)
    return Report(name=topic.stem, text=text)
""",
)


async def test_a_unit_that_failed_asks_again_and_other_code_does_not(world: World, gateway: FakeGateway) -> None:
    """A function that raises may not have liked the answer: it is not given that again. Mended code may like it, and pays nothing."""
    for name in ("b", "c"):
        world.remove(f"{name}.txt")
    gateway.say = lambda body: "bad"
    world.code(PICKY, head="")
    for asked in (1, 2):  # each run asks once
        assert (await world.made())["summaries"]["failed"] == 1
        assert len(gateway.asked) == asked
    world.code(PICKY.replace('"good" not in text', "not text"), head="")
    assert (await world.made())["summaries"] == {"made": 1}
    gateway.say = lambda body: "good"
    world.code(PICKY, head="")
    assert (await world.made())["summaries"] == {"made": 1, "tokens": 10, "usd": 0.25}
    assert len(gateway.asked) == 3
    gateway.say = lambda body: "bad" if len(gateway.asked) == 4 else "good"
    retried = PICKY.replace('models=["generator"]', 'models=["generator"], retries=1')
    world.code(retried, head="")
    assert (await world.made("summaries", force=True))["summaries"][
        "tokens"
    ] == 20  # a forced run, too, asks for each attempt


async def test_an_answer_survives_what_is_not_its_fault(world: World, gateway: FakeGateway) -> None:
    """A unit whose second question meets a gateway that is down asks the second question alone when it is tried again."""
    for name in ("b", "c"):
        world.remove(f"{name}.txt")
    world.code(BODY.replace("(await llm.generate(prompt[0], topic)).text", """
        (await llm.generate(prompt[0], await llm.generate("Translate.", topic) and topic)).text"""), head="")  # fmt: skip
    gateway.say = lambda body: "said"
    gateway.replies = [Reply(200, '{"choices": [{"message": {"content": "translated"}}]}'), Reply(500, "{}")]
    assert (await world.made())["summaries"]["failed"] == 1
    assert (await world.made())["summaries"]["made"] == 1
    assert [one["messages"][0]["content"] for one in gateway.questions("/v1/chat/completions")] == [
        "Translate.", "Summarise.", "Summarise."
    ]  # fmt: skip


async def test_a_unit_that_a_check_refused_asks_again(world: World, gateway: FakeGateway) -> None:
    """What a blocking check refuses is made of another answer by the next run; its neighbours are not asked about again."""
    world.code(
        BODY + """
@check(summaries, blocking=True)
async def good(summary: Report) -> bool:
    return "bad" not in summary.text
""",
        head="",
    )  # fmt: skip
    bad = iter(["bad", "also bad"])
    gateway.say = lambda body: next(bad, "good") if "of b" in body["messages"][1]["content"] else "good"
    for failed in (1, 1, 0):
        assert len((await world.materialize()).failures) == failed
    assert len(gateway.asked) == 3 + 1 + 1


async def test_a_bad_vector_is_not_what_the_next_attempt_gets(
    world: World, connected: Settings, gateway: FakeGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of answers: a retry, the next run, who was refused by a check and --force ask the model; neighbours, and other code, do not."""
    monkeypatch.setattr(calls, "BACKOFF_SECONDS", 0.005)
    code = HEAD + """
from assetcore import check, llm
from assetcore.embeddings import Embedding

@asset(models=["embedder"], retries=1)
async def vectors(topic: Topic = each(topics)) -> Embedding:
    [vector] = await llm.embed([topic.text])
    if not any(vector):
        raise ValueError("a vector of nothing")
    return Embedding.of(topic.stem, vector)

@check(vectors, blocking=True)
async def right(vector: Embedding) -> bool:
    return vector.vector[0] >= 0
"""  # fmt: skip
    world.code(code, head="")
    bad, vector = iter([[0.0] * 8, [0.0] * 8, [-1.0] * 8]), gateway.vector
    monkeypatch.setattr(gateway, "vector", lambda text: (next(bad, None) if "of b" in text else None) or vector(text))
    for failed, questions in ((1, 2), (1, 3), (0, 4)):
        assert len((await world.materialize()).failures) == failed
        assert len(gateway.asked) == questions
    assert (await world.made(force=True))["vectors"]["unchanged"] == 3
    assert len(gateway.asked) == 5
    assert [len(question["input"]) for question in gateway.questions("/v1/embeddings")] == [3, 1, 1, 1, 3]
    world.code(code.replace("topic.stem, vector", "topic.stem + 's', vector"), head="")
    assert (await world.made())["vectors"] == {"made": 3}
    assert len(gateway.asked) == 5
    redis = get_async_client(str(connected.redis_url))
    mine, other = VectorCache(redis, "code"), VectorCache(redis, "other")
    await mine.keep({b"text": [1.0]})
    await mine.refuse([f"{embedding.VECTOR}{b'text'.hex()}"], "code")
    assert [await one.found([b"text"]) for one in (mine, other)] == [[None], [[1.0]]]
    await mine.keep({b"text": [1.0]})
    assert await mine.found([b"text"]) == [[1.0]], "the model gave the same again, and nobody refused that"
    await redis.aclose()


async def test_made_anew_is_asked_anew_each_time(world: World, gateway: FakeGateway) -> None:
    """In one open session each forced run asks, and what is not forced asks nothing; once more (`rerun`) asks and records nothing."""
    said = itertools.count()
    gateway.say = lambda body: f"answer {next(said)}"
    async with world.open() as session:
        for times in (1, 2, 3):
            await session.materialize(force=True, local=True)
            assert len(gateway.asked) == 3 * times
        world.code(BODY.replace("return Report(", "return Report(media_type='text/markdown', "), head="")
    await world.made()
    assert len(gateway.asked) == 9
    async with world.open() as session:
        assert [one.same for one in await session.rerun(3)] == [False] * 3
        keys = [info.key async for info in session.project.bucket.list("demo/answers/")]
        assert (len(gateway.asked), len(keys)) == (12, 9)


async def test_a_forced_run_that_is_taken_up_finds_what_it_was_answered(world: World, gateway: FakeGateway) -> None:
    """Where its process died, whoever completes it does not pay twice for what it has asked since it began."""
    await world.made()
    async with world.open() as session:
        result = await session.materialize(force=True, local=True)
        assert len(gateway.asked) == 6
        stored = await runs.look_up(str(world.settings.database_url), str(result.run))
        async with taken_up(session.project, stored):
            with llm.calling(session.project.llm):
                assert (await llm.generate("Summarise.", "text of a")).recorded


async def test_what_a_unit_asked_is_in_its_lineage(world: World, gateway: FakeGateway) -> None:
    """Tokens, those that the provider had cached, dollars and the model are kept with what was made, and summed for the run."""
    result = await world.materialize()
    (summaries,) = [a for a in result.assets if a.asset == "summaries"]
    assert (summaries.tokens, summaries.usd) == (30, 0.75)
    engine = schema.connect(str(world.settings.database_url))
    async with engine.connect() as connection:
        rows = (await connection.execute(sa.select(t.spent))).all()
    await engine.dispose()
    assert [tuple(row)[1:] for row in rows] == [(10, 0.25, 4, "test/echo")] * 3


async def test_two_runs_at_once_ask_once(world: World, gateway: FakeGateway) -> None:
    """Two environments that are made at the same time share every answer."""
    gateway.pause = 0.2
    other = World(world.settings.using("test", environment="pr-17"))
    await asyncio.gather(world.materialize(), other.materialize())
    assert len(gateway.asked) == 3


async def test_a_question_is_asked_again_only_where_an_asset_says_so(world: World, gateway: FakeGateway) -> None:
    """`retries=` asks again after what can pass, waits as long as Retry-After says, and never after a refusal."""
    for name in ("b", "c"):
        world.remove(f"{name}.txt")
    world.code(BODY.replace('models=["generator"]', 'models=["generator"], retries=2'), head="")
    gateway.replies = [Reply(429, "{}", {"retry-after": "1"})]
    started = asyncio.get_running_loop().time()
    assert (await world.materialize()).status == "done"
    assert asyncio.get_running_loop().time() - started > 1
    assert len(gateway.asked) == 2
    gateway.replies = [Reply(400, "{}")]
    result = await world.materialize("summaries", force=True)
    assert result.status == "failed"
    assert "refuses the question (400)" in result.failures[0].error
    assert len(gateway.asked) == 3


async def test_a_model_that_is_not_declared(world: World, gateway: FakeGateway) -> None:
    """An asset that asks a model without declaring it fails, and is told what to write; so is one that declares what there is not."""
    world.code(BODY.replace('@asset(models=["generator"])', "@asset"), head="")
    result = await world.materialize()
    assert "does not declare it" in result.failures[0].error
    world.code(BODY.replace('models=["generator"]', 'models=["writer"]'), head="")
    with pytest.raises(SettingsError, match=r"summaries .* asks for the model 'writer'"):
        await world.materialize()


async def test_a_check_asks_a_model(world: World, gateway: FakeGateway) -> None:
    """An async check may ask any model, the judge for one; a sync one is told to be async, as a sync asset is when it is loaded."""
    world.code(
        BODY + """
@check(summaries, blocking=True)
async def judged(summary: Report) -> bool:
    return "said" in (await llm.generate("Is this a summary?", summary, model="judge")).text
""",
        head="",
    )  # fmt: skip
    assert (await world.materialize()).status == "done"
    assert [one["model"] for one in gateway.questions("/v1/chat/completions")].count("judge") == 3
    world.code(
        BODY + """
@check(summaries)
def judged(summary: Report) -> bool:
    import asyncio
    return "said" in asyncio.run(llm.generate("Is this a summary?", summary, model="judge")).text
""",
        head="",
    )  # fmt: skip
    await world.materialize()
    async with world.open() as session:
        assert "Write `async def`" in str((await session.plan()).to_json()["checks"])


async def test_without_a_gateway_a_plan_says_so(world: World) -> None:
    """Where a gateway is down nobody knows which model it would ask: that is exit code 69."""
    world.settings = world.settings.using("test", openai_base_url="http://127.0.0.1:9/v1")
    with pytest.raises(ServiceError, match="cannot be reached"):
        await world.plan()


async def test_outside_a_project_nobody_is_asked() -> None:
    """A call outside a run says what to do."""
    with pytest.raises(UsageError, match="no project is open"):
        await llm.generate("Hello")


async def test_a_script_asks_models_inside_a_project(world: World) -> None:
    """Inside `open_project` any alias can be asked, and after it none."""
    given = world.settings
    async with open_project(
        "demo", root=world.root, database_url=given.database_url, redis_url=given.redis_url, storage_url=given.storage_url,
        prefect_api_url="http://127.0.0.1:9/api", openai_base_url=given.openai_base_url, openai_api_key=KEY,
    ):  # fmt: skip
        assert (await llm.generate("Hello", model="judge")).text == "said: Hello"
        assert len((await llm.embed(["Hello"]))[0]) == 8
    with pytest.raises(UsageError, match="no project is open"):
        await llm.generate("Hello")


async def test_recorded_answers_are_readable(world: World, gateway: FakeGateway) -> None:
    """An answer is an object under a key like any other, with its question, is no garbage, and outlives Postgres."""
    await world.materialize()
    async with world.open() as session:
        keys = [info.key async for info in session.project.bucket.list("demo/answers/")]
        record = json.loads(await session.project.bucket.read(keys[0]))
        swept = await session.gc(dry_run=True)
    assert len(keys) == 3
    assert record["question"]["messages"][0] == {"role": "system", "content": "Summarise."}
    assert record["answer"].startswith("said: text of ")
    assert swept.objects == 0
    await rebuild_catalog(world.settings, replace=True, automatic_schema=False, say=lambda _: None)
    await world.made("summaries", force=True, replay=True)
    assert len(gateway.asked) == 3
