"""Selection: which assets, and which of their units, does a text mean?"""

from __future__ import annotations

import os
import subprocess
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assetcore.errors import NothingSelectedError, SelectionError
from assetcore.grammar import (
    And,
    Anywhere,
    Around,
    Ends,
    Field,
    Label,
    Name,
    Not,
    Or,
    Pattern,
    Selection,
    Span,
    Units,
    narrowed,
    parse,
)
from assetcore.planning import changed_files, check_words
from assetcore.refs import Ref, format_ref, parse_ref, suggestion
from assetcore.selection import AssetFacts, Catalogue, holds, needs, select

EDGES = [
    ("topics", "clean"),
    ("clean", "chunks"),
    ("chunks", "vectors"),
    ("chunks", "coverage"),
    ("modules", "coverage"),
]
ASSETS = {
    "topics": AssetFacts(kind="source", project="handbook"),
    "modules": AssetFacts(kind="source", project="handbook", owner="Ada L"),
    "clean": AssetFacts(tags=("text",), project="handbook"),
    "chunks": AssetFacts(tags=("text", "parts"), project="handbook", owner="Ada L"),
    "vectors": AssetFacts(group="search", project="handbook", kinds=("llm", "float16"), sensitivity="restricted"),
    "coverage": AssetFacts(tags=("report",), group="reports", project="handbook", owner="ada"),
}
CATALOGUE = Catalogue(
    ASSETS,
    upstream={asset: [one for one, other in EDGES if other == asset] for asset in ASSETS},
    downstream={asset: [other for one, other in EDGES if one == asset] for asset in ASSETS},
    statuses={"chunks": {"stale", "fresh"}, "vectors": {"pending"}},
    causes={"chunks": {"code-changed"}},
    changed=lambda ref: {"HEAD~1": {"clean"}, "origin/main": {"clean", "coverage"}}.get(ref, set()),
)
LABELS = ("x", "xx", "x]", '"x"', "x..x", "2026-11-05", "10", "9", "*")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("*", "topics modules clean chunks vectors coverage"),
        ("chunks", "chunks"),
        ('"chunks"', "chunks"),
        ("c*", "clean chunks coverage"),
        ("c????s", "chunks"),
        ("+chunks", "topics clean chunks"),
        pytest.param(f"{'9' * 5000}+chunks", "topics clean chunks", id="many steps up"),
        pytest.param(f"modules+{'9' * 5000}", "modules coverage", id="many steps down"),
        ("chunks+", "chunks vectors coverage"),
        ("+chunks+", "topics clean chunks vectors coverage"),
        ("1+chunks", "clean chunks"),
        ("0+chunks", "chunks"),
        ("2+coverage", "modules clean chunks coverage"),
        ("clean+1", "clean chunks"),
        ("1+chunks+1", "clean chunks vectors coverage"),
        ("+(vectors or modules)", "topics modules clean chunks vectors"),
        ("tag:text", "clean chunks"),
        ("tag:*r*", "chunks coverage"),
        ("group:search", "vectors"),
        ('owner:"Ada L"', "modules chunks"),
        ("owner:ada", "coverage"),
        ("kind:source", "topics modules"),
        ("kind:llm", "vectors"),
        ("sensitivity:restricted", "vectors"),
        ("not sensitivity:*", "topics modules clean chunks coverage"),
        ("project:handbook and kind:source", "topics modules"),
        ("roots(*)", "topics modules"),
        ("roots(+vectors or coverage)", "topics"),
        ("sinks(*)", "vectors coverage"),
        ("sinks(c*)", "coverage"),
        ("roots(c*)+1", "clean chunks"),
        ("status:stale", "chunks"),
        ("status:*", "chunks vectors"),
        ("cause:code-changed+", "chunks vectors coverage"),
        ("changed:HEAD~1", "clean"),
        ("changed:origin/main", "clean coverage"),
        ("not tag:text", "topics modules vectors coverage"),
        ("not tag:text and kind:asset", "vectors coverage"),
        ("not (tag:text and kind:asset)", "topics modules vectors coverage"),
        ("not not chunks", "chunks"),
        ("not +chunks", "modules vectors coverage"),
        ("not +chunks[x]", "modules chunks vectors coverage"),
        ("vectors or tag:text and owner:*", "chunks vectors"),
        ("(vectors or tag:text) and owner:*", "chunks"),
        ("topics OR modules", "topics modules"),
        ("tag:text AND NOT chunks", "clean"),
        ("chunks or chunks", "chunks"),
        ("  chunks\n or\tvectors ", "chunks vectors"),
    ],
)
def test_grammar(text: str, expected: str) -> None:
    """A selection selects these assets, in the catalogue's order."""
    assert select(parse(text), CATALOGUE).assets == tuple(expected.split())


