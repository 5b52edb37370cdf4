"""Repack: how do the rows that are left of several packs become one?

Rows are copied as they are, column by column, and each content is hashed on the way: nothing damaged is carried on. What was written is
read again and compared before it counts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from assetcore.errors import StorageError
from assetcore.storage.arrow import pa, pq
from assetcore.storage.keys import Key
from assetcore.storage.packs import CorruptObjectError, Footer, content_views, group_bounds, write_pack

__all__ = ["Kept", "repack"]


@dataclass(frozen=True, slots=True)
class Kept:
    """A pack, and of it the rows that stay, in order, with the hashes of their contents."""

    key: Key
    data: bytes
    rows: Sequence[int]
    hashes: Sequence[bytes]


def repack(packs: Sequence[Kept]) -> list[tuple[bytes, Sequence[Kept]]]:
    """New packs of what stays: one for each run of packs that have the same columns, with the packs whose rows it has, in order.

    Raises CorruptObjectError where a row is not what it was.
    """
    tables = [_kept(one) for one in packs]
    found: list[tuple[bytes, Sequence[Kept]]] = []
    start = 0
    while start < len(packs):
        first = tables[start]
        stop = start + 1
        while stop < len(packs) and tables[stop].schema.equals(first.schema, check_metadata=True):
            stop += 1
        whole = pa.concat_tables(tables[start:stop]).replace_schema_metadata(None)
        bounds = group_bounds([len(view) for view in content_views(whole.column("content"))])
        groups = (whole.slice(begin, end - begin) for begin, end in bounds)
        data = write_pack(whole.schema, groups, first.schema.metadata or {})
        again = pq.read_table(pa.BufferReader(data), page_checksum_verification=True)
        if not again.replace_schema_metadata(None).equals(whole):
            raise StorageError(f"The rows of {packs[start].key} do not come out of a new pack as they went in.")
        found.append((data, packs[start:stop]))
        start = stop
    return found


def _kept(one: Kept) -> pa.Table:
    """The rows of a pack that stay, each verified; its own metadata stays with them."""
    try:
        file = pq.ParquetFile(pa.BufferReader(one.data), page_checksum_verification=True)
        footer = Footer.of(file.metadata)
        groups = footer.groups_of(one.rows, one.key, one.key)
        table = footer.pick({group: file.read_row_group(group) for group in groups}, list(one.rows))
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise CorruptObjectError(f"The pack {one.key} cannot be read: {error}.", one.key) from None
    for view, sha256 in zip(content_views(table.column("content")), one.hashes, strict=True):
        if hashlib.sha256(view).digest() != sha256:
            raise CorruptObjectError(f"A document of the pack {one.key} does not hash to what lineage says.", one.key)
    own = {k: v for k, v in (file.metadata.metadata or {}).items() if k.startswith(b"assetcore.")}
    return table.replace_schema_metadata(own)
