"""Promotions: which of them came about?

A promotion (and what a rebase takes over) is all or nothing, in one transaction; the manifests of its commits lie in the bucket before.
What a run wrote into a manifest it has made, and whether Postgres was still told of it matters little. What a promotion wrote nobody
has, unless all of it came about: that the journal tells, whose rows are of the same transaction, or the record of its run, which is
written right after it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

__all__ = ["RUN", "never_promoted"]

RUN = re.compile(r"[0-9a-f]{10}")
"""What identifiers of runs look like; `gc` and `forget` stand for themselves."""


def never_promoted(
    headers: Iterable[Mapping[str, Any]], records: Iterable[Mapping[str, Any]], journals: Mapping[str, Sequence[Mapping[str, Any]]]
) -> set[int]:  # fmt: skip
    """Among commits, by the headers of their manifests, the numbers of those of promotions that never came about.

    What a rebuild once took from its manifest is told by the row of that rebuild.
    """
    done = {one["run"]["id"] for one in records if "run" in one and one["run"]["status"] == "done"}
    told: set[int] = set()
    for row in (row for rows in journals.values() for row in rows):
        told.update(row["facts"].get("untold", ()) if row["what"] == "rebuild" else ())
        told.add(row["commit"] or 0)
    return {
        one["number"] for one in headers if _of_promotion(one) and one["number"] not in told and one["run"] not in done
    }


def _of_promotion(header: Mapping[str, Any]) -> bool:
    """Whether a manifest is of a promotion or a rebase: those of other runs say of which kind their asset is."""
    return header["format"] > 1 and not header["kind"] and RUN.fullmatch(header["run"]) is not None
