"""A call: what was asked, of which project, and how is it answered?

`@verb()` turns a function into a command: it adds the options that verbs share, runs a coroutine, and keeps stdout for the answer.
Whatever else writes to stdout meanwhile (a project's own print, a library, a worker process) goes to stderr.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import io
import json
import math
import os
import re
import signal
import sys
import threading
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TextIO

import click

from assetcore.cli import TERMINATED, is_own_process
from assetcore.cli.names import (
    complete_asset,
    complete_environment,
    complete_project,
    complete_selection,
    complete_setting,
    names_in,
    remember,
)
from assetcore.errors import (
    AssetcoreError,
    NothingSelectedError,
    SelectionError,
    ServiceError,
    StorageError,
    UsageError,
)
from assetcore.telemetry import configure_logging

if TYPE_CHECKING:
    from rich.console import RenderableType

    from assetcore.session import Session
    from assetcore.settings import Settings

DOCS = "assetcore.docs"
"""Where `--docs` lies until SELECT is read."""
GRACE = 3.0
"""So many seconds may code of the project hold the event loop after Ctrl-C or SIGTERM."""
_LONE = re.compile(r"[\ud800-\udfff]")
"""What Python makes of bytes that are not UTF-8."""
READING = frozenset({"postgres", "store"})
"""The services that a question takes."""
MAKING = frozenset({"postgres", "store", "redis"})
"""The services that a run takes."""


class Terminated(AssetcoreError):
    """SIGTERM ended the call."""

    exit_code = TERMINATED


class _Count(click.IntRange):
    """One or more; whoever writes more than any table holds means all of it."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        return min(super().convert(value, param, ctx), 2**31 - 1)


class _Rate(click.FloatRange):
    """More than nothing, and a number: of NaN nothing is known."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        found = super().convert(value, param, ctx)
        return self.fail("NaN is no number.", param, ctx) if math.isnan(found) else found


COUNT = _Count(min=1)
RATE = _Rate(min=0, min_open=True)


@dataclass(frozen=True, slots=True)
class Call:
    """What was asked, apart from the verb's own arguments."""

    out: TextIO
    json: bool
    root_given: Path | None = None
    project_given: str | None = None
    environment: str | None = None
    config: tuple[str, ...] = ()

    def root(self) -> Path:
        """The folder that holds projects/: --root, or the nearest one upwards."""
        from assetcore.loading import find_root

        return find_root(self.root_given or Path.cwd())

    def settings(self, **given: Any) -> Settings:
        """The settings of the root, with those that options of the verb give."""
        from assetcore.settings import Settings

        return Settings.load(self.root(), environment=self.environment, **given)

    def project(self, root: Path) -> str:
        """The name of the project: --project, PROJECT, or the only one there is. Raises UsageError, NothingSelectedError."""
        from assetcore.loading import package_of, project_names

        names = project_names(root)
        if given := self.project_given:
            given = given if given in names else package_of(root, given)
            if given not in names and not (root / "projects" / given).is_dir():  # loading says what such a folder lacks
                raise NothingSelectedError(
                    f"There is no project {given!r} in {root}.",
                    hint=f"There is: {', '.join(names) or 'none; start one with: aipctl new project NAME'}.",
                )
            return given
        if len(names) == 1:
            return names[0]
        if not names:
            raise UsageError(f"There is no project in {root / 'projects'}.", hint="Start one: aipctl new project NAME")
        raise UsageError(
            f"There are {len(names)} projects: {', '.join(names)}.",
            hint="Say which: -p NAME, or PROJECT=NAME in the environment.",
        )

    @asynccontextmanager
    async def opened(
        self,
        services: Collection[str] = READING,
        ahead: Collection[str] = (),
        *,
        anew: bool = False,
        naming: bool = False,
        **given: Any,
    ) -> AsyncIterator[Session]:
        """The project, connected to these services; those without an address in the settings are started.

        `ahead` names services that may be needed later: they are started without waiting for them. `given` are settings that
        options of the verb give. An environment that --env names must be there, unless the call may begin it (`anew`). Where environments
        are named, by it or by the verb (`naming`), those that there are then are remembered for completion.
        """
        from assetcore import stack
        from assetcore.session import Session

        settings = self.settings(**given)
        name = self.project(settings.root)
        addresses = await stack.up(settings, services, self.say, ahead=ahead)
        connected, embedded = addresses.applied_to(settings), settings.database_url is None
        async with Session.open(
            connected, name, environment=self.environment, config=self.config, automatic_schema=embedded
        ) as session:
            remember(settings.home, name, names_in(session.graph))
            if self.environment and not anew:
                await session.refuse_unknown_environment()
            yield session
            if self.environment or naming:
                with suppress(ServiceError):  # what was asked for is done
                    there = [one["environment"] for one in await session.environments()]
                    remember(settings.home, name, {"environments": there})
        await stack.preload(settings)

    def say(self, line: str) -> None:
        """Tell a person something that is not the answer."""
        click.echo(line, err=True)

    def answer(self, answer: Mapping[str, Any], draw: Callable[[Any], RenderableType]) -> None:
        """Print the answer: as one JSON object, or as `draw` shows it to people."""
        if self.json:
            self.objects(answer)
        elif isinstance(drawn := draw(answer), str):
            self.text(drawn + "\n")
        else:
            self.draw(drawn)

    def objects(self, *answers: Mapping[str, Any]) -> None:
        """Print each answer as one line of JSON."""
        self.text("".join(as_json(answer, self.out.encoding or "utf-8") for answer in answers))

    def draw(self, drawn: RenderableType) -> None:
        """Print for people: as wide as the terminal, 80 columns elsewhere."""
        from rich.console import Console

        console = Console(file=self.out, highlight=False, markup=False, emoji=False)
        if console.is_terminal:
            console.print(drawn, crop=False)
        else:
            with console.capture() as capture:
                console.print(drawn, crop=False)
            self.text("".join(line.rstrip() + "\n" for line in capture.get().splitlines()))

    def text(self, text: str) -> None:
        self.out.write(text)
        self.out.flush()

    def binary(self, content: bytes) -> None:
        """Print bytes as they are."""
        stream: BinaryIO | None = getattr(self.out, "buffer", None)
        if stream is None:
            self.text(content.decode(errors="replace"))
        else:
            self.out.flush()
            stream.write(content)
            stream.flush()


