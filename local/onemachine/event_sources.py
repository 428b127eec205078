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
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from onemachine.destinations import STREAM_DESTINATIONS, Send, check_destination
from onemachine.functions import ACCOUNT_ID, MAX_PAYLOAD_BYTES, Observe, Result, ThrottledError, unobserved

logger = logging.getLogger(__name__)

Invoke = Callable[[str, bytes], Result]
Clock = Callable[[], datetime]

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
# https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-scaling.html: five at first; here it stays at that
CONCURRENT_BATCHES = 5
LEAST_CONCURRENCY, MOST_CONCURRENCY = 2, 1_000

POLL_EVERY_S = 0.05
"""AWS polls a shard once a second; here a person or a test waits for the answer."""
POLL_SELDOM_S = 0.5
"""How far apart looks at what stays empty become: each costs a few milliseconds of processor time."""
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
        starting_position: Where to begin: all that the stream holds, what comes from now on, or a time.
        starting_timestamp: The time for AT_TIMESTAMP, with a time zone.
        parallelization_factor: Batches of one shard at the same time, 1 to 10, each of other partition keys.
        report_batch_item_failures: Whether the function's answer says which records failed.
        bisect: Halve a batch that the function fails on.
        maximum_retry_attempts: How often a batch is tried again; -1 is without end.
        maximum_record_age_s: The age at which a record is given up, in seconds; -1 is never.
        on_failure_arn: The bucket, queue or topic that gets what is given up.
        mapping_id: The mapping's UUID, which is part of the keys in that bucket.

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

    def __post_init__(self) -> None:
        _check("BatchSize", self.batch_size, 1, MAX_KINESIS_BATCH)
        _check("MaximumBatchingWindowInSeconds", self.window_s, 0, MAX_WINDOW_S)
        _check("ParallelizationFactor", self.parallelization_factor, 1, MAX_PARALLELIZATION)
        _check("MaximumRetryAttempts", self.maximum_retry_attempts, -1, MAX_RETRIES)
        _check("MaximumRecordAgeInSeconds", self.maximum_record_age_s, -1, MAX_RECORD_AGE_S)
        if self.starting_position not in {"TRIM_HORIZON", "LATEST", "AT_TIMESTAMP"}:
            raise ValueError(f"StartingPosition {self.starting_position!r} is none of Kinesis's")
        if (self.starting_position == "AT_TIMESTAMP") != (self.starting_timestamp is not None):
            raise ValueError(
                "StartingPositionTimestamp belongs to StartingPosition AT_TIMESTAMP, and only to it"
            )
        if self.on_failure_arn:
            check_destination(self.on_failure_arn, STREAM_DESTINATIONS)


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
        maximum_concurrency: The most invocations at once, 2 to 1,000; 5 where it is not given.

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
        The lane, from 0 on. Which keys share a lane, AWS does not say.
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


class _Redeliveries:
    """How many batches that succeeded are to be delivered once more, as at-least-once delivery may do."""

    def __init__(self) -> None:
        self._left = 0
        self._lock = threading.Lock()

    def ask(self, batches: int) -> None:
        with self._lock:
            self._left = self._left + batches if batches else 0

    def take(self) -> bool:
        with self._lock:
            asked = self._left > 0
            self._left -= asked
            return asked


def _real_time() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class _Mapped:
    """What the shards and lanes of a mapping share."""

    settings: KinesisSettings
    kinesis: Any
    send: Send
    invoke: Invoke
    clock: Clock
    stopped: threading.Event
    redeliveries: _Redeliveries
    observe: Observe

    @property
    def stream_name(self) -> str:
        return self.settings.stream_arn.rpartition("/")[2]


