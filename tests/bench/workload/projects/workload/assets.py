"""The assets of workload W, declared as anybody would."""

from __future__ import annotations

import polars as pl

from assetcore import Document, asset, collect, each, folder, source
from projects.workload import steps


class Text(Document):
    """About 2 KB of words."""


class Piece(Document):
    tokens: int
    chars: int
    digest: str


class Summary(Document):
    pieces: int
    tokens: int
    chars: int
    digest: str


class Report(Document):
    """All texts together."""


texts = source("texts", Text, folder("data", "**/*.txt"))


@asset
async def pieces(text: Text = each(texts)) -> list[Piece]:
    """Texts in pieces of 512 characters, each with its facts."""
    cut = steps.pieces(text.text)
    return [Piece(name=f"{text.name}-{i}", text=piece, **steps.facts(piece)) for i, piece in enumerate(cut)]


@asset
async def summaries(
    text: Text = each(texts, fields=["name"]), pieces: list[Piece] = collect(pieces, per=texts)
) -> Summary:
    """A row for each text, over its pieces."""
    row = steps.summary([piece.field_values() for piece in pieces])
    return Summary(name=text.name, data=row, **row)


@asset
async def report(summaries: pl.DataFrame = collect(summaries)) -> Report:
    """One report over all."""
    rows = summaries.select("name", "pieces", "tokens", "chars", "digest").sort("name").to_dicts()
    return Report(name="report", data=steps.report(rows))
