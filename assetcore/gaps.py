"""Gaps: what does an index of vectors not have, and what is to be done about it?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from assetcore.errors import UnindexedError
from assetcore.lineage import vectors as index
from assetcore.project import Project

__all__ = ["Unfit", "behind", "left_out", "mend", "named", "several"]

NAMED = 3
"""So many documents are named where it is told what an index does not have."""


@dataclass(frozen=True, slots=True)
class Unfit:
    """A current document that no index can hold, and why."""

    address: bytes
    name: str
    problem: str


async def behind(project: Project, asset: str, *, soon: bool = False) -> list[str]:
    """What is to be known of an index that answers while another generation has documents that it does not have: a sentence, or none.

    `soon` looks at those alone that are coming in, or were gone back from, which is nearly always none: a search waits for it.
    """
    try:
        return await _behind(project, asset, soon)
    except Exception as error:
        if index.is_gone(error):  # while it was looked at: another answers by now
            return []
        raise


async def _behind(project: Project, asset: str, soon: bool) -> list[str]:
    async with project.engine.connect() as connection:
        found = await index.generations(connection, project.name, project.environment, asset)
        current = next((one for one in found if one.active), None)
        if current is None:
            reason = await several(project, asset)
            return [] if reason is None else [f"{reason.message} {reason.hint}"]
        for one in found:
            if one == current or (soon and one.completed is not None and one.synced != current.synced):
                continue
            new, _ = await index.apart(connection, one, current)
            if not new and one.completed is not None:
                continue
            lacking, names = await index.apart(connection, current, one, NAMED)
            said = f"{asset} is answered by its index of {current.model}"
            missed = f"{new:,} of its documents are in that of {one.model} alone, and are not found by meaning."
            if lacking:
                said = f"{said}, which is behind: {missed}" if new else f"{said}."
                more = f" and {lacking - len(names):,} more" if lacking > len(names) else ""
                return [
                    f"{said} That of {one.model} answers when it has all; it lacks {', '.join(names)}{more}."
                    f" Look at: aipctl plan {asset} --units"
                ]
            if new:
                return [
                    f"{said}, which somebody went back to, and which is behind: {missed}"
                    f" To have that answer: aipctl vectors rollback {asset} --to {one.id}"
                ]
    return []


async def several(project: Project, asset: str) -> UnindexedError | None:
    """Why no generation answers: the asset's documents are of several models; None where they are not."""
    async with project.engine.connect() as connection:
        found = await index.generations(connection, project.name, project.environment, asset)
        if any(one.active for one in found):
            return None
        counts = [(one, count) for one in found if (count := await index.count(connection, one))]
    if len(counts) < 2:
        return None
    shown = ", ".join(f"{n:,} of {one.model or 'no model'} with {one.dimensions:,} numbers" for one, n in counts)
    return UnindexedError(
        f"{asset} has no index that answers, because its documents are of several models: {shown}.",
        hint=f"Give each model an asset of its own, or make all with one: aipctl materialize {asset} --force",
    )


def left_out(asset: str, left: Sequence[Unfit]) -> list[str]:
    """What is to be known of documents that no index can hold."""
    if not left:
        return []
    return [
        f"{len(left)} of the documents of {asset} cannot be in its index, and are not found by meaning: {named(left)}. {mend(asset)}"
    ]


def named(left: Sequence[Unfit]) -> str:
    """Some of them, each with what is wrong with it."""
    more = f", and {len(left) - NAMED:,} more" if len(left) > NAMED else ""
    return ", ".join(f"{one.name} ({one.problem})" for one in left[:NAMED]) + more


def mend(asset: str) -> str:
    """What is to be done about them."""
    return f"Mend what makes them, and make them again: aipctl materialize {asset} --force"