class KinesisMapping:
    """Reads a stream and invokes a function with what it holds, in every shard in order.

    Args:
        settings: The mapping.
        kinesis: A boto3 Kinesis client.
        send: Delivers what is given up to the on-failure destination.
        invoke: Calls a function by its name.
        clock: Says what time it is, for the age of records. It has to be the clock that stamps their arrival.
        observe: Takes the mapping's metrics.
    """

    def __init__(
        self,
        settings: KinesisSettings,
        kinesis: Any,
        send: Send,
        invoke: Invoke,
        clock: Clock = _real_time,
        *,
        observe: Observe = unobserved,
    ) -> None:
        stopped, redeliveries = threading.Event(), _Redeliveries()
        self._mapped = _Mapped(settings, kinesis, send, invoke, clock, stopped, redeliveries, observe)
        self._shards: list[_Shard] = []
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Find the shards and begin: what is put after this call is read, from LATEST too.

        The shards that the stream has now are all that are read: it is not resharded on one machine.
        """
        name = self._mapped.stream_name
        pages = self._mapped.kinesis.get_paginator("list_shards").paginate(StreamName=name)
        self._shards = [_Shard(self._mapped, shard["ShardId"]) for page in pages for shard in page["Shards"]]
        for shard in self._shards:
            for run in (shard.run, *(lane.run for lane in shard.lanes)):
                thread = threading.Thread(target=run, name=f"mapping {shard.shard_id}", daemon=True)
                thread.start()
                self._threads.append(thread)

    def stop(self) -> None:
        """End after the invocations that are running."""
        self._mapped.stopped.set()
        for shard in self._shards:
            for lane in shard.lanes:
                lane.put([])
        for thread in self._threads:
            thread.join()

    def idle(self) -> bool:
        """Ask the stream whether all that it holds now is done or given up."""
        return bool(self._shards) and all(shard.idle() for shard in self._shards)

    def redeliver(self, batches: int = 1) -> None:
        """Deliver the next batches that succeed a second time, as AWS may: a fault to be asked for.

        Args:
            batches: How many; 0 takes back what was asked for.
        """
        self._mapped.redeliveries.ask(batches)


class _Looks:
    """How long to wait before the next look at something empty: longer the longer it is."""

    def __init__(self) -> None:
        self._next = POLL_EVERY_S

    def reset(self) -> None:
        self._next = POLL_EVERY_S

    def wait(self, stopped: threading.Event) -> None:
        stopped.wait(self._next)
        self._next = min(POLL_SELDOM_S, self._next * 1.2)


class _Shard:
    """Reads one shard and hands each record to the lane of its partition key."""

    def __init__(self, mapped: _Mapped, shard_id: str) -> None:
        self.shard_id = shard_id
        self._mapped = mapped
        settings = mapped.settings
        self._wanted = threading.Event()
        self.lanes = [_Lane(mapped, shard_id, self._wanted) for _ in range(settings.parallelization_factor)]
        self._position: dict[str, Any] = {"ShardIteratorType": settings.starting_position}
        if settings.starting_timestamp is not None:
            self._position["Timestamp"] = settings.starting_timestamp
        self._pauses = _Pauses(mapped.stopped)
        self._looks = _Looks()
        self._iterator: str | None = self._iterator_at_position()
        # All before this iterator is done; it only moves when nothing that was read is unfinished.
        self._done_to: str | None = self._iterator
        self._resting = True
        if settings.starting_position == "LATEST":
            # An iterator made anew, after the first has expired, must not leave out what came meanwhile.
            self._position = {"ShardIteratorType": "AT_TIMESTAMP", "Timestamp": mapped.clock()}

    def run(self) -> None:
        while not self._mapped.stopped.is_set():
            try:
                self._fetch()
            except self._mapped.kinesis.exceptions.ExpiredIteratorException:
                # After 5 minutes: https://docs.aws.amazon.com/kinesis/latest/APIReference/API_GetRecords.html
                self._iterator = self._iterator_at_position()
            # A mapping never dies: a stream that cannot be read now is read later.
            except Exception:
                logger.exception("shard %s of %s", self.shard_id, self._mapped.settings.stream_arn)
                self._pauses.wait()

    def idle(self) -> bool:
        if not self._resting:
            return False
        if self._done_to is None:
            return True
        try:
            response = self._mapped.kinesis.get_records(ShardIterator=self._done_to, Limit=1)
        except self._mapped.kinesis.exceptions.ExpiredIteratorException:
            return False  # The next fetch brings one that has not.
        return not response["Records"] and response["MillisBehindLatest"] == 0

    def _iterator_at_position(self) -> str:
        response = self._mapped.kinesis.get_shard_iterator(
            StreamName=self._mapped.stream_name, ShardId=self.shard_id, **self._position
        )
        iterator: str = response["ShardIterator"]
        return iterator

    def _fetch(self) -> None:
        settings = self._mapped.settings
        self._wanted.clear()
        room = settings.batch_size * len(self.lanes) - sum(lane.waiting for lane in self.lanes)
        if room <= 0:
            self._wanted.wait(POLL_EVERY_S)
            return
        if self._iterator is None:
            self._rest()
            return
        response = self._mapped.kinesis.get_records(
            ShardIterator=self._iterator, Limit=min(room, MAX_KINESIS_BATCH)
        )
        self._pauses.reset()
        records = [
            StreamRecord(
                sequence_number=record["SequenceNumber"],
                partition_key=record["PartitionKey"],
                data=record["Data"],
                arrived=record["ApproximateArrivalTimestamp"],
            )
            for record in response["Records"]
        ]
        self._iterator = response.get("NextShardIterator")
        if not records:
            self._rest()
            return
        self._looks.reset()
        self._resting = False
        self._position = {
            "ShardIteratorType": "AFTER_SEQUENCE_NUMBER",
            "StartingSequenceNumber": records[-1].sequence_number,
        }
        by_lane: dict[int, list[StreamRecord]] = {}
        for record in records:
            by_lane.setdefault(lane_of(record.partition_key, len(self.lanes)), []).append(record)
        for lane, of_lane in by_lane.items():
            self.lanes[lane].put(of_lane)

    def _rest(self) -> None:
        if not any(lane.busy for lane in self.lanes):
            self._done_to = self._iterator
            self._resting = True
        self._looks.wait(self._mapped.stopped)


class _Lane:
    """Works off the records of some partition keys, each after what precedes it is done or given up."""

    def __init__(self, mapped: _Mapped, shard_id: str, wanted: threading.Event) -> None:
        self._mapped = mapped
        self._settings = mapped.settings
        self._shard_id = shard_id
        self._wanted = wanted
        self._changed = threading.Condition()
        self._waiting: deque[tuple[StreamRecord, int]] = deque()
        self._waiting_since = 0.0
        self._work: deque[Batch | GivenUp] = deque()
        self._last_result: Result | None = None
        self._pauses = _Pauses(mapped.stopped)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def busy(self) -> bool:
        with self._changed:
            return bool(self._waiting or self._work)

    def put(self, records: Iterable[StreamRecord]) -> None:
        sized = [
            (record, record_bytes(record, self._shard_id, self._settings.stream_arn)) for record in records
        ]
        with self._changed:
            if not self._waiting:
                self._waiting_since = time.monotonic()
            self._waiting.extend(sized)
            self._changed.notify()

    def run(self) -> None:
        while not self._mapped.stopped.is_set():
            try:
                if self._work:
                    self._work_off()
                else:
                    self._gather()
            except ThrottledError as error:
                # It was not invoked, so that this is no retry: only the records' age ends it.
                logger.debug("%s", error)
                self._pauses.wait()
            # A mapping never dies: whatever failed (the destination, the call) is tried again.
            except Exception:
                logger.exception("shard %s of %s", self._shard_id, self._settings.stream_arn)
                self._pauses.wait()

    def _gather(self) -> None:
        with self._changed:
            sizes = (size for _, size in self._waiting)
            length = batch_length(sizes, self._settings.batch_size)
            full = length == self._settings.batch_size or length < len(self._waiting)
            due = time.monotonic() - self._waiting_since >= self._settings.window_s
            if not length or not (full or due):
                self._changed.wait(POLL_EVERY_S)
                return
            self._work.append(Batch(tuple(self._waiting.popleft()[0] for _ in range(length))))
            self._waiting_since = time.monotonic()
        self._wanted.set()

    def _work_off(self) -> None:
        """Take the first piece of work one step further, and put what is left of it in its place."""
        first = self._work[0]
        if isinstance(first, GivenUp):
            self._keep(first)
            left: list[Batch | GivenUp] = []
        else:
            left = without_expired(first, self._mapped.clock(), self._settings.maximum_record_age_s)
            if left == [first]:
                left = self._send(first)
        with self._changed:
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
        payload = whole_event(event_record(record, self._shard_id, arn) for record in batch.records)
        if len(payload) > MAX_PAYLOAD_BYTES:
            # Only a record of a stream with an enlarged MaxRecordSize can be too large by itself. The service
            # sends it to the destination; under which condition, its documentation does not say.
            return [GivenUp(batch, "PayloadSizeExceeded")]
        # Of the last record: https://docs.aws.amazon.com/lambda/latest/dg/monitoring-metrics-types.html
        age_ms = (self._mapped.clock() - batch.records[-1].arrived).total_seconds() * 1000
        self._mapped.observe({"FunctionName": self._settings.function}, {"IteratorAge": max(0.0, age_ms)})
        result = self._mapped.invoke(self._settings.function, payload)
        self._last_result = result
        identifiers = [record.sequence_number for record in batch.records]
        failed_at = first_failure(result, identifiers, self._settings.report_batch_item_failures)
        if failed_at is None:
            self._pauses.reset()
            return [batch] if self._mapped.redeliveries.take() else []
        logger.info(
            "%s failed on record %d of %d: %.300r",
            self._settings.function,
            failed_at,
            len(identifiers),
            result.payload,
        )
        return after_failure(batch, failed_at, self._settings)

    def _keep(self, given_up: GivenUp) -> None:
        """Send what is given up to the on-failure destination; without one it is gone, as on AWS."""
        records = given_up.batch.records
        logger.warning("gave up %d records of %s: %s", len(records), self._shard_id, given_up.condition)
        mapping = {"EventSourceMappingUUID": self._settings.mapping_id}
        if self._settings.on_failure_arn is None:
            self._mapped.observe(mapping, {"DroppedEventCount": len(records)})
            return
        now = self._mapped.clock()
        document = failure_document(given_up, self._last_result, self._shard_id, self._settings, now)
        key = failure_key(self._settings.mapping_id, self._shard_id, now)
        self._mapped.send(self._settings.on_failure_arn, document, key)
        self._mapped.observe(mapping, {"OnFailureDestinationDeliveredEventCount": len(records)})


class SqsMapping:
    """Receives a queue's messages and invokes a function with them, several batches at once.

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
        self._looks = _Looks()
        self._thread = threading.Thread(target=self._run, name=f"mapping {settings.queue_arn}", daemon=True)
        self._received: deque[dict[str, Any]] = deque()
        self._received_since = 0.0
        self._redeliveries = _Redeliveries()
        at_once = min(settings.maximum_concurrency or CONCURRENT_BATCHES, CONCURRENT_BATCHES)
        self._free = threading.BoundedSemaphore(at_once)
        self._invocations = ThreadPoolExecutor(at_once, thread_name_prefix=f"mapping {settings.queue_arn}")

    def start(self) -> None:
        """Begin to receive."""
        self._thread.start()

    def stop(self) -> None:
        """End after the invocations that are running."""
        self._stopped.set()
        self._thread.join()
        self._invocations.shutdown()

    def idle(self) -> bool:
        """Ask the queue whether it holds no message, neither visible nor in flight nor delayed."""
        counts = ("", "NotVisible", "Delayed")
        names = [f"ApproximateNumberOfMessages{which}" for which in counts]
        attributes = self._sqs.get_queue_attributes(QueueUrl=self._settings.queue_url, AttributeNames=names)
        return not any(int(attributes["Attributes"][name]) for name in names)

    def redeliver(self, batches: int = 1) -> None:
        """Deliver the next batches that succeed a second time, as AWS may: a fault to be asked for.

        Args:
            batches: How many; 0 takes back what was asked for.
        """
        self._redeliveries.ask(batches)

    def _run(self) -> None:
        while not self._stopped.is_set():
            # Messages are received only for an invocation that can be made: their timeout runs from then on.
            if not self._free.acquire(timeout=POLL_EVERY_S):
                continue
            try:
                batch = self._gather()
            # A mapping never dies: whatever failed, the messages become visible again and are received anew.
            except Exception:
                logger.exception("queue %s", self._settings.queue_arn)
                self._received.clear()
                self._pauses.wait()
                batch = []
            if batch:
                self._invocations.submit(self._work_off, batch)
            else:
                self._free.release()

    def _gather(self) -> list[dict[str, Any]]:
        """Return a batch, or none where the mapping is stopped before there is one."""
        while not self._stopped.is_set():
            before = len(self._received)
            if before < self._settings.batch_size:
                self._receive(min(self._settings.batch_size - before, RECEIVE_LIMIT))
            full = len(self._received) >= self._settings.batch_size
            if self._received and (
                full or time.monotonic() - self._received_since >= self._settings.window_s
            ):
                sizes = (len(json.dumps(message)) for message in self._received)
                length = batch_length(sizes, self._settings.batch_size)
                return [self._received.popleft() for _ in range(length)]
            if len(self._received) == before:
                self._looks.wait(self._stopped)
            else:
                self._looks.reset()
        return []

    def _receive(self, most: int) -> None:
        response = self._sqs.receive_message(
            QueueUrl=self._settings.queue_url,
            MaxNumberOfMessages=most,
            MessageSystemAttributeNames=["All"],
            MessageAttributeNames=["All"],
        )
        self._pauses.reset()
        messages = response.get("Messages", [])
        if messages and not self._received:
            self._received_since = time.monotonic()
        self._received.extend(event_message(message, self._settings.queue_arn) for message in messages)

    def _work_off(self, messages: list[dict[str, Any]]) -> None:
        try:
            self._send(messages)
        except ThrottledError as error:
            logger.debug("%s", error)
            self._pauses.wait()
        # The messages become visible again and are received anew.
        except Exception:
            logger.exception("queue %s", self._settings.queue_arn)
            self._pauses.wait()
        finally:
            self._free.release()

    def _send(self, messages: list[dict[str, Any]]) -> None:
        payload = whole_event(messages)
        result = self._invoke(self._settings.function, payload)
        identifiers = [message["messageId"] for message in messages]
        failed = failed_positions(result, identifiers, self._settings.report_batch_item_failures)
        if not failed and self._redeliveries.take():
            result = self._invoke(self._settings.function, payload)
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
