"""CloudWatch Logs on one machine: what it takes, keeps, finds and delivers.

Sources: section 4 of the fact sheet, the API reference that each test names, and botocore's model of it.
"""

import gzip
import json
import random
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st
from moto import mock_aws
from moto.logs.exceptions import InvalidParameterException
from onemachine import logs
from onemachine.logs import (
    DAY_MS,
    MAX_BATCH_BYTES,
    MAX_BATCH_EVENTS,
    MAX_RECORD_BYTES,
    Event,
    admitted,
    fitting,
)

from tests.builders import log_events, messages_in

NOW_MS = 1_795_168_800_000  # 2026-11-20T10:00:00Z
GROUP = "/aws/lambda/shop"
STREAM_ARN = "arn:aws:kinesis:us-east-1:123456789012:stream/usage"
HOUR_MS = 3_600_000


@cache
def client(service: str) -> Any:
    """Return a client; a new one would take longer than most tests."""
    return boto3.client(service, region_name="us-east-1")


@dataclass
class World:
    """One account's services, and their clock."""

    now_ms: int = NOW_MS
    client: Callable[[str], Any] = client

    def put(self, *messages: str, stream: str = "one", at_ms: int | None = None) -> dict[str, Any]:
        at_ms = self.now_ms if at_ms is None else at_ms
        events = [{"timestamp": at_ms, "message": message} for message in messages]
        return dict(
            self.client("logs").put_log_events(logGroupName=GROUP, logStreamName=stream, logEvents=events)
        )

    def subscribe(self, pattern: str, name: str = "usage", **asked: str) -> None:
        asked = {"destinationArn": STREAM_ARN, "roleArn": "arn:aws:iam::123456789012:role/logs", **asked}
        self.client("logs").put_subscription_filter(
            logGroupName=GROUP, filterName=name, filterPattern=pattern, **asked
        )

    def records(self) -> list[dict[str, Any]]:
        """Return the stream's records."""
        kinesis = self.client("kinesis")
        found = []
        for shard in kinesis.list_shards(StreamName="usage")["Shards"]:
            iterator = kinesis.get_shard_iterator(
                StreamName="usage", ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON"
            )["ShardIterator"]
            found += kinesis.get_records(ShardIterator=iterator)["Records"]
        return found

    def envelopes(self) -> list[dict[str, Any]]:
        """Return what was delivered, without control messages."""
        envelopes = [json.loads(gzip.decompress(record["Data"])) for record in self.records()]
        return [envelope for envelope in envelopes if envelope["messageType"] == "DATA_MESSAGE"]

    def delivered(self) -> list[str]:
        return [event["message"] for envelope in self.envelopes() for event in envelope["logEvents"]]

    def found(self, pattern: str = "", **asked: Any) -> list[str]:
        events = self.client("logs").filter_log_events(logGroupName=GROUP, filterPattern=pattern, **asked)[
            "events"
        ]
        return [event["message"] for event in events]

    def metric(self, name: str, **dimensions: str) -> float:
        answer = self.client("cloudwatch").get_metric_statistics(
            Namespace="AWS/Logs",
            MetricName=name,
            Dimensions=[{"Name": key, "Value": value} for key, value in dimensions.items()],
            StartTime=(self.now_ms - HOUR_MS) / 1000,
            EndTime=(self.now_ms + HOUR_MS) / 1000,
            Period=7200,
            Statistics=["Sum"],
        )
        return float(sum(point["Sum"] for point in answer["Datapoints"]))


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    logs.install(lambda: world.now_ms * 1_000_000)
    with mock_aws():
        world.client("kinesis").create_stream(StreamName="usage", ShardCount=2)
        world.client("logs").create_log_group(logGroupName=GROUP)
        for stream in ("one", "two"):
            world.client("logs").create_log_stream(logGroupName=GROUP, logStreamName=stream)
        yield world


def refused(error: pytest.ExceptionInfo[ClientError]) -> tuple[str, str]:
    answer = error.value.response["Error"]
    return answer["Code"], answer["Message"]


