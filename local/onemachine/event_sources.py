"""What brings events to functions: Lambda's event source mappings for Kinesis and SQS, on one machine.

This polls, invokes and writes; `onemachine.batches` decides.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import deque
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from onemachine import batches
from onemachine.batches import Batch, GivenUp, KinesisSettings, SqsSettings, StreamRecord
from onemachine.clock import Now, real_time
from onemachine.destinations import Send, is_refusal
from onemachine.functions import MAX_PAYLOAD_BYTES, Invoke, Observe, Result, ThrottledError, unobserved

logger = logging.getLogger(__name__)
# https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-scaling.html: five at first; here it stays at that
CONCURRENT_BATCHES = 5
POLL_EVERY_S = 0.05
"""AWS polls a shard once a second; here a person or a test waits for the answer."""
CATCH_UP_S = 30.0
"""How long to wait for what is under way before the clock is put forward, at most."""
POLL_SELDOM_S = 0.5
"""How far apart looks at what stays empty become: each costs a few milliseconds of processor time."""
FIRST_PAUSE_S = 0.05
LONGEST_PAUSE_S = 1.0


class _Pauses:
    """Waits that grow until they are reset, and that end when the mapping is stopped."""

    def __init__(self, stopped: threading.Event, first_s: float, longest_s: float, growth: float) -> None:
        self._stopped = stopped
        self._next_s = self._first_s = first_s
        self._longest_s, self._growth = longest_s, growth

    def wait(self) -> None:
        self._stopped.wait(self._next_s)
        self._next_s = min(self._longest_s, self._next_s * self._growth)

    def reset(self) -> None:
        self._next_s = self._first_s


def _after_failures(stopped: threading.Event) -> _Pauses:
    return _Pauses(stopped, FIRST_PAUSE_S, LONGEST_PAUSE_S, 2)


def _between_looks(stopped: threading.Event) -> _Pauses:
    return _Pauses(stopped, POLL_EVERY_S, POLL_SELDOM_S, 1.2)


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


@dataclass(frozen=True)
class _Mapped:
    """What the shards and lanes of a mapping share."""

    settings: KinesisSettings
    kinesis: Any
    send: Send
    invoke: Invoke
    clock: Now
    stopped: threading.Event
    enabled: threading.Event
    hurried: threading.Event
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
        clock: Now = real_time,
        *,
        observe: Observe = unobserved,
    ) -> None:
        stopped, enabled, hurried = threading.Event(), threading.Event(), threading.Event()
        enabled.set()
        self._mapped = _Mapped(
            settings, kinesis, send, invoke, clock, stopped, enabled, hurried, _Redeliveries(), observe
        )
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
        """Ask the stream whether all that it holds now is done or given up; while disabled, what was read."""
        return bool(self._shards) and all(shard.idle() for shard in self._shards)

    def catch_up(self, timeout_s: float = CATCH_UP_S) -> bool:
        """Wait until all that the stream holds now is done, or was tried and failed; no window is waited for.

        Before the clock is put forward: otherwise records would become too old that on AWS were not.

        Args:
            timeout_s: How long to wait at most, in seconds.

        Returns:
            Whether it was so in this time.
        """
        deadline = time.monotonic() + timeout_s
        self._mapped.hurried.set()
        while not (caught_up := all(shard.has_caught_up() for shard in self._shards)):
            if time.monotonic() >= deadline:
                break
            self._mapped.stopped.wait(POLL_EVERY_S)
        self._mapped.hurried.clear()
        return caught_up

    def enable(self, enabled: bool) -> None:
        """Read the stream, or stop reading and work off what was read."""
        if enabled:
            self._mapped.enabled.set()
            return
        self._mapped.enabled.clear()
        for shard in self._shards:
            shard.finish_reading()

    def redeliver(self, batches: int = 1) -> None:
        """Deliver the next batches that succeed a second time, as AWS may: a fault to be asked for.

        Args:
            batches: How many; 0 takes back what was asked for.
        """
        self._mapped.redeliveries.ask(batches)


class _Shard:
    """Reads one shard and hands each record to the lane of its partition key."""

    def __init__(self, mapped: _Mapped, shard_id: str) -> None:
        self.shard_id = shard_id
        self._mapped = mapped
        settings = mapped.settings
        self._wanted = threading.Event()
        self._reading = threading.Lock()
        self.lanes = [_Lane(mapped, shard_id, self._wanted) for _ in range(settings.parallelization_factor)]
        self._position: dict[str, Any] = {"ShardIteratorType": settings.starting_position}
        if settings.starting_timestamp is not None:
            self._position["Timestamp"] = settings.starting_timestamp
        self._pauses = _after_failures(mapped.stopped)
        self._looks = _between_looks(mapped.stopped)
        self._iterator: str | None = self._iterator_at_position()
        # All before this iterator is done; it only moves when nothing that was read is unfinished.
        self._done_to: str | None = self._iterator
        self._resting = True
        if settings.starting_position == "LATEST":
            # The iterator that replaces an expired one must not leave out what came meanwhile.
            self._position = {"ShardIteratorType": "AT_TIMESTAMP", "Timestamp": mapped.clock()}

    def run(self) -> None:
        while not self._mapped.stopped.is_set():
            if not self._mapped.enabled.wait(POLL_SELDOM_S):
                continue
            try:
                self._look()
            # A mapping never dies: a stream that cannot be read now is read later.
            except Exception:
                logger.exception("shard %s of %s", self.shard_id, self._mapped.settings.stream_arn)
                self._pauses.wait()

    def _look(self) -> None:
        try:
            with self._reading:
                if self._mapped.enabled.is_set():
                    self._fetch()
        except self._mapped.kinesis.exceptions.ExpiredIteratorException:
            # After 5 minutes: https://docs.aws.amazon.com/kinesis/latest/APIReference/API_GetRecords.html
            self._iterator = self._iterator_at_position()

    def finish_reading(self) -> None:
        """Wait for the read that is on its way."""
        with self._reading:
            pass

    def idle(self) -> bool:
        if not self._mapped.enabled.is_set():
            return not any(lane.busy for lane in self.lanes)
        if not self._resting:
            return False
        if self._done_to is None:
            return True
        try:
            response = self._mapped.kinesis.get_records(ShardIterator=self._done_to, Limit=1)
        except self._mapped.kinesis.exceptions.ExpiredIteratorException:
            return False  # The next fetch brings one that has not.
        return not response["Records"] and response["MillisBehindLatest"] == 0

    def has_caught_up(self) -> bool:
        """Tell whether all is done but what failed, and what waits for that."""
        if any(lane.fails for lane in self.lanes):
            return all(lane.fails or not lane.busy for lane in self.lanes)
        try:
            return self.idle()
        except (BotoCoreError, ClientError):
            return True  # A stream that cannot be read was tried, too.

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
            ShardIterator=self._iterator, Limit=min(room, batches.MAX_KINESIS_BATCH)
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
            by_lane.setdefault(batches.lane_of(record.partition_key, len(self.lanes)), []).append(record)
        for lane, of_lane in by_lane.items():
            self.lanes[lane].put(of_lane)

    def _rest(self) -> None:
        if not any(lane.busy for lane in self.lanes):
            self._done_to = self._iterator
            self._resting = True
        self._looks.wait()


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
        self._pauses = _after_failures(mapped.stopped)
        # Whether the first piece of work was tried and is still there.
        self.fails = False

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def busy(self) -> bool:
        with self._changed:
            return bool(self._waiting or self._work)

    def put(self, records: Iterable[StreamRecord]) -> None:
        sized = [
            (record, batches.record_bytes(record, self._shard_id, self._settings.stream_arn))
            for record in records
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
                # It was not invoked, so this is not a retry: only the records' age ends it.
                logger.debug("%s", error)
                self.fails = True
                self._pauses.wait()
            # A mapping never dies: whatever failed (the destination, the call) is tried again.
            except Exception:
                logger.exception("shard %s of %s", self._shard_id, self._settings.stream_arn)
                self.fails = True
                self._pauses.wait()

    def _gather(self) -> None:
        with self._changed:
            sizes = (size for _, size in self._waiting)
            length = batches.batch_length(sizes, self._settings.batch_size)
            full = length == self._settings.batch_size or length < len(self._waiting)
            due = time.monotonic() - self._waiting_since >= self._settings.window_s
            due |= self._mapped.hurried.is_set()
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
            left = batches.without_expired(first, self._mapped.clock(), self._settings.maximum_record_age_s)
            if left == [first]:
                left = self._send(first)
        failed = (
            bool(left)
            and isinstance(first, Batch)
            and isinstance(left[0], Batch)
            and left[0].failures > first.failures
        )
        with self._changed:
            self._work.popleft()
            self._work.extendleft(reversed(left))
            self.fails = failed or left == [first]
        if failed:
            self._pauses.wait()

    def _send(self, batch: Batch) -> list[Batch | GivenUp]:
        arn = self._settings.stream_arn
        payload = batches.whole_event(
            batches.event_record(record, self._shard_id, arn) for record in batch.records
        )
        if len(payload) > MAX_PAYLOAD_BYTES:
            # Only a record of a stream with an enlarged MaxRecordSize can be too large by itself. The service
            # sends it to the destination; under which condition is not documented.
            return [GivenUp(batch, "PayloadSizeExceeded")]
        # Of the last record: https://docs.aws.amazon.com/lambda/latest/dg/monitoring-metrics-types.html
        age_ms = (self._mapped.clock() - batch.records[-1].arrived).total_seconds() * 1000
        self._mapped.observe({"FunctionName": self._settings.function}, {"IteratorAge": max(0.0, age_ms)})
        result = self._mapped.invoke(self._settings.function, payload)
        self._last_result = result
        identifiers = [record.sequence_number for record in batch.records]
        failed_at = batches.first_failure(result, identifiers, self._settings.report_batch_item_failures)
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
        return batches.after_failure(batch, failed_at, self._settings)

    def _keep(self, given_up: GivenUp) -> None:
        """Send what is given up to the on-failure destination; without one that takes it, it is gone."""
        records = given_up.batch.records
        logger.warning("gave up %d records of %s: %s", len(records), self._shard_id, given_up.condition)
        counted = (
            "OnFailureDestinationDeliveredEventCount" if self._is_kept(given_up) else "DroppedEventCount"
        )
        mapping = {"EventSourceMappingUUID": self._settings.mapping_id}
        self._mapped.observe(mapping, {counted: len(records)})

    def _is_kept(self, given_up: GivenUp) -> bool:
        """Send what is given up to the on-failure destination, and tell whether there is one that took it."""
        if self._settings.on_failure_arn is None:
            return False
        now = self._mapped.clock()
        document = batches.failure_document(given_up, self._last_result, self._shard_id, self._settings, now)
        key = batches.failure_key(self._settings.mapping_id, self._shard_id, now)
        try:
            self._mapped.send(self._settings.on_failure_arn, document, key)
        except ClientError as error:
            if not is_refusal(error):
                raise
            logger.warning("%s does not take them: %s", self._settings.on_failure_arn, error)
            return False
        return True


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
        self._stopped, self._enabled = threading.Event(), threading.Event()
        self._enabled.set()
        self._pauses = _after_failures(self._stopped)
        self._looks = _between_looks(self._stopped)
        self._thread = threading.Thread(target=self._run, name=f"mapping {settings.queue_arn}", daemon=True)
        self._received: deque[dict[str, Any]] = deque()
        self._received_since = 0.0
        self._counting = threading.Lock()
        self._under_way = 0  # batches
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
        """Tell whether no batch is under way and the queue has no message, in flight and delayed ones too."""
        # The queue may have moved a message to the dead letters whose invocation is still running.
        with self._counting:
            if self._received or self._under_way:
                return False
        # The queue counts each kind in turn, and a message that changes its kind meanwhile is in no count: a
        # second answer has it.
        return not self._messages() and not self._messages()

    def _messages(self) -> int:
        names = [f"ApproximateNumberOfMessages{which}" for which in ("", "NotVisible", "Delayed")]
        counts = self._sqs.get_queue_attributes(QueueUrl=self._settings.queue_url, AttributeNames=names)
        return sum(int(counts["Attributes"][name]) for name in names)

    def enable(self, enabled: bool) -> None:
        """Receive messages, or stop receiving them once the receive that is on its way has ended."""
        (self._enabled.set if enabled else self._enabled.clear)()

    def redeliver(self, batches: int = 1) -> None:
        """Deliver the next batches that succeed a second time, as AWS may: a fault to be asked for.

        Args:
            batches: How many; 0 takes back what was asked for.
        """
        self._redeliveries.ask(batches)

    def _run(self) -> None:
        while not self._stopped.is_set():
            if not self._enabled.wait(POLL_SELDOM_S):
                continue
            # Messages are received only for an invocation that can be made: their timeout runs from then on.
            if not self._free.acquire(timeout=POLL_EVERY_S):
                continue
            try:
                batch = self._gather()
            # A mapping never dies: whatever failed, the messages become visible and are received again.
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
                self._receive(min(self._settings.batch_size - before, batches.RECEIVE_LIMIT))
            full = len(self._received) >= self._settings.batch_size
            if self._received and (
                full or time.monotonic() - self._received_since >= self._settings.window_s
            ):
                sizes = (len(json.dumps(message)) for message in self._received)
                length = batches.batch_length(sizes, self._settings.batch_size)
                with self._counting:
                    self._under_way += 1
                    return [self._received.popleft() for _ in range(length)]
            if len(self._received) == before:
                self._looks.wait()
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
        self._received.extend(
            batches.event_message(message, self._settings.queue_arn) for message in messages
        )

    def _work_off(self, messages: list[dict[str, Any]]) -> None:
        try:
            self._send(messages)
        except ThrottledError as error:
            logger.debug("%s", error)
            self._pauses.wait()
        # The messages become visible and are received again.
        except Exception:
            logger.exception("queue %s", self._settings.queue_arn)
            self._pauses.wait()
        finally:
            with self._counting:
                self._under_way -= 1
            self._free.release()

    def _send(self, messages: list[dict[str, Any]]) -> None:
        payload = batches.whole_event(messages)
        result = self._invoke(self._settings.function, payload)
        identifiers = [message["messageId"] for message in messages]
        failed = batches.failed_positions(result, identifiers, self._settings.report_batch_item_failures)
        if not failed and self._redeliveries.take():
            result = self._invoke(self._settings.function, payload)
            failed = batches.failed_positions(result, identifiers, self._settings.report_batch_item_failures)
        if failed:
            logger.info(
                "%s failed on %d of %d: %.300r",
                self._settings.function,
                len(failed),
                len(messages),
                result.payload,
            )
        done = [message for place, message in enumerate(messages) if place not in failed]
        for first in range(0, len(done), batches.RECEIVE_LIMIT):
            self._sqs.delete_message_batch(
                QueueUrl=self._settings.queue_url,
                Entries=[
                    {"Id": str(place), "ReceiptHandle": message["receiptHandle"]}
                    for place, message in enumerate(done[first : first + batches.RECEIVE_LIMIT])
                ],
            )
