"""The line, and how records are collected."""

import ast
import json
import os
import pickle
import subprocess
import sys
from collections import OrderedDict, deque
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any, NamedTuple
from uuid import UUID

import numpy as np
import pydantic
import pytest
import tagline
from hypothesis import given, settings
from hypothesis import strategies as st
from onemachine.functions.definition import APPLICATION_LEVELS
from onemachine.functions.log_stream import _LEVELS, _level_of_line
from tagline import MAX_DEPTH, MAX_REPR, Emitter, Privacy, Record, UnreadableLineError, read, write

from tests.emitter.lines import NOW, Lines

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)
names = st.text() | st.sampled_from(["timestamp", "timestamp_", "level", "level__", "_id", "_", "__", "_x_"])
records = st.builds(
    Record,
    id=st.text(min_size=1),
    timestamp=st.integers(-62_135_596_800_000, 253_402_300_799_999),
    fields=st.dictionaries(names, json_values, max_size=6),
    type=st.text(min_size=1),
    tag=st.text(min_size=1),
    level=st.sampled_from(["INFO", "WARN", "ERROR"]),
    src=st.none() | st.text(),
    seq=st.none() | st.integers(0, 2**63),
    trunc=st.lists(st.text(), max_size=3).map(tuple),
)


@given(records)
def test_what_is_written_is_read_back(record: Record) -> None:
    line = write(record)

    assert read(line) == record
    assert line.isascii()
    assert "\n" not in line


class Hostile:
    def __repr__(self) -> str:
        raise RuntimeError("no text for you")

    __str__ = __repr__
    __hash__ = None  # type: ignore[assignment]  # not even a key


@dataclass
class Item:
    name: str


@dataclass
class Knot:
    others: list["Knot"]


class Size(Enum):
    LARGE = "L"


class Level(IntEnum):
    HIGH = 3


class Point(NamedTuple):
    x: int
    y: int


class Panic(BaseException):
    """Not an Exception, as a panic in an extension in Rust."""


class Panicking:
    def __str__(self) -> str:
        raise Panic

    __repr__ = __str__


class Proxy:
    """What stands for nothing outside of a request, as werkzeug's proxies."""

    @property  # type: ignore[misc]  # proxies do so
    def __class__(self) -> type:
        raise RuntimeError("outside of a request")


class NoItems(dict[str, int]):
    def items(self) -> Any:
        raise RuntimeError("no items")


class NoIter(dict[str, int]):
    def __iter__(self) -> Any:
        raise RuntimeError("no names")

    keys = __iter__


class NoLength(list[int]):
    def __len__(self) -> int:
        raise RuntimeError("no length")

    __iter__ = __len__  # type: ignore[assignment]  # nor anything in it


class Name(str):
    """A name that does not want to be looked at."""

    __slots__ = ()

    def __hash__(self) -> int:
        return hash("route")

    def startswith(self, *_args: Any) -> bool:
        raise RuntimeError("not to be looked at")

    rstrip = lower = startswith  # type: ignore[assignment]


class Number(int):
    def __add__(self, other: object) -> int:
        raise RuntimeError("not to be reckoned with")

    __abs__ = __le__ = __ge__ = __add__  # type: ignore[assignment]


class Chain:
    """A link of a chain without an end."""

    def model_dump(self) -> Any:
        return Chain()


hostile = st.sampled_from(
    [Panicking, lambda: NoItems(a=1), lambda: NoLength([1]), lambda: Number(7), Chain]
).map(lambda make: make())


class Celsius(float):
    """A number of a class of its own."""


class Pet(pydantic.BaseModel):
    name: str
    born: date


def endless() -> list[Any]:
    loop: list[Any] = []
    loop.append([loop, {"loop": loop}])
    return loop


def deep() -> list[Any]:
    nested: list[Any] = []
    for _ in range(10_000):
        nested = [nested]
    return nested


