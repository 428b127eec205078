"""The lake's keys and manifests, and the zip that parts become."""

import gzip
import io
import json
import subprocess
import zipfile
from collections.abc import Iterator
from dataclasses import astuple, replace
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter import archive
from exporter.archive import Manifest, Member, Part
from exporter.query import Column

DAY = date(2025, 11, 20)
COLUMNS = (Column("time", "TIMESTAMP"), Column("note", "VARCHAR"))


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
    assert Manifest(DAY, 1, (*COLUMNS, Column("z", "DOUBLE")), (PART,)).succeeding(second).revision == 3


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


@given(st.binary(max_size=100_000), st.integers(1, 5_000))
@settings(deadline=None)
def test_what_was_packed_is_inflated_from_any_chunks(text: bytes, size: int) -> None:
    packed = gzip.compress(text)

    chunks = (packed[start : start + size] for start in range(0, len(packed), size))

    assert b"".join(archive.inflated(chunks)) == text


def test_a_gzip_that_ends_early_is_an_error() -> None:
    with pytest.raises(ValueError, match="the gzip ends early"):
        list(archive.inflated([gzip.compress(b"text" * 99)[:-4]]))


MEMBERS = {"a.csv": b"x\n" * 500_000, "empty.csv": b"", "ünï.csv": "é\n".encode()}


def members() -> Iterator[Member]:
    for name, body in MEMBERS.items():
        yield Member(name, DAY, (body[start : start + 9_999] for start in range(0, len(body), 9_999)))


def test_a_zip_is_read_back_by_the_standard_library() -> None:
    body = b"".join(archive.zipped(members()))

    with zipfile.ZipFile(io.BytesIO(body)) as zipped:
        assert zipped.testzip() is None
        assert {name: zipped.read(name) for name in zipped.namelist()} == MEMBERS


def test_a_zip_is_read_back_by_another_program(tmp_path: Path) -> None:
    path = tmp_path / "made.zip"
    path.write_bytes(b"".join(archive.zipped(members())))
    # Node reads the central directory by itself: nothing of Python's is used on both sides.
    script = """
      const b = require('fs').readFileSync(process.argv[1]), z = require('zlib');
      const end = b.lastIndexOf(Buffer.from('PK\\x05\\x06', 'latin1'));
      let at = b.readUInt32LE(end + 16), out = {};
      for (let n = b.readUInt16LE(end + 10); n > 0; n--) {
        const size = b.readUInt32LE(at + 20), nameLength = b.readUInt16LE(at + 28);
        const name = b.toString('utf8', at + 46, at + 46 + nameLength), local = b.readUInt32LE(at + 42);
        const start = local + 30 + b.readUInt16LE(local + 26) + b.readUInt16LE(local + 28);
        out[name] = z.inflateRawSync(b.subarray(start, start + size)).length;
        at += 46 + nameLength + b.readUInt16LE(at + 30) + b.readUInt16LE(at + 32);
      }
      console.log(JSON.stringify(out));
    """

    read = subprocess.run(["node", "-e", script, path], capture_output=True, text=True, check=True)

    assert json.loads(read.stdout) == {name: len(body) for name, body in MEMBERS.items()}


def test_the_same_members_make_the_same_zip() -> None:
    assert b"".join(archive.zipped(members())) == b"".join(archive.zipped(members()))


def test_a_zip_of_nothing_is_a_zip() -> None:
    with zipfile.ZipFile(io.BytesIO(b"".join(archive.zipped([])))) as zipped:
        assert zipped.namelist() == []
