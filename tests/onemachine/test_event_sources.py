"""Event source mappings: their decisions as tables, and the mappings themselves against moto's services."""

from __future__ import annotations

import base64
import json
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import boto3
import hypothesis
import pytest
from botocore.exceptions import ClientError
from hypothesis import strategies as st
from moto.server import ThreadedMotoServer
from onemachine import event_sources
from onemachine.batches import (
    Batch,
    GivenUp,
    KinesisSettings,
    SqsSettings,
    StreamRecord,
    after_failure,
    batch_length,
    event_message,
    event_record,
    failed_positions,
    failure_document,
    failure_key,
    first_failure,
    lane_of,
    record_bytes,
    whole_event,
    without_expired,
)
from onemachine.destinations import Destinations, Send
from onemachine.event_sources import KinesisMapping, SqsMapping
from onemachine.functions import MAX_PAYLOAD_BYTES, Result, ThrottledError

STREAM_ARN = "arn:aws:kinesis:us-east-1:123456789012:stream/usage"
SHARD = "shardId-000000000000"
ARRIVED = datetime(2026, 11, 20, 9, 0, 0, 744123, tzinfo=UTC)


def record(number: int, data: bytes = b"x", arrived: datetime = ARRIVED) -> StreamRecord:
    return StreamRecord(str(number), "key", data, arrived)


def batch(*numbers: int, failures: int = 0) -> Batch:
    return Batch(tuple(record(number) for number in numbers), failures)


def settings(**values: Any) -> KinesisSettings:
    return KinesisSettings(**{"function": "consumer", "stream_arn": STREAM_ARN, **values})


def answered(answer: object, error: str | None = None) -> Result:
    return Result(json.dumps(answer).encode(), error, "request-id")


# --- decisions --------------------------------------------------------------------------------------------


def test_a_record_has_the_shape_of_the_event() -> None:
    assert event_record(record(7, b"\x1f\x8b"), SHARD, STREAM_ARN) == {
        "kinesis": {
            "kinesisSchemaVersion": "1.0",
            "partitionKey": "key",
            "sequenceNumber": "7",
            "data": "H4s=",
            "approximateArrivalTimestamp": 1795165200.744,
        },
        "eventSource": "aws:kinesis",
        "eventVersion": "1.0",
        "eventID": "shardId-000000000000:7",
        "eventName": "aws:kinesis:record",
        "invokeIdentityArn": "arn:aws:iam::123456789012:role/lambda-role",
        "awsRegion": "us-east-1",
        "eventSourceARN": STREAM_ARN,
    }


@pytest.mark.parametrize("size", [0, 1, 2, 3, 1000])
def test_the_size_of_a_record_is_known_before_it_is_written(size: int) -> None:
    written = json.dumps(event_record(record(7, b"x" * size), SHARD, STREAM_ARN))
    assert record_bytes(record(7, b"x" * size), SHARD, STREAM_ARN) == len(written)


FRAME = len(whole_event([]))
HALF = MAX_PAYLOAD_BYTES // 2
OTHER_HALF = MAX_PAYLOAD_BYTES - FRAME - len(", ") - HALF

LENGTHS = [
    ([], 10, 0),
    ([1, 1, 1], 10, 3),
    ([1, 1, 1], 2, 2),
    ([1, 1, 1], 3, 3),
    ([HALF, OTHER_HALF], 10, 2),
    ([HALF, OTHER_HALF + 1], 10, 1),
    ([MAX_PAYLOAD_BYTES - FRAME], 10, 1),
    ([MAX_PAYLOAD_BYTES + 1, 1], 10, 1),
]


@pytest.mark.parametrize(("sizes", "batch_size", "length"), LENGTHS)
def test_a_batch_ends_at_its_size_and_at_6_mb(sizes: list[int], batch_size: int, length: int) -> None:
    assert batch_length(sizes, batch_size) == length


def test_the_sizes_add_up_to_the_event() -> None:
    shaped = [event_record(record(number), SHARD, STREAM_ARN) for number in range(3)]
    sizes = [record_bytes(record(number), SHARD, STREAM_ARN) for number in range(3)]
    assert len(whole_event(shaped)) == FRAME + sum(sizes) + 2 * len(", ")
    assert json.loads(whole_event(shaped)) == {"Records": shaped}


def failures(*names: object) -> dict[str, object]:
    return {"batchItemFailures": [{"itemIdentifier": name} for name in names]}


# The batch is 9, 10, 11: as text, 10 comes before 9.
REPORTS: list[tuple[object, int | None]] = [
    (None, None),
    ({}, None),
    (failures(), None),
    ({"batchItemFailures": None}, None),
    (failures("10"), 1),
    (failures("11", "10"), 1),
    (failures("10", "9"), 0),
    (failures("11", "11"), 2),
    (failures(""), 0),
    (failures(None), 0),
    (failures("12"), 0),
    (failures("11", "12"), 0),
    (failures("shardId-000000000000:11"), 0),
    ({"batchItemFailures": [{"sequenceNumber": "11"}]}, 0),
    ({"batchItemFailures": ["11"]}, 0),
    ({"batchItemFailures": "11"}, 0),
    ("done", 0),
    ([], 0),
]


@pytest.mark.parametrize(("answer", "position"), REPORTS)
def test_the_lowest_reported_failure_is_the_checkpoint(answer: object, position: int | None) -> None:
    assert first_failure(answered(answer), ["9", "10", "11"], reports=True) == position


def test_an_answer_that_is_not_json_fails_the_whole_batch() -> None:
    assert first_failure(Result(b"\xff", None, "id"), ["9", "10"], reports=True) == 0


def test_reports_count_only_where_the_mapping_asks_for_them() -> None:
    assert first_failure(answered(failures("10")), ["9", "10"], reports=False) is None
    assert first_failure(answered(failures(), "Unhandled"), ["9", "10"], reports=False) == 0
    assert first_failure(answered(failures(), "Unhandled"), ["9", "10"], reports=True) == 0


def test_failed_messages_are_named_one_by_one() -> None:
    assert failed_positions(answered(failures("c", "a")), ["a", "b", "c"], reports=True) == {0, 2}
    assert failed_positions(answered(failures("c", "x")), ["a", "b", "c"], reports=True) == {0, 1, 2}


