"""What event source mappings decide: where a batch is cut, what is tried again, and when it is given up.

The rules are those of https://docs.aws.amazon.com/lambda/latest/dg/with-kinesis.html and
https://docs.aws.amazon.com/lambda/latest/dg/with-sqs.html.
"""

from __future__ import annotations

import base64
import json
import math
import uuid
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from onemachine.destinations import STREAM_DESTINATIONS, check_destination
from onemachine.functions import ACCOUNT_ID, MAX_PAYLOAD_BYTES, Result

# https://docs.aws.amazon.com/lambda/latest/dg/services-kinesis-parameters.html
MAX_KINESIS_BATCH = 10_000
MAX_WINDOW_S = 300.0
MAX_PARALLELIZATION = 10
MAX_RETRIES = 10_000
MAX_RECORD_AGE_S = 604_800
# https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-configure.html: more than 10 need a window of 1 s
MAX_SQS_BATCH = 10_000
# https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_ReceiveMessage.html
RECEIVE_LIMIT = 10
LEAST_CONCURRENCY, MOST_CONCURRENCY = 2, 1_000
_BETWEEN = b", "


@dataclass(frozen=True)
class KinesisSettings:
    """An AWS::Lambda::EventSourceMapping of a stream.

    Attributes:
        function: The function's name.
        stream_arn: The stream.
        batch_size: The most records in one event, 1 to 10,000.
        window_s: How long to wait for a batch to fill, in seconds, 0 to 300.
        starting_position: Where to begin: all that the stream holds, what comes from now on, or a time.
        starting_timestamp: The time for AT_TIMESTAMP, with a time zone.
        parallelization_factor: Batches of one shard at the same time, 1 to 10, each of other partition keys.
        report_batch_item_failures: Whether the function's answer names the failed records.
        bisect: Halve a batch that the function fails on.
        maximum_retry_attempts: How often a batch is tried again; -1 is without end.
        maximum_record_age_s: The age at which a record is given up, in seconds; -1 is never.
        on_failure_arn: The bucket, queue or topic that gets what is given up.
        mapping_id: The mapping's UUID, which is part of the keys in that bucket.
        enabled: Whether it reads.

    Raises:
        ValueError: A value is outside of Lambda's limits, or the destination is not one of Lambda's.
    """

    function: str
    stream_arn: str
    batch_size: int = 100
    window_s: float = 0.0
    starting_position: Literal["TRIM_HORIZON", "LATEST", "AT_TIMESTAMP"] = "TRIM_HORIZON"
    starting_timestamp: datetime | None = None
    parallelization_factor: int = 1
    report_batch_item_failures: bool = False
    bisect: bool = False
    maximum_retry_attempts: int = -1
    maximum_record_age_s: float = -1
    on_failure_arn: str | None = None
    mapping_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    enabled: bool = True

    @property
    def source_arn(self) -> str:
        """The stream."""
        return self.stream_arn

    def __post_init__(self) -> None:
        _check("BatchSize", self.batch_size, 1, MAX_KINESIS_BATCH)
        _check("MaximumBatchingWindowInSeconds", self.window_s, 0, MAX_WINDOW_S)
        _check("ParallelizationFactor", self.parallelization_factor, 1, MAX_PARALLELIZATION)
        _check("MaximumRetryAttempts", self.maximum_retry_attempts, -1, MAX_RETRIES)
        _check("MaximumRecordAgeInSeconds", self.maximum_record_age_s, -1, MAX_RECORD_AGE_S)
        if self.starting_position not in {"TRIM_HORIZON", "LATEST", "AT_TIMESTAMP"}:
            raise ValueError(f"StartingPosition {self.starting_position!r} is not one that Kinesis has")
        if (self.starting_position == "AT_TIMESTAMP") != (self.starting_timestamp is not None):
            raise ValueError(
                "StartingPositionTimestamp belongs to StartingPosition AT_TIMESTAMP, and only to it"
            )
        if self.on_failure_arn:
            check_destination(self.on_failure_arn, STREAM_DESTINATIONS)


@dataclass(frozen=True)
class SqsSettings:
    """An AWS::Lambda::EventSourceMapping of a standard queue.

    Attributes:
        function: The function's name.
        queue_arn: The queue.
        queue_url: The queue's address for calls.
        batch_size: The most messages in one event, 1 to 10,000; more than 10 need a window of a second.
        window_s: How long to wait for a batch to fill, in seconds, 0 to 300.
        report_batch_item_failures: Whether the function's answer names the failed messages.
        maximum_concurrency: The most invocations at once, 2 to 1,000; 5 where it is not given.
        mapping_id: The mapping's UUID.
        enabled: Whether it reads.

    Raises:
        ValueError: A value is outside of Lambda's limits, or the queue is a FIFO queue.
    """

    function: str
    queue_arn: str
    queue_url: str
    batch_size: int = 10
    window_s: float = 0.0
    report_batch_item_failures: bool = False
    maximum_concurrency: int | None = None
    mapping_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    enabled: bool = True

    @property
    def source_arn(self) -> str:
        """The queue."""
        return self.queue_arn

    def __post_init__(self) -> None:
        if self.queue_arn.endswith(".fifo"):
            raise ValueError(
                f"{self.queue_arn} is a FIFO queue: only standard queues are read on one machine"
            )
        if self.maximum_concurrency is not None:
            _check("MaximumConcurrency", self.maximum_concurrency, LEAST_CONCURRENCY, MOST_CONCURRENCY)
        _check("BatchSize", self.batch_size, 1, MAX_SQS_BATCH)
        _check("MaximumBatchingWindowInSeconds", self.window_s, 0, MAX_WINDOW_S)
        if self.batch_size > RECEIVE_LIMIT and self.window_s < 1:
            raise ValueError(f"BatchSize {self.batch_size} needs a window of 1 s, not {self.window_s} s")


MappingSettings = KinesisSettings | SqsSettings


def _check(name: str, value: float, lowest: float, highest: float) -> None:
    if not lowest <= value <= highest:
        raise ValueError(f"{name} is {value}, outside of {lowest} to {highest}")


@dataclass(frozen=True)
class StreamRecord:
    """A record of a stream, as GetRecords gives it."""

    sequence_number: str
    partition_key: str
    data: bytes
    arrived: datetime


@dataclass(frozen=True)
class Batch:
    """Records that are sent together, and how often they have failed."""

    records: tuple[StreamRecord, ...]
    failures: int = 0


@dataclass(frozen=True)
class GivenUp:
    """Records that are not tried again, and the condition that the on-failure document names."""

    batch: Batch
    condition: str


def event_record(record: StreamRecord, shard_id: str, stream_arn: str) -> dict[str, Any]:
    """Shape a record as it is in the event.

    Args:
        record: The record.
        shard_id: Its shard.
        stream_arn: Its stream.

    Returns:
        The element of `Records`: https://docs.aws.amazon.com/lambda/latest/dg/with-kinesis.html.
    """
    return {
        "kinesis": {
            "kinesisSchemaVersion": "1.0",
            "partitionKey": record.partition_key,
            "sequenceNumber": record.sequence_number,
            "data": base64.b64encode(record.data).decode("ascii"),
            "approximateArrivalTimestamp": round(record.arrived.timestamp(), 3),
        },
        "eventSource": "aws:kinesis",
        "eventVersion": "1.0",
        "eventID": f"{shard_id}:{record.sequence_number}",
        "eventName": "aws:kinesis:record",
        "invokeIdentityArn": f"arn:aws:iam::{ACCOUNT_ID}:role/lambda-role",
        "awsRegion": _region(stream_arn),
        "eventSourceARN": stream_arn,
    }


def record_bytes(record: StreamRecord, shard_id: str, stream_arn: str) -> int:
    """Count the bytes that a record takes in the event, without writing its data down."""
    without_data = event_record(replace(record, data=b""), shard_id, stream_arn)
    return len(json.dumps(without_data)) + 4 * math.ceil(len(record.data) / 3)


def whole_event(records: Iterable[Mapping[str, Any]]) -> bytes:
    """Write the event of some records."""
    return b'{"Records": [' + _BETWEEN.join(json.dumps(record).encode() for record in records) + b"]}"