@pytest.mark.parametrize(
    ("text", "matching"),
    [
        ("chunks[x]", ["x"]),
        ("chunks[ x ]", ["x"]),
        ("chunks[x*]", ["x", "xx", "x]", "x..x"]),
        ('chunks["x*"]', []),
        ('chunks["x]"]', ["x]"]),
        (r'chunks["\"x\""]', ['"x"']),
        ('chunks["x..x"]', ["x..x"]),
        ("chunks[2026-11-01..2026-11-07]", ["2026-11-05"]),
        ("chunks[2026-11..2026-11]", ["2026-11-05"]),
        ("chunks[2026-11-06..]", ["x", "xx", "x]", "x..x", "9"]),
        ("chunks[9..10]", ["10", "9"]),
        ("chunks[..9]", ["*", '"x"', "2026-11-05", "9"]),
        pytest.param(f"chunks[09..{'9' * 5000}]", ["2026-11-05", "10", "9"], id="many digits"),
        ("chunks[x] or chunks[9]", ["x", "9"]),
        ("chunks[x*] and chunks[*x]", ["x", "xx", "x..x"]),
        ("chunks and not chunks[x*]", ['"x"', "2026-11-05", "10", "9", "*"]),
        ("chunks[x] or chunks", list(LABELS)),
        ("+vectors and chunks[x]", ["x"]),
        ("unit:x", ["x"]),
        ("chunks and unit:x*", ["x", "xx", "x]", "x..x"]),
        ('unit:"x..x" or unit:"x]"', ["x..x", "x]"]),
        ("unit:9..10 and not unit:9", ["10"]),
        ('unit:"2026-11-06"..', ["x", "xx", "x]", "x..x", "9"]),
        ("clean or unit:xx", ["xx"]),
        ("not unit:x* and not unit:1..9999-12", ['"x"', "*"]),
    ],
)
def test_units(text: str, matching: list[str]) -> None:
    """Brackets mean these units; text in quotes is never a glob, and numbers are compared as numbers."""
    selected = select(parse(text), CATALOGUE)
    assert {label for label in LABELS if selected.includes("chunks", label)} == set(matching)
    assert "unit:" in text or not selected.includes("coverage", "x")


def test_a_unit_goes_by_several_names() -> None:
    """What is said of any of the names of a unit holds; what is denied must hold of none."""
    rule = select(parse("not unit:a and unit:2026*"), CATALOGUE).units["chunks"]
    assert not holds(rule, ["a", "2026-11-01/a", "2026-11-01"])
    assert holds(rule, ["b", "2026-11-01/b", "2026-11-01"])
    assert holds(select(parse("unit:b and unit:2026-11-01"), CATALOGUE).units["chunks"], ["b", "2026-11-01"])


@pytest.mark.parametrize(
    ("select", "docs", "expected"),
    [
        (None, "with", "unit:with"),
        ("chunks", "ref/with.txt", "chunks and unit:ref/with.txt"),
        ("chunks or clean", "a or not b*", "(chunks or clean) and (unit:a or not unit:b*)"),
        ("chunks", '(a..c or \'d) AND "and"', "chunks and ((unit:a..c or unit:'d) and unit:and)"),
        (None, "c++.txt or a[1] or not-yet.txt", 'unit:"c++.txt" or unit:"a[1]" or unit:not-yet.txt'),
        ("chunks", "status:stale and unit:a", "chunks and (status:stale and unit:a)"),
        (None, '"a b".."c d"', 'unit:"a b".."c d"'),
    ],
)
def test_documents_narrow_a_selection(select: str | None, docs: str, expected: str) -> None:
    """`--docs` is written in the same grammar: its names are those of units, of whichever asset was selected."""
    assert narrowed(select, docs) == expected
    assert str(parse(expected)) == expected


