"""Search: which documents answer these words?

A search index is a document like any other: an asset of a project returns `SearchIndex.build(...)`, it is stored, compared and
traced as all documents are, and `aipctl search TEXT` asks every index that the project has. The same entries give the same bytes.

Ranking is BM25 over three fields, name, title and text (Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and
Beyond", 2009, section 3.5: BM25F). An index keeps what depends on its own entries only, the saturated term frequencies; how rare a
word is, is counted over all the indexes that are asked together. A project may therefore keep one index for each of its assets, so
that an edit rebuilds one of them, and their scores remain comparable.

The content is a ZIP archive of two Parquet tables, `entries` and `postings`. Nothing in it is unpickled.
"""

from __future__ import annotations

import io
import math
import re
import unicodedata
import zipfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, ClassVar, Self

import polars as pl

from assetcore.documents import Document
from assetcore.errors import AssetcoreError, UsageError

__all__ = ["Hit", "SearchIndex", "fused", "search", "shown", "terms"]

BOOSTS = {"name": 2.0, "title": 3.0, "text": 1.0}
SATURATION = 1.2
"""BM25's k1: how soon another occurrence of a word stops counting."""
LENGTH_NORM = 0.75
"""BM25's b: how much a long field is discounted."""
FUSION = 60
"""How little the first ranks count more than the next: the usual constant of reciprocal rank fusion."""
STORED_TEXT = 20_000
"""Characters of an entry's text that are kept to take snippets from; all of it is searched."""
SNIPPET = 160
"""Characters of a snippet, about."""

WORD = re.compile(r"\w+")
PART = re.compile(r"[^\W\d_]+|\d+")
CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
UNSPACED = re.compile(r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]{2,}")
"""Scripts that put no space between words; two neighbouring characters serve as a word."""
VOWELS = frozenset("aeiouy")


@dataclass(frozen=True, slots=True)
class Hit:
    """A document that answers: its name, the asset it belongs to, how well it answers, and the passage that does."""

    name: str
    asset: str
    score: float
    title: str
    snippet: str


class SearchIndex(Document):
    """Which documents hold which words: made by `SearchIndex.build`, asked by `search`."""

    fixed_media_type: ClassVar[str | None] = "application/zip"
    entries: int

    @classmethod
    def build(cls, name: str, entries: pl.DataFrame | pl.LazyFrame) -> Self:
        """An index over a frame with a row for each document that can be found, in any order.

        name      the document's name, searched
        text      searched, and the source of the snippets
        title     optional, searched; a word in it counts three times a word in the text
        asset     optional, the asset that the document belongs to, so that a hit can be looked at with `aipctl show`
        weight    optional, a factor for the score; 1.0 by default

        Raises AssetcoreError for a frame without name or text.
        """
        table = _complete(name, entries.lazy().collect())
        shown = table.with_columns(pl.col("text").str.slice(0, STORED_TEXT))
        return cls(name=name, content=_archive({"entries": shown, "postings": _postings(table)}), entries=table.height)

    @cached_property
    def tables(self) -> Mapping[str, pl.DataFrame]:
        """`entries` (name, text, title, asset, weight) and `postings` (term, entries, frequencies)."""
        with zipfile.ZipFile(io.BytesIO(self.content)) as archive:
            return {table: pl.read_parquet(archive.read(f"{table}.parquet")) for table in ("entries", "postings")}


def search(
    indexes: SearchIndex | Sequence[SearchIndex], text: str, limit: int = 10, *, snippets: bool = True
) -> list[Hit]:
    """The documents that answer `text` best, out of all the indexes together, the best first.

    Without `snippets` their passages are left out, which take most of the time. Raises UsageError for a text without words.
    """
    asked = [indexes] if isinstance(indexes, SearchIndex) else list(indexes)
    wanted = {term for word in WORD.findall(text) for term in terms(word)}
    if not wanted:
        raise UsageError(f"The search text {text!r} has no words.", hint="aipctl search 'context manager'")
    found = [index.tables["postings"].filter(pl.col("term").is_in(sorted(wanted))) for index in asked]
    rarity = _rarity(found, sum(index.entries for index in asked))
    best = [
        (score, row)
        for index, postings in zip(asked, found, strict=True)
        for score, row in _best(index.tables["entries"], postings, rarity, limit)
    ]
    best.sort(key=lambda scored: (-scored[0], scored[1]["asset"], scored[1]["name"]))
    return [
        Hit(row["name"], row["asset"], round(score, 3), row["title"], _snippet(row["text"], wanted) if snippets else "")
        for score, row in best[: max(limit, 0)]
    ]