EXHAUSTED = "RetryAttemptsExhausted"

AFTER: list[tuple[str, Batch, int, dict[str, Any], list[Batch | GivenUp]]] = [
    ("again, without end", batch(1, 2, failures=99), 0, {}, [batch(1, 2, failures=100)]),
    ("from the checkpoint on", batch(1, 2, 3), 1, {}, [batch(2, 3, failures=1)]),
    ("the last retry", batch(1, failures=1), 0, {"maximum_retry_attempts": 2}, [batch(1, failures=2)]),
    (
        "no retry left",
        batch(1, 2, failures=2),
        0,
        {"maximum_retry_attempts": 2},
        [GivenUp(batch(1, 2, failures=3), EXHAUSTED)],
    ),
    (
        "no retries at all",
        batch(1, 2),
        1,
        {"maximum_retry_attempts": 0},
        [GivenUp(batch(2, failures=1), EXHAUSTED)],
    ),
    ("halved", batch(1, 2, 3), 0, {"bisect": True}, [batch(1), batch(2, 3)]),
    (
        "halving is no retry",
        batch(1, 2, failures=2),
        0,
        {"bisect": True, "maximum_retry_attempts": 2},
        [batch(1, failures=2), batch(2, failures=2)],
    ),
    (
        "cut at the checkpoint",
        batch(1, 2, 3, 4),
        3,
        {"bisect": True, "maximum_retry_attempts": 0},
        [batch(4)],
    ),
    (
        "one record cannot be halved",
        batch(1),
        0,
        {"bisect": True, "maximum_retry_attempts": 0},
        [GivenUp(batch(1, failures=1), EXHAUSTED)],
    ),
]


@pytest.mark.parametrize(
    ("failed", "position", "values", "expected"),
    [case[1:] for case in AFTER],
    ids=[case[0] for case in AFTER],
)
def test_a_batch_that_failed_is_tried_again_cut_or_given_up(
    failed: Batch, position: int, values: dict[str, Any], expected: list[Batch | GivenUp]
) -> None:
    assert after_failure(failed, position, settings(**values)) == expected


def aged(*ages_s: float) -> Batch:
    return Batch(tuple(record(n, arrived=ARRIVED - timedelta(seconds=age)) for n, age in enumerate(ages_s)))


def test_records_are_given_up_past_the_maximum_age() -> None:
    records = aged(61, 60.001, 60, 1)
    expired, fresh = without_expired(records, ARRIVED, 60)
    assert expired == GivenUp(Batch(records.records[:2]), "RecordAgeExceeded")
    assert fresh == Batch(records.records[2:])


def test_records_do_not_age_without_a_maximum() -> None:
    assert without_expired(aged(1_000_000), ARRIVED, -1) == [aged(1_000_000)]
    assert without_expired(aged(5), ARRIVED, 1) == [GivenUp(aged(5), "RecordAgeExceeded")]


def test_the_failure_document_holds_the_whole_event() -> None:
    given_up = GivenUp(batch(9, 10, failures=3), EXHAUSTED)
    document = failure_document(given_up, answered({}, "Unhandled"), SHARD, settings(), ARRIVED)
    payload = document.pop("payload")
    assert document == {
        "requestContext": {
            "requestId": "request-id",
            "functionArn": "arn:aws:lambda:us-east-1:123456789012:function:consumer",
            "condition": EXHAUSTED,
            "approximateInvokeCount": 3,
        },
        "responseContext": {"statusCode": 200, "executedVersion": "$LATEST", "functionError": "Unhandled"},
        "version": "1.0",
        "timestamp": "2026-11-20T09:00:00.744Z",
        "KinesisBatchInfo": {
            "shardId": SHARD,
            "startSequenceNumber": "9",
            "endSequenceNumber": "10",
            "approximateArrivalOfFirstRecord": "2026-11-20T09:00:00.744Z",
            "approximateArrivalOfLastRecord": "2026-11-20T09:00:00.744Z",
            "batchSize": 2,
            "streamArn": STREAM_ARN,
        },
    }
    assert json.loads(payload) == {"Records": [event_record(record(n), SHARD, STREAM_ARN) for n in (9, 10)]}


