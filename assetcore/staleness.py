"""Staleness: must this unit be made again, and why?

A unit is fresh exactly when the recipe it would have now is the recipe it was made with. A recipe has two halves: the
*definition*, which all units of an asset share (code, version, config, models, output schema, shape of the dependencies), and
the unit's *inputs*. `judge` compares both over columns; the plan, the run and `why` all ask it, so they cannot disagree.

Truth table (DESIGN section 4): P1 P12 missing, P3 P22 P24 input-changed, P6 code-changed, P7 version-changed, P9 model-changed,
P10 object-missing and corrupt, P11 expired, P13 input-removed, P14 failed, P18 inputs-changed, P19 schema-changed; P2, P5, P8, P21,
P23 follow from what a recipe contains.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, Literal

import polars as pl

from assetcore.digest import digest
from assetcore.frames import joined, listed

__all__ = [
    "CAUSES", "JUDGED", "LOST", "MADE", "Cause", "Component", "Definition", "definition_causes", "judge",
]  # fmt: skip

Cause = Literal[
    "forced", "missing", "failed", "object-missing", "corrupt", "inputs-changed", "schema-changed", "version-changed", "code-changed",
    "environment-changed", "config-changed", "model-changed", "input-removed", "input-changed", "expired",
]  # fmt: skip
CAUSES: tuple[Cause, ...] = Cause.__args__  # type: ignore[attr-defined]  # typing keeps them there, untyped
"""Every cause, the one that is named first coming first."""

LOST: tuple[Cause, ...] = ("object-missing", "corrupt")
"""The causes of a unit whose recipe has not changed, but whose bytes are not there any more (P10)."""

COMPONENTS: Mapping[str, Cause] = {
    "shape": "inputs-changed",
    "schema": "schema-changed",
    "version": "version-changed",
    "code": "code-changed",
    "environment": "environment-changed",
    "config": "config-changed",
    "models": "model-changed",
}
"""The components of a definition, and the cause that a difference in each is."""

MADE = {
    "unit": pl.Binary, "label": pl.String, "parent": pl.String, "definition": pl.Int64, "inputs": pl.Binary,
    "materialization": pl.Int64, "failed_definition": pl.Int64, "failed_inputs": pl.Binary,
}  # fmt: skip
"""What is known of each unit: what it currently is (null where it never was made), and the recipe of its last attempt if it failed."""

JUDGED = {
    "unit": pl.Binary, "label": pl.String, "parent": pl.String, "inputs": pl.Binary, "status": pl.String,
    "causes": pl.List(pl.String), "blocked": pl.Boolean, "materialization": pl.Int64,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Component:
    """One component of a definition: its digest, and what a person can read of it."""

    digest: bytes
    detail: Any = None


@dataclass(frozen=True)
class Definition:
    """The half of a recipe that all units of an asset share."""

    components: Mapping[str, Component]

    @cached_property
    def digest(self) -> bytes:
        """32 bytes over the components. The asset's name is not among them: a renamed asset keeps what it has (P25)."""
        return digest("definition", {name: component.digest for name, component in self.components.items()})


def definition_causes(old: Definition, new: Definition) -> tuple[Cause, ...]:
    """Which components differ. A version, on either side, stands for the code: then the code says nothing.

    A component that only another release of assetcore has counts as code: what differs has a cause.
    """

    def differs(name: str) -> bool:
        before, after = old.components.get(name), new.components.get(name)
        return (before and before.digest) != (after and after.digest)

    changed = [name for name in COMPONENTS if differs(name)]
    if "version" in changed and "code" in changed:
        changed.remove("code")
    if not changed and old.digest != new.digest:
        changed.append("code")
    return tuple(COMPONENTS[name] for name in changed)


