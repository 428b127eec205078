"""Rows become part files, which other programs read back, and so do we."""

import csv
import gzip
import hashlib
import io
import json
import weakref
from collections.abc import Iterator
from datetime import date, datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.lake.batch import Batch
from exporter.lake.csv_files import csv_lines
from exporter.lake.files import parts
from exporter.lake.formats import Format, format_of
from exporter.lake.manifest import PART_BYTES, Part, part_key
from exporter.lake.text import gunzipped
from exporter.store import Column, Values

COLUMNS = (
    Column("time", "timestamp"),
    Column("_type", "text"),
    Column("status", "number"),
    Column("ok", "boolean"),
    Column("item_count", "integer"),
)
NASTY = [
    'a"b',
    "a,b",
    "a\nb",
    "a\r\nb",
    "a\rb",
    " ",
    '"',
    '""',
    '",',
    "\\",
    "a\\",
    "\u2028",
    "é",
    "",
    "NULL",
    "\t",
    "\x85",
    "\ufeffa",
    "=1+1",
]
TEXTS = st.text(st.characters(exclude_categories=["Cs"])) | st.sampled_from(NASTY)
NUMBERS = st.sampled_from(["200", "0.25", "-3", "1.0E10", "0", "-1.7976931348623157e+308", "5e-324"])
ROWS = st.lists(
    st.tuples(
        st.integers(0, 10**9 - 1).map(lambda ns: f"2025-11-20 10:00:00.{ns:09}"),
        st.none() | TEXTS,
        st.none() | NUMBERS,
        st.none() | st.sampled_from(["true", "false"]),
        st.none() | st.integers(-(2**63), 2**63 - 1).map(str),
    ).map(list),
    min_size=1,
    max_size=30,
)


def batch(rows: list[Any]) -> Batch:
    return Batch(rows, any("" in row for row in rows))


def files(
    batches: Iterator[Batch], kind: Format = Format.CSV_GZ, size: int = PART_BYTES
) -> dict[str, tuple[bytes, Part]]:
    made = {}
    for part in parts(batches, COLUMNS, lambda number: f"part-{number}", kind, size=size):
        body = b"".join(part.chunks())
        made[part.key] = (body, part.summary())
    return made


def file(rows: list[Any], kind: Format = Format.CSV_GZ) -> tuple[bytes, Part]:
    (made,) = files(iter([batch(rows)]), kind).values()
    return made


def timed(notes: list[str | None]) -> list[Values]:
    return [
        [f"2025-11-20 10:00:{number % 60:02}.000000001", note, None, None, None]
        for number, note in enumerate(notes)
    ]


def nothing_as_empty(rows: list[Any]) -> list[list[str]]:
    return [["" if value is None else value for value in row] for row in rows]


@pytest.mark.parametrize("kind", Format)
@given(rows=ROWS, size=st.integers(7, 4_000))
@settings(deadline=None, max_examples=15)
def test_what_is_written_is_read_back_with_none_and_empty_text_told_apart(
    kind: Format, rows: list[Any], size: int
) -> None:
    body, part = file(rows, kind)

    chunks = (body[start : start + size] for start in range(0, len(body), size))
    read = [row for each in kind.read(chunks, COLUMNS) for row in each.rows]

    expected = rows
    if kind is Format.PARQUET:  # numbers are numbers there, however they were written
        expected = [[*row[:2], row[2] and row[2].replace("1.0E10", "1e+10"), *row[3:]] for row in rows]
    assert read == expected
    assert part.rows == len(rows)


def test_empty_text_in_a_column_of_another_type_is_no_value_in_parquet() -> None:
    body, _ = file([["2025-11-20 10:00:00.000000001", "", "", "", ""]], Format.PARQUET)

    (read,) = Format.PARQUET.read([body], COLUMNS)

    assert read.rows == [["2025-11-20 10:00:00.000000001", "", None, None, None]]


@given(rows=ROWS)
@settings(deadline=None, max_examples=25)
def test_pythons_own_reader_sees_the_same_values(rows: list[Any]) -> None:
    body, part = file(rows)
    text = gzip.decompress(body).decode()

    read = list(csv.reader(io.StringIO(text, newline=""), strict=True))

    assert read == [[column.name for column in COLUMNS], *nothing_as_empty(rows)]
    assert part.line_breaks == text.count("\n") - 1 - len(rows)


