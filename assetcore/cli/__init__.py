"""The command: which verbs are there, and how does each of them end?

    assetcore.cli            this file: the table of verbs, exit codes, how errors are told
    assetcore.cli.call       what was asked: project, environment, root; how a verb answers
    assetcore.cli.ask        ls graph plan why lineage history show diff runs trace search
    assetcore.cli.make       materialize export verify gc
    assetcore.cli.views      env
    assetcore.cli.trust      journal forget catalog
    assetcore.cli.platform   init up down check clean db blocks deploy config completion
    assetcore.cli.flows      run
    assetcore.cli.scaffold   new
    assetcore.cli.vectors    vectors ls trial best rebuild rollback
    assetcore.cli.show       tables and trees for people, drawn from the JSON answers
    assetcore.cli.progress   how far a run is
    assetcore.cli.plain      what of a text may reach a terminal

`aipctl --help`, `aipctl VERB --help` and shell completion import click and nothing else that is heavy: a verb's module is imported
when the verb is called, and the rooms behind it when it runs. A test holds this.

Answers go to stdout, everything else to stderr. Exit codes: 0 done, 1 something failed, 2 `plan --exit-code` found something stale,
4 the selection matched nothing, 64 wrong usage, 69 a service cannot be reached, 130 interrupted, 143 terminated.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import select
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast

import click

from assetcore.cli.plain import plain
from assetcore.errors import AssetcoreError, ServiceError
from assetcore.preload import MEMORY

__all__ = ["end_in_time", "is_own_process", "main", "return_memory"]

SENDERS = ("EventsWorker", "APILogWorker")
"""The loggers of what sends to Prefect, until the command has ended."""
EXIT_SECONDS = 15
STOPPED_SECONDS = 3
GARBAGE_OBJECTS = 300_000
"""How many new objects make Python look for garbage; at its own 700 that takes a quarter of every command and of a build."""
RETURNED_BYTES = 1 << 18
M_MMAP_THRESHOLD = -3
USAGE = 64
UNREACHABLE = 69
INTERRUPTED = 130
BROKEN_PIPE = 141
TERMINATED = 143

VERBS: Mapping[str, Mapping[str, tuple[str, str]]] = {
    "Ask": {
        "ls": ("ask", "List assets: counts, when they were made, what is stale."),
        "graph": ("ask", "Draw who is made out of whom."),
        "plan": ("ask", "Show what is stale, and why."),
        "why": ("ask", "Explain why one unit is stale, down to the change."),
        "lineage": ("ask", "Trace where something came from, or what came of it."),
        "history": ("ask", "Show what was done to something, by which run, and why."),
        "show": ("ask", "Print a document, or list those of a unit or an asset."),
        "diff": ("ask", "Compare two documents, or one thing at two times."),
        "search": ("ask", "Find documents by words and by meaning."),
        "journal": ("trust", "Tell what was done, when, by whom and why."),
        "runs": ("ask", "List what ran, or show one run."),
        "trace": ("ask", "Show where the time of a run went, and its cost."),
    },
    "Make": {
        "materialize": ("make", "Make what is stale, and only that."),
        "accept": ("make", "Have what earlier code made count as made by this code."),
        "export": ("make", "Write documents into a folder."),
        "verify": ("make", "Read what is stored: is it what lineage says?"),
        "forget": ("trust", "Erase a document of a source, with all that came of it."),
        "vectors": ("vectors", "Look after the indexes of vectors."),
        "gc": ("make", "Remove objects that nothing refers to."),
        "env": ("views", "Create, compare, promote and drop environments."),
        "run": ("flows", "Run a flow of the project, here or by a deployment."),
        "new": ("scaffold", "Start a project from a small working example."),
    },
    "Platform": {
        "init": ("platform", "Make a folder ready: .env, services, a profile of Prefect."),
        "up": ("platform", "Start the services that the settings give no address for."),
        "down": ("platform", "Stop the services that were started."),
        "check": ("platform", "Ask every service how it is."),
        "clean": ("platform", "Stop the services and remove their data."),
        "catalog": ("trust", "Make the database again of the bucket, or compare the two."),
        "db": ("platform", "Look after the database's schema."),
        "blocks": ("platform", "Tell Prefect what workers need: store, secrets, variables."),
        "deploy": ("platform", "Register a project with Prefect, for the workers of a work pool."),
        "config": ("platform", "Show the settings, and where each came from."),
        "completion": ("platform", "Print the completion script for a shell."),
    },
}
_PLACES = {verb: place for section in VERBS.values() for verb, place in section.items()}


class Verbs(click.Group):
    """The group of all verbs; their modules are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_PLACES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _PLACES:
            return None
        module = importlib.import_module(f"assetcore.cli.{_PLACES[cmd_name][0]}")
        return cast(click.Command, getattr(module, cmd_name))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in _PLACES and not args[0].startswith("-"):
            raise click.exceptions.NoSuchCommand(args[0], possibilities=list(_PLACES), ctx=ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for section, verbs in VERBS.items():
            with formatter.section(section):
                formatter.write_dl([(verb, line) for verb, (_, line) in verbs.items()])

    def make_context(self, *arguments: Any, **extra: Any) -> click.Context:
        with _pipes_told():
            return super().make_context(*arguments, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        with _pipes_told():
            return super().invoke(ctx)

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run a verb; every way in which it can end becomes an exit code and, if need be, a sentence on stderr."""
        given = list(sys.argv[1:] if args is None else args)
        complete_var = complete_var or "_AIPCTL_COMPLETE"
        _open_what_is_closed()
        if own := standalone_mode and is_own_process():
            gc.set_threshold(GARBAGE_OBJECTS)
        try:
            code = super().main(given, prog_name, complete_var, standalone_mode=False, **extra)
        except BaseException as error:
            if isinstance(error, SystemExit) and complete_var in os.environ:  # the shell has been told what there is
                raise
            code = _tell(error, given)
        code = code if isinstance(code, int) else 0
        if standalone_mode:
            end_in_time(code)
            if own:
                _let_go_of_stdout()
                gc.freeze()  # looking for garbage once more, at the end, would take 0.1 to 0.4 s
            sys.exit(code)
        return code


@click.command(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]}, invoke_without_command=True)
@click.option("--version", is_flag=True, help="Print the version.")
@click.pass_context
def main(context: click.Context, version: bool) -> None:
    """Keep documents up to date: what is stale, why, and make only that.

    \b
    An asset is a set of documents and the function that makes it.
    SELECT chooses assets:  chunks   +chunks   tag:report and not status:stale
    REF names one thing:    chunks   chunks[unit]   chunks[unit]/document   an id
    """
    if version:
        from importlib.metadata import version as installed  # 20 ms, for this flag only

        click.echo(f"assetcore {installed('assetcore')}")
    elif context.invoked_subcommand is None:
        click.echo(context.get_help())


def _open_what_is_closed() -> None:
    """Begun with stdin, stdout or stderr closed (`>&-`), what is said there goes nowhere, and no file that is opened takes its place."""
    if None in (sys.stdin, sys.stdout, sys.stderr):
        while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
            pass
        os.close(descriptor)
        sys.stdin = sys.stdin or os.fdopen(0, closefd=False)
        sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
        sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)


@contextmanager
def _pipes_told() -> Iterator[None]:
    """A pipe that nobody reads any more (`aipctl ... | head`) ends the command quietly. Of any other click would believe the same."""
    try:
        yield
    except BrokenPipeError as error:
        if _is_unread():
            raise click.exceptions.Exit(BROKEN_PIPE) from None
        raise ServiceError(f"A service cannot be reached: {error}.", hint="Look at: aipctl check") from error


def _is_unread() -> bool:
    """Whether nobody reads stdout or stderr any more."""
    outputs = select.poll()
    for descriptor in (1, 2):
        outputs.register(descriptor, 0)
    return any(found & (select.POLLERR | select.POLLHUP) for _, found in outputs.poll(0))


def _let_go_of_stdout() -> None:
    """What cannot be written to stdout was told, or nobody wants it: Python would try once more at its end, and show a traceback."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        with suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, sys.stdout.fileno())
            os.close(nowhere)


def end_in_time(code: int) -> None:
    """All is stored by now. Prefect still sends what it has to show; with its API gone that would take minutes. And where the command was
    stopped, a thread of the project's own may go on, which nobody can end.

    Only the command's own process is ended so: whoever calls `main` in theirs keeps it.
    """
    stopped = code in (INTERRUPTED, TERMINATED)
    if is_own_process() and (stopped or "prefect" in sys.modules):
        import signal  # loaded already, by what was running
        import threading

        from assetcore.telemetry import hush

        hush(*SENDERS)  # that they are at it is nothing to tell

        def end(*_: object) -> None:
            with suppress(OSError, ValueError):  # nobody reads it
                sys.stdout.flush()
            os._exit(code)

        if stopped:  # whoever cannot wait need not
            signal.signal(signal.SIGINT, end)
        timer = threading.Timer(STOPPED_SECONDS if stopped else EXIT_SECONDS, end)
        timer.daemon = True
        timer.start()


def return_memory() -> None:
    """Have what a batch needed go back to the system when the batch is done: 0.4 instead of 0.55 GB at the peak of a build.

    Arrow and polars are told so before they are imported. The C library raises the size from which on it gives back, unless it is told
    that size.
    """
    if not is_own_process() or sys.platform != "linux":
        return
    import ctypes  # for this only

    for name, value in MEMORY.items():
        os.environ.setdefault(name, value)
    os.environ.setdefault("MALLOC_MMAP_THRESHOLD_", str(RETURNED_BYTES))  # processes that are started
    with suppress(AttributeError):  # a C library without it
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, RETURNED_BYTES)


def is_own_process() -> bool:
    """Whether this process is the command, and no program that calls `main`."""
    program = Path(sys.argv[0])
    return program.name == "aipctl" or program.parts[-2:] == ("assetcore", "__main__.py")


def _tell(error: BaseException, given: Sequence[str]) -> int:
    """Say what went wrong, on stderr and with --json also as an object on stdout; returns the exit code."""
    if "--debug" in given:
        import traceback  # only where it is asked for

        traceback.print_exception(error, file=sys.stderr)
    kind, message, hint, code = _sentence(error)
    with suppress(OSError):  # nobody reads it, or the disk is full: the exit code is left
        click.echo(plain(f"error: {message}" + (f"\n  {hint}" if hint else "")), err=True)
    if "--json" in given:
        with suppress(OSError):
            click.echo(json.dumps({"error": {"kind": kind, "message": message, "hint": hint, "exit_code": code}}))
    return code


def _sentence(error: BaseException) -> tuple[str, str, str | None, int]:
    """What kind of error it is, the message, the hint and the exit code."""
    kind = type(error).__name__
    match error:
        case AssetcoreError():
            return kind, error.message, error.hint, error.exit_code
        case click.Abort() | KeyboardInterrupt():
            return "Interrupted", "Interrupted.", None, INTERRUPTED
        case SystemExit():
            return kind, f"Code of the project ended the command: sys.exit({error.code!r}).", None, 1
        case click.UsageError():
            hint = f"See: {error.ctx.command_path} --help" if error.ctx else None
            return "UsageError", error.format_message(), hint, USAGE
        case click.ClickException():
            return "UsageError", error.format_message(), None, USAGE
        case ConnectionError():
            return kind, f"A service cannot be reached: {error}.", "Look at: aipctl check", UNREACHABLE
        case OSError():
            place = f": {error.filename}" if error.filename else ""
            return kind, f"{error.strerror or error}{place}.", None, 1
        case _:
            what = str(error).partition("\n")[0][:300]
            sentence = f"This is a bug in assetcore: {kind}" + (f": {what}" if what else "")
            return kind, sentence, "Add --debug to see where, and please report it.", 1
