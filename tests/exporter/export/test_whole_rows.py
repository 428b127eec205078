"""Rows as the store has them become whole."""

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tagline import Record

from consumers.rows.table import UNDECLARED, overflow_body, overflow_key, row
from consumers.rows.timestream.mapping import RecordPacker, body
from exporter.export.whole_rows import BATCH_ROWS, BATCH_WHOLE_ROWS, WholeRows
from exporter.lake.batch import Batch
from exporter.lake.formats import Format
from exporter.lake.manifest import TYPES
from exporter.store import Column, Type, Values, extended
from tests.twins import merged

SOURCE = "/aws/lambda/orders"


def stored(record: Record) -> tuple[dict[str, tuple[Type, str]], str]:
    """Return a record's row as Timestream would answer it: types and text by column, and its overflow key."""
    key = overflow_key(record, SOURCE)
    made_row = row(record, SOURCE, UNDECLARED)
    packer = RecordPacker()
    packed = packer.pack(made_row) or packer.pack_shortened(made_row, key)
    (made,) = merged(json.loads(body("database", "table", [(packed, packed.time_ns(0))])))
    seconds, nanoseconds = divmod(int(made["Time"]), 10**9)
    time = f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S}.{nanoseconds:09}"
    columns: dict[str, tuple[Type, str]] = {"time": ("timestamp", time)}
    columns["_type"] = ("text", made["MeasureName"])
    columns |= {each["Name"]: ("text", each["Value"]) for each in made["Dimensions"]}
    columns |= {each["Name"]: (TYPES[each["Type"]], each["Value"]) for each in made["MeasureValues"]}
    return columns, key


def whole(records: list[Record], kept: dict[str, bytes]) -> tuple[list[dict[str, str]], WholeRows]:
    """Export records through the table, and return the lake's rows, without what is not there."""
    rows = [stored(record)[0] for record in records]
    found = {name: Column(name, kind) for each in rows for name, (kind, _) in each.items()}
    columns = extended((), found.values())
    made = WholeRows(columns, lambda keys: [kept.get(key) for key in keys])
    page: list[Values] = [[each[c.name][1] if c.name in each else None for c in columns] for each in rows]
    return [
        {column.name: value for column, value in zip(columns, values, strict=True) if value is not None}
        for batch in made.batches([page])
        for values in batch.rows
    ], made


def record(number: Any = 1, **fields: Any) -> Record:
    return Record(
        id=f"r{number}", timestamp=1_763_632_800_000, type="api_request", src="s", seq=0, fields=fields
    )


LONG = {
    "body": "é" * 3_000,
    "agent": "a" * 2_500,
    "status": 200.0,
    "route": "/x" * 400,
    "ok": True,
    "note": "n",
}


def test_values_that_were_too_long_for_the_store_come_back_whole() -> None:
    long = record(**LONG)
    _, key = stored(long)

    ((row, short), made) = whole([long, record(2, note="short")], {key: overflow_body(long)})

    assert (row["body"], row["agent"]) == (LONG["body"], LONG["agent"])
    # A dimension is as the store has it, so that both count the same; beside it is what was said.
    assert len(row["route"]) < len(str(LONG["route"]))
    assert json.loads(row["_said"])["route"] == LONG["route"]
    assert (row["status"], row["ok"], row["note"]) == ("200.0", "true", "n")
    assert row["_overflow"] == key
    assert short["note"] == "short"
    assert (made.restored, made.not_restored) == (1, 0)


def test_a_field_that_no_column_is_for_is_in_the_extra_column() -> None:
    # So many measures that the row leaves the last of them out.
    many = record(body="b" * 100, **{f"field_{number:03}": f"value {number}" for number in range(150)})
    columns, key = stored(many)
    assert "field_149" not in columns

    ((row,), _) = whole([many], {key: overflow_body(many)})

    extra = json.loads(row["_extra"])
    assert extra["field_149"] == "value 149"
    assert {**extra, **row}.items() >= {
        f"field_{number:03}": f"value {number}" for number in range(150)
    }.items()


def test_a_text_that_ends_as_a_whole_number_does_keeps_its_end() -> None:
    long = record(body="é" * 3_000, version="release 2.0", note=None, size=7.0)
    _, key = stored(long)

    ((row,), _) = whole([long], {key: overflow_body(long)})

    assert (row["version"], row["size"]) == ("release 2.0", "7.0")


def test_a_value_of_another_type_than_its_column_is_in_the_extra_column() -> None:
    # Timestream refuses a row that has it in the column; this one had no room for it.
    many = record(body="b" * 100, **{f"field_{number:03}": f"value {number}" for number in range(150)})
    columns, _ = stored(many)
    asked = (*(Column(name, column[0]) for name, column in columns.items()), Column("field_149", "number"))
    asked = (*asked, Column("_extra", "text"))
    values = [*(column[1] for column in columns.values()), None, None]

    made = WholeRows(asked, lambda _keys: [overflow_body(many)])
    ((row,),) = (batch.rows for batch in made.batches([[values]]))

    assert row[-2] is None
    assert json.loads(row[-1] or "")["field_149"] == "value 149"


