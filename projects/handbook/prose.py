"""Prose: what does a topic of the reference say, and where may it be cut?"""

from __future__ import annotations

import re
from collections.abc import Iterator
from textwrap import dedent, indent

UNDERLINE = re.compile(r"([*=~-])\1+")
BULLET = re.compile(r"([*-]|\(?\d+[.)]|\[\d+\])\s")
SENTENCE = re.compile(r"[A-Z]\w*,? [\w“\"*].*|[A-Z“\"*(].*[.:;,!?)”*]", re.DOTALL)
LAID_OUT = re.compile(r"\A([+|#@]|>>>)|^ | {2,}#|::=", re.MULTILINE)
QUOTED_NAME = re.compile(r'"([A-Za-z_][\w.]*\w)(?:\([^"]*\))?"')


def normalise(text: str) -> str:
    """The topic as Markdown: one line for each paragraph, and what is laid out by hand (code, grammar, tables) indented by four."""
    blocks = re.split(r"\n(?:[ \t]*\n)+", text.expandtabs().strip("\n"))
    return "\n\n".join(_paragraph(dedent(block).rstrip()) for block in blocks) + "\n"


def title(markdown: str) -> str:
    """The heading that the text begins with."""
    return markdown.split("\n", 1)[0].lstrip("# ").replace('"', "")


def pieces(markdown: str, size: int) -> Iterator[tuple[str, str]]:
    """(heading, text): cut at headings, and between paragraphs where a section is longer than `size` characters."""
    heading, text = "", ""
    for paragraph in [*markdown.strip().split("\n\n"), "#"]:
        if text and (paragraph.startswith("#") or len(text) + len(paragraph) > size):
            yield heading, text
            text = ""
        if paragraph.startswith("#"):
            heading = title(paragraph)
        else:
            text += paragraph + "\n\n"


def quoted_names(markdown: str) -> list[str]:
    """The names in quotes, such as "collections.namedtuple()", each once."""
    return sorted(set(QUOTED_NAME.findall(markdown)))


def _paragraph(block: str) -> str:
    first, _, rest = block.partition("\n")
    line = " ".join(re.sub(r"(?<=\w)-\n\s*(?=\w)", "-", block).split())
    if UNDERLINE.fullmatch(rest):
        return f"{'#' * ('*=-~'.index(rest[0]) + 1)} {first}"
    if BULLET.match(line) or (SENTENCE.fullmatch(line) and not LAID_OUT.search(block)):
        return line
    if rest.startswith(" ") and not (meaning := _paragraph(dedent(rest))).startswith(
        " "
    ):  # a term, and below it what it means
        return f"{first}\n\n{meaning}"
    return indent("\n".join(part.rstrip() for part in block.split("\n")), "    ")
