"""Acceptances: which versions of an asset's code count as one?"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from assetcore.lineage.acceptances import Acceptance, same_code, with_accepted
from assetcore.staleness import Component, Definition, definition_causes

codes = st.sampled_from([bytes([n]) for n in range(6)])
said = st.lists(st.builds(Acceptance, st.just(1), codes, codes, st.just(())), max_size=8)


@given(codes, codes, codes, said)
def test_what_counts_as_the_same_is_an_equivalence(
    one: bytes, two: bytes, three: bytes, accepted: list[Acceptance]
) -> None:
    """Each counts as itself, both ways, and by way of others; and nothing does that nobody has accepted."""
    assert one in same_code(one, accepted)
    assert (two in same_code(one, accepted)) == (one in same_code(two, accepted))
    if two in same_code(one, accepted) and three in same_code(two, accepted):
        assert three in same_code(one, accepted)
    assert same_code(one, []) == {one}


def test_only_the_code_of_a_definition_counts_as_the_same() -> None:
    """Where the config differs too, that remains a cause."""

    def definition(code: bytes, config: bytes) -> Definition:
        return Definition({"code": Component(code), "config": Component(config)})

    now = definition(b"new", b"one")
    known = {1: definition(b"old", b"one"), 2: definition(b"old", b"two"), 3: definition(b"older", b"one")}
    found = with_accepted(known, now, [Acceptance(1, b"old", b"new", ("a",))])
    assert [definition_causes(found[i], now) for i in (1, 2, 3)] == [(), ("config-changed",), ("code-changed",)]
    assert with_accepted(known, now, []) is known
