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

__all__ = ["Embedding", "Vector"]


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
        """A document of a vector, of the model that gave it."""
        if not len(vector):
            raise AssetcoreError(f"{cls.__name__}({name!r}) was given a vector without numbers.")
        model = fields.pop("model", None) or getattr(vector, "model", "")
        return cls(name=name, content=_swapped(array("f", vector)).tobytes(), model=model, **fields)

    @property
    def vector(self) -> list[float]:
        """The numbers. Raises AssetcoreError for content that is none."""
        numbers = array("f")
        if not self.content or len(self.content) % numbers.itemsize:
            raise AssetcoreError(
                f"{type(self).__name__} {self.name!r} holds {len(self.content)} bytes, which are no 32-bit floats."
            )
        numbers.frombytes(self.content)
        return _swapped(numbers).tolist()


def _swapped(numbers: array[float]) -> array[float]:
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers
