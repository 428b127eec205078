"""A record becomes a typed row.

Limits of Timestream: https://docs.aws.amazon.com/timestream/latest/developerguide/ts-limits.html
"""

import copy
import json
import subprocess
import sys
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tagline import Record, read

from consumers.rows.table import (
    DIMENSIONS,
    FIXED,
    MAX_DIMENSION_BYTES,
    MAX_ID_BYTES,
    MAX_MEASURES,
    OWN_MEASURES,
    RESERVED,
    RESERVED_PREFIXES,
    REVISION,
    UNDECLARED,
    Declared,
    Dimension,
    Limit,
    Measure,
    Plan,
    Plans,
    Type,
    UnmappableError,
    column_name,
    field_name,
    overflow_body,
    overflow_key,
    row,
)
from consumers.rows.timestream import mapping

TIME = 1_431_857_103_000  # 2015-05-17T10:05:03Z
SOURCE = "/aws/lambda/orders"


def record(**fields: Any) -> Record:
    return Record(id="r1", timestamp=TIME, fields=fields)


def test_dimensions_are_the_declared_ones_and_always_the_source() -> None:
    made = row(record(route="/pets", method="GET", client="acme", status=200), SOURCE, UNDECLARED)

    assert made.dimensions == {"source": SOURCE, "route": "/pets", "method": "GET", "client": "acme"}
    assert row(record(), SOURCE, UNDECLARED).dimensions == {"source": SOURCE}


def test_every_row_carries_its_identity_and_its_day() -> None:
    assert tuple(row(record(x=1), SOURCE, UNDECLARED).measures) == (*FIXED, "x")
    assert row(record(), SOURCE, UNDECLARED).measures == {
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
        ("price", Decimal("0.25"), Measure("DOUBLE", 0.25)),
        ("item_count", Decimal("3.00"), Measure("BIGINT", 3)),
        ("prices", [Decimal("0.5"), Decimal("NaN")], Measure("VARCHAR", "[0.5,null]")),
    ],
)
def test_types_follow_the_value(name: str, value: Any, measure: Measure) -> None:
    assert row(record(**{name: value}), SOURCE, UNDECLARED).measures[name] == measure


def test_null_is_left_out() -> None:
    made = row(record(note=None, route=None), SOURCE, UNDECLARED)

    assert set(made.measures) == {"_id", "year", "month", "day"}
    assert made.dimensions == {"source": SOURCE}


def test_empty_text_is_told_from_null_by_its_field_s_name() -> None:
    made = row(record(note="", route="", **{"two words": "", "item_count": ""}), SOURCE, UNDECLARED)

    assert made.dimensions == {"source": SOURCE}
    assert made.measures["_empty"] == Measure("VARCHAR", '["route","note","two words","item_count"]')
    assert not {"note", "two.x20.words", "item_count"} & set(made.measures)


@pytest.mark.parametrize("name", ["latency", "item_count"])
@pytest.mark.parametrize(
    "value",
    [float("nan"), float("inf"), -float("inf"), Decimal("NaN"), Decimal("sNaN"), Decimal("-Infinity")],
)
def test_what_is_no_number_is_left_out_and_counted(name: str, value: Any) -> None:
    made = row(record(**{name: value}), SOURCE, UNDECLARED)

    assert (name in made.measures, "_extra" in made.measures, made.not_numbers) == (False, False, 1)


@pytest.mark.parametrize("value", [10**400, Decimal("1e400")])
def test_a_number_beyond_double_is_left_out_and_counted(value: Any) -> None:
    made = row(record(latency=value), SOURCE, UNDECLARED)

    assert ("latency" in made.measures, made.not_numbers) == (False, 1)


@pytest.mark.parametrize("value", [float("nan"), Decimal("NaN"), Decimal("Infinity")])
def test_a_dimension_that_is_no_number_is_left_out_and_counted(value: Any) -> None:
    made = row(record(client=value), SOURCE, UNDECLARED)

    assert (made.dimensions, made.not_numbers) == ({"source": SOURCE}, 1)


@pytest.mark.parametrize("value", ["3", 2.5, 2**63, [1], {"a": 1}])
def test_a_count_that_is_not_a_whole_number_is_kept_in_extra(value: Any) -> None:
    made = row(record(item_count=value, status=200), SOURCE, UNDECLARED)

    assert "item_count" not in made.measures
    assert made.measures["status"] == Measure("DOUBLE", 200.0)
    assert json.loads(str(made.measures["_extra"].value)) == {"item_count": value}
    assert made.extra == 1