# ---- Delivery ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("", ["AUDIT a", '{"tag": "AUDIT"}', "noise"]),
        ("AUDIT", ["AUDIT a", '{"tag": "AUDIT"}']),
        ('{ $.tag = "AUDIT" }', ['{"tag": "AUDIT"}']),
        ("-AUDIT", ["noise"]),
        ("?AUDIT ?noise", ["AUDIT a", '{"tag": "AUDIT"}', "noise"]),
        ("%^A%", ["AUDIT a"]),
        ("[word=AUDIT, rest]", ["AUDIT a"]),
        ("nothing", []),
    ],
)
def test_a_subscription_delivers_what_its_pattern_selects(
    world: World, pattern: str, expected: list[str]
) -> None:
    """Fact sheet 4c, and the four patterns that moto delivered everything for (local.md, 1)."""
    world.subscribe(pattern)
    world.put("AUDIT a", '{"tag": "AUDIT"}', "noise")
    assert world.delivered() == expected


def test_an_envelope_is_as_aws_sends_it(world: World) -> None:
    """Fact sheet 4a."""
    world.subscribe("", name="mine")
    world.put("hello\n", "again")
    (envelope,) = world.envelopes()
    events = envelope.pop("logEvents")
    assert envelope == {
        "messageType": "DATA_MESSAGE",
        "owner": "123456789012",
        "logGroup": GROUP,
        "logStream": "one",
        "subscriptionFilters": ["mine"],
    }
    assert [sorted(event) for event in events] == [["id", "message", "timestamp"]] * 2
    assert [event["message"] for event in events] == ["hello\n", "again"]
    assert all(isinstance(event["id"], str) and len(event["id"]) == 56 for event in events)
    assert events[0]["id"] < events[1]["id"]


def test_an_id_begins_with_its_time_as_in_aws_s_sample() -> None:
    """Fact sheet 4a: the id of an event of 1668093027015."""
    sample = 37199717562907174288355125807040114704837640994633613312
    event = Event(1_668_093_027_015, "", 0, sample % 2**144)
    assert event.event_id == str(sample)


def test_filter_log_events_and_delivery_tell_the_same_id(world: World) -> None:
    world.subscribe("")
    world.put("a", "b")
    delivered = [event["id"] for envelope in world.envelopes() for event in envelope["logEvents"]]
    found = world.client("logs").filter_log_events(logGroupName=GROUP)["events"]
    assert [event["eventId"] for event in found] == delivered
    read = world.client("logs").get_log_events(logGroupName=GROUP, logStreamName="one")["events"]
    assert sorted(read[0]) == ["ingestionTime", "message", "timestamp"]


def test_fields_of_a_space_delimited_pattern_are_in_the_envelope_without_a_dollar(world: World) -> None:
    """aws-lambda-log-example.json in github.com/amazon-archives/cloudwatch-logs-subscription-consumer."""
    world.subscribe('[timestamp=*Z, request_id="*-*", event]')
    message = '2015-01-13T02:28:53.213Z c342155b-1ec0-11e5-b0e2-f317438eb2f6 { "key1": 100 }'
    world.put(message, "START RequestId")
    (envelope,) = world.envelopes()
    (event,) = envelope["logEvents"]
    assert event["extractedFields"] == {
        "timestamp": "2015-01-13T02:28:53.213Z",
        "request_id": "c342155b-1ec0-11e5-b0e2-f317438eb2f6",
        "event": '{ "key1": 100 }',
    }
    assert event["message"] == message


def test_a_subscription_begins_with_a_control_message(world: World) -> None:
    """Fact sheet 4a."""
    world.subscribe("never", name="first")
    (record,) = world.records()
    envelope = json.loads(gzip.decompress(record["Data"]))
    assert envelope == {
        "messageType": "CONTROL_MESSAGE",
        "owner": "CloudwatchLogs",
        "logGroup": "",
        "logStream": "",
        "subscriptionFilters": [],
        "logEvents": [
            {
                "id": "",
                "timestamp": NOW_MS,
                "message": "CWL CONTROL MESSAGE: Checking health of destination Kinesis stream.",
            }
        ],
    }
    assert log_events(record["Data"]) == [None]


