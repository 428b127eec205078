"""A log event becomes a meter record, nothing of ours, or a rejection; records become a file."""

import hashlib
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tagline import Record, write

from consumers.lines.extract import Rejected
from consumers.lines.ledger import Ledger
from consumers.lines.subscription import LogEvent
from consumers.meters.javascript import stringify
from consumers.meters.meter import (
    END_OF_TIME,
    FIRST_TIME,
    MAX_DIMENSIONS,
    MAX_TEXT,
    Entry,
    Unit,
    extract_meter,
    file_body,
    file_name,
    read_units,
    take_units,
)
from tests.builders import GROUP, LOGGED, data, envelope, kinesis_event
from tests.consumers.meters.meters import METER_TAG, TAG, TIME, line, meter, needs_node
from tests.twins import Objects

LAMBDA = {"timestamp": "2025-11-20T10:00:00Z", "level": "INFO"}  # of its JSON log format
COMPACT = json.dumps(meter(), separators=(",", ":"))
PRETTY = json.dumps(meter(), indent=2)
# As the page shows an entry, also without the comma that is missing there.
SEEN = PRETTY.replace('"GET",', '"GET"')


def extracted(message: str) -> Entry | Rejected | None:
    return extract_meter(LogEvent("e1", LOGGED, message, GROUP, "stream", "123456789012"), METER_TAG, TAG)


def rejected(message: str) -> Rejected:
    found = extracted(message)
    assert isinstance(found, Rejected)
    return found


# The shapes of Node's and Python's runtimes: aws-lambda-nodejs-runtime-interface-client's LogPatch.js and
# aws-lambda-python-runtime-interface-client's bootstrap.py.
@pytest.mark.parametrize(
    "message",
    [
        f"{METER_TAG} {COMPACT}",
        f"INFO {METER_TAG} {PRETTY}\n",
        f"2022-09-13T18:35:05.062Z\t025f281a-7b61\tINFO\t{METER_TAG} {COMPACT}\n",
        f"2022-09-13T18:35:05.062Z\t025f281a-7b61\tINFO\t{METER_TAG} {PRETTY}\n",
        f"[INFO]\t2022-09-13T18:35:05.062Z\t025f281a\t{METER_TAG} {PRETTY}".replace("\n", "\r"),
        f"{METER_TAG}{COMPACT}",
        f"{METER_TAG}: {COMPACT}",
        f"{METER_TAG}={COMPACT}  \n",
        json.dumps({**LAMBDA, "requestId": "7", "message": f"{METER_TAG} {COMPACT}"}),
        json.dumps({"message": f"{METER_TAG} {PRETTY}\n", **LAMBDA, "logger": "root"}) + "\n",
        json.dumps({"_tag": METER_TAG, **meter()}),
    ],
)
def test_a_meter_record_is_read_in_every_wrapping(message: str) -> None:
    assert extracted(message) == Entry(TIME, COMPACT)


@pytest.mark.parametrize(
    "message",
    [
        "START RequestId: c6af9ac6 Version: $LATEST\n",
        COMPACT,
        f"my-{METER_TAG} {COMPACT}",
        f"{METER_TAG}_v2 {COMPACT}",
        f"{METER_TAG}-v2 {COMPACT}",
        json.dumps({"note": f"the {METER_TAG} of today"}),
        json.dumps({"message": f"{METER_TAG}s were written"}),
        write(Record(id="r1", timestamp=LOGGED, fields={"route": "/pets", "kind": "meter"})),
        f"{TAG} meter {{broken",
        f"{{request 7}} {METER_TAG} {COMPACT}",
        f"a {METER_TAG} comes: {METER_TAG} {COMPACT}",
        f"INFO search for m {METER_TAG} {COMPACT}",
        f"[INFO]\t2022-09-13T18:35:05.062Z\t025f281a\tsearch for {METER_TAG} {COMPACT}",
        json.dumps({"level": "INFO", "message": f"{METER_TAG} {COMPACT}"}),
        json.dumps({**LAMBDA, "message": f"INFO {METER_TAG} {COMPACT}"}),
        json.dumps({**LAMBDA, "message": json.dumps({**LAMBDA, "message": f"{METER_TAG} {COMPACT}"})}),
        json.dumps({"_tag": "audit", "message": f"{METER_TAG} {COMPACT}"}),
        write(Record(id="r1", timestamp=LOGGED, fields={"message": f"{METER_TAG} {COMPACT}"})),
    ],
)
def test_what_only_mentions_the_tag_is_not_ours(message: str) -> None:
    assert extracted(message) is None