@pytest.mark.parametrize("value", [Decimal("2.5"), Decimal("1e30"), Decimal("1e1000000")])
def test_a_decimal_that_is_not_a_whole_number_of_64_bits_is_kept_in_extra(value: Decimal) -> None:
    made = row(record(item_count=value), SOURCE, UNDECLARED)

    assert ("item_count" in made.measures, made.extra) == (False, 1)


def test_a_dimension_that_is_no_text_becomes_text() -> None:
    assert row(record(client=7, route=["a"]), SOURCE, UNDECLARED).dimensions == {
        "source": SOURCE,
        "client": "7",
        "route": '["a"]',
    }


def test_a_record_fills_its_measures_and_the_rest_goes_into_one() -> None:
    room = MAX_MEASURES - len(OWN_MEASURES)
    full = row(record(**{f"f{number}": number for number in range(room)}), SOURCE, UNDECLARED)
    over = row(record(**{f"f{number}": number for number in range(300)}, note=""), SOURCE, UNDECLARED)

    assert "_extra" not in full.measures
    assert (full.extra, len(full.measures)) == (0, room + 4)
    assert json.loads(str(over.measures["_extra"].value)) == {
        f"f{number}": number for number in range(room, 300)
    }
    assert over.extra == 300 - room
    assert len(over.measures) + 3 <= MAX_MEASURES  # `_trunc`, `_said` and `_overflow` still have room


def test_a_name_longer_than_a_column_can_be_goes_into_the_extra_measure() -> None:
    made = row(record(**{"n" * 256: 1, "m" * 257: 2}), SOURCE, UNDECLARED)

    assert made.measures["n" * 256] == Measure("DOUBLE", 1.0)
    assert made.measures["_extra"] == Measure("VARCHAR", '{"' + "m" * 257 + '":2}')
    assert made.extra == 1


def test_a_field_without_a_name_goes_into_the_extra_measure() -> None:
    assert row(record(**{"": 1}), SOURCE, UNDECLARED).measures["_extra"] == Measure("VARCHAR", '{"":1}')


@pytest.mark.parametrize("time", [10**15, -(10**15), 10**30])
def test_a_time_beyond_the_calendar_is_refused(time: int) -> None:
    with pytest.raises(UnmappableError, match="not in the years 1 to 9999"):
        row(Record(id="r1", timestamp=time), SOURCE, UNDECLARED)


def test_an_identity_is_refused_past_its_limit_and_never_cut() -> None:
    assert row(Record(id="x" * MAX_ID_BYTES, timestamp=TIME), SOURCE, UNDECLARED).id == "x" * MAX_ID_BYTES
    with pytest.raises(UnmappableError, match="longer than 200 bytes"):
        row(Record(id="x" * (MAX_ID_BYTES + 1), timestamp=TIME), SOURCE, UNDECLARED)


def test_a_kind_of_record_is_refused_past_the_limit_of_a_name() -> None:
    assert row(Record(id="x", timestamp=TIME, type="t" * 256), SOURCE, UNDECLARED).type == "t" * 256
    with pytest.raises(UnmappableError, match="257 bytes long, more than 256"):
        row(Record(id="x", timestamp=TIME, type="t" * 257), SOURCE, UNDECLARED)


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
    | st.from_regex(r"(ts_|time_*|_id|\.x[0-9a-f]+\.|year|measure_value|Time|TS_|_Id)+", fullmatch=True)
)
def test_a_column_is_valid_and_tells_the_field_again(field: str) -> None:
    column = column_name(field)

    assert field_name(column) == field
    assert all(character.isascii() and (character.isalnum() or character in "_.-") for character in column)
    assert column not in RESERVED
    assert not column.startswith(RESERVED_PREFIXES)
    assert column not in OWN_MEASURES


@given(st.text(min_size=1), st.text(min_size=1))
def test_two_fields_never_share_a_column_not_even_by_case(one: str, other: str) -> None:
    names = {one, other, one.swapcase(), column_name(one), field_name(other)} - {""}

    assert len({column_name(name) for name in names}) == len(names)


