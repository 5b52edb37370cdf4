"""Retrieval: which documents answer a question best, by their words and by their meaning?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from assetcore.documents import Document
from assetcore.embeddings import Embedding
from assetcore.errors import AnswerError, AssetcoreError, NothingSelectedError, ServiceError, UnindexedError, UsageError
from assetcore.filters import asked
from assetcore.lineage import named, read
from assetcore.project import Project
from assetcore.search import Hit, SearchIndex, fused, search, shown
from assetcore.telemetry import get_pipeline_logger

__all__ = ["index_vectors", "search_project"]

logger = get_pipeline_logger(__name__)

DEPTH = 50
"""Hits of each way of searching that are fused."""
MORE = 4
"""So many times more rows are asked for where those that are nearest stand for too few documents."""


async def search_project(
    project: Project, text: str, limit: int, filters: Mapping[str, Any] | None = None
) -> list[Hit]:
    """Ask every search index that the project has made, by words, and every index of vectors, by meaning; fused by rank.

    `filters` are fields of the embedding documents, of which `asset` and `document` say what a hit is. Where the gateway cannot be asked,
    or does not have the model of an index any more, the words alone decide.
    """
    filters = dict(filters or {})
    words = [n for n in project.graph.assets if _is_of(project, n, SearchIndex)]
    meanings = [n for n in project.graph.assets if _is_of(project, n, Embedding)]
    if not words and not meanings:
        raise NothingSelectedError(
            f"{project.name} has nothing to search.", hint="Declare an asset that returns a SearchIndex or Embeddings."
        )
    kinds = {n: project.graph.assets[n].output.document_type for n in meanings}
    known_fields = {f for kind in kinds.values() for f in kind.field_names()} - {"model"}
    if unknown := sorted(filters.keys() - known_fields):
        raise UsageError(
            f"Nothing that {project.name} searches by meaning has a field {unknown[0]!r} to filter by.",
            hint=f"It has: {', '.join(sorted(known_fields)) or 'none, because no asset returns Embeddings'}.",
        )
    filtered = [n for n in meanings if filters.keys() <= set(kinds[n].field_names())]
    if meanings and not filtered:
        raise UsageError(
            f"Nothing that {project.name} searches by meaning has all of these fields: {', '.join(filters)}.",
            hint="Filter by fields of one class of Embedding.",
        )
    for name in filtered:
        asked(kinds[name], filters)  # before anything is asked: a value that a field cannot have is told
    indexes: list[SearchIndex] = []
    async with project.engine.connect() as connection:
        for name in words:
            found = await named.of_asset(connection, project.environment_id, project.asset_ids[name])
            stored = await read.stored(connection, [f.id for f in found])
            indexes += await project.reader.documents([stored[f.id] for f in found], SearchIndex)
    near: list[list[tuple[str, str]]] = []
    notes: list[str] = []
    silent: dict[str, AssetcoreError] = {}
    for name in filtered:
        try:
            near.append(await _near(project, name, text, limit, filters))
        except NothingSelectedError:
            continue
        except (
            AnswerError,
            ServiceError,
            UnindexedError,
            UsageError,
        ) as error:  # the filters' own were told by now: the model is gone
            silent[name] = error
        notes += await _behind(project, name)
    if not indexes and not near:
        for error in silent.values():
            raise error
        raise NothingSelectedError(
            f"{', '.join([*words, *meanings])} is not made yet.",
            hint=f"Make it: aipctl materialize '{' or '.join(f'+{n}' for n in [*words, *meanings])}'",
        )
    for note in (*notes, *(f"{name} is not asked: {error.message}" for name, error in silent.items())):
        logger.warning(note)
    by_words = search(indexes, text, DEPTH if near or filters else limit) if indexes else []
    if filters:
        from assetcore import vectors  # numpy behind it takes 0.1 s: only for projects with vectors

        allowed = await vectors.matching(project, filtered, filters)
        by_words = [hit for hit in by_words if (hit.asset, hit.name) in allowed]
    if not near:
        return by_words[:limit]
    known = {(hit.asset, hit.name): hit for hit in by_words}
    best = fused([list(known), *near], limit)
    return [
        replace(known[key], score=round(score, 4)) if key in known else shown(indexes, *key, text, score)
        for key, score in best
    ]


async def index_vectors(project: Project, names: Iterable[str]) -> list[str]:
    """Bring the indexes of these assets up to date, as far as they are of vectors. Returns what is to be known of that."""
    mine = [name for name in names if _is_of(project, name, Embedding)]
    if not mine:
        return []
    from assetcore import vectors  # numpy behind it takes 0.1 s: only for projects with vectors

    return await vectors.sync_all(project, mine)


async def _behind(project: Project, name: str) -> list[str]:
    from assetcore import gaps  # numpy behind it takes 0.1 s: only for projects with vectors

    return await gaps.behind(project, name, soon=True)


def _is_of(project: Project, name: str, kind: type[Document]) -> bool:
    output = project.graph.assets[name].output
    return output.form == "document" and issubclass(output.document_type, kind)


async def _near(
    project: Project, name: str, text: str, limit: int, filters: Mapping[str, Any]
) -> list[tuple[str, str]]:
    """What an index of vectors finds, by asset and document: as many as there are, up to the limit, however many rows stand for each."""
    from assetcore import vectors  # numpy behind it takes 0.1 s: only for projects with vectors

    question = await vectors.question(project, name, text)
    rows = max(DEPTH, limit)
    while True:
        found = await vectors.similarity_search(project, name, question, filters, rows)
        documents = [(one.fields.get("asset") or name, one.fields.get("document") or one.name) for one in found]
        if len(found) < rows or len(set(documents)) >= limit:
            return documents
        rows *= MORE
