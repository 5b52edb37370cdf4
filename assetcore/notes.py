"""Notes: what should be known beside a plan, that no judgement of a unit says?

What of the code cannot be followed, what a unit was seen to read, what does not come out the same every time, what cannot be read, and
where nothing new has come for too long.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime

from assetcore.fingerprint import HAZARDS, Note
from assetcore.lineage import damage, read, undeclared
from assetcore.lineage.schema import Connection
from assetcore.partitions import shown_duration
from assetcore.plan import Plan
from assetcore.project import Project
from assetcore.sources import Unread
from assetcore.staleness import LOST

__all__ = ["EXPIRED", "UNREAD", "VARIES", "overdue", "unnoticed", "unread", "varying"]

EXPIRED = "EXPIRED"
"""The code of a plan's note about a source to which nothing new has come for longer than its freshness."""
UNREAD = "UNREAD"
"""The code of a plan's note about a document that is there and cannot be read."""
VARIES = "VARIES"
"""The code of a plan's note about what does not come out the same every time."""
NAMED = 10
"""So many documents of a source are named."""


async def unnoticed(project: Project, connection: Connection, names: Collection[str]) -> tuple[dict[str, str], ...]:
    """What a change of would go unnoticed: what of the code of assets cannot be followed, and what their units were seen to read."""
    declared = [name for name in names if name in project.graph.functions and name not in project.graph.sources]
    found = [{"asset": name, **note._asdict()} for name in declared for note in project.fingerprint(name).notes]
    digests = {project.asset_ids[name]: project.definition(name).digest for name in declared}
    if digests:
        seen = await undeclared.seen(connection, digests)
        for name in declared:
            for one in seen.get(project.asset_ids[name], ()):
                what = f"{one.what}, which no input declares and a unit was seen to read"
                found.append({"asset": name, **Note(one.code, one.where, what, HAZARDS[one.code].settle)._asdict()})
    return tuple(found)


async def varying(project: Project, plan: Plan) -> list[Mapping[str, str]]:
    """Of what a plan makes again because its bytes are lost (P10), the assets that are known not to come out the same every time."""
    lost = {a.asset: sum(a.causes.get(cause, 0) for cause in LOST) for a in plan.assets}
    lost = {name: count for name, count in lost.items() if count}
    if not lost:
        return []
    async with project.engine.connect() as connection:
        seen = await damage.repeats(connection, [project.asset_ids[name] for name in lost])
    found: list[Mapping[str, str]] = []
    for name, count in lost.items():
        units, different = seen.get(project.asset_ids[name], (0, 0))
        if different:
            what = f"{count:,} units are made again, and may come out different"
            where = f"{different:,} of {units:,} did before, without a cause"
            settle = "What is made of them may change with them."
            found.append({"code": VARIES, "asset": name, "what": what, "where": where, "settle": settle})
    return found


def unread(project: Project, found: Mapping[str, Unread]) -> list[Mapping[str, str]]:
    """The documents of sources that cannot be read: each stays what it was."""
    return [
        {
            "code": UNREAD, "asset": source, "what": error.message.rstrip("."), "where": str(project.graph.assets[source].place),
            "settle": error.hint or "",
        }
        for source, problems in found.items()
        for _, error in problems[:NAMED]
    ]  # fmt: skip


def overdue(
    project: Project, plan: Plan, marks: Mapping[int, read.Watermark], now: datetime
) -> list[Mapping[str, str]]:
    """The sources of a plan to which nothing new has come for longer than their freshness, and in which there is nothing new now."""
    found: list[Mapping[str, str]] = []
    for one in plan.sources:
        source, mark = project.graph.assets[one.source], marks.get(project.asset_ids[one.source])
        freshness = source.options.freshness
        if freshness is None or mark is None or mark.made_at is None or now - mark.made_at < freshness or not one.idle:
            continue
        what = f"nothing new has come for {shown_duration(now - mark.made_at, units=2)}"
        where = f"its freshness is {shown_duration(freshness)}"
        settle = "Look at what delivers it."
        found.append({"code": EXPIRED, "asset": one.source, "what": what, "where": where, "settle": settle})
    return found