@pytest.mark.parametrize(
    ("docs", "problem"), [("", "empty"), ("a b", "two terms"), ("a, b", "comma"), ("(a", "closed")]
)
def test_documents_that_cannot_be_read(docs: str, problem: str) -> None:
    """What cannot be read of `--docs` is told as of a selection."""
    with pytest.raises(SelectionError, match=problem):
        narrowed("chunks", docs)


@pytest.mark.parametrize("name", ["étude", "が", "हिन्दी", "col·lecció"])
def test_a_name_is_read_however_its_accents_are_written(name: str) -> None:
    """Any identifier is a name, with accents as characters of their own or not; the label of a unit is what it is."""
    taken_apart = unicodedata.normalize("NFD", name)
    assert name.isidentifier()
    for text in (name, taken_apart, f'"{taken_apart}"'):
        assert parse(text) == Name(Pattern(name))
        assert parse(f"+{text}[{taken_apart}]") == Around(
            Units(Name(Pattern(name)), Label(Pattern(taken_apart))), None, 0
        )
    assert str(Name(Pattern(taken_apart))) == name
    assert parse_ref(taken_apart) == Ref(name)
    assert parse_ref(f"{taken_apart}[{taken_apart}]") == Ref(name, taken_apart)


def test_whole_assets_have_no_rule() -> None:
    """Only assets that are selected in part have a rule for their units."""
    selected = select(parse("clean or chunks[x]"), CATALOGUE)
    assert list(selected.units) == ["chunks"]
    assert str(selected.units["chunks"]) == "x"


@pytest.mark.parametrize(
    ("text", "place", "problem", "hint"),
    [
        ("chunks, vectors", 6, "a comma does not combine", "`chunks or vectors`"),
        ("chunks vectors", 7, "two terms stand beside each other", "`chunks and vectors`"),
        ("tag:text chunks", 9, "two terms", "`tag:text or chunks`"),
        ("chunks (vectors)", 7, "two terms", "`chunks and (vectors)`"),
        ("chunks + vectors", 9, "two terms", "or"),
        ("leafs(chunks)", 5, "only roots(...) and sinks(...)", "leafs"),
        ("chunks and", 10, "it ends where a term", "A term is"),
        ("(chunks", 7, "a parenthesis is not closed", "(chunks)"),
        ("chunks)", 6, "closed that was not opened", "Leave it out"),
        ("()", 1, "a term is missing", "A term is"),
        ("or chunks", 0, "a term is missing", "between two terms"),
        ("chunks | vectors", 7, "'|' is not an operator", "and, or, not"),
        ("!chunks", 0, "'!' is not an operator", "and, or, not"),
        ("'chunks'", 0, "single quotes", "double quotes"),
        ('owner:"Ada', 6, "does not end", "Inside double quotes"),
        ("tga:text", 0, "there is no field 'tga:'", "Did you mean tag?"),
        ("chunks[]", 6, "the brackets are empty", "double quotes"),
        ("chunks[a..b..c]", 6, "a range has two ends", "double quotes"),
        ("chunks and unit:a..b..c", 16, "a range has two ends", 'unit:"a b"'),
        ("unit:", 5, "it ends where a term", "A term is"),
        ('chunks["a"b]', 6, "quotes must surround", "double quotes"),
        ("chunks[x", 6, "the brackets cannot be read", "double quotes"),
        ("chunks.py", 6, "'.' cannot stand here", "A term is"),
        ("1", 0, "'1' cannot stand here", "A term is"),
    ],
)
def test_unreadable(text: str, place: int, problem: str, hint: str) -> None:
    """A selection that cannot be read is shown with a caret under the place, and a way out."""
    with pytest.raises(SelectionError) as caught:
        parse(text)
    assert caught.value.exit_code == 64
    sentence, line, caret = caught.value.message.split("\n")
    assert problem in sentence
    assert line == f"    {text}"
    assert caret == " " * (4 + place) + "^"
    assert hint in (caught.value.hint or "")


@pytest.mark.parametrize("text", ["", "  ", "\n"])
def test_empty(text: str) -> None:
    """An empty selection is refused: `*` says everything."""
    with pytest.raises(SelectionError, match="empty"):
        parse(text)