def keys(world: World) -> Mapping[str, set[str]]:
    """Return the partition keys that each log stream's records have."""
    found: dict[str, set[str]] = {}
    for record in world.records():
        envelope = json.loads(gzip.decompress(record["Data"]))
        found.setdefault(envelope["logStream"], set()).add(record["PartitionKey"])
    return found


@pytest.mark.parametrize(("distribution", "keys_of_a_stream"), [(None, 1), ("ByLogStream", 1), ("Random", 3)])
def test_records_are_distributed_by_log_stream_or_at_random(
    world: World, distribution: str | None, keys_of_a_stream: int
) -> None:
    """API_PutSubscriptionFilter, distribution."""
    world.subscribe("", **({"distribution": distribution} if distribution else {}))
    for _ in range(3):
        world.put("a", stream="one")
        world.put("b", stream="two")
    found = keys(world)
    assert [len(found[stream]) for stream in ("one", "two")] == [keys_of_a_stream] * 2
    assert not found["one"] & found["two"]
    (described,) = world.client("logs").describe_subscription_filters(logGroupName=GROUP)[
        "subscriptionFilters"
    ]
    assert described["distribution"] == distribution or distribution is None


def incompressible(characters: int, seed: int) -> str:
    """Return characters of one byte each, of which a quarter needs six in an envelope's JSON."""
    return "".join(map(chr, random.Random(seed).choices(range(1, 0x80), k=characters)))


def test_a_delivery_that_does_not_fit_into_a_kinesis_record_is_cut(world: World) -> None:
    """Fact sheet 6: a record is at most 1 MiB."""
    world.subscribe("")
    lines = [incompressible(50_000, seed) for seed in range(20)]
    world.put(*lines)
    sizes = [len(record["Data"]) for record in world.records()]
    assert len(sizes) == 3, "one control message, and two halves"
    assert max(sizes) <= MAX_RECORD_BYTES
    assert world.delivered() == lines


def test_an_event_that_fits_into_no_record_is_counted_as_not_delivered(world: World) -> None:
    """Fact sheet 4b says it could be; what the service does then is not confirmed."""
    world.subscribe("", name="usage")
    world.put(incompressible(1_048_550, 0))
    assert world.delivered() == []
    dimensions = {"LogGroupName": GROUP, "DestinationType": "Kinesis", "FilterName": "usage"}
    assert world.metric("DeliveryErrors", **dimensions) == 1


@given(st.lists(st.text(min_size=1, max_size=40), max_size=20), st.integers(150, 400))
def test_cutting_keeps_every_event_once_and_in_order(messages: list[str], limit: int) -> None:
    entries = [{"id": str(number), "message": message} for number, message in enumerate(messages)]
    parts = fitting({"logGroup": "g"}, entries, limit)
    whole = [entry for data, _ in parts for entry in json.loads(gzip.decompress(data))["logEvents"]]
    assert whole == entries
    assert all(len(data) <= limit or number == 1 for data, number in parts)


def test_a_stream_that_is_gone_costs_the_delivery_and_not_the_event(world: World) -> None:
    """CloudWatch-Logs-Monitoring-CloudWatch-Metrics, DeliveryErrors."""
    world.subscribe("", name="usage")
    world.client("kinesis").delete_stream(StreamName="usage")
    world.put("a", "b")
    assert world.found() == ["a", "b"]
    dimensions = {"LogGroupName": GROUP, "DestinationType": "Kinesis", "FilterName": "usage"}
    assert world.metric("DeliveryErrors", **dimensions) == 2
    assert world.metric("ForwardedLogEvents", **dimensions) == 0