anything = st.recursive(
    json_values
    | st.floats()
    | st.binary()
    | st.datetimes()
    | st.decimals()
    | st.uuids()
    | st.complex_numbers()
    | st.builds(Item, st.text())
    | st.builds(Hostile)
    | hostile
    | st.builds(endless)
    | st.builds(deep)
    | st.characters(categories=["Cs"])
    | st.integers(10**5000, 10**5001)
    | st.builds(Point, st.integers(), st.integers())
    | st.builds(Celsius, st.floats())
    | st.builds(np.float64, st.floats())
    | st.builds(OrderedDict, st.dictionaries(st.text(), st.integers(), max_size=2))
    | st.sampled_from([Size.LARGE, Level.HIGH]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text() | st.integers() | st.binary() | st.just(Name("x")), inner, max_size=3)
        | st.tuples(inner, inner)
        | st.frozensets(st.text() | st.binary(), max_size=3)
    ),
    max_leaves=8,
)


@given(
    st.dictionaries(st.text() | st.integers() | st.none(), anything, max_size=5),
    st.sampled_from([1_000, 1_200, 200_000]),
)
@settings(max_examples=200, deadline=None)
def test_any_fields_make_exactly_one_readable_line_within_its_budget(
    fields: dict[Any, Any], budget: int
) -> None:
    lines = Lines()

    Emitter(stream=lines, max_line_bytes=budget).emit(fields)

    assert lines.writes == 1
    assert len(lines.records) == 1
    assert len(lines.getvalue()) <= budget + 1
    assert lines.getvalue().isascii()


NOTHING_MASKED = Privacy(mask=())


@given(st.dictionaries(names, json_values, max_size=6))
def test_what_is_emitted_is_read_back(fields: dict[str, Any]) -> None:
    lines = Lines()

    Emitter(stream=lines, privacy=NOTHING_MASKED).emit(fields)

    assert lines.fields == fields


long_names = st.none() | st.text(max_size=2_000) | st.text("é\U0001f43e", min_size=100, max_size=300)


@given(
    st.dictionaries(st.text(max_size=50), json_values | st.text(min_size=500), max_size=30),
    st.fixed_dictionaries({"id": long_names, "type": long_names, "tag": long_names}),
)
@settings(deadline=None)
def test_a_line_never_exceeds_its_budget(fields: dict[str, Any], named: dict[str, str | None]) -> None:
    lines = Lines()
    how: dict[str, Any] = named

    Emitter(stream=lines, max_line_bytes=1_000, privacy=NOTHING_MASKED).emit(fields, **how)

    assert len(lines.getvalue()) <= 1_001
    (record,) = lines.records
    assert record.trunc or record.fields == fields


def test_names_that_are_too_long_stay_different_and_the_same_for_every_copy(
    emitter: Emitter, lines: Lines
) -> None:
    for end in ("a", "b", "a"):
        emitter.emit(id="x" * 5_000 + end)
    emitter.emit(id="y" * 200)

    first, other, again, longest = (record.id for record in lines.records)
    assert first == again != other
    assert (first[:100], longest) == ("x" * 100, "y" * 200)
    assert len(first) <= 200


@pytest.mark.parametrize("budget", [0, 999, 262_119])
def test_a_budget_that_holds_no_record_or_is_cut_by_lambda_is_refused(budget: int) -> None:
    with pytest.raises(ValueError, match=f"max_line_bytes is {budget}; choose 1000 to 262118"):
        Emitter(max_line_bytes=budget)


def test_only_the_largest_values_are_shortened_and_named() -> None:
    lines = Lines()

    Emitter(stream=lines, max_line_bytes=2_000).emit(
        {"small": "x", "body": "é" * 5_000, "items": [1] * 2_000}
    )

    (record,) = lines.records
    assert record.trunc == ("body", "items")
    assert record.fields["small"] == "x"
    assert set(record.fields["body"]) == {"é"}
    assert record.fields["items"].startswith("[1,1,")