@given(rows=ROWS)
@settings(deadline=None, max_examples=10)
def test_pyarrow_tells_none_from_empty_text(rows: list[Any]) -> None:
    text = gzip.decompress(file(rows)[0])

    table = pa_csv.read_csv(
        pa.BufferReader(text),
        read_options=pa_csv.ReadOptions(use_threads=False),
        parse_options=pa_csv.ParseOptions(newlines_in_values=True),
        convert_options=pa_csv.ConvertOptions(
            column_types={column.name: pa.string() for column in COLUMNS},
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        ),
    )

    assert list(zip(*(column.to_pylist() for column in table.columns), strict=True)) == [
        tuple(row) for row in rows
    ]


NASTY_ROWS = timed([*NASTY, None])


def test_duckdb_reads_the_csv_and_tells_none_from_empty_text_when_asked_to(tmp_path: Path) -> None:
    path = tmp_path / "part.csv.gz"
    path.write_bytes(file(NASTY_ROWS)[0])

    with duckdb.connect() as database:
        read = database.execute(
            "SELECT * FROM read_csv(?, header=true, all_varchar=true, quote='\"', escape='\"', delim=',',"
            " new_line='\\n', allow_quoted_nulls=false, null_padding=false, strict_mode=false)",
            [str(path)],
        ).fetchall()

    assert read == [tuple(row) for row in NASTY_ROWS]


