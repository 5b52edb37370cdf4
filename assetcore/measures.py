"""Measures: which of two models finds more in this corpus, with which parameters is an index quick, and with which questions a gateway?

All is asked of the documents themselves: what an index's vectors stand for is looked up, and a sentence out of each document is a
question whose answer is known; parameters are tried beside an exact search.
"""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

from assetcore import vectors
from assetcore.digest import digest
from assetcore.documents import Document
from assetcore.errors import NothingSelectedError, UsageError
from assetcore.lineage import journal, named, read
from assetcore.lineage import vectors as index
from assetcore.lineage.journal import Entry
from assetcore.lineage.schema import Connection
from assetcore.lineage.vectors import CANDIDATES, WIDEST, Generation
from assetcore.llm.embedding import TOKENS, Swept
from assetcore.project import Project
from assetcore.vectors import Trial

__all__ = ["Comparison", "Side", "Sweep", "compare", "sweep", "trial"]

SECONDS = 600
"""A slow model is measured, too."""
LETTERS = 700
"""Of a text that vectors are asked for in a sweep: those of a chunk, some 175 tokens."""
ROUNDS = 3
"""A size is tried so often, in turn with the others; its best time counts."""
AS_GOOD = 1.15
"""Of the sizes that take so much longer than the quickest at most, the smallest is the best: each question is answered sooner, a slow model
stays within the time that is given for one, and less is asked again where one fails."""


