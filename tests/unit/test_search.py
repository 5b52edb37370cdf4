"""The search index: deterministic bytes, ranking, terms, and scores that compare across indexes."""

from __future__ import annotations

import io
import time
import zipfile

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from assetcore.errors import AssetcoreError, UsageError
from assetcore.search import SNIPPET, SearchIndex, search, terms

PAGES = pl.DataFrame(
    {
        "name": ["with", "slicings", "yield", "filler", "empty"],
        "title": ["The with statement", "Slicings", "Yield expressions", "", ""],
        "text": [
            "The with statement wraps a block with methods defined by a context manager.",
            "A slicing selects a range of items in a sequence object.",
            "A yield expression makes the function a generator.",
            "In this context there is a manager of pages. "
            + "Nothing else is to be seen on a page such as this one. " * 9,
            "",
        ],
        "asset": ["pages"] * 5,
    }
)


def names(index: SearchIndex, text: str) -> list[str]:
    return [hit.name for hit in search(index, text)]


def test_words_find_the_documents_that_hold_them_the_most_telling_first() -> None:
    """A short page with all the words comes before a long one, and a page without them does not come at all."""
    assert names(SearchIndex.build("pages", PAGES), "context manager") == ["with", "filler"]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("slice", "slicings"),
        ("SLICES", "slicings"),
        ("generators", "yield"),
        ("yielding", "yield"),
        ("expression", "yield"),
    ],
)
def test_endings_and_case_do_not_count(query: str, expected: str) -> None:
    """Singular, plural, -ing and -ed forms of a word find each other."""
    assert names(SearchIndex.build("pages", PAGES), query)[0] == expected


def test_a_word_in_the_title_counts_more() -> None:
    """Of two pages with the same words, the one that has them in its title comes first."""
    pages = pl.DataFrame({"name": ["a", "b"], "title": ["other", "cats"], "text": ["cats", "other"]})
    assert names(SearchIndex.build("pages", pages), "cat") == ["b", "a"]


def test_weight_moves_an_entry_up() -> None:
    """The weight of an entry is a factor of its score."""
    pages = pl.DataFrame({"name": ["a", "b"], "text": ["the same words", "the same words"], "weight": [1.0, 2.0]})
    one, two = search(SearchIndex.build("pages", pages), "same words")
    assert (one.name, two.name) == ("b", "a")
    assert one.score == pytest.approx(2 * two.score, abs=0.002)


def test_the_same_entries_give_the_same_bytes_in_any_order() -> None:
    """An index that is made again of the same documents is the same document, so that nothing below it is made again."""
    once = SearchIndex.build("pages", PAGES)
    again = SearchIndex.build("pages", PAGES.sample(fraction=1, shuffle=True, seed=7).lazy())
    assert again.content == once.content


def test_an_index_survives_storing() -> None:
    """What is stored is the bytes, the media type and one typed field; they are enough to search."""
    index = SearchIndex.build("pages", PAGES)
    stored = SearchIndex.stored(index.name, index.content, index.media_type, index.field_values())
    assert search(stored, "slice") == search(index, "slice")
    with zipfile.ZipFile(io.BytesIO(index.content)) as archive:
        assert archive.namelist() == ["entries.parquet", "postings.parquet"]


def test_two_indexes_answer_as_one_would() -> None:
    """How rare a word is, is counted over all indexes together, so splitting the documents keeps the order of the answers."""
    pages = pl.DataFrame(
        {"name": [f"page-{i}" for i in range(40)], "text": [f"common text {'rare ' * (i % 7 == 3)}" for i in range(40)]}
    )
    halves = [SearchIndex.build("a", pages[:20]), SearchIndex.build("b", pages[20:])]
    whole = SearchIndex.build("all", pages)
    assert [hit.name for hit in search(halves, "rare common", 6)] == [
        hit.name for hit in search(whole, "rare common", 6)
    ]
    assert all(
        hit.name in {"page-3", "page-10", "page-17", "page-24", "page-31", "page-38"}
        for hit in search(halves, "rare", 9)
    )


def test_identifiers_are_found_whole_and_by_their_parts() -> None:
    """A name in the code is found as it is written, and by the words that it is made of."""
    pages = pl.DataFrame(
        {"name": ["a", "b", "c"], "text": ["class AsyncContextManager", "def __enter__(self)", "enter the room"]}
    )
    index = SearchIndex.build("pages", pages)
    assert names(index, "asynccontextmanager") == ["a"]
    assert names(index, "context manager") == ["a"]
    assert names(index, "__enter__") == ["b", "c"]


