"""Trials: what does changed code make of some of the units, before it is paid for all of them?

Stale units are called with what they are given now, and nothing is kept (`rehearse`): what comes out is laid beside what is current. The
units are those whose hashes come first: any, but the same each time, so that models that are asked the same answer from what is
recorded. Where all of them come out byte for byte as they are, it can be accepted that old code made what new code would.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from assetcore.assets import Source
from assetcore.errors import NothingSelectedError, SelectionError, UsageError
from assetcore.graph import Graph
from assetcore.lineage import acceptances, journal, named, read
from assetcore.lineage.acceptances import Acceptance, same_code
from assetcore.lineage.journal import Entry
from assetcore.lineage.schema import Connection
from assetcore.plan import Plan
from assetcore.project import Project
from assetcore.refs import parse_ref
from assetcore.rehearse import Rehearsed
from assetcore.snapshot import Read

__all__ = [
    "Accepted",
    "Trial",
    "about",
    "accept",
    "check_request",
    "judge_trial",
    "said_of",
    "sampled",
    "units_to_accept",
]


@dataclass(frozen=True, slots=True)
class Trial:
    """What so many stale units of an asset came out as, and what the rest would take: seconds, tokens, dollars."""

    asset: str
    units: tuple[Rehearsed, ...]
    rest: int
    seconds: float
    tokens: int
    usd: float

    @property
    def same(self) -> int:
        return sum(1 for one in self.units if one.same)

    @property
    def agrees(self) -> bool:
        """Whether there were any, and all of them came out as they are."""
        return bool(self.units) and self.same == len(self.units)

    def to_json(self) -> dict[str, Any]:
        return {
            "asset": self.asset, "sampled": len(self.units), "unchanged": self.same, "failed": sum(1 for u in self.units if u.error),
            "rest": {"units": self.rest, "seconds": self.seconds, "tokens": self.tokens, "usd": self.usd},
            "units": [one.to_json() for one in self.units],
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Accepted:
    """What was said of an asset's code: nothing, where the trial does not agree."""

    asset: str
    acceptances: tuple[Acceptance, ...]
    fresh: int
    trial: Trial | None

    def to_json(self) -> dict[str, Any]:
        return {
            "asset": self.asset, "accepted": [a.to_json() for a in self.acceptances], "fresh": self.fresh,
            "trial": self.trial.to_json() if self.trial else None,
        }  # fmt: skip


def sampled(plan: Plan, graph: Graph, count: int) -> dict[str, pl.DataFrame]:
    """So many of the stale units of each asset in a plan that have been made before, and that wait for nothing: not for what is to be made
    above them, and not for what a run has yet to take in.
    """
    found: dict[str, pl.DataFrame] = {}
    for name, judgement in plan.judgements.items():
        asset = next((a for a in plan.assets if a.asset == name and a.stale), None)
        ready = (pl.col("status") == "stale") & ~pl.col("blocked") & pl.col("materialization").is_not_null()
        if asset is not None:
            units = _known(plan, graph, name, judgement.judged.filter(ready)).sort("unit").head(count)
            found |= {name: units} if units.height else {}
    return found


def _known(plan: Plan, graph: Graph, name: str, units: pl.DataFrame) -> pl.DataFrame:
    """Those of these units that are given nothing but documents that are stored."""
    given = plan.judgements[name].wanted.given
    for index, dependency in enumerate(graph.assets[name].dependencies):
        new = plan.views[dependency.upstream.name].documents.filter(pl.col("document").is_null())
        if new.height and dependency.is_whole:
            return units.clear()
        theirs = given.filter(pl.col("parameter") == index).join(new, on="address", how="semi")
        units = units.join(theirs, on="unit", how="anti")
    return units


def judge_trial(plan: Plan, found: Read, rehearsed: Sequence[Rehearsed]) -> tuple[Trial, ...]:
    """What the units of each asset came out as, and what the rest of its stale units would take if it is like these."""
    trials: list[Trial] = []
    for asset in plan.assets:
        units = tuple(one for one in rehearsed if one.asset == asset.asset)
        if not units:
            continue
        rest = max(0, asset.stale - len(units))
        share = rest / len(units)
        seconds = rest * found.snapshot.seconds_per_unit.get(asset.asset, 0.0)
        tokens, usd = sum(u.tokens for u in units), sum(u.usd for u in units)
        trials.append(Trial(asset.asset, units, rest, round(seconds, 1), round(tokens * share), round(usd * share, 6)))
    return tuple(trials)


