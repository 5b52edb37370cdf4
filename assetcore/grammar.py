"""Grammar: how is a selection written?

One grammar everywhere (command, Make, API, web), the one that Dagster has settled on:

    chunks   chunk*   "chunks"           a name, a glob, a name exactly as it stands
    +a   a+   2+a+1   +(a or b)          with everything above, below, two steps above and one below
    tag:report   owner:"Ada L"           also group: sensitivity: kind: project:, with globs
    status:stale   cause:code-changed    what the plan says of an asset's units
    changed:main                         against a git ref or an environment
    roots(...)   sinks(...)              those with nothing above, below them in (...)
    a[unit]   a["odd ] unit"]            one unit of an asset; a glob when it is not quoted
    a[2026-11-01..2026-11-07]            units from .. to, both included; either end may be left out
    unit:with   unit:w*   unit:a..c      units of any asset, likewise
    not a    a and b    a or (b and c)   `not` binds closest, then `and`, then `or`

`parse` reads a text as a `Selection`, and `str` writes that as a text again. What it selects is decided in `selection`. `narrowed` puts a
selection and what `--docs` says together: the same grammar, in which names and globs are those of units.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, TypeAlias, assert_never, cast, get_args

from lark import Lark, Token, Transformer, UnexpectedCharacters, UnexpectedInput, UnexpectedToken, v_args

from assetcore.errors import SelectionError
from assetcore.refs import BARE_UNIT, QUOTED, UNIT_HINT, called, quoted, suggestion, unquoted, written

__all__ = [
    "FIELDS",
    "And",
    "Anywhere",
    "Around",
    "Ends",
    "Field",
    "Label",
    "Name",
    "Not",
    "Or",
    "Pattern",
    "Selection",
    "Span",
    "Units",
    "narrowed",
    "parse",
    "parts",
]

FieldName = Literal["tag", "group", "owner", "sensitivity", "kind", "project", "status", "cause", "changed"]
FIELDS: tuple[FieldName, ...] = get_args(FieldName)
DEPTH_LIMIT = 100
"""Parentheses and `not` inside each other; far beyond what a person writes."""
MOST_DIGITS = 9
"""More steps than these tell are all that there are."""
_MARKS = r"\u00b7\u0300-\u1fff\u3099\u309a\ua66f-\uabed"
"""What identifiers may have beside \\w: accents and vowels that are characters of their own."""


# --- what a selection is --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Pattern:
    """A text to compare with: exactly, or as a glob in which `*` is any text and `?` any character."""

    text: str
    glob: bool = False

    def __str__(self) -> str:
        return repr(self.text)

    def matches(self, other: str) -> bool:
        return _glob(self.text).fullmatch(other) is not None if self.glob else self.text == other


@dataclass(frozen=True, slots=True)
class Name:
    """Assets by name, as `called` writes it."""

    pattern: Pattern

    def __post_init__(self) -> None:
        object.__setattr__(self, "pattern", Pattern(called(self.pattern.text), self.pattern.glob))

    def __str__(self) -> str:
        return _write(self.pattern, _BARE_NAME)


@dataclass(frozen=True, slots=True)
class Label:
    """Units by their label."""

    pattern: Pattern

    def matches(self, label: str) -> bool:
        return self.pattern.matches(label)

    def written(self, bare: re.Pattern[str]) -> str:
        return _write(self.pattern, bare)

    def __str__(self) -> str:
        return self.written(BARE_UNIT)


@dataclass(frozen=True, slots=True)
class Span:
    """Units from a label to a label, both included; None is an open end.

    Numbers are compared as numbers, everything else as text; what begins with `last` is included, so that
    `[2026-11..2026-12]` holds the days of December.
    """

    first: str | None
    last: str | None

    def matches(self, label: str) -> bool:
        bounds = [bound for bound in (self.first, self.last) if bound is not None]
        if _is_number(label) and all(map(_is_number, bounds)):
            number = _size(label)
            return (self.first is None or _size(self.first) <= number) and (
                self.last is None or number <= _size(self.last)
            )
        after = self.first is None or self.first <= label
        return after and (self.last is None or label <= self.last or label.startswith(self.last))

    @property
    def turned(self) -> Span | None:
        """The range that was meant where this one ends before it begins; None where it does not."""
        if self.first is None or self.last is None or self.first.startswith(self.last):
            return None
        numbers = _is_number(self.first) and _is_number(self.last)
        backwards = _size(self.first) > _size(self.last) if numbers else self.first > self.last
        return Span(self.last, self.first) if backwards else None

    def written(self, bare: re.Pattern[str]) -> str:
        return "..".join("" if end is None else _write(Pattern(end), bare) for end in (self.first, self.last))

    def __str__(self) -> str:
        return self.written(BARE_UNIT)


@dataclass(frozen=True, slots=True)
class Units:
    """Some units of the assets of a name."""

    name: Name
    rule: Label | Span

    def __str__(self) -> str:
        return f"{self.name}[{self.rule}]"


@dataclass(frozen=True, slots=True)
class Anywhere:
    """Some units of whichever asset has them."""

    rule: Label | Span

    def matches(self, label: str) -> bool:
        return self.rule.matches(label)

    def __str__(self) -> str:
        return f"unit:{self.rule.written(_BARE_LABEL)}"


@dataclass(frozen=True, slots=True)
class Field:
    """Assets by what is known of them."""

    field: FieldName
    pattern: Pattern

    def __str__(self) -> str:
        return f"{self.field}:{_write(self.pattern, _BARE_VALUE)}"


@dataclass(frozen=True, slots=True)
class Around:
    """A selection with `up` layers of ancestors and `down` layers of descendants; None is all of them, 0 none."""

    of: Selection
    up: int | None
    down: int | None

    def __str__(self) -> str:
        up = "" if self.up == 0 else "+" if self.up is None else f"{self.up}+"
        down = "" if self.down == 0 else "+" if self.down is None else f"+{self.down}"
        return f"{up}{_inside(self.of, _TERMS)}{down}"


@dataclass(frozen=True, slots=True)
class Ends:
    """The roots (nothing above them) or sinks (nothing below them) within a selection."""

    end: Literal["roots", "sinks"]
    of: Selection

    def __str__(self) -> str:
        return f"{self.end}({self.of})"


@dataclass(frozen=True, slots=True)
class Not:
    """Everything else."""

    of: Selection

    def __str__(self) -> str:
        return f"not {_inside(self.of, (*_TERMS, Around, Not))}"


@dataclass(frozen=True, slots=True)
class And:
    """What is in all of them."""

    of: tuple[Selection, ...]

    def __str__(self) -> str:
        return " and ".join(_inside(term, (*_TERMS, Around, Not)) for term in self.of)


@dataclass(frozen=True, slots=True)
class Or:
    """What is in any of them."""

    of: tuple[Selection, ...]

    def __str__(self) -> str:
        return " or ".join(_inside(term, (*_TERMS, Around, Not, And)) for term in self.of)


Selection: TypeAlias = Name | Units | Anywhere | Field | Around | Ends | Not | And | Or
"""What `parse` returns. `str()` of it is a text that `parse` reads back as the same selection."""

_TERMS = (Name, Units, Anywhere, Field, Ends)


# --- reading --------------------------------------------------------------------------------------------------------

_KEYWORDS = r"(?:and|or|not)(?![\w*?:])"
_LABELS = rf'(?:{QUOTED}|[^\s()\[\]",+])+'
_DOCS_WORD = re.compile(rf'(?:{QUOTED}|[^\s()",])+')
_GRAMMAR = rf"""
?start: either
?either: both (_OR both)*
?both: negated (_AND negated)*
?negated: _NOT negated -> negation
        | around