def test_too_many_names_leave_a_record_that_says_so() -> None:
    lines = Lines()

    Emitter(stream=lines, max_line_bytes=2_000).emit({f"field{n}": n for n in range(1_000)})

    (record,) = lines.records
    assert (dict(record.fields), record.trunc) == ({}, ("*",))


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (float("nan"), None),
        (float("-inf"), None),
        (b"caf\xc3\xa9 \xff", "café \\xff"),
        ({"a"}, ["a"]),
        (deque(["a"]), ["a"]),
        (Decimal("1.50"), 1.5),
        (Decimal(3), 3),
        (Decimal("3.00"), 3),
        (Decimal(12345678901234567890123456789012345678), 12345678901234567890123456789012345678),
        (Decimal("NaN"), None),
        (Decimal("-Infinity"), None),
        (Decimal("1E+999999999"), None),  # beyond all floats
        (UUID(int=7), "00000000-0000-0000-0000-000000000007"),
        (Size.LARGE, "L"),
        (Level.HIGH, 3),
        ({"size": Size.LARGE}, {"size": "L"}),
        (Point(1, 2), [1, 2]),
        (timedelta(hours=1), "1:00:00"),
        (date(2025, 11, 20), "2025-11-20"),
        (PurePosixPath("/tmp"), "/tmp"),
        (ValueError("no"), "no"),
        (MappingProxyType({"a": {"b"}}), {"a": ["b"]}),
        (memoryview(b"abc"), "abc"),
        (range(3), "range(0, 3)"),
        (Item, f"<class '{Item.__module__}.Item'>"),
        ([Item("x"), {"y": Item("y")}], [{"name": "x"}, {"y": {"name": "y"}}]),
        (Pet(name="Tom", born=date(2020, 1, 2)), {"name": "Tom", "born": "2020-01-02"}),
        (np.float64(1.5), 1.5),
        (np.float32("nan"), None),
        (np.int64(7), 7),
        (np.bool_(True), True),
        (np.array([[1, 2], [3, 4]]), [[1, 2], [3, 4]]),
        (10**30, 10**30),
        pytest.param(10**5000, "<int>", id="huge"),
        (endless(), [["<list>", {"loop": "<list>"}]]),
        ("\ud800", "\ud800"),
        (object, "<class 'object'>"),
        (lambda: 1, lambda said: said.startswith("<function")),
        ((1, 2), [1, 2]),
        (datetime(2025, 11, 20, 10, tzinfo=UTC), "2025-11-20T10:00:00+00:00"),
        (Item("x"), {"name": "x"}),
        (Hostile(), "<Hostile>"),
        pytest.param(Panicking(), "<Panicking>", id="panics"),
        pytest.param(Proxy(), "<Proxy>", id="proxy"),
        pytest.param(NoItems(a=1), {"a": 1}, id="no items"),
        pytest.param([NoIter(a=1)], ["<NoIter>"], id="no iter"),
        pytest.param([NoLength([1]), 2], ["<NoLength>", 2], id="no length"),
        pytest.param(Chain(), "<Chain>", id="chain"),
        ({Name("a"): 1}, {"a": 1}),
        (Number(7), 7),
        ({1: "a", "1": "b"}, {"1": "b"}),
        ({1: "a", None: "b"}, {"1": "a", "None": "b"}),
        ("two\nlines", "two\nlines"),
    ],
)
def test_values_that_json_cannot_say_degrade(value: Any, said: Any, emitter: Emitter, lines: Lines) -> None:
    emitter.emit({"value": value})

    fields = lines.fields
    assert said(fields["value"]) if callable(said) else fields == {"value": said}


@pytest.mark.parametrize("beside", [1, float("nan")], ids=["beside a number", "beside a NaN"])
def test_lists_and_objects_are_cut_below_the_same_depth_whatever_stands_beside_them(
    beside: float, emitter: Emitter, lines: Lines
) -> None:
    emitter.emit({"fits": nested(MAX_DEPTH, "in"), "deep": nested(MAX_DEPTH + 1, "in"), "beside": beside})

    assert lines.fields["fits"] == nested(MAX_DEPTH, "in")
    assert lines.fields["deep"] == nested(MAX_DEPTH, "<list>")


