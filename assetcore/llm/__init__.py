"""LLM: what does a model answer, and what did that cost?

    generate             a text, to instructions and a content
    generate_structured  the same as a pydantic model
    embed                a vector for each text

Models are asked of one place only, a LiteLLM gateway (OPENAI_BASE_URL, or the embedded one), by an alias that the asset declares in
`models=`. What a call took goes to the account of the unit that made it. The same question is paid for once: an answer is
recorded in the store and found again there, a vector in Redis, and of those who ask at the same time one asks for all.

Nothing is asked again after an error, except where an asset says so: `@asset(retries=3)`. Then, and in the next run, an answer that
failed its unit, or that a check refused in it, is not found: the model is asked again. So it is with a vector.

    llm/gateway.py      one question over HTTP, and what can go wrong with it
    llm/answers.py      what was answered before
    llm/attempt.py      which answers a call rests on, and whether they are why it failed
    llm/embedding.py    many texts in few questions
    llm/client.py       all of it together, for one process
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from assetcore.documents import Document
from assetcore.embeddings import Vector
from assetcore.errors import AnswerError, UsageError
from assetcore.llm.attempt import Attempt, current
from assetcore.llm.client import Answer, Client
from assetcore.spending import spend
from assetcore.telemetry import span

__all__ = ["Answer", "Attempt", "Client", "calling", "embed", "failed", "generate", "generate_structured"]

T = TypeVar("T", bound=BaseModel)
Text = str | Document


@dataclass(frozen=True, slots=True)
class _Caller:
    """Who asks: `aliases` are the models that it declares, or None where nobody needs to declare any; `code` is what it consists of."""

    client: Client
    who: str
    aliases: frozenset[str] | None
    code: str


_caller: ContextVar[_Caller | None] = ContextVar("assetcore_llm_caller", default=None)


@contextmanager
def calling(client: Client, who: str = "", aliases: Sequence[str] | None = None, code: bytes = b"") -> Iterator[None]:
    """Inside, models are asked through this client, only those of `aliases`, where they are given; `code` is the digest of what asks."""
    before = _caller.get()
    _caller.set(_Caller(client, who, None if aliases is None else frozenset(aliases), code.hex()))
    try:
        yield
    finally:
        _caller.set(
            before
        )  # by value: a fixture or a cell of a notebook is left in another context than it was entered in


async def failed(attempt: Attempt, error: BaseException) -> None:
    """Have the answers that may be why a call has failed not be found again by the code that was called."""
    caller = _caller.get()
    if caller is not None and (keys := attempt.suspects(error)):
        await caller.client.refuse(keys, caller.code)


async def generate(
    instructions: Text,
    content: Text = "",
    *,
    model: str = "generator",
    temperature: float | None = None,
    max_tokens: int | None = None,
    sample: int = 0,
    seconds: float = 120,
) -> Answer:
    """What a model answers to instructions and a content, each a text or a document of text.

        answer = await llm.generate(prompt, topic)          # `prompt: Prompt = each(prompts)`, a document like any other
        return Summary(name=topic.name, text=answer.text)

    The same question of the same model is answered from what is recorded; another `sample` is another question. An answer that has come to
    its end at `max_tokens` says so (`answer.cut`). Raises GatewayError
    where the gateway cannot be reached, refuses, fails or takes longer than `seconds`, AnswerError for an answer without text.
    """
    parameters = {"temperature": temperature, "max_tokens": max_tokens}
    return await _ask(_messages(instructions, content), model, parameters, sample, seconds)


async def generate_structured(
    kind: type[T],
    instructions: Text,
    content: Text = "",
    *,
    model: str = "generator",
    temperature: float | None = None,
    max_tokens: int | None = None,
    sample: int = 0,
    seconds: float = 120,
) -> T:
    """What a model answers, as `kind`. An answer that is not one is sent back once, with what is wrong with it.

    Raises AnswerError, which has the answer, where the second one is no `kind` either; else as `generate`.
    """
    schema = {"name": kind.__name__, "schema": kind.model_json_schema()}
    parameters = {
        "temperature": temperature, "max_tokens": max_tokens,
        "response_format": {"type": "json_schema", "json_schema": schema},
    }  # fmt: skip
    messages = _messages(instructions, content)
    first = await _ask(messages, model, parameters, sample, seconds)
    try:
        return kind.model_validate_json(_json(first.text))
    except ValidationError as error:
        wrong = _problems(error)
    repair = f"That is not the JSON asked for: {wrong}. Answer with the corrected JSON and nothing else."
    messages = [*messages, {"role": "assistant", "content": first.text}, {"role": "user", "content": repair}]
    second = await _ask(messages, model, parameters, sample, seconds)
    try:
        return kind.model_validate_json(_json(second.text))
    except ValidationError as error:
        await _client(model).refuse([one.key for one in (first, second) if one.key])
        raise AnswerError(
            f"{model} ({second.model}) was asked for a {kind.__name__} twice and gave none: {_problems(error)}."
            + (" It was cut off: it may need more max_tokens." if second.cut else ""),
            answer=second.text,
            hint="Its answer is the attribute `answer` of this error, and recorded in the store. Who asks again, asks the model again.",
        ) from error


async def embed(
    texts: Sequence[Text], *, model: str = "embedder", dimensions: int | None = None, seconds: float = 120
) -> list[Vector]:
    """A vector for each text, in their order, all of one length.

    Texts are asked for together with those of other units that are made at the same time, some thousands of tokens at once. Raises
    GatewayError and AnswerError as `generate`.
    """
    caller = _called(model)
    client = caller.client
    with span("embed", "llm", texts=len(texts)) as traced:
        found = await client.embed([_text(one) for one in texts], model, dimensions, seconds, caller.code)
        paid = sum(one.tokens for one in found)
        traced.set(model=client.version(model), tokens=paid)
    if found:
        spend(tokens=paid, usd=sum(one.usd for one in found), model=client.version(model))
    if (attempt := current()) is not None:
        attempt.vectors.extend(one.key for one in found)
    return [Vector(one.vector, client.version(model)) for one in found]


async def _ask(
    messages: Sequence[Mapping[str, str]], model: str, parameters: Mapping[str, Any], sample: int, seconds: float
) -> Answer:
    given = {key: value for key, value in parameters.items() if value is not None}
    with span("generate", "llm") as traced:
        caller = _called(model)
        answer = await caller.client.ask(messages, model, given, sample, seconds, caller.code)
        paid = not answer.recorded
        traced.set(
            model=answer.model, tokens=answer.tokens if paid else 0, cached_tokens=answer.cached_tokens or None,
            usd=answer.usd if paid else 0.0, recorded=answer.recorded or None,
        )  # fmt: skip
    if not paid:
        spend(model=answer.model)
    if (attempt := current()) is not None:
        attempt.answers.append(answer)
    return answer


def _client(model: str) -> Client:
    return _called(model).client


def _called(model: str) -> _Caller:
    """Whoever calls. Raises UsageError where there is none, or where an asset does not say that it uses the model."""
    caller = _caller.get()
    if caller is None:
        raise UsageError(
            f"{model} cannot be asked here: no project is open, or the function is a sync one (def), which is called in a worker.",
            hint="Write `async def`, and let a run call it, or call it inside `async with assetcore.open_project(...)`.",
        )
    if caller.aliases is not None and model not in caller.aliases:
        raise UsageError(
            f"{caller.who} asks the model {model!r} and does not declare it, so that another model would not make it stale.",
            hint=f'Declare it: @asset(models=["{model}"])',
        )
    return caller


def _messages(instructions: Text, content: Text) -> list[dict[str, str]]:
    asked, given = _text(instructions), _text(content)
    if not given:
        return [{"role": "user", "content": asked}]
    return [{"role": "system", "content": asked}, {"role": "user", "content": given}]


def _text(given: Text) -> str:
    return given if isinstance(given, str) else given.text


def _json(answer: str) -> str:
    """The JSON of an answer: some models put it into a fence whatever they are told."""
    bare = answer.strip()
    if bare.startswith("```") and bare.endswith("```"):
        return bare.partition("\n")[2].removesuffix("```")
    return bare


def _problems(error: ValidationError) -> str:
    found = [f"{'.'.join(map(str, e['loc'])) or 'the answer'}: {e['msg']}" for e in error.errors()[:5]]
    return json.dumps("; ".join(found), ensure_ascii=False)
