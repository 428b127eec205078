"""A record becomes a typed row."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tagline import Record, read

from consumers.table import (
    DIMENSIONS,
    MAX_ID_BYTES,
    MAX_MEASURES,
    RESERVED,
    RESERVED_PREFIXES,
    Measure,
    UnmappableError,
    column_name,
    field_name,
    overflow_body,
    overflow_key,
    row,
)

TIME = 1_431_857_103_000  # 2015-05-17T10:05:03Z
SOURCE = "/aws/lambda/orders"


def record(**fields: Any) -> Record:
    return Record(id="r1", timestamp=TIME, fields=fields)


def test_dimensions_are_the_declared_ones_and_always_the_source() -> None:
    made = row(record(route="/pets", method="GET", client="acme", status=200), SOURCE)

    assert made.dimensions == {"source": SOURCE, "route": "/pets", "method": "GET", "client": "acme"}
    assert row(record(), SOURCE).dimensions == {"source": SOURCE}


def test_every_row_carries_its_identity_and_its_day() -> None:
    assert row(record(), SOURCE).measures == {
        "_id": Measure("VARCHAR", "r1"),
        "year": Measure("VARCHAR", "2015"),
        "month": Measure("VARCHAR", "05"),
        "day": Measure("VARCHAR", "17"),
    }


@pytest.mark.parametrize(
    ("name", "value", "measure"),
    [
        ("ok", True, Measure("BOOLEAN", True)),
        ("status", 200, Measure("DOUBLE", 200.0)),
        ("seconds", 0.25, Measure("DOUBLE", 0.25)),
        ("zero", -0.0, Measure("DOUBLE", 0.0)),
        ("text", "é", Measure("VARCHAR", "é")),
        ("half", "\ud800", Measure("VARCHAR", "?")),
        ("object", {"a": [1, None]}, Measure("VARCHAR", '{"a":[1,null]}')),
        ("list", [], Measure("VARCHAR", "[]")),
        ("item_count", 3, Measure("BIGINT", 3)),
        ("item_count", 3.0, Measure("BIGINT", 3)),
        ("item_count", -(2**63), Measure("BIGINT", -(2**63))),
        ("huge", 10**300, Measure("DOUBLE", 1e300)),
    ],
)
def test_types_follow_the_value(name: str, value: Any, measure: Measure) -> None:
    assert row(record(**{name: value}), SOURCE).measures[name] == measure


@pytest.mark.parametrize("value", [None, ""])
def test_what_is_nothing_is_left_out(value: Any) -> None:
    made = row(record(note=value, route=value), SOURCE)

    assert "note" not in made.measures
    assert made.dimensions == {"source": SOURCE}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 10**400])
def test_what_is_no_number_is_left_out_and_counted(value: Any) -> None:
    made = row(record(latency=value), SOURCE)

    assert ("latency" in made.measures, made.not_numbers) == (False, 1)


@pytest.mark.parametrize("value", ["3", 2.5, 2**63, float("nan"), float("inf"), [1], {"a": 1}])
def test_a_count_that_is_no_whole_number_is_refused_with_its_name_and_value(value: Any) -> None:
    with pytest.raises(UnmappableError, match=r"item_count is .*, not a whole number of 64 bits"):
        row(record(item_count=value), SOURCE)


def test_a_dimension_that_is_no_text_becomes_text() -> None:
    assert row(record(client=7, route=["a"]), SOURCE).dimensions == {
        "source": SOURCE,
        "client": "7",
        "route": '["a"]',
    }


def test_a_record_fills_its_measures_and_the_rest_goes_into_one() -> None:
    made = row(record(**{f"f{number}": number for number in range(300)}), SOURCE)

    assert len(made.measures) == MAX_MEASURES - 1
    assert str(made.measures["_extra"].value).startswith('{"f250":250,')


def test_a_name_longer_than_a_column_can_be_goes_into_the_extra_measure() -> None:
    made = row(record(**{"n" * 256: 1, "m" * 257: 2}), SOURCE)

    assert made.measures["n" * 256] == Measure("DOUBLE", 1.0)
    assert made.measures["_extra"] == Measure("VARCHAR", '{"' + "m" * 257 + '":2}')


def test_an_identity_is_refused_past_its_limit_and_never_cut() -> None:
    assert row(Record(id="x" * MAX_ID_BYTES, timestamp=TIME), SOURCE).id == "x" * MAX_ID_BYTES
    with pytest.raises(UnmappableError, match="longer than 200 bytes"):
        row(Record(id="x" * (MAX_ID_BYTES + 1), timestamp=TIME), SOURCE)


def test_a_kind_of_record_is_refused_past_the_limit_of_a_name() -> None:
    assert row(Record(id="x", timestamp=TIME, type="t" * 256), SOURCE).type == "t" * 256
    with pytest.raises(UnmappableError, match="257 bytes long, more than 256"):
        row(Record(id="x", timestamp=TIME, type="t" * 257), SOURCE)


@pytest.mark.parametrize(
    ("field", "column"),
    [
        ("status", "status"),
        ("http.status-code", "http.status-code"),
        ("time", "time_"),
        ("time_", "time__"),
        ("source", "source_"),
        ("_id", "_id_"),
        ("two words", "two.x20.words"),
        ("ts_start", ".x74.s_start"),
        ("measure_name", ".x6d.easure_name"),
        ("a.x20.b", "a.x2e.x20.b"),
    ],
)
def test_names_become_columns(field: str, column: str) -> None:
    assert column_name(field) == column


@given(
    st.text(min_size=1)
    | st.from_regex(r"(ts_|time_*|_id|\.x[0-9a-f]+\.|year|measure_value)+", fullmatch=True)
)
def test_a_column_is_valid_and_tells_the_field_again(field: str) -> None:
    column = column_name(field)

    assert field_name(column) == field
    assert all(character.isascii() and (character.isalnum() or character in "_.-") for character in column)
    assert column not in RESERVED
    assert not column.startswith(RESERVED_PREFIXES)
    assert column not in {"_id", "_trunc", "_extra", "_overflow"}


@given(st.lists(st.sampled_from([*DIMENSIONS, "source", "year", "time", "time_", "_id", "a b", "a.x20.b"])))
def test_no_two_fields_share_a_column(names: list[str]) -> None:
    fields = dict.fromkeys(names, 1)
    made = row(record(**fields), SOURCE)

    assert len(made.measures) + len(made.dimensions) == 4 + 1 + len(fields)


def test_every_copy_of_a_record_overflows_to_the_same_object() -> None:
    first = Record(id="r1", timestamp=TIME, fields={"body": "x"}, src="a", seq=1)
    again = Record(id="r1", timestamp=TIME, fields={"body": "x"}, src="b", seq=9)

    assert overflow_key(first, SOURCE) == overflow_key(again, SOURCE)
    assert overflow_key(first, SOURCE).startswith("overflow/2015-05-17/")
    assert overflow_body(first) == overflow_body(again)
    assert read(overflow_body(first).decode()).fields == {"body": "x"}
