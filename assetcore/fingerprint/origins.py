"""Origins: whose code is a module?

The user's is followed, also what is installed as editable; the standard library's is not, that of a third-party distribution
is pinned by its version, and assetcore's own is ignored: a new release of it must not make anything stale.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import sys
from collections.abc import Callable, Collection
from functools import cache, lru_cache
from typing import Literal

__all__ = ["Origin", "Origins", "UserPackages", "distributions", "is_editable"]

Origin = Literal["user", "ours", "standard", "third-party"]
UserPackages = Collection[str] | Callable[[str], bool]

OURS = "assetcore"
INSTALLED = ("site-packages", "dist-packages")
"""Folders that hold what is installed, and is not edited where it is."""


class Origins:
    """Tells the origin of modules, by their names; `user_packages` are top-level packages, or a predicate on a module's name.

    Two that were given the same are equal.
    """

    def __init__(self, user_packages: UserPackages) -> None:
        self._user_packages = user_packages if callable(user_packages) else frozenset(user_packages)
        self._known = _known(self._user_packages) if isinstance(self._user_packages, frozenset) else {}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Origins) and self._user_packages == other._user_packages

    def __hash__(self) -> int:
        return hash(self._user_packages)

    def of(self, module: str | None) -> Origin:
        """The origin of a module; objects without one are made by the interpreter itself."""
        if not module:
            return "standard"
        found = self._known.get(module)
        if found is None:
            found = self._known[module] = self._find(module)
        return found

    def may_be_user(self, module: str, path: object) -> bool:
        """Whether a module that lies at `path` may be the user's: told of many modules without a look at what is installed."""
        top = module.partition(".")[0]
        return self._is_user(module) or (
            isinstance(path, str)
            and path.endswith(".py")
            and top != OURS
            and top not in sys.stdlib_module_names
            and not any(f"{os.sep}{folder}{os.sep}" in path for folder in INSTALLED)
        )

    def _find(self, module: str) -> Origin:
        top = module.partition(".")[0]
        if self._is_user(module):
            return "user"
        if top == OURS:
            return "ours"
        if not top or top in sys.stdlib_module_names or top in sys.builtin_module_names:
            return "standard"
        return "third-party" if distributions(top) else "user"

    def _is_user(self, module: str) -> bool:
        if module in ("__main__", "__mp_main__"):
            return True
        if callable(self._user_packages):
            return self._user_packages(module)
        return any(module == package or module.startswith(f"{package}.") for package in self._user_packages)


@cache
def _known(user_packages: frozenset[str]) -> dict[str, Origin]:
    """What has been found of modules, where these packages are the user's own: what is installed does not change meanwhile."""
    return {}


@cache
def distributions(top: str) -> tuple[tuple[str, str], ...]:
    """The installed distributions (name, version) that the top-level package `top` belongs to; none for the user's own code."""
    return tuple((found.metadata["Name"], found.version) for found in _installed(top) if not _is_edited(found))


@cache
def is_editable(top: str) -> bool:
    """Whether the top-level package `top` is installed as editable: its code is the user's, who may edit it where it is."""
    return any(map(_is_edited, _installed(top)))


def _installed(top: str) -> list[importlib.metadata.Distribution]:
    try:
        own = importlib.metadata.distribution(top)
        if (own.read_text("top_level.txt") or top).split() == [top]:
            return [own]
    except importlib.metadata.PackageNotFoundError:
        pass
    return [importlib.metadata.distribution(name) for name in sorted(set(by_package().get(top, ())))]


def _is_edited(distribution: importlib.metadata.Distribution) -> bool:
    """Whether it was installed with `pip install -e` or is a member of the workspace (PEP 610)."""
    try:
        told = json.loads(distribution.read_text("direct_url.json") or "{}")
    except ValueError:
        return False
    return bool(told.get("dir_info", {}).get("editable"))


@lru_cache(maxsize=1)
def by_package() -> dict[str, list[str]]:
    """Reads the metadata of every distribution: 0.2 s for 200, only where a package is not named like its distribution."""
    return dict(importlib.metadata.packages_distributions())
