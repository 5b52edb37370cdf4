"""Markdown: how does a plan look as a comment on a pull request?"""

from __future__ import annotations

from typing import Any

from assetcore.cli.markdown import LONGEST, plan


def answer(**given: Any) -> dict[str, Any]:
    """The JSON answer of a plan with one stale and one fresh asset."""
    assets = [
        {"asset": "chunks", "units": 3, "fresh": 0, "stale": 3, "pending": 0, "removed": 0, "causes": {"code-changed": 3}},
        {"asset": "clean", "units": 3, "fresh": 3, "stale": 0, "pending": 0, "removed": 0, "causes": {}},
    ]  # fmt: skip
    estimate = {"seconds": 12.0, "tokens": None, "usd": None}
    plain = {
        "project": "demo",
        "environment": "prod",
        "assets": assets,
        "sources": [],
        "checks": [],
        "estimate": estimate,
    }
    return plain | given


def root(detail: str, **given: Any) -> dict[str, Any]:
    return {"detail": detail, "units": 1, "before": None, "after": None} | given


def why(*roots: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"code": "code-changed", "stale": 3, "pending": 1, "roots": list(roots)}]


def test_a_plan_is_a_sentence_a_table_and_its_roots() -> None:
    """Assets that a run would leave alone are not in the table; what is at the root is folded together."""
    text = plan(answer(why=why(root("the function of chunks was changed", diff="@@ -1 +1 @@\n-a\n+b\n", units=3))))
    assert text == (
        "### `demo` against `prod`\n\n"
        "3 stale (code-changed 3): about 12 s.\n\n"
        "| asset | units | stale | why |\n|---|--:|--:|---|\n| `chunks` | 3 | 3 | code-changed 3 |\n\n\n"
        "<details><summary><b>code-changed</b>: 3 stale, 1 pending</summary>\n\n"
        "- the function of chunks was changed (3 units)\n  ```diff\n  @@ -1 +1 @@\n  -a\n  +b\n  ```\n\n</details>\n"
    )


def test_nothing_to_do_is_a_sentence() -> None:
    """A plan in which all is fresh has no table."""
    assert plan(answer(assets=[])) == "### `demo` against `prod`\n\nEverything is up to date.\n"


def test_names_and_contents_are_no_markup() -> None:
    """Bars, backticks, tags, links and mentions in the names and contents of documents stay what they are."""
    hostile = "<img src=x> [a](http://b) @everyone `c` | d\n# e"
    text = plan(answer(why=why(root(hostile, diff="+```\n+</details>\n"), root("x", before="a`b|c", after=hostile))))
    assert "<img" not in text.replace("` <img", "").replace("`` <img", "")
    assert "[a](" not in text.replace("\\[a\\](", "").split("→")[0]
    assert "\n# e" not in text
    assert "  ````diff\n  +```\n  +</details>\n  ````" in text
    assert "`` a`b\\|c ``" in text


def test_a_comment_is_never_too_long() -> None:
    """What GitHub would refuse is told without the details."""
    text = plan(answer(why=why(root("x", diff="\n".join("+" + "y" * 5000 for _ in range(25))))))
    assert len(text) < LONGEST
    assert "<details>" not in text
    assert "aipctl plan --why" in text
