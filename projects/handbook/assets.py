"""The assets of the handbook. PYTHON_HOME=/other/python makes it of another Python than the one that runs this."""

from __future__ import annotations

import ast
import asyncio
import os
import sysconfig
from collections.abc import AsyncIterator
from pathlib import Path

import polars as pl
from pydantic import BaseModel

from assetcore import Document, SearchIndex, asset, collect, each, folder, source
from projects.handbook import code, prose

HOME = Path(os.environ.get("PYTHON_HOME") or sysconfig.get_path("stdlib")).expanduser()
LIBRARY = max(HOME.glob("lib/python3.*"), default=HOME)
MARKDOWN = "text/markdown"


class Topic(Document):
    """A topic of the Python reference, as help() shows it."""


class Module(Document):
    """The source of a module of the standard library."""


class Page(Document):
    title: str


class Chunk(Document):
    topic: str
    ordinal: int
    heading: str


class Definition(Document):
    kind: code.Kind
    module: str
    signature: str
    headline: str


class Mentions(Document):
    """The names of the definitions that a topic mentions."""


class Cutting(BaseModel):
    size: int = 1000


async def read_topics() -> AsyncIterator[Topic]:
    """The dictionary in pydoc_data/topics.py is read, not imported: it may be another Python's."""
    tree = ast.parse(await asyncio.to_thread((LIBRARY / "pydoc_data" / "topics.py").read_bytes))
    for name, text in ast.literal_eval(next(node.value for node in tree.body if isinstance(node, ast.Assign))).items():
        yield Topic(name=name, text=text)


topics = source("topics", Topic, read_topics)
modules = source(
    "modules",
    Module,
    folder(LIBRARY, "**/*.py", exclude=["test", "tests", "idle_test", "site-packages", "__pycache__"]),
)


@asset
async def clean(topic: Topic = each(topics)) -> Page:
    """Topics as Markdown: an edit of mere white space stops here."""
    text = prose.normalise(topic.text)
    return Page(name=topic.name, text=text, media_type=MARKDOWN, title=prose.title(text))


@asset
async def chunks(cutting: Cutting, page: Page = each(clean)) -> list[Chunk]:
    """Topics in pieces, each with the heading that it stands under, and the place where it stands."""
    found, end = [], 0
    for ordinal, (heading, text) in enumerate(prose.pieces(page.text, cutting.size)):
        cut = text.removesuffix("\n\n").encode()
        start = page.content.index(cut, end)
        end = start + len(cut)
        name = f"{page.name}-{ordinal}"
        found.append(
            Chunk.part_of(page, start, end, name=name, text=text, topic=page.name, ordinal=ordinal, heading=heading)
        )
    return found


@asset
def definitions(module: Module = each(modules)) -> list[Definition]:
    """Modules, classes and functions, signature and docstring. Parsing keeps a CPU busy, so this is `def`, not `async def`."""
    found = code.definitions(module.content, code.module_name(module.name))
    return [Definition(**definition._asdict()) for definition in found]


@asset
async def inventory(definitions: pl.LazyFrame = collect(definitions)) -> pl.DataFrame:
    """What there is, without what it says: an edit of a docstring stops here."""
    names = definitions.select("name", "kind", "module", documented=pl.col("headline") != "")
    return names.sort("name", "kind").collect()


@asset(tags=["report"])
async def coverage(inventory: pl.DataFrame = collect(inventory)) -> pl.DataFrame:
    """The share of classes and functions that are documented, by package."""
    defined = inventory.filter(pl.col("kind").is_in(["class", "function", "method"]))
    by_package = defined.group_by(pl.col("module").str.split(".").list.first().alias("package"))
    return by_package.agg(defined=pl.len(), documented=pl.col("documented").mean().round(3)).sort("package")


@asset
async def references(page: Page = each(clean), inventory: pl.DataFrame = collect(inventory)) -> Mentions:
    """Which modules, classes and functions each topic mentions."""
    names = inventory.filter(pl.col("name").is_in(prose.quoted_names(page.text)))["name"]
    return Mentions(name=page.name, data=names.to_list())


@asset
async def module_summaries(
    module: Module = each(modules, fields=["name"]),  # an edit that changes no definition stops here
    definitions: list[Definition] = collect(definitions, per=modules),
) -> Page:
    """Modules, with their docstring, their classes and their functions."""
    about, *defined = definitions
    lines = [
        f"* `{found.signature}` {found.headline}".rstrip()
        for found in defined
        if code.is_public(found.name, found.kind)
    ]
    text = "\n".join([f"# {about.text}\n", *lines])
    return Page(name=code.module_name(module.name), text=text, media_type=MARKDOWN, title=about.headline)


@asset(tags=["report"])
async def index(
    topics: list[Page] = collect(clean),
    references: list[Mentions] = collect(references),
    summaries: list[Page] = collect(module_summaries),
    coverage: pl.DataFrame = collect(coverage),
) -> list[Page]:
    """The table of contents, as Markdown for people and as JSON for programs."""
    mentioned = {mentions.name: mentions.data for mentions in references}
    data = {
        "topics": {page.name: {"title": page.title, "mentions": mentioned[page.name]} for page in topics},
        "modules": {page.name: page.title for page in summaries},
        "documented": dict(coverage.select("package", "documented").iter_rows()),
    }
    lines = ["# Topics\n", *(f"* {page.name}: {page.title}" for page in topics)]
    lines += ["\n# Modules\n", *(f"* {page.name}: {page.title}".removesuffix(": ") for page in summaries)]
    return [
        Page(name="handbook.md", text="\n".join(lines), media_type=MARKDOWN, title="Handbook"),
        Page(name="handbook.json", data=data, title="Handbook"),
    ]


@asset(tags=["search"])
async def search_topics(pages: pl.DataFrame = collect(clean)) -> SearchIndex:
    """Topics by their words; they come before definitions that answer as well."""
    return SearchIndex.build("topics", pages.select("name", "title", "text", asset=pl.lit("clean"), weight=pl.lit(1.5)))


@asset(tags=["search"])
async def search_definitions(definitions: pl.DataFrame = collect(definitions)) -> SearchIndex:
    """Definitions by their words: an index of its own, so that an edited topic does not make it again."""
    return SearchIndex.build("definitions", definitions.select("name", "text", asset=pl.lit("definitions")))
