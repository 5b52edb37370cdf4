"""Selection: which assets, and which of their units, does a text mean?

One grammar everywhere (command, Make, API, web), the one that Dagster has settled on:

    chunks   chunk*   "chunks"           a name, a glob, a name exactly as it stands
    +a   a+   2+a+1   +(a or b)          with everything above, below, two steps above and one below
    tag:report   owner:"Ada L"           also group: sensitivity: kind: project:, with globs
    status:stale   cause:code-changed    what the plan says of an asset's units
    changed:main                         against a git ref or an environment
    roots(...)   sinks(...)              those with nothing above, below them in (...)
    a[unit]   a["odd ] unit"]            one unit of an asset; a glob when it is not quoted
    a[2026-11-01..2026-11-07]            units from .. to, both included; either end may be left out
    not a    a and b    a or (b and c)   `not` binds closest, then `and`, then `or`

A REF names one thing: `asset`, `asset[unit]`, `asset[unit]/document`, or the beginning of a document's id.

Everything here is pure. `parse` reads, `needs` says which facts the answer takes, `select` answers over a `Catalogue`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, NoReturn, TypeAlias, assert_never, cast, get_args

from lark import Lark, Token, Transformer, UnexpectedCharacters, UnexpectedInput, UnexpectedToken, v_args

from assetcore.errors import NothingSelectedError, SelectionError
from assetcore.moments import split_time

if TYPE_CHECKING:
    from assetcore.graph import Graph  # the grammar alone is read without pydantic and networkx

__all__ = [
    "FIELDS",
    "AssetFacts",
    "Catalogue",
    "Ref",
    "Selected",
    "Selection",
    "catalogue",
    "format_ref",
    "needs",
    "parse",
    "parse_ref",
    "references",
    "select",
    "suggestion",
]

FieldName = Literal["tag", "group", "owner", "sensitivity", "kind", "project", "status", "cause", "changed"]
FIELDS: tuple[FieldName, ...] = get_args(FieldName)
DEPTH_LIMIT = 100
"""Parentheses and `not` inside each other; far beyond what a person writes."""


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
    """Assets by name."""

    pattern: Pattern

    def __str__(self) -> str:
        return _write(self.pattern, _BARE_NAME)


@dataclass(frozen=True, slots=True)
class Label:
    """Units by their label."""

    pattern: Pattern

    def matches(self, label: str) -> bool:
        return self.pattern.matches(label)

    def __str__(self) -> str:
        return _write(self.pattern, _BARE_UNIT)


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
            number = int(label)
            return (self.first is None or int(self.first) <= number) and (self.last is None or number <= int(self.last))
        after = self.first is None or self.first <= label
        return after and (self.last is None or label <= self.last or label.startswith(self.last))

    def __str__(self) -> str:
        return "..".join("" if end is None else _write(Pattern(end), _BARE_UNIT) for end in (self.first, self.last))


@dataclass(frozen=True, slots=True)
class Units:
    """Some units of the assets of a name."""

    name: Name
    rule: Label | Span

    def __str__(self) -> str:
        return f"{self.name}[{self.rule}]"


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


Selection: TypeAlias = Name | Units | Field | Around | Ends | Not | And | Or
"""What `parse` returns. `str()` of it is a text that `parse` reads back as the same selection."""

_TERMS = (Name, Units, Field, Ends)


# --- reading --------------------------------------------------------------------------------------------------------

_QUOTED = r'"(?:\\[\s\S]|[^"\\])*"'
_KEYWORDS = r"(?:and|or|not)(?![\w*?:])"
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
FIELD.2: /[^\W\d]\w*:/
UP.2: /[0-9]*\+/
DOWN.1: /\+[0-9]*/
NAME.1: /(?!(?i:{_KEYWORDS}))(?:[^\W\d]|[*?])[\w*?]*/
QUOTED: /{_QUOTED}/
VALUE: /[^\s()\[\]",+]+/
UNITS: /\[(?:{_QUOTED}|[^\]"\n])*\]/
%ignore /\s+/
"""
_BARE_NAME = re.compile(rf"(?!(?i:{_KEYWORDS}))(?:[^\W\d]|[*?])[\w*?]*")
_BARE_VALUE = re.compile(r'[^\s()\[\]",+]+')
_BARE_UNIT = re.compile(r'(?!\s)(?:(?!\.\.)[^\]"\n])+(?<![\s.])')
_UNITS = re.compile(rf"\[(?P<body>(?:{_QUOTED}|[^\]\"\n])*)\]")


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
    if any(depth > DEPTH_LIMIT for depth, _ in _walk(selection)):
        raise SelectionError(f"The selection is nested more than {DEPTH_LIMIT} deep.", hint="Write it flatter.")
    return selection


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
        hint = f"{suggestion(name[:-1], FIELDS) or ''} Fields: {', '.join(f'{known}:' for known in FIELDS)}".strip()
        raise _Refused(name, f"there is no field {str(name)!r}", hint)

    def name(self, name: Token) -> Selection:
        return Name(_read(name))

    def quoted(self, name: Token) -> Selection:
        return Name(_read(name))

    def units(self, name: Token, units: Token) -> Selection:
        try:
            return Units(Name(_read(name)), _rule(units[1:-1]))
        except ValueError as error:
            raise _Refused(units, str(error), _UNIT_HINT) from None


