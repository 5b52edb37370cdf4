"""The pure parts of partitions: which days and hours there are, and which belong to which."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assetcore import Daily, Dynamic, Hourly, Partition, Static
from assetcore.errors import AssetcoreError, DeclarationError
from assetcore.partitions import Moment, Partitions, Relation, duration_of, misfit, needed, shown_duration
from tests.unit.test_assets import load

BERLIN = "Europe/Berlin"
NOON = datetime(2026, 11, 4, 12, tzinfo=UTC)


def keys(of: Partitions, now: datetime = NOON) -> list[str]:
    return [partition.key for partition in Moment(now).partitions(of)]


def pairs(
    own: Partitions, upstream: Partitions, relation: Relation = "same", now: datetime = NOON
) -> dict[str, list[str]]:
    moment = Moment(now)
    there = {one: moment.partitions(one) for one in (own, upstream)}
    found: dict[str, list[str]] = {partition.key: [] for partition in there[own]}
    for key, other in needed(own, upstream, relation, there):
        found[key].append(other)
    return found


def test_a_day_is_there_when_it_is_over() -> None:
    """Days run from the first to the last that is over, in the calendar of their time zone; `end` is the last one."""
    assert keys(Daily(start="2026-11-01")) == ["2026-11-01", "2026-11-02", "2026-11-03"]
    assert keys(Daily(start=date(2026, 11, 3))) == ["2026-11-03"]
    assert keys(Daily("2026-11-04")) == []
    assert keys(Daily("2026-11-01", end="2026-11-02")) == ["2026-11-01", "2026-11-02"]
    midnight = datetime(2026, 11, 4, tzinfo=UTC)
    assert keys(Daily("2026-11-02"), midnight) == ["2026-11-02", "2026-11-03"]
    assert keys(Daily("2026-11-02"), midnight - timedelta(microseconds=1)) == ["2026-11-02"]
    assert keys(Daily("2026-11-03", timezone=BERLIN), midnight - timedelta(hours=1)) == ["2026-11-03"]
    assert keys(Daily("2026-11-03", timezone="America/New_York"), midnight) == []


def test_days_on_which_clocks_are_changed() -> None:
    """A day lasts 25 or 23 hours then, and days follow each other without a gap; where midnight is skipped it begins at one."""
    autumn, spring = Daily("2026-10-24", timezone=BERLIN), Daily("2026-03-28", timezone=BERLIN)
    lengths = {
        key: length(days[key]) for days, key in ((autumn, "2026-10-25"), (spring, "2026-03-29"), (autumn, "2026-10-26"))
    }
    assert lengths == {"2026-10-25": 25, "2026-03-29": 23, "2026-10-26": 24}
    santiago = Daily("2026-09-05", timezone="America/Santiago")["2026-09-06"]
    assert santiago.start is not None
    assert (santiago.start.hour, length(santiago)) == (1, 23)
    assert pairs(autumn, Hourly("2026-10-24", timezone=BERLIN))["2026-10-25"][1:4] == [
        "2026-10-25T01", "2026-10-25T02", "2026-10-25T02+01:00",
    ]  # fmt: skip


def length(partition: Partition) -> float:
    assert partition.start is not None
    assert partition.end is not None
    return (partition.end.astimezone(UTC) - partition.start.astimezone(UTC)) / timedelta(hours=1)


def test_hours_where_clocks_are_changed() -> None:
    """Every hour has one key: the second of two equal ones is told by its offset, one that is skipped is not there."""
    autumn = keys(Hourly("2026-10-25T01", end="2026-10-25T03", timezone=BERLIN))
    assert autumn == ["2026-10-25T01", "2026-10-25T02", "2026-10-25T02+01:00", "2026-10-25T03"]
    assert autumn == sorted(autumn)
    spring = Hourly("2026-03-29T01", end="2026-03-29T03", timezone=BERLIN)
    assert keys(spring) == ["2026-03-29T01", "2026-03-29T03"]
    with pytest.raises(KeyError):
        spring["2026-03-29T02"]
    assert keys(Hourly("2026-11-04T10"), NOON) == ["2026-11-04T10", "2026-11-04T11"]
    early = Hourly("0999-01-01T00", end="0999-01-01T01")
    assert keys(early) == ["0999-01-01T00", "0999-01-01T01"]
    assert early["0999-01-01T01"].key == "0999-01-01T01"
    monrovia = Hourly("1972-01-06T23", end="1972-01-07T01", timezone="Africa/Monrovia")  # by seconds
    assert [monrovia[key].key for key in keys(monrovia)] == keys(monrovia)
    lord_howe = keys(Hourly("2026-04-05T01", timezone="Australia/Lord_Howe"))
    assert lord_howe[:3] == ["2026-04-05T01", "2026-04-05T01:30+10:30", "2026-04-05T02:30"]


ZONES = st.sampled_from(
    ["UTC", BERLIN, "America/St_Johns", "Australia/Lord_Howe", "America/Santiago", "Asia/Kolkata", "Africa/Cairo"]
)


@given(ZONES, st.dates(date(2025, 1, 1), date(2027, 1, 1)), st.integers(0, 30))
def test_time_is_divided_without_a_gap(zone: str, start: date, count: int) -> None:
    """Every partition begins where the one before it ends, has a key of its own, and is found by it."""
    for of in (Daily(start, timezone=zone), Hourly(start.isoformat(), timezone=zone)):
        found = [of.at(index) for index in range(count + 1)]
        assert [p.start for p in found[1:]] == [p.end for p in found[:-1]]
        assert [of[p.key] for p in found] == found
        assert len({p.key for p in found}) == len(found) == len({p.digest for p in found})
        end = found[-1].end
        assert end is not None
        assert Moment(end).partitions(of) == tuple(found)
        assert Moment(end.astimezone(UTC) - timedelta(microseconds=1)).count(of) == count


@given(
    st.timedeltas(timedelta(seconds=1), timedelta(days=400)).map(lambda t: timedelta(seconds=int(t.total_seconds())))
)
def test_a_length_of_time_is_read_as_it_is_shown(length: timedelta) -> None:
    """What is shown is read back; what is no length of time is none."""
    assert duration_of(shown_duration(length)) == length == duration_of(length)
    for wrong in ("", "0s", "1 day", "-1d", "1.5h", 60, timedelta(0), None, "99999999999d"):
        assert duration_of(wrong) is None


def test_which_partitions_belong_together() -> None:
    """The same key; all hours of a day, the day of an hour; so many days up to the end of one; what is not there is not given."""
    days = Daily("2026-11-01")
    assert pairs(days, days)["2026-11-02"] == ["2026-11-02"]
    week = pairs(days, Daily("2026-10-30"), timedelta(days=3))
    assert week["2026-11-01"] == ["2026-10-30", "2026-10-31", "2026-11-01"]
    assert pairs(days, Daily("2026-11-03"), timedelta(days=3))["2026-11-01"] == []
    hours = pairs(days, Hourly("2026-11-01"))
    assert (hours["2026-11-02"][0], hours["2026-11-02"][-1], len(hours["2026-11-02"])) == (
        "2026-11-02T00",
        "2026-11-02T23",
        24,
    )
    assert pairs(Hourly("2026-11-03T22"), days)["2026-11-03T23"] == ["2026-11-03"]
    assert pairs(Hourly("2026-11-03T22"), Hourly("2026-11-01"), timedelta(hours=2))["2026-11-03T22"] == [
        "2026-11-03T21",
        "2026-11-03T22",
    ]
    assert pairs(Static(["en"]), Static(["de", "en"])) == {"en": ["en"]}
    for zone, day in (("America/Santiago", "2026-09-05"), ("Africa/Cairo", "2026-04-23")):  # the next begins at one
        every = Hourly("2026-01-01T00", timezone=zone)
        assert (
            pairs(Daily(day, timezone=zone), every, timedelta(days=1))[day]
            == pairs(Daily(day, timezone=zone), every)[day]
        )
        assert len(pairs(Daily(day, timezone=zone), every)[day]) == 24
    berlin = Daily("2026-10-20", timezone=BERLIN)
    assert pairs(berlin, berlin, timedelta(days=2))["2026-10-26"] == ["2026-10-25", "2026-10-26"]


@pytest.mark.parametrize("zone", ["UTC", BERLIN, "America/New_York"])
def test_the_calendar_has_a_beginning_and_an_end(zone: str) -> None:
    """A window that goes further back than years are counted is all there is; the last day and hour of the calendar are no partitions."""
    days, hours = Daily("2026-11-02", timezone=zone), Hourly("2026-11-03T22", timezone=zone)
    for window in (timedelta(days=999_999), timedelta(days=2026 * 365)):
        assert pairs(days, days, window)["2026-11-03"] == ["2026-11-02", "2026-11-03"]
        assert pairs(hours, hours, window)["2026-11-03T23"] == ["2026-11-03T22", "2026-11-03T23"]
    for of, key in ((days, "9999-12-31"), (days, "0001-01-01"), (hours, "9999-12-31T23"), (hours, "0001-01-01T00")):
        with pytest.raises(KeyError):
            of[key]


def test_what_is_there_is_told_without_a_list() -> None:
    """The standing of partitions is another one when there are others, and the same when there are not."""
    days, moment = Daily("2026-11-01"), Moment(NOON)
    assert moment.standing(days) == Moment(NOON + timedelta(hours=11)).standing(Daily("2026-11-01"))
    others = (
        Daily("2026-11-02"),
        Hourly("2026-11-01"),
        Daily("2026-11-01", timezone=BERLIN),
        Static(["a"]),
        Static(["b"]),
    )
    assert len({moment.standing(of) for of in (days, *others)}) == 6
    assert moment.standing(days) != Moment(NOON + timedelta(hours=12)).standing(days)
    dynamic = Dynamic(lambda: ["a"])
    assert Moment(NOON, {dynamic: ("a",)}).standing(dynamic) != Moment(NOON, {dynamic: ("a", "b")}).standing(dynamic)


@dataclass
class Unhashable:
    def __call__(self) -> list[str]:
        return ["a"]


WRONG_SETS = [
    (lambda: Daily("2026-13-01"), "has start='2026-13-01', which is no day"),
    (lambda: Daily("2026-11-02", end="2026-11-01"), "ends"),
    (lambda: Daily("2026-11-02", timezone="Berlin"), "has timezone='Berlin', which is no time zone"),
    (lambda: Daily(datetime(2026, 11, 1, tzinfo=UTC)), "which is no day"),
    (lambda: Daily("0001-01-01", timezone="Asia/Tokyo"), "start='0001-01-01', which is beyond the calendar of Asia/Tokyo"),
    (lambda: Daily("9999-12-31"), "start='9999-12-31', which is beyond the calendar of UTC"),
    (lambda: Hourly("0001-01-01T00", timezone="Asia/Tokyo"), "which is beyond the calendar of Asia/Tokyo"),
    (lambda: Hourly("2026-11-01T00", "9999-12-31T23", timezone="America/New_York"), "end='9999-12-31T23', which is beyond"),
    (lambda: Hourly("2026-11-01T00:30"), "which is no full hour"),
    (lambda: Static("de"), "is not a list of texts"),
    (lambda: Static(["de", 1]), "has 1, which is not a text"),
    (lambda: Static(["de", "de"]), "has 'de' twice"),
    (lambda: Static(["a/b"]), "has 'a/b'"),
    (lambda: Static([]), "has no partition"),
    (lambda: Dynamic(["de"]), "takes a function"),
    (lambda: Dynamic(lambda x: x), "takes parameters"),
    (lambda: Dynamic(functools.partial(lambda x, y: x, 1)), "takes parameters"),
    (lambda: Dynamic(Unhashable()), "which has no hash"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "problem"), WRONG_SETS, ids=[problem for _, problem in WRONG_SETS])
def test_wrong_partitions_are_found_where_they_stand(make: object, problem: str) -> None:
    """A mistake names the file and line of the declaration, and what would be right."""
    assert callable(make)
    with pytest.raises(DeclarationError) as found:
        make()
    assert __file__ in found.value.message
    assert problem in found.value.message
    assert found.value.hint


@pytest.mark.parametrize(
    ("make", "hint"),
    [(lambda: Daily("2026-11-02", end="2026-11-01"), 'start="2026-11-01", end="2026-11-02"'),
     (lambda: Hourly("2026-11-02T05", end="2026-11-02"), 'start="2026-11-02T00", end="2026-11-02T05"')],
)  # fmt: skip
def test_an_end_before_the_start_says_how_it_would_be_right(make: object, hint: str) -> None:
    """The hint is a declaration that can be written so."""
    assert callable(make)
    with pytest.raises(DeclarationError, match=r"ends \(2026-11-0[12].*\) before it starts \(2026-11-02") as found:
        make()
    assert found.value.hint == f"For instance: {hint}; end= is the last one, included."


HEAD = """
from datetime import date, datetime
from assetcore import Daily, Dynamic, Hourly, Partition, Static

