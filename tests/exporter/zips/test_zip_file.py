"""The zip's format: read back by programs that are not ours, and the same bytes wherever it is taken up."""

import gzip
import io
import os
import shutil
import struct
import subprocess
import zipfile
import zlib
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.zips.zip_file import (
    MAX_32,
    Copied,
    Deflated,
    Kept,
    Member,
    Packed,
    ZipFile,
    blocks,
    gzip_header_length,
    skipped,
)

DAY = date(2025, 11, 20)
TEXT = b"time,note\n" + b"".join(b"2025-11-20 10:00:00,%d\n" % number for number in range(30_000))
CONTENTS = {
    "a.csv": TEXT,
    "empty.csv": b"",
    "ünï.csv": "é\n".encode(),
    "noise.parquet": bytes(range(256)) * 900,
}

# What others test a zip with. Each of them inflates every member and compares its checksum.
PROGRAMS = {
    "unzip": ["-tqq"],  # Info-ZIP
    "7z": ["t"],
    "bsdtar": ["-xOf"],
    "jar": ["tf"],
}
# Elsewhere they cannot say names that are not ASCII.
UNICODE = {**os.environ, "LC_ALL": "C.UTF-8"}


def pieces(body: bytes, size: int = 9_999) -> Iterator[bytes]:
    return (body[start : start + size] for start in range(0, len(body), size))


def copied(body: bytes, size: int = 9_999) -> Packed:
    return Copied(pieces(gzip.compress(body, mtime=0), size))


def deflated(body: bytes, size: int = 9_999) -> Packed:
    return Deflated(pieces(body, size))


def kept(body: bytes, size: int = 9_999) -> Packed:
    return Kept(pieces(body, size))


WAYS: dict[str, Callable[[bytes, int], Packed]] = {"copied": copied, "deflated": deflated, "kept": kept}


def written(*members: Member, after: ZipFile | None = None) -> bytes:
    made = after or ZipFile()
    body = b"".join(bytes(chunk) for member in members for chunk in made.member(member))
    return body + made.directory()


def members(size: int = 9_999) -> list[Member]:
    return [
        Member(f"{way}/{name}", DAY, pack(body, size))
        for way, pack in WAYS.items()
        for name, body in CONTENTS.items()
    ]


# --- read by others ---------------------------------------------------------------------------------------


def test_a_zip_is_read_back_by_the_standard_library() -> None:
    with zipfile.ZipFile(io.BytesIO(written(*members()))) as made:
        assert made.testzip() is None
        assert {name: made.read(name) for name in made.namelist()} == {
            f"{way}/{name}": body for way in WAYS for name, body in CONTENTS.items()
        }
        assert {info.date_time for info in made.infolist()} == {(2025, 11, 20, 0, 0, 0)}
        assert {info.external_attr >> 16 for info in made.infolist()} == {0o100644}


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_zip_is_tested_clean_by_another_program(program: str, tmp_path: Path) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not on this machine")
    path = tmp_path / "made.zip"
    path.write_bytes(written(*members()))

    done = subprocess.run([program, *PROGRAMS[program], path], env=UNICODE, capture_output=True, check=False)

    assert done.returncode == 0, done.stderr + done.stdout[-500:]


@pytest.mark.parametrize("program", ["jar", "bsdtar"])
def test_a_zip_is_read_while_it_arrives(program: str, tmp_path: Path) -> None:
    # Readers of streams see no directory: sizes after the data have to be found by inflating.
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not on this machine")
    extract = {"jar": ["jar", "x"], "bsdtar": ["bsdtar", "-xf", "-"]}[program]

    zipped = written(*members())
    subprocess.run(extract, input=zipped, env=UNICODE, cwd=tmp_path, check=True, capture_output=True)

    read = {
        str(path.relative_to(tmp_path)): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()
    }
    assert read == {f"{way}/{name}": body for way in WAYS for name, body in CONTENTS.items()}


