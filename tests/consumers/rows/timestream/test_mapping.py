"""A row becomes a Timestream record of a bounded size at a point of its own."""

import copy
import json
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from tagline import Record

from consumers.lines.extract import read_line, record_of
from consumers.lines.subscription import LogEvent
from consumers.rows.ordinary import MAX_KNOWN
from consumers.rows.table import (
    OFFSETS,
    REVISION,
    UNDECLARED,
    Declared,
    Dimension,
    Limit,
    Measure,
    Plan,
    Plans,
    Row,
    UnmappableError,
    offset,
    row,
)
from consumers.rows.timestream.limits import MAX_RECORD_BYTES, MAX_RECORDS
from consumers.rows.timestream.mapping import (
    WINDOW,
    PackedRecord,
    RecordPacker,
    body,
    fit,
    fits,
    requests,
)
from tests.builders import GROUP
from tests.twins import merged

TIME = 1_431_857_103_000
KEY = "overflow/2015-05-17/" + "0" * 32 + ".json"


def made(**fields: Any) -> Row:
    return row(Record(id="r1", timestamp=TIME, fields=fields), "/aws/lambda/orders", UNDECLARED)


PACKER = RecordPacker()
pack = PACKER.record


def shortened(row: Row) -> Row:
    """Return the row as it is sent."""
    return row if fits(row, pack(row)) else fit(row, KEY)


def wire(row: Row, attempt: int = 0) -> dict[str, Any]:
    """Return a row as Timestream gets it, in a request of its own."""
    packed = pack(row)
    (record,) = merged(json.loads(body("d", "t", [(packed, packed.time_ns(attempt))])))
    return record


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

    assert shortened(whole) is whole
    assert size(wire(whole, 0)) == MAX_RECORD_BYTES
    short = shortened(over)
    assert short.measures["_overflow"].value == KEY
    assert str(short.measures["body"].value) == "x" * (room - len("_overflow") - len(KEY))


def test_short_values_survive_a_long_one() -> None:
    short = shortened(made(body="é" * 5_000, note="kept", status=200, agent="a" * 300))

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
    short = shortened(whole)

    assert size(wire(short, 0)) <= MAX_RECORD_BYTES
    assert short.measures["_id"].value == "r1"
    assert short is whole or short.measures["_overflow"].value == KEY
    assert all(item["Value"] for item in wire(short, 0)["MeasureValues"])
    kept = short.measures.keys() & whole.measures.keys()
    assert {name: short.measures[name].type for name in kept} == {
        name: whole.measures[name].type for name in kept
    }


@pytest.mark.parametrize("value", ["r" * 301, "é" * 151])
def test_a_long_dimension_is_cut_and_the_record_is_kept_whole(value: str) -> None:
    short = shortened(made()._replace(dimensions={"route": value}))

    assert len(short.dimensions["route"].encode()) <= 300
    assert short.measures["_overflow"] == Measure("VARCHAR", KEY)


SAID: dict[str, Callable[[str], Any]] = {
    "VARCHAR": str,
    "DOUBLE": float,
    "BIGINT": int,
    "BOOLEAN": {"true": True, "false": False}.__getitem__,
}
TEXT = st.text(st.characters(exclude_categories=["Cs"]))
ROWS = st.builds(
    Row,
    id=TEXT,
    time=st.integers(0, 2**41),
    type=st.sampled_from(["api_request", "job"]),
    dimensions=st.dictionaries(
        st.sampled_from(["source", "route", "client"]), st.sampled_from('ab"é'), max_size=3
    ),
    measures=st.dictionaries(
        TEXT,
        st.builds(Measure, st.just("VARCHAR"), TEXT)
        | st.builds(Measure, st.just("DOUBLE"), st.floats(allow_nan=False, allow_infinity=False))
        | st.builds(Measure, st.just("BIGINT"), st.integers(-(2**63), 2**63 - 1))
        | st.builds(Measure, st.just("BOOLEAN"), st.booleans()),
        max_size=4,
    ),
    version=st.integers(1, 2),
)


@given(st.lists(ROWS, min_size=1, max_size=6))
def test_what_a_request_says_once_for_all_changes_nothing_of_what_is_stored(rows: list[Row]) -> None:
    request = json.loads(body("d", "t", [(pack(each), pack(each).time_ns(0)) for each in rows]))

    assert (request["DatabaseName"], request["TableName"]) == ("d", "t")
    for each, record in zip(rows, merged(request), strict=True):
        assert {item["Name"]: item["Value"] for item in record["Dimensions"]} == each.dimensions
        assert (record["MeasureName"], record["Version"]) == (each.type, each.version)
        assert (record["MeasureValueType"], record["TimeUnit"]) == ("MULTI", "NANOSECONDS")
        assert int(record["Time"]) == each.time * OFFSETS + offset(each.id, 0)
        assert [
            (item["Name"], Measure(item["Type"], SAID[item["Type"]](item["Value"])))
            for item in record["MeasureValues"]
        ] == list(each.measures.items())