@dataclass(frozen=True, slots=True)
class Side:
    """How one of two generations did: `only` counts the questions that it answered, and the other did not."""

    generation: int
    model: str
    dimensions: int
    rows: int
    recall: float
    only: int
    p50_ms: float
    p95_ms: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two generations of an index, asked the same; `overlap` is the share of the first `k` rows that both gave, on average."""

    asset: str
    k: int
    questions: int
    overlap: float
    generations: tuple[Side, Side]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Sweep:
    """How long `texts` texts took in questions of some sizes; `best` is the size to ask in, `default` the one that is asked in."""

    asset: str
    model: str
    texts: int
    batches: tuple[Swept, ...]
    best: int
    default: int = TOKENS

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


async def compare(
    project: Project, numbers: tuple[int, int] | None = None, *, k: int = vectors.K, questions: int = 100
) -> Comparison:
    """Ask two generations of an index, by default the newest two, for documents of the corpus by a sentence out of each.

    Each is asked by its own model, about documents that both have. A question is answered where its document is among those for which
    the first `k` rows stand. Raises NothingSelectedError where there are no such two.
    """
    one, other = _two(await vectors.generations(project), numbers)
    asset, sides = one.asset, (one, other)
    async with project.engine.connect() as connection:
        both = await index.documents(connection, one, {}) & await index.documents(connection, other, {})
        asked = await _questions(project, connection, both, questions)
        rows = [await index.count(connection, side) for side in sides]
    if not asked:
        raise _nothing_to_ask(one)
    answered: list[list[bool]] = []
    seen: list[list[set[str]]] = []
    times: list[list[float]] = []
    for side in sides:
        alias = await vectors.alias_of(project, asset, side)
        embedded = await project.llm.embed_in(side.dimensions, [text for text, _ in asked], alias, SECONDS)
        right, names, took = [], [], []
        async with project.engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
            for (_, document), question in zip(asked, embedded, strict=True):
                begun = time.perf_counter()
                hits = await index.nearest(connection, side, question.vector, k, {})
                took.append(1000 * (time.perf_counter() - begun))
                names.append({hit.name for hit in hits})
                right.append(any((hit.fields["asset"], hit.fields["document"]) == document for hit in hits))
        answered.append(right)
        seen.append(names)
        times.append(sorted(took))
    common = [len(mine & theirs) / max(len(mine), len(theirs), 1) for mine, theirs in zip(*seen, strict=True)]
    told = [
        Side(
            side.id, side.model, side.dimensions, count, round(sum(mine) / len(asked), 4),
            sum(a and not b for a, b in zip(mine, theirs, strict=True)),
            round(took[len(took) // 2], 3), round(took[int(len(took) * 0.95)], 3),
        )
        for side, count, mine, theirs, took in zip(sides, rows, answered, reversed(answered), times, strict=True)
    ]  # fmt: skip
    return Comparison(asset, k, len(asked), round(sum(common) / len(common), 4), (told[0], told[1]))


async def sweep(project: Project, asset: str, tokens: Sequence[int], texts: int = 512) -> Sweep:
    """Ask for the vectors of some texts of the corpus in questions of each of these sizes, and keep in the journal how long that took.

    What Redis holds is left out, so that each is paid for.
    """
    project.check_writable()
    one = await vectors.active(project, asset)
    alias = await vectors.alias_of(project, asset, one)
    async with project.engine.connect() as connection:
        documents = await _texts(project, connection, await index.documents(connection, one, {}), texts)
    parts = (document.text[i : i + LETTERS] for _, document in documents for i in range(0, len(document.text), LETTERS))
    asked = [part for part in dict.fromkeys(parts) if part.strip()][:texts]
    if not asked:
        raise _nothing_to_ask(one)
    await project.llm.embed(asked[:1], alias, None, SECONDS)  # a gateway that has just begun reads its model first
    tried = [[await project.llm.swept(asked, alias, size, SECONDS) for size in tokens] for _ in range(ROUNDS)]
    best = [min(every, key=lambda swept: swept.seconds) for every in zip(*tried, strict=True)]
    least = min(swept.seconds for swept in best)
    winner = min(swept.tokens for swept in best if swept.seconds <= least * AS_GOOD)
    found = Sweep(asset, one.model, len(asked), tuple(best), winner)
    facts = {
        "model": one.model,
        "tokens a question": winner,
        "texts": found.texts,
        "batches": found.to_json()["batches"],
    }
    async with project.engine.begin() as connection:
        await journal.append(connection, project.id, Entry("vectors sweep", project.environment, asset, facts=facts))
    return found


async def trial(
    project: Project, asset: str, m: Sequence[int] = (8, 16, 32), ef_construction: Sequence[int] = (80, 200),
    ef_search: Sequence[int] = (20, 40, 100, 200), questions: int = 100,
) -> list[Trial]:  # fmt: skip
    """Try each combination on a copy of the index, with questions that lie between two documents of the corpus; all is journaled."""
    if bad := [(one, ef) for one, ef in product(m, ef_construction) if not (2 <= one <= 100 and 2 * one <= ef <= 1000)]:
        raise UsageError(
            f"m={bad[0][0]} and ef_construction={bad[0][1]} do not go together.",
            hint="m is 2 to 100, and ef_construction 2m to 1000.",
        )
    if unasked := [ef for ef in ef_search if not vectors.K <= ef <= CANDIDATES]:
        raise UsageError(
            f"ef_search={unasked[0]} is no number of candidates to ask an index with.",
            hint=f"It is {vectors.K} to {CANDIDATES}: {vectors.K} rows are asked for, and pgvector looks at no more.",
        )
    project.check_writable()
    one = await vectors.active(project, asset)
    if one.dimensions > WIDEST:
        raise UsageError(
            f"The vectors of {asset} have {one.dimensions:,} numbers; HNSW is built over {WIDEST:,} at most.",
            hint="Each row is looked at, which misses none: there are no parameters to try.",
        )
    names = (project.name, project.environment, asset)
    found: list[Trial] = []
    async with project.engine.connect() as connection:
        transaction = await connection.begin()  # never committed: nobody sees the indexes that are tried
        rows = await index.count(connection, one)
        if rows < vectors.K:
            raise UsageError(
                f"{asset} has {rows} vectors, which are too few to try anything.", hint=f"It takes {vectors.K}."
            )
        between = _between(await index.sample(connection, one, 2 * min(questions, rows)))
        # The score of the tenth: of documents that are equally near, either is right.
        tenth = [(await index.nearest(connection, one, v, vectors.K, {}, exact=True))[-1].score for v in between]
        if one.indexed:
            await index.forget_index(connection, one)
        for this_m, construction in product(m, ef_construction):
            started = time.perf_counter()
            await index.build_index(connection, one, this_m, construction)
            built, size = time.perf_counter() - started, await index.size(connection, one)
            for search in ef_search:
                recall, times = 0.0, []
                for vector, least in zip(between, tenth, strict=True):
                    begun = time.perf_counter()
                    hits = await index.nearest(connection, one, vector, vectors.K, {}, exact=False, ef_search=search)
                    times.append(1000 * (time.perf_counter() - begun))
                    recall += sum(hit.score >= least for hit in hits) / vectors.K
                times.sort()
                found.append(
                    Trial(
                        asset, one.model, rows, len(between), this_m, construction, search, round(recall / len(between), 4),
                        round(times[len(times) // 2], 3), round(times[int(len(times) * 0.95)], 3), round(built, 3), size,
                    )
                )  # fmt: skip
            await index.forget_index(connection, one)
        await transaction.rollback()
    facts = {"model": one.model, "rows": rows, "questions": len(between), "trials": [t.measured() for t in found]}
    async with project.engine.begin() as connection:
        await index.journal(connection, [{"project": names[0], "environment": names[1], **t.to_json()} for t in found])
        await journal.append(connection, project.id, Entry("vectors trial", project.environment, asset, facts=facts))
    return found


def _nothing_to_ask(one: Generation) -> UsageError:
    return UsageError(
        f"There is no text to ask generation {one.id} of {one.asset} for.",
        hint="Say in the fields asset= and document= what each vector stands for.",
    )


def _two(found: Sequence[Generation], numbers: tuple[int, int] | None) -> tuple[Generation, Generation]:
    """The generations of these numbers, or the newest two of one index. Raises NothingSelectedError, UsageError."""
    complete = [one for one in found if one.completed is not None]
    if numbers is None:
        for newer in complete:
            earlier = [one for one in complete if one.asset == newer.asset and one.id < newer.id]
            if earlier:
                return earlier[0], newer
        raise NothingSelectedError(
            "There are no two generations of an index to compare.",
            hint="Another model behind its alias makes another generation: aipctl vectors ls",
        )
    known = {one.id: one for one in complete}
    if unknown := [number for number in numbers if number not in known]:
        there = ", ".join(map(str, sorted(known))) or "none"
        raise NothingSelectedError(
            f"There is no complete generation {unknown[0]}; there are: {there}.", hint="See: aipctl vectors ls"
        )
    one, other = known[numbers[0]], known[numbers[1]]
    if one.asset != other.asset or one.id == other.id:
        raise UsageError(
            f"Generation {one.id} of {one.asset} is compared with {other.id} of {other.asset}.",
            hint="Name two generations of the same index.",
        )
    return one, other


async def _questions(
    project: Project, connection: Connection, documents: Collection[tuple[str, str]], count: int
) -> list[tuple[str, tuple[str, str]]]:
    """For so many of these documents a sentence out of each, in no other."""
    asked: dict[str, list[tuple[str, str]]] = {}
    for asset, one in await _texts(project, connection, documents, count):
        if (sentence := _sentence(one)) is not None:
            asked.setdefault(sentence, []).append((asset, one.name))
    return [(sentence, right[0]) for sentence, right in asked.items() if len(right) == 1]


async def _texts(
    project: Project, connection: Connection, documents: Collection[tuple[str, str]], count: int
) -> list[tuple[str, Document]]:
    """So many of these texts, always the same while they are, with their assets."""
    chosen = sorted(documents, key=lambda one: digest("chosen", *one))[:count]
    texts: list[tuple[str, Document]] = []
    for asset in sorted({asset for asset, _ in chosen} & project.asset_ids.keys()):
        names = {document for of, document in chosen if of == asset}
        found = await named.of_asset(connection, project.environment_id, project.asset_ids[asset])
        stored = await read.stored(connection, [one.id for one in found if one.name in names])
        read_back: list[Document] = await project.reader.documents(
            list(stored.values()), project.graph.assets[asset].output.document_type
        )
        texts += [(asset, one) for one in read_back if one.media_type.startswith("text/")]
    return texts


def _sentence(document: Document) -> str | None:
    """One of a text's sentences, of some length."""
    sentences = [" ".join(part.split()) for part in re.split(r"(?<=[.!?])\s+|\n\s*\n", document.text)]
    long = [one for one in sentences if 5 <= len(one.split()) <= 40] or [one for one in sentences if one]
    return long[int.from_bytes(digest("sentence", document.name)[:4]) % len(long)] if long else None


def _between(vectors: Sequence[Sequence[float]]) -> list[list[float]]:
    """The middle of each two."""
    half = len(vectors) // 2
    return [
        [(a + b) / 2 for a, b in zip(one, other, strict=True)]
        for one, other in zip(vectors[:half], vectors[half:], strict=False)
    ]