def test_what_comes_in_and_goes_out_is_counted(world: World) -> None:
    """CloudWatch-Logs-Monitoring-CloudWatch-Metrics."""
    world.subscribe("a", name="usage")
    world.put("a", "b", "ab")
    dimensions = {"LogGroupName": GROUP, "DestinationType": "Kinesis", "FilterName": "usage"}
    assert world.metric("IncomingLogEvents", LogGroupName=GROUP) == 3
    assert world.metric("IncomingLogEvents") == 3
    assert world.metric("IncomingBytes", LogGroupName=GROUP) == 4 + 3 * 26
    assert world.metric("ForwardedLogEvents", **dimensions) == 2
    (record,) = [each for each in world.records() if messages_in(each["Data"])]
    assert world.metric("ForwardedBytes", **dimensions) == len(record["Data"])


# ---- Subscription filters ----------------------------------------------------------------------------------


def test_five_subscriptions_are_taken_and_each_delivers(world: World) -> None:
    """Fact sheet 4b: two, or five since September 2026."""
    for number in range(5):
        world.subscribe(f"a{number}", name=f"f{number}")
    with pytest.raises(ClientError) as error:
        world.subscribe("", name="f5")
    assert refused(error)[0] == "LimitExceededException"
    world.subscribe("b", name="f0")
    world.put("a0", "a1", "b")
    assert sorted(world.delivered()) == ["a1", "b"]


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("my-tag", "Invalid character(s) in term 'my-tag'"),
        ("{ $.a = ", "Invalid filter pattern: no } at its end"),
        ("x" * 1025, "Invalid filter pattern: it has 1025 characters, more than 1024"),
    ],
)
def test_a_pattern_is_refused_wherever_it_is_given(world: World, pattern: str, message: str) -> None:
    client = world.client("logs")
    transformation = {"metricName": "m", "metricNamespace": "n", "metricValue": "1"}
    for ask in (
        lambda: world.subscribe(pattern),
        lambda: world.found(pattern),
        lambda: client.test_metric_filter(filterPattern=pattern, logEventMessages=["x"]),
        lambda: client.put_metric_filter(
            logGroupName=GROUP, filterName="f", filterPattern=pattern, metricTransformations=[transformation]
        ),
    ):
        with pytest.raises(ClientError) as error:
            ask()
        assert refused(error) == ("InvalidParameterException", message)
    assert client.describe_subscription_filters(logGroupName=GROUP)["subscriptionFilters"] == []


def test_a_log_group_has_five_filters_with_regular_expressions(world: World) -> None:
    """FilterAndPatternSyntax, quotas; they count for metric and subscription filters together."""
    transformation = {"metricName": "m", "metricNamespace": "n", "metricValue": "1"}
    client = world.client("logs")
    for number in range(3):
        world.subscribe("%a%", name=f"s{number}")
    for number in range(2):
        client.put_metric_filter(
            logGroupName=GROUP,
            filterName=f"m{number}",
            filterPattern="{ $.a = %x% }",
            metricTransformations=[transformation],
        )
    with pytest.raises(ClientError) as error:
        world.subscribe("%b%", name="s3")
    assert refused(error)[0] == "LimitExceededException"
    world.subscribe("%b%", name="s2")
    world.subscribe("b", name="s3")


@pytest.mark.parametrize("service", ["lambda", "firehose", "logs"])
def test_other_destinations_are_refused_by_name(world: World, service: str) -> None:
    arn = f"arn:aws:{service}:us-east-1:123456789012:x"
    with pytest.raises(ClientError) as error:
        world.subscribe("", destinationArn=arn)
    assert refused(error) == (
        "InvalidParameterException",
        f"no delivery to {arn} on one machine, only to Kinesis data streams",
    )


def test_a_subscription_needs_its_stream_and_its_log_group(world: World) -> None:
    with pytest.raises(ClientError, match="Kinesis stream"):
        world.subscribe("", destinationArn=STREAM_ARN + "x")
    with pytest.raises(ClientError) as error:
        world.client("logs").put_subscription_filter(
            logGroupName="none", filterName="f", filterPattern="", destinationArn=STREAM_ARN
        )
    assert refused(error)[0] == "ResourceNotFoundException"


