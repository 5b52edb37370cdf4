"""Asking: what Postgres copies out is taken in as it is."""

from __future__ import annotations

import random

import polars as pl

from assetcore.lineage.asking import PART_BYTES, parsed

PIECES = ["a", '"', ",", "\n", "\r", "\\", "é", "🙂", " ", "\ufeff", "x" * 50]


def as_postgres(value: object) -> str:
    """CSV as COPY writes it."""
    if value is None:
        return ""
    text = {True: "t", False: "f"}[value] if isinstance(value, bool) else str(value)
    text = f"\\x{value.hex()}" if isinstance(value, bytes) else text
    hurts = not text or text == "\\." or any(c in text for c in '",\n\r')
    return '"' + text.replace('"', '""') + '"' if hurts else text


def test_a_part_may_be_as_large_as_it_likes() -> None:
    """Lines and quotes within texts are theirs, also where polars shares a part out among its threads."""
    rng = random.Random(7)
    rows: list[tuple[str | None, int, bytes | None, bool | None, str]] = []
    lines: list[str] = []
    size = 0
    while size < 3 * PART_BYTES:
        text, other = ("".join(rng.choices(PIECES, k=rng.randrange(30))) for _ in range(2))
        row = (
            text if rng.random() < 0.9 else None,
            len(rows),
            rng.randbytes(8),
            rng.choice([True, False, None]),
            other,
        )
        rows.append(row)
        lines.append(",".join(map(as_postgres, row)) + "\n")
        size += len(lines[-1].encode())
    schema = {"text": pl.String, "number": pl.Int64, "bytes": pl.Binary, "flag": pl.Boolean, "other": pl.String}
    assert parsed("".join(lines).encode(), schema).equals(pl.DataFrame(rows, schema, orient="row"))