@given(st.lists(ROWS, min_size=1, max_size=6))
def test_packing_tells_a_size_that_is_no_less_than_that_of_names_and_values(rows: list[Row]) -> None:
    for each in rows:
        assert pack(each).size >= size(wire(each))


def test_a_packer_that_has_seen_more_shapes_than_it_remembers_packs_the_same() -> None:
    fresh = made(status=1, ok=True)
    packer = RecordPacker()
    before = packer.record(fresh)
    for number in range(1_001):
        packer.record(made(**{f"x{number}": 1}))

    assert packer.record(fresh) == before


def test_a_request_says_once_what_its_records_share() -> None:
    made_rows = [
        pack(made(route=route, method="GET", status=status)) for route, status in (("/a", 1), ("/b", 2))
    ]
    request = json.loads(body("d", "t", [(packed, packed.time_ns(0)) for packed in made_rows]))

    assert request["CommonAttributes"] == {
        "MeasureValueType": "MULTI",
        "TimeUnit": "NANOSECONDS",
        "MeasureName": "api_request",
        "Version": REVISION,
        "Dimensions": [
            {"Name": "source", "Value": "/aws/lambda/orders"},
            {"Name": "method", "Value": "GET"},
        ],
    }
    for record, route in zip(request["Records"], ("/a", "/b"), strict=True):
        assert set(record) == {"Dimensions", "Time", "MeasureValues"}
        assert record["Dimensions"] == [{"Name": "route", "Value": route}]


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(1, 90)), max_size=60))
def test_requests_are_full_and_every_row_is_in_one(runs: list[tuple[int, int]]) -> None:
    rows = [
        (position, pack(Row("r", 0, "t", {"source": str(group)}, {})))
        for position, group in enumerate(group for group, times in runs for _ in range(times))
    ]
    taken = 0

    def counted() -> Any:
        nonlocal taken
        for item in rows:
            taken += 1
            yield item

    given_back: list[int] = []
    sizes: list[int] = []
    for batch in requests(counted()):
        sizes.append(len(batch))
        assert taken - len(given_back) <= WINDOW  # no more than that wait
        given_back += [position for position, _ in batch]

    assert sorted(given_back) == list(range(len(rows)))
    assert len(sizes) == -(-len(rows) // MAX_RECORDS)
    assert all(size == MAX_RECORDS for size in sizes[:-1])


def test_as_many_rows_wait_as_a_window_has_and_no_more() -> None:
    taken = 0

    def rows_of_many_kinds() -> Iterator[tuple[None, PackedRecord]]:
        nonlocal taken
        for number in range(2 * WINDOW):
            taken += 1
            yield None, pack(Row("r", 0, f"t{number % 50}", {"source": "/g"}, {}))

    when = [taken for _ in requests(rows_of_many_kinds())]

    assert set(when) == {WINDOW, 2 * WINDOW}


def test_rows_of_a_kind_go_together() -> None:
    rows = [(None, pack(Row("r", 0, "t", {"source": str(number % 4)}, {}))) for number in range(400)]

    sources = [Counter(dict(packed.dimensions)["source"] for _, packed in batch) for batch in requests(rows)]

    assert sources == [{"0": 100}, {"1": 100}, {"2": 100}, {"3": 100}]


# --- Lines without a row between ---------------------------------------------------------------------------

TAG = "usage_record"
DECLARED = Plans(
    {
        "order": Plan(
            {"tenant": Dimension("tenant", "tenant", 40, Limit(frozenset(["acme", "beta-*"])))},
            {
                "pets": Declared("pets", "BIGINT", Measure("BIGINT", -1)),
                "open": Declared("open", "BOOLEAN", Measure("BOOLEAN", False)),
                "note": Declared("note", "VARCHAR"),
                "price": Declared("price", "DOUBLE"),
            },
            columns={"size": "DOUBLE", "flag": "BOOLEAN", "words": "VARCHAR", "pieces": "BIGINT"},
            dimensions_elsewhere=frozenset(["queue"]),
            lenient=True,
        ),
        "sparse": Plan(measures={"price": Declared("price", "DOUBLE")}, extra=True),
    },
    revisions=3,
)
# One of each for all examples: what a line leaves behind must not show in the next.
PACKERS = {plans: RecordPacker(plans) for plans in (UNDECLARED, DECLARED)}

NAMES = st.sampled_from(
    [
        *["route", "method", "client", "tenant", "queue", "pets", "open", "note", "price", "size", "flag"],
        *["words", "pieces", "status", "item_count", "two words", "day", "time", "ts_a", "_own", "tail_", ""],
        *["level_", "n" * 300, "\ud83d\ude00", "_aws", "_trunc", "_seqx"],
    ]
) | st.text(max_size=3)
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-300, 300)
    | st.integers(-(2**70), 2**70)
    | st.sampled_from([10**15 - 1, 10**15, 10**18, 2**63, 2**64, 10**400])
    | st.floats()
    | st.sampled_from([0.0, -0.0, 1e-5, 1e15, 1e16, 123456.75, 5e-324])
    | st.text(max_size=8)
    | st.sampled_from(["", "acme", "beta-7", "null", "a" * 400, "\ud800", '"\\\n\x00\x7f'])
)
VALUES = LEAVES | st.lists(LEAVES, max_size=2) | st.dictionaries(st.text(max_size=2), LEAVES, max_size=2)
PLAIN_VALUES = st.none() | st.integers(0, 9) | st.just(-0.0) | st.floats(-1, 1) | st.booleans() | st.just("a")
HEADS = st.fixed_dictionaries(
    {
        "_tag": st.just(TAG),
        "timestamp": st.sampled_from(["2026-11-20T10:00:00.123Z", "2026-11-21T10:00:00.000Z", "now", None]),
        "level": st.sampled_from(["INFO", 3]),
        "_type": st.sampled_from(["order", "sparse", "api_request", "two words", "t" * 300]),
        "_id": st.sampled_from(["r1", "1234567890123456789", "\u00e9", "i" * 200, "i" * 201]),
        "_src": st.sampled_from(["s1", None]),
        "_seq": st.sampled_from([7, True, None]),
    }
)
# Most are as the emitter writes them, so that not all examples are unusual.
USUAL = {
    "_tag": TAG,
    "timestamp": "2026-11-20T10:00:00.123Z",
    "level": "INFO",
    "_type": "order",
    "_id": "r1",
    "_src": "s1",
    "_seq": 7,
}