# ---- What is taken -----------------------------------------------------------------------------------------

OLDEST_MS = NOW_MS - 14 * DAY_MS
NEWEST_MS = NOW_MS + 2 * HOUR_MS


@pytest.mark.parametrize(
    ("times", "retention_days", "taken", "rejected"),
    [
        ([NOW_MS], None, 1, {}),
        ([OLDEST_MS], None, 1, {}),
        ([OLDEST_MS - 1], None, 0, {"tooOldLogEventEndIndex": 1}),
        ([OLDEST_MS - 2, OLDEST_MS - 1, OLDEST_MS], None, 1, {"tooOldLogEventEndIndex": 2}),
        ([NEWEST_MS], None, 1, {}),
        ([NEWEST_MS, NEWEST_MS + 1, NEWEST_MS + 2], None, 1, {"tooNewLogEventStartIndex": 1}),
        (
            [OLDEST_MS - 1, NOW_MS, NEWEST_MS + 1],
            None,
            1,
            {"tooOldLogEventEndIndex": 1, "tooNewLogEventStartIndex": 2},
        ),
        ([NOW_MS - DAY_MS - 1, NOW_MS], 1, 1, {"expiredLogEventEndIndex": 1}),
        ([NOW_MS - DAY_MS], 1, 1, {}),
        ([OLDEST_MS - 1], 30, 0, {"tooOldLogEventEndIndex": 1}),
        ([NOW_MS - DAY_MS, NOW_MS], None, 2, {}),
    ],
)
def test_events_out_of_their_time_are_not_taken(
    times: Sequence[int], retention_days: int | None, taken: int, rejected: dict[str, int]
) -> None:
    """API_PutLogEvents, and API_RejectedLogEventsInfo: the new index is inclusive, the old ones exclusive."""
    events = [{"timestamp": at, "message": "x"} for at in times]
    found, info = admitted(events, NOW_MS, retention_days)
    assert (len(found), info) == (taken, rejected)