?around: term
       | UP term -> above
       | term DOWN -> below
       | UP term DOWN -> above_and_below
?term: _OPEN either _CLOSE -> group
     | ENDS _OPEN either _CLOSE -> ends
     | UNIT LABELS -> anywhere
     | FIELD (VALUE | QUOTED) -> field
     | NAME -> name
     | QUOTED -> quoted
     | (NAME | QUOTED) UNITS -> units

_OPEN: "("
_CLOSE: ")"
_AND.4: /and(?![\w*?:])/i
_OR.4: /or(?![\w*?:])/i
_NOT.4: /not(?![\w*?:])/i
ENDS.3: /(?:roots|sinks)(?=\s*\()/
UNIT.3: "unit:"
FIELD.2: /[^\W\d]\w*:/
UP.2: /[0-9]*\+/
DOWN.1: /\+[0-9]*/
NAME.1: /(?!(?i:{_KEYWORDS}))(?:[^\W\d]|[*?])[\w*?{_MARKS}]*/
QUOTED: /{QUOTED}/
VALUE: /[^\s()\[\]",+]+/
LABELS: /{_LABELS}/
UNITS: /\[(?:{QUOTED}|[^\]"\n])*\]/
%ignore /\s+/
"""
_BARE_NAME = re.compile(rf"(?!(?i:{_KEYWORDS}))(?:[^\W\d]|[*?])[\w*?{_MARKS}]*")
_BARE_VALUE = re.compile(r'[^\s()\[\]",+]+')
_BARE_LABEL = re.compile(r'(?:(?!\.\.)[^\s()\[\]",+])+(?<!\.)')


def parse(text: str) -> Selection:
    """Read a selection.

    Raises SelectionError, whose message shows the place, when it cannot be read.
    """
    if not text.strip():
        raise SelectionError("The selection is empty.", hint="Name an asset, or write * for all of them.")
    try:
        selection = cast(Selection, _parser().parse(text))
    except UnexpectedInput as error:
        raise _unreadable(text, error) from None
    if any(depth > DEPTH_LIMIT for depth, _ in parts(selection)):
        raise SelectionError(f"The selection is nested more than {DEPTH_LIMIT} deep.", hint="Write it flatter.")
    return selection


def narrowed(select: str | None, documents: str) -> str:
    """What `select` selects, of it the units that go by the name of some documents: names, globs and ranges with `and`, `or`, `not`.

    Raises SelectionError, as `parse`.
    """
    if not documents.strip():
        raise SelectionError("--docs is empty.", hint="Name a document, or a glob: --docs 'reference/*'")
    told = _DOCS_WORD.sub(lambda word: _docs_term(word[0]), documents)
    some = parse(told)
    return str(some if select is None else And((parse(select), some)))


def _docs_term(word: str) -> str:
    """What a word of `--docs` is in a selection: units by name, but `or`, `status:stale` and their like are themselves."""
    if word.lower() in ("and", "or", "not") or word.startswith(tuple(f"{name}:" for name in ("unit", *FIELDS))):
        return word
    plain = re.fullmatch(_LABELS, word) or "*" in word or "?" in word
    return f"unit:{word if plain else quoted(word)}"


@lru_cache(maxsize=1)
def _parser() -> Lark:
    # Building the tables takes some 20 ms: once, and only where something is selected.
    return Lark(_GRAMMAR, parser="lalr", lexer="contextual", transformer=_Builder())


@v_args(inline=True)
class _Builder(Transformer[Token, Selection]):
    """Makes the selection while the text is read: no tree in between, no recursion."""

    def either(self, *terms: Selection) -> Selection:
        return Or(terms)

    def both(self, *terms: Selection) -> Selection:
        return And(terms)

    def negation(self, of: Selection) -> Selection:
        return Not(of)

    def group(self, of: Selection) -> Selection:
        return of

    def above(self, up: Token, of: Selection) -> Selection:
        return _around(of, _layers(up), 0)

    def below(self, of: Selection, down: Token) -> Selection:
        return _around(of, 0, _layers(down))

    def above_and_below(self, up: Token, of: Selection, down: Token) -> Selection:
        return _around(of, _layers(up), _layers(down))

    def ends(self, end: Token, of: Selection) -> Selection:
        return Ends("roots" if end == "roots" else "sinks", of)

    def field(self, name: Token, value: Token) -> Selection:
        for known in FIELDS:
            if name == f"{known}:":
                return Field(known, _read(value))
        hint = f"{suggestion(name[:-1], FIELDS) or ''} Fields: {', '.join(f'{known}:' for known in (*FIELDS, 'unit'))}".strip()
        raise _Refused(name, f"there is no field {str(name)!r}", hint)

    def anywhere(self, field: Token, labels: Token) -> Selection:
        try:
            return Anywhere(_rule(labels))
        except ValueError as error:
            raise _Refused(labels, str(error), 'A unit is written unit:w*, unit:a..c, or unit:"a b".') from None

    def name(self, name: Token) -> Selection:
        return Name(_read(name))

    def quoted(self, name: Token) -> Selection:
        return Name(_read(name))

    def units(self, name: Token, units: Token) -> Selection:
        try:
            return Units(Name(_read(name)), _rule(units[1:-1]))
        except ValueError as error:
            raise _Refused(units, str(error), UNIT_HINT) from None


class _Refused(UnexpectedInput):
    """A token that can be read, but means nothing."""

    def __init__(self, token: Token, problem: str, hint: str) -> None:
        super().__init__(problem)
        self.pos_in_stream = token.start_pos
        self.problem = problem
        self.hint = hint


def _around(of: Selection, up: int | None, down: int | None) -> Selection:
    return of if up == 0 and down == 0 else Around(of, up, down)


def _layers(token: Token) -> int | None:
    number = token.strip("+")
    return int(number) if 0 < len(number) <= MOST_DIGITS else None


def _read(token: str) -> Pattern:
    if token.startswith('"'):
        return Pattern(unquoted(token))
    return Pattern(str(token), glob="*" in token or "?" in token)


def _rule(body: str) -> Label | Span:
    """The rule between the brackets. Raises ValueError when it means nothing."""
    first, rest, first_quoted = _side(body.strip())
    if not rest:
        if not first and not first_quoted:
            raise ValueError("the brackets are empty")
        return Label(Pattern(first) if first_quoted else _read(first))
    last, rest, last_quoted = _side(rest.removeprefix("..").strip())
    if rest:
        raise ValueError("a range has two ends")
    return Span(first if first or first_quoted else None, last if last or last_quoted else None)


def _side(text: str) -> tuple[str, str, bool]:
    """One end of a range: its value, what follows it (beginning with ..), and whether it was quoted."""
    if found := re.match(QUOTED, text):
        value, rest, quoted = unquoted(found[0]), text[found.end() :].strip(), True
    else:
        value, dots, rest = text.partition("..")
        value, rest, quoted = value.strip(), dots + rest, False
    if ('"' in value and not quoted) or (rest and not rest.startswith("..")):
        raise ValueError("quotes must surround the whole label")
    return value, rest, quoted


def _write(pattern: Pattern, bare: re.Pattern[str]) -> str:
    return pattern.text if pattern.glob else written(pattern.text, bare)


def _inside(selection: Selection, plain: tuple[type, ...]) -> str:
    return str(selection) if isinstance(selection, plain) else f"({selection})"


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _size(number: str) -> tuple[int, str]:
    """What orders numbers of any length as numbers."""
    digits = number.lstrip("0")
    return len(digits), digits


@lru_cache(maxsize=256)
def _glob(text: str) -> re.Pattern[str]:
    pattern = [".*" if c == "*" else "." if c == "?" else re.escape(c) for c in re.sub(r"\*+", "*", text)]
    return re.compile("".join(pattern), re.DOTALL)


def parts(selection: Selection) -> Iterator[tuple[int, Selection]]:
    """Every part of a selection with its depth."""
    waiting = [(0, selection)]
    while waiting:
        depth, part = waiting.pop()
        yield depth, part
        match part:
            case And(of) | Or(of):
                waiting.extend((depth + 1, term) for term in of)
            case Around(of) | Not(of) | Ends(_, of):
                waiting.append((depth + 1, of))
            case Name() | Units() | Anywhere() | Field():
                pass
            case _:
                assert_never(part)


def _unreadable(text: str, error: UnexpectedInput) -> SelectionError:
    """The sentence for what lark has met: where, what is wrong there, and what to write instead."""
    if isinstance(error, UnexpectedToken) and error.token.type == "$END":
        place = len(text.rstrip())
    else:
        place = error.pos_in_stream or 0
    problem, hint = _problem(text, place, error)
    start, stop = max(0, place - 60), place + 60
    line = text[start:stop].replace("\n", " ").replace("\t", " ")
    caret = " " * (place - start) + "^"
    return SelectionError(f"The selection cannot be read: {problem}.\n    {line}\n    {caret}", hint=hint)


def _problem(text: str, place: int, error: UnexpectedInput) -> tuple[str, str]:
    """What is wrong at this place, and what to do instead."""
    if isinstance(error, _Refused):
        return error.problem, error.hint
    expected: Collection[str] = ()
    if isinstance(error, UnexpectedToken):
        expected = error.expected
    elif isinstance(error, UnexpectedCharacters):
        expected = error.allowed
    complete = not {"NAME", "VALUE", "LABELS"} & set(expected)  # what stands before is a whole term
    before, character, after = text[:place].rstrip(), text[place : place + 1], text[place:].lstrip(", ")
    combined = f"`{before} or {after}` selects both, `{before} and {after}` what they share."
    term = "A term is a name, a glob, field:value, or a selection in parentheses."
    match character:
        case "" if complete:
            return "a parenthesis is not closed", f"Write {before})"
        case "":
            return "it ends where a term is expected", term
        case "," if complete and after:
            return "a comma does not combine terms", combined
        case "[" | "]":
            return "the brackets cannot be read here", UNIT_HINT
        case '"' if not complete:
            return "a quoted text does not end", 'Inside double quotes, a quote is written \\".'
        case "'":
            return "single quotes are not part of the grammar", 'Use double quotes, as in tag:"two words".'
        case "&" | "|" | "!" | "~" | "-":
            return f"{character!r} is not an operator", "Combine terms with and, or, not and parentheses."
        case ")" if complete:
            return "a parenthesis is closed that was not opened", "Leave it out, or open it before."
        case ")":
            return "a term is missing before the parenthesis", term
        case "(" if complete and re.search(r"\w$", text[:place]):
            return "only roots(...) and sinks(...) are followed by a parenthesis", combined
        case _ if complete and re.match(r'[\w*?"+(]', character):
            return "two terms stand beside each other", combined
        case _ if re.match(r"(?i:and|or)\b", after):
            return "a term is missing before it", "`and` and `or` stand between two terms."
        case _:
            return f"{character!r} cannot stand here", term
