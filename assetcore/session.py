"""Session: what can be asked of an opened project?

Each verb is a method, and each answer is a frozen value with `to_json()`. Planning reads a snapshot and decides without writing
lineage; materializing plans under the environment's lock, runs what is stale as a Prefect flow, and says what was done.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from assetcore import causes, environments, explain, journal, look, planning, stack, trials
from assetcore.budget import Budget
from assetcore.causes import Descendant, Subject
from assetcore.costs import parse_limit
from assetcore.differences import Diff, compare
from assetcore.environments import EnvironmentDiff, Promoted
from assetcore.errors import PromotionError
from assetcore.execution import Run
from assetcore.explain import Lineage
from assetcore.forget import Forgotten, delete_retired, forget
from assetcore.graph import Graph
from assetcore.history import History, history
from assetcore.journal import JournalCheck, Line
from assetcore.judgement import Choice
from assetcore.lineage import costs, registry, runs, spans
from assetcore.lineage.asking import about_few
from assetcore.lineage.heads import at_one_moment
from assetcore.lineage.journal import Entry, append
from assetcore.lineage.runs import RunInfo
from assetcore.lineage.schema import Connection
from assetcore.loading import find_root, package_of
from assetcore.look import AssetInfo, Context, Exported, StoredDocument
from assetcore.notes import unnoticed
from assetcore.plan import Plan, Snapshot
from assetcore.project import Project
from assetcore.provenance import write_statement
from assetcore.reasons import CauseGroup, Why
from assetcore.rehearse import Rehearsed, rehearse, sample
from assetcore.results import Event, RunResult, Say
from assetcore.retrieval import search_project
from assetcore.running import alone, close_dead, nothing_to_do, plan_rows, run_through, steps_of, taken_up
from assetcore.search import Hit
from assetcore.settings import Settings
from assetcore.snapshot import Read, take_descent
from assetcore.stack import COMPACTING, FORGETTING
from assetcore.sweep import Swept, sweep, sweep_unknown
from assetcore.telemetry import Trace
from assetcore.trials import Accepted, Trial
from assetcore.verify import Verified, look_again, noting_damage
from assetcore.verify import verify as verify_bytes

__all__ = ["RunResult", "Session", "resumed"]


@dataclass(slots=True)
class Session:
    """A project, opened, and the verbs that people and programs use on it."""

    project: Project
    named: bool = False
    """Whoever opened it has named an environment, and nobody has looked yet whether there is one of this name."""

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        settings: Settings,
        name: str,
        *,
        environment: str | None = None,
        config: Sequence[str] = (),
        automatic_schema: bool = False,
        clock: Callable[[], datetime] | None = None,
    ) -> AsyncIterator[Session]:
        """Load a project and connect to its stores. Raises ProjectError, DeclarationError, ServiceError."""
        opened = Project.open(
            settings, name, environment=environment, config=config, automatic_schema=automatic_schema, clock=clock
        )
        async with opened as project:
            project.llm.start = _start_gateway
            yield cls(project, named=environment is not None)

    @property
    def name(self) -> str:
        """The project's name."""
        return self.project.name

    @property
    def environment(self) -> str:
        """The environment whose documents are current here."""
        return self.project.environment

    @property
    def graph(self) -> Graph:
        """The project's assets and sources, and who is made out of whom."""
        return self.project.graph

    async def choose(self, select: str | None, *, force: bool = False) -> Choice:
        """What a selection selects; plans the whole graph first when it asks for what only a plan knows."""
        await self._check_environment()
        return await planning.choose(self.project, select, force=force)

    async def plan(
        self, select: str | None = None, *, force: bool = False, rehash: bool = False, supposing: Sequence[str] = ()
    ) -> Plan:
        """Which units are stale, and why. Reads the sources and lineage; writes no lineage.

        With `supposing`, which would be, if that were so: "remove topics[with]", "change chunks".
        """
        plan, found = await planning.plan_for(
            self.project, await self.choose(select, force=force), rehash=rehash, supposing=supposing
        )
        await planning.check_units(self.project, plan, found)
        return plan

    async def verify(
        self, select: str | None = None, *, rate: float | None = None, again: bool = False, on_event: Say | None = None
    ) -> Verified:
        """Read what the selected assets and sources consist of: are the bytes what lineage says? At most `rate` bytes a second.

        What is lost or damaged is noted: its units are stale from then on, and the next run makes them again. One that was
        interrupted is gone on with, unless `again`.
        """
        self.project.check_writable()
        choice = await self.choose(select)
        await planning.refuse_absent(self.project, choice)
        return await verify_bytes(self.project, choice, on_event or (lambda _: None), rate=rate, again=again)

    async def rerun(
        self, count: int, select: str | None = None, *, seed: int | None = None, on_event: Say | None = None
    ) -> list[Rehearsed]:
        """Make so many units of the selected assets once more, keeping nothing of it: which of them come out different?

        They are drawn at random from those that are fresh, of each asset in turn. The functions are called, and cost what they cost:
        models are asked again, and what they answer is not recorded.
        """
        plan, found = await planning.plan_for(
            self.project, await self.choose(select, force=True), rehash=False, entire=True
        )
        planning.check_pools(self.project, plan)
        units = sample(self.graph, plan, count, random.Random(seed))  # noqa: S311  # units are drawn, nothing is secret
        with self.project.llm.anew(None, kept=False):
            return await rehearse(self.project, plan, found, units, on_event or (lambda _: None))

    async def verify_above(self, select: str | None = None, *, on_event: Say | None = None) -> Verified:
        """Verify what is selected and all that it is made of, from the beginning: what a plan or a run is then made from."""
        self.project.check_writable()
        choice = await planning.choose(self.project, select)
        above = Choice(choice.assets | self.graph.ancestors(choice.assets))
        return await verify_bytes(self.project, above, on_event or (lambda _: None), again=True)

    async def materialize(
        self, select: str | None = None, *, force: bool = False, upstream: bool = False, rehash: bool = False, local: bool = False,
        verify: bool = False, replay: bool = False, max_cost: str | None = None, on_event: Say | None = None,
    ) -> RunResult:  # fmt: skip
        """Make what is stale among the selected assets, and only that. With `verify` their bytes are read first.

        `max_cost` ("5usd", "100000tokens", "30min") stops before the unit that would exceed it: the result's status is "stopped" then,
        and the next run continues.

        `local` runs the same steps without Prefect: nothing is shown there, and its server need not be there. With `force` models are
        asked again, unless `replay` has them answer from what is recorded of the same questions.

        Raises StaleInputError when a selected asset has a stale input that is not selected, unless `upstream` includes it.
        A unit that fails does not stop what does not depend on it: the result's status is "failed" then.
        """
        self.project.check_writable()
        say = on_event or (lambda _: None)
        started = datetime.now(UTC)
        project = self.project
        limit = parse_limit(max_cost) if max_cost is not None else None
        if verify:
            await self.verify_above(select, on_event=say)
        chosen = await planning.choose(self.project, select, force=force)
        choice, plan, found = await planning.widened(self.project, chosen, upstream=upstream, rehash=rehash)
        if plan.lost and not verify and await look_again(project):
            choice, plan, found = await planning.widened(self.project, chosen, upstream=upstream, rehash=False)
        await planning.check(self.project, plan, found, say)
        await self._rename()
        if plan.up_to_date:
            return await nothing_to_do(project, plan, found, started)
        await self._begin_environment(say)
        async with alone(self.project, say):
            if await planning.has_moved(self.project, found):
                choice, plan, found = await planning.widened(self.project, choice, upstream=upstream, rehash=False)
                await planning.check(self.project, plan, found, say)
                if plan.up_to_date:
                    return await nothing_to_do(project, plan, found, started)
            plan, found = plan.lean(), found.lean()  # a run may last for hours
            run = Run(project, runs.new_run_id(), started, choice, found, say)
            run.budget = Budget(limit, found.snapshot.costs) if limit is not None else None
            stored = {
                "select": select,
                "force": force,
                "upstream": upstream,
                "config": list(project.overrides),
                "rehash": rehash,
                "replay": replay,
                "max_cost": max_cost,
                "plan": plan.to_json(),
            }
            async with project.engine.begin() as connection:
                await runs.close_abandoned(connection, project.id, project.environment_id)
                unshown = await runs.unshown(connection, project.id)
                await spans.forget_before(connection, project.id, project.settings.trace_days)
                await runs.begin(connection, run.id, project.id, project.environment_id, select or "", stored, started)
                await append(
                    connection, project.id, Entry("run", self.environment, run=run.id, facts={"status": "begun"})
                )
            say(Event("planned", total=plan.stale, text=f"run {run.id}"))
            with project.llm.anew(datetime.now(UTC) if force and not replay else None):
                return await run_through(project, run, plan, unshown, local=local)

    async def ls(self, select: str | None = None, *, at: str | None = None) -> list[AssetInfo]:
        """The selected assets: counts, when they were made, how many units are stale; or as they were `at` a time."""
        choice = await self.choose(select)
        if at is not None:
            return await look.list_assets_at(self.project, choice, at)
        await planning.refuse_absent(self.project, choice)
        return await look.list_assets(self.project, choice, await self.plan(None))

    async def costs(self) -> dict[str, dict[str, Any]]:
        """What making each asset has taken, in all runs and environments: calls, seconds, tokens, dollars."""
        names = {identifier: name for name, identifier in self.project.asset_ids.items()}
        async with self.project.engine.connect() as connection:
            taken = await costs.spent_on(connection, self.project.id)
        return {names[i]: found for i, found in taken.items() if i in names}

    async def why(self, ref: str) -> Why:
        """Why a unit is stale: the document, config value, model or lines of code that changed."""
        await self._check_environment()
        about = await causes.subject(self.project, ref)
        choice = Choice(frozenset([about.asset]))
        async with self.project.engine.connect() as connection:
            await about_few(connection)
            decides = await causes.deciding(self.project, connection, about)
            if decides is not None:
                how, document = decides.how, decides.document
                snapshot = await take_descent(self.project, connection, about.asset, how, document, decides.unit)
                if snapshot is not None:
                    plan = await planning.judged(self.project, snapshot, choice)
                    return await self._why(connection, about, plan, snapshot, known=decides)
        plan, found = await planning.plan_for(self.project, choice, rehash=False, details=False)
        beside = await causes.is_beside(self.project, about, found.snapshot)
        if not beside:  # its roots are among all units above it
            plan, found = await planning.plan_for(self.project, choice, rehash=False, entire=True)
        async with self.project.engine.connect() as connection:
            await at_one_moment(connection)
            return await self._why(connection, about, plan, found.snapshot, beside=beside)

    async def _why(
        self, connection: Connection, about: Subject, plan: Plan, snapshot: Snapshot, *,
        beside: bool = False, known: Descendant | None = None,
    ) -> Why:  # fmt: skip
        """With what is to be told beside it."""
        why = await causes.why(self.project, connection, about, plan, snapshot, beside=beside, known=known)
        accepted = await trials.about(self.project, connection, why.unit)
        notes = await unnoticed(self.project, connection, [about.asset])
        checks = await look.checks_of(self.project, about.asset, about.label and why.unit)
        return replace(why, checks=checks, notes=notes, accepted=accepted)

    async def sample(self, select: str | None, count: int, *, on_event: Say | None = None) -> tuple[Trial, ...]:
        """What the present code makes of so many stale units of each asset; nothing of that is kept."""
        plan, found = await planning.plan_for(self.project, await self.choose(select), rehash=False, entire=True)
        planning.check_pools(self.project, plan)
        return await self._tried(plan, found, trials.sampled(plan, self.graph, count), on_event)

    async def accept(
        self, name: str, count: int | None = None, *, unverified: bool = False, why: str | None = None, on_event: Say | None = None
    ) -> Accepted:  # fmt: skip
        """Have what earlier code of an asset made count as made by its present code, if so many units come out byte for byte the same.

        Without trying (`unverified`) it needs a reason, which is told for ever by `why` and `lineage`.
        """
        self.project.check_writable()
        trials.check_request(count, why, unverified=unverified)
        plan, found = await planning.plan_for(
            self.project, Choice(frozenset({name} & set(self.graph.assets))), rehash=False, entire=True
        )
        stale = await trials.units_to_accept(self.project, name, plan)
        trial = None
        if count is not None:
            wanted = pl.Series("unit", [unit for units in stale.values() for unit, _ in units], pl.Binary)
            judged = plan.judgements[name].judged
            units = judged.filter(pl.col("unit").is_in(wanted.implode())).sort("unit").head(count)
            [trial] = await self._tried(plan, found, {name: units}, on_event)
        accepted = await trials.accept(self.project, name, stale, trial, why if unverified else None)
        await journal.flush(self.project)
        return accepted

    async def _tried(
        self, plan: Plan, found: Read, units: Mapping[str, pl.DataFrame], on_event: Say | None
    ) -> tuple[Trial, ...]:
        rehearsed = await rehearse(self.project, plan, found, units, on_event or (lambda _: None), counted=False)
        return trials.judge_trial(plan, found, rehearsed)

    async def roots(
        self, select: str | None = None, *, force: bool = False, rehash: bool = False, supposing: Sequence[str] = ()
    ) -> tuple[Plan, tuple[CauseGroup, ...]]:
        """A plan, and the changes at its roots: grouped by cause, those that concern most units first."""
        plan, found = await planning.plan_for(
            self.project, await self.choose(select, force=force), rehash=rehash, entire=True, supposing=supposing
        )
        return plan, await causes.roots_of(self.project, plan, found.snapshot)

    async def lineage(
        self,
        ref: str,
        direction: str = "up",
        depth: int | None = None,
        *,
        at: str | None = None,
        spans: bool = False,
    ) -> Lineage:
        """What documents were made of (up), or what was made of them (down), now or at a time; with `spans`, of which parts."""
        traced = await explain.lineage(self.project, ref, direction, depth, at, spans=spans)
        return replace(traced, accepted=await trials.said_of(self.project, {node.asset for node in traced.nodes}))

    async def history(self, ref: str, *, limit: int = 20) -> History:
        """What was done to an asset, a unit or a document: when, by which run, for whom, and what differed; the latest first."""
        return await history(self.project, ref, limit)

    async def show(self, ref: str, *, at: str | None = None) -> list[StoredDocument]:
        """The documents that a REF names, now or at a time, with their bytes."""
        async with noting_damage(self.project):
            return await look.show(self.project, ref, at)

    async def context(self, ref: str, *, at: str | None = None) -> Context:
        """The place in its source that a document was cut from, with some lines around it."""
        async with noting_damage(self.project):
            return await look.context(self.project, ref, at)

    async def export(self, select: str | None, directory: str | Path, *, provenance: bool = False) -> Exported:
        """Write the current documents of the selected assets below a folder; with `provenance` also an in-toto statement of them."""
        async with noting_damage(self.project):
            choice = await self.choose(select)
            await planning.refuse_absent(self.project, choice)
            exported = await look.export(self.project, choice, Path(directory))
        if provenance:
            exported = replace(exported, provenance=await write_statement(self.project, exported))
        return exported

    async def diff(self, one: str, other: str | None = None) -> Diff:
        """How two documents differ, or an asset, a unit or a document at two times; without `other`, as it was and is."""
        async with noting_damage(self.project):
            return await compare(self.project, one, other)

    async def search(self, text: str, *, limit: int = 10, filters: Mapping[str, Any] | None = None) -> list[Hit]:
        """The documents that answer best, by their words and, where the project has vectors, by their meaning."""
        async with noting_damage(self.project):
            return await search_project(self.project, text, limit, filters)

    async def scan(self, name: str) -> pl.LazyFrame:
        """The current documents of an asset as a lazy frame."""
        await self._check_environment()
        async with noting_damage(self.project):
            return await look.scan(self.project, name)

    async def gc(self, *, dry_run: bool = True, keep: timedelta | None = None, on_event: Say | None = None) -> Swept:
        """Remove objects that lineage does not know, and documents of assets that are no longer declared.

        History older than `keep` (by default as the setting `retention` says: all is kept) is let go, and packs of which less than half is
        still needed are compacted.
        """
        if not dry_run:
            self.project.check_writable()
            await self._close_abandoned()
        kept = keep if keep is not None else self.project.settings.retention
        say = on_event or (lambda _: None)
        async with alone(self.project, say, COMPACTING):
            swept = await sweep(self.project, alone(self.project, say), dry_run=dry_run, keep=kept)
        if not dry_run:
            await journal.flush(self.project)
        return swept

    async def forget(self, ref: str, *, dry_run: bool = True, on_event: Say | None = None) -> Forgotten:
        """Erase a document of a source with all that came of it, in every environment and in history; `dry_run` only says what."""
        if not dry_run:
            self.project.check_writable()
        async with AsyncExitStack() as locks:
            say = on_event or (lambda _: None)
            await locks.enter_async_context(alone(self.project, say, FORGETTING))
            async with self.project.engine.connect() as connection:
                names = await registry.environment_names(connection, self.project.id)
            for one in (COMPACTING, *stack.where_runs_may_be(names)):
                await locks.enter_async_context(alone(self.project, say, one))
            if not dry_run:  # what one that was killed had still to delete, and what a crash has left and nobody knows, may hold it, too
                await journal.flush(self.project)
                await delete_retired(self.project)
                await sweep_unknown(self.project, dry_run=False, grace=timedelta(0), idle=names)
            forgotten = await forget(self.project, ref, dry_run=dry_run)
            if not dry_run:
                await journal.flush(self.project)  # the bucket, too, must know what took the place of what
                await delete_retired(self.project)
            return forgotten

    async def _begin_environment(self, say: Say) -> None:
        """Before the first run in an environment: who was forgetting by then does not know of it, and who begins later will."""
        async with self.project.engine.connect() as connection:
            if await runs.has_begun(connection, self.project.environment_id):
                return
        async with alone(self.project, say, FORGETTING):
            pass

    async def _close_abandoned(self) -> None:
        """Runs in other environments that have died: what they left is nobody's."""
        async with self.project.engine.connect() as connection:
            found = {(name, number) for name, number, _ in await runs.at_work(connection, self.project.id)}
        for name, number in sorted(found - {(self.environment, self.project.environment_id)}):
            await close_dead(self.project, name, number)

    async def journal(
        self, ref: str | None = None, *, since: datetime | None = None, limit: int | None = None, here: bool = False
    ) -> list[Line]:
        """What was done, oldest first: of the whole project, or of an asset or unit; since a moment, the newest `limit` of it.

        With `here` only in this environment.
        """
        return await journal.read(self.project, ref, since=since, limit=limit, here=here)

    async def check_journal(self) -> JournalCheck:
        """Whether the journal is whole: its chain, its batches in the bucket, the manifests it points to."""
        return await journal.check(self.project)

    # -- environments ----------------------------------------------------------------------------------------------------------

    async def environments(self) -> list[dict[str, Any]]:
        """The environments of the project, and what each was created from."""
        return await environments.list_all(self.project)

    async def refuse_unknown_environment(self) -> None:
        """Raise NothingSelectedError where the project has environments, and this is none of them: all would be missing in it."""
        await environments.refuse_unknown(self.project)
        self.named = False

    async def _check_environment(self) -> None:
        if self.named:
            await self.refuse_unknown_environment()

    async def create_environment(self, name: str, source: str | None = None) -> dict[str, Any]:
        """A new environment in which everything is as in another, by default in this one. Copies nothing."""
        self.project.check_writable()
        made = await environments.create(self.project, name, source or self.environment)
        await journal.flush(self.project)
        return made

    async def compare_environments(self, name: str, other: str) -> EnvironmentDiff:
        """What an environment has that another has not, by asset and document."""
        return await environments.compare(self.project, name, other)

    async def promote(self, name: str, to: str, *, rebase: bool = False, on_event: Say | None = None) -> Promoted:
        """Make another environment what this one is, in one transaction. Raises PromotionError.

        With `rebase` what the other has become meanwhile is taken over first; where that leaves something stale, nothing is promoted.
        """
        self.project.check_writable()
        say = on_event or (lambda _: None)
        for one in (name, to):  # before anybody is made to wait
            await environments.within(self.project, one)
        async with AsyncExitStack() as locks:
            for one in sorted({name, to}):
                await locks.enter_async_context(alone(self.project, say, one))
            if rebase and (moved := await environments.rebase(self.project, name, to)):
                say(Event("message", text=f"{name} is on what {to} now is; moved there: {', '.join(moved)}"))
                await self._refuse_stale(name)
            promoted = await environments.promote(self.project, name, to)
            await journal.flush(self.project)
            return promoted

    async def drop_environment(self, name: str, *, on_event: Say | None = None) -> dict[str, Any]:
        """Forget what is current in an environment; what was made in it stays."""
        self.project.check_writable()
        await environments.within(self.project, name)
        async with AsyncExitStack() as locks:
            for one in stack.where_runs_may_be([name]):
                await locks.enter_async_context(alone(self.project, on_event or (lambda _: None), one))
            dropped = await environments.drop(self.project, name)
            await journal.flush(self.project)
            return dropped

    async def _refuse_stale(self, name: str) -> None:
        """Raise PromotionError where what another environment has become left something of this one stale."""
        plan = await Session(await environments.within(self.project, name)).plan(None)
        stale = [a.asset for a in plan.assets if a.stale or a.pending or a.removed]
        if stale:
            raise PromotionError(
                f"{name} is on what it is promoted to now, and {', '.join(stale)} {'is' if len(stale) == 1 else 'are'} stale by that.",
                hint=f"Make it and promote again: aipctl materialize --env {name}",
            )

    # -- running ---------------------------------------------------------------------------------------------------------------

    async def _rename(self) -> None:
        """Assets that the code renames go by their new names from the first time that it makes something."""
        if not any(asset.options.renamed_from or not name.isascii() for name, asset in self.graph.assets.items()):
            return
        async with self.project.engine.begin() as connection:
            renamed = await registry.rename(connection, self.project.asset_ids, self.graph)
            entries = [
                Entry("rename", self.environment, name, why=f"from {before}", facts={"asset_id": i, "from": before})
                for name, i, before in renamed
            ]
            if entries:
                await append(connection, self.project.id, *entries)
        if renamed:
            await journal.flush(self.project)

    async def runs(self, run: str | None = None, *, limit: int = 20, here: bool = False) -> list[RunInfo]:
        """The latest runs, in all environments or only `here`, or one of them by the beginning of its identifier."""
        async with self.project.engine.connect() as connection:
            if run is not None:
                return [await runs.find(connection, self.project.id, run)]
            return await runs.latest(connection, self.project.id, limit, self.project.environment_id if here else None)

    async def trace(self, run: str) -> Trace:
        """Where the time of a run went, and its cost, by the beginning of the run's identifier."""
        async with self.project.engine.connect() as connection:
            known = await spans.find(connection, run)
            found = known or (await runs.find(connection, self.project.id, run)).run
            return Trace(found, await spans.of_run(connection, found))


async def _start_gateway(settings: Settings) -> Settings:
    return (await stack.up(settings, {"gateway"})).applied_to(settings)


@asynccontextmanager
async def resumed(
    run_id: str, start: Path
) -> AsyncIterator[tuple[Run, Mapping[str, Sequence[str]], list[dict[str, Any]]]]:
    """Open a stored run where it is not open yet, on a worker, from the settings found there: the run, its steps, the plan's rows."""
    settings = Settings.load(find_root(start))
    addresses = await stack.up(settings, {"postgres", "redis", "store"})
    settings = addresses.applied_to(settings)
    stored = await runs.look_up(addresses.database_url, run_id)
    name = package_of(settings.root, stored.project)
    async with (
        Session.open(settings, name, environment=stored.environment, config=stored.plan["config"]) as session,
        taken_up(session.project, stored) as (run, plan),
    ):
        yield run, steps_of(plan, session.graph), plan_rows(plan)
