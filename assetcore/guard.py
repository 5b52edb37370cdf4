"""Guard: may what was made become current?

The checks of an asset stand between making it and what it currently is. Those over a unit are asked before its batch is committed:
what a blocking one refuses is stored and known, but its unit stays what it was and counts as failed. Where a blocking check is over the
whole asset, everything that a run makes of it is first only known; when all is made the check is asked of what the asset would
be, and then one commit makes all of it current, or nothing. What a refused run has made is not lost: as long as the recipe
stays the same it is taken again, and not made again.

A check whose code was changed is asked of what is current. That stays current whatever it says: a guard keeps out, it does not take away.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from assetcore import telemetry
from assetcore.assets import Asset
from assetcore.budget import Budget
from assetcore.calls import Call, Outcome, ask_async, waited_for
from assetcore.checks import Check, CheckReport, Finding, Verdict
from assetcore.checks import together as as_one
from assetcore.documents import Document
from assetcore.errors import AssetcoreError
from assetcore.keep import Keeper
from assetcore.lineage import checks, named, read
from assetcore.lineage import commit as lineage
from assetcore.lineage.checks import Materialized
from assetcore.lineage.commit import Checked, Committed, Failed, Made, NewObject, Overtaken, Reused
from assetcore.llm import calling
from assetcore.project import Project
from assetcore.refs import format_ref
from assetcore.results import AssetResult, Event, Failure, Say
from assetcore.runners import Runner
from assetcore.spending import Spent, together
from assetcore.staleness import Definition
from assetcore.values import as_made, decode

__all__ = ["Guard"]

STANDS = "what is current is refused"
"""That a blocking check says this is a failure of the run."""
READ_AT_ONCE = 256
"""Units whose documents are held while a check is asked of what is current."""


@dataclass(frozen=True, slots=True)
class _Rule:
    """A check in its present version: its identifier in lineage, and the digest of its code."""

    check: Check[..., Any]
    id: int
    code: bytes


@dataclass(slots=True)
class Guard:
    """The checks of one asset, while a run makes it."""

    project: Project
    keeper: Keeper
    runner: Runner
    say: Say
    asset: Asset[..., Any]
    definition: Definition
    result: AssetResult
    failures: list[Failure]
    budget: Budget | None = None
    definition_id: int = 0
    units: Sequence[_Rule] = ()
    wholes: Sequence[_Rule] = ()
    published: bool = False
    _verdicts: dict[bytes, list[tuple[_Rule, Verdict]]] = field(default_factory=dict)
    _held: dict[bytes, Reused] = field(default_factory=dict)
    _gone: dict[bytes, int | None] = field(default_factory=dict)
    _refusals: dict[int, Verdict] = field(default_factory=dict)
    _gate: asyncio.Semaphore = field(init=False)

    def __post_init__(self) -> None:
        self._gate = asyncio.Semaphore(self.asset.options.concurrency or self.project.settings.concurrency)

    async def prepare(self, definition_id: int) -> None:
        """Before anything is made, with the identifier of the definition that it will be made with."""
        self.definition_id = definition_id
        await self._find()

    async def _find(self) -> None:
        """Which checks there are; without any, everything passes."""
        versions = self.project.checks([self.asset.name])
        if not versions:
            return
        async with self.project.engine.begin() as connection:
            identifiers = await checks.keep_versions(connection, versions)
        rules = [
            _Rule(v.check, identifier, self.project.fingerprint(v.check.key).digest)
            for v, identifier in zip(versions, identifiers, strict=True)
        ]
        self.units = [rule for rule in rules if rule.check.scope == "unit"]
        self.wholes = [rule for rule in rules if rule.check.scope == "asset"]

    @property
    def holds(self) -> bool:
        """Whether nothing becomes current before the whole of it has been looked at."""
        return any(rule.check.blocking for rule in self.wholes)

    @property
    def withholds(self) -> bool:
        """Whether something that was made did not become current: then none of it did."""
        return bool(self._held or self._gone) and not self.published

    @property
    def withheld(self) -> set[bytes]:
        """The units of which what was made, or that they are gone, did not become current."""
        return {*self._held, *self._gone} if self.withholds else set()

    # -- before a commit -------------------------------------------------------------------------------------------------------

    async def fit(
        self, earlier: Mapping[bytes, Sequence[tuple[bytes, int]]]
    ) -> Mapping[bytes, Sequence[tuple[bytes, int]]]:
        """Of what was made with these recipes before (unit, materialization), that which no blocking check refuses."""
        blocking = [rule for rule in self.units if rule.check.blocking]
        if not (blocking and earlier):
            return earlier
        refused: set[int] = set()
        for rule in blocking:
            candidates = {m for found in earlier.values() for _, m in found} - refused
            async with self.project.engine.connect() as connection:
                known = await checks.results(connection, rule.id, candidates)
            said = {m: verdict for m, (verdict, _) in known.items() if verdict.status != "error"}
            said |= {one.id: v for one, v in await self._ask_stored(rule, candidates - set(said))}
            refused |= {m for m in candidates if m not in said or said[m].status != "passed"}
        kept = {inputs: [pair for pair in found if pair[1] not in refused] for inputs, found in earlier.items()}
        return {inputs: found for inputs, found in kept.items() if found}

    async def ask(self, units: Mapping[bytes, Sequence[Document]], *, in_flight: bool) -> dict[bytes, Spent]:
        """Ask of what units have just made, before their batch is committed: while a unit is in flight the async checks, then the sync
        ones, of a batch at once, which crosses to a process in few parts. Under a limit no unit ends before all is asked of it.

        Returns what was spent on the units: it is counted with what they spent themselves.
        """
        spent: dict[bytes, Spent] = {}
        for rule in self.units:
            if (rule.check.asynchronous or self.budget is not None) == in_flight:
                answers = await self._ask(rule, list(units.values()))
                for unit, (verdict, took) in zip(units, answers, strict=True):
                    self._verdicts.setdefault(unit, []).append((rule, verdict))
                    if (all_of_it := together((spent.get(unit), took))) is not None:
                        spent[unit] = all_of_it
        return spent

    def spend(self, spent: Spent | None, *, settled: bool = False) -> None:
        """Count what was spent for the asset, and for the run's limit where that was not `settled` with the unit."""
        if spent is None:
            return
        self.result.tokens += spent.tokens
        self.result.usd += spent.usd
        if self.budget is not None and not settled:
            self.budget.also(spent)

    def part(self, made: Sequence[Made]) -> tuple[list[Made], list[Made], list[Failed], list[Checked]]:
        """What may become current, what is only to be known, the units that failed by that, and what the checks said."""
        if not self.units:
            return list(made), [], [], []
        fit: list[Made] = []
        aside: list[Made] = []
        failed: list[Failed] = []
        checked: list[Checked] = []
        for one in made:
            said = self._verdicts.pop(one.unit, [])
            checked += [_checked(rule, one.id, verdict) for rule, verdict in said]
            against = [(r, v) for r, v in said if r.check.blocking and v.status != "passed"]
            if against:
                aside.append(one._replace(current=False))
                error = "; ".join(_told("refused", rule, verdict) for rule, verdict in against)
                failed.append(Failed(one.unit, one.label, one.inputs, error, against[0][1].traceback))
            else:
                fit.append(one)
        return fit, aside, failed, checked

    async def commit(
        self, *, base: int | None = None, made: Sequence[Made] = (), reused: Sequence[Reused] = (),
        removed: Sequence[tuple[bytes, int | None]] = (), failed: Sequence[Failed] = (), objects: Sequence[NewObject] = (),
        checked: Sequence[Checked] = (), spent: Mapping[int, Spent] | None = None,
    ) -> Committed | None:  # fmt: skip
        """Commit, or hold it until the whole asset has been looked at; None where there is nothing to commit before that."""
        if self.holds:
            for m in made:
                if m.current:
                    self._held[m.unit] = Reused(m.unit, m.label, m.id, m.was, m.changed or m.was is None)
            self._held |= {r.unit: r for r in reused}
            self._gone |= dict(removed)
            made, reused, removed = [m._replace(current=False) for m in made], (), ()
            if not (made or failed):
                return None
        return await self.keeper.commit(
            self.asset, self.definition, self.definition_id, base=base, made=made, reused=reused, removed=removed, failed=failed,
            objects=objects, checked=checked, spent=spent,
        )  # fmt: skip

    async def publish(self) -> Committed | None:
        """Make current what was held, unless a blocking check over the whole asset refuses it, or the run was stopped before all was made:
        what was made is then taken up by the next one.
        """
        if not (self._held or self._gone):
            return None
        if self.result.left:
            self.result.left += len(self._held) + len(self._gone)
            self._take_off()
            return None
        base = await self.keeper.allocate()
        checked: list[Checked] = []
        if self._gone or any(r.changed for r in self._held.values()):
            async with self.project.engine.connect() as connection:
                would_be = await self._heads(connection)
                would_be = {unit: m for unit, m in would_be.items() if unit not in self._gone}
                would_be |= {unit: r.materialization for unit, r in self._held.items()}
                documents = await checks.documents(connection, would_be.values())
            for rule in self.wholes:
                if rule.check.blocking:
                    verdict = await self._ask_whole(rule, documents)
                    checked.append(_checked(rule, base >> 20, verdict))
                    if verdict.status != "passed":
                        self._refusals[rule.id] = verdict
                        self._fail(self.asset.name, _told("what was made is refused", rule, verdict), verdict.traceback)
        if self._refusals:
            async with self.project.engine.begin() as connection:
                await lineage.keep_checked(connection, self.keeper.run, checked)
            self.result.failed += len(self._held) + len(self._gone)
            self._take_off()
            return None
        try:
            committed = await self.keeper.commit(
                self.asset, self.definition, self.definition_id, base=base, reused=tuple(self._held.values()),
                removed=tuple(self._gone.items()), checked=checked,
            )  # fmt: skip
        except Overtaken:
            self._take_off()
            raise
        self.published = True
        return committed

    def _take_off(self) -> None:
        """Nothing of what was held has become current."""
        self.result.made = self.result.unchanged = self.result.reused = self.result.removed = 0

    # -- after the last commit -------------------------------------------------------------------------------------------------

    async def finish(self) -> None:
        """Ask of what is current what has not been asked of it, and note what the checks say of the asset now."""
        project, identifier = self.project, self.project.asset_ids[self.asset.name]
        versions = project.checks([self.asset.name])
        if not versions:
            return
        async with project.engine.connect() as connection:
            known = await checks.standing(connection, project.environment_id, versions)
        if not (self._refusals or any(report.due for report in known)):
            self.result.checks = tuple(known)
            return
        if not (self.units or self.wholes):
            await self._find()
        reports: list[tuple[int, CheckReport]] = []
        for rule in self.units:
            async with project.engine.connect() as connection:
                unasked = await checks.unasked(
                    connection, project.environment_id, identifier, rule.id, self.keeper.run, blocking=rule.check.blocking
                )  # fmt: skip
            said = await self._ask_stored(rule, unasked)
            await self.fail([
                (one.label, one.parent, True, _told(STANDS, rule, verdict), verdict.traceback)
                for one, verdict in said if rule.check.blocking and verdict.status != "passed"
            ])  # fmt: skip
            async with project.engine.connect() as connection:
                counts, findings = await checks.tally(connection, project.environment_id, identifier, rule.id)
            reports.append((rule.id, _report(rule, counts, findings)))
        for rule in self.wholes:
            verdict = self._refusals.get(rule.id) or await self._ask_current(rule)
            findings = [] if verdict.status == "passed" else [Finding(None, verdict.status, verdict.message)]
            reports.append((rule.id, _report(rule, {verdict.status: 1}, findings)))
        async with project.engine.begin() as connection:
            await checks.keep_standing(connection, project.environment_id, identifier, reports)
        self.result.checks = tuple(report for _, report in reports)

    async def _ask_current(self, rule: _Rule) -> Verdict:
        """What a check says of the whole asset as it is: what it said, where it was asked of this."""
        project, identifier = self.project, self.project.asset_ids[self.asset.name]
        async with project.engine.connect() as connection:
            mark = (await read.watermarks(connection, project.environment_id)).get(identifier)
            subject = mark.changed if mark is not None else 0
            verdict, run = (await checks.results(connection, rule.id, [subject])).get(subject, (None, ""))
            if verdict is not None and (run == self.keeper.run or not _is_open(rule, verdict)):
                return verdict
            documents = await checks.documents(connection, (await self._heads(connection)).values())
        verdict = await self._ask_whole(rule, documents)
        async with project.engine.begin() as connection:
            await lineage.keep_checked(connection, self.keeper.run, [_checked(rule, subject, verdict)])
        if rule.check.blocking and verdict.status != "passed":
            self._fail(self.asset.name, _told(STANDS, rule, verdict), verdict.traceback)
        return verdict

    async def fail(self, units: Sequence[tuple[str, str | None, bool, str, str]]) -> None:
        """Tell of units that failed: label, parent and whether the unit is one of those that there are; the error, and its traceback."""
        if not units:
            return
        async with self.project.engine.connect() as connection:
            names = await named.called(
                connection, self.project.environment_id, self.project.asset_ids[self.asset.name], [u[:3] for u in units]
            )
        for name, (*_, error, traceback) in zip(names, units, strict=True):
            self._fail(name, error, traceback)

    def _fail(self, label: str, error: str, traceback: str) -> None:
        self.failures.append(Failure(self.asset.name, label, error, traceback))
        self.say(Event("unit-failed", self.asset.name, text=f"{format_ref(self.asset.name, label)}: {error}"))

    async def _heads(self, connection: Any) -> dict[bytes, int]:
        return await checks.heads(connection, self.project.environment_id, self.project.asset_ids[self.asset.name])

    # -- asking ----------------------------------------------------------------------------------------------------------------

    async def _ask_stored(
        self, rule: _Rule, materializations: Sequence[int] | set[int]
    ) -> list[tuple[Materialized, Verdict]]:
        """Ask a check over units of what is stored, and keep what it says."""
        said: list[tuple[Materialized, Verdict]] = []
        waiting = sorted(materializations)
        for start in range(0, len(waiting), READ_AT_ONCE):
            async with self.project.engine.connect() as connection:
                units = await checks.materialized(connection, waiting[start : start + READ_AT_ONCE])
            found: list[tuple[Materialized, Verdict]] = []
            for unit, (verdict, spent) in zip(units, await self._ask(rule, await self._documents(units)), strict=True):
                self.spend(spent)
                found.append((unit, verdict))
            async with self.project.engine.begin() as connection:
                checked = [_checked(rule, unit.id, verdict) for unit, verdict in found]
                await lineage.keep_checked(connection, self.keeper.run, checked)
            said += found
            self.say(Event("progress", self.asset.name, len(said), len(waiting)))
        return said

    async def _documents(self, units: Sequence[Materialized]) -> list[Sequence[Document] | AssetcoreError]:
        """The documents of each unit, read together; where that is not possible each for itself, so that one cannot spoil others."""
        identifiers = [d for unit in units for d in unit.documents]
        async with self.project.engine.connect() as connection:
            stored = await read.stored(connection, identifiers)
        try:
            found = await self.project.reader.documents(
                [stored[d] for d in identifiers], self.asset.output.document_type
            )
        except AssetcoreError as error:
            return [one for unit in units for one in await self._documents([unit])] if len(units) > 1 else [error]
        documents = iter(found)
        return [[next(documents) for _ in unit.documents] for unit in units]

    async def _ask(
        self, rule: _Rule, units: Sequence[Sequence[Document] | AssetcoreError]
    ) -> list[tuple[Verdict, Spent | None]]:
        """What a check says of each of these units, and what it spent on it."""
        values: list[Any] = []
        spans: list[int | AssetcoreError] = []
        for documents in units:
            try:
                if isinstance(documents, AssetcoreError):
                    raise documents
                found = await as_made(rule.check.given, documents)
            except AssetcoreError as error:
                spans.append(error)
            else:
                values += found
                spans.append(len(found))
        answers = iter(await self._answers(rule, values))
        said: list[tuple[Verdict, Spent | None]] = []
        for span, documents in zip(spans, units, strict=True):
            if isinstance(span, AssetcoreError) or isinstance(documents, AssetcoreError):
                said.append((Verdict("error", str(span)), None))
                continue
            names = [d.name for d in documents] if span == len(documents) else [""] * span
            verdicts = [next(answers) for _ in range(span)]
            spent = together(spent for _, spent in verdicts)
            said.append((as_one([verdict for verdict, _ in verdicts], names), spent))
        return said

    async def _ask_whole(self, rule: _Rule, documents: Sequence[int]) -> Verdict:
        """What a check says of an asset that consists of these documents."""
        async with self.project.engine.connect() as connection:
            stored = await read.stored(connection, documents)
        try:
            value = await decode(rule.check.given, self.project.reader, [stored[d] for d in documents])
        except AssetcoreError as error:
            return Verdict("error", str(error))
        [(verdict, spent)] = await self._answers(rule, [value])
        self.spend(spent)
        return verdict

    async def _answers(self, rule: _Rule, values: Sequence[Any]) -> list[tuple[Verdict, Spent | None]]:
        """What a check says of each of these values, and what it spent: async on the event loop, so many at once, sync where the runner
        calls.
        """
        check = rule.check
        calls = [Call({check.given.parameter: value}, check.name, check.key) for value in values]
        if check.asynchronous:
            with waited_for():
                outcomes = await asyncio.gather(*(self._answer(rule, call) for call in calls))
        elif calls:
            await self.runner.ready()
            share = -(-len(calls) // (self.runner.places * 2))
            parts = [calls[i : i + share] for i in range(0, len(calls), share)]
            answers = await asyncio.gather(*(self.runner.call(check.key, part, rule.code) for part in parts))
            outcomes = [outcome for part in answers for outcome in part]
        else:
            outcomes = []
        for outcome in outcomes:
            if outcome.heard is not None:
                telemetry.tell(outcome.heard, check=check.name)
        return [(outcome.verdict or Verdict("error", outcome.error or ""), outcome.spent) for outcome in outcomes]

    async def _answer(self, rule: _Rule, call: Call) -> Outcome:
        async with self._gate:
            with calling(self.project.llm, rule.check.key, code=rule.code):
                return await ask_async(rule.check, call, self.project.root)


def _checked(rule: _Rule, subject: int, verdict: Verdict) -> Checked:
    return Checked(subject, rule.id, verdict.status, rule.check.blocking, verdict.message, verdict.traceback)


def _is_open(rule: _Rule, verdict: Verdict) -> bool:
    """Whether a check is to be asked again of the same: where it could not say, or is not content with what it guards."""
    return verdict.status == "error" or (verdict.status == "failed" and rule.check.blocking)


def _told(what: str, rule: _Rule, verdict: Verdict) -> str:
    unsaid = ", which could not say" if verdict.status == "error" else ""
    return f"{what} by the check {rule.check.name}{unsaid}: {verdict.message}"


def _report(rule: _Rule, counts: Mapping[str, int], findings: Sequence[Finding]) -> CheckReport:
    check = rule.check
    passed, failed, errors = (counts.get(status, 0) for status in ("passed", "failed", "error"))
    return CheckReport(
        check.asset.name, check.name, check.scope, check.blocking, passed, failed, errors, tuple(findings),
        bool(errors) or (check.blocking and bool(failed)),
    )  # fmt: skip