def fused(rankings: Iterable[Sequence[tuple[str, str]]], limit: int) -> list[tuple[tuple[str, str], float]]:
    """Several rankings of (asset, name) as one, with scores: reciprocal rank fusion (Cormack, Clarke and Buettcher, 2009)."""
    scores: dict[tuple[str, str], float] = {}
    for ranking in rankings:
        for rank, key in enumerate(dict.fromkeys(ranking), 1):
            scores[key] = scores.get(key, 0.0) + 1 / (FUSION + rank)
    return sorted(scores.items(), key=lambda scored: (-scored[1], scored[0]))[: max(limit, 0)]


def shown(indexes: Sequence[SearchIndex], asset: str, name: str, text: str, score: float) -> Hit:
    """A document as a hit, with what the indexes know of it."""
    wanted = {term for word in WORD.findall(text) for term in terms(word)}
    for index in indexes:
        found = index.tables["entries"].filter(pl.col("asset") == asset, pl.col("name") == name)
        if found.height:
            row = found.row(0, named=True)
            return Hit(name, asset, round(score, 4), row["title"], _snippet(row["text"], wanted))
    return Hit(name, asset, round(score, 4), "", "")


@lru_cache(maxsize=100_000)
def terms(word: str) -> tuple[str, ...]:
    """What a word is found under: `getLines` under getlin, get and lin; `Managers` and `manager` under manager.

    English endings are cut, so that singular and plural, `slice` and `slicing` meet. Accents and case do not count.
    """
    if unspaced := UNSPACED.findall(word):
        return tuple(sorted({run[i : i + 2] for run in unspaced for i in range(len(run) - 1)}))
    if not word.isascii():
        word = "".join(c for c in unicodedata.normalize("NFKD", word) if not unicodedata.combining(c))
    parts = [part for run in PART.findall(word) for part in CAMEL.split(run)]
    return tuple(sorted({_stem(part.casefold()) for part in (*parts, word)}))


def _complete(name: str, entries: pl.DataFrame) -> pl.DataFrame:
    missing = [column for column in ("name", "text") if column not in entries.columns]
    if missing:
        raise AssetcoreError(
            f"The search index {name!r} was given entries without a column {missing[0]!r}: {', '.join(entries.columns) or 'none'}.",
            hint='Select what it needs: pages.select("name", "text", title="heading").',
        )
    absent = {"title": pl.lit(""), "asset": pl.lit(""), "weight": pl.lit(1.0)}
    complete = entries.with_columns(
        **{column: value for column, value in absent.items() if column not in entries.columns}
    )
    words = pl.col("name", "text", "title", "asset").cast(pl.String).fill_null("")
    return complete.select(words, pl.col("weight").cast(pl.Float64)).sort("asset", "name", "title", "text", "weight")


