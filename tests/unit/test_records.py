"""Records: the small objects of the bucket beside its manifests."""

from __future__ import annotations

import pytest

from assetcore.lineage.records import decode, encode

RECORD = {"project": "demo", "journal": [{"number": n, "hash": f"{n * 7919**19:064x}"[-64:]} for n in range(9)]}


def test_a_record_is_read_back_and_the_same_record_gives_the_same_bytes() -> None:
    """What it says comes back, beside the number of its form."""
    assert decode(encode(RECORD)) == {"format": 1, **RECORD}
    assert encode(RECORD) == encode(dict(reversed(RECORD.items())))


@pytest.mark.parametrize("flipped", [1, 255])
def test_damage_at_any_place_is_one_kind_of_error(flipped: int) -> None:
    """Whatever byte was changed or is missing after the header, those who read many records learn it in one way."""
    data = encode(RECORD)
    for place in range(10, len(data)):
        for damaged in (data[:place], data[:place] + bytes([data[place] ^ flipped]) + data[place + 1 :]):
            with pytest.raises(ValueError, match="no record"):
                decode(damaged)