@pytest.mark.parametrize(
    ("message", "detail"),
    [
        (f"{METER_TAG} and no JSON", "no JSON object right behind it"),
        (f"{METER_TAG} null", "no JSON object right behind it"),
        (f"{METER_TAG} [{COMPACT}]", "no JSON object right behind it"),
        (f"{METER_TAG} of acme {COMPACT}", "no JSON object right behind it"),
        (f"INFO {METER_TAG} {SEEN}", "not JSON: Expecting ',' delimiter: line 9"),
        (f"{METER_TAG} {COMPACT[:-9]}", "not JSON"),
        (f"{METER_TAG} {{ meterApiName: 'api-calls' }}", "not JSON"),
        (f"{METER_TAG} {COMPACT} {COMPACT}", "text after the object, from character"),
        (f"{METER_TAG} {COMPACT}".replace(":1,", ":NaN,"), "not JSON: NaN is not JSON"),
        (f'{METER_TAG} {{"a":' + "[" * 100_000, "nested deeper than 200 levels"),
        (f'{METER_TAG} {{"meterValue":' + "9" * 5_000 + "}", "not JSON"),
        (json.dumps({**LAMBDA, "message": f"{METER_TAG} {SEEN}"}), "not JSON: Expecting ',' delimiter"),
    ],
)
def test_a_meter_line_that_cannot_be_read_is_rejected_with_the_place(message: str, detail: str) -> None:
    found = rejected(message)

    assert found.reason == "meter_unparseable"
    assert detail in found.detail


TIMES = f"not whole milliseconds from {FIRST_TIME} (2000) to {END_OF_TIME} (2100)"
TEXT = f"not a text of 1 to {MAX_TEXT} characters"