def test_a_zip_is_read_back_by_a_program_of_another_language(tmp_path: Path) -> None:
    if shutil.which("node") is None:
        pytest.skip("node is not on this machine")
    path = tmp_path / "made.zip"
    path.write_bytes(written(*members()))
    # Node reads the central directory by itself: nothing of Python's is used on both sides.
    script = """
      const b = require('fs').readFileSync(process.argv[1]), z = require('zlib');
      const end = b.lastIndexOf(Buffer.from('PK\\x05\\x06', 'latin1'));
      let at = b.readUInt32LE(end + 16), out = [];
      for (let n = b.readUInt16LE(end + 10); n > 0; n--) {
        const size = b.readUInt32LE(at + 20), nameLength = b.readUInt16LE(at + 28);
        const local = b.readUInt32LE(at + 42);
        const start = local + 30 + b.readUInt16LE(local + 26) + b.readUInt16LE(local + 28);
        out.push(z.inflateRawSync(b.subarray(start, start + size)).length);
        at += 46 + nameLength + b.readUInt16LE(at + 30) + b.readUInt16LE(at + 32);
      }
      console.log(out.join(' '));
    """

    read = subprocess.run(["node", "-e", script, path], capture_output=True, text=True, check=True)

    assert read.stdout.split() == [str(len(body)) for _ in WAYS for body in CONTENTS.values()]


def test_a_zip_of_nothing_is_a_zip() -> None:
    with zipfile.ZipFile(io.BytesIO(written())) as made:
        assert made.namelist() == []


# --- zip64 ------------------------------------------------------------------------------------------------


class Huge:
    """Content that says it is longer than it is: a directory can be read without 5 GiB of members."""

    def __init__(self, size: int) -> None:
        self.crc = zlib.crc32(b"")
        self.size = size

    def __iter__(self) -> Iterator[bytes]:
        return iter([b"\x03\x00"])


@pytest.mark.parametrize(
    ("size", "large"), [(MAX_32 - 1, False), (MAX_32, True), (MAX_32 + 1, True), (5 << 30, True)]
)
def test_sizes_at_and_past_32_bits_are_read_back(size: int, large: bool) -> None:
    body = written(Member("a", DAY, Huge(size), large), Member("b", DAY, deflated(b"b")))

    with zipfile.ZipFile(io.BytesIO(body)) as made:
        assert [(info.filename, info.file_size) for info in made.infolist()] == [("a", size), ("b", 1)]
        assert made.read("b") == b"b"


def test_what_is_larger_than_was_said_is_refused() -> None:
    with pytest.raises(ValueError, match="a has 4294967295 bytes: from 4294967295 on it has to be marked"):
        list(ZipFile().member(Member("a", DAY, Huge(MAX_32))))


@pytest.mark.parametrize("offset", [MAX_32 - 1, MAX_32, MAX_32 + 1, 5 << 30])
def test_members_at_and_past_4_gib_of_a_zip_are_found(offset: int, tmp_path: Path) -> None:
    made = ZipFile()
    first = b"".join(bytes(chunk) for chunk in made.member(Member("a", DAY, deflated(b"first"))))
    # A hole stands for what would be between them: the file is sparse.
    made.entries[0] = made.entries[0]._replace(end=offset)
    path = tmp_path / "made.zip"
    with path.open("wb") as file:
        file.write(first)
        file.seek(offset)
        file.write(written(Member("b", DAY, copied(b"second")), after=made))

    with zipfile.ZipFile(path) as read:
        assert {name: read.read(name) for name in read.namelist()} == {"a": b"first", "b": b"second"}


def test_more_members_than_16_bits_can_count_are_found() -> None:
    made = ZipFile()
    list(made.member(Member("n", DAY, deflated(b"x"))))
    (entry,) = made.entries
    made.entries = [entry._replace(name=f"{number:05}") for number in range(66_000)]

    # The directory alone; the members would be before it.
    body = bytes(entry.end) + made.directory()

    with zipfile.ZipFile(io.BytesIO(body)) as read:
        assert (len(read.namelist()), read.namelist()[-1]) == (66_000, "65999")


