"""Kinesis data becomes log events."""

import base64
import gzip
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.lines.subscription import MAX_WHOLE_BYTES, LogEvent, UndecodableError, encode, pieces
from tests.builders import (
    CONTROL,
    CONTROL_EVENT,
    GROUP,
    LOGGED,
    OWNER,
    data,
    envelope,
    log_events,
    messages_in,
)


def packed(text: str | bytes) -> str:
    return base64.b64encode(gzip.compress(text.encode() if isinstance(text, str) else text, mtime=0)).decode()


def test_the_events_of_an_envelope_carry_where_they_came_from() -> None:
    (event,) = log_events(data(envelope("hello\n", ids=["e1"])))

    assert isinstance(event, LogEvent)
    assert (event.id, event.message, event.timestamp) == ("e1", "hello\n", LOGGED)
    assert (event.log_group, event.owner) == (GROUP, OWNER)
    assert event.log_stream.endswith("]26b6a45d574f442ea5b4f7a1b1d3ba44")


def test_a_control_message_is_no_log_event() -> None:
    assert log_events(data(CONTROL)) == [None]


def test_a_real_event_beside_a_health_check_is_read() -> None:
    mixed = {**envelope("real"), "messageType": "CONTROL_MESSAGE"}
    mixed["logEvents"].append(CONTROL_EVENT)

    assert messages_in(data(mixed)) == ["real"]
    assert log_events(data(mixed))[1:] == [None]


@given(st.lists(st.text(), max_size=20))
def test_every_message_comes_back_in_order(written: list[str]) -> None:
    assert messages_in(data(envelope(*written))) == written


def test_the_encoding_is_gzip_that_others_read() -> None:
    assert json.loads(gzip.decompress(encode(CONTROL))) == CONTROL


def test_all_members_of_a_gzip_are_read() -> None:
    text = json.dumps(envelope("x")).encode()
    two = gzip.compress(text[:40], mtime=0) + gzip.compress(text[40:], mtime=0)

    assert messages_in(base64.b64encode(two).decode()) == ["x"]


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        ("", "gzip ends early"),
        ("not base64!", "Non-base64 digit found"),
        (base64.b64encode(b"plain text").decode(), "not gzip"),
        (base64.b64encode(gzip.compress(b'{"a":1}' * 99, mtime=0)[:-9]).decode(), "gzip ends early"),
        (
            base64.b64encode(gzip.compress(b"{}", mtime=0) + b"rest").decode(),
            "4 bytes after the gzip's end are not gzip",
        ),
        (packed("not JSON"), "JSONDecodeError"),
        (packed(b"\xff\xfe\x00"), "JSONDecodeError"),
        (base64.b64encode(b'{"logEvents"').decode(), "JSONDecodeError"),
        (packed('{"logEvents":{},"logGroup":"g","logStream":"s","owner":"o"}'), "logEvents is not a list"),
        (packed('{"logEvents":[],"logGroup":"g","logStream":"s"}'), "'owner'"),
        (packed("[" * 100_000), "RecursionError"),
        (packed("[]"), "TypeError"),
        (packed("{}"), "KeyError: 'logEvents'"),
        (packed(b" " * (MAX_WHOLE_BYTES + 1)), "inflates to more than 8,388,608 bytes that CloudWatch"),
        (
            packed(b'{"logEvents":[' + b" " * (MAX_WHOLE_BYTES + 99)),
            "8,388,608 bytes without a log event's end",
        ),
        (None, "data is None, not text"),
        (7, "data is 7, not text"),
        ({"a": 1}, "not text"),
    ],
    # Not the data: gzip holds the time.
    ids=[
        "nothing",
        "not base64",
        "not gzip",
        "gzip cut off",
        "rest after gzip",
        "not JSON",
        "not UTF-8",
        "JSON cut off",
        "log events that are no list",
        "an envelope without its owner",
        "too deep",
        "a list",
        "an empty object",
        "spaces",
        "a log event without an end",
        "null",
        "a number",
        "an object",
    ],
)
def test_what_is_no_envelope_is_refused_with_the_step_that_failed(broken: Any, reason: str) -> None:
    with pytest.raises(UndecodableError, match=reason):
        pieces(broken)


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_refused_and_nothing_else_is_raised(noise: Any) -> None:
    with pytest.raises(UndecodableError):
        pieces(base64.b64encode(noise).decode())
