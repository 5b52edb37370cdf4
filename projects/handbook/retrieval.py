"""Retrieval: topics by meaning and in short, with models behind the gateway; and how often what is asked for is found."""

from __future__ import annotations

import asyncio
from pathlib import Path

import polars as pl

from assetcore import Document, SearchIndex, asset, collect, each, folder, llm, source
from assetcore.embeddings import Embedding
from projects.handbook import evaluation
from projects.handbook.assets import MARKDOWN, Chunk, Page, chunks, clean, search_topics

FOUND = 10
"""How many hits somebody looks at."""


class ChunkVector(Embedding):
    topic: str


class Prompt(Document):
    """What a model is told."""


class Report(Document):
    """How well the topics are found."""


prompts = source("prompts", Prompt, folder(Path(__file__).parent / "prompts", "*.md"))


@asset(group="retrieval", models=["embedder"], concurrency=256)
async def vectors(chunk: Chunk = each(chunks)) -> ChunkVector:
    """Chunks by meaning. So many are asked for at once that a hundred are one question to the gateway."""
    [vector] = await llm.embed([f"{chunk.heading}\n\n{chunk.text}"])
    return ChunkVector.of(chunk.name, vector, asset="clean", document=chunk.topic, topic=chunk.topic)


@asset(group="retrieval", models=["generator"])
async def summaries(page: Page = each(clean), prompts: list[Prompt] = collect(prompts)) -> Page:
    """Topics in short. An edit of the prompt makes all of them again, and nothing else."""
    answer = await llm.generate(prompts[0], page)
    return Page(name=page.name, text=answer.text, media_type=MARKDOWN, title=page.title)


@asset(group="retrieval", tags=["report"], models=["embedder"])
async def recall(
    pages: list[Page] = collect(clean),
    chunks: pl.DataFrame = collect(chunks),
    vectors: list[ChunkVector] = collect(vectors),
    index: list[SearchIndex] = collect(search_topics),
) -> list[Report]:
    """How often the topic of a title, or of an index term (the headings inside it), is among the first ten, and a chart of that."""
    asked = {page.title: {page.name} for page in pages}
    for heading, topic in chunks.select("heading", "topic").filter(pl.col("heading") != "").iter_rows():
        asked.setdefault(heading, set()).add(topic)
    questions = await llm.embed(list(asked))
    known = [(vector.topic, vector.vector) for vector in vectors]
    shares = await asyncio.to_thread(evaluation.recall, asked, questions, known, index, FOUND)
    chart = evaluation.bars(f"Found among the first {FOUND}, of {len(asked)} questions", shares)
    return [
        Report(name="recall.json", data={"questions": len(asked), "recall_at_10": shares}),
        Report(name="recall.svg", text=chart, media_type="image/svg+xml"),
    ]


@asset(group="retrieval", tags=["report"])
async def handbook(summaries: list[Page] = collect(summaries), recall: list[Report] = collect(recall)) -> Page:
    """All topics in short, in one file."""
    found = recall[0].data
    lines = [f"## {page.title}\n\n{page.text}\n\nSee: `aipctl show 'clean[{page.name}]'`\n" for page in summaries]
    told = ", ".join(f"{share:.0%} by {way}" for way, share in found["recall_at_10"].items())
    text = "\n".join(
        ["# Handbook\n", *lines, f"\nOf {found['questions']} questions the topic is among the first ten: {told}.\n"]
    )
    return Page(name="handbook.md", text=text, media_type=MARKDOWN, title="Handbook")
