"""The line, and how records are collected."""

import asyncio
import io
import json
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tagline import Emitter, Record, UnreadableLineError, add, read, write

NOW = 1_763_632_800_123  # 2025-11-20T10:00:00.123Z


class Lines(io.StringIO):
    """A stdout that counts its writes."""

    def __init__(self) -> None:
        super().__init__()
        self.writes = 0

    def write(self, text: str, /) -> int:
        self.writes += 1
        return super().write(text)

    @property
    def records(self) -> list[Record]:
        return [read(line) for line in self.getvalue().splitlines()]

    @property
    def fields(self) -> dict[str, Any]:
        (record,) = self.records
        return dict(record.fields)


@pytest.fixture
def lines() -> Lines:
    return Lines()


@pytest.fixture
def emitter(lines: Lines) -> Emitter:
    return Emitter(stream=lines, clock=lambda: NOW)


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
    | st.builds(endless)
    | st.builds(deep)
    | st.characters(categories=["Cs"])
    | st.integers(10**5000, 10**5001),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text() | st.integers() | st.binary(), inner, max_size=3)
        | st.tuples(inner, inner)
        | st.frozensets(st.text() | st.binary(), max_size=3)
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.text() | st.integers() | st.none(), anything, max_size=5))
@settings(max_examples=200, deadline=None)
def test_any_fields_make_exactly_one_readable_line(fields: dict[Any, Any]) -> None:
    lines = Lines()

    Emitter(stream=lines).emit(fields)

    assert lines.writes == 1
    assert len(lines.records) == 1


@given(st.dictionaries(st.text(max_size=50), json_values | st.text(min_size=500), max_size=30))
@settings(deadline=None)
def test_a_line_never_exceeds_its_budget(fields: dict[str, Any]) -> None:
    lines = Lines()

    Emitter(stream=lines, max_line_bytes=2_000).emit(fields)

    assert len(lines.getvalue()) <= 2_001
    (record,) = lines.records
    assert record.trunc or record.fields == fields


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
        ((1, 2), [1, 2]),
        (datetime(2025, 11, 20, 10, tzinfo=UTC), "2025-11-20T10:00:00+00:00"),
        (Item("x"), "Item(name='x')"),
        (Hostile(), "<Hostile>"),
        ({1: "a", None: "b"}, {"1": "a", "null": "b"}),
        ("two\nlines", "two\nlines"),
    ],
)
def test_values_that_json_cannot_say_degrade(value: Any, said: Any, emitter: Emitter, lines: Lines) -> None:
    emitter.emit({"value": value})

    assert lines.fields == {"value": said}


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


@pytest.mark.parametrize("nonsense", ["yesterday", True, 10**18, 3.5, "9999-99-99"])
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


def test_a_mistyped_budget_falls_back_to_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAGLINE_MAX_LINE_BYTES", "lots")

    assert Emitter().max_line_bytes == 200_000


def test_lines_go_to_whatever_stdout_is_at_the_time(capsys: pytest.CaptureFixture[str]) -> None:
    Emitter().emit({"route": "/"})

    assert read(capsys.readouterr().out).fields == {"route": "/"}


def test_fields_are_collected_from_anywhere_and_written_once_at_the_end(
    emitter: Emitter, lines: Lines
) -> None:
    def deep_in_the_call() -> None:
        add(items=3)
        add({"not-an-identifier": True})

    with emitter.record({"route": "/pets"}) as record:
        deep_in_the_call()
        record["client"] = "acme"
        assert lines.writes == 0

    assert lines.writes == 1
    assert lines.fields.pop("duration_ms") >= 0
    assert {k: v for k, v in lines.fields.items() if k != "duration_ms"} == {
        "route": "/pets",
        "items": 3,
        "not-an-identifier": True,
        "client": "acme",
    }


def test_the_time_of_a_record_is_when_it_began(lines: Lines) -> None:
    ticks = iter([NOW, NOW + 5_000])

    with Emitter(stream=lines, clock=lambda: next(ticks)).record():
        pass

    assert [record.timestamp for record in lines.records] == [NOW]


def test_a_record_that_raises_is_written_and_the_exception_goes_on(emitter: Emitter, lines: Lines) -> None:
    def divide() -> float:
        add(step="divide")
        return 1 / 0

    with pytest.raises(ZeroDivisionError), emitter.record():
        divide()

    assert lines.fields["step"] == "divide"
    assert (lines.fields["error"], lines.fields["error_type"]) == ("division by zero", "ZeroDivisionError")