class _Refused(UnexpectedInput):
    """A token that can be read, but means nothing."""

    def __init__(self, token: Token, problem: str, hint: str) -> None:
        super().__init__(problem)
        self.pos_in_stream = token.start_pos
        self.problem = problem
        self.hint = hint


_UNIT_HINT = 'A unit is written asset[unit]; in double quotes where it holds ], " or ..: asset["a ] b"].'


def _around(of: Selection, up: int | None, down: int | None) -> Selection:
    return of if up == 0 and down == 0 else Around(of, up, down)


def _layers(token: Token) -> int | None:
    number = token.strip("+")
    return int(number) if number else None


def _read(token: str) -> Pattern:
    if token.startswith('"'):
        return Pattern(_unquote(token))
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
    if found := re.match(_QUOTED, text):
        value, rest, quoted = _unquote(found[0]), text[found.end() :].strip(), True
    else:
        value, dots, rest = text.partition("..")
        value, rest, quoted = value.strip(), dots + rest, False
    if ('"' in value and not quoted) or (rest and not rest.startswith("..")):
        raise ValueError("quotes must surround the whole label")
    return value, rest, quoted


def _write(pattern: Pattern, bare: re.Pattern[str]) -> str:
    wild = "*" in pattern.text or "?" in pattern.text
    if pattern.glob or (not wild and bare.fullmatch(pattern.text)):
        return pattern.text
    return _quote(pattern.text)