@pytest.mark.parametrize(
    ("events", "says"),
    [
        ([(NOW_MS, "a"), (NOW_MS - 1, "b")], "must be in chronological order"),
        ([(NOW_MS - DAY_MS - 1, "a"), (NOW_MS, "b")], "cannot span more than 24 hours"),
        (
            [(NOW_MS, "x" * (MAX_BATCH_BYTES - 25))],
            "Upload too large: 1048577 bytes exceeds limit of 1048576",
        ),
        ([(NOW_MS, "\u00e4" * (MAX_BATCH_BYTES // 2))], "Upload too large: 1048602 bytes"),
        ([(NOW_MS, "x")] * (MAX_BATCH_EVENTS + 1), "between 1 and 10000"),
        ([], "between 1 and 10000"),
    ],
)
def test_a_batch_past_its_limits_is_refused_as_a_whole(events: list[tuple[int, str]], says: str) -> None:
    """API_PutLogEvents; that the span is of valid events only is in the table above."""
    with pytest.raises(InvalidParameterException) as error:
        admitted([{"timestamp": at, "message": message} for at, message in events], NOW_MS, None)
    assert says in str(error.value)


def test_a_batch_at_its_limits_is_taken() -> None:
    whole = [{"timestamp": NOW_MS, "message": "x" * (MAX_BATCH_BYTES - 26)}]
    assert admitted(whole, NOW_MS, None) == (whole, {})
    whole = [{"timestamp": NOW_MS, "message": "x" * (MAX_BATCH_BYTES - 29) + "\ud800"}]
    assert admitted(whole, NOW_MS, None) == (whole, {})
    many = [{"timestamp": NOW_MS, "message": "x"}] * MAX_BATCH_EVENTS
    assert admitted(many, NOW_MS, None) == (many, {})


def test_events_that_are_not_taken_are_neither_kept_nor_delivered(world: World) -> None:
    world.subscribe("")
    old = world.put("old", at_ms=OLDEST_MS - 1)
    new = world.put("new", at_ms=NEWEST_MS + 1)
    world.put("kept")
    assert old["rejectedLogEventsInfo"] == {"tooOldLogEventEndIndex": 1}
    assert new["rejectedLogEventsInfo"] == {"tooNewLogEventStartIndex": 0}
    assert world.found() == ["kept"]
    assert world.delivered() == ["kept"]


def test_the_clock_that_is_given_decides(world: World) -> None:
    world.now_ms += 30 * DAY_MS
    world.put("later")
    assert world.found() == ["later"]
    assert world.put("now too old", at_ms=NOW_MS)["rejectedLogEventsInfo"] == {"tooOldLogEventEndIndex": 1}


def test_a_log_stream_that_is_not_there_is_an_error(world: World) -> None:
    with pytest.raises(ClientError, match="The specified log stream does not exist"):
        world.put("a", stream="three")
    with pytest.raises(ClientError, match="The specified log group does not exist"):
        world.client("logs").put_log_events(
            logGroupName="none", logStreamName="one", logEvents=[{"timestamp": NOW_MS, "message": "a"}]
        )


# ---- What is kept ------------------------------------------------------------------------------------------


def test_events_past_the_retention_are_gone(world: World) -> None:
    world.client("logs").put_retention_policy(logGroupName=GROUP, retentionInDays=1)
    world.put("first")
    world.now_ms += DAY_MS
    world.put("second", stream="two")
    assert world.found() == ["first", "second"]
    world.now_ms += 1
    assert world.found() == ["second"]
    read = world.client("logs").get_log_events(logGroupName=GROUP, logStreamName="one")["events"]
    assert read == []


def test_a_log_group_does_not_grow_for_ever() -> None:
    clock = World()
    logs.install(lambda: clock.now_ms * 1_000_000, max_group_bytes=4_000_000)
    with mock_aws():
        clock.client("logs").create_log_group(logGroupName=GROUP)
        clock.client("logs").create_log_stream(logGroupName=GROUP, logStreamName="one")
        for batch in range(12):
            clock.put(*(f"{batch}-{number} {'x' * 240}" for number in range(2_000)))
        kept = []
        pages = clock.client("logs").get_paginator("filter_log_events")
        for page in pages.paginate(logGroupName=GROUP):
            kept += [event["message"].split()[0] for event in page["events"]]
    # About 500 bytes each: at most 8,000 of 24,000, and the newest.
    everything = [f"{batch}-{number}" for batch in range(12) for number in range(2_000)]
    assert 5_000 <= len(kept) <= 8_000
    assert kept == everything[-len(kept) :]


# ---- What is found -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, ["a", "b", "c"]),
        ({"startTime": NOW_MS + 1}, ["b", "c"]),
        ({"endTime": NOW_MS + 1}, ["a", "b"]),
        ({"logStreamNames": ["two"]}, ["b"]),
        ({"logStreamNamePrefix": "t"}, ["b"]),
        ({"logStreamNamePrefix": "x"}, []),
        ({"pattern": "?a ?c"}, ["a", "c"]),
        ({"limit": 2}, ["a", "b"]),
        ({"interleaved": False}, ["a", "b", "c"]),
    ],
)
def test_events_are_found_by_time_stream_and_pattern(
    world: World, asked: dict[str, Any], expected: list[str]
) -> None:
    """API_FilterLogEvents: times are inclusive, and streams are always mixed."""
    world.put("a", at_ms=NOW_MS)
    world.put("b", stream="two", at_ms=NOW_MS + 1)
    world.put("c", at_ms=NOW_MS + 2)
    assert world.found(**asked) == expected


def test_the_end_of_get_log_events_is_exclusive(world: World) -> None:
    """API_GetLogEvents, endTime."""
    for offset in range(3):
        world.put(str(offset), at_ms=NOW_MS + offset)
    answer = world.client("logs").get_log_events(
        logGroupName=GROUP, logStreamName="one", startTime=NOW_MS + 1, endTime=NOW_MS + 2, startFromHead=True
    )
    assert [event["message"] for event in answer["events"]] == ["1"]


@pytest.mark.parametrize(
    "asked",
    [
        {"limit": 10_001},
        {"logStreamNames": ["one"], "logStreamNamePrefix": "o"},
    ],
)
def test_a_search_that_the_service_would_not_make_is_refused(world: World, asked: dict[str, Any]) -> None:
    with pytest.raises(ClientError) as error:
        world.found(**asked)
    assert refused(error)[0] == "InvalidParameterException"


def test_live_tail_has_the_whole_language(world: World) -> None:
    world.put("AUDIT", "noise", '{"a": 1}')
    arn = f"arn:aws:logs:us-east-1:123456789012:log-group:{GROUP}"
    group = world.client("logs").describe_log_groups(logGroupNamePrefix=GROUP)["logGroups"][0]
    assert group["logGroupArn"] == arn
    response = world.client("logs").start_live_tail(
        logGroupIdentifiers=[arn], logEventFilterPattern="{ $.a = 1 }"
    )
    updates = [event["sessionUpdate"] for event in response["responseStream"] if "sessionUpdate" in event]
    assert [each["message"] for update in updates for each in update["sessionResults"]] == ['{"a": 1}']


# ---- TestMetricFilter --------------------------------------------------------------------------------------


def test_a_metric_filter_is_tested_as_in_the_api_s_example(world: World) -> None:
    """API_TestMetricFilter: "matches 4XX response codes for HTML pages", and "[ERROR]" in log events."""
    messages = [
        '127.0.0.1 - frank [10/Oct/2000:13:25:15 -0700] "GET /index.html HTTP/1.0" 404 1534',
        '127.0.0.1 - frank [10/Oct/2000:13:35:22 -0700] "GET /about-us/index.html HTTP/1.0" 200 5324',
    ]
    client = world.client("logs")
    answer = client.test_metric_filter(
        filterPattern="[..., request=*.html*, status_code=4*,]", logEventMessages=messages
    )
    assert answer["matches"] == [
        {
            "eventNumber": 0,
            "eventMessage": messages[0],
            "extractedValues": {
                "$status_code": "404",
                "$request": "GET /index.html HTTP/1.0",
                "$7": "1534",
                "$4": "10/Oct/2000:13:25:15 -0700",
                "$2": "-",
                "$3": "frank",
                "$1": "127.0.0.1",
            },
        }
    ]
    answer = client.test_metric_filter(filterPattern='"[ERROR]"', logEventMessages=["[INFO] a", "[ERROR] b"])
    assert answer["matches"] == [{"eventNumber": 1, "eventMessage": "[ERROR] b", "extractedValues": {}}]


@pytest.mark.parametrize("number", [1, 50])
def test_up_to_fifty_messages_are_tested(world: World, number: int) -> None:
    client = world.client("logs")
    answer = client.test_metric_filter(filterPattern="x", logEventMessages=["x"] * number)
    assert len(answer["matches"]) == number
    with pytest.raises(ClientError) as error:
        client.test_metric_filter(filterPattern="x", logEventMessages=["x"] * 51)
    assert refused(error)[0] == "InvalidParameterException"


# ---- The shipper -------------------------------------------------------------------------------------------


def test_the_shipper_makes_a_log_stream_once(world: World) -> None:
    shipper = logs.Shipper(world.client("logs"))
    shipper.ship(GROUP, "2026/11/20/[$LATEST]a", [(NOW_MS, "one")])
    shipper.ship(GROUP, "2026/11/20/[$LATEST]a", [(NOW_MS, "two")])
    assert world.found(logStreamNamePrefix="2026") == ["one", "two"]


def test_a_log_stream_is_there_for_all_who_ship_first(world: World) -> None:
    shipper, together = logs.Shipper(world.client("logs")), threading.Barrier(8)

    def ship(number: int) -> None:
        together.wait(60)
        shipper.ship(GROUP, "access", [(NOW_MS, str(number))])

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(ship, range(8)))
    assert sorted(world.found(logStreamNamePrefix="access")) == [str(number) for number in range(8)]
