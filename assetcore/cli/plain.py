"""Plain: what of a text may reach a terminal?

Names, contents and messages come from anywhere. Control characters in them could move the cursor, rename the window or hide what follows;
marks of direction could turn a line around. They are shown, not obeyed.
"""

from __future__ import annotations

import re

__all__ = ["plain"]

_OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def plain(text: str) -> str:
    """The text, with what a terminal would obey written out."""
    return _OBEYED.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
