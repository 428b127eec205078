"""Event source mappings: their decisions as tables, and the mappings themselves against moto's services."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from local.event_sources import (
    Batch,
    GivenUp,
    KinesisMapping,
    KinesisSettings,
    SqsMapping,
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
    record_bytes,
    whole_event,
    without_expired,
)
from local.functions import MAX_PAYLOAD_BYTES, Result

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
        ({"on_failure_arn": "arn:aws:sqs:us-east-1:123456789012:q"}, "not an S3 bucket"),
    ],
)
def test_settings_outside_of_lambdas_limits_are_refused(values: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        settings(**values)


def test_settings_at_lambdas_limits_are_taken() -> None:
    assert settings(batch_size=10_000, window_s=300).batch_size == 10_000
    assert SqsSettings("f", "a", "u", batch_size=10_000, window_s=1).batch_size == 10_000
    with pytest.raises(ValueError, match="needs a window of 1 s"):
        SqsSettings("f", "a", "u", batch_size=11)


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
    kinesis, sqs, s3 = (
        boto3.client(
            service,
            endpoint_url=f"http://{host}:{port}",
            region_name="us-east-1",
            aws_access_key_id="local",
            aws_secret_access_key="local",
        )
        for service in ("kinesis", "sqs", "s3")
    )
    yield Services(kinesis, sqs, s3, (f"name-{number}" for number in count()))
    for client in (kinesis, sqs, s3):
        client.close()
    server.stop()


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
    for _ in range(500):
        if condition():
            return
        waiting.wait(0.02)
    pytest.fail("it did not happen within ten seconds")


def run(services: Services, invoke: Any, config: KinesisSettings) -> None:
    mapping = KinesisMapping(config, services.kinesis, services.s3, invoke)
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
        settings(stream_arn=stream, starting_position="LATEST"), services.kinesis, services.s3, consumer
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
        settings(stream_arn=stream, batch_size=4, window_s=300), services.kinesis, services.s3, consumer
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


def test_a_destination_that_is_away_is_waited_for(services: Services) -> None:
    stream, bucket = services.stream(), next(services.names)
    consumer = Consumer(lambda given, _: Exception if "poison" in given else None)
    services.put(stream, b"poison")
    mapping = KinesisMapping(
        settings(stream_arn=stream, maximum_retry_attempts=0, on_failure_arn=f"arn:aws:s3:::{bucket}"),
        services.kinesis,
        services.s3,
        consumer,
    )
    mapping.start()
    until(lambda: bool(consumer.batches))
    services.put(stream, b"next")
    services.s3.create_bucket(Bucket=bucket)
    until(mapping.idle)
    mapping.stop()
    assert consumer.done == ["next"]
    assert len(services.documents(bucket)) == 1


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
    url, arn = queue(services, VisibilityTimeout="0", RedrivePolicy=redrive)
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


@pytest.mark.parametrize("failure", ["error", "exception"])
def test_messages_of_a_failed_invocation_are_not_deleted(services: Services, failure: str) -> None:
    url, arn = queue(services, VisibilityTimeout="0")
    services.sqs.send_message(QueueUrl=url, MessageBody="a")
    consumer = Consumer(lambda _, call: Exception if call == 1 else None)
    invoke = consumer if failure == "error" else CannotBeCalled(1, Consumer())
    mapping = SqsMapping(SqsSettings("consumer", arn, url), services.sqs, invoke)
    mapping.start()
    until(mapping.idle)
    mapping.stop()
    if failure == "error":
        assert consumer.batches == [["a"], ["a"]]
    else:
        assert isinstance(invoke, CannotBeCalled)
        assert invoke.left == 0