@pytest.mark.parametrize(
    ("word", "found_under"),
    [
        ("getLines", {"getlin", "get", "lin"}),
        ("HTTPServer", {"httpserver", "http", "server"}),
        ("max_size", {"max_siz", "max", "siz"}),
        ("classes", {"class"}),
        ("queries", {"query"}),
        ("running", {"run"}),
        ("string", {"string"}),
        ("status", {"status"}),
        ("Zürich", {"zurich"}),
        ("日本語", {"日本", "本語"}),
        ("utf8", {"utf8", "utf", "8"}),
    ],
)
def test_terms(word: str, found_under: set[str]) -> None:
    """A word is found under its parts and under itself, without endings, case and accents."""
    assert set(terms(word)) == found_under


@given(st.text(min_size=1, max_size=60))
def test_any_text_can_be_indexed_and_asked_for(text: str) -> None:
    """No text makes an index or a question fail, and a document that has words is found by all of its words."""
    printable = text.encode("utf-8", "ignore").decode()
    index = SearchIndex.build("pages", pl.DataFrame({"name": ["%"], "text": [printable]}))
    try:
        hits = search(index, printable)
    except UsageError:
        return
    assert all(hit.name == "%" for hit in hits)
    if printable.isascii():
        assert hits


def test_a_question_without_words_is_refused() -> None:
    """Punctuation alone is wrong usage, said in a sentence."""
    with pytest.raises(UsageError, match="has no words"):
        search(SearchIndex.build("pages", PAGES), "?!")


def test_entries_without_a_name_are_refused() -> None:
    """The error names the index, the missing column and what there is."""
    with pytest.raises(AssetcoreError, match=r"'pages' .* without a column 'text': name, title"):
        SearchIndex.build("pages", PAGES.select("name", "title"))


def test_nothing_to_index_is_an_index_that_finds_nothing() -> None:
    """An index over no entries, or over entries without text (an image, say), answers with nothing."""
    assert search(SearchIndex.build("none", PAGES.clear()), "context") == []
    images = pl.DataFrame({"name": ["%"], "text": pl.Series([None], dtype=pl.String)})
    assert search(SearchIndex.build("images", images), "context") == []


def test_a_snippet_shows_the_passage_that_answers() -> None:
    """The snippet is one line around the words that were asked for, wherever they stand in the text."""
    text = "Nothing here.\n" * 50 + "Then comes the\ncontext manager, at last." + " And more." * 50
    (hit,) = search(SearchIndex.build("pages", pl.DataFrame({"name": ["a"], "text": [text]})), "context manager")
    assert "context manager, at last." in hit.snippet
    assert hit.snippet.startswith("… ")
    assert hit.snippet.endswith(" …")
    assert "\n" not in hit.snippet
    assert len(hit.snippet) <= SNIPPET + 4


def test_the_limit_counts_over_all_indexes() -> None:
    """A search returns as many hits as were asked for, at most."""
    index = SearchIndex.build("pages", pl.DataFrame({"name": [f"p{i}" for i in range(30)], "text": ["word"] * 30}))
    assert len(search([index, index], "word", 7)) == 7
    assert search(index, "word", 0) == []


def test_tens_of_thousands_of_entries_are_searched_at_once() -> None:
    """A question over 30,000 short documents, read from the stored bytes, costs no more than a few looks at each of them."""
    frame = pl.DataFrame({"name": [f"module.f{i}" for i in range(30_000)]}).with_columns(
        text=pl.format(
            "def f{}(self, x{}): Return the value of item number {}.",
            pl.int_range(30_000),
            pl.int_range(30_000) % 97,
            "name",
        )
    )
    index = SearchIndex.build("code", frame)

    def ask() -> str:
        stored = SearchIndex.stored("code", index.content, index.media_type, {"entries": 30_000})
        return search(stored, "x42 value item")[0].name

    assert "x42" in dict(frame.iter_rows())[ask()]
    started = time.process_time()
    frame.to_dicts()
    looked = time.process_time()
    ask()
    assert time.process_time() - looked < 10 * (looked - started)
