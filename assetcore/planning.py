"""Planning: what would be made as things are now, and can it be?

A plan is decided in `plan`, without reading anything; here it is given what lineage and the sources say, told with what should be known
beside it (`notes`), and refused where it cannot be run.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from assetcore import environments, grammar, selection
from assetcore.checks import CheckReport
from assetcore.costs import Estimate, priced
from assetcore.errors import NothingSelectedError, SelectionError, SettingsError
from assetcore.graph import Graph
from assetcore.judgement import Choice
from assetcore.lineage import checks as checked
from assetcore.lineage import commit as lineage
from assetcore.lineage import read
from assetcore.lineage.manifest import NAME as MANIFEST
from assetcore.notes import EXPIRED, VARIES, overdue, unnoticed, unread, varying
from assetcore.plan import AssetPlan, Plan, Snapshot, make_plan, with_above
from assetcore.project import Project
from assetcore.refs import suggestion
from assetcore.results import Event, Say
from assetcore.snapshot import Read, now, settled_with, take
from assetcore.staleness import CAUSES
from assetcore.suppose import parse_suppositions
from assetcore.telemetry import get_pipeline_logger

__all__ = [
    "changed_files",
    "check",
    "check_models",
    "check_pools",
    "check_words",
    "choose",
    "has_moved",
    "judged",
    "note_settled",
    "plan_for",
    "refuse_absent",
    "widened",
]

logger = get_pipeline_logger(__name__)


STATUSES = ("fresh", "stale", "pending", "removed")
"""What a selection can ask for as the status of an asset's units."""
NEAR = 5000
"""Among so many units of an asset the one is looked for that was meant."""


async def choose(project: Project, select: str | None, *, force: bool = False) -> Choice:
    """What a selection selects; plans the whole graph first when it asks for what only a plan knows."""
    if select is None:
        return Choice(frozenset(project.graph.assets), force=force)
    parsed = grammar.parse(select)
    check_words(parsed)
    facts: dict[str, Any] = {}
    if selection.needs(parsed) & {"status", "cause"}:
        plan, _ = await plan_for(project, await choose(project, None), rehash=False)
        facts["statuses"] = {a.asset: {s for s in STATUSES if getattr(a, s)} for a in plan.assets}
        facts["causes"] = {a.asset: {c for d in a.details for c in d.causes} for a in plan.assets}
    if "changed" in selection.needs(parsed):
        known = {r: await environments.changed_since(project, r) for r in selection.references(parsed)}
        facts["changed"] = lambda r: _changed_since(project.graph, project.root, r) if known[r] is None else known[r]
    selected = selection.select(parsed, selection.catalogue(project.graph, **facts))
    needed = {name for name, rule in selected.units.items() if rule == selection.Needed()}
    units = {name: rule for name, rule in selected.units.items() if name not in needed}
    choice = Choice(frozenset(selected.assets) - needed, units, force)
    return with_above(choice, needed, project.graph, await now(project, selected.assets)) if needed else choice


def check_words(parsed: grammar.Selection) -> None:
    """Refuse a status or a cause that there is none of: nothing could ever be it. Raises SelectionError."""
    words = {"status": STATUSES, "cause": CAUSES}
    for _, part in grammar.parts(parsed):
        if not isinstance(part, grammar.Field):
            continue
        known = words.get(part.field)
        if known is not None and not any(map(part.pattern.matches, known)):
            near = suggestion(part.pattern.text, known)
            there = f"There are: {', '.join(known)}."
            raise SelectionError(f"{part}: there is no such {part.field}.", hint=f"{near} {there}" if near else there)