def test_nesting_is_limited_and_breadth_is_not() -> None:
    """A thousand alternatives are fine, a thousand parentheses inside each other are refused in a sentence."""
    assert select(parse(" or ".join(["chunks", "clean"] * 1000)), CATALOGUE).assets == ("clean", "chunks")
    assert select(parse("(" * 1000 + "chunks" + ")" * 1000), CATALOGUE).assets == ("chunks",)
    with pytest.raises(SelectionError, match="nested"):
        parse("not " * 2000 + "chunks")


@pytest.mark.parametrize(
    ("text", "sentence", "hint"),
    [
        ("covrage", "There is no asset 'covrage'.", "Did you mean coverage?"),
        ("Chunks", "There is no asset 'Chunks'.", "Did you mean chunks?"),
        ("chunks or covrage", "There is no asset 'covrage'.", "Did you mean coverage?"),
        ("not covrage", "There is no asset 'covrage'.", "Assets: chunks, clean, coverage"),
        ("covrage[x]", "There is no asset 'covrage'.", "Did you mean coverage?"),
        ("chunk_*", "no asset matches 'chunk_*'.", "Did you mean chunks?"),
        ("tag:repot", "no asset has the tag 'repot'.", "Did you mean report?"),
        ("owner:Ada", "no asset has the owner 'Ada'.", "Did you mean ada"),
        ("status:failed", "nothing is 'failed'.", "Found for status: fresh, pending, stale."),
        ("cause:corrupt", "nothing is stale because of 'corrupt'.", "Found for cause: code-changed."),
        ("changed:main", "nothing has changed since 'main'.", ""),
        ("chunks and vectors", "its terms share nothing.", "one by one"),
        ("chunks[x] and chunks[y]", "its terms share nothing.", "one by one"),
    ],
)
def test_nothing_selected(text: str, sentence: str, hint: str) -> None:
    """A selection that selects nothing is an error (exit code 4): which term is empty, and what was meant."""
    with pytest.raises(NothingSelectedError) as caught:
        select(parse(text), CATALOGUE)
    assert caught.value.exit_code == 4
    assert sentence in caught.value.message
    assert hint in (caught.value.hint or "")


def test_needs() -> None:
    """A selection tells which facts it takes, however deep it asks for them."""
    assert needs(parse("chunks and tag:text")) == frozenset()
    assert needs(parse("not (chunks or +(status:stale and cause:x*))")) == {"status", "cause"}
    assert needs(parse("changed:main")) == {"changed"}


def test_facts_that_are_not_known_here() -> None:
    """Asking for a status where nothing was planned is an error, not an empty answer."""
    with pytest.raises(SelectionError, match="status:stale, which is not known here") as caught:
        select(parse("status:stale"), Catalogue(ASSETS, {}, {}))
    assert caught.value.exit_code == 64


def test_suggestion() -> None:
    """Near names are offered, far ones are not."""
    assert suggestion("chunk", ["chunks", "vectors"]) == "Did you mean chunks?"
    assert suggestion("zzz", ["chunks", "vectors"]) is None


# --- properties -------------------------------------------------------------------------------------------------------

names = st.sampled_from([*ASSETS]).map(lambda name: Name(Pattern(name)))
globs = st.sampled_from(["*", "c*", "?odules", "*s", "zz*"]).map(lambda name: Name(Pattern(name, glob=True)))
texts = st.text(alphabet="ax1 ]\"\\.,[()'*?:+/\nand", max_size=6)
label_rules = st.one_of(
    st.sampled_from(LABELS).map(lambda label: Label(Pattern(label))),
    st.sampled_from(["x*", "*", "?"]).map(lambda label: Label(Pattern(label, glob=True))),
    st.tuples(st.sampled_from(LABELS), st.none() | st.sampled_from(LABELS)).map(lambda ends: Span(*ends)),
)
units = st.builds(Units, names | globs, label_rules) | st.builds(Anywhere, label_rules)
any_rules = st.one_of(
    texts.map(lambda label: Label(Pattern(label))),
    st.tuples(texts | st.none(), texts | st.none()).map(lambda ends: Span(*ends)),
)
fields = st.builds(
    Field,
    st.sampled_from(["tag", "owner", "kind", "status", "cause", "group"]),
    st.sampled_from(
        [Pattern("text"), Pattern("report"), Pattern("Ada L"), Pattern("*a*", glob=True), Pattern("stale")]
    ),
)
any_fields = st.builds(Field, st.sampled_from(["tag", "changed"]), texts.map(Pattern))


