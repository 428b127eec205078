"""What brings events to functions: Lambda's event source mappings for Kinesis and SQS, on one machine.

The upper half decides and is pure: how many records make a batch, what an answer says about it, and what is
tried again or given up. The lower half polls, invokes and writes. The rules are those of
https://docs.aws.amazon.com/lambda/latest/dg/with-kinesis.html and
https://docs.aws.amazon.com/lambda/latest/dg/with-sqs.html.
"""

from __future__ import annotations

import base64
import json
import logging
import math
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from local.functions import ACCOUNT_ID, MAX_PAYLOAD_BYTES, Result

logger = logging.getLogger(__name__)

Invoke = Callable[[str, bytes], Result]

# https://docs.aws.amazon.com/lambda/latest/dg/services-kinesis-parameters.html
MAX_KINESIS_BATCH = 10_000
MAX_WINDOW_S = 300.0
# https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-configure.html: more than 10 need a window of 1 s
MAX_SQS_BATCH = 10_000
# https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_ReceiveMessage.html
RECEIVE_LIMIT = 10

POLL_EVERY_S = 0.05
"""AWS polls a shard once a second; here a person or a test waits for the answer."""
FIRST_PAUSE_S = 0.05
LONGEST_PAUSE_S = 1.0

_BETWEEN = b", "


@dataclass(frozen=True)
class KinesisSettings:
    """An AWS::Lambda::EventSourceMapping of a stream.

    Args:
        function: The function's name.
        stream_arn: The stream.
        batch_size: The most records in one event, 1 to 10,000.
        window_s: How long to wait for a batch to fill, in seconds, 0 to 300.
        starting_position: Where to begin: all that the stream holds, or what comes from now on.
        report_batch_item_failures: Whether the function's answer says which records failed.
        bisect: Halve a batch that the function fails on.
        maximum_retry_attempts: How often a batch is tried again; -1 is without end.
        maximum_record_age_s: The age at which a record is given up, in seconds; -1 is never.
        on_failure_arn: The S3 bucket that gets what is given up.
        mapping_id: The mapping's UUID, which is part of the keys in that bucket.

    Raises:
        ValueError: A value is outside of Lambda's limits, or the destination is not a bucket.
    """

    function: str
    stream_arn: str
    batch_size: int = 100
    window_s: float = 0.0
    starting_position: Literal["TRIM_HORIZON", "LATEST"] = "TRIM_HORIZON"
    report_batch_item_failures: bool = False
    bisect: bool = False
    maximum_retry_attempts: int = -1
    maximum_record_age_s: float = -1
    on_failure_arn: str | None = None
    mapping_id: str = field(default_factory=lambda: str(uuid.uuid4()))

    def __post_init__(self) -> None:
        _check("BatchSize", self.batch_size, 1, MAX_KINESIS_BATCH)
        _check("MaximumBatchingWindowInSeconds", self.window_s, 0, MAX_WINDOW_S)
        if self.on_failure_arn and not self.on_failure_arn.startswith("arn:aws:s3:::"):
            raise ValueError(f"on-failure destination {self.on_failure_arn} is not an S3 bucket")


@dataclass(frozen=True)
class SqsSettings:
    """An AWS::Lambda::EventSourceMapping of a standard queue.

    Args:
        function: The function's name.
        queue_arn: The queue.
        queue_url: The queue's address for calls.
        batch_size: The most messages in one event, 1 to 10,000; more than 10 need a window of a second.
        window_s: How long to wait for a batch to fill, in seconds, 0 to 300.
        report_batch_item_failures: Whether the function's answer says which messages failed.

    Raises:
        ValueError: A value is outside of Lambda's limits.
    """

    function: str
    queue_arn: str
    queue_url: str
    batch_size: int = 10
    window_s: float = 0.0
    report_batch_item_failures: bool = False

    def __post_init__(self) -> None:
        _check("BatchSize", self.batch_size, 1, MAX_SQS_BATCH)
        _check("MaximumBatchingWindowInSeconds", self.window_s, 0, MAX_WINDOW_S)
        if self.batch_size > RECEIVE_LIMIT and self.window_s < 1:
            raise ValueError(f"BatchSize {self.batch_size} needs a window of 1 s, not {self.window_s} s")