async def plan_for(
    project: Project,
    choice: Choice,
    *,
    rehash: bool,
    entire: bool = False,
    details: bool = True,
    supposing: Sequence[str] = (),
) -> tuple[Plan, Read]:
    """The plan of what is chosen, with all that is to be told of it, and what it was made from."""
    supposed = parse_suppositions(project.graph, supposing)
    found = await take(project, choice, rehash=rehash, entire=entire, supposed=supposed)
    plan = await judged(project, found.snapshot, choice, details=details)
    async with project.engine.connect() as connection:
        seen = await unnoticed(project, connection, [a.asset for a in plan.assets])
        knows = bool(found.marks) or not await read.is_empty(connection)
    if not knows:
        await _tell_of_lost_lineage(project)
    notes = (
        *seen,
        *await varying(project, plan),
        *overdue(project, plan, found.marks, project.clock()),
    )
    if found.unread:
        counts = {name: len(problems) for name, problems in found.unread.items()}
        plan = replace(plan, sources=tuple(replace(s, unread=counts.get(s.source, 0)) for s in plan.sources))
        notes = (*notes, *unread(project, found.unread))
    orphans = await _orphans(project, found.marks)
    checks = await _checks(project, plan)
    return replace(plan, notes=notes, checks=checks, orphans=orphans, estimates=_priced(project, plan)), found


async def _tell_of_lost_lineage(project: Project) -> None:
    """A database that knows of nothing, beside a store with manifests: what they tell of was made, and perhaps paid for."""
    async for info in project.bucket.list(f"{project.name}/"):
        if info.key.rpartition("/")[2].startswith(MANIFEST):
            logger.warning(
                "The database knows of nothing that was made, and %s holds what was made in %s: lineage is brought back, and"
                " nothing is made twice, by: aipctl catalog rebuild", project.bucket.url, project.name,
            )  # fmt: skip
            return


def _priced(project: Project, plan: Plan) -> tuple[Estimate, ...]:
    """The plan's estimates; where another model than before will be asked, at its prices, if they are known."""
    changed = {one.asset for one in plan.assets if "model-changed" in one.causes}
    found: list[Estimate] = []
    for one in plan.estimates:
        aliases = project.graph.assets[one.asset].options.models if one.asset in changed else ()
        prices = [price for alias in aliases if (price := project.llm.price(alias)) is not None]
        found.append(priced(one, min(p.given for p in prices), max(p.answered for p in prices)) if prices else one)
    return tuple(found)


async def judged(project: Project, snapshot: Snapshot, choice: Choice, *, details: bool = False) -> Plan:
    """The plan of a snapshot; where members of units changed, it is looked up whether some are gone: another cause, the same status."""
    plan = make_plan(project.graph, project.environment, snapshot, choice, details=details)
    if plan.changed_aggregates:
        states = dict(snapshot.states)
        async with project.engine.connect() as connection:
            former = await read.former_members(connection, [m for ms in plan.changed_aggregates.values() for m in ms])
        states |= {name: replace(states[name], former=former) for name in plan.changed_aggregates}
        standing = {n: j for n, j in plan.judgements.items() if n not in plan.changed_aggregates}
        again = replace(snapshot, states=states)
        plan = make_plan(project.graph, project.environment, again, choice, details=details, standing=standing)
    return plan


async def widened(project: Project, choice: Choice, *, upstream: bool, rehash: bool) -> tuple[Choice, Plan, Read]:
    """The plan of a choice; with `upstream` the choice includes what is stale above it: of partitions, those that it is made of."""
    plan, found = await plan_for(project, choice, rehash=rehash, details=False)
    if upstream and plan.stale_inputs:
        assert found.snapshot.moment is not None
        choice = with_above(choice, plan.stale_inputs, project.graph, found.snapshot.moment)
        plan, found = await plan_for(project, choice, rehash=False, details=False)
    return choice, plan, found


async def has_moved(project: Project, found: Read) -> bool:
    """Whether another run has committed since the plan was made."""
    async with project.engine.connect() as connection:
        return await read.watermarks(connection, project.environment_id) != found.marks


async def check(project: Project, plan: Plan, found: Read, say: Say) -> None:
    """Refuse a plan that cannot be run, and say what was observed."""
    await check_units(project, plan, found)
    plan.check()
    check_pools(project, plan)
    check_models(project, plan)
    for note in plan.notes:
        if note["code"] in (VARIES, EXPIRED):
            say(Event("message", text=f"{note['asset']}: {note['what']} ({note['where']}). {note['settle']}"))
    for source in plan.sources:
        seen = f"{source.new} new, {source.changed} changed, {source.removed} gone"
        say(Event("observed", source.source, source.documents, text=seen))


