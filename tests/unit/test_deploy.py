"""Deploy: what becomes of the schedules that are declared beside assets."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prefect.client.schemas.schedules import CronSchedule
from prefect.events.schemas.automations import AutomationCore
from prefect.utilities.schema_tools.hydration import HydrationContext, hydrate
from pydantic import ValidationError

from assetcore import Daily, Document, Partition, Static, asset
from assetcore.declarations import is_cron
from assetcore.deploy import Trigger, _automate, _schedule, triggers_of
from assetcore.flow import _where
from assetcore.grammar import Label, Name, Or, Pattern, Units, parse
from assetcore.graph import Graph
from assetcore.results import AssetResult

VALUES = [
    "0", "00", "1", "5", "07", "7", "8", "12", "13", "23", "24", "31", "32", "59", "60", "100", "jan", "DEC", "Mon",
    "sun", "mon#1", "mon#6", "5#5", "l", "L5", "l8", "?", "H", "R", "*", "-", "x", "²",
]  # fmt: skip
TERMS = st.one_of(
    st.just("*"),
    st.sampled_from(VALUES),
    st.builds("{}-{}".format, st.sampled_from(VALUES), st.sampled_from(VALUES)),
    st.builds("{}/{}".format, st.sampled_from(VALUES), st.sampled_from(["0", "2", "99", "x", ""])),
)
FIELDS = st.lists(TERMS, min_size=1, max_size=2).map(",".join)


class Page(Document):
    """A page."""


class Schedules:
    """The schedules of one deployment, by slug and asset; those of no asset were set in Prefect."""

    def __init__(self, **slugs: str | None) -> None:
        self.known = [
            SimpleNamespace(
                id=uuid4(), slug=slug, schedule=None, active=True, parameters={"select": asset} if asset else {}
            )
            for slug, asset in slugs.items()
        ]

    async def read_deployment_schedules(self, deployment: UUID) -> list[Any]:
        return list(self.known)

    async def delete_deployment_schedule(self, deployment: UUID, schedule: UUID) -> None:
        self.known = [one for one in self.known if one.id != schedule]

    async def create_deployment_schedules(self, deployment: UUID, new: Sequence[Any]) -> None:
        self.known += [SimpleNamespace(id=uuid4(), **one.model_dump()) for one in new]


class Automations:
    """The automations of a server, of which it tells so many at a time, and the deployments that there are."""

    def __init__(self, *deployments: UUID) -> None:
        self.known: dict[UUID, Any] = {}
        self.deployments = deployments

    async def read_automations(self, *, sort: Any = None, offset: int = 0) -> list[Any]:
        return list(self.known.values())[::-1][offset : offset + 3]

    async def create_automation(self, automation: AutomationCore) -> None:
        identifier = uuid4()
        self.known[identifier] = SimpleNamespace(id=identifier, **dict(automation))

    async def update_automation(self, identifier: UUID, automation: AutomationCore) -> None:
        vars(self.known[identifier]).update({name: getattr(automation, name) for name in automation.model_fields_set})

    async def delete_automation(self, identifier: UUID) -> None:
        del self.known[identifier]

    async def read_deployments(self, *, deployment_filter: Any) -> list[Any]:
        return [SimpleNamespace(id=one) for one in self.deployments if one in deployment_filter.id.any_]

    def names(self) -> list[str]:
        return sorted(one.name for one in self.known.values())


@given(st.lists(st.one_of(st.just("*"), FIELDS), min_size=4, max_size=6).map(" ".join))
def test_prefect_takes_every_schedule_that_a_declaration_takes(text: str) -> None:
    """What is declared is what Prefect keeps to: a schedule that it refuses is told at the asset, not when it is deployed."""
    if is_cron(text):
        assert CronSchedule(cron=text, timezone="UTC").cron == text


@pytest.mark.parametrize("text", [
    "0 6 * * *", "*/15 0-6,22-23/2 * * *", "0 22-2 1,15 JAN-mar mon-FRI", "5/15 0 ? * 0", "0 0 L * *", "00 06 31 12 7", "0 0 * * sat#1,7#2",
    "0 0 * * L5",
])  # fmt: skip
def test_what_is_a_schedule(text: str) -> None:
    """Numbers, names, ranges, steps and lists; the last day of a month, and a weekday's first, second or last in it."""
    assert is_cron(text)


async def test_assets_whose_names_differ_by_case_have_schedules_of_their_own() -> None:
    """Each is run; those of assets that are not declared any more go, and those that were set in Prefect stay."""
    client: Any = Schedules(**{"asset-gone": "gone", "by-hand": None, "asset-of-mine": None})
    triggers = [Trigger("Prices", "schedule", "0 6 * * *"), Trigger("prices", "schedule", "0 18 * * *")]
    for _ in range(2):
        await _schedule(client, uuid4(), triggers, {})
        assert [one.slug for one in client.known] == ["by-hand", "asset-of-mine", "asset-Prices", "asset-prices"]