def nested(depth: int, inside: Any) -> Any:
    """Return something inside of so many lists."""
    for _ in range(depth):
        inside = [inside]
    return inside


@pytest.mark.parametrize("beside", [float("nan"), Hostile()], ids=["a NaN", "an object that fails"])
def test_an_object_is_no_deeper_than_what_it_becomes(beside: Any, emitter: Emitter, lines: Lines) -> None:
    """Each of these is one level of the line, whatever made it."""
    objects: Any = "in"
    for _ in range(MAX_DEPTH):
        objects = Item(objects)
    emitter.emit({"objects": objects, "beside": beside})

    said = lines.fields["objects"]
    for _ in range(MAX_DEPTH):
        said = said["name"]
    assert said == "in"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (7, {"fields": 7}),
        ("text", {"fields": "text"}),
        ([1], {"fields": [1]}),
        (np.array([1, 2]), {"fields": [1, 2]}),
        (NoIter(a=1), {"fields": "<NoIter>"}),
        ([("a", 1)], {"a": 1}),
        ({Name("a"): 1, "route": "/"}, {"a": 1, "route": "/"}),
        (None, {}),
    ],
    ids=repr,
)
def test_fields_that_are_no_mapping_cost_no_record(
    fields: Any, said: Any, emitter: Emitter, lines: Lines
) -> None:
    emitter.emit(fields)
    with emitter.record(fields):
        pass
    with emitter.record():
        tagline.add(fields)
    with emitter.record():
        tagline.add_copy(fields)
    emitter.begin().end(fields)

    assert [
        {name: value for name, value in record.fields.items() if name != "duration_ms"}
        for record in lines.records
    ] == [said] * 5


@pytest.mark.parametrize("raised", [KeyboardInterrupt, SystemExit])
def test_what_is_said_to_the_process_while_an_object_is_asked_goes_on(
    raised: type[BaseException], emitter: Emitter
) -> None:
    class Interrupted:
        def __str__(self) -> str:
            raise raised

    with pytest.raises(raised):
        emitter.emit({"value": Interrupted()})


def test_numbers_of_more_digits_than_the_interpreter_is_set_to_cost_no_record(
    emitter: Emitter, lines: Lines
) -> None:
    """https://docs.python.org/3/library/stdtypes.html#integer-string-conversion-length-limitation."""
    before = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(640)
    try:
        emitter.emit({"digits": 10**1000, "route": "/"})
    finally:
        sys.set_int_max_str_digits(before)

    assert lines.fields == {"digits": "<int>", "route": "/"}


DEEPER_THAN_THE_STACK = """
import sys
from tagline import Emitter, Privacy, Record, write

sys.setrecursionlimit(1_000_000)
circle, deep = [], []
circle.append(circle)
for _ in range(100_000):
    deep = [deep]
emitter = Emitter(privacy=Privacy(pseudonyms=["client"], key=b"a key of 16 bytes"))
for value in (circle, {"inner": deep}, "token=x".join(["[" * 100_000, ""])):
    emitter.emit({"value": value, "client": value, "number": 1})
print(write(Record(id="x", timestamp=0, fields={"circle": circle})))
import os
os._exit(0)  # to free what is so deep takes as deep a stack
"""


def test_a_cycle_ends_no_process_that_may_recurse_deeper_than_its_stack() -> None:
    done = subprocess.run(
        [sys.executable, "-uc", DEEPER_THAN_THE_STACK],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(Path(tagline.__file__).parents[1])},
    )

    assert len([read(line) for line in done.stdout.splitlines()]) == 4


def test_an_object_that_says_much_is_cut(emitter: Emitter, lines: Lines) -> None:
    emitter.emit({"error": ValueError("x" * 5_000)})

    assert lines.fields["error"] == "x" * MAX_REPR


def test_objects_that_refer_to_each_other_end(emitter: Emitter, lines: Lines) -> None:
    clique = [Knot([]) for _ in range(12)]
    for knot in clique:
        knot.others.extend(clique)

    emitter.emit({"knot": clique[0]})

    assert lines.writes == 1
    assert len(lines.getvalue()) <= 200_001


