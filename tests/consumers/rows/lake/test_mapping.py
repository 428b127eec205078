"""Rows as fragments have them."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tagline import Record, write

from consumers.lines.extract import read_line, record_of
from consumers.lines.subscription import LogEvent
from consumers.rows import schema
from consumers.rows.lake import mapping
from consumers.rows.lake.digest import digest
from consumers.rows.lake.fragments import HOUR_MS
from consumers.rows.lake.limits import MAX_BYTES, MAX_ROWS
from consumers.rows.lake.mapping import FragmentRow, LakePacker
from consumers.rows.table import FIXED, UNDECLARED, Plans, row
from tests.builders import GROUP, LOGGED

SCHEMAS = Path(__file__).parents[4] / "schemas"
OWN = b"""
revision = 2
unfit = "extra"

[dimensions.region]
values = ["eu", "us"]

[measures]
status = "DOUBLE"
ok = "BOOLEAN"
fields = "DOUBLE"
item_count = "BIGINT"
note = "VARCHAR"
"""
PLANS = {
    "nothing is declared": UNDECLARED,
    "the schemas that are shipped": schema.load_schemas(SCHEMAS),
    "a schema with dimensions and defaults": schema.plans(schema.parse({"api_request.toml": OWN})),
}
FIELDS = st.dictionaries(
    st.sampled_from(
        ["status", "ok", "route", "client", "region", "note", "item_count", "fields", "a-b", "context"]
    ),
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text()
    | st.sampled_from(["", "eu", 7, 0.0, -0.0])
    | st.just({"a": [1, None]}),
    max_size=7,
)


@pytest.mark.parametrize("plans", PLANS.values(), ids=PLANS)
@given(FIELDS)
@settings(max_examples=100, deadline=None)
def test_a_line_that_is_packed_directly_is_what_its_row_is(plans: Plans, fields: dict[str, Any]) -> None:
    packer = LakePacker(plans)
    record = Record("r", LOGGED, fields, src="s", seq=1)
    message = write(record)
    line = read_line(message, record.tag)
    assert isinstance(line, dict)

    for _ in range(2):  # what was remembered of the first changes nothing
        packed = packer.pack_line(dict(line), message, GROUP)
        assert packed is None or packed == packer.pack(row(record, GROUP, plans))


@pytest.mark.parametrize("plans", PLANS.values(), ids=PLANS)
@given(FIELDS)
@settings(max_examples=100, deadline=None)
def test_a_packed_row_has_every_value_of_the_row_once(plans: Plans, fields: dict[str, Any]) -> None:
    made = row(Record("r", LOGGED, fields), GROUP, plans)
    packed = LakePacker(plans).pack(made)

    values = dict(zip(packed.names, packed.values, strict=True)) | json.loads(packed.fields or "{}")
    expected = {name: measure.value for name, measure in made.measures.items() if name not in FIXED}
    others = {name: value for name, value in made.dimensions.items() if name == "region"}
    assert values == expected | others
    assert {name: type(value) for name, value in values.items()} == {
        name: type(value) for name, value in (expected | others).items()
    }
    assert not set(packed.names) & json.loads(packed.fields or "{}").keys()
    common = [made.dimensions.get(name, "") for name in ("source", "route", "method", "client")]
    named = dict(zip(packed.names, packed.values, strict=True))
    assert packed.identity == (
        LOGGED,
        "r",
        digest(named, (packed.fields or "").encode()),
        ("api_request", *common),
    )
    assert packed.version == plans.version


def test_the_usual_line_is_packed_directly() -> None:
    packer = LakePacker(PLANS["the schemas that are shipped"])
    record = Record(
        "r", LOGGED, {"route": "/pets", "status": 200, "duration_ms": 1.5, "beds": 3}, src="s", seq=1
    )
    message = write(record)
    line = read_line(message, record.tag)
    assert isinstance(line, dict)

    packed = packer.pack_line(line, message, GROUP)

    assert packed is not None
    assert dict(zip(packed.names, packed.values, strict=True)) == {"status": 200.0, "duration_ms": 1.5}
    assert packed.fields == '{"beds":3.0}'


def test_names_and_defaults_are_texts_whatever_they_look_like() -> None:
    own = (
        b"revision = 1\n[measures]\n\"it's\" = { type = 'VARCHAR', default = '''it's \"{0}\" \\ \xc3\xa9''' }"
    )
    packer = LakePacker(schema.plans(schema.parse({"api_request.toml": own})))
    fields = {"']) or exit(1)": 1, 'a"{0}b\\': "x", "é{line}": [2], "{": 1.5, "'": True}
    record = Record("r", LOGGED, fields, src="s", seq=1)
    message = write(record)
    line = read_line(message, record.tag)
    assert isinstance(line, dict)

    packed = packer.pack_line(line, message, GROUP)

    assert packed is not None
    assert packed == packer.pack(row(record, GROUP, packer.plans))


def a_packed(identity: str, time: int = LOGGED, size: int = 10) -> FragmentRow:
    made = LakePacker().pack(row(Record(identity, time, {"a": 1}), GROUP, UNDECLARED))
    return made._replace(size=size)


def test_a_batch_is_cut_at_the_hours_of_its_rows() -> None:
    times = [LOGGED + minute * 60_000 for minute in range(0, 300, 7)]
    rows = [(number, a_packed(f"r{number}", time)) for number, time in enumerate(times)]

    requests = list(mapping.cut_at_hours(rows))

    assert [len({each.time // HOUR_MS for _, each in request}) for request in requests] == [1] * len(requests)
    assert len(requests) == len({time // HOUR_MS for time in times})
    assert sorted(number for request in requests for number, _ in request) == list(range(len(rows)))


@pytest.mark.parametrize(
    ("count", "size", "expected"),
    [(MAX_ROWS - 1, 1, 1), (2 * MAX_ROWS + 1, 1, 3), (5, MAX_BYTES // 2, 3), (3, 2 * MAX_BYTES, 3)],
)
def test_an_hour_with_many_rows_or_large_ones_is_cut(count: int, size: int, expected: int) -> None:
    packed = a_packed("r", size=size)

    requests = list(mapping.cut_at_hours((number, packed) for number in range(count)))

    assert len(requests) == expected
    assert [number for request in requests for number, _ in request] == list(range(count))


def test_of_many_hours_the_fullest_goes_first_when_memory_is_used_up() -> None:
    rows = [
        (number, a_packed(f"r{number}", LOGGED + (number % 3 == 0) * HOUR_MS, MAX_BYTES // 8))
        for number in range(9)
    ]

    first, *_ = mapping.cut_at_hours(rows)

    assert {each.time for _, each in first} == {LOGGED}


NUMBERS = st.integers(-(10**30), 10**30) | st.floats(allow_nan=False, allow_infinity=False)
NESTED = st.recursive(
    NUMBERS | st.sampled_from(["8e5f", "1e19", "a"]), lambda inner: st.lists(inner, max_size=3), max_leaves=4
)


@example({"a": 1, "b_count": 2**63, "c": [], "d": 1})
@example({"a": 1, "b_count": 2, "c": [2**64 + 1], "d": 1})
@example({"a": 1, "b_count": 2, "c": [], "d": [{"e": -(2**66) - 1}]})
@given(st.fixed_dictionaries({"a": NUMBERS, "b_count": NUMBERS, "c": st.lists(NESTED), "d": NESTED}))
@settings(max_examples=200, deadline=None)
def test_numbers_of_any_length_are_packed_directly_as_their_row_has_them(fields: dict[str, Any]) -> None:
    message = write(Record("r", LOGGED, {}, src="s", seq=1)).rstrip()[:-1] + f",{json.dumps(fields)[1:]}"
    line = read_line(message, "usage_record")
    assert isinstance(line, dict)
    packer = LakePacker()

    packed = packer.pack_line(dict(line), message, GROUP)

    record = record_of(line, LogEvent("e", LOGGED, message, GROUP, "s", "1"))
    assert packed is None or packed == packer.pack(row(record, GROUP, UNDECLARED))


@pytest.mark.parametrize("number", [0, -1.5, 10**17, -(2**63), 2**64 - 1, 1e300, 5e-324])
def test_numbers_of_64_bits_need_no_row(number: float) -> None:
    message = write(Record("r", LOGGED, {"a": number, "b": {"c": number}}, src="s", seq=1))
    line = read_line(message, "usage_record")
    assert isinstance(line, dict)

    assert LakePacker().pack_line(line, message, GROUP) is not None
