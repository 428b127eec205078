"""A row becomes a Timestream record of a bounded size at a point of its own."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tagline import Record

from consumers.table import REVISION, Measure, Row, row
from consumers.timestream.mapping import MAX_RECORD_BYTES, OFFSETS, fit, offset, wire

TIME = 1_431_857_103_000
KEY = "overflow/2015-05-17/" + "0" * 32 + ".json"


def made(**fields: Any) -> Row:
    return row(Record(id="r1", timestamp=TIME, fields=fields), "/aws/lambda/orders")


def size(record: dict[str, Any]) -> int:
    """Return the bytes of names and values in a record of WriteRecords."""
    return len(record["MeasureName"]) + sum(
        len(item["Name"].encode()) + len(item["Value"].encode())
        for item in record["Dimensions"] + record["MeasureValues"]
    )


def test_a_row_in_the_form_of_write_records() -> None:
    record = wire(made(route="/pets", status=200, ok=True, item_count=3, note="n"), 0)

    assert record["Dimensions"] == [
        {"Name": "source", "Value": "/aws/lambda/orders"},
        {"Name": "route", "Value": "/pets"},
    ]
    assert (record["MeasureName"], record["MeasureValueType"]) == ("api_request", "MULTI")
    assert record["MeasureValues"][4:] == [
        {"Name": "status", "Type": "DOUBLE", "Value": "200.0"},
        {"Name": "ok", "Type": "BOOLEAN", "Value": "true"},
        {"Name": "item_count", "Type": "BIGINT", "Value": "3"},
        {"Name": "note", "Type": "VARCHAR", "Value": "n"},
    ]
    assert (record["TimeUnit"], record["Version"]) == ("NANOSECONDS", REVISION)


@given(st.text(min_size=1), st.integers(0, 100))
def test_the_offset_stays_in_the_millisecond_and_is_the_same_for_every_copy(
    identity: str, attempt: int
) -> None:
    assert 0 <= offset(identity, attempt) < OFFSETS
    assert offset(identity, attempt) == offset(identity, attempt)
    copy = Row(identity, TIME, "t", {}, {})
    assert int(wire(copy, attempt)["Time"]) // OFFSETS == TIME


def test_another_attempt_is_another_point() -> None:
    assert len({offset("r1", attempt) for attempt in range(32)}) == 32


def test_the_offset_of_an_identity_never_changes() -> None:
    # Rows that are stored were placed by this: another value would store a second copy of each.
    assert [offset("r1", 0), offset("r1", 1), offset("é", 0)] == [727_441, 817_649, 55_525]


def test_a_row_at_the_limit_is_left_alone_and_one_past_it_is_shortened() -> None:
    room = MAX_RECORD_BYTES - size(wire(made(body="x"), 0)) + 1
    whole = made(body="x" * room)
    over = made(body="x" * (room + 1))

    assert fit(whole, KEY) is whole
    assert size(wire(whole, 0)) == MAX_RECORD_BYTES
    short = fit(over, KEY)
    assert short.measures["_overflow"].value == KEY
    assert str(short.measures["body"].value) == "x" * (room - len("_overflow") - len(KEY))


def test_short_values_survive_a_long_one() -> None:
    short = fit(made(body="é" * 5_000, note="kept", status=200, agent="a" * 300), KEY)

    assert short.measures["note"].value == "kept"
    assert short.measures["status"].value == 200.0
    assert short.measures["agent"].value == "a" * 300
    assert set(str(short.measures["body"].value)) == {"é"}


@given(
    st.dictionaries(
        st.text(min_size=1, max_size=300),
        st.text()
        | st.text(min_size=900)
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.lists(st.integers()),
        max_size=40,
    ),
    st.text(max_size=900),
)
def test_every_row_fits_and_keeps_its_identity(fields: dict[str, Any], route: str) -> None:
    whole = made(**{f"{name}x": value for name, value in fields.items()}, route=route)
    short = fit(whole, KEY)

    assert size(wire(short, 0)) <= MAX_RECORD_BYTES
    assert short.measures["_id"].value == "r1"
    assert short is whole or short.measures["_overflow"].value == KEY
    assert all(item["Value"] for item in wire(short, 0)["MeasureValues"])


@pytest.mark.parametrize("value", ["r" * 301, "é" * 151])
def test_a_long_dimension_is_cut_and_the_record_is_kept_whole(value: str) -> None:
    short = fit(replace(made(), dimensions={"route": value}), KEY)

    assert len(short.dimensions["route"].encode()) <= 300
    assert short.measures["_overflow"] == Measure("VARCHAR", KEY)


def test_the_wire_form_is_json() -> None:
    assert json.loads(json.dumps(wire(made(a=1), 0))) == wire(made(a=1), 0)
