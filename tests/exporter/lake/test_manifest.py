"""The lake's keys and manifests."""

import json
from dataclasses import astuple, replace
from datetime import date

import pytest

from exporter.lake import manifest as archive
from exporter.lake.manifest import Manifest, Part
from exporter.store import Column

DAY = date(2025, 11, 20)
COLUMNS = (Column("time", "timestamp"), Column("note", "text"))


PART = Part(
    "k", 3, 99, "f" * 64, "2025-11-20 10:00:00.000000000", "2025-11-20 11:00:00.000000000", 500, "a" * 64, 2
)


def test_a_manifest_is_read_back() -> None:
    manifest = Manifest(DAY, 2, COLUMNS, (PART, PART), "parquet", restored=3, not_restored=1, forgotten=2)

    assert Manifest.from_json(manifest.to_json()) == manifest
    assert (manifest.rows, manifest.size) == (6, 198)


def test_a_manifest_from_before_a_key_was_added_is_read() -> None:
    document = json.loads(Manifest(DAY, 2, COLUMNS, (PART,)).to_json())
    for name in ("restored", "not_restored", "forgotten"):
        del document[name]
    for name in ("text_bytes", "text_sha256", "line_breaks"):
        del document["parts"][0][name]

    read = Manifest.from_json(json.dumps(document).encode())

    assert read.parts == (Part(*astuple(PART)[:6]),)
    assert (read.restored, read.not_restored, read.forgotten, read.format) == (0, 0, 0, "csv.gz")


def test_a_revision_counts_different_contents() -> None:
    empty = Manifest(DAY, 1, COLUMNS)

    first = empty.succeeding(None)
    assert first.revision == 1
    assert empty.succeeding(first).revision == 1
    second = Manifest(DAY, 1, COLUMNS, (PART,)).succeeding(first)
    assert second.revision == 2
    assert Manifest(DAY, 1, COLUMNS, (PART,)).succeeding(second).revision == 2
    assert Manifest(DAY, 1, (*COLUMNS, Column("z", "number")), (PART,)).succeeding(second).revision == 3


def test_the_same_text_packed_otherwise_is_no_other_content() -> None:
    packed = replace(PART, key="other", bytes=98, sha256="e" * 64)

    known = Manifest(DAY, 4, COLUMNS, (PART,))

    assert Manifest(DAY, 5, COLUMNS, (packed,)).succeeding(known) == known
    counted = Manifest(DAY, 5, COLUMNS, (packed,), forgotten=3).succeeding(known)
    assert counted == replace(known, forgotten=3)
    other = replace(packed, text_sha256="b" * 64)
    assert Manifest(DAY, 5, COLUMNS, (other,)).succeeding(known).revision == 5


@pytest.mark.parametrize(
    ("kind", "revision", "key"),
    [
        ("csv.gz", 1, "records/year=2025/month=11/day=20/part-00003.csv.gz"),
        ("csv.gz", 2, "records/year=2025/month=11/day=20/part-00003-r2.csv.gz"),
        ("parquet", 12, "records/parquet/year=2025/month=11/day=20/part-00003-r12.parquet"),
    ],
)
def test_parts_of_two_revisions_or_formats_never_share_a_key(kind: str, revision: int, key: str) -> None:
    assert archive.part_key(DAY, 3, revision, kind) == key