def test_a_value_that_the_store_refused_as_a_column_is_once_in_the_extra_column() -> None:
    long = record(status="ok", note="n", body="b" * 5_000)
    key = overflow_key(long, SOURCE)
    packer = RecordPacker()
    packed = packer.pack_shortened(row(long, SOURCE, UNDECLARED, {"status", "note"}), key)
    other, _ = stored(record(2, status=200, note="n"))
    (made,) = merged(json.loads(body("database", "table", [(packed, packed.time_ns(0))])))
    refused = {name: other[name] for name in ("time", "_type", "source", "year", "month", "day")}
    refused |= {each["Name"]: (TYPES[each["Type"]], each["Value"]) for each in made["MeasureValues"]}
    columns = tuple(Column(name, kind) for name, (kind, _) in {**other, **refused}.items())
    values = [refused[each.name][1] if each.name in refused else None for each in columns]

    whole_rows = WholeRows(columns, lambda _keys: [overflow_body(long)])
    ((found,),) = (batch.rows for batch in whole_rows.batches([[values]]))
    exported = {each.name: value for each, value in zip(columns, found, strict=True)}

    assert whole_rows.restored == 1
    assert (exported["status"], exported["note"], exported["body"]) == (None, "n", "b" * 5_000)
    assert json.loads(exported["_extra"] or "") == {"status": "ok"}


LATER = 1_763_632_860_007


@pytest.mark.parametrize(
    "other",
    [
        {"type": "order_shipped"},
        {"timestamp": LATER},
        {"fields": {**LONG, "body": "SHIPPED " * 300}},
        {"fields": {**LONG, "route": "/other"}},
    ],
    ids=["type", "time", "values", "dimensions"],
)
def test_records_of_one_id_that_differ_have_whole_records_of_their_own(other: dict[str, Any]) -> None:
    one = record(**LONG)
    two = one.replace(**other)
    kept = {overflow_key(each, SOURCE): overflow_body(each) for each in (one, two)}

    found, made = whole([one, two], kept)

    assert [row["body"] for row in found] == [each.fields["body"] for each in (one, two)]
    assert (made.restored, made.not_restored) == (2, 0)


@pytest.mark.parametrize("other", [{"type": "order_shipped"}, {"timestamp": LATER}], ids=["type", "time"])
def test_a_whole_record_that_another_record_of_the_same_id_replaced_is_not_put_back(
    other: dict[str, Any],
) -> None:
    """Older releases named the object after `_id` alone; what they wrote is still read."""
    one = record(**LONG)
    columns, key = stored(one)

    ((row,), made) = whole([one], {key: overflow_body(one.replace(**other))})

    assert row["body"] == columns["body"][1]
    assert (made.restored, made.not_restored) == (0, 1)


@pytest.mark.parametrize(
    "body",
    [None, b"no line", overflow_body(record(9, body="another's")), b"\xff"],
    ids=["gone", "no", "other", "bytes"],
)
def test_a_row_whose_whole_record_is_gone_stays_as_it_is_and_is_counted(body: bytes | None) -> None:
    long = record(**LONG)
    columns, key = stored(long)

    ((row,), made) = whole([long], {} if body is None else {key: body})

    assert row["body"] == columns["body"][1]
    assert (made.restored, made.not_restored) == (0, 1)


def columns_of(*names: str) -> tuple[Column, ...]:
    return tuple(Column(name, "text") for name in ("time", "_id", "source", *names))


def batches(columns: tuple[Column, ...], *pages: list[Values]) -> list[Batch]:
    return list(WholeRows(columns, lambda keys: [None for _ in keys]).batches(pages))


def test_empty_text_is_told_from_none_by_what_the_row_says_of_it() -> None:
    columns = columns_of("_empty", "note", "client", "other")
    page: list[Values] = [
        ["t1", "r1", "/g", '["note","client","unheard of"]', None, None, None],
        ["t2", "r2", "/g", None, None, "c", None],
        ["t3", "r3", "/g", '["note"', None, None, None],
    ]

    (made,) = batches(columns, page)

    assert made.empties
    assert [row[4:] for row in made.rows] == [["", "", None], [None, "c", None], [None, None, None]]


def test_empty_text_has_no_place_in_a_column_of_another_type() -> None:
    # An undeclared field whose column another record has made a number's.
    columns = (Column("time", "timestamp"), *columns_of("_empty")[1:], Column("status", "number"))
    row = ["2025-11-20 10:00:00.000000000", "r1", "/g", '["status"]', None]

    (made,) = batches(columns, [row])

    assert made == Batch([row], empties=False)
    Format.PARQUET.writer(columns).add(made)


def test_pages_without_either_pass_as_they_are() -> None:
    columns = columns_of("_empty", "_overflow", "note")
    page: list[Values] = [["t", "r", "/g", None, None, "x"]]

    (made,) = batches(columns, page, [], page)

    assert made == Batch([*page, *page])


@given(st.lists(st.integers(0, 2_500), max_size=6), st.integers(1, 3_000))
@settings(deadline=None, max_examples=30)
def test_batches_do_not_depend_on_the_pages(sizes: list[int], page_rows: int) -> None:
    rows: list[Values] = [["t", str(number), "/g"] for number in range(sum(sizes))]
    pages: list[Iterable[Any]] = [rows[start : start + page_rows] for start in range(0, len(rows), page_rows)]

    made = batches(columns_of(), *[list(page) for page in pages])

    assert [row for batch in made for row in batch.rows] == rows
    assert all(len(batch.rows) == BATCH_ROWS for batch in made[:-1])


def test_few_whole_records_are_in_memory_at_once() -> None:
    asked: list[int] = []

    def fetch(keys: list[str]) -> list[None]:
        asked.append(len(keys))
        return [None] * len(keys)

    page: list[Values] = [["t", str(number), "/g", f"key{number}"] for number in range(50)]
    made = list(WholeRows(columns_of("_overflow"), fetch).batches([page]))

    assert max(asked) <= BATCH_WHOLE_ROWS
    assert [len(batch.rows) for batch in made] == [16, 16, 16, 2]
