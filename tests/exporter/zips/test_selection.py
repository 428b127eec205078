"""Rows and columns are taken out of the lake's files, and written in the format of the download."""

import csv
import gzip
import io
import json
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.downloads.jobs import Cells, Request
from exporter.lake.batch import Batch
from exporter.lake.csv_files import csv_lines
from exporter.lake.formats import Format, ZipFormat
from exporter.lake.jsonl_files import json_lines
from exporter.store import Column, Days, Type, Values
from exporter.zips.selection import Selected
from tests.exporter.zips.test_zipper import DAY

# Text as records have it; a lone surrogate is not among it.
TEXTS = st.text(st.characters(exclude_categories=["Cs"])) | st.sampled_from(
    ['a"b', '""', ",", "\n", "\r\n", '"\n"', "x\ny\nz", " ", "\x00", "é\u2028", "acme", ""]
)
NAMES = ("time", "client", "note")
COLUMNS = tuple(Column(name, "text") for name in NAMES)


def table(rows: list[Values], kept_as: Format, columns: tuple[Column, ...] = COLUMNS) -> bytes:
    """Return a file of the lake."""
    batch = Batch(rows, any("" in row for row in rows))
    if kept_as is Format.JSONL_GZ:
        return gzip.compress(json_lines(columns)(batch) if rows else b"")
    body = csv_lines(Batch([[column.name for column in columns]])) + (csv_lines(batch) if rows else b"")
    return gzip.compress(body) if kept_as.is_gzip else body


def pieces(body: bytes, size: int) -> Iterator[bytes]:
    return (body[start : start + size] for start in range(0, len(body), size))


def request(
    columns: tuple[str, ...] = (),
    client: str | None = None,
    format_: ZipFormat = ZipFormat.CSV,
    route: str | None = None,
) -> Request:
    return Request(Days(DAY, DAY), format_, columns, client, route, cells=Cells.EXACT)


ROWS = st.lists(st.lists(st.none() | TEXTS, min_size=3, max_size=3), max_size=20)
WANTED = st.sampled_from([(), ("note",), ("note", "time"), ("client", "missing", "time"), NAMES])


@pytest.mark.parametrize("kept_as", [Format.CSV, Format.CSV_GZ, Format.JSONL_GZ])
@given(ROWS, st.integers(1, 60), WANTED, st.sampled_from([None, "acme", 'a"b', "\n"]))
@settings(deadline=None, max_examples=60)
def test_the_csv_has_the_rows_and_columns_that_are_requested(
    kept_as: Format, rows: list[Values], size: int, columns: tuple[str, ...], client: str | None
) -> None:
    selected = Selected(pieces(table(rows, kept_as), size), kept_as, COLUMNS, request(columns, client))

    made = list(csv.reader(io.StringIO(b"".join(selected).decode(), newline="")))

    wanted = [
        [row[NAMES.index(name)] or "" if name in NAMES else "" for name in columns or NAMES]
        for row in rows
        if client in (None, row[1])
    ]
    # The module reads an empty line as a row without values.
    assert [row or [""] for row in made] == [list(columns or NAMES), *wanted]
    assert selected.rows == len(wanted)


@pytest.mark.parametrize("kept_as", [Format.CSV, Format.CSV_GZ, Format.JSONL_GZ])
@given(ROWS, st.integers(1, 60), WANTED, st.sampled_from([None, "acme", 'a"b']))
@settings(deadline=None, max_examples=60)
def test_the_json_lines_have_the_values_that_the_requested_rows_have(
    kept_as: Format, rows: list[Values], size: int, columns: tuple[str, ...], client: str | None
) -> None:
    asked = request(columns, client, ZipFormat.JSONL)
    selected = Selected(pieces(table(rows, kept_as), size), kept_as, COLUMNS, asked)

    made = [json.loads(line) for line in b"".join(selected).split(b"\n")[:-1]]

    named = [{name: v for name, v in zip(NAMES, row, strict=True) if v is not None} for row in rows]
    assert made == [
        {name: row[name] for name in columns or NAMES if name in row}
        for row in named
        if client in (None, row.get("client"))
    ]
    assert selected.rows == len(made)


def test_no_value_and_empty_text_stay_apart() -> None:
    rows: list[Values] = [["1", "acme", None], ["2", "acme", ""]]
    body = table(rows, Format.CSV)

    made = Selected([body], Format.CSV, COLUMNS, request(("note", "time"), "acme"))
    as_json = Selected([body], Format.CSV, COLUMNS, request(("note",), format_=ZipFormat.JSONL))

    assert b"".join(made) == b'note,time\n,1\n"",2\n'
    assert b"".join(as_json) == b'{}\n{"note":""}\n'


@pytest.mark.parametrize(
    ("kind", "written", "read"),
    [
        ("number", "200", "200"),
        ("number", "0.1000000000000000055", "0.1000000000000000055"),
        ("integer", "9007199254740993", "9007199254740993"),
        ("boolean", "true", "true"),
        ("number", "NaN", '"NaN"'),
        ("text", "200", '"200"'),
        ("text", "true", '"true"'),
        ("timestamp", "2025-11-20 10:00:00.000000000", '"2025-11-20 10:00:00.000000000"'),
    ],
)
@pytest.mark.parametrize("kept_as", [Format.CSV, Format.JSONL_GZ])
def test_values_become_json_by_their_columns_type_with_the_digits_that_they_have(
    kept_as: Format, kind: Type, written: str, read: str
) -> None:
    columns = (Column("time", "text"), Column("value", kind))
    asked = request(("value",), format_=ZipFormat.JSONL)
    selected = Selected([table([["t", written]], kept_as, columns)], kept_as, columns, asked)

    assert b"".join(selected) == f'{{"value":{read}}}\n'.encode()


def test_a_filter_compares_text_whatever_the_columns_type() -> None:
    columns = (Column("time", "text"), Column("route", "number"))
    body = table([["a", "200"], ["b", "201"]], Format.JSONL_GZ, columns)

    selected = Selected([body], Format.JSONL_GZ, columns, request(("time",), route="200"))

    assert b"".join(selected) == b"time\na\n"


def test_a_file_without_a_column_has_no_row_with_a_value_in_it() -> None:
    selected = Selected([table([["1", "a", "b"]], Format.CSV)], Format.CSV, COLUMNS, request(route="/pets"))

    assert (b"".join(selected), selected.rows) == (b"time,client,note\n", 0)


def test_safe_cells_are_also_those_of_the_header_whatever_the_columns_type() -> None:
    columns = (Column("=1+1", "number"), Column("-2", "text"), Column("@cmd", "text"))
    asked = replace(request(), cells=Cells.SAFE)

    selected = Selected([table([["-3", "-x", "y"]], Format.CSV, columns)], Format.CSV, columns, asked)

    assert b"".join(selected) == b"'=1+1,-2,'@cmd\n-3,'-x,y\n"


def test_a_file_without_rows_has_its_header() -> None:
    selected = Selected([table([], Format.CSV)], Format.CSV, COLUMNS, request(("client",)))

    assert (b"".join(selected), selected.rows) == (b"client\n", 0)


@pytest.mark.parametrize("body", [b"time,client\n", b'time,client,note\n1,"a', b"time,client,note\n1,2\n"])
def test_a_file_that_differs_from_its_manifest_is_an_error(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"columns|inside of a value|values"):
        list(Selected([body], Format.CSV, COLUMNS, request(client="acme")))