async def check_units(project: Project, plan: Plan, found: Read) -> None:
    """Refuse a plan of units that are not there: a misspelt one selects nothing, rather than what is up to date."""
    absent: list[selection.UnitRule] = []
    for asset in plan.assets:
        if (rule := plan.choice.units.get(asset.asset)) is None:
            continue
        if (problem := await _no_units(project, asset, rule, found)) is not None:
            if selection.asks_this_asset(rule):
                raise problem
            absent.append(rule)
    if absent and len(absent) == len(plan.assets):
        raise NothingSelectedError(f"No selected asset has a {absent[0]}.", hint="See: aipctl plan --force --units")
    new = {source.source for source in plan.sources if source.new}  # the one that is meant may be among them
    rules = {n: r for n, r in plan.choice.units.items() if n in project.graph.sources and n not in new}
    asked = [name for name, rule in rules.items() if selection.asks_this_asset(rule)]
    for name in sorted(await _absent(project, plan.choice, asked)):
        raise await _no_unit(project, name, rules[name], f"See: aipctl show {name}")


async def refuse_absent(project: Project, choice: Choice) -> None:
    """Refuse a choice of units that are not there, where no plan is made of it: they are neither current, nor would they be made."""
    absent = await _absent(project, choice, choice.units)
    if absent == choice.assets or any(selection.asks_this_asset(choice.units[name]) for name in absent):
        plan, found = await plan_for(project, choice, rehash=False, details=False)
        await check_units(project, plan, found)


async def _absent(project: Project, choice: Choice, names: Collection[str]) -> set[str]:
    """Those of these assets of which no unit that is current was chosen."""
    absent: set[str] = set()
    if not names:
        return absent
    async with project.engine.connect() as connection:
        for name in names:
            units = await read.labels(connection, project.environment_id, project.asset_ids[name])
            if not any(choice.has(project.graph.assets[name], *unit) for unit in units.iter_rows()):
                absent.add(name)
    return absent


async def _no_units(
    project: Project, asset: AssetPlan, rule: selection.UnitRule, found: Read
) -> NothingSelectedError | None:
    """What is wrong with a rule that names no unit of an asset, as far as it is known which there will be."""
    nothing = not asset.units and not asset.undecided
    hint = f"See: aipctl plan {asset.asset} --force --units"
    partitions, moment = project.graph.assets[asset.asset].partitions, found.snapshot.moment
    if partitions is not None and moment is not None:
        keys = [partition.key for partition in moment.partitions(partitions)]
        known = any(map(rule.matches, keys))
        # Units below a partition may be known only when what is above is made; others go by the partition alone.
        alone = project.graph.is_by_partition(asset.asset)
        nothing = not known and (nothing or alone)
        hint = f"{partitions!r} has {' .. '.join(dict.fromkeys((keys[0], keys[-1]))) if keys else 'none yet'}."
    if nothing and not asset.removed:
        return await _no_unit(project, asset.asset, rule, hint)
    return None


async def _no_unit(project: Project, name: str, rule: selection.UnitRule, hint: str) -> NothingSelectedError:
    """That an asset has no such unit; with those of its units that go by a name near it, if there are."""
    says = f"{name} has no unit {rule}"
    if isinstance(rule, grammar.Span) and (turned := rule.turned) is not None:
        says, hint = f"{says}: it ends before it begins", f"The other way round: {name}[{turned}]"
    elif isinstance(rule, grammar.Label) and project.graph.assets[name].partitions is None:
        async with project.engine.connect() as connection:
            units = await read.labels(connection, project.environment_id, project.asset_ids[name])
        hint = suggestion(rule.pattern.text, units["label"].head(NEAR)) or hint
    return NothingSelectedError(f"{says}.", hint=hint)


def check_pools(project: Project, plan: Plan) -> None:
    """Refuse a plan in which an asset asks for a pool that nobody has given limits. Raises SettingsError."""
    pools = project.settings.pools
    for name in (a.asset for a in plan.assets if not a.idle):
        asset = project.graph.assets[name]
        if asset.options.pool is not None and asset.options.pool not in pools:
            raise SettingsError(
                f"{name} ({asset.place}) asks for the pool {asset.options.pool!r}, which the settings do not have; "
                f"they have: {', '.join(sorted(pools)) or 'none'}.",
                hint=f"Write in assetcore.toml, below [pools]: {asset.options.pool} = {{concurrency = 8, per_minute = 600}}",
            )


