"""A gateway to test with: a small HTTP server that answers as LiteLLM does, and that can be told to misbehave."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

KEY = "sk-test"
MODELS = {"generator": "test/echo", "judge": "test/echo", "embedder": "test/letters"}


@dataclass
class Reply:
    """What is sent instead of an answer; `hang` sends the first half of the body and then nothing more."""

    status: int = 200
    body: str = "{}"
    headers: dict[str, str] = field(default_factory=dict)
    hang: bool = False


@dataclass
class FakeGateway:
    """What was asked, and how it is answered: `replies` come first, one for each question, then what `say` says."""

    url: str = ""
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    replies: list[Reply] = field(default_factory=list)
    models: dict[str, str] = field(default_factory=lambda: dict(MODELS))
    say: Callable[[dict[str, Any]], str] = lambda body: "said: " + body["messages"][-1]["content"]
    dimensions: int = 8
    shorter: dict[str, int] = field(default_factory=dict)
    """By the name at the gateway: of which models only the first numbers are given."""
    shortens: bool = True
    """Whether `dimensions` is heard of."""
    pause: float = 0.0

    def questions(self, path: str) -> list[dict[str, Any]]:
        return [body for asked, body in self.asked if asked == path]

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                method, path, _ = line.decode().split()
                headers: dict[str, str] = {}
                while (header := (await reader.readline()).strip()) != b"":
                    name, _, value = header.decode().partition(":")
                    headers[name.lower()] = value.strip()
                content = await reader.readexactly(int(headers.get("content-length", 0)))
                reply = await self.reply(method, path, headers, json.loads(content or b"{}"))
                data = reply.body.encode()
                lines = [f"HTTP/1.1 {reply.status} -", f"content-length: {len(data)}", "content-type: application/json"]
                lines += [f"{name}: {value}" for name, value in reply.headers.items()]
                writer.write("\r\n".join([*lines, "", ""]).encode() + data[: len(data) // 2 if reply.hang else None])
                await writer.drain()
                if reply.hang:
                    await asyncio.sleep(30)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def reply(self, method: str, path: str, headers: dict[str, str], body: dict[str, Any]) -> Reply:
        if headers.get("authorization") != f"Bearer {KEY}":
            return Reply(401, json.dumps({"error": {"message": "Authentication Error"}}))
        if method == "GET":
            priced = {"input_cost_per_token": 0.5, "output_cost_per_token": 1.5}
            known = [
                {"model_name": n, "litellm_params": {"model": m}, "model_info": priced} for n, m in self.models.items()
            ]
            return Reply(
                body=json.dumps({"data": known if path.endswith("info") else [{"id": n} for n in self.models]})
            )
        self.asked.append((path, body))
        await asyncio.sleep(self.pause)
        if self.replies:
            return self.replies.pop(0)
        if body["model"] not in self.models:
            return Reply(400, json.dumps({"error": {"message": f"Invalid model name passed in model={body['model']}"}}))
        paid = {"x-litellm-response-cost": "0.25", "x-litellm-model-name": self.models[body["model"]]}
        if path.endswith("embeddings"):
            length = self.shorter.get(body["model"]) or (body.get("dimensions") if self.shortens else None)
            data = [{"index": i, "embedding": self.vector(text)[:length]} for i, text in enumerate(body["input"])]
            tokens = sum(len(text) for text in body["input"])
            return Reply(body=json.dumps({"data": data, "usage": {"total_tokens": tokens}}), headers=paid)
        usage = {"total_tokens": 10, "prompt_tokens_details": {"cached_tokens": 4}}
        message = {"role": "assistant", "content": self.say(body)}
        return Reply(body=json.dumps({"choices": [{"message": message}], "usage": usage}), headers=paid)

    def vector(self, text: str) -> list[float]:
        return [byte / 255 for byte in hashlib.sha256(text.encode()).digest()[: self.dimensions]]


@asynccontextmanager
async def fake_gateway() -> AsyncIterator[FakeGateway]:
    """The server, at an address of its own while this is open."""
    found = FakeGateway()
    server = await asyncio.start_server(found.answer, "127.0.0.1", 0)
    found.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    try:
        yield found
    finally:
        server.close()