def _postings(table: pl.DataFrame) -> pl.DataFrame:
    """For each term, in order, the entries that hold it (row numbers, ascending) and its saturated frequency in each."""
    numbered = table.with_row_index("entry")
    words = pl.concat(
        numbered.select("entry", field=pl.lit(field), word=pl.col(field).str.extract_all(WORD.pattern))
        for field in BOOSTS
    )
    words = words.explode("word").drop_nulls("word").group_by("entry", "field", "word").len("count")
    vocabulary = words["word"].unique().to_list()
    under = pl.DataFrame(
        {"word": vocabulary, "term": [list(terms(word)) for word in vocabulary]},
        schema={"word": pl.String, "term": pl.List(pl.String)},
    ).explode("term")
    counts = words.join(under, on="word").group_by("entry", "field", "term").agg(pl.col("count").sum())
    lengths = words.group_by("entry", "field").agg(length=pl.col("count").sum())
    means = lengths.group_by("field").agg(mean=pl.col("length").sum() / pl.len())
    boosts = pl.DataFrame({"field": list(BOOSTS), "boost": list(BOOSTS.values())})
    relative_length = 1 - LENGTH_NORM + LENGTH_NORM * pl.col("length") / pl.col("mean")
    frequency = pl.col("frequency")
    return (
        counts.join(lengths, on=["entry", "field"])
        .join(means, on="field")
        .join(boosts, on="field")
        .sort("term", "entry", "field")  # floats are added in one order, always: the bytes must not depend on threads
        .group_by("term", "entry", maintain_order=True)
        .agg(frequency=(pl.col("boost") * pl.col("count") / relative_length).sum())
        .with_columns(frequency=(frequency * (SATURATION + 1) / (frequency + SATURATION)).cast(pl.Float32))
        .group_by("term", maintain_order=True)
        .agg(entries=pl.col("entry"), frequencies=frequency)
    )


def _rarity(found: Iterable[pl.DataFrame], entries: int) -> dict[str, float]:
    """The inverse document frequency of each term over all the indexes: ln(1 + (N - n + 0.5) / (n + 0.5))."""
    holding: Counter[str] = Counter()
    for postings in found:
        holding.update(dict(postings.select("term", pl.col("entries").list.len()).iter_rows()))
    return {term: math.log(1 + (entries - n + 0.5) / (n + 0.5)) for term, n in holding.items()}


def _best(
    entries: pl.DataFrame, postings: pl.DataFrame, rarity: Mapping[str, float], limit: int
) -> list[tuple[float, dict[str, Any]]]:
    import numpy as np  # 0.1 s, where there is a question; a project that only builds an index does without

    scores = np.zeros(entries.height)
    for term, rows, frequencies in postings.iter_rows():
        scores[rows] += rarity[term] * np.asarray(frequencies)
    scores *= entries["weight"].to_numpy()
    order = np.argsort(-scores, kind="stable")[: max(limit, 0)]
    return [(float(scores[row]), entries.row(int(row), named=True)) for row in order if scores[row] > 0]


def _snippet(text: str, wanted: set[str]) -> str:
    """A passage of about SNIPPET characters that holds the most of the wanted terms, on one line."""
    flat = " ".join(text.split())
    places = [
        (found.start(), held) for found in WORD.finditer(flat) if (held := wanted.intersection(terms(found.group())))
    ]
    best = max(places, key=lambda place: (_held(places, place[0]), -place[0]), default=(0, set()))[0]
    begin = flat.rfind(" ", 0, best - SNIPPET // 4) + 1 if best > SNIPPET // 4 else 0
    end = max(flat.rfind(" ", begin, begin + SNIPPET), best) if len(flat) > begin + SNIPPET else len(flat)
    return ("… " if begin else "") + flat[begin:end] + (" …" if end < len(flat) else "")


def _held(places: Sequence[tuple[int, set[str]]], start: int) -> int:
    """How many different terms stand within half a snippet from `start`."""
    return len(set().union(*(held for place, held in places if start <= place < start + SNIPPET // 2)))


def _stem(word: str) -> str:
    """An English word without plural, -ing, -ed and final -e, as far as a vowel remains: `slicings` and `slice` are `slic`."""
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        word = word[:-3] + "y" if word.endswith("ies") and len(word) > 4 else word[:-1]
    for ending in ("ing", "ed"):
        rest = word.removesuffix(ending)
        if rest != word and len(rest) >= 3 and not VOWELS.isdisjoint(rest):
            word = rest[:-1] if rest[-1] == rest[-2] and rest[-1] not in "lsz" else rest
            break
    return word[:-1] if len(word) > 3 and word.endswith("e") else word


def _archive(tables: Mapping[str, pl.DataFrame]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, table in tables.items():
            parquet = io.BytesIO()
            table.write_parquet(parquet, compression="zstd", statistics=False)
            archive.writestr(
                zipfile.ZipInfo(f"{name}.parquet"), parquet.getvalue()
            )  # dated 1980: the same bytes on every day
    return buffer.getvalue()