# --- the same bytes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [7, 8, 9, 1_000, 70_000, 1 << 20])
def test_the_same_contents_make_the_same_zip_in_whatever_pieces_they_come(size: int) -> None:
    assert written(*members(size)) == written(*members())


@given(st.data())
@settings(deadline=None, max_examples=30)
def test_a_zip_that_is_taken_up_after_any_member_and_any_byte_goes_on_the_same(data: st.DataObject) -> None:
    whole = written(*members())
    before = ZipFile()
    done = data.draw(st.integers(0, len(members())))
    for member in members()[:done]:
        list(before.member(member))
    there = data.draw(st.integers(before.offset, len(whole)))

    rest = written(*members()[done:], after=ZipFile(before.entries))

    assert whole[:there] + b"".join(map(bytes, skipped(pieces(rest), there - before.offset))) == whole


@given(st.binary(max_size=100_000), st.integers(1, 5_000), st.integers(1, 5_000))
@settings(deadline=None, max_examples=25)
def test_blocks_are_the_same_bytes_in_one_size(body: bytes, size: int, block: int) -> None:
    made = [bytes(each) for each in blocks(pieces(body, size), block)]

    assert b"".join(made) == body
    assert {len(each) for each in made[:-1]} <= {block}


# --- gzips ------------------------------------------------------------------------------------------------


def with_header(flags: int, extra: bytes = b"") -> bytes:
    """Return a gzip with what its header may have: https://www.rfc-editor.org/rfc/rfc1952#section-2.3."""
    packer = zlib.compressobj(6, zlib.DEFLATED, -15)
    body = packer.compress(TEXT) + packer.flush()
    header = struct.pack("<3sBIBB", b"\x1f\x8b\x08", flags, 0, 0, 255) + extra
    return header + body + struct.pack("<LL", zlib.crc32(TEXT), len(TEXT))


HEADERS = {
    "none": (0, b""),
    "text": (1, b""),
    "checksum": (2, b"cc"),
    "extra": (4, struct.pack("<H", 5) + b"extra"),
    "name": (8, b"a name\0"),
    "comment": (16, b"a comment\0"),
    "all": (31, struct.pack("<H", 5) + b"ex\0ra" + b"a name\0" + b"a comment\0" + b"cc"),
}


@pytest.mark.parametrize("header", HEADERS)
@pytest.mark.parametrize("size", [1, 10, 9_999])
def test_a_gzip_is_copied_whatever_its_header_has(header: str, size: int) -> None:
    body = with_header(*HEADERS[header])
    assert gzip.decompress(body) == TEXT

    made = written(Member("a", DAY, Copied(pieces(body, size))))

    with zipfile.ZipFile(io.BytesIO(made)) as read:
        assert read.read("a") == TEXT


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "ends early, in its header"),
        (gzip.compress(TEXT, mtime=0)[:9], "ends early, in its header"),
        (with_header(8, b"a name without an end")[:20], "ends early, in its header"),
        (gzip.compress(TEXT, mtime=0)[:15], "ends early, before its trailer"),
        (b"time,note\n", "begins with 74696d"),
        (b"PK", "begins with 504b"),
        (with_header(0x20), "flags 0x20"),
        (with_header(8, b"x" * 99_999 + b"\0"), "longer than 65536 bytes"),
    ],
)
def test_what_is_no_gzip_is_not_copied(body: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        list(Copied(pieces(body)))


@given(st.binary(max_size=12))
def test_a_header_is_complete_or_not_yet_or_none(begin: bytes) -> None:
    try:
        length = gzip_header_length(begin)
    except ValueError:
        return
    assert length is None or 10 <= length <= len(begin)
