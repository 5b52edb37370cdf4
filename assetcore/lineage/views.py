"""Views: which environments does the journal tell of, and what had each of them of another?

What an environment borrows is in no manifest: it is in the journal, which says of each environment that was created, rebased, promoted
or dropped what every asset of the other then was. From that and from the commits follow the loans, and which heads an environment
took over with its first commit to an asset that it had borrowed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import polars as pl

__all__ = ["LOANS", "View", "Views", "heads", "lender_of", "lenders", "views", "watermarks", "without_dropped"]

Place = tuple[str, str]
"""A project and one of its environments, by name."""
ASSET = ("project", "environment", "asset")
UNIT = (*ASSET, "unit")
LOANS = {
    "project": pl.String, "environment": pl.String, "asset": pl.Int64, "lender": pl.String, "at": pl.Int64, "since": pl.Int64,
    "until": pl.Int64, "changed": pl.Int64, "taken": pl.Boolean,
}  # fmt: skip
"""An asset of a lender, as of one of its commits, from one commit until another; `taken` where that is the borrower's own first one."""
_DROPS = {"project": pl.String, "environment": pl.String, "dropped": pl.Int64}
_EVENTS = {
    **{c: LOANS.get(c, pl.Binary) for c in UNIT},
    "order": pl.Int64,
    "rank": pl.Int8,
    "since": pl.Int64,
    "materialization": pl.Int64,
}


@dataclass(frozen=True, slots=True)
class View:
    """What an environment was created from: another, and what each asset then was there (changed, lender, commit)."""

    base: str
    pins: Mapping[int, tuple[int, str, int]]
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Views:
    """The environments that were created from others and are still there, all loans that ever were, and when environments were dropped."""

    views: Mapping[Place, View]
    loans: pl.DataFrame
    drops: pl.DataFrame

    def dropped(self, place: Place) -> list[int]:
        """With which commits an environment was dropped."""
        here = (pl.col("project") == place[0]) & (pl.col("environment") == place[1])
        return self.drops.filter(here)["dropped"].to_list()


def views(journals: Mapping[str, Sequence[Mapping[str, Any]]], commits: pl.DataFrame) -> Views:
    """What the journals of all projects tell, beside the commits (project, environment, asset, number)."""
    there: dict[Place, View] = {}
    loans: list[dict[str, Any]] = []
    standing: dict[tuple[Place, int], dict[str, Any]] = {}
    drops: list[tuple[str, str, int]] = []
    for project, rows in journals.items():
        for row in rows:
            facts, place = row["facts"], (project, row["environment"])
            if row["what"] == "env drop" and "number" in facts:
                there.pop(place, None)
                drops.append((*place, facts["number"]))
                for key in [key for key in standing if key[0] == place]:
                    standing.pop(key)["until"] = facts["number"]
            if not row["what"].startswith("env ") or "pins" not in facts:
                continue
            pins = {int(asset): (changed, lender, at) for asset, (changed, lender, at) in facts["pins"].items()}
            known = there.get(place)
            there[place] = View(facts["from"], pins, known.created_at if known else datetime.fromisoformat(row["at"]))
            if "number" not in facts:  # promoted: it goes on from there, and borrows nothing anew
                continue
            for asset in pins.keys() - set(facts.get("own", ())):
                changed, lender, at = pins[asset]
                if earlier := standing.get((place, asset)):
                    earlier["until"] = facts["number"]
                loan = {
                    "project": project, "environment": row["environment"], "asset": asset, "lender": lender, "at": at,
                    "since": facts["number"], "until": None, "changed": changed, "taken": False,
                }  # fmt: skip
                loans.append(loan)
                standing[place, asset] = loan
    told = pl.DataFrame(loans, LOANS)
    return Views(there, _taken(told, commits), pl.DataFrame(drops, _DROPS, orient="row"))


def _taken(loans: pl.DataFrame, commits: pl.DataFrame) -> pl.DataFrame:
    """Each loan, until the first commit of the environment to the asset, if that was before it ended otherwise."""
    if not loans.height:
        return loans
    own = commits.select(*ASSET, pl.col("number").alias("own"))
    first = loans.select(*ASSET, "since", "until").join(own, on=ASSET)
    first = first.filter(pl.col("own") > pl.col("since"), pl.col("until").is_null() | (pl.col("own") < pl.col("until")))
    first = first.group_by(*ASSET, "since").agg(pl.col("own").min())
    joined = loans.join(first, on=[*ASSET, "since"], how="left", maintain_order="left")
    return joined.with_columns(until=pl.coalesce("own", "until"), taken=pl.col("own").is_not_null()).select(list(LOANS))


def without_dropped(rows: pl.DataFrame, drops: pl.DataFrame, number: str) -> pl.DataFrame:
    """The rows whose commit came after their environment was last dropped."""
    if not drops.height:
        return rows
    last = drops.group_by("project", "environment").agg(pl.col("dropped").max())
    joined = rows.join(last, on=["project", "environment"], how="left", maintain_order="left")
    return joined.filter(pl.col("dropped").is_null() | (pl.col(number) > pl.col("dropped"))).drop("dropped")


