"""Corpus: which texts? The same ones for everybody: 300 to 379 words of a vocabulary of 4,000, twelve a line, about 2 KB.

A thousand texts a folder, written long ago as most are: what was written within two seconds is read again by the next look. What happens
to them happens to one in a hundred, just before they are looked at.
"""

from __future__ import annotations

import functools
import os
import random
import string
from pathlib import Path

SEED = 42
LONG_AGO = 1_700_000_000
EVERY = 100
EDITED, DELETED = 7, 13
"""Which of every hundred."""


def create(folder: Path, count: int) -> None:
    for number in range(count):
        _write(folder, number, 0)
        os.utime(_path(folder, number), times=(LONG_AGO, LONG_AGO))


def edit(folder: Path, count: int, revision: int = 1) -> None:
    """Write one text in a hundred anew; revision 0 is the text as it was."""
    for number in range(EDITED, count, EVERY):
        _write(folder, number, revision)


def delete(folder: Path, count: int) -> None:
    for number in range(DELETED, count, EVERY):
        _path(folder, number).unlink()


def text(number: int, revision: int) -> str:
    chance = random.Random(SEED * 1_000_000_007 + number * 31 + revision * 1_000_003)
    words = chance.choices(_vocabulary(), k=300 + chance.randrange(80))
    return "".join(" ".join(words[start : start + 12]) + "\n" for start in range(0, len(words), 12))


@functools.cache
def _vocabulary() -> tuple[str, ...]:
    chance = random.Random(20240611)
    return tuple("".join(chance.choices(string.ascii_lowercase, k=chance.randint(3, 8))) for _ in range(4000))


def _path(folder: Path, number: int) -> Path:
    return folder / f"{number // 1000:03d}" / f"doc_{number:06d}.txt"


def _write(folder: Path, number: int, revision: int) -> None:
    path = _path(folder, number)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text(number, revision), encoding="utf-8")
