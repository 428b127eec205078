"""Rows and columns are taken out of the lake's text, and what is left is as it was written."""

import csv
import io
import json
from collections.abc import Iterator
from functools import partial

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from exporter.zips.selection import Selected, Selection, csv_lines, csv_to_jsonl, jsonl_lines

# Text as records have it; half a character of two is not among it.
TEXTS = st.text(st.characters(exclude_categories=["Cs"])) | st.sampled_from(
    ['a"b', '""', ",", "\n", "\r\n", '"\n"', "x\ny\nz", " ", "\x00", "é\u2028", "acme"]
)
NAMES = ("time", "client", "note")


def table(
    rows: list[list[str]], *, names: tuple[str, ...] = NAMES, quoting: int = csv.QUOTE_MINIMAL
) -> bytes:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n", quoting=quoting)  # type: ignore[arg-type]  # one of csv's
    writer.writerow(names)
    writer.writerows(rows)
    return file.getvalue().encode()


def pieces(body: bytes, size: int) -> Iterator[bytes]:
    return (body[start : start + size] for start in range(0, len(body), size))


def read(body: bytes) -> list[list[str]]:
    return list(csv.reader(io.StringIO(body.decode(), newline="")))


@given(
    # csv writes a carriage return without quotes where it ends lines without one.
    st.lists(st.lists(TEXTS.map(lambda text: text.replace("\r", "")), min_size=3, max_size=3)),
    st.integers(1, 60),
    st.sampled_from([(), ("note",), ("note", "time"), ("client", "missing", "time"), NAMES]),
    st.sampled_from([{}, {"client": "acme"}, {"client": 'a"b', "note": "\n"}, {"missing": "x"}]),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
)
@settings(deadline=None, max_examples=100)
def test_the_wanted_rows_and_columns_are_those_that_the_csv_module_finds(
    rows: list[list[str]], size: int, columns: tuple[str, ...], values: dict[str, str], quoting: int
) -> None:
    body = table(rows, quoting=quoting)
    selected = Selected(pieces(body, size), partial(csv_lines, selection=Selection(columns, values)))

    made = b"".join(selected)

    wanted = [
        [row[NAMES.index(name)] if name in NAMES else "" for name in columns or NAMES]
        for row in rows
        if all(name in NAMES and row[NAMES.index(name)] == value for name, value in values.items())
    ]
    # The module reads an empty line as a row without values.
    assert [row or [""] for row in read(made)] == [list(columns or NAMES), *wanted]
    assert selected.rows == len(wanted)


def test_all_rows_with_all_columns_are_the_same_bytes() -> None:
    body = b'time,"a ""b"""\n1,""\n2,\n3,"x\ny"\n'

    assert b"".join(Selected([body], partial(csv_lines, selection=Selection()))) == body


def test_nothing_and_empty_text_stay_apart() -> None:
    body = b'time,client,note\n1,acme,\n2,acme,""\n'

    made = Selected([body], partial(csv_lines, selection=Selection(("note", "time"), {"client": "acme"})))
    as_json = Selected([body], partial(csv_to_jsonl, selection=Selection(("note",)), kinds={}))

    assert b"".join(made) == b'note,time\n,1\n"",2\n'
    assert b"".join(as_json) == b'{"note": null}\n{"note": ""}\n'


@pytest.mark.parametrize(
    ("kind", "written", "read"),
    [
        ("number", "200", 200),
        ("number", "-0.25", -0.25),
        ("number", "1e+20", 1e20),
        ("integer", "9007199254740993", 9007199254740993),
        ("boolean", "true", True),
        ("boolean", "yes", "yes"),
        ("number", "NaN", "NaN"),
        ("number", "007", "007"),
        ("text", "200", "200"),
        ("text", "true", "true"),
        ("text", 'a "b", \n é', 'a "b", \n é'),
        ("timestamp", "2025-11-20 10:00:00.000000000", "2025-11-20 10:00:00.000000000"),
        ("text", "", None),
    ],
)
def test_values_become_json_by_their_columns_type(kind: str, written: str, read: object) -> None:
    body = table([["t", written]], names=("time", "value"))
    selected = Selected([body], partial(csv_to_jsonl, selection=Selection(), kinds={"value": kind}))

    assert json.loads(b"".join(selected)) == {"time": "t", "value": read}
    assert selected.rows == 1


def test_json_lines_are_chosen_by_their_values() -> None:
    rows = [{"client": "acme", "n": 1}, {"client": "é", "n": 2}, {"n": 3}]
    body = b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)

    whole = Selected(pieces(body, 5), partial(jsonl_lines, selection=Selection()))
    some = Selected(pieces(body, 5), partial(jsonl_lines, selection=Selection(("n", "m"), {"client": "é"})))

    assert (b"".join(whole), whole.rows) == (body, 3)
    assert (json.loads(b"".join(some)), some.rows) == ({"n": 2, "m": None}, 1)


@given(
    st.lists(
        st.fixed_dictionaries({"client": TEXTS, "n": st.integers() | st.none()}, optional={"note": TEXTS})
    ),
    st.integers(1, 60),
    st.sampled_from([(), ("n", "note")]),
    st.sampled_from([{}, {"client": "acme"}, {"note": 'a"b'}]),
)
@example([{"client": 'one"', "n": 1}, {"client": "acme", "n": 2}], 60, (), {"client": "acme"})
@settings(deadline=None, max_examples=100)
def test_json_lines_are_those_that_the_json_module_finds(
    rows: list[dict[str, object]], size: int, columns: tuple[str, ...], values: dict[str, str]
) -> None:
    body = b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)
    selected = Selected(pieces(body, size), partial(jsonl_lines, selection=Selection(columns, values)))

    made = [json.loads(line) for line in b"".join(selected).split(b"\n")[:-1]]

    wanted = [row for row in rows if all(row.get(name) == value for name, value in values.items())]
    assert made == [{name: row.get(name) for name in columns} if columns else row for row in wanted]
    assert selected.rows == len(wanted)


def test_a_file_without_rows_has_its_header() -> None:
    selected = Selected([b"time,client\n"], partial(csv_lines, selection=Selection(("client",))))

    assert (b"".join(selected), selected.rows) == (b"client\n", 0)