def heads(rows: pl.DataFrame, told: Views) -> pl.DataFrame:
    """Which materialization each unit was, from one commit until another, in every environment: its own, and those it took over."""
    became = pl.when(pl.col("event") != "removed").then("materialization").alias("materialization")
    own = rows.filter(pl.col("event").is_in(["made", "reused", "removed"])).select(
        *UNIT,
        pl.col("commit").alias("order"),
        pl.lit(1, pl.Int8).alias("rank"),
        pl.col("commit").alias("since"),
        became,
    )
    events = _with_drops(own, told.drops)
    taken = told.loans.filter("taken")
    for since in taken["since"].unique().sort():  # what was lent may itself have been taken over, at an earlier commit
        lent = _lent(_heads(events), taken.filter(pl.col("since") == since), told.drops)
        inherited = lent.select(
            *UNIT, pl.col("until_own").alias("order"), pl.lit(0, pl.Int8).alias("rank"), "since", "materialization"
        )
        events = _with_drops(pl.concat([events.filter(pl.col("rank") < 2), inherited]), told.drops)
    return _heads(events)


def lenders(heads: pl.DataFrame, told: Views) -> pl.DataFrame:
    """The heads that stand for what is borrowed now, as rows of the borrower."""
    return _lent(heads, told.loans.filter(pl.col("until").is_null()), told.drops).select(*UNIT, "materialization")


def _lent(heads: pl.DataFrame, loans: pl.DataFrame, drops: pl.DataFrame) -> pl.DataFrame:
    """The heads of lenders at the commit of each loan, as rows of the borrower; `until_own` is the commit that took them over.

    Of a lender that was dropped after that, what it was until then: created again, it takes over what is older.
    """
    wanted = loans.select(
        "project", "asset", pl.col("lender").alias("environment"), pl.col("environment").alias("borrower"), "at",
        pl.col("until").alias("until_own"),
    )  # fmt: skip
    later = wanted.select("project", "environment", "at").unique().join(drops, on=["project", "environment"])
    ends = (
        later.filter(pl.col("dropped") > pl.col("at"))
        .group_by("project", "environment", "at")
        .agg(pl.col("dropped").min())
    )
    found = heads.join(wanted.join(ends, on=["project", "environment", "at"], how="left"), on=ASSET).filter(
        pl.col("since") <= pl.col("at"),
        pl.col("until").is_null() | (pl.col("until") > pl.col("at")),
        pl.col("dropped").is_null() | (pl.col("until") <= pl.col("dropped")),
    )
    return found.with_columns(environment="borrower")


def _heads(events: pl.DataFrame) -> pl.DataFrame:
    ordered = events.sort(*UNIT, "order", "rank").with_columns(until=pl.col("order").shift(-1).over(UNIT))
    return ordered.filter(pl.col("materialization").is_not_null()).select(*UNIT, "materialization", "since", "until")


def _with_drops(events: pl.DataFrame, drops: pl.DataFrame) -> pl.DataFrame:
    """The events, and for each unit of an environment that was dropped one that ends what it was."""
    if not drops.height:
        return events
    ends = events.join(drops, on=["project", "environment"]).filter(pl.col("order") < pl.col("dropped"))
    ends = ends.select(
        *UNIT, pl.col("dropped").alias("order"), pl.lit(2, pl.Int8).alias("rank"), pl.col("dropped").alias("since"),
        pl.lit(None, pl.Int64).alias("materialization"),
    ).unique()  # fmt: skip
    return pl.concat([events, ends])


def watermarks(commits: pl.DataFrame, heads: pl.DataFrame, made: pl.DataFrame, told: Views) -> pl.DataFrame:
    """When each asset last changed in each environment, and how much there is of it: what is borrowed is as it was when it was lent."""
    counts = made.select("materialization", documents=pl.col("documents").list.len())
    current = pl.concat([
        heads.filter(pl.col("until").is_null()).select(*UNIT, "materialization"), lenders(heads, told)
    ])  # fmt: skip
    units = (
        current.join(counts, on="materialization")
        .group_by(ASSET)
        .agg(units=pl.len(), documents=pl.col("documents").sum())
    )
    own = without_dropped(commits, told.drops, "number").select(
        *ASSET, pl.when("changes").then("number").otherwise(0).alias("changed"), pl.col("number").alias("last"), "at"
    )
    living = without_dropped(told.loans, told.drops, "since")
    lent = living.select(*ASSET, "changed", pl.col("at").alias("last"), "lender").join(
        commits.select("project", "asset", pl.col("environment").alias("lender"), pl.col("number").alias("last"), "at"),
        on=["project", "asset", "lender", "last"], how="left",
    ).select(own.columns)  # fmt: skip
    marks = pl.concat([own, lent]).group_by(ASSET).agg(pl.col("changed", "last", "at").max())
    return marks.join(units, on=ASSET, how="left").with_columns(pl.col("units", "documents").fill_null(0))


def lender_of(collected: pl.DataFrame, loans: pl.DataFrame, number: pl.Expr) -> pl.DataFrame:
    """What was collected, in the environment that held it when a commit (`number`) was made: the lender, where it was borrowed."""
    if not loans.height:
        return collected
    numbered = collected.with_row_index("_row")
    lent = numbered.join(loans.select(*ASSET, "lender", "since", "until"), on=ASSET).filter(
        pl.col("since") < number, pl.col("until").is_null() | (pl.col("until") > number)
    )
    joined = numbered.join(lent.select("_row", "lender"), on="_row", how="left", maintain_order="left")
    return joined.with_columns(environment=pl.coalesce("lender", "environment")).select(collected.columns)
