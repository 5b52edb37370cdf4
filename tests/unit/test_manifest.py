"""Manifest: what the bucket itself knows of a commit is all that Postgres is told."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assetcore.documents import Document
from assetcore.keep import _artifact_name
from assetcore.lineage.commit import Batch, Failed, Made, NewDocument, NewObject, Reused
from assetcore.lineage.manifest import FORMAT, NAME, decode_manifest, encode_manifest, objects_of, read_manifest
from assetcore.lineage.records import NAME as RECORD
from assetcore.staleness import Component, Definition
from assetcore.storage.keys import Key, artifact_name

numbers = st.integers(1, 2**62)
places = st.binary(min_size=16, max_size=16)
digests = st.binary(min_size=32, max_size=32)
names = st.sampled_from(["a", "a/b", "é", "🙂", " ", "x" * 1024, 'say "hi"'])
parameters = st.integers(0, 300)
fields = st.none() | st.dictionaries(st.sampled_from("ab"), st.sampled_from([None, 1, 1.5, "é", [1, "a"], {"c": None}]))
documents = st.builds(
    NewDocument, numbers, places, names, names, names, numbers, digests, st.binary(max_size=48), digests, numbers,
    st.none() | st.integers(0, 2**31 - 1), fields,
)  # fmt: skip
made = st.builds(
    Made, numbers, places, names, st.none() | names, digests, st.lists(numbers, max_size=3).map(tuple),
    st.lists(documents, max_size=3).map(tuple), st.lists(st.tuples(parameters, numbers), max_size=3).map(tuple),
    st.lists(st.tuples(parameters, st.integers(1, 2**31 - 1), numbers), max_size=2).map(tuple), st.sampled_from([0.0, 0.5, 1e6]),
    st.none() | numbers, st.booleans(), st.booleans(), st.none(), st.just(()),
)  # fmt: skip
objects = st.builds(NewObject, numbers, st.just(Key("k")), numbers, st.none() | st.integers(1, 9), st.none() | digests)
batches = st.builds(
    Batch, numbers, st.just(1), st.just(2), st.just(3), st.just(4), st.just("run"), st.just(Key("key")),
    st.lists(made, max_size=3).map(tuple), st.lists(st.builds(Reused, places, names, numbers, numbers), max_size=2).map(tuple),
    st.lists(st.tuples(places, st.none() | numbers), max_size=2).map(tuple), st.just(()),
    st.lists(objects, max_size=2).map(tuple),
    st.just(datetime(2026, 1, 1, 12, 30, 0, 5, UTC)),
)  # fmt: skip
DEFINITION = Definition({"code": Component(b"1" * 32, {"f": "ab"}), "version": Component(b"2" * 32, None)})


def encoded(batch: Batch, definition: Definition | None = DEFINITION) -> bytes:
    return encode_manifest(
        batch, project="demo", environment="prod", asset="chunks", assets={3: "chunks", 7: "é"}, definition=definition
    )


def read_back(rows: Any) -> tuple[tuple[Made, ...], tuple[Reused, ...], tuple[tuple[bytes, int | None], ...]]:
    """What rows of a manifest say, as what was committed; what only the moment of the commit knows is left out."""
    found: dict[str, list[Any]] = {"made": [], "reused": [], "removed": []}
    for row in rows:
        match row["event"]:
            case "made" | "aside":
                new = [NewDocument(**d | {"fields": d["fields"] and json.loads(d["fields"])}) for d in row["new"]]
                edges = tuple((e["parameter"], e["document"]) for e in row["edges"])
                collected = tuple((c["parameter"], c["asset"], c["commit"]) for c in row["collected"])
                found["made"].append(
                    Made(
                        row["materialization"], row["unit"], row["label"], row["parent"], row["inputs"], tuple(row["documents"]),
                        tuple(new), edges, collected, row["seconds"], None, changed=False,
                        current=row["event"] == "made",
                    )
                )  # fmt: skip
            case "reused":
                found["reused"].append(Reused(row["unit"], row["label"], row["materialization"], None))
            case "removed":
                found["removed"].append((row["unit"], row["materialization"]))
    return tuple(found["made"]), tuple(found["reused"]), tuple(found["removed"])


def test_a_manifest_holds_nothing_twice() -> None:
    """Beside the rows it has the header and Parquet's own schema: Arrow's would take as much room as a few units do."""
    batch = Batch(9, 1, 2, 3, 4, "run", Key("key"), (), (), (), (), (), datetime(2026, 1, 1, tzinfo=UTC))
    assert list(pq.read_metadata(io.BytesIO(encoded(batch))).metadata) == [b"assetcore"]


@given(batches)
@settings(max_examples=50)
def test_a_commit_can_be_read_back_from_its_manifest(batch: Batch) -> None:
    """Units, documents, edges, whole assets, what was taken back, put aside and what went: all of it comes back as it was."""
    header, rows = decode_manifest(encoded(batch))
    made, reused, removed = read_back(rows)
    assert made == tuple(m._replace(was=None, changed=False) for m in batch.made)
    assert reused == tuple(replace(r, was=None) for r in batch.reused)
    assert removed == batch.removed
    assert objects_of(header) == list(batch.objects)
    assert (header["project"], header["environment"], header["asset"], header["run"]) == (
        "demo",
        "prod",
        "chunks",
        "run",
    )
    assert datetime.fromisoformat(header["at"]) == batch.at
    assert header["assets"] == {"3": "chunks", "7": "é"}
    assert header["format"] == FORMAT


def test_a_definition_comes_back_with_what_people_read_of_it() -> None:
    """The definition is kept with every component, so that why can explain it after Postgres was lost; sources have none."""
    batch = Batch(1, 1, 1, 1, 1, "run", Key("key"))
    header, rows = decode_manifest(encoded(batch))
    back = Definition({n: Component(bytes.fromhex(c["digest"]), c["detail"]) for n, c in header["definition"].items()})
    assert (back, back.digest, rows) == (DEFINITION, DEFINITION.digest, [])
    assert decode_manifest(encoded(batch, None))[0]["definition"] is None


@given(batches)
@settings(max_examples=10)
def test_the_same_commit_gives_the_same_bytes(batch: Batch) -> None:
    """A manifest depends on nothing but its batch."""
    assert encoded(batch) == encoded(batch)


def test_what_failed_is_kept_with_the_recipe_that_failed() -> None:
    """A rebuilt database knows which units failed, with what they were given and what was said."""
    failed = (Failed(b"u" * 16, "a", b"i" * 32, "ValueError", "..."),)
    batch = Batch(1, 1, 1, 1, 1, "run", Key("key"), failed=failed)
    ((row),) = decode_manifest(encoded(batch))[1]
    assert (row["event"], row["unit"], row["label"], row["inputs"], row["error"], row["traceback"]) == (
        "failed", b"u" * 16, "a", b"i" * 32, "ValueError", "...",
    )  # fmt: skip


def test_no_document_is_taken_for_a_manifest() -> None:
    """No artifact of a document's begins as a manifest's does, whatever the document is called."""
    for name in (
        NAME,
        f"{NAME}-00000001.parquet",
        RECORD,
        f"{RECORD}-run-1.json.gz",
        f" {NAME}",
        f"{NAME.upper()}-1",
        "a",
    ):
        for address in (None, b"a" * 16):
            key = artifact_name(_artifact_name(Document(name, text=""), address))
            assert not key.startswith((NAME, RECORD))
    assert artifact_name(_artifact_name(Document("report.txt", text=""), None)) == "report.txt"


@pytest.mark.parametrize("bit", [1, 16, 128])
def test_whatever_bit_is_flipped_in_the_footer(bit: int) -> None:
    """What cannot be understood is one error that says so."""
    data = encoded(Batch(1, 1, 2, 3, 4, "run", Key("key")))
    places = range(len(data) - 8 - int.from_bytes(data[-8:-4], "little"), len(data))
    said = [_refusal(data[:place] + bytes([data[place] ^ bit]) + data[place + 1 :]) for place in places]
    assert any(said)
    assert all(text.startswith("The bytes are no manifest: ") for text in said if text)


def _refusal(data: bytes) -> str:
    try:
        read_manifest(data)
    except ValueError as error:
        return str(error)
    return ""