def batch_length(sizes: Iterable[int], batch_size: int) -> int:
    """Count the records that fit into one event.

    Args:
        sizes: How many bytes each record takes in the event.
        batch_size: The most that the mapping allows.

    Returns:
        How many of the first records fit by number and by `MAX_PAYLOAD_BYTES`; at least one, if there is one,
        even where it alone is too large.
    """
    length, total = 0, len(whole_event([]))
    for size in sizes:
        total += size + len(_BETWEEN if length else b"")
        if length == batch_size or (length and total > MAX_PAYLOAD_BYTES):
            break
        length += 1
    return length


def first_failure(result: Result, identifiers: Sequence[str], reports: bool) -> int | None:
    """Find where in a batch the work has to be taken up again.

    Args:
        result: The function's answer.
        identifiers: The sequence numbers of the batch.
        reports: Whether the mapping asks for ReportBatchItemFailures.

    Returns:
        None if all is well; else the position of the lowest sequence number that the answer names, or 0 where
        the function failed or the answer cannot be understood:
        https://docs.aws.amazon.com/lambda/latest/dg/services-kinesis-batchfailurereporting.html.
    """
    failed = failed_positions(result, identifiers, reports)
    return min(failed) if failed else None


def failed_positions(result: Result, identifiers: Sequence[str], reports: bool) -> set[int]:
    """Find the positions in a batch that the answer calls failed: all of them if it makes no sense."""
    everything = set(range(len(identifiers)))
    if result.error:
        return everything
    if not reports:
        return set()
    try:
        answer = json.loads(result.payload)
    except ValueError:
        return everything
    if answer is None:
        return set()
    failures = answer.get("batchItemFailures", ()) if isinstance(answer, dict) else False
    if failures is None:
        return set()
    if not isinstance(failures, list | tuple):
        return everything
    # A batch is in the order of its sequence numbers, so places in it compare as those numbers do.
    places = {identifier: place for place, identifier in enumerate(identifiers)}
    named = {str(failure.get("itemIdentifier")) if isinstance(failure, dict) else "" for failure in failures}
    return {places[name] for name in named} if places.keys() >= named else everything


def after_failure(batch: Batch, failed_at: int, settings: KinesisSettings) -> list[Batch | GivenUp]:
    """Decide what becomes of a batch that failed.

    Args:
        batch: What was sent.
        failed_at: The position of its first record that is not done.
        settings: The mapping.

    Returns:
        What takes the batch's place, in order. The records before `failed_at` are done. With bisect on, a
        batch is cut at `failed_at`, or in the middle where that is its first record; a cut is not a retry.
    """
    left = batch.records[failed_at:]
    if settings.bisect and failed_at:
        return [replace(batch, records=left)]
    if settings.bisect and len(left) > 1:
        middle = len(left) // 2
        return [replace(batch, records=left[:middle]), replace(batch, records=left[middle:])]
    again = Batch(left, batch.failures + 1)
    if 0 <= settings.maximum_retry_attempts < again.failures:
        return [GivenUp(again, "RetryAttemptsExhausted")]
    return [again]


def without_expired(batch: Batch, now: datetime, maximum_age_s: float) -> list[Batch | GivenUp]:
    """Part the records that are too old to be sent from the others.

    Args:
        batch: Records in the order of their arrival.
        now: The time.
        maximum_age_s: MaximumRecordAgeInSeconds; below 0 nothing expires.

    Returns:
        The expired ones, given up, and the others; either is left out if there are none.
    """
    oldest = now - timedelta(seconds=maximum_age_s)
    expired = sum(record.arrived < oldest for record in batch.records) if maximum_age_s >= 0 else 0
    parts: list[Batch | GivenUp] = []
    if expired:
        parts.append(GivenUp(replace(batch, records=batch.records[:expired]), "RecordAgeExceeded"))
    if expired < len(batch.records):
        parts.append(replace(batch, records=batch.records[expired:]))
    return parts