def check_models(project: Project, plan: Plan) -> None:
    """Refuse a plan in which an asset declares a model that the gateway does not have. Raises SettingsError."""
    for name in (a.asset for a in plan.assets if not a.idle):
        asset = project.graph.assets[name]
        for alias in asset.options.models:
            if project.llm.models.resolve(alias) is None:
                raise project.llm.models.unknown(alias, f"{name} ({asset.place})")


async def note_settled(project: Project, plan: Plan, found: Read) -> None:
    """Assets that had to be looked at and were fresh need no look next time."""
    for asset in plan.assets:
        if (
            asset.asset in found.snapshot.states
            and asset.asset not in found.snapshot.settled
            and asset.asset not in plan.choice.units
        ):
            identifier = project.asset_ids[asset.asset]
            assert found.snapshot.moment is not None
            settled = settled_with(
                project, asset.asset, found.snapshot.definitions[asset.asset], found.marks, found.snapshot.moment,
                found.snapshot.oldest.get(asset.asset),
            )  # fmt: skip
            mark = found.marks.get(identifier, read.Watermark())
            partial = asset.asset in found.snapshot.slices
            documents = mark.documents if partial else found.snapshot.states[asset.asset].documents.height
            async with project.engine.begin() as connection:
                await lineage.settle(
                    connection,
                    project.environment_id,
                    identifier,
                    settled,
                    units=asset.units,
                    documents=documents,
                    last=mark.last,
                )


async def _orphans(project: Project, known: Collection[int]) -> dict[str, int]:
    """Of the assets that were ever made here, those that are not declared any more and still have units."""
    gone = set(known).difference(project.asset_ids.values())
    if not gone:
        return {}
    async with project.engine.connect() as connection:
        return await read.orphans(connection, project.environment_id, gone)


async def _checks(project: Project, plan: Plan) -> tuple[CheckReport, ...]:
    """What the checks of a plan's assets say of them as they are, and which of them a run would ask."""
    versions = project.checks(a.asset for a in plan.assets)
    if not versions:
        return ()
    async with project.engine.connect() as connection:
        return tuple(await checked.standing(connection, project.environment_id, versions))


def _changed_since(graph: Graph, root: Path, reference: str) -> frozenset[str]:
    """The assets declared in files that differ from a git ref, and those made of them. Raises SelectionError."""
    files = changed_files(root, reference)
    changed = {n for n, asset in graph.assets.items() if Path(asset.place.file).resolve() in files}
    return frozenset(changed | graph.descendants(changed))


def changed_files(root: Path, reference: str) -> frozenset[Path]:
    """The files below a folder that differ from a git ref, with modules that git does not know yet; of a range, from one ref to the other.

    Raises SelectionError for what git cannot compare with.
    """
    if reference.startswith("-"):  # no ref is called so, and git would do what it says
        raise SelectionError(f"changed:{reference}: {reference!r} is not the name of a git ref.", hint="changed:main")
    found = _git(root, reference, "diff", "--name-only", "--relative", "-z", reference, "--")
    if ".." not in reference:
        found += _git(root, reference, "ls-files", "--others", "--exclude-standard", "-z", "--", "*.py")
    return frozenset((root / os.fsdecode(name)).resolve() for name in found.split(b"\0") if name)


def _git(root: Path, reference: str, *arguments: str) -> bytes:
    """What git says. Raises SelectionError."""
    try:
        return subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, check=True).stdout
    except (OSError, ValueError, subprocess.CalledProcessError) as error:
        if not any((folder / ".git").exists() for folder in (root, *root.parents)):
            reason = [f"{root} is in no git repository"]
        else:
            said: bytes = getattr(error, "stderr", b"")
            reason = (os.fsdecode(said) or str(error)).strip().splitlines()
        raise SelectionError(
            f"changed:{reference}: git cannot compare with it: {reason[0] if reason else 'no answer'}.",
            hint="Name a git ref, as in changed:main, or an environment: aipctl env ls",
        ) from None