def test_fields_that_a_thread_changes_meanwhile_are_still_one_line(emitter: Emitter, lines: Lines) -> None:
    class Growing:
        def __str__(self) -> str:
            fields[f"more{len(fields)}"] = 1
            return "grown"

    fields: dict[str, Any] = {f"field{number}": Growing() for number in range(3)}
    emitter.emit(fields)

    assert lines.fields["field0"] == "grown"


def test_the_tag_is_the_first_key_and_the_format_keys_come_before_the_users(
    emitter: Emitter, lines: Lines
) -> None:
    emitter.emit({"route": "/pets"})

    assert list(json.loads(lines.getvalue())) == [
        *("_tag", "timestamp", "level", "_type", "_id", "_src", "_seq"),
        "route",
    ]


def test_a_users_field_never_replaces_one_of_the_formats(emitter: Emitter, lines: Lines) -> None:
    emitter.emit({"level": "DEBUG", "_tag": "mine", "timestamp": "noon"})

    line = json.loads(lines.getvalue())
    assert line["_tag"] == "usage_record"
    assert line["level"] == "INFO"
    assert {name: line[name] for name in ("level_", "_tag_", "timestamp_")} == {
        "level_": "DEBUG",
        "_tag_": "mine",
        "timestamp_": "noon",
    }


@pytest.mark.parametrize(
    ("given_", "said"),
    [
        (None, NOW),
        (1_500_000_000_001, 1_500_000_000_001),
        (1_500_000_000_000, 1_500_000_000_000),
        (946_684_800_000, 946_684_800_000),  # the year 2000
        (253_402_300_799_999, 253_402_300_799_999),  # the last that RFC 3339 has a form for
        (1_763_632_800.5, 1_763_632_800_500),  # as time.time() gives it
        (-0.001, -1),
        ("2015-05-17T10:05:03Z", 1_431_857_103_000),
        ("2015-05-17T12:05:03.5+02:00", 1_431_857_103_500),
        (datetime(2015, 5, 17, 10, 5, 3), 1_431_857_103_000),  # noqa: DTZ001 - no zone is the case
        (datetime(2015, 5, 17, 12, 5, 3, tzinfo=timezone(timedelta(hours=2))), 1_431_857_103_000),
    ],
)
def test_an_explicit_timestamp_is_the_records_time(
    given_: Any, said: int, emitter: Emitter, lines: Lines
) -> None:
    emitter.emit({}, timestamp=given_)

    assert [record.timestamp for record in lines.records] == [said]


@pytest.mark.parametrize("nonsense", ["yesterday", True, 10**18, 1e300, "9999-99-99", 1_763_632_800, 7, -1])
def test_an_unreadable_timestamp_is_kept_as_a_field_and_the_time_is_now(
    nonsense: Any, emitter: Emitter, lines: Lines
) -> None:
    emitter.emit({}, timestamp=nonsense)

    (record,) = lines.records
    assert record.timestamp == NOW
    assert record.fields == {"timestamp": nonsense}


def test_an_explicit_id_and_type_are_kept_and_otherwise_ids_differ(emitter: Emitter, lines: Lines) -> None:
    emitter.emit({}, id="order-1", type="order")
    emitter.emit({})
    emitter.emit({})

    first, second, third = lines.records
    assert (first.id, first.type) == ("order-1", "order")
    assert second.type == third.type == "api_request"
    assert second.id != third.id


def test_lines_are_numbered_per_emitter(emitter: Emitter, lines: Lines) -> None:
    for _ in range(3):
        emitter.emit()

    assert [record.seq for record in lines.records] == [0, 1, 2]
    assert len({record.src for record in lines.records}) == 1