days, langs = Daily("2026-11-01"), Static(["de", "en"])

@asset(partitions=days)
async def daily() -> list[Page]: ...

@asset(partitions=langs)
async def spoken() -> list[Page]: ...

@asset
async def below(page: Page = each(daily)) -> Page: ...

@asset
async def plain() -> list[Page]: ...
"""

WRONG = [
    ("partitions=langs", "pages: list[Page] = collect(daily)", "nothing says which of", 'collect(daily, partitions="all")'),
    ("partitions=days", "pages: list[Page] = collect(spoken)", "nothing says which of Static(['de', 'en'])", '"all"'),
    ("partitions=Hourly('2026-11-01', None, 'Asia/Tokyo')", "pages: list[Page] = collect(daily)", "their time zones differ", "timezone="),
    ("partitions=Static(['fr'])", "pages: list[Page] = collect(spoken)", "has no 'fr'", "same keys"),
    ("partitions=langs", "pages: list[Page] = collect(spoken, partitions='7d')", "a window of time needs days or hours", "leave"),
    ("partitions=days", "pages: list[Page] = collect(plain, partitions='7d')", "but plain is not partitioned", "Leave partitions= out"),
    ("tags=['a']", "pages: list[Page] = collect(daily, partitions='7d')", "but x is not partitioned", "Leave partitions= out"),
    ("partitions=days", "pages: list[Page] = collect(daily, partitions='soon')", "asks collect(daily, partitions='soon')", '"same", "all"'),
    ("partitions=days", "day: datetime", "as datetime, but Daily hands over date", "day: date"),
    ("partitions=days", "day: int", "as int, but Daily hands over date", "day: date"),
    ("partitions=langs", "lang: date", "as date, but Static hands over str", "lang: str"),
    ("tags=['a']", "day: date", "but is not partitioned", "partitions=Daily("),
    ("partitions=days", "day: date, again: Partition", "takes its partition twice", "once"),
]  # fmt: skip


@pytest.mark.parametrize(("options", "parameters", "problem", "fix"), WRONG, ids=[w[2] for w in WRONG])
def test_a_wrong_declaration_says_what_would_be_right(options: str, parameters: str, problem: str, fix: str) -> None:
    """Partitions that do not belong together, or are taken as something else, are found when the project is loaded."""
    with pytest.raises(DeclarationError) as found:
        load(f"{HEAD}\n@asset({options})\nasync def x({parameters}) -> Page: ...")
    assert problem in found.value.message.replace("\n", " ")
    assert found.value.hint is not None
    assert fix.lower() in found.value.hint.lower().replace("'", '"') or fix.lower() in found.value.hint.lower()


def test_what_is_made_of_each_document_is_divided_likewise() -> None:
    """An asset that is made for each document of a partitioned one is in its partitions; with partitions of its own it is multiplied."""
    graph = load(
        HEAD
        + """
