"""Quarantine: what was rejected comes back character by character, under a name that no delivery changes."""

import base64
import json
import re
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumers.lines import quarantine
from consumers.lines.extract import Rejected
from consumers.lines.ledger import Ledger
from consumers.lines.quarantine import UnreadableQuarantineError
from consumers.lines.subscription import LogEvent
from tests.builders import ARRIVED, GROUP, LOGGED, OWNER, STREAM_ARN, kinesis_record
from tests.twins import Objects


def event(identity: str, message: str = "usage_record {") -> LogEvent:
    return LogEvent(identity, LOGGED, message, GROUP, "stream", OWNER)


def kept_after(*deliveries: Sequence[tuple[LogEvent | None, Rejected]]) -> Objects:
    """Return what is in the bucket after deliveries of one Kinesis record with these rejections."""
    objects = Objects()
    for rejections in deliveries:
        ledger = Ledger([kinesis_record("", 1)])
        for of_line, rejected in rejections:
            ledger.reject(0, of_line, rejected)
        ledger.keep(objects)
        assert ledger.response() == {"batchItemFailures": []}
    return objects


def identities(objects: Objects) -> set[tuple[str, str]]:
    return {kept.identity for body in objects.values() for kept in quarantine.read(body)}


# What JSON lets through into a message: halves of surrogate pairs, controls, line ends of all kinds.
MESSAGES = st.text(st.characters(), max_size=60) | st.sampled_from(
    ["\ud800", "a\r\nb\x85c\u2028d\u2029", "\x00", "\t{}\n", "é" * 300_000]
)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.text("0123456789", min_size=1), MESSAGES), min_size=1, max_size=5))
def test_messages_come_back_character_by_character(said: list[tuple[str, str]]) -> None:
    events = [event(identity, message) for identity, message in said]
    body = quarantine.lines(kinesis_record("", 1), [(each, Rejected("invalid", "why")) for each in events])

    read = list(quarantine.read(body))

    assert [kept.event for kept in read] == events
    assert {(kept.reason, kept.detail, kept.stream, kept.arrived) for kept in read} == {
        ("invalid", "why", STREAM_ARN, ARRIVED)
    }
    assert body.isascii()  # also where a line is cut out with tools that know no UTF-8


@given(st.binary(max_size=80))
def test_data_that_cannot_be_decoded_comes_back_byte_for_byte(data: bytes) -> None:
    as_it_came = base64.b64encode(data).decode()
    record = kinesis_record(as_it_came, 1)

    (kept,) = quarantine.read(quarantine.lines(record, [(None, Rejected("undecodable", "why"))]))

    assert kept.event is None
    assert kept.data is not None
    assert base64.b64decode(kept.data) == data
    assert kept.identity == (STREAM_ARN, record["kinesis"]["sequenceNumber"])


def test_the_key_says_reason_day_of_arrival_and_kinesis_record() -> None:
    record = kinesis_record("", 7)
    key = quarantine.object_key("late", record)

    assert quarantine.parse_key(key) == quarantine.ObjectKey(
        "late", date(2025, 11, 20), quarantine.name(record)
    )
    assert quarantine.name(record) == record["eventID"].replace(":", "-")


@pytest.mark.parametrize(
    "key",
    [
        "quarantine/late/year=2026/month=02/day=30/x.jsonl",
        "quarantine/late/x.jsonl",
        "replayed/quarantine/late/year=2026/month=02/day=01/x.jsonl",
        "quarantine/late/year=2026/month=02/day=01/x.json",
    ],
)
def test_a_key_of_somebody_elses_is_refused_by_name(key: str) -> None:
    with pytest.raises(UnreadableQuarantineError, match=key):
        quarantine.parse_key(key)


GOOD = quarantine.lines(kinesis_record("", 1), [(event("1"), Rejected("late", ""))])


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"no JSON", "Expecting value"),
        (b"[1]", "not an object"),
        (b'"data"', "not an object"),
        (b"{}", "no 'event_id'"),
        (b'{"event_id": 1, "message": "x"}', "event_id or message is not a text"),
        (b'{"data": "x", "detail": "d"}', "no 'reason'"),
        (b"\xff", "decode"),
    ],
)
def test_a_line_that_is_none_of_ours_is_refused_by_its_number(line: bytes, said: str) -> None:
    with pytest.raises(UnreadableQuarantineError, match=rf"line 2: .*{said}"):
        list(quarantine.read(GOOD + line + b"\n"))


