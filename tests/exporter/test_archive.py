"""Rows become parts and a manifest, parts become a zip."""

import csv
import gzip
import hashlib
import io
from collections.abc import Iterator
from datetime import date

from hypothesis import given, settings
from hypothesis import strategies as st

from exporter import archive
from exporter.archive import Manifest, Part
from exporter.query import Answer, Column, Values

DAY = date(2025, 11, 20)
COLUMNS = (Column("time", "TIMESTAMP"), Column("note", "VARCHAR"))


def answer(rows: list[Values]) -> Answer:
    return Answer(COLUMNS, iter(rows))


def timed(notes: list[str | None]) -> list[Values]:
    return [(f"2025-11-20 10:00:{number % 60:02}.000000000", note) for number, note in enumerate(notes)]


def files(rows: list[Values], size: int = archive.PART_BYTES) -> dict[str, tuple[bytes, Part]]:
    made = {}
    for part in archive.parts(DAY, answer(rows), size):
        body = b"".join(part.chunks())
        made[part.key] = (body, part.summary())
    return made


@given(
    st.lists(st.text(min_size=1) | st.sampled_from(['a"b', "a,b", "a\nb", "a\r\nb", " ", "\x00", "é\u2028"]))
)
@settings(deadline=None)
def test_what_is_written_is_read_back_by_others(notes: list[str]) -> None:
    rows = timed([*notes])

    read: list[Values] = []
    for body, _ in files(rows).values():
        text = gzip.decompress(body).decode("utf-8", "surrogatepass")
        read += [tuple(row) for row in csv.reader(io.StringIO(text, newline=""))][1:]

    assert read == rows


def test_a_day_without_rows_has_no_parts() -> None:
    assert files([]) == {}


def test_a_value_that_is_not_there_is_an_empty_field() -> None:
    ((body, _),) = files(timed([None])).values()

    assert gzip.decompress(body) == b"time,note\n2025-11-20 10:00:00.000000000,\n"


def test_a_part_is_summed_up_by_what_is_kept() -> None:
    ((key, (body, part)),) = files(timed(["a", "b", "c"])).items()

    assert key == "records/year=2025/month=11/day=20/part-00000.csv.gz"
    assert part == Part(
        key=key,
        rows=3,
        bytes=len(body),
        sha256=hashlib.sha256(body).hexdigest(),
        first_time="2025-11-20 10:00:00.000000000",
        last_time="2025-11-20 10:00:02.000000000",
    )


def test_large_days_are_cut_into_parts_that_each_have_the_header() -> None:
    rows = timed([f"{number:0200}" for number in range(5_000)])

    made = files(rows, size=300_000)

    assert [key[-16:] for key in made] == [
        "part-00000.csv.gz"[-16:],
        "part-00001.csv.gz"[-16:],
        "part-00002.csv.gz"[-16:],
    ]
    assert sum(part.rows for _, part in made.values()) == 5_000
    lines = [gzip.decompress(body).decode().splitlines() for body, _ in made.values()]
    assert {part[0] for part in lines} == {"time,note"}
    assert [row for part in lines for row in part[1:]] == [",".join(map(str, row)) for row in rows]


def test_the_same_rows_make_the_same_bytes() -> None:
    rows = timed([f"note {number}" for number in range(2_000)])

    assert files(rows) == files(rows)


def test_rows_are_read_only_as_they_are_needed() -> None:
    pulled = 0

    def endless() -> Iterator[Values]:
        nonlocal pulled
        while True:
            pulled += 1
            yield ("2025-11-20 10:00:00.000000000", f"{pulled:01000}")

    part = next(archive.parts(DAY, Answer(COLUMNS, endless())))
    next(part.chunks())

    assert pulled < 2_000


def test_a_manifest_is_read_back() -> None:
    part = Part("k", 3, 99, "f" * 64, "2025-11-20 10:00:00.000000000", "2025-11-20 11:00:00.000000000")
    manifest = Manifest(DAY, 2, COLUMNS, (part, part))

    assert Manifest.from_json(manifest.to_json()) == manifest
    assert (manifest.rows, manifest.size) == (6, 198)


def test_a_revision_counts_different_contents() -> None:
    empty = Manifest(DAY, 1, COLUMNS)
    part = Part("k", 3, 99, "f" * 64, "", "")

    first = empty.succeeding(None)
    assert first.revision == 1
    assert empty.succeeding(first).revision == 1
    second = Manifest(DAY, 1, COLUMNS, (part,)).succeeding(first)
    assert second.revision == 2
    assert Manifest(DAY, 1, COLUMNS, (part,)).succeeding(second).revision == 2