def test_a_broken_stdout_does_not_reach_the_handler() -> None:
    class Broken:
        def write(self, text: str, /) -> None:  # noqa: ARG002 - stdout's signature
            raise OSError("stdout is gone")

    Emitter(stream=Broken()).emit({"route": "/"})


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch, lines: Lines) -> None:
    monkeypatch.setenv("TAGLINE_TAG", "audit")
    monkeypatch.setenv("TAGLINE_MAX_LINE_BYTES", "1500")
    monkeypatch.setenv("AWS_LAMBDA_LOG_LEVEL", "WARN")

    Emitter(stream=lines).emit({"body": "x" * 5_000})

    (record,) = lines.records
    assert (record.tag, record.level, record.trunc) == ("audit", "WARN", ("body",))
    assert len(lines.getvalue()) <= 1_501


@pytest.mark.parametrize("least", [*APPLICATION_LEVELS, "", "warn", "LOUD"])
@pytest.mark.parametrize("says", ["DEBUG", None])
def test_every_level_filter_lets_the_line_through(
    least: str, says: str | None, monkeypatch: pytest.MonkeyPatch, lines: Lines
) -> None:
    """Lambda's, by https://docs.aws.amazon.com/lambda/latest/dg/monitoring-cloudwatchlogs-log-level.html."""
    monkeypatch.setenv("AWS_LAMBDA_LOG_LEVEL", least)

    Emitter(stream=lines).emit({"level": says} if says else {"route": "/"})

    level = _level_of_line(lines.getvalue().encode())
    assert level is not None
    assert level >= _LEVELS.get(least.upper(), _LEVELS["INFO"])
    assert lines.fields.get("level") == says


@pytest.mark.parametrize(
    ("setting", "function", "budget"),
    [
        (None, "orders", 200_000),
        ("lots", "orders", 200_000),
        ("5000", "orders", 5_000),
        ("0", "orders", 1_000),
        ("500000", "orders", 262_118),  # Lambda cut lines there
        (None, None, 16_000),  # Docker cuts there
        ("200000", None, 200_000),
    ],
)
def test_the_budget_is_a_setting_that_cannot_leave_its_limits(
    setting: str | None, function: str | None, budget: int, monkeypatch: pytest.MonkeyPatch, lines: Lines
) -> None:
    for name, value in (("TAGLINE_MAX_LINE_BYTES", setting), ("AWS_LAMBDA_FUNCTION_NAME", function)):
        if value is not None:
            monkeypatch.setenv(name, value)

    Emitter(stream=lines).emit({"body": "x" * 500_000})

    assert budget - 20 < len(lines.getvalue()) - 1 <= budget


def test_lines_go_to_whatever_stdout_is_at_the_time(capsys: pytest.CaptureFixture[str]) -> None:
    Emitter().emit({"route": "/"})

    assert read(capsys.readouterr().out).fields == {"route": "/"}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("", "not JSON"),
        ('{"_tag":"usage_record"', "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[1]", "a JSON list, not an object"),
        ('{"timestamp":"2025-11-20T10:00:00.000Z","_id":"x"}', "_tag is None"),
        ('{"_tag":"t","timestamp":"2025-11-20T10:00:00.000Z"}', "_id is ''"),
        ('{"_tag":"t","timestamp":"2025-11-20T10:00:00.000Z","_id":7}', "_id is 7"),
        ('{"_tag":"t","_id":"x","timestamp":"noon"}', "timestamp is 'noon', not RFC 3339"),
        ('{"_tag":"t","_id":"x","timestamp":"2025-11-20T10:00:00Z","_type":""}', "_type is ''"),
    ],
)
def test_a_line_that_cannot_be_read_is_refused_with_the_reason(line: str, reason: str) -> None:
    with pytest.raises(UnreadableLineError, match=reason.replace("[", r"\[").replace("?", r"\?")):
        read(line)


def test_keys_of_a_later_format_are_left_out() -> None:
    record = Record(id="x", timestamp=NOW, fields={"route": "/"})

    assert read(write(record)[:-1] + ',"_later":1}') == record


def test_the_newest_default_of_a_missing_id_and_time_is_used() -> None:
    record = Record.from_json({"_tag": "t", "a": 1}, default_id="event-1", default_timestamp=NOW)

    assert record == Record(id="event-1", timestamp=NOW, tag="t", fields={"a": 1})