def test_an_object_from_before_arrivals_were_kept_is_read() -> None:
    old: dict[str, Any] = json.loads(GOOD)
    del old["arrived"]

    (kept,) = quarantine.read(json.dumps(old).encode())

    assert kept.arrived is None
    assert kept.event == event("1")


REASONS = st.sampled_from(["late", "invalid", "unparseable"])


@given(st.dictionaries(st.sampled_from("abcdef"), REASONS, min_size=1), st.integers(1, 4))
def test_the_same_delivery_again_leaves_the_same_objects(lines: dict[str, str], times: int) -> None:
    rejections: list[tuple[LogEvent | None, Rejected]] = [
        (event(identity), Rejected(reason, "why")) for identity, reason in lines.items()
    ]

    assert kept_after(*[rejections] * times) == kept_after(rejections)


@given(st.lists(st.dictionaries(st.sampled_from("abcdef"), REASONS), min_size=1, max_size=4))
def test_a_delivery_that_ends_otherwise_keeps_every_line_that_it_rejects(
    deliveries: list[dict[str, str]],
) -> None:
    """What the last delivery rejects is there under its reason, whatever the earlier ones left behind."""
    objects = kept_after(
        *(
            [(event(identity), Rejected(reason, "why")) for identity, reason in lines.items()]
            for lines in deliveries
        )
    )

    last = deliveries[-1]
    for identity, reason in last.items():
        body = objects[quarantine.object_key(reason, kinesis_record("", 1))]
        assert (GROUP, identity) in {kept.identity for kept in quarantine.read(body)}
    # No line is counted twice, though two objects may have it; and none is there that was never rejected.
    assert {(GROUP, identity) for identity in last} <= identities(objects)
    assert identities(objects) <= {(GROUP, identity) for lines in deliveries for identity in lines}


def test_a_line_rejected_for_another_reason_the_second_time_is_kept_for_both_and_is_one_line() -> None:
    late, invalid = Rejected("late", "first"), Rejected("invalid", "then")
    objects = kept_after(
        [(event("a"), late), (event("b"), late)], [(event("a"), late), (event("b"), invalid)]
    )

    assert [key.split("/")[1] for key in sorted(objects)] == ["invalid", "late"]
    assert identities(objects) == {(GROUP, "a"), (GROUP, "b")}


def test_a_reason_is_one_consumers_own() -> None:
    """Two consumers of a stream see the same Kinesis records: with one reason they would write to one key."""
    folder = Path(quarantine.__file__).parent
    for path in folder.rglob("*.py"):
        of_meters = path.is_relative_to(folder / "meters")
        for reason in re.findall(r'\bRejected\(\s*"(\w+)"', path.read_text()):
            assert reason.startswith("meter_") == of_meters, f"{path.name} says {reason}"


def test_a_line_with_keys_that_nobody_knows_yet_and_a_line_without_a_version_are_read() -> None:
    (line,) = map(
        json.loads,
        quarantine.lines(kinesis_record("AAAA", 1), [(None, Rejected("late", "why"))]).splitlines(),
    )
    (known,) = quarantine.read(json.dumps(line).encode())
    del line["format_version"]

    assert list(quarantine.read(json.dumps({**line, "colour": "red"}).encode())) == [known]


def test_a_line_of_a_newer_version_is_refused_with_what_to_do() -> None:
    body = quarantine.lines(kinesis_record("AAAA", 1), [(None, Rejected("late", "why"))])
    newer = json.dumps({**json.loads(body), "format_version": quarantine.FORMAT_VERSION + 1}).encode()

    with pytest.raises(
        UnreadableQuarantineError, match=r"line 1: .*format_version 2, .* versions up to 1: deploy"
    ):
        list(quarantine.read(newer))