@asset(partitions=days)
async def aligned(page: Page = each(daily)) -> Page: ...

@asset(partitions=langs)
async def pairs(lang: str, page: Page = each(plain)) -> Page: ...

@asset(partitions=days)
async def window(pages: list[Page] = collect(below, partitions="7d")) -> Page: ...

@asset(partitions=langs)
async def everything(pages: list[Page] = collect(daily, partitions="all")) -> Page: ...
"""
    )
    assets = graph.assets
    assert assets["below"].partitions == assets["aligned"].partitions == assets["daily"].partitions
    assert (assets["below"].multiplied, assets["aligned"].multiplied, assets["pairs"].multiplied) == (
        False,
        False,
        True,
    )
    assert graph.chain("aligned") == ("aligned", "daily")
    assert graph.chain("pairs") == ("pairs",)
    (dependency,) = assets["window"].dependencies
    assert (dependency.relation, dependency.is_whole) == (timedelta(days=7), False)
    assert assets["everything"].dependencies[0].is_whole
    assert not graph.is_whole("daily")


def test_hours_of_another_offset_are_no_partitions() -> None:
    """A key is one text only: other ways to write the same hour or day are none."""
    hours = Hourly("2026-11-01")
    for wrong in ("2026-11-01T00+00:00", "2026-11-01T00:00", "2026-11-01", "20261101T00", "2026-10-31T23", "x"):
        with pytest.raises(KeyError):
            hours[wrong]
    with pytest.raises(KeyError):
        Daily("2026-11-01")["20261101"]
    given = datetime(2026, 11, 1, 3, tzinfo=timezone(timedelta(hours=2)))
    assert hours.at(1) == Hourly(given)["2026-11-01T01"]
    assert misfit(hours, hours, "same") is None
    assert issubclass(DeclarationError, AssetcoreError)