def test_pandas_reads_the_csv_and_takes_none_for_empty_text(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas", reason="pandas is not installed: make bench installs it")
    path = tmp_path / "part.csv.gz"
    path.write_bytes(file(NASTY_ROWS)[0])

    frame = pandas.read_csv(path, dtype=str, keep_default_na=False)

    assert frame.to_numpy().tolist() == nothing_as_empty(NASTY_ROWS)


def _time(second: int, microsecond: int = 0) -> datetime:
    return datetime(2025, 11, 20, 10, 0, second, microsecond)  # noqa: DTZ001 - Parquet's have none, as they are said


def test_parquet_is_typed_packed_with_zstd_and_has_statistics(tmp_path: Path) -> None:
    rows = [
        ["2025-11-20 10:00:00.123456789", "a", "200", "true", "-1"],
        ["2025-11-20 10:00:01.000000001", "", None, "false", None],
        ["2025-11-20 10:00:02.999999999", None, "1.5", None, "9223372036854775807"],
    ]
    path = tmp_path / "part.parquet"
    path.write_bytes(file(rows, Format.PARQUET)[0])

    group = pq.ParquetFile(path).metadata.row_group(0)
    assert {group.column(number).compression for number in range(group.num_columns)} == {"ZSTD"}
    assert group.column(3).statistics.max == 200.0
    expected = [
        (_time(0, 123_000), 456_789, "a", 200.0, True, -1),
        (_time(1), 1, "", None, False, None),
        (_time(2, 999_000), 999_999, None, 1.5, None, 2**63 - 1),
    ]
    assert [tuple(row.values()) for row in pq.read_table(path).to_pylist()] == expected
    with duckdb.connect() as database:
        assert database.execute("SELECT * FROM read_parquet(?)", [str(path)]).fetchall() == expected


def test_json_lines_are_typed_and_leave_out_what_is_not_there() -> None:
    rows: list[list[str | None]] = [
        ["2025-11-20 10:00:00.123456789", "a\nb", "200", "true", "9223372036854775807"],
        ["2025-11-20 10:00:01.000000001", "", "0.25", "false", None],
    ]
    body, _ = file(rows, Format.JSONL_GZ)

    lines = gzip.decompress(body).decode().splitlines()

    assert [json.loads(line) for line in lines] == [
        {"time": rows[0][0], "_type": "a\nb", "status": 200, "ok": True, "item_count": 2**63 - 1},
        {"time": rows[1][0], "_type": "", "status": 0.25, "ok": False},
    ]


@pytest.mark.parametrize(
    ("column", "text", "value"),
    [
        ("status", "NaN", "NaN"),
        ("status", "-Infinity", "-Infinity"),
        ("status", "", ""),
        ("ok", "yes", "yes"),
        ("status", "0.1000000000000000055", 0.1),
    ],
)
def test_a_value_that_json_does_not_know_as_one_of_its_column_stays_a_text(
    column: str, text: str, value: Any
) -> None:
    names = [each.name for each in COLUMNS]
    row = ["2025-11-20 10:00:00.000000000", *(text if name == column else None for name in names[1:])]
    body, _ = file([row], Format.JSONL_GZ)

    # No constant: `NaN` outside of quotes is an error in most readers.
    (line,) = gzip.decompress(body).decode().splitlines()
    assert json.loads(line, parse_constant=pytest.fail)[column] == value
    ((read,),) = (each.rows for each in Format.JSONL_GZ.read([body], COLUMNS))
    assert read == row


def test_a_gzip_of_several_members_is_read_to_its_end() -> None:
    # https://www.rfc-editor.org/rfc/rfc1952#section-2.2: "members [...] appear one after another"
    packed = gzip.compress(b"first,") + gzip.compress(b"") + gzip.compress(b"second")

    for size in (1, 7, len(packed)):
        chunks = (packed[start : start + size] for start in range(0, len(packed), size))
        assert b"".join(gunzipped(chunks)) == b"first,second"


@pytest.mark.parametrize("kind", Format)
def test_a_key_tells_its_format(kind: Format) -> None:
    assert format_of(part_key(date(2025, 11, 20), 3, 2, kind)) is kind
    assert format_of("records/year=2025/month=11/day=20/_manifest.json") is None


def opencsv(line: str) -> list[str]:
    """Read a line as Athena's OpenCSVSerde does with our table's properties: a line is a row, all is text.

    https://docs.aws.amazon.com/athena/latest/ug/csv-serde.html
    """
    return next(csv.reader([line], delimiter=",", quotechar='"', escapechar="\x01", doublequote=True))


def test_athenas_rules_read_the_same_rows_where_no_value_has_a_line_end() -> None:
    rows = timed([note for note in [*NASTY, None] if note is None or not set(note) & {"\n", "\r", "\u2028"}])
    body, part = file(rows)

    header, *lines = gzip.decompress(body).decode().split("\n")[:-1]

    assert part.line_breaks == 0
    assert opencsv(header) == [column.name for column in COLUMNS]
    assert [opencsv(line) for line in lines] == nothing_as_empty(rows)


def test_a_part_says_how_many_line_ends_are_inside_of_its_values() -> None:
    assert file(timed(["a\nb\nc", "d", "e\r\nf"]))[1].line_breaks == 3


def test_none_is_nothing_and_empty_text_a_pair_of_quotes() -> None:
    assert csv_lines(Batch([["a", None, "", 'x"y']], empties=True)) == b'a,,"","x""y"\n'


@given(rows=ROWS)
@settings(deadline=None, max_examples=50)
def test_csv_has_the_quotes_that_pythons_own_writer_makes(rows: list[Any]) -> None:
    buffer = io.StringIO(newline="")
    # With these line ends it quotes both; none and empty text it writes alike.
    writer = csv.writer(buffer, lineterminator="\r\n")
    expected = b""
    for row in rows:
        writer.writerow(row)
        expected += buffer.getvalue()[:-2].encode() + b"\n"
        buffer.seek(0)
        buffer.truncate()

    assert csv_lines(Batch(rows)) == expected


def test_a_part_is_summed_up_by_what_is_kept_and_by_its_text() -> None:
    body, part = file(timed(["a", "b", "c"]))

    text = gzip.decompress(body)
    assert part == Part(
        key="part-0",
        rows=3,
        bytes=len(body),
        sha256=hashlib.sha256(body).hexdigest(),
        first_time="2025-11-20 10:00:00.000000001",
        last_time="2025-11-20 10:00:02.000000001",
        text_bytes=len(text),
        text_sha256=hashlib.sha256(text).hexdigest(),
        types={"a": 1, "b": 1, "c": 1},
        formulas=0,
    )


def test_a_csv_gz_is_one_member_with_no_time_and_no_name_in_it() -> None:
    body, _ = file(timed([f"note {number}" for number in range(2_000)]))

    # RFC 1952: the flags say nothing is there, and the time is none.
    assert body[3:8] == bytes(5)
    assert gzip.GzipFile(fileobj=io.BytesIO(body)).read() == b"".join(gunzipped([body]))
    assert body.count(b"\x1f\x8b\x08\x00\x00\x00\x00\x00") == 1


@pytest.mark.parametrize("kind", Format)
def test_large_days_are_cut_after_whole_batches_into_parts_that_stand_alone(kind: Format) -> None:
    rows = timed([f"{number:0200}" for number in range(5_000)])
    batches = [batch(rows[start : start + 1_000]) for start in range(0, 5_000, 1_000)]

    made = files(iter(batches), kind, size=300_000)

    assert list(made) == ["part-0", "part-1", "part-2"]
    read = [row for body, _ in made.values() for each in kind.read([body], COLUMNS) for row in each.rows]
    assert read == rows
    assert [part.rows for _, part in made.values()] == [2_000, 2_000, 1_000]


@pytest.mark.parametrize("kind", Format)
def test_the_same_rows_make_the_same_bytes(kind: Format) -> None:
    rows = timed([f"note {number}" for number in range(2_000)])

    assert file(rows, kind) == file(rows, kind)


def test_a_day_without_rows_has_no_parts() -> None:
    assert files(iter([])) == {}


@pytest.mark.parametrize("kind", Format)
def test_rows_are_read_only_as_they_are_needed(kind: Format) -> None:
    pulled = 0

    def endless() -> Iterator[Batch]:
        nonlocal pulled
        while True:
            pulled += 1
            yield batch(timed([f"{pulled:01000}"]))

    part = next(parts(endless(), COLUMNS, str, kind))
    next(part.chunks())

    assert pulled < 3


class Rows(list[Values]):
    """Rows of which can be told whether they are still held."""

    __hash__ = object.__hash__  # type: ignore[assignment]


@pytest.mark.parametrize("kind", Format)
def test_the_rows_of_a_finished_part_are_not_held(kind: Format) -> None:
    held: weakref.WeakSet[Rows] = weakref.WeakSet()

    def batches() -> Iterator[Batch]:
        for number in range(50):
            rows = Rows(timed([str(number)]))
            held.add(rows)
            yield Batch(rows)

    most = 0
    for part in parts(batches(), COLUMNS, str, kind, size=1):
        list(part.chunks())
        most = max(most, len(held))

    assert most <= 3


@pytest.mark.parametrize(
    ("kind", "damage", "message"),
    [
        (Format.CSV_GZ, lambda body: body[:-4], "the gzip ends early"),
        (Format.CSV_GZ, lambda _: b"this is no gzip at all", "the gzip is damaged"),
        (Format.JSONL_GZ, lambda body: body[:-4], "the gzip ends early"),
        (Format.CSV, lambda body: body[:-3] + b'"', "ends inside of a value"),
        (Format.CSV, lambda body: b"other" + body, "not those of its manifest"),
        (Format.CSV, lambda body: body + b't,"a"b"c",,,\n', "a quote is out of place"),
        (Format.CSV, lambda body: body + b't,a"b,"c,,,\n', "a quote is out of place"),
        (Format.CSV, lambda body: body + b"t,a,b\n", "does not have 5 values"),
        (Format.CSV_GZ, lambda body: body + b"rubbish behind the file", "the gzip is damaged"),
        (Format.CSV_GZ, lambda _: b"", "the gzip ends early"),
        (Format.JSONL_GZ, lambda _: gzip.compress(b"[1]\n"), "a line is not a JSON object"),
        (Format.PARQUET, lambda body: body[:-4], "Parquet"),
    ],
)
def test_a_damaged_file_is_refused(kind: Format, damage: Any, message: str) -> None:
    body, _ = file(timed(["a", "b"]), kind)

    with pytest.raises(ValueError, match=message):
        list(kind.read([damage(body)], COLUMNS))