ADDED = """
import sys
import awslambdaric.bootstrap

before = set(sys.modules)
import tagline

emitter = tagline.Emitter()


@emitter.handler
def handler(event, context):
    tagline.add(items=3)


handler({}, None)
print(sorted(name for name in set(sys.modules) - before if name.partition(".")[0] != "tagline"))
"""


def test_nothing_is_imported_that_lambdas_runtime_has_not_imported_but_contextvars() -> None:
    """Not even to write a record. Values that need more (a time to parse, an id too long) import it then."""
    pytest.importorskip("awslambdaric")
    done = subprocess.run(
        [sys.executable, "-c", ADDED],
        capture_output=True,
        text=True,
        check=True,
        env={
            **os.environ,
            "PYTHONPATH": str(Path(tagline.__file__).parents[1]),
            "AWS_LAMBDA_FUNCTION_NAME": "orders",
        },
    )

    line, added = done.stdout.splitlines()
    assert set(ast.literal_eval(added)) <= {"_contextvars", "contextvars"}
    assert read(line).fields["items"] == 3


def test_a_record_can_be_copied_with_changes() -> None:
    record = Record(id="x", timestamp=NOW)

    changed = record.replace(type="order")

    assert (changed.type, changed.id, record.type) == ("order", "x", "api_request")


def test_a_record_does_not_change() -> None:
    record = Record(id="x", timestamp=NOW)

    with pytest.raises(AttributeError, match="replace"):
        record.type = "order"
    assert pickle.loads(pickle.dumps(record)) == record
    assert record != Record(id="y", timestamp=NOW)
    assert record != "x"
    assert repr(record).startswith(f"Record(id='x', timestamp={NOW}, fields={{}}, type='api_request'")


@given(st.datetimes(timezones=st.just(UTC)))
def test_times_are_written_as_python_writes_them(time: datetime) -> None:
    """Also those before 1970, without `time.gmtime`, which refuses them on Windows."""
    milliseconds = (time - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)

    text = tagline.format_timestamp(milliseconds)

    assert text == f"{time.replace(tzinfo=None).isoformat(timespec='milliseconds')}Z"
    assert tagline.parse_timestamp(text) == milliseconds


@pytest.mark.parametrize("milliseconds", [-62_135_596_800_001, 253_402_300_800_000])
def test_a_time_that_rfc_3339_has_no_form_for_is_refused(milliseconds: int) -> None:
    with pytest.raises(ValueError, match="not between the years 1 and 9999"):
        tagline.format_timestamp(milliseconds)


# --- what costs a record ----------------------------------------------------------------------------------


def test_what_costs_a_record_leaves_a_gap_is_counted_and_told(lines: Lines) -> None:
    def failing_clock() -> int:
        raise OSError("no clock")

    told: list[BaseException] = []
    emitter = Emitter(stream=lines, on_error=told.append)
    emitter.emit({})
    emitter.emit({}, type=["x"])  # type: ignore[arg-type]  # an odd type becomes text
    emitter.emit(Proxy())  # type: ignore[arg-type]  # and an odd object a field
    emitter.emit({"a": 1}, tag={"t"})  # type: ignore[arg-type]  # and an odd tag another tag
    emitter.emit({})
    broken = Emitter(stream=lines, clock=failing_clock, on_error=told.append)
    broken.emit({})

    assert [(r.tag, r.type, r.seq) for r in lines.records] == [
        ("usage_record", "api_request", 0),
        ("usage_record", "['x']", 1),
        ("usage_record", "api_request", 2),
        ("{'t'}", "api_request", 0),
        ("usage_record", "api_request", 3),
        ("usage_record", "api_request", 0),
    ]
    assert (emitter.errors, broken.errors) == (0, 1)  # the system's clock stood in
    assert [str(error) for error in told] == ["no clock"]


class Gone:
    def write(self, text: str, /) -> None:  # noqa: ARG002 - stdout's signature
        raise OSError("stdout is gone")


