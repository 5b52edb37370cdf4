"""Notify: what is sent when a run fails, how often, and to whom."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

import pytest
from redis import asyncio as redis

from assetcore import notify
from assetcore.notify import Failed, PushoverNotifier
from assetcore.settings import Settings
from tests.integration.world import World

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

BODY = """
@asset
async def clean(topic: Topic = each(topics)) -> Topic:
    assert "wrong" not in topic.text, "this is wrong"
    return Topic(topic.name, text=topic.text.upper())
"""


class Receiver:
    """An HTTP server that keeps what is posted to it, and answers with a status."""

    def __init__(self) -> None:
        self.received: list[tuple[str, bytes]] = []
        self.status = 200
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                content = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.received.append((self.path, content))
                self.send_response(receiver.status)
                self.end_headers()

            def log_message(self, format: str, *arguments: object) -> None:
                """Nothing: the tests ask `received`."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def forms(self) -> list[dict[str, str]]:
        """What came to Pushover."""
        return [
            {k: v[0] for k, v in parse_qs(c.decode()).items()}
            for path, c in self.received
            if path == "/1/messages.json"
        ]

    def hooks(self) -> list[dict[str, Any]]:
        """What came to the webhook."""
        return [json.loads(content) for path, content in self.received if path == "/hook"]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.server.shutdown()


@pytest.fixture
def told(settings: Settings, receiver: Receiver) -> Settings:
    """Settings of somebody who wants to be told in both ways."""
    return settings.using(
        "test", pushover_user="U", pushover_token="T", pushover_url=f"{receiver.url}/1/messages.json",
        webhook_url=f"{receiver.url}/hook",
    )  # fmt: skip


@pytest.fixture
def world(told: Settings) -> World:
    world = World(told)
    world.code(BODY)
    for name in "abcdefgh":
        world.document(f"{name}.txt", "wrong" if name != "a" else "right")
    return world


async def test_a_failed_run_is_told_once_in_five_minutes(world: World, receiver: Receiver) -> None:
    """One POST for each way, with the run, what failed and where its objects lie; the same failure is not told again until then."""
    first = await world.materialize()
    (form,) = receiver.forms()
    assert (form["user"], form["token"], form["title"]) == ("U", "T", "demo (prod) failed")
    assert f"run {first.run}: 7 failed" in form["message"]
    assert "clean[b.txt]: AssertionError: this is wrong" in form["message"]
    assert "and 2 more" in form["message"]
    assert f"key: {world.settings.storage_url}/demo/main/" in form["message"]
    (hook,) = receiver.hooks()
    assert (hook["flow"], hook["run"], len(hook["problems"])) == ("demo (prod)", first.run, 5)
    await world.materialize()
    await world.materialize()
    assert (len(receiver.forms()), len(receiver.hooks())) == (1, 1)

    client = redis.Redis.from_url(str(world.settings.redis_url))
    keys = [key async for key in client.scan_iter("assetcore:notified:*")]
    assert len(keys) == 2
    for key in keys:
        assert 0 < await client.pttl(key) <= 300_000
        await client.delete(key)  # five minutes pass
    await client.aclose()
    await world.materialize()
    assert (len(receiver.forms()), len(receiver.hooks())) == (2, 2)


async def test_a_run_that_is_done_tells_nobody(world: World, receiver: Receiver) -> None:
    """Nor does one that had nothing to do."""
    for name in "bcdefgh":
        world.remove(f"{name}.txt")
    assert (await world.materialize()).status == "done"
    await world.materialize()
    assert receiver.received == []


async def test_who_cannot_be_told_fails_nothing_and_is_told_the_next_time(
    told: Settings, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    """A Pushover that answers 500, or a Redis that is gone: a line in the log, without the token, and the failure is told later."""
    failed = Failed(
        "demo (prod)", "r1", [("clean[a]", "ValueError: no")], 1, link="http://127.0.0.1:4200/runs/flow-run/x"
    )
    receiver.status = 500
    assert await notify.tell(told, failed) == []
    assert "pushover could not be told that demo (prod) failed: HTTPStatusError" in caplog.messages
    assert "token" not in caplog.text
    receiver.status = 200
    assert await notify.tell(told, failed) == ["pushover", "webhook"]
    assert await notify.tell(told, failed) == []
    assert receiver.forms()[-1]["url"] == "http://127.0.0.1:4200/runs/flow-run/x"
    assert await notify.tell(told.using("test", redis_url="redis://127.0.0.1:1/0"), failed) == ["pushover", "webhook"]
    other = Failed("demo (prod)", "r2", [("clean[a]", "ValueError: another")], 1)
    assert await notify.tell(told, other) == ["pushover", "webhook"]


async def test_another_way_to_tell_needs_no_other_call(told: Settings) -> None:
    """A notifier is anything with a name and `send`."""

    class Chat:
        name = "chat"

        def __init__(self) -> None:
            self.said: list[str] = []

        async def send(self, title: str, message: str, **facts: Any) -> None:
            self.said.append(f"{title} {facts['run']}")

    chat = Chat()
    failed = Failed("demo", "r1", [("clean[a]", "no")], 1)
    assert await notify.tell(told, failed, [chat, PushoverNotifier("U", "T", "http://127.0.0.1:1/")]) == ["chat"]
    assert chat.said == ["demo failed r1"]
