"""Steps: what is done to a text? Pure functions that the plain script shares."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

PIECE = 512


def pieces(text: str) -> list[str]:
    return [text[start : start + PIECE] for start in range(0, len(text), PIECE)]


def facts(piece: str) -> dict[str, Any]:
    """What is known of a piece."""
    return {"tokens": len(piece.split()), "chars": len(piece), "digest": hashlib.sha256(piece.encode()).hexdigest()}


def summary(pieces: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A row for one text."""
    return {
        "pieces": len(pieces),
        "tokens": sum(piece["tokens"] for piece in pieces),
        "chars": sum(piece["chars"] for piece in pieces),
        "digest": hashlib.sha256("".join(piece["digest"] for piece in pieces).encode()).hexdigest(),
    }


def report(summaries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """All texts together; `summaries` are in the order of their names."""
    largest = sorted(summaries, key=lambda row: (-row["tokens"], row["name"]))[:10]
    return {
        "texts": len(summaries),
        "pieces": sum(row["pieces"] for row in summaries),
        "tokens": sum(row["tokens"] for row in summaries),
        "largest": [row["name"] for row in largest],
        "digest": hashlib.sha256("".join(row["digest"] for row in summaries).encode()).hexdigest(),
    }