def test_a_stream_that_fails_is_counted_and_told_and_the_hook_may_fail() -> None:
    told: list[str] = []

    def hook(error: BaseException) -> None:
        told.append(str(error))
        raise RuntimeError("the hook as well")

    emitter = Emitter(stream=Gone(), on_error=hook)
    emitter.emit({"route": "/"})
    with emitter.collect():
        pass

    assert (emitter.errors, told) == (2, ["stdout is gone"] * 2)


def test_more_tags_than_are_counted_begin_a_new_source_and_no_number_comes_twice(
    emitter: Emitter, lines: Lines
) -> None:
    for number in range(2_500):
        emitter.emit(tag=f"t{number % 1_200}")

    numbers = {(record.src, record.tag, record.seq) for record in lines.records}
    assert len(numbers) == 2_500
    for src, tag in {(src, tag) for src, tag, _ in numbers}:
        of_one = sorted(seq for s, t, seq in numbers if (s, t) == (src, tag) and seq is not None)
        assert of_one == list(range(len(of_one)))


# --- bound fields, samples, switched off ------------------------------------------------------------------


def test_bound_fields_are_in_all_records_and_a_record_may_replace_them(
    emitter: Emitter, lines: Lines
) -> None:
    bound = emitter.bind(service="shop", version=1).bind(version=2)
    bound.emit({"items": 3})
    with bound.collect({"service": "other"}):
        assert bound.end()
    emitter.emit()

    first, second, third = lines.records
    assert first.fields == {"service": "shop", "version": 2, "items": 3}
    assert (second.fields["service"], second.fields["version"]) == ("other", 2)
    assert third.fields == {}
    assert [record.seq for record in lines.records] == [0, 1, 2]  # one source
    assert len({record.src for record in lines.records}) == 1


def test_a_sample_stands_for_all_and_leaves_no_gap(lines: Lines) -> None:
    emitter = Emitter(stream=lines, sample_rate=0.25)
    for number in range(4_000):
        emitter.emit({"number": number})

    records = lines.records
    assert 800 < len(records) < 1_200  # 7 standard deviations
    assert {record.fields["sample_rate"] for record in records} == {0.25}
    assert [record.seq for record in records] == list(range(len(records)))


@pytest.mark.parametrize("rate", [0, -1, 1.1, float("nan")])
def test_a_rate_that_is_no_share_is_refused(rate: float) -> None:
    with pytest.raises(ValueError, match=r"sample_rate is .*; it must be above 0 and at most 1"):
        Emitter(sample_rate=rate)


@pytest.mark.parametrize(("setting", "written"), [("1", 0), ("true", 0), ("", 1), ("0", 1), ("false", 1)])
def test_an_emitter_can_be_switched_off(
    setting: str, written: int, monkeypatch: pytest.MonkeyPatch, lines: Lines
) -> None:
    monkeypatch.setenv("TAGLINE_DISABLED", setting)
    emitter = Emitter(stream=lines)

    emitter.emit()
    handler: Any = emitter.handler(lambda _event, _context: 7)
    assert handler({}, None) == 7

    assert len(lines.records) == 2 * written


def test_a_subclass_decides_about_every_record(lines: Lines) -> None:
    class WithoutPings(Emitter):
        def emit(self, fields: Any = None, /, **options: Any) -> None:
            if not (fields or {}).get("ping"):
                super().emit({**(fields or {}), "seen": True}, **options)

    emitter = WithoutPings(stream=lines).bind(service="shop")
    emitter.emit({"ping": True})
    with emitter.collect({"ping": True}):
        pass
    emitter.handler(lambda _event, _context: tagline.add(ping=True))({}, None)
    with emitter.collect({"number": 1}):
        pass
    emitter.emit({"number": 2})

    assert [(record.seq, record.fields["number"]) for record in lines.records] == [(0, 1), (1, 2)]
    assert all(record.fields["seen"] and record.fields["service"] == "shop" for record in lines.records)