def failure_document(
    given_up: GivenUp, result: Result | None, shard_id: str, settings: KinesisSettings, now: datetime
) -> dict[str, Any]:
    """Describe records that were given up, for the on-failure destination.

    Args:
        given_up: The records and the condition.
        result: The function's last answer, if it was called at all.
        shard_id: Their shard.
        settings: The mapping.
        now: The time.

    Returns:
        The document of https://docs.aws.amazon.com/lambda/latest/dg/kinesis-on-failure-destination.html: a
        bucket gets the whole event as text in `payload`, a queue or a topic only what describes it.
    """
    records = given_up.batch.records
    region = _region(settings.stream_arn)
    response = (
        {"statusCode": 200, "executedVersion": "$LATEST", "functionError": result.error} if result else None
    )
    document = {
        "requestContext": {
            "requestId": result.request_id if result else str(uuid.uuid4()),
            "functionArn": f"arn:aws:lambda:{region}:{ACCOUNT_ID}:function:{settings.function}",
            "condition": given_up.condition,
            "approximateInvokeCount": given_up.batch.failures,
        },
        "responseContext": response,
        "version": "1.0",
        "timestamp": _utc(now),
        "KinesisBatchInfo": {
            "shardId": shard_id,
            "startSequenceNumber": records[0].sequence_number,
            "endSequenceNumber": records[-1].sequence_number,
            "approximateArrivalOfFirstRecord": _utc(records[0].arrived),
            "approximateArrivalOfLastRecord": _utc(records[-1].arrived),
            "batchSize": len(records),
            "streamArn": settings.stream_arn,
        },
    }
    if (settings.on_failure_arn or "arn:aws:s3:").startswith("arn:aws:s3:"):
        event = whole_event(event_record(record, shard_id, settings.stream_arn) for record in records)
        document["payload"] = event.decode()
    return document


def lane_of(partition_key: str, lanes: int) -> int:
    """Choose the lane of a partition key: the same for each of its records, so that their order is kept.

    Args:
        partition_key: The record's partition key.
        lanes: The mapping's ParallelizationFactor.

    Returns:
        The lane, from 0 on. AWS does not document which keys share a lane.
    """
    return zlib.crc32(partition_key.encode()) % lanes


def failure_key(mapping_id: str, shard_id: str, now: datetime) -> str:
    """Name the object of a failure document.

    Args:
        mapping_id: The mapping's UUID.
        shard_id: The shard.
        now: The time.

    Returns:
        The key, in UTC and never the same twice.
    """
    utc = now.astimezone(UTC)
    return f"aws/lambda/{mapping_id}/{shard_id}/{utc:%Y/%m/%d}/{utc:%Y-%m-%dT%H.%M.%S}-{uuid.uuid4()}"


def _region(arn: str) -> str:
    return arn.split(":")[3]


def _utc(when: datetime) -> str:
    return when.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def event_message(message: Mapping[str, Any], queue_arn: str) -> dict[str, Any]:
    """Shape a message, as ReceiveMessage gives it, as it is in the event.

    Args:
        message: The message.
        queue_arn: Its queue.

    Returns:
        The element of `Records`: https://docs.aws.amazon.com/lambda/latest/dg/with-sqs.html.
    """
    event: dict[str, Any] = {
        "messageId": message["MessageId"],
        "receiptHandle": message["ReceiptHandle"],
        "body": message["Body"],
        "attributes": dict(message.get("Attributes", {})),
        "messageAttributes": {
            name: _message_attribute(value) for name, value in message.get("MessageAttributes", {}).items()
        },
        "md5OfBody": message["MD5OfBody"],
        "eventSource": "aws:sqs",
        "eventSourceARN": queue_arn,
        "awsRegion": _region(queue_arn),
    }
    if "MD5OfMessageAttributes" in message:
        event["md5OfMessageAttributes"] = message["MD5OfMessageAttributes"]
    return event


def _message_attribute(value: Mapping[str, Any]) -> dict[str, Any]:
    attribute: dict[str, Any] = {
        "stringListValues": [],
        "binaryListValues": [],
        "dataType": value["DataType"],
    }
    if "StringValue" in value:
        attribute["stringValue"] = value["StringValue"]
    if "BinaryValue" in value:
        attribute["binaryValue"] = base64.b64encode(value["BinaryValue"]).decode("ascii")
    return attribute