def packed_by_its_row(
    line: dict[str, Any], message: str, plans: Plans, source: str = GROUP
) -> PackedRecord | None:
    """Return what the row says of a line, or None if it says more than a record that is sent as it is."""
    record = record_of(copy.deepcopy(line), LogEvent("e1", TIME, message, source, "stream", "1"))
    try:
        made = row(record, source, plans)
    except UnmappableError:
        return None
    packed = RecordPacker().record(made)
    return packed if fits(made, packed) and not made.not_numbers + made.extra + made.others else None


@given(
    st.just(USUAL)
    | st.sampled_from(["order", "sparse"]).map(lambda kind: {**USUAL, "_type": kind})
    | HEADS
    # Other loggers say some of it, or none but the tag.
    | st.tuples(HEADS, st.sets(st.sampled_from(sorted({*USUAL} - {"_tag"})))).map(
        lambda drawn: {name: value for name, value in drawn[0].items() if name not in drawn[1]}
    ),
    st.dictionaries(NAMES, VALUES, max_size=6) | st.dictionaries(NAMES, PLAIN_VALUES, max_size=4),
    st.sampled_from([UNDECLARED, DECLARED]),
    # A log group's name may have 512 characters, and a dimension has room for fewer.
    st.sampled_from([GROUP, "g" * 301, "\u00e9" * 160]),
)
def test_a_line_is_packed_as_its_row_is(
    head: dict[str, Any], fields: dict[str, Any], plans: Plans, source: str
) -> None:
    message = json.dumps(head | {name: value for name, value in fields.items() if name not in head})
    line = read_line(message, TAG)
    assume(isinstance(line, dict))
    assert isinstance(line, dict)

    packed = PACKERS[plans].pack_line(copy.deepcopy(line), message, source)

    assert packed is None or packed == packed_by_its_row(line, message, plans, source)