async def units_to_accept(project: Project, name: str, plan: Plan) -> dict[bytes, list[tuple[bytes, str]]]:
    """The units of an asset that are stale by nothing but its code, by the code that they were made with: unit and label.

    Raises NothingSelectedError where there are none.
    """
    asset = project.graph.assets.get(name)
    if asset is None or isinstance(asset, Source):
        raise NothingSelectedError(f"There is no asset {name!r} that is made by code.", hint="See: aipctl ls")
    judgement = plan.judgements.get(name)
    only = pl.col("causes").list.eval(pl.element() == "code-changed").list.all() & (pl.col("status") == "stale")
    units = judgement.judged.filter(only & pl.col("materialization").is_not_null()) if judgement is not None else None
    if units is None or not units.height:
        raise NothingSelectedError(
            f"No unit of {name} is stale by its code alone.", hint=f"See: aipctl plan {name} --why"
        )
    identifier = project.asset_ids[name]
    async with project.engine.connect() as connection:
        known = (await read.definitions(connection, [identifier]))[identifier]
        made = (await read.made_units(connection, project.environment_id, [identifier]))[identifier]
    found: dict[bytes, list[tuple[bytes, str]]] = {}
    with_what = units.join(made.select("unit", "definition"), on="unit").sort("unit")
    for unit, label, definition in with_what.select("unit", "label", "definition").iter_rows():
        found.setdefault(known[definition].components["code"].digest, []).append((unit, label))
    return found


async def accept(
    project: Project,
    name: str,
    stale: Mapping[bytes, Sequence[tuple[bytes, str]]],
    trial: Trial | None,
    why: str | None,
) -> Accepted:
    """Write down that what these versions of an asset's code made counts as made by the present one.

    With a trial that agrees, of the versions whose units were tried; with a reason instead, of all of them.
    """
    new = project.fingerprint(name).digest
    tried = {one.unit for one in trial.units} if trial is not None else set[str]()
    said: list[Acceptance] = []
    sampled: dict[bytes, list[str]] = {}
    fresh = 0
    for old, units in stale.items():
        labels = tuple(label for _, label in units if label in tried)
        sampled[old] = [unit.hex() for unit, label in units if label in tried]
        if (trial is not None and trial.agrees and labels) or why is not None:
            said.append(Acceptance(project.asset_ids[name], old, new, labels, why))
            fresh += len(units)
    if not said:
        return Accepted(name, (), 0, trial)
    async with project.engine.begin() as connection:
        kept = await acceptances.keep(connection, said)
        entries = [
            Entry(
                "accept", project.environment, name, why=one.why,
                facts={
                    "asset_id": one.asset, "old": one.old.hex(), "new": one.new.hex(), "sampled": len(one.units),
                    "units": sampled[one.old],  # by address: no name of a document stands in the open
                },
            )
            for one in kept
        ]  # fmt: skip
        await journal.append(connection, project.id, *entries)
    return Accepted(name, tuple(kept), fresh, trial)


async def about(project: Project, connection: Connection, reference: str) -> tuple[dict[str, Any], ...]:
    """What was accepted of the code that a unit was made with, where that is not the present code: said for ever."""
    try:
        ref = parse_ref(reference)
    except SelectionError:
        return ()
    if (
        ref.asset is None
        or ref.asset not in project.graph.assets
        or isinstance(project.graph.assets[ref.asset], Source)
    ):
        return ()
    identifier, new = project.asset_ids[ref.asset], project.fingerprint(ref.asset).digest
    accepted = (await acceptances.of_assets(connection, [identifier])).get(identifier, [])
    if not accepted:
        return ()
    units: pl.Series | None = None
    if ref.unit is not None:
        found = await named.by_unit(connection, project.environment_id, identifier, ref.unit)
        units = pl.Series("unit", [unit for unit, _, _ in found], pl.Binary)
    known = (await read.definitions(connection, [identifier]))[identifier]
    made = (await read.made_units(connection, project.environment_id, [identifier], units))[identifier]
    made = made.filter(pl.col("definition").is_not_null())
    codes = {known[d].components["code"].digest for d in made["definition"].unique() if "code" in known[d].components}
    others = {code for code in codes if code != new and code in same_code(new, accepted)}
    return tuple(a.to_json() for a in accepted if {a.old, a.new} & others)


async def said_of(project: Project, names: Collection[str]) -> dict[str, list[dict[str, Any]]]:
    """What was ever accepted of the code of these assets."""
    identifiers = {project.asset_ids[n]: n for n in names if n in project.asset_ids}
    async with project.engine.connect() as connection:
        accepted = await acceptances.of_assets(connection, list(identifiers))
    return {identifiers[i]: [one.to_json() for one in said] for i, said in accepted.items()}


def check_request(count: int | None, why: str | None, *, unverified: bool) -> None:
    """Raise UsageError unless it is said by what is accepted: by units that are tried, or by a reason."""
    if unverified and not (why and why.strip()):
        raise UsageError(
            "What is accepted without trying needs a reason.",
            hint='Say it: --unverified --why "only logging was added"',
        )
    if unverified == (count is not None):
        raise UsageError(
            "Code is accepted by units that are tried, or without trying by a reason.",
            hint='aipctl accept ASSET --sample 20, or: aipctl accept ASSET --unverified --why "..."',
        )
