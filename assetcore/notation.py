"""Notation: which value does a text in YAML say?

Ten lines of YAML can say more than fits into any memory: a list of ten times the same list, of ten times the same list. What names
repeat is counted before anything is made of it. Whatever is wrong with a text is a `ValueError` in a sentence.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import yaml

__all__ = ["parse_yaml"]

REPEATED = 100_000
"""So many values may a text say beyond those that are written out in it."""
MERGE = "tag:yaml.org,2002:merge"
TOO_DEEP = "it is nested too deeply"
DEEPEST = 200
"""So many brackets may be open at once. The scanner looks ahead at all that are, once more for each."""


def parse_yaml(text: str) -> Any:
    """The value that a text says; None for an empty one. Raises ValueError."""
    import yaml  # 20 ms, only where there is something to read

    class Loader(yaml.SafeLoader):
        def fetch_flow_collection_start(self, TokenClass: type[yaml.Token]) -> None:
            if self.flow_level == DEEPEST:
                raise ValueError(TOO_DEEP)
            super().fetch_flow_collection_start(TokenClass)

        def compose_mapping_node(self, anchor: Any) -> Any:
            node = super().compose_mapping_node(anchor)
            _check_keys([key for key, _ in node.value])
            return node

    try:
        loader = Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            sizes: dict[int, int] = {}
            if _size(node, sizes) - len(sizes) > REPEATED:
                raise ValueError("its anchors repeat more than anybody can have meant")
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from None
    except RecursionError:
        raise ValueError(TOO_DEEP) from None


def _size(node: yaml.Node, sizes: dict[int, int]) -> int:
    """How many values a node says, those of an anchor as often as it is repeated; `sizes` are those of nodes that were seen."""
    known = sizes.get(id(node))
    if known == 0:
        raise ValueError("an anchor holds itself")
    if known is None:
        sizes[id(node)] = 0  # until it is known
        members = node.value if isinstance(node.value, list) else []
        inside = [one for member in members for one in (member if isinstance(member, tuple) else (member,))]
        known = sizes[id(node)] = 1 + sum(_size(one, sizes) for one in inside)
    return known


def _check_keys(keys: Sequence[yaml.Node]) -> None:
    """YAML forbids what its parser takes in silence: of two values for one key the first would be lost."""
    seen: set[tuple[str, str]] = set()
    for key in keys:
        if isinstance(key.value, str) and key.tag != MERGE:  # all that is merged is kept
            if (key.tag, key.value) in seen:
                raise ValueError(f"line {key.start_mark.line + 1} has the key {key.value} once more")
            seen.add((key.tag, key.value))