@pytest.mark.parametrize(
    ("changes", "detail"),
    [
        ({"meterApiName": None}, f"meterApiName is null, {TEXT}"),
        ({"meterApiName": ""}, f'meterApiName is "", {TEXT}'),
        ({"customerId": " \t"}, f'customerId is " \\t", {TEXT}'),
        ({"customerId": 7}, f"customerId is 7, {TEXT}"),
        (
            {"customerId": "x" * (MAX_TEXT + 1)},
            f'customerId is "{"x" * 79}... ({MAX_TEXT + 3} characters), {TEXT}',
        ),
        ({"meterValue": "x" * 78}, f'meterValue is "{"x" * 78}", not a number'),
        ({"meterValue": "x" * 79}, f'meterValue is "{"x" * 79}... (81 characters), not a number'),
        ({"uniqueId": {"a": 1}}, f"uniqueId is an object, {TEXT}"),
        ({"uniqueId": ["a"]}, f"uniqueId is a list, {TEXT}"),
        ({"meterTimeInMillis": str(TIME)}, f'meterTimeInMillis is "{TIME}", {TIMES}'),
        ({"meterTimeInMillis": TIME // 1_000}, f"meterTimeInMillis is {TIME // 1_000}, {TIMES}"),
        ({"meterTimeInMillis": TIME * 1_000}, f"meterTimeInMillis is {TIME * 1_000}, {TIMES}"),
        ({"meterTimeInMillis": TIME + 0.5}, f"meterTimeInMillis is {TIME}.5, {TIMES}"),
        ({"meterTimeInMillis": FIRST_TIME - 1}, f"meterTimeInMillis is {FIRST_TIME - 1}, {TIMES}"),
        ({"meterTimeInMillis": END_OF_TIME}, f"meterTimeInMillis is {END_OF_TIME}, {TIMES}"),
        ({"meterTimeInMillis": True}, f"meterTimeInMillis is true, {TIMES}"),
        ({"meterValue": "1"}, 'meterValue is "1", not a number'),
        ({"meterValue": True}, "meterValue is true, not a number"),
        ({"meterValue": 2**53 + 1}, "9007199254740993 would become 9007199254740992"),
        ({"dimensions": None}, f"dimensions is null, not an object of at most {MAX_DIMENSIONS}"),
        ({"dimensions": ["GET"]}, f"dimensions is a list, not an object of at most {MAX_DIMENSIONS}"),
        (
            {"dimensions": {str(number): "" for number in range(MAX_DIMENSIONS + 1)}},
            f"dimensions is {MAX_DIMENSIONS + 1} entries, not an object of at most {MAX_DIMENSIONS}",
        ),
        (
            {"dimensions": {"status": 200}},
            f"dimensions.status is 200, not a text of 0 to {MAX_TEXT} characters",
        ),
        (
            {"dimensions": {"a": "x" * (MAX_TEXT + 1)}},
            f"({MAX_TEXT + 3} characters), not a text of 0 to {MAX_TEXT}",
        ),
        ({"dimensions": {"": "x"}}, f"a dimension's name has 0 characters, not 1 to {MAX_TEXT}"),
        (
            {"dimensions": {"x" * (MAX_TEXT + 1): ""}},
            f"a dimension's name has {MAX_TEXT + 1} characters, not 1 to {MAX_TEXT}",
        ),
        ({"trace": 12345678901234567890}, "12345678901234567890 would become 12345678901234567000"),
    ],
)
def test_a_meter_that_is_not_valid_is_rejected_by_name_value_and_limit(
    changes: dict[str, Any], detail: str
) -> None:
    found = rejected(line(**changes))

    assert found.reason == "meter_invalid"
    assert detail in found.detail


@pytest.mark.parametrize("name", ["meterApiName", "customerId", "meterTimeInMillis", "meterValue"])
def test_a_meter_that_lacks_a_field_is_rejected_by_its_name(name: str) -> None:
    said = {key: value for key, value in meter().items() if key != name}

    assert rejected(f"{METER_TAG} {json.dumps(said)}").detail.startswith(f"{name} is missing, not ")


@pytest.mark.parametrize(
    "changes",
    [
        {"meterApiName": "x" * MAX_TEXT},
        {"meterTimeInMillis": FIRST_TIME},
        {"meterTimeInMillis": END_OF_TIME - 1},
        {"meterValue": 0},
        {"meterValue": -2.5},
        {"meterValue": 2**53},
        {"dimensions": {}},
        {"dimensions": {"x" * MAX_TEXT: "y" * MAX_TEXT, "empty": ""}},
        {"dimensions": {f"d{number}": "v" for number in range(MAX_DIMENSIONS)}},
        {"values": {"a": 1, "b": [None]}},
    ],
)
def test_a_meter_is_taken_at_its_limits_and_with_fields_that_are_not_known(changes: dict[str, Any]) -> None:
    found = extracted(line(**changes))

    assert isinstance(found, Entry)
    assert json.loads(found.text) == meter(**changes)


def test_a_time_in_any_spelling_of_the_number_is_that_time() -> None:
    found = extracted(f"{METER_TAG} {COMPACT}".replace(f"{TIME}", "1.663094105062E12"))

    assert found == Entry(TIME, COMPACT)


def test_a_meter_without_dimensions_or_a_unique_id_has_cloudwatchs_event_id() -> None:
    said = {key: value for key, value in meter().items() if key not in {"uniqueId", "dimensions"}}

    found = extracted(f"{METER_TAG} {json.dumps(said)}")

    assert found == Entry(TIME, stringify({**said, "uniqueId": "e1"}))


def test_a_tagged_record_of_type_meter_gives_its_own_fields_its_time_and_its_id() -> None:
    fields = {"customerId": "acme", "meterValue": 3, "meterApiName": "api-calls", "request_id": "c6af"}
    tagged = write(Record(id="r1", timestamp=TIME, type="meter", fields=fields))
    whole = write(Record(id="r2", timestamp=LOGGED, type="meter", fields=meter()))

    assert extracted(tagged) == Entry(
        TIME,
        f'{{"meterApiName":"api-calls","customerId":"acme","meterTimeInMillis":{TIME},"meterValue":3,'
        '"uniqueId":"r1"}',
    )
    assert extracted(whole) == Entry(TIME, COMPACT)
    assert extracted(f"2022-09-13T18:35:05.062Z\t7\tINFO\t{whole}\n") == Entry(TIME, COMPACT)


def test_a_tagged_record_of_type_meter_is_checked_as_well() -> None:
    found = rejected(write(Record(id="r1", timestamp=TIME, type="meter", fields={"customerId": "acme"})))

    assert (found.reason, found.detail) == ("meter_invalid", f"meterApiName is missing, {TEXT}")


@given(st.text() | st.text().map(lambda text: f"{METER_TAG} {{{text}") | st.text().map(lambda t: line() + t))
def test_no_line_raises(message: str) -> None:
    assert isinstance(extracted(message), Entry | Rejected | None)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    ),
    st.sampled_from(sorted(meter())),
)
def test_whatever_a_field_holds_the_record_is_taken_or_rejected(value: Any, field: str) -> None:
    found = extracted(line(**{field: value}))

    assert found is not None
    if isinstance(found, Entry):  # As doubles, which is what both languages' readers make of numbers.
        kept = json.loads(found.text, parse_int=float)[field]
        assert kept == json.loads(json.dumps(value), parse_int=float)