@given(st.lists(st.sampled_from([*DIMENSIONS, "source", "year", "time", "time_", "_id", "a b", "a.x20.b"])))
def test_no_two_fields_share_a_column(names: list[str]) -> None:
    fields = dict.fromkeys(names, 1)
    made = row(record(**fields), SOURCE, UNDECLARED)

    assert len(made.measures) + len(made.dimensions) == 4 + 1 + len(fields)


def test_every_copy_of_a_record_overflows_to_the_same_object() -> None:
    first = Record(id="r1", timestamp=TIME, fields={"body": "x"}, src="a", seq=1)
    again = Record(id="r1", timestamp=TIME, fields={"body": "x"}, src="b", seq=9)

    assert overflow_key(first, SOURCE) == overflow_key(again, SOURCE)
    assert overflow_key(first, SOURCE).startswith("overflow/2015-05-17/")
    assert overflow_body(first) == overflow_body(again)
    assert read(overflow_body(first).decode()).fields == {"body": "x"}


# --- JSON in a column ---------------------------------------------------------------------------------------

TEXTS = st.text(max_size=9) | st.text(alphabet=st.characters(max_codepoint=0x9F), max_size=9)
WHOLE = st.integers(-(2**63), 2**63 - 1)


@given(
    st.recursive(
        TEXTS | WHOLE | st.booleans() | st.none(), lambda each: st.dictionaries(TEXTS, each, max_size=3)
    )
)
def test_a_nested_value_is_the_json_that_the_standard_library_writes(value: Any) -> None:
    made = row(record(body=[value]), SOURCE, UNDECLARED).measures["body"]

    assert made.value == json.dumps([value], ensure_ascii=False, separators=(",", ":"))


@given(
    st.recursive(
        st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(alphabet="a\x00é\u2028𝄞"),
        lambda each: st.lists(each, max_size=3) | st.dictionaries(st.text(max_size=3), each, max_size=3),
    )
)
def test_a_nested_value_reads_back_as_it_was_whatever_its_numbers(value: Any) -> None:
    assert json.loads(str(row(record(body=[value]), SOURCE, UNDECLARED).measures["body"].value)) == [value]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ([float("nan"), float("inf")], "[null,null]"),
        ([2**64, float("nan")], "[18446744073709551616,null]"),
        (["\ud800", 1e16], '["?",1e+16]'),
        # Rows that are stored have these texts: an orjson that writes others needs a higher REVISION.
        ([1e16, 1e22, 1e-7, 5e-324, 0.1 + 0.2], "[1e+16,1e+22,1e-7,5e-324,0.30000000000000004]"),
    ],
)
def test_a_nested_value_that_json_has_no_word_for(value: Any, text: str) -> None:
    assert row(record(body=value), SOURCE, UNDECLARED).measures["body"].value == text


def test_a_value_is_refused_past_the_depth_that_can_be_written() -> None:
    def nested(levels: int) -> Any:
        value: Any = 1
        for _ in range(levels):
            value = [value]
        return value

    made = row(record(body=nested(300)), SOURCE, UNDECLARED)
    assert made.measures["body"].value == "[" * 300 + "1" + "]" * 300
    with pytest.raises(UnmappableError, match="deeper than 300 levels"):
        row(record(body=nested(301)), SOURCE, UNDECLARED)


def test_the_names_of_the_table_can_be_read_where_orjson_is_not_installed() -> None:
    # The download functions ship without it.
    script = "import sys; sys.modules['orjson'] = None; from consumers.rows.table import EMPTY, overflow_key"

    subprocess.run([sys.executable, "-c", script], check=True, env={"PYTHONPATH": ":".join(sys.path)})