def _environment(context: click.Context, parameter: click.Parameter, name: str | None) -> str | None:
    if name is not None and not context.resilient_parsing:
        from assetcore.settings import check_environment

        check_environment(name)
    return name


_PROJECT = click.option("-p", "--project", "project_given", envvar="PROJECT", metavar="NAME", shell_complete=complete_project,
                        help="The project; by default the only one there is.")  # fmt: skip
_ENVIRONMENT = click.option("--env", "environment", metavar="NAME", callback=_environment, shell_complete=complete_environment,
                            help="The environment; by default the one in the settings.")  # fmt: skip
_CONFIG = {
    "multiple": True,
    "shell_complete": complete_setting,
    "metavar": "ASSET.FIELD=VALUE",
    "help": "A config value for this call.",
}
_OPTIONS = (
    click.option("--root", "root_given", type=click.Path(path_type=Path), metavar="DIR", help="The folder that holds projects/."),
    click.option("--json", "as_json", is_flag=True, help="Print one JSON object."),
    click.option("--debug", is_flag=True, expose_value=False, help="Show the traceback of an error."),
)  # fmt: skip


def verb(
    *,
    project: bool = True,
    environment: bool = True,
    config: bool = True,
    group: click.Group | None = None,
    name: str | None = None,
) -> Callable[[Callable[..., Any]], click.Command]:
    """Make a function (or coroutine function) that takes a Call first a command, with the options that verbs share.

    Where an environment or config changes nothing of a verb's answer, it offers no option for it. `--set` is taken all the same: it may
    be what a project cannot be opened without.
    """

    def decorate(function: Callable[..., Any]) -> click.Command:
        @functools.wraps(function)
        def run(*args: Any, as_json: bool, root_given: Path | None, **kwargs: Any) -> None:
            if is_own_process():
                configure_logging(sys.stderr)
            for given in kwargs.values():
                for text in given if isinstance(given, tuple) else (given,):
                    if isinstance(text, str) and _LONE.search(text):
                        raise UsageError(f"{text!r} is no text: it is not UTF-8.")
            shared = {key: kwargs.pop(key) for key in ("project_given", "environment", "config") if key in kwargs}
            with _answers_only() as out:
                result = function(Call(out=out, json=as_json, root_given=root_given, **shared), *args, **kwargs)
                if inspect.iscoroutine(result):
                    _run(result)

        command: Callable[..., Any] = run
        about = [
            _PROJECT,
            *([_ENVIRONMENT] if environment else []),
            click.option("--set", "config", hidden=not config, **_CONFIG),
        ]
        for option in reversed((*(about if project else ()), *_OPTIONS)):
            command = option(command)
        make = group.command if group else click.command
        return make(name or function.__name__.rstrip("_").replace("_", "-"))(command)

    return decorate


def as_json(answer: Mapping[str, Any], encoding: str) -> str:
    """The answer as one line of JSON; escaped where the encoding does not have all its characters."""
    line = json.dumps(answer, ensure_ascii=False, default=str) + "\n"
    try:
        line.encode(encoding)
    except UnicodeEncodeError:
        return json.dumps(answer, default=str) + "\n"
    return line


