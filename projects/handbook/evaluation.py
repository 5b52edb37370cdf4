"""Evaluation: how often is what is asked for among the first hits, and how does a share look?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence, Set

from assetcore import SearchIndex
from assetcore.search import fused, search

Vectors = Sequence[tuple[str, Sequence[float]]]


def recall(
    asked: Mapping[str, Set[str]],
    questions: Sequence[Sequence[float]],
    known: Vectors,
    index: list[SearchIndex],
    first: int,
) -> dict[str, float]:
    """The share of the texts of which a right topic is among the first, by words, by meaning and by both."""
    hits: Counter[str] = Counter()
    for (text, right), rows in zip(asked.items(), nearest([vector for _, vector in known], questions), strict=True):
        by_words = [("clean", hit.name) for hit in search(index, text, 50, snippets=False)]
        by_meaning = [("clean", known[row][0]) for row in rows]
        rankings = {"words": [by_words], "meaning": [by_meaning], "both": [by_words, by_meaning]}
        for way, ranking in rankings.items():
            hits[way] += any(name in right for (_, name), _ in fused(ranking, first))
    return {way: round(hits[way] / len(asked), 3) for way in ("words", "meaning", "both")}


def nearest(vectors: Sequence[Sequence[float]], asked: Sequence[Sequence[float]], rows: int = 50) -> list[list[int]]:
    """For each vector that is asked about, the numbers of those that are nearest to it, by cosine."""
    import numpy as np  # 0.2 s, and only where something is compared

    of, about = (np.array(one, np.float32) for one in (vectors, asked))
    of, about = (one / np.linalg.norm(one, axis=1, keepdims=True) for one in (of, about))
    return np.argsort(-(about @ of.T), axis=1, kind="stable")[:, :rows].tolist()


def bars(title: str, shares: Mapping[str, float]) -> str:
    """Shares as an SVG of bars."""
    drawn = "".join(
        f'<text x="0" y="{y + 15}">{name}</text><rect x="90" y="{y}" width="{300 * share:.0f}" height="20" fill="#4b7bb5"/>'
        f'<text x="{98 + 300 * share:.0f}" y="{y + 15}">{share:.1%}</text>'
        for y, (name, share) in zip(range(30, 30 + 30 * len(shares), 30), shares.items(), strict=True)
    )
    size = f'width="460" height="{40 + 30 * len(shares)}" font-family="sans-serif" font-size="14"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}><text x="0" y="18">{title}</text>{drawn}</svg>\n'