# --- Dimensions ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("letter", ["a", "é", "𝄞"])
def test_a_dimension_past_its_bytes_is_cut_with_a_hash_and_said_whole(letter: str) -> None:
    fits = letter * (MAX_DIMENSION_BYTES // len(letter.encode()))
    one, other = (row(record(route=fits + end), SOURCE, UNDECLARED) for end in ("1", "2"))

    assert row(record(route=fits), SOURCE, UNDECLARED).dimensions["route"] == fits
    assert one.dimensions["route"] != other.dimensions["route"]
    assert len(one.dimensions["route"].encode()) <= MAX_DIMENSION_BYTES
    assert one.dimensions["route"].startswith(fits[:60])
    assert json.loads(str(one.measures["_said"].value)) == {"route": fits + "1"}
    assert mapping.fit(one, "overflow/x").dimensions == one.dimensions  # the store's own bound is the same


def test_a_log_group_of_the_longest_name_is_told_from_its_neighbour() -> None:
    # 512 characters: https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_CreateLogGroup.html
    one, other = (row(record(), "g" * 511 + end, UNDECLARED) for end in "12")

    assert one.dimensions["source"] != other.dimensions["source"]
    assert json.loads(str(one.measures["_said"].value)) == {"source": "g" * 511 + "1"}


def limited(*values: str, buckets: int = 0) -> Plans:
    return Plans(
        otherwise=Plan({"client": Dimension("client", "client", 64, Limit(frozenset(values), buckets))})
    )


@pytest.mark.parametrize(
    ("said", "place", "others"),
    [
        ("acme", "acme", 0),
        ("beta", "other", 1),
        ("ACME", "other", 1),
        ("/v1/pets/7", "/v1/pets/*", 0),
        ("/v1/pets/", "/v1/pets/*", 0),
        ("/v1/pets/*", "/v1/pets/*", 0),
        ("/v1/dogs/7", "other", 1),
        ("acmeme", "acme*me", 0),
        ("acme*", "other", 1),
    ],
)
def test_a_limited_dimension_says_what_is_listed_or_other(said: str, place: str, others: int) -> None:
    made = row(record(client=said), SOURCE, limited("acme", "/v1/pets/*", "acme*me"))

    assert (made.dimensions["client"], made.others) == (place, others)
    kept = made.measures.get("_said")
    assert (json.loads(str(kept.value))["client"] if kept else place) == said


@given(st.lists(st.text(min_size=1), min_size=1, max_size=50))
def test_others_are_spread_over_numbered_ones_the_same_way_for_ever(clients: list[str]) -> None:
    plans = limited("acme", buckets=8)
    first = [row(record(client=client), SOURCE, plans).dimensions["client"] for client in clients]
    again = [
        row(record(client=client), SOURCE, limited("acme", buckets=8)).dimensions["client"]
        for client in clients
    ]

    assert first == again
    assert set(first) <= {"acme", *(f"other-{number}" for number in range(8))}


def test_the_number_of_an_other_never_changes() -> None:
    # Rows that are stored were placed by this: another number would store a second copy of each.
    made = [
        row(record(client=client), SOURCE, limited(buckets=1000)).dimensions["client"] for client in "abé"
    ]

    assert made == ["other-343", "other-333", "other-743"]


# --- What is declared ---------------------------------------------------------------------------------------


def declared(type_: Type, default: Measure | None = None, **options: Any) -> Plans:
    return Plans({"api_request": Plan(measures={"size": Declared("size", type_, default)}, **options)})


@pytest.mark.parametrize(
    ("type_", "value", "made"),
    [
        ("BIGINT", 3, 3),
        ("BIGINT", 3.0, 3),
        ("BIGINT", 2**63 - 1, 2**63 - 1),
        ("BIGINT", True, 1),
        ("DOUBLE", 3, 3.0),
        ("BOOLEAN", False, False),
        ("VARCHAR", "text", "text"),
        ("VARCHAR", 3, "3"),
        ("VARCHAR", True, "true"),
        ("VARCHAR", {"a": None}, '{"a":null}'),
    ],
)
def test_a_declared_measure_is_of_its_type(type_: Type, value: Any, made: Any) -> None:
    measure = row(record(size=value), SOURCE, declared(type_)).measures["size"]

    assert (measure.type, measure.value, type(measure.value)) == (type_, made, type(made))


UNFIT = [
    ("BIGINT", 3.5, "size is 3.5, not a whole number of 64 bits"),
    ("BIGINT", 2**63, "size is 9223372036854775808, not a whole number of 64 bits"),
    ("BIGINT", "3", 'size is "3", not a whole number of 64 bits'),
    ("DOUBLE", "3", 'size is "3", not a number'),
    ("DOUBLE", True, "size is true, not a number"),
    ("DOUBLE", [1], r"size is \[1\], not a number"),
    ("BOOLEAN", 1, "size is 1, not true or false"),
    ("BOOLEAN", "true", 'size is "true", not true or false'),
]


@pytest.mark.parametrize(("type_", "value", "message"), UNFIT)
def test_a_value_that_does_not_fit_is_refused_with_its_name(type_: Type, value: Any, message: str) -> None:
    with pytest.raises(UnmappableError, match=f"^{message}$"):
        row(record(size=value), SOURCE, declared(type_))


@pytest.mark.parametrize(("type_", "value", "_message"), UNFIT)
def test_a_value_that_does_not_fit_is_kept_beside_where_that_is_declared(
    type_: Type, value: Any, _message: str
) -> None:
    made = row(record(size=value), SOURCE, declared(type_, lenient=True))

    assert "size" not in made.measures
    assert json.loads(str(made.measures["_extra"].value)) == {"size": value}
    assert made.extra == 1


def test_a_default_stands_for_what_is_lacking_or_null_and_for_nothing_else() -> None:
    plans = declared("BIGINT", Measure("BIGINT", -1))
    made = [
        row(record(**fields), SOURCE, plans).measures
        for fields in ({}, {"size": None}, {"size": 0}, {"size": ""})
    ]

    assert [measures.get("size") for measures in made] == [
        Measure("BIGINT", -1),
        Measure("BIGINT", -1),
        Measure("BIGINT", 0),
        None,
    ]
    assert made[3]["_empty"].value == '["size"]'


def test_what_is_not_declared_goes_into_the_extra_measure_where_the_schema_says_so() -> None:
    made = row(
        record(size=1, note="n", gone=None, empty="", route="/"), SOURCE, declared("DOUBLE", extra=True)
    )

    assert made.measures["size"] == Measure("DOUBLE", 1.0)
    assert made.measures["_extra"] == Measure("VARCHAR", '{"note":"n"}')
    assert made.measures["_empty"] == Measure("VARCHAR", '["empty"]')
    assert (made.dimensions["route"], made.extra) == ("/", 1)


def test_declared_measures_have_their_place_however_many_are_not() -> None:
    fields = {f"f{number}": number for number in range(300)}
    made = row(record(**fields, size=1), SOURCE, declared("DOUBLE"))

    assert made.measures["size"] == Measure("DOUBLE", 1.0)
    assert made.extra == 300 - (MAX_MEASURES - len(OWN_MEASURES) - 1)


def test_a_column_that_another_type_declares_is_of_that_type_or_left_alone() -> None:
    plans = Plans(otherwise=Plan(columns={"size": "BIGINT"}, dimensions_elsewhere=frozenset(["region"])))
    fits, unfit = (row(record(size=size, region="eu"), SOURCE, plans) for size in (3, "3"))

    assert fits.measures["size"] == Measure("BIGINT", 3)
    assert json.loads(str(fits.measures["_extra"].value)) == {"region": "eu"}
    assert json.loads(str(unfit.measures["_extra"].value)) == {"size": "3", "region": "eu"}


def test_the_version_of_a_row_is_the_mapping_s_and_the_schemas_revisions_together() -> None:
    assert row(record(), SOURCE, UNDECLARED).version == REVISION == UNDECLARED.version
    assert row(record(), SOURCE, Plans(revisions=7)).version == REVISION + 7


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30),
    lambda each: st.lists(each, max_size=3) | st.dictionaries(st.text(max_size=5), each, max_size=3),
    max_leaves=5,
)
NAMES = st.sampled_from([*DIMENSIONS, "size", "note", "region", "", "a b", "source"]) | st.text(max_size=5)


@given(
    st.dictionaries(NAMES.filter(lambda name: not name.endswith("_count")), VALUES, max_size=12),
    st.booleans(),
    st.sampled_from(["BIGINT", "BOOLEAN", "DOUBLE", "VARCHAR"]),
)
def test_every_field_is_found_once_in_the_row_and_copies_make_equal_rows(
    fields: dict[str, Any], extra: bool, type_: Type
) -> None:
    def made() -> Any:
        plans = declared(type_, lenient=True, extra=extra, dimensions_elsewhere=frozenset(["region"]))
        return row(record(**copy.deepcopy(fields)), SOURCE, plans)

    first = made()
    columns = {**first.dimensions, **first.measures}
    places = [
        name
        for name in fields
        for where in (
            column_name(name) in columns if name else False,
            name in json.loads(str(first.measures["_extra"].value)) if "_extra" in first.measures else False,
            name in json.loads(str(first.measures["_empty"].value)) if "_empty" in first.measures else False,
        )
        if where
    ]
    nulls = sum(value is None for value in fields.values())

    assert sorted(places) == sorted(set(places))
    assert len(fields) == len(places) + nulls + first.not_numbers
    assert made() == first