def compound(inner: st.SearchStrategy[Selection]) -> st.SearchStrategy[Selection]:
    many = st.lists(inner, min_size=2, max_size=3).map(tuple)
    layers = st.sampled_from([None, 0, 1, 2])
    around = st.builds(Around, inner, layers, layers).filter(lambda a: (a.up, a.down) != (0, 0))
    return st.one_of(
        around,
        st.builds(Ends, st.sampled_from(["roots", "sinks"]), inner),
        st.builds(Not, inner),
        many.map(And),
        many.map(Or),
    )


known = st.recursive(names | globs | fields | units, compound, max_leaves=8)
written = st.recursive(
    names
    | globs
    | texts.map(lambda text: Name(Pattern(text)))
    | any_fields
    | st.builds(Units, names | globs, any_rules)
    | st.builds(Anywhere, any_rules),
    compound,
    max_leaves=8,
)
PAIRS = frozenset((asset, label) for asset in ASSETS for label in LABELS)


def meaning(selection: Selection) -> frozenset[tuple[str, str]]:
    try:
        selected = select(selection, CATALOGUE)
    except NothingSelectedError:
        return frozenset()
    return frozenset(pair for pair in PAIRS if selected.includes(*pair))


@given(written)
def test_round_trip(selection: Selection) -> None:
    """What is written of a selection is read back as the same selection."""
    assert parse(str(selection)) == selection


@given(known, known)
def test_set_algebra(one: Selection, other: Selection) -> None:
    """not, and, or are complement, intersection and union over units, so the laws of sets hold."""
    assert meaning(Not(one)) == PAIRS - meaning(one)
    assert meaning(And((one, other))) == meaning(one) & meaning(other)
    assert meaning(Or((one, other))) == meaning(one) | meaning(other)
    assert meaning(Not(And((one, other)))) == meaning(Or((Not(one), Not(other))))


@given(known, st.integers(0, 3), st.integers(0, 3))
def test_layers(selection: Selection, first: int, second: int) -> None:
    """Layers add up, stop at everything, and never lose what they start from."""
    start = meaning(selection)
    assert start <= meaning(Around(selection, first, 0)) <= meaning(Around(selection, first + second, 0))
    if not start or any((asset, label) in start for asset, label in PAIRS if (asset, "x") not in start):
        return  # part of an asset: what is reached from it is whole
    twice = meaning(Around(Around(selection, 0, first), 0, second))
    assert twice == meaning(Around(selection, 0, first + second))
    assert meaning(Around(selection, None, 0)) == meaning(Around(selection, 9, 0))


@given(known)
def test_ends(selection: Selection) -> None:
    """Roots and sinks lie within the selection, and there are some wherever something is selected."""
    for end in ("roots", "sinks"):
        ends = meaning(Ends(end, selection))
        assert ends <= meaning(selection)
        assert meaning(Ends(end, Ends(end, selection))) == ends


@settings(max_examples=300)
@given(st.text(alphabet="ab1 ]\"\\.,[()'*?:+/\nandort|é", max_size=12) | st.text(max_size=12))
def test_any_text(text: str) -> None:
    """Every text is either read, and then written and read again, or refused in a sentence with a hint."""
    outcome: Selection | SelectionError
    try:
        outcome = parse(text)
    except SelectionError as error:
        outcome = error
    assert outcome.hint if isinstance(outcome, SelectionError) else parse(str(outcome)) == outcome


