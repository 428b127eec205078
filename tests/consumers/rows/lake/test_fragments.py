"""The names and columns of fragments."""

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.rows.lake import fragments
from consumers.rows.lake.fragments import Fragment, parse_fragment

HOUR = 490_477  # 2025-12-14 13:00
KEY = "store/day=2025-12-14/hour=13/1765717201-1765720799-58-" + "0f" * 16 + ".parquet"


def test_a_key_names_the_hour_the_seconds_and_the_rows() -> None:
    fragment = Fragment(HOUR, HOUR * 3_600 + 1, HOUR * 3_600 + 3_599, 58, "0f" * 16)

    assert fragment.key == KEY
    assert parse_fragment(KEY) == fragment
    assert KEY.startswith(fragments.hour_folder(HOUR))
    assert KEY.startswith(fragments.day_folder(date(2025, 12, 14)))
    assert fragments.hours_of(date(2025, 12, 14))[13] == HOUR


@given(
    st.integers(0, 2_932_896 * 24 - 1),
    st.tuples(st.integers(0, 3_599), st.integers(0, 3_599)).map(sorted),
    st.integers(1, 10**6),
    st.binary(min_size=16, max_size=16),
)
def test_every_key_is_read_as_it_was_written(
    hour: int, seconds: tuple[int, int], rows: int, name: bytes
) -> None:
    first, last = (hour * 3_600 + second for second in seconds)
    fragment = Fragment(hour, first, last, rows, name.hex())

    assert parse_fragment(fragment.key) == fragment


@pytest.mark.parametrize(
    "key",
    [
        "",
        "records/parquet/x",
        KEY.removesuffix(".parquet"),
        KEY + "/",
        KEY.replace("hour=13", "hour=14"),
        KEY.replace("2025-12-14", "2025-12-13"),
        KEY.replace("-58-", "-058x-"),
        KEY.replace("-58-", "-058-"),
        KEY.replace("0f", "0F"),
    ],
)
def test_a_key_of_something_else_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match="is not the key of a fragment"):
        parse_fragment(key)


def test_columns_are_those_of_the_format_then_the_declared_ones_then_the_other_fields() -> None:
    columns = fragments.columns({"status": "DOUBLE", "item_count": "BIGINT", "ok": "BOOLEAN"})

    assert list(columns) == [
        "time",
        "_time_ns",
        "_id",
        "_type",
        "source",
        "route",
        "method",
        "client",
        "_digest",
        "_v",
        "_trunc",
        "_extra",
        "_empty",
        "_said",
        "item_count",
        "ok",
        "status",
        "fields",
    ]
    assert columns["time"] == "TIMESTAMP"
    assert (columns["status"], columns["item_count"], columns["ok"]) == ("DOUBLE", "BIGINT", "BOOLEAN")
    assert {*fragments.IDENTITY, fragments.DIGEST, fragments.VERSION} == set(fragments.ALWAYS)


@pytest.mark.parametrize(
    "name", ["fields", "hour", "Hour", "FIELDS", "Route", "a-b", "a.x2f.b", "x" * 256, "STATUS"]
)
def test_a_declared_column_that_sql_cannot_name_stays_among_the_other_fields(name: str) -> None:
    found = fragments.columns({name: "DOUBLE", "Status": "DOUBLE", "STATUS": "VARCHAR"})

    assert set(found) - set(fragments.columns({})) == {"STATUS"}