async def test_a_schedule_that_was_paused_stays_so() -> None:
    """Deploying brings it up to date; whoever has paused it in Prefect starts it again there."""
    client: Any = Schedules(**{"asset-prices": "prices", "asset-stock": "stock"})
    client.known[0].active = False
    for hour in (6, 7):
        triggers = [Trigger(asset, "schedule", f"0 {hour} * * *") for asset in ("prices", "stock", "new")]
        await _schedule(client, uuid4(), triggers, {})
        assert [(one.slug, one.active) for one in client.known] == [
            ("asset-prices", False), ("asset-stock", True), ("asset-new", True),
        ]  # fmt: skip


async def test_a_schedule_that_prefect_refuses_takes_no_other_away() -> None:
    """What is there is removed when what comes in its place is known to be good."""
    client: Any = Schedules(**{"asset-prices": "prices"})
    with pytest.raises(ValidationError):
        await _schedule(client, uuid4(), [Trigger("prices", "schedule", "0 25 * * *")], {})
    assert [one.slug for one in client.known] == ["asset-prices"]


async def test_automations_are_a_deployments_own_however_many_there_are() -> None:
    """Each is known again by what it starts and not made twice; what is not declared any more goes, and what is another's stays."""
    mine, european, gone = uuid4(), uuid4(), uuid4()
    client: Any = Automations(mine, european)
    parameters = {"project": "shop", "environment": "prod"}
    events = [Trigger(f"asset_{number}", "on", "orders.arrived") for number in range(5)]
    await _automate(client, "materialize/shop", gone, [*events, Trigger("last", "on", "orders.arrived")], parameters)
    await _automate(client, "materialize/shop: eu", european, events, parameters)
    others = [f"materialize/shop: eu: {one}" for one in events]
    for declared in (events, events, events[:2], []):
        await _automate(client, "materialize/shop", mine, declared, parameters)
        assert client.names() == sorted([*others, *(f"materialize/shop: {one}" for one in declared)])
        started = {one.actions[0].deployment_id for one in client.known.values()}
        assert started == ({mine, european} if declared else {european})


async def test_an_automation_that_was_paused_stays_so_and_one_that_is_there_twice_goes() -> None:
    """Deploying brings it up to date; whoever has paused it in Prefect starts it again there."""
    mine = uuid4()
    client: Any = Automations(mine)
    parameters = {"project": "shop", "environment": "prod"}
    await _automate(client, "materialize/shop", mine, [Trigger("prices", "after", "stock")], parameters)
    (one,) = client.known.values()
    one.enabled = False
    await client.create_automation(AutomationCore.model_validate({k: v for k, v in vars(one).items() if k != "id"}))
    for declared in ([Trigger("prices", "after", "stock")], [Trigger("prices", "after", "stock")]):
        await _automate(client, "materialize/shop", mine, declared, parameters)
        assert [(found.name, found.enabled) for found in client.known.values()] == [
            ("materialize/shop: prices after stock", False)
        ]


def test_only_what_has_the_same_partitions_follows_in_those() -> None:
    """What is divided otherwise, or not at all, is asked for as a whole after whatever was made."""

    def one(day: Partition) -> Page: ...

    def none() -> Page: ...

    days = asset(partitions=Daily(start="2026-11-01"), name="days")(one)
    divided = {"same": Daily(start="2026-11-01"), "later": Daily(start="2026-11-02"), "other": Static(["a"])}
    after = [asset(partitions=parts, name=name, after=[days])(one) for name, parts in divided.items()]
    triggers = triggers_of(Graph("demo", [days, *after, asset(name="whole", after=[days])(none)]))
    assert {one.asset: one.alike for one in triggers} == {"same": True, "later": False, "other": False, "whole": False}
    assert [one.asset for one in triggers if "otherwise" in one.parameters] == ["same"]


def test_an_event_says_in_which_partitions_something_was_made() -> None:
    """As a selection of what follows; of none, and of more than an event holds, nothing is said and nothing selected."""
    (wanted, partitions) = (Trigger("pages", "after", "days", alike=True).parameters, ("2026-11-01", "a b*"))

    def selected(*keys: str) -> str:
        payload = {"run": "r", **_where(AssetResult("days", partitions=keys))}
        context = HydrationContext(render_jinja=True, jinja_context={"event": SimpleNamespace(payload=payload)})
        return hydrate(wanted, context)["otherwise"]

    assert selected("2026-11-01") == "pages[2026-11-01]"
    assert parse(selected(*partitions)) == Or(
        tuple(Units(Name(Pattern("pages")), Label(Pattern(k))) for k in partitions)
    )
    assert (selected(), selected(*map(str, range(2000)))) == ("", "")