def selection_argument(
    *, required: bool = False, documents: bool = False
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """SELECT, after its grammar was checked: before anything is started for it. With `documents`, `--docs` narrows it.

    Where it may be left out, it may also be several words: they are put together again, so that quotes that are missing in the
    shell are told as what they are, two terms beside each other.
    """

    def read(context: click.Context, parameter: click.Parameter, words: tuple[str, ...] | str) -> str | None:
        select = words if isinstance(words, str) else " ".join(words) if words else None
        if context.resilient_parsing:
            return select
        from assetcore.grammar import narrowed, parse

        if (docs := context.meta.get(DOCS)) is not None:
            return narrowed(select, docs)
        if select is not None:
            parse(select)
        return select

    def note(context: click.Context, parameter: click.Parameter, docs: str | None) -> None:
        context.meta[DOCS] = docs

    form: dict[str, Any] = {} if required else {"metavar": "[SELECT]", "nargs": -1}
    argument = click.argument("select", callback=read, shell_complete=complete_selection, **form)
    if not documents:
        return argument
    option = click.option(
        "--docs", metavar="EXPR", is_eager=True, expose_value=False, callback=note,
        help="Of these documents alone: with, 'ref/*', a..c; with and, or, not.",
    )  # fmt: skip
    return lambda function: argument(option(function))


def reference_argument(
    name: str = "ref", *, required: bool = True
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A REF, after its form was checked."""

    def read(context: click.Context, parameter: click.Parameter, text: str | None) -> str | None:
        if text is not None and not context.resilient_parsing:
            from assetcore.refs import parse_ref

            try:
                parse_ref(text)
            except SelectionError as error:
                raise _if_key(text) or error from None
        return text

    return click.argument(
        name, metavar="REF" if required else "[REF]", required=required, callback=read, shell_complete=complete_asset
    )


def _if_key(text: str) -> SelectionError | None:
    """What to say where somebody asks about the key of an object, as Prefect's tables, traces and messages have it."""
    from assetcore.storage.keys import Key, parse_key

    try:
        asset = parse_key(Key("/".join(text.split("/")[-5:]))).step
    except StorageError:
        return None
    hint = f"Its documents are among these: aipctl show {asset}, which with --json has the key of each."
    return SelectionError(f"{text!r} is not a REF: it is the key of an object of {asset}.", hint=hint)


class _Threads(ThreadPoolExecutor):
    """The threads of the loop. What goes on in them cannot be ended: where the call is stopped, nobody waits for it."""

    stopped = False

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        super().shutdown(wait and not self.stopped, cancel_futures=cancel_futures)


def _run(work: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine to its end. Ctrl-C and SIGTERM cancel it, so that it can leave things in order.

    Where code of the project does not let go of the loop, they end what it does, at the second time or after `GRACE`. A second Ctrl-C waits
    for nothing, as ever.
    """
    terminated, heard, asked = False, threading.Event(), set[int]()
    left_to_us = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # and not ignored, or somebody else's
    threads = _Threads(thread_name_prefix="asyncio")

    async def guarded() -> None:
        task, loop, caller = asyncio.current_task(), asyncio.get_running_loop(), threading.get_ident()
        assert task is not None

        def hear() -> None:
            heard.set()
            task.cancel()

        def insist(number: int) -> None:
            if not heard.wait(GRACE):
                signal.pthread_kill(caller, number)

        def stop(number: int, _: object) -> None:
            nonlocal terminated
            if number == signal.SIGINT and (number in asked or task.done()):
                raise KeyboardInterrupt
            terminated = terminated or number == signal.SIGTERM
            if number in asked and not heard.is_set():
                raise Terminated("Terminated.")
            loop.call_soon_threadsafe(hear)
            if number not in asked:
                asked.add(number)
                threading.Thread(target=insist, args=(number,), daemon=True).start()

        with suppress(ValueError):  # not the main thread: it simply ends
            signal.signal(signal.SIGTERM, stop)
            if left_to_us:
                signal.signal(signal.SIGINT, stop)
        loop.set_default_executor(threads)
        try:
            await work
        except asyncio.CancelledError:
            threads.stopped = True
            raise

    try:
        asyncio.run(guarded())
    except asyncio.CancelledError:
        if not terminated:
            raise KeyboardInterrupt from None
        raise Terminated("Terminated.") from None
    except BaseException as error:
        # While a flow runs, Prefect's handler stands in the place of ours; what it raises is no Exception.
        if type(error).__name__ != "TerminationSignal":
            raise
        raise Terminated("Terminated.") from None
    finally:
        heard.set()
        with suppress(ValueError):
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            if left_to_us:
                signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def _answers_only() -> Iterator[TextIO]:
    """Keep stdout for the answer: it is handed over, and whatever else is written to it goes to stderr."""
    real = sys.stdout
    try:
        descriptor = real.fileno()
    except (OSError, ValueError, io.UnsupportedOperation):
        descriptor = None
    if descriptor != 1:  # captured in this process: there is no file to protect
        with redirect_stdout(sys.stderr):
            yield real
        return
    real.flush()
    saved = os.dup(1)
    os.dup2(2, 1)
    try:
        with (
            open(saved, "w", encoding=real.encoding, errors="replace", closefd=False) as out,
            redirect_stdout(sys.stderr),
        ):
            yield out
    finally:
        os.dup2(saved, 1)
        os.close(saved)
