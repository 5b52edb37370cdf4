"""Parts: of what is an answer for people built?"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text as RichText

from assetcore.cli.plain import plain

Answer = Mapping[str, Any]
CHILDREN_SHOWN = 20
FAILURES_SHOWN = 10
ROWS_SHOWN = 100
UNBROKEN = 20
"""Words of at most this length are never folded, nor is what a row of a table is named by."""


class Text(RichText):
    """A text of rich that a terminal obeys nowhere but in its style."""

    def __init__(self, text: str = "", *arguments: Any, **options: Any) -> None:
        super().__init__(plain(text), *arguments, **options)

    def append(self, text: RichText | str, style: Any = None) -> Text:
        super().append(plain(text) if isinstance(text, str) else text, style)
        return self


class Column(NamedTuple):
    """A column of a table: its title and what it says of a row. Numbers stand to the right and are never broken.

    One to `spare` is left out where there is no room for it.
    """

    title: str
    text: Callable[[Answer], str]
    numeric: bool = False
    spare: bool = False


def words(key: str) -> Column:
    """The value of this key as it is."""
    return Column(key, lambda row: "" if row.get(key) is None else str(row[key]))


def count(key: str) -> Column:
    """The number of this key."""
    return Column(key, lambda row: number(row.get(key)), numeric=True)


def table(columns: Sequence[Column], rows: Sequence[Answer], keep: Collection[str] = ()) -> RenderableType:
    """A table of these rows. Columns that say nothing are left out, except the first and those to `keep`."""
    chosen: list[tuple[Column, list[str]]] = []
    for index, column in enumerate(columns):
        cells = [column.text(row) for row in rows]
        if index == 0 or column.title in keep or any(cell not in ("", "0") for cell in cells):
            chosen.append((column, cells))
    return Rows(chosen)


class Rows:
    """Columns side by side where they fit, otherwise each row as a paragraph: a number is never cut."""

    def __init__(self, columns: Sequence[tuple[Column, list[str]]]) -> None:
        self.columns = columns

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        columns, spared = list(self.columns), list[str]()
        while _least(columns) > options.max_width and columns[-1][0].spare:
            spared.insert(0, columns.pop()[0].title)
        if _least(columns) > options.max_width:
            yield from self._paragraphs()
            return
        drawn = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
        for place, (column, cells) in enumerate(columns):
            justify, least = "right" if column.numeric else "left", _narrowest(column, cells, heads=not place)
            drawn.add_column(column.title, justify=justify, overflow="fold", min_width=least)
        for cells in zip(*(cells for _, cells in columns), strict=True):
            drawn.add_row(*map(Text, cells))
        yield drawn
        if spared:
            yield Text(f"A wider terminal also shows: {', '.join(spared)}.", style="dim")

    def _paragraphs(self) -> Iterator[RichText]:
        (_, heads), *others = self.columns
        for row, head in enumerate(heads):
            facts = [f"{column.title} {cells[row]}" for column, cells in others if cells[row] not in ("", "0")]
            yield as_written(head, style="bold")
            yield Text("  " + ", ".join(facts))


def partitions_done(row: Answer) -> str:
    """`3`; `2 of 3` where not all of them are done."""
    counts = row.get("partitions")
    if not counts:
        return ""
    return f"{counts['all']:,}" if counts["done"] == counts["all"] else f"{counts['done']:,} of {counts['all']:,}"


def _narrowest(column: Column, cells: Sequence[str], *, heads: bool) -> int:
    """How wide a column is at least: numbers are never broken, nor is what rows are named by."""
    width = max(map(cell_len, (column.title, *cells)))
    return width if column.numeric or heads else min(width, UNBROKEN)


def _least(columns: Sequence[tuple[Column, list[str]]]) -> int:
    """How wide a table of these columns is at least."""
    widths = (_narrowest(column, cells, heads=not place) for place, (column, cells) in enumerate(columns))
    return sum(widths) + 2 * (len(columns) - 1)


def diff_text(unified: str) -> RichText:
    """A unified diff, coloured as everywhere."""
    styles = {"+": "green", "-": "red", "@": "cyan"}
    lines = [Text(line, style=styles.get(line[:1], "")) for line in unified.rstrip("\n").split("\n")]
    return Text("\n", no_wrap=True, overflow="ignore").join(lines)


def as_written(text: str, style: str = "") -> RichText:
    """Lines that are not broken, so that they can be copied."""
    return Text(text.rstrip(), style=style, no_wrap=True, overflow="ignore")


def indented(text: RichText, columns: int) -> RichText:
    """The text with every line moved to the right."""
    lines = (Text(" " * columns).append_text(line) for line in text.split("\n"))
    return Text("\n", no_wrap=text.no_wrap, overflow=text.overflow).join(lines)


def dollars(amount: float) -> str:
    """`12.50 USD`; of less than a dollar two digits that say something."""
    if 0 < amount < 0.0001:
        return "< 0.0001 USD"
    return f"{amount:,.2f} USD" if amount >= 1 or not amount else f"{amount:.2g} USD"


def number(value: int | None) -> str:
    return "" if value is None else f"{value:,}"


def plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def counted(counts: Mapping[str, int], keys: Sequence[str]) -> str:
    """`3 new, 1 removed`: what is not zero."""
    return ", ".join(f"{counts[key]:,} {key}" for key in keys if counts.get(key))


def size(count: int) -> str:
    """Bytes for people: `812 B`, `3.4 MB`."""
    amount = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} TB"


def duration(seconds: float) -> str:
    """`0.4 s`, `12 s`, `3 min 20 s`, `2 h 5 min`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def brief(seconds: float) -> str:
    """`18 ms`, and from a second on as `duration`."""
    if seconds >= 1:
        return duration(seconds)
    return f"{seconds * 1000:{'.2g' if seconds < 0.0995 else '.0f'}} ms"


def took(answer: Answer) -> str:
    seconds = answer.get("seconds")
    return "" if seconds is None else duration(seconds)


def moment(value: str | datetime | None) -> str:
    """A point in time in the reader's own zone, to the second."""
    if value is None:
        return ""
    at = datetime.fromisoformat(value) if isinstance(value, str) else value
    return at.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def field_lines(answer: Answer) -> list[Text]:
    """What of a document differs beside its content: `price: 1 -> 2`."""
    fields = answer.get("fields") or {}
    return [Text(f"{name}: {short(one['before'])} -> {short(one['after'])}") for name, one in fields.items()]


def short(value: Any) -> str:
    """A value in one line of at most 60 characters."""
    text = "nothing" if value is None else str(value).replace("\n", " ")
    return text if len(text) <= 60 else text[:57] + "..."
