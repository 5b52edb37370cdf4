"""Patterns: which names does a pattern mean?

`*`, `?` and `[...]` within one name, `**` for any folders, `{a,b}` for either. What begins with a dot is meant only where the pattern
itself has the dot, and by any pattern of what to leave out.
"""

from __future__ import annotations

import fnmatch
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache

__all__ = ["Chosen", "Matcher", "States", "head", "left_out"]

States = frozenset[tuple[int, int]]
"""How far the patterns have come: (pattern, segment)."""


class Matcher:
    """Walks patterns along with the folders, so that no folder is entered in which nothing can match."""

    def __init__(self, patterns: Iterable[str], *, hidden: bool = False) -> None:
        self._patterns = [_segments(one, hidden) for pattern in patterns for one in _expanded(pattern)]
        self._hidden = hidden
        self.start = self._closed((number, 0) for number in range(len(self._patterns)))

    def enter(self, states: States, name: str) -> States:
        """The states below the folder `name`; none if nothing there can match."""
        return self._closed(self._steps(states, name))

    def naming(self, states: States) -> Callable[[str], bool]:
        """What tells of an entry of a folder whether a pattern names it, where these are the states; there may be many entries."""
        last = [
            segment
            for number, at in states
            if at == len(self._patterns[number]) - 1 and (segment := self._patterns[number][at]) is not None
        ]
        if len(last) < 2:
            return last[0] if last else lambda _: False
        return lambda name: any(segment(name) for segment in last)

    def names(self, states: States, name: str) -> bool:
        """Whether a pattern names this entry."""
        return self.naming(states)(name)

    def _steps(self, states: States, name: str) -> Iterator[tuple[int, int]]:
        for number, at in states:
            segments = self._patterns[number]
            segment = segments[at]
            if segment is None:
                if self._hidden or not name.startswith("."):
                    yield number, at
            elif at + 1 < len(segments) and segment(name):
                yield number, at + 1

    def _closed(self, states: Iterable[tuple[int, int]]) -> States:
        """With what is reached by letting `**` stand for no folder at all."""
        closed = set(states)
        for number, at in list(closed):
            while self._patterns[number][at] is None:
                at += 1
                closed.add((number, at))
        return frozenset(closed)


class Chosen:
    """Which names a pattern chooses, less what `exclude` leaves out, where folders are not walked through but listed as they come."""

    def __init__(self, pattern: str, exclude: Sequence[str]) -> None:
        files, folders = left_out(exclude)
        self._wanted = Matcher([pattern])
        self._files_out, self._folders_out = Matcher(files, hidden=True), Matcher(folders, hidden=True)
        self._below = lru_cache(maxsize=4096)(
            self._states_below
        )  # names that follow each other lie in the same folders
        self._choosing = lru_cache(maxsize=4096)(self._chooser)

    def chooses(self, path: str) -> bool:
        """Whether this file is meant."""
        folder, _, name = path.rpartition("/")
        chooses = self._choosing(folder)
        return chooses is not None and chooses(name)

    def enters(self, folder: str) -> bool:
        """Whether anything below this folder may be meant."""
        return self._below(folder) is not None

    def _chooser(self, folder: str) -> Callable[[str], bool] | None:
        if (states := self._below(folder)) is None:
            return None
        wanted, out = self._wanted.naming(states[0]), self._files_out.naming(states[1])
        return lambda name: wanted(name) and not out(name)

    def _states_below(self, folder: str) -> tuple[States, States, States] | None:
        matchers = (self._wanted, self._files_out, self._folders_out)
        if not folder:
            return self._wanted.start, self._files_out.start, self._folders_out.start
        above, _, name = folder.rpartition("/")
        states = self._below(above)
        if states is None or self._folders_out.names(states[2], name):
            return None
        wanted, *out = [matcher.enter(state, name) for matcher, state in zip(matchers, states, strict=True)]
        return (wanted, out[0], out[1]) if wanted else None


def head(pattern: str) -> tuple[str, bool]:
    """The folder in which all lies that the pattern means, as far as it is spelled out; and whether nothing of it lies deeper."""
    whole = [one.split("/") for one in _expanded(pattern)]
    spelled = [[*itertools.takewhile(lambda part: not re.search(r"[*?[]", part), parts[:-1])] for parts in whole]
    same = all(parts == spelled[0] for parts in spelled)
    flat = same and all(len(parts) == len(spelled[0]) + 1 and parts[-1] != "**" for parts in whole)
    return ("/".join(spelled[0]) if same else "", flat)


def _segments(pattern: str, hidden: bool) -> list[Callable[[str], bool] | None]:
    """What each part of the path must fit; None for `**`."""
    parts = pattern.split("/")
    if parts[-1] == "**":
        parts.append("*")
    return [None if part == "**" else _segment(part, hidden) for part in parts]


def _segment(part: str, hidden: bool) -> Callable[[str], bool]:
    fits = re.compile(fnmatch.translate(part)).match
    if hidden or part.startswith("."):
        return lambda name: fits(name) is not None
    if part == "*":
        return lambda name: not name.startswith(".")
    return lambda name: not name.startswith(".") and fits(name) is not None


def _expanded(pattern: str) -> list[str]:
    """The patterns that `{a,b}` stands for."""
    found = re.search(r"\{([^{}]*,[^{}]*)\}", pattern)
    if not found:
        return [pattern]
    before, after = pattern[: found.start()], pattern[found.end() :]
    return [whole for choice in found[1].split(",") for whole in _expanded(before + choice + after)]


def left_out(patterns: Iterable[str]) -> tuple[list[str], list[str]]:
    """The patterns of files, and those of folders, that an exclude= stands for; one that is for folders only matches no file."""
    files, folders = [], []
    for pattern in patterns:
        whole = pattern.removesuffix("/**/*").removesuffix("/**").rstrip("/")
        anywhere = whole if "/" in pattern.rstrip("/") else f"**/{whole}"
        folders.append(anywhere)
        if whole == pattern:
            files.append(anywhere)
    return files, folders
