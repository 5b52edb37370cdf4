"""Elsewhere: what do the user's other modules do to an object that one of them holds?

They import it, or its module, and their statements set an attribute of it (`parts.limits.size = 3`), call a method of it, hand it to a
function, or decorate with it (`@parts.steps.step`). The object alone may not tell, so the statements are found by the chains of names that
they begin with: whatever stands for the very object. The module that a program was started with is left out, for it is another one in
every program.
"""

from __future__ import annotations

import operator
import sys
import types
from functools import lru_cache
from typing import Any, NamedTuple

from assetcore.fingerprint.definitions import Definition, Mention
from assetcore.fingerprint.files import How, Reach
from assetcore.fingerprint.names import Names, Place
from assetcore.fingerprint.objects import MISSING, held
from assetcore.fingerprint.origins import Origins

__all__ = ["Elsewhere", "Outside"]


class Outside(NamedTuple):
    """A statement of another module that does something to an object: `rest` are the attributes of it that it names."""

    place: Place
    reach: Reach
    value: Any
    rest: tuple[str, ...]

    @property
    def definition(self) -> Definition:
        """The statement, read."""
        assert self.place.file is not None, "it was found there"
        return self.place.file.define(self.reach.node)


_spec = operator.methodcaller("get", "__spec__")
"""What is another one once a module was loaded anew."""


class _Loaded:
    """The user's modules as they are loaded, which of them hold an object, and what was found of those that were asked for."""

    def __init__(self, origins: Origins) -> None:
        self.count = len(sys.modules)
        self.modules = {
            name: module
            for name, module in sorted(sys.modules.items())
            if isinstance(module, types.ModuleType)
            and name not in PROGRAM
            and origins.may_be_user(name, held(module).get("__file__"))
        }
        self.variables = [held(module) for module in self.modules.values()]
        self.specs = list(map(_spec, self.variables))
        self.holding: dict[int, list[str]] = {}
        for name, module in self.modules.items():
            for one in set(map(id, held(module).values())):
                self.holding.setdefault(one, []).append(name)
        self.reached: dict[str, dict[int, list[Outside]]] = {}
        self.found: dict[tuple[int, str], tuple[Any, list[Outside]]] = {}

    def stands(self) -> bool:
        """Whether nothing has been imported since, nor anew."""
        same = len(sys.modules) == self.count and all(
            map(operator.is_, map(sys.modules.get, self.modules), self.modules.values())
        )
        return same and all(map(operator.is_, map(_spec, self.variables), self.specs))


PROGRAM = ("__main__", "__mp_main__")
"""Modules that are left out."""


@lru_cache(maxsize=1)
def _loaded(origins: Origins) -> _Loaded:
    """What is loaded is looked through once, not for each asset."""
    return _Loaded(origins)


class Elsewhere:
    """Finds the statements of other modules, for one walk."""

    def __init__(self, origins: Origins, names: Names) -> None:
        self._origins = origins
        self._names = names
        self._seen: _Loaded | None = None

    def of(self, value: Any, module: str, *how: How) -> list[Outside]:
        """What modules other than `module`, which holds `value`, do to it, in the order of their names and lines."""
        loaded = self._look()
        known = loaded.found.get((id(value), module))
        if known is None or known[0] is not value:
            known = loaded.found[id(value), module] = (value, self._find(value, module, loaded))
        return [outside for outside in known[1] if outside.reach.how in how]

    def _look(self) -> _Loaded:
        if self._seen is None or self._seen.count != len(sys.modules):
            known = _loaded(self._origins)
            if not known.stands():
                _loaded.cache_clear()
                known = _loaded(self._origins)
            self._seen = known
        return self._seen

    def _find(self, value: Any, module: str, loaded: _Loaded) -> list[Outside]:
        packages = [module[:i] for i, letter in enumerate(module) if letter == "."]
        reachable = (value, *(sys.modules.get(name) for name in (*packages, module)))
        holding = {name for one in reachable for name in loaded.holding.get(id(one), ())} - {module}
        found = (outside for name in sorted(holding) for outside in self._by(name, loaded).get(id(value), ()))
        return [outside for outside in found if outside.value is value]

    def _by(self, name: str, loaded: _Loaded) -> dict[int, list[Outside]]:
        """What the statements of a module do to what it has imported, by the identity of that."""
        if name not in loaded.reached:
            found = loaded.reached[name] = dict[int, list[Outside]]()
            place = self._names.module(name)
            for root, reached in place.file.reached.items() if place.file is not None else ():
                if place.file is not None and (root in place.file.imports or place.file.star_imports):
                    for reach in reached:
                        for located in self._names.locate(Mention(reach.names, 0), place):
                            if located.value is not MISSING:
                                one = Outside(place, reach, located.value, located.rest)
                                found.setdefault(id(located.value), []).append(one)
        return loaded.reached[name]