def test_the_failure_key_names_mapping_shard_and_time() -> None:
    key = failure_key("mapping", SHARD, ARRIVED)
    assert key.startswith(f"aws/lambda/mapping/{SHARD}/2026/11/20/2026-11-20T09.00.00-")
    assert key != failure_key("mapping", SHARD, ARRIVED)


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"batch_size": 0}, "BatchSize is 0"),
        ({"batch_size": 10_001}, "BatchSize is 10001"),
        ({"window_s": 301}, "MaximumBatchingWindowInSeconds is 301"),
        (
            {"on_failure_arn": "arn:aws:kafka:us-east-1:123456789012:cluster/c"},
            "does not belong to s3, sqs, sns",
        ),
        ({"on_failure_arn": "arn:aws:sqs:us-east-1:123456789012:q.fifo"}, "FIFO"),
        ({"parallelization_factor": 0}, "ParallelizationFactor is 0"),
        ({"parallelization_factor": 11}, "ParallelizationFactor is 11"),
        ({"maximum_retry_attempts": 10_001}, "MaximumRetryAttempts is 10001"),
        ({"maximum_record_age_s": 604_801}, "MaximumRecordAgeInSeconds is 604801"),
        ({"starting_position": "AT_TIMESTAMP"}, "StartingPositionTimestamp"),
        ({"starting_timestamp": ARRIVED}, "StartingPositionTimestamp"),
        ({"starting_position": "NOPE"}, "'NOPE'"),
    ],
)
def test_settings_outside_of_lambdas_limits_are_refused(values: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        settings(**values)


def test_settings_at_lambdas_limits_are_taken() -> None:
    assert settings(batch_size=10_000, window_s=300).batch_size == 10_000
    assert SqsSettings("f", "a", "u", batch_size=10_000, window_s=1).batch_size == 10_000
    assert settings(parallelization_factor=10, maximum_retry_attempts=10_000, maximum_record_age_s=604_800)
    assert SqsSettings("f", "a", "u", maximum_concurrency=2)
    assert SqsSettings("f", "a", "u", maximum_concurrency=1_000)
    refused: list[tuple[dict[str, Any], str]] = [
        ({"batch_size": 11}, "needs a window of 1 s"),
        ({"maximum_concurrency": 1}, "MaximumConcurrency is 1"),
        ({"maximum_concurrency": 1_001}, "MaximumConcurrency is 1001"),
        ({"queue_arn": "arn:aws:sqs:us-east-1:123456789012:q.fifo"}, "FIFO"),
    ]
    for values, complaint in refused:
        with pytest.raises(ValueError, match=complaint):
            SqsSettings(**{"function": "f", "queue_arn": "a", "queue_url": "u", **values})


def test_a_message_has_the_shape_of_the_event() -> None:
    message = {
        "MessageId": "id",
        "ReceiptHandle": "handle",
        "Body": "text",
        "MD5OfBody": "md5",
        "MD5OfMessageAttributes": "md5 too",
        "Attributes": {"ApproximateReceiveCount": "1"},
        "MessageAttributes": {
            "Text": {"DataType": "String", "StringValue": "t"},
            "Bytes": {"DataType": "Binary", "BinaryValue": b"\x00"},
        },
    }
    assert event_message(message, "arn:aws:sqs:eu-west-1:123456789012:q") == {
        "messageId": "id",
        "receiptHandle": "handle",
        "body": "text",
        "attributes": {"ApproximateReceiveCount": "1"},
        "messageAttributes": {
            "Text": {
                "stringValue": "t",
                "stringListValues": [],
                "binaryListValues": [],
                "dataType": "String",
            },
            "Bytes": {
                "binaryValue": "AA==",
                "stringListValues": [],
                "binaryListValues": [],
                "dataType": "Binary",
            },
        },
        "md5OfBody": "md5",
        "md5OfMessageAttributes": "md5 too",
        "eventSource": "aws:sqs",
        "eventSourceARN": "arn:aws:sqs:eu-west-1:123456789012:q",
        "awsRegion": "eu-west-1",
    }


# --- mappings ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Services:
    """Clients of the services that mappings use, and names that nobody has taken."""

    kinesis: Any
    sqs: Any
    s3: Any
    sns: Any
    send: Send
    names: Iterator[str]

    def stream(self, shards: int = 1) -> str:
        name = next(self.names)
        self.kinesis.create_stream(StreamName=name, ShardCount=shards)
        return f"arn:aws:kinesis:us-east-1:123456789012:stream/{name}"

    def put(self, stream_arn: str, *data: bytes) -> None:
        self.kinesis.put_records(
            StreamName=stream_arn.rpartition("/")[2],
            Records=[{"Data": each, "PartitionKey": str(place)} for place, each in enumerate(data)],
        )

    def bucket(self) -> str:
        name = next(self.names)
        self.s3.create_bucket(Bucket=name)
        return name

    def documents(self, bucket: str) -> dict[str, Any]:
        keys = [item["Key"] for item in self.s3.list_objects_v2(Bucket=bucket).get("Contents", [])]
        return {key: json.loads(self.s3.get_object(Bucket=bucket, Key=key)["Body"].read()) for key in keys}


@pytest.fixture(scope="module")
def services() -> Iterator[Services]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    clients = {
        service: boto3.client(
            service,
            endpoint_url=f"http://{host}:{port}",
            region_name="us-east-1",
            aws_access_key_id="local",
            aws_secret_access_key="local",
        )
        for service in ("kinesis", "sqs", "s3", "sns")
    }
    destinations = Destinations(clients.__getitem__, lambda *_: answered(None))
    yield Services(**clients, send=destinations.send, names=(f"name-{number}" for number in count()))
    for client in clients.values():
        client.close()
    server.stop()


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look and try again sooner than a person needs it."""
    monkeypatch.setattr(event_sources, "POLL_EVERY_S", 0.005)
    monkeypatch.setattr(event_sources, "FIRST_PAUSE_S", 0.005)


class Consumer:
    """Stands for the function: remembers the batches that it got, and answers as it is told."""

    def __init__(self, answer: Callable[[list[str], int], object] | None = None) -> None:
        self.batches: list[list[str]] = []
        self.done: list[str] = []
        self._answer = answer

    def __call__(self, function: str, payload: bytes) -> Result:
        assert function == "consumer"
        records = json.loads(payload)["Records"]
        texts = [
            item["body"] if "body" in item else base64.b64decode(item["kinesis"]["data"]).decode()
            for item in records
        ]
        self.batches.append(texts)
        failed = self._answer(texts, len(self.batches)) if self._answer else None
        if failed is Exception:
            return Result(b'{"errorType":"Poison"}', "Unhandled", "request-id")
        if isinstance(failed, dict):
            return answered(failed)
        if isinstance(failed, set):
            numbers = [records[place]["kinesis"]["sequenceNumber"] for place in sorted(failed, reverse=True)]
            return answered(failures(*numbers))
        if isinstance(failed, int):
            self.done += texts[:failed]
            return answered(failures(records[failed]["kinesis"]["sequenceNumber"]))
        self.done += texts
        return answered(None)


class CannotBeCalled:
    """A host of functions that is away for its first calls."""

    def __init__(self, calls: int, then: Consumer) -> None:
        self.left = calls
        self._then = then

    def __call__(self, function: str, payload: bytes) -> Result:
        if self.left:
            self.left -= 1
            raise ConnectionError("away")
        return self._then(function, payload)


def until(condition: Callable[[], bool]) -> None:
    waiting = threading.Event()
    for _ in range(6_000):
        if condition():
            return
        waiting.wait(0.01)
    pytest.fail("it did not happen within a minute")


def run(services: Services, invoke: Any, config: KinesisSettings) -> None:
    mapping = KinesisMapping(config, services.kinesis, services.send, invoke)
    mapping.start()
    try:
        until(mapping.idle)
    finally:
        mapping.stop()


def texts(*names: object) -> list[bytes]:
    return [str(name).encode() for name in names]


def test_a_stream_is_read_in_order_and_in_batches(services: Services) -> None:
    stream, consumer = services.stream(), Consumer()
    services.put(stream, *texts(*range(25)))
    run(services, consumer, settings(stream_arn=stream, batch_size=10))
    assert [len(each) for each in consumer.batches] == [10, 10, 5]
    assert consumer.done == [str(number) for number in range(25)]


def test_every_shard_is_read(services: Services) -> None:
    stream, consumer = services.stream(shards=3), Consumer()
    services.put(stream, *texts(*range(60)))
    run(services, consumer, settings(stream_arn=stream))
    assert sorted(consumer.done, key=int) == [str(number) for number in range(60)]
    assert len(consumer.batches) == 3


def test_latest_begins_with_what_comes_after_the_start(services: Services) -> None:
    stream, consumer = services.stream(), Consumer()
    services.put(stream, b"before")
    mapping = KinesisMapping(
        settings(stream_arn=stream, starting_position="LATEST"), services.kinesis, services.send, consumer
    )
    mapping.start()
    services.put(stream, b"after")
    until(lambda: bool(consumer.done))
    mapping.stop()
    assert consumer.done == ["after"]


def test_a_window_waits_for_a_batch_to_fill(services: Services) -> None:
    stream, consumer = services.stream(), Consumer()
    services.put(stream, *texts(1, 2))
    mapping = KinesisMapping(
        settings(stream_arn=stream, batch_size=4, window_s=300), services.kinesis, services.send, consumer
    )
    mapping.start()
    until(lambda: not mapping.idle())
    assert consumer.batches == []
    services.put(stream, *texts(3, 4))
    until(mapping.idle)
    mapping.stop()
    assert consumer.batches == [["1", "2", "3", "4"]]


def test_large_records_share_an_event_up_to_6_mb(services: Services) -> None:
    stream, consumer = services.stream(), Consumer()
    for number in range(7):
        services.put(stream, str(number).encode() * 900_000)
    run(services, consumer, settings(stream_arn=stream))
    assert [len(each) for each in consumer.batches] == [5, 2]


def test_a_partial_failure_is_delivered_again_from_its_lowest_number_on(services: Services) -> None:
    stream = services.stream()
    consumer = Consumer(lambda _, call: 2 if call == 1 else None)
    services.put(stream, *texts(*"abcde"))
    run(services, consumer, settings(stream_arn=stream, report_batch_item_failures=True))
    assert consumer.batches == [list("abcde"), list("cde")]
    assert consumer.done == list("abcde")


def test_a_failing_batch_is_tried_again_whole(services: Services) -> None:
    stream = services.stream()
    consumer = Consumer(lambda _, call: Exception if call < 3 else None)
    services.put(stream, *texts(*"ab"))
    run(services, consumer, settings(stream_arn=stream, maximum_retry_attempts=2))
    assert consumer.batches == [["a", "b"]] * 3


def test_a_poison_record_is_isolated_and_its_neighbours_are_processed(services: Services) -> None:
    stream, bucket = services.stream(), services.bucket()
    consumer = Consumer(lambda given, _: Exception if "poison" in given else None)
    services.put(stream, *texts(1, 2, 3, "poison", 5, 6, 7))
    run(
        services,
        consumer,
        settings(
            stream_arn=stream,
            bisect=True,
            maximum_retry_attempts=1,
            on_failure_arn=f"arn:aws:s3:::{bucket}",
            mapping_id="the-mapping",
        ),
    )
    assert consumer.done == ["1", "2", "3", "5", "6", "7"]
    assert consumer.batches.count(["poison"]) == 2
    ((key, document),) = services.documents(bucket).items()
    assert key.startswith(f"aws/lambda/the-mapping/{SHARD}/20")
    assert document["requestContext"]["condition"] == EXHAUSTED
    assert document["responseContext"]["functionError"] == "Unhandled"
    assert document["KinesisBatchInfo"]["batchSize"] == 1
    (event,) = json.loads(document["payload"])["Records"]
    assert base64.b64decode(event["kinesis"]["data"]) == b"poison"


def test_a_reported_poison_record_is_isolated_as_well(services: Services) -> None:
    stream, bucket = services.stream(), services.bucket()
    consumer = Consumer(lambda given, _: given.index("poison") if "poison" in given else None)
    services.put(stream, *texts(1, 2, "poison", 4, 5))
    run(
        services,
        consumer,
        settings(
            stream_arn=stream,
            report_batch_item_failures=True,
            bisect=True,
            maximum_retry_attempts=0,
            on_failure_arn=f"arn:aws:s3:::{bucket}",
        ),
    )
    assert consumer.done == ["1", "2", "4", "5"]
    assert len(services.documents(bucket)) == 1


def test_records_that_are_too_old_go_to_the_destination_unsent(services: Services) -> None:
    stream, bucket, consumer = services.stream(), services.bucket(), Consumer()
    services.put(stream, *texts("old", "older"))
    run(
        services,
        consumer,
        settings(stream_arn=stream, maximum_record_age_s=0, on_failure_arn=f"arn:aws:s3:::{bucket}"),
    )
    assert consumer.batches == []
    (document,) = services.documents(bucket).values()
    assert document["requestContext"]["condition"] == "RecordAgeExceeded"
    assert document["KinesisBatchInfo"]["batchSize"] == 2


def test_a_call_that_cannot_be_made_is_no_retry(services: Services) -> None:
    stream, consumer = services.stream(), Consumer()
    services.put(stream, *texts("a"))
    run(services, CannotBeCalled(2, consumer), settings(stream_arn=stream, maximum_retry_attempts=0))
    assert consumer.done == ["a"]


# What S3 answers, with the error's code and status; 0 where nothing does.
@pytest.mark.parametrize(
    ("code", "status", "waits"),
    [
        ("", 0, True),
        ("SlowDown", 503, True),
        ("InternalError", 500, True),
        ("ThrottlingException", 400, True),
        ("AccessDenied", 403, False),
        ("NoSuchBucket", 404, False),
        ("EntityTooLarge", 400, False),
    ],
)
def test_a_destination_that_is_away_is_waited_for_and_what_it_refuses_is_dropped(
    services: Services, code: str, status: int, waits: bool
) -> None:
    stream, bucket, metrics = services.stream(), services.bucket(), Counter[str]()
    consumer = Consumer(lambda given, _: Exception if "poison" in given else None)
    answer = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    errors = [ClientError(answer, "PutObject") if status else ConnectionError("away")] * 2

    def send(arn: str, document: Mapping[str, Any], key: str) -> None:
        if errors:
            raise errors.pop()
        services.send(arn, document, key)

    services.put(stream, *texts("poison", "next"))
    given_up = {"maximum_retry_attempts": 0, "on_failure_arn": f"arn:aws:s3:::{bucket}"}
    mapping = KinesisMapping(
        settings(stream_arn=stream, batch_size=1, **given_up),
        services.kinesis,
        send,
        consumer,
        observe=lambda _, values: metrics.update({each: int(value) for each, value in values.items()}),
    )
    mapping.start()
    until(mapping.idle)
    mapping.stop()
    assert consumer.done == ["next"]
    assert len(services.documents(bucket)) == waits
    counted = {"OnFailureDestinationDeliveredEventCount", "DroppedEventCount"} & metrics.keys()
    assert counted == {"OnFailureDestinationDeliveredEventCount" if waits else "DroppedEventCount"}


# --- each step, as AWS documents it -----------------------------------------------------------------------


@dataclass(frozen=True)
class Course:
    """What the documentation says of a mapping, and how it then has to go.

    Attributes:
        source: The page of https://docs.aws.amazon.com/lambda/latest/dg/ and what it says.
        values: The mapping's settings.
        data: The records.
        answer: What the function answers: None for success, Exception, the positions that failed, or JSON.
        delivered: Each invocation's records, in order.
        given_up: The condition, the invocations and the records of each document, in order.
    """

    source: str
    values: dict[str, Any]
    data: str
    answer: Callable[[list[str], int], object]
    delivered: list[str]
    given_up: list[tuple[str, int, str]]


def poisoned(given: list[str], _: int) -> object:
    return Exception if "x" in given else None


def reports_poison(given: list[str], _: int) -> object:
    return {given.index("x")} if "x" in given else None


COURSES = [
    Course(
        "services-kinesis-batchfailurereporting: the lowest sequence number is the checkpoint, and all from"
        " it on is retried, also what succeeded",
        {"report_batch_item_failures": True},
        "abcde",
        lambda _, call: {2, 4} if call == 1 else None,
        ["abcde", "cde"],
        [],
    ),
    Course(
        "services-kinesis-batchfailurereporting: an empty list is complete success",
        {"report_batch_item_failures": True},
        "ab",
        lambda *_: {"batchItemFailures": []},
        ["ab"],
        [],
    ),
    Course(
        "services-kinesis-batchfailurereporting: an empty itemIdentifier is complete failure",
        {"report_batch_item_failures": True, "maximum_retry_attempts": 1},
        "ab",
        lambda *_: failures(""),
        ["ab", "ab"],
        [(EXHAUSTED, 2, "ab")],
    ),
    Course(
        "services-kinesis-batchfailurereporting: without ReportBatchItemFailures an answer says nothing",
        {},
        "ab",
        lambda *_: failures(""),
        ["ab"],
        [],
    ),
    Course(
        "services-kinesis-batchfailurereporting: an exception is complete failure",
        {"report_batch_item_failures": True},
        "ab",
        lambda _, call: Exception if call == 1 else None,
        ["ab", "ab"],
        [],
    ),
    Course(
        "services-kinesis-parameters: MaximumRetryAttempts -1 is without end",
        {},
        "ab",
        lambda _, call: Exception if call < 4 else None,
        ["ab"] * 4,
        [],
    ),
    Course(
        "kinesis-on-failure-destination: after the retry quota the batch is discarded, the next is processed",
        {"maximum_retry_attempts": 2, "batch_size": 2},
        "axbc",
        poisoned,
        ["ax", "ax", "ax", "bc"],
        [(EXHAUSTED, 3, "ax")],
    ),
    Course(
        "kinesis-on-failure-destination: BisectBatchOnFunctionError splits a failed batch in two",
        {"bisect": True, "maximum_retry_attempts": 0},
        "abxc",
        poisoned,
        ["abxc", "ab", "xc", "x", "c"],
        [(EXHAUSTED, 1, "x")],
    ),
    Course(
        "kinesis-on-failure-destination: splitting does not consume the retry quota",
        {"bisect": True, "maximum_retry_attempts": 1},
        "abxc",
        poisoned,
        ["abxc", "ab", "xc", "x", "x", "c"],
        [(EXHAUSTED, 2, "x")],
    ),
    Course(
        "services-kinesis-batchfailurereporting: with both on, the batch is bisected at the returned number",
        {"bisect": True, "report_batch_item_failures": True, "maximum_retry_attempts": 1},
        "abxc",
        reports_poison,
        ["abxc", "xc", "x", "x", "c"],
        [(EXHAUSTED, 2, "x")],
    ),
    Course(
        "kinesis-on-failure-destination: records past the maximum age are discarded before an invocation",
        {"maximum_record_age_s": 0},
        "ab",
        lambda *_: None,
        [],
        [("RecordAgeExceeded", 0, "ab")],
    ),
]


@pytest.mark.parametrize("course", COURSES, ids=[course.source for course in COURSES])
def test_each_step_is_the_documented_one(services: Services, course: Course) -> None:
    stream, bucket = services.stream(), services.bucket()
    services.put(stream, *texts(*course.data))
    consumer = Consumer(course.answer)
    sent: list[dict[str, Any]] = []

    def send(arn: str, document: Any, key: str) -> None:
        sent.append(document)
        services.send(arn, document, key)

    mapping = KinesisMapping(
        settings(stream_arn=stream, on_failure_arn=f"arn:aws:s3:::{bucket}", **course.values),
        services.kinesis,
        send,
        consumer,
    )
    mapping.start()
    until(mapping.idle)
    mapping.stop()
    assert ["".join(each) for each in consumer.batches] == course.delivered
    assert [described(document) for document in sent] == course.given_up
    assert list(services.documents(bucket).values()) == sent


def described(document: Any) -> tuple[str, int, str]:
    context, info = document["requestContext"], document["KinesisBatchInfo"]
    records = [event["kinesis"] for event in json.loads(document["payload"])["Records"]]
    numbers = [kinesis["sequenceNumber"] for kinesis in records]
    assert (info["batchSize"], info["startSequenceNumber"], info["endSequenceNumber"]) == (
        len(numbers),
        numbers[0],
        numbers[-1],
    )
    data = "".join(base64.b64decode(kinesis["data"]).decode() for kinesis in records)
    return context["condition"], context["approximateInvokeCount"], data


def test_a_record_that_fails_until_it_is_too_old_is_discarded(services: Services) -> None:
    stream, bucket = services.stream(), services.bucket()
    services.put(stream, b"a")
    now = [datetime.now(UTC)]

    def answer(*_: object) -> object:
        now[0] += timedelta(hours=1)
        return Exception

    consumer = Consumer(answer)
    mapping = KinesisMapping(
        settings(stream_arn=stream, maximum_record_age_s=5_400, on_failure_arn=f"arn:aws:s3:::{bucket}"),
        services.kinesis,
        services.send,
        consumer,
        lambda: now[0],
    )
    mapping.start()
    until(mapping.idle)
    mapping.stop()
    assert consumer.batches == [["a"], ["a"]]
    (document,) = services.documents(bucket).values()
    assert described(document) == ("RecordAgeExceeded", 2, "a")


@pytest.mark.parametrize("error", [ThrottledError("consumer", 1, "Reserved"), ConnectionError("away")])
def test_throttles_and_calls_that_cannot_be_made_are_no_retries(services: Services, error: Exception) -> None:
    stream, consumer = services.stream(), Consumer()
    services.put(stream, b"a")
    errors = [error, error]

    def invoke(function: str, payload: bytes) -> Result:
        if errors:
            raise errors.pop()
        return consumer(function, payload)

    run(services, invoke, settings(stream_arn=stream, maximum_retry_attempts=0))
    assert consumer.done == ["a"]


@pytest.mark.parametrize("service", ["sqs", "sns"])
def test_queues_and_topics_get_what_describes_the_batch_without_its_payload(
    services: Services, service: str
) -> None:
    stream, (url, queue_arn) = services.stream(), queue(services)
    destination = queue_arn
    if service == "sns":
        destination = services.sns.create_topic(Name=next(services.names))["TopicArn"]
        services.sns.subscribe(TopicArn=destination, Protocol="sqs", Endpoint=queue_arn)
    services.put(stream, *texts("x", "y"))
    consumer = Consumer(lambda *_: Exception)
    run(
        services,
        consumer,
        settings(stream_arn=stream, maximum_retry_attempts=0, on_failure_arn=destination),
    )
    (body,) = messages_in(services, url)
    document = json.loads(body)
    if service == "sns":
        document = json.loads(document["Message"])
    assert sorted(document) == [
        "KinesisBatchInfo",
        "requestContext",
        "responseContext",
        "timestamp",
        "version",
    ]
    assert document["KinesisBatchInfo"]["batchSize"] == 2
    assert document["requestContext"]["condition"] == EXHAUSTED


# --- several batches of a shard at once -------------------------------------------------------------------

LANES = 10
KEY_OF_LANE = {lane_of(f"key {number}", LANES): f"key {number}" for number in range(200)}


@hypothesis.settings(deadline=None)
@hypothesis.given(st.lists(st.text(), max_size=50), st.integers(1, 10))
def test_a_key_has_one_lane(keys: list[str], lanes: int) -> None:
    assert all(
        lane_of(key, lanes) == lane_of(key, lanes) and 0 <= lane_of(key, lanes) < lanes for key in keys
    )


def test_a_blocked_key_leaves_other_keys_alone_and_each_keeps_its_order(services: Services) -> None:
    stream = services.stream()
    slow, quick = KEY_OF_LANE[0], KEY_OF_LANE[1]
    quick_done = threading.Event()
    done: list[str] = []

    def invoke(_: str, payload: bytes) -> Result:
        names = [
            base64.b64decode(record["kinesis"]["data"]).decode() for record in json.loads(payload)["Records"]
        ]
        if names[0] == "slow 0":
            assert quick_done.wait(60)
        done.extend(names)
        if names[-1] == "quick 4":
            quick_done.set()
        return answered(None)

    services.kinesis.put_records(
        StreamName=stream.rpartition("/")[2],
        Records=[
            {"Data": f"{name} {number}", "PartitionKey": key}
            for number in range(5)
            for name, key in (("slow", slow), ("quick", quick))
        ],
    )
    run(services, invoke, settings(stream_arn=stream, parallelization_factor=LANES, batch_size=2))
    assert [name for name in done if name.startswith("slow")] == [f"slow {number}" for number in range(5)]
    assert done[:5] == [f"quick {number}" for number in range(5)]


def test_at_most_as_many_batches_as_the_factor_are_under_way(services: Services) -> None:
    stream = services.stream()
    lock = threading.Lock()
    under_way, most = 0, 0

    def invoke(*_: object) -> Result:
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way)
        threading.Event().wait(0.01)
        with lock:
            under_way -= 1
        return answered(None)

    services.put(stream, *texts(*range(60)))
    run(services, invoke, settings(stream_arn=stream, parallelization_factor=3, batch_size=5))
    assert 1 <= most <= 3


def test_at_timestamp_begins_with_what_came_after_it(services: Services) -> None:
    stream, consumer = services.stream(), Consumer()
    services.put(stream, b"before")
    threading.Event().wait(0.01)
    between = datetime.now(UTC)
    services.put(stream, b"after")
    run(
        services,
        consumer,
        settings(stream_arn=stream, starting_position="AT_TIMESTAMP", starting_timestamp=between),
    )
    assert consumer.done == ["after"]


class Expiring:
    """A Kinesis client whose iterators expire when it is told so."""

    def __init__(self, kinesis: Any) -> None:
        self._kinesis = kinesis
        self.exceptions = kinesis.exceptions
        self.expired, self.fails = threading.Event(), threading.Event()
        self.made = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._kinesis, name)

    def get_shard_iterator(self, **request: Any) -> Any:
        if self.fails.is_set():
            self.fails.clear()
            raise ConnectionError("away")
        self.made += 1
        return self._kinesis.get_shard_iterator(**request)

    def get_records(self, **request: Any) -> Any:
        if self.expired.is_set():
            self.expired.clear()
            raise self.exceptions.ExpiredIteratorException(
                {"Error": {"Code": "ExpiredIteratorException", "Message": "Iterator expired"}}, "GetRecords"
            )
        return self._kinesis.get_records(**request)


@pytest.mark.parametrize("position", ["TRIM_HORIZON", "LATEST"])
def test_an_expired_iterator_is_made_anew_where_it_was(services: Services, position: str) -> None:
    stream, consumer = services.stream(), Consumer()
    kinesis = Expiring(services.kinesis)
    mapping = KinesisMapping(
        settings(stream_arn=stream, starting_position=position), kinesis, services.send, consumer
    )
    mapping.start()
    for name in ("a", "b"):
        made = kinesis.made
        kinesis.expired.set()
        services.put(stream, name.encode())
        until(lambda made=made, name=name: kinesis.made > made and name in consumer.done)  # type: ignore[misc]
    until(mapping.idle)
    mapping.stop()
    assert consumer.done == ["a", "b"]


def test_an_iterator_that_cannot_be_made_at_once_is_made_later(services: Services) -> None:
    stream, consumer = services.stream(), Consumer()
    kinesis = Expiring(services.kinesis)
    mapping = KinesisMapping(settings(stream_arn=stream), kinesis, services.send, consumer)
    mapping.start()
    kinesis.fails.set()
    kinesis.expired.set()
    until(lambda: not kinesis.fails.is_set())
    services.put(stream, b"a")
    until(lambda: consumer.done == ["a"])
    mapping.stop()


@dataclass(frozen=True)
class CatchingUp:
    """A mapping of which it is asked that it catches up, and how often its function is called at least.

    Attributes:
        values: The mapping's settings.
        answer: What the function answers, as in `Consumer`.
        done: What is done then.
        enabled: Whether the mapping reads.
        redelivers: Whether what succeeds comes again without an end.
        calls: How often the function is called at least.
    """

    values: dict[str, Any]
    answer: Callable[[list[str], int], object] = lambda *_: None
    done: Sequence[str] = ()
    enabled: bool = True
    redelivers: bool = False
    calls: int = 1


@pytest.mark.parametrize(
    "case",
    [
        CatchingUp({"window_s": 300, "batch_size": 2}, done=["a", "b", "c"], calls=2),
        CatchingUp({}, lambda *_: Exception),
        CatchingUp({"parallelization_factor": 5}, lambda given, _: Exception if "b" in given else None),
        CatchingUp({"maximum_retry_attempts": 0}, lambda *_: Exception),
        CatchingUp({}, done=["a", "b", "c"], redelivers=True),
        CatchingUp({}, enabled=False, calls=0),
    ],
)
def test_before_the_clock_is_put_forward_all_is_tried_and_no_window_is_waited_for(
    services: Services, case: CatchingUp
) -> None:
    stream, consumer = services.stream(), Consumer(case.answer)
    mapping = KinesisMapping(
        settings(stream_arn=stream, **case.values), services.kinesis, services.send, consumer
    )
    mapping.enable(case.enabled)
    mapping.redeliver(sys.maxsize if case.redelivers else 0)
    mapping.start()
    services.put(stream, *texts("a", "b", "c"))
    assert mapping.catch_up(60)
    assert len(consumer.batches) >= case.calls
    assert set(consumer.done) >= set(case.done)
    mapping.stop()


def test_a_call_that_cannot_be_made_is_not_waited_for(services: Services) -> None:
    stream, invoke = services.stream(), CannotBeCalled(sys.maxsize, Consumer())
    mapping = KinesisMapping(settings(stream_arn=stream), services.kinesis, services.send, invoke)
    mapping.start()
    services.put(stream, *texts("a"))
    assert mapping.catch_up(60)
    assert invoke.left < sys.maxsize
    mapping.stop()


def test_batches_are_delivered_twice_on_demand(services: Services) -> None:
    stream, consumer = services.stream(), Consumer()
    services.put(stream, *texts(*range(6)))
    mapping = KinesisMapping(
        settings(stream_arn=stream, batch_size=2), services.kinesis, services.send, consumer
    )
    mapping.redeliver(9)
    mapping.redeliver(0)  # taken back
    mapping.redeliver(2)
    mapping.start()
    until(mapping.idle)
    mapping.stop()
    assert consumer.batches == [["0", "1"]] * 3 + [["2", "3"], ["4", "5"]]


# --- queues -----------------------------------------------------------------------------------------------


def queue(services: Services, **attributes: str) -> tuple[str, str]:
    url = services.sqs.create_queue(QueueName=next(services.names), Attributes=attributes)["QueueUrl"]
    arn = services.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"][
        "QueueArn"
    ]
    return url, arn


def messages_in(services: Services, url: str) -> list[str]:
    received = services.sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages", [])
    return [message["Body"] for message in received]


def test_a_queue_is_emptied_in_batches(services: Services) -> None:
    url, arn = queue(services)
    for number in range(25):
        services.sqs.send_message(QueueUrl=url, MessageBody=str(number))
    consumer = Consumer()
    mapping = SqsMapping(SqsSettings("consumer", arn, url), services.sqs, consumer)
    assert not mapping.idle()
    mapping.start()
    until(mapping.idle)
    mapping.stop()
    assert sorted(consumer.done, key=int) == [str(number) for number in range(25)]
    assert max(len(each) for each in consumer.batches) == 10


def test_a_window_gathers_messages_past_ten(services: Services) -> None:
    url, arn = queue(services)
    for number in range(12):
        services.sqs.send_message(QueueUrl=url, MessageBody=str(number))
    consumer = Consumer()
    mapping = SqsMapping(
        SqsSettings("consumer", arn, url, batch_size=12, window_s=300), services.sqs, consumer
    )
    mapping.start()
    until(mapping.idle)
    mapping.stop()
    assert [len(each) for each in consumer.batches] == [12]


def test_only_messages_that_failed_come_again_and_end_in_the_dead_letter_queue(services: Services) -> None:
    dead_url, dead_arn = queue(services)
    redrive = json.dumps({"deadLetterTargetArn": dead_arn, "maxReceiveCount": 2})
    # Long enough that a busy machine has a message taken, failed and counted before it is visible again.
    url, arn = queue(services, VisibilityTimeout="4", RedrivePolicy=redrive)
    seen: list[str] = []

    def invoke(_: str, payload: bytes) -> Result:
        records = json.loads(payload)["Records"]
        seen.extend(message["body"] for message in records)
        return answered(
            failures(*(message["messageId"] for message in records if message["body"] == "poison"))
        )

    mapping = SqsMapping(
        SqsSettings("consumer", arn, url, report_batch_item_failures=True), services.sqs, invoke
    )
    for body in ("a", "poison", "b"):
        services.sqs.send_message(QueueUrl=url, MessageBody=body)
    mapping.start()
    until(mapping.idle)
    mapping.stop()
    assert sorted(seen) == ["a", "b", "poison", "poison"]
    assert messages_in(services, dead_url) == ["poison"]


class Counts:
    """A queue that answers with these numbers of messages: visible, in flight, and delayed."""

    def __init__(self, *answers: tuple[int, int, int]) -> None:
        self._answers = list(answers)

    def get_queue_attributes(self, AttributeNames: list[str], **_: object) -> Any:  # noqa: N803
        answer = self._answers.pop(0)
        return {"Attributes": dict(zip(AttributeNames, map(str, answer), strict=True))}


@pytest.mark.parametrize(
    ("answers", "idle"),
    [
        ([(0, 0, 0), (0, 0, 0)], True),
        ([(1, 0, 0)], False),
        ([(0, 1, 0)], False),
        ([(0, 0, 1)], False),
        # It was in flight when the visible ones were counted, and visible when those in flight were.
        ([(0, 0, 0), (1, 0, 0)], False),
    ],
)
def test_a_queue_is_empty_if_a_second_count_finds_no_message_either(
    answers: list[tuple[int, int, int]], idle: bool
) -> None:
    mapping = SqsMapping(
        SqsSettings("consumer", "arn:aws:sqs:us-east-1:1:q", "url"), Counts(*answers), Consumer()
    )
    assert mapping.idle() is idle


def test_a_mapping_is_not_idle_while_the_message_of_a_running_invocation_is_among_the_dead(
    services: Services,
) -> None:
    dead_url, dead_arn = queue(services)
    redrive = json.dumps({"deadLetterTargetArn": dead_arn, "maxReceiveCount": 1})
    url, arn = queue(services, VisibilityTimeout="0", RedrivePolicy=redrive)
    done = threading.Event()

    def invoke(*_: object) -> Result:
        assert done.wait(60)
        return answered(None, "Unhandled")

    services.sqs.send_message(QueueUrl=url, MessageBody="a")
    mapping = SqsMapping(SqsSettings("consumer", arn, url), services.sqs, invoke)
    mapping.start()
    until(lambda: messages_in(services, dead_url) == ["a"])
    was_idle = mapping.idle()
    done.set()
    until(mapping.idle)
    mapping.stop()
    assert not was_idle


@pytest.mark.parametrize("failure", ["error", "exception"])
def test_messages_of_a_failed_invocation_are_not_deleted(services: Services, failure: str) -> None:
    # At once visible again, so that it may also be received before it is deleted.
    url, arn = queue(services, VisibilityTimeout="0")
    services.sqs.send_message(QueueUrl=url, MessageBody="a")
    consumer = Consumer(lambda _, call: Exception if call == 1 else None)
    invoke = consumer if failure == "error" else CannotBeCalled(1, Consumer())
    mapping = SqsMapping(SqsSettings("consumer", arn, url), services.sqs, invoke)
    mapping.start()
    until(mapping.idle)
    mapping.stop()
    if failure == "error":
        assert consumer.batches[:2] == [["a"], ["a"]]
    else:
        assert isinstance(invoke, CannotBeCalled)
        assert invoke.left == 0


def test_several_batches_of_a_queue_are_under_way_at_once(services: Services) -> None:
    url, arn = queue(services)
    together = threading.Barrier(3)

    def invoke(*_: object) -> Result:
        together.wait(60)
        return answered(None)

    for number in range(3):
        services.sqs.send_message(QueueUrl=url, MessageBody=str(number))
    mapping = SqsMapping(SqsSettings("consumer", arn, url, batch_size=1), services.sqs, invoke)
    mapping.start()
    until(mapping.idle)
    mapping.stop()
    assert not together.broken


def test_a_queues_concurrency_is_kept(services: Services) -> None:
    url, arn = queue(services)
    lock = threading.Lock()
    under_way, most = 0, 0

    def invoke(*_: object) -> Result:
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way)
        threading.Event().wait(0.01)
        with lock:
            under_way -= 1
        return answered(None)

    for number in range(12):
        services.sqs.send_message(QueueUrl=url, MessageBody=str(number))
    mapping = SqsMapping(
        SqsSettings("consumer", arn, url, batch_size=1, maximum_concurrency=2), services.sqs, invoke
    )
    mapping.start()
    until(mapping.idle)
    mapping.stop()
    assert 1 <= most <= 2


def test_messages_are_delivered_twice_on_demand(services: Services) -> None:
    url, arn = queue(services)
    services.sqs.send_message(QueueUrl=url, MessageBody="a")
    consumer = Consumer()
    mapping = SqsMapping(SqsSettings("consumer", arn, url), services.sqs, consumer)
    mapping.redeliver()
    mapping.start()
    until(mapping.idle)
    mapping.stop()
    assert consumer.batches == [["a"], ["a"]]


# --- destinations -----------------------------------------------------------------------------------------


def test_a_function_may_be_a_destination() -> None:
    invoked: list[tuple[str, bytes]] = []

    def invoke(name: str, payload: bytes) -> Result:
        invoked.append((name, payload))
        return answered(None)

    destinations = Destinations(lambda _: None, invoke)
    destinations.send("arn:aws:lambda:us-east-1:123456789012:function:handle", {"a": 1}, "key")
    assert invoked == [("handle", b'{"a": 1}')]
    with pytest.raises(ValueError, match="does not belong to s3, sqs, sns, lambda"):
        destinations.send("arn:aws:events:us-east-1:123456789012:event-bus/default", {}, "key")
