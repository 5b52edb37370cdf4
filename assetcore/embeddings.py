"""Embeddings: what is a text's vector, as a document?

An asset that returns `Embedding` documents is searched by meaning: its documents in the store are the truth, an index in Postgres is made
of them. Subclass it to say what it is filtered by:

    class ChunkVector(Embedding):
        topic: str

    @asset(models=["embedder"], concurrency=256)
    async def vectors(chunk: Chunk = each(chunks)) -> ChunkVector:
        [vector] = await llm.embed([chunk.text])
        return ChunkVector.of(chunk.name, vector, asset="clean", document=chunk.topic, topic=chunk.topic)
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Sequence
from typing import Any, ClassVar, Self

from assetcore.documents import Document
from assetcore.errors import AssetcoreError

__all__ = ["FIT", "Embedding", "Vector", "packed", "unfit"]

LONGEST = 16_000
LARGEST = 65_504
"""What an index can hold: its numbers have 16 bits (pgvector's `halfvec`)."""
FIT = f"An index holds 1 to {LONGEST:,} numbers of at most {LARGEST:,}."
_SMALL = bytes(byte for byte in range(256) if byte & 0x7F < 0x47)
"""The last bytes of numbers below 32,768, whatever their sign: nearly all that there are, found at once."""


class Vector(list[float]):
    """Numbers, and the model that gave them."""

    def __init__(self, numbers: Sequence[float], model: str) -> None:
        super().__init__(numbers)
        self.model = model


class Embedding(Document):
    """A vector: its content is 32-bit floats, little-endian. `asset` and `document` name what a hit stands for."""

    fixed_media_type: ClassVar[str | None] = "application/vnd.assetcore.vector"
    model: str = ""
    asset: str = ""
    document: str = ""

    @classmethod
    def of(cls, name: str, vector: Sequence[float], **fields: Any) -> Self:
        """A document of a vector, of the model that gave it. Raises AssetcoreError for one that no index can hold: NaN, for instance."""
        content = packed(vector)
        if problem := unfit(content):
            raise AssetcoreError(f"{cls.__name__}({name!r}) was given a vector that {problem}.", hint=FIT)
        model = fields.pop("model", None) or getattr(vector, "model", "")
        return cls(name=name, content=content, model=model, **fields)

    @property
    def vector(self) -> list[float]:
        """The numbers. Raises AssetcoreError for content that is none."""
        if not self.content or len(self.content) % 4:
            raise AssetcoreError(
                f"{type(self).__name__} {self.name!r} holds {len(self.content)} bytes, which are no 32-bit floats."
            )
        return _numbers(self.content).tolist()


def packed(vector: Sequence[float]) -> bytes:
    """A vector as an embedding's content."""
    return _swapped(array("f", vector)).tobytes()


def unfit(content: bytes) -> str | None:
    """Why no index can hold the vector that is this content; None where one can."""
    count, rest = divmod(len(content), 4)
    if rest:
        return f"has {len(content):,} bytes, which are no 32-bit floats"
    if not 1 <= count <= LONGEST:
        return f"has {count:,} numbers" if count else "has no numbers"
    if not content[3::4].translate(None, _SMALL):
        return None
    return next((f"has {one:g} in it" for one in _numbers(content) if not abs(one) <= LARGEST), None)


def _numbers(content: bytes) -> array[float]:
    numbers = array("f")
    numbers.frombytes(content)
    return _swapped(numbers)


def _swapped(numbers: array[float]) -> array[float]:
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers
