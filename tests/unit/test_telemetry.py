"""Telemetry: which spans a run leaves, and what a line of the log says."""

from __future__ import annotations

import io
import json
import logging
import pickle
from collections.abc import Iterator, Sequence

import pytest

from assetcore import telemetry
from assetcore.documents import Document
from assetcore.settings import Settings
from assetcore.telemetry import Recorder, Span, Trace, configure_logging, enrich, get_pipeline_logger, span


class Kept:
    """A sink that keeps what it is given, or fails."""

    def __init__(self, fails: bool = False) -> None:
        self.spans: list[Span] = []
        self.calls = 0
        self.fails = fails

    async def __call__(self, spans: Sequence[Span]) -> None:
        self.calls += 1
        if self.fails:
            raise OSError("no space left")
        self.spans.extend(spans)


def tree(spans: Sequence[Span]) -> dict[str, str | None]:
    """The name of each span's parent."""
    names = {one.id: one.name for one in spans}
    return {one.name: names.get(one.parent or 0) for one in spans}


async def test_spans_are_a_tree_below_the_run() -> None:
    """Run > asset > unit > what is called in it; each knows its parent, its time and what was noted."""
    kept = Kept()
    recorder = Recorder("demo", "r1", [kept])
    with recorder.span("asset", "words", tags=None):
        with telemetry.unit("a.txt", {}), span("generate", "llm", model="small") as call:
            call.set(tokens=12, usd=0.5)
            enrich(cached_tokens=3)
        telemetry.ended("b.txt", 2.5, None, tokens=4)
    await recorder.close("done", units=2)
    assert tree(kept.spans) == {"generate": "a.txt", "a.txt": "words", "b.txt": "words", "words": "demo", "demo": None}
    (one,) = [s for s in kept.spans if s.name == "generate"]
    assert one.attributes == {"model": "small", "tokens": 12, "usd": 0.5, "cached_tokens": 3}
    assert len({s.id for s in kept.spans}) == 5
    told = Trace("r1", kept.spans).to_json()
    assert (told["run"], told["dropped"], len(told["spans"])) == ("r1", 0, 5)
    assert told["spans"][-1]["attributes"] == {"run": "r1", "status": "done", "units": 2}


async def test_a_quick_unit_leaves_no_span() -> None:
    """Units below the threshold cost no row: a thousand quick ones leave nothing, a slow one and one that failed leave one each."""
    kept = Kept()
    recorder = Recorder("demo", "r1", [kept])
    with recorder.span("asset", "words"):
        for number in range(1000):
            with telemetry.unit(str(number), {}):
                pass
            telemetry.ended(str(number), telemetry.UNIT_SECONDS / 2, None)
        with telemetry.unit("slow", {}) as slow:
            slow.seconds = telemetry.UNIT_SECONDS
        with telemetry.unit("failed", {}) as failed:
            failed.error = "ValueError: no"
    await recorder.close("failed")
    assert [one.name for one in kept.spans] == ["slow", "failed", "words", "demo"]


async def test_a_trace_is_bounded() -> None:
    """Whatever a run does, its trace has an end; the root says how many are missing."""
    kept = Kept()
    recorder = Recorder("demo", "r1", [kept])
    with recorder.span("asset", "words"):
        for number in range(telemetry.LARGEST_TRACE + 50):
            telemetry.ended(str(number), 5, None)
            if number % 1000 == 0:
                await recorder.flush()
    await recorder.close("done")
    assert len(kept.spans) == telemetry.LARGEST_TRACE + 1
    assert kept.spans[-1].attributes["dropped"] == 51
    assert kept.calls <= telemetry.LARGEST_TRACE // telemetry.FLUSHED + 1


async def test_a_sink_that_fails_reaches_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """It is told once and not asked again; the others get everything."""
    broken, kept = Kept(fails=True), Kept()
    recorder = Recorder("demo", "r1", [broken, kept])
    for number in range(3):
        with recorder.span("asset", str(number)):
            pass
        await recorder.flush(least=1)
    await recorder.close("done")
    assert (broken.calls, len(kept.spans)) == (1, 4)
    assert caplog.messages == ["spans are left out from now on: OSError: no space left"]


def test_outside_a_run_nothing_is_recorded_and_nothing_fails() -> None:
    """An asset stays an ordinary function: in a test or a notebook its spans go nowhere."""
    with span("generate", model="small") as one, telemetry.unit("a", {}):
        one.set(tokens=1)
        enrich(tokens=2)
    telemetry.ended("a", 10, None)
    assert one.attributes == {"model": "small", "tokens": 1}


def test_an_exception_in_a_span_is_noted_and_goes_on() -> None:
    """The span has the error, and whoever called has it, too."""
    recorder = Recorder("demo", "r1")
    with pytest.raises(ValueError, match="wrong"), recorder.span("asset", "words") as one:
        raise ValueError("wrong")
    assert one.error == "ValueError: wrong"


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """What is logged, as it is written where there is no terminal."""
    stream, top = io.StringIO(), logging.getLogger(telemetry.LOGS)
    before = (list(top.handlers), top.level, top.propagate)
    configure_logging(stream)
    yield stream
    top.handlers[:], top.level, top.propagate = before[0], before[1], before[2]


class Page(Document):
    """A page."""


def test_a_line_of_the_log_says_where_it_was_written(log: io.StringIO) -> None:
    """JSON, one object a line, with project, run, asset, unit, the document, and what was handed over."""
    logger = get_pipeline_logger("projects.demo", team="ours")
    page = Page("a.txt", text="alpha")
    with Recorder("demo", "r1").span("asset", "words"), telemetry.unit("a", {"page": page}):
        logger.info("split into %s", 3, parts=3)
    logger.warning("outside")
    inside, outside = map(json.loads, log.getvalue().splitlines())
    assert inside.pop("at").endswith("+00:00")
    assert inside == {
        "level": "info", "logger": "projects.demo", "message": "split into 3", "project": "demo", "run": "r1", "asset": "words",
        "unit": "a", "document": "a.txt", "document_id": page.id, "team": "ours", "parts": 3,
    }  # fmt: skip
    assert (outside["level"], outside["message"], "run" in outside) == ("warning", "outside", False)


async def test_what_a_worker_logs_and_marks_is_told_by_the_run(log: io.StringIO) -> None:
    """A worker knows no run: its lines and spans come back with the outcome, as bytes, and then say all that lines of a run say."""
    page, kept = Page("a.txt", text="words"), Kept()
    logger = get_pipeline_logger("projects.demo", team="ours")
    with telemetry.hear() as heard:
        logger.info("split into %s", 3, parts=3, odd=object)
        try:
            raise ValueError("too long")
        except ValueError:
            logger.exception("no: %d", "slip")
        with span("parse"), span("tokens", model="small"):
            pass
    assert log.getvalue() == ""
    heard = pickle.loads(pickle.dumps(heard))
    recorder = Recorder("demo", "r1", [kept])
    with recorder.span("asset", "words"):
        telemetry.ended("a", 0.1, None, values={"page": page}, heard=heard)
    await recorder.close("done")
    assert tree(kept.spans) == {"demo": None, "words": "demo", "a": "words", "parse": "a", "tokens": "parse"}
    first, second = map(json.loads, log.getvalue().splitlines())
    assert first.pop("at").endswith("+00:00")
    assert first == {
        "level": "info", "logger": "projects.demo", "message": "split into 3", "project": "demo", "run": "r1", "asset": "words",
        "unit": "a", "document": "a.txt", "document_id": page.id, "team": "ours", "parts": 3, "odd": "<class 'object'>",
    }  # fmt: skip
    assert (second["level"], second["message"], second["unit"]) == ("error", "no: %d", "a")
    assert second["traceback"].endswith("ValueError: too long")


def test_a_worker_that_never_stops_talking_is_cut_off(log: io.StringIO) -> None:
    """A thousand lines of one call, and one that says so; lines for debugging are not kept unless they are asked for."""
    with telemetry.hear() as heard:
        for number in range(2_000):
            get_pipeline_logger("projects.demo").info("line %s", number)
            get_pipeline_logger("projects.demo").debug("nobody asked")
    telemetry.tell(heard, check="short")
    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    assert [(line["message"], line["check"]) for line in lines[-2:]] == [
        ("line 999", "short"),
        ("more than 1000 lines: the rest is left out", "short"),
    ]


def test_on_a_terminal_the_log_is_for_people() -> None:
    """The asset and unit first, then the sentence, then the facts."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    top, stream = logging.getLogger(telemetry.LOGS), Terminal()
    before = (list(top.handlers), top.level, top.propagate)
    try:
        configure_logging(stream)
        with Recorder("demo", "r1").span("asset", "words"), telemetry.unit("a", {}):
            get_pipeline_logger("projects.demo").error("too long", length=90)
        get_pipeline_logger("projects.demo").info("outside")
    finally:
        top.handlers[:], top.level, top.propagate = before[0], before[1], before[2]
    assert stream.getvalue() == "error: words[a]: too long length=90\ninfo: projects.demo: outside\n"


def test_no_collector_is_asked_for_without_a_key_or_an_address() -> None:
    """What LMNR and OpenTelemetry need is imported only for those who have one."""
    import subprocess
    import sys

    script = (
        "import sys; from pathlib import Path; from assetcore.settings import Settings\n"
        "from assetcore.collectors import collector_for\n"
        "assert collector_for(Settings.load(Path('/nowhere')), 'p', 'r') is None\n"
        "assert collector_for(Settings.load(Path('/nowhere'), otlp_endpoint='http://h:4318'), 'p', 'r') is not None\n"
        "sys.exit(', '.join({'lmnr', 'opentelemetry', 'grpc', 'requests'} & set(sys.modules)) or 0)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
    assert "hush" not in str(
        Settings.load(__import__("pathlib").Path("/nowhere"), lmnr_project_api_key="hush").origins()
    )