HOW_TO = (Path(__file__).parents[3] / "docs" / "how-to" / "send-meters.md").read_text()


def block(language: str) -> str:
    """Return the page's first block in a language."""
    found = re.search(rf"^```{language}\n(.*?)^```$", HOW_TO, re.MULTILINE | re.DOTALL)
    assert found
    return found[1]


def test_what_the_page_shows_in_python_writes_a_meter_record(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    exec(compile(block("python"), "send-meters.md", "exec"), names)

    names["handler"]({"customer": "acme"}, None)

    found = extracted(capsys.readouterr().out)
    assert isinstance(found, Entry)
    said = json.loads(found.text)
    assert (said["customerId"], said["dimensions"]) == ("acme", {"method": "GET", "endpoint": "pets"})
    assert (said["meterTimeInMillis"], len(said["uniqueId"])) == (found.time, 32)


@needs_node
def test_what_the_page_shows_in_javascript_writes_a_meter_record() -> None:
    program = 'const crypto = require("crypto"); const event = { customer: "acme" };\n' + block("js")

    printed = subprocess.run(
        ["node", "-e", program], capture_output=True, text=True, check=True, encoding="utf-8"
    ).stdout

    found = extracted(f"2022-09-13T18:35:05.062Z\tc6af9ac6\tINFO\t{printed}")
    assert isinstance(found, Entry)
    assert f"{METER_TAG} {found.text}\n" == printed


def test_a_file_is_the_list_and_its_name_is_the_first_records_day_and_the_bodys_hash() -> None:
    meters = [Entry(TIME, COMPACT), Entry(TIME + 86_400_000, "{}")]

    body = file_body(meters)

    assert body == f"[{COMPACT},{{}}]".encode()
    assert file_name(meters, body) == f"2022-09-13/{hashlib.sha1(body).hexdigest()}.json"
    assert len(file_name(meters, body)) == len("2022-09-13/.json") + 40


@pytest.mark.parametrize("limit", [1, 10_000])
def test_a_kinesis_record_with_more_meters_than_memory_is_kept_whole(
    limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consumers.meters.meter.MAX_UNIT_CHARACTERS", limit)
    whole = data(envelope(line("a"), f"{METER_TAG} broken"))
    ledger, objects = Ledger(kinesis_event(whole, data(envelope("noise")), whole)["Records"]), Objects()

    units = list(read_units(ledger, METER_TAG, TAG, ""))
    ledger.keep(objects)

    if limit == 1:
        assert units == []
        assert ledger.quarantined == {"meter_undecodable": 2}
        assert {kept["data"] for kept in objects.quarantined()} == {whole}
    else:
        assert [unit.position for unit in units] == [0, 2]
        assert ledger.quarantined == {"meter_unparseable": 2}


def test_units_are_taken_until_they_are_many_or_large(monkeypatch: pytest.MonkeyPatch) -> None:
    units = [Unit(position, [], [Entry(TIME, COMPACT)] * 3) for position in range(5)]
    monkeypatch.setattr("consumers.meters.meter.MAX_UNIT_CHARACTERS", 4 * len(COMPACT))

    left = iter(units)
    assert [len(take_units(left, 8)) for _ in range(4)] == [2, 2, 1, 0]
    left = iter(units)
    assert [len(take_units(left, 1)) for _ in range(2)] == [1, 1]