@pytest.mark.parametrize(
    "fields",
    [
        {"note": "x"},
        {"route": "/pets", "method": "GET", "client": "acme", "status": 200, "latency_ms": 1.25, "ok": True},
        {"pets": 3, "open": True, "tenant": "acme", "price": 2},
        {"error": None, "status": 200, "plan": {"name": "gold"}, "tags": ["a", 1, None]},
        {"_aws": {"Timestamp": TIME, "CloudWatchMetrics": []}, "status": 200, "\u00e9": "\u00e9"},
    ],
)
@pytest.mark.parametrize("plans", [UNDECLARED, DECLARED], ids=["undeclared", "declared"])
def test_the_lines_that_nearly_all_are_need_no_row(fields: dict[str, Any], plans: Plans) -> None:
    message = json.dumps(USUAL | fields)
    line = json.loads(message)

    packed = PACKERS[plans].pack_line(dict(line), message, GROUP)

    assert packed is not None
    assert packed == packed_by_its_row(line, message, plans)


def test_a_null_among_lines_that_had_none_is_a_measure_less() -> None:
    packer = RecordPacker()
    lines = [USUAL | {"status": 200, "error": error} for error in ("timeout", None, "timeout", None, None)]

    packed = [packer.pack_line(dict(line), "", GROUP) for line in lines]

    rows = [packed_by_its_row(line, "", UNDECLARED) for line in lines]
    assert packed == [rows[0], None, *rows[2:]]


# What orjson makes a float of, wherever it is: https://github.com/ijl/orjson#int
@pytest.mark.parametrize(
    "fields",
    [
        {"client": 2**64},
        {"client": -(2**63) - 1},
        {"plan": {"seats": 2**64}},
        {"plan": [{"seats": [-(10**40)]}]},
        {"seats": 2**64},
    ],
)
def test_a_line_with_a_whole_number_beyond_64_bits_is_unusual(fields: dict[str, Any]) -> None:
    message = json.dumps(USUAL | {"status": 200} | fields)
    line = read_line(message, TAG)

    assert isinstance(line, dict)
    assert RecordPacker().pack_line(line, message, GROUP) is None


@pytest.mark.parametrize("size", range(1_600, 2_000, 8))
def test_a_line_is_packed_as_its_row_is_up_to_the_limit(size: int) -> None:
    line = USUAL | {"route": "r" * 75, "note": "n" * size, "status": 200}

    packed = PACKERS[UNDECLARED].pack_line(dict(line), "", GROUP)

    assert packed is None or packed == packed_by_its_row(line, "", UNDECLARED)
    assert packed is not None or size > 1_800


def test_lines_of_different_days_say_their_own() -> None:
    for day in ("2026-11-20", "2026-11-21", "2026-11-20", "1970-01-01", "2262-04-10"):
        line = USUAL | {"timestamp": f"{day}T00:00:00.000Z", "status": 200}

        packed = PACKERS[UNDECLARED].pack_line(dict(line), "", GROUP)

        assert packed is not None
        assert packed == packed_by_its_row(line, "", UNDECLARED)


@pytest.mark.parametrize("day", ["0001-01-01", "1969-12-31", "2262-04-11", "9999-12-31"])
def test_a_line_of_a_day_that_no_store_can_hold_is_unusual(day: str) -> None:
    line = USUAL | {"timestamp": f"{day}T00:00:00.000Z", "status": 200}

    assert PACKERS[UNDECLARED].pack_line(line, "", GROUP) is None


def test_a_line_of_more_fields_than_a_record_has_measures_is_unusual() -> None:
    fields = {f"f{number}": 1 for number in range(UNDECLARED.of("order")[1].room + 1)}

    assert packed_by_its_row(USUAL | fields, "", UNDECLARED) is None
    assert PACKERS[UNDECLARED].pack_line(USUAL | fields, "", GROUP) is None


@pytest.mark.parametrize("number", [{"_seq": True}, {"_seq": "7"}, {"_src": 1}, {"_src": None}])
def test_a_line_without_a_number_is_unusual(number: dict[str, Any]) -> None:
    assert PACKERS[UNDECLARED].pack_line(USUAL | {"status": 200} | number, "", GROUP) is None


@pytest.mark.parametrize("name", ["field{}", "client"], ids=["columns", "dimensions"])
def test_what_is_remembered_of_lines_takes_no_more_memory_after_many_of_them(name: str) -> None:
    packer = RecordPacker()

    def memory_after(numbers: range) -> int:
        for number in numbers:
            line = USUAL | {"status": 200, name.format(number): f"value {number}"}
            assert packer.pack_line(line, json.dumps(line), GROUP) is not None
        memory, _ = tracemalloc.get_traced_memory()
        return memory - before

    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        full = memory_after(range(MAX_KNOWN))
        assert memory_after(range(MAX_KNOWN, 4 * MAX_KNOWN)) < 1.5 * full
    finally:
        tracemalloc.stop()