def judge(
    wanted: pl.DataFrame,
    made: pl.DataFrame,
    *,
    definition: int | None,
    definitions: Mapping[int, tuple[Cause, ...]],
    removed_inputs: pl.Series | None = None,
    damaged: pl.DataFrame | None = None,
    expired: pl.Series | None = None,
    may_return: bool = False,
    force: bool = False,
) -> pl.DataFrame:
    """The status of every unit, wanted or made, with its causes.

    `definition` is the identifier of the current definition (None: no unit was ever made with it); `definitions` gives, for every
    other identifier in `made`, the causes that it differs by. `removed_inputs` are the units some of whose members are gone, `damaged`
    (unit, cause) those whose bytes are lost: what they were made with does not matter then. `expired` are those that were made longer
    ago than they stay fresh. With `may_return`, units that are not wanted now may be wanted again when what is above has been made: they
    are pending.
    Statuses: fresh; stale (must be made again); pending (its recipe is known only when an input has been made); removed (no longer
    wanted). `blocked` marks units with an input that is itself to be made. A unit that only ever failed and is no longer wanted is
    nothing, and has no row.
    """
    known = joined(wanted, made, "unit", "full", "_made")
    # What cannot be is not asked: a step over a frame costs a tenth of a millisecond, and most assets are small.
    if made["materialization"].null_count():
        known = known.filter(_IS_WANTED | _IS_MADE)
    # A column for each of what is asked several times: an expression would be worked out anew each time.
    is_other = _IS_MADE & pl.col("definition").ne_missing(pl.lit(definition, pl.Int64))
    known = known.with_columns_seq(*_compared(may_return), is_other.alias("other"))
    causes: list[pl.Expr] = [_when(pl.lit(value=True), "forced")] if force else []
    if made["failed_inputs"].null_count() < made.height:
        known = known.with_columns(
            (
                ~_BLOCKED & ~(_IS_MADE & ~_OTHER & ~_CHANGED) & pl.col("failed_inputs").is_not_null()
                & (pl.col("failed_inputs") == pl.col("inputs")) & pl.col("failed_definition").eq_missing(pl.lit(definition, pl.Int64))
            ).alias("failed")
        )  # fmt: skip
        causes += [_when(~_IS_MADE & ~_FAILED, "missing"), _when(_FAILED, "failed")]
    else:
        causes.append(_MISSING)
    if damaged is not None and damaged.height:
        for lost in LOST:
            units = damaged.filter(pl.col("cause") == lost)["unit"]
            causes.append(_when(_IS_MADE & pl.col("unit").is_in(units.implode()), lost))
    for cause in COMPONENTS.values():
        with_cause = [identifier for identifier, found in definitions.items() if cause in found]
        if with_cause:
            causes.append(_when(_OTHER & pl.col("definition").is_in(with_cause), cause))
    if removed_inputs is not None and len(removed_inputs):
        gone = pl.col("unit").is_in(removed_inputs.implode())
        causes += [_when(_CHANGED & gone, "input-removed"), _when(_CHANGED & ~gone, "input-changed")]
    else:
        causes.append(_INPUT_CHANGED)
    if expired is not None and len(expired):
        causes.append(_when(_IS_MADE & pl.col("unit").is_in(expired.implode()), "expired"))
    judged = known.hstack([listed(known, causes).alias("causes")]).select_seq(*_judged(may_return))
    return judged.sort("parent", "label", "unit") if judged.height > 1 else judged


def _when(condition: pl.Expr, cause: Cause) -> pl.Expr:
    return pl.when(condition).then(pl.lit(cause)).otherwise(pl.lit(None, pl.String))


# What is asked of each asset alike is put together once: that takes longer than to answer it for a few units.
_IS_MADE, _IS_WANTED = pl.col("materialization").is_not_null(), pl.col("pending").is_not_null()
_BLOCKED, _OTHER, _CHANGED, _FAILED = (pl.col(name) for name in ("blocked", "other", "changed", "failed"))
_MISSING, _INPUT_CHANGED = _when(~_IS_MADE, "missing"), _when(_CHANGED, "input-changed")


@cache
def _compared(may_return: bool) -> tuple[pl.Expr, ...]:
    """Which units have an input that is itself to be made, and which have other inputs than they were made with."""
    blocked = pl.col("pending").fill_null(value=may_return)
    changed = _IS_MADE & ~blocked & pl.col("inputs").ne_missing(pl.col("inputs_made"))
    return blocked.alias("blocked"), changed.alias("changed")


@cache
def _judged(may_return: bool) -> tuple[pl.Expr, ...]:
    """What the answer tells (`JUDGED`)."""
    status = (
        pl.when(~_IS_WANTED).then(pl.lit("pending" if may_return else "removed"))
        .when(pl.col("causes").list.len() > 0).then(pl.lit("stale"))
        .when(_BLOCKED).then(pl.lit("pending"))
        .otherwise(pl.lit("fresh"))
    )  # fmt: skip
    return (
        pl.col("unit"),
        pl.coalesce("label", "label_made").alias("label"),
        pl.coalesce("parent", "parent_made").alias("parent"),
        pl.col("inputs"),
        status.alias("status"),
        pl.when(_IS_WANTED).then("causes").otherwise(pl.lit([], pl.List(pl.String))).alias("causes"),
        pl.col("blocked"),
        pl.col("materialization"),
    )
