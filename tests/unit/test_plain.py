"""Plain: whatever a document, a name or a message holds, a terminal shows it and does not obey it."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from assetcore.cli import show
from assetcore.cli.plain import plain
from assetcore.cli.progress import Lines
from assetcore.results import Event

HOSTILE = "\x1b]0;owned\x07\x1b[2J\x9b31mred\u202egnp.exe\rover"


def drawn(answer: object) -> str:
    stream = io.StringIO()
    Console(file=stream, force_terminal=True, width=80, color_system=None).print(answer)
    return stream.getvalue()


@pytest.mark.parametrize(
    "answer",
    [
        show.comparison({"diff": f"--- a\n+++ b\n-{HOSTILE}\n+x", "same": False}),
        show.found({"hits": [{"name": HOSTILE, "asset": "pages", "title": HOSTILE, "snippet": HOSTILE}]}),
        show.documents({"documents": [{"document": HOSTILE, "id": "ab", "size": 1, "media_type": HOSTILE, "unit": HOSTILE}]}),
        show.verified({
            "damaged": [{"asset": "a", "unit": HOSTILE, "document": HOSTILE, "cause": "corrupt", "detail": HOSTILE, "key": HOSTILE}],
            "objects": 1, "documents": 1, "bytes": 1, "already": 0, "seconds": 0.1,
            "rerun": [{"asset": "a", "unit": HOSTILE, "same": False, "error": HOSTILE, "diff": HOSTILE}],
        }),
        show.Text("safe").append(HOSTILE),
    ],
)  # fmt: skip
def test_what_people_see_holds_nothing_that_a_terminal_obeys(answer: object) -> None:
    """Diffs, passages, names and errors are shown with their control characters written out."""
    text = drawn(answer)
    assert "\\x1b" in text
    assert not set(text) & set("\x1b\x07\x9b\u202e\r")


def test_progress_and_drawings_are_plain() -> None:
    """So are the lines that a run says, and what Graphviz or Mermaid is given."""
    stream = io.StringIO()
    Lines(stream)(Event("unit-failed", "a", text=HOSTILE))
    nodes = {"nodes": [{"id": "1", "asset": "a", "unit": HOSTILE, "document": HOSTILE}], "edges": []}
    for text in (stream.getvalue(), show.dot(nodes), show.mermaid(nodes)):
        assert "\x1b" not in text
        assert "\\x1b" in text


def test_ordinary_text_is_left_alone() -> None:
    """Letters of every script, emoji, tabs and line ends are as they were."""
    text = "Straße\t日本語 💡\nשלום é\n"
    assert plain(text) == text


def test_what_is_done_with_yes_is_not_told_as_another_command() -> None:
    """Of `gc --keep 30d` it is said to add --yes: a line to copy without what was asked would do something else."""
    found = {"dry_run": True, "objects": 0, "orphans": [], "let_go": 1, "compacted": 1, "replaced": 0, "bytes": 1000}
    assert "To do it, add --yes." in " ".join(drawn(show.garbage(found)).split())