# --- REFs -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("test_units", Ref("test_units")),
        ("chunks", Ref("chunks", prefix="chunks")),
        ("DEADBEEF", Ref("DEADBEEF", prefix="deadbeef")),
        ("3fk2aa", Ref(None, prefix="3fk2aa")),
        ("chunks[with]", Ref("chunks", "with")),
        ("chunks[a b/c.txt]/c-0", Ref("chunks", "a b/c.txt", "c-0")),
        ('chunks["a ] b"]/d/e [1]', Ref("chunks", "a ] b", "d/e [1]")),
        ("chunks[../x*]", Ref("chunks", "../x*")),
        ('chunks[x]/"  d"', Ref("chunks", "x", "  d")),
    ],
)
def test_ref(text: str, expected: Ref) -> None:
    """A REF names an asset, a unit, a document, or the beginning of an id."""
    assert parse_ref(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", "a-b", "12", "topics/with.txt", "chunks[]", "chunks[x", "chunks[x]y", "chunks[x]/", "[x]", 'chunks["a"b]'],
)
def test_no_ref(text: str) -> None:
    """What is no REF is refused, with what a REF looks like."""
    with pytest.raises(SelectionError) as caught:
        parse_ref(text)
    assert "asset[unit]/document" in (caught.value.hint or "")


@given(st.sampled_from(["a", "ab", "abcd"]), texts, st.none() | texts)
def test_ref_round_trip(asset: str, unit: str, document: str | None) -> None:
    """What is printed of a REF is read back as the same one, whatever the names hold."""
    text = format_ref(asset, unit, document)
    assert parse_ref(text) == Ref(asset, unit, document)
    if document is None:
        assert parse(text) == Units(Name(Pattern(asset)), Label(Pattern(unit)))


def test_a_range_that_ends_before_it_begins_is_told_apart() -> None:
    """Numbers are compared as numbers, and what begins with the last is within the range."""
    assert Span("2026-11-02", "2026-11-01").turned == Span("2026-11-01", "2026-11-02")
    assert Span("10", "9").turned == Span("9", "10")
    for first, last in [("9", "10"), ("2026-11-05", "2026-11"), ("a", "a"), ("b", None), (None, "a")]:
        assert Span(first, last).turned is None


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("chunks or status:stal", "Did you mean stale? There are: fresh, stale, pending, removed."),
        ("not status:x*", "There are: fresh"),
        ("+(cause:code)", "Did you mean code-changed? There are: forced, missing,"),
    ],
)
def test_what_is_no_status_and_no_cause_is_wrong_usage(text: str, hint: str) -> None:
    """A word that nothing can ever be is no empty answer (4), and refused before anything is planned (64)."""
    with pytest.raises(SelectionError, match=r"there is no such (status|cause)") as caught:
        check_words(parse(text))
    assert caught.value.exit_code == 64
    assert hint in (caught.value.hint or "")
    check_words(parse("status:* and cause:code* or not cause:corrupt and changed:stal and tag:stal"))


# -- git -------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout of two files, of which `a.py` was changed since its one commit."""
    for arguments in (
        ["init", "--quiet", "--initial-branch", "main"],
        ["add", "."],
        ["-c", "user.name=ada", "-c", "user.email=ada@example.org", "commit", "--quiet", "-m", "first"],
    ):
        for name in ("a.py", "b.py"):
            (tmp_path / name).write_text("1")
        subprocess.run(["git", "-C", str(tmp_path), *arguments], check=True)
    (tmp_path / "a.py").write_text("2")
    return tmp_path


def test_changed_since_a_git_ref(checkout: Path) -> None:
    """Files that differ, and modules that git does not know yet and is not to ignore, whatever they are called; of a range none."""
    assert changed_files(checkout, "main") == {checkout / "a.py"}
    odd = os.fsdecode(b"\xff.py")
    for name in ("new.py", odd, "data.txt", "ignored.py"):
        (checkout / name).touch()
    (checkout / ".gitignore").write_text("ignored.py")
    assert changed_files(checkout, "main") == {checkout / name for name in ("a.py", "new.py", odd)}
    assert changed_files(checkout, "main..main") == frozenset()


def test_what_is_no_git_ref_is_no_option_of_git(checkout: Path) -> None:
    """What git cannot compare with is told, and what begins as an option does is not handed to it."""
    (checkout / "kept.txt").write_text("important")
    with pytest.raises(SelectionError, match=r"changed:--output=kept\.txt: .* is not the name of a git ref"):
        changed_files(checkout, "--output=kept.txt")
    with pytest.raises(
        SelectionError, match="changed:nowhere: git cannot compare with it: fatal: bad revision 'nowhere'"
    ):
        changed_files(checkout, "nowhere")
    with pytest.raises(
        SelectionError, match=r"git cannot compare with it: /.* is in no git repository\.\n.*aipctl env ls"
    ):
        changed_files(checkout.parent, "main")
    assert (checkout / "kept.txt").read_text() == "important"