def test_nothing_leaks_into_the_next_record(emitter: Emitter, lines: Lines) -> None:
    with emitter.record():
        add(secret=1)
    with emitter.record():
        pass

    assert "secret" not in lines.records[1].fields


def test_adding_outside_of_a_record_does_nothing(lines: Lines) -> None:
    add(orphan=True)

    assert lines.getvalue() == ""


def test_concurrent_tasks_and_threads_do_not_mix(emitter: Emitter, lines: Lines) -> None:
    async def request(number: int) -> None:
        with emitter.record():
            add(task=number)
            await asyncio.sleep(0)
            add(same=number)

    async def serve() -> None:
        await asyncio.gather(*map(request, range(20)))

    def work(number: int) -> None:
        with emitter.record():
            add(task=number)
            add(same=number)

    asyncio.run(serve())
    threads = [threading.Thread(target=work, args=[20 + number]) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(record.fields["task"] for record in lines.records) == list(range(28))
    assert all(record.fields["task"] == record.fields["same"] for record in lines.records)


@dataclass
class Context:
    aws_request_id: str = "8f5ac1b8-4f5a-4d0c-8f5d-0c1b84f5a4d0"


HTTP_2 = {
    "version": "2.0",
    "routeKey": "GET /pets/{id}",
    "rawPath": "/pets/7",
    "requestContext": {"http": {"method": "GET", "path": "/pets/7"}},
}
HTTP_1 = {"httpMethod": "POST", "resource": "/pets", "path": "/prod/pets", "requestContext": {}}
DEFAULT_ROUTE = {**HTTP_2, "routeKey": "$default"}
ANSWERS: dict[str, Callable[[], Any]] = {
    "answers": lambda: {"statusCode": 201},
    "raises": lambda: 1 / 0,
}


@pytest.mark.parametrize(
    ("event", "answer", "said"),
    [
        (HTTP_2, "answers", {"method": "GET", "route": "/pets/{id}", "path": "/pets/7", "status": 201}),
        (HTTP_2, "raises", {"method": "GET", "route": "/pets/{id}", "path": "/pets/7", "status": 500}),
        (HTTP_1, "answers", {"method": "POST", "route": "/pets", "path": "/prod/pets", "status": 201}),
        (DEFAULT_ROUTE, "answers", {"method": "GET", "route": "/pets/7", "path": "/pets/7", "status": 201}),
        ({"Records": []}, "answers", {"status": 201}),
        (None, "raises", {}),
    ],
)
def test_a_decorated_handler_writes_what_the_invocation_says(
    event: Any, answer: str, said: dict[str, Any], emitter: Emitter, lines: Lines
) -> None:
    @emitter.handler
    def handler(event: Any, context: Any) -> Any:  # noqa: ARG001 - the handler's signature
        return ANSWERS[answer]()

    try:
        handler(event, Context())
    except ZeroDivisionError:
        assert answer == "raises"

    fields = lines.fields
    assert fields.pop("request_id") == Context.aws_request_id
    assert fields.pop("duration_ms") >= 0
    assert fields.pop("error", None) == ("division by zero" if answer == "raises" else None)
    fields.pop("error_type", None)
    assert fields == said


def test_what_the_handler_says_wins(emitter: Emitter, lines: Lines) -> None:
    @emitter.handler
    def handler(event: Any, context: Any) -> Any:  # noqa: ARG001 - the handler's signature
        add(route="/pets/{pet}", status=418)
        return {"statusCode": 200}

    handler(HTTP_2, None)

    assert (lines.fields["route"], lines.fields["status"]) == ("/pets/{pet}", 418)


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


def test_nothing_outside_the_standard_library_is_imported() -> None:
    import tagline

    imported = {
        line.split()[1].split(".")[0]
        for line in Path(tagline.__file__).read_text(encoding="utf-8").splitlines()
        if line.startswith(("import ", "from "))
    }

    assert imported <= set(sys.stdlib_module_names)


def test_a_record_can_be_copied_with_changes() -> None:
    record = Record(id="x", timestamp=NOW)

    assert replace(record, type="order").type == "order"