def _quote(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _unquote(token: str) -> str:
    # Only \" and \\ are escapes: any other backslash stands for itself, as in a name that holds one.
    return re.sub(r'\\(["\\])', r"\1", token[1:-1])


def _inside(selection: Selection, plain: tuple[type, ...]) -> str:
    return str(selection) if isinstance(selection, plain) else f"({selection})"


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


@lru_cache(maxsize=256)
def _glob(text: str) -> re.Pattern[str]:
    parts = [".*" if c == "*" else "." if c == "?" else re.escape(c) for c in re.sub(r"\*+", "*", text)]
    return re.compile("".join(parts), re.DOTALL)


def _walk(selection: Selection) -> Iterator[tuple[int, Selection]]:
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
            case Name() | Units() | Field():
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
    complete = not {"NAME", "VALUE"} & set(expected)  # what stands before is a whole term
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
            return "the brackets cannot be read here", _UNIT_HINT
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


# --- answering ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class AssetFacts:
    """What a declaration says of an asset, as far as it can be selected by."""

    tags: tuple[str, ...] = ()
    group: str = "main"
    owner: str | None = None
    kind: str = "asset"
    project: str = ""
    kinds: tuple[str, ...] = ()
    sensitivity: str | None = None


@dataclass(frozen=True, slots=True)
class Catalogue:
    """What there is to select from: assets in their order, who is made out of whom, and what `needs` asked for.

    `statuses` and `causes` hold for each asset the words that apply to any of its units; `changed` returns the assets
    that differ from a git ref or an environment. None means that this place does not know.
    """

    assets: Mapping[str, AssetFacts]
    upstream: Mapping[str, Collection[str]]
    downstream: Mapping[str, Collection[str]]
    statuses: Mapping[str, Collection[str]] | None = None
    causes: Mapping[str, Collection[str]] | None = None
    changed: Callable[[str], Collection[str]] | None = None


def catalogue(
    graph: Graph,
    *,
    statuses: Mapping[str, Collection[str]] | None = None,
    causes: Mapping[str, Collection[str]] | None = None,
    changed: Callable[[str], Collection[str]] | None = None,
) -> Catalogue:
    """The catalogue of a project's graph."""
    return Catalogue(
        {
            name: AssetFacts(
                asset.tags,
                asset.group,
                asset.options.owner,
                asset.kind,
                graph.project,
                asset.kinds,
                graph.sensitivity[name],
            )
            for name, asset in graph.assets.items()
        },
        {name: graph.upstream(name) for name in graph.assets},
        {name: graph.downstream(name) for name in graph.assets},
        statuses,
        causes,
        changed,
    )


@dataclass(frozen=True, slots=True)
class Either:
    """Units that any of the rules match."""

    of: tuple[UnitRule, ...]

    def matches(self, label: str) -> bool:
        return any(rule.matches(label) for rule in self.of)

    def __str__(self) -> str:
        return " or ".join(map(str, self.of))


@dataclass(frozen=True, slots=True)
class Both:
    """Units that all of the rules match."""

    of: tuple[UnitRule, ...]

    def matches(self, label: str) -> bool:
        return all(rule.matches(label) for rule in self.of)

    def __str__(self) -> str:
        return " and ".join(map(str, self.of))


@dataclass(frozen=True, slots=True)
class Except:
    """Units that the rule does not match."""

    of: UnitRule

    def matches(self, label: str) -> bool:
        return not self.of.matches(label)

    def __str__(self) -> str:
        return f"not ({self.of})"


@dataclass(frozen=True, slots=True)
class Needed:
    """Of an asset above some units: the partitions that those are given. Which these are a plan knows; until then, all."""

    def matches(self, label: str) -> bool:
        return True

    def __str__(self) -> str:
        return "what is below needs"


UnitRule: TypeAlias = Label | Span | Either | Both | Except | Needed
"""Which units of one asset: `rule.matches(label)`; `str(rule)` is for messages."""


@dataclass(frozen=True, slots=True)
class Selected:
    """What a selection selects: assets in the catalogue's order, and a rule for each that is only meant in part."""

    assets: tuple[str, ...]
    units: Mapping[str, UnitRule] = field(default_factory=dict)

    def includes(self, asset: str, unit: str) -> bool:
        """Whether this unit of this asset is selected."""
        rule = self.units.get(asset)
        return asset in self.assets and (rule is None or rule.matches(unit))


def needs(selection: Selection) -> frozenset[Literal["status", "cause", "changed"]]:
    """Which facts beyond the declarations `select` asks for: nothing is planned for a plain selection."""
    found = {part.field for _, part in _walk(selection) if isinstance(part, Field)}
    return frozenset(name for name in ("status", "cause", "changed") if name in found)


def references(selection: Selection) -> frozenset[str]:
    """What `changed:` compares with in this selection: git refs and environments."""
    fields = [part for _, part in _walk(selection) if isinstance(part, Field)]
    return frozenset(part.pattern.text for part in fields if part.field == "changed")


def select(selection: Selection, catalogue: Catalogue) -> Selected:
    """What the selection selects in this catalogue.

    Raises NothingSelectedError when it is nothing, or when it names an asset that does not exist: a misspelt name
    beside a good one would otherwise go unnoticed. The hint says what was perhaps meant.
    """
    for _, part in _walk(selection):
        name = part if isinstance(part, Name) else part.name if isinstance(part, Units) else None
        if name is not None and not name.pattern.glob and name.pattern.text not in catalogue.assets:
            _nothing(f"There is no asset {name.pattern}.", name.pattern.text, catalogue.assets, "Assets")
    found = _evaluate(selection, catalogue)
    if not found:
        _selects_nothing(selection, catalogue)
    assets = tuple(asset for asset in catalogue.assets if asset in found)
    return Selected(assets, {asset: rule for asset in assets if (rule := found[asset]) is not None})


_Found: TypeAlias = "dict[str, UnitRule | None]"
"""Asset to its rule; None is all of its units."""


def _evaluate(selection: Selection, catalogue: Catalogue) -> _Found:
    match selection:
        case Name(pattern):
            return dict.fromkeys(_named(pattern, catalogue))
        case Units(name, rule):
            return dict.fromkeys(_named(name.pattern, catalogue), rule)
        case Field():
            return dict.fromkeys(_with_field(selection, catalogue))
        case Around(of, up, down):
            found = _evaluate(of, catalogue)
            start = set(found)
            partial = Needed() if any(rule is not None for rule in found.values()) else None
            above = dict.fromkeys(_reach(start, catalogue.upstream, up), partial)
            return found | above | dict.fromkeys(_reach(start, catalogue.downstream, down))
        case Ends(end, of):
            found = _evaluate(of, catalogue)
            beyond = catalogue.upstream if end == "roots" else catalogue.downstream
            return {asset: rule for asset, rule in found.items() if not any(a in found for a in beyond.get(asset, ()))}
        case Not(of):
            return _complement(_evaluate(of, catalogue), catalogue)
        case And(of):
            found = _evaluate(of[0], catalogue)
            for term in of[1:]:
                found = _intersection(found, _evaluate(term, catalogue))
            return found
        case Or(of):
            found = {}
            for term in of:
                found = _union(found, _evaluate(term, catalogue))
            return found
        case _:
            assert_never(selection)


def _named(pattern: Pattern, catalogue: Catalogue) -> list[str]:
    if not pattern.glob:
        return [pattern.text] if pattern.text in catalogue.assets else []
    return [asset for asset in catalogue.assets if pattern.matches(asset)]


def _with_field(part: Field, catalogue: Catalogue) -> Iterable[str]:
    if part.field == "changed":
        changed = catalogue.changed(part.pattern.text) if catalogue.changed else _unknown(part)
        return [asset for asset in catalogue.assets if asset in changed]
    values = _values(part, catalogue)
    return [asset for asset in catalogue.assets if any(map(part.pattern.matches, values.get(asset, ())))]


def _values(part: Field, catalogue: Catalogue) -> Mapping[str, Collection[str]]:
    """For each asset, its values of the field."""
    match part.field:
        case "tag":
            return {asset: facts.tags for asset, facts in catalogue.assets.items()}
        case "group":
            return {asset: (facts.group,) for asset, facts in catalogue.assets.items()}
        case "owner":
            return {asset: (facts.owner,) for asset, facts in catalogue.assets.items() if facts.owner is not None}
        case "sensitivity":
            known = ((asset, facts.sensitivity) for asset, facts in catalogue.assets.items())
            return {asset: (sensitivity,) for asset, sensitivity in known if sensitivity is not None}
        case "kind":
            return {asset: (facts.kind, *facts.kinds) for asset, facts in catalogue.assets.items()}
        case "project":
            return {asset: (facts.project,) for asset, facts in catalogue.assets.items()}
        case "status":
            return catalogue.statuses if catalogue.statuses is not None else _unknown(part)
        case "cause":
            return catalogue.causes if catalogue.causes is not None else _unknown(part)
        case "changed":
            return {}
        case _:
            assert_never(part.field)


def _unknown(part: Field) -> NoReturn:
    raise SelectionError(
        f"The selection asks for {part}, which is not known here.", hint="Select by name, tag, group, owner or kind."
    )


def _reach(start: set[str], beyond: Mapping[str, Collection[str]], layers: int | None) -> set[str]:
    """What is reached from `start` in at most `layers` steps, without `start` itself."""
    reached: set[str] = set()
    edge = start
    while edge and (layers is None or layers > 0):
        edge = {asset for known in edge for asset in beyond.get(known, ())} - reached - start
        reached |= edge
        layers = None if layers is None else layers - 1
    return reached


def _union(one: _Found, other: _Found) -> _Found:
    result = dict(one)
    for asset, rule in other.items():
        known = result.get(asset, rule)
        if known is None or rule is None:
            result[asset] = None
        elif known == rule:
            result[asset] = rule
        else:
            result[asset] = Either((*(known.of if isinstance(known, Either) else (known,)), rule))
    return result


def _intersection(one: _Found, other: _Found) -> _Found:
    result: _Found = {}
    for asset, rule in one.items():
        if asset not in other:
            continue
        also = other[asset]
        if rule is None or also is None or rule == also:
            result[asset] = also if rule is None else rule
        elif (single := _single(rule) or _single(also)) is None:
            result[asset] = Both((*(rule.of if isinstance(rule, Both) else (rule,)), also))
        elif rule.matches(single.pattern.text) and also.matches(single.pattern.text):
            result[asset] = single
    return result


def _single(rule: UnitRule) -> Label | None:
    """The rule, if it is one label exactly: what else holds of it can then be decided here."""
    return rule if isinstance(rule, Label) and not rule.pattern.glob else None


def _complement(found: _Found, catalogue: Catalogue) -> _Found:
    result: _Found = {}
    for asset in catalogue.assets:
        if asset not in found:
            result[asset] = None
        elif (rule := found[asset]) is not None and rule != Needed():
            result[asset] = rule.of if isinstance(rule, Except) else Except(rule)
    return result


def _selects_nothing(selection: Selection, catalogue: Catalogue) -> NoReturn:
    """Say which term is empty; where none is, that they have nothing in common."""
    whole = f"The selection '{selection}' selects nothing"
    for _, part in _walk(selection):
        if not isinstance(part, Name | Units | Field) or _evaluate(part, catalogue):
            continue
        if not isinstance(part, Field):
            pattern = part.pattern if isinstance(part, Name) else part.name.pattern
            word = re.sub(r"[*?]", "", pattern.text)
            _nothing(f"{whole}: no asset matches {pattern}.", word, catalogue.assets, "Assets")
        value = str(part.pattern)
        match part.field:
            case "changed":
                raise NothingSelectedError(f"{whole}: nothing has changed since {value}.")
            case "status":
                reason = f"nothing is {value}"
            case "cause":
                reason = f"nothing is stale because of {value}"
            case _:
                reason = f"no asset has the {part.field} {value}"
        known = {value for values in _values(part, catalogue).values() for value in values}
        _nothing(f"{whole}: {reason}.", part.pattern.text, known, f"Found for {part.field}")
    raise NothingSelectedError(f"{whole}: its terms share nothing.", hint="Try them one by one: aipctl ls TERM")


def _nothing(sentence: str, word: str, known: Iterable[str], what: str) -> NoReturn:
    names = sorted(known)
    shown = ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
    hints = [suggestion(word, names), f"{what}: {shown}." if names else None]
    raise NothingSelectedError(sentence, hint=" ".join(filter(None, hints)) or None)


def suggestion(word: str, known: Iterable[str]) -> str | None:
    """'Did you mean chunks?' when something known is near the word, otherwise None."""
    folded, word = {name.casefold(): name for name in known}, word.casefold()
    near = difflib.get_close_matches(word, folded, n=3, cutoff=0.6)
    if len(word) >= 3:
        near += [name for name in folded if name not in near and (word in name or name.startswith(word[:4]))]
    return f"Did you mean {' or '.join(folded[name] for name in near[:3])}?" if near else None


# --- one thing ------------------------------------------------------------------------------------------------------

_ID_PREFIX = re.compile(r"[a-z2-7]{4,52}|[0-9a-f]{4,64}")
_REF_HINT = "A REF is asset, asset[unit], asset[unit]/document, or the first characters (4 or more) of a document's id."


@dataclass(frozen=True, slots=True)
class Ref:
    """One thing, and the time behind its @. A bare word can be an asset or the beginning of an id: both are set, and an asset wins."""

    asset: str | None
    unit: str | None = None
    document: str | None = None
    prefix: str | None = None
    time: str | None = None

    def __str__(self) -> str:
        return format_ref(self.asset, self.unit, self.document) if self.asset is not None else self.prefix or ""


def parse_ref(text: str) -> Ref:
    """Read `asset`, `asset[unit]`, `asset[unit]/document`, or the beginning of a document's id.

    A unit or document that begins with a double quote, and a unit that holds `]`, is written in double quotes, as
    `format_ref` does. A time may follow behind an @. Raises SelectionError when it is none of them.
    """
    word, time = split_time(text.strip())
    asset, bracket, _ = word.partition("[")
    if not bracket:
        prefix = word.lower() if _ID_PREFIX.fullmatch(word.lower()) else None
        if not word.isidentifier() and prefix is None:
            raise SelectionError(f"{text!r} is not a REF.", hint=_REF_HINT)
        return Ref(word if word.isidentifier() else None, prefix=prefix, time=time)
    found = _UNITS.match(word, len(asset))
    rest = word[found.end() :] if found else ""
    if not asset.isidentifier() or found is None or (rest and not rest.startswith("/")) or rest == "/":
        raise SelectionError(f"{text!r} is not a REF.", hint=f"{_REF_HINT} {_UNIT_HINT}")
    return Ref(asset, _part(text, found["body"].strip()), _part(text, rest[1:]) if rest else None, time=time)


def format_ref(asset: str, unit: str | None = None, document: str | None = None) -> str:
    """The REF that `parse_ref` reads back as these three; it can be used as a selection where it names no document."""
    if unit is None:
        return asset
    written = _write(Pattern(unit), _BARE_UNIT)
    if document is None:
        return f"{asset}[{written}]"
    plain = not document.startswith('"') and document == document.strip() and document != ""
    plain = plain and split_time(f"/{document}")[1] is None
    return f"{asset}[{written}]/{document if plain else _quote(document)}"


def _part(text: str, part: str) -> str:
    if re.fullmatch(_QUOTED, part):
        return _unquote(part)
    if not part or part.startswith('"'):
        raise SelectionError(f"{text!r} is not a REF.", hint=f"{_REF_HINT} {_UNIT_HINT}")
    return part