def _check(name: str, value: float, lowest: float, highest: float) -> None:
    if not lowest <= value <= highest:
        raise ValueError(f"{name} is {value}, outside of {lowest} to {highest}")


# --- Kinesis, pure ----------------------------------------------------------------------------------------


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
        The document of https://docs.aws.amazon.com/lambda/latest/dg/kinesis-on-failure-destination.html, with
        the whole event as text in `payload`, as it is for S3.
    """
    records = given_up.batch.records
    region = _region(settings.stream_arn)
    response = (
        {"statusCode": 200, "executedVersion": "$LATEST", "functionError": result.error} if result else None
    )
    return {
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
        "payload": whole_event(
            [event_record(record, shard_id, settings.stream_arn) for record in records]
        ).decode(),
    }


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


# --- SQS, pure --------------------------------------------------------------------------------------------


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


# --- polling ----------------------------------------------------------------------------------------------


class _Pauses:
    """Waits that grow while things fail, and that end when the mapping is stopped."""

    def __init__(self, stopped: threading.Event) -> None:
        self._stopped = stopped
        self._next = FIRST_PAUSE_S

    def wait(self) -> None:
        self._stopped.wait(self._next)
        self._next = min(2 * self._next, LONGEST_PAUSE_S)

    def reset(self) -> None:
        self._next = FIRST_PAUSE_S


class KinesisMapping:
    """Reads a stream and invokes a function with what it holds, one batch at a time in every shard.

    Args:
        settings: The mapping.
        kinesis: A boto3 Kinesis client.
        s3: A boto3 S3 client, for the on-failure destination.
        invoke: Calls a function by its name.
    """

    def __init__(self, settings: KinesisSettings, kinesis: Any, s3: Any, invoke: Invoke) -> None:
        self._settings = settings
        self._kinesis = kinesis
        self._s3 = s3
        self._invoke = invoke
        self._stopped = threading.Event()
        self._shards: list[_Shard] = []
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Find the shards and begin: what is put after this call is read, from LATEST too.

        The shards that the stream has now are all that are read: it is not resharded on one machine.
        """
        pages = self._kinesis.get_paginator("list_shards").paginate(StreamName=self._stream_name)
        for shard in [shard for page in pages for shard in page["Shards"]]:
            iterator = self._kinesis.get_shard_iterator(
                StreamName=self._stream_name,
                ShardId=shard["ShardId"],
                ShardIteratorType=self._settings.starting_position,
            )["ShardIterator"]
            self._shards.append(
                _Shard(
                    self._settings,
                    shard["ShardId"],
                    iterator,
                    self._kinesis,
                    self._s3,
                    self._invoke,
                    self._stopped,
                )
            )
        for shard in self._shards:
            thread = threading.Thread(target=shard.run, name=f"mapping {shard.shard_id}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        """End after the invocations that are running."""
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def idle(self) -> bool:
        """Ask the stream whether all that it holds now is done or given up."""
        return bool(self._shards) and all(shard.idle() for shard in self._shards)

    @property
    def _stream_name(self) -> str:
        return self._settings.stream_arn.rpartition("/")[2]


class _Shard:
    """Reads one shard in order: nothing is sent before what precedes it is done or given up."""

    def __init__(  # noqa: PLR0917 - the mapping's collaborators, and the shard's own two
        self,
        settings: KinesisSettings,
        shard_id: str,
        iterator: str,
        kinesis: Any,
        s3: Any,
        invoke: Invoke,
        stopped: threading.Event,
    ) -> None:
        self.shard_id = shard_id
        self._settings = settings
        self._kinesis = kinesis
        self._s3 = s3
        self._invoke = invoke
        self._stopped = stopped
        self._iterator: str | None = iterator
        self._read: deque[StreamRecord] = deque()
        self._read_since = 0.0
        self._work: deque[Batch | GivenUp] = deque()
        self._last_result: Result | None = None
        self._pauses = _Pauses(stopped)
        # All before this iterator is done; it only moves when nothing that was read is unfinished.
        self._done_to: str | None = iterator
        self._resting = True

    def run(self) -> None:
        while not self._stopped.is_set():
            try:
                self._step()
            # A mapping never dies: whatever failed (the stream, the bucket, the call) is tried again.
            except Exception:
                logger.exception("shard %s of %s", self.shard_id, self._settings.stream_arn)
                self._pauses.wait()

    def idle(self) -> bool:
        if not self._resting:
            return False
        if self._done_to is None:
            return True
        response = self._kinesis.get_records(ShardIterator=self._done_to, Limit=1)
        return not response["Records"] and response["MillisBehindLatest"] == 0

    def _step(self) -> None:
        if self._work:
            self._work_off()
            return
        if self._iterator and len(self._read) < self._settings.batch_size:
            self._fetch()
        full = len(self._read) >= self._settings.batch_size
        if self._read and (full or time.monotonic() - self._read_since >= self._settings.window_s):
            sizes = (record_bytes(record, self.shard_id, self._settings.stream_arn) for record in self._read)
            length = batch_length(sizes, self._settings.batch_size)
            self._work.append(Batch(tuple(self._read.popleft() for _ in range(length))))
            return
        if not self._read:
            self._done_to = self._iterator
            self._resting = True
        self._stopped.wait(POLL_EVERY_S)

    def _fetch(self) -> None:
        missing = self._settings.batch_size - len(self._read)
        response = self._kinesis.get_records(ShardIterator=self._iterator, Limit=missing)
        if response["Records"]:
            self._resting = False
            self._read_since = self._read_since if self._read else time.monotonic()
        for record in response["Records"]:
            self._read.append(
                StreamRecord(
                    sequence_number=record["SequenceNumber"],
                    partition_key=record["PartitionKey"],
                    data=record["Data"],
                    arrived=record["ApproximateArrivalTimestamp"],
                )
            )
        self._iterator = response.get("NextShardIterator")

    def _work_off(self) -> None:
        """Take the first piece of work one step further, and put what is left of it in its place."""
        first = self._work[0]
        if isinstance(first, GivenUp):
            self._keep(first)
            left: list[Batch | GivenUp] = []
        else:
            left = without_expired(first, datetime.now(UTC), self._settings.maximum_record_age_s)
            if left == [first]:
                left = self._send(first)
        self._work.popleft()
        self._work.extendleft(reversed(left))
        if (
            left
            and isinstance(first, Batch)
            and isinstance(left[0], Batch)
            and left[0].failures > first.failures
        ):
            self._pauses.wait()

    def _send(self, batch: Batch) -> list[Batch | GivenUp]:
        arn = self._settings.stream_arn
        payload = whole_event(event_record(record, self.shard_id, arn) for record in batch.records)
        if len(payload) > MAX_PAYLOAD_BYTES:
            # Only a record of a stream with an enlarged MaxRecordSize can be too large by itself. The service
            # sends it to the destination; under which condition, its documentation does not say.
            return [GivenUp(batch, "PayloadSizeExceeded")]
        result = self._invoke(self._settings.function, payload)
        self._last_result = result
        identifiers = [record.sequence_number for record in batch.records]
        failed_at = first_failure(result, identifiers, self._settings.report_batch_item_failures)
        if failed_at is None:
            self._pauses.reset()
            return []
        logger.info(
            "%s failed on record %d of %d: %.300r",
            self._settings.function,
            failed_at,
            len(identifiers),
            result.payload,
        )
        return after_failure(batch, failed_at, self._settings)

    def _keep(self, given_up: GivenUp) -> None:
        """Write what is given up to the on-failure destination; without one it is gone, as on AWS."""
        records = given_up.batch.records
        logger.warning("gave up %d records of %s: %s", len(records), self.shard_id, given_up.condition)
        if self._settings.on_failure_arn is None:
            return
        now = datetime.now(UTC)
        document = failure_document(given_up, self._last_result, self.shard_id, self._settings, now)
        self._s3.put_object(
            Bucket=self._settings.on_failure_arn.rpartition(":")[2],
            Key=failure_key(self._settings.mapping_id, self.shard_id, now),
            Body=json.dumps(document).encode(),
            ContentType="application/json",
        )


class SqsMapping:
    """Receives a queue's messages and invokes a function with them, one batch at a time.

    What fails is not deleted: it is visible again after the queue's timeout, and its redrive policy counts.

    Args:
        settings: The mapping.
        sqs: A boto3 SQS client.
        invoke: Calls a function by its name.
    """

    def __init__(self, settings: SqsSettings, sqs: Any, invoke: Invoke) -> None:
        self._settings = settings
        self._sqs = sqs
        self._invoke = invoke
        self._stopped = threading.Event()
        self._pauses = _Pauses(self._stopped)
        self._thread = threading.Thread(target=self._run, name=f"mapping {settings.queue_arn}", daemon=True)
        self._received: deque[dict[str, Any]] = deque()
        self._received_since = 0.0

    def start(self) -> None:
        """Begin to receive."""
        self._thread.start()

    def stop(self) -> None:
        """End after the invocation that is running."""
        self._stopped.set()
        self._thread.join()

    def idle(self) -> bool:
        """Ask the queue whether it holds no message, neither visible nor in flight nor delayed."""
        counts = ("", "NotVisible", "Delayed")
        names = [f"ApproximateNumberOfMessages{which}" for which in counts]
        attributes = self._sqs.get_queue_attributes(QueueUrl=self._settings.queue_url, AttributeNames=names)
        return not any(int(attributes["Attributes"][name]) for name in names)

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                self._step()
            # A mapping never dies: whatever failed, the messages become visible again and are received anew.
            except Exception:
                logger.exception("queue %s", self._settings.queue_arn)
                self._received.clear()
                self._pauses.wait()

    def _step(self) -> None:
        before = len(self._received)
        if before < self._settings.batch_size:
            self._receive(min(self._settings.batch_size - before, RECEIVE_LIMIT))
        full = len(self._received) >= self._settings.batch_size
        if self._received and (full or time.monotonic() - self._received_since >= self._settings.window_s):
            length = batch_length(
                (len(json.dumps(message)) for message in self._received), self._settings.batch_size
            )
            self._send([self._received.popleft() for _ in range(length)])
        elif len(self._received) == before:
            self._stopped.wait(POLL_EVERY_S)

    def _receive(self, most: int) -> None:
        response = self._sqs.receive_message(
            QueueUrl=self._settings.queue_url,
            MaxNumberOfMessages=most,
            MessageSystemAttributeNames=["All"],
            MessageAttributeNames=["All"],
        )
        messages = response.get("Messages", [])
        if messages and not self._received:
            self._received_since = time.monotonic()
        self._received.extend(event_message(message, self._settings.queue_arn) for message in messages)

    def _send(self, messages: list[dict[str, Any]]) -> None:
        result = self._invoke(self._settings.function, whole_event(messages))
        identifiers = [message["messageId"] for message in messages]
        failed = failed_positions(result, identifiers, self._settings.report_batch_item_failures)
        if failed:
            logger.info(
                "%s failed on %d of %d: %.300r",
                self._settings.function,
                len(failed),
                len(messages),
                result.payload,
            )
        done = [message for place, message in enumerate(messages) if place not in failed]
        for first in range(0, len(done), RECEIVE_LIMIT):
            self._sqs.delete_message_batch(
                QueueUrl=self._settings.queue_url,
                Entries=[
                    {"Id": str(place), "ReceiptHandle": message["receiptHandle"]}
                    for place, message in enumerate(done[first : first + RECEIVE_LIMIT])
                ],
            )
        self._pauses.reset()
