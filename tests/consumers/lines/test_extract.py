"""A log event becomes a record, nothing of ours, or a rejection."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tagline import Record, write

from consumers.lines.extract import Rejected, extract, has_long_number, written_number
from consumers.lines.prefix import begin, check_prefix
from consumers.lines.subscription import LogEvent
from consumers.settings import SettingsError
from tests.builders import GROUP, LOGGED

TAG = "usage_record"
RECORD = Record(id="r1", timestamp=LOGGED - 1, fields={"route": "/pets", "text": "two\nlines {"})
LINE = write(RECORD)
# What Lambda's JSON log format has beside the message, and may have "requestId", "logger" and "tenantId" too.
LAMBDA = {"timestamp": "2025-11-20T10:00:00Z", "level": "INFO"}


def event(message: str) -> LogEvent:
    return LogEvent("e1", LOGGED, message, GROUP, "stream", "123456789012")


@pytest.mark.parametrize(
    "message",
    [
        LINE,
        LINE + "\n",
        "  " + LINE,
        f"2025-11-20T10:00:00.000Z\t025f281a-7b61\tINFO\t{LINE}\n",
        f"[INFO]\t2025-11-20T10:00:00.000Z\tc6af9ac6\t{LINE}",
        f"2025-11-20T10:00:00.000Z\tundefined\tinfo\t{LINE}\n",
        f"[WARNING]\t2025-11-20T10:00:00.000Z\t\t{LINE}",
        f"INFO {LINE}",
        f"[info] {LINE}",
        f"info: {LINE}",
        json.dumps({**LAMBDA, "requestId": "c6af9ac6", "message": json.loads(LINE)}),
        json.dumps({**LAMBDA, "requestId": "c6af9ac6", "message": LINE}),
        json.dumps({**LAMBDA, "logger": "root", "message": f" {LINE}\n"}),
    ],
)
def test_a_tagged_line_is_read_in_every_wrapping(message: str) -> None:
    assert extract(event(message), TAG) == RECORD


@pytest.mark.parametrize(
    "message",
    [
        'INFO usage_record {"a": 1}',
        'usage_record{"a": 1}\n',
        '2025-11-20T10:00:00.000Z\tc6af9ac6\tINFO\tusage_record {"a":1}',
        'INFO usage_record: {"a": 1}',
        '{"_tag": "usage_record", "a": 1}',
        json.dumps({**LAMBDA, "message": 'usage_record {"a":1}'}),
        json.dumps({**LAMBDA, "message": {"a": 1, "_tag": "usage_record"}}),
    ],
)
def test_a_line_without_id_and_time_has_the_events(message: str) -> None:
    assert extract(event(message), TAG) == Record(id="e1", timestamp=LOGGED, fields={"a": 1})


def test_a_metrics_line_with_the_tag_has_the_metrics_time() -> None:
    line = {"_aws": {"Timestamp": LOGGED - 7, "CloudWatchMetrics": []}, "_tag": TAG, "latency": 3}

    record = extract(event(json.dumps(line)), TAG)

    assert record == Record(id="e1", timestamp=LOGGED - 7, fields={"latency": 3})


def test_a_loggers_line_with_the_tag_as_an_extra_key_is_a_record() -> None:
    line = {
        "level": "INFO",
        "location": "handler:7",
        "message": "done",
        "timestamp": "2025-11-20 10:00:00,123+0000",
        "service": "orders",
        "_tag": TAG,
    }

    record = extract(event(json.dumps(line)), TAG)

    assert isinstance(record, Record)
    assert record.timestamp == 1_763_632_800_123
    assert record.fields == {"location": "handler:7", "message": "done", "service": "orders"}


@pytest.mark.parametrize(
    "message",
    [
        '{"route": "/pets"}',
        'wrote 3 usage_records {"_tag": "other"}',
        "usage_record-total is 7",
        '{"note": "usage_record is the tag"}',
        'the usage_record of today: {"a": 1}',
        'cannot find x usage_record {"client": "victim"}',
        '{"message": "usage_record written"}',
        '{"message": "usage_record {}"}',
        '{"message": {"tag": "usage_record"}}',
        '{"_tag": "usage_record_v2", "note": "usage_record"}',
        '{"_tag": "audit", "body": {"_tag": "usage_record"}}',
        json.dumps({**LAMBDA, "message": 'cannot find usage_record {"a": 1}'}),
        json.dumps({**LAMBDA, "message": f"cannot find {LINE}"}),
        json.dumps({**LAMBDA, "user": "x", "message": LINE}),
        json.dumps({"level": "INFO", "message": LINE}),
        json.dumps({**LAMBDA, "message": json.dumps({**LAMBDA, "message": LINE})}),
        json.dumps({"level": "info", "time": 1, "msg": LINE}),  # pino
        json.dumps({"event": LINE, "level": "info"}),  # structlog
        json.dumps({"log": LINE + "\n", "stream": "stdout"}),  # Docker
        "{'_tag': 'usage_record', '_id': 'k9', 'route': '/a'}",
        "2026-11-20T10:00:00.000Z\tid\tINFO\t{ _tag: 'usage_record', _id: 'k9b', route: '/a' }",
    ],
)
def test_what_only_mentions_the_tag_is_no_record(message: str) -> None:
    assert extract(event(message), TAG) is None


@pytest.mark.parametrize(
    ("message", "detail"),
    [
        ("usage_record and no JSON", "carries the tag and no JSON object"),
        ("INFO usage_record: see {docs}", "carries the tag and no JSON object"),
        (LINE[:-20], "not JSON"),
        (LINE + LINE, "text after the object"),
        ('usage_record {"a": }', "not JSON"),
        ('usage_record {"a": 1} and more', "text after the object, from character 21"),
        ('{"_tag":"usage_record","a":' + "[" * 100_000, "deeper than 200 levels"),
        ('{"_tag":"usage_record","_id":7}', "_id is 7"),
        ('{"_tag":"usage_record","a":' + "9" * 5_000 + "}", "not JSON"),
        (json.dumps({**LAMBDA, "message": LINE[:-9]}), "not JSON"),
        (json.dumps({**LAMBDA, "requestId": "r1", "message": LINE})[:-20], "not JSON"),
        (json.dumps({**LAMBDA, "message": 'usage_record {"a":1}'})[:-2], "not JSON"),
        # One record printed with indentation; Lambda makes an event of each line.
        ('  "_tag": "usage_record",', "outside of an object"),
        # The second half of a line that CloudWatch Logs has split.
        ('end of a text","_tag":"usage_record","_id":"k7","tax":{"rate":19}}', "outside of an object"),
    ],
)
def test_a_tagged_line_that_cannot_be_read_is_rejected_with_the_reason(message: str, detail: str) -> None:
    rejected = extract(event(message), TAG)

    assert isinstance(rejected, Rejected)
    assert rejected.reason == "unparseable"
    assert detail in rejected.detail


@pytest.mark.parametrize(("size", "is_hinted"), [(40, False), (262_114, False), (262_115, True)])
def test_a_broken_line_as_long_as_cloudwatchs_longest_event_may_be_half_of_one(
    size: int, is_hinted: bool
) -> None:
    """256 KB with the 26 bytes that CloudWatch counts for an event, of which three may be cut characters."""
    message = f'{TAG} {{"a":"'.ljust(size, "x")

    rejected = extract(event(message), TAG)

    assert isinstance(rejected, Rejected)
    assert ("split" in rejected.detail) == is_hinted


def test_a_broken_line_with_half_a_surrogate_pair_is_rejected() -> None:
    rejected = extract(event(f'{TAG} {{"a":"\ud800'), TAG)

    assert isinstance(rejected, Rejected)
    assert "not JSON" in rejected.detail


@pytest.mark.parametrize("name", ["_id", "_type"])
def test_an_object_of_another_tag_is_no_record_whatever_else_it_says(name: str) -> None:
    line = {"_tag": "other", "_type": "t", "_id": "k", "note": TAG, name: "x"}

    assert extract(event(json.dumps(line)), TAG) is None


BEHIND_TEXT = (
    '2026-11-20 10:00:00 {} INFO orders - {"level":"INFO","_tag":"usage_record","_id":"k3","route":"/a"}'
)


@pytest.mark.parametrize(
    "message",
    [
        BEHIND_TEXT,
        f"cannot find {LINE}",
        f"INFO orders {LINE}",
        f"[INFO]\t2025-11-20T10:00:00.000Z\tc6af9ac6\tfound {LINE}",
        f"[INFO]\tyesterday\tc6af9ac6\t{LINE}",
        "{} " + LINE,
        f'{{"body":{LINE}}}',
        f'{{"timestamp":"t","level":"INFO","user":"x","message":{LINE}}}',
    ],
)
def test_a_record_behind_a_text_that_is_not_trusted_is_rejected_as_that(message: str) -> None:
    rejected = extract(event(message), TAG)

    assert isinstance(rejected, Rejected)
    assert rejected.reason == "prefix"
    assert "TAGLINE_PREFIX" in rejected.detail


@pytest.mark.parametrize(
    ("prefix", "message"),
    [
        ("* * {} INFO * -", BEHIND_TEXT),
        ("20* * {} INFO orders - ", BEHIND_TEXT),
        (
            "*Z stdout F",
            '2016-10-06T00:17:09.669794202Z stdout F {"_tag":"usage_record","_id":"k3","route":"/a"}',
        ),
        ("web-* |", 'web-1  | usage_record {"_id":"k3","route":"/a"}'),
        ("*:orders:", 'INFO:orders:usage_record {"_id":"k3","route":"/a"}'),
        ("INFO shop", 'INFO shop {"_tag":"usage_record","_id":"k3","route":"/a"}'),
        ("<*>1 *", '<134>1 web-1 {"_tag":"usage_record","_id":"k3","route":"/a"}'),
        (".* (", '.x ( {"_tag":"usage_record","_id":"k3","route":"/a"}'),
    ],
)
def test_a_record_behind_the_prefix_of_the_setting_is_read(prefix: str, message: str) -> None:
    record = extract(event(message), TAG, prefix)

    assert isinstance(record, Record)
    assert (record.id, record.fields) == ("k3", {"route": "/a"})
    assert not isinstance(extract(event(message), TAG), Record)
    # The prefix is the line's beginning, and nothing stands between it and the object.
    assert not isinstance(extract(event("x y " + message), TAG, prefix), Record)
    start = message.rindex('{"')
    assert not isinstance(extract(event(f"{message[:start]}by x {message[start:]}"), TAG, prefix), Record)


def test_a_long_number_behind_the_prefix_is_exact() -> None:
    record = extract(event('web-1 | {"_tag":"usage_record","n":18446744073709551617}'), TAG, "web-* |")

    assert isinstance(record, Record)
    assert record.fields == {"n": 2**64 + 1}


@pytest.mark.parametrize("prefix", ["", "web-* |", "x" * 200])
def test_a_prefix_that_can_be_a_setting_is_returned(prefix: str) -> None:
    assert check_prefix(prefix) == prefix


@pytest.mark.parametrize(
    ("prefix", "problem"),
    [
        ("*", "which any words match: write a text that all of your lines have"),
        (" * * ", "which any words match"),
        ("a\nb", "which holds a line break"),
        ("x" * 201, "has 201 characters, more than 200"),
    ],
)
def test_a_prefix_that_would_trust_everything_is_refused(prefix: str, problem: str) -> None:
    with pytest.raises(SettingsError, match="TAGLINE_PREFIX") as raised:
        check_prefix(prefix)

    assert problem in str(raised.value)


@pytest.mark.parametrize("text", [":", "a:", " ", "[INFO] ", "x", "a: ", "* ", "2025-11-20T10:00:00Z"])
def test_a_prefix_takes_time_in_proportion_to_the_line(text: str) -> None:
    pattern = begin(TAG, "*:*:*:*:*:*:*:* *x")

    assert pattern.match(text * 2_000_000) is None  # ends


@pytest.mark.parametrize(
    ("message", "number"),
    [
        (write(RECORD.replace(src="s1", seq=7))[:-9], ("s1", 7)),
        ("INFO " + write(RECORD.replace(src="s1", seq=7))[:-9], ("s1", 7)),
        (write(RECORD.replace(src="s1", seq=7)).partition('"route')[0], ("s1", 7)),
        # A number that is cut, no number, and numbers that a user typed.
        (write(RECORD.replace(src="s1", seq=7)).partition(":7")[0] + ":7", None),
        (LINE, None),
        ("cannot find " + write(RECORD.replace(src="s1", seq=7)), None),
        (LINE[:-1] + ',"q":' + write(RECORD.replace(src="s1", seq=7)), None),
        ('usage_record {"_src":"s1","_seq":7', None),
    ],
)
def test_only_what_the_emitter_wrote_at_the_beginning_is_a_number(
    message: str, number: tuple[str, int] | None
) -> None:
    assert written_number(message, TAG) == number


@given(st.text() | st.text().map(lambda text: f"usage_record {{{text}") | st.text().map(lambda t: LINE + t))
def test_no_line_raises(message: str) -> None:
    extracted: Any = extract(event(message), TAG)

    assert extracted is None or isinstance(extracted, (Record, Rejected))


def test_a_key_that_only_begins_like_the_last_of_the_emitters_is_no_number() -> None:
    head = LINE[: LINE.index(',"route')] + ',"_src":"s1"'

    record = extract(event(head + ',"_seqx":1,"a":2}'), TAG)

    assert isinstance(record, Record)
    assert (record.src, record.seq, record.fields) == ("s1", None, {"a": 2})


@pytest.mark.parametrize(
    ("said", "is_long"),
    [
        ('{"_id":"12345678901234567890"}', False),
        ('{"a":12345678901234567890}', True),
        ('{"a": -12345678901234567890}', True),
        ('{"a":[1,12345678901234567890]}', True),
        ('{"a":[\n12345678901234567890]}', True),
        ('{"_id":"' + "1" * 60 + '","a":{"b":1234567890123456789}}', True),
        ('{"a":123456789012345678}', False),
    ],
)
def test_only_a_number_of_many_digits_is_long_and_not_an_identity(said: str, is_long: bool) -> None:
    assert has_long_number(said) == is_long
